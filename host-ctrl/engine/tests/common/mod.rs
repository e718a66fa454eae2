//! A bench for one engine: a peer's frames go in, actions come out, time is ours.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use toe_abi::FlowId;
use toe_abi::flow::{FlowKey, FlowState, as_v4, v4_mapped};
use toe_engine::{Action, BufferLog2, Config, ConnId, Endpoint, Engine, FrameMeta, ListenerId, Prefix};
use toe_wire::checksum::pseudo_header;
use toe_wire::nd::{Advertisement, FRAME_MAX, HOP_LIMIT, Nd, Solicitation};
use toe_wire::{Arp, ArpOp, Checksum, Icmpv6, Ip, Payload, SeqNum, Sum, Tcp, TcpFlags, TcpOptions, Timestamps, TxHeader, parse_frame};

pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const OUR_IP: [u8; 4] = [10, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const PEER_IP: [u8; 4] = [10, 0, 0, 2];
pub const OUR_IP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const PEER_IP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub const BUF: BufferLog2 = BufferLog2 { tx: 18, rx: 18 };
pub const SEC: u64 = 1_000_000;
pub const ON_WIRE: FrameMeta = FrameMeta { csum_ok: false, needs_csum: false, reason: 0, csum_start: 0, csum_offset: 0, gso_size: 0 };

pub fn config() -> Config {
    Config {
        secret: *b"sixteen bytes ok",
        answer_arp: true,
        ..Config::new(OUR_MAC, vec![Prefix::new(v4_mapped(OUR_IP), 24).expect("24 bits")])
    }
}

pub struct Bench {
    pub engine: Engine,
    pub now: u64,
    next_flow: u32,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut c = config();
        change(&mut c);
        let now = 1_000 * SEC;
        let mut bench = Self { engine: Engine::new(c, now).expect("a valid configuration"), now, next_flow: 0 };
        bench.actions();
        bench
    }

    pub fn actions(&mut self) -> Vec<Action> {
        core::iter::from_fn(|| self.engine.poll_action()).collect()
    }

    /// A frame from the wire.
    pub fn frame(&mut self, frame: &[u8]) -> Vec<Action> {
        self.engine.frame(frame, ON_WIRE, self.now);
        self.actions()
    }

    /// Lets `us` pass, stopping at each deadline.
    pub fn pass(&mut self, us: u64) -> Vec<Action> {
        let end = self.now + us;
        let mut out = Vec::new();
        while let Some(at) = self.engine.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.engine.timer(self.now);
            out.extend(self.actions());
        }
        self.now = end;
        out
    }

    /// With an address of IPv6 as well, which nobody else has.
    pub fn dual(change: impl FnOnce(&mut Config)) -> Self {
        let mut bench = Self::with(|c| {
            c.addresses.push(Prefix::new(OUR_IP6, 64).expect("64 bits"));
            c.dad_transmits = 0;
            change(c);
        });
        bench.actions();
        bench
    }

    pub fn listen(&mut self, port: u16, backlog: u32) -> ListenerId {
        let (bind, _) = self.engine.bind(1, Endpoint { ip: [0; 16], port }, 0).expect("the port is free");
        self.engine.listen(bind, backlog, BUF).expect("nobody listens")
    }

    /// What the card would answer.
    pub fn installed(&mut self, conn: ConnId) -> (FlowId, Vec<Action>) {
        self.next_flow += 1;
        let flow = FlowId { index: self.next_flow, generation: 1 };
        self.engine.installed(conn, Ok(flow), self.now);
        (flow, self.actions())
    }

    /// A whole passive open by `peer`, up to the flow.
    pub fn accept(&mut self, peer: &mut Peer) -> (FlowId, Box<FlowState>) {
        let synack = only_segment(&self.frame(&peer.syn()));
        peer.take(&synack);
        let (conn, state) = only_install(self.frame(&peer.ack()));
        let (flow, _) = self.installed(conn);
        (flow, state)
    }

    /// Tells the engine where the peer is.
    pub fn know_peer(&mut self) {
        self.frame(&arp(ArpOp::Request, PEER_MAC, PEER_IP, OUR_IP));
    }
}

/// A peer that does what the test says.
#[derive(Clone, Debug)]
pub struct Peer {
    pub ip: [u8; 16],
    pub mac: [u8; 6],
    pub port: u16,
    pub to: u16,
    pub seq: SeqNum,
    pub ack: SeqNum,
    /// Timestamp to send; None: no option.
    pub ts: Option<u32>,
    pub ts_recent: u32,
    pub window: u16,
    pub syn_options: TcpOptions,
    pub syn_flags: TcpFlags,
}

impl Peer {
    pub fn new(port: u16, to: u16) -> Self {
        Self {
            ip: v4_mapped(PEER_IP),
            mac: PEER_MAC,
            port,
            to,
            seq: SeqNum(5000),
            ack: SeqNum(0),
            ts: None,
            ts_recent: 0,
            window: 60_000,
            syn_options: TcpOptions { mss: Some(1460), ..TcpOptions::default() },
            syn_flags: TcpFlags::SYN,
        }
    }

    /// With every option that we know.
    pub fn modern(port: u16, to: u16) -> Self {
        let syn_options = TcpOptions { mss: Some(1400), window_scale: Some(7), sack_permitted: true, ..TcpOptions::default() };
        Self { ts: Some(700), syn_options, ..Self::new(port, to) }
    }

    /// Over IPv6.
    pub fn v6(port: u16, to: u16) -> Self {
        Self { ip: PEER_IP6, ..Self::modern(port, to) }
    }

    /// Our address, of the version of its own.
    pub fn ours(&self) -> [u8; 16] {
        if as_v4(&self.ip).is_some() { v4_mapped(OUR_IP) } else { OUR_IP6 }
    }

    pub fn key(&self) -> FlowKey {
        FlowKey { local_ip: self.ours(), remote_ip: self.ip, local_port: self.to, remote_port: self.port }
    }

    pub fn build(&self, seq: SeqNum, ack: SeqNum, flags: TcpFlags, options: TcpOptions, payload: &[u8]) -> Vec<u8> {
        let header = TxHeader {
            dst_mac: OUR_MAC,
            src_mac: self.mac,
            vlan: None,
            src_ip: self.ip,
            dst_ip: self.ours(),
            tos: 0,
            ttl: 64,
            ident: 0,
            src_port: self.port,
            dst_port: self.to,
            seq,
            ack,
            flags,
            window: self.window,
            urgent: 0,
            options,
        };
        let mut out = vec![0; 128];
        let sum = Sum::new().bytes(payload);
        let built = header.write(&mut out, payload.len() as u32, Checksum::Full(sum)).expect("fits");
        out.truncate(usize::from(built.len));
        out.extend_from_slice(payload);
        out
    }

    fn options(&self) -> TcpOptions {
        TcpOptions { timestamps: self.ts.map(|val| Timestamps { val, ecr: self.ts_recent }), ..TcpOptions::default() }
    }

    pub fn syn(&self) -> Vec<u8> {
        let timestamps = self.options().timestamps;
        self.build(self.seq, self.ack, self.syn_flags, TcpOptions { timestamps, ..self.syn_options }, &[])
    }

    /// A SYN-ACK to the SYN that was `take`n.
    pub fn syn_ack(&self) -> Vec<u8> {
        Self { syn_flags: self.syn_flags | TcpFlags::ACK, ..self.clone() }.syn()
    }

    /// A segment of the connection behind the SYN.
    pub fn data(&self, at: u32, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
        self.build(self.seq.add(1).add(at), self.ack, flags, self.options(), payload)
    }

    pub fn ack(&self) -> Vec<u8> {
        self.data(0, TcpFlags::ACK, &[])
    }

    pub fn rst(&self, seq: SeqNum) -> Vec<u8> {
        self.build(seq, self.ack, TcpFlags::RST, TcpOptions::default(), &[])
    }

    /// Notes what a SYN or SYN-ACK of ours said.
    pub fn take(&mut self, s: &Seg) {
        self.ack = s.tcp.seq.add(1);
        self.port = s.tcp.dst_port;
        self.to = s.tcp.src_port;
        self.ts_recent = s.options.timestamps.map_or(0, |t| t.val);
    }
}

/// A TCP segment of ours, checked for being well-formed.
#[derive(Clone, Debug)]
pub struct Seg {
    pub to: [u8; 6],
    pub ip: Ip,
    pub tcp: Tcp,
    pub options: TcpOptions,
}

impl Seg {
    pub fn is(&self, flags: TcpFlags) -> bool {
        self.tcp.flags == flags
    }
}

pub fn segment(frame: &[u8]) -> Option<Seg> {
    let parsed = parse_frame(frame).expect("our frames parse");
    let (ip, tcp) = parsed.tcp()?;
    assert!(parsed.tcp_checksum_ok(frame), "TCP checksum of {parsed:?}");
    assert_eq!(parsed.eth.src, OUR_MAC);
    assert!([v4_mapped(OUR_IP), OUR_IP6].contains(&ip.src), "{ip:?}");
    Some(Seg { to: parsed.eth.dst, ip: *ip, tcp: *tcp, options: parsed.tcp_options(frame) })
}

pub fn segments(actions: &[Action]) -> Vec<Seg> {
    actions.iter().filter_map(|a| if let Action::Transmit { frame } = a { segment(frame) } else { None }).collect()
}

pub fn only_segment(actions: &[Action]) -> Seg {
    let all = segments(actions);
    assert_eq!(all.len(), 1, "one segment expected: {actions:?}");
    all[0].clone()
}

pub fn arps(actions: &[Action]) -> Vec<([u8; 6], Arp)> {
    let arp = |frame: &[u8]| {
        let parsed = parse_frame(frame).expect("our frames parse");
        let Payload::Arp(span) = parsed.payload else { return None };
        Some((parsed.eth.dst, Arp::parse(span.of(frame))?))
    };
    actions.iter().filter_map(|a| if let Action::Transmit { frame } = a { arp(frame) } else { None }).collect()
}

pub fn arp(op: ArpOp, mac: [u8; 6], ip: [u8; 4], target_ip: [u8; 4]) -> Vec<u8> {
    let packet = Arp { op, sender_mac: mac, sender_ip: ip, target_mac: OUR_MAC, target_ip };
    let mut out = vec![0; 64];
    let len = packet.write(&OUR_MAC, None, &mut out).expect("fits");
    out.truncate(len);
    out
}

/// Messages of neighbour discovery, and the stations that they go to.
pub fn nds(actions: &[Action]) -> Vec<([u8; 6], Nd<'_>)> {
    let nd = |frame| {
        let parsed = parse_frame(frame).expect("our frames parse");
        let Payload::Ipv6(packet) = parsed.payload else { return None };
        match Icmpv6::parse(&packet.ip, frame).expect("its checksum is right") {
            Icmpv6::Nd(message) if packet.ip.proto == 58 => Some((parsed.eth.dst, message)),
            _ => None,
        }
    };
    let frames = actions.iter().filter_map(|a| if let Action::Transmit { frame } = a { Some(frame) } else { None });
    frames.filter(|f| parse_frame(f).is_ok_and(|p| p.tcp().is_none())).filter_map(|frame| nd(frame)).collect()
}

pub fn solicitations(actions: &[Action]) -> Vec<([u8; 6], Solicitation)> {
    nds(actions).into_iter().filter_map(|(to, m)| if let Nd::Solicitation(s) = m { Some((to, s)) } else { None }).collect()
}

pub fn solicitation(mac: [u8; 6], s: &Solicitation) -> Vec<u8> {
    let mut out = vec![0; FRAME_MAX];
    let len = s.write(OUR_MAC, mac, None, &mut out).expect("fits");
    out.truncate(len);
    out
}

pub fn advertisement(mac: [u8; 6], a: &Advertisement) -> Vec<u8> {
    let mut out = vec![0; FRAME_MAX];
    let len = a.write(OUR_MAC, mac, None, &mut out).expect("fits");
    out.truncate(len);
    out
}

/// The answer of the one at `mac` to our question for `target`.
pub fn answer(mac: [u8; 6], target: [u8; 16]) -> Vec<u8> {
    advertisement(mac, &Solicitation::unicast(OUR_IP6, OUR_MAC, target).reply(mac))
}

/// An ICMPv6 message from `src` at `mac`, its checksum filled in.
pub fn icmpv6(mac: [u8; 6], src: [u8; 16], dst: [u8; 16], message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = pseudo_header(&src, &dst, 58, message.len() as u32).bytes(&message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let to = if dst[0] == 0xff { [0x33, 0x33, dst[12], dst[13], dst[14], dst[15]] } else { OUR_MAC };
    let ip = [&[0x60, 0, 0, 0, (message.len() >> 8) as u8, message.len() as u8, 58, HOP_LIMIT][..], &src, &dst].concat();
    [&to[..], &mac, &[0x86, 0xdd], &ip, &message].concat()
}

pub fn only_install(actions: Vec<Action>) -> (ConnId, Box<FlowState>) {
    let text = format!("{actions:?}");
    let mut all = actions.into_iter().filter_map(|a| if let Action::Install { conn, state, .. } = a { Some((conn, state)) } else { None });
    match (all.next(), all.next()) {
        (Some(one), None) => one,
        _ => panic!("one Install expected: {text}"),
    }
}

/// What the card is told of next hops.
pub fn hops(actions: &[Action]) -> Vec<(u16, Option<[u8; 6]>)> {
    actions.iter().filter_map(|a| if let Action::NextHop { index, mac } = a { Some((*index, *mac)) } else { None }).collect()
}

/// Addresses of ours that others use, and who.
pub fn conflicts(actions: &[Action]) -> Vec<([u8; 16], [u8; 6])> {
    actions.iter().filter_map(|a| if let Action::Conflict { ip, mac } = a { Some((*ip, *mac)) } else { None }).collect()
}

pub fn failed(actions: &[Action]) -> Option<(ConnId, u32)> {
    actions.iter().find_map(|a| if let Action::ConnectFailed { conn, errno } = a { Some((*conn, errno.0)) } else { None })
}
