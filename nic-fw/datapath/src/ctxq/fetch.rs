//! Descriptors in: looked at by phase, fetched in one go, copied once, then judged.

use super::{CARD_PARKED, Contexts, FETCH_DESCRIPTORS, HC_HEAD, State};
use crate::{
    Counters,
    msg::{HcMsg, HostOp},
};
use toe_abi::{
    CtxId,
    counters::Counter,
    desc::{DESC_LEN, HostDesc, hc},
};
use toe_hal::{Dma, DmaFault, HostMemory, Instant, memory::FETCH_MAX};
use toe_tcp::HostUpdate;
use zerocopy::FromBytes;

/// Most descriptors in one fetch.
const BATCH: u32 = (FETCH_MAX / DESC_LEN) as u32;

/// A batch of descriptors of one context, on its way or waiting to be taken.
pub(super) struct Staged {
    bytes: [u8; FETCH_MAX],
    ctx: CtxId,
    next: u32,
    count: u32,
    fetching: bool,
    /// Its context went away meanwhile.
    cancelled: bool,
}

impl Default for Staged {
    fn default() -> Self {
        Self { bytes: [0; FETCH_MAX], ctx: CtxId::NONE, next: 0, count: 0, fetching: false, cancelled: false }
    }
}

impl Staged {
    pub fn is_empty(&self) -> bool {
        !self.fetching && self.next == self.count
    }

    pub fn is_of(&self, ctx: CtxId) -> bool {
        !self.is_empty() && self.ctx == ctx
    }

    pub fn cancel(&mut self, ctx: CtxId) {
        if self.is_of(ctx) {
            self.cancelled = true;
            self.next = self.count;
        }
    }
}

impl Contexts {
    /// Visits the next polled context, unless a batch is still being worked on. True: something was found.
    pub fn visit<M: HostMemory>(&mut self, now: Instant, memory: &mut M, counters: &mut Counters) -> bool {
        if !self.staged.is_empty() || self.active.is_empty() {
            return false;
        }
        self.turn = (self.turn + 1) % self.active.len();
        let ctx = CtxId(self.active[self.turn]);
        if ctx == CtxId::CONTROL {
            return false;
        }
        self.retry_blocked(ctx);
        match self.fetch(ctx, now, memory) {
            Ok(found) => found,
            Err(DmaFault) => {
                self.fail(ctx, memory, counters);
                true
            }
        }
    }

    /// Contexts in a whole round of [`visit`](Self::visit).
    pub fn round(&self) -> usize {
        self.active.len()
    }

    fn fetch<M: HostMemory>(&mut self, ctx: CtxId, now: Instant, memory: &mut M) -> Result<bool, DmaFault> {
        let c = &mut self.contexts[usize::from(ctx.0)];
        let to_end = c.hc.entries - toe_abi::desc::slot(c.hc_head, c.hc.entries);
        let to_last = c.hc_end.map_or(u32::MAX, |end| end.wrapping_sub(c.hc_head));
        let most = to_end.min(to_last).min(BATCH).min(self.visit);
        let mut count = 0;
        // Acquire loads of the phases, so that what is fetched after them is what was published with them.
        while count < most && c.hc.is_ready(c.hc_head.wrapping_add(count), memory)? {
            count += 1;
        }
        if count == 0 {
            return Ok(false);
        }
        c.idle_since = now;
        let bytes = &mut self.staged.bytes[..count as usize * DESC_LEN];
        let fetching = match memory.fetch(c.hc.slot(c.hc_head), bytes, FETCH_DESCRIPTORS)? {
            Dma::Done => false,
            Dma::Pending => true,
            Dma::Full => return Ok(false),
        };
        let s = &mut self.staged;
        (s.ctx, s.next, s.count, s.fetching, s.cancelled) = (ctx, 0, count, fetching, false);
        Ok(true)
    }

    /// The fetch has come back.
    pub fn fetched<M: HostMemory>(&mut self, result: Result<(), DmaFault>, memory: &mut M, counters: &mut Counters) {
        let s = &mut self.staged;
        if !core::mem::take(&mut s.fetching) {
            return;
        }
        if result.is_ok() {
            memory.fetched(FETCH_DESCRIPTORS, &mut s.bytes[..s.count as usize * DESC_LEN]);
        }
        if s.cancelled || result.is_err() {
            s.next = s.count;
        }
        if result.is_err() && !s.cancelled {
            let ctx = s.ctx;
            counters.count(Counter::DmaFaults);
            self.fail(ctx, memory, counters);
        }
    }

    /// Whether a fetch is under way.
    pub fn is_fetching(&self) -> bool {
        self.staged.fetching
    }

    /// The next descriptor that makes sense so far. Publishes how many were consumed after the last of a batch.
    pub fn next_work<M: HostMemory>(&mut self, memory: &M, counters: &mut Counters) -> Option<HcMsg> {
        while !self.staged.fetching && self.staged.next < self.staged.count {
            let s = &mut self.staged;
            let at = s.next as usize * DESC_LEN;
            let desc = HostDesc::read_from_bytes(&s.bytes[at..at + DESC_LEN]).unwrap_or_default();
            s.next += 1;
            let (ctx, last) = (s.ctx, s.next == s.count);
            counters.count(Counter::HcDescriptors);
            let msg = self.judge(ctx, &desc, counters);
            self.consumed(ctx, last, memory, counters);
            if msg.is_some() {
                return msg;
            }
        }
        None
    }

    fn judge(&self, ctx: CtxId, desc: &HostDesc, counters: &mut Counters) -> Option<HcMsg> {
        let region = self.region(ctx)?;
        let op = match desc.kind {
            hc::UPDATE => HostOp::Update,
            hc::REBIND => HostOp::Rebind { opaque: desc.opaque },
            hc::ABORT => HostOp::Abort,
            hc::OPTIONS => HostOp::Options(desc.options),
            hc::CLOSE => HostOp::Close,
            _ => {
                counters.count(Counter::HcBadKind);
                return None;
            }
        };
        let update = HostUpdate { tx_head: desc.tx_head, rx_tail: desc.rx_tail, flags: desc.flags, urgent: desc.urgent };
        Some(HcMsg { ctx, region, flow: desc.flow, op, update })
    }

    fn consumed<M: HostMemory>(&mut self, ctx: CtxId, last: bool, memory: &M, counters: &mut Counters) {
        let c = &mut self.contexts[usize::from(ctx.0)];
        if c.state != State::Open {
            return;
        }
        c.hc_head = c.hc_head.wrapping_add(1);
        if last && memory.store(c.page.add(HC_HEAD), c.hc_head).is_err() {
            self.fail(ctx, memory, counters);
        }
    }

    /// The control stage has consumed submissions up to `head`; or, `head` unchanged, found none.
    pub fn control_consumed<M: HostMemory>(&mut self, head: u32, now: Instant, memory: &M) {
        let c = &mut self.contexts[usize::from(CtxId::CONTROL.0)];
        if c.state == State::Open && c.hc_head != head {
            (c.hc_head, c.idle_since) = (head, now);
            // A fault means that the control region is gone: the board will say so.
            let _ = memory.store(c.page.add(HC_HEAD), head);
        }
    }

    /// The control stage does something else than reading submissions.
    pub fn control_busy(&mut self, now: Instant) {
        self.contexts[usize::from(CtxId::CONTROL.0)].idle_since = now;
    }

    /// Parks context 0 if it has been idle. `look_again` looks at what else its owner kicks for.
    pub fn park_control<M: HostMemory>(&mut self, now: Instant, memory: &M, counters: &mut Counters, look_again: impl FnOnce(&M) -> bool) {
        let ctx = CtxId::CONTROL;
        let c = &self.contexts[usize::from(ctx.0)];
        if !c.active || now.micros().saturating_sub(c.idle_since.micros()) < self.spin_us {
            return;
        }
        self.set_parked(ctx, memory, counters);
        memory.fence();
        if look_again(memory) {
            let c = &mut self.contexts[usize::from(ctx.0)];
            c.idle_since = now;
            let _ = memory.store(c.page.add(CARD_PARKED), 0);
            return;
        }
        self.sleep_or_stay(ctx, now, memory, counters);
    }

    /// Whether context 0 is polled.
    pub fn control_active(&self) -> bool {
        self.contexts[usize::from(CtxId::CONTROL.0)].active
    }
}
