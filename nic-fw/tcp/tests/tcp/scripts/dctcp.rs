//! DCTCP (RFC 8257): echoes of each mark, and what they do to the sender.

use super::*;
use toe_abi::flow::{cc, rate_words};

fn dctcp() -> Script {
    Script::with(|s| (s.ecn, s.algorithm, s.snd_wnd) = (true, cc::DCTCP, 60_000))
}

fn marked(seq: u32, len: u32) -> SegmentIn {
    SegmentIn { ce: true, ..seg(seq, TX, A | TcpFlags::PSH, len) }
}

fn plain(seq: u32, len: u32) -> SegmentIn {
    seg(seq, TX, A | TcpFlags::PSH, len)
}

/// (acknowledged bytes, ECE)
fn said(segment: Option<SegmentOut>) -> Option<(u32, bool)> {
    segment.map(|s| (s.ack.since(SeqNum(RX)), s.flags.contains(TcpFlags::ECE)))
}

/// RFC 8257 3.2-1, 3.2-2, 3.2-3.
#[test]
fn a_change_of_marks_acknowledges_both_sides_apart() {
    let mut t = dctcp();
    // Its acknowledgement may wait.
    let out = t.segment(plain(RX, 500));
    assert_eq!((said(out.reply), said(t.emit())), (None, None));
    let out = t.segment(marked(RX + 500, 500));
    assert_eq!((said(out.reply), said(t.emit())), (Some((500, false)), Some((1000, true))));
    let out = t.segment(marked(RX + 1000, 500));
    assert_eq!((said(out.reply), said(t.emit())), (None, None), "no change: may wait");
    let out = t.segment(plain(RX + 1500, 500));
    assert_eq!((said(out.reply), said(t.emit())), (Some((1500, true)), Some((2000, false))));
}

/// RFC 8257 3.2-2.
#[test]
fn a_mark_beyond_a_hole_is_not_echoed_for_what_came_before_it() {
    let mut t = dctcp();
    let _ = t.segment(plain(RX, 500));
    let out = t.segment(marked(RX + 1000, 500));
    assert_eq!((said(out.reply), said(t.emit()), said(t.emit())), (Some((500, false)), Some((500, true)), None));
    let out = t.segment(marked(RX + 1500, 500));
    assert_eq!((said(out.reply), said(t.emit())), (Some((500, true)), None));
}

#[test]
fn nothing_is_acknowledged_twice() {
    let mut t = dctcp();
    let out = t.segment(marked(RX, 500));
    assert_eq!((said(out.reply), said(t.emit())), (None, Some((500, true))));
}

#[test]
fn cwr_does_not_end_an_echo() {
    let mut t = dctcp();
    let _ = t.segment(marked(RX, 500));
    let _ = t.emit();
    let cwr = SegmentIn { ce: true, ..seg(RX + 500, TX, A | TcpFlags::PSH | TcpFlags::CWR, 2000) };
    let _ = t.segment(cwr);
    assert_eq!(said(t.emit()), Some((2500, true)));
}

#[test]
fn an_acknowledgement_without_data_ends_no_echo() {
    let mut t = dctcp();
    t.write(1000);
    let _ = t.segment(marked(RX, 500));
    let _ = t.emit();
    let _ = t.segment(seg(RX + 500, TX + 1000, A, 0));
    let sent = t.write(1000);
    assert!(sent[0].flags.contains(TcpFlags::ECE));
}

#[test]
fn a_window_without_marks_makes_the_next_mark_cheaper() {
    let mut t = dctcp();
    t.write(10_000);
    // Ten clean windows of a segment: alpha = (15/16)^10 = 0.52.
    for i in 1..=10 {
        let _ = t.segment(seg(RX, TX + i * 1000, A, 0));
        t.write(1000);
    }
    let before = t.s.cc.cwnd;
    let _ = t.segment(seg(RX, TX + 11_000, A | TcpFlags::ECE, 0));
    let part = f64::from(t.s.cc.cwnd) / f64::from(before);
    assert!((0.5..0.75).contains(&part), "{part}");
    assert!(t.s.cc.cwnd > before / 2, "{} of {before}", t.s.cc.cwnd);
}

/// RFC 3168 6.1.2-2.
#[test]
fn a_mark_is_no_occasion_to_grow() {
    let mut t = dctcp();
    t.write(10_000);
    let _ = t.segment(seg(RX, TX + 5000, A | TcpFlags::ECE, 0));
    let reduced = t.s.cc.cwnd;
    let _ = t.segment(seg(RX, TX + 9000, A, 0));
    assert_eq!(t.s.cc.cwnd, reduced);
}

#[test]
fn marks_count_all_that_an_acknowledgement_delivers() {
    let mut t = Script::with(|s| (s.ecn, s.sack, s.algorithm, s.snd_wnd) = (true, true, cc::DCTCP_RATE, 60_000));
    t.write(10_000);
    let mut sack = SackBlocks::default();
    sack.push(SeqNum(TX + 2000), SeqNum(TX + 4000));
    let _ = t.segment(SegmentIn { sack, ..seg(RX, TX + 1000, A | TcpFlags::ECE, 0) });
    assert_eq!(t.s.cc.words[rate_words::MARKED], 3000);
}

/// RFC 8257 3.5-1, 3.5-2: a mark may have cost next to nothing.
#[test]
fn a_loss_counts_also_in_a_window_with_a_mark() {
    for with_sack in [false, true] {
        let mut t = Script::with(|s| (s.ecn, s.sack, s.algorithm, s.snd_wnd) = (true, with_sack, cc::DCTCP, 60_000));
        t.s.cc.cwnd = 20_000;
        // alpha is 0.
        t.s.cc.words[0] = 1 << 30;
        t.write(20_000);
        let _ = t.segment(seg(RX, TX + 1000, A | TcpFlags::ECE, 0));
        for end in [3000, 4000, 5000] {
            let mut sack = SackBlocks::default();
            if with_sack {
                sack.push(SeqNum(TX + 2000), SeqNum(TX + end));
            }
            let _ = t.segment(SegmentIn { sack, ..seg(RX, TX + 1000, A, 0) });
        }
        assert!(t.s.cc.ssthresh <= 10_000, "{}", t.s.cc.ssthresh);
        assert_eq!(t.s.id.prior_ssthresh, 0, "there was congestion: nothing is taken back");
    }
}

/// RFC 8257 3.5-1, 3.5-2.
#[test]
fn loss_counts_as_for_others() {
    let mut t = dctcp();
    t.write(10_000);
    for _ in 0..3 {
        let _ = t.segment(seg(RX, TX, A, 0));
    }
    assert_eq!(t.s.cc.ssthresh, 5000);
}
