//! Segments that answer segments: refusals (RFC 9293, 3.10.7.1) and challenge ACKs (RFC 5961), both limited.

use crate::{
    Engine,
    build::{self, Outgoing},
    conn::Handshake,
    neighbours::Mac,
    segment::Segment,
};
use toe_abi::flow::FlowKey;
use toe_wire::{SeqNum, TcpFlags, TcpOptions, Timestamps};

impl Engine {
    /// A segment for which there is no connection.
    pub(crate) fn refuse(&mut self, seg: &Segment<'_>) {
        // RFC 9293 3.10.7.1-1, 3.10.7.2-1: a RST is never answered by a RST.
        if seg.has(TcpFlags::RST) {
            self.counters.drop_rst += 1;
            return;
        }
        // RFC 7323 5.2-2, 5.2-3: so that a peer may check that it answers a segment of its own.
        let timestamps = seg.options.timestamps.map(|ts| Timestamps { val: 0, ecr: ts.val });
        if seg.has(TcpFlags::ACK) {
            // RFC 9293 3.10.7.1-3, 3.10.7.2-2: <SEQ=SEG.ACK><CTL=RST>
            self.send_rst(seg.mac, seg.key, seg.ack, SeqNum(0), TcpFlags::RST, timestamps);
        } else {
            // RFC 9293 3.10.7.1-2: <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>
            self.send_rst(seg.mac, seg.key, SeqNum(0), seg.seq.add(seg.len()), TcpFlags::RST | TcpFlags::ACK, timestamps);
        }
    }

    /// In answer to a frame that came `from` there. Not from an address that is no longer ours (RFC 4862, 5.5.4).
    pub(crate) fn send_rst(&mut self, from: Mac, key: FlowKey, seq: SeqNum, ack: SeqNum, flags: TcpFlags, timestamps: Option<Timestamps>) {
        if !self.addresses.is_own(&key.local_ip) {
            return;
        }
        if !self.limits.rst.take(&key.remote_ip, self.now) {
            self.counters.rsts_limited += 1;
            return;
        }
        let Some(to) = self.answer_mac(key.remote_ip, from) else { return };
        self.counters.rsts_sent += 1;
        self.send(to, key, seq, ack, flags, 0, TcpOptions { timestamps, ..TcpOptions::default() });
    }

    /// The ACK that tells a peer where a handshake stands (RFC 9293, 3.10.7.4; RFC 5961, 3.2 and 4.2).
    pub(crate) fn challenge(&mut self, to: Mac, key: FlowKey, h: &Handshake) {
        self.counters.challenge_acks += 1;
        let timestamps = h.options.timestamps.then(|| Timestamps { val: self.ts_val(h.ts_offset), ecr: h.ts_recent });
        let options = TcpOptions { timestamps, ..TcpOptions::default() };
        let scale = h.options.peer_wscale.map_or(0, |_| super::opening::scale_of(h.buffers));
        let window = h.first_window() >> scale;
        self.send_of(h, to, key, h.irs.add(1), TcpFlags::ACK, window, options);
    }

    /// Our timestamp now (RFC 7323, 5.4: milliseconds, and an offset per connection).
    pub(crate) fn ts_val(&self, offset: u32) -> u32 {
        toe_tcp::Now(self.now).ms32().wrapping_add(offset)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a header")]
    pub(crate) fn send(&mut self, to: Mac, key: FlowKey, seq: SeqNum, ack: SeqNum, flags: TcpFlags, window: u16, options: TcpOptions) {
        let (from, ttl, vlan) = (self.config.mac, self.ttl_to(&key.remote_ip), self.vlan());
        self.transmit(build::segment(&Outgoing { to, from, vlan, key, tos: 0, ttl, seq, ack, flags, window, options }));
    }

    /// As `send`, of a handshake: with its time to live and type of service.
    #[allow(clippy::too_many_arguments, reason = "the fields of a header")]
    pub(crate) fn send_of(&mut self, h: &Handshake, to: Mac, key: FlowKey, ack: SeqNum, flags: TcpFlags, window: u16, options: TcpOptions) {
        let (from, ttl, vlan, tos) = (self.config.mac, h.open.ttl_or(self.ttl_to(&key.remote_ip)), self.vlan(), h.open.tos);
        // Behind the SYN, if this is none.
        let seq = h.iss.add(u32::from(!flags.contains(TcpFlags::SYN)));
        self.transmit(build::segment(&Outgoing { to, from, vlan, key, tos, ttl, seq, ack, flags, window, options }));
    }
}
