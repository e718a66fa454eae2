//! Points: a load on a card of some shape, for a while.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use toe_abi::counters::{Counter, Drop};
use toe_abi::observe::{StageRecord, stage};
use toe_datapath::{CounterSums, Placement};

use super::Options;
use crate::model::placement_file;
use crate::rig::{Rig, Shape};
use crate::stats::Figures;
use crate::threads::{self, Running};
use crate::traffic::{Load, Traffic, connections_text};

/// Kinds of stages.
pub const STAGES: usize = stage::COUNT as usize;

/// A load on a card of some shape, and what was measured of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// What the shape is called.
    pub shape: String,
    /// Stages of each core; none: the fused card.
    #[serde(with = "placement_file::as_names")]
    pub placement: Option<Placement>,
    pub load: Load,
    pub connections: u16,
    pub rpc_bytes: u32,
    /// Nanoseconds from one unit to the next.
    pub ns: Figures,
    /// How much faster than the fused card in the same turn.
    pub speed_up: Figures,
    pub costs: Costs,
}

/// What a unit of the load costs where, over a whole run: nanoseconds, and numbers of things.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Costs {
    /// By kind of stage, all instances together, the load's share included. None of the fused card.
    pub stage_ns: [Figures; STAGES],
    /// What stages handled: frames, messages, descriptors and events.
    pub stage_items: [Figures; STAGES],
    /// The peers: of ingress, and of egress.
    pub rx_load_ns: Figures,
    pub tx_load_ns: Figures,
    pub app_ns: Figures,
    pub frames_in: Figures,
    pub events: Figures,
    pub descriptors: Figures,
}

impl Costs {
    fn push(&mut self, rig: &Rig, before: &[StageRecord], after: &[StageRecord], units: f64) {
        let sums = |records: &[StageRecord], kind: usize, word: fn(&StageRecord) -> u64| {
            records.iter().filter(|r| usize::from(r.stage) == kind).map(word).sum::<u64>() as f64
        };
        if !after.is_empty() {
            for kind in 0..STAGES {
                let per_unit = |word: fn(&StageRecord) -> u64| (sums(after, kind, word) - sums(before, kind, word)) / units;
                self.stage_ns[kind].push(per_unit(|r| r.busy_ns));
                self.stage_items[kind].push(per_unit(|r| r.items));
            }
        }
        self.rx_load_ns.push(rig.wire.rx_cost.total_ns() / units);
        self.tx_load_ns.push(rig.wire.tx_cost.total_ns() / units);
        self.app_ns.push(rig.app.cost.total_ns() / units);
        let counted = |counter| rig.sums.get(counter) as f64 / units;
        self.frames_in.push(counted(Counter::RxFrames));
        self.events.push(counted(Counter::Events));
        self.descriptors.push(counted(Counter::HcDescriptors));
    }

    /// The peers and the application.
    pub fn load_ns(&self) -> f64 {
        self.rx_load_ns.median() + self.tx_load_ns.median() + self.app_ns.median()
    }

    /// All stages, the peers included.
    pub fn stages_ns(&self) -> f64 {
        self.stage_ns.iter().map(Figures::median).sum()
    }
}

impl Point {
    /// Nothing measured yet.
    pub fn new(name: &str, shape: &Shape, traffic: &Traffic) -> Self {
        let placement = match shape {
            Shape::Fused => None,
            Shape::Pipelined(placement) => Some(placement.clone()),
        };
        Self {
            shape: name.into(),
            placement,
            load: traffic.load,
            connections: traffic.connections,
            rpc_bytes: traffic.rpc_bytes,
            ns: Figures::default(),
            speed_up: Figures::default(),
            costs: Costs::default(),
        }
    }

    pub fn title(&self) -> String {
        format!("{}, {}, {}", self.load, connections_text(self.connections), self.shape)
    }

    pub fn threads(&self) -> usize {
        self.placement.as_ref().map_or(1, |placement| placement.cores().len())
    }

    pub fn is_fused(&self) -> bool {
        self.placement.is_none()
    }

    pub fn traffic(&self) -> Traffic {
        Traffic { load: self.load, connections: self.connections, rpc_bytes: self.rpc_bytes, checked: false }
    }

    /// One repetition. `fused_ns`: what the fused card took in this turn. Returns the same for the points that follow.
    pub fn measure(&mut self, options: &Options, fused_ns: f64) -> Result<f64> {
        let ns = self.measure_once(options).with_context(|| self.title())?;
        let fused_ns = if self.is_fused() { ns } else { fused_ns };
        self.ns.push(ns);
        self.speed_up.push(fused_ns / ns);
        Ok(fused_ns)
    }

    fn measure_once(&mut self, options: &Options) -> Result<f64> {
        let shape = self.placement.clone().map_or(Shape::Fused, Shape::Pipelined);
        let mut rig = Rig::new(&shape, self.traffic())?;
        let running =
            Running { warm_up: options.measure / 5, measure: options.measure, cpus: options.cpus.clone(), app_apart: options.app_apart };
        let (sums, traffic) = (rig.sums.clone(), rig.traffic);
        let (begin, end) = threads::run(&mut rig, &running, || units(&sums, &traffic))?;
        let after = rig.stages()?;
        check(&rig)?;
        let done = end.units.saturating_sub(begin.units);
        if done == 0 {
            bail!("nothing moves; counters: {:?}", rig.sums.nonzero().collect::<Vec<_>>());
        }
        let before = std::mem::take(&mut rig.before);
        self.costs.push(&rig, &before, &after, units(&rig.sums, &rig.traffic) as f64);
        Ok((end.ns - begin.ns) as f64 / done as f64)
    }
}

/// Units of the load that the card has carried.
fn units(sums: &CounterSums, traffic: &Traffic) -> u64 {
    let bytes = u64::from(traffic.unit_bytes().max(1));
    match traffic.load {
        Load::Receive => sums.get(Counter::RxPayloadBytes) / bytes,
        Load::Send | Load::Rpc => sums.get(Counter::TxPayloadBytes) / bytes,
        Load::Acks => sums.get(Counter::RxDelivered),
        Load::Descriptors => sums.get(Counter::HcDescriptors),
    }
}

/// What was carried was carried rightly.
fn check(rig: &Rig) -> Result<()> {
    let dropped: u64 = Drop::ALL.iter().map(|&reason| rig.sums.drops(reason)).sum();
    ensure!(dropped == 0 && rig.wire.bad() == 0, "{dropped} frames dropped, {} wrong", rig.wire.bad());
    Ok(())
}
