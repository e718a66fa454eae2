//! Who hears of acknowledgements.
//!
//! ```text
//!   toed sets the rate (RATED) ──► in the list until toed asks: what it asks costs as much as there is to tell
//!   its window is paced (PACED) ─► the scheduler, if the pace is another now
//! ```

use crate::{
    flows::{Phase, States},
    list::{Links, List},
    sched::Sched,
};
use toe_abi::{
    control::{ControlMsg, RATE_REPORTS_PER_MSG, RateOrder, RateReport},
    flow::{FlowState, flow_flags as ff, rate_words},
};
use toe_hal::Instant;

/// Orders in one message.
const ORDERS: usize = toe_abi::control::RATE_ORDERS_PER_MSG;

pub struct News {
    flows: Links,
    list: List,
}

impl News {
    pub fn new(flows: u32) -> Self {
        Self { flows: Links::new(flows as usize), list: List::default() }
    }

    /// The flow at `local` has heard from its peer; `before`: snd_una until then.
    #[inline]
    pub fn heard(&mut self, local: u32, state: &FlowState, before: u32, sched: &mut Sched, now: Instant) {
        if state.rx.flags & (ff::RATED | ff::PACED) != 0 && state.tx.snd_una != before {
            self.tell(local, state, sched, now);
        }
    }

    #[cold]
    fn tell(&mut self, local: u32, state: &FlowState, sched: &mut Sched, now: Instant) {
        if state.rx.flags & ff::RATED == 0 {
            follow(local, state, sched, now);
        } else if !self.flows.linked(local) {
            self.flows.push(&mut self.list, local);
        }
    }

    /// What RATES asks for: carries out the orders of the request, and reports as many flows as the answer has room for.
    pub fn exchange(&mut self, request: &ControlMsg, answer: &mut ControlMsg, states: &States, sched: &mut Sched, now: Instant) {
        let orders = usize::try_from(request.args[1]).unwrap_or(usize::MAX).min(ORDERS);
        for order in request.records::<RateOrder>(orders) {
            if states.phase(order.flow) == Some(Phase::Live) {
                sched.set_rate(states.local(order.flow), order.rate_kbps, now);
            }
        }
        let mut n = 0;
        while n < RATE_REPORTS_PER_MSG
            && let Some(local) = self.flows.pop(&mut self.list)
        {
            // It may have ended since, or got another algorithm; another flow may have its place.
            let flow = states.at(local).filter(|flow| states.phase(*flow) == Some(Phase::Live));
            let Some(flow) = flow.filter(|flow| states.state(*flow).rx.flags & ff::RATED != 0) else { continue };
            let s = states.state(flow);
            let report = RateReport {
                flow,
                acked: toe_tcp::tx_tail(s),
                unacked: s.tx.snd_max.wrapping_sub(s.tx.snd_una),
                mss: s.rx.mss.into(),
                marked: s.cc.words[rate_words::MARKED],
                srtt_us: s.tx.srtt_us,
                retransmits: s.id.retransmits,
                rate_kbps: sched.rate(local),
                algorithm: s.cc.algorithm,
                _reserved: [0; 3],
            };
            answer.set_record(n, &report);
            n += 1;
        }
        answer.args[0] = n as u64;
        answer.args[1] = states.groups().into();
    }
}

/// The scheduler keeps to the pace of the window that the flow at `local` has now.
fn follow(local: u32, state: &FlowState, sched: &mut Sched, now: Instant) {
    if let Some(kbps) = toe_tcp::cc::pace_kbps(state, sched.pace(local)) {
        sched.set_pace(local, kbps, now);
    }
}
