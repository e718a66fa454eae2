//! Ordinary memory that stands for shared memory.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::ptr::NonNull;
use toe_sync::queue::{Phased, QueueMemory};
use toe_sync::words::{SharedCell, Words};

/// Words of zero. The test keeps them until both ends of the queue inside are gone.
pub struct Memory(Box<[SharedCell]>);

impl Memory {
    pub fn new(words: usize) -> Self {
        Self((0..words).map(|_| SharedCell::new(0)).collect())
    }

    /// # Safety
    /// The memory outlives every use of the result.
    pub unsafe fn words(&self) -> Words {
        // SAFETY: a boxed slice of atomics; its lifetime is the caller's business.
        unsafe { Words::new(NonNull::from(&self.0[..]).cast(), self.0.len()) }
    }

    /// A queue of `entries`, then the index words: tail, head.
    ///
    /// # Safety
    /// As for [`words`](Self::words).
    pub unsafe fn queue<T: Phased>(&self, entries: u32) -> QueueMemory<T> {
        // SAFETY: passed on to the caller.
        let words = unsafe { self.words() };
        let len = entries as usize * T::WORDS;
        QueueMemory::new(words.slice(0, len), entries, words.word(len), words.word(len + 1)).expect("sane geometry")
    }

    pub fn queue_len<T: Phased>(entries: u32) -> usize {
        entries as usize * T::WORDS + 2
    }
}
