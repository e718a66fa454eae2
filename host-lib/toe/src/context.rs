//! The native interface: one context, its sockets, events in batches.
//!
//! Nothing blocks except [`Context::wait`]. Sending and receiving note what the card has to be told; [`Context::flush`] (also
//! part of every [`Context::poll`]) tells it, once per batch.
//!
//! ```no_run
//! # fn main() -> Result<(), toe::Error> {
//! use toe::{Context, Event, link::slot::Addr};
//! let mut toe = Context::open(&toe::link::client::run_dir().join("toed.sock"))?;
//! let listener = toe.listen(Addr::v4([0, 0, 0, 0], 7), 128)?;
//! let mut events = [Event::default(); 64];
//! loop {
//!     let n = toe.poll(&mut events);
//!     for event in &events[..n] {
//!         if event.socket == listener {
//!             while toe.accept(listener)?.is_some() {}
//!         } else if let Ok(Some(got)) = toe.recv(event.socket, &mut [0; 2048]) {
//!             if got == 0 { toe.close(event.socket) }
//!         }
//!     }
//!     if n == 0 { toe.wait(None)? }
//! }
//! # }
//! ```

use crate::channel::{Change, Channel};
use crate::options::SocketOption;
use crate::socket::{Socket, Take, own_flags, ready};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toe_abi::desc::hc_flags;
use toe_abi::region::slot_state;
use toe_link::Region;
use toe_link::client::{Client, Daemon, OpenError, ticket};
use toe_link::ring::Span;
use toe_link::slot::Addr;
use toe_link::sys;
use toe_link::user::{Sink, Source};

/// Events taken from the queue at once.
const BATCH: usize = 256;
/// Tokens fetched from toed at once.
const POOL: u32 = 16;
/// How soon a full queue to the card is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// What went wrong, and what that means for the caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No daemon, or not one of this version: nothing works until it is there.
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Region(#[from] toe_link::RegionError),
    /// This socket's, as Linux would report it: the socket is of no further use, unless the call was `connect` or `bind`.
    #[error("{0}")]
    Os(#[from] Errno),
    /// The context or the card has failed: every socket has ended.
    #[error("the card or its daemon has gone")]
    Failed,
    /// No such socket in this context.
    #[error("not a socket of this context")]
    NoSocket,
}

/// One socket of a context: its slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SocketId(pub u32);

/// A socket whose readiness changed, and what it is ready for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Event {
    pub socket: SocketId,
    /// Bits of [`ready`].
    pub ready: u32,
}

/// What this side keeps of a socket.
struct Local<T> {
    /// Dropping it closes the socket.
    token: T,
    /// In `changed`.
    queued: bool,
}

/// A context and its sockets. `D`: the daemon, real or simulated.
pub struct Context<D: Daemon = Client> {
    daemon: D,
    channel: Channel,
    region: Arc<Region>,
    sockets: HashMap<u32, Local<D::Token>>,
    pool: VecDeque<(u32, D::Token)>,
    /// Sockets whose readiness changed since they were last reported.
    changed: VecDeque<u32>,
    /// Sockets that toed's notices may be about: they connect or listen.
    noticed: Vec<u32>,
    failed: bool,
}

impl Context<Client> {
    /// Connects to the daemon at `path` (`toed.sock` in its run folder) and opens a context.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (mut client, region) = Client::open(path, None, ticket())?;
        let region = Arc::new(Region::map_at(&region, client.welcome().offset)?);
        let bell = client.open_context()?;
        let ctx = bell.ctx;
        client.keep(bell);
        Self::new(client, region, ctx)
    }

    /// Sleeps until something may have changed, at most `timeout`. A signal ends it early. [`Error::Failed`]: nothing will, and every socket
    /// was reported.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        if !self.may_sleep()? {
            return Ok(());
        }
        let timeout = if self.channel.has_backlog() { Some(timeout.map_or(RETRY, |t| t.min(RETRY))) } else { timeout };
        let ctx = self.channel.ctx();
        let Some(bell) = self.daemon.bell(ctx) else { return Err(Error::Failed) };
        let pollfd = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [pollfd(bell.irq().as_raw_fd()), pollfd(self.daemon.socket().as_raw_fd())];
        let result = sys::ppoll(&mut fds, timeout, None);
        bell.acknowledge();
        self.channel.disarm();
        if fds[1].revents != 0 {
            self.fail();
        }
        match result {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Becomes readable when [`poll`](Self::poll) has something to say, after [`arm`](Self::arm) answered `true`.
    pub fn irq(&self) -> Option<i32> {
        Some(self.daemon.bell(self.channel.ctx())?.irq().as_raw_fd())
    }
}

impl<D: Daemon> Context<D> {
    /// A context of `region` that the daemon has opened for this process.
    pub fn new(daemon: D, region: Arc<Region>, ctx: u32) -> Result<Self, Error> {
        let channel = Channel::attach(region.clone(), ctx).ok_or(Error::Os(Errno::INVAL))?;
        Ok(Self {
            daemon,
            channel,
            region,
            sockets: HashMap::new(),
            pool: VecDeque::new(),
            changed: VecDeque::new(),
            noticed: Vec::new(),
            failed: false,
        })
    }

    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    pub fn daemon(&mut self) -> &mut D {
        &mut self.daemon
    }

    /// The socket's state, positions and names, for whoever wants to look closely.
    pub fn socket(&self, id: SocketId) -> Result<Socket<'_>, Error> {
        if !self.sockets.contains_key(&id.0) {
            return Err(Error::NoSocket);
        }
        Socket::new(&self.region, id.0).ok_or(Error::NoSocket)
    }

    // --- opening

    /// A fresh socket.
    fn create(&mut self) -> Result<u32, Error> {
        if self.failed {
            return Err(Error::Failed);
        }
        if self.pool.is_empty() {
            self.pool.extend(self.daemon.pool(POOL)?);
        }
        let (slot, token) = self.pool.pop_front().ok_or(Error::Os(Errno::NFILE))?;
        self.region.slot(slot).ok_or(Error::Os(Errno::IO))?.reset();
        self.channel.forget(slot);
        self.sockets.insert(slot, Local { token, queued: false });
        Ok(slot)
    }

    /// A fresh socket with options. EINVAL: one of them is out of range.
    fn create_with(&mut self, options: &[(SocketOption, i32)]) -> Result<u32, Error> {
        let slot = self.create()?;
        let socket = Socket::new(&self.region, slot).ok_or(Error::Os(Errno::IO))?;
        if let Err(e) = options.iter().try_for_each(|&(option, value)| socket.set_option(option, value).map(drop)) {
            self.sockets.remove(&slot);
            return Err(e.into());
        }
        Ok(slot)
    }

    /// Listens at `addr`; port 0 chooses one (see [`Socket::slot`]'s names).
    pub fn listen(&mut self, addr: Addr, backlog: u32) -> Result<SocketId, Error> {
        self.listen_with(addr, backlog, &[])
    }

    /// As [`listen`](Self::listen); accepted sockets begin with these options.
    pub fn listen_with(&mut self, addr: Addr, backlog: u32, options: &[(SocketOption, i32)]) -> Result<SocketId, Error> {
        let slot = self.create_with(options)?;
        let listening = self.daemon.bind(slot, addr, toe_abi::app::bind_flags::REUSEADDR).and_then(|bound| {
            self.region.slot(slot).ok_or(Errno::IO)?.names.set_local(bound);
            self.daemon.listen(slot, backlog, self.channel.ctx()).map(drop)
        });
        self.begin(slot, listening)
    }

    /// Starts to connect to `addr`. An event tells the outcome.
    pub fn connect(&mut self, addr: Addr) -> Result<SocketId, Error> {
        self.connect_with(addr, &[])
    }

    /// As [`connect`](Self::connect), with these options from the first segment on.
    pub fn connect_with(&mut self, addr: Addr, options: &[(SocketOption, i32)]) -> Result<SocketId, Error> {
        let slot = self.create_with(options)?;
        let s = self.region.slot(slot).ok_or(Error::Os(Errno::IO))?;
        s.names.set_remote(addr);
        // Before the request: toed may write the outcome before its answer is here.
        s.conn.store_state(slot_state::CONNECTING);
        let started = self.daemon.connect(slot, addr, self.channel.ctx()).map(|local| s.names.set_local(local));
        self.begin(slot, started)
    }

    /// Keeps the socket if the daemon agreed, drops it otherwise.
    fn begin(&mut self, slot: u32, result: Result<(), Errno>) -> Result<SocketId, Error> {
        match result {
            Ok(()) => {
                self.noticed.push(slot);
                // toed may have been faster than we were.
                self.look_at_noticed();
                Ok(SocketId(slot))
            }
            Err(e) => {
                self.sockets.remove(&slot);
                Err(e.into())
            }
        }
    }

    /// Takes a connection that waits at `listener`. `Ok(None)`: none does.
    pub fn accept(&mut self, listener: SocketId) -> Result<Option<SocketId>, Error> {
        let listening = self.socket(listener)?;
        if listening.state() != slot_state::LISTENING {
            return Err(Errno::INVAL.into());
        }
        if !self.region.has_accept(listening.slot()) {
            return Ok(None);
        }
        // The slot first: a connection taken out of the ring without one would be lost.
        let slot = self.create()?;
        let s = self.region.slot(slot).ok_or(Error::Os(Errno::IO))?;
        let record = self.region.slot(listener.0).and_then(|l| self.region.pop_accept(l));
        let Some(record) = record else {
            // Another process was faster. The fresh slot goes back.
            if let Some(local) = self.sockets.remove(&slot) {
                self.pool.push_front((slot, local.token));
            }
            return Ok(None);
        };
        if let Some(listener) = self.region.slot(listener.0) {
            s.inherit_options(listener);
        }
        s.adopt(&record);
        self.channel.rebind(slot);
        Ok(Some(SocketId(slot)))
    }

    // --- data

    /// Receives into `buf`. `Ok(None)`: nothing yet; `Ok(Some(0))`: the peer has sent everything.
    pub fn recv(&mut self, id: SocketId, buf: &mut [u8]) -> Result<Option<usize>, Error> {
        let socket = self.socket(id)?;
        let got = socket.receive(&mut Sink::from_slice(buf), Take::Consume)?;
        if socket.owes_window() {
            self.channel.update(id.0);
        }
        Ok(got)
    }

    /// Where the bytes lie that can be received: one run, or two if the buffer wraps. They stay until [`consume`](Self::consume).
    pub fn recv_view(&self, id: SocketId) -> Result<[Span; 2], Error> {
        Ok(self.socket(id)?.recv_view())
    }

    /// Done with the first `n` bytes of the view.
    pub fn consume(&mut self, id: SocketId, n: u32) -> Result<(), Error> {
        if self.socket(id)?.consume(n) {
            self.channel.update(id.0);
        }
        Ok(())
    }

    /// Sends as much of `bytes` as there is room for. `Ok(None)`: no room.
    pub fn send(&mut self, id: SocketId, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let sent = self.socket(id)?.send(&mut Source::from_slice(bytes))?;
        if sent.is_some_and(|n| n > 0) {
            self.channel.update(id.0);
        }
        Ok(sent)
    }

    /// As [`send`](Self::send), and the peer is told that all up to the last byte is urgent (RFC 9293, 3.8.5; RFC 6093 advises new programs
    /// against it).
    pub fn send_urgent(&mut self, id: SocketId, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let sent = self.socket(id)?.send_urgent(&mut Source::from_slice(bytes))?;
        if sent.is_some_and(|n| n > 0) {
            self.channel.update(id.0);
        }
        Ok(sent)
    }

    /// Takes the last byte of the peer's urgent data, wherever it lies in the stream: as recv(2) with MSG_OOB. `Ok(None)`: the peer has sent
    /// everything, and not that. EAGAIN: it is still to come; EINVAL: there is none, it was taken, or it is to be read in its place.
    pub fn recv_urgent(&mut self, id: SocketId) -> Result<Option<u8>, Error> {
        Ok(self.socket(id)?.receive_urgent(Take::Consume)?)
    }

    /// Whether the next byte of the stream is the urgent one. No receive gives bytes from both sides of where it begins.
    pub fn at_mark(&self, id: SocketId) -> Result<bool, Error> {
        Ok(self.socket(id)?.at_mark())
    }

    /// SO_OOBINLINE: the urgent byte is received in its place, and not by [`recv_urgent`](Self::recv_urgent).
    pub fn set_oob_inline(&mut self, id: SocketId, on: bool) -> Result<(), Error> {
        self.socket(id)?.set_flag(own_flags::OOBINLINE, on);
        Ok(())
    }

    /// Where bytes to be sent can be written: one run, or two if the buffer wraps. [`commit`](Self::commit) sends them.
    pub fn send_view(&self, id: SocketId) -> Result<[Span; 2], Error> {
        let socket = self.socket(id)?;
        socket.may_send()?;
        Ok(socket.send_view())
    }

    /// Sends the first `n` bytes of the view.
    pub fn commit(&mut self, id: SocketId, n: u32) -> Result<(), Error> {
        self.socket(id)?.commit(n);
        self.channel.update(id.0);
        Ok(())
    }

    // --- options and ends

    /// TCP_NODELAY. As on Linux: when it is set, what TCP_CORK holds back goes out.
    pub fn set_nodelay(&mut self, id: SocketId, on: bool) -> Result<(), Error> {
        if on && self.socket(id)?.renew_nodelay() {
            self.channel.update(id.0);
            self.flush();
        }
        self.set_switch(id, hc_flags::NODELAY, on)
    }

    /// TCP_CORK: partial segments wait (at most 200 ms) for what is sent next.
    pub fn set_cork(&mut self, id: SocketId, on: bool) -> Result<(), Error> {
        self.set_switch(id, hc_flags::CORK, on)
    }

    /// SO_KEEPALIVE.
    pub fn set_keepalive(&mut self, id: SocketId, on: bool) -> Result<(), Error> {
        self.set_switch(id, hc_flags::KEEPALIVE, on)
    }

    fn set_switch(&mut self, id: SocketId, bit: u32, on: bool) -> Result<(), Error> {
        let socket = self.socket(id)?;
        if socket.set_tx_flags(bit, on) && socket.state() == slot_state::CONNECTED {
            self.channel.update(id.0);
        }
        Ok(())
    }

    /// An option with a number, of this socket, or of a listener for those that it accepts from now on (which have [`MaxSegment`](SocketOption::MaxSegment)
    /// and [`DeferAccept`](SocketOption::DeferAccept) from when it began to listen). EINVAL: out of range, as on Linux.
    pub fn set_option(&mut self, id: SocketId, option: SocketOption, value: i32) -> Result<(), Error> {
        let socket = self.socket(id)?;
        socket.set_option(option, value)?;
        if socket.state() == slot_state::CONNECTED {
            self.channel.tell_of(id.0, option);
        }
        Ok(())
    }

    /// Nothing more will be sent: a FIN follows what was.
    pub fn shutdown(&mut self, id: SocketId) -> Result<(), Error> {
        if self.socket(id)?.shutdown_tx() {
            self.channel.update(id.0);
        }
        Ok(())
    }

    /// Resets the connection.
    pub fn abort(&mut self, id: SocketId) -> Result<(), Error> {
        self.socket(id)?;
        self.channel.abort(id.0);
        self.flush();
        self.drop_socket(id, false);
        Ok(())
    }

    /// Done with the socket. What was sent still goes out, then FIN.
    pub fn close(&mut self, id: SocketId) {
        self.drop_socket(id, true);
    }

    /// Done with the context and with all its sockets, as by [`close`](Self::close). (One that is only dropped ends as that of a program that was
    /// killed: by resets.)
    pub fn close_all(mut self) {
        for slot in self.sockets.keys().copied().collect::<Vec<_>>() {
            self.close(SocketId(slot));
        }
    }

    fn drop_socket(&mut self, id: SocketId, clean: bool) {
        if let Ok(socket) = self.socket(id) {
            socket.mark_clean(clean);
        }
        // Else the card has been told.
        let farewell = self.socket(id).ok().filter(|_| clean).and_then(|socket| socket.farewell());
        self.flush();
        self.channel.forget(id.0);
        self.noticed.retain(|&s| s != id.0);
        self.changed.retain(|&s| s != id.0);
        if let Some(local) = self.sockets.remove(&id.0)
            && self.daemon.close(local.token)
            && let Some(farewell) = farewell
            && self.channel.part(farewell)
        {
            self.daemon.kick(self.channel.ctx());
        }
    }

    // --- the batch

    /// Tells the card what has changed, takes what it has to say, and names sockets whose readiness changed. Sockets that
    /// find no room in `events` come next time.
    pub fn poll(&mut self, events: &mut [Event]) -> usize {
        self.flush();
        let (sockets, changed) = (&mut self.sockets, &mut self.changed);
        self.channel.poll(BATCH, |slot, _: Change| mark(sockets, changed, slot));
        if self.channel.take_notice() {
            self.look_at_noticed();
        }
        if self.channel.failed() {
            self.fail();
        }
        let n = self.report(events);
        self.flush();
        n
    }

    fn report(&mut self, events: &mut [Event]) -> usize {
        let mut n = 0;
        while n < events.len()
            && let Some(slot) = self.changed.pop_front()
        {
            let Some(local) = self.sockets.get_mut(&slot) else { continue };
            local.queued = false;
            let ready = Socket::new(&self.region, slot).map_or(ready::ERR, |s| s.readiness());
            events[n] = Event { socket: SocketId(slot), ready };
            n += 1;
        }
        n
    }

    /// Looks at the sockets that toed may have changed.
    fn look_at_noticed(&mut self) {
        let (region, sockets, changed) = (&self.region, &mut self.sockets, &mut self.changed);
        let channel = &mut self.channel;
        self.noticed.retain(|&slot| {
            let Some(socket) = Socket::new(region, slot) else { return false };
            match socket.state() {
                slot_state::CONNECTING => true,
                slot_state::LISTENING => {
                    if region.has_accept(socket.slot()) {
                        mark(sockets, changed, slot);
                    }
                    true
                }
                slot_state::CONNECTED => {
                    // Events may have come before the slot knew its flow: ask for one that says everything.
                    channel.rebind(slot);
                    socket.set_flag(own_flags::CONNECT_SEEN, true);
                    mark(sockets, changed, slot);
                    false
                }
                _ => {
                    mark(sockets, changed, slot);
                    false
                }
            }
        });
    }

    /// Publishes what the card has to be told. Part of [`poll`](Self::poll).
    pub fn flush(&mut self) {
        if self.channel.flush() {
            self.daemon.kick(self.channel.ctx());
        }
    }

    /// Whether there is nothing to do, and an interrupt is to come when there is.
    fn may_sleep(&mut self) -> Result<bool, Error> {
        self.flush();
        match (self.changed.is_empty(), self.failed) {
            (false, _) => Ok(false),
            // Who comes again and again finds nothing to do, and would spin.
            (true, true) => Err(Error::Failed),
            (true, false) => Ok(self.channel.arm()),
        }
    }

    /// Before sleeping: asks for an interrupt. `true`: there is nothing to do until it comes.
    pub fn arm(&mut self) -> bool {
        self.flush();
        self.changed.is_empty() && !self.channel.has_backlog() && self.channel.arm()
    }

    /// Awake again.
    pub fn disarm(&mut self) {
        self.channel.disarm();
    }

    /// The card or the daemon has gone: every socket ends, and is reported.
    fn fail(&mut self) {
        if std::mem::replace(&mut self.failed, true) {
            return;
        }
        let slots: Vec<u32> = self.sockets.keys().copied().collect();
        for slot in slots {
            if let Some(socket) = Socket::new(&self.region, slot) {
                socket.fail(Errno::NETDOWN);
            }
            mark(&mut self.sockets, &mut self.changed, slot);
        }
    }
}

/// Puts a socket on the list of those to be reported.
fn mark<T>(sockets: &mut HashMap<u32, Local<T>>, changed: &mut VecDeque<u32>, slot: u32) {
    if let Some(local) = sockets.get_mut(&slot)
        && !std::mem::replace(&mut local.queued, true)
    {
        changed.push_back(slot);
    }
}

impl Context<Client> {
    /// The token's descriptor: it can be passed on or inherited, and its last close ends the socket.
    pub fn token(&self, id: SocketId) -> Option<&OwnedFd> {
        self.sockets.get(&id.0).map(|local| &local.token)
    }
}

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
