//! One look at a received frame: everything that the data path wants to know of it.

use crate::ipv4::{self, Ip, Span, ip_proto};
use crate::{Ethernet, FrameError, Segment, Tcp, TcpFlags, TcpOptions, TcpTuple, bytes, ethertype};

/// A received frame. Byte ranges are those of the whole frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    pub eth: Ethernet,
    pub payload: Payload,
}

/// What is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// Its packet: see [`Arp::parse`](crate::Arp::parse).
    Arp(Span),
    Ipv4(Packet),
    Ipv6(Packet),
    /// Not ours; [`Ethernet::ethertype`] says what.
    Other,
}

/// An IP packet, and its TCP segment if it holds a whole one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    pub ip: Ip,
    /// `None`: another protocol, or a fragment.
    pub tcp: Option<Tcp>,
}

/// Parses a frame from the destination MAC address on, without FCS, up to 64 KiB and headers.
///
/// Lengths, the IPv4 header checksum, IPv6 extension headers and TCP options have been checked when it succeeds; the TCP checksum has not.
#[inline]
pub fn parse_frame(frame: &[u8]) -> Result<Frame, FrameError> {
    let eth = Ethernet::parse(frame)?;
    let at = usize::from(eth.len);
    let payload = match eth.ethertype {
        ethertype::IPV4 => Payload::Ipv4(Packet::of(frame, Ip::parse(frame, at)?)?),
        ethertype::IPV6 => Payload::Ipv6(Packet::of(frame, Ip::parse_v6(frame, at)?)?),
        ethertype::ARP => Payload::Arp(Span::new(at, frame.len())),
        _ => Payload::Other,
    };
    Ok(Frame { eth, payload })
}

impl Packet {
    #[inline]
    fn of(frame: &[u8], ip: Ip) -> Result<Self, FrameError> {
        let whole_tcp = ip.proto == ip_proto::TCP && !ip.fragment;
        let tcp = if whole_tcp { Some(Tcp::parse(frame, ip.payload)?) } else { None };
        Ok(Self { ip, tcp })
    }
}

/// Addresses (those of IPv4 mapped) and ports of a TCP segment, source first: enough to say whose it is, a few loads and no checks. Whatever
/// [`parse_frame`] takes for a whole TCP segment has one, and it is the same; that other frames may have one as well does no harm.
#[inline]
pub fn tcp_tuple(frame: &[u8]) -> Option<TcpTuple> {
    let eth = Ethernet::parse(frame).ok()?;
    match eth.ethertype {
        ethertype::IPV4 => {}
        ethertype::IPV6 => return tcp_tuple_v6(frame, eth.len.into()),
        _ => return None,
    }
    let ip = usize::from(eth.len);
    let fixed: [u8; ipv4::HEADER_LEN] = bytes::array(frame, ip)?;
    let [version_ihl, _, _, _, _, _, f0, f1, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = fixed;
    if version_ihl >> 4 != 4 || proto != ip_proto::TCP || u16::from_be_bytes([f0, f1]) & ipv4::FRAGMENT != 0 {
        return None;
    }
    let ports = bytes::be32(frame, ip + usize::from(version_ihl & 15) * 4)?;
    Some(TcpTuple {
        src_ip: ipv4::mapped([s0, s1, s2, s3]),
        dst_ip: ipv4::mapped([d0, d1, d2, d3]),
        src_port: (ports >> 16) as u16,
        dst_port: ports as u16,
    })
}

fn tcp_tuple_v6(frame: &[u8], at: usize) -> Option<TcpTuple> {
    let ip = Ip::parse_v6(frame, at).ok().filter(|ip| ip.proto == ip_proto::TCP && !ip.fragment)?;
    let ports = bytes::be32(ip.payload.of(frame), 0)?;
    Some(TcpTuple { src_ip: ip.src, dst_ip: ip.dst, src_port: (ports >> 16) as u16, dst_port: ports as u16 })
}

impl Frame {
    /// The IP and TCP headers, if the frame holds a whole TCP segment.
    #[inline]
    pub fn tcp(&self) -> Option<(&Ip, &Tcp)> {
        match &self.payload {
            Payload::Ipv4(Packet { ip, tcp: Some(tcp) }) | Payload::Ipv6(Packet { ip, tcp: Some(tcp) }) => Some((ip, tcp)),
            _ => None,
        }
    }

    /// The TCP segment that the frame holds, if it holds a whole one. `frame` is what this was parsed from.
    pub fn segment(&self, frame: &[u8]) -> Option<Segment> {
        self.tcp().map(|(ip, tcp)| Segment {
            tuple: TcpTuple { src_ip: ip.src, dst_ip: ip.dst, src_port: tcp.src_port, dst_port: tcp.dst_port },
            vlan: self.eth.vlan_id(),
            seq: tcp.seq,
            ack: tcp.ack,
            flags: tcp.flags,
            window: tcp.window,
            urgent: if tcp.flags.contains(TcpFlags::URG) { tcp.urgent } else { 0 },
            timestamps: tcp.timestamps,
            sack: tcp.sack(frame),
            ce: ip.is_ce(),
            tcp_at: tcp.header.start as u16,
            payload: tcp.payload,
        })
    }

    /// Whether the TCP checksum is right. `frame` is what this was parsed from. `false` also if there is no TCP segment.
    pub fn tcp_checksum_ok(&self, frame: &[u8]) -> bool {
        self.segment(frame).is_some_and(|segment| segment.checksum_ok(frame))
    }

    /// All TCP options. `frame` is what this was parsed from.
    pub fn tcp_options(&self, frame: &[u8]) -> TcpOptions {
        // parse_frame has refused malformed options.
        self.tcp().and_then(|(_, tcp)| TcpOptions::parse(tcp.options.of(frame)).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_parses_as_a_segment_has_the_same_tuple(mut frame in prop::collection::vec(any::<u8>(), 34..120), vlan in any::<bool>(), ihl in 5u8..8) {
            let at = if vlan { 18 } else { 14 };
            frame.resize(frame.len() + at + 40, 0);
            frame[12..14].copy_from_slice(if vlan { &[0x81, 0] } else { &[8, 0] });
            frame[at - 2..at].copy_from_slice(&[8, 0]);
            let len = (frame.len() - at) as u16;
            frame[at] = 0x40 | ihl;
            frame[at + 2..at + 4].copy_from_slice(&len.to_be_bytes());
            frame[at + 6..at + 8].copy_from_slice(&[0x40, 0]);
            frame[at + 9] = 6;
            frame[at + 10..at + 12].copy_from_slice(&[0, 0]);
            let header = at + usize::from(ihl) * 4;
            let sum = crate::checksum::checksum(&frame[at..header]);
            frame[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
            frame[header + 12] = 0x50;
            let parsed = parse_frame(&frame).unwrap();
            let (ip, tcp) = parsed.tcp().unwrap();
            let tuple = TcpTuple { src_ip: ip.src, dst_ip: ip.dst, src_port: tcp.src_port, dst_port: tcp.dst_port };
            prop_assert_eq!(tcp_tuple(&frame), Some(tuple));
        }

        #[test]
        fn no_frame_panics(frame in prop::collection::vec(any::<u8>(), 0..80)) {
            let tuple = tcp_tuple(&frame);
            if let Ok(parsed) = parse_frame(&frame) && parsed.tcp().is_some() {
                prop_assert!(tuple.is_some());
            }
        }
    }
}
