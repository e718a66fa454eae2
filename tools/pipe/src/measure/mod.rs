//! Measurements: each several times, all in turns, so that what the machine does otherwise meets them all alike.

pub mod hops;
pub mod points;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::board::Nanos;
use hops::Hops;
use points::Point;

/// How to measure.
#[derive(Clone, Debug)]
pub struct Options {
    pub measure: Duration,
    pub repeats: u32,
    /// CPUs to bind threads to; empty: none.
    pub cpus: Vec<usize>,
    pub app_apart: bool,
}

/// Where it was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu_model: String,
    /// That we may run on.
    pub cpus: usize,
    pub arch: String,
    /// What a look at the clock costs, nanoseconds.
    pub clock_ns: u64,
    /// Programs that wanted to run in the minute before.
    pub others: f64,
}

impl Machine {
    pub fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let cpu_model = model.map_or("unknown", |(_, name)| name).to_owned();
        Self { cpu_model, cpus: allowed_cpus().len(), arch: std::env::consts::ARCH.into(), clock_ns: Nanos.cost(), others: load_average() }
    }
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|minute| minute.parse().ok()).unwrap_or(0.0)
}

/// The CPUs that this process may run on: one of each core first, then those that share a core with one of them (SMT).
pub fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    let allowed = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu));
    let (mut first, second): (Vec<usize>, Vec<usize>) = allowed.partition(|&cpu| !is_second(cpu));
    first.extend(second);
    first
}

/// Whether a CPU with a lower number is of the same core.
fn is_second(cpu: usize) -> bool {
    let list = std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).unwrap_or_default();
    let lowest = list.split([',', '-', '\n']).next().and_then(|number| number.parse().ok());
    lowest.is_some_and(|lowest: usize| lowest < cpu)
}

/// All that one run of the program measures. Also what a calibration file holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub machine: Machine,
    pub seconds: f64,
    pub repeats: u32,
    pub pinned: bool,
    pub app_apart: bool,
    pub hops: Hops,
    pub points: Vec<Point>,
}

/// Measures everything in turns.
pub fn measure(options: &Options, mut points: Vec<Point>) -> Result<Measured> {
    let machine = Machine::here();
    let mut hops = Hops::default();
    let progress = Progress::new(u64::from(options.repeats) * (points.len() as u64 + 1));
    for turn in 1..=options.repeats {
        progress.next(&format!("turn {turn} of {}: rings and wake-ups", options.repeats));
        hops.measure(&allowed_cpus());
        let mut fused_ns = f64::NAN;
        for point in &mut points {
            progress.next(&format!("turn {turn} of {}: {}", options.repeats, point.title()));
            fused_ns = point.measure(options, fused_ns)?;
        }
    }
    progress.end();
    Ok(Measured {
        machine,
        seconds: options.measure.as_secs_f64(),
        repeats: options.repeats,
        pinned: !options.cpus.is_empty(),
        app_apart: options.app_apart,
        hops,
        points,
    })
}

/// What a person sees meanwhile, on stderr: a bar on a terminal, else a line now and then.
struct Progress {
    bar: ProgressBar,
    start: Instant,
    said: std::cell::Cell<u64>,
}

impl Progress {
    /// Seconds between two lines.
    const EVERY_S: u64 = 5;

    fn new(steps: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("  {elapsed:>4} of about {duration:<5} {wide_bar} {pos:>4}/{len}  {msg}") {
            bar.set_style(style);
        }
        Self { bar, start: Instant::now(), said: std::cell::Cell::new(0) }
    }

    fn next(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        let seconds = self.start.elapsed().as_secs();
        if !std::io::stderr().is_terminal() && (self.bar.position() == 0 || seconds >= self.said.get() + Self::EVERY_S) {
            self.said.set(seconds);
            eprintln!("  {seconds:>4} s  {:>4}/{}  {what}", self.bar.position(), self.bar.length().unwrap_or(0));
        }
        self.bar.inc(1);
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
