//! The fused composition: one core runs a burst through all stages by direct calls.

use crate::{
    CardConfig, Counters,
    msg::{RxRef, Source, Work},
    stages::Stages,
};
use toe_abi::{CtxId, counters::Counter};
use toe_hal::{EthPort, HostMemory, Instant, Kick, RxBurst, port::BURST};

/// Control messages, packets, descriptors or segments handled in one round, each.
const BUDGET: usize = 64;

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

/// The card on one core.
pub struct Card<P, M, K> {
    stages: Stages<P, M, K>,
    burst: RxBurst,
}

impl<P, M, K> Card<P, M, K>
where
    M: HostMemory,
    P: EthPort<M::Slice>,
    K: Kick,
{
    pub fn new(config: CardConfig, port: P, memory: M, kick: K) -> Self {
        // A burst must fit, and leave room for what it leads to.
        let dma_entries = config.dma_entries.max(8 * BURST as u16);
        let egress_entries = config.egress_entries.max(2 * BURST as u16);
        let config = CardConfig { dma_entries, egress_entries, ..config };
        Self { stages: Stages::new(&config, port, memory, kick), burst: RxBurst::new() }
    }

    /// See [`Composition::attach_control`].
    pub fn attach_control(&mut self) {
        self.stages.attach_control();
    }

    /// See [`Composition::detach_control`].
    pub fn detach_control(&mut self) {
        self.stages.detach_control();
    }

    /// See [`Composition::reset`].
    pub fn reset(&mut self) {
        self.stages.reset();
    }

    /// See [`Composition::poll`].
    pub fn poll(&mut self, now: Instant) -> bool {
        self.stages.now = now;
        let mut any = self.complete();
        any |= self.stages.drain();
        any |= self.control();
        any |= self.receive();
        any |= self.host();
        any |= self.timers();
        any |= self.send();
        // Frames first, then events: who is told that bytes are acknowledged may overwrite them, and the port reads
        // them at the flush.
        self.stages.flush();
        any |= self.tell();
        self.stages.interrupt();
        self.stages.park_idle();
        any
    }

    /// See [`Composition::next_deadline`].
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.stages.next_deadline(now)
    }

    /// See [`Composition::park`].
    pub fn park(&mut self, now: Instant) -> bool {
        self.stages.park(now)
    }

    /// See [`Composition::kicked`].
    pub fn kicked(&mut self, ctx: CtxId) {
        self.stages.kicked(ctx);
    }

    pub fn port(&mut self) -> &mut P {
        &mut self.stages.port
    }

    pub fn memory(&mut self) -> &mut M {
        &mut self.stages.memory
    }

    pub fn counters(&self) -> &Counters {
        &self.stages.counters
    }

    /// What the port itself has counted, in all: `counter` is one of the port's.
    pub fn set_port_counter(&mut self, counter: Counter, total: u64) {
        self.stages.counters.set(counter, total);
    }

    /// Room in the order for new work: a share is left for what tells of work done.
    fn has_room(&self) -> bool {
        self.stages.dma.room() > self.stages.dma.capacity() / 4 && self.stages.post.room() > 0
    }

    fn run(&mut self, work: Work) {
        if let Some(msg) = self.stages.protocol(work) {
            self.stages.order(msg);
        }
        while self.stages.release() {}
    }

    fn run_all(&mut self, budget: usize, next: impl Fn(&mut Stages<P, M, K>) -> Option<Work>) -> bool {
        let mut any = false;
        for _ in 0..budget {
            if !self.has_room() {
                break;
            }
            let Some(work) = next(&mut self.stages) else { break };
            self.run(work);
            any = true;
        }
        any
    }

    /// DMA that has completed, and what comes out of the order.
    fn complete(&mut self) -> bool {
        let (mut any, work) = self.stages.complete();
        while self.stages.release() {
            any = true;
        }
        if let Some(work) = work {
            self.run(work);
        }
        any | self.run_all(BUDGET, Stages::next_poisoned)
    }

    fn control(&mut self) -> bool {
        let mut any = false;
        for _ in 0..BUDGET {
            let (did, work) = if self.has_room() { self.stages.control_step() } else { (false, None) };
            if let Some(work) = work {
                self.run(work);
            }
            if !(did | self.post_completion()) {
                break;
            }
            any = true;
        }
        for _ in 0..BUDGET {
            let (did, work) = if self.has_room() { self.stages.packet() } else { (false, None) };
            if let Some(work) = work {
                self.run(work);
            }
            while self.stages.release() {}
            if !did {
                break;
            }
            any = true;
        }
        any
    }

    fn receive(&mut self) -> bool {
        // What doesn't fit behind the port waits there: if frames must be lost, then before they cost anything.
        if self.stages.dma.room() < 3 * BURST || self.stages.post.room() < BURST {
            return false;
        }
        let mut burst = core::mem::take(&mut self.burst);
        self.stages.receive(&mut burst);
        let any = !burst.is_empty();
        for frame in &burst {
            let rx = RxRef { source: Source::Port(frame.lease), len: frame.len, offload: frame.offload, tcp_at: 0 };
            if let Some(work) = self.stages.judge(rx) {
                self.run(work);
            }
            while self.stages.release() {}
        }
        burst.clear();
        self.burst = burst;
        any
    }

    fn host(&mut self) -> bool {
        let mut any = false;
        for _ in 0..self.stages.contexts.round().max(1) {
            any |= self.run_all(BURST, Stages::host_work);
            any |= self.stages.visit();
            any |= self.run_all(BURST, Stages::host_work);
        }
        any
    }

    fn timers(&mut self) -> bool {
        self.run_all(4 * BUDGET, Stages::timer_work)
    }

    fn send(&mut self) -> bool {
        self.run_all(BUDGET, Stages::send_work)
    }

    fn post_completion(&mut self) -> bool {
        let any = self.stages.dma.room() > 0 && self.stages.completion();
        while self.stages.release() {}
        any
    }

    /// Events and control completions.
    fn tell(&mut self) -> bool {
        let mut any = false;
        while self.stages.dma.room() > 1 && self.stages.event() {
            while self.stages.release() {}
            any = true;
        }
        while self.post_completion() {
            any = true;
        }
        any
    }
}

impl<P, M, K> Composition for Card<P, M, K>
where
    M: HostMemory,
    P: EthPort<M::Slice>,
    K: Kick,
{
    type Port = P;
    type Memory = M;

    fn attach_control(&mut self) {
        self.attach_control();
    }
    fn detach_control(&mut self) {
        self.detach_control();
    }
    fn reset(&mut self) {
        self.reset();
    }
    fn poll(&mut self, now: Instant) -> bool {
        self.poll(now)
    }
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.next_deadline(now)
    }
    fn park(&mut self, now: Instant) -> bool {
        self.park(now)
    }
    fn kicked(&mut self, ctx: CtxId) {
        self.kicked(ctx);
    }
    fn port(&mut self) -> &mut P {
        self.port()
    }
    fn memory(&mut self) -> &mut M {
        self.memory()
    }
    fn counters(&self) -> &Counters {
        self.counters()
    }
}
