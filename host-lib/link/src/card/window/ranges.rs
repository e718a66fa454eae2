//! Hands out the memory of a window in ranges: first fit from a place on, then from the beginning; neighbours grow together again.

use std::collections::BTreeMap;

/// Ranges begin and end on pages.
const PAGE: u64 = 4096;

/// What is free and what is handed out of one stretch of memory.
#[derive(Debug)]
pub(super) struct Ranges {
    /// Start and end of what is free, none next to another.
    free: BTreeMap<u64, u64>,
    /// Start and end of what is handed out.
    used: BTreeMap<u64, u64>,
    len: u64,
    /// What lies before is used last.
    floor: u64,
}

impl Ranges {
    /// All of `start..end` is free, as far as it is whole pages. What lies before `floor` is used last.
    pub fn new(start: u64, end: u64, floor: u64) -> Self {
        let (start, end) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
        let len = end.saturating_sub(start);
        Self { free: (len > 0).then_some((start, end)).into_iter().collect(), used: BTreeMap::new(), len, floor: floor / PAGE * PAGE }
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes handed out.
    pub fn used(&self) -> u64 {
        self.used.iter().map(|(start, end)| end - start).sum()
    }

    /// Bytes of the largest piece that is free.
    pub fn largest(&self) -> u64 {
        self.free.iter().map(|(start, end)| end - start).max().unwrap_or(0)
    }

    /// The lowest range of `len` bytes, rounded up to pages. `None`: there is none, or `len` is 0.
    pub fn take(&mut self, len: u64) -> Option<u64> {
        let len = len.checked_next_multiple_of(PAGE).filter(|&len| len > 0)?;
        let (start, end, at) = self.fit(len, self.floor).or_else(|| self.fit(len, 0))?;
        self.free.remove(&start);
        if start < at {
            self.free.insert(start, at);
        }
        if at + len < end {
            self.free.insert(at + len, end);
        }
        self.used.insert(at, at + len);
        Some(at)
    }

    /// The first free piece with room for `len` bytes from `floor` on, and where in it they begin.
    fn fit(&self, len: u64, floor: u64) -> Option<(u64, u64, u64)> {
        let pieces = self.free.iter().map(|(&start, &end)| (start, end, start.max(floor)));
        pieces.into_iter().find(|&(_, end, at)| end.saturating_sub(at) >= len)
    }

    /// Takes a range back, and says how long it was. `None`: none begins there.
    pub fn give(&mut self, start: u64) -> Option<u64> {
        let end = self.used.remove(&start)?;
        let len = end - start;
        let (mut start, mut end) = (start, end);
        if let Some((&before, &its_end)) = self.free.range(..start).next_back()
            && its_end == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(its_end) = self.free.remove(&end) {
            end = its_end;
        }
        self.free.insert(start, end);
        Some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_lowest_place_that_fits_is_taken() {
        let mut r = Ranges::new(0x20_000, 0x40_000, 0);
        assert_eq!((r.take(0x1000), r.take(1), r.take(0x8000)), (Some(0x20_000), Some(0x21_000), Some(0x22_000)));
        assert_eq!(r.give(0x21_000), Some(0x1000));
        assert_eq!(r.take(0x2000), Some(0x2a_000), "the gap is too small");
        assert_eq!(r.take(0x1000), Some(0x21_000));
    }

    #[test]
    fn what_lies_before_the_floor_is_used_last() {
        let mut r = Ranges::new(0x1000, 0x9000, 0x4fff);
        assert_eq!((r.take(0x2000), r.take(0x3000), r.take(0x1000)), (Some(0x4000), Some(0x6000), Some(0x1000)));
        assert_eq!((r.take(0x3000), r.take(0x2000)), (None, Some(0x2000)));
        assert_eq!(r.give(0x4000), Some(0x2000));
        assert_eq!((r.take(0x2000), r.used()), (Some(0x4000), 0x8000));
        for floor in [u64::MAX, 0x9000, 0x8fff] {
            assert_eq!(Ranges::new(0x1000, 0x9000, floor).take(0x8000), Some(0x1000), "{floor:#x}");
        }
    }

    #[test]
    fn what_is_given_back_grows_together() {
        let mut r = Ranges::new(0, 0x4000, 0);
        let all: Vec<u64> = (0..4).filter_map(|_| r.take(0x1000)).collect();
        assert_eq!((r.take(1), r.used(), r.largest()), (None, 0x4000, 0));
        for i in [1, 3, 2, 0] {
            assert_eq!(r.give(all[i]), Some(0x1000));
        }
        assert_eq!((r.take(0x4000), r.len()), (Some(0), 0x4000));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut r = Ranges::new(0, 0x4000, 0);
        assert_eq!((r.take(0), r.take(u64::MAX), r.take(0x4001)), (None, None, None));
        let at = r.take(0x1000).unwrap();
        assert_eq!((r.give(at + 0x1000), r.give(at), r.give(at)), (None, Some(0x1000), None));
        assert_eq!(Ranges::new(0x5000, 0x4000, 0).take(1), None);
    }

    proptest! {
        /// Ranges never overlap, nothing is lost, and all of it can be had again in the end.
        #[test]
        fn against_a_map_of_pages(floor in 0u64..100, steps in prop::collection::vec((any::<bool>(), 1u64..20, any::<prop::sample::Index>()), 1..200)) {
            const PAGES: u64 = 64;
            let mut r = Ranges::new(PAGE, (PAGES + 1) * PAGE, floor * PAGE);
            let mut pages = [false; PAGES as usize + 1];
            let mut held: Vec<(u64, u64)> = Vec::new();
            for (take, n, which) in steps {
                if take {
                    let longest = pages[1..].split(|used| *used).map(<[bool]>::len).max().unwrap_or(0) as u64;
                    let got = r.take(n * PAGE - 1);
                    prop_assert_eq!(got.is_some(), n <= longest);
                    if let Some(at) = got {
                        let at = at / PAGE;
                        for page in at..at + n {
                            prop_assert!(!std::mem::replace(&mut pages[page as usize], true));
                        }
                        held.push((at, n));
                    }
                } else if !held.is_empty() {
                    let (at, n) = held.swap_remove(which.index(held.len()));
                    prop_assert_eq!(r.give(at * PAGE), Some(n * PAGE));
                    pages[at as usize..(at + n) as usize].fill(false);
                }
                let used = pages.iter().filter(|used| **used).count() as u64;
                prop_assert_eq!((r.used(), r.len()), (used * PAGE, PAGES * PAGE));
            }
            for (at, _) in held {
                r.give(at * PAGE);
            }
            prop_assert_eq!(r.take(PAGES * PAGE), Some(PAGE));
        }
    }
}
