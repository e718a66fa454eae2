//! A core: the stage instances placed on it, run by turns, and its part in sleep and wake.
//!
//! ```text
//!        ┌──────────────── something done ───────────────┐
//!        ▼                                               │
//!   poll: each instance a step ─► wake whom they wrote to┤
//!        ▲                                               │ nothing done for a while
//!        └─ awake ◄─ woken, kick, port, deadline ◄─ sleep ◄─ park: flag, fence, look again
//! ```

use super::{
    actor::{Actor, Gauges, Step},
    actors::{CtxqActor, DmaActor, EgressActor, IngressActor, PostActor, PreActor, ProtocolActor},
    observe::{self, Meter},
    placement::StageId,
    trace::Tracer,
};
use crate::host::Host;
use alloc::{boxed::Box, vec::Vec};
use toe_hal::{Board, Clock, Instant, RxPort, port::BURST};
use toe_sync::{
    crew::{CoreSet, Crew},
    epoch::Participant,
};

type FramesOf<B> = <<B as Board>::Rx as RxPort>::Frames;

/// An instance of any stage.
pub(super) enum Instance<B: Board> {
    Ingress(Box<IngressActor<B::Rx>>),
    Pre(Box<PreActor<FramesOf<B>>>),
    Protocol(Box<ProtocolActor>),
    Post(Box<PostActor<B::Memory>>),
    Dma(Box<DmaActor<B::Memory, FramesOf<B>>>),
    Egress(Box<EgressActor<B::Tx, B::Memory>>),
    Ctxq(Box<CtxqActor<B>>),
}

impl<B: Board> Instance<B> {
    fn actor(&mut self) -> &mut dyn Actor {
        match self {
            Self::Ingress(a) => &mut **a,
            Self::Pre(a) => &mut **a,
            Self::Protocol(a) => &mut **a,
            Self::Post(a) => &mut **a,
            Self::Dma(a) => &mut **a,
            Self::Egress(a) => &mut **a,
            Self::Ctxq(a) => &mut **a,
        }
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Ingress(a) => a.deadline(now),
            Self::Pre(a) => a.deadline(now),
            Self::Protocol(a) => a.deadline(now),
            Self::Post(a) => a.deadline(now),
            Self::Dma(a) => a.deadline(now),
            Self::Egress(a) => a.deadline(now),
            Self::Ctxq(a) => a.deadline(now),
        }
    }

    /// Whether something in hand waits for room at the port.
    fn is_stalled(&self) -> bool {
        matches!(self, Self::Egress(a) if a.again_at.is_some())
    }
}

/// An instance in its place.
pub(super) struct Seat<B: Board> {
    pub id: StageId,
    pub instance: Instance<B>,
    pub meter: Meter,
}

/// What came of a poll.
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "cores that are not woken sleep for ever"]
pub struct Polled {
    /// Something was done.
    pub any: bool,
    /// Cores that sleep and have work now: wake them.
    pub wake: CoreSet,
}

pub struct Core<B: Board> {
    index: usize,
    cpu: Option<u32>,
    /// Ctxq is the last, if it is here: looking whether it has work parks its contexts.
    seats: Vec<Seat<B>>,
    crew: Crew,
    participant: Participant,
    clock: B::Clock,
    tracer: Tracer,
    polls: u32,
}

/// What a core shares with others.
pub(super) struct CoreParts<B: Board> {
    pub crew: Crew,
    pub participant: Participant,
    pub clock: B::Clock,
    pub tracer: Tracer,
}

impl<B: Board> Core<B> {
    pub(super) fn new(index: usize, cpu: Option<u32>, mut seats: Vec<Seat<B>>, parts: CoreParts<B>) -> Self {
        let CoreParts { crew, mut participant, clock, tracer } = parts;
        seats.sort_by_key(|seat| matches!(seat.instance, Instance::Ctxq(_)));
        participant.online();
        Self { index, cpu, seats, crew, participant, clock, tracer, polls: 0 }
    }

    /// Its number in the placement.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The CPU that it is to be bound to.
    pub fn cpu(&self) -> Option<u32> {
        self.cpu
    }

    pub fn stages(&self) -> impl Iterator<Item = StageId> + '_ {
        self.seats.iter().map(|seat| seat.id)
    }

    /// How many instances there are here.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// The ctxq stage, if it is here.
    pub fn host(&mut self) -> Option<&mut Host<B>> {
        self.seats.iter_mut().find_map(|seat| match &mut seat.instance {
            Instance::Ctxq(a) => Some(&mut a.stage),
            _ => None,
        })
    }

    /// The receiving half of the port, if it is here.
    pub fn rx(&mut self) -> Option<&mut B::Rx> {
        self.seats.iter_mut().find_map(|seat| match &mut seat.instance {
            Instance::Ingress(a) => Some(a.stage.rx()),
            _ => None,
        })
    }

    /// The halves of the port that are here.
    pub(super) fn port(&mut self) -> (Option<&mut B::Rx>, Option<&mut B::Tx>) {
        let mut port = (None, None);
        for seat in &mut self.seats {
            match &mut seat.instance {
                Instance::Ingress(a) => port.0 = Some(a.stage.rx()),
                Instance::Egress(a) => port.1 = Some(a.stage.port()),
                _ => {}
            }
        }
        port
    }

    /// A step of each instance.
    pub fn poll(&mut self, now: Instant) -> Polled {
        self.poll_with(now, |_| ())
    }

    /// The same; `before` is called before each step.
    pub fn poll_with(&mut self, now: Instant, mut before: impl FnMut(StageId)) -> Polled {
        let mut polled = Polled::default();
        self.polls = self.polls.wrapping_add(1);
        for i in 0..self.seats.len() {
            before(self.seats[i].id);
            let Polled { any, wake } = self.step(i, now, BURST);
            polled.any |= any;
            wake.iter().for_each(|core| polled.wake.insert(core));
        }
        polled
    }

    /// A step of instance `i`, which may handle `budget` items of each kind.
    pub fn step(&mut self, i: usize, now: Instant, budget: usize) -> Polled {
        let measured = self.polls.is_multiple_of(observe::EVERY);
        let begin = if measured { self.clock.nanos() } else { 0 };
        let seat = &mut self.seats[i];
        let nanos = || self.clock.nanos();
        let trace = self.tracer.step(seat.id, &nanos);
        let mut step = Step { now, budget: budget.max(1), touched: CoreSet::default(), items: 0, trace };
        let any = seat.instance.actor().step(&mut step);
        let (mut touched, items) = (step.touched, step.items);
        seat.meter.handled(items);
        if measured {
            let busy = if any { self.clock.nanos().saturating_sub(begin) } else { 0 };
            seat.meter.measured(busy * u64::from(observe::EVERY), seat.instance.actor().gauges());
        }
        // It holds nothing that it has found in a shared table.
        self.participant.quiet();
        touched.remove(self.index);
        Polled { any, wake: self.crew.must_wake(touched) }
    }

    /// When to poll next even if nobody wakes the core.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.seats.iter().filter_map(|seat| seat.instance.deadline(now)).min()
    }

    /// Gets ready to sleep, and looks again. True: nothing was found, so the core may sleep until it is woken, or for the port or
    /// a kick if it has that stage, or for its deadline; then [`awake`](Self::awake).
    pub fn park(&mut self, now: Instant) -> bool {
        self.crew.prepare(self.index);
        let due = self.next_deadline(now).is_some_and(|at| at <= now);
        if due || self.seats.iter_mut().any(|seat| seat.instance.actor().has_work(now)) {
            self.crew.cancel(self.index);
            return false;
        }
        for seat in &mut self.seats {
            let Gauges { queue, credits } = seat.instance.actor().gauges();
            seat.meter.measured(0, Gauges { queue, credits });
        }
        self.participant.offline();
        true
    }

    /// The core has slept.
    pub fn awake(&mut self) {
        self.crew.cancel(self.index);
        self.participant.online();
    }

    /// Forgets the flows of the protocol stages here, and which of them lost payload.
    pub(super) fn forget_flows(&mut self) {
        for seat in &mut self.seats {
            match &mut seat.instance {
                Instance::Protocol(a) => a.stage.reset(),
                Instance::Egress(a) => a.stage.reset(),
                _ => {}
            }
        }
    }

    /// Whether an instance has something in hand or in its rings.
    pub(super) fn has_work(&mut self, now: Instant) -> bool {
        self.seats.iter_mut().any(|seat| seat.instance.actor().has_work(now) || seat.instance.is_stalled())
    }
}
