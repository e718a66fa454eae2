//! Passive open: what a listener does with SYNs, final ACKs and everything that may come instead.

mod common;
use common::*;
use toe_abi::{
    control::close_reason,
    flow::{flow_flags, tcp_state},
};
use toe_engine::{Action, Endpoint, InstallError, OpenOptions, SynCookies, Wishes};
use toe_wire::{SeqNum, TcpFlags, Timestamps};

const SYN_ACK: TcpFlags = TcpFlags::SYN.union(TcpFlags::ACK);
const RST_ACK: TcpFlags = TcpFlags::RST.union(TcpFlags::ACK);

/// RFC 9293 MUST-14, SHLD-5, MAY-3, MUST-16, MUST-67, MUST-45, 3.10.7.2-3, 3.10.7.4-20.
/// RFC 7323 2.2-1, 2.2-2, 2.2-5, 2.2-6, 2.3-1, 2.3-2, 2.3-3, 2.3-5, 3.2-2, 3.2-7.
#[test]
fn three_way_handshake_installs_a_flow() {
    let mut b = Bench::new();
    let listener = b.listen(80, 5);
    let mut peer = Peer::modern(4000, 80);
    let synack = only_segment(&b.frame(&peer.syn()));
    assert!(synack.is(SYN_ACK));
    assert_eq!(synack.to, PEER_MAC);
    assert_eq!(synack.tcp.ack, peer.seq.add(1));
    assert_eq!(synack.options.mss, Some(1460));
    assert_eq!(synack.options.window_scale, Some(3), "2^18 bytes of buffer");
    assert!(synack.options.sack_permitted);
    assert_eq!(synack.options.timestamps.map(|t| t.ecr), Some(700));
    peer.take(&synack);
    peer.ts = Some(705);

    let actions = b.frame(&peer.ack());
    assert!(segments(&actions).is_empty(), "the flow is to speak next");
    let (conn, state) = only_install(actions);
    assert_eq!(state.id.key, peer.key());
    assert_eq!((state.rx.irs, state.rx.rcv_nxt), (peer.seq.0, peer.seq.0 + 1));
    assert_eq!((state.tx.iss, state.tx.snd_una), (synack.tcp.seq.0, synack.tcp.seq.0.wrapping_add(1)));
    assert_eq!(state.tx.snd_wnd, 60_000 << 7);
    assert_eq!((state.tx.wscale, state.rx.wscale), (7, 3));
    assert_eq!(state.rx.mss, 1400 - 12);
    assert_eq!(state.rx.ts_recent, 705);
    assert_eq!(state.rx.state, tcp_state::ESTABLISHED);
    assert_eq!(
        state.rx.flags & (flow_flags::TIMESTAMPS | flow_flags::SACK | flow_flags::ACK_NOW),
        flow_flags::TIMESTAMPS | flow_flags::SACK
    );
    assert_eq!(state.rx.rcv_adv, peer.seq.0 + 1 + u32::from(synack.tcp.window), "the window that the SYN-ACK offered");
    // The flow's timestamps go on where those of the SYN-ACK were.
    let now_ms = (b.now / 1000) as u32;
    assert_eq!(now_ms.wrapping_add(state.rx.ts_offset), synack.options.timestamps.unwrap().val);

    let (flow, actions) = b.installed(conn);
    assert!(matches!(&actions[0], Action::Inject { frame, .. } if *frame == peer.ack()), "{actions:?}");
    assert!(matches!(actions[1], Action::Accept { listener: l, flow: f, key, .. } if l == listener && f == flow && key == peer.key()));
    assert_eq!(b.engine.next_deadline().map(|_| ()), Some(()), "the next hop is being confirmed");
}

/// RFC 9293 MUST-15; RFC 7323 2.2-3, 2.3-4, 3.2-5.
#[test]
fn options_that_were_not_offered_are_not_used() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    peer.syn_options.mss = None;
    let synack = only_segment(&b.frame(&peer.syn()));
    assert_eq!((synack.options.window_scale, synack.options.sack_permitted, synack.options.timestamps), (None, false, None));
    peer.take(&synack);
    let (_, state) = only_install(b.frame(&peer.ack()));
    assert_eq!(state.rx.mss, 536, "RFC 9293, 3.7.1");
    assert_eq!((state.tx.wscale, state.rx.wscale, state.tx.snd_wnd), (0, 0, 60_000));
    assert_eq!(state.rx.flags & (flow_flags::TIMESTAMPS | flow_flags::SACK | flow_flags::ECN), 0);
}

/// RFC 9293 MUST-1, REC-1, MUST-15; RFC 7323 2.3-8.
#[test]
fn silly_options_are_bounded() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::modern(4000, 80);
    (peer.syn_options.mss, peer.syn_options.window_scale) = (Some(0), Some(255));
    peer.take(&only_segment(&b.frame(&peer.syn())));
    let (_, state) = only_install(b.frame(&peer.ack()));
    assert_eq!((state.rx.mss, state.tx.wscale, state.tx.snd_wnd), (88 - 12, 14, 60_000 << 14));
}

/// RFC 3168 6.1.1-1, 6.1.1-2, 6.1.1-7, 6.1.1-9.
#[test]
fn ecn_is_agreed_to_if_both_want_it() {
    for (ours, asked, want) in [(true, true, true), (true, false, false), (false, true, false)] {
        let mut b = Bench::with(|c| c.ecn = ours);
        b.listen(80, 5);
        let mut peer = Peer::new(4000, 80);
        if asked {
            peer.syn_flags |= TcpFlags::ECE | TcpFlags::CWR;
        }
        let synack = only_segment(&b.frame(&peer.syn()));
        assert_eq!(synack.tcp.flags.contains(TcpFlags::ECE), want);
        assert!(!synack.tcp.flags.contains(TcpFlags::CWR));
        assert_eq!(synack.ip.ecn, 0);
        peer.take(&synack);
        let (_, state) = only_install(b.frame(&peer.ack()));
        assert_eq!(state.rx.flags & flow_flags::ECN != 0, want);
    }
}

#[test]
fn syn_ack_is_repeated_with_backoff_and_given_up() {
    let mut b = Bench::with(|c| (c.handshake_timeout_us, c.handshake_retries) = (SEC, 3));
    b.listen(80, 5);
    let first = only_segment(&b.frame(&Peer::new(4000, 80).syn()));
    let start = b.now;
    let mut at = Vec::new();
    for _ in 0..100 {
        for s in segments(&b.pass(SEC / 2)) {
            assert!(s.is(SYN_ACK) && s.tcp.seq == first.tcp.seq);
            at.push((b.now - start) / SEC);
        }
    }
    assert_eq!(at, [1, 3, 7]);
    assert_eq!((b.engine.connection_count(), b.engine.counters().handshake_timeouts, b.engine.next_deadline()), (0, 1, None));
}

#[test]
fn repeated_syn_gets_the_same_answer_again() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let peer = Peer::modern(4000, 80);
    let one = only_segment(&b.frame(&peer.syn()));
    b.now += 5000;
    let two = only_segment(&b.frame(&peer.syn()));
    assert_eq!((one.tcp.seq, one.tcp.ack), (two.tcp.seq, two.tcp.ack));
    assert_eq!(b.engine.connection_count(), 1);
    // Which of the two the ACK answers, only its timestamp says: the first, 6 ms ago.
    let mut peer = peer;
    peer.take(&one);
    b.now += 1000;
    let (_, state) = only_install(b.frame(&peer.ack()));
    assert_eq!(state.tx.srtt_us, 6000);
}

/// RFC 7323, 4.3: else the peer would take the time that its first SYN took in vain for a round trip.
#[test]
fn a_repeated_syn_is_told_its_own_timestamp_back() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::modern(4000, 80);
    for (ts, echoed) in [(700, 700), (1700, 1700), (700, 1700)] {
        peer.ts = Some(ts);
        b.pass(SEC / 2);
        let answer = only_segment(&b.frame(&peer.syn()));
        assert_eq!(answer.options.timestamps.map(|t| t.ecr), Some(echoed), "an old copy changes nothing");
    }
}

/// RFC 9293 MUST-65; RFC 2018 2-1; RFC 5961 4.2-2.
#[test]
fn other_syn_is_challenged() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let peer = Peer::new(4000, 80);
    let synack = only_segment(&b.frame(&peer.syn()));
    let other = Peer { seq: SeqNum(9_000_000), ..peer.clone() };
    let answer = only_segment(&b.frame(&other.syn()));
    assert!(answer.is(TcpFlags::ACK));
    assert_eq!((answer.options.mss, answer.options.window_scale, answer.options.sack_permitted), (None, None, false));
    assert_eq!((answer.tcp.seq, answer.tcp.ack), (synack.tcp.seq.add(1), peer.seq.add(1)));
    // The peer, if it has restarted, answers that with a RST, and its next SYN is welcome.
    b.frame(&other.rst(answer.tcp.ack));
    assert!(only_segment(&b.frame(&other.syn())).is(SYN_ACK));
}

/// RFC 9293 3.10.7.4-21.
#[test]
fn wrong_final_ack_is_reset() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    peer.take(&only_segment(&b.frame(&peer.syn())));
    let good = peer.ack;
    for bad in [good.sub_len(1), good.add(1), good.add(1 << 31)] {
        peer.ack = bad;
        let rst = only_segment(&b.frame(&peer.ack()));
        assert!(rst.is(TcpFlags::RST) && rst.tcp.seq == bad, "ack {bad:?}");
    }
    peer.ack = good;
    only_install(b.frame(&peer.ack()));
}

/// RFC 9293 3.10.7.4-4.
#[test]
fn segment_outside_the_window_is_acknowledged() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    let synack = only_segment(&b.frame(&peer.syn()));
    peer.take(&synack);
    for at in [u32::MAX, u32::from(synack.tcp.window), 1 << 31] {
        let answer = only_segment(&b.frame(&peer.data(at, TcpFlags::ACK, b"x")));
        assert!(answer.is(TcpFlags::ACK) && answer.tcp.ack == peer.seq.add(1), "at {at}");
    }
    assert_eq!(b.engine.counters().drop_unacceptable, 3);
}

#[test]
fn paws_protects_the_handshake() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::modern(4000, 80);
    peer.take(&only_segment(&b.frame(&peer.syn())));
    peer.ts = Some(699);
    assert!(only_segment(&b.frame(&peer.ack())).is(TcpFlags::ACK));
    peer.ts = None;
    assert!(b.frame(&peer.ack()).is_empty(), "RFC 7323, 3.2");
    assert_eq!(b.engine.counters().drop_paws, 1);
    peer.ts = Some(700);
    only_install(b.frame(&peer.ack()));
}

/// RFC 9293 3.10.7.4-9; RFC 5961 3.2-3.
#[test]
fn rst_must_be_exact() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    peer.take(&only_segment(&b.frame(&peer.syn())));
    assert!(only_segment(&b.frame(&peer.rst(peer.seq.add(2)))).is(TcpFlags::ACK), "RFC 5961, 3.2");
    assert!(b.frame(&peer.rst(peer.seq)).is_empty());
    assert_eq!(b.engine.connection_count(), 1);
    assert!(b.frame(&peer.rst(peer.seq.add(1))).is_empty());
    assert_eq!(b.engine.connection_count(), 0);
}

#[test]
fn first_data_may_be_the_final_ack() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    peer.take(&only_segment(&b.frame(&peer.syn())));
    let request = peer.data(0, TcpFlags::ACK | TcpFlags::PSH | TcpFlags::FIN, b"GET /");
    let (conn, _) = only_install(b.frame(&request));
    let (_, actions) = b.installed(conn);
    assert!(matches!(&actions[0], Action::Inject { frame, .. } if *frame == request));
}

#[test]
fn frames_during_installation_are_injected_in_order() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    peer.take(&only_segment(&b.frame(&peer.syn())));
    let (conn, _) = only_install(b.frame(&peer.ack()));
    let big = vec![7; 60_000];
    let frames = [peer.data(0, TcpFlags::ACK, b"one"), peer.data(3, TcpFlags::ACK, &big), peer.rst(peer.seq.add(1))];
    for f in &frames {
        assert!(b.frame(f).is_empty());
    }
    assert!(b.frame(&peer.syn()).is_empty(), "a late SYN would only be challenged");
    let (_, actions) = b.installed(conn);
    let injected: Vec<_> =
        actions.iter().filter_map(|a| if let Action::Inject { frame, .. } = a { Some(frame.clone()) } else { None }).collect();
    assert_eq!(injected, [vec![peer.ack()], frames.to_vec()].concat());
    // One that was on its way to us already comes after; much later, the card must know the flow.
    assert!(matches!(b.frame(&peer.data(9, TcpFlags::ACK, b"x"))[..], [Action::Inject { .. }]));
    b.pass(2 * SEC);
    assert!(b.frame(&peer.data(9, TcpFlags::ACK, b"x")).is_empty());
    assert_eq!((b.engine.counters().injected_late, b.engine.counters().drop_stale), (1, 1));
}

/// As often as a stranger likes who knows the tuple, if nothing bounded it: the card gives back what it has no flow for.
#[test]
fn a_frame_goes_round_a_bounded_number_of_times_where_the_card_has_no_flow() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    b.accept(&mut peer);
    let mut going_round = vec![peer.data(0, TcpFlags::ACK, b"x"); 10];
    let mut rounds = 0;
    while let Some(frame) = going_round.pop() {
        for action in b.frame(&frame) {
            let Action::Inject { frame, .. } = action else { panic!("{action:?}") };
            going_round.push(frame);
            rounds += 1;
        }
        assert!(rounds < 1000);
    }
    assert_eq!((rounds, b.engine.counters().drop_stale), (64, 10));
    // Another connection has frames of its own.
    let mut other = Peer::new(4001, 80);
    b.accept(&mut other);
    assert_eq!(b.frame(&other.data(0, TcpFlags::ACK, b"x")).len(), 1);
}

/// RFC 9293, 3.10.7.4: after a RST the state is CLOSED, and the next SYN meets LISTEN. The card says so only when somebody has accepted.
#[test]
fn a_connection_that_was_reset_before_it_was_accepted_makes_way_for_the_next() {
    for waited_us in [0, 2 * SEC] {
        let mut b = Bench::new();
        b.listen(80, 5);
        let mut peer = Peer::new(4000, 80);
        let (flow, mut state) = b.accept(&mut peer);
        b.pass(waited_us);
        let mut again = Peer { seq: SeqNum(70_000), ..Peer::new(4000, 80) };
        let syn = again.syn();
        assert!(matches!(b.frame(&syn)[..], [Action::QueryFlow { flow: f }] if f == flow));
        b.engine.flow_state(flow, &state, b.now);
        assert!(matches!(b.frame(&syn)[..], [Action::QueryFlow { flow: f }] if f == flow), "it lives");
        state.rx.state = tcp_state::CLOSED;
        b.engine.flow_state(flow, &state, b.now);
        assert_eq!(b.engine.connection_count(), 0);
        let (new, _) = b.accept(&mut again);
        // Both wait to be accepted; the first one's end is told when it is.
        b.engine.flow_closed(flow, close_reason::RESET, &state, b.now, b.now);
        assert_eq!((b.engine.connection_count(), b.engine.listeners().next().map(|l| l.waiting)), (1, Some(2)));
        assert!(b.engine.connections().all(|c| c.flow == Some(new)));
    }
}

#[test]
fn frames_kept_are_bounded() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    peer.take(&only_segment(&b.frame(&peer.syn())));
    let (conn, _) = only_install(b.frame(&peer.ack()));
    for _ in 0..1000 {
        b.frame(&peer.data(0, TcpFlags::ACK, &[0; 9000]));
    }
    let (_, actions) = b.installed(conn);
    let bytes: usize = actions.iter().map(|a| if let Action::Inject { frame, .. } = a { frame.len() } else { 0 }).sum();
    assert!(bytes > 200_000 && bytes <= 256 * 1024, "{bytes}");
    assert!(b.engine.counters().drop_held_full > 900);
}

/// RFC 9293 MUST-3.
#[test]
fn partial_checksums_are_trusted_and_kept() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    let mut syn = peer.syn();
    let at = syn.len() - 4 - 4;
    syn[at] ^= 0xff; // the checksum field
    assert!(b.frame(&syn).is_empty());
    assert_eq!(b.engine.counters().drop_malformed, 1);
    let meta = toe_engine::FrameMeta { needs_csum: true, csum_start: 34, csum_offset: 16, ..ON_WIRE };
    b.engine.frame(&syn, meta, b.now);
    let actions = b.actions();
    peer.take(&only_segment(&actions));
    b.engine.frame(&peer.ack(), meta, b.now);
    let (conn, _) = only_install(b.actions());
    let (_, actions) = b.installed(conn);
    assert!(matches!(actions[0], Action::Inject { meta: m, .. } if m == meta));
}

#[test]
fn backlog_counts_until_accepted() {
    let mut b = Bench::new();
    let listener = b.listen(80, 1);
    for port in [4000, 4001] {
        b.accept(&mut Peer::new(port, 80));
    }
    let third = Peer::new(4002, 80);
    assert!(b.frame(&third.syn()).is_empty(), "dropped, not refused");
    assert_eq!(b.engine.counters().syn_drop_accept_full, 1);
    assert_eq!(b.engine.listeners().next().map(|l| (l.waiting, l.backlog, l.overflows)), Some((2, 1, 1)), "one more, as Linux");
    b.engine.accepted(listener, 1);
    only_segment(&b.frame(&third.syn()));
}

#[test]
fn final_ack_waits_while_the_accept_queue_is_full() {
    let mut b = Bench::new();
    let listener = b.listen(80, 0);
    let mut late = Peer::new(4001, 80);
    late.take(&only_segment(&b.frame(&late.syn())));
    b.accept(&mut Peer::new(4000, 80));
    assert!(b.frame(&late.ack()).is_empty());
    assert_eq!(b.engine.counters().ack_drop_accept_full, 1);
    b.engine.accepted(listener, 1);
    assert!(segments(&b.pass(SEC)).iter().any(|s| s.is(SYN_ACK)), "the SYN-ACK is repeated");
    only_install(b.frame(&late.ack()));
}

/// A listener at port 80 that is told of connections with data only, for 3 s.
fn deferring() -> Bench {
    let mut b = Bench::new();
    let open = OpenOptions { defer_accept_us: 3 * SEC, tos: 0x10, max_segment: 700, ..OpenOptions::default() };
    let (bind, _) = b.engine.bind(1, Endpoint { ip: [0; 16], port: 80 }, 0).unwrap();
    b.engine.listen(bind, 5, Wishes { open, ..Wishes::new(BUF) }).unwrap();
    b
}

#[test]
fn a_listener_may_wait_for_data() {
    let mut b = deferring();
    let mut peer = Peer::new(4000, 80);
    let synack = only_segment(&b.frame(&peer.syn()));
    assert_eq!((synack.ip.tos, synack.options.mss), (0x10, Some(700)));
    peer.take(&synack);
    assert!(b.frame(&peer.ack()).is_empty());
    assert_eq!(segments(&b.pass(2 * SEC)).len(), 0, "the SYN-ACK has arrived");
    let (_, state) = only_install(b.frame(&peer.data(0, TcpFlags::ACK, b"GET /")));
    assert_eq!((state.id.tos, state.rx.mss), (0x10, 700));
    assert_eq!(b.engine.counters().ack_deferred, 1);
}

/// The first acknowledgement tells the round trip, not the data that the listener has waited for; nor does it a second time.
#[test]
fn waiting_for_data_is_no_round_trip() {
    for mut peer in [Peer::new(4000, 80), Peer::modern(4000, 80)] {
        let mut b = deferring();
        peer.take(&only_segment(&b.frame(&peer.syn())));
        b.pass(20_000);
        assert!(b.frame(&peer.ack()).is_empty());
        b.pass(2 * SEC);
        let (_, state) = only_install(b.frame(&peer.data(0, TcpFlags::ACK, b"GET /")));
        assert_eq!(state.tx.srtt_us, 20_000);
    }
}

#[test]
fn a_listener_does_not_wait_for_data_for_ever() {
    let mut b = deferring();
    let mut peer = Peer::new(4000, 80);
    peer.take(&only_segment(&b.frame(&peer.syn())));
    assert!(b.frame(&peer.ack()).is_empty());
    assert!(segments(&b.pass(3 * SEC)).iter().all(|s| s.is(SYN_ACK)));
    only_install(b.frame(&peer.ack()));
    // A FIN is news as well.
    let mut other = Peer::new(4001, 80);
    other.take(&only_segment(&b.frame(&other.syn())));
    only_install(b.frame(&other.data(0, TcpFlags::ACK | TcpFlags::FIN, &[])));
}

#[test]
fn flood_does_not_keep_an_honest_peer_out() {
    let mut b = Bench::with(|c| (c.syn_backlog_max, c.syn_cookies) = (16, SynCookies::Off));
    b.listen(80, 5);
    for i in 0..1000u16 {
        let flood = Peer { ip: toe_abi::flow::v4_mapped([10, 0, 0, 3 + (i % 200) as u8]), ..Peer::new(1000 + i, 80) };
        b.frame(&flood.syn());
    }
    assert_eq!(b.engine.connection_count(), 16);
    assert_eq!(b.engine.counters().syn_recycled, 984);
    assert_eq!(b.engine.neighbours().count(), 0, "half-open connections cost no neighbours");
    let mut honest = Peer::new(4000, 80);
    honest.take(&only_segment(&b.frame(&honest.syn())));
    for i in 0..10 {
        b.frame(&Peer::new(30_000 + i, 80).syn());
    }
    only_install(b.frame(&honest.ack()));
}

/// RFC 4987, 3.4: one listener's flood takes no more than its share from others for long.
#[test]
fn one_listener_s_flood_does_not_keep_another_s_peers_out() {
    let mut b = Bench::with(|c| (c.half_open_max, c.syn_cookies) = (4, SynCookies::Off));
    b.listen(80, 5);
    b.listen(81, 5);
    let flood = |b: &mut Bench, from: u16| (from..from + 8).for_each(|port| _ = b.frame(&Peer::new(port, 80).syn()));
    let half_open = |b: &Bench| b.engine.listeners().map(|l| l.half_open).collect::<Vec<_>>();
    flood(&mut b, 1000);
    let mut others = [4000, 4001].map(|port| Peer::new(port, 81));
    for peer in &mut others {
        let syn_ack = only_segment(&b.frame(&peer.syn()));
        assert!(syn_ack.is(SYN_ACK));
        peer.take(&syn_ack);
    }
    flood(&mut b, 2000);
    assert_eq!((half_open(&b), b.engine.counters().syn_drop_table_full), (vec![2, 2], 0));
    b.frame(&Peer::new(4002, 81).syn());
    assert_eq!(half_open(&b), [2, 2], "nor does it take more");
    only_install(b.frame(&others[1].ack()));
    assert!(only_segment(&b.frame(&others[0].ack())).is(TcpFlags::RST), "its own oldest has made room");
}

/// The same where connections have filled the table.
#[test]
fn a_full_table_makes_room_from_any_listener_s_half_open_connections() {
    let mut b = Bench::with(|c| c.connections_max = 3);
    b.listen(80, 5);
    b.listen(81, 5);
    b.accept(&mut Peer::new(4000, 80));
    b.accept(&mut Peer::new(4001, 80));
    b.frame(&Peer::new(4002, 80).syn());
    assert!(only_segment(&b.frame(&Peer::new(4000, 81).syn())).is(SYN_ACK));
    assert_eq!((b.engine.connection_count(), b.engine.counters().syn_recycled), (3, 1));
}

#[test]
fn full_table_drops_what_it_cannot_recycle() {
    let mut b = Bench::with(|c| c.connections_max = 1);
    b.listen(80, 5);
    b.accept(&mut Peer::new(4000, 80));
    assert!(b.frame(&Peer::new(4001, 80).syn()).is_empty());
    assert_eq!(b.engine.counters().syn_drop_table_full, 1);
}

#[test]
fn failed_installation_resets_the_peer_and_makes_room() {
    let mut b = Bench::new();
    b.listen(80, 1);
    let mut peer = Peer::new(4000, 80);
    let synack = only_segment(&b.frame(&peer.syn()));
    peer.take(&synack);
    let (conn, _) = only_install(b.frame(&peer.ack()));
    b.engine.installed(conn, Err(InstallError::NoMemory), b.now);
    let actions = b.actions();
    let rst = only_segment(&actions);
    assert!(rst.is(TcpFlags::RST) && rst.tcp.seq == synack.tcp.seq.add(1));
    assert_eq!((b.engine.connection_count(), b.engine.listeners().next().unwrap().waiting), (0, 0));
    only_segment(&b.frame(&Peer::new(4001, 80).syn()));
}

#[test]
fn tuple_that_the_card_has_is_left_alone() {
    let mut b = Bench::new();
    b.listen(80, 1);
    let mut peer = Peer::new(4000, 80);
    peer.take(&only_segment(&b.frame(&peer.syn())));
    let (conn, _) = only_install(b.frame(&peer.ack()));
    b.engine.installed(conn, Err(InstallError::Exists), b.now);
    assert!(b.actions().is_empty());
    assert_eq!(b.engine.connection_count(), 0);
}

/// RFC 9293 3.10.4-1.
#[test]
fn unlisten_forgets_half_open_and_aborts_what_is_being_installed() {
    let mut b = Bench::new();
    let listener = b.listen(80, 5);
    b.frame(&Peer::new(4000, 80).syn());
    let mut peer = Peer::new(4001, 80);
    peer.take(&only_segment(&b.frame(&peer.syn())));
    let (conn, _) = only_install(b.frame(&peer.ack()));
    b.engine.unlisten(listener, b.now);
    assert!(b.actions().is_empty());
    assert_eq!(b.engine.connection_count(), 1);
    let (flow, actions) = b.installed(conn);
    assert!(matches!(actions[..], [Action::AbortFlow { flow: f }] if f == flow), "{actions:?}");
    let refused = only_segment(&b.frame(&Peer::new(4002, 80).syn()));
    assert!(refused.is(RST_ACK));
}

/// RFC 9293 3.10.7.1-1, 3.10.7.1-2, 3.10.7.1-3; RFC 7323 5.2-2, 5.2-3.
#[test]
fn closed_ports_refuse() {
    let mut b = Bench::new();
    let peer = Peer::new(4000, 81);
    let rst = only_segment(&b.frame(&peer.syn()));
    assert!(rst.is(RST_ACK), "RFC 9293, 3.10.7.1");
    assert_eq!((rst.tcp.seq, rst.tcp.ack), (SeqNum(0), peer.seq.add(1)));
    let peer = Peer { ack: SeqNum(77), ..peer };
    let rst = only_segment(&b.frame(&peer.data(0, TcpFlags::ACK, b"hello")));
    assert!(rst.is(TcpFlags::RST) && rst.tcp.seq == SeqNum(77) && rst.options.timestamps.is_none());
    let modern = only_segment(&b.frame(&Peer::modern(4000, 81).syn()));
    assert_eq!(modern.options.timestamps, Some(Timestamps { val: 0, ecr: 700 }));
    let rst = only_segment(&b.frame(&peer.build(SeqNum(5), SeqNum(0), TcpFlags::FIN, Default::default(), b"abc")));
    assert_eq!((rst.tcp.flags, rst.tcp.ack), (RST_ACK, SeqNum(9)));
    assert!(b.frame(&peer.rst(SeqNum(1))).is_empty(), "never a RST for a RST");
}

/// RFC 9293 3.10.7.2-1, 3.10.7.2-2, 3.10.7.2-5.
#[test]
fn listening_ports_refuse_what_is_no_syn() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let peer = Peer { ack: SeqNum(77), ..Peer::new(4000, 80) };
    assert!(only_segment(&b.frame(&peer.syn_ack())).is(TcpFlags::RST));
    assert!(only_segment(&b.frame(&peer.ack())).is(TcpFlags::RST));
    for flags in [TcpFlags::FIN, TcpFlags::URG | TcpFlags::PSH, TcpFlags::SYN | TcpFlags::FIN, TcpFlags::RST, TcpFlags::SYN | TcpFlags::RST]
    {
        assert!(b.frame(&peer.data(0, flags, b"x")).is_empty(), "{flags:?}");
    }
    assert_eq!(b.engine.connection_count(), 0);
}

/// RFC 5961 7-2: a stranger must not learn from what it is not answered whether others have been (CVE-2016-5696).
#[test]
fn challenges_are_limited_for_each_connection_alone() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let (one, other) = (Peer::new(4000, 80), Peer::new(4001, 80));
    for p in [&one, &other] {
        b.frame(&p.syn());
    }
    let outside = |p: &Peer| p.data(1 << 30, TcpFlags::ACK, &[]);
    let sent: usize = (0..500).map(|_| segments(&b.frame(&outside(&one))).len()).sum();
    assert_eq!((sent, b.engine.counters().challenge_limited), (1, 499));
    assert_eq!(segments(&b.frame(&outside(&other))).len(), 1, "of this one nobody has asked");
    let again = one.data(1 << 30, TcpFlags::ACK, b"x");
    assert_eq!([&again, &again].map(|data| segments(&b.frame(data)).len()), [1, 1], "what a peer sends again is answered");
    b.pass(SEC / 2);
    assert!(segments(&b.frame(&outside(&one))).iter().any(|s| s.is(TcpFlags::ACK)));
}

#[test]
fn refusals_are_limited() {
    let mut b = Bench::with(|c| c.replies_per_second = 100);
    let sent: usize = (0..500).map(|i| segments(&b.frame(&Peer::new(i, 81).syn())).len()).sum();
    assert_eq!(sent, 10);
    b.pass(SEC / 10);
    assert_eq!(segments(&b.frame(&Peer::new(1, 81).syn())).len(), 1);
    assert_eq!((b.engine.counters().rsts_sent, b.engine.counters().rsts_limited), (11, 490));
}

/// Whoever sends in another's name learns nothing of what that one was told (as by CVE-2016-5696), nor keeps others from being told.
#[test]
fn refusals_of_one_address_are_no_limit_for_another() {
    let mut b = Bench::with(|c| c.replies_per_second = 100);
    for n in 0..500 {
        b.frame(&Peer { ip: toe_abi::flow::v4_mapped([10, 0, 0, 3]), ..Peer::new(n, 81) }.syn());
    }
    assert!(only_segment(&b.frame(&Peer::new(1, 81).syn())).is(TcpFlags::RST | TcpFlags::ACK));
}

/// There is a limit for all addresses together, but nobody can count what is left of it.
#[test]
fn refusals_of_all_addresses_are_limited_by_no_certain_number() {
    let sent = |secret: u8| {
        let gateways = vec![toe_abi::flow::v4_mapped(PEER_IP)];
        let mut b = Bench::with(|c| (c.replies_per_second, c.secret, c.gateways) = (100, [secret; 16], gateways));
        b.know_peer();
        let from = |n: u16| Peer { ip: toe_abi::flow::v4_mapped([10, 1, (n >> 8) as u8, n as u8]), ..Peer::new(1, 81) };
        (1..5000).map(|n| segments(&b.frame(&from(n).syn())).len()).sum::<usize>()
    };
    let all: Vec<_> = (1..9).map(sent).collect();
    assert!(all.iter().all(|n| (100..250).contains(n)), "{all:?}");
    assert_eq!(sent(1), all[0]);
    assert!(all.iter().any(|n| *n != all[0]), "{all:?}");
}

/// RFC 9293 MUST-63; RFC 1122 3.2.1.3-2.
#[test]
fn impossible_sources_are_dropped() {
    let mut b = Bench::new();
    b.listen(80, 5);
    for ip in [OUR_IP, [0; 4], [255; 4], [10, 0, 0, 255], [224, 0, 0, 1], [127, 0, 0, 1], [250, 1, 1, 1]] {
        assert!(b.frame(&Peer { ip: toe_abi::flow::v4_mapped(ip), ..Peer::new(4000, 80) }.syn()).is_empty(), "{ip:?}");
    }
    assert!(b.frame(&Peer { mac: [1, 0, 0, 0, 0, 9], ..Peer::new(4000, 80) }.syn()).is_empty());
    assert_eq!(b.engine.counters().drop_bad_source, 8);
}

/// RFC 9293 MUST-8, SHLD-1, MUST-9; RFC 6528 3-1.
#[test]
fn initial_numbers_follow_rfc_6528() {
    let iss = |secret: u8, port: u16, wait_us: u64| {
        let mut b = Bench::with(|c| c.secret = [secret; 16]);
        b.listen(80, 5);
        b.now += wait_us;
        only_segment(&b.frame(&Peer::new(port, 80).syn())).tcp.seq
    };
    let base = iss(1, 4000, 0);
    assert_eq!(iss(1, 4000, 0), base);
    assert_eq!(iss(1, 4000, 4 * 1000), base.add(1000), "a clock of 4 us ticks");
    assert_ne!(iss(1, 4001, 0), base);
    assert_ne!(iss(2, 4000, 0), base);
}

/// RFC 7323 4.1-1, 5.4-1, 5.4-2, 5.4-3.
#[test]
fn timestamps_of_one_tuple_rise() {
    let mut b = Bench::with(|c| c.handshake_retries = 0);
    b.listen(80, 5);
    let val = |b: &mut Bench| only_segment(&b.frame(&Peer::modern(4000, 80).syn())).options.timestamps.map(|t: Timestamps| t.val);
    let first = val(&mut b).unwrap();
    b.pass(5 * SEC);
    assert_eq!(val(&mut b), Some(first.wrapping_add(5000)));
}

#[test]
fn listener_at_another_port_or_address_is_not_found() {
    let mut b = Bench::new();
    let (bind, at) = b.engine.bind(1, Endpoint::v4(OUR_IP, 0), 0).unwrap();
    assert_ne!(at.port, 0);
    b.engine.listen(bind, 5, BUF).unwrap();
    assert!(only_segment(&b.frame(&Peer::new(4000, at.port).syn())).is(SYN_ACK));
    assert!(only_segment(&b.frame(&Peer::new(4000, at.port ^ 1).syn())).is(RST_ACK));
    b.engine.unbind(bind, b.now);
    assert_eq!((b.engine.listeners().count(), b.engine.connection_count()), (0, 0));
}
