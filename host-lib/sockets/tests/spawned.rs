//! A program that was started by vfork() and exec(), with a socket of ours. Alone in its process, which knows that from then on.

mod world;

use toe_sockets::close;

/// The child of a vfork(): it has its parent's memory, and a stack of its own.
extern "C" fn child(_: *mut libc::c_void) -> libc::c_int {
    close::exec();
    0
}

/// What the other program has used is its parent's again once it is needed there.
#[test]
fn the_parent_has_its_connection_back() {
    let (client, server) = world::pair();
    let mut stack = vec![0u8; 1 << 20];
    let top = stack.as_mut_ptr_range().end.cast();
    // SAFETY: this thread waits while the child runs on a stack of its own, and the child does nothing that lasts.
    let pid = unsafe { libc::clone(child, top, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, std::ptr::null_mut()) };
    assert!(pid > 0);
    // SAFETY: no status is asked for.
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
    world::assert_has_it_back(client, server);
}
