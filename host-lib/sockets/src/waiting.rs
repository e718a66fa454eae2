//! Waiting: spin for a little while, as answers on a local wire take microseconds, then sleep.

use crate::hub::{self, Hub, Interest};
use crate::{cancel, process};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use std::cell::RefCell;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use toe::link::fdnum;
use toe::link::sys::{SigMask, ppoll};

/// A thread that has no eventfd; ppoll passes it over.
pub(crate) const NO_FD: i32 = -1;
/// How soon a full queue to the card is tried again.
const BACKLOG: Duration = Duration::from_millis(1);
/// How often a process that shares sockets with others looks by itself: events go to the process that used a socket last.
pub(crate) const SHARED: Duration = Duration::from_millis(250);

fn spin() -> Duration {
    process::settings().spin
}

/// What a step of waiting came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Look again.
    Again,
    /// The time is over.
    Timeout,
}

/// One thread spins at a time; more would only take cores from those who work.
static SPINNING: AtomicBool = AtomicBool::new(false);

/// One wait of one call.
pub(crate) struct Wait {
    deadline: Option<Instant>,
    spin_until: Option<Instant>,
    spinning: bool,
    turns: u32,
    mask: Option<SigMask>,
}

impl Wait {
    /// `timeout`: `None` waits for ever.
    pub fn new(timeout: Option<Duration>, mask: Option<SigMask>) -> Self {
        Self::until(timeout.and_then(|t| Instant::now().checked_add(t)), mask)
    }

    /// The same by the clock.
    pub fn until(deadline: Option<Instant>, mask: Option<SigMask>) -> Self {
        Self { deadline, spin_until: None, spinning: false, turns: 0, mask }
    }

    /// Waits some, having found nothing under `hub`. `kernel` are descriptors to be watched besides; their `revents` are set.
    /// EINTR: a signal was handled. ECANCELED: the thread may have to end.
    pub fn step(&mut self, mut hub: MutexGuard<'static, Hub>, interest: &Interest, kernel: &mut [libc::pollfd]) -> Result<Step, Errno> {
        if hub.take_cancelled(cancel::this()) {
            return Err(Errno::CANCELED);
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|d| now >= d) {
            drop(hub);
            return self.last_look(kernel);
        }
        if self.spin_on(now) {
            drop(hub);
            if self.turns.is_multiple_of(16) {
                if !kernel.is_empty() {
                    ppoll(kernel, Some(Duration::ZERO), None)?;
                }
                rustix::thread::sched_yield();
            }
            std::hint::spin_loop();
            return Ok(Step::Again);
        }
        let left = self.deadline.map(|d| d.saturating_duration_since(now));
        sleep(hub, interest, kernel, left, self.mask)?;
        take_back(interest);
        Ok(Step::Again)
    }

    /// The time is over. A call with a mask lets the signals in that it unblocks, even if it has not slept.
    fn last_look(&mut self, kernel: &mut [libc::pollfd]) -> Result<Step, Errno> {
        let Some(mask) = self.mask.take() else { return Ok(Step::Timeout) };
        let ready = ppoll(kernel, Some(Duration::ZERO), Some(mask))?;
        Ok(if ready > 0 { Step::Again } else { Step::Timeout })
    }

    /// Sleep at once.
    pub fn no_spin(&mut self) {
        self.stop_spinning();
        self.spin_until = Some(Instant::now());
    }

    fn spin_on(&mut self, now: Instant) -> bool {
        self.turns += 1;
        match self.spin_until {
            None => {
                self.spin_until = Some(now + spin());
                self.spinning = !spin().is_zero() && !SPINNING.swap(true, Ordering::Relaxed);
            }
            Some(until) if now >= until => self.stop_spinning(),
            Some(_) => {}
        }
        self.spinning
    }

    fn stop_spinning(&mut self) {
        if std::mem::replace(&mut self.spinning, false) {
            SPINNING.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.stop_spinning();
    }
}

/// Another process may have used the sockets meanwhile, and does not pass on what the card tells it of them.
fn take_back(interest: &Interest) {
    if process::is_shared() {
        for &slot in &interest.slots {
            // One that cannot be used any more is found so by who waits for it.
            let _ = process::touch(slot);
        }
        let mut hub = hub::lock();
        interest.slots.iter().for_each(|&slot| hub.reclaim(slot));
    }
}

/// Sleeps until a watched socket changes, a kernel descriptor is ready, a signal comes or the time is over.
pub(crate) fn sleep(
    mut hub: MutexGuard<'static, Hub>,
    interest: &Interest,
    kernel: &mut [libc::pollfd],
    timeout: Option<Duration>,
    mask: Option<SigMask>,
) -> Result<(), Errno> {
    // Without a number left for it nobody can wake this thread: then it looks by itself.
    let wake = wake_fd().unwrap_or(Wake::Own(NO_FD));
    let ticket = hub.register(process::thread_id(), wake.number(), interest);
    let Ok(led) = hub.lead(ticket) else {
        hub.unregister(ticket, interest);
        // Before `wake`, which may look for the hub when it goes.
        drop(hub);
        return Ok(());
    };
    let cap = if hub.has_backlog() || wake.number() == NO_FD {
        Some(BACKLOG)
    } else if process::is_shared() {
        Some(SHARED)
    } else {
        None
    };
    drop(hub);
    let timeout = match (timeout, cap) {
        (Some(t), Some(c)) => Some(t.min(c)),
        (t, c) => t.or(c),
    };
    let pollfd = |fd, events| libc::pollfd { fd, events, revents: 0 };
    let mut fds = Vec::with_capacity(kernel.len() + 3);
    fds.extend_from_slice(kernel);
    fds.push(pollfd(wake.number(), libc::POLLIN));
    if let Some([irq, conn]) = led {
        fds.push(pollfd(irq, libc::POLLIN));
        // Only its end is of interest: POLLHUP comes unasked.
        fds.push(pollfd(conn, 0));
    }
    let result = ppoll(&mut fds, timeout, mask);
    let (theirs, ours) = fds.split_at(kernel.len());
    for (to, from) in kernel.iter_mut().zip(theirs) {
        to.revents = from.revents;
    }
    let mut hub = hub::lock();
    if ours[0].revents != 0 {
        let _ = rustix::io::read(toe::link::sys::AppFd(wake.number()), &mut [0; 8]);
    }
    if ours.get(1).is_some_and(|irq| irq.revents != 0) {
        hub.acknowledge(ticket);
    }
    if ours.get(2).is_some_and(|conn| conn.revents != 0) {
        hub.lose();
    }
    hub.unregister(ticket, interest);
    result.map(drop)
}

/// A thread's eventfd.
struct WakeFd {
    fd: Option<OwnedFd>,
    /// Made before the last fork: the parent's, and closed already.
    generation: u32,
}

impl Drop for WakeFd {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            if self.generation == process::generation() {
                // A signal handler may have jumped out of a wait: nobody is to be woken by a number that is free. (The process may end in such a
                // handler, whoever holds the hub.)
                if let Ok(mut hub) = hub::try_lock() {
                    hub.abandon(process::thread_id());
                }
                process::close_hidden(fd);
            } else {
                std::mem::forget(fd);
            }
        }
    }
}

/// The thread's own, or one made for this call when the thread is ending.
enum Wake {
    Own(i32),
    Temporary(WakeFd),
}

impl Wake {
    fn number(&self) -> i32 {
        match self {
            Wake::Own(number) => *number,
            Wake::Temporary(wake) => wake.fd.as_ref().map_or(NO_FD, |fd| fd.as_raw_fd()),
        }
    }
}

fn make() -> Result<WakeFd, Errno> {
    let fd = fdnum::raise(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    process::hide(&fd);
    Ok(WakeFd { fd: Some(fd), generation: process::generation() })
}

fn wake_fd() -> Result<Wake, Errno> {
    thread_local!(static WAKE: RefCell<Option<WakeFd>> = const { RefCell::new(None) });
    let own = WAKE.try_with(|wake| {
        let mut wake = wake.borrow_mut();
        if wake.as_ref().is_none_or(|w| w.generation != process::generation()) {
            *wake = Some(make()?);
        }
        Ok(wake.as_ref().and_then(|w| w.fd.as_ref()).map_or(NO_FD, |fd| fd.as_raw_fd()))
    });
    match own {
        Ok(number) => number.map(Wake::Own),
        Err(_) => make().map(Wake::Temporary),
    }
}
