//! The model: from what stages and hops cost on one core, how fast any placement would be.
//!
//! ```text
//!   core i:  ns per unit = rest × Σ stages on i (cost of the stage's visits per unit × share of the instance)  +  Σ hops of i
//!   card:    ns per unit = the most of any core
//!
//!   share    1 / replicas of pre, post, dma;  of a protocol stage: the part of the connections that are of its group
//!   hops     visits per unit × extra, for both sides of each link whose ends are on different cores
//!   rest     what a round on one core takes more than its stages say: measured once, on the placement with all on one core
//! ```
//!
//! It knows nothing of caches that are shared or too small, of memory bandwidth, of two threads on one core (SMT), of clock rates that change with
//! the load, of batches that get smaller when a stage is not busy, and of loads that wait for answers: it forecasts what cores can do, and not
//! whether enough is outstanding to keep them at it. What it says of a machine with more cores than it was calibrated on is a forecast.

pub mod layout;
pub mod placement_file;
pub mod search;

use toe_abi::observe::stage;
use toe_datapath::Placement;

use crate::measure::Measured;
use crate::measure::hops::Hops;
use crate::measure::points::{Point, STAGES};
use crate::traffic::Load;
use layout::Layout;

/// Name of the placement that everything is calibrated on.
pub const CALIBRATION: &str = "auto 1";

/// What goes over a link.
#[derive(Clone, Copy, Debug)]
enum Cargo {
    Word,
    Record,
    Message,
}

/// Extra cost of each [`Cargo`] on each side of a link between two cores, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras([f64; 3]);

impl Extras {
    pub const fn new(word: f64, record: f64, message: f64) -> Self {
        Self([word, record, message])
    }

    fn of(hops: &Hops) -> Self {
        Self::new(hops.word.extra(), hops.record.extra(), hops.message.extra())
    }
}

/// A load as the model has it: costs and visits per unit.
#[derive(Clone, Debug)]
pub struct Mix {
    pub load: Load,
    pub connections: u16,
    pub unit_bytes: u32,
    /// By kind of stage, nanoseconds, the rest in it.
    pub stage_ns: [f64; STAGES],
    pub app_ns: f64,
    /// The fused card, the application in it.
    pub fused_ns: f64,
    pub frames: f64,
    pub posts: f64,
    pub writes: f64,
    pub messages: f64,
    pub events: f64,
    pub descriptors: f64,
}

impl Mix {
    /// From the fused card and the calibrating placement under the same load.
    fn of(fused: &Point, calibration: &Point, app_apart: bool) -> Self {
        let costs = &calibration.costs;
        let app_ns = costs.app_ns.median();
        let here = if app_apart { 0.0 } else { app_ns };
        let rest = ((calibration.ns.median() - here) / costs.stages_ns()).max(0.0);
        let items = |kind: u16| costs.stage_items[usize::from(kind)].median();
        Self {
            load: fused.load,
            connections: fused.connections,
            unit_bytes: fused.traffic().unit_bytes(),
            stage_ns: std::array::from_fn(|kind| costs.stage_ns[kind].median() * rest),
            app_ns,
            fused_ns: if app_apart { fused.ns.median() + app_ns } else { fused.ns.median() },
            frames: costs.frames_in.median(),
            posts: items(stage::POST),
            writes: items(stage::DMA),
            messages: items(stage::EGRESS),
            events: costs.events.median(),
            descriptors: costs.descriptors.median(),
        }
    }

    /// The fused card without the application.
    pub fn fused_alone_ns(&self) -> f64 {
        self.fused_ns - self.app_ns
    }

    /// From which kind of stage to which, how often per unit, and what.
    fn links(&self) -> [(u16, u16, f64, Cargo); 11] {
        let straight = (self.messages - self.posts - self.writes).max(0.0);
        [
            (stage::INGRESS, stage::PRE, self.frames, Cargo::Record),
            (stage::PRE, stage::PROTOCOL, self.frames, Cargo::Record),
            (stage::CTXQ, stage::PROTOCOL, self.descriptors, Cargo::Record),
            (stage::PROTOCOL, stage::POST, self.posts, Cargo::Message),
            (stage::PROTOCOL, stage::DMA, self.writes, Cargo::Message),
            (stage::PROTOCOL, stage::EGRESS, straight, Cargo::Message),
            (stage::POST, stage::EGRESS, self.posts, Cargo::Message),
            (stage::DMA, stage::EGRESS, self.writes, Cargo::Message),
            (stage::EGRESS, stage::PROTOCOL, self.messages, Cargo::Message),
            (stage::EGRESS, stage::INGRESS, self.frames, Cargo::Word),
            (stage::EGRESS, stage::CTXQ, self.events, Cargo::Record),
        ]
    }
}

/// Where the application runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppPlace {
    /// On the core of the ctxq stage.
    Ctxq,
    /// On CPUs that are not the card's.
    Apart,
}

/// What the model says of a placement under a load.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Prediction {
    /// Nanoseconds from one unit to the next.
    pub ns: f64,
    /// The core that can't do more.
    pub core: usize,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub mixes: Vec<Mix>,
    pub extras: Extras,
}

impl Model {
    /// From a calibration: the loads that were measured on the fused card and on the calibrating placement.
    pub fn of(measured: &Measured) -> Self {
        let fused = measured.points.iter().filter(|p| p.is_fused() && Load::REAL.contains(&p.load));
        let same = |a: &Point, b: &Point| (a.load, a.connections) == (b.load, b.connections);
        let mix = |fused: &Point| {
            let calibration = measured.points.iter().find(|p| p.shape == CALIBRATION && same(p, fused))?;
            Some(Mix::of(fused, calibration, measured.app_apart))
        };
        Self { mixes: fused.filter_map(mix).collect(), extras: Extras::of(&measured.hops) }
    }

    /// The load of a point, if it was calibrated.
    pub fn mix(&self, point: &Point) -> Option<&Mix> {
        self.mixes.iter().find(|mix| (mix.load, mix.connections) == (point.load, point.connections))
    }

    pub fn predict(&self, placement: &Placement, mix: &Mix, app: AppPlace) -> Prediction {
        self.predict_layout(&Layout::of(placement), mix, app, &mut Vec::new())
    }

    /// `ns`: a scratch pad.
    pub fn predict_layout(&self, layout: &Layout, mix: &Mix, app: AppPlace, ns: &mut Vec<f64>) -> Prediction {
        ns.clear();
        ns.resize(layout.cores(), 0.0);
        for kind in 0..stage::COUNT {
            for (instance, core) in layout.instances(kind) {
                ns[core] += mix.stage_ns[usize::from(kind)] * layout.share(kind, instance, mix.connections);
            }
        }
        let ctxq = layout.instances(stage::CTXQ).next().map_or(0, |(_, core)| core);
        if app == AppPlace::Ctxq {
            ns[ctxq] += mix.app_ns;
        }
        for (from, to, visits, cargo) in mix.links() {
            let each = visits * self.extras.0[cargo as usize];
            if each > 0.0 {
                layout.between(from, to, mix.connections, |core, part| ns[core] += each * part);
            }
        }
        let most = ns.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        let (core, ns) = most.unwrap_or((0, f64::NAN));
        Prediction { ns: if app == AppPlace::Apart { ns.max(mix.app_ns) } else { ns }, core }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Every stage costs 10 ns a unit, but for `dear`, which costs 100; each kind of thing comes once.
    pub fn mix(dear: u16, connections: u16) -> Mix {
        let mut stage_ns = [10.0; STAGES];
        stage_ns[usize::from(dear)] = 100.0;
        Mix {
            load: Load::Receive,
            connections,
            unit_bytes: 1448,
            stage_ns,
            app_ns: 5.0,
            fused_ns: 165.0,
            frames: 1.0,
            posts: 1.0,
            writes: 1.0,
            messages: 2.0,
            events: 1.0,
            descriptors: 1.0,
        }
    }

    pub fn model(mixes: Vec<Mix>, extra: f64) -> Model {
        Model { mixes, extras: Extras::new(extra, extra, extra) }
    }

    fn ns(placement: &Placement, mix: Mix, extra: f64, app: AppPlace) -> f64 {
        model(vec![mix.clone()], extra).predict(placement, &mix, app).ns
    }

    #[test]
    fn one_core_does_it_all_without_hops() {
        let mix = mix(stage::PRE, 1);
        assert_eq!(ns(&Placement::auto(1), mix.clone(), 7.0, AppPlace::Ctxq), 165.0);
        assert_eq!(ns(&Placement::auto(1), mix, 7.0, AppPlace::Apart), 160.0);
    }

    #[test]
    fn the_slowest_core_counts() {
        let placement = Placement::spread(1, 1, 1, 1);
        let mix = mix(stage::POST, 1);
        let said = model(vec![mix.clone()], 0.0).predict(&placement, &mix, AppPlace::Apart);
        assert_eq!((said.ns, said.core), (100.0, placement.core_of(toe_datapath::pipeline::StageId::new(stage::POST, 0)).unwrap()));
    }

    #[test]
    fn replicas_share_but_one_connection_has_one_protocol_stage() {
        assert_eq!(ns(&Placement::spread(5, 1, 1, 1), mix(stage::PRE, 1), 0.0, AppPlace::Apart), 20.0);
        assert_eq!(ns(&Placement::spread(1, 5, 1, 1), mix(stage::PROTOCOL, 1), 0.0, AppPlace::Apart), 100.0);
        assert_eq!(ns(&Placement::spread(1, 5, 1, 1), mix(stage::PROTOCOL, 100), 0.0, AppPlace::Apart), 20.0);
        // Seven connections in five groups: two groups have two of them.
        let said = ns(&Placement::spread(1, 5, 1, 1), mix(stage::PROTOCOL, 7), 0.0, AppPlace::Apart);
        assert!((said - 200.0 / 7.0).abs() < 1e-9, "{said}");
    }

    #[test]
    fn both_sides_pay_for_a_hop() {
        // All on a core of its own: protocol has links from pre, ctxq and egress (two messages), and to post and dma.
        let said = ns(&Placement::spread(1, 1, 1, 1), mix(stage::PROTOCOL, 1), 3.0, AppPlace::Apart);
        assert_eq!(said, 100.0 + 3.0 * 6.0);
        // Two pre, one of them with protocol: half of the frames stay there.
        let shared = Placement::new(
            [&["ingress", "egress", "ctxq", "post", "dma", "pre.1"][..], &["protocol", "pre.0"]]
                .map(|stages| toe_datapath::pipeline::CorePlan {
                    cpu: None,
                    stages: stages.iter().map(|s| toe_datapath::pipeline::StageId::parse(s).unwrap()).collect(),
                })
                .to_vec(),
        );
        let said = ns(&shared.unwrap(), mix(stage::PROTOCOL, 1), 3.0, AppPlace::Apart);
        // Frames from ingress to pre.0: a half; from pre.1: a half; descriptors 1, to post 1, to dma 1, back 2.
        assert_eq!(said, 100.0 + 5.0 + 3.0 * 6.0);
    }
}
