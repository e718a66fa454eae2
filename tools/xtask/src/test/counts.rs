//! Counting tests in what cargo and the test programs print.

use std::collections::BTreeMap;
use std::fmt;

use crate::cargo::Done;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Counts {
    /// Something else than a test failed.
    pub const FAILED: Counts = Counts { passed: 0, failed: 1, skipped: 0 };

    /// Sums the `test result:` lines. A command without tests is one test: its exit status. One
    /// that failed though no test did (it did not compile, or was killed) counts as a failure.
    /// For libtest a test that says why it is skipped has passed; here it has not.
    pub fn of(done: &Done) -> Counts {
        let mut total = Counts::default();
        let mut has_tests = false;
        for counts in done.output.lines().filter_map(parse) {
            has_tests = true;
            total = total.plus(counts);
        }
        let skipped: u64 = reasons(done).map(|(_, tests)| tests).sum();
        (total.passed, total.skipped) = (total.passed.saturating_sub(skipped), total.skipped + skipped);
        if !done.success && total.failed == 0 {
            total.failed = 1;
        }
        if done.success && !has_tests {
            total.passed = 1;
        }
        total
    }

    pub fn plus(self, other: Counts) -> Counts {
        Counts { passed: self.passed + other.passed, failed: self.failed + other.failed, skipped: self.skipped + other.skipped }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn parse(line: &str) -> Option<Counts> {
    let text = line.trim_start().strip_prefix("test result: ")?;
    let number = |word: &str| {
        let before = &text[..text.find(word)?];
        before.trim_end().rsplit([' ', ';', '.']).next()?.parse().ok()
    };
    Some(Counts { passed: number("passed")?, failed: number("failed")?, skipped: number("ignored")? })
}

/// Why tests were skipped, as they said (`skipped: WHY`, seen with `--show-output`), and how many.
pub fn reasons(done: &Done) -> impl Iterator<Item = (&str, u64)> {
    let mut reasons = BTreeMap::new();
    for why in done.output.lines().filter_map(|line| line.strip_prefix("skipped: ")) {
        *reasons.entry(why).or_insert(0) += 1;
    }
    reasons.into_iter()
}

/// Without the lines that say that all is well, and what tests printed that passed (`--show-output`).
pub fn relevant(output: &str) -> String {
    let mut in_successes = false;
    let mut is_relevant = |line: &&str| {
        let line = line.trim();
        in_successes = match line {
            "successes:" => true,
            "failures:" => false,
            _ => in_successes && !line.starts_with("test result: "),
        };
        !(in_successes || is_noise(line))
    };
    output.lines().filter(|line| is_relevant(line)).map(|line| format!("{line}\n")).collect()
}

fn is_noise(line: &str) -> bool {
    let ends = ["... ok", "... ignored"];
    let starts = ["Running ", "Compiling ", "Checking ", "Fresh ", "running ", "test result: ok"];
    line.is_empty() || ends.iter().any(|end| line.ends_with(end)) || starts.iter().any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(output: &str, success: bool) -> Done {
        Done { output: output.to_owned(), success, problem: None, log: "log".into() }
    }

    const TWO: &str = "running 3 tests\n\
        test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
        test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.01s\n";

    #[test]
    fn result_lines_are_summed() {
        assert_eq!(Counts::of(&done(TWO, false)), Counts { passed: 5, failed: 1, skipped: 1 });
        assert_eq!(Counts::of(&done(TWO, false)).to_string(), "5 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_command_without_tests_is_one_test() {
        assert_eq!(Counts::of(&done("Finished\n", true)).to_string(), "1 passed, 0 failed");
        assert_eq!(Counts::of(&done("error: expected one of\n", false)).to_string(), "0 passed, 1 failed");
    }

    #[test]
    fn a_crash_after_tests_that_passed_is_a_failure() {
        let line = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        assert_eq!(Counts::of(&done(line, false)), Counts { passed: 3, failed: 1, skipped: 0 });
    }

    #[test]
    fn who_says_that_it_is_skipped_has_not_passed() {
        let text = "---- a stdout ----\nskipped: no door\n---- b stdout ----\nskipped: no door\n\
            test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        let done = done(text, true);
        assert_eq!(Counts::of(&done), Counts { passed: 1, failed: 0, skipped: 2 });
        assert_eq!(reasons(&done).collect::<Vec<_>>(), [("no door", 2)]);
    }

    #[test]
    fn what_is_well_is_not_repeated() {
        let text = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nthread 'b' panicked\n";
        assert_eq!(relevant(text), "test b ... FAILED\nthread 'b' panicked\n");
        let shown = "successes:\n\n---- a stdout ----\nfine\n\nsuccesses:\n    a\n\nfailures:\n\n---- b stdout ----\nbroken\n\n\
            test result: FAILED. 1 passed\nsuccesses:\n    c\ntest result: ok. 1 passed\nafter\n";
        assert_eq!(relevant(shown), "failures:\n---- b stdout ----\nbroken\ntest result: FAILED. 1 passed\nafter\n");
    }
}
