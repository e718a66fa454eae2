//! Exception frames: what they are, and which part of the engine is to judge them.

use crate::{Engine, FrameMeta, addr::is_host, conn::Phase, neighbours::Mac};
use toe_abi::flow::FlowKey;
use toe_wire::{Arp, Frame, Icmpv6, Payload, SeqNum, Tcp, TcpFlags, TcpOptions, frame::Packet, ip_proto, parse_frame};

/// A received TCP segment, seen from our end.
#[derive(Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub key: FlowKey,
    /// Who sent the frame.
    pub mac: Mac,
    pub seq: SeqNum,
    pub ack: SeqNum,
    pub flags: TcpFlags,
    /// Unscaled.
    pub window: u16,
    pub options: TcpOptions,
    pub payload_len: u32,
    pub frame: &'a [u8],
    pub meta: FrameMeta,
    /// Put together of fragments: the card has not seen it.
    pub reassembled: bool,
}

impl<'a> Segment<'a> {
    fn new(frame: &'a [u8], parsed: &Frame, tcp: &Tcp, key: FlowKey, meta: FrameMeta, reassembled: bool) -> Self {
        Self {
            key,
            mac: parsed.eth.src,
            seq: tcp.seq,
            ack: tcp.ack,
            flags: tcp.flags,
            window: tcp.window,
            options: parsed.tcp_options(frame),
            payload_len: tcp.payload.len(),
            frame,
            meta,
            reassembled,
        }
    }

    pub fn has(&self, flags: TcpFlags) -> bool {
        self.flags.contains(flags)
    }

    /// SEG.LEN: SYN and FIN count (RFC 9293, 3.3.1).
    pub fn len(&self) -> u32 {
        let syn = u32::from(self.has(TcpFlags::SYN));
        let fin = u32::from(self.has(TcpFlags::FIN));
        self.payload_len.saturating_add(syn + fin)
    }

    /// Data or a FIN, which a peer that hears nothing sends again: each is answered (as Linux), one for one.
    pub fn is_sent_again(&self) -> bool {
        self.len() > 0 && !self.has(TcpFlags::SYN)
    }
}

impl Engine {
    pub(crate) fn exception(&mut self, frame: &[u8], meta: FrameMeta) {
        self.counters.frames += 1;
        let Ok(parsed) = parse_frame(frame) else {
            self.counters.drop_malformed += 1;
            return;
        };
        if parsed.eth.vlan_id() != self.config.vlan {
            self.counters.drop_ethertype += 1;
            return;
        }
        match &parsed.payload {
            Payload::Arp(span) => match Arp::parse(span.of(frame)) {
                Some(packet) => self.arp(&packet),
                None => self.counters.drop_malformed += 1,
            },
            Payload::Ipv6(packet) if packet.ip.proto == ip_proto::ICMPV6 && !packet.ip.fragment => {
                self.icmpv6(frame, &parsed, packet, meta)
            }
            Payload::Ipv4(packet) | Payload::Ipv6(packet) => self.ip(frame, &parsed, packet, meta, false),
            Payload::Other => self.counters.drop_ethertype += 1,
        }
    }

    /// Neighbour discovery may be for a group, and about addresses that are not ours yet.
    fn icmpv6(&mut self, frame: &[u8], parsed: &Frame, packet: &Packet, meta: FrameMeta) {
        match Icmpv6::parse(&packet.ip, frame) {
            Some(Icmpv6::Nd(message)) => self.nd(parsed.eth.src, &message),
            Some(Icmpv6::Query(query)) => self.mld_query(parsed.eth.src, &query),
            Some(Icmpv6::BadNd) => {
                self.counters.nd_received += 1;
                self.counters.nd_ignored += 1;
            }
            Some(_) => self.ip(frame, parsed, packet, meta, false),
            None => self.counters.drop_malformed += 1,
        }
    }

    pub(crate) fn ip(&mut self, frame: &[u8], parsed: &Frame, packet: &Packet, meta: FrameMeta, reassembled: bool) {
        let ip = &packet.ip;
        // RFC 9293 MUST-57; RFC 1122, 3.3.6: what came by link-layer broadcast is not for us alone.
        // RFC 1122 3.2.1.3-1, 3.3.6-1.
        if !self.addresses.is_own(&ip.dst) || parsed.eth.is_group() {
            self.counters.drop_not_ours += 1;
            return;
        }
        let source = is_host(&ip.src) && !self.addresses.is_own(&ip.src) && !self.addresses.is_broadcast(&ip.src);
        if !source || parsed.eth.src[0] & 1 != 0 {
            // RFC 9293 MUST-63: never answer to an address that no host can have (RFC 1122, 3.2.1.3;
            // RFC 4443, 2.4 (e)).
            // RFC 1122 3.2.1.3-2.
            self.counters.drop_bad_source += 1;
            return;
        }
        if ip.fragment {
            return self.reassemble(frame, parsed, ip);
        }
        match (ip.proto, &packet.tcp) {
            (ip_proto::TCP, Some(tcp)) => {
                // RFC 9293 MUST-3.
                if !meta.csum_ok && !meta.needs_csum && !parsed.tcp_checksum_ok(frame) {
                    self.counters.drop_malformed += 1;
                    return;
                }
                let key = FlowKey { local_ip: ip.dst, remote_ip: ip.src, local_port: tcp.dst_port, remote_port: tcp.src_port };
                self.segment(&Segment::new(frame, parsed, tcp, key, meta, reassembled));
            }
            (proto, _) => self.other_protocol(frame, parsed.eth.src, ip, proto),
        }
    }

    /// By state: RFC 9293, 3.10.7.
    fn segment(&mut self, seg: &Segment<'_>) {
        if let Some(id) = self.conns.by_key(&seg.key) {
            match self.conns.get(id).map(|c| &c.phase) {
                Some(Phase::SynSent(_)) => self.syn_sent(id, seg),
                Some(Phase::SynReceived(_)) => self.syn_received(id, seg),
                Some(Phase::Installing(_)) => self.hold(id, seg),
                Some(Phase::Established(_)) => self.inject_late(id, seg),
                // Nothing of ours has been sent yet: for the peer there is no such connection.
                Some(Phase::Resolving(_)) | None => self.refuse(seg),
            }
        } else if self.time_wait.contains(&seg.key) {
            self.in_time_wait(seg);
        } else {
            self.listen_or_refuse(seg, None);
        }
    }
}
