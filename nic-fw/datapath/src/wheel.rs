//! A hierarchical timing wheel: one deadline for each index, in ticks. What a tick is, is its owner's business.
//!
//! ```text
//!   level 0   4096 slots of    1 tick      due in this 4096-tick window
//!   level 1   4096 slots of 4096 ticks     all the rest; what is further away than 2^24 ticks comes by again
//! ```
//!
//! Wide levels, so that hardly anything is moved from one to the other on its way: each move is a look at memory that has
//! long left the caches. Which slots are occupied, a word of 64 bits says for each 64 of them, and one word for all of these.
//!
//! Arming is lazy: a deadline that moves further away costs nothing, as the item stays where it is, expires early and its
//! owner arms it again. Retransmission timers move with each ACK and hardly ever expire.

use crate::list::{Links, List};
use alloc::boxed::Box;

const BITS: u32 = 12;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 2;

/// When an item is due, and in the lowest bits its slot: small items, so that a cache line holds many.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Item(u64);

impl Item {
    const SLOT_BITS: u32 = (LEVELS * SLOTS).ilog2();
    const NOT_ARMED: Self = Self(u64::MAX);

    /// In no slot yet.
    fn due_at(due: u64) -> Self {
        Self(due.min((u64::MAX >> Self::SLOT_BITS) - 1) << Self::SLOT_BITS)
    }

    fn due(self) -> u64 {
        self.0 >> Self::SLOT_BITS
    }

    fn set_slot(&mut self, slot: usize) {
        self.0 = (self.0 >> Self::SLOT_BITS << Self::SLOT_BITS) | slot as u64;
    }

    fn slot(self) -> usize {
        self.0 as usize % (LEVELS * SLOTS)
    }
}

/// Which slots of a level are occupied.
#[derive(Clone, Copy)]
struct Occupied {
    words: [u64; 64],
    /// Which words are not 0.
    any: u64,
}

impl Occupied {
    const NONE: Self = Self { words: [0; 64], any: 0 };

    fn insert(&mut self, slot: usize) {
        self.words[slot / 64] |= 1 << (slot % 64);
        self.any |= 1 << (slot / 64);
    }

    fn remove(&mut self, slot: usize) {
        self.words[slot / 64] &= !(1 << (slot % 64));
        if self.words[slot / 64] == 0 {
            self.any &= !(1 << (slot / 64));
        }
    }

    /// How far behind slot `from`, around the end, the next occupied one is.
    fn distance(&self, from: usize) -> Option<usize> {
        let (word, bit) = (from / 64, from % 64);
        let here = self.words[word] >> bit;
        if here != 0 {
            return Some(here.trailing_zeros() as usize);
        }
        // The words after this one, this one last: its bits before `from`.
        let others = self.any.rotate_right(word as u32 + 1);
        if others == 0 {
            return None;
        }
        let ahead = others.trailing_zeros() as usize + 1;
        Some(64 * ahead + self.words[(word + ahead) % 64].trailing_zeros() as usize - bit)
    }
}

pub struct Wheel {
    items: Links<Item>,
    slots: Box<[List]>,
    occupied: [Occupied; LEVELS],
    expired: List,
    tick: u64,
}

impl Wheel {
    pub fn new(items: usize) -> Self {
        Self {
            items: Links::with(items, Item::NOT_ARMED),
            slots: [List::default()].repeat(LEVELS * SLOTS).into_boxed_slice(),
            occupied: [Occupied::NONE; LEVELS],
            expired: List::default(),
            tick: 0,
        }
    }

    /// Item `i` expires at `due` at the latest.
    pub fn arm(&mut self, i: u32, due: u64) {
        if self.items[i].due() <= due {
            return;
        }
        self.disarm(i);
        self.items[i] = Item::due_at(due);
        self.insert(i);
    }

    pub fn disarm(&mut self, i: u32) {
        let item = core::mem::replace(&mut self.items[i], Item::NOT_ARMED);
        if item == Item::NOT_ARMED {
            return;
        }
        if item.due() <= self.tick {
            self.items.unlink(&mut self.expired, i);
            return;
        }
        let slot = item.slot();
        self.items.unlink(&mut self.slots[slot], i);
        if self.slots[slot].is_empty() {
            self.occupied[slot / SLOTS].remove(slot % SLOTS);
        }
    }

    /// Moves time on to `now` and takes out one item that has expired.
    pub fn expire(&mut self, now: u64) -> Option<u32> {
        if self.expired.is_empty() {
            self.advance(now);
        }
        let i = self.items.pop(&mut self.expired)?;
        self.items[i] = Item::NOT_ARMED;
        Some(i)
    }

    /// How far time has moved on.
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// When to call [`expire`](Self::expire) next: a deadline, or a slot of the upper level to be spread out.
    pub fn next_tick(&self) -> Option<u64> {
        if !self.expired.is_empty() {
            return Some(self.tick);
        }
        self.next().map(|(at, _)| at)
    }

    /// The next occupied slot: when it begins, and its index. A level ends before the next slot of the level above begins.
    fn next(&self) -> Option<(u64, usize)> {
        (0..LEVELS).find_map(|level| self.next_slot(level))
    }

    /// The next occupied slot of a level.
    fn next_slot(&self, level: usize) -> Option<(u64, usize)> {
        let shift = BITS * level as u32;
        let now = self.tick >> shift;
        let at = now + 1 + self.occupied[level].distance((now as usize + 1) % SLOTS)? as u64;
        Some((at << shift, level * SLOTS + (at as usize) % SLOTS))
    }

    fn advance(&mut self, now: u64) {
        // Nothing is due at a tick again.
        while self.expired.is_empty() && self.tick < now {
            let Some((at, slot)) = self.next().filter(|&(at, _)| at <= now) else {
                self.tick = now;
                return;
            };
            self.tick = at;
            self.occupied[slot / SLOTS].remove(slot % SLOTS);
            let list = core::mem::take(&mut self.slots[slot]);
            if slot < SLOTS {
                // All of them are due, and there is no need to look at them.
                self.expired = list;
            } else {
                self.spread(list);
            }
        }
    }

    fn spread(&mut self, mut list: List) {
        while let Some(i) = self.items.pop(&mut list) {
            self.insert(i);
        }
    }

    fn insert(&mut self, i: u32) {
        let due = self.items[i].due();
        if due <= self.tick {
            self.items.push(&mut self.expired, i);
            return;
        }
        // The highest bit in which they differ says which level tells them apart.
        let level = ((63 - (due ^ self.tick).leading_zeros()) / BITS).min(LEVELS as u32 - 1);
        let shift = BITS * level;
        let ahead = ((due >> shift) - (self.tick >> shift)).min(SLOTS as u64 - 1);
        let slot = level as usize * SLOTS + (((self.tick >> shift) + ahead) as usize) % SLOTS;
        self.items[i].set_slot(slot);
        self.items.push(&mut self.slots[slot], i);
        self.occupied[level as usize].insert(slot % SLOTS);
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

    /// Of both levels, and beyond.
    fn delays() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..200, 0u64..10_000, 0u64..40_000_000]
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(
            ops in prop::collection::vec((0u32..16, delays(), 0u32..16, prop_oneof![0u64..100, 0u64..3_000_000]), 1..100)
        ) {
            let mut w = Wheel::new(16);
            let mut due = [None::<u64>; 16];
            let mut now = 0;
            for (i, delay, gone, step) in ops {
                w.arm(i, now + delay);
                let d = &mut due[i as usize];
                *d = Some(d.unwrap_or(u64::MAX).min(now + delay));
                w.disarm(gone);
                due[gone as usize] = None;
                let earliest = due.iter().flatten().min().copied();
                prop_assert_eq!(w.next_tick().is_some(), earliest.is_some());
                prop_assert!(w.next_tick() <= earliest.map(|at| at.max(now)));
                now += step;
                let expected: Vec<u32> = (0..16u32).filter(|&i| due[i as usize].is_some_and(|d| d <= now)).collect();
                prop_assert_eq!(drain(&mut w, now), expected.clone());
                expected.iter().for_each(|&i| due[i as usize] = None);
            }
        }

        #[test]
        fn sleeping_until_next_tick_misses_nothing(delays in prop::collection::vec(delays(), 1..16)) {
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
