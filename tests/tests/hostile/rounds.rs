//! Transfers both ways through a card, one of whose programs is killed on the way.

use std::time::Duration;

use rustix::process::Signal;
use toe_lab::job::{self, Job, wait_until};
use toe_lab::{CARD_IP, Card, PEER_IP, Pair};

const LIMIT: Duration = Duration::from_secs(60);

/// On the card: sends for ever, receives for ever, and waits in accept(), in threads; each says how it ended.
const APPLICATION: &str = "
import os, socket, sys, threading
def say(words): os.write(1, (words + '\\n').encode())
listener = socket.socket(); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((sys.argv[1], 6000)); listener.listen()
out, into = (socket.create_connection((sys.argv[2], 9), 20) for _ in range(2))
out.settimeout(None); into.settimeout(None)
first, _ = listener.accept()
def tell(name, step):
    try:
        while step(): pass
        say(f'ended {name} end of file')
    except OSError as e: say(f'ended {name} {e}')
def send(): out.sendall(b'x' * 65536); return True
def receive(): return into.recv(65536)
def serve(): return first.recv(65536)
def accept(): return listener.accept()
threads = [threading.Thread(target=tell, args=(f.__name__, f)) for f in (send, receive, serve, accept)]
for t in threads: t.start()
print('going', flush=True)
for t in threads: t.join()
print('all ended', flush=True)
";

/// On the kernel: takes what comes on port 9 and sends on it, and sends to the card's port 6000; gives up when it is reset.
const PEER: &str = "
import os, socket, sys, threading, time
def say(words): os.write(1, (words + '\\n').encode())
sink = socket.create_server(('0.0.0.0', 9))
def pump(s, send):
    try:
        while (s.sendall(b'y' * 65536) is None) if send else s.recv(65536): pass
        say('ended')
    except OSError as e: say(f'ended {e}')
def server():
    n = 0
    while True:
        s, _ = sink.accept(); n += 1
        for send in (False, True): threading.Thread(target=pump, args=(s, send), daemon=True).start()
threading.Thread(target=server, daemon=True).start()
print('ready', flush=True)
while True:
    try: s = socket.create_connection((sys.argv[1], 6000), 5); break
    except OSError: time.sleep(0.01)
s.settimeout(None)
pump(s, True)
threading.Event().wait()
";

pub struct Round {
    seed: u64,
    pair: Pair,
    card: Card,
}

impl Round {
    pub fn new(seed: u64) -> Round {
        let pair = Pair::new().expect("two hosts");
        let card = pair.card_up().expect("card");
        Round { seed, pair, card }
    }

    /// Somewhere in the first half second.
    fn moment(&self) -> Duration {
        Duration::from_micros((self.seed ^ (self.seed >> 13)).wrapping_mul(0x9e37_79b9_7f4a_7c15) % 500_000)
    }

    pub fn play(&self, victims: &[&str]) {
        let moment = self.moment();
        println!("seed {}: {victims:?} after {moment:?}", self.seed);
        let lab = &self.pair.lab;
        let start = |place: &toe_lab::instance::Place, name, script, args: &[&str]| {
            let words = [&["-u", "-c", script], args].concat();
            place.start(lab, name, "python3", &words).expect("starts")
        };
        let mut peer = start(&self.pair.peer_place(), "peer", PEER, &[CARD_IP]);
        wait_log(&mut peer, "ready");
        let mut application = start(&self.card.place(), "application", APPLICATION, &[CARD_IP, PEER_IP]);
        wait_log(&mut application, "going");
        std::thread::sleep(moment);
        // All of them first: toed ends by itself soon after its card.
        let pids: Vec<u32> = victims.iter().map(|v| self.pid_of(v, &application)).collect();
        for pid in pids {
            job::signal(pid, Signal::KILL);
        }
        match victims {
            ["application"] => self.after_the_application(application, &peer),
            _ => self.after_a_daemon(application),
        }
        self.card.down().expect("down");
        self.assert_nothing_left();
    }

    fn pid_of(&self, victim: &str, application: &Job) -> u32 {
        match victim {
            "application" => application.pid().expect("pid"),
            daemon => self.card.pid(&self.pair.lab, daemon).expect("pid"),
        }
    }

    /// Every call of the application comes back, with an error.
    fn after_a_daemon(&self, mut application: Job) {
        let ended = application.wait(LIMIT);
        assert!(ended.is_ok(), "the application hangs:\n{}\n{}", application.log_tail(20), self.card.logs(&self.pair.lab, 20));
        let said = application.log();
        assert!(said.contains("all ended"), "{said}");
        for call in ["send", "receive", "serve", "accept"] {
            let end = said.lines().find(|l| l.starts_with(&format!("ended {call} ")));
            assert!(end.is_some_and(|l| l.contains("[Errno ")), "{call} came to no error:\n{said}");
        }
    }

    /// The peer sees the resets, and toed forgets.
    fn after_the_application(&self, mut application: Job, peer: &Job) {
        application.wait(LIMIT).expect("it was killed");
        let told =
            wait_until("the peer's connections are reset", LIMIT, || peer.log().lines().filter(|l| l.starts_with("ended")).count() == 5);
        assert!(told.is_ok(), "{}", peer.log());
        // Two threads at each of the first two: the error of a reset is told to one of them.
        assert!(peer.log().matches("ended [Errno 104]").count() >= 3, "{}", peer.log());
        let mut status = serde_json::Value::Null;
        let forgotten = wait_until("the application is forgotten", LIMIT, || {
            status = self.card.json("status").unwrap_or_default();
            status["applications"].as_array().is_some_and(Vec::is_empty) && status["card"]["flows"] == 0
        });
        assert!(forgotten.is_ok(), "{status:#}");
    }

    fn assert_nothing_left(&self) {
        let lab = &self.pair.lab;
        let mut left = Vec::new();
        let gone = wait_until("processes end", LIMIT, || {
            left = lab.processes().into_iter().filter(|(_, name)| name == "toe-nic" || name == "toed").collect();
            left.is_empty()
        });
        assert!(gone.is_ok(), "{left:?}");
        assert!(!lab.path(&self.card.run_dir).exists(), "{} is still there", self.card.run_dir);
        let qdiscs = self.pair.near().run("tc", &["qdisc", "show", "dev", "toe0"], LIMIT).expect("tc").stdout();
        assert!(!qdiscs.contains("clsact"), "{qdiscs}");
        let shm = std::fs::read_dir(lab.path("/dev/shm"))
            .map(|d| d.flatten().filter(|e| e.file_name().to_string_lossy().contains("toe")).count());
        assert_eq!(shm.unwrap_or(0), 0);
        assert_eq!(self.holders_of_memfds(), Vec::<String>::new());
    }

    /// Processes of the lab that still hold memory of the instance.
    fn holders_of_memfds(&self) -> Vec<String> {
        let holds = |pid: u32| {
            let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
            let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map(|d| d.flatten().collect::<Vec<_>>()).unwrap_or_default();
            maps.contains("memfd:toe-")
                || open.iter().any(|e| std::fs::read_link(e.path()).is_ok_and(|l| l.to_string_lossy().contains("memfd:toe-")))
        };
        self.pair.lab.processes().into_iter().filter(|(pid, _)| holds(*pid)).map(|(pid, name)| format!("{name} {pid}")).collect()
    }
}

fn wait_log(job: &mut Job, word: &str) {
    let deadline = std::time::Instant::now() + LIMIT;
    while !job.log().contains(word) {
        assert!(job.is_running(), "ended before it said '{word}':\n{}", job.log_tail(30));
        assert!(std::time::Instant::now() < deadline, "did not say '{word}':\n{}", job.log_tail(30));
        std::thread::sleep(Duration::from_millis(10));
    }
}
