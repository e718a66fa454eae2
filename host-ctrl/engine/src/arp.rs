//! ARP (RFC 826): resolve next hops, answer, learn, ask again before trusting an old answer (RFC 1122, 2.3.2.1).

use crate::{
    Action, ConnId, Engine,
    neighbours::{Mac, Neighbour, State},
    timers::TimerId,
};
use toe_wire::{Arp, ArpOp};

/// Requests of a probe that go to the known MAC only, before all are asked (RFC 1122, 2.3.2.1).
const UNICAST_PROBES: u32 = 3;
const BROADCAST: Mac = [0xff; 6];

/// What a new connection finds out about its next hop.
pub(crate) enum Hop {
    Ready(u16, Mac),
    /// The request is out; `hop_ready` or `hop_failed` follows.
    Waiting(u16),
    /// The table is full of neighbours in use.
    NoSpace,
}

impl Engine {
    /// Takes a reference to the next hop `ip` for `conn`, and asks for its MAC if need be.
    pub(crate) fn use_hop(&mut self, ip: [u8; 4], conn: ConnId) -> Hop {
        let Some(index) = self.neighbour(ip) else { return Hop::NoSpace };
        let Some(n) = self.neighbours.get_mut(index) else { return Hop::NoSpace };
        n.refs = n.refs.saturating_add(1);
        if let Some(mac) = n.mac {
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

    /// Takes a reference to the next hop `ip` for a peer whose handshake came from `mac`: usable at once, confirmed
    /// by ARP if it was not known.
    pub(crate) fn use_hop_of_peer(&mut self, ip: [u8; 4], mac: Mac) -> Option<u16> {
        let index = self.neighbour(ip)?;
        let n = self.neighbours.get_mut(index)?;
        n.refs = n.refs.saturating_add(1);
        if n.mac.is_none() {
            n.mac = Some(mac);
            n.state = State::Probing;
            (n.tries, n.timeout_us) = (0, self.config.arp_timeout_us);
            self.actions.push_back(Action::NextHop { index, mac: Some(mac) });
            self.wake_waiting(index, mac);
            self.ask(index);
        }
        Some(index)
    }

    /// Gives a reference back.
    pub(crate) fn release_hop(&mut self, index: u16, conn: ConnId) {
        if let Some(n) = self.neighbours.get_mut(index) {
            n.refs = n.refs.saturating_sub(1);
            n.waiting.retain(|c| *c != conn);
        }
    }

    /// The entry for `ip`; a new one may push out one that nobody uses, or one that does not answer.
    fn neighbour(&mut self, ip: [u8; 4]) -> Option<u16> {
        if let Some(index) = self.neighbours.find(ip) {
            return Some(index);
        }
        if let Some(index) = self.neighbours.insert(ip, self.now) {
            return Some(index);
        }
        self.counters.arp_table_full += 1;
        let old = self.neighbours.evictable()?;
        let waiting = self.neighbours.get_mut(old).map(|n| core::mem::take(&mut n.waiting)).unwrap_or_default();
        for conn in waiting {
            self.unreachable(conn);
        }
        self.forget_neighbour(old);
        self.neighbours.insert(ip, self.now)
    }

    /// RFC 1122 2.3.2.1-1.
    fn forget_neighbour(&mut self, index: u16) {
        let Some(mut gone) = self.neighbours.remove(index) else { return };
        self.timers.set(TimerId::Neighbour(index), &mut gone.deadline, None);
        if gone.mac.is_some() {
            self.actions.push_back(Action::NextHop { index, mac: None });
        }
    }

    /// Sends a request and arms the timer for the next one.
    fn ask(&mut self, index: u16) {
        let first = self.config.arp_timeout_us;
        let Some(n) = self.neighbours.get_mut(index) else { return };
        if n.timeout_us == 0 {
            n.timeout_us = first;
        }
        let to = if n.tries < UNICAST_PROBES { n.mac.unwrap_or(BROADCAST) } else { BROADCAST };
        n.tries = n.tries.saturating_add(1);
        let deadline = self.now.saturating_add(n.timeout_us);
        self.timers.set(TimerId::Neighbour(index), &mut n.deadline, Some(deadline));
        let target_ip = n.ip;
        self.counters.arp_requests_sent += 1;
        self.transmit_arp(to, ArpOp::Request, [0; 6], target_ip);
    }

    fn transmit_arp(&mut self, to: Mac, op: ArpOp, target_mac: Mac, target_ip: [u8; 4]) {
        let packet = Arp { op, sender_mac: self.config.mac, sender_ip: self.config.ip, target_mac, target_ip };
        let frame = crate::build::arp(to, &packet);
        self.transmit(frame);
    }

    /// The timer of a neighbour: no answer, or its last one is old.
    pub(crate) fn neighbour_timer(&mut self, index: u16) {
        let (first, max) = (self.config.arp_timeout_us, self.config.arp_timeout_max_us);
        let Some(n) = self.neighbours.get_mut(index) else { return };
        n.deadline = None;
        if n.state == State::Reachable {
            if n.refs == 0 {
                return self.forget_neighbour(index);
            }
            n.state = State::Probing;
            (n.tries, n.timeout_us) = (0, first);
            return self.ask(index);
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
        let Some(n) = self.neighbours.get_mut(index) else { return };
        let waiting = core::mem::take(&mut n.waiting);
        n.state = State::Incomplete;
        if n.mac.take().is_some() {
            self.actions.push_back(Action::NextHop { index, mac: None });
        }
        for conn in waiting {
            self.unreachable(conn);
        }
        // Flows that still use it may outlive the outage: they go on asking, slowly.
        match self.neighbours.get_mut(index) {
            Some(n) if n.refs > 0 => {
                n.timeout_us = self.config.arp_timeout_max_us.max(self.config.arp_timeout_us);
                self.ask(index);
            }
            _ => self.forget_neighbour(index),
        }
    }

    /// `ip` is at `mac`.
    fn heard(&mut self, index: u16, mac: Mac) {
        let deadline = self.now.saturating_add(self.config.arp_expire_us);
        let Some(n) = self.neighbours.get_mut(index) else { return };
        let changed = n.mac.replace(mac) != Some(mac);
        n.state = State::Reachable;
        (n.tries, n.timeout_us, n.heard_us) = (0, 0, self.now);
        self.timers.set(TimerId::Neighbour(index), &mut n.deadline, Some(deadline));
        if changed {
            self.actions.push_back(Action::NextHop { index, mac: Some(mac) });
        }
        self.wake_waiting(index, mac);
    }

    fn wake_waiting(&mut self, index: u16, mac: Mac) {
        let waiting = self.neighbours.get_mut(index).map(|n| core::mem::take(&mut n.waiting)).unwrap_or_default();
        for conn in waiting {
            self.hop_ready(conn, mac);
        }
    }

    /// An ARP packet (RFC 826, "Packet Reception").
    pub(crate) fn arp(&mut self, packet: &Arp) {
        self.counters.arp_received += 1;
        let (mac, ip) = (packet.sender_mac, packet.sender_ip);
        if ip == self.config.ip && mac != self.config.mac {
            self.counters.arp_conflicts += 1;
            return;
        }
        let to_us = packet.target_ip == self.config.ip;
        // RFC 5227, 2.1.1: a probe has no sender address: there is nothing to learn, but it wants an answer.
        let probe = ip == [0; 4];
        // On this link, as far as the routes say, or somebody we have asked (a router outside our prefix).
        let plausible = self.routes.next_hop(ip) == Some(ip) || self.neighbours.find(ip).is_some();
        if mac[0] & 1 != 0 || mac == [0; 6] || mac == self.config.mac || !(probe || plausible) {
            self.counters.arp_ignored += 1;
            return;
        }
        if !probe {
            match self.neighbours.find(ip) {
                Some(index) => self.heard(index, mac),
                // Who asks for us will be talked to. Answers that nobody asked for add nothing.
                None if to_us && packet.op == ArpOp::Request => {
                    if let Some(index) = self.neighbour(ip) {
                        self.heard(index, mac);
                    }
                }
                None => {}
            }
        }
        if to_us && packet.op == ArpOp::Request && self.config.answer_arp {
            self.counters.arp_replies_sent += 1;
            self.transmit_arp(mac, ArpOp::Reply, mac, ip);
        }
    }

    /// MAC address of a connection's next hop, while known.
    pub(crate) fn hop_mac(&self, hop: Option<u16>) -> Option<Mac> {
        self.neighbours.get(hop?).and_then(|n: &Neighbour| n.mac)
    }
}
