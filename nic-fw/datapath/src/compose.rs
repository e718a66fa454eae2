//! What every way to put the stages together offers: what a board or a test drives.

use crate::{counters::CounterSums, host::Host};
use toe_abi::CtxId;
use toe_hal::{Board, Instant};

/// A way to put the stages together on one thread.
pub trait Composition {
    type Board: Board;

    /// The stage that the board has to do with.
    fn host(&mut self) -> &mut Host<Self::Board>;

    /// Region 0 has been bound by the board: start the control queues at phase 1, rings empty.
    fn attach_control(&mut self) {
        self.host().attach_control();
    }

    /// The control region is given up. Flows go on.
    fn detach_control(&mut self) {
        self.host().detach_control();
    }

    /// Forgets all flows, contexts and regions.
    fn reset(&mut self);
    /// One round. True: something was done.
    fn poll(&mut self, now: Instant) -> bool;
    /// When `poll` must be called next even if nobody kicks and no frame comes.
    fn next_deadline(&self, now: Instant) -> Option<Instant>;
    /// Parks every context that isn't, fences, looks again. True: the core may sleep until deadline, kick or port.
    fn park(&mut self, now: Instant) -> bool;
    /// The host has kicked this context.
    fn kicked(&mut self, ctx: CtxId);
    fn counters(&self) -> &CounterSums;
}
