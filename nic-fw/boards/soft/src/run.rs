//! The data-path thread: rounds of the card while there is work, then a short spin, then sleep.
//!
//! ```text
//!        ┌────────────────────── busy, or idle for less than spin ─────────────────────┐
//!        ▼                                                                             │
//!   letters ─► card.poll(now) ─► now and then: look at kicks (epoll, no wait) ─────────┤
//!        ▲                                                                             │ idle for longer
//!        └──── woken by port, kick, letter, signal or deadline ◄── sleep ◄── card.park ┘
//! ```
//!
//! Kick eventfds must also be looked at while the card is busy: a context that was parked then wakes by its kick alone.

use crate::device::Status;
use crate::mailbox::{Answer, Command, Mailbox, Signal};
use crate::memory::SoftMemory;
use crate::ports::{Port, PortError, SoftPort};
use crate::signals::{Interrupts, Kicks};
use rustix::event::epoll;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::time::{ClockId, Timespec};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use toe_abi::counters::Counter;
use toe_abi::{CtxId, RegionId, control, regs};
use toe_datapath::{Card, CardConfig};
use toe_hal::{HostMemory, Instant, Kick};

/// How often a busy core looks at the descriptors it would sleep on, microseconds.
const LOOK_EVERY_US: u64 = 20;
/// How often a core that is awake asks the port what it has lost, microseconds. (Who asks for the counters wakes it.)
const COUNT_EVERY_US: u64 = 100_000;
/// Longest sleep while the port holds frames back, microseconds.
const HOLDING_SLEEP_US: u64 = 1000;
/// Descriptors looked at in one go.
const EVENTS: usize = 64;

/// How soon a port that has reported an error is looked at again, microseconds; doubles up to the second number.
const SUSPECT_US: (u64, u64) = (10_000, 1_000_000);

/// Marks in epoll's user data; below them are the numbers of contexts.
const MARK_PORT: u64 = 1 << 32;
const MARK_MAILBOX: u64 = MARK_PORT + 1;
const MARK_STOP: u64 = MARK_PORT + 2;

/// Why the data path ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the port has failed: {0}")]
    Port(#[from] PortError),
    #[error("waiting for events: {0}")]
    Wait(#[from] io::Error),
}

/// A data path and what it waits on. Lives on one thread.
pub struct Runner {
    card: Card<Port, SoftMemory, Interrupts>,
    interrupts: Interrupts,
    kicks: Kicks,
    epoll: OwnedFd,
    mailbox: Arc<Mailbox>,
    status: Arc<Status>,
    spin_us: u64,
    /// The port has reported an error: when to look at it again, and how long that is after the last look. An interface that is removed goes down
    /// first, and only that is reported.
    suspect: Option<(Instant, u64)>,
    attached: bool,
    stop: bool,
}

/// The card's clock.
fn now() -> Instant {
    let t = rustix::time::clock_gettime(ClockId::Monotonic);
    Instant((t.tv_sec as u64).saturating_mul(1_000_000).saturating_add(t.tv_nsec as u64 / 1000))
}

impl Runner {
    /// A card on `port`. It stops when `stop` becomes readable.
    pub fn new(config: CardConfig, port: Port, mailbox: Arc<Mailbox>, status: Arc<Status>, stop: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mark = epoll::EventData::new_u64;
        epoll::add(&epoll, port.fd(), mark(MARK_PORT), epoll::EventFlags::IN)?;
        epoll::add(&epoll, mailbox.fd(), mark(MARK_MAILBOX), epoll::EventFlags::IN)?;
        epoll::add(&epoll, stop, mark(MARK_STOP), epoll::EventFlags::IN)?;
        let interrupts = Interrupts::new(config.max_contexts);
        let kicks = Kicks::new(config.max_contexts);
        let memory = SoftMemory::new(config.max_regions);
        let spin_us = config.spin_us;
        let card = Card::new(config, port, memory, interrupts.clone());
        Ok(Self { card, interrupts, kicks, epoll, mailbox, status, spin_us, suspect: None, attached: false, stop: false })
    }

    /// Runs until told to stop.
    pub fn run(&mut self) -> Result<(), RunError> {
        let mut worked = now();
        let mut looked = worked;
        let mut counted = Instant(0);
        while !self.stop {
            let now = now();
            if now.0.saturating_sub(counted.0) >= COUNT_EVERY_US {
                self.count_port();
                counted = now;
            }
            self.look_at_suspect(now)?;
            let did = self.letters() | self.card.poll(now);
            if did {
                worked = now;
            }
            let idle_us = now.0.saturating_sub(worked.0);
            // After a round with work there is always another: only one without may come before sleep.
            if !did && idle_us >= self.spin_us && self.card.park(now) {
                self.sleep(now)?;
                looked = now;
            } else if now.0.saturating_sub(looked.0) >= LOOK_EVERY_US {
                self.wait(Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
                looked = now;
            } else if !did {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }

    fn look_at_suspect(&mut self, now: Instant) -> Result<(), RunError> {
        if let Some((at, after_us)) = self.suspect
            && now >= at
        {
            self.card.port().check()?;
            let after_us = after_us * 2;
            self.suspect = (after_us <= SUSPECT_US.1).then(|| (now.add_micros(after_us), after_us));
        }
        Ok(())
    }

    fn count_port(&mut self) {
        let lost = self.port_stats();
        for (counter, total) in
            [(Counter::RxPortOverrun, lost.rx_overrun), (Counter::RxPortUnusable, lost.rx_unusable), (Counter::TxPortLost, lost.tx_lost)]
        {
            self.card.set_port_counter(counter, total);
        }
    }

    /// Tells the host that the card has failed, as far as it listens, for at most `patience`.
    pub fn fail(&mut self, patience: Duration) {
        self.status.set(regs::status::FAILED);
        self.mailbox.close();
        self.interrupts.interrupt(CtxId::CONTROL);
        let deadline = std::time::Instant::now() + patience;
        while self.status.is_untold() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sleeps until something happens or the card's next deadline.
    fn sleep(&mut self, now: Instant) -> Result<(), RunError> {
        let holding = self.card.port().holding().then(|| now.add_micros(HOLDING_SLEEP_US));
        let suspect = self.suspect.map(|(at, _)| at);
        let deadline = [self.card.next_deadline(now), holding, suspect].into_iter().flatten().min();
        let timeout = deadline.map(|at| {
            let us = at.0.saturating_sub(now.0);
            Timespec { tv_sec: (us / 1_000_000) as i64, tv_nsec: (us % 1_000_000 * 1000) as _ }
        });
        self.wait(timeout.as_ref())
    }

    fn wait(&mut self, timeout: Option<&Timespec>) -> Result<(), RunError> {
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
                    self.card.port().check()?;
                    self.suspect = Some((now().add_micros(SUSPECT_US.0), SUSPECT_US.0));
                }
                MARK_PORT => {}
                MARK_MAILBOX => self.mailbox.clear(),
                MARK_STOP => self.stop = true,
                ctx => self.card.kicked(CtxId(u16::try_from(ctx).unwrap_or(u16::MAX))),
            }
        }
        Ok(())
    }

    /// Does what the device thread asks for. Returns whether it asked.
    fn letters(&mut self) -> bool {
        let mut any = false;
        while let Some(letter) = self.mailbox.take() {
            let (command, reply) = letter.open();
            reply(self.obey(command));
            any = true;
        }
        any
    }

    fn obey(&mut self, command: Command) -> Answer {
        match command {
            Command::Map(mapping) => self.card.memory().map(mapping).map_err(|refused| {
                tracing::warn!("DMA_MAP refused: {refused}");
                io::Error::from_raw_os_error(refused.errno())
            }),
            Command::Unmap { iova, len } => Ok(self.card.memory().unmap(iova, len)),
            Command::Attach { iova } => self.attach(iova).map(|()| Vec::new()),
            Command::Detach => {
                self.detach();
                Ok(Vec::new())
            }
            Command::Reset => {
                self.detach();
                self.card.reset();
                Ok(self.card.memory().reset())
            }
            Command::Signals { signal, first, fds } => self.signals(signal, first, fds).map(|()| Vec::new()),
            Command::EndSession => {
                self.detach();
                // The control region's descriptors belonged to the host; the applications' go on working.
                self.signals(Signal::Interrupt, CtxId::CONTROL, vec![None])?;
                self.signals(Signal::Kick, CtxId::CONTROL, vec![None])?;
                Ok(self.card.memory().end_session())
            }
        }
    }

    fn attach(&mut self, iova: u64) -> io::Result<()> {
        self.detach();
        self.card.memory().bind(RegionId::CONTROL, iova, control::CONTROL_REGION_LEN).map_err(|_| {
            tracing::warn!(iova = format!("{iova:#x}"), len = control::CONTROL_REGION_LEN, "ATTACH: no such control region is mapped");
            io::Error::from_raw_os_error(libc::EFAULT)
        })?;
        self.card.attach_control();
        self.attached = true;
        self.status.set(regs::status::ATTACHED);
        tracing::info!("control plane attached");
        Ok(())
    }

    fn detach(&mut self) {
        if std::mem::take(&mut self.attached) {
            self.card.detach_control();
            tracing::info!("control plane detached");
        }
        self.card.memory().unbind(RegionId::CONTROL);
        self.status.set(regs::status::DETACHED);
    }

    fn signals(&mut self, signal: Signal, first: CtxId, fds: Vec<Option<OwnedFd>>) -> io::Result<()> {
        for (i, fd) in fds.into_iter().enumerate() {
            let ctx = u16::try_from(usize::from(first.0) + i).map_err(|_| rustix::io::Errno::INVAL)?;
            let ctx = CtxId(ctx);
            match signal {
                Signal::Interrupt => self.interrupts.set(ctx, fd)?,
                Signal::Kick => self.kicks.set(&self.epoll, ctx, fd)?,
            }
        }
        Ok(())
    }

    /// Losses inside the port so far.
    pub fn port_stats(&mut self) -> crate::ports::PortStats {
        self.card.port().stats()
    }
}

#[cfg(test)]
mod tests;
