//! Acknowledgements, recovery, the peer's window, and what is held back.

use super::*;
use toe_abi::counters::{Counter, Drop};
use toe_abi::flow::cc;

/// RFC 9293 3.10.7.4-22; RFC 2018 8-5; RFC 6675 4-2.
#[test]
fn an_ack_frees_the_buffer() {
    let mut t = Script::new();
    assert_eq!(ranges(&t.write(1500)), [(0, 1000), (1000, 500)]);
    let out = t.segment(seg(RX, TX + 1000, A, 0));
    assert!(out.notify);
    assert_eq!(tx_tail(&t.s), 1000);
}

/// RFC 5681 3.2-3, 3.2-7, 3.2-9, 4.3-1, 4.3-2; RFC 6582 3.2-1.
#[test]
fn three_duplicate_acks_retransmit_one_segment() {
    let mut t = Script::new();
    t.write(8000);
    let _ = t.segment(seg(RX, TX, A, 0));
    for _ in 0..2 {
        let out = t.segment(seg(RX, TX, A, 0));
        assert!(out.counts.is_empty());
    }
    // The first of the four was a window update (60,000 for 65,535), not a duplicate.
    let out = t.segment(seg(RX, TX, A, 0));
    assert!(out.counts.has(Counter::TxFastRetransmits));
    let again = t.emit().unwrap();
    assert_eq!((again.pos, again.len, again.rexmit), (0, 1000, true));
    assert_eq!(t.s.cc.ssthresh, 4000);
}

/// RFC 9438 4.6-1.
#[test]
fn cubic_falls_at_once_when_recovery_begins() {
    let mut t = Script::with(|s| (s.snd_wnd, s.algorithm) = (60_000, cc::CUBIC));
    t.write(10_000);
    for _ in 0..3 {
        let _ = t.segment(seg(RX, TX, A, 0));
    }
    assert_eq!((t.s.cc.ssthresh, t.s.cc.cwnd), (7000, 10_000), "and three segments that have left the network");
}

/// RFC 5681 3.2-4, 3.2-5; RFC 3042 2-1, 2-2.
#[test]
fn limited_transmit_sends_new_data_on_the_first_two_duplicates() {
    let mut t = Script::with(|s| s.snd_wnd = 60_000);
    assert_eq!(t.write(20_000).len(), 10);
    for i in 0..2 {
        assert!(t.segment(seg(RX, TX, A, 0)).send);
        assert_eq!(ranges(&t.emit_all()), [(10_000 + i * 1000, 1000)]);
    }
}

/// RFC 6675 5-2; RFC 5681 3.2-13, 4.3-3; RFC 6582 3.2-3, 3.2-4, 3.2-5.
#[test]
fn a_partial_ack_retransmits_the_next_hole() {
    let mut t = Script::with(|s| s.snd_wnd = 60_000);
    t.write(8000);
    for _ in 0..3 {
        let _ = t.segment(seg(RX, TX, A, 0));
    }
    assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
    assert!(t.segment(seg(RX, TX + 3000, A, 0)).send);
    assert_eq!(t.s.cc.cwnd, 4000 + 3000 - 3000 + 1000, "less what was acknowledged, and a segment more");
    assert_eq!(t.emit().map(|s| (s.pos, s.len, s.rexmit)), Some((3000, 1000, true)));
    let _ = t.segment(seg(RX, TX + 3100, A, 0));
    assert_eq!(t.s.cc.cwnd, 4900, "it was less than a segment");
    let _ = t.segment(seg(RX, TX + 8000, A, 0));
    assert_eq!(tx_tail(&t.s), 8000);
    assert_eq!(t.s.cc.cwnd, 2000, "nothing is in flight: no burst");
    // It is over, and the window grows again.
    t.write(2000);
    let _ = t.segment(seg(RX, TX + 10_000, A, 0));
    assert_eq!(t.s.cc.cwnd, 4000);
}

/// RFC 5681 3.2-6: condition (c).
#[test]
fn a_repeated_fin_is_no_duplicate_ack() {
    let mut t = Script::with(|s| s.snd_wnd = 60_000);
    t.write(8000);
    for _ in 0..5 {
        assert!(!t.segment(seg(RX, TX, A | TcpFlags::FIN, 0)).counts.has(Counter::TxFastRetransmits));
    }
}

/// RFC 9293 3.10.8-2; RFC 2018 5-3; RFC 6298 5-1, 5-2.
#[test]
fn timeout_backs_off_and_goes_back() {
    let mut t = Script::new();
    t.write(3000);
    let start = t.now_us;
    let out = t.expire();
    assert!(out.counts.has(Counter::TxTimeouts) && out.send);
    let first = t.now_us - start;
    assert!((201_000..=204_000).contains(&first), "RTO {first}");
    assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
    let start = t.now_us;
    let _ = t.expire();
    assert!((2 * first - 3000..=2 * first).contains(&(t.now_us - start)));
    assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
    let _ = t.segment(seg(RX, TX + 1000, A, 0));
    assert_eq!(ranges(&t.emit_all()), [(1000, 1000), (2000, 1000)]);
}

/// RFC 5681 4.3-4.
#[test]
fn a_lost_retransmission_is_a_second_sign_of_congestion() {
    let mut t = Script::with(|s| s.snd_wnd = 60_000);
    t.write(8000);
    for _ in 0..3 {
        let _ = t.segment(seg(RX, TX, A, 0));
    }
    t.emit_all();
    assert_eq!(t.s.cc.ssthresh, 4000);
    let _ = t.expire();
    assert!(t.s.cc.ssthresh < 4000 && t.s.cc.cwnd == 1000, "{:?}", t.s.cc);
    t.emit_all();
    let _ = t.segment(seg(RX, TX + 1000, A, 0));
    assert_eq!(t.s.cc.cwnd, 2000, "slow start");
}

/// RFC 6582 3.2-2, 3.2-6.
#[test]
fn duplicates_of_what_a_timeout_sent_again_start_no_recovery() {
    let mut t = Script::with(|s| s.snd_wnd = 60_000);
    t.write(8000);
    let _ = t.expire();
    t.emit_all();
    let _ = t.segment(seg(RX, TX + 4000, A, 0));
    t.emit_all();
    for _ in 0..5 {
        assert!(t.segment(seg(RX, TX + 4000, A, 0)).counts.is_empty());
    }
    let _ = t.segment(seg(RX, TX + 8000, A, 0));
    t.write(8000);
    for _ in 0..3 {
        assert!(t.segment(seg(RX, TX + 8000, A, 0)).counts.is_empty(), "it may still answer copies of what timed out");
    }
}

/// RFC 6298 3-3.
#[test]
fn each_round_trip_is_measured() {
    let mut t = Script::with(|s| s.rtt_us = 0);
    for i in 1..=3 {
        t.write(3000);
        t.now_us += 1000 * u64::from(i);
        let _ = t.segment(seg(RX, TX + 3000 * i, A, 0));
        assert_ne!(t.s.tx.srtt_us, 0);
    }
    // 1, 2 and 3 ms, weighed.
    assert_eq!(t.s.tx.srtt_us, 1359);
}

#[test]
fn a_small_tail_is_sent_again_in_spite_of_nagle() {
    let mut t = Script::new();
    let _ = t.host(1100, 0, 0);
    assert_eq!(ranges(&t.emit_all()), [(0, 1000), (1000, 100)]);
    let _ = t.expire();
    assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
    let _ = t.segment(seg(RX, TX + 1000, A, 0));
    assert_eq!(ranges(&t.emit_all()), [(1000, 100)]);
}

/// RFC 9293 MUST-20, SHLD-11, 3.10.8-1.
#[test]
fn an_unanswered_flow_is_given_up() {
    let mut t = Script::new();
    t.write(10);
    for _ in 0..15 {
        assert_eq!(t.expire().closed, None);
        assert_eq!(t.emit_all().len(), 1);
    }
    let out = t.expire();
    assert_eq!((out.closed, out.error), (Some(CloseReason::Timeout), errno::ETIMEDOUT));
    assert!(t.now_us > 900_000_000 && t.now_us < 1_100_000_000, "after {} s", t.now_us / 1_000_000);
    assert_eq!(next_deadline(&t.s, t.now()), None);
}

/// RFC 9293 MUST-47, SHLD-25: what routers said since the peer went silent is told at the end, and nothing older.
#[test]
fn what_routers_said_is_told_when_the_flow_is_given_up() {
    let told = |before: Option<(u8, u8)>, after: Option<(u8, u8)>| {
        let mut t = Script::new();
        t.write(10);
        for (n, error) in [before, after].into_iter().enumerate() {
            if let Some((kind, code)) = error {
                let out = t.input(Input::IcmpError(IcmpError { kind, code, mtu: 0, seq: SeqNum(TX) }));
                assert_eq!(out.closed, None);
            }
            for _ in 0..if n == 0 { 1 } else { 14 } {
                assert_eq!(t.expire().closed, None);
                assert_eq!(t.emit_all().len(), 1);
            }
        }
        t.expire().error
    };
    assert_eq!(told(None, Some((3, 0))), errno::ENETUNREACH);
    assert_eq!(told(None, Some((3, 1))), errno::EHOSTUNREACH);
    assert_eq!(told(None, Some((11, 0))), errno::EHOSTUNREACH);
    assert_eq!(told(Some((3, 0)), None), errno::ETIMEDOUT);
}

/// RFC 9293 MUST-36, MUST-37.
#[test]
fn a_closed_window_is_probed_for_as_long_as_the_peer_answers() {
    let mut t = Script::with(|s| s.snd_wnd = 0);
    assert_eq!(t.write(10), []);
    for _ in 0..100 {
        let out = t.expire();
        assert!(out.counts.has(Counter::TxProbes) && out.send && out.closed.is_none());
        let probe = t.emit().unwrap();
        assert_eq!((probe.seq, probe.len), (SeqNum(TX - 1), 0));
        let _ = t.segment(SegmentIn { window: 0, ..seg(RX, TX, A, 0) });
    }
    assert!(t.segment(seg(RX, TX, A, 0)).send);
    assert_eq!(ranges(&t.emit_all()), [(0, 10)]);
}

/// As in Linux (RFC 6429): nobody else would ever end it.
#[test]
fn a_window_that_stays_closed_ends_a_flow_that_nobody_holds() {
    let mut t = Script::with(|s| s.snd_wnd = 0);
    t.write(10);
    let _ = t.input(Input::Close { unread: false });
    let start_us = t.now_us;
    let closed = (0..100).find_map(|_| {
        let out = t.expire();
        t.emit_all();
        let _ = t.segment(SegmentIn { window: 0, ..seg(RX, TX, A, 0) });
        out.closed
    });
    assert_eq!(closed, Some(CloseReason::Timeout));
    assert!(t.now_us - start_us > 120_000_000, "not before the longest timeout");
}

#[test]
fn a_closed_window_and_a_dead_peer_end() {
    let mut t = Script::with(|s| s.snd_wnd = 0);
    t.write(10);
    for _ in 0..15 {
        assert_eq!(t.expire().closed, None);
        t.emit_all();
    }
    assert_eq!(t.expire().closed, Some(CloseReason::Timeout));
}

/// RFC 9293 SHLD-16, SHLD-17, MUST-35, MAY-7.
#[test]
fn a_peer_that_closes_its_window_on_data_in_flight_is_not_given_up() {
    let mut t = Script::new();
    t.write(1000);
    for _ in 0..40 {
        assert_eq!(t.expire().closed, None);
        assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
        let _ = t.segment(SegmentIn { window: 0, ..seg(RX, TX, A, 0) });
    }
}

/// RFC 9293 3.10.7.4-23.
#[test]
fn an_ack_of_what_was_never_sent_is_refused() {
    let mut t = Script::new();
    let out = t.segment(seg(RX, TX + 1, A, 10));
    assert_eq!((out.place, out.drop), (None, Some(Drop::BadAck)));
    assert_eq!(out.reply.unwrap().seq, SeqNum(TX));
}

/// RFC 9293 MAY-12, 3.10.7.4-18, 3.10.7.4-19; RFC 5961 5.2-1, 5.2-2, 5.2-3.
#[test]
fn an_ack_from_the_far_past_is_refused() {
    let mut t = Script::new();
    let out = t.segment(seg(RX, TX.wrapping_sub(100_000), A, 10));
    assert_eq!((out.place, out.drop), (None, Some(Drop::BadAck)));
}

/// RFC 5961 5.2-1, 5.2-2: on a fresh connection nothing lies before the first byte, however large the window.
#[test]
fn an_ack_of_what_lies_before_the_first_byte_is_refused() {
    let mut t = Script::with(|s| s.snd_wnd = 60_000);
    let out = t.segment(seg(RX, TX.wrapping_sub(1), A, 10));
    assert_eq!((out.place, out.drop, out.reply.is_some()), (None, Some(Drop::BadAck), true));
    t.write(2000);
    let _ = t.segment(seg(RX, TX + 2000, A, 0));
    assert_eq!(t.segment(seg(RX, TX.wrapping_sub(1), A, 10)).drop, Some(Drop::BadAck));
    assert!(t.segment(seg(RX, TX, A, 10)).place.is_some());
}

/// RFC 9293 3.10.7.4-17; RFC 7323 3.2-4.
#[test]
fn a_segment_without_ack_is_dropped() {
    let out = Script::new().segment(seg(RX, TX, TcpFlags::PSH, 10));
    assert_eq!((out.place, out.drop, out.reply), (None, Some(Drop::NoAck), None));
}

/// RFC 9438 4.2-1: time in which nothing is sent is not on the curve, but counts once, however many acknowledgements leave meanwhile.
#[test]
fn silence_is_counted_once() {
    let mut t = Script::with(|s| (s.snd_wnd, s.algorithm) = (60_000, cc::CUBIC));
    t.s.cc.ssthresh = t.s.cc.cwnd;
    t.write(10_000);
    let _ = t.segment(seg(RX, TX + 10_000, A, 0));
    let curve = t.s.cc.words;
    for i in 0..50 {
        t.now_us += 1000;
        let _ = t.segment(seg(RX + 1000 * i, TX + 10_000, A, MSS));
        t.emit_all();
    }
    assert_eq!(t.s.cc.words, curve);
    t.write(1000);
    let moved: Vec<u32> = t.s.cc.words.iter().zip(curve).map(|(now, before)| now.wrapping_sub(before)).collect();
    assert_eq!(moved, [0, 50, 0, 0]);
}

/// RFC 9293 3.10.7.4-24.
#[test]
fn an_overtaken_window_is_not_taken_back() {
    let mut t = Script::new();
    t.write(5000);
    let _ = t.segment(SegmentIn { window: 9000, ..seg(RX, TX + 5000, A, 0) });
    let _ = t.segment(SegmentIn { window: 4000, ..seg(RX, TX + 5000, A, 0) });
    assert_eq!(t.s.tx.snd_wnd, 9000);
}

/// RFC 9293 3.10.7.4-24.
#[test]
fn a_smaller_window_in_the_same_words_counts_once_data_times_out() {
    let mut t = Script::new();
    t.write(5000);
    let said = |window| SegmentIn { window, ..seg(RX, TX, A, 0) };
    let _ = t.segment(said(9000));
    let _ = t.segment(said(4000));
    assert_eq!(t.s.tx.snd_wnd, 9000);
    let _ = t.expire();
    let _ = t.segment(said(4000));
    assert_eq!(t.s.tx.snd_wnd, 4000);
}

/// As in Linux: what acknowledges more is newer, though its data was sent before.
#[test]
fn the_window_of_a_retransmission_counts_if_it_acknowledges_more() {
    let mut t = Script::new();
    t.write(3000);
    let _ = t.segment(SegmentIn { window: 3000, ..seg(RX + 1000, TX, A, 1000) });
    let _ = t.segment(SegmentIn { window: 0, ..seg(RX, TX + 3000, A, 1000) });
    assert_eq!((t.s.tx.snd_wnd, ranges(&t.write(3000))), (0, vec![(3000, 0)]), "an ACK alone");
    // Nor does an ACK of before it count.
    let _ = t.segment(SegmentIn { window: 3000, ..seg(RX + 1000, TX, A, 0) });
    assert_eq!(t.s.tx.snd_wnd, 0);
}

/// RFC 9293 SHLD-28; RFC 5681 2-1, 3-1.
#[test]
fn the_window_limits_what_is_sent() {
    let mut t = Script::with(|s| s.snd_wnd = 2500);
    assert_eq!(ranges(&t.write(9000)), [(0, 1000), (1000, 1000)]);
}

/// RFC 9293 MUST-38.
#[test]
fn a_small_window_is_used_after_a_while() {
    let mut t = Script::with(|s| s.snd_wnd = 10_000);
    t.s.tx.snd_wnd = 500;
    assert_eq!(t.write(9000), [], "silly window");
    let _ = t.expire();
    assert_eq!(ranges(&t.emit_all()), [(0, 500)]);
}

/// RFC 9293 MUST-34, SHLD-15; RFC 7323 2.4-1, 2.4-4.
#[test]
fn nothing_new_goes_beyond_a_window_that_has_shrunk() {
    let mut t = Script::with(|s| s.snd_wnd = 5000);
    assert_eq!(t.write(9000).len(), 5);
    let _ = t.segment(SegmentIn { window: 1000, ..seg(RX, TX + 2000, A, 0) });
    assert_eq!(t.emit_all(), [], "3000 bytes are out where 1000 would be welcome");
    let _ = t.expire();
    assert_eq!(ranges(&t.emit_all()), [(2000, 1000)]);
    let _ = t.segment(SegmentIn { window: 1000, ..seg(RX, TX + 5000, A, 0) });
    assert_eq!(ranges(&t.emit_all()), [(5000, 1000)]);
}

/// As in Linux: beyond its window a peer would not take them, and what it sends would never be acknowledged.
#[test]
fn acknowledgements_and_resets_lie_within_a_window_that_has_shrunk() {
    for (wscale, window, at) in [(0, 1000, 3000), (0, 3000, 5000), (0, 2999, 4999), (3, 374, 4992), (11, 1, 5000), (11, 0, 2000)] {
        let mut t = Script::with(|s| (s.snd_wnd, s.snd_wscale) = (5000, wscale));
        t.write(5000);
        let _ = t.segment(SegmentIn { window, ..seg(RX, TX + 2000, A, 2000) });
        let ack = t.emit().unwrap();
        assert_eq!((ack.seq, ack.ack, ack.len), (SeqNum(TX + at), SeqNum(RX + 2000), 0), "{wscale} {window}");
        assert_eq!(t.input(Input::Abort).reply.map(|rst| rst.seq), Some(SeqNum(TX + at)));
    }
}

/// RFC 9293 SHLD-29, SHLD-30.
#[test]
fn probes_of_a_closed_window_begin_after_an_rto_and_back_off() {
    let mut t = Script::with(|s| s.snd_wnd = 0);
    assert_eq!(t.write(10), []);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let start = t.now_us;
        let _ = t.expire();
        waits.push((t.now_us - start) / 1000);
        t.emit().unwrap();
    }
    assert!((201..=204).contains(&waits[0]), "{waits:?}");
    assert!(waits.windows(2).all(|w| (2 * w[0] - 3..=2 * w[0]).contains(&w[1])), "{waits:?}");
}

/// RFC 9293 SHLD-27.
#[test]
fn writes_are_put_together_in_one_segment() {
    let mut t = Script::with(|s| s.snd_wnd = 0);
    assert_eq!(t.write(100), []);
    assert_eq!(t.write(200), []);
    let _ = t.segment(seg(RX, TX, A, 0));
    let sent = t.emit_all();
    assert_eq!((ranges(&sent), sent[0].flags), (vec![(0, 300)], A | TcpFlags::PSH));
}

/// RFC 9293 SHLD-7.
#[test]
fn nagle_holds_a_second_small_segment() {
    let mut t = Script::new();
    let _ = t.host(100, 0, 0);
    assert_eq!(t.emit_all().len(), 1);
    assert!(!t.host(200, 0, 0).send);
    assert!(t.segment(seg(RX, TX + 100, A, 0)).send);
    assert_eq!(ranges(&t.emit_all()), [(100, 100)]);
}

/// RFC 9293 SHLD-7: the mark of the last small segment may be more than half of the sequence space behind.
#[test]
fn a_small_segment_goes_after_gigabytes_of_whole_ones() {
    let mut t = Script::with(|s| s.tx_buf_log2 = 30);
    let most = 1_000_000 * MSS;
    for head in [most, 2 * most, 3 * most] {
        let _ = t.host(head, 0, 0);
        while tx_tail(&t.s) != head {
            (t.s.tx.snd_wnd, t.s.cc.cwnd) = (most, most);
            let now = t.now();
            while emit(&mut t.s, &mut t.pools, now, 60_000).is_some() {}
            let _ = t.segment(seg(RX, t.s.tx.snd_max, A, 0));
        }
    }
    let _ = t.host(3 * most + 10, 0, 0);
    assert_eq!(ranges(&t.emit_all()), [(3 * most, 10)]);
    // One more small one waits for it, as ever.
    let _ = t.host(3 * most + 20, 0, 0);
    assert_eq!(ranges(&t.emit_all()), []);
}

/// RFC 9293 MUST-17.
#[test]
fn nodelay_does_not_hold() {
    let mut t = Script::new();
    assert_eq!(t.write(100).len(), 1);
    assert_eq!(t.write(100).len(), 1);
}

/// RFC 9293 MUST-60, MAY-16.
#[test]
fn cork_holds_the_tail_for_200_ms() {
    let mut t = Script::new();
    let _ = t.host(1100, 0, hc_flags::CORK);
    assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
    let _ = t.segment(seg(RX, TX + 1000, A, 0));
    let start = t.now_us;
    assert!(t.expire().send);
    assert!((200_000..=201_000).contains(&(t.now_us - start)));
    assert_eq!(ranges(&t.emit_all()), [(1000, 100)]);
}

#[test]
fn cork_holds_the_next_tail_as_long() {
    let mut t = Script::new();
    for head in [100, 200] {
        assert!(!t.host(head, 0, hc_flags::CORK).send);
        let start = t.now_us;
        assert!(t.expire().send);
        assert!(t.now_us - start >= 200_000);
        assert_eq!(ranges(&t.emit_all()), [(head - 100, 100)]);
        let _ = t.segment(seg(RX, TX + head, A, 0));
    }
}

#[test]
fn cork_lets_whole_segments_go() {
    let mut t = Script::new();
    let _ = t.host(3100, 0, hc_flags::CORK);
    let now = t.now();
    assert_eq!(emit(&mut t.s, &mut t.pools, now, 64_000).map(|s| (s.pos, s.len)), Some((0, 3000)));
    assert_eq!(t.emit(), None);
}

#[test]
fn after_a_silence_the_window_begins_anew() {
    let mut t = Script::with(|s| s.snd_wnd = 60_000);
    t.s.cc.cwnd = 40_000;
    assert_eq!(t.write(10_000).len(), 10);
    let _ = t.segment(seg(RX, TX + 10_000, A, 0));
    t.now_us += 10_000_000;
    assert_eq!(t.write(40_000).len(), 10);
    // What is in flight is no silence.
    t.now_us += 100_000;
    let _ = t.segment(seg(RX, TX + 20_000, A, 0));
    assert_eq!(t.emit_all().len(), 20);
}

#[test]
fn uncorking_sends_at_once() {
    let mut t = Script::new();
    assert!(!t.host(100, 0, hc_flags::CORK).send);
    assert!(t.host(100, 0, 0).send);
    assert_eq!(ranges(&t.emit_all()), [(0, 100)]);
}

#[test]
fn super_frames_are_whole_segments() {
    let mut t = Script::with(|s| s.snd_wnd = 7500);
    let _ = t.host(60_000, 0, 0);
    let now = t.now();
    let frame = emit(&mut t.s, &mut t.pools, now, 64_000).unwrap();
    assert_eq!((frame.pos, frame.len, frame.mss), (0, 7000, 1000));
    assert_eq!(emit(&mut t.s, &mut t.pools, now, 64_000), None);
}
