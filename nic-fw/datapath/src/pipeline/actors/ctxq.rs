//! The ctxq stage with its links.

use super::super::{
    actor::{Actor, Gauges, Step},
    links::{In, Ins, Out},
    trace,
};
use crate::{
    host::Host,
    msg::{ExceptionMsg, HcMsg, HostIn, OutMsg, RawFrame, Work},
};
use alloc::{boxed::Box, vec::Vec};
use toe_abi::observe::trace_kind;
use toe_hal::{Board, Instant, Lease};

pub struct CtxqActor<B: Board> {
    pub stage: Host<B>,
    pub from_egress: In<HostIn>,
    pub exceptions: Ins<ExceptionMsg>,
    /// The injected frame's, from protocol or post.
    pub injected: Ins<Box<OutMsg>>,
    /// By group.
    pub requests: Vec<Out<Work>>,
    /// By group.
    pub descriptors: Vec<Out<HcMsg>>,
    pub egress: Out<Box<OutMsg>>,
    pub raw: Out<RawFrame>,
    pub leases: Out<Lease>,
    /// Waits for room.
    pub hand: Option<(u16, HcMsg)>,
}

impl<B: Board> CtxqActor<B> {
    /// Takes what other stages say. Events and answers always; frames as there is room.
    fn take(&mut self, step: &mut Step<'_>) -> usize {
        let (mut n, budget) = (0, step.budget);
        while n < budget
            && let Some(what) = self.from_egress.next()
        {
            let begin = step.trace.begin();
            let event = if let HostIn::Event(event) = &what { Some((event.flow, event.number)) } else { None };
            self.stage.take(what);
            if let Some((flow, number)) = event {
                step.trace.record(begin, || trace::host(trace_kind::EVENT, self.stage.groups().of(flow), number, flow));
            }
            n += 1;
        }
        while n < 2 * budget
            && self.stage.has_room()
            && let Some(msg) = self.exceptions.next()
        {
            self.stage.exception(msg);
            n += 1;
        }
        while let Some(msg) = self.injected.next() {
            self.stage.inject(msg);
            n += 1;
        }
        n
    }

    fn requests(&mut self, budget: usize) -> bool {
        let mut any = false;
        for _ in 0..budget {
            let did = self.stage.control_step() | (self.stage.has_room() && self.stage.packet());
            if !(did | self.hand_on()) {
                break;
            }
            any = true;
        }
        any
    }

    /// Hands on what the stage has for others.
    fn hand_on(&mut self) -> bool {
        let mut any = false;
        while let Some((group, work)) = self.stage.next_work() {
            if let Err(work) = self.requests[usize::from(group)].send(work) {
                self.stage.unget_work(group, work);
                break;
            }
            any = true;
        }
        if self.raw.has_room()
            && let Some(raw) = self.stage.next_raw()
        {
            any |= self.raw.send(raw).is_ok();
        }
        while self.leases.has_room()
            && let Some(lease) = self.stage.next_lease()
        {
            any |= self.leases.send(lease).is_ok();
        }
        if self.egress.has_room()
            && let Some(msg) = self.stage.next_injected()
        {
            any |= self.egress.send(msg).is_ok();
        }
        any
    }

    fn descriptors(&mut self, step: &mut Step<'_>) -> usize {
        let mut n = 0;
        for _ in 0..self.stage.round().max(1) {
            n += self.staged_descriptors(step);
            if n >= step.budget {
                break;
            }
            self.stage.visit();
            n += self.staged_descriptors(step);
        }
        n
    }

    fn staged_descriptors(&mut self, step: &mut Step<'_>) -> usize {
        let mut n = 0;
        while n < step.budget {
            let begin = step.trace.begin();
            let Some((group, msg)) = self.hand.take().or_else(|| self.stage.next_descriptor()) else { break };
            if let Err(msg) = self.descriptors[usize::from(group)].send(msg) {
                self.hand = Some((group, msg));
                break;
            }
            step.trace.record(begin, || trace::host(trace_kind::HC, group, 0, msg.flow));
            n += 1;
        }
        n
    }

    /// Events and completions; what is written becomes true.
    fn tell(&mut self, budget: usize) -> bool {
        let mut any = false;
        for _ in 0..budget {
            let did = self.stage.release() | self.stage.event() | self.stage.completion();
            if !(did | self.hand_on()) {
                break;
            }
            any = true;
        }
        any
    }
}

impl<B: Board> Actor for CtxqActor<B> {
    fn step(&mut self, step: &mut Step<'_>) -> bool {
        self.stage.at(step.now);
        let mut any = self.stage.complete();
        let taken = self.take(step);
        any |= self.requests(step.budget);
        let found = self.descriptors(step);
        any |= self.tell(2 * step.budget);
        self.stage.interrupt();
        self.stage.park_idle();
        self.from_egress.publish();
        self.exceptions.publish();
        self.injected.publish();
        self.requests.iter_mut().for_each(|out| out.publish(&mut step.touched));
        self.descriptors.iter_mut().for_each(|out| out.publish(&mut step.touched));
        self.egress.publish(&mut step.touched);
        self.raw.publish(&mut step.touched);
        self.leases.publish(&mut step.touched);
        step.items += (taken + found) as u64;
        any | (taken + found > 0)
    }

    /// Parks the contexts as well: the host is the one sender whose rings are not ours.
    fn has_work(&mut self, now: Instant) -> bool {
        self.hand.is_some()
            || self.stage.is_busy()
            || !self.from_egress.is_empty()
            || !self.injected.is_empty()
            || !self.exceptions.is_empty()
            || !self.stage.park(now)
    }

    fn deadline(&self, _now: Instant) -> Option<Instant> {
        self.stage.next_deadline()
    }

    fn gauges(&mut self) -> Gauges {
        let queue = [self.from_egress.depth(), self.exceptions.depth()].into_iter().sum();
        Gauges { queue, credits: self.stage.credits() }
    }
}
