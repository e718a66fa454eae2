//! The scheduler of a flow group: which flow may send next, and when each must be looked at again.
//!
//! ```text
//!   ready ── urgent ─────────────────────────────► list: first, neither paced nor limited ─────────────────┐
//!     ▲  └── data ───► its pace ────── due ──────► list of its application ──► applications by weight ─────┴──► next
//!     │                  └─ not yet ──► wheel ─────▲                             └─ over its rate: set aside       │
//!     └────────────────────────── there may be more ◄── sent ◄─────────────────────────────────────────────────────┘
//! ```
//!
//! Owed ACKs, retransmissions and probes are urgent; but one flow with data comes behind so many of them (`URGENT_IN_A_ROW`). Data waits for
//! three things: the flow's pace (a timing wheel, as in Carousel), its application's rate and turn among the applications (`apps`), and its
//! own turn among the application's flows, which lasts for a quantum. Urgent bytes are charged like others; they wait for nothing. A turn in which a flow
//! sends nothing costs its application as much as an empty segment: else it could keep the others waiting with flows that come in vain.
//! A call does as much however many flows and applications there are (`cargo xtask bench --scheduler`).

mod apps;
mod flow;

use crate::{
    list::{Links, List},
    wheel::Wheel,
};
use apps::Apps;
use flow::{Flow, Place, TICK_US};
use toe_hal::Instant;
use toe_sync::share::Shares;

/// Flows that one call takes out of the pacing wheel at most: after a long sleep many may be due.
const RELEASES: usize = 32;

/// Flows with something urgent that are named one after the other while another waits with data: an application may cause some itself.
const URGENT_IN_A_ROW: u32 = 8;

pub struct Sched {
    flows: Links<Flow>,
    urgent: List,
    /// The flow that `next` has named for something urgent.
    visit: Option<u32>,
    /// Visits since a flow was last named for its data.
    visits: u32,
    apps: Apps,
    pacing: Wheel,
    quantum: i32,
    /// When last called with a time.
    now: Instant,
    /// One deadline for each flow, in milliseconds.
    pub timers: Wheel,
}

impl Sched {
    pub fn new(flows: usize, quantum_bytes: u32, shares: Shares) -> Self {
        let quantum = quantum_bytes.clamp(1, 1 << 30) as i32;
        Self {
            flows: Links::with(flows, Flow::new(0)),
            urgent: List::default(),
            visit: None,
            visits: 0,
            apps: Apps::new(shares, quantum),
            pacing: Wheel::new(flows),
            quantum,
            now: Instant(0),
            timers: Wheel::new(flows),
        }
    }

    /// Index `i` is a new flow of application `app`: nothing to send, not paced.
    pub fn assign(&mut self, i: u32, app: u16) {
        self.forget(i);
        self.flows[i] = Flow::new(self.apps.place(app));
    }

    /// What was last set as the rate of flow `i`.
    pub fn rate(&self, i: u32) -> u32 {
        self.flows[i].limit_kbps()
    }

    /// What flow `i` keeps to; 0: it is not paced.
    pub fn pace(&self, i: u32) -> u32 {
        self.flows[i].kbps()
    }

    /// Flow `i` keeps to this rate, 0: to none; the pace of its window counts again when it is set anew.
    pub fn set_rate(&mut self, i: u32, kbps: u32, now: Instant) {
        self.now = now;
        self.flows[i].set_limit(kbps, now);
        self.requeue(i);
    }

    /// The pace of flow `i`'s window, not 0: its rate stays a limit.
    pub fn set_pace(&mut self, i: u32, kbps: u32, now: Instant) {
        self.now = now;
        self.flows[i].set_pace(kbps, now);
        self.requeue(i);
    }

    /// Flow `i` may be due at another time than before.
    fn requeue(&mut self, i: u32) {
        if self.flows[i].place == Place::Paced {
            self.pacing.disarm(i);
            self.queue(i);
        }
    }

    /// Flow `i` may have something to send.
    pub fn ready(&mut self, i: u32, urgent: bool) {
        let Flow { place, app, .. } = self.flows[i];
        match place {
            Place::Urgent | Place::Visited => return,
            Place::Out if !urgent => return self.queue(i),
            _ if !urgent => return,
            Place::Queued => self.apps.unlink(app, i, &mut self.flows),
            Place::Paced => self.pacing.disarm(i),
            // A turn is kept meanwhile.
            Place::Out | Place::Turn => {}
        }
        self.flows[i].place = Place::Urgent;
        self.flows.push(&mut self.urgent, i);
    }

    /// Flow `i`, which is nowhere, has data.
    fn queue(&mut self, i: u32) {
        let flow = &mut self.flows[i];
        if flow.is_due(self.now) {
            flow.place = Place::Queued;
            self.apps.push(flow.app, i, &mut self.flows);
        } else {
            flow.place = Place::Paced;
            let due = flow.due_tick();
            self.pacing.arm(i, due);
        }
    }

    /// Whose turn it is: the same flow's until [`sent`](Self::sent) or [`idle`](Self::idle) ends it, unless another one has
    /// something urgent.
    pub fn next(&mut self, now: Instant) -> Option<u32> {
        self.release(now);
        let data_is_due = self.visits >= URGENT_IN_A_ROW && self.visit.is_none() && self.apps.any_ready();
        if !data_is_due && let Some(i) = self.next_urgent() {
            return Some(i);
        }
        let i = self.next_data()?;
        if self.flows[i].place == Place::Urgent {
            // Data is due: it keeps its turn, and is visited before.
            self.flows.unlink(&mut self.urgent, i);
            self.begin_visit(i);
        }
        Some(i)
    }

    /// The same of those with something urgent alone.
    pub fn next_urgent(&mut self) -> Option<u32> {
        if self.visit.is_none() {
            let i = self.flows.pop(&mut self.urgent)?;
            self.begin_visit(i);
        }
        self.visit
    }

    fn begin_visit(&mut self, i: u32) {
        self.visit = Some(i);
        self.flows[i].place = Place::Visited;
    }

    fn next_data(&mut self) -> Option<u32> {
        let (i, begins) = self.apps.next(&mut self.flows)?;
        if begins {
            self.flows[i].begin_turn(self.quantum);
        }
        Some(i)
    }

    /// What has become due takes part again.
    fn release(&mut self, now: Instant) {
        self.now = now;
        self.apps.release(now);
        for _ in 0..RELEASES {
            let Some(i) = self.pacing.expire(now.micros() / TICK_US) else { break };
            self.queue(i);
        }
    }

    /// Flow `i` has sent a segment of `bytes` and may have more.
    pub fn sent(&mut self, i: u32, bytes: u32, urgent: bool, now: Instant) {
        self.now = now;
        let flow = &mut self.flows[i];
        flow.charge(bytes, self.quantum, now);
        let Flow { app, place, .. } = *flow;
        self.apps.charge(app, bytes, place == Place::Visited, now);
        self.end_visit(i);
        let flow = &mut self.flows[i];
        if flow.place == Place::Turn && !(flow.has_credit() && flow.is_due(now)) {
            flow.drop_credit();
            flow.place = Place::Out;
            self.apps.end_turn(app);
        }
        self.ready(i, urgent);
        self.apps.settle(app);
    }

    /// After a visit a flow goes on with its turn, if it was its turn.
    fn end_visit(&mut self, i: u32) {
        let flow = &mut self.flows[i];
        if flow.place == Place::Visited {
            self.visit = None;
            self.visits = self.visits.saturating_add(1);
            flow.place = if self.apps.is_turn_of(flow.app, i) { Place::Turn } else { Place::Out };
        } else {
            self.visits = 0;
        }
    }

    /// Flow `i` has nothing to send now.
    pub fn idle(&mut self, i: u32) {
        self.end_visit(i);
        let Flow { app, place, is_in_vain, .. } = self.flows[i];
        if place == Place::Turn {
            self.flows[i].place = Place::Out;
            if is_in_vain {
                self.came_in_vain(app);
            }
        }
        if self.apps.is_turn_of(app, i) {
            self.flows[i].drop_credit();
            self.apps.end_turn(app);
            self.apps.settle(app);
        }
    }

    #[cold]
    fn came_in_vain(&mut self, app: u16) {
        self.apps.charge(app, 0, false, self.now);
    }

    /// Flow `i` has ended: no turn, no timer.
    pub fn forget(&mut self, i: u32) {
        self.timers.disarm(i);
        self.idle(i);
        let Flow { place, app, .. } = self.flows[i];
        match place {
            Place::Urgent => self.flows.unlink(&mut self.urgent, i),
            Place::Queued => self.apps.unlink(app, i, &mut self.flows),
            Place::Paced => self.pacing.disarm(i),
            Place::Out | Place::Visited | Place::Turn => {}
        }
        self.flows[i].place = Place::Out;
    }

    /// Most bytes of one frame of flow `i` now, if that is more than a segment; 0: it must not send new data, whatever else it sends.
    pub fn frame_max(&self, i: u32, now: Instant) -> u32 {
        let flow = &self.flows[i];
        if self.apps.is_aside(flow.app) { 0 } else { flow.frame_max(now) }
    }

    /// Whether something goes before new data.
    pub fn any_urgent(&self) -> bool {
        self.visit.is_some() || !self.urgent.is_empty()
    }

    /// Whether [`next`](Self::next) may name a flow now.
    pub fn any_ready(&self, now: Instant) -> bool {
        self.visit.is_some() || !self.urgent.is_empty() || self.apps.any_ready() || self.next_due().is_some_and(|due| due <= now)
    }

    /// When to call [`next`](Self::next) for what waits for its time now; it may be too early, but never too late.
    pub fn next_due(&self) -> Option<Instant> {
        let tick = self.pacing.next_tick().into_iter().chain(self.apps.next_tick()).min()?;
        Some(Instant(tick.saturating_mul(TICK_US)))
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
