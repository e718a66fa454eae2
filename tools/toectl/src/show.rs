//! `toectl status`, `ss` and `stats`: what toed answers, as tables or JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toed::admin::{self, Address, Connection, Request, Stage, Stats, Status};
use toed::config::failure_file;
use toed::rate;

use crate::cli;
use crate::errors::environment;
use crate::load::Placement;
use crate::process::Identity;
use crate::run_dir::RunDir;
use crate::table::{row, table};

const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A card that hangs must not keep an operator from the rest of its status for long.
const STAGES_LIMIT: Duration = Duration::from_secs(1);
/// Between the two samples that give the load.
const SAMPLE: Duration = Duration::from_millis(200);

/// The status, and the card's stages if it tells.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    status: Status,
    #[serde(flatten)]
    placement: Option<Placement>,
}

pub fn status(dir: &RunDir, format: &cli::Format) -> Result<()> {
    let status: Status = ask(dir, Request::Status)?;
    // A card that has failed is not asked any more.
    let asked = if status.card.failure.is_some() { Ok(None) } else { placement(dir) };
    let placement = asked.unwrap_or_else(|error| {
        eprintln!("toectl: stages are not shown: {error:#}");
        None
    });
    if format.json {
        return print_json(&Shown { status, placement });
    }
    let stages = placement.map_or_else(String::new, |placement| format!("\n{}", placement.text()));
    print(&(status_text(&status) + &stages))
}

/// None: this card does not tell.
fn placement(dir: &RunDir) -> Result<Option<Placement>> {
    let sample = || ask_within(dir, Request::Stages, STAGES_LIMIT);
    let Some(before): Option<Vec<Stage>> = sample()? else { return Ok(None) };
    std::thread::sleep(SAMPLE);
    let now: Option<Vec<Stage>> = sample()?;
    Ok(now.map(|now| Placement::new(&before, now)))
}

pub fn ss(dir: &RunDir, format: &cli::Format) -> Result<()> {
    let connections: Vec<Connection> = ask(dir, Request::Ss)?;
    if format.json { print_json(&connections) } else { print(&ss_text(&connections)) }
}

pub fn stats(dir: &RunDir, options: &cli::Stats) -> Result<()> {
    let mut stats: Stats = ask(dir, Request::Stats)?;
    if options.nonzero {
        stats.retain(|_, value| *value != 0);
    }
    if options.json {
        return print_json(&stats);
    }
    let explanations = if options.explain { toed::admin::explanations() } else { BTreeMap::new() };
    print(&stats_text(&stats, &explanations))
}

/// Asks toed.
pub fn ask<T: DeserializeOwned>(dir: &RunDir, request: Request) -> Result<T> {
    ask_within(dir, request, ANSWER_LIMIT)
}

fn ask_within<T: DeserializeOwned>(dir: &RunDir, request: Request, limit: Duration) -> Result<T> {
    admin::call(&dir.file("admin.sock"), request, limit).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => environment(not_running(dir)),
        io::ErrorKind::PermissionDenied => environment(error.to_string()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => environment(silent(dir, limit)),
        _ => error.into(),
    })
}

/// What to say of a toed that is there and does not answer.
fn silent(dir: &RunDir, limit: Duration) -> String {
    match Identity::read(&dir.file("toed.pid")).filter(|toed| toed.is_stopped()) {
        Some(toed) => format!("toed is stopped (open connections go on in the card); 'kill -CONT {}' lets it go on", toed.pid),
        None => format!("toed has not answered for {} s", limit.as_secs()),
    }
}

/// What to say when nobody answers; a toed that failed has left word.
fn not_running(dir: &RunDir) -> String {
    let place = dir.path().display();
    match fs::read_to_string(failure_file(dir.path())) {
        Ok(text) => format!("toed is not running in {place} any more: {}", text.trim()),
        Err(_) => format!("toed is not running in {place}; start it with 'toectl up', or name its folder with TOE_RUN_DIR"),
    }
}

fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// A reader that has seen enough (head, less) is no error.
pub fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot print"),
    }
}

fn ss_text(connections: &[Connection]) -> String {
    let mut rows = vec![row(["State", "Recv-Q", "Send-Q", "Local", "Peer", "cc", "cwnd", "rate", "rtt", "minrtt", "retrans", "pid"])];
    for c in connections {
        // Of a listener these mean nothing.
        let listens = c.state == "LISTEN";
        let unless_listening = |text: String| if listens { "-".to_owned() } else { text };
        rows.push(vec![
            c.state.clone(),
            c.rx_queue.to_string(),
            c.tx_queue.to_string(),
            c.local.clone(),
            c.remote.clone(),
            c.cc.as_ref().map_or_else(|| "-".to_owned(), |cc| format!("{cc}/{}", c.ca_state.as_deref().unwrap_or("-"))),
            unless_listening(bytes(c.cwnd.into())),
            if c.rate_kbps == 0 { "-".to_owned() } else { rate::text(c.rate_kbps) },
            unless_listening(format!("{}/{}", millis(c.srtt_us), millis(c.rttvar_us))),
            unless_listening(millis(c.min_rtt_us)),
            unless_listening(c.retransmits.map_or_else(|| "-".to_owned(), |n| n.to_string())),
            c.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        ]);
    }
    table(&rows, &[0, 3, 4, 5])
}

/// As ss(8): milliseconds, three digits after the point.
fn millis(us: u32) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

fn bytes(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{}K", n / 1024),
        10_000_000..10_000_000_000 => format!("{}M", n / (1024 * 1024)),
        _ => format!("{}G", n / (1024 * 1024 * 1024)),
    }
}

fn stats_text(stats: &Stats, explanations: &BTreeMap<String, &str>) -> String {
    let row = |(name, value): (&String, &u64)| {
        let explanation = explanations.get(name).map(ToString::to_string);
        [name.clone(), value.to_string()].into_iter().chain(explanation).collect()
    };
    table(&stats.iter().map(row).collect::<Vec<Vec<String>>>(), &[0, 2])
}

fn status_text(status: &Status) -> String {
    let card = &status.card;
    let mut text = String::new();
    // Writing to a String does not fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14}{value}");
    };
    line("card", format!("{} ({}) at {}", card.board, card.status, card.device));
    card.failure.iter().for_each(|why| line("failure", why.clone()));
    line("port", format!("{}, mtu {}, link {}", card.port_mac, card.mtu, card.link));
    let addresses: Vec<String> = status.addresses.iter().map(address_text).collect();
    line("address", format!("{}, gateway {}", addresses.join(", "), status.gateway.as_deref().unwrap_or("none")));
    line(
        "connections",
        format!("{} of {} at most; {} being opened, {} in TIME-WAIT", card.flows, card.flows_max, status.half_open, status.time_wait),
    );
    line("contexts", format!("{} of {} at most", card.contexts, card.contexts_max));
    if let (Some(used), Some(most)) = (card.memory_used_bytes, card.memory_max_bytes) {
        line("window", format!("{} of {} handed out", bytes(used), bytes(most)));
    }
    line("toed", format!("{}, up {}", status.version, duration(status.uptime_s)));
    if !status.applications.is_empty() {
        text.push('\n');
        let mut rows =
            vec![row(["Region", "State", "Contexts", "Sockets", "Connections", "Listeners", "Memory", "Weight", "Rate", "Pids"])];
        rows.extend(status.applications.iter().map(|a| {
            let pids: Vec<String> = a.pids.iter().map(ToString::to_string).collect();
            let numbers = [a.contexts, a.sockets, a.connections, a.listeners].map(|n| n.to_string());
            let mut cells = vec![a.region.to_string(), a.state.clone()];
            cells.extend(numbers);
            cells.push(format!("{}/{}", bytes(a.memory_bytes), bytes(a.memory_max_bytes)));
            cells.extend(a.share.map_or_else(|| ["-".to_owned(), "-".to_owned()], |s| [s.weight.to_string(), rate::text(s.rate_kbps)]));
            cells.push(pids.join(","));
            cells
        }));
        text.push_str(&table(&rows, &[1, 9]));
    }
    if !status.listeners.is_empty() {
        text.push('\n');
        let mut rows = vec![row(["Listener", "Waiting", "Backlog", "Half-open", "Overflows", "Region"])];
        rows.extend(status.listeners.iter().map(|l| {
            let numbers = [l.waiting.into(), l.backlog.into(), l.half_open, l.overflows, l.region.into()];
            [l.local.clone()].into_iter().chain(numbers.map(|n: u64| n.to_string())).collect()
        }));
        text.push_str(&table(&rows, &[0]));
    }
    text
}

/// One that is in use needs no word.
fn address_text(address: &Address) -> String {
    let Address { ip, state } = address;
    if state == "preferred" { ip.clone() } else { format!("{ip} ({state})") }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toed::admin::{Application, CardStatus, Listener, Share};

    #[test]
    fn connections_are_shown_as_by_ss() {
        let connections = [
            Connection {
                state: "LISTEN".into(),
                local: "10.0.0.2:80".into(),
                remote: "0.0.0.0:*".into(),
                tx_queue: 511,
                ..Default::default()
            },
            Connection {
                state: "ESTAB".into(),
                local: "10.0.0.2:80".into(),
                remote: "10.0.0.1:40000".into(),
                rx_queue: 7,
                cwnd: 14600,
                srtt_us: 1234,
                rttvar_us: 56,
                min_rtt_us: 1200,
                cc: Some("cubic".into()),
                ca_state: Some("recovery".into()),
                retransmits: Some(2),
                pid: Some(99),
                ..Default::default()
            },
            Connection {
                state: "ESTAB".into(),
                local: "10.0.0.2:80".into(),
                remote: "10.0.0.1:40001".into(),
                cwnd: 1 << 20,
                rate_kbps: 85_250,
                cc: Some("dctcp-rate".into()),
                ca_state: Some("open".into()),
                retransmits: Some(0),
                ..Default::default()
            },
        ];
        let expected = "\
State   Recv-Q  Send-Q  Local        Peer            cc                cwnd       rate          rtt  minrtt  retrans  pid
LISTEN       0     511  10.0.0.2:80  0.0.0.0:*       -                    -          -            -       -        -    -
ESTAB        7       0  10.0.0.2:80  10.0.0.1:40000  cubic/recovery     14K          -  1.234/0.056   1.200        2   99
ESTAB        0       0  10.0.0.2:80  10.0.0.1:40001  dctcp-rate/open  1024K  85.25mbit  0.000/0.000   0.000        0    -
";
        assert_eq!(ss_text(&connections), expected);
    }

    #[test]
    fn counters_stand_in_two_columns() {
        let stats = Stats::from([("rx_frames".into(), 12), ("drop_paws".into(), 3)]);
        assert_eq!(stats_text(&stats, &BTreeMap::new()), "drop_paws   3\nrx_frames  12\n");
    }

    #[test]
    fn counters_are_explained_in_a_third() {
        let stats = Stats::from([("rx_frames".into(), 12), ("toed_flows".into(), 3), ("of_another_version".into(), 1)]);
        let expected = "\
of_another_version   1
rx_frames           12  Frames received from the port.
toed_flows           3  Flows on the card now.
";
        assert_eq!(stats_text(&stats, &toed::admin::explanations()), expected);
    }

    #[test]
    fn a_status_names_what_an_operator_looks_for() {
        let share = Some(Share { weight: 250, rate_kbps: 1500 });
        let status = Status {
            version: "0.1.0".into(),
            addresses: [("10.0.0.2/24", "preferred"), ("fd00::2/64", "duplicate")]
                .map(|(ip, state)| Address { ip: ip.into(), state: state.into() })
                .into(),
            card: CardStatus {
                board: "soft".into(),
                status: "attached".into(),
                mtu: 1500,
                link: "down".into(),
                flows: 3,
                ..Default::default()
            },
            applications: vec![Application { region: 4, pids: vec![7, 8], memory_bytes: 1 << 20, share, ..Default::default() }],
            listeners: vec![Listener { local: "10.0.0.2:80".into(), backlog: 511, overflows: 17, ..Default::default() }],
            ..Default::default()
        };
        let text = status_text(&status);
        for word in [
            "soft (attached)",
            "10.0.0.2/24, fd00::2/64 (duplicate), gateway none",
            "3 of 0",
            "7,8",
            "1024K",
            "511          0         17       0",
            "mtu 1500, link down",
            "250  1.5mbit  7,8",
        ] {
            assert!(text.contains(word), "{word} is not in\n{text}");
        }
    }

    #[test]
    fn a_window_and_a_failure_are_shown() {
        let card = CardStatus {
            board: "qemu".into(),
            device: "ivshmem:/run/w.sock".into(),
            status: "failed".into(),
            memory_used_bytes: Some(12 << 20),
            memory_max_bytes: Some(63 << 20),
            failure: Some("panicked at boot.rs:7".into()),
            ..Default::default()
        };
        let text = status_text(&Status { card, ..Default::default() });
        for words in ["qemu (failed) at ivshmem:/run/w.sock", "window        12M of 63M handed out", "failure       panicked at boot.rs:7"]
        {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
    }

    #[test]
    fn a_card_that_has_failed_says_why() {
        let failure = Some("panic: out of luck (core 2)".into());
        let card = CardStatus { board: "qemu".into(), status: "failed".into(), failure, ..Default::default() };
        let text = status_text(&Status { card, ..Default::default() });
        assert!(text.contains("qemu (failed)") && text.contains("failure       panic: out of luck (core 2)\n"), "{text}");
        assert!(!status_text(&Status::default()).contains("failure"));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([0, 9999, 10_000, 14_600, 64 << 20, 32 << 30].map(bytes), ["0", "9999", "9K", "14K", "64M", "32G"]);
    }
}
