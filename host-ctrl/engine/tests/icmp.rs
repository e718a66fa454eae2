//! Echo, errors about connections that open, datagrams that nobody serves.

mod common;
use common::*;
use toe_abi::flow::v4_mapped;
use toe_engine::{Action, Endpoint};
use toe_wire::{ArpOp, Icmp, Payload, SeqNum, TcpOptions, checksum::checksum, parse_frame};

fn ipv4(src: [u8; 4], dst: [u8; 4], proto: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
    let mut h = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, proto, 0, 0];
    h.extend(src);
    h.extend(dst);
    h[2..4].copy_from_slice(&((20 + body.len()) as u16).to_be_bytes());
    h[6..8].copy_from_slice(&fragment.to_be_bytes());
    let sum = checksum(&h);
    h[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [&OUR_MAC[..], &PEER_MAC[..], &[8, 0][..]].concat();
    frame.extend(h);
    frame.extend(body);
    frame
}

fn icmp(kind: u8, code: u8, words: [u16; 2], body: &[u8]) -> Vec<u8> {
    let mut m = vec![kind, code, 0, 0];
    m.extend(words[0].to_be_bytes());
    m.extend(words[1].to_be_bytes());
    m.extend(body);
    let sum = checksum(&m);
    m[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(PEER_IP, OUR_IP, 1, 0, &m)
}

/// An error that quotes a segment of ours to port 80 of the peer.
fn error(kind: u8, code: u8, from_port: u16, seq: SeqNum) -> Vec<u8> {
    error_to(80, kind, code, from_port, seq)
}

fn error_to(port: u16, kind: u8, code: u8, from_port: u16, seq: SeqNum) -> Vec<u8> {
    let mut tcp = from_port.to_be_bytes().to_vec();
    tcp.extend(port.to_be_bytes());
    tcp.extend(seq.0.to_be_bytes());
    let quoted = ipv4(OUR_IP, PEER_IP, 6, 0, &tcp);
    icmp(kind, code, [0, 1400], &quoted[14..])
}

fn message(actions: &[Action]) -> (Vec<u8>, [u8; 16]) {
    let [Action::Transmit { frame }] = actions else { panic!("one frame expected: {actions:?}") };
    let parsed = parse_frame(frame).unwrap();
    assert_eq!((parsed.eth.src, parsed.eth.dst), (OUR_MAC, PEER_MAC));
    let Payload::Ipv4(packet) = parsed.payload else { panic!("not IPv4") };
    assert_eq!(packet.ip.src, v4_mapped(OUR_IP));
    (packet.ip.payload.of(frame).to_vec(), packet.ip.dst)
}

/// RFC 1122 3.2.2.6-1, 3.2.2.6-2.
#[test]
fn echo_is_answered_with_all_its_data() {
    let mut b = Bench::new();
    let data: Vec<u8> = (0..=255).collect();
    let (body, to) = message(&b.frame(&icmp(8, 0, [7, 9], &data)));
    assert_eq!(Icmp::parse(&body), Some(Icmp::EchoReply { ident: 7, seq: 9, data: &data }));
    assert_eq!(to, v4_mapped(PEER_IP));
}

#[test]
fn echo_is_bounded_in_size_and_rate() {
    let mut b = Bench::with(|c| c.replies_per_second = 100);
    assert!(b.frame(&icmp(8, 0, [1, 1], &[0; 1473])).is_empty());
    assert!(!b.frame(&icmp(8, 0, [1, 1], &[0; 1472])).is_empty());
    let answers = (0..100).filter(|_| !b.frame(&icmp(8, 0, [1, 1], &[])).is_empty()).count();
    assert_eq!(answers, 9);
    assert_eq!(b.engine.counters().icmp_limited, 92);
}

/// RFC 1122, 3.3.1: not back to who passed the frame on.
#[test]
fn answers_go_where_the_route_leads() {
    const ROUTER: [u8; 4] = [10, 0, 0, 254];
    const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 254];
    let mut b = Bench::with(|c| c.gateways = vec![v4_mapped(ROUTER)]);
    b.frame(&arp(ArpOp::Request, ROUTER_MAC, ROUTER, OUR_IP));
    let far = [192, 0, 2, 9];
    let ping = icmp(8, 0, [7, 9], b"data");
    let datagram = [4000_u16, 53, 8, 0].map(u16::to_be_bytes).concat();
    for (proto, message) in [(1, &ping[34..]), (17, &datagram)] {
        let actions = b.frame(&ipv4(far, OUR_IP, proto, 0, message));
        let [Action::Transmit { frame }] = &actions[..] else { panic!("one answer expected: {actions:?}") };
        assert_eq!(parse_frame(frame).unwrap().eth.dst, ROUTER_MAC);
    }
}

/// RFC 9293 MUST-55; RFC 5927 6.2-1.
#[test]
fn broken_messages_are_dropped() {
    let mut b = Bench::new();
    let mut bad = icmp(8, 0, [1, 1], b"data");
    *bad.last_mut().unwrap() ^= 1;
    assert!(b.frame(&bad).is_empty());
    assert_eq!(b.engine.counters().drop_malformed, 1);
    assert!(b.frame(&icmp(13, 0, [0, 0], &[0; 12])).is_empty());
    assert_eq!(b.engine.counters().icmp_ignored, 1);
    // Source quench about a connection.
    b.listen(80, 5);
    let iss = only_segment(&b.frame(&Peer::new(80, 80).syn())).tcp.seq;
    assert!(b.frame(&error(4, 0, 80, iss)).is_empty());
    assert_eq!((b.engine.counters().icmp_ignored, b.engine.connection_count()), (2, 1));
}

/// RFC 5927 4.1-1; RFC 1122 3.2.2-1.
#[test]
fn errors_end_an_open_that_they_are_about() {
    for (kind, code, errno) in [(3, 3, 111), (3, 2, 92), (3, 0, 101), (3, 1, 113), (3, 13, 113), (11, 0, 113), (12, 0, 71)] {
        let mut b = Bench::new();
        b.know_peer();
        let (conn, local) = b.engine.connect(1, None, Endpoint::v4(PEER_IP, 80), BUF, b.now).unwrap();
        let actions = b.actions();
        let iss = only_segment(&actions).tcp.seq;
        assert!(b.frame(&error(kind, code, local.port, iss.add(1))).is_empty(), "RFC 5927: not what is in flight");
        assert!(b.frame(&error(kind, code, local.port ^ 1, iss)).is_empty());
        assert_eq!(failed(&b.frame(&error(kind, code, local.port, iss))), Some((conn, errno)), "type {kind} code {code}");
    }
}

#[test]
fn syn_is_never_too_big() {
    let mut b = Bench::new();
    b.know_peer();
    let (_, local) = b.engine.connect(1, None, Endpoint::v4(PEER_IP, 80), BUF, b.now).unwrap();
    let actions = b.actions();
    assert!(b.frame(&error(3, 4, local.port, only_segment(&actions).tcp.seq)).is_empty());
    assert_eq!(b.engine.connection_count(), 1);
}

#[test]
fn half_open_passive_goes_by_hard_errors_only() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let iss = only_segment(&b.frame(&Peer::new(80, 80).syn())).tcp.seq;
    b.frame(&error(3, 1, 80, iss));
    assert_eq!(b.engine.connection_count(), 1);
    b.frame(&error(3, 3, 80, iss));
    assert_eq!(b.engine.connection_count(), 0);
}

/// RFC 9293 MUST-54.
#[test]
fn errors_about_flows_go_to_the_card() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let (flow, _) = b.accept(&mut Peer::new(80, 80));
    let actions = b.frame(&error(3, 4, 80, SeqNum(1234)));
    let [Action::IcmpError { flow: told, kind: 0x304, mtu: 1400, seq: 1234 }, Action::QueryFlow { flow: asked }] = actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((told, asked), (flow, flow));
    let actions = b.frame(&error(3, 1, 80, SeqNum(1234)));
    assert!(matches!(actions[..], [Action::IcmpError { flow: f, kind: 0x301, .. }] if f == flow), "{actions:?}");
    // RFC 1122 4.2.3.9.
    let actions = b.frame(&error(12, 0, 80, SeqNum(1234)));
    assert!(matches!(actions[..], [Action::IcmpError { flow: f, kind: 0xc00, .. }] if f == flow), "{actions:?}");
}

/// Whoever knows a connection can forge as many as the wire carries, and the card takes one after the other.
#[test]
fn errors_about_flows_are_limited() {
    let mut b = Bench::with(|c| c.replies_per_second = 100);
    b.listen(80, 5);
    b.accept(&mut Peer::new(80, 80));
    let passed = (0..500).filter(|_| !b.frame(&error(3, 1, 80, SeqNum(1234))).is_empty()).count();
    assert_eq!((passed, b.engine.counters().icmp_errors_limited), (10, 490));
    b.pass(SEC / 10);
    assert_eq!(b.frame(&error(3, 1, 80, SeqNum(1234))).len(), 1);
}

/// Else whoever knows one connection could keep from all others what routers say of their paths.
#[test]
fn errors_about_one_flow_leave_room_for_those_about_others() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let flows = [80, 81].map(|port| b.accept(&mut Peer::new(port, 80)).0);
    let told = |actions: Vec<Action>| actions.iter().find_map(|a| if let Action::IcmpError { flow, .. } = a { Some(*flow) } else { None });
    let about = |port: u16, n| error_to(port, 3, 4, 80, SeqNum(n));
    assert_eq!((0..500).filter(|n| told(b.frame(&about(80, *n))) == Some(flows[0])).count(), 10);
    assert_eq!(told(b.frame(&about(81, 0))), Some(flows[1]));
    assert_eq!(b.engine.counters().icmp_errors_limited, 490);
    b.pass(SEC / 10);
    assert_eq!(told(b.frame(&about(80, 0))), Some(flows[0]));
}

/// The largest segment that a connection begins with.
fn first_mss(b: &mut Bench, mut peer: Peer) -> u16 {
    let synack = only_segment(&b.frame(&peer.syn()));
    assert!(synack.options.mss >= Some(1440), "we take what we always take");
    peer.take(&synack);
    only_install(b.frame(&peer.ack())).1.rx.mss
}

/// RFC 1191 3-5, 3-6, 6.3-2; RFC 8201 4-7.
#[test]
fn what_a_flow_has_found_out_is_known_to_the_next() {
    for peer in [Peer::new as fn(u16, u16) -> Peer, Peer::v6] {
        let mut b = Bench::dual(|_| {});
        b.listen(80, 50);
        let syn_options = TcpOptions { mss: Some(1460), ..Default::default() };
        let peer = |port| Peer { syn_options, ..peer(port, 80) };
        let (flow, mut state) = b.accept(&mut peer(1));
        let whole = state.rx.mss;
        b.engine.flow_state(flow, &state, b.now);
        assert_eq!(first_mss(&mut b, peer(2)), whole, "it has not believed anything");
        state.rx.mss = whole - 100;
        b.engine.flow_state(flow, &state, b.now);
        assert_eq!(first_mss(&mut b, peer(3)), whole - 100);
        assert_eq!(first_mss(&mut b, Peer { ts: None, ..peer(4) }), whole - 100 + if peer(4).ts.is_some() { 12 } else { 0 }, "options");
        // At its end, if not before.
        state.rx.mss = whole - 200;
        b.engine.flow_closed(flow, 0, &state, b.now, b.now);
        assert_eq!(first_mss(&mut b, peer(5)), whole - 200);
        b.pass(600 * SEC - 1);
        assert_eq!(first_mss(&mut b, peer(6)), whole - 200);
        b.pass(1);
        assert_eq!(first_mss(&mut b, peer(7)), whole);
        assert_eq!(b.engine.counters().path_mtus_learnt, 2);
    }
}

#[test]
fn questions_about_paths_are_limited() {
    let mut b = Bench::with(|c| c.replies_per_second = 100);
    b.listen(80, 5);
    b.accept(&mut Peer::new(80, 80));
    let asked = (0..500).flat_map(|n| b.frame(&error(3, 4, 80, SeqNum(n)))).filter(|a| matches!(a, Action::QueryFlow { .. })).count();
    assert_eq!(asked, 10);
}

#[test]
fn udp_is_told_that_nobody_listens() {
    let mut b = Bench::new();
    let frame = ipv4(PEER_IP, OUR_IP, 17, 0, &[1, 2, 3, 4, 0, 8, 0, 0]);
    let (body, _) = message(&b.frame(&frame));
    assert_eq!(body[..2], [3, 3]);
    assert_eq!(body[8..], frame[14..], "the datagram is quoted");
    assert_eq!(checksum(&body), 0);
    assert!(b.frame(&ipv4(PEER_IP, OUR_IP, 132, 0, &[0; 20])).is_empty());
    assert_eq!(b.engine.counters().drop_protocol, 2);
}

/// RFC 9293 MUST-57; RFC 1122 3.2.1.3-1, 3.3.6-1.
#[test]
fn fragments_foreign_packets_and_other_protocols_are_counted() {
    let mut b = Bench::new();
    assert!(b.frame(&ipv4(PEER_IP, OUR_IP, 6, 0x2000, &[0; 40])).is_empty());
    assert!(b.frame(&ipv4(PEER_IP, [10, 0, 0, 9], 6, 0, &[0x50; 40])).is_empty());
    assert!(b.frame(&ipv4(PEER_IP, [10, 0, 0, 255], 6, 0, &[0x50; 40])).is_empty());
    let other = [&OUR_MAC[..], &PEER_MAC[..], &[0x88, 0xcc][..], &[0x60; 40][..]].concat();
    assert!(b.frame(&other).is_empty());
    assert!(b.frame(&[0; 9]).is_empty());
    // To us, but for everybody on the link.
    let mut syn = Peer::new(80, 80).syn();
    syn[..6].fill(0xff);
    assert!(b.frame(&syn).is_empty());
    let c = *b.engine.counters();
    assert_eq!((c.frames, c.fragments, c.drop_not_ours, c.drop_ethertype, c.drop_malformed), (6, 1, 3, 1, 1));
}

#[test]
fn vlan_frames_are_dropped_but_priority_tags_are_not() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let syn = Peer::new(4000, 80).syn();
    let tagged = |tag: u16| [&syn[..12], &[0x81, 0][..], &tag.to_be_bytes()[..], &syn[12..]].concat();
    assert!(b.frame(&tagged(5)).is_empty());
    assert_eq!(b.frame(&tagged(0xe000)).len(), 1);
}
