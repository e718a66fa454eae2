//! Command line of `toe-nic`.

use crate::disturb::Disturb;
use crate::pci;
use crate::placement::{self, PlacementFileError, Sizes};
use crate::ports::{DRIVERS, Impairments, PortSpec};
use clap::Parser;
use std::path::PathBuf;
use toe_datapath::{CardConfig, Placement};
use tracing::level_filters::LevelFilter;

/// The FerroTOE card as a Linux process.
///
/// Runs the TCP data path of established connections on a network interface, and serves toed as a PCI device over
/// vfio-user. It is ready when its socket appears. SIGTERM or SIGINT end it and leave nothing behind.
#[derive(Clone, Debug, Parser)]
#[command(name = "toe-nic", version, after_help = after_help())]
pub struct Args {
    /// UNIX socket to serve toed on (vfio-user). Appears when the card is ready.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,

    /// Port to the network: driver, interface and the driver's options.
    #[arg(long, value_name = "DRIVER:IFNAME[,OPTION=VALUE...]")]
    pub port: PortSpec,

    /// CPUs to run on, like 2 or 0,2-3: one for each core of the placement, in order. Default: wherever the kernel likes.
    #[arg(long, value_name = "LIST", value_parser = cores)]
    pub cores: Option<Cores>,

    /// How the stages are placed on cores. `fused`: all of them on one core, best for few CPUs. `auto`: a pipeline over as many
    /// cores as there are CPUs (or in --cores). Otherwise a file that says which stage runs on which core.
    #[arg(long, value_name = "fused|auto|FILE", default_value = "fused")]
    pub placement: PlacementArg,

    /// Time to spin without work before going to sleep, microseconds. Default: 30, or 0 on a machine with one CPU.
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub spin_us: Option<u64>,

    /// Connections at one time.
    #[arg(long, value_name = "N", default_value_t = CardConfig::default().max_flows, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_flows: u32,

    /// Neighbours on the link, hosts and routers, that connections may use at one time. The last 8 (of a table below 32: a quarter) are for routers.
    #[arg(long, value_name = "N", default_value_t = CardConfig::default().max_next_hops, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_next_hops: u16,

    /// Pairs of queues to host threads at one time, the daemon's included.
    #[arg(long, value_name = "N", default_value_t = CardConfig::default().max_contexts, value_parser = clap::value_parser!(u16).range(2..=i64::from(pci::MSIX_MAX)))]
    pub max_contexts: u16,

    /// Applications (memory regions) at one time, the daemon's included.
    #[arg(long, value_name = "N", default_value_t = CardConfig::default().max_regions, value_parser = clap::value_parser!(u16).range(2..=4096))]
    pub max_regions: u16,

    /// Frames in the port's receive ring (68 KiB each). The same as the port's option rx_frames, whose default is the port's.
    #[arg(long, value_name = "FRAMES", value_parser = clap::value_parser!(u32).range(16..=16384))]
    pub rx_ring_frames: Option<u32>,

    /// Spoil frames on purpose, for tests: loss=P, dup=P, reorder=P (late by up to depth=N frames, 4), delay=P (late by
    /// delay_by=N frames, 32), ce=P (frames that the card sends are marked as congested, RFC 3168), seed=N (1), dir=rx|tx|both. P is a probability per frame from 0 to 1.
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub impair: Option<Impairments>,

    /// Disturb the cores on purpose, for tests: seed=N (1), delay=N (one step in N is delayed, 64; 0: none), delay_us=N (by at most
    /// that, 200), die=STAGE with after=N (that stage panics before its N-th step).
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub disturb: Option<Disturb>,

    /// What to log on standard error: off, error, warn, info, debug, trace, or a filter like toe_nic=debug,warn.
    #[arg(long, value_name = "LEVEL", default_value = "info,vfio_user=warn", value_parser = log_filter)]
    pub log_level: String,
}

/// A word that is no level would be taken for a module of that name, and all else would be silent.
fn log_filter(text: &str) -> Result<String, &'static str> {
    let is_filter = text.contains(['=', ',']) || text.parse::<LevelFilter>().is_ok();
    if is_filter { Ok(text.to_owned()) } else { Err("not off, error, warn, info, debug, trace or a filter") }
}

/// CPUs in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

/// How the stages are placed on cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlacementArg {
    Fused,
    Auto,
    File(PathBuf),
}

impl From<&str> for PlacementArg {
    fn from(text: &str) -> Self {
        match text {
            "fused" => Self::Fused,
            "auto" => Self::Auto,
            file => Self::File(file.into()),
        }
    }
}

/// Largest number of a CPU that the kernel's sets have room for.
const CPU_MAX: usize = rustix::thread::CpuSet::MAX_CPU - 1;

fn cores(text: &str) -> Result<Cores, String> {
    let bad = || format!("`{text}` is not a list of CPUs like 2 or 0,2-3 (at most {CPU_MAX})");
    let number = |t: &str| t.parse::<usize>().ok().filter(|n| *n <= CPU_MAX).ok_or_else(bad);
    let mut out = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(bad());
        }
        out.extend(first..=last);
    }
    Ok(Cores(out))
}

fn after_help() -> String {
    let mut text = "Ports:\n".to_owned();
    for driver in DRIVERS {
        text += &format!("  {}:IFNAME\n", driver.name);
        for (name, help) in driver.options {
            text += &format!("      {name}: {help}\n");
        }
    }
    text + "\nExit codes: 0 ended by a signal, 1 failure, 2 wrong usage, missing rights or interface."
}

impl Args {
    /// The placement, bound to CPUs, and the sizes that came with it; `None`: fused.
    pub fn placement(&self) -> Result<Option<(Placement, Sizes)>, PlacementFileError> {
        let (mut placement, sizes) = match &self.placement {
            PlacementArg::Fused => return Ok(None),
            PlacementArg::Auto => {
                let cpus = self.cores.as_ref().map_or_else(|| placement::allowed_cpus().len(), |c| c.0.len());
                (Placement::auto(cpus), Sizes::default())
            }
            PlacementArg::File(path) => placement::read(path)?,
        };
        if let Some(Cores(cpus)) = &self.cores {
            placement.bind(&cpus.iter().map(|&cpu| cpu as u32).collect::<Vec<_>>());
        }
        placement::check_cpus(&placement)?;
        Ok(Some((placement, sizes)))
    }

    /// Sizes and times of the card, without its secret.
    pub fn card_config(&self) -> CardConfig {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let spin_us = self.spin_us.unwrap_or(if cpus > 1 { 30 } else { 0 });
        CardConfig {
            max_flows: self.max_flows,
            max_next_hops: self.max_next_hops,
            max_contexts: self.max_contexts,
            max_regions: self.max_regions,
            spin_us,
            ..CardConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["toe-nic", "--socket", "/run/x", "--port", "af_packet:veth0"], args].concat())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        let help = Args::command().render_long_help().to_string();
        assert!(help.contains("af_packet:IFNAME") && help.contains("microseconds"), "{help}");
    }

    #[test]
    fn defaults() {
        let args = parse(&[]).unwrap();
        assert_eq!((args.placement, args.impair, args.cores), (PlacementArg::Fused, None, None));
    }

    #[test]
    fn levels_and_filters() {
        for good in ["off", "debug", "toe_nic=debug,warn", "toe_nic=trace"] {
            assert_eq!(parse(&["--log-level", good]).unwrap().log_level, good);
        }
        let error = parse(&["--log-level", "warning"]).unwrap_err().to_string();
        assert!(error.contains("not off, error, warn"), "{error}");
    }

    #[test]
    fn sizes() {
        let args = parse(&["--max-flows", "9", "--max-next-hops", "65535", "--max-contexts", "8", "--max-regions", "7"]).unwrap();
        let c = args.card_config();
        assert_eq!((c.max_flows, c.max_next_hops, c.max_contexts, c.max_regions), (9, 65_535, 8, 7));
        assert_eq!(parse(&[]).unwrap().card_config().max_next_hops, 4096);
        for bad in ["0", "65536", "-1"] {
            assert!(parse(&["--max-next-hops", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn core_lists() {
        assert_eq!(cores("2"), Ok(Cores(vec![2])));
        assert_eq!(cores("3,0-2"), Ok(Cores(vec![3, 0, 1, 2])));
        for bad in ["", "a", "2-1", "1,", "99999", "-1"] {
            assert!(cores(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn placements() {
        let placement = |args: &[&str]| parse(args).unwrap().placement();
        assert!(placement(&[]).unwrap().is_none());
        let (auto, _) = placement(&["--placement", "auto", "--cores", "0"]).unwrap().unwrap();
        assert_eq!((auto.cores().len(), auto.cores()[0].cpu), (1, Some(0)));
        let error = placement(&["--placement", "/nowhere/map.toml"]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/map.toml"), "{error}");
    }

    #[test]
    fn an_unknown_driver_is_wrong_usage() {
        let error = Args::try_parse_from(["toe-nic", "--socket", "/x", "--port", "dpdk:eth0"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("af_packet, tap"), "{error}");
    }

    #[test]
    fn impairments_and_spin() {
        let args = parse(&["--impair", "loss=0.01,seed=5", "--spin-us", "0"]).unwrap();
        assert_eq!(args.impair.as_ref().map(|i| (i.loss, i.seed)), Some((0.01, 5)));
        assert_eq!(args.card_config().spin_us, 0);
        assert!(parse(&["--impair", "loss=7"]).is_err());
    }
}
