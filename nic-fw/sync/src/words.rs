//! Shared memory as 32-bit atomic words.
//!
//! This is the one door to memory that another process or a device writes as well. Behind it every access is an atomic
//! one inside checked bounds, so the rest of the crate needs no `unsafe` for shared memory.

use crate::atomic::{AtomicU32, Ordering};
use crate::cell::{Cell, copied_in, copied_out};
use core::ops::Deref;
use core::ptr::NonNull;

pub use crate::cell::Cell as SharedCell;

/// Bytes of a word in shared memory.
pub const WORD_LEN: usize = 4;

/// One shared word.
#[derive(Clone, Copy)]
pub struct Word(NonNull<AtomicU32>);

// SAFETY: a `Word` only gives out `&AtomicU32`, which any thread may use; `Word::new`'s caller vouches for its lifetime.
unsafe impl Send for Word {}
// SAFETY: as above.
unsafe impl Sync for Word {}

impl Word {
    /// # Safety
    /// `word` is aligned and stays valid until the last copy of the result is gone. All of this process's accesses to it
    /// are atomic meanwhile.
    pub const unsafe fn new(word: NonNull<AtomicU32>) -> Self {
        Self(word)
    }
}

impl Deref for Word {
    type Target = AtomicU32;

    fn deref(&self) -> &AtomicU32 {
        // SAFETY: valid and aligned as long as `self` exists, by the contract of `new`.
        unsafe { self.0.as_ref() }
    }
}

/// Some words of shared memory, one behind the other.
#[derive(Clone, Copy)]
pub struct Words {
    base: NonNull<Cell>,
    len: usize,
}

// SAFETY: gives out only `&AtomicU32`, which any thread may use; `Words::new`'s caller vouches for their lifetime.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// # Safety
    /// `base` is aligned and the `len` words from it on stay valid until the last copy of the result (and every [`Word`]
    /// from it) is gone. All of this process's accesses to them are atomic meanwhile; what other processes and devices
    /// write there, and when, does not matter. A [`SharedCell`] is an `AtomicU32` (with cfg(loom): more).
    pub const unsafe fn new(base: NonNull<Cell>, len: usize) -> Self {
        Self { base, len }
    }

    /// How many.
    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Word `i`. Panics outside the bounds given to `new`: indices are ours, never the other side's.
    pub fn at(&self, i: usize) -> &AtomicU32 {
        #[cfg(not(loom))]
        return self.cell(i);
        #[cfg(loom)]
        return self.cell(i).as_ref();
    }

    fn cell(&self, i: usize) -> &Cell {
        assert!(i < self.len, "word {i} of {}", self.len);
        // SAFETY: `i` is in bounds, and the words are valid and aligned by the contract of `new`.
        unsafe { self.base.add(i).as_ref() }
    }

    /// Word `i`, to be kept.
    pub fn word(&self, i: usize) -> Word {
        Word(NonNull::from(self.at(i)))
    }

    /// The `len` words from `start` on. Panics if they are not all there.
    pub fn slice(&self, start: usize, len: usize) -> Words {
        let fits = start.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(fits, "words {start}+{len} of {}", self.len);
        // SAFETY: in bounds, as just checked.
        Words { base: unsafe { self.base.add(start) }, len }
    }

    /// Copies bytes into the words, relaxed, zeroes behind them up to a whole word. For words that have been handed to this side.
    pub fn store_bytes(&self, bytes: &[u8]) {
        let words = self.slice(0, bytes.len().div_ceil(WORD_LEN));
        for (i, chunk) in bytes.chunks(WORD_LEN).enumerate() {
            copied_in(words.cell(i));
            words.at(i).store(word_from(chunk), Ordering::Relaxed);
        }
    }

    /// Copies the words out to `bytes`, once, relaxed. If the other side writes meanwhile, any mixture of old and new words comes out.
    pub fn load_bytes(&self, bytes: &mut [u8]) {
        let words = self.slice(0, bytes.len().div_ceil(WORD_LEN));
        for (i, chunk) in bytes.chunks_mut(WORD_LEN).enumerate() {
            copied_out(words.cell(i));
            let word = words.at(i).load(Ordering::Relaxed).to_ne_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Up to four bytes as the word that holds them at its front.
fn word_from(bytes: &[u8]) -> u32 {
    let mut word = [0; WORD_LEN];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_ne_bytes(word)
}
