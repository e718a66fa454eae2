//! From the lines of the image to a table, and what two tables differ in.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail};

/// Kinds of work, as the image names them: the columns, in its order.
const KINDS: [&str; 6] = ["rx", "rx-2", "rx-1", "ack", "tx", "hc"];
/// Stages, in the order of the way through them.
const STAGES: [&str; 6] = ["pre", "protocol", "post", "dma", "egress", "ctxq"];

/// Width of the column of titles.
const TITLE: usize = 20;

/// What a run said, by name.
type Said = BTreeMap<String, i64>;

/// For each kind of work what is in a unit of it, by name.
#[derive(Debug)]
pub struct Table(Vec<BTreeMap<String, f64>>);

impl Table {
    /// From lines `run KIND n=N NAME=COUNT ...` and `stage KIND n=N STAGE visits=COUNT total=COUNT`; others are left out.
    pub fn read(output: &str) -> Result<Self> {
        KINDS.iter().map(|kind| units(kind, output)).collect::<Result<_>>().map(Self)
    }

    fn get(&self, kind: usize, name: &str) -> f64 {
        self.0[kind].get(name).copied().unwrap_or(0.0)
    }

    /// A row, with 0 as nothing.
    fn row(&self, f: &mut fmt::Formatter<'_>, title: &str, digits: usize, value: impl Fn(usize) -> f64) -> fmt::Result {
        write!(f, "{title:<TITLE$}")?;
        for kind in 0..KINDS.len() {
            match value(kind) {
                0.0 => write!(f, "{:>10}", "-")?,
                value => write!(f, "{value:>10.digits$}")?,
            }
        }
        writeln!(f)
    }
}

/// What a unit of a kind took: the difference of its two runs, by the units between them.
fn units(kind: &str, output: &str) -> Result<BTreeMap<String, f64>> {
    let mut runs: BTreeMap<i64, Said> = BTreeMap::new();
    for line in output.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (prefix, n, counts) = match words[..] {
            ["run", of, n, ref counts @ ..] if of == kind => ("", n, counts),
            ["stage", of, n, stage, ref counts @ ..] if of == kind => (stage, n, counts),
            _ => continue,
        };
        let n = count(n).with_context(|| format!("'{line}' has no number of units"))?.1;
        for word in counts {
            let (name, value) = count(word).with_context(|| format!("'{line}' has no counts"))?;
            let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix} {name}") };
            runs.entry(n).or_default().insert(name, value);
        }
    }
    let mut ends = runs.iter();
    let (Some((short, less)), Some((long, more)), None) = (ends.next(), ends.next(), ends.next()) else {
        bail!("the image did not say what {kind} took in two runs:\n{output}");
    };
    if !(less.contains_key("total") && more.contains_key("total")) {
        bail!("the image did not say what {kind} took in two runs:\n{output}");
    }
    let unit = |name: &String| (more.get(name).unwrap_or(&0) - less.get(name).unwrap_or(&0)) as f64 / (long - short) as f64;
    Ok(more.keys().map(|name| (name.clone(), unit(name))).collect())
}

/// `NAME=COUNT`
fn count(word: &str) -> Option<(&str, i64)> {
    let (name, value) = word.split_once('=')?;
    Some((name, value.parse().ok()?))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<TITLE$}", "")?;
        KINDS.iter().try_for_each(|kind| write!(f, "{kind:>10}"))?;
        writeln!(f)?;
        let stage = |kind, stage: &str| self.get(kind, &format!("{stage} total"));
        for name in STAGES {
            self.row(f, name, 1, |kind| stage(kind, name))?;
        }
        self.row(f, "rounds: the rest", 1, |kind| self.get(kind, "total") - STAGES.iter().map(|s| stage(kind, s)).sum::<f64>())?;
        self.row(f, "all of the card", 1, |kind| self.get(kind, "total"))?;
        self.row(f, "the board, besides", 1, |kind| self.get(kind, "board"))?;
        self.row(f, "frames sent", 3, |kind| self.get(kind, "frames"))?;
        self.row(f, "events written", 3, |kind| self.get(kind, "events"))
    }
}

/// Every figure that is not the same, a line each.
pub fn differences(before: &str, now: &str) -> String {
    let (before, now) = (figures(before), figures(now));
    let mut text = String::new();
    for (name, value) in &now {
        match before.get(name) {
            Some(old) if old == value => {}
            Some(old) => text += &format!("  {name}: {old} -> {value}{}\n", change(old, value)),
            None => text += &format!("  {name}: {value} is new\n"),
        }
    }
    before.keys().filter(|name| !now.contains_key(*name)).for_each(|name| text += &format!("  {name} is gone\n"));
    text
}

/// `KIND, ROW` and its figure, of a table as text: the columns are named by the first row.
fn figures(text: &str) -> BTreeMap<String, String> {
    let mut rows = text.lines().skip_while(|line| !line.starts_with(' ')).filter_map(|line| line.split_at_checked(TITLE));
    let kinds: Vec<&str> = rows.next().map_or(Vec::new(), |(_, kinds)| kinds.split_whitespace().collect());
    let mut figures = BTreeMap::new();
    for (title, values) in rows {
        for (kind, value) in kinds.iter().zip(values.split_whitespace()) {
            figures.insert(format!("{kind}, {}", title.trim()), value.to_owned());
        }
    }
    figures
}

fn change(old: &str, new: &str) -> String {
    match (old.parse::<f64>(), new.parse::<f64>()) {
        (Ok(old), Ok(new)) => format!(" ({:+.1})", new - old),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two runs of each kind; a unit is 10 of protocol and 7 of the rest, a run 100.
    fn output() -> String {
        let run = |kind: &str, n: i64| {
            format!(
                "run {kind} n={n} total={} board={n} frames={} events=2\r\nstage {kind} n={n} protocol visits={n} total={}\n",
                100 + 17 * n,
                n / 2,
                10 * n
            )
        };
        KINDS.iter().flat_map(|kind| [run(kind, 64), run(kind, 128)]).collect::<String>() + "and another line\n"
    }

    #[test]
    fn what_a_run_costs_by_itself_cancels() {
        let table = Table::read(&output()).unwrap();
        assert_eq!((table.get(0, "total"), table.get(5, "protocol total"), table.get(2, "pre total")), (17.0, 10.0, 0.0));
        let text = table.to_string();
        assert!(text.contains("\nrounds: the rest           7.0       7.0"), "{text}");
        assert!(text.contains("\nframes sent              0.500     0.500"), "{text}");
        assert!(text.contains("\nevents written               -         -"), "{text}");
    }

    #[test]
    fn a_run_that_is_missing_or_damaged_is_an_error() {
        assert!(Table::read(&output().replace("run ack n=128", "run ack n=64")).is_err());
        assert!(Table::read(&output().replace("n=64 total=", "n=64 total=x")).is_err());
        assert!(Table::read("").is_err());
    }

    #[test]
    fn each_figure_that_differs_is_a_line() {
        let before = Table::read(&output()).unwrap().to_string();
        let now = Table::read(
            &output().replace("stage tx n=128 protocol visits=128 total=1280", "stage tx n=128 protocol visits=128 total=1344"),
        );
        let text = differences(&before, &now.unwrap().to_string());
        assert_eq!(text, "  tx, protocol: 10.0 -> 11.0 (+1.0)\n  tx, rounds: the rest: 7.0 -> 6.0 (-1.0)\n");
        assert_eq!(differences(&before, &before), "");
        let less: String = before.lines().filter(|line| !line.starts_with("protocol")).map(|line| format!("{line}\n")).collect();
        assert!(differences(&before, &less).contains("rx, protocol is gone"));
        assert!(differences(&less, &before).contains("rx, protocol: 10.0 is new"));
    }
}
