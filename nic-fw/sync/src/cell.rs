//! Places that two sides hand to each other. With cfg(loom) the model checker sees to it that they never meet there.

use core::mem::MaybeUninit;

/// A word of shared memory.
#[cfg(not(loom))]
pub type Cell = crate::atomic::AtomicU32;

/// A word of shared memory, and a witness that honest sides copy into it and out of it only when it is theirs: relaxed
/// loads of a model checker never see the future, so it could not find a word that is overwritten too early.
#[cfg(loom)]
pub struct Cell(crate::atomic::AtomicU32, loom::cell::UnsafeCell<()>);

#[cfg(loom)]
impl Cell {
    pub fn new(word: u32) -> Self {
        Self(crate::atomic::AtomicU32::new(word), loom::cell::UnsafeCell::new(()))
    }
}

#[cfg(loom)]
impl AsRef<crate::atomic::AtomicU32> for Cell {
    fn as_ref(&self) -> &crate::atomic::AtomicU32 {
        &self.0
    }
}

/// `cell` is being copied into.
pub(crate) fn copied_in(_cell: &Cell) {
    #[cfg(loom)]
    _cell.1.with_mut(|_| ());
}

/// `cell` is being copied out of.
pub(crate) fn copied_out(_cell: &Cell) {
    #[cfg(loom)]
    _cell.1.with(|_| ());
}

#[cfg(not(loom))]
pub(crate) struct Slot<T>(core::cell::UnsafeCell<MaybeUninit<T>>);
#[cfg(loom)]
pub(crate) struct Slot<T>(loom::cell::UnsafeCell<MaybeUninit<T>>);

impl<T> Slot<T> {
    pub(crate) fn new() -> Self {
        #[cfg(not(loom))]
        return Self(core::cell::UnsafeCell::new(MaybeUninit::uninit()));
        #[cfg(loom)]
        return Self(loom::cell::UnsafeCell::new(MaybeUninit::uninit()));
    }

    fn with<R>(&self, f: impl FnOnce(*mut MaybeUninit<T>) -> R) -> R {
        #[cfg(not(loom))]
        return f(self.0.get());
        #[cfg(loom)]
        return self.0.with_mut(f);
    }

    /// # Safety
    /// Nobody else touches the slot meanwhile. What it held is forgotten, not dropped.
    pub(crate) unsafe fn put(&self, item: T) {
        // SAFETY: the pointer comes from our own cell, and the caller is alone with it.
        self.with(|slot| unsafe { (*slot).write(item) });
    }

    /// # Safety
    /// Nobody else touches the slot meanwhile, and it holds an item that was `put` and not taken since.
    pub(crate) unsafe fn take(&self) -> T {
        // SAFETY: the pointer comes from our own cell, the caller is alone with it and vouches for the item.
        self.with(|slot| unsafe { (*slot).assume_init_read() })
    }
}
