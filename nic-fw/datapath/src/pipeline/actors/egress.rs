//! Egress with its links.

use super::super::{
    actor::{Actor, Gauges, Step},
    links::{In, Ins, Out},
    messages::Back,
    trace,
};
use crate::{
    egress::{Egress, EgressOut, Release},
    fused::STALLED_US,
    msg::{Event, HostIn, OutMsg, Raw, RawFrame},
};
use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use toe_abi::{
    FlowId,
    observe::{TraceRecord, trace_kind},
};
use toe_hal::{HostMemory, Instant, Lease, TxPort};

/// Longest sleep while the port holds frames back, microseconds.
const HOLDING_US: u64 = 1000;
/// What is let out of the order waits here for the flush, and for room: this many messages of it at most.
const WAITING_MAX: usize = 64;

pub struct EgressActor<T, M> {
    pub stage: Egress<T, M>,
    /// From protocol, post, DMA and ctxq.
    pub messages: Ins<Box<OutMsg>>,
    /// Answers of pre.
    pub answers: Ins<RawFrame>,
    /// Frames of the control plane: one at a time.
    pub control: In<RawFrame>,
    /// One that the port had no room for.
    pub control_hand: Option<RawFrame>,
    pub outs: EgressOuts,
    /// When to look again whether the port has room, if something waits for it.
    pub again_at: Option<Instant>,
}

/// What has been let out, on its way.
pub struct EgressOuts {
    pub host: Waiting<HostIn>,
    pub leases: Waiting<Lease>,
    /// By group.
    pub back: Vec<Waiting<Back>>,
    groups: crate::flows::Groups,
    /// What a trace says of the message that came home last, if somebody traces.
    traced: Option<TraceRecord>,
}

/// A link, and what waits for it.
pub struct Waiting<T> {
    link: Out<T>,
    items: VecDeque<T>,
}

impl<T: Send> Waiting<T> {
    pub fn new(link: Out<T>) -> Self {
        Self { link, items: VecDeque::with_capacity(4 * WAITING_MAX) }
    }

    fn drain(&mut self, step: &mut Step<'_>) -> bool {
        let mut any = false;
        while self.link.has_room()
            && let Some(item) = self.items.pop_front()
        {
            any |= self.link.send(item).is_ok();
        }
        self.link.publish(&mut step.touched);
        any
    }
}

impl EgressOuts {
    pub fn new(host: Out<HostIn>, leases: Out<Lease>, back: impl Iterator<Item = Out<Back>>, groups: crate::flows::Groups) -> Self {
        Self { host: Waiting::new(host), leases: Waiting::new(leases), back: back.map(Waiting::new).collect(), groups, traced: None }
    }

    fn drain(&mut self, step: &mut Step<'_>) -> bool {
        let mut any = self.host.drain(step) | self.leases.drain(step);
        for back in &mut self.back {
            any |= back.drain(step);
        }
        any
    }

    fn is_empty(&self) -> bool {
        self.host.items.is_empty() && self.leases.items.is_empty() && self.back.iter().all(|b| b.items.is_empty())
    }

    fn has_room(&self) -> bool {
        let full = |n: usize| n >= WAITING_MAX;
        !full(self.host.items.len()) && !full(self.leases.items.len()) && !self.back.iter().any(|b| full(b.items.len()))
    }
}

impl EgressOut for EgressOuts {
    fn host(&mut self, what: HostIn) {
        what.queue(&mut self.host.items);
    }
    fn event(&mut self, event: &Event) {
        HostIn::queue_event(event, &mut self.host.items);
    }
    fn lease(&mut self, lease: Lease) {
        self.leases.items.push_back(lease);
    }
    fn home(&mut self, msg: Box<OutMsg>) {
        if let Some(record) = &mut self.traced {
            *record = trace::out(trace_kind::OUT, &msg);
        }
        self.back[usize::from(msg.tag.group)].items.push_back(Back::Msg(msg));
    }
    fn poisoned(&mut self, flow: FlowId) {
        self.back[usize::from(self.groups.of(flow))].items.push_back(Back::Poisoned(flow));
    }
}

impl<T: TxPort<M::Slice>, M: HostMemory> EgressActor<T, M> {
    fn is_stalled(&self) -> bool {
        self.stage.is_stalled() || self.control_hand.is_some()
    }

    /// Control frames go before all others. True: some were sent.
    fn raw_frames(&mut self, budget: usize) -> bool {
        let mut any = false;
        for _ in 0..budget {
            let Some(raw) = self.control_hand.take().or_else(|| self.control.next()) else { break };
            if self.stage.raw(&raw).is_err() {
                self.control_hand = Some(raw);
                break;
            }
            debug_assert_eq!(raw.kind, Raw::Control);
            self.outs.host(HostIn::Transmitted);
            any = true;
        }
        for _ in 0..budget {
            let Some(raw) = self.answers.next() else { break };
            if self.stage.raw(&raw).is_err() {
                self.stage.dropped();
            }
            any = true;
        }
        any
    }
}

impl<T: TxPort<M::Slice>, M: HostMemory> Actor for EgressActor<T, M> {
    fn step(&mut self, step: &mut Step<'_>) -> bool {
        let before = step.items;
        let mut any = self.outs.drain(step);
        for _ in 0..step.budget {
            let Some(msg) = self.messages.next() else { break };
            self.stage.put(msg);
            step.items += 1;
        }
        any |= step.items > before;
        any |= self.outs.has_room() && self.raw_frames(step.budget);
        for _ in 0..step.budget {
            if !self.outs.has_room() {
                break;
            }
            let begin = step.trace.begin();
            self.outs.traced = (begin != 0).then(TraceRecord::default);
            if self.stage.release(&mut self.outs) != Release::Out {
                break;
            }
            self.outs.traced.take().into_iter().for_each(|record| step.trace.record(begin, || record));
            any = true;
        }
        // Frames first, then events: who is told that bytes are acknowledged may overwrite them, and the port reads them at the flush.
        self.stage.flush();
        any |= self.outs.drain(step);
        self.messages.publish();
        self.answers.publish();
        self.control.publish();
        self.again_at = self.is_stalled().then(|| step.now.add_micros(STALLED_US));
        any
    }

    /// What only waits for room at the port is no work: nobody tells of room, so it is looked for at the [`deadline`](Self::deadline).
    fn has_work(&mut self, _now: Instant) -> bool {
        !self.outs.is_empty()
            || !self.messages.is_empty()
            || !self.answers.is_empty()
            || self.again_at.is_none() && (self.stage.is_ready() || !self.control.is_empty())
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        self.again_at.or_else(|| self.stage.is_holding().then(|| now.add_micros(HOLDING_US)))
    }

    fn gauges(&mut self) -> Gauges {
        Gauges { queue: self.messages.depth(), credits: (0, 0) }
    }
}
