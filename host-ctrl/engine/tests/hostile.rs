//! Whatever the wire, the daemon and the card do, in whatever order: nothing panics, everything stays within its bounds, and once all is
//! closed nothing is left.

mod common;
use common::*;
use proptest::prelude::*;
use toe_abi::{FlowId, control::close_reason, flow::FlowState};
use toe_engine::{Action, ConnId, Endpoint, Errno, InstallError, ListenerId};
use toe_wire::{ArpOp, SeqNum, TcpFlags, TcpOptions};

const HALF_OPEN: usize = 4;
const CONNECTIONS: usize = 12;
const NEIGHBOURS: u16 = 3;
const TIME_WAITS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Bytes(Vec<u8>),
    /// A segment near what the engine expects: which peer, which port, offsets from its numbers, flags, payload bytes.
    Segment { peer: u8, port: u16, seq: i8, ack: i8, flags: u8, ts: Option<u8>, len: u16, flip: Option<u16> },
    Arp { request: bool, host: u8, mac: u8, target: u8 },
    Pass(u32),
    Listen,
    Unlisten,
    Accepted(u8),
    Connect { peer: u8, port: u16 },
    Cancel(u8),
    /// The card answers the oldest INSTALL.
    Installed(bool),
    Closed { which: u8, reason: u32 },
    Orphaned(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let near = prop_oneof![Just(0i8), Just(1), Just(-1), any::<i8>()];
    let flags = prop_oneof![Just(0x02u8), Just(0x10), Just(0x12), Just(0x04), Just(0x14), Just(0x11), any::<u8>()];
    let segment = (0u8..5, 0u16..3, near.clone(), near, flags, any::<Option<u8>>(), 0u16..40, prop::option::weighted(0.05, any::<u16>()))
        .prop_map(|(peer, port, seq, ack, flags, ts, len, flip)| Step::Segment { peer, port, seq, ack, flags, ts, len, flip });
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..120).prop_map(Step::Bytes),
        20 => segment,
        4 => (any::<bool>(), 0u8..6, 0u8..6, 0u8..3).prop_map(|(request, host, mac, target)| Step::Arp { request, host, mac, target }),
        4 => (0u32..3_000_000).prop_map(Step::Pass),
        1 => (0u32..200_000_000).prop_map(Step::Pass),
        2 => Just(Step::Listen),
        1 => Just(Step::Unlisten),
        2 => (0u8..3).prop_map(Step::Accepted),
        3 => (0u8..6, 0u16..3).prop_map(|(peer, port)| Step::Connect { peer, port }),
        1 => any::<u8>().prop_map(Step::Cancel),
        4 => any::<bool>().prop_map(Step::Installed),
        3 => (any::<u8>(), 0u32..6).prop_map(|(which, reason)| Step::Closed { which, reason }),
        1 => any::<u8>().prop_map(Step::Orphaned),
    ]
}

/// A daemon and card that keep the books.
struct World {
    b: Bench,
    listener: Option<ListenerId>,
    /// Active opens not yet connected or failed.
    opening: Vec<ConnId>,
    installing: Vec<(ConnId, Box<FlowState>)>,
    flows: Vec<(FlowId, Box<FlowState>)>,
    next_flow: u32,
    /// The last number each peer has seen of ours: (acknowledgement, its own sequence number).
    seen: [(SeqNum, SeqNum); 8],
}

impl World {
    fn new() -> Self {
        let b = Bench::with(|c| {
            (c.syn_backlog_max, c.connections_max) = (HALF_OPEN, CONNECTIONS);
            (c.next_hops, c.time_wait_max) = (NEIGHBOURS, TIME_WAITS);
            (c.ecn, c.gateway) = (true, Some([10, 0, 0, 9]));
        });
        let seen = [(SeqNum(0), SeqNum(5000)); 8];
        Self { b, listener: None, opening: vec![], installing: vec![], flows: vec![], next_flow: 0, seen }
    }

    fn settle(&mut self) {
        for action in self.b.actions() {
            match action {
                Action::Install { conn, state, .. } => self.installing.push((conn, state)),
                Action::ConnectFailed { conn, .. } | Action::Connected { conn, .. } => {
                    let known = self.opening.iter().position(|c| *c == conn).expect("an outcome for an open, and one only");
                    self.opening.remove(known);
                }
                Action::Transmit { frame } => {
                    assert!(frame.len() <= 1514, "fits the MTU");
                    if let Some(s) = segment(&frame) {
                        let peer = usize::from(s.ip.dst[15]) % 8;
                        self.seen[peer] = (s.tcp.seq.add(1), s.tcp.ack.sub_len(1));
                    }
                }
                Action::NextHop { index, .. } => assert!(index < NEIGHBOURS),
                Action::AbortFlow { flow } => self.end(flow, close_reason::ABORTED),
                Action::QueryFlow { flow } => {
                    if let Some((_, s)) = self.flows.iter().find(|(f, _)| *f == flow) {
                        self.b.engine.flow_state(flow, s, self.b.now);
                    }
                }
                Action::Inject { .. } | Action::Accept { .. } | Action::IcmpError { .. } => {}
            }
        }
    }

    fn end(&mut self, flow: FlowId, reason: u32) {
        if let Some(at) = self.flows.iter().position(|(f, _)| *f == flow) {
            let (flow, state) = self.flows.remove(at);
            self.b.engine.flow_closed(flow, reason, &state, self.b.now);
        }
    }

    fn pass(&mut self, us: u64) {
        let end = self.b.now + us;
        while let Some(at) = self.b.engine.next_deadline().filter(|at| *at <= end) {
            self.b.now = self.b.now.max(at);
            self.b.engine.timer(self.b.now);
            assert!(self.b.engine.next_deadline().is_none_or(|next| next > self.b.now), "a timer that never rests");
            self.settle();
        }
        self.b.now = end;
    }

    fn install(&mut self, ok: bool) {
        if self.installing.is_empty() {
            return;
        }
        let (conn, state) = self.installing.remove(0);
        if ok {
            self.next_flow += 1;
            let flow = FlowId { index: self.next_flow, generation: 0 };
            self.flows.push((flow, state));
            self.b.engine.installed(conn, Ok(flow), self.b.now);
        } else {
            self.b.engine.installed(conn, Err(InstallError::CardFull), self.b.now);
        }
    }

    fn segment(&mut self, step: &Step) {
        let Step::Segment { peer, port, seq, ack, flags, ts, len, flip } = step else { return };
        let (their_ack, their_seq) = self.seen[usize::from(*peer)];
        let p = Peer { ip: [10, 0, 0, *peer], ..Peer::modern(4000, 80 + port) };
        let at = |n: SeqNum, by: i8| n.add(by as u32);
        let timestamps = ts.map(|val| toe_wire::Timestamps { val: 700 + u32::from(val), ecr: 0 });
        let syn = flags & 2 != 0;
        let options = if syn { TcpOptions { timestamps, ..p.syn_options } } else { TcpOptions { timestamps, ..Default::default() } };
        let base = if syn { their_seq } else { their_seq.add(1) };
        let payload = vec![0xaa; usize::from(*len)];
        let mut frame = p.build(at(base, *seq), at(their_ack, *ack), TcpFlags::from_bits_retain(*flags), options, &payload);
        if let Some(bit) = flip {
            let byte = usize::from(*bit / 8) % frame.len();
            frame[byte] ^= 1 << (bit % 8);
        }
        self.b.engine.frame(&frame, ON_WIRE, self.b.now);
    }

    fn listen(&mut self) {
        if self.listener.is_none() {
            let (bind, _) = self.b.engine.bind(1, Endpoint { ip: [0; 16], port: 80 }, 1).expect("SO_REUSEADDR");
            match self.b.engine.listen(bind, 3, BUF) {
                Ok(l) => self.listener = Some(l),
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn unlisten(&mut self) {
        if let Some(l) = self.listener.take() {
            self.b.engine.unlisten(l, self.b.now);
        }
    }

    fn connect(&mut self, peer: u8, port: u16) {
        match self.b.engine.connect(1, None, Endpoint::v4([10, 0, peer % 2, peer], 80 + port), BUF, self.b.now) {
            Ok((conn, _)) => self.opening.push(conn),
            Err(e) => assert!([Errno::ENOBUFS, Errno::ENETUNREACH, Errno::EADDRNOTAVAIL].contains(&e), "{e}"),
        }
    }

    fn step(&mut self, step: &Step) {
        let now = self.b.now;
        let pick = |which: u8, n: usize| usize::from(which).checked_rem(n);
        match step {
            Step::Bytes(bytes) => self.b.engine.frame(bytes, ON_WIRE, now),
            Step::Segment { .. } => self.segment(step),
            Step::Arp { request, host, mac, target } => {
                let op = if *request { ArpOp::Request } else { ArpOp::Reply };
                let frame = arp(op, [2, 0, 0, 0, 0, *mac], [10, 0, 0, *host], [10, 0, 0, *target]);
                self.b.engine.frame(&frame, ON_WIRE, now);
            }
            Step::Pass(us) => self.pass(u64::from(*us)),
            Step::Listen => self.listen(),
            Step::Unlisten => self.unlisten(),
            Step::Accepted(n) => self.listener.iter().for_each(|l| self.b.engine.accepted(*l, u32::from(*n))),
            Step::Connect { peer, port } => self.connect(*peer, *port),
            Step::Cancel(which) => {
                if let Some(at) = pick(*which, self.opening.len()) {
                    let conn = self.opening.remove(at);
                    self.b.engine.cancel(conn, now);
                }
            }
            Step::Installed(ok) => self.install(*ok),
            Step::Closed { which, reason } => {
                if let Some(at) = pick(*which, self.flows.len()) {
                    self.end(self.flows[at].0, *reason);
                }
            }
            Step::Orphaned(which) => {
                if let Some(at) = pick(*which, self.flows.len()) {
                    self.b.engine.orphaned(self.flows[at].0, now);
                }
            }
        }
        self.settle();
        self.check();
    }

    fn check(&self) {
        let e = &self.b.engine;
        assert!(e.connection_count() <= CONNECTIONS);
        assert!(e.time_wait_count() <= TIME_WAITS);
        assert!(e.neighbours().count() <= usize::from(NEIGHBOURS));
        for l in e.listeners() {
            assert!(l.half_open <= HALF_OPEN && l.waiting <= l.backlog, "{l:?}");
        }
        let refs: u32 = e.neighbours().map(|n| n.refs).sum();
        assert!(refs as usize <= e.connection_count(), "{refs} references");
        assert!(self.flows.len() + self.installing.len() <= e.connection_count());
    }

    fn close_all(&mut self) {
        self.unlisten();
        while let Some(conn) = self.opening.pop() {
            self.b.engine.cancel(conn, self.b.now);
        }
        self.settle();
        while !self.installing.is_empty() {
            self.install(true);
            self.settle();
        }
        while let Some((flow, _)) = self.flows.first() {
            self.end(*flow, close_reason::TIME_WAIT);
        }
        self.pass(1000 * SEC);
        let e = &self.b.engine;
        assert_eq!((e.connection_count(), e.time_wait_count(), e.neighbours().count()), (0, 0, 0));
        assert_eq!(e.next_deadline(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn bounded_and_without_leaks(steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::new();
        world.listen();
        for step in &steps {
            world.step(step);
        }
        world.close_all();
    }

    #[test]
    fn any_bytes_behind_any_ethertype(kind in prop_oneof![Just(0x0800u16), Just(0x0806), Just(0x8100), any::<u16>()], body: Vec<u8>) {
        let mut b = Bench::new();
        b.listen(80, 5);
        let frame = [&OUR_MAC[..], &PEER_MAC[..], &kind.to_be_bytes()[..], &body[..]].concat();
        prop_assert!(b.frame(&frame).len() <= 3);
    }
}
