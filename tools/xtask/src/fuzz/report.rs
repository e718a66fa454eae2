//! What libFuzzer prints, and what of it is told.

use std::fmt::{self, Write};

use super::totals::Totals;

/// One target's run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    pub name: String,
    pub executions: u64,
    pub per_second: u64,
    /// Edges of the program that were reached.
    pub edges: u64,
    /// The execution that last reached one that the corpus had not; 0: none has.
    pub grew_at: u64,
    /// Inputs that are kept.
    pub inputs: u64,
    /// The file with the input that broke something, or how the process ended.
    pub found: Option<String>,
}

impl Report {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Takes a line; `false`: it is none of those that are printed while all is well.
    ///
    /// `#4096  NEW  cov: 321 ft: 654 corp: 32/1234b lim: 86 exec/s: 2048 rss: 40Mb L: 12/80 MS: 1 ...`
    pub fn line(&mut self, line: &str) -> bool {
        if let Some(file) = line.split("Test unit written to ").nth(1) {
            self.found = Some(file.to_owned());
            return false;
        }
        let Some((executions, rest)) = line.strip_prefix('#').and_then(|line| line.split_once(|c: char| c.is_whitespace())) else {
            return line.starts_with("INFO:");
        };
        let Ok(executions) = executions.parse() else { return false };
        self.executions = executions;
        let number = |key: &str| {
            let digits = rest.split(key).nth(1)?.trim_start();
            digits.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        self.per_second = number("exec/s:").unwrap_or(self.per_second);
        self.inputs = number("corp:").unwrap_or(self.inputs);
        if let Some(edges) = number("cov:").filter(|edges| *edges > self.edges) {
            self.edges = edges;
            // What the corpus reaches was new in an earlier run.
            if !rest.contains("INITED") {
                self.grew_at = executions;
            }
        }
        true
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} executions, {} edges", self.executions, self.edges)?;
        match &self.found {
            Some(found) => write!(f, ", found: {found}"),
            None => Ok(()),
        }
    }
}

/// Each target's run, and the sums with all runs before it.
pub fn table(runs: &[(Report, Totals)]) -> String {
    let mut out = format!(
        "{:<12} {:>12} {:>9} {:>7} {:>7} {:>13}  last new edge\n",
        "target", "executions", "a second", "edges", "inputs", "in all runs"
    );
    for (r, all) in runs {
        let _ =
            write!(out, "{:<12} {:>12} {:>9} {:>7} {:>7} {:>13}", r.name, r.executions, r.per_second, r.edges, r.inputs, all.executions);
        let quiet = (all.executions - all.grew_at) * 100 / all.executions.max(1);
        let _ = writeln!(out, "  {:>13} (none in the last {quiet} %)", all.grew_at);
        if let Some(found) = &r.found {
            let _ = writeln!(out, "{:<12} FOUND: {found}", "");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_progress_are_summed_up() {
        let mut r = Report::new("frame");
        assert!(r.line("INFO: Seed: 1"));
        assert!(r.line("#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 30Mb"));
        assert_eq!((r.edges, r.grew_at), (10, 0), "the corpus is nothing new");
        assert!(r.line("#4096\tNEW    cov: 321 ft: 654 corp: 32/1234b lim: 86 exec/s: 2048 rss: 40Mb L: 12/80 MS: 1"));
        assert!(r.line("#9000\tDONE   cov: 321 ft: 700 corp: 40/1500b lim: 86 exec/s: 3000 rss: 40Mb"));
        assert_eq!((r.executions, r.per_second, r.edges, r.grew_at, r.inputs), (9000, 3000, 321, 4096, 40));
        assert!(r.found.is_none());
    }

    #[test]
    fn what_is_found_is_told() {
        let mut r = Report::new("frame");
        assert!(!r.line("thread '<unnamed>' panicked at src/lib.rs:1:1:"));
        assert!(!r.line("artifact_prefix='x/'; Test unit written to x/crash-1"));
        assert_eq!(r.found.as_deref(), Some("x/crash-1"));
        assert!(table(&[(r, Totals::default())]).contains("FOUND: x/crash-1"));
    }
}
