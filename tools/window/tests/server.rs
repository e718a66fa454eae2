//! The program itself: peers that come, go, misbehave, and QEMU.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::Timespec;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use toe_link::ivshmem::{Membership, Receiver};

const LIMIT: Duration = Duration::from_secs(20);
const VECTORS: usize = 4;

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The program, with a socket of its own.
struct Program {
    child: Child,
    dir: TempDir,
}

impl Program {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(dir: TempDir) -> Self {
        let socket = dir.path().join("window.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_toe-window"));
        command.arg("--socket").arg(&socket).args(["--size", "4M", "--log-level", "error", "--vectors"]).arg(VECTORS.to_string());
        let program = Self { child: command.spawn().unwrap(), dir };
        until("it listens", || connect(&program.socket()).is_some());
        program.settle(0);
        program
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("window.sock")
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Waits until it holds what so many peers cost.
    fn settle(&self, peers: usize) {
        // Standard streams, memory, listener, epoll, two ends of the signal pipe and its copies.
        let fixed = 9..=12;
        let mut files = 0;
        until("descriptors settle", || {
            files = self.files();
            let own = files.wrapping_sub(peers * (VECTORS + 1));
            fixed.contains(&own)
        });
    }

    fn terminate(&mut self) -> std::process::ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(path: &std::path::Path) -> Option<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).ok()?;
    Some(socket)
}

/// A peer that keeps to the protocol.
struct Peer {
    socket: OwnedFd,
    receiver: Receiver,
    view: Membership,
}

impl Peer {
    fn join(program: &Program) -> Self {
        let mut peer = Self { socket: connect(&program.socket()).unwrap(), receiver: Receiver::default(), view: Membership::default() };
        peer.until("its own vectors are there", |view| view.own().len() == VECTORS);
        peer
    }

    fn read(&mut self) {
        while let Some((value, fd)) = self.receiver.next(&self.socket).unwrap() {
            self.view.take(value, fd).unwrap();
        }
    }

    fn until(&mut self, what: &str, mut condition: impl FnMut(&Membership) -> bool) {
        until(what, || {
            self.read();
            condition(&self.view)
        });
    }

    fn id(&self) -> u16 {
        self.view.id().unwrap()
    }
}

fn is_readable(fd: &OwnedFd, within: Duration) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::try_from(within).unwrap())).unwrap() > 0
}

#[test]
fn peers_share_memory_and_interrupt_each_other() {
    let program = Program::start();
    let (mut a, mut b) = (Peer::join(&program), Peer::join(&program));
    let (a_id, b_id) = (a.id(), b.id());
    a.until("it hears of the other", |view| view.is_complete(b_id));
    b.until("so does the other", |view| view.is_complete(a_id));
    let (mine, theirs) = (a.view.memory().unwrap(), b.view.memory().unwrap());
    assert_eq!(rustix::fs::fstat(mine).unwrap().st_size, 4 << 20);
    rustix::io::pwrite(mine, b"hello", 12_345).unwrap();
    let mut bytes = [0; 5];
    rustix::io::pread(theirs, &mut bytes, 12_345).unwrap();
    assert_eq!(&bytes, b"hello");
    assert!(rustix::fs::ftruncate(mine, 0).is_err(), "its size is sealed");
    for vector in 0..VECTORS {
        rustix::io::write(&a.view.vectors_of(b_id)[vector], &1_u64.to_ne_bytes()).unwrap();
        assert!(is_readable(&b.view.own()[vector], LIMIT));
        assert!(b.view.own()[vector + 1..].iter().all(|fd| !is_readable(fd, Duration::ZERO)));
    }
}

#[test]
fn a_peer_that_dies_is_announced_and_costs_nothing() {
    let program = Program::start();
    let mut a = Peer::join(&program);
    program.settle(1);
    for _ in 0..50 {
        let b = Peer::join(&program);
        let id = b.id();
        a.until("it has come", |view| view.is_complete(id));
        drop(b);
        a.until("it has gone", |view| view.vectors_of(id).is_empty());
    }
    program.settle(1);
}

#[test]
fn a_peer_that_speaks_is_let_go() {
    let program = Program::start();
    let mut a = Peer::join(&program);
    let b = Peer::join(&program);
    let id = b.id();
    a.until("it has come", |view| view.is_complete(id));
    rustix::io::write(&b.socket, b"x").unwrap();
    a.until("it has gone", |view| view.vectors_of(id).is_empty());
    program.settle(1);
}

#[test]
fn a_peer_that_does_not_read_holds_up_nobody() {
    let program = Program::start();
    let mut a = Peer::join(&program);
    let deaf = connect(&program.socket()).unwrap();
    a.until("it has come", |view| view.is_complete(1));
    for _ in 0..500 {
        let b = Peer::join(&program);
        let id = b.id();
        a.until("the next has come", |view| view.is_complete(id));
    }
    // It is still there, or was let go; its end is noticed in any case.
    drop(deaf);
    a.until("all have gone", |view| view.others().next().is_none());
    program.settle(1);
}

#[test]
fn there_is_a_limit_to_peers() {
    let program = Program::start();
    let peers: Vec<Peer> = (0..16).map(|_| Peer::join(&program)).collect();
    let late = connect(&program.socket()).unwrap();
    assert!(is_readable(&late, LIMIT));
    assert_eq!(rustix::io::read(&late, &mut [0; 8]), Ok(0), "closed at once");
    drop(peers);
    program.settle(0);
    Peer::join(&program);
}

#[test]
fn it_ends_in_order_and_replaces_what_a_killed_one_left() {
    let mut program = Program::start();
    assert!(program.terminate().success());
    assert!(!program.socket().exists());

    let mut killed = Program::start();
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    assert!(killed.socket().exists());
    let dir = std::mem::replace(&mut killed.dir, tempfile::tempdir().unwrap());
    let mut next = Program::start_in(dir);
    Peer::join(&next);
    // A second one finds the first alive, and leaves its socket alone.
    let second = Command::new(env!("CARGO_BIN_EXE_toe-window")).arg("--socket").arg(next.socket()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another server"), "{second:?}");
    Peer::join(&next);
    assert!(next.terminate().success());
    assert!(!next.socket().exists());
}

#[test]
fn it_is_idle_when_nobody_comes_or_goes() {
    let program = Program::start();
    let _peers = [Peer::join(&program), Peer::join(&program)];
    // A deaf one whose socket is full, too.
    let _deaf = connect(&program.socket()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid())).unwrap();
        let words: Vec<u64> = stat.rsplit(')').next().unwrap().split_whitespace().filter_map(|w| w.parse().ok()).collect();
        // After the state, fields 4 to 13, then utime and stime.
        words[10] + words[11]
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks() - before <= 1, "it uses CPU without anything to do");
}

/// QEMU itself takes part. Not run where it is not installed.
#[test]
fn qemu_joins_and_leaves() {
    if Command::new("qemu-system-aarch64").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: no qemu-system-aarch64");
        return;
    }
    let program = Program::start();
    let mut a = Peer::join(&program);
    let chardev = format!("socket,path={},id=window", program.socket().display());
    let mut qemu = Command::new("qemu-system-aarch64")
        .args(["-M", "virt", "-cpu", "cortex-a72", "-m", "32M", "-nographic", "-nodefaults", "-S", "-chardev", &chardev])
        .args(["-device", &format!("ivshmem-doorbell,vectors={VECTORS},chardev=window")])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    a.until("QEMU joins", |view| view.is_complete(1));
    assert!(qemu.try_wait().unwrap().is_none(), "it has taken window and vectors");
    // More peers come and go under its eyes.
    for _ in 0..20 {
        drop(Peer::join(&program));
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(qemu.try_wait().unwrap().is_none());
    qemu.kill().unwrap();
    qemu.wait().unwrap();
    a.until("its end is announced", |view| view.vectors_of(1).is_empty());
}
