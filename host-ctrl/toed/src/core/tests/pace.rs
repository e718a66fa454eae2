//! Rates of single connections: when the card learns of them, and what of a card that cannot.

use super::world::*;
use crate::core::Incoming;
use rustix::io::Errno;
use toe_abi::{
    FlowId,
    app::{Request, op},
    control::{kind, status},
};

/// A tenth of a megabyte per second.
const BYTES: u64 = 100_000;
const KBPS: u64 = 800;

fn rate(slot: u32, bytes: u64) -> Request {
    Request { slot, args: [bytes, 0, 0, 0], ..req(op::RATE) }
}

fn told(n: &Node) -> Vec<(FlowId, u64)> {
    n.card.log.iter().filter(|(k, ..)| *k == kind::SET_RATE).map(|(_, flow, args)| (*flow, args[0])).collect()
}

#[test]
fn the_rate_of_a_connection_reaches_its_flow() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    let flow = w.a.slot(client.region, from).conn.flow;
    w.ask(Side::A, client.client, rate(from, BYTES), None).ok();
    w.ask(Side::A, client.client, rate(from, u64::MAX), None).ok();
    w.ask(Side::A, client.client, rate(from, 0), None).ok();
    assert_eq!(told(&w.a), [(flow, KBPS), (flow, 0), (flow, 0)]);
}

#[test]
fn a_rate_set_before_connect_holds_before_the_application_can_send() {
    let mut w = World::new();
    let (client, server) = (w.start(Side::A), w.start(Side::B));
    let listener = w.sockets(server, 1)[0];
    w.listen(server, listener, 80, 4);
    let slot = w.sockets(client, 1)[0];
    w.ask(Side::A, client.client, rate(slot, BYTES), None).ok();
    assert_eq!(told(&w.a), [(FlowId::NONE, KBPS)], "the card is asked whether it can");
    w.connect(client, slot, [10, 0, 0, 2], 80);
    let flow = w.a.slot(client.region, slot).conn.flow;
    assert_eq!(told(&w.a)[1..], [(flow, KBPS)]);
    let last: Vec<u32> = w.a.card.log.iter().rev().take(2).map(|(kind, ..)| *kind).collect();
    assert_eq!(last, [kind::REBIND, kind::SET_RATE]);
}

#[test]
fn connections_begin_with_the_rate_of_their_listener() {
    let mut w = World::new();
    let (client, server) = (w.start(Side::A), w.start(Side::B));
    let (slots, mine) = (w.sockets(server, 2), w.sockets(client, 3));
    w.listen(server, slots[0], 80, 4);
    w.connect(client, mine[0], [10, 0, 0, 2], 80);
    assert_eq!(told(&w.b), [], "it came before");
    w.ask(Side::B, server.client, rate(slots[0], BYTES), None).ok();
    w.connect(client, mine[1], [10, 0, 0, 2], 80);
    assert_eq!(told(&w.b).len(), 2);
    w.ask(Side::B, server.client, rate(slots[0], u64::MAX), None).ok();
    w.connect(client, mine[2], [10, 0, 0, 2], 80);
    assert_eq!(told(&w.b).len(), 2);
    let first = w.b.accept(server.region, slots[0], slots[1]).expect("waits").flow;
    let second = w.b.take_record(server.region, slots[0]).expect("waits").flow;
    assert_eq!(told(&w.b), [(FlowId::NONE, KBPS), (second, KBPS)]);
    // One that was accepted is known by what its slot says.
    w.ask(Side::B, server.client, rate(slots[1], BYTES), None).ok();
    assert_eq!(told(&w.b)[2], (first, KBPS));
}

#[test]
fn a_card_that_cannot_is_an_option_that_does_not_exist() {
    let mut w = World::new();
    w.a.card.refuse.insert(kind::SET_RATE, status::UNSUPPORTED);
    let (client, server) = (w.start(Side::A), w.start(Side::B));
    let listener = w.sockets(server, 1)[0];
    w.listen(server, listener, 80, 4);
    let slot = w.sockets(client, 1)[0];
    w.ask(Side::A, client.client, rate(slot, BYTES), None).fails(Errno::NOPROTOOPT);
    w.ask(Side::A, client.client, rate(slot, u64::MAX), None).ok();
    w.connect(client, slot, [10, 0, 0, 2], 80);
    assert_eq!(told(&w.a).len(), 1, "not tried again");
    w.ask(Side::A, client.client, rate(slot, BYTES), None).fails(Errno::NOPROTOOPT);
    w.ask(Side::A, client.client, rate(slot, u64::MAX), None).ok();
}

#[test]
fn a_flow_that_has_ended_has_no_rate_and_no_error() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    w.a.card.refuse.insert(kind::SET_RATE, status::NOT_FOUND);
    w.ask(Side::A, client.client, rate(from, BYTES), None).ok();
}

#[test]
fn a_forged_flow_is_not_slowed_down() {
    let mut w = World::new();
    let (attacker, slot) = w.forged();
    w.ask(Side::A, attacker.client, rate(slot, 1), None).ok();
    assert_eq!(told(&w.a), [(FlowId::NONE, 1)]);
    w.ask(Side::A, attacker.client, rate(999, 1), None).fails(Errno::BADF);
}

#[test]
fn a_slot_forgets_its_rate_with_its_socket() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    let slot = w.sockets(client, 1)[0];
    w.ask(Side::A, client.client, rate(slot, BYTES), None).ok();
    w.close(client, slot);
    assert_eq!(w.sockets(client, 1), [slot]);
    w.connect(client, slot, [10, 0, 0, 2], 80);
    assert_eq!(told(&w.a).len(), 1);
    w.close(client, from);
}

#[test]
fn who_dies_while_the_card_is_asked_gets_no_answer() {
    let mut w = World::new();
    let (client, ..) = w.connected();
    let slot = w.sockets(client, 1)[0];
    w.a.card.mute = true;
    let (now, request) = (w.now, rate(slot, BYTES));
    w.a.core.request(&Incoming { client: client.client, request: &request, proof: None }, now);
    w.run();
    assert!(w.a.core.busy(client.client));
    w.kill(client);
    w.a.card.mute = false;
    w.pass(200 * SEC);
    assert!(w.a.core.host().replies.is_empty());
    w.a.assert_clean();
}
