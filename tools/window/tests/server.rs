//! The program itself: peers that come, go, misbehave, and QEMU.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::Timespec;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use toe_abi::window::doorbell;
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
    let id = a.id() + 1;
    a.until("it has come", |view| view.is_complete(id));
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
        // Fields 14 and 15, proc(5); the name in parentheses is the second.
        let words = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        words.map(|word| word.parse::<u64>().unwrap()).sum::<u64>()
    };
    // Of a few looks: what else happens on this machine comes and goes.
    let idle = (0..5).any(|_| {
        let before = ticks();
        std::thread::sleep(Duration::from_secs(1));
        ticks() - before <= 1
    });
    assert!(idle, "it uses CPU without anything to do");
}

/// QEMU with the window in a machine whose processor is stopped: this test has its bus instead (protocol qtest).
struct Qemu {
    child: Child,
    qtest: BufReader<UnixStream>,
}

/// Where QEMU's machine `virt` has PCIe without high memory: configuration space of device 1, and room for BARs.
const CONFIG: u64 = 0x3f00_0000 + (1 << 15);
const REGISTERS: u64 = 0x1000_0000;
const WINDOW: u64 = 0x1400_0000;
const MSIX_TABLE: u64 = 0x1001_0000;
/// The machine's memory (behind the device tree), where the test has its message-signalled interrupts written to.
const RAM: u64 = 0x4100_0000;

impl Qemu {
    /// `None`: it is not installed.
    fn start(program: &Program) -> Option<Self> {
        if Command::new("qemu-system-aarch64").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: no qemu-system-aarch64");
            return None;
        }
        let qtest = program.dir.path().join("qtest.sock");
        let child = Command::new("qemu-system-aarch64")
            .args(["-M", "virt,highmem=off", "-m", "32M", "-nographic", "-nodefaults", "-S"])
            .args(["-qtest", &format!("unix:{},server=on,wait=off", qtest.display())])
            .args(["-qtest-log", "/dev/null"])
            .args(["-chardev", &format!("socket,path={},id=window", program.socket().display())])
            .args(["-device", &format!("ivshmem-doorbell,vectors={VECTORS},chardev=window")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        until("QEMU listens", || UnixStream::connect(&qtest).is_ok());
        // That one was not taken up; the socket serves one connection at a time.
        let mut stream = None;
        until("QEMU answers", || {
            stream = UnixStream::connect(&qtest).ok();
            stream.is_some()
        });
        Some(Self { child, qtest: BufReader::new(stream.unwrap()) })
    }

    fn ask(&mut self, command: &str) -> u64 {
        writeln!(self.qtest.get_mut(), "{command}").unwrap();
        let mut answer = String::new();
        self.qtest.read_line(&mut answer).unwrap();
        let value = answer.trim().strip_prefix("OK").unwrap_or_else(|| panic!("{command}: {answer}")).trim();
        u64::from_str_radix(value.trim_start_matches("0x"), 16).unwrap_or(0)
    }

    fn read(&mut self, at: u64) -> u32 {
        self.ask(&format!("readl {at:#x}")) as u32
    }

    fn write(&mut self, at: u64, value: u32) {
        self.ask(&format!("writel {at:#x} {value:#x}"));
    }

    /// Has vector v write 0xabc0 + v to the v-th word of memory.
    fn route_interrupts(&mut self) {
        self.write(CONFIG + 0x14, MSIX_TABLE as u32);
        for v in 0..VECTORS as u64 {
            for (word, value) in [(RAM + 4 * v) as u32, 0, 0xabc0 + v as u32, 0].into_iter().enumerate() {
                self.write(MSIX_TABLE + 16 * v + 4 * word as u64, value);
            }
        }
        let mut capability = u64::from(self.read(CONFIG + 0x34) & 0xfc);
        while self.read(CONFIG + capability) & 0xff != 0x11 {
            capability = u64::from(self.read(CONFIG + capability) >> 8 & 0xfc);
            assert_ne!(capability, 0, "no MSI-X");
        }
        let control = self.read(CONFIG + capability);
        assert_eq!(control >> 16 & 0x7ff, VECTORS as u32 - 1, "the size of the table");
        self.write(CONFIG + capability, control | 1 << 31);
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the contract says of a machine's side is what QEMU does. Not run where QEMU is not installed.
#[test]
fn qemu_has_the_window_as_its_bar_and_rings_peers() {
    let program = Program::start();
    let mut a = Peer::join(&program);
    let Some(mut qemu) = Qemu::start(&program) else { return };
    let mut machine = 0;
    a.until("QEMU joins", |view| {
        machine = view.others().next().unwrap_or(0);
        view.is_complete(machine)
    });
    assert_eq!(qemu.read(CONFIG), 0x1110_1af4, "vendor and device");
    qemu.write(CONFIG + 0x18, u32::MAX);
    assert_eq!(!(qemu.read(CONFIG + 0x18) & !0xf), (4 << 20) - 1, "the size of BAR2 is the window's");
    qemu.write(CONFIG + 0x10, REGISTERS as u32);
    qemu.write(CONFIG + 0x18, WINDOW as u32);
    qemu.write(CONFIG + 0x1c, 0);
    // Memory, and messages of its own.
    qemu.write(CONFIG + 4, 2 | 4);
    assert_eq!(qemu.read(REGISTERS + 8), u32::from(machine), "IVPosition is the peer's id");
    // Memory, both ways.
    let memory = a.view.memory().unwrap();
    rustix::io::pwrite(memory, &0x1234_5678_u32.to_le_bytes(), 0x1000).unwrap();
    assert_eq!(qemu.read(WINDOW + 0x1000), 0x1234_5678);
    qemu.write(WINDOW + (4 << 20) - 4, 0x8765_4321);
    let mut word = [0; 4];
    rustix::io::pread(memory, &mut word, (4 << 20) - 4).unwrap();
    assert_eq!(u32::from_le_bytes(word), 0x8765_4321);
    // Doorbells: every vector, that one alone.
    for vector in 0..VECTORS {
        qemu.write(REGISTERS + 12, doorbell(a.id(), vector as u16));
        assert!(is_readable(&a.view.own()[vector], LIMIT), "vector {vector}");
        assert!(a.view.own()[vector + 1..].iter().all(|fd| !is_readable(fd, Duration::ZERO)));
    }
    // Interrupts of the machine: a message for the vector that was written, and for no other.
    qemu.route_interrupts();
    for (vector, fd) in a.view.vectors_of(machine).iter().enumerate() {
        rustix::io::write(fd, &1_u64.to_ne_bytes()).unwrap();
        let messages: Vec<u32> = (0..VECTORS).map(|v| if v <= vector { 0xabc0 + v as u32 } else { 0 }).collect();
        until("the message is there", || (0..VECTORS as u64).map(|v| qemu.read(RAM + 4 * v)).eq(messages.iter().copied()));
    }
    // Nobody of that number, and no such vector: nothing happens.
    qemu.write(REGISTERS + 12, doorbell(500, 0));
    qemu.write(REGISTERS + 12, doorbell(a.id(), VECTORS as u16));
    // Peers come and go under its eyes, and one of a higher number can be rung all the same.
    for _ in 0..20 {
        drop(Peer::join(&program));
    }
    let late = Peer::join(&program);
    until("the late one is rung", || {
        qemu.write(REGISTERS + 12, doorbell(late.id(), 1));
        is_readable(&late.view.own()[1], Duration::from_millis(50))
    });
    assert!(qemu.is_running());
    drop(qemu);
    a.until("its end is announced", |view| view.vectors_of(machine).is_empty());
}
