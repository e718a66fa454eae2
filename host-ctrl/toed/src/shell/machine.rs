//! The machine under the core: descriptors of memory and signals, socketpairs, and the card.

use super::closer::Closer;
use crate::core::{Attachment, ClientId, Created, Host, Memory, Proof};
use rustix::{
    event::epoll,
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, StatxFlags},
    io::Errno,
};
use std::collections::HashMap;
use toe_abi::{CtxId, RegionId, app::Reply, control::ControlMsg, frames::FrameRecord, regs};
use toe_link::{
    card::{
        Card, CardError, CardInfo, CardMemory, ControlRegion, LinkReport, LogPart, MemoryOptions, PortLink, PushError, SharedMemory,
        Signals, Successor,
    },
    uds,
};
use zerocopy::IntoBytes;

/// What a file descriptor is, whoever holds it: device and inode, and of a socket its cookie: its inode's number has 32 bits, so whoever
/// makes sockets for some hours has one with the number of somebody else's token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct FileId {
    dev: u64,
    ino: u64,
    /// No other socket ever has it; 0: no socket.
    cookie: u64,
}

/// As far as the kernel knows without asking: a file system in user space would answer when it likes.
fn file_id(fd: impl AsFd) -> Result<FileId, Errno> {
    let s = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?;
    let cookie = rustix::net::sockopt::socket_cookie(&fd).unwrap_or(0);
    Ok(FileId { dev: u64::from(s.stx_dev_major) << 32 | u64::from(s.stx_dev_minor), ino: s.stx_ino, cookie })
}

/// Something in the epoll instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Watched {
    Signals,
    /// Completions or exceptions.
    Card,
    /// What connects us to the card: it has ended, or others on it have come or gone.
    CardLink,
    AppListener,
    AdminListener,
    Client(ClientId),
    Admin(u64),
    Token(RegionId, u32),
}

/// The epoll instance. Numbers in it are not used twice, so that an event for what was closed meanwhile finds nothing.
pub(super) struct Watch {
    epoll: OwnedFd,
    next: u64,
    entries: HashMap<u64, Watched>,
}

/// A number in [`Watch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key(u64);

impl Watch {
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, next: 1, entries: HashMap::new() })
    }

    pub fn add(&mut self, fd: impl AsFd, what: Watched, flags: epoll::EventFlags) -> Result<Key, Errno> {
        let key = self.next;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(key), flags)?;
        self.next += 1;
        self.entries.insert(key, what);
        Ok(Key(key))
    }

    pub fn modify(&self, fd: impl AsFd, key: Key, flags: epoll::EventFlags) -> Result<(), Errno> {
        epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(key.0), flags)
    }

    /// Forgets a number; its descriptor leaves the instance when it is closed.
    pub fn remove(&mut self, fd: impl AsFd, key: Key) {
        self.entries.remove(&key.0);
        // A copy of the descriptor elsewhere would keep it in the instance.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// What has something to say, and the event's flags.
    pub fn wait(&self, timeout_us: Option<u64>, found: &mut Vec<(Watched, epoll::EventFlags)>) -> Result<(), Errno> {
        let timeout =
            timeout_us.map(|us| rustix::time::Timespec { tv_sec: (us / 1_000_000) as i64, tv_nsec: (us % 1_000_000 * 1000) as _ });
        let mut events = Vec::with_capacity(64);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
        found.clear();
        found.extend(events.iter().filter_map(|e| Some((*self.entries.get(&e.data.u64())?, e.flags))));
        Ok(())
    }
}

/// A context's descriptors.
struct Bells {
    signals: Signals,
    /// An epoll instance around the interrupt: all that an application gets of it, so it can wait and not fill it up.
    wait: OwnedFd,
}

struct Token {
    daemon_end: OwnedFd,
    /// Until it has been sent.
    app_end: Option<OwnedFd>,
    id: FileId,
    key: Key,
}

pub(super) struct Connection {
    pub socket: OwnedFd,
    pub key: Key,
}

struct RegionFile {
    memfd: OwnedFd,
    place: Place,
    iova: u64,
}

/// A region's memory, or a token: a file, and the page where it begins (several regions may lie in one file).
type Place = (FileId, u64);

/// Applications say in pages where their region begins.
const PAGE: u64 = 4096;

/// See the module.
pub struct Machine {
    card: Box<dyn Card>,
    control: ControlRegion,
    /// toed's own pair.
    signals: Signals,
    pub(super) watch: Watch,
    huge_pages: bool,
    regions: HashMap<RegionId, RegionFile>,
    contexts: HashMap<CtxId, Bells>,
    tokens: HashMap<(RegionId, u32), Token>,
    files: HashMap<Place, Proof>,
    pub(super) clients: HashMap<ClientId, Connection>,
    /// Clients that could not take an answer.
    pub(super) broken: Vec<ClientId>,
    /// Something was published for the card since it was last kicked.
    published: bool,
    closer: Closer,
    /// Descriptors that this process may have open.
    descriptors_max: usize,
    failure: Option<CardError>,
    /// Nothing more that an application can cause is logged before.
    complain_again_us: u64,
}

/// Complaints about what applications can cause as often as they like are at least that far apart.
const COMPLAIN_EVERY_US: u64 = 10_000_000;

/// Of `max` descriptors, those that applications can use up. The rest is for operators, the card, and what comes with requests.
pub(super) fn descriptors_lent(max: usize) -> usize {
    max - (max / 4).min(1024)
}

fn os(step: &'static str) -> impl Fn(Errno) -> CardError {
    move |e| CardError::Os { step, error: e.into() }
}

impl Machine {
    /// Takes the card over: whatever it held is forgotten, and the control region attached.
    pub fn new(mut card: Box<dyn Card>, huge_pages: bool, descriptors_max: usize) -> Result<Self, CardError> {
        card.enable(0, regs::enable::RESET)?;
        let CardMemory { iova, memory } =
            card.make_memory(RegionId::CONTROL, toe_abi::control::CONTROL_REGION_LEN, MemoryOptions::default())?;
        let control = ControlRegion::new(memory).map_err(|e| CardError::Os { step: "control region", error: std::io::Error::other(e) })?;
        let signals = card.make_signals(CtxId::CONTROL)?;
        let mut watch = Watch::new().map_err(os("epoll"))?;
        watch.add(&signals.interrupt, Watched::Card, epoll::EventFlags::IN | epoll::EventFlags::ET).map_err(os("epoll"))?;
        card.watch().map(|(fd, flags)| watch.add(fd, Watched::CardLink, flags)).transpose().map_err(os("epoll"))?;
        card.enable(iova, regs::enable::ATTACH)?;
        let status = card.status()?;
        if status != regs::status::ATTACHED {
            if let Some(text) = card.failure() {
                return Err(CardError::Failed { text });
            }
            let error = std::io::Error::other(format!("register STATUS reads {status}, not {}", regs::status::ATTACHED));
            return Err(CardError::Os { step: "attaching to the card", error });
        }
        Ok(Self {
            card,
            control,
            signals,
            watch,
            huge_pages,
            regions: HashMap::new(),
            contexts: HashMap::new(),
            tokens: HashMap::new(),
            files: HashMap::new(),
            clients: HashMap::new(),
            broken: Vec::new(),
            published: false,
            closer: Closer::start().map_err(|error| CardError::Os { step: "starting threads", error })?,
            descriptors_max,
            failure: None,
            complain_again_us: 0,
        })
    }

    pub fn card_info(&self) -> CardInfo {
        *self.card.info()
    }

    /// Asks the card how it is.
    pub(super) fn card_status(&mut self) -> &'static str {
        match self.card.status() {
            Ok(regs::status::ATTACHED) => "attached",
            Ok(regs::status::DETACHED) => "detached",
            Ok(_) | Err(CardError::Failed { .. }) => "failed",
            Err(e) => {
                self.fail(e);
                "gone"
            }
        }
    }

    /// Asks the card how its port's link is.
    pub(super) fn port_link(&mut self) -> PortLink {
        self.card.port_link().unwrap_or_else(|e| {
            self.fail(e);
            PortLink::Unknown
        })
    }

    /// Why the card has failed, by its own words.
    pub(super) fn card_failure(&self) -> Option<String> {
        self.card.failure()
    }

    /// A part of the card's log.
    pub(super) fn card_log(&self, instance: u32, from: u32) -> Option<LogPart> {
        self.card.log(instance, from)
    }

    /// Another card in the place of ours, which has failed or gone.
    pub(super) fn successor(&mut self) -> Successor {
        self.card.successor()
    }

    /// How the card is reached.
    pub(super) fn link(&self) -> LinkReport {
        self.card.report()
    }

    /// What connects us to the card has something to say: an error if that is the card's end.
    pub(super) fn look_at_link(&mut self) -> Result<(), CardError> {
        self.card.look()
    }

    /// Why the card can't be used any more.
    pub(super) fn take_failure(&mut self) -> Option<CardError> {
        self.failure.take()
    }

    /// Logs what has become of an application's request.
    fn complain(&mut self, what: &str) {
        let now = super::now_us();
        if now < self.complain_again_us {
            return tracing::debug!("{what}");
        }
        self.complain_again_us = now + COMPLAIN_EVERY_US;
        tracing::warn!("{what}");
    }

    fn fail(&mut self, e: CardError) {
        self.failure.get_or_insert(e);
    }

    pub(super) fn completion(&mut self) -> Option<ControlMsg> {
        self.control.completion()
    }

    /// The next exception frame, copied into `frame`.
    pub(super) fn exception(&mut self, frame: &mut Vec<u8>) -> Option<FrameRecord> {
        let (record, bytes) = self.control.exception()?;
        frame.clear();
        frame.extend_from_slice(bytes);
        Some(record)
    }

    /// After a batch: gives room back, and wakes the card if it sleeps and something was published.
    pub(super) fn flush(&mut self) {
        self.control.release();
        if std::mem::take(&mut self.published) && self.control.must_kick() {
            // EAGAIN: the counter is full, so a kick is pending.
            let _ = rustix::io::write(&self.signals.kick, &1u64.to_ne_bytes());
        }
    }

    /// First step of going to sleep; `false`: there is work.
    pub(super) fn park(&mut self) -> bool {
        self.control.park()
    }

    pub(super) fn unpark(&mut self) {
        self.control.unpark();
    }

    /// What a descriptor that came with a request is; of a region's, `page` is where it begins.
    pub(super) fn proof(&self, fd: BorrowedFd<'_>, page: u32) -> Proof {
        file_id(fd).ok().and_then(|id| self.files.get(&(id, page.into())).copied()).unwrap_or(Proof::Unknown)
    }

    /// Leaves the card: flows go on until its regions are unmapped.
    pub(super) fn detach(&mut self) -> Result<(), CardError> {
        self.card.enable(0, regs::enable::DETACH)
    }

    pub(super) fn disconnect(&mut self, client: ClientId) {
        if let Some(c) = self.clients.remove(&client) {
            self.watch.remove(&c.socket, c.key);
            self.close_foreign(c.socket);
        }
    }

    /// Closes a descriptor that others had a hand in, and that may take its time.
    pub(super) fn close_foreign(&self, fd: OwnedFd) {
        self.closer.close(fd);
    }

    /// Whether `more` descriptors that applications cause may be opened.
    pub(super) fn has_descriptors_for(&self, more: usize) -> bool {
        let used = self.tokens.len() + 3 * self.contexts.len() + 2 * self.regions.len() + self.clients.len();
        used + more <= descriptors_lent(self.descriptors_max)
    }

    /// Most clients that belong to no application.
    pub(super) fn strangers_max(&self) -> usize {
        (descriptors_lent(self.descriptors_max) / 4).min(1024)
    }

    /// Whether so many descriptors wait to be closed that no more should be taken in.
    pub(super) fn is_behind(&self) -> bool {
        self.closer.pending() > (self.descriptors_max - descriptors_lent(self.descriptors_max)) / 2
    }

    fn drop_memory(&mut self, iova: u64) {
        if let Err(e) = self.card.drop_memory(iova) {
            errno_of(self, e);
        }
    }

    fn make_token(&mut self, region: RegionId, slot: u32) -> Result<Token, Errno> {
        if !self.has_descriptors_for(2) {
            return Err(Errno::NFILE);
        }
        let (daemon_end, app_end) = uds::token_pair()?;
        let id = file_id(&app_end)?;
        // No event is asked for: hang-ups are always reported, and what an application writes there is nobody's business.
        let key = self.watch.add(&daemon_end, Watched::Token(region, slot), epoll::EventFlags::empty())?;
        Ok(Token { daemon_end, app_end: Some(app_end), id, key })
    }

    fn send(&mut self, client: ClientId, reply: &Reply, attach: &[Attachment]) -> Result<(), Errno> {
        let socket = &self.clients.get(&client).ok_or(Errno::BADF)?.socket;
        let mut fds = Vec::with_capacity(attach.len());
        for a in attach {
            let fd = match a {
                Attachment::Region(r) => self.regions.get(r).map(|r| r.memfd.as_fd()),
                Attachment::Kick(c) => self.contexts.get(c).map(|c| c.signals.kick.as_fd()),
                Attachment::Irq(c) => self.contexts.get(c).map(|c| c.wait.as_fd()),
                Attachment::Token(r, s) => self.tokens.get(&(*r, *s)).and_then(|t| t.app_end.as_ref()).map(AsFd::as_fd),
            };
            fds.push(fd.ok_or(Errno::BADF)?);
        }
        uds::send(socket, reply.as_bytes(), &fds)
    }
}

impl Memory for SharedMemory {
    fn load(&self, offset: u64) -> u32 {
        SharedMemory::load(self, offset)
    }
    fn store(&self, offset: u64, value: u32) {
        SharedMemory::store(self, offset, value);
    }
    fn read(&self, offset: u64, out: &mut [u8]) {
        SharedMemory::read(self, offset, out);
    }
    fn write(&self, offset: u64, bytes: &[u8]) {
        SharedMemory::write(self, offset, bytes);
    }
    fn clear(&self, offset: u64, len: u64) {
        SharedMemory::clear(self, offset, len);
    }
    fn fence(&self) {
        SharedMemory::fence(self);
    }
}

fn region_file(memory: &SharedMemory, iova: u64) -> Result<RegionFile, Errno> {
    let fd = memory.memfd().ok_or(Errno::NOMEM)?;
    let place = (file_id(fd)?, memory.offset() / PAGE);
    Ok(RegionFile { memfd: rustix::io::fcntl_dupfd_cloexec(fd, 0)?, place, iova })
}

/// The errno for an application when the card or the system refuses; the card's end is remembered.
fn errno_of(machine: &mut Machine, e: CardError) -> Errno {
    match e {
        CardError::Os { step, error } => {
            machine.complain(&format!("{step}: {error}"));
            Errno::from_io_error(&error).unwrap_or(Errno::NOMEM)
        }
        full @ CardError::NoRoom { .. } => {
            machine.complain(&format!("an application could not start: {full}"));
            Errno::NOMEM
        }
        gone => {
            machine.fail(gone);
            Errno::NETDOWN
        }
    }
}

impl Host for Machine {
    type Memory = SharedMemory;

    fn create_region(&mut self, region: RegionId, len: u64) -> Result<Created<SharedMemory>, Errno> {
        if !self.has_descriptors_for(2) {
            return Err(Errno::NFILE);
        }
        let options = MemoryOptions { huge_pages: self.huge_pages };
        let CardMemory { iova, memory } = self.card.make_memory(region, len, options).map_err(|e| errno_of(self, e))?;
        let offset = memory.offset();
        match region_file(&memory, iova) {
            Ok(file) => {
                self.files.insert(file.place, Proof::Region(region));
                self.regions.insert(region, file);
                Ok(Created { memory, iova, offset })
            }
            Err(e) => {
                drop(memory);
                self.drop_memory(iova);
                Err(e)
            }
        }
    }

    fn destroy_region(&mut self, region: RegionId) {
        let Some(file) = self.regions.remove(&region) else { return };
        self.files.remove(&file.place);
        self.drop_memory(file.iova);
    }

    fn open_context(&mut self, ctx: CtxId) -> Result<(), Errno> {
        if !self.has_descriptors_for(3) {
            return Err(Errno::NFILE);
        }
        let wait = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let signals = self.card.make_signals(ctx).map_err(|e| errno_of(self, e))?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&wait, &signals.interrupt, epoll::EventData::new_u64(0), edge)?;
        self.contexts.insert(ctx, Bells { signals, wait });
        Ok(())
    }

    fn close_context(&mut self, ctx: CtxId) {
        let Some(Bells { signals, wait }) = self.contexts.remove(&ctx) else { return };
        // The application may keep `wait`, and the interrupt may be another context's next.
        let _ = epoll::delete(&wait, &signals.interrupt);
        if let Err(e) = self.card.drop_signals(ctx) {
            errno_of(self, e);
        }
    }

    fn interrupt(&mut self, ctx: CtxId) {
        if let Some(Bells { signals, .. }) = self.contexts.get(&ctx) {
            // EAGAIN: the counter is full, so an interrupt is pending.
            let _ = rustix::io::write(&signals.interrupt, &1u64.to_ne_bytes());
        }
    }

    fn open_token(&mut self, region: RegionId, slot: u32) -> Result<(), Errno> {
        let token = self.make_token(region, slot)?;
        self.files.insert((token.id, 0), Proof::Token(region, slot));
        self.tokens.insert((region, slot), token);
        Ok(())
    }

    fn close_token(&mut self, region: RegionId, slot: u32) {
        if let Some(token) = self.tokens.remove(&(region, slot)) {
            self.files.remove(&(token.id, 0));
            self.watch.remove(&token.daemon_end, token.key);
        }
    }

    fn submit(&mut self, msg: &ControlMsg) -> bool {
        let taken = self.control.submit(msg);
        self.published |= taken;
        taken
    }

    fn packet(&mut self, record: &FrameRecord, frame: &[u8]) -> bool {
        match self.control.packet(record, frame) {
            Ok(()) => self.published = true,
            Err(PushError::Full) => return false,
            // It will never fit: waiting for room is of no use.
            Err(PushError::TooLong | PushError::PeerInsane) => {
                tracing::debug!(len = frame.len(), "frame dropped: the packet ring refuses it")
            }
        }
        true
    }

    fn reply(&mut self, client: ClientId, reply: &Reply, attach: &[Attachment]) {
        let sent = self.send(client, reply, attach);
        // Sent or not, our copies go: the application's copies alone decide how long a token lives.
        for a in attach {
            if let Attachment::Token(r, s) = a
                && let Some(token) = self.tokens.get_mut(&(*r, *s))
            {
                token.app_end = None;
            }
        }
        if let Err(e) = sent {
            tracing::debug!(client = client.0, "disconnected: it does not take its answer ({e})");
            self.broken.push(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    /// A card that says nothing, and whose memory may be used up.
    struct Mute {
        info: CardInfo,
        has_room: bool,
    }

    impl Card for Mute {
        fn info(&self) -> &CardInfo {
            &self.info
        }
        fn status(&mut self) -> Result<u32, CardError> {
            Ok(regs::status::ATTACHED)
        }
        fn port_link(&mut self) -> Result<PortLink, CardError> {
            Ok(PortLink::Unknown)
        }
        fn make_memory(&mut self, region: RegionId, len: u64, options: MemoryOptions) -> Result<CardMemory, CardError> {
            if region != RegionId::CONTROL && !self.has_room {
                return Err(CardError::NoRoom { wanted: len, used: 0, len: 0, largest: 0 });
            }
            Ok(CardMemory { iova: toe_link::card::iova(region.0), memory: SharedMemory::create("test", len, options)? })
        }
        fn drop_memory(&mut self, _iova: u64) -> Result<(), CardError> {
            Ok(())
        }
        fn make_signals(&mut self, _ctx: CtxId) -> Result<Signals, CardError> {
            let new = || eventfd(0, EventfdFlags::CLOEXEC).map_err(os("eventfd"));
            Ok(Signals { interrupt: new()?, kick: new()? })
        }
        fn drop_signals(&mut self, _ctx: CtxId) -> Result<(), CardError> {
            Ok(())
        }
        fn enable(&mut self, _control_iova: u64, _what: u32) -> Result<(), CardError> {
            Ok(())
        }
        fn watch(&self) -> Option<(BorrowedFd<'_>, epoll::EventFlags)> {
            None
        }
        fn look(&mut self) -> Result<(), CardError> {
            Ok(())
        }
        fn report(&self) -> LinkReport {
            LinkReport::default()
        }
    }

    fn machine(has_room: bool, descriptors_max: usize) -> Machine {
        let card = Mute { info: CardInfo::default(), has_room };
        Machine::new(Box::new(card), false, descriptors_max).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn a_socket_is_known_by_more_than_a_number_that_comes_again() {
        let (one, other) = uds::token_pair().expect("a pair");
        let id = file_id(&one).expect("known");
        assert_eq!(file_id(rustix::io::dup(&one).expect("a copy")), Ok(id));
        // As if so many sockets had been made in between that the other has the number of the first.
        let FileId { dev, ino, .. } = id;
        assert_ne!(FileId { dev, ino, ..file_id(&other).expect("known") }, id);
    }

    #[test]
    fn regions_leave_the_descriptors_of_operators_alone() {
        let mut m = machine(true, 128);
        let made = (1..64).map(|region| m.create_region(RegionId(region), 1 << 16).map(drop)).take_while(Result::is_ok).count();
        assert_eq!(2 * made, descriptors_lent(128));
        assert_eq!(m.create_region(RegionId(63), 1 << 16).err(), Some(Errno::NFILE));
    }

    #[test]
    fn the_log_cannot_be_flooded_by_those_who_find_no_room() {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let writer = std::sync::Arc::new(log.reopen().expect("open"));
        let mut m = machine(false, 1024);
        tracing::subscriber::with_default(tracing_subscriber::fmt().with_writer(writer).finish(), || {
            (0..100).for_each(|_| assert_eq!(m.create_region(RegionId(1), 1 << 16).err(), Some(Errno::NOMEM)));
        });
        assert_eq!(std::fs::read_to_string(log.path()).expect("readable").lines().count(), 1);
    }
}
