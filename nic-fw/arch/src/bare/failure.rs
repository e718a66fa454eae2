//! Why the machine ends: told on the console, then to the board, once, whoever fails first.
//!
//! ```text
//!   panic ─────┐
//!   exception ─┼─► begin ─► console ─► board ─► end(verdict)        another core that fails meanwhile waits, and only ends;
//!   refuse ────┘   once                                             the same core, failing in here, ends at once
//! ```
//!
//! Nothing here takes a lock without a limit, and nothing allocates: the one who fails may hold any lock there is.

use super::{cores, time};
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

/// How long a core that fails while another one reports waits for it, nanoseconds.
const PATIENCE_NS: u64 = 500_000_000;
/// The same, if there is no clock: looks.
const PATIENCE: u32 = 50_000_000;

/// What a board is told of a failure. It has to get by without locks that others may hold, and must not allocate.
#[derive(Clone, Copy)]
pub struct Failure<'a> {
    /// The core that failed, as [`cores::index`].
    pub core: usize,
    /// What it was doing, as it has said itself.
    pub doing: &'static str,
    /// What went wrong, and where; one line, but a panic's message may have more.
    pub what: fmt::Arguments<'a>,
}

/// Nobody has failed.
const NOBODY: usize = 0;
/// What was to be told has been told.
const TOLD: usize = usize::MAX;

/// [`NOBODY`], [`TOLD`], or 1 more than the core that reports.
static REPORTER: AtomicUsize = AtomicUsize::new(NOBODY);

/// Whether this core is the first to fail, and so the one that reports.
pub(crate) fn begin() -> bool {
    let me = cores::index() + 1;
    match REPORTER.compare_exchange(NOBODY, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => true,
        Err(other) => {
            if other != me {
                wait();
            }
            false
        }
    }
}

/// Until the one who reports has done so: whoever ends the machine first must not cut it short.
fn wait() {
    let end = time::now_ns().saturating_add(PATIENCE_NS);
    for _ in 0..PATIENCE {
        if REPORTER.load(Ordering::Acquire) == TOLD || time::now_ns() > end {
            return;
        }
        core::hint::spin_loop();
    }
}

/// Tells the board. Only after [`begin`] has said so.
pub(crate) fn tell(what: fmt::Arguments<'_>) {
    unsafe extern "Rust" {
        fn toe_board_failed(failure: &Failure<'_>);
    }
    let failure = Failure { core: cores::index(), doing: cores::doing(), what };
    // SAFETY: `board!` defines it with this type.
    unsafe { toe_board_failed(&failure) };
    REPORTER.store(TOLD, Ordering::Release);
}
