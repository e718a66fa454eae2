//! Runs a rig on threads, one for each core, as a board would: rounds while there is work, a short spin, yields, then sleep.
//!
//! ```text
//!        ┌──────────────── busy, or idle for a short time ─────────────┐
//!        ▼                                                             │
//!   core.poll ─► wake others ─► application, where the ctxq stage is ──┤
//!        ▲                                                             │ idle for longer
//!        └── bell, deadline ◄── sleep ◄── core.park ◄── bell.prepare ──┘
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use anyhow::{Result, anyhow};
use rustix::thread::CpuSet;
use toe_abi::observe::stage;
use toe_datapath::{Card, Composition, Core, Polled};
use toe_hal::{Clock, Instant};

use crate::bell::Bell;
use crate::board::{MemBoard, Nanos, Wire};
use crate::rig::{Machine, Rig};
use crate::traffic::app::{App, CTX, Turn};

/// How long an idle core looks again and again, then lets others run in between, microseconds.
const SPIN_US: u64 = 5;
const YIELD_US: u64 = 50;

/// Where threads run, and how long.
#[derive(Clone, Debug)]
pub struct Running {
    pub warm_up: Duration,
    pub measure: Duration,
    /// CPUs that threads are bound to, in order; empty: the system chooses.
    pub cpus: Vec<usize>,
    /// The application has a thread of its own; else it runs with the ctxq stage.
    pub app_apart: bool,
}

/// What all threads of a run share.
struct Shared {
    stop: AtomicBool,
    /// The application has kicked the card.
    kicked: AtomicBool,
    /// By core.
    threads: Vec<OnceLock<Thread>>,
    wire: Arc<Wire>,
    /// The core that has the ctxq stage, and the one that receives.
    ctxq: usize,
    ingress: usize,
    start: Barrier,
}

impl Shared {
    /// For these cores, or for the one of a fused card.
    fn new(cores: &[Core<MemBoard>], wire: Arc<Wire>, app_apart: bool) -> Self {
        let core_of = |wanted| cores.iter().position(|core| core.stages().any(|id| id.stage == wanted)).unwrap_or(0);
        let threads = cores.len().max(1);
        Self {
            stop: AtomicBool::new(false),
            kicked: AtomicBool::new(false),
            threads: (0..threads).map(|_| OnceLock::new()).collect(),
            wire,
            ctxq: core_of(stage::CTXQ),
            ingress: core_of(stage::INGRESS),
            start: Barrier::new(threads + 1 + usize::from(app_apart)),
        }
    }

    /// The thread of a core is ready; all begin together.
    fn begin(&self, core: usize, cpu: Option<usize>) {
        bind(cpu);
        let _ = self.threads[core].set(thread::current());
        self.start.wait();
    }

    /// Wakes the thread of a core, whether it sleeps or not: the next time it wants to sleep, it does not.
    fn wake(&self, core: usize) {
        self.threads[core].get().into_iter().for_each(Thread::unpark);
    }

    /// Whether the application has kicked since the last call.
    fn kicked(&self) -> bool {
        self.kicked.load(Ordering::Relaxed) && self.kicked.swap(false, Ordering::Acquire)
    }
}

/// What was counted at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub ns: u64,
    pub units: u64,
}

/// Runs a rig for a while; `count` counts what it does. The counts at both ends of the measured time. Once for each rig: the port's bell
/// stays with the thread that received.
pub fn run(rig: &mut Rig, running: &Running, count: impl Fn() -> u64) -> Result<(Sample, Sample)> {
    let cores = rig.take_cores();
    let shared = Shared::new(&cores, rig.wire.clone(), running.app_apart);
    let (card, back) = match &mut rig.machine {
        Machine::Fused(card) => (Some(card), None),
        Machine::Pipelined(cores) => (None, Some(cores)),
    };
    let mut app = Some(&mut rig.app);
    thread::scope(|scope| {
        let shared = &shared;
        let apart = app.take_if(|_| running.app_apart);
        let mut others = Vec::new();
        others.extend(apart.map(|app| scope.spawn(|| run_app(app, shared, running.cpus.get(shared.threads.len())))));
        others.extend(card.map(|card| {
            let app = app.take();
            scope.spawn(|| run_card(card, app, shared, running.cpus.first()))
        }));
        let cores = cores.into_iter().enumerate().map(|(i, core)| {
            let app = app.take_if(|_| i == shared.ctxq);
            let cpu = core.cpu().map(|cpu| cpu as usize).or(running.cpus.get(i).copied());
            scope.spawn(move || run_core(core, app, shared, cpu))
        });
        let cores: Vec<_> = cores.collect();
        shared.start.wait();
        let samples = measure(running, &count);
        shared.stop.store(true, Ordering::Relaxed);
        shared.threads.iter().filter_map(OnceLock::get).for_each(Thread::unpark);
        let panicked = |_| anyhow!("a core has panicked");
        let cores = cores.into_iter().map(|core| core.join().map_err(panicked)).collect::<Result<_>>()?;
        others.into_iter().try_for_each(|other| other.join().map_err(panicked))?;
        if let Some(back) = back {
            *back = cores;
        }
        Ok(samples)
    })
}

fn measure(running: &Running, count: &impl Fn() -> u64) -> (Sample, Sample) {
    let sample = || Sample { ns: Nanos.nanos(), units: count() };
    thread::sleep(running.warm_up);
    let begin = sample();
    thread::sleep(running.measure);
    (begin, sample())
}

/// Binds this thread to a CPU. One that can't be had is none: the measurement says which CPUs it ran on.
pub fn bind(cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
}

/// Since when a thread has had nothing to do.
struct Idle(Instant);

impl Idle {
    /// After a round in which something was done, or not: whether it is time to sleep. If not yet, pauses for a moment.
    fn is_over(&mut self, any: bool, now: Instant) -> bool {
        if any {
            self.0 = now;
            return false;
        }
        match now.0.saturating_sub(self.0.0) {
            0..SPIN_US => std::hint::spin_loop(),
            SPIN_US..YIELD_US => thread::yield_now(),
            _ => return true,
        }
        false
    }
}

/// Sleeps until woken, or until the deadline.
fn sleep_until(deadline: Option<Instant>, now: Instant) {
    match deadline {
        Some(at) => thread::park_timeout(Duration::from_micros(at.0.saturating_sub(now.0))),
        None => thread::park(),
    }
}

fn run_core(mut core: Core<MemBoard>, mut app: Option<&mut App>, shared: &Shared, cpu: Option<usize>) -> Core<MemBoard> {
    let index = core.index();
    // A port rings for the core that receives, if another one sends.
    let bell = (index == shared.ingress).then_some(&shared.wire.bell);
    if shared.threads.len() > 1 {
        bell.into_iter().for_each(Bell::hang_here);
    }
    shared.begin(index, cpu);
    let mut idle = Idle(Nanos.now());
    while !shared.stop.load(Ordering::Relaxed) {
        let now = Nanos.now();
        if bell.is_some() {
            shared.wire.tick(now.millis32());
        }
        let Polled { mut any, wake } = core.poll(now);
        wake.iter().for_each(|other| shared.wake(other));
        if index == shared.ctxq {
            any |= attend(&mut core, app.as_deref_mut(), shared);
        }
        if idle.is_over(any, now) {
            bell.into_iter().for_each(Bell::prepare);
            if core.park(now) {
                sleep_until(core.next_deadline(now), now);
                core.awake();
            }
            bell.into_iter().for_each(Bell::cancel);
            idle.0 = Nanos.now();
        }
    }
    core
}

/// The application's turn, or its kick. True: something was done.
fn attend(core: &mut Core<MemBoard>, app: Option<&mut App>, shared: &Shared) -> bool {
    let turn = app.map_or(Turn::default(), App::turn);
    let kick = turn.kick || shared.kicked();
    if kick && let Some(host) = core.host() {
        host.kicked(CTX);
    }
    kick || turn.any
}

fn run_card(card: &mut Card<MemBoard>, mut app: Option<&mut App>, shared: &Shared, cpu: Option<&usize>) {
    shared.begin(0, cpu.copied());
    let mut idle = Idle(Nanos.now());
    while !shared.stop.load(Ordering::Relaxed) {
        let now = Nanos.now();
        shared.wire.tick(now.millis32());
        let any = card.poll(now);
        let turn = app.as_deref_mut().map_or(Turn::default(), App::turn);
        let kick = turn.kick || shared.kicked();
        if kick {
            card.kicked(CTX);
        }
        if idle.is_over(any || kick || turn.any, now) {
            if card.park(now) {
                sleep_until(card.next_deadline(now), now);
            }
            idle.0 = Nanos.now();
        }
    }
}

fn run_app(app: &mut App, shared: &Shared, cpu: Option<&usize>) {
    bind(cpu.copied());
    shared.start.wait();
    while !shared.stop.load(Ordering::Relaxed) {
        let turn = app.turn();
        if turn.kick {
            shared.kicked.store(true, Ordering::Release);
            shared.wake(shared.ctxq);
        }
        if !turn.any {
            thread::yield_now();
        }
    }
}
