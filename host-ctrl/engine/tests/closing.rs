//! TIME-WAIT and orphans.

mod common;
use common::*;
use toe_abi::{
    FlowId,
    app::bind_flags::REUSEADDR,
    control::close_reason,
    flow::{FlowState, flow_flags, tcp_state},
};
use toe_engine::{Action, Endpoint, Errno, FinWait2};
use toe_wire::{SeqNum, TcpFlags};

/// A connection that we closed first, in TIME-WAIT: `sent` bytes went out, `received` came in, and both FINs.
fn time_wait(b: &mut Bench, peer: &mut Peer, sent: u32, received: u32) -> FlowState {
    let (flow, mut s) = b.accept(peer);
    s.tx.snd_una = s.tx.snd_una.wrapping_add(sent + 1);
    (s.tx.snd_nxt, s.tx.snd_max) = (s.tx.snd_una, s.tx.snd_una);
    s.rx.rcv_nxt = s.rx.rcv_nxt.wrapping_add(received + 1);
    s.rx.rcv_adv = s.rx.rcv_nxt.wrapping_add(8000);
    s.rx.state = tcp_state::TIME_WAIT;
    b.engine.flow_closed(flow, close_reason::TIME_WAIT, &s, b.now, b.now);
    assert!(b.actions().is_empty());
    *s
}

/// RFC 9293 MUST-13, 3.10.7.4-28, 3.10.7.4-38, 3.10.8-3.
#[test]
fn repeated_fin_is_acknowledged_and_restarts_the_wait() {
    let mut b = Bench::with(|c| c.time_wait_us = 60 * SEC);
    b.listen(80, 5);
    let mut peer = Peer::modern(4000, 80);
    let s = time_wait(&mut b, &mut peer, 100, 10);
    assert_eq!((b.engine.time_wait_count(), b.engine.connection_count()), (1, 0));
    b.pass(40 * SEC);
    let ack = only_segment(&b.frame(&peer.data(10, TcpFlags::FIN | TcpFlags::ACK, &[])));
    assert!(ack.is(TcpFlags::ACK));
    assert_eq!((ack.tcp.seq, ack.tcp.ack), (SeqNum(s.tx.snd_max), SeqNum(s.rx.rcv_nxt)));
    assert_eq!(ack.tcp.window, 1000, "8000 bytes, scaled by 8");
    let ts = ack.options.timestamps.expect("negotiated");
    assert_eq!((ts.ecr, ts.val), (700, ((b.now / 1000) as u32).wrapping_add(s.rx.ts_offset)));
    b.pass(59 * SEC);
    assert_eq!(b.engine.time_wait_count(), 1);
    b.pass(SEC);
    assert_eq!(b.engine.time_wait_count(), 0);
}

/// RFC 7323 5.4-3.
#[test]
fn timestamps_go_on_from_what_the_card_sent() {
    for (ms, ahead, flags) in (0..64).flat_map(|ms| [(ms, 0, flow_flags::REORDERED), (ms, 5_000_123_456, 0)]) {
        let mut b = Bench::new();
        b.listen(80, 5);
        let mut peer = Peer::modern(4000, 80);
        let (flow, mut s) = b.accept(&mut peer);
        b.pass(ms * 1000);
        (s.rx.state, s.rx.flags) = (tcp_state::TIME_WAIT, s.rx.flags | flags);
        let clock = b.now + ahead;
        b.engine.flow_closed(flow, close_reason::TIME_WAIT, &s, clock, b.now);
        let ack = only_segment(&b.frame(&peer.data(0, TcpFlags::ACK, b"again")));
        let last = toe_tcp::ts_now(&s, toe_tcp::Now(clock));
        assert_eq!(ack.options.timestamps.map(|ts| ts.val), Some(last), "after {ms} ms, the card's clock {ahead} us ahead");
    }
}

#[test]
fn in_order_ack_gets_no_answer() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    time_wait(&mut b, &mut peer, 0, 0);
    assert!(b.frame(&peer.data(1, TcpFlags::ACK, &[])).is_empty());
    assert!(only_segment(&b.frame(&peer.data(0, TcpFlags::ACK, b"old"))).is(TcpFlags::ACK));
}

#[test]
fn rst_does_not_end_it() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    let s = time_wait(&mut b, &mut peer, 0, 0);
    assert!(b.frame(&peer.rst(SeqNum(s.rx.rcv_nxt))).is_empty(), "RFC 1337");
    assert_eq!((b.engine.time_wait_count(), b.engine.counters().time_wait_rsts), (1, 1));
}

#[test]
fn other_reasons_leave_nothing() {
    let mut b = Bench::new();
    b.listen(80, 5);
    for (i, reason) in [close_reason::DONE, close_reason::RESET, close_reason::TIMEOUT, close_reason::ABORTED, close_reason::REGION_GONE]
        .into_iter()
        .enumerate()
    {
        let (flow, s) = b.accept(&mut Peer::new(4000 + i as u16, 80));
        b.engine.flow_closed(flow, reason, &s, b.now, b.now);
    }
    assert_eq!((b.engine.time_wait_count(), b.engine.connection_count()), (0, 0));
}

/// RFC 9293 MAY-2, SHLD-4; RFC 6191 2-1, 2-2, 2-3, 2-4, 2-5; RFC 1122 4.2.2.13-1.
#[test]
fn new_syn_takes_the_tuple_over() {
    const BEFORE: u32 = u32::MAX;
    // (last timestamp, new timestamp, sequence number behind the old FIN, welcome)
    for (old, new, ahead, welcome) in [
        (Some(700), Some(701), BEFORE, true),
        (Some(700), Some(700), 0, true),
        (Some(700), Some(700), BEFORE, false),
        (Some(700), Some(699), 50, false),
        (Some(700), None, 0, true),
        (Some(700), None, BEFORE, false),
        (None, None, 0, true),
        (None, None, BEFORE, false),
        (None, Some(1), BEFORE, true),
    ] {
        let mut b = Bench::new();
        b.listen(80, 5);
        let mut peer = Peer { ts: old, ..Peer::modern(4000, 80) };
        let s = time_wait(&mut b, &mut peer, 3_000_000, 20);
        let again = Peer { ts: new, seq: SeqNum(s.rx.rcv_nxt).add(ahead), ack: SeqNum(0), ..peer.clone() };
        let answer = only_segment(&b.frame(&again.syn()));
        let case = format!("{old:?} {new:?} {ahead}");
        assert_eq!(answer.tcp.flags.contains(TcpFlags::SYN), welcome, "{case}");
        assert_eq!(b.engine.time_wait_count(), usize::from(!welcome), "{case}");
        if welcome {
            assert!(answer.tcp.seq.gt(SeqNum(s.tx.snd_max)), "RFC 1122, 4.2.2.13: beyond the last connection's");
        }
    }
}

/// Else the next SYN would find nothing of the old connection, and might get one of its numbers again.
#[test]
fn a_syn_that_finds_no_place_leaves_the_old_connection_in_time_wait() {
    let mut b = Bench::new();
    let listener = b.listen(80, 0);
    let mut peer = Peer::modern(4000, 80);
    let s = time_wait(&mut b, &mut peer, 3_000_000, 0);
    let again = Peer { ts: Some(900), seq: SeqNum(s.rx.rcv_nxt).add(9), ack: SeqNum(0), ..peer };
    assert!(b.frame(&again.syn()).is_empty(), "the accept queue is full");
    assert_eq!((b.engine.time_wait_count(), b.engine.counters().time_wait_reused), (1, 0));
    b.engine.accepted(listener, 1);
    let answer = only_segment(&b.frame(&again.syn()));
    assert!(answer.is(TcpFlags::SYN | TcpFlags::ACK) && answer.tcp.seq.gt(SeqNum(s.tx.snd_max)));
    assert_eq!((b.engine.time_wait_count(), b.engine.counters().time_wait_reused), (0, 1));
}

#[test]
fn without_a_listener_a_syn_is_only_acknowledged() {
    let mut b = Bench::new();
    let l = b.listen(80, 5);
    let mut peer = Peer::modern(4000, 80);
    let s = time_wait(&mut b, &mut peer, 0, 0);
    b.engine.unlisten(l, b.now);
    let again = Peer { ts: Some(900), seq: SeqNum(s.rx.rcv_nxt).add(9), ..peer };
    assert!(only_segment(&b.frame(&again.syn())).is(TcpFlags::ACK));
}

#[test]
fn table_is_bounded_and_the_oldest_goes() {
    let mut b = Bench::with(|c| c.time_wait_max = 3);
    let l = b.listen(80, 50);
    for port in 4000..4010 {
        time_wait(&mut b, &mut Peer::new(port, 80), 0, 0);
        b.engine.accepted(l, 1);
    }
    assert_eq!((b.engine.time_wait_count(), b.engine.counters().time_wait_evicted), (3, 7));
    assert!(only_segment(&b.frame(&Peer::new(4006, 80).data(0, TcpFlags::ACK, b"x"))).is(TcpFlags::RST));
    assert!(only_segment(&b.frame(&Peer::new(4007, 80).data(0, TcpFlags::ACK, b"x"))).is(TcpFlags::ACK));
}

#[test]
fn port_is_not_free_before_the_wait_is_over() {
    let mut b = Bench::with(|c| c.time_wait_us = 60 * SEC);
    let port_80 = Endpoint { ip: [0; 16], port: 80 };
    let (bind, _) = b.engine.bind(1, port_80, 0).unwrap();
    b.engine.listen(bind, 5, BUF).unwrap();
    time_wait(&mut b, &mut Peer::new(4000, 80), 0, 0);
    b.engine.unbind(bind, b.now);
    assert_eq!(b.engine.bind(1, port_80, 0), Err(Errno::EADDRINUSE));
    let (reused, _) = b.engine.bind(1, port_80, REUSEADDR).expect("that is what SO_REUSEADDR is for");
    b.engine.unbind(reused, b.now);
    b.pass(60 * SEC);
    b.engine.bind(1, port_80, 0).expect("nothing is left");
}

#[test]
fn flow_of_an_earlier_daemon_has_its_time_wait() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut other = Bench::new();
    other.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    let (_, mut s) = other.accept(&mut peer);
    s.rx.state = tcp_state::TIME_WAIT;
    b.engine.flow_closed(FlowId { index: 99, generation: 3 }, close_reason::TIME_WAIT, &s, b.now, b.now);
    assert_eq!(b.engine.time_wait_count(), 1);
}

fn queries(actions: &[Action]) -> Vec<FlowId> {
    actions.iter().filter_map(|a| if let Action::QueryFlow { flow } = a { Some(*flow) } else { None }).collect()
}

/// Answers each query of `flow` with `state(round)` for `us`; returns when the flow was aborted.
fn watch(b: &mut Bench, flow: FlowId, us: u64, state: impl Fn(u64) -> FlowState) -> Option<u64> {
    let start = b.now;
    let mut round = 0;
    while b.now < start + us {
        let at = b.engine.next_deadline()?;
        let actions = b.pass(at - b.now);
        for f in queries(&actions) {
            assert_eq!(f, flow);
            round += 1;
            b.engine.flow_state(flow, &state(round), b.now);
        }
        if b.actions().iter().any(|a| matches!(a, Action::AbortFlow { flow: f } if *f == flow)) {
            return Some((b.now - start) / SEC);
        }
    }
    None
}

fn orphan() -> (Bench, FlowId, FlowState) {
    orphan_for(FinWait2::AsEverybody)
}

fn orphan_for(limit: FinWait2) -> (Bench, FlowId, FlowState) {
    let mut b = Bench::with(|c| (c.fin_wait2_us, c.arp_expire_us) = (60 * SEC, 10_000 * SEC));
    b.know_peer();
    b.listen(80, 5);
    let (flow, s) = b.accept(&mut Peer::new(4000, 80));
    assert_eq!(queries(&b.pass(1000 * SEC)), [], "who has an owner is not watched");
    b.engine.orphaned(flow, limit, b.now);
    (b, flow, *s)
}

#[test]
fn orphan_in_fin_wait_2_is_ended() {
    let (mut b, flow, mut s) = orphan();
    s.rx.state = tcp_state::FIN_WAIT_2;
    let at = watch(&mut b, flow, 1000 * SEC, |_| s).expect("it ends");
    assert!((60..=90).contains(&at), "{at} s");
    assert_eq!(b.engine.counters().fin_wait2_timeouts, 1);
}

/// TCP_LINGER2.
#[test]
fn orphan_waits_in_fin_wait_2_as_long_as_its_application_says() {
    for (seconds, least, most) in [(0, 0, 1), (8, 8, 12), (120, 120, 180)] {
        let (mut b, flow, mut s) = orphan_for(FinWait2::Limit(seconds * SEC));
        s.rx.state = tcp_state::FIN_WAIT_2;
        let at = watch(&mut b, flow, 1000 * SEC, |_| s).expect("it ends");
        assert!((least..=most).contains(&at), "{at} s of {seconds}");
    }
}

/// RFC 9293 SHLD-11: what is outstanding, or held by a shut window, has the time that the card gives it.
#[test]
fn orphan_whose_peer_has_not_acknowledged_all_is_the_cards() {
    for limit in [FinWait2::AsEverybody, FinWait2::Limit(0), FinWait2::Limit(8 * SEC)] {
        for state in [tcp_state::ESTABLISHED, tcp_state::CLOSE_WAIT, tcp_state::FIN_WAIT_1, tcp_state::CLOSING, tcp_state::LAST_ACK] {
            let (mut b, flow, mut s) = orphan_for(limit);
            s.rx.state = state;
            assert_eq!(watch(&mut b, flow, 1000 * SEC, |_| s), None, "{state} {limit:?}");
        }
    }
}

#[test]
fn orphan_has_its_time_from_when_all_is_acknowledged() {
    let (mut b, flow, mut s) = orphan();
    s.rx.state = tcp_state::FIN_WAIT_1;
    assert_eq!(watch(&mut b, flow, 3000 * SEC, |_| s), None);
    s.rx.state = tcp_state::FIN_WAIT_2;
    let at = watch(&mut b, flow, 1000 * SEC, |_| s).expect("it ends");
    assert!((60..=90).contains(&at), "{at} s");
}
