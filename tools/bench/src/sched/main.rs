//! toe-sched: what a decision of the scheduler costs, from ten flows to a million.
//!
//! ```text
//!   load     flows that always have more, on a wire of 100 Gbit/s, in virtual time
//!   main     repetitions in turns over all loads and sizes ──► table, plot
//! ```
//!
//! A decision is `next` and `sent`. Each names another flow: the quantum is one segment, so no decision is cheap because the
//! turn goes on. Times are of the processor, not of the clock on the wall, so that other programs disturb less.
//! May depend on `toe-datapath`, `toe-sync`, `toe-hal`.
#![forbid(unsafe_code)]

mod load;
mod plot;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use nix::time::{ClockId, clock_gettime};

use load::{Kind, Load};
use table::Series;

/// Measures what a decision of the scheduler costs
#[derive(Parser, Debug)]
#[command(version)]
struct Options {
    /// Repetitions of each measurement; the median counts
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Most flows; sizes are the powers of ten from ten on
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    flows: u32,
    /// Where to write the plot
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// With fewer flows than this their memory is lost in that of the program.
const FLOWS_WEIGHED: u32 = 100_000;
/// Decisions of a repetition, if there are not more flows.
const DECISIONS: u64 = 200_000;
/// Decisions before each repetition, which bring the load's memory back into the caches.
const WARM_UP: u64 = 20_000;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toe-sched: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let sizes: Vec<u32> = (1..).map(|n| 10u32.pow(n)).take_while(|&flows| flows <= options.flows).collect();
    let mut all = Vec::new();
    for kind in Kind::ALL {
        for &flows in &sizes {
            all.push((Load::new(kind, flows), Vec::new()));
        }
    }
    for run in 1..=options.runs {
        eprintln!("run {run} of {}", options.runs);
        for (load, figures) in &mut all {
            figures.push(measure(load)?);
        }
    }
    let mut figures = all.into_iter().map(|(_, figures)| figures);
    let series: Vec<Series> =
        Kind::ALL.iter().map(|kind| Series { name: kind.name(), figures: sizes.iter().copied().zip(figures.by_ref()).collect() }).collect();
    print!("{}", table::table(&series));
    if options.flows >= FLOWS_WEIGHED {
        println!("  Memory: {} bytes a flow.", bytes_per_flow(options.flows)?);
    }
    if let Some(path) = &options.svg {
        plot::write(&series, path).with_context(|| format!("cannot write {}", path.display()))?;
        println!("  Plot: {}", path.display());
    }
    Ok(())
}

/// Nanoseconds of a decision. Each flow sends once at least.
fn measure(load: &mut Load) -> Result<f64> {
    load.run(WARM_UP);
    let decisions = DECISIONS.max(load.flows().into());
    let start = processor_time()?;
    load.run(decisions);
    Ok((processor_time()? - start).as_secs_f64() * 1e9 / decisions as f64)
}

/// What this thread has used of the processor.
fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// What the scheduler's tables take for each of `flows`, as the kernel counts it.
fn bytes_per_flow(flows: u32) -> Result<u64> {
    let before = resident_bytes()?;
    let load = Load::new(Kind::Plain, flows);
    let after = resident_bytes()?;
    Ok(after.saturating_sub(before) / u64::from(load.flows()))
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}
