//! What is left to do once the card has closed a flow, or cannot: TIME-WAIT and orphans.

use crate::{
    Action, ConnId, Engine, FinWait2,
    addr::is_host,
    conn::{Established, Orphan, Phase},
    segment::Segment,
    time_wait::TimeWait,
    timers::TimerId,
};
use toe_abi::{
    FlowId,
    control::close_reason,
    flow::{FlowKey, FlowState, tcp_state},
};
use toe_wire::{SeqNum, TcpFlags, TcpOptions, Timestamps};

/// An orphan is looked at no oftener.
const ORPHAN_INTERVAL_MIN_US: u64 = 250_000;

impl Engine {
    pub(crate) fn closed(&mut self, flow: FlowId, reason: u32, state: &FlowState, clock: u64) {
        self.learn_path_mtu(flow, state);
        if let Some(id) = self.conns.by_flow(flow) {
            self.remove_conn(id);
        }
        // Also for a flow that was installed by an earlier daemon.
        let key = state.id.key;
        if reason != close_reason::TIME_WAIT || !is_host(&key.remote_ip) || self.conns.by_key(&key).is_some() {
            return;
        }
        if self.time_wait.is_full()
            && let Some(oldest) = self.time_wait.oldest()
        {
            self.counters.time_wait_evicted += 1;
            self.end_time_wait(&oldest);
        }
        self.counters.time_waits += 1;
        // RFC 9293 MUST-13.
        let deadline = self.now.saturating_add(self.config.time_wait_us);
        if !self.time_wait.contains(&key) {
            self.ports.hold(key.local_port);
        }
        self.time_wait.insert(key, TimeWait::of(state, clock, self.now), self.now, deadline);
    }

    /// A connection takes the tuple over.
    pub(crate) fn reuse_time_wait(&mut self, key: &FlowKey) {
        self.counters.time_wait_reused += 1;
        self.end_time_wait(key);
    }

    fn end_time_wait(&mut self, key: &FlowKey) {
        if self.time_wait.remove(key).is_some() {
            self.ports.release(key.local_port);
        }
    }

    // RFC 9293 3.10.8-3.
    pub(crate) fn time_wait_timer(&mut self) {
        while let Some(key) = self.time_wait.oldest() {
            if self.time_wait.next_deadline().is_none_or(|at| at > self.now) {
                break;
            }
            self.end_time_wait(&key);
        }
    }

    /// RFC 9293, 3.10.7.4, TIME-WAIT; RFC 1337; RFC 6191.
    pub(crate) fn in_time_wait(&mut self, seg: &Segment<'_>) {
        let Some(&tw) = self.time_wait.get(&seg.key) else { return };
        if seg.has(TcpFlags::RST) {
            // RFC 1337, 3 (fix 1): else an old duplicate would end TIME-WAIT.
            self.counters.time_wait_rsts += 1;
            return;
        }
        let opens = seg.has(TcpFlags::SYN) && !seg.flags.intersects(TcpFlags::ACK | TcpFlags::FIN);
        let timestamp = seg.options.timestamps.filter(|_| self.config.timestamps).map(|ts| ts.val);
        // RFC 9293 MAY-2, SHLD-4.
        if opens && succeeds(&tw, timestamp, seg.seq) && self.ports.listener_for(&seg.key).is_some() {
            return self.listen_or_refuse(seg, Some(tw.snd_nxt));
        }
        let fin_again = seg.has(TcpFlags::FIN) && seg.seq.add(seg.len()) == tw.rcv_nxt;
        if fin_again {
            // RFC 9293 3.10.7.4-28, 3.10.7.4-38: the only thing that can arrive in this state. Acknowledge it, restart 2 MSL.
            let deadline = self.now.saturating_add(self.config.time_wait_us);
            self.time_wait.insert(seg.key, tw, self.now, deadline);
        }
        // An ACK that is where it should be wants no answer.
        if seg.len() > 0 || seg.seq != tw.rcv_nxt {
            self.acknowledge_again(seg, &tw);
        }
    }

    fn acknowledge_again(&mut self, seg: &Segment<'_>, tw: &TimeWait) {
        let now = self.now;
        if !seg.is_sent_again() && !self.time_wait.get_mut(&seg.key).is_some_and(|tw| tw.answered.may(now)) {
            self.counters.challenge_limited += 1;
            return;
        }
        let Some(to) = self.answer_mac(seg.key.remote_ip, seg.mac) else { return };
        self.counters.challenge_acks += 1;
        let timestamps = tw.timestamps.map(|(recent, offset)| Timestamps { val: self.ts_val(offset), ecr: recent });
        let options = TcpOptions { timestamps, ..TcpOptions::default() };
        self.send(to, seg.key, tw.snd_nxt, tw.rcv_nxt, TcpFlags::ACK, tw.window, options);
    }

    /// RFC 9293, 3.10.7.4: what has been reset is CLOSED, and its tuple free, also if nobody has been told yet.
    pub(crate) fn flow_may_have_ended(&mut self, flow: FlowId, state: &FlowState) {
        if state.rx.state == tcp_state::CLOSED
            && let Some(id) = self.conns.by_flow(flow)
        {
            self.remove_conn(id);
        }
    }

    pub(crate) fn orphan(&mut self, flow: FlowId, limit: FinWait2) {
        let Some(id) = self.conns.by_flow(flow) else { return };
        let at = self.now.saturating_add(self.orphan_interval_us(limit));
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Phase::Established(e) = &mut conn.phase {
            e.orphan.get_or_insert(Orphan { since_us: self.now, state: 0, snd_una: 0, limit });
            self.timers.set(TimerId::Conn(id), &mut conn.deadline, Some(at));
        }
    }

    fn orphan_interval_us(&self, limit: FinWait2) -> u64 {
        let everybodys = (self.config.fin_wait2_us / 4).max(ORPHAN_INTERVAL_MIN_US);
        match limit {
            FinWait2::AsEverybody => everybodys,
            FinWait2::Limit(us) => (us / 4).clamp(ORPHAN_INTERVAL_MIN_US, everybodys),
        }
    }

    /// Time to see how an orphan is doing: only the card knows.
    pub(crate) fn orphan_timer(&mut self, id: ConnId) {
        let Some(Phase::Established(Established { flow, orphan: Some(orphan), .. })) = self.conns.get(id).map(|c| &c.phase) else { return };
        let (flow, at) = (*flow, self.now.saturating_add(self.orphan_interval_us(orphan.limit)));
        self.actions.push_back(Action::QueryFlow { flow });
        if let Some(conn) = self.conns.get_mut(id) {
            self.timers.set(TimerId::Conn(id), &mut conn.deadline, Some(at));
        }
    }

    /// RFC 9293 has no limit for FIN-WAIT-2, but without an owner nobody else would ever end it. In all other states something is outstanding,
    /// or the window shut, and the card's timers give up in their own time.
    pub(crate) fn orphan_state(&mut self, flow: FlowId, state: &FlowState) {
        let Some(id) = self.conns.by_flow(flow) else { return };
        let (now, everybodys) = (self.now, self.config.fin_wait2_us);
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Phase::Established(e) = &mut conn.phase else { return };
        let Some(seen) = e.orphan else { return };
        let limit = match seen.limit {
            FinWait2::Limit(us) => us,
            FinWait2::AsEverybody => everybodys,
        };
        let waits = state.rx.state == tcp_state::FIN_WAIT_2;
        let moved = (seen.state, seen.snd_una) != (state.rx.state, state.tx.snd_una);
        if !waits || moved && limit > 0 {
            e.orphan = Some(Orphan { since_us: now, state: state.rx.state, snd_una: state.tx.snd_una, ..seen });
        } else if now.saturating_sub(seen.since_us) >= limit {
            e.orphan = None;
            self.timers.set(TimerId::Conn(id), &mut conn.deadline, None);
            self.counters.fin_wait2_timeouts += 1;
            self.actions.push_back(Action::AbortFlow { flow });
        }
    }
}

/// Whether a SYN is of a new incarnation, by its timestamp (`None`: not offered, or we would not agree) or else by its sequence number.
fn succeeds(tw: &TimeWait, timestamp: Option<u32>, seq: SeqNum) -> bool {
    match (tw.timestamps, timestamp) {
        // RFC 6191 2-1, 2-2.
        (Some((recent, _)), Some(val)) if val != recent => SeqNum(val).gt(SeqNum(recent)),
        // RFC 6191 2-5: nothing of the old connection has a timestamp, so the new one will take nothing of it.
        (None, Some(_)) => true,
        // RFC 6191 2-3, 2-4: behind the old FIN.
        _ => seq.ge(tw.rcv_nxt),
    }
}
