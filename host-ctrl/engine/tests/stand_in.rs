//! Routers that die, and connections that go on through others.

mod common;
use common::*;
use toe_abi::{
    FlowId,
    control::close_reason,
    flow::{FlowState, v4_mapped},
};
use toe_engine::{Prefix, route::Route};
use toe_wire::ArpOp;

/// By its number: .254 has the first index in the card's table, as the flow came through it.
const fn router(n: u8) -> ([u8; 6], [u8; 4]) {
    ([2, 0, 0, 0, 1, n], [10, 0, 0, n])
}

const FIRST: u8 = 254;
const SECOND: u8 = 253;
const THIRD: u8 = 252;

fn mac(n: u8) -> Option<[u8; 6]> {
    Some(router(n).0)
}

/// Whoever of them is alive answers, for so long; what the card was told meanwhile.
fn pass(b: &mut Bench, alive: &[u8], us: u64) -> Vec<(u16, Option<[u8; 6]>)> {
    let end = b.now + us;
    let mut out = Vec::new();
    while b.now < end {
        let mut actions = b.pass(SEC / 100);
        while !actions.is_empty() {
            out.extend(hops(&actions));
            let asked: Vec<_> = arps(&actions).iter().map(|(_, a)| a.target_ip).collect();
            let answers = alive.iter().map(|n| router(*n)).filter(|(_, ip)| asked.contains(ip));
            actions = answers.flat_map(|(mac, ip)| b.frame(&arp(ArpOp::Reply, mac, ip, OUR_IP))).collect();
        }
    }
    out
}

/// A flow from far away that came through the first router; all of them have just answered.
fn with_flow(change: impl FnOnce(&mut toe_engine::Config)) -> (Bench, FlowId, Box<FlowState>) {
    let mut b = Bench::with(|c| {
        c.gateways = [FIRST, SECOND, THIRD].map(|n| v4_mapped(router(n).1)).to_vec();
        change(c);
    });
    b.listen(80, 5);
    b.frame(&arp(ArpOp::Request, router(FIRST).0, router(FIRST).1, OUR_IP));
    let (flow, state) = b.accept(&mut Peer { ip: v4_mapped([1, 1, 1, 1]), mac: router(FIRST).0, ..Peer::new(4000, 80) });
    pass(&mut b, &[FIRST, SECOND, THIRD], SEC);
    (b, flow, state)
}

fn refs(b: &Bench) -> Vec<u32> {
    b.engine.neighbours().map(|n| n.refs).collect()
}

#[test]
fn connections_go_through_another_router_until_their_own_is_back() {
    let (mut b, ..) = with_flow(|_| {});
    assert_eq!(pass(&mut b, &[SECOND, THIRD], 40 * SEC), [(0, None), (1, mac(SECOND)), (0, mac(SECOND))]);
    assert_eq!((refs(&b), b.engine.counters().router_failovers), (vec![1, 1], 1));
    assert_eq!(pass(&mut b, &[SECOND, THIRD], 300 * SEC), [], "it stays");
    assert_eq!(pass(&mut b, &[FIRST, SECOND, THIRD], 10 * SEC), [(0, mac(FIRST))]);
    assert_eq!(refs(&b), [1, 0]);
}

#[test]
fn the_next_one_follows_if_that_dies_too() {
    let (mut b, ..) = with_flow(|_| {});
    pass(&mut b, &[SECOND, THIRD], 40 * SEC);
    let mut last = |alive: &[u8]| pass(&mut b, alive, 40 * SEC).into_iter().rfind(|(index, _)| *index == 0);
    assert_eq!(last(&[THIRD]), Some((0, mac(THIRD))));
    assert_eq!(last(&[]), Some((0, None)));
    assert_eq!(last(&[SECOND]), Some((0, mac(SECOND))));
    assert_eq!(last(&[SECOND]), None);
}

#[test]
fn a_stand_in_that_moves_is_followed() {
    let (mut b, ..) = with_flow(|_| {});
    pass(&mut b, &[SECOND], 40 * SEC);
    let moved = [2, 0, 0, 0, 9, 9];
    assert_eq!(hops(&b.frame(&arp(ArpOp::Reply, moved, router(SECOND).1, OUR_IP))), [(1, Some(moved)), (0, Some(moved))]);
}

/// Two that answer as one (RFC 9568): nothing changes for the card.
#[test]
fn routers_with_one_mac_address_are_no_change() {
    let (mut b, ..) = with_flow(|_| {});
    pass(&mut b, &[SECOND], 40 * SEC);
    assert_eq!(hops(&b.frame(&arp(ArpOp::Reply, router(SECOND).0, router(FIRST).1, OUR_IP))), []);
    assert_eq!(refs(&b), [1, 0]);
}

#[test]
fn one_that_leads_elsewhere_does_not_stand_in() {
    let (mut b, ..) = with_flow(|c| {
        c.gateways.truncate(1);
        c.routes.push(Route::new(Prefix::new(v4_mapped([172, 16, 0, 0]), 12).unwrap(), Some(v4_mapped(router(SECOND).1))));
    });
    assert_eq!(pass(&mut b, &[SECOND], 40 * SEC), [(0, None)]);
}

#[test]
fn neighbours_on_the_link_have_none() {
    let (mut b, ..) = with_flow(|_| {});
    b.accept(&mut Peer::new(4001, 80));
    assert_eq!(pass(&mut b, &[FIRST, SECOND], 40 * SEC), [(1, None)]);
}

#[test]
fn nothing_is_kept_once_its_connections_have_ended() {
    let (mut b, flow, state) = with_flow(|_| {});
    pass(&mut b, &[SECOND], 40 * SEC);
    b.engine.flow_closed(flow, close_reason::RESET, &state, b.now, b.now);
    let told = pass(&mut b, &[SECOND], 200 * SEC);
    assert_eq!((told.contains(&(0, None)), refs(&b).len()), (true, 0), "{told:?}");
}

/// The counter is of connections that have gone elsewhere, not of hopes.
#[test]
fn routers_that_are_all_silent_are_no_failovers() {
    let (mut b, ..) = with_flow(|_| {});
    pass(&mut b, &[], 600 * SEC);
    assert_eq!(b.engine.counters().router_failovers, 0);
    pass(&mut b, &[SECOND], 10 * SEC);
    assert_eq!(b.engine.counters().router_failovers, 1);
}
