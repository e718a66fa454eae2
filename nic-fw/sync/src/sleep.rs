//! Sleep and wake: nobody sleeps with work in front of it, and nobody is woken who is awake.
//!
//! ```text
//!   who wants to sleep                       who has work for it
//!   ──────────────────                       ───────────────────
//!   flag = 1          (relaxed)              publish the work  (release)
//!   fence(SeqCst)  ◄──────── partners ─────► fence(SeqCst)
//!   look again for work                      read flag         (relaxed)
//!     found: flag = 0, go on                   1: kick
//!     none:  wait for a kick, flag = 0         0: nothing to do
//! ```
//!
//! One of the two fences comes first in the order of all SeqCst fences. If it is the sleeper's, the waker reads 1 and kicks.
//! If it is the waker's, the sleeper's second look finds the work. So at least one of them sees the other. Both may: a kick
//! too many is harmless, as a kick stays pending until it is waited for (an eventfd, an edge in epoll).
//! SeqCst *fences*, not SeqCst accesses: they order the plain accesses around them, on every machine, and loom models them.
//!
//! Who uses it, with which words (`toe_abi::context`):
//!
//! | sleeper     | flag            | what it looks at again                          | waker                   | kick                       |
//! |-------------|-----------------|-------------------------------------------------|-------------------------|----------------------------|
//! | card core   | `card.parked`   | phase of the next descriptor from the host       | application, toed       | the context's kick eventfd |
//! | application | `host.parked`   | phase of the next event, `daemon.notices`        | card                    | the context's interrupt    |
//! | application | `host.parked`   | `daemon.notices`, the slots it subscribed to     | toed                    | the context's interrupt    |
//! | toed        | `host.parked` of context 0 | completions, `tail` of the exception ring | card                | interrupt 0                |
//! | card core   | `card.parked` of context 0 | submissions, `tail` of the packet ring    | toed                | kick eventfd 0             |
//! | card core   | its flag in [`crate::crew`] | its rings, the progress it watches        | another core            | the board's (eventfd, SGI) |
//!
//! Only the sleeper writes its flag. The waker never clears it: it belongs to another side's cache line, which some
//! wakers may only read, and a read-modify-write is not atomic across every link. Until the sleeper runs it may be kicked
//! more than once.
//! One core with many contexts prepares all of their flags, then one fence serves: [`prepare`] may be called for each, and
//! the look again begins after the last. A card whose host memory is behind a DMA engine does the same by
//! `HostMemory::{store, fence, load}`.

use crate::atomic::{AtomicU32, Ordering, fence};

/// The flag of one who is awake.
pub const AWAKE: u32 = 0;
/// The flag of one who sleeps, or is about to.
pub const PARKED: u32 = 1;

/// First step of going to sleep. Then look again at everything that could be waiting, and call [`cancel`] if something is.
pub fn prepare(flag: &AtomicU32) {
    flag.store(PARKED, Ordering::Relaxed);
    // Partner: the fence in `must_wake`.
    fence(Ordering::SeqCst);
}

/// Awake again: there was work after all, or a kick came, or a deadline passed.
pub fn cancel(flag: &AtomicU32) {
    // Relaxed: a waker that still reads 1 only kicks once too often.
    flag.store(AWAKE, Ordering::Relaxed);
}

/// After publishing work: whether the other side has to be kicked. Any value but 0 counts as parked.
#[must_use = "a sleeper that is not kicked sleeps for ever"]
pub fn must_wake(flag: &AtomicU32) -> bool {
    // Partner: the fence in `prepare`.
    fence(Ordering::SeqCst);
    is_parked(flag)
}

/// What the flag says, without the fence that makes it an answer for a waker.
pub(crate) fn is_parked(flag: &AtomicU32) -> bool {
    flag.load(Ordering::Relaxed) != AWAKE
}

/// A sleeper that can't forget to take its flag back: dropping it is [`cancel`].
#[must_use = "dropped at once, it takes the flag back at once"]
pub struct Sleeper<'a> {
    flag: &'a AtomicU32,
}

impl<'a> Sleeper<'a> {
    /// [`prepare`].
    pub fn prepare(flag: &'a AtomicU32) -> Self {
        prepare(flag);
        Self { flag }
    }

    /// [`cancel`].
    pub fn cancel(self) {}
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        cancel(self.flag);
    }
}
