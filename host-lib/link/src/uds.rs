//! Messages with descriptors over SOCK_SEQPACKET UNIX sockets.
//!
//! Everything is bounded: one message at a time, at most [`FDS_MAX`] descriptors with it. Descriptors received are
//! close-on-exec from the first moment. Closing them is the receiver's business even if the message is refused: the last close
//! of a file may take long, and the receiver decides who waits for it.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};
use std::mem::MaybeUninit;
use std::path::Path;

/// Most descriptors in one message.
pub const FDS_MAX: usize = 32;
/// Most that the kernel lets anybody send (SCM_MAX_FD): with room for all, it closes none of them on our time.
const FDS_ANY: usize = 253;

/// Connects to the daemon's socket at `path`. The result blocks.
pub fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    let addr = SocketAddrUnix::new(path)?;
    let fd = seqpacket(SocketFlags::CLOEXEC)?;
    rustix::net::connect(&fd, &addr)?;
    Ok(fd)
}

/// Listens at `path`, which must not exist. The result does not block.
pub fn listen(path: &Path, backlog: i32) -> Result<OwnedFd, Errno> {
    let addr = SocketAddrUnix::new(path)?;
    let fd = seqpacket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::bind(&fd, &addr)?;
    rustix::net::listen(&fd, backlog)?;
    Ok(fd)
}

/// Takes one connection; it does not block. [`Errno::AGAIN`]: none waits.
pub fn accept(listener: impl AsFd) -> Result<OwnedFd, Errno> {
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

fn seqpacket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Two connected ends of a token: a socketpair whose last close on the application's side the daemon sees as HUP.
pub fn token_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Sends one message. With a socket that doesn't block, [`Errno::AGAIN`] means that the other side does not read.
pub fn send(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    if fds.len() > FDS_MAX {
        return Err(Errno::INVAL);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Ok(n) if n == message.len() => return Ok(()),
            Ok(_) => return Err(Errno::MSGSIZE),
            Err(e) => return Err(e),
        }
    }
}

/// Receives one message into `buf`; its descriptors are appended to `fds`. 0: the other side has gone.
///
/// [`Errno::MSGSIZE`]: the message, or the number of descriptors, was larger than agreed. The descriptors are in `fds` all the same.
/// [`Errno::MFILE`]: this process had no numbers left for all descriptors, and those that it had some for are in `fds`.
pub fn recv(socket: impl AsFd, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_ANY))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(buf)];
        match rustix::net::recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
            Ok(m) => break m,
        }
    };
    let before = fds.len();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::TRUNC) || fds.len() - before > FDS_MAX {
        return Err(Errno::MSGSIZE);
    }
    // There was room for as many as the kernel lets anybody send.
    if message.flags.contains(ReturnFlags::CTRUNC) { Err(Errno::MFILE) } else { Ok(message.bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn pair() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (a, b) = pair();
        let (token, other) = token_pair().unwrap();
        send(&a, b"hello", &[token.as_fd(), other.as_fd()]).unwrap();
        let (mut buf, mut fds) = ([0; 16], Vec::new());
        assert_eq!(recv(&b, &mut buf, &mut fds), Ok(5));
        assert_eq!(&buf[..5], b"hello");
        assert_eq!(fds.len(), 2);
        let flags = rustix::io::fcntl_getfd(&fds[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_and_its_descriptors_handed_over() {
        let (a, b) = pair();
        let (token, _other) = token_pair().unwrap();
        send(&a, &[7; 32], &[token.as_fd()]).unwrap();
        let (mut buf, mut fds) = ([0; 16], Vec::new());
        assert_eq!(recv(&b, &mut buf, &mut fds), Err(Errno::MSGSIZE));
        assert_eq!(fds.len(), 1);
    }

    #[test]
    fn more_descriptors_than_agreed_are_refused_and_handed_over() {
        let (a, b) = pair();
        let (token, _other) = token_pair().unwrap();
        // Our own side refuses to send so many; another's would not.
        let many = [token.as_fd(); FDS_ANY];
        assert_eq!(send(&a, b"x", &many), Err(Errno::INVAL));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_ANY))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&many)));
        rustix::net::sendmsg(&a, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty()).unwrap();
        let (mut buf, mut fds) = ([0; 16], Vec::new());
        assert_eq!(recv(&b, &mut buf, &mut fds), Err(Errno::MSGSIZE));
        assert_eq!(fds.len(), FDS_ANY);
    }

    #[test]
    fn the_end_of_a_connection_is_zero_bytes() {
        let (a, b) = pair();
        drop(a);
        assert_eq!(recv(&b, &mut [0; 16], &mut Vec::new()), Ok(0));
    }

    #[test]
    fn the_last_close_of_a_token_is_a_hangup_at_the_other_end() {
        let (app, daemon) = token_pair().unwrap();
        let copy = rustix::io::dup(&app).unwrap();
        drop(app);
        let poll = |fd: &OwnedFd| {
            let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
            let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            rustix::event::poll(&mut fds, Some(&zero)).unwrap();
            fds[0].revents().contains(rustix::event::PollFlags::HUP)
        };
        assert!(!poll(&daemon), "one copy (descriptor {}) is open", copy.as_raw_fd());
        drop(copy);
        assert!(poll(&daemon));
    }
}
