//! Data that comes in, and how it is acknowledged.

use super::*;
use toe_abi::counters::{Counter, Drop};

/// RFC 9293 SHLD-18, MUST-40, 3.10.7.4-30; RFC 5681 4.2-1, 4.2-2, 4.2-4, 4.2-8.
#[test]
fn in_order_data_is_placed_and_acknowledged_later() {
    let mut t = Script::new();
    let out = t.segment(seg(RX, TX, A | TcpFlags::PSH, 10));
    assert_eq!(out.place, Some(Placement { from: 0, pos: 0, len: 10, in_order: true }));
    assert!(out.notify && out.reply.is_none() && !out.send && out.deadline);
    assert_eq!(rx_head(&t.s), 10);
    assert_eq!(next_deadline(&t.s, t.now()), Some(Now(1_040_000)));
    assert!(t.expire().send);
    let ack = t.emit().unwrap();
    assert_eq!((ack.ack, ack.len, ack.flags), (SeqNum(RX + 10), 0, A));
    assert_eq!(t.emit(), None);
}

/// RFC 9293 SHLD-19, MUST-58, MUST-59; RFC 5681 4.2-3.
#[test]
fn every_second_full_segment_is_acknowledged_at_once() {
    let mut t = Script::new();
    assert!(!t.segment(seg(RX, TX, A, MSS)).send);
    assert!(t.segment(seg(RX + MSS, TX, A, MSS)).send);
    assert_eq!(t.emit().unwrap().ack, SeqNum(RX + 2 * MSS));
}

#[test]
fn a_super_frame_counts_its_segments() {
    let mut t = Script::new();
    assert!(t.segment(SegmentIn { segments: 2, ..seg(RX, TX, A, 1072) }).send);
}

/// RFC 9293 SHLD-19. The peer's segments may be smaller than ours: what is full is followed by more.
#[test]
fn two_segments_without_psh_are_taken_for_full_ones() {
    let second = |len, flags| {
        let mut t = Script::new();
        assert!(!t.segment(seg(RX, TX, flags, len)).send);
        t.segment(seg(RX + len, TX, flags, len)).send
    };
    assert!(second(500, A));
    assert!(!second(500, A | TcpFlags::PSH) && !second(999, A | TcpFlags::PSH));
    assert!(second(1000, A | TcpFlags::PSH));
    assert!(Script::new().segment(SegmentIn { segments: 2, ..seg(RX, TX, A | TcpFlags::PSH, 1072) }).send);
}

#[test]
fn a_window_of_less_than_two_segments_is_told_at_once() {
    let told = |left: u32| {
        let mut t = Script::with(|s| s.rcv_wnd = 2500);
        t.segment(seg(RX, TX, A | TcpFlags::PSH, 2500 - left)).send
    };
    assert!(!told(2000) && told(1999));
}

/// A peer with Nagle's algorithm sends its next small segment when the last one is acknowledged.
#[test]
fn small_segments_are_acknowledged_at_once_until_there_is_a_conversation() {
    let mut t = Script::new();
    t.s.rx.quickack = 2;
    for at in [0, 10, 20, 30] {
        assert!(t.segment(seg(RX + at, TX, A | TcpFlags::PSH, 10)).send);
        t.emit().unwrap();
    }
    t.write(5);
    assert!(!t.segment(seg(RX + 40, TX, A | TcpFlags::PSH, 10)).send);
    // No answer comes: there is none any more.
    t.now_us += 41_000;
    assert!(t.expire().send);
    t.emit().unwrap();
    assert!(t.segment(seg(RX + 50, TX, A | TcpFlags::PSH, 10)).send);
}

#[test]
fn after_the_first_segments_every_second_full_one_is_acknowledged() {
    let mut t = Script::new();
    t.s.rx.quickack = 2;
    let told = [0, 1, 2, 3, 4].map(|n| {
        let send = t.segment(seg(RX + n * 1000, TX, A, 1000)).send;
        t.emit_all();
        send
    });
    assert_eq!(told, [true, false, true, false, true]);
}

/// RFC 9293 MUST-61, 3.10.2-3, 3.10.7.4-32.
#[test]
fn the_ack_rides_on_data() {
    let mut t = Script::new();
    let _ = t.segment(seg(RX, TX, A | TcpFlags::PSH, 10));
    let sent = t.write(5);
    assert_eq!((sent.len(), sent[0].ack), (1, SeqNum(RX + 10)));
    assert!(sent[0].flags.contains(TcpFlags::PSH));
    assert_ne!(next_deadline(&t.s, t.now()), Some(Now(1_040_000)), "no delayed ACK is owed");
}

/// RFC 9293 SHLD-31, MAY-13; RFC 2018 4-1, 4-5, 4-6; RFC 5681 3.2-1, 4.2-5, 4.2-6.
#[test]
fn out_of_order_data_is_placed_and_reported() {
    let mut t = Script::with(|s| s.sack = true);
    let out = t.segment(seg(RX + 100, TX, A, 50));
    assert_eq!(out.place, Some(Placement { from: 0, pos: 100, len: 50, in_order: false }));
    assert!(!out.notify && out.counts.has(Counter::RxOutOfOrder));
    let reply = out.reply.unwrap();
    assert_eq!(reply.ack, SeqNum(RX));
    assert_eq!(reply.sack.iter().collect::<Vec<_>>(), [(SeqNum(RX + 100), SeqNum(RX + 150))]);
    // RFC 2018, 4: the newest comes first.
    let reply = t.segment(seg(RX + 300, TX, A, 50)).reply.unwrap();
    assert_eq!(reply.sack.iter().next(), Some((SeqNum(RX + 300), SeqNum(RX + 350))));
    assert_eq!(reply.window, 65_535, "the right edge stays where it was");
}

/// RFC 2018 4-3, 4-7.
#[test]
fn as_many_blocks_are_reported_as_fit() {
    for (sack, timestamps, blocks) in [(false, false, 0), (true, false, 4), (true, true, 3)] {
        let mut t = Script::with(|s| {
            s.sack = sack;
            s.timestamps = timestamps.then_some(Timestamping { recent: 100, offset: 7 });
        });
        let hole = |i: u32| SegmentIn { timestamps: timestamps.then_some(Timestamps { val: 100, ecr: 0 }), ..seg(RX + 100 * i, TX, A, 50) };
        let last = (1..=4).map(|i| t.segment(hole(i)).reply.unwrap()).last().unwrap();
        assert_eq!(last.sack.len(), blocks, "{sack} {timestamps}");
    }
}

/// RFC 5681 3.2-2, 4.2-7.
#[test]
fn filling_the_hole_delivers_everything_and_acknowledges_at_once() {
    let mut t = Script::new();
    let _ = t.segment(seg(RX + 10, TX, A | TcpFlags::PSH, 10));
    let out = t.segment(seg(RX, TX, A | TcpFlags::PSH, 10));
    assert_eq!(out.place, Some(Placement { from: 0, pos: 0, len: 10, in_order: true }));
    assert!(out.notify && out.send);
    assert_eq!((rx_head(&t.s), t.emit().unwrap().ack), (20, SeqNum(RX + 20)));
}

#[test]
fn without_records_two_holes_are_remembered_and_a_third_is_not() {
    let mut t = Script::new();
    t.pools = Pools::new(0, 4);
    for i in 1..=2 {
        assert!(t.segment(seg(RX + 100 * i, TX, A, 50)).place.is_some());
    }
    let out = t.segment(seg(RX + 600, TX, A, 50));
    assert_eq!((out.place, out.drop), (None, Some(Drop::NoInterval)));
    assert!(out.reply.is_some());
}

#[test]
fn a_segment_is_trimmed_to_the_window() {
    let mut t = Script::with(|s| (s.rcv_wnd, s.rx_buf_log2) = (4096, 12));
    let out = t.segment(seg(RX + 4086, TX, A, 50));
    assert_eq!(out.place.map(|p| (p.from, p.len)), Some((0, 10)));
    let out = t.segment(seg(RX, TX, A, 5000));
    assert_eq!(out.place.map(|p| (p.from, p.len)), Some((0, 4096)));
    assert_eq!(rx_head(&t.s), 4096);
}

/// RFC 9293 3.10.7.4-1.
#[test]
fn what_was_received_is_trimmed_off_the_left() {
    let mut t = Script::new();
    let _ = t.segment(seg(RX, TX, A, 30));
    let out = t.segment(seg(RX + 10, TX, A, 30));
    assert_eq!(out.place, Some(Placement { from: 20, pos: 30, len: 10, in_order: true }));
}

#[test]
fn a_duplicate_is_acknowledged_and_dropped() {
    let mut t = Script::new();
    let _ = t.segment(seg(RX, TX, A, 30));
    let out = t.segment(seg(RX, TX, A, 30));
    assert_eq!((out.place, out.drop), (None, Some(Drop::Duplicate)));
    assert_eq!(out.reply.unwrap().ack, SeqNum(RX + 30));
}

#[test]
fn a_duplicate_of_what_was_acknowledged_is_one_too() {
    let mut t = Script::with(|s| s.sack = true);
    let _ = t.segment(seg(RX, TX, A | TcpFlags::PSH, 30));
    let _ = t.expire_and_emit();
    let out = t.segment(seg(RX, TX, A, 20));
    assert_eq!((out.place, out.drop), (None, Some(Drop::Duplicate)));
    // RFC 2883, 4: and told so.
    assert_eq!(out.reply.unwrap().sack.iter().next(), Some((SeqNum(RX), SeqNum(RX + 20))));
}

/// RFC 9293 3.10.7.4-2, 3.10.7.4-4.
#[test]
fn data_beyond_the_window_is_answered_and_dropped() {
    let mut t = Script::new();
    let out = t.segment(seg(RX + 70_000, TX, A, 30));
    assert_eq!((out.place, out.drop), (None, Some(Drop::OutOfWindow)));
    assert!(out.reply.is_some());
}

/// RFC 9293 3.10.7.4-3.
#[test]
fn a_byte_into_a_closed_window_is_refused_but_its_ack_counts() {
    let mut t = Script::with(|s| (s.rcv_wnd, s.rx_buf_log2) = (4096, 12));
    t.write(10);
    let _ = t.segment(seg(RX, TX, A, 4096));
    let ack = t.emit().unwrap();
    assert_eq!(ack.window, 0);
    let out = t.segment(seg(RX + 4096, TX + 10, A, 1));
    assert_eq!((out.place, out.drop), (None, Some(Drop::OutOfWindow)));
    assert_eq!(tx_tail(&t.s), 10);
    assert_eq!(out.reply.unwrap().window, 0);
}

/// RFC 9293 MUST-39.
#[test]
fn reading_opens_a_closed_window() {
    let mut t = Script::with(|s| (s.rcv_wnd, s.rx_buf_log2) = (4096, 12));
    let _ = t.segment(seg(RX, TX, A, 4096));
    t.emit().unwrap();
    assert!(!t.host(0, 100, 0).send, "too little to be worth a word");
    assert!(t.host(0, 2500, 0).send);
    assert_eq!(t.emit().unwrap().window, 2500);
}

#[test]
fn who_has_read_nothing_says_nothing_of_the_window() {
    let mut t = Script::with(|s| s.rcv_wnd = 1000);
    assert!(!t.host(0, 0, 0).send, "although there is more room than was offered");
    let _ = t.segment(seg(RX, TX, A | TcpFlags::PSH, 10));
    t.emit().unwrap();
    assert_eq!(t.s.rx.rcv_adv.wrapping_sub(RX + 10), 65_526);
}

#[test]
fn a_keep_alive_of_the_peer_is_answered() {
    let mut t = Script::new();
    let out = t.segment(seg(RX - 1, TX, A, 0));
    assert_eq!(out.reply.unwrap().ack, SeqNum(RX));
}

#[test]
fn after_a_duplicate_each_segment_is_acknowledged_at_once() {
    let acknowledged = |duplicate: bool| {
        let mut t = Script::new();
        let _ = t.segment(seg(RX, TX, A | TcpFlags::PSH, 10));
        t.expire_and_emit();
        // There is a conversation.
        t.s.rx.quickack = 0;
        if duplicate {
            let _ = t.segment(seg(RX, TX, A | TcpFlags::PSH, 10));
        }
        let _ = t.segment(seg(RX + 10, TX, A | TcpFlags::PSH, 10));
        t.emit().map(|ack| ack.ack)
    };
    assert_eq!((acknowledged(false), acknowledged(true)), (None, Some(SeqNum(RX + 20))));
}
