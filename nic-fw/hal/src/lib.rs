//! What a board gives the data path: a port, host memory, a way to interrupt the host.
//!
//! ```text
//!                 datapath (stages)
//!        EthPort │  HostMemory │  Kick │          time is passed in as an argument
//!        ────────┴─────────────┴───────┴───────
//!         boards/soft   boards/virt   fake (tests)
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
pub use port::{EthPort, Lease, PortCaps, RxBurst, RxFrame, RxOffload, TxBusy, TxFrame, TxOffload};

use toe_abi::CtxId;

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
