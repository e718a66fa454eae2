//! What the data path wants to know of a received TCP segment; and the short way to it that nearly all segments take.
//!
//! ```text
//!   0    6    12   14 15  16  18 20   22  23 24  26   30   34     38   42   46 47    48     50  52  54         58   62   66
//!   │ dst│ src│0800│45│tos│len│id│frag│ttl│ 6│sum│ src│ dst│ ports│ seq│ ack│80│flags│window│sum│urg│01 01 08 0a│ val│ ecr│ payload
//! ```
//!
//! Ethernet without a tag, IPv4 without options, TCP with timestamps laid out as in RFC 7323, appendix A (or without options:
//! 50 at 46, payload from 54 on), and no URG. What [`common_segment`] does not take is for [`parse_frame`](crate::parse_frame), which also has the
//! last word: what is taken here it takes as well, and says the same of it.

use crate::checksum::pseudo_header;
use crate::ipv4::{self, Span, ip_proto};
use crate::tcp::{COMMON_TIMESTAMPS, TIMESTAMPS_LEN};
use crate::{SackBlocks, SeqNum, Sum, TcpFlags, Timestamps, bytes, ethernet, ethertype, tcp};

/// Addresses and ports of a TCP segment, source first. Addresses of IPv4 are mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpTuple {
    pub src_ip: [u8; 16],
    pub dst_ip: [u8; 16],
    pub src_port: u16,
    pub dst_port: u16,
}

/// A whole TCP segment whose headers have been checked, but for the TCP checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub tuple: TcpTuple,
    /// VLAN of the frame (VID); 0: none.
    pub vlan: u16,
    pub seq: SeqNum,
    pub ack: SeqNum,
    pub flags: TcpFlags,
    /// Unscaled.
    pub window: u16,
    /// The urgent pointer; 0 without URG.
    pub urgent: u16,
    pub timestamps: Option<Timestamps>,
    pub sack: SackBlocks,
    /// The IP header says "congestion experienced".
    pub ce: bool,
    /// Where the TCP header begins in the frame.
    pub tcp_at: u16,
    pub payload: Span,
}

impl Segment {
    /// Whether the TCP checksum is right. `frame` is what this was parsed from.
    pub fn checksum_ok(self, frame: &[u8]) -> bool {
        let segment = Span { start: self.tcp_at.into(), end: self.payload.end }.of(frame);
        pseudo_header(&self.tuple.src_ip, &self.tuple.dst_ip, ip_proto::TCP, segment.len() as u32).bytes(segment).is_valid()
    }
}

const IP_AT: usize = ethernet::HEADER_LEN;
const TCP_AT: usize = IP_AT + ipv4::HEADER_LEN;
const OPTIONS_AT: usize = TCP_AT + tcp::HEADER_LEN;
const PAYLOAD_AT: usize = OPTIONS_AT + TIMESTAMPS_LEN;

/// Type, version and length of the IP header.
const IPV4: u32 = (ethertype::IPV4 as u32) << 16 | 0x4500;
/// Flags and offset, TTL, protocol: a fragment's differ in the upper half.
const WHOLE_TCP: u32 = ip_proto::TCP as u32;
/// Data offset and URG, of the two bytes of offset and flags.
const SHAPE: u16 = 0xf000 | TcpFlags::URG.bits() as u16;

/// A segment whose headers are the common ones. `None` says nothing: the frame may be anything.
#[inline]
pub fn common_segment(frame: &[u8]) -> Option<Segment> {
    // Of a length that the compiler knows: the rest is loads and compares.
    let head: &[u8; OPTIONS_AT] = frame.first_chunk()?;
    let (be16, be32) = (|at| bytes::be16(head, at), |at| bytes::be32(head, at));
    let ip: &[u8; ipv4::HEADER_LEN] = head[IP_AT..].first_chunk()?;
    let end = IP_AT + usize::from(be16(IP_AT + 2)?);
    let is_tcp = be32(IP_AT - 2)? & !0xff == IPV4 && be32(IP_AT + 6)? & (u32::from(ipv4::FRAGMENT) << 16 | 0xff) == WHOLE_TCP;
    if !is_tcp || end > frame.len() || !Sum::of_words(ip).is_valid() {
        return None;
    }
    let offset_flags = be16(TCP_AT + 12)?;
    let (payload_at, timestamps) = match offset_flags & SHAPE {
        0x5000 => (OPTIONS_AT, None),
        0x8000 => (PAYLOAD_AT, Some(common_timestamps(frame)?)),
        _ => return None,
    };
    if payload_at > end {
        return None;
    }
    let tuple = TcpTuple {
        src_ip: ipv4::mapped(bytes::array(ip, 12)?),
        dst_ip: ipv4::mapped(bytes::array(ip, 16)?),
        src_port: be16(TCP_AT)?,
        dst_port: be16(TCP_AT + 2)?,
    };
    Some(Segment {
        vlan: 0,
        tuple,
        seq: SeqNum(be32(TCP_AT + 4)?),
        ack: SeqNum(be32(TCP_AT + 8)?),
        flags: TcpFlags::from_bits_retain(offset_flags as u8),
        window: be16(TCP_AT + 14)?,
        urgent: 0,
        timestamps,
        sack: SackBlocks::default(),
        ce: ip[1] & 3 == ipv4::CE,
        tcp_at: TCP_AT as u16,
        payload: Span::new(payload_at, end),
    })
}

#[inline]
fn common_timestamps(frame: &[u8]) -> Option<Timestamps> {
    let head: &[u8; PAYLOAD_AT] = frame.first_chunk()?;
    let word = |i: usize| bytes::be32(head, OPTIONS_AT + 4 * i);
    (word(0)? == COMMON_TIMESTAMPS).then_some(Timestamps { val: word(1)?, ecr: word(2)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::checksum;
    use crate::parse_frame;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A frame as nearly all are.
    fn common(timestamps: bool, payload: usize, padding: usize, fields: [u8; 64]) -> Vec<u8> {
        let header = if timestamps { PAYLOAD_AT } else { OPTIONS_AT };
        let mut f: Vec<u8> = fields.into_iter().chain(0..=255).cycle().take(header + payload + padding).collect();
        f[12..15].copy_from_slice(&[8, 0, 0x45]);
        f[16..18].copy_from_slice(&((header - IP_AT + payload) as u16).to_be_bytes());
        f[20..22].copy_from_slice(&[0x40, 0]);
        f[23] = ip_proto::TCP;
        if timestamps {
            (f[46], f[54], f[55], f[56], f[57]) = (0x80, 1, 1, 8, 10);
        } else {
            f[46] = 0x50;
        }
        f[47] &= !TcpFlags::URG.bits();
        seal(&mut f);
        f
    }

    /// Makes the checksum of the IP header right.
    fn seal(f: &mut [u8]) {
        f[24..26].fill(0);
        let sum = checksum(&f[IP_AT..TCP_AT]);
        f[24..26].copy_from_slice(&sum.to_be_bytes());
    }

    fn both_ways(f: &[u8]) -> (Option<Segment>, Option<Segment>) {
        (common_segment(f), parse_frame(f).ok().and_then(|parsed| parsed.segment(f)))
    }

    fn frames() -> impl Strategy<Value = Vec<u8>> {
        (any::<bool>(), 0usize..200, 0usize..8, any::<[u8; 64]>())
            .prop_map(|(ts, payload, padding, fields)| common(ts, payload, padding, fields))
    }

    proptest! {
        #[test]
        fn common_frames_are_taken_and_mean_what_the_parser_says(f in frames()) {
            let (short, long) = both_ways(&f);
            prop_assert!(short.is_some());
            prop_assert_eq!(short, long);
        }

        /// A few bytes are others, the frame is cut, its header sealed again or not.
        #[test]
        fn what_is_taken_the_parser_takes_and_says_the_same(
            mut f in frames(),
            others in prop::collection::vec((12usize..66, any::<u8>()), 0..4),
            len in 0usize..300,
            sealed in any::<bool>(),
        ) {
            for (at, byte) in others {
                f.get_mut(at).into_iter().for_each(|b| *b = byte);
            }
            if sealed {
                seal(&mut f);
            }
            f.truncate(len);
            let (short, long) = both_ways(&f);
            prop_assert!(short.is_none() || short == long, "{:?} {:?}", short, long);
        }

        #[test]
        fn any_bytes(f in prop::collection::vec(any::<u8>(), 0..120)) {
            let (short, long) = both_ways(&f);
            prop_assert!(short.is_none() || short == long);
        }

        #[test]
        fn a_wrong_checksum_is_seen(mut f in frames(), at in 34usize..54, bit in 0u8..8) {
            let segment = common_segment(&f).unwrap();
            f[50..52].fill(0);
            let sum = pseudo_header(&segment.tuple.src_ip, &segment.tuple.dst_ip, 6, segment.payload.end - 34);
            let sum = sum.bytes(&f[34..segment.payload.end as usize]).finish();
            f[50..52].copy_from_slice(&sum.to_be_bytes());
            prop_assert!(segment.checksum_ok(&f));
            f[at] ^= 1 << bit;
            prop_assert!(!segment.checksum_ok(&f));
        }
    }

    #[test]
    fn each_part_of_the_common_header_is_looked_at() {
        let good = common(true, 10, 0, [0; 64]);
        assert!(common_segment(&good).is_some());
        for (at, byte, what) in [
            (12, 0x86, "type"),
            (14, 0x46, "IP options"),
            (14, 0x65, "version"),
            (16, 0xff, "length beyond the frame"),
            (17, 51, "length inside the headers"),
            (20, 0x20, "more fragments"),
            (21, 1, "a later fragment"),
            (23, 17, "protocol"),
            (46, 0x90, "more TCP options"),
            (46, 0x40, "a header too short"),
            (47, 0x30, "URG"),
            (54, 2, "another option"),
        ] {
            let mut f = good.clone();
            f[at] = byte;
            if at < TCP_AT {
                seal(&mut f);
            }
            assert_eq!(common_segment(&f), None, "{what}");
        }
        let mut f = good;
        f[24] ^= 1;
        assert_eq!(common_segment(&f), None, "checksum");
    }
}
