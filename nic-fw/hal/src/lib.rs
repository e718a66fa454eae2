//! What a board gives the data path: a port, host memory, a way to interrupt the host, a fine clock.
//!
//! ```text
//!                       datapath (stages)
//!        RxPort, TxPort │  HostMemory │  Kick │  Clock       time is passed in as an argument
//!        ───────────────┴─────────────┴───────┴───────
//!             boards/soft   boards/virt   fake (tests)
//! ```
//!
//! Rude fakes of each trait live in [`fake`]: they answer late, refuse, reorder and return garbage.
//!
//! May depend on: `toe-abi`.
#![cfg_attr(not(any(test, feature = "fake")), no_std)]

extern crate alloc;

#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod memory;
pub mod port;

pub use memory::{Cookie, Dma, DmaFault, HostMemory};
pub use port::{Frames, Lease, PortCaps, RxBurst, RxFrame, RxLosses, RxOffload, RxPort, TxBusy, TxFrame, TxOffload, TxPort};

use toe_abi::CtxId;

/// The types of one board.
pub trait Board {
    type Memory: HostMemory;
    type Rx: RxPort;
    type Tx: TxPort<<Self::Memory as HostMemory>::Slice>;
    type Kick: Kick;
    type Clock: Clock;

    /// Which ordering points the pipeline keeps: all of them. Tests leave one out to see what it prevents.
    const ORDER: Order = Order { rx: true, tx: true, writes: true };
}

/// The three ordering points of the pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    /// Frames of a flow group reach protocol in the order in which they came.
    pub rx: bool,
    /// Segments leave in the order in which protocol made them.
    pub tx: bool,
    /// What answers a received frame waits until the payload of it and of all before it is in host memory.
    pub writes: bool,
}

/// The parts of one card, as its board hands them over.
pub struct Parts<B: Board> {
    pub memory: B::Memory,
    pub rx: B::Rx,
    pub tx: B::Tx,
    pub kick: B::Kick,
    pub clock: B::Clock,
}

/// A fine clock, for measurements only: nothing that the data path decides may depend on it.
pub trait Clock: Clone {
    /// Nanoseconds since an arbitrary start, the same for all cores.
    fn nanos(&self) -> u64;
}

/// Interrupts the host.
pub trait Kick {
    /// Wakes whoever sleeps on context `ctx`. Never blocks; the data path calls it only after the sleep/wake protocol
    /// said that somebody sleeps.
    fn interrupt(&mut self, ctx: CtxId);
}

/// Time on the card's own monotonic clock, microseconds since an arbitrary start. Always passed in, never read inside
/// the data path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Instant(pub u64);

impl Instant {
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Milliseconds, modulo 2^32: the unit of a flow's timers.
    pub const fn millis32(self) -> u32 {
        (self.0 / 1000) as u32
    }

    pub const fn add_micros(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }
}
