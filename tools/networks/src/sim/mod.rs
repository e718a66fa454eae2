//! Tables in virtual time: two of ours, and ours with smoltcp, over every kind of network, against a snapshot.
//!
//! ```text
//!   row ─► Knobs ─► Wire ─┬─ ours ──► ours          rows on all cores ─► table ─► snapshot
//!                         ├─ ours ──► smoltcp
//!                         └─ smoltcp ► ours
//! ```
//!
//! A run is a function of its row, so a figure that moves was moved by the code.

mod bulk;
mod hosts;
mod rows;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use anyhow::{Context, Result, ensure};
use hosts::Side;
use rows::{Cc, ROWS, Row};
use toe_netem::Knobs;
use toe_tests::sim::wire::Wire;
use toe_tests::sim::world::{self, End};
use toed::core::Report;

const SEED: u64 = 1;
/// Payload and frame of a full segment with timestamps.
const PAYLOAD: f64 = 1448.0;
const FRAME: f64 = 1514.0;

/// Who sends to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pairing {
    Ours,
    ToSmoltcp,
    FromSmoltcp,
}

const PAIRINGS: [(Pairing, &str); 3] =
    [(Pairing::Ours, "two of ours"), (Pairing::ToSmoltcp, "ours to smoltcp"), (Pairing::FromSmoltcp, "smoltcp to ours")];

/// What came of a run.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Figures {
    /// Of what the network and the buffers would let through.
    goodput: f64,
    /// Of payload sent.
    again: f64,
    /// Retransmission timeouts of the sender; smoltcp does not count them.
    timeouts: Option<u64>,
}

/// Payload bytes that could arrive in the time: what the bottleneck and the windows let through, less what the line loses.
fn possible(row: &Row, knobs: &Knobs) -> f64 {
    let seconds = row.ms as f64 / 1e3;
    let window_rate = f64::from(1u32 << row.buffer_log2) * 1e9 / (2 * knobs.delay_ns) as f64;
    (knobs.rate as f64 / 8.0 * PAYLOAD / FRAME).min(window_rate) * seconds * (1.0 - knobs.lost_share())
}

fn measure(row: &Row, pairing: Pairing, seed: u64) -> Figures {
    let knobs: Knobs = row.line.parse().expect("the table has valid words");
    let mut wire = Wire::new(knobs, seed);
    let mut go = |a: &mut dyn End, b: &mut dyn End| world::run_until(a, b, &mut wire, row.ms * 1000);
    let (arrived, timeouts) = match pairing {
        Pairing::FromSmoltcp => {
            let (mut a, mut b) = (hosts::smoltcp(Side::Sender, row, seed), hosts::ours(Side::Receiver, row, seed));
            go(&mut a, &mut b);
            (b.app.stream.bytes, None)
        }
        Pairing::ToSmoltcp => {
            let (mut a, mut b) = (hosts::ours(Side::Sender, row, seed), hosts::smoltcp(Side::Receiver, row, seed));
            go(&mut a, &mut b);
            (b.stream.bytes, Some(timeouts(&mut a.host)))
        }
        Pairing::Ours => {
            let (mut a, mut b) = (hosts::ours(Side::Sender, row, seed), hosts::ours(Side::Receiver, row, seed + 1));
            go(&mut a, &mut b);
            (b.app.stream.bytes, Some(timeouts(&mut a.host)))
        }
    };
    let sent = wire.sent[0];
    Figures { goodput: arrived as f64 / possible(row, &knobs), again: sent.again as f64 / sent.payload.max(1) as f64, timeouts }
}

fn timeouts(host: &mut toe_tests::sim::host::ToeHost) -> u64 {
    match host.report(|core| core.report_stats()) {
        Report::Stats(stats) => stats.get("tx_timeouts").copied().unwrap_or(0),
        _ => 0,
    }
}

/// Means over seeds.
fn mean(row: &Row, pairing: Pairing, seeds: u64) -> Figures {
    let all: Vec<Figures> = (SEED..SEED + seeds).map(|seed| measure(row, pairing, seed)).collect();
    let mean = |of: fn(&Figures) -> f64| all.iter().map(of).sum::<f64>() / seeds as f64;
    let timeouts = all.iter().map(|f| f.timeouts).sum::<Option<u64>>().map(|sum| sum.div_ceil(seeds));
    Figures { goodput: mean(|f| f.goodput), again: mean(|f| f.again), timeouts }
}

/// The rows, on all cores; `done` hears of each.
fn measure_all(rows: &[&Row], seeds: u64, done: impl Fn(usize)) -> Vec<[Figures; PAIRINGS.len()]> {
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(row) = rows.get(index) else { return };
                    let _ = sender.send((index, PAIRINGS.map(|(pairing, _)| mean(row, pairing, seeds))));
                }
            });
        }
        drop(sender);
        let mut all = Vec::new();
        for result in results {
            all.push(result);
            done(all.len());
        }
        all.sort_by_key(|(index, _)| *index);
        all.into_iter().map(|(_, figures)| figures).collect()
    })
}

fn table(rows: &[&Row], all: &[[Figures; PAIRINGS.len()]]) -> String {
    let mut text = format!("{:<88}", "");
    PAIRINGS.iter().for_each(|(_, title)| _ = write!(text, "{title:^24}"));
    let heads = ["goodput", "again", "RTOs"].map(|head| format!("{head:>8}")).concat();
    let _ = writeln!(text, "\n{:<66}{:>8} {:<13}{}", "", "buffer", "", heads.repeat(PAIRINGS.len()));
    let mut group = "";
    for (row, figures) in rows.iter().zip(all) {
        if row.group != group {
            group = row.group;
            let _ = writeln!(text, "{group}");
        }
        let cc = match row.cc {
            Cc::Cubic => "cubic",
            Cc::CubicEcn => "cubic, ECN",
            Cc::CubicPaced => "cubic, paced",
            Cc::Dctcp => "dctcp",
        };
        let _ = write!(text, "  {:<64}{:>7}k {:<13}", row.line, (1u32 << row.buffer_log2) / 1024, cc);
        for Figures { goodput, again, timeouts } in figures {
            let timeouts = timeouts.map_or("-".to_owned(), |n| n.to_string());
            let _ = write!(text, "{:>8}{:>8}{timeouts:>8}", format!("{:.1}%", goodput * 100.0), format!("{:.2}%", again * 100.0));
        }
        text.push('\n');
    }
    text
}

const HEAD: &str = "Networks in virtual time: docs/networks.md, \"In virtual time\"\n\
     goodput: of what line and buffers let through; again: payload sent more than once, of all that was sent\n\n";

/// Measures the networks with `only` in their words, and makes a table of means over seeds.
fn measured(only: Option<&str>, seeds: u64) -> Result<String> {
    let rows: Vec<&Row> = ROWS.iter().filter(|row| only.is_none_or(|only| row.group.contains(only) || row.line.contains(only))).collect();
    ensure!(!rows.is_empty(), "no network has these words: {}", only.unwrap_or_default());
    let all = measure_all(&rows, seeds, |n| eprint!("\r{n} of {} networks", rows.len()));
    eprintln!();
    Ok(format!("{HEAD}{}", table(&rows, &all)))
}

/// Measures and shows.
pub fn show(only: Option<&str>, seeds: u64) -> Result<ExitCode> {
    print!("{}", measured(only, seeds)?);
    Ok(ExitCode::SUCCESS)
}

/// Measures, shows, compares with the snapshot at `path` or makes it.
pub fn run(path: &Path, bless: bool) -> Result<ExitCode> {
    let now = measured(None, 1)?;
    print!("{now}");
    if bless {
        fs::write(path, &now).with_context(|| format!("cannot write {}", path.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let before = fs::read_to_string(path).with_context(|| format!("cannot read {}: --bless makes it", path.display()))?;
    if before == now {
        println!("\nas in the snapshot");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nnot as in the snapshot (--bless if that is right):");
    for (old, new) in before.lines().zip(now.lines()).filter(|(old, new)| old != new) {
        println!("- {old}\n+ {new}");
    }
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short, so that it can be run with all other tests.
    const SHORT: Row = Row { group: "", line: "rate=10mbit,delay=1ms,loss=2%", buffer_log2: 18, ms: 2_000, cc: Cc::Cubic };

    #[test]
    fn a_run_is_a_function_of_its_row() {
        for (pairing, name) in PAIRINGS {
            let first = measure(&SHORT, pairing, SEED);
            assert_eq!(first, measure(&SHORT, pairing, SEED), "{name}");
            assert!(first.goodput > 0.2 && first.goodput < 1.01 && first.again > 0.005, "{name}: {first:?}");
        }
    }

    #[test]
    fn what_is_possible_is_the_least_of_line_and_window() {
        let knobs = |text: &str| text.parse::<Knobs>().expect("knobs");
        let line = possible(&SHORT, &knobs("rate=10mbit,delay=1ms"));
        assert!((line - 2.5e6 * PAYLOAD / FRAME).abs() < 1.0, "{line}");
        let window = possible(&SHORT, &knobs("rate=10mbit,delay=1s"));
        assert!((window - 262_144.0).abs() < 1.0, "{window}");
        assert!(possible(&SHORT, &knobs("rate=10mbit,delay=1ms,loss=10%")) < line);
    }

    #[test]
    fn every_row_has_valid_words() {
        for row in ROWS {
            assert!(row.line.parse::<Knobs>().is_ok_and(|k| k.rate > 0 && k.delay_ns > 0), "{}", row.line);
        }
    }
}
