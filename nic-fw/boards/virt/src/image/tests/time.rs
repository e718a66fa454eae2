//! The counter and the timer.

use super::{Bench, Verdict, check};
use toe_arch::cores;
use toe_arch::time::now_ns;

const MS: u64 = 1_000_000;

pub fn forward(_: &Bench) -> Verdict {
    let (begin, mut last) = (now_ns(), now_ns());
    for _ in 0..10_000 {
        let now = now_ns();
        check!(now >= last, "{last} ns, then {now}");
        last = now;
    }
    check!(last > begin, "it stands still at {last}");
    Ok(())
}

/// A core that is not woken sleeps until its deadline, not only for a moment.
pub fn deadline(_: &Bench) -> Verdict {
    for _ in 0..3 {
        let end = now_ns() + 5 * MS;
        let mut sleeps = 0;
        while now_ns() < end {
            cores::sleep_until(Some(end), |_| ());
            sleeps += 1;
        }
        // A wake that was still pending may end one.
        check!(sleeps <= 3, "{sleeps} sleeps in 5 ms: it does not sleep");
    }
    Ok(())
}

pub fn past(_: &Bench) -> Verdict {
    // Without an end of its own: if the first did not end, neither would the test.
    for ago in [0, 1, MS, now_ns()] {
        cores::sleep_until(Some(now_ns().saturating_sub(ago)), |_| ());
    }
    Ok(())
}
