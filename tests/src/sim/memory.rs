//! Memory of regions, shared for real, and kept for who is simulated next: making it takes longer than a short simulation.
//!
//! ```text
//!   Pages::any ──► daemon, card and applications see one mapping ──► the last of them lets go ──┐
//!       ▲                                                                                       │
//!       └────────────────────────────── kept by the thread ◄────────────────────────────────────┘
//! ```

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use toe_link::card::{CardError, MemoryOptions, SharedMemory};
use toed::core::Memory;

const PAGE: u64 = 4096;
/// What a thread keeps at most.
const KEPT_MAX: usize = 64;
/// Up to this length zeroes are written; of more the pages are given back, since most were never touched: bytes.
const ZEROED_MAX: u64 = 1 << 19;

thread_local! {
    static KEPT: RefCell<Vec<SharedMemory>> = const { RefCell::new(Vec::new()) };
}

/// Clones are the same memory.
#[derive(Clone)]
pub struct Pages(Rc<Kept>);

struct Kept(Option<SharedMemory>);

impl Drop for Kept {
    fn drop(&mut self) {
        // Not when the thread ends.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_MAX {
                kept.extend(self.0.take());
            }
        });
    }
}

impl Pages {
    /// `len` bytes, rounded up to pages, of anything.
    pub fn any(len: u64) -> Result<Self, CardError> {
        let len = len.next_multiple_of(PAGE);
        let kept = KEPT.with_borrow_mut(|kept| kept.iter().position(|m| m.len() == len).map(|at| kept.swap_remove(at)));
        let memory = kept.map_or_else(|| SharedMemory::create("sim-region", len, MemoryOptions::default()), Ok)?;
        Ok(Self(Rc::new(Kept(Some(memory)))))
    }

    pub fn zeroed(len: u64) -> Result<Self, CardError> {
        let pages = Self::any(len)?;
        clear(&pages, 0, pages.len());
        Ok(pages)
    }
}

fn clear(memory: &SharedMemory, offset: u64, len: u64) {
    if len > ZEROED_MAX || offset.checked_add(len).is_none_or(|end| end > memory.len()) {
        return memory.clear(offset, len);
    }
    // SAFETY: inside of the mapping; all who have it run on this thread, and none of them meanwhile.
    unsafe { memory.base().add(offset as usize).write_bytes(0, len as usize) };
}

impl Deref for Pages {
    type Target = SharedMemory;

    fn deref(&self) -> &SharedMemory {
        self.0.0.as_ref().expect("until it is dropped")
    }
}

impl Memory for Pages {
    fn load(&self, offset: u64) -> u32 {
        (**self).load(offset)
    }
    fn store(&self, offset: u64, value: u32) {
        (**self).store(offset, value);
    }
    fn read(&self, offset: u64, out: &mut [u8]) {
        (**self).read(offset, out);
    }
    fn write(&self, offset: u64, bytes: &[u8]) {
        (**self).write(offset, bytes);
    }
    fn clear(&self, offset: u64, len: u64) {
        clear(self, offset, len);
    }
    fn fence(&self) {
        (**self).fence();
    }
}
