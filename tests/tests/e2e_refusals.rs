//! What cannot work is refused with a message that says what to do, and leaves nothing.

use std::process::Command;
use std::time::Duration;

use toe_lab::job::{self, Finished};
use toe_lab::{Card, Pair, programs};

/// Placements that can't be used, and what is said of them.
const BAD_PLACEMENTS: [(&str, &str); 6] = [
    ("", "no cores"),
    ("[[core]]\nstages = ['ingress', 'ingress', 'egress', 'ctxq', 'pre', 'protocol', 'post', 'dma']\n", "stage ingress is placed twice"),
    ("[[core]]\nstages = ['ingress', 'egress', 'ctxq', 'pre', 'protocol', 'post']\n", "stage dma.0 is not placed"),
    ("[[core]]\nstages = ['ingress', 'warp']\n", "no stage `warp`"),
    ("[sizes]\nring = 0\n[[core]]\nstages = ['ingress', 'egress', 'ctxq', 'pre', 'protocol', 'post', 'dma']\n", "sizes.ring = 0"),
    ("this is not toml", "expected"),
];

const LIMIT: Duration = Duration::from_secs(30);

fn refused(card: &Card, words: &[&str], code: i32, expected: &[&str]) -> Finished {
    let done = card.try_toectl(words).expect("toectl ends");
    let said = done.stderr().to_lowercase();
    assert_eq!(done.status.code(), Some(code), "{words:?}: {said}");
    for word in expected {
        assert!(said.contains(&word.to_lowercase()), "{words:?}: '{word}' is not in: {said}");
    }
    done
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn what_up_cannot_do_it_says() {
    let pair = Pair::new().expect("two hosts");
    let card = Card::new(pair.near(), "/run/toe", "10.77.0.2").expect("card");
    let ip = ["--ip", "10.77.0.2/24"];
    refused(&card, &["up", "--port", "carrier_pigeon:toe0", ip[0], ip[1]], 2, &["carrier_pigeon", "af_packet", "tap"]);
    refused(&card, &["up", "--port", "af_packet:nowhere0", ip[0], ip[1]], 2, &["nowhere0"]);
    refused(
        &card,
        &["up", "--port", "af_packet:toe0", ip[0], ip[1], "--placement", "/no/such/file"],
        2,
        &["--placement /no/such/file", "no such file"],
    );
    for (text, expected) in BAD_PLACEMENTS {
        let file = pair.lab.path("/run/bad.toml");
        std::fs::write(&file, text).expect("a file");
        refused(&card, &["up", "--port", "af_packet:toe0", ip[0], ip[1], "--placement", "/run/bad.toml"], 2, &["bad.toml", expected]);
        std::fs::remove_file(&file).expect("removed");
    }
    refused(&card, &["up", "--port", "af_packet:toe0", ip[0], ip[1], "--toed-arg=--no-such-option"], 2, &["--no-such-option"]);
    refused(&card, &["up", "--port", "af_packet:toe0", "--ip", "10.77.0/24"], 2, &["10.77.0/24"]);
    assert!(!pair.lab.path(&card.run_dir).exists());
    assert!(pair.lab.processes().iter().all(|(_, name)| name != "toe-nic" && name != "toed"));
    let qdiscs = pair.near().run("tc", &["qdisc", "show", "dev", "toe0"], LIMIT).expect("tc").stdout();
    assert!(!qdiscs.contains("clsact"), "{qdiscs}");
    // And it still works after all that.
    card.up("af_packet:toe0", &[]).expect("up");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn without_rights_the_missing_one_is_named() {
    let pair = Pair::new().expect("two hosts");
    let toectl = programs::built_dir().expect("built").join("toectl");
    let mut command = pair.near().command(programs::require("setpriv").expect("setpriv"));
    command.args(["--bounding-set=-net_raw", "--inh-caps=-net_raw", "--"]).arg(toectl);
    command.env("TOE_RUN_DIR", "/run/toe").args(["up", "--port", "af_packet:toe0", "--ip", "10.77.0.2/24"]);
    let done = job::run(command, LIMIT).expect("ends");
    assert_eq!(done.status.code(), Some(2), "{}", done.stderr());
    assert!(done.stderr().contains("CAP_NET_RAW"), "{}", done.stderr());
    assert!(!pair.lab.path("/run/toe").exists());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_daemon_that_is_not_running_is_said() {
    let pair = Pair::new().expect("two hosts");
    let card = Card::new(pair.near(), "/run/toe", "10.77.0.2").expect("card");
    for words in [&["status"][..], &["ss"], &["stats"]] {
        refused(&card, words, 2, &["toed is not running", "toectl up"]);
    }
    refused(&card, &["run", "--", "curl", "http://10.77.0.1/"], 125, &["toed is not running"]);
    card.down().expect("nothing to do");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_program_that_cannot_be_reached_is_warned_about() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let source = pair.lab.path("/run/x.c");
    std::fs::write(&source, "int main(void) { return 0; }\n").expect("written");
    let built = pair.near().run("gcc", &["-static", "-o", "/run/x", "/run/x.c"], LIMIT);
    if built.is_err() {
        println!("no static libc here; not tested");
        return;
    }
    let done = job::run(card.command(["run", "--", "/run/x"]), LIMIT).expect("ends");
    assert!(done.status.success());
    assert!(done.stderr().contains("statically linked"), "{}", done.stderr());
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_port_that_is_taken_is_address_in_use() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let script = "import socket, sys, errno\n\
        a = socket.socket(); a.bind((sys.argv[1], 9000)); a.listen()\n\
        b = socket.socket()\n\
        try: b.bind((sys.argv[1], 9000)); b.listen(); print('bound twice')\n\
        except OSError as e: print(errno.errorcode[e.errno])\n";
    let said = card.place().run("python3", &["-c", script, "10.77.0.2"], LIMIT).expect("runs").stdout();
    assert_eq!(said, "EADDRINUSE\n");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn toectl_explains_itself() {
    let toectl = programs::built_dir().expect("built").join("toectl");
    for (program, words) in [("toectl", &["--help"][..]), ("toectl", &["up", "--help"]), ("toe-nic", &["--help"]), ("toed", &["--help"])] {
        let mut command = Command::new(toectl.with_file_name(program));
        command.args(words);
        let help = job::run(command, LIMIT).expect("ends").success().expect("help").stdout();
        assert!(help.contains("Usage:"), "{program} {words:?}: {help}");
    }
}
