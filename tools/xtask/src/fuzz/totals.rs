//! Executions of a target over all runs, in a file of `target/fuzz/totals`: three numbers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::report::Report;

/// Sums over all runs of a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    pub executions: u64,
    /// The execution that last reached a new edge.
    pub grew_at: u64,
    /// Runs that ended because something broke.
    pub findings: u64,
}

impl Totals {
    /// Those of a file, and with them those of the run that has ended.
    pub fn add(file: &Path, run: &Report) -> Result<Self> {
        let mut totals = fs::read_to_string(file).map_or_else(|_| Self::default(), |text| Self::parse(&text));
        if run.grew_at > 0 {
            totals.grew_at = totals.executions + run.grew_at;
        }
        totals.executions += run.executions;
        totals.findings += u64::from(run.found.is_some());
        let Self { executions, grew_at, findings } = totals;
        let text = format!("{executions} {grew_at} {findings}\n");
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(totals)
    }

    /// What is missing or makes no sense counts from nought.
    fn parse(text: &str) -> Self {
        let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self { executions: next(), grew_at: next(), findings: next() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_add_up() {
        let file = std::env::temp_dir().join(format!("toe-fuzz-totals-{}", std::process::id()));
        let run = |executions, grew_at, found: Option<&str>| Report {
            found: found.map(str::to_owned),
            ..Report { executions, grew_at, ..Report::new("frame") }
        };
        let all =
            [run(100, 60, None), run(50, 0, Some("x/crash-1")), run(50, 20, None)].map(|run| Totals::add(&file, &run).expect("written"));
        fs::remove_file(&file).expect("it was written");
        let total = |executions, grew_at, findings| Totals { executions, grew_at, findings };
        assert_eq!(all, [total(100, 60, 0), total(150, 60, 1), total(200, 170, 1)]);
    }
}
