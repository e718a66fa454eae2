//! The card's counters: plain words of one core, named by `toe_abi::counters`.

use toe_abi::counters::{Counter, Drop, Exception, TOTAL};

/// Every counter, every reason for a drop, every reason for an exception.
#[derive(Clone, Debug)]
pub struct Counters {
    words: [u64; TOTAL],
}

impl Default for Counters {
    fn default() -> Self {
        Self { words: [0; TOTAL] }
    }
}

impl Counters {
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.words[counter as usize] += n;
    }

    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// For what somebody else counts.
    pub fn set(&mut self, counter: Counter, total: u64) {
        self.words[counter as usize] = total;
    }

    pub fn drop(&mut self, reason: Drop) {
        self.words[Counter::COUNT + reason as usize] += 1;
    }

    pub fn exception(&mut self, reason: Exception) {
        self.words[Counter::COUNT + Drop::COUNT + reason as usize] += 1;
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.words[counter as usize]
    }

    pub fn drops(&self, reason: Drop) -> u64 {
        self.words[Counter::COUNT + reason as usize]
    }

    pub fn exceptions(&self, reason: Exception) -> u64 {
        self.words[Counter::COUNT + Drop::COUNT + reason as usize]
    }

    /// In the order of `toe_abi::counters`.
    pub fn words(&self) -> &[u64; TOTAL] {
        &self.words
    }

    /// Those that are not 0, with their names.
    pub fn nonzero(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let named = |(i, &n): (usize, &u64)| toe_abi::counters::name(i).map(|name| (name, n));
        self.words.iter().enumerate().filter(|(_, n)| **n > 0).filter_map(named)
    }

    /// Received frames less all that became of them: 0 whenever nothing is under way inside the card.
    pub fn unaccounted(&self) -> i64 {
        let received = self.get(Counter::RxFrames) + self.get(Counter::RxInjected);
        let drops: u64 = Drop::ALL.iter().map(|&d| self.drops(d)).sum();
        let known = self.get(Counter::RxDelivered) + self.get(Counter::RxExceptions) + self.get(Counter::RxAnswered) + drops;
        received.wrapping_sub(known) as i64
    }
}
