//! The neighbour table: next hops, their MAC addresses and the index that each has in the card's next-hop table. For ARP and for neighbour
//! discovery (RFC 4861, 7.3.2; a probe follows at once where it has DELAY, since no word of upper layers reaches us).
//!
//! ```text
//!             ask                heard                    arp_expire
//!   (none) ────────► Incomplete ───────► Reachable ─────────────────► (none), if nobody refers to it
//!      │                 │    ▲              ▲  └──── referred to ──► Probing ──┐
//!      │       no answer │    └──────────────┼──────── no answer ───────▲───────┘
//!      │                 ▼                   └───────────── heard ──────┼───────┘
//!      │          waiters fail; (none), or asked again as long as flows refer to it
//!      └── named itself, confirmed by nobody ──► Stale ──referred to────┘   (ND only; gone after arp_expire)
//! ```

use crate::{ConnId, addr::Ip, isn::Keys};
use std::collections::HashMap;

pub type Mac = [u8; 6];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Incomplete,
    Reachable,
    /// Usable, but it may be wrong: it is asked when it is used.
    Stale,
    /// Usable, but being asked again.
    Probing,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            State::Incomplete => "incomplete",
            State::Reachable => "reachable",
            State::Stale => "stale",
            State::Probing => "probing",
        }
    }
}

/// What connections reach by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Itself.
    Host,
    Router,
    /// One that was a router when they began.
    Resigned,
}

#[derive(Debug)]
pub struct Neighbour {
    pub ip: Ip,
    pub role: Role,
    pub mac: Option<Mac>,
    pub state: State,
    /// Flows and handshakes that use it.
    pub refs: u32,
    /// Requests sent since it was last heard.
    pub tries: u32,
    pub timeout_us: u64,
    pub deadline: Option<u64>,
    pub heard_us: u64,
    /// Active opens that wait for the MAC.
    pub waiting: Vec<ConnId>,
    /// While it is silent or no router: the router that has its frames instead, and counts this as a reference.
    pub stand_in: Option<u16>,
}

impl Neighbour {
    /// It has been asked in vain.
    pub fn is_silent(&self) -> bool {
        self.state == State::Incomplete && self.tries > 1
    }

    /// Not only openers that wait for its MAC refer to it.
    pub fn has_flows(&self) -> bool {
        self.refs as usize > self.waiting.len()
    }
}

pub struct Neighbours {
    entries: Vec<Option<Neighbour>>,
    /// Of a router, one for connections through it and one for those with itself, which do not leave it for another router.
    by_ip: HashMap<(Ip, bool), u16, Keys>,
    max: u16,
}

impl Neighbours {
    pub fn new(keys: Keys, max: u16) -> Self {
        Self { entries: Vec::new(), by_ip: HashMap::with_hasher(keys), max }
    }

    /// As a router, if there is such an entry.
    pub fn find(&self, ip: Ip) -> Option<u16> {
        self.all(ip).next()
    }

    /// The entry of the one that has connections through it (`is_router`), or with itself.
    pub fn find_as(&self, ip: Ip, is_router: bool) -> Option<u16> {
        self.by_ip.get(&(ip, is_router)).copied()
    }

    /// Both entries.
    pub fn all(&self, ip: Ip) -> impl Iterator<Item = u16> + use<> {
        [true, false].map(|is_router| self.find_as(ip, is_router)).into_iter().flatten()
    }

    pub fn get(&self, index: u16) -> Option<&Neighbour> {
        self.entries.get(usize::from(index))?.as_ref()
    }

    pub fn get_mut(&mut self, index: u16) -> Option<&mut Neighbour> {
        self.entries.get_mut(usize::from(index))?.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u16, &Neighbour)> {
        self.entries.iter().enumerate().filter_map(|(i, n)| Some((i as u16, n.as_ref()?)))
    }

    /// Adds an entry without a MAC. None: the table is full. The caller has made sure that `ip` is not there.
    pub fn insert(&mut self, ip: Ip, role: Role, now: u64) -> Option<u16> {
        let vacant = self.entries.iter().position(Option::is_none);
        let index = match vacant {
            Some(i) => i,
            None if self.entries.len() < usize::from(self.max) => {
                self.entries.push(None);
                self.entries.len() - 1
            }
            None => return None,
        };
        let index = u16::try_from(index).ok()?;
        *self.entries.get_mut(usize::from(index))? = Some(Neighbour {
            ip,
            role,
            mac: None,
            state: State::Incomplete,
            refs: 0,
            tries: 0,
            timeout_us: 0,
            deadline: None,
            heard_us: now,
            waiting: Vec::new(),
            stand_in: None,
        });
        self.by_ip.insert((ip, role != Role::Host), index);
        Some(index)
    }

    /// The entry that nobody refers to and that was heard longest ago; or else the one that has been asked longest in vain
    /// and has no flows. An honest neighbour answers at once, and somebody who tries every address must not keep others out.
    pub fn evictable(&self) -> Option<u16> {
        let in_vain = |n: &Neighbour| n.state == State::Incomplete && !n.has_flows();
        let candidates = self.iter().filter(|(_, n)| n.refs == 0 || in_vain(n));
        candidates.min_by_key(|(_, n)| (n.refs > 0, n.heard_us)).map(|(i, _)| i)
    }

    pub fn remove(&mut self, index: u16) -> Option<Neighbour> {
        let gone = self.entries.get_mut(usize::from(index))?.take()?;
        self.by_ip.remove(&(gone.ip, gone.role != Role::Host));
        Some(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_stay_below_the_maximum_and_are_used_again() {
        let mut n = Neighbours::new(Keys::new([0; 16]), 2);
        assert_eq!(n.insert([1; 16], Role::Host, 5), Some(0));
        assert_eq!(n.insert([2; 16], Role::Host, 4), Some(1));
        assert_eq!(n.insert([3; 16], Role::Host, 6), None);
        assert_eq!(n.evictable(), Some(1));
        n.get_mut(1).unwrap().refs = 1;
        assert_eq!(n.evictable(), Some(0));
        n.get_mut(0).unwrap().refs = 1;
        assert_eq!(n.evictable(), None, "flows use both");
        n.get_mut(0).unwrap().waiting.push(ConnId { index: 0, generation: 0 });
        assert_eq!(n.evictable(), Some(0), "an open waits for it in vain");
        n.get_mut(0).unwrap().state = State::Probing;
        assert_eq!(n.evictable(), None);
        n.remove(0);
        assert_eq!(n.find([1; 16]), None);
        assert_eq!(n.insert([3; 16], Role::Host, 7), Some(0));
        assert_eq!(n.find([3; 16]), Some(0));
    }
}
