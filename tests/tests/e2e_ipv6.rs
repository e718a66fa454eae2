//! The card over IPv6 and on a VLAN, with unmodified programs; the Linux kernel at the other end.

use std::time::Duration;

use toe_lab::job::wait_until;
use toe_lab::servers::{self, WWW};
use toe_lab::{Books, CARD_IF, CARD_IP, Card, PEER_IF, PEER_IP, Pair, Place};

const LIMIT: Duration = Duration::from_secs(60);
const FILE_LEN: u64 = 32 << 20;
const CARD_IP6: &str = "fd77::2";
const PEER_IP6: &str = "fd77::1";

/// A pair whose peer has an address of IPv6 too.
fn pair() -> Pair {
    let pair = Pair::new().expect("two hosts");
    pair.peer().ip(&format!("addr add {PEER_IP6}/64 dev {PEER_IF} nodad")).expect("address");
    pair
}

/// A pair with a card of both versions, and a file to serve.
fn begin() -> (Pair, Card, String) {
    let pair = pair();
    let hash = servers::make_file(&pair.lab.path(&format!("{WWW}/file")), FILE_LEN, 1).expect("file");
    let card = pair.card_up_with(&["--ip", &format!("{CARD_IP6}/64")]).expect("card");
    (pair, card, hash)
}

/// `place`, with servers at `ip`.
fn at(place: Place, ip: &str) -> Place {
    let mut place = place;
    place.ip = ip.to_owned();
    place
}

fn fetch(pair: &Pair, from: &Place, ip: &str, port: u16, hash: &str) {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    servers::fetch(&pair.lab, from, &format!("http://{host}:{port}/file"), hash, LIMIT).expect("equal bytes");
}

/// nginx on the card serves the peer, and nginx of the peer the card.
fn both_ways(pair: &Pair, card: &Card, (card_ip, peer_ip): (&str, &str), hash: &str) {
    let mut nginx = servers::nginx(&pair.lab, &at(card.place(), card_ip), "nginx", 80).expect("starts");
    servers::wait_listening(&mut nginx, pair.peer(), card_ip, 80).expect("listens");
    fetch(pair, &pair.peer_place(), card_ip, 80, hash);
    let mut kernel = servers::nginx(&pair.lab, &at(pair.peer_place(), peer_ip), "nginx-kernel", 80).expect("starts");
    servers::wait_listening(&mut kernel, pair.peer(), peer_ip, 80).expect("listens");
    fetch(pair, &card.place(), peer_ip, 80, hash);
}

fn books_balance(card: &Card) {
    let books = Books::of(&card.stats().expect("stats"));
    assert!(books.balance(), "{books}");
}

/// The state of the card's address `ip`.
fn state_of(card: &Card, ip: &str) -> Option<String> {
    let status = card.json("status").expect("status");
    let addresses = status["addresses"].as_array()?;
    let found = addresses.iter().find(|a| a["ip"].as_str().is_some_and(|text| text.starts_with(&format!("{ip}/"))))?;
    found["state"].as_str().map(ToOwned::to_owned)
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn files_go_both_ways() {
    let (pair, card, hash) = begin();
    both_ways(&pair, &card, (CARD_IP6, PEER_IP6), &hash);
    books_balance(&card);
    let stats = card.stats().expect("stats");
    assert_eq!(stats.get("drop_bad_tcp_checksum"), Some(&0));
    pair.peer_place().run("ping", &["-6", "-c", "2", "-W", "5", CARD_IP6], LIMIT).expect("echo");
}

/// No super-frames and full checksums: what a real wire carries.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn frames_of_one_segment_with_checksums_of_their_own() {
    let (pair, card, hash) = begin();
    for (host, interface) in [(pair.peer(), PEER_IF), (pair.near(), CARD_IF)] {
        host.run("ethtool", &["-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"], LIMIT).expect("ethtool");
    }
    both_ways(&pair, &card, (CARD_IP6, PEER_IP6), &hash);
    assert_eq!(card.stats().expect("stats").get("drop_bad_tcp_checksum"), Some(&0));
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_peer_that_forgets_its_neighbours_finds_the_card_again() {
    let (pair, card, hash) = begin();
    let mut nginx = servers::nginx(&pair.lab, &at(card.place(), CARD_IP6), "nginx", 80).expect("starts");
    servers::wait_listening(&mut nginx, pair.peer(), CARD_IP6, 80).expect("listens");
    std::thread::scope(|scope| {
        let transfer = scope.spawn(|| (0..4).for_each(|_| fetch(&pair, &pair.peer_place(), CARD_IP6, 80, &hash)));
        while !transfer.is_finished() {
            pair.peer().ip(&format!("-6 neigh flush dev {PEER_IF}")).expect("flush");
            std::thread::sleep(Duration::from_millis(20));
        }
        transfer.join().expect("whole");
    });
    assert!(card.stats().expect("stats").get("rx_answered").is_some_and(|n| *n > 1), "the card has answered by itself");
    books_balance(&card);
}

/// Says who has connected, from an address as the program gets it.
const WHO: &str = "import socket\n\
    s = socket.socket(socket.AF_INET6)\n\
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
    s.bind(('::', 8000))\n\
    s.listen()\n\
    while True:\n\
    \x20   c, peer = s.accept()\n\
    \x20   print('from', peer[0], 'to', c.getsockname()[0], flush=True)\n\
    \x20   c.sendall(b'hello'); c.close()\n";

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_listener_of_both_versions_serves_both() {
    let (pair, card, _) = begin();
    let mut server = card.place().start(&pair.lab, "who", "python3", &["-u", "-c", WHO]).expect("starts");
    servers::wait_listening(&mut server, pair.peer(), CARD_IP, 8000).expect("listens");
    let listening = card.json("ss").expect("ss");
    assert!(listening.as_array().expect("rows").iter().any(|row| row["local"] == "*:8000"), "{listening}");
    let read = "import socket, sys; c = socket.create_connection((sys.argv[1], 8000), 10); print(c.recv(9))";
    for ip in [CARD_IP, CARD_IP6] {
        let said = pair.peer_place().run("python3", &["-c", read, ip], LIMIT).expect("served").stdout();
        assert!(said.contains("hello"), "{said}");
    }
    let log = std::fs::read_to_string(pair.lab.log_path("who")).expect("log");
    for line in [format!("from {PEER_IP6} to {CARD_IP6}"), format!("from ::ffff:{PEER_IP} to ::ffff:{CARD_IP}")] {
        assert!(log.contains(&line), "{line:?} is not in\n{log}");
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn what_the_card_does_not_have_stays_with_the_kernel() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    // The card has no address of IPv6; its host has a loopback.
    let script = "import socket, threading\n\
        s = socket.socket(socket.AF_INET6)\n\
        s.bind(('::1', 0)); s.listen()\n\
        c = socket.create_connection(s.getsockname()[:2], 10)\n\
        a, peer = s.accept(); a.sendall(b'x')\n\
        only = socket.socket(socket.AF_INET6)\n\
        only.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)\n\
        only.bind(('::', 0)); only.listen()\n\
        d = socket.create_connection(('::1', only.getsockname()[1]), 10)\n\
        print(c.recv(1), peer[0], d.getpeername()[0])\n";
    let said = card.place().run("python3", &["-c", script], LIMIT).expect("all of it").stdout();
    assert_eq!(said.trim(), "b'x' ::1 ::1");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn an_address_that_the_peer_has_is_not_used() {
    let pair = pair();
    pair.peer().ip(&format!("addr add {CARD_IP6}/64 dev {PEER_IF} nodad")).expect("address");
    let card = pair.card_up_with(&["--ip", &format!("{CARD_IP6}/64,fd77::3/64")]).expect("card");
    assert_eq!(state_of(&card, CARD_IP6).as_deref(), Some("duplicate"));
    assert_eq!(state_of(&card, "fd77::3").as_deref(), Some("preferred"));
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn cards_on_a_vlan_speak_there_and_nowhere_else() {
    // Two cards: not every kernel has VLANs.
    let pair = pair();
    let hash = servers::make_file(&pair.lab.path(&format!("{WWW}/file")), FILE_LEN, 1).expect("file");
    let card = |host, run_dir: &str, number: u8| {
        let card = Card::new(host, run_dir, &format!("10.78.0.{number}")).expect("built");
        let interface = if number == 1 { PEER_IF } else { CARD_IF };
        let more = ["--vlan", "7", "--ip", &format!("fd78::{number}/64")];
        card.up(&format!("af_packet:{interface}"), &more).expect("card");
        card
    };
    let near = card(pair.near(), "/run/toe", 2);
    // As long as the peer is the kernel without a tag, nothing comes through, though the card has this address.
    pair.peer().ip(&format!("addr add 10.78.0.3/24 dev {PEER_IF}")).expect("address");
    pair.peer().ip(&format!("addr add fd78::3/64 dev {PEER_IF} nodad")).expect("address");
    for ip in ["10.78.0.2", "fd78::2"] {
        assert!(pair.peer_place().run("ping", &["-c", "1", "-W", "2", ip], LIMIT).is_err(), "{ip}");
    }
    let peer = card(pair.peer(), "/run/toe-peer", 1);
    for ip in ["10.78.0.1", "fd78::1"] {
        let name = format!("nginx-{}", ip.len());
        let mut nginx = servers::nginx(&pair.lab, &at(peer.place(), ip), &name, 80).expect("starts");
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let answers = || near.place().run("curl", &["-sS", "-I", &format!("http://{host}/file")], LIMIT).is_ok();
        nginx.wait_ready(LIMIT, answers).expect("listens");
        fetch(&pair, &near.place(), ip, 80, &hash);
    }
    books_balance(&near);
    books_balance(&peer);
}

/// A router advertisement with a prefix for hosts to choose addresses from, once a second.
const ROUTER: &str = "import socket, struct, sys, time\n\
    s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)\n\
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)\n\
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex(sys.argv[1]))\n\
    head = struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0)\n\
    prefix = struct.pack('!BBBBIII16s', 3, 4, 64, 0xc0, 3600, 1800, 0, socket.inet_pton(socket.AF_INET6, 'fd99::'))\n\
    mtu = struct.pack('!BBHI', 5, 1, 0, 1400)\n\
    while True:\n\
    \x20   s.sendto(head + prefix + mtu, ('ff02::1', 0)); time.sleep(1)\n";

#[test]
#[ignore = "end to end: cargo xtask test"]
fn an_advertised_prefix_makes_an_address_that_works() {
    let pair = pair();
    let hash = servers::make_file(&pair.lab.path(&format!("{WWW}/file")), FILE_LEN, 1).expect("file");
    pair.peer().ip(&format!("addr add fd99::1/64 dev {PEER_IF} nodad")).expect("address");
    let _router = pair.peer_place().start(&pair.lab, "router", "python3", &["-c", ROUTER, PEER_IF]).expect("starts");
    let card = pair.card_up_with(&["--slaac"]).expect("card");
    let made = || {
        let status = card.json("status").ok()?;
        let made = status["addresses"].as_array()?.iter().find(|a| a["ip"].as_str().is_some_and(|ip| ip.starts_with("fd99:")))?.clone();
        (made["state"] == "preferred").then(|| made["ip"].as_str().map(|ip| ip.trim_end_matches("/64").to_owned()))?
    };
    wait_until("an address of the prefix", LIMIT, || made().is_some()).expect("made");
    let ip = made().expect("it stays");
    both_ways(&pair, &card, (&ip, "fd99::1"), &hash);
    // Through the router as well.
    pair.peer().ip("addr add fd55::1/128 dev lo").expect("address");
    let mut far = servers::nginx(&pair.lab, &at(pair.peer_place(), "fd55::1"), "nginx-far", 80).expect("starts");
    servers::wait_listening(&mut far, pair.peer(), "fd55::1", 80).expect("listens");
    fetch(&pair, &card.place(), "fd55::1", 80, &hash);
}
