//! Hands out the payload area of a region: a binary buddy allocator over an area that need not be a power of two.
//!
//! It works on offsets only. What was given back is remembered as *dirty* until it is handed out again or
//! [`trim`](Buddies::trim) names it: the owner then returns its pages to the system. So a busy region reuses warm
//! pages, and an idle one shrinks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Smallest block: 4 KiB, as buffers are page-aligned.
pub const MIN_LOG2: u8 = 12;
/// Largest block: `buf_log2` of a flow is at most 30.
pub const MAX_LOG2: u8 = 30;

/// Free and used blocks of one area.
pub struct Buddies {
    /// Free blocks by log2 of their size, from [`MIN_LOG2`] on. Lowest offset first keeps the area compact.
    free: Vec<BTreeSet<u64>>,
    /// Blocks in use and log2 of their sizes.
    used: HashMap<u64, u8>,
    /// Ranges [start, end) that were used and are free now, with pages that may still be there.
    dirty: BTreeMap<u64, u64>,
    used_bytes: u64,
    len: u64,
}

impl Buddies {
    /// An empty area of `len` bytes; a remainder below 4 KiB is not used.
    pub fn new(len: u64) -> Self {
        let len = len >> MIN_LOG2 << MIN_LOG2;
        let mut free = vec![BTreeSet::new(); usize::from(MAX_LOG2 - MIN_LOG2) + 1];
        let mut at = 0;
        while at < len {
            // The largest block that is aligned at `at` and fits.
            let fits = (len - at).ilog2().min(u32::from(MAX_LOG2));
            let aligned = if at == 0 { u32::from(MAX_LOG2) } else { at.trailing_zeros() };
            let log2 = fits.min(aligned);
            free[log2 as usize - usize::from(MIN_LOG2)].insert(at);
            at += 1 << log2;
        }
        Self { free, used: HashMap::new(), dirty: BTreeMap::new(), used_bytes: 0, len }
    }

    /// Bytes of the area.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is handed out.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    /// Bytes handed out.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Bytes that [`trim`](Self::trim) would name.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty.iter().map(|(start, end)| end - start).sum()
    }

    /// A block of at least `1 << log2` bytes, aligned to its size within the area. `None`: no room.
    pub fn alloc(&mut self, log2: u8) -> Option<u64> {
        let log2 = log2.max(MIN_LOG2);
        if log2 > MAX_LOG2 {
            return None;
        }
        let want = usize::from(log2 - MIN_LOG2);
        let mut order = (want..self.free.len()).find(|&o| !self.free[o].is_empty())?;
        let at = self.free[order].pop_first()?;
        while order > want {
            order -= 1;
            self.free[order].insert(at + block_len(order));
        }
        self.used.insert(at, log2);
        self.used_bytes += block_len(want);
        self.undirty(at, at + block_len(want));
        Some(at)
    }

    /// Takes a block back. `false`: it was not handed out (nothing happens).
    pub fn free(&mut self, at: u64) -> bool {
        let Some(log2) = self.used.remove(&at) else { return false };
        let mut order = usize::from(log2 - MIN_LOG2);
        self.used_bytes -= block_len(order);
        self.mark_dirty(at, at + block_len(order));
        let mut at = at;
        while order + 1 < self.free.len() {
            let buddy = at ^ block_len(order);
            if !self.free[order].remove(&buddy) {
                break;
            }
            at = at.min(buddy);
            order += 1;
        }
        self.free[order].insert(at);
        true
    }

    /// Takes up to `max` ranges (offset, bytes), and as many bytes as are `left`, off the dirty list: the caller gives their pages back.
    pub fn trim(&mut self, max: usize, left: &mut u64) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        while ranges.len() < max && *left > 0 {
            let Some((start, end)) = self.dirty.pop_first() else { break };
            let len = (end - start).min(*left);
            if start + len < end {
                self.dirty.insert(start + len, end);
            }
            *left -= len;
            ranges.push((start, len));
        }
        ranges
    }

    fn mark_dirty(&mut self, mut start: u64, mut end: u64) {
        if let Some((&s, &e)) = self.dirty.range(..start).next_back()
            && e == start
        {
            self.dirty.remove(&s);
            start = s;
        }
        if let Some(e) = self.dirty.remove(&end) {
            end = e;
        }
        self.dirty.insert(start, end);
    }

    fn undirty(&mut self, start: u64, end: u64) {
        let overlapping: Vec<(u64, u64)> = self.dirty.range(..end).rev().take_while(|&(_, &e)| e > start).map(|(&s, &e)| (s, e)).collect();
        for (s, e) in overlapping {
            self.dirty.remove(&s);
            if s < start {
                self.dirty.insert(s, start);
            }
            if e > end {
                self.dirty.insert(end, e);
            }
        }
    }
}

fn block_len(order: usize) -> u64 {
    1 << (order + usize::from(MIN_LOG2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn everything_given_back_can_be_had_in_one_piece_again() {
        let mut b = Buddies::new(1 << 20);
        let blocks: Vec<u64> = (0..256).map(|_| b.alloc(12).expect("room")).collect();
        assert_eq!(b.alloc(12), None);
        assert_eq!(b.used_bytes(), 1 << 20);
        for at in blocks {
            assert!(b.free(at));
        }
        assert_eq!(b.alloc(20), Some(0));
    }

    #[test]
    fn an_area_that_is_no_power_of_two_is_used_whole() {
        let mut b = Buddies::new(7 * 4096 + 100);
        let blocks: Vec<u64> = std::iter::from_fn(|| b.alloc(12)).collect();
        assert_eq!(blocks.len(), 7);
    }

    #[test]
    fn what_was_not_handed_out_is_not_taken_back() {
        let mut b = Buddies::new(1 << 16);
        let at = b.alloc(13).expect("room");
        assert!(!b.free(at + 4096));
        assert!(b.free(at));
        assert!(!b.free(at));
    }

    #[test]
    fn a_size_out_of_range_is_refused() {
        assert_eq!(Buddies::new(1 << 32).alloc(31), None);
    }

    #[test]
    fn trim_names_no_more_bytes_than_it_is_told() {
        let mut b = Buddies::new(1 << 16);
        let at = b.alloc(15).unwrap();
        assert!(b.free(at));
        let mut left = 3 << 12;
        assert_eq!((b.trim(10, &mut left), left), (vec![(at, 3 << 12)], 0));
        assert_eq!(b.trim(10, &mut left), vec![]);
        left = 1 << 20;
        assert_eq!(b.trim(10, &mut left), vec![(at + (3 << 12), 5 << 12)]);
        assert_eq!((b.dirty_bytes(), left), (0, (1 << 20) - (5 << 12)));
    }

    #[test]
    fn trim_names_what_was_freed_and_not_what_is_used_again() {
        let mut b = Buddies::new(1 << 16);
        let first = b.alloc(13).expect("room");
        let second = b.alloc(13).expect("room");
        b.free(first);
        b.free(second);
        assert_eq!(b.dirty_bytes(), 1 << 14);
        assert_eq!(b.alloc(13), Some(first));
        assert_eq!(b.trim(10, &mut u64::MAX.clone()), vec![(second, 1 << 13)]);
        assert_eq!(b.trim(10, &mut u64::MAX.clone()), vec![]);
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_dirty_is_free(pages in 1u64..300, steps in prop::collection::vec((any::<bool>(), 12u8..19, any::<prop::sample::Index>()), 1..200)) {
            let mut b = Buddies::new(pages * 4096);
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (take, log2, which) in steps {
                if take {
                    if let Some(at) = b.alloc(log2) {
                        let end = at + (1 << log2);
                        prop_assert!(end <= pages * 4096);
                        prop_assert!(live.iter().all(|&(s, e)| end <= s || e <= at));
                        live.push((at, end));
                    }
                } else if !live.is_empty() {
                    let (at, _) = live.swap_remove(which.index(live.len()));
                    prop_assert!(b.free(at));
                }
                prop_assert_eq!(b.used_bytes(), live.iter().map(|(s, e)| e - s).sum::<u64>());
                for (s, e) in &b.dirty {
                    prop_assert!(s < e && live.iter().all(|(ls, le)| e <= ls || le <= s));
                }
            }
            for (at, _) in live {
                prop_assert!(b.free(at));
            }
            prop_assert!(b.is_empty());
            let blocks = std::iter::from_fn(|| b.alloc(12)).count() as u64;
            prop_assert_eq!(blocks, pages);
        }
    }
}
