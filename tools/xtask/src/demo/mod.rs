//! `cargo xtask demo`: unmodified programs over our card, against the Linux kernel.
//!
//! ```text
//!   nginx, python3, redis, curl, toe-rpc       kernel-side curl, redis-benchmark, toe-rpc
//!        under 'toectl run'                                     │
//!        └► libtoe_preload ► card ► toe0 ═══ veth ═══ peer0 ◄ Linux kernel
//! ```

mod steps;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use toe_lab::{Card, Job, Pair};

use crate::cargo;
use crate::progress::{Mark, Step};
use crate::setup;

#[derive(Args, Debug)]
pub struct Options {
    /// Leave all of it running at the end, and print what to type next
    #[arg(long)]
    keep: bool,
    /// Megabytes of the file that is served
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    megabytes: u32,
}

/// What the steps share.
pub struct Stage {
    pub pair: Pair,
    pub card: Card,
    /// SHA-256 of the file that is served.
    pub hash: String,
    /// Servers, which end with the demo.
    pub jobs: Vec<Job>,
    /// The table of the last step.
    pub table: String,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    setup::packages()?;
    cargo::build_release()?;
    println!("\nUnmodified programs on our card (10.77.0.2), talking to the Linux kernel (10.77.0.1) over a veth pair:");
    let start = Instant::now();
    let mut stage = match begin(options) {
        Ok(stage) => stage,
        Err(error) => return Ok(failed(&error, "")),
    };
    for (name, action) in steps::ALL {
        let step = Step::begin(name);
        match action(&mut stage, &step) {
            Ok(result) => step.end(Mark::Ok, &result),
            Err(error) => {
                step.end(Mark::Failed, "");
                let logs = stage.logs();
                return Ok(failed(&error, &logs));
            }
        }
    }
    println!("\n{}", stage.table);
    println!("All of it held, in {:.0} s.", start.elapsed().as_secs_f64());
    if options.keep {
        keep(stage)?;
    } else {
        let step = Step::begin("toectl down");
        stage.jobs.clear();
        match stage.card.down() {
            Ok(_) => step.end(Mark::Ok, ""),
            Err(error) => {
                step.end(Mark::Failed, "");
                return Ok(failed(&error, &stage.logs()));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn begin(options: &Options) -> Result<Stage> {
    let step = Step::begin("two hosts, a veth pair, a file, the card");
    let made = steps::begin(u64::from(options.megabytes) << 20);
    step.end(if made.is_ok() { Mark::Ok } else { Mark::Failed }, "");
    made
}

fn failed(error: &anyhow::Error, logs: &str) -> ExitCode {
    println!("\n{error:#}\n{logs}");
    ExitCode::FAILURE
}

impl Stage {
    fn logs(&self) -> String {
        let servers: String = self.jobs.iter().map(|job| job.log_tail(10)).filter(|text| !text.is_empty()).collect();
        format!("{}\n  servers:\n{servers}", self.card.logs(&self.pair.lab, 20))
    }
}

/// Leaves everything running and says how to go there.
fn keep(stage: Stage) -> Result<()> {
    let Stage { pair, card, jobs, .. } = stage;
    let near = pair.near().enter().join(" ");
    let peer = pair.peer().enter().join(" ");
    let bin = cargo::release_dir();
    let run_dir = card.run_dir.clone();
    for job in jobs {
        // It is to outlive us.
        std::mem::forget(job);
    }
    let init = pair.lab.keep()?;
    println!("\nIt is still running. To look at the card:\n");
    println!("    {near} env TOE_RUN_DIR={run_dir} {}/toectl ss", bin.display());
    println!("    {near} env TOE_RUN_DIR={run_dir} {}/toectl stats --nonzero", bin.display());
    println!("\nTo run a program of yours on it, and one on the peer:\n");
    println!("    {near} env TOE_RUN_DIR={run_dir} {}/toectl run -- PROGRAM", bin.display());
    println!("    {peer} curl -s -o /dev/null -w '%{{speed_download}}\\n' http://10.77.0.2:8080/file");
    println!("\nTo end all of it:\n\n    kill -9 {init}");
    Ok(())
}
