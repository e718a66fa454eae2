//! The library's connection to toed: `toe_abi::app` as typed calls.
//!
//! [`Daemon`] is what libraries program against; [`Client`] is the real one, simulations bring their own. Calls are
//! answered at once (nothing there waits for the network), with a deadline, after which the connection counts as dead.

use crate::slot::Addr;
use crate::sys::AppFd;
use crate::{fdnum, sys, uds};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::Uid;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use toe_abi::app::{APP_MAGIC, Info, MSG_LEN, POOL_MAX, Reply, Request, op};
use zerocopy::{FromBytes, IntoBytes};

/// How long toed may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What a library asks of the control plane about its sockets.
pub trait Daemon {
    /// What keeps a slot alive: when the last copy is dropped, toed closes what the slot names.
    type Token;

    /// Fresh slots with their tokens, at least one and at most `wanted`.
    fn pool(&mut self, wanted: u32) -> Result<Vec<(u32, Self::Token)>, Errno>;
    /// Names the local end; `flags` are `toe_abi::app::bind_flags`. Answers what was bound.
    fn bind(&mut self, slot: u32, addr: Addr, flags: u16) -> Result<Addr, Errno>;
    /// Starts to listen; notices go to context `ctx`. Answers the port.
    fn listen(&mut self, slot: u32, backlog: u32, ctx: u32) -> Result<u16, Errno>;
    /// Starts to connect; the outcome appears in the slot, with a notice to context `ctx`. Answers the local end.
    fn connect(&mut self, slot: u32, addr: Addr, ctx: u32) -> Result<Addr, Errno>;
    /// Sends a listener's notices to context `ctx` as well.
    fn subscribe(&mut self, slot: u32, ctx: u32) -> Result<(), Errno>;
    /// Stops listening.
    fn unlisten(&mut self, slot: u32) -> Result<(), Errno>;
    /// The process no longer uses context `ctx`.
    fn close_context(&mut self, ctx: u32) -> Result<(), Errno>;
    /// Lets a token go. `true`: that was its last copy, in any process; `false`: it was not, or that can't be known.
    fn close(&mut self, token: Self::Token) -> bool;
    /// Kicks the card about context `ctx`: its core sleeps, and there is a descriptor for it.
    fn kick(&mut self, ctx: u32);
}

/// Why there is no connection to toed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot reach toed at {}: {errno} (is it running? `toectl up` starts it; TOE_RUN_DIR names its folder)", path.display())]
    Unreachable { path: PathBuf, errno: Errno },
    #[error("{} belongs to somebody else, and so may the toed there: name another folder with TOE_RUN_DIR", folder.display())]
    Stranger { folder: PathBuf },
    #[error("toed has ABI version {theirs:#x}, this library {ours:#x}: use the libraries that came with it", ours = toe_abi::ABI_VERSION)]
    Version { theirs: u32 },
    #[error("toed refused at {step}: {errno}")]
    Refused { step: &'static str, errno: Errno },
    #[error("toed's answer to {step} lacks a descriptor")]
    NoDescriptor { step: &'static str },
}

/// Offsets of regions are told in pages.
const PAGE: u64 = 4096;

/// A pair of queues that toed has opened for this process.
pub struct Doorbell {
    /// Index of the context in the region.
    pub ctx: u32,
    kick: OwnedFd,
    irq: OwnedFd,
}

impl Doorbell {
    /// Wakes the card's core.
    pub fn kick(&self) {
        // EAGAIN: the counter is full of kicks that are pending. Nothing else can go wrong with an open eventfd.
        let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }

    /// Becomes readable when the card or toed has something for a parked context. [`acknowledge`](Self::acknowledge) consumes.
    pub fn irq(&self) -> BorrowedFd<'_> {
        self.irq.as_fd()
    }

    /// Takes the interrupts that are pending; `true` if there was one.
    pub fn acknowledge(&self) -> bool {
        let mut events = [rustix::event::epoll::Event {
            flags: rustix::event::epoll::EventFlags::empty(),
            data: rustix::event::epoll::EventData::new_u64(0),
        }; 1];
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::epoll::wait(&self.irq, &mut events[..], Some(&zero)).is_ok_and(|n| n > 0)
    }

    /// Every descriptor in it, to be kept out of the application's way.
    pub fn fds(&self) -> [i32; 2] {
        [self.kick.as_raw_fd(), self.irq.as_raw_fd()]
    }
}

/// What toed said in its answer to HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The region's number on the card.
    pub region: u32,
    /// Where it begins in the memory of the descriptor that came along, bytes.
    pub offset: u64,
    /// The first of the card's addresses (port 0; zeroes: it has none yet) and its prefix length.
    pub addr: Addr,
    pub prefix: u32,
    /// Link-local addresses of this scope are on the card's link; 0: of none.
    pub scope: u32,
}

/// What shows that a process belongs to a family.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// Its region: the descriptor, and where in it ([`Welcome::offset`]).
    Region(BorrowedFd<'a>, u64),
    /// A token that it has inherited.
    Token(BorrowedFd<'a>),
}

/// A connection to toed. All its descriptors have high numbers and are close-on-exec.
pub struct Client {
    socket: OwnedFd,
    welcome: Welcome,
    bells: Vec<Doorbell>,
    /// An answer is missing: nothing that comes now can be matched to a request.
    dead: bool,
}

impl Client {
    /// Says HELLO at `path` (`toed.sock`). `proof` shows membership in a family; `ticket` is [`ticket()`]'s. Returns the region's
    /// descriptor as well; [`Welcome::offset`] says where in it the region is.
    pub fn open(path: &Path, proof: Option<Proof<'_>>, ticket: u64) -> Result<(Self, OwnedFd), OpenError> {
        if let Some(folder) = path.parent().filter(|folder| is_strangers(folder, rustix::process::geteuid())) {
            return Err(OpenError::Stranger { folder: folder.to_owned() });
        }
        let socket = uds::connect(path).map_err(|errno| OpenError::Unreachable { path: path.to_owned(), errno })?;
        let welcome = Welcome { region: 0, offset: 0, addr: Addr::default(), prefix: 0, scope: 0 };
        let mut client = Self { socket: fdnum::raise(socket), welcome, bells: Vec::new(), dead: false };
        let pid = u64::from(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs());
        let (fd, offset) = match proof {
            Some(Proof::Region(fd, offset)) => (Some(fd), offset),
            Some(Proof::Token(fd)) => (Some(fd), 0),
            None => (None, 0),
        };
        let page = u32::try_from(offset / PAGE).unwrap_or(u32::MAX);
        let hello = request(op::HELLO, page, [APP_MAGIC, toe_abi::ABI_VERSION.into(), pid, ticket]);
        let proofs: &[BorrowedFd<'_>] = fd.as_slice();
        let refused = |errno| OpenError::Refused { step: "HELLO", errno };
        let (reply, mut fds) = client.exchange(&hello, proofs).map_err(refused)?;
        let theirs = reply.args[0] as u32;
        if reply.errno == Errno::PROTO.raw_os_error().unsigned_abs() || (reply.errno == 0 && !toe_abi::compatible(theirs)) {
            return Err(OpenError::Version { theirs });
        }
        status(&reply).map_err(refused)?;
        let region = fds.pop().ok_or(OpenError::NoDescriptor { step: "HELLO" })?;
        client.welcome = Welcome {
            region: reply.args[1] as u32,
            offset: reply.args[3],
            addr: Addr { ip: reply.ip, port: 0 },
            prefix: (reply.args[2] as u32).min(128),
            scope: reply.scope,
        };
        Ok((client, fdnum::raise(region)))
    }

    pub fn welcome(&self) -> Welcome {
        self.welcome
    }

    /// Opens a pair of queues for this process.
    pub fn open_context(&mut self) -> Result<Doorbell, OpenError> {
        let step = "OPEN_CONTEXT";
        let refused = |errno| OpenError::Refused { step, errno };
        let (reply, fds) = self.call(&request(op::OPEN_CONTEXT, 0, [0; 4]), &[]).map_err(refused)?;
        let ctx = reply.args[0] as u32;
        let mut fds = fds.into_iter().map(fdnum::raise);
        let (Some(kick), Some(irq)) = (fds.next(), fds.next()) else {
            return Err(OpenError::NoDescriptor { step });
        };
        Ok(Doorbell { ctx, kick, irq })
    }

    /// Leaves the kicking of `bell`'s context to [`Daemon::kick`].
    pub fn keep(&mut self, bell: Doorbell) {
        self.bells.push(bell);
    }

    /// The doorbell kept for context `ctx`.
    pub fn bell(&self, ctx: u32) -> Option<&Doorbell> {
        self.bells.iter().find(|bell| bell.ctx == ctx)
    }

    /// The slot of a token that was inherited.
    pub fn identify(&mut self, token: BorrowedFd<'_>) -> Result<u32, Errno> {
        let (reply, _) = self.call(&request(op::IDENTIFY, 0, [0; 4]), &[token])?;
        Ok(reply.args[0] as u32)
    }

    /// What the card has to do with an address: `toe_abi::app::whose`.
    pub fn whose(&mut self, ip: [u8; 16]) -> Result<u64, Errno> {
        let whose = Request { ip, ..request(op::WHOSE, 0, [0; 4]) };
        self.call(&whose, &[]).map(|(reply, _)| reply.args[0])
    }

    /// Limits what a socket's connection sends, or those of a listener to come; bytes per second, `u64::MAX`: unlimited.
    pub fn limit_rate(&mut self, slot: u32, rate: u64) -> Result<(), Errno> {
        self.call(&request(op::RATE, slot, [rate, 0, 0, 0]), &[]).map(drop)
    }

    /// Congestion control ([`toe_abi::flow::cc`]) of a socket's connection, or of those of a listener to come.
    pub fn set_congestion(&mut self, slot: u32, algorithm: u8) -> Result<(), Errno> {
        self.call(&request(op::CONGESTION, slot, [algorithm.into(), 0, 0, 0]), &[]).map(drop)
    }

    /// How a socket's connection stands, by its card.
    pub fn info(&mut self, slot: u32) -> Result<Info, Errno> {
        self.call(&request(op::INFO, slot, [0; 4]), &[]).map(|(reply, _)| reply.info())
    }

    /// The process ends in order. toed keeps what other processes hold, and closes the rest without a reset.
    pub fn bye(&mut self) {
        // If toed has gone there is nobody to be told.
        let _ = uds::send(&self.socket, request(op::BYE, 0, [0; 4]).as_bytes(), &[]);
    }

    /// The socket: readable (end of file) when toed has gone.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn call(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>), Errno> {
        let (reply, fds) = self.exchange(request, fds)?;
        status(&reply)?;
        Ok((reply, fds))
    }

    /// One request and its answer, whatever the answer says.
    fn exchange(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>), Errno> {
        if self.dead {
            return Err(Errno::NETDOWN);
        }
        // Until the answer is here, any way out of this function leaves the connection unusable.
        self.dead = true;
        uds::send(&self.socket, request.as_bytes(), fds).map_err(|_| Errno::NETDOWN)?;
        self.await_answer()?;
        let (mut buf, mut received) = ([0; MSG_LEN], Vec::new());
        match uds::recv(&self.socket, &mut buf, &mut received) {
            Ok(MSG_LEN) => {}
            // The answer is here, and only its descriptors are lost: toed sees them close.
            Err(Errno::MFILE) => {
                self.dead = false;
                return Err(Errno::MFILE);
            }
            _ => return Err(Errno::NETDOWN),
        }
        let reply = Reply::read_from_bytes(&buf).map_err(|_| Errno::NETDOWN)?;
        self.dead = false;
        Ok((reply, received))
    }

    fn await_answer(&self) -> Result<(), Errno> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            match sys::ppoll(&mut fds, Some(left), None) {
                Ok(0) => return Err(Errno::NETDOWN),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Errno::NETDOWN),
            }
        }
    }
}

impl Daemon for Client {
    type Token = OwnedFd;

    fn pool(&mut self, wanted: u32) -> Result<Vec<(u32, OwnedFd)>, Errno> {
        let wanted = u64::from(wanted).min(POOL_MAX as u64);
        let (reply, fds) = self.call(&request(op::POOL, 0, [wanted, 0, 0, 0]), &[])?;
        let slots = reply.slots.iter().take(reply.count as usize).map(|&slot| u32::from(slot));
        let tokens: Vec<_> = slots.zip(fds.into_iter().map(fdnum::raise)).collect();
        if tokens.is_empty() { Err(Errno::NFILE) } else { Ok(tokens) }
    }

    fn bind(&mut self, slot: u32, addr: Addr, flags: u16) -> Result<Addr, Errno> {
        let bind = Request { ip: addr.ip, port: addr.port, flags, ..request(op::BIND, slot, [0; 4]) };
        let (reply, _) = self.call(&bind, &[])?;
        Ok(Addr { ip: reply.ip, port: reply.port })
    }

    fn listen(&mut self, slot: u32, backlog: u32, ctx: u32) -> Result<u16, Errno> {
        let (reply, _) = self.call(&request(op::LISTEN, slot, [backlog.into(), ctx.into(), 0, 0]), &[])?;
        Ok(reply.port)
    }

    fn connect(&mut self, slot: u32, addr: Addr, ctx: u32) -> Result<Addr, Errno> {
        let connect = Request { ip: addr.ip, port: addr.port, ..request(op::CONNECT, slot, [ctx.into(), 0, 0, 0]) };
        let (reply, _) = self.exchange(&connect, &[])?;
        match status(&reply) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Addr { ip: reply.ip, port: reply.port }),
            Err(e) => Err(e),
        }
    }

    fn subscribe(&mut self, slot: u32, ctx: u32) -> Result<(), Errno> {
        self.call(&request(op::SUBSCRIBE, slot, [ctx.into(), 0, 0, 0]), &[]).map(drop)
    }

    fn unlisten(&mut self, slot: u32) -> Result<(), Errno> {
        self.call(&request(op::UNLISTEN, slot, [0; 4]), &[]).map(drop)
    }

    fn close_context(&mut self, ctx: u32) -> Result<(), Errno> {
        self.bells.retain(|bell| bell.ctx != ctx);
        self.call(&request(op::CLOSE_CONTEXT, 0, [ctx.into(), 0, 0, 0]), &[]).map(drop)
    }

    fn close(&mut self, token: OwnedFd) -> bool {
        AppFd(token.into_raw_fd()).close_last().unwrap_or(false)
    }

    fn kick(&mut self, ctx: u32) {
        if let Some(bell) = self.bell(ctx) {
            bell.kick();
        }
    }
}

fn request(op: u32, slot: u32, args: [u64; 4]) -> Request {
    Request { op, slot, args, ..Request::default() }
}

/// The reply's errno, kept inside the range that Linux uses.
fn status(reply: &Reply) -> Result<(), Errno> {
    match reply.errno {
        0 => Ok(()),
        n @ 1..=4095 => Err(Errno::from_raw_os_error(n as i32)),
        _ => Err(Errno::IO),
    }
}

/// The folder with the daemon's socket: `$TOE_RUN_DIR`, else by user (docs/architecture.md).
pub fn run_dir() -> PathBuf {
    std::env::var_os("TOE_RUN_DIR").filter(|dir| !dir.is_empty()).map_or_else(default_run_dir, PathBuf::from)
}

/// The same, if nobody has named one.
pub fn default_run_dir() -> PathBuf {
    default_for(rustix::process::geteuid(), std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))
}

fn default_for(user: Uid, xdg_runtime_dir: Option<PathBuf>) -> PathBuf {
    match xdg_runtime_dir {
        _ if user.is_root() => "/run/toe".into(),
        // Of a relative one the specification says that it is to be ignored.
        Some(dir) if dir.is_absolute() => dir.join("toe"),
        _ => format!("/tmp/toe-{}", user.as_raw()).into(),
    }
}

/// Whether `folder` is where `user`'s toed is looked for if nobody says where, but somebody else has made it: in /tmp whoever comes first can.
fn is_strangers(folder: &Path, user: Uid) -> bool {
    let owner = || rustix::fs::lstat(folder).map(|found| found.st_uid);
    folder == default_for(user, None) && owner().is_ok_and(|owner| owner != user.as_raw())
}

/// What `toectl run` has reserved for this program (`TOE_TICKET`); 0: nothing.
pub fn ticket() -> u64 {
    std::env::var("TOE_TICKET").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::JoinHandle;

    /// A daemon that gives one answer per request and returns what it was asked.
    fn daemon(answers: Vec<(Reply, usize)>) -> (PathBuf, JoinHandle<Vec<Request>>) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("toe-client-{}-{}.sock", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let listener = uds::listen(&path, 1).unwrap();
        let thread = std::thread::spawn(move || {
            let wait = |fd: BorrowedFd<'_>| {
                let mut fds = [libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
                sys::ppoll(&mut fds, None, None).unwrap();
            };
            wait(listener.as_fd());
            let socket = uds::accept(&listener).unwrap();
            let mut asked = Vec::new();
            for (reply, fds) in answers {
                let mut buf = [0; MSG_LEN];
                wait(socket.as_fd());
                if uds::recv(&socket, &mut buf, &mut Vec::new()) != Ok(MSG_LEN) {
                    break;
                }
                asked.push(Request::read_from_bytes(&buf).unwrap());
                let pairs: Vec<_> = (0..fds).map(|_| uds::token_pair().unwrap()).collect();
                let ends: Vec<_> = pairs.iter().map(|(end, _)| end.as_fd()).collect();
                uds::send(&socket, reply.as_bytes(), &ends).unwrap();
            }
            asked
        });
        (path, thread)
    }

    fn hello() -> Reply {
        Reply { args: [toe_abi::ABI_VERSION.into(), 3, 24, 8192], ip: Addr::v4([10, 0, 0, 1], 0).ip, scope: 5, ..Reply::default() }
    }

    #[test]
    fn requests_carry_what_the_contract_says() {
        let mut pool = Reply { count: 2, ..Reply::default() };
        pool.slots[..2].copy_from_slice(&[5, 6]);
        let bound = Reply { ip: Addr::v4([10, 0, 0, 1], 0).ip, port: 80, ..Reply::default() };
        let progress = Reply { errno: Errno::INPROGRESS.raw_os_error() as u32, port: 40000, ..Reply::default() };
        let answers = vec![(hello(), 1), (pool, 2), (bound, 0), (progress, 0)];
        let (path, thread) = daemon(answers);
        let (mut client, _region) = Client::open(&path, None, 77).unwrap();
        assert_eq!(client.welcome(), Welcome { region: 3, offset: 8192, addr: Addr::v4([10, 0, 0, 1], 0), prefix: 24, scope: 5 });
        let tokens = client.pool(2).unwrap();
        assert_eq!(tokens.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [5, 6]);
        assert!(tokens.iter().all(|(_, fd)| fd.as_raw_fd() >= fdnum::floor()));
        assert_eq!(client.bind(5, Addr::default(), 1), Ok(Addr::v4([10, 0, 0, 1], 80)));
        assert_eq!(client.connect(6, Addr::v4([10, 0, 0, 2], 99), 1).map(|a| a.port), Ok(40000));
        let asked = thread.join().unwrap();
        assert_eq!((asked[0].op, asked[0].args[0], asked[0].args[1] as u32), (op::HELLO, APP_MAGIC, toe_abi::ABI_VERSION));
        assert_eq!(asked[0].args[3], 77);
        assert_eq!((asked[2].op, asked[2].slot, asked[2].flags), (op::BIND, 5, 1));
        assert_eq!((asked[3].op, asked[3].slot, asked[3].port, asked[3].args[0]), (op::CONNECT, 6, 99, 1));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_daemon_of_another_version_is_refused_by_name() {
        let proto = Reply { errno: Errno::PROTO.raw_os_error() as u32, args: [7 << 16, 0, 0, 0], ..Reply::default() };
        let (path, thread) = daemon(vec![(proto, 0)]);
        assert!(matches!(Client::open(&path, None, 0), Err(OpenError::Version { theirs }) if theirs == 7 << 16));
        thread.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_daemon_that_is_not_there_is_named() {
        let error = Client::open(Path::new("/nonexistent/toed.sock"), None, 0).err().unwrap();
        assert!(error.to_string().contains("/nonexistent/toed.sock"), "{error}");
    }

    #[test]
    fn root_and_others_have_their_folders() {
        let folder = |user, xdg: Option<&str>| default_for(Uid::from_raw(user), xdg.map(PathBuf::from));
        assert_eq!(folder(0, Some("/run/user/0")), Path::new("/run/toe"));
        assert_eq!(folder(1000, Some("/run/user/1000")), Path::new("/run/user/1000/toe"));
        assert_eq!(folder(1000, Some("relative")), Path::new("/tmp/toe-1000"));
        assert_eq!(folder(1000, None), Path::new("/tmp/toe-1000"));
    }

    #[test]
    fn a_folder_that_somebody_else_has_made_in_tmp_is_not_believed() {
        // A user whom nobody is.
        let user = Uid::from_raw(0x7000_0000 + std::process::id());
        let folder = default_for(user, None);
        assert!(!is_strangers(&folder, user), "it is not there");
        std::fs::create_dir(&folder).unwrap();
        assert!(is_strangers(&folder, user));
        assert!(!is_strangers(&folder, rustix::process::geteuid()), "who says so may use any folder");
        std::fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn a_daemon_that_goes_away_is_an_error_not_a_wait() {
        let (path, thread) = daemon(vec![(hello(), 1)]);
        let (mut client, _region) = Client::open(&path, None, 0).unwrap();
        thread.join().unwrap();
        assert_eq!(client.subscribe(1, 1), Err(Errno::NETDOWN));
        assert_eq!(client.unlisten(1), Err(Errno::NETDOWN), "and stays one");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn errno_out_of_range_does_not_panic() {
        let reply = |errno| Reply { errno, ..Reply::default() };
        assert_eq!(status(&reply(u32::MAX)), Err(Errno::IO));
        assert_eq!(status(&reply(98)), Err(Errno::ADDRINUSE));
    }
}
