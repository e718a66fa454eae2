//! One core of the machine: rounds of its stages while there is work, then a short spin, then sleep.
//!
//! ```text
//!        ┌───────────── busy, or idle for less than spin ─────────────┐
//!        ▼                                                            │
//!   requests ─► core.poll ─► wake others ─► now and then: interrupts ─┤
//!        ▲                                                            │ idle for longer
//!        └── interrupt of a device, another core, deadline ◄── WFI ◄──┘ core.park
//! ```

use super::board::VirtBoard;
use super::crew::Crew;
use super::engine::Engine;
use super::leader::{Kicks, Leader};
use alloc::boxed::Box;
use toe_abi::CtxId;
use toe_arch::{cores, time};
use toe_datapath::{Card, Core, Polled};
use toe_hal::Instant;
use toe_virt::window::Request;

/// How often a busy core takes its interrupts, microseconds: a parked context wakes by its kick alone.
const LOOK_EVERY_US: u64 = 20;
/// Kicks noted in one go; the rest comes with the next.
const KICKS: usize = 64;

static RUNNING: cores::Doing = cores::Doing("running its stages");
static ASLEEP: cores::Doing = cores::Doing("asleep");
static PAUSED: cores::Doing = cores::Doing("waiting for the end of a reset");

pub fn now() -> Instant {
    Instant(time::now_ns() / 1000)
}

/// What interrupts were about.
#[derive(Default)]
struct Kicked {
    contexts: heapless::Vec<CtxId, KICKS>,
    link: bool,
}

/// Runs the fused card on this core of the machine, for ever.
pub fn run_fused(card: Box<Card<VirtBoard>>, crew: &Crew, leader: Leader, spin_us: u64) -> ! {
    cores::set_doing(&RUNNING);
    rounds(Engine::Fused(card), crew, Some(leader), spin_us)
}

/// Runs core `index` of the card on this core of the machine, for ever. `leader`: this one obeys the host.
pub fn run(index: usize, crew: &Crew, leader: Option<Leader>, spin_us: u64) -> ! {
    rounds(Engine::Core(take(index, crew)), crew, leader, spin_us)
}

fn rounds(mut core: Engine, crew: &Crew, mut leader: Option<Leader>, spin_us: u64) -> ! {
    let (mut worked, mut looked) = (now(), now());
    loop {
        if crew.is_pausing() && leader.is_none() {
            core = paused(core, crew);
        }
        if let Some(leader) = &mut leader
            && let Some(request) = leader.next()
        {
            core = obey(leader, request, core, crew);
            worked = now();
        }
        let now = now();
        let Polled { any, wake } = core.poll(now);
        wake.iter().for_each(cores::wake);
        if any {
            worked = now;
        }
        if let Some(leader) = &mut leader
            && leader.must_mend(now)
        {
            core = mend(leader, core, crew);
            worked = now;
        }
        if now.0.saturating_sub(worked.0) >= spin_us && core.park(now) {
            crew.pass_alarm_on();
            sleep(&mut core, leader.as_mut(), now);
            looked = now;
        } else if now.0.saturating_sub(looked.0) >= LOOK_EVERY_US {
            crew.pass_alarm_on();
            let mut kicked = Kicked::default();
            cores::take_interrupts(note(leader.as_ref().map(|l| &l.kicks), &mut kicked));
            pass_on(&mut core, leader.as_mut(), kicked);
            looked = now;
        }
    }
}

/// The card's core, when it is there.
fn take(index: usize, crew: &Crew) -> Core<VirtBoard> {
    cores::set_doing(&PAUSED);
    loop {
        if !crew.is_pausing()
            && let Some(core) = crew.take(index)
        {
            cores::set_doing(&RUNNING);
            return core;
        }
        cores::sleep_until(None, |_| ());
    }
}

/// Gives the card's core back until a reset is over.
fn paused(engine: Engine, crew: &Crew) -> Engine {
    let Engine::Core(core) = engine else { return engine };
    let index = core.index();
    crew.put(index, core);
    Engine::Core(take(index, crew))
}

fn obey(leader: &mut Leader, request: Request, engine: Engine, crew: &Crew) -> Engine {
    match (request, engine) {
        (Request::Reset, Engine::Fused(mut card)) => {
            leader.reset_fused(&mut card);
            Engine::Fused(card)
        }
        (Request::Reset, Engine::Core(core)) => {
            let index = core.index();
            crew.put(index, core);
            leader.reset(crew, now());
            Engine::Core(take(index, crew))
        }
        (request, mut engine) => {
            if let Some(host) = engine.host() {
                leader.obey(request, host);
            }
            engine
        }
    }
}

/// Resets the port.
fn mend(leader: &mut Leader, engine: Engine, crew: &Crew) -> Engine {
    match engine {
        Engine::Fused(mut card) => {
            leader.mend_fused(&mut card, now());
            Engine::Fused(card)
        }
        Engine::Core(core) => {
            let index = core.index();
            crew.put(index, core);
            leader.mend_all(crew, now());
            Engine::Core(take(index, crew))
        }
    }
}

fn sleep(core: &mut Engine, leader: Option<&mut Leader>, now: Instant) {
    let mut kicked = Kicked::default();
    // A request is kicked like everything else, so this is only for one that came before the last interrupt was taken.
    if !leader.as_ref().is_some_and(|leader| leader.is_asked()) {
        cores::set_doing(&ASLEEP);
        let mending = leader.as_ref().and_then(|leader| leader.mender.deadline());
        let deadline = core.next_deadline(now).into_iter().chain(mending).min().map(|at| at.0.saturating_mul(1000));
        cores::sleep_until(deadline, note(leader.as_ref().map(|l| &l.kicks), &mut kicked));
        cores::set_doing(&RUNNING);
    }
    core.awake();
    pass_on(core, leader, kicked);
}

/// Notes what an interrupt is about.
fn note<'a>(kicks: Option<&'a Kicks>, kicked: &'a mut Kicked) -> impl FnMut(u32) + 'a {
    move |lpi| {
        let ctx = kicks.and_then(|kicks| kicks.context(lpi));
        // No more come in one go than there is room for (toe_arch takes 64).
        if let Some(ctx) = ctx {
            let _ = kicked.contexts.push(ctx);
        }
        kicked.link |= kicks.is_some_and(|kicks| kicks.link == Some(lpi));
    }
}

fn pass_on(core: &mut Engine, leader: Option<&mut Leader>, kicked: Kicked) {
    if let Some(host) = core.host() {
        kicked.contexts.into_iter().for_each(|ctx| host.kicked(ctx));
    }
    if let Some(leader) = leader.filter(|_| kicked.link) {
        leader.look_at_port();
    }
}
