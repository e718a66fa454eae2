use super::*;
use crate::{Icmpv6, Payload, parse_frame};
use proptest::prelude::*;
use std::vec::Vec;

const MAC: Mac = [4; 6];
const US: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const PEER: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const ROUTER: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

fn ip(src: [u8; 16], dst: [u8; 16]) -> Ip {
    let mut frame = [0; ipv6::HEADER_LEN];
    let out = ipv6::Outgoing { src, dst, class: 0, hop_limit: 255, proto: ip_proto::ICMPV6, payload_len: 0 };
    ipv6::write(&mut Writer::new(&mut frame), &out);
    Ip::parse_v6(&frame, 0).unwrap()
}

/// What a receiver makes of a frame, and the station that it goes to.
fn receive(frame: &[u8]) -> (Mac, Option<u16>, Icmpv6<'_>) {
    let parsed = parse_frame(frame).unwrap();
    let Payload::Ipv6(packet) = parsed.payload else { panic!("not IPv6") };
    assert_eq!((packet.ip.ttl, parsed.eth.src), (HOP_LIMIT, MAC));
    (parsed.eth.dst, parsed.eth.vlan, Icmpv6::parse(&packet.ip, frame).unwrap())
}

fn unicast() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>().prop_filter("unicast", |a| !is_multicast(a) && !crate::ipv4::is_mapped(a) && *a != UNSPECIFIED)
}

proptest! {
    #[test]
    fn solicitations_round_trip(src in unicast(), target in unicast(), to: Mac, vlan: Option<u16>, kind in 0..3) {
        let asked = match kind {
            0 => Solicitation::multicast(src, MAC, target),
            1 => Solicitation::unicast(src, MAC, target),
            _ => Solicitation::probe(target),
        };
        let mut out = [0; FRAME_MAX];
        let len = asked.write(to, MAC, vlan, &mut out).unwrap();
        let group = [0x33, 0x33, 0xff, target[13], target[14], target[15]];
        prop_assert_eq!(receive(&out[..len]), (if kind == 1 { to } else { group }, vlan, Icmpv6::Nd(Nd::Solicitation(asked))));
        prop_assert_eq!(asked.write(to, MAC, vlan, &mut out[..len - 1]), Err(TooLong));
    }

    #[test]
    fn answers_round_trip(src in unicast(), target in unicast(), to: Mac, probe: bool) {
        let asked = if probe { Solicitation::probe(target) } else { Solicitation::multicast(src, [9; 6], target) };
        let answer = asked.reply(MAC);
        prop_assert_eq!((answer.solicited, answer.overrides, answer.is_router), (!probe, true, false));
        let mut out = [0; FRAME_MAX];
        let len = answer.write(to, MAC, None, &mut out).unwrap();
        let station = if probe { [0x33, 0x33, 0, 0, 0, 1] } else { to };
        prop_assert_eq!(receive(&out[..len]), (station, None, Icmpv6::Nd(Nd::Advertisement(answer))));
    }

    #[test]
    fn any_message(bytes in prop::collection::vec(any::<u8>(), 8..120), kind in 133u8..138, units in 0u8..5) {
        let mut bytes = bytes;
        (bytes[0], bytes[1]) = (kind, 0);
        for at in [17, 25] {
            if let Some(b) = bytes.get_mut(at) {
                *b = units;
            }
        }
        for (src, dst) in [(ROUTER, ALL_NODES), (US, PEER), (UNSPECIFIED, ALL_NODES)] {
            if let Ok(Nd::RouterAdvertisement(ra)) = Nd::parse(&ip(src, dst), &bytes) {
                prop_assert!(ra.prefixes().count() <= bytes.len() / 32);
            }
        }
    }
}

#[test]
fn router_solicitations_name_their_sender_if_it_has_an_address() {
    let mut out = [0; FRAME_MAX];
    for (src, len) in [(ROUTER, 14 + 40 + 16), (UNSPECIFIED, 14 + 40 + 8)] {
        assert_eq!(router_solicitation(&src, MAC, None, &mut out), Ok(len));
        assert_eq!(receive(&out[..len]), ([0x33, 0x33, 0, 0, 0, 2], None, Icmpv6::Nd(Nd::RouterSolicitation)));
    }
}

/// A router advertisement's message.
fn advertisement(options: &[&[u8]]) -> Vec<u8> {
    let mut m = std::vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    m.extend(options.concat());
    m
}

fn prefix(len: u8, flags: u8) -> Vec<u8> {
    let mut o = std::vec![3, 4, len, flags, 0, 0, 0x0e, 0x10, 0, 0, 0x07, 8, 0, 0, 0, 0];
    o.extend(PEER);
    o
}

#[test]
fn a_router_tells_prefixes_mtu_and_its_station() {
    let m = advertisement(&[
        &[1, 1, 7, 7, 7, 7, 7, 7],
        &[5, 1, 0, 0, 0, 0, 5, 0xdc],
        &[99, 1, 0, 0, 0, 0, 0, 0],
        &prefix(64, 0xc0),
        &prefix(200, 0),
    ]);
    let Ok(Nd::RouterAdvertisement(ra)) = Nd::parse(&ip(ROUTER, ALL_NODES), &m) else { panic!("refused") };
    assert_eq!((ra.src, ra.hop_limit, ra.lifetime_s, ra.source_mac, ra.mtu), (ROUTER, 64, 0x0708, Some([7; 6]), Some(1500)));
    let first = PrefixInfo { prefix: PEER, len: 64, on_link: true, autonomous: true, valid_s: 3600, preferred_s: 1800 };
    let second = PrefixInfo { len: 200, on_link: false, autonomous: false, ..first };
    assert_eq!(ra.prefixes().collect::<Vec<_>>(), [first, second]);
}

/// RFC 4191, 2.2.
#[test]
fn a_router_says_how_it_ranks() {
    use Preference::*;
    for (flags, wanted) in [(0, Medium), (0x08, High), (0x10, Medium), (0x18, Low), (0xe7, Medium), (0xff, Low)] {
        let mut m = advertisement(&[]);
        m[5] = flags;
        m[2..4].fill(0);
        let Ok(Nd::RouterAdvertisement(ra)) = Nd::parse(&ip(ROUTER, ALL_NODES), &m) else { panic!("refused") };
        assert_eq!(ra.preference, wanted, "{flags:#x}");
    }
    assert!(Low < Medium && Medium < High);
}

#[test]
fn options_cut_short_are_skipped_and_those_of_length_zero_refused() {
    // An MTU option needs eight bytes, a prefix 32.
    let short = advertisement(&[&[3, 1, 64, 0xc0, 0, 0, 0, 0]]);
    let Ok(Nd::RouterAdvertisement(ra)) = Nd::parse(&ip(ROUTER, ALL_NODES), &short) else { panic!("refused") };
    assert_eq!(ra.prefixes().count(), 0);
    for bad in [&[1u8, 0, 7, 7, 7, 7, 7, 7][..], &[1, 2, 7, 7, 7, 7, 7, 7], &[1]] {
        assert!(Nd::parse(&ip(ROUTER, ALL_NODES), &advertisement(&[bad])).is_err(), "{bad:?}");
    }
}

#[test]
fn what_came_through_a_router_is_refused() {
    let m = advertisement(&[]);
    for hops in [254, 64, 0] {
        assert!(Nd::parse(&Ip { ttl: hops, ..ip(ROUTER, ALL_NODES) }, &m).is_err());
    }
    assert!(Nd::parse(&ip(US, ALL_NODES), &m).is_err(), "a router speaks for the link from its link-local address");
    assert!(
        Nd::parse(&ip(ROUTER, ALL_NODES), &{
            let mut m = m.clone();
            m[1] = 1;
            m
        })
        .is_err(),
        "code"
    );
    assert!(Nd::parse(&ip(ROUTER, ALL_NODES), &m[..15]).is_err());
}

/// RFC 6980, 5: also if it is a whole packet (RFC 6946). All messages are, here.
#[test]
fn what_has_a_fragment_header_is_refused() {
    let mut out = [0; FRAME_MAX];
    let len = Solicitation::multicast(PEER, MAC, US).write(MAC, MAC, None, &mut out).unwrap();
    let (headers, message) = out[..len].split_at(ethernet::HEADER_LEN + ipv6::HEADER_LEN);
    let behind = |next: u8, extension: [u8; 8]| {
        let mut frame = [headers, &extension, message].concat();
        (frame[19], frame[20]) = (frame[19] + 8, next);
        receive(&frame).2 == Icmpv6::BadNd
    };
    assert!(behind(44, [ip_proto::ICMPV6, 0, 0, 0, 0, 0, 0, 1]));
    assert!(!behind(60, [ip_proto::ICMPV6, 0, 1, 4, 0, 0, 0, 0]), "other headers do no harm");
}

fn neighbour(kind: u8, flags: u8, target: [u8; 16], options: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target, options].concat()
}

#[test]
fn probes_that_break_their_rules_are_refused() {
    let probe = |dst, options: &[u8]| Nd::parse(&ip(UNSPECIFIED, dst), &neighbour(135, 0, US, options)).is_ok();
    assert!(probe(solicited_node(&US), &[]));
    assert!(!probe(solicited_node(&US), &[1, 1, 7, 7, 7, 7, 7, 7]), "who has no address has no station to name");
    assert!(!probe(US, &[]));
}

/// RFC 4291, 2.7: the answer would go to all of the group.
#[test]
fn who_asks_is_no_group() {
    for kind in [135, 136] {
        assert!(Nd::parse(&ip(ALL_NODES, solicited_node(&US)), &neighbour(kind, 0, US, &[])).is_err());
    }
}

#[test]
fn multicast_targets_and_solicited_multicasts_are_refused() {
    for kind in [135, 136] {
        assert!(Nd::parse(&ip(PEER, US), &neighbour(kind, 0, ALL_NODES, &[])).is_err());
        assert!(Nd::parse(&ip(PEER, US), &neighbour(kind, 0, US, &[])[..23]).is_err());
    }
    assert!(Nd::parse(&ip(PEER, ALL_NODES), &neighbour(136, FLAG_SOLICITED, PEER, &[])).is_err());
    assert!(Nd::parse(&ip(PEER, ALL_NODES), &neighbour(136, FLAG_OVERRIDE, PEER, &[])).is_ok());
}
