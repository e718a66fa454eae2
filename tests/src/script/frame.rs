//! Frames of the peer, and frames of the stack: made and read by etherparse, so that a mistake in `toe-wire` cannot hide.

use super::ast::{ACK, CWR, ECE, FIN, Flags, IcmpError, Marks, PSH, RST, SYN, Segment, URG};
use super::option;
use super::space::Space;
use crate::sim::stream::byte;
use etherparse::checksum::Sum16BitWords;
use etherparse::{
    ArpOperation, EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, IpEcn, IpNumber, Ipv4Header, Ipv4Options, NetSlice, SlicedPacket,
    TcpHeader, TransportSlice,
};

pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const OUR_IP: [u8; 4] = [10, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const PEER_IP: [u8; 4] = [10, 0, 0, 2];
const TTL: u8 = 64;
const ETHERNET_LEN: usize = 14;

/// Directions of [`byte`].
pub const FROM_US: u8 = 0;
pub const FROM_PEER: u8 = 1;

/// Position in the stream of a segment's first byte, by the script's numbers.
fn position(segment: &Segment) -> u64 {
    segment.seq.wrapping_sub(u32::from(!segment.flags.has(SYN))).into()
}

fn ethernet(out: &mut Vec<u8>) {
    let header = Ethernet2Header { source: PEER_MAC, destination: OUR_MAC, ether_type: EtherType::IPV4 };
    out.extend(header.to_bytes());
}

/// The IP header of a packet of the peer's; `marks` say what is special about it.
fn ipv4(proto: IpNumber, marks: &Marks, payload: usize) -> Ipv4Header {
    let (src, dst) = (marks.src.unwrap_or(PEER_IP), marks.dst.unwrap_or(OUR_IP));
    let mut ip = Ipv4Header::new(0, TTL, proto, src, dst).expect("nothing fits");
    ip.ecn = IpEcn::try_new(marks.ecn).expect("two bits");
    ip.options = Ipv4Options::try_from(marks.ip_options.as_slice()).expect("the parser knows that there are at most 40 bytes, in fours");
    ip.set_payload_len(payload).expect("scripts have no packets that long");
    ip.header_checksum = ip.calc_header_checksum() ^ if marks.bad_ip_checksum { 0x5555 } else { 0 };
    ip
}

/// A segment of the peer's.
pub fn segment(space: &Space, marks: &Marks, s: &Segment) -> Vec<u8> {
    let mut tcp = header(space, s).to_bytes().to_vec();
    if let Some(offset) = marks.data_offset {
        tcp[12] = offset << 4 | tcp[12] & 15;
    }
    tcp[12] |= marks.reserved;
    let first = position(s);
    tcp.extend((0..u64::from(s.len)).map(|i| byte(FROM_PEER, first + i)));
    let ip = ipv4(IpNumber::TCP, marks, tcp.len());
    let sum = pseudo_header(&ip, tcp.len()).add_slice(&tcp).ones_complement().to_ne_bytes();
    tcp[16..18].copy_from_slice(&sum);
    if marks.bad_checksum {
        tcp[16] ^= 0x55;
    }
    let mut frame = Vec::new();
    ethernet(&mut frame);
    frame.extend(ip.to_bytes());
    frame.extend(tcp);
    if let Some(len) = marks.cut {
        frame.truncate(ETHERNET_LEN + usize::from(len));
    }
    frame
}

fn pseudo_header(ip: &Ipv4Header, tcp_len: usize) -> Sum16BitWords {
    let mut sum = Sum16BitWords::new();
    sum = sum.add_4bytes(ip.source);
    sum = sum.add_4bytes(ip.destination);
    sum.add_2bytes([0, IpNumber::TCP.0]).add_2bytes((tcp_len as u16).to_be_bytes())
}

fn header(space: &Space, s: &Segment) -> TcpHeader {
    let mut tcp = TcpHeader::new(space.peer_port, space.local_port, space.peer_seq_to_wire(s.seq), s.window.unwrap_or_default());
    tcp.acknowledgment_number = s.ack.map_or(0, |ack| space.seq_to_wire(ack));
    tcp.urgent_pointer = s.urgent.unwrap_or_default();
    let f = s.flags;
    (tcp.fin, tcp.syn, tcp.rst, tcp.psh) = (f.has(FIN), f.has(SYN), f.has(RST), f.has(PSH));
    (tcp.ack, tcp.urg, tcp.ece, tcp.cwr) = (f.has(ACK), f.has(URG), f.has(ECE), f.has(CWR));
    let options = option::encode(&space.options_to_wire(s.options.as_deref().unwrap_or_default()));
    tcp.set_options_raw(&options).expect("the parser knows that there are at most 40 bytes");
    tcp
}

/// An ICMP error about a segment of the stack's.
pub fn icmp(space: &Space, e: &IcmpError) -> Vec<u8> {
    let mut quoted = Ipv4Header::new((20 + e.len) as u16, TTL, IpNumber::TCP, OUR_IP, PEER_IP).expect("a segment's length");
    quoted.header_checksum = quoted.calc_header_checksum();
    let mut body = quoted.to_bytes().to_vec();
    body.extend(space.local_port.to_be_bytes());
    body.extend(space.peer_port.to_be_bytes());
    body.extend(space.seq_to_wire(e.seq).to_be_bytes());
    let [m0, m1] = e.mtu.to_be_bytes();
    let kind = Icmpv4Type::Unknown { type_u8: e.kind, code_u8: e.code, bytes5to8: [0, 0, m0, m1] };
    let header = Icmpv4Header::with_checksum(kind, &body);
    let mut frame = Vec::new();
    ethernet(&mut frame);
    frame.extend(ipv4(IpNumber::ICMP, &Marks::default(), header.header_len() + body.len()).to_bytes());
    frame.extend(header.to_bytes());
    frame.extend(body);
    frame
}

/// The answer to an ARP request for the peer; `None`: the frame is no such request.
pub fn arp_answer(frame: &[u8]) -> Option<Vec<u8>> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(NetSlice::Arp(arp)) = sliced.net else { return None };
    let asked = arp.to_packet().try_eth_ipv4().ok().filter(|a| a.operation == ArpOperation::REQUEST && a.target_ipv4 == PEER_IP)?;
    let answer = etherparse::ArpEthIpv4Packet {
        operation: ArpOperation::REPLY,
        sender_mac: PEER_MAC,
        sender_ipv4: PEER_IP,
        target_mac: asked.sender_mac,
        target_ipv4: asked.sender_ipv4,
    };
    let header = Ethernet2Header { source: PEER_MAC, destination: asked.sender_mac, ether_type: EtherType::ARP };
    let mut out = header.to_bytes().to_vec();
    out.extend(answer.to_bytes());
    Some(out)
}

/// A segment that the stack has sent: with the wire's numbers.
#[derive(Debug)]
pub struct Sent {
    pub local_port: u16,
    pub peer_port: u16,
    pub ecn: u8,
    pub segment: Segment,
    pub payload: Vec<u8>,
}

/// Reads a frame of the stack's, and checks what holds for every one: addresses, TTL, DF, checksums, reserved bits.
/// `csum_ok`: checksums are the port's to finish.
pub fn read(frame: &[u8], csum_ok: bool) -> Result<Sent, String> {
    let sliced = SlicedPacket::from_ethernet(frame).map_err(|e| format!("a frame that cannot be read: {e}"))?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (&sliced.net, &sliced.transport) else {
        return Err(format!("a frame that is not TCP over IPv4: {frame:02x?}"));
    };
    let ip = ip.header();
    let sum = tcp.calc_checksum_ipv4(ip.source(), ip.destination()).map_err(|e| e.to_string())?;
    let rules = [
        (ip.source() == OUR_IP && ip.destination() == PEER_IP, "addresses"),
        (ip.ttl() == TTL, "TTL"),
        (ip.dont_fragment() && !ip.more_fragments() && ip.fragments_offset().value() == 0, "fragmentation"),
        (ip.header_checksum() == ip.to_header().calc_header_checksum(), "IP checksum"),
        (csum_ok || tcp.checksum() == sum, "TCP checksum"),
        (tcp.slice()[12] & 15 == 0, "reserved bits"),
        (tcp.urg() || tcp.urgent_pointer() == 0, "urgent pointer"),
    ];
    if let Some((_, what)) = rules.iter().find(|(holds, _)| !holds) {
        return Err(format!("a segment with bad {what}: {frame:02x?}"));
    }
    let flags = Flags(tcp.slice()[13]);
    let segment = Segment {
        flags,
        seq: tcp.sequence_number(),
        len: tcp.payload().len() as u32,
        ack: flags.has(ACK).then(|| tcp.acknowledgment_number()),
        window: Some(tcp.window_size()),
        urgent: flags.has(URG).then(|| tcp.urgent_pointer()),
        options: Some(option::decode(tcp.options())),
    };
    let (local_port, peer_port) = (tcp.source_port(), tcp.destination_port());
    Ok(Sent { local_port, peer_port, ecn: ip.ecn().value(), segment, payload: tcp.payload().to_vec() })
}

/// Whether payload is what the application has written there. `segment`: in the script's numbers.
pub fn payload_ok(segment: &Segment, payload: &[u8]) -> bool {
    let first = position(segment);
    payload.iter().zip(first..).all(|(&b, at)| b == byte(FROM_US, at))
}
