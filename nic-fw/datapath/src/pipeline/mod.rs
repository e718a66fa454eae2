//! The pipelined composition: stages placed on cores, joined by rings.
//!
//! ```text
//!   ingress ─[number per group]─► pre × n ─(in order)─► protocol × groups ─[number]─► post × m ─► dma × d ─► egress (in order)
//!      ▲ leases                     │ exceptions            ▲ descriptors, requests                            │ frames: port
//!      └────────────────────────────┴───────── ctxq ◄────────────────────── events, answers, exceptions ───────┘
//! ```
//!
//! A board runs each [`Core`] on a thread or core of its own. What the stages do is in their own files; `actors` moves what they
//! say from ring to ring, `build` makes the rings.

mod actor;
mod actors;
mod build;
mod core;
mod links;
mod messages;
pub mod observe;
pub mod placement;
pub mod trace;
mod wiring;

pub use self::core::{Core, Polled};
pub use actor::Gauges;
pub use placement::{CorePlan, Placement, PlacementError, StageId};

use crate::{CardConfig, host::Host};
use alloc::vec::Vec;
use toe_hal::{Board, Instant, Parts};
use toe_sync::epoch::Reclaimer;

/// Rounds over all cores in which a reset may come to rest.
pub(crate) const RESET_ROUNDS: u32 = 1_000_000;

/// The cores of a card.
pub struct Pipeline<B: Board> {
    pub cores: Vec<Core<B>>,
    /// Of the epochs that the cores pass: memory that is taken away from them may be used again when all have.
    pub reclaimer: Reclaimer,
}

impl<B: Board> Pipeline<B> {
    pub fn new(config: &CardConfig, placement: &Placement, parts: Parts<B>) -> Self {
        build::build(config, placement, parts)
    }

    /// The stage that the board has to do with.
    pub fn host(&mut self) -> &mut Host<B> {
        let host = self.cores.iter_mut().find_map(Core::host);
        host.unwrap_or_else(|| unreachable!("every placement has a ctxq stage"))
    }

    /// Both halves of the board's port. All cores are here.
    pub fn port(&mut self) -> (&mut B::Rx, &mut B::Tx) {
        let (mut rx, mut tx) = (None, None);
        for core in &mut self.cores {
            let here = core.port();
            (rx, tx) = (rx.or(here.0), tx.or(here.1));
        }
        rx.zip(tx).unwrap_or_else(|| unreachable!("every placement has one ingress and one egress stage"))
    }

    /// Forgets all flows, contexts and regions. All cores are here, so nobody runs them meanwhile.
    pub fn reset(&mut self, now: Instant) {
        self.host().reset();
        self.cores.iter_mut().for_each(Core::forget_flows);
        // What was under way finds nobody any more, and comes home.
        for _ in 0..RESET_ROUNDS {
            let mut any = false;
            for core in &mut self.cores {
                any |= core.poll(now).any || core.has_work(now);
            }
            if !any {
                break;
            }
        }
        self.cores.iter_mut().for_each(Core::forget_flows);
    }
}
