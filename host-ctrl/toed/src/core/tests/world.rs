//! Two daemons, each with a card that answers control messages and does nothing else, joined by a wire.

use super::card::mac;
pub use super::card::{FakeCard, FakeRates};
use crate::core::{Attachment, ClientId, Core, CoreConfig, Created, Host, Incoming, Limits, Memory, Proof, alloc::Buddies};
use rustix::io::Errno;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};
use toe_abi::{
    CtxId, FlowId, RegionId,
    app::{APP_MAGIC, Reply, Request, op},
    control::ControlMsg,
    flow::v4_mapped,
    frames::{self, FrameRecord},
    region::{AcceptRecord, RegionHeader, SocketSlot, slot_flags, slot_state},
};
use toe_engine::{BufferLog2, Config, Engine, Prefix};
use zerocopy::{FromBytes, IntoBytes};

pub const SEC: u64 = 1_000_000;
/// How far what applications are told of a region's place is from what the card is told: neither must get the other's.
pub const OFFSET: u64 = 0x1000;

/// Plain memory that test and core share.
#[derive(Clone)]
pub struct FakeMemory(Rc<RefCell<Vec<u8>>>);

impl FakeMemory {
    fn new(len: u64) -> Self {
        Self(Rc::new(RefCell::new(vec![0; len as usize])))
    }

    pub fn get<T: FromBytes + IntoBytes>(&self, offset: u64) -> T {
        let mut value = T::new_zeroed();
        self.read(offset, value.as_mut_bytes());
        value
    }
}

impl Memory for FakeMemory {
    fn load(&self, offset: u64) -> u32 {
        self.get(offset)
    }
    fn store(&self, offset: u64, value: u32) {
        self.write(offset, &value.to_ne_bytes());
    }
    fn read(&self, offset: u64, out: &mut [u8]) {
        out.copy_from_slice(&self.0.borrow()[offset as usize..offset as usize + out.len()]);
    }
    fn write(&self, offset: u64, bytes: &[u8]) {
        self.0.borrow_mut()[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
    }
    fn clear(&self, offset: u64, len: u64) {
        self.0.borrow_mut()[offset as usize..(offset + len) as usize].fill(0);
    }
    fn fence(&self) {}
}

/// What the core did to its machine.
pub struct FakeHost {
    pub regions: BTreeMap<RegionId, FakeMemory>,
    pub contexts: BTreeSet<CtxId>,
    pub tokens: BTreeSet<(RegionId, u32)>,
    pub interrupts: Vec<CtxId>,
    pub replies: VecDeque<(ClientId, Reply, Vec<Attachment>)>,
    submitted: VecDeque<ControlMsg>,
    packets: VecDeque<(FrameRecord, Vec<u8>)>,
    /// Room in the queues to the card.
    pub room: usize,
    /// Descriptors left.
    pub descriptors: usize,
    pub memory_gone: bool,
}

impl Host for FakeHost {
    type Memory = FakeMemory;

    fn create_region(&mut self, region: RegionId, len: u64) -> Result<Created<FakeMemory>, Errno> {
        if self.memory_gone {
            return Err(Errno::NOMEM);
        }
        let memory = FakeMemory::new(len);
        assert!(self.regions.insert(region, memory.clone()).is_none(), "region {region:?} exists");
        let place = u64::from(region.0) << 20;
        Ok(Created { memory, iova: place, offset: place + OFFSET })
    }
    fn destroy_region(&mut self, region: RegionId) {
        self.regions.remove(&region).expect("destroyed once");
    }
    fn open_context(&mut self, ctx: CtxId) -> Result<(), Errno> {
        assert!(self.contexts.insert(ctx), "context {ctx:?} is open");
        Ok(())
    }
    fn close_context(&mut self, ctx: CtxId) {
        assert!(self.contexts.remove(&ctx), "context {ctx:?} is not open");
    }
    fn interrupt(&mut self, ctx: CtxId) {
        assert!(self.contexts.contains(&ctx));
        self.interrupts.push(ctx);
    }
    fn open_token(&mut self, region: RegionId, slot: u32) -> Result<(), Errno> {
        self.descriptors = self.descriptors.checked_sub(1).ok_or(Errno::MFILE)?;
        assert!(self.tokens.insert((region, slot)), "slot {slot} has a token");
        Ok(())
    }
    fn close_token(&mut self, region: RegionId, slot: u32) {
        self.descriptors += 1;
        assert!(self.tokens.remove(&(region, slot)), "slot {slot} has no token");
    }
    fn submit(&mut self, msg: &ControlMsg) -> bool {
        let room = self.submitted.len() < self.room;
        if room {
            self.submitted.push_back(*msg);
        }
        room
    }
    fn packet(&mut self, record: &FrameRecord, frame: &[u8]) -> bool {
        let room = self.packets.len() < self.room;
        if room {
            self.packets.push_back((*record, frame.to_vec()));
        }
        room
    }
    fn reply(&mut self, client: ClientId, reply: &Reply, attach: &[Attachment]) {
        self.replies.push_back((client, *reply, attach.to_vec()));
    }
}

/// One daemon with its card.
pub struct Node {
    pub core: Core<FakeHost>,
    pub card: FakeCard,
    next_client: u64,
}

impl Node {
    pub fn new(host: u8, limits: Limits) -> Self {
        let address = Prefix::new(v4_mapped([10, 0, 0, host]), 24).expect("24 bits");
        let engine = Config { answer_arp: true, timestamps: false, secret: [host; 16], ..Config::new(mac(host), vec![address]) };
        let config = CoreConfig {
            limits,
            buffers: BufferLog2 { tx: 13, rx: 13 },
            card_contexts: 8,
            card_regions: 5,
            ..CoreConfig::new(Some(address))
        };
        let machine = FakeHost {
            regions: BTreeMap::new(),
            contexts: BTreeSet::new(),
            tokens: BTreeSet::new(),
            interrupts: Vec::new(),
            replies: VecDeque::new(),
            submitted: VecDeque::new(),
            packets: VecDeque::new(),
            room: 256,
            descriptors: 1000,
            memory_gone: false,
        };
        let engine = Engine::new(engine, SEC).expect("a valid configuration");
        Self { core: Core::new(config, machine, engine), card: FakeCard::default(), next_client: 1 }
    }

    /// Lets card and core work until both are idle. Returns the frames for the wire.
    pub fn settle(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut wire = Vec::new();
        loop {
            let mut answers = Vec::new();
            while let Some(msg) = self.core.host().submitted.pop_front() {
                self.card.answer(&msg, &mut answers, &mut wire);
            }
            if self.card.mute {
                self.card.muted.extend(answers.drain(..));
            } else {
                answers.splice(0..0, self.card.muted.drain(..));
            }
            let packets: Vec<_> = self.core.host().packets.drain(..).collect();
            let idle = answers.is_empty() && packets.is_empty();
            wire.extend(packets.into_iter().filter(|(r, _)| r.kind == frames::kind::TRANSMIT).map(|(_, f)| f));
            for answer in answers {
                self.core.completion(&answer, now);
            }
            if self.core.next_deadline(now).is_some_and(|t| t <= now + 1000) {
                self.core.timer(now);
            }
            if idle && self.core.host().submitted.is_empty() && self.core.host().packets.is_empty() {
                return wire;
            }
        }
    }

    pub fn connect_client(&mut self) -> ClientId {
        self.connect_client_of(0)
    }

    pub fn connect_client_of(&mut self, uid: u32) -> ClientId {
        let client = ClientId(self.next_client);
        self.next_client += 1;
        self.core.client_connected(client, 1000 + client.0 as i32, uid);
        client
    }

    /// The card reports the end of a flow.
    pub fn flow_ends(&mut self, flow: FlowId, reason: u32, now: u64) {
        let notice = self.card.end(flow, reason).expect("the flow is there");
        self.core.completion(&notice, now);
    }

    pub fn memory(&mut self, region: u16) -> FakeMemory {
        self.core.host().regions.get(&RegionId(region)).expect("the region is there").clone()
    }

    pub fn slot(&mut self, region: u16, slot: u32) -> SocketSlot {
        let memory = self.memory(region);
        let header: RegionHeader = memory.get(0);
        memory.get(header.socket(slot))
    }

    /// What a library would write.
    pub fn write_slot(&mut self, region: u16, slot: u32, change: impl FnOnce(&mut SocketSlot)) {
        let memory = self.memory(region);
        let at = memory.get::<RegionHeader>(0).socket(slot);
        let mut value: SocketSlot = memory.get(at);
        change(&mut value);
        memory.write(at, value.as_bytes());
    }

    /// What the library does in accept(): takes a record and puts it into a fresh slot.
    pub fn accept(&mut self, region: u16, listener: u32, slot: u32) -> Option<AcceptRecord> {
        let record = self.take_record(region, listener)?;
        self.write_slot(region, slot, |s| {
            s.conn.flow = record.flow;
            s.conn.state = slot_state::CONNECTED;
            s.tx.slot_flags = slot_flags::CLEAN;
        });
        Some(record)
    }

    pub fn take_record(&mut self, region: u16, listener: u32) -> Option<AcceptRecord> {
        let memory = self.memory(region);
        let header: RegionHeader = memory.get(0);
        let s = self.slot(region, listener);
        if s.listen.head == s.listen.tail {
            return None;
        }
        let index = s.listen.head & (header.accept_entries - 1);
        self.write_slot(region, listener, |s| s.listen.head = s.listen.head.wrapping_add(1));
        Some(memory.get(header.accept_ring(s.listen.ring) + u64::from(index) * 128))
    }

    /// Nothing is left of any application: no region, context, token, flow or buffer, here and on the card.
    pub fn assert_clean(&mut self) {
        let core = &mut self.core;
        assert!(core.apps.is_empty(), "{} applications", core.apps.len());
        assert!(core.owners.is_empty() && core.flows.is_empty() && core.opening.is_empty());
        assert!(core.listeners.is_empty() && core.waiting.is_empty());
        assert_eq!(core.free_contexts.len(), 7);
        assert_eq!(core.outbox.in_flight(), 0);
        let host = core.host();
        assert!(host.regions.is_empty() && host.contexts.is_empty() && host.tokens.is_empty());
        assert_eq!(host.descriptors, 1000);
        assert!(self.card.flows.is_empty());
    }

    /// The core's own books agree with each other.
    pub fn assert_books(&mut self) {
        for app in self.core.apps.values() {
            let flows = self.core.flows.values().filter(|f| f.owner == app.owner).count() as u32;
            let opening = self.core.opening.values().filter(|(r, _)| *r == app.region.0).count() as u32;
            assert!(app.connections >= flows + opening, "{} < {flows} + {opening}", app.connections);
            assert_eq!(app.tokens as usize, app.slots.iter().filter(|s| s.open).count());
            assert_eq!(app.tokens as usize + app.free_slots.len(), app.slots.len());
            let fits = |b: &Buddies| b.used_bytes() <= b.len();
            assert!(fits(&app.payload));
        }
    }
}

/// Two nodes, 10.0.0.1 and 10.0.0.2, and the time.
pub struct World {
    pub a: Node,
    pub b: Node,
    pub now: u64,
}

pub fn limits() -> Limits {
    Limits { contexts: 2, hc_entries: 4, ev_entries: 4, sockets: 16, listeners: 2, accept_entries: 4, connections: 6, payload_len: 1 << 18 }
}

impl World {
    pub fn new() -> Self {
        Self::with(limits())
    }

    pub fn with(limits: Limits) -> Self {
        let mut w = Self { a: Node::new(1, limits.clone()), b: Node::new(2, limits), now: SEC };
        w.run();
        w
    }

    /// Carries frames until nothing moves.
    pub fn run(&mut self) {
        loop {
            let (from_a, from_b) = (self.a.settle(self.now), self.b.settle(self.now));
            if from_a.is_empty() && from_b.is_empty() {
                self.a.assert_books();
                self.b.assert_books();
                return;
            }
            for frame in from_a {
                deliver(&mut self.b, &frame, self.now);
            }
            for frame in from_b {
                deliver(&mut self.a, &frame, self.now);
            }
        }
    }

    /// Lets time pass, from deadline to deadline.
    pub fn pass(&mut self, us: u64) {
        let end = self.now + us;
        loop {
            self.run();
            let next = [&self.a, &self.b].iter().filter_map(|n| n.core.next_deadline(self.now)).min();
            match next {
                Some(t) if t <= end => self.now = t.max(self.now + 1),
                _ => break,
            }
            self.a.core.timer(self.now);
            self.b.core.timer(self.now);
        }
        self.now = end;
    }

    /// Sends a request and returns the answer.
    pub fn ask(&mut self, node: Side, client: ClientId, request: Request, proof: Option<Proof>) -> Answer {
        let now = self.now;
        let n = self.node(node);
        assert!(!n.core.busy(client));
        n.core.request(&Incoming { client, request: &request, proof }, now);
        self.run();
        let replies = &mut self.node(node).core.host().replies;
        let (to, reply, attached) = replies.pop_front().expect("an answer");
        assert_eq!(to, client);
        assert!(replies.is_empty(), "one answer each");
        Answer { reply, attached }
    }

    pub fn node(&mut self, side: Side) -> &mut Node {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    /// A process that has said HELLO and has a context.
    pub fn start(&mut self, side: Side) -> App {
        let client = self.node(side).connect_client();
        let region = self.ask(side, client, hello(), None).ok().args[1] as u16;
        let ctx = self.ask(side, client, req(op::OPEN_CONTEXT), None).ok().args[0] as u32;
        App { side, client, region, ctx }
    }

    pub fn sockets(&mut self, app: App, n: u64) -> Vec<u32> {
        let r = self.ask(app.side, app.client, Request { args: [n, 0, 0, 0], ..req(op::POOL) }, None).ok();
        r.slots.iter().take(r.count as usize).map(|&s| u32::from(s)).collect()
    }

    pub fn listen(&mut self, app: App, slot: u32, port: u16, backlog: u64) {
        self.ask(app.side, app.client, Request { slot, port, ..req(op::BIND) }, None).ok();
        let listen = Request { slot, args: [backlog, app.ctx.into(), 0, 0], ..req(op::LISTEN) };
        self.ask(app.side, app.client, listen, None).ok();
    }

    pub fn connect(&mut self, app: App, slot: u32, to: [u8; 4], port: u16) -> Reply {
        let connect = Request { slot, args: [app.ctx.into(), 0, 0, 0], ip: v4_mapped(to), port, ..req(op::CONNECT) };
        self.ask(app.side, app.client, connect, None).reply
    }

    /// The last copy of a token is closed.
    pub fn close(&mut self, app: App, slot: u32) {
        let now = self.now;
        self.node(app.side).core.token_closed(RegionId(app.region), slot, now);
        self.run();
    }

    /// A process and all its descriptors are gone.
    pub fn kill(&mut self, app: App) {
        let now = self.now;
        let node = self.node(app.side);
        let tokens: Vec<u32> = node.core.host().tokens.iter().filter(|(r, _)| r.0 == app.region).map(|(_, s)| *s).collect();
        for slot in tokens {
            node.core.token_closed(RegionId(app.region), slot, now);
        }
        node.core.client_gone(app.client, now);
        self.run();
    }

    /// A connection of somebody on A, and a stranger there with a slot that claims it.
    pub fn forged(&mut self) -> (App, u32) {
        let (victim, _, from, _, _) = self.connected();
        let flow = self.a.slot(victim.region, from).conn.flow;
        let attacker = self.start(Side::A);
        let slot = self.sockets(attacker, 1)[0];
        self.a.write_slot(attacker.region, slot, |s| {
            s.conn.flow = flow;
            s.conn.state = slot_state::CONNECTED;
        });
        (attacker, slot)
    }

    /// One more process of an application's family.
    pub fn sibling(&mut self, app: App) -> ClientId {
        let client = self.node(app.side).connect_client();
        self.ask(app.side, client, hello(), Some(Proof::Region(RegionId(app.region)))).ok();
        client
    }

    /// A connection from A to a listener of B: the applications, A's slot, B's listening slot, and a free slot of B.
    pub fn connected(&mut self) -> (App, App, u32, u32, u32) {
        let (client, server, from, listening, spare) = self.listening();
        assert_eq!(self.connect(client, from, [10, 0, 0, 2], 80).errno, errno(Errno::INPROGRESS));
        assert_eq!(self.a.slot(client.region, from).conn.state, slot_state::CONNECTED);
        (client, server, from, listening, spare)
    }

    /// The same before it connects.
    pub fn listening(&mut self) -> (App, App, u32, u32, u32) {
        let (client, server) = (self.start(Side::A), self.start(Side::B));
        let slots = self.sockets(server, 2);
        self.listen(server, slots[0], 80, 4);
        let from = self.sockets(client, 1)[0];
        (client, server, from, slots[0], slots[1])
    }
}

fn deliver(node: &mut Node, frame: &[u8], now: u64) {
    let record = FrameRecord {
        kind: frames::kind::EXCEPTION,
        len: frame.len() as u32,
        flags: frames::flags::CSUM_OK,
        reason: toe_abi::counters::Exception::Syn as u32,
        ..FrameRecord::default()
    };
    node.core.frame(&record, frame, now);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    A,
    B,
}

/// A process in the test.
#[derive(Clone, Copy, Debug)]
pub struct App {
    pub side: Side,
    pub client: ClientId,
    pub region: u16,
    pub ctx: u32,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub reply: Reply,
    pub attached: Vec<Attachment>,
}

impl Answer {
    #[track_caller]
    pub fn ok(self) -> Reply {
        assert_eq!(self.reply.errno, 0, "{:?}", Errno::from_raw_os_error(self.reply.errno as i32));
        self.reply
    }

    #[track_caller]
    pub fn fails(self, e: Errno) -> Reply {
        assert_eq!(self.reply.errno, errno(e), "wanted {e:?}");
        assert!(self.attached.is_empty());
        self.reply
    }
}

pub fn errno(e: Errno) -> u32 {
    e.raw_os_error() as u32
}

pub fn req(op: u32) -> Request {
    Request { op, ..Request::default() }
}

pub fn hello() -> Request {
    Request { args: [APP_MAGIC, toe_abi::ABI_VERSION.into(), 1, 0], ..req(op::HELLO) }
}
