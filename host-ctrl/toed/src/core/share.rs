//! What applications get of the card when they compete: weights and rates, as operators set them.
//!
//! An application has its share from its start: the default, or what `toectl run` has reserved for it. It names the reservation by
//! a ticket, which says nothing but which one; so no application can raise what it was given.

use super::{Core, Host, JobId, Report, app::Stage, observe::refused, outbox::Pending, report::Job};
use crate::admin::{Failure, Share, Ticket};
use std::collections::VecDeque;
use toe_abi::{
    RegionId,
    control::{ControlMsg, kind, status},
};
use toe_engine::Owner;

/// Reservations that are kept; beyond, the oldest goes.
const TICKETS_MAX: usize = 4096;
/// What a card that answers UNSUPPORTED is said not to do.
const WHAT: &str = "limit applications";

/// Whose share is to be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The application of this process.
    Pid(i32),
    /// The application with this region.
    Region(u32),
}

/// What of a share is to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShareChange {
    pub weight: Option<u32>,
    pub rate_kbps: Option<u64>,
}

impl ShareChange {
    fn of(self, share: Share) -> Result<Share, Failure> {
        if self == Self::default() {
            return Err(Failure::new("neither a weight nor a rate is given"));
        }
        let weight = self.weight.unwrap_or(share.weight);
        if !(1..=Share::WEIGHT_MAX).contains(&weight) {
            return Err(Failure::new(format!("weight {weight}: must be from 1 to {}", Share::WEIGHT_MAX)));
        }
        Ok(Share { weight, rate_kbps: self.rate_kbps.unwrap_or(share.rate_kbps) })
    }
}

/// Shares of applications to come, oldest first.
#[derive(Default)]
pub(super) struct Tickets(VecDeque<(u64, Share)>);

impl Tickets {
    /// The share that a ticket stands for.
    pub fn find(&self, ticket: u64) -> Option<Share> {
        self.0.iter().find(|(t, _)| *t == ticket).map(|(_, share)| *share)
    }

    fn add(&mut self, ticket: u64, share: Share) {
        if self.0.len() >= TICKETS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((ticket, share));
    }
}

impl<H: Host> Core<H> {
    /// Sets an application's share: `Report::Share` follows.
    pub fn set_share(&mut self, whose: Whose, change: ShareChange) -> Result<JobId, Failure> {
        let region = self.region_of(whose)?;
        let app = self.apps.get_mut(&region).ok_or_else(|| gone(whose))?;
        if app.stage == Stage::Unmapping {
            return Err(gone(whose));
        }
        let before = app.share;
        let share = change.of(before.unwrap_or_default())?;
        app.share = Some(share);
        let owner = app.owner;
        let job = self.jobs.start(Job::Question);
        self.tell_share(region, share, Pending::SetShare { job, owner, share, before });
        Ok(job)
    }

    /// Keeps a share for an application to come, which will show `ticket`: `Report::Ticket` follows. The card is asked whether
    /// it can: a share of no region in particular.
    pub fn reserve(&mut self, ticket: u64, change: ShareChange) -> Result<JobId, Failure> {
        let share = change.of(self.config.share)?;
        let job = self.jobs.start(Job::Question);
        self.tell_share(RegionId::NONE.0, share, Pending::Reserve { job, ticket, share });
        Ok(job)
    }

    /// The region is mapped: tells the card the application's share, unless it is what all have.
    pub(super) fn begin_share(&mut self, region: u16) {
        let Some(app) = self.apps.get(&region) else { return };
        let owner = app.owner;
        if let Some(share) = app.share.filter(|share| *share != Share::default()) {
            self.tell_share(region, share, Pending::BeginShare { owner });
        }
    }

    fn tell_share(&mut self, region: u16, share: Share, pending: Pending) {
        self.outbox.send(&mut self.host, kind::SET_SHARE, pending, |m| {
            m.args = [region.into(), share.weight.into(), share.rate_kbps, 0, 0];
        });
    }

    /// The answer to SET_SHARE of an operator.
    pub(super) fn share_set(&mut self, job: JobId, owner: Owner, share: Share, before: Option<Share>, msg: &ControlMsg) {
        let ok = msg.status == status::OK;
        if let Some(app) = self.owners.get(&owner).and_then(|region| self.apps.get_mut(region)) {
            app.share = if ok { Some(share) } else { before };
        }
        let report = match msg.status {
            status::OK => Report::Share(share),
            status::NOT_FOUND => Report::Failed(Failure::new("the application has just ended")),
            other => Report::Failed(refused(WHAT, other)),
        };
        self.jobs.finish(job, report);
    }

    /// The answer to the question whether there are shares at all. A card that has them knows no such region.
    pub(super) fn reserved(&mut self, job: JobId, ticket: u64, share: Share, msg: &ControlMsg) {
        if msg.status == status::UNSUPPORTED {
            return self.jobs.finish(job, Report::Failed(refused(WHAT, msg.status)));
        }
        self.tickets.add(ticket, share);
        self.jobs.finish(job, Report::Ticket(Ticket { ticket }));
    }

    /// The answer to [`begin_share`](Self::begin_share)'s message.
    pub(super) fn share_begun(&mut self, owner: Owner, ok: bool) {
        if let Some(app) = self.owners.get(&owner).and_then(|region| self.apps.get_mut(region))
            && !ok
        {
            app.share = None;
        }
    }

    fn region_of(&self, whose: Whose) -> Result<u16, Failure> {
        let has = |pid| self.apps.iter().find(|(_, a)| a.clients.iter().filter_map(|c| self.clients.get(c)).any(|c| c.pid == pid));
        let region = match whose {
            Whose::Region(region) => u16::try_from(region).ok(),
            Whose::Pid(pid) => has(pid).map(|(region, _)| *region),
        };
        region.ok_or_else(|| gone(whose))
    }
}

fn gone(whose: Whose) -> Failure {
    Failure::new(match whose {
        Whose::Pid(pid) => format!("process {pid} does not use the card; 'toectl status' lists those that do"),
        Whose::Region(region) => format!("no application has region {region}; 'toectl status' lists them"),
    })
}
