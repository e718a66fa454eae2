//! Sockets around the [`Roster`]: one thread, an epoll instance, no timer while nothing waits.

use crate::{options::Options, roster::Roster};
use anyhow::{Context, Result, bail, ensure};
use rustix::{
    event::{
        EventfdFlags,
        epoll::{self, EventData, EventFlags},
        eventfd,
    },
    fd::{AsFd, OwnedFd},
    fs::{FileType, MemfdFlags, Mode, SealFlags},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
    time::Timespec,
};
use std::{
    collections::BTreeMap,
    io::Read,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};
use toe_link::ivshmem;

/// Peers at a time: a virtual machine, toed, and some tools that look on.
const PEERS_MAX: usize = 16;
/// Fewer would be of no use.
const PEERS_MIN: usize = 3;
/// Descriptors besides those of vectors.
const DESCRIPTORS: usize = 64;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;
/// When something is lacking (descriptors, memory, room in the kernel), it is tried again after this.
const RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

const SIGNALS: u64 = 0;
const LISTENER: u64 = 1;
/// Connections' numbers begin here and are not used twice, so that an event for one that was closed meanwhile finds nothing.
const FIRST_PEER: u64 = 2;

struct Connection {
    socket: OwnedFd,
    id: u16,
    /// Room in its socket is waited for.
    blocked: bool,
}

/// See the module.
pub struct Server {
    listener: Socket,
    epoll: OwnedFd,
    signals: UnixStream,
    roster: Roster<OwnedFd>,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    vectors: u16,
    retry: bool,
    stop: bool,
}

impl Server {
    /// Makes the window and listens.
    pub fn start(options: &Options) -> Result<Self> {
        let signals = signal_pipe().context("setting up signals")?;
        let most = peers_max(options.vectors)?;
        let memory = window(options.size).with_context(|| format!("--size {}: making the window", options.size))?;
        let listener = Socket::listen(&options.socket)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &signals, EventData::new_u64(SIGNALS), EventFlags::IN)?;
        epoll::add(&epoll, &listener.fd, EventData::new_u64(LISTENER), EventFlags::IN)?;
        tracing::info!(socket = %options.socket.display(), size = options.size, vectors = options.vectors, "ready");
        Ok(Self {
            listener,
            epoll,
            signals,
            roster: Roster::new(memory, most),
            connections: BTreeMap::new(),
            next: FIRST_PEER,
            vectors: options.vectors,
            retry: false,
            stop: false,
        })
    }

    /// Serves until a signal ends it.
    pub fn serve(&mut self) -> Result<()> {
        while !self.stop {
            let mut events = Vec::with_capacity(32);
            let timeout = self.retry.then_some(&RETRY);
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e).context("waiting for events"),
            }
            if std::mem::take(&mut self.retry) {
                self.listen(true);
            }
            for event in events {
                self.event(event.data.u64(), event.flags);
            }
            self.tell_all();
        }
        tracing::info!("ending");
        Ok(())
    }

    fn event(&mut self, key: u64, flags: EventFlags) {
        match key {
            SIGNALS => {
                let _ = self.signals.read(&mut [0; 16]);
                self.stop = true;
            }
            LISTENER => self.accept(),
            // Peers have nothing to say: whatever can be read, an end or a word, ends it.
            _ if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) => self.part(key, "it has gone"),
            _ => {
                if let Some(c) = self.connections.get_mut(&key) {
                    c.blocked = false;
                }
            }
        }
    }

    fn listen(&self, on: bool) {
        let flags = if on { EventFlags::IN } else { EventFlags::empty() };
        // It cannot fail: both descriptors are ours, and the one is in the other.
        let _ = epoll::modify(&self.epoll, &self.listener.fd, EventData::new_u64(LISTENER), flags);
    }

    fn accept(&mut self) {
        match self.try_accept() {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(e) => {
                tracing::warn!("a peer could not connect: {e}");
                self.listen(false);
                self.retry = true;
            }
        }
    }

    fn try_accept(&mut self) -> Result<(), Errno> {
        let socket = rustix::net::accept_with(&self.listener.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        if self.roster.is_full() {
            tracing::warn!("a peer was turned away: there are {} already", self.roster.len());
            return Ok(());
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let vectors = (0..self.vectors).map(|_| eventfd(0, flags)).collect::<Result<Vec<_>, _>>()?;
        let key = self.next;
        epoll::add(&self.epoll, &socket, EventData::new_u64(key), EventFlags::IN | EventFlags::RDHUP)?;
        let Some(id) = self.roster.join(vectors) else { return Ok(()) };
        self.next += 1;
        self.connections.insert(key, Connection { socket, id, blocked: false });
        tracing::info!(peer = id, "joined");
        Ok(())
    }

    fn part(&mut self, key: u64, why: &str) {
        if let Some(c) = self.connections.remove(&key) {
            self.roster.leave(c.id);
            tracing::info!(peer = c.id, "left: {why}");
        }
    }

    /// Sends what waits. A peer that can't be told is let go, which is news for the others.
    fn tell_all(&mut self) {
        loop {
            let mut lost = Vec::new();
            for (&key, c) in &mut self.connections {
                match tell(&mut self.roster, &self.epoll, key, c) {
                    Ok(()) => {}
                    // Too many descriptors are on their way to peers that don't read.
                    Err(Errno::TOOMANYREFS | Errno::NOMEM | Errno::NOBUFS) => self.retry = true,
                    Err(e) => lost.push((key, e.to_string())),
                }
                if self.roster.is_stuck(c.id) {
                    lost.push((key, "it does not read".into()));
                }
            }
            if lost.is_empty() {
                return;
            }
            lost.into_iter().for_each(|(key, why)| self.part(key, &why));
        }
    }
}

/// Sends one peer what waits for it, as far as there is room.
fn tell(roster: &mut Roster<OwnedFd>, epoll: &OwnedFd, key: u64, c: &mut Connection) -> Result<(), Errno> {
    let blocked_before = c.blocked;
    while !c.blocked
        && let Some(message) = roster.next(c.id)
    {
        match ivshmem::send(&c.socket, message.value, message.fd.as_deref().map(AsFd::as_fd)) {
            Ok(()) => roster.sent(c.id),
            Err(Errno::AGAIN) => c.blocked = true,
            Err(e) => return Err(e),
        }
    }
    let mut flags = EventFlags::IN | EventFlags::RDHUP;
    flags.set(EventFlags::OUT, c.blocked);
    if c.blocked && blocked_before { Ok(()) } else { epoll::modify(epoll, &c.socket, EventData::new_u64(key), flags) }
}

/// Memory that everybody can map and nobody resize.
fn window(size: u64) -> Result<OwnedFd, Errno> {
    let memfd = rustix::fs::memfd_create("toe-window", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memfd, size)?;
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memfd)
}

/// How many peers there can be, each with its vectors, after the limit of open files was raised as far as it goes.
fn peers_max(vectors: u16) -> Result<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // What is lacking then shows below.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = getrlimit(Resource::Nofile).current.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let most = (files.saturating_sub(DESCRIPTORS) / usize::from(vectors)).min(PEERS_MAX);
    ensure!(most >= PEERS_MIN, "--vectors {vectors}: too many for {files} open files; raise the limit (ulimit -n) or ask for fewer");
    Ok(most)
}

/// The socket, and its file, which goes with it.
struct Socket {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode: only our own file is removed.
    file: (u64, u64),
}

impl Socket {
    fn listen(path: &Path) -> Result<Self> {
        let show = path.display();
        let address = SocketAddrUnix::new(path).with_context(|| format!("--socket {show}: the path is too long for a socket"))?;
        remove_stale(path, &address).with_context(|| format!("--socket {show}"))?;
        let fd = stream(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        // Bound under a strict mask: who gets in can reach the memory of every application.
        let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = rustix::net::bind(&fd, &address);
        rustix::process::umask(umask);
        bound.with_context(|| format!("--socket {show}: binding"))?;
        let stat = rustix::fs::lstat(path).with_context(|| format!("--socket {show}"))?;
        let socket = Self { fd, path: path.to_owned(), file: (stat.st_dev, stat.st_ino) };
        rustix::net::listen(&socket.fd, BACKLOG).with_context(|| format!("--socket {show}: listening"))?;
        Ok(socket)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if rustix::fs::lstat(&self.path).is_ok_and(|s| (s.st_dev, s.st_ino) == self.file) {
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

fn stream(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Removes the socket of a server that was killed. One that still answers, or anything that is no socket, stays.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<()> {
    match rustix::fs::lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
        Ok(s) if FileType::from_raw_mode(s.st_mode) != FileType::Socket => bail!("there is a file of this name that is no socket"),
        Ok(_) => {}
    }
    match rustix::net::connect(stream(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?, address) {
        Err(Errno::CONNREFUSED) => rustix::fs::unlink(path).context("removing what an earlier server has left"),
        _ => bail!("another server listens there"),
    }
}

/// SIGTERM and SIGINT as something readable.
fn signal_pipe() -> Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}
