//! The ctxq stage: context queues, control messages, frames of the control plane, and the directory of flows.
//!
//! ```text
//!   descriptors ──► HcMsg ────────────► protocol     Event ──► context queues ──► interrupt
//!   requests ─────► Work::Control ────► protocol     Done ───► answers, notices
//!   packets ──────► RawFrame ─────────► egress       ExceptionMsg ──► exception ring
//!             └───► pre ──► Work::Rx ─► protocol
//!                                └──── payload of an injected frame comes back to be written
//! ```
//!
//! One instance: contexts have one reader and one writer, and the directory one writer. What comes in from other stages is always taken:
//! events merge, and there is one request, one notice and one packet at a time; so nobody ever waits for this stage who it waits for.

mod board;
mod postings;
mod work;

pub use postings::{Item, Posting};

use crate::{
    CardConfig, Counters,
    control::{Control, Mailbox},
    counters::CounterSums,
    ctxq::Contexts,
    flows::{Directory, Groups},
    msg::{Done, Event, ExceptionMsg, HostIn, Origin, OutMsg, RawFrame, RxRef, Work},
    pipeline::{observe, trace::Traces},
    pre::Pre,
    tables::Tables,
};
use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use postings::{Out, Postings};
use toe_abi::{
    FlowId,
    counters::{Counter, Drop as DropReason},
    desc::ev_flags,
};
use toe_hal::{Board, Instant, Lease, PortCaps, RxPort};
use toe_sync::share::Shares;

type FramesOf<B> = <<B as Board>::Rx as RxPort>::Frames;

pub struct Host<B: Board> {
    memory: B::Memory,
    kick: B::Kick,
    frames: FramesOf<B>,
    contexts: Contexts,
    control: Control,
    directory: Directory,
    tables: Tables,
    pre: Pre,
    postings: Postings,
    counters: Counters,
    sums: CounterSums,
    observed: Observed,
    clock: B::Clock,
    now: Instant,
    /// The port finishes checksums.
    tx_csum: bool,
    /// Work that waits to be taken, each piece for the group of its flow.
    work: VecDeque<(u16, Work)>,
    /// A barrier that the control stage waits for, behind the requests and behind the descriptors of each group: how many are not back.
    barriers: u32,
    /// Groups whose descriptors it has yet to be put behind.
    unfenced: u16,
    /// All groups have passed it; now our own postings.
    own_barrier: bool,
    /// A frame to be sent.
    raw: Option<RawFrame>,
    /// Leases to be given back.
    leases: Vec<Lease>,
    /// Payload of the injected frame that has been written.
    injected: Option<Box<OutMsg>>,
}

/// The parts of a [`Host`] that come from its board.
pub struct HostParts<B: Board> {
    pub memory: B::Memory,
    pub kick: B::Kick,
    pub frames: FramesOf<B>,
    pub caps: PortCaps,
    pub clock: B::Clock,
}

/// What operators may look at, and turn.
pub struct Observed {
    /// All instances of all stages.
    pub instances: observe::Board,
    pub traces: Traces,
    /// What applications may send.
    pub shares: Shares,
}

macro_rules! env {
    ($s:expr) => {
        &mut $crate::control::Env {
            memory: &mut $s.memory,
            contexts: &mut $s.contexts,
            directory: &mut $s.directory,
            tables: &mut $s.tables,
            counters: &mut $s.counters,
            sums: &$s.sums,
            observed: &mut $s.observed,
            nanos: &|| toe_hal::Clock::nanos(&$s.clock),
            now: $s.now,
        }
    };
}
use env;

impl<B: Board> Host<B> {
    pub fn new(
        config: &CardConfig,
        parts: HostParts<B>,
        directory: Directory,
        tables: Tables,
        mut sums: CounterSums,
        observed: Observed,
    ) -> Self {
        let HostParts { memory, kick, frames, caps, clock } = parts;
        let flows = directory.capacity();
        let counters = sums.stage();
        let entries = config.posting_entries;
        let pre = Pre::new(caps.mac, directory.view(), tables.addresses(), sums.stage());
        Self {
            memory,
            kick,
            frames,
            contexts: Contexts::new(config.max_contexts, flows, config.spin_us, config.visit_descriptors),
            control: Control::new(flows),
            work: VecDeque::with_capacity(usize::from(directory.groups().count()) + 4),
            directory,
            tables,
            pre,
            postings: Postings::new(entries),
            counters,
            sums,
            observed,
            clock,
            now: Instant(0),
            tx_csum: caps.tx_csum,
            barriers: 0,
            unfenced: 0,
            own_barrier: false,
            raw: None,
            leases: Vec::with_capacity(usize::from(entries) * 2 + 4),
            injected: None,
        }
    }

    pub fn sums(&self) -> &CounterSums {
        &self.sums
    }

    pub fn memory(&mut self) -> &mut B::Memory {
        &mut self.memory
    }

    /// Room for another frame from pre or egress: what it leads to are two postings at most.
    pub fn has_room(&self) -> bool {
        self.has_room_for(1)
    }

    /// The same for so many.
    pub fn has_room_for(&self, frames: usize) -> bool {
        self.postings.room() as usize >= 2 * frames && self.leases.len() + frames <= self.leases.capacity()
    }

    /// Postings that may be under way: free, and all.
    pub fn credits(&self) -> (u32, u32) {
        (self.postings.room(), self.postings.capacity())
    }

    pub fn groups(&self) -> Groups {
        self.directory.groups()
    }

    /// What another stage says. Needs [`has_room`](Self::has_room) only for exceptions.
    pub fn take(&mut self, what: HostIn) {
        match what {
            HostIn::Event(event) => self.event_in(&event),
            HostIn::Done(done, mail) => self.done(done, mail),
            HostIn::Exception(msg) => self.exception(msg),
            HostIn::Injected | HostIn::Transmitted => self.control.packet_done(env!(self)),
        }
    }

    fn event_in(&mut self, event: &Event) {
        if event.flags & ev_flags::CLOSED != 0 {
            self.directory.end(event.flow);
        }
        if self.directory.id(event.flow.index) == Some(event.flow) {
            self.contexts.notify(event);
        }
    }

    fn done(&mut self, done: Done, mail: Option<Box<Mailbox>>) {
        match done {
            Done::Released(flow) => {
                self.free(flow);
            }
            Done::Barrier => {
                self.barriers = self.barriers.saturating_sub(1);
                // What they had to say is being written here.
                self.own_barrier = self.barriers == 0;
                return;
            }
            _ => {}
        }
        self.control.done(done, mail, &mut self.counters);
    }

    /// A flow whose id means nothing from now on. False: it did not before.
    fn free(&mut self, flow: FlowId) -> bool {
        let known = self.directory.free(flow);
        if known {
            self.contexts.forget(flow);
            self.control.forget(flow);
        }
        known
    }

    /// Puts a frame into the exception ring, or drops it.
    pub fn exception(&mut self, mut msg: ExceptionMsg) {
        if !self.has_room() {
            return self.drop_exception(DropReason::ExceptionRingFull, msg);
        }
        // A second time behind filling.
        for _ in 0..2 {
            match self.control.exception(msg, env!(self)) {
                Ok((posting, None)) => return self.submit(posting),
                Ok((posting, Some(again))) => {
                    self.submit(posting);
                    msg = again;
                }
                Err((reason, msg)) => return self.drop_exception(reason, msg),
            }
        }
        self.drop_exception(DropReason::ExceptionRingFull, msg);
    }

    fn drop_exception(&mut self, reason: DropReason, msg: ExceptionMsg) {
        if msg.owned {
            self.counters.drop(reason);
        }
        self.give_back(msg.frame);
    }

    /// A frame that nobody needs any more.
    pub fn give_back(&mut self, frame: RxRef) {
        match frame.origin {
            Origin::Port(lease) => self.leases.push(lease),
            Origin::Injected => self.control.packet_done(env!(self)),
        }
    }

    fn submit(&mut self, posting: Posting) {
        self.postings.submit(posting, &mut self.memory, &self.frames, &self.control);
    }

    /// Payload of the injected frame: only this stage has its bytes.
    pub fn inject(&mut self, msg: Box<OutMsg>) {
        self.postings.inject(msg, &mut self.memory, &self.frames, &self.control);
    }

    /// The message of the injected frame, its payload written.
    pub fn next_injected(&mut self) -> Option<Box<OutMsg>> {
        self.injected.take()
    }

    /// A lease to be given back to the port.
    pub fn next_lease(&mut self) -> Option<Lease> {
        self.leases.pop()
    }

    /// A frame to be sent. Say [`HostIn::Transmitted`] when it has been flushed, or could not be sent.
    pub fn next_raw(&mut self) -> Option<RawFrame> {
        self.raw.take()
    }

    /// Whether there is one.
    pub fn has_raw(&self) -> bool {
        self.raw.is_some()
    }

    /// Puts back what could not be sent.
    pub fn unget_raw(&mut self, raw: RawFrame) {
        self.raw = Some(raw);
    }

    /// Work for a flow group.
    pub fn next_work(&mut self) -> Option<(u16, Work)> {
        self.work.pop_front()
    }

    /// Puts back what could not be handed on.
    pub fn unget_work(&mut self, group: u16, work: Work) {
        self.work.push_front((group, work));
    }

    /// Lets the oldest posting become true, if its bytes are there. True: it did.
    pub fn release(&mut self) -> bool {
        if self.own_barrier {
            self.own_barrier = !self.postings.barrier();
        }
        if self.injected.is_some() {
            return false;
        }
        match self.postings.release() {
            None => return false,
            Some(Out::Injected(msg)) => self.injected = Some(msg),
            Some(Out::Posting(item, fault)) => self.released(item, fault),
        }
        true
    }

    fn released(&mut self, item: Item, fault: bool) {
        match item {
            Item::Exception { msg, tail, epoch } => {
                if let Some(msg) = msg {
                    self.exception_released(msg, fault);
                }
                self.control.publish_exception(tail, epoch, fault, env!(self));
            }
            Item::Event { ctx, opened, phase_at, phase, flow, last } => {
                let (memory, counters) = (&self.memory, &mut self.counters);
                self.contexts.publish(ctx, opened, (phase_at, phase), (flow, last), fault, memory, counters);
            }
            Item::Completion { phase_at, phase, epoch } => self.control.publish(phase_at, phase, epoch, fault, env!(self)),
            Item::Barrier => self.control.done(Done::Barrier, None, &mut self.counters),
        }
    }

    fn exception_released(&mut self, msg: ExceptionMsg, fault: bool) {
        if msg.owned && fault {
            self.counters.drop(DropReason::DmaFault);
        } else if msg.owned {
            self.counters.count(Counter::RxExceptions);
            self.counters.exception(msg.reason);
        }
        self.give_back(msg.frame);
    }
}
