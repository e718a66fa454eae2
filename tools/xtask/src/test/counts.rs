//! Counting tests in what cargo and the test programs print.

use std::fmt;

use crate::cargo::Done;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Counts {
    /// Sums the `test result:` lines. A command without tests is one test: its exit status. One
    /// that failed though no test did (it did not compile, or was killed) counts as a failure.
    pub fn of(done: &Done) -> Counts {
        let mut total = Counts::default();
        let mut has_tests = false;
        for counts in done.output.lines().filter_map(parse) {
            has_tests = true;
            total.add(counts);
        }
        if !done.success && total.failed == 0 {
            total.failed = 1;
        }
        if done.success && !has_tests {
            total.passed = 1;
        }
        total
    }

    pub fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
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

/// Without the lines that say that all is well.
pub fn relevant(output: &str) -> String {
    let noise = |line: &&str| {
        let line = line.trim();
        !(line.is_empty()
            || line.ends_with("... ok")
            || line.ends_with("... ignored")
            || line.starts_with("Running ")
            || line.starts_with("Compiling ")
            || line.starts_with("Checking ")
            || line.starts_with("Fresh ")
            || line.starts_with("running ")
            || line.starts_with("test result: ok"))
    };
    output.lines().filter(noise).map(|line| format!("{line}\n")).collect()
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
    fn what_is_well_is_not_repeated() {
        let text = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nthread 'b' panicked\n";
        assert_eq!(relevant(text), "test b ... FAILED\nthread 'b' panicked\n");
    }
}
