//! A burst from the port: each frame is looked at; adjacent segments of a flow become a train, and a train one piece of work.
//!
//! ```text
//!   frame ─► glance ─┬─ of the train's connection, and next in it ─► joins it      no look-up: whose it is, is known
//!                    └─ else: look ─► the train goes ─┬─ with payload ──► a new train
//!                                                     └─ else ──────────► goes by itself
//! ```

use super::Card;
use crate::{
    msg::{RxMsg, RxRef},
    pipeline::{StageId, trace},
    pool::Class,
    pre::{Verdict, summary},
    train::Train,
};
use toe_abi::{FlowId, counters::Counter, observe::stage};
use toe_hal::{Board, Frames, Instant, RxFrame, RxPort, port::BURST};
use toe_tcp::SegmentIn;
use toe_wire::{Segment, TcpTuple};

/// The train of a burst, and the connection that it is of.
type Open = Option<(TcpTuple, Train)>;

impl<B: Board> Card<B> {
    pub(super) fn receive(&mut self, now: Instant) -> bool {
        // What doesn't fit behind the port waits there: if frames must be lost, then before they cost anything.
        if self.protocol.pool.left(Class::Rx) < BURST || !self.host.has_room_for(BURST) {
            return false;
        }
        let mut burst = core::mem::take(&mut self.burst);
        let begin = self.begin();
        self.rx.receive(&mut burst);
        let any = !burst.is_empty();
        self.pre.counters.add(Counter::RxFrames, burst.len() as u64);
        self.pre.counters.add(Counter::RxBytes, burst.iter().map(|f| u64::from(f.len)).sum());
        let mut train = None;
        for frame in burst.drain(..) {
            self.frame(frame, begin, &mut train, now);
        }
        if let Some((_, train)) = train {
            self.go(train, now);
        }
        self.burst = burst;
        any
    }

    #[inline(always)]
    fn frame(&mut self, frame: RxFrame, burst: u64, train: &mut Open, now: Instant) {
        let (begin, offload) = (self.begin(), frame.offload);
        let glance = self.pre.glance(self.frames.frame(&frame.lease), offload);
        if let (Some(segment), Some((tuple, train))) = (glance, &mut *train)
            && segment.tuple == *tuple
        {
            let next = summary(segment, offload);
            if train.takes(&next) && self.protocol.joins(train) {
                if begin != 0 {
                    self.trace_received((burst, begin), frame.len, train.flow, &next);
                }
                train.join(&next, RxRef { tcp_at: segment.tcp_at, ..RxRef::from(frame) }, segment.payload.start);
                return;
            }
        }
        self.other(frame, glance, (burst, begin), train, now);
    }

    /// A frame that can't join the train.
    #[inline(never)]
    fn other(&mut self, frame: RxFrame, glance: Option<Segment>, times: (u64, u64), train: &mut Open, now: Instant) {
        let rx = self.look(frame, glance, times);
        if let Some((_, train)) = train.take() {
            self.go(train, now);
        }
        let Some(rx) = rx else { return };
        let Some(msg) = self.protocol.pool.take(Class::Rx) else {
            debug_assert!(false, "there is a message for each frame of a burst");
            return self.host.give_back(rx.frame);
        };
        let next = Train::new(rx, msg);
        match glance {
            Some(segment) if next.is_open() => *train = Some((segment.tuple, next)),
            _ => self.go(next, now),
        }
    }

    /// Looks at a frame by itself: a segment of a flow?
    #[inline]
    fn look(&mut self, frame: RxFrame, glance: Option<Segment>, times: (u64, u64)) -> Option<RxMsg> {
        let (offload, len) = (frame.offload, frame.len);
        let finding = match glance {
            Some(segment) => self.pre.find(segment, offload, None),
            None => self.pre.look_closely(self.frames.frame(&frame.lease), offload, None),
        };
        match self.pre.decide(RxRef::from(frame), finding) {
            Verdict::Flow(rx) => {
                if times.1 != 0 {
                    self.trace_received(times, len, rx.flow, &rx.segment);
                }
                return Some(rx);
            }
            Verdict::Drop(frame) => self.host.give_back(frame),
            Verdict::Exception(msg) => self.host.exception(msg),
            Verdict::Answer(raw, copy) => {
                if self.egress.raw(&raw).is_err() {
                    self.egress.dropped();
                }
                self.host.exception(copy);
            }
        }
        self.host_released();
        None
    }

    /// Runs protocol on a train, and what comes of it as far as it goes.
    fn go(&mut self, train: Train, now: Instant) {
        self.meter.handled(train.msg.frames.len() as u64);
        let begin = self.begin();
        let msg = self.protocol.receive(train, now);
        self.handled(begin, Class::Rx, msg);
    }

    /// Traces a segment of a flow: when its burst began, and when it was looked at.
    #[cold]
    fn trace_received(&mut self, (burst, begin): (u64, u64), len: u32, flow: FlowId, segment: &SegmentIn) {
        self.received = self.received.wrapping_add(1);
        let number = self.received;
        self.record(begin, stage::PRE, || trace::rx_segment(0, number, flow, segment));
        self.tracer.visit((burst, begin), StageId::new(stage::INGRESS, 0), || trace::rx(0, number, len));
    }
}
