//! How the card comes by addresses of IPv6: asks whether others have them (RFC 4862, 5.4), makes some of what routers advertise (5.5, with
//! numbers of RFC 7217), and keeps what routers say of the link (RFC 4861, 6.3).
//!
//! ```text
//!   link-local address ──► probes ──► preferred ──► router solicitations ──► advertisement ─┬─► prefix ──► address ──► probes ──► preferred
//!                                                                                           └─► routes, MTU, hop limit
//! ```
//!
//! Probes count only while the port's link is up: what is asked while it is down reaches nobody, so that address is asked for when it comes up.
//!
//! Advertisements are taken only if the operator has said so (`Config::slaac`): whoever is on the link can send them. They add to what
//! the operator has set, and end with their time; how much they can add is bounded.

use crate::{
    Action, Config, Engine,
    addr::{Ip, Prefix, is_v4},
    addresses::{FOREVER, Own, Source, State},
    build,
    isn::Keys,
    neighbours::Mac,
    route::Route,
    timers::TimerId,
};
use toe_wire::{
    ipv6::{self, is_link_local, is_multicast},
    nd::{self, Preference, PrefixInfo, RouterAdvertisement, Solicitation},
};

/// RFC 7559, 2: routers are asked until one answers, after this time first and then after twice as long each time, up to an hour.
const SOLICITATION_US: u64 = 4_000_000;
const SOLICITATION_MAX_US: u64 = 3600 * 1_000_000;
/// Addresses that are tried after the first if others have them (RFC 7217, 6).
const ATTEMPTS: u8 = 3;
/// Bits of a prefix that addresses can be made of: the rest is our number.
const PREFIX_LEN: u8 = 64;
/// RFC 4862, 5.5.3 (e): nobody can shorten an address's life to less, microseconds.
const VALID_MIN_US: u64 = 2 * 3600 * 1_000_000;
/// Between two times that operators are told that an address is somebody else's as well.
const CONFLICT_US: u64 = 10_000_000;

/// What routers have said of the link, and what we still ask.
pub(crate) struct Autoconf {
    /// The port's; also of a card that does not tell.
    link_is_up: bool,
    /// When the next router solicitation is due, and how long after it the one behind it.
    solicit_us: u64,
    solicit_again_us: u64,
    /// Of packets of IPv6.
    pub mtu: u16,
    pub hop_limit: u8,
    deadline: Option<u64>,
}

impl Autoconf {
    pub fn new(config: &Config) -> Self {
        Self {
            link_is_up: true,
            solicit_us: FOREVER,
            solicit_again_us: SOLICITATION_US,
            mtu: config.mtu,
            hop_limit: config.ttl,
            deadline: None,
        }
    }
}

impl Engine {
    /// Begins with the operator's addresses, and the link-local one where there is IPv6.
    pub(crate) fn begin_addresses(&mut self) {
        for prefix in self.config.addresses.clone() {
            self.routes.add(Route::new(prefix, None));
            self.add_address(prefix, Source::Operator, FOREVER, FOREVER);
        }
        if self.config.slaac || self.addresses.has(false) {
            self.routes.add(Route::new(Prefix::LINK_LOCAL, None));
            let operators = self.addresses.iter().any(|own| is_link_local(&own.ip()));
            if !operators {
                self.make_address(Prefix::LINK_LOCAL, 0, FOREVER, FOREVER);
            }
        }
        self.addresses_timer();
    }

    fn add_address(&mut self, prefix: Prefix, source: Source, preferred_until_us: u64, valid_until_us: u64) {
        let state = if is_v4(&prefix.ip) { State::Preferred } else { State::Tentative(self.config.dad_transmits) };
        let own = Own { prefix, source, state, probe_us: self.first_probe_us(), preferred_until_us, valid_until_us, conflict_us: 0 };
        if !self.addresses.add(own) {
            self.counters.addresses_refused += 1;
        } else if state.is_usable() {
            self.announce(&own, true);
        }
    }

    /// When a new address is asked for. Without probes it need not wait for the link (RFC 4862, 5.1: DupAddrDetectTransmits).
    fn first_probe_us(&self) -> u64 {
        if self.autoconf.link_is_up || self.config.dad_transmits == 0 { self.now } else { FOREVER }
    }

    /// Tells the card whether an address is ours.
    fn announce(&mut self, own: &Own, add: bool) {
        self.actions.push_back(Action::Address { ip: own.ip(), prefix: own.prefix.written_len(), add });
    }

    /// An address of `prefix` with a number that only we can tell, the same each time (RFC 7217, 5).
    fn make_address(&mut self, prefix: Prefix, attempt: u8, preferred_until_us: u64, valid_until_us: u64) {
        let number = Keys::interface_id(&self.config.stable_secret, &prefix.ip, &self.config.mac, attempt);
        let mut ip = prefix.ip;
        ip[8..].copy_from_slice(&number);
        if self.addresses.get(&ip).is_none() {
            let prefix = Prefix { ip, len: PREFIX_LEN };
            self.add_address(prefix, Source::Made(attempt), preferred_until_us, valid_until_us);
        }
    }

    /// Somebody else uses an address that is ours, or was to be (RFC 5227, 2.4; RFC 4862, 5.4.5).
    pub(crate) fn conflict(&mut self, ip: &Ip, mac: Mac) {
        let Some(own) = self.addresses.get_mut(ip).filter(|own| own.conflict_us <= self.now) else { return };
        own.conflict_us = self.now.saturating_add(CONFLICT_US);
        self.actions.push_back(Action::Conflict { ip: *ip, mac });
    }

    /// Somebody else has this tentative address (RFC 4862, 5.4.5).
    pub(crate) fn duplicate(&mut self, ip: &Ip, mac: Mac) {
        self.counters.addresses_duplicate += 1;
        self.conflict(ip, mac);
        let Some(own) = self.addresses.get_mut(ip) else { return };
        own.state = State::Duplicate;
        let Own { prefix, source, preferred_until_us, valid_until_us, .. } = *own;
        if let Source::Made(attempt) = source
            && attempt < ATTEMPTS
        {
            self.addresses.remove(ip);
            self.make_address(prefix, attempt + 1, preferred_until_us, valid_until_us);
        }
        self.addresses_timer();
    }

    /// Does what is due with addresses, advertised routes and router solicitations.
    pub(crate) fn addresses_timer(&mut self) {
        while let Some(own) = self.addresses.due(self.now) {
            self.step(own);
        }
        self.routes.expire(self.now);
        self.routers_changed();
        if self.autoconf.solicit_us <= self.now {
            self.solicit_routers();
        }
        let next = [self.addresses.next_deadline(), self.routes.next_deadline(), Some(self.autoconf.solicit_us)];
        let next = next.into_iter().flatten().filter(|at| *at != FOREVER).min();
        self.timers.set(TimerId::Addresses, &mut self.autoconf.deadline, next);
    }

    /// Something is due with an address: afterwards it rests.
    fn step(&mut self, due: Own) {
        let ip = due.ip();
        if due.valid_until_us <= self.now {
            self.addresses.remove(&ip);
            if due.state.is_usable() {
                self.announce(&due, false);
            }
            return;
        }
        let interval = self.config.dad_interval_us;
        let Some(own) = self.addresses.get_mut(&ip) else { return };
        match own.state {
            State::Tentative(0) => {
                own.state = State::Preferred;
                self.announce(&due, true);
                self.join_groups();
                if is_link_local(&ip) {
                    self.ask_for_routers();
                }
            }
            State::Tentative(left) => {
                own.state = State::Tentative(left - 1);
                own.probe_us = self.now.saturating_add(interval);
                self.join_group_of(&ip);
                self.transmit_solicitation([0; 6], &Solicitation::probe(ip));
            }
            State::Preferred => own.state = State::Deprecated,
            State::Deprecated | State::Duplicate => {}
        }
    }

    /// Solicitations begin anew.
    fn ask_for_routers(&mut self) {
        if self.config.slaac {
            (self.autoconf.solicit_us, self.autoconf.solicit_again_us) = (self.now, SOLICITATION_US);
        }
    }

    pub(crate) fn link_changed(&mut self, up: bool) {
        if core::mem::replace(&mut self.autoconf.link_is_up, up) != up {
            self.probe_anew();
            if up {
                self.introduce_again();
            }
            self.addresses_timer();
        }
    }

    /// What has not been asked to the end counts for nothing, as the link was down for a part of it.
    fn probe_anew(&mut self) {
        let at = self.first_probe_us();
        for own in self.addresses.iter_mut().filter(|own| matches!(own.state, State::Tentative(_))) {
            (own.state, own.probe_us) = (State::Tentative(self.config.dad_transmits), at);
        }
    }

    /// The port's link has come back, and may be another one: switches that look at reports are to know our groups, and routers are asked
    /// anew (RFC 4861, 6.3.7; RFC 4862, 5.3).
    fn introduce_again(&mut self) {
        self.join_groups();
        if self.addresses.link_local().is_some() {
            self.ask_for_routers();
        }
    }

    /// RFC 4861, 6.3.7.
    fn solicit_routers(&mut self) {
        let src = self.addresses.link_local().unwrap_or(ipv6::UNSPECIFIED);
        let again_us = self.autoconf.solicit_again_us;
        self.autoconf.solicit_us = self.now.saturating_add(again_us);
        self.autoconf.solicit_again_us = (2 * again_us).min(SOLICITATION_MAX_US);
        self.counters.router_solicitations_sent += 1;
        self.transmit(build::frame(nd::FRAME_MAX, |out| nd::router_solicitation(&src, self.config.mac, self.vlan(), out)));
    }

    fn until(&self, seconds: u32) -> u64 {
        if seconds == u32::MAX { FOREVER } else { self.now.saturating_add(u64::from(seconds) * 1_000_000) }
    }

    /// RFC 4861, 6.3.4. False: we do not listen to routers.
    pub(crate) fn router_advertisement(&mut self, ra: &RouterAdvertisement<'_>) -> bool {
        if !self.config.slaac {
            return false;
        }
        self.counters.router_advertisements += 1;
        if ra.lifetime_s > 0 {
            self.autoconf.solicit_us = FOREVER;
        }
        self.advertised(Route::new(Prefix::ALL_V6, Some(ra.src)), ra.preference, self.until(ra.lifetime_s.into()));
        if let Some(mac) = ra.source_mac.filter(|mac| self.is_station(*mac)) {
            self.named(ra.src, mac);
        }
        // What is below the operator's would only cut connections off.
        if ra.hop_limit > 0 {
            self.autoconf.hop_limit = ra.hop_limit.max(self.config.ttl);
        }
        if let Some(mtu) = ra.mtu.and_then(|mtu| u16::try_from(mtu).ok()).filter(|mtu| (ipv6::MTU_MIN..=self.config.mtu).contains(mtu)) {
            self.autoconf.mtu = mtu;
        }
        for info in ra.prefixes() {
            self.prefix(&info);
        }
        self.addresses_timer();
        true
    }

    fn advertised(&mut self, route: Route, preference: Preference, until_us: u64) {
        if !self.routes.advertised(route, preference, until_us, self.now) {
            self.counters.routes_refused += 1;
        }
    }

    /// RFC 4861, 6.3.4; RFC 4862, 5.5.3.
    fn prefix(&mut self, info: &PrefixInfo) {
        let dest = Prefix { ip: info.prefix, len: info.len };
        if info.len > 128 || is_link_local(&dest.ip) || is_multicast(&dest.ip) || is_v4(&dest.ip) {
            return;
        }
        if info.on_link {
            self.advertised(Route::new(dest.masked(), None), Preference::default(), self.until(info.valid_s));
        }
        if info.autonomous && info.len == PREFIX_LEN && info.preferred_s <= info.valid_s {
            self.address_of(dest.masked(), self.until(info.preferred_s), self.until(info.valid_s));
        }
    }

    /// Makes an address of `prefix`, or says how long the one that was made of it may be used.
    fn address_of(&mut self, prefix: Prefix, preferred_until_us: u64, valid_until_us: u64) {
        let now = self.now;
        let made = self.addresses.iter().find(|o| matches!(o.source, Source::Made(_)) && prefix.contains(&o.ip())).map(Own::ip);
        match made.and_then(|ip| self.addresses.get_mut(&ip)) {
            Some(own) => {
                // RFC 4862, 5.5.3 (e): who forges an advertisement cannot end an address soon.
                let shortest = own.valid_until_us.min(now.saturating_add(VALID_MIN_US));
                own.valid_until_us = valid_until_us.max(shortest);
                own.preferred_until_us = preferred_until_us;
                if own.state == State::Deprecated && preferred_until_us > now {
                    own.state = State::Preferred;
                }
            }
            None if valid_until_us > now => self.make_address(prefix, 0, preferred_until_us, valid_until_us),
            None => {}
        }
    }
}
