//! A tally: counters that one core keeps and anyone may read.
//!
//! ```text
//!   core A: Tally ──►│ 0 │ 1 │ 2 │ ... │   its own cache lines      add: load, store; no read-modify-write, no lock
//!   core B: Tally ──►│ 0 │ 1 │ 2 │ ... │   its own cache lines
//!                      ▲ TallyReader: whoever adds them up
//! ```
//!
//! | word    | written by | order   | read by | order   | what the pair guarantees                                     |
//! |---------|------------|---------|---------|---------|--------------------------------------------------------------|
//! | counter | its owner  | relaxed | anyone  | relaxed | a value that the counter had; nothing about other counters   |

use crate::atomic::{Arc, AtomicU64, Ordering};
use alloc::boxed::Box;

/// Counters of a [`Line`].
const LINE: usize = 16;

/// Two cache lines: the neighbour is prefetched on x86.
#[repr(align(128))]
struct Line([AtomicU64; LINE]);

struct Counters(Box<[Line]>);

impl Counters {
    fn at(&self, i: usize) -> &AtomicU64 {
        &self.0[i / LINE].0[i % LINE]
    }
}

/// `n` counters, all 0. Asking either end for one that is not there panics.
pub fn tally(n: usize) -> (Tally, TallyReader) {
    let line = |_| Line(core::array::from_fn(|_| AtomicU64::new(0)));
    let counters = Arc::new(Counters((0..n.div_ceil(LINE)).map(line).collect()));
    (Tally(counters.clone()), TallyReader(counters))
}

/// The owner's end: there is one for each tally, and it is not `Clone`.
pub struct Tally(Arc<Counters>);

impl Tally {
    /// Counts `n` more, mod 2^64.
    pub fn add(&mut self, i: usize, n: u64) {
        self.set(i, self.get(i).wrapping_add(n));
    }

    /// For what goes up and down.
    pub fn set(&mut self, i: usize, value: u64) {
        self.0.at(i).store(value, Ordering::Relaxed);
    }

    pub fn get(&self, i: usize) -> u64 {
        self.0.at(i).load(Ordering::Relaxed)
    }
}

/// A reader's end.
#[derive(Clone)]
pub struct TallyReader(Arc<Counters>);

impl TallyReader {
    pub fn get(&self, i: usize) -> u64 {
        self.0.at(i).load(Ordering::Relaxed)
    }
}
