//! An engine between a wire, a daemon and a card that say anything: choices decide, from a seed or from a fuzzer.
//!
//! ```text
//!   peers 0..5 of IPv4, 5..8 of IPv6 ──┐                       ┌── listener, connections (daemon)
//!   routers, neighbours, errors ───────┴──► frames ► engine ◄──┴── INSTALL's answers, ends of flows (card)
//! ```

use super::choices::Choices;
use super::common::*;
use toe_abi::{
    FlowId,
    control::close_reason,
    flow::{FlowState, as_v4, tcp_state, v4_mapped},
};
use toe_engine::{Action, BindId, ConnId, Counters, Endpoint, Errno, FinWait2, FrameMeta, InstallError, ListenerId, Prefix, SynCookies};
use toe_wire::{
    Arp, ArpOp, Payload, SeqNum, TcpFlags, TcpOptions, Timestamps,
    checksum::checksum,
    ipv6::ALL_NODES,
    nd::{Advertisement, Solicitation},
    parse_frame,
};

const HALF_OPEN: usize = 4;
const CONNECTIONS: usize = 12;
const NEIGHBOURS: u16 = 3;
const TIME_WAITS: usize = 3;
const BACKLOG: u32 = 3;
const STEPS_MAX: u32 = 250;
/// Longer than anything that a router can promise: lifetimes are seconds in 32 bits.
const FOR_EVER: u64 = (1 << 33) * SEC;
/// Each at the MAC address with its last byte.
const ROUTERS6: [[u8; 16]; 2] =
    [[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8]];
const FAR6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A daemon and card that keep the books.
struct World {
    b: Bench,
    vlan: u16,
    listener: Option<(BindId, ListenerId)>,
    /// Active opens not yet connected or failed.
    opening: Vec<ConnId>,
    installing: Vec<(ConnId, Box<FlowState>)>,
    flows: Vec<(FlowId, Box<FlowState>)>,
    next_flow: u32,
    /// The card's table.
    hops: [Option<[u8; 6]>; NEIGHBOURS as usize],
    /// What answers the last SYN or SYN-ACK that each peer got.
    seen: [Peer; 8],
    /// The neighbour of IPv4 that was asked for last, and has not answered yet.
    asked: Option<u64>,
}

/// One engine, up to 250 events, and the end of all that is left. What it counted.
pub fn run(r: &mut impl Choices) -> Counters {
    let mut world = World::new(r);
    world.listen(BACKLOG);
    for _ in 0..STEPS_MAX {
        if r.is_over() {
            break;
        }
        world.step(r);
        world.settle();
        world.check();
    }
    world.close_all();
    *world.b.engine.counters()
}

/// Mostly none, or by one, else by anything.
fn off(r: &mut impl Choices) -> u32 {
    match r.range(0, 15) {
        0..12 => 0,
        12 => 1,
        13 => u32::MAX,
        _ => r.range(0, 256) as u8 as i8 as u32,
    }
}

fn mac(n: u64) -> [u8; 6] {
    [2, 0, 0, 0, 0, n as u8]
}

fn v6(n: u64) -> [u8; 16] {
    let mut ip = OUR_IP6;
    ip[15] = n as u8;
    ip
}

impl World {
    fn new(r: &mut impl Choices) -> Self {
        let vlan = r.pick([0, 0, 7]);
        let (slaac, answers, probes) = (r.chance(50), r.chance(50), r.pick([0, 0, 1]));
        // All ways to meet a flood.
        let cookies = r.pick([SynCookies::Off, SynCookies::OnOverflow, SynCookies::Always]);
        let b = Bench::dual(|c| {
            (c.syn_backlog_max, c.connections_max) = (HALF_OPEN, CONNECTIONS);
            (c.next_hops, c.time_wait_max) = (NEIGHBOURS, TIME_WAITS);
            c.syn_cookies = cookies;
            (c.ecn, c.gateways) = (true, vec![v4_mapped([10, 0, 0, 9]), v4_mapped([10, 0, 0, 8])]);
            (c.vlan, c.slaac, c.answer_arp, c.dad_transmits) = (vlan, slaac, answers, probes);
        });
        let seen = core::array::from_fn(|n| {
            let ip = match n {
                0..4 => v4_mapped([10, 0, 0, n as u8]),
                4 => v4_mapped([1, 1, 1, 1]),
                5..7 => v6(n as u64 - 3),
                _ => FAR6,
            };
            Peer { ip, mac: mac(n as u64), ..Peer::modern(4000, 80) }
        });
        Self {
            b,
            vlan,
            listener: None,
            opening: vec![],
            installing: vec![],
            flows: vec![],
            next_flow: 0,
            hops: [None; NEIGHBOURS as usize],
            seen,
            asked: None,
        }
    }

    fn step(&mut self, r: &mut impl Choices) {
        match r.range(0, 100) {
            0..14 => self.syn(r),
            14..40 => self.answer(r),
            40..45 => self.arp(r),
            45..53 => self.nd(r),
            53..58 => self.error(r),
            58..60 => self.message(r),
            60 => self.packet(r),
            61 => {
                let frame = r.bytes(120);
                self.b.engine.frame(&frame, ON_WIRE, self.b.now);
            }
            62..66 => self.pass(r.range(0, 300_000)),
            66 => self.pass(r.range(0, 200_000_000)),
            67..69 => {
                let backlog = r.pick([0, 1, BACKLOG]);
                self.listen(backlog);
            }
            69 => self.unlisten(),
            70..75 => {
                let n = r.range(0, 3) as u32;
                self.listener.iter().for_each(|(_, l)| self.b.engine.accepted(*l, n));
            }
            75..80 => self.connect(r),
            80 => {
                if let Some(at) = pick(r, self.opening.len()) {
                    let conn = self.opening.remove(at);
                    self.b.engine.cancel(conn, self.b.now);
                }
            }
            81..92 => self.install(r.chance(80)),
            92..96 => {
                if let Some(at) = pick(r, self.flows.len()) {
                    let reason = if r.chance(50) { close_reason::TIME_WAIT } else { r.range(0, 6) as u32 };
                    self.end(self.flows[at].0, reason);
                }
            }
            96 => self.listener.iter().for_each(|(_, l)| self.b.engine.set_backlog(*l, BACKLOG)),
            97 => self.b.engine.link(r.chance(70), self.b.now),
            _ => {
                if let Some(at) = pick(r, self.flows.len()) {
                    let patience = if r.chance(50) { FinWait2::AsEverybody } else { FinWait2::Limit(r.range(0, 2) * SEC) };
                    // Its peer has acknowledged all, mostly.
                    self.flows[at].1.rx.state = if r.chance(80) { tcp_state::FIN_WAIT_2 } else { tcp_state::FIN_WAIT_1 };
                    self.b.engine.orphaned(self.flows[at].0, patience, self.b.now);
                }
            }
        }
    }

    // ---- the wire ----

    /// A frame arrives, mostly as it is, on our VLAN.
    fn arrive(&mut self, r: &mut impl Choices, frame: Vec<u8>) {
        let vlan = if r.chance(97) { self.vlan } else { r.pick([0, 7, 8]) };
        let mut frame = tagged(frame, vlan);
        match r.range(0, 100) {
            0..2 => {
                let at = r.range(0, frame.len() as u64) as usize;
                frame[at] ^= 1 << r.range(0, 8);
            }
            2 => frame.truncate(r.range(0, frame.len() as u64 + 1) as usize),
            _ => {}
        }
        let meta = FrameMeta { csum_ok: r.chance(10), gso_size: if r.chance(5) { 100 } else { 0 }, ..ON_WIRE };
        self.b.engine.frame(&frame, meta, self.b.now);
    }

    fn syn(&mut self, r: &mut impl Choices) {
        let p = &mut self.seen[r.range(0, 8) as usize];
        let later = r.range(0, 3) as u32;
        (p.seq, p.ts) = (p.seq.add(later), p.ts.map(|ts| ts.wrapping_add(later)));
        let mut syn = Peer { port: 4000 + r.range(0, 3) as u16, to: 80 + r.pick([0, 0, 0, 1]), ..p.clone() };
        if r.chance(30) {
            syn.syn_options = TcpOptions {
                mss: r.chance(80).then(|| r.range(0, 65_536) as u16),
                window_scale: r.chance(80).then(|| r.range(0, 17) as u8),
                sack_permitted: r.chance(50),
                ..TcpOptions::default()
            };
            syn.ts = if r.chance(50) { syn.ts } else { None };
            syn.syn_flags = r.pick([TcpFlags::SYN, TcpFlags::SYN | TcpFlags::ECE | TcpFlags::CWR, TcpFlags::SYN | TcpFlags::FIN]);
        }
        let frame = syn.syn();
        self.arrive(r, frame);
    }

    /// A segment in answer to the last SYN or SYN-ACK that the peer got, or near it.
    fn answer(&mut self, r: &mut impl Choices) {
        let p = self.seen[r.pick([2, 3, 4, 5, 6, 7, 0, 1])].clone();
        let flags = match r.range(0, 16) {
            0..7 => TcpFlags::ACK,
            7..11 => TcpFlags::SYN | TcpFlags::ACK,
            11 => TcpFlags::RST,
            12 => TcpFlags::RST | TcpFlags::ACK,
            13 => TcpFlags::FIN | TcpFlags::ACK,
            14 => TcpFlags::SYN | TcpFlags::ACK | TcpFlags::ECE,
            _ => TcpFlags::from_bits_retain(r.range(0, 256) as u8),
        };
        let is_syn = flags.contains(TcpFlags::SYN);
        let moved = if r.chance(80) { 1 } else { off(r) };
        let timestamps = r.chance(90).then(|| Timestamps { val: p.ts.unwrap_or(0).wrapping_add(moved), ecr: p.ts_recent });
        let options = TcpOptions { timestamps, ..if is_syn { p.syn_options } else { TcpOptions::default() } };
        let (seq, ack) = (p.seq.add(u32::from(!is_syn)).add(off(r)), p.ack.add(off(r)));
        let payload = vec![0xaa; r.pick([0, 0, 1, 40])];
        let frame = p.build(seq, ack, flags, options, &payload);
        self.arrive(r, frame);
    }

    fn arp(&mut self, r: &mut impl Choices) {
        let op = if r.chance(50) { ArpOp::Request } else { ArpOp::Reply };
        let any = r.range(0, 10);
        let host = self.asked.take().unwrap_or(any);
        let at = if r.chance(80) { mac(host) } else { mac(r.range(0, 10)) };
        let frame = arp(op, at, [10, 0, 0, host as u8], [10, 0, 0, r.pick([1, 1, 1, 0, 2])]);
        self.arrive(r, frame);
    }

    /// Neighbours and routers of IPv6.
    fn nd(&mut self, r: &mut impl Choices) {
        let from = r.range(0, 10);
        let target = v6(r.range(0, 6));
        let frame = match r.range(0, 6) {
            0 => solicitation(mac(from), &Solicitation::multicast(v6(from), mac(from), target)),
            1 => solicitation(mac(from), &Solicitation::probe(target)),
            2 => solicitation(mac(from), &Solicitation::unicast(v6(from), mac(from), target)),
            3 if r.chance(50) => answer(mac(from), v6(from)),
            3 => {
                let router = r.pick(ROUTERS6);
                let a = Solicitation::unicast(OUR_IP6, OUR_MAC, router).reply(mac(router[15].into()));
                advertisement(mac(from), &Advertisement { is_router: r.chance(80), ..a })
            }
            4 => {
                let [is_router, solicited, overrides] = [0; 3].map(|_| r.chance(50));
                let dst = if solicited { OUR_IP6 } else { ALL_NODES };
                let target_mac = r.chance(80).then(|| mac(from));
                advertisement(mac(from), &Advertisement { src: v6(from), dst, target, target_mac, is_router, solicited, overrides })
            }
            _ => router_says(r),
        };
        self.arrive(r, frame);
    }

    /// An error about what a peer last got from us, or nearly.
    fn error(&mut self, r: &mut impl Choices) {
        let p = &self.seen[r.range(0, 8) as usize];
        let seq = SeqNum(p.ack.0.wrapping_sub(1)).add(off(r));
        let (code, mtu) = (r.pick([0, 1, 3, 4]), r.range(0, 65_536) as u16);
        let segment = [&p.to.to_be_bytes()[..], &p.port.to_be_bytes(), &seq.0.to_be_bytes()].concat();
        let frame = match as_v4(&p.ip) {
            Some(ip) => {
                let quoted = ipv4(OUR_IP, ip, 6, 0, &segment);
                let [m0, m1] = mtu.to_be_bytes();
                let kind = r.pick([3, 3, 3, 11, 12, 4]);
                icmp(p.mac, ip, &[&[kind, code, 0, 0, 0, 0, m0, m1][..], &quoted].concat())
            }
            None => {
                let fixed = [0x60, 0, 0, 0, 0, segment.len() as u8, 6, 64];
                let kind = r.pick([1, 2, 2, 3, 4]);
                let head = [&[kind, code, 0, 0][..], &u32::from(mtu).to_be_bytes()].concat();
                icmpv6(p.mac, p.ip, OUR_IP6, &[&head, &fixed[..], &OUR_IP6, &p.ip, &segment].concat())
            }
        };
        self.arrive(r, frame);
    }

    /// Any message of ICMP whose checksum is right, to us or to all.
    fn message(&mut self, r: &mut impl Choices) {
        let (peer, is_v6, to_all) = (r.range(0, 8), r.chance(60), r.chance(50));
        let body = r.bytes(100);
        let kind = if r.chance(50) { r.pick([8, 128, 133, 134, 135, 136, 137]) } else { r.range(0, 256) as u8 };
        let message = [&[kind, r.pick([0, 0, 1]), 0, 0][..], &body].concat();
        let frame = if is_v6 {
            icmpv6(mac(peer), r.pick([v6(peer), ROUTERS6[0], [0; 16]]), if to_all { ALL_NODES } else { OUR_IP6 }, &message)
        } else {
            icmp(mac(peer), [10, 0, 0, peer as u8], &message)
        };
        self.arrive(r, frame);
    }

    /// A packet of IPv4, perhaps a fragment.
    fn packet(&mut self, r: &mut impl Choices) {
        let peer = r.range(0, 8);
        let (proto, fragment, body) = (r.pick([1, 6, 17, 2, 58]), r.pick([0, 0, 0x2000, 1, 0x3fff]), r.bytes(60));
        let frame = framed(
            mac(peer),
            ipv4([10, 0, 0, peer as u8], r.pick([OUR_IP, [10, 0, 0, 255], [255; 4], [224, 0, 0, 1]]), proto, fragment, &body),
        );
        self.arrive(r, frame);
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

    // ---- daemon and card ----

    fn listen(&mut self, backlog: u32) {
        if self.listener.is_none() {
            let (bind, _) = self.b.engine.bind(1, Endpoint { ip: [0; 16], port: 80 }, 1).expect("SO_REUSEADDR");
            self.listener = Some((bind, self.b.engine.listen(bind, backlog, BUF).expect("nobody listens")));
        }
    }

    fn unlisten(&mut self) {
        if let Some((bind, _)) = self.listener.take() {
            self.b.engine.unbind(bind, self.b.now);
        }
    }

    fn connect(&mut self, r: &mut impl Choices) {
        let n = r.range(0, 6);
        let ip = match r.range(0, 8) {
            0..4 => v4_mapped([10, 0, 0, n as u8]),
            4 => v4_mapped([10, 0, 1, n as u8]),
            5..7 => v6(n),
            _ => FAR6,
        };
        let port = 80 + r.pick([0, 0, 1]);
        match self.b.engine.connect(1, None, Endpoint { ip, port }, BUF, self.b.now) {
            Ok((conn, _)) => self.opening.push(conn),
            Err(e) => assert!([Errno::ENOBUFS, Errno::ENETUNREACH, Errno::EADDRNOTAVAIL].contains(&e), "{e}"),
        }
    }

    /// The card answers the oldest INSTALL.
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
            self.b.engine.flow_closed(flow, reason, &state, self.b.now, self.b.now);
        }
    }

    fn settle(&mut self) {
        let actions = self.b.actions();
        // Addresses that were ours when some of this was sent.
        let gone: Vec<_> =
            actions.iter().filter_map(|a| if let Action::Address { ip, add: false, .. } = a { Some(*ip) } else { None }).collect();
        for action in actions {
            match action {
                Action::Install { conn, state, .. } => self.installing.push((conn, state)),
                Action::ConnectFailed { conn, .. } | Action::Connected { conn, .. } => {
                    let known = self.opening.iter().position(|c| *c == conn).expect("an outcome for an open, and one only");
                    self.opening.remove(known);
                }
                Action::Transmit { frame } => {
                    assert!(frame.len() <= 1500 + 18, "fits the MTU");
                    self.sent(&frame, &gone);
                }
                Action::NextHop { index, mac } => self.hops[usize::from(index)] = mac,
                Action::AbortFlow { flow } => self.end(flow, close_reason::ABORTED),
                Action::QueryFlow { flow } => {
                    if let Some((_, s)) = self.flows.iter().find(|(f, _)| *f == flow) {
                        self.b.engine.flow_state(flow, s, self.b.now);
                    }
                }
                Action::Address { .. }
                | Action::Conflict { .. }
                | Action::Inject { .. }
                | Action::Accept { .. }
                | Action::IcmpError { .. } => {}
            }
        }
    }

    /// A peer gets a segment of ours.
    fn sent(&mut self, frame: &[u8], gone: &[[u8; 16]]) {
        let parsed = parse_frame(frame).expect("our frames parse");
        if let Payload::Arp(span) = parsed.payload {
            let arp = Arp::parse(span.of(frame)).expect("our ARP parses");
            self.asked = (arp.op == ArpOp::Request).then_some(arp.target_ip[3].into());
        }
        let Some((ip, tcp)) = parsed.tcp() else { return };
        assert!(parsed.tcp_checksum_ok(frame), "a checksum of ours");
        let is_ours = gone.contains(&ip.src) || self.b.engine.addresses().any(|own| own.prefix.ip == ip.src);
        assert!(is_ours, "not from an address of ours: {ip:?}");
        let peer = self.seen.iter_mut().find(|p| p.ip == ip.dst).filter(|_| tcp.flags.contains(TcpFlags::SYN));
        if let Some(peer) = peer {
            peer.take(&Seg { to: parsed.eth.dst, ip: *ip, tcp: *tcp, options: parsed.tcp_options(frame) });
        }
    }

    /// What holds at any time.
    fn check(&self) {
        let e = &self.b.engine;
        assert!(e.connection_count() <= CONNECTIONS && e.time_wait_count() <= TIME_WAITS);
        assert!(e.neighbours().count() <= usize::from(NEIGHBOURS));
        for l in e.listeners() {
            assert!(l.half_open <= HALF_OPEN && l.waiting <= l.backlog + 1, "{l:?}");
        }
        let (refs, stand_ins) =
            (e.neighbours().map(|n| n.refs).sum::<u32>() as usize, e.neighbours().filter(|n| n.stand_in.is_some()).count());
        assert!(refs <= e.connection_count() + stand_ins, "{refs} references");
        for n in e.neighbours() {
            let other = n.stand_in.and_then(|ip| e.neighbours().find(|other| other.ip == ip)).and_then(|other| other.mac);
            let told = self.hops[usize::from(n.index)];
            assert!(told == n.mac || n.stand_in.is_some() && told == other, "{n:?}, and the card has {told:?}");
        }
        assert!(self.flows.len() + self.installing.len() <= e.connection_count());
    }

    /// The application and all peers go: nothing may be left.
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
        // Else routers would be asked for ever: one that answers once there is an address to ask from, and goes.
        self.pass(10 * SEC);
        let router = icmpv6(mac(9), ROUTERS6[0], ALL_NODES, &[134, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.b.engine.frame(&tagged(router, self.vlan), ON_WIRE, self.b.now);
        self.settle();
        self.pass(FOR_EVER);
        let e = &self.b.engine;
        assert_eq!((e.connection_count(), e.time_wait_count(), e.neighbours().count()), (0, 0, 0));
        assert_eq!((e.ports_in_use(), e.next_deadline()), (0, None));
    }
}

fn pick(r: &mut impl Choices, n: usize) -> Option<usize> {
    (n > 0).then(|| r.range(0, n as u64) as usize)
}

/// IPv4's header and what it carries.
fn ipv4(src: [u8; 4], dst: [u8; 4], proto: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
    let ([l0, l1], [f0, f1]) = ((20 + body.len() as u16).to_be_bytes(), fragment.to_be_bytes());
    let mut header = [&[0x45, 0, l0, l1, 0, 0, f0, f1, 64, proto, 0, 0][..], &src, &dst].concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [header, body.to_vec()].concat()
}

/// A message of ICMP to us, its checksum filled in.
fn icmp(from: [u8; 6], src: [u8; 4], message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    framed(from, ipv4(src, OUR_IP, 1, 0, &message))
}

fn framed(from: [u8; 6], packet: Vec<u8>) -> Vec<u8> {
    [&OUR_MAC[..], &from, &[8, 0], &packet].concat()
}

fn tagged(mut frame: Vec<u8>, vlan: u16) -> Vec<u8> {
    if vlan != 0 {
        let [v0, v1] = vlan.to_be_bytes();
        frame.splice(12..12, [0x81, 0, v0, v1]);
    }
    frame
}

/// A router advertises itself and some prefixes.
fn router_says(r: &mut impl Choices) -> Vec<u8> {
    let seconds = |r: &mut _| Choices::pick(r, [0, 1, 100, 7200, u32::MAX]);
    let mut message = vec![134, 0, 0, 0, 0, 0];
    message.extend((seconds(r) as u16).to_be_bytes());
    message.extend([0; 8]);
    if r.chance(50) {
        message.extend([1, 1, 2, 0, 0, 0, 0, 9]);
    }
    if r.chance(30) {
        message.extend([5, 1, 0, 0]);
        message.extend(Choices::pick(r, [0_u32, 1279, 1280, 1400, 1500, 9000]).to_be_bytes());
    }
    for _ in 0..r.range(0, 3) {
        let (len, flags) = (Choices::pick(r, [64, 64, 64, 0, 128, 129]), r.range(0, 4) as u8);
        let (valid, preferred) = (seconds(r), seconds(r));
        let net = Prefix::new(FAR6, 64).map_or(FAR6, |p| p.ip);
        message.extend([3, 4, len, flags << 6]);
        message.extend([valid.to_be_bytes(), preferred.to_be_bytes(), [0; 4]].concat());
        message.extend(&net[..7]);
        message.push(r.range(0, 4) as u8);
        message.extend([0; 8]);
    }
    let from = if r.chance(90) { r.pick(ROUTERS6) } else { FAR6 };
    icmpv6(mac(from[15].into()), from, ALL_NODES, &message)
}
