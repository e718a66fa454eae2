//! `toectl restart`: the machine of a card in QEMU once more, in the window that is there; toed attaches to it by itself.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use toed::admin::{Request, Status};

use crate::cli;
use crate::errors::environment;
use crate::process::Identity;
use crate::run_dir::RunDir;
use crate::show::ask;
use crate::up;

/// How long the old machine may take to end by itself, and toed to hear of it.
const END_LIMIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub fn restart(dir: &RunDir, options: &cli::Restart) -> Result<()> {
    let place = dir.path().display();
    let machine: Vec<OsString> = dir.read_undo().map(|undo| undo.machine).unwrap_or_default();
    let Some((program, words)) = machine.split_first() else {
        return Err(environment(format!("no card in QEMU was started by 'toectl up' in {place}")));
    };
    let _lock = dir.lock()?;
    // It answers, or nothing would come of a new machine.
    is_attached(dir)?;
    if let Some(last) = Identity::read(&dir.file("qemu.pid"))
        && !last.stop(END_LIMIT)
    {
        bail!("qemu (pid {}) does not end", last.pid);
    }
    wait(dir, false, END_LIMIT)?;
    let limit = Duration::from_secs(options.wait);
    up::start(dir, &up::machine(dir, program.into(), words.to_vec()), limit)?;
    wait(dir, true, limit)?;
    println!("the machine runs again, and toed is attached to it; start the programs again that ran on the card");
    Ok(())
}

fn is_attached(dir: &RunDir) -> Result<bool> {
    let status: Status = ask(dir, Request::Status)?;
    Ok(status.card.status == "attached")
}

fn wait(dir: &RunDir, attached: bool, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    while is_attached(dir)? != attached {
        if Instant::now() >= end {
            let what = if attached { "is not attached to the new machine" } else { "has not noticed that the machine has ended" };
            bail!("toed {what} after {} s; its log is {}", limit.as_secs(), dir.file("toed.log").display());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
