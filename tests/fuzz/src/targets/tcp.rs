//! Segments, host updates and timers on one flow, as the hostile tests of `toe-tcp` have them, with choices that the fuzzer makes.

#[allow(dead_code, reason = "its own source of choices is not used here")]
#[path = "../../../../nic-fw/tcp/tests/tcp/flow.rs"]
mod flow;
#[path = "../../../../nic-fw/tcp/tests/tcp/hostile.rs"]
mod hostile;

use flow::Choices;

/// The input, then zeroes.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take(&mut self, n: usize) -> u64 {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
    }
}

impl Choices for Bytes<'_> {
    fn next(&mut self) -> u64 {
        self.take(8)
    }

    /// As many bytes as the choice needs, so that a change of the input changes one choice.
    fn range(&mut self, low: u64, high: u64) -> u64 {
        let span = (high - low).max(1);
        let bytes = (64 - (span - 1).leading_zeros()).div_ceil(8);
        low + self.take(bytes as usize) % span
    }
}

pub fn run(data: &[u8]) {
    hostile::run(&mut Bytes(data));
}
