//! The memory that received frames lie in: one mapping, lent in slots, read by any core.
//!
//! ```text
//!   Lender (receiving core)                                    SoftFrames (any core)
//!   lend(slot, at, len) ──────Lease──────► ... ──────Lease──────► frame: memory[at..at + len]
//!   take_back           ◄─────Lease─────── ... ◄─────Lease──────── read to the end
//! ```
//!
//! A slot's word says what of it is on loan. It changes only while the lease is with the lender, and whoever holds the lease got it
//! from there: what carried it (a ring between cores) orders the word and the bytes before their reading, and on the way back the
//! reading before the taking back. So the word itself is relaxed.

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use toe_hal::{Frames, Lease};

/// The word of a slot that is not on loan. (No frame begins where the memory does: each has a header before it.)
const HOME: u64 = 0;

#[derive(Debug)]
struct Memory {
    base: *mut u8,
    len: usize,
    /// Where the frame begins in the memory in the upper half, its length in the lower.
    slots: Box<[AtomicU64]>,
}

// SAFETY: the pointer is to a mapping, valid on every thread; who may read or write which bytes is said by leases (see `Lender::lend`).
unsafe impl Send for Memory {}
// SAFETY: as above; the slots are atomics.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: a mapping of ours alone (see `Lender::new`); frames are borrowed from a `SoftFrames`, which keeps it.
        if let Err(error) = unsafe { rustix::mm::munmap(self.base.cast(), self.len) } {
            tracing::error!(%error, "munmap of a port's buffers");
        }
    }
}

/// The receiving core's end: lends and takes back.
#[derive(Debug)]
pub(super) struct Lender(Arc<Memory>);

impl Lender {
    /// Lends from a mapping that exists, unmapped by the last of this and its [`SoftFrames`].
    ///
    /// # Safety
    /// `base` is the start of a mapping of `len` bytes, readable and writable, that nobody else unmaps.
    pub unsafe fn new(base: *mut u8, len: usize, slots: usize) -> Self {
        let slots = (0..slots).map(|_| AtomicU64::new(HOME)).collect();
        Self(Arc::new(Memory { base, len, slots }))
    }

    /// Lends from new memory.
    pub fn allocate(len: usize, slots: usize) -> Result<Self, Errno> {
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }?;
        // SAFETY: just made, and known to nobody else.
        Ok(unsafe { Self::new(base.cast(), len, slots) })
    }

    pub fn frames(&self) -> SoftFrames {
        SoftFrames(self.0.clone())
    }

    pub fn slots(&self) -> usize {
        self.0.slots.len()
    }

    pub fn bytes(&self) -> usize {
        self.0.len
    }

    /// The memory, for the port's own reading and writing of what is not on loan.
    pub fn base(&self) -> *mut u8 {
        self.0.base
    }

    pub fn is_lent(&self, slot: usize) -> bool {
        self.0.slots.get(slot).is_some_and(|word| word.load(Ordering::Relaxed) != HOME)
    }

    /// Lends `len` bytes at `at` of the memory as `slot`'s frame. `None`: they don't lie inside, or the slot is on loan already.
    ///
    /// # Safety
    /// They were written before, and nobody writes them until the lease has been taken back.
    pub unsafe fn lend(&mut self, slot: usize, at: usize, len: usize) -> Option<Lease> {
        let (index, word) = (u32::try_from(slot).ok()?, self.0.slots.get(slot)?);
        let is_inside = at > 0 && at.checked_add(len).is_some_and(|end| end <= self.0.len);
        let (at, len) = (u32::try_from(at).ok()?, u32::try_from(len).ok()?);
        if !is_inside || word.load(Ordering::Relaxed) != HOME {
            return None;
        }
        word.store(u64::from(at) << 32 | u64::from(len), Ordering::Relaxed);
        // SAFETY: the slot was at home, so no lease of it is out.
        Some(unsafe { Lease::new(index) })
    }

    /// The slot of a lease that comes back; nobody reads it any more. `None`: it is not one of ours.
    pub fn take_back(&mut self, lease: Lease) -> Option<usize> {
        let slot = lease.index() as usize;
        if !self.is_lent(slot) {
            debug_assert!(false, "{lease:?} is not on loan");
            return None;
        }
        self.0.slots[slot].store(HOME, Ordering::Relaxed);
        Some(slot)
    }
}

/// The bytes of frames on loan, for any core. The memory stays as long as any of these.
#[derive(Clone, Debug)]
pub struct SoftFrames(Arc<Memory>);

impl SoftFrames {
    /// Of a port that never receives.
    pub fn none() -> Result<Self, Errno> {
        Lender::allocate(1, 0).map(|lender| lender.frames())
    }
}

impl Frames for SoftFrames {
    fn frame<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        let word = self.0.slots.get(lease.index() as usize).map_or(HOME, |word| word.load(Ordering::Relaxed));
        if word == HOME {
            return &[];
        }
        let (at, len) = ((word >> 32) as usize, word as u32 as usize);
        // SAFETY: `lend` has checked that at + len lies inside the memory, which `self` keeps mapped, and was promised that nobody writes
        // there until the lease is taken back: not before 'a ends, as the lease is borrowed so long.
        unsafe { std::slice::from_raw_parts(self.0.base.add(at), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(slots: usize) -> Lender {
        let lender = Lender::allocate(4096, slots).unwrap();
        // SAFETY: a page of our own, nothing on loan.
        (0..4096).for_each(|at| unsafe { lender.base().add(at).write(at as u8) });
        lender
    }

    fn lend(lender: &mut Lender, slot: usize, at: usize, len: usize) -> Option<Lease> {
        // SAFETY: the page was filled, and nobody writes it any more.
        unsafe { lender.lend(slot, at, len) }
    }

    #[test]
    fn a_slot_is_lent_once_and_comes_back() {
        let mut lender = filled(2);
        let lease = lend(&mut lender, 1, 7, 3).unwrap();
        assert!(lender.is_lent(1) && !lender.is_lent(0));
        assert_eq!(lender.frames().frame(&lease), [7, 8, 9]);
        assert_eq!(lend(&mut lender, 1, 20, 1), None, "on loan");
        assert_eq!(lender.take_back(lease), Some(1));
        let lease = lend(&mut lender, 1, 20, 1).unwrap();
        assert_eq!(lender.frames().frame(&lease), [20]);
    }

    #[test]
    fn nothing_outside_is_lent_or_read() {
        let mut lender = filled(2);
        for (slot, at, len) in [(2, 1, 1), (usize::MAX, 1, 1), (0, 4096, 1), (0, 1, 4096), (0, usize::MAX, 2), (0, 0, 1)] {
            assert_eq!(lend(&mut lender, slot, at, len), None, "{slot} {at} {len}");
        }
        assert!(lend(&mut lender, 0, 4095, 1).is_some());
        for index in [1, 2, u32::MAX] {
            // SAFETY: a lease of nothing, as a confused caller has it.
            let lease = unsafe { Lease::new(index) };
            assert_eq!(lender.frames().frame(&lease), [] as [u8; 0]);
        }
    }

    #[test]
    fn the_bytes_outlive_the_port() {
        let mut lender = filled(1);
        let (frames, lease) = (lender.frames(), lend(&mut lender, 0, 7, 3).unwrap());
        drop(lender);
        std::thread::spawn(move || assert_eq!(frames.clone().frame(&lease), [7, 8, 9])).join().unwrap();
    }
}
