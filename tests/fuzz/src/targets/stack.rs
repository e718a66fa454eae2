//! All of a host (card, daemon, library, application) against a peer that says anything, in virtual time. Nothing panics or spins, everything sent
//! is a good frame, and once the application has closed and the peer is silent, every connection comes to an end.

use std::cell::RefCell;
use std::rc::Rc;

use arbitrary::{Arbitrary, Unstructured};
use toe::{Context, Error, Event, SocketId};
use toe_abi::flow::v4_mapped;
use toe_datapath::{Card, CardConfig};
use toe_engine::{Config, Engine, Prefix};
use toe_hal::fake::{FakeFrame, FakeMemory, FakePort};
use toe_hal::{PortCaps, RxOffload};
use toe_link::slot::Addr;
use toe_tests::sim::host::{App, SimDaemon, ToeHost};
use toe_wire::{Arp, ArpOp, Checksum, Payload, SackBlocks, SeqNum, Sum, Tcp, TcpFlags, TcpOptions, Timestamps, TxHeader, parse_frame};
use toed::core::CoreConfig;

const STEPS_MAX: usize = 300;
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OUR_IP: [u8; 4] = [10, 0, 0, 1];
const PEER_IP: [u8; 4] = [10, 0, 0, 2];
const LISTENS: u16 = 80;
const PEER_PORT: u16 = 4000;
/// Peers' connections there can be.
const PORTS: usize = 2;
/// All retransmissions of a flow that nobody answers any more are over by then, and so is TIME-WAIT: microseconds.
const END_US: u64 = 3 * 3600 * 1_000_000;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Frame(&'a [u8]),
    Syn {
        port: bool,
        later: u8,
        mss: Option<u16>,
        scale: Option<u8>,
        stamped: bool,
        sack: bool,
        ecn: bool,
    },
    /// The next segment as it should be: all is acknowledged, `len` bytes follow.
    Good {
        port: bool,
        len: u16,
        fin: bool,
    },
    /// One near it.
    Near {
        port: bool,
        seq: i16,
        ack: i16,
        flags: u8,
        window: u16,
        clock: Option<i8>,
        sack: [Option<(u16, u16)>; 2],
        len: u16,
        ce: bool,
    },
    /// ICMP: it cannot be delivered.
    Unreachable {
        port: bool,
        code: u8,
        mtu: u16,
        seq: i16,
    },
    Pass(u32),
    App(Call),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Call {
    Connect,
    Send { which: u8, len: u16 },
    Receive { which: u8, len: u16 },
    Shutdown(u8),
    Close(u8),
    Abort(u8),
    Nodelay(u8, bool),
    Keepalive(u8, bool),
}

/// Does what it is told.
struct Puppet {
    calls: Rc<RefCell<Vec<Call>>>,
    listener: Option<SocketId>,
    sockets: Vec<SocketId>,
}

impl Puppet {
    fn call(&mut self, toe: &mut Context<SimDaemon>, call: Call) -> Result<(), Error> {
        let pick = |which: u8| usize::from(which).checked_rem(self.sockets.len()).map(|at| (at, self.sockets[at]));
        let (Call::Send { which, .. }
        | Call::Receive { which, .. }
        | Call::Shutdown(which)
        | Call::Close(which)
        | Call::Abort(which)
        | Call::Nodelay(which, _)
        | Call::Keepalive(which, _)) = call
        else {
            self.sockets.push(toe.connect(Addr::v4(PEER_IP, PEER_PORT))?);
            return Ok(());
        };
        let Some((at, id)) = pick(which) else { return Ok(()) };
        match call {
            Call::Send { len, .. } => drop(toe.send(id, &vec![0x55; len.into()])?),
            Call::Receive { len, .. } => drop(toe.recv(id, &mut vec![0; len.into()])?),
            Call::Shutdown(_) => toe.shutdown(id)?,
            Call::Abort(_) => toe.abort(id)?,
            Call::Nodelay(_, on) => toe.set_nodelay(id, on)?,
            Call::Keepalive(_, on) => toe.set_keepalive(id, on)?,
            Call::Close(_) => {
                self.sockets.remove(at);
                toe.close(id);
            }
            Call::Connect => {}
        }
        Ok(())
    }
}

impl App for Puppet {
    fn run(&mut self, toe: &mut Context<SimDaemon>, _events: &[Event], _now_us: u64) -> bool {
        let listener = *self.listener.get_or_insert_with(|| toe.listen(Addr::v4([0; 4], LISTENS), 4).expect("the first listener"));
        while let Ok(Some(socket)) = toe.accept(listener) {
            self.sockets.push(socket);
        }
        for call in self.calls.take() {
            // Errors are answers.
            let _ = self.call(toe, call);
        }
        false
    }
}

/// One connection as the peer sees it.
#[derive(Clone, Copy, Default)]
struct Peer {
    /// Our port, and its own.
    to: u16,
    from: u16,
    /// Next of its sequence numbers, and of ours.
    seq: u32,
    ack: u32,
    clock: u32,
    recent: u32,
}

struct World {
    host: ToeHost,
    app: Puppet,
    calls: Rc<RefCell<Vec<Call>>>,
    peers: [Peer; PORTS],
    now_us: u64,
}

pub fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if u.is_empty() {
            break;
        }
        let Ok(step) = u.arbitrary() else { break };
        world.step(step);
        world.settle();
    }
    world.end();
}

fn host() -> ToeHost {
    let address = Prefix::new(v4_mapped(OUR_IP), 24).expect("24 bits");
    let mut config = Config::new(OUR_MAC, vec![address]);
    (config.secret, config.ecn) = ([7; 16], true);
    let engine = Engine::new(config, 0).expect("a valid configuration");
    let mut core = CoreConfig::new(Some(address));
    (core.buffers.tx, core.buffers.rx) = (13, 13);
    (core.limits.payload_len, core.limits.contexts, core.limits.sockets) = (1 << 17, 1, 8);
    (core.limits.listeners, core.limits.accept_entries) = (1, 4);
    (core.limits.hc_entries, core.limits.ev_entries) = (4, 4);
    (core.card_contexts, core.card_regions) = (2, 2);
    let caps = PortCaps { mac: OUR_MAC, mtu: 1500, tx_csum: false, tso_max: 0 };
    let card = CardConfig { max_flows: 8, max_contexts: 2, max_regions: 2, max_next_hops: 4, spin_us: 0, ..CardConfig::default() };
    ToeHost::new(core, engine, FakeMemory::new(1), FakePort::new(caps, 1), |parts| Box::new(Card::new(card, parts)))
}

impl World {
    fn new() -> Self {
        let calls = Rc::new(RefCell::new(Vec::new()));
        let app = Puppet { calls: calls.clone(), listener: None, sockets: vec![] };
        let peer = |n: u16| Peer { to: LISTENS, from: PEER_PORT + n, seq: 5000, clock: 700, ..Peer::default() };
        Self { host: host(), app, calls, peers: [peer(0), peer(1)], now_us: 1000 }
    }

    fn arrive(&mut self, bytes: Vec<u8>) {
        self.host.arrive(FakeFrame { bytes, offload: RxOffload::default() });
    }

    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Frame(bytes) => self.arrive(bytes.to_vec()),
            Step::Syn { port, later, mss, scale, stamped, sack, ecn } => {
                let p = &mut self.peers[usize::from(port)];
                (p.to, p.seq) = (LISTENS, p.seq.wrapping_add(later.into()));
                let timestamps = stamped.then_some(Timestamps { val: p.clock, ecr: 0 });
                let options = TcpOptions { mss, window_scale: scale, sack_permitted: sack, timestamps, ..TcpOptions::default() };
                let flags = if ecn { TcpFlags::SYN | TcpFlags::ECE | TcpFlags::CWR } else { TcpFlags::SYN };
                let syn = p.segment(p.seq, 0, flags, 60_000, options, false, 0);
                p.seq = p.seq.wrapping_add(1);
                self.arrive(syn);
            }
            Step::Good { port, len, fin } => {
                let p = &mut self.peers[usize::from(port)];
                let (len, flags) = (len % 1400, if fin { TcpFlags::ACK | TcpFlags::FIN } else { TcpFlags::ACK });
                p.clock = p.clock.wrapping_add(1);
                let options = p.stamped(0);
                let segment = p.segment(p.seq, p.ack, flags, 60_000, options, false, len);
                p.seq = p.seq.wrapping_add(u32::from(len) + u32::from(fin));
                self.arrive(segment);
            }
            Step::Near { port, seq, ack, flags, window, clock, sack, len, ce } => {
                let p = &self.peers[usize::from(port)];
                let mut options = clock.map_or(TcpOptions::default(), |by| p.stamped(by));
                options.sack = blocks(p.ack, sack);
                let (seq, ack) = (p.seq.wrapping_add(seq as u32), p.ack.wrapping_add(ack as u32));
                let segment = p.segment(seq, ack, TcpFlags::from_bits_retain(flags), window, options, ce, len % 1400);
                self.arrive(segment);
            }
            Step::Unreachable { port, code, mtu, seq } => {
                let message = self.peers[usize::from(port)].unreachable(code, mtu, seq);
                self.arrive(message);
            }
            Step::Pass(us) => self.pass(us.into()),
            Step::App(call) => {
                self.calls.borrow_mut().push(call);
                self.host.wake_app();
            }
        }
    }

    /// Runs until all sleep, and takes what was sent.
    fn settle(&mut self) {
        self.host.run(&mut self.app, self.now_us);
        while let Some(frame) = self.host.take_sent() {
            self.peer_sees(&frame.bytes);
        }
    }

    fn peer_sees(&mut self, frame: &[u8]) {
        let parsed = parse_frame(frame).expect("our frames parse");
        match parsed.payload {
            Payload::Arp(span) => {
                let asked = Arp::parse(span.of(frame)).filter(|arp| arp.op == ArpOp::Request && arp.target_ip == PEER_IP);
                if let Some(reply) = asked.and_then(|arp| arp.reply(PEER_MAC)) {
                    let mut out = vec![0; 64];
                    let len = reply.write(&OUR_MAC, None, &mut out).expect("it fits");
                    out.truncate(len);
                    self.arrive(out);
                }
            }
            Payload::Ipv4(packet) => {
                let Some(tcp) = packet.tcp else { return };
                assert!(parsed.tcp_checksum_ok(frame), "a checksum of ours");
                if let Some(peer) = self.peers.iter_mut().find(|peer| peer.from == tcp.dst_port) {
                    peer.sees(&tcp, &parsed.tcp_options(frame));
                }
            }
            Payload::Ipv6(_) | Payload::Other => panic!("a frame of an unknown kind"),
        }
    }

    fn pass(&mut self, us: u64) {
        let end = self.now_us + us;
        while let Some(at) = self.host.next_us(self.now_us).filter(|at| *at <= end) {
            self.now_us = at.max(self.now_us + 1);
            self.settle();
        }
        self.now_us = self.now_us.max(end);
    }

    fn end(&mut self) {
        for _ in 0..self.app.sockets.len() {
            self.calls.borrow_mut().push(Call::Close(0));
        }
        self.host.wake_app();
        self.settle();
        self.pass(END_US);
        self.settle();
        // Whoever was accepted in the meantime.
        if !self.app.sockets.is_empty() {
            return self.end();
        }
        assert_eq!(self.host.connections(), 0, "connections that never end");
    }
}

fn blocks(ack: u32, sack: [Option<(u16, u16)>; 2]) -> SackBlocks {
    let mut out = SackBlocks::default();
    for (left, len) in sack.into_iter().flatten() {
        let left = SeqNum(ack).add(left.into());
        out.push(left, left.add(len.into()));
    }
    out
}

impl Peer {
    fn stamped(&self, by: i8) -> TcpOptions {
        let timestamps = Some(Timestamps { val: self.clock.wrapping_add(by as u32), ecr: self.recent });
        TcpOptions { timestamps, ..TcpOptions::default() }
    }

    fn sees(&mut self, tcp: &Tcp, options: &TcpOptions) {
        let takes = tcp.payload.len() + u32::from(tcp.flags.contains(TcpFlags::SYN)) + u32::from(tcp.flags.contains(TcpFlags::FIN));
        let end = tcp.seq.add(takes);
        if tcp.flags.contains(TcpFlags::SYN) || end.gt(SeqNum(self.ack)) {
            self.ack = end.0;
        }
        self.to = tcp.src_port;
        self.recent = options.timestamps.map_or(self.recent, |ts| ts.val);
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a header")]
    fn segment(&self, seq: u32, ack: u32, flags: TcpFlags, window: u16, options: TcpOptions, ce: bool, len: u16) -> Vec<u8> {
        let header = TxHeader {
            dst_mac: OUR_MAC,
            src_mac: PEER_MAC,
            vlan: None,
            src_ip: v4_mapped(PEER_IP),
            dst_ip: v4_mapped(OUR_IP),
            tos: if ce { 3 } else { 0 },
            ttl: 64,
            ident: 0,
            src_port: self.from,
            dst_port: self.to,
            seq: SeqNum(seq),
            ack: SeqNum(ack),
            flags,
            window,
            urgent: if flags.contains(TcpFlags::URG) { window } else { 0 },
            options,
        };
        let payload = vec![0xaa; len.into()];
        let mut out = vec![0; 128];
        let Ok(built) = header.write(&mut out, len.into(), Checksum::Full(Sum::new().bytes(&payload))) else { return vec![] };
        out.truncate(built.len.into());
        out.extend_from_slice(&payload);
        out
    }

    /// A router says that a segment of ours did not get through (RFC 792, RFC 1191).
    fn unreachable(&self, code: u8, mtu: u16, seq: i16) -> Vec<u8> {
        let mut quoted = [0; 28];
        quoted[0] = 0x45;
        quoted[2..4].copy_from_slice(&1000_u16.to_be_bytes());
        quoted[9] = 6;
        quoted[12..16].copy_from_slice(&OUR_IP);
        quoted[16..20].copy_from_slice(&PEER_IP);
        quoted[20..22].copy_from_slice(&self.to.to_be_bytes());
        quoted[22..24].copy_from_slice(&self.from.to_be_bytes());
        quoted[24..28].copy_from_slice(&self.ack.wrapping_add(seq as u32).to_be_bytes());
        let [m0, m1] = mtu.to_be_bytes();
        let mut message = [&[3, code, 0, 0, 0, 0, m0, m1], &quoted[..]].concat();
        let sum = toe_wire::checksum::checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut ip = [&[0x45, 0, 0, 20 + message.len() as u8, 0, 0, 0x40, 0, 64, 1, 0, 0], &PEER_IP[..], &OUR_IP[..]].concat();
        let sum = toe_wire::checksum::checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        [&OUR_MAC[..], &PEER_MAC[..], &[8, 0], &ip[..], &message[..]].concat()
    }
}
