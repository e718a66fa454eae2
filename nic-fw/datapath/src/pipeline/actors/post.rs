//! Post with its links.

use super::{
    super::{
        actor::{Actor, Gauges, Step},
        links::Ins,
        trace,
    },
    Route,
};
use crate::{msg::OutMsg, post::Post};
use alloc::boxed::Box;
use toe_abi::observe::trace_kind;
use toe_hal::{HostMemory, Instant};

pub struct PostActor<M> {
    pub stage: Post<M>,
    /// By group.
    pub messages: Ins<Box<OutMsg>>,
    pub route: Route,
}

impl<M: HostMemory> Actor for PostActor<M> {
    fn step(&mut self, step: &mut Step<'_>) -> bool {
        let before = step.items;
        for _ in 0..step.budget {
            if !self.route.is_clear() {
                break;
            }
            let Some(mut msg) = self.messages.next() else { break };
            let begin = step.trace.begin();
            self.stage.build(&mut msg);
            step.trace.record(begin, || trace::out(trace_kind::OUT, &msg));
            self.route.send(msg);
            step.items += 1;
        }
        self.messages.publish();
        self.route.publish(&mut step.touched);
        step.items > before
    }

    fn has_work(&mut self, _now: Instant) -> bool {
        self.route.hand.is_some() || !self.messages.is_empty()
    }

    fn deadline(&self, _now: Instant) -> Option<Instant> {
        None
    }

    fn gauges(&mut self) -> Gauges {
        Gauges { queue: self.messages.depth(), credits: (0, 0) }
    }
}
