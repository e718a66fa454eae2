//! What a core of the machine runs: the fused card, or one core of a pipelined one.

use super::board::VirtBoard;
use alloc::boxed::Box;
use toe_datapath::host::Host;
use toe_datapath::{Card, Composition, Core, Polled};
use toe_hal::Instant;

pub enum Engine {
    /// All stages, by direct calls: the only core.
    Fused(Box<Card<VirtBoard>>),
    Core(Core<VirtBoard>),
}

impl Engine {
    pub fn poll(&mut self, now: Instant) -> Polled {
        match self {
            Self::Fused(card) => Polled { any: card.poll(now), ..Polled::default() },
            Self::Core(core) => core.poll(now),
        }
    }

    /// Gets ready to sleep, and looks again. True: it may sleep; then [`awake`](Self::awake).
    pub fn park(&mut self, now: Instant) -> bool {
        match self {
            Self::Fused(card) => card.park(now),
            Self::Core(core) => core.park(now),
        }
    }

    pub fn awake(&mut self) {
        if let Self::Core(core) = self {
            core.awake();
        }
    }

    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Fused(card) => card.next_deadline(now),
            Self::Core(core) => core.next_deadline(now),
        }
    }

    /// The ctxq stage, if it runs here.
    pub fn host(&mut self) -> Option<&mut Host<VirtBoard>> {
        match self {
            Self::Fused(card) => Some(card.host()),
            Self::Core(core) => core.host(),
        }
    }
}
