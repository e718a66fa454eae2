//! The library between a daemon, a card and processes of its family that say anything: what they answer, and what they write into the memory that
//! all of them share. Nothing panics, spins, or is read or written outside of that memory.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use arbitrary::Arbitrary;
use rustix::io::Errno;
use toe::{Context, Event, SocketId};
use toe_abi::desc::{EventDesc, HostDesc, ev};
use toe_abi::region::{AcceptRecord, RegionConfig, RegionHeader, SOCKET_SLOT_LEN, SlotNames, slot_state};
use toe_abi::{FlowId, region::SocketSlot};
use toe_link::Region;
use toe_link::client::Daemon;
use toe_link::slot::{Addr, Slot};
use toe_sync::queue::{Consumer, Producer};
use zerocopy::IntoBytes;

use super::calls::Call;
use super::steps::steps;

const STEPS_MAX: usize = 200;
const SOCKETS: u32 = 8;
/// Bytes of buffers.
const PAYLOAD: u64 = 1 << 15;
/// Words of a slot that are locks: whoever holds one and lives is waited for.
const LOCKS: [usize; 2] = [
    core::mem::offset_of!(SocketSlot, tx) + core::mem::offset_of!(toe_abi::region::SlotTx, lock),
    core::mem::offset_of!(SocketSlot, rx) + core::mem::offset_of!(toe_abi::region::SlotRx, lock),
];

#[derive(Arbitrary, Debug)]
enum Step {
    Call(Call),
    Accept,
    /// Looks at what can be received, or where can be sent from, and is done with so much of it.
    View {
        which: u8,
        sends: bool,
        done: u32,
    },
    /// The daemon's next answers are not what they should be.
    Lie(u32),
    /// A connection is there, with buffers of any place and length; or as they should be.
    Connected {
        slot: u8,
        off: Option<(u32, u32)>,
        len: Option<(u32, u32)>,
    },
    Waits {
        ring: u8,
        off: Option<(u32, u32)>,
        len: Option<(u32, u32)>,
    },
    Event {
        slot: u8,
        flags: u8,
        rx_head: u16,
        tx_tail: u16,
        urgent: u16,
        stale: bool,
    },
    /// A word of a slot, or of anything.
    Slot {
        slot: u8,
        word: u8,
        value: u32,
    },
    Poke {
        at: u16,
        value: u32,
    },
    Notice,
    Failed(bool),
    Sleep,
}

/// As the library sees it.
struct Toed {
    memory: Rc<Region>,
    given: u32,
    lies: Rc<RefCell<Vec<u32>>>,
}

impl Toed {
    fn lie(&self) -> Option<u32> {
        self.lies.borrow_mut().pop()
    }

    /// An error, for every other lie.
    fn answer<T>(&self, truth: T, lie: impl FnOnce(u32) -> T) -> Result<T, Errno> {
        match self.lie() {
            None => Ok(truth),
            Some(value) if value.is_multiple_of(2) => Err(Errno::from_raw_os_error(1 + (value / 2 % 130) as i32)),
            Some(value) => Ok(lie(value)),
        }
    }
}

impl Daemon for Toed {
    type Token = u32;

    fn pool(&mut self, _wanted: u32) -> Result<Vec<(u32, u32)>, Errno> {
        let slot = self.given;
        self.given = (slot + 1) % SOCKETS;
        self.answer(vec![(slot, slot)], |value| vec![(value >> 8 & 0xf, 0); (value >> 4 & 3) as usize])
    }

    fn bind(&mut self, _slot: u32, addr: Addr, _flags: u16) -> Result<Addr, Errno> {
        self.answer(addr, |value| Addr::v4(value.to_be_bytes(), value as u16))
    }

    fn listen(&mut self, slot: u32, _backlog: u32, _ctx: u32) -> Result<u16, Errno> {
        if let Some(slot) = self.memory.slot(slot) {
            slot.conn.store_state(slot_state::LISTENING);
        }
        self.answer(80, |value| value as u16)
    }

    fn connect(&mut self, _slot: u32, addr: Addr, _ctx: u32) -> Result<Addr, Errno> {
        self.answer(addr, |value| Addr::v4(value.to_be_bytes(), value as u16))
    }

    fn subscribe(&mut self, _slot: u32, _ctx: u32) -> Result<(), Errno> {
        self.answer((), |_| ())
    }

    fn unlisten(&mut self, _slot: u32) -> Result<(), Errno> {
        self.answer((), |_| ())
    }

    fn close_context(&mut self, _ctx: u32) -> Result<(), Errno> {
        self.answer((), |_| ())
    }

    fn close(&mut self, _token: u32) -> bool {
        self.lie().is_none()
    }

    fn kick(&mut self, _ctx: u32) {}
}

struct World {
    toe: Context<Toed>,
    /// As toed and the card have it.
    memory: Rc<Region>,
    events: Producer<EventDesc>,
    descriptors: Consumer<HostDesc>,
    lies: Rc<RefCell<Vec<u32>>>,
    listener: Option<SocketId>,
    sockets: Vec<SocketId>,
}

thread_local! {
    /// Memory for all inputs.
    static MEMORY: OwnedFd = rustix::fs::memfd_create("library", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
}

pub fn run(data: &[u8]) {
    MEMORY.with(|memory| {
        let mut world = World::new(memory);
        for step in steps(data, STEPS_MAX) {
            world.step(step, memory);
            world.settle();
        }
        let sockets = std::mem::take(&mut world.sockets);
        sockets.into_iter().chain(world.listener).for_each(|socket| world.toe.close(socket));
    });
}

fn header() -> RegionHeader {
    let config = RegionConfig {
        region: 1,
        n_contexts: 1,
        hc_entries: 4,
        ev_entries: 4,
        n_sockets: SOCKETS,
        n_listeners: 2,
        accept_entries: 2,
        payload_len: PAYLOAD,
    };
    RegionHeader::new(&config).expect("a valid configuration")
}

impl World {
    fn new(memfd: &OwnedFd) -> Self {
        let header = header();
        let mut begin = vec![0; header.len as usize];
        begin[..size_of::<RegionHeader>()].copy_from_slice(header.as_bytes());
        rustix::io::pwrite(memfd, &begin, 0).expect("memory");
        let memory = Rc::new(Region::map(memfd).expect("a region"));
        let (events, descriptors) = (memory.ev_queue(0).expect("a context"), memory.hc_queue(0).expect("a context"));
        let lies = Rc::default();
        let toed = Toed { memory: memory.clone(), given: 0, lies: Rc::clone(&lies) };
        let mut toe = Context::new(toed, Arc::new(Region::map(memfd).expect("a region")), 0).expect("a context");
        let listener = toe.listen(Addr { ip: [0; 16], port: 80 }, 2).ok();
        Self { toe, events: Producer::new(events), descriptors: Consumer::new(descriptors), memory, lies, listener, sockets: vec![] }
    }

    fn slot(&self, which: u8) -> &Slot {
        self.memory.slot(u32::from(which) % SOCKETS).expect("one of the slots")
    }

    fn step(&mut self, step: Step, memfd: &OwnedFd) {
        match step {
            // Errors are answers.
            Step::Call(call) => drop(call.make(&mut self.toe, &mut self.sockets)),
            Step::Accept => {
                let accepted = self.listener.and_then(|listener| self.toe.accept(listener).ok().flatten());
                self.sockets.extend(accepted);
            }
            Step::View { which, sends, done } => self.view(which, sends, done),
            Step::Lie(value) => self.lies.borrow_mut().push(value),
            Step::Connected { slot, off, len } => {
                let (off, len) = self.buffers(slot, off, len);
                let conn = &self.slot(slot).conn;
                conn.tx_off.store(off.0, Relaxed);
                conn.rx_off.store(off.1, Relaxed);
                conn.tx_len.store(len.0, Relaxed);
                conn.rx_len.store(len.1, Relaxed);
                conn.set_flow(flow(slot));
                conn.store_state(slot_state::CONNECTED);
            }
            Step::Waits { ring, off, len } => {
                let (off, len) = self.buffers(ring, off, len);
                let names = SlotNames::default();
                let record = AcceptRecord {
                    flow: flow(ring),
                    tx_off: off.0,
                    rx_off: off.1,
                    tx_len: len.0,
                    rx_len: len.1,
                    names,
                    ..Default::default()
                };
                let listen = &self.slot(0).listen;
                let tail = listen.tail.load(Relaxed);
                if let Some(words) = self.memory.accept_words(listen.ring.load(Relaxed), tail) {
                    words.store_bytes(record.as_bytes());
                }
                listen.tail.store(tail.wrapping_add(1), Release);
            }
            Step::Event { slot, flags, rx_head, tx_tail, urgent, stale } => {
                let mut flow = flow(slot);
                flow.generation += u32::from(stale);
                let event = EventDesc {
                    kind: ev::FLOW,
                    flags: flags.into(),
                    flow,
                    rx_head: rx_head.into(),
                    tx_tail: tx_tail.into(),
                    opaque: u32::from(slot) % (SOCKETS + 1),
                    error: 104,
                    urgent: urgent.into(),
                    ..EventDesc::default()
                };
                // A full queue is the card's to wait for.
                let _ = self.events.push(event);
            }
            Step::Slot { slot, word, value } => {
                let within = u64::from(word) * 4 % SOCKET_SLOT_LEN as u64;
                self.poke(memfd, self.memory.header().socket(u32::from(slot) % SOCKETS) + within, value);
            }
            Step::Poke { at, value } => self.poke(memfd, u64::from(at) * 4 % self.memory.header().len, value),
            Step::Notice => drop(self.page().daemon.notices.fetch_add(1, Release)),
            Step::Failed(card) => {
                let page = self.page();
                if card { &page.card.failed } else { &page.daemon.failed }.store(1, Release);
            }
            Step::Sleep => drop((self.toe.arm(), self.toe.disarm())),
        }
    }

    /// Writes a word, unless it is a lock.
    fn poke(&self, memfd: &OwnedFd, at: u64, value: u32) {
        let header = self.memory.header();
        let slots = header.socket(0)..header.socket(SOCKETS);
        let is_lock = slots.contains(&at) && LOCKS.contains(&((at - slots.start) as usize % SOCKET_SLOT_LEN));
        if !is_lock {
            rustix::io::pwrite(memfd, &value.to_ne_bytes(), at).expect("memory");
        }
    }

    fn page(&self) -> &toe_link::slot::Page {
        self.memory.page(0).expect("a context")
    }

    /// Offsets and lengths of the two buffers of a connection.
    fn buffers(&self, slot: u8, off: Option<(u32, u32)>, len: Option<(u32, u32)>) -> ((u64, u64), (u32, u32)) {
        let own = self.memory.header().payload_off + u64::from(slot) % u64::from(SOCKETS) * (PAYLOAD / u64::from(SOCKETS));
        let half = PAYLOAD / u64::from(SOCKETS) / 2;
        let off = off.map_or((own, own + half), |(tx, rx)| (tx.into(), rx.into()));
        (off, len.unwrap_or((half as u32, half as u32)))
    }

    /// Each span lies inside the payload area.
    fn view(&mut self, which: u8, sends: bool, done: u32) {
        let Some(at) = usize::from(which).checked_rem(self.sockets.len()) else { return };
        let id = self.sockets[at];
        let view = if sends { self.toe.send_view(id) } else { self.toe.recv_view(id) };
        let base = self.toe.region().base().as_ptr().addr() as u64 + self.memory.header().payload_off;
        for span in view.into_iter().flatten().filter(|span| span.len > 0) {
            let from = span.ptr.as_ptr().addr() as u64;
            assert!(base <= from && from + u64::from(span.len as u32) <= base + PAYLOAD, "a view outside of the buffers");
        }
        let _ = if sends { self.toe.commit(id, done) } else { self.toe.consume(id, done) };
    }

    /// The library looks at everything, and the card takes what it is told.
    fn settle(&mut self) {
        let mut events = [Event::default(); 4];
        self.toe.poll(&mut events);
        while self.descriptors.pop().is_some() {}
        self.descriptors.publish();
    }
}

fn flow(slot: u8) -> FlowId {
    FlowId { index: u32::from(slot) % SOCKETS, generation: 1 }
}
