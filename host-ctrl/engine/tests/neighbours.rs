//! ARP: learning, answering, ageing, and what the card is told.

mod common;
use common::*;
use toe_abi::{
    control::close_reason,
    flow::{FlowState, v4_mapped},
};
use toe_engine::{Action, Endpoint, Prefix, SynCookies};
use toe_wire::{ArpOp, TcpFlags};

const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn state(b: &Bench) -> Option<(&'static str, u32)> {
    b.engine.neighbours().next().map(|n| (n.state, n.refs))
}

#[test]
fn requests_are_answered_if_the_card_does_not() {
    for answers in [true, false] {
        let mut b = Bench::with(|c| c.answer_arp = answers);
        let actions = b.frame(&arp(ArpOp::Request, PEER_MAC, PEER_IP, OUR_IP));
        assert_eq!(hops(&actions), [(0, Some(PEER_MAC))], "who asks for us will be talked to");
        let replies = arps(&actions);
        assert_eq!(replies.len(), usize::from(answers));
        for (to, r) in replies {
            assert_eq!((to, r.op, r.sender_mac, r.sender_ip, r.target_ip), (PEER_MAC, ArpOp::Reply, OUR_MAC, OUR_IP, PEER_IP));
        }
    }
}

#[test]
fn probes_are_answered_but_not_learned() {
    let mut b = Bench::new();
    let actions = b.frame(&arp(ArpOp::Request, PEER_MAC, [0; 4], OUR_IP));
    assert_eq!(arps(&actions).len(), 1);
    assert_eq!(b.engine.neighbours().count(), 0);
}

#[test]
fn unasked_answers_and_others_business_add_nothing() {
    let mut b = Bench::new();
    for frame in [
        arp(ArpOp::Reply, PEER_MAC, PEER_IP, OUR_IP),
        arp(ArpOp::Request, PEER_MAC, PEER_IP, [10, 0, 0, 77]),
        arp(ArpOp::Request, PEER_MAC, PEER_IP, PEER_IP),
    ] {
        assert!(b.frame(&frame).is_empty());
    }
    assert_eq!(b.engine.neighbours().count(), 0);
}

#[test]
fn impossible_senders_are_ignored() {
    let mut b = Bench::new();
    for (mac, ip) in [
        ([1, 0, 0, 0, 0, 1], PEER_IP),
        ([0; 6], PEER_IP),
        ([0xff; 6], PEER_IP),
        (OUR_MAC, PEER_IP),
        (PEER_MAC, [255; 4]),
        (PEER_MAC, [10, 0, 0, 255]),
        (PEER_MAC, [10, 0, 1, 1]),
        (PEER_MAC, [224, 0, 0, 1]),
    ] {
        assert!(b.frame(&arp(ArpOp::Request, mac, ip, OUR_IP)).is_empty(), "{mac:?} {ip:?}");
    }
    assert_eq!(b.engine.counters().arp_ignored, 8);
}

/// RFC 5227, 2.4: operators are to know, but not as often as somebody likes to say so.
#[test]
fn who_uses_an_address_of_ours_is_told_every_ten_seconds() {
    let second = [10, 0, 0, 7];
    let mut b = Bench::with(|c| c.addresses.push(Prefix::new(v4_mapped(second), 24).unwrap()));
    let told = |b: &mut Bench, mac, ip| {
        let actions = b.frame(&arp(ArpOp::Request, mac, ip, OUR_IP));
        assert_eq!(actions.len(), conflicts(&actions).len(), "nothing else comes of it");
        conflicts(&actions)
    };
    assert_eq!(told(&mut b, PEER_MAC, OUR_IP), [(v4_mapped(OUR_IP), PEER_MAC)]);
    assert_eq!(told(&mut b, OTHER_MAC, OUR_IP), []);
    assert_eq!(told(&mut b, OTHER_MAC, second), [(v4_mapped(second), OTHER_MAC)], "each address by itself");
    b.pass(10 * SEC - 1);
    assert_eq!(told(&mut b, OTHER_MAC, OUR_IP), []);
    b.pass(1);
    assert_eq!(told(&mut b, OTHER_MAC, OUR_IP), [(v4_mapped(OUR_IP), OTHER_MAC)]);
    assert_eq!(b.engine.counters().arp_conflicts, 5);
    assert_eq!(told(&mut b, OUR_MAC, OUR_IP), [], "our own has come back");
}

#[test]
fn moved_neighbour_is_told_to_the_card() {
    let mut b = Bench::new();
    b.know_peer();
    assert!(hops(&b.frame(&arp(ArpOp::Request, PEER_MAC, PEER_IP, OUR_IP))).is_empty(), "nothing new");
    // Gratuitous ARP after a failover.
    let actions = b.frame(&arp(ArpOp::Request, OTHER_MAC, PEER_IP, PEER_IP));
    assert_eq!(hops(&actions), [(0, Some(OTHER_MAC))]);
}

/// RFC 1122 2.3.2.1-1.
#[test]
fn unused_entries_expire() {
    let mut b = Bench::with(|c| c.arp_expire_us = 30 * SEC);
    b.know_peer();
    b.pass(29 * SEC);
    b.know_peer();
    assert!(b.pass(29 * SEC).is_empty());
    let actions = b.pass(SEC);
    assert_eq!((hops(&actions), arps(&actions).len()), (vec![(0, None)], 0));
    assert_eq!((b.engine.neighbours().count(), b.engine.next_deadline()), (0, None));
}

#[test]
fn used_entries_are_asked_again_before_they_are_given_up() {
    let mut b = Bench::with(|c| (c.arp_expire_us, c.arp_timeout_us, c.arp_timeout_max_us) = (30 * SEC, SEC, 16 * SEC));
    b.listen(80, 5);
    b.know_peer();
    b.accept(&mut Peer::new(4000, 80));
    assert_eq!(state(&b), Some(("reachable", 1)));
    let asked = arps(&b.pass(30 * SEC));
    assert_eq!(asked.iter().map(|a| a.0).collect::<Vec<_>>(), [PEER_MAC], "first only the one we know");
    assert_eq!(state(&b), Some(("probing", 1)));
    b.frame(&arp(ArpOp::Reply, PEER_MAC, PEER_IP, OUR_IP));
    assert_eq!(state(&b), Some(("reachable", 1)));

    // Silence: three times the known one, then everybody, then the card must stop using it, but we go on asking.
    b.pass(30 * SEC);
    let actions = b.pass(40 * SEC);
    let to: Vec<_> = arps(&actions).iter().map(|a| a.0).collect();
    assert_eq!(to, [PEER_MAC, PEER_MAC, [0xff; 6], [0xff; 6], [0xff; 6]]);
    assert_eq!(hops(&actions), [(0, None)]);
    assert_eq!(state(&b), Some(("incomplete", 1)));
    assert_eq!(arps(&b.pass(160 * SEC)).len(), 10);
    assert_eq!(hops(&b.frame(&arp(ArpOp::Reply, OTHER_MAC, PEER_IP, OUR_IP))), [(0, Some(OTHER_MAC))]);
}

#[test]
fn new_connection_restarts_a_resolution_that_had_failed() {
    let mut b = Bench::with(|c| (c.arp_expire_us, c.arp_timeout_us, c.arp_timeout_max_us) = (SEC, SEC, 16 * SEC));
    b.listen(80, 5);
    b.accept(&mut Peer::new(4000, 80));
    b.pass(100 * SEC);
    assert_eq!(state(&b), Some(("incomplete", 1)));
    b.engine.connect(1, None, Endpoint::v4(PEER_IP, 80), BUF, b.now).unwrap();
    let actions = b.actions();
    assert_eq!(arps(&actions).len(), 1);
    assert_eq!(arps(&b.pass(SEC)).len(), 1, "the first timeout again");
}

#[test]
fn handshake_seeds_the_next_hop_and_arp_confirms_it() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let mut peer = Peer::new(4000, 80);
    peer.take(&only_segment(&b.frame(&peer.syn())));
    let actions = b.frame(&peer.ack());
    assert_eq!(hops(&actions), [(0, Some(PEER_MAC))]);
    assert_eq!(arps(&actions)[0].0, PEER_MAC);
    let first_install = actions.iter().position(|a| matches!(a, Action::Install { .. }));
    let first_hop = actions.iter().position(|a| matches!(a, Action::NextHop { .. }));
    assert!(first_hop < first_install, "the card knows the hop before the flow");
    assert_eq!(state(&b), Some(("probing", 1)));
    assert_eq!(hops(&b.frame(&arp(ArpOp::Reply, OTHER_MAC, PEER_IP, OUR_IP))), [(0, Some(OTHER_MAC))], "ARP has the last word");
}

#[test]
fn closed_flows_give_their_reference_back() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let (flow, s): (_, Box<FlowState>) = b.accept(&mut Peer::new(4000, 80));
    assert_eq!(b.engine.neighbours().next().map(|n| n.refs), Some(1));
    b.engine.flow_closed(flow, close_reason::RESET, &s, b.now, b.now);
    assert_eq!(b.engine.neighbours().next().map(|n| n.refs), Some(0));
    assert_eq!(b.engine.connection_count(), 0);
}

#[test]
fn table_is_bounded_and_the_idle_make_room() {
    let mut b = Bench::with(|c| c.next_hops = 2);
    b.listen(80, 50);
    let peer = |n: u8| Peer { ip: v4_mapped([10, 0, 0, n]), mac: [2, 0, 0, 0, 0, n], ..Peer::new(4000, 80) };
    for n in 10..200 {
        b.frame(&arp(ArpOp::Request, [2, 0, 0, 0, 0, n], [10, 0, 0, n], OUR_IP));
        assert!(b.engine.neighbours().count() <= 2);
    }
    b.accept(&mut peer(2));
    b.accept(&mut peer(3));
    let mut third = peer(4);
    third.take(&only_segment(&b.frame(&third.syn())));
    let actions = b.frame(&third.ack());
    assert!(only_segment(&actions).is(TcpFlags::RST), "every next hop is in use");
    assert_eq!(b.engine.counters().install_failed, 1);
    let err = b.engine.connect(1, None, Endpoint::v4([10, 0, 0, 5], 80), BUF, b.now).unwrap_err();
    assert_eq!((err, b.engine.connection_count()), (toe_engine::Errno::ENOBUFS, 2));
}

#[test]
fn router_outside_our_prefix_is_heard() {
    let mut b =
        Bench::with(|c| (c.addresses, c.gateways) = (vec![Prefix::new(v4_mapped(OUR_IP), 32).unwrap()], vec![v4_mapped([172, 16, 0, 1])]));
    b.engine.connect(1, None, Endpoint::v4([1, 1, 1, 1], 80), BUF, b.now).unwrap();
    let actions = b.actions();
    assert_eq!(arps(&actions)[0].1.target_ip, [172, 16, 0, 1]);
    assert_eq!(segments(&b.frame(&arp(ArpOp::Reply, PEER_MAC, [172, 16, 0, 1], OUR_IP))).len(), 1);
    // Others out there are not.
    assert!(b.frame(&arp(ArpOp::Request, PEER_MAC, [172, 16, 0, 2], OUR_IP)).is_empty());
}

/// Somebody tries addresses that do not exist, more than the card has next hops for; others still find theirs.
#[test]
fn addresses_that_do_not_answer_make_room_for_others() {
    // Four, and one for a router.
    let mut b = Bench::with(|c| c.next_hops = 5);
    let connect = |b: &mut Bench, last: u8| b.engine.connect(1, None, Endpoint::v4([10, 0, 0, last], 80), BUF, b.now).expect("room").0;
    let in_vain: Vec<_> = (100..104)
        .map(|last| {
            b.pass(10);
            connect(&mut b, last)
        })
        .collect();
    b.actions();
    let honest = connect(&mut b, PEER_IP[3]);
    let actions = b.actions();
    assert_eq!(failed(&actions), Some((in_vain[0], toe_engine::Errno::EHOSTUNREACH.0)), "the oldest goes");
    let actions = b.frame(&arp(ArpOp::Reply, PEER_MAC, PEER_IP, OUR_IP));
    assert_eq!(hops(&actions), [(0, Some(PEER_MAC))]);
    assert_eq!(segments(&actions).len(), 1, "its SYN");
    // Known ones and those in use stay.
    for last in 110..120 {
        connect(&mut b, last);
        b.actions();
    }
    assert!(b.engine.neighbours().any(|n| n.ip == v4_mapped(PEER_IP) && n.refs == 1));
    assert_eq!(b.engine.neighbours().count(), 4);
    b.engine.cancel(honest, b.now);
}

const ROUTER: [u8; 4] = [10, 0, 0, 254];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 254];

/// Of four next hops and a default router.
fn bench_with_router() -> Bench {
    Bench::with(|c| (c.next_hops, c.gateways) = (4, vec![v4_mapped(ROUTER)]))
}

fn on_link(n: u8) -> Peer {
    Peer { ip: v4_mapped([10, 0, 0, n]), mac: [2, 0, 0, 0, 0, n], ..Peer::new(4000, 80) }
}

/// However many peers on the link have connections, what is behind a router is still reached.
#[test]
fn hosts_leave_room_for_routers() {
    let mut b = bench_with_router();
    b.listen(80, 50);
    let accepted = (2..9).take_while(|n| {
        let mut peer = on_link(*n);
        peer.take(&only_segment(&b.frame(&peer.syn())));
        let actions = b.frame(&peer.ack());
        let is_installed = actions.iter().any(|a| matches!(a, Action::Install { .. }));
        if is_installed {
            b.installed(only_install(actions).0);
        }
        is_installed
    });
    assert_eq!(accepted.count(), 3);
    b.engine.connect(1, None, Endpoint::v4([1, 1, 1, 1], 80), BUF, b.now).expect("room for the router");
    assert_eq!(arps(&b.actions())[0].1.target_ip, ROUTER);
    assert_eq!(segments(&b.frame(&arp(ArpOp::Reply, ROUTER_MAC, ROUTER, OUR_IP))).len(), 1, "the SYN");
}

/// A router that nobody uses at the moment does not make room for strangers.
#[test]
fn routers_are_not_pushed_out() {
    let mut b = bench_with_router();
    b.frame(&arp(ArpOp::Request, ROUTER_MAC, ROUTER, OUR_IP));
    for n in 10..200 {
        b.pass(10);
        b.frame(&arp(ArpOp::Request, [2, 0, 0, 0, 0, n], [10, 0, 0, n], OUR_IP));
    }
    assert_eq!(b.engine.neighbours().count(), 4);
    b.engine.connect(1, None, Endpoint::v4([1, 1, 1, 1], 80), BUF, b.now).unwrap();
    let actions = b.actions();
    assert_eq!((arps(&actions).len(), only_segment(&actions).to), (0, ROUTER_MAC), "it is known");
}

/// Somebody beyond the router.
fn far(port: u16) -> Peer {
    Peer { ip: v4_mapped([192, 0, 2, 9]), mac: OTHER_MAC, ..Peer::new(port, 80) }
}

/// A balancer on the link passes on the SYN, and would drop our answer; a station takes another's address, and would read it.
/// RFC 1122, 3.3.1: the route says whom a packet goes to.
#[test]
fn answers_go_where_the_route_leads() {
    let mut b = bench_with_router();
    b.listen(80, 5);
    b.frame(&arp(ArpOp::Request, ROUTER_MAC, ROUTER, OUR_IP));
    let mut peer = far(4000);
    peer.take(&only_segment(&b.frame(&peer.syn())));
    let challenge = only_segment(&b.frame(&peer.rst(peer.seq.add(2))));
    b.pass(SEC / 2);
    let again = only_segment(&b.frame(&peer.syn()));
    assert_eq!([challenge.to, again.to], [ROUTER_MAC; 2]);
    let actions = b.frame(&peer.ack());
    assert_eq!(hops(&actions), [], "who passed the SYN on is not the router");
    let (conn, state) = only_install(actions);
    let (flow, _) = b.installed(conn);
    b.engine.flow_closed(flow, close_reason::TIME_WAIT, &state, b.now, b.now);
    assert_eq!(only_segment(&b.frame(&peer.data(0, TcpFlags::ACK, b"again"))).to, ROUTER_MAC, "in TIME-WAIT");

    b.know_peer();
    let spoof = Peer { mac: OTHER_MAC, ..Peer::new(4001, 80) };
    assert_eq!(only_segment(&b.frame(&spoof.syn())).to, PEER_MAC);
    let of_the_router = Peer { ip: v4_mapped(ROUTER), ..spoof };
    assert_eq!(only_segment(&b.frame(&of_the_router.syn())).to, ROUTER_MAC, "the router itself");
}

/// Else a client behind a balancer is not told that its port is closed, and one on the link hears of the connections of another.
#[test]
fn refusals_go_where_the_route_leads() {
    let mut b = bench_with_router();
    assert!(segments(&b.frame(&far(4000).syn())).is_empty(), "its router is asked first");
    b.frame(&arp(ArpOp::Reply, ROUTER_MAC, ROUTER, OUR_IP));
    assert_eq!(only_segment(&b.frame(&far(4000).syn())).to, ROUTER_MAC);
    b.know_peer();
    let spoof = Peer { mac: OTHER_MAC, ..Peer::new(4001, 80) };
    assert_eq!(only_segment(&b.frame(&spoof.syn())).to, PEER_MAC);
    let stranger = on_link(77);
    assert_eq!(only_segment(&b.frame(&stranger.syn())).to, stranger.mac, "nobody is asked for on the link");
    assert!(b.engine.neighbours().all(|n| n.ip != stranger.ip));
}

#[test]
fn cookies_go_where_the_route_leads() {
    let mut b = Bench::with(|c| (c.syn_cookies, c.gateways) = (SynCookies::Always, vec![v4_mapped(ROUTER)]));
    b.listen(80, 5);
    let mut peer = far(4000);
    let actions = b.frame(&peer.syn());
    assert_eq!((segments(&actions).len(), arps(&actions)[0].1.target_ip), (0, ROUTER));
    assert!(b.frame(&far(4001).syn()).is_empty(), "it is being asked");
    assert_eq!(b.engine.counters().answers_unresolved, 2);
    b.frame(&arp(ArpOp::Reply, ROUTER_MAC, ROUTER, OUR_IP));
    let cookie = only_segment(&b.frame(&peer.syn()));
    assert_eq!(cookie.to, ROUTER_MAC);
    peer.take(&cookie);
    // The router is forgotten meanwhile: the flow waits for it, and does not go by whoever passes its frames on.
    b.pass(31 * SEC);
    let actions = b.frame(&peer.ack());
    assert_eq!((hops(&actions), arps(&actions)[0].1.target_ip), (vec![], ROUTER));
    only_install(actions);
    assert_eq!(hops(&b.frame(&arp(ArpOp::Reply, ROUTER_MAC, ROUTER, OUR_IP))), [(0, Some(ROUTER_MAC))]);
}

/// The first connection after the start need not wait for a second SYN.
#[test]
fn an_answer_waits_for_its_router() {
    let mut b = bench_with_router();
    b.listen(80, 5);
    for port in [4000, 4001] {
        let actions = b.frame(&far(port).syn());
        assert_eq!((segments(&actions).len(), arps(&actions).len()), (0, usize::from(port == 4000)), "asked once");
    }
    b.pass(SEC / 10);
    b.frame(&far(4000).rst(far(4000).seq.add(1)));
    let actions = b.frame(&arp(ArpOp::Reply, ROUTER_MAC, ROUTER, OUR_IP));
    let syn_ack = only_segment(&actions);
    assert_eq!((syn_ack.to, syn_ack.tcp.dst_port), (ROUTER_MAC, 4001), "the other has gone");
    assert_eq!(b.engine.neighbours().map(|n| n.refs).sum::<u32>(), 0, "half-open connections hold nothing");
    assert!(b.frame(&arp(ArpOp::Reply, ROUTER_MAC, ROUTER, OUR_IP)).is_empty(), "answered once");
    let mut peer = far(4001);
    peer.take(&syn_ack);
    b.pass(1000);
    let (_, state) = only_install(b.frame(&peer.ack()));
    assert_eq!(state.tx.srtt_us, 1000, "the wait for the router is no part of the round trip");
}

/// Neither does a flood while the router is silent cost more than its half-open connections.
#[test]
fn answers_that_wait_for_a_silent_router_end_as_handshakes() {
    let mut b = bench_with_router();
    b.listen(80, 5);
    for port in 1000..2000 {
        b.frame(&far(port).syn());
    }
    assert_eq!((b.engine.neighbours().count(), b.engine.connection_count()), (1, 1000));
    let actions = b.pass(200 * SEC);
    assert_eq!((segments(&actions).len(), b.engine.connection_count(), b.engine.neighbours().count()), (0, 0, 0));
    assert!(arps(&actions).len() < 40, "{}", arps(&actions).len());
}
