//! Applications that lie.

use super::world::*;
use crate::core::{ClientId, Incoming, Proof, slots::last_words};
use proptest::prelude::*;
use rustix::io::Errno;
use toe_abi::{
    FlowId, RegionId,
    app::{MSG_LEN, Request},
    control::{ControlMsg, kind},
    region::{slot_flags, slot_state},
};
use toe_engine::FinWait2;
use zerocopy::{FromBytes, IntoBytes};

#[test]
fn a_forged_flow_of_another_application_is_left_alone() {
    let mut w = World::new();
    let (_, server, _, listening, spare) = w.connected();
    let flow = w.b.accept(server.region, listening, spare).expect("one waits").flow;
    let thief = w.start(Side::B);
    let slot = w.sockets(thief, 1)[0];
    for generation in [flow.generation, flow.generation + 1] {
        w.b.write_slot(thief.region, slot, |s| {
            s.conn.state = slot_state::CONNECTED;
            s.conn.flow = FlowId { index: flow.index, generation };
        });
        w.close(thief, slot);
        assert_eq!(w.sockets(thief, 1), [slot]);
    }
    assert_eq!((w.b.card.count(kind::ABORT), w.b.card.count(kind::CLOSE)), (0, 0));
    assert_eq!(w.b.core.status().applications[0].connections, 1);
}

#[test]
fn two_slots_that_claim_one_connection_close_it_once() {
    let mut w = World::new();
    let (_, server, _, listening, spare) = w.connected();
    let flow = w.b.accept(server.region, listening, spare).expect("one waits").flow;
    let copy = w.sockets(server, 1)[0];
    w.b.write_slot(server.region, copy, |s| {
        s.conn.state = slot_state::CONNECTED;
        s.conn.flow = flow;
        s.tx.slot_flags = slot_flags::CLEAN;
    });
    w.close(server, copy);
    w.close(server, spare);
    assert_eq!((w.b.card.count(kind::CLOSE), w.b.card.count(kind::ABORT)), (1, 0));
}

/// TCP_LINGER2 of Linux has a limit as well.
#[test]
fn nobody_waits_for_ever_in_fin_wait_2() {
    let mut w = World::new();
    let client = w.start(Side::A);
    let slot = w.sockets(client, 1)[0];
    let mut linger = |linger2_s| {
        w.a.write_slot(client.region, slot, |s| s.options.linger2_s = linger2_s);
        let app = w.a.core.apps.values().next().expect("one application");
        last_words(&app.memory, app.slot_at(slot)).linger
    };
    assert_eq!((linger(0), linger(8)), (FinWait2::AsEverybody, FinWait2::Limit(8 * SEC)));
    assert_eq!((linger(u32::MAX), linger(u32::MAX - 1)), (FinWait2::Limit(0), FinWait2::Limit(120 * SEC)));
}

#[test]
fn an_accept_head_that_makes_no_sense_is_ignored() {
    let mut w = World::new();
    let (client, server, _, listening, _) = w.connected();
    w.b.write_slot(server.region, listening, |s| s.listen.head = 77);
    let more = w.sockets(client, 1)[0];
    w.connect(client, more, [10, 0, 0, 2], 80);
    w.run();
    assert_eq!(w.b.core.status().listeners[0].waiting, 2);
    w.kill(server);
    w.kill(client);
    w.pass(300 * SEC);
    w.b.assert_clean();
}

#[test]
fn completions_that_answer_nothing_are_counted() {
    let mut w = World::new();
    let now = w.now;
    for msg in [ControlMsg::new(kind::INSTALL | kind::REPLY, 12345), ControlMsg::new(kind::FLOW_CLOSED, 0), ControlMsg::new(777, 1)] {
        w.a.core.completion(&msg, now);
    }
    assert_eq!(w.a.core.tally.stray_completions, 3);
}

#[derive(Clone, Debug)]
enum Step {
    Request { client: u8, op: u32, bytes: Vec<u8>, small: bool, proof: u8 },
    Scribble { region: u16, at: u16, word: u32 },
    CloseToken { nth: u8 },
    Gone { client: u8 },
    Pass { ms: u16 },
    FlowEnds { nth: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..3, 0u32..13, prop::collection::vec(any::<u8>(), MSG_LEN), any::<bool>(), any::<u8>())
            .prop_map(|(client, op, bytes, small, proof)| Step::Request { client, op, bytes, small, proof }),
        2 => (1u16..4, any::<u16>(), 0u32..6).prop_map(|(region, at, word)| Step::Scribble { region, at, word }),
        1 => any::<u8>().prop_map(|nth| Step::CloseToken { nth }),
        1 => (0u8..3).prop_map(|client| Step::Gone { client }),
        1 => any::<u16>().prop_map(|ms| Step::Pass { ms }),
        1 => any::<u8>().prop_map(|nth| Step::FlowEnds { nth }),
    ]
}

fn take(w: &mut World, clients: &mut [ClientId], step: Step) {
    let now = w.now;
    match step {
        Step::Request { client, op, mut bytes, small, proof } => {
            let client = clients[usize::from(client)];
            if w.a.core.busy(client) {
                return;
            }
            if small {
                // Likely to be right: small numbers, this card's or the other's address.
                bytes.iter_mut().skip(4).for_each(|b| *b &= 1);
                bytes[9..40].fill(0);
                bytes[40..56].copy_from_slice(&toe_abi::flow::v4_mapped([10, 0, 0, 2]));
                bytes[56..58].copy_from_slice(&80u16.to_ne_bytes());
                bytes[5..8].fill(0);
            }
            let mut request = Request::read_from_bytes(&bytes).expect("any bytes will do");
            request.op = op;
            if op == toe_abi::app::op::HELLO {
                request = hello();
            }
            let proof = match proof % 4 {
                0 => Some(Proof::Region(RegionId(1))),
                1 => Some(Proof::Token(RegionId(2), 0)),
                2 => Some(Proof::Unknown),
                _ => None,
            };
            w.a.core.request(&Incoming { client, request: &request, proof }, now);
        }
        Step::Scribble { region, at, word } => {
            if let Some(memory) = w.a.core.host().regions.get(&RegionId(region)).cloned() {
                use crate::core::Memory;
                memory.store(u64::from(at) & !3, word);
            }
        }
        Step::CloseToken { nth } => {
            let tokens: Vec<_> = w.a.core.host().tokens.iter().copied().collect();
            if let Some((region, slot)) = tokens.get(usize::from(nth) % tokens.len().max(1)).copied() {
                w.a.core.token_closed(region, slot, now);
            }
        }
        Step::Gone { client } => {
            w.a.core.client_gone(clients[usize::from(client)], now);
            clients[usize::from(client)] = w.a.connect_client();
        }
        Step::Pass { ms } => w.pass(u64::from(ms) * 1000),
        Step::FlowEnds { nth } => {
            let flows: Vec<FlowId> = w.a.card.flows.iter().map(|(i, (g, _))| FlowId { index: *i, generation: *g }).collect();
            if let Some(flow) = flows.get(usize::from(nth) % flows.len().max(1)) {
                w.a.flow_ends(*flow, toe_abi::control::close_reason::RESET, now);
            }
        }
    }
    w.run();
    w.a.core.host().replies.clear();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever applications ask and write: no panic, the books agree, and nothing is left when they are gone.
    #[test]
    fn random_applications_leave_nothing(steps in prop::collection::vec(step(), 1..80)) {
        let mut w = World::new();
        let server = w.start(Side::B);
        let listening = w.sockets(server, 1)[0];
        w.listen(server, listening, 80, 4);
        let mut clients = [w.a.connect_client(), w.a.connect_client(), w.a.connect_client()];
        for step in steps {
            take(&mut w, &mut clients, step);
        }
        let now = w.now;
        for client in clients {
            w.a.core.client_gone(client, now);
        }
        let tokens: Vec<_> = w.a.core.host().tokens.iter().copied().collect();
        for (region, slot) in tokens {
            w.a.core.token_closed(region, slot, now);
        }
        w.pass(600 * SEC);
        w.a.assert_clean();
    }

    /// Requests of any bytes at all.
    #[test]
    fn any_bytes_are_answered_or_refused(bytes in prop::array::uniform32(any::<u32>())) {
        let mut w = World::new();
        let app = w.start(Side::A);
        let request = Request::read_from_bytes(bytes.as_bytes()).expect("any bytes will do");
        let now = w.now;
        w.a.core.request(&Incoming { client: app.client, request: &request, proof: None }, now);
        w.run();
        prop_assert!(w.a.core.host().replies.len() <= 1);
    }
}

#[test]
fn a_family_has_so_many_processes_and_no_more() {
    let mut w = World::new();
    let app = w.start(Side::A);
    let proof = Some(Proof::Region(RegionId(app.region)));
    let most = 2 * limits().contexts as usize;
    let mut others: Vec<ClientId> = Vec::new();
    for _ in 1..most {
        others.push(w.a.connect_client());
        w.ask(Side::A, others[others.len() - 1], hello(), proof).ok();
    }
    let one_more = w.a.connect_client();
    w.ask(Side::A, one_more, hello(), proof).fails(Errno::USERS);
    // When one has gone, another may come.
    let now = w.now;
    w.a.core.client_gone(others[0], now);
    w.ask(Side::A, one_more, hello(), proof).ok();
}

#[test]
fn the_process_with_most_idle_connections_is_sent_away_first() {
    let mut w = World::new();
    let app = w.start(Side::A);
    assert_eq!((w.a.core.strangers(), w.a.core.worst_stranger()), (0, None));
    for (client, pid) in [(101, 7), (102, 8), (103, 8), (104, 7), (105, 8), (106, 9)] {
        w.a.core.client_connected(ClientId(client), pid, 0);
    }
    assert_eq!((w.a.core.strangers(), w.a.core.worst_stranger()), (6, Some(ClientId(102))));
    let now = w.now;
    w.a.core.client_gone(ClientId(102), now);
    w.a.core.client_gone(ClientId(103), now);
    assert_eq!((w.a.core.strangers(), w.a.core.worst_stranger()), (4, Some(ClientId(101))));
    assert_ne!(w.a.core.worst_stranger(), Some(app.client));
}
