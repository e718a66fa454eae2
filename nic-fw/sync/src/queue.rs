//! Descriptor queues over shared memory, as `toe_abi::desc` describes them: one producer, one consumer.
//!
//! ```text
//!      head (consumer's, in the page)          tail (producer's, in the page: a hint)
//!        ▼                                      ▼
//!   ┌────┬────┬────┬────┬────┬────┬────┬────┬────┬────┐
//!   │ old│ d  │ d  │ d  │ d  │ d  │ d  │ d  │ old│ old│     each `d` ends in its lap's phase
//!   └────┴────┴────┴────┴────┴────┴────┴────┴────┴────┘
//! ```
//!
//! | word  | written by | order   | read by  | order   | what the pair guarantees                                        |
//! |-------|------------|---------|----------|---------|-----------------------------------------------------------------|
//! | phase | producer   | release | consumer | acquire | the descriptor's other words are there                          |
//! | head  | consumer   | release | producer | acquire | the consumer has copied out what the producer will overwrite    |
//! | tail  | producer   | release | whoever attaches | acquire | phases up to here are there                             |
//!
//! Each side keeps a private copy of its own index and never reads it back from the page, except once when it attaches
//! to a queue in use. What the other side writes is a claim: a head that makes no sense means *full* and raises
//! [`Producer::peer_insane`]; descriptors are copied out once, word by word.

#[cfg(not(loom))]
use crate::atomic::AtomicU32;
use crate::atomic::Ordering;
use crate::words::{WORD_LEN, Word, Words};
use core::marker::PhantomData;
#[cfg(not(loom))]
use core::ptr::NonNull;
use toe_abi::control::ControlMsg;
use toe_abi::desc::{self, EventDesc, HostDesc};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A descriptor: plain words, the last of which is the phase. What its field says is overwritten in `push`.
pub trait Phased: Copy + FromBytes + IntoBytes + Immutable {
    /// Words of a descriptor, the phase included.
    const WORDS: usize = {
        assert!(size_of::<Self>().is_multiple_of(WORD_LEN) && size_of::<Self>() >= 2 * WORD_LEN);
        size_of::<Self>() / WORD_LEN
    };
}

impl Phased for HostDesc {}
impl Phased for EventDesc {}
impl Phased for ControlMsg {}

/// Where a queue lies: its descriptors and the two index words of the context page.
pub struct QueueMemory<T> {
    descs: Words,
    entries: u32,
    tail: Word,
    head: Word,
    _type: PhantomData<fn() -> T>,
}

impl<T> Clone for QueueMemory<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for QueueMemory<T> {}

impl<T: Phased> QueueMemory<T> {
    /// `descs` holds exactly `entries` descriptors, a power of two and at least `desc::MIN_ENTRIES`; else `None`.
    pub fn new(descs: Words, entries: u32, tail: Word, head: Word) -> Option<Self> {
        let sane = entries.is_power_of_two() && entries >= desc::MIN_ENTRIES;
        let len = (entries as usize).checked_mul(T::WORDS)?;
        (sane && descs.len() == len).then_some(Self { descs, entries, tail, head, _type: PhantomData })
    }

    /// From addresses: `base` is the first descriptor, `tail` and `head` are the index words in the page.
    ///
    /// # Safety
    /// As [`Words::new`], for `entries` descriptors at `base` and for the two words.
    #[cfg(not(loom))]
    pub unsafe fn from_raw(base: NonNull<T>, entries: u32, tail: NonNull<AtomicU32>, head: NonNull<AtomicU32>) -> Option<Self> {
        let len = (entries as usize).checked_mul(T::WORDS)?;
        // SAFETY: the caller vouches for `entries` descriptors, which are `len` words, and for the index words.
        let (descs, tail, head) = unsafe { (Words::new(base.cast(), len), Word::new(tail), Word::new(head)) };
        Self::new(descs, entries, tail, head)
    }

    /// Descriptors in the queue.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// The words of descriptor number `index`.
    fn desc(&self, index: u32) -> Words {
        self.descs.slice(desc::slot(index, self.entries) as usize * T::WORDS, T::WORDS)
    }

    /// Whether descriptor number `index` has been published (acquire: with the producer's release of the phase).
    fn published(&self, index: u32) -> bool {
        self.desc(index).at(T::WORDS - 1).load(Ordering::Acquire) == desc::phase(index, self.entries)
    }
}

/// The queue is full; the descriptor comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full<T>(pub T);

/// The writing end. There must be one at a time.
pub struct Producer<T> {
    memory: QueueMemory<T>,
    /// Next descriptor to be written.
    tail: u32,
    /// The consumer's index when last looked at.
    head: u32,
    insane: bool,
}

impl<T: Phased> Producer<T> {
    /// The end of a queue that nobody has used: its memory holds zeroes.
    pub fn new(memory: QueueMemory<T>) -> Self {
        Self { memory, tail: 0, head: 0, insane: false }
    }

    /// Goes on where the last producer of this queue stopped, also if it died between a phase and its index.
    pub fn attach(memory: QueueMemory<T>) -> Self {
        // Acquire: with the release in `push` of whoever had this end before.
        let mut tail = memory.tail.load(Ordering::Acquire);
        let head = memory.head.load(Ordering::Acquire);
        while tail.wrapping_sub(head) < memory.entries && memory.published(tail) {
            tail = tail.wrapping_add(1);
        }
        Self::with_position(memory, tail, head)
    }

    /// Goes on at `tail`, the consumer being known to have reached `head`.
    pub fn with_position(memory: QueueMemory<T>, tail: u32, head: u32) -> Self {
        let insane = tail.wrapping_sub(head) > memory.entries;
        // With no credit, the first push looks at the page again.
        let head = if insane { tail.wrapping_sub(memory.entries) } else { head };
        Self { memory, tail, head, insane }
    }

    /// Publishes one descriptor. When it returns, the consumer can see it; whether it must be woken is another
    /// question: [`crate::sleep::must_wake`].
    pub fn push(&mut self, value: T) -> Result<(), Full<T>> {
        if self.credit() == 0 && self.refill() == 0 {
            return Err(Full(value));
        }
        let desc = self.memory.desc(self.tail);
        let (body, _) = value.as_bytes().split_at((T::WORDS - 1) * WORD_LEN);
        desc.store_bytes(body);
        // Release: with the acquire in `Consumer::pop`; the body is there before its phase.
        desc.at(T::WORDS - 1).store(desc::phase(self.tail, self.memory.entries), Ordering::Release);
        self.tail = self.tail.wrapping_add(1);
        // Release: with the acquire in `attach`; the phase is there before the index.
        self.memory.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Descriptors that can be pushed now. Looks at the consumer's index.
    pub fn free(&mut self) -> u32 {
        self.refill()
    }

    /// Number of the next descriptor, mod 2^32.
    pub fn position(&self) -> u32 {
        self.tail
    }

    /// The consumer's index made no sense at some time: it is broken or hostile. The queue stays full from then on
    /// unless the index comes back to its senses.
    pub fn peer_insane(&self) -> bool {
        self.insane
    }

    fn credit(&self) -> u32 {
        self.memory.entries - self.tail.wrapping_sub(self.head)
    }

    fn refill(&mut self) -> u32 {
        // Acquire: with the release in `Consumer::publish`; descriptors up to here have been copied out.
        let head = self.memory.head.load(Ordering::Acquire);
        // Neither past our tail nor back behind what was consumed before.
        if self.tail.wrapping_sub(head) <= self.tail.wrapping_sub(self.head) {
            self.head = head;
        } else {
            self.insane = true;
        }
        self.credit()
    }
}

/// The reading end. There must be one at a time.
pub struct Consumer<T> {
    memory: QueueMemory<T>,
    /// Next descriptor to be read.
    head: u32,
    /// What the page says.
    published: u32,
}

impl<T: Phased> Consumer<T> {
    /// The end of a queue that nobody has used.
    pub fn new(memory: QueueMemory<T>) -> Self {
        Self::with_position(memory, 0)
    }

    /// Goes on where the last consumer's index says. What it had popped and not published comes once more.
    pub fn attach(memory: QueueMemory<T>) -> Self {
        // Acquire: with the release in `publish` of whoever had this end before.
        let head = memory.head.load(Ordering::Acquire);
        Self::with_position(memory, head)
    }

    /// Goes on at `head`.
    pub fn with_position(memory: QueueMemory<T>, head: u32) -> Self {
        Self { memory, head, published: head }
    }

    /// Takes a private copy of the next descriptor, if there is one. A producer that keeps publishing keeps this
    /// returning `Some`: bound what is taken in one visit. Follow a batch with [`publish`](Self::publish).
    pub fn pop(&mut self) -> Option<T> {
        if !self.memory.published(self.head) {
            return None;
        }
        let mut value = T::new_zeroed();
        self.memory.desc(self.head).load_bytes(value.as_mut_bytes());
        self.head = self.head.wrapping_add(1);
        Some(value)
    }

    /// Whether there is nothing to pop now.
    pub fn is_empty(&self) -> bool {
        !self.memory.published(self.head)
    }

    /// Gives the room of everything popped back to the producer.
    pub fn publish(&mut self) {
        if self.published != self.head {
            // Release: with the acquire in `Producer::refill`; our copies were taken before.
            self.memory.head.store(self.head, Ordering::Release);
            self.published = self.head;
        }
    }

    /// Number of the next descriptor, mod 2^32.
    pub fn position(&self) -> u32 {
        self.head
    }
}
