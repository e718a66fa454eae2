//! Pre-processing: validate a frame, find its flow, summarise it; or say why not.
//!
//! Reads only what is fixed: the flows' keys and the card's own addresses. So it can run on any number of cores.

use crate::{
    msg::{RxMsg, RxRef},
    store::FlowStore,
    tables::Tables,
};
use toe_abi::{
    counters::{Drop, Exception},
    flow::FlowKey,
};
use toe_tcp::SegmentIn;
use toe_wire::{Arp, Frame, FrameError, Ip, Mac, Payload, Tcp, TcpFlags, ip_proto, parse_frame};

/// What becomes of a frame.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    Flow(RxMsg),
    Drop(Drop),
    /// To the control plane. The reference knows now where the TCP header is.
    Exception(Exception, RxRef),
    /// A request for an address of our own: send this.
    Answer {
        reply: Arp,
        vlan: Option<u16>,
    },
}

/// Judges a frame from the wire or from the control plane.
pub fn classify(bytes: &[u8], mut rx: RxRef, mac: Mac, flows: &FlowStore, tables: &Tables) -> Verdict {
    let frame = match parse_frame(bytes) {
        Ok(frame) => frame,
        Err(e) => return Verdict::Drop(other_mac(bytes, mac).unwrap_or(drop_reason(e))),
    };
    if frame.eth.dst != mac && !frame.eth.is_group() {
        return Verdict::Drop(Drop::OtherMac);
    }
    match frame.payload {
        Payload::Arp(packet) => arp(packet.of(bytes), rx, mac, frame.eth.vlan, tables),
        Payload::Other => Verdict::Exception(Exception::OtherProtocol, rx),
        Payload::Ipv4(ip) => match ip.tcp {
            Some(tcp) => {
                rx.tcp_at = tcp.header.start as u16;
                segment(bytes, rx, &frame, &ip.ip, &tcp, flows)
            }
            None if ip.ip.fragment => Verdict::Exception(Exception::Fragment, rx),
            None if ip.ip.proto == ip_proto::ICMP => Verdict::Exception(Exception::Icmp, rx),
            None if ip.ip.options => Verdict::Exception(Exception::IpOptions, rx),
            None => Verdict::Exception(Exception::OtherProtocol, rx),
        },
    }
}

/// A frame for others is none of our business, malformed or not.
fn other_mac(bytes: &[u8], mac: Mac) -> Option<Drop> {
    let dst = bytes.first_chunk::<6>()?;
    (*dst != mac && dst[0] & 1 == 0).then_some(Drop::OtherMac)
}

fn arp(packet: &[u8], rx: RxRef, mac: Mac, vlan: Option<u16>, tables: &Tables) -> Verdict {
    match Arp::parse_checked(packet) {
        Err(_) => Verdict::Drop(Drop::Truncated),
        Ok(request) => request
            .filter(|r| tables.is_own(&toe_wire::ipv4::mapped(r.target_ip)))
            .and_then(|r| r.reply(mac))
            .map_or(Verdict::Exception(Exception::Arp, rx), |reply| Verdict::Answer { reply, vlan }),
    }
}

fn segment(bytes: &[u8], rx: RxRef, frame: &Frame, ip: &Ip, tcp: &Tcp, flows: &FlowStore) -> Verdict {
    // RFC 9293, 3.1: a receiver must check the checksum (MUST-3). A port that has done so says it.
    if !rx.offload.csum_ok && !frame.tcp_checksum_ok(bytes) {
        return Verdict::Drop(Drop::BadTcpChecksum);
    }
    // Unicast only: a multicast frame with a unicast packet is nobody's connection (RFC 1122, 3.3.6).
    let flow = if frame.eth.is_group() {
        None
    } else {
        flows.lookup(&FlowKey { local_ip: ip.dst, remote_ip: ip.src, local_port: tcp.dst_port, remote_port: tcp.src_port })
    };
    let Some(flow) = flow else {
        let syn = tcp.flags.contains(TcpFlags::SYN);
        return Verdict::Exception(if syn { Exception::Syn } else { Exception::UnknownFlow }, rx);
    };
    let payload_len = tcp.payload.len();
    Verdict::Flow(RxMsg {
        flow,
        segment: SegmentIn {
            seq: tcp.seq,
            ack: tcp.ack,
            flags: tcp.flags,
            window: tcp.window,
            payload_len,
            timestamps: tcp.timestamps,
            ce: ip.is_ce(),
            segments: wire_segments(payload_len, rx.offload.gso_size),
        },
        frame: rx,
        payload_at: tcp.payload.start,
    })
}

/// How many segments on the wire a super-frame was made of.
fn wire_segments(payload_len: u32, gso_size: u16) -> u16 {
    match gso_size {
        0 => 1,
        size => payload_len.div_ceil(size.into()).clamp(1, u16::MAX.into()) as u16,
    }
}

fn drop_reason(e: FrameError) -> Drop {
    match e {
        FrameError::Truncated => Drop::Truncated,
        FrameError::BadIpHeader => Drop::BadIpHeader,
        FrameError::BadIpChecksum => Drop::BadIpChecksum,
        FrameError::BadTcpHeader => Drop::BadTcpHeader,
        FrameError::BadTcpOptions => Drop::BadTcpOptions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msg::Source;
    use proptest::prelude::*;
    use toe_hal::{Lease, RxOffload};

    fn look(bytes: &[u8], offload: RxOffload) -> Verdict {
        let rx = RxRef { source: Source::Port(Lease(0)), len: bytes.len() as u32, offload, tcp_at: 0 };
        classify(bytes, rx, [2; 6], &FlowStore::new(1, [0; 2]), &Tables::new(1, 1, 1))
    }

    #[test]
    fn fragments_icmp_and_options_are_told_apart() {
        let mut frame = [0u8; 64];
        frame[..6].copy_from_slice(&[2; 6]);
        frame[12..14].copy_from_slice(&[8, 0]);
        let packet = |ihl: u8, fragment: u16, proto: u8| {
            let mut f = frame;
            f[14] = 0x40 | ihl;
            f[17] = 50;
            f[20..22].copy_from_slice(&fragment.to_be_bytes());
            f[23] = proto;
            let sum = toe_wire::checksum::checksum(&f[14..14 + usize::from(ihl) * 4]);
            f[24..26].copy_from_slice(&sum.to_be_bytes());
            f
        };
        let reason = |f: &[u8]| match look(f, RxOffload::default()) {
            Verdict::Exception(reason, _) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(&packet(5, 0x2000, 6)), Exception::Fragment);
        assert_eq!(reason(&packet(5, 0x0001, 1)), Exception::Fragment);
        assert_eq!(reason(&packet(5, 0x4000, 1)), Exception::Icmp);
        assert_eq!(reason(&packet(6, 0, 17)), Exception::IpOptions);
        assert_eq!(reason(&packet(5, 0, 17)), Exception::OtherProtocol);
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        assert_eq!(reason(&frame), Exception::OtherProtocol);
    }

    #[test]
    fn super_frames_count_their_segments() {
        assert_eq!([wire_segments(0, 1000), wire_segments(1000, 1000), wire_segments(1001, 1000)], [1, 1, 2]);
        assert_eq!(wire_segments(60_000, 0), 1);
    }

    proptest! {
        #[test]
        fn no_frame_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), ours in any::<bool>(), ip in any::<bool>(), csum_ok in any::<bool>()) {
            if ours && bytes.len() >= 15 {
                bytes[..6].copy_from_slice(&[2; 6]);
                if ip {
                    bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
                }
            }
            look(&bytes, RxOffload { csum_ok, ..RxOffload::default() });
        }
    }
}
