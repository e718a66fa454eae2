//! `toectl logs`: the log of a card behind a window. The card writes it whether anybody reads or not, also when it has failed.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use toe_link::card::{Log, Missed};
use toed::admin::{Request, Status};

use crate::cli;
use crate::errors::environment;
use crate::run_dir::RunDir;
use crate::show::ask;

/// Nobody tells when there is more: the card must not have to care for readers.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub fn logs(dir: &RunDir, options: &cli::Logs) -> Result<()> {
    let window = match &options.window {
        Some(path) => path.clone(),
        None => window_of(dir)?,
    };
    let mut log = Log::open(&window).map_err(|e| environment(e.to_string()))?;
    let mut out = io::stdout();
    loop {
        let mut bytes = Vec::new();
        let Missed(missed) = log.read(&mut bytes);
        if missed > 0 {
            eprintln!("toectl: {missed} bytes were overwritten before they could be read");
        }
        match out.write_all(&bytes).and_then(|()| out.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.context("cannot print")?,
        }
        if !options.follow {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The window of the card that toed has.
fn window_of(dir: &RunDir) -> Result<PathBuf> {
    let status: Status = ask(dir, Request::Status).context("asking for the card's window (or name it with --window)")?;
    match status.card.device.split_once(':') {
        Some(("ivshmem", path)) => Ok(path.into()),
        _ => Err(environment(format!(
            "the card at {} has no log in a window; see toe-nic.log in {}",
            status.card.device,
            dir.path().display()
        ))),
    }
}
