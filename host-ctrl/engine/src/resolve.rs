//! Next hops and their MAC addresses: ask, hear, ask again before trusting an old answer (RFC 1122, 2.3.2.1; RFC 4861, 7.2 and 7.3).
//! By ARP for IPv4, by neighbour discovery for IPv6.

use crate::{
    Action, ConnId, Engine,
    addr::{Ip, is_host},
    neighbours::{Mac, Neighbour, Role, State},
    timers::TimerId,
};
use toe_abi::flow::as_v4;

/// Requests of a probe that go to the known MAC only, before all are asked (RFC 1122, 2.3.2.1; RFC 4861, 10: MAX_UNICAST_SOLICIT).
const UNICAST_PROBES: u32 = 3;

/// Most SYN-ACKs that go when a router has answered: of the others the next copy does.
const UNANSWERED_MAX: usize = 64;

/// What a new connection finds out about its next hop.
pub(crate) enum Hop {
    Ready(u16, Mac),
    /// The request is out; `hop_ready` or `hop_failed` follows.
    Waiting(u16),
    /// The table is full of neighbours in use.
    NoSpace,
}

impl Engine {
    /// The address to resolve for `dest`. None: no route (nor is there one to ourselves).
    pub(crate) fn next_hop(&self, dest: Ip) -> Option<Ip> {
        // RFC 9293 MUST-46.
        if !is_host(&dest) || self.addresses.get(&dest).is_some() || self.addresses.is_broadcast(&dest) {
            return None;
        }
        // RFC 4861, 6.3.6: of several routers one that does not fail to answer.
        let silent = |hop: &Ip| self.neighbours.find(*hop).and_then(|i| self.neighbours.get(i)).is_some_and(Neighbour::is_silent);
        self.routes.next_hops(dest).find(|hop| !silent(hop)).or_else(|| self.routes.next_hops(dest).next())
    }

    /// Whether a neighbour may say that it has `ip`: on this link, as far as the routes say, or somebody we have asked (a router
    /// outside our prefix).
    pub(crate) fn is_plausible(&self, mac: Mac, ip: Ip) -> bool {
        self.is_station(mac) && (self.next_hop(ip) == Some(ip) || self.neighbours.find(ip).is_some())
    }

    /// Whether `mac` can be somebody else's.
    pub(crate) fn is_station(&self, mac: Mac) -> bool {
        mac[0] & 1 == 0 && mac != [0; 6] && mac != self.config.mac
    }

    /// Takes a reference to the next hop `ip` for `conn`, and asks for its MAC if need be.
    pub(crate) fn use_hop(&mut self, ip: Ip, conn: ConnId) -> Hop {
        self.ask_silent_router();
        let is_router = self.conns.get(conn).is_some_and(|c| c.key.remote_ip != ip);
        let Some(index) = self.neighbour(ip, is_router) else { return Hop::NoSpace };
        let Some(n) = self.neighbours.get_mut(index) else { return Hop::NoSpace };
        n.refs = n.refs.saturating_add(1);
        if let Some(mac) = n.mac {
            if n.state == State::Stale {
                self.probe(index);
            }
            return Hop::Ready(index, mac);
        }
        // Whoever waits first gets all the tries, also where flows have been asking in vain.
        let first = n.waiting.is_empty();
        n.waiting.push(conn);
        if first {
            (n.tries, n.timeout_us) = (0, 0);
            self.ask(index);
        }
        Hop::Waiting(index)
    }

    /// Routers that nobody uses as they have been silent would not be heard again: one of them is asked now and then, when a connection begins.
    fn ask_silent_router(&mut self) {
        let index = self.routes.to_be_asked(self.now).and_then(|router| self.neighbour(router, true));
        index.into_iter().for_each(|index| self.make_sure(index));
    }

    /// Takes a reference to the next hop `ip` for `peer`, whose handshake came `from` there: a host on the link is usable at once, and
    /// confirmed by a request if it was not known.
    pub(crate) fn use_hop_of_peer(&mut self, ip: Ip, peer: Ip, from: Mac) -> Option<u16> {
        let is_router = peer != ip;
        let index = self.neighbour(ip, is_router)?;
        let n = self.neighbours.get_mut(index)?;
        n.refs = n.refs.saturating_add(1);
        let is_known = n.mac.is_some();
        match self.supposed_mac(ip, is_router, from) {
            Some(mac) if !is_known => self.suppose(index, mac),
            _ => self.make_sure(index),
        }
        Some(index)
    }

    /// What can be taken for the MAC of the next hop `ip`, of which nothing is known in this role: what it has in the other, or for a host
    /// on the link the source of a frame that is its own. A router's frames cannot be told from those of others.
    fn supposed_mac(&self, ip: Ip, is_router: bool, from: Mac) -> Option<Mac> {
        let known = self.neighbours.find_as(ip, !is_router).and_then(|i| self.neighbours.get(i)?.mac);
        known.or((!is_router).then_some(from))
    }

    /// Where answers to a frame of `remote` go that came `from` there: as the route leads (RFC 1122, 3.3.1), not back to who sent the frame. That
    /// may be a balancer, which would drop them, or a station that has taken another's address, which is not to read our sequence number
    /// (RFC 6528). A host on the link that is not known is answered directly: half-open connections cost no entries of hosts. None: there is no
    /// route, or its router has to answer first, as any station can send frames from afar.
    pub(crate) fn answer_mac(&mut self, remote: Ip, from: Mac) -> Option<Mac> {
        let to = self.next_hop(remote).and_then(|hop| self.known_or_asked(hop, hop != remote, from));
        self.counters.answers_unresolved += u64::from(to.is_none());
        to
    }

    /// The MAC of `hop`; a router is asked for its own.
    fn known_or_asked(&mut self, hop: Ip, is_router: bool, from: Mac) -> Option<Mac> {
        let entry = self.neighbours.find_as(hop, is_router);
        let mac = self.hop_mac(entry).or_else(|| self.supposed_mac(hop, is_router, from));
        let entry = if mac.is_none() { self.neighbour(hop, is_router) } else { entry };
        if let Some(index) = entry {
            self.make_sure(index);
        }
        mac
    }

    /// The SYN-ACK of `id` goes to `remote` when its router has answered.
    pub(crate) fn answer_later(&mut self, id: ConnId, remote: Ip) {
        let router = self.next_hop(remote).and_then(|hop| self.neighbours.find_as(hop, true));
        if let Some(n) = router.and_then(|index| self.neighbours.get_mut(index))
            && n.unanswered.len() < UNANSWERED_MAX
            && !n.unanswered.contains(&id)
        {
            n.unanswered.push(id);
        }
    }

    /// Gives a reference back.
    pub(crate) fn release_hop(&mut self, index: u16, conn: ConnId) {
        if let Some(n) = self.neighbours.get_mut(index) {
            n.waiting.retain(|c| *c != conn);
        }
        self.neighbours.release(index);
    }

    /// Somebody who asks for us has an entry, as what connections will probably reach by it.
    pub(crate) fn meet(&mut self, ip: Ip) {
        if self.neighbours.find(ip).is_none() {
            self.neighbour(ip, self.routes.is_router(&ip));
        }
    }

    /// The entry for `ip`; a new one may push out one that nobody uses, or one that does not answer, but no router.
    pub(crate) fn neighbour(&mut self, ip: Ip, is_router: bool) -> Option<u16> {
        if let Some(index) = self.neighbours.find_as(ip, is_router) {
            return Some(index);
        }
        let role = if is_router { Role::Router } else { Role::Host };
        if let Some(index) = self.neighbours.insert(ip, role, self.now) {
            return Some(index);
        }
        self.counters.arp_table_full += 1;
        let old = self.neighbours.evictable(role)?;
        let waiting = self.neighbours.get_mut(old).map(|n| core::mem::take(&mut n.waiting)).unwrap_or_default();
        for conn in waiting {
            self.unreachable(conn);
        }
        self.forget_neighbour(old);
        self.neighbours.insert(ip, role, self.now)
    }

    /// RFC 1122 2.3.2.1-1.
    fn forget_neighbour(&mut self, index: u16) {
        let before = self.hop_mac(Some(index));
        self.drop_stand_in(index);
        let Some(mut gone) = self.neighbours.remove(index) else { return };
        self.timers.set(TimerId::Neighbour(index), &mut gone.deadline, None);
        self.announce_hop(index, before);
    }

    /// Sends a request and arms the timer for the next one.
    pub(crate) fn ask(&mut self, index: u16) {
        let first = self.config.arp_timeout_us;
        let Some(n) = self.neighbours.get_mut(index) else { return };
        if n.timeout_us == 0 {
            n.timeout_us = first;
        }
        let known = n.mac.filter(|_| n.tries < UNICAST_PROBES);
        n.tries = n.tries.saturating_add(1);
        let deadline = self.now.saturating_add(n.timeout_us);
        self.timers.set(TimerId::Neighbour(index), &mut n.deadline, Some(deadline));
        let target = n.ip;
        match as_v4(&target) {
            Some(v4) => self.ask_by_arp(known, v4),
            None => self.solicit(known, target),
        }
    }

    /// It is used: it is asked if it may be wrong or is not known, and has not been asked yet.
    pub(crate) fn make_sure(&mut self, index: u16) {
        match self.neighbours.get(index) {
            Some(n) if n.state == State::Stale => self.probe(index),
            Some(n) if n.state == State::Incomplete && n.deadline.is_none() => self.ask(index),
            _ => {}
        }
    }

    /// Asks again one that can be used meanwhile.
    pub(crate) fn probe(&mut self, index: u16) {
        let first = self.config.arp_timeout_us;
        if let Some(n) = self.neighbours.get_mut(index) {
            n.state = State::Probing;
            (n.tries, n.timeout_us) = (0, first);
            self.ask(index);
        }
    }

    /// The timer of a neighbour: no answer, or its last one is old.
    pub(crate) fn neighbour_timer(&mut self, index: u16) {
        let max = self.config.arp_timeout_max_us;
        let Some(n) = self.neighbours.get_mut(index) else { return };
        n.deadline = None;
        if matches!(n.state, State::Reachable | State::Stale) {
            return if n.refs == 0 { self.forget_neighbour(index) } else { self.probe(index) };
        }
        let longer = n.timeout_us.saturating_mul(2);
        if longer <= max {
            n.timeout_us = longer;
            return self.ask(index);
        }
        self.hop_failed(index);
    }

    fn hop_failed(&mut self, index: u16) {
        self.counters.arp_failures += 1;
        let before = self.hop_mac(Some(index));
        // Not all of them need have its own: one that has just resigned stands in by itself, but has another's meanwhile.
        let others: Vec<_> = self.stood_in_for(index).into_iter().map(|other| (other, self.hop_mac(Some(other)))).collect();
        let Some(n) = self.neighbours.get_mut(index) else { return };
        let waiting = core::mem::take(&mut n.waiting);
        n.state = State::Incomplete;
        // RFC 4861, 6.3.6: routers take turns until one answers.
        self.routes.silent(&n.ip, self.now);
        for conn in waiting {
            self.unreachable(conn);
        }
        let Some(n) = self.neighbours.get_mut(index).filter(|n| n.refs > 0) else { return self.forget_neighbour(index) };
        // Flows that still use it may outlive the outage: they go on asking, slowly.
        n.mac = None;
        n.timeout_us = self.config.arp_timeout_max_us.max(self.config.arp_timeout_us);
        self.ask(index);
        self.choose_stand_in(index);
        self.announce_hop(index, before);
        for (other, before) in others {
            self.choose_stand_in(other);
            self.announce_hop(other, before);
        }
    }

    /// `mac` is sure to be right.
    pub(crate) fn heard(&mut self, index: u16, mac: Mac) {
        if let Some(n) = self.neighbours.get(index) {
            self.routes.heard(&n.ip);
        }
        self.learn(index, mac, State::Reachable);
    }

    /// `mac` is said to be right: it is used, and asked if it is used.
    pub(crate) fn suppose(&mut self, index: u16, mac: Mac) {
        self.learn(index, mac, State::Stale);
        if self.neighbours.get(index).is_some_and(|n| n.refs > 0) {
            self.make_sure(index);
        }
    }

    fn learn(&mut self, index: u16, mac: Mac, state: State) {
        let deadline = self.now.saturating_add(self.config.arp_expire_us);
        let before = self.hop_mac(Some(index));
        let Some(n) = self.neighbours.get_mut(index) else { return };
        let known = n.mac.replace(mac);
        n.state = state;
        (n.tries, n.timeout_us) = (0, 0);
        let needs_stand_in = n.role == Role::Resigned && n.refs > 0;
        self.timers.set(TimerId::Neighbour(index), &mut n.deadline, Some(deadline));
        let (waiting, unanswered) = (core::mem::take(&mut n.waiting), core::mem::take(&mut n.unanswered));
        self.neighbours.heard(index, self.now);
        if needs_stand_in {
            // Nobody could when it resigned, or nobody it has asked since has answered: one may by now.
            self.choose_stand_in(index);
        } else {
            self.drop_stand_in(index);
        }
        self.announce_hop(index, before);
        if known != Some(mac) {
            for other in self.stood_in_for(index) {
                self.counters.router_failovers += u64::from(known.is_none());
                self.actions.push_back(Action::NextHop { index: other, mac: Some(mac) });
            }
        }
        for conn in waiting {
            self.hop_ready(conn, mac);
        }
        for conn in unanswered {
            self.send_syn(conn);
        }
    }
}
