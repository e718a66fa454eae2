//! A card with a well-behaved application on it, a peer, and room for one that means harm.

use std::path::PathBuf;
use std::time::Duration;

use toe_lab::instance::{CARD_IF, PEER_IF};
use toe_lab::job::{Job, wait_until};
use toe_lab::{CARD_IP, Card, PEER_IP, Pair, proc, servers};

/// Generous: how long anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of the file that the other application serves.
const FILE: u64 = 16 << 20;

/// What toe-nic and toed hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Open descriptors of toe-nic and toed.
    fds: [usize; 2],
    /// Bytes of memory of each, shared memory included.
    rss: [u64; 2],
}

/// Bytes that an attack may make a daemon write to its log.
const LOG_MAX: u64 = 64 << 10;

/// Memory that an allocator or a ring may keep for good once it was used, bytes.
const MEMORY_SLACK: u64 = 24 << 20;

pub struct Scene {
    pub card: Card,
    pub nginx: Option<Job>,
    pub hash: String,
    pids: [u32; 2],
    pub start: Footprint,
    pub pair: Pair,
}

/// Puts one of the scripts of this folder into the lab and returns its path there.
pub fn script(pair: &Pair, name: &str, text: &str) -> String {
    let inside = format!("/run/{name}");
    std::fs::write(pair.lab.path(&inside), text).expect("script");
    inside
}

impl Scene {
    pub fn new() -> Scene {
        let pair = Pair::new().expect("two hosts");
        let card = pair.card_up().expect("card");
        Scene::with(pair, card)
    }

    /// Each application has so many bytes for its buffers.
    pub fn with_memory(bytes: u64) -> Scene {
        Scene::with_toed(&format!("--shm-len={bytes}"))
    }

    /// toed has one more option.
    pub fn with_toed(option: &str) -> Scene {
        let pair = Pair::new().expect("two hosts");
        let card = pair.card_up_with(&[&format!("--toed-arg={option}")]).expect("card");
        Scene::with(pair, card)
    }

    /// The daemons may open so many descriptors.
    pub fn with_descriptors(most: u32) -> Scene {
        let pair = Pair::new().expect("two hosts");
        let card = Card::new(pair.near(), "/run/toe", CARD_IP).expect("card");
        let toectl = toe_lab::programs::built_dir().expect("built").join("toectl");
        let mut command = pair.near().command(toe_lab::programs::require("prlimit").expect("prlimit"));
        command.env("TOE_RUN_DIR", &card.run_dir).arg(format!("--nofile={most}:{most}")).arg(toectl);
        command.args(["up", "--port", &format!("af_packet:{CARD_IF}"), "--ip", &format!("{CARD_IP}/24")]);
        toe_lab::job::run(command, LIMIT).and_then(|done| done.success()).expect("up");
        Scene::with(pair, card)
    }

    fn with(pair: Pair, card: Card) -> Scene {
        let pids = ["toe-nic", "toed"].map(|name| card.pid(&pair.lab, name).expect("pid"));
        // toectl has just asked toed how it is: that connection may still be open.
        let start = (0..10)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(20));
                Footprint::of(pids)
            })
            .min_by_key(|f| f.fds)
            .expect("ten of them");
        let hash = servers::make_file(&pair.lab.path("/run/www/file"), FILE, 77).expect("file");
        let mut nginx = servers::nginx(&pair.lab, &card.place(), "nginx", 80).expect("nginx");
        servers::wait_listening(&mut nginx, pair.peer(), CARD_IP, 80).expect("nginx listens");
        Scene { pair, card, nginx: Some(nginx), hash, pids, start }
    }

    /// One download from the other application; every byte must be right.
    pub fn fetch(&self) {
        let url = format!("http://{CARD_IP}/file");
        if let Err(e) = servers::fetch(&self.pair.lab, &self.pair.peer_place(), &url, &self.hash, LIMIT) {
            panic!("the other application: {e:#}\n{}", self.card.logs(&self.pair.lab, 30));
        }
    }

    /// A program that comes only now gets its socket and its connection.
    pub fn newcomer(&self, port: u16) {
        let script =
            "import socket, sys\ns = socket.create_connection((sys.argv[1], int(sys.argv[2])), 30)\ns.sendall(b'hello')\ns.close()\n";
        let args = ["-c", script, PEER_IP, &port.to_string()];
        if let Err(e) = self.card.place().run("python3", &args, LIMIT) {
            panic!("a newcomer: {e:#}\n{}", self.card.logs(&self.pair.lab, 30));
        }
    }

    pub fn start_peer(&self, connections: u32) -> Job {
        let path = script(&self.pair, "peer.py", include_str!("peer.py"));
        let args = ["-u", &path, CARD_IP, &connections.to_string()];
        let mut peer = self.pair.peer_place().start(&self.pair.lab, "peer", "python3", &args).expect("peer");
        wait_log(&mut peer, "ready");
        peer
    }

    /// The hostile application, up to its saying "raging".
    pub fn start_hostile(&self, attack: &str) -> Job {
        let path = script(&self.pair, "app.py", include_str!("app.py"));
        let mut command = self.pair.near().command(toe_lab::programs::require("python3").expect("python3"));
        command.env("TOE_RUN_DIR", &self.card.run_dir).args(["-u", &path, attack, PEER_IP, "20260"]);
        let mut hostile = Job::start("hostile", command, &self.pair.lab.log_path("hostile")).expect("starts");
        wait_log(&mut hostile, "raging");
        hostile
    }

    /// Frames from the kernel's side, made by hand. Returns what the script printed.
    pub fn on_the_wire(&self, attack: &str) -> String {
        let path = script(&self.pair, "wire.py", include_str!("wire.py"));
        let status = self.card.json("status").expect("status");
        let mac = status["card"]["port_mac"].as_str().expect("a MAC address").to_owned();
        let args = ["-u", &path, attack, PEER_IF, &mac, CARD_IP, PEER_IP];
        let done = self.pair.peer_place().run("python3", &args, LIMIT);
        done.unwrap_or_else(|e| panic!("{attack}: {e:#}\n{}", self.card.logs(&self.pair.lab, 30))).stdout()
    }

    /// Whatever was received was delivered, handed on, answered, or dropped for a reason.
    pub fn assert_books_balance(&self) {
        self.card.balanced_books().expect("every frame is accounted for");
    }

    pub fn counter(&self, name: &str) -> u64 {
        let stats = self.card.stats().unwrap_or_else(|e| panic!("stats: {e:#}\n{}", self.card.logs(&self.pair.lab, 30)));
        *stats.get(name).unwrap_or_else(|| panic!("no counter {name}"))
    }

    pub fn assert_counted(&self, names: &[&str]) {
        for name in names {
            assert!(self.counter(name) > 0, "{name} is 0");
        }
    }

    pub fn assert_alive(&self) {
        for (pid, name) in self.pids.iter().zip(["toe-nic", "toed"]) {
            assert!(proc::Stat::read(*pid).is_some_and(|s| !s.ended()), "{name} has ended\n{}", self.card.logs(&self.pair.lab, 40));
        }
    }

    /// With all applications gone, everything has returned, and nobody is busy.
    pub fn assert_clean(&mut self) {
        drop(self.nginx.take());
        let mut seen = String::new();
        let gone = wait_until("applications are forgotten", LIMIT, || {
            let status = self.card.json("status").unwrap_or_default();
            seen = format!("{:#}", status["applications"]);
            status["applications"].as_array().is_some_and(Vec::is_empty)
        });
        let connections = || self.card.try_toectl(&["ss"]).map(|done| done.stdout()).unwrap_or_default();
        assert!(gone.is_ok(), "{seen}\n{}{}", connections(), self.card.logs(&self.pair.lab, 40));
        let mut now = self.start;
        let back = wait_until("descriptors and memory are back", LIMIT, || {
            now = Footprint::of(self.pids);
            now.is_back_at(&self.start)
        });
        assert!(back.is_ok(), "{now:?} at the end, {:?} at the start: {:#?}", self.start, self.descriptors());
        assert_eq!(["toed_flows", "toed_clients", "toed_listeners"].map(|name| self.counter(name)), [0, 0, 0]);
        self.assert_idle();
        self.assert_logs_small();
    }

    /// Nobody can fill the disk by being refused.
    fn assert_logs_small(&self) {
        for name in ["toe-nic", "toed"] {
            let path = self.pair.lab.path(&format!("{}/{name}.log", self.card.run_dir));
            let len = std::fs::metadata(&path).expect("a log").len();
            assert!(len < LOG_MAX, "{name}.log has {len} bytes:\n{}", self.card.logs(&self.pair.lab, 10));
        }
    }

    /// A while in which next to nothing is used: a loop that never sleeps would use all of it.
    fn assert_idle(&self) {
        let most = proc::ticks_per_second() / 16;
        let used = proc::ticks_used(&self.pids, Duration::from_millis(300), most);
        assert!(used.iter().all(|used| *used <= most), "toe-nic and toed are busy with nothing: {used:?} ticks");
    }

    fn descriptors(&self) -> Vec<Vec<PathBuf>> {
        let of = |pid: &u32| {
            let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).map(|all| all.flatten().collect::<Vec<_>>()).unwrap_or_default();
            entries.iter().filter_map(|e| std::fs::read_link(e.path()).ok()).collect()
        };
        self.pids.iter().map(of).collect()
    }

    /// The whole course of an attack: while it goes on others work, and after it nothing of it is left.
    /// `ended`: what the peer must have seen when the hostile one was killed.
    pub fn survive(&mut self, attack: &str, connections: u32, ended: &str) -> String {
        let mut peer = self.start_peer(connections);
        let hostile = self.start_hostile(attack);
        self.assert_alive();
        self.fetch();
        self.newcomer(9);
        self.fetch();
        self.assert_alive();
        let said = hostile.log();
        println!("{said}");
        // With all its children; SIGKILL.
        drop(hostile);
        if !ended.is_empty() {
            let seen = peer.wait_ready(LIMIT, || peer_log(&self.pair).contains(ended));
            assert!(seen.is_ok(), "the peer saw no '{ended}' but:\n{}\n{said}", peer_log(&self.pair));
        }
        self.fetch();
        said
    }
}

fn peer_log(pair: &Pair) -> String {
    std::fs::read_to_string(pair.lab.log_path("peer")).unwrap_or_default()
}

/// Waits for a word in what a job prints.
pub fn wait_log(job: &mut Job, word: &str) {
    let deadline = std::time::Instant::now() + LIMIT;
    while !job.log().contains(word) {
        assert!(job.is_running(), "ended before it said '{word}':\n{}", job.log_tail(30));
        assert!(std::time::Instant::now() < deadline, "did not say '{word}':\n{}", job.log_tail(30));
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Footprint {
    fn of(pids: [u32; 2]) -> Footprint {
        let fds = |pid| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |d| d.count());
        Footprint { fds: pids.map(fds), rss: pids.map(|pid| memory_of(pid).unwrap_or(0)) }
    }

    fn is_back_at(&self, start: &Footprint) -> bool {
        let fewer = self.fds.iter().zip(start.fds).all(|(now, then)| *now <= then);
        fewer && self.rss.iter().zip(start.rss).all(|(now, then)| *now <= then + MEMORY_SLACK)
    }
}

/// VmRSS: anonymous, files and shared memory.
fn memory_of(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
