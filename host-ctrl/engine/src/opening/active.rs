//! Active open: resolve the next hop, then SYN-SENT (RFC 9293, 3.10.1 and 3.10.7.3).

use crate::{
    BindId, ConnId, Endpoint, Engine, Errno, Owner, Wishes,
    addr::{Ip, is_any, is_v4, same_scope},
    conn::{Conn, Handshake, Options, Origin, Phase},
    limit::Answered,
    neighbours::Mac,
    resolve::Hop,
    segment::Segment,
    time_wait::TimeWait,
    timers::TimerId,
};
use toe_abi::flow::{FlowKey, cc::needs_ecn};
use toe_wire::{SeqNum, TcpFlags};

/// How long after a RST for an old connection the SYN that finds it gone is sent: the network may let one overtake the other. As Linux.
const SYN_BEHIND_RST_US: u64 = 2000;

impl Engine {
    pub(crate) fn open_active(
        &mut self,
        owner: Owner,
        local: Option<BindId>,
        remote: Endpoint,
        wishes: Wishes,
    ) -> Result<(ConnId, Endpoint), Errno> {
        if !self.addresses.has(is_v4(&remote.ip)) {
            return Err(Errno::EAFNOSUPPORT);
        }
        let next_hop = self.next_hop(remote.ip).ok_or(Errno::ENETUNREACH)?;
        // RFC 9293 3.10.1-3.
        if remote.port == 0 {
            return Err(Errno::ECONNREFUSED);
        }
        // RFC 9293 3.10.1-2.
        if self.conns.is_full() {
            return Err(Errno::ENOBUFS);
        }
        let key = self.choose_local(local, remote, next_hop)?;
        let previous = self.time_wait.get(&key).copied();
        let cc = wishes.cc.unwrap_or_else(|| self.default_cc(&remote.ip));
        let handshake = self.our_syn(&key, wishes, cc, previous);
        let phase = Phase::Resolving(handshake);
        let conn = Conn { key, owner, origin: Origin::Active, phase, hop: None, deadline: None };
        let id = self.conns.insert(conn).ok_or(Errno::EADDRNOTAVAIL)?;
        self.ports.hold(key.local_port);
        let (hop, mac) = match self.use_hop(next_hop, id) {
            Hop::Ready(hop, mac) => (hop, Some(mac)),
            Hop::Waiting(hop) => (hop, None),
            Hop::NoSpace => {
                self.remove_conn(id);
                return Err(Errno::ENOBUFS);
            }
        };
        if previous.is_some() {
            self.reuse_time_wait(&key);
        }
        if let Some(conn) = self.conns.get_mut(id) {
            conn.hop = Some(hop);
        }
        if let Some(mac) = mac {
            self.hop_ready(id, mac);
        }
        Ok((id, Endpoint { ip: key.local_ip, port: key.local_port }))
    }

    /// The tuple: a port of the caller's, or one of ours, such that the tuple is not in use. Rather than fail, one in TIME-WAIT is taken whose
    /// segments can be told from those of a new connection (RFC 6191, 4; tcp_tw_reuse of Linux).
    fn choose_local(&mut self, local: Option<BindId>, remote: Endpoint, next_hop: Ip) -> Result<FlowKey, Errno> {
        // RFC 9293 MUST-44, MUST-45.
        let binding = local.map(|bind| self.ports.binding(bind).ok_or(Errno::EBADF)).transpose()?;
        let local_ip = match binding {
            Some(b) if !is_any(&b.ip) => b.ip,
            _ => {
                // The next router takes what comes from its own subnet, as in Linux. That of IPv6 has an address of the link alone.
                let towards = if is_v4(&remote.ip) { next_hop } else { remote.ip };
                self.addresses.source_for(&towards).ok_or(Errno::EADDRNOTAVAIL)?
            }
        };
        if !same_scope(&local_ip, &remote.ip) {
            return Err(Errno::ENETUNREACH);
        }
        let key = |local_port| FlowKey { local_ip, remote_ip: remote.ip, local_port, remote_port: remote.port };
        let (conns, time_wait, now) = (&self.conns, &self.time_wait, self.now);
        let reuse = |port| self.config.timestamps && time_wait.get(&key(port)).is_none_or(|tw| tw.is_reusable(now));
        let free = |port| !time_wait.contains(&key(port));
        let unused = |port| conns.by_key(&key(port)).is_none();
        let port = match binding {
            Some(b) if b.listener.is_some() => return Err(Errno::EINVAL),
            Some(b) if b.port != 0 => Some(b.port).filter(|&port| unused(port) && (free(port) || reuse(port))),
            _ => {
                let ports = &mut self.ports;
                let first = ports.choose_for(local_ip, remote, |port| unused(port) && free(port));
                first.or_else(|| ports.choose_for(local_ip, remote, |port| unused(port) && reuse(port)))
            }
        };
        port.map(key).ok_or(Errno::EADDRNOTAVAIL)
    }

    // RFC 9293 3.10.1-1.
    fn our_syn(&mut self, key: &FlowKey, wishes: Wishes, cc: u8, previous: Option<TimeWait>) -> Handshake {
        let c = &self.config;
        let options = Options {
            peer_mss: super::default_mss(key),
            peer_wscale: c.window_scaling.then_some(0),
            timestamps: c.timestamps,
            sack: c.sack,
            ecn: c.ecn || needs_ecn(cc),
        };
        self.serial += 1;
        Handshake {
            buffers: wishes.buffers,
            cc,
            iss: self.iss_of(key, previous.map(|tw| tw.snd_nxt)),
            irs: SeqNum(0),
            options,
            peer_window: 0,
            ts_recent: 0,
            // Timestamps go on from those of the previous incarnation.
            ts_offset: previous.and_then(|tw| tw.timestamps).map_or(self.keys.ts_offset(key), |(_, offset)| offset),
            retries: 0,
            copies: 0,
            rtt_us: 0,
            patience_until: (wishes.open.user_timeout_us > 0).then(|| self.now.saturating_add(wishes.open.user_timeout_us)),
            deferred_until: None,
            open: wishes.open,
            timeout_us: c.handshake_timeout_us,
            sent_us: self.now,
            peer_mac: [0; 6],
            serial: self.serial,
            answered: Answered::default(),
        }
    }

    /// The next hop of a waiting connection is known.
    /// RFC 1122 2.3.2.2-1.
    pub(crate) fn hop_ready(&mut self, id: ConnId, mac: Mac) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Phase::Resolving(h) = &conn.phase {
            let h = Handshake { peer_mac: mac, ..h.clone() };
            conn.phase = Phase::SynSent(h);
            self.send_syn(id);
        }
    }

    /// The next hop of a waiting connection does not answer.
    pub(crate) fn unreachable(&mut self, id: ConnId) {
        if matches!(self.conns.get(id).map(|c| &c.phase), Some(Phase::Resolving(_))) {
            self.abandon(id, Errno::EHOSTUNREACH);
        }
    }

    /// RFC 9293, 3.10.7.3.
    pub(crate) fn syn_sent(&mut self, id: ConnId, seg: &Segment<'_>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Phase::SynSent(h) = &mut conn.phase else { return };
        // First: SEG.ACK =< ISS or > SND.NXT. Only our SYN is out, so one value is acceptable. RFC 9293 3.10.7.3-1.
        let acceptable = seg.has(TcpFlags::ACK) && seg.ack == h.iss.add(1);
        if seg.has(TcpFlags::ACK) && !acceptable {
            self.counters.drop_unacceptable += 1;
            // An ACK of an old connection that the peer still has, and that our RST ends (RFC 9293, 3.5.1): the SYN goes again behind it, once.
            if h.retries == 0 && !seg.has(TcpFlags::RST) {
                let soon = self.now.saturating_add(SYN_BEHIND_RST_US);
                self.timers.set(TimerId::Conn(id), &mut conn.deadline, Some(soon));
            }
            return self.refuse(seg);
        }
        // Second: a RST is acceptable if it acknowledges the SYN. RFC 9293 3.10.7.3-3, 3.10.7.3-4.
        // RFC 5961 3.2-6.
        if seg.has(TcpFlags::RST) {
            self.counters.drop_rst += 1;
            if acceptable {
                self.abandon(id, Errno::ECONNREFUSED);
            }
            return;
        }
        // Fifth: neither SYN nor RST. RFC 9293 3.10.7.3-8.
        if !seg.has(TcpFlags::SYN) {
            self.counters.drop_unacceptable += 1;
            return;
        }
        self.peers_syn(id, seg, acceptable);
    }

    /// Fourth: a SYN, with our acknowledgement or (simultaneous open) without.
    fn peers_syn(&mut self, id: ConnId, seg: &Segment<'_>, acknowledges: bool) {
        let asked_ecn = match self.conns.get_mut(id).and_then(|c| c.phase.handshake()) {
            Some(h) => h.options.ecn,
            None => return,
        };
        let (ece, cwr) = (seg.has(TcpFlags::ECE), seg.has(TcpFlags::CWR));
        // RFC 3168, 6.1.1: ECE alone agrees in a SYN-ACK; both ask in a SYN.
        // RFC 3168 6.1.1-4, 6.1.1-8.
        let ecn = asked_ecn && if acknowledges { ece && !cwr } else { ece && cwr };
        let options = self.negotiate(&seg.key, &seg.options, ecn);
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Phase::SynSent(h) = &conn.phase else { return };
        let h = Handshake {
            irs: seg.seq,
            options,
            rtt_us: if acknowledges { h.measure(options.timestamps, seg, now) } else { 0 },
            // RFC 7323, 2.2: the window of a SYN is not scaled.
            peer_window: u32::from(seg.window),
            ts_recent: seg.options.timestamps.map_or(0, |t| t.val),
            peer_mac: seg.mac,
            ..h.clone()
        };
        conn.phase = Phase::SynReceived(h);
        // RFC 9293 3.10.7.3-5: the flow sends the ACK. RFC 9293 MUST-10, 3.10.7.3-6: SYN-ACK.
        if acknowledges {
            self.install(id, None);
        } else {
            self.send_syn(id);
        }
    }

    pub(crate) fn cancel_open(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let key = conn.key;
        match &mut conn.phase {
            // RFC 9293 3.10.4-2: a SYN-ACK that still comes finds no connection.
            Phase::Resolving(_) | Phase::SynSent(_) => {
                self.remove_conn(id);
            }
            Phase::SynReceived(h) => {
                let (seq, to) = (h.iss.add(1), h.peer_mac);
                self.remove_conn(id);
                self.send_rst(to, key, seq, SeqNum(0), TcpFlags::RST, None);
            }
            Phase::Installing(i) => i.doomed = true,
            Phase::Established(_) => {}
        }
    }
}
