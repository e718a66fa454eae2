//! DCTCP as a rate (as in TAS and FlexTOE): doubles until the first congestion, from then on a step more each interval, or less by the part
//! of the bytes that were marked.

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

/// The step of an interval without congestion (FlexTOE's); where that is less, a window's: two segments more in the interval's two round trips.
/// On a slow path, or a link with many flows, ten megabits more for each are an overload and not a step.
const STEP_KBPS: u32 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// Estimate of the marked part of the bytes (RFC 8257: alpha).
    alpha: f64,
    slow_start: bool,
}

impl Default for State {
    fn default() -> Self {
        Self { alpha: 0.0, slow_start: true }
    }
}

impl State {
    pub fn step(&mut self, p: &Params, rate: u32, i: &Interval) -> u32 {
        if i.acked > 0 {
            let fraction = f64::from(i.marked) / f64::from(i.acked);
            // The first marks count in full: until then there was nothing to estimate.
            let weight = if self.slow_start && i.marked > 0 { 1.0 } else { p.weight };
            self.alpha += weight * (fraction - self.alpha);
        }
        let next = match () {
            // RFC 8257, 3.5: a loss is a loss.
            () if i.loss == Loss::Begins => rate / 2,
            () if i.marked > 0 => scale(rate, 1.0 - self.alpha / 2.0),
            () if i.loss == Loss::GoesOn => rate,
            () if !i.used(rate) => rate,
            () if self.slow_start => rate.saturating_mul(2),
            () if p.mimd > 0.0 => scale(rate, 1.0 + p.mimd),
            () => rate.saturating_add(STEP_KBPS.min(i.least_kbps)),
        };
        self.slow_start &= !(i.loss != Loss::None || i.marked > 0);
        next.max(p.min_kbps).max(i.least_kbps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round in which all of the rate was used.
    fn full(rate: u32, marked_part: f64) -> Interval {
        let acked = rate / 8;
        Interval { elapsed_us: 1000, acked, marked: scale(acked, marked_part), rtt_us: 500, least_kbps: 46_720, loss: Loss::None }
    }

    #[test]
    fn doubles_until_the_first_mark() {
        let (p, mut s) = (Params::default(), State::default());
        assert_eq!(s.step(&p, 100_000, &full(100_000, 0.0)), 200_000);
        assert_eq!(s.step(&p, 200_000, &full(200_000, 0.5)), 150_000, "by a quarter: half of it was marked");
        assert_eq!(s.step(&p, 150_000, &full(150_000, 0.0)), 160_000);
    }

    #[test]
    fn backs_off_by_the_smoothed_part_that_was_marked() {
        let (p, mut s) = (Params::default(), State { alpha: 0.0, slow_start: false });
        assert_eq!(s.step(&p, 1_000_000, &full(1_000_000, 1.0)), 968_750, "1 - 1/32");
        for _ in 0..200 {
            s.step(&p, 1_000_000, &full(1_000_000, 1.0));
        }
        assert!(s.step(&p, 1_000_000, &full(1_000_000, 1.0)) < 501_000);
    }

    #[test]
    fn a_loss_halves() {
        let (p, mut s) = (Params::default(), State::default());
        assert_eq!(s.step(&p, 100_000, &Interval { loss: Loss::Begins, ..full(100_000, 0.0) }), 50_000);
        assert!(!s.slow_start);
        assert_eq!(s.step(&p, 100_000, &Interval { loss: Loss::GoesOn, ..full(100_000, 0.0) }), 100_000);
        assert!(s.step(&p, 100_000, &Interval { loss: Loss::GoesOn, ..full(100_000, 1.0) }) < 100_000, "marks count meanwhile");
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let (p, mut s) = (Params::default(), State::default());
        assert_eq!(s.step(&p, 100_000, &full(80_000, 0.0)), 100_000);
        assert_eq!(s.step(&p, 100_000, &full(90_000, 0.0)), 200_000);
    }

    #[test]
    fn multiplicative_increase_and_floor_are_options() {
        let p = Params { mimd: 0.1, min_kbps: 90_000, ..Params::default() };
        let mut s = State { alpha: 1.0, slow_start: false };
        assert_eq!(s.step(&p, 100_000, &full(100_000, 0.0)), 110_000);
        assert_eq!(s.step(&p, 100_000, &full(100_000, 1.0)), 90_000);
    }

    /// Two flows and a link that marks what exceeds it, in proportion: they come to share it evenly.
    #[test]
    fn flows_converge_to_equal_shares_of_a_link() {
        let p = Params::default();
        let mut flows = [(State { alpha: 0.0, slow_start: false }, 900_000u32), (State::default(), 20_000u32)];
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
