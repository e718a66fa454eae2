//! A hierarchical timing wheel: one deadline for each index, in ticks (milliseconds).
//!
//! ```text
//!   level 0   64 slots of      1 tick      due in this 64-tick window
//!   level 1   64 slots of     64 ticks     ... in this 4096-tick window
//!   level 2   64 slots of   4096 ticks
//!   level 3   64 slots of 262144 ticks     all the rest; what is further away comes by again
//! ```
//!
//! Arming is lazy: a deadline that moves further away costs nothing, as the item stays where it is, expires early and its
//! owner arms it again. Retransmission timers move with each ACK and hardly ever expire.

use crate::list::{Links, List};
use alloc::{boxed::Box, vec};

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 4;
const NOT_ARMED: u64 = u64::MAX;
/// Place of an item in the list of expired ones.
const EXPIRED: u16 = u16::MAX;

#[derive(Clone, Copy)]
struct Item {
    due: u64,
    place: u16,
}

pub struct Wheel {
    links: Links,
    slots: Box<[List]>,
    occupied: [u64; LEVELS],
    items: Box<[Item]>,
    expired: List,
    tick: u64,
}

impl Wheel {
    pub fn new(items: usize) -> Self {
        Self {
            links: Links::new(items),
            slots: vec![List::default(); LEVELS * SLOTS].into_boxed_slice(),
            occupied: [0; LEVELS],
            items: vec![Item { due: NOT_ARMED, place: 0 }; items].into_boxed_slice(),
            expired: List::default(),
            tick: 0,
        }
    }

    /// Item `i` expires at `due` at the latest.
    pub fn arm(&mut self, i: u32, due: u64) {
        if self.items[i as usize].due <= due {
            return;
        }
        self.disarm(i);
        self.items[i as usize].due = due;
        self.insert(i);
    }

    pub fn disarm(&mut self, i: u32) {
        let item = &mut self.items[i as usize];
        if item.due == NOT_ARMED {
            return;
        }
        item.due = NOT_ARMED;
        let place = item.place;
        if place == EXPIRED {
            self.links.unlink(&mut self.expired, i);
            return;
        }
        let slot = usize::from(place);
        self.links.unlink(&mut self.slots[slot], i);
        if self.slots[slot].is_empty() {
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        }
    }

    /// Moves time on to `now` and takes out one item that has expired.
    pub fn expire(&mut self, now: u64) -> Option<u32> {
        if self.expired.is_empty() {
            self.advance(now);
        }
        let i = self.links.pop(&mut self.expired)?;
        self.items[i as usize].due = NOT_ARMED;
        Some(i)
    }

    /// When to call [`expire`](Self::expire) next: a deadline, or a slot of a higher level to be spread out.
    pub fn next_tick(&self) -> Option<u64> {
        if !self.expired.is_empty() {
            return Some(self.tick);
        }
        (0..LEVELS).filter_map(|level| self.next_slot(level)).map(|(at, _)| at).min()
    }

    /// The next occupied slot of a level: when it begins, and its index.
    fn next_slot(&self, level: usize) -> Option<(u64, usize)> {
        let shift = BITS * level as u32;
        let now = self.tick >> shift;
        let from = (now as usize + 1) % SLOTS;
        let rotated = self.occupied[level].rotate_right(from as u32);
        if rotated == 0 {
            return None;
        }
        let ahead = rotated.trailing_zeros() as u64 + 1;
        let slot = ((now + ahead) as usize) % SLOTS;
        Some(((now + ahead) << shift, level * SLOTS + slot))
    }

    fn advance(&mut self, now: u64) {
        while self.expired.is_empty() {
            let next = (0..LEVELS).filter_map(|level| self.next_slot(level)).min();
            let Some((at, slot)) = next.filter(|&(at, _)| at <= now) else {
                self.tick = self.tick.max(now);
                return;
            };
            self.tick = at;
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
            let mut list = core::mem::take(&mut self.slots[slot]);
            while let Some(i) = self.links.pop(&mut list) {
                self.insert(i);
            }
        }
    }

    fn insert(&mut self, i: u32) {
        let due = self.items[i as usize].due;
        if due <= self.tick {
            self.items[i as usize].place = EXPIRED;
            self.links.push(&mut self.expired, i);
            return;
        }
        // The highest bit in which they differ says which level tells them apart.
        let level = ((63 - (due ^ self.tick).leading_zeros()) / BITS).min(LEVELS as u32 - 1);
        let shift = BITS * level;
        let ahead = ((due >> shift) - (self.tick >> shift)).min(SLOTS as u64 - 1);
        let slot = level as usize * SLOTS + (((self.tick >> shift) + ahead) as usize) % SLOTS;
        self.items[i as usize].place = slot as u16;
        self.links.push(&mut self.slots[slot], i);
        self.occupied[level as usize] |= 1 << (slot % SLOTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn drain(w: &mut Wheel, now: u64) -> Vec<u32> {
        let mut out: Vec<u32> = core::iter::from_fn(|| w.expire(now)).collect();
        out.sort_unstable();
        out
    }

    #[test]
    fn expires_when_due_and_not_before() {
        let mut w = Wheel::new(4);
        w.arm(0, 5);
        w.arm(1, 100);
        w.arm(2, 300_000);
        assert_eq!(drain(&mut w, 4), []);
        assert_eq!(drain(&mut w, 5), [0]);
        assert_eq!(drain(&mut w, 99), []);
        assert_eq!(drain(&mut w, 299_999), [1]);
        assert_eq!(drain(&mut w, 300_000), [2]);
        assert_eq!(w.next_tick(), None);
    }

    #[test]
    fn a_later_deadline_leaves_the_item_where_it_is() {
        let mut w = Wheel::new(1);
        w.arm(0, 10);
        w.arm(0, 20);
        assert_eq!(drain(&mut w, 10), [0]);
    }

    #[test]
    fn an_earlier_deadline_moves_it() {
        let mut w = Wheel::new(1);
        w.arm(0, 7_200_000);
        w.arm(0, 3);
        assert_eq!(w.next_tick(), Some(3));
        assert_eq!(drain(&mut w, 3), [0]);
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(
            ops in prop::collection::vec((0u32..16, 0u64..40_000_000, 0u64..3_000_000), 1..100)
        ) {
            let mut w = Wheel::new(16);
            let mut due = [None::<u64>; 16];
            let mut now = 0;
            for (i, delay, step) in ops {
                w.arm(i, now + delay);
                let d = &mut due[i as usize];
                *d = Some(d.unwrap_or(u64::MAX).min(now + delay));
                let earliest = due.iter().flatten().min().copied().unwrap();
                prop_assert!(w.next_tick().unwrap() <= earliest.max(now));
                now += step;
                let expected: Vec<u32> = (0..16u32).filter(|&i| due[i as usize].is_some_and(|d| d <= now)).collect();
                prop_assert_eq!(drain(&mut w, now), expected.clone());
                expected.iter().for_each(|&i| due[i as usize] = None);
            }
        }

        #[test]
        fn sleeping_until_next_tick_misses_nothing(delays in prop::collection::vec(0u64..20_000_000, 1..16)) {
            let mut w = Wheel::new(16);
            delays.iter().enumerate().for_each(|(i, &d)| w.arm(i as u32, d));
            let mut wakes = 0;
            while let Some(t) = w.next_tick() {
                for i in drain(&mut w, t) {
                    prop_assert_eq!(delays[i as usize], t);
                }
                wakes += 1;
                prop_assert!(wakes <= delays.len() * (LEVELS + 2));
            }
        }
    }
}
