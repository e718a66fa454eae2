//! The virtio-net header in front of each frame of AF_PACKET (PACKET_VNET_HDR) and TAP (IFF_VNET_HDR):
//! checksum and segmentation state. Native byte order, ten bytes.

use toe_hal::{RxOffload, TxOffload};

/// Bytes of the header.
pub const LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// The super-frame's CWR belongs to its first segment only (RFC 3168, 6.1.2).
const GSO_ECN: u8 = 0x80;

const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const TCP_FLAGS: usize = 13;
const TCP_CWR: u8 = 0x80;

/// What the kernel says about a received frame.
pub fn decode(header: &[u8; LEN]) -> RxOffload {
    let [flags, gso_type, _, _, gso_lo, gso_hi, ..] = *header;
    let partial_csum = flags & F_NEEDS_CSUM != 0;
    let gso_size = if gso_type == GSO_NONE { 0 } else { u16::from_ne_bytes([gso_lo, gso_hi]) };
    RxOffload { csum_ok: partial_csum || flags & F_DATA_VALID != 0, partial_csum, gso_size }
}

/// What the kernel is to do with a frame that begins with `frame` (its headers at least).
pub fn encode(offload: &TxOffload, frame: &[u8]) -> [u8; LEN] {
    let mut out = [0; LEN];
    if offload.partial_csum {
        out[0] = F_NEEDS_CSUM;
        out[6..8].copy_from_slice(&offload.csum_start.to_ne_bytes());
        out[8..10].copy_from_slice(&offload.csum_offset.to_ne_bytes());
    }
    if offload.gso_size != 0 {
        out[1] = gso_type(frame) | ecn(offload, frame);
        out[2..4].copy_from_slice(&offload.hdr_len.to_ne_bytes());
        out[4..6].copy_from_slice(&offload.gso_size.to_ne_bytes());
    }
    out
}

/// Bytes in front of a frame's IP header.
pub fn ethernet_len(frame: &[u8]) -> usize {
    if frame.get(12..14) == Some(&ETHERTYPE_VLAN) { 18 } else { 14 }
}

fn gso_type(frame: &[u8]) -> u8 {
    let at = ethernet_len(frame) - 2;
    if frame.get(at..at + 2) == Some(&ETHERTYPE_IPV6) { GSO_TCPV6 } else { GSO_TCPV4 }
}

fn ecn(offload: &TxOffload, frame: &[u8]) -> u8 {
    let flags = frame.get(usize::from(offload.csum_start) + TCP_FLAGS).copied().unwrap_or(0);
    if offload.partial_csum && flags & TCP_CWR != 0 { GSO_ECN } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_frame_is_all_zero() {
        assert_eq!(encode(&TxOffload::default(), &[0; 60]), [0; LEN]);
        assert_eq!(decode(&[0; LEN]), RxOffload::default());
    }

    #[test]
    fn super_frame_carries_checksum_and_segment_size() {
        let mut frame = [0u8; 66];
        frame[12..14].copy_from_slice(&[0x08, 0]);
        let offload = TxOffload { partial_csum: true, csum_start: 34, csum_offset: 16, gso_size: 1448, hdr_len: 66 };
        let h = encode(&offload, &frame);
        assert_eq!((h[0], h[1]), (1, 1));
        assert_eq!(decode(&h), RxOffload { csum_ok: true, partial_csum: true, gso_size: 1448 });
        frame[34 + 13] = 0x90;
        assert_eq!(encode(&offload, &frame)[1], 0x81, "CWR of a super-frame asks for ECN segmentation");
    }

    #[test]
    fn ipv6_is_told_apart_also_behind_a_vlan_tag() {
        let mut frame = [0u8; 90];
        let offload = TxOffload { gso_size: 1, ..TxOffload::default() };
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        assert_eq!(encode(&offload, &frame)[1], 4);
        frame[12..14].copy_from_slice(&[0x81, 0]);
        frame[16..18].copy_from_slice(&[0x86, 0xdd]);
        assert_eq!(encode(&offload, &frame)[1], 4);
        assert_eq!(encode(&offload, &[])[1], 1, "a frame without headers does not panic");
    }

    #[test]
    fn data_valid_alone_is_a_good_checksum() {
        let mut h = [0; LEN];
        h[0] = 2;
        assert_eq!(decode(&h), RxOffload { csum_ok: true, partial_csum: false, gso_size: 0 });
    }
}
