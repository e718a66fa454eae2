//! What applications may send, over any sequence of takings.
#![cfg(not(loom))]

use proptest::prelude::*;
use std::sync::Barrier;
use toe_sync::share::{Shares, UNITS_PER_US, WEIGHT_DEFAULT, WEIGHT_MAX, time_of};

const SEGMENT: u32 = 64 * 1024;

/// Bytes that a rate brings in a time.
fn bytes_of(kbps: u64, us: u64) -> u64 {
    (u128::from(kbps) * u128::from(us) / 8000) as u64
}

fn burst(kbps: u64) -> u64 {
    (2 * u64::from(SEGMENT)).max(bytes_of(kbps, 1000))
}

/// An application that always has more to send, and a core that does as it is told.
struct Backlogged {
    shares: Shares,
    now: u64,
    from: u64,
    /// When, and how many bytes.
    sent: Vec<(u64, u64)>,
}

impl Backlogged {
    fn new(kbps: u64, start: u64) -> Self {
        let shares = Shares::new(1);
        shares.set(0, WEIGHT_DEFAULT, kbps);
        Self { shares, now: start, from: 0, sent: Vec::new() }
    }

    /// Looks after a while: sends as long as it may, at most `most` segments.
    fn look(&mut self, after_us: u64, bytes: u32, most: usize) {
        self.now += after_us;
        for _ in 0..most {
            if self.now < self.from {
                return;
            }
            self.sent.push((self.now, bytes.into()));
            self.from = self.shares.take(0, bytes, self.now).err().unwrap_or(0);
        }
    }

    /// From each taking on: the most that any window holds beyond the rate.
    fn excess(&self, kbps: u64) -> u64 {
        let (mut most, mut ahead, mut last) = (0, 0u64, 0);
        for &(at, bytes) in &self.sent {
            // A bucket that drains at the rate holds what the worst window up to now has too much.
            ahead = ahead.saturating_sub(bytes_of(kbps, at - last)) + bytes;
            (most, last) = (most.max(ahead), at);
        }
        most
    }

    fn total(&self) -> u64 {
        self.sent.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// From a modem to more than there is; several that do not divide evenly.
fn rates() -> impl Strategy<Value = u64> {
    prop_oneof![1u64..1000, 1000u64..1_000_000, 1_000_000u64..400_000_000]
}

proptest! {
    /// Whenever it is looked at, whatever it sends: never more than the rate and one burst.
    #[test]
    fn a_rate_is_kept_in_every_window(
        kbps in rates(),
        start in 0u64..1 << 50,
        looks in prop::collection::vec((0u64..3000, 1u32..=SEGMENT, 1usize..30), 1..300),
    ) {
        let mut app = Backlogged::new(kbps, start);
        for (after_us, bytes, most) in looks {
            app.look(after_us, bytes, most);
        }
        // Each window's bytes are whole, its rate's are rounded down.
        prop_assert!(app.excess(kbps) <= burst(kbps) + app.sent.len() as u64, "{} bytes ahead", app.excess(kbps));
    }

    /// Who always has something gets its rate, if it is looked at now and then.
    #[test]
    fn a_backlogged_application_gets_its_rate(
        kbps in 1000u64..100_000_000,
        bytes in prop_oneof![Just(1448u32), Just(SEGMENT)],
        step in 1u64..400,
    ) {
        // Fifty bursts, from when the first one is used up.
        let time_us = 400_000 * burst(kbps) / kbps;
        let step = step.max(time_us / 10_000);
        let mut app = Backlogged::new(kbps, 7);
        app.look(0, SEGMENT, usize::MAX);
        app.sent.clear();
        let begin = app.now;
        while app.now < begin + time_us {
            app.look(step, bytes, usize::MAX);
        }
        let due = bytes_of(kbps, time_us);
        prop_assert!(app.total() + u64::from(SEGMENT) >= due * 95 / 100, "{} of {due}", app.total());
    }

    #[test]
    fn weights_stay_in_their_range(app in 0u16..6, weight in any::<u32>()) {
        let shares = Shares::new(4);
        shares.set(app, weight, 0);
        prop_assert_eq!(shares.weight(app), if app < 4 { weight.clamp(1, WEIGHT_MAX) } else { WEIGHT_DEFAULT });
        shares.reset(app);
        prop_assert_eq!(shares.weight(app), WEIGHT_DEFAULT);
    }
}

#[test]
fn without_a_rate_nothing_waits() {
    let shares = Shares::new(1);
    shares.set(1, 5, 1);
    for app in [0, 1, u16::MAX] {
        assert!((0..1000).all(|_| shares.take(app, u32::MAX, 0).is_ok()));
    }
}

#[test]
fn each_application_has_a_rate_of_its_own() {
    let shares = Shares::new(2);
    shares.set(0, 100, 1);
    assert!(shares.take(0, SEGMENT + 1, 0).is_err());
    shares.set(1, 100, 1);
    assert_eq!((shares.may_send(0, 0).is_ok(), shares.may_send(1, 0).is_ok()), (false, true));
    shares.reset(0);
    assert!(shares.may_send(0, 0).is_ok());
}

/// What an old rate demanded does not outlive it; another weight alone changes nothing.
#[test]
fn another_rate_begins_with_a_burst() {
    let shares = Shares::new(1);
    shares.set(0, 100, 1);
    let wait = shares.take(0, 2 * SEGMENT, 0);
    assert!(wait.is_err_and(|from| from > 500_000_000));
    shares.set(0, 200, 1);
    assert_eq!(shares.may_send(0, 0), wait);
    shares.set(0, 200, 1_000_000);
    assert!(shares.may_send(0, 0).is_ok());
}

#[test]
fn a_debt_is_bounded() {
    let shares = Shares::new(1);
    shares.set(0, 100, 1000);
    let waits: Vec<_> = (0..1000).map(|_| shares.take(0, SEGMENT, 0)).collect();
    // Sixteen segments beyond the burst, and the last one.
    assert_eq!(waits[999], Err(17 * 8 * u64::from(SEGMENT)));
}

#[test]
fn the_clock_may_end() {
    let shares = Shares::new(1);
    shares.set(0, 100, 1);
    for now in [u64::MAX / UNITS_PER_US, u64::MAX] {
        let _ = shares.take(0, u32::MAX, now);
        let _ = shares.may_send(0, now);
    }
}

#[test]
fn times_are_rounded_up() {
    assert_eq!(time_of(125, 1000), 1000 * UNITS_PER_US);
    assert_eq!((time_of(0, 7), time_of(1, u64::MAX), time_of(64, 100_000_000)), (0, 1, 82));
}

/// Two cores take from one rate, each in a virtual time of its own: together no more than one core, but for the segment
/// that each has under way.
#[test]
fn two_cores_stay_within_one_rate() {
    const KBPS: u64 = 1_000_000;
    const END_US: u64 = 5000;
    for _ in 0..50 {
        let shares = Shares::new(1);
        shares.set(0, 100, KBPS);
        let start = Barrier::new(2);
        let core = |bytes: u32| {
            start.wait();
            let (mut sent, mut from) = (0u64, 0);
            for now in 0..END_US {
                while now >= from {
                    sent += u64::from(bytes);
                    from = shares.take(0, bytes, now).err().unwrap_or(from);
                }
            }
            sent
        };
        let sent: u64 = std::thread::scope(|scope| {
            let other = scope.spawn(|| core(1448));
            core(9000) + other.join().expect("no panic")
        });
        let rate = bytes_of(KBPS, END_US);
        assert!(sent <= rate + burst(KBPS) + 2 * u64::from(SEGMENT), "{sent}");
        assert!(sent >= rate * 95 / 100, "{sent}");
    }
}
