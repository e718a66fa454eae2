//! The bare-metal image in QEMU, end to end: unmodified programs of this machine on a card whose every instruction is emulated, with the
//! Linux kernel at the other end of the wire.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use toe_lab::instance::Place;
use toe_lab::job::{self, Finished, wait_until};
use toe_lab::qemu::{self, Machine, QemuCard};
use toe_lab::servers::{self, WWW};
use toe_lab::{CARD_IP, Card, Job, Lab, PEER_IF, PEER_IP, Pair};

const LIMIT: Duration = Duration::from_secs(90);
const FILE_LEN: u64 = 64 << 20;
const CARD_IP6: &str = "fd77::2";
const PEER_IP6: &str = "fd77::1";

struct Scene {
    pair: Pair,
    card: QemuCard,
    hash: String,
}

impl Scene {
    fn new(machine: &Machine, file_len: u64) -> Scene {
        let pair = qemu::pair().expect("two hosts");
        let hash = servers::make_file(&pair.lab.path(&format!("{WWW}/file")), file_len, 4).expect("file");
        let card = QemuCard::start(&pair, machine).unwrap_or_else(|e| panic!("{e:#}"));
        Scene { pair, card, hash }
    }

    fn usual() -> Scene {
        Scene::new(&Machine::default(), FILE_LEN)
    }

    fn place(&self) -> Place {
        self.card.card.place()
    }

    fn server(&self, place: &Place, name: &str, port: u16, from: &Place) -> Job {
        let mut job = servers::python_http(&self.pair.lab, place, name, port).expect("starts");
        servers::wait_listening(&mut job, &from.host, &place.ip, port).unwrap_or_else(|e| panic!("{e:#}\n{}", self.card.logs()));
        job
    }

    fn fetch(&self, client: &Place, ip: &str, port: u16) {
        let url = format!("http://{ip}:{port}/file");
        let done = servers::fetch(&self.pair.lab, client, &url, &self.hash, LIMIT);
        let done = done.unwrap_or_else(|e| panic!("{e:#}\n{}", self.card.logs()));
        println!("{url}: {:.2} s, {:.2} Gbit/s", done.seconds, done.gbit_per_s);
    }

    /// The same file each way.
    fn both_ways(&self) {
        let (card, peer) = (self.place(), self.pair.peer_place());
        let _on_card = self.server(&card, "on-card", 8080, &peer);
        self.fetch(&peer, CARD_IP, 8080);
        let _on_peer = self.server(&peer, "on-peer", 8081, &peer);
        self.fetch(&card, PEER_IP, 8081);
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn files_are_whole_in_both_directions() {
    Scene::usual().both_ways();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn files_go_both_ways_over_ipv6() {
    let pair = qemu::pair().expect("two hosts");
    pair.peer().ip(&format!("addr add {PEER_IP6}/64 dev {PEER_IF} nodad")).expect("address");
    let hash = servers::make_file(&pair.lab.path(&format!("{WWW}/file")), 1 << 20, 4).expect("file");
    let machine = Machine { ip6: Some("fd77::2/64"), ..Machine::default() };
    let card = QemuCard::start(&pair, &machine).unwrap_or_else(|e| panic!("{e:#}"));
    // Nobody else has it.
    let has_address = || card.card.json("status").is_ok_and(|status| status["addresses"][1]["state"] == "preferred");
    wait_until("the card's address", LIMIT, has_address).unwrap_or_else(|e| panic!("{e:#}\n{}", card.logs()));
    let scene = Scene { pair, card, hash };
    let (mut card, mut peer) = (scene.place(), scene.pair.peer_place());
    (card.ip, peer.ip) = (CARD_IP6.to_owned(), PEER_IP6.to_owned());
    let _on_card = scene.server(&card, "on-card", 8080, &peer);
    // Solicitations for the card are multicast: its network device has to pass them on.
    scene.pair.peer().ip(&format!("-6 neigh flush dev {PEER_IF}")).expect("flush");
    scene.fetch(&peer, &format!("[{CARD_IP6}]"), 8080);
    let _on_peer = scene.server(&peer, "on-peer", 8081, &peer);
    scene.fetch(&card, &format!("[{PEER_IP6}]"), 8081);
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_uefi_application_serves_as_well() {
    Scene::new(&Machine { uefi: true, ..Machine::default() }, 1 << 20).both_ways();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn one_core_serves() {
    Scene::new(&Machine { cores: 1, ..Machine::default() }, 1 << 20).both_ways();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn eight_cores_serve() {
    Scene::new(&Machine { cores: 8, ..Machine::default() }, 1 << 20).both_ways();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn redis_benchmark_gets_its_answers() {
    let scene = Scene::usual();
    let peer = scene.pair.peer_place();
    let mut redis = servers::redis(&scene.pair.lab, &scene.place(), "redis", 6379).expect("starts");
    servers::wait_redis(&mut redis, &peer, CARD_IP, 6379).expect("answers");
    let rates = servers::redis_benchmark(&peer, CARD_IP, 6379, 5_000, &["-t", "set,get", "-c", "20"]);
    let rates = rates.unwrap_or_else(|e| panic!("{e:#}\n{}", scene.card.logs()));
    assert_eq!(rates.len(), 2, "{rates:?}");
    println!("{rates:?}");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn iperf3_transfers_in_both_directions() {
    let scene = Scene::usual();
    let (card, peer) = (scene.place(), scene.pair.peer_place());
    for more in [&["-n", "32M"][..], &["-n", "32M", "-R"], &["-n", "16M", "-P", "4"]] {
        let mut server = card.start(&scene.pair.lab, "iperf3", "iperf3", &["-s", "-1", "--forceflush", "-B", CARD_IP]).expect("starts");
        let log = scene.pair.lab.log_path("iperf3");
        server.wait_ready(LIMIT, || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("listening"))).expect("listens");
        let mut args = vec!["-c", CARD_IP, "-i", "0"];
        args.extend(more);
        let said = peer.run("iperf3", &args, LIMIT).unwrap_or_else(|e| panic!("{more:?}: {e:#}\n{}", scene.card.logs())).stdout();
        assert!(said.contains("iperf Done."), "{said}");
        std::fs::remove_file(log).expect("log");
    }
}

/// Sleeping cores stand in WFI, so QEMU's threads sleep as well.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn an_idle_machine_uses_no_processor() {
    let scene = Scene::new(&Machine::default(), 1 << 20);
    let peer = scene.pair.peer_place();
    let _server = scene.server(&scene.place(), "on-card", 8080, &peer);
    let open = "import socket, sys, time\n\
                s = [socket.create_connection((sys.argv[1], 8080)) for _ in range(8)]\n\
                print('open', flush=True)\n\
                time.sleep(60)";
    let mut held = peer.start(&scene.pair.lab, "held", "python3", &["-c", open, CARD_IP]).expect("starts");
    let log = scene.pair.lab.log_path("held");
    held.wait_ready(LIMIT, || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("open"))).expect("connects");
    // The lowest of a few looks: what else happens on this machine comes and goes, a core that spins does not.
    let share = (0..5).map(|_| {
        let (begin, used) = (Instant::now(), scene.card.cpu_seconds().expect("runs"));
        std::thread::sleep(Duration::from_secs(1));
        (scene.card.cpu_seconds().expect("runs") - used) / begin.elapsed().as_secs_f64()
    });
    let least = share.fold(f64::MAX, f64::min);
    println!("QEMU uses {:.1} % of a processor with connections open", 100.0 * least);
    assert!(least < 0.5, "{least}");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn the_link_is_shown_and_traffic_goes_on_when_it_is_back() {
    let scene = Scene::new(&Machine::default(), 1 << 20);
    let link_is = |wanted: &str| {
        let shown = || scene.card.card.json("status").is_ok_and(|status| status["card"]["link"] == wanted);
        wait_until(&format!("the link is {wanted}"), LIMIT, shown).unwrap_or_else(|e| panic!("{e:#}\n{}", scene.card.logs()));
    };
    link_is("up");
    scene.both_ways();
    let mut monitor = scene.card.monitor(&scene.pair).expect("a monitor");
    monitor.set_link(false).expect("obeys");
    link_is("down");
    assert!(scene.card.card.toectl(&["status"]).expect("answers").stdout().contains("link down"));
    monitor.set_link(true).expect("obeys");
    link_is("up");
    scene.both_ways();
    let log = scene.card.toed.log();
    assert!(log.contains("the port's link is down") && log.contains("the port's link is up"), "{log}");
}

/// One host with a card that `toectl` has started; the kernel at the other end of the TAP interface.
struct Up {
    lab: Lab,
    card: Card,
}

impl Up {
    fn new() -> Up {
        let lab = Lab::new(1).expect("a host");
        let card = Card::new(lab.host(0), "/run/toe", CARD_IP).expect("a card");
        Up { lab, card }
    }

    fn up(&self, more: &[&str]) -> Finished {
        let (image, ip) = (qemu::image(false).expect("built"), format!("{CARD_IP}/24"));
        let image = image.to_str().expect("text");
        let words = [&["up", "--board", "virt", "--image", image, "--port", "tap:tap7", "--ip", &ip, "--wait", "60"][..], more].concat();
        job::run(self.card.command(words), 2 * LIMIT).expect("toectl runs")
    }

    fn assert_nothing_left(&self) {
        let ours = |name: &str| ["toe-window", "toed", "toectl"].contains(&name) || name.starts_with("qemu");
        let mut left = Vec::new();
        let gone = wait_until("processes end", LIMIT, || {
            left = self.lab.processes().into_iter().filter(|(_, name)| ours(name)).collect();
            left.is_empty()
        });
        assert!(gone.is_ok(), "{left:?}");
        assert!(!self.lab.path("/run/toe").exists(), "the run-time folder is still there");
        assert!(self.lab.host(0).ip("link show dev tap7").is_err(), "the interface is still there");
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn toectl_starts_a_machine_and_stops_it() {
    let here = Up::new();
    let started = here.up(&["--window", "128M", "--cores", "3"]).success().unwrap_or_else(|e| panic!("{e:#}"));
    assert!(started.stdout().contains("card up: 10.77.0.2/24 on tap:tap7"), "{}", started.stdout());
    here.lab.host(0).ip(&format!("addr add {PEER_IP}/24 dev tap7")).expect("an address");
    let (place, kernel) = (here.card.place(), Place::kernel(here.lab.host(0), PEER_IP));
    let hash = servers::make_file(&here.lab.path(&format!("{WWW}/file")), 1 << 20, 4).expect("file");
    let logs = || here.card.toectl(&["logs"]).expect("answers").stdout();
    let mut server = servers::python_http(&here.lab, &place, "on-card", 8080).expect("starts");
    servers::wait_listening(&mut server, &kernel.host, CARD_IP, 8080).unwrap_or_else(|e| panic!("{e:#}\n{}", logs()));
    servers::fetch(&here.lab, &kernel, &format!("http://{CARD_IP}:8080/file"), &hash, LIMIT)
        .unwrap_or_else(|e| panic!("{e:#}\n{}", logs()));
    let status = here.card.toectl(&["status"]).expect("answers").stdout();
    assert!(status.contains("qemu (attached)") && status.contains("link up") && status.contains("of 127M handed out"), "{status}");
    assert!(logs().contains("3 cores") && logs().contains("control plane attached"), "{}", logs());
    // A machine that has died is started again, and programs that are started then work; also one that has not died.
    let qemu = here.card.pid(&here.lab, "qemu").expect("runs");
    job::signal(qemu, Signal::KILL);
    for _ in 0..2 {
        here.card.toectl(&["restart"]).unwrap_or_else(|e| panic!("{e:#}\n{}", logs()));
        server = servers::python_http(&here.lab, &place, "on-card", 8080).expect("starts");
        servers::wait_listening(&mut server, &kernel.host, CARD_IP, 8080).unwrap_or_else(|e| panic!("{e:#}\n{}", logs()));
        servers::fetch(&here.lab, &kernel, &format!("http://{CARD_IP}:8080/file"), &hash, LIMIT)
            .unwrap_or_else(|e| panic!("{e:#}\n{}", logs()));
    }
    let second = here.up(&[]);
    assert!(second.status.code() == Some(2) && second.stderr().contains("is running already"), "{}", second.stderr());
    here.card.down().expect("down");
    here.assert_nothing_left();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_machine_that_does_not_start_leaves_nothing() {
    let here = Up::new();
    let failed = here.up(&["--nic-arg=fail=start"]);
    let said = failed.stderr();
    assert!(failed.status.code() == Some(1) && said.contains("qemu ended with status 0") && said.contains("it was told to"), "{said}");
    here.assert_nothing_left();
    let failed = here.up(&["--window", "65M"]);
    assert!(failed.status.code() == Some(2) && failed.stderr().contains("must be a power of two"), "{}", failed.stderr());
    here.assert_nothing_left();
}

/// The network device is reset every second, as if it had broken the rules; a connection that lasts longer delivers every byte.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn connections_outlive_resets_of_the_network_device() {
    // Pipelined, and fused.
    for cores in [4, 1] {
        let scene = Scene::new(&Machine { cores, append: "fail=port fail-after=1000", ..Machine::default() }, FILE_LEN);
        let (card, peer) = (scene.place(), scene.pair.peer_place());
        let _on_card = scene.server(&card, "on-card", 8080, &peer);
        let slowly = format!("curl -sS --limit-rate 8M http://{CARD_IP}:8080/file | sha256sum");
        let said = peer.run("bash", &["-c", &slowly], LIMIT).unwrap_or_else(|e| panic!("{e:#}\n{}", scene.card.logs())).stdout();
        assert!(said.starts_with(&scene.hash), "{said}\n{}", scene.card.logs());
        let resets = scene.card.card.stats().expect("answers")["port_resets"];
        println!("{resets} resets in one connection");
        assert!(resets >= 3, "{resets}\n{}", scene.card.logs());
        // It is down as long as the device is reset.
        let is_up = || scene.card.card.toectl(&["status"]).is_ok_and(|status| status.stdout().contains("link up"));
        wait_until("the link is up", LIMIT, is_up).expect("up");
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn toed_is_killed_and_another_one_takes_the_card_over() {
    let mut scene = Scene::new(&Machine::default(), 1 << 20);
    let peer = scene.pair.peer_place();
    let mut server = scene.server(&scene.place(), "on-card", 8080, &peer);
    scene.card.toed.signal(Signal::KILL).expect("signal");
    scene.card.toed.wait(LIMIT).expect("ends");
    // The application is told; what it does then is its own affair.
    server.signal(Signal::TERM).expect("signal");
    server.wait(LIMIT).expect("ends");
    scene.card.restart_toed(&scene.pair).unwrap_or_else(|e| panic!("{e:#}"));
    assert!(scene.card.machine.is_running());
    scene.both_ways();
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn the_machine_is_killed_and_everybody_is_told() {
    let scene = Scene::new(&Machine::default(), 1 << 20);
    let held = "import socket, sys\n\
                s = socket.create_connection((sys.argv[1], 8081))\n\
                print('open', flush=True)\n\
                try:\n    s.recv(1)\n    print('closed')\nexcept OSError as e:\n    print('told', type(e).__name__)\n";
    let peer = scene.pair.peer_place();
    let _server = scene.server(&peer, "on-peer", 8081, &peer);
    let mut client = scene.place().start(&scene.pair.lab, "held", "python3", &["-c", held, PEER_IP]).expect("starts");
    let log = scene.pair.lab.log_path("held");
    let said = |what: &str| std::fs::read_to_string(&log).is_ok_and(|text| text.contains(what));
    client.wait_ready(LIMIT, || said("open")).expect("connects");
    scene.card.machine.signal(Signal::KILL).expect("signal");
    wait_until("the application is told", LIMIT, || said("told") || said("closed"))
        .unwrap_or_else(|e| panic!("{e:#}\n{}", scene.card.logs()));
    assert!(said("told"), "{}", client.log());
    client.wait(LIMIT).expect("ends");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn the_machine_is_killed_and_started_again_and_toed_goes_on() {
    let machine = Machine::default();
    let mut scene = Scene::new(&machine, 1 << 20);
    scene.both_ways();
    for _ in 0..2 {
        scene.card.machine.signal(Signal::KILL).expect("signal");
        scene.card.machine.wait(LIMIT).expect("ends");
        let card = scene.card.card.clone();
        let gone = || card.json("status").is_ok_and(|status| status["card"]["status"] == "gone");
        wait_until("toed knows", LIMIT, gone).unwrap_or_else(|e| panic!("{e:#}\n{}", scene.card.logs()));
        scene.card.restart_machine(&scene.pair, &machine).expect("starts");
        scene.card.wait_attached().unwrap_or_else(|e| panic!("{e:#}"));
        scene.both_ways();
    }
    assert!(scene.card.toed.is_running());
}
