//! Requests of the control plane about one flow, as its protocol stage carries them out.

use super::*;
use crate::control::Mailbox;
use toe_abi::control::{close_reason, kind, status};
use toe_tcp::{CloseReason, HostUpdate, IcmpError};
use toe_wire::SeqNum;

impl Protocol {
    pub(super) fn control(&mut self, op: ControlOp, flow: FlowId, mail: Option<Box<Mailbox>>, msg: &mut OutMsg) -> Said {
        msg.tag.flow = flow;
        match (op, mail) {
            (ControlOp::Install, Some(mail)) => self.install(flow, mail, msg),
            (ControlOp::Request, Some(mail)) => self.request(flow, mail, msg),
            (ControlOp::Notice, Some(mut mail)) => {
                if self.states.phase(flow).is_some() {
                    (mail.answer.args[0], mail.answer.args[1]) = (self.states.close_reason(flow).into(), self.now.micros());
                    mail.answer.set_flow_state(self.states.state(flow));
                }
                (msg.done, msg.mail) = (Done::Notice, Some(mail));
            }
            (ControlOp::Unbind { ctx }, _) => {
                if self.states.phase(flow).is_none() || self.states.state(flow).id.ctx != ctx {
                    return false;
                }
                bind(self.states.state_mut(flow), CtxId::NONE, 0);
                msg.event = Some(event(&self.states, flow));
            }
            (ControlOp::RegionGone, _) => self.abort(flow, Some(close_reason::REGION_GONE), true, msg),
            (ControlOp::Poisoned, _) => self.abort(flow, None, false, msg),
            (ControlOp::Forget, _) => {
                self.states.forget(flow);
                return false;
            }
            (ControlOp::Rates, Some(mut mail)) => {
                let Mailbox { request, answer } = &mut *mail;
                self.news.exchange(request, answer, &self.states, &mut self.sched, self.now);
                (msg.done, msg.mail) = (Done::Answer(status::OK), Some(mail));
            }
            (ControlOp::Barrier, _) => msg.done = Done::Barrier,
            (ControlOp::Install | ControlOp::Request | ControlOp::Notice | ControlOp::Rates, None) => {
                debug_assert!(false, "{op:?} without its mailbox");
                return false;
            }
        }
        true
    }

    fn install(&mut self, flow: FlowId, mut mail: Box<Mailbox>, msg: &mut OutMsg) {
        let mut state = mail.request.flow_state();
        let clock = mail.request.args[0];
        if clock != 0 {
            toe_tcp::rebase(&mut state, Now(clock), tcp_now(self.now));
        }
        toe_tcp::admit(&mut state, &mut self.pools, tcp_now(self.now));
        self.states.install(flow, &state);
        let local = self.states.local(flow);
        self.sched.assign(local, state.id.region.0);
        self.sched.set_rate(local, rate(mail.request.args[1]), self.now);
        mail.answer.flow = flow;
        self.counters.count(Counter::FlowsInstalled);
        self.ready(flow);
        self.rearm(flow);
        (msg.done, msg.mail) = (Done::Answer(status::OK), Some(mail));
    }

    /// A request about one flow; the answer takes its place in the order, behind all payload that came before.
    fn request(&mut self, flow: FlowId, mut mail: Box<Mailbox>, msg: &mut OutMsg) {
        let Some(phase) = self.states.phase(flow) else {
            (msg.done, msg.mail) = (Done::Answer(status::NOT_FOUND), Some(mail));
            return;
        };
        let mut done = Done::Answer(status::OK);
        let args = mail.request.args;
        match mail.request.kind {
            kind::ABORT => self.abort(flow, None, true, msg),
            kind::CLOSE => self.close(flow, phase, &args, msg),
            kind::REBIND => {
                let [ctx, opaque, ..] = args;
                bind(self.states.state_mut(flow), CtxId(ctx as u16), opaque as u32);
                msg.event = Some(event(&self.states, flow));
            }
            kind::ICMP_ERROR if phase == Phase::Live => {
                let out = self.input(flow, &Input::IcmpError(icmp_error(&args)));
                self.finish(flow, &out, msg);
            }
            kind::SET_RATE => {
                self.sched.set_rate(self.states.local(flow), rate(args[0]), self.now);
            }
            kind::SET_CC => {
                let number = u8::try_from(args[0]).unwrap_or(u8::MAX);
                if !toe_tcp::cc::choose(self.states.state_mut(flow), number) {
                    done = Done::Answer(status::INVALID);
                }
            }
            kind::FREEZE => {
                self.states.freeze(flow);
                self.sched.forget(self.states.local(flow));
            }
            kind::RELEASE => {
                if phase != Phase::Ended {
                    self.end(flow, close_reason::DONE, 0);
                }
                done = Done::Released(flow);
            }
            _ => {}
        }
        mail.answer.set_flow_state(self.states.state(flow));
        mail.answer.args[0] = self.now.micros();
        let local = self.states.local(flow);
        (mail.answer.args[1], mail.answer.args[2]) = (self.sched.rate(local).into(), self.sched.pace(local).into());
        (msg.done, msg.mail) = (done, Some(mail));
        if matches!(done, Done::Released(_)) {
            self.states.forget(flow);
        }
    }

    fn abort(&mut self, flow: FlowId, reason: Option<u32>, give_up: bool, msg: &mut OutMsg) {
        let Some(phase) = self.states.phase(flow) else { return };
        if give_up {
            self.states.give_up(flow);
        }
        if phase == Phase::Ended {
            msg.event = Some(event(&self.states, flow));
            return;
        }
        let mut out = self.input(flow, &Input::Abort);
        out.closed.get_or_insert(CloseReason::Aborted);
        self.finish(flow, &out, msg);
        if let Some(reason) = reason {
            self.states.end(flow, reason, out.error);
            msg.event = Some(event(&self.states, flow));
        }
    }

    fn close(&mut self, flow: FlowId, phase: Phase, args: &[u64; 5], msg: &mut OutMsg) {
        self.states.give_up(flow);
        if phase != Phase::Live {
            msg.event = (phase == Phase::Ended).then(|| event(&self.states, flow));
            return;
        }
        let [unread, has_positions, tx_head, rx_tail, _] = *args;
        let flags = options(self.states.state(flow));
        let last = HostUpdate { tx_head: tx_head as u32, rx_tail: rx_tail as u32, flags, urgent: 0 };
        let out = self.hang_up(flow, unread == 1, (has_positions == 1).then_some(&last));
        self.finish(flow, &out, msg);
    }

    /// Nobody holds the socket any more. `last`: how far its application has read and written.
    pub(super) fn hang_up(&mut self, flow: FlowId, unread: bool, last: Option<&HostUpdate>) -> Output {
        let before = last.map_or_else(Output::default, |update| self.input(flow, &Input::Host(*update)));
        // What came last may be news to the host, which says how far it has read.
        let state = self.states.state(flow);
        let unread = unread || last.is_some() && toe_tcp::rx_head(state) != state.rx.rx_tail;
        let mut out = self.input(flow, &Input::Close { unread });
        out.reply = out.reply.or(before.reply);
        out.notify |= before.notify;
        out.send |= before.send;
        out.deadline |= before.deadline;
        out.bad_host |= before.bad_host;
        out
    }
}

/// A rate in kbit/s, as a request has it.
fn rate(arg: u64) -> u32 {
    u32::try_from(arg).unwrap_or(u32::MAX)
}

fn icmp_error(args: &[u64; 5]) -> IcmpError {
    let [code, mtu, seq, ..] = *args;
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    IcmpError { kind: (code >> 8) as u8, code: code as u8, mtu, seq: SeqNum(seq as u32) }
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
