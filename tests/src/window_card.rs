//! A card behind a window, in a thread: what firmware inside QEMU does, without QEMU.
//!
//! ```text
//!   toe-window ──► peer ──► memory, vectors        fused Card over FakeMemory, FakePort
//!   page 0 ◄── registers, outcomes                    │ frames
//!   page 1 ──► requests                               └──► the other card's port
//! ```
//!
//! It keeps to the contract of `toe_abi::window` word by word, and can be told to fail, to start anew, or to go.

use core::mem::offset_of;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Time};
use toe_abi::control::CONTROL_REGION_LEN;
use toe_abi::window::{
    CARD_PAGE_OFF, CardPage, FAILURE_MAX, HOST_PAGE_OFF, HostPage, LOG_HEADER_OFF, LOG_LEN, LOG_OFF, LogHeader, in_memory, outcome, stage,
};
use toe_abi::{ABI_VERSION, CtxId, RegionId, regs};
use toe_datapath::{Card, CardConfig, Composition};
use toe_hal::fake::{self, FakeBoard, FakeKick, FakeMemory, FakePort};
use toe_hal::{HostMemory, Instant, PortCaps};
use toe_link::card::SharedMemory;
use toe_link::ivshmem::{Membership, Receiver};

/// Longest sleep: the server's news are looked at so often at least.
const SLEEP_MAX: Duration = Duration::from_millis(100);
const FLOWS: u32 = 64;
/// As toe-window gives them unless told otherwise.
const VECTORS: usize = 64;
const MTU: u32 = 1500;

/// What a card is told by its test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Order {
    Run = 0,
    /// Ends without a word, as when QEMU is killed.
    Die = 1,
    /// Says why it has failed, and does nothing any more.
    Fail = 2,
    /// Starts anew, as when the machine is reset.
    Restart = 3,
    /// Carries out no requests.
    Ignore = 4,
}

/// A thread with a card. It dies when dropped.
pub struct WindowCard {
    order: Arc<AtomicU8>,
    bell: Arc<OwnedFd>,
    port: FakePort,
    thread: Option<JoinHandle<Wire>>,
}

/// One end of the wire between two cards.
pub struct Wire {
    port: FakePort,
    bell: Arc<OwnedFd>,
    other: FakePort,
    other_bell: Arc<OwnedFd>,
}

/// Both ends of a new wire; the cards' MAC addresses end in 1 and 2.
pub fn wire() -> (Wire, Wire) {
    let port = |n: u8| FakePort::new(PortCaps { mac: [2, 0, 0, 0, 0, n], ..CAPS }, n.into());
    let bell = || Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("eventfd"));
    let (a, b, a_bell, b_bell) = (port(1), port(2), bell(), bell());
    let end = |port: &FakePort, bell: &Arc<OwnedFd>, other: &FakePort, other_bell: &Arc<OwnedFd>| Wire {
        port: port.clone(),
        bell: bell.clone(),
        other: other.clone(),
        other_bell: other_bell.clone(),
    };
    (end(&a, &a_bell, &b, &b_bell), end(&b, &b_bell, &a, &a_bell))
}

/// Super-frames go to the other card as they are, as between machines on one host.
const CAPS: PortCaps = PortCaps { mac: [0; 6], mtu: MTU as u16, tx_csum: true, tso_max: 60_000 };

impl WindowCard {
    /// Starts a card in the window whose server listens at `socket`.
    pub fn start(socket: &Path, wire: Wire) -> Self {
        Self::start_with(socket, wire, Order::Run)
    }

    /// One that does not answer requests, from its start on.
    pub fn start_deaf(socket: &Path, wire: Wire) -> Self {
        Self::start_with(socket, wire, Order::Ignore)
    }

    fn start_with(socket: &Path, wire: Wire, first: Order) -> Self {
        let order = Arc::new(AtomicU8::new(first as u8));
        let (bell, port) = (wire.bell.clone(), wire.port.clone());
        let (path, orders) = (socket.to_owned(), order.clone());
        let thread = std::thread::Builder::new().name("window-card".into()).spawn(move || {
            run(&path, &wire, &orders);
            wire
        });
        Self { order, bell, port, thread: Some(thread.expect("a thread")) }
    }

    fn tell(&self, order: Order) {
        self.order.store(order as u8, Ordering::Release);
        ring(&self.bell);
    }

    /// The card panics, saying so in its page.
    pub fn fail(&self) {
        self.tell(Order::Fail);
    }

    /// The card starts anew.
    pub fn restart(&self) {
        self.tell(Order::Restart);
    }

    /// The card does not answer requests any more.
    pub fn ignore(&self) {
        self.tell(Order::Ignore);
    }

    /// Frames that have arrived and that it has not taken.
    pub fn frames_waiting(&self) -> usize {
        self.port.waiting()
    }

    /// The card's machine ends: its peer leaves. Returns the end of the wire, for another.
    pub fn die(&mut self) -> Wire {
        self.tell(Order::Die);
        self.thread.take().expect("it dies once").join().expect("the card has not panicked")
    }
}

impl Drop for WindowCard {
    fn drop(&mut self) {
        self.tell(Order::Die);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ring(bell: &OwnedFd) {
    // EAGAIN: it is ringing already.
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

macro_rules! card {
    ($field:ident) => {
        CARD_PAGE_OFF + offset_of!(CardPage, $field) as u64
    };
}
macro_rules! host {
    ($field:ident) => {
        HOST_PAGE_OFF + offset_of!(HostPage, $field) as u64
    };
}

/// The card as a peer.
struct Peer {
    socket: OwnedFd,
    receiver: Receiver,
    view: Membership,
}

impl Peer {
    fn join(path: &PathBuf) -> Self {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).expect("a path")).expect("toe-window listens");
        let mut peer = Self { socket, receiver: Receiver::default(), view: Membership::default() };
        while peer.view.own().len() < VECTORS {
            poll(&mut [PollFd::new(&peer.socket, PollFlags::IN)], None).expect("poll");
            peer.read();
        }
        peer
    }

    /// `false`: the server has gone.
    fn read(&mut self) -> bool {
        loop {
            match self.receiver.next(&self.socket) {
                Ok(Some((value, fd))) => drop(self.view.take(value, fd).expect("a server that keeps to the protocol")),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

/// The thread.
struct Machine<'a> {
    peer: Peer,
    memory: SharedMemory,
    wire: &'a Wire,
    orders: &'a AtomicU8,
}

/// Starts of cards so far: no two are the same instance.
static STARTS: AtomicU32 = AtomicU32::new(0);

fn run(path: &PathBuf, wire: &Wire, orders: &AtomicU8) {
    let peer = Peer::join(path);
    let memfd = peer.view.memory().expect("the window").try_clone().expect("a copy");
    let len = rustix::fs::fstat(&memfd).expect("fstat").st_size as u64;
    let memory = SharedMemory::map(memfd, 0, len).expect("the window is mapped");
    let mut machine = Machine { peer, memory, wire, orders };
    while machine.life() {}
}

impl Machine<'_> {
    fn set(&self, at: u64, value: u32) {
        self.memory.store(at, value);
    }

    fn order(&self) -> u8 {
        self.orders.load(Ordering::Acquire)
    }

    fn signal(&self, ctx: usize) {
        // Whoever it was that asked last. What others write is a claim: a peer or vector that is not there is nobody.
        let Ok(host) = u16::try_from(self.memory.load(host!(peer))) else { return };
        if let Some(fd) = self.peer.view.vectors_of(host).get(ctx) {
            ring(fd);
        }
    }

    /// From one start of the card to its end. `true`: it starts anew.
    fn life(&mut self) -> bool {
        let vectors = self.peer.view.own().len() as u32;
        let host_memory = FakeMemory::new(1);
        // SAFETY: the window stays mapped as long as `self.memory`, longer than this function; what others do to it are atomics and raw copies.
        unsafe { host_memory.map_raw(0, self.memory.base(), self.memory.len() as usize) };
        let kick = FakeKick::default();
        let config = CardConfig { max_flows: FLOWS, max_contexts: vectors as u16, max_regions: 16, ..CardConfig::default() };
        let mut bind = host_memory.handle();
        let mut card: Card<FakeBoard> = Card::new(config.clone(), fake::parts(host_memory, &self.wire.port, &kick));
        self.get_ready(&config);
        self.log(b"card: ready\0");
        let start = Time::now();
        loop {
            let now = Instant(start.elapsed().as_micros() as u64 + 1);
            match self.order() {
                o if o == Order::Die as u8 => return false,
                o if o == Order::Restart as u8 => {
                    self.orders.store(Order::Run as u8, Ordering::Release);
                    return true;
                }
                o if o == Order::Fail as u8 => {
                    self.fail("panicked at nic-fw/test.rs:7: told to");
                    self.sleep(None);
                    continue;
                }
                o if o == Order::Run as u8 => self.request(&mut card, &mut bind),
                _ => {}
            }
            let any = card.poll(now);
            kick.take().into_iter().for_each(|ctx| self.signal(ctx.0.into()));
            self.send();
            if any || !card.park(now) {
                continue;
            }
            let until = card.next_deadline(now).map(|t| Duration::from_micros(t.micros().saturating_sub(now.micros())));
            for ctx in self.sleep(until) {
                card.kicked(CtxId(ctx));
            }
        }
    }

    /// "Start of a card" in the contract.
    fn get_ready(&self, config: &CardConfig) {
        self.set(card!(magic), 0);
        self.memory.fence();
        self.set(card!(instance), std::process::id().wrapping_add(STARTS.fetch_add(1, Ordering::Relaxed)).max(1));
        let [a, b, c, d, e, f] = [2, 0, 0, 0, 0, mac_end(&self.wire.port)];
        let len = self.memory.len();
        for (at, value) in [
            (card!(version), ABI_VERSION),
            (card!(caps), regs::caps::TIMERS | regs::caps::SACK),
            (card!(status), regs::status::DETACHED),
            (card!(max_flows), config.max_flows),
            (card!(max_contexts), config.max_contexts.into()),
            (card!(max_regions), config.max_regions.into()),
            (card!(mtu), MTU),
            (card!(mac_lo), u32::from_le_bytes([a, b, c, d])),
            (card!(mac_hi), u32::from_le_bytes([e, f, 0, 0])),
            (card!(max_next_hops), config.max_next_hops.into()),
            (card!(peer), self.peer.view.id().unwrap_or_default().into()),
            (card!(window_lo), len as u32),
            (card!(window_hi), (len >> 32) as u32),
            (card!(stage), stage::READY),
            (card!(failed_core), u32::MAX),
            (card!(link), regs::link::UP),
            (card!(failure_len), 0),
            (LOG_HEADER_OFF + offset_of!(LogHeader, begun) as u64, 0),
            (LOG_HEADER_OFF + offset_of!(LogHeader, written) as u64, 0),
            (card!(outcome), outcome::NONE),
        ] {
            self.set(at, value);
        }
        self.set(card!(done), self.memory.load(host!(number)));
        self.set(card!(magic), regs::MAGIC_VALUE);
        if self.memory.load(host!(version)) != 0 {
            self.signal(0);
        }
    }

    /// "A request" in the contract.
    fn request(&self, card: &mut Card<FakeBoard>, memory: &mut FakeMemory) {
        let number = self.memory.load(host!(number));
        if number == self.memory.load(card!(done)) {
            return;
        }
        let control = u64::from(self.memory.load(host!(control_lo))) | u64::from(self.memory.load(host!(control_hi))) << 32;
        let result = match self.memory.load(host!(request)) {
            regs::enable::ATTACH if in_memory(control, CONTROL_REGION_LEN, self.memory.len()) => {
                memory.unbind(RegionId::CONTROL);
                memory.bind(RegionId::CONTROL, control, CONTROL_REGION_LEN).expect("inside the window");
                card.attach_control();
                self.set(card!(status), regs::status::ATTACHED);
                outcome::OK
            }
            what @ (regs::enable::DETACH | regs::enable::RESET) => {
                if what == regs::enable::RESET {
                    card.reset();
                }
                card.detach_control();
                memory.unbind(RegionId::CONTROL);
                self.set(card!(status), regs::status::DETACHED);
                outcome::OK
            }
            _ => outcome::INVALID,
        };
        self.set(card!(outcome), result);
        self.set(card!(done), number);
        self.signal(0);
    }

    fn fail(&self, text: &str) {
        if self.memory.load(card!(status)) == regs::status::FAILED {
            return;
        }
        let mut bytes = text.as_bytes().to_vec();
        bytes.truncate(FAILURE_MAX);
        let len = bytes.len() as u32;
        bytes.resize(FAILURE_MAX, 0);
        self.memory.write(card!(failure), &bytes);
        self.set(card!(failed_core), 0);
        self.set(card!(failure_len), len);
        self.set(card!(status), regs::status::FAILED);
        self.signal(0);
    }

    /// Whole words only, at the start of the ring: enough for a test.
    fn log(&self, text: &[u8]) {
        let mut bytes = text.to_vec();
        bytes.resize(text.len().next_multiple_of(4), 0);
        assert!(bytes.len() as u64 <= LOG_LEN);
        self.set(LOG_HEADER_OFF + offset_of!(LogHeader, begun) as u64, text.len() as u32);
        self.memory.write(LOG_OFF, &bytes);
        self.set(LOG_HEADER_OFF + offset_of!(LogHeader, written) as u64, text.len() as u32);
    }

    /// Frames go to the other card.
    fn send(&self) {
        let mut any = false;
        while let Some(sent) = self.wire.port.take_sent() {
            self.wire.other.arrive(sent.into_received());
            any = true;
        }
        if any {
            ring(&self.wire.other_bell);
        }
    }

    /// Until something happens. Returns the contexts that were kicked.
    fn sleep(&mut self, until: Option<Duration>) -> Vec<u16> {
        let vectors = self.peer.view.own();
        let waits = [&self.peer.socket, &*self.wire.bell];
        let mut fds: Vec<PollFd<'_>> = waits.into_iter().chain(vectors).map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let timeout = until.map_or(SLEEP_MAX, |t| t.min(SLEEP_MAX)).try_into().expect("a short time");
        poll(&mut fds, Some(&timeout)).expect("poll");
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let quiet = |fd: &OwnedFd| {
            let _ = rustix::io::read(fd, &mut [0; 8]);
        };
        if ready[1] {
            quiet(&self.wire.bell);
        }
        let kicked: Vec<u16> = (0..).zip(&ready[2..]).filter(|(_, ready)| **ready).map(|(v, _)| v).collect();
        for &v in &kicked {
            quiet(&self.peer.view.own()[usize::from(v)]);
        }
        if ready[0] && !self.peer.read() {
            // Without its server it can only be ended.
            self.orders.store(Order::Die as u8, Ordering::Release);
        }
        kicked
    }
}

fn mac_end(port: &FakePort) -> u8 {
    use toe_hal::TxPort;
    port.caps().mac[5]
}
