//! Where work comes from, and where results go: one piece at a time.

use super::Stages;
use crate::{
    control::{Packet, Step},
    msg::{Source, Work},
};
use toe_abi::{
    HostSpan,
    counters::Counter,
    frames::{FrameRecord, flags},
};
use toe_hal::{DmaFault, EthPort, HostMemory, Kick, TxBusy, TxFrame, TxOffload};

impl<P, M, K> Stages<P, M, K>
where
    M: HostMemory,
    P: EthPort<M::Slice>,
    K: Kick,
{
    /// The control stage's next step. True: something was done.
    pub fn control_step(&mut self) -> (bool, Option<Work>) {
        let step = self.control.step(control_env!(self));
        self.step(step)
    }

    pub(super) fn step(&mut self, step: Step) -> (bool, Option<Work>) {
        match step {
            Step::Idle => (false, None),
            Step::Progress => (true, None),
            Step::Work(work) => (true, Some(work)),
            Step::Unmap(region) => {
                // The port may still hold slices of it.
                self.post.flush(&mut self.port);
                self.memory.unbind(region);
                self.tables.set_region(region, None);
                self.control.unmapped(&mut self.counters);
                (true, None)
            }
        }
    }

    /// Deals with the next packet of the control plane. Needs room for two entries in the order.
    pub fn packet(&mut self) -> (bool, Option<Work>) {
        match self.control.next_packet(control_env!(self)) {
            None => (false, None),
            Some(Packet::Inject(rx)) => {
                self.counters.count(Counter::RxInjected);
                (true, self.judge(rx))
            }
            Some(Packet::Transmit { header_len, rest, record }) => (self.transmit_packet(header_len, rest, &record), None),
        }
    }

    fn transmit_packet(&mut self, header_len: u32, rest: HostSpan, record: &FrameRecord) -> bool {
        let partial = record.flags & flags::NEEDS_CSUM != 0 && self.post.caps().tx_csum;
        let offload = TxOffload {
            partial_csum: partial,
            csum_start: if partial { record.csum_start } else { 0 },
            csum_offset: if partial { record.csum_offset } else { 0 },
            ..TxOffload::default()
        };
        let header = &self.control.bytes(Source::Injected)[..header_len as usize];
        let sent = match self.memory.slice(rest) {
            Ok(slice) => {
                let one = [slice];
                let payload = if rest.len > 0 { &one[..] } else { &[] };
                let frame = TxFrame { header, payload, payload_len: rest.len, offload };
                self.post.raw(&frame, &mut self.port, &mut self.counters)
            }
            // The ring lies in the control region, so only a region that is gone faults: nothing left to send.
            Err(DmaFault) => Ok(()),
        };
        if let Err(TxBusy) = sent {
            return false;
        }
        self.counters.count(Counter::TxControlFrames);
        // Its place in the ring is about to be given back.
        self.post.flush(&mut self.port);
        self.control.packet_done(control_env!(self));
        true
    }

    /// Looks at the next polled context. True: descriptors were found.
    pub fn visit(&mut self) -> bool {
        self.contexts.visit(self.now, &mut self.memory, &mut self.counters)
    }

    /// The next descriptor of the batch that was found.
    pub fn host_work(&mut self) -> Option<Work> {
        self.contexts.next_work(&self.memory, &mut self.counters).map(Work::Host)
    }

    /// The next timer that has expired.
    pub fn timer_work(&mut self) -> Option<Work> {
        self.sched.timers.expire(self.now.micros() / 1000).map(|flow| Work::Timer { flow })
    }

    /// The next flow whose turn it is to send. Not while the port is busy.
    pub fn send_work(&mut self) -> Option<Work> {
        if !self.post.is_empty() {
            return None;
        }
        self.sched.next(self.now).map(|flow| Work::Send { flow })
    }

    /// Sends what waits for the port. True: something went.
    pub fn drain(&mut self) -> bool {
        !self.post.is_empty() && self.post.drain(egress!(self))
    }

    pub fn flush(&mut self) {
        self.post.flush(&mut self.port);
    }

    /// Posts the next event that has room. Needs room for an entry in the order.
    pub fn event(&mut self) -> bool {
        let posting = self.contexts.next_event(self.now, &self.memory, &mut self.counters);
        let any = posting.is_some();
        if let Some(posting) = posting {
            self.submit(posting, None);
        }
        any
    }

    /// Posts the next control completion. Needs room for an entry in the order.
    pub fn completion(&mut self) -> bool {
        while let Some(flow) = self.contexts.next_settled() {
            self.control.ended(flow);
        }
        while let Some(flow) = self.control.next_consumed(&self.memory) {
            self.free(flow);
        }
        let posting = self.control.next_completion(control_env!(self));
        let any = posting.is_some();
        if let Some(posting) = posting {
            self.submit(posting, None);
        }
        any
    }

    pub fn interrupt(&mut self) {
        self.contexts.interrupt(&self.memory, &mut self.kick, &mut self.counters);
    }

    /// Parks contexts that have been idle for a while.
    pub fn park_idle(&mut self) {
        self.contexts.retry_all(self.now);
        self.contexts.park_idle(self.now, &self.memory, &mut self.counters);
        if !self.control.is_busy() {
            let control = &self.control;
            let look = |memory: &M| control.any_packet(memory);
            self.contexts.park_control(self.now, &self.memory, &mut self.counters, look);
        }
    }
}
