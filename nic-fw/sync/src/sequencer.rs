//! Order: numbers are given before work fans out, and what comes back is released in the order of the numbers.
//!
//! ```text
//!   take() = 4 5 6 7 ──► workers, in any order ──► put(6) put(4) skip(5) ──► next() = 4, 6
//!                                                                            (5 was skipped, 7 is awaited)
//!   credit: at most `capacity` numbers are out, so the buffer behind can't be full
//! ```
//!
//! Each number comes back exactly once, as an item or as a skip. A second time, or a number that was not given, is refused:
//! the item comes back. No atomics: both belong to one core; items reach it by rings.

use alloc::boxed::Box;

/// Gives numbers, as long as there is credit.
pub struct Sequencer {
    next: u32,
    /// Numbers that are out.
    out: u32,
    capacity: u32,
}

impl Sequencer {
    /// For a reorder buffer of this capacity (see [`Reorder::capacity`]).
    pub fn new(capacity: u32) -> Self {
        Self { next: 0, out: 0, capacity }
    }

    /// The next number; `None`: all credit is out.
    pub fn take(&mut self) -> Option<u32> {
        if self.out == self.capacity {
            return None;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.out += 1;
        Some(number)
    }

    /// `n` numbers have been released: [`Reorder::released`] rose by that much.
    pub fn give_back(&mut self, n: u32) {
        debug_assert!(n <= self.out);
        self.out = self.out.saturating_sub(n);
    }

    /// Numbers that can be out at a time.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Numbers that can be taken now.
    pub fn credit(&self) -> u32 {
        self.capacity - self.out
    }
}

#[derive(Clone, Copy)]
enum Place<T> {
    Awaited,
    Skipped,
    Here(T),
}

/// Why a number was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused<T> {
    /// It has come back before.
    Twice(T),
    /// It has been released before, or is too far ahead to have been given.
    OutOfWindow(T),
}

/// Holds items until all numbers before theirs have come back.
pub struct Reorder<T> {
    /// A power of two; the place of number n is n mod its length.
    places: Box<[Place<T>]>,
    next: u32,
}

impl<T> Reorder<T> {
    /// For `capacity` numbers at a time, rounded up to a power of two (at most 2^20).
    pub fn new(capacity: u32) -> Self {
        let capacity = capacity.clamp(1, 1 << 20).next_power_of_two();
        Self { places: (0..capacity).map(|_| Place::Awaited).collect(), next: 0 }
    }

    /// Numbers that can be out at a time.
    pub fn capacity(&self) -> u32 {
        self.places.len() as u32
    }

    /// `number` has come back with `item`.
    pub fn put(&mut self, number: u32, item: T) -> Result<(), Refused<T>> {
        match self.place(number) {
            Some(place @ Place::Awaited) => *place = Place::Here(item),
            Some(_) => return Err(Refused::Twice(item)),
            None => return Err(Refused::OutOfWindow(item)),
        }
        Ok(())
    }

    /// `number` has come back with nothing.
    pub fn skip(&mut self, number: u32) -> Result<(), Refused<()>> {
        match self.place(number) {
            Some(place @ Place::Awaited) => *place = Place::Skipped,
            Some(_) => return Err(Refused::Twice(())),
            None => return Err(Refused::OutOfWindow(())),
        }
        Ok(())
    }

    /// `number` is the next, and its item need not wait: it counts as released. False: it must be [`put`](Self::put).
    #[inline]
    pub fn pass(&mut self, number: u32) -> bool {
        let is_next = number == self.next && !self.is_ready();
        if is_next {
            self.next = number.wrapping_add(1);
        }
        is_next
    }

    /// The next item in order, if all before it have come back. Passes over skips.
    pub fn release(&mut self) -> Option<T> {
        loop {
            let next = self.next;
            let place = self.place(next)?;
            match core::mem::replace(place, Place::Awaited) {
                Place::Awaited => return None,
                Place::Skipped => self.next = next.wrapping_add(1),
                Place::Here(item) => {
                    self.next = next.wrapping_add(1);
                    return Some(item);
                }
            }
        }
    }

    /// What [`release`](Self::release) would give; `None` also if a skip comes first.
    pub fn peek(&self) -> Option<&T> {
        match &self.places[self.next as usize & (self.places.len() - 1)] {
            Place::Here(item) => Some(item),
            Place::Awaited | Place::Skipped => None,
        }
    }

    /// Whether [`release`](Self::release) would get further.
    pub fn is_ready(&self) -> bool {
        !matches!(self.places[self.next as usize & (self.places.len() - 1)], Place::Awaited)
    }

    /// Numbers released or skipped so far, mod 2^32: all below it are done.
    pub fn released(&self) -> u32 {
        self.next
    }

    fn place(&mut self, number: u32) -> Option<&mut Place<T>> {
        let capacity = self.capacity();
        if number.wrapping_sub(self.next) >= capacity {
            return None;
        }
        self.places.get_mut(number as usize & (capacity as usize - 1))
    }
}
