//! A listener that went to another process and comes back. Alone in its process, which passes for toed.

mod world;

use std::os::fd::{AsRawFd, IntoRawFd};
use toe::link::sys::AppFd;
use toe_sockets::open::{Outcome, socket};
use toe_sockets::{Errno, Sock, close};

/// Who has closed it and gets it again hears of its connections at once.
#[test]
fn a_listener_that_comes_back_is_listened_to() {
    world::start();
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0).unwrap().unwrap();
    assert_eq!(Sock::find(fd).unwrap().listen(8), Ok(Outcome::Done));
    // Tokens are known by who made them.
    std::fs::write("/proc/self/comm", "toed").unwrap();
    close::sent(fd);
    let elsewhere = rustix::io::dup(AppFd(fd)).unwrap();
    close::close(fd).unwrap();
    close::received(elsewhere.as_raw_fd());
    let listener = Sock::find(elsewhere.into_raw_fd()).unwrap();
    assert_eq!(listener.accept(0).map(drop), Err(Errno::AGAIN));
    assert_eq!(world::subscriptions(), 1);
}
