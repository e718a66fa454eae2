//! Waiting for a device, never for ever.

use core::fmt;
use toe_hal::Clock;

/// A device has not answered in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedOut {
    /// What was waited for.
    pub step: &'static str,
    /// What was read last.
    pub read: u32,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: no answer in time, {:#x} was read last", self.step, self.read)
    }
}

impl core::error::Error for TimedOut {}

/// Reads until the answer is `done`, for at most `limit_us` microseconds. The last look at the device comes after the last one at the
/// clock, so a core that was held up in between does not accuse a device that has answered. The clock must run.
pub fn wait_until(
    clock: &impl Clock,
    limit_us: u64,
    step: &'static str,
    mut read: impl FnMut() -> u32,
    done: impl Fn(u32) -> bool,
) -> Result<u32, TimedOut> {
    let end = clock.nanos().saturating_add(limit_us.saturating_mul(1000));
    loop {
        let is_late = clock.nanos() >= end;
        let value = read();
        if done(value) {
            return Ok(value);
        }
        if is_late {
            return Err(TimedOut { step, read: value });
        }
        core::hint::spin_loop();
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Ten microseconds for each look.
    #[derive(Clone, Default)]
    pub struct TestClock(Arc<AtomicU64>);

    impl Clock for TestClock {
        fn nanos(&self) -> u64 {
            self.0.fetch_add(10_000, Ordering::Relaxed)
        }
    }

    #[test]
    fn an_answer_ends_the_wait() {
        let mut left = 5;
        let read = || {
            left -= 1;
            left
        };
        assert_eq!(wait_until(&TestClock::default(), 1000, "answer", read, |v| v == 0), Ok(0));
    }

    #[test]
    fn silence_ends_it_as_well_and_is_named() {
        let (clock, mut looks) = (TestClock::default(), 0);
        let read = || {
            looks += 1;
            7
        };
        let error = wait_until(&clock, 1000, "answer", read, |v| v == 0).unwrap_err();
        assert_eq!(error, TimedOut { step: "answer", read: 7 });
        assert!((90..=110).contains(&looks), "{looks}");
        assert_eq!(error.to_string(), "answer: no answer in time, 0x7 was read last");
        assert!(wait_until(&clock, 0, "answer", || 1, |v| v == 1).is_ok(), "looks before it gives up");
    }
}
