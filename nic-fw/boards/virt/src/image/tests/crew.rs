//! Cores that wait for something to do: one closure at a time, handed over and waited for.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use toe_arch::cores::{self, StartError};
use toe_arch::{Platform, time};
use toe_sync::sleep;

/// No test takes that long, nanoseconds.
const LIMIT_NS: u64 = 30_000_000_000;

static WAITING: cores::Doing = cores::Doing("waiting for a test");
static WORKING: cores::Doing = cores::Doing("a test");

type Job = Box<dyn FnOnce() + Send>;

/// What core 0 shares with another.
struct Desk {
    job: spin::Mutex<Option<Job>>,
    parked: AtomicU32,
    done: AtomicU32,
}

pub struct Crew {
    desks: Vec<Arc<Desk>>,
}

impl Crew {
    pub fn start(platform: &'static Platform) -> Result<Self, StartError> {
        let mut desks = Vec::new();
        for core in 1..platform.cores() {
            let desk = Arc::new(Desk { job: spin::Mutex::new(None), parked: AtomicU32::new(0), done: AtomicU32::new(0) });
            let theirs = desk.clone();
            platform.start(core, move || work(&theirs))?;
            desks.push(desk);
        }
        Ok(Self { desks })
    }

    /// Cores that take jobs: numbers 1 to this.
    pub fn len(&self) -> usize {
        self.desks.len()
    }

    /// Has `core` do something; it has begun, or will.
    pub fn give(&self, core: usize, job: impl FnOnce() + Send + 'static) {
        let desk = &self.desks[core - 1];
        *desk.job.lock() = Some(Box::new(job));
        if sleep::must_wake(&desk.parked) {
            cores::wake(core);
        }
    }

    /// Waits until `core` has done as many jobs as it was given.
    pub fn wait(&self, core: usize) -> Result<(), String> {
        let desk = &self.desks[core - 1];
        let done = || u64::from(desk.done.load(Ordering::Acquire));
        let waited = time::wait_for("a core with its job", LIMIT_NS, done, |done| done == 1);
        desk.done.store(0, Ordering::Relaxed);
        waited.map(|_| ()).map_err(|late| format!("core {core}: {late}"))
    }

    /// Has all of them do the same, each with its number, and waits for them.
    pub fn all(&self, job: impl Fn(usize) + Send + Clone + 'static) -> Result<(), String> {
        for core in 1..=self.len() {
            let job = job.clone();
            self.give(core, move || job(core));
        }
        (1..=self.len()).try_for_each(|core| self.wait(core))
    }
}

fn work(desk: &Desk) {
    loop {
        let job = desk.job.lock().take();
        if let Some(job) = job {
            cores::set_doing(&WORKING);
            job();
            cores::set_doing(&WAITING);
            desk.done.store(1, Ordering::Release);
            continue;
        }
        sleep::prepare(&desk.parked);
        if desk.job.lock().is_none() {
            cores::sleep_until(None, |_| ());
        }
        sleep::cancel(&desk.parked);
    }
}
