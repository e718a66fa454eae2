//! One thread: rounds of its engine while there is work, then a short spin, then sleep.
//!
//! ```text
//!        ┌────────────────────── busy, or idle for less than spin ─────────────────────┐
//!        ▼                                                                             │
//!   letters ─► engine.poll(now) ─► now and then: look at kicks (epoll, no wait) ───────┤
//!        ▲                                                                             │ idle for longer
//!        └──── woken by another core, port, kick, letter, link, signal or deadline ◄── sleep ┘
//! ```
//!
//! Kick eventfds must also be looked at while the core is busy: a context that was parked then wakes by its kick alone.

use super::engine::{Engine, Epochs};
use super::obey::{Obeyed, Obeyer};
use super::{Reply, RunError, Shared, now, owned};
use crate::disturb::Disturbance;
use rustix::event::epoll;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::thread::CpuSet;
use rustix::time::Timespec;
use std::io;
use toe_abi::CtxId;
use toe_hal::Instant;

/// How often a busy core looks at the descriptors it would sleep on, microseconds.
const LOOK_EVERY_US: u64 = 20;
/// Descriptors looked at in one go.
const EVENTS: usize = 64;
/// How soon a port that has reported an error is looked at again, microseconds; doubles up to the second number.
const SUSPECT_US: (u64, u64) = (10_000, 1_000_000);

/// Marks in epoll's user data; below them are the numbers of contexts.
const MARK_PORT: u64 = 1 << 32;
const MARK_MAILBOX: u64 = MARK_PORT + 1;
const MARK_STOP: u64 = MARK_PORT + 2;
const MARK_WAKE: u64 = MARK_PORT + 3;
const MARK_CARRIER: u64 = MARK_PORT + 4;

/// Why a thread ended that was not told to.
pub enum Ended {
    Stopped,
    Reset(Reply),
}

/// What one thread waits on.
pub struct CoreThread {
    core: usize,
    cpu: Option<u32>,
    epoll: OwnedFd,
    /// What epoll has: closed with it.
    watched: Vec<OwnedFd>,
    disturbance: Option<Disturbance>,
    stop: bool,
    /// The port has reported an error: when to look at it again, and how long that is after the last look. An interface that is removed goes
    /// down first, and only that is reported.
    suspect: Option<(Instant, u64)>,
    /// There may be letters.
    mail: bool,
    /// Something has been said of an interface.
    link_news: bool,
    /// Kicks come here: looked for now and then also while there is work.
    kicked: bool,
    looked: Instant,
}

impl CoreThread {
    /// Sleeps until `wake` is written, and whatever else is to be watched.
    pub fn new(core: usize, cpu: Option<u32>, wake: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (watched, looked) = (Vec::new(), Instant(0));
        let mut this = Self {
            core,
            cpu,
            epoll,
            watched,
            disturbance: None,
            stop: false,
            suspect: None,
            mail: true,
            link_news: false,
            kicked: false,
            looked,
        };
        // Edge-triggered: never read.
        this.watch(wake, MARK_WAKE, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        Ok(this)
    }

    pub fn core(&self) -> usize {
        self.core
    }

    pub fn disturb(&mut self, disturbance: Option<Disturbance>) {
        self.disturbance = disturbance;
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, mark: u64, flags: epoll::EventFlags) -> io::Result<()> {
        let fd = owned(fd)?;
        epoll::add(&self.epoll, &fd, epoll::EventData::new_u64(mark), flags)?;
        self.watched.push(fd);
        Ok(())
    }

    /// Waits for letters of the host, and for the signal to stop.
    pub fn watch_host(&mut self, mailbox: BorrowedFd<'_>, stop: BorrowedFd<'_>) -> io::Result<()> {
        self.kicked = true;
        self.watch(mailbox, MARK_MAILBOX, epoll::EventFlags::IN)?;
        self.watch(stop, MARK_STOP, epoll::EventFlags::IN)
    }

    /// Whether this is the one that waits for the host.
    pub fn has_host(&self) -> bool {
        self.kicked
    }

    /// Waits for news of interfaces, beside the host that is to hear of them.
    pub fn watch_carrier(&mut self, carrier: BorrowedFd<'_>) -> io::Result<()> {
        self.watch(carrier, MARK_CARRIER, epoll::EventFlags::IN)
    }

    /// Waits for frames. Edge-triggered: the descriptor stays readable while frames are on loan to other cores.
    pub fn watch_port(&mut self, port: BorrowedFd<'_>) -> io::Result<()> {
        self.watch(port, MARK_PORT, epoll::EventFlags::IN | epoll::EventFlags::ET)
    }

    /// Runs until told to end.
    pub fn run(
        &mut self,
        engine: &mut dyn Engine,
        mut host: Option<(&mut Obeyer, &mut Epochs<'_>)>,
        shared: &Shared,
    ) -> Result<Ended, RunError> {
        self.bind()?;
        let mut worked = now();
        while !self.stop && !shared.is_ending() {
            let now = now();
            self.look_at_suspect(now, engine)?;
            let mut did = false;
            let mut obeying = false;
            if let Some((obeyer, epochs)) = &mut host {
                if std::mem::take(&mut self.mail) {
                    obeyer.heard();
                }
                if std::mem::take(&mut self.link_news) {
                    obeyer.link_news();
                }
                match obeyer.letters(engine, &self.epoll, epochs) {
                    Obeyed::Reset(reply) => return Ok(Ended::Reset(reply)),
                    Obeyed::Something => did = true,
                    Obeyed::Nothing => {}
                }
                obeying = obeyer.is_busy();
            }
            let polled = engine.poll(now, self.disturbance.as_mut());
            polled.wake.iter().for_each(|core| shared.wakes.wake(core));
            did |= polled.any;
            if did {
                worked = now;
            }
            let idle_us = now.0.saturating_sub(worked.0);
            // After a round with work there is always another: only one without may come before sleep.
            if !did && !obeying && idle_us >= shared.spin_us && engine.park(now) {
                self.sleep(now, engine)?;
            } else if self.kicked && now.0.saturating_sub(self.looked.0) >= LOOK_EVERY_US {
                self.wait(Some(&Timespec { tv_sec: 0, tv_nsec: 0 }), engine)?;
                self.looked = now;
            } else if !did {
                // Who has something in hand that others must make room for lets them.
                if shared.crowded || idle_us >= shared.spin_us { std::thread::yield_now() } else { std::hint::spin_loop() }
            }
        }
        Ok(Ended::Stopped)
    }

    /// Keeps this thread on its CPU.
    fn bind(&self) -> Result<(), RunError> {
        let Some(cpu) = self.cpu else { return Ok(()) };
        let mut set = CpuSet::new();
        set.set(cpu as usize);
        rustix::thread::sched_setaffinity(None, &set).map_err(|source| RunError::Bind { core: self.core, cpu, source })
    }

    fn look_at_suspect(&mut self, now: Instant, engine: &mut dyn Engine) -> Result<(), RunError> {
        if let Some((at, after_us)) = self.suspect
            && now >= at
        {
            self.check_port(engine)?;
            let after_us = after_us * 2;
            self.suspect = (after_us <= SUSPECT_US.1).then(|| (now.add_micros(after_us), after_us));
        }
        Ok(())
    }

    fn check_port(&self, engine: &mut dyn Engine) -> Result<(), RunError> {
        engine.rx().map_or(Ok(()), |rx| rx.check().map_err(RunError::from))
    }

    /// Sleeps until something happens or the next deadline.
    fn sleep(&mut self, now: Instant, engine: &mut dyn Engine) -> Result<(), RunError> {
        let deadline = [engine.next_deadline(now), self.suspect.map(|(at, _)| at)].into_iter().flatten().min();
        let timeout = deadline.map(|at| {
            let us = at.0.saturating_sub(now.0);
            Timespec { tv_sec: (us / 1_000_000) as i64, tv_nsec: (us % 1_000_000 * 1000) as _ }
        });
        let slept = self.wait(timeout.as_ref(), engine);
        engine.awake();
        self.looked = super::now();
        slept
    }

    fn wait(&mut self, timeout: Option<&Timespec>, engine: &mut dyn Engine) -> Result<(), RunError> {
        let empty = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [empty; EVENTS];
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(RunError::Wait(error.into())),
        };
        for event in &events[..count] {
            let flags = event.flags;
            match event.data.u64() {
                MARK_PORT if flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP) => {
                    self.check_port(engine)?;
                    self.suspect = Some((now().add_micros(SUSPECT_US.0), SUSPECT_US.0));
                }
                MARK_PORT | MARK_WAKE => {}
                MARK_MAILBOX => self.mail = true,
                MARK_STOP => self.stop = true,
                MARK_CARRIER => self.link_news = true,
                ctx => engine.kicked(CtxId(u16::try_from(ctx).unwrap_or(u16::MAX))),
            }
        }
        Ok(())
    }
}
