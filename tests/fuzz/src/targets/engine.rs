//! The control plane between a hostile wire, a daemon and a card, with the bench of the engine's own tests. Whatever happens, it stays within its
//! bounds, its timers rest, and when all is closed nothing is left.

#[allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench of tests")]
#[path = "../../../../host-ctrl/engine/tests/common/mod.rs"]
mod bench;

use arbitrary::{Arbitrary, Unstructured};
use bench::{BUF, Bench, ON_WIRE, Peer, SEC, arp, segment};
use toe_abi::{
    FlowId,
    control::close_reason,
    flow::{FlowState, v4_mapped},
};
use toe_engine::{Action, BindId, ConnId, Endpoint, InstallError, ListenerId};
use toe_wire::{ArpOp, TcpFlags, TcpOptions, Timestamps};

const HALF_OPEN: usize = 4;
const CONNECTIONS: usize = 12;
const NEIGHBOURS: u16 = 3;
const TIME_WAITS: usize = 3;
const STEPS_MAX: usize = 300;
const PEERS: usize = 4;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Frame(&'a [u8]),
    /// SYN of a peer, its sequence number and clock moved by as much.
    Syn {
        peer: u8,
        from: u8,
        to: bool,
        later: u8,
        mss: Option<u16>,
        scale: Option<u8>,
    },
    /// A segment near what answers the last SYN or SYN-ACK that the peer got.
    Answer {
        peer: u8,
        seq: i8,
        ack: i8,
        flags: u8,
        clock: Option<i8>,
        payload: &'a [u8],
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
        port: bool,
    },
    Cancel(u8),
    /// The card answers the oldest INSTALL.
    Installed(bool),
    Closed {
        which: u8,
        reason: u8,
    },
    Orphaned(u8),
}

struct World {
    b: Bench,
    listener: Option<(BindId, ListenerId)>,
    opening: Vec<ConnId>,
    installing: Vec<(ConnId, Box<FlowState>)>,
    flows: Vec<(FlowId, Box<FlowState>)>,
    next_flow: u32,
    peers: [Peer; PEERS],
}

pub fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let mut world = World::new();
    world.step(Step::Listen);
    for _ in 0..STEPS_MAX {
        if u.is_empty() {
            break;
        }
        let Ok(step) = u.arbitrary() else { break };
        world.step(step);
        world.check();
    }
    world.end_all();
}

fn pick<T>(which: u8, of: &mut Vec<T>) -> Option<T> {
    let at = usize::from(which).checked_rem(of.len())?;
    Some(of.remove(at))
}

impl World {
    fn new() -> Self {
        let b = Bench::with(|c| {
            (c.syn_backlog_max, c.connections_max) = (HALF_OPEN, CONNECTIONS);
            (c.next_hops, c.time_wait_max) = (NEIGHBOURS, TIME_WAITS);
            (c.ecn, c.gateways) = (true, vec![v4_mapped([10, 0, 0, 9])]);
        });
        let peer = |n: usize| Peer { ip: v4_mapped([10, 0, 0, 2 + n as u8]), mac: [2, 0, 0, 0, 0, 2 + n as u8], ..Peer::modern(4000, 80) };
        Self { b, listener: None, opening: vec![], installing: vec![], flows: vec![], next_flow: 0, peers: std::array::from_fn(peer) }
    }

    fn peer(&mut self, n: u8) -> &mut Peer {
        &mut self.peers[usize::from(n) % PEERS]
    }

    fn step(&mut self, step: Step<'_>) {
        let now = self.b.now;
        match step {
            Step::Frame(bytes) => self.b.engine.frame(bytes, ON_WIRE, now),
            Step::Syn { peer, from, to, later, mss, scale } => {
                let p = self.peer(peer);
                (p.seq, p.ts) = (p.seq.add(later.into()), p.ts.map(|ts| ts.wrapping_add(later.into())));
                let syn_options = TcpOptions { mss, window_scale: scale, ..p.syn_options };
                let syn = Peer { port: 4000 + u16::from(from % 4), to: 80 + u16::from(to), syn_options, ..p.clone() }.syn();
                self.b.engine.frame(&syn, ON_WIRE, now);
            }
            Step::Answer { peer, seq, ack, flags, clock, payload } => {
                let p = self.peer(peer).clone();
                let syn = flags & TcpFlags::SYN.bits() != 0;
                let timestamps = clock.map(|by| Timestamps { val: p.ts.unwrap_or(0).wrapping_add(by as u32), ecr: p.ts_recent });
                let options = TcpOptions { timestamps, ..if syn { p.syn_options } else { TcpOptions::default() } };
                let seq = p.seq.add(u32::from(!syn)).add(seq as u32);
                let payload = &payload[..payload.len().min(100)];
                let frame = p.build(seq, p.ack.add(ack as u32), TcpFlags::from_bits_retain(flags), options, payload);
                self.b.engine.frame(&frame, ON_WIRE, now);
            }
            Step::Arp { request, host, mac, target } => {
                let op = if request { ArpOp::Request } else { ArpOp::Reply };
                let frame = arp(op, [2, 0, 0, 0, 0, mac], [10, 0, 0, host], [10, 0, 0, target]);
                self.b.engine.frame(&frame, ON_WIRE, now);
            }
            Step::Pass(us) => self.pass(u64::from(us)),
            Step::Listen => self.listen(),
            Step::Unlisten => self.unlisten(),
            Step::Accepted(n) => self.listener.iter().for_each(|(_, l)| self.b.engine.accepted(*l, n.into())),
            Step::Connect { peer, port } => {
                let remote = Endpoint::v4([10, 0, 0, 2 + peer % 8], 80 + u16::from(port));
                self.opening.extend(self.b.engine.connect(1, None, remote, BUF, now).ok().map(|(conn, _)| conn));
            }
            Step::Cancel(which) => {
                if let Some(conn) = pick(which, &mut self.opening) {
                    self.b.engine.cancel(conn, now);
                }
            }
            Step::Installed(ok) => self.install(ok),
            Step::Closed { which, reason } => {
                if let Some(at) = usize::from(which).checked_rem(self.flows.len()) {
                    self.end(self.flows[at].0, reason.into());
                }
            }
            Step::Orphaned(which) => {
                if let Some(at) = usize::from(which).checked_rem(self.flows.len()) {
                    self.b.engine.orphaned(self.flows[at].0, toe_engine::FinWait2::AsEverybody, now);
                }
            }
        }
        self.settle();
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

    fn listen(&mut self) {
        if self.listener.is_none() {
            let (bind, _) = self.b.engine.bind(1, Endpoint { ip: [0; 16], port: 80 }, 1).expect("SO_REUSEADDR");
            self.listener = Some((bind, self.b.engine.listen(bind, 3, BUF).expect("nobody listens")));
        }
    }

    fn unlisten(&mut self) {
        if let Some((bind, _)) = self.listener.take() {
            self.b.engine.unbind(bind, self.b.now);
        }
    }

    fn install(&mut self, ok: bool) {
        if self.installing.is_empty() {
            return;
        }
        let (conn, state) = self.installing.remove(0);
        let result = if ok {
            self.next_flow += 1;
            let flow = FlowId { index: self.next_flow, generation: 0 };
            self.flows.push((flow, state));
            Ok(flow)
        } else {
            Err(InstallError::CardFull)
        };
        self.b.engine.installed(conn, result, self.b.now);
    }

    fn end(&mut self, flow: FlowId, reason: u32) {
        if let Some(at) = self.flows.iter().position(|(f, _)| *f == flow) {
            let (flow, state) = self.flows.remove(at);
            self.b.engine.flow_closed(flow, reason, &state, self.b.now);
        }
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
                    assert!(frame.len() <= 1514, "longer than the MTU");
                    if let Some(s) = segment(&frame).filter(|s| s.tcp.flags.contains(TcpFlags::SYN)) {
                        self.peer(s.ip.dst[15].wrapping_sub(2)).take(&s);
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

    fn check(&self) {
        let e = &self.b.engine;
        assert!(e.connection_count() <= CONNECTIONS && e.time_wait_count() <= TIME_WAITS);
        assert!(e.neighbours().count() <= usize::from(NEIGHBOURS));
        for l in e.listeners() {
            assert!(l.half_open <= HALF_OPEN && l.waiting <= l.backlog + 1, "{l:?}");
        }
        assert!(self.flows.len() + self.installing.len() <= e.connection_count());
    }

    fn end_all(&mut self) {
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
        assert_eq!((e.connection_count(), e.time_wait_count(), e.neighbours().count()), (0, 0, 0), "something is left");
        assert_eq!((e.ports_in_use(), e.next_deadline()), (0, None), "something is left");
    }
}
