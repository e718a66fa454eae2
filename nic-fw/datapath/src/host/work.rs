//! Where the stage's work comes from, one piece at a time.

use super::{Host, env};
use crate::{
    control::{FETCH_PACKET, FETCH_SUBMISSION, Packet, Step},
    ctxq::FETCH_DESCRIPTORS,
    msg::{ControlOp, HcMsg, HostOp, RAW_HEADER, Raw, RawFrame, RxRef, Work},
    pre::Verdict,
    transfers::FETCH,
};
use toe_abi::{
    CtxId, FlowId, HostSpan,
    counters::Counter,
    frames::{FrameRecord, flags},
};
use toe_hal::{Board, HostMemory, Instant, TxOffload};

impl<B: Board> Host<B> {
    /// Time goes on.
    pub fn at(&mut self, now: Instant) {
        self.now = now;
    }

    /// Learns which transfers have completed. True: some were.
    pub fn complete(&mut self) -> bool {
        let fetches = self.contexts.is_fetching() || self.control.is_fetching();
        let mut fetched = heapless::Vec::<_, 4>::new();
        let any = self.postings.poll(fetches, &mut self.memory, &self.frames, &self.control, |cookie, result| {
            let _ = fetched.push((cookie, result));
        });
        for (cookie, result) in fetched {
            debug_assert!(cookie & FETCH != 0);
            match cookie {
                FETCH_DESCRIPTORS => self.contexts.fetched(result, &mut self.memory, &mut self.counters),
                FETCH_PACKET => self.control.packet_fetched(result, env!(self)),
                FETCH_SUBMISSION => {
                    let step = self.control.fetched(result, env!(self));
                    self.step(step);
                }
                _ => {}
            }
        }
        any
    }

    /// The next step of the request under way, or the next request. Not while work waits. True: something was done.
    pub fn control_step(&mut self) -> bool {
        // First: the request may be for the place of a flow whose notice has been read.
        self.free_consumed();
        if !self.work.is_empty() {
            return false;
        }
        let step = self.control.step(env!(self));
        self.step(step)
    }

    fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Idle => return false,
            Step::Progress => {}
            Step::Work(work) => self.push(work),
            Step::Barrier => {
                let groups = self.directory.groups();
                self.unfenced = groups.count();
                self.barriers = 2 * u32::from(groups.count());
                self.work.extend(groups.all().map(|g| (g, Work::Control { op: ControlOp::Barrier, flow: FlowId::NONE, mail: None })));
            }
            Step::Unmap(region) => {
                self.memory.unbind(region);
                self.tables.set_region(region, None);
                self.observed.shares.reset(region.0);
                self.control.swept(&mut self.counters);
            }
        }
        true
    }

    fn push(&mut self, work: Work) {
        let flow = match &work {
            Work::Rx(msg) => msg.flow,
            Work::Host(msg) => msg.flow,
            Work::Control { flow, .. } | Work::Send { flow } | Work::Timer { flow } => *flow,
        };
        self.work.push_back((self.directory.groups().of(flow), work));
    }

    /// Deals with the next packet of the control plane. Not while work or a frame waits. Needs [`has_room`](Self::has_room).
    pub fn packet(&mut self) -> bool {
        if !self.work.is_empty() || self.raw.is_some() {
            return false;
        }
        match self.control.next_packet(env!(self)) {
            None => return false,
            Some(Packet::Inject(rx)) => {
                self.counters.count(Counter::RxInjected);
                self.judge(rx);
            }
            Some(Packet::Transmit { header_len, rest, record }) => self.raw = Some(self.transmit(header_len, rest, &record)),
        }
        true
    }

    /// As pre does with what comes from the wire.
    fn judge(&mut self, rx: RxRef) {
        let bytes = self.control.packet_bytes();
        let finding = self.pre.look(bytes.get(..rx.len as usize).unwrap_or(bytes), rx.offload, None);
        match self.pre.decide(rx, finding) {
            Verdict::Flow(msg) => self.push(Work::Rx(msg)),
            Verdict::Drop(frame) => self.give_back(frame),
            // Nobody asked it from the wire.
            Verdict::Exception(msg) | Verdict::Answer(_, msg) => {
                self.exception(crate::msg::ExceptionMsg { owned: true, ..msg });
            }
        }
    }

    fn transmit(&self, header_len: u32, rest: HostSpan, record: &FrameRecord) -> RawFrame {
        let partial = record.flags & flags::NEEDS_CSUM != 0 && self.tx_csum;
        let offload = TxOffload {
            partial_csum: partial,
            csum_start: if partial { record.csum_start } else { 0 },
            csum_offset: if partial { record.csum_offset } else { 0 },
            ..TxOffload::default()
        };
        let mut bytes = [0; RAW_HEADER];
        let len = (header_len as usize).min(RAW_HEADER);
        bytes[..len].copy_from_slice(&self.control.packet_bytes()[..len]);
        RawFrame { bytes, len: len as u32, rest, offload, kind: Raw::Control }
    }

    /// Looks at the next polled context. True: descriptors were found.
    pub fn visit(&mut self) -> bool {
        self.contexts.visit(self.now, &mut self.memory, &mut self.counters)
    }

    /// Contexts in a whole round of [`visit`](Self::visit).
    pub fn round(&self) -> usize {
        self.contexts.round()
    }

    /// The next descriptor of the batch that was found, and the group of its flow.
    pub fn next_descriptor(&mut self) -> Option<(u16, HcMsg)> {
        if let Some(group) = self.unfenced.checked_sub(1) {
            self.unfenced = group;
            return Some((group, HcMsg::BARRIER));
        }
        let msg = self.contexts.next_work(&self.memory, &mut self.counters)?;
        if let HostOp::Options(options) = msg.op {
            self.directory.mark(msg.flow, msg.region, &options);
        }
        Some((self.directory.groups().of(msg.flow), msg))
    }

    /// Posts the next event that has room. Needs room for a posting.
    pub fn event(&mut self) -> bool {
        if self.postings.room() == 0 {
            return false;
        }
        let posting = self.contexts.next_event(self.now, &self.memory, &mut self.counters);
        let any = posting.is_some();
        posting.into_iter().for_each(|posting| self.submit(posting));
        any
    }

    /// Posts the next control completion, and asks for what the next notice is to say.
    pub fn completion(&mut self) -> bool {
        while let Some(flow) = self.contexts.next_settled() {
            self.control.ended(flow);
        }
        self.free_consumed();
        if self.work.is_empty()
            && let Some(work) = self.control.next_notice()
        {
            self.push(work);
            return true;
        }
        if self.postings.room() == 0 {
            return false;
        }
        let posting = self.control.next_completion(env!(self));
        let any = posting.is_some();
        posting.into_iter().for_each(|posting| self.submit(posting));
        any
    }

    /// Flows whose notice toed has read.
    fn free_consumed(&mut self) {
        while self.work.is_empty()
            && let Some(flow) = self.control.next_consumed(&self.memory)
        {
            if self.free(flow) {
                self.push(Work::Control { op: ControlOp::Forget, flow, mail: None });
            }
        }
    }

    pub fn interrupt(&mut self) {
        self.contexts.interrupt(&self.memory, &mut self.kick, &mut self.counters);
    }

    /// Parks contexts that have been idle for a while.
    pub fn park_idle(&mut self) {
        self.contexts.retry_all(self.now, &self.memory, &mut self.counters);
        self.contexts.park_idle(self.now, &self.memory, &mut self.counters);
        if !self.control.is_busy() {
            let control = &self.control;
            let look = |memory: &B::Memory| control.any_packet(memory);
            self.contexts.park_control(self.now, &self.memory, &mut self.counters, look);
        }
    }

    /// The host has kicked this context.
    pub fn kicked(&mut self, ctx: CtxId) {
        self.contexts.kicked(ctx, self.now, &self.memory, &mut self.counters);
    }
}
