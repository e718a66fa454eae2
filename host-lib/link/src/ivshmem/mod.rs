//! QEMU's protocol for memory that virtual machines and processes share (specs/ivshmem-spec, "Client-Server protocol", version 0).
//!
//! ```text
//!   server ──► peer:   0 (version) │ its id │ -1 + memory │ id + eventfd, once per vector, of every other peer, then of itself
//!              later:  id + eventfd, once per vector: who has joined          id alone: who has left
//! ```
//!
//! Each message is a 64-bit little-endian integer on a stream socket, with at most one descriptor. Peers send nothing. To interrupt
//! vector v of a peer, write its v-th eventfd; what others write to one's own eventfds are one's interrupts.

mod membership;

pub use membership::{Membership, PEERS_MAX};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use std::mem::MaybeUninit;

/// The only version there is.
pub const VERSION: i64 = 0;
/// Announces the shared memory.
pub const MEMORY: i64 = -1;
/// Bytes of a message.
pub const MESSAGE_LEN: usize = 8;

/// Why a peer can't go on with its server.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    #[error("the server has closed the connection")]
    Closed,
    #[error("reading from the server: {0}")]
    Os(Errno),
    #[error("the server speaks version {0} of the protocol, not {VERSION}")]
    Version(i64),
    #[error("message {value} does not belong {place}")]
    Unexpected { value: i64, place: &'static str },
    #[error("a message came with {0} descriptors")]
    Descriptors(usize),
    #[error("the server names more than {0} peers, or vectors of one")]
    TooMany(usize),
}

/// Sends one message. [`Errno::AGAIN`]: the peer does not read; nothing was sent.
pub fn send(socket: impl AsFd, value: i64, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: &[BorrowedFd<'_>] = fd.as_slice();
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    let bytes = value.to_le_bytes();
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            Ok(MESSAGE_LEN) => return Ok(()),
            // The kernel takes so few bytes whole or not at all; half a message can't be mended.
            Ok(_) => return Err(Errno::IO),
            Err(e) => return Err(e),
        }
    }
}

/// Puts messages together from what arrives.
#[derive(Debug, Default)]
pub struct Receiver {
    bytes: [u8; MESSAGE_LEN],
    have: usize,
    fd: Option<OwnedFd>,
}

impl Receiver {
    /// The next message, if it is there. Never blocks.
    pub fn next(&mut self, socket: impl AsFd) -> Result<Option<(i64, Option<OwnedFd>)>, ProtocolError> {
        while self.have < MESSAGE_LEN {
            match self.read(&socket) {
                Ok(()) => {}
                Err(ProtocolError::Os(Errno::AGAIN)) => return Ok(None),
                Err(ProtocolError::Os(Errno::INTR)) => {}
                Err(ProtocolError::Os(Errno::CONNRESET)) => return Err(ProtocolError::Closed),
                Err(e) => return Err(e),
            }
        }
        self.have = 0;
        Ok(Some((i64::from_le_bytes(self.bytes), self.fd.take())))
    }

    fn read(&mut self, socket: impl AsFd) -> Result<(), ProtocolError> {
        // Room for more than there may be, so that a breach is seen as one.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.bytes[self.have..])];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let message = rustix::net::recvmsg(socket, &mut parts, &mut ancillary, flags).map_err(ProtocolError::Os)?;
        let mut fds: Vec<OwnedFd> = self.fd.take().into_iter().collect();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                fds.extend(received);
            }
        }
        if fds.len() > 1 || message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ProtocolError::Descriptors(fds.len()));
        }
        self.fd = fds.pop();
        if message.bytes == 0 {
            return Err(ProtocolError::Closed);
        }
        self.have += message.bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    fn pair() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn eventfd() -> OwnedFd {
        rustix::event::eventfd(7, rustix::event::EventfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn messages_keep_their_descriptors_apart() {
        let (server, peer) = pair();
        let fd = eventfd();
        send(&server, VERSION, None).unwrap();
        send(&server, MEMORY, Some(fd.as_fd())).unwrap();
        send(&server, 3, Some(fd.as_fd())).unwrap();
        send(&server, 3, None).unwrap();
        let mut receiver = Receiver::default();
        let mut got = Vec::new();
        while let Some((value, fd)) = receiver.next(&peer).unwrap() {
            got.push((value, fd.is_some()));
        }
        assert_eq!(got, [(0, false), (-1, true), (3, true), (3, false)]);
        drop(server);
        assert_eq!(receiver.next(&peer).unwrap_err(), ProtocolError::Closed);
    }

    #[test]
    fn a_message_that_comes_in_pieces_is_put_together() {
        let (server, peer) = pair();
        let mut receiver = Receiver::default();
        let bytes = 0x0102_0304_0506_0708_i64.to_le_bytes();
        rustix::io::write(&server, &bytes[..3]).unwrap();
        assert!(receiver.next(&peer).unwrap().is_none());
        rustix::io::write(&server, &bytes[3..]).unwrap();
        assert_eq!(receiver.next(&peer).unwrap().map(|(v, _)| v), Some(0x0102_0304_0506_0708));
    }

    #[test]
    fn two_descriptors_in_one_message_are_refused() {
        let (server, peer) = pair();
        let fd = eventfd();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd.as_fd(), fd.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        rustix::net::sendmsg(&server, &[IoSlice::new(&[0; 8])], &mut ancillary, SendFlags::empty()).unwrap();
        assert_eq!(Receiver::default().next(&peer).unwrap_err(), ProtocolError::Descriptors(2));
    }

    #[test]
    fn a_peer_that_does_not_read_is_reported_and_blocks_nobody() {
        let (server, _peer) = pair();
        let fd = eventfd();
        let sent = (0..1_000_000).take_while(|_| send(&server, 1, Some(fd.as_fd())).is_ok()).count();
        assert!(sent > 10 && sent < 1_000_000);
    }
}
