//! The card against fakes, its stages put together each way: what each side sees.

mod common;

use common::*;
use toe_abi::{
    CtxId, FlowId,
    control::{CONTROL_ENTRIES, ControlMsg, RateOrder, RateReport, close_reason, kind, status},
    counters::{Counter, Drop, Exception},
    desc::{HostDesc, ev_flags, hc, hc_flags},
    flow::{FlowOptions, cc, flow_flags},
    frames,
    observe::{STAGES_PER_MSG, StageRecord, TraceRecord, trace_kind, trace_op},
};
use toe_datapath::{CardConfig, Composition};
use toe_hal::{
    HostMemory, PortCaps, RxOffload,
    fake::{FakeFrame, MemoryKnobs, PortKnobs},
};
use toe_wire::{
    Arp, ArpOp, TcpFlags,
    nd::{FRAME_MAX, Solicitation},
};

const NO_FLAGS: TcpFlags = TcpFlags::empty();

#[track_caller]
fn accounted(b: &Bench<impl Fake>) {
    assert_eq!(b.card.counters().unaccounted(), 0, "received = delivered + exceptions + answered + drops");
}

fn in_order_data_is_placed_announced_and_acknowledged(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.segment(0, 0, 0, NO_FLAGS, &stream(0, 500));
    b.segment(0, 500, 0, NO_FLAGS, &stream(500, 500));
    b.run();
    let events = b.events(1, true);
    let last = events.last().unwrap();
    assert_eq!((last.flow, last.rx_head, last.opaque, last.flags), (flow, 1000, 100, 0));
    assert_eq!(b.received(1, 0, 0, 1000), stream(0, 1000));
    b.run_for(50_000);
    assert_eq!(b.sent().last().unwrap().acked(), 1000);
    assert_eq!(b.card.counters().get(Counter::RxDelivered), 2);
    assert_eq!(b.port.leases_out(), 0);
    accounted(&b);
}

#[test]
fn on_one_core_the_smallest_pools_hold_a_burst() {
    let smallest = toe_datapath::CardConfig { pool_messages: 0, posting_entries: 0, ..config() };
    let mut b = OneCore.bench_with(smallest, caps());
    b.install(0, 1);
    b.segment(0, 0, 0, NO_FLAGS, &stream(0, 500));
    b.run();
    assert_eq!(b.received(1, 0, 0, 500), stream(0, 500));
}

/// A train, one that ends by PSH, one that ends by an ACK, and segments out of order: every byte is in its place, each frame is counted and
/// given back.
fn adjacent_segments_are_taken_together(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(0, 1);
    let (plain, push) = ([NO_FLAGS; 4], [NO_FLAGS, TcpFlags::PSH, NO_FLAGS, NO_FLAGS]);
    for (first, flags) in [(0, plain), (400, push), (800, plain)] {
        for (at, flags) in (first..).step_by(100).zip(flags) {
            b.segment(0, at, 0, flags, &stream(at, 100));
        }
        b.run();
        b.events(1, true);
    }
    for (at, len) in [(1200, 100), (1300, 0), (1300, 100)] {
        b.segment(0, at, 0, NO_FLAGS, &stream(at, len));
    }
    b.run_for(50_000);
    assert_eq!(b.sent().last().unwrap().acked(), 1400);
    [1500, 1600, 1700].into_iter().for_each(|at| b.segment(0, at, 0, NO_FLAGS, &stream(at, 100)));
    b.run();
    assert_eq!(b.events(1, true).last().unwrap().rx_head, 1400);
    assert_eq!((b.received(1, 0, 0, 1400), b.received(1, 0, 1500, 300)), (stream(0, 1400), stream(1500, 300)));
    assert_eq!(b.sent().iter().map(Sent::acked).collect::<Vec<_>>(), [1400; 3], "out of order: an ACK for each");
    assert_eq!(b.card.counters().get(Counter::RxDelivered), 18);
    assert_eq!(b.card.counters().get(Counter::RxPayloadBytes), 1700);
    assert_eq!(b.port.leases_out(), 0);
    accounted(&b);
}

fn out_of_order_data_is_placed_at_once_and_announced_when_complete(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(0, 1);
    b.segment(0, 700, 0, NO_FLAGS, &stream(700, 300));
    b.run();
    assert!(b.events(1, true).is_empty());
    assert_eq!(b.sent().last().unwrap().acked(), 0);
    assert_eq!(b.received(1, 0, 700, 300), stream(700, 300));
    b.segment(0, 0, 0, NO_FLAGS, &stream(0, 700));
    b.run();
    assert_eq!(b.events(1, true).last().unwrap().rx_head, 1000);
    assert_eq!(b.sent().last().unwrap().acked(), 1000);
    assert_eq!(b.received(1, 0, 0, 1000), stream(0, 1000));
    assert_eq!(b.card.counters().get(Counter::RxOutOfOrder), 1);
    accounted(&b);
}

fn a_super_frame_with_a_partial_checksum_is_taken_whole(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(0, 1);
    let mut bytes = peer_segment(0, 0, 0, NO_FLAGS, &stream(0, 4000));
    bytes[14 + 20 + 16] ^= 0xff; // not a checksum of the whole segment
    let offload = RxOffload { csum_ok: true, partial_csum: true, gso_size: 1000 };
    b.port.arrive(FakeFrame { bytes, offload });
    b.run();
    assert_eq!(b.events(1, true).last().unwrap().rx_head, 4000);
    assert_eq!(b.sent().last().unwrap().acked(), 4000);
    assert_eq!(b.received(1, 0, 0, 4000), stream(0, 4000));
}

fn bytes_are_echoed_through_buffers_that_wrap(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    let (mut pos, mut echoed) = (0u32, Vec::new());
    while pos < 5 * BUF as u32 {
        let len = 777;
        b.segment(0, pos, pos, NO_FLAGS, &stream(pos, len));
        b.run();
        let got = b.received(1, 0, pos, len);
        pos += len;
        b.fill(1, 0, pos - len, &got);
        b.update(1, flow, pos, pos, hc_flags::NODELAY);
        b.run();
        for sent in b.sent() {
            assert_eq!(sent.pos() as usize, echoed.len() - echoed.len().min(echoed.len() - sent.pos() as usize));
            echoed.extend_from_slice(sent.payload());
        }
        b.events(1, true);
    }
    assert_eq!(echoed, stream(0, pos));
    accounted(&b);
}

fn a_port_that_segments_gets_super_frames(kind: &impl Kind) {
    let caps = PortCaps { tx_csum: true, tso_max: 65_536, ..caps() };
    let mut b = kind.bench_with(config(), caps);
    let flow = b.install(0, 1);
    b.fill(1, 0, 0, &stream(0, 4000));
    b.update(1, flow, 4000, 0, 0);
    b.run();
    let sent = b.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].payload(), stream(0, 4000));
    let offload = sent[0].frame.offload;
    assert_eq!((offload.gso_size, offload.partial_csum, offload.csum_start, offload.csum_offset), (MSS, true, 34, 16));
    assert_eq!(u32::from(offload.hdr_len), 54);
}

/// RFC 3168 5-1, 6.1.2-1: ECT(0), and only on data.
fn an_ecn_capable_flow_sends_ect_0(kind: &impl Kind) {
    let mut b = kind.bench();
    let mut state = b.flow_state(0, 1, 1);
    state.rx.flags |= flow_flags::ECN | flow_flags::ACK_NOW;
    let flow = b.install_state(&state).flow;
    b.update(1, flow, 0, 0, 0);
    b.run();
    b.update(1, flow, 10, 0, 0);
    b.run();
    let codepoints: Vec<_> = b.sent().iter().map(|s| (s.payload().len(), s.parsed.tcp().unwrap().0.ecn)).collect();
    assert_eq!(codepoints, [(0, 0), (10, 2)]);
}

fn events_of_one_flow_merge_while_the_queue_is_full(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    for i in 0..10 {
        b.segment(0, i * 100, 0, NO_FLAGS, &stream(i * 100, 100));
        b.run_for(100);
    }
    // Four entries: three updates were shown one by one, or merged; the rest waits.
    let events = b.events(1, true);
    assert_eq!(events.len(), 4);
    assert!(events.last().unwrap().rx_head < 1000);
    assert_eq!(b.card.counters().get(Counter::EventQueueFull), 1);
    // Nobody kicks; the card tries again by itself.
    b.run_for(200_000);
    let events = b.events(1, true);
    assert_eq!(events.iter().map(|e| (e.flow, e.rx_head)).collect::<Vec<_>>(), [(flow, 1000)]);
}

fn a_sleeping_host_is_interrupted_and_a_waking_one_is_not(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(0, 1);
    b.kick.take();
    b.segment(0, 0, 0, NO_FLAGS, b"x");
    b.run();
    assert_eq!(b.kick.take(), []);
    let parked = b.page(1).add(8);
    b.memory.store(parked, 1).unwrap();
    b.segment(0, 1, 0, NO_FLAGS, b"y");
    b.run();
    assert_eq!(b.kick.take(), [CtxId(1)]);
}

fn forged_descriptors_are_counted_and_change_nothing(kind: &impl Kind) {
    let mut b = kind.bench();
    b.map_region(2);
    b.open_context(3, 2, 0);
    let flow = b.install(0, 1);
    b.post(1, HostDesc { kind: 77, flow, ..Default::default() });
    b.update(1, FlowId { index: 31, generation: 1 }, 0, 0, 0);
    b.update(1, FlowId { generation: flow.generation + 1, ..flow }, 0, 0, 0);
    b.update(1, FlowId { index: u32::MAX - 3, generation: 1 }, 0, 0, 0);
    b.update(3, flow, 100, 0, 0);
    [hc::CLOSE, hc::ABORT].into_iter().for_each(|kind| b.post(3, HostDesc { kind, flow, ..Default::default() }));
    b.update(1, flow, BUF as u32 + 1, 0, 0);
    b.update(1, flow, 0, 1, 0);
    b.run();
    let c = b.card.counters();
    assert_eq!(c.get(Counter::HcDescriptors), 9);
    assert_eq!(c.get(Counter::HcBadKind), 1);
    assert_eq!(c.get(Counter::HcBadFlow), 3);
    assert_eq!(c.get(Counter::HcForeignFlow), 3);
    assert_eq!(c.get(Counter::HcBadPosition), 2);
    assert!(b.sent().is_empty());
}

fn a_context_with_insane_indices_is_failed_and_others_are_not(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(0, 1);
    b.install(1, 2);
    let page = b.page(1);
    b.memory.store(page.add(4), 0x8000_0000).unwrap();
    for i in 0..6 {
        b.segment(0, i, 0, NO_FLAGS, b"x");
        b.run_for(100);
    }
    b.segment(1, 0, 0, NO_FLAGS, b"x");
    b.run();
    assert_eq!(b.card.counters().get(Counter::ContextsFailed), 1);
    assert_eq!(b.memory.load(page.add(64 + 12)), Ok(1));
    assert_eq!(b.events(2, true).len(), 1);
}

fn each_kind_of_garbage_has_its_counter(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(0, 1);
    let good = peer_segment(0, 0, 0, NO_FLAGS, b"hello");
    let mutate = |f: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        f(&mut frame);
        frame
    };
    // Changes of the IP header that keep its checksum right: RFC 1624.
    let fix = |f: &mut Vec<u8>| {
        f[24] = 0;
        f[25] = 0;
        let sum = toe_wire::checksum::checksum(&f[14..34]);
        f[24..26].copy_from_slice(&sum.to_be_bytes());
    };
    let cases: [(Drop, Vec<u8>); 8] = [
        (Drop::Truncated, mutate(&|f| f.truncate(13))),
        (Drop::Truncated, mutate(&|f| f.truncate(40))),
        (Drop::OtherMac, mutate(&|f| f[5] = 9)),
        (Drop::BadIpHeader, mutate(&|f| f[14] = 0x65)),
        (Drop::BadIpChecksum, mutate(&|f| f[24] ^= 1)),
        (Drop::BadTcpHeader, mutate(&|f| f[46] = 0x10)),
        (Drop::BadTcpChecksum, mutate(&|f| f[54] ^= 1)),
        (
            Drop::BadTcpChecksum,
            mutate(&|f| {
                f[16..18].copy_from_slice(&44u16.to_be_bytes());
                fix(f)
            }),
        ),
    ];
    for (i, (reason, frame)) in cases.into_iter().enumerate() {
        let before = b.card.counters().drops(reason);
        b.arrive(frame);
        b.run();
        assert_eq!(b.card.counters().drops(reason), before + 1, "case {i}: {reason:?}");
    }
    assert!(b.events(1, true).is_empty());
    assert_eq!(b.port.leases_out(), 0);
    accounted(&b);
}

fn arp_for_an_own_address_is_answered_and_shown_to_the_control_plane(kind: &impl Kind) {
    let mut b = kind.bench();
    let request = |target_ip| Arp { op: ArpOp::Request, sender_mac: PEER_MAC, sender_ip: PEER_IP, target_mac: [0; 6], target_ip };
    for target in [CARD_IP, [10, 0, 0, 77]] {
        let mut bytes = [0; 64];
        let len = request(target).write(&[0xff; 6], None, &mut bytes).unwrap();
        b.arrive(bytes[..len].to_vec());
        b.run();
    }
    let sent = b.sent();
    assert_eq!(sent.len(), 1);
    let reply = Arp::parse(&sent[0].frame.bytes[14..]).unwrap();
    assert_eq!((reply.op, reply.sender_mac, reply.sender_ip), (ArpOp::Reply, CARD_MAC, CARD_IP));
    assert_eq!((reply.target_mac, reply.target_ip), (PEER_MAC, PEER_IP));
    assert_eq!(b.exceptions().len(), 2);
    let c = b.card.counters();
    assert_eq!((c.get(Counter::RxAnswered), c.exceptions(Exception::Arp)), (1, 1));
    accounted(&b);
}

fn solicitations_for_an_own_address_are_answered_and_shown_to_the_control_plane(kind: &impl Kind) {
    let mut b = kind.bench();
    let ask = |target| Solicitation::multicast(PEER_IP6, PEER_MAC, target);
    for (asked, from) in
        [(ask(CARD_IP6), PEER_MAC), (ask(PEER_IP6), PEER_MAC), (Solicitation::probe(CARD_IP6), PEER_MAC), (ask(CARD_IP6), [1; 6])]
    {
        let mut bytes = [0; FRAME_MAX];
        let len = asked.write(CARD_MAC, from, None, &mut bytes).unwrap();
        b.arrive(bytes[..len].to_vec());
        b.run();
    }
    let answers: Vec<_> = b.sent().into_iter().map(|s| s.frame.bytes).collect();
    let wanted = |asked: Solicitation| {
        let mut bytes = [0; FRAME_MAX];
        let len = asked.reply(CARD_MAC).write(PEER_MAC, CARD_MAC, None, &mut bytes).unwrap();
        bytes[..len].to_vec()
    };
    assert_eq!(answers, [wanted(ask(CARD_IP6)), wanted(Solicitation::probe(CARD_IP6))]);
    assert_eq!(b.exceptions().len(), 4);
    let c = b.card.counters();
    assert_eq!((c.get(Counter::RxAnswered), c.exceptions(Exception::Arp)), (2, 2));
    accounted(&b);
}

fn what_is_for_groups_alone_does_not_wake_the_control_plane(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(0, 1);
    let to = |group: [u8; 6], mut frame: Vec<u8>| {
        frame[..6].copy_from_slice(&group);
        frame
    };
    let (all, nodes) = ([0xff; 6], [0x33, 0x33, 0, 0, 0, 1]);
    let fragment = icmpv6_to_all([&[58, 0, 0, 1, 0, 0, 0, 7][..], &[128, 0, 0, 0, 0, 0, 0, 0]].concat(), 44);
    let dropped = [
        to(all, peer_segment(0, 0, 0, NO_FLAGS, b"hello")),
        to(all, peer_segment(1, 0, 0, TcpFlags::SYN, b"")),
        to(all, udp_broadcast()),
        to([1, 0x80, 0xc2, 0, 0, 0xe], [&[0; 6][..], &PEER_MAC, &[0x88, 0xcc], &[0; 46]].concat()),
        to(nodes, icmpv6_to_all(vec![128, 0, 0, 0, 0, 0, 0, 0], 58)),
        to(nodes, icmpv6_to_all(vec![143, 0, 0, 0, 0, 0, 0, 0], 58)),
        to(nodes, fragment),
    ];
    let count = dropped.len() as u64;
    for frame in dropped {
        b.arrive(frame);
        b.run();
    }
    assert_eq!((b.exceptions().len(), b.card.counters().drops(Drop::Group)), (0, count));
    // A router speaks, and one asks who listens: to all as well.
    let advertisement = vec![134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let query = [&[130, 0, 0, 0, 0, 1, 0, 0][..], &[0; 20]].concat();
    for message in [advertisement, query] {
        b.arrive(to(nodes, icmpv6_to_all(message, 58)));
        b.run();
    }
    assert_eq!((b.exceptions().len(), b.card.counters().drops(Drop::Group)), (2, count));
    accounted(&b);
}

/// A datagram to all, sound as far as the card looks.
fn udp_broadcast() -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 255];
    let sum = toe_wire::checksum::checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&[0; 6][..], &PEER_MAC, &[8, 0], &ip, &[0, 67, 0, 68, 0, 8, 0, 0]].concat()
}

/// What stands behind an IPv6 header to all nodes, of this kind; the checksum of ICMPv6 is filled in.
fn icmpv6_to_all(mut body: Vec<u8>, kind: u8) -> Vec<u8> {
    let src = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let dst = toe_wire::ipv6::ALL_NODES;
    if kind == 58 {
        let sum = toe_wire::checksum::pseudo_header(&src, &dst, 58, body.len() as u32).bytes(&body).finish();
        body[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let hop_limit = if body[0] == 130 || body[0] == 143 { 1 } else { 255 };
    let fixed = [0x60, 0, 0, 0, 0, body.len() as u8, kind, hop_limit];
    [&[0; 6][..], &PEER_MAC, &[0x86, 0xdd], &fixed, &src, &dst, &body].concat()
}

fn a_flow_over_ipv6_receives_and_sends(kind: &impl Kind) {
    let mut b = kind.bench();
    let n = FIRST_V6;
    b.install(n, 1);
    b.segment(n, 0, 0, NO_FLAGS, &stream(0, 1000));
    b.segment(n, 1000, 0, TcpFlags::PSH, &stream(1000, 500));
    b.run();
    assert_eq!(b.events(1, true).last().unwrap().rx_head, 1500);
    let sent = b.sent();
    let last = sent.last().unwrap();
    let (ip, _) = last.parsed.tcp().unwrap();
    assert_eq!((ip.src, ip.dst, ip.ttl, last.acked()), (CARD_IP6, PEER_IP6, 64, 1500));
    // Behind extension headers, and broken.
    let mut with_options = peer_segment(n, 1500, 0, NO_FLAGS, b"behind");
    with_options.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
    (with_options[19], with_options[20]) = (with_options[19] + 8, 60);
    b.arrive(with_options);
    let mut broken = peer_segment(n, 1506, 0, NO_FLAGS, b"broken");
    *broken.last_mut().unwrap() ^= 1;
    b.arrive(broken);
    b.run();
    assert_eq!(b.events(1, true).last().unwrap().rx_head, 1506);
    assert_eq!(b.card.counters().drops(Drop::BadTcpChecksum), 1);
    accounted(&b);
}

fn a_flow_on_a_vlan_is_found_there_alone_and_answers_there(kind: &impl Kind) {
    let mut b = kind.bench();
    let mut state = b.flow_state(0, 1, 1);
    state.id.vlan = 7;
    assert_eq!(b.install_state(&state).status, status::OK);
    let plain = peer_segment(0, 0, 0, TcpFlags::PSH, b"hello");
    let tagged = |tag: u16| [&plain[..12], &[0x81, 0], &tag.to_be_bytes(), &plain[12..]].concat();
    for (frame, received) in [(plain.clone(), 0), (tagged(0), 0), (tagged(8), 0), (tagged(0xe007), 5)] {
        b.arrive(frame);
        b.run();
        assert_eq!(b.events(1, true).last().map_or(0, |e| e.rx_head), received);
    }
    let sent = b.sent();
    assert!(!sent.is_empty() && sent.iter().all(|s| s.parsed.eth.vlan == Some(7)));
    assert_eq!(b.card.counters().exceptions(Exception::UnknownFlow), 3);
    accounted(&b);
}

fn frames_of_no_flow_go_to_the_control_plane_with_their_reason(kind: &impl Kind) {
    let mut b = kind.bench();
    let syn = peer_segment(5, 0, 0, TcpFlags::SYN, b"");
    b.arrive(syn.clone());
    let bytes = peer_segment(6, 0, 0, NO_FLAGS, b"data");
    let offload = RxOffload { csum_ok: true, partial_csum: true, gso_size: 2 };
    // One by one: frames of two flows need not keep their order.
    b.run();
    b.port.arrive(FakeFrame { bytes, offload });
    b.run();
    let got = b.exceptions();
    assert_eq!((got[0].0.reason, &got[0].1), (Exception::Syn as u32, &syn));
    let record = got[1].0;
    assert_eq!(record.reason, Exception::UnknownFlow as u32);
    assert_eq!(record.flags, frames::flags::CSUM_OK | frames::flags::NEEDS_CSUM);
    assert_eq!((record.csum_start, record.csum_offset, record.gso_size), (34, 16, 2));
    accounted(&b);
}

fn a_full_exception_ring_drops_and_recovers(kind: &impl Kind) {
    let mut b = kind.bench();
    let frame = peer_segment(5, 0, 0, TcpFlags::SYN, &[0; 60_000]);
    for lap in 0..3 {
        // One by one: the rings inside have room for each.
        for _ in 0..20 {
            b.arrive(frame.clone());
            b.run();
        }
        let got = b.exceptions();
        assert!((15..=17).contains(&got.len()), "lap {lap}: {}", got.len());
        assert!(got.iter().all(|(_, bytes)| *bytes == frame));
    }
    let c = b.card.counters();
    assert_eq!(c.get(Counter::RxExceptions) + c.drops(Drop::ExceptionRingFull), 60);
    assert_eq!(b.port.leases_out(), 0);
    accounted(&b);
}

fn without_a_control_plane_flows_go_on_and_the_rest_is_counted(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(0, 1);
    b.detach();
    b.segment(0, 0, 0, NO_FLAGS, b"still here");
    b.segment(9, 0, 0, TcpFlags::SYN, b"");
    b.run();
    assert_eq!(b.events(1, true).last().unwrap().rx_head, 10);
    assert_eq!(b.card.counters().drops(Drop::NoControlPlane), 1);
    accounted(&b);
}

fn an_unbound_flow_shows_what_it_has_when_it_is_bound(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, CtxId::NONE.0);
    b.segment(0, 0, 0, NO_FLAGS, b"request");
    b.run();
    b.post(2, HostDesc { kind: hc::REBIND, flow, opaque: 7, ..Default::default() });
    b.run();
    let events = b.events(2, true);
    assert_eq!(events.iter().map(|e| (e.flow, e.rx_head, e.opaque)).collect::<Vec<_>>(), [(flow, 7, 7)]);
}

fn injected_frames_are_processed_as_if_from_the_wire(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(0, 1);
    b.packet(frames::kind::INJECT, &peer_segment(0, 0, 0, NO_FLAGS, &stream(0, 3000)), 0);
    b.packet(frames::kind::INJECT, &peer_segment(0, 3000, 0, NO_FLAGS, b"!"), 0);
    b.run();
    assert_eq!(b.events(1, true).last().unwrap().rx_head, 3001);
    assert_eq!(b.received(1, 0, 0, 3000), stream(0, 3000));
    let c = b.card.counters();
    assert_eq!((c.get(Counter::RxInjected), c.get(Counter::RxDelivered)), (2, 2));
    accounted(&b);
}

fn control_frames_go_out_unchanged(kind: &impl Kind) {
    let mut b = kind.bench();
    let frame = peer_segment(0, 0, 0, TcpFlags::SYN, &stream(0, 300));
    b.port.set_knobs(PortKnobs { tx_room: 1, ..Default::default() });
    b.packet(frames::kind::TRANSMIT, &frame[..60], 0);
    b.packet(frames::kind::TRANSMIT, &frame, 0);
    b.run();
    let sent: Vec<_> = std::iter::from_fn(|| b.port.take_sent()).map(|f| f.bytes).collect();
    assert_eq!(sent, [frame[..60].to_vec(), frame]);
    assert_eq!(b.card.counters().get(Counter::TxControlFrames), 2);
}

fn a_reset_by_the_peer_is_the_last_event_and_then_a_notice(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.segment(0, 0, 0, TcpFlags::RST, b"");
    assert_eq!(b.closed(), [(flow, close_reason::RESET.into())]);
    let events = b.events(1, true);
    let last = events.last().unwrap();
    assert_eq!(last.flags & (ev_flags::CLOSED | ev_flags::ERROR), ev_flags::CLOSED | ev_flags::ERROR);
    assert_eq!(last.error, toe_tcp::errno::ECONNRESET);
    // The id is free again, under another generation.
    let again = b.install(0, 1);
    assert_ne!(again, flow);
    assert_eq!(again.index, flow.index);
}

fn the_place_of_a_flow_whose_notice_was_read_is_free_at_once(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(0, 1);
    // More than there are places for, so that those of the first one's group are all taken.
    for n in 1..100 {
        let mut state = b.flow_state(n % 32, 1, 1);
        state.id.key = key(n);
        b.install_state(&state);
    }
    let again = b.flow_state(0, 1, 1);
    b.segment(0, 0, 0, TcpFlags::RST, b"");
    b.run();
    assert_eq!(b.install_state(&again).status, status::NO_SPACE);
    while b.completion().is_some() {}
    assert_eq!(b.install_state(&again).status, status::OK);
}

fn an_unbound_flows_end_waits_for_whoever_accepts_it(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, CtxId::NONE.0);
    b.segment(0, 0, 0, TcpFlags::RST, b"");
    assert_eq!(b.closed(), []);
    b.post(1, HostDesc { kind: hc::REBIND, flow, opaque: 9, ..Default::default() });
    assert_eq!(b.closed(), [(flow, close_reason::RESET.into())]);
    let events = b.events(1, true);
    assert_eq!((events[0].flow, events[0].opaque, events[0].flags & ev_flags::CLOSED), (flow, 9, ev_flags::CLOSED));
}

fn an_unbound_flow_that_is_given_up_is_reported_at_once(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, CtxId::NONE.0);
    assert_eq!(b.ask(kind::ABORT, flow, [0; 5]).status, status::OK);
    assert_eq!(b.closed(), [(flow, close_reason::ABORTED.into())]);
    assert!(b.sent().iter().any(|s| s.flags().contains(TcpFlags::RST)));
}

/// What the application wrote just before it closed leaves, even if what it did not read makes the end a reset.
fn a_close_with_unread_data_sends_what_was_written_and_then_resets(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.segment(0, 0, 0, NO_FLAGS, b"unread");
    b.run();
    b.sent();
    b.fill(1, 0, 0, b"last words");
    // Overtakes the UPDATE, which says the same.
    assert_eq!(b.ask(kind::CLOSE, flow, [1, 1, 10, 0, 0]).status, status::OK);
    b.run();
    let sent = b.sent();
    assert_eq!(sent.iter().flat_map(|s| s.payload().to_vec()).collect::<Vec<_>>(), b"last words");
    assert!(sent.last().unwrap().flags().contains(TcpFlags::RST));
    assert_eq!(b.closed(), [(flow, close_reason::ABORTED.into())]);
}

fn a_full_close_ends_with_both_fins(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.fill(1, 0, 0, b"bye");
    // Overtakes the UPDATE that the application never sent: the last bytes are in the request.
    assert_eq!(b.ask(kind::CLOSE, flow, [0, 1, 3, 0, 0]).status, status::OK);
    b.run();
    let sent = b.sent();
    let last = sent.last().unwrap();
    assert!(last.flags().contains(TcpFlags::FIN));
    assert_eq!(sent.iter().flat_map(|s| s.payload().to_vec()).collect::<Vec<_>>(), b"bye");
    b.segment(0, 0, 4, TcpFlags::FIN, b"");
    assert_eq!(b.closed(), [(flow, close_reason::TIME_WAIT.into())]);
    assert_eq!(b.sent().last().unwrap().acked(), 1);
}

/// Whoever shares the region may end the flow at once, while notices of others are on their way: toed would take it for one that lives.
fn an_install_is_answered_before_its_flow_is_said_to_have_ended(kind: &impl Kind) {
    let mut b = kind.bench();
    (1..4).for_each(|n| _ = b.install(n, 1));
    let before = b.install(0, 1);
    b.segment(0, 0, 0, TcpFlags::RST, b"");
    assert_eq!(b.closed().len(), 1);
    b.events(1, true);
    // It gets the place that is free.
    let flow = FlowId { generation: before.generation + 1, ..before };
    let mut install = ControlMsg::new(kind::INSTALL, 0);
    install.set_flow_state(&b.flow_state(0, 1, CtxId::NONE.0));
    b.submit(install);
    (1..4).for_each(|n| b.segment(n, 0, 0, TcpFlags::RST, b""));
    for _ in 0..400 {
        for kind in [hc::REBIND, hc::ABORT] {
            if b.has_room(1) {
                b.post(1, HostDesc { kind, flow, ..Default::default() });
            }
        }
        b.events(1, true);
        b.card.poll(b.now);
    }
    b.run();
    let told: Vec<_> = std::iter::from_fn(|| b.completion()).filter(|m| m.flow == flow).map(|m| m.kind).collect();
    assert_eq!(told, [kind::INSTALL | kind::REPLY, kind::FLOW_CLOSED]);
}

/// Until the control plane, which may be stopped, has read of the end.
fn a_peer_that_has_missed_the_reset_gets_it_again(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.post(1, HostDesc { kind: hc::ABORT, flow, ..Default::default() });
    b.run();
    b.sent();
    b.segment(0, 0, 0, NO_FLAGS, b"are you there?");
    b.run();
    let sent = b.sent();
    assert_eq!(sent.iter().map(|s| (s.flags().contains(TcpFlags::RST), s.pos())).collect::<Vec<_>>(), [(true, 0)]);
    // It may be a new connection's.
    b.segment(0, 0, 0, TcpFlags::SYN, b"");
    b.run();
    assert_eq!((b.sent().len(), b.exceptions().len()), (0, 1));
    accounted(&b);
}

/// By its own word: nobody else has to be there.
fn an_application_closes_its_flow_while_the_control_plane_is_silent(kind: &impl Kind) {
    let mut b = kind.bench();
    let close = |flow, tx_head, rx_tail| HostDesc { kind: hc::CLOSE, flow, tx_head, rx_tail, ..Default::default() };
    let [in_order, unread, late] = [0, 1, 2].map(|n| b.install(n, 1));
    (0..3).for_each(|n| b.segment(n, 0, 0, NO_FLAGS, b"data"));
    b.run();
    b.events(1, true);
    b.sent();
    (0..3).for_each(|n| b.fill(1, n, 0, b"bye"));
    b.post(1, close(in_order, 3, 4));
    b.post(1, close(unread, 3, 3));
    b.post(1, close(late, 3, 4));
    b.run();
    b.events(1, true);
    let sent = b.sent();
    for (n, flag) in [(0, TcpFlags::FIN), (1, TcpFlags::RST), (2, TcpFlags::FIN)] {
        let of: Vec<_> = sent.iter().filter(|s| s.is_of(n)).collect();
        assert_eq!(of.iter().flat_map(|s| s.payload().to_vec()).collect::<Vec<_>>(), b"bye", "flow {n}");
        assert!(of.last().unwrap().flags().contains(flag), "flow {n}");
    }
    b.segment(0, 4, 4, TcpFlags::FIN, b"");
    b.segment(2, 4, 4, NO_FLAGS, b"for nobody");
    b.run();
    assert!(b.sent().iter().any(|s| s.is_of(2) && s.flags().contains(TcpFlags::RST)));
    let mut closed = b.closed();
    closed.sort_by_key(|(flow, _)| flow.index);
    let reset = close_reason::ABORTED.into();
    let mut ends = [(in_order, close_reason::TIME_WAIT.into()), (unread, reset), (late, reset)];
    ends.sort_by_key(|(flow, _)| flow.index);
    assert_eq!(closed, ends);
}

fn unmapping_a_region_resets_its_flows_first(kind: &impl Kind) {
    let mut b = kind.bench();
    b.map_region(2);
    b.open_context(3, 2, 0);
    let kept = b.install(0, 1);
    let state = b.flow_state(1, 2, 3);
    let gone = b.install_state(&state).flow;
    assert_eq!(b.ok(kind::UNMAP_REGION, [2, 0, 0, 0, 0]).status, status::OK);
    assert_eq!(b.notices.iter().map(|n| (n.flow, n.args[0])).collect::<Vec<_>>(), [(gone, close_reason::REGION_GONE.into())]);
    assert!(b.sent().iter().any(|s| s.flags().contains(TcpFlags::RST)));
    assert_eq!(b.install_state(&state).status, status::NOT_FOUND);
    assert_eq!(b.ask(kind::QUERY, kept, [0; 5]).status, status::OK);
    b.map_region(2);
    b.open_context(3, 2, 0);
}

fn closing_a_context_unbinds_its_flows(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.ok(kind::CLOSE_CONTEXT, [1, 0, 0, 0, 0]);
    assert_eq!(b.ask(kind::QUERY, flow, [0; 5]).flow_state().id.ctx, CtxId::NONE);
    b.segment(0, 0, 0, NO_FLAGS, b"abc");
    b.run();
    b.post(2, HostDesc { kind: hc::REBIND, flow, opaque: 1, ..Default::default() });
    b.run();
    assert_eq!(b.events(2, true)[0].rx_head, 3);
}

/// Its process may have died right after it sent something, before the card has looked at the queue.
fn what_was_posted_before_a_context_closes_is_sent(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.run_for(10_000);
    b.fill(1, 0, 0, &stream(0, 100));
    for tx_head in [10, 20, 30, 40, 100] {
        let update = HostDesc { kind: hc::UPDATE, flow, tx_head, flags: hc_flags::NODELAY, ..Default::default() };
        b.post_without_kick(1, update);
    }
    b.ok(kind::CLOSE_CONTEXT, [1, 0, 0, 0, 0]);
    b.run();
    let sent: Vec<u8> = b.sent().iter().flat_map(|s| s.payload().to_vec()).collect();
    assert_eq!(sent, stream(0, 100));
    assert_eq!(b.ask(kind::QUERY, flow, [0; 5]).flow_state().id.ctx, CtxId::NONE);
}

/// Whoever shares its memory may go on writing to its queue: no more than a queue full is read.
fn a_context_that_never_runs_dry_closes(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    let close = ControlMsg { args: [1, 0, 0, 0, 0], ..ControlMsg::new(kind::CLOSE_CONTEXT, 0) };
    let before = b.card.counters().get(Counter::HcDescriptors);
    let answer = b.request_while(close, |b| {
        while b.has_room(1) {
            b.post_without_kick(1, HostDesc { kind: hc::UPDATE, flow, ..Default::default() });
        }
        b.card.poll(b.now);
    });
    assert_eq!(answer.status, status::OK);
    let entries = b.header.hc_entries;
    let read = b.card.counters().get(Counter::HcDescriptors) - before;
    assert!(read <= 2 * u64::from(entries), "{read} of queues of {entries}");
}

/// Fused only, where a round does something of everything: what is received waits for the rest of it.
#[test]
fn full_queues_of_many_contexts_do_not_fill_a_round() {
    let mut b = OneCore.bench_with(CardConfig { max_contexts: 16, ..config() }, caps());
    let flow = b.install(0, 1);
    for region in [2, 3] {
        b.map_region(region);
    }
    for ctx in 3..13 {
        b.open_context(ctx, 1 + (ctx - 1) / 4, u32::from((ctx - 1) % 4));
    }
    let entries = b.header.hc_entries;
    for ctx in 1..13 {
        for _ in 0..entries {
            b.post_without_kick(ctx, HostDesc { kind: hc::UPDATE, flow, ..Default::default() });
        }
        b.card.kicked(CtxId(ctx));
    }
    let read = |card: &Fused| card.counters().get(Counter::HcDescriptors);
    let before = read(&b.card);
    b.card.poll(b.now);
    let once = read(&b.card) - before;
    assert!((1..=64 + u64::from(entries)).contains(&once), "{once} in a round");
    b.run();
    assert_eq!(read(&b.card) - before, 12 * u64::from(entries));
}

/// Fused only: it is known when its context is parked, which is as soon as what was found in its queue has been handed on.
#[test]
fn a_context_that_is_written_to_without_a_kick_closes() {
    let mut b = OneCore.bench();
    let flow = b.install(0, 1);
    let update = HostDesc { kind: hc::UPDATE, flow, ..Default::default() };
    let parked = b.page(1).add(64 + 8);
    b.run();
    assert!(b.card.park(b.now));
    b.post_without_kick(1, update);
    b.memory.set_knobs(MemoryKnobs { min_delay: 4, max_delay: 4, ..Default::default() });
    let close = ControlMsg { args: [1, 0, 0, 0, 0], ..ControlMsg::new(kind::CLOSE_CONTEXT, 0) };
    let read = |b: &Bench<Fused>| b.card.counters().get(Counter::HcDescriptors);
    let mut written = false;
    let answer = b.request_while(close, |b| {
        b.now = b.now.add_micros(config().spin_us);
        b.card.poll(b.now);
        if read(b) == 1 && b.memory.load(parked) == Ok(1) && !written {
            b.post_without_kick(1, update);
            written = true;
        }
    });
    assert_eq!((written, read(&b)), (true, 2));
    assert_eq!(answer.status, status::OK);
}

fn flows_are_enumerated_frozen_released_and_installed_again(kind: &impl Kind) {
    let mut b = kind.bench();
    let (first, second) = (b.install(0, 1), b.install(1, 1));
    let mut found = Vec::new();
    let mut from = 0;
    loop {
        let answer = b.ask(kind::NEXT_FLOW, FlowId::NONE, [from, 0, 0, 0, 0]);
        if answer.status == status::NOT_FOUND {
            break;
        }
        found.push((answer.flow, answer.flow_state().id.key.remote_port));
        from = u64::from(answer.flow.index) + 1;
    }
    found.sort_by_key(|&(_, port)| port);
    assert_eq!(found, [(first, 1000), (second, 1001)]);
    assert_eq!(b.ask(kind::FREEZE, first, [0; 5]).status, status::OK);
    b.segment(0, 0, 0, NO_FLAGS, b"lost");
    b.run();
    assert_eq!(b.card.counters().drops(Drop::Frozen), 1);
    let released = b.ask(kind::RELEASE, first, [0; 5]);
    assert_eq!(b.closed(), []);
    assert_eq!(b.ask(kind::QUERY, first, [0; 5]).status, status::NOT_FOUND);
    let state = released.flow_state();
    assert_eq!(b.install_state(&state).status, status::OK);
    assert_eq!(b.install_state(&state).status, status::EXISTS);
    accounted(&b);
}

fn requests_that_make_no_sense_are_refused(kind: &impl Kind) {
    let mut b = kind.bench();
    let region = |r| [r, 0x1000_0000, 4096, 0, 0];
    let cases = [
        (kind::MAP_REGION, region(0), status::INVALID),
        (kind::MAP_REGION, region(99), status::INVALID),
        (kind::MAP_REGION, region(1), status::EXISTS),
        (kind::MAP_REGION, [2, u64::MAX - 5, 4096, 0, 0], status::NOT_FOUND),
        (kind::UNMAP_REGION, [3, 0, 0, 0, 0], status::NOT_FOUND),
        (kind::OPEN_CONTEXT, [0, 1, 4096, 8192 | 3 << 56, 12288 | 3 << 56], status::INVALID),
        (kind::OPEN_CONTEXT, [3, 1, 4096, u64::MAX, u64::MAX], status::INVALID),
        (kind::OPEN_CONTEXT, [1, 1, 4096, 8192 | 3 << 56, 12288 | 3 << 56], status::EXISTS),
        (kind::OPEN_CONTEXT, [3, 2, 4096, 8192 | 3 << 56, 12288 | 3 << 56], status::NOT_FOUND),
        (kind::CLOSE_CONTEXT, [5, 0, 0, 0, 0], status::NOT_FOUND),
        (kind::NEXT_HOP, [4, 0, 1, 0, 0], status::INVALID),
        (kind::SET_RATE, [0; 5], status::NOT_FOUND),
        (kind::SET_CC, [0; 5], status::NOT_FOUND),
        (kind::RATES, [99, 0, 0, 0, 0], status::INVALID),
        (kind::RATES, [u64::MAX, 0, 0, 0, 0], status::INVALID),
        (kind::SET_SHARE, [3, 100, 0, 0, 0], status::NOT_FOUND),
        (kind::SET_SHARE, [0, 100, 0, 0, 0], status::NOT_FOUND),
        (kind::SET_SHARE, [1, 0, 0, 0, 0], status::INVALID),
        (kind::SET_SHARE, [1, 1001, 0, 0, 0], status::INVALID),
        (kind::TRACE, [9, 0, 0, 0, 0], status::INVALID),
        (kind::SET_BUFFERS, [0; 5], status::UNSUPPORTED),
        (12345, [0; 5], status::UNSUPPORTED),
        (kind::RELEASE, [0; 5], status::NOT_FOUND),
    ];
    for (i, (kind, args, expected)) in cases.into_iter().enumerate() {
        assert_eq!(b.ask(kind, FlowId::NONE, args).status, expected, "case {i}");
    }
    let good = b.flow_state(0, 1, 1);
    let cases: [&dyn Fn(&mut toe_abi::flow::FlowState); 12] = [
        &|s| s.cc.algorithm = cc::COUNT,
        &|s| s.rx.buf = u32::MAX,
        &|s| s.tx.buf_log2 = 31,
        &|s| s.rx.wscale = 15,
        &|s| s.rx.mss = 0,
        &|s| s.id.next_hop = 4,
        &|s| s.id.ctx = CtxId(7),
        &|s| s.rx.state = 7,
        &|s| s.tx.snd_max = s.tx.snd_una.wrapping_sub(1),
        &|s| s.tx.tx_head = BUF as u32 + 1,
        &|s| s.rx.mss = u16::MAX - 39,
        &|s| (s.rx.mss, s.rx.flags) = (u16::MAX - 51, flow_flags::TIMESTAMPS),
    ];
    for (i, change) in cases.iter().enumerate() {
        let mut state = good;
        change(&mut state);
        assert_eq!(b.install_state(&state).status, status::INVALID, "install {i}");
    }
    let refused = b.card.counters().get(Counter::ControlRefused);
    assert_eq!(refused, 23 + 12);
    let mut full = good;
    (full.tx.tx_head, full.rx.mss) = (BUF as u32, u16::MAX - 40);
    assert_eq!(b.install_state(&full).status, status::OK);
}

fn counters_are_read_in_parts(kind: &impl Kind) {
    let mut b = kind.bench();
    b.segment(9, 0, 0, TcpFlags::SYN, b"");
    b.run();
    let mut all = Vec::new();
    loop {
        let answer = b.ok(kind::COUNTERS, [all.len() as u64, 0, 0, 0, 0]);
        let left = answer.args[0] as usize - all.len();
        if left == 0 {
            break;
        }
        all.extend_from_slice(&answer.counters()[..left.min(54)]);
    }
    assert_eq!(all.len(), toe_abi::counters::TOTAL);
    assert_eq!(all[Counter::RxFrames as usize], 1);
    assert_eq!(all[Counter::COUNT + Drop::COUNT + Exception::Syn as usize], 1);
}

fn a_new_control_plane_hears_of_flows_that_ended_meanwhile(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.detach();
    b.segment(0, 0, 0, TcpFlags::RST, b"");
    b.run();
    b.reattach();
    assert_eq!(b.closed(), [(flow, close_reason::RESET.into())]);
}

/// The control plane kicks for what it submits, and not for the room that it makes by reading.
fn notices_that_found_no_room_come_when_there_is_some(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    for _ in 0..CONTROL_ENTRIES {
        b.submit(ControlMsg::new(kind::COUNTERS, 0));
    }
    b.run();
    b.segment(0, 0, 0, TcpFlags::RST, b"");
    b.run_for(10_000);
    let answers = core::iter::from_fn(|| b.completion()).count();
    assert_eq!(answers, CONTROL_ENTRIES as usize);
    let due = b.card.next_deadline(b.now);
    b.now = due.expect("the card looks for room");
    assert_eq!(b.closed(), [(flow, close_reason::RESET.into())]);
    assert_eq!(b.card.next_deadline(b.now), None);
}

/// Toed is stopped, with requests in its queue.
fn the_card_sleeps_while_answers_have_no_room(kind: &impl Kind) {
    let mut b = kind.bench();
    for _ in 0..=CONTROL_ENTRIES {
        b.run();
        b.submit(ControlMsg::new(kind::COUNTERS, 0));
    }
    b.run_for(10_000);
    assert!(b.card.park(b.now));
    for n in 0..=CONTROL_ENTRIES {
        let due = b.card.next_deadline(b.now);
        assert_eq!(due.is_some(), n == 0, "the card looks for room");
        b.now = due.unwrap_or(b.now);
        assert!(b.completion().is_some());
        b.run();
    }
    assert!(b.completion().is_none());
}

/// Two applications, one of which never reads its events.
fn a_full_event_queue_delays_no_other(kind: &impl Kind) {
    let mut b = kind.bench();
    b.map_region(2);
    b.open_context(3, 2, 0);
    b.install(0, 1);
    assert_eq!(b.install_state(&b.flow_state(1, 2, 3)).status, status::OK);
    let overflow = |b: &mut Bench<_>, n: u16| {
        for i in 0..6 {
            b.segment(n, i, 0, NO_FLAGS, b"x");
            b.run_for(100);
        }
    };
    overflow(&mut b, 0);
    b.run_for(1_000_000);
    overflow(&mut b, 1);
    b.events(3, true);
    b.run_for(2_000);
    assert_eq!(b.events(3, true).iter().map(|e| e.rx_head).collect::<Vec<_>>(), [6]);
}

fn parked_contexts_cost_nothing_until_kicked(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.run();
    assert!(b.card.park(b.now));
    assert_eq!(b.card.next_deadline(b.now), None);
    let flag = b.page(1).add(64 + 8);
    assert_eq!(b.memory.load(flag), Ok(1));
    // Published behind the card's back: it is not polled.
    b.fill(1, 0, 0, b"hi");
    let desc = HostDesc { kind: hc::UPDATE, flow, tx_head: 2, ..Default::default() };
    b.post_without_kick(1, desc);
    b.run();
    assert!(b.sent().is_empty());
    b.card.kicked(CtxId(1));
    assert_eq!(b.memory.load(flag), Ok(0));
    b.run();
    assert_eq!(b.sent()[0].payload(), b"hi");
}

/// Fused only: the other one parks by itself as soon as it can, and has done so before anything could be published.
#[test]
fn parking_finds_what_was_published_just_before() {
    let mut b = OneCore.bench();
    let flow = b.install(0, 1);
    b.run();
    b.fill(1, 0, 0, b"hi");
    b.post_without_kick(1, HostDesc { kind: hc::UPDATE, flow, tx_head: 2, ..Default::default() });
    assert!(!b.card.park(b.now));
    b.run();
    assert_eq!(b.sent()[0].payload(), b"hi");
    assert!(b.card.next_deadline(b.now).is_some(), "a retransmission timer");
}

/// Without a timer that runs.
#[test]
fn what_an_application_s_sets_of_times_have_no_room_for_is_counted() {
    // With so many applications each has 16.
    let mut b = OneCore.bench_with(CardConfig { max_regions: 1 << 12, ..config() }, caps());
    for n in 0..17 {
        let flow = b.install(n, 1);
        let options = FlowOptions { keep_idle_s: 100 + n, ..FlowOptions::default() };
        b.post(1, HostDesc { kind: hc::OPTIONS, flow, options, ..Default::default() });
        b.run();
        assert_eq!(b.card.counters().get(Counter::RecordsRefused), u64::from(n == 16));
    }
}

/// Fused only: the cores of the other one don't wait for the spin time before they sleep.
#[test]
fn an_idle_context_is_parked_after_the_spin_time() {
    let mut b = OneCore.bench();
    b.run();
    let flag = b.page(1).add(64 + 8);
    assert_eq!(b.memory.load(flag), Ok(0));
    b.now = b.now.add_micros(config().spin_us);
    b.run();
    assert_eq!(b.memory.load(flag), Ok(1));
}

fn a_busy_port_loses_nothing(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.port.set_knobs(PortKnobs { tx_room: 0, ..Default::default() });
    b.fill(1, 0, 0, &stream(0, 4000));
    b.update(1, flow, 4000, 0, 0);
    for _ in 0..100 {
        b.card.poll(b.now);
    }
    b.port.set_knobs(PortKnobs { tx_room: 1, busy_percent: 60, ..Default::default() });
    b.run_for(10_000);
    let sent = b.sent();
    assert_eq!(sent.iter().flat_map(|s| s.payload().to_vec()).collect::<Vec<_>>(), stream(0, 4000));
    assert!(b.card.counters().get(Counter::TxPortBusy) > 0);
}

fn behind_a_full_port_the_card_sleeps_and_looks_again(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.port.set_knobs(PortKnobs { tx_room: 0, ..Default::default() });
    let frame = vec![0xab; 100];
    b.packet(frames::kind::TRANSMIT, &frame, 0);
    b.fill(1, 0, 0, &stream(0, 4000));
    b.update(1, flow, 4000, 0, 0);
    b.run();
    assert!(b.card.park(b.now), "nothing can be done");
    let again = b.card.next_deadline(b.now).expect("nobody tells that there is room");
    assert!(again > b.now && again <= b.now.add_micros(1000), "soon");
    b.port.set_knobs(PortKnobs::default());
    b.run_for(10_000);
    let (control, segments): (Vec<_>, Vec<_>) = std::iter::from_fn(|| b.port.take_sent()).map(|f| f.bytes).partition(|f| *f == frame);
    assert_eq!((control.len(), segments.len()), (1, 4));
}

fn an_unknown_next_hop_is_counted_and_retransmission_goes_on_when_it_is_known(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.ok(kind::NEXT_HOP, [0, 0, 0, 0, 0]);
    b.fill(1, 0, 0, b"x");
    b.update(1, flow, 1, 0, 0);
    b.run();
    assert!(b.sent().is_empty());
    assert_eq!(b.card.counters().get(Counter::TxNoNextHop), 1);
    b.ok(kind::NEXT_HOP, [0, 0x0200_0000_0002, 1, 0, 0]);
    b.run_for(2_000_000);
    assert_eq!(b.sent()[0].payload(), b"x");
}

fn a_flow_that_is_not_acknowledged_is_given_up_in_the_end(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    b.fill(1, 0, 0, b"x");
    b.update(1, flow, 1, 0, 0);
    b.run_for(2 * 3600 * 1_000_000);
    assert_eq!(b.closed(), [(flow, close_reason::TIMEOUT.into())]);
    assert!(b.card.counters().get(Counter::TxTimeouts) > 5);
    let resets = b.sent().iter().filter(|s| s.flags().contains(TcpFlags::RST)).count();
    assert_eq!((resets, b.card.counters().get(Counter::TxResets)), (1, 1));
    assert_eq!(b.events(1, true).last().unwrap().error, toe_tcp::errno::ETIMEDOUT);
}

/// Fused only: who hears of its second flow late has sent all of the first by then.
#[test]
fn flows_share_the_wire_by_turns() {
    let caps = PortCaps { tx_csum: true, tso_max: 2000, ..caps() };
    let mut b = OneCore.bench_with(toe_datapath::CardConfig { quantum_bytes: 2000, ..config() }, caps);
    let flows = [b.install(0, 1), b.install(1, 2)];
    for (n, &flow) in flows.iter().enumerate() {
        b.fill(1, n as u16, 0, &stream(0, 4000));
        b.update(1, flow, 4000, 0, 0);
    }
    b.run();
    let ports: Vec<u16> = b.sent().iter().map(|s| s.parsed.tcp().unwrap().1.dst_port).collect();
    assert_eq!(ports, [1000, 1001, 1000, 1001]);
}

/// Bytes of new data that flow 0 has sent.
fn progress(b: &mut Bench<impl Fake>) -> u32 {
    b.sent().iter().map(|s| s.pos() + s.payload().len() as u32).max().unwrap_or(0)
}

fn a_paced_flow_keeps_its_pace(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    // A segment of 1000 bytes every 10 ms.
    assert_eq!(b.ask(kind::SET_RATE, flow, [800, 0, 0, 0, 0]).status, status::OK);
    b.fill(1, 0, 0, &stream(0, 4000));
    b.update(1, flow, 4000, 0, hc_flags::NODELAY);
    b.run_for(9_000);
    assert_eq!(progress(&mut b), 1000);
    b.run_for(10_000);
    assert_eq!(progress(&mut b), 2000);
    assert_eq!(b.ask(kind::SET_RATE, flow, [0; 5]).status, status::OK);
    b.run_for(1);
    assert_eq!(progress(&mut b), 4000);
}

/// What was set is part of what a flow is moved with.
fn a_flow_takes_its_pace_along(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    assert_eq!(b.ask(kind::SET_RATE, flow, [800, 0, 0, 0, 0]).status, status::OK);
    let frozen = b.ask(kind::FREEZE, flow, [0; 5]);
    assert_eq!(frozen.args[1], 800);
    assert_eq!(b.ask(kind::RELEASE, flow, [0; 5]).args[1], 800);
    let mut install = ControlMsg::new(kind::INSTALL, 0);
    install.set_flow_state(&frozen.flow_state());
    install.args[1] = frozen.args[1];
    let flow = b.request(install).flow;
    b.fill(1, 0, 0, &stream(0, 4000));
    b.update(1, flow, 4000, 0, hc_flags::NODELAY);
    b.run_for(9_000);
    assert_eq!(progress(&mut b), 1000);
}

/// What a flow begins with leaves at once; from the first acknowledgement on, the scheduler keeps to the pace of the window.
fn a_paced_window_is_spread_over_its_round_trip(kind: &impl Kind) {
    let mut b = kind.bench();
    let mut state = b.flow_state(0, 1, 1);
    state.rx.flags |= flow_flags::PACED;
    (state.cc.cwnd, state.cc.ssthresh, state.tx.srtt_us) = (4000, 4000, 100_000);
    let flow = b.install_state(&state).flow;
    b.fill(1, 0, 0, &stream(0, 4000));
    b.update(1, flow, 4000, 0, hc_flags::NODELAY);
    b.run_for(90_000);
    assert_eq!(progress(&mut b), 4000);
    b.segment(0, 0, 3000, NO_FLAGS, b"");
    b.run_for(1);
    b.fill(1, 0, 4000, &stream(4000, 3000));
    b.update(1, flow, 7000, 0, hc_flags::NODELAY);
    // Four segments in five sixths of a round trip.
    for (us, sent) in [(1, 5000), (19_000, 0), (1_000, 6000), (20_000, 0), (1_000, 7000)] {
        b.run_for(us);
        assert_eq!(progress(&mut b), sent, "{us}");
    }
    assert_eq!(b.ask(kind::QUERY, flow, [0; 5]).args[1..3], [0, 384], "nobody has set a rate; kbit/s of the window");
    // Which is a limit where it is less: a segment in 100 ms, from when the last was sent.
    assert_eq!(b.ask(kind::SET_RATE, flow, [80, 0, 0, 0, 0]).status, status::OK);
    b.segment(0, 0, 7000, NO_FLAGS, b"");
    b.run_for(1);
    b.fill(1, 0, 7000, &stream(7000, 1000));
    b.update(1, flow, 8000, 0, hc_flags::NODELAY);
    b.run_for(90_000);
    assert_eq!(progress(&mut b), 0);
    b.run_for(10_000);
    assert_eq!(progress(&mut b), 8000);
    assert_eq!(b.ask(kind::QUERY, flow, [0; 5]).args[1..3], [80, 80]);
}

/// Sets rates in the group of `flow`, and what that group has to tell.
fn exchange(b: &mut Bench<impl Fake>, groups: u64, flow: FlowId, orders: &[RateOrder]) -> Vec<RateReport> {
    let mut msg = ControlMsg::new(kind::RATES, 0);
    (msg.args[0], msg.args[1]) = (u64::from(flow.index) % groups, orders.len() as u64);
    for (i, order) in orders.iter().enumerate() {
        assert!(msg.set_record(i, order));
    }
    let answer = b.request(msg);
    assert_eq!((answer.status, answer.args[1]), (status::OK, groups));
    answer.records(answer.args[0] as usize).collect()
}

/// A flow whose rate toed sets tells of what it has heard once.
fn rates_are_set_and_news_told_in_one_request(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(1, 1);
    let mut state = b.flow_state(0, 1, 1);
    assert!(toe_tcp::cc::choose(&mut state, cc::DCTCP_RATE));
    let flow = b.install_state(&state).flow;
    let groups = b.ok(kind::RATES, [0; 5]).args[1];
    b.fill(1, 0, 0, &stream(0, 4000));
    b.update(1, flow, 4000, 0, hc_flags::NODELAY);
    b.run();
    assert_eq!(progress(&mut b), 4000);
    b.segment(0, 0, 3000, NO_FLAGS, b"");
    b.segment(1, 0, 0, NO_FLAGS, b"x");
    b.run();
    let reports = exchange(&mut b, groups, flow, &[]);
    assert_eq!(reports.iter().map(|r| (r.flow, r.acked, r.rate_kbps, r.algorithm)).collect::<Vec<_>>(), [(flow, 3000, 0, cc::DCTCP_RATE)]);
    let order = RateOrder { flow, rate_kbps: 800, _reserved: 0 };
    let stale = RateOrder { flow: FlowId { generation: 99, ..flow }, rate_kbps: 1, ..order };
    assert_eq!(exchange(&mut b, groups, flow, &[order, stale]), [], "nothing new");
    assert_eq!(b.ask(kind::QUERY, flow, [0; 5]).args[1], 800);
    b.segment(0, 0, 4000, NO_FLAGS, b"");
    b.run();
    let reports = exchange(&mut b, groups, flow, &[]);
    assert_eq!(reports.iter().map(|r| (r.flow, r.acked, r.rate_kbps)).collect::<Vec<_>>(), [(flow, 4000, 800)]);
    // Ended flows have nothing to tell.
    b.segment(0, 0, 4000, NO_FLAGS, b"y");
    b.segment(0, 1, 4000, TcpFlags::RST, b"");
    b.run();
    assert_eq!(exchange(&mut b, groups, flow, &[]), []);
}

fn another_congestion_control_goes_on_from_the_window(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    let before = b.ask(kind::QUERY, flow, [0; 5]).flow_state();
    assert_eq!(b.ask(kind::SET_CC, flow, [cc::DCTCP.into(), 0, 0, 0, 0]).status, status::OK);
    let after = b.ask(kind::QUERY, flow, [0; 5]).flow_state();
    assert_eq!((after.cc.algorithm, after.cc.cwnd), (cc::DCTCP, before.cc.cwnd));
    for none in [u64::from(cc::COUNT), 256, u64::MAX] {
        assert_eq!(b.ask(kind::SET_CC, flow, [none, 0, 0, 0, 0]).status, status::INVALID);
    }
    assert_eq!(b.ask(kind::QUERY, flow, [0; 5]).flow_state().cc.algorithm, cc::DCTCP);
}

fn an_application_keeps_within_its_rate(kind: &impl Kind) {
    let mut b = kind.bench();
    let flow = b.install(0, 1);
    // 100 bytes a millisecond, after a burst of two of the largest segments.
    b.ok(kind::SET_SHARE, [1, 100, 800, 0, 0]);
    let (begin, total, burst) = (b.now, 200_000, 2 * 65_536);
    let mut acked = 0;
    while acked < total {
        b.fill(1, 0, acked, &stream(acked, 4000));
        b.update(1, flow, acked + 4000, 0, hc_flags::NODELAY);
        b.run_for(1000);
        acked = acked.max(progress(&mut b));
        b.segment(0, 0, acked, NO_FLAGS, b"");
        b.run();
        b.events(1, true);
        let elapsed_ms = (b.now.micros() - begin.micros()) / 1000;
        assert!(u64::from(acked) <= burst + 100 * elapsed_ms + 1000, "{acked} bytes in {elapsed_ms} ms");
    }
    let elapsed_ms = (b.now.micros() - begin.micros()) / 1000;
    assert!(elapsed_ms < 1400, "far less than it might: {elapsed_ms} ms");
}

fn stages_say_where_they_are_and_segments_which_way_they_took(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(0, 1);
    let answer = b.ok(kind::STAGES, [0; 5]);
    let stages: Vec<StageRecord> = answer.records(answer.args[0].min(STAGES_PER_MSG as u64) as usize).collect();
    assert!(stages.iter().all(|s| toe_abi::observe::stage::name(s.stage).is_some()), "{stages:?}");
    assert_eq!(b.ok(kind::STAGES, [1000, 0, 0, 0, 0]).args[0], answer.args[0]);
    b.ok(kind::TRACE, [trace_op::START, 0, 0, 0, 0]);
    b.segment(0, 0, 0, NO_FLAGS, &stream(0, 500));
    b.run_for(50_000);
    b.ok(kind::TRACE, [trace_op::STOP, 0, 0, 0, 0]);
    b.segment(0, 500, 0, NO_FLAGS, b"x");
    b.run();
    let mut visits: Vec<TraceRecord> = Vec::new();
    loop {
        let answer = b.ok(kind::TRACE, [trace_op::READ, 0, 0, 0, 0]);
        visits.extend(answer.records::<TraceRecord>(answer.args[0] as usize));
        if answer.args[0] == 0 {
            assert_eq!(answer.args[1], 0, "nothing was lost");
            break;
        }
    }
    assert!(visits.iter().all(|v| v.at_ns > v.begin_ns && v.begin_ns > 0));
    let handled: Vec<&TraceRecord> = visits.iter().filter(|v| v.kind == trace_kind::RX_OUT).collect();
    assert_eq!(handled.len(), 1, "the second came when nobody traced: {visits:?}");
    let [v] = handled[..] else { unreachable!() };
    assert_eq!((v.port, v.len), (80, 500));
    let mut came: Vec<u8> =
        visits.iter().filter(|r| r.kind == trace_kind::RX && r.number == v.number && r.group == v.group).map(|r| r.stage).collect();
    came.sort_unstable();
    assert_eq!(came, [toe_abi::observe::stage::INGRESS as u8, toe_abi::observe::stage::PRE as u8]);
    let went: Vec<u8> = visits.iter().filter(|r| r.out == v.out && r.group == v.group && r.number == 0).map(|r| r.stage).collect();
    for stage in [toe_abi::observe::stage::DMA, toe_abi::observe::stage::EGRESS, toe_abi::observe::stage::CTXQ] {
        assert!(went.contains(&(stage as u8)), "stage {stage} is not in {went:?}");
    }
}

fn a_reset_of_the_card_forgets_everything_and_it_can_start_again(kind: &impl Kind) {
    let mut b = kind.bench();
    b.install(0, 1);
    b.segment(0, 0, 0, NO_FLAGS, b"x");
    b.card.reset();
    assert_eq!(b.port.leases_out(), 0);
    b.restart();
    b.install(0, 1);
    b.segment(0, 0, 0, NO_FLAGS, b"x");
    b.run();
    assert_eq!(b.events(1, true).last().unwrap().rx_head, 1);
}

on_every_card! {
    in_order_data_is_placed_announced_and_acknowledged,
    adjacent_segments_are_taken_together,
    out_of_order_data_is_placed_at_once_and_announced_when_complete,
    a_super_frame_with_a_partial_checksum_is_taken_whole,
    bytes_are_echoed_through_buffers_that_wrap,
    a_port_that_segments_gets_super_frames,
    an_ecn_capable_flow_sends_ect_0,
    events_of_one_flow_merge_while_the_queue_is_full,
    a_sleeping_host_is_interrupted_and_a_waking_one_is_not,
    forged_descriptors_are_counted_and_change_nothing,
    a_context_with_insane_indices_is_failed_and_others_are_not,
    each_kind_of_garbage_has_its_counter,
    what_is_for_groups_alone_does_not_wake_the_control_plane,
    arp_for_an_own_address_is_answered_and_shown_to_the_control_plane,
    solicitations_for_an_own_address_are_answered_and_shown_to_the_control_plane,
    a_flow_over_ipv6_receives_and_sends,
    a_flow_on_a_vlan_is_found_there_alone_and_answers_there,
    frames_of_no_flow_go_to_the_control_plane_with_their_reason,
    a_full_exception_ring_drops_and_recovers,
    without_a_control_plane_flows_go_on_and_the_rest_is_counted,
    an_unbound_flow_shows_what_it_has_when_it_is_bound,
    injected_frames_are_processed_as_if_from_the_wire,
    control_frames_go_out_unchanged,
    a_reset_by_the_peer_is_the_last_event_and_then_a_notice,
    the_place_of_a_flow_whose_notice_was_read_is_free_at_once,
    an_unbound_flows_end_waits_for_whoever_accepts_it,
    an_unbound_flow_that_is_given_up_is_reported_at_once,
    a_close_with_unread_data_sends_what_was_written_and_then_resets,
    a_full_close_ends_with_both_fins,
    an_install_is_answered_before_its_flow_is_said_to_have_ended,
    a_peer_that_has_missed_the_reset_gets_it_again,
    an_application_closes_its_flow_while_the_control_plane_is_silent,
    unmapping_a_region_resets_its_flows_first,
    closing_a_context_unbinds_its_flows,
    what_was_posted_before_a_context_closes_is_sent,
    a_context_that_never_runs_dry_closes,
    flows_are_enumerated_frozen_released_and_installed_again,
    requests_that_make_no_sense_are_refused,
    counters_are_read_in_parts,
    a_new_control_plane_hears_of_flows_that_ended_meanwhile,
    notices_that_found_no_room_come_when_there_is_some,
    the_card_sleeps_while_answers_have_no_room,
    a_full_event_queue_delays_no_other,
    parked_contexts_cost_nothing_until_kicked,
    a_busy_port_loses_nothing,
    behind_a_full_port_the_card_sleeps_and_looks_again,
    an_unknown_next_hop_is_counted_and_retransmission_goes_on_when_it_is_known,
    a_flow_that_is_not_acknowledged_is_given_up_in_the_end,
    a_paced_flow_keeps_its_pace,
    a_flow_takes_its_pace_along,
    a_paced_window_is_spread_over_its_round_trip,
    rates_are_set_and_news_told_in_one_request,
    another_congestion_control_goes_on_from_the_window,
    an_application_keeps_within_its_rate,
    stages_say_where_they_are_and_segments_which_way_they_took,
    a_reset_of_the_card_forgets_everything_and_it_can_start_again,
}
