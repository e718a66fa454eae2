//! Requests, one by one: checked here, answered here or handed on.

use super::{Control, Env, Job, Mailbox, Step, Sweep};
use crate::{
    counters::CounterSums,
    ctxq::Geometry,
    flows::InstallError,
    msg::{ControlOp, Work},
    pipeline::trace::Traces,
    tables::{OwnAddress, Tables},
};
use alloc::boxed::Box;
use toe_abi::{
    CtxId, FlowId, RegionId,
    control::{COUNTERS_PER_MSG, kind, status},
    counters,
    flow::{FlowState, cc, flow_flags, tcp_state, timer},
    observe::{STAGES_PER_MSG, TRACES_PER_MSG, trace_op},
};
use toe_hal::HostMemory;
use toe_sync::share::WEIGHT_MAX;
use toe_wire::{ipv4, tcp};

/// Of an offset in OPEN_CONTEXT: the upper byte is log2 of the queue's entries.
const OFFSET_BITS: u32 = 56;
/// RFC 9293, 3.7.1: no path has less than 536 less options; half of it leaves room for whatever a peer announces.
const MIN_MSS: u16 = 64;
/// VLANs have numbers below this (IEEE 802.1Q, 9.6).
const VLAN_MAX: u16 = 4095;

impl Control {
    pub(super) fn dispatch<M: HostMemory>(&mut self, mut mail: Box<Mailbox>, env: &mut Env<'_, M>) -> Step {
        let (flow, args) = (mail.request.flow, mail.request.args);
        let answer = match mail.request.kind {
            kind::INSTALL => return self.install(mail, env),
            kind::RELEASE | kind::FREEZE | kind::ABORT | kind::CLOSE | kind::QUERY | kind::ICMP_ERROR | kind::SET_RATE | kind::SET_CC => {
                return self.hand_on(ControlOp::Request, flow, mail);
            }
            kind::REBIND => match check_rebind(flow, args[0], env) {
                status::OK => return self.hand_on(ControlOp::Request, flow, mail),
                refused => refused,
            },
            kind::RATES => match u16::try_from(args[0]).ok().filter(|group| *group < env.directory.groups().count()) {
                // Flow i belongs to group i mod groups.
                Some(group) => return self.hand_on(ControlOp::Rates, FlowId { index: group.into(), generation: 0 }, mail),
                None => status::INVALID,
            },
            kind::NEXT_FLOW => return self.next_flow(mail, env),
            kind::CLOSE_CONTEXT => return self.close_context(mail, env),
            kind::UNMAP_REGION => return self.unmap_region(mail, env),
            kind::MAP_REGION => map_region(&args, env),
            kind::OPEN_CONTEXT => open_context(&args, env),
            kind::NEXT_HOP => set_next_hop(&args, env.tables),
            kind::ADDRESS => set_address(&mail, env.tables),
            kind::COUNTERS => counters(&mut mail, env.sums),
            kind::STAGES => stages(&mut mail, env),
            kind::TRACE => trace(&mut mail, &mut env.observed.traces),
            kind::SET_SHARE => set_share(&args, env),
            // SET_BUFFERS: not in this version.
            _ => status::UNSUPPORTED,
        };
        self.answer(mail, answer, env.counters)
    }

    fn hand_on(&mut self, op: ControlOp, flow: FlowId, mail: Box<Mailbox>) -> Step {
        self.job = Job::Waiting;
        Step::Work(Work::Control { op, flow, mail: Some(mail) })
    }

    fn install<M: HostMemory>(&mut self, mail: Box<Mailbox>, env: &mut Env<'_, M>) -> Step {
        let state = mail.request.flow_state();
        let refused = match check_install(&state, env) {
            status::OK => match env.directory.install(&state) {
                Ok(flow) => return self.hand_on(ControlOp::Install, flow, mail),
                Err(InstallError::Exists) => status::EXISTS,
                Err(InstallError::NoSpace) => status::NO_SPACE,
            },
            refused => refused,
        };
        self.answer(mail, refused, env.counters)
    }

    fn next_flow<M: HostMemory>(&mut self, mut mail: Box<Mailbox>, env: &mut Env<'_, M>) -> Step {
        let from = u32::try_from(mail.request.args[0]).unwrap_or(u32::MAX);
        match env.directory.find_from(from, u32::MAX, |_| true) {
            Some(flow) => {
                mail.answer.flow = flow;
                self.hand_on(ControlOp::Request, flow, mail)
            }
            None => self.answer(mail, status::NOT_FOUND, env.counters),
        }
    }

    fn close_context<M: HostMemory>(&mut self, mail: Box<Mailbox>, env: &mut Env<'_, M>) -> Step {
        let ctx = context_id(mail.request.args[0]).filter(|&ctx| ctx != CtxId::CONTROL);
        match ctx.and_then(|ctx| env.contexts.drain(ctx).map(|region| (ctx, region))) {
            Some((ctx, region)) => self.begin_sweep(Sweep::CloseContext(ctx, region), mail),
            None => self.answer(mail, status::NOT_FOUND, env.counters),
        }
    }

    fn unmap_region<M: HostMemory>(&mut self, mail: Box<Mailbox>, env: &mut Env<'_, M>) -> Step {
        let region = region_id(mail.request.args[0]).filter(|&r| env.tables.is_application(r));
        match region.filter(|&r| env.tables.region_len(r).is_some()) {
            Some(region) => {
                while let Some(ctx) = env.contexts.of_region(region) {
                    env.contexts.close(ctx);
                }
                self.begin_sweep(Sweep::UnmapRegion(region), mail)
            }
            None => self.answer(mail, status::NOT_FOUND, env.counters),
        }
    }
}

fn set_address(mail: &Mailbox, tables: &mut Tables) -> u32 {
    let mut ip = [0; 16];
    ip.copy_from_slice(&mail.request.body[..16]);
    let Some(vlan) = u16::try_from(mail.request.args[2]).ok().filter(|id| *id < VLAN_MAX) else { return status::INVALID };
    let address = OwnAddress::new(ip, vlan);
    match mail.request.args[1] {
        1 if tables.add_address(address) => status::OK,
        1 => status::NO_SPACE,
        0 if tables.remove_address(&address) => status::OK,
        0 => status::NOT_FOUND,
        _ => status::INVALID,
    }
}

fn counters(mail: &mut Mailbox, sums: &CounterSums) -> u32 {
    let from = usize::try_from(mail.request.args[0]).unwrap_or(usize::MAX).min(counters::TOTAL);
    let end = (from + COUNTERS_PER_MSG).min(counters::TOTAL);
    let mut words = [0; COUNTERS_PER_MSG];
    for (word, i) in words.iter_mut().zip(from..end) {
        *word = sums.word(i);
    }
    mail.answer.args[0] = counters::TOTAL as u64;
    mail.answer.set_counters(&words[..end - from]);
    status::OK
}

fn stages<M>(mail: &mut Mailbox, env: &Env<'_, M>) -> u32 {
    let from = usize::try_from(mail.request.args[0]).unwrap_or(usize::MAX);
    let clock_ns = (env.nanos)();
    let records = (0..STAGES_PER_MSG).map_while(|i| env.observed.instances.record(from.checked_add(i)?, clock_ns));
    for (i, record) in records.enumerate() {
        mail.answer.set_record(i, &record);
    }
    mail.answer.args[0] = env.observed.instances.instances() as u64;
    status::OK
}

fn set_share<M>(args: &[u64; 5], env: &Env<'_, M>) -> u32 {
    let [region, weight, kbps, ..] = *args;
    let region = region_id(region).filter(|&r| env.tables.is_application(r) && env.tables.region_len(r).is_some());
    let Some(region) = region else { return status::NOT_FOUND };
    let Some(weight) = u32::try_from(weight).ok().filter(|w| (1..=WEIGHT_MAX).contains(w)) else { return status::INVALID };
    env.observed.shares.set(region.0, weight, kbps);
    status::OK
}

fn trace(mail: &mut Mailbox, traces: &mut Traces) -> u32 {
    match mail.request.args[0] {
        trace_op::START => traces.start(),
        trace_op::STOP => traces.stop(),
        trace_op::READ => {
            let records = core::iter::from_fn(|| traces.take()).take(TRACES_PER_MSG);
            let answer = &mut mail.answer;
            answer.args[0] = records.enumerate().map(|(i, record)| u64::from(answer.set_record(i, &record))).sum();
            answer.args[1] = traces.lost();
        }
        _ => return status::INVALID,
    }
    status::OK
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
    let Some(fixed) = env.directory.fixed(flow) else { return status::NOT_FOUND };
    match context_id(ctx) {
        Some(CtxId::NONE) => status::OK,
        Some(ctx) if ctx != CtxId::CONTROL && env.contexts.region(ctx) == Some(fixed.region) => status::OK,
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
    // What is not acknowledged lies in its buffer. A FIN that is acknowledged counts as one byte more than there are.
    let unacked = s.tx.iss.wrapping_add(1).wrapping_add(s.tx.tx_head).wrapping_sub(s.tx.snd_una);
    // With its headers (of IPv4, which are the shorter) a whole segment is one packet.
    let timestamps = if s.rx.flags & flow_flags::TIMESTAMPS != 0 { tcp::TIMESTAMPS_LEN } else { 0 };
    let headers = (ipv4::HEADER_LEN + tcp::HEADER_LEN + timestamps) as u16;
    let sane = buffer(s.rx.buf, s.rx.buf_log2)
        && buffer(s.tx.buf, s.tx.buf_log2)
        && unacked.wrapping_add(1) <= (1 << s.tx.buf_log2) + 1
        && bound
        && sequence
        && env.tables.next_hop_in_range(id.next_hop)
        // RFC 7323, 2.3: a shift is at most 14.
        && s.rx.wscale <= 14
        && s.tx.wscale <= 14
        && (MIN_MSS..=u16::MAX - headers).contains(&s.rx.mss)
        && s.cc.algorithm < cc::COUNT
        && s.tx.timer <= timer::CORK
        && (tcp_state::ESTABLISHED..=tcp_state::LAST_ACK).contains(&s.rx.state)
        && toe_abi::flow::as_v4(&id.key.local_ip).is_some() == toe_abi::flow::as_v4(&id.key.remote_ip).is_some();
    if sane { status::OK } else { status::INVALID }
}
