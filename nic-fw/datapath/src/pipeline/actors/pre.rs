//! Pre with its links.

use super::super::{
    actor::{Actor, Gauges, Step},
    links::{In, Out},
    messages::Judged,
    trace,
};
use crate::{
    flows::Groups,
    ingress::Steered,
    msg::{ExceptionMsg, Origin, RawFrame, RxRef},
    pre::{Finding, Pre, Verdict},
};
use alloc::vec::Vec;
use toe_abi::{
    counters::{Drop, Exception},
    observe::TraceRecord,
};
use toe_hal::{Frames, Instant, Lease};

pub struct PreActor<F> {
    pub stage: Pre,
    pub frames: F,
    pub groups: Groups,
    pub frames_in: In<Steered>,
    /// By group.
    pub protocol: Vec<Out<Judged>>,
    pub exceptions: Out<ExceptionMsg>,
    pub answers: Out<RawFrame>,
    pub leases: Out<Lease>,
    /// Waits for room.
    pub hand: Option<Steered>,
}

impl<F: Frames> PreActor<F> {
    /// Room for whatever may come of a frame that must not be lost.
    fn has_room_for(&mut self, steered: &Steered) -> bool {
        let numbered = steered.place.is_none_or(|(group, _)| self.protocol[usize::from(group)].has_room());
        numbered && self.leases.has_room()
    }

    /// Answers with what a trace says of it.
    fn handle(&mut self, Steered { frame, place, hash }: Steered) -> Option<TraceRecord> {
        let len = frame.len;
        let mut finding = self.stage.look(self.frames.frame(&frame.lease), frame.offload, hash);
        if let Finding::Flow { flow, tcp_at, .. } = finding
            && place.map(|(group, _)| group) != Some(self.groups.of(flow))
        {
            // Never: whatever is a segment here has the same tuple there.
            debug_assert!(false, "a frame of {flow:?} came as {place:?}");
            finding = Finding::Exception(Exception::UnknownFlow, tcp_at);
        }
        let msg = match self.stage.decide(RxRef::from(frame), finding) {
            Verdict::Flow(msg) => Some(msg),
            Verdict::Drop(frame) => {
                self.give_back(frame);
                None
            }
            Verdict::Exception(msg) => {
                self.exception(msg);
                None
            }
            Verdict::Answer(raw, copy) => {
                if self.answers.send(raw).is_err() {
                    self.stage.counters.drop(Drop::NoBuffer);
                }
                self.exception(copy);
                None
            }
        };
        let (group, number) = place?;
        let record =
            msg.as_ref().map_or_else(|| trace::rx(group, number, len), |msg| trace::rx_segment(group, number, msg.flow, &msg.segment));
        let sent = self.protocol[usize::from(group)].send(Judged { number, msg });
        debug_assert!(sent.is_ok(), "there was room");
        Some(record)
    }

    /// Frames for the control plane never keep others waiting: what it has no room for is dropped.
    fn exception(&mut self, msg: ExceptionMsg) {
        if let Err(msg) = self.exceptions.send(msg) {
            if msg.owned {
                self.stage.counters.drop(Drop::ExceptionRingFull);
            }
            self.give_back(msg.frame);
        }
    }

    fn give_back(&mut self, frame: RxRef) {
        if let Origin::Port(lease) = frame.origin {
            let sent = self.leases.send(lease);
            debug_assert!(sent.is_ok(), "there was room");
        }
    }
}

impl<F: Frames> Actor for PreActor<F> {
    fn step(&mut self, step: &mut Step<'_>) -> bool {
        let before = step.items;
        for _ in 0..step.budget {
            let Some(steered) = self.hand.take().or_else(|| self.frames_in.next()) else { break };
            if !self.has_room_for(&steered) {
                self.hand = Some(steered);
                break;
            }
            let begin = step.trace.begin();
            let record = self.handle(steered);
            if let Some(record) = record {
                step.trace.record(begin, || record);
            }
            step.items += 1;
        }
        self.frames_in.publish();
        self.protocol.iter_mut().for_each(|out| out.publish(&mut step.touched));
        self.exceptions.publish(&mut step.touched);
        self.answers.publish(&mut step.touched);
        self.leases.publish(&mut step.touched);
        step.items > before
    }

    fn has_work(&mut self, _now: Instant) -> bool {
        self.hand.is_some() || !self.frames_in.is_empty()
    }

    fn deadline(&self, _now: Instant) -> Option<Instant> {
        None
    }

    fn gauges(&mut self) -> Gauges {
        Gauges { queue: self.frames_in.depth(), credits: (0, 0) }
    }
}
