//! toe-networks: how our TCP does on networks of all kinds, alone and beside Linux.
//!
//! ```text
//!   sim        virtual time: two of ours, and ours with smoltcp, by seed, against a snapshot
//!   linux      the same network for ours and for Linux, in turns, through toe-netem
//!   fairness   flows that share a bottleneck: ours among themselves, and with Linux's
//! ```
//!
//! May depend on: what the simulation is made of (`toe-tests`), `toe-netem`, `toe-lab`.
#![forbid(unsafe_code)]

mod fairness;
mod linux;
mod plot;
mod scene;
mod sim;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// Measures TCP on networks of all kinds
#[derive(Parser, Debug)]
#[command(version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// In virtual time; exit status 1 if a figure differs from the snapshot
    Sim {
        /// The snapshot
        #[arg(long)]
        snapshot: PathBuf,
        /// Make what is measured now the snapshot
        #[arg(long, conflicts_with_all = ["only", "seeds"])]
        bless: bool,
        /// Only networks with this in their words, such as loss=1%, or of this group; shown, and not compared
        #[arg(long)]
        only: Option<String>,
        /// Means over so many seeds: what a change does where one run is chance; shown, and not compared
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
        seeds: u64,
    },
    /// Beside Linux; shows the table, draws it
    Linux {
        #[command(flatten)]
        repeat: Repeat,
        /// Only networks with this in their words, such as loss=1%
        #[arg(long)]
        only: Option<String>,
    },
    /// Shares of a bottleneck; shows the tables, draws them
    Fairness {
        #[command(flatten)]
        repeat: Repeat,
        /// What the bottleneck is
        #[arg(long, value_enum, default_value = "netem")]
        bottleneck: fairness::Bottleneck,
    },
}

#[derive(Args, Debug)]
struct Repeat {
    /// Runs of each measurement; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Seconds of each run [default: 2, of fairness 6]
    #[arg(long)]
    seconds: Option<f64>,
    /// Where pictures go
    #[arg(long, value_name = "FOLDER")]
    plots: PathBuf,
}

impl Repeat {
    fn plot(&self, name: &str) -> PathBuf {
        self.plots.join(format!("networks-{name}.svg"))
    }
}

fn main() -> ExitCode {
    run(&Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("toe-networks: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Sim { only: None, seeds: 1, snapshot, bless } => sim::run(snapshot, *bless),
        Command::Sim { only, seeds, .. } => sim::show(only.as_deref(), *seeds),
        Command::Linux { repeat, only } => show(&linux::run(repeat, only.as_deref())?, repeat),
        Command::Fairness { repeat, bottleneck } => show(&fairness::run(repeat, *bottleneck)?, repeat),
    }
}

fn show(table: &str, repeat: &Repeat) -> Result<ExitCode> {
    println!("\n{table}Plots: {}", repeat.plots.display());
    Ok(ExitCode::SUCCESS)
}
