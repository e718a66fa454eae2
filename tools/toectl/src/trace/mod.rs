//! `toectl trace`: the way of single segments through the card's stages.
//!
//! ```text
//!   toed ──visits──► Collector ──► ways ──┬─► picture   one exchange, in the terminal
//!                                         └─► events    all of them, for ui.perfetto.dev
//! ```
//!
//! However it ends, the card is told to stop recording; if we are killed, toed tells it.

mod collector;
mod events;
mod picture;
#[cfg(test)]
mod tests;
mod ways;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use toed::admin::{Request, Trace, Visits};

use crate::cli;
use crate::run_dir::RunDir;
use crate::show::{ask, print};
use collector::Collector;
use ways::{Exchange, Way};

/// Between two looks at what was recorded.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub fn trace(dir: &RunDir, options: &cli::Trace) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, interrupted.clone()).context("cannot handle signals")?;
    }
    let mut collector = Collector::new(options.port);
    let recording = Recording::start(dir)?;
    // What cannot be written is said before anybody waits for it.
    let output = options.output.as_ref().map(|path| File::create(path).with_context(|| path.display().to_string())).transpose()?;
    let watched = watch(&recording, &mut collector, options, &interrupted);
    let stopped = recording.stop();
    // What was seen is shown, whatever ended it.
    let ways = collector.ways();
    print(&report(&ways, &collector, options))?;
    if let (Some(file), Some(path)) = (output, &options.output) {
        let text = serde_json::to_vec(&events::file(&ways, collector.lost()))?;
        (&file).write_all(&text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    watched.and(stopped)?;
    if ways.is_empty() {
        bail!("no segment was seen");
    }
    Ok(())
}

/// Reads until enough ways are complete, time is over, or somebody has had enough.
fn watch(recording: &Recording<'_>, collector: &mut Collector, options: &cli::Trace, interrupted: &AtomicBool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(options.wait);
    let mut enough = false;
    while !enough && Instant::now() < deadline && !interrupted.load(Ordering::Relaxed) {
        thread::sleep(LOOK_EVERY);
        if collector.add(recording.read()?) {
            enough = complete(&collector.ways()) >= options.count as usize;
        }
    }
    if enough {
        // What the last of them still had to do after its own end, such as telling the application.
        thread::sleep(LOOK_EVERY);
        collector.add(recording.read()?);
    }
    Ok(())
}

fn complete(ways: &[Way]) -> usize {
    ways.iter().filter(|w| w.is_segment() && w.is_complete()).count()
}

fn report(ways: &[Way], collector: &Collector, options: &cli::Trace) -> String {
    let picture = Exchange::best(ways).map_or_else(String::new, |exchange| picture::waterfall(&exchange) + "\n");
    let whose = options.port.map_or_else(String::new, |port| format!(" on port {port}"));
    let segments = ways.iter().filter(|w| w.is_segment()).count();
    format!("{picture}segments seen{whose}: {segments}, {} of them from beginning to end{}\n", complete(ways), collector.gaps())
}

/// A trace that the card records until this is dropped.
struct Recording<'a> {
    dir: &'a RunDir,
    trace: u64,
    on: bool,
}

impl<'a> Recording<'a> {
    fn start(dir: &'a RunDir) -> Result<Self> {
        let Trace { trace } = ask(dir, Request::TraceStart)?;
        Ok(Self { dir, trace, on: true })
    }

    fn read(&self) -> Result<Visits> {
        ask(self.dir, Request::TraceRead { trace: self.trace })
    }

    fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.on = false;
        ask::<serde_json::Value>(self.dir, Request::TraceStop { trace: self.trace }).map(drop)
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if self.on {
            // Nobody is left to be told; toed stops what nobody reads.
            let _ = self.end();
        }
    }
}
