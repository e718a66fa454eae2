//! IPv6: resolving and being resolved, duplicate addresses, connections both ways, dual-stack listeners, errors.

mod common;
use common::*;
use toe_abi::{
    app::bind_flags::V6ONLY,
    flow::{FlowKey, v4_mapped},
};
use toe_engine::{Action, Endpoint, Errno, Prefix};
use toe_wire::{
    SeqNum, TcpFlags, TcpOptions,
    ipv6::{UNSPECIFIED, is_link_local, solicited_node},
    nd::{Advertisement, Nd, Solicitation},
    parse_frame,
};

const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const TO_PEER: Endpoint = Endpoint { ip: PEER_IP6, port: 80 };

/// With an address that is asked for first, at its start.
fn tentative() -> (Bench, Vec<Action>) {
    let mut b = Bench::with(|c| {
        c.addresses.push(Prefix::new(OUR_IP6, 64).unwrap());
        c.dad_transmits = 1;
    });
    // `with` has drained what came first: begin again.
    let config = toe_engine::Config { addresses: vec![Prefix::new(OUR_IP6, 64).unwrap()], ..common::config() };
    b.engine = toe_engine::Engine::new(config, b.now).unwrap();
    let first = b.actions();
    (b, first)
}

fn announced(actions: &[Action]) -> Vec<([u8; 16], bool)> {
    actions.iter().filter_map(|a| if let Action::Address { ip, add, .. } = a { Some((*ip, *add)) } else { None }).collect()
}

fn state_of(b: &Bench, ip: [u8; 16]) -> Option<&'static str> {
    b.engine.addresses().find(|a| a.prefix.ip == ip).map(|a| a.state)
}

fn link_local(b: &Bench) -> [u8; 16] {
    b.engine.addresses().map(|a| a.prefix.ip).find(is_link_local).expect("there is one")
}

#[test]
fn an_address_is_used_when_nobody_else_has_it() {
    let (mut b, first) = tentative();
    let local = link_local(&b);
    let probes: Vec<_> = solicitations(&first);
    assert_eq!(probes, [OUR_IP6, local].map(|ip| ([0x33, 0x33, 0xff, ip[13], ip[14], ip[15]], Solicitation::probe(ip))));
    assert_eq!((announced(&first), state_of(&b, OUR_IP6)), (vec![], Some("tentative")));
    // Nobody may see it meanwhile.
    assert!(b.frame(&solicitation(PEER_MAC, &Solicitation::multicast(PEER_IP6, PEER_MAC, OUR_IP6))).is_empty());
    assert_eq!(b.engine.connect(1, None, TO_PEER, BUF, b.now).unwrap_err(), Errno::EADDRNOTAVAIL);
    assert!(b.pass(SEC - 1).is_empty());
    assert_eq!(announced(&b.pass(1)), [(OUR_IP6, true), (local, true)]);
    assert_eq!((state_of(&b, OUR_IP6), b.engine.next_deadline()), (Some("preferred"), None));
}

#[test]
fn an_address_that_somebody_has_is_not_used() {
    let answer = Advertisement { dst: toe_wire::ipv6::ALL_NODES, solicited: false, ..Solicitation::probe(OUR_IP6).reply(PEER_MAC) };
    for frame in [advertisement(PEER_MAC, &answer), solicitation(PEER_MAC, &Solicitation::probe(OUR_IP6))] {
        let (mut b, _) = tentative();
        assert_eq!(conflicts(&b.frame(&frame)), [(OUR_IP6, PEER_MAC)]);
        assert_eq!(state_of(&b, OUR_IP6), Some("duplicate"));
        let later = announced(&b.pass(10 * SEC));
        assert!(!later.contains(&(OUR_IP6, true)) && later.len() == 1, "only the link-local one: {later:?}");
        assert_eq!(b.engine.bind(1, Endpoint { ip: OUR_IP6, port: 80 }, 0).unwrap_err(), Errno::EADDRNOTAVAIL);
        assert!(b.frame(&solicitation(PEER_MAC, &Solicitation::multicast(PEER_IP6, PEER_MAC, OUR_IP6))).is_empty());
    }
}

/// RFC 4862, 5.4: who is asked over a dead link cannot answer.
#[test]
fn an_address_is_asked_for_when_the_link_is_up() {
    let (mut b, _) = tentative();
    let wanted = [OUR_IP6, link_local(&b)];
    b.engine.link(false, b.now);
    assert_eq!(solicitations(&b.pass(600 * SEC)), []);
    assert_eq!((state_of(&b, OUR_IP6), b.engine.next_deadline()), (Some("tentative"), None));
    b.engine.link(true, b.now);
    let probes: Vec<_> = solicitations(&b.actions()).into_iter().map(|(_, s)| s).collect();
    assert_eq!(probes, wanted.map(Solicitation::probe));
    assert_eq!(announced(&b.pass(SEC)), wanted.map(|ip| (ip, true)));
}

#[test]
fn a_link_that_goes_down_during_the_probes_makes_them_void() {
    let (mut b, _) = tentative();
    b.pass(SEC / 2);
    b.engine.link(false, b.now);
    b.engine.link(true, b.now);
    assert_eq!(solicitations(&b.actions()).len(), 2);
    assert_eq!(announced(&b.pass(SEC - 1)), []);
    let answer = Advertisement { dst: toe_wire::ipv6::ALL_NODES, solicited: false, ..Solicitation::probe(OUR_IP6).reply(PEER_MAC) };
    b.frame(&advertisement(PEER_MAC, &answer));
    assert_eq!(announced(&b.pass(1)), [(link_local(&b), true)]);
    assert_eq!(state_of(&b, OUR_IP6), Some("duplicate"));
}

#[test]
fn an_address_that_has_been_asked_for_stays_when_the_link_goes() {
    let (mut b, _) = tentative();
    b.pass(SEC);
    b.engine.link(false, b.now);
    b.engine.link(true, b.now);
    assert_eq!((solicitations(&b.actions()), state_of(&b, OUR_IP6)), (vec![], Some("preferred")));
}

#[test]
fn where_nobody_is_asked_addresses_do_not_wait_for_the_link() {
    let mut b = Bench::dual(|c| (c.slaac, c.addresses) = (true, vec![]));
    b.engine.link(false, b.now);
    // A frame on a link that is down just now, or still on its way up from the card.
    let ra = [&[134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0][..], &[0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 0, 0]].concat();
    let ra = [&ra[..], &[0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    b.frame(&icmpv6(PEER_MAC, [&[0xfe, 0x80][..], &[0; 13], &[9]].concat().try_into().unwrap(), toe_wire::ipv6::ALL_NODES, &ra));
    assert_eq!(b.engine.addresses().map(|a| a.state).collect::<Vec<_>>(), ["preferred"; 2]);
}

#[test]
fn our_own_probe_that_comes_back_is_nobodys() {
    let (mut b, first) = tentative();
    for action in first {
        if let Action::Transmit { frame } = action {
            b.frame(&frame);
        }
    }
    assert_eq!(announced(&b.pass(SEC)).len(), 2);
}

#[test]
fn another_link_local_address_is_tried_if_somebody_has_the_first() {
    let (mut b, _) = tentative();
    let mut tried = vec![link_local(&b)];
    for _ in 0..3 {
        let taken = tried[tried.len() - 1];
        let actions = b.frame(&solicitation(PEER_MAC, &Solicitation::probe(taken)));
        assert_eq!(solicitations(&actions).len(), 1, "the next is asked for");
        tried.push(link_local(&b));
    }
    let last = tried[3];
    b.frame(&solicitation(PEER_MAC, &Solicitation::probe(last)));
    assert_eq!(state_of(&b, last), Some("duplicate"), "and no more");
    assert_eq!(tried.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "all different");
}

#[test]
fn solicitations_are_answered_if_the_card_does_not() {
    for answers in [true, false] {
        let mut b = Bench::dual(|c| c.answer_arp = answers);
        let ask = Solicitation::multicast(PEER_IP6, PEER_MAC, OUR_IP6);
        let actions = b.frame(&solicitation(PEER_MAC, &ask));
        let replies: Vec<_> = nds(&actions);
        let wanted = (PEER_MAC, Nd::Advertisement(ask.reply(OUR_MAC)));
        assert_eq!(replies, if answers { vec![wanted] } else { vec![] });
        let n = b.engine.neighbours().next().expect("who asks for us will be talked to");
        assert_eq!((n.ip, n.mac, n.state), (PEER_IP6, Some(PEER_MAC), "stale"));
    }
}

#[test]
fn probes_for_our_address_are_answered_but_not_learned() {
    let mut b = Bench::dual(|_| {});
    let actions = b.frame(&solicitation(PEER_MAC, &Solicitation::probe(OUR_IP6)));
    let [(to, Nd::Advertisement(a))] = nds(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!((to, a.dst, a.solicited, a.target), ([0x33, 0x33, 0, 0, 0, 1], toe_wire::ipv6::ALL_NODES, false, OUR_IP6));
    assert_eq!(b.engine.neighbours().count(), 0);
}

#[test]
fn impossible_senders_are_ignored() {
    let mut b = Bench::dual(|_| {});
    let far: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for (mac, named, src) in
        [(PEER_MAC, [1, 0, 0, 0, 0, 9], PEER_IP6), (PEER_MAC, OUR_MAC, PEER_IP6), (PEER_MAC, PEER_MAC, far), (OUR_MAC, PEER_MAC, PEER_IP6)]
    {
        let ask = Solicitation { source_mac: Some(named), ..Solicitation::multicast(src, PEER_MAC, OUR_IP6) };
        assert!(b.frame(&solicitation(mac, &ask)).is_empty(), "{mac:?} {named:?} {src:?}");
    }
    let mut routed = solicitation(PEER_MAC, &Solicitation::multicast(PEER_IP6, PEER_MAC, OUR_IP6));
    routed[14 + 7] = 254;
    assert!(b.frame(&routed).is_empty(), "it came through a router");
    assert_eq!((b.engine.neighbours().count(), b.engine.counters().nd_ignored), (0, 5));
}

/// RFC 4862, 5.4.5.
#[test]
fn who_uses_an_address_of_ours_is_told() {
    let claims = [
        solicitation(PEER_MAC, &Solicitation::multicast(OUR_IP6, PEER_MAC, OUR_IP6)),
        advertisement(PEER_MAC, &Solicitation::unicast(OUR_IP6, OUR_MAC, OUR_IP6).reply(PEER_MAC)),
    ];
    for claim in claims {
        let mut b = Bench::dual(|_| {});
        let told = b.frame(&claim);
        assert_eq!((told.len(), conflicts(&told)), (1, vec![(OUR_IP6, PEER_MAC)]));
        assert!(b.frame(&claim).is_empty(), "not yet again");
        b.pass(10 * SEC);
        assert_eq!(b.frame(&claim).len(), 1);
        assert_eq!(b.engine.counters().nd_conflicts, 3);
    }
}

#[test]
fn a_connection_resolves_opens_and_is_installed() {
    let mut b = Bench::dual(|_| {});
    let (conn, local) = b.engine.connect(1, None, TO_PEER, BUF, b.now).unwrap();
    assert_eq!(local.ip, OUR_IP6);
    let actions = b.actions();
    assert_eq!(solicitations(&actions), [([0x33, 0x33, 0xff, 0, 0, 2], Solicitation::multicast(OUR_IP6, OUR_MAC, PEER_IP6))]);
    let syn = only_segment(&b.frame(&answer(PEER_MAC, PEER_IP6)));
    assert_eq!((syn.to, syn.ip.src, syn.ip.dst, syn.options.mss), (PEER_MAC, OUR_IP6, PEER_IP6, Some(1440)));
    let mut peer = Peer::v6(80, local.port);
    peer.take(&syn);
    let (c, state) = only_install(b.frame(&peer.syn_ack()));
    assert_eq!((c, state.id.key.remote_ip, state.id.ttl, state.rx.mss), (conn, PEER_IP6, 64, 1400 - 12));
}

/// RFC 8201 5.4-2; RFC 9293 MUST-15.
#[test]
fn a_peer_is_accepted_over_ipv6() {
    let mut b = Bench::dual(|_| {});
    b.listen(80, 5);
    let mut peer = Peer { syn_options: TcpOptions { mss: None, ..TcpOptions::default() }, ts: None, ..Peer::v6(4000, 80) };
    let (_, state) = b.accept(&mut peer);
    assert_eq!(state.id.key, FlowKey { local_ip: OUR_IP6, remote_ip: PEER_IP6, local_port: 80, remote_port: 4000 });
    assert_eq!(state.rx.mss, 1220, "RFC 8200, 8.3: what every path takes");
}

#[test]
fn a_neighbour_in_use_is_asked_alone_and_then_by_all() {
    let mut b = Bench::dual(|c| (c.arp_expire_us, c.arp_timeout_us, c.arp_timeout_max_us) = (30 * SEC, SEC, 8 * SEC));
    b.listen(80, 5);
    b.frame(&solicitation(PEER_MAC, &Solicitation::multicast(PEER_IP6, PEER_MAC, OUR_IP6)));
    b.accept(&mut Peer::v6(4000, 80));
    // What it has said of itself is confirmed as soon as it matters.
    b.frame(&answer(PEER_MAC, PEER_IP6));
    let to: Vec<_> = solicitations(&b.pass(60 * SEC)).into_iter().map(|(to, s)| (to, s.dst)).collect();
    let all = ([0x33, 0x33, 0xff, 0, 0, 2], solicited_node(&PEER_IP6));
    assert_eq!(to[..4], [(PEER_MAC, PEER_IP6), (PEER_MAC, PEER_IP6), (PEER_MAC, PEER_IP6), all]);
}

#[test]
fn advertisements_change_what_they_may() {
    let mut b = Bench::dual(|_| {});
    b.engine.connect(1, None, TO_PEER, BUF, b.now).unwrap();
    b.actions();
    let said = |solicited, overrides, mac| {
        let a =
            Advertisement { src: PEER_IP6, dst: OUR_IP6, target: PEER_IP6, target_mac: Some(mac), is_router: false, solicited, overrides };
        advertisement(mac, &a)
    };
    let now_is = |b: &Bench| b.engine.neighbours().next().map(|n| (n.mac, n.state)).unwrap();
    b.frame(&said(true, true, PEER_MAC));
    assert_eq!(now_is(&b), (Some(PEER_MAC), "reachable"));
    b.frame(&said(true, false, OTHER_MAC));
    assert_eq!(now_is(&b), (Some(PEER_MAC), "probing"), "not believed, but asked");
    b.frame(&said(false, true, OTHER_MAC));
    assert_eq!(now_is(&b), (Some(OTHER_MAC), "probing"), "believed, and asked");
    b.frame(&said(true, true, OTHER_MAC));
    assert_eq!(now_is(&b), (Some(OTHER_MAC), "reachable"));
    let others = advertisement(PEER_MAC, &Advertisement { target: [0xfd; 16], ..Solicitation::probe([0xfd; 16]).reply(PEER_MAC) });
    assert!(b.frame(&others).is_empty(), "nobody asked");
    assert_eq!(b.engine.neighbours().count(), 1);
}

#[test]
fn one_listener_serves_both_versions_unless_told_otherwise() {
    for (ip, flags, v4, v6) in [([0; 16], 0, true, true), ([0; 16], V6ONLY, false, true), (v4_mapped([0; 4]), 0, true, false)] {
        let mut b = Bench::dual(|_| {});
        let (bind, _) = b.engine.bind(1, Endpoint { ip, port: 80 }, flags).unwrap();
        b.engine.listen(bind, 5, BUF).unwrap();
        let opens = |b: &mut Bench, peer: &Peer| only_segment(&b.frame(&peer.syn())).is(TcpFlags::SYN | TcpFlags::ACK);
        assert_eq!((opens(&mut b, &Peer::modern(4000, 80)), opens(&mut b, &Peer::v6(4000, 80))), (v4, v6));
    }
}

#[test]
fn without_an_address_of_its_version_nothing_is_opened() {
    let mut b = Bench::new();
    assert_eq!(b.engine.connect(1, None, TO_PEER, BUF, b.now).unwrap_err(), Errno::EAFNOSUPPORT);
    let mut b = Bench::dual(|c| c.addresses.remove(0).len = 0);
    assert_eq!(b.engine.connect(1, None, Endpoint::v4(PEER_IP, 80), BUF, b.now).unwrap_err(), Errno::EAFNOSUPPORT);
    let mut b = Bench::dual(|_| {});
    let (bind, _) = b.engine.bind(1, Endpoint::v4(OUR_IP, 0), 0).unwrap();
    assert_eq!(b.engine.connect(1, Some(bind), TO_PEER, BUF, b.now).unwrap_err(), Errno::ENETUNREACH);
}

#[test]
fn a_static_router_is_asked_for_what_is_far() {
    let router = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe];
    let far = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut b = Bench::dual(|c| c.gateways = vec![router]);
    b.engine.connect(1, None, Endpoint { ip: far, port: 80 }, BUF, b.now).unwrap();
    let actions = b.actions();
    let [(_, ask)] = solicitations(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!((ask.target, ask.src), (router, link_local(&b)), "from the address of its scope");
    let syn = only_segment(&b.frame(&answer(PEER_MAC, router)));
    assert_eq!((syn.to, syn.ip.dst, syn.ip.src), (PEER_MAC, far, OUR_IP6));
}

/// An error about the segment with sequence number `seq` that we sent from `port` to the peer's port 4000.
fn error(kind: u8, code: u8, word: u32, port: u16, seq: SeqNum) -> Vec<u8> {
    let quoted = [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &OUR_IP6, &PEER_IP6].concat();
    let tcp = [port.to_be_bytes(), 4000u16.to_be_bytes()].concat();
    let m = [&[kind, code, 0, 0][..], &word.to_be_bytes(), &quoted, &tcp, &seq.0.to_be_bytes()].concat();
    icmpv6(PEER_MAC, PEER_IP6, OUR_IP6, &m)
}

/// RFC 8201 4-2.
#[test]
fn packet_too_big_goes_to_the_card_in_the_words_of_icmp() {
    let mut b = Bench::dual(|_| {});
    b.listen(80, 5);
    let (flow, _) = b.accept(&mut Peer::v6(4000, 80));
    for nonsense in [0, 1279] {
        assert!(b.frame(&error(2, 0, nonsense, 80, SeqNum(1234))).is_empty());
    }
    for (said, told) in [(1400, 1400), (1280, 1280), (u32::MAX, 65_535)] {
        let actions = b.frame(&error(2, 0, said, 80, SeqNum(1234)));
        let [Action::IcmpError { flow: f, kind: 0x304, mtu, seq: 1234 }, Action::QueryFlow { .. }] = actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!((f, mtu), (flow, told));
    }
}

#[test]
fn errors_end_an_open_that_they_are_about() {
    for (kind, code, errno) in [
        (1, 0, Errno::ENETUNREACH),
        (1, 3, Errno::EHOSTUNREACH),
        (1, 4, Errno::ECONNREFUSED),
        (3, 0, Errno::EHOSTUNREACH),
        (4, 1, Errno::ENOPROTOOPT),
    ] {
        let mut b = Bench::dual(|_| {});
        let (conn, local) = b.engine.connect(1, None, Endpoint { port: 4000, ..TO_PEER }, BUF, b.now).unwrap();
        b.actions();
        let iss = only_segment(&b.frame(&answer(PEER_MAC, PEER_IP6))).tcp.seq;
        assert!(b.frame(&error(kind, code, 0, local.port, iss.add(9))).is_empty(), "of another SYN");
        assert!(b.frame(&error(2, 0, 1280, local.port, iss)).is_empty(), "a SYN is never too big");
        assert_eq!(failed(&b.frame(&error(kind, code, 0, local.port, iss))), Some((conn, errno.0)));
    }
}

#[test]
fn echo_and_unserved_datagrams_are_answered() {
    let mut b = Bench::dual(|_| {});
    let actions = b.frame(&icmpv6(PEER_MAC, PEER_IP6, OUR_IP6, &[128, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]));
    let [Action::Transmit { frame }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(frame[54..], {
        let mut m = vec![129, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7];
        m[2..4].copy_from_slice(&frame[56..58]);
        m
    });
    let udp =
        [&OUR_MAC[..], &PEER_MAC, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64], &PEER_IP6, &OUR_IP6, &[1, 2, 3, 4, 0, 8, 0, 0]].concat();
    let actions = b.frame(&udp);
    let [Action::Transmit { frame }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((&frame[54..56], &frame[62..]), (&[1, 4][..], &udp[14..]));
    // Never to a group, and never to what is no host.
    for (src, dst) in [(UNSPECIFIED, OUR_IP6), (PEER_IP6, toe_wire::ipv6::ALL_NODES), ([0xff; 16], OUR_IP6), (OUR_IP6, OUR_IP6)] {
        assert!(b.frame(&icmpv6(PEER_MAC, src, dst, &[128, 0, 0, 0, 1, 2, 3, 4])).is_empty(), "{src:?}");
    }
}

#[test]
fn on_a_vlan_everything_is_tagged_and_nothing_else_is_heard() {
    let mut b = Bench::dual(|c| c.vlan = 7);
    b.listen(80, 5);
    let syn = Peer::v6(4000, 80).syn();
    let tagged = |tag: u16| [&syn[..12], &[0x81, 0], &tag.to_be_bytes(), &syn[12..]].concat();
    for other in [syn.clone(), tagged(0), tagged(8)] {
        assert!(b.frame(&other).is_empty());
    }
    let actions = b.frame(&tagged(0xe007));
    let [Action::Transmit { frame }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(parse_frame(frame).unwrap().eth.vlan, Some(7));
    let mut peer = Peer::v6(4000, 80);
    peer.take(&only_segment(&actions));
    let ack = peer.ack();
    let (_, state) = only_install(b.frame(&[&ack[..12], &[0x81, 0, 0, 7], &ack[12..]].concat()));
    assert_eq!(state.id.vlan, 7);
    b.engine.connect(1, None, Endpoint::v4(PEER_IP, 80), BUF, b.now).unwrap();
    let tags: Vec<_> = b
        .actions()
        .iter()
        .filter_map(|a| if let Action::Transmit { frame } = a { Some(parse_frame(frame).unwrap().eth.vlan) } else { None })
        .collect();
    assert_eq!(tags, [Some(7)], "ARP too");
}
