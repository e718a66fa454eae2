//! Congestion control end to end in virtual time: a transfer through a queue that marks, and how long that queue is meanwhile.
//!
//! Library, toed with its control of rates, engine and data path are the real ones; the path is 100 Mbit/s and 200 us long, so that
//! 5000 bytes are in flight when it is just full.

use toe_abi::flow::cc;
use toe_datapath::{Card, CardConfig};
use toe_engine::{Config, Engine, Prefix, rates};
use toe_hal::PortCaps;
use toe_hal::fake::{FakeMemory, FakePort};
use toe_link::slot::Addr;
use toe_netem::{Counts, Knobs};
use toe_tests::sim::apps::Carrier;
use toe_tests::sim::host::ToeHost;
use toe_tests::sim::stream::Duplex;
use toe_tests::sim::wire::Wire;
use toe_tests::sim::world::{self, End, Outcome, ToeEnd};
use toed::core::CoreConfig;

const A_IP: [u8; 4] = [10, 0, 0, 1];
const B_IP: [u8; 4] = [10, 0, 0, 2];
const VOLUME: u64 = 10_000_000;
/// Marks from 30 segments on, loses from 200 on.
const LINE: &str = "rate=100mbit,mark=45000,queue=300000,delay=100us";
/// What the queue's rate makes of the volume, with headers.
const LEAST_US: u64 = VOLUME * 8 * 1514 / 1448 / 100;

fn line() -> Knobs {
    LINE.parse().expect("valid words")
}

fn toe_host(ip: [u8; 4], algorithm: u8, rates: rates::Params) -> ToeHost {
    let mac = [2, 0, 0, 0, 0, ip[3]];
    let address = Prefix::new(toe_abi::flow::v4_mapped(ip), 24).expect("24 bits");
    let config = Config { cc: algorithm, secret: [ip[3]; 16], ..Config::new(mac, vec![address]) };
    let engine = Engine::new(config, 0).expect("a valid configuration");
    let mut core = CoreConfig::new(Some(address));
    (core.buffers.tx, core.buffers.rx, core.limits.payload_len) = (20, 20, 1 << 22);
    (core.limits.contexts, core.limits.sockets, core.limits.listeners, core.limits.accept_entries) = (2, 64, 4, 16);
    (core.card_contexts, core.card_regions, core.rates) = (8, 4, rates);
    let caps = PortCaps { mac, mtu: 1500, tx_csum: false, tso_max: 0 };
    let card = CardConfig { max_flows: 64, max_contexts: 8, max_regions: 4, max_next_hops: 8, spin_us: 0, ..CardConfig::default() };
    ToeHost::new(core, engine, FakeMemory::new(1), FakePort::new(caps, 1), |parts| Box::new(Card::new(card, parts)))
}

/// Sends `VOLUME` bytes from one host of ours to another. What the queue in between saw, and how long it took, microseconds.
fn transfer(algorithm: u8, rates: &rates::Params) -> (Counts, u64) {
    let app = Carrier::connector(Addr::v4(B_IP, 80), Duplex::new(true, VOLUME, 0, 3));
    let mut a = ToeEnd { host: toe_host(A_IP, algorithm, rates.clone()), app };
    let app = Carrier::listener(80, Duplex::new(false, 0, VOLUME, 9));
    let mut b = ToeEnd { host: toe_host(B_IP, algorithm, rates.clone()), app };
    let mut wire = Wire::new(line(), 3);
    let ends: (&mut dyn End, &mut dyn End) = (&mut a, &mut b);
    let (outcome, took_us) = world::run_for(ends.0, ends.1, &mut wire, 600_000_000);
    assert_eq!(outcome, Outcome::Delivered);
    let load = wire.counts(1);
    println!("{}: {load:?}, mean queue {} bytes, {} % of the least time", cc::name(algorithm), load.mean_queue(), took_us * 100 / LEAST_US);
    (load, took_us)
}

fn params() -> rates::Params {
    rates::Params { link_kbps: 1_000_000, ..rates::Params::default() }
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
    let timely = rates::TimelyParams { low_us: 500, high_us: 5000, min_rtt_us: 320, alpha: 0.5, step_kbps: 2000, ..Default::default() };
    let (load, took_us) = transfer(cc::TIMELY, &rates::Params { timely, ..params() });
    assert!(load.marked == 0 && load.mean_queue() < line().queue / 2, "{load:?}");
    assert!(took_us < LEAST_US * 2, "{took_us}");
}

#[test]
fn a_constant_rate_below_the_links_makes_no_queue() {
    let (load, took_us) = transfer(cc::CONST_RATE, &rates::Params { const_kbps: 50_000, ..params() });
    assert!(load.queue_full == 0 && load.mean_queue() < 20_000, "{load:?}");
    assert!((LEAST_US * 18 / 10..LEAST_US * 23 / 10).contains(&took_us), "{took_us}");
}
