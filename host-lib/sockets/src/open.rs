//! How a socket comes to be and to be connected: socket, bind, listen, accept, connect.

use crate::data::{Patience, Side, block, deadline, is_nonblocking};
use crate::fdtable::{self, Kind};
use crate::names::{self, Family, Name, SOCKADDR_IN_LEN, SockName};
use crate::process::{self, Verdict};
use crate::{Errno, Sock, hub, kernel};
use rustix::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use toe::Socket;
use toe::link::client::Daemon;
use toe::link::fdnum;
use toe::link::slot::Addr;
use toe::socket::{own_flags, ready};
use toe_abi::app::{bind_flags, whose};
use toe_abi::region::slot_state;

/// What became of a call on a socket of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done,
    /// The socket has just become the kernel's, at the same number: repeat the call there.
    Kernel,
}

/// socket(2). `Ok(None)`: not our kind of socket, the kernel is to make it.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> Result<Option<i32>, Errno> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let family = match domain {
        libc::AF_INET => Family::Inet,
        libc::AF_INET6 => Family::Inet6,
        _ => return Ok(None),
    };
    if kind & !flags != libc::SOCK_STREAM || (protocol != 0 && protocol != libc::IPPROTO_TCP) {
        return Ok(None);
    }
    match process::verdict() {
        Verdict::Ours => {}
        Verdict::Kernel => return Ok(None),
        Verdict::Fail(e) => return Err(e),
    }
    let (slot, token, fd) = take(kind & libc::SOCK_CLOEXEC != 0)?;
    if let Ok(socket) = process::view(slot) {
        socket.set_flag(own_flags::INET6, family == Family::Inet6);
        socket.slot().names.set_local(family.any());
    }
    Ok(Some(publish(slot, token, fd, kind & libc::SOCK_NONBLOCK != 0)))
}

/// A fresh slot, its token, and a copy of that at the lowest free number, as the application expects.
fn take(cloexec: bool) -> Result<(u32, OwnedFd, OwnedFd), Errno> {
    let (slot, token) = process::take_token()?;
    match fdnum::lower(&token, cloexec) {
        Ok(fd) if fdtable::fits(fd.as_raw_fd()) => Ok((slot, token, fd)),
        lowered => {
            process::return_token(slot, token);
            Err(lowered.err().unwrap_or(Errno::MFILE))
        }
    }
}

/// Makes a token's copy the application's socket.
fn publish(slot: u32, token: OwnedFd, fd: OwnedFd, nonblocking: bool) -> i32 {
    process::close_hidden(token);
    if let Ok(socket) = process::view(slot) {
        socket.slot().tx.nonblocking.store(nonblocking.into(), Relaxed);
    }
    hub::lock().hold(slot);
    let fd = fd.into_raw_fd();
    fdtable::set(fd, Kind::Socket(slot));
    fd
}

impl Sock {
    /// bind(2).
    pub fn bind(self, name: &[u8]) -> Result<Outcome, Errno> {
        let socket = self.words()?;
        let family = Family::of(&socket);
        let (addr, scope) = match names::parse(name, family)? {
            Name::Inet { addr, scope } => (addr, scope),
            // As Linux: AF_UNSPEC stands for AF_INET if the address is the wildcard.
            Name::Unspecified if family == Family::Inet && name.len() >= SOCKADDR_IN_LEN && name[4..8] == [0; 4] => {
                (Addr::v4([0; 4], u16::from_be_bytes([name[2], name[3]])), 0)
            }
            Name::Unspecified => return Err(Errno::AFNOSUPPORT),
        };
        if names::is_v4(addr) && socket.has_flag(own_flags::V6ONLY) {
            return Err(Errno::INVAL);
        }
        let foreign = !addr.is_any() && (names::is_elsewhere(addr, scope) || !is_cards(addr)?);
        // A socket stays the card's, and can be bound again, if the kernel would refuse as well. (Which interface a link-local
        // address is on is in the name, and for the kernel to see.)
        if foreign && !names::is_link_local(addr) && !names::is_kernels_own(addr) {
            return Err(Errno::ADDRNOTAVAIL);
        }
        if socket.state() != slot_state::OPEN || socket.has_flag(own_flags::BOUND) {
            return Err(Errno::INVAL);
        }
        if foreign {
            kernel::convert(self, &socket)?;
            return Ok(Outcome::Kernel);
        }
        match self.bind_to(&socket, addr) {
            // The card has no address of this version.
            Err(Errno::AFNOSUPPORT) => {
                kernel::convert(self, &socket)?;
                Ok(Outcome::Kernel)
            }
            bound => bound.map(|()| Outcome::Done),
        }
    }

    fn bind_to(self, socket: &Socket<'_>, addr: Addr) -> Result<(), Errno> {
        let mut flags = 0;
        for (own, flag) in [
            (own_flags::REUSEADDR, bind_flags::REUSEADDR),
            (own_flags::REUSEPORT, bind_flags::REUSEPORT),
            (own_flags::V6ONLY, bind_flags::V6ONLY),
            (own_flags::NO_PORT, bind_flags::NO_PORT),
        ] {
            if socket.has_flag(own) {
                flags |= flag;
            }
        }
        let bound = process::ask(|client| client.bind(self.slot, addr, flags))?;
        // A wildcard stays one in the socket's name, as with Linux.
        socket.slot().names.set_local(Addr { port: bound.port, ..addr });
        socket.set_flag(own_flags::BOUND, true);
        Ok(())
    }

    /// listen(2).
    pub fn listen(self, backlog: i32) -> Result<Outcome, Errno> {
        let socket = self.words()?;
        match socket.state() {
            slot_state::OPEN | slot_state::LISTENING => {}
            _ => return Err(Errno::INVAL),
        }
        if socket.state() == slot_state::OPEN && !socket.has_flag(own_flags::BOUND) {
            self.bind_to(&socket, Family::of(&socket).any())?;
        }
        // Negative means as many as possible, since 4.3BSD. toed has a limit.
        let backlog = u32::try_from(backlog).unwrap_or(u32::MAX);
        process::attach()?;
        let ctx = hub::ctx();
        let port = process::ask(|client| client.listen(self.slot, backlog, ctx))?;
        // It may have been chosen just now (IP_BIND_ADDRESS_NO_PORT).
        let names = &socket.slot().names;
        names.set_local(Addr { port, ..names.local() });
        socket.set_flag(own_flags::RX_SHUT, false);
        process::set_bound(self.slot);
        hub::lock().watch_notices(self.slot);
        Ok(Outcome::Done)
    }

    /// accept4(2). The new socket's number and its peer's name.
    pub fn accept(self, flags: i32) -> Result<(i32, SockName), Errno> {
        if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
            return Err(Errno::INVAL);
        }
        let socket = self.socket()?;
        let patience = Patience { want: ready::IN, bytes: 0, wait: !is_nonblocking(&socket), until: deadline(&socket, Side::Rx) };
        let (slot, token, fd) = block(socket, patience, || self.accept_step(&socket, flags & libc::SOCK_CLOEXEC != 0))?;
        let fd = publish(slot, token, fd, flags & libc::SOCK_NONBLOCK != 0);
        Ok((fd, names::encode(process::view(slot)?.slot().names.remote(), Family::of(&socket))))
    }

    /// Takes a waiting connection into a slot of the pool.
    fn accept_step(self, listener: &Socket<'_>, cloexec: bool) -> Result<Option<(u32, OwnedFd, OwnedFd)>, Errno> {
        match listener.state() {
            slot_state::LISTENING if !listener.has_flag(own_flags::RX_SHUT) => {}
            slot_state::FAILED => return Err(listener.take_error().unwrap_or(Errno::INVAL)),
            _ => return Err(Errno::INVAL),
        }
        if !listener.region().has_accept(listener.slot()) {
            return Ok(None);
        }
        // The slot and the number first: a connection taken out of the ring without them would be lost.
        let (slot, token, fd) = take(cloexec)?;
        let Some(record) = listener.region().pop_accept(listener.slot()) else {
            process::return_token(slot, token);
            return Ok(None);
        };
        let socket = process::view(slot)?;
        inherit(listener, &socket);
        socket.slot().adopt(&record);
        process::set_bound(slot);
        let mut hub = hub::lock();
        hub.inherit_kept(self.slot, slot);
        hub.rebind(slot);
        Ok(Some((slot, token, fd)))
    }

    /// connect(2).
    pub fn connect(self, name: &[u8]) -> Result<Outcome, Errno> {
        let socket = self.socket()?;
        let (addr, scope) = match names::parse(name, Family::of(&socket))? {
            Name::Inet { addr, scope } => (addr, scope),
            Name::Unspecified if socket.state() == slot_state::OPEN => return Ok(Outcome::Done),
            // HAProxy's way to pause a listener: it may listen again.
            Name::Unspecified if socket.state() == slot_state::LISTENING => return self.unlisten().map(|()| Outcome::Done),
            // Dissolving a connection, so that the socket can be used again, is not supported.
            Name::Unspecified => return Err(Errno::OPNOTSUPP),
        };
        match socket.state() {
            slot_state::OPEN => {}
            slot_state::CONNECTING if is_nonblocking(&socket) => return Err(Errno::ALREADY),
            slot_state::CONNECTING => return self.await_connect(&socket, Errno::ALREADY),
            // Also if the error was reported already. After this call the socket can try again.
            slot_state::FAILED => return Err(take_failure(&socket)),
            slot_state::CONNECTED if !socket.has_flag(own_flags::CONNECT_SEEN) => {
                socket.set_flag(own_flags::CONNECT_SEEN, true);
                return Ok(Outcome::Done);
            }
            // RFC 9293 3.10.1-5.
            slot_state::LISTENING | slot_state::CONNECTED => return Err(Errno::ISCONN),
            _ => return Err(Errno::INVAL),
        }
        if names::is_v4(addr) && socket.has_flag(own_flags::V6ONLY) {
            return Err(Errno::NETUNREACH);
        }
        // The card may have no address of this version.
        let elsewhere = is_for_kernel(addr, scope_to(&socket, scope))? || self.start_connect(&socket, addr)? == Started::Nowhere;
        if elsewhere {
            kernel::convert(self, &socket)?;
            return Ok(Outcome::Kernel);
        }
        if is_nonblocking(&socket) {
            // toed may have been faster: then the state says so, as on a fast network.
            return Err(Errno::INPROGRESS);
        }
        self.await_connect(&socket, Errno::INPROGRESS)
    }

    fn start_connect(self, socket: &Socket<'_>, addr: Addr) -> Result<Started, Errno> {
        let slot = socket.slot();
        slot.names.set_remote(addr);
        // An error of the last one would be its own if toed refuses it; and it goes before the word that it was told.
        slot.conn.error.store(0, Relaxed);
        socket.set_flag(own_flags::ERROR_TAKEN | own_flags::CONNECT_SEEN, false);
        // Before the request: toed may write the outcome before its answer is here.
        slot.conn.store_state(slot_state::CONNECTING);
        process::attach()?;
        let ctx = hub::ctx();
        match process::ask(|client| client.connect(self.slot, addr, ctx)) {
            Ok(local) => slot.names.set_local(local),
            Err(e) => {
                slot.conn.store_state(slot_state::OPEN);
                return if e == Errno::AFNOSUPPORT { Ok(Started::Nowhere) } else { Err(e) };
            }
        }
        process::set_bound(self.slot);
        hub::lock().watch_notices(self.slot);
        Ok(Started::OnCard)
    }

    /// `late`: what to answer when SO_SNDTIMEO is over.
    fn await_connect(self, socket: &Socket<'_>, late: Errno) -> Result<Outcome, Errno> {
        let patience = Patience { want: ready::OUT, bytes: 0, wait: true, until: deadline(socket, Side::Tx) };
        let connected = block(*socket, patience, || match socket.state() {
            slot_state::CONNECTING => Ok(None),
            slot_state::CONNECTED => {
                socket.set_flag(own_flags::CONNECT_SEEN, true);
                Ok(Some(()))
            }
            _ => Err(take_failure(socket)),
        });
        match connected {
            Ok(()) => Ok(Outcome::Done),
            Err(Errno::AGAIN) => Err(late),
            Err(e) => Err(e),
        }
    }
}

/// Where a connect() goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Started {
    OnCard,
    /// The card has no address of this version.
    Nowhere,
}

/// Whether the card has this address.
fn is_cards(addr: Addr) -> Result<bool, Errno> {
    if names::is_loopback(addr) {
        return Ok(false);
    }
    Ok(process::welcome().is_some_and(|w| w.addr.ip == addr.ip) || process::ask(|client| client.whose(addr.ip))? == whose::OWN)
}

/// The scope that a peer's address has: a socket that is bound to a link stays there.
fn scope_to(socket: &Socket<'_>, said: u32) -> u32 {
    if said == 0 && socket.has_flag(own_flags::BOUND) { names::scope_of(socket.slot().names.local()) } else { said }
}

/// Whether `addr` is on this machine, or on a link, where the card does not reach.
fn is_for_kernel(addr: Addr, scope: u32) -> Result<bool, Errno> {
    if addr.is_any() || names::is_loopback(addr) || names::is_elsewhere(addr, scope) {
        return Ok(true);
    }
    // The kernel's own on the interface that the card has taken over is behind it, and not on its link.
    if names::is_link_local(addr) {
        return Ok(names::is_kernels_own(addr));
    }
    // An address of the kernel's in a network of the card is reached from the card, over the wire.
    Ok(names::is_kernels_own(addr) && process::ask(|client| client.whose(addr.ip))? == whose::OTHERS)
}

/// Why a connect() failed. As with Linux, the socket is as good as new once a connect() has said so.
fn take_failure(socket: &Socket<'_>) -> Errno {
    let error = socket.take_error().unwrap_or(Errno::CONNABORTED);
    socket.slot().conn.store_state(slot_state::OPEN);
    error
}

/// An accepted socket has its listener's options (but not its O_NONBLOCK).
fn inherit(listener: &Socket<'_>, socket: &Socket<'_>) {
    let (from, to) = (listener.slot(), socket.slot());
    to.tx.flags.store(from.tx.flags.load(Relaxed), Relaxed);
    to.tx.timeout_us.store(from.tx.timeout_us.load(Relaxed), Relaxed);
    to.tx.linger.store(from.tx.linger.load(Relaxed), Relaxed);
    // The card has it from toed.
    to.tx.pacing.store(from.tx.pacing.load(Relaxed), Relaxed);
    to.rx.timeout_us.store(from.rx.timeout_us.load(Relaxed), Relaxed);
    to.rx.low_water.store(from.rx.low_water.load(Relaxed), Relaxed);
    to.inherit_options(from);
    let kept = own_flags::REUSEADDR | own_flags::REUSEPORT | own_flags::INET6 | own_flags::V6ONLY | own_flags::OOBINLINE;
    to.tx.slot_flags.store(from.tx.slot_flags.load(Relaxed) & kept | own_flags::CONNECT_SEEN, Relaxed);
}
