//! Each request: what it does, and how it is refused.

use super::world::*;
use crate::core::{Attachment, Limits, Proof, Report, slots::open_options};
use rustix::io::Errno;
use toe_abi::{
    CtxId, RegionId,
    app::{Request, bind_flags, op},
    control::{kind, status},
    flow::v4_mapped,
    region::{REGION_MAGIC, RegionHeader, slot_state},
};

#[test]
fn hello_makes_a_region_with_a_header() {
    let mut w = World::new();
    let client = w.a.connect_client();
    let answer = w.ask(Side::A, client, hello(), None);
    assert_eq!(answer.attached, [Attachment::Region(RegionId(1))]);
    let reply = answer.ok();
    assert_eq!((reply.args[0] as u32, reply.args[1], reply.args[2]), (toe_abi::ABI_VERSION, 1, 24));
    assert_eq!(reply.ip, v4_mapped([10, 0, 0, 1]));
    let header: RegionHeader = w.a.memory(1).get(0);
    assert_eq!((header.magic, header.n_sockets), (REGION_MAGIC, 16));
    let (_, args) = w.a.card.last(kind::MAP_REGION);
    assert_eq!((args[0], args[1], args[2]), (1, 1 << 20, header.len), "where the card does");
    assert_eq!(reply.args[3], (1 << 20) + OFFSET, "and where applications do");
}

#[test]
fn another_version_is_refused_and_told_ours() {
    let mut w = World::new();
    let client = w.a.connect_client();
    let mut old = hello();
    old.args[1] += 1 << 16;
    assert_eq!(w.ask(Side::A, client, old, None).fails(Errno::PROTO).args[0] as u32, toe_abi::ABI_VERSION);
    let mut alien = hello();
    alien.args[0] = 7;
    w.ask(Side::A, client, alien, None).fails(Errno::PROTO);
    let mut minor = hello();
    minor.args[1] += 1;
    w.ask(Side::A, client, minor, None).ok();
}

#[test]
fn nothing_goes_before_hello_and_hello_only_once() {
    let mut w = World::new();
    let client = w.a.connect_client();
    for op in [op::OPEN_CONTEXT, op::POOL, op::BIND, op::LISTEN, op::CONNECT, op::IDENTIFY, 999] {
        w.ask(Side::A, client, req(op), None).fails(Errno::PROTO);
    }
    w.ask(Side::A, client, hello(), None).ok();
    w.ask(Side::A, client, hello(), None).fails(Errno::INVAL);
    w.ask(Side::A, client, req(999), None).fails(Errno::OPNOTSUPP);
}

#[test]
fn a_proof_joins_a_family_and_a_stale_one_does_not() {
    let mut w = World::new();
    let parent = w.start(Side::A);
    let slot = w.sockets(parent, 1)[0];
    for proof in [Proof::Region(RegionId(parent.region)), Proof::Token(RegionId(parent.region), slot)] {
        let child = w.a.connect_client();
        assert_eq!(w.ask(Side::A, child, hello(), Some(proof)).ok().args[1], u64::from(parent.region));
    }
    let stranger = w.a.connect_client();
    w.ask(Side::A, stranger, hello(), Some(Proof::Unknown)).fails(Errno::STALE);
    w.ask(Side::A, stranger, hello(), Some(Proof::Region(RegionId(4)))).fails(Errno::STALE);
    assert_eq!(w.a.core.status().applications.len(), 1);
}

#[test]
fn more_applications_than_regions_are_refused() {
    let mut w = World::new();
    for _ in 1..5 {
        let client = w.a.connect_client();
        w.ask(Side::A, client, hello(), None).ok();
    }
    let client = w.a.connect_client();
    w.ask(Side::A, client, hello(), None).fails(Errno::USERS);
}

#[test]
fn a_region_that_card_or_system_refuse_leaves_nothing() {
    let mut w = World::new();
    w.a.card.refuse.insert(kind::MAP_REGION, status::INVALID);
    let client = w.a.connect_client();
    w.ask(Side::A, client, hello(), None).fails(Errno::NOMEM);
    w.a.assert_clean();
    w.a.card.refuse.clear();
    w.a.core.host().memory_gone = true;
    w.ask(Side::A, client, hello(), None).fails(Errno::NOMEM);
    w.a.assert_clean();
    w.a.core.host().memory_gone = false;
    w.ask(Side::A, client, hello(), None).ok();
}

#[test]
fn a_context_is_told_to_the_card_and_its_descriptors_to_the_client() {
    let mut w = World::new();
    let client = w.a.connect_client();
    w.ask(Side::A, client, hello(), None).ok();
    let answer = w.ask(Side::A, client, req(op::OPEN_CONTEXT), None);
    assert_eq!(answer.attached, [Attachment::Kick(CtxId(1)), Attachment::Irq(CtxId(1))]);
    let header: RegionHeader = w.a.memory(1).get(0);
    let (_, args) = w.a.card.last(kind::OPEN_CONTEXT);
    assert_eq!(args[..3], [1, 1, header.context_page(0)]);
    assert_eq!(args[3], header.hc_queue(0) | 2 << 56);
    assert_eq!(args[4], header.ev_queue(0) | 2 << 56);
}

#[test]
fn contexts_run_out_by_application_and_by_card() {
    let mut w = World::with(Limits { contexts: 4, ..limits() });
    let first = w.start(Side::A);
    for _ in 0..3 {
        w.ask(Side::A, first.client, req(op::OPEN_CONTEXT), None).ok();
    }
    w.ask(Side::A, first.client, req(op::OPEN_CONTEXT), None).fails(Errno::MFILE);
    let second = w.start(Side::A);
    for _ in 0..2 {
        w.ask(Side::A, second.client, req(op::OPEN_CONTEXT), None).ok();
    }
    w.ask(Side::A, second.client, req(op::OPEN_CONTEXT), None).fails(Errno::NFILE);
    let close = Request { args: [0; 4], ..req(op::CLOSE_CONTEXT) };
    w.ask(Side::A, first.client, close, None).ok();
    w.ask(Side::A, second.client, req(op::OPEN_CONTEXT), None).ok();
}

#[test]
fn a_context_that_the_card_refuses_can_be_tried_again() {
    let mut w = World::new();
    let client = w.a.connect_client();
    w.ask(Side::A, client, hello(), None).ok();
    w.a.card.refuse.insert(kind::OPEN_CONTEXT, status::NO_SPACE);
    for _ in 0..10 {
        w.ask(Side::A, client, req(op::OPEN_CONTEXT), None).fails(Errno::NFILE);
    }
    w.a.card.refuse.clear();
    w.ask(Side::A, client, req(op::OPEN_CONTEXT), None).ok();
}

#[test]
fn a_client_closes_only_its_own_contexts() {
    let mut w = World::new();
    let parent = w.start(Side::A);
    let child = w.a.connect_client();
    w.ask(Side::A, child, hello(), Some(Proof::Region(RegionId(parent.region)))).ok();
    let close = |i: u64| Request { args: [i, 0, 0, 0], ..req(op::CLOSE_CONTEXT) };
    w.ask(Side::A, child, close(parent.ctx.into()), None).fails(Errno::INVAL);
    w.ask(Side::A, child, close(u64::MAX), None).fails(Errno::INVAL);
    w.ask(Side::A, parent.client, close(parent.ctx.into()), None).ok();
    w.ask(Side::A, parent.client, close(parent.ctx.into()), None).fails(Errno::INVAL);
}

#[test]
fn a_reopened_context_starts_with_zeroed_memory() {
    let mut w = World::new();
    let app = w.start(Side::A);
    let memory = w.a.memory(app.region);
    let header: RegionHeader = memory.get(0);
    use crate::core::Memory;
    memory.store(header.context_page(app.ctx), 99);
    memory.store(header.ev_queue(app.ctx) + 60, 1);
    w.ask(Side::A, app.client, Request { args: [app.ctx.into(), 0, 0, 0], ..req(op::CLOSE_CONTEXT) }, None).ok();
    assert_eq!(w.ask(Side::A, app.client, req(op::OPEN_CONTEXT), None).ok().args[0] as u32, app.ctx);
    assert_eq!((memory.load(header.context_page(app.ctx)), memory.load(header.ev_queue(app.ctx) + 60)), (0, 0));
}

#[test]
fn the_pool_gives_each_slot_once_until_none_is_left() {
    let mut w = World::new();
    let app = w.start(Side::A);
    assert_eq!(w.sockets(app, 10), (0..10).collect::<Vec<_>>());
    assert_eq!(w.sockets(app, u64::MAX), (10..16).collect::<Vec<_>>());
    w.ask(Side::A, app.client, req(op::POOL), None).fails(Errno::NFILE);
    w.close(app, 3);
    assert_eq!(w.sockets(app, 5), [3]);
}

#[test]
fn the_pool_gives_what_descriptors_there_are() {
    let mut w = World::new();
    let app = w.start(Side::A);
    w.a.core.host().descriptors = 2;
    assert_eq!(w.sockets(app, 8).len(), 2);
    w.ask(Side::A, app.client, req(op::POOL), None).fails(Errno::MFILE);
}

#[test]
fn a_port_is_bound_once() {
    let mut w = World::new();
    let (one, two) = (w.start(Side::A), w.start(Side::A));
    let (s, t) = (w.sockets(one, 3), w.sockets(two, 1));
    let bind = |slot, port| Request { slot, port, ..req(op::BIND) };
    assert_eq!(w.ask(Side::A, one.client, bind(s[0], 80), None).ok().port, 80);
    w.ask(Side::A, one.client, bind(s[0], 81), None).fails(Errno::INVAL);
    w.ask(Side::A, one.client, bind(s[1], 80), None).fails(Errno::ADDRINUSE);
    w.ask(Side::A, two.client, bind(t[0], 80), None).fails(Errno::ADDRINUSE);
    let elsewhere = Request { ip: v4_mapped([9, 9, 9, 9]), ..bind(s[1], 82) };
    w.ask(Side::A, one.client, elsewhere, None).fails(Errno::ADDRNOTAVAIL);
    assert_ne!(w.ask(Side::A, one.client, bind(s[1], 0), None).ok().port, 0);
    w.close(one, s[0]);
    w.ask(Side::A, two.client, bind(t[0], 80), None).ok();
    let reuse = Request { flags: bind_flags::REUSEADDR, ..bind(99, 80) };
    w.ask(Side::A, one.client, reuse, None).fails(Errno::BADF);
}

#[test]
fn listen_takes_a_ring_and_gives_it_back() {
    let mut w = World::new();
    let app = w.start(Side::A);
    let s = w.sockets(app, 4);
    let listen = |slot| Request { slot, args: [5, 0, 0, 0], ..req(op::LISTEN) };
    // Unbound: a port is chosen.
    assert_ne!(w.ask(Side::A, app.client, listen(s[0]), None).ok().port, 0);
    w.listen(app, s[1], 80, 0);
    assert_eq!(w.a.slot(app.region, s[1]).conn.state, slot_state::LISTENING);
    assert_ne!(w.a.slot(app.region, s[0]).listen.ring, w.a.slot(app.region, s[1]).listen.ring);
    w.ask(Side::A, app.client, listen(s[2]), None).fails(Errno::NOBUFS);
    // Again, on a listener: the backlog changes.
    w.ask(Side::A, app.client, listen(s[1]), None).ok();
    let unlisten = Request { slot: s[1], ..req(op::UNLISTEN) };
    w.ask(Side::A, app.client, unlisten, None).ok();
    assert_eq!(w.a.slot(app.region, s[1]).conn.state, slot_state::OPEN);
    w.ask(Side::A, app.client, unlisten, None).fails(Errno::INVAL);
    w.ask(Side::A, app.client, listen(s[2]), None).ok();
    w.ask(Side::A, app.client, Request { args: [5, 1, 0, 0], ..listen(s[3]) }, None).fails(Errno::INVAL);
    w.ask(Side::A, app.client, listen(99), None).fails(Errno::BADF);
}

#[test]
fn a_connection_appears_in_slot_and_accept_ring() {
    let mut w = World::new();
    let (client, server, from, listening, spare) = w.connected();
    let slot = w.a.slot(client.region, from);
    assert_eq!((slot.names.remote_port, slot.names.remote_ip), (80, v4_mapped([10, 0, 0, 2])));
    assert_eq!((slot.conn.tx_len, slot.conn.rx_len), (8192, 8192));
    assert_ne!(slot.conn.tx_off, slot.conn.rx_off);
    let (flow, args) = w.a.card.last(kind::REBIND);
    assert_eq!((flow, args[1]), (slot.conn.flow, u64::from(from)));
    let record = w.b.accept(server.region, listening, spare).expect("it waits");
    assert_eq!(record.names.remote_port, slot.names.local_port);
    assert_eq!((record.tx_len, record.names.local_port), (8192, 80));
    let header: RegionHeader = w.b.memory(server.region).get(0);
    assert!(record.tx_off >= header.payload_off && record.rx_off + 8192 <= header.len);
    let (_, state) = w.b.card.flows[&record.flow.index];
    assert_eq!((u64::from(state.tx.buf) * 64, u64::from(state.rx.buf) * 64), (record.tx_off, record.rx_off));
    assert_eq!((state.id.region, state.id.ctx), (RegionId(server.region), CtxId::NONE));
    w.ask(Side::A, client.client, Request { slot: from, ..req(op::CONNECT) }, None).fails(Errno::ISCONN);
}

#[test]
fn both_ends_begin_with_their_sockets_options() {
    let mut w = World::new();
    let (client, server) = (w.start(Side::A), w.start(Side::B));
    let listening = w.sockets(server, 1)[0];
    w.b.write_slot(server.region, listening, |s| (s.tx.tos, s.tx.ttl) = (0x20, 9));
    w.listen(server, listening, 80, 4);
    let from = w.sockets(client, 1)[0];
    // Whatever a library writes is brought to what is sane.
    w.a.write_slot(client.region, from, |s| {
        (s.tx.tos, s.tx.max_segment, s.tx.syn_retries, s.tx.defer_accept_s) = (u32::MAX, 1, u32::MAX, u32::MAX);
    });
    assert_eq!(w.connect(client, from, [10, 0, 0, 2], 80).errno, errno(Errno::INPROGRESS));
    let of = |node: &mut Node, flow: toe_abi::FlowId| node.card.flows[&flow.index].1.id;
    let ours = w.a.slot(client.region, from).conn.flow;
    let theirs = w.b.take_record(server.region, listening).expect("it waits").flow;
    let (ours, theirs) = (of(&mut w.a, ours), of(&mut w.b, theirs));
    assert_eq!((ours.tos, ours.ttl), (0xfc, 64), "without ECN bits");
    assert_eq!((theirs.tos, theirs.ttl), (0x20, 9));
}

/// Half-open connections that wait for data take places from everybody.
#[test]
fn no_listener_waits_for_data_for_years() {
    let mut w = World::new();
    let server = w.start(Side::B);
    let listening = w.sockets(server, 1)[0];
    let memory = w.b.memory(server.region);
    let slot = memory.get::<RegionHeader>(0).socket(listening);
    for (asked, granted) in [(0, 0), (30, 30), (120, 120), (121, 120), (u32::MAX, 120)] {
        w.b.write_slot(server.region, listening, |s| s.tx.defer_accept_s = asked);
        assert_eq!(open_options(&memory, slot).defer_accept_us, granted * 1_000_000);
    }
}

#[test]
fn notices_are_counted_and_sleepers_woken() {
    use crate::core::Memory;
    let mut w = World::new();
    let (client, server) = (w.start(Side::A), w.start(Side::B));
    let header: RegionHeader = w.b.memory(server.region).get(0);
    let page = header.context_page(server.ctx);
    let slots = w.sockets(server, 1);
    w.listen(server, slots[0], 80, 4);
    let from = w.sockets(client, 2);
    w.connect(client, from[0], [10, 0, 0, 2], 80);
    assert_eq!(w.b.memory(server.region).load(page + 128), 1);
    assert!(w.b.core.host().interrupts.is_empty(), "nobody slept");
    w.b.memory(server.region).store(page + 8, 1);
    w.connect(client, from[1], [10, 0, 0, 2], 80);
    assert_eq!(w.b.memory(server.region).load(page + 128), 2);
    assert_eq!(w.b.core.host().interrupts, [CtxId(1)]);
}

#[test]
fn a_subscriber_hears_of_what_waits_already() {
    use crate::core::Memory;
    let mut w = World::new();
    let (_, server, _, listening, _) = w.connected();
    let child = w.sibling(server);
    let ctx = w.ask(Side::B, child, req(op::OPEN_CONTEXT), None).ok().args[0];
    let subscribe = Request { slot: listening, args: [ctx, 0, 0, 0], ..req(op::SUBSCRIBE) };
    w.ask(Side::B, child, subscribe, None).ok();
    let header: RegionHeader = w.b.memory(server.region).get(0);
    assert_eq!(w.b.memory(server.region).load(header.context_page(ctx as u32) + 128), 1);
    w.ask(Side::B, child, Request { slot: 15, ..subscribe }, None).fails(Errno::BADF);
}

#[test]
fn a_refused_connect_says_so_in_its_slot_and_may_be_tried_again() {
    let mut w = World::new();
    let client = w.start(Side::A);
    let slot = w.sockets(client, 1)[0];
    for _ in 0..3 {
        assert_eq!(w.connect(client, slot, [10, 0, 0, 2], 81).errno, errno(Errno::INPROGRESS));
        let s = w.a.slot(client.region, slot);
        assert_eq!((s.conn.state, s.conn.error), (slot_state::FAILED, errno(Errno::CONNREFUSED)));
    }
    assert_eq!(w.a.core.status().applications[0].connections, 0);
}

#[test]
fn a_host_that_does_not_answer_is_unreachable_after_a_while() {
    let mut w = World::new();
    let client = w.start(Side::A);
    let slots = w.sockets(client, 2);
    w.connect(client, slots[0], [10, 0, 0, 77], 80);
    assert_eq!(w.a.slot(client.region, slots[0]).conn.state, slot_state::CONNECTING);
    let again = Request { slot: slots[0], ip: v4_mapped([10, 0, 0, 2]), port: 1, ..req(op::CONNECT) };
    w.ask(Side::A, client.client, again, None).fails(Errno::ALREADY);
    w.pass(200 * SEC);
    assert_eq!(w.a.slot(client.region, slots[0]).conn.error, errno(Errno::HOSTUNREACH));
    assert_eq!(w.connect(client, slots[1], [99, 0, 0, 1], 80).errno, errno(Errno::NETUNREACH));
}

#[test]
fn connections_and_payload_memory_are_limited() {
    let mut w = World::new();
    let client = w.start(Side::A);
    let slots = w.sockets(client, 7);
    for &slot in &slots[..6] {
        w.connect(client, slot, [10, 0, 0, 77], 80);
    }
    assert_eq!(w.connect(client, slots[6], [10, 0, 0, 77], 80).errno, errno(Errno::NOBUFS));
    // Two buffers of 8 KiB each do not fit into 12 KiB.
    let mut w = World::with(Limits { payload_len: 12 << 10, ..limits() });
    let client = w.start(Side::A);
    let server = w.start(Side::B);
    let listening = w.sockets(server, 1)[0];
    w.listen(server, listening, 80, 4);
    let slot = w.sockets(client, 1)[0];
    w.connect(client, slot, [10, 0, 0, 2], 80);
    w.pass(300 * SEC);
    assert_eq!(w.a.slot(client.region, slot).conn.state, slot_state::FAILED);
    assert_eq!(w.a.core.status().applications[0].memory_bytes, 0);
}

#[test]
fn identify_finds_the_slot_of_a_token_of_the_family() {
    let mut w = World::new();
    let (one, two) = (w.start(Side::A), w.start(Side::A));
    let slot = w.sockets(one, 2)[1];
    let token = Some(Proof::Token(RegionId(one.region), slot));
    assert_eq!(w.ask(Side::A, one.client, req(op::IDENTIFY), token).ok().args[0], u64::from(slot));
    w.ask(Side::A, two.client, req(op::IDENTIFY), token).fails(Errno::BADF);
    w.ask(Side::A, one.client, req(op::IDENTIFY), None).fails(Errno::BADF);
}

/// RFC 9293 3.10.6-1.
#[test]
fn reports_show_connections_listeners_and_counters() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    let jobs = (w.a.core.report_connections(), w.b.core.report_connections(), w.a.core.report_stats());
    w.run();
    let Some((job, Report::Connections(rows))) = w.a.core.poll_report() else { panic!("a report") };
    assert_eq!((job, rows.len()), (jobs.0, 1));
    let port = w.a.slot(client.region, from).names.local_port;
    assert_eq!((rows[0].local.as_str(), rows[0].remote.as_str()), (format!("10.0.0.1:{port}").as_str(), "10.0.0.2:80"));
    assert_eq!((rows[0].state.as_str(), rows[0].pid, rows[0].rx_queue, rows[0].tx_queue), ("ESTAB", Some(1001), 0, 0));
    let Some((_, Report::Stats(stats))) = w.a.core.poll_report() else { panic!("counters") };
    assert_eq!(stats["rx_frames"], 1);
    assert_eq!(stats["exception_other_protocol"], toe_abi::counters::TOTAL as u64);
    assert_eq!(stats["engine_active_opens"], 1);
    let Some((_, Report::Connections(rows))) = w.b.core.poll_report() else { panic!("a report") };
    let states: Vec<&str> = rows.iter().map(|r| r.state.as_str()).collect();
    assert_eq!(states, ["LISTEN", "ESTAB"]);
    assert_eq!(rows[0].rx_queue, 1, "one waits to be accepted");
    let status = w.b.core.status();
    assert_eq!((status.card.flows, status.applications[0].connections, status.listeners[0].waiting), (1, 1, 1));
    assert_eq!(status.applications[0].memory_bytes, 16384);
}
