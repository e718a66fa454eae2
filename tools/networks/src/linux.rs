//! Ours and Linux's on the same network, in turns.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};

use crate::Repeat;
use crate::plot;
use crate::scene::{Load, Network, Scene, Stack, WAYS, Way};
use toe_lab::spread::Spread;

/// Of each run.
const SECONDS: f64 = 2.0;

/// Networks with room for the processors of a small machine: what counts is who uses how much of them.
const NETWORKS: &[(&str, &str)] = &[
    ("rate=100mbit,delay=5ms", "cubic"),
    ("rate=100mbit,delay=5ms,loss=0.1%", "cubic"),
    ("rate=100mbit,delay=5ms,loss=1%", "cubic"),
    ("rate=100mbit,delay=5ms,loss=2%", "cubic"),
    ("rate=100mbit,delay=5ms,loss=5%", "cubic"),
    ("rate=100mbit,delay=5ms,loss=1%", "reno"),
    ("rate=100mbit,delay=5ms,loss=5%", "reno"),
    ("rate=100mbit,delay=5ms,burst=0.1%:5", "cubic"),
    ("rate=100mbit,delay=5ms,reorder=1%:2ms", "cubic"),
    ("rate=100mbit,delay=10ms,reorder=10%:5ms", "cubic"),
    ("rate=100mbit,delay=10ms,jitter=10ms", "cubic"),
    ("rate=100mbit,delay=5ms,dup=1%,corrupt=0.5%", "cubic"),
    ("rate=100mbit,delay=5ms,queue=16k", "cubic"),
    ("rate=20mbit,delay=25ms,loss=1%", "cubic"),
    ("rate=20mbit,delay=30ms,loss=5%", "cubic"),
];

/// Of one network: Mbit/s of each run, by way (from, to) and stack (ours, Linux's).
struct Cell {
    line: &'static str,
    congestion: &'static str,
    figures: [[Vec<f64>; 2]; 2],
}

impl Cell {
    fn spreads(&self, way: usize) -> [Spread; 2] {
        [0, 1].map(|stack| Spread::of(&self.figures[way][stack]))
    }
}

/// The table of all networks, or of those with `only` in their words.
pub fn run(repeat: &Repeat, only: Option<&str>) -> Result<String> {
    let mut cells = Vec::new();
    let wanted: Vec<_> = NETWORKS.iter().filter(|(line, cc)| only.is_none_or(|only| format!("{line},{cc}").contains(only))).collect();
    ensure!(!wanted.is_empty(), "no network has these words: {}", only.unwrap_or_default());
    for (line, congestion) in wanted {
        let cell = measure(line, congestion, repeat).with_context(|| format!("{line}, {congestion}"))?;
        eprint!("\r{:100}\r{}", "", lines(&cell));
        cells.push(cell);
    }
    plot::bars(&bars(&cells), "Goodput of ours, as a part of Linux's", ["it sends", "it receives"], &repeat.plot("linux"))?;
    let mut text = format!("{:<46}{:<8}{:<14}{:>26}{:>26}{:>9}\n", "", "", "", "FerroTOE, Mbit/s", "Linux, Mbit/s", "ratio");
    cells.iter().for_each(|cell| text += &lines(cell));
    let _ = writeln!(text, "Median (least - most) of {} runs of {} s, in turns.", repeat.runs, repeat.seconds.unwrap_or(SECONDS));
    Ok(text)
}

fn measure(line: &'static str, congestion: &'static str, repeat: &Repeat) -> Result<Cell> {
    let network = Network { line, bucket: None };
    let scenes =
        [Scene::new(Stack::Ours, network, congestion).context("ours")?, Scene::new(Stack::Linux, network, congestion).context("Linux")?];
    let mut cell = Cell { line, congestion, figures: Default::default() };
    for run in 1..=repeat.runs {
        for (way, figures) in WAYS.into_iter().zip(&mut cell.figures) {
            for (scene, figures) in scenes.iter().zip(figures) {
                eprint!("\r{line}, {congestion}: run {run} of {}, {} ", repeat.runs, name(way));
                let rates = scene.near(&Load { way, flows: 1, seconds: repeat.seconds.unwrap_or(SECONDS) })?;
                figures.push(rates.iter().sum());
            }
        }
    }
    for scene in scenes {
        let late_us = scene.end()?;
        // The bottleneck then was another one than what the table says.
        if late_us > 5_000.0 {
            eprintln!("\n{line}: the network was late by up to {late_us:.0} us: this machine has other things to do");
        }
    }
    Ok(cell)
}

const fn name(way: Way) -> &'static str {
    match way {
        Way::From => "it sends",
        Way::To => "it receives",
    }
}

fn lines(cell: &Cell) -> String {
    let mut text = String::new();
    for (i, way) in WAYS.into_iter().enumerate() {
        let [ours, linux] = cell.spreads(i);
        let (line, congestion) = if i == 0 { (cell.line, cell.congestion) } else { ("", "") };
        let ratio = ours.median / linux.median;
        let _ = writeln!(text, "{line:<46}{congestion:<8}{:<14}{:>26}{:>26}{ratio:>8.2}x", name(way), ours.to_string(), linux.to_string());
    }
    text
}

/// For the plot: a name, and the ratio of each way.
fn bars(cells: &[Cell]) -> Vec<plot::Bar> {
    let ratio = |[ours, linux]: [Spread; 2]| ours.median / linux.median;
    cells
        .iter()
        .map(|c| plot::Bar { name: format!("{}, {}", c.line, c.congestion), values: [0, 1].map(|way| ratio(c.spreads(way))) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_netem::Knobs;

    #[test]
    fn every_network_has_valid_words() {
        for (line, congestion) in NETWORKS {
            assert!(line.parse::<Knobs>().is_ok() && ["cubic", "reno"].contains(congestion), "{line}, {congestion}");
        }
    }

    #[test]
    fn a_network_is_a_line_for_each_way_with_the_ratio_of_its_medians() {
        let figures = [[vec![90.0, 80.0, 95.0], vec![100.0, 90.0, 120.0]], [vec![50.0], vec![40.0]]];
        let text = lines(&Cell { line: "loss=1%", congestion: "cubic", figures });
        assert!(text.contains("90.0 (80.0 - 95.0)") && text.contains("0.90x") && text.contains("1.25x"), "{text}");
        assert_eq!(text.lines().count(), 2);
    }
}
