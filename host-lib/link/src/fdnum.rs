//! Descriptor numbers for the library's own files: high, where programs do not look.
//!
//! Programs expect the lowest free number from socket() and open(), and some count on 0, 1 and 2 or close all small ones.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

/// Numbers from here on are not used for our files: a process pays for its highest descriptor at fork.
const CEILING: u64 = 3840;
/// How many numbers under the limit are left for our files, at least.
const ROOM: u64 = 256;

/// The lowest number for our own descriptors, below the process's limit.
pub fn floor() -> i32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let floor = if limit > 2 * ROOM { limit - ROOM } else { limit / 2 };
    floor.min(CEILING) as i32
}

/// Moves a descriptor to a high number, close-on-exec. If there is none left, it stays where it is.
pub fn raise(fd: OwnedFd) -> OwnedFd {
    rustix::io::fcntl_dupfd_cloexec(&fd, floor()).unwrap_or(fd)
}

/// A copy at the lowest free number, for the application.
pub fn lower(fd: impl AsFd, cloexec: bool) -> Result<OwnedFd, Errno> {
    if cloexec { rustix::io::fcntl_dupfd_cloexec(fd, 0) } else { rustix::io::dup(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn ours_are_high_and_theirs_low() {
        let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        let fd = raise(fd);
        assert!(fd.as_raw_fd() >= floor());
        let low = lower(&fd, true).unwrap();
        assert!(low.as_raw_fd() < floor());
        assert!(rustix::io::fcntl_getfd(&low).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
}
