//! Which groups the card listens to, told to switches and routers (RFC 3810).

mod common;
use common::*;
use toe_engine::{Action, Prefix};
use toe_wire::{
    Icmpv6, Payload,
    ipv6::{ALL_NODES, UNSPECIFIED, is_link_local, solicited_node},
    parse_frame,
};

const ROUTER: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

/// A report: source, type of message, type of its records, groups.
type Report = ([u8; 16], u8, u8, Vec<[u8; 16]>);

fn reports(actions: &[Action]) -> Vec<Report> {
    let frames = actions.iter().filter_map(|a| if let Action::Transmit { frame } = a { Some(frame) } else { None });
    frames.filter_map(|frame| report(frame)).collect()
}

fn report(frame: &[u8]) -> Option<Report> {
    let Payload::Ipv6(packet) = parse_frame(frame).ok()?.payload else { return None };
    // Its checksum is right.
    let Some(Icmpv6::Other) = Icmpv6::parse(&packet.ip, frame) else { return None };
    let message = packet.ip.payload.of(frame);
    let group = |at: usize| message[at..at + 16].try_into().unwrap();
    match message[0] {
        131 => Some((packet.ip.src, 131, 0, vec![group(8)])),
        143 => {
            let n = usize::from(u16::from_be_bytes([message[6], message[7]]));
            Some((packet.ip.src, 143, message[8], (0..n).map(|i| group(12 + 20 * i)).collect()))
        }
        _ => None,
    }
}

/// A query as a router sends it.
fn query(group: [u8; 16], max_delay_ms: u16, is_v1: bool) -> Vec<u8> {
    let mut m = vec![130, 0, 0, 0];
    m.extend(max_delay_ms.to_be_bytes());
    m.extend([0, 0]);
    m.extend(group);
    if !is_v1 {
        m.extend([2, 125, 0, 0]);
    }
    let mut frame = icmpv6(ROUTER_MAC, ROUTER, ALL_NODES, &m);
    // The hop limit, no part of the checksum.
    frame[14 + 7] = 1;
    frame
}

/// With an address of IPv6, before it has done anything; and what it does at once.
fn begin() -> (Bench, Vec<Action>) {
    let mut b = Bench::new();
    let addresses = vec![Prefix::new(OUR_IP6, 64).unwrap()];
    b.engine = toe_engine::Engine::new(toe_engine::Config { addresses, ..config() }, b.now).unwrap();
    let first = b.actions();
    (b, first)
}

/// The groups of its addresses, in order.
fn groups(b: &Bench) -> Vec<[u8; 16]> {
    let mut all: Vec<_> = b.engine.addresses().map(|a| solicited_node(&a.prefix.ip)).collect();
    all.sort_unstable();
    all
}

fn link_local(b: &Bench) -> [u8; 16] {
    b.engine.addresses().map(|a| a.prefix.ip).find(is_link_local).expect("there is one")
}

#[test]
fn a_group_is_told_before_its_address_is_asked_for_and_again_from_one() {
    let (mut b, first) = begin();
    let local = link_local(&b);
    let joined = [OUR_IP6, local].map(|ip| (UNSPECIFIED, 143, 4, vec![solicited_node(&ip)]));
    assert_eq!(reports(&first), joined);
    let told = |actions: &[Action]| actions.iter().position(|a| reports(std::slice::from_ref(a)) == joined[..1]);
    let asked = |actions: &[Action]| actions.iter().position(|a| !solicitations(std::slice::from_ref(a)).is_empty());
    assert!(told(&first) < asked(&first), "{first:?}");
    assert_eq!(reports(&b.pass(SEC)), [(local, 143, 4, groups(&b))]);
    assert_eq!(b.engine.next_deadline(), None);
}

#[test]
fn who_asks_gets_one_answer_in_its_version() {
    let (mut b, _) = begin();
    b.pass(SEC);
    let (local, all) = (link_local(&b), groups(&b));
    for _ in 0..5 {
        assert!(b.frame(&query(UNSPECIFIED, 1000, false)).is_empty());
    }
    assert_eq!(reports(&b.pass(SEC)), [(local, 143, 2, all.clone())]);
    b.frame(&query(solicited_node(&OUR_IP6), 0, true));
    let v1: Vec<Report> = all.iter().map(|group| (local, 131, 0, vec![*group])).collect();
    assert_eq!(reports(&b.pass(SEC)), v1);
}

#[test]
fn a_query_for_other_groups_or_where_there_is_no_ipv6_is_not_answered() {
    let (mut b, _) = begin();
    b.pass(SEC);
    b.frame(&query(solicited_node(&PEER_IP6), 100, false));
    assert!(b.pass(SEC).is_empty());
    let mut b = Bench::new();
    b.frame(&query(UNSPECIFIED, 100, false));
    assert!(b.pass(SEC).is_empty());
}

#[test]
fn a_flood_of_queries_is_answered_a_hundred_times_a_second() {
    let (mut b, _) = begin();
    b.pass(SEC);
    let mut sent = 0;
    for _ in 0..1000 {
        b.frame(&query(UNSPECIFIED, 0, false));
        sent += reports(&b.pass(SEC / 1000)).len();
    }
    assert!((90..=100).contains(&sent), "{sent}");
}
