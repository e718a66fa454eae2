//! Connection set-up, both ways, up to the flow on the card.

mod active;
mod cookie;
mod install;
mod passive;

use crate::{
    BufferLog2, ConnId, Engine, Errno,
    addr::{Ip, is_v4},
    conn::{Conn, Handshake, Options, Origin, Phase},
    neighbours::Mac,
    segment::Segment,
    timers::TimerId,
};
use toe_abi::{flow::FlowKey, region::offered};
use toe_tcp::Now;
use toe_wire::{SeqNum, TcpFlags, TcpOptions, Timestamps, ipv4, ipv6, tcp};

/// Less than this is an attack on our CPU (as Linux).
const MIN_MSS: u16 = 88;
/// Retransmission timeouts grow no further.
const TIMEOUT_MAX_US: u64 = 60_000_000;
/// RFC 3168, 6.1.1.1: a SYN that was lost twice may have been so because of its ECN bits.
const ECN_SYN_RETRIES: u8 = 2;

/// What a peer takes that does not say (RFC 9293, 3.7.1: MUST-15; RFC 8200, 8.3).
fn default_mss(key: &FlowKey) -> u16 {
    if is_v4(&key.remote_ip) { 536 } else { ipv6::MTU_MIN - ip_tcp_headers(key) }
}

/// Bytes of headers without options.
pub(crate) fn ip_tcp_headers(key: &FlowKey) -> u16 {
    let ip = if is_v4(&key.remote_ip) { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    (ip + tcp::HEADER_LEN) as u16
}

/// Window shift for a receive buffer: the least that lets the whole of it be offered (RFC 7323, 2.3: at most 14).
/// RFC 7323 2.3-7.
pub(crate) fn scale_of(buffers: BufferLog2) -> u8 {
    buffers.rx.saturating_sub(15).min(14)
}

/// Bytes of a receive buffer.
fn room_of(buffers: BufferLog2) -> u32 {
    1u32.checked_shl(u32::from(buffers.rx)).unwrap_or(u32::MAX)
}

/// Window of a SYN or SYN-ACK, bytes: never scaled (RFC 7323, 2.2), but a multiple of what scaling can say, so that its edge stays
/// where it is afterwards. `clamp`: see [`offered`]. The scale is that of the whole buffer, which may be offered later.
/// RFC 7323 2.2-8.
fn first_window(buffers: BufferLog2, clamp: u32) -> u16 {
    let bytes = offered(room_of(buffers), clamp).min(u32::from(u16::MAX));
    let scale = scale_of(buffers);
    (bytes >> scale << scale) as u16
}

/// An echoed timestamp that says more than this was made up.
const ECHO_MAX_MS: u32 = 60_000;

impl Handshake {
    pub(crate) fn first_window(&self) -> u16 {
        first_window(self.buffers, self.open.window_clamp)
    }

    /// Bytes of the receive buffer that are not offered.
    fn held_back(&self) -> u32 {
        let room = room_of(self.buffers);
        room - offered(room, self.open.window_clamp)
    }

    /// The round-trip time that `seg`, which acknowledges our SYN or SYN-ACK, tells, microseconds; 0: none. Karn's rule (RFC 6298 3-1, 3-2)
    /// forbids to time what was sent twice, but an echoed timestamp says which copy it answers (RFC 7323, 4.1).
    fn measure(&self, timestamps: bool, seg: &Segment<'_>, now_us: u64) -> u32 {
        if self.copies == 1 {
            return u32::try_from(now_us.saturating_sub(self.sent_us)).unwrap_or(u32::MAX);
        }
        let Some(ts) = seg.options.timestamps.filter(|_| timestamps) else { return 0 };
        let ms = Now(now_us).ms32().wrapping_add(self.ts_offset).wrapping_sub(ts.ecr);
        if ms <= ECHO_MAX_MS { ms.max(1) * 1000 } else { 0 }
    }
}

impl Engine {
    /// Our initial sequence number; `floor`: beyond that of the previous incarnation, if it was in TIME-WAIT.
    fn iss_of(&self, key: &FlowKey, floor: Option<SeqNum>) -> SeqNum {
        let iss = self.keys.isn(key, self.now);
        match floor {
            // RFC 1122, 4.2.2.13: beyond the largest number of the previous incarnation, and its window.
            // RFC 1122 4.2.2.13-1.
            Some(floor) if !iss.gt(floor) => floor.add(65_537),
            _ => iss,
        }
    }

    /// Largest segment we take: the MTU less fixed headers (RFC 6691).
    /// RFC 9293 MUST-67; RFC 1191 3.1-1, 3.1-2.
    fn our_mss(&self, key: &FlowKey) -> u16 {
        self.link_mtu(&key.remote_ip).saturating_sub(ip_tcp_headers(key))
    }

    /// Bytes of the largest packet to `ip` that our link takes.
    pub(crate) fn link_mtu(&self, ip: &Ip) -> u16 {
        if is_v4(ip) { self.config.mtu } else { self.autoconf.mtu }
    }

    /// Largest segment that gets there, as far as is known: less than what we take where an earlier connection has found that out.
    /// RFC 1191 3.1-1, 6.3-2.
    fn mss_to(&self, key: &FlowKey) -> u16 {
        let link = self.link_mtu(&key.remote_ip);
        let path = self.path_mtus.get(&key.remote_ip, self.now).unwrap_or(link);
        path.min(link).saturating_sub(ip_tcp_headers(key))
    }

    /// What is in force after the peer's SYN or SYN-ACK said `theirs`; `ecn`: both sides want it.
    fn negotiate(&self, key: &FlowKey, theirs: &TcpOptions, ecn: bool) -> Options {
        let c = &self.config;
        Options {
            // RFC 9293 MUST-14, MUST-15.
            peer_mss: theirs.mss.unwrap_or(default_mss(key)).max(MIN_MSS),
            // RFC 7323, 2.3: a shift above 14 means 14.
            // RFC 7323 2.2-3, 2.3-3, 2.3-4, 2.3-8.
            peer_wscale: theirs.window_scale.filter(|_| c.window_scaling).map(|s| s.min(14)),
            // RFC 7323 3.2-5.
            timestamps: c.timestamps && theirs.timestamps.is_some(),
            sack: c.sack && theirs.sack_permitted,
            ecn,
        }
    }

    /// Options of our SYN or SYN-ACK.
    /// RFC 9293 MUST-14, SHLD-5, MAY-3; RFC 7323 2.2-1, 2.2-2, 2.2-4, 2.2-5, 2.2-6, 2.3-1, 2.3-2, 2.3-7, 3.2-1, 3.2-5.
    fn syn_options(&self, key: &FlowKey, h: &Handshake) -> TcpOptions {
        TcpOptions {
            mss: Some(h.open.limit(self.our_mss(key))),
            window_scale: h.options.peer_wscale.map(|_| scale_of(h.buffers)),
            sack_permitted: h.options.sack,
            timestamps: h.options.timestamps.then(|| Timestamps { val: self.ts_val(h.ts_offset), ecr: h.ts_recent }),
            ..TcpOptions::default()
        }
    }

    /// Sends the SYN or SYN-ACK of a handshake, and arms the timer for the next. The handshake ends if its address is no longer ours.
    pub(crate) fn send_syn(&mut self, id: ConnId) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        let (key, hop, origin) = (conn.key, conn.hop, conn.origin);
        // RFC 4862, 5.5.4: an invalid address "MUST NOT be used as a source address".
        if !self.addresses.is_own(&key.local_ip) {
            return self.abandon(id, Errno::EADDRNOTAVAIL);
        }
        let (synack, h) = match &mut conn.phase {
            Phase::SynSent(h) => (false, h),
            Phase::SynReceived(h) => (true, h),
            Phase::Resolving(_) | Phase::Installing(_) | Phase::Established(_) => return,
        };
        // RFC 9293 MUST-21: from the first retransmission on, as Linux.
        let patience = h.patience_until.filter(|_| h.retries > 0).unwrap_or(u64::MAX);
        let deadline = now.saturating_add(h.timeout_us).min(patience.max(now + 1000));
        self.timers.set(TimerId::Conn(id), &mut conn.deadline, Some(deadline));
        let peer_mac = h.peer_mac;
        let to = match origin {
            Origin::Active => self.hop_mac(hop),
            Origin::Passive(_) => self.answer_mac(key.remote_ip, peer_mac),
        };
        let Some(to) = to else {
            return match origin {
                // It has failed to answer since, so it ends as if it had been waited for.
                Origin::Active => self.abandon(id, Errno::EHOSTUNREACH),
                Origin::Passive(_) => self.answer_later(id, key.remote_ip),
            };
        };
        let Some(h) = self.conns.get_mut(id).and_then(|c| c.phase.handshake()) else { return };
        h.sent_us = now;
        h.copies = h.copies.saturating_add(1);
        let h = h.clone();
        let options = self.syn_options(&key, &h);
        if synack {
            self.send_syn_ack(&h, to, key, options);
        } else {
            // `options.ecn` stays: the answer may be to a SYN that did ask, and both ends must agree (as Linux).
            // RFC 3168 6.1.1.1-2.
            let ask = h.options.ecn && h.retries < ECN_SYN_RETRIES;
            let ecn = if ask { TcpFlags::ECE | TcpFlags::CWR } else { TcpFlags::empty() };
            self.counters.syns_sent += 1;
            self.send_of(&h, to, key, SeqNum(0), TcpFlags::SYN | ecn, h.first_window(), options);
        }
    }

    fn send_syn_ack(&mut self, h: &Handshake, to: Mac, key: FlowKey, options: TcpOptions) {
        // RFC 3168, 6.1.1: ECE without CWR agrees to ECN.
        // RFC 3168 6.1.1-1, 6.1.1-2, 6.1.1-7.
        let ecn = if h.options.ecn { TcpFlags::ECE } else { TcpFlags::empty() };
        self.counters.syn_acks_sent += 1;
        self.send_of(h, to, key, h.irs.add(1), TcpFlags::SYN | TcpFlags::ACK | ecn, h.first_window(), options);
    }

    /// No answer in time (RFC 6298, 5: back off; RFC 9293, 3.8.3: give up).
    /// RFC 9293 MUST-22; RFC 1122 4.2.3.1-1.
    pub(crate) fn handshake_timer(&mut self, id: ConnId) {
        let (most, now) = (self.config.handshake_retries, self.now);
        let Some(conn) = self.conns.get_mut(id) else { return };
        let is_active = conn.origin == Origin::Active;
        let Some(h) = conn.phase.handshake() else { return };
        let most = if is_active && h.open.syn_retries > 0 { h.open.syn_retries } else { most };
        if let Some(until) = h.deferred_until.filter(|until| *until > now) {
            // The peer has our SYN-ACK. Behind that time its answer to another one makes the connection.
            return self.timers.set(TimerId::Conn(id), &mut conn.deadline, Some(until));
        }
        let is_over = h.retries > 0 && h.patience_until.is_some_and(|until| until <= now);
        if h.retries >= most || is_over {
            self.counters.handshake_timeouts += 1;
            return self.abandon(id, Errno::ETIMEDOUT);
        }
        h.retries += 1;
        h.timeout_us = h.timeout_us.saturating_mul(2).min(TIMEOUT_MAX_US);
        self.send_syn(id);
    }

    /// Ends a handshake: the opener, if it was ours, is told.
    pub(crate) fn abandon(&mut self, id: ConnId, errno: Errno) {
        if let Some(conn) = self.remove_conn(id)
            && conn.origin == Origin::Active
        {
            self.connect_failed(id, errno);
        }
    }

    pub(crate) fn connect_failed(&mut self, conn: ConnId, errno: Errno) {
        self.counters.active_failed += 1;
        self.actions.push_back(crate::Action::ConnectFailed { conn, errno });
    }

    /// Takes a connection out of every table. Flows on the card are not touched.
    pub(crate) fn remove_conn(&mut self, id: ConnId) -> Option<Conn> {
        let mut conn = self.conns.remove(id)?;
        self.timers.set(TimerId::Conn(id), &mut conn.deadline, None);
        if let Some(hop) = conn.hop {
            self.release_hop(hop, id);
        }
        self.ports.release(conn.key.local_port);
        if let (Origin::Passive(listener), Some(h)) = (conn.origin, conn.phase.handshake()) {
            self.ports.no_longer_half_open(listener, h.serial);
        }
        if let Phase::Installing(i) = &conn.phase {
            self.held_bytes = self.held_bytes.saturating_sub(i.held_bytes);
        }
        Some(conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buf(rx: u8) -> BufferLog2 {
        BufferLog2 { tx: 16, rx }
    }

    /// RFC 7323 2.2-4, 2.3-7.
    #[test]
    fn scale_is_the_least_that_offers_the_whole_buffer() {
        for (rx, scale) in [(12, 0), (15, 0), (16, 1), (18, 3), (20, 5), (30, 14), (200, 14)] {
            assert_eq!(scale_of(buf(rx)), scale, "2^{rx}");
        }
        for rx in 10..=28 {
            assert!((1u32 << rx) >> scale_of(buf(rx)) <= 65_535, "2^{rx}");
        }
    }

    #[test]
    fn first_window_survives_scaling() {
        for rx in 0..=30 {
            let (w, s) = (first_window(buf(rx), 0), scale_of(buf(rx)));
            assert_eq!(w >> s << s, w, "2^{rx}");
            assert!(u32::from(w) <= 1 << rx);
            assert!(w > 0);
        }
        assert_eq!(first_window(buf(12), 0), 4096);
    }

    /// TCP_WINDOW_CLAMP.
    #[test]
    fn no_window_is_above_its_clamp_or_closed_by_it() {
        for rx in 12..=30 {
            for clamp in [1, 4380, 10_000, 65_535, 1 << 20, u32::MAX] {
                let (w, s) = (first_window(buf(rx), clamp), scale_of(buf(rx)));
                assert!(w > 0 && w >> s << s == w, "2^{rx}, {clamp}: {w}");
                assert!(u32::from(w) <= clamp.max(4380).max(4 << s), "2^{rx}, {clamp}: {w}");
            }
        }
    }
}
