//! ICMP for IPv4 (RFC 792): echo, and errors that quote a TCP segment. What is sent, of both versions.

use crate::bytes::{self, Writer};
use crate::checksum::pseudo_header;
use crate::ethernet::{self, Mac, ethertype};
use crate::icmpv6::{self, icmpv6_type};
use crate::ipv4::{self, ip_proto, is_mapped, mapped, unmapped};
use crate::ipv6;
use crate::{SeqNum, Sum, TooLong};

/// Types of message.
pub mod icmp_type {
    pub const ECHO_REPLY: u8 = 0;
    pub const DEST_UNREACHABLE: u8 = 3;
    pub const ECHO_REQUEST: u8 = 8;
    pub const TIME_EXCEEDED: u8 = 11;
    pub const PARAMETER_PROBLEM: u8 = 12;
}
/// Code of DEST_UNREACHABLE: nobody listens there.
pub const CODE_PORT: u8 = 3;
/// Code of DEST_UNREACHABLE that carries an MTU (RFC 1191).
pub const CODE_FRAG_NEEDED: u8 = 4;

/// Code of TIME_EXCEEDED, of both versions: fragments did not come in time.
const CODE_REASSEMBLY: u8 = 1;

/// A message with a valid checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Icmp<'a> {
    EchoRequest {
        ident: u16,
        seq: u16,
        data: &'a [u8],
    },
    EchoReply {
        ident: u16,
        seq: u16,
        data: &'a [u8],
    },
    /// Destination unreachable, time exceeded or parameter problem about a TCP segment.
    Error {
        kind: u8,
        code: u8,
        mtu: Option<u16>,
        quoted: Quoted,
    },
    /// Anything else.
    Other {
        kind: u8,
        code: u8,
    },
}

/// The segment that an error is about, as we sent it: `src` is us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: SeqNum,
}

impl<'a> Icmp<'a> {
    /// Parses the payload of an IP packet. `None`: truncated, or its checksum is wrong.
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let [kind, code, _, _, r0, r1, r2, r3] = bytes::array(message, 0)?;
        if !Sum::new().bytes(message).is_valid() {
            return None;
        }
        let (ident, seq) = (u16::from_be_bytes([r0, r1]), u16::from_be_bytes([r2, r3]));
        let body = message.get(8..)?;
        Some(match kind {
            icmp_type::ECHO_REQUEST => Icmp::EchoRequest { ident, seq, data: body },
            icmp_type::ECHO_REPLY => Icmp::EchoReply { ident, seq, data: body },
            icmp_type::DEST_UNREACHABLE | icmp_type::TIME_EXCEEDED | icmp_type::PARAMETER_PROBLEM => match Quoted::parse(body) {
                Some(quoted) => {
                    let frag_needed = kind == icmp_type::DEST_UNREACHABLE && code == CODE_FRAG_NEEDED;
                    // RFC 1191, 4: the MTU is in the low half of the second word.
                    Icmp::Error { kind, code, mtu: frag_needed.then_some(seq), quoted }
                }
                None => Icmp::Other { kind, code },
            },
            _ => Icmp::Other { kind, code },
        })
    }
}

impl Quoted {
    /// RFC 792 promises the IP header and eight bytes: ports and sequence number.
    fn parse(body: &[u8]) -> Option<Self> {
        let (proto, src, dst, header_len) = ipv4::parse_quoted(body)?;
        if proto != ip_proto::TCP {
            return None;
        }
        Self::of(mapped(src), mapped(dst), body, header_len)
    }

    /// `at`: where the TCP header begins.
    pub(crate) fn of(src: [u8; 16], dst: [u8; 16], packet: &[u8], at: usize) -> Option<Self> {
        let (src_port, dst_port) = (bytes::be16(packet, at)?, bytes::be16(packet, at + 2)?);
        Some(Self { src, dst, src_port, dst_port, seq: SeqNum(bytes::be32(packet, at + 4)?) })
    }
}

/// Where a message goes, and from whom: by ICMP if the addresses are IPv4-mapped, else by ICMPv6.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    pub dst_mac: Mac,
    pub src_mac: Mac,
    pub vlan: Option<u16>,
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub ttl: u8,
}

/// Writes a whole frame that answers an echo request (RFC 1122, 3.2.2.6; RFC 4443, 4.2: with all its data); returns its length.
pub fn echo_reply(to: &Envelope, ident: u16, seq: u16, data: &[u8], out: &mut [u8]) -> Result<usize, TooLong> {
    let kind = if is_mapped(&to.dst) { icmp_type::ECHO_REPLY } else { icmpv6_type::ECHO_REPLY };
    message(to, [kind, 0], [ident, seq], data, out)
}

/// Writes a whole frame that says that nobody listens on a UDP port (RFC 1122, 4.1.3.1; RFC 4443, 3.1); returns its length.
/// `quoted`: the datagram, from its IP header on, at least that and eight bytes (RFC 792).
pub fn port_unreachable(to: &Envelope, quoted: &[u8], out: &mut [u8]) -> Result<usize, TooLong> {
    let v6 = [icmpv6_type::DEST_UNREACHABLE, icmpv6::CODE_PORT];
    let kind_code = if is_mapped(&to.dst) { [icmp_type::DEST_UNREACHABLE, CODE_PORT] } else { v6 };
    message(to, kind_code, [0, 0], quoted, out)
}

/// Writes a whole frame that says that not all fragments of a packet have come in time (RFC 792; RFC 4443, 3.3); returns its length.
/// `quoted`: the first of them, as in [`port_unreachable`].
pub fn reassembly_time_exceeded(to: &Envelope, quoted: &[u8], out: &mut [u8]) -> Result<usize, TooLong> {
    let kind = if is_mapped(&to.dst) { icmp_type::TIME_EXCEEDED } else { icmpv6_type::TIME_EXCEEDED };
    message(to, [kind, CODE_REASSEMBLY], [0, 0], quoted, out)
}

fn message(to: &Envelope, kind_code: [u8; 2], words: [u16; 2], data: &[u8], out: &mut [u8]) -> Result<usize, TooLong> {
    let len = u16::try_from(8 + data.len()).map_err(|_| TooLong)?;
    let mut w = Writer::new(out);
    let pseudo = if is_mapped(&to.dst) {
        let total_len = len.checked_add(ipv4::HEADER_LEN as u16).ok_or(TooLong)?;
        ethernet::write(&mut w, &to.dst_mac, &to.src_mac, to.vlan, ethertype::IPV4);
        let (src, dst) = (unmapped(&to.src), unmapped(&to.dst));
        ipv4::write(&mut w, &ipv4::Outgoing { src, dst, tos: 0, ttl: to.ttl, proto: ip_proto::ICMP, ident: 0, total_len });
        Sum::new()
    } else {
        ethernet::write(&mut w, &to.dst_mac, &to.src_mac, to.vlan, ethertype::IPV6);
        let (src, dst, proto) = (to.src, to.dst, ip_proto::ICMPV6);
        ipv6::write(&mut w, &ipv6::Outgoing { src, dst, class: 0, hop_limit: to.ttl, proto, payload_len: len });
        pseudo_header(&src, &dst, proto, len.into())
    };
    let start = w.len();
    w.put(&kind_code);
    w.put16(0);
    w.put16(words[0]);
    w.put16(words[1]);
    w.put(data);
    let sum = pseudo.bytes(w.written(start)).finish();
    w.patch16(start + 2, sum);
    w.finish().ok_or(TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Payload, checksum, parse_frame};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn with_sum(mut m: Vec<u8>) -> Vec<u8> {
        m[2..4].fill(0);
        let sum = checksum::checksum(&m);
        m[2..4].copy_from_slice(&sum.to_be_bytes());
        m
    }

    #[test]
    fn frag_needed_quotes_the_segment() {
        let mut m = std::vec![3, 4, 0, 0, 0, 0, 0x05, 0x78];
        m.extend([0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        m.extend([0x1f, 0x90, 0, 80, 1, 2, 3, 4]);
        let quoted =
            Quoted { src: mapped([10, 0, 0, 1]), dst: mapped([10, 0, 0, 2]), src_port: 8080, dst_port: 80, seq: SeqNum(0x0102_0304) };
        let m = with_sum(m);
        assert_eq!(Icmp::parse(&m), Some(Icmp::Error { kind: 3, code: 4, mtu: Some(1400), quoted }));
        // A later fragment has payload where the first has ports.
        let later = [&m[..14], &[0x20, 1], &m[16..]].concat();
        assert_eq!(Icmp::parse(&with_sum(later)), Some(Icmp::Other { kind: 3, code: 4 }));
        let first = [&m[..14], &[0x20, 0], &m[16..]].concat();
        assert_eq!(Icmp::parse(&with_sum(first)), Icmp::parse(&m));
        // One byte short of what RFC 792 promises: no tuple to act on.
        let m = with_sum(m[..m.len() - 1].to_vec());
        assert_eq!(Icmp::parse(&m), Some(Icmp::Other { kind: 3, code: 4 }));
    }

    proptest! {
        #[test]
        fn echo_round_trip(ident: u16, seq: u16, data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let to = Envelope { dst_mac: [2; 6], src_mac: [4; 6], vlan: None, src: mapped([10, 0, 0, 1]), dst: mapped([10, 0, 0, 2]), ttl: 64 };
            let mut out = [0; 256];
            let len = echo_reply(&to, ident, seq, &data, &mut out).unwrap();
            let frame = parse_frame(&out[..len]).unwrap();
            let Payload::Ipv4(ip) = frame.payload else { panic!("not IPv4") };
            prop_assert_eq!(Icmp::parse(ip.ip.payload.of(&out)), Some(Icmp::EchoReply { ident, seq, data: &data }));
        }

        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = Icmp::parse(&bytes);
            if bytes.len() >= 8 {
                prop_assert!(Icmp::parse(&with_sum(bytes)).is_some());
            }
        }
    }

    #[test]
    fn port_unreachable_quotes_the_datagram() {
        let to = Envelope { dst_mac: [2; 6], src_mac: [4; 6], vlan: None, src: mapped([10, 0, 0, 1]), dst: mapped([10, 0, 0, 2]), ttl: 64 };
        let mut out = [0; 100];
        let len = port_unreachable(&to, &[7; 28], &mut out).unwrap();
        let frame = parse_frame(&out[..len]).unwrap();
        let Payload::Ipv4(packet) = frame.payload else { panic!("not IPv4") };
        let bytes = packet.ip.payload.of(&out[..len]);
        assert_eq!(Icmp::parse(bytes), Some(Icmp::Other { kind: 3, code: 3 }));
        assert_eq!(&bytes[8..], &[7; 28]);
        assert_eq!(port_unreachable(&to, &[7; 28], &mut out[..69]), Err(TooLong));
    }
}
