use super::*;
use crate::{Payload, ip_proto, parse_frame};
use proptest::prelude::*;
use std::vec::Vec;

const US: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const PEER: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// A packet from PEER to US: extension headers and payload as `rest` has them.
fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut out = std::vec![0; HEADER_LEN];
    let mut w = Writer::new(&mut out);
    let ip = Outgoing { src: PEER, dst: US, class: 0xb9, hop_limit: 61, proto: first, payload_len: rest.len() as u16 };
    write(&mut w, &ip);
    out.extend_from_slice(rest);
    out
}

fn parse(first: u8, rest: &[u8]) -> Result<Ip, FrameError> {
    Ip::parse_v6(&packet(first, rest), 0)
}

/// An extension header of eight bytes that is followed by `next`; `body` are the other six.
fn ext(next: u8, body: [u8; 6]) -> Vec<u8> {
    [&[next, 0], &body[..]].concat()
}

#[test]
fn the_fields_of_a_plain_packet() {
    let frame = packet(ip_proto::TCP, &[7; 30]);
    let ip = Ip::parse_v6(&frame, 0).unwrap();
    assert_eq!((ip.src, ip.dst, ip.proto, ip.ttl), (PEER, US, ip_proto::TCP, 61));
    assert_eq!((ip.tos, ip.ecn, ip.fragment, ip.options), (0xb8, 1, false, false));
    assert_eq!((ip.header, ip.payload), (Span::new(0, 40), Span::new(40, 70)));
}

#[test]
fn padding_behind_the_packet_is_no_payload() {
    let mut frame = packet(ip_proto::TCP, &[7; 30]);
    frame.resize(200, 0xee);
    assert_eq!(Ip::parse_v6(&frame, 0).unwrap().payload, Span::new(40, 70));
    frame.truncate(69);
    assert_eq!(Ip::parse_v6(&frame, 0), Err(FrameError::Truncated));
    assert_eq!(Ip::parse_v6(&frame[..39], 0), Err(FrameError::Truncated));
}

#[test]
fn another_version_is_refused() {
    let mut frame = packet(6, &[]);
    frame[0] = 0x40;
    assert_eq!(Ip::parse_v6(&frame, 0), Err(FrameError::BadIpHeader));
}

#[test]
fn mapped_addresses_do_not_pass_for_ipv4() {
    for at in [8, 24] {
        let mut frame = packet(6, &[]);
        frame[at..at + 16].copy_from_slice(&crate::ipv4::mapped([10, 0, 0, 1]));
        assert_eq!(Ip::parse_v6(&frame, 0), Err(FrameError::BadIpHeader));
    }
}

#[test]
fn extension_headers_are_walked_in_their_order() {
    let pad = [1, 4, 0, 0, 0, 0];
    let rest = [ext(60, pad), ext(43, pad), ext(44, [9, 0, 0, 0, 0, 0]), ext(60, [0; 6]), ext(6, pad), std::vec![7; 20]].concat();
    // A routing header without segments left, a packet in one fragment.
    let ip = parse(0, &rest).unwrap();
    assert_eq!((ip.proto, ip.options, ip.fragment, ip.payload), (6, true, false, Span::new(80, 100)));
}

#[test]
fn hop_by_hop_options_elsewhere_are_refused() {
    let pad = [1, 4, 0, 0, 0, 0];
    assert_eq!(parse(60, &[ext(0, pad), ext(6, pad)].concat()), Err(FrameError::BadExtension));
}

#[test]
fn options_nobody_knows_are_skipped_or_forbid_the_packet() {
    for (kind, wanted) in [(0x3e, Ok(6)), (0x7e, Err(FrameError::RefusedExtension)), (0xbe, Err(FrameError::RefusedExtension))] {
        for header in [0, 60] {
            assert_eq!(parse(header, &ext(6, [kind, 4, 0, 0, 0, 0])).map(|ip| ip.proto), wanted, "{kind:#x}");
        }
    }
    assert_eq!(parse(60, &ext(6, [0x3e, 5, 0, 0, 0, 0])), Err(FrameError::BadExtension), "longer than the header");
    assert_eq!(parse(60, &ext(6, [1, 3, 0, 0, 0, 1])), Err(FrameError::BadExtension), "cut behind its kind");
}

#[test]
fn segments_left_are_for_routers() {
    for kind in [0, 2, 4, 99] {
        assert_eq!(parse(43, &ext(6, [kind, 1, 0, 0, 0, 0])), Err(FrameError::RefusedExtension));
        assert_eq!(parse(43, &ext(6, [kind, 0, 0, 0, 0, 0])).map(|ip| ip.proto), Ok(6));
    }
}

#[test]
fn fragments_are_told_and_not_looked_into() {
    for (offset, wanted) in [(1u16, true), (8, true), (0xfff8, true), (0, false), (6, false)] {
        let [a, b] = offset.to_be_bytes();
        assert_eq!(parse(44, &ext(0, [a, b, 0, 0, 0, 9])).map(|ip| ip.fragment).unwrap_or(false), wanted, "{offset:#x}");
    }
}

#[test]
fn more_headers_than_anybody_needs_are_refused() {
    let chain = |n: usize| (0..n).flat_map(|i| ext(if i + 1 == n { 6 } else { 60 }, [0; 6])).collect::<Vec<_>>();
    assert!(parse(60, &chain(EXTENSIONS_MAX)).is_ok());
    assert_eq!(parse(60, &chain(EXTENSIONS_MAX + 1)), Err(FrameError::BadExtension));
}

#[test]
fn addresses_for_neighbours() {
    let a = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(solicited_node(&a), [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 6, 7, 8]);
    assert_eq!(multicast_mac(&solicited_node(&a)), [0x33, 0x33, 0xff, 6, 7, 8]);
    assert!(is_link_local(&a) && !is_link_local(&US) && is_multicast(&ALL_NODES));
}

proptest! {
    #[test]
    fn any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..200), first in prop::sample::select(&[0u8, 6, 43, 44, 58, 60][..])) {
        let _ = Ip::parse_v6(&bytes, 0);
        // Past the first checks.
        let len = bytes.len();
        if len >= HEADER_LEN {
            bytes[0] = 0x60 | bytes[0] & 15;
            bytes[4..6].copy_from_slice(&((len - HEADER_LEN) as u16).to_be_bytes());
            bytes[6] = first;
            if let Ok(ip) = Ip::parse_v6(&bytes, 0) {
                prop_assert!(ip.payload.end as usize == len && ip.payload.start <= ip.payload.end && ip.header.end == ip.payload.start);
            }
        }
    }

    /// Chains of headers that are nearly right.
    #[test]
    fn any_chain(kinds in prop::collection::vec((prop::sample::select(&[0u8, 43, 44, 60][..]), any::<[u8; 6]>(), 0u8..3), 0..9), cut in 0usize..80) {
        let first = kinds.first().map_or(6, |k| k.0);
        let nexts = kinds.iter().skip(1).map(|k| k.0).chain([6]);
        let mut rest: Vec<u8> = Vec::new();
        for ((_, body, len), next) in kinds.iter().zip(nexts) {
            rest.extend([next, *len]);
            rest.extend(body);
            rest.extend(std::vec![0; usize::from(*len) * 8]);
        }
        rest.truncate(rest.len().saturating_sub(cut));
        let _ = parse(first, &rest);
    }

    #[test]
    fn a_segment_is_found_behind_extension_headers(n in 0usize..6, vlan: Option<u16>) {
        let mut rest: Vec<u8> = (0..n).flat_map(|i| ext(if i + 1 == n { 6 } else { 60 }, [1, 4, 0, 0, 0, 0])).collect();
        let tcp = [0x1f, 0x90, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0, 9, 0, 0, 0, 0, 1, 2, 3];
        rest.extend(tcp);
        let mut frame = std::vec![0; 18];
        let mut w = Writer::new(&mut frame);
        crate::ethernet::write(&mut w, &[2; 6], &[4; 6], vlan, crate::ethertype::IPV6);
        let len = w.len();
        frame.truncate(len);
        frame.extend(packet(if n == 0 { 6 } else { 60 }, &rest));
        let parsed = parse_frame(&frame).unwrap();
        let Payload::Ipv6(_) = parsed.payload else { panic!("not IPv6") };
        let (ip, segment) = parsed.tcp().unwrap();
        prop_assert_eq!((segment.src_port, segment.payload.of(&frame)), (8080, &[1, 2, 3][..]));
        let tuple = crate::tcp_tuple(&frame).unwrap();
        prop_assert_eq!((tuple.src_ip, tuple.dst_ip, tuple.src_port, tuple.dst_port), (ip.src, ip.dst, 8080, 80));
    }
}
