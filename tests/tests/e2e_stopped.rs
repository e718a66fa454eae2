//! The card alone: toed is stopped for long, over a network that loses frames, and the peer forgets its neighbours meanwhile.
//!
//! ```text
//!   toed        ──────┤ stopped ├──────────────────────────────────────────┼── goes on: nothing is left
//!   streams     ─────────────────────────────────────── digests, FIN both ways ┤
//!   silent ones ── ─ ─ ─ ─ ─ ─ ─ ─ ─ question, answer, FIN ┤
//!   neighbours     flushed     flushed     flushed
//! ```
//!
//! Ten minutes with `cargo xtask test --full`, half a minute else.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use toe_lab::job::{self, wait_until};
use toe_lab::{CARD_IP, Card, Host, Job, PEER_IF, PEER_IP, Pair, Place, Wired, programs, servers, wired};

const LIMIT: Duration = Duration::from_secs(60);
const CARD_IP6: &str = "fd77::2";
const PEER_IP6: &str = "fd77::1";
const PORT: &str = "9000";
/// Kinds of connections that `ends.py` opens, to each of two addresses.
const OPENED: &str = "6";

/// How long toed is stopped.
fn seconds() -> u64 {
    if std::env::var_os("TOE_TEST_FULL").is_some() { 600 } else { 30 }
}

fn ends(wired: &Wired, place: &Place, name: &str, words: &[&str]) -> Job {
    let script = programs::sources(env!("CARGO_MANIFEST_DIR")).join("stopped/ends.py");
    let (seconds, script) = (seconds().to_string(), script.to_str().expect("a path in UTF-8").to_owned());
    let all: Vec<&str> =
        ["-u", &script].into_iter().chain(words[..2].iter().copied()).chain([&*seconds]).chain(words[2..].iter().copied()).collect();
    place.start(&wired.pair.lab, name, "python3", &all).expect(name)
}

/// Servers on both hosts, and on each host who connects to the other.
fn begin(wired: &Wired, card: &Card) -> Vec<(&'static str, Job)> {
    let (near, far) = (card.place(), wired.pair.peer_place());
    let mut all = vec![
        ("served by the card", ends(wired, &near, "near-server", &["serve", PORT, OPENED])),
        ("served by the kernel", ends(wired, &far, "far-server", &["serve", PORT, OPENED])),
    ];
    await_all(&mut all, "listening");
    all.push(("opened by the card", ends(wired, &near, "near-client", &["open", PORT, PEER_IP, PEER_IP6])));
    all.push(("opened by the kernel", ends(wired, &far, "far-client", &["open", PORT, CARD_IP, CARD_IP6])));
    await_all(&mut all, "under way");
    all
}

fn await_all(all: &mut [(&'static str, Job)], word: &str) {
    for (name, job) in all {
        let log = std::cell::RefCell::new(String::new());
        let said = wait_until(word, LIMIT, || {
            log.replace(job.log());
            log.borrow().contains(word)
        });
        said.unwrap_or_else(|e| panic!("{name}: {e:#}\n{}", log.borrow()));
    }
}

/// Connections of a kernel that are still there, apart from those in TIME-WAIT.
fn open_at(host: &Host) -> String {
    let all = host.run("ss", &["-Htan"], LIMIT).expect("ss").stdout();
    all.lines().filter(|line| !line.starts_with("TIME-WAIT")).map(|line| format!("  {line}\n")).collect()
}

/// Whoever held connections is forgotten, with flows and memory.
fn nothing_left(card: &Card) -> bool {
    let Ok(status) = card.json("status") else { return false };
    status["applications"].as_array().is_some_and(Vec::is_empty) && status["card"]["flows"] == 0 && status["half_open"] == 0
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn with_toed_stopped_the_card_does_all_for_open_connections() {
    if let Some(why) = wired::refused() {
        eprintln!("skipped: {why}");
        return;
    }
    let wired = Wired::new("rate=20mbit,delay=2ms,loss=2%", 1).expect("a network");
    let peer = wired.pair.peer();
    peer.ip(&format!("addr add {PEER_IP6}/64 dev {PEER_IF} nodad")).expect("address");
    let card = wired.pair.card_up_with(&["--ip", &format!("{CARD_IP6}/64")]).expect("card");
    let toed = card.pid(&wired.pair.lab, "toed").expect("pid");
    let mut programs = begin(&wired, &card);
    let answered = |card: &Card| card.stats().expect("stats").get("rx_answered").copied().unwrap_or(0);
    let before = answered(&card);

    job::signal(toed, Signal::STOP);
    let asked = card.try_toectl(&["status"]).expect("toectl").stderr();
    assert!(asked.contains("toed is stopped") && asked.contains("kill -CONT"), "{asked}");
    let long = Duration::from_secs(2 * seconds()) + LIMIT;
    let mut looks = 0;
    wait_until("all programs end", long, || {
        // Often enough that some frames of the silent connections are the first to ask.
        looks += 1;
        if looks % 50 == 0 {
            peer.ip(&format!("neigh flush dev {PEER_IF}")).expect("flush");
            peer.ip(&format!("-6 neigh flush dev {PEER_IF}")).expect("flush");
        }
        std::thread::sleep(Duration::from_millis(100));
        programs.iter_mut().all(|(_, job)| !job.is_running())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", logs(&programs)));
    for (name, job) in &mut programs {
        assert!(job.wait(LIMIT).expect(name).success(), "{name}:\n{}", job.log());
    }
    let gone = wait_until("the peer's connections have ended", LIMIT, || open_at(peer).is_empty());
    let state = std::fs::read_to_string(Path::new("/proc").join(toed.to_string()).join("stat")).expect("toed is there");
    assert!(state.contains(") T "), "toed was not stopped all the time: {state}");
    job::signal(toed, Signal::CONT);
    gone.unwrap_or_else(|e| panic!("{e:#}:\n{}", open_at(peer)));

    wait_until("the card is empty", LIMIT, || nothing_left(&card)).unwrap_or_else(|e| panic!("{e:#}: {:?}", card.json("status")));
    assert!(answered(&card) > before, "the card was not asked for its addresses, so nothing was tested");
    let books = card.balanced_books().expect("every frame is accounted for");
    print!("{}", logs(&programs));
    println!("asked for its addresses {} times; {books}", answered(&card) - before);
    // And it serves as before.
    let words = ["server", &format!("{CARD_IP}:7000")];
    let mut again = card.place().start_built(&wired.pair.lab, "again", "toe-rpc", &words).expect("starts");
    servers::wait_listening(&mut again, peer, CARD_IP, 7000).expect("listens");
}

/// Ways to end a connection in `closes.py`, and what the peer hears of each.
const WAYS: [(&str, &str); 9] = [
    ("plain", "end"),
    ("unread", "reset"),
    ("linger_0", "reset"),
    ("half_closed", "reset"),
    ("dup2", "end"),
    ("close_range", "end"),
    ("late", "reset"),
    ("exit", "end"),
    ("exit_at_once", "end"),
];
/// One whose process is killed: only the kernel and toed know.
const KILLED: (&str, &str) = ("killed", "reset");

#[test]
#[ignore = "end to end: cargo xtask test"]
fn with_toed_stopped_peers_hear_of_every_close_at_once() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let toed = card.pid(&pair.lab, "toed").expect("pid");
    let script = programs::sources(env!("CARGO_MANIFEST_DIR")).join("stopped/closes.py");
    let start = |place: &Place, name: &str, words: &[&str]| {
        let all = [&["-u", script.to_str().expect("a path in UTF-8")], words].concat();
        place.start(&pair.lab, name, "python3", &all).expect(name)
    };
    let said = |job: &mut Job, word: &str| {
        wait_until(word, LIMIT, || job.log().contains(word)).unwrap_or_else(|e| panic!("{e:#}\n{}", job.log()));
    };
    let count = (WAYS.len() + 1).to_string();
    let mut peer = start(&pair.peer_place(), "peer", &["serve", PORT, &count]);
    said(&mut peer, "listening");
    // Whoever ends without closing is a process of its own.
    let ways = WAYS.map(|(way, _)| way);
    let (closing, ending) = ways.split_at(7);
    let mut programs = vec![start(&card.place(), "closing", &[&["close", PEER_IP, PORT], closing].concat())];
    programs.extend(ending.iter().chain([&KILLED.0]).map(|way| start(&card.place(), way, &["close", PEER_IP, PORT, way])));
    programs.iter_mut().for_each(|job| said(job, "under way"));
    said(&mut peer, "under way");

    job::signal(toed, Signal::STOP);
    let [others @ .., killed] = &mut programs[..] else { unreachable!("there are four") };
    others.iter().for_each(|job| job.signal(Signal::USR1).expect("signal"));
    killed.signal(Signal::KILL).expect("signal");
    for (way, heard) in WAYS {
        said(&mut peer, &format!("{way}: {heard}."));
    }
    others.iter_mut().for_each(|job| assert!(job.wait(LIMIT).expect("ends").success(), "{}", job.log()));
    job::signal(toed, Signal::CONT);
    said(&mut peer, &format!("{}: {}.", KILLED.0, KILLED.1));
    wait_until("the card is empty", LIMIT, || nothing_left(&card)).unwrap_or_else(|e| panic!("{e:#}: {:?}", card.json("status")));
    print!("{}", peer.log());
}

fn logs(programs: &[(&'static str, Job)]) -> String {
    programs.iter().map(|(name, job)| format!("{name}:\n{}", job.log_tail(20))).collect()
}
