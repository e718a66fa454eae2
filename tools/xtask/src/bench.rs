//! RPC and bulk transfer, our card and the Linux kernel side by side, on the same kind of veth.
//!
//! Absolute figures move from run to run with the machine; so both take turns, and the medians
//! and their ratio are what counts.
//!
//! And what a decision of the scheduler costs, which needs neither (`--scheduler`); and how TCP does on bad networks (`--networks`).

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use toe_lab::instance::{PEER_IP, Pair, Place};
use toe_lab::{CARD_IP, Card, Job, job, programs, servers};

use crate::cargo;
use crate::networks;
use crate::pipeline;
use crate::progress::{Mark, Step};
use crate::setup;

#[derive(Args, Debug)]
pub struct Options {
    /// Cost of the card's stages in memory instead, and throughput over several threads: builds and runs toe-pipe
    #[arg(long, conflicts_with_all = ["runs", "seconds"])]
    pipeline: bool,
    /// The same, then what a model says of placements for more cores
    #[arg(long, conflicts_with_all = ["runs", "seconds"])]
    model: bool,
    /// With --pipeline: build toe-pipe, one static binary to be carried to other machines, and say where it is
    #[arg(long, visible_alias = "static", requires = "pipeline")]
    build_only: bool,
    /// Arguments for toe-pipe or toe-networks (with --help: what there is)
    #[arg(last = true)]
    args: Vec<OsString>,
    /// Runs of each measurement; the median counts
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How TCP does on networks of all kinds instead: sim (virtual time, against a snapshot), linux (beside Linux), fairness; alone: the last two
    #[arg(long, value_name = "PART", num_args = 0..=1, default_missing_value = "all", conflicts_with_all = ["pipeline", "model", "scheduler", "runs", "seconds"])]
    networks: Option<networks::Part>,
    /// With --networks sim: make what is measured now the snapshot
    #[arg(long, requires = "networks")]
    bless: bool,
    /// What a decision of the scheduler costs, from ten flows to a million, instead
    #[arg(long, conflicts_with = "seconds")]
    scheduler: bool,
}

/// Port of toe-rpc.
const PORT: u16 = 7000;

/// What is measured: words for toe-rpc, the field of its answer, and how to show it.
struct Metric {
    title: &'static str,
    unit: &'static str,
    words: &'static [&'static str],
    field: &'static str,
    /// What the field is multiplied by for the table.
    scale: f64,
    /// Two metrics of one measurement share it.
    again: bool,
}

const METRICS: [Metric; 5] = [
    Metric { title: "RPC 64 B, 1 outstanding: p50", unit: "us", words: &["latency"], field: "p50_us", scale: 1.0, again: false },
    Metric { title: "RPC 64 B, 1 outstanding: p99", unit: "us", words: &["latency"], field: "p99_us", scale: 1.0, again: true },
    Metric { title: "RPC 64 B, 16 x 8 outstanding", unit: "k/s", words: &["throughput"], field: "per_s", scale: 1e-3, again: false },
    Metric {
        title: "bulk, to the server",
        unit: "Gbit/s",
        words: &["bulk", "--direction", "to-server"],
        field: "gbit_per_s",
        scale: 1.0,
        again: false,
    },
    Metric {
        title: "bulk, from the server",
        unit: "Gbit/s",
        words: &["bulk", "--direction", "from-server"],
        field: "gbit_per_s",
        scale: 1.0,
        again: false,
    },
];

/// Figures of one stack: for each metric, one number a run.
#[derive(Clone, Debug, Default)]
pub struct Figures([Vec<f64>; METRICS.len()]);

/// A stack to measure: its server, and the client's place.
pub struct Subject<'a> {
    pub client: Place,
    pub ip: &'a str,
    _server: Job,
}

impl<'a> Subject<'a> {
    /// Starts the server at `server`; clients come from `client`.
    pub fn start(pair: &Pair, server: &Place, client: &Place, ip: &'a str) -> Result<Subject<'a>> {
        let mut job = server.start_built(&pair.lab, "toe-rpc", "toe-rpc", &["server", &format!("{ip}:{PORT}")])?;
        servers::wait_listening(&mut job, &client.host, ip, PORT)?;
        Ok(Subject { client: client.clone(), ip, _server: job })
    }

    fn measure(&self, seconds: f64, figures: &mut Figures) -> Result<()> {
        let mut answer = serde_json::Value::Null;
        for (metric, runs) in METRICS.iter().zip(&mut figures.0) {
            if !metric.again {
                answer = self.ask(metric.words, seconds)?;
            }
            let value = answer[metric.field].as_f64().with_context(|| format!("no {} in {answer}", metric.field))?;
            runs.push(value * metric.scale);
        }
        Ok(())
    }

    fn ask(&self, words: &[&str], seconds: f64) -> Result<serde_json::Value> {
        let mut command = self.client.command(programs::built_dir()?.join("toe-rpc"));
        command.args(words).arg(format!("{}:{PORT}", self.ip)).args(["--seconds", &seconds.to_string()]);
        let done = job::run(command, Duration::from_secs_f64(seconds * 1.1 + 15.0))?.success()?;
        serde_json::from_slice(&done.stdout).with_context(|| format!("'{}' printed {:?}", done.line, done.stdout()))
    }
}

/// The same measurements on the kernel alone, with a pair of hosts of its own.
pub fn kernel_pair() -> Result<Pair> {
    let pair = Pair::new()?;
    pair.near().ip(&format!("addr add {CARD_IP}/24 dev {}", toe_lab::instance::CARD_IF))?;
    Ok(pair)
}

/// Measures both in turns.
pub fn compare(ours: &Subject, kernel: &Subject, runs: u32, seconds: f64, step: &Step) -> Result<(Figures, Figures)> {
    let (mut of_ours, mut of_kernel) = (Figures::default(), Figures::default());
    for run in 1..=runs {
        step.note(&format!("run {run} of {runs}, the card"));
        ours.measure(seconds, &mut of_ours).context("on the card")?;
        step.note(&format!("run {run} of {runs}, the kernel"));
        kernel.measure(seconds, &mut of_kernel).context("on the kernel")?;
    }
    Ok((of_ours, of_kernel))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Median (least - most).
fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let digits = if median(values) < 100.0 { 1 } else { 0 };
    format!("{:.digits$} ({least:.digits$} - {most:.digits$})", median(values))
}

/// The table, with the ratio of the medians.
pub fn table(ours: &Figures, kernel: &Figures) -> String {
    let runs = ours.0[0].len();
    let mut text = format!("  {:<30}{:<8}{:>26}{:>26}{:>12}\n", "", "", "FerroTOE", "Linux kernel", "ratio");
    for ((metric, a), b) in METRICS.iter().zip(&ours.0).zip(&kernel.0) {
        let ratio = median(a) / median(b);
        text += &format!("  {:<30}{:<8}{:>26}{:>26}{:>11.2}x\n", metric.title, metric.unit, spread(a), spread(b), ratio);
    }
    text + &format!("  Median (least - most) of {runs} runs in turns. Times: a ratio below 1 is in our favour; rates: above 1.\n")
}

/// Builds and runs toe-sched; the plot goes to target/bench.
fn scheduler(runs: u32) -> Result<ExitCode> {
    let mut command = cargo::cargo(&["run", "--release", "--quiet", "-p", "toe-bench", "--bin", "toe-sched", "--"]);
    command.args(["--runs", &runs.to_string(), "--svg"]).arg(cargo::target_dir().join("bench/scheduler.svg"));
    let status = command.status().context("cannot run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub fn run(options: &Options) -> Result<ExitCode> {
    if options.pipeline || options.model {
        let model = options.model.then(|| "--model".into());
        let args: Vec<OsString> = model.into_iter().chain(options.args.iter().cloned()).collect();
        return if options.build_only { pipeline::build_only() } else { pipeline::run(&args) };
    }
    if let Some(part) = options.networks {
        return networks::run(part, options.bless, &options.args);
    }
    if options.scheduler {
        return scheduler(options.runs);
    }
    ensure!(options.args.is_empty(), "arguments behind '--' are for toe-pipe and toe-networks: with --pipeline, --model or --networks");
    against_the_kernel(options)
}

fn against_the_kernel(options: &Options) -> Result<ExitCode> {
    setup::packages()?;
    cargo::build_release()?;
    let step = Step::begin("two hosts with our card, two with the kernel alone");
    let (pair, yardstick) = (Pair::new()?, kernel_pair()?);
    let card = pair.card_up()?;
    let (ours, kernel) = subjects(&pair, &card, &yardstick)?;
    step.end(Mark::Ok, "");
    let step = Step::begin("measurements");
    let (of_ours, of_kernel) =
        compare(&ours, &kernel, options.runs, options.seconds, &step).inspect_err(|_| eprintln!("{}", card.logs(&pair.lab, 20)))?;
    step.end(Mark::Ok, "");
    print!("\n{}", table(&of_ours, &of_kernel));
    Ok(ExitCode::SUCCESS)
}

/// The server on our card, its client on the kernel; and both on the kernel.
pub fn subjects(pair: &Pair, card: &Card, yardstick: &Pair) -> Result<(Subject<'static>, Subject<'static>)> {
    let ours = Subject::start(pair, &card.place(), &pair.peer_place(), CARD_IP)?;
    let kernel = Subject::start(yardstick, &Place::kernel(yardstick.near(), CARD_IP), &Place::kernel(yardstick.peer(), PEER_IP), CARD_IP)?;
    Ok((ours, kernel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_table_has_a_line_and_a_ratio_for_each_metric() {
        let figures = |x: f64| Figures(std::array::from_fn(|i| vec![x * (i + 1) as f64, x * (i + 1) as f64, 1000.0]));
        let text = table(&figures(20.0), &figures(10.0));
        assert_eq!(text.lines().filter(|line| line.contains("2.00x")).count(), METRICS.len(), "{text}");
        assert!(text.contains("20.0 (20.0 - 1000.0)") && text.contains("of 3 runs"), "{text}");
    }

    /// The yardstick alone: kernel against kernel.
    #[test]
    fn the_kernel_can_be_measured() {
        if toe_lab::namespaces::refused().is_some() || programs::built_dir().is_err() {
            eprintln!("skipped: no namespaces here, or nothing built");
            return;
        }
        let pair = kernel_pair().expect("pair");
        let place = Place::kernel(pair.near(), CARD_IP);
        let subject = Subject::start(&pair, &place, &pair.peer_place(), CARD_IP).expect("server");
        let mut figures = Figures::default();
        subject.measure(0.1, &mut figures).expect("figures");
        assert!(figures.0.iter().all(|runs| runs.len() == 1 && runs[0] > 0.0), "{figures:?}");
    }
}
