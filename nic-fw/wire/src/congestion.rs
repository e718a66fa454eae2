//! What a congested router does to a frame in place of dropping it (RFC 3168, 5): for wires that are bad on purpose.

use crate::checksum::checksum;

/// Ethernet header.
const L2: usize = 14;
/// IPv4 header without options.
const V4_LEN: usize = 20;

/// Sets CE in a frame whose sender is ECN-capable. False: it is not, or no IP is there (or IPv4 with options, or a VLAN tag).
pub fn mark(frame: &mut [u8]) -> bool {
    match frame.get(12..15) {
        Some([8, 0, 0x45]) => mark_v4(frame.get_mut(L2..L2 + V4_LEN).unwrap_or(&mut [])),
        // RFC 8200, 3: the traffic class is the second four bits and the third; RFC 3168, 5: its last two bits.
        Some([0x86, 0xdd, version]) if version >> 4 == 6 => match frame.get_mut(L2 + 1) {
            Some(byte) if *byte & 0x30 != 0 => {
                *byte |= 0x30;
                true
            }
            _ => false,
        },
        _ => false,
    }
}

fn mark_v4(header: &mut [u8]) -> bool {
    if header.len() < V4_LEN || header[1] & 3 == 0 {
        return false;
    }
    header[1] |= 3;
    header[10..12].fill(0);
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(tos: u8) -> [u8; 40] {
        let mut frame = [0x5a; 40];
        frame[12..16].copy_from_slice(&[8, 0, 0x45, tos]);
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    #[test]
    fn ecn_capable_frames_are_marked_and_their_checksum_stays_right() {
        for tos in [1, 2, 3, 0xb8 | 2] {
            let mut frame = v4(tos);
            assert!(mark(&mut frame));
            assert_eq!((frame[15], checksum(&frame[14..34])), (tos | 3, 0));
        }
        let mut v6 = [0; 60];
        v6[12..16].copy_from_slice(&[0x86, 0xdd, 0x60, 0x20]);
        assert!(mark(&mut v6));
        assert_eq!(v6[14..16], [0x60, 0x30]);
    }

    #[test]
    fn others_stay_as_they_are() {
        let mut v6 = [0; 60];
        v6[12..16].copy_from_slice(&[0x86, 0xdd, 0x60, 0x0f]);
        for frame in [&mut v4(0xb8)[..], &mut v4(2)[..30], &mut [8; 13], &mut [], &mut v6] {
            let before = frame.to_vec();
            assert!(!mark(frame));
            assert_eq!(frame, before);
        }
    }
}
