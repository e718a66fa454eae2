//! `toectl up`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use toed::admin::{self, Request, Status};

use crate::cli;
use crate::down;
use crate::errors::{coded, environment};
use crate::process::{self, NotReady, Started};
use crate::qdisc;
use crate::run_dir::{RunDir, Undo};

pub fn up(dir: &RunDir, options: &cli::Up) -> Result<()> {
    check(options)?;
    let (toe_nic, toed) = (sibling("toe-nic")?, sibling("toed")?);
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
    let interface = qdisc::interface(&options.port).unwrap_or_default().to_owned();
    let had_clsact = qdisc::has_clsact(&interface);
    let undo = Undo { netns: qdisc::netns(), interface, had_clsact, made_folder: made_folder || made_before };
    dir.write_undo(&undo)?;

    let started = start_both(dir, options, &toe_nic, &toed);
    if started.is_err() {
        down::clean(dir, undo.made_folder)?;
    }
    drop(lock);
    started
}

/// What can be said before anything is started.
fn check(options: &cli::Up) -> Result<()> {
    if qdisc::interface(&options.port).is_none() {
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

fn start_both(dir: &RunDir, options: &cli::Up, toe_nic: &Path, toed: &Path) -> Result<()> {
    let limit = Duration::from_secs(options.wait);
    let card_socket = dir.file("card.sock");
    let mut card = start(dir, "toe-nic", toe_nic, &nic_words(options, &card_socket))?;
    if let Err(why) = card.wait_ready(limit, || card_socket.exists()) {
        let error = explain(dir, "toe-nic", &why, limit);
        card.stop();
        return Err(error);
    }
    let mut daemon = match start(dir, "toed", toed, &toed_words(dir, options, &card_socket)) {
        Ok(daemon) => daemon,
        Err(error) => {
            card.stop();
            return Err(error);
        }
    };
    let admin_socket = dir.file("admin.sock");
    // Ready when its addresses are: others are asked for a second whether they have one of IPv6.
    let is_ready = |status: Status| status.addresses.iter().all(|address| address.state != "tentative");
    let answers =
        || admin_socket.exists() && admin::call::<Status>(&admin_socket, Request::Status, Duration::from_secs(1)).is_ok_and(is_ready);
    if let Err(why) = daemon.wait_ready(limit, answers) {
        let error = explain(dir, "toed", &why, limit);
        daemon.stop();
        card.stop();
        return Err(error);
    }
    let addresses = if options.ip.is_empty() { "advertised addresses".to_owned() } else { options.ip.join(", ") };
    println!("card up: {addresses} on {}, run-time folder {}", options.port, dir.path().display());
    Ok(())
}

fn start(dir: &RunDir, name: &str, program: &Path, words: &[OsString]) -> Result<Started> {
    let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    process::start(program, &words, &dir.file(&format!("{name}.log")), &dir.file(&format!("{name}.pid")))
        .with_context(|| format!("cannot start {name}"))
}

fn nic_words(options: &cli::Up, socket: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--socket".into(), socket.into(), "--port".into(), options.port.clone().into()];
    let optional = [("--cores", &options.cores), ("--placement", &options.placement), ("--impair", &options.impair)];
    for (name, value) in optional {
        if let Some(value) = value {
            words.extend([name.into(), value.into()]);
        }
    }
    words.extend(options.nic_arg.iter().cloned());
    words
}

fn toed_words(dir: &RunDir, options: &cli::Up, socket: &Path) -> Vec<OsString> {
    let mut device = OsString::from("vfio-user:");
    device.push(socket);
    let mut words: Vec<OsString> = vec!["--device".into(), device, "--run-dir".into(), dir.path().into()];
    for (name, values) in [("--ip-addr", &options.ip), ("--gateway", &options.gateway)] {
        if !values.is_empty() {
            words.extend([name.into(), values.join(",").into()]);
        }
    }
    if options.slaac {
        words.push("--slaac".into());
    }
    if let Some(vlan) = options.vlan {
        words.extend(["--vlan".into(), vlan.to_string().into()]);
    }
    words.extend(options.toed_arg.iter().cloned());
    words
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
