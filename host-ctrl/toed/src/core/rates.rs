//! Rates of flows whose congestion control is ours: each control interval the card says which flows have news, the engine's algorithms judge,
//! and the card gets their rates with the next question.
//!
//! ```text
//!   tick ─► group 0: RATES (rates to set) ──► reports ─► rates to set ─┐   a whole answer: the same group again, up to MESSAGES_MAX
//!           group 1: ...               ◄───────────────────────────────┘   else the next group; after the last one: the next tick
//! ```
//!
//! The card only speaks of flows that have heard from their peer, so a tick costs what the active ones cost. Nothing is asked while there
//! is no such flow, and less often while all of them are silent.

use super::{Core, Host, outbox::Pending};
use std::collections::HashMap;
use toe_abi::{
    FlowId,
    control::{ControlMsg, RATE_ORDERS_PER_MSG, RATE_REPORTS_PER_MSG, RateOrder, RateReport, kind, status},
    flow::cc,
};
use toe_engine::rates::{self, Params};

/// Messages of a tick: what is left then comes in the next, the flows that have waited longest first.
const MESSAGES_MAX: u32 = 64;
/// A card that claims more flow groups is lying.
const GROUPS_MAX: u64 = 1024;
/// Longest time between two ticks while the flows are silent.
const SILENT_TICK_US: u64 = 10_000;

struct Paced {
    flow: rates::Flow,
    /// SO_MAX_PACING_RATE, kbit/s; 0: unlimited.
    cap_kbps: u64,
}

impl Paced {
    /// What the card is to do, kbit/s; 0: unlimited.
    fn kbps(&self) -> u32 {
        let rates = [u64::from(self.flow.rate_kbps()), self.cap_kbps];
        let least = rates.into_iter().filter(|rate| *rate != 0).min().unwrap_or(0);
        u32::try_from(least).unwrap_or(u32::MAX)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Rates {
    params: Params,
    flows: HashMap<FlowId, Paced>,
    /// When to ask next; none: there are no flows, or an answer is awaited.
    tick_at_us: Option<u64>,
    /// Messages of this tick so far.
    messages: u32,
    /// Time between the last two ticks.
    interval_us: u64,
    /// A flow had news in this tick.
    heard: bool,
    /// An answer is awaited.
    asked: bool,
    /// Rates to set with the next question, of the group that it goes to.
    orders: Vec<RateOrder>,
}

impl Rates {
    pub fn new(params: Params) -> Self {
        Self { params, ..Self::default() }
    }

    /// The rate with which a flow begins, kbit/s; 0: unlimited. `rtt_us`: 0 if unknown.
    pub fn initial(&self, algorithm: u8, rtt_us: u32) -> u32 {
        if cc::is_rate(algorithm) { rates::initial_kbps(&self.params, algorithm, rtt_us) } else { 0 }
    }

    /// A flow is there, or has got another algorithm.
    pub fn begin(&mut self, flow: FlowId, algorithm: u8, rtt_us: u32, now_us: u64) {
        if !cc::is_rate(algorithm) {
            return self.end(flow);
        }
        self.flows.insert(flow, Paced { flow: rates::Flow::new(&self.params, algorithm, rtt_us), cap_kbps: 0 });
        if !self.asked {
            let at = now_us + self.params.granularity_us;
            self.tick_at_us = Some(self.tick_at_us.map_or(at, |t| t.min(at)));
        }
    }

    /// The algorithm by which a flow's rate is controlled.
    pub fn controls(&self, flow: FlowId) -> Option<u8> {
        self.flows.get(&flow).map(|p| p.flow.algorithm())
    }

    pub fn end(&mut self, flow: FlowId) {
        self.flows.remove(&flow);
        if self.flows.is_empty() {
            self.tick_at_us = None;
        }
    }

    /// The application limits a flow. What the card is to be told, both limits in mind, kbit/s; 0: unlimited.
    pub fn cap(&mut self, flow: FlowId, cap_kbps: u64) -> u64 {
        let Some(paced) = self.flows.get_mut(&flow) else { return cap_kbps };
        paced.cap_kbps = cap_kbps;
        paced.kbps().into()
    }

    pub fn deadline(&self) -> Option<u64> {
        self.tick_at_us
    }

    /// A flow's report; an order if its rate has changed.
    fn report(&mut self, report: &RateReport, now_us: u64) {
        // It may have ended, or have got another algorithm, while the report was under way.
        let Some(paced) = self.flows.get_mut(&report.flow).filter(|p| p.flow.algorithm() == report.algorithm) else { return };
        paced.flow.report(&self.params, report, now_us);
        self.heard = true;
        let rate_kbps = paced.kbps();
        if rate_kbps != report.rate_kbps {
            self.orders.push(RateOrder { flow: report.flow, rate_kbps, _reserved: 0 });
        }
    }

    /// The last group has answered: when to ask again.
    fn tick_done(&mut self, now_us: u64) {
        let shortest = self.params.granularity_us;
        self.interval_us = if self.heard { shortest } else { (self.interval_us * 2).clamp(shortest, SILENT_TICK_US.max(shortest)) };
        self.tick_at_us = (!self.flows.is_empty()).then_some(now_us + self.interval_us);
    }
}

impl<H: Host> Core<H> {
    /// To be called when it is time for a tick.
    pub(super) fn rate_tick(&mut self) {
        let r = &mut self.rates;
        (r.tick_at_us, r.messages, r.heard) = (None, 0, false);
        r.asked = true;
        self.ask_rates(0);
    }

    fn ask_rates(&mut self, group: u16) {
        let r = &mut self.rates;
        r.messages += 1;
        let n = r.orders.len().min(RATE_ORDERS_PER_MSG);
        let orders: Vec<RateOrder> = r.orders.drain(..n).collect();
        self.outbox.send(&mut self.host, kind::RATES, Pending::Rates { group }, |m| {
            (m.args[0], m.args[1]) = (group.into(), n as u64);
            for (i, order) in orders.iter().enumerate() {
                m.set_record(i, order);
            }
        });
    }

    /// The answer to RATES.
    pub(super) fn rates_told(&mut self, group: u16, msg: &ControlMsg, now_us: u64) {
        let r = &mut self.rates;
        if msg.status != status::OK {
            // Such a card was told a rate once, or none, and that is that.
            tracing::warn!(status = msg.status, "the card does not tell how flows stand: rates are not controlled");
            (r.asked, r.tick_at_us) = (true, None);
            return;
        }
        let n = usize::try_from(msg.args[0]).unwrap_or(usize::MAX).min(RATE_REPORTS_PER_MSG);
        for report in msg.records::<RateReport>(n) {
            r.report(&report, now_us);
        }
        let more = n == RATE_REPORTS_PER_MSG || !r.orders.is_empty();
        let next = if more && r.messages < MESSAGES_MAX { group } else { group.saturating_add(1) };
        // Orders are of the group that was asked: what did not fit into the tick will be found out again.
        if next != group {
            r.orders.clear();
        }
        if u64::from(next) < msg.args[1].min(GROUPS_MAX) {
            self.ask_rates(next);
        } else {
            r.asked = false;
            r.tick_done(now_us);
        }
    }
}
