//! Flows that come from elsewhere: another machine's clock, another group's pools.

use super::*;

#[test]
fn rebase_keeps_time_and_timestamps() {
    let mut t = with_timestamps();
    t.write(100);
    let before = next_deadline(&t.s, t.now()).unwrap().0 - t.now_us;
    let to = Now(77_000_000_000);
    let from = t.now();
    rebase(&mut t.s, from, to);
    t.now_us = to.0;
    assert_eq!(next_deadline(&t.s, to).unwrap().0 - to.0, before);
    let _ = t.segment(stamped(seg(RX, TX, A, 2000), 150, 0));
    assert_eq!(t.emit().unwrap().timestamps.unwrap().val, 1007);
}

#[test]
fn rebase_moves_the_curve_of_cubic() {
    let mut t = Script::with(|s| s.algorithm = toe_abi::flow::cc::CUBIC);
    // W_max, the time of its plateau, and an epoch that has begun.
    let words = [50_000, 2000, 40_000, 1 << 31];
    t.s.cc.words = words;
    rebase(&mut t.s, Now(1_000_000), Now(77_000_000));
    assert_eq!(t.s.cc.words, [50_000, 78_000, 40_000, 1 << 31]);
}

/// What it held of the other group's pools names nothing here.
#[test]
fn an_admitted_flow_holds_nothing_of_the_pools_and_recovers_without() {
    let mut t = Script::with(|s| (s.sack, s.snd_wnd) = (true, 60_000));
    t.write(10_000);
    t.now_us += 1000;
    let mut sack = SackBlocks::default();
    sack.push(SeqNum(TX + 2000), SeqNum(TX + 10_000));
    let _ = t.segment(SegmentIn { sack, ..seg(RX, TX, A, 0) });
    assert_eq!(ranges(&t.emit_all())[..2], [(0, 1000), (1000, 1000)]);
    assert_ne!((t.s.tx.board, t.s.cc.sent), (0, 0));
    let now = t.now();
    t.pools = Pools::new(64, 4);
    admit(&mut t.s, &mut t.pools, now);
    assert_eq!((t.s.tx.board, t.s.cc.sent, t.s.cc.ooo_more), (0, 0, 0));
    assert_eq!(t.emit().map(|s| (s.pos, s.len, s.rexmit)), Some((0, 1000, true)));
    let _ = t.segment(seg(RX, TX + 1000, A, 0));
    assert_eq!(t.emit().map(|s| (s.pos, s.len, s.rexmit)), Some((1000, 1000, true)));
}

#[test]
fn an_admitted_flow_measures_its_next_round_trip() {
    let mut t = Script::with(|s| s.rtt_us = 0);
    t.write(1000);
    let now = t.now();
    t.pools = Pools::new(64, 4);
    admit(&mut t.s, &mut t.pools, now);
    let _ = t.segment(seg(RX, TX + 1000, A, 0));
    assert_eq!(t.s.tx.srtt_us, 0, "when it was sent is forgotten");
    t.write(1000);
    t.now_us += 3000;
    let _ = t.segment(seg(RX, TX + 2000, A, 0));
    assert_eq!(t.s.tx.srtt_us, 3000);
}

#[test]
fn a_probe_that_was_due_elsewhere_is_a_timeout_here() {
    let mut t = Script::with(|s| s.sack = true);
    t.write(3000);
    let _ = t.expire();
    let now = t.now();
    t.pools = Pools::new(64, 4);
    admit(&mut t.s, &mut t.pools, now);
    assert_eq!(t.emit_all(), [], "nothing tells the probe from what it repeats");
    assert!(!t.input(Input::Timer).send);
    assert!(t.expire().counts.has(toe_abi::counters::Counter::TxTimeouts));
}

/// RFC 5681 3.2-7: where segments overtake each other, three were no proof there.
#[test]
fn three_duplicates_are_counted_anew_here() {
    let mut t = Script::with(|s| (s.sack, s.snd_wnd) = (true, 60_000));
    t.s.rx.flags |= toe_abi::flow::flow_flags::REORDERED;
    t.write(10_000);
    t.now_us += 1000;
    let sacked = |end| {
        let mut sack = SackBlocks::default();
        sack.push(SeqNum(TX + 1000), SeqNum(TX + end));
        SegmentIn { sack, ..seg(RX, TX, A, 0) }
    };
    for end in [2000, 3000, 4000, 5000] {
        assert!(t.segment(sacked(end)).counts.is_empty());
    }
    let now = t.now();
    t.pools = Pools::new(64, 4);
    admit(&mut t.s, &mut t.pools, now);
    for end in [6000, 7000, 8000] {
        let _ = t.segment(sacked(end));
    }
    assert_eq!(t.emit().map(|s| (s.pos, s.rexmit)), Some((0, true)));
}
