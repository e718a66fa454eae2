//! Protocol: the only owner of what changes in a flow. Everything of TCP itself is in `toe_tcp`; here its outputs become messages.

mod news;
mod place;
mod requests;

use crate::{
    Counters,
    flows::{Phase, States},
    msg::{ControlOp, CtxOpaque, Done, Event, HcMsg, HostOp, OutMsg, RegionOrNone, RxMsg, Work},
    pool::{Class, Pool},
    sched::Sched,
    train::Train,
};
use alloc::boxed::Box;
use news::News;
use toe_abi::{
    CtxId, FlowId,
    counters::{Counter, Drop},
    desc::{ev_flags, hc_flags},
    flow::{FlowState, flow_flags},
};
use toe_hal::Instant;
use toe_tcp::{Fast, Input, Now, Output, Pools, SegmentIn};

/// The stage of one flow group: its flows, their timers and turns, and the messages that it may send.
pub struct Protocol {
    states: States,
    pools: Pools,
    news: News,
    pub sched: Sched,
    pub pool: Pool,
    counters: Counters,
    now: Instant,
    next_number: u32,
    /// Most payload bytes in a frame that the port cuts; 0: it doesn't.
    tso_max: u32,
}

/// Whether there is something to say.
type Said = bool;

impl Protocol {
    pub fn new((states, pools): (States, Pools), sched: Sched, pool: Pool, counters: Counters, tso_max: u32) -> Self {
        let news = News::new(states.capacity());
        Self { states, pools, news, sched, pool, counters, now: Instant(0), next_number: 0, tso_max }
    }

    /// Handles a piece of work with a message that was taken for it. The message comes out with the next number, or goes back to the pool.
    pub fn handle(&mut self, work: Work, mut msg: Box<OutMsg>, now: Instant) -> Option<Box<OutMsg>> {
        self.now = now;
        let said = match work {
            Work::Rx(RxMsg { flow, segment, frame, payload_at }) => {
                msg.receive(frame, payload_at, segment.payload_len);
                self.segment(flow, &segment, &mut msg);
                true
            }
            Work::Host(m) => self.host(&m, &mut msg),
            Work::Control { op, flow, mail } => self.control(op, flow, mail, &mut msg),
            Work::Send { flow } => self.send(flow, &mut msg),
            Work::Timer { flow } => self.timer(flow, &mut msg),
        };
        if !said {
            self.pool.give(msg);
            return None;
        }
        self.number(&mut msg);
        Some(msg)
    }

    /// Gives a message that goes out the next number.
    #[inline]
    fn number(&mut self, msg: &mut OutMsg) {
        (msg.tag.group, msg.tag.number) = (self.states.group(), self.next_number);
        if let Some(event) = &mut msg.event {
            event.number = self.next_number;
        }
        self.next_number = self.next_number.wrapping_add(1);
    }

    pub fn group(&self) -> u16 {
        self.states.group()
    }

    /// The local port of a flow, for traces; 0: there is no such flow.
    pub fn port(&self, flow: FlowId) -> u16 {
        self.states.phase(flow).map_or(0, |_| self.states.state(flow).id.key.local_port)
    }

    /// The next flow whose timer has expired.
    pub fn next_timer(&mut self, now: Instant) -> Option<Work> {
        loop {
            let local = self.sched.timers.expire(now.micros() / 1000)?;
            if let Some(flow) = self.states.at(local) {
                return Some(Work::Timer { flow });
            }
        }
    }

    /// The next flow that owes an ACK, or has something to send again.
    pub fn next_urgent(&mut self) -> Option<Work> {
        self.next_of(Sched::next_urgent)
    }

    /// The next flow whose turn it is to send.
    pub fn next_send(&mut self, now: Instant) -> Option<Work> {
        self.next_of(|sched| sched.next(now))
    }

    fn next_of(&mut self, next: impl Fn(&mut Sched) -> Option<u32>) -> Option<Work> {
        loop {
            let local = next(&mut self.sched)?;
            match self.states.at(local) {
                Some(flow) => return Some(Work::Send { flow }),
                None => self.sched.idle(local),
            }
        }
    }

    /// Whether a flow owes something, or its timer has expired.
    pub fn is_urgent(&self, now: Instant) -> bool {
        self.sched.any_urgent() || self.next_timeout().is_some_and(|at| at <= now)
    }

    /// Whether a flow may send now.
    pub fn is_ready(&self, now: Instant) -> bool {
        self.sched.any_ready(now)
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.sched.timers.next_tick().map(|tick| Instant(tick.saturating_mul(1000)))
    }

    /// When the next timer expires, or a flow that is paced or limited may go on. Without credit nothing is due before a message has come
    /// home.
    pub fn next_deadline(&self) -> Option<Instant> {
        let timeout = self.next_timeout().filter(|_| self.pool.has(Class::Urgent));
        let due = self.sched.next_due().filter(|_| self.pool.has(Class::Data));
        timeout.into_iter().chain(due).min()
    }

    /// Forgets all flows.
    pub fn reset(&mut self) {
        for local in 0..self.states.capacity() {
            if let Some(flow) = self.states.at(local) {
                toe_tcp::forget(self.states.state_mut(flow), &mut self.pools);
                self.sched.forget(local);
            }
        }
        self.states.clear();
    }

    fn input(&mut self, flow: FlowId, input: &Input) -> Output {
        toe_tcp::input(self.states.state_mut(flow), &mut self.pools, input, tcp_now(self.now))
    }

    /// Whether segments that a train takes may be joined to it: only to those that go the way of nearly all, which its first one tells.
    #[inline]
    pub fn joins(&mut self, train: &mut Train) -> bool {
        if train.msg.frames.len() > 1 {
            return true;
        }
        let fast = self.states.live(train.flow).is_some_and(|(_, state, _)| toe_tcp::is_fast(state, &train.segment));
        if !fast {
            train.close();
        }
        fast
    }

    /// Handles all frames of a train as one segment. The message comes out with the next number.
    pub fn receive(&mut self, Train { flow, segment, mut msg, .. }: Train, now: Instant) -> Box<OutMsg> {
        self.now = now;
        self.segment(flow, &segment, &mut msg);
        self.number(&mut msg);
        msg
    }

    /// The frames are in the message.
    fn segment(&mut self, flow: FlowId, segment: &SegmentIn, msg: &mut OutMsg) {
        msg.tag.flow = flow;
        if !self.fast(flow, segment, msg) {
            self.judge(flow, segment, msg);
        }
    }

    /// The way of nearly all segments. False: this one has to go the other.
    #[inline]
    fn fast(&mut self, flow: FlowId, segment: &SegmentIn, msg: &mut OutMsg) -> bool {
        let now = tcp_now(self.now);
        let Some((local, state, given_up)) = self.states.live(flow) else { return false };
        let una = state.tx.snd_una;
        let Some(Fast { place, send, deadline }) = toe_tcp::fast(state, &mut self.pools, segment, now) else { return false };
        self.news.heard(local, state, una, &mut self.sched, self.now);
        msg.event = Some(event_of(flow, state, given_up));
        if let Some(place) = place {
            self.counters.add(Counter::RxPayloadBytes, place.len.into());
            place::write(&place, state, msg);
        }
        if send {
            self.sched.ready(local, urgent(state));
        }
        if deadline {
            arm(&mut self.sched, local, state, now);
        }
        true
    }

    fn judge(&mut self, flow: FlowId, segment: &SegmentIn, msg: &mut OutMsg) {
        match self.states.phase(flow) {
            Some(Phase::Live) => {
                let una = self.states.state(flow).tx.snd_una;
                let out = self.input(flow, &Input::Segment(*segment));
                self.news.heard(self.states.local(flow), self.states.state(flow), una, &mut self.sched, self.now);
                self.finish(flow, &out, msg);
                if let Some(place) = out.place {
                    self.counters.add(Counter::RxPayloadBytes, place.len.into());
                    place::write(&place, self.states.state(flow), msg);
                }
            }
            Some(Phase::Frozen) => {
                self.counters.drop_many(Drop::Frozen, msg.frames.len() as u64);
                msg.dropped = true;
            }
            Some(Phase::Ended) if toe_tcp::is_owed_answer(self.states.state(flow), segment) => {
                let out = self.input(flow, &Input::Segment(*segment));
                self.finish(flow, &out, msg);
            }
            // The flow has ended, or is not installed yet.
            _ => msg.stale = true,
        }
    }

    fn host(&mut self, m: &HcMsg, msg: &mut OutMsg) -> Said {
        if m.op == HostOp::Barrier {
            msg.done = Done::Barrier;
            return true;
        }
        let Some(phase) = self.states.phase(m.flow) else {
            self.counters.count(Counter::HcBadFlow);
            return false;
        };
        if self.states.state(m.flow).id.region != m.region {
            self.counters.count(Counter::HcForeignFlow);
            return false;
        }
        let rebinds = match m.op {
            HostOp::Rebind { opaque } => {
                bind(self.states.state_mut(m.flow), m.ctx, opaque);
                true
            }
            _ => false,
        };
        if phase == Phase::Live {
            let out = match m.op {
                HostOp::Update | HostOp::Rebind { .. } => self.input(m.flow, &Input::Host(m.update)),
                _ => self.seldom(m),
            };
            self.finish(m.flow, &out, msg);
        } else if !rebinds {
            return false;
        }
        msg.tag.flow = m.flow;
        if rebinds {
            msg.event = Some(event(&self.states, m.flow));
        }
        // Most updates change nothing that anybody has to hear of.
        rebinds || msg.tx.is_some() || msg.event.is_some()
    }

    #[cold]
    fn seldom(&mut self, m: &HcMsg) -> Output {
        match m.op {
            HostOp::Abort => self.input(m.flow, &Input::Abort),
            HostOp::Options(options) => {
                let out = self.input(m.flow, &Input::Options(options));
                self.count_refused();
                out
            }
            HostOp::Close => self.hang_up(m.flow, false, Some(&m.update)),
            HostOp::Update | HostOp::Rebind { .. } | HostOp::Barrier => Output::default(),
        }
    }

    fn send(&mut self, flow: FlowId, msg: &mut OutMsg) -> Said {
        let now = tcp_now(self.now);
        let Some((local, state, _)) = self.states.live(flow) else {
            self.sched.idle(self.states.local(flow));
            return false;
        };
        // An owed ACK does not wait for the flow's pace; new data with it would run ahead of it.
        let frame_max = self.sched.frame_max(local, self.now);
        let held = frame_max == 0;
        let max = self.tso_max.min(frame_max).max(state.rx.mss.into());
        let before = toe_tcp::armed(state);
        let pools = &mut self.pools;
        msg.tx = if held { toe_tcp::emit_owed(state, pools, now, max) } else { toe_tcp::emit(state, pools, now, max) };
        if toe_tcp::armed(state).is_sooner_than(before) {
            arm(&mut self.sched, local, state, now);
        }
        if let Some(segment) = &msg.tx {
            self.sched.sent(local, segment.len, urgent(state), self.now);
            msg.tag.flow = flow;
            return true;
        }
        self.sched.idle(local);
        if held {
            self.sched.ready(local, false);
        } else if toe_tcp::is_reset_due(state) {
            let out = self.input(flow, &Input::Abort);
            self.finish(flow, &out, msg);
            return true;
        }
        false
    }

    /// What is refused while data is in flight is counted by the timers that run then.
    fn count_refused(&mut self) {
        self.counters.add(Counter::RecordsRefused, self.pools.take_refused().into());
    }

    fn timer(&mut self, flow: FlowId, msg: &mut OutMsg) -> Said {
        if self.states.phase(flow) != Some(Phase::Live) {
            return false;
        }
        let now = tcp_now(self.now);
        self.count_refused();
        if toe_tcp::next_deadline(self.states.state(flow), now).is_none_or(|d| d.0 > now.0) {
            // Moved further away since it was armed.
            self.rearm(flow);
            return false;
        }
        let out = self.input(flow, &Input::Timer);
        self.finish(flow, &out, msg);
        msg.tx.is_some() || msg.event.is_some()
    }

    /// What TCP said, as a message; the payload's placement apart.
    fn finish(&mut self, flow: FlowId, out: &Output, msg: &mut OutMsg) {
        msg.tag.flow = flow;
        if let Some(reason) = out.drop {
            self.counters.drop_many(reason, msg.frames.len() as u64);
            msg.dropped = true;
        }
        out.counts.iter().for_each(|counter| self.counters.count(counter));
        if out.bad_host {
            self.counters.count(Counter::HcBadPosition);
        }
        msg.tx = out.reply;
        if let Some(reason) = out.closed {
            self.end(flow, reason.code(), out.error);
        } else {
            if out.send {
                self.ready(flow);
            }
            if out.deadline {
                self.rearm(flow);
            }
        }
        if out.notify || out.closed.is_some() {
            let mut event = event(&self.states, flow);
            if let Some(urgent) = out.urgent {
                event.flags |= ev_flags::URGENT;
                event.urgent = urgent;
            }
            msg.event = Some(event);
        }
    }

    fn end(&mut self, flow: FlowId, reason: u32, error: u32) {
        toe_tcp::forget(self.states.state_mut(flow), &mut self.pools);
        self.states.end(flow, reason, error);
        self.sched.forget(self.states.local(flow));
        self.counters.count(Counter::FlowsClosed);
    }

    fn ready(&mut self, flow: FlowId) {
        self.sched.ready(self.states.local(flow), urgent(self.states.state(flow)));
    }

    fn rearm(&mut self, flow: FlowId) {
        arm(&mut self.sched, self.states.local(flow), self.states.state(flow), tcp_now(self.now));
    }
}

/// Sets the timer of the flow at place `local`.
fn arm(sched: &mut Sched, local: u32, state: &FlowState, now: Now) {
    if let Some(due) = toe_tcp::next_deadline(state, now) {
        sched.timers.arm(local, due.0.div_ceil(1000));
    }
}

fn tcp_now(now: Instant) -> Now {
    Now(now.micros())
}

fn bind(state: &mut FlowState, ctx: CtxId, opaque: u32) {
    (state.id.ctx, state.id.opaque) = (ctx, opaque);
}

/// Owed ACKs, retransmissions and probes go before new data.
fn urgent(state: &FlowState) -> bool {
    const URGENT: u32 = flow_flags::ACK_NOW | flow_flags::REXMIT_ONE | flow_flags::PROBE | flow_flags::TLP_DUE | flow_flags::LOSS;
    state.rx.flags & URGENT != 0
}

fn event(states: &States, flow: FlowId) -> Event {
    let mut event = event_of(flow, states.state(flow), states.given_up(flow));
    if states.phase(flow) == Some(Phase::Ended) {
        event.error = states.close_error(flow);
        event.flags |= ev_flags::CLOSED | if event.error == 0 { 0 } else { ev_flags::ERROR };
    }
    event
}

/// What the application may know of a flow that has not ended.
#[inline]
fn event_of(flow: FlowId, s: &FlowState, given_up: bool) -> Event {
    Event {
        flow,
        ctx_opaque: CtxOpaque { ctx: s.id.ctx, opaque: s.id.opaque },
        region: RegionOrNone(s.id.region),
        flags: toe_tcp::event_flags(s),
        rx_head: toe_tcp::rx_head(s),
        tx_tail: toe_tcp::tx_tail(s),
        error: 0,
        srtt_us: s.tx.srtt_us,
        cwnd: s.cc.cwnd,
        urgent: 0,
        given_up,
        number: 0,
    }
}
