//! Choices that the fuzzer makes.

use super::choices::Choices;

/// The input, then zeroes.
pub struct Bytes<'a>(pub &'a [u8]);

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

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// As many bytes as the choice needs, so that a change of the input changes one choice.
    fn range(&mut self, low: u64, high: u64) -> u64 {
        let span = (high - low).max(1);
        let bytes = (64 - (span - 1).leading_zeros()).div_ceil(8);
        low + self.take(bytes as usize) % span
    }
}
