//! Protocol of one flow group with its links, and the order in which received frames reach it.

use super::{
    super::{
        actor::{Actor, Gauges, Step},
        links::{In, Ins},
        messages::{Back, Judged},
        trace,
    },
    Route,
};
use crate::{
    msg::{ControlOp, HcMsg, OutMsg, RxMsg, Work},
    pool::Class,
    protocol::Protocol,
    train::Train,
};
use alloc::{boxed::Box, collections::VecDeque};
use toe_abi::{
    FlowId,
    observe::{TraceRecord, trace_kind},
};
use toe_hal::{Instant, Order};
use toe_sync::{crew::CoreSet, progress::Teller, sequencer::Reorder};

/// Received frames, put in order.
pub struct RxOrder {
    pub judged: Ins<Judged>,
    order: Reorder<Option<RxMsg>>,
    /// With the rule left out: as they come.
    unordered: VecDeque<Option<RxMsg>>,
    rule: Order,
    told: Teller,
    /// What `told` was told last.
    passed: u32,
    /// The core to be told.
    ingress: usize,
}

impl RxOrder {
    pub fn new(judged: Ins<Judged>, window: u32, rule: Order, told: Teller, ingress: usize) -> Self {
        let order = Reorder::new(window);
        Self { judged, order, unordered: VecDeque::new(), rule, told, passed: 0, ingress }
    }

    /// Takes in what pre has found.
    fn fill(&mut self) {
        while let Some(Judged { number, msg }) = self.judged.next() {
            let put = if self.rule.rx {
                self.order.put(number, msg).is_ok()
            } else {
                self.unordered.push_back(msg);
                self.order.skip(number).is_ok()
            };
            debug_assert!(put, "number {number} came twice, or without credit");
        }
    }

    /// The number of the frame that came last from [`next`](Self::next).
    fn number(&self) -> u32 {
        self.order.released().wrapping_sub(1)
    }

    /// The next frame of the group; nulls are passed over.
    fn next(&mut self) -> Option<RxMsg> {
        if !self.rule.rx {
            let _ = self.order.release();
            return self.unordered.pop_front()?;
        }
        loop {
            if let Some(msg) = self.order.release()? {
                return Some(msg);
            }
        }
    }

    /// The next frame, if it is there and `wanted`. A null before it is not passed over.
    fn next_if(&mut self, wanted: impl FnOnce(&RxMsg) -> bool) -> Option<RxMsg> {
        let next = if self.rule.rx { self.order.peek() } else { self.unordered.front() };
        next?.as_ref().filter(|&rx| wanted(rx))?;
        self.next()
    }

    fn is_ready(&self) -> bool {
        self.order.is_ready() || !self.unordered.is_empty()
    }

    /// Tells ingress how far we are: that is its credit.
    fn tell(&mut self, touched: &mut CoreSet) {
        let passed = self.order.released();
        if passed != self.passed {
            self.passed = passed;
            self.told.tell(passed);
            touched.insert(self.ingress);
        }
    }
}

/// What work comes from, in order of precedence: control before ACKs before data.
const PRECEDENCE: [Class; 5] = [Class::Control, Class::Rx, Class::Urgent, Class::Host, Class::Data];

pub struct ProtocolActor {
    pub stage: Protocol,
    pub rx: RxOrder,
    /// From ctxq: control messages, and frames of the control plane.
    pub requests: In<Work>,
    pub descriptors: In<HcMsg>,
    pub back: In<Back>,
    pub route: Route,
    /// Flows that lost payload.
    pub poisoned: VecDeque<FlowId>,
    /// The class, of [`PRECEDENCE`], that handles one item before all others: precedence alone would starve the last of them for as long as
    /// the first fill all room behind.
    pub turn: usize,
}

impl ProtocolActor {
    fn take_back(&mut self) -> bool {
        let mut any = false;
        while let Some(back) = self.back.next() {
            match back {
                Back::Msg(msg) => self.stage.pool.give(msg),
                Back::Poisoned(flow) => self.poisoned.push_back(flow),
            }
            any = true;
        }
        any
    }

    /// Handles so many items of a class, as long as there are some, and credit, and room behind.
    fn run(&mut self, step: &mut Step<'_>, class: Class, most: usize) -> bool {
        let before = step.items;
        for _ in 0..most {
            if !self.stage.pool.has(class) || !self.route.is_clear() {
                break;
            }
            let Some(work) = self.next(class, step.now) else { break };
            // An injected frame comes with the requests, whose credit is as good.
            let Some(msg) = self.stage.pool.take(class) else { break };
            let begin = step.trace.begin();
            let descriptor = if let Work::Host(msg) = &work { Some(msg.flow) } else { None };
            let out = match (class, work) {
                (Class::Rx, Work::Rx(rx)) => Some(self.train(step, rx, msg)),
                (_, work) => self.stage.handle(work, msg, step.now),
            };
            if let Some(msg) = out {
                step.trace.record(begin, || self.record(class, &msg));
                self.route.send(msg);
            } else if let Some(flow) = descriptor {
                step.trace.record(begin, || trace::host(trace_kind::HC_DONE, self.stage.group(), 0, flow));
            }
            step.items += 1;
        }
        step.items > before
    }

    /// Handles a received segment, and those that may be joined to it.
    fn train(&mut self, step: &mut Step<'_>, rx: RxMsg, msg: Box<OutMsg>) -> Box<OutMsg> {
        let mut train = Train::new(rx, msg);
        let stage = &mut self.stage;
        while let Some(rx) = self.rx.next_if(|rx| rx.flow == train.flow && train.takes(&rx.segment) && stage.joins(&mut train)) {
            train.join(&rx.segment, rx.frame, rx.payload_at);
            step.items += 1;
        }
        self.stage.receive(train, step.now)
    }

    fn record(&self, class: Class, msg: &OutMsg) -> TraceRecord {
        let number = if class == Class::Rx { self.rx.number() } else { 0 };
        let port = self.stage.port(msg.tag.flow);
        TraceRecord { number, port, next: trace::next(msg), ..trace::out(trace::kind_of(class), msg) }
    }

    fn next(&mut self, class: Class, now: Instant) -> Option<Work> {
        match class {
            Class::Control => self.next_request(),
            Class::Rx => self.rx.next().map(Work::Rx),
            Class::Urgent => self.stage.next_timer(now).or_else(|| self.stage.next_urgent()),
            Class::Host => self.descriptors.next().map(Work::Host),
            Class::Data => self.stage.next_send(now),
        }
    }

    fn next_request(&mut self) -> Option<Work> {
        let poisoned = self.poisoned.pop_front().map(|flow| Work::Control { op: ControlOp::Poisoned, flow, mail: None });
        poisoned.or_else(|| self.requests.next())
    }

    /// Whether there is work of a class, and credit for it.
    fn has(&mut self, class: Class, now: Instant) -> bool {
        self.stage.pool.has(class)
            && match class {
                Class::Control => !self.poisoned.is_empty() || !self.requests.is_empty(),
                Class::Rx => self.rx.is_ready(),
                Class::Urgent => self.stage.is_urgent(now),
                Class::Host => !self.descriptors.is_empty(),
                Class::Data => self.stage.is_ready(now),
            }
    }

    /// Whose turn it is in the next step: while room behind is short, each class that has work in turn.
    fn next_turn(&mut self, now: Instant) -> usize {
        if self.route.is_clear() {
            return 0;
        }
        let (after, before) = (self.turn + 1..PRECEDENCE.len(), 0..=self.turn);
        after.chain(before).find(|&class| self.has(PRECEDENCE[class], now)).unwrap_or(0)
    }
}

impl Actor for ProtocolActor {
    fn step(&mut self, step: &mut Step<'_>) -> bool {
        let mut any = self.take_back();
        self.rx.fill();
        any |= self.run(step, PRECEDENCE[self.turn], 1);
        for class in PRECEDENCE {
            any |= self.run(step, class, step.budget);
        }
        self.turn = self.next_turn(step.now);
        self.rx.tell(&mut step.touched);
        self.rx.judged.publish();
        self.requests.publish();
        self.descriptors.publish();
        self.back.publish();
        self.route.publish(&mut step.touched);
        any
    }

    fn has_work(&mut self, now: Instant) -> bool {
        let waits = PRECEDENCE.into_iter().any(|class| self.has(class, now));
        waits || self.route.hand.is_some() || !self.back.is_empty() || !self.rx.judged.is_empty()
    }

    fn deadline(&self, _now: Instant) -> Option<Instant> {
        self.stage.next_deadline()
    }

    fn gauges(&mut self) -> Gauges {
        let queue = [self.rx.judged.depth(), self.requests.depth(), self.descriptors.depth()].into_iter().sum();
        Gauges { queue, credits: (self.stage.pool.free() as u32, self.stage.pool.size().into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::links::link, *};
    use crate::{
        msg::{Origin, RxRef},
        pipeline::links::Out,
    };
    use alloc::vec::Vec;
    use toe_hal::RxOffload;
    use toe_sync::progress::progress;
    use toe_tcp::SegmentIn;
    use toe_wire::{SackBlocks, SeqNum, TcpFlags};

    const RULES: Order = Order { rx: true, tx: true, writes: true };

    fn order() -> (Out<Judged>, RxOrder) {
        let (out, link) = link(16, 0);
        let mut judged = Ins::default();
        judged.add(link);
        (out, RxOrder::new(judged, 8, RULES, progress().0, 0))
    }

    /// A frame that names its number as its flow.
    fn frame(number: u32) -> Option<RxMsg> {
        let (seq, ack, sack) = (SeqNum(0), SeqNum(0), SackBlocks::default());
        let segment = SegmentIn {
            seq,
            ack,
            flags: TcpFlags::ACK,
            window: 0,
            urgent: 0,
            payload_len: 0,
            timestamps: None,
            sack,
            ce: false,
            segments: 1,
        };
        let frame = RxRef { origin: Origin::Injected, len: 0, offload: RxOffload::default(), tcp_at: 0 };
        Some(RxMsg { flow: FlowId { index: number, generation: 1 }, segment, frame, payload_at: 0 })
    }

    fn send(out: &mut Out<Judged>, number: u32, msg: Option<RxMsg>) {
        assert!(out.send(Judged { number, msg }).is_ok());
        out.publish(&mut CoreSet::default());
    }

    fn released(order: &mut RxOrder) -> Vec<u32> {
        order.fill();
        core::iter::from_fn(|| order.next()).map(|msg| msg.flow.index).collect()
    }

    #[test]
    fn a_frame_waits_for_all_before_it_of_which_nulls_may_be_some() {
        let (mut out, mut order) = order();
        [3, 1, 4].into_iter().for_each(|n| send(&mut out, n, frame(n)));
        assert_eq!(released(&mut order), []);
        send(&mut out, 0, None);
        assert_eq!(released(&mut order), [1]);
        send(&mut out, 2, None);
        assert_eq!(released(&mut order), [3, 4]);
    }

    #[test]
    fn only_the_very_next_frame_is_taken_if_wanted() {
        let (mut out, mut order) = order();
        [frame(0), frame(1), None, frame(3)].into_iter().zip(0..).for_each(|(msg, n)| send(&mut out, n, msg));
        order.fill();
        let mut next = |index| order.next_if(|rx| rx.flow.index == index).is_some();
        assert_eq!([next(1), next(0), next(1), next(3)], [false, true, true, false]);
        assert_eq!(released(&mut order), [3]);
    }

    /// Why pre owes a null for each number that it drops: without it all that comes later waits for ever.
    #[test]
    fn a_number_that_never_comes_stops_its_group() {
        let (mut out, mut order) = order();
        for n in (0..8).filter(|&n| n != 2) {
            send(&mut out, n, frame(n));
        }
        assert_eq!(released(&mut order), [0, 1]);
        assert!(!order.is_ready());
    }

    /// Why each number comes once: the second of a number would be taken for a later frame, or never come out.
    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "came twice")]
    fn a_number_that_comes_twice_is_an_error_of_the_program() {
        let (mut out, mut order) = order();
        send(&mut out, 1, frame(1));
        send(&mut out, 1, frame(1));
        released(&mut order);
    }
}
