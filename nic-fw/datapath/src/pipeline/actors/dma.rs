//! DMA with its links.

use super::super::{
    actor::{Actor, Gauges, Step},
    links::{Ins, Out},
    trace,
};
use crate::{dma::Dma, msg::OutMsg};
use alloc::boxed::Box;
use toe_abi::observe::trace_kind;
use toe_hal::{Frames, HostMemory, Instant};

pub struct DmaActor<M, F> {
    pub stage: Dma<M, F>,
    /// From protocol and post.
    pub messages: Ins<Box<OutMsg>>,
    pub egress: Out<Box<OutMsg>>,
    /// Its payload is written; waits for room.
    pub hand: Option<Box<OutMsg>>,
}

impl<M: HostMemory, F: Frames> DmaActor<M, F> {
    /// Sends on what is written. False: there is no room for more.
    fn send(&mut self, msg: Option<Box<OutMsg>>) -> bool {
        if let Some(msg) = msg {
            self.hand = self.egress.send(msg).err();
        }
        self.hand.is_none()
    }

    fn completed(&mut self, step: &mut Step<'_>) -> bool {
        let mut any = self.stage.poll();
        let waiting = self.hand.take();
        any |= waiting.is_some() && self.egress.has_room();
        let mut clear = self.send(waiting);
        while clear && let Some(msg) = self.stage.completed() {
            step.trace.record(msg.begin_ns, || trace::out(trace_kind::OUT, &msg));
            clear = self.send(Some(msg));
            any = true;
        }
        any
    }
}

impl<M: HostMemory, F: Frames> Actor for DmaActor<M, F> {
    fn step(&mut self, step: &mut Step<'_>) -> bool {
        let before = step.items;
        let mut any = self.completed(step);
        for _ in 0..step.budget {
            if self.hand.is_some() || self.stage.room() == 0 {
                break;
            }
            let Some(mut msg) = self.messages.next() else { break };
            msg.begin_ns = step.trace.begin();
            let written = self.stage.submit(msg);
            if let Some(msg) = &written {
                step.trace.record(msg.begin_ns, || trace::out(trace_kind::OUT, msg));
            }
            self.send(written);
            step.items += 1;
        }
        any |= step.items > before;
        self.messages.publish();
        self.egress.publish(&mut step.touched);
        any
    }

    fn has_work(&mut self, _now: Instant) -> bool {
        self.hand.is_some() || !self.stage.is_empty() || !self.messages.is_empty()
    }

    fn deadline(&self, _now: Instant) -> Option<Instant> {
        None
    }

    fn gauges(&mut self) -> Gauges {
        Gauges { queue: self.messages.depth(), credits: (0, 0) }
    }
}
