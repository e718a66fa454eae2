//! What holds for any flows, applications and moments at which the scheduler is asked.

use super::*;
use alloc::{vec, vec::Vec};
use proptest::prelude::*;

const QUANTUM: u32 = 16 * 1024;

/// Flows that always have more, segments of one size each, and a wire that takes its time.
struct Bench {
    sched: Sched,
    segment: Vec<u32>,
    sent: Vec<u64>,
    now: Instant,
}

impl Bench {
    /// `flows`: application and bytes of a segment.
    fn new(flows: &[(u16, u32)], shares: Shares) -> Self {
        let mut sched = Sched::new(flows.len(), QUANTUM, shares);
        for (i, &(app, _)) in (0..).zip(flows) {
            sched.assign(i, app);
            sched.ready(i, false);
        }
        Self { sched, segment: flows.iter().map(|&(_, bytes)| bytes).collect(), sent: vec![0; flows.len()], now: Instant(5) }
    }

    /// One segment, if one may go now.
    fn send(&mut self) -> Option<(u32, u32)> {
        let i = self.sched.next(self.now)?;
        let bytes = self.segment[i as usize];
        self.sched.sent(i, bytes, false, self.now);
        self.sent[i as usize] += u64::from(bytes);
        Some((i, bytes))
    }

    /// All that may go now.
    fn send_all(&mut self) -> u64 {
        core::iter::from_fn(|| self.send()).map(|(_, bytes)| u64::from(bytes)).sum()
    }

    fn total(&self) -> u64 {
        self.sent.iter().sum()
    }
}

/// Bytes that a rate brings in a time.
fn bytes_of(kbps: u64, us: u64) -> u64 {
    kbps * us / 8000
}

/// A bucket that drains at a rate: the most that is in it is what the worst window had too much. In 8000ths of a byte.
#[derive(Default)]
struct Bucket {
    level: u64,
    most: u64,
}

impl Bucket {
    fn pass(&mut self, kbps: u64, us: u64, sent: u64) {
        self.level = self.level.saturating_sub(kbps * us) + sent * 8000;
        self.most = self.most.max(self.level);
    }

    fn most_bytes(&self) -> u64 {
        self.most / 8000
    }
}

fn segments() -> impl Strategy<Value = u32> {
    prop_oneof![Just(1448u32), Just(65_160), 100u32..9000]
}

fn flows(apps: u16) -> impl Strategy<Value = Vec<(u16, u32)>> {
    prop::collection::vec((0..apps, segments()), 1..12)
}

/// Looks that come no later cost a paced flow nothing: what is kept for it is for four ticks, and the wheel is late by one.
const LATE_US: u64 = 3 * TICK_US;

/// How long between two looks, microseconds.
fn looks(most: u64) -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(prop_oneof![0..20u64, 0..most], 1..50)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However long it goes on: to within a round of each.
    #[test]
    fn applications_send_by_weight(flows in flows(4), weights in prop::array::uniform4(1u32..=1000), n in 1usize..20_000) {
        let shares = Shares::new(4);
        (0..).zip(weights).for_each(|(app, weight)| shares.set(app, weight, 0));
        let mut bench = Bench::new(&flows, shares);
        for _ in 0..n {
            prop_assert!(bench.send().is_some());
        }
        let mut sent = [None; 4];
        for (&(app, _), bytes) in flows.iter().zip(&bench.sent) {
            *sent[usize::from(app)].get_or_insert(0.0) += *bytes as f64;
        }
        // In rounds: what a round brings, and a segment of the largest beyond.
        let grants = weights.map(|weight| f64::from(weight) * f64::from(QUANTUM) / 100.0);
        let rounds: Vec<(f64, f64)> =
            sent.iter().zip(grants).filter_map(|(sent, grant)| Some(((*sent)? / grant, 1.0 + 65_160.0 / grant))).collect();
        for (a, slack_a) in &rounds {
            for (b, slack_b) in &rounds {
                prop_assert!((a - b).abs() <= slack_a.max(*slack_b), "{a} and {b} rounds");
            }
        }
    }

    /// Flows of one application, whatever their segments: to within a turn.
    #[test]
    fn flows_of_an_application_send_the_same(sizes in prop::collection::vec(64u32..=QUANTUM, 1..12), n in 1usize..5000) {
        let flows: Vec<(u16, u32)> = sizes.into_iter().map(|bytes| (0, bytes)).collect();
        let mut bench = Bench::new(&flows, Shares::new(1));
        for _ in 0..n {
            prop_assert!(bench.send().is_some());
        }
        let (least, most) = (bench.sent.iter().min().expect("one"), bench.sent.iter().max().expect("one"));
        prop_assert!(most - least <= 2 * u64::from(QUANTUM), "{:?}", bench.sent);
    }

    /// Between two segments of a flow, the others of its application have a turn, and the others the rounds for these.
    #[test]
    fn no_flow_starves(flows in flows(4), weights in prop::array::uniform4(1u32..=1000)) {
        let shares = Shares::new(4);
        (0..).zip(weights).for_each(|(app, weight)| shares.set(app, weight, 0));
        let mut bench = Bench::new(&flows, shares);
        let turn = u64::from(QUANTUM) + 65_160;
        let grant = |app: u16| u64::from(weights[usize::from(app)]) * u64::from(QUANTUM) / 100;
        let all: u64 = (0..4).map(|app| grant(app) + 65_160).sum();
        let bound = |app: u16| (2 + flows.iter().filter(|flow| flow.0 == app).count() as u64 * turn / grant(app)) * all;
        let mut last = vec![0; flows.len()];
        for _ in 0..3000 {
            let Some((i, _)) = bench.send() else { return Err(TestCaseError::fail("nobody is ready")) };
            last[i as usize] = bench.total();
            for (&(app, _), last) in flows.iter().zip(&last) {
                prop_assert!(bench.total() - last <= bound(app), "{} bytes of others", bench.total() - last);
            }
        }
    }

    /// Whenever it is looked at, never more than the rate and a small burst; and if looked at often, never less.
    #[test]
    fn a_paced_flow_keeps_its_rate(
        kbps in prop_oneof![1000u32..100_000, 100_000u32..4_000_000],
        looks in prop_oneof![looks(LATE_US), looks(20_000)],
    ) {
        // What a millisecond brings: no great part of the second's bytes.
        let segment = (kbps / 8).min(65_160);
        let mut bench = Bench::new(&[(0, segment)], Shares::new(1));
        bench.sched.set_rate(0, kbps, bench.now);
        let (begin, mut bucket) = (bench.now.0, Bucket::default());
        for step in looks.iter().cycle().map(|&us| us.max(1)) {
            if bench.now.0 + step > begin + 1_000_000 {
                break;
            }
            bench.now = bench.now.add_micros(step);
            let sent = bench.send_all();
            bucket.pass(kbps.into(), step, sent);
        }
        let rate = u64::from(kbps);
        let burst = u64::from(QUANTUM).max(bytes_of(rate, 64)).min(bytes_of(rate, 1000));
        prop_assert!(bucket.most_bytes() <= burst + 1 + u64::from(segment), "{} bytes too many", bucket.most_bytes());
        let second = bytes_of(rate, bench.now.0 - begin);
        prop_assert!(bench.total() <= second * 101 / 100, "{} of {second}", bench.total());
        if looks.iter().all(|&us| us <= LATE_US) {
            prop_assert!(bench.total() >= second * 99 / 100, "{} of {second}", bench.total());
        }
    }

    /// Several flows together, some of them paced, keep to their application's rate; and reach it.
    #[test]
    fn an_application_keeps_its_rate(
        kbps in 50_000u64..4_000_000,
        sizes in prop::collection::vec(64u32..9000, 1..8),
        paces in prop::collection::vec(prop_oneof![Just(0u32), 1000u32..4_000_000], 8),
        looks in looks(400),
    ) {
        let shares = Shares::new(2);
        shares.set(1, 100, kbps);
        let flows: Vec<(u16, u32)> = sizes.into_iter().map(|bytes| (1, bytes)).collect();
        let mut bench = Bench::new(&flows, shares);
        for i in 0..flows.len() as u32 {
            bench.sched.set_rate(i, paces[i as usize], bench.now);
        }
        let (begin, mut bucket) = (bench.now.0, Bucket::default());
        for step in looks.iter().cycle().map(|&us| us.max(1)) {
            if bench.now.0 > begin + 300_000 {
                break;
            }
            bench.now = bench.now.add_micros(step);
            let sent = bench.send_all();
            bucket.pass(kbps, step, sent);
        }
        let burst = (2 * 65_536).max(bytes_of(kbps, 1000));
        prop_assert!(bucket.most_bytes() <= burst + 1, "{} bytes too many", bucket.most_bytes());
        if paces[..flows.len()].contains(&0) {
            let due = bytes_of(kbps, bench.now.0 - begin);
            prop_assert!(bench.total() >= due * 95 / 100, "{} of {due}", bench.total());
        }
    }
}

/// What the owner of the flows does next.
#[derive(Clone, Debug)]
enum Op {
    Ready(u32, bool),
    /// The flow named next sends so much and has more, urgent or not.
    Sends(u32, bool),
    /// The flow named next has nothing to send.
    Idles,
    Forget(u32),
    Assign(u32, u16),
    Pace(u32, u32),
    Limit(u16, u32, u64),
    Wait(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let flow = 0u32..8;
    let rate = prop_oneof![Just(0u32), 1u32..1_000_000];
    let op = prop_oneof![
        4 => (flow.clone(), any::<bool>()).prop_map(|(i, urgent)| Op::Ready(i, urgent)),
        6 => (0u32..70_000, prop::bool::weighted(0.2)).prop_map(|(bytes, urgent)| Op::Sends(bytes, urgent)),
        3 => Just(Op::Idles),
        1 => flow.clone().prop_map(Op::Forget),
        1 => (flow.clone(), 0u16..5).prop_map(|(i, app)| Op::Assign(i, app)),
        1 => (flow, rate.clone()).prop_map(|(i, kbps)| Op::Pace(i, kbps)),
        1 => (0u16..4, 1u32..=1000, rate).prop_map(|(app, weight, kbps)| Op::Limit(app, weight, kbps.into())),
        2 => (0u64..100_000).prop_map(Op::Wait),
    ];
    prop::collection::vec(op, 0..200)
}

/// The scheduler, and which flows have something to send.
struct Model {
    sched: Sched,
    shares: Shares,
    wants: [bool; 8],
    now: Instant,
}

impl Model {
    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Ready(i, urgent) => {
                self.sched.ready(i, urgent);
                self.wants[i as usize] = true;
            }
            Op::Sends(bytes, urgent) => {
                if let Some(i) = self.next()? {
                    self.sched.sent(i, bytes, urgent, self.now);
                }
            }
            Op::Idles => {
                if let Some(i) = self.next()? {
                    self.sched.idle(i);
                    self.wants[i as usize] = false;
                }
            }
            Op::Forget(i) => {
                self.sched.forget(i);
                self.wants[i as usize] = false;
            }
            Op::Assign(i, app) => {
                self.sched.assign(i, app);
                self.wants[i as usize] = false;
            }
            Op::Pace(i, kbps) => self.sched.set_rate(i, kbps, self.now),
            Op::Limit(app, weight, kbps) => self.shares.set(app, weight, kbps),
            Op::Wait(us) => self.now = self.now.add_micros(us),
        }
        Ok(())
    }

    /// Only who wants is named, somebody is only if that was said, and the same one twice.
    fn next(&mut self) -> Result<Option<u32>, TestCaseError> {
        let any = self.sched.any_ready(self.now);
        let named = self.sched.next(self.now);
        prop_assert!(named.is_none_or(|i| any && self.wants[i as usize]), "{named:?} is named");
        prop_assert_eq!(self.sched.next(self.now), named);
        prop_assert!(named.is_some() || !self.sched.any_ready(self.now));
        Ok(named)
    }

    /// Time passes, nobody wants more: everybody who wanted is named in the end.
    fn drain(&mut self) -> Result<(), TestCaseError> {
        while let Some(i) = self.next()? {
            self.sched.idle(i);
            self.wants[i as usize] = false;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_flow_is_lost_and_none_comes_back(ops in ops()) {
        let shares = Shares::new(4);
        let sched = Sched::new(8, QUANTUM, shares.clone());
        let mut model = Model { sched, shares, wants: [false; 8], now: Instant(77) };
        for op in ops {
            model.apply(op)?;
        }
        for _ in 0..1_000_000 {
            model.drain()?;
            let Some(due) = model.sched.next_due() else { break };
            prop_assert!(due > model.now, "what is due now was not released");
            model.now = due;
        }
        prop_assert_eq!(model.wants, [false; 8]);
        prop_assert!(!model.sched.any_ready(model.now));
    }
}
