//! Endings, in every order; nothing may be left behind.

use super::world::*;
use crate::core::{Incoming, Limits, Memory, Proof};
use rustix::io::Errno;
use toe_abi::{
    FlowId, RegionId,
    app::{Request, bind_flags, op},
    control::{close_reason, kind},
    region::{RegionHeader, slot_flags, slot_state},
};

#[test]
fn a_clean_close_sends_positions_with_it() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    w.a.write_slot(client.region, from, |s| {
        s.tx.slot_flags = slot_flags::CLEAN;
        s.tx.head = 500;
        s.rx.tail = 30;
        s.event.rx_head = 30;
    });
    let flow = w.a.slot(client.region, from).conn.flow;
    w.close(client, from);
    assert_eq!(w.a.card.last(kind::CLOSE), (flow, [0, 1, 500, 30, 0]));
    assert_eq!(w.a.card.count(kind::ABORT), 0);
    assert_eq!(w.a.core.status().applications[0].memory_bytes, 0);
}

#[test]
fn a_close_with_unread_data_says_so() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    w.a.write_slot(client.region, from, |s| {
        s.tx.slot_flags = slot_flags::CLEAN;
        s.event.rx_head = 10;
    });
    w.close(client, from);
    assert_eq!(w.a.card.last(kind::CLOSE).1[0], 1);
}

#[test]
fn a_holder_that_died_resets_its_connection() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    w.close(client, from);
    assert_eq!((w.a.card.count(kind::ABORT), w.a.card.count(kind::CLOSE)), (1, 0));
}

#[test]
fn buffers_stay_until_the_application_lets_go() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    let flow = w.a.slot(client.region, from).conn.flow;
    let now = w.now;
    w.a.flow_ends(flow, close_reason::DONE, now);
    w.run();
    assert_eq!(w.a.core.status().applications[0].memory_bytes, 16384, "received data may be unread");
    w.close(client, from);
    assert_eq!(w.a.core.status().applications[0].memory_bytes, 0);
    assert_eq!((w.a.card.count(kind::CLOSE), w.a.card.count(kind::ABORT)), (0, 0));
}

#[test]
fn a_closed_slot_is_fresh_when_it_comes_back() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    w.close(client, from);
    assert_eq!(w.sockets(client, 1), [from]);
    let s = w.a.slot(client.region, from);
    assert_eq!((s.conn.state, s.conn.flow, s.tx.slot_flags), (slot_state::FREE, FlowId { index: 0, generation: 0 }, 0));
}

#[test]
fn closing_while_connecting_cancels() {
    let mut w = World::new();
    let client = w.start(Side::A);
    let slot = w.sockets(client, 1)[0];
    w.connect(client, slot, [10, 0, 0, 77], 80);
    w.close(client, slot);
    assert_eq!(w.a.core.status().applications[0].connections, 0);
    w.kill(client);
    w.pass(300 * SEC);
    w.a.assert_clean();
}

#[test]
fn a_connect_that_is_called_off_leaves_a_socket_that_can_try_again() {
    let mut w = World::new();
    let (client, server, slot, _, _) = w.listening();
    let unlisten = Request { slot, ..req(op::UNLISTEN) };
    w.connect(client, slot, [10, 0, 0, 77], 80);
    let page = w.a.memory(client.region).get::<RegionHeader>(0).context_page(client.ctx);
    w.ask(Side::A, client.client, unlisten, None).ok();
    let conn = w.a.slot(client.region, slot).conn;
    assert_eq!((conn.state, conn.error), (slot_state::OPEN, Errno::CONNRESET.raw_os_error() as u32));
    assert_eq!(w.a.memory(client.region).load(page + 128), 1, "who waits for it may be another thread");
    assert_eq!(w.a.core.status().applications[0].connections, 0);
    w.ask(Side::A, client.client, unlisten, None).fails(Errno::INVAL);
    w.connect(client, slot, [10, 0, 0, 2], 80);
    assert_eq!(w.a.slot(client.region, slot).conn.state, slot_state::CONNECTED);
    w.ask(Side::A, client.client, unlisten, None).fails(Errno::ISCONN);
    w.kill(client);
    w.kill(server);
    w.pass(300 * SEC);
    w.a.assert_clean();
}

#[test]
fn calling_off_while_the_card_installs_resets_what_comes_of_it() {
    let mut w = World::new();
    let (client, _, slot, _, _) = w.listening();
    w.a.card.mute = true;
    w.connect(client, slot, [10, 0, 0, 2], 80);
    assert_eq!(w.a.card.count(kind::INSTALL), 1);
    w.ask(Side::A, client.client, Request { slot, ..req(op::UNLISTEN) }, None).ok();
    w.a.card.mute = false;
    w.pass(SEC);
    assert_eq!(w.a.card.count(kind::ABORT), 1);
    assert_eq!(w.a.slot(client.region, slot).conn.state, slot_state::OPEN);
    w.kill(client);
    w.pass(300 * SEC);
    w.a.assert_clean();
}

#[test]
fn closing_while_the_card_installs_resets_what_comes_of_it() {
    let mut w = World::new();
    let (client, _, slot, _, _) = w.listening();
    w.a.card.mute = true;
    w.connect(client, slot, [10, 0, 0, 2], 80);
    assert_eq!(w.a.card.count(kind::INSTALL), 1);
    w.kill(client);
    w.a.card.mute = false;
    w.pass(SEC);
    assert_eq!(w.a.card.count(kind::ABORT), 1);
    w.pass(300 * SEC);
    w.a.assert_clean();
}

#[test]
fn a_listener_that_goes_resets_what_nobody_has_accepted() {
    for unlisten in [true, false] {
        let mut w = World::new();
        let (client, server, _, listening, spare) = w.connected();
        let more = w.sockets(client, 1)[0];
        w.connect(client, more, [10, 0, 0, 2], 80);
        let kept = w.b.accept(server.region, listening, spare).expect("one waits").flow;
        if unlisten {
            let request = Request { slot: listening, ..req(op::UNLISTEN) };
            w.ask(Side::B, server.client, request, None).ok();
        } else {
            w.close(server, listening);
        }
        assert_eq!(w.b.card.count(kind::ABORT), 1);
        assert_ne!(w.b.card.last(kind::ABORT).0, kept);
        assert_eq!(w.b.card.flows.len(), 1);
    }
}

#[test]
fn the_backlog_holds_and_opens_again_when_accepted() {
    let mut w = World::new();
    let (client, server) = (w.start(Side::A), w.start(Side::B));
    let s = w.sockets(server, 4);
    w.listen(server, s[0], 80, 1);
    let from = w.sockets(client, 3);
    for &slot in &from {
        w.connect(client, slot, [10, 0, 0, 2], 80);
    }
    assert_eq!(w.b.slot(server.region, s[0]).listen.tail, 2, "the third waits outside");
    w.b.accept(server.region, s[0], s[1]).expect("one waits");
    w.pass(10 * SEC);
    assert_eq!(w.b.slot(server.region, s[0]).listen.tail, 3, "its SYN was repeated");
}

/// Whatever listen() says, an accept ring has a place for whoever waits.
#[test]
fn no_backlog_is_more_than_the_ring_has() {
    let mut w = World::new();
    let (client, server) = (w.start(Side::A), w.start(Side::B));
    let s = w.sockets(server, 1);
    w.listen(server, s[0], 80, u64::from(u32::MAX));
    for slot in w.sockets(client, 6) {
        w.connect(client, slot, [10, 0, 0, 2], 80);
    }
    let shown = w.b.core.status().listeners[0].clone();
    assert_eq!((shown.backlog, shown.waiting, shown.overflows), (limits().accept_entries - 1, limits().accept_entries, 2));
    assert_eq!(w.b.card.count(kind::ABORT), 0);
}

/// Connections of a group of two applications (SO_REUSEPORT): each has its own, and those of one that dies are lost with it alone.
#[test]
fn applications_of_one_user_share_a_port() {
    let mut w = World::with(Limits { connections: 12, accept_entries: 16, ..limits() });
    let client = w.start(Side::A);
    let servers = [w.start(Side::B), w.start(Side::B)];
    let listeners = servers.map(|app| {
        let slot = w.sockets(app, 1)[0];
        w.ask(Side::B, app.client, Request { slot, port: 80, flags: bind_flags::REUSEPORT, ..req(op::BIND) }, None).ok();
        w.ask(Side::B, app.client, Request { slot, args: [8, 0, 0, 0], ..req(op::LISTEN) }, None).ok();
        slot
    });
    for slot in w.sockets(client, 12) {
        w.connect(client, slot, [10, 0, 0, 2], 80);
    }
    let tail = |w: &mut World, n: usize| w.b.slot(servers[n].region, listeners[n]).listen.tail;
    let (first, second) = (tail(&mut w, 0), tail(&mut w, 1));
    assert!(first > 0 && second > 0 && first + second == 12, "{first} and {second}");
    w.close(servers[0], listeners[0]);
    assert_eq!((w.b.card.count(kind::ABORT) as u32, w.b.card.flows.len() as u32), (first, second));
}

/// Another user's program does not get connections that were meant for the first one's.
#[test]
fn applications_of_two_users_do_not_share_a_port() {
    let mut w = World::new();
    let app = w.start(Side::A);
    let slot = w.sockets(app, 1)[0];
    let bind = Request { slot, port: 8080, flags: bind_flags::REUSEPORT, ..req(op::BIND) };
    w.ask(Side::A, app.client, bind, None).ok();
    let stranger = w.a.connect_client_of(1000);
    w.ask(Side::A, stranger, hello(), None).ok();
    let slot = u32::from(w.ask(Side::A, stranger, Request { args: [1, 0, 0, 0], ..req(op::POOL) }, None).ok().slots[0]);
    w.ask(Side::A, stranger, Request { slot, ..bind }, None).fails(Errno::ADDRINUSE);
}

#[test]
fn low_ports_are_for_root_and_for_toeds_own_user() {
    let mut w = World::new();
    w.a.core.config.uid = 500;
    for (uid, low, high) in [(500, 80, 1025), (1000, 1023, 1024)] {
        let client = w.a.connect_client_of(uid);
        w.ask(Side::A, client, hello(), None).ok();
        let slots = w.ask(Side::A, client, Request { args: [3, 0, 0, 0], ..req(op::POOL) }, None).ok().slots;
        for (port, slot) in [low, high, 0].into_iter().zip(slots) {
            let answer = w.ask(Side::A, client, Request { slot: slot.into(), port, ..req(op::BIND) }, None);
            if port == 1023 {
                answer.fails(Errno::ACCESS)
            } else {
                answer.ok()
            };
        }
    }
}

/// One connection is accepted and one waits; the server dies after `step` steps of the client's.
#[test]
fn death_at_every_step_leaves_nothing() {
    for step in 0..7 {
        for by_bye in [false, true] {
            let mut w = World::new();
            let server = w.start(Side::B);
            let s = w.sockets(server, 3);
            if step > 0 {
                w.listen(server, s[0], 80, 4);
            }
            let client = w.start(Side::A);
            let c = w.sockets(client, 3);
            if step > 1 {
                w.connect(client, c[0], [10, 0, 0, 2], 80);
            }
            if step > 2 {
                w.connect(client, c[1], [10, 0, 0, 2], 80);
            }
            if step > 3 {
                w.b.accept(server.region, s[0], s[1]).expect("one waits");
            }
            if step > 4 {
                w.b.take_record(server.region, s[0]).expect("another waits");
            }
            if step > 5 {
                w.connect(client, c[2], [10, 0, 0, 77], 80);
            }
            if by_bye {
                let now = w.now;
                let bye = req(op::BYE);
                w.b.core.request(&Incoming { client: server.client, request: &bye, proof: None }, now);
                w.run();
            }
            w.kill(server);
            w.kill(client);
            w.pass(300 * SEC);
            w.a.assert_clean();
            w.b.assert_clean();
        }
    }
}

#[test]
fn the_process_dies_before_the_card_has_answered() {
    for op in [op::HELLO, op::OPEN_CONTEXT] {
        let mut w = World::new();
        let client = w.a.connect_client();
        if op != op::HELLO {
            w.ask(Side::A, client, hello(), None).ok();
        }
        w.a.card.mute = true;
        let request = if op == op::HELLO { hello() } else { req(op) };
        let now = w.now;
        w.a.core.request(&Incoming { client, request: &request, proof: None }, now);
        assert!(w.a.core.busy(client));
        w.a.core.client_gone(client, now);
        w.a.card.mute = false;
        w.pass(100 * SEC);
        assert!(w.a.core.host().replies.is_empty(), "nobody is there to be answered");
        w.a.assert_clean();
    }
}

#[test]
fn a_family_lives_as_long_as_one_descriptor() {
    let mut w = World::new();
    let (parent, _, from, _, _) = w.connected();
    let now = w.now;
    // The parent exits; a child that has not said HELLO yet holds the socket.
    w.a.core.client_gone(parent.client, now);
    w.pass(300 * SEC);
    assert_eq!(w.a.card.flows.len(), 1);
    let child = w.a.connect_client();
    let proof = Proof::Token(RegionId(parent.region), from);
    w.ask(Side::A, child, hello(), Some(proof)).ok();
    w.close(parent, from);
    assert_eq!(w.a.core.status().applications.len(), 1);
    let now = w.now;
    w.a.core.client_gone(child, now);
    w.pass(300 * SEC);
    w.a.assert_clean();
}

#[test]
fn closes_in_order_outlive_the_application_for_a_while() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    w.a.card.peers_hang = true;
    w.a.write_slot(client.region, from, |s| s.tx.slot_flags = slot_flags::CLEAN);
    w.kill(client);
    w.pass(5 * SEC);
    assert_eq!((w.a.card.flows.len(), w.a.core.status().applications.len()), (1, 1));
    assert_eq!(w.a.card.count(kind::UNMAP_REGION), 0);
    w.pass(120 * SEC);
    w.a.assert_clean();
}

#[test]
fn peers_that_never_close_do_not_keep_programs_from_starting() {
    let mut w = World::new();
    let (mut client, _, mut from, _, _) = w.connected();
    w.a.card.peers_hang = true;
    // There are four regions.
    for _ in 0..4 {
        w.a.write_slot(client.region, from, |s| s.tx.slot_flags = slot_flags::CLEAN);
        w.kill(client);
        client = w.start(Side::A);
        from = w.sockets(client, 1)[0];
        w.connect(client, from, [10, 0, 0, 2], 80);
    }
    assert_eq!(w.a.core.status().applications.len(), 3, "the last two that ended have time left");
    w.start(Side::A);
    // None is free: those give way, but not to who would be refused anyway.
    let late = w.a.connect_client();
    let mut forged = hello();
    // A ticket that nobody has given out.
    forged.args[3] = 77;
    w.ask(Side::A, late, forged, None).fails(Errno::STALE);
    assert_eq!(w.a.core.status().applications.len(), 4);
    w.ask(Side::A, late, hello(), None).ok();
}

#[test]
fn closes_in_order_may_have_for_ever() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    w.a.core.config.linger_us = u64::MAX;
    w.a.card.peers_hang = true;
    w.a.write_slot(client.region, from, |s| s.tx.slot_flags = slot_flags::CLEAN);
    w.kill(client);
    w.pass(SEC);
    assert_eq!((w.a.card.flows.len(), w.a.core.status().applications.len()), (1, 1));
    assert_eq!(w.a.card.count(kind::UNMAP_REGION), 0);
}

#[test]
fn a_connection_taken_by_a_process_that_died_is_found() {
    let mut w = World::new();
    let (_, server, _, listening, spare) = w.connected();
    let child = w.sibling(server);
    // It took the record and died before its slot said so; the parent holds the listener.
    w.b.take_record(server.region, listening).expect("one waits");
    let now = w.now;
    w.b.core.client_gone(child, now);
    w.pass(SEC);
    assert_eq!(w.b.card.flows.len(), 1);
    w.pass(10 * SEC);
    assert_eq!((w.b.card.flows.len(), w.b.card.count(kind::ABORT)), (0, 1));
    assert_eq!(w.b.core.status().applications[0].memory_bytes, 0);
    let _ = spare;
}

/// A thread had taken it just when another one ended the process in order.
#[test]
fn a_connection_taken_by_a_process_that_has_taken_its_leave_is_found() {
    let mut w = World::new();
    let (_, server, _, listening, _) = w.connected();
    let child = w.sibling(server);
    w.b.take_record(server.region, listening).expect("one waits");
    let now = w.now;
    w.b.core.request(&Incoming { client: child, request: &req(op::BYE), proof: None }, now);
    w.b.core.client_gone(child, now);
    w.pass(11 * SEC);
    assert_eq!((w.b.card.flows.len(), w.b.card.count(kind::ABORT)), (0, 1));
    assert_eq!(w.b.core.status().applications[0].memory_bytes, 0);
}

#[test]
fn an_accepted_connection_survives_the_death_of_a_sibling() {
    let mut w = World::new();
    let (_, server, _, listening, spare) = w.connected();
    w.b.accept(server.region, listening, spare).expect("one waits");
    let child = w.sibling(server);
    let now = w.now;
    w.b.core.client_gone(child, now);
    w.pass(60 * SEC);
    assert_eq!(w.b.card.flows.len(), 1);
}

#[test]
fn everything_works_through_queues_with_room_for_one() {
    let mut w = World::new();
    w.a.core.host().room = 1;
    w.b.core.host().room = 1;
    let (client, server, from, listening, spare) = w.connected();
    w.b.accept(server.region, listening, spare).expect("one waits");
    w.a.write_slot(client.region, from, |s| s.tx.slot_flags = slot_flags::CLEAN);
    w.kill(client);
    w.kill(server);
    w.pass(300 * SEC);
    w.a.assert_clean();
    w.b.assert_clean();
}

#[test]
fn pages_of_freed_buffers_go_back_after_a_while() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    let places = w.a.slot(client.region, from).conn;
    let memory = w.a.memory(client.region);
    memory.store(places.rx_off, 7);
    w.close(client, from);
    assert_eq!(memory.load(places.rx_off), 7);
    w.pass(6 * SEC);
    assert_eq!(memory.load(places.rx_off), 0);
}

#[test]
fn a_card_that_fails_is_told_to_every_context() {
    let mut w = World::new();
    let app = w.start(Side::A);
    let memory = w.a.memory(app.region);
    let page = memory.get::<RegionHeader>(0).context_page(app.ctx);
    memory.store(page + 8, 1);
    w.a.core.card_failed();
    assert_eq!(memory.load(page + 132), 1);
    assert_eq!(w.a.core.host().interrupts.len(), 1);
    let client = w.a.connect_client();
    w.ask(Side::A, client, hello(), None).fails(rustix::io::Errno::SHUTDOWN);
}

#[test]
fn shutdown_resets_everything() {
    let mut w = World::new();
    let (_, server, _, listening, spare) = w.connected();
    w.b.accept(server.region, listening, spare).expect("one waits");
    let now = w.now;
    assert!(!w.b.core.is_drained());
    w.b.core.shutdown(now);
    w.run();
    assert!(w.b.core.is_drained());
    assert!(w.b.card.flows.is_empty() && w.b.core.host().tokens.is_empty());
    // What happens afterwards finds nothing.
    w.b.core.token_closed(RegionId(server.region), spare, now);
    w.b.core.client_gone(server.client, now);
    w.b.assert_clean();
}

#[test]
fn who_comes_while_toed_ends_does_not_hold_it_up() {
    let mut w = World::new();
    let (client, late) = (w.a.connect_client(), w.a.connect_client());
    let app = w.start(Side::A);
    w.a.card.mute = true;
    let now = w.now;
    w.a.core.request(&Incoming { client, request: &hello(), proof: None }, now);
    w.a.core.shutdown(now);
    // A child of the family.
    w.a.core.request(&Incoming { client: late, request: &hello(), proof: Some(Proof::Region(RegionId(app.region))) }, now);
    w.a.card.mute = false;
    w.run();
    assert!(w.a.core.is_drained());
}

#[test]
fn a_region_number_is_used_again_only_when_the_card_has_let_go() {
    let mut w = World::new();
    let first = w.start(Side::A);
    w.a.card.mute = true;
    w.kill(first);
    w.a.card.mute = false;
    let second = w.start(Side::A);
    w.pass(SEC);
    let third = w.start(Side::A);
    assert_eq!((first.region, third.region), (1, 1));
    let _ = second;
}
