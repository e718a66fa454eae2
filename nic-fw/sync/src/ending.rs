//! Ending: a position that moves on, and flags beside it, one of which says that it does so no more.
//!
//! ```text
//!   who sends                                who tells the card what there is
//!   ─────────                                ────────────────────────────────
//!   bytes, head = 100   release              look:  flags   acquire    FIN is set:
//!   mark: flags |= FIN  release ◄──────────►        head    acquire    so head is 100
//! ```
//!
//! | word  | written by         | order            | read by       | order   | what the pair guarantees                          |
//! |-------|--------------------|------------------|---------------|---------|---------------------------------------------------|
//! | flags | whoever marks      | release, rmw     | who tells     | acquire | the head that stood when the flag was set is seen |
//! | head  | who sends          | release          | who tells     | acquire | the bytes before it are there                     |
//!
//! The two are different threads, or processes, that share a socket. FIN with an older head would end the stream before its last bytes. A
//! machine that keeps loads and stores in order, as x86 does, never shows that; an Arm core may.

use crate::atomic::{AtomicU32, Ordering};

/// Sets or clears bits of the flags, after what was done before. Returns what they were.
pub fn mark(flags: &AtomicU32, bits: u32, on: bool) -> u32 {
    // Release: with the acquire in `look`. A later marker's exchange hands on what an earlier one released.
    if on { flags.fetch_or(bits, Ordering::Release) } else { flags.fetch_and(!bits, Ordering::Release) }
}

/// Flags and head; the head is at least as new as the flags.
pub fn look(flags: &AtomicU32, head: &AtomicU32) -> (u32, u32) {
    // Acquire: with the release in `mark`. The head is loaded behind it.
    let flags = flags.load(Ordering::Acquire);
    // Acquire: with the release of who moved it; the bytes are in the buffer.
    (flags, head.load(Ordering::Acquire))
}
