//! Sequence numbers: points on a circle of 2^32 (RFC 9293, 3.4).
//!
//! No operators: `-` and `<` on points of a circle are how stacks panic. Comparisons are modulo 2^32 and mean
//! something only for points less than 2^31 apart, which the window rules guarantee.

/// A point in sequence space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[repr(transparent)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// The point `len` further on.
    #[inline]
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "a point plus a length is a point; no operator says that")]
    pub const fn add(self, len: u32) -> SeqNum {
        SeqNum(self.0.wrapping_add(len))
    }

    /// The point `len` before.
    #[inline]
    #[must_use]
    pub const fn sub_len(self, len: u32) -> SeqNum {
        SeqNum(self.0.wrapping_sub(len))
    }

    /// Length of the way from `earlier` forward to `self`, modulo 2^32.
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: SeqNum) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Like [`since`](Self::since), but 0 if `self` is behind `earlier`.
    #[inline]
    #[must_use]
    pub const fn since_or_zero(self, earlier: SeqNum) -> u32 {
        if self.gt(earlier) { self.since(earlier) } else { 0 }
    }

    /// Signed distance from `other` to `self`.
    #[inline]
    #[must_use]
    pub const fn distance_from(self, other: SeqNum) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    #[inline]
    #[must_use]
    pub const fn lt(self, other: SeqNum) -> bool {
        self.distance_from(other) < 0
    }

    #[inline]
    #[must_use]
    pub const fn le(self, other: SeqNum) -> bool {
        self.distance_from(other) <= 0
    }

    #[inline]
    #[must_use]
    pub const fn gt(self, other: SeqNum) -> bool {
        self.distance_from(other) > 0
    }

    #[inline]
    #[must_use]
    pub const fn ge(self, other: SeqNum) -> bool {
        self.distance_from(other) >= 0
    }

    /// Whether `self` is one of the `len` points from `start` on.
    #[inline]
    #[must_use]
    pub const fn in_window(self, start: SeqNum, len: u32) -> bool {
        self.since(start) < len
    }

    /// The later of two points.
    #[inline]
    #[must_use]
    pub const fn max(self, other: SeqNum) -> SeqNum {
        if self.ge(other) { self } else { other }
    }

    /// The earlier of two points.
    #[inline]
    #[must_use]
    pub const fn min(self, other: SeqNum) -> SeqNum {
        if self.le(other) { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_holds_across_the_wrap() {
        let a = SeqNum(u32::MAX - 1);
        let b = a.add(5);
        assert_eq!(b, SeqNum(3));
        assert!(a.lt(b) && b.gt(a) && a.le(b) && b.ge(a) && !b.lt(a));
        assert_eq!(b.since(a), 5);
        assert_eq!(a.since_or_zero(b), 0);
        assert_eq!(a.distance_from(b), -5);
        assert_eq!((a.max(b), a.min(b)), (b, a));
    }

    #[test]
    fn window_is_half_open() {
        let start = SeqNum(u32::MAX);
        assert!(start.in_window(start, 1));
        assert!(!start.in_window(start, 0));
        assert!(start.add(9).in_window(start, 10));
        assert!(!start.add(10).in_window(start, 10));
        assert!(!start.sub_len(1).in_window(start, 10));
    }

    proptest! {
        #[test]
        fn add_then_compare(a: u32, len in 1u32..1 << 31) {
            let a = SeqNum(a);
            prop_assert!(a.lt(a.add(len)));
            prop_assert_eq!(a.add(len).since(a), len);
            prop_assert_eq!(a.add(len).sub_len(len), a);
        }
    }
}
