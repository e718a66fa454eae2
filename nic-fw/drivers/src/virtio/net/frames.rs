//! The bytes of received frames, for any core.
//!
//! ```text
//!   Lender (receiving core)                                    NetFrames (any core)
//!   lend(index, at, len) ─────Lease──────► ... ──────Lease──────► frame: memory[at..at + len]
//!   take_back            ◄────Lease─────── ... ◄─────Lease──────── read to the end
//! ```
//!
//! A buffer's word says what of it is on loan. It changes only while the lease is with the lender, and what carries the lease to another
//! core and back orders the word and the bytes. So the word itself is relaxed.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use toe_hal::{Frames, Lease};

/// The word of a buffer that is not on loan. (No frame begins where the memory does: each has a header before it.)
const HOME: u64 = 0;
const LEN_BITS: u32 = 24;
const LEN_MAX: usize = (1 << LEN_BITS) - 1;

#[derive(Debug)]
struct Memory {
    base: *const u8,
    len: usize,
    /// Where the frame begins in the upper 40 bits, its length in the lower 24.
    words: Box<[AtomicU64]>,
}

// SAFETY: the pointer is to memory that is valid on every core for ever; who may read or write which bytes is said by leases.
unsafe impl Send for Memory {}
// SAFETY: as above; the words are atomics.
unsafe impl Sync for Memory {}

/// The receiving core's end: lends and takes back.
#[derive(Debug)]
pub(super) struct Lender(Arc<Memory>);

impl Lender {
    /// Lends `buffers` parts of a memory.
    ///
    /// # Safety
    /// `len` bytes at `base` stay readable for ever.
    pub unsafe fn new(base: *const u8, len: usize, buffers: usize) -> Self {
        let words = (0..buffers).map(|_| AtomicU64::new(HOME)).collect();
        Self(Arc::new(Memory { base, len, words }))
    }

    pub fn frames(&self) -> NetFrames {
        NetFrames(self.0.clone())
    }

    /// Lends `len` bytes at `frame` as the frame of buffer `index`. `None`: they don't lie inside, or the buffer is on loan.
    ///
    /// # Safety
    /// Nobody writes the bytes until the lease has been taken back.
    pub unsafe fn lend(&mut self, index: u32, frame: *const u8, len: usize) -> Option<Lease> {
        let word = self.0.words.get(index as usize)?;
        let at = (frame as usize).checked_sub(self.0.base as usize)?;
        let is_inside = at > 0 && len <= LEN_MAX && at.checked_add(len).is_some_and(|end| end <= self.0.len);
        if !is_inside || (at as u64) >> (64 - LEN_BITS) != 0 || word.load(Relaxed) != HOME {
            return None;
        }
        word.store((at as u64) << LEN_BITS | len as u64, Relaxed);
        // SAFETY: the buffer was at home, so no lease of it is out.
        Some(unsafe { Lease::new(index) })
    }

    /// Whether a buffer is not on loan.
    pub fn is_home(&self, index: u32) -> bool {
        self.0.words.get(index as usize).is_some_and(|word| word.load(Relaxed) == HOME)
    }

    /// The buffer of a lease that comes back; nobody reads it any more. `None`: it is not one of ours.
    pub fn take_back(&mut self, lease: Lease) -> Option<u32> {
        let word = self.0.words.get(lease.index() as usize).filter(|word| word.load(Relaxed) != HOME);
        debug_assert!(word.is_some(), "{lease:?} is not on loan");
        word?.store(HOME, Relaxed);
        Some(lease.index())
    }
}

/// The bytes of frames on loan.
#[derive(Clone, Debug)]
pub struct NetFrames(Arc<Memory>);

impl Frames for NetFrames {
    fn frame<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        let word = self.0.words.get(lease.index() as usize).map_or(HOME, |word| word.load(Relaxed));
        if word == HOME {
            return &[];
        }
        let (at, len) = ((word >> LEN_BITS) as usize, word as usize & LEN_MAX);
        // SAFETY: `lend` has checked that at + len lies inside the memory, which stays for ever, and was promised that nobody writes
        // there until the lease is taken back: not before 'a ends, as the lease is borrowed so long.
        unsafe { core::slice::from_raw_parts(self.0.base.add(at), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_lent_once_and_comes_back() {
        let bytes: Vec<u8> = (0..100).collect();
        // SAFETY: the bytes outlive all that the test does with them, and nobody writes them.
        let mut lender = unsafe { Lender::new(bytes.as_ptr(), 100, 2) };
        // SAFETY: as above.
        let lend = |l: &mut Lender, i, p, n| unsafe { l.lend(i, p, n) };
        let at = |n: usize| bytes.as_ptr().wrapping_add(n);
        let lease = lend(&mut lender, 1, at(7), 3).unwrap();
        assert_eq!(lender.frames().frame(&lease), [7, 8, 9]);
        assert_eq!(lend(&mut lender, 1, at(7), 3), None, "on loan");
        assert_eq!(lender.take_back(lease), Some(1));
        for (index, from, len) in [(2, 1, 1), (u32::MAX, 1, 1), (0, 0, 1), (0, 100, 1), (0, 1, 100), (0, 1, usize::MAX), (0, 101, 0)] {
            assert_eq!(lend(&mut lender, index, at(from), len), None, "{index} {from} {len}");
        }
        assert_eq!(lend(&mut lender, 0, at(0).wrapping_sub(1), 1), None);
        for index in [0, 1, 2, u32::MAX] {
            // SAFETY: a lease of nothing, as a confused caller has it.
            let lease = unsafe { Lease::new(index) };
            assert_eq!(lender.frames().frame(&lease), [] as [u8; 0]);
        }
    }
}
