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
use toe_wire::{
    Arp, Frame, FrameError, Ip, Mac, Payload, Tcp, TcpFlags, ip_proto, parse_frame,
};

/// What becomes of a frame.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    Flow(RxMsg),
    Drop(Drop),
    /// To the control plane. The reference knows now where the TCP header is.
    Exception(Exception, RxRef),
    /// A request for an address of our own: send this.
    Answer { reply: Arp, vlan: Option<u16> },
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
