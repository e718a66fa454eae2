//! Congestion control of single connections: when the handshake and the card learn of it, and what is answered about it.

use super::world::*;
use rustix::io::Errno;
use toe_abi::{
    FlowId,
    app::{Info, Request, op},
    control::{kind, status},
    flow::{cc, flow_flags},
};

fn congestion(slot: u32, algorithm: u64) -> Request {
    Request { slot, args: [algorithm, 0, 0, 0], ..req(op::CONGESTION) }
}

fn info(w: &mut World, side: Side, app: App, slot: u32) -> Info {
    w.ask(side, app.client, Request { slot, ..req(op::INFO) }, None).ok().info()
}

fn told(n: &Node) -> Vec<(FlowId, u64)> {
    n.card.log.iter().filter(|(k, ..)| *k == kind::SET_CC).map(|(_, flow, args)| (*flow, args[0])).collect()
}

/// Algorithm and ECN of the flows that a card has, oldest first.
fn installed(n: &Node) -> Vec<(u8, bool)> {
    n.card.flows.values().map(|(_, s)| (s.cc.algorithm, s.rx.flags & flow_flags::ECN != 0)).collect()
}

#[test]
fn a_connection_is_switched_on_the_card() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    let flow = w.a.slot(client.region, from).conn.flow;
    w.ask(Side::A, client.client, congestion(from, cc::NEWRENO.into()), None).ok();
    assert_eq!(told(&w.a), [(flow, 0)]);
}

#[test]
fn what_was_asked_for_before_is_in_force_from_the_first_segment() {
    let mut w = World::new();
    let (client, server) = (w.start(Side::A), w.start(Side::B));
    let (listener, slot) = (w.sockets(server, 1)[0], w.sockets(client, 1)[0]);
    // Both ends ask for ECN with DCTCP, though nobody has switched it on.
    w.ask(Side::B, server.client, congestion(listener, cc::DCTCP.into()), None).ok();
    w.listen(server, listener, 80, 4);
    w.ask(Side::A, client.client, congestion(slot, cc::DCTCP.into()), None).ok();
    w.connect(client, slot, [10, 0, 0, 2], 80);
    assert_eq!((installed(&w.a), installed(&w.b)), (vec![(cc::DCTCP, true)], vec![(cc::DCTCP, true)]));
    assert_eq!(info(&mut w, Side::A, client, slot).algorithm, cc::DCTCP);
}

#[test]
fn a_peer_without_ecn_gives_a_connection_without() {
    let mut w = World::new();
    let (client, server) = (w.start(Side::A), w.start(Side::B));
    let (listener, slot) = (w.sockets(server, 1)[0], w.sockets(client, 1)[0]);
    w.listen(server, listener, 80, 4);
    w.ask(Side::A, client.client, congestion(slot, cc::DCTCP.into()), None).ok();
    w.connect(client, slot, [10, 0, 0, 2], 80);
    assert_eq!((installed(&w.a), installed(&w.b)), (vec![(cc::DCTCP, false)], vec![(cc::CUBIC, false)]));
}

#[test]
fn connections_inherit_from_their_listener_as_it_is_when_they_come() {
    let mut w = World::new();
    let (client, server) = (w.start(Side::A), w.start(Side::B));
    let (slots, mine) = (w.sockets(server, 2), w.sockets(client, 2));
    w.listen(server, slots[0], 80, 4);
    w.connect(client, mine[0], [10, 0, 0, 2], 80);
    w.ask(Side::B, server.client, congestion(slots[0], cc::NEWRENO.into()), None).ok();
    w.connect(client, mine[1], [10, 0, 0, 2], 80);
    assert_eq!(installed(&w.b), [(cc::CUBIC, false), (cc::NEWRENO, false)]);
    assert_eq!(info(&mut w, Side::B, server, slots[0]), Info { algorithm: cc::NEWRENO, ..Info::default() }, "no connection");
    w.b.accept(server.region, slots[0], slots[1]).expect("waits");
    assert_eq!(info(&mut w, Side::B, server, slots[1]).algorithm, cc::CUBIC);
}

#[test]
fn an_info_is_what_the_card_says_now() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    let flow = w.a.slot(client.region, from).conn.flow;
    let (_, state) = w.a.card.flows.get_mut(&flow.index).expect("installed");
    (state.tx.srtt_us, state.tx.rttvar_us, state.cc.cwnd, state.cc.ssthresh) = (1000, 500, 30_000, 20_000);
    (state.id.retransmits, state.tx.backoff, state.tx.snd_max) = (7, 2, state.tx.snd_una.wrapping_add(300));
    let mss = state.rx.mss;
    let info = info(&mut w, Side::A, client, from);
    assert_eq!((info.srtt_us, info.rttvar_us, info.cwnd, info.ssthresh), (1000, 500, 30_000, 20_000));
    assert_eq!((info.retransmits, info.backoff, info.unacked, info.mss), (7, 2, 300, mss));
}

#[test]
fn numbers_that_mean_nothing_are_refused() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    for number in [u64::from(cc::COUNT), 256, u64::MAX] {
        w.ask(Side::A, client.client, congestion(from, number), None).fails(Errno::INVAL);
    }
    w.ask(Side::A, client.client, congestion(999, 0), None).fails(Errno::BADF);
    assert_eq!(told(&w.a), []);
}

#[test]
fn a_card_that_cannot_is_an_option_that_does_not_exist() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    w.a.card.refuse.insert(kind::SET_CC, status::UNSUPPORTED);
    w.ask(Side::A, client.client, congestion(from, 0), None).fails(Errno::NOPROTOOPT);
    w.a.card.refuse.insert(kind::SET_CC, status::NOT_FOUND);
    w.ask(Side::A, client.client, congestion(from, 0), None).ok();
}

#[test]
fn a_forged_flow_is_neither_switched_nor_told_of() {
    let mut w = World::new();
    let (attacker, slot) = w.forged();
    w.ask(Side::A, attacker.client, congestion(slot, 0), None).ok();
    assert_eq!(told(&w.a), []);
    assert_eq!(info(&mut w, Side::A, attacker, slot).mss, 0);
}
