//! SYN cookies: connections of which nothing was kept (RFC 4987, 3.6).

mod common;
use common::*;
use proptest::prelude::*;
use toe_abi::flow::{FlowState, flow_flags};
use toe_engine::{Action, Config, Endpoint, OpenOptions, SynCookies, Wishes};
use toe_wire::{SeqNum, TcpFlags, TcpOptions};

const SYN_ACK: TcpFlags = TcpFlags::SYN.union(TcpFlags::ACK);
const MIN: u64 = 60 * SEC;

/// A listener at port 80 that answers by cookies only.
fn always(change: impl FnOnce(&mut Config)) -> Bench {
    let mut b = Bench::dual(|c| {
        c.syn_cookies = SynCookies::Always;
        change(c);
    });
    b.listen(80, 5);
    b
}

fn syn_ack(b: &mut Bench, peer: &mut Peer) -> Seg {
    let s = only_segment(&b.frame(&peer.syn()));
    assert!(s.is(SYN_ACK) && s.tcp.ack == peer.seq.add(1), "{s:?}");
    assert_eq!(b.engine.listeners().map(|l| l.half_open).sum::<usize>(), 0, "nothing is kept");
    peer.take(&s);
    s
}

/// What a connection through a cookie begins with.
fn open(b: &mut Bench, peer: &mut Peer) -> Box<FlowState> {
    syn_ack(b, peer);
    only_install(b.frame(&peer.ack())).1
}

#[test]
fn the_whole_of_a_modern_handshake_comes_back() {
    let mut b = always(|c| c.ecn = true);
    let mut peer = Peer { syn_flags: TcpFlags::SYN | TcpFlags::ECE | TcpFlags::CWR, ..Peer::modern(4000, 80) };
    let s = only_segment(&b.frame(&peer.syn()));
    assert!(s.is(SYN_ACK | TcpFlags::ECE));
    assert!(s.options.window_scale.is_some() && s.options.sack_permitted);
    peer.take(&s);
    peer.ts = Some(701);
    let (conn, state) = only_install(b.frame(&peer.ack()));
    assert_eq!((state.rx.mss, state.tx.snd_wnd), (1400 - 12, 60_000 << 7));
    assert_eq!((state.tx.snd_una, state.rx.rcv_nxt, state.rx.ts_recent), (s.tcp.seq.add(1).0, peer.seq.add(1).0, 701));
    let agreed = flow_flags::TIMESTAMPS | flow_flags::SACK | flow_flags::ECN;
    assert_eq!(state.rx.flags & agreed, agreed);
    let (_, actions) = b.installed(conn);
    assert!(matches!(&actions[..], [Action::Inject { frame, .. }, Action::Accept { .. }] if *frame == peer.ack()), "{actions:?}");
    let c = b.engine.counters();
    assert_eq!((c.syn_cookies_sent, c.syn_cookies_valid, c.syn_cookies_invalid, c.passive_opens), (1, 1, 0, 1));
}

#[test]
fn timestamps_do_not_go_back_after_a_cookie() {
    let mut b = always(|_| {});
    for wait in [0, 1_000, 63_000, 64_000] {
        b.pass(wait);
        let mut peer = Peer::modern(4000, 80);
        let cookie = syn_ack(&mut b, &mut peer).options.timestamps.unwrap().val;
        let (conn, state) = only_install(b.frame(&peer.ack()));
        let now = ((b.now / 1000) as u32).wrapping_add(state.rx.ts_offset);
        assert!(now.wrapping_sub(cookie) < 64, "{cookie} at {now}");
        b.engine.installed(conn, Err(toe_engine::InstallError::Refused), b.now);
        b.actions();
    }
}

/// As Linux: there is nothing that could wait for data.
#[test]
fn a_cookie_is_not_deferred() {
    let mut b = Bench::dual(|c| c.syn_cookies = SynCookies::Always);
    let (bind, _) = b.engine.bind(1, Endpoint { ip: [0; 16], port: 80 }, 0).unwrap();
    let patient = OpenOptions { defer_accept_us: 3 * SEC, ..OpenOptions::default() };
    b.engine.listen(bind, 5, Wishes { open: patient, ..Wishes::new(BUF) }).unwrap();
    open(&mut b, &mut Peer::new(4000, 80));
    assert_eq!(b.engine.counters().ack_deferred, 0);
}

/// Options have no place without timestamps; the MSS has.
#[test]
fn without_timestamps_no_other_options_are_agreed() {
    let mut b = always(|_| {});
    let mut peer = Peer { ts: None, ..Peer::modern(4000, 80) };
    let s = syn_ack(&mut b, &mut peer);
    assert_eq!((s.options.window_scale, s.options.sack_permitted, s.options.timestamps), (None, false, None));
    let state = only_install(b.frame(&peer.ack())).1;
    assert_eq!((state.rx.mss, state.tx.snd_wnd), (1400, 60_000));
    assert_eq!(state.rx.flags & (flow_flags::TIMESTAMPS | flow_flags::SACK | flow_flags::ECN), 0);
}

/// RFC 9293 MUST-15, MUST-16.
#[test]
fn segments_are_never_larger_than_the_peer_takes() {
    let mut b = always(|_| {});
    for (port, mss, used) in [(1, Some(1460), 1460), (2, Some(1459), 1440), (3, None, 536), (4, Some(500), 88), (5, Some(9000), 1460)] {
        let syn_options = TcpOptions { mss, ..TcpOptions::default() };
        let state = open(&mut b, &mut Peer { syn_options, ..Peer::new(port, 80) });
        assert_eq!(state.rx.mss, used, "{mss:?}");
    }
    let state = open(&mut b, &mut Peer { syn_options: TcpOptions::default(), ..Peer::v6(6, 80) });
    assert_eq!(state.rx.mss, 1220 - 12, "IPv6");
}

#[test]
fn a_cookie_is_good_for_one_to_two_minutes() {
    for (wait, good) in [(0, true), (MIN - 1, true), (2 * MIN, false), (2 * MIN + 1, false), (60 * MIN, false)] {
        let mut b = always(|_| {});
        let mut peer = Peer::modern(4000, 80);
        syn_ack(&mut b, &mut peer);
        b.pass(wait);
        let actions = b.frame(&peer.ack());
        let opens = actions.iter().any(|a| matches!(a, Action::Install { .. }));
        assert_eq!(opens, good, "after {wait} us: {actions:?}");
        if !good {
            assert!(only_segment(&actions).is(TcpFlags::RST));
        }
    }
}

#[test]
fn a_cookie_is_of_one_tuple_and_one_engine() {
    let mut b = always(|_| {});
    let mut peer = Peer::modern(4000, 80);
    syn_ack(&mut b, &mut peer);
    for other in
        [Peer { port: 4001, ..peer.clone() }, Peer { seq: peer.seq.add(1), ..peer.clone() }, Peer { ack: peer.ack.add(8), ..peer.clone() }]
    {
        assert!(only_segment(&b.frame(&other.ack())).is(TcpFlags::RST), "{other:?}");
    }
    let mut restarted = always(|c| c.secret = [9; 16]);
    syn_ack(&mut restarted, &mut Peer::modern(4001, 80));
    assert!(only_segment(&restarted.frame(&peer.ack())).is(TcpFlags::RST));
    assert_eq!((b.engine.counters().syn_cookies_invalid, restarted.engine.counters().syn_cookies_invalid), (3, 1));
    only_install(b.frame(&peer.ack()));
}

#[test]
fn first_data_makes_up_for_a_lost_ack() {
    let mut b = always(|_| {});
    let mut peer = Peer::modern(4000, 80);
    syn_ack(&mut b, &mut peer);
    let request = peer.data(0, TcpFlags::ACK | TcpFlags::PSH, b"GET /");
    let (conn, _) = only_install(b.frame(&request));
    let (_, actions) = b.installed(conn);
    assert!(matches!(&actions[0], Action::Inject { frame, .. } if *frame == request));
}

#[test]
fn a_flood_gets_cookies_only_beyond_the_limit() {
    let mut b = Bench::with(|c| c.syn_backlog_max = 4);
    b.listen(80, 5);
    let mut early = Peer::modern(999, 80);
    early.take(&only_segment(&b.frame(&early.syn())));
    for port in 1000..2000 {
        assert!(only_segment(&b.frame(&Peer::modern(port, 80).syn())).is(SYN_ACK));
    }
    let mut late = Peer::modern(2000, 80);
    late.take(&only_segment(&b.frame(&late.syn())));
    assert_eq!((b.engine.connection_count(), b.engine.counters().syn_cookies_sent), (4, 998));
    assert_eq!(b.engine.counters().syn_recycled, 0, "those that are half-open may go on");
    for peer in [early, late] {
        only_install(b.frame(&peer.ack()));
    }
}

#[test]
fn half_open_connections_of_all_listeners_have_a_limit() {
    let mut b = Bench::with(|c| c.half_open_max = 10);
    let listeners = [b.listen(80, 5), b.listen(81, 5)];
    for port in 1000..1020 {
        b.frame(&Peer::modern(port, 80 + port % 2).syn());
    }
    assert_eq!((b.engine.connection_count(), b.engine.counters().syn_cookies_sent), (10, 10));
    // What goes with its listener makes room again.
    b.engine.unlisten(listeners[0], b.now);
    for port in 2000..2020 {
        b.frame(&Peer::modern(port, 81).syn());
    }
    assert_eq!((b.engine.connection_count(), b.engine.counters().syn_cookies_sent), (10, 25));
}

#[test]
fn a_cookie_finds_no_place_in_a_full_accept_queue_and_is_not_reset() {
    let mut b = Bench::with(|c| c.syn_cookies = SynCookies::Always);
    let listener = b.listen(80, 0);
    let (mut first, mut second) = (Peer::modern(1, 80), Peer::modern(2, 80));
    syn_ack(&mut b, &mut first);
    syn_ack(&mut b, &mut second);
    only_install(b.frame(&first.ack()));
    assert!(b.frame(&second.ack()).is_empty());
    assert_eq!((b.engine.counters().ack_drop_accept_full, b.engine.listeners().next().unwrap().overflows), (1, 1));
    b.engine.accepted(listener, 1);
    only_install(b.frame(&second.data(0, TcpFlags::ACK, b"again")));
}

#[test]
fn a_cookie_finds_no_place_in_a_full_table() {
    let mut b = always(|c| c.connections_max = 1);
    open(&mut b, &mut Peer::modern(1, 80));
    let mut second = Peer::modern(2, 80);
    second.take(&only_segment(&b.frame(&second.syn())));
    assert!(b.frame(&second.ack()).is_empty());
    assert_eq!(b.engine.counters().syn_drop_table_full, 1);
}

/// Off: never a cookie. Without a flood: not looked for.
#[test]
fn acks_out_of_nowhere_are_reset_without_a_look() {
    let mut b = Bench::with(|c| (c.syn_backlog_max, c.syn_cookies) = (1, SynCookies::Off));
    b.listen(80, 5);
    for port in 1..10 {
        b.frame(&Peer::modern(port, 80).syn());
    }
    assert!(only_segment(&b.frame(&Peer::modern(99, 80).ack())).is(TcpFlags::RST));
    let c = b.engine.counters();
    assert_eq!((c.syn_cookies_sent, c.syn_cookies_invalid, c.syn_recycled), (0, 0, 8));
}

proptest! {
    /// Whoever has not seen the SYN-ACK does not get in.
    #[test]
    fn made_up_acks_do_not_open(seq in any::<u32>(), ack in any::<u32>(), port in 1..u16::MAX, ecr in any::<u32>()) {
        let mut b = always(|_| {});
        b.frame(&Peer::modern(4000, 80).syn());
        let peer = Peer { seq: SeqNum(seq), ack: SeqNum(ack), ts_recent: ecr, ..Peer::modern(port, 80) };
        let actions = b.frame(&peer.ack());
        prop_assert!(only_segment(&actions).is(TcpFlags::RST));
    }

    /// Whatever a peer does to the timestamp that it sends back, the connection is one that the card takes.
    #[test]
    fn a_changed_timestamp_is_its_own_loss(ecr in any::<u32>(), window in any::<u16>()) {
        let mut b = always(|_| {});
        let mut peer = Peer { window, ..Peer::modern(4000, 80) };
        syn_ack(&mut b, &mut peer);
        peer.ts_recent = ecr;
        let state = only_install(b.frame(&peer.ack())).1;
        prop_assert!(state.tx.snd_wnd <= u32::from(window) << 14);
    }
}
