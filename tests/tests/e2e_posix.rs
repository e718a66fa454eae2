//! What the C library's socket functions answer under `toectl run`, line by line beside what they answer on Linux.
//!
//! ```text
//!   programs/posix/*.c ──cc──► probe ──┬─ on the kernel ──────► lines ──┐ differences.txt
//!                                      └─ under toectl run ───► lines ──┴──► equal, or the test fails
//!   programs/posix/peer.py on the other host does what the probe tells it over a UNIX socket
//! ```
//!
//! A difference that is accepted stands in `differences.txt` with its reason; one that is no longer there fails as well.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use toe_lab::instance::Place;
use toe_lab::job::{self, Job};
use toe_lab::{CARD_IP, PEER_IP, Pair, programs};

/// A group takes a few seconds; cases that hang are ended by the probe itself.
const LIMIT: Duration = Duration::from_secs(120);

fn sources() -> PathBuf {
    programs::sources(env!("CARGO_MANIFEST_DIR")).join("posix")
}

/// The probe, built once.
fn probe() -> &'static [u8] {
    static PROBE: OnceLock<Vec<u8>> = OnceLock::new();
    PROBE.get_or_init(|| {
        let out = std::env::temp_dir().join(format!("toe-posix-probe-{}", std::process::id()));
        let files = std::fs::read_dir(sources()).expect("the folder").flatten().map(|entry| entry.path());
        let files = files.filter(|path| path.extension().is_some_and(|e| e == "c"));
        let mut cc = Command::new(programs::require("cc").expect("cc"));
        // Wrong arguments are the point of many cases: compilers notice, and would be right elsewhere.
        cc.args(["-std=gnu11", "-O1", "-w", "-D_GNU_SOURCE", "-pthread", "-o"]).arg(&out).args(files);
        job::run(cc, LIMIT).and_then(job::Finished::success).expect("the probe compiles");
        let program = std::fs::read(&out).expect("readable");
        std::fs::remove_file(&out).expect("removed");
        program
    })
}

/// Runs a group at `place`; what it prints, with the peer on the other host.
fn run(pair: &Pair, place: &Place, group: &str) -> Vec<String> {
    let control = "/run/probe-peer.sock";
    let mut peer = pair.peer().command(programs::require("python3").expect("python3"));
    peer.args(["-u", &sources().join("peer.py").display().to_string(), control, PEER_IP, CARD_IP]);
    let mut peer = Job::start("peer", peer, &pair.lab.log_path("peer")).expect("starts");
    let log = pair.lab.log_path("peer");
    peer.wait_ready(LIMIT, || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready"))).expect("the peer is ready");
    let program = pair.lab.path("/run/probe");
    std::fs::write(&program, probe()).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("made executable");
    let mut command = place.command("/run/probe");
    command.arg(group).args(std::env::var("PROBE_CASE").ok());
    command.env("PROBE_HERE", CARD_IP).env("PROBE_THERE", PEER_IP).env("PROBE_PEER", control);
    let done = job::run(command, LIMIT).and_then(job::Finished::success).expect("the probe runs");
    eprint!("{}", done.stderr());
    done.stdout().lines().map(str::to_owned).collect()
}

fn on_the_kernel(group: &str) -> Vec<String> {
    let pair = Pair::new().expect("two hosts");
    pair.near().ip(&format!("addr add {CARD_IP}/24 dev toe0")).expect("address");
    let place = Place::kernel(pair.near(), CARD_IP);
    run(&pair, &place, group)
}

fn on_the_card(group: &str) -> Vec<String> {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let lines = run(&pair, &card.place(), group);
    if std::env::var_os("PROBE_LOGS").is_some() {
        eprintln!("{}", card.logs(&pair.lab, 40));
    }
    lines
}

/// Accepted differences: what Linux prints, and what we print instead (nothing: the line is missing).
fn accepted(group: &str) -> Vec<(String, Option<String>)> {
    let text = std::fs::read_to_string(sources().join("differences.txt")).expect("readable");
    let mut all: Vec<(String, Option<String>)> = Vec::new();
    let mut reason = false;
    for line in text.lines() {
        match line.split_at_checked(2) {
            // Each paragraph gives its own reason.
            None => reason = false,
            Some(("# ", _)) => reason = true,
            Some(("- ", linux)) if reason => all.push((linux.to_owned(), None)),
            Some(("+ ", card)) if reason => all.last_mut().expect("a line of Linux first").1 = Some(card.to_owned()),
            _ => panic!("differences.txt: neither a reason nor a difference with one: {line}"),
        }
    }
    // $PROBE_CASE: one case of the group, to look at it.
    let case = std::env::var("PROBE_CASE").map_or(String::new(), |case| format!("{case}: "));
    all.retain(|(linux, _)| linux.starts_with(&format!("{group}/{case}")));
    all
}

/// What Linux prints with the accepted differences put in; `Err`: one of them is not there.
fn expected(mut linux: Vec<String>, accepted: Vec<(String, Option<String>)>) -> Result<Vec<String>, String> {
    let mut from = 0;
    for (line, instead) in accepted {
        // In order, so that a line that is printed twice can be told from the other by what stands between.
        let at = linux[from..].iter().position(|l| *l == line).or_else(|| {
            from = 0;
            linux.iter().position(|l| *l == line)
        });
        let at = from + at.ok_or(format!("differences.txt: Linux does not print: {line}"))?;
        from = at;
        match instead {
            Some(instead) => {
                linux[at] = instead;
                from += 1;
            }
            None => drop(linux.remove(at)),
        }
    }
    Ok(linux)
}

fn by_case(lines: &[String]) -> BTreeMap<&str, Vec<&str>> {
    let mut cases: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in lines {
        let (case, text) = line.split_once(": ").unwrap_or(("", line));
        cases.entry(case).or_default().push(text);
    }
    cases
}

/// The lines of each case that differ, as a diff.
fn diff(expected: &[String], found: &[String]) -> String {
    let (expected, found) = (by_case(expected), by_case(found));
    let mut out = String::new();
    let cases: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    for case in cases {
        let (mut a, mut b) = (expected.get(*case).map_or(&[][..], |v| v), found.get(*case).map_or(&[][..], |v| v));
        while let ([x, rest_a @ ..], [y, rest_b @ ..]) = (a, b)
            && x == y
        {
            (a, b) = (rest_a, rest_b);
        }
        while let ([rest_a @ .., x], [rest_b @ .., y]) = (a, b)
            && x == y
        {
            (a, b) = (rest_a, rest_b);
        }
        if a.len() == b.len() {
            for (x, y) in a.iter().zip(b).filter(|(x, y)| x != y) {
                out += &format!("- {case}: {x}\n+ {case}: {y}\n");
            }
        } else {
            out.extend(a.iter().map(|x| format!("- {case}: {x}\n")));
            out.extend(b.iter().map(|y| format!("+ {case}: {y}\n")));
        }
    }
    out
}

fn compare(group: &str) {
    let (linux, card) = std::thread::scope(|scope| {
        let linux = scope.spawn(|| on_the_kernel(group));
        let card = on_the_card(group);
        (linux.join().expect("the kernel's run"), card)
    });
    assert!(linux.len() > 10 || std::env::var_os("PROBE_CASE").is_some(), "{linux:?}");
    let expected = expected(linux, accepted(group)).unwrap_or_else(|why| panic!("{why}"));
    let diff = diff(&expected, &card);
    assert!(diff.is_empty(), "Linux (-) and the card (+) differ:\n{diff}");
}

macro_rules! groups {
    ($($test:ident: $group:literal)*) => {$(
        #[test]
        #[ignore = "end to end: cargo xtask test"]
        fn $test() {
            compare($group);
        }
    )*};
}

groups! {
    sockets_are_made_bound_and_accepted_as_on_linux: "open"
    connect_answers_as_on_linux: "connect"
    connections_end_as_on_linux: "ends"
    bytes_move_as_on_linux: "data"
    descriptors_are_controlled_as_on_linux: "control"
    options_are_as_on_linux: "options"
    poll_and_select_report_as_on_linux: "ready"
    epoll_reports_as_on_linux: "epoll"
    calls_wait_as_on_linux: "wait"
    urgent_data_is_as_on_linux: "urgent"
    processes_share_sockets_as_on_linux: "process"
    what_is_the_kernels_stays_with_it: "kernel"
}

/// The comparison itself can fail.
#[test]
fn differences_are_found_and_stale_ones_reported() {
    let lines = |all: &[&str]| all.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    let linux = lines(&["g/a: one", "g/a: two", "g/b: three"]);
    assert_eq!(diff(&linux, &linux), "");
    assert_eq!(diff(&linux, &lines(&["g/a: one", "g/a: 2", "g/b: three"])), "- g/a: two\n+ g/a: 2\n");
    assert_eq!(diff(&linux, &lines(&["g/a: one", "g/b: three"])), "- g/a: two\n");
    let accept = |line: &str, instead: Option<&str>| vec![(line.to_owned(), instead.map(str::to_owned))];
    assert_eq!(expected(linux.clone(), accept("g/a: two", Some("g/a: 2"))).expect("there")[1], "g/a: 2");
    assert_eq!(expected(linux.clone(), accept("g/a: two", None)).expect("there").len(), 2);
    assert!(expected(linux, accept("g/a: four", None)).is_err());
}
