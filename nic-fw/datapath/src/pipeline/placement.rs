//! Which stage runs on which core.
//!
//! ```text
//!   core 0   ingress  egress  ctxq
//!   core 1   pre.0  protocol.0  post.0  dma.0
//!   core 2   pre.1  protocol.1  post.1  dma.1
//! ```
//!
//! Ingress, egress and ctxq are there once; of the others there are as many as are placed, numbered from 0. The number of protocol
//! stages is the number of flow groups.

use alloc::{format, string::String, vec::Vec};
use core::fmt;
use toe_abi::observe::stage;

/// Cores at most: what `toe_sync::crew` has room for.
pub const CORES_MAX: usize = 64;
/// Replicas of a stage at most.
const REPLICAS_MAX: u16 = 64;

/// An instance of a stage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct StageId {
    /// `toe_abi::observe::stage`.
    pub stage: u16,
    pub instance: u16,
}

impl StageId {
    pub const fn new(stage: u16, instance: u16) -> Self {
        Self { stage, instance }
    }

    /// Whether there is one of it only.
    pub const fn is_single(stage: u16) -> bool {
        matches!(stage, stage::INGRESS | stage::EGRESS | stage::CTXQ | stage::FUSED)
    }

    /// Reads `pre.1`, `dma` (instance 0), `ingress`.
    pub fn parse(text: &str) -> Result<Self, PlacementError> {
        let unknown = || PlacementError::UnknownStage(String::from(text));
        let (name, instance) = text.split_once('.').map_or((text, None), |(name, instance)| (name, Some(instance)));
        let kind = (0..stage::COUNT).find(|&s| stage::name(s) == Some(name)).ok_or_else(unknown)?;
        let instance = match instance {
            None => 0,
            Some(digits) => digits.parse().ok().filter(|&i| i < REPLICAS_MAX).ok_or_else(unknown)?,
        };
        if Self::is_single(kind) && instance != 0 {
            return Err(unknown());
        }
        Ok(Self::new(kind, instance))
    }
}

impl fmt::Display for StageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(stage::name(self.stage).unwrap_or("?"))?;
        if Self::is_single(self.stage) { Ok(()) } else { write!(f, ".{}", self.instance) }
    }
}

/// What runs on one core.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CorePlan {
    /// The CPU that it is bound to; `None`: wherever the system likes.
    pub cpu: Option<u32>,
    pub stages: Vec<StageId>,
}

/// Why a placement can't be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlacementError {
    UnknownStage(String),
    /// Placed on these two cores.
    Twice(StageId, usize, usize),
    /// Not placed, though it must be, or though one with a higher number is.
    Missing(StageId),
    NoStages {
        core: usize,
    },
    TooManyCores(usize),
    TooFewCores,
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownStage(name) => write!(
                f,
                "there is no stage `{name}`; there are: ingress, egress, ctxq (one each), and pre.N, protocol.N, post.N, dma.N with N from 0 to {}",
                REPLICAS_MAX - 1
            ),
            Self::Twice(stage, first, second) => write!(f, "stage {stage} is placed twice: on core {first} and on core {second}"),
            Self::Missing(stage) => {
                write!(
                    f,
                    "stage {stage} is not placed on any core; every placement needs ingress, egress, ctxq, and each of pre, protocol, post and dma numbered from 0 without gaps"
                )
            }
            Self::NoStages { core } => write!(f, "core {core} has no stages: leave it out, or give it some"),
            Self::TooManyCores(n) => write!(f, "{n} cores; there can be {CORES_MAX} at most"),
            Self::TooFewCores => f.write_str("no cores"),
        }
    }
}

impl core::error::Error for PlacementError {}

/// A checked placement: each stage is there once, replicas are numbered without gaps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    cores: Vec<CorePlan>,
}

impl Placement {
    pub fn new(cores: Vec<CorePlan>) -> Result<Self, PlacementError> {
        match cores.len() {
            0 => return Err(PlacementError::TooFewCores),
            n if n > CORES_MAX => return Err(PlacementError::TooManyCores(n)),
            _ => {}
        }
        if let Some(core) = cores.iter().position(|c| c.stages.is_empty()) {
            return Err(PlacementError::NoStages { core });
        }
        let placement = Self { cores };
        placement.each_once()?;
        for kind in 0..stage::COUNT {
            let count = placement.count(kind).max(1);
            let missing = (0..count).map(|i| StageId::new(kind, i)).find(|&id| placement.core_of(id).is_none());
            if let Some(missing) = missing {
                return Err(PlacementError::Missing(missing));
            }
        }
        Ok(placement)
    }

    fn each_once(&self) -> Result<(), PlacementError> {
        let mut seen: Vec<(StageId, usize)> = Vec::new();
        for (core, plan) in self.cores.iter().enumerate() {
            for &id in &plan.stages {
                match seen.iter().find(|(other, _)| *other == id) {
                    Some(&(_, first)) => return Err(PlacementError::Twice(id, first, core)),
                    None => seen.push((id, core)),
                }
            }
        }
        Ok(())
    }

    /// A placement for so many cores: what touches the outside on the first, the rest in columns of one flow group each.
    pub fn auto(cores: usize) -> Self {
        let single = [stage::INGRESS, stage::EGRESS, stage::CTXQ].map(|s| StageId::new(s, 0));
        let column = |i: u16| [stage::PRE, stage::PROTOCOL, stage::POST, stage::DMA].map(|s| StageId::new(s, i));
        let plan = |stages: Vec<StageId>| CorePlan { cpu: None, stages };
        let cores = cores.clamp(1, CORES_MAX);
        let plans = match cores {
            1 => alloc::vec![plan([&single[..], &column(0)].concat())],
            2..=5 => {
                let columns = (0..cores as u16 - 1).map(|i| plan(column(i).to_vec()));
                core::iter::once(plan(single.to_vec())).chain(columns).collect()
            }
            _ => {
                let singles = single.iter().map(|&s| plan(alloc::vec![s]));
                let columns = (0..cores as u16 - 3).map(|i| plan(column(i).to_vec()));
                singles.chain(columns).collect()
            }
        };
        Self { cores: plans }
    }

    /// Each stage on a core of its own: `pre`, `groups`, `post` and `dma` of the replicated ones.
    pub fn spread(pre: u16, groups: u16, post: u16, dma: u16) -> Self {
        let one = |s| core::iter::once(StageId::new(s, 0));
        let some = |s, n: u16| (0..n.clamp(1, REPLICAS_MAX)).map(move |i| StageId::new(s, i));
        let stages = one(stage::INGRESS)
            .chain(some(stage::PRE, pre))
            .chain(some(stage::PROTOCOL, groups))
            .chain(some(stage::POST, post))
            .chain(some(stage::DMA, dma))
            .chain(one(stage::EGRESS))
            .chain(one(stage::CTXQ));
        let cores = stages.map(|id| CorePlan { cpu: None, stages: alloc::vec![id] }).collect();
        Self { cores }
    }

    /// Binds cores to CPUs, in order; those without one stay as they are.
    pub fn bind(&mut self, cpus: &[u32]) {
        for (core, &cpu) in self.cores.iter_mut().zip(cpus) {
            core.cpu = Some(cpu);
        }
    }

    pub fn cores(&self) -> &[CorePlan] {
        &self.cores
    }

    /// How many instances of a stage there are, gaps included.
    pub fn count(&self, kind: u16) -> u16 {
        let instances = self.cores.iter().flat_map(|c| &c.stages).filter(|id| id.stage == kind);
        instances.map(|id| id.instance + 1).max().unwrap_or(0)
    }

    /// The core that a stage runs on.
    pub fn core_of(&self, id: StageId) -> Option<usize> {
        self.cores.iter().position(|c| c.stages.contains(&id))
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, core) in self.cores.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            let cpu = core.cpu.map_or(String::new(), |cpu| format!(" (cpu {cpu})"));
            write!(f, "{separator}core {i}{cpu}:")?;
            core.stages.iter().try_for_each(|stage| write!(f, " {stage}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn plans(cores: &[&str]) -> Result<Placement, PlacementError> {
        let stages = |text: &str| text.split_whitespace().map(StageId::parse).collect::<Result<Vec<_>, _>>();
        let plan = |text: &&str| stages(text).map(|stages| CorePlan { cpu: None, stages });
        Placement::new(cores.iter().map(plan).collect::<Result<_, _>>()?)
    }

    #[test]
    fn a_whole_placement_is_taken() {
        let p = plans(&["ingress egress ctxq", "pre protocol post dma", "pre.1 dma.1"]).unwrap();
        assert_eq!((p.count(stage::PRE), p.count(stage::PROTOCOL), p.core_of(StageId::new(stage::DMA, 1))), (2, 1, Some(2)));
        assert_eq!(p.to_string(), "core 0: ingress egress ctxq; core 1: pre.0 protocol.0 post.0 dma.0; core 2: pre.1 dma.1");
    }

    #[test]
    fn a_stage_twice_or_not_at_all_is_refused() {
        let twice = plans(&["ingress egress ctxq pre protocol post dma", "pre.0"]).unwrap_err();
        assert_eq!(twice, PlacementError::Twice(StageId::new(stage::PRE, 0), 0, 1));
        let missing = plans(&["ingress egress ctxq pre protocol post"]).unwrap_err();
        assert_eq!(missing, PlacementError::Missing(StageId::new(stage::DMA, 0)));
        let gap = plans(&["ingress egress ctxq pre pre.2 protocol post dma"]).unwrap_err();
        assert_eq!(gap, PlacementError::Missing(StageId::new(stage::PRE, 1)));
        assert_eq!(plans(&["ingress egress ctxq pre protocol post dma", ""]).unwrap_err(), PlacementError::NoStages { core: 1 });
        assert_eq!(plans(&[]).unwrap_err(), PlacementError::TooFewCores);
        for bad in ["foo", "pre.x", "pre.64", "ingress.1", "pre.-1", ""] {
            assert!(StageId::parse(bad).unwrap_err().to_string().contains("there is no stage"), "{bad}");
        }
    }

    #[test]
    fn made_placements_are_whole() {
        for cores in 1..=CORES_MAX {
            let p = Placement::auto(cores);
            assert_eq!((p.cores().len(), Placement::new(p.cores().to_vec()).as_ref()), (cores, Ok(&p)));
        }
        let p = Placement::spread(2, 3, 4, 5);
        assert_eq!(Placement::new(p.cores().to_vec()), Ok(p.clone()));
        assert_eq!([stage::PRE, stage::PROTOCOL, stage::POST, stage::DMA].map(|s| p.count(s)), [2, 3, 4, 5]);
    }
}
