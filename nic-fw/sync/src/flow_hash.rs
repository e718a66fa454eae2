//! A keyed hash of a connection's four-tuple: multiply and add, with a secret factor for each word.
//!
//! ```text
//!   tuple:  word 0 ... word 8       sum = offset + word 0 x factor 0 + ... + word 8 x factor 8      mod 2^64
//!   secret, 128 bits ──SipHash──► offset, factors, mix                  hash = fold(fold(sum) x mix)
//! ```
//!
//! Peers choose their addresses and ports. Whichever they choose without the secret, two tuples have the same sum with a probability of 2^-33
//! at most (Carter, Wegman: Universal classes of hash functions; Lemire, Kaser: Strongly universal string hashing is fast), and what
//! differs in the sum comes out in all bits. So they cannot find tuples that meet in one bucket of the flow table, or in one flow group. Unlike
//! SipHash's, such a secret could be computed from hashes; but these never leave the card, and what bounds a bad choice is
//! that a flow must have been set up, and that a look-up ends after a few buckets.

use toe_abi::flow::FlowKey;

/// 32-bit words of a tuple.
const WORDS: usize = size_of::<FlowKey>() / 4;

/// What the hash is keyed with: drawn anew at each start of a card.
#[derive(Clone, Debug)]
pub struct HashKey {
    offset: u64,
    factors: [u64; WORDS],
    /// Odd.
    mix: u64,
}

impl HashKey {
    pub fn new(secret: [u64; 2]) -> Self {
        let word = |i: u8| siphash13(&secret, &[i]);
        Self { offset: word(0), factors: core::array::from_fn(|i| word(2 + i as u8)), mix: word(1) | 1 }
    }
}

/// Hash of one four-tuple: 64 bits, of which the flow table, the choice of a group and others take different ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowHash(pub u64);

impl FlowHash {
    #[inline]
    pub fn new(key: &HashKey, tuple: &FlowKey) -> Self {
        let words: [u32; WORDS] = zerocopy::transmute!(*tuple);
        let products = words.iter().zip(&key.factors).map(|(&word, factor)| factor.wrapping_mul(word.into()));
        let sum = products.fold(key.offset, u64::wrapping_add);
        Self(fold(fold(sum).wrapping_mul(key.mix)))
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

/// Brings the upper bits into the lower ones, which multiplication leaves alone.
const fn fold(value: u64) -> u64 {
    value ^ value >> 32
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
        let hash_key = HashKey::new([1, 2]);
        let mut seen = [false; 5];
        for port in 0..200 {
            let key = FlowKey { remote_port: port, ..FlowKey::default() };
            seen[FlowHash::new(&hash_key, &key).group(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }

    /// Every bit of a tuple, and of the secret, reaches the bits that choose a bucket, the tag and the group.
    #[test]
    fn each_bit_counts() {
        let hash = |secret, bytes: [u8; 36]| FlowHash::new(&HashKey::new(secret), &zerocopy::transmute!(bytes));
        let same =
            |a: FlowHash, b: FlowHash| a.low() & 0xffff == b.low() & 0xffff || a.tag() == b.tag() || a.group(1 << 16) == b.group(1 << 16);
        let mut met = 0;
        for bit in 0..8 * 36 {
            let mut bytes = [0; 36];
            bytes[bit / 8] = 1 << (bit % 8);
            met += u32::from(same(hash([1, 2], [0; 36]), hash([1, 2], bytes)));
        }
        for bit in 0..64 {
            met += u32::from(same(hash([1, 2], [9; 36]), hash([1 ^ 1 << bit, 2], [9; 36])));
            met += u32::from(same(hash([1, 2], [9; 36]), hash([1, 2 ^ 1 << bit], [9; 36])));
        }
        assert_eq!(met, 0);
    }

    /// Tuples that differ in a regular way spread like random ones: in 2^12 buckets for as many, none has many.
    #[test]
    fn regular_tuples_spread() {
        const N: usize = 1 << 12;
        for secret in 0..50 {
            let hash_key = HashKey::new([secret, 0]);
            for (step, by_ip) in [(1, false), (2, false), (16, false), (1, true), (256, true), (0x100, false)] {
                let mut buckets = [0u32; N];
                for n in 0..N as u32 {
                    let mut key = FlowKey::default();
                    if by_ip {
                        key.remote_ip[12..].copy_from_slice(&(n * step).to_be_bytes());
                    } else {
                        (key.remote_port, key.local_port) = ((n * step) as u16, ((n * step) >> 16) as u16);
                    }
                    buckets[FlowHash::new(&hash_key, &key).low() as usize % N] += 1;
                }
                // The most of 2^12 throws is 7 or so; 14 comes once in 10^7 tables.
                let most = buckets.iter().max().unwrap_or(&0);
                assert!(*most < 14, "{most} in one bucket: secret {secret}, step {step}");
            }
        }
    }
}
