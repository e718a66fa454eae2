//! Whole connections: every byte arrives, both FINs too, whatever the wire does.

use crate::choices::{Choices, Random};
use crate::sim::{EndConfig, Report, Sim, World};
use toe_abi::desc::hc_flags;
use toe_abi::flow::cc;
use toe_tcp::CloseReason;

fn random_end(r: &mut Random) -> EndConfig {
    let totals = [0, 1, 100, 5_000, 60_000, 300_000];
    let most = r.pick(totals);
    let waits = [0, 50, 1_000, 50_000];
    EndConfig {
        total: r.range(0, most + 1) as u32,
        tx_log2: r.range(12, 19) as u8,
        rx_log2: r.range(12, 19) as u8,
        mss: r.pick([88, 536, 1000, 1448, 8948]),
        write_chunk: 1 << r.range(6, 18),
        write_wait_us: r.pick(waits),
        read_chunk: 1 << r.range(10, 18),
        read_wait_us: r.pick(waits),
        urgent: 0,
        options: r.pick([0, hc_flags::NODELAY, hc_flags::CORK, hc_flags::KEEPALIVE]),
        timestamps: r.chance(70),
        sack: r.chance(70),
        ecn: r.chance(50),
        algorithm: r.range(0, 3) as u8,
    }
}

fn random_world(seed: u64) -> World {
    let mut r = Random(seed ^ 0x5eed);
    World {
        seed,
        loss: r.pick([0, 1, 5, 15]),
        duplicate: r.pick([0, 1, 10]),
        delay_us: r.pick([10, 1_000, 30_000]),
        jitter_us: r.pick([0, 100, 20_000]),
        ce: r.pick([0, 5]),
        lose_window_updates: r.chance(10),
        max_payload: r.pick([1500, 16_000, 64_000]),
        records: r.pick([0, 2, 10, 1024]),
        lose: vec![],
        ends: [random_end(&mut r), random_end(&mut r)],
    }
}

fn orderly(report: &Report) -> bool {
    use CloseReason::{Done, TimeWait};
    matches!(report.closed, [Some(Done), Some(TimeWait)] | [Some(TimeWait), Some(Done)] | [Some(TimeWait), Some(TimeWait)])
}

/// The receiver hears of the last mark, and of none that is not there: see [`Sim`].
#[test]
fn marks_of_urgent_data_arrive_over_bad_wires() {
    for seed in 0..500 {
        let mut world = random_world(seed);
        for end in &mut world.ends {
            end.urgent = 20;
        }
        let report = Sim::new(world).run();
        assert!(orderly(&report), "seed {seed}: {:?}", report.closed);
    }
}

/// One seed may be repeated with TCP_SEED=n.
#[test]
fn every_byte_arrives_over_bad_wires() {
    let one = std::env::var("TCP_SEED").ok().and_then(|s| s.parse::<u64>().ok());
    let seeds = one.map_or(0..2_000, |s| s..s + 1);
    for seed in seeds {
        let report = Sim::new(random_world(seed)).run();
        assert!(orderly(&report), "seed {seed}: {:?}", report.closed);
    }
}

#[test]
fn a_good_wire_needs_no_timer() {
    for seed in 0..200 {
        let mut world = World::plain(seed, [500_000, 0]);
        world.ends[0].options = 0;
        world.ends[0].algorithm = (seed % 2) as u8;
        let report = Sim::new(world).run();
        let stats = report.stats;
        assert!(stats.iter().all(|s| s.timeouts + s.probes + s.fast_retransmits == 0), "seed {seed}: {stats:?}");
        assert_eq!(stats[0].bytes_sent, 500_000, "seed {seed}: sent twice");
        // 64 KiB of window at first, 128 KiB then, 2 ms per round trip; slow start from 10 segments.
        assert!(report.finished_us < 40_000, "seed {seed}: took {} us", report.finished_us);
    }
}

#[test]
fn super_frames_are_large() {
    let report = Sim::new(World::plain(1, [2_000_000, 0])).run();
    let s = report.stats[0];
    assert!(s.largest > 50_000 && s.sent < 300, "{s:?}");
}

/// RFC 5681 3.2-10, 3.2-11, 3.2-12.
#[test]
fn one_percent_loss_rarely_times_out() {
    let mut world = World::plain(7, [3_000_000, 3_000_000]);
    world.loss = 1;
    world.max_payload = 1000;
    let report = Sim::new(world).run();
    let s = report.stats;
    assert!(s[0].fast_retransmits >= 10, "{s:?}");
    assert!(s.iter().all(|s| s.timeouts <= s.fast_retransmits), "{s:?}");
}

#[test]
fn a_slow_reader_closes_the_window_and_gets_everything() {
    for seed in 0..100 {
        let mut world = World::plain(seed, [200_000, 0]);
        world.ends[1].rx_log2 = 13;
        world.ends[1].read_chunk = 3_000;
        world.ends[1].read_wait_us = 20_000;
        let report = Sim::new(world).run();
        // Window updates arrive, so a probe is the exception: fewer than one for ten window's worth.
        assert!(report.stats[0].probes <= 5 && report.stats[0].timeouts == 0, "seed {seed}: {:?}", report.stats);
    }
}

/// RFC 9293 MAY-8, MUST-37.
#[test]
fn a_reader_that_sleeps_for_minutes_is_waited_for() {
    let mut world = World::plain(3, [100_000, 0]);
    world.ends[1].rx_log2 = 12;
    world.ends[1].read_chunk = 1 << 12;
    world.ends[1].read_wait_us = 60_000_000;
    let report = Sim::new(world).run();
    assert!(report.finished_us > 600_000_000);
    assert!(report.stats[0].probes > 10, "{:?}", report.stats);
}

#[test]
fn lost_window_updates_do_not_stall() {
    for seed in 0..100 {
        let mut world = World::plain(seed, [100_000, 0]);
        world.lose_window_updates = true;
        world.ends[1].rx_log2 = 13;
        world.ends[1].read_chunk = 8_192;
        world.ends[1].read_wait_us = 5_000;
        Sim::new(world).run();
    }
}

#[test]
fn reordering_alone_loses_nothing() {
    for seed in 0..50 {
        let mut world = World::plain(seed, [300_000, 300_000]);
        world.jitter_us = 5_000;
        let report = Sim::new(world).run();
        assert!(orderly(&report));
    }
}

#[test]
fn marked_packets_slow_the_sender_without_loss() {
    let mut world = World::plain(5, [2_000_000, 0]);
    world.ce = 2;
    for end in &mut world.ends {
        end.ecn = true;
    }
    let marked = Sim::new(world.clone()).run();
    world.ce = 0;
    let free = Sim::new(world).run();
    assert_eq!(marked.stats[0].bytes_sent, 2_000_000);
    assert!(marked.finished_us > free.finished_us, "{} against {}", marked.finished_us, free.finished_us);
}

/// By how much 1 percent of marks prolongs a transfer, in percent.
fn price_of_marks(algorithm: u8) -> u64 {
    let mut world = World::plain(5, [2_000_000, 0]);
    for end in &mut world.ends {
        (end.ecn, end.algorithm, end.tx_log2, end.rx_log2) = (true, algorithm, 19, 19);
    }
    let free = Sim::new(world.clone()).run().finished_us;
    world.ce = 1;
    Sim::new(world).run().finished_us * 100 / free
}

#[test]
fn a_few_marks_cost_dctcp_less_than_reno() {
    let (reno, dctcp) = (price_of_marks(cc::NEWRENO), price_of_marks(cc::DCTCP));
    assert!(dctcp < reno, "{dctcp} % against {reno} %");
}

#[test]
fn nothing_to_say_is_said() {
    let report = Sim::new(World::plain(1, [0, 0])).run();
    assert!(orderly(&report));
    assert!(report.finished_us < 10_000);
}

/// 3 MB in segments, 1 ms each way.
fn bulk(seed: u64) -> World {
    World { max_payload: 1000, ..World::plain(seed, [3_000_000, 0]) }
}

#[test]
fn only_what_was_lost_is_sent_again() {
    for seed in 0..10 {
        let report = Sim::new(World { loss: 1, ..bulk(seed) }).run();
        let s = report.stats[0];
        // Or a probe of the tail, if its acknowledgement was lost.
        let lost = u64::from(report.lost)..=u64::from(report.lost + s.tail_probes);
        assert!(lost.contains(&(s.resent / 1000)), "seed {seed}: {s:?}");
        assert_eq!((s.dsacks, s.timeouts), (0, 0), "seed {seed}: {s:?}");
    }
}

#[test]
fn five_percent_loss_rarely_times_out() {
    for seed in 0..10 {
        let report = Sim::new(World { loss: 5, ..bulk(seed) }).run();
        let s = report.stats[0];
        assert!(report.lost > 100 && s.timeouts <= 4 && s.fast_retransmits > 50, "seed {seed}: {} lost, {s:?}", report.lost);
    }
}

#[test]
fn a_wire_that_reorders_costs_few_retransmissions_and_no_window() {
    for (seed, (delay_us, jitter_us)) in (0..10).flat_map(|seed| [(1000, 400), (10_000, 4000)].map(|wire| (seed, wire))) {
        let report = Sim::new(World { delay_us, jitter_us, ..bulk(seed) }).run();
        let s = report.stats[0];
        assert!(s.resent <= 30_000 && s.timeouts == 0 && s.spurious == s.fast_retransmits, "seed {seed}, {delay_us} us: {s:?}");
        // 128 KiB in a round trip of at most 2.8 delays, slow start from 10 segments.
        assert!(report.finished_us < 100 * delay_us, "seed {seed}, {delay_us} us: took {} us", report.finished_us);
    }
}

#[test]
fn a_lost_tail_is_repaired_before_a_timeout() {
    for tail in 1..=3 {
        let mut world = World::plain(1, [20_000, 0]);
        world.max_payload = 1000;
        world.lose = (20 - tail..20).collect();
        let report = Sim::new(world).run();
        let s = report.stats[0];
        assert!(s.tail_probes > 0 && s.timeouts == 0, "{tail} lost: {s:?}");
        assert!(report.finished_us < 50_000, "{tail} lost: took {} us", report.finished_us);
    }
}

#[test]
fn three_losses_in_a_window_cost_one_round_trip() {
    // All of it in two windows of 30; FIN follows.
    let time = |lose: Vec<u32>| {
        let mut world = World::plain(1, [60_000, 0]);
        world.max_payload = 1000;
        world.lose = lose;
        let report = Sim::new(world).run();
        assert_eq!(report.stats[0].timeouts, 0);
        report.finished_us
    };
    let (free, lossy) = (time(vec![]), time(vec![22, 25, 28]));
    assert!(lossy <= free + 2 * 2100, "{lossy} us with losses, {free} without");
}
