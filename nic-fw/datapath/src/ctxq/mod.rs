//! Context queues: descriptors of applications in, events out, and who sleeps.
//!
//! ```text
//!   host-to-card queue ──fetch──► staged ──HcMsg──► protocol
//!   protocol ──Event (in order)──► one pending event per flow ──post──► card-to-host queue ──wake──► interrupt
//!                                   a list per context
//! ```
//!
//! Everything in a context's page and queues is a claim. Our own indices are kept here and never read back. An index
//! of theirs that makes no sense, or memory that faults, ends the context: it is marked failed, counted, and never looked at again.

mod events;
mod fetch;

use crate::{
    Counters,
    list::{Links, List},
    msg::Event,
    tables::Tables,
    transfers::FETCH,
};
use alloc::{boxed::Box, collections::VecDeque, vec, vec::Vec};
use fetch::Staged;
use toe_abi::{
    CtxId, FlowId, HostAddr, RegionId,
    context::{CONTEXT_PAGE_LEN, CardLine, ContextPage, HostLine},
    control::{CONTROL_ENTRIES, CONTROL_MSG_LEN, SUBMISSIONS_OFF, status},
    counters::Counter,
    desc::{DESC_LEN, MIN_ENTRIES},
};
use toe_hal::{Cookie, DmaFault, HostMemory, Instant, Kick};

/// Cookie of the one fetch of descriptors that may be under way.
pub const FETCH_DESCRIPTORS: Cookie = FETCH;

const HOST: u64 = core::mem::offset_of!(ContextPage, host) as u64;
const CARD: u64 = core::mem::offset_of!(ContextPage, card) as u64;
const EV_HEAD: u64 = HOST + core::mem::offset_of!(HostLine, ev_head) as u64;
const HOST_PARKED: u64 = HOST + core::mem::offset_of!(HostLine, parked) as u64;
const HC_HEAD: u64 = CARD + core::mem::offset_of!(CardLine, hc_head) as u64;
const EV_TAIL: u64 = CARD + core::mem::offset_of!(CardLine, ev_tail) as u64;
const CARD_PARKED: u64 = CARD + core::mem::offset_of!(CardLine, parked) as u64;
const CARD_FAILED: u64 = CARD + core::mem::offset_of!(CardLine, failed) as u64;

/// Retry of a full event queue whose owner doesn't kick: doubles from the first to the second, microseconds.
const RETRY_MIN_US: u64 = 1_000;
const RETRY_MAX_US: u64 = 64_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Closed,
    Open,
    /// Given up: says so in its page, keeps its id until it is closed.
    Failed,
}

/// One direction of a context's queues.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    pub base: HostAddr,
    /// A power of two.
    pub entries: u32,
    /// Bytes of a descriptor; its last word is the phase.
    pub desc_len: u32,
}

impl Queue {
    pub fn slot(&self, index: u32) -> HostAddr {
        self.base.add(u64::from(toe_abi::desc::slot(index, self.entries)) * u64::from(self.desc_len))
    }

    pub fn phase_at(&self, index: u32) -> HostAddr {
        self.slot(index).add(u64::from(self.desc_len) - 4)
    }

    pub fn phase(&self, index: u32) -> u32 {
        toe_abi::desc::phase(index, self.entries)
    }

    /// Whether descriptor `index` has been published.
    pub fn is_ready<M: HostMemory>(&self, index: u32, memory: &M) -> Result<bool, DmaFault> {
        Ok(memory.load(self.phase_at(index))? == self.phase(index))
    }
}

struct Context {
    state: State,
    /// Changes each time the context is opened, so that a late completion finds out that it is for an older one.
    opened: u32,
    page: HostAddr,
    hc: Queue,
    ev: Queue,
    /// Descriptors consumed.
    hc_head: u32,
    /// It is closing: no descriptor from this one on is read.
    hc_end: Option<u32>,
    /// Events given out (their phases follow in order).
    ev_tail: u32,
    /// As the host claimed last.
    ev_head: u32,
    pending: List,
    /// In `Contexts::backlog`.
    in_backlog: bool,
    /// Waits for room in its event queue.
    blocked: bool,
    /// That it is full has been counted.
    full: bool,
    /// Polled.
    active: bool,
    idle_since: Instant,
    /// In `Contexts::to_wake`.
    wake: bool,
}

impl Context {
    fn closed() -> Self {
        let nowhere = HostAddr::new(RegionId::NONE, 0);
        let queue = Queue { base: nowhere, entries: MIN_ENTRIES, desc_len: DESC_LEN as u32 };
        Self {
            state: State::Closed,
            opened: 0,
            page: nowhere,
            hc: queue,
            ev: queue,
            hc_head: 0,
            hc_end: None,
            ev_tail: 0,
            ev_head: 0,
            pending: List::default(),
            in_backlog: false,
            blocked: false,
            full: false,
            active: false,
            idle_since: Instant(0),
            wake: false,
        }
    }
}

/// What the last event of each flow said, or the next one will.
#[derive(Clone, Copy, Default)]
struct Shown {
    event: Event,
    /// The context in whose list of pending events the flow is.
    pending: Option<u16>,
    /// The end of this flow has been told to whoever cares; toed may know.
    settled: bool,
}

/// Where a context's page and queues are, as OPEN_CONTEXT says.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub region: RegionId,
    pub page: u64,
    pub hc_off: u64,
    pub hc_log2: u32,
    pub ev_off: u64,
    pub ev_log2: u32,
}

pub struct Contexts {
    contexts: Box<[Context]>,
    shown: Box<[Shown]>,
    /// Pending events, a list in each context.
    links: Links,
    settled: List,
    settled_links: Links,
    /// Contexts with pending events and, as far as we know, room.
    backlog: VecDeque<u16>,
    to_wake: Vec<u16>,
    active: Vec<u16>,
    /// Where the round over the active contexts goes on.
    turn: usize,
    staged: Staged,
    blocked: u32,
    retry_at: Instant,
    retry_us: u64,
    spin_us: u64,
    visit: u32,
}

impl Contexts {
    pub fn new(contexts: u16, flows: u32, spin_us: u64, visit: u32) -> Self {
        let n = usize::from(contexts.max(1));
        Self {
            contexts: (0..n).map(|_| Context::closed()).collect(),
            shown: vec![Shown::default(); flows as usize].into_boxed_slice(),
            links: Links::new(flows as usize),
            settled: List::default(),
            settled_links: Links::new(flows as usize),
            backlog: VecDeque::with_capacity(n),
            to_wake: Vec::with_capacity(n),
            active: Vec::with_capacity(n),
            turn: 0,
            staged: Staged::default(),
            blocked: 0,
            retry_at: Instant(0),
            retry_us: RETRY_MIN_US,
            spin_us,
            visit: visit.max(1),
        }
    }

    fn get(&self, ctx: CtxId) -> Option<&Context> {
        self.contexts.get(usize::from(ctx.0))
    }

    /// The region of an open context.
    pub fn region(&self, ctx: CtxId) -> Option<RegionId> {
        self.get(ctx).filter(|c| c.state == State::Open).map(|c| c.page.region)
    }

    /// Opens a context. Its queues start at index 0, so the host has zeroed them. Answers with a control status.
    pub fn open<M: HostMemory>(&mut self, ctx: CtxId, g: &Geometry, now: Instant, tables: &Tables, memory: &M) -> u32 {
        if self.get(ctx).is_none() || ctx == CtxId::CONTROL || !tables.is_application(g.region) {
            return status::INVALID;
        }
        if tables.region_len(g.region).is_none() {
            return status::NOT_FOUND;
        }
        let queue = |off: u64, log2: u32| -> Option<Queue> {
            let valid = (MIN_ENTRIES.trailing_zeros()..=20).contains(&log2) && off.is_multiple_of(DESC_LEN as u64);
            let fits = valid && tables.contains(g.region, off, (DESC_LEN as u64) << log2);
            fits.then(|| Queue { base: HostAddr::new(g.region, off), entries: 1 << log2, desc_len: DESC_LEN as u32 })
        };
        let page_fits = g.page.is_multiple_of(64) && tables.contains(g.region, g.page, CONTEXT_PAGE_LEN as u64);
        let (Some(hc), Some(ev), true) = (queue(g.hc_off, g.hc_log2), queue(g.ev_off, g.ev_log2), page_fits) else {
            return status::INVALID;
        };
        if self.contexts[usize::from(ctx.0)].state != State::Closed {
            return status::EXISTS;
        }
        match self.start(ctx, HostAddr::new(g.region, g.page), hc, ev, now, memory) {
            Ok(()) => status::OK,
            Err(DmaFault) => status::INVALID,
        }
    }

    /// Context 0: its queues hold control messages, which the control stage reads and writes itself.
    pub fn open_control<M: HostMemory>(&mut self, now: Instant, memory: &M) -> Result<(), DmaFault> {
        let region = RegionId::CONTROL;
        let queue = |off| Queue { base: HostAddr::new(region, off), entries: CONTROL_ENTRIES, desc_len: CONTROL_MSG_LEN as u32 };
        let submissions = queue(SUBMISSIONS_OFF);
        self.close(CtxId::CONTROL);
        self.start(CtxId::CONTROL, HostAddr::new(region, 0), submissions, submissions, now, memory)
    }

    fn start<M: HostMemory>(&mut self, ctx: CtxId, page: HostAddr, hc: Queue, ev: Queue, now: Instant, memory: &M) -> Result<(), DmaFault> {
        for word in [HC_HEAD, EV_TAIL, CARD_PARKED, CARD_FAILED] {
            memory.store(page.add(word), 0)?;
        }
        let c = &mut self.contexts[usize::from(ctx.0)];
        let opened = c.opened.wrapping_add(1);
        let wake = c.wake;
        let in_backlog = c.in_backlog;
        *c = Context { state: State::Open, opened, page, hc, ev, idle_since: now, wake, in_backlog, ..Context::closed() };
        self.activate(ctx);
        Ok(())
    }

    /// Forgets a context. Its flows keep what they have to say. Gives the region that it was in; `None`: it was not open.
    pub fn close(&mut self, ctx: CtxId) -> Option<RegionId> {
        let c = self.contexts.get_mut(usize::from(ctx.0)).filter(|c| c.state != State::Closed)?;
        let region = c.page.region;
        c.state = State::Closed;
        self.detach(ctx);
        Some(region)
    }

    /// The context is about to be closed: what its queue holds is still read, one queue full at most whatever its owner does. Gives the region
    /// that it is in; `None`: it is not open.
    pub fn drain(&mut self, ctx: CtxId) -> Option<RegionId> {
        let c = self.contexts.get_mut(usize::from(ctx.0)).filter(|c| c.state != State::Closed)?;
        let region = c.page.region;
        if c.state == State::Open {
            c.hc_end = Some(c.hc_head.wrapping_add(c.hc.entries));
            self.activate(ctx);
        }
        Some(region)
    }

    /// Whether everything has been read of a context that [`drain`](Self::drain)s.
    pub fn is_drained<M: HostMemory>(&mut self, ctx: CtxId, memory: &M, counters: &mut Counters) -> bool {
        let Some(c) = self.get(ctx).filter(|c| c.state == State::Open) else { return true };
        if self.staged.is_of(ctx) {
            return false;
        }
        if c.hc_end == Some(c.hc_head) {
            return true;
        }
        let ready = c.hc.is_ready(c.hc_head, memory);
        match ready {
            // It may have been parked meanwhile, and its owner need not kick.
            Ok(true) => self.activate(ctx),
            Ok(false) => {}
            Err(DmaFault) => self.fail(ctx, memory, counters),
        }
        ready == Ok(false)
    }

    /// Contexts that are open (or failed) in `region`.
    pub fn of_region(&self, region: RegionId) -> Option<CtxId> {
        let of_region = |c: &Context| c.state != State::Closed && c.page.region == region;
        self.contexts.iter().position(of_region).map(|i| CtxId(i as u16))
    }

    /// The context's memory faulted, or its indices make no sense.
    fn fail<M: HostMemory>(&mut self, ctx: CtxId, memory: &M, counters: &mut Counters) {
        let c = &mut self.contexts[usize::from(ctx.0)];
        if c.state != State::Open {
            return;
        }
        c.state = State::Failed;
        counters.count(Counter::ContextsFailed);
        // If this faults as well, there is nobody to tell.
        let _ = memory.store(c.page.add(CARD_FAILED), 1);
        self.detach(ctx);
    }

    /// A context that is not open any more: not polled, nothing pending.
    fn detach(&mut self, ctx: CtxId) {
        let c = &mut self.contexts[usize::from(ctx.0)];
        c.active = false;
        self.blocked -= u32::from(core::mem::take(&mut c.blocked));
        let mut pending = core::mem::take(&mut c.pending);
        self.active.retain(|&a| a != ctx.0);
        self.staged.cancel(ctx);
        while let Some(i) = self.links.pop(&mut pending) {
            self.shown[i as usize].pending = None;
            self.settle_if_given_up(i);
        }
    }

    fn activate(&mut self, ctx: CtxId) {
        let c = &mut self.contexts[usize::from(ctx.0)];
        if !core::mem::replace(&mut c.active, true) {
            self.active.push(ctx.0);
        }
    }

    /// The host has kicked: poll the context again.
    pub fn kicked<M: HostMemory>(&mut self, ctx: CtxId, now: Instant, memory: &M, counters: &mut Counters) {
        counters.count(Counter::Kicks);
        let Some(c) = self.contexts.get_mut(usize::from(ctx.0)).filter(|c| c.state == State::Open) else { return };
        c.idle_since = now;
        if c.active {
            return;
        }
        if memory.store(c.page.add(CARD_PARKED), 0).is_err() {
            return self.fail(ctx, memory, counters);
        }
        self.activate(ctx);
        self.retry_blocked(ctx);
    }

    /// Parks contexts that have been idle for a while.
    pub fn park_idle<M: HostMemory>(&mut self, now: Instant, memory: &M, counters: &mut Counters) {
        for at in (0..self.active.len()).rev() {
            let ctx = CtxId(self.active[at]);
            let c = &self.contexts[usize::from(ctx.0)];
            if now.micros().saturating_sub(c.idle_since.micros()) >= self.spin_us && !self.staged.is_of(ctx) && ctx != CtxId::CONTROL {
                self.set_parked(ctx, memory, counters);
                memory.fence();
                self.sleep_or_stay(ctx, now, memory, counters);
            }
        }
    }

    /// Parks all that are polled. True: nothing was found when looking again.
    pub fn park_all<M: HostMemory>(&mut self, now: Instant, memory: &M, counters: &mut Counters) -> bool {
        for at in (0..self.active.len()).rev() {
            self.set_parked(CtxId(self.active[at]), memory, counters);
        }
        // Partner: the fence of whoever publishes a descriptor and then reads the flag (`toe_sync::sleep`).
        memory.fence();
        for at in (0..self.active.len()).rev() {
            self.sleep_or_stay(CtxId(self.active[at]), now, memory, counters);
        }
        self.active.is_empty()
    }

    /// Polled again without a kick: the core found something else to do for it.
    pub fn unpark<M: HostMemory>(&mut self, ctx: CtxId, now: Instant, memory: &M, counters: &mut Counters) {
        let Some(c) = self.contexts.get_mut(usize::from(ctx.0)).filter(|c| c.state == State::Open && !c.active) else { return };
        c.idle_since = now;
        if memory.store(c.page.add(CARD_PARKED), 0).is_ok() {
            self.activate(ctx);
        } else {
            self.fail(ctx, memory, counters);
        }
    }

    fn set_parked<M: HostMemory>(&mut self, ctx: CtxId, memory: &M, counters: &mut Counters) {
        let flag = self.contexts[usize::from(ctx.0)].page.add(CARD_PARKED);
        if memory.store(flag, 1).is_err() {
            self.fail(ctx, memory, counters);
        }
    }

    /// Behind the fence: look at the queue again.
    fn sleep_or_stay<M: HostMemory>(&mut self, ctx: CtxId, now: Instant, memory: &M, counters: &mut Counters) {
        let c = &mut self.contexts[usize::from(ctx.0)];
        // Submissions are not read while their answers have no room: until then there is nothing to stay for.
        let deaf = ctx == CtxId::CONTROL && c.blocked;
        let looked = c.hc.is_ready(c.hc_head, memory).and_then(|ready| {
            let found = ready && !deaf;
            if found {
                c.idle_since = now;
                memory.store(c.page.add(CARD_PARKED), 0)?;
            }
            Ok(found)
        });
        match looked {
            Ok(true) => {}
            Ok(false) => {
                c.active = false;
                self.active.retain(|&a| a != ctx.0);
            }
            Err(DmaFault) => self.fail(ctx, memory, counters),
        }
    }

    /// The host of `ctx` is to be woken, if it sleeps, when the burst is done.
    pub fn wake(&mut self, ctx: CtxId) {
        let Some(c) = self.contexts.get_mut(usize::from(ctx.0)).filter(|c| c.state == State::Open) else { return };
        if !core::mem::replace(&mut c.wake, true) {
            self.to_wake.push(ctx.0);
        }
    }

    /// Interrupts those who sleep among those who have something new.
    pub fn interrupt<M: HostMemory>(&mut self, memory: &M, kick: &mut impl Kick, counters: &mut Counters) {
        if self.to_wake.is_empty() {
            return;
        }
        // Partner: the fence of a host that has set its flag and is about to look again (`toe_sync::sleep`).
        memory.fence();
        while let Some(ctx) = self.to_wake.pop() {
            let c = &mut self.contexts[usize::from(ctx)];
            c.wake = false;
            if c.state != State::Open {
                continue;
            }
            match memory.load(c.page.add(HOST_PARKED)) {
                Ok(0) => {}
                Ok(_) => {
                    counters.count(Counter::Interrupts);
                    kick.interrupt(CtxId(ctx));
                }
                Err(DmaFault) => self.fail(CtxId(ctx), memory, counters),
            }
        }
    }

    /// Whether anything here is under way inside the card.
    pub fn is_quiet(&self) -> bool {
        self.staged.is_empty() && self.backlog.is_empty() && self.settled.is_empty()
    }

    /// Flow `i` is released: nothing of it may be posted any more.
    pub fn forget(&mut self, flow: FlowId) {
        let i = flow.index;
        self.unlink(i);
        if self.settled_links.linked(i) {
            self.settled_links.unlink(&mut self.settled, i);
        }
        self.shown[i as usize] = Shown::default();
    }
}
