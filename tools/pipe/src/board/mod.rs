//! A board in memory: no system calls, no locks, a wire with a peer for each connection at its other end.
//!
//! ```text
//!   WireRx ◄── peers ◄── lines ◄── WireTx        memory: areas of this process
//!   (receiving half makes frames, the sending half notes what the card says)
//! ```
//!
//! Here is all `unsafe` of this crate: leases and the buffers they stand for, and copies into shared memory, as every board has them.

pub mod frames;
pub mod memory;
pub mod port;

use std::sync::OnceLock;
use std::time::Instant as StdInstant;

use toe_abi::CtxId;
use toe_hal::{Board, Clock, Instant, Kick};

pub use memory::Memory;
pub use port::{Wire, WireRx, WireTx};

#[derive(Clone, Copy, Debug)]
pub struct MemBoard;

impl Board for MemBoard {
    type Memory = Memory;
    type Rx = WireRx;
    type Tx = WireTx;
    type Kick = NoKick;
    type Clock = Nanos;
}

/// The applications here never sleep, so nobody has to wake them.
#[derive(Clone, Copy, Debug)]
pub struct NoKick;

impl Kick for NoKick {
    fn interrupt(&mut self, _: CtxId) {}
}

/// The system's monotonic clock since the program's start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nanos;

impl Nanos {
    /// The card's time.
    pub fn now(self) -> Instant {
        // Not from 0: the card's times of "never" are there.
        Instant(1_000_000 + self.nanos() / 1000)
    }

    /// What a look at the clock costs, nanoseconds: what two looks in a row show.
    pub fn cost(self) -> u64 {
        static COST: OnceLock<u64> = OnceLock::new();
        *COST.get_or_init(|| {
            let mut looks: Vec<u64> = (0..1001).map(|_| (self.nanos(), self.nanos())).map(|(a, b)| b - a).collect();
            looks.sort_unstable();
            looks[looks.len() / 2]
        })
    }
}

impl Clock for Nanos {
    fn nanos(&self) -> u64 {
        static START: OnceLock<StdInstant> = OnceLock::new();
        START.get_or_init(StdInstant::now).elapsed().as_nanos() as u64
    }
}
