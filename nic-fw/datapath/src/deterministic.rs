//! The deterministic composition, for tests: the pipelined stages on one thread, interleaved by a seed: which core runs next, which of its
//! instances, and how much it does. Rings may be as small as one message, pools as one of each class.
//!
//! Cores sleep and wake as they do on a board: whoever sleeps is run again only if it is woken, its port has frames, the host kicks or its
//! deadline has come. So a lost wake-up stalls a test as it would stall the real thing.

use crate::{
    CardConfig, Composition,
    counters::CounterSums,
    host::Host,
    pipeline::{CorePlan, Pipeline, Placement, Polled},
};
use alloc::vec::Vec;
use toe_abi::{CtxId, observe::stage};
use toe_hal::{Board, Instant, Parts, RxPort};

/// How the stages are placed, how much room there is between them, and how they take turns.
#[derive(Clone, Debug)]
pub struct Interleaving {
    pub seed: u64,
    pub placement: Placement,
    /// As in [`CardConfig`].
    pub ring_entries: u32,
    pub rx_window: u16,
    pub rx_hold: u16,
    pub pool_messages: u16,
    pub dma_entries: u16,
    pub posting_entries: u16,
}

impl Interleaving {
    /// Everything from the seed: often tiny, often several replicas.
    pub fn from_seed(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let mut size = |sizes: &[u16]| sizes[chance.below(sizes.len())];
        let [pre, groups, post, dma] = core::array::from_fn(|_| size(&[1, 2, 2, 3]));
        let mut this = Self {
            seed,
            placement: Placement::spread(pre, groups, post, dma),
            ring_entries: size(&[1, 1, 2, 4, 64]).into(),
            rx_window: size(&[1, 2, 4, 16, 64]),
            rx_hold: size(&[16, 32, 64]),
            pool_messages: size(&[5, 6, 8, 16, 64]),
            dma_entries: size(&[1, 2, 8]),
            posting_entries: size(&[4, 8, 64]),
        };
        if size(&[0, 1]) == 1 {
            this.share_cores(usize::from(size(&[1, 2, 3, 4])));
        }
        this
    }

    /// A card's configuration with these sizes.
    pub fn config(&self, config: CardConfig) -> CardConfig {
        CardConfig {
            ring_entries: self.ring_entries,
            rx_window: self.rx_window,
            rx_hold: self.rx_hold,
            pool_messages: self.pool_messages,
            dma_entries: self.dma_entries,
            posting_entries: self.posting_entries,
            ..config
        }
    }

    /// Puts the instances on fewer cores.
    fn share_cores(&mut self, cores: usize) {
        let mut plans: Vec<CorePlan> = (0..cores).map(|_| CorePlan::default()).collect();
        for (i, plan) in self.placement.cores().iter().enumerate() {
            plans[i % cores].stages.extend(&plan.stages);
        }
        if let Ok(placement) = Placement::new(plans) {
            self.placement = placement;
        }
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

/// The card as cores that take turns.
pub struct DeterministicCard<B: Board> {
    pipeline: Pipeline<B>,
    awake: Vec<bool>,
    chance: Chance,
    sums: CounterSums,
    ingress: usize,
    ctxq: usize,
}

impl<B: Board> DeterministicCard<B> {
    pub fn new(config: CardConfig, interleaving: &Interleaving, parts: Parts<B>) -> Self {
        let mut pipeline = Pipeline::new(&interleaving.config(config), &interleaving.placement, parts);
        let sums = pipeline.host().sums().clone();
        let core_of = |wanted| pipeline.cores.iter().position(|c| c.stages().any(|id| id.stage == wanted)).unwrap_or(0);
        let (ingress, ctxq) = (core_of(stage::INGRESS), core_of(stage::CTXQ));
        Self { awake: pipeline.cores.iter().map(|_| true).collect(), pipeline, chance: Chance(!interleaving.seed), sums, ingress, ctxq }
    }

    fn wake(&mut self, core: usize) {
        if !core::mem::replace(&mut self.awake[core], true) {
            self.pipeline.cores[core].awake();
        }
    }

    /// Wakes whom a board would wake by itself: for frames, and for deadlines.
    fn wake_due(&mut self, now: Instant) {
        if self.pipeline.cores[self.ingress].rx().is_some_and(RxPort::any) {
            self.wake(self.ingress);
        }
        for core in 0..self.awake.len() {
            if self.pipeline.cores[core].next_deadline(now).is_some_and(|at| at <= now) {
                self.wake(core);
            }
        }
    }

    fn polled(&mut self, polled: Polled) -> bool {
        polled.wake.iter().for_each(|core| self.wake(core));
        polled.any
    }

    /// A step of some instance of some core that is awake.
    fn some_step(&mut self, now: Instant) -> bool {
        let awake = self.awake.iter().filter(|&&a| a).count();
        let pick = self.chance.below(awake);
        let Some((core, _)) = self.awake.iter().enumerate().filter(|(_, a)| **a).nth(pick) else { return false };
        let instance = self.chance.below(self.pipeline.cores[core].len());
        let budget = [1, 1, 2, 4, 32][self.chance.below(5)];
        let polled = self.pipeline.cores[core].step(instance, now, budget);
        if !polled.any && self.chance.below(4) == 0 && self.pipeline.cores[core].park(now) {
            self.awake[core] = false;
        }
        self.polled(polled)
    }

    /// A step of every instance that is awake; who finds nothing goes to sleep if it can.
    fn all_steps(&mut self, now: Instant) -> bool {
        let mut any = false;
        for core in 0..self.awake.len() {
            if !self.awake[core] {
                continue;
            }
            let polled = self.pipeline.cores[core].poll(now);
            if !polled.any && self.pipeline.cores[core].park(now) {
                self.awake[core] = false;
            }
            any |= self.polled(polled);
        }
        any
    }
}

impl<B: Board> Composition for DeterministicCard<B> {
    type Board = B;

    fn host(&mut self) -> &mut Host<B> {
        self.wake(self.ctxq);
        self.pipeline.host()
    }

    fn reset(&mut self) {
        for core in 0..self.awake.len() {
            self.wake(core);
        }
        self.pipeline.reset(Instant(0));
    }

    /// A few steps as the seed has it. False only if nobody who is awake has anything to do.
    fn poll(&mut self, now: Instant) -> bool {
        self.wake_due(now);
        let mut any = false;
        for _ in 0..1 + self.chance.below(64) {
            any |= self.some_step(now);
        }
        any || self.all_steps(now)
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if self.awake.contains(&true) {
            return Some(now);
        }
        self.pipeline.cores.iter().filter_map(|core| core.next_deadline(now)).min()
    }

    fn park(&mut self, now: Instant) -> bool {
        self.wake_due(now);
        !self.all_steps(now) && !self.awake.contains(&true)
    }

    fn kicked(&mut self, ctx: CtxId) {
        self.wake(self.ctxq);
        self.pipeline.host().kicked(ctx);
    }

    fn counters(&self) -> &CounterSums {
        &self.sums
    }
}
