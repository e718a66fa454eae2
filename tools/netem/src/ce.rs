//! Congestion Experienced, set in a frame (RFC 3168, 5).

const ETHERNET: usize = 14;
const CE: u8 = 0b11;

/// Marks an IPv4 or IPv6 frame whose transport is ECN-capable. False: it is none.
pub fn mark(frame: &mut [u8]) -> bool {
    match frame.get(12..ETHERNET) {
        Some([0x08, 0x00]) => mark_v4(&mut frame[ETHERNET..]),
        Some([0x86, 0xdd]) => mark_v6(&mut frame[ETHERNET..]),
        _ => false,
    }
}

fn mark_v4(packet: &mut [u8]) -> bool {
    let Some(header) = packet.first_chunk_mut::<20>() else { return false };
    let old = u16::from_be_bytes([header[0], header[1]]);
    if old & u16::from(CE) == 0 {
        return false;
    }
    header[1] |= CE;
    let new = u16::from_be_bytes([header[0], header[1]]);
    // RFC 1624, 3: HC' = ~(~HC + ~m + m').
    let sum = u32::from(!u16::from_be_bytes([header[10], header[11]])) + u32::from(!old) + u32::from(new);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    true
}

/// Its traffic class lies across two bytes; the header has no checksum.
fn mark_v6(packet: &mut [u8]) -> bool {
    let Some(second) = packet.get_mut(1).filter(|byte| **byte & (CE << 4) != 0) else { return false };
    *second |= CE << 4;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(tos: u8) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, tos, 0, 20, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = !sum(&frame[14..]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn sum(header: &[u8]) -> u16 {
        let mut sum: u32 = header.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn capable_frames_are_marked_and_their_checksum_holds() {
        for tos in [0b01, 0b10, 0b11, 0xfd] {
            let mut frame = v4(tos);
            assert!(mark(&mut frame));
            assert_eq!((frame[15], sum(&frame[14..])), (tos | CE, 0xffff), "{tos:#x}");
        }
        let mut six = [vec![0; 12], vec![0x86, 0xdd, 0x60, 0x20], vec![0; 38]].concat();
        assert!(mark(&mut six));
        assert_eq!(six[15], 0x30);
    }

    #[test]
    fn others_stay_as_they_are() {
        for frame in [v4(0), v4(0xfc), vec![0; 60], vec![], v4(1)[..20].to_vec(), [vec![0; 12], vec![0x86, 0xdd, 0x60, 0x0f]].concat()] {
            let mut after = frame.clone();
            assert!(!mark(&mut after));
            assert_eq!(after, frame);
        }
    }
}
