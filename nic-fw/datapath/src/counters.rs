//! The card's counters, named by `toe_abi::counters`: each stage counts for itself, and whoever asks adds up.

use alloc::vec::Vec;
use toe_abi::counters::{Counter, Drop, Exception, TOTAL};
use toe_sync::tally::{Tally, TallyReader, tally};

const DROPS: usize = Counter::COUNT;
const EXCEPTIONS: usize = Counter::COUNT + Drop::COUNT;

/// Every counter, every reason for a drop, every reason for an exception, as one stage has counted them.
pub struct Counters(Tally);

impl Counters {
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.0.add(counter as usize, n);
    }

    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// For what somebody else counts.
    pub fn set(&mut self, counter: Counter, total: u64) {
        self.0.set(counter as usize, total);
    }

    pub fn drop(&mut self, reason: Drop) {
        self.drop_many(reason, 1);
    }

    pub fn drop_many(&mut self, reason: Drop, frames: u64) {
        self.0.add(DROPS + reason as usize, frames);
    }

    pub fn exception(&mut self, reason: Exception) {
        self.0.add(EXCEPTIONS + reason as usize, 1);
    }
}

/// The sums over all stages of a card.
#[derive(Clone, Default)]
pub struct CounterSums(Vec<TallyReader>);

impl CounterSums {
    /// Counters for one more stage.
    pub fn stage(&mut self) -> Counters {
        let (tally, reader) = tally(TOTAL);
        self.0.push(reader);
        Counters(tally)
    }

    /// Number `i`, in the order of `toe_abi::counters`.
    pub fn word(&self, i: usize) -> u64 {
        self.0.iter().fold(0, |sum, tally| sum.wrapping_add(tally.get(i)))
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.word(counter as usize)
    }

    pub fn drops(&self, reason: Drop) -> u64 {
        self.word(DROPS + reason as usize)
    }

    pub fn exceptions(&self, reason: Exception) -> u64 {
        self.word(EXCEPTIONS + reason as usize)
    }

    /// Those that are not 0, with their names.
    pub fn nonzero(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        (0..TOTAL).map(|i| (i, self.word(i))).filter(|(_, n)| *n > 0).filter_map(|(i, n)| toe_abi::counters::name(i).map(|name| (name, n)))
    }

    /// Received frames less all that became of them: 0 whenever nothing is under way inside the card.
    pub fn unaccounted(&self) -> i64 {
        let received = self.get(Counter::RxFrames) + self.get(Counter::RxInjected);
        let drops: u64 = Drop::ALL.iter().map(|&d| self.drops(d)).sum();
        let known = self.get(Counter::RxDelivered) + self.get(Counter::RxExceptions) + self.get(Counter::RxAnswered) + drops;
        received.wrapping_sub(known) as i64
    }
}
