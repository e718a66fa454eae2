//! Applications for the simulation, written against libtoe's native interface.

use super::host::{App, SimDaemon};
use super::stream::Duplex;
use super::world::Scripted;
use rustix::io::Errno;
use toe::{Context, Error, Event, SocketId};
use toe_link::slot::Addr;

/// Carries a [`Duplex`] over one connection, opened by either side.
pub struct Carrier {
    role: Role,
    duplex: Duplex,
    socket: Option<SocketId>,
    /// Does not read before this time (closes the peer's window), microseconds.
    read_after_us: u64,
    now_us: u64,
    /// After so many bytes it says nothing until this time, microseconds.
    silence: (u64, u64),
    keepalive: bool,
    early: Option<Early>,
    closed: bool,
    /// Its socket has been closed: nothing more to do.
    gone: bool,
    /// The error that ended the connection before it was done.
    pub error: Option<Error>,
}

/// How a connection ends by a reset before all is carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Early {
    /// It is aborted.
    Abort,
    /// It is closed, and what comes is not read.
    Close,
    /// By the peer.
    Peer,
}

/// What is received before that.
const EARLY_BYTES: u64 = 20_000;

enum Role {
    Listen { port: u16, listener: Option<SocketId> },
    Connect { to: Addr },
}

impl Carrier {
    pub fn listener(port: u16, duplex: Duplex) -> Self {
        Self::new(Role::Listen { port, listener: None }, duplex)
    }

    pub fn connector(to: Addr, duplex: Duplex) -> Self {
        Self::new(Role::Connect { to }, duplex)
    }

    fn new(role: Role, duplex: Duplex) -> Self {
        Self {
            role,
            duplex,
            socket: None,
            read_after_us: 0,
            now_us: 0,
            silence: (0, 0),
            keepalive: false,
            early: None,
            closed: false,
            gone: false,
            error: None,
        }
    }

    pub fn reads_after(mut self, us: u64) -> Self {
        self.read_after_us = us;
        self
    }

    /// Says nothing between its first `bytes` and the time `until_us`.
    pub fn silent_after(mut self, bytes: u64, until_us: u64) -> Self {
        self.silence = (bytes, until_us);
        self
    }

    /// Asks for SO_KEEPALIVE.
    pub fn keeps_alive(mut self) -> Self {
        self.keepalive = true;
        self
    }

    /// Ends early, or expects its peer to.
    pub fn ends(mut self, early: Early) -> Self {
        self.early = Some(early);
        self
    }

    /// Bytes sent and received.
    pub fn progress(&self) -> (u64, u64) {
        self.duplex.progress()
    }

    /// Whether it waits for the end of its silence.
    fn is_silent(&self) -> bool {
        let (bytes, until_us) = self.silence;
        self.now_us < until_us && self.duplex.progress().0 >= bytes
    }

    fn open(&mut self, toe: &mut Context<SimDaemon>) -> Result<(), Error> {
        match &mut self.role {
            Role::Listen { listener: Some(listener), .. } => self.socket = toe.accept(*listener)?,
            Role::Listen { port, listener } => *listener = Some(toe.listen(Addr::v6([0; 16], *port), 16)?),
            Role::Connect { to } => self.socket = Some(toe.connect(*to)?),
        }
        Ok(())
    }

    fn carry(&mut self, toe: &mut Context<SimDaemon>, id: SocketId) -> Result<bool, Error> {
        let mut worked = false;
        if std::mem::take(&mut self.keepalive) {
            toe.set_keepalive(id, true)?;
        }
        while !self.duplex.all_sent() && !self.is_silent() {
            let piece = self.duplex.next_piece();
            let Some(n) = toe.send(id, &piece)? else { break };
            self.duplex.sent(n);
            worked = true;
            if n < piece.len() {
                break;
            }
        }
        if self.duplex.all_sent() && !self.closed {
            toe.shutdown(id)?;
            self.closed = true;
            worked = true;
        }
        worked |= self.read(toe, id)?;
        self.end(toe, id)?;
        Ok(worked)
    }

    fn end(&mut self, toe: &mut Context<SimDaemon>, id: SocketId) -> Result<(), Error> {
        let early = self.early.filter(|_| self.duplex.progress().1 >= EARLY_BYTES);
        match early {
            Some(Early::Abort) => toe.abort(id)?,
            Some(Early::Close) => toe.close(id),
            _ if self.duplex.done() => toe.close(id),
            _ => return Ok(()),
        }
        self.gone = true;
        Ok(())
    }

    fn read(&mut self, toe: &mut Context<SimDaemon>, id: SocketId) -> Result<bool, Error> {
        let mut worked = false;
        let mut buf = [0; 4096];
        while self.now_us >= self.read_after_us && !self.duplex.ended {
            match toe.recv(id, &mut buf)? {
                None => break,
                Some(0) => self.duplex.ended = true,
                Some(n) => self.duplex.received(&buf[..n]),
            }
            worked = true;
        }
        Ok(worked)
    }
}

impl App for Carrier {
    fn run(&mut self, toe: &mut Context<SimDaemon>, _events: &[Event], now_us: u64) -> bool {
        self.now_us = now_us;
        if self.error.is_some() || self.gone {
            return false;
        }
        let had = self.socket;
        let result = match self.socket {
            None => self.open(toe).map(|()| self.socket != had),
            Some(id) => self.carry(toe, id),
        };
        match result {
            Ok(worked) => worked,
            Err(e) => {
                self.error = Some(e);
                false
            }
        }
    }

    fn next_us(&self) -> Option<u64> {
        [self.read_after_us, self.silence.1].into_iter().filter(|at| self.now_us < *at).min()
    }
}

impl Scripted for Carrier {
    fn done(&self) -> bool {
        self.duplex.done() || self.early.is_some() && (self.gone || self.error.is_some())
    }

    fn refused(&self) -> bool {
        let unreached = matches!(self.error, Some(Error::Os(Errno::HOSTUNREACH | Errno::TIMEDOUT)));
        unreached && self.duplex.progress() == (0, 0)
    }

    fn describe(&self) -> String {
        let progress = self.duplex.progress();
        format!("socket {:?}, sent and received {progress:?}, error {:?}", self.socket, self.error)
    }
}
