//! The card as its board sees it. Signatures first: the stages come next.

use crate::{CardConfig, Counters};
use toe_abi::CtxId;
use toe_hal::{EthPort, HostMemory, Instant, Kick};

/// A way to put the stages together: what a board or a test drives.
pub trait Composition {
    type Port;
    type Memory;

    /// Region 0 has been bound by the board: start the control queues at phase 1, rings empty.
    fn attach_control(&mut self);
    /// The control region is given up. Flows go on.
    fn detach_control(&mut self);
    /// Forgets all flows, contexts and regions.
    fn reset(&mut self);
    /// One round over port, active contexts, control, timers and scheduler. True: something was done.
    fn poll(&mut self, now: Instant) -> bool;
    /// When `poll` must be called next even if nobody kicks and no frame comes.
    fn next_deadline(&self, now: Instant) -> Option<Instant>;
    /// Parks every context that isn't, fences, looks again. True: the core may sleep until deadline, kick or port.
    fn park(&mut self, now: Instant) -> bool;
    /// The host has kicked this context.
    fn kicked(&mut self, ctx: CtxId);
    fn port(&mut self) -> &mut Self::Port;
    fn memory(&mut self) -> &mut Self::Memory;
    fn counters(&self) -> &Counters;
}

/// The fused composition: one core, direct calls.
pub struct Card<P, M, K> {
    port: P,
    memory: M,
    _kick: K,
    counters: Counters,
}

impl<P, M, K> Card<P, M, K>
where
    M: HostMemory,
    P: EthPort<M::Slice>,
    K: Kick,
{
    pub fn new(_config: CardConfig, port: P, memory: M, kick: K) -> Self {
        Self { port, memory, _kick: kick, counters: Counters::default() }
    }
    pub fn attach_control(&mut self) {}
    pub fn detach_control(&mut self) {}
    pub fn reset(&mut self) {}
    pub fn poll(&mut self, _now: Instant) -> bool {
        false
    }
    pub fn next_deadline(&self, _now: Instant) -> Option<Instant> {
        None
    }
    pub fn park(&mut self, _now: Instant) -> bool {
        true
    }
    pub fn kicked(&mut self, _ctx: CtxId) {}
    pub fn port(&mut self) -> &mut P {
        &mut self.port
    }
    pub fn memory(&mut self) -> &mut M {
        &mut self.memory
    }
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
