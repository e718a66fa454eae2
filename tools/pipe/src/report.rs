//! What a person reads: tables of what was measured.

use toe_abi::observe::stage;

use crate::measure::hops::{BATCHES, Hop, Hops};
use crate::measure::points::Point;
use crate::measure::{Machine, Measured};
use crate::model::CALIBRATION;
use crate::stats::Figures;
use crate::traffic::{Load, connections_text};

/// Width of the first column, and of the others.
const FIRST: usize = 30;
const CELL: usize = 24;

/// All tables.
pub fn all(measured: &Measured) -> String {
    [head(measured), stages(measured), hops(&measured.hops), throughput(measured)].join("\n")
}

/// More than this wanted to run before we began: the machine was not quiet.
const QUIET: f64 = 0.7;

fn head(m: &Measured) -> String {
    let pinned = if m.pinned { "bound to CPUs" } else { "not bound to CPUs" };
    let app = if m.app_apart { "on a thread of its own" } else { "on the thread of the ctxq stage" };
    let Machine { cpu_model, cpus, arch, clock_ns, others } = &m.machine;
    let busy = if *others > QUIET {
        format!("The machine was busy (load average {others}): look at the least of the stages, and make little of several threads.\n")
    } else {
        String::new()
    };
    format!(
        "{cpu_model}, {cpus} CPUs, {arch}; a look at the clock takes {clock_ns} ns. Threads are {pinned}; the application is {app}.\n\
         Median (least-most) of {} repetitions in turns, {} s each.\n{busy}",
        m.repeats, m.seconds
    )
}

fn row(first: &str, cells: impl IntoIterator<Item = String>) -> String {
    let cells: String = cells.into_iter().map(|cell| format!("{cell:>CELL$}")).collect();
    format!("  {first:<FIRST$}{cells}\n")
}

/// The points of one table: the same shape and number of connections, by load.
fn columns<'a>(m: &'a Measured, shape: &str, connections: u16) -> Vec<&'a Point> {
    m.points.iter().filter(|p| p.shape == shape && p.connections == connections).collect()
}

/// Numbers of connections, each once.
fn connections(m: &Measured) -> Vec<u16> {
    let mut all: Vec<u16> = m.points.iter().map(|p| p.connections).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn stages(m: &Measured) -> String {
    let mut text = String::from(
        "Stages: nanoseconds, all on one core but joined by rings, by the meters of the stages themselves.\n\
         What the peers cost is measured apart, and not in the stages' rows.\n",
    );
    for connections in connections(m) {
        let (one_core, fused) = (columns(m, CALIBRATION, connections), columns(m, "fused", connections));
        if one_core.is_empty() {
            continue;
        }
        text += "\n";
        text += &row(&connections_text(connections), one_core.iter().map(|p| p.load.each().into()));
        for kind in 0..stage::COUNT {
            text += &row(stage::name(kind).unwrap_or("?"), one_core.iter().map(|p| own(p, kind).to_string()));
        }
        text += &row("rounds: the rest", one_core.iter().map(|p| rest(m, p).to_string()));
        text += &row("load: peers", one_core.iter().map(|p| peers(p).to_string()));
        text += &row("load: application", one_core.iter().map(|p| p.costs.app_ns.to_string()));
        text += &row("all on one core", one_core.iter().map(|p| p.ns.to_string()));
        text += &row("fused", fused.iter().map(|p| p.ns.to_string()));
        text += &row("fused, without the load", fused.iter().map(|p| alone(m, p).to_string()));
        text += &row("frames in, events, descriptors", one_core.iter().map(|p| visits(p)));
    }
    text
}

/// A kind of stage without the peers' part.
fn own(p: &Point, kind: u16) -> Figures {
    let all = &p.costs.stage_ns[usize::from(kind)];
    match kind {
        stage::INGRESS => all.with(&p.costs.rx_load_ns, |all, load| (all - load).max(0.0)),
        stage::EGRESS => all.with(&p.costs.tx_load_ns, |all, load| (all - load).max(0.0)),
        _ => all.clone(),
    }
}

fn peers(p: &Point) -> Figures {
    p.costs.rx_load_ns.with(&p.costs.tx_load_ns, |a, b| a + b)
}

/// What the rounds take more than stages and application. Below 0 if a meter has met an interruption and counted it many times.
fn rest(m: &Measured, p: &Point) -> Figures {
    p.costs.stage_ns.iter().fold(p.ns.with(&app_here(m, p), |all, app| all - app), |left, ns| left.with(ns, |all, stage| all - stage))
}

/// The card without load.
fn alone(m: &Measured, p: &Point) -> Figures {
    p.ns.with(&peers(p), |all, load| all - load).with(&app_here(m, p), |all, app| all - app)
}

/// What the application takes of the card's time.
fn app_here(m: &Measured, p: &Point) -> Figures {
    p.costs.app_ns.map(|ns| if m.app_apart { 0.0 } else { ns })
}

fn visits(p: &Point) -> String {
    let c = &p.costs;
    format!("{:.2}, {:.2}, {:.2}", c.frames_in.median(), c.events.median(), c.descriptors.median())
}

fn hops(hops: &Hops) -> String {
    let mut text = String::from("Ring hops: nanoseconds per item. Between two cores both sides work at the same time.\n\n");
    let titles = ["one core", "two cores"].iter().flat_map(|place| BATCHES.map(|batch| format!("{place}, {batch} at a time")));
    text += &row("", titles);
    for (name, hop) in [("a word", &hops.word), ("a record, 128 bytes", &hops.record), ("a message, and its way back", &hops.message)] {
        let Hop { same, cross } = hop;
        text += &row(name, same.iter().chain(cross).map(Figures::to_string));
    }
    let us = |figures: &Figures| figures.map(|ns| ns / 1000.0);
    text += &format!(
        "\n  There and back between two cores: {} ns. A thread that sleeps runs {} us after it was woken; waking costs {} us.\n",
        hops.round_trip_ns,
        us(&hops.wake_ns),
        us(&hops.waking_ns)
    );
    text
}

fn throughput(m: &Measured) -> String {
    let mut text =
        String::from("Throughput. The ratio is to the fused card in the same turn, with the load of peers and application on its core.\n");
    let mut before = None;
    for p in m.points.iter().filter(|p| Load::REAL.contains(&p.load)) {
        if before.replace((p.load, p.connections)) != Some((p.load, p.connections)) {
            let title = format!("{}, {}", p.load, connections_text(p.connections));
            let unit = format!("1000 {}s/s", p.load.unit());
            text += "\n";
            text += &row(&title, ["threads".into(), unit, "Gbit/s".into(), "ratio to fused".into()]);
        }
        text += &throughput_row(m, p);
    }
    text
}

fn throughput_row(m: &Measured, p: &Point) -> String {
    let over = if is_over(m, p) { "more than CPUs: " } else { "" };
    let threads = format!("{over}{}", p.threads());
    let bits = f64::from(p.traffic().unit_bytes()) * 8.0;
    let cells = [threads, p.ns.map(|ns| 1e6 / ns).to_string(), p.ns.map(|ns| bits / ns).to_string(), format!("{:.2}", p.speed_up)];
    row(&format!("  {}", p.shape), cells)
}

/// Whether a point had more threads than there are CPUs.
pub fn is_over(m: &Measured, p: &Point) -> bool {
    p.threads() + usize::from(m.app_apart) > m.machine.cpus
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::rig::Shape;
    use crate::traffic::Traffic;
    use toe_datapath::Placement;

    /// Each kind of stage takes 50 ns, of which the peers take 20 and 1, and handles one item.
    pub fn point(shape: &str, placement: Option<Placement>, ns: f64) -> Point {
        let traffic = Traffic { load: Load::Receive, connections: 1, rpc_bytes: 64, checked: false };
        let mut p = Point::new(shape, &placement.map_or(Shape::Fused, Shape::Pipelined), &traffic);
        p.ns.push(ns);
        p.speed_up.push(500.0 / ns);
        p.costs.stage_ns.iter_mut().for_each(|figures| figures.push(50.0));
        p.costs.rx_load_ns.push(20.0);
        p.costs.tx_load_ns.push(1.0);
        p.costs.app_ns.push(9.0);
        let once = [&mut p.costs.frames_in, &mut p.costs.events, &mut p.costs.descriptors];
        p.costs.stage_items.iter_mut().chain(once).for_each(|figures| figures.push(1.0));
        p
    }

    /// On two CPUs, with hops that cost nothing.
    pub fn measured(points: Vec<Point>) -> Measured {
        let machine = Machine { cpus: 2, ..Machine::default() };
        Measured { machine, seconds: 0.1, repeats: 1, pinned: false, app_apart: false, hops: Hops::default(), points }
    }

    #[test]
    fn tables_show_what_was_measured() {
        let points = vec![
            point("fused", None, 500.0),
            point(CALIBRATION, Some(Placement::auto(1)), 400.0),
            point("auto 3", Some(Placement::auto(3)), 250.0),
        ];
        let m = measured(points);
        let text = all(&m);
        let line =
            |begin: &str| text.lines().find(|line| line.trim_start().starts_with(begin)).unwrap_or_else(|| panic!("no {begin} in {text}"));
        assert!(line("ingress").contains("30.0 (30.0-30.0)"), "{text}");
        assert!(line("egress").contains("49.0"), "{text}");
        // 400 - 7 * 50 - 9.
        assert!(line("rounds").contains("41.0"), "{text}");
        assert!(line("fused, without").contains("470"), "{text}");
        assert!(line("auto 3").contains("more than CPUs: 3") && line("auto 3").contains("2.00 (2.00-2.00)"), "{text}");
        // 1448 bytes in 250 ns.
        assert!(line("auto 3").contains("46.3"), "{text}");
    }
}
