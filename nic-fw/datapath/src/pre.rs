//! Pre-processing: validate a frame, find its flow, summarise it; or say why not.
//!
//! Reads only what is fixed: the flows' keys and the card's own addresses. So it can run on any number of cores.

use crate::{
    Counters,
    flows::{FlowView, Place},
    msg::{ExceptionMsg, RAW_HEADER, Raw, RawFrame, RxMsg, RxRef},
    tables::AddressView,
};
use toe_abi::{
    FlowId, HostAddr, HostSpan, RegionId,
    counters::{Drop, Exception},
    flow::FlowKey,
};
use toe_hal::{RxOffload, TxOffload};
use toe_sync::FlowHash;
use toe_tcp::SegmentIn;
use toe_wire::{
    Arp, Ethernet, FrameError, Icmpv6, Ip, Mac, Payload, Segment, TcpFlags, TcpTuple, TooLong, common_segment, ip_proto, ipv4,
    nd::{Advertisement, Nd},
    parse_frame,
};

/// What a look at a frame has found.
#[derive(Clone, Copy, Debug)]
pub enum Finding {
    Flow {
        flow: FlowId,
        segment: SegmentIn,
        payload_at: u32,
        tcp_at: u16,
    },
    Drop(Drop),
    /// To the control plane; where the TCP header is, if there is one.
    Exception(Exception, u16),
    /// A request for an address of our own: send this to who has asked.
    Answer {
        reply: Reply,
        to: Mac,
        vlan: Option<u16>,
    },
}

/// What the card says of its own addresses.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    Arp(Arp),
    Neighbour(Advertisement),
}

impl Reply {
    fn write(&self, from: Mac, to: Mac, vlan: Option<u16>, out: &mut [u8]) -> Result<usize, TooLong> {
        match self {
            Reply::Arp(arp) => arp.write(&to, vlan, out),
            Reply::Neighbour(advertisement) => advertisement.write(to, from, vlan, out),
        }
    }
}

/// What becomes of a frame.
#[derive(Debug)]
pub enum Verdict {
    Flow(RxMsg),
    /// Counted; give it back.
    Drop(RxRef),
    Exception(ExceptionMsg),
    /// Send the answer; the control plane learns from requests too, if it is there and has room.
    Answer(RawFrame, ExceptionMsg),
}

/// The stage, or one of its replicas.
pub struct Pre {
    mac: Mac,
    flows: FlowView,
    addresses: AddressView,
    pub counters: Counters,
}

/// The four-tuple as flows have it: the receiver's end first.
pub fn key(tuple: &TcpTuple) -> FlowKey {
    FlowKey { local_ip: tuple.dst_ip, remote_ip: tuple.src_ip, local_port: tuple.dst_port, remote_port: tuple.src_port }
}

impl Pre {
    pub fn new(mac: Mac, flows: FlowView, addresses: AddressView, counters: Counters) -> Self {
        Self { mac, flows, addresses, counters }
    }

    /// Looks at the bytes of a frame from the wire or from the control plane. `hash`: of its four-tuple, if somebody has it already.
    pub fn look(&self, bytes: &[u8], offload: RxOffload, hash: Option<FlowHash>) -> Finding {
        match self.glance(bytes, offload) {
            Some(segment) => self.find(segment, offload, hash),
            None => self.look_closely(bytes, offload, hash),
        }
    }

    /// The segment in a frame like nearly all. [`find`](Self::find) says whose it is. `None`: [`look_closely`](Self::look_closely).
    #[inline]
    pub fn glance(&self, bytes: &[u8], offload: RxOffload) -> Option<Segment> {
        let segment = common_segment(bytes)?;
        if bytes.starts_with(&self.mac) && is_sound(segment, bytes, offload) { Some(segment) } else { None }
    }

    /// Looks at a frame that may be anything.
    pub fn look_closely(&self, bytes: &[u8], offload: RxOffload, hash: Option<FlowHash>) -> Finding {
        // Looked at where it is: it is large.
        let parsed = parse_frame(bytes);
        let frame = match &parsed {
            Ok(frame) => frame,
            Err(e) => return Finding::Drop(other_mac(bytes, self.mac).unwrap_or(drop_reason(*e))),
        };
        if frame.eth.dst != self.mac && !frame.eth.is_group() {
            return Finding::Drop(Drop::OtherMac);
        }
        match &frame.payload {
            Payload::Arp(packet) => self.arp(packet.of(bytes), &frame.eth),
            Payload::Ipv6(packet) if packet.ip.proto == ip_proto::ICMPV6 && !packet.ip.fragment => {
                self.icmpv6(bytes, &frame.eth, &packet.ip)
            }
            // RFC 1122, 3.3.6: a connection is no group's, and the control plane would drop all of this. Some networks are full of it.
            _ if frame.eth.is_group() => Finding::Drop(Drop::Group),
            Payload::Other => Finding::Exception(Exception::OtherProtocol, 0),
            Payload::Ipv4(ip) | Payload::Ipv6(ip) => match frame.segment(bytes) {
                Some(segment) if !is_sound(segment, bytes, offload) => Finding::Drop(Drop::BadTcpChecksum),
                Some(segment) => self.find(segment, offload, hash),
                None if ip.ip.fragment => Finding::Exception(Exception::Fragment, 0),
                None if ip.ip.proto == ip_proto::ICMP => Finding::Exception(Exception::Icmp, 0),
                None if ip.ip.options => Finding::Exception(Exception::IpOptions, 0),
                None => Finding::Exception(Exception::OtherProtocol, 0),
            },
        }
    }

    /// What was found in a frame decides what becomes of it.
    #[inline]
    pub fn decide(&mut self, mut frame: RxRef, finding: Finding) -> Verdict {
        match finding {
            Finding::Flow { flow, segment, payload_at, tcp_at } => {
                frame.tcp_at = tcp_at;
                Verdict::Flow(RxMsg { flow, segment, frame, payload_at })
            }
            Finding::Drop(reason) => {
                self.counters.drop(reason);
                Verdict::Drop(frame)
            }
            Finding::Exception(reason, tcp_at) => {
                frame.tcp_at = tcp_at;
                Verdict::Exception(ExceptionMsg { frame, reason, owned: true })
            }
            Finding::Answer { reply, to, vlan } => match self.answer(&reply, to, vlan) {
                Some(answer) => Verdict::Answer(answer, ExceptionMsg { frame, reason: Exception::Arp, owned: false }),
                None => Verdict::Exception(ExceptionMsg { frame, reason: Exception::Arp, owned: true }),
            },
        }
    }

    fn arp(&self, packet: &[u8], eth: &Ethernet) -> Finding {
        match Arp::parse_checked(packet) {
            Err(_) => Finding::Drop(Drop::Truncated),
            Ok(request) => {
                request.filter(|r| self.addresses.is_own(&ipv4::mapped(r.target_ip), eth.vlan_id())).and_then(|r| r.reply(self.mac)).map_or(
                    Finding::Exception(Exception::Arp, 0),
                    |reply| Finding::Answer { reply: Reply::Arp(reply), to: reply.target_mac, vlan: eth.vlan },
                )
            }
        }
    }

    /// RFC 4861, 7.2.4. Only what is asked for addresses of our own is answered here. To groups there are echo requests and reports as well.
    fn icmpv6(&self, bytes: &[u8], eth: &Ethernet, ip: &Ip) -> Finding {
        match Icmpv6::parse(ip, bytes) {
            Some(Icmpv6::Nd(Nd::Solicitation(s))) if self.addresses.is_own(&s.target, eth.vlan_id()) && eth.src[0] & 1 == 0 => {
                Finding::Answer { reply: Reply::Neighbour(s.reply(self.mac)), to: eth.src, vlan: eth.vlan }
            }
            Some(Icmpv6::Nd(_) | Icmpv6::BadNd) => Finding::Exception(Exception::Arp, 0),
            Some(Icmpv6::Query(_)) => Finding::Exception(Exception::Icmp, 0),
            _ if eth.is_group() => Finding::Drop(Drop::Group),
            _ => Finding::Exception(Exception::Icmp, 0),
        }
    }

    fn answer(&self, reply: &Reply, to: Mac, vlan: Option<u16>) -> Option<RawFrame> {
        let mut bytes = [0; RAW_HEADER];
        let len = reply.write(self.mac, to, vlan, &mut bytes).ok()? as u32;
        let rest = HostSpan { addr: HostAddr::new(RegionId::NONE, 0), len: 0 };
        Some(RawFrame { bytes, len, rest, offload: TxOffload::default(), kind: Raw::Answer })
    }

    /// Finds the flow of a sound segment.
    #[inline]
    pub fn find(&self, segment: Segment, offload: RxOffload, hash: Option<FlowHash>) -> Finding {
        let place = Place::new(key(&segment.tuple), segment.vlan);
        match self.flows.lookup(hash.unwrap_or_else(|| self.flows.hash(&place.key)), &place) {
            Some(flow) => {
                let (payload_at, tcp_at) = (segment.payload.start, segment.tcp_at);
                Finding::Flow { flow, segment: summary(segment, offload), payload_at, tcp_at }
            }
            None => nobodys(&segment),
        }
    }
}

/// What TCP has to know of a segment.
#[inline]
pub fn summary(segment: Segment, offload: RxOffload) -> SegmentIn {
    let Segment { seq, ack, flags, window, urgent, timestamps, sack, ce, payload, .. } = segment;
    let payload_len = payload.len();
    SegmentIn { seq, ack, flags, window, urgent, payload_len, timestamps, sack, ce, segments: wire_segments(payload_len, offload.gso_size) }
}

/// RFC 9293 MUST-3: a receiver must check the checksum. A port that has done so says it.
#[inline]
fn is_sound(segment: Segment, bytes: &[u8], offload: RxOffload) -> bool {
    offload.csum_ok || segment.checksum_ok(bytes)
}

/// A segment of no flow.
fn nobodys(segment: &Segment) -> Finding {
    let syn = segment.flags.contains(TcpFlags::SYN);
    Finding::Exception(if syn { Exception::Syn } else { Exception::UnknownFlow }, segment.tcp_at)
}

/// A frame for others is none of our business, malformed or not.
fn other_mac(bytes: &[u8], mac: Mac) -> Option<Drop> {
    let dst = bytes.first_chunk::<6>()?;
    (*dst != mac && dst[0] & 1 == 0).then_some(Drop::OtherMac)
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
        FrameError::BadIpHeader | FrameError::BadExtension | FrameError::RefusedExtension => Drop::BadIpHeader,
        FrameError::BadIpChecksum => Drop::BadIpChecksum,
        FrameError::BadTcpHeader => Drop::BadTcpHeader,
        FrameError::BadTcpOptions => Drop::BadTcpOptions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        counters::CounterSums,
        flows::{Directory, Groups},
        tables::Tables,
    };
    use proptest::prelude::*;

    fn look(bytes: &[u8], offload: RxOffload) -> Finding {
        let directory = Directory::new(1, Groups::new(1), [0; 2]);
        Pre::new([2; 6], directory.view(), Tables::new(1, 1, 1).addresses(), CounterSums::default().stage()).look(bytes, offload, None)
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
            Finding::Exception(reason, _) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(&packet(5, 0x2000, 6)), Exception::Fragment);
        assert_eq!(reason(&packet(5, 0x0001, 1)), Exception::Fragment);
        assert_eq!(reason(&packet(5, 0x4000, 1)), Exception::Icmp);
        assert_eq!(reason(&packet(6, 0, 17)), Exception::IpOptions);
        assert_eq!(reason(&packet(5, 0, 17)), Exception::OtherProtocol);
        frame[12..14].copy_from_slice(&[0x88, 0xcc]);
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
