//! Protocol: the only owner of what changes in a flow. Everything of TCP itself is in `toe_tcp`; here its outputs become messages.

use crate::{
    Counters,
    control::Mailbox,
    msg::{ControlOp, CtxOpaque, DmaMsg, Done, Event, HcMsg, HostOp, RegionOrNone, RxMsg, RxRef, Tag, TxMsg, Work, Write},
    sched::Sched,
    store::{FlowStore, InstallError, Phase},
};
use toe_abi::{
    CtxId, FlowId, HostAddr,
    control::{close_reason, kind, status},
    counters::{Counter, Drop},
    desc::{ev_flags, hc_flags},
    flow::{FlowState, flow_flags},
};
use toe_hal::Instant;
use toe_tcp::{CloseReason, HostUpdate, IcmpError, Input, Now, Output, Placement};
use toe_wire::SeqNum;

/// What a piece of work led to.
#[derive(Debug)]
pub enum Outcome {
    Out(DmaMsg),
    /// The flow ended between look-up and now: the frame is nobody's.
    Stale(RxMsg),
    Nothing,
}

/// What the stage works on.
pub struct Env<'a> {
    pub flows: &'a mut FlowStore,
    pub sched: &'a mut Sched,
    pub counters: &'a mut Counters,
    pub mailbox: &'a mut Mailbox,
    pub now: Instant,
}

pub struct Protocol {
    next_number: u32,
    /// Most payload bytes in a frame that the port cuts; 0: it doesn't.
    tso_max: u32,
}

impl Protocol {
    pub fn new(tso_max: u32) -> Self {
        Self { next_number: 0, tso_max }
    }

    pub fn handle(&mut self, work: Work, env: &mut Env<'_>) -> Outcome {
        match work {
            Work::Rx(m) => self.segment(m, env),
            Work::Host(m) => self.host(&m, env),
            Work::Control { op, flow } => Outcome::Out(self.control(op, flow, env)),
            Work::Send { flow } => self.send(flow, env),
            Work::Timer { flow } => self.timer(flow, env),
        }
    }

    fn message(&mut self, flow: FlowId) -> DmaMsg {
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        DmaMsg {
            tag: Tag { flow, group: 0, number },
            writes: heapless::Vec::new(),
            frame: None,
            dropped: false,
            tx: None,
            event: None,
            done: Done::Nothing,
        }
    }

    fn segment(&mut self, m: RxMsg, env: &mut Env<'_>) -> Outcome {
        let i = m.flow.index;
        match env.flows.phase(m.flow) {
            Some(Phase::Live) => {
                let out = toe_tcp::input(env.flows.state_mut(i), &Input::Segment(m.segment), tcp_now(env.now));
                let mut msg = self.finish(m.flow, &out, env);
                place(&mut msg, env, &out, &m.frame, m.payload_at);
                msg.frame = Some(m.frame);
                Outcome::Out(msg)
            }
            Some(Phase::Frozen) => {
                env.counters.drop(Drop::Frozen);
                let mut msg = self.message(m.flow);
                (msg.frame, msg.dropped) = (Some(m.frame), true);
                Outcome::Out(msg)
            }
            _ => Outcome::Stale(m),
        }
    }

    fn host(&mut self, m: &HcMsg, env: &mut Env<'_>) -> Outcome {
        let Some(phase) = env.flows.phase(m.flow) else {
            env.counters.count(Counter::HcBadFlow);
            return Outcome::Nothing;
        };
        let i = m.flow.index;
        if env.flows.state(i).id.region != m.region {
            env.counters.count(Counter::HcForeignFlow);
            return Outcome::Nothing;
        }
        if let HostOp::Rebind { opaque } = m.op {
            bind(env.flows.state_mut(i), m.ctx, opaque);
        }
        let input = if m.op == HostOp::Abort { Input::Abort } else { Input::Host(m.update) };
        let mut msg = match phase {
            Phase::Live => {
                let out = toe_tcp::input(env.flows.state_mut(i), &input, tcp_now(env.now));
                self.finish(m.flow, &out, env)
            }
            _ if matches!(m.op, HostOp::Rebind { .. }) => self.message(m.flow),
            _ => return Outcome::Nothing,
        };
        if matches!(m.op, HostOp::Rebind { .. }) {
            msg.event = Some(event(env.flows, m.flow));
        }
        Outcome::Out(msg)
    }

    fn send(&mut self, i: u32, env: &mut Env<'_>) -> Outcome {
        let Some(flow) = env.flows.id(i).filter(|&id| env.flows.phase(id) == Some(Phase::Live)) else {
            env.sched.idle(i);
            return Outcome::Nothing;
        };
        let state = env.flows.state_mut(i);
        let max = self.tso_max.max(state.rx.mss.into());
        // An owed ACK takes no data along past the flow's pace or its application's rate.
        let waits = env.sched.holds_back(i, env.now) && !resends(state);
        let segment = if waits { toe_tcp::emit_ack(state, tcp_now(env.now)) } else { toe_tcp::emit(state, tcp_now(env.now), max) };
        let Some(segment) = segment else {
            env.sched.idle(i);
            if waits {
                env.sched.ready(i, false);
            }
            rearm(i, env);
            return Outcome::Nothing;
        };
        env.sched.sent(i, segment.len, urgent(env.flows.state(i)), env.now);
        rearm(i, env);
        let mut msg = self.message(flow);
        msg.tx = Some(TxMsg { tag: msg.tag, segment });
        Outcome::Out(msg)
    }

    fn timer(&mut self, i: u32, env: &mut Env<'_>) -> Outcome {
        let Some(flow) = env.flows.id(i).filter(|&id| env.flows.phase(id) == Some(Phase::Live)) else {
            return Outcome::Nothing;
        };
        let now = tcp_now(env.now);
        let due = toe_tcp::next_deadline(env.flows.state(i), now);
        if due.is_none_or(|d| d.0 > now.0) {
            // Moved further away since it was armed.
            rearm(i, env);
            return Outcome::Nothing;
        }
        let out = toe_tcp::input(env.flows.state_mut(i), &Input::Timer, now);
        Outcome::Out(self.finish(flow, &out, env))
    }

    /// What TCP said, as a message; the payload's placement apart.
    fn finish(&mut self, flow: FlowId, out: &Output, env: &mut Env<'_>) -> DmaMsg {
        let i = flow.index;
        let mut msg = self.message(flow);
        if let Some(reason) = out.drop {
            env.counters.drop(reason);
            msg.dropped = true;
        }
        if let Some(counter) = out.count {
            env.counters.count(counter);
        }
        if out.bad_host {
            env.counters.count(Counter::HcBadPosition);
        }
        msg.tx = out.reply.map(|segment| TxMsg { tag: msg.tag, segment });
        if let Some(reason) = out.closed {
            self.end(flow, reason.code(), out.error, env);
        } else {
            if out.send {
                env.sched.ready(i, urgent(env.flows.state(i)));
            }
            rearm(i, env);
        }
        if out.notify || out.closed.is_some() {
            msg.event = Some(event(env.flows, flow));
        }
        msg
    }

    fn end(&self, flow: FlowId, reason: u32, error: u32, env: &mut Env<'_>) {
        env.flows.end(flow.index, reason, error);
        env.sched.forget(flow.index);
        env.counters.count(Counter::FlowsClosed);
    }

    fn control(&mut self, op: ControlOp, flow: FlowId, env: &mut Env<'_>) -> DmaMsg {
        match op {
            ControlOp::Barrier => {
                let mut msg = self.message(FlowId::NONE);
                msg.done = Done::Barrier;
                msg
            }
            ControlOp::Install => self.install(env),
            ControlOp::Request => self.request(flow, env),
            ControlOp::Unbind { ctx } => {
                let mut msg = self.message(flow);
                if env.flows.phase(flow).is_some() && env.flows.state(flow.index).id.ctx == ctx {
                    bind(env.flows.state_mut(flow.index), CtxId::NONE, 0);
                    msg.event = Some(event(env.flows, flow));
                }
                msg
            }
            ControlOp::RegionGone => self.abort(flow, Some(close_reason::REGION_GONE), true, env),
            ControlOp::Poisoned => self.abort(flow, None, false, env),
        }
    }

    fn install(&mut self, env: &mut Env<'_>) -> DmaMsg {
        let mut state = env.mailbox.request.flow_state();
        let clock = env.mailbox.request.args[0];
        if clock != 0 {
            toe_tcp::rebase(&mut state, Now(clock), tcp_now(env.now));
        }
        let installed = env.flows.install(&state);
        let mut msg = self.message(installed.unwrap_or(FlowId::NONE));
        msg.done = Done::Answer(match installed {
            Ok(flow) => {
                env.mailbox.answer.flow = flow;
                env.counters.count(Counter::FlowsInstalled);
                env.sched.assign(flow.index, state.id.region.0);
                env.sched.ready(flow.index, urgent(&state));
                rearm(flow.index, env);
                status::OK
            }
            Err(InstallError::Exists) => status::EXISTS,
            Err(InstallError::NoSpace) => status::NO_SPACE,
        });
        msg
    }

    /// A request about one flow; the answer takes its place in the order, behind all payload that came before.
    fn request(&mut self, flow: FlowId, env: &mut Env<'_>) -> DmaMsg {
        let Some(phase) = env.flows.phase(flow) else {
            let mut msg = self.message(flow);
            msg.done = Done::Answer(status::NOT_FOUND);
            return msg;
        };
        let i = flow.index;
        let mut done = Done::Answer(status::OK);
        let mut msg = match env.mailbox.request.kind {
            kind::ABORT => self.abort(flow, None, true, env),
            kind::CLOSE => self.close(flow, phase, env),
            kind::REBIND => {
                let [ctx, opaque, ..] = env.mailbox.request.args;
                bind(env.flows.state_mut(i), CtxId(ctx as u16), opaque as u32);
                let mut msg = self.message(flow);
                msg.event = Some(event(env.flows, flow));
                msg
            }
            kind::ICMP_ERROR if phase == Phase::Live => {
                let error = icmp_error(&env.mailbox.request.args);
                let out = toe_tcp::input(env.flows.state_mut(i), &Input::IcmpError(error), tcp_now(env.now));
                self.finish(flow, &out, env)
            }
            kind::FREEZE => {
                env.flows.freeze(i);
                env.sched.forget(i);
                self.message(flow)
            }
            kind::RELEASE => {
                if phase != Phase::Ended {
                    self.end(flow, close_reason::DONE, 0, env);
                }
                done = Done::Released(flow);
                self.message(flow)
            }
            _ => self.message(flow),
        };
        env.mailbox.answer.set_flow_state(env.flows.state(i));
        env.mailbox.answer.args[0] = env.now.micros();
        msg.done = done;
        msg
    }

    fn abort(&mut self, flow: FlowId, reason: Option<u32>, give_up: bool, env: &mut Env<'_>) -> DmaMsg {
        let Some(phase) = env.flows.phase(flow) else { return self.message(flow) };
        if give_up {
            env.flows.give_up(flow.index);
        }
        if phase == Phase::Ended {
            let mut msg = self.message(flow);
            msg.event = Some(event(env.flows, flow));
            return msg;
        }
        let mut out = toe_tcp::input(env.flows.state_mut(flow.index), &Input::Abort, tcp_now(env.now));
        out.closed.get_or_insert(CloseReason::Aborted);
        let mut msg = self.finish(flow, &out, env);
        if let Some(reason) = reason {
            env.flows.end(flow.index, reason, out.error);
            msg.event = Some(event(env.flows, flow));
        }
        msg
    }

    fn close(&mut self, flow: FlowId, phase: Phase, env: &mut Env<'_>) -> DmaMsg {
        let i = flow.index;
        env.flows.give_up(i);
        if phase != Phase::Live {
            let mut msg = self.message(flow);
            msg.event = (phase == Phase::Ended).then(|| event(env.flows, flow));
            return msg;
        }
        let [unread, has_positions, tx_head, rx_tail, _] = env.mailbox.request.args;
        let now = tcp_now(env.now);
        let mut before = Output::default();
        if has_positions == 1 {
            let flags = options(env.flows.state(i));
            let update = HostUpdate { tx_head: tx_head as u32, rx_tail: rx_tail as u32, flags };
            before = toe_tcp::input(env.flows.state_mut(i), &Input::Host(update), now);
        }
        // What came last may be news to the host, which says how far it has read.
        let state = env.flows.state(i);
        let unread = unread == 1 || has_positions == 1 && toe_tcp::rx_head(state) != state.rx.rx_tail;
        let mut out = toe_tcp::input(env.flows.state_mut(i), &Input::Close { unread }, now);
        out.reply = out.reply.or(before.reply);
        out.notify |= before.notify;
        out.send |= before.send;
        out.bad_host |= before.bad_host;
        self.finish(flow, &out, env)
    }
}

fn tcp_now(now: Instant) -> Now {
    Now(now.micros())
}

fn icmp_error(args: &[u64; 5]) -> IcmpError {
    let [code, mtu, seq, ..] = *args;
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    IcmpError { kind: (code >> 8) as u8, code: code as u8, mtu, seq: SeqNum(seq as u32) }
}

fn bind(state: &mut FlowState, ctx: CtxId, opaque: u32) {
    (state.id.ctx, state.id.opaque) = (ctx, opaque);
}

/// Owed ACKs, retransmissions and probes go before new data.
fn urgent(state: &FlowState) -> bool {
    state.rx.flags & flow_flags::ACK_NOW != 0 || resends(state)
}

/// Whether something is to be sent again, or a probe: it waits for no rate.
fn resends(state: &FlowState) -> bool {
    state.rx.flags & (flow_flags::REXMIT_ONE | flow_flags::PROBE | flow_flags::LOSS) != 0
}

/// The socket options that a flow has now, as an UPDATE would carry them.
fn options(state: &FlowState) -> u32 {
    const PAIRS: [(u32, u32); 4] = [
        (flow_flags::TX_FIN, hc_flags::FIN),
        (flow_flags::NODELAY, hc_flags::NODELAY),
        (flow_flags::KEEPALIVE, hc_flags::KEEPALIVE),
        (flow_flags::RX_CLOSED, hc_flags::RX_CLOSED),
    ];
    PAIRS.iter().filter(|(flow, _)| state.rx.flags & flow != 0).fold(0, |flags, (_, hc)| flags | hc)
}

fn rearm(i: u32, env: &mut Env<'_>) {
    if let Some(due) = toe_tcp::next_deadline(env.flows.state(i), tcp_now(env.now)) {
        env.sched.timers.arm(i, due.0.div_ceil(1000));
    }
}

fn event(flows: &FlowStore, flow: FlowId) -> Event {
    let i = flow.index;
    let s = flows.state(i);
    let mut flags = toe_tcp::event_flags(s);
    let mut error = 0;
    if flows.phase(flow) == Some(Phase::Ended) {
        error = flows.close_error(i);
        flags |= ev_flags::CLOSED | if error == 0 { 0 } else { ev_flags::ERROR };
    }
    Event {
        flow,
        ctx_opaque: CtxOpaque { ctx: s.id.ctx, opaque: s.id.opaque },
        region: RegionOrNone(s.id.region),
        flags,
        rx_head: toe_tcp::rx_head(s),
        tx_tail: toe_tcp::tx_tail(s),
        error,
        srtt_us: s.tx.srtt_us,
        cwnd: s.cc.cwnd,
        given_up: flows.given_up(i),
    }
}

/// Turns a placement into at most two writes (the buffer is a ring).
fn place(msg: &mut DmaMsg, env: &mut Env<'_>, out: &Output, frame: &RxRef, payload_at: u32) {
    let Some(Placement { from, pos, len, .. }) = out.place else { return };
    let s = env.flows.state(msg.tag.flow.index);
    let size = 1u32 << s.rx.buf_log2;
    let base = HostAddr::new(s.id.region, u64::from(s.rx.buf) * 64);
    let offset = pos & (size - 1);
    // TCP never places more than the window; a buffer is at least that.
    let len = len.min(size);
    let first = len.min(size - offset);
    let at = payload_at + from;
    for (at, len, offset) in [(at, first, offset), (at + first, len - first, 0)] {
        if len > 0 {
            let _ = msg.writes.push(Write { source: frame.source, at, len, dst: base.add(offset.into()) });
        }
    }
    env.counters.add(Counter::RxPayloadBytes, len.into());
}
