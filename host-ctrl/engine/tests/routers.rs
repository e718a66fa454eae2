//! Router advertisements: what is taken of them, for how long, and what hostile ones cannot do.

mod common;
use common::*;
use proptest::prelude::*;
use toe_engine::{Action, Endpoint, Errno, Prefix};
use toe_wire::{
    ipv6::{ALL_NODES, is_link_local},
    nd::{Advertisement, Nd, Solicitation},
};

const ROUTER: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const NET: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const FAR: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const HOUR: u32 = 3600;

/// What a router says; by default that it is one, for half an hour.
#[derive(Clone, Debug)]
struct Ra {
    from: [u8; 16],
    hop_limit: u8,
    flags: u8,
    lifetime_s: u16,
    mtu: Option<u32>,
    prefixes: Vec<Advertised>,
}

/// prefix, length, on-link, autonomous, valid, preferred.
type Advertised = ([u8; 16], u8, bool, bool, u32, u32);

impl Ra {
    fn new() -> Self {
        Self { from: ROUTER, hop_limit: 0, flags: 0, lifetime_s: 1800, mtu: None, prefixes: vec![] }
    }

    fn net(valid_s: u32, preferred_s: u32) -> Self {
        Self { prefixes: vec![(NET, 64, true, true, valid_s, preferred_s)], ..Self::new() }
    }

    fn frame(&self) -> Vec<u8> {
        let [l0, l1] = self.lifetime_s.to_be_bytes();
        let mut m = vec![134, 0, 0, 0, self.hop_limit, self.flags, l0, l1, 0, 0, 0, 0, 0, 0, 0, 0];
        m.extend([&[1, 1][..], &ROUTER_MAC].concat());
        if let Some(mtu) = self.mtu {
            m.extend([&[5, 1, 0, 0][..], &mtu.to_be_bytes()].concat());
        }
        for (prefix, len, on_link, autonomous, valid, preferred) in &self.prefixes {
            let flags = u8::from(*on_link) << 7 | u8::from(*autonomous) << 6;
            m.extend([&[3, 4, *len, flags][..], &valid.to_be_bytes(), &preferred.to_be_bytes(), &[0; 4], prefix].concat());
        }
        icmpv6(ROUTER_MAC, self.from, ALL_NODES, &m)
    }
}

/// Listens to routers; its link-local address has nobody else.
fn bench() -> Bench {
    let mut b = Bench::with(|c| (c.addresses, c.slaac) = (vec![], true));
    b.pass(SEC);
    b
}

fn global(b: &Bench) -> Vec<([u8; 16], &'static str)> {
    b.engine.addresses().filter(|a| !is_link_local(&a.prefix.ip)).map(|a| (a.prefix.ip, a.state)).collect()
}

fn connects(b: &mut Bench) -> Result<(), Errno> {
    let opened = b.engine.connect(1, None, Endpoint { ip: FAR, port: 80 }, BUF, b.now);
    b.actions();
    opened.map(|(conn, _)| {
        b.engine.cancel(conn, b.now);
        b.actions();
    })
}

/// RFC 7559, 2.
#[test]
fn routers_are_asked_ever_less_often_until_one_answers() {
    let asked = |actions: &[Action]| nds(actions).iter().filter(|(_, m)| *m == Nd::RouterSolicitation).count();
    let mut b = Bench::with(|c| (c.addresses, c.slaac) = (vec![], true));
    assert_eq!(asked(&b.pass(SEC)), 1, "as soon as there is an address to ask from");
    // 4, 12, 28, 60, 124 and 252 seconds after the first.
    assert_eq!(asked(&b.pass(300 * SEC)), 6);
    assert!((23..=26).contains(&asked(&b.pass(86_400 * SEC))), "once an hour in the end");
    b.frame(&Ra::new().frame());
    assert_eq!(asked(&b.pass(3600 * SEC)), 0);
    let mut b = bench();
    b.frame(&Ra::new().frame());
    assert_eq!(asked(&b.pass(60 * SEC)), 0);
}

/// RFC 4861, 6.3.7; RFC 4862, 5.3.
#[test]
fn when_the_link_comes_back_groups_are_told_and_routers_asked() {
    let mut b = bench();
    b.frame(&Ra::new().frame());
    b.pass(60 * SEC);
    let reports = b.engine.counters().mld_reports_sent;
    b.engine.link(false, b.now);
    b.engine.link(true, b.now);
    assert_eq!(b.engine.counters().mld_reports_sent, reports + 1);
    let actions = b.actions();
    assert!(nds(&actions).iter().any(|(_, m)| *m == Nd::RouterSolicitation), "{actions:?}");
    b.frame(&Ra::new().frame());
    assert_eq!(solicitations(&b.pass(SEC)), []);
    b.engine.link(true, b.now);
    assert!(b.actions().is_empty(), "it has been up all the time");
}

#[test]
fn an_advertised_prefix_gives_an_address_and_a_way_out() {
    let mut b = bench();
    assert_eq!(connects(&mut b), Err(Errno::ENETUNREACH));
    let actions = b.frame(&Ra { mtu: Some(1400), hop_limit: 99, ..Ra::net(4 * HOUR, HOUR) }.frame());
    let [(made, "tentative")] = global(&b)[..] else { panic!("{actions:?}") };
    assert_eq!((&made[..8], solicitations(&actions)[0].1), (&NET[..8], Solicitation::probe(made)));
    let actions = b.pass(SEC);
    // And its group, to switches that look.
    assert!(matches!(actions[..], [Action::Address { ip, prefix: 64, add: true }, Action::Transmit { .. }] if ip == made), "{actions:?}");
    let (_, local) = b.engine.connect(1, None, Endpoint { ip: FAR, port: 80 }, BUF, b.now).unwrap();
    assert_eq!(local.ip, made);
    let actions = b.actions();
    assert_eq!(solicitations(&actions)[0].1.target, ROUTER);
    let actions = b.frame(&answer(ROUTER_MAC, ROUTER));
    let Action::Transmit { frame } = &actions[1] else { panic!("{actions:?}") };
    let parsed = toe_wire::parse_frame(frame).unwrap();
    let (ip, _) = parsed.tcp().unwrap();
    assert_eq!((parsed.eth.dst, ip.dst, ip.ttl, parsed.tcp_options(frame).mss), (ROUTER_MAC, FAR, 99, Some(1340)));
}

#[test]
fn the_number_of_an_address_stays_but_tells_nothing() {
    let made = |secret: u8, net: u8| {
        let mut b = Bench::with(|c| (c.addresses, c.slaac, c.stable_secret) = (vec![], true, [secret; 16]));
        b.pass(SEC);
        let mut ra = Ra::net(HOUR, HOUR);
        ra.prefixes[0].0[7] = net;
        b.frame(&ra.frame());
        <[u8; 8]>::try_from(&global(&b)[0].0[8..]).unwrap()
    };
    assert_eq!(made(1, 1), made(1, 1));
    assert_ne!(made(1, 1), made(2, 1));
    assert_ne!(made(1, 1), made(1, 2), "another network cannot recognise it");
    assert_ne!(made(1, 1)[3..5], [0xff, 0xfe], "it is not the MAC address");
}

#[test]
fn another_number_is_tried_if_somebody_has_the_address() {
    let mut b = bench();
    b.frame(&Ra::net(HOUR, HOUR).frame());
    let (first, _) = global(&b)[0];
    b.frame(&solicitation(PEER_MAC, &Solicitation::probe(first)));
    let [(second, "tentative")] = global(&b)[..] else { panic!() };
    assert_ne!(first, second);
    b.frame(&Ra::net(HOUR, HOUR).frame());
    assert_eq!(global(&b).len(), 1, "the next advertisement does not bring the first back");
}

#[test]
fn addresses_age_and_go() {
    let mut b = bench();
    b.frame(&Ra { lifetime_s: 0, ..Ra::net(100, 50) }.frame());
    b.pass(SEC);
    let (made, _) = global(&b)[0];
    b.pass(50 * SEC);
    assert_eq!(global(&b), [(made, "deprecated")]);
    b.frame(&Ra::net(100, 50).frame());
    assert_eq!(global(&b), [(made, "preferred")], "refreshed");
    let actions = b.pass(101 * SEC);
    assert!(actions.iter().any(|a| matches!(a, Action::Address { ip, add: false, .. } if *ip == made)), "{actions:?}");
    assert_eq!(global(&b), []);
}

/// RFC 4862, 5.5.4. Found by the fuzzer.
#[test]
fn a_handshake_ends_with_its_address() {
    let mut b = bench();
    b.frame(&Ra::net(100, 100).frame());
    b.pass(SEC);
    let (made, _) = global(&b)[0];
    b.pass(90 * SEC);
    let (opened, _) = b.engine.connect(1, None, Endpoint { ip: FAR, port: 80 }, BUF, b.now).unwrap();
    b.actions();
    let is_syn = |a: &Action| matches!(a, Action::Transmit { frame } if toe_wire::parse_frame(frame).unwrap().tcp().is_some_and(|(ip, _)| ip.src == made));
    let syns = |actions: &[Action]| actions.iter().filter(|a| is_syn(a)).count();
    assert_eq!(syns(&b.frame(&answer(ROUTER_MAC, ROUTER))), 1);
    let actions = b.pass(60 * SEC);
    let gone = actions.iter().position(|a| matches!(a, Action::Address { add: false, .. })).expect("its time is over");
    let (before, after) = actions.split_at(gone);
    assert_eq!((syns(before), syns(after)), (3, 0), "after 1, 3 and 7 seconds, not after 15");
    assert_eq!(failed(&actions), Some((opened, Errno::EADDRNOTAVAIL.0)));
}

#[test]
fn a_router_that_resigns_or_is_none_is_not_used() {
    let mut b = bench();
    b.frame(&Ra::net(HOUR, HOUR).frame());
    b.pass(SEC);
    assert_eq!(connects(&mut b), Ok(()));
    b.frame(&Ra { lifetime_s: 0, ..Ra::new() }.frame());
    assert_eq!(connects(&mut b), Err(Errno::ENETUNREACH));
    b.frame(&Ra::new().frame());
    b.engine.connect(1, None, Endpoint { ip: FAR, port: 80 }, BUF, b.now).unwrap();
    b.actions();
    let a = Solicitation::unicast(link_local(&b), OUR_MAC, ROUTER).reply(ROUTER_MAC);
    b.frame(&advertisement(ROUTER_MAC, &Advertisement { is_router: true, ..a }));
    assert_eq!(connects(&mut b), Ok(()));
    b.frame(&advertisement(ROUTER_MAC, &Advertisement { is_router: false, ..a }));
    assert_eq!(connects(&mut b), Err(Errno::ENETUNREACH), "RFC 4861, 7.2.5: a host by now");
    b.frame(&Ra::new().frame());
    b.pass(1800 * SEC);
    assert_eq!(connects(&mut b), Err(Errno::ENETUNREACH), "its time is over");
}

/// RFC 4861, 7.2.5: what is not to override and names another station changes nothing else either.
#[test]
fn somebody_else_s_answer_does_not_make_a_router_a_host() {
    let mut b = bench();
    b.frame(&Ra::net(HOUR, HOUR).frame());
    b.pass(SEC);
    b.engine.connect(1, None, Endpoint { ip: FAR, port: 80 }, BUF, b.now).unwrap();
    b.actions();
    let a = Advertisement { is_router: true, ..Solicitation::unicast(link_local(&b), OUR_MAC, ROUTER).reply(ROUTER_MAC) };
    b.frame(&advertisement(ROUTER_MAC, &a));
    let other = Advertisement { is_router: false, overrides: false, target_mac: Some(PEER_MAC), ..a };
    b.frame(&advertisement(PEER_MAC, &other));
    assert_eq!(connects(&mut b), Ok(()));
}

/// RFC 4861, 6.3.4: zero says nothing.
#[test]
fn a_router_that_says_no_hop_limit_leaves_it() {
    let mut b = bench();
    b.frame(&Ra { hop_limit: 99, ..Ra::net(HOUR, HOUR) }.frame());
    b.frame(&Ra { hop_limit: 0, ..Ra::new() }.frame());
    b.pass(SEC);
    b.engine.connect(1, None, Endpoint { ip: FAR, port: 80 }, BUF, b.now).unwrap();
    b.actions();
    let actions = b.frame(&answer(ROUTER_MAC, ROUTER));
    let Action::Transmit { frame } = &actions[1] else { panic!("{actions:?}") };
    assert_eq!(toe_wire::parse_frame(frame).unwrap().tcp().unwrap().0.ttl, 99);
}

#[test]
fn nothing_is_longer_than_the_link_takes() {
    let mut b = bench();
    b.frame(&Ra { mtu: Some(1280), ..Ra::net(HOUR, HOUR) }.frame());
    b.pass(SEC);
    let ours = link_local(&b);
    let echo = |data| icmpv6(ROUTER_MAC, ROUTER, ours, &[&[128, 0, 0, 0, 1, 2, 3, 4][..], &vec![5; data]].concat());
    assert_eq!(b.frame(&echo(1232)).len(), 1);
    assert!(b.frame(&echo(1233)).is_empty());
}

fn link_local(b: &Bench) -> [u8; 16] {
    b.engine.addresses().map(|a| a.prefix.ip).find(is_link_local).unwrap()
}

/// The usual one, and another.
fn with_two_routers() -> (Bench, [u8; 16]) {
    let mut b = bench();
    let mut second = ROUTER;
    second[15] = 0xfd;
    b.frame(&Ra::net(HOUR, HOUR).frame());
    b.frame(&Ra { from: second, ..Ra::new() }.frame());
    b.pass(SEC);
    (b, second)
}

#[test]
fn of_several_routers_one_that_answers_is_used() {
    let (mut b, second) = with_two_routers();
    let asked = |b: &mut Bench| {
        b.engine.connect(1, None, Endpoint { ip: FAR, port: 80 }, BUF, b.now).unwrap();
        solicitations(&b.actions()).first().map(|(_, s)| s.target)
    };
    assert_eq!(asked(&mut b), Some(ROUTER));
    assert_eq!(asked(&mut b), None, "it has been asked already");
    b.pass(SEC / 2);
    assert_eq!(asked(&mut b), Some(second), "the first has not answered");
}

/// RFC 4861, 6.3.6: in turns, if none is known to answer.
#[test]
fn of_several_routers_the_next_is_tried_when_one_has_failed() {
    let (mut b, second) = with_two_routers();
    for router in [ROUTER, second, ROUTER] {
        let (conn, _) = b.engine.connect(1, None, Endpoint { ip: FAR, port: 80 }, BUF, b.now).unwrap();
        assert_eq!(solicitations(&b.actions())[0].1.target, router);
        assert_eq!(failed(&b.pass(10 * SEC)), Some((conn, Errno::EHOSTUNREACH.0)));
    }
}

/// RFC 4191, 3.2.
#[test]
fn a_router_that_ranks_higher_is_used_and_the_operator_s_before_it() {
    let asked_of = |b: &mut Bench| {
        b.engine.connect(1, None, Endpoint { ip: FAR, port: 80 }, BUF, b.now).unwrap();
        asked(&b.actions())
    };
    for (flags, wanted) in [(0x08, 0xfd), (0, 0xfe), (0x10, 0xfe), (0x18, 0xfe)] {
        let (mut b, second) = with_two_routers();
        b.frame(&Ra { from: second, flags, ..Ra::new() }.frame());
        assert_eq!(asked_of(&mut b)[0][15], wanted, "{flags:#x}");
    }
    let mut b = Bench::dual(|c| (c.slaac, c.gateways) = (true, vec![ROUTER]));
    let second = [&ROUTER[..15], &[0xfd]].concat().try_into().unwrap();
    b.frame(&Ra { from: second, flags: 0x08, ..Ra::new() }.frame());
    assert_eq!(asked_of(&mut b), [ROUTER]);
}

#[test]
fn the_operator_s_first_router_is_used_again_after_an_outage() {
    let second: [u8; 16] = [&ROUTER[..15], &[0xfd]].concat().try_into().unwrap();
    let mut b = Bench::dual(|c| c.gateways = vec![ROUTER, second]);
    let connect = |b: &mut Bench| {
        b.engine.connect(1, None, Endpoint { ip: FAR, port: 80 }, BUF, b.now).unwrap();
        b.actions()
    };
    assert_eq!(asked(&connect(&mut b)), [ROUTER]);
    b.pass(SEC * 5);
    assert_eq!(asked(&connect(&mut b)), [second]);
    let is_to = |actions: &[Action], mac: [u8; 6]| {
        let frames = actions.iter().filter_map(|a| if let Action::Transmit { frame } = a { Some(frame) } else { None });
        frames.filter(|f| toe_wire::parse_frame(f).unwrap().tcp().is_some()).all(|f| f[..6] == mac)
    };
    b.frame(&router_answers(PEER_MAC, second));
    assert!(is_to(&connect(&mut b), PEER_MAC));
    b.pass(SEC * 60);
    // Whoever begins next has it looked for, and does not wait.
    let actions = connect(&mut b);
    assert!(asked(&actions).contains(&ROUTER) && is_to(&actions, PEER_MAC), "{actions:?}");
    assert!(!asked(&connect(&mut b)).contains(&ROUTER), "not at once again");
    b.frame(&router_answers(ROUTER_MAC, ROUTER));
    let actions = connect(&mut b);
    assert!(is_to(&actions, ROUTER_MAC) && !actions.is_empty(), "{actions:?}");
}

/// A connection through the first of two routers, whose entry in the card is the first.
fn through_the_first() -> (Bench, [u8; 16]) {
    let mut b = Bench::dual(|c| c.slaac = true);
    let second = [&ROUTER[..15], &[0xfd]].concat().try_into().unwrap();
    for from in [ROUTER, second] {
        b.frame(&Ra { from, ..Ra::new() }.frame());
    }
    b.listen(80, 5);
    b.frame(&solicitation(ROUTER_MAC, &Solicitation::multicast(ROUTER, ROUTER_MAC, OUR_IP6)));
    b.accept(&mut Peer { ip: FAR, mac: ROUTER_MAC, ..Peer::v6(4000, 80) });
    b.frame(&router_answers(ROUTER_MAC, ROUTER));
    (b, second)
}

fn router_answers(mac: [u8; 6], ip: [u8; 16]) -> Vec<u8> {
    advertisement(mac, &Advertisement { is_router: true, ..Solicitation::unicast(OUR_IP6, OUR_MAC, ip).reply(mac) })
}

fn asked(actions: &[Action]) -> Vec<[u8; 16]> {
    solicitations(actions).iter().map(|(_, s)| s.target).collect()
}

/// RFC 4861, 7.3.3.
#[test]
fn a_connection_leaves_a_router_that_has_died() {
    let (mut b, second) = through_the_first();
    assert!(asked(&b.pass(60 * SEC)).contains(&second));
    assert_eq!(hops(&b.frame(&router_answers(PEER_MAC, second))), [(1, Some(PEER_MAC)), (0, Some(PEER_MAC))]);
    assert_eq!(hops(&b.frame(&router_answers(ROUTER_MAC, ROUTER))), [(0, Some(ROUTER_MAC))]);
}

/// RFC 4861, 6.3.5: as radvd does that is stopped, and a machine that no longer forwards.
#[test]
fn a_connection_leaves_a_router_that_resigns() {
    for resigns in [Ra { lifetime_s: 0, ..Ra::new() }.frame(), answer(ROUTER_MAC, ROUTER)] {
        let (mut b, second) = through_the_first();
        let actions = b.frame(&resigns);
        assert_eq!((asked(&actions), hops(&actions)), (vec![second], vec![]), "it is used until the other has answered");
        assert_eq!(hops(&b.frame(&router_answers(PEER_MAC, second))), [(1, Some(PEER_MAC)), (0, Some(PEER_MAC))]);
        assert_eq!(hops(&b.frame(&answer(ROUTER_MAC, ROUTER))), [], "it answers, but is none");
        assert_eq!(hops(&b.frame(&Ra::new().frame())), [(0, Some(ROUTER_MAC))], "it is one again");
    }
}

#[test]
fn the_last_router_is_used_though_it_has_resigned() {
    let (mut b, second) = through_the_first();
    b.frame(&Ra { lifetime_s: 0, from: second, ..Ra::new() }.frame());
    let actions = b.frame(&Ra { lifetime_s: 0, ..Ra::new() }.frame());
    assert_eq!((asked(&actions), hops(&actions)), (vec![], vec![]));
    let actions = b.frame(&Ra { from: second, ..Ra::new() }.frame());
    assert_eq!(asked(&actions), [second], "one that comes is used");
}

/// Those of them that are alive answer, for so long, or until the card has no way to `until`; what the card was told meanwhile.
fn pass(b: &mut Bench, alive: &[([u8; 6], [u8; 16])], us: u64, until: Option<u16>) -> Vec<(u16, Option<[u8; 6]>)> {
    let (end, mut told) = (b.now + us, Vec::<(u16, Option<[u8; 6]>)>::new());
    while b.now < end && !told.iter().any(|(index, mac)| Some(*index) == until && mac.is_none()) {
        let mut actions = b.pass(SEC / 100);
        while !actions.is_empty() {
            told.extend(hops(&actions));
            let asked = asked(&actions);
            let answers = alive.iter().filter(|(_, ip)| asked.contains(ip));
            actions = answers.flat_map(|(mac, ip)| b.frame(&router_answers(*mac, *ip))).collect();
        }
    }
    told
}

#[test]
fn a_router_that_was_silent_when_another_resigned_takes_over_once_it_answers() {
    let (mut b, second) = through_the_first();
    b.frame(&Ra { lifetime_s: 0, ..Ra::new() }.frame());
    // The other is being started anew, say.
    pass(&mut b, &[(ROUTER_MAC, ROUTER)], 100 * SEC, None);
    let told = pass(&mut b, &[(ROUTER_MAC, ROUTER), (PEER_MAC, second)], 40 * SEC, None);
    assert_eq!(told.last(), Some(&(0, Some(PEER_MAC))), "within --arp-expire");
}

#[test]
fn a_connection_leaves_a_stand_in_that_resigns_and_falls_silent() {
    let third = [&ROUTER[..15], &[0xfc]].concat().try_into().unwrap();
    let third_mac = [2, 0, 0, 0, 0, 0xfc];
    // The second of three routers stands in for the first, and has just died.
    let dying = || {
        let (mut b, second) = through_the_first();
        b.frame(&Ra { from: third, ..Ra::new() }.frame());
        let told = pass(&mut b, &[(PEER_MAC, second), (third_mac, third)], 60 * SEC, None);
        assert_eq!(told.last(), Some(&(0, Some(PEER_MAC))));
        (b, second)
    };
    let alive = [(third_mac, third)];
    let (mut b, _) = dying();
    let begun = b.now;
    pass(&mut b, &alive, 60 * SEC, Some(1));
    let known_after = b.now - begun;
    // Its last word, right before its death is known.
    let (mut b, second) = dying();
    pass(&mut b, &alive, known_after - SEC / 50, None);
    let none_any_more =
        Advertisement { is_router: false, solicited: false, ..Solicitation::unicast(OUR_IP6, OUR_MAC, second).reply(PEER_MAC) };
    b.frame(&advertisement(PEER_MAC, &none_any_more));
    b.frame(&router_answers(third_mac, third));
    let told = pass(&mut b, &alive, 30 * SEC, None);
    assert_eq!(told.iter().rfind(|(index, _)| *index == 0), Some(&(0, Some(third_mac))), "{told:?}");
}

#[test]
fn who_waits_for_a_router_whose_time_ends_goes_on_waiting() {
    let mut b = Bench::dual(|c| (c.slaac, c.next_hops) = (true, 2));
    let second = [&ROUTER[..15], &[0xfd]].concat().try_into().unwrap();
    b.frame(&Ra { lifetime_s: 1, ..Ra::new() }.frame());
    b.frame(&Ra { from: second, ..Ra::new() }.frame());
    // The other of two places in the card's table is that of a neighbour with a connection.
    b.listen(80, 5);
    b.accept(&mut Peer::v6(4000, 80));
    b.engine.connect(1, None, Endpoint { ip: FAR, port: 80 }, BUF, b.now).unwrap();
    assert_eq!(failed(&b.pass(SEC)), None);
    assert_eq!(segments(&b.frame(&router_answers(ROUTER_MAC, ROUTER))).len(), 1, "its SYN");
}

/// Its own addresses are not to be had through another, link-local ones least of all.
#[test]
fn a_connection_with_a_router_itself_stays_with_it() {
    let (mut b, second) = through_the_first();
    b.accept(&mut Peer { ip: ROUTER, mac: ROUTER_MAC, ..Peer::v6(4001, 80) });
    assert_eq!(hops(&b.frame(&router_answers(ROUTER_MAC, ROUTER))), []);
    let moved = [2, 0, 0, 0, 9, 9];
    assert_eq!(hops(&b.frame(&router_answers(moved, ROUTER))), [(0, Some(moved)), (1, Some(moved))]);
    b.frame(&Ra { lifetime_s: 0, ..Ra::new() }.frame());
    let told = hops(&b.frame(&router_answers(PEER_MAC, second)));
    assert_eq!(told, [(2, Some(PEER_MAC)), (0, Some(PEER_MAC))]);
}

#[test]
fn nothing_is_taken_unless_the_operator_says_so() {
    let mut b = Bench::dual(|_| {});
    assert!(b.frame(&Ra { mtu: Some(1280), ..Ra::net(HOUR, HOUR) }.frame()).is_empty());
    assert_eq!((global(&b).len(), b.engine.counters().router_advertisements, connects(&mut b)), (2, 0, Err(Errno::ENETUNREACH)));
}

#[test]
fn what_makes_no_sense_is_not_taken() {
    let mapped = toe_abi::flow::v4_mapped([10, 0, 0, 0]);
    let group = [0xff; 16];
    for (prefix, why) in [
        ((NET, 63, false, true, HOUR, HOUR), "no room for a number of ours"),
        ((NET, 65, false, true, HOUR, HOUR), "too little room"),
        ((NET, 129, true, true, HOUR, HOUR), "no such prefix"),
        ((NET, 64, false, true, HOUR, HOUR + 1), "preferred beyond its life"),
        ((NET, 64, false, true, 0, 0), "over at once"),
        ((NET, 64, false, false, HOUR, HOUR), "not for hosts to choose"),
        ((ROUTER, 64, true, true, HOUR, HOUR), "link-local"),
        ((mapped, 64, true, true, HOUR, HOUR), "IPv4"),
        ((group, 64, true, true, HOUR, HOUR), "multicast"),
    ] {
        let mut b = bench();
        let routes = b.engine.routes().count();
        b.frame(&Ra { lifetime_s: 0, prefixes: vec![prefix], ..Ra::new() }.frame());
        assert_eq!((global(&b).len(), b.engine.routes().count()), (0, routes), "{why}");
    }
    for mtu in [0, 100, 1279, 1501, 65_536, u32::MAX] {
        let mut b = bench();
        b.frame(&Ra { mtu: Some(mtu), ..Ra::net(HOUR, HOUR) }.frame());
        b.pass(SEC);
        b.engine.connect(1, None, Endpoint { ip: FAR, port: 80 }, BUF, b.now).unwrap();
        b.actions();
        let actions = b.frame(&answer(ROUTER_MAC, ROUTER));
        let Action::Transmit { frame } = &actions[1] else { panic!("{actions:?}") };
        assert_eq!(toe_wire::parse_frame(frame).unwrap().tcp_options(frame).mss, Some(1440), "{mtu}");
    }
}

#[test]
fn nobody_can_end_an_address_soon() {
    let mut b = bench();
    b.frame(&Ra::net(100 * HOUR, 100 * HOUR).frame());
    b.pass(SEC);
    b.frame(&Ra::net(1, 1).frame());
    b.pass(7000 * SEC);
    assert_eq!(global(&b).len(), 1, "two hours stay (RFC 4862, 5.5.3)");
    b.pass(200 * SEC);
    assert_eq!(global(&b).len(), 0);
}

#[test]
fn a_flood_of_routers_and_prefixes_is_bounded() {
    let mut b = Bench::dual(|c| c.slaac = true);
    b.pass(SEC);
    for n in 0..1000u16 {
        let mut ra = Ra::net(HOUR, HOUR);
        ra.from[8..10].copy_from_slice(&n.to_be_bytes());
        ra.prefixes[0].0[4..6].copy_from_slice(&n.to_be_bytes());
        b.frame(&ra.frame());
    }
    assert!(b.engine.addresses().count() <= 16 && b.engine.routes().count() <= 16 + 3 && b.engine.neighbours().count() <= 1);
    assert!(b.engine.counters().routes_refused > 0 && b.engine.counters().addresses_refused > 0);
    assert!(b.engine.addresses().any(|a| a.prefix == Prefix::new(OUR_IP6, 64).unwrap() && a.state == "preferred"), "the operator's stays");
    b.pass(u64::from(HOUR + 1) * SEC);
    assert_eq!(b.engine.addresses().count(), 3, "what has not been said again goes");
}

fn any_ra() -> impl Strategy<Value = Ra> {
    let seconds = || prop_oneof![Just(0u32), Just(u32::MAX), 0..10_000u32, any::<u32>()];
    let prefix = (0u8..6, prop_oneof![4 => Just(64u8), 1 => any::<u8>()], any::<bool>(), any::<bool>(), seconds(), seconds());
    let prefix = prefix.prop_map(|(n, len, on_link, autonomous, valid, preferred)| {
        let mut net = NET;
        net[5] = n;
        (net, len, on_link, autonomous, valid, preferred)
    });
    let head = (0u8..4, any::<u8>(), any::<u8>(), prop_oneof![Just(0u16), any::<u16>()], any::<Option<u32>>());
    (head, prop::collection::vec(prefix, 0..4)).prop_map(|((from, hop_limit, flags, lifetime_s, mtu), prefixes)| {
        let mut ra = Ra { hop_limit, flags, lifetime_s, mtu, prefixes, ..Ra::new() };
        ra.from[15] = from;
        ra
    })
}

proptest! {
    /// Whatever routers say and whenever: within bounds, timers rest, and the operator's address stays.
    #[test]
    fn any_advertisements(ras in prop::collection::vec((any_ra(), 0u64..20_000, any::<bool>()), 1..40)) {
        let mut b = Bench::dual(|c| (c.slaac, c.dad_transmits) = (true, 1));
        b.pass(2 * SEC);
        for (ra, s, conflict) in ras {
            b.frame(&ra.frame());
            let tentative = b.engine.addresses().find(|a| a.state == "tentative").map(|a| a.prefix.ip);
            if let Some(ip) = tentative.filter(|_| conflict) {
                b.frame(&solicitation(PEER_MAC, &Solicitation::probe(ip)));
            }
            let end = b.now + s * SEC;
            while let Some(at) = b.engine.next_deadline().filter(|at| *at <= end) {
                b.now = b.now.max(at);
                b.engine.timer(b.now);
                b.actions();
                prop_assert!(b.engine.next_deadline().is_none_or(|next| next > b.now), "a timer that never rests");
            }
            b.now = end;
            prop_assert!(b.engine.addresses().count() <= 16 && b.engine.routes().count() <= 19);
            prop_assert!(b.engine.addresses().any(|a| a.prefix.ip == OUR_IP6 && a.state == "preferred"));
        }
    }
}
