//! How flows share a bottleneck: Jain's index of ours among themselves, and shares beside Linux's flows.

use std::fmt::Write;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::Repeat;
use crate::plot;
use crate::scene::{Load, Network, Scene, Stack, Way};
use toe_lab::spread::Spread;

/// What limits the flows: 50 Mbit/s, slow enough for nobody's processors to count, with a queue of one bandwidth-delay product.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Bottleneck {
    /// toe-netem's queue
    Netem,
    /// Linux's token bucket filter (sch_tbf)
    Tbf,
}

impl Bottleneck {
    const fn network(self) -> Network {
        match self {
            // The queue that Knobs have if nothing is said.
            Bottleneck::Netem => Network { line: "rate=50mbit,delay=20ms", bucket: None },
            Bottleneck::Tbf => Network { line: "delay=20ms", bucket: Some("rate 50mbit burst 16k latency 40ms") },
        }
    }

    const fn plot(self) -> &'static str {
        match self {
            Bottleneck::Netem => "fairness",
            Bottleneck::Tbf => "fairness-tbf",
        }
    }
}

/// Of each run: shares change from loss to loss, and a flow sees few of them.
const SECONDS: f64 = 6.0;
const FLOWS: [u16; 6] = [2, 4, 8, 16, 32, 64];
const RIVALS: [&str; 3] = ["cubic", "reno", "bbr"];
/// Flows on each side against a rival.
const EACH: u16 = 2;
const STACKS: [Stack; 2] = [Stack::Ours, Stack::Linux];

/// 1 if all have the same, 1/n if one has all (Jain, Chiu, Hawe 1984).
pub fn jain(rates: &[f64]) -> f64 {
    let (sum, squares) = rates.iter().fold((0.0, 0.0), |(sum, squares), rate| (sum + rate, squares + rate * rate));
    sum * sum / (rates.len() as f64 * squares)
}

/// Both tables.
pub fn run(repeat: &Repeat, bottleneck: Bottleneck) -> Result<String> {
    let network = bottleneck.network();
    let mut text = format!("{network}, cubic; Jain's index, and the sum of all flows\n");
    let _ = writeln!(text, "{:>8}{:>26}{:>26}{:>12}{:>12}", "flows", "FerroTOE", "Linux", "Mbit/s", "Mbit/s");
    let mut bars = Vec::new();
    let scenes = STACKS.map(|stack| Scene::new(stack, network, "cubic"));
    let [ours, linux] = scenes;
    let scenes = [ours.context("ours")?, linux.context("Linux")?];
    for flows in FLOWS {
        let row = among(&scenes, flows, repeat)?;
        let (index, sum) = (row.clone().map(|(index, _)| index), row.map(|(_, sum)| sum));
        let _ = writeln!(
            text,
            "{flows:>8}{:>26}{:>26}{:>12.1}{:>12.1}",
            shown(&index[0]),
            shown(&index[1]),
            Spread::of(&sum[0]).median,
            Spread::of(&sum[1]).median
        );
        bars.push(plot::Bar { name: format!("{flows} flows"), values: index.map(|index| Spread::of(&index).median) });
    }
    drop(scenes);
    let _ = writeln!(text, "\n{EACH} cubic flows and {EACH} of a rival (Linux) on {network}; share of the first, percent of the sum");
    let _ = writeln!(text, "{:>8}{:>26}{:>26}", "rival", "FerroTOE first", "Linux first");
    let there = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    for rival in RIVALS {
        if there.split_whitespace().all(|cc| cc != rival) {
            let _ = writeln!(text, "{rival:>8}  this kernel does not have it");
            continue;
        }
        let [ours, linux] = STACKS.map(|stack| against((stack, network), rival, repeat));
        let (ours, linux) = (Spread::of(&ours?), Spread::of(&linux?));
        let _ = writeln!(text, "{rival:>8}{:>26}{:>26}", ours.to_string(), linux.to_string());
        bars.push(plot::Bar { name: format!("share against {rival}"), values: [ours.median / 100.0, linux.median / 100.0] });
    }
    plot::bars(&bars, "Jain's index, and share against a rival", ["FerroTOE", "Linux"], &repeat.plot(bottleneck.plot()))?;
    let _ = writeln!(text, "Median (least - most) of {} runs of {} s, in turns.", repeat.runs, repeat.seconds.unwrap_or(SECONDS));
    Ok(text)
}

fn shown(index: &[f64]) -> String {
    let Spread { median, least, most } = Spread::of(index);
    format!("{median:.3} ({least:.3} - {most:.3})")
}

/// Indices and sums of all runs, of each stack.
fn among(scenes: &[Scene; 2], flows: u16, repeat: &Repeat) -> Result<[(Vec<f64>, Vec<f64>); 2]> {
    let mut found: [(Vec<f64>, Vec<f64>); 2] = Default::default();
    for run in 1..=repeat.runs {
        eprint!("\r{flows} flows: run {run} of {}        ", repeat.runs);
        for (scene, (index, sum)) in scenes.iter().zip(&mut found) {
            let rates = scene.near(&Load { way: Way::From, flows, seconds: repeat.seconds.unwrap_or(SECONDS) })?;
            index.push(jain(&rates));
            sum.push(rates.iter().sum());
        }
    }
    Ok(found)
}

/// Percent that the flows of the near end have, of all runs.
fn against((stack, network): (Stack, Network), rival: &str, repeat: &Repeat) -> Result<Vec<f64>> {
    let mut scene = Scene::new(stack, network, "cubic")?;
    scene.add_rival(rival)?;
    let load = Load { way: Way::From, flows: EACH, seconds: repeat.seconds.unwrap_or(SECONDS) };
    let mut shares = Vec::new();
    for run in 1..=repeat.runs {
        eprint!("\r{stack:?} against {rival}: run {run} of {}        ", repeat.runs);
        let [near, other] = scene.both(&load)?.map(|rates| rates.iter().sum::<f64>());
        shares.push(100.0 * near / (near + other));
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_one_for_equals_and_a_share_for_one_that_has_all() {
        assert!((jain(&[3.0; 7]) - 1.0).abs() < 1e-12);
        assert!((jain(&[1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-12);
        assert!((jain(&[1.0, 3.0]) - 0.8).abs() < 1e-12);
    }
}
