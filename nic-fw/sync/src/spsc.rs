//! A ring between two cores of one side: typed, bounded, one producer, one consumer.
//!
//! ```text
//!          head (consumer's line)      tail (producer's line)
//!            ▼                          ▼
//!   ┌────┬────┬────┬────┬────┬────┬────┬────┐     indices count mod 2^32; each end caches
//!   │    │ x  │ x  │ x  │ x  │ x  │    │    │     the other's and looks again when it must
//!   └────┴────┴────┴────┴────┴────┴────┴────┘
//! ```
//!
//! | word | written by | order   | read by  | order   | what the pair guarantees                       |
//! |------|------------|---------|----------|---------|------------------------------------------------|
//! | tail | producer   | release | consumer | acquire | the items before it are there                  |
//! | head | consumer   | release | producer | acquire | the items before it have been taken            |
//!
//! One acquire for each refill and one release for each batch. Both sides trust each other; for shared memory see
//! [`crate::queue`].

use crate::atomic::{Arc, AtomicU32, Ordering};
use crate::cell::Slot;
use alloc::boxed::Box;

/// An index, alone on its cache lines (two: the neighbour is prefetched on x86).
#[repr(align(128))]
struct Index(AtomicU32);

struct Ring<T> {
    tail: Index,
    head: Index,
    /// A power of two.
    slots: Box<[Slot<T>]>,
}

// SAFETY: items move from the producer's thread to the consumer's (T: Send). A slot is touched by the producer only while
// it is free and by the consumer only while it is full; the indices, with the orders above, hand it over.
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: as above; the ring owns its items.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T> Ring<T> {
    fn slot(&self, index: u32) -> &Slot<T> {
        &self.slots[index as usize & (self.slots.len() - 1)]
    }

    fn capacity(&self) -> u32 {
        self.slots.len() as u32
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let tail = self.tail.0.load(Ordering::Relaxed);
        let mut head = self.head.0.load(Ordering::Relaxed);
        while head != tail {
            // SAFETY: slots from head to tail are full, and both ends are gone.
            drop(unsafe { self.slot(head).take() });
            head = head.wrapping_add(1);
        }
    }
}

/// A ring for `capacity` items, rounded up to a power of two (at most 2^30).
pub fn ring<T: Send>(capacity: u32) -> (Sender<T>, Receiver<T>) {
    let slots = (0..capacity.clamp(1, 1 << 30).next_power_of_two()).map(|_| Slot::new()).collect();
    let ring = Arc::new(Ring { tail: Index(AtomicU32::new(0)), head: Index(AtomicU32::new(0)), slots });
    (Sender { ring: ring.clone(), tail: 0, head: 0 }, Receiver { ring, head: 0, tail: 0 })
}

/// The ring is full; the item comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full<T>(pub T);

/// The producer's end.
pub struct Sender<T> {
    ring: Arc<Ring<T>>,
    tail: u32,
    /// The consumer's index when last looked at.
    head: u32,
}

impl<T: Send> Sender<T> {
    /// Puts one item in.
    pub fn push(&mut self, item: T) -> Result<(), Full<T>> {
        if self.free(1) == 0 {
            return Err(Full(item));
        }
        self.put(item);
        self.publish();
        Ok(())
    }

    /// Puts one item in that the consumer does not see before [`publish`](Self::publish): one release for a burst.
    pub fn stage(&mut self, item: T) -> Result<(), Full<T>> {
        if self.free(1) == 0 {
            return Err(Full(item));
        }
        self.put(item);
        Ok(())
    }

    /// Moves items in as long as there is room; how many. What does not fit stays in `items`.
    pub fn push_batch(&mut self, items: &mut impl ExactSizeIterator<Item = T>) -> usize {
        let room = self.free(items.len().min(self.ring.slots.len()) as u32);
        let mut n = 0;
        for item in items.take(room as usize) {
            self.put(item);
            n += 1;
        }
        if n > 0 {
            self.publish();
        }
        n
    }

    /// Room for items now; looks at the consumer's index only if less than `wanted` is known to be free.
    pub fn free(&mut self, wanted: u32) -> u32 {
        let capacity = self.ring.capacity();
        if capacity - self.tail.wrapping_sub(self.head) < wanted {
            // Acquire: with the release in `Receiver::publish`; the slots' items have been taken.
            self.head = self.ring.head.0.load(Ordering::Acquire);
        }
        capacity - self.tail.wrapping_sub(self.head)
    }

    fn put(&mut self, item: T) {
        // SAFETY: the callers checked that the slot at `tail` is free: `tail - head < capacity`. It is the producer's
        // until `tail` is published past it.
        unsafe { self.ring.slot(self.tail).put(item) };
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the consumer all that was put in.
    pub fn publish(&mut self) {
        // Release: with the acquire in `Receiver::available`; the items are there.
        self.ring.tail.0.store(self.tail, Ordering::Release);
    }
}

/// The consumer's end.
pub struct Receiver<T> {
    ring: Arc<Ring<T>>,
    head: u32,
    /// The producer's index when last looked at.
    tail: u32,
}

impl<T: Send> Receiver<T> {
    /// Takes one item.
    pub fn pop(&mut self) -> Option<T> {
        let mut item = None;
        self.pop_batch(1, |one| item = Some(one));
        item
    }

    /// Takes one item whose place the producer does not get back before [`publish`](Self::publish): one release for a burst.
    pub fn take(&mut self) -> Option<T> {
        if self.available(1) == 0 {
            return None;
        }
        // SAFETY: the slot at `head` is full (`head != tail`), and the consumer's until `head` is published past it.
        let item = unsafe { self.ring.slot(self.head).take() };
        self.head = self.head.wrapping_add(1);
        Some(item)
    }

    /// Takes up to `max` items, one release for all of them; how many.
    pub fn pop_batch(&mut self, max: u32, mut each: impl FnMut(T)) -> u32 {
        let n = self.available(max).min(max);
        for _ in 0..n {
            // SAFETY: the slot at `head` is full (`head != tail`), and the consumer's until `head` is published past it.
            let item = unsafe { self.ring.slot(self.head).take() };
            // Before `each` sees it: if `each` panics, the item must not be taken again.
            self.head = self.head.wrapping_add(1);
            each(item);
        }
        if n > 0 {
            self.publish();
        }
        n
    }

    /// How many items the ring holds at most.
    pub fn capacity(&self) -> u32 {
        self.ring.capacity()
    }

    /// Items to be taken now; looks at the producer's index only if less than `wanted` are known.
    pub fn available(&mut self, wanted: u32) -> u32 {
        if self.tail.wrapping_sub(self.head) < wanted {
            // Acquire: with the release in `Sender::publish`; the items are there.
            self.tail = self.ring.tail.0.load(Ordering::Acquire);
        }
        self.tail.wrapping_sub(self.head)
    }

    /// Gives the producer the places of all that was taken.
    pub fn publish(&mut self) {
        // Release: with the acquire in `Sender::free`; the items have been taken.
        self.ring.head.0.store(self.head, Ordering::Release);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // Items that were staged and never published: without this nobody would drop them.
        self.ring.tail.0.store(self.tail, Ordering::Release);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Items taken in a batch that a panic ended: without this the ring would drop them again.
        self.ring.head.0.store(self.head, Ordering::Release);
    }
}
