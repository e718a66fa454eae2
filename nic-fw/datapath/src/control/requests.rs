//! Requests, one by one: checked here, answered here or handed on.

use super::{Control, Env, Job, Stage, Step, Sweep};
use crate::{
    ctxq::Geometry,
    msg::{ControlOp, Work},
    tables::Tables,
};
use toe_abi::{
    CtxId, FlowId, RegionId,
    control::{COUNTERS_PER_MSG, kind, status},
    counters,
    flow::{FlowState, cc, tcp_state, timer},
};
use toe_hal::HostMemory;

/// Of an offset in OPEN_CONTEXT: the upper byte is log2 of the queue's entries.
const OFFSET_BITS: u32 = 56;
/// RFC 9293, 3.7.1: no path has less than 536 less options; half of it leaves room for whatever a peer announces.
const MIN_MSS: u16 = 64;

impl Control {
    pub(super) fn dispatch<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Step {
        let flow = self.mailbox.request.flow;
        match self.mailbox.request.kind {
            kind::INSTALL => match check_install(&self.mailbox.request.flow_state(), env) {
                status::OK => self.hand_on(ControlOp::Install, FlowId::NONE),
                refused => self.answer(refused, env),
            },
            kind::RELEASE | kind::FREEZE | kind::ABORT | kind::CLOSE | kind::QUERY | kind::ICMP_ERROR => {
                self.hand_on(ControlOp::Request, flow)
            }
            kind::REBIND => match check_rebind(flow, self.mailbox.request.args[0], env) {
                status::OK => self.hand_on(ControlOp::Request, flow),
                refused => self.answer(refused, env),
            },
            kind::NEXT_FLOW => self.next_flow(env),
            kind::CLOSE_CONTEXT => self.close_context(env),
            kind::UNMAP_REGION => self.unmap_region(env),
            kind::MAP_REGION => {
                let answer = map_region(&self.mailbox.request.args, env);
                self.answer(answer, env)
            }
            kind::OPEN_CONTEXT => {
                let answer = open_context(&self.mailbox.request.args, env);
                self.answer(answer, env)
            }
            kind::NEXT_HOP => {
                let answer = set_next_hop(&self.mailbox.request.args, env.tables);
                self.answer(answer, env)
            }
            kind::ADDRESS => {
                let answer = self.set_address(env.tables);
                self.answer(answer, env)
            }
            kind::COUNTERS => self.counters(env),
            // SET_RATE and SET_BUFFERS: not in this version.
            _ => self.answer(status::UNSUPPORTED, env),
        }
    }

    fn hand_on(&mut self, op: ControlOp, flow: FlowId) -> Step {
        self.job = Job::Waiting;
        Step::Work(Work::Control { op, flow })
    }

    fn next_flow<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Step {
        let from = u32::try_from(self.mailbox.request.args[0]).unwrap_or(u32::MAX);
        match env.flows.find_from(from, u32::MAX, |_| true) {
            Some(flow) => {
                self.mailbox.answer.flow = flow;
                self.hand_on(ControlOp::Request, flow)
            }
            None => self.answer(status::NOT_FOUND, env),
        }
    }

    fn close_context<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Step {
        let ctx = context_id(self.mailbox.request.args[0]).filter(|&ctx| ctx != CtxId::CONTROL);
        match ctx {
            Some(ctx) if env.contexts.close(ctx) => {
                self.job = Job::Sweep(Sweep::CloseContext(ctx), Stage::Start);
                Step::Progress
            }
            _ => self.answer(status::NOT_FOUND, env),
        }
    }

    fn unmap_region<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Step {
        let region = region_id(self.mailbox.request.args[0]).filter(|&r| env.tables.is_application(r));
        match region.filter(|&r| env.tables.region_len(r).is_some()) {
            Some(region) => {
                while let Some(ctx) = env.contexts.of_region(region) {
                    env.contexts.close(ctx);
                }
                self.job = Job::Sweep(Sweep::UnmapRegion(region), Stage::Start);
                Step::Progress
            }
            None => self.answer(status::NOT_FOUND, env),
        }
    }

    fn set_address(&self, tables: &mut Tables) -> u32 {
        let request = &self.mailbox.request;
        let mut address = [0; 16];
        address.copy_from_slice(&request.body[..16]);
        match request.args[1] {
            1 if tables.add_address(address) => status::OK,
            1 => status::NO_SPACE,
            0 if tables.remove_address(&address) => status::OK,
            0 => status::NOT_FOUND,
            _ => status::INVALID,
        }
    }

    fn counters<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Step {
        let from = usize::try_from(self.mailbox.request.args[0]).unwrap_or(usize::MAX).min(counters::TOTAL);
        let end = (from + COUNTERS_PER_MSG).min(counters::TOTAL);
        self.mailbox.answer.args[0] = counters::TOTAL as u64;
        self.mailbox.answer.set_counters(&env.counters.words()[from..end]);
        self.answer(status::OK, env)
    }
}

fn context_id(arg: u64) -> Option<CtxId> {
    u16::try_from(arg).ok().map(CtxId)
}

fn region_id(arg: u64) -> Option<RegionId> {
    u16::try_from(arg).ok().map(RegionId)
}

fn map_region<M: HostMemory>(args: &[u64; 5], env: &mut Env<'_, M>) -> u32 {
    let [region, iova, len, ..] = *args;
    let Some(region) = region_id(region).filter(|&r| env.tables.is_application(r) && len > 0) else {
        return status::INVALID;
    };
    if env.tables.region_len(region).is_some() {
        return status::EXISTS;
    }
    if env.memory.bind(region, iova, len).is_err() {
        return status::NOT_FOUND;
    }
    env.tables.set_region(region, Some(len));
    status::OK
}

fn open_context<M: HostMemory>(args: &[u64; 5], env: &mut Env<'_, M>) -> u32 {
    let [ctx, region, page, hc, ev] = *args;
    let (Some(ctx), Some(region)) = (context_id(ctx), region_id(region)) else { return status::INVALID };
    let offset = |arg: u64| arg & ((1 << OFFSET_BITS) - 1);
    let log2 = |arg: u64| (arg >> OFFSET_BITS) as u32;
    let geometry = Geometry { region, page, hc_off: offset(hc), hc_log2: log2(hc), ev_off: offset(ev), ev_log2: log2(ev) };
    env.contexts.open(ctx, &geometry, env.now, env.tables, env.memory)
}

fn set_next_hop(args: &[u64; 5], tables: &mut Tables) -> u32 {
    let [index, mac, valid, ..] = *args;
    let [a, b, c, d, e, f, ..] = mac.to_le_bytes();
    let mac = match valid {
        0 => None,
        1 => Some([a, b, c, d, e, f]),
        _ => return status::INVALID,
    };
    if tables.set_next_hop(index, mac) { status::OK } else { status::INVALID }
}

fn check_rebind<M>(flow: FlowId, ctx: u64, env: &Env<'_, M>) -> u32 {
    if env.flows.phase(flow).is_none() {
        return status::NOT_FOUND;
    }
    let region = env.flows.state(flow.index).id.region;
    match context_id(ctx) {
        Some(CtxId::NONE) => status::OK,
        Some(ctx) if ctx != CtxId::CONTROL && env.contexts.region(ctx) == Some(region) => status::OK,
        _ => status::INVALID,
    }
}

/// The card trusts toed, but not so far that a mistake of its could make it index out of a buffer, or of a table.
fn check_install<M>(s: &FlowState, env: &Env<'_, M>) -> u32 {
    let id = &s.id;
    let Some(_) = env.tables.region_len(id.region).filter(|_| env.tables.is_application(id.region)) else {
        return status::NOT_FOUND;
    };
    let buffer = |buf: u32, log2: u8| (12..=30).contains(&log2) && env.tables.contains(id.region, u64::from(buf) * 64, 1 << log2);
    let bound = id.ctx == CtxId::NONE || (id.ctx != CtxId::CONTROL && env.contexts.region(id.ctx) == Some(id.region));
    let sequence = s.tx.snd_max.wrapping_sub(s.tx.snd_una) <= (1 << 30) + 1
        && s.tx.snd_nxt.wrapping_sub(s.tx.snd_una) <= s.tx.snd_max.wrapping_sub(s.tx.snd_una);
    let sane = buffer(s.rx.buf, s.rx.buf_log2)
        && buffer(s.tx.buf, s.tx.buf_log2)
        && bound
        && sequence
        && env.tables.next_hop_in_range(id.next_hop)
        // RFC 7323, 2.3: a shift is at most 14.
        && s.rx.wscale <= 14
        && s.tx.wscale <= 14
        && s.rx.mss >= MIN_MSS
        && s.cc.algorithm <= cc::CUBIC
        && s.tx.timer <= timer::CORK
        && (tcp_state::ESTABLISHED..=tcp_state::LAST_ACK).contains(&s.rx.state)
        && toe_abi::flow::as_v4(&id.key.local_ip).is_some()
        && toe_abi::flow::as_v4(&id.key.remote_ip).is_some();
    if sane { status::OK } else { status::INVALID }
}
