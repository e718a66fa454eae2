//! Starting, stopping, dying: what peers see, and what is left.

use std::time::Duration;

use rustix::process::Signal;
use toe_lab::job::{self, wait_until};
use toe_lab::{CARD_IP, Card, PEER_IP, Pair, proc, servers};

const LIMIT: Duration = Duration::from_secs(30);

/// Nothing of an instance is left: processes, files, the interface's filter.
fn assert_nothing_left(pair: &Pair, card: &Card) {
    let mut left = Vec::new();
    let gone = wait_until("processes end", LIMIT, || {
        left = pair.lab.processes().into_iter().filter(|(_, name)| name == "toe-nic" || name == "toed").collect();
        left.is_empty()
    });
    assert!(gone.is_ok(), "{left:?}");
    assert!(!pair.lab.path(&card.run_dir).exists(), "{} is still there", card.run_dir);
    let qdiscs = pair.near().run("tc", &["qdisc", "show", "dev", "toe0"], LIMIT).expect("tc").stdout();
    assert!(!qdiscs.contains("clsact"), "{qdiscs}");
    let shm = std::fs::read_dir(pair.lab.path("/dev/shm"))
        .map(|entries| entries.flatten().filter(|e| e.file_name().to_string_lossy().contains("toe")).count());
    assert_eq!(shm.unwrap_or(0), 0);
}

/// Kills these processes of an instance: toed ends by itself when its card has gone, so all are looked up first.
fn kill(pair: &Pair, card: &Card, names: &[&str]) {
    let pids: Vec<u32> = names.iter().map(|name| card.pid(&pair.lab, name).expect("pid")).collect();
    pids.into_iter().for_each(|pid| job::signal(pid, Signal::KILL));
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn up_and_down_and_up_again() {
    let pair = Pair::new().expect("two hosts");
    for _ in 0..3 {
        let card = pair.card_up().expect("card");
        let status = card.json("status").expect("status");
        assert_eq!(status["ip"], "10.77.0.2/24", "{status}");
        assert_eq!(card.try_toectl(&["up", "--port", "af_packet:toe0", "--ip", "10.77.0.2/24"]).expect("runs").status.code(), Some(2));
        card.down().expect("down");
        assert_nothing_left(&pair, &card);
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn the_link_is_that_of_the_interface() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    for (told, wanted) in [("up", "up"), ("down", "down"), ("up", "up")] {
        pair.peer().ip(&format!("link set peer0 {told}")).expect("set");
        let shown = || card.json("status").is_ok_and(|status| status["card"]["link"] == wanted);
        wait_until(&format!("the link is {wanted}"), LIMIT, shown).unwrap_or_else(|e| panic!("{e:#}"));
    }
    card.down().expect("down");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn the_card_answers_ping() {
    let pair = Pair::new().expect("two hosts");
    let _card = pair.card_up().expect("card");
    // ping(8) is not installed everywhere; ARP and ICMP by hand.
    let script = "import socket, struct, sys\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); s.settimeout(10)\n\
        def csum(b):\n\
        \x20   t = sum(struct.unpack('!%dH' % (len(b) // 2), b)); t = (t >> 16) + (t & 0xffff); return ~(t + (t >> 16)) & 0xffff\n\
        body = b'x' * 56\n\
        for n in range(5):\n\
        \x20   head = struct.pack('!BBHHH', 8, 0, 0, 77, n)\n\
        \x20   s.sendto(struct.pack('!BBHHH', 8, 0, csum(head + body), 77, n) + body, (sys.argv[1], 0))\n\
        \x20   while True:\n\
        \x20       answer = s.recv(2000)[20:]\n\
        \x20       if answer[0] == 0 and answer[4:8] == struct.pack('!HH', 77, n): break\n\
        \x20   assert answer[8:] == body\n\
        print('alive')\n";
    let said = pair.peer().run("python3", &["-c", script, CARD_IP], LIMIT).expect("five echoes");
    assert_eq!(said.stdout(), "alive\n");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_closed_port_refuses_both_ways() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let refused = pair.peer().run("bash", &["-c", &format!("exec 3<>/dev/tcp/{CARD_IP}/4444")], LIMIT).unwrap_err().to_string();
    assert!(refused.contains("Connection refused"), "{refused}");
    let args = ["-sS", "--max-time", "20", &format!("http://{PEER_IP}:4444/")];
    let refused = card.place().run("curl", &args, LIMIT).unwrap_err().to_string();
    // curl's exit status 7: could not connect.
    assert!(refused.contains("exit status: 7"), "{refused}");
    let nobody = card.place().run("curl", &["-sS", "--max-time", "25", "http://10.77.0.99:80/"], LIMIT).unwrap_err().to_string();
    assert!(nobody.contains("No route to host") || nobody.contains("exit status: 7"), "{nobody}");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn the_peer_of_a_killed_program_sees_a_reset() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let mut server = card.place().start_built(&pair.lab, "rpc", "toe-rpc", &["server", &format!("{CARD_IP}:7000")]).expect("starts");
    servers::wait_listening(&mut server, pair.peer(), CARD_IP, 7000).expect("listens");
    let script = "import socket, sys\n\
        s = socket.create_connection((sys.argv[1], 7000), 10)\n\
        s.sendall(b'toe-rpce' + b'x' * 64)\n\
        got = b''\n\
        while len(got) < 64: got += s.recv(64)\n\
        print('connected', flush=True)\n\
        s.settimeout(20)\n\
        try: print('end', s.recv(1))\n\
        except ConnectionResetError: print('reset')\n";
    let mut client = pair.peer_place().start(&pair.lab, "client", "python3", &["-u", "-c", script, CARD_IP]).expect("starts");
    let log = pair.lab.log_path("client");
    let log = || std::fs::read_to_string(&log).unwrap_or_default();
    client.wait_ready(LIMIT, || log().contains("connected")).expect("connects");
    server.signal(Signal::KILL).expect("killed");
    client.wait(LIMIT).expect("the client ends");
    assert!(log().contains("reset"), "{}", log());
    // Its memory has returned, and the card serves others.
    wait_until("the application is forgotten", LIMIT, || {
        card.json("status").is_ok_and(|status| status["applications"].as_array().is_some_and(Vec::is_empty))
    })
    .expect("forgotten");
    let mut again = card.place().start_built(&pair.lab, "again", "toe-rpc", &["server", &format!("{CARD_IP}:7000")]).expect("starts");
    servers::wait_listening(&mut again, pair.peer(), CARD_IP, 7000).expect("listens");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn down_leaves_nothing_after_kill_of_either_or_both() {
    for victims in [&["toe-nic"][..], &["toed"], &["toe-nic", "toed"]] {
        let pair = Pair::new().expect("two hosts");
        let card = pair.card_up().expect("card");
        let mut nginx = servers::nginx(&pair.lab, &card.place(), "nginx", 80).expect("starts");
        servers::wait_listening(&mut nginx, pair.peer(), CARD_IP, 80).expect("listens");
        kill(&pair, &card, victims);
        card.down().expect("down");
        assert_nothing_left(&pair, &card);
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_program_whose_card_is_killed_is_told_and_does_not_hang() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let mut server = pair.peer_place().start_built(&pair.lab, "rpc", "toe-rpc", &["server", &format!("{PEER_IP}:7000")]).expect("starts");
    servers::wait_listening(&mut server, pair.peer(), PEER_IP, 7000).expect("listens");
    let script = "import socket, sys\n\
        s = socket.create_connection((sys.argv[1], 7000), 10)\n\
        s.sendall(b'toe-rpce')\n\
        print('connected', flush=True)\n\
        try: print('end', s.recv(1))\n\
        except OSError as e: print('error', e.errno)\n";
    let mut client = card.place().start(&pair.lab, "client", "python3", &["-u", "-c", script, PEER_IP]).expect("starts");
    let log = pair.lab.log_path("client");
    let log = || std::fs::read_to_string(&log).unwrap_or_default();
    client.wait_ready(LIMIT, || log().contains("connected")).expect("connects");
    kill(&pair, &card, &["toe-nic", "toed"]);
    client.wait(LIMIT).expect("the client ends");
    assert!(log().contains("error"), "{}", log());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn two_instances_side_by_side() {
    let pair = Pair::new().expect("two hosts");
    pair.lab.veth((pair.near(), "toe1"), (pair.peer(), "peer1")).expect("veth");
    pair.peer().ip("addr add 10.78.0.1/24 dev peer1").expect("address");
    let first = pair.card_up().expect("first");
    let second = Card::new(pair.near(), "/run/toe-second", "10.78.0.2").expect("second");
    second.up("af_packet:toe1", &[]).expect("second");
    let hash = servers::make_file(&pair.lab.path("/run/www/file"), 8 << 20, 5).expect("file");
    let mut jobs = Vec::new();
    for (card, name) in [(&first, "nginx-first"), (&second, "nginx-second")] {
        let mut nginx = servers::nginx(&pair.lab, &card.place(), name, 80).expect("starts");
        servers::wait_listening(&mut nginx, pair.peer(), &card.ip, 80).expect("listens");
        jobs.push(nginx);
        servers::fetch(&pair.lab, &pair.peer_place(), &format!("http://{}/file", card.ip), &hash, LIMIT).expect("equal bytes");
    }
    first.down().expect("down");
    servers::fetch(&pair.lab, &pair.peer_place(), "http://10.78.0.2/file", &hash, LIMIT).expect("the second goes on");
    second.down().expect("down");
    assert_nothing_left(&pair, &first);
    assert_nothing_left(&pair, &second);
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_hundred_idle_connections_cost_next_to_nothing() {
    const SECONDS: u64 = 4;
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let mut server = card.place().start_built(&pair.lab, "rpc", "toe-rpc", &["server", &format!("{CARD_IP}:7000")]).expect("starts");
    servers::wait_listening(&mut server, pair.peer(), CARD_IP, 7000).expect("listens");
    let script = "import socket, sys, time\n\
        all = [socket.create_connection((sys.argv[1], 7000), 10) for _ in range(100)]\n\
        for s in all: s.sendall(b'toe-rpcex')\n\
        for s in all: assert s.recv(1) == b'x'\n\
        print('connected', flush=True); time.sleep(1000)\n";
    let mut client = pair.peer_place().start(&pair.lab, "client", "python3", &["-u", "-c", script, CARD_IP]).expect("starts");
    let log = pair.lab.log_path("client");
    client.wait_ready(LIMIT, || std::fs::read_to_string(&log).is_ok_and(|t| t.contains("connected"))).expect("connects");
    // Delayed ACKs and the like are over soon.
    std::thread::sleep(Duration::from_secs(1));
    let pids = [card.pid(&pair.lab, "toe-nic").expect("pid"), card.pid(&pair.lab, "toed").expect("pid"), server.pid().expect("pid")];
    // The aim is 1 % of a core; the margin is for machines that count in coarse ticks.
    let all = proc::ticks_per_second() * SECONDS;
    let used = proc::ticks_used(&pids, Duration::from_secs(SECONDS), all * 3 / 100);
    for (name, used) in ["toe-nic", "toed", "toe-rpc server"].iter().zip(used) {
        let percent = used as f64 * 100.0 / all as f64;
        println!("{name}: {percent:.2} % of a core with 100 idle connections");
        assert!(percent <= 3.0, "{name} uses {percent:.2} % of a core");
    }
    let connections = card.json("ss").expect("ss");
    let established = connections.as_array().map_or(0, |all| all.iter().filter(|c| c["state"] == "ESTAB").count());
    assert_eq!(established, 100);
}

/// A filter that somebody else has on the interface stays.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_queueing_discipline_that_was_there_before_stays() {
    let pair = Pair::new().expect("two hosts");
    pair.near().run("tc", &["qdisc", "add", "dev", "toe0", "clsact"], LIMIT).expect("tc");
    let card = pair.card_up().expect("card");
    job::signal(card.pid(&pair.lab, "toe-nic").expect("pid"), Signal::KILL);
    card.down().expect("down");
    let qdiscs = pair.near().run("tc", &["qdisc", "show", "dev", "toe0"], LIMIT).expect("tc").stdout();
    assert!(qdiscs.contains("clsact"), "{qdiscs}");
    let filters = pair.near().run("tc", &["filter", "show", "dev", "toe0", "ingress"], LIMIT).expect("tc").stdout();
    assert_eq!(filters.trim(), "");
}
