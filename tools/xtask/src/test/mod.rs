//! `cargo xtask test`: every test, in steps, with one count at the end.
//!
//! ```text
//!   what computes:     format ► lint ► ... ► Arm Linux   ─┐
//!                                                         ├─► count
//!   what mostly waits: release build ► end to end ► QEMU ─┘
//! ```

mod arm;
mod counts;
mod e2e;
mod steps;

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use toe_lab::job;

use crate::cargo::{self, Done};
use crate::platform::Platform;
use crate::progress::{Mark, Step};
use crate::setup;
use counts::Counts;

#[derive(Args, Debug)]
pub struct Options {
    /// Also what takes long: 1 GiB each way through a lossy port, toed stopped for ten minutes
    #[arg(long)]
    full: bool,
    /// Only steps whose name contains this word (repeatable); --list shows the names
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// Show the names of the steps and end
    #[arg(long)]
    list: bool,
}

/// What a step found.
pub enum Outcome {
    /// It ran a command: its output, and whether what it printed has tests in it to count.
    Ran(Done),
    /// The same, but for some tests: name and reason of each.
    RanWithout(Done, Vec<(&'static str, &'static str)>),
    /// It cannot be done here, for this reason.
    Skipped(String),
}

/// A step: its name, and what it does.
pub struct Part {
    pub name: &'static str,
    pub run: fn(&Step, &Options) -> Result<Outcome>,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    let chosen = |part: &Part| options.only.is_empty() || options.only.iter().any(|word| part.name.contains(word.as_str()));
    let rows = steps::all().map(|row| row.into_iter().filter(chosen).collect::<Vec<_>>());
    if options.list {
        rows.iter().flatten().for_each(|part| println!("{}", part.name));
        return Ok(ExitCode::SUCCESS);
    }
    if rows.iter().all(Vec::is_empty) {
        bail!("no step is named like that; --list shows the names");
    }
    setup::packages()?;
    setup::emulator()?;
    setup::rust_targets()?;
    Platform::Aarch64.provide()?;
    let start = Instant::now();
    let mut total = Counts::default();
    println!(
        "{}={} (with another in the environment, properties are tested with other cases)",
        cargo::PROPTEST_SEED,
        cargo::proptest_seed()
    );
    thread::scope(|scope| {
        let [computes, waits] = rows.map(|row| move || row.iter().map(|part| one(part, options)).fold(Counts::default(), Counts::plus));
        let computes = move || {
            // Who waits is to have a processor when it wakes. On Linux this is the thread's own, and its children's.
            let _ = rustix::process::nice(5);
            computes()
        };
        for row in [scope.spawn(computes), scope.spawn(waits)] {
            total = total.plus(row.join().unwrap_or(Counts::FAILED));
        }
    });
    println!("\nthe whole took {:.0} s", start.elapsed().as_secs_f64());
    // Read by whoever calls us: alone on the last line.
    println!("{total}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(part: &Part, options: &Options) -> Counts {
    let step = Step::begin(part.name);
    match (part.run)(&step, options) {
        Ok(Outcome::Skipped(why)) => {
            step.end(Mark::Skipped, &why);
            Counts { skipped: 1, ..Counts::default() }
        }
        Ok(Outcome::Ran(done)) => end(step, &done, &[]),
        Ok(Outcome::RanWithout(done, left_out)) => end(step, &done, &left_out),
        Err(error) => {
            step.end(Mark::Failed, &format!("{error:#}"));
            Counts::FAILED
        }
    }
}

/// Ends a step that ran; what it left out counts as skipped.
fn end(step: Step, done: &Done, left_out: &[(&str, &str)]) -> Counts {
    let mut counts = Counts::of(done);
    counts.skipped += left_out.len() as u64;
    let mut lines = vec![counts.to_string()];
    for reasons in left_out.chunk_by(|a, b| a.1 == b.1) {
        let names: Vec<&str> = reasons.iter().map(|(name, _)| *name).collect();
        lines.push(format!("           left out, as {}: {}", reasons[0].1, names.join(", ")));
    }
    lines.extend(counts::reasons(done).map(|(why, tests)| format!("           {tests} skipped: {why}")));
    if counts.failed > 0 {
        lines.push(report(done));
    }
    step.end(if counts.failed == 0 { Mark::Ok } else { Mark::Failed }, &lines.join("\n"));
    counts
}

/// The end of the output of what failed; the log has the rest.
fn report(done: &Done) -> String {
    let log = done.log.strip_prefix(cargo::root()).unwrap_or(&done.log).display();
    let problem = done.problem.as_ref().map_or(String::new(), |problem| format!("    {problem}\n"));
    format!("{}\n{problem}    all of it: {log}\n", job::tail(&counts::relevant(&done.output), 120))
}
