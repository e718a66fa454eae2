//! Transfers and requests as fast as they go, by programs written to measure.

use std::time::Duration;

use toe_lab::job::{self, wait_until};
use toe_lab::{CARD_IP, PEER_IP, Pair, programs, servers};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
#[ignore = "end to end: cargo xtask test"]
fn every_measurement_works_with_server_or_client_on_the_card() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let rpc = programs::built_dir().expect("built").join("toe-rpc");
    for (server, client, ip) in [(card.place(), pair.peer_place(), CARD_IP), (pair.peer_place(), card.place(), PEER_IP)] {
        let address = format!("{ip}:7000");
        let mut job = server.start_built(&pair.lab, "rpc", "toe-rpc", &["server", &address]).expect("starts");
        servers::wait_listening(&mut job, pair.peer(), ip, 7000).expect("listens");
        for words in [&["latency"][..], &["throughput"], &["bulk", "--direction", "to-server"], &["bulk", "--direction", "from-server"]] {
            let mut command = client.command(&rpc);
            command.args(words).args([address.as_str(), "--seconds", "0.5"]);
            let done = job::run(command, LIMIT).and_then(job::Finished::success).expect("measured");
            println!("server at {ip}: {}", done.stdout().trim());
        }
        assert!(job.is_running());
    }
    card.balanced_books().expect("every frame is accounted for");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn iperf3_both_ways_with_parallel_streams() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let mut server = card.place().start(&pair.lab, "iperf3", "iperf3", &["-s", "-B", CARD_IP, "--forceflush"]).expect("starts");
    let log = pair.lab.log_path("iperf3");
    for (test, direction) in [(1, "-P1"), (2, "-R")] {
        // It listens anew for each test.
        server.wait_ready(LIMIT, || std::fs::read_to_string(&log).is_ok_and(|t| t.matches("listening").count() >= test)).expect("listens");
        let args = ["-c", CARD_IP, "-t", "1", "-P", "4", "-J", direction];
        let said = pair.peer_place().run("iperf3", &args, LIMIT).expect("measured").stdout();
        assert!(said.contains("sum_received"), "{said}");
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_thousand_connections_one_after_another_leave_no_flow() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let address = format!("{CARD_IP}:7000");
    let mut server = card.place().start_built(&pair.lab, "rpc", "toe-rpc", &["server", &address]).expect("starts");
    servers::wait_listening(&mut server, pair.peer(), CARD_IP, 7000).expect("listens");
    let script = "import socket, sys\n\
        for n in range(1000):\n\
        \x20   with socket.create_connection((sys.argv[1], 7000), 10) as s:\n\
        \x20       s.sendall(b'toe-rpce' + b'x' * 10)\n\
        \x20       got = b''\n\
        \x20       while len(got) < 10: got += s.recv(10)\n";
    pair.peer().run("python3", &["-c", script, CARD_IP], Duration::from_secs(60)).expect("all of them");
    let mut status = serde_json::Value::Null;
    let ended = wait_until("all flows have ended and left no memory", LIMIT, || {
        status = card.json("status").unwrap_or_default();
        status["card"]["flows"] == 0 && status["applications"][0]["memory_bytes"] == 0
    });
    assert!(ended.is_ok(), "{status}");
}
