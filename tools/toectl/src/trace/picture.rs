//! One exchange as a waterfall in the terminal.

use std::fmt::Write as _;

use toed::admin::{Visit, VisitKind};

use super::ways::{Cause, Exchange, Way};

/// Columns of the bars.
const WIDTH: u64 = 40;

/// The exchange, a line for each visit, and what it comes to.
pub fn waterfall(exchange: &Exchange<'_>) -> String {
    let scale = Scale::new(exchange);
    let mut lines: Vec<Line> = Vec::new();
    for way in exchange.ways() {
        lines.push(Line::Title(title(way)));
        lines.extend(rows(way, &scale).into_iter().map(Line::Visit));
    }
    connection(exchange) + "\n\n" + &layout(&lines) + "\n" + &totals(exchange)
}

/// Time as columns.
struct Scale {
    begin_ns: u64,
    span_ns: u64,
}

/// Stage, core, begin, duration, bar, meaning.
type Cells = [String; 6];

enum Line {
    Title(String),
    Visit(Cells),
}

impl Scale {
    fn new(exchange: &Exchange<'_>) -> Scale {
        let begin_ns = exchange.ways().map(Way::begin_ns).min().unwrap_or(0);
        let end_ns = exchange.ways().map(Way::end_ns).max().unwrap_or(0);
        Scale { begin_ns, span_ns: end_ns - begin_ns }
    }

    fn cells(&self, v: &Visit) -> Cells {
        let took = v.end_ns.checked_sub(v.begin_ns).map_or_else(|| "?".to_owned(), us);
        [format!("{}.{}", v.stage, v.instance), v.core.to_string(), us(v.begin_ns - self.begin_ns), took, self.bar(v), meaning(v)]
    }

    /// At least one column, however short the visit was.
    fn bar(&self, v: &Visit) -> String {
        let from = self.column(v.begin_ns, u128::div_euclid).min(WIDTH - 1);
        let to = self.column(v.end_ns.max(v.begin_ns), u128::div_ceil).clamp(from + 1, WIDTH);
        let times = |text: &str, n: u64| text.repeat(usize::try_from(n).unwrap_or(0));
        format!("|{}{}{}|", times(" ", from), times("#", to - from), times(" ", WIDTH - to))
    }

    fn column(&self, at_ns: u64, divide: fn(u128, u128) -> u128) -> u64 {
        let columns = divide(u128::from(at_ns - self.begin_ns) * u128::from(WIDTH), self.span_ns.max(1).into());
        u64::try_from(columns).unwrap_or(WIDTH)
    }
}

/// The visits of a way, and between them the stages that left no record.
fn rows(way: &Way, scale: &Scale) -> Vec<Cells> {
    // What is not expected comes last.
    let expected = way.expected();
    let rank = |stage: &str| expected.iter().position(|s| *s == stage).unwrap_or(usize::MAX);
    let mut rows: Vec<(usize, Cells)> = way.visits.iter().map(|v| (rank(&v.stage), scale.cells(v))).collect();
    for stage in way.missing() {
        let at = rows.iter().position(|(other, _)| *other > rank(stage)).unwrap_or(rows.len());
        rows.insert(at, (rank(stage), absent(stage)));
    }
    rows.into_iter().map(|(_, cells)| cells).collect()
}

fn absent(stage: &str) -> Cells {
    let [dash, nothing] = ["-", ""].map(str::to_owned);
    [stage.to_owned(), dash.clone(), dash.clone(), dash, nothing, "no record".to_owned()]
}

fn layout(lines: &[Line]) -> String {
    let heads = ["Stage", "Core", "Begin us", "Took us", "", ""].map(str::to_owned);
    let rows = || lines.iter().filter_map(|line| if let Line::Visit(cells) = line { Some(cells) } else { None });
    let width = |c: usize| rows().chain([&heads]).map(|cells| cells[c].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let line = |cells: &Cells| {
        let [stage, core, begin, took, bar, what] = cells;
        let [w0, w1, w2, w3, w4] = widths;
        let text = format!("  {stage:<w0$}  {core:>w1$}  {begin:>w2$}  {took:>w3$}  {bar:<w4$}  {what}");
        text.trim_end().to_owned() + "\n"
    };
    let mut text = line(&heads);
    for each in lines {
        match each {
            Line::Title(title) => text.push_str(&format!("{title}\n")),
            Line::Visit(cells) => text.push_str(&line(cells)),
        }
    }
    text
}

fn connection(exchange: &Exchange<'_>) -> String {
    let known = |name: &str, number: Option<u32>| number.map_or_else(|| format!("unknown {name}"), |n| format!("{name} {n}"));
    let port = exchange.ways().find_map(Way::port).map(u32::from);
    format!("{}, {}", known("port", port), known("flow", exchange.ways().find_map(Way::flow)))
}

fn title(way: &Way) -> String {
    let cause = match way.cause {
        Cause::Received => "segment received",
        Cause::Descriptor => "descriptor of the application",
        Cause::Sent => "segment sent",
        Cause::Unknown => "work of an unknown cause",
    };
    let number = |name: &str, pick: fn(&Visit) -> Option<u32>| way.visits.iter().find_map(pick).map(|n| format!(", {name} {n}"));
    let group = way.visits.last().map(|v| format!(" (group {}", v.group)).unwrap_or_default();
    let numbers = [number("number", |v| v.number), number("out", |v| v.out)].map(Option::unwrap_or_default).concat();
    format!("{cause}{group}{numbers})")
}

fn meaning(v: &Visit) -> String {
    let what = match v.kind {
        VisitKind::Rx => "in",
        VisitKind::RxOut => "segment handled",
        VisitKind::HcOut | VisitKind::HcDone => "descriptor handled",
        VisitKind::TxOut => "segment begun",
        VisitKind::Out => "out",
        VisitKind::Hc => "descriptor taken",
        VisitKind::Event => "application told",
        VisitKind::Other => "unknown",
    };
    let number = |name: &str, n: u32| if n == 0 { String::new() } else { format!(", {name} {n}") };
    what.to_owned() + &number("seq", v.seq) + &number("len", v.len)
}

/// Where the time went. What an exchange lacks is left out.
fn totals(exchange: &Exchange<'_>) -> String {
    let told = exchange.received.and_then(|w| w.first(VisitKind::Event));
    let taken = exchange.descriptor.and_then(|w| w.first(VisitKind::Hc));
    let begin = exchange.received.map(Way::begin_ns);
    let end = exchange.sent.map(Way::end_ns);
    let visits = || exchange.ways().flat_map(|w| &w.visits);
    let work = visits().fold(0u64, |sum, v| sum.saturating_add(v.end_ns.saturating_sub(v.begin_ns)));
    let span = Scale::new(exchange).span_ns;
    let parts = [
        ("from the wire to the application", span_between(begin, told.map(|v| v.end_ns))),
        ("in the application", span_between(told.map(|v| v.end_ns), taken.map(|v| v.begin_ns))),
        ("from the application to the wire", span_between(taken.map(|v| v.begin_ns), end)),
        ("all shown", Some(span)),
        ("stages at work", Some(work)),
    ];
    let mut text = String::new();
    for (name, ns) in parts {
        if let Some(ns) = ns {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{name:<34}{:>12} us", us(ns));
        }
    }
    text
}

/// None: one of the two is not known, or time went backwards.
fn span_between(from_ns: Option<u64>, to_ns: Option<u64>) -> Option<u64> {
    to_ns?.checked_sub(from_ns?)
}

/// Microseconds, to the nanosecond.
fn us(ns: u64) -> String {
    format!("{}.{:03}", ns / 1000, ns % 1000)
}
