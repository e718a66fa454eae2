//! Web servers and clients, unmodified, on the card; the Linux kernel at the other end.

use std::time::Duration;

use toe_lab::servers::{self, WWW};
use toe_lab::{CARD_IP, PEER_IP, Pair};

const LIMIT: Duration = Duration::from_secs(60);
const FILE_LEN: u64 = 64 << 20;

/// A pair with a card and a file to serve.
fn begin() -> (Pair, toe_lab::Card, String) {
    let pair = Pair::new().expect("two hosts");
    let hash = servers::make_file(&pair.lab.path(&format!("{WWW}/file")), FILE_LEN, 1).expect("file");
    let card = pair.card_up().expect("card");
    (pair, card, hash)
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn nginx_with_sendfile_and_two_workers_serves_curl() {
    let (pair, card, hash) = begin();
    let mut nginx = servers::nginx(&pair.lab, &card.place(), "nginx", 80).expect("starts");
    servers::wait_listening(&mut nginx, pair.peer(), CARD_IP, 80).expect("listens");
    for _ in 0..4 {
        servers::fetch(&pair.lab, &pair.peer_place(), &format!("http://{CARD_IP}/file"), &hash, LIMIT).expect("equal bytes");
    }
    card.balanced_books().expect("every frame is accounted for");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn nginx_answers_many_connections_at_once() {
    let (pair, card, _) = begin();
    let mut nginx = servers::nginx(&pair.lab, &card.place(), "nginx", 80).expect("starts");
    servers::wait_listening(&mut nginx, pair.peer(), CARD_IP, 80).expect("listens");
    let small = servers::make_file(&pair.lab.path(&format!("{WWW}/small")), 10_000, 3).expect("file");
    // One curl, 100 transfers, 50 connections at a time.
    let url = format!("http://{CARD_IP}/small?[1-100]");
    let args = ["-sS", "--fail", "--parallel", "--parallel-max", "50", "--max-time", "60", "-o", "/run/small-#1", &url];
    pair.peer_place().run("curl", &args, LIMIT).expect("all of them");
    for number in 1..=100 {
        let path = pair.lab.path(&format!("/run/small-{number}"));
        assert_eq!(servers::sha256(&path).expect("fetched"), small, "transfer {number}");
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_connection_is_reused_for_many_requests() {
    let (pair, card, _) = begin();
    let mut nginx = servers::nginx(&pair.lab, &card.place(), "nginx", 80).expect("starts");
    servers::wait_listening(&mut nginx, pair.peer(), CARD_IP, 80).expect("listens");
    servers::make_file(&pair.lab.path(&format!("{WWW}/small")), 1000, 3).expect("file");
    let url = format!("http://{CARD_IP}/small?[1-200]");
    let said = pair.peer_place().run("curl", &["-sS", "--fail", "-o", "/dev/null", "-w", "%{num_connects} ", &url], LIMIT).expect("all");
    let opened: u32 = said.stdout().split_whitespace().filter_map(|word| word.parse::<u32>().ok()).sum();
    assert_eq!(opened, 1, "{}", said.stdout());
}

/// SO_REUSEPORT: each of two nginx has two workers, and each of these a listener of its own at the same port. One nginx ends, and the
/// other serves everybody.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn two_nginx_share_a_port() {
    let (pair, card, _) = begin();
    let start = |name| servers::nginx_with(&pair.lab, &card.place(), name, 80, "reuseport").expect("starts");
    let mut first = start("nginx-1");
    servers::wait_listening(&mut first, pair.peer(), CARD_IP, 80).expect("listens");
    let pids = |connections: u32| {
        let url = format!("http://{CARD_IP}/pid?[1-{connections}]");
        let said =
            pair.peer_place().run("curl", &["-sS", "--fail", "--no-keepalive", "-H", "Connection: close", &url], LIMIT).expect("all");
        assert_eq!(said.stdout().lines().count(), connections as usize, "{}", said.stdout());
        said.stdout().lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let of_first = pids(60);
    assert_eq!(of_first.len(), 2, "both workers");
    let mut second = start("nginx-2");
    second.wait_ready(LIMIT, || pids(60).len() == 4).expect("four workers");
    drop(first);
    // Whoever was waiting at the first one was reset; from now on there is the second.
    second.wait_ready(LIMIT, || card.json("status").is_ok_and(|s| s["listeners"].as_array().is_some_and(|l| l.len() == 2))).expect("gone");
    let left = pids(60);
    assert!(left.len() == 2 && left.is_disjoint(&of_first), "{left:?} and {of_first:?}");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn python_http_server_serves_curl() {
    let (pair, card, hash) = begin();
    let mut python = servers::python_http(&pair.lab, &card.place(), "python", 8000).expect("starts");
    servers::wait_listening(&mut python, pair.peer(), CARD_IP, 8000).expect("listens");
    servers::fetch(&pair.lab, &pair.peer_place(), &format!("http://{CARD_IP}:8000/file"), &hash, LIMIT).expect("equal bytes");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn curl_on_the_card_fetches_from_the_kernel() {
    let (pair, card, hash) = begin();
    let mut nginx = servers::nginx(&pair.lab, &pair.peer_place(), "nginx", 80).expect("starts");
    servers::wait_listening(&mut nginx, pair.peer(), PEER_IP, 80).expect("listens");
    for _ in 0..3 {
        servers::fetch(&pair.lab, &card.place(), &format!("http://{PEER_IP}/file"), &hash, LIMIT).expect("equal bytes");
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn curl_on_the_card_uploads_to_the_kernel() {
    let (pair, card, hash) = begin();
    let script = "import http.server, sys\n\
        class H(http.server.BaseHTTPRequestHandler):\n\
        \x20   def do_PUT(self):\n\
        \x20       left = int(self.headers['Content-Length'])\n\
        \x20       with open('/run/uploaded', 'wb') as f:\n\
        \x20           while left:\n\
        \x20               part = self.rfile.read(min(left, 1 << 20)); left -= len(part); f.write(part)\n\
        \x20       self.send_response(201); self.end_headers()\n\
        http.server.HTTPServer((sys.argv[1], 8001), H).serve_forever()\n";
    let mut server = pair.peer_place().start(&pair.lab, "sink", "python3", &["-c", script, PEER_IP]).expect("starts");
    servers::wait_listening(&mut server, pair.peer(), PEER_IP, 8001).expect("listens");
    let args = ["-sS", "--fail", "-H", "Expect:", "-T", &format!("{WWW}/file"), &format!("http://{PEER_IP}:8001/up")];
    card.place().run("curl", &args, LIMIT).expect("uploaded");
    assert_eq!(servers::sha256(&pair.lab.path("/run/uploaded")).expect("there"), hash);
}

/// No super-frames and full checksums: what a real wire carries.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn frames_of_one_segment_with_checksums_of_their_own() {
    let (pair, card, hash) = begin();
    for (host, interface) in [(pair.peer(), "peer0"), (pair.near(), "toe0")] {
        host.run("ethtool", &["-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"], LIMIT).expect("ethtool");
    }
    let mut nginx = servers::nginx(&pair.lab, &card.place(), "nginx", 80).expect("starts");
    servers::wait_listening(&mut nginx, pair.peer(), CARD_IP, 80).expect("listens");
    servers::fetch(&pair.lab, &pair.peer_place(), &format!("http://{CARD_IP}/file"), &hash, LIMIT).expect("from the card");
    let mut kernel = servers::nginx(&pair.lab, &pair.peer_place(), "nginx-kernel", 80).expect("starts");
    servers::wait_listening(&mut kernel, pair.peer(), PEER_IP, 80).expect("listens");
    servers::fetch(&pair.lab, &card.place(), &format!("http://{PEER_IP}/file"), &hash, LIMIT).expect("to the card");
    let stats = card.stats().expect("stats");
    assert_eq!(stats.get("drop_bad_tcp_checksum"), Some(&0));
}
