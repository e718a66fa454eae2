//! Deadlines. Whoever owns a timer keeps the deadline that is armed, so there is one entry for each at most.

use crate::ConnId;
use std::collections::BTreeSet;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TimerId {
    Conn(ConnId),
    Neighbour(u16),
    Addresses,
    Reassembly,
    Listening,
}

#[derive(Default)]
pub struct Timers {
    armed: BTreeSet<(u64, TimerId)>,
}

impl Timers {
    /// Arms, moves or (None) disarms the timer whose present deadline is `slot`.
    pub fn set(&mut self, id: TimerId, slot: &mut Option<u64>, deadline: Option<u64>) {
        if let Some(old) = slot.take() {
            self.armed.remove(&(old, id));
        }
        if let Some(new) = deadline {
            self.armed.insert((new, id));
        }
        *slot = deadline;
    }

    pub fn next(&self) -> Option<u64> {
        self.armed.first().map(|(at, _)| *at)
    }

    /// Removes a timer that is due. Its owner's deadline is to be cleared or set anew.
    pub fn pop_due(&mut self, now: u64) -> Option<TimerId> {
        let first = *self.armed.first()?;
        (first.0 <= now).then(|| {
            self.armed.remove(&first);
            first.1
        })
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.armed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_each_in_order_of_time() {
        let mut t = Timers::default();
        let (mut a, mut b) = (None, None);
        t.set(TimerId::Neighbour(1), &mut a, Some(10));
        t.set(TimerId::Neighbour(2), &mut b, Some(5));
        t.set(TimerId::Neighbour(1), &mut a, Some(3));
        assert_eq!((t.len(), t.next()), (2, Some(3)));
        assert_eq!(t.pop_due(2), None);
        assert_eq!(t.pop_due(4), Some(TimerId::Neighbour(1)));
        t.set(TimerId::Neighbour(2), &mut b, None);
        assert_eq!((t.len(), t.next(), b), (0, None, None));
    }
}
