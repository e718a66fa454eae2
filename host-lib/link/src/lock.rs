//! A lock in a socket slot: it works between processes, and outlives a holder that was killed.
//!
//! The word is 0, or the holder's thread id, with [`WAITERS`] added by whoever sleeps on it (a shared futex). A waiter looks
//! now and then whether the holder still exists; if not, it takes the lock over: the slot's positions are single words, so
//! what a dead holder leaves is a state between two calls, never half of one.
//! Processes of one family in different PID namespaces cannot see each other's thread ids and must not share sockets.

use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::Timespec;
use std::sync::atomic::{AtomicU32, Ordering};

/// Somebody sleeps on the word. Thread ids stay below 2^22.
pub const WAITERS: u32 = 1 << 31;
/// How often the lock is tried before sleeping.
const SPINS: u32 = 100;
/// How long a waiter sleeps before it looks whether the holder lives.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Held until dropped.
pub struct SlotLock<'a> {
    word: &'a AtomicU32,
    me: u32,
}

impl<'a> SlotLock<'a> {
    /// Takes the lock for thread `me` (not 0), waiting for it.
    pub fn lock(word: &'a AtomicU32, me: u32) -> Self {
        // Acquire: with the release in `drop`; the last holder's positions are visible.
        if word.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
            wait_for(word, me);
        }
        Self { word, me }
    }
}

impl Drop for SlotLock<'_> {
    fn drop(&mut self) {
        // Release: with the acquire in `lock`.
        let was = self.word.swap(0, Ordering::Release);
        if was == self.me | WAITERS {
            let _ = futex::wake(self.word, futex::Flags::empty(), 1);
        }
    }
}

/// The slow half of [`SlotLock::lock`].
#[cold]
fn wait_for(word: &AtomicU32, me: u32) {
    for _ in 0..SPINS {
        // Acquire: as in `lock`.
        if word.load(Ordering::Relaxed) == 0 && word.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return;
        }
        std::hint::spin_loop();
    }
    loop {
        let held = word.load(Ordering::Relaxed);
        // One who has slept takes the lock with WAITERS set, as others may sleep still.
        if held == 0 {
            if word.compare_exchange(0, me | WAITERS, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return;
            }
            continue;
        }
        if held & WAITERS == 0 && word.compare_exchange(held, held | WAITERS, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            continue;
        }
        let sleep = futex::wait(word, futex::Flags::empty(), held | WAITERS, Some(&PATIENCE));
        if sleep == Err(Errno::TIMEDOUT) && !is_alive(held & !WAITERS) {
            // The holder died. Acquire: nobody released it, but what it wrote before its death is coherent memory.
            let mine = me | WAITERS;
            if word.compare_exchange(held | WAITERS, mine, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }
}

/// Whether a thread of this id exists.
fn is_alive(tid: u32) -> bool {
    let Some(pid) = i32::try_from(tid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    // kill(2) with a thread id finds its process; a zombie counts as alive until it is reaped, so waiting goes on that long.
    rustix::process::test_kill_process(pid) != Err(Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn tid() -> u32 {
        rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()
    }

    #[test]
    fn one_at_a_time() {
        let word = Arc::new(AtomicU32::new(0));
        let count = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (word, count) = (word.clone(), count.clone());
                std::thread::spawn(move || {
                    for _ in 0..2000 {
                        let _guard = SlotLock::lock(&word, tid());
                        let n = count.load(Ordering::Relaxed);
                        std::hint::spin_loop();
                        count.store(n + 1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(count.load(Ordering::Relaxed), 8000);
        assert_eq!(word.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_dead_holder_is_succeeded() {
        // Larger than any thread id the kernel gives (PID_MAX_LIMIT is 2^22).
        let word = AtomicU32::new((1 << 22) + 5);
        let guard = SlotLock::lock(&word, tid());
        assert_eq!(word.load(Ordering::Relaxed) & !WAITERS, tid());
        drop(guard);
        assert_eq!(word.load(Ordering::Relaxed), 0);
    }
}
