//! What producing the load costs: time of one kind of call, sampled.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use toe_hal::Clock;

use crate::board::Nanos;

/// One call in so many is measured: a prime, so that it does not fall in step with what repeats every few calls.
const EVERY: u32 = 31;

/// Time spent in one kind of call by one thread, and how often it was measured.
#[derive(Default)]
pub struct Sampled {
    ns: AtomicI64,
    samples: AtomicU64,
}

impl Sampled {
    /// Begins a call; `turns` counts the caller's calls. `None`: this one is not measured.
    pub fn begin(turns: &mut u32) -> Option<u64> {
        *turns = turns.wrapping_add(1);
        turns.is_multiple_of(EVERY).then(|| Nanos.nanos())
    }

    /// Ends it.
    pub fn end(&self, begin: Option<u64>) {
        if let Some(begin) = begin {
            // What the looks at the clock cost is not the call's: so a single call may come out below 0.
            let ns = (Nanos.nanos() - begin) as i64 - Nanos.cost() as i64;
            // One thread writes.
            self.ns.store(self.ns.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
            self.samples.store(self.samples.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// All calls, nanoseconds.
    pub fn total_ns(&self) -> f64 {
        self.ns.load(Ordering::Relaxed).max(0) as f64 * f64::from(EVERY)
    }
}
