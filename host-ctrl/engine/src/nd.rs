//! Neighbour discovery (RFC 4861): ask, answer, learn. What routers say: autoconf.rs.

use crate::{
    Engine,
    addr::Ip,
    addresses, build,
    neighbours::{Mac, State},
};
use toe_wire::{
    ipv6::UNSPECIFIED,
    nd::{Advertisement, FRAME_MAX, Nd, Solicitation},
};

impl Engine {
    /// Asks for the MAC of `target`, `known` or everybody.
    pub(crate) fn solicit(&mut self, known: Option<Mac>, target: Ip) {
        // None as long as ours are tentative: asked again later.
        let Some(src) = self.addresses.source_for(&target) else { return };
        let mac = self.config.mac;
        let message = if known.is_some() { Solicitation::unicast(src, mac, target) } else { Solicitation::multicast(src, mac, target) };
        self.transmit_solicitation(known.unwrap_or_default(), &message);
    }

    pub(crate) fn transmit_solicitation(&mut self, to: Mac, message: &Solicitation) {
        self.counters.nd_solicitations_sent += 1;
        self.transmit(build::frame(FRAME_MAX, |out| message.write(to, self.config.mac, self.vlan(), out)));
    }

    /// A message that came from `mac`.
    pub(crate) fn nd(&mut self, mac: Mac, message: &Nd<'_>) {
        self.counters.nd_received += 1;
        // What is our own has come back (RFC 4862, 5.4.3).
        let taken = self.is_station(mac)
            && match message {
                Nd::Solicitation(s) => self.solicitation(mac, s),
                Nd::Advertisement(a) => self.advertisement(mac, a),
                Nd::RouterAdvertisement(ra) => self.router_advertisement(ra),
                Nd::RouterSolicitation | Nd::Redirect => false,
            };
        if !taken {
            self.counters.nd_ignored += 1;
        }
    }

    /// RFC 4861, 7.2.3; RFC 4862, 5.4.3. False: nothing of ours.
    fn solicitation(&mut self, mac: Mac, s: &Solicitation) -> bool {
        let Some(state) = self.addresses.get(&s.target).map(|own| own.state) else { return false };
        let probe = s.src == UNSPECIFIED;
        match state {
            // Somebody else wants it as well: neither gets it.
            addresses::State::Tentative(_) if probe => self.duplicate(&s.target, mac),
            addresses::State::Tentative(_) | addresses::State::Duplicate => return false,
            addresses::State::Preferred | addresses::State::Deprecated => {
                if !probe && !self.asked_by(mac, s) {
                    return false;
                }
                if self.config.answer_arp {
                    self.transmit_advertisement(mac, &s.reply(self.config.mac));
                }
            }
        }
        true
    }

    fn transmit_advertisement(&mut self, to: Mac, message: &Advertisement) {
        self.counters.nd_advertisements_sent += 1;
        self.transmit(build::frame(FRAME_MAX, |out| message.write(to, self.config.mac, self.vlan(), out)));
    }

    /// Who asks for us will be talked to. False: nobody of this link.
    fn asked_by(&mut self, mac: Mac, s: &Solicitation) -> bool {
        if self.addresses.is_own(&s.src) {
            self.counters.nd_conflicts += 1;
            self.conflict(&s.src, mac);
            return false;
        }
        let named = s.source_mac.unwrap_or(mac);
        if !self.is_plausible(named, s.src) {
            return false;
        }
        // One that asks the station it knows names none of its own, and is not learned from (RFC 4861, 7.2.3).
        if s.source_mac.is_some() {
            self.meet(s.src);
            self.named(s.src, named);
        }
        true
    }

    /// One that we know, or have just begun to, says that its MAC address is this.
    pub(crate) fn named(&mut self, ip: Ip, mac: Mac) {
        for index in self.neighbours.all(ip) {
            if self.neighbours.get(index).is_some_and(|n| n.mac != Some(mac)) {
                self.suppose(index, mac);
            }
        }
    }

    /// RFC 4861, 7.2.5; RFC 4862, 5.4.4. False: nothing for us.
    fn advertisement(&mut self, mac: Mac, a: &Advertisement) -> bool {
        match self.addresses.get(&a.target).map(|own| own.state) {
            Some(addresses::State::Tentative(_)) => {
                self.duplicate(&a.target, mac);
                return true;
            }
            Some(_) => {
                self.counters.nd_conflicts += 1;
                self.conflict(&a.target, mac);
                return true;
            }
            None => {}
        }
        // Answers that nobody asked for add nothing.
        let heeded: Vec<_> = self.neighbours.all(a.target).filter_map(|index| self.advertised_at(index, a)).collect();
        if !a.is_router && heeded.contains(&true) {
            self.routes.no_router(&a.target);
            self.routers_changed();
        }
        !heeded.is_empty()
    }

    /// Whether the neighbour at `index` is believed to have said so. None: it says nothing.
    fn advertised_at(&mut self, index: u16, a: &Advertisement) -> Option<bool> {
        let n = self.neighbours.get(index)?;
        let mac = a.target_mac.or(n.mac).filter(|mac| self.is_station(*mac))?;
        match n.mac {
            Some(known) if known != mac && !a.overrides => {
                // Not believed, but no longer is what we had.
                if n.state == State::Reachable {
                    self.suppose(index, known);
                }
                return Some(false);
            }
            _ if a.solicited => self.heard(index, mac),
            Some(known) if known == mac => {}
            _ => self.suppose(index, mac),
        }
        Some(true)
    }
}
