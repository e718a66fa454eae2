//! What is under way, by the time of its arrival.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// An item and when it arrives; what was put in first comes first among equals.
struct Flying<T> {
    key: (u64, u64),
    item: T,
}

impl<T> PartialEq for Flying<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl<T> Eq for Flying<T> {}
impl<T> PartialOrd for Flying<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Flying<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

pub struct Flight<T> {
    heap: BinaryHeap<Reverse<Flying<T>>>,
    order: u64,
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), order: 0 }
    }
}

impl<T> Flight<T> {
    pub fn push(&mut self, at_ns: u64, item: T) {
        self.order += 1;
        self.heap.push(Reverse(Flying { key: (at_ns, self.order), item }));
    }

    /// What has arrived by now, and when it did.
    pub fn pop(&mut self, now_ns: u64) -> Option<(u64, T)> {
        let due = self.next_ns().is_some_and(|at| at <= now_ns);
        due.then(|| self.heap.pop()).flatten().map(|Reverse(flying)| (flying.key.0, flying.item))
    }

    /// When the next one arrives.
    pub fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(flying)| flying.key.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_in_time_and_among_equals_in_order() {
        let mut flight = Flight::default();
        [(20, 'c'), (10, 'a'), (10, 'b')].into_iter().for_each(|(at, item)| flight.push(at, item));
        assert_eq!((flight.next_ns(), flight.pop(9)), (Some(10), None));
        assert_eq!((flight.pop(20), flight.pop(20), flight.pop(20)), (Some((10, 'a')), Some((10, 'b')), Some((20, 'c'))));
        assert_eq!((flight.pop(u64::MAX), flight.next_ns()), (None, None));
    }
}
