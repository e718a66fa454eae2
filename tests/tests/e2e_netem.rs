//! Transfers over a network that loses frames (`toe-netem`), the kernel at its other end.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use toe_lab::instance::Place;
use toe_lab::job::{self, wait_until};
use toe_lab::servers::{self, WWW};
use toe_lab::{CARD_IP, Card, Job, PEER_IP, Wired, wired};

const LIMIT: Duration = Duration::from_secs(90);
const FILE_LEN: u64 = 6 << 20;

/// Two hosts, and servers of one file on both.
struct Scene {
    wired: Wired,
    card: Card,
    hash: String,
    _servers: [Job; 2],
}

impl Scene {
    /// `None`: not here, and it has been said why.
    fn new(line: &str) -> Option<Scene> {
        if let Some(why) = wired::refused() {
            eprintln!("skipped: {why}");
            return None;
        }
        let wired = Wired::new(line, 1).expect("a network");
        let lab = &wired.pair.lab;
        let hash = servers::make_file(&lab.path(&format!("{WWW}/file")), FILE_LEN, 5).expect("file");
        let card = wired.pair.card_up().expect("card");
        let mut near = servers::nginx(lab, &card.place(), "nginx", 80).expect("starts");
        servers::wait_listening(&mut near, wired.pair.peer(), CARD_IP, 80).expect("listens");
        let mut far = servers::nginx(lab, &wired.pair.peer_place(), "nginx-kernel", 80).expect("starts");
        servers::wait_listening(&mut far, wired.pair.peer(), PEER_IP, 80).expect("listens");
        Some(Scene { wired, card, hash, _servers: [near, far] })
    }

    /// The two ways: a name, who fetches, and from where.
    fn ways(&self) -> [(&'static str, Place, &'static str); 2] {
        [("from the card", self.wired.pair.peer_place(), CARD_IP), ("to the card", self.card.place(), PEER_IP)]
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.wired.pair.lab.path(inside)
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn two_percent_of_loss_and_late_frames_cost_no_byte() {
    let Some(scene) = Scene::new("rate=200mbit,delay=1ms,loss=2%,dup=1%,reorder=1%:1ms,corrupt=0.5%") else { return };
    for (name, place, ip) in scene.ways() {
        let done = servers::fetch(&scene.wired.pair.lab, &place, &format!("http://{ip}/file"), &scene.hash, LIMIT);
        println!("{name}: {:.3} Gbit/s", done.expect(name).gbit_per_s);
    }
    scene.card.balanced_books().expect("every frame is accounted for");
    let summary = scene.wired.end().expect("a summary");
    for way in ["to_right", "to_left"] {
        let lost = summary[way]["lost"].as_u64();
        assert!(lost.is_some_and(|n| n > 20), "{way}: nothing was lost, so nothing was tested: {summary}");
    }
}

/// Recovery is the card's alone: with toed stopped in the middle, transfers end whole all the same, and toed finds its way back.
#[test]
#[ignore = "end to end: cargo xtask test"]
fn with_toed_stopped_losses_are_still_repaired() {
    let Some(scene) = Scene::new("rate=20mbit,delay=2ms,loss=2%") else { return };
    let toed = scene.card.pid(&scene.wired.pair.lab, "toed").expect("pid");
    for (n, (name, place, ip)) in scene.ways().into_iter().enumerate() {
        let (inside, path) = (format!("/run/got{n}"), scene.path(&format!("/run/got{n}")));
        let arrived = || path.metadata().map_or(0, |m| m.len());
        let mut curl = place.start(&scene.wired.pair.lab, name, "curl", &["-sS", "-o", &inside, &format!("http://{ip}/file")]).expect(name);
        wait_until("the transfer is under way", LIMIT, || arrived() > FILE_LEN / 8).expect(name);
        job::signal(toed, Signal::STOP);
        let before = arrived();
        let whole = wait_until("all has arrived", LIMIT, || arrived() == FILE_LEN);
        job::signal(toed, Signal::CONT);
        whole.expect(name);
        assert!(before < FILE_LEN / 2, "{name}: toed was stopped too late, at {before} of {FILE_LEN}");
        assert!(curl.wait(LIMIT).expect(name).success(), "{name}: {}", curl.log());
        assert_eq!(servers::sha256(&path).expect("read"), scene.hash, "{name}");
        fs::remove_file(path).expect("removed");
    }
    // And new connections come through.
    servers::fetch(&scene.wired.pair.lab, &scene.wired.pair.peer_place(), &format!("http://{CARD_IP}/file"), &scene.hash, LIMIT)
        .expect("afterwards");
}
