//! Bulk transfers through a port that loses, duplicates and reorders; checksums compared.
//!
//! 64 MiB each way, or 1 GiB with `cargo xtask test --full`.

use std::time::Duration;

use toe_lab::servers::{self, WWW};
use toe_lab::{CARD_IP, PEER_IP, Pair};

fn full() -> bool {
    std::env::var_os("TOE_TEST_FULL").is_some()
}

fn transfer(impair: &str, len: u64, limit: Duration) {
    let pair = Pair::new().expect("two hosts");
    let hash = servers::make_file(&pair.lab.path(&format!("{WWW}/file")), len, 11).expect("file");
    let card = pair.card_up_with(&["--impair", impair]).expect("card");
    let mut near = servers::nginx(&pair.lab, &card.place(), "nginx", 80).expect("starts");
    servers::wait_listening(&mut near, pair.peer(), CARD_IP, 80).expect("listens");
    let from = servers::fetch(&pair.lab, &pair.peer_place(), &format!("http://{CARD_IP}/file"), &hash, limit).expect("from the card");
    let mut far = servers::nginx(&pair.lab, &pair.peer_place(), "nginx-kernel", 80).expect("starts");
    servers::wait_listening(&mut far, pair.peer(), PEER_IP, 80).expect("listens");
    let to = servers::fetch(&pair.lab, &card.place(), &format!("http://{PEER_IP}/file"), &hash, limit).expect("to the card");
    let books = card.balanced_books().expect("every frame is accounted for");
    println!("{impair}: {} MiB from the card {:.2} Gbit/s, to the card {:.2} Gbit/s; {books}", len >> 20, from.gbit_per_s, to.gbit_per_s);
    let stats = card.stats().expect("stats");
    let repaired = stats.get("tx_fast_retransmits").unwrap_or(&0) + stats.get("tx_timeouts").unwrap_or(&0);
    assert!(repaired > 0, "nothing was lost, so nothing was tested: {stats:?}");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn one_percent_of_loss_duplication_and_reordering() {
    let (len, limit) = if full() { (1 << 30, Duration::from_secs(600)) } else { (64 << 20, Duration::from_secs(120)) };
    transfer("loss=0.01,dup=0.01,reorder=0.01,seed=1", len, limit);
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn five_percent_of_loss() {
    transfer("loss=0.05,seed=2", 4 << 20, Duration::from_secs(120));
}
