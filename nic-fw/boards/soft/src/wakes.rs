//! How a core of the card wakes another, and the clock for measurements.
//!
//! ```text
//!   core A: wake(1) ──► eventfd 1 ──► epoll of core B      edge-triggered: never read, each wake is an event of its own
//! ```
//!
//! A wake that comes while the core is awake stays in its epoll until it waits there the next time, so none is lost.

use rustix::event::EventfdFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::time::ClockId;
use std::io;
use std::sync::Arc;
use toe_hal::Clock;

/// An eventfd for each core. Clones are the same cores'.
#[derive(Clone, Debug)]
pub struct CoreWakes(Arc<[OwnedFd]>);

impl CoreWakes {
    pub fn new(cores: usize) -> io::Result<Self> {
        let eventfd = || rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        Ok(Self((0..cores).map(|_| eventfd()).collect::<Result<_, _>>()?))
    }

    /// What core `core` sleeps on: readable from the first wake on, for good.
    ///
    /// # Panics
    /// If there is no such core.
    pub fn fd(&self, core: usize) -> BorrowedFd<'_> {
        self.0[core].as_fd()
    }

    /// Wakes core `core`, which sleeps or is about to. Never blocks.
    pub fn wake(&self, core: usize) {
        if let Some(fd) = self.0.get(core) {
            // EAGAIN: after 2^64 - 2 wakes. Nothing else can happen to an eventfd that nobody else has.
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }
}

/// The system's monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn nanos(&self) -> u64 {
        let t = rustix::time::clock_gettime(ClockId::Monotonic);
        (t.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::epoll;
    use rustix::time::Timespec;

    /// An epoll that waits for core `core`, as its run loop has it.
    fn sleeper(wakes: &CoreWakes, core: usize) -> OwnedFd {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, wakes.fd(core), epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::ET).unwrap();
        epoll
    }

    fn is_woken(epoll: &OwnedFd, secs: i64) -> bool {
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        epoll::wait(epoll, &mut events[..], Some(&Timespec { tv_sec: secs, tv_nsec: 0 })).unwrap() > 0
    }

    #[test]
    fn a_wake_lasts_until_the_core_has_slept() {
        let wakes = CoreWakes::new(2).unwrap();
        let (zero, one) = (sleeper(&wakes, 0), sleeper(&wakes, 1));
        for _ in 0..3 {
            assert!(!is_woken(&one, 0));
            wakes.clone().wake(1);
            wakes.wake(1);
            assert!(is_woken(&one, 0));
        }
        assert!(!is_woken(&zero, 0), "the other core sleeps on");
        wakes.wake(7);
    }

    #[test]
    fn a_sleeping_core_wakes() {
        let wakes = CoreWakes::new(1).unwrap();
        let epoll = sleeper(&wakes, 0);
        std::thread::scope(|scope| {
            let woken = scope.spawn(|| is_woken(&epoll, 10));
            wakes.wake(0);
            assert!(woken.join().unwrap());
        });
    }

    #[test]
    fn the_clock_goes_on() {
        let before = MonotonicClock.nanos();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(MonotonicClock.nanos() - before >= 1_000_000);
    }
}
