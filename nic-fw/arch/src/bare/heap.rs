//! Memory for start-up: taken from the front of one range, given back only by who took last. After [`seal`] there is none.
//!
//! ```text
//!   base ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓░░░░░░░░░░░░░░░░░░░░ end
//!                         next
//! ```

use crate::range::Range;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use spin::Mutex;

struct Bump {
    base: usize,
    next: usize,
    end: usize,
}

pub struct Heap {
    bump: Mutex<Bump>,
    sealed: AtomicBool,
}

#[global_allocator]
static HEAP: Heap = Heap { bump: Mutex::new(Bump { base: 0, next: 0, end: 0 }), sealed: AtomicBool::new(false) };

/// Gives the heap its memory.
///
/// # Safety
/// The range is mapped as normal memory, stays so, and is nobody else's.
pub unsafe fn set(range: Range) {
    let (base, end) = (range.base() as usize, range.end() as usize);
    *HEAP.bump.lock() = Bump { base, next: base, end };
}

/// From now on, whoever allocates panics: the data path must not.
pub fn seal() {
    HEAP.sealed.store(true, Ordering::Release);
}

/// Bytes taken, and bytes there are.
pub fn used() -> (usize, usize) {
    let bump = HEAP.bump.lock();
    (bump.next - bump.base, bump.end - bump.base)
}

impl Bump {
    fn take(&mut self, layout: Layout) -> Option<usize> {
        let start = self.next.checked_next_multiple_of(layout.align())?;
        let next = start.checked_add(layout.size()).filter(|next| *next <= self.end)?;
        self.next = next;
        Some(start)
    }
}

// SAFETY: blocks are parts of one range that nobody else has (`set`), aligned, and disjoint: `next` only goes down by the block
// that was taken last when that is given back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        assert!(!self.sealed.load(Ordering::Acquire), "{} bytes allocated after start-up: nothing may", layout.size());
        self.bump.lock().take(layout).map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let mut bump = self.bump.lock();
        if block.addr() + layout.size() == bump.next {
            bump.next = block.addr();
        }
    }
}
