//! Whatever the wire, the daemon and the card do, in whatever order: nothing panics, everything stays within its bounds, and once all is
//! closed nothing is left.

mod common;
use common::*;
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use toe_abi::{
    FlowId,
    control::close_reason,
    flow::{FlowState, v4_mapped},
};
use toe_engine::{Action, BindId, ConnId, Counters, Endpoint, Errno, FinWait2, InstallError, ListenerId, SynCookies};
use toe_wire::{ArpOp, SeqNum, TcpFlags, TcpOptions, Timestamps};

const HALF_OPEN: usize = 4;
const CONNECTIONS: usize = 12;
const NEIGHBOURS: u16 = 3;
const TIME_WAITS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Bytes(Vec<u8>),
    Syn {
        peer: u8,
        from: u16,
        to: u16,
        later: u8,
    },
    /// A segment in answer to the last SYN or SYN-ACK that the peer got: offsets from the right numbers, flags, payload bytes, a bit to flip.
    Answer {
        peer: u8,
        seq: i8,
        ack: i8,
        flags: u8,
        ts: Option<i8>,
        len: u16,
        flip: Option<u16>,
    },
    Arp {
        request: bool,
        host: u8,
        mac: u8,
        target: u8,
    },
    Pass(u32),
    Listen,
    Unlisten,
    Accepted(u8),
    Connect {
        peer: u8,
        port: u16,
    },
    Cancel(u8),
    /// The card answers the oldest INSTALL.
    Installed(bool),
    Closed {
        which: u8,
        reason: u32,
    },
    Orphaned(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let near = prop_oneof![12 => Just(0i8), 1 => Just(1), 1 => Just(-1), 1 => any::<i8>()];
    let flags = prop_oneof![6 => Just(0x10u8), 4 => Just(0x12), 1 => Just(0x02), 1 => Just(0x04), 1 => Just(0x14), 1 => Just(0x11), 1 => any::<u8>()];
    let ts = prop_oneof![8 => Just(Some(1)), 1 => Just(None), 1 => any::<i8>().prop_map(Some)];
    let answer = (2u8..5, near.clone(), near, flags, ts, 0u16..40, prop::option::weighted(0.05, any::<u16>()))
        .prop_map(|(peer, seq, ack, flags, ts, len, flip)| Step::Answer { peer, seq, ack, flags, ts, len, flip });
    let port = || prop_oneof![8 => Just(80u16), 1 => 80u16..83];
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..120).prop_map(Step::Bytes),
        10 => (0u8..5, 4000u16..4003, port(), 0u8..3).prop_map(|(peer, from, to, later)| Step::Syn { peer, from, to, later }),
        20 => answer,
        4 => (any::<bool>(), 0u8..6, 0u8..6, 0u8..3).prop_map(|(request, host, mac, target)| Step::Arp { request, host, mac, target }),
        4 => (0u32..300_000).prop_map(Step::Pass),
        1 => (0u32..200_000_000).prop_map(Step::Pass),
        2 => Just(Step::Listen),
        1 => Just(Step::Unlisten),
        4 => (0u8..3).prop_map(Step::Accepted),
        4 => (0u8..5, port()).prop_map(|(peer, port)| Step::Connect { peer, port }),
        1 => any::<u8>().prop_map(Step::Cancel),
        8 => prop::bool::weighted(0.8).prop_map(Step::Installed),
        3 => (any::<u8>(), prop_oneof![Just(1u32), 0u32..6]).prop_map(|(which, reason)| Step::Closed { which, reason }),
        1 => any::<u8>().prop_map(Step::Orphaned),
    ]
}

/// A daemon and card that keep the books.
struct World {
    b: Bench,
    listener: Option<(BindId, ListenerId)>,
    /// Active opens not yet connected or failed.
    opening: Vec<ConnId>,
    installing: Vec<(ConnId, Box<FlowState>)>,
    flows: Vec<(FlowId, Box<FlowState>)>,
    next_flow: u32,
    /// What answers the last SYN or SYN-ACK that each peer got.
    seen: [Peer; 8],
}

impl World {
    fn new(syn_cookies: SynCookies) -> Self {
        let b = Bench::with(|c| {
            c.syn_cookies = syn_cookies;
            (c.syn_backlog_max, c.connections_max) = (HALF_OPEN, CONNECTIONS);
            (c.next_hops, c.time_wait_max) = (NEIGHBOURS, TIME_WAITS);
            (c.ecn, c.gateways) = (true, vec![v4_mapped([10, 0, 0, 9])]);
        });
        let seen =
            core::array::from_fn(|n| Peer { ip: v4_mapped([10, 0, 0, n as u8]), mac: [2, 0, 0, 0, 0, n as u8], ..Peer::modern(4000, 80) });
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
                    if let Some(s) = segment(&frame).filter(|s| s.tcp.flags.contains(TcpFlags::SYN)) {
                        self.seen[usize::from(s.ip.dst[15]) % 8].take(&s);
                    }
                }
                Action::NextHop { index, .. } => assert!(index < NEIGHBOURS),
                Action::AbortFlow { flow } => self.end(flow, close_reason::ABORTED),
                Action::QueryFlow { flow } => {
                    if let Some((_, s)) = self.flows.iter().find(|(f, _)| *f == flow) {
                        self.b.engine.flow_state(flow, s, self.b.now);
                    }
                }
                Action::Address { .. } | Action::Inject { .. } | Action::Accept { .. } | Action::IcmpError { .. } => {}
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

    fn answer(&mut self, step: &Step) {
        let Step::Answer { peer, seq, ack, flags, ts, len, flip } = step else { return };
        let p = &self.seen[usize::from(*peer)];
        let syn = flags & 2 != 0;
        let timestamps = ts.map(|by| Timestamps { val: p.ts.unwrap_or(0).wrapping_add(by as u32), ecr: p.ts_recent });
        let options = if syn { TcpOptions { timestamps, ..p.syn_options } } else { TcpOptions { timestamps, ..Default::default() } };
        let base = p.seq.add(u32::from(!syn));
        let at = |n: SeqNum, by: i8| n.add(by as u32);
        let payload = vec![0xaa; usize::from(*len)];
        let mut frame = p.build(at(base, *seq), at(p.ack, *ack), TcpFlags::from_bits_retain(*flags), options, &payload);
        if let Some(bit) = flip {
            let byte = usize::from(*bit / 8) % frame.len();
            frame[byte] ^= 1 << (bit % 8);
        }
        self.b.engine.frame(&frame, ON_WIRE, self.b.now);
    }

    fn listen(&mut self) {
        if self.listener.is_none() {
            let (bind, _) = self.b.engine.bind(1, Endpoint { ip: [0; 16], port: 80 }, 1).expect("SO_REUSEADDR");
            match self.b.engine.listen(bind, 2, BUF) {
                Ok(l) => self.listener = Some((bind, l)),
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn unlisten(&mut self) {
        if let Some((bind, _)) = self.listener.take() {
            self.b.engine.unbind(bind, self.b.now);
        }
    }

    fn connect(&mut self, peer: u8, port: u16) {
        match self.b.engine.connect(1, None, Endpoint::v4([10, 0, peer % 4 / 3, peer], port), BUF, self.b.now) {
            Ok((conn, _)) => self.opening.push(conn),
            Err(e) => assert!([Errno::ENOBUFS, Errno::ENETUNREACH, Errno::EADDRNOTAVAIL].contains(&e), "{e}"),
        }
    }

    fn step(&mut self, step: &Step) {
        let now = self.b.now;
        let pick = |which: u8, n: usize| usize::from(which).checked_rem(n);
        match step {
            Step::Bytes(bytes) => self.b.engine.frame(bytes, ON_WIRE, now),
            Step::Syn { peer, from, to, later } => {
                let p = &mut self.seen[usize::from(*peer)];
                (p.seq, p.ts) = (p.seq.add(u32::from(*later)), p.ts.map(|ts| ts + u32::from(*later)));
                let syn = Peer { port: *from, to: *to, ..p.clone() }.syn();
                self.b.engine.frame(&syn, ON_WIRE, now);
            }
            Step::Answer { .. } => self.answer(step),
            Step::Arp { request, host, mac, target } => {
                let op = if *request { ArpOp::Request } else { ArpOp::Reply };
                let frame = arp(op, [2, 0, 0, 0, 0, *mac], [10, 0, 0, *host], [10, 0, 0, *target]);
                self.b.engine.frame(&frame, ON_WIRE, now);
            }
            Step::Pass(us) => self.pass(u64::from(*us)),
            Step::Listen => self.listen(),
            Step::Unlisten => self.unlisten(),
            Step::Accepted(n) => self.listener.iter().for_each(|(_, l)| self.b.engine.accepted(*l, u32::from(*n))),
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
                    self.b.engine.orphaned(self.flows[at].0, FinWait2::Limit(u64::from(*which & 1) * 1_000_000), now);
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
            assert!(l.half_open <= HALF_OPEN && l.waiting <= l.backlog + 1, "{l:?}");
        }
        let refs: u32 = e.neighbours().map(|n| n.refs).sum();
        assert!(refs as usize <= e.connection_count(), "{refs} references");
        assert!(self.flows.len() + self.installing.len() <= e.connection_count());
    }

    fn close_all(&mut self) -> Counters {
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
        assert_eq!((e.ports_in_use(), e.next_deadline()), (0, None));
        *e.counters()
    }
}

#[test]
fn bounded_and_without_leaks() {
    // Fixed seed: that the events get this far is asserted below.
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut reached = std::collections::BTreeMap::new();
    let steps = prop::collection::vec(step(), 1..250);
    let reached_cell = std::cell::RefCell::new(&mut reached);
    let outcome = runner.run(&steps, |steps| {
        // Both ways to meet a flood.
        let mut world = World::new(if steps.len() % 2 == 0 { SynCookies::Off } else { SynCookies::OnOverflow });
        world.listen();
        for step in &steps {
            world.step(step);
        }
        for (name, n, _) in world.close_all().all() {
            *reached_cell.borrow_mut().entry(name).or_insert(0) += n;
        }
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
    for name in [
        "passive_opens",
        "active_opens",
        "install_failed",
        "time_waits",
        "time_wait_evicted",
        "time_wait_reused",
        "syn_recycled",
        "syn_cookies_sent",
        "syn_cookies_valid",
        "syn_cookies_invalid",
        "syn_drop_accept_full",
        "ack_drop_accept_full",
        "handshake_timeouts",
        "drop_held_repeat",
        "injected_late",
        "drop_stale",
        "drop_paws",
        "fin_wait2_timeouts",
        "arp_table_full",
    ] {
        assert!(reached[name] > 0, "{name} was reached {} times only: {reached:#?}", reached[name]);
    }
}

proptest! {
    #[test]
    fn any_bytes_behind_any_ethertype(kind in prop_oneof![Just(0x0800u16), Just(0x0806), Just(0x8100), Just(0x86dd), any::<u16>()], body: Vec<u8>) {
        let mut b = Bench::dual(|c| c.slaac = true);
        b.listen(80, 5);
        let frame = [&OUR_MAC[..], &PEER_MAC[..], &kind.to_be_bytes()[..], &body[..]].concat();
        prop_assert!(b.frame(&frame).len() <= 3);
    }
}
