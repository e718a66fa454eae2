//! A crew: which of the cores that work together sleep, and whom a producer has to wake after a burst.
//!
//! ```text
//!   producer, after a burst                          core 2                    core 5
//!   ───────────────────────                          ──────                    ──────
//!   push to rings of cores 2 and 5; touched = {2, 5} prepare(2)                busy
//!   must_wake(touched): one fence(SeqCst)  ◄─────►   fence(SeqCst)
//!     flag 2: parked, kick     ─────────────────►    rings empty: waits
//!     flag 5: awake, nothing to do                   kicked: cancel(2)         finds it when it next looks
//! ```
//!
//! The protocol is that of [`crate::sleep`], with one flag for each core and one fence of the producer for all of them.
//!
//! | word      | written by | order                | read by   | order              | what the pair guarantees                    |
//! |-----------|------------|----------------------|-----------|--------------------|---------------------------------------------|
//! | flag      | its core   | store, fence SeqCst  | producers | fence SeqCst, load | the producer sees the flag, or the core what was pushed |
//!
//! A core that must give others room (it takes from rings that were full) wakes their producers in the same way: who waits
//! for room looks at the ring again after `prepare`, as who waits for items does.

use crate::atomic::{Arc, AtomicU32, Ordering, fence};
use crate::sleep;
use alloc::boxed::Box;

/// Cores that a set has room for.
pub const CORES_MAX: usize = u64::BITS as usize;

/// Some of the cores 0 to 63.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CoreSet(u64);

impl CoreSet {
    pub const EMPTY: Self = Self(0);

    /// Panics if there is no such core, as does every method that takes one.
    pub const fn insert(&mut self, core: usize) {
        self.0 |= bit(core);
    }

    pub const fn remove(&mut self, core: usize) {
        self.0 &= !bit(core);
    }

    pub const fn contains(self, core: usize) -> bool {
        self.0 & bit(core) != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The cores, lowest first.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let core = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (core < CORES_MAX).then_some(core)
        })
    }
}

impl FromIterator<usize> for CoreSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cores: I) -> Self {
        let mut set = Self::EMPTY;
        cores.into_iter().for_each(|core| set.insert(core));
        set
    }
}

const fn bit(core: usize) -> u64 {
    assert!(core < CORES_MAX, "a core of the set");
    1 << core
}

/// A core's flag, alone on its cache lines (two: the neighbour is prefetched on x86).
#[repr(align(128))]
struct Flag(AtomicU32);

/// The flags of all cores.
#[derive(Clone)]
pub struct Crew {
    flags: Arc<Box<[Flag]>>,
}

impl Crew {
    /// A crew of cores 0 to `cores - 1` (at most [`CORES_MAX`]), all awake.
    pub fn new(cores: usize) -> Self {
        assert!(cores <= CORES_MAX, "{cores} cores in a crew of at most {CORES_MAX}");
        Self { flags: Arc::new((0..cores).map(|_| Flag(AtomicU32::new(sleep::AWAKE))).collect()) }
    }

    /// First step of `core` going to sleep: [`sleep::prepare`].
    pub fn prepare(&self, core: usize) {
        sleep::prepare(self.flag(core));
    }

    /// `core` is awake again: [`sleep::cancel`].
    pub fn cancel(&self, core: usize) {
        sleep::cancel(self.flag(core));
    }

    /// Whether `core` sleeps or is about to: for those who watch. Who has work for it asks [`must_wake`](Self::must_wake).
    pub fn is_asleep(&self, core: usize) -> bool {
        sleep::is_parked(self.flag(core))
    }

    /// After a burst that published to the rings of `touched`: the cores that have to be kicked.
    #[must_use = "a sleeper that is not kicked sleeps for ever"]
    pub fn must_wake(&self, touched: CoreSet) -> CoreSet {
        if touched.is_empty() {
            return CoreSet::EMPTY;
        }
        // Partner: the fence in `sleep::prepare`, of each of them.
        fence(Ordering::SeqCst);
        touched.iter().filter(|&core| self.is_asleep(core)).collect()
    }

    fn flag(&self, core: usize) -> &AtomicU32 {
        &self.flags[core].0
    }
}
