//! A frame from the wire. The first byte says which checksums are made right, else hardly any input would get past them.

use toe_wire::checksum::{checksum, pseudo_header};
use toe_wire::nd::Nd;
use toe_wire::{
    Arp, Checksum, Frame, Icmp, Icmpv6, Ip, Payload, Sum, Tcp, TcpOptions, TxHeader, ethertype, ip_proto, parse_frame, tcp_tuple,
};

const MEND_IP: u8 = 1;
const MEND_PAYLOAD: u8 = 2;

pub fn run(data: &[u8]) {
    let Some((&how, frame)) = data.split_first() else { return };
    let mut frame = frame.to_vec();
    if how & MEND_IP != 0 {
        mend_ip(&mut frame);
    }
    let Ok(parsed) = parse_frame(&frame) else {
        let _ = tcp_tuple(&frame);
        return;
    };
    match &parsed.payload {
        Payload::Arp(span) => {
            if let Some(arp) = Arp::parse(span.of(&frame)) {
                back_to_arp(&arp);
            }
        }
        Payload::Ipv4(packet) | Payload::Ipv6(packet) => match packet.tcp {
            Some(tcp) => segment(&frame, &parsed, &packet.ip, &tcp),
            None => message(&mut frame, &packet.ip, how),
        },
        Payload::Other => {}
    }
}

fn back_to_arp(arp: &Arp) {
    let mut out = [0; 64];
    let len = arp.write(&[0xff; 6], None, &mut out).expect("an ARP packet fits");
    let parsed = parse_frame(&out[..len]).expect("what we write parses");
    let Payload::Arp(span) = parsed.payload else { panic!("{parsed:?}") };
    assert_eq!(Arp::parse(span.of(&out[..len])).as_ref(), Some(arp));
}

/// What parses as a segment has a tuple, lies within the frame, and comes back when its headers are written anew.
fn segment(frame: &[u8], parsed: &Frame, ip: &Ip, tcp: &Tcp) {
    let tuple = tcp_tuple(frame).expect("a segment has a tuple");
    assert_eq!((tuple.src_ip, tuple.dst_ip, tuple.src_port, tuple.dst_port), (ip.src, ip.dst, tcp.src_port, tcp.dst_port));
    let _ = parsed.tcp_checksum_ok(frame);
    let options = parsed.tcp_options(frame);
    if options.wire_len() > 40 {
        return;
    }
    let header = TxHeader {
        dst_mac: parsed.eth.dst,
        src_mac: parsed.eth.src,
        vlan: parsed.eth.vlan,
        src_ip: ip.src,
        dst_ip: ip.dst,
        tos: ip.tos,
        ttl: ip.ttl,
        ident: 0,
        src_port: tcp.src_port,
        dst_port: tcp.dst_port,
        seq: tcp.seq,
        ack: tcp.ack,
        flags: tcp.flags,
        window: tcp.window,
        urgent: tcp.urgent,
        options,
    };
    let payload = tcp.payload.of(frame);
    let mut again = vec![0; 128];
    let Ok(built) = header.write(&mut again, payload.len() as u32, Checksum::Full(Sum::new().bytes(payload))) else { return };
    again.truncate(built.len.into());
    again.extend_from_slice(payload);
    let second = parse_frame(&again).expect("what we write parses");
    assert!(second.tcp_checksum_ok(&again), "a checksum of ours");
    let (_, tcp2) = second.tcp().expect("a segment");
    assert_eq!((tcp2.seq, tcp2.ack, tcp2.flags, tcp2.window), (tcp.seq, tcp.ack, tcp.flags, tcp.window));
    assert_eq!(tcp2.payload.of(&again), payload);
    assert_eq!(second.tcp_options(&again), options);
    assert_eq!(TcpOptions::parse(tcp2.options.of(&again)), Ok(options));
}

fn message(frame: &mut [u8], ip: &Ip, how: u8) {
    let Some(message) = frame.get_mut(ip.payload.range()).filter(|message| message.len() >= 4) else { return };
    if how & MEND_PAYLOAD != 0 {
        message[2..4].fill(0);
        let sum = match ip.proto {
            ip_proto::ICMPV6 => pseudo_header(&ip.src, &ip.dst, ip.proto, message.len() as u32).bytes(message).finish(),
            _ => checksum(message),
        };
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    match ip.proto {
        ip_proto::ICMP => drop(Icmp::parse(ip.payload.of(frame))),
        ip_proto::ICMPV6 => look(Icmpv6::parse(ip, frame)),
        _ => {}
    }
}

/// What a router advertises is read as it is used.
fn look(message: Option<Icmpv6<'_>>) {
    if let Some(Icmpv6::Nd(Nd::RouterAdvertisement(advertisement))) = message {
        let _ = advertisement.prefixes().count();
    }
}

fn mend_ip(frame: &mut [u8]) {
    let at = match frame.get(12..14) {
        Some(kind) if kind == ethertype::IPV4.to_be_bytes() => 14,
        Some(kind) if kind == ethertype::VLAN.to_be_bytes() => 18,
        _ => return,
    };
    let Some(ip) = frame.get_mut(at..) else { return };
    let len = usize::from(ip.first().copied().unwrap_or(0) & 15) * 4;
    if let Some(header) = ip.get_mut(..len).filter(|header| header.len() >= 20) {
        header[10..12].fill(0);
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}
