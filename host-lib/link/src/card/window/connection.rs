//! toed as a peer of the window: its socket to the server, and who is there.

use super::super::CardError;
use crate::ivshmem::{Membership, ProtocolError, Receiver};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// A server that has not greeted by then is none.
const GREETED_WITHIN: Duration = Duration::from_secs(5);
/// Messages taken before somebody else gets a turn.
const BATCH: usize = 4096;

/// A connection to the server.
pub(super) struct Connection {
    socket: OwnedFd,
    receiver: Receiver,
    view: Membership,
}

impl Connection {
    /// Connects, and waits until the server has said what every peer is told.
    pub fn open(path: &Path) -> Result<Self, CardError> {
        let name = || path.display().to_string();
        let refuse = |e: Errno| CardError::NoWindow { path: name(), error: e.to_string() };
        let address = SocketAddrUnix::new(path).map_err(refuse)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(refuse)?;
        rustix::net::connect(&socket, &address).map_err(refuse)?;
        let mut connection = Self { socket, receiver: Receiver::default(), view: Membership::default() };
        let end = Instant::now() + GREETED_WITHIN;
        loop {
            connection.pump(None).map_err(|e| CardError::BadWindow { path: name(), problem: e.to_string() })?;
            if connection.view.memory().is_some() && !connection.view.own().is_empty() {
                return Ok(connection);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let problem = format!("its server has not greeted within {} s", GREETED_WITHIN.as_secs());
                return Err(CardError::BadWindow { path: name(), problem });
            }
            connection.wait(left);
        }
    }

    pub fn view(&self) -> &Membership {
        &self.view
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// A copy of the window's descriptor.
    pub fn memory(&self) -> Result<OwnedFd, CardError> {
        let copied = self.view.memory().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 0));
        copied.unwrap_or(Err(Errno::BADF)).map_err(|e| CardError::Os { step: "the window's descriptor", error: e.into() })
    }

    /// Takes in what the server has said. `true`: `card` has left.
    pub fn pump(&mut self, card: Option<u16>) -> Result<bool, ProtocolError> {
        let mut gone = false;
        for _ in 0..BATCH {
            let Some((value, fd)) = self.receiver.next(&self.socket)? else { break };
            let left = self.view.take(value, fd)?;
            gone |= left.is_some() && left == card;
        }
        Ok(gone)
    }

    /// Sleeps until the server says something or somebody signals vector 0, at most `timeout`. Vector 0 is quiet afterwards.
    pub fn wait(&self, timeout: Duration) {
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
        let signal = self.view.own().first();
        fds.extend(signal.map(|fd| PollFd::new(fd, PollFlags::IN)));
        // A time that cannot be expressed, or a signal: the caller looks again and has a deadline.
        if let Ok(timeout) = timeout.try_into() {
            let _ = poll(&mut fds, Some(&timeout));
        }
        if let Some(fd) = signal {
            // AGAIN: nobody has signalled.
            let _ = rustix::io::read(fd, &mut [0; 8]);
        }
    }
}
