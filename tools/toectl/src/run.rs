//! `toectl run`: becomes the program, with our library in front of libc.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use toed::admin::{Request, Ticket};

use crate::cli;
use crate::errors::coded;
use crate::preload;
use crate::run_dir::RunDir;
use crate::show::ask;

pub fn run(dir: &RunDir, options: &cli::Run) -> Result<()> {
    let exe = env::current_exe().context("where am I?")?;
    let library = preload::library(&exe).ok_or_else(|| {
        let text = format!("{} is neither beside {} nor in ../lib; build it with 'cargo build --release'", preload::LIBRARY, exe.display());
        coded(125, text)
    })?;
    if let Some(why) = preload::unspeakable(&library) {
        return Err(coded(125, why));
    }
    if !options.fallback {
        daemon_listens(&dir.file("admin.sock"), dir)?;
    }
    let ticket = ticket(dir, &options.share)?;
    let name = Path::new(&options.program[0]);
    let program = preload::find_program(name).ok_or_else(|| coded(127, format!("{}: program not found", name.display())))?;
    if let Some(why) = preload::obstacle(&program) {
        eprintln!("toectl: warning: {} will not use the card: {why}", program.display());
    }
    let mut command = Command::new(&program);
    command.arg0(&options.program[0]).args(&options.program[1..]).env("TOE_RUN_DIR", dir.path()).env("LD_PRELOAD", in_front(&library));
    if options.fallback {
        command.env_remove("TOE_REQUIRE");
    } else {
        // A program that silently uses the kernel is worse than one that says why it cannot work.
        command.env("TOE_REQUIRE", "1");
    }
    if let Some(ticket) = ticket {
        command.env("TOE_TICKET", ticket.to_string());
    }
    let error = command.exec();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    Err(coded(code, format!("{}: {error}", program.display())))
}

/// Reserves a share for the program; its library shows the ticket. (The value itself would be a claim of the program.)
fn ticket(dir: &RunDir, share: &cli::Share) -> Result<Option<u64>> {
    let (weight, rate_kbps) = (share.weight, share.rate);
    if weight.is_none() && rate_kbps.is_none() {
        return Ok(None);
    }
    // Also with --fallback: the kernel would not keep to it.
    let Ticket { ticket } = ask(dir, Request::Reserve { weight, rate_kbps }).map_err(|e| coded(125, format!("{e:#}")))?;
    Ok(Some(ticket))
}

/// A daemon that is not there is said now, rather than by each socket of the program.
fn daemon_listens(socket: &Path, dir: &RunDir) -> Result<()> {
    match UnixStream::connect(socket) {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(coded(125, format!("toed is not running in {}; start it with 'toectl up'", dir.path().display())))
        }
        Err(e) => Err(coded(125, format!("{}: {e}", socket.display()))),
    }
}

/// Other preloaded libraries stay, after ours.
fn in_front(library: &Path) -> OsString {
    let mut value = library.as_os_str().to_owned();
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        value.push(":");
        value.push(others);
    }
    value
}
