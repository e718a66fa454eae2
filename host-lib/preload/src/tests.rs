//! Calls by their names in libc, which are this library's in the test's program as well.

#[path = "../../sockets/tests/world/mod.rs"]
mod world;

use std::ptr::{null, null_mut};
use toe_sockets::Sock;

fn fresh() -> libc::c_int {
    world::start();
    // SAFETY: numbers only.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
    assert!(Sock::find(fd).is_some());
    fd
}

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

/// Programs ask about interfaces through any socket that they have.
#[test]
fn interfaces_are_asked_about_through_a_socket() {
    // SAFETY: zeroes are an ifreq.
    let mut asked: libc::ifreq = unsafe { std::mem::zeroed() };
    asked.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    // SAFETY: the request takes an ifreq.
    let result = unsafe { libc::ioctl(fresh(), libc::SIOCGIFADDR, &raw mut asked) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the answer is an address.
    assert_eq!(unsafe { asked.ifr_ifru.ifru_addr.sa_family }, libc::AF_INET as libc::sa_family_t);
}

/// The kernel does not know our sockets: who would use a ring for them is to use epoll instead.
#[test]
fn there_is_no_io_uring() {
    let mut parameters = [0u8; 120];
    // SAFETY: the size of an io_uring_params.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) };
    assert_eq!((ring, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOSYS)));
}
