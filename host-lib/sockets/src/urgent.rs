//! Urgent data: MSG_OOB, SIOCATMARK, and SIGURG for who asked for it by F_SETOWN. What it means is in `toe`'s `urgent`.
//!
//! ```text
//!   card ──event──► whoever takes events ──► hub: slots with urgent news ──wakes──► the signalling thread ──SIGURG──► owner
//!                   (this thread, if nobody else waits)
//! ```
//!
//! The library hears from the card when some thread of the program calls in, and SIGURG has to come when none does. So the first F_SETOWN on a
//! socket of ours starts a thread that waits for the card like any other. It alone sends signals, and holds nothing while it does: the handler
//! may run at once, in a thread that is anywhere. The owner is the kernel's to remember, in the token's open file description.

use crate::fdtable::{self, Kind};
use crate::hub::{self, Interest};
use crate::{Errno, Sock, process, waiting};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use toe::link::ring::Span;
use toe::link::sys::{self, AppFd};
use toe::link::user::{IoSpan, Sink, plausible};
use toe::socket::{Take, own_flags, ready};
use toe::{Change, Socket};

/// recv(2) with MSG_OOB. Never waits, and takes no lock that this thread may hold: a handler of SIGURG calls it.
pub(crate) fn recv(socket: &Socket<'_>, spans: &[IoSpan], flags: i32) -> Result<usize, Errno> {
    hear();
    let take = if flags & libc::MSG_PEEK != 0 { Take::Peek } else { Take::Consume };
    let Some(mut byte) = socket.receive_urgent(take)? else { return Ok(0) };
    if crate::is_empty(spans) {
        return Ok(0);
    }
    if flags & libc::MSG_TRUNC == 0 {
        if !plausible(spans) {
            return Err(Errno::FAULT);
        }
        Sink::new(spans).put(Span { ptr: NonNull::from(&mut byte), len: 1 });
    }
    Ok(1)
}

/// How often to try whether others are done with the queues.
const TRIES: usize = 20;

/// Takes what the card has said, unless somebody keeps the queues: perhaps this very thread, which a signal has interrupted.
fn hear() {
    for _ in 0..TRIES {
        if let Ok(mut hub) = hub::try_lock() {
            return hub.drain();
        }
        rustix::thread::sched_yield();
    }
}

impl Sock {
    /// ioctl(SIOCATMARK), sockatmark(3).
    pub fn at_mark(self) -> Result<bool, Errno> {
        let socket = self.socket()?;
        hear();
        Ok(socket.at_mark())
    }

    /// After fcntl(F_SETOWN) and its kin on the token: somebody wants SIGURG.
    pub fn owned(self) {
        if let Ok(socket) = self.socket() {
            socket.set_flag(own_flags::OWNED, true);
            start();
        }
    }
}

/// One more than the generation of the process that the thread was started in.
static STARTED: AtomicU32 = AtomicU32::new(0);

fn this_process() -> u32 {
    process::generation() + 1
}

/// Whether this process has its signalling thread.
pub(crate) fn is_running() -> bool {
    STARTED.load(Ordering::Relaxed) == this_process()
}

/// Makes sure that this process has its signalling thread. If the system has none to give, SIGURG does not come.
pub(crate) fn start() {
    if STARTED.swap(this_process(), Ordering::Relaxed) == this_process() {
        return;
    }
    // Signals are for the program's own threads.
    sys::with_signals_blocked(|| {
        let thread = std::thread::Builder::new().name("toe-urgent".into()).spawn(run);
        if thread.is_err() {
            STARTED.store(0, Ordering::Relaxed);
        }
    });
}

fn run() {
    let interest = Interest { urgent: true, ..Interest::default() };
    loop {
        let mut hub = hub::lock();
        hub.drain();
        let urgent = hub.take_urgent();
        if urgent.is_empty() {
            // An error is a lack of memory.
            if waiting::sleep(hub, &interest, &mut [], None, None).is_err() {
                STARTED.store(0, Ordering::Relaxed);
                return;
            }
            continue;
        }
        drop(hub);
        urgent.iter().for_each(|(slot, _)| signal(*slot));
        let mut hub = hub::lock();
        for (slot, change) in urgent {
            let Ok(socket) = process::view(slot) else { continue };
            socket.set_flag(own_flags::SIGNAL_DUE, false);
            // A call that waits for bytes is woken by the signal, and by nothing else as long as there are none: so it ends with EINTR.
            let readable = if socket.readiness() & ready::IN != 0 { Change::IN } else { Change::NONE };
            hub.changed(slot, change.without(Change::URGENT).without(Change::IN).with(readable));
        }
    }
}

fn signal(slot: u32) {
    if let Some((fd, _)) = fdtable::ours(0, u32::MAX).find(|(_, kind)| *kind == Kind::Socket(slot)) {
        sys::signal_owner(AppFd(fd), libc::SIGURG);
    }
}
