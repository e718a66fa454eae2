//! The pipelined composition on threads of the system: cores really run at the same time, really sleep, and are held up at random.
//!
//! ```text
//!   poll: a thread for each core ──► each runs and sleeps as on a board ──► all asleep, or time is up ──► cores come back
//! ```
//!
//! Between polls all cores are here, so a test can look at the card and at what is around it. What a core had in hand stays there, and who
//! slept sleeps on.

use super::{Bench, Fakes, Kind, caps};
use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant as WallClock},
};
use toe_abi::{CtxId, observe::stage};
use toe_datapath::{CardConfig, Composition, Core, CounterSums, Interleaving, Pipeline, host::Host};
use toe_hal::{
    Instant, Parts, PortCaps, RxPort,
    fake::{Chance, FakeBoard},
};

/// How long the cores run before they come back, if they do not come to rest and each has had some rounds.
const SHIFT: Duration = Duration::from_millis(2);
const ROUNDS: u32 = 20;
/// A core that does not get so far in this time hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Rounds without work before a core sleeps.
const IDLE_ROUNDS: u32 = 3;

/// See [`Kind`].
pub struct Threads(pub Interleaving);

impl Kind for Threads {
    type Card = ThreadedCard<FakeBoard>;

    fn bench_with(&self, config: CardConfig, caps: PortCaps) -> Bench<Self::Card> {
        Bench::new(self.0.seed, caps, |parts| ThreadedCard::new(config, &self.0, parts))
    }
}

/// On threads over a board of one's own.
pub fn threads_over<B: Fakes>(interleaving: &Interleaving) -> Bench<ThreadedCard<B>>
where
    Core<B>: Send,
{
    Bench::new(interleaving.seed, caps(), |parts| ThreadedCard::new(super::config(), interleaving, parts))
}

pub struct ThreadedCard<B: Fakes> {
    pipeline: Pipeline<B>,
    asleep: Vec<bool>,
    chance: Chance,
    sums: CounterSums,
    ingress: usize,
    ctxq: usize,
}

/// Who sleeps while cores run.
struct Shift {
    beds: Mutex<Beds>,
    bells: Vec<Condvar>,
    /// How often each has run.
    rounds: Vec<AtomicU32>,
    over: AtomicBool,
}

struct Beds {
    asleep: Vec<bool>,
    /// Woken while it did not sleep yet.
    woken: Vec<bool>,
}

impl Shift {
    fn new(asleep: Vec<bool>) -> Self {
        let cores = asleep.len();
        let bells = (0..cores).map(|_| Condvar::new()).collect();
        let rounds = (0..cores).map(|_| AtomicU32::new(0)).collect();
        Self { beds: Mutex::new(Beds { asleep, woken: vec![false; cores] }), bells, rounds, over: AtomicBool::new(false) }
    }

    fn beds(&self) -> MutexGuard<'_, Beds> {
        self.beds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether each has had its rounds, or sleeps: the system may be busy with other things for as long as it likes.
    fn is_fair(&self) -> bool {
        let beds = self.beds();
        beds.asleep.iter().zip(&self.rounds).all(|(asleep, rounds)| *asleep || rounds.load(Ordering::Relaxed) >= ROUNDS)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        // Under the lock: who looks at `over` before it waits does so with the lock held.
        let _beds = self.beds();
        self.bells.iter().for_each(Condvar::notify_all);
    }

    fn wake(&self, core: usize) {
        let mut beds = self.beds();
        if std::mem::replace(&mut beds.asleep[core], false) {
            self.bells[core].notify_all();
        } else {
            beds.woken[core] = true;
        }
    }

    /// A core that has parked falls asleep, unless it was woken meanwhile. The last one to do so ends the shift.
    fn fall_asleep(&self, core: usize) {
        let mut beds = self.beds();
        beds.asleep[core] = !std::mem::take(&mut beds.woken[core]);
        if beds.asleep.iter().all(|&a| a) {
            drop(beds);
            self.end();
        }
    }

    /// Sleeps until woken, which is true, or until the shift is over.
    fn sleep(&self, core: usize) -> bool {
        let mut beds = self.beds();
        while beds.asleep[core] && !self.is_over() {
            beds = self.bells[core].wait(beds).unwrap_or_else(PoisonError::into_inner);
        }
        !beds.asleep[core]
    }
}

/// Holds a core up before a step, now and then.
fn dawdle(chance: &mut Chance) {
    match chance.below(40) {
        0 => thread::sleep(Duration::from_micros(chance.below(100))),
        1..4 => thread::yield_now(),
        4..8 => (0..chance.below(2000)).for_each(|_| std::hint::spin_loop()),
        _ => {}
    }
}

/// How a core comes back.
struct Worked {
    any: bool,
    parked: bool,
}

/// Runs a core until the shift is over.
fn work<B: Fakes>(core: &mut Core<B>, mut parked: bool, shift: &Shift, now: Instant, mut chance: Chance) -> Worked {
    let (mut any, mut idle) = (false, 0);
    while !shift.is_over() {
        if parked {
            if !shift.sleep(core.index()) {
                break;
            }
            core.awake();
        }
        let polled = core.poll_with(now, |_| dawdle(&mut chance));
        polled.wake.iter().for_each(|other| shift.wake(other));
        any |= polled.any;
        shift.rounds[core.index()].fetch_add(1, Ordering::Relaxed);
        idle = if polled.any { 0 } else { idle + 1 };
        parked = idle >= IDLE_ROUNDS && core.park(now);
        if parked {
            shift.fall_asleep(core.index());
        } else if idle > 0 {
            // It waits for room, or for memory: let others run.
            thread::yield_now();
        }
    }
    Worked { any, parked }
}

impl<B: Fakes> ThreadedCard<B>
where
    Core<B>: Send,
{
    pub fn new(config: CardConfig, interleaving: &Interleaving, parts: Parts<B>) -> Self {
        let mut pipeline = Pipeline::new(&interleaving.config(config), &interleaving.placement, parts);
        let sums = pipeline.host().sums().clone();
        let core_of = |wanted| pipeline.cores.iter().position(|c| c.stages().any(|id| id.stage == wanted)).unwrap();
        let (ingress, ctxq) = (core_of(stage::INGRESS), core_of(stage::CTXQ));
        Self { asleep: vec![false; pipeline.cores.len()], pipeline, chance: Chance::new(!interleaving.seed), sums, ingress, ctxq }
    }

    fn wake(&mut self, core: usize) {
        if std::mem::replace(&mut self.asleep[core], false) {
            self.pipeline.cores[core].awake();
        }
    }

    /// Lets the cores run for a while. Whether they did anything.
    fn shift(&mut self, now: Instant) -> bool {
        let shift = Shift::new(self.asleep.clone());
        let asleep = self.asleep.iter().copied();
        let worked: Vec<Worked> = thread::scope(|scope| {
            let chance = &mut self.chance;
            let cores = self.pipeline.cores.iter_mut().zip(asleep).map(|(core, asleep)| {
                let (shift, chance) = (&shift, Chance::new(chance.draw()));
                scope.spawn(move || work(core, asleep, shift, now, chance))
            });
            let cores: Vec<_> = cores.collect();
            let began = WallClock::now();
            while !shift.is_over() && (began.elapsed() < SHIFT || !shift.is_fair()) {
                assert!(began.elapsed() < PATIENCE, "a core hangs");
                thread::sleep(SHIFT / 20);
            }
            shift.end();
            cores.into_iter().map(|core| core.join().unwrap()).collect()
        });
        for (core, worked) in worked.iter().enumerate() {
            self.asleep[core] = worked.parked;
            if worked.parked && !shift.beds().asleep[core] {
                // Woken when it was too late to get up.
                self.wake(core);
            }
        }
        worked.iter().any(|w| w.any)
    }

    /// Wakes whom a board would wake by itself: for frames, and for deadlines.
    fn wake_due(&mut self, now: Instant) {
        if self.pipeline.cores[self.ingress].rx().unwrap().any() {
            self.wake(self.ingress);
        }
        for core in 0..self.asleep.len() {
            if self.pipeline.cores[core].next_deadline(now).is_some_and(|at| at <= now) {
                self.wake(core);
            }
        }
    }
}

impl<B: Fakes> Composition for ThreadedCard<B>
where
    Core<B>: Send,
{
    type Board = B;

    fn host(&mut self) -> &mut Host<B> {
        self.wake(self.ctxq);
        self.pipeline.host()
    }

    fn reset(&mut self) {
        (0..self.asleep.len()).for_each(|core| self.wake(core));
        self.pipeline.reset(Instant(0));
    }

    fn poll(&mut self, now: Instant) -> bool {
        self.wake_due(now);
        self.asleep.contains(&false) && self.shift(now)
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if self.asleep.contains(&false) {
            return Some(now);
        }
        self.pipeline.cores.iter().filter_map(|core| core.next_deadline(now)).min()
    }

    fn park(&mut self, now: Instant) -> bool {
        !self.poll(now) && !self.asleep.contains(&false)
    }

    fn kicked(&mut self, ctx: CtxId) {
        self.wake(self.ctxq);
        self.pipeline.host().kicked(ctx);
    }

    fn counters(&self) -> &CounterSums {
        &self.sums
    }
}
