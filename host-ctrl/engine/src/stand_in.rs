//! A router that has died, or resigned, must not take along the connections that go through it if another one leads to as much (RFC 4861,
//! 6.3.5 and 7.3.3; RFC 1122, 3.3.1.4). Flows name their next hop by its index in the card's table, and stay with it: the MAC address
//! of another router stands there meanwhile.

use crate::{
    Action, Engine,
    neighbours::{Mac, Neighbour, Role},
};

impl Engine {
    /// MAC address that the card is to have for a next hop: its own, or that of whoever stands in.
    pub(crate) fn hop_mac(&self, hop: Option<u16>) -> Option<Mac> {
        let n = self.neighbours.get(hop?)?;
        let others = || self.neighbours.get(n.stand_in?)?.mac;
        if n.role == Role::Resigned { others().or(n.mac) } else { n.mac.or_else(others) }
    }

    /// Tells the card, if this is no longer what it has.
    pub(crate) fn announce_hop(&mut self, index: u16, before: Option<Mac>) {
        let mac = self.hop_mac(Some(index));
        if mac != before {
            self.actions.push_back(Action::NextHop { index, mac });
        }
    }

    /// Routers have come or gone.
    pub(crate) fn routers_changed(&mut self) {
        if !self.routes.take_changed() {
            return;
        }
        for index in self.neighbours.routers().map(|(index, _)| index).collect::<Vec<_>>() {
            let before = self.hop_mac(Some(index));
            let Some(n) = self.neighbours.get_mut(index) else { continue };
            n.role = match n.role {
                Role::Host => continue,
                _ if self.routes.is_router(&n.ip) => Role::Router,
                Role::Router | Role::Resigned => Role::Resigned,
            };
            match n.role {
                Role::Resigned if n.has_flows() => self.choose_stand_in(index),
                Role::Router if n.mac.is_none() => {}
                _ => self.drop_stand_in(index),
            }
            self.announce_hop(index, before);
        }
    }

    /// The next hop at `index` is silent or no router any more, and flows refer to it: chooses who stands in, or keeps who does.
    pub(crate) fn choose_stand_in(&mut self, index: u16) {
        let Some(n) = self.neighbours.get(index).filter(|n| n.role != Role::Host) else { return };
        if n.stand_in.and_then(|i| self.neighbours.get(i)).is_some_and(|s| !s.is_silent() && self.routes.is_router(&s.ip)) {
            return;
        }
        // Who needs one itself is none: so nobody waits for itself.
        let is_fit = |n: &Neighbour| !n.is_silent() && n.stand_in.is_none();
        let is_known_unfit = |ip| self.neighbours.find(ip).and_then(|i| self.neighbours.get(i)).is_some_and(|n| !is_fit(n));
        let chosen = self.routes.instead_of(&n.ip).into_iter().find(|other| !is_known_unfit(*other));
        self.drop_stand_in(index);
        let Some(other) = chosen.and_then(|ip| self.neighbour(ip, true)) else { return };
        if let Some(n) = self.neighbours.get_mut(index) {
            n.stand_in = Some(other);
        }
        let Some(n) = self.neighbours.get_mut(other) else { return };
        n.refs = n.refs.saturating_add(1);
        // Of one that is still to be found it is one when it is.
        self.counters.router_failovers += u64::from(n.mac.is_some());
        self.make_sure(other);
    }

    /// The next hop at `index` speaks for itself again, or nobody needs it any more.
    pub(crate) fn drop_stand_in(&mut self, index: u16) {
        let other = self.neighbours.get_mut(index).and_then(|n| n.stand_in.take());
        if let Some(other) = other {
            self.neighbours.release(other);
        }
    }

    /// Next hops that the one at `index` stands in for.
    pub(crate) fn stood_in_for(&self, index: u16) -> Vec<u16> {
        self.neighbours.routers().filter(|(_, n)| n.stand_in == Some(index)).map(|(i, _)| i).collect()
    }
}
