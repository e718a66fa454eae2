//! Rude fakes: everything that the traits allow a board to do, these do.
//!
//! | Fake           | What it can be told to do                                                          |
//! |----------------|------------------------------------------------------------------------------------|
//! | [`FakeMemory`] | complete late, out of order, say `Full`, fail; be slow for one region; wrap memory |
//! | [`FakePort`]   | run out of room, lose frames at flush, read payload as late as it may              |
//! | [`FakeKick`]   | remembers whom it woke                                                             |
//! | [`FakeClock`]  | a nanosecond for each look                                                         |
//!
//! All are deterministic: chance comes from a seed.

mod memory;
mod port;

pub use memory::{FakeMemory, FakeSlice, MemoryKnobs};
pub use port::{FakeFrame, FakePort, PortKnobs, SentFrame};

use crate::{Board, Clock, Kick, Parts};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    vec::Vec,
};
use toe_abi::CtxId;

/// A card's surroundings made of fakes.
#[derive(Clone, Copy, Debug)]
pub struct FakeBoard;

impl Board for FakeBoard {
    type Memory = FakeMemory;
    type Rx = FakePort;
    type Tx = FakePort;
    type Kick = FakeKick;
    type Clock = FakeClock;
}

/// The parts of a card around these fakes.
pub fn parts<B>(memory: FakeMemory, port: &FakePort, kick: &FakeKick) -> Parts<B>
where
    B: Board<Memory = FakeMemory, Rx = FakePort, Tx = FakePort, Kick = FakeKick, Clock = FakeClock>,
{
    Parts { memory, rx: port.clone(), tx: port.clone(), kick: kick.clone(), clock: FakeClock::default() }
}

/// Splitmix64: enough chance for a test, the same on every machine.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n` (0 if `n` is 0).
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.draw() % n }
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u8) -> bool {
        self.below(100) < u64::from(percent)
    }
}

/// Remembers interrupts. Clones share what they remember.
#[derive(Clone, Debug, Default)]
pub struct FakeKick {
    log: Arc<Mutex<Vec<CtxId>>>,
}

impl FakeKick {
    /// Contexts interrupted since the last call, in order.
    pub fn take(&self) -> Vec<CtxId> {
        std::mem::take(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Kick for FakeKick {
    fn interrupt(&mut self, ctx: CtxId) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(ctx);
    }
}

/// Shows one nanosecond more at each look. Clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct FakeClock {
    looks: Arc<AtomicU64>,
}

impl Clock for FakeClock {
    fn nanos(&self) -> u64 {
        self.looks.fetch_add(1, Ordering::Relaxed)
    }
}
