//! `toe-nic` as an operator meets it: ready, ended, killed, refused.

mod common;

use common::{CARD_MAC, by_runner, in_namespace, run, veth};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use toe_abi::regs;

const TOE_NIC: &str = env!("CARGO_BIN_EXE_toe-nic");
const PATIENCE: Duration = Duration::from_secs(20);

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("toe-nic-{name}-{}", std::process::id()));
    std::fs::create_dir(&path).unwrap();
    path
}

fn command(socket: &Path, port: &str) -> Command {
    let words = by_runner(TOE_NIC);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command.arg("--socket").arg(socket).args(["--port", port]).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Starts a card and waits until it is ready.
fn start(socket: &Path, port: &str) -> Child {
    let mut child = command(socket, port).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "{}", stderr(child));
        assert!(Instant::now() < deadline, "never ready");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

fn stderr(child: Child) -> String {
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stderr).into_owned()
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn has_filter() -> bool {
    run("tc", "qdisc show dev card0").contains("clsact")
}

/// Exit code 2 and a reason.
fn refused(output: &Output, reason: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(reason), "{text}");
}

#[test]
fn ready_then_ended_by_a_signal_leaves_nothing() {
    in_namespace("ready_then_ended_by_a_signal_leaves_nothing", || {
        veth();
        let folder = folder("signal");
        let socket = folder.join("card.sock");
        for end in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
            let child = start(&socket, "af_packet:card0");
            assert!(has_filter());
            let mut client = vfio_user::Client::new(&socket).unwrap();
            let mut mac = [0; 8];
            client.region_read(0, regs::MAC_LO, &mut mac).unwrap();
            assert_eq!(mac[..6], CARD_MAC);
            signal(&child, end);
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(!has_filter());
            assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        }
        std::fs::remove_dir(&folder).unwrap();
    });
}

#[test]
fn a_killed_card_is_followed_by_the_next() {
    in_namespace("a_killed_card_is_followed_by_the_next", || {
        veth();
        let folder = folder("killed");
        let socket = folder.join("card.sock");
        let mut child = start(&socket, "af_packet:card0");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_filter() && socket.exists(), "what a killed card leaves");
        let child = start(&socket, "af_packet:card0");
        signal(&child, rustix::process::Signal::TERM);
        assert!(child.wait_with_output().unwrap().status.success());
        assert!(!has_filter() && !socket.exists());
        std::fs::remove_dir(&folder).unwrap();
    });
}

/// The socket of a killed card may lie there all the time: that a file is there says nothing.
#[test]
fn whoever_started_the_card_hears_when_it_is_ready() {
    in_namespace("whoever_started_the_card_hears_when_it_is_ready", || {
        veth();
        let folder = folder("ready");
        let (socket, notify) = (folder.join("card.sock"), folder.join("notify"));
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let manager = std::os::unix::net::UnixDatagram::bind(&notify).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = command(&socket, "af_packet:card0").env("NOTIFY_SOCKET", &notify).spawn().unwrap();
        let mut word = [0; 64];
        let len = manager.recv(&mut word).unwrap();
        assert_eq!(word[..len].trim_ascii(), b"READY=1");
        std::os::unix::net::UnixStream::connect(&socket).unwrap();
        signal(&child, rustix::process::Signal::TERM);
        assert!(child.wait_with_output().unwrap().status.success());
        std::fs::remove_dir_all(&folder).unwrap();
    });
}

#[test]
fn a_second_card_is_refused() {
    in_namespace("a_second_card_is_refused", || {
        veth();
        run("ip", "link add card1 type veth peer name peer1");
        let folder = folder("second");
        let (socket, other) = (folder.join("card.sock"), folder.join("other.sock"));
        let child = start(&socket, "af_packet:card0");
        refused(&command(&other, "af_packet:card0").output().unwrap(), "in use by another card");
        refused(&command(&socket, "af_packet:card1").output().unwrap(), "another card answers");
        assert!(has_filter(), "the first goes on");
        signal(&child, rustix::process::Signal::TERM);
        assert!(child.wait_with_output().unwrap().status.success());
        std::fs::remove_dir(&folder).unwrap();
    });
}

#[test]
fn an_interface_that_vanishes_ends_the_card() {
    in_namespace("an_interface_that_vanishes_ends_the_card", || {
        veth();
        let folder = folder("vanish");
        let socket = folder.join("card.sock");
        let child = start(&socket, "af_packet:card0");
        run("ip", "link del card0");
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("has gone"), "{text}");
        assert!(!socket.exists());
        std::fs::remove_dir(&folder).unwrap();
    });
}

/// Else the context that is one too many ends the link to the daemon.
#[test]
fn there_are_as_many_contexts_as_files_allow() {
    in_namespace("there_are_as_many_contexts_as_files_allow", || {
        veth();
        let limited = |limit: &str| {
            let card = command(Path::new("/nonexistent/card.sock"), "af_packet:card0");
            let mut command = Command::new("prlimit");
            command.arg(limit).arg(card.get_program()).args(card.get_args()).args(["--max-contexts", "256"]);
            String::from_utf8(command.output().unwrap().stderr).unwrap()
        };
        let (few, enough) = (limited("--nofile=512:512"), limited("--nofile=512:4096"));
        assert!(few.contains("192 contexts and not 256 (--max-contexts): there may be 512 open files"), "{few}");
        assert!(!enough.contains("contexts"), "{enough}");
    });
}

#[test]
fn wrong_usage_exits_with_2_and_a_reason() {
    in_namespace("wrong_usage_exits_with_2_and_a_reason", || {
        veth();
        let socket = Path::new("/nonexistent/card.sock");
        refused(&command(socket, "dpdk:card0").output().unwrap(), "af_packet, tap");
        refused(&command(socket, "af_packet:nosuch0").output().unwrap(), "no interface `nosuch0`");
        refused(&command(socket, "af_packet:card0").args(["--placement", "map.toml"]).output().unwrap(), "--placement map.toml");
        refused(&command(socket, "af_packet:card0").args(["--log-level", "x=y=z"]).output().unwrap(), "log-level");
        refused(
            &command(&std::env::temp_dir().join("toe-core"), "af_packet:card0").args(["--cores", "1023"]).output().unwrap(),
            "CPU 1023",
        );
        assert!(!has_filter());
    });
}

#[test]
fn a_missing_right_is_named() {
    // As a user without rights, outside of any namespace of ours.
    let mut words = by_runner(TOE_NIC);
    if rustix::process::geteuid().is_root() {
        words.splice(0..0, ["setpriv", "--bounding-set=-all", "--inh-caps=-all"].map(Into::into));
    }
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    // lo is not Ethernet, but it is there everywhere and the socket comes first.
    let name = std::fs::read_dir("/sys/class/net")
        .unwrap()
        .flatten()
        .find(|d| std::fs::read_to_string(d.path().join("type")).is_ok_and(|t| t.trim() == "1"));
    let Some(name) = name else { return eprintln!("skipped: no Ethernet interface here") };
    let port = format!("af_packet:{}", name.file_name().to_string_lossy());
    refused(&command.args(["--socket", "/nonexistent/x", "--port", &port]).output().unwrap(), "CAP_NET_RAW");
}

#[test]
fn an_idle_card_sleeps() {
    in_namespace("an_idle_card_sleeps", || {
        veth();
        let folder = folder("idle");
        let socket = folder.join("card.sock");
        let child = start(&socket, "af_packet:card0");
        let ticks = || -> u64 {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        // A hundred ticks a second: a card that spins has them all, one that sleeps none. What else happens on this machine comes and goes.
        let idle = (0..5).any(|_| {
            let before = ticks();
            std::thread::sleep(Duration::from_secs(1));
            ticks() - before < 20
        });
        assert!(idle, "20 of 100 ticks while idle");
        signal(&child, rustix::process::Signal::TERM);
        assert!(child.wait_with_output().unwrap().status.success());
        std::fs::remove_dir(&folder).unwrap();
    });
}
