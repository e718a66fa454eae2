//! The deterministic composition, for tests: the same stages as actors on one thread, joined by queues that may be as
//! small as one message, and interleaved by a seed: which actor runs next, and how much it does.
//!
//! ```text
//!   receive, packets, control, host, timers, scheduler ──[work]──► protocol ──[out]──► order ─► release ─► post
//!                                                                                   events, completions ─┘
//! ```

use crate::{
    CardConfig, Composition, Counters,
    msg::{DmaMsg, RxRef, Source, Work},
    stages::Stages,
};
use alloc::collections::VecDeque;
use toe_abi::CtxId;
use toe_hal::{EthPort, HostMemory, Instant, Kick, RxBurst, RxFrame, port::BURST};

/// How much room there is between actors, and how they take turns.
#[derive(Clone, Copy, Debug)]
pub struct Interleaving {
    pub seed: u64,
    /// Messages between the sources of work and protocol.
    pub work: usize,
    /// Messages between protocol and the order.
    pub out: usize,
}

impl Interleaving {
    /// Queue sizes from the seed as well: often tiny.
    pub fn from_seed(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let sizes = [1, 1, 2, 3, 8, 64];
        let mut size = || sizes[chance.below(sizes.len())];
        Self { seed, work: size(), out: size() }
    }
}

/// Splitmix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % n.max(1)
    }
}

#[derive(Clone, Copy, Debug)]
enum Actor {
    Receive,
    Packets,
    Control,
    Visit,
    Host,
    Timers,
    Poisoned,
    Scheduler,
    Protocol,
    Order,
    Complete,
    Release,
    Post,
    Events,
    Completions,
    Interrupt,
    Idle,
}

const ACTORS: [Actor; 17] = [
    Actor::Receive,
    Actor::Packets,
    Actor::Control,
    Actor::Visit,
    Actor::Host,
    Actor::Timers,
    Actor::Poisoned,
    Actor::Scheduler,
    Actor::Protocol,
    Actor::Order,
    Actor::Complete,
    Actor::Release,
    Actor::Post,
    Actor::Events,
    Actor::Completions,
    Actor::Interrupt,
    Actor::Idle,
];

/// The card as actors.
pub struct DeterministicCard<P, M, K> {
    stages: Stages<P, M, K>,
    chance: Chance,
    limits: Interleaving,
    frames: VecDeque<RxFrame>,
    work: VecDeque<Work>,
    /// A request of the control plane that has just been fetched: there is one at most, and completions must never wait for
    /// room in `work`, which waits for them.
    request: Option<Work>,
    out: VecDeque<DmaMsg>,
}

impl<P, M, K> DeterministicCard<P, M, K>
where
    M: HostMemory,
    P: EthPort<M::Slice>,
    K: Kick,
{
    pub fn new(config: CardConfig, interleaving: Interleaving, port: P, memory: M, kick: K) -> Self {
        let mut stages = Stages::new(&config, port, memory, kick);
        stages.direct = false;
        Self {
            stages,
            chance: Chance(interleaving.seed),
            frames: VecDeque::with_capacity(BURST),
            work: VecDeque::with_capacity(interleaving.work),
            request: None,
            out: VecDeque::with_capacity(interleaving.out),
            limits: interleaving,
        }
    }

    fn work_has_room(&self) -> bool {
        self.work.len() < self.limits.work.max(1)
    }

    /// Room for what a frame may lead to: filling and an exception.
    fn order_has_room(&self) -> bool {
        self.stages.dma.room() >= 2
    }

    /// One step of an actor. False: it had nothing to do, or no room for what comes of it.
    fn step(&mut self, actor: Actor) -> bool {
        match actor {
            Actor::Receive => self.receive(),
            Actor::Packets => self.source(Stages::packet),
            Actor::Control => self.source(Stages::control_step),
            Actor::Complete => self.complete(),
            Actor::Visit => self.stages.visit(),
            Actor::Host => self.source(|s| with_any(s.host_work())),
            Actor::Timers => self.source(|s| with_any(s.timer_work())),
            Actor::Poisoned => self.source(|s| with_any(s.next_poisoned())),
            Actor::Scheduler => self.source(|s| with_any(s.send_work())),
            Actor::Protocol => self.protocol(),
            Actor::Order => self.order(),
            Actor::Release => self.stages.release(),
            Actor::Post => {
                let any = self.stages.drain();
                self.stages.flush();
                any
            }
            Actor::Events => {
                self.stages.flush();
                self.stages.dma.room() > 0 && self.stages.event()
            }
            Actor::Completions => {
                self.stages.flush();
                self.stages.dma.room() > 0 && self.stages.completion()
            }
            Actor::Interrupt => {
                self.stages.interrupt();
                false
            }
            Actor::Idle => {
                self.stages.park_idle();
                false
            }
        }
    }

    /// A source of work runs if there is room for a message of it.
    fn source(&mut self, next: impl FnOnce(&mut Stages<P, M, K>) -> (bool, Option<Work>)) -> bool {
        if !self.work_has_room() || !self.order_has_room() {
            return false;
        }
        let (any, work) = next(&mut self.stages);
        self.work.extend(work);
        any
    }

    fn receive(&mut self) -> bool {
        if self.frames.is_empty() {
            let mut burst = RxBurst::new();
            self.stages.receive(&mut burst);
            self.frames.extend(burst);
        }
        if self.frames.is_empty() || !self.work_has_room() || !self.order_has_room() {
            return false;
        }
        let Some(frame) = self.frames.pop_front() else { return false };
        let rx = RxRef { source: Source::Port(frame.lease), len: frame.len, offload: frame.offload, tcp_at: 0 };
        let work = self.stages.judge(rx);
        self.work.extend(work);
        true
    }

    fn protocol(&mut self) -> bool {
        if self.out.len() >= self.limits.out.max(1) || !self.order_has_room() {
            return false;
        }
        let Some(work) = self.request.take().or_else(|| self.work.pop_front()) else { return false };
        let msg = self.stages.protocol(work);
        self.out.extend(msg);
        true
    }

    fn order(&mut self) -> bool {
        if self.stages.dma.room() == 0 {
            return false;
        }
        let Some(msg) = self.out.pop_front() else { return false };
        self.stages.order(msg);
        true
    }

    fn complete(&mut self) -> bool {
        let (any, work) = self.stages.complete();
        self.request = self.request.or(work);
        any
    }

    fn is_busy(&self) -> bool {
        !(self.request.is_none() && self.frames.is_empty() && self.work.is_empty() && self.out.is_empty()) || self.stages.is_busy()
    }
}

fn with_any(work: Option<Work>) -> (bool, Option<Work>) {
    (work.is_some(), work)
}

impl<P, M, K> Composition for DeterministicCard<P, M, K>
where
    M: HostMemory,
    P: EthPort<M::Slice>,
    K: Kick,
{
    type Port = P;
    type Memory = M;

    fn attach_control(&mut self) {
        self.stages.attach_control();
    }

    fn detach_control(&mut self) {
        self.stages.detach_control();
    }

    fn reset(&mut self) {
        for frame in self.frames.drain(..) {
            self.stages.port.release(frame.lease);
        }
        self.request = None;
        for work in self.work.drain(..) {
            if let Work::Rx(msg) = work {
                self.stages.give_back(msg.frame.source);
            }
        }
        // They have their numbers: through the order with them.
        while let Some(msg) = self.out.pop_front() {
            while self.stages.dma.room() == 0 {
                self.stages.post.clear();
                self.stages.complete();
                self.stages.release();
            }
            self.stages.order(msg);
        }
        self.stages.reset();
    }

    /// A few steps of actors as the seed has it. False only if no actor has anything to do.
    fn poll(&mut self, now: Instant) -> bool {
        self.stages.now = now;
        let mut any = false;
        for _ in 0..1 + self.chance.below(64) {
            let actor = ACTORS[self.chance.below(ACTORS.len())];
            for _ in 0..1 + self.chance.below(4) {
                if !self.step(actor) {
                    break;
                }
                any = true;
            }
        }
        if !any {
            let first = self.chance.below(ACTORS.len());
            for i in 0..ACTORS.len() {
                any |= self.step(ACTORS[(first + i) % ACTORS.len()]);
            }
        }
        any
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if self.is_busy() { Some(now) } else { self.stages.next_deadline(now) }
    }

    fn park(&mut self, now: Instant) -> bool {
        self.stages.interrupt();
        !self.is_busy() && self.stages.park(now)
    }

    fn kicked(&mut self, ctx: CtxId) {
        self.stages.kicked(ctx);
    }

    fn port(&mut self) -> &mut P {
        &mut self.stages.port
    }

    fn memory(&mut self) -> &mut M {
        &mut self.stages.memory
    }

    fn counters(&self) -> &Counters {
        &self.stages.counters
    }
}
