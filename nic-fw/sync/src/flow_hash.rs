//! A keyed hash of a connection's four-tuple: SipHash-1-3 with a 128-bit secret.
//!
//! Peers choose their addresses and ports. Without the secret they cannot find tuples that meet in one bucket of the
//! flow table, or in one flow group.

use toe_abi::flow::FlowKey;
use zerocopy::IntoBytes;

/// Hash of one four-tuple: 64 bits, of which the flow table, the choice of a group and others take different ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowHash(pub u64);

impl FlowHash {
    /// Hashes `key` under `secret`, which is drawn anew at each start of a card.
    pub fn new(secret: &[u64; 2], key: &FlowKey) -> Self {
        Self(siphash13(secret, key.as_bytes()))
    }

    /// Bits that choose a bucket.
    pub(crate) const fn low(self) -> u32 {
        self.0 as u32
    }

    /// Bits that tell apart what shares a bucket.
    pub(crate) const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Which of `groups` flow groups the connection belongs to. Independent of `low`'s lower bits, so a group's flows
    /// spread over all buckets.
    pub const fn group(self, groups: u32) -> u32 {
        // The upper half of a product is uniform without a division.
        (((self.0 >> 32) * groups as u64) >> 32) as u32
    }
}

/// SipHash-c-d with c = 1, d = 3 (Aumasson, Bernstein: SipHash, a fast short-input PRF).
fn siphash13(secret: &[u64; 2], bytes: &[u8]) -> u64 {
    let mut v = [
        secret[0] ^ 0x736f_6d65_7073_6575,
        secret[1] ^ 0x646f_7261_6e64_6f6d,
        secret[0] ^ 0x6c79_6765_6e65_7261,
        secret[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        absorb(&mut v, le_word(chunk));
    }
    absorb(&mut v, le_word(chunks.remainder()) | (bytes.len() as u64) << 56);
    v[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    v[0] ^= word;
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

/// Up to eight bytes as a little-endian word.
fn le_word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Values of an independent implementation (in Python, itself checked by the paper's SipHash-2-4 vector).
    #[test]
    fn siphash13_known_answers() {
        let secret = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let bytes: [u8; 36] = core::array::from_fn(|i| i as u8);
        assert_eq!(siphash13(&secret, &[]), KAT[0]);
        assert_eq!(siphash13(&secret, &bytes[..7]), KAT[1]);
        assert_eq!(siphash13(&secret, &bytes[..8]), KAT[2]);
        assert_eq!(siphash13(&secret, &bytes), KAT[3]);
    }

    const KAT: [u64; 4] = [0xabac_0158_050f_c4dc, 0xd392_7d98_9bb1_1140, 0x3690_9511_8d29_9a8e, 0x2cf5_08d3_ada2_6206];

    #[test]
    fn groups_are_in_range_and_all_used() {
        let mut seen = [false; 5];
        for port in 0..200 {
            let key = FlowKey { remote_port: port, ..FlowKey::default() };
            seen[FlowHash::new(&[1, 2], &key).group(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }

    #[test]
    fn secret_changes_the_hash() {
        let key = FlowKey::default();
        assert_ne!(FlowHash::new(&[1, 2], &key), FlowHash::new(&[1, 3], &key));
        assert_ne!(FlowHash::new(&[1, 2], &key), FlowHash::new(&[2, 2], &key));
    }
}
