//! What `toectl status` says of the card's pipeline: where each stage runs, and how busy it was between two samples.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use toed::admin::Stage;

use crate::table::{row, table};

/// The stages of a card, and its cores.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Placement {
    stages: Vec<Load>,
    cores: Vec<CoreLoad>,
}

/// A stage instance: the second sample, and what had changed since the first.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Load {
    #[serde(flatten)]
    now: Stage,
    /// Of one core. Absent: the samples do not say.
    load_percent: Option<f64>,
    items_per_s: Option<f64>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct CoreLoad {
    core: u16,
    cpu: Option<u32>,
    stages: Vec<String>,
    load_percent: Option<f64>,
}

impl Placement {
    /// From two samples, the earlier one first.
    pub fn new(before: &[Stage], now: Vec<Stage>) -> Placement {
        let mut stages: Vec<Load> = Vec::with_capacity(now.len());
        for stage in now {
            let same = |other: &Stage| (&other.stage, other.instance) == (&stage.stage, stage.instance);
            // An instance is one row, however often a card may name it.
            if !stages.iter().any(|known| same(&known.now)) {
                let earlier = before.iter().find(|earlier| same(earlier));
                stages.push(Load {
                    load_percent: earlier.and_then(|b| rate(b, &stage, |s| s.busy_ns)).map(|share| share * 100.0),
                    items_per_s: earlier.and_then(|b| rate(b, &stage, |s| s.items)).map(|per_ns| per_ns * 1e9),
                    now: stage,
                });
            }
        }
        let cores = cores(&stages);
        Placement { stages, cores }
    }

    /// A table of the stages and a line for each core.
    pub fn text(&self) -> String {
        let mut rows = vec![row(["Stage", "Core", "CPU", "Load", "Items/s", "Queue", "Credits", "State"])];
        rows.extend(self.stages.iter().map(|load| {
            let s = &load.now;
            vec![
                name(s),
                s.core.to_string(),
                s.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string()),
                percent(load.load_percent),
                load.items_per_s.map_or_else(|| "-".to_owned(), |n| format!("{n:.0}")),
                of_most(s.queue, s.queue_max),
                of_most(s.credits, s.credits_max),
                if s.asleep { "asleep" } else { "running" }.to_owned(),
            ]
        }));
        let mut text = table(&rows, &[0, 7]);
        let lines: Vec<Vec<String>> = self.cores.iter().map(|core| vec![core.text(), format!(" {}", percent(core.load_percent))]).collect();
        text.push('\n');
        text.push_str(&table(&lines, &[0]));
        text
    }
}

impl CoreLoad {
    fn text(&self) -> String {
        let mut text = format!("core {}", self.core);
        if let Some(cpu) = self.cpu {
            // Writing to a String does not fail.
            let _ = write!(text, " (cpu {cpu})");
        }
        text + ": " + &self.stages.join(" ")
    }
}

/// How fast a count grew, per nanosecond. None: one of the two went backwards, or time did not pass.
fn rate(before: &Stage, now: &Stage, count: impl Fn(&Stage) -> u64) -> Option<f64> {
    let span = now.clock_ns.checked_sub(before.clock_ns).filter(|span| *span > 0)?;
    Some(count(now).checked_sub(count(before))? as f64 / span as f64)
}

fn cores(stages: &[Load]) -> Vec<CoreLoad> {
    let mut cores: BTreeMap<u16, CoreLoad> = BTreeMap::new();
    for load in stages {
        let s = &load.now;
        let core = cores.entry(s.core).or_insert(CoreLoad { core: s.core, cpu: s.cpu, stages: Vec::new(), load_percent: None });
        core.stages.push(name(s));
        core.load_percent = load.load_percent.map(|more| core.load_percent.unwrap_or(0.0) + more).or(core.load_percent);
    }
    cores.into_values().collect()
}

/// `pre.0`.
fn name(s: &Stage) -> String {
    format!("{}.{}", s.stage, s.instance)
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{share:.1} %"))
}

/// `3/256`; nothing of nothing is none.
fn of_most(n: u32, most: u32) -> String {
    if most == 0 { "-".to_owned() } else { format!("{n}/{most}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn stage(stage: &str, instance: u16, core: u16) -> Stage {
        Stage { stage: stage.into(), instance, core, cpu: Some(core.into()), queue_max: 256, ..Stage::default() }
    }

    /// The same stage, worked on for `busy` of `passed` milliseconds.
    fn later(s: &Stage, passed: u64, busy: u64, items: u64) -> Stage {
        Stage { clock_ns: s.clock_ns + passed * MS, busy_ns: s.busy_ns + busy * MS, items: s.items + items, ..s.clone() }
    }

    #[test]
    fn each_stage_has_a_row_and_each_core_a_line() {
        let before = [stage("ingress", 0, 0), stage("pre", 0, 0), stage("protocol", 0, 1), Stage { cpu: None, ..stage("dma", 0, 2) }];
        let mut now: Vec<Stage> = before.iter().map(|s| later(s, 200, 20, 1000)).collect();
        now[0] = Stage { credits: 250, credits_max: 256, queue_max: 0, ..now[0].clone() };
        now[1] = Stage { queue: 3, ..later(&before[1], 200, 5, 25_000) };
        now[3] = Stage { asleep: true, ..later(&before[3], 200, 0, 0) };
        let expected = "\
Stage       Core  CPU    Load  Items/s  Queue  Credits  State
ingress.0      0    0  10.0 %     5000      -  250/256  running
pre.0          0    0   2.5 %   125000  3/256        -  running
protocol.0     1    1  10.0 %     5000  0/256        -  running
dma.0          2    -   0.0 %        0  0/256        -  asleep

core 0 (cpu 0): ingress.0 pre.0   12.5 %
core 1 (cpu 1): protocol.0        10.0 %
core 2: dma.0                      0.0 %
";
        assert_eq!(Placement::new(&before, now).text(), expected);
    }

    #[test]
    fn samples_that_make_no_sense_have_no_load() {
        let before = [stage("pre", 0, 0), stage("pre", 1, 0), stage("pre", 2, 0)].map(|s| later(&s, 500, 100, 100));
        let stood = before[0].clone();
        let backwards = Stage { clock_ns: 1, ..before[1].clone() };
        let unworked = Stage { busy_ns: 0, ..later(&before[2], 100, 0, 50) };
        let unknown = stage("stage9", 0, 65535);
        let again = later(&before[0], 100, 100, 0);
        let text = Placement::new(&before, vec![stood, backwards, unworked, unknown, again]).text();
        let expected = "\
Stage      Core    CPU  Load  Items/s  Queue  Credits  State
pre.0         0      0     -        -  0/256        -  running
pre.1         0      0     -        -  0/256        -  running
pre.2         0      0     -      500  0/256        -  running
stage9.0  65535  65535     -        -  0/256        -  running

core 0 (cpu 0): pre.0 pre.1 pre.2   -
core 65535 (cpu 65535): stage9.0    -
";
        assert_eq!(text, expected);
    }

    #[test]
    fn programs_get_stages_and_cores() {
        let before = [stage("pre", 1, 0)];
        let now = vec![later(&before[0], 200, 50, 10)];
        let json = serde_json::to_value(Placement::new(&before, now)).expect("serializes");
        assert_eq!((&json["stages"][0]["stage"], &json["stages"][0]["load_percent"]), (&"pre".into(), &25.0.into()));
        assert_eq!((&json["cores"][0]["stages"][0], &json["cores"][0]["load_percent"]), (&"pre.1".into(), &25.0.into()));
    }

    #[test]
    fn a_card_without_stages_has_only_the_head_of_a_table() {
        assert_eq!(Placement::new(&[], Vec::new()).text().lines().count(), 2);
    }
}
