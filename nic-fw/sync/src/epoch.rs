//! Epochs: when may memory that other cores could still be using be used again? (Quiescent-state based reclamation.)
//!
//! ```text
//!   writer:  unlink X ── advance() = 7 ── ... ── all_passed(7)? ── reuse X
//!   core A:  ──────[ burst ]─ quiet: 7 ─[ burst ]──────────────
//!   core B:  ──[ burst ]───────────── offline (asleep) ────────
//!                                       └ all_passed(7) is true once each core has said 7, or sleeps
//! ```
//!
//! A core says [`Participant::quiet`] between bursts, when it holds nothing that it found in a shared table, and
//! [`Participant::offline`] before it sleeps, so that a sleeping core delays nobody.
//!
//! | word      | written by | order            | read by | order            | what the pair guarantees                            |
//! |-----------|------------|------------------|---------|------------------|-----------------------------------------------------|
//! | current   | writer     | release          | cores   | acquire          | a core that says epoch n sees what was unlinked before n |
//! | said      | core       | release          | writer  | acquire          | the core's uses before are over                     |
//! | said, waking | core    | store, fence SC  | writer  | fence SC, load   | the core sees the unlinking, or the writer the core |

use crate::atomic::{Arc, AtomicU64, Ordering, fence};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// What a core says that holds nothing until it comes back.
const OFFLINE: u64 = u64::MAX;

/// A core's word, alone on its cache line.
#[repr(align(128))]
struct Said(AtomicU64);

struct Shared {
    current: AtomicU64,
    said: Box<[Said]>,
}

/// A point in time that all cores will have passed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Epoch(u64);

/// Makes a domain of `cores` participants, which start offline.
pub fn domain(cores: usize) -> (Reclaimer, Vec<Participant>) {
    let said = (0..cores).map(|_| Said(AtomicU64::new(OFFLINE))).collect();
    let shared = Arc::new(Shared { current: AtomicU64::new(1), said });
    let participants = (0..cores).map(|core| Participant { shared: shared.clone(), core }).collect();
    (Reclaimer { shared, current: 1 }, participants)
}

/// The writer's end.
pub struct Reclaimer {
    shared: Arc<Shared>,
    current: u64,
}

impl Reclaimer {
    /// Begins a new epoch. What was unlinked before may be reused when [`all_passed`](Self::all_passed) says so.
    pub fn advance(&mut self) -> Epoch {
        self.current += 1;
        // Release: with the acquire in `quiet` and `online`.
        self.shared.current.store(self.current, Ordering::Release);
        // Partner: the fence in `online`.
        fence(Ordering::SeqCst);
        Epoch(self.current)
    }

    /// Whether every core has been quiet, or offline, since `epoch` began.
    pub fn all_passed(&self, epoch: Epoch) -> bool {
        // Acquire: with the release in `quiet` and `offline`.
        self.shared.said.iter().all(|said| said.0.load(Ordering::Acquire) >= epoch.0)
    }
}

/// A core's end.
pub struct Participant {
    shared: Arc<Shared>,
    core: usize,
}

impl Participant {
    fn said(&self) -> &AtomicU64 {
        &self.shared.said[self.core].0
    }

    /// From now on this core uses shared tables. Before the first use, and after each sleep.
    pub fn online(&mut self) {
        let current = self.shared.current.load(Ordering::Acquire);
        self.said().store(current, Ordering::Relaxed);
        // Partner: the fence in `advance`. Either the writer sees us, or we see what it unlinked.
        fence(Ordering::SeqCst);
    }

    /// This core holds nothing that it has found before.
    pub fn quiet(&mut self) {
        // Acquire: with the release in `advance`; what we look up from now on, we find as it is since then.
        let current = self.shared.current.load(Ordering::Acquire);
        // Release: with the acquire in `all_passed`; our uses are over.
        self.said().store(current, Ordering::Release);
    }

    /// This core holds nothing and finds nothing until [`online`](Self::online).
    pub fn offline(&mut self) {
        // Release: as in `quiet`.
        self.said().store(OFFLINE, Ordering::Release);
    }
}
