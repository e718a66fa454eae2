//! The control stage: messages of the control plane, and the two frame rings.
//!
//! ```text
//!   submission ──► request ─┬─ about tables, contexts, regions ── answered here
//!                           ├─ about a flow ──► protocol ──(in order)──► answer
//!                           └─ about many flows: barrier ► each flow ► barrier ► answer
//!   ended flows (settled) ──► notices        completions: answers and notices, one being written at a time
//! ```
//!
//! One request at a time: the next one is read when the answer of the last is on its way, so an answer always has room.
//! When the control plane detaches, a request that is under way is finished, but not answered.

mod notices;
mod requests;
mod rings;

use crate::{
    Counters,
    ctxq::{Contexts, Posting, Queue},
    dma::{FETCH, Item},
    msg::{ControlOp, Done, ExceptionMsg, Source, Work, Write},
    store::FlowStore,
    tables::Tables,
};
use notices::Notices;
use rings::{Exceptions, Packets};
use toe_abi::{
    CtxId, FlowId, HostAddr, RegionId,
    context::{ContextPage, HostLine},
    control::{COMPLETIONS_OFF, CONTROL_ENTRIES, CONTROL_MSG_LEN, ControlMsg, SUBMISSIONS_OFF, kind, status},
    counters::{Counter, Drop},
};
use toe_hal::{Cookie, Dma as Transfer, DmaFault, HostMemory, Instant};
use zerocopy::IntoBytes;

pub use rings::{Packet, Put};

/// Cookie of the fetch of a submission.
pub const FETCH_SUBMISSION: Cookie = FETCH | 1;
/// Cookie of the fetch of a part of a packet.
pub const FETCH_PACKET: Cookie = FETCH | 2;

/// Flows looked at in one step of a sweep.
const SWEEP: u32 = 1024;

/// The request being worked on, and its answer.
pub struct Mailbox {
    pub request: ControlMsg,
    pub answer: ControlMsg,
}

/// A request about all flows of a context or region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sweep {
    CloseContext(CtxId),
    UnmapRegion(RegionId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    Idle,
    Fetching,
    /// Protocol has it.
    Waiting,
    /// Barriers make sure that nothing older is under way: first so that the sweep sees every binding, last so that nothing
    /// touches the memory any more.
    Sweep(Sweep, Stage),
    Answer(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Start,
    FirstBarrier,
    /// Goes on at this flow.
    Flows(u32),
    LastBarrier,
    Finish,
}

/// What the stage wants done.
#[derive(Debug)]
pub enum Step {
    Work(Work),
    /// Flush the port, then unbind; then call [`Control::unmapped`].
    Unmap(RegionId),
    Progress,
    Idle,
}

/// What the stage works on.
pub struct Env<'a, M> {
    pub memory: &'a mut M,
    pub contexts: &'a mut Contexts,
    pub flows: &'a FlowStore,
    pub tables: &'a mut Tables,
    pub counters: &'a mut Counters,
    pub now: Instant,
}

pub struct Control {
    attached: bool,
    /// Counts attachments: what was under way for an older one is not published.
    epoch: u32,
    submissions: Queue,
    completions: Queue,
    sub_head: u32,
    comp_tail: u32,
    comp_head: u32,
    job: Job,
    /// The job belongs to a control plane that has gone.
    orphan: bool,
    pub mailbox: Mailbox,
    /// The completion being written.
    out: ControlMsg,
    out_busy: bool,
    notices: Notices,
    exceptions: Exceptions,
    packets: Packets,
}

impl Control {
    pub fn new(flows: u32) -> Self {
        let queue = |off| Queue { base: HostAddr::new(RegionId::CONTROL, off), entries: CONTROL_ENTRIES, desc_len: CONTROL_MSG_LEN as u32 };
        Self {
            attached: false,
            epoch: 0,
            submissions: queue(SUBMISSIONS_OFF),
            completions: queue(COMPLETIONS_OFF),
            sub_head: 0,
            comp_tail: 0,
            comp_head: 0,
            job: Job::Idle,
            orphan: false,
            mailbox: Mailbox { request: ControlMsg::new(0, 0), answer: ControlMsg::new(0, 0) },
            out: ControlMsg::new(0, 0),
            out_busy: false,
            notices: Notices::new(flows),
            exceptions: Exceptions::default(),
            packets: Packets::default(),
        }
    }

    /// Whether the packet ring holds something.
    pub fn any_packet<M: HostMemory>(&self, memory: &M) -> bool {
        self.attached && self.packets.any(memory)
    }

    /// Whether something is under way that needs the core awake.
    pub fn is_busy(&self) -> bool {
        !matches!(self.job, Job::Idle) || self.out_busy || self.packets.is_busy()
    }

    /// Whether a fetch is under way.
    pub fn is_fetching(&self) -> bool {
        self.job == Job::Fetching || self.packets.is_fetching()
    }

    /// A control plane is there: queues and rings start empty.
    pub fn attach(&mut self) {
        self.detach();
        self.attached = true;
        self.epoch = self.epoch.wrapping_add(1);
        (self.sub_head, self.comp_tail, self.comp_head) = (0, 0, 0);
        self.exceptions = Exceptions::default();
        self.packets.restart();
        // What the one before was told, this one was not.
        self.notices.all_again();
    }

    pub fn detach(&mut self) {
        self.attached = false;
        match self.job {
            Job::Answer(_) => self.job = Job::Idle,
            Job::Idle => {}
            _ => self.orphan = true,
        }
    }

    /// A place in the exception ring for a frame. `None`: it must be dropped, and why.
    pub fn exception<M: HostMemory>(&mut self, msg: &ExceptionMsg, env: &mut Env<'_, M>) -> Result<Put, Drop> {
        if !self.attached {
            return Err(Drop::NoControlPlane);
        }
        self.exceptions.put(msg, self.epoch, env.memory).map_err(|DmaFault| {
            self.broken(env);
            Drop::NoControlPlane
        })
    }

    /// A frame for the control plane is in its ring.
    pub fn publish_exception<M: HostMemory>(&mut self, tail: u32, epoch: u32, fault: bool, env: &mut Env<'_, M>) {
        if !self.attached || epoch != self.epoch {
            return;
        }
        if fault || rings::publish_exceptions(tail, env.memory).is_err() {
            self.broken(env);
        } else {
            env.contexts.wake(CtxId::CONTROL);
        }
    }

    /// The next packet of the control plane.
    pub fn next_packet<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Option<Packet> {
        if !self.attached || !env.contexts.control_active() {
            return None;
        }
        let packet = self.packets.next(env.memory);
        packet.unwrap_or_else(|DmaFault| {
            self.broken(env);
            None
        })
    }

    /// A fetch of the packet ring has come back.
    pub fn packet_fetched<M: HostMemory>(&mut self, result: Result<(), DmaFault>, env: &mut Env<'_, M>) {
        if self.packets.fetched(result, env.memory).is_err() && self.attached {
            self.broken(env);
        }
    }

    /// The packet that [`next_packet`](Self::next_packet) gave has been dealt with.
    pub fn packet_done<M: HostMemory>(&mut self, env: &mut Env<'_, M>) {
        let done = self.packets.done(env.memory);
        env.contexts.control_busy(env.now);
        if done.is_err() && self.attached {
            self.broken(env);
        }
    }

    /// Bytes of a completion or of an injected frame.
    pub fn bytes(&self, source: Source) -> &[u8] {
        match source {
            Source::Completion => self.out.as_bytes(),
            Source::Injected => self.packets.buffer(),
            Source::Port(_) | Source::Inline => &[],
        }
    }

    /// Takes the next step of the request under way, or reads the next request.
    pub fn step<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Step {
        match self.job {
            Job::Idle => self.read(env).unwrap_or_else(|DmaFault| self.broken(env)),
            Job::Sweep(sweep, stage) => self.sweep(sweep, stage, env),
            Job::Fetching | Job::Waiting | Job::Answer(_) => Step::Idle,
        }
    }

    /// The control region faulted, or its indices make no sense: as if the control plane had gone.
    fn broken<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Step {
        env.counters.count(Counter::ContextsFailed);
        env.contexts.close(CtxId::CONTROL);
        self.detach();
        Step::Progress
    }

    fn read<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Result<Step, DmaFault> {
        if !self.attached || !env.contexts.control_active() || self.free(env.memory)? == 0 {
            return Ok(Step::Idle);
        }
        if !self.submissions.is_ready(self.sub_head, env.memory)? {
            return Ok(Step::Idle);
        }
        let bytes = self.mailbox.request.as_mut_bytes();
        match env.memory.fetch(self.submissions.slot(self.sub_head), bytes, FETCH_SUBMISSION)? {
            Transfer::Full => Ok(Step::Idle),
            Transfer::Pending => {
                self.job = Job::Fetching;
                Ok(Step::Progress)
            }
            Transfer::Done => Ok(self.begin(env)),
        }
    }

    /// The fetch of a submission has come back.
    pub fn fetched<M: HostMemory>(&mut self, result: Result<(), DmaFault>, env: &mut Env<'_, M>) -> Step {
        if self.job != Job::Fetching {
            return Step::Idle;
        }
        self.job = Job::Idle;
        if result.is_ok() {
            env.memory.fetched(FETCH_SUBMISSION, self.mailbox.request.as_mut_bytes());
        }
        match result {
            _ if core::mem::take(&mut self.orphan) => Step::Progress,
            Ok(()) => self.begin(env),
            Err(DmaFault) => self.broken(env),
        }
    }

    fn begin<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Step {
        env.counters.count(Counter::ControlMessages);
        self.sub_head = self.sub_head.wrapping_add(1);
        env.contexts.control_consumed(self.sub_head, env.now, env.memory);
        let Mailbox { request, answer } = &mut self.mailbox;
        *answer = ControlMsg::new(request.kind | kind::REPLY, request.tag);
        answer.flow = request.flow;
        self.dispatch(env)
    }

    /// The answer is ready in the mailbox.
    fn answer<M>(&mut self, answer: u32, env: &mut Env<'_, M>) -> Step {
        self.set_answer(answer, env.counters);
        Step::Progress
    }

    fn set_answer(&mut self, answer: u32, counters: &mut Counters) {
        // The end of an enumeration is no refusal.
        if answer != status::OK && self.mailbox.request.kind != kind::NEXT_FLOW {
            counters.count(Counter::ControlRefused);
        }
        self.mailbox.answer.status = answer;
        self.job = if core::mem::take(&mut self.orphan) { Job::Idle } else { Job::Answer(answer) };
    }

    /// Something of the request has come out of the order.
    pub fn done(&mut self, done: Done, counters: &mut Counters) {
        match (done, self.job) {
            (Done::Answer(answer), Job::Waiting) => self.set_answer(answer, counters),
            (Done::Released(_), Job::Waiting) => self.set_answer(status::OK, counters),
            (Done::Barrier, Job::Sweep(sweep, Stage::FirstBarrier)) => self.job = Job::Sweep(sweep, Stage::Flows(0)),
            (Done::Barrier, Job::Sweep(sweep, Stage::LastBarrier)) => self.job = Job::Sweep(sweep, Stage::Finish),
            _ => {}
        }
    }

    fn sweep<M: HostMemory>(&mut self, sweep: Sweep, stage: Stage, env: &mut Env<'_, M>) -> Step {
        let barrier = Step::Work(Work::Control { op: ControlOp::Barrier, flow: FlowId::NONE });
        match stage {
            Stage::FirstBarrier | Stage::LastBarrier => Step::Idle,
            Stage::Start => {
                self.job = Job::Sweep(sweep, Stage::FirstBarrier);
                barrier
            }
            Stage::Flows(from) if from >= env.flows.capacity() => {
                self.job = Job::Sweep(sweep, Stage::LastBarrier);
                barrier
            }
            Stage::Flows(from) => {
                let end = from.saturating_add(SWEEP);
                let found = match sweep {
                    Sweep::CloseContext(ctx) => env.flows.find_from(from, end, |id| id.ctx == ctx),
                    Sweep::UnmapRegion(region) => env.flows.find_from(from, end, |id| id.region == region),
                };
                let next = found.map_or(end, |flow| flow.index + 1);
                self.job = Job::Sweep(sweep, Stage::Flows(next));
                let op = match sweep {
                    Sweep::CloseContext(ctx) => ControlOp::Unbind { ctx },
                    Sweep::UnmapRegion(_) => ControlOp::RegionGone,
                };
                found.map_or(Step::Progress, |flow| Step::Work(Work::Control { op, flow }))
            }
            Stage::Finish => match sweep {
                Sweep::CloseContext(_) => self.answer(status::OK, env),
                Sweep::UnmapRegion(region) => Step::Unmap(region),
            },
        }
    }

    /// [`Step::Unmap`] has been carried out.
    pub fn unmapped(&mut self, counters: &mut Counters) {
        self.set_answer(status::OK, counters);
    }

    /// Completions that may be posted now.
    fn free<M: HostMemory>(&mut self, memory: &M) -> Result<u32, DmaFault> {
        let used = self.comp_tail.wrapping_sub(self.comp_head);
        if used >= CONTROL_ENTRIES / 2 || self.notices.any_posted() {
            const EV_HEAD: u64 = (core::mem::offset_of!(ContextPage, host) + core::mem::offset_of!(HostLine, ev_head)) as u64;
            let claimed = memory.load(HostAddr::new(RegionId::CONTROL, EV_HEAD))?;
            if self.comp_tail.wrapping_sub(claimed) > CONTROL_ENTRIES {
                return Err(DmaFault);
            }
            self.comp_head = claimed;
        }
        Ok(CONTROL_ENTRIES - self.comp_tail.wrapping_sub(self.comp_head))
    }

    /// A flow has ended and everybody concerned knows: tell toed.
    pub fn ended(&mut self, flow: FlowId) {
        self.notices.add(flow);
    }

    /// A flow was released: no notice of it.
    pub fn forget(&mut self, flow: FlowId) {
        self.notices.remove(flow.index);
    }

    /// A flow whose notice toed has consumed: its id is free.
    pub fn next_consumed<M: HostMemory>(&mut self, memory: &M) -> Option<FlowId> {
        if !self.attached || !self.notices.any_posted() || self.free(memory).is_err() {
            return None;
        }
        self.notices.consumed(self.comp_head)
    }

    /// The next answer or notice, if there is one, and room for it.
    pub fn next_completion<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Option<Posting> {
        if !self.attached || self.out_busy {
            return None;
        }
        let answering = matches!(self.job, Job::Answer(_));
        if !answering && !self.notices.any_waiting() {
            return None;
        }
        let free = match self.free(env.memory) {
            Ok(free) => free,
            Err(DmaFault) => {
                self.broken(env);
                return None;
            }
        };
        // Notices go first, so what an UNMAP_REGION or a sweep has ended is known when its answer comes; but the last free
        // entry is the answer's.
        let for_answer = u32::from(self.job != Job::Idle);
        let index = self.comp_tail;
        if free > for_answer
            && let Some(flow) = self.notices.post(index)
        {
            self.out = ControlMsg::new(kind::FLOW_CLOSED, 0);
            self.out.flow = flow;
            self.out.args[0] = env.flows.close_reason(flow.index).into();
            self.out.set_flow_state(env.flows.state(flow.index));
        } else if free > 0 && answering {
            self.out = self.mailbox.answer;
            self.job = Job::Idle;
        } else {
            return None;
        }
        self.comp_tail = index.wrapping_add(1);
        self.out_busy = true;
        let item = Item::Completion { phase_at: self.completions.phase_at(index), phase: self.completions.phase(index), epoch: self.epoch };
        let write = Write { source: Source::Completion, at: 0, len: CONTROL_MSG_LEN as u32 - 4, dst: self.completions.slot(index) };
        Some(Posting { item, write, bytes: [0; 8] })
    }

    /// A completion's words are in memory.
    pub fn publish<M: HostMemory>(&mut self, phase_at: HostAddr, phase: u32, epoch: u32, fault: bool, env: &mut Env<'_, M>) {
        self.out_busy = false;
        if !self.attached || epoch != self.epoch {
            return;
        }
        if fault || env.memory.store(phase_at, phase).is_err() {
            self.broken(env);
        } else {
            env.contexts.wake(CtxId::CONTROL);
        }
    }
}
