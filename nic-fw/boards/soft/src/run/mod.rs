//! The data path's threads: one for each core of the placement.
//!
//! ```text
//!   main ──► thread of the core with ctxq: obeys the host as well (letters), tells it of the link
//!        ├─► thread of the core with ingress: waits for the port as well         one thread, if the card is fused
//!        └─► thread of each other core
//!
//!   reset: all threads end, the card is reset, they start again       failure or signal: all threads end
//! ```

mod engine;
mod obey;
mod thread;

use crate::board::SoftBoard;
use crate::device::Status;
use crate::disturb::{Disturb, Disturbance};
use crate::lent::Lent;
use crate::mailbox::{Answer, Mailbox};
use crate::memory::SoftMemory;
use crate::ports::carrier::CarrierWatch;
use crate::ports::{Port, PortError};
use crate::signals::{Interrupts, Kicks};
use crate::wakes::{CoreWakes, MonotonicClock};
use engine::{AnyCard, Engine, Epochs};
use obey::Obeyer;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::time::ClockId;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thread::{CoreThread, Ended};
use toe_abi::{CtxId, regs};
use toe_datapath::{Card, CardConfig, Pipeline, Placement};
use toe_hal::{Instant, Kick, Parts};

/// Why the data path ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the port has failed")]
    Port(#[from] PortError),
    #[error("waiting for events")]
    Wait(#[from] io::Error),
    #[error("core {core} ({stages}) has panicked: {message}")]
    Panic { core: usize, stages: String, message: String },
    #[error("core {core} can't run on CPU {cpu}")]
    Bind { core: usize, cpu: u32, source: rustix::io::Errno },
}

/// The card's clock.
pub fn now() -> Instant {
    let t = rustix::time::clock_gettime(ClockId::Monotonic);
    Instant((t.tv_sec as u64).saturating_mul(1_000_000).saturating_add(t.tv_nsec as u64 / 1000))
}

/// How a card is to be run.
pub struct RunConfig {
    pub card: CardConfig,
    /// `None`: fused.
    pub placement: Option<Placement>,
    /// CPU of a fused card.
    pub cpu: Option<u32>,
    pub disturb: Option<Disturb>,
}

/// What the threads of a card share.
struct Shared {
    wakes: CoreWakes,
    /// All threads are to end.
    ends: AtomicBool,
    /// Why, if something went wrong: the first that said so.
    failure: Mutex<Option<RunError>>,
    spin_us: u64,
    /// More threads than CPUs: who waits lets others go on.
    crowded: bool,
    cores: usize,
}

impl Shared {
    /// Makes all threads end.
    fn end(&self) {
        // Release: with the acquire in `is_ending`. A thread that sleeps is woken after.
        self.ends.store(true, Ordering::Release);
        (0..self.cores).for_each(|core| self.wakes.wake(core));
    }

    fn is_ending(&self) -> bool {
        self.ends.load(Ordering::Acquire)
    }

    fn fail(&self, error: RunError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.end();
    }
}

/// A data path and what it waits on.
pub struct Runner {
    card: AnyCard,
    memory: SoftMemory,
    interrupts: Interrupts,
    threads: Vec<CoreThread>,
    obeyer: Obeyer,
    shared: Shared,
    status: Arc<Status>,
    mailbox: Arc<Mailbox>,
}

impl Runner {
    /// A card on `port`. It stops when `stop` becomes readable.
    pub fn new(config: RunConfig, port: Port, mailbox: Arc<Mailbox>, status: Arc<Status>, stop: BorrowedFd<'_>) -> io::Result<Self> {
        let RunConfig { card: sizes, placement, cpu, disturb } = config;
        let interrupts = Interrupts::new(sizes.max_contexts);
        let kicks = Kicks::new(sizes.max_contexts);
        let memory = SoftMemory::new(sizes.max_regions);
        let port_fd = port.rx.fd().try_clone_to_owned()?;
        let parts = Parts { memory: memory.clone(), rx: port.rx, tx: port.tx, kick: interrupts.clone(), clock: MonotonicClock };
        let spin_us = sizes.spin_us;
        let mut card = match &placement {
            None => AnyCard::Fused(Box::new(Card::new(sizes, parts))),
            Some(placement) => AnyCard::Pipelined(Box::new(Pipeline::<SoftBoard>::new(&sizes, placement, parts))),
        };
        let cores = placement.as_ref().map_or(1, |p| p.cores().len());
        let wakes = CoreWakes::new(cores)?;
        let mut threads = Vec::new();
        for engine in card.engines().0 {
            let core = engine.index();
            let mut thread = CoreThread::new(core, engine.cpu().or(cpu), wakes.fd(core))?;
            thread.disturb(disturb.as_ref().map(|d| Disturbance::new(d, core)));
            if engine.host().is_some() {
                thread.watch_host(mailbox.fd(), stop)?;
            }
            if engine.rx().is_some() {
                thread.watch_port(port_fd.as_fd())?;
            }
            threads.push(thread);
        }
        let crowded = cores > std::thread::available_parallelism().map_or(1, usize::from);
        if crowded {
            tracing::warn!(cores, "more cores in the placement than CPUs: it works, but slower than with fewer");
        }
        let shared = Shared { wakes, ends: AtomicBool::new(false), failure: Mutex::new(None), spin_us, crowded, cores };
        let lent = Lent { memory: memory.clone(), interrupts: interrupts.clone(), kicks };
        let obeyer = Obeyer::new(lent, mailbox.clone(), status.clone());
        Ok(Self { card, memory, interrupts, threads, obeyer, shared, status, mailbox })
    }

    /// From now on the host hears of changes of the port's link: register LINK is another then.
    pub fn watch_carrier(&mut self, carrier: CarrierWatch) -> io::Result<()> {
        if let Some(thread) = self.threads.iter_mut().find(|thread| thread.has_host()) {
            thread.watch_carrier(carrier.fd())?;
            self.obeyer.watch_carrier(carrier);
        }
        Ok(())
    }

    /// Runs until told to stop.
    pub fn run(&mut self) -> Result<(), RunError> {
        loop {
            let ended = self.run_threads();
            if let Some(error) = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(error);
            }
            match ended {
                Ended::Stopped => return Ok(()),
                Ended::Reset(reply) => {
                    self.card.reset(now());
                    reply(Ok(self.memory.reset()));
                    self.shared.ends.store(false, Ordering::Release);
                }
            }
        }
    }

    /// Runs all threads until they end: the one with ctxq here, the others beside it.
    fn run_threads(&mut self) -> Ended {
        let Self { card, threads, obeyer, shared, .. } = self;
        let shared = &*shared;
        let (engines, mut epochs) = card.engines();
        let mut here = None;
        std::thread::scope(|scope| {
            for (engine, thread) in engines.into_iter().zip(threads) {
                if engine.host().is_some() {
                    here = Some((engine, thread));
                    continue;
                }
                let name = format!("toe-core{}", thread.core());
                let spawned = std::thread::Builder::new().name(name).spawn_scoped(scope, move || run_thread(engine, thread, None, shared));
                if let Err(error) = spawned {
                    shared.fail(error.into());
                }
            }
            let ended = here.and_then(|(engine, thread)| run_thread(engine, thread, Some((obeyer, &mut epochs)), shared));
            shared.end();
            ended.unwrap_or(Ended::Stopped)
        })
    }

    /// Tells the host that the card has failed, as far as it listens, for at most `patience`.
    pub fn fail(&mut self, patience: Duration) {
        self.status.set(regs::status::FAILED);
        self.mailbox.close();
        self.obeyer.end();
        self.interrupts.interrupt(CtxId::CONTROL);
        let deadline = std::time::Instant::now() + patience;
        while self.status.is_untold() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Runs one thread to its end. A panic, or an error, is the whole card's.
fn run_thread(
    engine: &mut dyn Engine,
    thread: &mut CoreThread,
    host: Option<(&mut Obeyer, &mut Epochs<'_>)>,
    shared: &Shared,
) -> Option<Ended> {
    let stages = engine.stages();
    let core = thread.core();
    match catch_unwind(AssertUnwindSafe(|| thread.run(engine, host, shared))) {
        Ok(Ok(ended)) => Some(ended),
        Ok(Err(error)) => {
            shared.fail(error);
            None
        }
        Err(panic) => {
            shared.fail(RunError::Panic { core, stages, message: message(&*panic) });
            None
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// A way to answer a letter.
type Reply = Box<dyn FnOnce(Answer) + Send>;

/// Descriptors that live as long as the runner.
fn owned(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

#[cfg(test)]
mod tests;
