//! A daemon and a card in a thread of the test: they speak the real protocol over a real socket and a real region, and
//! connect the process to itself. Positions move as on the real card; there is no wire.

use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use toe::link::slot::Addr;
use toe::link::sync::queue::{Consumer, Producer};
use toe::link::user::{Sink, Source};
use toe::link::{Region, uds};
use toe_abi::FlowId;
use toe_abi::app::{Info, MSG_LEN, Reply, Request, bind_flags, op, whose};
use toe_abi::desc::{EventDesc, HostDesc, ev, ev_flags, hc, hc_flags};
use toe_abi::flow::cc;
use toe_abi::region::{AcceptRecord, RegionConfig, RegionHeader, SlotNames, slot_flags, slot_state};
use toe_sockets::names::{Family, encode};
use toe_sockets::open::{Outcome, socket};
use toe_sockets::{IoSpan, Sock};
use zerocopy::{FromBytes, IntoBytes};

pub const CARD: [u8; 4] = [10, 77, 0, 1];
/// Bytes of each buffer.
#[allow(dead_code, reason = "not every test binary needs it")]
pub const BUFFER: u32 = 16384;
const SOCKETS: u32 = 256;
/// Descriptor numbers that the program's tests use.
const NUMBERS: i32 = 200;

/// One end of a connection.
#[derive(Clone, Copy, Default)]
struct Flow {
    slot: Option<u32>,
    peer: usize,
    tx_off: u64,
    rx_off: u64,
    tx_head: u32,
    tx_tail: u32,
    rx_head: u32,
    rx_tail: u32,
    fin: bool,
    port: u16,
    flags: u32,
    error: u32,
    news: bool,
}

/// A token's other end, and what its slot listens to.
struct Token {
    slot: u32,
    end: OwnedFd,
    /// What the application's end is to fstat(2).
    inode: u64,
}

struct World {
    region: Region,
    region_fd: OwnedFd,
    hc: Consumer<HostDesc>,
    ev: Producer<EventDesc>,
    irq: OwnedFd,
    tokens: Vec<Token>,
    /// What was asked for by TCP_CONGESTION, by slot.
    congestion: BTreeMap<u32, u8>,
    flows: Vec<Flow>,
    /// Slot and port.
    bound: Vec<(u32, u16)>,
    listeners: Vec<u32>,
    next_slot: u32,
    next_port: u16,
}

/// What the card was told of ends: local port of the connection, kind of the descriptor.
static FAREWELLS: Mutex<Vec<(u16, u32)>> = Mutex::new(Vec::new());

/// What the card was told of the end of the connection with this local port: kinds of descriptors.
#[allow(dead_code, reason = "not every test binary needs it")]
pub fn farewells(port: u16) -> Vec<u32> {
    FAREWELLS.lock().unwrap().iter().filter(|(p, _)| *p == port).map(|(_, kind)| *kind).collect()
}

/// Local ports of connections whose events are to come here no more, and the context that the slot is to name.
static TAKEN: Mutex<Vec<(u16, Option<u32>)>> = Mutex::new(Vec::new());

fn take(port: u16, by: Option<u32>) {
    TAKEN.lock().unwrap().push((port, by));
    while !TAKEN.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
}

/// Another process uses the connection with this local port: its events go there, until somebody here takes it back.
#[allow(dead_code, reason = "not every test binary needs it")]
pub fn take_away(port: u16) {
    take(port, Some(1));
}

/// The card has bound the connection with this local port to a process that is no more, and the slot does not say so.
#[allow(dead_code, reason = "not every test binary needs it")]
pub fn lose_binding(port: u16) {
    take(port, None);
}

/// Both ends of a connection.
#[allow(dead_code, reason = "not every test binary needs it")]
pub fn pair() -> (Sock, Sock) {
    start();
    let fresh = || Sock::find(socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap().unwrap()).unwrap();
    let (listener, client) = (fresh(), fresh());
    assert_eq!(listener.listen(8), Ok(Outcome::Done));
    let to = encode(Addr::v4(CARD, port_of(listener)), Family::Inet);
    assert_eq!(client.connect(&to), Ok(Outcome::Done));
    (client, Sock::find(listener.accept(0).unwrap().0).unwrap())
}

/// The local port of a socket.
#[allow(dead_code, reason = "not every test binary needs it")]
pub fn port_of(sock: Sock) -> u16 {
    let name = sock.local_name().unwrap();
    u16::from_be_bytes([name[2], name[3]])
}

/// Another process has used the connection; now a byte comes for somebody here.
#[allow(dead_code, reason = "not every test binary needs it")]
pub fn assert_has_it_back(client: Sock, server: Sock) {
    take_away(port_of(client));
    let (mut sent, mut got) = (*b"x", [0]);
    // SAFETY: used up before the bytes go.
    let span = |bytes: &mut [u8; 1]| [unsafe { IoSpan::new(bytes.as_mut_ptr(), 1) }];
    assert_eq!(server.send(&span(&mut sent), 0), Ok(1));
    assert_eq!((client.recv(&span(&mut got), 0), got), (Ok(1), sent));
}

/// How often somebody has asked for the notices of a listener that another process may have.
static SUBSCRIPTIONS: AtomicU32 = AtomicU32::new(0);

#[allow(dead_code, reason = "not every test binary needs it")]
pub fn subscriptions() -> u32 {
    SUBSCRIPTIONS.load(Ordering::Relaxed)
}

/// Starts the world for this process, once.
pub fn start() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let dir = std::env::temp_dir().join(format!("toe-world-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        // SAFETY: the first thing that any test does; no other thread reads the environment yet.
        unsafe {
            std::env::set_var("TOE_RUN_DIR", &dir);
            std::env::set_var("TOE_REQUIRE", "1");
        }
        let path = dir.join("toed.sock");
        let _ = std::fs::remove_file(&path);
        let listener = uds::listen(&path, 4).unwrap();
        let ready = Arc::new(AtomicBool::new(false));
        let flag = ready.clone();
        std::thread::spawn(move || World::new().run(&listener, &flag, &dir));
        while !ready.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    });
}

fn readable(fd: BorrowedFd<'_>, wait_ms: i64) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let time = rustix::time::Timespec { tv_sec: 0, tv_nsec: wait_ms * 1_000_000 };
    rustix::event::poll(&mut fds, Some(&time)).map_or(PollFlags::empty(), |_| fds[0].revents())
}

impl World {
    fn new() -> Self {
        let config = RegionConfig {
            region: 1,
            n_contexts: 2,
            hc_entries: 16,
            ev_entries: 16,
            n_sockets: SOCKETS,
            n_listeners: 64,
            accept_entries: 8,
            payload_len: u64::from(SOCKETS) * 4 * u64::from(BUFFER),
        };
        let header = RegionHeader::new(&config).unwrap();
        let region_fd = rustix::fs::memfd_create("world", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&region_fd, header.len).unwrap();
        rustix::io::pwrite(&region_fd, header.as_bytes(), 0).unwrap();
        let region = Region::map(&region_fd).unwrap();
        let (hc, ev) = (Consumer::new(region.hc_queue(0).unwrap()), Producer::new(region.ev_queue(0).unwrap()));
        let irq = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let (tokens, flows, bound, listeners) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            region,
            region_fd,
            hc,
            ev,
            irq,
            tokens,
            flows,
            bound,
            listeners,
            congestion: BTreeMap::new(),
            next_slot: 0,
            next_port: 40000,
        }
    }

    fn run(mut self, listener: &OwnedFd, ready: &AtomicBool, dir: &std::path::Path) {
        // As in processes of their own: the daemon does not run out of numbers when the program does.
        // SAFETY: this thread uses only descriptors that were there already, and those that it makes.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
        // Its numbers are none of the program's: close() may be the library's, which knows of one table only.
        let copies = std::iter::repeat_with(|| rustix::io::dup(listener).unwrap());
        copies.take_while(|fd| fd.as_raw_fd() < NUMBERS).for_each(std::mem::forget);
        ready.store(true, Ordering::Release);
        while !readable(listener.as_fd(), 100).contains(PollFlags::IN) {}
        let client = uds::accept(listener).unwrap();
        // Nobody else will come.
        let _ = std::fs::remove_dir_all(dir);
        loop {
            if readable(client.as_fd(), 0).contains(PollFlags::IN) {
                let (mut buf, mut proof) = ([0; MSG_LEN], Vec::new());
                if uds::recv(&client, &mut buf, &mut proof) != Ok(MSG_LEN) {
                    return;
                }
                self.answer(&client, &Request::read_from_bytes(&buf).unwrap(), proof.first());
            }
            self.card();
            self.reap();
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }

    // --- the daemon

    fn answer(&mut self, client: &OwnedFd, request: &Request, proof: Option<&OwnedFd>) {
        let mut reply = Reply::default();
        let mut fds: Vec<OwnedFd> = Vec::new();
        match request.op {
            op::HELLO => {
                reply.args = [toe_abi::ABI_VERSION.into(), 1, 24, 0];
                reply.ip = Addr::v4(CARD, 0).ip;
                fds.push(rustix::io::dup(&self.region_fd).unwrap());
            }
            op::OPEN_CONTEXT => {
                let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
                let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                epoll::add(&set, &self.irq, epoll::EventData::new_u64(0), flags).unwrap();
                fds.push(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
                fds.push(set);
            }
            op::POOL => self.pool(request, &mut reply, &mut fds),
            op::BIND => self.bind(request, &mut reply),
            op::LISTEN => {
                let slot = self.region.slot(request.slot).unwrap();
                slot.listen.ring.store(self.listeners.len() as u32, Ordering::Relaxed);
                self.listeners.push(request.slot);
                slot.conn.store_state(slot_state::LISTENING);
                reply.port = self.bound.iter().find(|(slot, _)| *slot == request.slot).map_or(0, |(_, port)| *port);
            }
            op::CONNECT => self.connect(request, &mut reply),
            // A rate of 1 is one that this card does not do.
            op::RATE if request.args[0] == 1 => reply.errno = libc::ENOPROTOOPT as u32,
            op::WHOSE => reply.args[0] = if request.ip == Addr::v4(CARD, 0).ip { whose::OWN } else { whose::OTHERS },
            op::CONGESTION => drop(self.congestion.insert(request.slot, request.args[0] as u8)),
            op::INFO => {
                let algorithm = self.congestion.get(&request.slot).copied().unwrap_or(cc::CUBIC);
                reply.set_info(&Info { algorithm, ..Info::default() });
            }
            op::IDENTIFY => {
                let inode = proof.map(|fd| rustix::fs::fstat(fd).unwrap().st_ino);
                let token = self.tokens.iter().find(|token| Some(token.inode) == inode);
                reply.args[0] = token.map_or(u64::MAX, |token| token.slot.into());
            }
            op::SUBSCRIBE => _ = SUBSCRIPTIONS.fetch_add(1, Ordering::Relaxed),
            op::UNLISTEN => self.unlisten(request.slot),
            _ => {}
        }
        let ends: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        uds::send(client, reply.as_bytes(), &ends).unwrap();
    }

    fn pool(&mut self, request: &Request, reply: &mut Reply, fds: &mut Vec<OwnedFd>) {
        let n = (request.args[0] as u32).min(4).min(SOCKETS - self.next_slot);
        for i in 0..n {
            let (ours, theirs) = uds::token_pair().unwrap();
            reply.slots[i as usize] = self.next_slot as u16;
            let inode = rustix::fs::fstat(&theirs).unwrap().st_ino;
            self.tokens.push(Token { slot: self.next_slot, end: ours, inode });
            self.next_slot += 1;
            fds.push(theirs);
        }
        reply.count = n;
        reply.errno = if n == 0 { libc::ENFILE as u32 } else { 0 };
    }

    fn bind(&mut self, request: &Request, reply: &mut Reply) {
        // A card of IPv4 only.
        if request.flags & bind_flags::V6ONLY != 0 {
            reply.errno = libc::EAFNOSUPPORT as u32;
            return;
        }
        self.next_port += 1;
        let port = if request.port == 0 { self.next_port } else { request.port };
        if self.bound.iter().any(|(_, p)| *p == port) {
            reply.errno = libc::EADDRINUSE as u32;
            return;
        }
        self.bound.push((request.slot, port));
        (reply.ip, reply.port) = (Addr::v4(CARD, 0).ip, port);
    }

    fn connect(&mut self, request: &Request, reply: &mut Reply) {
        if toe_abi::flow::as_v4(&request.ip).is_none() {
            reply.errno = libc::EAFNOSUPPORT as u32;
            return;
        }
        self.next_port += 1;
        let local = Addr::v4(CARD, self.next_port);
        (reply.ip, reply.port, reply.errno) = (local.ip, local.port, libc::EINPROGRESS as u32);
        let target = self.bound.iter().find(|(slot, port)| *port == request.port && self.listeners.contains(slot)).copied();
        let Some((listener, _)) = target else {
            // Port 1 never answers; every other refuses.
            if request.port != 1 {
                let slot = self.region.slot(request.slot).unwrap();
                slot.conn.error.store(libc::ECONNREFUSED as u32, Ordering::Relaxed);
                slot.conn.store_state(slot_state::FAILED);
                self.notice();
            }
            return;
        };
        let (a, b) = (self.flows.len(), self.flows.len() + 1);
        let there = Addr::v4(CARD, request.port);
        let (mine, other) = (self.flow(a, b, Some(request.slot), local, there), self.flow(b, a, None, there, local));
        self.region.slot(request.slot).unwrap().adopt(&mine);
        let listen = &self.region.slot(listener).unwrap().listen;
        let tail = listen.tail.load(Ordering::Relaxed);
        let words = self.region.accept_words(listen.ring.load(Ordering::Relaxed), tail).unwrap();
        words.store_bytes(other.as_bytes());
        listen.tail.store(tail.wrapping_add(1), Ordering::Release);
        self.notice();
    }

    fn unlisten(&mut self, slot: u32) {
        self.bound.retain(|(s, _)| *s != slot);
        let conn = &self.region.slot(slot).unwrap().conn;
        if conn.load_state() == slot_state::CONNECTING {
            conn.error.store(libc::ECONNRESET as u32, Ordering::Relaxed);
            conn.store_state(slot_state::OPEN);
            self.notice();
        }
    }

    fn flow(&mut self, index: usize, peer: usize, slot: Option<u32>, local: Addr, remote: Addr) -> AcceptRecord {
        let tx_off = self.region.header().payload_off + index as u64 * 2 * u64::from(BUFFER);
        let rx_off = tx_off + u64::from(BUFFER);
        self.flows.push(Flow { slot, peer, tx_off, rx_off, port: local.port, ..Flow::default() });
        AcceptRecord {
            flow: FlowId { index: index as u32, generation: 1 },
            tx_off,
            rx_off,
            tx_len: BUFFER,
            rx_len: BUFFER,
            names: SlotNames {
                local_ip: local.ip,
                remote_ip: remote.ip,
                local_port: local.port,
                remote_port: remote.port,
                ..SlotNames::default()
            },
            ..AcceptRecord::default()
        }
    }

    fn notice(&self) {
        self.region.page(0).unwrap().daemon.notices.fetch_add(1, Ordering::Release);
        self.interrupt();
    }

    fn interrupt(&self) {
        if toe::link::sync::sleep::must_wake(&self.region.page(0).unwrap().host.parked) {
            rustix::io::write(&self.irq, &1u64.to_ne_bytes()).unwrap();
        }
    }

    /// Tokens whose last copy is closed: an end in order if the slot says so, else a reset.
    fn reap(&mut self) {
        let gone: Vec<u32> = self.tokens.iter().filter(|t| readable(t.end.as_fd(), 0).contains(PollFlags::HUP)).map(|t| t.slot).collect();
        for slot in gone {
            self.tokens.retain(|t| t.slot != slot);
            self.bound.retain(|(s, _)| *s != slot);
            let words = self.region.slot(slot).unwrap();
            let flow = words.conn.flow().index as usize;
            if words.conn.load_state() != slot_state::CONNECTED || flow >= self.flows.len() {
                continue;
            }
            if words.tx.slot_flags.load(Ordering::Relaxed) & slot_flags::CLEAN != 0 {
                self.flows[flow].tx_head = words.tx.head.load(Ordering::Acquire);
                self.flows[flow].fin = true;
            } else {
                self.reset(self.flows[flow].peer);
            }
        }
    }

    // --- the card

    fn reset(&mut self, flow: usize) {
        let flow = &mut self.flows[flow];
        flow.flags |= ev_flags::ERROR | ev_flags::CLOSED;
        flow.error = libc::ECONNRESET as u32;
        flow.news = true;
    }

    fn card(&mut self) {
        while let Some(desc) = self.hc.pop() {
            let index = desc.flow.index as usize;
            if index >= self.flows.len() {
                continue;
            }
            if desc.kind == hc::REBIND {
                self.flows[index].slot = Some(desc.opaque);
                self.flows[index].news = true;
            }
            let flow = &mut self.flows[index];
            (flow.tx_head, flow.rx_tail) = (desc.tx_head, desc.rx_tail);
            flow.fin |= desc.flags & hc_flags::FIN != 0;
            if matches!(desc.kind, hc::CLOSE | hc::ABORT) {
                FAREWELLS.lock().unwrap().push((flow.port, desc.kind));
                let unread = desc.kind == hc::ABORT || flow.rx_head != flow.rx_tail;
                flow.fin |= !unread;
                if unread {
                    self.reset(self.flows[index].peer);
                }
            }
        }
        self.hc.publish();
        let mut taken = TAKEN.lock().unwrap();
        for (port, by) in taken.drain(..) {
            for flow in self.flows.iter_mut().filter(|flow| flow.port == port) {
                if let (Some(slot), Some(ctx)) = (flow.slot.take(), by) {
                    self.region.slot(slot).unwrap().conn.ctx.store(ctx, Ordering::Relaxed);
                }
            }
        }
        drop(taken);
        (0..self.flows.len()).for_each(|i| self.carry(i));
        (0..self.flows.len()).for_each(|i| self.post(i));
    }

    /// Moves bytes from a flow's transmit buffer to its peer's receive buffer.
    fn carry(&mut self, from: usize) {
        let (a, b) = (self.flows[from], self.flows[self.flows[from].peer]);
        if (a.flags | b.flags) & ev_flags::ERROR != 0 {
            return;
        }
        let room = BUFFER - b.rx_head.wrapping_sub(b.rx_tail);
        let n = a.tx_head.wrapping_sub(a.tx_tail).min(room);
        if n > 0 {
            let mut bytes = vec![0; n as usize];
            let (tx, rx) = (self.region.ring(a.tx_off, BUFFER).unwrap(), self.region.ring(b.rx_off, BUFFER).unwrap());
            tx.drain(a.tx_tail, n, &mut Sink::from_slice(&mut bytes));
            rx.fill(b.rx_head, n, &mut Source::from_slice(&bytes));
            self.flows[from].tx_tail = a.tx_tail.wrapping_add(n);
            self.flows[a.peer].rx_head = b.rx_head.wrapping_add(n);
            self.flows[from].news = true;
            self.flows[a.peer].news = true;
        }
        if a.fin && self.flows[from].tx_tail == a.tx_head && b.flags & ev_flags::RX_FIN == 0 {
            self.flows[a.peer].flags |= ev_flags::RX_FIN;
            self.flows[a.peer].news = true;
        }
    }

    fn post(&mut self, index: usize) {
        let flow = self.flows[index];
        let Some(slot) = flow.slot.filter(|_| flow.news) else { return };
        let event = EventDesc {
            kind: ev::FLOW,
            flags: flow.flags,
            flow: FlowId { index: index as u32, generation: 1 },
            rx_head: flow.rx_head,
            tx_tail: flow.tx_tail,
            opaque: slot,
            error: flow.error,
            srtt_us: 77,
            cwnd: 14480,
            ..EventDesc::default()
        };
        if self.ev.push(event).is_ok() {
            self.flows[index].news = false;
            self.interrupt();
        }
    }
}

/// The numbers of descriptors are what the tests hold.
#[allow(dead_code, reason = "not every test binary needs it")]
pub fn raw(fd: &impl AsRawFd) -> i32 {
    fd.as_raw_fd()
}
