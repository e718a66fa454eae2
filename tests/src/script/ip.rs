//! The IP layer of the peer's packets, in both versions: headers, checksums, ICMP errors, and the answers that neighbours expect.

use super::ast::{IcmpError, IpFields, IpVersion, Marks, TTL};
use etherparse::checksum::Sum16BitWords;
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpEcn, IpFragOffset,
    IpNumber, Ipv4Header, Ipv4Options, Ipv6FragmentHeader, Ipv6Header, NetSlice, SlicedPacket, TcpHeader, TransportSlice,
};
use std::net::IpAddr;

pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OUR_V4: [u8; 4] = [10, 0, 0, 1];
const PEER_V4: [u8; 4] = [10, 0, 0, 2];
const OUR_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const PEER_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// Of neighbour discovery (RFC 4861, 7.1).
const ND_HOP_LIMIT: u8 = 255;
const ETHERNET_LEN: usize = 14;

impl IpVersion {
    /// As the stack's interfaces have them: 16 bytes, IPv4-mapped.
    pub fn our_ip(self) -> [u8; 16] {
        match self {
            Self::V4 => toe_abi::flow::v4_mapped(OUR_V4),
            Self::V6 => OUR_V6,
        }
    }

    pub fn peer_ip(self) -> [u8; 16] {
        match self {
            Self::V4 => toe_abi::flow::v4_mapped(PEER_V4),
            Self::V6 => PEER_V6,
        }
    }

    /// Length of the prefix that both are on.
    pub fn prefix(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 64,
        }
    }

    /// Bytes by which its header is longer than IPv4's. Scripts give the MTU of IPv4, so that segments are as long in both.
    pub fn extra(self) -> u16 {
        match self {
            Self::V4 => 0,
            Self::V6 => 20,
        }
    }

    fn ethernet(self, to: [u8; 6]) -> Vec<u8> {
        let ether_type = if self == Self::V4 { EtherType::IPV4 } else { EtherType::IPV6 };
        Ethernet2Header { source: PEER_MAC, destination: to, ether_type }.to_bytes().to_vec()
    }

    /// A frame with a TCP segment of the peer's, whose checksum is put in.
    pub fn tcp(self, marks: &Marks, mut tcp: Vec<u8>) -> Vec<u8> {
        let (header, pseudo) = self.header(marks, IpNumber::TCP, tcp.len());
        let sum = pseudo.add_slice(&tcp).ones_complement().to_ne_bytes();
        tcp[16..18].copy_from_slice(&sum);
        if marks.bad_checksum {
            tcp[16] ^= 0x55;
        }
        let mut frame = self.ethernet(OUR_MAC);
        frame.extend(header);
        frame.extend(tcp);
        if let Some(len) = marks.cut {
            frame.truncate(ETHERNET_LEN + usize::from(len));
        }
        frame
    }

    /// A frame with a packet of the peer's as fragments of so many bytes of its payload.
    pub fn fragments(self, frame: &[u8], len: usize) -> Vec<Vec<u8>> {
        const IDENT: u16 = 77;
        let (headers, payload) = frame.split_at(ETHERNET_LEN + if self == Self::V4 { Ipv4Header::MIN_LEN } else { Ipv6Header::LEN });
        let (ethernet, ip) = headers.split_at(ETHERNET_LEN);
        let fragment = |(n, bytes): (usize, &[u8])| {
            let offset = IpFragOffset::try_new((n * len / 8) as u16).expect("scripts have no packets that long");
            let more_fragments = (n + 1) * len < payload.len();
            let header = match self {
                Self::V4 => {
                    let (mut ip, _) = Ipv4Header::from_slice(ip).expect("a header of ours");
                    (ip.identification, ip.fragment_offset, ip.more_fragments, ip.dont_fragment) = (IDENT, offset, more_fragments, false);
                    ip.set_payload_len(bytes.len()).expect("shorter than it was");
                    ip.header_checksum = ip.calc_header_checksum();
                    ip.to_bytes().to_vec()
                }
                Self::V6 => {
                    let (mut ip, _) = Ipv6Header::from_slice(ip).expect("a header of ours");
                    let place = Ipv6FragmentHeader::new(ip.next_header, offset, more_fragments, IDENT.into());
                    ip.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
                    ip.payload_length = (Ipv6FragmentHeader::LEN + bytes.len()) as u16;
                    [ip.to_bytes().as_slice(), &place.to_bytes()].concat()
                }
            };
            [ethernet, &header, bytes].concat()
        };
        payload.chunks(len).enumerate().map(fragment).collect()
    }

    /// The header of a packet from the peer to us, and the sum of its pseudo-header.
    fn header(self, marks: &Marks, proto: IpNumber, payload: usize) -> (Vec<u8>, Sum16BitWords) {
        let sum = Sum16BitWords::new().add_2bytes([0, proto.0]).add_2bytes((payload as u16).to_be_bytes());
        match self {
            Self::V4 => {
                let ip = v4_header(marks, proto, payload);
                (ip.to_bytes().to_vec(), sum.add_slice(&ip.source).add_slice(&ip.destination))
            }
            Self::V6 => {
                let v6 = |mark: Option<IpAddr>, usual| if let Some(IpAddr::V6(a)) = mark { a.octets() } else { usual };
                let ip = v6_header(v6(marks.src, PEER_V6), v6(marks.dst, OUR_V6), proto, TTL, payload, marks.ecn);
                (ip.to_bytes().to_vec(), sum.add_slice(&ip.source).add_slice(&ip.destination))
            }
        }
    }

    /// An ICMP error of the peer's that quotes a packet of ours with these first bytes of TCP header.
    pub fn icmp(self, e: &IcmpError, tcp_start: &[u8]) -> Vec<u8> {
        let mut frame = self.ethernet(OUR_MAC);
        let quoted_len = 20 + e.len as usize;
        match self {
            Self::V4 => {
                let mut quoted = Ipv4Header::new(quoted_len as u16, TTL, IpNumber::TCP, OUR_V4, PEER_V4).expect("a segment's length");
                quoted.header_checksum = quoted.calc_header_checksum();
                let body = [quoted.to_bytes().as_slice(), tcp_start].concat();
                let [m0, m1] = e.mtu.to_be_bytes();
                let kind = Icmpv4Type::Unknown { type_u8: e.kind, code_u8: e.code, bytes5to8: [0, 0, m0, m1] };
                let header = Icmpv4Header::with_checksum(kind, &body).to_bytes();
                frame.extend(v4_header(&Marks::default(), IpNumber::ICMP, header.len() + body.len()).to_bytes());
                frame.extend([header.as_slice(), &body].concat());
            }
            Self::V6 => {
                let quoted = v6_header(OUR_V6, PEER_V6, IpNumber::TCP, TTL, quoted_len, 0);
                let body = [quoted.to_bytes().as_slice(), tcp_start].concat();
                frame.extend(icmpv6(OUR_V6, TTL, v6_error(e), &body));
            }
        }
        frame
    }
}

fn v4_header(marks: &Marks, proto: IpNumber, payload: usize) -> Ipv4Header {
    let v4 = |mark: Option<IpAddr>, usual| if let Some(IpAddr::V4(a)) = mark { a.octets() } else { usual };
    let (src, dst) = (v4(marks.src, PEER_V4), v4(marks.dst, OUR_V4));
    let mut ip = Ipv4Header::new(0, TTL, proto, src, dst).expect("nothing fits");
    ip.ecn = IpEcn::try_new(marks.ecn).expect("two bits");
    ip.options = Ipv4Options::try_from(marks.ip_options.as_slice()).expect("the parser knows that there are at most 40 bytes, in fours");
    ip.set_payload_len(payload).expect("scripts have no packets that long");
    ip.header_checksum = ip.calc_header_checksum() ^ if marks.bad_ip_checksum { 0x5555 } else { 0 };
    ip
}

fn v6_header(source: [u8; 16], destination: [u8; 16], next_header: IpNumber, hop_limit: u8, payload: usize, ecn: u8) -> Ipv6Header {
    let payload_length = payload as u16;
    Ipv6Header { traffic_class: ecn, payload_length, next_header, hop_limit, source, destination, ..Ipv6Header::default() }
}

/// An ICMPv6 message of the peer's, with its IP header.
fn icmpv6(to: [u8; 16], hop_limit: u8, kind: Icmpv6Type, body: &[u8]) -> Vec<u8> {
    let header = Icmpv6Header::with_checksum(kind, PEER_V6, to, body).expect("short enough").to_bytes();
    let ip = v6_header(PEER_V6, to, IpNumber::IPV6_ICMP, hop_limit, header.len() + body.len(), 0);
    [ip.to_bytes().as_slice(), header.as_slice(), body].concat()
}

/// What ICMPv6 says for an error of ICMP (RFC 7915, 4.2).
fn v6_error(e: &IcmpError) -> Icmpv6Type {
    let (type_u8, code_u8) = match (e.kind, e.code) {
        (3, 4) => (2, 0),
        (3, 0 | 5 | 6) => (1, 0),
        (3, 2) => (4, 1),
        (3, 3) => (1, 4),
        (3, 9 | 10 | 13) => (1, 1),
        (3, _) => (1, 3),
        (11, code) => (3, code),
        _ => (4, 0),
    };
    let mtu = if type_u8 == 2 { u32::from(e.mtu.saturating_add(IpVersion::V6.extra())) } else { 0 };
    Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8: mtu.to_be_bytes() }
}

/// What a frame of the stack's is, below TCP.
pub enum Below {
    /// It asks for the peer's MAC address: the answer.
    Asks(Vec<u8>),
    /// Business of the link that scripts do not look at: solicitations for addresses of its own, for routers, listener reports.
    Link,
    Other,
}

/// Looks at a frame that is no TCP.
pub fn below(frame: &[u8]) -> Below {
    let Ok(sliced) = SlicedPacket::from_ethernet(frame) else { return Below::Other };
    match (&sliced.net, &sliced.transport) {
        (Some(NetSlice::Arp(arp)), _) => match arp.to_packet().try_eth_ipv4() {
            Ok(asked) if asked.operation == ArpOperation::REQUEST && asked.target_ipv4 == PEER_V4 => Below::Asks(arp_answer(&asked)),
            _ => Below::Link,
        },
        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
            let solicitation = icmp.type_u8() == 135 && icmp.payload().get(..16) == Some(&PEER_V6);
            if solicitation { Below::Asks(advertisement(ip.header().source())) } else { Below::Link }
        }
        _ => Below::Other,
    }
}

fn arp_answer(asked: &ArpEthIpv4Packet) -> Vec<u8> {
    let answer = ArpEthIpv4Packet {
        operation: ArpOperation::REPLY,
        sender_mac: PEER_MAC,
        sender_ipv4: PEER_V4,
        target_mac: asked.sender_mac,
        target_ipv4: asked.sender_ipv4,
    };
    let header = Ethernet2Header { source: PEER_MAC, destination: asked.sender_mac, ether_type: EtherType::ARP };
    [header.to_bytes().as_slice(), answer.to_bytes().as_slice()].concat()
}

/// A neighbour advertisement, solicited, overriding, with the target's link-layer address (RFC 4861, 4.4).
fn advertisement(to: [u8; 16]) -> Vec<u8> {
    let kind = Icmpv6Type::Unknown { type_u8: 136, code_u8: 0, bytes5to8: [0x60, 0, 0, 0] };
    let body = [PEER_V6.as_slice(), &[2, 1], &PEER_MAC].concat();
    let mut frame = IpVersion::V6.ethernet(OUR_MAC);
    frame.extend(icmpv6(to, ND_HOP_LIMIT, kind, &body));
    frame
}

/// A TCP segment that the stack has sent.
pub struct SentTcp<'a> {
    pub ip: IpFields,
    pub tcp: TcpHeader,
    pub payload: &'a [u8],
}

/// Reads a frame of the stack's, and checks what holds for every one: addresses, DF, checksums, reserved bits.
/// `csum_ok`: the TCP checksum is the port's to finish.
pub fn read(version: IpVersion, frame: &[u8], csum_ok: bool) -> Result<SentTcp<'_>, String> {
    let sliced = SlicedPacket::from_ethernet(frame).map_err(|e| format!("a frame that cannot be read: {e}"))?;
    let (Some(net), Some(TransportSlice::Tcp(tcp))) = (&sliced.net, &sliced.transport) else {
        return Err(format!("a frame that is not TCP: {frame:02x?}"));
    };
    let (ip, sum, ip_ok) = match (version, net) {
        (IpVersion::V4, NetSlice::Ipv4(ip)) => {
            let ip = ip.header();
            let whole = ip.dont_fragment() && !ip.more_fragments() && ip.fragments_offset().value() == 0;
            let sum = tcp.calc_checksum_ipv4(ip.source(), ip.destination()).map_err(|e| e.to_string())?;
            let ours = ip.source() == OUR_V4 && ip.destination() == PEER_V4;
            let right = ip.header_checksum() == ip.to_header().calc_header_checksum();
            (IpFields { ecn: ip.ecn().value(), tos: ip.dcp().value() << 2, ttl: ip.ttl() }, sum, ours && whole && right)
        }
        (IpVersion::V6, NetSlice::Ipv6(ip)) => {
            let ip = ip.header();
            let sum = tcp.calc_checksum_ipv6(ip.source(), ip.destination()).map_err(|e| e.to_string())?;
            let ours = ip.source() == OUR_V6 && ip.destination() == PEER_V6;
            (IpFields { ecn: ip.traffic_class() & 3, tos: ip.traffic_class() & !3, ttl: ip.hop_limit() }, sum, ours)
        }
        _ => return Err(format!("a packet of the other version of IP: {frame:02x?}")),
    };
    let rules = [
        (ip_ok, "IP header"),
        (csum_ok || tcp.checksum() == sum, "TCP checksum"),
        (tcp.slice()[12] & 15 == 0, "reserved bits"),
        (tcp.urg() || tcp.urgent_pointer() == 0, "urgent pointer"),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err(format!("a segment with bad {what}: {frame:02x?}")),
        None => Ok(SentTcp { ip, tcp: tcp.to_header(), payload: tcp.payload() }),
    }
}
