//! The card's books: whatever it received, it delivered, handed on, answered or dropped.

use std::collections::BTreeMap;
use std::fmt;

/// Sums of the counters of one card.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Books {
    pub received: u64,
    pub delivered: u64,
    pub exceptions: u64,
    pub answered: u64,
    pub dropped: u64,
}

impl Books {
    pub fn of(stats: &BTreeMap<String, u64>) -> Books {
        let one = |name: &str| stats.get(name).copied().unwrap_or(0);
        let dropped = stats.iter().filter(|(name, _)| name.starts_with("drop_")).map(|(_, value)| value).sum();
        Books {
            // What the control plane injects after a set-up goes through the same stages again.
            received: one("rx_frames") + one("rx_injected"),
            delivered: one("rx_delivered"),
            exceptions: one("rx_exceptions"),
            answered: one("rx_answered"),
            dropped,
        }
    }

    /// Whether every frame is accounted for.
    pub fn balance(&self) -> bool {
        self.received > 0 && self.received == self.delivered + self.exceptions + self.answered + self.dropped
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Books { received, delivered, exceptions, answered, dropped } = self;
        write!(f, "{received} received, {delivered} delivered, {exceptions} to toed, {answered} answered, {dropped} dropped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_must_be_somewhere() {
        let mut stats: BTreeMap<String, u64> = [
            ("rx_frames", 10),
            ("rx_injected", 1),
            ("rx_delivered", 5),
            ("rx_exceptions", 2),
            ("rx_answered", 1),
            ("drop_paws", 1),
            ("drop_duplicate", 2),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        assert!(Books::of(&stats).balance(), "{}", Books::of(&stats));
        stats.insert("drop_paws".into(), 0);
        assert!(!Books::of(&stats).balance());
        assert!(!Books::of(&BTreeMap::new()).balance(), "a card that counts nothing proves nothing");
    }
}
