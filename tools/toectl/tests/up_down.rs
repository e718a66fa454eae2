//! `up`, `down`, `run` and the tables, with stand-ins for the card and the daemon: scripts in a
//! folder beside a copy of toectl.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use toe_lab::job::{self, Finished, Job};
use toe_lab::{proc, programs};

const LIMIT: Duration = Duration::from_secs(40);

/// A card that is ready when its socket is there.
const CARD: &str = r#"#!/bin/sh
echo "card: $*"
while [ "$1" != --socket ]; do shift; done
: > "$2"
trap 'rm -f "$2"; exit 0' TERM
while :; do sleep 0.05; done
"#;

/// A daemon that answers every request with what `answer` contains.
const DAEMON: &str = r#"#!/usr/bin/python3
import os, signal, socket, sys
dir = sys.argv[sys.argv.index("--run-dir") + 1]
print("toed:", *sys.argv[1:], flush=True)
path = os.path.join(dir, "admin.sock")
signal.signal(signal.SIGTERM, lambda *_: (os.unlink(path), os._exit(0)))
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
while True:
    client, _ = server.accept()
    request = client.makefile().readline()
    if request:
        print("asked:", request.strip(), flush=True)
        client.sendall(ANSWERS[[k for k in ANSWERS if k in request][0]] + b"\n")
    client.close()
"#;

const ANSWERS: &str = r#"
ANSWERS = {
    "status": b'{"version":"9.9","card":{"device":"d","board":"soft","port_mac":"m","mtu":1500,"status":"attached","flows":0,'
              b'"flows_max":9,"contexts":1,"contexts_max":9,"regions_max":9},"ip":"10.0.0.2/24","gateway":null,"uptime_s":1,'
              b'"applications":[],"listeners":[]}',
    "stats": b'{"rx_frames":5,"tx_frames":0}',
    "ss": b'[]',
    "trace_start": b'{"trace":7}',
    "trace_read": b'{"visits":[{"stage":"protocol","instance":1,"core":2,"kind":"tx_out","begin_ns":5,"end_ns":8,"group":0,"number":null,'
                  b'"out":3,"flow":4,"port":80,"seq":9,"len":10}],"lost":0}',
    "trace_stop": b'{}',
    "set_share": b'{"weight":100,"rate_kbps":2500000}',
    "reserve": b'{"ticket":18446744073709551615}',
    "stages": b'[{"stage":"pre","instance":3,"core":1,"cpu":2,"queue":0,"queue_max":9,"credits":0,"credits_max":0,"items":0,'
              b'"busy_ns":0,"clock_ns":5,"asleep":true}]',
}
"#;

struct Installed {
    dir: PathBuf,
}

/// Makes a program of a file. By a process of its own: a descriptor of ours that writes it could go along to a process that another test
/// starts meanwhile, and then the program is "busy".
fn place(from: &Path, to: &Path) {
    let done = Command::new("install").args(["-m", "755"]).arg(from).arg(to).status().expect("install(1)");
    assert!(done.success());
}

impl Installed {
    fn new(name: &str, card: &str, daemon: &str) -> Installed {
        let dir = std::env::temp_dir().join(format!("toectl-test-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("folder");
        place(Path::new(env!("CARGO_BIN_EXE_toectl")), &dir.join("toectl"));
        let daemon = daemon.replacen("import os", &format!("{ANSWERS}import os"), 1);
        for (file, text) in [("toe-nic", card), ("toed", &daemon)] {
            let draft = dir.join(format!("{file}.draft"));
            fs::write(&draft, text).expect("script");
            place(&draft, &dir.join(file));
            fs::remove_file(&draft).expect("draft");
        }
        Installed { dir }
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// toectl, by way of what runs it if it was built for a machine of another kind.
    fn program(&self) -> Command {
        let runner = std::env::var("TOE_TEST_RUNNER").unwrap_or_default();
        let mut words = runner.split_whitespace().map(PathBuf::from).chain([self.dir.join("toectl")]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }

    fn toectl(&self, words: &[&str]) -> Finished {
        let mut command = self.program();
        command.env("TOE_RUN_DIR", self.run_dir()).args(words);
        job::run(command, LIMIT).expect("toectl ends")
    }

    fn up(&self, more: &[&str]) -> Finished {
        let mut words = vec!["up", "--port", "af_packet:none0", "--ip", "10.0.0.2/24"];
        words.extend(more);
        self.toectl(&words)
    }

    /// Processes that run a script of ours.
    fn alive(&self) -> usize {
        let here = self.dir.to_string_lossy().into_owned();
        let runs_ours = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains(&here));
        proc::all_in(Path::new("/proc")).into_iter().filter(|s| !s.ended() && runs_ours(s.pid)).count()
    }

    fn none_run(&self) {
        job::wait_until("nothing is left", LIMIT, || self.alive() == 0).expect("nothing");
    }

    /// A shell that has just forked, to run sleep, is seen twice for a moment.
    fn both_run(&self) {
        job::wait_until("card and daemon run", LIMIT, || self.alive() == 2).expect("two");
    }

    fn pid(&self, name: &str) -> u32 {
        let text = fs::read_to_string(self.run_dir().join(format!("{name}.pid"))).expect("pid file");
        text.split_whitespace().next().and_then(|w| w.parse().ok()).expect("a pid")
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.toectl(&["down"]);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn assert_ok(done: &Finished) {
    assert!(done.status.success(), "{}\n{}{}", done.line, done.stdout(), done.stderr());
}

#[test]
fn up_passes_the_words_on_and_down_leaves_nothing() {
    let there = Installed::new("words", CARD, DAEMON);
    assert_ok(&there.up(&["--gateway", "10.0.0.1", "--cores", "1", "--impair", "loss=0.1", "--nic-arg=--spin-us=0", "--toed-arg=--x"]));
    let card = fs::read_to_string(there.run_dir().join("toe-nic.log")).expect("log");
    assert!(card.contains("--port af_packet:none0 --cores 1 --impair loss=0.1 --spin-us=0"), "{card}");
    let toed = fs::read_to_string(there.run_dir().join("toed.log")).expect("log");
    let socket = there.run_dir().join("card.sock");
    assert!(toed.contains(&format!("--device vfio-user:{} ", socket.display())), "{toed}");
    assert!(toed.contains(" --ip-addr 10.0.0.2/24 --gateway 10.0.0.1 "), "{toed}");
    assert!(toed.contains("--gateway 10.0.0.1 --interface none0 --x"), "{toed}");
    there.both_run();
    assert_ok(&there.toectl(&["down"]));
    there.none_run();
    assert!(!there.run_dir().exists());
    let again = there.toectl(&["down"]);
    assert_ok(&again);
    assert!(again.stdout().contains("nothing is running"));
}

#[test]
fn a_second_up_is_refused_and_the_first_goes_on() {
    let there = Installed::new("second", CARD, DAEMON);
    assert_ok(&there.up(&[]));
    let second = there.up(&[]);
    assert_eq!(second.status.code(), Some(2));
    assert!(second.stderr().contains("is running already"), "{}", second.stderr());
    there.both_run();
}

#[test]
fn what_a_service_runs_there_is_left_alone() {
    let there = Installed::new("service", CARD, DAEMON);
    for (socket, who) in [("admin.sock", "toed"), ("card.sock", "toe-nic"), ("window.sock", "toe-window")] {
        DirBuilder::new().recursive(true).mode(0o700).create(there.run_dir()).expect("folder");
        let path = there.run_dir().join(socket);
        let service = UnixListener::bind(&path).expect("socket");
        for done in [there.up(&[]), there.toectl(&["down"])] {
            assert_eq!(done.status.code(), Some(2), "{}", done.stderr());
            assert!(done.stderr().contains(&format!("{who} runs in ")), "{}", done.stderr());
            assert!(path.exists(), "{socket}");
        }
        drop(service);
        assert_ok(&there.toectl(&["down"]));
        assert!(!path.exists(), "nobody listens there any more");
    }
    there.none_run();
}

#[test]
fn down_works_after_kill() {
    let there = Installed::new("killed", CARD, DAEMON);
    for victims in [&["toe-nic"][..], &["toed"], &["toe-nic", "toed"]] {
        assert_ok(&there.up(&[]));
        for name in victims {
            job::signal(there.pid(name), rustix::process::Signal::KILL);
        }
        assert_ok(&there.toectl(&["down"]));
        there.none_run();
        assert!(!there.run_dir().exists(), "{victims:?}");
    }
}

#[test]
fn up_after_kill_cleans_what_was_left() {
    let there = Installed::new("again", CARD, DAEMON);
    assert_ok(&there.up(&[]));
    for name in ["toe-nic", "toed"] {
        job::signal(there.pid(name), rustix::process::Signal::KILL);
    }
    there.none_run();
    assert_ok(&there.up(&[]));
    assert_ok(&there.toectl(&["down"]));
    assert!(!there.run_dir().exists());
}

#[test]
fn a_card_that_cannot_start_says_why_and_leaves_nothing() {
    let there = Installed::new("refused", "#!/bin/sh\necho 'no interface none0' >&2\nexit 2\n", DAEMON);
    let failed = there.up(&[]);
    assert_eq!(failed.status.code(), Some(2));
    assert!(failed.stderr().contains("no interface none0"), "{}", failed.stderr());
    assert!(!there.run_dir().exists());
}

#[test]
fn a_daemon_that_never_answers_is_given_up_with_its_log() {
    let there = Installed::new("late", CARD, "#!/bin/sh\necho thinking; sleep 1000\n");
    let failed = there.up(&["--wait", "3"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.stderr().contains("toed was not ready after 3 s") && failed.stderr().contains("thinking"), "{}", failed.stderr());
    there.none_run();
    assert!(!there.run_dir().exists());
}

#[test]
fn nonsense_is_refused_before_anything_starts() {
    let there = Installed::new("nonsense", CARD, DAEMON);
    for (words, expected) in [
        (&["up", "--port", "eth0", "--ip", "10.0.0.2/24"][..], "DRIVER:IFNAME"),
        (&["up", "--port", "tap:x", "--ip", "10.0.0.2"], "ADDRESS/PREFIX"),
        (&["up", "--port", "tap:x", "--ip", "10.0.0.2/33"], "ADDRESS/PREFIX"),
        (&["up", "--port", "tap:x", "--ip", "10.0.0.2/24", "--gateway", "x"], "--gateway x"),
        (&["up", "--port", "tap:x"], "--ip"),
        (&["fly"], "fly"),
    ] {
        let refused = there.toectl(words);
        assert_eq!(refused.status.code(), Some(2), "{words:?}");
        assert!(refused.stderr().contains(expected), "{words:?}: {}", refused.stderr());
    }
    assert!(!there.run_dir().exists());
}

#[test]
fn without_a_daemon_every_command_says_so() {
    let there = Installed::new("absent", CARD, DAEMON);
    fs::write(there.dir.join("libtoe_preload.so"), "").expect("stand-in");
    for (words, code) in [
        (&["status"][..], 2),
        (&["ss"], 2),
        (&["stats"], 2),
        (&["trace"], 2),
        (&["limit", "--pid", "1", "--weight", "5"], 2),
        (&["run", "true"], 125),
        (&["run", "--fallback", "--rate", "1mbit", "true"], 125),
    ] {
        let refused = there.toectl(words);
        assert_eq!(refused.status.code(), Some(code), "{words:?}");
        assert!(refused.stderr().contains("toed is not running"), "{words:?}: {}", refused.stderr());
    }
}

#[test]
fn tables_and_json_come_from_the_daemon() {
    let there = Installed::new("tables", CARD, DAEMON);
    assert_ok(&there.up(&[]));
    assert_eq!(there.toectl(&["limit", "--pid", "7", "--rate", "2.5gbit"]).stdout(), "weight 100, rate 2.5gbit\n");
    let status = there.toectl(&["status"]).stdout();
    assert!(status.contains("soft (attached)") && status.contains("core 1 (cpu 2): pre.3"), "{status}");
    assert!(there.toectl(&["status", "--json"]).stdout().contains("\"load_percent\": null"));
    assert!(there.toectl(&["ss"]).stdout().starts_with("State"));
    assert_eq!(there.toectl(&["stats", "--nonzero"]).stdout(), "rx_frames  5\n");
    assert_eq!(there.toectl(&["stats", "--json"]).stdout(), "{\n  \"rx_frames\": 5,\n  \"tx_frames\": 0\n}\n");
}

#[test]
fn a_trace_ends_with_a_stop_however_it_ends() {
    let there = Installed::new("trace", CARD, DAEMON);
    assert_ok(&there.up(&[]));
    let log = || fs::read_to_string(there.run_dir().join("toed.log")).expect("log");
    let stops = || log().matches(r#"{"cmd":"trace_stop","trace":7}"#).count();
    let file = there.dir.join("trace.json");
    let done = there.toectl(&["trace", "--wait", "1", "--output", &file.to_string_lossy()]);
    assert_ok(&done);
    assert!(done.stdout().contains("port 80, flow 4") && done.stdout().contains("segments seen: 1, 0 of them"), "{}", done.stdout());
    assert!(fs::read_to_string(&file).expect("written").contains(r#""name":"protocol.1""#));
    assert_eq!(stops(), 1);
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let before = (stops(), log().matches("trace_read").count());
        let mut command = there.program();
        command.env("TOE_RUN_DIR", there.run_dir()).args(["trace", "--wait", "30"]);
        let mut tracing = Job::start("trace", command, &there.dir.join("trace.log")).expect("starts");
        job::wait_until("it reads", LIMIT, || log().matches("trace_read").count() > before.1).expect("it reads");
        tracing.signal(signal).expect("signalled");
        job::wait_until("it stops", LIMIT, || stops() > before.0).expect("it stops");
        let status = tracing.wait(LIMIT).expect("it ends");
        assert!(status.success(), "{status:?}");
        assert!(fs::read_to_string(there.dir.join("trace.log")).expect("log").contains("port 80, flow 4"));
    }
    let refused = there.toectl(&["trace", "--output", "/no/such/folder/x.json"]);
    assert!(!refused.status.success() && refused.stderr().contains("/no/such/folder/x.json"), "{}", refused.stderr());
    assert_eq!(stops(), 4);
}

#[test]
fn run_becomes_the_program_with_our_environment() {
    let there = Installed::new("run", CARD, DAEMON);
    let missing = there.toectl(&["run", "--fallback", "true"]);
    assert_eq!(missing.status.code(), Some(125));
    assert!(missing.stderr().contains("libtoe_preload.so"), "{}", missing.stderr());

    // An empty library would make the loader complain on stderr, which does no harm here.
    fs::write(there.dir.join("libtoe_preload.so"), "").expect("stand-in");
    assert_ok(&there.up(&[]));
    let done = there.toectl(&["run", "--", "sh", "-c", "echo $LD_PRELOAD $TOE_RUN_DIR $TOE_REQUIRE; exit 7"]);
    assert_eq!(done.status.code(), Some(7));
    let library = there.dir.join("libtoe_preload.so").canonicalize().expect("there");
    assert_eq!(done.stdout(), format!("{} {} 1\n", library.display(), there.run_dir().display()));
    let done = there.toectl(&["run", "--fallback", "--", "sh", "-c", "echo ${TOE_REQUIRE-unset}"]);
    assert_eq!(done.stdout(), "unset\n");
    let done = there.toectl(&["run", "--rate", "1mbit", "--", "sh", "-c", "echo $TOE_TICKET"]);
    assert_eq!(done.stdout(), "18446744073709551615\n");
    let done = there.toectl(&["run", "--", "sh", "-c", "echo ${TOE_TICKET-unset}"]);
    assert_eq!(done.stdout(), "unset\n");
    assert_eq!(there.toectl(&["run", "no-such-program"]).status.code(), Some(127));
    assert_eq!(there.toectl(&["run", "/etc/passwd"]).status.code(), Some(126));
    assert!(programs::find("sh").is_some());
}
