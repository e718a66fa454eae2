//! A card whose stages are pipelined over several threads: what is particular to it. That all else works on it as well, the other
//! end-to-end tests show, run once more on such a card.

use std::time::Duration;

use toe_lab::job::wait_until;
use toe_lab::{CARD_IP, PEER_IP, Pair, programs, servers};

const LIMIT: Duration = Duration::from_secs(60);

fn placement() -> String {
    programs::sources(env!("CARGO_MANIFEST_DIR")).join("placements/four.toml").display().to_string()
}

/// Sends and receives until its connection fails, and says how.
const TALKER: &str = "import socket, sys\n\
    s = socket.create_connection((sys.argv[1], 7000), 10)\n\
    s.settimeout(50)\n\
    s.sendall(b'toe-rpce')\n\
    print('connected', flush=True)\n\
    try:\n\
    \x20   while True:\n\
    \x20       s.sendall(b'x' * 100)\n\
    \x20       if not s.recv(100): print('end'); break\n\
    except OSError as e: print('error', e.errno)\n";

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_program_whose_card_loses_a_stage_is_told_and_does_not_hang() {
    for stage in ["pre.0", "pre.1", "protocol.0", "dma.1", "egress", "ctxq"] {
        let pair = Pair::new().expect("two hosts");
        // Each stage takes steps while the card starts; by then some are left.
        let disturb = format!("--nic-arg=--disturb=delay=0,die={stage},after=200000");
        let card = pair.card_up_with(&["--placement", &placement(), &disturb]).expect("card");
        let mut server =
            pair.peer_place().start_built(&pair.lab, "rpc", "toe-rpc", &["server", &format!("{PEER_IP}:7000")]).expect("starts");
        servers::wait_listening(&mut server, pair.peer(), PEER_IP, 7000).expect("listens");
        let mut client = card.place().start(&pair.lab, "client", "python3", &["-u", "-c", TALKER, PEER_IP]).expect("starts");
        client.wait(LIMIT).unwrap_or_else(|e| panic!("{stage}: the client hangs: {e:#}"));
        let said = std::fs::read_to_string(pair.lab.log_path("client")).unwrap_or_default();
        assert!(said.contains("error"), "{stage}: {said}");
        let log = card.logs(&pair.lab, 20);
        assert!(log.contains(&format!("stage {stage}")) && log.contains("telling the host"), "{stage}: {log}");
        let gone =
            wait_until("the processes end", LIMIT, || pair.lab.processes().iter().all(|(_, name)| name != "toe-nic" && name != "toed"));
        assert!(gone.is_ok(), "{stage}: {:?}", pair.lab.processes());
        card.down().expect("down");
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn status_shows_where_each_stage_runs() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up_with(&["--placement", &placement()]).expect("card");
    let status = card.json("status").expect("status");
    let stages = status["stages"].as_array().cloned().unwrap_or_default();
    let core_of = |stage: &str, instance: u64| {
        let found = stages.iter().find(|s| s["stage"] == stage && s["instance"] == instance);
        found.and_then(|s| s["core"].as_u64())
    };
    assert_eq!(stages.len(), 11, "{status}");
    assert_eq!([core_of("ingress", 0), core_of("pre", 0), core_of("pre", 1), core_of("ctxq", 0)], [Some(0), Some(1), Some(2), Some(3)]);
    let text = card.toectl(&["status"]).expect("status").stdout();
    assert!(text.contains("protocol.1") && text.contains("core 3: ctxq.0"), "{text}");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_trace_shows_a_request_and_its_answer() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up_with(&["--placement", &placement()]).expect("card");
    let mut server = card.place().start_built(&pair.lab, "rpc", "toe-rpc", &["server", &format!("{CARD_IP}:7000")]).expect("starts");
    servers::wait_listening(&mut server, pair.peer(), CARD_IP, 7000).expect("listens");
    let load = ["latency", &format!("{CARD_IP}:7000"), "--seconds", "60"];
    let _load = pair.peer_place().start_built(&pair.lab, "load", "toe-rpc", &load).expect("starts");
    let file = pair.lab.path("/run/trace.json");
    let text = card.toectl(&["trace", "--count", "40", "--output", "/run/trace.json"]).expect("trace").stdout();
    for word in ["port 7000", "segment received", "application told", "descriptor taken", "segment sent", "egress.0", "ctxq.0"] {
        assert!(text.contains(word), "'{word}' is not in\n{text}");
    }
    let events: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("the file")).expect("JSON");
    assert!(events["traceEvents"].as_array().is_some_and(|e| e.len() > 100), "trace events");
}
