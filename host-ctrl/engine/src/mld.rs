//! Tells switches and routers which groups we listen to (RFC 3810): the solicited-node group of each address of IPv6. Where switches look
//! (RFC 4541), nobody finds us else.
//!
//! ```text
//!   address is asked for ──► report, from no address      (RFC 4862, 5.4.2)
//!   address is usable ─────► report of all, from the link-local address (RFC 3590)
//!   query ────► delay ─────► report of all, in the query's version
//! ```
//!
//! A group that we leave is not told: it is not in the next answer.

use crate::{Engine, addr::is_v4, addresses::State, build, neighbours::Mac, timers::TimerId};
use toe_wire::{
    TooLong,
    ipv6::{UNSPECIFIED, solicited_node},
    mld::{FRAME_MAX, Query, Reason, Report},
};

/// Answers are at least that far apart, whoever asks.
const ANSWER_MIN_US: u64 = 10_000;

type Group = [u8; 16];

/// An answer that is due, and in which version.
#[derive(Default)]
pub(crate) struct Listening {
    deadline: Option<u64>,
    is_v1: bool,
}

impl Engine {
    /// Of all addresses that we want or have.
    fn groups(&self) -> Vec<Group> {
        let wanted = self.addresses.iter().filter(|own| own.state != State::Duplicate && !is_v4(&own.ip()));
        let mut groups: Vec<Group> = wanted.map(|own| solicited_node(&own.ip())).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn report(&self) -> Report {
        Report { src: self.addresses.link_local().unwrap_or(UNSPECIFIED), from: self.config.mac, vlan: self.vlan() }
    }

    /// `ip` is about to be asked for.
    pub(crate) fn join_group_of(&mut self, ip: &[u8; 16]) {
        self.tell_groups(Reason::Joined, &[solicited_node(ip)]);
    }

    /// An address is usable: what was said from no address is said again from one.
    pub(crate) fn join_groups(&mut self) {
        if self.report().src != UNSPECIFIED {
            self.tell_groups(Reason::Joined, &self.groups());
        }
    }

    fn tell_groups(&mut self, reason: Reason, groups: &[Group]) {
        self.transmit_report(|report, out| report.write(reason, groups, out));
    }

    fn transmit_report(&mut self, write: impl FnOnce(&Report, &mut [u8]) -> Result<usize, TooLong>) {
        self.counters.mld_reports_sent += 1;
        let report = self.report();
        self.transmit(build::frame(FRAME_MAX, |out| write(&report, out)));
    }

    /// RFC 3810, 6.2. Each host answers at another moment, so that not all do at once: the MAC address tells when.
    pub(crate) fn mld_query(&mut self, mac: Mac, query: &Query) {
        self.counters.mld_queries += 1;
        let groups = self.groups();
        if !self.is_station(mac) || groups.is_empty() || query.group != UNSPECIFIED && !groups.contains(&query.group) {
            return;
        }
        let [.., a, b] = self.config.mac;
        let share = u64::from(u16::from_be_bytes([a, b]));
        let delay_us = (u64::from(query.max_delay_ms) * 1000 * share) >> 16;
        let at = self.now.saturating_add(delay_us.max(ANSWER_MIN_US));
        let at = self.listening.deadline.map_or(at, |before| before.min(at));
        self.listening.is_v1 = query.is_v1;
        self.timers.set(TimerId::Listening, &mut self.listening.deadline, Some(at));
    }

    pub(crate) fn mld_timer(&mut self) {
        self.listening.deadline = None;
        let groups = self.groups();
        if !self.listening.is_v1 {
            return self.tell_groups(Reason::Asked, &groups);
        }
        for group in groups {
            self.transmit_report(|report, out| report.write_v1(&group, out));
        }
    }
}
