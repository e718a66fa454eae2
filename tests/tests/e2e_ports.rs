//! Ports other than the usual one, and what the card's address answers by itself.

use std::path::Path;
use std::time::Duration;

use toe_lab::instance::Place;
use toe_lab::servers::{self, WWW};
use toe_lab::{CARD_IP, Card, Lab, PEER_IP, Pair};

const LIMIT: Duration = Duration::from_secs(60);
const FILE_LEN: u64 = 64 << 20;

/// `/dev/net/tun` may be closed to ordinary users.
fn tun_is_open() -> bool {
    let open = std::fs::File::options().read(true).write(true).open(Path::new("/dev/net/tun")).is_ok();
    if !open {
        eprintln!("skipped: /dev/net/tun cannot be opened");
    }
    open
}

/// A card behind a tap interface: the kernel of the same host is the peer.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_tap_port_carries_files_both_ways() {
    if !tun_is_open() {
        return;
    }
    let lab = Lab::new(1).expect("a host");
    let hash = servers::make_file(&lab.path(&format!("{WWW}/file")), FILE_LEN, 1).expect("file");
    let card = Card::new(lab.host(0), "/run/toe", CARD_IP).expect("toectl");
    card.up("tap:tap0", &[]).expect("card");
    lab.host(0).ip(&format!("addr add {PEER_IP}/24 dev tap0")).expect("address");
    lab.host(0).ip("link set tap0 up").expect("up");
    let kernel = Place::kernel(lab.host(0), PEER_IP);

    let mut nginx = servers::nginx(&lab, &card.place(), "nginx", 80).expect("starts");
    servers::wait_listening(&mut nginx, lab.host(0), CARD_IP, 80).expect("listens");
    servers::fetch(&lab, &kernel, &format!("http://{CARD_IP}/file"), &hash, LIMIT).expect("equal bytes");

    let mut python = servers::python_http(&lab, &kernel, "python", 8000).expect("starts");
    servers::wait_listening(&mut python, lab.host(0), PEER_IP, 8000).expect("listens");
    servers::fetch(&lab, &card.place(), &format!("http://{PEER_IP}:8000/file"), &hash, LIMIT).expect("equal bytes");

    card.balanced_books().expect("every frame is accounted for");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn ping_is_answered() {
    let pair = Pair::new().expect("two hosts");
    let _card = pair.card_up().expect("card");
    let said = pair.peer_place().run("ping", &["-n", "-c", "3", "-i", "0.2", "-W", "5", CARD_IP], LIMIT).expect("answers");
    assert!(said.stdout().contains("3 received"), "{}", said.stdout());
}
