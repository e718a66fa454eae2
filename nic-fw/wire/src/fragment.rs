//! Fragments of IP packets (RFC 791, 3.2; RFC 8200, 4.5): where a piece belongs, and the header of the whole.

use crate::bytes::{self, Writer};
use crate::ipv4::{self, Ip, is_mapped, unmapped};
use crate::{Ethernet, TooLong, ethernet, ethertype, ipv6};

/// More Fragments, in the word of IPv4.
const MORE_V4: u16 = 0x2000;
/// Offsets count units of so many bytes.
const UNIT: u32 = 8;

/// What a fragment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// The same in all fragments of a packet.
    pub ident: u32,
    /// Bytes of the packet's payload before this piece.
    pub offset: u32,
    /// It is not the last.
    pub more: bool,
}

impl Fragment {
    /// Of a packet whose header says that it is one. `None`: the frame is not the one that `ip` was parsed from.
    pub fn parse(frame: &[u8], ip: &Ip) -> Option<Self> {
        if is_mapped(&ip.src) {
            let word = bytes::be32(frame, ip.header.start as usize + 4)?;
            let (ident, place) = (word >> 16, word as u16);
            return Some(Self { ident, offset: u32::from(place & 0x1fff) * UNIT, more: place & MORE_V4 != 0 });
        }
        // The fragment header is the last that was walked.
        let at = (ip.header.end as usize).checked_sub(8)?;
        let place = bytes::be16(frame, at + 2)?;
        Some(Self { ident: bytes::be32(frame, at + 4)?, offset: u32::from(place & !7), more: place & 1 != 0 })
    }
}

/// Writes the headers of a packet that was put together of fragments, for a payload of `len` bytes behind them; returns how many bytes they are.
/// `eth` and `ip` are the first fragment's. What it had of IP options and extension headers has been obeyed, and is left away.
pub fn write_whole(eth: &Ethernet, ip: &Ip, ecn: u8, len: usize, out: &mut [u8]) -> Result<usize, TooLong> {
    let payload_len = u16::try_from(len).map_err(|_| TooLong)?;
    let mut w = Writer::new(out);
    let (tos, proto, ttl) = (ip.tos | ecn & 3, ip.proto, ip.ttl);
    if is_mapped(&ip.src) {
        let total_len = payload_len.checked_add(ipv4::HEADER_LEN as u16).ok_or(TooLong)?;
        ethernet::write(&mut w, &eth.dst, &eth.src, eth.vlan, ethertype::IPV4);
        let (src, dst) = (unmapped(&ip.src), unmapped(&ip.dst));
        ipv4::write(&mut w, &ipv4::Outgoing { src, dst, tos, ttl, proto, ident: 0, total_len });
    } else {
        ethernet::write(&mut w, &eth.dst, &eth.src, eth.vlan, ethertype::IPV6);
        let (src, dst) = (ip.src, ip.dst);
        ipv6::write(&mut w, &ipv6::Outgoing { src, dst, class: tos, hop_limit: ttl, proto, payload_len });
    }
    w.finish().ok_or(TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Payload, parse_frame};
    use proptest::prelude::*;
    use std::vec::Vec;

    const ETH: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn v4(ident: u16, place: u16, body: &[u8]) -> Vec<u8> {
        let ([l0, l1], [i0, i1], [p0, p1]) = ((20 + body.len() as u16).to_be_bytes(), ident.to_be_bytes(), place.to_be_bytes());
        let mut header = [0x45, 0xb8, l0, l1, i0, i1, p0, p1, 9, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
        [header[10], header[11]] = crate::checksum::checksum(&header).to_be_bytes();
        [&ETH[..], &[8, 0], &header, body].concat()
    }

    fn v6(ident: u32, place: u16, body: &[u8]) -> Vec<u8> {
        let [l0, l1] = (16 + body.len() as u16).to_be_bytes();
        let addresses = [&[0xfd][..], &[0; 14], &[2], &[0xfd], &[0; 14], &[1]].concat();
        let ([p0, p1], [i0, i1, i2, i3]) = (place.to_be_bytes(), ident.to_be_bytes());
        // Destination options, then the fragment header.
        let extensions = [44, 0, 1, 4, 0, 0, 0, 0, 6, 0, p0, p1, i0, i1, i2, i3];
        [&ETH[..], &[0x86, 0xdd, 0x6b, 0x80, 0, 0, l0, l1, 60, 9], &addresses, &extensions, body].concat()
    }

    fn parsed(frame: &[u8]) -> (Ethernet, Ip) {
        let parsed = parse_frame(frame).unwrap();
        let (Payload::Ipv4(packet) | Payload::Ipv6(packet)) = parsed.payload else { panic!("not IP") };
        (parsed.eth, packet.ip)
    }

    proptest! {
        #[test]
        fn both_versions_tell_the_same(ident: u16, unit in 0..8192u16, more: bool, body in proptest::collection::vec(any::<u8>(), 20..60)) {
            prop_assume!(unit > 0 || more);
            let wanted = Fragment { ident: ident.into(), offset: u32::from(unit) * 8, more };
            let frames = [v4(ident, unit | if more { MORE_V4 } else { 0 }, &body), v6(ident.into(), unit << 3 | u16::from(more), &body)];
            for frame in frames {
                let (_, ip) = parsed(&frame);
                prop_assert!(ip.fragment);
                prop_assert_eq!(Fragment::parse(&frame, &ip), Some(wanted));
                prop_assert_eq!(ip.payload.of(&frame), &body[..]);
            }
        }

        #[test]
        fn a_whole_packet_is_none_of_fragments(len in 20..2000usize, ecn in 0..4u8) {
            for frame in [v4(7, MORE_V4, &[0x50; 24]), v6(7, 1, &[0x50; 24])] {
                let (eth, ip) = parsed(&frame);
                let mut out = std::vec![0x50; 100 + len];
                let at = write_whole(&eth, &ip, ecn, len, &mut out).unwrap();
                let (_, whole) = parsed(&out[..at + len]);
                prop_assert!(!whole.fragment && !whole.options);
                prop_assert_eq!((whole.src, whole.dst, whole.proto, whole.ttl, whole.tos, whole.ecn), (ip.src, ip.dst, 6, 9, 0xb8, ecn));
                prop_assert_eq!(whole.payload.len() as usize, len);
            }
        }
    }

    #[test]
    fn what_is_too_long_for_a_packet_is_refused() {
        let (eth, ip) = parsed(&v4(7, MORE_V4, &[0; 24]));
        let mut out = [0; 100];
        assert!(write_whole(&eth, &ip, 0, 65_515, &mut out).is_ok());
        assert_eq!(write_whole(&eth, &ip, 0, 65_516, &mut out), Err(TooLong));
        let (eth, ip) = parsed(&v6(7, 1, &[0; 24]));
        assert!(write_whole(&eth, &ip, 0, 65_535, &mut out).is_ok());
        assert_eq!(write_whole(&eth, &ip, 0, 65_536, &mut out), Err(TooLong));
    }
}
