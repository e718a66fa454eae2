use super::*;
use crate::{FrameError, Payload, SackBlocks, Timestamps, checksum, parse_frame};
use proptest::prelude::*;
use std::vec::Vec;

prop_compose! {
    fn options()(
        mss: Option<u16>, window_scale: Option<u8>, sack_permitted: bool, ts: Option<(u32, u32)>, sack in proptest::collection::vec(any::<(u32, u32)>(), 0..4),
    ) -> TcpOptions {
        let mut blocks = SackBlocks::default();
        let timestamps = ts.map(|(val, ecr)| Timestamps { val, ecr });
        // Keep to what fits: blocks come in segments without the options of a SYN.
        let syn = mss.is_some() || window_scale.is_some() || sack_permitted;
        for (l, r) in sack.into_iter().filter(|_| !syn) {
            blocks.push(SeqNum(l), SeqNum(r));
        }
        TcpOptions { mss, window_scale, sack_permitted, timestamps, sack: blocks }
    }
}

fn header() -> impl Strategy<Value = TxHeader> {
    let eth = any::<([u8; 6], [u8; 6], Option<u16>)>();
    let ip = any::<([u8; 4], [u8; 4], u8, u8, u16)>();
    let tcp = any::<((u16, u16), (u32, u32), u8, (u16, u16))>();
    (eth, ip, tcp, options()).prop_map(
        |((dst_mac, src_mac, vlan), (src, dst, tos, ttl, ident), (ports, numbers, flags, (window, urgent)), options)| TxHeader {
            dst_mac,
            src_mac,
            vlan,
            src_ip: ipv4::mapped(src),
            dst_ip: ipv4::mapped(dst),
            tos,
            ttl,
            ident,
            src_port: ports.0,
            dst_port: ports.1,
            seq: SeqNum(numbers.0),
            ack: SeqNum(numbers.1),
            flags: TcpFlags::from_bits_retain(flags),
            window,
            urgent,
            options,
        },
    )
}

/// Of IPv4 or IPv6.
fn any_header() -> impl Strategy<Value = TxHeader> {
    (header(), any::<Option<([u8; 16], [u8; 16])>>()).prop_map(|(h, v6)| match v6 {
        Some((src_ip, dst_ip)) if !is_mapped(&src_ip) && !is_mapped(&dst_ip) => TxHeader { src_ip, dst_ip, ..h },
        _ => h,
    })
}

/// Headers and payload, as one frame.
fn frame_of(h: &TxHeader, payload: &[u8], partial: bool) -> (Vec<u8>, Built) {
    let mut frame = std::vec![0; HEADER_MAX];
    let sum = if partial { Checksum::Partial } else { Checksum::Full(Sum::new().bytes(payload)) };
    let built = h.write(&mut frame, payload.len() as u32, sum).unwrap();
    frame.truncate(built.len.into());
    frame.extend_from_slice(payload);
    (frame, built)
}

proptest! {
    #[test]
    fn round_trip(h in any_header(), payload in proptest::collection::vec(any::<u8>(), 0..100), padding in 0usize..30) {
        let (mut frame, built) = frame_of(&h, &payload, false);
        // Ethernet padding must not become payload.
        frame.resize(frame.len() + padding, 0xee);
        let parsed = parse_frame(&frame).unwrap();
        prop_assert!(parsed.tcp_checksum_ok(&frame));
        prop_assert_eq!((parsed.eth.dst, parsed.eth.src, parsed.eth.vlan), (h.dst_mac, h.src_mac, h.vlan));
        let (ip, tcp) = parsed.tcp().unwrap();
        prop_assert_eq!((ip.src, ip.dst, ip.tos | ip.ecn, ip.ttl), (h.src_ip, h.dst_ip, h.tos, h.ttl));
        prop_assert!(!ip.fragment && !ip.options);
        prop_assert_eq!((tcp.src_port, tcp.dst_port, tcp.seq, tcp.ack), (h.src_port, h.dst_port, h.seq, h.ack));
        prop_assert_eq!((tcp.flags, tcp.window, tcp.urgent, tcp.timestamps), (h.flags, h.window, h.urgent, h.options.timestamps));
        prop_assert_eq!(tcp.header.end, u32::from(built.len));
        prop_assert_eq!(tcp.header.start, u32::from(built.csum_start));
        prop_assert_eq!(tcp.payload.of(&frame), &payload[..]);
        prop_assert_eq!(parsed.tcp_options(&frame), h.options);
    }

    #[test]
    fn finished_partial_equals_full(h in any_header(), payload in proptest::collection::vec(any::<u8>(), 0..100)) {
        let (full, built) = frame_of(&h, &payload, false);
        let (mut partial, _) = frame_of(&h, &payload, true);
        prop_assert!(checksum::finish_partial(&mut partial, built.csum_start.into(), CHECKSUM_OFFSET.into()));
        prop_assert_eq!(full, partial);
    }

    /// Any single flipped bit from the IP header on is seen by some check.
    /// RFC 9293 MUST-2, MUST-3, MUST-5.
    #[test]
    fn a_flipped_bit_is_seen(h in header(), payload in proptest::collection::vec(any::<u8>(), 0..60), at: prop::sample::Index, bit in 0u8..8) {
        let (mut frame, built) = frame_of(&h, &payload, false);
        let ip_start = usize::from(built.csum_start) - ipv4::HEADER_LEN;
        let at = ip_start + at.index(frame.len() - ip_start);
        frame[at] ^= 1 << bit;
        prop_assert!(!parse_frame(&frame).is_ok_and(|f| f.tcp_checksum_ok(&frame)), "byte {at}, bit {bit}");
    }

    /// IPv6 has no header checksum: addresses and segment are covered, traffic class, flow label and hop limit are not (RFC 8200, 8.1).
    #[test]
    fn a_flipped_bit_is_seen_over_ipv6(h in header(), src: [u8; 16], dst: [u8; 16], payload in proptest::collection::vec(any::<u8>(), 0..60), at: prop::sample::Index, bit in 0u8..8) {
        prop_assume!(!is_mapped(&src) && !is_mapped(&dst));
        let (mut frame, built) = frame_of(&TxHeader { src_ip: src, dst_ip: dst, ..h }, &payload, false);
        let addresses = usize::from(built.csum_start) - 32;
        let at = addresses + at.index(frame.len() - addresses);
        frame[at] ^= 1 << bit;
        prop_assert!(!parse_frame(&frame).is_ok_and(|f| f.tcp_checksum_ok(&frame)), "byte {at}, bit {bit}");
    }

    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        if let Ok(frame) = parse_frame(&bytes) {
            let _ = (frame.tcp_checksum_ok(&bytes), frame.tcp_options(&bytes));
        }
    }

    /// Bytes that get past the first checks: a valid frame with random damage and its IP checksum repaired.
    #[test]
    fn damaged_frames(h in header(), payload in proptest::collection::vec(any::<u8>(), 0..60), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut: prop::sample::Index) {
        let (mut frame, built) = frame_of(&h, &payload, false);
        for (at, value) in damage {
            let len = frame.len();
            frame[at.index(len)] = value;
        }
        let ip = usize::from(built.csum_start) - ipv4::HEADER_LEN;
        frame[ip + 10..ip + 12].fill(0);
        let sum = checksum::checksum(&frame[ip..ip + 20]);
        frame[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
        frame.truncate(cut.index(frame.len() + 1));
        if let Ok(parsed) = parse_frame(&frame) {
            let _ = (parsed.tcp_checksum_ok(&frame), parsed.tcp_options(&frame));
            if let Some((ip, tcp)) = parsed.tcp() {
                prop_assert!(ip.payload.end as usize <= frame.len());
                prop_assert!(tcp.payload.end <= ip.payload.end && tcp.payload.start <= tcp.payload.end);
            }
        }
    }
}

fn plain() -> TxHeader {
    TxHeader {
        dst_mac: [2; 6],
        src_mac: [4; 6],
        vlan: None,
        src_ip: ipv4::mapped([10, 0, 0, 1]),
        dst_ip: ipv4::mapped([10, 0, 0, 2]),
        tos: 0,
        ttl: 64,
        ident: 0,
        src_port: 1,
        dst_port: 2,
        seq: SeqNum(3),
        ack: SeqNum(4),
        flags: TcpFlags::ACK,
        window: 5,
        urgent: 0,
        options: TcpOptions::default(),
    }
}

/// `change` is made to the 34 + 20 bytes of a plain segment; the IP checksum is then repaired.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<crate::Frame, FrameError> {
    let (mut frame, _) = frame_of(&plain(), &[], false);
    change(&mut frame);
    frame[24..26].fill(0);
    let ihl = usize::from(frame[14] & 15) * 4;
    let sum = checksum::checksum(&frame[14..frame.len().min(14 + ihl)]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    parse_frame(&frame)
}

#[test]
fn total_length_of_zero_is_refused() {
    assert_eq!(changed(|f| f[16..18].fill(0)), Err(FrameError::BadIpHeader));
}

#[test]
fn total_length_beyond_the_frame_is_truncated() {
    assert_eq!(changed(|f| f[17] += 1), Err(FrameError::Truncated));
}

#[test]
fn version_and_header_length_are_checked() {
    assert_eq!(changed(|f| f[14] = 0x65), Err(FrameError::BadIpHeader));
    assert_eq!(changed(|f| f[14] = 0x44), Err(FrameError::BadIpHeader));
}

/// RFC 1122 3.2.1.2-1.
#[test]
fn ip_checksum_is_checked() {
    let (mut frame, _) = frame_of(&plain(), &[], false);
    frame[24] ^= 1;
    assert_eq!(parse_frame(&frame), Err(FrameError::BadIpChecksum));
}

/// RFC 3168 5.3-1; RFC 1191, 3.
#[test]
fn packets_are_not_to_be_fragmented() {
    const DONT_FRAGMENT: u8 = 0x40;
    let (frame, _) = frame_of(&plain(), &[], false);
    assert_eq!(frame[20..22], [DONT_FRAGMENT, 0]);
}

#[test]
fn fragments_have_no_segment() {
    for field in [[0x20, 0], [0, 1], [0x3f, 0xff]] {
        let frame = changed(|f| f[20..22].copy_from_slice(&field)).unwrap();
        let Payload::Ipv4(v4) = frame.payload else { panic!("not IPv4") };
        assert!(v4.ip.fragment && v4.tcp.is_none());
    }
}

/// RFC 9293 MUST-50.
#[test]
fn ip_options_are_reported() {
    let frame = changed(|f| {
        f.splice(34..34, [1, 1, 1, 1]);
        f[14] = 0x46;
        f[17] += 4;
    });
    let frame = frame.unwrap();
    let (ip, tcp) = frame.tcp().unwrap();
    assert!(ip.options);
    assert_eq!(tcp.dst_port, 2);
}

#[test]
fn segment_shorter_than_a_header_is_truncated() {
    assert_eq!(changed(|f| f[17] = 39), Err(FrameError::Truncated));
}

#[test]
fn super_frames_up_to_the_ip_limit() {
    let mut out = [0; HEADER_MAX];
    assert!(plain().write(&mut out, 65_535 - 40, Checksum::Partial).is_ok());
    assert_eq!(plain().write(&mut out, 65_535 - 39, Checksum::Partial), Err(TooLong));
    assert_eq!(plain().write(&mut out, u32::MAX, Checksum::Partial), Err(TooLong));
    assert_eq!(plain().write(&mut out[..53], 0, Checksum::Partial), Err(TooLong));
    let payload = std::vec![0xa5; 65_535 - 40];
    let (frame, _) = frame_of(&plain(), &payload, false);
    let parsed = parse_frame(&frame).unwrap();
    assert!(parsed.tcp_checksum_ok(&frame));
    assert_eq!(parsed.tcp().unwrap().1.payload.len(), 65_495);
}

#[test]
fn super_frames_up_to_the_limit_of_ipv6() {
    let header = TxHeader { src_ip: [0xfd; 16], dst_ip: [0xfc; 16], ..plain() };
    let mut out = [0; HEADER_MAX];
    // The length does not count the fixed header.
    assert!(header.write(&mut out, 65_535 - 20, Checksum::Partial).is_ok());
    assert_eq!(header.write(&mut out, 65_535 - 19, Checksum::Partial), Err(TooLong));
    assert_eq!(header.write(&mut out[..73], 0, Checksum::Partial), Err(TooLong));
}

#[test]
fn too_many_options_are_refused() {
    let mut h = plain();
    h.options.timestamps = Some(Timestamps { val: 1, ecr: 2 });
    for i in 0..4 {
        h.options.sack.push(SeqNum(i), SeqNum(i + 1));
    }
    assert_eq!(h.write(&mut [0; 128], 0, Checksum::Partial), Err(TooLong));
}
