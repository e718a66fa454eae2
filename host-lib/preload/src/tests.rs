//! Calls by their names in libc, which are this library's in the test's program as well.

#[path = "../../sockets/tests/world/mod.rs"]
mod world;

use std::ptr::{null, null_mut};

/// What the other program has used is its parent's again once it is needed there.
#[test]
fn who_spawns_a_program_has_its_connection_back() {
    let (client, server) = world::pair();
    let (mut pid, argv) = (0, [c"true".as_ptr().cast_mut(), null_mut()]);
    // SAFETY: all arguments are as in the manual page.
    let error = unsafe { libc::posix_spawnp(&raw mut pid, c"true".as_ptr(), null(), null(), argv.as_ptr(), null()) };
    assert_eq!(error, 0);
    // SAFETY: no status is asked for.
    assert_eq!(unsafe { libc::waitpid(pid, null_mut(), 0) }, pid);
    world::assert_has_it_back(client, server);
}

/// The kernel does not know our sockets: who would use a ring for them is to use epoll instead.
#[test]
fn there_is_no_io_uring() {
    let mut parameters = [0u8; 120];
    // SAFETY: the size of an io_uring_params.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) };
    assert_eq!((ring, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOSYS)));
}
