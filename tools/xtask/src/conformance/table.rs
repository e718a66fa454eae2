//! How coverage is shown.

use std::fmt::Write;

use super::Format;
use super::citations::Kind;
use super::coverage::{Coverage, State, state};
use super::rows::{Level, Reason, Row, Spec};

/// What is to be shown; of the RFCs given, or of all if none is.
pub enum View<'a> {
    /// Counts by RFC, and the deliberate exceptions.
    Summary,
    /// Each row and its citations.
    Rows(&'a [u32]),
    /// What is open.
    Open(&'a [u32]),
}

pub fn write(coverage: &Coverage, view: &View<'_>, format: Format) -> String {
    let mut out = Writer { format, text: String::new() };
    let specs = |only: &[u32]| coverage.specs.iter().filter(|spec| only.is_empty() || only.contains(&spec.number)).collect::<Vec<_>>();
    match view {
        View::Summary => {
            out.counts(&coverage.specs);
            out.title("Deliberate exceptions");
            for spec in &coverage.specs {
                out.reasons(spec, State::Exception);
            }
        }
        View::Rows(only) => {
            for spec in specs(only) {
                out.title(&format!("RFC {}: {}", spec.number, spec.title));
                spec.rows.iter().for_each(|row| out.row(coverage, spec, row));
            }
        }
        View::Open(only) => {
            out.title("Open");
            for spec in specs(only) {
                out.reasons(spec, State::Open);
            }
        }
    }
    out.text
}

struct Writer {
    format: Format,
    text: String,
}

impl Writer {
    fn line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn title(&mut self, title: &str) {
        match self.format {
            Format::Text => self.line(&format!("\n{title}")),
            Format::Markdown => self.line(&format!("\n## {title}\n")),
        }
    }

    fn counts(&mut self, specs: &[Spec]) {
        if self.format == Format::Markdown {
            self.line("| RFC | title | rows | covered | exceptions | not applicable | open |\n|---|---|--:|--:|--:|--:|--:|");
        } else {
            self.line(&format!("{:<6}{:<54}{:>6}{:>9}{:>11}{:>6}{:>6}", "RFC", "", "rows", "covered", "exceptions", "n/a", "open"));
        }
        let mut all = [0; 5];
        for spec in specs {
            let count = |wanted| spec.rows.iter().filter(|row| state(row) == wanted).count();
            let counts = [spec.rows.len(), count(State::Covered), count(State::Exception), count(State::NotApplicable), count(State::Open)];
            self.count(&spec.number.to_string(), &spec.title, counts);
            all.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        }
        self.count("", "all", all);
    }

    fn count(&mut self, number: &str, title: &str, [rows, covered, exceptions, none, open]: [usize; 5]) {
        self.line(&match self.format {
            Format::Text => format!("{number:<6}{title:<54.53}{rows:>6}{covered:>9}{exceptions:>11}{none:>6}{open:>6}"),
            Format::Markdown => format!("| {number} | {title} | {rows} | {covered} | {exceptions} | {none} | {open} |"),
        });
    }

    /// The rows in that state, and why they are. What an RFC only allows is left out: nobody misses it.
    fn reasons(&mut self, spec: &Spec, wanted: State) {
        for row in spec.rows.iter().filter(|row| state(row) == wanted) {
            if wanted == State::Exception && row.level == Level::May {
                continue;
            }
            let (name, reason) = (format!("RFC {} {}", spec.number, row.id), words(row));
            self.line(&match self.format {
                Format::Text => format!("  {name:<20} {:<10} {}\n      {reason}", row.level.name(), row.text),
                Format::Markdown => format!("- **{name}** ({}) \"{}\"  \n  {reason}", row.level.name(), row.text),
            });
        }
    }

    fn row(&mut self, coverage: &Coverage, spec: &Spec, row: &Row) {
        let cited = |what: &str, kind| match coverage.places(spec.number, row, kind).as_slice() {
            [] => String::new(),
            places => format!("{what}: {}", places.join(", ")),
        };
        let head = format!("{} ({}) {}", row.id, row.section, row.level.name());
        let no_script = row.no_script.as_ref().map(|why| format!("no script: {why}")).unwrap_or_default();
        let lines = [words(row), no_script, cited("code", Kind::Code), cited("tests", Kind::Test), cited("shown by", Kind::Gap)];
        let (first, indent) = match self.format {
            Format::Text => (format!("  {head}: {}", row.text), "      "),
            Format::Markdown => (format!("- **{head}** \"{}\"", row.text), "  - "),
        };
        self.line(&first);
        lines.iter().filter(|line| !line.is_empty()).for_each(|line| self.line(&format!("{indent}{line}")));
    }
}

/// A row's reason with its kind.
fn words(row: &Row) -> String {
    match row.reason() {
        None => String::new(),
        Some(Reason::Exception(why)) => format!("exception: {why}"),
        Some(Reason::NotApplicable(why)) => format!("not applicable: {why}"),
        Some(Reason::Open(what)) => format!("open: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::citations::Citation;
    use crate::conformance::rows;

    fn coverage() -> Coverage {
        let row = |id: &str, more: &str| format!("[[row]]\nid = '{id}'\nsection = '2'\nlevel = 'SHOULD'\ntext = 'words'\n{more}\n");
        let text = [row("2-1", ""), row("2-2", "open = 'later'"), row("2-3", "exception = 'better so'")].concat();
        let spec = rows::parse(7, &format!("title = 'A title'\n{text}")).unwrap();
        let cited = |place: &str, kind| Citation { rfc: 7, id: "2-1".into(), place: place.into(), kind };
        Coverage::new(vec![spec], vec![cited("a.rs:1", Kind::Code), cited("b.rs:2", Kind::Test)])
    }

    fn shown(view: &View<'_>, format: Format) -> String {
        write(&coverage(), view, format)
    }

    #[test]
    fn the_summary_counts_and_gives_reasons_of_exceptions() {
        let text = shown(&View::Summary, Format::Text);
        assert!(text.lines().any(|line| line.split_whitespace().eq(["7", "A", "title", "3", "1", "1", "0", "1"])), "{text}");
        assert!(text.contains("better so") && !text.contains("later"), "{text}");
        assert!(shown(&View::Summary, Format::Markdown).contains("| 7 | A title | 3 | 1 | 1 | 0 | 1 |"));
    }

    #[test]
    fn a_row_shows_where_it_is_cited() {
        let text = shown(&View::Rows(&[7]), Format::Text);
        assert!(text.contains("code: a.rs:1\n") && text.contains("tests: b.rs:2\n"), "{text}");
        assert_eq!(shown(&View::Rows(&[8]), Format::Text), "");
    }

    #[test]
    fn what_is_open_is_listed_alone() {
        let text = shown(&View::Open(&[]), Format::Text);
        assert!(text.contains("RFC 7 2-2") && text.contains("open: later") && !text.contains("2-1"), "{text}");
    }
}
