//! Active open: next hop, SYN, and each way in which it can end.

mod common;
use common::*;
use toe_abi::{
    FlowId,
    app::bind_flags::REUSEADDR,
    control::close_reason,
    flow::{FlowState, flow_flags, tcp_state, v4_mapped},
};
use toe_engine::{Action, ConnId, Endpoint, InstallError, OpenOptions, Prefix, Wishes};
use toe_tcp::{HostUpdate, Input, Now, emit, input, next_deadline};
use toe_wire::{ArpOp, SeqNum, TcpFlags};

const SYN_ACK: TcpFlags = TcpFlags::SYN.union(TcpFlags::ACK);
const ECN_SYN: TcpFlags = TcpFlags::SYN.union(TcpFlags::ECE).union(TcpFlags::CWR);

const EADDRNOTAVAIL: u32 = 99;
const ENETUNREACH: u32 = 101;
const ECONNABORTED: u32 = 103;
const ENOBUFS: u32 = 105;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;
const EHOSTUNREACH: u32 = 113;

fn connect(b: &mut Bench) -> (ConnId, Endpoint, Vec<Action>) {
    let (conn, local) = b.engine.connect(1, None, Endpoint::v4(PEER_IP, 80), BUF, b.now).expect("a route and a port");
    (conn, local, b.actions())
}

/// A bench that knows the peer, a connection in SYN-SENT, and the peer that has seen the SYN.
fn syn_sent() -> (Bench, ConnId, Peer, Seg) {
    let mut b = Bench::with(|c| c.arp_expire_us = 10_000 * SEC);
    b.know_peer();
    let (conn, _, actions) = connect(&mut b);
    let syn = only_segment(&actions);
    let mut peer = Peer::modern(80, 0);
    peer.take(&syn);
    (b, conn, peer, syn)
}

/// RFC 9293 MUST-44, 3.10.1-1, 3.10.7.3-5; RFC 7323 2.2-8, 3.2-1; RFC 1191 3.1-1, 3.1-2; RFC 1122 2.3.2.2-1.
#[test]
fn resolves_then_opens_then_installs_before_acknowledging() {
    let mut b = Bench::new();
    let (conn, local, actions) = connect(&mut b);
    assert_eq!(local.ip, Endpoint::v4(OUR_IP, 0).ip);
    assert!(segments(&actions).is_empty());
    let (to, ask) = arps(&actions)[0];
    assert_eq!((to, ask.op, ask.target_ip, ask.sender_ip), ([0xff; 6], ArpOp::Request, PEER_IP, OUR_IP));

    let actions = b.frame(&arp(ArpOp::Reply, PEER_MAC, PEER_IP, OUR_IP));
    assert!(matches!(actions[0], Action::NextHop { index: 0, mac: Some(PEER_MAC) }));
    let syn = only_segment(&actions);
    assert!(syn.is(TcpFlags::SYN));
    assert_eq!((syn.to, syn.tcp.src_port, syn.tcp.dst_port), (PEER_MAC, local.port, 80));
    assert_eq!((syn.options.mss, syn.options.window_scale, syn.options.sack_permitted), (Some(1460), Some(3), true));
    assert_eq!(syn.options.timestamps.map(|t| t.ecr), Some(0));

    let mut peer = Peer::modern(80, 0);
    peer.take(&syn);
    b.now += 20_000;
    let actions = b.frame(&peer.syn_ack());
    assert!(segments(&actions).is_empty(), "the flow acknowledges");
    let (id, state) = only_install(actions);
    assert_eq!(id, conn);
    assert_eq!((state.tx.iss, state.rx.irs), (syn.tcp.seq.0, peer.seq.0));
    assert_eq!(state.rx.flags & flow_flags::ACK_NOW, flow_flags::ACK_NOW);
    assert_eq!(state.tx.snd_wnd, 60_000, "the window of a SYN-ACK is not scaled");
    assert_eq!((state.tx.srtt_us, state.id.next_hop, state.rx.ts_recent), (20_000, 0, 700));
    let (flow, actions) = b.installed(conn);
    assert!(matches!(actions[..], [Action::Connected { conn: c, flow: f, .. }] if c == conn && f == flow));
}

/// RFC 9293 MUST-22; RFC 1122 4.2.3.1-1.
#[test]
fn syn_is_repeated_with_backoff_then_times_out() {
    let (mut b, conn, _, first) = syn_sent();
    let start = b.now;
    let mut at = Vec::new();
    let mut end = None;
    for _ in 0..400 {
        let actions = b.pass(SEC / 2);
        at.extend(segments(&actions).iter().map(|s| {
            assert_eq!((s.tcp.seq, s.tcp.flags), (first.tcp.seq, TcpFlags::SYN));
            (b.now - start) / SEC
        }));
        end = end.or(failed(&actions));
    }
    assert_eq!(at, [1, 3, 7, 15, 31, 63]);
    assert_eq!(end, Some((conn, ETIMEDOUT)));
    assert_eq!(b.engine.connection_count(), 0);
}

/// RFC 9293 3.10.7.3-3, 3.10.7.3-4; RFC 5961 3.2-6.
#[test]
fn rst_that_acknowledges_the_syn_refuses() {
    let (mut b, conn, peer, _) = syn_sent();
    let blind = peer.build(SeqNum(0), peer.ack, TcpFlags::RST, Default::default(), &[]);
    assert!(b.frame(&blind).is_empty(), "RFC 5961: no ACK, no effect");
    let wrong = peer.build(SeqNum(0), peer.ack.add(1), TcpFlags::RST | TcpFlags::ACK, Default::default(), &[]);
    assert!(b.frame(&wrong).is_empty());
    let right = peer.build(SeqNum(0), peer.ack, TcpFlags::RST | TcpFlags::ACK, Default::default(), &[]);
    assert_eq!(failed(&b.frame(&right)), Some((conn, ECONNREFUSED)));
    assert_eq!(b.engine.neighbours().next().map(|n| n.refs), Some(0));
}

/// RFC 9293 3.10.7.3-1, 3.10.7.3-8.
#[test]
fn wrong_acknowledgement_is_reset_and_the_open_goes_on() {
    let (mut b, _, mut peer, _) = syn_sent();
    let good = peer.ack;
    peer.ack = good.add(1);
    let rst = only_segment(&b.frame(&peer.syn_ack()));
    assert!(rst.is(TcpFlags::RST) && rst.tcp.seq == peer.ack);
    peer.ack = good;
    assert!(b.frame(&peer.ack()).is_empty(), "an ACK alone opens nothing");
    only_install(b.frame(&peer.syn_ack()));
}

/// RFC 9293 MUST-10, 3.10.7.3-6.
#[test]
fn simultaneous_open() {
    let (mut b, conn, peer, syn) = syn_sent();
    let synack = only_segment(&b.frame(&peer.syn()));
    assert!(synack.is(SYN_ACK));
    assert_eq!((synack.tcp.seq, synack.tcp.ack), (syn.tcp.seq, peer.seq.add(1)));
    // RFC 9293, figure 7: the peer's SYN-ACK ends it on our side.
    let (id, state) = only_install(b.frame(&peer.syn_ack()));
    assert_eq!((id, state.rx.flags & flow_flags::ACK_NOW), (conn, flow_flags::ACK_NOW));
    assert!(matches!(b.installed(conn).1[..], [Action::Connected { .. }]));
}

#[test]
fn simultaneous_open_ended_by_an_ack() {
    let (mut b, conn, peer, _) = syn_sent();
    only_segment(&b.frame(&peer.syn()));
    assert!(only_segment(&b.frame(&peer.syn())).is(SYN_ACK));
    let (_, state) = only_install(b.frame(&peer.ack()));
    assert_eq!(state.rx.flags & flow_flags::ACK_NOW, 0);
    let (_, actions) = b.installed(conn);
    assert!(matches!(actions[..], [Action::Inject { .. }, Action::Connected { .. }]));
}

/// RFC 9293 MUST-11, 3.10.7.4-10: who opened is told.
#[test]
fn rst_refuses_a_simultaneous_open() {
    let (mut b, conn, peer, _) = syn_sent();
    only_segment(&b.frame(&peer.syn()));
    assert_eq!(failed(&b.frame(&peer.rst(peer.seq.add(1)))), Some((conn, ECONNREFUSED)));
    assert_eq!(b.engine.connection_count(), 0);
}

/// RFC 9293 MUST-49.
#[test]
fn time_to_live_is_as_configured() {
    let mut b = Bench::with(|c| c.ttl = 9);
    b.know_peer();
    let (_, _, actions) = connect(&mut b);
    let syn = only_segment(&actions);
    let mut peer = Peer::new(80, 0);
    peer.take(&syn);
    let (_, state) = only_install(b.frame(&peer.syn_ack()));
    assert_eq!((syn.ip.ttl, state.id.ttl), (9, 9));
}

/// RFC 9293 MUST-48, SHLD-22: the application's field, without the ECN bits.
#[test]
fn socket_options_are_obeyed_from_the_syn_on() {
    let mut b = Bench::new();
    b.know_peer();
    let open = OpenOptions { tos: 0xbb, ttl: 7, max_segment: 1000, syn_retries: 2, ..OpenOptions::default() };
    let wishes = Wishes { open, ..Wishes::new(BUF) };
    b.engine.connect(1, None, Endpoint::v4(PEER_IP, 80), wishes, b.now).unwrap();
    let actions = b.actions();
    let syn = only_segment(&actions);
    assert_eq!((syn.ip.tos, syn.ip.ecn, syn.ip.ttl, syn.options.mss), (0xb8, 0, 7, Some(1000)));
    let mut peer = Peer::modern(80, 0);
    peer.take(&syn);
    let mut other = b.engine.connect(1, None, Endpoint::v4(PEER_IP, 81), wishes, b.now).map(|_| 0).unwrap();
    let (_, state) = only_install(b.frame(&peer.syn_ack()));
    assert_eq!((state.id.tos, state.id.ttl, state.rx.mss), (0xb8, 7, 1000 - 12));
    let mut end = None;
    for _ in 0..20 {
        let actions = b.pass(SEC);
        other += segments(&actions).len();
        end = end.or(failed(&actions).map(|(_, errno)| errno));
    }
    assert_eq!((other, end), (2, Some(ETIMEDOUT)), "two retransmissions");
}

#[test]
fn next_hop_that_does_not_answer() {
    let mut b = Bench::with(|c| (c.arp_timeout_us, c.arp_timeout_max_us) = (SEC, 4 * SEC));
    let (conn, _, first) = connect(&mut b);
    let start = b.now;
    let mut at = Vec::new();
    let mut end = None;
    assert_eq!(arps(&first).len(), 1);
    for _ in 0..40 {
        let actions = b.pass(SEC / 2);
        at.extend(arps(&actions).iter().map(|_| (b.now - start) / SEC));
        end = end.or(failed(&actions).map(|f| (f, (b.now - start) / SEC)));
    }
    assert_eq!(at, [1, 3]);
    assert_eq!(end, Some(((conn, EHOSTUNREACH), 7)));
    assert_eq!((b.engine.neighbours().count(), b.engine.next_deadline()), (0, None));
}

/// Nor does it go on without sending anything, where it had answered before.
#[test]
fn next_hop_that_does_not_answer_any_more() {
    let mut b = Bench::with(|c| c.arp_expire_us = 2 * SEC);
    b.know_peer();
    let (conn, ..) = connect(&mut b);
    let actions = b.pass(7 * SEC - 1);
    assert_eq!((segments(&actions).len(), failed(&actions)), (2, None), "SYNs after 1 and 3 s");
    assert_eq!(failed(&b.pass(1)), Some((conn, EHOSTUNREACH)), "there is nowhere to send the third");
    b.pass(10 * SEC);
    assert_eq!((b.engine.neighbours().count(), b.engine.next_deadline()), (0, None));
}

/// RFC 9293 MUST-46, 3.10.1-3.
#[test]
fn no_route() {
    let mut b = Bench::new();
    for ip in [[10, 1, 0, 1], OUR_IP, [10, 0, 0, 255], [224, 0, 0, 5], [0; 4]] {
        let err = b.engine.connect(1, None, Endpoint::v4(ip, 80), BUF, b.now).unwrap_err();
        assert_eq!(err.0, ENETUNREACH, "{ip:?}");
    }
    assert_eq!(b.engine.connection_count(), 0);
}

#[test]
fn gateway_is_asked_for_what_is_not_on_link() {
    let mut b = Bench::with(|c| c.gateways = vec![toe_abi::flow::v4_mapped([10, 0, 0, 254])]);
    let (_, _) = b.engine.connect(1, None, Endpoint::v4([192, 0, 2, 1], 80), BUF, b.now).unwrap();
    let actions = b.actions();
    assert_eq!(arps(&actions)[0].1.target_ip, [10, 0, 0, 254]);
    let syn = only_segment(&b.frame(&arp(ArpOp::Reply, [2, 9, 9, 9, 9, 9], [10, 0, 0, 254], OUR_IP)));
    assert_eq!((syn.to, syn.ip.dst), ([2, 9, 9, 9, 9, 9], Endpoint::v4([192, 0, 2, 1], 0).ip));
}

/// RFC 3168 6.1.1.1-2.
#[test]
fn ecn_is_asked_for_and_given_up_after_losses() {
    let mut b = Bench::with(|c| c.ecn = true);
    b.know_peer();
    let (_, _, actions) = connect(&mut b);
    assert!(only_segment(&actions).is(ECN_SYN));
    let flags: Vec<_> = segments(&b.pass(4 * SEC)).iter().map(|s| s.tcp.flags).collect();
    assert_eq!(flags, [ECN_SYN, TcpFlags::SYN], "RFC 3168, 6.1.1.1");
}

/// RFC 3168 6.1.1-4, 6.1.1-8.
#[test]
fn ecn_needs_ece_alone_in_the_syn_ack() {
    for (answer, want) in [(TcpFlags::ECE, true), (TcpFlags::ECE | TcpFlags::CWR, false), (TcpFlags::empty(), false)] {
        let mut b = Bench::with(|c| c.ecn = true);
        b.know_peer();
        let (_, _, actions) = connect(&mut b);
        let mut peer = Peer::new(80, 0);
        peer.take(&only_segment(&actions));
        peer.syn_flags |= answer;
        let (_, state) = only_install(b.frame(&peer.syn_ack()));
        assert_eq!(state.rx.flags & flow_flags::ECN != 0, want, "{answer:?}");
    }
}

/// A connection whose SYN was sent again `losses` times before `peer` answers, 20 ms after the last; its first timeout then.
fn after_losses(losses: u32, mut peer: Peer) -> (FlowState, u64) {
    let mut b = Bench::with(|c| c.arp_expire_us = 10_000 * SEC);
    b.know_peer();
    let (_, _, actions) = connect(&mut b);
    peer.take(&only_segment(&actions));
    let again = segments(&b.pass(((1 << losses) - 1) * SEC));
    assert_eq!(again.len(), losses as usize);
    again.iter().for_each(|s| peer.take(s));
    b.now += 20_000;
    let (_, mut state) = only_install(b.frame(&peer.syn_ack()));
    let now = Now(b.now);
    let mut pools = toe_tcp::Pools::new(8, 1);
    let _ = input(&mut state, &mut pools, &Input::Host(HostUpdate { tx_head: 10, rx_tail: 0, flags: 0, urgent: 0 }), now);
    emit(&mut state, &mut pools, now, 1000).expect("data");
    let first = next_deadline(&state, now).expect("a timeout").0 - b.now;
    (*state, first / 1000)
}

/// RFC 9293 MUST-18; RFC 6298 3-1, 3-2, 5-4.
#[test]
fn rtt_is_not_sampled_from_a_repeated_syn() {
    let (state, timeout_ms) = after_losses(1, Peer::new(80, 0));
    assert_eq!(state.tx.srtt_us, 0, "Karn");
    assert!((3000..=3002).contains(&timeout_ms), "{timeout_ms} ms");
    let (state, timeout_ms) = after_losses(0, Peer::new(80, 0));
    assert_eq!(state.tx.srtt_us, 20_000);
    assert!((220..=262).contains(&timeout_ms), "{timeout_ms} ms");
}

/// RFC 7323, 4.1.
#[test]
fn an_echo_tells_which_syn_was_answered() {
    let (state, _) = after_losses(1, Peer::modern(80, 0));
    assert_eq!(state.tx.srtt_us, 20_000);
}

#[test]
fn a_second_lost_syn_makes_the_first_window_small() {
    assert_eq!(after_losses(1, Peer::new(80, 0)).0.cc.cwnd, 14_600);
    assert_eq!(after_losses(2, Peer::new(80, 0)).0.cc.cwnd, 1460);
}

/// RFC 9293 3.10.4-2.
#[test]
fn cancelled_opens_leave_nothing() {
    let mut b = Bench::new();
    let (conn, _, _) = connect(&mut b);
    b.engine.cancel(conn, b.now);
    assert_eq!(b.engine.connection_count(), 0);
    assert!(segments(&b.frame(&arp(ArpOp::Reply, PEER_MAC, PEER_IP, OUR_IP))).is_empty());

    let (mut b, conn, peer, _) = syn_sent();
    b.engine.cancel(conn, b.now);
    assert!(only_segment(&b.frame(&peer.syn_ack())).is(TcpFlags::RST));
    assert!(b.pass(100 * SEC).iter().all(|a| !matches!(a, Action::ConnectFailed { .. })));

    let (mut b, conn, peer, _) = syn_sent();
    only_segment(&b.frame(&peer.syn()));
    b.engine.cancel(conn, b.now);
    let actions = b.actions();
    assert!(only_segment(&actions).is(TcpFlags::RST));

    let (mut b, conn, peer, _) = syn_sent();
    only_install(b.frame(&peer.syn_ack()));
    b.engine.cancel(conn, b.now);
    let (flow, actions) = b.installed(conn);
    assert!(matches!(actions[..], [Action::AbortFlow { flow: f }] if f == flow));
}

#[test]
fn failed_installation_tells_both_sides() {
    for (error, errno, resets) in
        [(InstallError::NoMemory, ENOBUFS, 1), (InstallError::Exists, EADDRNOTAVAIL, 0), (InstallError::OwnerGone, ECONNABORTED, 1)]
    {
        let (mut b, conn, peer, _) = syn_sent();
        only_install(b.frame(&peer.syn_ack()));
        b.engine.installed(conn, Err(error), b.now);
        let actions = b.actions();
        assert_eq!(failed(&actions), Some((conn, errno)));
        assert_eq!(segments(&actions).len(), resets, "{error:?}");
        assert_eq!(b.engine.connection_count(), 0);
    }
}

#[test]
fn stale_ids_do_nothing() {
    let (mut b, conn, _, _) = syn_sent();
    b.engine.cancel(conn, b.now);
    connect(&mut b);
    b.engine.cancel(conn, b.now);
    b.engine.installed(conn, Err(InstallError::NoMemory), b.now);
    let (_, actions) = b.installed(conn);
    assert!(actions.is_empty(), "{actions:?}");
    assert_eq!(b.engine.connection_count(), 1);
}

#[test]
fn bound_port_is_used_once_for_each_destination() {
    let mut b = Bench::new();
    let (bind, _) = b.engine.bind(1, Endpoint { ip: [0; 16], port: 5555 }, 0).unwrap();
    let (_, local) = b.engine.connect(1, Some(bind), Endpoint::v4(PEER_IP, 80), BUF, b.now).unwrap();
    assert_eq!(local.port, 5555);
    let again = b.engine.connect(1, Some(bind), Endpoint::v4(PEER_IP, 80), BUF, b.now).unwrap_err();
    assert_eq!(again.0, EADDRNOTAVAIL);
    assert!(b.engine.connect(1, Some(bind), Endpoint::v4(PEER_IP, 81), BUF, b.now).is_ok());
}

#[test]
fn ephemeral_ports_differ_until_none_is_left() {
    let mut b = Bench::with(|c| c.ephemeral = (50_000, 50_099));
    let mut ports: Vec<u16> = (0..100).map(|_| connect(&mut b).1.port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 100);
    assert!(ports.iter().all(|p| (50_000..50_100).contains(p)));
    let err = b.engine.connect(1, None, Endpoint::v4(PEER_IP, 80), BUF, b.now).unwrap_err();
    assert_eq!(err.0, EADDRNOTAVAIL);
    // Another destination has ports of its own.
    assert!(b.engine.connect(1, None, Endpoint::v4(PEER_IP, 81), BUF, b.now).is_ok());
}

/// A connection that we opened and closed first, with a round trip of nothing: its tuple is in TIME-WAIT. Gives its last state.
fn opened_and_closed(b: &mut Bench, timestamps: bool) -> FlowState {
    let (conn, local, actions) = connect(b);
    let syn = only_segment(&actions);
    let mut peer = Peer { ts: timestamps.then_some(700), ..Peer::modern(80, local.port) };
    peer.take(&syn);
    let (id, mut s) = only_install(b.frame(&peer.syn_ack()));
    assert_eq!(id, conn);
    let (flow, _) = b.installed(conn);
    (s.tx.snd_una, s.tx.snd_max) = (s.tx.snd_una.wrapping_add(5_000_000), s.tx.snd_max.wrapping_add(5_000_000));
    s.rx.state = tcp_state::TIME_WAIT;
    b.engine.flow_closed(flow, close_reason::TIME_WAIT, &s, b.now, b.now);
    b.actions();
    *s
}

/// Ten ports, all in TIME-WAIT towards one destination; gives the last states.
fn exhausted(timestamps: bool) -> (Bench, Vec<FlowState>) {
    let mut b = Bench::with(|c| (c.ephemeral, c.arp_expire_us) = ((50_000, 50_009), 10_000 * SEC));
    b.know_peer();
    let states = (0..10).map(|_| opened_and_closed(&mut b, timestamps)).collect();
    (b, states)
}

/// As with tcp_tw_reuse of Linux. RFC 1122 4.2.2.13-1.
#[test]
fn with_all_ports_in_time_wait_one_is_taken_again_where_timestamps_tell_them_apart() {
    let (mut b, states) = exhausted(true);
    let refused = |b: &mut Bench| b.engine.connect(1, None, Endpoint::v4(PEER_IP, 80), BUF, b.now).is_err();
    assert!(refused(&mut b), "the clock of timestamps may not have ticked");
    b.pass(SEC);
    let (_, local, actions) = connect(&mut b);
    let syn = only_segment(&actions);
    let old = states.iter().find(|s| s.id.key.local_port == local.port).expect("one of the ten");
    assert!(syn.tcp.seq.gt(SeqNum(old.tx.snd_max)), "beyond the last connection's");
    assert_eq!(syn.options.timestamps.map(|t| t.val), Some(Now(b.now).ms32().wrapping_add(old.rx.ts_offset)), "they rise");
    let c = b.engine.counters();
    assert_eq!((b.engine.time_wait_count(), b.engine.connection_count(), c.time_wait_reused), (9, 1, 1));
    // Each once: then they are connections.
    (0..9).for_each(|_| _ = connect(&mut b));
    assert!(refused(&mut b));
}

#[test]
fn a_port_of_the_caller_s_is_taken_again_as_well() {
    let (mut b, _) = exhausted(true);
    b.pass(SEC);
    let at = Endpoint { ip: [0; 16], port: 50_003 };
    let (bind, _) = b.engine.bind(1, at, REUSEADDR).unwrap();
    assert_eq!(b.engine.connect(1, Some(bind), Endpoint::v4(PEER_IP, 80), BUF, b.now).map(|(_, local)| local.port), Ok(50_003));
}

#[test]
fn an_open_for_which_there_is_no_next_hop_leaves_time_wait() {
    let state = exhausted(true).1[0];
    let mut b = Bench::with(|c| c.next_hops = 1);
    b.listen(81, 5);
    b.accept(&mut Peer { ip: v4_mapped([10, 0, 0, 3]), ..Peer::modern(4000, 81) });
    b.engine.flow_closed(FlowId { index: 9, generation: 9 }, close_reason::TIME_WAIT, &state, b.now, b.now);
    b.pass(SEC);
    let (bind, _) = b.engine.bind(1, Endpoint { ip: [0; 16], port: state.id.key.local_port }, REUSEADDR).unwrap();
    assert!(b.engine.connect(1, Some(bind), Endpoint::v4(PEER_IP, 80), BUF, b.now).is_err());
    assert_eq!((b.engine.time_wait_count(), b.engine.counters().time_wait_reused), (1, 0));
}

#[test]
fn ports_that_were_not_used_come_before_those_in_time_wait() {
    let mut b = Bench::with(|c| (c.ephemeral, c.arp_expire_us) = ((50_000, 50_009), 10_000 * SEC));
    b.know_peer();
    (0..5).for_each(|_| _ = opened_and_closed(&mut b, true));
    b.pass(SEC);
    (0..5).for_each(|_| _ = connect(&mut b));
    assert_eq!((b.engine.time_wait_count(), b.engine.counters().time_wait_reused), (5, 0));
}

#[test]
fn without_timestamps_time_wait_is_waited_for() {
    let (mut b, _) = exhausted(false);
    b.pass(SEC);
    assert!(b.engine.connect(1, None, Endpoint::v4(PEER_IP, 80), BUF, b.now).is_err());
}

/// RFC 6056 3.3-1.
#[test]
fn ephemeral_ports_cannot_be_known_from_others() {
    let first = |secret: u8, to: u16| {
        let mut b = Bench::with(|c| c.secret = [secret; 16]);
        let (_, local) = b.engine.connect(1, None, Endpoint::v4(PEER_IP, to), BUF, b.now).unwrap();
        local.port
    };
    assert_ne!(first(1, 80), first(2, 80), "without the secret");
    assert_ne!(first(1, 80), first(1, 81), "from those of another destination");
}

/// RFC 9293 3.10.1-2.
#[test]
fn connections_are_bounded() {
    let mut b = Bench::with(|c| c.connections_max = 3);
    for _ in 0..3 {
        connect(&mut b);
    }
    let err = b.engine.connect(1, None, Endpoint::v4(PEER_IP, 80), BUF, b.now).unwrap_err();
    assert_eq!(err.0, ENOBUFS);
}

/// RFC 1122 3.3.4.3: a router drops what does not come from its own subnet, and what it sent back would not find us.
#[test]
fn the_source_is_of_the_subnet_of_the_next_router() {
    let second = v4_mapped([192, 168, 7, 2]);
    let mut b = Bench::with(|c| {
        c.addresses.push(Prefix::new(second, 24).unwrap());
        c.gateways = vec![v4_mapped([192, 168, 7, 1])];
    });
    let from = |b: &mut Bench, to| b.engine.connect(1, None, Endpoint::v4(to, 80), BUF, b.now).unwrap().1.ip;
    assert_eq!(from(&mut b, [8, 8, 8, 8]), second, "also where the other has more bits of the destination");
    assert_eq!(from(&mut b, [200, 8, 8, 8]), second);
    assert_eq!(from(&mut b, PEER_IP), v4_mapped(OUR_IP), "on the link itself");
}
