//! Cards behind windows: toe-window, toed and libtoe as they are, and a card in a thread that does what firmware inside QEMU does.
//!
//! ```text
//!   libtoe ► toed A ► window A ► card A ═══ wire ═══ card B ◄ window B ◄ toed B ◄ libtoe
//! ```

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use toe::{Context, Error, Event, SocketId};
use toe_lab::{proc, programs};
use toe_link::slot::Addr;
use toe_tests::window_card::{WindowCard, Wire, wire};

const LIMIT: Duration = Duration::from_secs(30);

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A program in the background, killed when dropped. Its messages go to a file.
struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(name: &str, log: PathBuf, words: &[&str]) -> Self {
        let file = File::create(&log).expect("a log");
        let program = programs::built_dir().expect("our programs").join(name);
        let child = Command::new(program).args(words).stdin(Stdio::null()).stderr(file).spawn().expect("it starts");
        Self { child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_none()
    }

    fn end(&mut self) -> ExitStatus {
        until("a program ends", || !self.is_running());
        self.child.wait().expect("it has ended")
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    fn terminate(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        self.end()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host with a window.
struct Host {
    dir: TempDir,
    ip: [u8; 4],
    window: Program,
}

impl Host {
    fn new(last: u8, words: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("window.sock");
        let words = [&["--socket", socket.to_str().expect("utf-8")], words].concat();
        let window = Program::start("toe-window", dir.path().join("window.log"), &words);
        let is_socket = || socket.metadata().is_ok_and(|m| m.file_type().is_socket()) && window.log().contains("ready");
        until("toe-window listens", is_socket);
        Self { dir, ip: [10, 0, 0, last], window }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("window.sock")
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// toed, not ready yet.
    fn toed(&self, more: &[&str]) -> Program {
        let device = format!("ivshmem:{}", self.socket().display());
        let [a, b, c, d] = self.ip;
        let ip = format!("{a}.{b}.{c}.{d}/24");
        let run_dir = self.run_dir();
        let words = ["--device", &device, "--ip-addr", &ip, "--run-dir", run_dir.to_str().expect("utf-8")];
        Program::start("toed", self.dir.path().join("toed.log"), &[&words, more].concat())
    }

    fn toed_ready(&self, more: &[&str]) -> Program {
        let mut toed = self.toed(more);
        until("toed is ready", || {
            assert!(toed.is_running(), "{}", toed.log());
            UnixStream::connect(self.run_dir().join("admin.sock")).is_ok()
        });
        toed
    }

    fn open(&self) -> Result<Context, Error> {
        Context::open(&self.run_dir().join("toed.sock"))
    }

    fn toectl(&self, words: &[&str]) -> (ExitStatus, String) {
        let program = programs::built_dir().expect("our programs").join("toectl");
        let output = Command::new(program).args(words).env("TOE_RUN_DIR", self.run_dir()).output().expect("toectl runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&text).into_owned())
    }
}

/// Two hosts, their cards joined by a wire.
fn two_hosts() -> (Host, WindowCard, Host, WindowCard) {
    let (a_end, b_end) = wire();
    let (a, b) = (Host::new(1, &[]), Host::new(2, &[]));
    let (a_card, b_card) = (WindowCard::start(&a.socket(), a_end), WindowCard::start(&b.socket(), b_end));
    (a, a_card, b, b_card)
}

/// A host with a card that is wired to nothing.
fn one_host(words: &[&str]) -> (Host, WindowCard) {
    let host = Host::new(1, words);
    let card = WindowCard::start(&host.socket(), lone_wire());
    (host, card)
}

fn lone_wire() -> Wire {
    wire().0
}

/// Does `step` until it has an answer, sleeping in between.
fn drive<T>(toe: &mut Context, what: &str, mut step: impl FnMut(&mut Context) -> Result<Option<T>, Error>) -> T {
    let end = Instant::now() + LIMIT;
    let mut events = [Event::default(); 16];
    loop {
        match step(toe) {
            Ok(Some(answer)) => return answer,
            Ok(None) => {}
            Err(e) => panic!("{what}: {e}"),
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        if toe.poll(&mut events) == 0 {
            toe.wait(Some(Duration::from_millis(100))).expect("wait");
        }
    }
}

/// Byte n of what a side sends.
fn byte(n: usize, salt: usize) -> u8 {
    ((n * 31 + n / 997 + salt) % 251) as u8
}

/// Sends `len` bytes and ends, and receives as many; checks each.
fn exchange(toe: &mut Context, id: SocketId, len: usize, salts: (usize, usize)) {
    let (mut sent, mut received, mut shut) = (0, 0, false);
    let mut buf = vec![0; 65_536];
    drive(toe, "the transfer", |toe| {
        while sent < len {
            let piece: Vec<u8> = (sent..len.min(sent + 16_384)).map(|n| byte(n, salts.0)).collect();
            match toe.send(id, &piece)? {
                Some(n) => sent += n,
                None => break,
            }
        }
        if sent == len && !shut {
            toe.shutdown(id)?;
            shut = true;
        }
        while let Some(n) = toe.recv(id, &mut buf)? {
            if n == 0 {
                return Ok((shut && received == len).then_some(()));
            }
            assert!(buf[..n].iter().zip(received..).all(|(&b, at)| b == byte(at, salts.1)), "wrong bytes from {received} on");
            received += n;
        }
        Ok(None)
    });
    toe.close(id);
}

/// A connection from `a` to `b`, `len` bytes each way.
fn transfer(a: &Host, b: &Host, len: usize) {
    let mut server = b.open().expect("a context on b");
    let listener = server.listen(Addr::v4(b.ip, 7000), 4).expect("listens");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let id = drive(&mut server, "a connection", |toe| toe.accept(listener));
            exchange(&mut server, id, len, (5, 9));
        });
        let mut client = a.open().expect("a context on a");
        let id = client.connect(Addr::v4(b.ip, 7000)).expect("connects");
        exchange(&mut client, id, len, (9, 5));
    });
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn bytes_go_through_two_windows_and_back() {
    let (a, _a_card, b, _b_card) = two_hosts();
    let (mut a_toed, mut b_toed) = (a.toed_ready(&[]), b.toed_ready(&[]));
    transfer(&a, &b, 5_000_000);
    transfer(&b, &a, 100_000);
    assert!(a_toed.log().contains("not protected from each other"), "{}", a_toed.log());
    let (done, text) = a.toectl(&["status"]);
    assert!(done.success() && text.contains("qemu (attached) at ivshmem:") && text.contains("window "), "{text}");
    assert!(a_toed.terminate().success() && b_toed.terminate().success());
}

/// A parent that connects and a child that goes on: the child proves by the window and a place in it that it belongs to the family.
const FORK: &str = "import os, socket, sys
s = socket.create_connection((sys.argv[1], 7000), timeout=20)
s.sendall(b'parent ')
if os.fork() == 0:
    s.sendall(b'child')
    s.shutdown(socket.SHUT_WR)
    answer = b''
    while piece := s.recv(4096):
        answer += piece
    os._exit(0 if answer == b'parent child' else 1)
s.close()
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
";

#[test]
#[ignore = "end to end: cargo xtask test"]
fn unmodified_programs_fork_behind_a_window() {
    let (a, _a_card, b, _b_card) = two_hosts();
    let (_a_toed, _b_toed) = (a.toed_ready(&[]), b.toed_ready(&[]));
    // The regions before that of the program are other people's.
    let _neighbours = [a.open().expect("a context"), a.open().expect("a context")];
    let python = programs::require("python3").expect("python3");
    let mut server = b.open().expect("a context on b");
    let listener = server.listen(Addr::v4(b.ip, 7000), 4).expect("listens");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let id = drive(&mut server, "a connection", |toe| toe.accept(listener));
            let (mut got, mut buf) = (Vec::new(), [0; 64]);
            drive(&mut server, "what both have to say", |toe| {
                while let Some(n) = toe.recv(id, &mut buf)? {
                    got.extend_from_slice(&buf[..n]);
                    if n == 0 {
                        return Ok(Some(()));
                    }
                }
                Ok(None)
            });
            drive(&mut server, "the answer", |toe| toe.send(id, &got));
            server.shutdown(id).expect("open");
            drive(&mut server, "the answer has arrived", |toe| Ok(toe.socket(id)?.unacked().eq(&0).then_some(())));
            server.close(id);
        });
        let [w, x, y, z] = b.ip;
        let (done, text) = a.toectl(&["run", "--", python.to_str().expect("utf-8"), "-c", FORK, &format!("{w}.{x}.{y}.{z}")]);
        assert!(done.success(), "{text}");
    });
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_killed_toed_has_a_successor() {
    let (a, _a_card, b, _b_card) = two_hosts();
    let (mut a_toed, _b_toed) = (a.toed_ready(&[]), b.toed_ready(&[]));
    for _ in 0..3 {
        transfer(&a, &b, 50_000);
        // Killed with an application that has a connection's worth of memory.
        let _held = a.open().expect("a context");
        a_toed.kill();
        a_toed = a.toed_ready(&[]);
    }
    transfer(&a, &b, 50_000);
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_card_that_goes_has_a_successor() {
    let (a, mut a_card, b, _b_card) = two_hosts();
    let (mut a_toed, _b_toed) = (a.toed_ready(&[]), b.toed_ready(&[]));
    for _ in 0..2 {
        transfer(&a, &b, 50_000);
        let mut app = a.open().expect("a context");
        let wire = a_card.die();
        until("the application is told", || {
            app.poll(&mut [Event::default(); 4]);
            app.listen(Addr::v4(a.ip, 1), 1).is_err()
        });
        until("toed stays", || a.toectl(&["status"]).1.contains("(gone)"));
        assert!(a.open().is_err(), "there is no card");
        a_card = WindowCard::start(&a.socket(), wire);
        until("programs can come", || a.open().is_ok());
        let (done, text) = a.toectl(&["status"]);
        assert!(done.success() && text.contains("(attached)") && !text.contains("failure"), "{text}");
    }
    transfer(&a, &b, 50_000);
    let log = a_toed.log();
    assert!(log.contains("is gone: look at QEMU") && log.contains("another card has come"), "{log}");
    assert!(a_toed.terminate().success(), "{}", a_toed.log());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_card_that_does_not_obey_is_no_successor() {
    let (host, mut card) = one_host(&[]);
    let mut toed = host.toed_ready(&[]);
    let wire = card.die();
    card = WindowCard::start_deaf(&host.socket(), wire);
    until("it was tried", || toed.log().contains("another card has come, which can't be used: the card did not carry out RESET"));
    assert!(host.toectl(&["status"]).1.contains("(gone)"));
    card.restart();
    until("programs can come", || host.open().is_ok());
    assert!(toed.terminate().success());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_window_that_goes_ends_its_toed() {
    let (mut host, mut card) = one_host(&[]);
    let mut toed = host.toed_ready(&[]);
    card.die();
    until("toed stays", || host.toectl(&["status"]).1.contains("(gone)"));
    host.window.kill();
    assert_eq!(toed.end().code(), Some(1));
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_toed_does_not_believe_what_a_dead_card_has_left() {
    let (host, mut card) = one_host(&[]);
    let mut toed = host.toed_ready(&[]);
    assert!(toed.terminate().success());
    card.die();
    // What the dead card has left in its page is not believed.
    let mut toed = host.toed(&[]);
    until("toed waits", || toed.log().contains("waiting for the card"));
    assert!(toed.log().contains("has gone, and no other is ready"), "{}", toed.log());
    let _card = WindowCard::start(&host.socket(), lone_wire());
    until("toed is ready", || toed.log().contains("ready card="));
    host.open().expect("a context");
    assert!(toed.terminate().success());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_card_that_starts_anew_is_attached_to_again() {
    let (host, card) = one_host(&[]);
    let mut toed = host.toed_ready(&[]);
    for starts in 2..4 {
        card.restart();
        until("toed has attached again", || toed.log().matches("ready card=").count() == starts);
        host.open().expect("a context");
    }
    assert!(toed.log().contains("started anew"), "{}", toed.log());
    assert!(toed.terminate().success());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_card_that_fails_has_a_successor() {
    let (host, card) = one_host(&[]);
    let mut toed = host.toed_ready(&[]);
    card.fail();
    until("toed stays", || host.toectl(&["status"]).1.contains("(failed)"));
    card.restart();
    until("programs can come", || host.open().is_ok());
    let (done, text) = host.toectl(&["status"]);
    assert!(done.success() && text.contains("(attached)") && !text.contains("failure"), "{text}");
    assert!(toed.terminate().success());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_card_that_fails_says_why() {
    let (host, card) = one_host(&[]);
    let mut toed = host.toed_ready(&[]);
    card.fail();
    let words = "panicked at nic-fw/test.rs:7: told to (core 0)";
    until("toed knows", || toed.log().contains(words));
    // It stays for operators until it is told to end, and leaves word.
    let (done, text) = host.toectl(&["status"]);
    assert!(done.success() && text.contains("(failed)") && text.contains(words), "{text}");
    assert_eq!(toed.terminate().code(), Some(1));
    let (done, text) = host.toectl(&["status"]);
    assert!(!done.success() && text.contains(words), "{text}");
    // It has not got better.
    let mut toed = host.toed(&[]);
    assert_eq!(toed.end().code(), Some(2));
    assert!(toed.log().contains(words), "{}", toed.log());
    card.restart();
    let _toed = host.toed_ready(&[]);
    assert!(host.toectl(&["status"]).0.success());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_card_that_is_not_there_is_waited_for_and_missed() {
    let host = Host::new(1, &[]);
    let mut toed = host.toed(&[]);
    assert_eq!(toed.end().code(), Some(2));
    let log = toed.log();
    assert!(log.contains("waiting for the card") && log.contains("no virtual machine is connected; start QEMU with"), "{log}");
    assert!(log.contains("vectors=64"), "{log}");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_toed_that_waits_for_its_card_can_be_ended() {
    let host = Host::new(1, &[]);
    let mut toed = host.toed(&[]);
    until("toed waits", || toed.log().contains("waiting for the card"));
    toed.terminate();
    let at_once = (0..5).any(|seconds| toed.log().contains(&format!("after {seconds} s")));
    assert!(toed.log().contains("no card in the window") && at_once, "{}", toed.log());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn nobody_works_when_there_is_nothing_to_do() {
    let (host, _card) = one_host(&[]);
    let toed = host.toed_ready(&[]);
    let mut app = host.open().expect("a context");
    app.listen(Addr::v4(host.ip, 7000), 4).expect("listens");
    std::thread::sleep(Duration::from_millis(500));
    let programs = [host.window.child.id(), toed.child.id()];
    let used = proc::ticks_used(&programs, Duration::from_secs(2), 2);
    // A tick is 10 ms.
    assert!(used.iter().all(|&ticks| ticks <= 2), "toe-window and toed used {used:?} ticks in 2 s");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_card_that_does_not_answer_is_given_up() {
    let (host, card) = one_host(&[]);
    card.ignore();
    let mut toed = host.toed(&[]);
    assert_eq!(toed.end().code(), Some(2));
    assert!(toed.log().contains("did not carry out RESET within 5 s; it last said: it is ready"), "{}", toed.log());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_window_has_one_toed_and_needs_a_server() {
    let (host, _card) = one_host(&[]);
    let _toed = host.toed_ready(&[]);
    let other = host.dir.path().join("other");
    let mut second = host.toed(&["--run-dir", other.to_str().expect("utf-8")]);
    // The same option twice is refused by its name; so is a second toed, by its folder or by the window.
    assert_eq!(second.end().code(), Some(2));
    let mut stranger = Program::start(
        "toed",
        host.dir.path().join("stranger.log"),
        &[
            "--device",
            &format!("ivshmem:{}", host.socket().display()),
            "--ip-addr",
            "10.0.0.9",
            "--run-dir",
            other.to_str().expect("utf-8"),
        ],
    );
    assert_eq!(stranger.end().code(), Some(2));
    assert!(stranger.log().contains("another toed uses it"), "{}", stranger.log());
    let mut lost = Program::start(
        "toed",
        host.dir.path().join("lost.log"),
        &["--device", "ivshmem:/nonexistent", "--ip-addr", "10.0.0.9", "--run-dir", other.to_str().expect("utf-8")],
    );
    assert_eq!(lost.end().code(), Some(2));
    assert!(lost.log().contains("is toe-window running with --socket /nonexistent?"), "{}", lost.log());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_full_window_turns_applications_away_until_one_has_gone() {
    let (host, _card) = one_host(&["--size", "16M"]);
    let toed = host.toed_ready(&[]);
    // A family each: none knows the others' region.
    let mut apps = Vec::new();
    let refusal = loop {
        match host.open() {
            Ok(app) => apps.push(app),
            Err(e) => break e,
        }
        assert!(apps.len() < 32, "16 MiB never end");
    };
    assert!(apps.len() >= 2, "{}", apps.len());
    assert!(refusal.to_string().contains(&Errno::NOMEM.to_string()), "{refusal}");
    assert!(toed.log().contains("a larger window (toe-window --size)"), "{}", toed.log());
    apps.remove(0);
    until("its memory is used again", || host.open().map(|app| apps.push(app)).is_ok());
}
