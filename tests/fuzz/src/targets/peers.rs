//! Peers on the wire of a whole host, each with one connection, of IPv4 and of IPv6: they follow what is sent to them, and so know which
//! segment would be right.

use toe_abi::flow::{as_v4, v4_mapped};
use toe_wire::checksum::{checksum, pseudo_header};
use toe_wire::nd::{FRAME_MAX, Nd};
use toe_wire::{
    Arp, ArpOp, Checksum, Icmpv6, Payload, SackBlocks, SeqNum, Sum, Tcp, TcpFlags, TcpOptions, Timestamps, TxHeader, ip_proto, parse_frame,
};

pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const OUR_IP: [u8; 4] = [10, 0, 0, 1];
pub const PEER_IP: [u8; 4] = [10, 0, 0, 2];
pub const OUR_IP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const PEER_IP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// Where the first peer is; the others follow.
pub const PEER_PORT: u16 = 4000;
const PEERS: usize = 4;

/// One connection as its peer sees it.
#[derive(Clone, Copy, Default)]
pub struct Peer {
    ip: [u8; 16],
    /// Our port, and its own.
    pub to: u16,
    from: u16,
    /// Next of its sequence numbers, and of ours.
    pub seq: u32,
    pub ack: u32,
    pub clock: u32,
    recent: u32,
}

/// All of them: every other one is of IPv6.
pub struct Peers([Peer; PEERS + 1]);

impl Peers {
    pub fn new(to: u16) -> Self {
        Self(core::array::from_fn(|n| {
            let ip = if n % 2 == 0 { v4_mapped(PEER_IP) } else { PEER_IP6 };
            Peer { ip, to, from: PEER_PORT + n as u16, seq: 5000, clock: 700, ..Peer::default() }
        }))
    }

    pub fn get(&mut self, n: u8) -> &mut Peer {
        &mut self.0[usize::from(n) % PEERS]
    }

    /// One more, whom `get` never gives.
    pub fn spare(&mut self) -> &mut Peer {
        &mut self.0[PEERS]
    }

    /// Takes a frame of ours; what the wire answers by itself.
    pub fn see(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let parsed = parse_frame(frame).expect("our frames parse");
        match parsed.payload {
            Payload::Arp(span) => Arp::parse(span.of(frame)).and_then(|arp| answer_arp(&arp)),
            Payload::Ipv4(packet) | Payload::Ipv6(packet) => {
                let Some(tcp) = packet.tcp else {
                    return (packet.ip.proto == ip_proto::ICMPV6).then(|| Icmpv6::parse(&packet.ip, frame)).flatten().and_then(answer_nd);
                };
                assert!(parsed.tcp_checksum_ok(frame), "a checksum of ours");
                if let Some(peer) = self.0.iter_mut().find(|peer| (peer.ip, peer.from) == (packet.ip.dst, tcp.dst_port)) {
                    peer.sees(&tcp, &parsed.tcp_options(frame));
                }
                None
            }
            Payload::Other => panic!("a frame of an unknown kind"),
        }
    }
}

fn answer_arp(arp: &Arp) -> Option<Vec<u8>> {
    let reply = Some(arp).filter(|arp| arp.op == ArpOp::Request && arp.target_ip == PEER_IP)?.reply(PEER_MAC)?;
    let mut out = vec![0; 64];
    let len = reply.write(&OUR_MAC, None, &mut out).expect("it fits");
    out.truncate(len);
    Some(out)
}

fn answer_nd(message: Icmpv6<'_>) -> Option<Vec<u8>> {
    let Icmpv6::Nd(Nd::Solicitation(asked)) = message else { return None };
    let answer = (asked.target == PEER_IP6).then(|| asked.reply(PEER_MAC))?;
    let mut out = vec![0; FRAME_MAX];
    let len = answer.write(OUR_MAC, PEER_MAC, None, &mut out).expect("it fits");
    out.truncate(len);
    Some(out)
}

/// SACK blocks at these distances from what `ack` acknowledges, and as long.
pub fn blocks(ack: u32, sack: [Option<(u16, u16)>; 2]) -> SackBlocks {
    let mut out = SackBlocks::default();
    for (left, len) in sack.into_iter().flatten() {
        let left = SeqNum(ack).add(left.into());
        out.push(left, left.add(len.into()));
    }
    out
}

impl Peer {
    /// Its clock, moved by as much.
    pub fn stamped(&self, by: i8) -> TcpOptions {
        let timestamps = Some(Timestamps { val: self.clock.wrapping_add(by as u32), ecr: self.recent });
        TcpOptions { timestamps, ..TcpOptions::default() }
    }

    fn ours(&self) -> [u8; 16] {
        if as_v4(&self.ip).is_some() { v4_mapped(OUR_IP) } else { OUR_IP6 }
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

    /// The next segment as it should be: all is acknowledged, `len` bytes follow.
    pub fn next(&mut self, len: u16, flags: TcpFlags) -> Vec<u8> {
        self.clock = self.clock.wrapping_add(1);
        let flags = flags | TcpFlags::ACK;
        let segment = self.segment((self.seq, self.ack), flags, 60_000, self.stamped(0), false, len);
        self.seq = self.seq.wrapping_add(u32::from(len) + u32::from(flags.contains(TcpFlags::FIN)));
        segment
    }

    /// `at`: sequence number and acknowledgement.
    pub fn segment(&self, at: (u32, u32), flags: TcpFlags, window: u16, options: TcpOptions, ce: bool, len: u16) -> Vec<u8> {
        let header = TxHeader {
            dst_mac: OUR_MAC,
            src_mac: PEER_MAC,
            vlan: None,
            src_ip: self.ip,
            dst_ip: self.ours(),
            tos: if ce { 3 } else { 0 },
            ttl: 64,
            ident: 0,
            src_port: self.from,
            dst_port: self.to,
            seq: SeqNum(at.0),
            ack: SeqNum(at.1),
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

    /// A router says that a segment of ours did not get through (RFC 792, RFC 1191, RFC 4443).
    pub fn unreachable(&self, code: u8, mtu: u16, seq: i16) -> Vec<u8> {
        let ports = [self.to.to_be_bytes(), self.from.to_be_bytes()].concat();
        let segment = [ports, self.ack.wrapping_add(seq as u32).to_be_bytes().to_vec()].concat();
        let [m0, m1] = mtu.to_be_bytes();
        if as_v4(&self.ip).is_some() {
            let mut message = [&[3, code, 0, 0, 0, 0, m0, m1], &ipv4(6, OUR_IP, PEER_IP, &segment)[..]].concat();
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            [&OUR_MAC[..], &PEER_MAC[..], &[8, 0], &ipv4(1, PEER_IP, OUR_IP, &message)].concat()
        } else {
            let kind = if code.is_multiple_of(2) { 2 } else { 1 };
            let mut message = [&[kind, code / 2, 0, 0, 0, 0, m0, m1], &ipv6(6, OUR_IP6, PEER_IP6, &segment)[..]].concat();
            let sum = pseudo_header(&PEER_IP6, &OUR_IP6, ip_proto::ICMPV6, message.len() as u32).bytes(&message).finish();
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            [&OUR_MAC[..], &PEER_MAC[..], &[0x86, 0xdd], &ipv6(ip_proto::ICMPV6, PEER_IP6, OUR_IP6, &message)].concat()
        }
    }
}

fn ipv4(proto: u8, src: [u8; 4], dst: [u8; 4], body: &[u8]) -> Vec<u8> {
    let len = 20 + body.len() as u8;
    let mut header = [&[0x45, 0, 0, len, 0, 0, 0x40, 0, 64, proto, 0, 0], &src[..], &dst[..]].concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header, body].concat()
}

fn ipv6(proto: u8, src: [u8; 16], dst: [u8; 16], body: &[u8]) -> Vec<u8> {
    [&[0x60, 0, 0, 0, 0, body.len() as u8, proto, 64], &src[..], &dst[..], body].concat()
}
