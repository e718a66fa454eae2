//! Timestamps, ECN, keep-alive, path MTU, and what hosts may say.

use super::*;
use toe_abi::counters::{Counter, Drop};
use toe_abi::flow::{FlowOptions, flow_flags, quick_ack, tcp_state as st};

/// A timestamp from before the last one, by more than segments can have overtaken each other.
const OLD: u32 = 100u32.wrapping_sub(10_000);

/// RFC 7323 3.2-2, 3.2-3, 3.2-6.
#[test]
fn timestamps_are_ours_and_the_peers_latest() {
    let mut t = with_timestamps();
    let _ = t.segment(stamped(seg(RX, TX, A, 2000), 150, 0));
    assert_eq!(t.emit().unwrap().timestamps, Some(Timestamps { val: 1007, ecr: 150 }));
}

/// RFC 7323 5.2-1, 5.3-1.
#[test]
fn paws_drops_old_segments_with_an_ack() {
    let mut t = with_timestamps();
    let out = t.segment(stamped(seg(RX, TX, A, 10), OLD, 0));
    assert_eq!((out.place, out.drop), (None, Some(Drop::Paws)));
    assert!(out.reply.is_some());
}

/// RFC 7323 5.2-5.
#[test]
fn paws_does_not_hold_for_rst() {
    let out = with_timestamps().segment(seg(RX, TX, TcpFlags::RST, 0));
    assert_eq!(out.closed, Some(CloseReason::Reset));
}

/// RFC 7323 5.5-1.
#[test]
fn paws_forgets_after_half_an_hour() {
    let mut t = with_timestamps();
    t.now_us += 2_147_483 * 1000;
    assert!(t.segment(stamped(seg(RX, TX, A, 10), OLD, 0)).place.is_none());
    t.now_us += 1000;
    assert!(t.segment(stamped(seg(RX, TX, A, 10), OLD, 0)).place.is_some());
    // It counts again.
    assert_eq!(t.segment(stamped(seg(RX + 10, TX, A, 10), OLD.wrapping_sub(10_000), 0)).drop, Some(Drop::Paws));
}

/// RFC 7323 5.5-1: a clock of 500 Hz and our milliseconds do not come to their sign bits together.
#[test]
fn after_sixty_days_a_slow_clock_is_believed() {
    let mut t = with_timestamps();
    t.now_us += 60 * 86_400 * 1_000_000;
    let ts = 100u32.wrapping_add((60u64 * 86_400 * 500) as u32);
    assert!(t.segment(stamped(seg(RX, TX, A, 10), ts, 0)).place.is_some());
}

/// RFC 7323 5.5-1.
#[test]
fn the_first_after_a_long_silence_may_be_beyond_a_hole() {
    let mut t = with_timestamps();
    t.now_us += 3_600_000_000;
    assert!(t.segment(stamped(seg(RX + 10, TX, A, 10), OLD + 1, 0)).place.is_some());
    assert!(t.segment(stamped(seg(RX, TX, A, 10), OLD + 1, 0)).place.is_some());
}

/// RFC 7323 4.3-2, 5.5-1: whoever does not know our numbers cannot spoil what is echoed.
#[test]
fn after_a_long_silence_what_is_refused_is_not_echoed() {
    for stranger in [seg(RX + 100_000, TX, A, 10), seg(RX, TX + 100_000, A, 10)] {
        let mut t = with_timestamps();
        t.now_us += 25 * 86_400 * 1_000_000;
        assert!(t.segment(stamped(stranger, OLD, 0)).place.is_none());
        assert_eq!(t.s.rx.ts_recent, 100);
    }
}

/// RFC 7323 3.2-8, 3.2-9.
#[test]
fn missing_timestamps_are_dropped_silently() {
    let out = with_timestamps().segment(seg(RX, TX, A, 10));
    assert_eq!((out.place, out.drop, out.reply), (None, Some(Drop::Paws), None));
}

/// RFC 7323 4.3-2.
#[test]
fn ts_recent_is_not_taken_from_beyond_a_hole() {
    let mut t = with_timestamps();
    let reply = t.segment(stamped(seg(RX + 10, TX, A, 10), 200, 0)).reply.unwrap();
    assert_eq!(reply.timestamps.unwrap().ecr, 100);
}

/// RFC 7323 4.3-1.
#[test]
fn a_delayed_ack_echoes_the_first_of_its_segments() {
    let mut t = with_timestamps();
    let _ = t.segment(stamped(seg(RX, TX, A | TcpFlags::PSH, 10), 150, 0));
    let _ = t.segment(stamped(seg(RX + 10, TX, A | TcpFlags::PSH, 10), 160, 0));
    let _ = t.expire();
    assert_eq!(t.emit().unwrap().timestamps.unwrap().ecr, 150);
}

/// RFC 7323 4.3-3.
#[test]
fn the_segment_that_fills_a_hole_is_echoed() {
    let mut t = with_timestamps();
    let _ = t.segment(stamped(seg(RX + 10, TX, A, 10), 200, 0));
    let _ = t.segment(stamped(seg(RX, TX, A, 10), 210, 0));
    let ack = t.emit().unwrap();
    assert_eq!((ack.ack, ack.timestamps.unwrap().ecr), (SeqNum(RX + 20), 210));
}

/// RFC 7323 5.3-2.
#[test]
fn paws_comes_before_the_window() {
    let out = with_timestamps().segment(stamped(seg(RX + 100_000, TX, A, 10), OLD, 0));
    assert_eq!(out.drop, Some(Drop::Paws));
}

#[test]
fn what_was_overtaken_within_a_round_trip_is_not_old() {
    let mut t = with_timestamps();
    t.s.tx.srtt_us = 20_000;
    // The first of three is sent again, and overtakes the other two; the clock may tick slowly.
    let _ = t.segment(stamped(seg(RX, TX, A, 10), 340, 0));
    assert!(t.segment(stamped(seg(RX + 10, TX, A, 10), 340 - 20 - 64, 0)).place.is_some());
    let out = t.segment(stamped(seg(RX + 20, TX, A, 10), 340 - 20 - 64 - 1, 0));
    assert_eq!((out.place, out.drop), (None, Some(Drop::Paws)));
    // Without a measurement nothing is known of round trips.
    t.s.tx.srtt_us = 0;
    assert_eq!(t.segment(stamped(seg(RX + 20, TX, A, 10), 339, 0)).drop, Some(Drop::Paws));
}

/// RFC 7323 4.3-2.
#[test]
fn what_was_overtaken_is_not_echoed() {
    let mut t = with_timestamps();
    t.s.tx.srtt_us = 20_000;
    let _ = t.segment(stamped(seg(RX, TX, A, 10), 140, 0));
    let _ = t.segment(stamped(seg(RX + 10, TX, A, 10), 130, 0));
    assert_eq!(t.expire_and_emit().timestamps.unwrap().ecr, 140);
}

/// RFC 7323 3.2-10.
#[test]
fn unexpected_timestamps_are_ignored() {
    let mut t = Script::new();
    for val in [7, 3] {
        let at = rx_head(&t.s);
        assert!(t.segment(stamped(seg(RX + at, TX, A, 10), val, 9)).place.is_some());
    }
    assert_eq!(t.expire_and_emit().timestamps, None);
}

/// RFC 7323 5.2-4, 3.2-6.
#[test]
fn a_reset_of_ours_has_timestamps() {
    let reset = with_timestamps().input(Input::Abort).reply.unwrap();
    assert_eq!(reset.timestamps, Some(Timestamps { val: 1007, ecr: 100 }));
}

/// RFC 7323 4.1-2.
#[test]
fn an_echo_tells_which_copy_was_answered() {
    let mut t = with_timestamps();
    let before = t.s.tx.srtt_us;
    t.write(2000);
    let _ = t.expire();
    let again = t.emit().unwrap().timestamps.unwrap();
    t.now_us += 40_000;
    let _ = t.segment(stamped(seg(RX, TX, A, 0), 150, again.val));
    assert_eq!(t.s.tx.srtt_us, before, "nothing new is acknowledged");
    let _ = t.segment(stamped(seg(RX, TX + 1000, A, 0), 150, again.val));
    assert_eq!(t.s.tx.srtt_us, (7 * before + 40_000 + 4) / 8);
}

/// RFC 7323 4.1-2. What is in flight was sent again in part, and that part has no record.
#[test]
fn in_recovery_and_after_a_timeout_each_echo_is_a_measurement() {
    let measured = |lose: fn(&mut Script)| {
        let mut t = Script::with(|s| (s.snd_wnd, s.timestamps) = (60_000, Some(Timestamping { recent: 100, offset: 7 })));
        t.write(30_000);
        lose(&mut t);
        t.emit_all();
        // New data has followed, which has one.
        let _ = t.segment(stamped(seg(RX, TX + 2000, A, 0), 100, 0));
        let sent = t.emit_all();
        assert!(sent.iter().any(|s| !s.rexmit), "{sent:?}");
        let before = t.s.tx.srtt_us;
        t.now_us += 50_000;
        let _ = t.segment(stamped(seg(RX, TX + 3000, A, 0), 100, sent[0].timestamps.unwrap().val));
        assert_eq!(t.s.tx.srtt_us, (7 * before + 50_000 + 4) / 8);
    };
    measured(|t| {
        for _ in 0..8 {
            let _ = t.segment(stamped(seg(RX, TX, A, 0), 100, 0));
        }
    });
    measured(|t| {
        let _ = t.expire();
        t.s.cc.cwnd = 20_000;
    });
}

/// RFC 3168 6.1.1-6.
#[test]
fn ce_is_echoed_until_cwr() {
    let mut t = Script::with(|s| s.ecn = true);
    let _ = t.segment(SegmentIn { ce: true, ..seg(RX, TX, A, 2000) });
    assert!(t.emit().unwrap().flags.contains(TcpFlags::ECE));
    let _ = t.segment(seg(RX + 2000, TX, A, 2000));
    assert!(t.emit().unwrap().flags.contains(TcpFlags::ECE));
    let _ = t.segment(seg(RX + 4000, TX, A | TcpFlags::CWR, 2000));
    assert!(!t.emit().unwrap().flags.contains(TcpFlags::ECE));
}

/// RFC 9293 SHLD-8; RFC 3168 5-2, 6.1.1-5, 6.1.2-5.
#[test]
fn ece_halves_cwnd_once_per_window() {
    let mut t = Script::with(|s| (s.ecn, s.snd_wnd) = (true, 60_000));
    let sent = t.write(10_000);
    assert!(sent.iter().all(|s| s.ect && !s.flags.contains(TcpFlags::CWR)));
    let _ = t.segment(seg(RX, TX + 1000, A | TcpFlags::ECE, 0));
    let reduced = t.s.cc.ssthresh;
    assert_eq!(reduced, 5000);
    let _ = t.segment(seg(RX, TX + 2000, A | TcpFlags::ECE, 0));
    assert_eq!(t.s.cc.ssthresh, reduced);
    let _ = t.segment(seg(RX, TX + 10_000, A | TcpFlags::ECE, 0));
    let sent = t.write(2000);
    assert!(sent[0].flags.contains(TcpFlags::CWR) && !sent[1].flags.contains(TcpFlags::CWR));
}

/// RFC 3168 6.1.2-2.
#[test]
fn a_window_that_was_marked_is_no_occasion_to_grow_and_others_are() {
    let mut t = Script::with(|s| (s.ecn, s.snd_wnd) = (true, 60_000));
    t.write(10_000);
    let _ = t.segment(seg(RX, TX + 1000, A, 0));
    assert_eq!(t.s.cc.cwnd, 11_000, "slow start");
    let _ = t.segment(seg(RX, TX + 2000, A | TcpFlags::ECE, 0));
    let reduced = t.s.cc.cwnd;
    let _ = t.segment(seg(RX, TX + 9900, A, 0));
    assert_eq!(t.s.cc.cwnd, reduced);
    let _ = t.segment(seg(RX, TX + 10_000, A, 0));
    t.write(10_000);
    let _ = t.segment(seg(RX, TX + 14_000, A, 0));
    t.emit_all();
    let _ = t.segment(seg(RX, TX + 18_000, A, 0));
    assert_eq!(t.s.cc.cwnd, reduced + 1000);
}

#[test]
fn ece_with_nothing_in_flight_reduces_nothing() {
    let mut t = Script::with(|s| (s.ecn, s.snd_wnd) = (true, 60_000));
    let before = (t.s.cc.cwnd, t.s.cc.ssthresh);
    let _ = t.segment(seg(RX, TX, A | TcpFlags::ECE, 1000));
    assert_eq!((t.s.cc.cwnd, t.s.cc.ssthresh), before);
}

/// RFC 3168, 6.1.2: once for a window of data, whatever of it is lost or marked.
#[test]
fn a_loss_and_a_mark_in_one_window_reduce_it_once() {
    for mark_first in [true, false] {
        let mut t = Script::with(|s| (s.ecn, s.snd_wnd) = (true, 60_000));
        t.write(10_000);
        let mark = |t: &mut Script| {
            let _ = t.segment(seg(RX, TX, A | TcpFlags::ECE, 0));
        };
        if mark_first {
            mark(&mut t);
        }
        for _ in 0..3 {
            let _ = t.segment(seg(RX, TX, A, 0));
        }
        assert_eq!(t.emit().map(|s| (s.pos, s.rexmit)), Some((0, true)));
        mark(&mut t);
        assert_eq!(t.s.cc.ssthresh, 5000);
    }
}

/// RFC 3168 5.2-1, 5.2-2, 6.1.2-4, 6.1.4-1, 6.1.5-2.
#[test]
fn ecn_is_for_new_data_only() {
    let mut t = Script::with(|s| s.ecn = true);
    assert!(t.write(2000).iter().all(|s| s.ect));
    let _ = t.segment(seg(RX, TX, A | TcpFlags::ECE, 0));
    let _ = t.expire();
    let again = t.emit().unwrap();
    assert!(again.rexmit && !again.ect && !again.flags.contains(TcpFlags::CWR));
    let _ = t.segment(seg(RX, TX, A, 2000));
    let ack = t.emit().unwrap();
    assert_eq!((ack.len, ack.ect), (0, false));
}

/// RFC 3168 6.1.4-1.
#[test]
fn a_fin_alone_is_not_ecn_capable() {
    let mut t = Script::with(|s| s.ecn = true);
    let _ = t.host(0, 0, hc_flags::FIN);
    assert!(t.emit().is_some_and(|fin| fin.flags.contains(TcpFlags::FIN) && !fin.ect));
}

/// RFC 3168 6.1.6-1.
#[test]
fn a_probe_of_a_closed_window_is_not_ecn_capable() {
    let mut t = Script::with(|s| (s.ecn, s.snd_wnd) = (true, 0));
    assert_eq!(t.write(10), []);
    let probe = t.expire_and_emit();
    assert!(!probe.ect && !probe.flags.contains(TcpFlags::CWR));
}

/// RFC 3168 6.1.6-2, 6.1.5-1.
#[test]
fn ce_counts_on_a_window_probe_and_not_outside_the_window() {
    let ece = |seq| {
        let mut t = Script::with(|s| (s.ecn, s.rcv_wnd, s.rx_buf_log2) = (true, 4096, 12));
        let _ = t.segment(seg(RX, TX, A, 4096));
        t.emit().unwrap();
        let out = t.segment(SegmentIn { ce: true, ..seg(seq, TX, A, 1) });
        out.reply.unwrap().flags.contains(TcpFlags::ECE)
    };
    assert!(ece(RX + 4096), "a byte of a window probe");
    assert!(!ece(RX + 9000) && !ece(RX));
}

/// RFC 9293 MAY-5, MUST-24, MUST-28, MUST-29, SHLD-12.
#[test]
fn keep_alive_probes_and_gives_up() {
    let mut t = Script::new();
    let _ = t.host(0, 0, hc_flags::KEEPALIVE);
    let start = t.now_us;
    for i in 0..9 {
        assert!(t.expire().counts.has(Counter::TxProbes), "probe {i}");
        assert_eq!(t.emit().map(|p| (p.seq, p.len)), Some((SeqNum(TX - 1), 0)));
    }
    assert_eq!(t.expire().closed, Some(CloseReason::Timeout));
    assert_eq!((t.now_us - start) / 1_000_000, 7200 + 9 * 75);
}

/// RFC 9293 MUST-25.
/// The clock's half circle is 25 days.
#[test]
fn keep_alive_probes_at_once_after_weeks_of_silence() {
    for days in [1, 20, 30, 49] {
        let mut t = Script::new();
        t.now_us += days * 24 * 3600 * 1_000_000;
        let _ = t.host(0, 0, hc_flags::KEEPALIVE);
        assert!(next_deadline(&t.s, t.now()).is_some_and(|due| due.0 - t.now_us <= 2000), "{days}");
        assert!(t.expire_and_emit().len == 0, "{days}");
    }
}

#[test]
fn keep_alive_is_off_unless_asked_for() {
    let mut t = Script::new();
    assert_eq!(next_deadline(&t.s, t.now()), None);
    t.write(1000);
    let _ = t.segment(seg(RX, TX + 1000, A, 0));
    assert_eq!(next_deadline(&t.s, t.now()), None);
}

/// RFC 9293 MUST-26.
#[test]
fn an_answered_keep_alive_starts_over() {
    let mut t = Script::new();
    let _ = t.host(0, 0, hc_flags::KEEPALIVE);
    for _ in 0..50 {
        let out = t.expire();
        assert_eq!(out.closed, None);
        if t.emit().is_some() {
            let _ = t.segment(seg(RX, TX, A, 0));
        }
    }
}

fn options(change: impl FnOnce(&mut FlowOptions)) -> Input {
    let mut options = FlowOptions::default();
    change(&mut options);
    Input::Options(options)
}

/// Sums of backed-off timeouts, from the first retransmission on.
/// RFC 9293 MUST-21, 3.10.8-1.
#[test]
fn the_user_timeout_counts_from_the_first_retransmission() {
    for limit_ms in [1, 999, 1000, 1001, 5000, 200_000, 2_000_000] {
        let mut t = Script::new();
        let _ = t.input(options(|o| o.user_timeout_ms = limit_ms));
        t.write(10);
        let _ = t.expire();
        t.emit().expect("at least one retransmission");
        let first = t.now_us;
        while t.expire().closed.is_none() {
            t.emit().expect("a retransmission");
        }
        let ms = (t.now_us - first) / 1000;
        assert!((limit_ms.into()..u64::from(limit_ms) + 30).contains(&ms), "{ms} of {limit_ms} ms");
    }
}

/// RFC 9293 MUST-21.
#[test]
fn a_timer_that_runs_is_moved_by_what_a_new_user_timeout_differs() {
    let mut t = Script::new();
    t.write(10);
    for _ in 0..3 {
        let _ = t.expire();
        t.emit().expect("a retransmission");
    }
    let before = next_deadline(&t.s, t.now());
    let out = t.input(options(|o| o.user_timeout_ms = 1000));
    assert!(out.deadline && next_deadline(&t.s, t.now()) < before);
    let _ = t.input(options(|_| ()));
    assert_eq!(next_deadline(&t.s, t.now()), before);
}

/// It begins with a retransmission, so the first timeout is what it is.
#[test]
fn a_user_timeout_does_not_hasten_the_first_retransmission() {
    let mut t = Script::new();
    t.write(10);
    let before = next_deadline(&t.s, t.now());
    let _ = t.input(options(|o| o.user_timeout_ms = 50));
    assert_eq!(next_deadline(&t.s, t.now()), before);
}

#[test]
fn another_idle_time_holds_from_when_something_was_last_received() {
    let mut t = Script::new();
    let _ = t.host(0, 0, hc_flags::KEEPALIVE);
    t.now_us += 60_000_000;
    let out = t.input(options(|o| o.keep_idle_s = 100));
    assert!(out.deadline && t.expire().counts.has(Counter::TxProbes));
    assert_eq!(t.now_us, 1_000_000 + 100_000_000 + 1000);
    // Between probes it is the next interval that is another.
    let due = next_deadline(&t.s, t.now());
    let _ = t.input(options(|o| (o.keep_idle_s, o.keep_interval_s) = (10, 3)));
    assert_eq!(next_deadline(&t.s, t.now()), due);
}

/// RFC 3168, 5: the last two bits of the type of service are not the application's.
#[test]
fn type_of_service_and_hop_limit_are_taken_from_options() {
    let mut t = Script::new();
    let ttl = t.s.id.ttl;
    let _ = t.input(options(|o| o.tos = 0x1f));
    assert_eq!((t.s.id.tos, t.s.id.ttl), (0x1c, ttl), "0 is no hop limit");
    let _ = t.input(options(|o| o.ttl = 7));
    assert_eq!((t.s.id.tos, t.s.id.ttl), (0, 7));
}

/// However long it takes: the count of retransmissions ends at 255.
#[test]
fn the_longest_user_timeout_ends() {
    let mut t = Script::new();
    let _ = t.input(options(|o| o.user_timeout_ms = u32::MAX));
    t.write(10);
    let expired = (0..300).take_while(|_| t.expire().closed.is_none() && t.emit().is_some()).count();
    assert_eq!(expired, 255);
}

#[test]
fn times_go_back_when_a_flow_is_forgotten() {
    let mut pools = Pools::new(4, 4);
    // More than an application may have at a time.
    for idle in 1..1000 {
        let mut s = establish(&setup());
        let _ = input(&mut s, &mut pools, &options(|o| o.keep_idle_s = idle), Now(0));
        assert_ne!(s.cc.timers, 0, "set {idle}");
        forget(&mut s, &mut pools);
        assert_eq!(s.cc.timers, 0);
    }
    assert_eq!(pools.take_refused(), 0);
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut pools = Pools::new(4, 4);
    let mut last = establish(&setup());
    for idle in 1..=256 {
        last = establish(&setup());
        let _ = input(&mut last, &mut pools, &options(|o| o.keep_idle_s = idle), Now(0));
    }
    assert_eq!((last.cc.timers, pools.take_refused()), (0, 1));
}

/// A state from elsewhere names nothing here.
#[test]
fn imported_states_have_the_usual_times() {
    let (mut s, mut pools) = (establish(&setup()), Pools::new(4, 4));
    s.cc.timers = 200;
    admit(&mut s, &mut pools, Now(0));
    assert_eq!(s.cc.timers, 0);
}

#[test]
fn quick_ack_acknowledges_what_waits_and_what_comes() {
    let mut t = Script::new();
    let p = TcpFlags::PSH | A;
    let _ = t.segment(seg(RX, TX, p, 10));
    assert_eq!(t.emit(), None, "delayed");
    let out = t.input(options(|o| o.quick_ack = quick_ack::ON));
    assert!(out.send && t.emit().is_some_and(|ack| ack.len == 0));
    let _ = t.segment(seg(RX + 10, TX, p, 10));
    assert!(t.emit().is_some());
    let _ = t.input(options(|o| o.quick_ack = quick_ack::OFF));
    let _ = t.segment(seg(RX + 20, TX, p, 10));
    assert_eq!(t.emit(), None);
}

/// RFC 7323 5.7-1; RFC 1191 3-1, 3-2, 3-3, 3-4, 6.4-2; RFC 5927 4.1-1.
#[test]
fn frag_needed_sends_again_in_smaller_segments() {
    let mut t = Script::new();
    t.write(3000);
    let error = |seq| Input::IcmpError(IcmpError { kind: 3, code: 4, mtu: 600, seq: SeqNum(seq) });
    let _ = t.input(error(TX + 5000));
    assert_eq!(t.s.rx.mss, 1000, "about nothing that is in flight");
    assert!(t.input(error(TX)).send);
    let sent = t.emit_all();
    assert_eq!(ranges(&sent)[..2], [(0, 560), (560, 560)]);
}

/// RFC 1191 6.4-2. What answers segments that were too long says nothing of a loss.
#[test]
fn frag_needed_ends_recovery_and_duplicates_begin_none() {
    let mut t = Script::with(|s| (s.snd_wnd, s.ecn) = (60_000, true));
    t.write(10_000);
    let _ = t.segment(seg(RX, TX, A | TcpFlags::ECE, 0));
    for _ in 0..3 {
        let _ = t.segment(seg(RX, TX, A, 0));
    }
    t.emit_all();
    let _ = t.input(Input::IcmpError(IcmpError { kind: 3, code: 4, mtu: 600, seq: SeqNum(TX) }));
    assert_eq!(t.s.rx.flags & (flow_flags::RECOVERY | flow_flags::ECN_REDUCED), 0);
    assert_eq!(t.emit_all().iter().map(|s| s.len).sum::<u32>(), 4480, "eight of 560");
    for _ in 0..5 {
        assert!(t.segment(seg(RX, TX, A, 0)).counts.is_empty());
        assert_eq!(t.emit(), None);
    }
    assert_eq!((t.s.cc.cwnd, t.s.cc.ssthresh), (5000, 5000));
}

/// Over IPv6 headers are longer, and no path has less than 1280 bytes (RFC 8201, 4).
/// RFC 8201 4-1, 4-3, 4-4, 4-5, 4-6, 4-8, 5.4-1, 5.4-3.
#[test]
fn packet_too_big_over_ipv6_leaves_room_for_its_headers() {
    let ip = |last| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    for (mtu, mss) in [(1400, 1340), (1280, 1220), (100, 1220), (1500, 1400)] {
        let mut t = Script::with(|s| {
            (s.key.local_ip, s.key.remote_ip) = (ip(1), ip(2));
            s.mss = 1400;
        });
        t.write(3000);
        let cwnd = t.s.cc.cwnd;
        let error = |seq| Input::IcmpError(IcmpError { kind: 3, code: 4, mtu, seq: SeqNum(seq) });
        let _ = t.input(error(TX + 5000));
        assert_eq!(t.s.rx.mss, 1400, "about nothing that is in flight");
        let sends = t.input(error(TX)).send;
        assert_eq!((t.s.rx.mss, t.s.cc.cwnd), (mss, cwnd), "{mtu}: no congestion");
        // At once, and in segments that fit.
        assert_eq!(sends, mss < 1400);
        assert!(t.emit_all().iter().all(|s| s.len <= u32::from(mss)));
    }
}

/// RFC 1191 3-7, 3-8, 3-9, 6.4-1.
#[test]
fn frag_needed_never_makes_segments_larger_nor_very_small() {
    let mut t = Script::new();
    let error = |mtu| Input::IcmpError(IcmpError { kind: 3, code: 4, mtu, seq: SeqNum(TX) });
    t.write(3000);
    for (mtu, mss, again) in
        [(9000, 1000, false), (1040, 1000, false), (700, 660, true), (700, 660, false), (0, 512, true), (68, 512, false)]
    {
        let _ = t.input(error(mtu));
        assert_eq!((u32::from(t.s.rx.mss), t.emit_all().is_empty()), (mss, !again), "{mtu}");
    }
}

/// RFC 9293 MUST-56: network, host and port unreachable, source route failed, time exceeded, parameter problem.
/// RFC 5927 5.2-1.
#[test]
fn other_icmp_errors_change_nothing() {
    let mut t = Script::new();
    t.write(3000);
    let view = |t: &Script| (t.s.rx.mss, t.s.rx.state, t.s.tx.snd_nxt, t.s.cc.cwnd);
    let before = view(&t);
    for (kind, code) in [(3, 0), (3, 1), (3, 3), (3, 5), (11, 0), (12, 0)] {
        let out = t.input(Input::IcmpError(IcmpError { kind, code, mtu: 600, seq: SeqNum(TX) }));
        assert_eq!((out.closed, view(&t)), (None, before), "type {kind} code {code}");
    }
}

/// A caller asks for the next deadline if it is told to.
#[test]
fn the_deadline_is_new_when_a_timer_has_run_or_is_due_sooner() {
    let mut t = Script::with(|s| s.snd_wnd = 0);
    assert!(!t.host(0, 0, 0).deadline);
    assert!(t.host(10, 0, 0).deadline && !t.host(20, 0, 0).deadline, "for the first probe of a closed window");
    assert!(t.expire().deadline && t.input(Input::Timer).deadline);
}

#[test]
fn impossible_positions_are_refused() {
    let mut t = Script::new();
    for (tx, rx) in [(65_537, 0), (1 << 30, 0), (1 << 31, 0), (0, 1), (10, 5)] {
        let out = t.host(tx, rx, hc_flags::FIN);
        assert!(out.bad_host && !out.send, "{tx} {rx}");
    }
    assert_eq!((t.s.tx.tx_head, t.s.rx.rx_tail, t.s.rx.state), (0, 0, st::ESTABLISHED));
    assert!(!t.host(65_536, 0, 0).bad_host);
}

#[test]
fn overtaken_positions_are_ignored() {
    let mut t = Script::new();
    t.write(100);
    let out = t.host(50, 0, hc_flags::FIN);
    assert!(!out.bad_host);
    assert_eq!((t.s.tx.tx_head, t.s.rx.state), (100, st::ESTABLISHED));
}

#[test]
fn nothing_can_be_added_behind_fin() {
    let mut t = Script::new();
    let _ = t.host(100, 0, hc_flags::FIN);
    assert!(t.host(101, 0, hc_flags::FIN).bad_host);
    assert_eq!(t.s.tx.tx_head, 100);
}
