//! toe-pipe: the program. What it measures is in the library.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use toe_abi::observe::stage;
use toe_datapath::Placement;
use toe_datapath::pipeline::{CorePlan, StageId};
use toe_pipe::measure::points::Point;
use toe_pipe::measure::{self, Measured, Options};
use toe_pipe::model::search::Objective;
use toe_pipe::model::{CALIBRATION, placement_file};
use toe_pipe::rig::Shape;
use toe_pipe::traffic::{Load, Traffic};
use toe_pipe::{forecast, report};

/// Measures what the stages of the card's data path cost, in memory, and predicts placements
///
/// Runs the stages of the card against peers in memory: no network, no rights, no files. Measured are the cost of each stage and of handing
/// something on from core to core, and the throughput of one connection and of many, fused on one core and pipelined over several threads.
/// All is repeated in turns in one run; what counts are medians, and ratios to the fused card.
///
/// With --model, a simple model is calibrated with these figures, checked against them, and used to find the best placements for other
/// numbers of cores.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "EXAMPLES:\n  toe-pipe\n  toe-pipe --pin --json here.json\n  toe-pipe --model --from here.json --cores 8\n  \
    toe-pipe --threads 4 --placement best.toml"
)]
struct Cli {
    /// Seconds of each measurement, after a fifth of that to warm up
    #[arg(long, default_value_t = 0.2)]
    seconds: f64,
    /// Repetitions of each measurement; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// How many connections "many" are
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(2..=4096))]
    connections: u16,
    /// Bytes of a request and of its answer
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1448))]
    rpc_bytes: u32,
    /// Numbers of threads for the automatic placements, e.g. 1,2,4 [default: up to the CPUs there are, and one number above that]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Vec<u16>,
    /// Measure the placement in this file as well; may be repeated
    #[arg(long, value_name = "FILE")]
    placement: Vec<PathBuf>,
    /// Bind thread number i to the i-th CPU that we may run on, one of each physical core first
    #[arg(long)]
    pin: bool,
    /// Run the application on a thread of its own, not with the ctxq stage: as in life, and it takes one more CPU
    #[arg(long)]
    app_thread: bool,
    /// Write all that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Check the model against what was measured, and print the best placements it finds
    #[arg(long)]
    model: bool,
    /// Measure nothing: take what --json has written, on this machine or elsewhere
    #[arg(long, value_name = "FILE", requires = "model")]
    from: Option<PathBuf>,
    /// Numbers of cores to find placements for
    #[arg(long, value_delimiter = ',', default_values_t = [4, 8, 16], value_parser = clap::value_parser!(u16).range(1..=32))]
    cores: Vec<u16>,
    /// What the placements are to be best for
    #[arg(long, value_enum, default_value_t = Objective::Both)]
    objective: Objective,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toe-pipe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let measured = match &cli.from {
        Some(file) => read(file)?,
        None => take_turns(cli)?,
    };
    println!("{}", report::all(&measured));
    if let Some(file) = &cli.json {
        let text = serde_json::to_string_pretty(&measured)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if cli.model {
        let cores: Vec<usize> = cli.cores.iter().map(|&n| n.into()).collect();
        println!("{}", forecast::all(&measured, &cores, cli.objective));
    }
    Ok(())
}

fn read(file: &PathBuf) -> Result<Measured> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} was not written by --json", file.display()))
}

fn take_turns(cli: &Cli) -> Result<Measured> {
    if !(0.001..=60.0).contains(&cli.seconds) {
        bail!("--seconds {}: from 0.001 to 60", cli.seconds);
    }
    let cpus = measure::allowed_cpus();
    let options = Options {
        measure: Duration::from_secs_f64(cli.seconds),
        repeats: cli.repeats,
        cpus: if cli.pin { cpus.clone() } else { Vec::new() },
        app_apart: cli.app_thread,
    };
    measure::measure(&options, points(cli, &shapes(cli, cpus.len())?))
}

/// The shapes to be measured: the yardstick first, then the one that the model is calibrated on.
fn shapes(cli: &Cli, cpus: usize) -> Result<Vec<(String, Shape)>> {
    let auto = |n: usize| (format!("auto {n}"), Shape::Pipelined(Placement::auto(n)));
    let mut shapes = vec![("fused".to_owned(), Shape::Fused), (CALIBRATION.to_owned(), Shape::Pipelined(Placement::auto(1)))];
    let threads = if cli.threads.is_empty() { default_threads(cpus) } else { cli.threads.iter().map(|&n| n.into()).collect() };
    shapes.extend(threads.iter().filter(|&&n| n > 1).map(|&n| auto(n)));
    if cpus > 1 && cli.threads.is_empty() {
        shapes.push(("in and out".to_owned(), Shape::Pipelined(in_and_out()?)));
    }
    for file in &cli.placement {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        shapes.push((name.into_owned(), Shape::Pipelined(placement_file::read(file)?)));
    }
    Ok(shapes)
}

/// Up to the CPUs there are, closer at the beginning; then one number that is more than there are.
fn default_threads(cpus: usize) -> Vec<usize> {
    let most = cpus.min(toe_datapath::pipeline::placement::CORES_MAX);
    let steps = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48].into_iter().filter(|&n| n < most);
    let over = (most + 2).min(toe_datapath::pipeline::placement::CORES_MAX);
    steps.chain([most]).chain((over > most).then_some(over)).collect()
}

/// Two cores: one for all that comes in up to protocol, one for all that goes out.
fn in_and_out() -> Result<Placement> {
    let plan = |kinds: &[u16]| CorePlan { cpu: None, stages: kinds.iter().map(|&kind| StageId::new(kind, 0)).collect() };
    let inward = plan(&[stage::INGRESS, stage::PRE, stage::PROTOCOL]);
    let outward = plan(&[stage::POST, stage::DMA, stage::EGRESS, stage::CTXQ]);
    Placement::new(vec![inward, outward]).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Every load on every shape; those that are not like life only where stages are measured.
fn points(cli: &Cli, shapes: &[(String, Shape)]) -> Vec<Point> {
    let traffic = |load, connections| Traffic { load, connections, rpc_bytes: cli.rpc_bytes, checked: false };
    let mut points = Vec::new();
    for connections in [1, cli.connections] {
        for load in Load::REAL {
            points.extend(shapes.iter().map(|(name, shape)| Point::new(name, shape, &traffic(load, connections))));
        }
        if connections == 1 {
            for load in [Load::Acks, Load::Descriptors] {
                points.extend(shapes.iter().take(2).map(|(name, shape)| Point::new(name, shape, &traffic(load, 1))));
            }
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn threads_go_up_to_the_cpus_and_once_beyond() {
        assert_eq!(default_threads(1), [1, 3]);
        assert_eq!(default_threads(2), [1, 2, 4]);
        assert_eq!(default_threads(10), [1, 2, 3, 4, 6, 8, 10, 12]);
        assert_eq!(default_threads(128).last(), Some(&64));
    }

    #[test]
    fn the_yardstick_comes_first() {
        let cli = Cli::parse_from(["toe-pipe"]);
        let names: Vec<String> = shapes(&cli, 2).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["fused", CALIBRATION, "auto 2", "auto 4", "in and out"]);
        let points = points(&cli, &shapes(&cli, 2).unwrap());
        assert!(points.chunks_exact(5).take(3).all(|p| p[0].is_fused() && p[1..].iter().all(|p| !p.is_fused())));
    }
}
