//! Fragments: of a packet in any order one packet comes, and of anything else none.

mod common;
use common::*;
use proptest::prelude::*;
use toe_engine::Action;
use toe_wire::{Icmp, Icmpv6, Payload, TcpFlags, checksum::checksum, parse_frame};

const ETHERNET: usize = 14;
/// Where the payload of a packet without options begins.
const V4: usize = ETHERNET + 20;
const V6: usize = ETHERNET + 40;

/// A piece of `whole`'s IP payload, as a frame of its own.
fn piece(whole: &[u8], ident: u16, from: usize, to: usize) -> Vec<u8> {
    let body = if whole[12..14] == [8, 0] { V4 } else { V6 };
    let (to, more) = (to.min(whole.len() - body), to < whole.len() - body);
    raw_piece(whole, ident, from, more, &whole[body + from..body + to])
}

/// The same with any contents; the headers are `whole`'s.
fn raw_piece(whole: &[u8], ident: u16, from: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    if whole[12..14] == [8, 0] {
        let mut f = [&whole[..V4], bytes].concat();
        f[ETHERNET + 2..][..2].copy_from_slice(&((20 + bytes.len()) as u16).to_be_bytes());
        f[ETHERNET + 4..][..2].copy_from_slice(&ident.to_be_bytes());
        f[ETHERNET + 6..][..2].copy_from_slice(&((from / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
        resum(&mut f);
        return f;
    }
    let place = ((from & !7) as u16 | u16::from(more)).to_be_bytes();
    let header = [whole[ETHERNET + 6], 0, place[0], place[1], 0, 0, ident.to_be_bytes()[0], ident.to_be_bytes()[1]];
    let mut f = [&whole[..V6], &header, bytes].concat();
    f[ETHERNET + 4..][..2].copy_from_slice(&((8 + bytes.len()) as u16).to_be_bytes());
    f[ETHERNET + 6] = 44;
    f
}

fn resum(frame: &mut [u8]) {
    frame[ETHERNET + 10..][..2].fill(0);
    let sum = checksum(&frame[ETHERNET..V4]);
    frame[ETHERNET + 10..][..2].copy_from_slice(&sum.to_be_bytes());
}

/// Sets the ECN field.
fn marked(mut frame: Vec<u8>, ecn: u8) -> Vec<u8> {
    if frame[12..14] == [8, 0] {
        frame[ETHERNET + 1] = frame[ETHERNET + 1] & !3 | ecn;
        resum(&mut frame);
    } else {
        frame[ETHERNET + 1] = frame[ETHERNET + 1] & !0x30 | ecn << 4;
    }
    frame
}

fn injected(actions: &[Action]) -> Vec<Vec<u8>> {
    actions.iter().filter_map(|a| if let Action::Inject { frame, .. } = a { Some(frame.clone()) } else { None }).collect()
}

/// What the card is given: TCP segment and ECN field.
fn segment_of(frame: &[u8]) -> (Vec<u8>, u8) {
    let parsed = parse_frame(frame).expect("a whole packet");
    assert!(parsed.tcp_checksum_ok(frame));
    let (Payload::Ipv4(packet) | Payload::Ipv6(packet)) = parsed.payload else { panic!("not IP") };
    assert!(!packet.ip.fragment);
    (packet.ip.payload.of(frame).to_vec(), packet.ip.ecn)
}

/// A connection that has been there for a while, over either version, and a segment for it with `len` bytes of data.
fn connected(v6: bool, len: usize) -> (Bench, Vec<u8>) {
    let mut b = Bench::dual(|_| {});
    b.listen(80, 5);
    let mut peer = if v6 { Peer::v6(4000, 80) } else { Peer::modern(4000, 80) };
    b.accept(&mut peer);
    b.pass(100 * SEC);
    let data: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
    (b, peer.data(0, TcpFlags::ACK, &data))
}

/// Type and code of the ICMP errors among what was sent, which quote the segment in pieces.
fn errors(actions: &[Action]) -> Vec<[u8; 2]> {
    let sent = actions.iter().filter_map(|a| if let Action::Transmit { frame } = a { Some(frame) } else { None });
    let message = |frame: &Vec<u8>| {
        let (Payload::Ipv4(packet) | Payload::Ipv6(packet)) = parse_frame(frame).expect("well-formed").payload else { return None };
        let error = match Icmp::parse(packet.ip.payload.of(frame)) {
            Some(Icmp::Error { kind, code, quoted, .. }) => quoted.dst_port == 80 && (kind, code) == (11, 1),
            _ => matches!(Icmpv6::parse(&packet.ip, frame), Some(Icmpv6::Other)),
        };
        error.then(|| [packet.ip.payload.of(frame)[0], packet.ip.payload.of(frame)[1]])
    };
    sent.filter_map(message).collect()
}

fn body(frame: &[u8]) -> &[u8] {
    &frame[if frame[12..14] == [8, 0] { V4 } else { V6 }..]
}

proptest! {
    /// RFC 1122 3.3.2-1; RFC 8200 4.5-7.
    #[test]
    fn pieces_in_any_order_and_more_than_once_are_one_segment(
        v6: bool, len in 100..9000usize, step in 1..80usize, order in Just((0..400usize).collect::<Vec<_>>()).prop_shuffle(), again in 0..400usize,
    ) {
        let (mut b, whole) = connected(v6, len);
        let step = (step * 8).clamp(body(&whole).len() / 100 / 8 * 8 + 8, (body(&whole).len() - 1) / 8 * 8);
        let pieces: Vec<_> = (0..body(&whole).len()).step_by(step).map(|at| piece(&whole, 7, at, at + step)).collect();
        let mut got = Vec::new();
        for n in order.into_iter().filter(|n| *n < pieces.len()) {
            if n == again % pieces.len() {
                got.extend(injected(&b.frame(&pieces[(n + 1) % pieces.len()])));
            }
            got.extend(injected(&b.frame(&pieces[n])));
        }
        prop_assert_eq!(got.len(), 1, "{} pieces", pieces.len());
        prop_assert_eq!(segment_of(&got[0]).0, body(&whole));
        prop_assert_eq!(b.engine.counters().reassembled, 1);
    }

    /// Pieces that somebody has made up: nothing but the segment itself may come of them.
    #[test]
    fn made_up_pieces_never_change_a_segment(
        v6: bool,
        steps in prop::collection::vec((0..12usize, 1..12usize, any::<bool>(), any::<bool>(), 0..2u16), 1..60),
    ) {
        let (mut b, whole) = connected(v6, 60);
        for (unit, units, more, honest, ident) in steps {
            let (from, to) = (unit * 8, ((unit + units) * 8).min(body(&whole).len()));
            let frame = if honest && from < to { piece(&whole, ident, from, to) } else { raw_piece(&whole, ident, from, more, &vec![0x55; units * 8 - 1]) };
            for frame in injected(&b.frame(&frame)) {
                prop_assert_eq!(segment_of(&frame).0, body(&whole), "the checksum holds");
            }
        }
    }
}

/// RFC 8200 4.5-1.
#[test]
fn what_overlaps_is_dropped_with_all_its_packet() {
    for v6 in [false, true] {
        // The second of a pair overlaps the first, from behind, before, within and around.
        for (first, second) in
            [((16, 48), (40, 64)), ((40, 64), (16, 48)), ((16, 64), (24, 40)), ((24, 40), (16, 64)), ((16, 48), (16, 40))]
        {
            let (mut b, whole) = connected(v6, 100);
            for (from, to) in [first, second] {
                b.frame(&piece(&whole, 7, from, to));
            }
            let rest = [(0, 16), (16, 64), (64, 1000)].map(|(from, to)| injected(&b.frame(&piece(&whole, 7, from, to))).len());
            assert_eq!(rest, [0; 3], "{first:?} {second:?}");
            // Until it is forgotten.
            b.pass(if v6 { 60 } else { 30 } * SEC);
            let again = [(0, 64), (64, 1000)].map(|(from, to)| injected(&b.frame(&piece(&whole, 7, from, to))).len());
            assert_eq!(again, [0, 1]);
        }
    }
}

#[test]
fn two_ends_are_one_too_many() {
    let (mut b, whole) = connected(false, 100);
    b.frame(&raw_piece(&whole, 7, 64, false, &[1; 8]));
    b.frame(&piece(&whole, 7, 0, 64));
    assert!(injected(&b.frame(&piece(&whole, 7, 64, 1000))).is_empty());
    // Nor may anything lie behind the end.
    b.frame(&piece(&whole, 8, 64, 1000));
    b.frame(&raw_piece(&whole, 8, 48, false, &[1; 8]));
    assert!(injected(&b.frame(&piece(&whole, 8, 0, 64))).is_empty());
}

/// RFC 8200 4.5-3, 4.5-4.
#[test]
fn impossible_pieces_are_dropped() {
    for v6 in [false, true] {
        let (mut b, whole) = connected(v6, 100);
        b.frame(&raw_piece(&whole, 7, 0, true, &[1; 12]));
        b.frame(&raw_piece(&whole, 7, 0, true, &[]));
        b.frame(&raw_piece(&whole, 7, 65_528, false, &[1; 8]));
        let c = b.engine.counters();
        assert_eq!((c.drop_fragment, c.fragments), (3, 3), "IPv6: {v6}");
        // The first two were no pieces at all; the third has spoiled its packet.
        b.frame(&piece(&whole, 8, 0, 64));
        assert_eq!(injected(&b.frame(&piece(&whole, 8, 64, 1000))).len(), 1);
    }
}

/// RFC 3168 5.3-2, 5.3-3, 5.3-4, 5.3-5, 5.3-6.
#[test]
fn marks_of_congestion_are_not_lost() {
    let (not, ect0, ce) = (0, 2, 3);
    for v6 in [false, true] {
        for (first, second, whole_is) in [
            (not, not, Some(not)),
            (ect0, ect0, Some(ect0)),
            (ce, ce, Some(ce)),
            (ect0, ce, Some(ce)),
            (ce, ect0, Some(ce)),
            (not, ce, None),
            (ce, not, None),
        ] {
            let (mut b, whole) = connected(v6, 100);
            b.frame(&marked(piece(&whole, 7, 0, 64), first));
            let got = injected(&b.frame(&marked(piece(&whole, 7, 64, 1000), second)));
            assert_eq!(got.first().map(|f| segment_of(f).1), whole_is, "{first} and {second}");
        }
    }
}

/// RFC 1122 3.3.2-2; RFC 8200 4.5-2.
#[test]
fn a_packet_that_stays_incomplete_is_given_up_and_its_source_told() {
    for (v6, seconds) in [(false, 30), (true, 60)] {
        for (from, to, told) in [(0, 64, true), (64, 1000, false)] {
            let (mut b, whole) = connected(v6, 100);
            b.frame(&piece(&whole, 7, from, to));
            assert_eq!(errors(&b.pass(seconds * SEC - 1)), [[0; 2]; 0]);
            let error = if v6 { [3, 1] } else { [11, 1] };
            assert_eq!(errors(&b.pass(1)), if told { vec![error] } else { vec![] });
            let (from, to) = if told { (64, 1000) } else { (0, 64) };
            assert!(injected(&b.frame(&piece(&whole, 7, from, to))).is_empty(), "the other half comes too late");
            assert_eq!(b.engine.counters().reassembly_failed, 1);
        }
    }
}

#[test]
fn a_flood_of_pieces_costs_bounded_memory_and_nothing_for_long() {
    for size in [8, 1400] {
        let (mut b, whole) = connected(false, 100);
        for n in 0..20_000u32 {
            b.frame(&raw_piece(&whole, n as u16, 64 + (n >> 16) as usize * 8, true, &vec![1; size]));
        }
        let c = *b.engine.counters();
        let waiting = 20_000 - c.reassembly_failed;
        assert!(waiting <= 1024 && waiting * (size as u64 + 128) <= 4 << 20, "{waiting} wait");
        // An honest packet is the youngest.
        b.frame(&piece(&whole, 50_000, 0, 64));
        assert_eq!(injected(&b.frame(&piece(&whole, 50_000, 64, 1000))).len(), 1);
        b.pass(31 * SEC);
        assert_eq!(b.engine.counters().reassembly_failed, 20_000);
    }
}

/// The oldest makes room, not the one whose time is over first: pieces of one version do not keep the other's out.
#[test]
fn a_flood_of_either_version_leaves_room_for_the_other() {
    for v6 in [false, true] {
        let (mut b, whole) = connected(v6, 100);
        let flood = Peer { ip: if v6 { Peer::new(0, 0).ip } else { PEER_IP6 }, ..Peer::modern(4001, 80) }.data(0, TcpFlags::ACK, &[1; 100]);
        (0..5000).for_each(|n| _ = b.frame(&raw_piece(&flood, n, 64, true, &[1; 8])));
        b.frame(&piece(&whole, 7, 0, 64));
        assert_eq!(injected(&b.frame(&piece(&whole, 7, 64, 1000))).len(), 1);
    }
}

#[test]
fn one_packet_has_few_pieces() {
    let (mut b, whole) = connected(false, 4000);
    let got: usize = (0..body(&whole).len()).step_by(8).map(|at| injected(&b.frame(&piece(&whole, 7, at, at + 8))).len()).sum();
    assert_eq!(got, 0);
    assert!(b.engine.counters().drop_fragment > 300);
}

/// A fragment in fragments would make us go round in circles.
#[test]
fn fragments_of_fragments_are_dropped() {
    let (mut b, whole) = connected(true, 100);
    let inner = piece(&whole, 7, 0, 64);
    b.frame(&piece(&inner, 8, 0, 40));
    assert!(b.frame(&piece(&inner, 8, 40, 1000)).is_empty());
    b.frame(&piece(&whole, 7, 64, 1000));
    let c = b.engine.counters();
    assert_eq!((c.reassembled, c.drop_fragment), (0, 1));
}

#[test]
fn a_connection_may_open_in_fragments() {
    let mut b = Bench::new();
    b.listen(80, 5);
    let syn = Peer::modern(4000, 80).syn();
    assert!(b.frame(&piece(&syn, 7, 16, 1000)).is_empty());
    assert!(only_segment(&b.frame(&piece(&syn, 7, 0, 16))).is(TcpFlags::SYN | TcpFlags::ACK));
}
