//! A range of physical addresses, and taking some out of others.
//!
//! ```text
//!   RAM     ┌────────────────────────────────────────────┐
//!   holes        ▓▓▓▓        ▓▓▓▓▓▓▓▓▓            ▓▓▓▓▓▓▓▓▓▓▓
//!   left    └───┘    └──────┘         └──────────┘             [`Ranges::subtract`]
//! ```

use core::fmt;

/// Bytes of a page: the translation granule that we use.
pub const PAGE: u64 = 4096;

/// Physical addresses have at most this many bits (Arm ARM D8.1, without LPA2).
pub const ADDRESS_BITS: u32 = 48;

/// Addresses from `base` to `base + len - 1`: never empty, never past [`ADDRESS_BITS`], so its end does not overflow.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    base: u64,
    len: u64,
}

impl Range {
    /// `None` if it is empty or leaves the address space.
    pub const fn new(base: u64, len: u64) -> Option<Self> {
        match base.checked_add(len) {
            Some(end) if len > 0 && end <= 1 << ADDRESS_BITS => Some(Self { base, len }),
            _ => None,
        }
    }

    /// From `base` up to, but not with, `end`.
    pub const fn between(base: u64, end: u64) -> Option<Self> {
        match end.checked_sub(base) {
            Some(len) => Self::new(base, len),
            None => None,
        }
    }

    pub const fn base(self) -> u64 {
        self.base
    }

    /// Bytes; at least 1.
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Always false: says so for those who ask.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The first address behind it.
    pub const fn end(self) -> u64 {
        self.base + self.len
    }

    pub const fn contains(self, address: u64) -> bool {
        address >= self.base && address < self.end()
    }

    /// Whether all of `other` is inside.
    pub const fn covers(self, other: Self) -> bool {
        other.base >= self.base && other.end() <= self.end()
    }

    pub const fn overlaps(self, other: Self) -> bool {
        self.base < other.end() && other.base < self.end()
    }

    /// What both have.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::between(self.base.max(other.base), self.end().min(other.end()))
    }

    /// The pages that it touches.
    pub const fn pages_out(self) -> Self {
        let base = self.base & !(PAGE - 1);
        // The end of the address space is a page boundary, so rounding up stays inside it.
        Self { base, len: self.end().next_multiple_of(PAGE) - base }
    }

    /// The pages that are all its own.
    pub const fn pages_in(self) -> Option<Self> {
        Self::between(self.base.next_multiple_of(PAGE), self.end() & !(PAGE - 1))
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.base, self.end())
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// There is no room for another range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Up to `N` ranges.
#[derive(Clone, Default)]
pub struct Ranges<const N: usize>(heapless::Vec<Range, N>);

impl<const N: usize> Ranges<N> {
    pub const fn new() -> Self {
        Self(heapless::Vec::new())
    }

    pub fn push(&mut self, range: Range) -> Result<(), Full> {
        self.0.push(range).map_err(|_| Full)
    }

    /// The same; one that goes on where the last one ends becomes part of it.
    pub fn extend(&mut self, range: Range) -> Result<(), Full> {
        match self.0.last_mut() {
            Some(last) if last.end() == range.base => {
                last.len += range.len;
                Ok(())
            }
            _ => self.push(range),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.0.iter().copied()
    }

    pub fn as_slice(&self) -> &[Range] {
        &self.0
    }

    /// Takes `hole` out of all of them. One that is cut in two needs room for another.
    pub fn subtract(&mut self, hole: Range) -> Result<(), Full> {
        let mut i = 0;
        while i < self.0.len() {
            let range = self.0[i];
            if !range.overlaps(hole) {
                i += 1;
                continue;
            }
            let below = Range::between(range.base, hole.base);
            let above = Range::between(hole.end(), range.end());
            match (below, above) {
                (Some(below), above) => {
                    self.0[i] = below;
                    if let Some(above) = above {
                        self.push(above)?;
                    }
                    i += 1;
                }
                (None, Some(above)) => {
                    self.0[i] = above;
                    i += 1;
                }
                (None, None) => {
                    self.0.swap_remove(i);
                }
            }
        }
        Ok(())
    }

    /// The largest part of one of them that lies in `window`.
    pub fn largest_in(&self, window: Range) -> Option<Range> {
        self.iter().filter_map(|range| range.intersection(window)).max_by_key(|range| range.len())
    }

    /// Bytes, together.
    pub fn total(&self) -> u64 {
        self.iter().map(Range::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(base: u64, len: u64) -> Range {
        Range::new(base, len).unwrap()
    }

    #[test]
    fn nothing_empty_and_nothing_past_the_end() {
        assert_eq!(Range::new(5, 0), None);
        assert_eq!(Range::new(u64::MAX, 2), None);
        assert_eq!(Range::new((1 << ADDRESS_BITS) - 1, 2), None);
        assert_eq!(Range::new((1 << ADDRESS_BITS) - 1, 1).map(Range::end), Some(1 << ADDRESS_BITS));
        assert_eq!(Range::between(6, 5), None);
    }

    #[test]
    fn pages_in_and_out() {
        assert_eq!(range(4097, 1).pages_out(), range(4096, 4096));
        assert_eq!(range(4097, 1).pages_in(), None);
        assert_eq!(range(1, 3 * 4096).pages_in(), Some(range(4096, 2 * 4096)));
        let top = range((1 << ADDRESS_BITS) - 1, 1);
        assert_eq!(top.pages_out().end(), 1 << ADDRESS_BITS);
    }

    #[test]
    fn a_hole_without_room_for_the_second_part_is_an_error() {
        let mut one = Ranges::<1>::new();
        one.push(range(0, 100)).unwrap();
        assert_eq!(one.subtract(range(10, 10)), Err(Full));
        assert_eq!(one.push(range(200, 1)), Err(Full));
    }

    proptest! {
        /// Of each byte: it is left exactly if it was there and in no hole.
        #[test]
        fn what_is_left_is_what_was_there_without_the_holes(
            there in prop::collection::vec((0_u64..200, 1_u64..40), 0..4),
            holes in prop::collection::vec((0_u64..240, 1_u64..40), 0..6),
        ) {
            // Disjoint, as a checked memory map is: one after the other.
            let mut ranges = Ranges::<32>::new();
            let mut at = 0;
            for (gap, len) in there {
                ranges.push(range(at + gap % 20, len)).unwrap();
                at += gap % 20 + len;
            }
            let before = ranges.clone();
            for &(base, len) in &holes {
                ranges.subtract(range(base, len)).unwrap();
            }
            for byte in 0..300 {
                let was = before.iter().any(|r| r.contains(byte));
                let hole = holes.iter().any(|&(base, len)| range(base, len).contains(byte));
                let count = ranges.iter().filter(|r| r.contains(byte)).count();
                prop_assert_eq!(count, usize::from(was && !hole), "byte {}", byte);
            }
        }
    }
}
