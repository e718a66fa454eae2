//! Whose turn it is to log: a lock that is never waited for without a limit, and that the dead do not keep from themselves.
//!
//! ```text
//!   free ──take(core)──► core's ──give(core)──► free        taken by another for too long: false, and whoever wanted it says nothing
//! ```

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Looks before it is given up: some milliseconds, and a frame takes microseconds.
const PATIENCE: u32 = 1_000_000;

const FREE: usize = 0;

/// The lock.
#[derive(Debug)]
pub struct Turn {
    /// [`FREE`], or 1 more than the core that has it.
    holder: AtomicUsize,
    /// How often it was not given.
    missed: AtomicU32,
}

impl Turn {
    #[allow(clippy::new_without_default, reason = "for a static")]
    pub const fn new() -> Self {
        Self { holder: AtomicUsize::new(FREE), missed: AtomicU32::new(0) }
    }

    /// Takes the turn. A core that has it already was torn from what it was saying, and begins anew: `true` as well.
    pub fn take(&self, core: usize) -> bool {
        for _ in 0..PATIENCE {
            // Acquire: with the release of who had it before.
            match self.holder.compare_exchange(FREE, core + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(holder) if holder == core + 1 => return true,
                Err(_) => core::hint::spin_loop(),
            }
        }
        self.missed.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Whether it is this core's.
    pub fn is(&self, core: usize) -> bool {
        self.holder.load(Ordering::Relaxed) == core + 1
    }

    /// Gives it back, if it is this core's.
    pub fn give(&self, core: usize) {
        if self.is(core) {
            self.holder.store(FREE, Ordering::Release);
        }
    }

    /// How often it was not given since this was asked last.
    pub fn take_missed(&self) -> u32 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::UnsafeCell;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn another_cores_turn_is_not_waited_for_without_a_limit() {
        let turn = Turn::new();
        assert!(turn.take(0) && turn.is(0) && !turn.is(1));
        assert!(!turn.take(1) && !turn.is(1));
        assert_eq!((turn.take_missed(), turn.take_missed()), (1, 0));
        turn.give(1);
        assert!(turn.is(0), "it was not its own");
        turn.give(0);
        assert!(turn.take(1));
    }

    #[test]
    fn a_core_that_was_torn_away_gets_it_again() {
        let turn = Turn::new();
        assert!(turn.take(2) && turn.take(2));
        turn.give(2);
        assert!(!turn.is(2) && turn.take(0));
    }

    struct Shared(Turn, UnsafeCell<u64>);
    // SAFETY: the cell is used by who has the turn only; that this holds is what is tested.
    unsafe impl Sync for Shared {}

    #[test]
    fn one_at_a_time() {
        const ROUNDS: u64 = 20_000;
        let shared = Arc::new(Shared(Turn::new(), UnsafeCell::new(0)));
        let workers: Vec<_> = (0..3)
            .map(|core| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let mut done = 0;
                    for _ in 0..ROUNDS {
                        if shared.0.take(core) {
                            // SAFETY: it is our turn.
                            unsafe { *shared.1.get() += 1 };
                            shared.0.give(core);
                            done += 1;
                        }
                    }
                    done
                })
            })
            .collect();
        let done: u64 = workers.into_iter().map(|w| w.join().unwrap()).sum();
        // SAFETY: they have ended.
        assert_eq!(unsafe { *shared.1.get() }, done);
        assert_eq!(done + u64::from(shared.0.take_missed()), 3 * ROUNDS);
    }
}
