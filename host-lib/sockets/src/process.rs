//! The process as a whole: its region, its connection to toed, its pool of tokens, and what fork does to them.
//!
//! ```text
//!   Untried ──attach──► Attached ──toed or card gone──► Lost
//!      │ no daemon          │ fork (in the child)
//!      ▼                    ▼
//!   Refused             Inherited ──first use of a socket──► Attached
//! ```

use crate::fdtable::{self, Kind};
use crate::hub::{self, Hub, Link};
use crate::urgent;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, sockopt};
use rustix::process::Pid;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock};
use std::time::{Duration, Instant};
use toe::link::Region;
use toe::link::client::{Client, Daemon, OpenError, Proof, Welcome, run_dir, ticket};
use toe::link::sys::{AppFd, Copies, ppoll};
use toe::socket::{own_flags, ready};
use toe::{Channel, Socket};
use toe_abi::region::{slot_flags, slot_state};

/// Tokens fetched at once.
const POOL: u32 = 32;

/// What this process shares with its family: made once, inherited by fork.
struct Family {
    region: Arc<Region>,
    /// Proof of membership for children.
    region_fd: OwnedFd,
    welcome: Welcome,
    /// A token that is never a socket. Children inherit it, so a child whose parent has gone (a daemon) still has a family,
    /// even if it holds no socket.
    keeper: Option<OwnedFd>,
    /// Per slot: bits of [`local`].
    local: Box<[AtomicU8]>,
}

static FAMILY: OnceLock<Family> = OnceLock::new();

/// What this process has done for a slot.
mod local {
    /// The slot's events come to our context, or its notices do.
    pub const BOUND: u8 = 1;
}

/// The connection to toed. Locked before the hub, never after.
pub(crate) struct Control {
    client: Option<Client>,
    pool: VecDeque<(u32, OwnedFd)>,
}

static CONTROL: Mutex<Control> = Mutex::new(Control { client: None, pool: VecDeque::new() });

/// Where the process stands: [`state`].
static STATE: AtomicU8 = AtomicU8::new(state::UNTRIED);

mod state {
    pub const UNTRIED: u8 = 0;
    pub const ATTACHED: u8 = 1;
    /// No daemon, or no place at it: sockets are the kernel's.
    pub const REFUSED: u8 = 2;
    /// After fork: region and tokens are there, queues are not.
    pub const INHERITED: u8 = 3;
    /// Daemon or card have gone.
    pub const LOST: u8 = 4;
}

/// Rises with each fork, in the child: what belongs to threads of the parent is void.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// This process, to tell a vfork child, which shares our memory.
static PID: AtomicU32 = AtomicU32::new(0);
/// Others may hold this process's sockets: it has forked, is a child, or sockets have come or gone by exec or in a message.
static SHARED: AtomicU8 = AtomicU8::new(0);

fn lock() -> MutexGuard<'static, Control> {
    CONTROL.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn pid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()
}

/// Whether this is the process that the library's memory belongs to, and not a vfork child that borrows it.
pub(crate) fn is_own() -> bool {
    let known = PID.load(Ordering::Relaxed);
    known == 0 || known == pid()
}

pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

pub(crate) fn is_shared() -> bool {
    SHARED.load(Ordering::Relaxed) != 0
}

fn set_shared() {
    SHARED.store(1, Ordering::Relaxed);
}

pub(crate) fn is_attached() -> bool {
    STATE.load(Ordering::Acquire) == state::ATTACHED
}

fn family() -> Result<&'static Family, Errno> {
    FAMILY.get().ok_or(Errno::NETDOWN)
}

/// What the daemon said about the card.
pub(crate) fn welcome() -> Option<Welcome> {
    FAMILY.get().map(|f| f.welcome)
}

/// This thread's id, for slot locks.
pub(crate) fn thread_id() -> u32 {
    thread_local!(static ID: Cell<(u32, u32)> = const { Cell::new((0, 0)) });
    let now = generation();
    let fresh = || rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    ID.try_with(|id| match id.get() {
        (generation, tid) if tid != 0 && generation == now => tid,
        _ => {
            let tid = fresh();
            id.set((now, tid));
            tid
        }
    })
    .unwrap_or_else(|_| fresh())
}

/// What the environment says. Read once, early: programs such as nginx clear it for their workers.
pub(crate) struct Settings {
    /// The daemon's socket.
    path: PathBuf,
    /// `TOE_REQUIRE`: programs are to fail rather than to use the kernel's sockets when there is no daemon.
    required: bool,
    /// `TOE_TICKET`: what toed has reserved for this program.
    ticket: u64,
    /// `TOE_SPIN_US`: how long a thread spins before it sleeps.
    pub spin: Duration,
}

/// How long a thread spins, unless told otherwise.
const SPIN_US: u64 = 20;

pub(crate) fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let spin = std::env::var("TOE_SPIN_US").ok().and_then(|v| v.parse().ok()).unwrap_or(SPIN_US);
        Settings {
            path: run_dir().join("toed.sock"),
            required: std::env::var_os("TOE_REQUIRE").is_some_and(|v| !v.is_empty() && v != "0"),
            ticket: ticket(),
            spin: Duration::from_micros(spin.min(1_000_000)),
        }
    })
}

/// When the library is loaded: sockets that came through exec are found, while nothing else has been opened.
pub fn start() {
    settings();
    // Before there is a socket: a child of vfork() may close an instance of epoll that is this process's.
    PID.store(pid(), Ordering::Relaxed);
    let tokens: Vec<i32> = open_numbers().into_iter().filter(|&fd| is_token(AppFd(fd))).collect();
    let Some(&first) = tokens.first() else { return };
    if attach_with(Some(AppFd(first))).is_err() {
        return;
    }
    // Who has started this program may use them as well.
    set_shared();
    tokens.into_iter().for_each(adopt);
}

/// A descriptor has come from another process (SCM_RIGHTS): it may be a socket of this family, or of one to be joined.
pub fn received(fd: i32) {
    if fdtable::kind(fd) == Kind::Other && is_own() && is_token(AppFd(fd)) && attach_with(Some(AppFd(fd))).is_ok() {
        // The sender may use it as well.
        set_shared();
        adopt(fd);
    }
}

/// A descriptor has gone to another process (SCM_RIGHTS), which may use the socket as well.
pub fn sent(fd: i32) {
    if matches!(fdtable::kind(fd), Kind::Socket(_)) {
        set_shared();
    }
}

/// Makes a token that came from elsewhere a socket, if it is one of this family's.
fn adopt(fd: i32) {
    let slot = ask(|client| client.identify(AppFd(fd).as_fd()));
    if slot == Err(Errno::BADF) {
        warn_of_stranger(fd);
    }
    if let Ok(slot) = slot
        && view(slot).is_ok()
        && fdtable::fits(fd)
    {
        let mut hub = hub::lock();
        if hub.holders(slot) == 0 {
            // What this process had done for it ended with its last close here.
            set_unbound(slot);
        }
        hub.hold(slot);
        fdtable::set(fd, Kind::Socket(slot));
    }
}

/// One line on stderr, once per process.
fn warn_of_stranger(fd: i32) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let line =
            format!("libtoe: descriptor {fd} is another program's socket: this program, which has sockets of its own, cannot use it\n");
        let _ = rustix::io::write(AppFd(2), line.as_bytes());
    });
}

/// The numbers that are open. (None without /proc; then nothing says of a descriptor either that toed has made it.)
fn open_numbers() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a descriptor may be one of toed's tokens: an end of a socketpair that a process called toed has made.
fn is_token(fd: AppFd) -> bool {
    let comm = maker(fd).map(|pid| std::fs::read(format!("/proc/{}/comm", pid.as_raw_nonzero())));
    comm.is_some_and(|comm| comm.is_ok_and(|name| name == b"toed\n"))
}

/// The process at the other end of a UNIX socket when it was made.
fn maker(fd: AppFd) -> Option<Pid> {
    let unix = sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX);
    unix.then(|| sockopt::socket_peercred(fd)).and_then(Result::ok).map(|cred| cred.pid)
}

fn required() -> bool {
    settings().required
}

/// What socket() is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Make it ours.
    Ours,
    /// Leave it to the kernel.
    Kernel,
    Fail(Errno),
}

/// Whether sockets can be ours, attaching on first use.
pub(crate) fn verdict() -> Verdict {
    match attach() {
        Ok(()) => Verdict::Ours,
        Err(_) if required() => Verdict::Fail(Errno::NETDOWN),
        Err(_) => Verdict::Kernel,
    }
}

/// Makes sure that this process has queues of its own.
pub(crate) fn attach() -> Result<(), Errno> {
    attach_with(None)
}

/// `token`: one that this process was given by another, as proof that it belongs to that family.
fn attach_with(token: Option<AppFd>) -> Result<(), Errno> {
    match STATE.load(Ordering::Acquire) {
        state::ATTACHED => return Ok(()),
        state::REFUSED | state::LOST => return Err(Errno::NETDOWN),
        _ => {}
    }
    let mut control = lock();
    match STATE.load(Ordering::Acquire) {
        state::ATTACHED => return Ok(()),
        state::REFUSED | state::LOST => return Err(Errno::NETDOWN),
        _ => {}
    }
    PID.store(pid(), Ordering::Relaxed);
    match open(&mut control, token) {
        Ok(()) => {
            STATE.store(state::ATTACHED, Ordering::Release);
            Ok(())
        }
        Err(message) => {
            complain(&message);
            STATE.store(state::REFUSED, Ordering::Release);
            // A child that can't use its parent's sockets must not wait for them. They are as good as ever to others.
            if FAMILY.get().is_some() {
                hub::lock().stir();
            }
            Err(Errno::NETDOWN)
        }
    }
}

/// One line on stderr, once per process.
fn complain(message: &str) {
    let what = if required() { "sockets fail (TOE_REQUIRE is set)" } else { "using the kernel's sockets instead" };
    let line = format!("libtoe: {message}; {what}\n");
    let _ = rustix::io::write(AppFd(2), line.as_bytes());
}

/// HELLO, the region, a context.
fn open(control: &mut Control, token: Option<AppFd>) -> Result<(), String> {
    let text = |e: OpenError| e.to_string();
    let member = FAMILY.get().map(|f| Proof::Region(f.region_fd.as_fd(), f.welcome.offset));
    let proof = member.or(token.as_ref().map(|token| Proof::Token(token.as_fd())));
    let (mut client, region_fd) = Client::open(&settings().path, proof, settings().ticket).map_err(text)?;
    if FAMILY.get().is_none() {
        let region = Region::map_at(&region_fd, client.welcome().offset).map_err(|e| e.to_string())?;
        let sockets = region.header().n_sockets as usize;
        hide(&region_fd);
        let local = (0..sockets).map(|_| AtomicU8::new(0)).collect();
        let mut tokens = client.pool(POOL).unwrap_or_default().into_iter().inspect(|(_, token)| hide(token));
        let keeper = tokens.next().map(|(_, token)| token);
        control.pool.extend(tokens.filter(|(slot, _)| (*slot as usize) < sockets));
        let family = Family { region: Arc::new(region), region_fd, welcome: client.welcome(), keeper, local };
        // Nobody else can have set it: attaching happens under the control lock.
        let _ = FAMILY.set(family);
    }
    let family = family().map_err(|e| e.to_string())?;
    let place = |welcome: Welcome| (welcome.region, welcome.offset);
    if place(client.welcome()) != place(family.welcome) {
        return Err("toed was started anew; this program's sockets are gone".to_owned());
    }
    let bell = client.open_context().map_err(text)?;
    let channel = Channel::attach(family.region.clone(), bell.ctx).ok_or("toed opened an impossible context")?;
    for fd in bell.fds() {
        fdtable::set(fd, Kind::Internal);
    }
    let conn = client.socket().as_raw_fd();
    fdtable::set(conn, Kind::Internal);
    hub::lock().link(Link { channel, bell, conn });
    control.client = Some(client);
    Ok(())
}

/// Marks a descriptor as ours, so that the application cannot close it by accident.
pub(crate) fn hide(fd: &OwnedFd) {
    fdtable::set(fd.as_raw_fd(), Kind::Internal);
}

/// Closes one of our own descriptors. (Dropping it alone would be refused: close() is ours, and protects it.)
pub(crate) fn close_hidden(fd: OwnedFd) {
    fdtable::clear(fd.as_raw_fd());
    drop(fd);
}

/// Asks toed something.
pub(crate) fn ask<T>(question: impl FnOnce(&mut Client) -> Result<T, Errno>) -> Result<T, Errno> {
    attach()?;
    let mut control = lock();
    question(control.client.as_mut().ok_or(Errno::NETDOWN)?)
}

/// A fresh slot and its token, still at a high number and hidden.
pub(crate) fn take_token() -> Result<(u32, OwnedFd), Errno> {
    attach()?;
    let family = family()?;
    let mut control = lock();
    if control.pool.is_empty() {
        let tokens = control.client.as_mut().ok_or(Errno::NETDOWN)?.pool(POOL)?;
        for (slot, token) in tokens {
            if family.local.get(slot as usize).is_some() {
                hide(&token);
                control.pool.push_back((slot, token));
            }
        }
    }
    let (slot, token) = control.pool.pop_front().ok_or(Errno::NFILE)?;
    drop(control);
    set_unbound(slot);
    view(slot)?.slot().reset();
    Ok((slot, token))
}

/// Gives a token back that was not used.
pub(crate) fn return_token(slot: u32, token: OwnedFd) {
    if let Ok(socket) = view(slot) {
        socket.slot().conn.store_state(slot_state::FREE);
    }
    lock().pool.push_front((slot, token));
}

/// The words of a slot.
pub(crate) fn view(slot: u32) -> Result<Socket<'static>, Errno> {
    Socket::new(&family()?.region, slot).ok_or(Errno::BADF)
}

/// What poll(2) and epoll report though nobody has asked for it.
pub(crate) const ALWAYS: u32 = ready::ERR | ready::HUP;

/// As poll(2) would report the slot to this process.
pub(crate) fn readiness(slot: u32) -> u32 {
    if STATE.load(Ordering::Relaxed) == state::REFUSED {
        // A child that has no place at toed's: every call fails at once.
        return ready::IN | ready::OUT | ALWAYS;
    }
    view(slot).map_or(ALWAYS, |socket| socket.readiness())
}

/// Notes that this process gets the slot's events (or notices) already.
pub(crate) fn set_bound(slot: u32) {
    if let Some(bits) = FAMILY.get().and_then(|f| f.local.get(slot as usize)) {
        bits.fetch_or(local::BOUND, Ordering::Relaxed);
    }
}

fn set_unbound(slot: u32) {
    if let Some(bits) = FAMILY.get().and_then(|f| f.local.get(slot as usize)) {
        bits.store(0, Ordering::Relaxed);
    }
}

/// The slot, after making sure that its events or notices come to this process.
#[inline]
pub(crate) fn touch(slot: u32) -> Result<Socket<'static>, Errno> {
    let family = family()?;
    let socket = Socket::new(&family.region, slot).ok_or(Errno::BADF)?;
    let bits = family.local.get(slot as usize).ok_or(Errno::BADF)?;
    // The other process may have taken it back since: then the slot names its context.
    let bound = bits.load(Ordering::Relaxed) & local::BOUND != 0;
    if bound && (!is_shared() || socket.slot().conn.ctx.load(Ordering::Relaxed) == hub::ctx()) {
        return Ok(socket);
    }
    bind_here(socket, bits)?;
    Ok(socket)
}

/// Whether this process gets the slot's events, as far as it knows.
pub(crate) fn is_here(slot: u32) -> bool {
    let bits = FAMILY.get().and_then(|f| f.local.get(slot as usize)).map_or(0, |bits| bits.load(Ordering::Relaxed));
    let ctx = || view(slot).is_ok_and(|socket| socket.slot().conn.ctx.load(Ordering::Relaxed) == hub::ctx());
    bits & local::BOUND != 0 && (!is_shared() || ctx())
}

#[cold]
fn bind_here(socket: Socket<'static>, bits: &AtomicU8) -> Result<(), Errno> {
    match attach() {
        Ok(()) => {}
        // What has arrived can still be read, and the rest ends in an error that the slot holds by now.
        Err(_) if socket.is_dead() => return Ok(()),
        Err(e) => return Err(e),
    }
    let slot = socket.index();
    match socket.state() {
        slot_state::LISTENING if bits.load(Ordering::Relaxed) & local::BOUND == 0 => {
            let ctx = hub::ctx();
            ask(|client| client.subscribe(slot, ctx))?;
            bits.fetch_or(local::BOUND, Ordering::Relaxed);
            hub::lock().watch_notices(slot);
        }
        slot_state::CONNECTED => {
            // From now on this process holds it: should it die, the peer is to learn.
            socket.set_flag(slot_flags::CLEAN, false);
            bits.fetch_or(local::BOUND, Ordering::Relaxed);
            hub::lock().take_over(slot);
            if socket.has_flag(own_flags::OWNED) {
                // Of a process that may be no more.
                socket.set_flag(own_flags::SIGNAL_DUE, false);
                urgent::start();
            }
        }
        slot_state::CONNECTING => {
            bits.fetch_or(local::BOUND, Ordering::Relaxed);
            hub::lock().watch_notices(slot);
        }
        _ => {}
    }
    Ok(())
}

/// toed or the card has gone: no new sockets from here.
pub(crate) fn set_lost() {
    STATE.store(state::LOST, Ordering::Release);
}

// --- fork and exit

thread_local! {
    /// What the forking thread holds across fork(): no other thread is half-way through anything then.
    static HELD: RefCell<Option<(MutexGuard<'static, Control>, MutexGuard<'static, Hub>)>> = const { RefCell::new(None) };
}

/// Before fork(), in the parent.
pub fn fork_prepare() {
    if FAMILY.get().is_some() {
        let _ = HELD.try_with(|held| *held.borrow_mut() = Some((lock(), hub::lock())));
    }
}

/// After fork(), in the parent.
pub fn fork_parent() {
    let held = HELD.try_with(|held| held.borrow_mut().take()).ok().flatten();
    if held.is_some() {
        set_shared();
    }
}

/// After fork(), in the child: gives up the parent's queues and its connection, which it must neither use nor keep open.
pub fn fork_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    PID.store(pid(), Ordering::Relaxed);
    let Some((mut control, mut hub)) = HELD.try_with(|held| held.borrow_mut().take()).ok().flatten() else { return };
    set_shared();
    let fds = FAMILY.get().map(|f| [Some(&f.region_fd), f.keeper.as_ref()]);
    let keep = fds.map(|fds| fds.map(|fd| fd.map(AsRawFd::as_raw_fd)));
    for (fd, kind) in fdtable::ours(0, u32::MAX) {
        if kind == Kind::Internal && !keep.is_some_and(|keep| keep.contains(&Some(fd))) {
            fdtable::clear(fd);
            let _ = AppFd(fd).close();
        }
    }
    // Their descriptors were closed just now, by number: the owners must not do it again.
    std::mem::forget(control.client.take());
    std::mem::forget(std::mem::take(&mut control.pool));
    hub.forget_parent();
    for bits in FAMILY.get().iter().flat_map(|f| f.local.iter()) {
        bits.store(0, Ordering::Relaxed);
    }
    if STATE.load(Ordering::Relaxed) == state::ATTACHED {
        STATE.store(state::INHERITED, Ordering::Relaxed);
    }
}

/// The process ends in order (exit, _exit): what it holds is closed and not reset.
pub fn exiting() {
    if !is_attached() || !is_own() {
        return;
    }
    let_go();
    part_from_all();
    if let Ok(mut control) = CONTROL.try_lock()
        && let Some(client) = control.client.as_mut()
    {
        client.bye();
    }
}

/// Another program is about to take this process over: it may inherit sockets, but neither queues nor connection.
pub fn exec() {
    if !is_own() {
        // A vfork child, in its parent's memory: the parent shares its sockets from now on.
        set_shared();
        return;
    }
    if !is_attached() {
        return;
    }
    let_go();
}

/// The process is about to go where toed's socket is out of its reach: it attaches before.
pub fn chroot() {
    if is_own() {
        let _ = attach();
    }
}

/// Another program is about to be started by a function of libc's (posix_spawn, system, popen), out of this library's sight: it may have sockets
/// of this process, which shares them from now on.
pub fn spawn() {
    if fdtable::ours(0, u32::MAX).any(|(_, kind)| matches!(kind, Kind::Socket(_))) {
        set_shared();
    }
}

/// How long the end of a process that shares its sockets waits for the card, at most.
const TAKEN_WITHIN: Duration = Duration::from_millis(100);
const TAKEN_LOOK: Duration = Duration::from_micros(20);

/// Tells the card what it does not know yet, and says in the slots that their closing is meant. The card reads the queue to its end before it
/// closes it.
fn let_go() {
    // A thread that ends the process while another holds the lock does not wait for it: toed finds what the slots say.
    if let Ok(mut hub) = hub::try_lock() {
        hub.drain();
        hub.flush();
        // Who uses its sockets next tells the card so: by a queue of its own, of which the card may read first.
        let end = Instant::now() + TAKEN_WITHIN;
        while is_shared() && !hub.is_taken() && Instant::now() < end {
            let _ = ppoll(&mut [], Some(TAKEN_LOOK), None);
        }
    }
    for (_, kind) in fdtable::ours(0, u32::MAX) {
        if let Kind::Socket(slot) = kind
            && let Ok(socket) = view(slot)
        {
            // SO_LINGER with zero seconds asks for a reset.
            socket.mark_clean(socket.slot().tx.linger.load(Ordering::Relaxed) != 1);
        }
    }
}

/// Gives all sockets up, and tells the card of those that no other process holds: toed, which sees them go by itself, may be stopped. A thread
/// that still runs finds a file at their numbers that can neither be read nor written.
fn part_from_all() {
    let (Ok(mut hub), Ok(copies)) = (hub::try_lock(), Copies::new()) else { return };
    let Some(toed) = hub.conn().and_then(maker) else { return };
    let mut last = BTreeMap::new();
    for (fd, kind) in fdtable::ours(0, u32::MAX) {
        // libc may have closed the number behind our back, and put a file there whose last bytes are still to be written.
        if let Kind::Socket(slot) = kind
            && maker(AppFd(fd)) == Some(toed)
            && let Some(farewell) = view(slot).ok().and_then(|socket| socket.farewell())
            && copies.watch(AppFd(fd), slot.into()).is_ok()
            && AppFd(fd).replace(&copies, true).is_ok()
        {
            fdtable::clear(fd);
            last.insert(u64::from(slot), farewell);
        }
    }
    let Ok(left) = copies.left(last.len().max(1)) else { return };
    left.iter().for_each(|slot| _ = last.remove(slot));
    last.into_values().for_each(|farewell| hub.part(farewell));
}
