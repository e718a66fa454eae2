//! Placement files: which stage runs on which core, and how much room there is between stages.
//!
//! ```toml
//! [sizes]                 # all optional
//! ring = 256              # messages in a ring between two stages
//!
//! [[core]]
//! cpu = 2                 # optional: the CPU to bind the core to
//! stages = ["ingress", "egress", "ctxq"]
//!
//! [[core]]
//! stages = ["pre.0", "protocol.0", "post.0", "dma.0"]
//! ```

use serde::Deserialize;
use std::path::Path;
use toe_datapath::CardConfig;
use toe_datapath::pipeline::{CorePlan, Placement, PlacementError, StageId};

/// Sizes beyond these make no sense on any machine.
const SIZE_MAX: u16 = 16_384;
/// Messages of a group at least: one of each class.
const POOL_MIN: u16 = 5;

/// Why a placement can't be used. All of it is for the operator to put right.
#[derive(Debug, thiserror::Error)]
pub enum PlacementFileError {
    #[error("--placement {path}")]
    Read { path: String, source: std::io::Error },
    #[error("--placement {path}")]
    Parse { path: String, source: Box<toml::de::Error> },
    #[error("--placement {path}")]
    Placement { path: String, source: PlacementError },
    #[error("--placement {path}: sizes.{name} = {value} is not within {least} to {SIZE_MAX}")]
    Size { path: String, name: &'static str, value: u16, least: u16 },
    #[error(
        "core {core} of the placement is to run on CPU {cpu}, which does not exist or is not this process's to use; there are: {allowed}"
    )]
    NoSuchCpu { core: usize, cpu: u32, allowed: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    sizes: Sizes,
    #[serde(default)]
    core: Vec<CoreTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CoreTable {
    cpu: Option<u32>,
    stages: Vec<String>,
}

/// Room between stages; what is not given stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Messages in a ring between two stages.
    ring: Option<u16>,
    /// Received frames of a flow group under way to protocol.
    window: Option<u16>,
    /// Received frames of a flow group that wait for credit.
    hold: Option<u16>,
    /// Messages of a flow group under way from protocol to the port.
    pool: Option<u16>,
    /// Messages whose payload is under way to host memory, for each DMA stage.
    dma: Option<u16>,
}

impl Sizes {
    fn check(&self, path: &str) -> Result<(), PlacementFileError> {
        let all = [
            ("ring", self.ring, 1),
            ("window", self.window, 1),
            ("hold", self.hold, 1),
            ("pool", self.pool, POOL_MIN),
            ("dma", self.dma, 1),
        ];
        for (name, value, least) in all {
            if let Some(value) = value.filter(|v| !(least..=SIZE_MAX).contains(v)) {
                return Err(PlacementFileError::Size { path: path.to_owned(), name, value, least });
            }
        }
        Ok(())
    }

    /// Puts the sizes into a card's configuration.
    pub fn apply(&self, config: &mut CardConfig) {
        config.ring_entries = self.ring.map_or(config.ring_entries, u32::from);
        config.rx_window = self.window.unwrap_or(config.rx_window);
        config.rx_hold = self.hold.unwrap_or(config.rx_hold);
        config.pool_messages = self.pool.unwrap_or(config.pool_messages);
        config.dma_entries = self.dma.unwrap_or(config.dma_entries);
    }
}

/// Reads a placement file.
pub fn read(path: &Path) -> Result<(Placement, Sizes), PlacementFileError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| PlacementFileError::Read { path: shown.clone(), source })?;
    parse(&text, &shown)
}

fn parse(text: &str, path: &str) -> Result<(Placement, Sizes), PlacementFileError> {
    let file: File =
        toml::from_str(text).map_err(|source| PlacementFileError::Parse { path: path.to_owned(), source: Box::new(source) })?;
    file.sizes.check(path)?;
    let refused = |source| PlacementFileError::Placement { path: path.to_owned(), source };
    let plan = |table: &CoreTable| {
        let stages = table.stages.iter().map(|name| StageId::parse(name)).collect::<Result<_, _>>()?;
        Ok(CorePlan { cpu: table.cpu, stages })
    };
    let plans = file.core.iter().map(plan).collect::<Result<_, _>>().map_err(refused)?;
    Ok((Placement::new(plans).map_err(refused)?, file.sizes))
}

/// Checks that the CPUs of a placement are there.
pub fn check_cpus(placement: &Placement) -> Result<(), PlacementFileError> {
    let allowed = allowed_cpus();
    for (core, plan) in placement.cores().iter().enumerate() {
        if let Some(cpu) = plan.cpu.filter(|cpu| !allowed.contains(cpu)) {
            let allowed = allowed.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            return Err(PlacementFileError::NoSuchCpu { core, cpu, allowed });
        }
    }
    Ok(())
}

/// CPUs that this process may use.
pub fn allowed_cpus() -> Vec<u32> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).map(|cpu| cpu as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str =
        "[[core]]\ncpu = 0\nstages = ['ingress', 'egress', 'ctxq']\n[[core]]\nstages = ['pre', 'protocol.0', 'post.0', 'dma']\n";

    fn error(text: &str) -> String {
        format!("{:#}", anyhow::Error::from(parse(text, "p.toml").unwrap_err()))
    }

    #[test]
    fn a_whole_file_is_taken() {
        let (placement, sizes) = parse(&format!("[sizes]\nring = 8\npool = 32\n{WHOLE}"), "p.toml").unwrap();
        assert_eq!(placement.to_string(), "core 0 (cpu 0): ingress egress ctxq; core 1: pre.0 protocol.0 post.0 dma.0");
        let mut config = CardConfig::default();
        sizes.apply(&mut config);
        assert_eq!((config.ring_entries, config.pool_messages, config.rx_window), (8, 32, CardConfig::default().rx_window));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let twice = WHOLE.replace("'dma'", "'dma', 'pre'");
        for (text, words) in [
            ("", "no cores"),
            (&WHOLE.replace("'dma'", "'dmaa'"), "no stage `dmaa`"),
            (&WHOLE.replace(", 'dma'", ""), "stage dma.0 is not placed"),
            (&twice, "pre.0 is placed twice: on core 1 and on core 1"),
            (&format!("[sizes]\nring = 0\n{WHOLE}"), "sizes.ring = 0 is not within 1 to"),
            (&format!("[sizes]\npool = 4\n{WHOLE}"), "sizes.pool = 4 is not within 5 to"),
            (&format!("[sizes]\nbuffers = 4\n{WHOLE}"), "buffers"),
            ("[[core]]\nstages = 7\n", "stages"),
        ] {
            assert!(error(text).contains(words) && error(text).contains("p.toml"), "{}", error(text));
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_is_said() {
        let (placement, _) = parse(&WHOLE.replace("cpu = 0", "cpu = 9999"), "p.toml").unwrap();
        let error = check_cpus(&placement).unwrap_err().to_string();
        assert!(error.contains("core 0") && error.contains("CPU 9999") && error.contains("there are: "), "{error}");
    }
}
