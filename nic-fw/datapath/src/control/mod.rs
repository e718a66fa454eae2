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
//! Its mailbox goes along to protocol and comes back with the answer. When the control plane detaches, a request that is
//! under way is finished, but not answered.

mod notices;
mod requests;
mod rings;
mod sweep;

use crate::{
    Counters,
    counters::CounterSums,
    ctxq::{Contexts, Queue},
    flows::Directory,
    host::{Item, Observed, Posting},
    msg::{ControlOp, Done, ExceptionMsg, Work, Write},
    tables::Tables,
    transfers::FETCH,
};
use alloc::boxed::Box;
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

pub use rings::Packet;
use rings::Put;
use sweep::{Stage, Sweep};

/// Cookie of the fetch of a submission.
pub const FETCH_SUBMISSION: Cookie = FETCH | 1;
/// Cookie of the fetch of a part of a packet.
pub const FETCH_PACKET: Cookie = FETCH | 2;

/// A request that is being worked on, and its answer. Goes to protocol and comes back.
#[derive(Debug)]
pub struct Mailbox {
    pub request: ControlMsg,
    pub answer: ControlMsg,
}

impl Mailbox {
    fn new() -> Box<Self> {
        Box::new(Self { request: ControlMsg::new(0, 0), answer: ControlMsg::new(0, 0) })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    Idle,
    Fetching,
    /// Protocol has it, and the mailbox.
    Waiting,
    /// Barriers make sure that nothing older is under way: first so that the sweep sees every binding, last so that nothing
    /// touches the memory any more.
    Sweep(Sweep, Stage),
    Answer,
}

/// A flow that toed is being told has ended: its last state comes from protocol.
enum Telling {
    Nobody(Box<Mailbox>),
    Asked(FlowId),
    Ready(FlowId, Box<Mailbox>),
}

/// What the stage wants done.
#[derive(Debug)]
pub enum Step {
    Work(Work),
    /// Let [`Done::Barrier`] come back when everything that is under way now is over: in every flow group, and here.
    Barrier,
    /// Unbind the region: nobody uses it any more.
    Unmap(RegionId),
    Progress,
    Idle,
}

/// What the stage works on.
pub struct Env<'a, M> {
    pub memory: &'a mut M,
    pub contexts: &'a mut Contexts,
    pub directory: &'a mut Directory,
    pub tables: &'a mut Tables,
    pub counters: &'a mut Counters,
    pub sums: &'a CounterSums,
    pub observed: &'a mut Observed,
    /// The fine clock.
    pub nanos: &'a dyn Fn() -> u64,
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
    /// Of the request under way; `None`: protocol has it.
    mail: Option<Box<Mailbox>>,
    telling: Telling,
    /// The completion being written.
    out: Box<ControlMsg>,
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
            mail: Some(Mailbox::new()),
            telling: Telling::Nobody(Mailbox::new()),
            out: Box::new(ControlMsg::new(0, 0)),
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

    /// Whether something is under way.
    pub fn is_busy(&self) -> bool {
        self.job != Job::Idle || self.out_busy || self.packets.is_busy() || matches!(self.telling, Telling::Asked(_))
    }

    /// Whether something is under way that goes on only if this stage is run, whatever others do.
    pub fn wants_core(&self) -> bool {
        let job = match self.job {
            Job::Idle | Job::Waiting | Job::Sweep(_, Stage::FirstBarrier | Stage::LastBarrier) => false,
            Job::Fetching | Job::Answer | Job::Sweep(..) => true,
        };
        let notice = self.attached && self.notices.any_waiting() && matches!(self.telling, Telling::Nobody(_));
        job || notice || self.packets.wants_core()
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
        // What the one before was told, this one was not; nor was what it was about to be told.
        self.notices.all_again();
        self.telling = match core::mem::replace(&mut self.telling, Telling::Asked(FlowId::NONE)) {
            Telling::Ready(_, mail) => Telling::Nobody(mail),
            other => other,
        };
    }

    pub fn detach(&mut self) {
        self.attached = false;
        match self.job {
            Job::Answer => self.job = Job::Idle,
            Job::Idle => {}
            _ => self.orphan = true,
        }
    }

    /// Whether a control plane is attached, and it is still that of `epoch`.
    pub fn is_now(&self, epoch: u32) -> bool {
        self.attached && epoch == self.epoch
    }

    /// A place in the exception ring for a frame. A posting that comes with the frame fills the end of the ring: try again behind
    /// it. An error: the frame must be dropped, and why.
    pub fn exception<M: HostMemory>(
        &mut self,
        msg: ExceptionMsg,
        env: &mut Env<'_, M>,
    ) -> Result<(Posting, Option<ExceptionMsg>), (Drop, ExceptionMsg)> {
        if !self.attached {
            return Err((Drop::NoControlPlane, msg));
        }
        match self.exceptions.put(msg, self.epoch, env.memory) {
            Put::Frame(posting) => Ok((posting, None)),
            Put::Skip(posting, msg) => Ok((posting, Some(msg))),
            Put::Full(msg) => Err((Drop::ExceptionRingFull, msg)),
            Put::Insane(msg) => {
                self.broken(env);
                Err((Drop::NoControlPlane, msg))
            }
        }
    }

    /// A frame for the control plane is in its ring.
    pub fn publish_exception<M: HostMemory>(&mut self, tail: u32, epoch: u32, fault: bool, env: &mut Env<'_, M>) {
        if !self.is_now(epoch) {
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

    /// The completion being written.
    pub fn completion_bytes(&self) -> &[u8] {
        self.out.as_bytes()
    }

    /// The packet being dealt with.
    pub fn packet_bytes(&self) -> &[u8] {
        self.packets.buffer()
    }

    /// Takes the next step of the request under way, or reads the next request.
    pub fn step<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Step {
        match self.job {
            Job::Idle => self.read(env).unwrap_or_else(|DmaFault| self.broken(env)),
            Job::Sweep(sweep, stage) => self.sweep(sweep, stage, env),
            Job::Fetching | Job::Waiting | Job::Answer => Step::Idle,
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
        if !self.attached || !env.contexts.control_active() || !self.submissions.is_ready(self.sub_head, env.memory)? {
            return Ok(Step::Idle);
        }
        if self.free(env.memory)? == 0 {
            // Toed makes room without a kick.
            env.contexts.await_room(CtxId::CONTROL, false, env.now);
            return Ok(Step::Idle);
        }
        env.contexts.retry_blocked(CtxId::CONTROL);
        let Some(mail) = &mut self.mail else { return Ok(Step::Idle) };
        match env.memory.fetch(self.submissions.slot(self.sub_head), mail.request.as_mut_bytes(), FETCH_SUBMISSION)? {
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
        if let (Ok(()), Some(mail)) = (result, &mut self.mail) {
            env.memory.fetched(FETCH_SUBMISSION, mail.request.as_mut_bytes());
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
        let Some(mut mail) = self.mail.take() else { return Step::Idle };
        let Mailbox { request, answer } = &mut *mail;
        *answer = ControlMsg::new(request.kind | kind::REPLY, request.tag);
        answer.flow = request.flow;
        self.dispatch(mail, env)
    }

    /// The answer to the request in `mail` can go.
    fn answer(&mut self, mut mail: Box<Mailbox>, answer: u32, counters: &mut Counters) -> Step {
        // The end of an enumeration is no refusal.
        if answer != status::OK && mail.request.kind != kind::NEXT_FLOW {
            counters.count(Counter::ControlRefused);
        }
        mail.answer.status = answer;
        self.mail = Some(mail);
        self.job = if core::mem::take(&mut self.orphan) { Job::Idle } else { Job::Answer };
        Step::Progress
    }

    /// Something has come out of the order.
    pub fn done(&mut self, done: Done, mail: Option<Box<Mailbox>>, counters: &mut Counters) {
        match (done, mail, self.job) {
            (Done::Answer(answer), Some(mail), _) => drop(self.answer(mail, answer, counters)),
            (Done::Released(_), Some(mail), _) => drop(self.answer(mail, status::OK, counters)),
            (Done::Notice, Some(mail), _) => {
                self.telling = match core::mem::replace(&mut self.telling, Telling::Asked(FlowId::NONE)) {
                    Telling::Asked(flow) => Telling::Ready(flow, mail),
                    other => other,
                }
            }
            (Done::Barrier, _, Job::Sweep(sweep, Stage::FirstBarrier)) => self.job = Job::Sweep(sweep, Stage::Flows(0)),
            (Done::Barrier, _, Job::Sweep(sweep, Stage::LastBarrier)) => self.job = Job::Sweep(sweep, Stage::Finish),
            _ => {}
        }
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

    /// A flow that is to be told of: its protocol stage has its last state.
    pub fn next_notice(&mut self) -> Option<Work> {
        let flow = self.notices.first_waiting().filter(|_| self.attached)?;
        match core::mem::replace(&mut self.telling, Telling::Asked(flow)) {
            Telling::Nobody(mut mail) => {
                mail.answer = ControlMsg::new(kind::FLOW_CLOSED, 0);
                mail.answer.flow = flow;
                Some(Work::Control { op: ControlOp::Notice, flow, mail: Some(mail) })
            }
            other => {
                self.telling = other;
                None
            }
        }
    }

    /// The next answer or notice, if there is one, and room for it.
    pub fn next_completion<M: HostMemory>(&mut self, env: &mut Env<'_, M>) -> Option<Posting> {
        if !self.attached || self.out_busy {
            return None;
        }
        let answering = self.job == Job::Answer;
        if !answering && !matches!(self.telling, Telling::Ready(..)) {
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
        // But toed has to know a flow before it hears of its end, which an application can bring about at once.
        let installed = answering && self.mail.as_ref().is_some_and(|mail| mail.request.kind == kind::INSTALL);
        let index = self.comp_tail;
        if free > for_answer && self.notices.any_waiting() && !installed {
            self.notice(index)?;
        } else if free > 0 && answering {
            *self.out = self.mail.as_ref()?.answer;
            self.job = Job::Idle;
        } else {
            if free == 0 {
                // Toed makes room without a kick.
                env.contexts.await_room(CtxId::CONTROL, false, env.now);
            }
            return None;
        }
        self.comp_tail = index.wrapping_add(1);
        self.out_busy = true;
        let item = Item::Completion { phase_at: self.completions.phase_at(index), phase: self.completions.phase(index), epoch: self.epoch };
        let write = Write { source: 0, at: 0, len: CONTROL_MSG_LEN as u32 - 4, dst: self.completions.slot(index) };
        Some(Posting::new(item, write))
    }

    /// Makes the notice that is ready the next completion. `None`: there is none.
    fn notice(&mut self, index: u32) -> Option<()> {
        match core::mem::replace(&mut self.telling, Telling::Asked(FlowId::NONE)) {
            Telling::Ready(flow, mail) => {
                *self.out = mail.answer;
                self.telling = Telling::Nobody(mail);
                // Released meanwhile: no notice of it.
                self.notices.post(flow, index).then_some(())
            }
            other => {
                self.telling = other;
                None
            }
        }
    }

    /// A completion's words are in memory.
    pub fn publish<M: HostMemory>(&mut self, phase_at: HostAddr, phase: u32, epoch: u32, fault: bool, env: &mut Env<'_, M>) {
        self.out_busy = false;
        if !self.is_now(epoch) {
            return;
        }
        if fault || env.memory.store(phase_at, phase).is_err() {
            self.broken(env);
        } else {
            env.contexts.wake(CtxId::CONTROL);
        }
    }
}
