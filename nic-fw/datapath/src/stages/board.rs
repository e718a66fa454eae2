//! What the board does with a card besides polling it.

use super::Stages;
use toe_abi::{CtxId, RegionId, counters::Counter};
use toe_hal::{EthPort, HostMemory, Instant, Kick};

impl<P, M, K> Stages<P, M, K>
where
    M: HostMemory,
    P: EthPort<M::Slice>,
    K: Kick,
{
    pub fn attach_control(&mut self) {
        self.control.attach();
        if self.contexts.open_control(self.now, &self.memory).is_err() {
            self.control.detach();
        }
    }

    pub fn detach_control(&mut self) {
        self.control.detach();
        self.contexts.close(CtxId::CONTROL);
    }

    /// Forgets all flows, contexts and regions.
    pub fn reset(&mut self) {
        self.detach_control();
        self.post.clear();
        self.post.flush(&mut self.port);
        for i in 0..self.flows.capacity() {
            if let Some(flow) = self.flows.id(i) {
                self.sched.forget(i);
                self.free(flow);
            }
        }
        while let Some(region) = self.tables.any_mapped() {
            while let Some(ctx) = self.contexts.of_region(region) {
                self.contexts.close(ctx);
            }
            self.memory.unbind(region);
            self.tables.set_region(region, None);
        }
        self.memory.unbind(RegionId::CONTROL);
        // What was under way has failed by now: give its frames back.
        while self.complete().0 || self.dma.can_release() {
            while let Some(released) = self.dma.release() {
                self.released(released);
            }
        }
        self.post.clear();
        self.tables.clear();
    }

    /// Whether work waits that needs no one from outside.
    pub fn is_busy(&self) -> bool {
        !self.dma.is_empty()
            || !self.post.is_empty()
            || self.sched.any_ready(self.now)
            || !self.contexts.is_quiet()
            || self.control.is_busy()
            || !self.poisoned.is_empty()
    }

    /// See [`Composition::next_deadline`](crate::Composition::next_deadline).
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if self.is_busy() {
            return Some(now);
        }
        let timer = self.sched.timers.next_tick().map(|tick| Instant(tick.saturating_mul(1000)));
        timer.into_iter().chain(self.sched.next_due()).chain(self.contexts.next_retry()).min()
    }

    /// See [`Composition::park`](crate::Composition::park).
    pub fn park(&mut self, now: Instant) -> bool {
        self.now = now;
        if self.is_busy() {
            return false;
        }
        if !self.contexts.park_all(now, &self.memory, &mut self.counters) {
            return false;
        }
        if self.control.any_packet(&self.memory) {
            self.contexts.unpark(CtxId::CONTROL, now, &self.memory, &mut self.counters);
            return false;
        }
        self.counters.count(Counter::Sleeps);
        true
    }

    pub fn kicked(&mut self, ctx: CtxId) {
        self.contexts.kicked(ctx, self.now, &self.memory, &mut self.counters);
    }
}
