//! Loss recovery with a scoreboard: RFC 2018, 2883, 6675, 8985 (RACK-TLP), 9937 (PRR), 5682 (F-RTO), 3522 and 4015 (undo).
//!
//! Segments are of 1000 bytes and named by their transmit positions; the round trip is 1 ms.

use super::*;
use toe_abi::counters::Counter;
use toe_abi::flow::{cc, flow_flags, timer};

const RTT_US: u64 = 1000;

/// A flow with SACK and room for 60 segments, ten of which may be in flight.
fn script() -> Script {
    Script::with(|s| (s.sack, s.snd_wnd) = (true, 60_000))
}

/// An ACK of position `ack`, with blocks of positions.
fn sack(ack: u32, blocks: &[(u32, u32)]) -> SegmentIn {
    let mut sack = SackBlocks::default();
    for &(start, end) in blocks {
        sack.push(SeqNum(TX.wrapping_add(start)), SeqNum(TX.wrapping_add(end)));
    }
    SegmentIn { sack, ..seg(RX, TX + ack, A, 0) }
}

impl Script {
    fn wait(&mut self, us: u64) {
        self.now_us += us;
    }

    /// An ACK with blocks; gives what is sent then.
    fn ack(&mut self, ack: u32, blocks: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let _ = self.segment(sack(ack, blocks));
        ranges(&self.emit_all())
    }

    fn window(&mut self, segments: u32) {
        self.s.cc.cwnd = segments * MSS;
    }

    fn counts(&mut self, ack: u32, blocks: &[(u32, u32)]) -> Counts {
        self.segment(sack(ack, blocks)).counts
    }
}

// RFC 6675, RFC 8985, 6: what is lost, and when.

/// RFC 2018 5-1; RFC 6675 4-1, 4-4, 4-5, 5-1, 5-3, 5-10; RFC 8985 3.3.2-1, 4-1, 9.2-1.
#[test]
fn three_sacked_segments_prove_the_one_before_them_lost() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 2000)]), []);
    assert_eq!(t.ack(0, &[(1000, 3000)]), []);
    assert!(t.counts(0, &[(1000, 4000)]).has(Counter::TxFastRetransmits));
    assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
    assert_eq!(t.s.cc.ssthresh, 5000);
}

/// RFC 6675 5-5, 5-6, 5-8, 5-9.
#[test]
fn three_holes_are_filled_in_one_round_trip() {
    let mut t = script();
    t.window(20);
    t.write(20_000);
    t.wait(RTT_US);
    let mut sent = vec![];
    // 2000, 6000 and 10000 are lost. ACKs come as the segments arrive.
    sent.extend(t.ack(2000, &[]));
    for end in 4..=6 {
        sent.extend(t.ack(2000, &[(3000, end * 1000)]));
    }
    for end in 8..=10 {
        sent.extend(t.ack(2000, &[(7000, end * 1000), (3000, 6000)]));
    }
    for end in 12..=20 {
        sent.extend(t.ack(2000, &[(11_000, end * 1000), (7000, 10_000), (3000, 6000)]));
    }
    assert_eq!(sent, [(2000, 1000), (6000, 1000), (10_000, 1000)]);
    // A round trip later everything is there, and one reduction has been enough.
    t.wait(RTT_US);
    let _ = t.ack(20_000, &[]);
    assert_eq!((tx_tail(&t.s), t.s.cc.cwnd, t.s.cc.ssthresh), (20_000, 9000, 9000));
}

/// RFC 8985 3.3.2-2, 4-2, 6.2-2, 8-1.
#[test]
fn a_single_overtaken_segment_has_a_quarter_of_a_round_trip() {
    let mut t = script();
    t.write(2000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 2000)]), []);
    assert_eq!(t.s.tx.timer, timer::REORDER);
    let start = t.now_us;
    assert!(t.expire().counts.has(Counter::TxRackLosses));
    assert!(t.now_us - start <= 2000, "after {} us", t.now_us - start);
    assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
}

/// RFC 6675 4-10.
#[test]
fn an_overtaken_segment_that_comes_in_time_is_not_sent_again() {
    let mut t = script();
    t.write(4000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 2000)]), []);
    t.wait(200);
    assert_eq!(t.ack(4000, &[]), []);
    assert_eq!((t.s.id.retransmits, t.pools.left()), (0, (64, 16)), "all is calm again");
}

/// Sequence numbers may begin anywhere.
#[test]
fn what_was_sacked_in_order_was_not_reordered() {
    for iss in [0, 1 << 30, 1 << 31, 3 << 30] {
        let mut t = Script::with(|s| (s.sack, s.iss) = (true, SeqNum(iss)));
        t.write(10_000);
        t.wait(RTT_US);
        let mut blocks = SackBlocks::default();
        blocks.push(SeqNum(iss + 1001), SeqNum(iss + 2001));
        let _ = t.segment(SegmentIn { sack: blocks, ..seg(RX, iss + 1, A, 0) });
        assert_eq!(t.s.rx.flags & flow_flags::REORDERED, 0);
    }
}

#[test]
fn neighbours_that_have_become_alike_share_a_record() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    for end in 2..=4 {
        let _ = t.ack(0, &[(1000, end * 1000)]);
    }
    // One lost, three SACKed, and what follows.
    assert_eq!(t.pools.left().0, 64 - 3);
}

#[test]
fn the_window_grows_while_segments_are_only_overtaken() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    let _ = t.ack(0, &[(1000, 2000)]);
    t.wait(200);
    let _ = t.ack(2000, &[]);
    assert_eq!(t.s.cc.cwnd, 11_000, "by what is new: the second was known");
}

/// RFC 9293 SHLD-16: the first segment is sent again whatever the window is.
#[test]
fn what_a_shrunk_window_has_no_room_for_is_not_sent_again() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    let _ = t.segment(SegmentIn { window: 0, ..sack(0, &[(3000, 10_000)]) });
    assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
    let _ = t.segment(SegmentIn { window: 2000, ..sack(1000, &[(3000, 10_000)]) });
    assert_eq!(ranges(&t.emit_all()), [(1000, 1000), (2000, 1000)]);
}

#[test]
fn where_segments_overtake_each_other_three_are_no_proof() {
    let mut t = script();
    t.write(2000);
    t.wait(RTT_US);
    let _ = t.ack(0, &[(1000, 2000)]);
    // The first was only late.
    let _ = t.ack(2000, &[]);
    t.write(8000);
    t.wait(RTT_US);
    assert_eq!(t.ack(2000, &[(3000, 10_000)]), []);
    assert_eq!(t.s.tx.timer, timer::REORDER);
    assert_eq!(t.ack(10_000, &[]), []);
    assert_eq!(t.s.id.retransmits, 0);
}

/// RFC 8985 3.3.2-3, 3.3.2-4, 4-3.
#[test]
fn each_round_with_a_needless_retransmission_widens_the_reordering_window() {
    let mut t = script();
    for round in 1..=3 {
        let at = t.s.tx.tx_head;
        t.write(5000);
        t.wait(RTT_US);
        let _ = t.ack(at, &[(at + 1000, at + 2000)]);
        // As many quarters of a round trip as rounds, on a timer of milliseconds.
        let _ = t.expire();
        assert_eq!(ranges(&t.emit_all()), [(at, 1000)]);
        // The original was only late, and so the copy was needless: twice told, counted once.
        let _ = t.ack(at + 5000, &[(at, at + 1000)]);
        let _ = t.ack(at + 5000, &[(at, at + 1000)]);
        assert_eq!(t.s.id.reo_wnd_more, round);
    }
}

#[test]
fn copies_that_the_network_makes_widen_no_reordering_window() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    let _ = t.ack(5000, &[]);
    assert!(t.counts(5000, &[(1000, 2000)]).has(Counter::RxDsacks));
    assert_eq!(t.s.id.reo_wnd_more, 0);
}

/// RFC 8985 3.3.2-4.
#[test]
fn a_recovery_that_was_for_nothing_shows_that_segments_overtake_each_other() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 4000)]), [(0, 1000)]);
    let _ = t.ack(10_000, &[(0, 1000)]);
    // Three are no proof any more.
    let at = 10_000;
    t.write(5000);
    t.wait(RTT_US);
    assert_eq!(t.ack(at, &[(at + 1000, at + 5000)]), []);
    assert_eq!((t.s.tx.timer, t.s.id.reo_wnd_more), (timer::REORDER, 1));
}

#[test]
fn a_wider_reordering_window_is_forgotten_after_16_recoveries() {
    let mut t = script();
    t.s.id.reo_wnd_more = 5;
    t.s.id.reo_wnd_persist = 16;
    for recovery in 1..=16 {
        let at = t.s.tx.tx_head;
        t.window(10);
        t.write(5000);
        t.wait(RTT_US);
        let _ = t.ack(at, &[(at + 1000, at + 5000)]);
        t.wait(RTT_US);
        let _ = t.ack(at + 5000, &[]);
        assert_eq!(t.s.id.reo_wnd_more, if recovery < 16 { 5 } else { 0 });
    }
}

/// RFC 8985 3.3.2-4.
#[test]
fn a_wider_reordering_window_never_exceeds_a_round_trip() {
    let mut t = script();
    t.s.id.reo_wnd_more = 255;
    t.write(2000);
    t.wait(RTT_US);
    let _ = t.ack(0, &[(1000, 2000)]);
    let start = t.now_us;
    assert!(t.expire().counts.has(Counter::TxRackLosses));
    assert!(t.now_us - start <= RTT_US + 2000, "after {} us", t.now_us - start);
}

/// RFC 6675 5-7.
#[test]
fn what_is_sacked_beyond_the_recovery_point_stays_so() {
    let mut t = script();
    t.write(20_000);
    t.wait(RTT_US);
    // What is sent now lies beyond the recovery point, and the first of it is lost, too.
    let mut sent = t.ack(0, &[(1000, 10_000)]);
    t.wait(RTT_US);
    sent.extend(t.ack(0, &[(11_000, 12_000), (1000, 10_000)]));
    sent.extend(t.ack(10_000, &[(11_000, 12_000)]));
    t.wait(RTT_US);
    sent.extend(t.ack(10_000, &[(11_000, 14_000)]));
    let times = |pos| sent.iter().filter(|&&(at, len)| at <= pos && pos < at + len).count();
    assert_eq!((times(10_000), times(11_000)), (2, 1), "{sent:?}");
}

/// RFC 2883 5-1.
#[test]
fn an_overtaken_ack_reports_no_duplicate() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    let _ = t.ack(5000, &[(6000, 7000)]);
    // Sent before, and true then: 2000 lay beyond a hole.
    assert!(!t.counts(1000, &[(2000, 3000)]).has(Counter::RxDsacks));
    assert!(t.counts(5000, &[(2000, 3000)]).has(Counter::RxDsacks));
}

#[test]
fn a_lost_retransmission_is_sent_a_third_time_without_a_timeout() {
    let mut t = script();
    t.window(20);
    t.write(30_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 4000)])[0], (0, 1000));
    t.wait(100);
    // New data follows the retransmission, ...
    let sent = t.ack(0, &[(1000, 20_000)]);
    assert_eq!(sent[0], (20_000, 1000));
    t.wait(RTT_US);
    // ... and arrives, while the retransmission does not.
    assert_eq!(t.ack(0, &[(20_000, 23_000), (1000, 20_000)])[0], (0, 1000));
    assert_eq!(t.s.tx.backoff, 0);
}

/// On a path whose round trip is more than half of a timeout: each time what is lost is sent again, the timer begins anew (as in Linux).
#[test]
fn a_retransmission_that_is_lost_and_sent_again_has_a_timeout_of_its_own() {
    const LONG_US: u64 = 300_000;
    let mut t = script();
    (t.s.tx.srtt_us, t.s.tx.rttvar_us) = (LONG_US as u32, 1000);
    t.window(20);
    t.write(30_000);
    t.wait(LONG_US);
    assert_eq!(t.ack(0, &[(1000, 4000)])[0], (0, 1000));
    t.wait(100);
    assert_eq!(t.ack(0, &[(1000, 20_000)])[0], (20_000, 1000));
    t.wait(LONG_US);
    assert_eq!(t.ack(0, &[(20_000, 23_000), (1000, 20_000)])[0], (0, 1000));
    let due = next_deadline(&t.s, t.now()).unwrap();
    assert!(due.0 > t.now_us + LONG_US, "the timer expires {} us before its acknowledgement can come", t.now_us + LONG_US - due.0);
}

#[test]
fn an_ack_from_before_a_retransmission_says_nothing_about_it() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(2000, 10_000)]), [(0, 1000), (1000, 1000)]);
    // Sooner than any round trip: the original.
    t.wait(100);
    assert_eq!(t.ack(1000, &[(2000, 10_000)]), [], "the second is not lost because the copy of the first has come");
}

/// RFC 6675 4-3, 4-6, 5-4.
#[test]
fn sacked_data_makes_room_for_new_data() {
    // RFC 3042 with SACK: the first two duplicates each let a segment go.
    let mut t = script();
    t.write(20_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 2000)]), [(10_000, 1000)]);
    assert_eq!(t.ack(0, &[(1000, 3000)]), [(11_000, 1000)]);
}

#[test]
fn blocks_that_cannot_be_true_are_ignored() {
    let mut t = script();
    t.write(10_000);
    let _ = t.ack(2000, &[]);
    let outside = [(10_000, 11_000), (9000, 10_001), (5000, 4000), (0, 1000)];
    assert_eq!(t.ack(2000, &outside), []);
    assert_eq!(t.ack(2000, &[(0x7000_0000, 0x7000_1000), (0x9000_0000, 0x9000_1000)]), []);
    assert_eq!((t.s.tx.board, t.s.id.retransmits), (0, 0));
}

/// RFC 2883 5-1.
#[test]
fn a_duplicate_that_cannot_be_one_is_not_counted() {
    let mut t = script();
    t.write(10_000);
    let _ = t.ack(2000, &[]);
    // Long ago, never sent, nothing at all.
    for block in [(0x8000_0000, 0x8000_1000), (1000, 11_000), (1000, 1000), (2000, 1000)] {
        assert!(!t.counts(2000, &[block]).has(Counter::RxDsacks), "{block:?}");
    }
}

/// A scoreboard that waits for D-SACKs stays while the flow is silent.
#[test]
fn what_is_sent_after_an_hour_of_silence_is_timed_from_then() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 4000)]), [(0, 1000)]);
    t.wait(RTT_US);
    let _ = t.ack(10_000, &[]);
    assert_ne!(t.s.tx.board, 0);
    t.wait(3_600_000_000);
    t.write(1000);
    t.wait(RTT_US);
    let _ = t.ack(11_000, &[]);
    assert_eq!(t.s.tx.min_rtt_us, 1000);
}

/// RFC 6675 5-3; RFC 3042 2-3; RFC 5681 3.2-6.
/// RFC 3042 2-3; RFC 6675 4-10.
#[test]
fn a_duplicate_ack_without_sack_is_none() {
    let mut t = script();
    let _ = t.segment(seg(RX, TX, A, 0));
    assert_eq!(t.write(20_000).len(), 10);
    for _ in 0..5 {
        assert_eq!(t.ack(0, &[]), [], "neither new data nor old");
    }
}

/// RFC 8985 4-1.
#[test]
fn without_records_three_duplicate_acks_retransmit() {
    let mut t = script();
    t.pools = Pools::new(0, 4);
    t.write(10_000);
    let mut sent = vec![];
    for end in 2..=4 {
        sent.extend(t.ack(0, &[(1000, end * 1000)]));
    }
    assert_eq!(sent, [(0, 1000)]);
    assert!(t.pools.take_refused() > 0);
}

/// Blocks of SACK may make 512 records, and holes that are sent again in part need more: they are filled by what is known.
#[test]
fn many_holes_do_not_end_the_scoreboard() {
    const GROUP: u32 = 6;
    let mut t = Script::with(|s| (s.sack, s.snd_wnd, s.tx_buf_log2) = (true, 1_800_000, 22));
    t.s.tx.wscale = 6;
    t.pools = Pools::new(4096, 4);
    t.window(1800);
    t.write(1800 * MSS);
    t.wait(RTT_US);
    // The first two of every six are lost.
    for group in 0..1800 / GROUP {
        let start = group * GROUP * MSS;
        let _ = t.segment(sack(0, &[(start + 2 * MSS, start + GROUP * MSS)]));
        while t.emit().is_some() {}
    }
    assert!(t.s.tx.board != 0 && t.s.rx.flags & flow_flags::RECOVERY != 0, "it goes on with what it knows");
}

/// RFC 6298, 3: a measurement is of what was sent at one time. A record that stands for all, for want of others, gives none.
#[test]
fn without_records_a_flow_that_is_never_idle_measures_nothing_wrong() {
    let mut t = script();
    t.pools = Pools::new(1, 4);
    let srtt_us = t.s.tx.srtt_us;
    t.write(2000);
    for n in 1..100 {
        t.wait(RTT_US);
        t.write(1000);
        let _ = t.ack(n * 1000, &[]);
    }
    t.wait(RTT_US);
    let _ = t.ack(101_000, &[]);
    assert!(t.s.tx.srtt_us <= srtt_us.max(2 * RTT_US as u32), "{} us", t.s.tx.srtt_us);
    assert!(t.s.cc.sent == 0 && t.s.rx.flags & flow_flags::RTT_PENDING == 0);
    // As ever, once there is a record again.
    t.write(1000);
    t.wait(5 * RTT_US);
    let _ = t.ack(102_000, &[]);
    assert!(t.s.tx.srtt_us > srtt_us);
}

/// RFC 8985, 6.2: only what was sent before something that has arrived can be lost.
#[test]
fn without_records_what_is_sent_after_a_retransmission_is_not_lost_with_it() {
    let mut t = script();
    t.pools = Pools::new(3, 4);
    t.window(20);
    t.write(9000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 8000)]), [(0, 1000)]);
    assert_eq!(t.pools.left().0, 0);
    t.wait(RTT_US / 2);
    t.window(20);
    assert_eq!(ranges(&t.write(1000)), [(9000, 1000)]);
    t.wait(RTT_US / 2);
    // The retransmission has arrived, and nothing of the rest.
    assert_eq!(t.ack(8000, &[]), []);
}

/// Where records are left, but no scoreboard.
#[test]
fn without_a_scoreboard_three_duplicate_acks_retransmit() {
    let mut t = script();
    t.pools = Pools::new(4, 4);
    t.write(3000);
    let _ = t.ack(0, &[(1000, 3000)]);
    assert_eq!(t.pools.left().1, 0);
    t.s = script().s;
    t.write(10_000);
    let mut sent = vec![];
    for end in 2..=4 {
        sent.extend(t.ack(0, &[(1000, end * 1000)]));
    }
    assert_eq!(sent, [(0, 1000)]);
}

#[test]
fn without_records_a_loss_lasts_until_all_is_acknowledged_that_was_in_flight() {
    let mut t = script();
    t.pools = Pools::new(0, 4);
    t.write(4000);
    let _ = time_out(&mut t);
    let lossy = [1000, 3000, 4000].map(|ack| {
        let _ = t.ack(ack, &[]);
        t.s.rx.flags & flow_flags::LOSS != 0
    });
    assert_eq!(lossy, [true, true, false]);
}

/// It has not been negotiated, so they mean nothing.
#[test]
fn blocks_of_a_peer_without_sack_are_not_heeded() {
    let mut t = Script::with(|s| s.snd_wnd = 60_000);
    t.write(10_000);
    assert_eq!((2..=3).flat_map(|end| t.ack(0, &[(1000, end * 1000)])).collect::<Vec<_>>(), []);
    assert_eq!(t.ack(0, &[(1000, 4000)]), [(0, 1000)], "the third duplicate, as without them");
}

#[test]
fn records_that_run_out_in_recovery_end_it_as_newreno() {
    let mut t = script();
    // One for what is sent, one for each block and hole: not enough to tell the two lost segments from the rest.
    t.pools = Pools::new(4, 4);
    t.window(20);
    t.write(20_000);
    t.wait(RTT_US);
    let _ = t.ack(0, &[(2000, 10_000)]);
    t.wait(RTT_US);
    for ack in [1000, 2000, 10_000, 20_000] {
        let _ = t.ack(ack, &[]);
        t.wait(RTT_US);
    }
    assert_eq!((tx_tail(&t.s), t.pools.left().0), (20_000, 4));
}

/// RFC 8985, 6.2, step 4: where segments are small, as many ACKs with news of SACK as three segments would bring.
#[test]
fn three_acks_with_news_prove_a_loss_of_small_segments() {
    let mut t = script();
    for _ in 0..6 {
        t.write(100);
    }
    t.wait(RTT_US);
    for _ in 0..5 {
        assert_eq!(t.ack(0, &[(100, 200)]), [], "the same news again");
    }
    assert_eq!(t.ack(0, &[(100, 300)]), []);
    assert_eq!(t.ack(0, &[(100, 400)]), [(0, 100)]);
}

#[test]
fn losses_that_show_in_recovery_reduce_the_window_once() {
    let mut t = script();
    t.s.rx.flags |= flow_flags::REORDERED;
    t.write(10_000);
    t.wait(RTT_US);
    let _ = t.ack(0, &[(1000, 2000)]);
    assert!(t.expire().counts.has(Counter::TxFastRetransmits));
    t.emit_all();
    let _ = t.ack(0, &[(6000, 7000), (1000, 2000)]);
    let out = if t.s.tx.timer == timer::REORDER { t.expire() } else { panic!("{:?}", t.s.tx) };
    assert!(out.counts.has(Counter::TxRackLosses) && !out.counts.has(Counter::TxFastRetransmits));
    assert_eq!(t.s.cc.ssthresh, 5000);
}

/// What is sent again goes in whole segments, as much as there is room for, or as the port takes.
#[test]
fn lost_data_is_sent_again_in_whole_segments() {
    let again = |room, max_payload| {
        let mut t = script();
        t.window(20);
        t.write(19_500);
        t.wait(RTT_US);
        let _ = t.segment(sack(0, &[(2500, 19_500)]));
        t.s.cc.cwnd = room;
        let now = t.now();
        emit(&mut t.s, &mut t.pools, now, max_payload).map(|s| (s.pos, s.len))
    };
    assert_eq!((again(2400, 64_000), again(2500, 64_000), again(9000, 64_000)), (Some((0, 2000)), Some((0, 2500)), Some((0, 2500))));
    assert_eq!((again(9000, 1000), again(9000, 400), again(999, 64_000)), (Some((0, 1000)), Some((0, 400)), None));
}

// RFC 9937: how much may be sent in recovery.

/// RFC 6937 3-3: PRR-SSRB, where more was lost than the window has to fall by.
#[test]
fn each_ack_sends_as_much_as_it_delivers_and_a_segment_more_if_all_is_well() {
    let mut t = script();
    t.window(20);
    t.write(40_000);
    t.wait(RTT_US);
    // Eight of twenty have arrived, four are left to be sent again.
    assert_eq!(t.ack(0, &[(12_000, 20_000)]).len(), 8);
    t.wait(RTT_US);
    let sent: Vec<_> = (1..=6).map(|i| t.ack(i * 1000, &[(12_000, 20_000)]).len()).collect();
    assert_eq!(sent, [2, 2, 1, 1, 1, 1], "until ssthresh is in flight");
}

/// RFC 9937, 6.2: SafeACK.
#[test]
fn an_ack_that_does_not_advance_brings_no_segment_more() {
    let mut t = script();
    t.window(20);
    t.write(40_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(12_000, 20_000)]).len(), 8);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(8000, 9000), (12_000, 20_000)]).len(), 1);
}

/// RFC 6675 5-9; RFC 8985 9.3-1, 9.3-2; RFC 6937 3-1, 3-2, 3-3, 3-5.
#[test]
fn the_window_comes_down_in_proportion_to_what_arrives() {
    let mut t = script();
    t.window(20);
    t.write(60_000);
    t.wait(RTT_US);
    let mut sent = 0;
    for end in 2..=20 {
        sent += t.ack(0, &[(1000, end * 1000)]).len();
    }
    // Two by limited transmit, then one for every two that arrive: ten segments of twenty remain.
    assert!((10..=11).contains(&sent), "{sent}");
    t.wait(RTT_US);
    let _ = t.ack(20_000, &[]);
    assert_eq!((t.s.cc.cwnd, t.s.cc.ssthresh), (10_000, 10_000));
}

/// RFC 6937 3-3.
#[test]
fn below_ssthresh_the_window_grows_back_while_holes_are_filled() {
    let mut t = script();
    t.window(20);
    t.write(60_000);
    t.wait(RTT_US);
    // Twelve of twenty are lost: eight in flight, for which ten would be right.
    let sent = t.ack(0, &[(12_000, 20_000)]).len() + t.ack(0, &[(12_000, 20_000)]).len();
    t.wait(RTT_US);
    // What is sent again arrives in order, and nothing more is lost: two for one, although much is still to be sent again.
    let more: usize = (1..=sent as u32).map(|n| t.ack(n * 1000, &[(12_000, 20_000)]).len()).sum();
    assert!(more > sent && more <= 2 * sent, "{more} after {sent}");
}

/// RFC 5681 4.3-1.
#[test]
fn a_reduction_for_ecn_is_not_repeated_for_a_loss_in_the_same_window() {
    let mut t = Script::with(|s| (s.sack, s.ecn, s.snd_wnd) = (true, true, 60_000));
    t.write(10_000);
    t.wait(RTT_US);
    let _ = t.segment(SegmentIn { flags: A | TcpFlags::ECE, ..sack(1000, &[]) });
    let ssthresh = t.s.cc.ssthresh;
    assert_eq!(t.ack(1000, &[(2000, 10_000)])[0], (1000, 1000));
    assert_eq!(t.s.cc.ssthresh, ssthresh);
}

#[test]
fn recovery_leaves_the_window_of_a_flow_with_a_rate_as_it_was() {
    let mut t = Script::with(|s| (s.sack, s.ecn, s.snd_wnd, s.algorithm) = (true, true, 60_000, cc::DCTCP_RATE));
    t.write(10_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 10_000)])[0], (0, 1000));
    let _ = t.ack(10_000, &[]);
    assert_eq!(t.s.cc.cwnd, 10_000);
    // It grows as before.
    t.write(10_000);
    let _ = t.ack(20_000, &[]);
    assert_eq!(t.s.cc.cwnd, 20_000);
}

#[test]
fn a_recovery_in_which_the_flow_gets_a_rate_ends_where_it_would_have() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 10_000)])[0], (0, 1000));
    assert!(toe_tcp::cc::choose(&mut t.s, cc::CONST_RATE));
    let _ = t.ack(10_000, &[]);
    assert_eq!((t.s.cc.ssthresh, t.s.cc.cwnd), (5000, 6000));
    t.write(5000);
    let _ = t.ack(15_000, &[]);
    assert_eq!(t.s.cc.cwnd, 6000 + 5000, "it grows");
}

// RFC 8985, 7: tail loss probes.

/// RFC 8985 7.2-1, 7.2-4, 7.3-4, 7.3-5.
#[test]
fn a_lost_tail_is_probed_after_two_round_trips() {
    let mut t = script();
    t.write(3000);
    let start = t.now_us;
    let out = t.expire();
    assert!(out.counts.has(Counter::TxTailProbes) && out.send);
    assert!(t.now_us - start <= 6000, "after {} us", t.now_us - start);
    assert_eq!(ranges(&t.emit_all()), [(2000, 1000)]);
    t.wait(RTT_US);
    // All three were lost; the probe shows it.
    let _ = t.ack(0, &[(2000, 3000)]);
    let _ = t.expire();
    assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
    t.wait(RTT_US);
    assert_eq!(t.ack(1000, &[(2000, 3000)]), [(1000, 1000)]);
    assert_eq!(t.s.tx.backoff, 0);
}

/// RFC 8985 7.3-3.
#[test]
fn a_probe_is_new_data_where_there_is_some() {
    let mut t = script();
    assert_eq!(t.write(12_000).len(), 10);
    let _ = t.expire();
    assert_eq!(ranges(&t.emit_all()), [(10_000, 1000)]);
    let _ = t.ack(11_000, &[]);
    assert_eq!((t.s.cc.ssthresh, t.s.tx.board), (1 << 30, 0), "nothing was lost");
}

#[test]
fn an_acknowledgement_beyond_a_probe_of_new_data_repairs_nothing() {
    let mut t = script();
    assert_eq!(t.write(13_000).len(), 10);
    let _ = t.expire();
    assert_eq!(ranges(&t.emit_all()), [(10_000, 1000)]);
    t.window(20);
    assert_eq!(ranges(&t.emit_all()), [(11_000, 1000), (12_000, 1000)]);
    assert!(!t.counts(12_000, &[]).has(Counter::TxTailRepairs));
}

#[test]
fn a_probe_that_shows_a_loss_reduces_the_window_once() {
    let mut t = script();
    t.write(5000);
    let _ = t.expire();
    assert_eq!(ranges(&t.emit_all()), [(4000, 1000)]);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(4000, 5000)]), [(0, 1000)]);
    assert_eq!(t.s.cc.ssthresh, 2500);
    t.window(10);
    t.write(1000);
    assert!(!t.counts(6000, &[]).has(Counter::TxTailRepairs));
    assert_eq!(t.s.cc.ssthresh, 2500);
}

/// RFC 8985, 7.1: "reset TLP.is_retrans and TLP.end_seq when initiating fast recovery".
#[test]
fn a_probe_that_began_a_recovery_repairs_nothing_itself() {
    let begun = || {
        let mut t = script();
        t.write(5000);
        t.wait(RTT_US);
        let _ = t.ack(3000, &[]);
        let _ = t.expire();
        assert_eq!(ranges(&t.emit_all()), [(4000, 1000)]);
        t.wait(RTT_US);
        assert_eq!(t.ack(3000, &[(4000, 5000)]), [(3000, 1000)]);
        t.wait(RTT_US);
        assert!(!t.counts(5000, &[]).has(Counter::TxTailRepairs));
        t
    };
    let mut t = begun();
    let ssthresh = t.s.cc.ssthresh;
    t.window(10);
    t.write(1000);
    assert!(!t.counts(6000, &[]).has(Counter::TxTailRepairs), "with what is sent next");
    assert_eq!(t.s.cc.ssthresh, ssthresh);
    let mut t = begun();
    assert!(!t.expire().counts.has(Counter::TxTailRepairs), "after a while");
    assert_eq!((t.s.cc.ssthresh, t.pools.left(), next_deadline(&t.s, t.now())), (ssthresh, (64, 16), None));
    let mut t = begun();
    let out = t.segment(sack(5000, &[(4000, 5000)]));
    assert!(out.counts.has(Counter::RxDsacks) && !out.counts.has(Counter::TxSpuriousRecoveries), "that was the probe");
}

/// RFC 8985 7.2-3.
#[test]
fn one_segment_is_given_the_time_of_a_delayed_ack() {
    let mut t = script();
    t.write(1000);
    let start = t.now_us;
    assert!(t.expire().counts.has(Counter::TxTailProbes));
    assert!(t.now_us - start > 200_000);
}

/// RFC 8985 7.3-2, 7.3-6, 8-1.
#[test]
fn after_a_probe_comes_the_retransmission_timer() {
    let mut t = script();
    t.write(3000);
    let _ = t.expire();
    t.emit_all();
    let start = t.now_us;
    assert!(t.expire().counts.has(Counter::TxTimeouts));
    assert!(t.now_us - start > 200_000);
}

/// RFC 8985 7.3-1, 7.3-2.
#[test]
fn a_second_probe_waits_for_a_measurement() {
    let mut t = script();
    t.write(1000);
    assert!(t.expire().counts.has(Counter::TxTailProbes));
    t.emit_all();
    // It was sent twice, so nothing is measured.
    let _ = t.ack(1000, &[]);
    let _ = t.ack(1000, &[(0, 1000)]);
    t.write(3000);
    assert_eq!(t.s.tx.timer, timer::RTO);
    t.wait(RTT_US);
    let _ = t.ack(4000, &[]);
    t.write(3000);
    assert_eq!(t.s.tx.timer, timer::TLP);
}

/// RFC 8985 7.2-1.
#[test]
fn new_data_puts_a_probe_off() {
    let mut t = script();
    t.write(1000);
    t.write(1000);
    let first = next_deadline(&t.s, t.now()).unwrap();
    t.wait(3000);
    t.write(1000);
    let second = next_deadline(&t.s, t.now()).unwrap();
    assert_eq!(second.0 - first.0, 3000);
}

/// RFC 8985 7.2-4: a trickle into the void is noticed when the first of it has been out for a timeout.
#[test]
fn new_data_puts_a_probe_off_until_a_timeout_at_most() {
    let mut t = script();
    let start = t.now_us;
    let due = |t: &Script| next_deadline(&t.s, t.now()).unwrap();
    for _ in 0..1000 {
        t.write(1);
        t.wait(2000);
        if due(&t) <= t.now() {
            break;
        }
    }
    assert_eq!(t.s.tx.timer, timer::TLP);
    assert!((190_000..=215_000).contains(&(t.now_us - start)), "{} us", t.now_us - start);
}

/// RFC 8985 7.4.2-1, 7.4.2-2.
#[test]
fn a_loss_that_a_probe_repairs_reduces_the_window() {
    let mut t = script();
    t.write(3000);
    let _ = t.expire();
    assert_eq!(ranges(&t.emit_all()), [(2000, 1000)]);
    // The third was lost: the probe is its only copy.
    let _ = t.ack(3000, &[]);
    t.write(1000);
    assert!(t.counts(4000, &[]).has(Counter::TxTailRepairs));
    assert_eq!(t.s.cc.cwnd, 5000);
}

/// In two round trips a D-SACK would have come.
#[test]
fn a_loss_that_a_probe_repairs_is_known_though_nothing_follows() {
    let mut t = script();
    t.write(3000);
    let _ = t.expire();
    t.emit_all();
    let _ = t.ack(3000, &[]);
    assert!(t.expire().counts.has(Counter::TxTailRepairs));
    assert_eq!((t.s.cc.cwnd, t.pools.left(), next_deadline(&t.s, t.now())), (5000, (64, 16), None));
}

#[test]
fn a_probe_that_was_needless_does_not() {
    let mut t = script();
    t.write(3000);
    let _ = t.expire();
    t.emit_all();
    let _ = t.ack(3000, &[]);
    assert!(t.counts(3000, &[(2000, 3000)]).has(Counter::RxDsacks));
    t.write(1000);
    let _ = t.ack(4000, &[]);
    assert!(t.s.cc.cwnd >= 10_000);
}

/// RFC 8985 7.4.2-2: a peer that sends no D-SACK acknowledges the probe once more.
#[test]
fn a_duplicate_ack_shows_that_a_probe_was_needless() {
    let mut t = script();
    t.write(3000);
    let _ = t.expire();
    t.emit_all();
    let _ = t.ack(3000, &[]);
    t.write(1000);
    assert!(!t.counts(3000, &[]).has(Counter::TxTailRepairs));
    assert!(!t.counts(4000, &[]).has(Counter::TxTailRepairs));
    assert!(t.s.cc.cwnd >= 10_000);
}

/// Also where nothing else has been sent since.
#[test]
fn a_duplicate_ack_shows_that_when_nothing_is_in_flight() {
    let mut t = script();
    t.write(3000);
    let _ = t.expire();
    t.emit_all();
    let _ = t.ack(3000, &[]);
    assert!(!t.counts(3000, &[]).has(Counter::TxTailRepairs));
    assert_eq!((t.pools.left(), next_deadline(&t.s, t.now())), ((64, 16), None));
    t.write(1000);
    assert!(!t.counts(4000, &[]).has(Counter::TxTailRepairs));
    assert!(t.s.cc.cwnd >= 10_000);
}

// Timeouts: RFC 8985, 6.3; RFC 2018, 8; RFC 5682.

/// The probe was a copy as well: one of them reported leaves one that was needed.
#[test]
fn a_timeout_after_a_probe_needs_both_copies_reported_to_be_taken_back() {
    let mut t = script();
    t.write(1000);
    let _ = t.expire();
    assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
    assert_eq!(time_out(&mut t), [(0, 1000)]);
    t.wait(RTT_US);
    assert!(!t.counts(1000, &[(0, 1000)]).has(Counter::TxSpuriousTimeouts));
    assert!(t.counts(1000, &[(0, 1000)]).has(Counter::TxSpuriousTimeouts));
}

/// A spike of the delay is no path that reorders.
#[test]
fn a_timeout_that_is_taken_back_late_says_nothing_of_reordering() {
    let mut t = script();
    t.write(1000);
    let _ = t.expire();
    t.emit_all();
    let _ = time_out(&mut t);
    let _ = t.ack(1000, &[]);
    assert_eq!(t.s.rx.flags & flow_flags::LOSS, 0);
    let _ = t.ack(1000, &[(0, 1000)]);
    let counts = t.counts(1000, &[(0, 1000)]);
    assert!(counts.has(Counter::TxSpuriousTimeouts) && !counts.has(Counter::TxSpuriousRecoveries));
    assert_eq!(t.s.rx.flags & flow_flags::REORDERED, 0);
}

/// RFC 3168, 6.1.2: what the peer sends before it has seen CWR says nothing new (as in Linux, above high_seq).
#[test]
fn a_mark_that_is_echoed_once_more_at_the_end_of_the_window_reduces_it_no_more() {
    let mut t = Script::with(|s| (s.sack, s.ecn, s.snd_wnd) = (true, true, 60_000));
    t.write(10_000);
    t.wait(RTT_US);
    let echo = |t: &mut Script, ack| {
        let _ = t.segment(seg(RX, TX + ack, A | TcpFlags::ECE, 0));
    };
    echo(&mut t, 2000);
    let ssthresh = t.s.cc.ssthresh;
    assert!(ssthresh < 10_000);
    echo(&mut t, 10_000);
    t.write(4000);
    echo(&mut t, 10_000);
    assert_eq!(t.s.cc.ssthresh, ssthresh);
    // The next window is another one.
    echo(&mut t, 14_000);
    t.write(4000);
    echo(&mut t, 16_000);
    assert!(t.s.cc.ssthresh < ssthresh);
}

/// Past probe and reordering timer, to the timeout.
fn time_out(t: &mut Script) -> Vec<(u32, u32)> {
    for _ in 0..4 {
        let timed_out = t.expire().counts.has(Counter::TxTimeouts);
        let sent = ranges(&t.emit_all());
        if timed_out {
            return sent;
        }
    }
    panic!("no timeout")
}

/// RFC 6675 5.1-2, 5.1-3, 5.1-4, 5.1-5, 5.1-6, 5.1-7; RFC 5682 3.1-3.
#[test]
fn a_timeout_keeps_what_was_sacked() {
    let mut t = script();
    t.write(6000);
    t.wait(RTT_US);
    let _ = t.ack(0, &[(1000, 3000)]);
    let _ = t.expire();
    assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
    assert_eq!(time_out(&mut t), [(0, 1000)]);
    t.wait(RTT_US);
    let mut sent = t.ack(1000, &[(1000, 3000)]);
    t.wait(RTT_US);
    sent.extend(t.ack(3000, &[]));
    sent.extend(t.ack(4000, &[]));
    sent.extend(t.ack(5000, &[]));
    sent.dedup();
    assert!(sent.iter().all(|&(pos, _)| pos >= 3000), "{sent:?}");
    assert_eq!(sent.len(), 3, "{sent:?}");
}

/// RFC 5681 3.1-18, 4.3-4: by what recovery has reduced the window to, and not by the little that PRR lets out at the moment.
#[test]
fn a_timeout_in_recovery_halves_the_window_once_more() {
    let mut t = script();
    t.window(20);
    t.write(20_000);
    t.wait(RTT_US);
    let _ = t.ack(0, &[(17_000, 20_000)]);
    assert_eq!(t.s.cc.ssthresh, 10_000);
    // What was sent again is lost as well.
    let _ = time_out(&mut t);
    assert_eq!((t.s.cc.ssthresh, t.s.cc.cwnd), (5000, 1000));
}

/// RFC 2018 5-3.
#[test]
fn what_a_peer_takes_back_is_sent_again() {
    let mut t = script();
    t.write(4000);
    t.wait(RTT_US);
    let _ = t.ack(0, &[(1000, 2000)]);
    // It had this, and no longer does.
    let _ = t.ack(1000, &[]);
    loop {
        let out = t.expire();
        if out.counts.has(Counter::TxTimeouts) {
            assert!(out.counts.has(Counter::RxReneged));
            break;
        }
        t.emit_all();
    }
    assert_eq!(ranges(&t.emit_all()), [(1000, 1000)]);
}

/// RFC 5682 3.1-1, 3.1-2; RFC 9438 4.9.1-1.
#[test]
fn a_timeout_with_everything_only_late_is_taken_back() {
    let mut t = script();
    t.window(8);
    t.write(20_000);
    let (cwnd, ssthresh) = (t.s.cc.cwnd, t.s.cc.ssthresh);
    assert_eq!(time_out(&mut t), [(0, 1000)]);
    assert_eq!(t.s.cc.cwnd, 1000);
    // (2b): instead of retransmissions, new data ...
    let sent = t.ack(1000, &[]);
    assert!(!sent.is_empty() && sent.iter().all(|&(pos, _)| pos >= 8000), "{sent:?}");
    // (3b): ... and then an ACK of what was sent once only.
    assert!(t.counts(2000, &[]).has(Counter::TxSpuriousTimeouts));
    assert!(t.s.cc.cwnd >= cwnd && t.s.cc.ssthresh == ssthresh, "{:?}", t.s.cc);
    assert_eq!(t.s.rx.flags & flow_flags::LOSS, 0);
    assert!(t.emit_all().iter().all(|s| !s.rexmit));
}

/// RFC 6675 5.1-5.
/// RFC 5682 3.1-2.
#[test]
fn a_timeout_for_a_loss_is_not_taken_back() {
    // With data of the peer's it is no duplicate, and yet says what has arrived.
    for data in [0, 100] {
        let mut t = script();
        t.window(8);
        t.write(20_000);
        let _ = time_out(&mut t);
        let sent = t.ack(1000, &[]);
        assert!(sent.iter().all(|&(pos, _)| pos >= 8000), "{sent:?}");
        t.wait(RTT_US);
        // (3a): the new data alone arrives.
        let (start, end) = (sent[0].0, sent[0].0 + 1000);
        let out = t.segment(SegmentIn { sack: sack(0, &[(start, end)]).sack, ..seg(RX, TX + 1000, A, data) });
        assert!(!out.counts.has(Counter::TxSpuriousTimeouts));
        assert_eq!(ranges(&t.emit_all())[0], (1000, 1000), "with {data} bytes");
    }
}

#[test]
fn a_timeout_for_a_lost_fin_is_not_taken_back() {
    for sack in [true, false] {
        let mut t = Script::with(|s| (s.sack, s.snd_wnd) = (sack, 60_000));
        let _ = t.host(0, 0, hc_flags::FIN);
        t.emit_all();
        assert_eq!(time_out(&mut t), [(0, 0)]);
        assert!(!t.segment(seg(RX, TX, A, 100)).counts.has(Counter::TxSpuriousTimeouts));
        t.wait(RTT_US);
        let counts = t.segment(seg(RX + 100, TX + 1, A, 0)).counts;
        assert!(!counts.has(Counter::TxSpuriousTimeouts), "with SACK: {sack}");
    }
}

/// RFC 5682 3.1-2. What is sent since then says nothing of what was sent before.
#[test]
fn a_timeout_is_over_when_all_that_was_sent_before_it_has_arrived() {
    let mut t = script();
    for _ in 0..3 {
        t.write(100);
    }
    assert_eq!(time_out(&mut t), [(0, 300)]);
    // There is room in the window of a segment.
    assert_eq!(ranges(&t.write(200)), [(300, 200)]);
    let _ = t.host(700, 0, hc_flags::NODELAY);
    assert_eq!(t.ack(100, &[]), [(500, 200)]);
    assert!(!t.counts(100, &[(300, 500)]).has(Counter::TxSpuriousTimeouts));
    let _ = t.ack(300, &[(300, 500)]);
    assert_eq!(t.s.rx.flags & flow_flags::LOSS, 0);
}

/// RFC 5682 2.1-3, 3.1-3.
#[test]
fn a_timeout_in_recovery_is_not_taken_back() {
    let mut t = script();
    t.write(6000);
    t.wait(RTT_US);
    let _ = t.ack(0, &[(1000, 3000)]);
    let _ = t.expire();
    t.emit_all();
    let _ = time_out(&mut t);
    assert_eq!(t.s.rx.flags & flow_flags::RECOVERY, 0);
    assert!(!t.counts(4000, &[]).has(Counter::TxSpuriousTimeouts));
    // Nor if it times out again.
    let _ = time_out(&mut t);
    assert!(!t.counts(5000, &[]).has(Counter::TxSpuriousTimeouts));
}

/// RFC 5682 2.1-2, 3.1-4.
#[test]
fn where_it_times_out_again_all_begins_anew() {
    for with_sack in [true, false] {
        let mut t = Script::with(|s| (s.sack, s.snd_wnd) = (with_sack, 60_000));
        t.write(20_000);
        let (cwnd, ssthresh) = (t.s.cc.cwnd, t.s.cc.ssthresh);
        let _ = (time_out(&mut t), time_out(&mut t));
        let sent = t.ack(1000, &[]);
        assert!(!sent.is_empty() && sent.iter().all(|&(pos, _)| pos >= 10_000), "new data: {sent:?}");
        assert!(t.counts(2000, &[]).has(Counter::TxSpuriousTimeouts));
        assert!(t.s.cc.cwnd >= cwnd && t.s.cc.ssthresh == ssthresh, "as before the first: {:?}", t.s.cc);
        // In the middle of it.
        let mut t = Script::with(|s| (s.sack, s.snd_wnd) = (with_sack, 60_000));
        t.write(20_000);
        let _ = time_out(&mut t);
        let _ = t.ack(1000, &[]);
        assert_eq!(time_out(&mut t), [(1000, 1000)], "the first that is missing");
        let sent = t.ack(2000, &[]);
        assert!(!sent.is_empty() && sent.iter().all(|&(pos, _)| pos >= 12_000), "new data again: {sent:?}");
    }
}

/// A flow without SACK, ten segments of which have timed out, with new data behind them.
fn timed_out_without_sack() -> Script {
    let mut t = Script::with(|s| s.snd_wnd = 60_000);
    t.write(20_000);
    assert_eq!(time_out(&mut t), [(0, 1000)]);
    t
}

/// RFC 5682 2.1-1.
#[test]
fn without_sack_an_ack_of_nothing_sent_again_takes_a_timeout_back() {
    let mut t = timed_out_without_sack();
    // (2b)
    assert_eq!(t.ack(2000, &[]), [(10_000, 1000), (11_000, 1000)]);
    // (3b)
    assert!(t.counts(4000, &[]).has(Counter::TxSpuriousTimeouts));
    assert!(t.s.cc.cwnd >= 10_000 && t.s.rx.flags & flow_flags::LOSS == 0, "{:?}", t.s.cc);
    assert_eq!(t.s.cc.recover, t.s.tx.snd_una, "\"recover\" = SND.UNA");
    assert!(t.emit_all().iter().all(|s| !s.rexmit));
    assert_eq!((t.s.tx.board, t.s.id.retransmits), (0, 1), "all is calm again");
}

/// RFC 5682 2.1-1, (2a): the first ACK is a duplicate, or is for a part of the copy, or for everything.
#[test]
fn without_sack_the_first_ack_may_say_that_a_timeout_was_right() {
    let mut t = timed_out_without_sack();
    assert_eq!(t.ack(0, &[]), []);
    assert_eq!(t.ack(1000, &[]), [(1000, 1000), (2000, 1000)]);
    let mut t = timed_out_without_sack();
    assert_eq!(t.ack(500, &[])[0], (1000, 1000), "all that is left of the first is in flight");
    let mut t = timed_out_without_sack();
    let out = t.segment(sack(10_000, &[]));
    assert!(!out.counts.has(Counter::TxSpuriousTimeouts));
    assert!(t.emit_all().iter().all(|s| !s.rexmit));
    assert!(t.s.cc.cwnd < 10_000);
}

/// RFC 5682 2.1-1, (3a).
#[test]
fn without_sack_a_duplicate_of_new_data_says_that_a_timeout_was_right() {
    let mut t = timed_out_without_sack();
    assert_eq!(t.ack(1000, &[]), [(10_000, 1000), (11_000, 1000)]);
    t.wait(RTT_US);
    assert_eq!(t.ack(1000, &[]), [(1000, 1000)], "three segments, of which two are the new ones");
    assert_eq!(t.s.cc.cwnd, 3000);
    assert_eq!(t.ack(1000, &[]), [], "the other one");
    // Slow start through the rest, and everything arrives.
    let mut at = 1000;
    while at < 12_000 {
        t.wait(RTT_US);
        at = (at + 1000).max(if at == 9000 { 12_000 } else { 0 });
        let sent = t.ack(at, &[]);
        assert!(sent.iter().all(|&(pos, _)| (at..10_000).contains(&pos) || pos >= 12_000), "not what is new: {sent:?}");
    }
    assert_eq!((t.s.rx.flags & flow_flags::LOSS, t.s.tx.board), (0, 0));
    // Two duplicates are none of a loss.
    assert!(!t.counts(12_000, &[]).has(Counter::TxSpuriousTimeouts));
}

/// RFC 5682 2.1-1: what was sent again may be what the ACK was waiting for.
#[test]
fn without_sack_an_ack_of_a_copy_tells_nothing_of_what_was_sent_once() {
    let mut t = timed_out_without_sack();
    // The first was lost, and the fourth: the copy fills the hole.
    let out = t.segment(sack(3000, &[]));
    assert!(!out.counts.has(Counter::TxSpuriousTimeouts));
    assert_eq!(ranges(&t.emit_all()), [(10_000, 1000), (11_000, 1000)]);
    assert_eq!(t.ack(3000, &[]), [(3000, 1000)]);
}

/// RFC 5682 2.1-4.
#[test]
fn window_updates_and_the_peer_s_data_are_not_judged() {
    let mut t = timed_out_without_sack();
    let _ = t.segment(SegmentIn { window: 50_000, ..sack(0, &[]) });
    let _ = t.segment(seg(RX, TX, A, 100));
    let _ = t.segment(seg(RX + 100, TX + 1000, A, 0));
    assert_eq!(ranges(&t.emit_all()), [(10_000, 1000), (11_000, 1000)]);
    let _ = t.segment(seg(RX + 100, TX + 1000, A, 100));
    assert!(t.segment(seg(RX + 200, TX + 2000, A, 0)).counts.has(Counter::TxSpuriousTimeouts));
}

/// RFC 5682, 2.1, (2b): "skip step 3 of this algorithm and continue with slow start retransmissions".
#[test]
fn without_new_data_a_timeout_is_for_a_loss() {
    for (bytes, window) in [(10_000, 60_000), (20_000, 10_000)] {
        let mut t = Script::with(|s| s.snd_wnd = window);
        t.write(bytes);
        let _ = time_out(&mut t);
        let _ = t.segment(SegmentIn { window: window as u16 - 1000, ..sack(1000, &[]) });
        assert_eq!(ranges(&t.emit_all()), [(1000, 1000), (2000, 1000)]);
    }
}

/// Blocks mean nothing that were not agreed on, in recovery as well.
#[test]
fn blocks_without_sack_are_ignored_after_a_timeout() {
    let mut t = timed_out_without_sack();
    let _ = t.ack(1000, &[]);
    let _ = t.ack(1000, &[(2000, 10_000), (0, 1000)]);
    assert!(!t.counts(1000, &[(0, 1000)]).has(Counter::RxDsacks));
    assert_eq!(t.ack(2000, &[]), [(2000, 1000), (3000, 1000)], "they are not taken for arrived");
}

/// RFC 3168 6.1.2-2.
#[test]
fn a_timeout_ends_the_time_without_growth_after_a_mark() {
    for with_sack in [true, false] {
        let mut t = Script::with(|s| (s.sack, s.ecn, s.snd_wnd) = (with_sack, true, 60_000));
        t.write(10_000);
        let _ = t.segment(SegmentIn { flags: A | TcpFlags::ECE, ..sack(1000, &[]) });
        let _ = time_out(&mut t);
        let _ = t.ack(2000, &[]);
        assert_eq!(t.s.cc.cwnd, 2000);
    }
}

/// RFC 5682 3.1-4.
#[test]
fn a_repeated_timeout_backs_off() {
    let mut t = script();
    t.write(5000);
    let _ = time_out(&mut t);
    let start = t.now_us;
    assert_eq!(time_out(&mut t), [(0, 1000)]);
    assert!(t.now_us - start > 400_000);
    assert_eq!(t.s.tx.backoff, 2);
}

fn timestamped() -> Script {
    Script::with(|s| {
        (s.sack, s.snd_wnd) = (true, 60_000);
        s.timestamps = Some(Timestamping { recent: 100, offset: 7 });
    })
}

/// RFC 6298 3-1; RFC 7323 4.1-2: an echo tells which copy was answered, but only of what is acknowledged in order.
#[test]
fn a_retransmission_is_measured_where_its_echo_can_be_told() {
    let again = |ack, blocks: &[(u32, u32)]| {
        let mut t = timestamped();
        t.write(10_000);
        t.wait(RTT_US);
        let _ = t.segment(stamped(sack(0, &[(2000, 10_000)]), 101, 1007));
        let again = t.emit_all();
        assert_eq!(ranges(&again), [(0, 1000), (1000, 1000)]);
        let before = t.s.tx.srtt_us;
        t.wait(50_000);
        let _ = t.segment(stamped(sack(ack, blocks), 102, again[0].timestamps.unwrap().val));
        t.s.tx.srtt_us - before
    };
    assert!(again(1000, &[(2000, 10_000)]) > 5000);
    assert_eq!(again(0, &[(1000, 10_000)]), 0);
}

/// RFC 6298 5-2: only what is acknowledged starts it anew.
#[test]
fn news_of_sack_does_not_put_a_timeout_off() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    let _ = t.ack(0, &[(1000, 2000)]);
    assert_eq!(t.s.tx.timer, timer::REORDER);
    let _ = t.ack(0, &[(1000, 4000)]);
    assert_eq!(t.s.tx.timer, timer::RTO, "it is lost: nothing to wait for");
    let due = next_deadline(&t.s, t.now());
    t.wait(5000);
    let _ = t.ack(0, &[(1000, 5000)]);
    assert_eq!(next_deadline(&t.s, t.now()), due);
}

/// How long the timeout of data that is sent now would be.
fn rto_ms(t: &Script) -> u32 {
    (t.s.tx.srtt_us + (4 * t.s.tx.rttvar_us).max(200_000)).div_ceil(1000)
}

/// RFC 6298 3-1, 5-6. What was sent once has waited at the peer, which does not say what it has, for what was sent again. The timeout stays as
/// long as it has become, until a round trip is measured.
/// RFC 6298 5-5.
#[test]
fn an_acknowledgement_of_a_filled_hole_measures_no_round_trip() {
    let mut t = script();
    t.write(1000);
    t.wait(RTT_US);
    let _ = t.ack(1000, &[]);
    let (srtt_us, before_ms) = (t.s.tx.srtt_us, rto_ms(&t));
    t.write(4000);
    assert_eq!(time_out(&mut t)[0], (1000, 1000));
    t.wait(RTT_US);
    let _ = t.ack(5000, &[]);
    assert_eq!((t.s.tx.srtt_us, rto_ms(&t)), (srtt_us, 2 * before_ms));
    t.write(1000);
    t.wait(50_000);
    let _ = t.ack(6000, &[]);
    assert_eq!((t.s.tx.srtt_us, t.s.tx.rttvar_us), (50_000, 25_000));
}

// RFC 2883, RFC 3522, RFC 4015: taking back.

/// RFC 2883 5-1; RFC 9438 4.9.2-1.
#[test]
fn a_recovery_whose_retransmissions_were_all_needless_is_taken_back() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 4000)]), [(0, 1000)]);
    let _ = t.ack(10_000, &[]);
    // A window has been delivered: a segment more, as for any other.
    assert_eq!((t.s.cc.ssthresh, t.s.cc.cwnd), (5000, 6000));
    t.wait(RTT_US);
    assert!(t.counts(10_000, &[(0, 1000)]).has(Counter::TxSpuriousRecoveries));
    assert_eq!((t.s.cc.cwnd, t.s.cc.ssthresh), (10_000, 1 << 30));
}

/// Those who are silent from then on keep no scoreboard from others.
#[test]
fn what_a_flow_waits_for_after_recovery_it_waits_for_two_round_trips() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 4000)]), [(0, 1000)]);
    let _ = t.ack(10_000, &[]);
    assert_eq!(t.pools.left(), (64, 15));
    let start_us = t.now_us;
    let _ = t.expire();
    assert!((2000..5000).contains(&(t.now_us - start_us)));
    assert_eq!((t.pools.left(), next_deadline(&t.s, t.now())), ((64, 16), None));
}

#[test]
fn a_wait_after_recovery_puts_off_neither_probe_nor_keep_alive() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 4000)]), [(0, 1000)]);
    let _ = t.ack(10_000, &[]);
    t.write(1000);
    assert_eq!(t.s.tx.timer, timer::TLP);
    let _ = t.ack(11_000, &[]);
    let _ = t.host(11_000, 0, hc_flags::KEEPALIVE);
    let _ = t.expire();
    assert_eq!((t.s.tx.timer, t.pools.left()), (timer::KEEPALIVE, (64, 16)));
}

/// Nothing is SACKed or lost any more, but what is sent again is out.
#[test]
fn a_recovery_is_taken_back_before_it_has_ended_too() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 4000)]), [(0, 1000)]);
    let _ = t.ack(4000, &[]);
    assert!(t.counts(4000, &[(0, 1000)]).has(Counter::TxSpuriousRecoveries));
    assert_eq!(t.s.cc.cwnd, 10_000);
}

/// RFC 3168, 6.1.2: CWR tells of a reduction.
#[test]
fn what_was_taken_back_is_not_told() {
    let mut t = Script::with(|s| (s.sack, s.ecn, s.snd_wnd) = (true, true, 60_000));
    t.write(10_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 4000)]), [(0, 1000)]);
    t.wait(RTT_US);
    assert!(t.counts(10_000, &[(0, 1000)]).has(Counter::TxSpuriousRecoveries));
    assert!(!t.write(1000)[0].flags.contains(TcpFlags::CWR));
}

/// A flow with SACK and ECN, 10 segments in flight for a round trip.
fn script_with_ecn() -> Script {
    let mut t = Script::with(|s| (s.sack, s.ecn, s.snd_wnd) = (true, true, 60_000));
    t.write(10_000);
    t.wait(RTT_US);
    t
}

fn marked(ack: SegmentIn) -> SegmentIn {
    SegmentIn { flags: A | TcpFlags::ECE, ..ack }
}

/// RFC 3168, 6.1.2; RFC 4015, 3: nothing was lost, but there is congestion.
#[test]
fn a_mark_in_recovery_lets_its_reduction_stand() {
    let mut t = script_with_ecn();
    assert_eq!(t.ack(0, &[(1000, 4000)]), [(0, 1000)]);
    let _ = t.segment(marked(sack(10_000, &[])));
    t.wait(RTT_US);
    assert!(t.counts(10_000, &[(0, 1000)]).has(Counter::TxSpuriousRecoveries));
    assert_eq!((t.s.cc.ssthresh, t.s.cc.cwnd), (5000, 5000));
    assert!(t.write(1000)[0].flags.contains(TcpFlags::CWR), "it is told");
}

/// RFC 3168, 6.1.2.
#[test]
fn a_reduction_for_a_mark_is_not_taken_back_with_a_recovery() {
    // Before recovery, and between its end and the proof that it was for nothing.
    for before in [true, false] {
        let mut t = script_with_ecn();
        let mark = |t: &mut Script, ack| {
            let _ = t.segment(marked(sack(ack, &[])));
            t.s.cc.ssthresh
        };
        let first = if before { mark(&mut t, 1000) } else { 0 };
        assert_eq!(t.ack(1000, &[(2000, 5000)])[0], (1000, 1000));
        let _ = t.ack(10_000, &[]);
        t.write(4000);
        let ssthresh = if before { first } else { mark(&mut t, 11_000) };
        assert!(t.counts(t.s.tx.snd_una - TX, &[(1000, 2000)]).has(Counter::TxSpuriousRecoveries));
        assert_eq!(t.s.cc.ssthresh, ssthresh, "{before}");
        assert!(t.s.cc.cwnd <= ssthresh + 1000, "{before}: {}", t.s.cc.cwnd);
    }
}

/// RFC 3168, 6.1.2: for any reason, and a retransmission timeout is the first that it names.
#[test]
fn a_timeout_is_told_on_the_first_new_data() {
    for sack in [true, false] {
        let mut t = Script::with(|s| (s.sack, s.ecn, s.snd_wnd) = (sack, true, 60_000));
        t.write(3000);
        assert_eq!(time_out(&mut t)[0], (0, 1000));
        let _ = t.segment(marked(seg(RX, TX + 1000, A, 0)));
        let sent = t.write(2000);
        let _ = t.segment(seg(RX, t.s.tx.snd_max, A, 0));
        let told = t.write(2000).iter().chain(&sent).filter(|s| s.flags.contains(TcpFlags::CWR)).count();
        assert_eq!(told, 1, "with SACK: {sack}");
    }
}

#[test]
fn what_a_probe_has_repaired_is_not_taken_back_with_an_earlier_recovery() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(1000, 4000)]), [(0, 1000)]);
    let _ = t.ack(10_000, &[]);
    t.write(3000);
    let _ = t.expire();
    assert_eq!(ranges(&t.emit_all()), [(12_000, 1000)]);
    let _ = t.ack(13_000, &[]);
    t.write(1000);
    let before = t.s.cc.cwnd;
    let counts = t.counts(14_000, &[(0, 1000)]);
    assert!(counts.has(Counter::TxTailRepairs) && counts.has(Counter::TxSpuriousRecoveries));
    assert!(t.s.cc.cwnd <= before / 2 + 1000, "{} of {before}", t.s.cc.cwnd);
}

#[test]
fn a_recovery_with_one_real_loss_stands() {
    let mut t = script();
    t.window(20);
    t.write(20_000);
    t.wait(RTT_US);
    assert_eq!(t.ack(0, &[(2000, 8000)]), [(0, 1000), (1000, 1000)]);
    let _ = t.ack(20_000, &[]);
    let counts = t.counts(20_000, &[(0, 1000)]);
    assert!(counts.has(Counter::RxDsacks) && !counts.has(Counter::TxSpuriousRecoveries));
}

#[test]
fn copies_that_the_network_makes_take_no_recovery_back() {
    let mut t = script();
    t.window(20);
    t.write(20_000);
    t.wait(RTT_US);
    let _ = t.ack(3000, &[]);
    assert_eq!(t.ack(3000, &[(4000, 20_000)])[0], (3000, 1000));
    // One from before, and one that was never sent again.
    for copy in [1000, 5000] {
        let counts = t.counts(3000, &[(copy, copy + 1000), (4000, 20_000)]);
        assert!(counts.has(Counter::RxDsacks) && !counts.has(Counter::TxSpuriousRecoveries), "{copy}");
    }
    assert!(t.counts(20_000, &[(3000, 4000)]).has(Counter::TxSpuriousRecoveries));
}

#[test]
fn an_echo_of_an_earlier_retransmission_takes_nothing_back() {
    let mut t = Script::with(|s| {
        (s.sack, s.snd_wnd) = (true, 60_000);
        s.timestamps = Some(Timestamping { recent: 100, offset: 7 });
    });
    t.window(20);
    t.write(60_000);
    let mut step = |ack: u32, blocks: &[(u32, u32)], echo_us: u64| {
        t.wait(2 * RTT_US);
        let out = t.segment(stamped(sack(ack, blocks), 101, (echo_us / 1000) as u32 + 7));
        (ranges(&t.emit_all()), out.counts, t.now_us)
    };
    let begin = 1_000_000;
    let (sent, ..) = step(0, &[(1000, 20_000)], begin);
    assert_eq!((sent[0], sent.len()), ((0, 1000), 10));
    // 20000 was sent in recovery, and is lost, as the copy of 0. Its own is beyond the recovery point.
    let (sent, _, again_us) = step(0, &[(21_000, 24_000), (1000, 20_000)], begin);
    assert_eq!(sent[..2], [(0, 1000), (20_000, 1000)]);
    let _ = step(20_000, &[(21_000, 24_000)], again_us - 2 * RTT_US);
    // 26000 is lost too: another recovery. An ACK of the earlier retransmission is no news of it.
    let (sent, counts, _) = step(20_000, &[(27_000, 29_000), (21_000, 26_000)], again_us - 2 * RTT_US);
    assert_eq!((sent[0], counts.has(Counter::TxFastRetransmits)), ((26_000, 1000), true));
    let (_, counts, _) = step(26_000, &[(27_000, 29_000)], again_us);
    assert!(!counts.has(Counter::TxSpuriousRecoveries));
    let (_, counts, _) = step(29_000, &[], again_us);
    assert!(counts.has(Counter::TxSpuriousRecoveries), "but one of the original is");
}

#[test]
fn a_needless_probe_takes_no_recovery_back() {
    let mut t = script();
    t.write(5000);
    let _ = t.expire();
    assert_eq!(ranges(&t.emit_all()), [(4000, 1000)]);
    // The original of it was late, and 0 is lost in earnest.
    let _ = t.ack(0, &[(1000, 5000)]);
    let _ = t.emit_all();
    assert_eq!((t.s.id.retransmits, t.s.cc.ssthresh), (2, 2500));
    let counts = t.counts(5000, &[(4000, 5000)]);
    assert!(counts.has(Counter::RxDsacks) && !counts.has(Counter::TxSpuriousRecoveries));
    assert_eq!(t.s.id.reo_wnd_more, 0);
}

/// RFC 9438 4.9.2-1.
#[test]
fn an_echo_of_the_original_takes_recovery_back_at_once() {
    let mut t = timestamped();
    t.write(10_000);
    let sent_ts = (t.now_us / 1000) as u32 + 7;
    t.wait(5000);
    let _ = t.segment(stamped(sack(0, &[(1000, 4000)]), 101, sent_ts));
    assert_eq!(ranges(&t.emit_all()), [(0, 1000)]);
    t.wait(1000);
    let out = t.segment(stamped(sack(4000, &[]), 102, sent_ts));
    assert!(out.counts.has(Counter::TxSpuriousRecoveries));
    assert!(t.s.cc.cwnd >= 10_000 && t.s.cc.ssthresh == 1 << 30);
}

// What we report ourselves: RFC 2018, RFC 2883.

fn reported(out: &Output) -> Vec<(u32, u32)> {
    let reply = out.reply.expect("an ACK at once");
    reply.sack.iter().map(|(start, end)| (start.since(SeqNum(RX)), end.since(SeqNum(RX)))).collect()
}

/// RFC 2018 4-8.
#[test]
fn the_newest_blocks_are_reported_first() {
    let mut t = script();
    let mut last = vec![];
    for start in [5000, 1000, 9000, 3000, 7000] {
        t.wait(10);
        last = reported(&t.segment(seg(RX + start, TX, A, 500)));
    }
    assert_eq!(last, [(7000, 7500), (3000, 3500), (9000, 9500), (1000, 1500)]);
}

/// RFC 2883 4-1, 4-2, 4-3.
#[test]
fn a_segment_that_was_received_is_reported_as_duplicate() {
    let mut t = script();
    let _ = t.segment(seg(RX, TX, A, 1000));
    let _ = t.emit_all();
    assert_eq!(reported(&t.segment(seg(RX, TX, A, 1000))), [(0, 1000)]);
    // Partly new: the rest is taken.
    let out = t.segment(seg(RX + 500, TX, A, 1000));
    assert_eq!((reported(&out), rx_head(&t.s)), (vec![(500, 1000)], 1500));
}

/// RFC 2883 4-4, 4-5.
#[test]
fn a_duplicate_beyond_a_hole_is_reported_with_its_block() {
    let mut t = script();
    let _ = t.segment(seg(RX + 5000, TX, A, 1000));
    let _ = t.segment(seg(RX + 2000, TX, A, 2000));
    assert_eq!(reported(&t.segment(seg(RX + 3000, TX, A, 500))), [(3000, 3500), (2000, 4000), (5000, 6000)]);
}

/// RFC 2018 4-3.
#[test]
fn without_sack_nothing_is_reported() {
    let mut t = Script::new();
    let _ = t.segment(seg(RX, TX, A, 1000));
    let _ = t.emit_all();
    assert_eq!(reported(&t.segment(seg(RX, TX, A, 1000))), []);
}

/// RFC 6675 5-7.
#[test]
fn what_was_sacked_beyond_the_recovery_point_outlives_recovery() {
    let mut t = script();
    t.write(10_000);
    t.wait(RTT_US);
    let _ = t.ack(0, &[(1000, 4000)]);
    // More is written, and goes as the rest of the ten arrives.
    t.write(10_000);
    t.wait(RTT_US);
    assert!(t.ack(0, &[(1000, 10_000)]).iter().any(|&(pos, _)| pos >= 12_000));
    t.wait(RTT_US);
    let _ = t.ack(10_000, &[(11_000, 12_000)]);
    // It ended with that, and the peer says it no more: what is behind is sent again without it.
    t.wait(RTT_US);
    let mut again = t.ack(10_000, &[]);
    again.extend(time_out(&mut t));
    t.wait(RTT_US);
    // F-RTO sends new data first.
    again.extend(t.ack(11_000, &[]));
    again.extend(t.ack(11_000, &[(14_000, 15_000)]));
    assert!(again.contains(&(12_000, 1000)) && !again.contains(&(11_000, 1000)), "{again:?}");
}
