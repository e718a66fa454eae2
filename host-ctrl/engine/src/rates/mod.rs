//! Rates of flows: what one is to send, from what the card has counted since last time. Pure: (flow's state, counts, time) -> rate.
//!
//! ```text
//!   card: acknowledged, marked, RTT, sent again ──► Interval ──► step ──► kbit/s ──► card's timing wheel
//!                                                                 └─ dctcp · timely · constant
//! ```
//!
//! One algorithm is one file; [`step`] lists them. A rate that was not used does not grow: a flow that trickles would collect one that no
//! path has ever carried (as RFC 7661 has it for windows).

mod dctcp;
mod timely;

use toe_abi::{control::RateReport, flow::cc};

/// Settings, FlexTOE's `--cc-*` options. Rates are kbit/s, times microseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Least time between two rates of a flow.
    pub granularity_us: u64,
    /// Round-trip times between two rates of a flow.
    pub interval_rtts: u32,
    /// No flow is faster than the link; 0: unknown.
    pub link_kbps: u32,
    pub dctcp: dctcp::Params,
    pub timely: timely::Params,
    /// 0: unlimited.
    pub const_kbps: u32,
}

pub use dctcp::Params as DctcpParams;
pub use timely::Params as TimelyParams;

impl Params {
    /// Least time between two rates of a flow with such a round-trip time.
    fn interval_us(&self, rtt_us: u64) -> u64 {
        rtt_us.saturating_mul(self.interval_rtts.into()).max(self.granularity_us).max(1)
    }
}

impl Default for Params {
    fn default() -> Self {
        Self {
            granularity_us: 1000,
            interval_rtts: 2,
            link_kbps: 40_000_000,
            dctcp: DctcpParams::default(),
            timely: TimelyParams::default(),
            const_kbps: 0,
        }
    }
}

/// A flow and its rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    /// [`cc`].
    algorithm: u8,
    /// 0: unlimited.
    rate_kbps: u32,
    /// Counts at the last step, and when that was.
    last: Option<(RateReport, u64)>,
    /// While the last loss is repaired: what will have been acknowledged when it is (RFC 6582: recover).
    recover: Option<u32>,
    dctcp: dctcp::State,
    timely: timely::State,
}

/// What happened since the last step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Microseconds, not 0.
    pub elapsed_us: u64,
    /// Bytes acknowledged, and those of them that were marked.
    pub acked: u32,
    pub marked: u32,
    /// As the card has smoothed it; 0: no sample yet.
    pub rtt_us: u32,
    /// As it is now, see [`queueing_us`].
    pub queueing_us: u64,
    pub mss: u32,
    pub loss: Loss,
}

/// What was sent again in an interval. What was under way with the first loss, is repaired over many of them and is one occasion to slow down
/// (as RFC 6582 has it for windows); what was sent behind it is another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    None,
    /// For the first time.
    Begins,
    GoesOn,
}

impl Interval {
    /// So many segments in a round-trip time.
    fn window_kbps(&self, segments: u32, rtt_us: u64) -> u32 {
        u32::try_from(u64::from(self.mss) * u64::from(segments) * 8000 / rtt_us.max(1)).unwrap_or(u32::MAX)
    }

    /// The slowest rate that makes sense: two segments per round-trip time, as the least window is (RFC 5681, (4)).
    fn least_kbps(&self) -> u32 {
        self.window_kbps(2, self.queueing_us.max(self.rtt_us.into()))
    }

    /// What was sent, as far as it has arrived.
    fn sent_kbps(&self) -> u64 {
        u64::from(self.acked) * 8000 / self.elapsed_us.max(1)
    }

    /// Whether most of `rate_kbps` was used: what is sent may be up to a fifth less.
    fn used(&self, rate_kbps: u32) -> bool {
        self.sent_kbps().saturating_mul(6) >= u64::from(rate_kbps).saturating_mul(5)
    }
}

/// What a flow begins with before anything is known of its path.
const INITIAL_KBPS: u32 = 10_000;
/// Slowest rate of all: a full segment in 1.2 s.
const LEAST_KBPS: u32 = 10;
/// RFC 6928, bytes.
const INITIAL_WINDOW: u64 = 14_600;
/// Counts that are older than so many intervals say nothing of the path now.
const STALE_INTERVALS: u64 = 16;

/// The rate of a new flow: a first window per round trip. `rtt_us`: 0 if unknown.
pub fn initial_kbps(p: &Params, algorithm: u8, rtt_us: u32) -> u32 {
    let window = match rtt_us {
        0 => INITIAL_KBPS,
        rtt => u32::try_from(INITIAL_WINDOW * 8000 / u64::from(rtt)).unwrap_or(u32::MAX),
    };
    match algorithm {
        cc::CONST_RATE => p.const_kbps,
        cc::TIMELY => clamp(p, p.timely.init_kbps),
        _ => clamp(p, window.max(p.dctcp.min_kbps)),
    }
}

fn clamp(p: &Params, kbps: u32) -> u32 {
    let link = if p.link_kbps == 0 { u32::MAX } else { p.link_kbps };
    kbps.clamp(LEAST_KBPS, link.max(LEAST_KBPS))
}

/// How long it takes until what is under way will be acknowledged, at the pace of late: nearly the round-trip time now (Little's law). The
/// estimate of the card is older by as much; while a queue builds up, rates that fell each two of *those* would fall on and on before it is
/// felt. And that of a slow flow is too long: it has few samples, each with a delayed acknowledgement's wait for the next segment.
fn queueing_us(unacked: u32, acked: u32, elapsed_us: u64) -> u64 {
    u64::from(unacked) * elapsed_us.min(1 << 30) / u64::from(acked.max(1))
}

/// `rate` times `factor`, which is not negative.
fn scale(rate: u32, factor: f64) -> u32 {
    (f64::from(rate) * factor).min(f64::from(u32::MAX)) as u32
}

impl Flow {
    pub fn new(p: &Params, algorithm: u8, rtt_us: u32) -> Self {
        let rate_kbps = initial_kbps(p, algorithm, rtt_us);
        Self { algorithm, rate_kbps, last: None, recover: None, dctcp: dctcp::State::default(), timely: timely::State::default() }
    }

    pub fn algorithm(&self) -> u8 {
        self.algorithm
    }

    /// 0: unlimited.
    pub fn rate_kbps(&self) -> u32 {
        self.rate_kbps
    }

    /// The card has reported: a step is taken if it is time for one.
    pub fn report(&mut self, p: &Params, report: &RateReport, now_us: u64) {
        let Some((last, at_us)) = self.last else {
            self.last = Some((*report, now_us));
            return;
        };
        let elapsed_us = now_us.saturating_sub(at_us);
        let acked = report.acked.wrapping_sub(last.acked);
        let queueing_us = queueing_us(report.unacked, acked, elapsed_us);
        let interval_us = p.interval_us(report.srtt_us.into()).max(queueing_us);
        if elapsed_us < interval_us {
            return;
        }
        self.last = Some((*report, now_us));
        // A card may say anything.
        let marked = report.marked.wrapping_sub(last.marked).min(acked);
        // The flow has been silent most of the time.
        if elapsed_us > interval_us.saturating_mul(STALE_INTERVALS) {
            return;
        }
        let loss = self.loss(&last, report);
        let (rtt_us, mss) = (report.srtt_us, report.mss);
        self.step(p, &Interval { elapsed_us, acked, marked, rtt_us, queueing_us, mss, loss });
    }

    fn loss(&mut self, last: &RateReport, now: &RateReport) -> Loss {
        self.recover = self.recover.filter(|recover| recover.wrapping_sub(last.acked).cast_signed() > 0);
        match self.recover {
            _ if now.retransmits == last.retransmits => Loss::None,
            Some(_) => Loss::GoesOn,
            None => {
                self.recover = Some(now.acked.wrapping_add(now.unacked));
                Loss::Begins
            }
        }
    }

    /// The rate after an interval.
    fn step(&mut self, p: &Params, i: &Interval) {
        let rate = match self.algorithm {
            cc::DCTCP_RATE => self.dctcp.step(p, self.rate_kbps, i),
            cc::TIMELY => self.timely.step(&p.timely, self.rate_kbps, i),
            _ => return,
        };
        self.rate_kbps = clamp(p, rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report(acked: u32) -> RateReport {
        RateReport { acked, srtt_us: 500, ..RateReport::default() }
    }

    #[test]
    fn begins_with_a_window_per_round_trip() {
        let p = Params::default();
        assert_eq!(initial_kbps(&p, cc::DCTCP_RATE, 1000), 116_800);
        assert_eq!(initial_kbps(&p, cc::DCTCP_RATE, 0), 10_000);
        assert_eq!(initial_kbps(&p, cc::DCTCP_RATE, 1), p.link_kbps);
        assert_eq!(initial_kbps(&p, cc::TIMELY, 1000), p.timely.init_kbps);
        assert_eq!(initial_kbps(&Params { const_kbps: 7, ..p }, cc::CONST_RATE, 1000), 7);
    }

    #[test]
    fn a_step_takes_its_interval() {
        let p = Params { granularity_us: 100, ..Params::default() };
        let mut f = Flow::new(&p, cc::DCTCP_RATE, 1000);
        let first = f.rate_kbps();
        f.report(&p, &report(0), 0);
        // Two round-trip times are 1000 us.
        f.report(&p, &report(100_000), 999);
        assert_eq!(f.rate_kbps(), first);
        f.report(&p, &report(100_000), 1000);
        assert_eq!(f.rate_kbps(), 2 * first);
    }

    #[test]
    fn a_step_waits_until_what_was_under_way_has_been_acknowledged() {
        let p = Params { granularity_us: 100, ..Params::default() };
        let mut f = Flow::new(&p, cc::DCTCP_RATE, 1000);
        let first = f.rate_kbps();
        let busy = |acked| RateReport { unacked: 300_000, ..report(acked) };
        f.report(&p, &busy(0), 0);
        for ms in 1..24 {
            // 100 Mbit/s: 24 ms.
            f.report(&p, &busy(ms * 12_500), u64::from(ms) * 1000);
            assert_eq!((f.rate_kbps(), f.last.map(|l| l.1)), (first, Some(0)));
        }
        f.report(&p, &busy(300_000), 24_000);
        assert_eq!(f.last.map(|l| l.1), Some(24_000));
    }

    #[test]
    fn a_silence_is_no_interval() {
        let p = Params::default();
        let mut f = Flow::new(&p, cc::DCTCP_RATE, 1000);
        f.report(&p, &report(0), 0);
        let lost = RateReport { retransmits: 9, ..report(1000) };
        f.report(&p, &lost, 1_000_000);
        assert_eq!(f, Flow { last: Some((lost, 1_000_000)), ..Flow::new(&p, cc::DCTCP_RATE, 1000) });
    }

    #[test]
    fn a_loss_that_takes_long_to_repair_halves_once() {
        let p = Params::default();
        let mut f = Flow::new(&p, cc::DCTCP_RATE, 1000);
        let first = f.rate_kbps();
        for i in 0..20 {
            let retransmits = i.clamp(4, 6);
            f.report(&p, &RateReport { retransmits, unacked: 10_000, ..report(i * 10_000) }, u64::from(i) * 10_000);
        }
        assert_eq!(f.rate_kbps(), first / 2);
    }

    /// A rate above the path's loses in each interval.
    #[test]
    fn a_loss_behind_what_was_under_way_halves_again() {
        let p = Params::default();
        let mut f = Flow::new(&p, cc::DCTCP_RATE, 1000);
        let first = f.rate_kbps();
        for i in 0..=5 {
            f.report(&p, &RateReport { retransmits: i, unacked: 10_000, ..report(i * 10_000) }, u64::from(i) * 10_000);
        }
        // With 10,000 acknowledged, 30,000 and 50,000.
        assert_eq!(f.rate_kbps(), first / 2 / 2 / 2);
    }

    #[test]
    fn a_constant_rate_stays() {
        let p = Params { const_kbps: 5000, ..Params::default() };
        let mut f = Flow::new(&p, cc::CONST_RATE, 0);
        for i in 0..100 {
            f.report(&p, &RateReport { retransmits: i, marked: i * 1000, ..report(i * 1000) }, u64::from(i) * 5000);
        }
        assert_eq!(f.rate_kbps(), 5000);
    }

    proptest! {
        #[test]
        fn no_report_makes_a_rate_that_is_none(
            algorithm in prop::sample::select(vec![cc::DCTCP_RATE, cc::TIMELY]),
            reports in prop::collection::vec((any::<[u32; 6]>(), 0u64..1_000_000), 0..100),
            rtt_us: u32, link_kbps: u32,
        ) {
            let p = Params { link_kbps, ..Params::default() };
            let mut f = Flow::new(&p, algorithm, rtt_us);
            let mut now = 0;
            for ([acked, marked, srtt_us, retransmits, unacked, mss], wait) in reports {
                now += wait;
                f.report(&p, &RateReport { acked, marked, srtt_us, retransmits, unacked, mss, ..RateReport::default() }, now);
                let most = if link_kbps == 0 { u32::MAX } else { link_kbps.max(LEAST_KBPS) };
                prop_assert!((LEAST_KBPS..=most).contains(&f.rate_kbps()));
            }
        }
    }
}
