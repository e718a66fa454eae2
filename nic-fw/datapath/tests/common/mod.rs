//! A card with fakes around it: a control plane, an application and a peer, as far as tests need them.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod echo;
pub mod threads;

use toe_abi::{
    CtxId, FlowId, HostAddr, RegionId,
    context::ContextPage,
    control::{
        COMPLETIONS_OFF, CONTROL_ENTRIES, CONTROL_REGION_LEN, ControlMsg, EXCEPTIONS_OFF, FRAME_RING_LEN, PACKETS_OFF, SUBMISSIONS_OFF,
        kind, status,
    },
    desc::{EventDesc, HostDesc, phase, slot},
    flow::{FlowKey, FlowState, v4_mapped},
    frames::{Found, FrameRecord, Placing, RECORD_LEN, RING_HEADER_LEN, place, ready},
    region::{RegionConfig, RegionHeader},
};
use toe_datapath::{Card, CardConfig, Composition, DeterministicCard, Interleaving, Placement};
use toe_hal::{
    Board, HostMemory, Instant, Parts, PortCaps, RxOffload,
    fake::{FakeBoard, FakeClock, FakeFrame, FakeKick, FakeMemory, FakePort, SentFrame},
};
use toe_tcp::{Now, Setup, establish};
use toe_wire::{Checksum, Frame, SeqNum, Sum, TcpFlags, TcpOptions, TxHeader, parse_frame};
use zerocopy::{FromBytes, IntoBytes};

pub const CARD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const CARD_IP: [u8; 4] = [10, 0, 0, 1];
pub const PEER_IP: [u8; 4] = [10, 0, 0, 2];
pub const ISS: u32 = 0xffff_ff00;
pub const IRS: u32 = 0x7fff_fff0;
pub const BUF_LOG2: u8 = 12;
pub const BUF: u64 = 1 << BUF_LOG2;
pub const MSS: u16 = 1000;

const CONTROL_IOVA: u64 = 0x10_0000;
const APP_IOVA: u64 = 0x1000_0000;
const APP_STEP: u64 = 0x100_0000;

pub type Fused = Card<FakeBoard>;
pub type Actors = DeterministicCard<FakeBoard>;

/// A board made of the fakes.
pub trait Fakes: Board<Memory = FakeMemory, Rx = FakePort, Tx = FakePort, Kick = FakeKick, Clock = FakeClock> {}
impl<B: Board<Memory = FakeMemory, Rx = FakePort, Tx = FakePort, Kick = FakeKick, Clock = FakeClock>> Fakes for B {}

pub trait Fake: Composition<Board: Fakes> {}
impl<C: Composition<Board: Fakes>> Fake for C {}

/// A way to put a card together, for tests of what holds for each.
pub trait Kind {
    type Card: Fake;

    fn bench_with(&self, config: CardConfig, caps: PortCaps) -> Bench<Self::Card>;

    fn bench(&self) -> Bench<Self::Card> {
        self.bench_with(config(), caps())
    }
}

/// See [`Kind`].
pub struct OneCore;

impl Kind for OneCore {
    type Card = Fused;

    fn bench_with(&self, config: CardConfig, caps: PortCaps) -> Bench<Fused> {
        Bench::new(1, caps, |parts| Card::new(config, parts))
    }
}

impl Kind for Interleaving {
    type Card = Actors;

    fn bench_with(&self, config: CardConfig, caps: PortCaps) -> Bench<Actors> {
        Bench::new(self.seed, caps, |parts| DeterministicCard::new(config, self, parts))
    }
}

/// The pipelined stages over a board of one's own.
pub fn actors_over<B: Fakes>(interleaving: &Interleaving) -> Bench<DeterministicCard<B>> {
    Bench::new(interleaving.seed, caps(), |parts| DeterministicCard::new(config(), interleaving, parts))
}

/// Rings, windows and pools as small as they can be, several of each stage.
pub fn tiny(seed: u64) -> Interleaving {
    let placement = Placement::spread(2, 2, 2, 2);
    Interleaving { seed, placement, ring_entries: 1, rx_window: 1, rx_hold: 64, pool_messages: 5, dma_entries: 1, posting_entries: 4 }
}

/// The pipelined stages in a few orders, one of them through the smallest of rings.
pub fn interleavings() -> impl Iterator<Item = Interleaving> {
    std::iter::once(tiny(0)).chain((1..8).map(Interleaving::from_seed))
}

/// Says which seed failed.
struct Failing(u64);

impl Drop for Failing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with TOE_SIM_SEED={}", self.0);
        }
    }
}

/// Runs `case` for each seed; how many there were. `TOE_SIM_SEEDS=n` sets how many, `TOE_SIM_SEED=n` runs that one alone.
pub fn for_seeds(default: u64, mut case: impl FnMut(u64)) -> u64 {
    let number = |name| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a number"));
    let seeds = match number("TOE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TOE_SIM_SEEDS").unwrap_or(default),
    };
    for seed in seeds.clone() {
        let _failing = Failing(seed);
        case(seed);
    }
    seeds.end - seeds.start
}

/// For each of the named functions, which take a [`Kind`], a test with each composition.
#[macro_export]
macro_rules! on_every_card {
    ($($name:ident,)*) => {$(
        mod $name {
            #[test]
            fn fused() {
                super::$name(&super::OneCore);
            }

            #[test]
            fn pipelined() {
                for interleaving in super::interleavings() {
                    println!("seed {}: {}", interleaving.seed, interleaving.placement);
                    super::$name(&interleaving);
                }
            }

            #[test]
            fn on_threads() {
                for interleaving in super::interleavings().take(4) {
                    println!("seed {}: {}", interleaving.seed, interleaving.placement);
                    super::$name(&super::threads::Threads(interleaving));
                }
            }
        }
    )*};
}

/// Everything around one card.
pub struct Bench<C> {
    pub card: C,
    pub port: FakePort,
    pub memory: FakeMemory,
    pub kick: FakeKick,
    pub now: Instant,
    pub header: RegionHeader,
    pub notices: Vec<ControlMsg>,
    sub_tail: u32,
    comp_head: u32,
    exc_head: u32,
    pkt_tail: u32,
    tag: u32,
    apps: Vec<App>,
}

/// The application's side of a context.
#[derive(Clone, Copy)]
pub struct App {
    pub ctx: CtxId,
    pub region: RegionId,
    pub index: u32,
    pub hc_tail: u32,
    pub ev_head: u32,
}

pub fn caps() -> PortCaps {
    PortCaps { mac: CARD_MAC, mtu: 1500, tx_csum: false, tso_max: 0 }
}

pub fn config() -> CardConfig {
    CardConfig { max_flows: 32, max_contexts: 8, max_regions: 4, max_next_hops: 4, ..CardConfig::default() }
}

pub fn actors(seed: u64) -> Bench<Actors> {
    Interleaving::from_seed(seed).bench()
}

impl<C: Fake> Bench<C> {
    /// A card with control plane attached, an address, a next hop, and application region 1 with contexts 1 and 2.
    pub fn new(seed: u64, caps: PortCaps, make: impl FnOnce(Parts<C::Board>) -> C) -> Self {
        let mut memory = FakeMemory::new(seed);
        memory.map_owned(CONTROL_IOVA, CONTROL_REGION_LEN as usize);
        memory.bind(RegionId::CONTROL, CONTROL_IOVA, CONTROL_REGION_LEN).unwrap();
        let kick = FakeKick::default();
        let header = RegionHeader::new(&RegionConfig {
            region: 1,
            n_contexts: 4,
            hc_entries: 8,
            ev_entries: 4,
            n_sockets: 1,
            n_listeners: 1,
            accept_entries: 2,
            payload_len: 64 * BUF,
        })
        .unwrap();
        for region in 1..4 {
            memory.map_owned(APP_IOVA + region * APP_STEP, header.len as usize);
        }
        let port = FakePort::new(caps, seed);
        let parts = toe_hal::fake::parts(memory.handle(), &port, &kick);
        let mut bench = Self {
            card: make(parts),
            port,
            memory,
            kick,
            now: Instant(1_000_000),
            header,
            notices: Vec::new(),
            sub_tail: 0,
            comp_head: 0,
            exc_head: 0,
            pkt_tail: 0,
            tag: 0,
            apps: Vec::new(),
        };
        bench.card.attach_control();
        bench.set_up();
        bench
    }

    fn set_up(&mut self) {
        let mut mac = [0; 8];
        mac[..6].copy_from_slice(&PEER_MAC);
        self.ok(kind::NEXT_HOP, [0, u64::from_le_bytes(mac), 1, 0, 0]);
        for ip in [v4_mapped(CARD_IP), CARD_IP6] {
            let mut address = ControlMsg::new(kind::ADDRESS, 0);
            address.args = [24, 1, 0, 0, 0];
            address.body[..16].copy_from_slice(&ip);
            assert_eq!(self.request(address).status, status::OK);
        }
        self.map_region(1);
        self.open_context(1, 1, 0);
        self.open_context(2, 1, 1);
    }

    fn zero_queues(&mut self) {
        self.memory.poke(control(0), &[0; SUBMISSIONS_OFF as usize]);
        for ring in [EXCEPTIONS_OFF, PACKETS_OFF] {
            self.memory.poke(control(ring), &[0; RING_HEADER_LEN]);
        }
        // What was never used has no phase, and most of the queues is that.
        for at in (SUBMISSIONS_OFF..EXCEPTIONS_OFF).step_by(512).map(control) {
            if self.memory.load(at.add(508)).unwrap() != 0 {
                self.memory.poke(at, &[0; 512]);
            }
        }
        (self.sub_tail, self.comp_head, self.exc_head, self.pkt_tail) = (0, 0, 0, 0);
    }

    /// The control plane goes, and its memory with it, as a board does it.
    pub fn detach(&mut self) {
        self.card.detach_control();
        self.memory.unbind(RegionId::CONTROL);
    }

    /// A new control plane takes over.
    pub fn reattach(&mut self) {
        self.memory.bind(RegionId::CONTROL, CONTROL_IOVA, CONTROL_REGION_LEN).unwrap();
        self.zero_queues();
        self.card.attach_control();
    }

    /// After a reset of the card.
    pub fn restart(&mut self) {
        self.reattach();
        self.set_up();
    }

    pub fn map_region(&mut self, region: u64) {
        self.map_region_at(region, region);
    }

    /// Maps memory number `place`: the first three are there, others are made.
    pub fn map_region_at(&mut self, region: u64, place: u64) {
        let (iova, len) = (APP_IOVA + place * APP_STEP, self.header.len);
        if place >= 4 {
            self.memory.map_owned(iova, len as usize);
        }
        self.ok(kind::MAP_REGION, [region, iova, len, 0, 0]);
    }

    /// Gives memory number `place` a name that only the test knows.
    pub fn see(&mut self, place: u64) -> RegionId {
        let region = RegionId(100 + place as u16);
        self.memory.bind(region, APP_IOVA + place * APP_STEP, self.header.len).unwrap();
        region
    }

    pub fn open_context(&mut self, ctx: u16, region: u16, index: u32) {
        let h = self.header;
        let hc = h.hc_queue(index) | u64::from(h.hc_entries.trailing_zeros()) << 56;
        let ev = h.ev_queue(index) | u64::from(h.ev_entries.trailing_zeros()) << 56;
        // As toed does: queues start as zeroes.
        let zeroes = vec![0; (h.hc_entries + h.ev_entries) as usize * 64];
        self.memory.poke(HostAddr::new(RegionId(region), h.hc_queue(index)), &zeroes);
        self.memory.poke(HostAddr::new(RegionId(region), h.context_page(index)), &[0; 4096]);
        self.ok(kind::OPEN_CONTEXT, [ctx.into(), region.into(), h.context_page(index), hc, ev]);
        self.apps.retain(|a| a.ctx.0 != ctx);
        self.apps.push(App { ctx: CtxId(ctx), region: RegionId(region), index, hc_tail: 0, ev_head: 0 });
    }

    // ---- time ----

    /// Polls until nothing is left to do now.
    pub fn run(&mut self) {
        for turn in 0.. {
            let any = self.card.poll(self.now);
            let busy = self.card.next_deadline(self.now).is_some_and(|d| d <= self.now);
            if !any && !busy {
                return;
            }
            assert!(turn < 100_000, "the card never comes to rest");
        }
    }

    /// Lets time pass, deadline by deadline.
    pub fn run_for(&mut self, us: u64) {
        let end = self.now.add_micros(us);
        loop {
            self.run();
            match self.card.next_deadline(self.now).filter(|&d| d < end) {
                Some(d) => self.now = d.max(self.now.add_micros(1)),
                None => break,
            }
        }
        self.now = end;
        self.run();
    }

    /// Nothing is to be done now: on to the next deadline.
    pub fn pass_time(&mut self) {
        let next = self.card.next_deadline(self.now).unwrap_or(self.now.add_micros(1000));
        self.now = next.max(self.now.add_micros(100));
    }

    /// Lets a card that waits for room at its port look again.
    pub fn look_again(&mut self) {
        let soon = self.now.add_micros(1000);
        self.now = self.card.next_deadline(self.now).filter(|&at| at <= soon).map_or(self.now, |at| at.max(self.now));
    }

    // ---- control plane ----

    /// Publishes a submission.
    pub fn submit(&mut self, mut msg: ControlMsg) -> u32 {
        self.tag += 1;
        msg.tag = self.tag;
        msg.phase = phase(self.sub_tail, CONTROL_ENTRIES);
        let at = control(SUBMISSIONS_OFF + u64::from(slot(self.sub_tail, CONTROL_ENTRIES)) * 512);
        self.memory.poke(at, &msg.as_bytes()[..508]);
        self.memory.store(at.add(508), msg.phase).unwrap();
        self.sub_tail += 1;
        if self.memory.load(control(64 + 8)).unwrap() != 0 {
            self.card.kicked(CtxId::CONTROL);
        }
        self.tag
    }

    /// The next completion.
    pub fn completion(&mut self) -> Option<ControlMsg> {
        let at = control(COMPLETIONS_OFF + u64::from(slot(self.comp_head, CONTROL_ENTRIES)) * 512);
        if self.memory.load(at.add(508)).unwrap() != phase(self.comp_head, CONTROL_ENTRIES) {
            return None;
        }
        let msg = ControlMsg::read_from_bytes(&self.memory.peek(at, 512)).unwrap();
        self.comp_head += 1;
        let head = self.comp_head;
        let ev_head = control(4);
        self.memory.store(ev_head, head).unwrap();
        Some(msg)
    }

    /// Sends a request and waits for its answer; notices are kept.
    pub fn request(&mut self, msg: ControlMsg) -> ControlMsg {
        self.request_while(msg, |b| {
            if !b.card.poll(b.now) {
                b.look_again();
            }
        })
    }

    /// The same, while something else goes on that polls the card.
    pub fn request_while(&mut self, msg: ControlMsg, mut other: impl FnMut(&mut Self)) -> ControlMsg {
        let tag = self.submit(msg);
        for _ in 0..100_000 {
            other(self);
            while let Some(answer) = self.completion() {
                if answer.tag == tag {
                    assert_eq!(answer.kind, msg.kind | kind::REPLY);
                    return answer;
                }
                assert_eq!(answer.tag, 0);
                self.notices.push(answer);
            }
        }
        panic!("no answer to kind {}; {:?}", msg.kind, self.card.counters().nonzero().collect::<Vec<_>>());
    }

    pub fn ask(&mut self, kind: u32, flow: FlowId, args: [u64; 5]) -> ControlMsg {
        let mut msg = ControlMsg::new(kind, 0);
        (msg.flow, msg.args) = (flow, args);
        self.request(msg)
    }

    pub fn ok(&mut self, kind: u32, args: [u64; 5]) -> ControlMsg {
        let answer = self.ask(kind, FlowId::NONE, args);
        assert_eq!(answer.status, status::OK, "kind {kind}");
        answer
    }

    /// Notices that have arrived: (flow, reason).
    pub fn closed(&mut self) -> Vec<(FlowId, u64)> {
        self.run();
        while let Some(msg) = self.completion() {
            assert_eq!((msg.tag, msg.kind), (0, kind::FLOW_CLOSED));
            assert!((1..=self.now.micros()).contains(&msg.args[1]), "the clock of the state: {}", msg.args[1]);
            self.notices.push(msg);
        }
        self.run();
        self.notices.drain(..).map(|n| (n.flow, n.args[0])).collect()
    }

    /// Frames in the exception ring.
    pub fn exceptions(&mut self) -> Vec<(FrameRecord, Vec<u8>)> {
        let mut out = Vec::new();
        let tail = self.memory.load(control(EXCEPTIONS_OFF)).unwrap();
        while let Some(ready @ 1..) = ready(FRAME_RING_LEN, self.exc_head, tail) {
            let data = EXCEPTIONS_OFF + RING_HEADER_LEN as u64;
            let at = control(data + u64::from(self.exc_head & (FRAME_RING_LEN - 1)));
            let record = FrameRecord::read_from_bytes(&self.memory.peek(at, RECORD_LEN as usize)).unwrap();
            match record.check(FRAME_RING_LEN, self.exc_head, ready) {
                Found::Frame { at, len, advance } => {
                    let at = control(data + u64::from(at));
                    out.push((record, self.memory.peek(at, len as usize)));
                    self.exc_head = self.exc_head.wrapping_add(advance);
                }
                Found::Skip { advance } => self.exc_head = self.exc_head.wrapping_add(advance),
                Found::Corrupt => panic!("corrupt exception ring"),
            }
        }
        let (at, head) = (control(EXCEPTIONS_OFF + 64), self.exc_head);
        self.memory.store(at, head).unwrap();
        out
    }

    /// Puts a frame into the packet ring.
    pub fn packet(&mut self, kind: u32, frame: &[u8], flags: u32) {
        let head = self.memory.load(control(PACKETS_OFF + 64)).unwrap();
        match place(FRAME_RING_LEN, self.pkt_tail, head, frame.len() as u32) {
            Placing::Put { at, advance } => {
                let record = FrameRecord { kind, len: frame.len() as u32, flags, ..Default::default() };
                let at = control(PACKETS_OFF + RING_HEADER_LEN as u64 + u64::from(at));
                self.memory.poke(at, record.as_bytes());
                self.memory.poke(at.add(64), frame);
                self.pkt_tail = self.pkt_tail.wrapping_add(advance);
                let (at, tail) = (control(PACKETS_OFF), self.pkt_tail);
                self.memory.store(at, tail).unwrap();
                self.card.kicked(CtxId::CONTROL);
            }
            other => panic!("{other:?}"),
        }
    }

    // ---- application ----

    pub fn app(&mut self, ctx: u16) -> App {
        *self.apps.iter().find(|a| a.ctx.0 == ctx).unwrap()
    }

    fn save(&mut self, app: App) {
        *self.apps.iter_mut().find(|a| a.ctx == app.ctx).unwrap() = app;
    }

    pub fn page(&mut self, ctx: u16) -> HostAddr {
        let app = self.app(ctx);
        HostAddr::new(app.region, self.header.context_page(app.index))
    }

    /// Publishes a descriptor; kicks if the card has parked the context.
    pub fn post(&mut self, ctx: u16, desc: HostDesc) {
        self.post_without_kick(ctx, desc);
        let parked = self.page(ctx).add(64 + 8);
        if self.memory.load(parked).unwrap() != 0 {
            self.card.kicked(CtxId(ctx));
        }
    }

    /// Whether the host-to-card queue of a context has room.
    pub fn has_room(&mut self, ctx: u16) -> bool {
        let at = self.page(ctx).add(64);
        let head = self.memory.load(at).unwrap();
        self.app(ctx).hc_tail.wrapping_sub(head) < self.header.hc_entries
    }

    /// Publishes a descriptor.
    pub fn post_without_kick(&mut self, ctx: u16, mut desc: HostDesc) {
        let mut app = self.app(ctx);
        let entries = self.header.hc_entries;
        let at = self.header.hc_queue(app.index) + u64::from(slot(app.hc_tail, entries)) * 64;
        let at = HostAddr::new(app.region, at);
        desc.phase = phase(app.hc_tail, entries);
        self.memory.poke(at, &desc.as_bytes()[..60]);
        self.memory.store(at.add(60), desc.phase).unwrap();
        app.hc_tail += 1;
        self.save(app);
    }

    pub fn update(&mut self, ctx: u16, flow: FlowId, tx_head: u32, rx_tail: u32, flags: u32) {
        let kind = toe_abi::desc::hc::UPDATE;
        self.post(ctx, HostDesc { kind, flow, tx_head, rx_tail, flags, ..Default::default() });
    }

    /// Events that have arrived; `publish`: make room for more.
    pub fn events(&mut self, ctx: u16, publish: bool) -> Vec<EventDesc> {
        let mut app = self.app(ctx);
        let entries = self.header.ev_entries;
        let mut out = Vec::new();
        loop {
            let at = self.header.ev_queue(app.index) + u64::from(slot(app.ev_head, entries)) * 64;
            let at = HostAddr::new(app.region, at);
            if self.memory.load(at.add(60)).unwrap() != phase(app.ev_head, entries) {
                break;
            }
            out.push(EventDesc::read_from_bytes(&self.memory.peek(at, 64)).unwrap());
            app.ev_head += 1;
        }
        if publish {
            self.save(app);
            let at = self.page(ctx).add(core::mem::offset_of!(ContextPage, host) as u64 + 4);
            self.memory.store(at, app.ev_head).unwrap();
        }
        out
    }

    /// Offsets of the transmit and receive buffer of flow number `n`.
    pub fn buffers(&self, n: u16) -> (u64, u64) {
        let tx = self.header.payload_off + u64::from(n) * 2 * BUF;
        (tx, tx + BUF)
    }

    /// Bytes at receive position `pos` of flow number `n`.
    pub fn received(&mut self, region: u16, n: u16, pos: u32, len: u32) -> Vec<u8> {
        let (_, rx) = self.buffers(n);
        let ring = self.memory.peek(HostAddr::new(RegionId(region), rx), BUF as usize);
        (pos..pos.wrapping_add(len)).map(|p| ring[p as usize % BUF as usize]).collect()
    }

    /// Fills the transmit buffer of flow number `n` from position `pos`.
    pub fn fill(&mut self, region: u16, n: u16, pos: u32, bytes: &[u8]) {
        let (tx, _) = self.buffers(n);
        let offset = u64::from(pos) % BUF;
        let first = bytes.len().min((BUF - offset) as usize);
        self.memory.poke(HostAddr::new(RegionId(region), tx + offset), &bytes[..first]);
        self.memory.poke(HostAddr::new(RegionId(region), tx), &bytes[first..]);
    }

    // ---- flows and the peer ----

    pub fn flow_state(&self, n: u16, region: u16, ctx: u16) -> FlowState {
        self.flow_state_from(n, region, ctx, IRS)
    }

    /// The state of a flow whose peer has begun at `irs`.
    pub fn flow_state_from(&self, n: u16, region: u16, ctx: u16, irs: u32) -> FlowState {
        let (tx_off, rx_off) = self.buffers(n);
        establish(&Setup {
            key: key(n),
            region: RegionId(region),
            ctx: CtxId(ctx),
            opaque: 100 + u32::from(n),
            next_hop: 0,
            vlan: 0,
            ttl: 64,
            tos: 0,
            tx_off,
            tx_buf_log2: BUF_LOG2,
            rx_off,
            rx_buf_log2: BUF_LOG2,
            iss: SeqNum(ISS),
            irs: SeqNum(irs),
            snd_wnd: 60_000,
            snd_wscale: 0,
            rcv_wnd: BUF as u32,
            rcv_wscale: 0,
            mss: MSS,
            timestamps: None,
            sack: false,
            ecn: false,
            algorithm: toe_abi::flow::cc::NEWRENO,
            rto_min_ms: 0,
            rtt_us: 1000,
            ack_now: false,
            now: Now(self.now.micros()),
        })
    }

    pub fn install_state(&mut self, state: &FlowState) -> ControlMsg {
        let mut msg = ControlMsg::new(kind::INSTALL, 0);
        msg.set_flow_state(state);
        self.request(msg)
    }

    /// Installs flow number `n` in region 1.
    pub fn install(&mut self, n: u16, ctx: u16) -> FlowId {
        let answer = self.install_state(&self.flow_state(n, 1, ctx));
        assert_eq!(answer.status, status::OK);
        answer.flow
    }

    pub fn arrive(&mut self, bytes: Vec<u8>) {
        self.port.arrive(FakeFrame { bytes, offload: RxOffload::default() });
    }

    /// A segment from the peer arrives: `at` bytes into its stream, acknowledging `acked` of ours.
    pub fn segment(&mut self, n: u16, at: u32, acked: u32, flags: TcpFlags, payload: &[u8]) {
        self.arrive(peer_segment(n, at, acked, flags, payload));
    }

    /// Frames that the card has sent.
    pub fn sent(&mut self) -> Vec<Sent> {
        let mut out = Vec::new();
        while let Some(frame) = self.port.take_sent() {
            out.push(Sent::new(frame));
        }
        out
    }
}

/// Flows from this number on are over IPv6.
pub const FIRST_V6: u16 = 24;
pub const CARD_IP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const PEER_IP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

pub fn key(n: u16) -> FlowKey {
    let (local_ip, remote_ip) = if n < FIRST_V6 { (v4_mapped(CARD_IP), v4_mapped(PEER_IP)) } else { (CARD_IP6, PEER_IP6) };
    FlowKey { local_ip, remote_ip, local_port: 80, remote_port: 1000 + n }
}

pub fn peer_segment(n: u16, at: u32, acked: u32, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
    let header = TxHeader {
        dst_mac: CARD_MAC,
        src_mac: PEER_MAC,
        vlan: None,
        src_ip: key(n).remote_ip,
        dst_ip: key(n).local_ip,
        tos: 0,
        ttl: 64,
        ident: 0,
        src_port: 1000 + n,
        dst_port: 80,
        seq: SeqNum(IRS.wrapping_add(1).wrapping_add(at)),
        ack: SeqNum(ISS.wrapping_add(1).wrapping_add(acked)),
        flags: flags | TcpFlags::ACK,
        window: 60_000,
        urgent: 0,
        options: TcpOptions::default(),
    };
    let mut bytes = vec![0; 128];
    let sum = Sum::new().bytes(payload);
    let built = header.write(&mut bytes, payload.len() as u32, Checksum::Full(sum)).unwrap();
    bytes.truncate(built.len.into());
    bytes.extend_from_slice(payload);
    bytes
}

fn control(offset: u64) -> HostAddr {
    HostAddr::new(RegionId::CONTROL, offset)
}

/// Byte at position `pos` of a stream.
pub fn byte(pos: u32) -> u8 {
    (pos.wrapping_mul(2_654_435_761) >> 24) as u8
}

pub fn stream(pos: u32, len: u32) -> Vec<u8> {
    (pos..pos.wrapping_add(len)).map(byte).collect()
}

/// A frame that the card has sent, taken apart.
pub struct Sent {
    pub frame: SentFrame,
    pub parsed: Frame,
}

impl Sent {
    fn new(frame: SentFrame) -> Self {
        let parsed = parse_frame(&frame.bytes).unwrap();
        if parsed.tcp().is_some() && !frame.offload.partial_csum {
            assert!(parsed.tcp_checksum_ok(&frame.bytes), "TCP checksum");
        }
        Self { frame, parsed }
    }

    pub fn flags(&self) -> TcpFlags {
        self.parsed.tcp().unwrap().1.flags
    }

    /// Whether it is of flow number `n`.
    pub fn is_of(&self, n: u16) -> bool {
        self.parsed.tcp().is_some_and(|(_, tcp)| tcp.dst_port == 1000 + n)
    }

    /// How much of the peer's stream it acknowledges.
    pub fn acked(&self) -> u32 {
        self.parsed.tcp().unwrap().1.ack.0.wrapping_sub(IRS.wrapping_add(1))
    }

    /// Where in our stream its payload begins.
    pub fn pos(&self) -> u32 {
        self.parsed.tcp().unwrap().1.seq.0.wrapping_sub(ISS.wrapping_add(1))
    }

    pub fn payload(&self) -> &[u8] {
        self.parsed.tcp().unwrap().1.payload.of(&self.frame.bytes)
    }
}
