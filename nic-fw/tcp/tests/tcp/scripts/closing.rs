//! RST, SYN and FIN.

use super::*;
use toe_abi::counters::Drop;
use toe_abi::desc::ev_flags;
use toe_abi::flow::tcp_state as st;

/// RFC 9293 MUST-12, 3.10.7.4-6, 3.10.7.4-11; RFC 5961 3.2-1, 3.2-2, 4.2-4.
#[test]
fn an_exact_rst_resets() {
    let mut t = Script::new();
    let out = t.segment(seg(RX, 0, TcpFlags::RST, 0));
    assert_eq!((out.closed, out.error), (Some(CloseReason::Reset), errno::ECONNRESET));
    assert!(out.reply.is_none() && !out.send && out.notify);
    assert!(event_flags(&t.s) & ev_flags::CLOSED != 0);
}

/// RFC 9293 3.10.7.4-7, 3.10.7.4-8; RFC 5961 3.2-3, 3.2-4.
#[test]
fn an_inexact_rst_is_challenged() {
    let out = Script::new().segment(seg(RX + 1, TX, TcpFlags::RST, 0));
    assert_eq!((out.closed, out.drop), (None, Some(Drop::RstChallenged)));
    assert_eq!(out.reply.map(|r| (r.seq, r.ack, r.flags)), Some((SeqNum(TX), SeqNum(RX), A)));
}

/// RFC 9293 3.10.7.4-5; RFC 5961 3.2-5.
#[test]
fn a_rst_outside_the_window_is_ignored() {
    for seq in [RX - 1, RX + 70_000] {
        let out = Script::new().segment(seg(seq, TX, TcpFlags::RST | A, 0));
        assert_eq!((out.closed, out.drop, out.reply), (None, Some(Drop::OutOfWindow), None), "{seq}");
    }
}

/// RFC 5961 3.2-1. Just behind what we acknowledged last it is acceptable, and not exact for that.
#[test]
fn a_rst_at_what_was_received_is_ignored_unless_that_was_a_fin() {
    let mut t = Script::new();
    let _ = t.segment(seg(RX, TX, A | TcpFlags::PSH, 10));
    let out = t.segment(seg(RX + 9, TX, TcpFlags::RST, 0));
    assert_eq!((out.closed, out.drop, out.reply), (None, Some(Drop::OutOfWindow), None));
    // After its FIN a peer may count the FIN or not, whether we have acknowledged it or not.
    for (uncounted, acknowledged) in [(0, false), (1, false), (0, true), (1, true)] {
        let mut t = Script::new();
        let _ = t.segment(seg(RX, TX, A | TcpFlags::FIN, 10));
        if acknowledged {
            assert_eq!(t.emit().map(|ack| ack.ack), Some(SeqNum(RX + 11)));
        }
        let out = t.segment(seg(RX + 11 - uncounted, TX, TcpFlags::RST, 0));
        assert_eq!(out.closed, Some(CloseReason::Reset));
    }
}

#[test]
fn a_rst_into_a_closed_window_resets() {
    let mut t = Script::with(|s| s.rcv_wnd = 0);
    assert_eq!(t.segment(seg(RX, TX, TcpFlags::RST, 0)).closed, Some(CloseReason::Reset));
}

/// RFC 9293 SHLD-2.
#[test]
fn a_rst_may_carry_data() {
    let out = Script::new().segment(seg(RX, TX, TcpFlags::RST | A, 10));
    assert_eq!((out.closed, out.place), (Some(CloseReason::Reset), None));
}

/// RFC 9293 3.10.7.4-15, 3.10.7.4-16; RFC 5961 4.2-1, 4.2-2, 4.2-3.
#[test]
fn a_syn_is_challenged() {
    for seq in [RX - 1, RX, RX + 100_000] {
        let out = Script::new().segment(seg(seq, 0, TcpFlags::SYN, 0));
        assert_eq!(out.drop, Some(Drop::SynChallenged));
        assert_eq!(out.reply.unwrap().ack, SeqNum(RX));
    }
}

/// RFC 5961 7-2.
#[test]
fn challenges_are_rationed() {
    let mut t = Script::new();
    let replies = (0..100).filter(|_| t.segment(seg(RX, 0, TcpFlags::SYN, 0)).reply.is_some()).count();
    assert_eq!(replies, 10);
    t.now_us += 5_000_000;
    assert!(t.segment(seg(RX, 0, TcpFlags::SYN, 0)).reply.is_some());
}

/// Two ends that answer each other's ACKs must not go on for ever; a segment with data is no part of such a loop.
#[test]
fn answers_to_unacceptable_acks_are_rationed_and_those_to_data_are_not() {
    let mut t = Script::new();
    let answered = |t: &mut Script, len| (0..100).filter(|_| t.segment(seg(RX + 70_000, TX, A, len)).reply.is_some()).count();
    assert_eq!((answered(&mut t, 0), answered(&mut t, 30)), (10, 100));
}

/// RFC 9293 3.10.4-4, 3.10.4-5, 3.10.7.4-25, 3.10.7.4-37.
#[test]
fn active_close() {
    let mut t = Script::new();
    assert!(t.host(10, 0, hc_flags::FIN).send);
    assert_eq!(t.s.rx.state, st::FIN_WAIT_1);
    let fin = t.emit().unwrap();
    assert_eq!((fin.len, fin.flags), (10, A | TcpFlags::FIN | TcpFlags::PSH));
    assert!(!t.host(10, 0, hc_flags::FIN).send, "there is one FIN");
    let _ = t.segment(seg(RX, TX + 11, A, 0));
    assert_eq!((t.s.rx.state, tx_tail(&t.s), event_flags(&t.s)), (st::FIN_WAIT_2, 10, ev_flags::TX_FIN_ACKED));
    let out = t.segment(seg(RX, TX + 11, A | TcpFlags::FIN, 0));
    assert_eq!((out.closed, out.error), (Some(CloseReason::TimeWait), 0));
    assert_eq!(out.reply.unwrap().ack, SeqNum(RX + 1), "the FIN is acknowledged before the flow goes");
}

/// RFC 9293 MUST-12, 3.10.4-6, 3.10.7.4-27, 3.10.7.4-34, 3.10.7.4-35.
#[test]
fn passive_close() {
    let mut t = Script::new();
    let out = t.segment(seg(RX, TX, A | TcpFlags::FIN, 5));
    assert!(out.notify && out.send);
    assert_eq!((rx_head(&t.s), event_flags(&t.s), t.s.rx.state), (5, ev_flags::RX_FIN, st::CLOSE_WAIT));
    assert_eq!(t.emit().unwrap().ack, SeqNum(RX + 6));
    assert!(t.host(0, 0, hc_flags::FIN).send);
    assert_eq!(t.emit().unwrap().flags, A | TcpFlags::FIN);
    assert_eq!(t.s.rx.state, st::LAST_ACK);
    assert_eq!(t.segment(seg(RX + 6, TX + 1, A, 0)).closed, Some(CloseReason::Done));
}

/// RFC 9293 3.10.7.4-26, 3.10.7.4-36.
#[test]
fn simultaneous_close() {
    let mut t = Script::new();
    let _ = t.host(0, 0, hc_flags::FIN);
    t.emit().unwrap();
    let out = t.segment(seg(RX, TX, A | TcpFlags::FIN, 0));
    assert_eq!((out.closed, t.s.rx.state), (None, st::CLOSING));
    assert_eq!(t.emit().unwrap().ack, SeqNum(RX + 1));
    assert_eq!(t.segment(seg(RX + 1, TX + 1, A, 0)).closed, Some(CloseReason::TimeWait));
}

/// The peer's FIN and its acknowledgement of ours come in one burst, before anything is sent.
/// RFC 9293, 3.10.7.4, eighth.
#[test]
fn simultaneous_close_in_a_burst_acknowledges_the_fin() {
    let mut t = Script::new();
    let _ = t.host(0, 0, hc_flags::FIN);
    t.emit().unwrap();
    let _ = t.segment(seg(RX, TX, A | TcpFlags::FIN, 0));
    let out = t.segment(seg(RX + 1, TX + 1, A, 0));
    assert_eq!((out.closed, out.reply.map(|r| (r.seq, r.ack))), (Some(CloseReason::TimeWait), Some((SeqNum(TX + 1), SeqNum(RX + 1)))));
}

/// Our ACK of its FIN was lost.
#[test]
fn a_fin_that_comes_again_as_the_flow_ends_is_acknowledged() {
    let mut t = Script::new();
    let _ = t.host(0, 0, hc_flags::FIN);
    t.emit().unwrap();
    let _ = t.segment(seg(RX, TX, A | TcpFlags::FIN, 0));
    t.emit().unwrap();
    let out = t.segment(seg(RX, TX + 1, A | TcpFlags::FIN, 0));
    assert_eq!((out.closed, out.reply.map(|r| (r.seq, r.ack))), (Some(CloseReason::TimeWait), Some((SeqNum(TX + 1), SeqNum(RX + 1)))));
}

/// RFC 9293 3.10.7.4-28, 3.10.7.4-38.
#[test]
fn the_last_fin_is_acknowledged_again_after_the_end() {
    let mut t = Script::new();
    let _ = t.host(0, 0, hc_flags::FIN);
    t.emit().unwrap();
    let _ = t.segment(seg(RX, TX + 1, A, 0));
    let fin = seg(RX, TX + 1, A | TcpFlags::FIN, 0);
    assert_eq!(t.segment(fin).closed, Some(CloseReason::TimeWait));
    assert!(toe_tcp::is_owed_answer(&t.s, &fin));
    let out = t.segment(fin);
    assert_eq!((out.closed, out.drop, out.notify), (None, Some(Drop::RxClosed), false));
    assert_eq!(out.reply.map(|r| (r.seq, r.ack, r.flags)), Some((SeqNum(TX + 1), SeqNum(RX + 1), A)));
    // What may be of another connection, or wants no answer, is not for the card.
    let others =
        [(RX + 1, A), (RX + 1, A | TcpFlags::FIN), (RX, TcpFlags::RST | TcpFlags::FIN), (RX, TcpFlags::SYN | TcpFlags::FIN), (RX, A)];
    for (seq, flags) in others {
        let other = seg(seq, TX + 1, flags, 0);
        assert!(!toe_tcp::is_owed_answer(&t.s, &other) && t.segment(other).reply.is_none(), "{other:?}");
    }
}

#[test]
fn a_flow_that_ended_otherwise_acknowledges_nothing() {
    let mut t = Script::new();
    let fin = seg(RX, TX, A | TcpFlags::FIN, 0);
    let _ = t.segment(fin);
    t.emit().unwrap();
    let _ = t.host(0, 0, hc_flags::FIN);
    t.emit().unwrap();
    assert_eq!(t.segment(seg(RX + 1, TX + 1, A, 0)).closed, Some(CloseReason::Done));
    assert!(!toe_tcp::is_owed_answer(&t.s, &fin) && t.segment(fin).reply.is_none());
}

/// RFC 9293 3.10.7.1-3.
#[test]
fn a_peer_that_goes_on_after_our_reset_gets_it_again_where_it_is() {
    let mut t = Script::new();
    t.write(100);
    assert!(t.input(Input::Abort).reply.is_some());
    let lost = seg(RX, TX + 40, A | TcpFlags::FIN, 10);
    assert!(toe_tcp::is_owed_answer(&t.s, &lost));
    let out = t.segment(lost);
    assert_eq!((out.closed, out.drop, out.notify, out.send), (None, Some(Drop::RxClosed), false, false));
    assert_eq!(out.reply.map(|r| (r.seq, r.flags)), Some((SeqNum(TX + 40), TcpFlags::RST | A)));
    // Another connection's, an answer to nothing, and no place to send a RST to.
    for flags in [A | TcpFlags::SYN, A | TcpFlags::RST, TcpFlags::FIN] {
        let other = seg(RX, TX + 40, flags, 10);
        assert!(!toe_tcp::is_owed_answer(&t.s, &other) && t.segment(other).reply.is_none(), "{other:?}");
    }
}

#[test]
fn a_flow_that_the_peer_has_reset_is_silent() {
    let mut t = Script::new();
    assert_eq!(t.segment(seg(RX, TX, TcpFlags::RST, 0)).closed, Some(CloseReason::Reset));
    let late = seg(RX, TX, A, 10);
    assert!(!toe_tcp::is_owed_answer(&t.s, &late) && t.segment(late).reply.is_none());
}

#[test]
fn a_half_closed_flow_goes_on_receiving() {
    let mut t = Script::new();
    let _ = t.host(0, 0, hc_flags::FIN);
    t.emit().unwrap();
    let _ = t.segment(seg(RX, TX + 1, A, 0));
    assert_eq!(t.segment(seg(RX, TX + 1, A, 100)).place.map(|p| p.len), Some(100));
}

#[test]
fn a_lost_fin_is_sent_again() {
    let mut t = Script::new();
    let _ = t.host(0, 0, hc_flags::FIN);
    t.emit().unwrap();
    let _ = t.expire();
    let again = t.emit().unwrap();
    assert_eq!((again.seq, again.flags, again.rexmit), (SeqNum(TX), A | TcpFlags::FIN, true));
}

#[test]
fn a_fin_ahead_of_its_data_waits() {
    let mut t = Script::new();
    let out = t.segment(seg(RX + 10, TX, A | TcpFlags::FIN, 0));
    assert!(!out.notify && out.reply.is_some());
    assert!(t.segment(seg(RX, TX, A, 10)).send);
    assert_eq!((rx_head(&t.s), event_flags(&t.s)), (10, ev_flags::RX_FIN));
    assert_eq!(t.emit().unwrap().ack, SeqNum(RX + 11));
}

/// RFC 9293 3.10.7.4-33.
#[test]
fn a_repeated_fin_is_acknowledged_again() {
    let mut t = Script::with(|s| s.sack = true);
    let _ = t.segment(seg(RX, TX, A | TcpFlags::FIN, 0));
    t.emit().unwrap();
    let out = t.segment(seg(RX, TX, A | TcpFlags::FIN, 0));
    let reply = out.reply.unwrap();
    assert_eq!((out.drop, reply.ack), (Some(Drop::Duplicate), SeqNum(RX + 1)));
    assert!(reply.sack.is_empty(), "no data was received twice");
}

#[test]
fn a_fin_just_behind_a_full_buffer_is_taken() {
    let mut t = Script::with(|s| (s.rcv_wnd, s.rx_buf_log2) = (4096, 12));
    let _ = t.segment(seg(RX, TX, A | TcpFlags::FIN, 4096));
    assert_eq!((rx_head(&t.s), event_flags(&t.s)), (4096, ev_flags::RX_FIN));
}

/// RFC 9293 SHLD-3.
#[test]
fn data_after_close_is_answered_with_rst() {
    let mut t = Script::new();
    let out = t.input(Input::Close { unread: false });
    assert!(out.send && out.closed.is_none());
    assert!(t.emit().unwrap().flags.contains(TcpFlags::FIN));
    let out = t.segment(seg(RX, TX + 1, A, 10));
    assert_eq!(out.closed, Some(CloseReason::Aborted));
    assert!(out.reply.unwrap().flags.contains(TcpFlags::RST));
}

/// RFC 9293 SHLD-3, MAY-1.
#[test]
fn close_with_unread_data_resets() {
    let out = Script::new().input(Input::Close { unread: true });
    assert_eq!((out.closed, out.reply.unwrap().flags), (Some(CloseReason::Aborted), TcpFlags::RST | A));
}

#[test]
fn close_with_unread_data_first_sends_what_may_be_sent() {
    let mut t = Script::with(|s| s.snd_wnd = 1000);
    let _ = t.host(1500, 0, 0);
    let out = t.input(Input::Close { unread: true });
    assert!(out.send && out.closed.is_none() && is_reset_due(&t.s));
    assert_eq!(t.emit().map(|s| (s.pos, s.len)), Some((0, 1000)));
    assert_eq!(t.emit(), None);
    let out = t.input(Input::Abort);
    assert_eq!((out.closed, out.reply.unwrap().flags), (Some(CloseReason::Aborted), TcpFlags::RST | A));
    assert!(!is_reset_due(&t.s));
}

#[test]
fn close_sends_what_is_queued_first() {
    let mut t = Script::with(|s| s.snd_wnd = 1000);
    t.write(1500);
    assert_eq!(t.input(Input::Close { unread: false }).closed, None);
    let _ = t.segment(seg(RX, TX + 1000, A, 0));
    let last = t.emit().unwrap();
    assert_eq!((last.pos, last.len, last.flags), (1000, 500, A | TcpFlags::FIN | TcpFlags::PSH));
}

#[test]
fn shut_down_receiving_discards_and_keeps_the_window_open() {
    let mut t = Script::with(|s| (s.rcv_wnd, s.rx_buf_log2) = (4096, 12));
    let _ = t.host(0, 0, hc_flags::RX_CLOSED);
    for i in 0..10 {
        let out = t.segment(seg(RX + i * 2000, TX, A, 2000));
        assert_eq!((out.place, out.drop, out.closed), (None, Some(Drop::RxClosed), None));
        assert_eq!(t.emit().unwrap().window, 4096);
    }
}

/// RFC 9293 3.10.5-1, 3.10.5-2.
#[test]
fn abort_resets_at_the_end_of_what_was_sent() {
    let mut t = Script::new();
    t.write(100);
    let out = t.input(Input::Abort);
    assert_eq!(out.reply.map(|r| (r.seq, r.flags)), Some((SeqNum(TX + 100), TcpFlags::RST | A)));
    assert_eq!((out.closed, out.error), (Some(CloseReason::Aborted), errno::ECONNABORTED));
    assert_eq!((t.emit(), next_deadline(&t.s, t.now())), (None, None));
}
