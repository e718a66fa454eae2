//! The shared window ([`toe_abi::window`]) as the card has it mapped.
//!
//! ```text
//!   Window ──► CardEnd        registers, requests, why the card failed
//!          └─► WindowMemory   regions that toed has handed out, for the stages
//! ```
//!
//! *Hostile processes write here at any moment*: it is reached by raw copies and 32-bit atomic loads and stores, never by a reference to
//! plain data, and never by read-modify-write: such an atomic of the guest is none against a process of the host.

mod card;
mod memory;

pub use card::{CardEnd, Facts, Request, fail, host_of};
pub use memory::{ReadWindow, WindowMemory, WindowSlice};

use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use toe_abi::window::{LOG_LEN, LOG_OFF, MEMORY_OFF, valid_len};

/// The window, mapped. Copies are the same window.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    base: NonNull<u8>,
    len: u64,
}

// SAFETY: the window is valid on every core (see `Window::new`); its words are reached by atomics and raw copies only.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

/// The window's length is none that the contract allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadLength(pub u64);

impl Window {
    /// # Safety
    /// `len` bytes at `base`, which is aligned to a page, are mapped as normal memory, coherent with the host, on all cores and for ever, and
    /// this side reaches them only through copies of the result.
    pub unsafe fn new(base: NonNull<u8>, len: u64) -> Result<Self, BadLength> {
        if valid_len(len) { Ok(Self { base, len }) } else { Err(BadLength(len)) }
    }

    #[allow(clippy::len_without_is_empty, reason = "a window is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// A word of the fixed part.
    pub(crate) fn word<const AT: usize>(&self) -> &AtomicU32 {
        const { assert!((AT as u64) < MEMORY_OFF && AT.is_multiple_of(4)) };
        // SAFETY: every window is longer than the fixed part; aligned, as the base is; others use it as an atomic or not at all.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(AT).cast()) }
    }

    /// A word of the log's ring; counted from its begin, and round and round.
    pub(crate) fn log_word(&self, index: u32) -> &AtomicU32 {
        let at = LOG_OFF as usize + 4 * (index as usize % (LOG_LEN as usize / 4));
        // SAFETY: as above: the ring lies in the fixed part.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    /// Where memory at `offset` lies, if all `len` bytes of it may have been handed out.
    fn memory(&self, offset: u64, len: u64) -> Option<*mut u8> {
        // SAFETY: inside the window.
        toe_abi::window::in_memory(offset, len, self.len).then(|| unsafe { self.base.as_ptr().add(offset as usize) })
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use toe_abi::window::WINDOW_MIN;

    /// A window of the least length, all zeroes.
    pub struct TestWindow(pub Window);

    fn layout() -> Layout {
        Layout::from_size_align(WINDOW_MIN as usize, 4096).unwrap()
    }

    impl TestWindow {
        pub fn new() -> Self {
            // SAFETY: the layout is not empty.
            let base = NonNull::new(unsafe { alloc_zeroed(layout()) }).unwrap();
            // SAFETY: fresh memory; tests keep this as long as copies of the window.
            Self(unsafe { Window::new(base, WINDOW_MIN) }.unwrap())
        }

        /// A word, as the host has it.
        pub fn word(&self, at: u64) -> &AtomicU32 {
            assert!(at < WINDOW_MIN && at.is_multiple_of(4));
            // SAFETY: inside the window, aligned.
            unsafe { AtomicU32::from_ptr(self.0.base.as_ptr().add(at as usize).cast()) }
        }
    }

    impl Drop for TestWindow {
        fn drop(&mut self) {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.0.base.as_ptr(), layout()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_the_contract_forbids_are_refused() {
        for len in [0, 4096, 5 << 20, 1 << 35] {
            // SAFETY: nothing is accessed; refused.
            assert_eq!(unsafe { Window::new(NonNull::dangling(), len) }.unwrap_err(), BadLength(len));
        }
    }
}
