//! DCTCP as a rate (as in TAS and FlexTOE): doubles until the first congestion; from then on it grows by a step each interval, and falls by
//! the part of the bytes that were marked.
//!
//! ```text
//!   rate' = rate (1 - alpha / 2)   if some were marked, once an interval: two round trips as they are now
//!         + step                   for each interval that the path's round-trip time in congestion makes of the time that has passed
//! ```
//!
//! It rests where the two cancel: rate = 2 step / alpha. So flows that share a queue, and see the same part marked, share it evenly if their
//! steps are the same; nothing that depends on a flow's own rate may come in. TAS takes a step only where nothing was marked: each interval of
//! a slow flow, long as it is, holds a mark, and it never steps up. And intervals while the queue is empty are short for who has a fresh
//! measure of it, and long for who sends little; hence steps by time, and by a round-trip time that does not follow the queue.

use super::{Interval, Loss, scale};

#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Weight of an interval in the estimate of the marked part (RFC 8257: g).
    pub weight: f64,
    /// Multiplicative increase by this part of the rate in place of the step; 0: the step.
    pub mimd: f64,
    /// Floor.
    pub min_kbps: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self { weight: 0.0625, mimd: 0.0, min_kbps: 0 }
    }
}

/// The step of an interval (FlexTOE's); where that is less, a window's: a segment more in a round trip. On a slow path, or a link with many
/// flows, ten megabits more for each are an overload and not a step.
const STEP_KBPS: u32 = 10_000;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct State {
    /// Estimate of the marked part of the bytes (RFC 8257: alpha).
    alpha: f64,
    /// Intervals that alpha is made of; 0: slow start, no congestion yet.
    seen: u32,
    /// Round-trip time in congestion, microseconds, smoothed like alpha.
    congested_us: f64,
}

impl State {
    pub fn step(&mut self, p: &super::Params, rate: u32, i: &Interval) -> u32 {
        self.learn(p.dctcp.weight, i);
        let kept = match i.loss {
            // RFC 8257, 3.5: a loss is a loss.
            Loss::Begins => rate / 2,
            _ if i.marked > 0 => scale(rate, 1.0 - self.alpha / 2.0),
            _ => rate,
        };
        let more = if i.loss == Loss::None && i.used(rate) { self.increase(p, rate, i) } else { 0 };
        // Two segments in a round trip of an empty queue may be most of a short path.
        let least = i.least_kbps().min(i.window_kbps(2, self.congested_us as u64));
        kept.saturating_add(more).max(p.dctcp.min_kbps).max(least)
    }

    fn learn(&mut self, weight: f64, i: &Interval) {
        let congested = i.marked > 0 || i.loss != Loss::None;
        if i.acked == 0 || self.seen == 0 && !congested {
            return;
        }
        self.seen = self.seen.saturating_add(1);
        // Until there are enough intervals for the weight, their mean.
        let weight = weight.max(1.0 / f64::from(self.seen));
        self.alpha += weight * (f64::from(i.marked) / f64::from(i.acked) - self.alpha);
        if congested {
            self.congested_us += weight * (i.queueing_us as f64 - self.congested_us);
        }
    }

    fn increase(&self, p: &super::Params, rate: u32, i: &Interval) -> u32 {
        match () {
            () if self.seen == 0 => rate,
            () if p.dctcp.mimd > 0.0 && i.marked > 0 => 0,
            () if p.dctcp.mimd > 0.0 => scale(rate, p.dctcp.mimd),
            () => {
                let rtt_us = self.congested_us as u64;
                let intervals = i.elapsed_us as f64 / p.interval_us(rtt_us) as f64;
                scale(STEP_KBPS.min(i.window_kbps(1, rtt_us)), intervals)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Params;
    use super::*;

    /// The round-trip time of [`full`]'s path in congestion: with two of them to an interval a step is what ten megabits are, or a segment.
    const RTT_US: u64 = 500;

    /// An interval of the default's least length in which all of the rate was used.
    fn full(rate: u32, marked_part: f64) -> Interval {
        let acked = rate / 8;
        let marked = scale(acked, marked_part);
        let (rtt_us, queueing_us) = (RTT_US as u32, RTT_US);
        Interval { elapsed_us: 1000, acked, marked, rtt_us, queueing_us, mss: 1448, loss: Loss::None }
    }

    /// One that has seen congestion, with such an estimate.
    fn settled(alpha: f64) -> State {
        State { alpha, seen: 1000, congested_us: RTT_US as f64 }
    }

    #[test]
    fn doubles_until_the_first_mark() {
        let (p, mut s) = (Params::default(), State::default());
        assert_eq!(s.step(&p, 100_000, &full(100_000, 0.0)), 200_000);
        assert_eq!(s.step(&p, 200_000, &full(200_000, 0.5)), 160_000, "by a quarter, as half of it was marked, and a step");
        assert_eq!(s.step(&p, 160_000, &full(160_000, 0.0)), 170_000);
    }

    #[test]
    fn backs_off_by_the_smoothed_part_that_was_marked() {
        let (p, mut s) = (Params::default(), settled(0.0));
        assert_eq!(s.step(&p, 1_000_000, &full(1_000_000, 1.0)), 978_750, "1 - 1/32, and a step");
        for _ in 0..200 {
            s.step(&p, 1_000_000, &full(1_000_000, 1.0));
        }
        assert!(s.step(&p, 1_000_000, &full(1_000_000, 1.0)) < 511_000);
    }

    #[test]
    fn the_first_intervals_count_the_same() {
        let (p, mut s) = (Params::default(), State::default());
        for (part, alpha) in [(0.0, 0.0), (1.0, 1.0), (0.0, 0.5), (0.5, 0.5), (0.0, 0.375)] {
            s.step(&p, 100_000, &full(100_000, part));
            assert!((s.alpha - alpha).abs() < 1e-9, "{}", s.alpha);
        }
    }

    #[test]
    fn a_loss_halves() {
        let (p, mut s) = (Params::default(), State::default());
        assert_eq!(s.step(&p, 100_000, &Interval { loss: Loss::Begins, ..full(100_000, 0.0) }), 50_000);
        assert_eq!(s.step(&p, 100_000, &Interval { loss: Loss::GoesOn, ..full(100_000, 0.0) }), 100_000);
        assert!(s.step(&p, 100_000, &Interval { loss: Loss::GoesOn, ..full(100_000, 1.0) }) < 100_000, "marks count meanwhile");
        assert_eq!(s.step(&p, 100_000, &full(100_000, 0.0)), 110_000, "no slow start any more");
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let (p, mut s) = (Params::default(), State::default());
        assert_eq!(s.step(&p, 200_000, &full(100_000, 0.0)), 200_000);
        assert_eq!(s.step(&p, 100_000, &full(90_000, 0.0)), 200_000);
    }

    #[test]
    fn a_step_is_a_segment_in_a_round_trip_on_a_slow_path() {
        let (p, mut s) = (Params::default(), State { congested_us: 10_000.0, ..settled(0.0) });
        // 1448 bytes in 10 ms, for each 20 ms.
        assert_eq!(s.step(&p, 100_000, &Interval { elapsed_us: 20_000, acked: 250_000, ..full(0, 0.0) }), 101_158);
    }

    /// Who hears of its peer less often takes as much, and not less because of a queue that only it still believes in.
    #[test]
    fn steps_go_by_time() {
        let p = Params::default();
        let (mut often, mut seldom) = ((settled(0.1), 50_000), (settled(0.1), 50_000));
        for _ in 0..6 {
            often.1 = often.0.step(&p, often.1, &full(often.1, 0.0));
        }
        let i = Interval { elapsed_us: 6000, acked: 6 * 50_000 / 8, rtt_us: 6000, ..full(0, 0.0) };
        seldom.1 = seldom.0.step(&p, seldom.1, &i);
        assert_eq!((often.1, seldom.1), (110_000, 110_000));
    }

    #[test]
    fn multiplicative_increase_and_floor_are_options() {
        let p = Params { dctcp: super::Params { mimd: 0.1, min_kbps: 90_000, ..Default::default() }, ..Params::default() };
        let mut s = settled(1.0);
        assert_eq!(s.step(&p, 100_000, &full(100_000, 0.0)), 110_000);
        assert_eq!(s.step(&p, 100_000, &full(100_000, 1.0)), 90_000);
    }

    /// Two flows and a link that marks what exceeds it, in proportion: they come to share it evenly.
    #[test]
    fn flows_converge_to_equal_shares_of_a_link() {
        let p = Params::default();
        let mut flows = [(settled(0.0), 900_000u32), (State::default(), 20_000u32)];
        for _ in 0..3000 {
            let sum: u32 = flows.iter().map(|(_, rate)| rate).sum();
            let over = (f64::from(sum) / 1_000_000.0 - 1.0).clamp(0.0, 1.0);
            let part = if over > 0.0 { (over * 10.0).min(1.0) } else { 0.0 };
            for (s, rate) in &mut flows {
                *rate = s.step(&p, *rate, &full(*rate, part));
            }
        }
        let [a, b] = flows.map(|(_, rate)| f64::from(rate));
        assert!((0.8..1.25).contains(&(a / b)), "{a} {b}");
        assert!((800_000.0..1_100_000.0).contains(&(a + b)), "{a} {b}");
    }
}
