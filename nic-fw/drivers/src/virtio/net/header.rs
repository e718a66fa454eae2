//! The header in front of each frame: checksum and segmentation state (VIRTIO 1.1, 5.1.6).
//!
//! ```text
//!   0 flags   1 gso_type   2 hdr_len   4 gso_size   6 csum_start   8 csum_offset   10 num_buffers       little-endian
//! ```

use crate::virtio::Features;
use toe_hal::{RxOffload, TxOffload};

/// Bytes of the header.
pub const HEADER_LEN: usize = 12;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// The super-frame's CWR belongs to its first segment only (RFC 3168, 6.1.2).
const GSO_ECN: u8 = 0x80;

const ETHERTYPE: usize = 12;
const VLAN: [u8; 2] = [0x81, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const TCP_FLAGS: usize = 13;
const TCP_CWR: u8 = 0x80;

/// What a device says about a received frame: all of it claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RxHeader {
    flags: u8,
    gso_type: u8,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
    num_buffers: u16,
}

impl RxHeader {
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self { flags: bytes[0], gso_type: bytes[1], gso_size: half(4), csum_start: half(6), csum_offset: half(8), num_buffers: half(10) }
    }

    /// Buffers of the frame.
    pub fn buffers(&self, features: Features) -> u16 {
        // Without mergeable buffers the field means nothing (5.1.6.4).
        if features.contains(Features::MRG_RXBUF) { self.num_buffers } else { 1 }
    }

    /// The state of a frame of `len` bytes. `None`: the header contradicts itself, or uses what was not negotiated, so what
    /// the frame is can't be told.
    pub fn offload(&self, features: Features, len: usize) -> Option<RxOffload> {
        let gso_size = match self.gso_type & !GSO_ECN {
            GSO_NONE => 0,
            GSO_TCPV4 if features.contains(Features::GUEST_TSO4) => self.gso_size,
            GSO_TCPV6 if features.contains(Features::GUEST_TSO6) => self.gso_size,
            _ => return None,
        };
        if self.gso_type != GSO_NONE && gso_size == 0 {
            return None;
        }
        let knows = features.contains(Features::GUEST_CSUM);
        let partial_csum = self.flags & F_NEEDS_CSUM != 0;
        let field_end = usize::from(self.csum_start) + usize::from(self.csum_offset) + 2;
        if partial_csum && (!knows || field_end > len) {
            return None;
        }
        Some(RxOffload { csum_ok: partial_csum || knows && self.flags & F_DATA_VALID != 0, partial_csum, gso_size })
    }
}

/// What the device is to do with a frame that begins with `frame` (its headers at least). Fields of what is not asked for are zero
/// (5.1.6.2).
pub fn encode(offload: &TxOffload, frame: &[u8], features: Features) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    if offload.partial_csum {
        out[0] = F_NEEDS_CSUM;
        out[6..8].copy_from_slice(&offload.csum_start.to_le_bytes());
        out[8..10].copy_from_slice(&offload.csum_offset.to_le_bytes());
    }
    if offload.gso_size != 0 {
        out[1] = if is_ipv6(frame) { GSO_TCPV6 } else { GSO_TCPV4 };
        if features.contains(Features::HOST_ECN) && has_cwr(offload, frame) {
            out[1] |= GSO_ECN;
        }
        out[2..4].copy_from_slice(&offload.hdr_len.to_le_bytes());
        out[4..6].copy_from_slice(&offload.gso_size.to_le_bytes());
    }
    out
}

/// Whether what `offload` asks for was negotiated.
pub fn is_negotiated(offload: &TxOffload, frame: &[u8], features: Features) -> bool {
    let tso = if is_ipv6(frame) { Features::HOST_TSO6 } else { Features::HOST_TSO4 };
    // A super-frame needs its checksum finished by the device (5.1.6.2).
    (!offload.partial_csum || features.contains(Features::CSUM))
        && (offload.gso_size == 0 || features.contains(tso) && offload.partial_csum)
}

fn is_ipv6(frame: &[u8]) -> bool {
    let at = if frame.get(ETHERTYPE..ETHERTYPE + 2) == Some(&VLAN) { ETHERTYPE + 4 } else { ETHERTYPE };
    frame.get(at..at + 2) == Some(&IPV6)
}

fn has_cwr(offload: &TxOffload, frame: &[u8]) -> bool {
    frame.get(usize::from(offload.csum_start) + TCP_FLAGS).is_some_and(|flags| flags & TCP_CWR != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SUPER: TxOffload = TxOffload { partial_csum: true, csum_start: 34, csum_offset: 16, gso_size: 1448, hdr_len: 66 };

    #[test]
    fn a_plain_frame_is_all_zero() {
        assert_eq!(encode(&TxOffload::default(), &[0; 60], Features::all()), [0; HEADER_LEN]);
        assert_eq!(RxHeader::decode(&[0; HEADER_LEN]).offload(Features::all(), 60), Some(RxOffload::default()));
    }

    #[test]
    fn a_super_frame_carries_checksum_and_segment_size() {
        let mut frame = [0u8; 66];
        let header = encode(&SUPER, &frame, Features::all());
        assert_eq!(header, [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
        let offload = RxOffload { csum_ok: true, partial_csum: true, gso_size: 1448 };
        assert_eq!(RxHeader::decode(&header).offload(Features::all(), 3000), Some(offload));
        frame[34 + 13] = 0x90;
        assert_eq!(encode(&SUPER, &frame, Features::all())[1], 0x81, "CWR of a super-frame asks for ECN segmentation");
        assert_eq!(encode(&SUPER, &frame, Features::all() - Features::HOST_ECN)[1], 1, "if the device can do it");
        frame[12..14].copy_from_slice(&IPV6);
        assert_eq!(encode(&SUPER, &frame, Features::empty())[1], 4);
        frame[12..18].copy_from_slice(&[0x81, 0, 0, 0, 0x86, 0xdd]);
        assert_eq!(encode(&SUPER, &frame, Features::empty())[1], 4);
        assert_eq!(encode(&SUPER, &[], Features::all())[1], 1, "a frame without headers does not panic");
    }

    #[test]
    fn what_was_not_negotiated_is_not_asked_for() {
        let csum = TxOffload { gso_size: 0, ..SUPER };
        assert!(is_negotiated(&SUPER, &[], Features::all()) && is_negotiated(&TxOffload::default(), &[], Features::empty()));
        assert!(!is_negotiated(&csum, &[], Features::all() - Features::CSUM));
        assert!(!is_negotiated(&SUPER, &[], Features::all() - Features::HOST_TSO4));
        assert!(!is_negotiated(&TxOffload { partial_csum: false, ..SUPER }, &[], Features::all()));
    }

    #[test]
    fn claims_that_make_no_sense_are_refused() {
        let says = |at: usize, byte: u8, features, len| {
            let mut header = encode(&SUPER, &[], Features::all());
            header[at] = byte;
            RxHeader::decode(&header).offload(features, len)
        };
        let all = Features::all();
        assert!(says(1, 1, all, 52).is_some());
        assert_eq!(says(1, 1, all, 51), None, "the checksum lies behind the end");
        assert_eq!(says(7, 0xff, all, 1500), None);
        assert_eq!(says(1, 3, all, 1500), None, "UDP fragmentation");
        assert_eq!(says(1, 4, all - Features::GUEST_TSO6, 1500), None);
        assert_eq!(says(1, 1, all - Features::GUEST_CSUM, 1500), None);
        let mut header = encode(&SUPER, &[], all);
        header[4..6].fill(0);
        assert_eq!(RxHeader::decode(&header).offload(all, 1500), None, "segments of nothing");
    }

    #[test]
    fn a_checksum_counts_only_if_the_device_may_vouch_for_it() {
        let mut header = [0; HEADER_LEN];
        header[0] = 2;
        let ok = |features| RxHeader::decode(&header).offload(features, 60).unwrap().csum_ok;
        assert!(ok(Features::all()) && !ok(Features::all() - Features::GUEST_CSUM));
    }

    proptest! {
        #[test]
        fn any_header_is_judged(bytes in any::<[u8; HEADER_LEN]>(), bits in any::<u64>(), len in 0usize..70_000) {
            let offload = RxHeader::decode(&bytes).offload(Features::from_bits_truncate(bits), len);
            prop_assert!(offload.is_none_or(|o| o.csum_ok || !o.partial_csum));
        }
    }
}
