//! Congestion control against the Linux kernel: ECN in the handshake, marks on the way, and echoes by a kernel's rules (RFC 3168).

use std::time::Duration;

use toe_lab::servers::{self, WWW};
use toe_lab::{CARD_IP, Pair};

const LIMIT: Duration = Duration::from_secs(120);
const LEN: u64 = 32 << 20;

/// Sends a file by `algorithm` through a port that marks one frame in a hundred, and loses none. Whether connections had ECN.
fn transfer(algorithm: &str, ecn: bool) {
    let pair = Pair::new().expect("two hosts");
    let hash = servers::make_file(&pair.lab.path(&format!("{WWW}/file")), LEN, 12).expect("file");
    // The kernel asks for ECN or not; the card agrees because of its algorithm.
    let sysctl = format!("echo {} > /proc/sys/net/ipv4/tcp_ecn", u8::from(ecn));
    pair.peer().run("sh", &["-c", &sysctl], LIMIT).and_then(|done| done.success()).expect("sysctl");
    let cc = format!("--toed-arg=--cc={algorithm}");
    let card = pair.card_up_with(&[&cc, "--impair", "ce=0.01,dir=tx,seed=5"]).expect("card");
    let mut near = servers::nginx(&pair.lab, &card.place(), "nginx", 80).expect("starts");
    servers::wait_listening(&mut near, pair.peer(), CARD_IP, 80).expect("listens");
    let marks = || {
        let done = pair.peer().run("cat", &["/proc/net/netstat"], LIMIT).expect("netstat");
        counter(&done.stdout(), "InCEPkts")
    };
    let before = marks();
    let from = servers::fetch(&pair.lab, &pair.peer_place(), &format!("http://{CARD_IP}/file"), &hash, LIMIT).expect("from the card");
    let marked = marks() - before;
    let books = card.balanced_books().expect("every frame is accounted for");
    println!("{algorithm}, ECN {ecn}: {:.2} Gbit/s, the kernel saw {marked} marks; {books}", from.gbit_per_s);
    assert_eq!(marked > 0, ecn, "{marked} marks");
}

/// A counter of /proc/net/netstat: lines of names, each followed by one of values.
fn counter(text: &str, name: &str) -> u64 {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let rows = lines.chunks(2).filter(|pair| pair.len() == 2).flat_map(|pair| pair[0].iter().zip(&pair[1]));
    rows.filter(|(n, _)| **n == name).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn dctcp_to_a_kernel_that_does_ecn() {
    transfer("dctcp", true);
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn dctcp_to_a_kernel_that_does_not() {
    transfer("dctcp", false);
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn rates_of_toed_to_a_kernel_that_does_ecn() {
    transfer("dctcp-rate", true);
}
