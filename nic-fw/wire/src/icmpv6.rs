//! ICMPv6 (RFC 4443): echo, errors that quote a TCP segment; neighbour discovery is in [`nd`](crate::nd), multicast listener discovery
//! in [`mld`](crate::mld).

use crate::bytes;
use crate::checksum::pseudo_header;
use crate::icmp::Quoted;
use crate::ipv4::{Ip, ip_proto};
use crate::ipv6;
use crate::mld::Query;
use crate::nd::Nd;

/// Types of message.
pub mod icmpv6_type {
    pub const DEST_UNREACHABLE: u8 = 1;
    pub const PACKET_TOO_BIG: u8 = 2;
    pub const TIME_EXCEEDED: u8 = 3;
    pub const PARAMETER_PROBLEM: u8 = 4;
    pub const ECHO_REQUEST: u8 = 128;
    pub const ECHO_REPLY: u8 = 129;
}
/// Code of DEST_UNREACHABLE: nobody listens there.
pub const CODE_PORT: u8 = 4;

/// A message with a valid checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Icmpv6<'a> {
    EchoRequest {
        ident: u16,
        seq: u16,
        data: &'a [u8],
    },
    /// An error about a TCP segment.
    Error {
        kind: u8,
        code: u8,
        /// Of PACKET_TOO_BIG, else 0.
        mtu: u32,
        quoted: Quoted,
    },
    Nd(Nd<'a>),
    /// Who listens to which group?
    Query(Query),
    /// Neighbour discovery that breaks its rules: not from this link, or malformed (RFC 4861, 6.1 and 7.1).
    BadNd,
    /// Anything else.
    Other,
}

impl<'a> Icmpv6<'a> {
    /// Parses the payload of `ip`, a packet in `frame`. `None`: truncated, or its checksum is wrong.
    pub fn parse(ip: &Ip, frame: &'a [u8]) -> Option<Self> {
        let message = ip.payload.of(frame);
        let [kind, code, _, _, r0, r1, r2, r3] = bytes::array(message, 0)?;
        if !pseudo_header(&ip.src, &ip.dst, ip_proto::ICMPV6, message.len() as u32).bytes(message).is_valid() {
            return None;
        }
        let body = message.get(8..)?;
        Some(match kind {
            icmpv6_type::ECHO_REQUEST => {
                Icmpv6::EchoRequest { ident: u16::from_be_bytes([r0, r1]), seq: u16::from_be_bytes([r2, r3]), data: body }
            }
            icmpv6_type::DEST_UNREACHABLE | icmpv6_type::PACKET_TOO_BIG | icmpv6_type::TIME_EXCEEDED | icmpv6_type::PARAMETER_PROBLEM => {
                let mtu = if kind == icmpv6_type::PACKET_TOO_BIG { u32::from_be_bytes([r0, r1, r2, r3]) } else { 0 };
                quoted(body).map_or(Icmpv6::Other, |quoted| Icmpv6::Error { kind, code, mtu, quoted })
            }
            _ if Query::is(kind) => Query::parse(ip, message).map_or(Icmpv6::Other, Icmpv6::Query),
            _ if Nd::is(kind) => Nd::parse(ip, message).map_or(Icmpv6::BadNd, Icmpv6::Nd),
            _ => Icmpv6::Other,
        })
    }
}

/// RFC 4443, 2.4 (c): as much of the packet as fits; we need ports and sequence number.
fn quoted(body: &[u8]) -> Option<Quoted> {
    let (proto, src, dst) = ipv6::parse_quoted(body)?;
    if proto != ip_proto::TCP {
        return None;
    }
    Quoted::of(src, dst, body, ipv6::HEADER_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::icmp::{Envelope, echo_reply, port_unreachable};
    use crate::{Payload, SeqNum, TooLong, parse_frame};
    use proptest::prelude::*;
    use std::vec::Vec;

    const US: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const PEER: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    const TO: Envelope = Envelope { dst_mac: [2; 6], src_mac: [4; 6], vlan: None, src: US, dst: PEER, ttl: 64 };

    fn ip_of(frame: &[u8]) -> Ip {
        let Payload::Ipv6(packet) = parse_frame(frame).unwrap().payload else { panic!("not IPv6") };
        packet.ip
    }

    /// `message` as the payload of a packet to us, its checksum filled in.
    fn received(mut message: Vec<u8>) -> (Ip, Vec<u8>) {
        if message.len() >= 4 {
            message[2..4].fill(0);
            let sum = pseudo_header(&PEER, &US, ip_proto::ICMPV6, message.len() as u32).bytes(&message).finish();
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        let mut frame = std::vec![0; ipv6::HEADER_LEN];
        let out =
            ipv6::Outgoing { src: PEER, dst: US, class: 0, hop_limit: 255, proto: ip_proto::ICMPV6, payload_len: message.len() as u16 };
        ipv6::write(&mut bytes::Writer::new(&mut frame), &out);
        frame.extend(message);
        (Ip::parse_v6(&frame, 0).unwrap(), frame)
    }

    fn too_big(mtu: u32, proto: u8, tcp: &[u8]) -> Vec<u8> {
        let mut m = std::vec![2, 0, 0, 0];
        m.extend(mtu.to_be_bytes());
        let mut quoted = [0; ipv6::HEADER_LEN];
        let out = ipv6::Outgoing { src: US, dst: PEER, class: 0, hop_limit: 3, proto, payload_len: 9000 };
        ipv6::write(&mut bytes::Writer::new(&mut quoted), &out);
        m.extend(quoted);
        m.extend(tcp);
        m
    }

    #[test]
    fn too_big_quotes_the_segment() {
        let tcp = [0x1f, 0x90, 0, 80, 1, 2, 3, 4];
        let (ip, frame) = received(too_big(1400, 6, &tcp));
        let quoted = Quoted { src: US, dst: PEER, src_port: 8080, dst_port: 80, seq: SeqNum(0x0102_0304) };
        assert_eq!(Icmpv6::parse(&ip, &frame), Some(Icmpv6::Error { kind: 2, code: 0, mtu: 1400, quoted }));
        for (proto, tcp) in [(6, &tcp[..7]), (17, &tcp[..])] {
            let (ip, frame) = received(too_big(1400, proto, tcp));
            assert_eq!(Icmpv6::parse(&ip, &frame), Some(Icmpv6::Other));
        }
    }

    #[test]
    fn the_checksum_covers_the_addresses() {
        let (ip, mut frame) = received(std::vec![128, 0, 0, 0, 0, 1, 0, 2]);
        assert_eq!(Icmpv6::parse(&ip, &frame), Some(Icmpv6::EchoRequest { ident: 1, seq: 2, data: &[] }));
        let other = Ip { dst: PEER, ..ip };
        assert_eq!(Icmpv6::parse(&other, &frame), None);
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(Icmpv6::parse(&ip, &frame), None);
    }

    #[test]
    fn port_unreachable_quotes_the_datagram() {
        let mut out = [0; 120];
        let len = port_unreachable(&TO, &[7; 48], &mut out).unwrap();
        let ip = ip_of(&out[..len]);
        let message = ip.payload.of(&out);
        assert_eq!((message[0], message[1], &message[8..]), (1, CODE_PORT, &[7; 48][..]));
        assert_eq!(Icmpv6::parse(&ip, &out[..len]), Some(Icmpv6::Other), "the checksum is right");
        assert_eq!(port_unreachable(&TO, &[7; 48], &mut out[..109]), Err(TooLong));
    }

    proptest! {
        #[test]
        fn echo_reply_is_whole(ident: u16, seq: u16, data in proptest::collection::vec(any::<u8>(), 0..200), vlan: Option<u16>) {
            let mut out = [0; 300];
            let len = echo_reply(&Envelope { vlan, ..TO }, ident, seq, &data, &mut out).unwrap();
            let frame = &out[..len];
            let ip = ip_of(frame);
            prop_assert_eq!((ip.src, ip.dst, ip.ttl), (US, PEER, 64));
            let message = ip.payload.of(frame);
            prop_assert_eq!((message[0], &message[8..]), (129, &data[..]));
            prop_assert_eq!(bytes::array(message, 4), Some([(ident >> 8) as u8, ident as u8, (seq >> 8) as u8, seq as u8]));
            prop_assert!(Icmpv6::parse(&ip, frame).is_some());
        }

        #[test]
        fn any_bytes(message in proptest::collection::vec(any::<u8>(), 0..150), kind in prop::sample::select(&[1u8, 2, 128, 133, 134, 135, 136, 137][..])) {
            let (ip, frame) = received(message.clone());
            prop_assert_eq!(Icmpv6::parse(&ip, &frame).is_some(), message.len() >= 8);
            let mut message = message;
            if let Some(first) = message.first_mut() {
                *first = kind;
            }
            let (ip, frame) = received(message);
            let _ = Icmpv6::parse(&ip, &frame);
        }
    }
}
