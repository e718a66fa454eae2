//! Stacks: each with an unmapped page below, painted, so that what was used of them can be told.
//!
//! ```text
//!   │ guard │ stack ◄── grows down ── top │ guard │ exception stack ── top │
//! ```
//!
//! A bound on the depth of calls needs the compiler's stack sizes, which only its nightly versions print. So: room that is plenty, a
//! guard that faults, and the high-water mark, measured.

use crate::layout::Layout;
use crate::range::{PAGE, Range};
use alloc::alloc::{Layout as Block, alloc};

/// Bytes of a core's stack, and of its stack for exceptions.
pub const STACK: u64 = 128 << 10;
pub const EXCEPTION_STACK: u64 = 16 << 10;
/// Bytes of the unmapped page below each. No frame jumps over it: the compiler has large ones touched page by page (stack probes).
pub const GUARD: u64 = PAGE;

/// What unused words hold.
const PAINT: u64 = 0x5ac3_5ac3_5ac3_5ac3;

/// The stacks of one core.
#[derive(Clone, Copy, Debug)]
pub struct Stacks {
    pub normal: Range,
    pub exceptions: Range,
}

/// Takes the stacks of a core from the heap, and notes their guards.
pub fn make(layout: &mut Layout) -> Option<Stacks> {
    let size = GUARD + STACK + GUARD + EXCEPTION_STACK;
    let block = Block::from_size_align(size as usize, PAGE as usize).ok()?;
    // SAFETY: the size is not 0.
    let base = unsafe { alloc(block) };
    if base.is_null() {
        return None;
    }
    // SAFETY: the block is ours and as long as that.
    unsafe { core::slice::from_raw_parts_mut(base.cast::<u64>(), size as usize / 8) }.fill(PAINT);
    let base = base.expose_provenance() as u64;
    let normal = Range::new(base + GUARD, STACK)?;
    let exceptions = Range::new(normal.end() + GUARD, EXCEPTION_STACK)?;
    layout.guard(Range::new(base, GUARD)?);
    layout.guard(Range::new(normal.end(), GUARD)?);
    Some(Stacks { normal, exceptions })
}

/// Bytes of a stack that have been used so far. It may be that of a core that runs.
pub fn used(stack: Range) -> u64 {
    let words = (stack.base()..stack.end()).step_by(8);
    let untouched = words.take_while(|address| {
        let word = core::ptr::with_exposed_provenance::<u64>(*address as usize);
        // SAFETY: inside a stack that `make` has made, aligned. Another core may write it meanwhile; volatile, as nothing else is
        // concluded from the value.
        unsafe { word.read_volatile() == PAINT }
    });
    stack.len() - 8 * untouched.count() as u64
}

// Said in the symbols of an ELF image, for who asks how much memory it takes.
#[cfg(target_os = "none")]
core::arch::global_asm!(
    ".global __core_stack_bytes, __core_exception_stack_bytes, __core_guard_bytes",
    ".set __core_stack_bytes, {stack}",
    ".set __core_exception_stack_bytes, {exceptions}",
    ".set __core_guard_bytes, {guard}",
    stack = const STACK,
    exceptions = const EXCEPTION_STACK,
    guard = const GUARD,
);
