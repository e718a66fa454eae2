//! Protocol, the order in which its messages leave, and what they do when they do.

use super::Stages;
use crate::{
    control::{FETCH_PACKET, FETCH_SUBMISSION},
    ctxq::{FETCH_DESCRIPTORS, Posting},
    dma::{FETCH, Item, Released},
    msg::{ControlOp, DmaMsg, Done, ExceptionMsg, Work, Write},
    protocol::{Env, Outcome},
};
use toe_abi::{
    FlowId,
    counters::{Counter, Drop, Exception},
    desc::ev_flags,
};
use toe_hal::{EthPort, HostMemory, Kick};

impl<P, M, K> Stages<P, M, K>
where
    M: HostMemory,
    P: EthPort<M::Slice>,
    K: Kick,
{
    /// Runs protocol on a piece of work. Needs room for two entries in the order.
    pub fn protocol(&mut self, work: Work) -> Option<DmaMsg> {
        let env = &mut Env {
            flows: &mut self.flows,
            sched: &mut self.sched,
            counters: &mut self.counters,
            mailbox: &mut self.control.mailbox,
            now: self.now,
        };
        match self.protocol.handle(work, env) {
            Outcome::Out(msg) => Some(msg),
            Outcome::Stale(m) => {
                self.exception(ExceptionMsg { frame: m.frame, reason: Exception::UnknownFlow, owned: true });
                None
            }
            Outcome::Nothing => None,
        }
    }

    /// Puts a message into the order; its payload starts on its way.
    pub fn order(&mut self, mut msg: DmaMsg) {
        let writes = core::mem::take(&mut msg.writes);
        if writes.is_empty() && self.dma.is_empty() && self.post.room() > 0 {
            // Nothing to wait for.
            return self.released(Released { item: Item::Flow(msg), fault: false });
        }
        self.dma.submit(Item::Flow(msg), &writes, None, &mut self.memory, sources!(self));
    }

    pub(super) fn submit(&mut self, posting: Posting, second: Option<Write>) {
        let Posting { item, write, bytes } = posting;
        let mut writes = heapless::Vec::<_, 2>::new();
        let _ = writes.push(write);
        if let Some(second) = second {
            let _ = writes.push(second);
        }
        self.dma.submit(item, &writes, Some(&bytes), &mut self.memory, sources!(self));
    }

    /// Learns which transfers have completed. True: some were. A control message that came may be work.
    pub fn complete(&mut self) -> (bool, Option<Work>) {
        let fetches = self.contexts.is_fetching() || self.control.is_fetching();
        let mut fetched = heapless::Vec::<_, 4>::new();
        let any = self.dma.poll(fetches, &mut self.memory, sources!(self), |cookie, result| {
            let _ = fetched.push((cookie, result));
        });
        let mut work = None;
        for (cookie, result) in fetched {
            debug_assert!(cookie & FETCH != 0);
            match cookie {
                FETCH_DESCRIPTORS => self.contexts.fetched(result, &mut self.memory, &mut self.counters),
                FETCH_PACKET => self.control.packet_fetched(result, control_env!(self)),
                FETCH_SUBMISSION => {
                    let step = self.control.fetched(result, control_env!(self));
                    work = self.step(step).1;
                }
                _ => {}
            }
        }
        (any, work)
    }

    /// Lets the oldest entry out of the order, if it is complete and there is room for what it sends.
    pub fn release(&mut self) -> bool {
        if self.post.room() == 0 {
            return false;
        }
        let released = self.dma.release();
        let any = released.is_some();
        if let Some(released) = released {
            self.released(released);
        }
        any
    }

    pub(super) fn released(&mut self, Released { item, fault }: Released) {
        match item {
            Item::Flow(msg) => self.flow_released(msg, fault),
            Item::Exception { msg, tail, epoch } => {
                if let Some(msg) = msg {
                    self.exception_released(&msg, fault);
                }
                self.control.publish_exception(tail, epoch, fault, control_env!(self));
            }
            Item::Event { ctx, opened, phase_at, phase, flow, last } => {
                let (memory, counters) = (&self.memory, &mut self.counters);
                self.contexts.publish(ctx, opened, (phase_at, phase), (flow, last), fault, memory, counters);
            }
            Item::Completion { phase_at, phase, epoch } => {
                self.control.publish(phase_at, phase, epoch, fault, control_env!(self));
            }
        }
    }

    fn exception_released(&mut self, msg: &ExceptionMsg, fault: bool) {
        if msg.owned && fault {
            self.counters.drop(Drop::DmaFault);
        } else if msg.owned {
            self.counters.count(Counter::RxExceptions);
            self.counters.exception(msg.reason);
        }
        self.give_back(msg.frame.source);
    }

    fn flow_released(&mut self, msg: DmaMsg, fault: bool) {
        let flow = msg.tag.flow;
        debug_assert_eq!((msg.tag.group, msg.tag.number), (0, self.next_released), "out of order");
        self.next_released = msg.tag.number.wrapping_add(1);
        let phase = self.flows.phase(flow);
        if let Some(frame) = msg.frame {
            match (msg.dropped, fault) {
                (true, _) => {}
                (false, true) => self.counters.drop(Drop::DmaFault),
                (false, false) => self.counters.count(Counter::RxDelivered),
            }
            self.give_back(frame.source);
        }
        if fault {
            self.poison(flow);
        }
        // Bytes of it are missing in memory: it must not acknowledge or announce them. Only its end may be told, in the
        // message that ended it.
        let last = msg.event.is_some_and(|e| e.flags & ev_flags::CLOSED != 0);
        let silent = !last && phase.is_some() && self.flows.poisoned(flow.index);
        if !silent {
            if let Some(tx) = msg.tx {
                if self.direct {
                    self.post.send(tx, egress!(self));
                } else {
                    self.post.queue(tx);
                }
            }
            if let Some(event) = msg.event.filter(|_| phase.is_some()) {
                self.contexts.notify(&event);
            }
        }
        if let Done::Released(flow) = msg.done {
            self.free(flow);
        }
        self.control.done(msg.done, &mut self.counters);
    }

    fn poison(&mut self, flow: FlowId) {
        self.counters.count(Counter::DmaFaults);
        if self.flows.phase(flow).is_some() {
            self.flows.poison(flow.index);
            if self.poisoned.len() < self.poisoned.capacity() && !self.poisoned.contains(&flow) {
                self.poisoned.push(flow);
            }
        }
    }

    /// A flow to be reset because payload of it was lost.
    pub fn next_poisoned(&mut self) -> Option<Work> {
        self.poisoned.pop().map(|flow| Work::Control { op: ControlOp::Poisoned, flow })
    }

    /// A flow whose id means nothing from now on.
    pub(super) fn free(&mut self, flow: FlowId) {
        if self.flows.phase(flow).is_some() {
            self.contexts.forget(flow);
            self.control.forget(flow);
            self.flows.free(flow.index);
        }
    }
}
