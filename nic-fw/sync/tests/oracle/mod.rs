//! What is right, for the property tests and the loom tests alike.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::VecDeque;
use toe_abi::FlowId;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A small descriptor, so that loom has few words to interleave. `check` knows whether it is torn.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
pub struct Tiny {
    pub number: u32,
    pub complement: u32,
    pub phase: u32,
}

impl toe_sync::queue::Phased for Tiny {}

impl Tiny {
    pub fn new(number: u32) -> Self {
        Self { number, complement: !number, phase: 0 }
    }

    pub fn check(self) -> u32 {
        assert_eq!(self.complement, !self.number, "torn descriptor {self:?}");
        self.number
    }
}

/// Bytes of frame `number`: its length and every byte follow from the number.
pub fn frame(number: u32, max: usize) -> Vec<u8> {
    let len = (number as usize).wrapping_mul(7919) % (max + 1);
    (0..len).map(|i| (number as u8).wrapping_mul(31).wrapping_add(i as u8)).collect()
}

/// A queue as it should be: what comes out is what went in, in order, once, and never more than fits is inside.
#[derive(Debug, Default)]
pub struct Fifo {
    inside: VecDeque<u32>,
    pub next: u32,
}

impl Fifo {
    /// The number to be pushed next.
    pub fn next(&self) -> u32 {
        self.next
    }

    pub fn pushed(&mut self) {
        self.inside.push_back(self.next);
        self.next += 1;
    }

    pub fn popped(&mut self, number: u32) {
        assert_eq!(Some(number), self.inside.pop_front(), "out of order, lost or twice");
    }

    pub fn len(&self) -> usize {
        self.inside.len()
    }
}

/// Checks, after both threads have ended, that `popped` is what `pushed` says, in order.
pub fn same_order(pushed: &[u32], popped: &[u32]) {
    let mut fifo = Fifo::default();
    for &number in pushed {
        fifo.next = number;
        fifo.pushed();
    }
    popped.iter().for_each(|&number| fifo.popped(number));
    assert_eq!(fifo.len(), 0, "lost: pushed {pushed:?}, popped {popped:?}");
}

/// Nobody sleeps with work in front of it.
pub fn no_lost_wakeup(slept: bool, kicked: bool) {
    assert!(!slept || kicked, "lost wake-up");
}

/// What a look-up may answer: everything in `present` with the same hash, nothing that was never there.
pub fn lookup(found: &[FlowId], present: &[FlowId], ever: &[FlowId]) {
    for id in present {
        assert_eq!(found.iter().filter(|f| *f == id).count(), 1, "{id:?} not found once in {found:?}");
    }
    for id in found {
        assert!(ever.contains(id), "{id:?} was never entered");
    }
}
