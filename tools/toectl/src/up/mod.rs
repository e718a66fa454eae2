//! `toectl up`: the parts of a card, started one after the other; all of them are up, or nothing is left.
//!
//! ```text
//!   soft:  toe-nic ─────────────► toed
//!   virt:  toe-window ─► qemu ──► toed      (and a TAP interface)
//! ```

mod soft;
mod virt;

pub use virt::machine;

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use toed::admin::{self, Request, Status};

use crate::cli::{self, Board};
use crate::down;
use crate::errors::{coded, environment};
use crate::interface;
use crate::process::{self, NotReady, Started};
use crate::run_dir::{RunDir, Undo};

pub fn up(dir: &RunDir, options: &cli::Up) -> Result<()> {
    check(options)?;
    let parts = match options.board {
        Board::Soft => soft::parts(dir, options)?,
        Board::Virt => virt::parts(dir, options)?,
    };
    let made_folder = dir.make()?;
    let lock = dir.lock()?;
    if let Some((name, pid)) = down::running(dir) {
        return Err(environment(format!(
            "{name} (pid {pid}) is running already in {}; 'toectl down' stops it, another TOE_RUN_DIR makes a second instance",
            dir.path().display()
        )));
    }
    // What a killed instance left would be taken for ours.
    let made_before = dir.read_undo().is_some_and(|undo| undo.made_folder);
    down::clean(dir, false)?;
    let interface = interface::of_port(&options.port).unwrap_or_default().to_owned();
    let had_clsact = interface::has_clsact(&interface);
    let makes_tap = options.board == Board::Virt && !interface::exists(&interface);
    let undo = Undo {
        netns: interface::netns(),
        interface,
        had_clsact,
        made_tap: makes_tap,
        machine: parts.iter().find(|part| part.name == QEMU_PART).map(Part::line).unwrap_or_default(),
        made_folder: made_folder || made_before,
    };
    dir.write_undo(&undo)?;
    let made = if makes_tap { interface::make_tap(&undo.interface).map_err(environment) } else { Ok(()) };
    let started = made.and_then(|()| start_all(dir, parts, Duration::from_secs(options.wait)));
    if started.is_err() {
        down::clean(dir, undo.made_folder)?;
    }
    drop(lock);
    started?;
    let addresses = if options.ip.is_empty() { "advertised addresses".to_owned() } else { options.ip.join(", ") };
    println!("card up: {addresses} on {}, run-time folder {}", options.port, dir.path().display());
    Ok(())
}

/// What can be said before anything is started.
fn check(options: &cli::Up) -> Result<()> {
    if interface::of_port(&options.port).is_none() {
        return Err(environment(format!("--port {}: expected DRIVER:IFNAME, such as af_packet:eth1 or tap:toe0", options.port)));
    }
    if let Some(ip) = options.ip.iter().find(|ip| !is_prefix(ip)) {
        return Err(environment(format!("--ip {ip}: expected ADDRESS/PREFIX, such as 192.0.2.10/24 or fd00::10/64")));
    }
    match options.gateway.iter().find(|gateway| gateway.parse::<std::net::IpAddr>().is_err()) {
        Some(gateway) => Err(environment(format!("--gateway {gateway}: not an address"))),
        None => Ok(()),
    }
}

fn is_prefix(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, prefix)| {
        address.parse::<std::net::IpAddr>().is_ok_and(|ip| prefix.parse::<u8>().is_ok_and(|p| p <= if ip.is_ipv4() { 32 } else { 128 }))
    })
}

/// A program that is installed with us.
fn sibling(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe().context("where am I?")?;
    let path = me.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    Err(environment(format!("{name} is not beside {}; build it with 'cargo build --release'", me.display())))
}

/// The machine among the parts.
const QEMU_PART: &str = "qemu";

/// How long the port's link may take to come up, by which an interface that was down a moment ago agrees with its switch. Nobody can be asked
/// before whether they have an address of IPv6; without a cable the card is up all the same.
const LINK_WITHIN: Duration = Duration::from_secs(5);

/// Whether nothing is left to wait for, if the link has had its time or not.
fn is_settled(status: &Status, is_late: bool) -> bool {
    let is_tentative = status.addresses.iter().any(|address| address.state == "tentative");
    !is_tentative || status.card.link == "down" && is_late
}

/// A process of the instance.
pub struct Part {
    /// Of its files: NAME.pid, NAME.log.
    name: &'static str,
    program: PathBuf,
    words: Vec<OsString>,
    is_ready: Box<dyn Fn() -> bool>,
}

impl Part {
    /// Program and arguments.
    fn line(&self) -> Vec<OsString> {
        std::iter::once(self.program.clone().into()).chain(self.words.iter().cloned()).collect()
    }

    /// toed, for the card at `device`.
    fn toed(dir: &RunDir, options: &cli::Up, device: OsString, more: Vec<OsString>) -> Result<Self> {
        let mut words: Vec<OsString> = vec!["--device".into(), device, "--run-dir".into(), dir.path().into()];
        for (name, values) in [("--ip-addr", &options.ip), ("--gateway", &options.gateway)] {
            if !values.is_empty() {
                words.extend([name.into(), values.join(",").into()]);
            }
        }
        if options.slaac {
            words.push("--slaac".into());
        }
        // What the kernel takes for its own link is the card's.
        let taken_over = interface::of_port(&options.port).filter(|_| options.port.starts_with("af_packet:"));
        match (options.vlan, taken_over) {
            (Some(vlan), _) => words.extend(["--vlan".into(), vlan.to_string().into()]),
            (None, Some(name)) => words.extend(["--interface".into(), name.into()]),
            (None, None) => {}
        }
        words.extend(more.into_iter().chain(options.toed_arg.iter().cloned()));
        let socket = dir.file("admin.sock");
        let patience = LINK_WITHIN.min(Duration::from_secs(options.wait) / 2);
        let answered = OnceCell::new();
        // Ready when its addresses are: others are asked for a second whether they have one of IPv6.
        let settled = move |status: Status| is_settled(&status, answered.get_or_init(Instant::now).elapsed() >= patience);
        let is_ready =
            move || socket.exists() && admin::call::<Status>(&socket, Request::Status, Duration::from_secs(1)).is_ok_and(&settled);
        Ok(Self { name: "toed", program: sibling("toed")?, words, is_ready: Box::new(is_ready) })
    }
}

/// Starts each part when the one before is ready; if one fails, all stop, the last first.
fn start_all(dir: &RunDir, parts: Vec<Part>, limit: Duration) -> Result<()> {
    let mut running = Vec::new();
    for part in parts {
        match start(dir, &part, limit) {
            Ok(started) => running.push(started),
            Err(error) => {
                running.into_iter().rev().for_each(Started::stop);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Starts a part and waits until it is ready.
pub fn start(dir: &RunDir, part: &Part, limit: Duration) -> Result<Started> {
    let Part { name, program, words, is_ready } = part;
    let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    let begin = Instant::now();
    let mut started = process::start(program, &words, &dir.file(&format!("{name}.log")), &dir.file(&format!("{name}.pid")))
        .with_context(|| format!("cannot start {name}"))?;
    if let Err(why) = started.wait_ready(limit, is_ready) {
        let error = explain(dir, name, &why, limit);
        started.stop();
        return Err(error);
    }
    // For people who wait.
    if std::io::stderr().is_terminal() {
        eprintln!("{name} is ready after {:.1} s", begin.elapsed().as_secs_f64());
    }
    Ok(started)
}

/// A word of ours that starts a device's name.
fn device(kind: &str, socket: &Path) -> OsString {
    let mut device = OsString::from(kind);
    device.push(":");
    device.push(socket);
    device
}

/// The last lines of its log tell why; exit status 2 of a program is ours too.
fn explain(dir: &RunDir, name: &str, why: &NotReady, limit: Duration) -> anyhow::Error {
    let log = fs::read(dir.file(&format!("{name}.log"))).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let last: String = lines[lines.len().saturating_sub(15)..].iter().map(|line| format!("\n  {line}")).collect();
    match why {
        NotReady::Ended(Some(2)) => coded(2, format!("{name} could not start:{last}")),
        NotReady::Ended(Some(code)) => anyhow!("{name} ended with status {code}:{last}"),
        NotReady::Ended(None) => anyhow!("{name} was killed:{last}"),
        NotReady::Late => anyhow!("{name} was not ready after {} s:{last}", limit.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toed::admin::{Address, CardStatus};

    #[test]
    fn a_card_without_a_cable_is_up_after_a_while() {
        let status = |link: &str, state: &str| Status {
            card: CardStatus { link: link.into(), ..CardStatus::default() },
            addresses: vec![Address { ip: "fd00::2/64".into(), state: state.into() }],
            ..Status::default()
        };
        for (link, state, at_once, late) in [
            ("up", "preferred", true, true),
            ("up", "duplicate", true, true),
            ("up", "tentative", false, false),
            ("unknown", "tentative", false, false),
            ("down", "tentative", false, true),
            ("down", "preferred", true, true),
        ] {
            let status = status(link, state);
            assert_eq!((is_settled(&status, false), is_settled(&status, true)), (at_once, late), "{link}, {state}");
        }
    }
}
