//! TIMELY (Mittal et al., SIGCOMM 2015, algorithm 1): the rate follows the gradient of the round-trip time.

use super::{Interval, Loss, scale};

#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Below this round-trip time the rate grows, above that it falls, whatever the gradient.
    pub low_us: u32,
    pub high_us: u32,
    /// Additive increase.
    pub step_kbps: u32,
    pub init_kbps: u32,
    /// Weight of a difference of round-trip times.
    pub alpha: f64,
    /// Multiplicative decrease.
    pub beta: f64,
    /// Round-trip time without queues.
    pub min_rtt_us: u32,
    /// Floor.
    pub min_kbps: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self { low_us: 30, high_us: 150, step_kbps: 10_000, init_kbps: 10_000, alpha: 0.02, beta: 0.8, min_rtt_us: 11, min_kbps: 10_000 }
    }
}

/// Intervals without a growing round-trip time until increases get larger (hyperactive increase), and by how much.
const HAI_AFTER: u8 = 5;
const HAI_STEPS: u32 = 5;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct State {
    /// 0: none yet.
    prev_rtt_us: u32,
    /// Smoothed difference of round-trip times, microseconds.
    rtt_diff: f64,
    /// Intervals in a row without a growing round-trip time.
    calm: u8,
}

impl State {
    pub fn step(&mut self, p: &Params, rate: u32, i: &Interval) -> u32 {
        if i.rtt_us == 0 {
            return rate;
        }
        let rtt = f64::from(i.rtt_us);
        if self.prev_rtt_us != 0 {
            let new = rtt - f64::from(self.prev_rtt_us);
            self.rtt_diff += p.alpha * (new - self.rtt_diff);
        }
        self.prev_rtt_us = i.rtt_us;
        let gradient = self.rtt_diff / f64::from(p.min_rtt_us.max(1));
        let next = match () {
            // The paper's network loses nothing; ours may.
            () if i.loss == Loss::Begins => rate / 2,
            () if i.rtt_us < p.low_us => self.grow(p, rate, 1, i),
            () if i.rtt_us > p.high_us => {
                self.calm = 0;
                scale(rate, 1.0 - p.beta * (1.0 - f64::from(p.high_us) / rtt))
            }
            () if gradient <= 0.0 => {
                self.calm = self.calm.saturating_add(1);
                let steps = if self.calm >= HAI_AFTER { HAI_STEPS } else { 1 };
                self.grow(p, rate, steps, i)
            }
            () => {
                self.calm = 0;
                scale(rate, 1.0 - p.beta * gradient.min(1.0))
            }
        };
        next.max(p.min_kbps).max(i.least_kbps())
    }

    fn grow(&self, p: &Params, rate: u32, steps: u32, i: &Interval) -> u32 {
        if i.loss == Loss::None && i.used(rate) { rate.saturating_add(p.step_kbps.saturating_mul(steps)) } else { rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 1_000_000;

    fn full(rtt_us: u32) -> Interval {
        Interval { elapsed_us: 1000, acked: RATE / 8, marked: 0, rtt_us, queueing_us: 0, mss: 0, loss: Loss::None }
    }

    fn run(s: &mut State, rtts: &[u32]) -> Vec<u32> {
        rtts.iter().map(|rtt| s.step(&Params::default(), RATE, &full(*rtt))).collect()
    }

    #[test]
    fn below_the_low_threshold_it_grows_however_steep_the_gradient() {
        assert_eq!(run(&mut State::default(), &[5, 10, 20, 29]), [RATE + 10_000; 4]);
    }

    #[test]
    fn above_the_high_threshold_it_falls_however_calm() {
        // beta (1 - 150/300) = 0.4
        assert_eq!(run(&mut State::default(), &[300, 300]), [600_000; 2]);
    }

    #[test]
    fn in_between_it_follows_the_gradient() {
        let mut s = State::default();
        // (60 - 50) * 0.02 / 11 * 0.8
        assert_eq!(run(&mut s, &[50, 60]), [RATE + 10_000, 985_454]);
        // The smoothed difference goes to nothing and below.
        assert!(run(&mut s, &[40; 10]).ends_with(&[RATE + 50_000]), "hyperactive after five calm intervals");
    }

    #[test]
    fn a_loss_halves_and_nothing_goes_below_the_floor() {
        let (p, mut s) = (Params::default(), State::default());
        assert_eq!(s.step(&p, RATE, &Interval { loss: Loss::Begins, ..full(20) }), RATE / 2);
        assert_eq!(s.step(&p, 12_000, &full(100_000)), p.min_kbps);
    }

    #[test]
    fn while_a_loss_is_repaired_it_falls_and_does_not_grow() {
        let (p, mut s) = (Params::default(), State::default());
        let step = |s: &mut State, rtt_us| s.step(&p, RATE, &Interval { loss: Loss::GoesOn, ..full(rtt_us) });
        assert_eq!([step(&mut s, 20), step(&mut s, 300)], [RATE, 600_000]);
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut s = State::default();
        assert_eq!(s.step(&Params::default(), 2 * RATE, &full(20)), 2 * RATE);
    }

    /// A queue that fills with what exceeds the link: the round-trip time settles near the thresholds, and the link is used.
    #[test]
    fn a_bottleneck_is_filled_without_a_long_queue() {
        let p = Params { alpha: 0.875, ..Params::default() };
        let (mut s, mut rate, mut queue_us) = (State::default(), p.init_kbps, 0.0f64);
        let (mut used, mut worst) = (0.0, 0.0f64);
        for round in 0..4000 {
            // Of an interval of 100 us, on a link of 10 Gbit/s.
            queue_us = (queue_us + 100.0 * (f64::from(rate) / 10_000_000.0 - 1.0)).max(0.0);
            let i = Interval { elapsed_us: 100, acked: rate / 80, ..full(11 + queue_us as u32) };
            rate = s.step(&p, rate, &i);
            if round >= 2000 {
                used += f64::from(rate).min(10_000_000.0) / 10_000_000.0 / 2000.0;
                worst = worst.max(queue_us);
            }
        }
        assert!(used > 0.8, "{used}");
        assert!(worst < 400.0, "{worst} us");
    }
}
