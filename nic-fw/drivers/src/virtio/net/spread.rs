//! Which pair a frame to be sent goes to: all frames of a flow to the same one, so that they stay in order. Devices that steer by what
//! was sent (Linux's TAP) answer in the same pair.

const ETHERTYPE: usize = 12;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const VLAN: [u8; 2] = [0x81, 0x00];
const VLAN_LEN: usize = 4;
/// Where addresses and ports lie (without IPv4 options, which we never send), one after the other.
const IPV4_TUPLE: core::ops::Range<usize> = 26..38;
const IPV6_TUPLE: core::ops::Range<usize> = 22..58;

/// The pair, below `pairs` (at least 1), for a frame that begins with `header`. What belongs to no flow goes to the first.
pub fn pair_of(header: &[u8], pairs: usize) -> usize {
    if pairs <= 1 {
        return 0;
    }
    let tagged = header.get(ETHERTYPE..).is_some_and(|rest| rest.starts_with(&VLAN));
    // Without the tag, all lies where it does else.
    let header = if tagged { header.get(VLAN_LEN..).unwrap_or_default() } else { header };
    let tuple = match header.get(ETHERTYPE..ETHERTYPE + 2) {
        Some(kind) if kind == IPV4 => header.get(IPV4_TUPLE),
        Some(kind) if kind == IPV6 => header.get(IPV6_TUPLE),
        _ => None,
    };
    // FNV-1a, and the high bits of a product: nothing here is worth attacking, a full pair only makes its sender wait.
    let hash = tuple.map(|bytes| bytes.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)));
    hash.map_or(0, |hash| ((u64::from(hash.wrapping_mul(0x9e37_79b9)) * pairs as u64) >> 32) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_spread_and_stay() {
        for tag in [0, VLAN_LEN] {
            let mut header = [0u8; 70];
            header[12..14].copy_from_slice(&VLAN);
            header[tag + 12..tag + 14].copy_from_slice(&IPV4);
            let mut hits = [0; 4];
            for port in 0..4000u16 {
                header[tag + 36..tag + 38].copy_from_slice(&port.to_be_bytes());
                let pair = pair_of(&header, 4);
                header[tag + 38..tag + 42].fill(port as u8);
                assert_eq!(pair_of(&header, 4), pair, "sequence numbers do not count");
                hits[pair] += 1;
            }
            assert!(hits.iter().all(|n| (700..1300).contains(n)), "{hits:?}");
        }
    }

    #[test]
    fn what_is_no_flow_goes_to_the_first() {
        assert_eq!(pair_of(&[], 4), 0);
        assert_eq!(pair_of(&[0xff; 60], 4), 0);
        assert_eq!(pair_of(&[0x08; 13], 4), 0);
        assert!((0..100).all(|n| pair_of(&[0x08, 0x00, n].repeat(20), n as usize + 1) <= n as usize));
    }
}
