//! SO_MAX_PACING_RATE: how fast one connection sends at most. The application says it of a socket, the card does it to a flow.

use super::{
    ClientId, Core, Host,
    app::Holder,
    app::Role,
    outbox::Pending,
    requests::{Outcome, Result, done, failure},
    slots,
};
use rustix::io::Errno;
use toe_abi::{
    FlowId,
    app::{Reply, Request},
    control::{ControlMsg, kind, status},
};
use toe_engine::Owner;

/// Bytes per second, all ones: unlimited, as kbit/s, 0: unlimited. What is finer than a kbit/s is cut off, but for the last one.
fn kbps(bytes: u64) -> u64 {
    match bytes {
        // As on Linux, where a rate of nothing is none.
        0 | u64::MAX => 0,
        _ => (bytes / 125).max(1),
    }
}

impl<H: Host> Core<H> {
    /// The connection that a slot holds, of its own application, as long as both card and application have it.
    pub(super) fn flow_of_slot(&mut self, region: u16, slot: u32) -> std::result::Result<Option<FlowId>, Errno> {
        let app = self.app(region)?;
        let (owner, at) = (app.owner, app.slot_at(slot));
        let flow = match app.slot(slot).ok_or(Errno::BADF)?.role {
            Role::Connected { flow } => Some(flow),
            Role::Idle => slots::claimed_flow(&app.memory, at),
            Role::Connecting { .. } | Role::Listening { .. } => None,
        };
        // What a slot claims may be another's, or gone.
        let own = |f: &FlowId| self.flows.get(f).is_some_and(|f| f.owner == owner && f.holder != Holder::Released && !f.closed);
        Ok(flow.filter(own))
    }

    /// RATE. The card is asked in any case whether it can: without a connection, by a rate for none.
    pub(super) fn pace(&mut self, client: ClientId, region: u16, r: &Request) -> Result {
        let rate_kbps = kbps(r.args[0]);
        let flow = self.flow_of_slot(region, r.slot)?;
        let app = self.app(region)?;
        let owner = app.owner;
        app.slot(r.slot).ok_or(Errno::BADF)?.rate_kbps = rate_kbps;
        if flow.is_none() && rate_kbps == 0 {
            return done();
        }
        let pending = Pending::Pace { client, owner, slot: r.slot, rate_kbps };
        let rate_kbps = flow.map_or(rate_kbps, |flow| self.cap(flow, rate_kbps));
        self.outbox.send(&mut self.host, kind::SET_RATE, pending, |m| {
            m.flow = flow.unwrap_or(FlowId::NONE);
            m.args[0] = rate_kbps;
        });
        Ok(Outcome::Later)
    }

    /// The answer to SET_RATE. A card that can, and knows no such flow, will be told when there is one.
    pub(super) fn paced(&mut self, client: ClientId, owner: Owner, slot: u32, rate_kbps: u64, msg: &ControlMsg) {
        if msg.status != status::UNSUPPORTED || rate_kbps == 0 {
            return self.answer_later(client, Reply::default(), &[]);
        }
        let app = self.owners.get(&owner).and_then(|region| self.apps.get_mut(region));
        if let Some(slot) = app.and_then(|app| app.slot(slot)) {
            slot.rate_kbps = 0;
        }
        self.answer_later(client, failure(Errno::NOPROTOOPT), &[]);
    }

    /// What the card is to be told of a connection that may send `rate_kbps`: congestion control may want less.
    fn cap(&mut self, flow: FlowId, rate_kbps: u64) -> u64 {
        if let Some(f) = self.flows.get_mut(&flow) {
            f.cap_kbps = rate_kbps;
        }
        self.rates.cap(flow, rate_kbps)
    }

    /// A connection is there whose socket, or whose listener's, has a rate.
    pub(super) fn begin_pace(&mut self, flow: FlowId, rate_kbps: u64) {
        if rate_kbps > 0 {
            let rate_kbps = self.cap(flow, rate_kbps);
            self.outbox.tell(&mut self.host, kind::SET_RATE, flow, [rate_kbps, 0, 0, 0, 0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_never_exceeded_and_never_none() {
        let rates = [0, 1, 124, 125, 249, 250, 125_000, u64::MAX - 1, u64::MAX].map(kbps);
        assert_eq!(rates, [0, 1, 1, 1, 1, 2, 1000, (u64::MAX - 1) / 125, 0]);
    }
}
