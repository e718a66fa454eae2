//! The cut-over: from a completed handshake to a flow on the card, without losing a frame in between.

use crate::{
    Action, ConnId, Engine, Errno, FrameMeta, InstallError,
    conn::{Conn, Established, Handshake, Installing, Origin, Phase},
    segment::Segment,
    timers::TimerId,
};
use std::collections::VecDeque;
use toe_abi::{
    CtxId, FlowId, RegionId,
    flow::{FlowKey, FlowState, flow_flags},
};
use toe_tcp::{Now, Setup, Timestamping};
use toe_wire::{SeqNum, TcpFlags, tcp::TIMESTAMPS_LEN};

/// Frames kept for one connection: more than a first window of 64 KiB brings, even of small segments.
const HELD_FRAMES: usize = 64;
const HELD_BYTES: usize = 256 * 1024;
/// For all connections together.
const HELD_BYTES_ALL: usize = 16 * 1024 * 1024;
/// Frames that were on their way to us when the flow was installed are injected as well, this long, and no more than these. One of a flow
/// that the card does not have comes back, so without a bound a peer could have each of its frames go round at the speed of the queues.
const LATE_US: u64 = 1_000_000;
const LATE_FRAMES: u8 = HELD_FRAMES as u8;

impl Engine {
    /// Both SYNs are acknowledged, or will be by the flow's first ACK. `first`: the frame that did it.
    pub(crate) fn install(&mut self, id: ConnId, first: Option<(Vec<u8>, FrameMeta)>) {
        let Some(hop) = self.installed_hop(id) else {
            self.counters.install_failed += 1;
            return self.give_up_install(id, Errno::ENOBUFS);
        };
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Phase::SynReceived(h) = &conn.phase else { return };
        let (h, key, owner, origin) = (h.clone(), conn.key, conn.owner, conn.origin);
        let bytes = first.as_ref().map_or(0, |(frame, _)| frame.len());
        let ack_now = first.is_none();
        let state = Box::new(self.flow_of(key, &h, hop, ack_now));
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.hop = Some(hop);
        self.timers.set(TimerId::Conn(id), &mut conn.deadline, None);
        conn.phase = Phase::Installing(Installing {
            iss: h.iss,
            mss: state.rx.mss,
            peer_mac: h.peer_mac,
            held: VecDeque::from_iter(first),
            held_bytes: bytes,
            doomed: false,
        });
        self.held_bytes += bytes;
        let listener = match origin {
            Origin::Active => None,
            Origin::Passive(listener) => {
                self.ports.no_longer_half_open(listener, h.serial);
                if let Some(l) = self.ports.listener(listener) {
                    l.waiting = l.waiting.saturating_add(1);
                }
                Some(listener)
            }
        };
        self.actions.push_back(Action::Install { conn: id, owner, listener, state });
    }

    /// The next hop that the flow will use. A passive opener has had none so far.
    fn installed_hop(&mut self, id: ConnId) -> Option<u16> {
        let conn = self.conns.get(id)?;
        if let Some(hop) = conn.hop {
            return Some(hop);
        }
        let Phase::SynReceived(h) = &conn.phase else { return None };
        let mac = h.peer_mac;
        let peer = conn.key.remote_ip;
        let next_hop = self.next_hop(peer)?;
        self.use_hop_of_peer(next_hop, peer, mac)
    }

    fn flow_of(&self, key: FlowKey, h: &Handshake, next_hop: u16, ack_now: bool) -> FlowState {
        let c = &self.config;
        let per_segment = if h.options.timestamps { TIMESTAMPS_LEN as u16 } else { 0 };
        let mut state = toe_tcp::establish(&Setup {
            key,
            region: RegionId::NONE,
            ctx: CtxId::NONE,
            opaque: 0,
            next_hop,
            vlan: c.vlan,
            ttl: h.open.ttl_or(self.ttl_to(&key.remote_ip)),
            tos: h.open.tos,
            tx_off: 0,
            tx_buf_log2: h.buffers.tx,
            rx_off: 0,
            rx_buf_log2: h.buffers.rx,
            iss: h.iss,
            irs: h.irs,
            snd_wnd: h.peer_window,
            snd_wscale: h.options.peer_wscale.unwrap_or(0),
            rcv_wnd: u32::from(h.first_window()),
            rcv_wscale: h.options.peer_wscale.map_or(0, |_| super::scale_of(h.buffers)),
            // RFC 9293 MUST-16; RFC 8201 5.4-2.
            mss: h.open.limit(h.options.peer_mss.min(self.mss_to(&key))).saturating_sub(per_segment),
            timestamps: h.options.timestamps.then_some(Timestamping { recent: h.ts_recent, offset: h.ts_offset }),
            sack: h.options.sack,
            ecn: h.options.ecn,
            algorithm: h.cc,
            rto_min_ms: u16::try_from(c.rto_min_us.div_ceil(1000)).unwrap_or(u16::MAX),
            rtt_us: if h.rtt_us > 0 { h.rtt_us } else { c.rtt_init_us },
            ack_now,
            now: Now(self.now),
        });
        // As if so much were unread: see `offered`.
        state.rx.rx_tail = state.rx.rx_tail.wrapping_sub(h.held_back());
        start_with_care(&mut state, h);
        if self.pacing(&key.remote_ip) {
            state.rx.flags |= flow_flags::PACED;
        }
        state
    }

    /// A frame of a connection that is being installed.
    pub(crate) fn hold(&mut self, id: ConnId, seg: &Segment<'_>) {
        // The peer has not seen our ACK yet: the flow will send it, or has done so.
        if seg.has(TcpFlags::SYN) {
            self.counters.drop_held_repeat += 1;
            return;
        }
        let room = HELD_BYTES_ALL.saturating_sub(self.held_bytes);
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Phase::Installing(i) = &mut conn.phase else { return };
        let len = seg.frame.len();
        if i.held.len() >= HELD_FRAMES || i.held_bytes.saturating_add(len) > HELD_BYTES || len > room {
            self.counters.drop_held_full += 1;
            return;
        }
        i.held.push_back((seg.frame.to_vec(), seg.meta));
        i.held_bytes += len;
        self.held_bytes += len;
    }

    /// A frame that the card did not know the flow of yet, but reaches us after its installation.
    pub(crate) fn inject_late(&mut self, id: ConnId, seg: &Segment<'_>) {
        let Some(Conn { phase: Phase::Established(e), .. }) = self.conns.get_mut(id) else { return };
        if seg.has(TcpFlags::SYN) && !seg.has(TcpFlags::ACK) {
            // The peer may have reset the connection, of which the card does not say until it has been accepted. It sends the SYN again.
            self.counters.drop_stale += 1;
            if self.limits.query.take(self.now) {
                self.actions.push_back(Action::QueryFlow { flow: e.flow });
            }
            return;
        }
        // What was put together of fragments has not been on the card; when it comes back, it is whole.
        if !seg.reassembled {
            if self.now.saturating_sub(e.since_us) > LATE_US || e.late_frames == LATE_FRAMES {
                // The card has just ended the flow and will say so, or it has lost it: injecting would go round in circles.
                self.counters.drop_stale += 1;
                return;
            }
            e.late_frames += 1;
        }
        self.counters.injected_late += 1;
        self.inject(seg.frame.to_vec(), seg.meta);
    }

    fn inject(&mut self, frame: Vec<u8>, meta: FrameMeta) {
        self.counters.injected += 1;
        self.actions.push_back(Action::Inject { frame, meta });
    }

    pub(crate) fn install_succeeded(&mut self, id: ConnId, flow: FlowId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Phase::Installing(i) = &mut conn.phase else { return };
        let (key, origin, doomed, mss) = (conn.key, conn.origin, i.doomed, i.mss);
        let held = core::mem::take(&mut i.held);
        self.held_bytes = self.held_bytes.saturating_sub(i.held_bytes);
        self.conns.established(id, Established::new(flow, mss, self.now));
        if doomed {
            self.unqueue(origin);
            self.actions.push_back(Action::AbortFlow { flow });
            return;
        }
        for (frame, meta) in held {
            self.inject(frame, meta);
        }
        match origin {
            Origin::Passive(listener) => {
                self.counters.passive_opens += 1;
                self.actions.push_back(Action::Accept { listener, conn: id, flow, key });
            }
            Origin::Active => {
                self.counters.active_opens += 1;
                self.actions.push_back(Action::Connected { conn: id, flow, key });
            }
        }
    }

    pub(crate) fn install_failed(&mut self, id: ConnId, error: InstallError) {
        let Some(Conn { origin, phase: Phase::Installing(i), .. }) = self.conns.get(id) else { return };
        let (origin, doomed) = (*origin, i.doomed);
        self.counters.install_failed += 1;
        self.unqueue(origin);
        let errno = match error {
            InstallError::NoMemory | InstallError::CardFull | InstallError::Refused => Errno::ENOBUFS,
            InstallError::Exists => Errno::EADDRNOTAVAIL,
            InstallError::OwnerGone => Errno::ECONNABORTED,
        };
        if error == InstallError::Exists || doomed {
            // A RST would hit the connection that the card has. (Of a doomed one nobody wants to hear.)
            let gone = self.remove_conn(id);
            if origin == Origin::Active && !doomed && gone.is_some() {
                self.connect_failed(id, errno);
            }
            return;
        }
        self.give_up_install(id, errno);
    }

    /// The peer believes in a connection that we cannot have: RST.
    fn give_up_install(&mut self, id: ConnId, errno: Errno) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let key = conn.key;
        let (iss, to) = match &mut conn.phase {
            Phase::Installing(i) => (i.iss, i.peer_mac),
            phase => match phase.handshake() {
                Some(h) => (h.iss, h.peer_mac),
                None => return,
            },
        };
        self.abandon(id, errno);
        self.send_rst(to, key, iss.add(1), SeqNum(0), TcpFlags::RST, None);
    }

    /// A connection that will never be accepted makes room in the accept queue.
    fn unqueue(&mut self, origin: Origin) {
        if let Origin::Passive(listener) = origin
            && let Some(l) = self.ports.listener(listener)
        {
            l.waiting = l.waiting.saturating_sub(1);
        }
    }
}

/// A variance that makes the first timeout 3 s.
const RTTVAR_AFTER_LOSS_US: u32 = 750_000;

/// What losses of the handshake say of the path.
fn start_with_care(s: &mut FlowState, h: &Handshake) {
    if h.retries > 0 && s.tx.srtt_us == 0 {
        // RFC 6298 5-4: 1 s was too short. The first measurement replaces it.
        s.tx.rttvar_us = RTTVAR_AFTER_LOSS_US;
    }
    if h.retries > 1 {
        // RFC 5681, 3.1: one segment, but not because of a first timeout, which may have been too early (RFC 6928, 2).
        s.cc.cwnd = u32::from(s.rx.mss);
    }
}
