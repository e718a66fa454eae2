//! Passive open: LISTEN and SYN-RECEIVED (RFC 9293, 3.10.7.2 and 3.10.7.4).

use crate::{
    ConnId, Engine, Errno, ListenerId, Wishes,
    conn::{Conn, Handshake, Origin, Phase},
    limit::Answered,
    segment::Segment,
};
use toe_abi::flow::cc::needs_ecn;
use toe_wire::{SeqNum, TcpFlags};

impl Engine {
    /// A segment for which there is no connection: a SYN may open one. `iss_floor`: our sequence numbers must lie beyond
    /// those of the connection that was in TIME-WAIT.
    pub(crate) fn listen_or_refuse(&mut self, seg: &Segment<'_>, iss_floor: Option<SeqNum>) {
        let Some(listener) = self.ports.listener_for(&seg.key).filter(|_| !seg.has(TcpFlags::RST)) else {
            return self.refuse(seg);
        };
        if seg.has(TcpFlags::ACK) {
            if seg.has(TcpFlags::SYN) || !self.take_cookie(listener, seg) {
                self.refuse(seg);
            }
        } else if seg.has(TcpFlags::SYN) && !seg.has(TcpFlags::FIN) {
            self.open_passive(listener, seg, iss_floor);
        } else {
            // RFC 9293 3.10.7.2-5. As Linux, also for a SYN that says FIN: no TCP begins so.
            self.counters.drop_unacceptable += 1;
        }
    }

    fn open_passive(&mut self, listener: ListenerId, seg: &Segment<'_>, iss_floor: Option<SeqNum>) {
        self.counters.syn_received += 1;
        if self.next_hop(seg.key.remote_ip).is_none() {
            self.counters.drop_no_route += 1;
            return;
        }
        let Some(l) = self.ports.listener(listener) else { return };
        if l.is_full() {
            // The peer will try again; a RST would tell it not to.
            l.overflows += 1;
            self.counters.syn_drop_accept_full += 1;
            return;
        }
        let (owner, wishes) = (l.owner, l.wishes);
        let full = l.half_open.len() >= self.config.syn_backlog_max || self.ports.half_open() >= self.config.half_open_max;
        // A number behind those of TIME-WAIT cannot be a cookie as well: such SYNs take the place of others.
        if iss_floor.is_none() && self.wants_cookie(full) {
            return self.send_cookie(seg, wishes);
        }
        let room = if full { self.recycle(listener) } else { self.make_room(listener) };
        if !room {
            return;
        }
        let h = self.answer_to(seg, wishes, iss_floor);
        let serial = h.serial;
        let conn = Conn { key: seg.key, owner, origin: Origin::Passive(listener), phase: Phase::SynReceived(h), hop: None, deadline: None };
        let Some(id) = self.conns.insert(conn) else { return };
        self.ports.hold(seg.key.local_port);
        if iss_floor.is_some() {
            self.reuse_time_wait(&seg.key);
        }
        self.ports.now_half_open(listener, serial, id);
        self.send_syn(id);
    }

    /// Makes a place in the table of connections, if there is none. False: there is none still.
    pub(super) fn make_room(&mut self, listener: ListenerId) -> bool {
        !self.conns.is_full() || self.recycle(listener)
    }

    /// RFC 4987, 3.4: the oldest half-open connection goes. An honest peer needs one round trip; a flood never comes back. Nor does it keep those
    /// of other listeners from their share, or go beyond its own at their cost.
    fn recycle(&mut self, listener: ListenerId) -> bool {
        let Some(oldest) = self.ports.oldest_half_open(listener, self.config.syn_backlog_max, self.config.half_open_max) else {
            self.counters.syn_drop_table_full += 1;
            return false;
        };
        self.counters.syn_recycled += 1;
        self.remove_conn(oldest);
        true
    }

    /// Our side of a handshake that the peer began.
    /// RFC 9293 3.10.7.2-3.
    pub(super) fn answer_to(&mut self, seg: &Segment<'_>, wishes: Wishes, iss_floor: Option<SeqNum>) -> Handshake {
        self.serial += 1;
        // RFC 3168, 6.1.1: ECE and CWR in a SYN ask for ECN.
        let cc = wishes.cc.unwrap_or_else(|| self.default_cc(&seg.key.remote_ip));
        let ecn = (self.config.ecn || needs_ecn(cc)) && seg.has(TcpFlags::ECE | TcpFlags::CWR);
        Handshake {
            buffers: wishes.buffers,
            cc,
            iss: self.iss_of(&seg.key, iss_floor),
            irs: seg.seq,
            options: self.negotiate(&seg.key, &seg.options, ecn),
            peer_window: u32::from(seg.window),
            ts_recent: seg.options.timestamps.map_or(0, |t| t.val),
            ts_offset: self.keys.ts_offset(&seg.key),
            retries: 0,
            copies: 0,
            rtt_us: 0,
            patience_until: None,
            deferred_until: None,
            open: wishes.open,
            timeout_us: self.config.handshake_timeout_us,
            sent_us: self.now,
            peer_mac: seg.mac,
            serial: self.serial,
            answered: Answered::default(),
        }
    }

    /// SYN-RECEIVED, whoever began: RFC 9293, 3.10.7.4 with RFC 5961 and RFC 7323.
    pub(crate) fn syn_received(&mut self, id: ConnId, seg: &Segment<'_>) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        let origin = conn.origin;
        let Phase::SynReceived(h) = &mut conn.phase else { return };
        let rcv_nxt = h.irs.add(1);
        let in_window = seg.seq.in_window(rcv_nxt, u32::from(h.first_window()).max(1));

        if seg.has(TcpFlags::RST) {
            self.counters.drop_rst += 1;
            // RFC 9293 3.10.7.4-9, 3.10.7.4-10: an exact RST resets. RFC 5961, 3.2: another one in the window is challenged.
            if seg.seq == rcv_nxt {
                self.abandon(id, Errno::ECONNREFUSED);
            // RFC 5961 3.2-3.
            } else if in_window {
                self.challenge_by(id, seg);
            }
            return;
        }
        if seg.has(TcpFlags::SYN) {
            return self.syn_again(id, origin, seg);
        }
        if !in_window {
            // RFC 9293 3.10.7.4-2, 3.10.7.4-4: an unacceptable segment is answered by an ACK.
            self.counters.drop_unacceptable += 1;
            return self.challenge_by(id, seg);
        }
        match timestamp(h, seg) {
            Timestamp::Fits => {}
            Timestamp::Old => {
                self.counters.drop_paws += 1;
                return self.challenge_by(id, seg);
            }
            Timestamp::Missing => {
                self.counters.drop_unacceptable += 1;
                return;
            }
        }
        // RFC 9293 3.10.7.4-17.
        if !seg.has(TcpFlags::ACK) {
            self.counters.drop_unacceptable += 1;
            return;
        }
        // RFC 9293 3.10.7.4-20, 3.10.7.4-21: SND.UNA < SEG.ACK =< SND.NXT, and our SYN is all there is.
        if seg.ack != h.iss.add(1) {
            self.counters.drop_unacceptable += 1;
            return self.refuse(seg);
        }
        h.peer_window = u32::from(seg.window) << h.options.peer_wscale.unwrap_or(0);
        h.peer_mac = seg.mac;
        // The first to come tells it: a later one may have waited for data, or for room here.
        if h.rtt_us == 0 {
            h.rtt_us = h.measure(h.options.timestamps, seg, now);
        }
        self.final_ack(id, origin, seg);
    }

    fn final_ack(&mut self, id: ConnId, origin: Origin, seg: &Segment<'_>) {
        if let Origin::Passive(listener) = origin {
            let Some(l) = self.ports.listener(listener) else { return };
            if l.is_full() {
                // As if it had been lost: our SYN-ACK will be repeated, and acknowledged again.
                l.overflows += 1;
                self.counters.ack_drop_accept_full += 1;
                return;
            }
            if self.is_deferred(id, seg) {
                self.counters.ack_deferred += 1;
                return;
            }
        }
        self.install(id, Some((seg.frame.to_vec(), seg.meta)));
    }

    /// Whether the connection waits for data before anybody hears of it (TCP_DEFER_ACCEPT).
    fn is_deferred(&mut self, id: ConnId, seg: &Segment<'_>) -> bool {
        let now = self.now;
        let Some(h) = self.conns.get_mut(id).and_then(|c| c.phase.handshake()) else { return false };
        if h.open.defer_accept_us == 0 || seg.payload_len > 0 || seg.has(TcpFlags::FIN) {
            return false;
        }
        now < *h.deferred_until.get_or_insert(now.saturating_add(h.open.defer_accept_us))
    }

    /// A SYN in SYN-RECEIVED.
    fn syn_again(&mut self, id: ConnId, origin: Origin, seg: &Segment<'_>) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Phase::SynReceived(h) = &mut conn.phase else { return };
        let acks_ours = seg.has(TcpFlags::ACK) && seg.ack == h.iss.add(1);
        // RFC 5961 4.2-2.
        if seg.seq != h.irs {
            // RFC 5961, 4.2. A peer that has restarted answers the ACK with a RST, and tries again.
            self.counters.drop_unacceptable += 1;
            self.challenge_by(id, seg);
        } else if acks_ours && origin == Origin::Active {
            // Simultaneous open (RFC 9293, figure 7): the peer's SYN-ACK acknowledges our SYN. It waits for our ACK.
            h.peer_window = u32::from(seg.window);
            h.rtt_us = h.measure(h.options.timestamps, seg, now);
            self.install(id, None);
        } else if !seg.has(TcpFlags::ACK) {
            // Our SYN-ACK was lost, or has crossed it. An older copy than the last is answered as well.
            let _ = timestamp(h, seg);
            h.peer_mac = seg.mac;
            self.repeat_syn_ack(id);
        } else {
            self.counters.drop_unacceptable += 1;
            self.refuse(seg);
        }
    }

    /// One SYN-ACK for one SYN, within the limit of such answers; the timer goes on from here.
    fn repeat_syn_ack(&mut self, id: ConnId) {
        if self.may_answer(id) {
            self.send_syn(id);
        }
    }

    fn challenge_by(&mut self, id: ConnId, seg: &Segment<'_>) {
        if (seg.is_sent_again() || self.may_answer(id))
            && let Some(h) = self.conns.get_mut(id).and_then(|c| c.phase.handshake()).map(|h| h.clone())
            && let Some(to) = self.answer_mac(seg.key.remote_ip, seg.mac)
        {
            self.challenge(to, seg.key, &h);
        }
    }

    fn may_answer(&mut self, id: ConnId) -> bool {
        let now = self.now;
        let may = self.conns.get_mut(id).and_then(|c| c.phase.handshake()).is_some_and(|h| h.answered.may(now));
        self.counters.challenge_limited += u64::from(!may);
        may
    }

    /// The listener goes, and its half-open connections with it. (What is being installed is aborted afterwards.)
    /// RFC 9293 3.10.4-1.
    pub(crate) fn end_listener(&mut self, listener: ListenerId) {
        let Some(gone) = self.ports.unlisten(listener) else { return };
        for id in gone.half_open.into_values() {
            self.remove_conn(id);
        }
        for conn in self.conns.iter_mut().filter(|c| c.origin == Origin::Passive(listener)) {
            if let Phase::Installing(i) = &mut conn.phase {
                i.doomed = true;
            }
        }
    }
}

enum Timestamp {
    Fits,
    Old,
    Missing,
}

/// Judges a segment's timestamp, and takes it if the segment is the next, or the SYN again (RFC 7323, 4.3).
fn timestamp(h: &mut Handshake, seg: &Segment<'_>) -> Timestamp {
    match seg.options.timestamps {
        _ if !h.options.timestamps => Timestamp::Fits,
        // RFC 7323, 3.2: once negotiated, segments without it are dropped.
        None => Timestamp::Missing,
        // RFC 7323, 5.3 R1: older than what the SYN said.
        Some(ts) if SeqNum(ts.val).lt(SeqNum(h.ts_recent)) => Timestamp::Old,
        Some(ts) => {
            if seg.seq.le(h.irs.add(1)) {
                h.ts_recent = ts.val;
            }
            Timestamp::Fits
        }
    }
}
