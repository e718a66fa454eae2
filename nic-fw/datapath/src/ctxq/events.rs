//! Events out: at most one pending for each flow, posted when the queue has room, with the flow's state as of the last
//! message that came out of the order.

use super::{Contexts, EV_HEAD, EV_TAIL, RETRY_MAX_US, RETRY_MIN_US, State};
use crate::{
    Counters,
    host::{Item, Posting},
    msg::{Event, Write},
};
use toe_abi::{
    CtxId, FlowId, HostAddr,
    counters::Counter,
    desc::{DESC_LEN, EventDesc, ev, ev_flags},
};
use toe_hal::{DmaFault, HostMemory, Instant};

impl Contexts {
    /// The flow's present state, to be posted to the context it is bound to.
    pub fn notify(&mut self, event: &Event) {
        let flow = event.flow;
        let i = flow.index;
        if self.shown[i as usize].event.flow != flow {
            self.forget(flow);
        }
        let wanted = self.context_of(event);
        if self.shown[i as usize].pending != wanted {
            self.unlink(i);
        }
        self.shown[i as usize].event.replace(event);
        match wanted {
            Some(ctx) => {
                if self.shown[i as usize].pending.replace(ctx).is_none() {
                    self.links.push(&mut self.contexts[usize::from(ctx)].pending, i);
                }
                self.backlog(ctx);
            }
            None => self.settle_if_given_up(i),
        }
    }

    /// The open context that an event goes to. It must be of the flow's region: ids of contexts are used again.
    fn context_of(&self, event: &Event) -> Option<u16> {
        let ctx = event.ctx_opaque.ctx;
        let open = self.region(ctx) == Some(event.region.0) && ctx != CtxId::CONTROL;
        open.then_some(ctx.0)
    }

    /// Takes flow `i` out of the list of pending events that it is in, if any.
    pub(super) fn unlink(&mut self, i: u32) {
        if let Some(ctx) = self.shown[i as usize].pending.take() {
            self.links.unlink(&mut self.contexts[usize::from(ctx)].pending, i);
        }
    }

    fn backlog(&mut self, ctx: u16) {
        let c = &mut self.contexts[usize::from(ctx)];
        if !c.blocked && !core::mem::replace(&mut c.in_backlog, true) {
            self.backlog.push_back(ctx);
        }
    }

    pub(super) fn settle_if_given_up(&mut self, i: u32) {
        let event = &self.shown[i as usize].event;
        if event.flags & ev_flags::CLOSED != 0 && event.given_up {
            self.settle(i);
        }
    }

    fn settle(&mut self, i: u32) {
        if !core::mem::replace(&mut self.shown[i as usize].settled, true) {
            self.settled_links.push(&mut self.settled, i);
        }
    }

    /// A flow whose end has been told: toed may know.
    pub fn next_settled(&mut self) -> Option<FlowId> {
        let i = self.settled_links.pop(&mut self.settled)?;
        Some(self.shown[i as usize].event.flow)
    }

    /// The next event that has room in its queue, of each context by turns.
    pub fn next_event<M: HostMemory>(&mut self, now: Instant, memory: &M, counters: &mut Counters) -> Option<Posting> {
        while let Some(ctx) = self.backlog.pop_front() {
            let c = &mut self.contexts[usize::from(ctx)];
            c.in_backlog = false;
            if c.state != State::Open || c.pending.is_empty() {
                continue;
            }
            match self.room(ctx, memory) {
                Ok(true) => {
                    let posting = self.post(ctx, counters);
                    if !self.contexts[usize::from(ctx)].pending.is_empty() {
                        self.backlog(ctx);
                    }
                    return posting;
                }
                Ok(false) => self.block(ctx, now, counters),
                Err(DmaFault) => self.fail(CtxId(ctx), memory, counters),
            }
        }
        None
    }

    /// Whether the event queue has room. An index that makes no sense is a fault of the context's memory.
    fn room<M: HostMemory>(&mut self, ctx: u16, memory: &M) -> Result<bool, DmaFault> {
        let c = &mut self.contexts[usize::from(ctx)];
        let used = c.ev_tail.wrapping_sub(c.ev_head);
        if used < c.ev.entries {
            return Ok(true);
        }
        let claimed = memory.load(c.page.add(EV_HEAD))?;
        let used = c.ev_tail.wrapping_sub(claimed);
        if used > c.ev.entries {
            return Err(DmaFault);
        }
        c.ev_head = claimed;
        Ok(used < c.ev.entries)
    }

    fn post(&mut self, ctx: u16, counters: &mut Counters) -> Option<Posting> {
        let c = &mut self.contexts[usize::from(ctx)];
        let i = self.links.pop(&mut c.pending)?;
        self.shown[i as usize].pending = None;
        c.full = false;
        let index = c.ev_tail;
        c.ev_tail = index.wrapping_add(1);
        counters.count(Counter::Events);
        let e = &self.shown[i as usize].event;
        let desc = EventDesc {
            kind: ev::FLOW,
            flags: e.flags,
            flow: e.flow,
            rx_head: e.rx_head,
            tx_tail: e.tx_tail,
            opaque: e.ctx_opaque.opaque,
            error: e.error,
            srtt_us: e.srtt_us,
            cwnd: e.cwnd,
            urgent: e.urgent,
            ..EventDesc::default()
        };
        let item = Item::Event {
            ctx: CtxId(ctx),
            opened: c.opened,
            phase_at: c.ev.phase_at(index),
            phase: c.ev.phase(index),
            flow: e.flow,
            last: e.flags & ev_flags::CLOSED != 0,
        };
        // All but the phase: that is published when the rest is there.
        let write = Write { source: 0, at: 0, len: DESC_LEN as u32 - 4, dst: c.ev.slot(index) };
        Some(Posting::with_bytes(item, write, zerocopy::transmute!(desc)))
    }

    /// An event's words are in memory: publish its phase.
    #[allow(clippy::too_many_arguments, reason = "the fields of one item")]
    pub fn publish<M: HostMemory>(
        &mut self,
        ctx: CtxId,
        opened: u32,
        (phase_at, phase): (HostAddr, u32),
        (flow, last): (FlowId, bool),
        fault: bool,
        memory: &M,
        counters: &mut Counters,
    ) {
        let c = &mut self.contexts[usize::from(ctx.0)];
        if c.state == State::Open && c.opened == opened {
            // The hint after the phase it hints at.
            let published = match fault {
                false => memory.store(phase_at, phase).and_then(|()| memory.store(c.page.add(EV_TAIL), c.ev_tail)),
                true => Err(DmaFault),
            };
            match published {
                Ok(()) => self.wake(ctx),
                Err(DmaFault) => {
                    counters.count(Counter::DmaFaults);
                    self.fail(ctx, memory, counters);
                }
            }
        }
        if last && self.shown[flow.index as usize].event.flow == flow {
            self.settle(flow.index);
        }
    }

    fn block(&mut self, ctx: u16, now: Instant, counters: &mut Counters) {
        let newly = !core::mem::replace(&mut self.contexts[usize::from(ctx)].full, true);
        if newly {
            counters.count(Counter::EventQueueFull);
        }
        self.await_room(CtxId(ctx), newly, now);
    }

    /// The queue of `ctx` is full, `newly` or still: it is tried again soon, then at growing intervals.
    pub fn await_room(&mut self, ctx: CtxId, newly: bool, now: Instant) {
        let c = &mut self.contexts[usize::from(ctx.0)];
        if core::mem::replace(&mut c.blocked, true) {
            return;
        }
        self.blocked += 1;
        let (soon, is_over) = (now.add_micros(RETRY_MIN_US), self.retry_at <= now);
        if newly || is_over {
            // One that has been full for long makes no other wait as long.
            self.retry_us = RETRY_MIN_US;
            self.retry_at = if is_over { soon } else { self.retry_at.min(soon) };
        }
    }

    /// Tries a full queue again.
    pub fn retry_blocked(&mut self, ctx: CtxId) {
        let c = &mut self.contexts[usize::from(ctx.0)];
        if core::mem::take(&mut c.blocked) {
            self.blocked -= 1;
            self.backlog(ctx.0);
        }
    }

    /// Tries all full queues again if it is time: their owners make room without a kick.
    pub fn retry_all<M: HostMemory>(&mut self, now: Instant, memory: &M, counters: &mut Counters) {
        if self.blocked == 0 || now < self.retry_at {
            return;
        }
        if self.contexts[usize::from(CtxId::CONTROL.0)].blocked {
            // It may have been parked with submissions in its queue, of which no kick tells any more.
            self.unpark(CtxId::CONTROL, now, memory, counters);
        }
        self.retry_us = (self.retry_us * 2).min(RETRY_MAX_US);
        self.retry_at = now.add_micros(self.retry_us);
        for ctx in 0..self.contexts.len() {
            self.retry_blocked(CtxId(ctx as u16));
        }
    }

    /// When to try full queues again.
    pub fn next_retry(&self) -> Option<Instant> {
        (self.blocked > 0).then_some(self.retry_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        counters::CounterSums,
        ctxq::Geometry,
        msg::{CtxOpaque, RegionOrNone},
        tables::Tables,
    };
    use alloc::vec::Vec;
    use toe_abi::{RegionId, control::status};
    use toe_hal::fake::FakeMemory;

    const NOW: Instant = Instant(0);

    /// Contexts 1 and 2, of regions 1 and 2, with large queues.
    fn contexts() -> (Contexts, FakeMemory) {
        let (mut contexts, mut memory, mut tables) = (Contexts::new(3, 8, 0, 32), FakeMemory::new(0), Tables::new(3, 1, 1));
        for i in 1..3 {
            let (region, len) = (RegionId(i), 1 << 16);
            memory.map_owned(u64::from(i) << 20, len);
            memory.bind(region, u64::from(i) << 20, len as u64).unwrap();
            tables.set_region(region, Some(len as u64));
            let geometry = Geometry { region, page: 0, hc_off: 4096, hc_log2: 3, ev_off: 8192, ev_log2: 8 };
            assert_eq!(contexts.open(CtxId(i), &geometry, NOW, &tables, &memory), status::OK);
        }
        (contexts, memory)
    }

    fn event(index: u32, ctx: u16) -> Event {
        let flow = FlowId { index, generation: 1 };
        let ctx_opaque = CtxOpaque { ctx: CtxId(ctx), opaque: 0 };
        Event { flow, ctx_opaque, region: RegionOrNone(RegionId(ctx)), ..Event::default() }
    }

    /// Events of one, of which there are new ones all the time, do not keep back another's.
    #[test]
    fn contexts_are_told_by_turns() {
        let (mut contexts, memory) = contexts();
        let mut counters = CounterSums::default().stage();
        for (index, ctx) in [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)] {
            contexts.notify(&event(index, ctx));
        }
        let mut told = Vec::new();
        for _ in 0..6 {
            let Some(Item::Event { ctx, flow, .. }) = contexts.next_event(NOW, &memory, &mut counters).map(|p| p.item) else { break };
            told.push(ctx.0);
            if ctx == CtxId(1) {
                contexts.notify(&event(flow.index, 1));
            }
        }
        assert_eq!(told, [1, 2, 1, 2, 1, 1]);
    }
}
