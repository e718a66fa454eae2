use super::*;
use crate::{Icmpv6, Payload, parse_frame};
use proptest::prelude::*;
use std::vec::Vec;

const ROUTER: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const GROUP: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 1, 2, 3];
const OTHER: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 4, 5, 6];
const REPORT: Report = Report { src: ROUTER, from: [2, 0, 0, 0, 0, 1], vlan: None };

/// The packet of a frame that some station gets, and its message.
fn received(frame: &[u8]) -> (Ip, &[u8]) {
    let Payload::Ipv6(packet) = parse_frame(frame).unwrap().payload else { panic!("not IPv6") };
    let message = packet.ip.payload.of(frame);
    assert!(pseudo_header(&packet.ip.src, &packet.ip.dst, ip_proto::ICMPV6, message.len() as u32).bytes(message).is_valid());
    (packet.ip, message)
}

/// A query as a router sends it.
fn query(group: [u8; 16], code: u16, rest: &[u8]) -> Vec<u8> {
    let mut message = std::vec![QUERY, 0, 0, 0];
    message.extend(code.to_be_bytes());
    message.extend([0; 2]);
    message.extend(group);
    message.extend(rest);
    let mut out = std::vec![0; 200];
    let len = REPORT.frame(&ipv6::ALL_NODES, &mut message, &mut out).unwrap();
    out.truncate(len);
    out
}

fn parsed(frame: &[u8]) -> Option<Icmpv6<'_>> {
    Icmpv6::parse(&received(frame).0, frame)
}

#[test]
fn a_report_is_seen_by_routers_and_goes_no_further() {
    let mut out = [0; FRAME_MAX];
    let len = REPORT.write(Reason::Joined, &[GROUP, OTHER], &mut out).unwrap();
    let (ip, message) = received(&out[..len]);
    assert_eq!((&out[..6], ip.ttl, ip.src, ip.dst), (&[0x33, 0x33, 0, 0, 0, 0x16][..], 1, ROUTER, ALL_LISTENERS_OF_REPORTS));
    let options = ip.header.of(&out);
    assert_eq!(&options[ipv6::HEADER_LEN..], [58, 0, 5, 2, 0, 0, 1, 0], "router alert");
    let records: Vec<u8> = [[4, 0, 0, 0].as_slice(), &GROUP, &[4, 0, 0, 0], &OTHER].concat();
    assert_eq!((message[0], &message[4..8], &message[8..]), (143, &[0, 0, 0, 2][..], &records[..]));
}

#[test]
fn a_report_of_version_1_goes_to_its_group() {
    let mut out = [0; FRAME_MAX];
    let len = REPORT.write_v1(&GROUP, &mut out).unwrap();
    let (ip, message) = received(&out[..len]);
    assert_eq!((&out[..6], ip.ttl, ip.dst), (&[0x33, 0x33, 0xff, 1, 2, 3][..], 1, GROUP));
    assert_eq!((message[0], &message[8..]), (131, &GROUP[..]));
}

#[test]
fn as_many_groups_as_fit_are_told() {
    let mut out = [0; FRAME_MAX];
    assert!(REPORT.write(Reason::Asked, &[GROUP; GROUPS_MAX], &mut out).is_ok());
    assert_eq!(REPORT.write(Reason::Asked, &[GROUP; GROUPS_MAX + 1], &mut out), Err(TooLong));
}

#[test]
fn queries_of_both_versions_are_read() {
    let v1 = Query { group: GROUP, max_delay_ms: 0xffff, is_v1: true };
    assert_eq!(parsed(&query(GROUP, 0xffff, &[])), Some(Icmpv6::Query(v1)));
    let v2 = Query { group: UNSPECIFIED, max_delay_ms: 10_000, is_v1: false };
    assert_eq!(parsed(&query(UNSPECIFIED, 10_000, &[2, 125, 0, 0])), Some(Icmpv6::Query(v2)));
    let slow = Query { max_delay_ms: 0x1fff << 10, ..v2 };
    assert_eq!(parsed(&query(UNSPECIFIED, 0xffff, &[2, 125, 0, 0])), Some(Icmpv6::Query(slow)));
}

#[test]
fn a_query_from_elsewhere_or_for_no_group_is_none() {
    assert_eq!(parsed(&query(ROUTER, 0, &[])), Some(Icmpv6::Other));
    let frame = query(GROUP, 0, &[]);
    let (ip, _) = received(&frame);
    let message = ip.payload.of(&frame);
    for bad in [Ip { ttl: 2, ..ip }, Ip { src: [0xfd; 16], ..ip }] {
        assert!(Query::parse(&bad, message).is_err());
    }
    assert!(Query::parse(&ip, &message[..23]).is_err());
}

#[test]
fn a_query_of_no_version_is_none() {
    for rest in [&[0][..], &[2, 125, 0]] {
        assert_eq!(parsed(&query(GROUP, 100, rest)), Some(Icmpv6::Other), "{} bytes", 24 + rest.len());
    }
}

proptest! {
    #[test]
    fn any_bytes(message in proptest::collection::vec(any::<u8>(), 0..60)) {
        let frame = query(GROUP, 0, &[]);
        let ip = received(&frame).0;
        let _ = Query::parse(&ip, &message);
    }
}
