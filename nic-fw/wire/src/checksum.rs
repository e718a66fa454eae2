//! The internet checksum (RFC 1071): ones' complement sum of 16-bit words.
//!
//! Summing is done on 64-bit words in native order with end-around carry; RFC 1071, 2(B), allows any byte order as long
//! as the result is swapped once. A [`Sum`] may be continued over several pieces, odd lengths included, so that a
//! gather (headers, then a ring buffer that wraps) is summed where it lies.

use crate::ipv4::{is_mapped, unmapped};

/// A running checksum over pieces that follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Sum of 16-bit words in native order, folded when read.
    acc: u64,
    /// An odd number of bytes has been added: the next piece starts in the middle of a word.
    odd: bool,
}

#[inline]
const fn add_carry(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

#[inline]
const fn fold(acc: u64) -> u16 {
    // A sum of two halves with end-around carry is the upper half of the whole added to itself with halves swapped.
    let acc = (acc.wrapping_add(acc.rotate_left(32)) >> 32) as u32;
    (acc.wrapping_add(acc.rotate_left(16)) >> 16) as u16
}

/// Native-order sum of `bytes`, the last odd byte padded with zero.
#[inline]
fn sum_native(bytes: &[u8]) -> u64 {
    let mut acc = 0u64;
    // 32 bytes a turn on two independent chains of additions of 32-bit halves: no carry to wait for.
    let mut blocks = bytes.chunks_exact(32);
    let (mut even, mut odd) = (0u64, 0u64);
    for block in &mut blocks {
        let mut words = block.chunks_exact(8).map(|w| u64::from_ne_bytes(w.try_into().unwrap_or_default()));
        for _ in 0..2 {
            let a = words.next().unwrap_or_default();
            let b = words.next().unwrap_or_default();
            even += (a & 0xffff_ffff) + (a >> 32);
            odd += (b & 0xffff_ffff) + (b >> 32);
        }
    }
    acc = add_carry(acc, even);
    acc = add_carry(acc, odd);
    let mut words = blocks.remainder().chunks_exact(8);
    for w in &mut words {
        acc = add_carry(acc, u64::from_ne_bytes(w.try_into().unwrap_or_default()));
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut last = [0u8; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        acc = add_carry(acc, u64::from_ne_bytes(last));
    }
    acc
}

impl Sum {
    pub const fn new() -> Self {
        Self { acc: 0, odd: false }
    }

    /// The sum of a short header, whose length the compiler knows: a third of the cost. `N`: a multiple of four.
    #[inline]
    #[must_use]
    pub fn of_words<const N: usize>(header: &[u8; N]) -> Self {
        const { assert!(N.is_multiple_of(4)) };
        // 32-bit words in 64 bits: no carry to take care of.
        Self { acc: header.as_chunks().0.iter().map(|&word| u64::from(u32::from_ne_bytes(word))).sum(), odd: false }
    }

    /// Adds the next piece.
    #[inline]
    #[must_use]
    pub fn bytes(self, piece: &[u8]) -> Self {
        let mut part = sum_native(piece);
        if self.odd {
            // Starting in the middle of a word swaps the bytes of every word of the piece (RFC 1071, 2(B)).
            part = u64::from(fold(part).swap_bytes());
        }
        Self { acc: add_carry(self.acc, part), odd: self.odd ^ (piece.len() % 2 == 1) }
    }

    /// Adds a field given as a value. Only between whole words.
    #[inline]
    #[must_use]
    pub fn word(self, value: u16) -> Self {
        Self { acc: add_carry(self.acc, u64::from(value.to_be())), odd: self.odd }
    }

    /// The sum itself, not complemented: what a field holds that somebody else is to finish.
    #[inline]
    #[must_use]
    pub fn partial(self) -> u16 {
        u16::from_be(fold(self.acc))
    }

    /// The checksum: complement of the sum.
    #[inline]
    #[must_use]
    pub fn finish(self) -> u16 {
        !self.partial()
    }

    /// Whether data that includes its checksum field is intact.
    #[inline]
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.partial() == 0xffff
    }
}

/// The pseudo-header of TCP over IPv4 or IPv6 (RFC 9293, 3.1; RFC 8200, 8.1). Addresses are 16 bytes, IPv4-mapped: if both are,
/// the IPv4 form is meant. `len`: bytes of the TCP header and payload.
#[must_use]
pub fn pseudo_header(src: &[u8; 16], dst: &[u8; 16], proto: u8, len: u32) -> Sum {
    if is_mapped(src) && is_mapped(dst) {
        return pseudo_header_v4(unmapped(src), unmapped(dst), proto, len);
    }
    pseudo_header_of(Sum::new().bytes(src).bytes(dst), proto, len)
}

/// The pseudo-header over IPv4.
#[inline]
pub(crate) fn pseudo_header_v4(src: [u8; 4], dst: [u8; 4], proto: u8, len: u32) -> Sum {
    pseudo_header_of(Sum::of_words(&src).bytes(&dst), proto, len)
}

#[inline]
fn pseudo_header_of(addresses: Sum, proto: u8, len: u32) -> Sum {
    // The length is 16 bits in IPv4 and 32 in IPv6; the sum is the same.
    addresses.word(u16::from(proto)).word((len >> 16) as u16).word(len as u16)
}

/// The checksum of `bytes`.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().bytes(bytes).finish()
}

/// Finishes a checksum field that holds the pseudo-header's sum only: sums from `start` to the end of the frame and stores
/// the result at `start + offset`. `false`: the field is not in the frame, nothing was done.
pub fn finish_partial(frame: &mut [u8], start: usize, offset: usize) -> bool {
    let Some(summed) = frame.get_mut(start..) else { return false };
    let sum = Sum::new().bytes(summed).finish();
    let Some(field) = summed.get_mut(offset..).and_then(|b| b.first_chunk_mut::<2>()) else { return false };
    *field = sum.to_be_bytes();
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Straight from RFC 1071, 4.1.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn example_of_rfc_1071() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().bytes(&data).partial(), 0xddf2);
    }

    #[test]
    fn all_ones_does_not_lose_a_carry() {
        for len in [0, 1, 2, 7, 8, 31, 32, 33, 1500, 65535] {
            let data = std::vec![0xffu8; len];
            assert_eq!(checksum(&data), reference(&data), "{len} bytes");
        }
    }

    #[test]
    fn field_outside_the_frame_is_refused() {
        let mut frame = [0u8; 20];
        assert!(!finish_partial(&mut frame, 21, 0));
        assert!(!finish_partial(&mut frame, 4, 15));
        assert!(!finish_partial(&mut frame, 4, usize::MAX));
        assert!(finish_partial(&mut frame, 4, 14));
    }

    proptest! {
        #[test]
        fn equals_the_reference(data: Vec<u8>) {
            prop_assert_eq!(checksum(&data), reference(&data));
        }

        #[test]
        fn pieces_sum_like_the_whole(data in proptest::collection::vec(any::<u8>(), 0..300), cuts: [u16; 3]) {
            let mut sum = Sum::new();
            let mut rest = &data[..];
            for cut in cuts {
                let (piece, tail) = rest.split_at(usize::from(cut) % (rest.len() + 1));
                sum = sum.bytes(piece);
                rest = tail;
            }
            prop_assert_eq!(sum.bytes(rest).finish(), reference(&data));
        }

        #[test]
        fn partial_then_finished_is_valid(mut data in proptest::collection::vec(any::<u8>(), 20..200), src: [u8; 16], dst: [u8; 16]) {
            let pseudo = pseudo_header(&src, &dst, 6, data.len() as u32);
            data[16..18].copy_from_slice(&pseudo.partial().to_be_bytes());
            prop_assert!(finish_partial(&mut data, 0, 16));
            prop_assert!(pseudo.bytes(&data).is_valid());
        }

        #[test]
        fn single_bit_errors_are_seen(mut data in proptest::collection::vec(any::<u8>(), 2..200), at: prop::sample::Index, bit in 0u8..8) {
            let sum = checksum(&data);
            let at = at.index(data.len());
            data[at] ^= 1 << bit;
            prop_assert_ne!(checksum(&data), sum);
        }
    }
}
