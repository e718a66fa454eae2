//! A placement as the model reckons with it: the core of each instance.

use toe_abi::observe::stage;
use toe_datapath::pipeline::{CorePlan, StageId};
use toe_datapath::{Placement, pipeline::PlacementError};

use crate::measure::points::STAGES;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Layout {
    /// By kind of stage, the core of each instance.
    core_of: [Vec<usize>; STAGES],
    cores: usize,
}

impl Layout {
    /// So many instances of each kind, all on the first of so many cores.
    pub fn new(counts: [u16; STAGES], cores: usize) -> Self {
        Self { core_of: counts.map(|count| vec![0; usize::from(count)]), cores }
    }

    pub fn of(placement: &Placement) -> Self {
        let core_of = |kind: usize| {
            let kind = kind as u16;
            // A placement has been checked: every instance has a core.
            (0..placement.count(kind)).map(|i| placement.core_of(StageId::new(kind, i)).unwrap_or(0)).collect()
        };
        Self { core_of: std::array::from_fn(core_of), cores: placement.cores().len() }
    }

    /// The same with more cores, which have nothing to do yet.
    pub fn widened(mut self, cores: usize) -> Self {
        self.cores = self.cores.max(cores);
        self
    }

    /// All of one core moved to another; `None`: there is nothing on it, or on the other.
    pub fn merged(&self, from: usize, to: usize) -> Option<Self> {
        let is_busy = |core: usize| self.core_of.iter().flatten().any(|&at| at == core);
        if !is_busy(from) || !is_busy(to) {
            return None;
        }
        let mut merged = self.clone();
        merged.core_of.iter_mut().flatten().filter(|at| **at == from).for_each(|at| *at = to);
        Some(merged)
    }

    /// Without the last instance of a kind; `None`: it is the only one.
    pub fn without_last(&self, kind: u16) -> Option<Self> {
        let mut fewer = self.clone();
        let cores = &mut fewer.core_of[usize::from(kind)];
        cores.pop();
        (!cores.is_empty()).then_some(fewer)
    }

    /// Cores that have something to do.
    pub fn busy_cores(&self) -> usize {
        (0..self.cores).filter(|core| self.core_of.iter().flatten().any(|at| at == core)).count()
    }

    /// Cores that have nothing to do are left out.
    pub fn placement(&self) -> Result<Placement, PlacementError> {
        let stages_of = |core: usize| {
            let all = (0..stage::COUNT).flat_map(|kind| self.instances(kind).map(move |(i, at)| (StageId::new(kind, i), at)));
            all.filter(|&(_, at)| at == core).map(|(id, _)| id).collect::<Vec<_>>()
        };
        let plans = (0..self.cores).map(|core| CorePlan { cpu: None, stages: stages_of(core) });
        Placement::new(plans.filter(|plan| !plan.stages.is_empty()).collect())
    }

    pub fn cores(&self) -> usize {
        self.cores
    }

    /// Instances of a kind, and their cores.
    pub fn instances(&self, kind: u16) -> impl Iterator<Item = (u16, usize)> + '_ {
        (0..).zip(self.core_of[usize::from(kind)].iter().copied())
    }

    /// All instances, as kind and number.
    pub fn all(&self) -> Vec<(u16, u16)> {
        (0..stage::COUNT).flat_map(|kind| self.instances(kind).map(move |(i, _)| (kind, i))).collect()
    }

    pub fn core(&self, (kind, instance): (u16, u16)) -> usize {
        self.core_of[usize::from(kind)][usize::from(instance)]
    }

    pub fn put(&mut self, (kind, instance): (u16, u16), core: usize) {
        self.core_of[usize::from(kind)][usize::from(instance)] = core;
    }

    /// The part of what there is for a kind of stage that an instance gets.
    pub fn share(&self, kind: u16, instance: u16, connections: u16) -> f64 {
        let count = self.core_of[usize::from(kind)].len() as u16;
        match kind {
            // Connections come to the groups by turns.
            stage::PROTOCOL => f64::from((connections + count - 1 - instance) / count) / f64::from(connections),
            _ => 1.0 / f64::from(count),
        }
    }

    /// What crosses from one core to another on the links between two kinds: for each core and side, which part of all.
    pub fn between(&self, from: u16, to: u16, connections: u16, mut pays: impl FnMut(usize, f64)) {
        let on_core = |kind: u16, core: usize| {
            let here = self.instances(kind).filter(|&(_, at)| at == core);
            here.map(|(i, _)| self.share(kind, i, connections)).sum::<f64>()
        };
        for (a, b) in [(from, to), (to, from)] {
            for (i, core) in self.instances(a) {
                pays(core, self.share(a, i, connections) * (1.0 - on_core(b, core)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_go_there_and_back() {
        for placement in [Placement::auto(1), Placement::auto(9), Placement::spread(2, 3, 1, 2)] {
            let again = Layout::of(&Layout::of(&placement).placement().unwrap());
            assert_eq!(again, Layout::of(&placement));
        }
    }

    #[test]
    fn idle_cores_are_left_out() {
        let mut layout = Layout::new([1; STAGES], 4);
        layout.put((stage::POST, 0), 2);
        assert_eq!(layout.placement().unwrap().to_string(), "core 0: ingress pre.0 protocol.0 dma.0 egress ctxq; core 1: post.0");
    }

    #[test]
    fn shares_add_up() {
        for count in 1..9 {
            let layout = Layout::new([count; STAGES], 1);
            for connections in [1, 2, 7, 64] {
                for kind in [stage::PRE, stage::PROTOCOL] {
                    let sum: f64 = (0..count).map(|i| layout.share(kind, i, connections)).sum();
                    assert!((sum - 1.0).abs() < 1e-9, "{count} of {kind}, {connections} connections");
                }
            }
        }
    }
}
