//! What the board does with the stage besides stepping it: the control plane comes and goes, the core sleeps, the card is reset.

use super::Host;
use toe_abi::{CtxId, RegionId, counters::Counter};
use toe_hal::{Board, HostMemory, Instant};

impl<B: Board> Host<B> {
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

    /// Forgets all flows, contexts and regions. What is under way elsewhere comes back and finds nobody.
    pub fn reset(&mut self) {
        self.detach_control();
        for i in 0..self.directory.capacity() {
            if let Some(flow) = self.directory.id(i) {
                self.free(flow);
            }
        }
        while let Some(region) = self.tables.any_mapped() {
            while let Some(ctx) = self.contexts.of_region(region) {
                self.contexts.close(ctx);
            }
            self.memory.unbind(region);
            self.tables.set_region(region, None);
            self.observed.shares.reset(region.0);
        }
        self.memory.unbind(RegionId::CONTROL);
        self.tables.clear();
    }

    /// Whether work waits that needs no one from outside.
    pub fn is_busy(&self) -> bool {
        !self.postings.is_empty()
            || self.own_barrier
            || self.unfenced > 0
            || !self.contexts.is_quiet()
            || self.control.wants_core()
            || !self.work.is_empty()
            || self.raw.is_some()
            || self.injected.is_some()
            || !self.leases.is_empty()
    }

    /// When a full event queue is to be tried again.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.contexts.next_retry()
    }

    /// Parks every context that isn't, fences, looks again. True: nothing was found.
    pub fn park(&mut self, now: Instant) -> bool {
        self.now = now;
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
}
