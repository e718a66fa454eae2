//! The card over IPv6 and on a VLAN, with unmodified programs; the Linux kernel at the other end.

use std::time::Duration;

use toe_lab::job::wait_until;
use toe_lab::servers::{self, WWW};
use toe_lab::{CARD_IF, CARD_IP, Card, Host, PEER_IF, PEER_IP, Pair, Place};

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
    card.balanced_books().expect("every frame is accounted for");
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
            // Not one that it asks for just now: then the kernel tells the program at once that there is no way.
            pair.peer().ip(&format!("-6 neigh flush dev {PEER_IF} nud reachable nud stale nud delay nud probe")).expect("flush");
            std::thread::sleep(Duration::from_millis(20));
        }
        transfer.join().expect("whole");
    });
    assert!(card.stats().expect("stats").get("rx_answered").is_some_and(|n| *n > 1), "the card has answered by itself");
    card.balanced_books().expect("every frame is accounted for");
}

/// Says who has connected, from an address as the program gets it.
const WHO: &str = "import socket\n\
    show = lambda a: a[0] + ('%' + socket.if_indextoname(a[3]) if a[3] else '')\n\
    s = socket.socket(socket.AF_INET6)\n\
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
    s.bind(('::', 8000))\n\
    s.listen()\n\
    while True:\n\
    \x20   c, peer = s.accept()\n\
    \x20   print('from', show(peer), 'to', show(c.getsockname()), flush=True)\n\
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

/// The link-local address of the card, or of the kernel's interface.
fn link_local_of_card(card: &Card) -> String {
    let status = card.json("status").expect("status");
    let all = status["addresses"].as_array().expect("addresses").iter().filter_map(|a| a["ip"].as_str());
    all.map(|ip| ip.trim_end_matches("/64").to_owned()).find(|ip| ip.starts_with("fe80:")).expect("there is one")
}

fn link_local_of(host: &Host, interface: &str) -> String {
    let mut found = String::new();
    wait_until("the kernel has a link-local address", LIMIT, || {
        let said =
            host.run("ip", &["-6", "-o", "addr", "show", "dev", interface, "scope", "link", "-tentative"], LIMIT).expect("ip").stdout();
        found = said.split_whitespace().find(|word| word.starts_with("fe80:")).unwrap_or_default().trim_end_matches("/64").to_owned();
        !found.is_empty()
    })
    .expect("an address");
    found
}

/// Connects to an address with its scope, from one if that is said, and says what it reads and between whom.
const LOCAL: &str = "import socket, sys\n\
    show = lambda a: a[0] + ('%' + socket.if_indextoname(a[3]) if a[3] else '')\n\
    at = lambda text, port: socket.getaddrinfo(text, port, socket.AF_INET6, socket.SOCK_STREAM)[0][4]\n\
    s = socket.socket(socket.AF_INET6)\n\
    s.settimeout(20)\n\
    if len(sys.argv) > 2: s.bind(at(sys.argv[2], 0))\n\
    s.connect(at(sys.argv[1], 8000))\n\
    print('from', show(s.getsockname()), 'to', show(s.getpeername()), s.recv(9))\n";

#[test]
#[ignore = "end to end: cargo xtask test"]
fn neighbours_reach_each_other_by_link_local_addresses() {
    let (pair, card, _) = begin();
    let (ours, theirs) = (link_local_of_card(&card), link_local_of(pair.peer(), PEER_IF));
    let near = [format!("{ours}%{CARD_IF}"), format!("{theirs}%{CARD_IF}")];
    let far = [format!("{ours}%{PEER_IF}"), format!("{theirs}%{PEER_IF}")];
    let serve = |place: &Place, name: &str| place.start(&pair.lab, name, "python3", &["-u", "-c", WHO]).expect("starts");
    let mut servers = [serve(&card.place(), "who-card"), serve(&pair.peer_place(), "who-peer")];
    for (server, ip) in servers.iter_mut().zip([CARD_IP6, PEER_IP6]) {
        let from = if ip == CARD_IP6 { pair.peer_place() } else { card.place() };
        server.wait_ready(LIMIT, || from.run("python3", &["-c", LOCAL, ip], LIMIT).is_ok()).expect("listens");
    }
    let read = |place: &Place, words: &[&str]| {
        place.run("python3", &[&["-c", LOCAL], words].concat(), LIMIT).unwrap_or_else(|e| panic!("{words:?}: {e:#}")).stdout()
    };
    let [card_here, peer_here] = near.each_ref().map(String::as_str);
    let [card_there, peer_there] = far.each_ref().map(String::as_str);
    let all = [
        (pair.peer_place(), vec![card_there], peer_there),
        (card.place(), vec![peer_here], card_here),
        (card.place(), vec![peer_here, card_here], card_here),
        // The kernel gives the scope of the address that the socket has to one without.
        (card.place(), vec![&theirs, card_here], card_here),
    ];
    let before = flows(&card);
    for (place, words, from) in &all {
        let to = if words[0] == theirs { peer_here } else { words[0] };
        assert_eq!(read(place, words).trim(), format!("from {from} to {to} b'hello'"), "{words:?}");
    }
    assert_eq!(flows(&card) - before, 4, "some were not the card's");
    for (job, line) in servers.iter().zip([format!("from {peer_here} to {card_here}"), format!("from {card_there} to {peer_there}")]) {
        assert!(job.log().contains(&line), "{line:?} is not in\n{}", job.log());
    }
}

/// Connections that the card has had.
fn flows(card: &Card) -> u64 {
    card.stats().expect("stats").get("flows_installed").copied().expect("a counter")
}

/// As far as the card knows: what an address without a scope, or of another link, means is the kernel's to say.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn link_local_addresses_elsewhere_are_the_kernels() {
    let (pair, card, _) = begin();
    let ours = link_local_of_card(&card);
    let kernels = link_local_of(pair.near(), CARD_IF);
    let script = format!(
        "import errno, socket\n\
        def tries(call, ip, scope):\n\
        \x20   s = socket.socket(socket.AF_INET6); s.settimeout(5)\n\
        \x20   try: getattr(s, call)((ip, 9, 0, scope)); return 'done'\n\
        \x20   except OSError as e: return errno.errorcode.get(e.errno, repr(e))\n\
        here = socket.if_nametoindex('{CARD_IF}')\n\
        for call, ip, scope in [('bind', '{ours}', 0), ('bind', '{ours}', here + 1000), ('bind', '{ours}', here), ('connect', '{ours}', 0),\n\
        \x20   ('connect', '{kernels}', here)]: print(call, tries(call, ip, scope))\n"
    );
    let said = card.place().run("python3", &["-c", &script], LIMIT).expect("all of it").stdout();
    assert_eq!(said, "bind EINVAL\nbind ENODEV\nbind done\nconnect EINVAL\nconnect ECONNREFUSED\n");
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
        assert!(pair.peer_place().run("ping", &["-c", "1", "-W", "1", ip], LIMIT).is_err(), "{ip}");
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
    near.balanced_books().expect("every frame is accounted for");
    peer.balanced_books().expect("every frame is accounted for");
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
    let status = card.json("status").expect("answers");
    let router = status["gateway"].as_str().expect("it has told of itself");
    assert!(router.starts_with("fe80::"), "{router}");
    assert!(status["routes"].as_array().expect("a list").iter().any(|r| r["dest"] == "::/0" && r["via"] == router), "{status}");
    both_ways(&pair, &card, (&ip, "fd99::1"), &hash);
    // Through the router as well.
    pair.peer().ip("addr add fd55::1/128 dev lo").expect("address");
    let mut far = servers::nginx(&pair.lab, &at(pair.peer_place(), "fd55::1"), "nginx-far", 80).expect("starts");
    servers::wait_listening(&mut far, pair.peer(), "fd55::1", 80).expect("listens");
    fetch(&pair, &card.place(), "fd55::1", 80, &hash);
}

/// Names what the card's MLD reports and router solicitations are as they come, on whatever interface. One that is down just now says so
/// once, and goes on when it is up.
const HEARS: &str = "import socket\n\
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86dd))\n\
    print('listening', flush=True)\n\
    while True:\n\
    \x20   try: f = s.recv(2000)\n\
    \x20   except OSError: continue\n\
    \x20   kind = f[62] if f[20] == 0 else f[54]\n\
    \x20   kind in (133, 143) and print({133: 'routers are asked', 143: 'groups are told'}[kind], f[6:12].hex(':'), flush=True)\n";

/// Nothing else comes from the wire that could have toed look.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn when_the_cable_is_in_again_groups_are_told_and_routers_asked() {
    let pair = pair();
    let card = pair.card_up_with(&["--ip", &format!("{CARD_IP6}/64"), "--slaac"]).expect("card");
    let mac = card.json("status").expect("status")["card"]["port_mac"].as_str().expect("text").to_owned();
    pair.peer().ip(&format!("link set {PEER_IF} down")).expect("down");
    wait_until("toed notices", LIMIT, || card.logs(&pair.lab, 100).contains("the port's link is down")).expect("down");
    let mut hears = pair.peer_place().start(&pair.lab, "hears", "python3", &["-u", "-c", HEARS]).expect("starts");
    let log = pair.lab.log_path("hears");
    let log = || std::fs::read_to_string(&log).unwrap_or_default();
    hears.wait_ready(LIMIT, || log().contains("listening")).expect("listens");
    pair.peer().ip(&format!("link set {PEER_IF} up")).expect("up");
    for said in ["groups are told", "routers are asked"] {
        hears.wait_ready(LIMIT, || log().contains(&format!("{said} {mac}"))).unwrap_or_else(|e| panic!("{said}: {e:#}"));
    }
}

/// RFC 4862, 5.4: nobody can be asked over a dead link.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn an_address_is_asked_for_when_the_cable_is_in() {
    let pair = pair();
    pair.peer().ip(&format!("link set {PEER_IF} down")).expect("down");
    let shown = || pair.near().run("ip", &["-o", "link", "show", "dev", CARD_IF], LIMIT).expect("ip").stdout();
    wait_until("the kernel notices", LIMIT, || shown().contains("NO-CARRIER")).expect("no carrier");
    let card = pair.card_up_with(&["--ip", &format!("{CARD_IP6}/64")]).expect("up without a cable");
    assert_eq!(state_of(&card, CARD_IP6).as_deref(), Some("tentative"));
    pair.peer().ip(&format!("link set {PEER_IF} up")).expect("up");
    wait_until("the address is asked for", LIMIT, || state_of(&card, CARD_IP6).as_deref() == Some("preferred")).expect("nobody has it");
}

/// Sends bytes one by one, and hears each come back: "alive N" for every tenth.
const TALKS: &str = "import socket, sys, time\n\
    c = socket.create_connection((sys.argv[1], 7), 10)\n\
    c.settimeout(60)\n\
    n = 0\n\
    while True:\n\
    \x20   c.sendall(b'x'); assert c.recv(1) == b'x'\n\
    \x20   n += 1; n % 10 or print('alive', n, flush=True); time.sleep(0.01)\n";

const ECHOES: &str = "import socket, sys\n\
    s = socket.create_server((sys.argv[1], 7), family=socket.AF_INET6)\n\
    while True:\n\
    \x20   c, _ = s.accept()\n\
    \x20   while data := c.recv(100): c.sendall(data)\n";

/// Two routers, each with a MAC address of its own: the kernel's, which forwards to itself.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_connection_survives_its_router() {
    const FAR: &str = "fd55::1";
    const ROUTERS: [(&str, &str); 2] = [("router-1", "fd77::a"), ("router-2", "fd77::b")];
    let pair = pair();
    let peer = |words: String| pair.peer().ip(&words).expect("ip");
    peer(format!("addr add {FAR}/128 dev lo"));
    for (name, ip) in ROUTERS {
        peer(format!("link add link {PEER_IF} name {name} type macvlan mode bridge"));
        peer(format!("addr add {ip}/128 dev {name} nodad"));
        peer(format!("link set {name} up"));
    }
    let gateways = ROUTERS.map(|(_, ip)| ip).join(",");
    let ip = format!("{CARD_IP6}/64");
    let card = pair.card_up_with(&["--ip", &ip, "--gateway", &gateways, "--toed-arg=--arp-expire=1000000"]).expect("card");
    let mut echo = at(pair.peer_place(), FAR).start(&pair.lab, "echo", "python3", &["-u", "-c", ECHOES, FAR]).expect("starts");
    servers::wait_listening(&mut echo, pair.peer(), FAR, 7).expect("listens");
    let talk = card.place().start(&pair.lab, "talk", "python3", &["-u", "-c", TALKS, FAR]).expect("starts");
    let said = || talk.log().matches("alive").count();
    let goes_on = |what: &str| {
        let before = said();
        wait_until(what, LIMIT, || said() > before + 5).unwrap_or_else(|e| panic!("{e:#}\n{}", talk.log()));
    };
    goes_on("words through the first router");
    for (dead, alive) in [(0, 1), (1, 0)] {
        peer(format!("link set {} up", ROUTERS[alive].0));
        // Down, an interface loses its addresses of IPv6.
        peer(format!("addr replace {}/128 dev {} nodad", ROUTERS[alive].1, ROUTERS[alive].0));
        goes_on("words while both are there");
        peer(format!("link set {} down", ROUTERS[dead].0));
        goes_on("words through the other router");
    }
    assert!(card.stats().expect("stats")["engine_router_failovers"] >= 1);
    drop(talk);
    card.balanced_books().expect("every frame is accounted for");
}
