//! A card inside QEMU, reached through memory that both share: `toe_abi::window`.
//!
//! ```text
//!   toe-window ── connection ──► who is there, the memfd, eventfds           (QEMU's ivshmem protocol)
//!   window ─┬──── pages ───────► registers, requests and their outcome
//!           ├──── log ─────────► the card's log
//!           └──── ranges ──────► memory for regions
//! ```

mod connection;
mod log;
mod pages;
mod ranges;

pub use log::{Log, Missed};

use super::{Card, CardError, CardInfo, CardMemory, LinkReport, LogPart, MemoryOptions, PortLink, SharedMemory, Signals, Successor};
use connection::Connection;
use pages::{Pages, Ready, Request};
use ranges::Ranges;
use rustix::{
    event::epoll::EventFlags,
    fd::{AsRawFd, BorrowedFd, OwnedFd},
    fs::{FallocateFlags, FlockOperation, Mode, OFlags, SealFlags},
    io::Errno,
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use toe_abi::{
    CtxId, RegionId, regs,
    window::{self, CONTROL_VECTOR, MEMORY_OFF, outcome},
};

/// A card that does not carry out a request within this is lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Nobody signals when a card gets ready that knows no toed yet, and signals can be lost while interrupts are being set up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often an unanswered request is signalled again.
const KICK_EVERY: Duration = Duration::from_millis(500);
/// How long a card that says that it is ready may take to be so for a new peer as well.
const SUCCEEDS_WITHIN: Duration = Duration::from_secs(1);

/// See the module.
pub struct Window {
    path: PathBuf,
    connection: Connection,
    pages: Pages,
    ranges: Ranges,
    /// Bytes of the window.
    len: u64,
    card: u16,
    instance: u32,
    info: CardInfo,
    /// Holds a lock: one toed at a time.
    lock: OwnedFd,
}

/// Connects to the server at `path`. Returns the window's size as well.
fn open(path: &Path) -> Result<(Connection, u64), CardError> {
    let bad = |problem: String| CardError::BadWindow { path: path.display().to_string(), problem };
    let connection = Connection::open(path)?;
    let memory = connection.memory()?;
    let seals = rustix::fs::fcntl_get_seals(&memory).unwrap_or(SealFlags::empty());
    if !seals.contains(SealFlags::SHRINK) {
        return Err(bad("its memory could shrink under us; toe-window's cannot".into()));
    }
    let size = rustix::fs::fstat(&memory).map_err(|e| bad(e.to_string()))?.st_size;
    let size = u64::try_from(size).unwrap_or(0);
    if !window::valid_len(size) {
        let (least, most) = (window::WINDOW_MIN, window::WINDOW_MAX);
        return Err(bad(format!("it has {size} bytes; a power of two from {least} to {most} is needed (toe-window --size)")));
    }
    Ok((connection, size))
}

/// A lock that ends with us, however we end. The server's own description of the file is shared by all peers, so a new one is locked.
fn lock(memory: &OwnedFd) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let lock = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(lock)
}

impl Window {
    /// Connects to the window that the server at `path` has, and waits for a card in it, at most `patience`. Whatever the card held
    /// is forgotten. `waiting` is told what is missing, again and again, and says whether to go on.
    pub fn connect(path: &Path, patience: Duration, waiting: impl FnMut(&str) -> bool) -> Result<Self, CardError> {
        Self::join(path, None, patience, waiting)
    }

    /// Joins the window as a new peer. `held`: the lock, if we have it already.
    fn join(path: &Path, held: Option<OwnedFd>, patience: Duration, waiting: impl FnMut(&str) -> bool) -> Result<Self, CardError> {
        let name = path.display().to_string();
        let bad = |problem: &str| CardError::BadWindow { path: name.clone(), problem: problem.to_owned() };
        let (connection, len) = open(path)?;
        let memory = connection.memory()?;
        let lock = held.map_or_else(|| lock(&memory), Ok).map_err(|e| match e {
            Errno::WOULDBLOCK => bad("another toed uses it; stop that one, or give each its own toe-window"),
            e => bad(&format!("locking it: {e}")),
        })?;
        let pages = Pages::new(SharedMemory::map(memory, 0, MEMORY_OFF)?);
        let me = connection.view().id().unwrap_or(0);
        pages.introduce(me, len);
        let ranges = Ranges::new(MEMORY_OFF, len, pages.last_memory());
        let info = CardInfo::default();
        let mut window = Self { path: path.to_owned(), connection, pages, ranges, len, card: me, instance: 0, info, lock };
        window.meet(&name, patience, waiting)?;
        Ok(window)
    }

    /// Waits for a card that is ready, and has it forget what an earlier toed has left.
    fn meet(&mut self, name: &str, patience: Duration, mut waiting: impl FnMut(&str) -> bool) -> Result<(), CardError> {
        let begin = Instant::now();
        loop {
            self.connection.pump(None).map_err(|e| gone("toe-window", &e))?;
            let missing = match self.find(name)? {
                Ok(ready) => {
                    self.accept(name, &ready)?;
                    match self.request(regs::enable::RESET, 0) {
                        // It was about to be started anew: what it is by then is another question.
                        Err(CardError::Restarted) => "the card starts again and again".to_owned(),
                        result => return result,
                    }
                }
                Err(missing) => missing,
            };
            // Not at the first look: the server may not have said all yet.
            let waited = begin.elapsed();
            let left = patience.saturating_sub(waited);
            let given_up = waited > LOOK_EVERY && !waiting(&missing);
            if left.is_zero() || given_up {
                return Err(CardError::NotReady { path: name.to_owned(), waited_s: waited.as_secs(), state: missing });
            }
            self.connection.wait(left.min(LOOK_EVERY));
        }
    }

    /// The card, or what is missing.
    fn find(&self, name: &str) -> Result<Result<Ready, String>, CardError> {
        let view = self.connection.view();
        if let Some(text) = self.pages.failure() {
            // What a card of the past has left may stand here as well, so it is no reason not to wait.
            return Ok(Err(format!("the last card that was here has failed: {text}")));
        }
        let machine = view.others().count() > 0;
        let Some(claim) = self.pages.peer() else {
            let missing = if machine {
                format!("a virtual machine may be there, but no firmware has said that it is ready (last: {})", self.pages.stage())
            } else {
                format!(
                    "no virtual machine is connected; start QEMU with -chardev socket,path={name},id=window -device \
                     ivshmem-doorbell,vectors={},chardev=window",
                    view.own().len()
                )
            };
            return Ok(Err(missing));
        };
        // Who is not here any more may have left a page behind that says anything.
        if !u16::try_from(claim).is_ok_and(|peer| view.is_complete(peer)) {
            return Ok(Err(format!("the card that was here (peer {claim}) has gone, and no other is ready")));
        }
        let ready = self.pages.ready(name)?;
        Ok(ready.ok_or_else(|| "the card is starting".to_owned()))
    }

    /// Checks what a card says of itself.
    fn accept(&mut self, name: &str, ready: &Ready) -> Result<(), CardError> {
        let bad = |problem: String| Err(CardError::BadWindow { path: name.to_owned(), problem });
        let view = self.connection.view();
        let Ok(card) = u16::try_from(ready.peer) else { return bad(format!("the card says that it is peer {}", ready.peer)) };
        let info = &ready.info;
        if ready.window != self.len {
            return bad(format!("the card sees {} bytes of it, and the host {}", ready.window, self.len));
        }
        let sane = info.max_flows > 0 && info.max_contexts > 1 && info.max_regions > 1 && (68..=65_535).contains(&info.mtu);
        if !sane {
            let CardInfo { max_flows, max_contexts, max_regions, mtu, .. } = info;
            return bad(format!(
                "the card's registers make no sense: {max_flows} flows, {max_contexts} contexts, {max_regions} regions, MTU {mtu}"
            ));
        }
        let vectors = view.own().len().min(view.vectors_of(card).len());
        let max_contexts = info.max_contexts.min(u32::try_from(vectors).unwrap_or(u32::MAX));
        if max_contexts < 2 {
            return bad(format!("{vectors} interrupts are too few (toe-window --vectors)"));
        }
        self.info = CardInfo { max_contexts, memory_max: Some(self.ranges.len()), ..*info };
        (self.card, self.instance) = (card, ready.instance);
        Ok(())
    }

    /// Whether it is still the card that it was, and well.
    fn check(&mut self) -> Result<(), CardError> {
        let left = self.connection.pump(Some(self.card)).map_err(|e| gone("toe-window", &e))?;
        if self.pages.instance() != self.instance {
            return Err(CardError::Restarted);
        }
        if left || self.connection.view().vectors_of(self.card).is_empty() {
            // A card that fails ends its machine, too: then its own words say more.
            return Err(self.pages.failure().map_or_else(|| gone("QEMU", &"it has ended"), |text| CardError::Failed { text }));
        }
        Ok(())
    }

    /// Has the card do something, and waits until it has.
    fn request(&mut self, what: u32, control: u64) -> Result<(), CardError> {
        let name = match what {
            regs::enable::RESET => "RESET",
            regs::enable::ATTACH => "ATTACH",
            _ => "DETACH",
        };
        self.check()?;
        let number = self.pages.ask(&Request { what, control });
        let end = Instant::now() + ANSWER_WITHIN;
        let mut kick_at = Instant::now();
        loop {
            self.check()?;
            if let (done, result) = self.pages.done()
                && done == number
            {
                // Whose answer it is, is looked at after it was read.
                self.check()?;
                return self.outcome(name, result);
            }
            if let Some(text) = self.pages.failure() {
                return Err(CardError::Failed { text });
            }
            let now = Instant::now();
            if now >= end {
                let said = self.pages.stage().to_owned();
                return Err(CardError::NoAnswer { request: name, waited_s: ANSWER_WITHIN.as_secs(), said });
            }
            if now >= kick_at {
                kick_at = now + KICK_EVERY;
                self.kick();
            }
            self.connection.wait(LOOK_EVERY.min(end - now));
        }
    }

    fn outcome(&self, request: &'static str, result: u32) -> Result<(), CardError> {
        let why = match result {
            outcome::OK => return Ok(()),
            // A card that has just started: it takes the last number for done.
            outcome::NONE => return Err(CardError::Restarted),
            outcome::FAILED => {
                return Err(CardError::Failed { text: self.pages.failure().unwrap_or_else(|| "it does not say why".into()) });
            }
            outcome::INVALID => "it calls it invalid".to_owned(),
            outcome::MISMATCH => "it works with another size of window, or another version of the contract".to_owned(),
            other => format!("with outcome {other}, which makes no sense"),
        };
        Err(CardError::Refused { request, why })
    }

    fn kick(&self) {
        if let Some(fd) = self.connection.view().vectors_of(self.card).get(usize::from(CONTROL_VECTOR)) {
            // EAGAIN: the counter is full of signals that are pending.
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }
}

fn gone(step: &'static str, error: &dyn std::fmt::Display) -> CardError {
    CardError::Gone { step, error: error.to_string() }
}

impl Card for Window {
    fn info(&self) -> &CardInfo {
        &self.info
    }

    fn status(&mut self) -> Result<u32, CardError> {
        self.check()?;
        Ok(self.pages.status())
    }

    fn port_link(&mut self) -> Result<PortLink, CardError> {
        self.check()?;
        Ok(self.pages.port_link())
    }

    fn make_memory(&mut self, _region: RegionId, len: u64, _options: MemoryOptions) -> Result<CardMemory, CardError> {
        let r = &self.ranges;
        let no_room = CardError::NoRoom { wanted: len, used: r.used(), len: r.len(), largest: r.largest() };
        let iova = self.ranges.take(len).ok_or(no_room)?;
        let len = len.next_multiple_of(4096);
        match self.connection.memory().and_then(|memfd| SharedMemory::map(memfd, iova, len)) {
            Ok(memory) => {
                // An earlier toed may have left something here.
                memory.clear(0, len);
                self.pages.note_memory(iova + len);
                Ok(CardMemory { iova, memory })
            }
            Err(e) => {
                self.ranges.give(iova);
                Err(e)
            }
        }
    }

    fn drop_memory(&mut self, iova: u64) -> Result<(), CardError> {
        if let Some(len) = self.ranges.give(iova)
            && let Some(memfd) = self.connection.view().memory()
        {
            // Back to the system. If it fails, it is cleared before it is used again.
            let _ = rustix::fs::fallocate(memfd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, iova, len);
        }
        Ok(())
    }

    fn make_signals(&mut self, ctx: CtxId) -> Result<Signals, CardError> {
        let view = self.connection.view();
        let copy = |fds: &[OwnedFd]| {
            let fd = fds.get(usize::from(ctx.0)).ok_or(Errno::INVAL);
            fd.and_then(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 0))
                .map_err(|e| CardError::Os { step: "a context's signals", error: e.into() })
        };
        Ok(Signals { interrupt: copy(view.own())?, kick: copy(view.vectors_of(self.card))? })
    }

    fn drop_signals(&mut self, _ctx: CtxId) -> Result<(), CardError> {
        // They are the server's, and stay.
        Ok(())
    }

    fn enable(&mut self, control_iova: u64, what: u32) -> Result<(), CardError> {
        self.request(what, control_iova)
    }

    fn watch(&self) -> Option<(BorrowedFd<'_>, EventFlags)> {
        Some((self.connection.socket(), EventFlags::IN | EventFlags::RDHUP))
    }

    fn look(&mut self) -> Result<(), CardError> {
        self.check()
    }

    fn successor(&mut self) -> Successor {
        if self.connection.pump(None).is_err() {
            return Successor::Never;
        }
        let (name, instance) = (self.path.display().to_string(), self.pages.instance());
        if instance == self.instance || matches!(self.find(&name), Ok(Err(_))) {
            return Successor::NotYet;
        }
        // Whatever comes of it: this one is tried once.
        self.instance = instance;
        // As a new peer, with memory of its own: programs of the last card still have their part of the window, and its signals.
        let lock = rustix::io::fcntl_dupfd_cloexec(&self.lock, 0).map_err(|e| CardError::Os { step: "the window's lock", error: e.into() });
        match lock.and_then(|lock| Self::join(&self.path, Some(lock), SUCCEEDS_WITHIN, |_| true)) {
            Ok(next) => Successor::Ready(Box::new(next)),
            Err(e) => Successor::Unusable(e),
        }
    }

    fn failure(&self) -> Option<String> {
        self.pages.failure()
    }

    fn log(&self, instance: u32, from: u32) -> Option<LogPart> {
        Some(self.pages.log(instance, from))
    }

    fn report(&self) -> LinkReport {
        LinkReport { device: format!("ivshmem:{}", self.path.display()), board: "qemu", memory_used: Some(self.ranges.used()) }
    }
}
