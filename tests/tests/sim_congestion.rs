//! Congestion control end to end in virtual time: a transfer through a queue that marks, and how long that queue is meanwhile.
//!
//! Library, toed with its control of rates, engine and data path are the real ones; the path is 100 Mbit/s and 200 us long, so that
//! 5000 bytes are in flight when it is just full.

use toe_abi::flow::{cc, v4_mapped};
use toe_datapath::{Card, CardConfig};
use toe_engine::{Config, Engine, Prefix, rates, route::Route};
use toe_hal::PortCaps;
use toe_hal::fake::{FakeMemory, FakePort};
use toe_link::slot::Addr;
use toe_netem::{Counts, Knobs};
use toe_tests::sim::apps::Carrier;
use toe_tests::sim::crowd::{Receivers, Senders};
use toe_tests::sim::host::ToeHost;
use toe_tests::sim::stream::Duplex;
use toe_tests::sim::wire::Wire;
use toe_tests::sim::world::{self, End, Outcome, ToeEnd};
use toed::core::CoreConfig;

const A_IP: [u8; 4] = [10, 0, 0, 1];
const B_IP: [u8; 4] = [10, 0, 0, 2];
/// Both are the same host.
const B_IPS: [[u8; 4]; 2] = [B_IP, [10, 0, 0, 3]];
const VOLUME: u64 = 10_000_000;
/// Marks from 30 segments on, loses from 200 on.
const LINE: &str = "rate=100mbit,mark=45000,queue=300000,delay=100us";
/// What the queue's rate makes of the volume, with headers.
const LEAST_US: u64 = VOLUME * 8 * 1514 / 1448 / 100;

fn line() -> Knobs {
    LINE.parse().expect("valid words")
}

/// Congestion control of a host.
#[derive(Clone, Debug)]
struct Control {
    cc: u8,
    /// Of connections to the second address.
    other_cc: u8,
    pacing: bool,
    rates: rates::Params,
}

fn toe_host(ip: [u8; 4], control: &Control) -> ToeHost {
    let mac = [2, 0, 0, 0, 0, ip[3]];
    let prefix = |ip, len| Prefix::new(v4_mapped(ip), len).expect("not longer than an address");
    let address = prefix(ip, 24);
    let addresses = if ip == B_IP { B_IPS.map(|ip| prefix(ip, 24)).to_vec() } else { vec![address] };
    let routes = vec![Route { cc: Some(control.other_cc), ..Route::new(prefix(B_IPS[1], 32), None) }];
    let config = Config { cc: control.cc, cc_pacing: control.pacing, routes, secret: [ip[3]; 16], ..Config::new(mac, addresses) };
    let engine = Engine::new(config, 0).expect("a valid configuration");
    let mut core = CoreConfig::new(Some(address));
    (core.buffers.tx, core.buffers.rx, core.limits.payload_len) = (20, 20, 1 << 26);
    (core.limits.contexts, core.limits.sockets, core.limits.listeners, core.limits.accept_entries) = (2, 64, 4, 16);
    (core.card_contexts, core.card_regions, core.rates) = (8, 4, control.rates.clone());
    let caps = PortCaps { mac, mtu: 1500, tx_csum: false, tso_max: 0 };
    let card = CardConfig { max_flows: 64, max_contexts: 8, max_regions: 4, max_next_hops: 8, spin_us: 0, ..CardConfig::default() };
    ToeHost::new(core, engine, FakeMemory::new(1), FakePort::new(caps, 1), |parts| Box::new(Card::new(card, parts)))
}

/// Sends `VOLUME` bytes from one host of ours to another. What the queue in between saw, and how long it took, microseconds.
fn transfer(algorithm: u8, rates: &rates::Params) -> (Counts, u64) {
    transfer_over(line(), &Control::new(algorithm, rates))
}

fn transfer_over(line: Knobs, control: &Control) -> (Counts, u64) {
    let app = Carrier::connector(Addr::v4(B_IP, 80), Duplex::new(true, VOLUME, 0, 3));
    let mut a = ToeEnd { host: toe_host(A_IP, control), app };
    let app = Carrier::listener(80, Duplex::new(false, 0, VOLUME, 9));
    let mut b = ToeEnd { host: toe_host(B_IP, control), app };
    let mut wire = Wire::new(line, 3);
    let ends: (&mut dyn End, &mut dyn End) = (&mut a, &mut b);
    let (outcome, took_us) = world::run_for(ends.0, ends.1, &mut wire, 600_000_000);
    assert_eq!(outcome, Outcome::Delivered);
    let load = wire.counts(1);
    println!(
        "{}: {load:?}, mean queue {} bytes, {} % of the least time",
        cc::name(control.cc),
        load.mean_queue(),
        took_us * 100 / LEAST_US
    );
    (load, took_us)
}

fn params() -> rates::Params {
    rates::Params { link_kbps: 1_000_000, ..rates::Params::default() }
}

/// Thresholds for a line as short and slow as this.
fn timely() -> rates::TimelyParams {
    rates::TimelyParams { low_us: 500, high_us: 5000, min_rtt_us: 320, alpha: 0.5, step_kbps: 2000, ..Default::default() }
}

/// The floor of all flows together must not be above the line's rate.
fn many_timely() -> rates::TimelyParams {
    rates::TimelyParams { min_kbps: 1000, init_kbps: 1000, ..timely() }
}

#[test]
fn cubic_fills_the_queue_and_the_link() {
    let (load, took_us) = transfer(cc::CUBIC, &params());
    assert_eq!(load.marked, 0, "nobody asked for ECN");
    assert!(load.mean_queue() > line().mark && load.queue_full > 0, "{load:?}");
    // Slow start that ends with the first loss overshoots by as much as the queue holds.
    assert!(load.queue_full < line().queue / 1514 / 2, "{load:?}");
    assert!(took_us < LEAST_US * 11 / 10, "{took_us}");
}

#[test]
fn dctcp_keeps_the_queue_where_it_begins_to_mark() {
    let (load, took_us) = transfer(cc::DCTCP, &params());
    assert!(load.marked > 0 && load.queue_full == 0, "{load:?}");
    assert!((line().mark / 3..line().mark * 5 / 3).contains(&load.mean_queue()), "{load:?}");
    assert!(took_us < LEAST_US * 11 / 10, "{took_us}");
}

#[test]
fn dctcp_by_rates_stays_below_the_limit_of_the_queue() {
    let (load, took_us) = transfer(cc::DCTCP_RATE, &params());
    assert!(load.marked > 0 && load.mean_queue() < line().queue / 2, "{load:?}");
    assert!(took_us < LEAST_US * 2, "{took_us}");
}

#[test]
fn timely_finds_the_rate_by_the_round_trip_time() {
    let (load, took_us) = transfer(cc::TIMELY, &rates::Params { timely: timely(), ..params() });
    assert!(load.marked == 0 && load.mean_queue() < line().queue / 2, "{load:?}");
    assert!(took_us < LEAST_US * 2, "{took_us}");
}

#[test]
fn a_constant_rate_below_the_links_makes_no_queue() {
    let (load, took_us) = transfer(cc::CONST_RATE, &rates::Params { const_kbps: 50_000, ..params() });
    assert!(load.queue_full == 0 && load.mean_queue() < 20_000, "{load:?}");
    assert!((LEAST_US * 18 / 10..LEAST_US * 23 / 10).contains(&took_us), "{took_us}");
}

/// A queue of an eighth of the bandwidth-delay product.
const SHORT_QUEUE: &str = "rate=100mbit,delay=5ms,queue=16000";

fn cubic(pacing: bool) -> Control {
    Control { pacing, ..Control::new(cc::CUBIC, &params()) }
}

#[test]
fn pacing_makes_more_of_a_short_queue() {
    let line: Knobs = SHORT_QUEUE.parse().expect("valid words");
    let [(_, bursts_us), (_, paced_us)] = [false, true].map(|pacing| transfer_over(line, &cubic(pacing)));
    assert!(paced_us * 10 < bursts_us * 9, "{paced_us} us in place of {bursts_us}");
}

/// Where the queue is long enough for round trips to grow before it is full (RFC 9406).
#[test]
fn slow_start_ends_without_a_loss_paced_or_not() {
    let line: Knobs = "rate=100mbit,delay=10ms,queue=1500000".parse().expect("valid words");
    for pacing in [false, true] {
        let (load, took_us) = transfer_over(line, &cubic(pacing));
        assert_eq!(load.queue_full, 0, "{load:?}");
        assert!(took_us < LEAST_US * 13 / 10, "{took_us}");
    }
}

/// Who sends over a line, and when.
#[derive(Clone, Copy, Debug)]
struct Crowd<'a> {
    line: &'a str,
    flows: u64,
    /// The last one comes so much later than the others, milliseconds. They begin 10 ms apart.
    late_ms: u64,
    /// It is measured from here on, and for as long once more.
    settled_ms: u64,
}

impl Crowd<'_> {
    const fn on(line: &str, flows: u64) -> Crowd<'_> {
        Crowd { line, flows, late_ms: 0, settled_ms: 1000 }
    }
}

/// How flows shared a line.
struct Shares {
    /// Mbit/s of payload of each.
    mbits: Vec<f64>,
    load: Counts,
}

impl Control {
    fn new(cc: u8, rates: &rates::Params) -> Self {
        Self { cc, other_cc: cc, pacing: false, rates: rates.clone() }
    }
}

impl Shares {
    /// 1 if all have the same, 1/n if one has all (Jain, Chiu, Hawe 1984).
    fn jain(&self) -> f64 {
        let (sum, squares) = self.mbits.iter().fold((0.0, 0.0), |(sum, squares), m| (sum + m, squares + m * m));
        sum * sum / (self.mbits.len() as f64 * squares)
    }

    fn sum(&self) -> f64 {
        self.mbits.iter().sum()
    }

    /// What the poorest has of an equal share.
    fn least(&self) -> f64 {
        self.mbits.iter().copied().fold(f64::INFINITY, f64::min) * self.mbits.len() as f64 / self.sum()
    }
}

/// Flows share a line for a while. Every second one may have another control.
fn share(crowd: &Crowd, control: &Control) -> Shares {
    let Crowd { line, flows, late_ms, settled_ms } = *crowd;
    let begins_ms = |i| i * 10 + if i + 1 == flows { late_ms } else { 0 };
    let plan = (0..flows).map(|i| (Addr::v4(B_IPS[(i % 2) as usize], 80), begins_ms(i) * 1000)).collect();
    let mut a = ToeEnd { host: toe_host(A_IP, control), app: Senders::new(plan) };
    let mut b = ToeEnd { host: toe_host(B_IP, control), app: Receivers::new(80, settled_ms * 1000) };
    let mut wire = Wire::new(line.parse().expect("valid words"), 3);
    world::run_until(&mut a, &mut b, &mut wire, 2 * settled_ms * 1000);
    assert_eq!(b.app.bytes.len() as u64, flows, "each has been accepted");
    let mbits = b.app.bytes.iter().map(|bytes| *bytes as f64 * 8.0 / 1000.0 / settled_ms as f64).collect();
    let shares = Shares { mbits, load: wire.counts(1) };
    let (name, jain, least, sum) = (cc::name(control.cc), shares.jain(), shares.least(), shares.sum());
    let (queue, full) = (shares.load.mean_queue(), shares.load.queue_full);
    println!("{line}: {name} x {flows}: jain {jain:.3}, least {least:.2}, {sum:.1} Mbit/s, mean queue {queue}, {full} lost there");
    shares
}

/// On short round trips CUBIC is as Reno (RFC 9438, 4.3): between the two nobody is pushed aside.
#[test]
fn cubic_and_reno_share_a_short_path() {
    let control = Control { other_cc: cc::NEWRENO, ..Control::new(cc::CUBIC, &params()) };
    let shares = share(&Crowd::on("rate=100mbit,delay=1ms,queue=50000", 4), &control);
    let cubic: f64 = shares.mbits.iter().step_by(2).sum();
    let part = cubic / shares.sum();
    assert!((0.35..0.65).contains(&part) && shares.sum() > 85.0, "{part} of {}: {:?}", shares.sum(), shares.mbits);
}

/// The queue stays where it begins to mark, however many flows there are, and each has its part.
#[test]
fn windows_by_marks_are_shared_fairly() {
    for flows in [2, 16] {
        let shares = share(&Crowd::on(LINE, flows), &Control::new(cc::DCTCP, &params()));
        assert!(shares.jain() > 0.9 && shares.least() > 0.5 && shares.sum() > 90.0, "{:?}", shares.mbits);
        assert!(shares.load.queue_full == 0 && shares.load.mean_queue() < line().mark * 5 / 3, "{:?}", shares.load);
    }
}

/// Marks from 90 segments on: the step is FlexTOE's, and on slower lines a window's.
const FAST_LINE: &str = "rate=1gbit,mark=135000,queue=900000,delay=100us";
/// Marks from 13 segments on.
const SLOW_LINE: &str = "rate=10mbit,mark=20000,queue=200000,delay=1ms";

/// Nobody is pushed aside, at least so much of the line is used, and the queue stays below a few of what it begins to mark at, or of the two segments that each flow
/// has under way at least.
fn assert_fair(crowd: &Crowd, shares: &Shares, least: f64) {
    let Knobs { rate, mark, .. } = crowd.line.parse().expect("valid words");
    let queue = shares.load.mean_queue();
    assert!(shares.jain() > 0.9 && shares.least() > 0.5, "{crowd:?}: {:?}", shares.mbits);
    let most = rate as f64 / 1e6 * 1448.0 / 1514.0;
    assert!(shares.sum() > least * most, "{crowd:?}: {} Mbit/s", shares.sum());
    assert!(queue < 2 * mark.max(crowd.flows * 2 * 1514), "{crowd:?}: {queue} bytes");
}

#[test]
fn rates_by_marks_are_shared_fairly() {
    let slow = |flows| Crowd { settled_ms: if flows == 16 { 6000 } else { 2000 }, ..Crowd::on(SLOW_LINE, flows) };
    let fast = |flows| Crowd { settled_ms: 400, ..Crowd::on(FAST_LINE, flows) };
    let usual = |flows| Crowd::on(LINE, flows);
    let crowds = [2, 4, 8, 16].into_iter().flat_map(|flows| [slow(flows), usual(flows)]);
    for crowd in crowds.chain([2, 16].map(fast)) {
        assert_fair(&crowd, &share(&crowd, &Control::new(cc::DCTCP_RATE, &params())), 0.85);
    }
}

/// Who comes to a line that is in use gets its part.
#[test]
fn rates_make_room_for_who_comes_late() {
    let timely = Control::new(cc::TIMELY, &rates::Params { timely: many_timely(), ..params() });
    for (control, least) in [(Control::new(cc::DCTCP_RATE, &params()), 0.85), (timely, 0.7)] {
        for flows in [2, 8] {
            let crowd = Crowd { late_ms: 500, settled_ms: 1500, ..Crowd::on(LINE, flows) };
            assert_fair(&crowd, &share(&crowd, &control), least);
        }
    }
}

/// Where nothing is marked, losses end it: each of them, also while the one before is repaired.
#[test]
fn a_rate_above_a_line_that_only_loses_falls() {
    let crowd = Crowd::on("rate=100mbit,queue=45000,delay=100us", 2);
    let shares = share(&crowd, &Control::new(cc::DCTCP_RATE, &params()));
    let Counts { queue_full, frames, .. } = shares.load;
    assert!(queue_full < frames / 15 && shares.least() > 0.3 && shares.sum() > 75.0, "{:?}, {:?}", shares.mbits, shares.load);
}

#[test]
fn rates_by_round_trip_times_are_shared_fairly() {
    for flows in [2, 4, 16] {
        let shares = share(&Crowd::on(LINE, flows), &Control::new(cc::TIMELY, &rates::Params { timely: many_timely(), ..params() }));
        assert!(shares.jain() > 0.9 && shares.least() > 0.5 && shares.sum() > 70.0, "{:?}", shares.mbits);
        // Sixteen that begin at once overrun it once.
        let Counts { queue_full, frames, .. } = shares.load;
        assert!(queue_full < frames / 30 && shares.load.mean_queue() < line().queue / 2, "{:?}", shares.load);
    }
}

#[test]
fn constant_rates_make_no_queue_until_they_exceed_the_line() {
    let shares = share(&Crowd::on(LINE, 16), &Control::new(cc::CONST_RATE, &rates::Params { const_kbps: 5_000, ..params() }));
    assert!(shares.jain() > 0.999 && shares.load.queue_full == 0 && shares.load.mean_queue() < 1514, "{:?}", shares.load);
}
