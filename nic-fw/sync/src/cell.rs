//! A place for one item that two cores hand to each other; loom checks that they never meet in it.

use core::mem::MaybeUninit;

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
