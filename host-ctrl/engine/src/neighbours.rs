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
use std::collections::{BTreeSet, HashMap};

pub type Mac = [u8; 6];

/// The last entries are for routers: hosts fill the rest at most, or what is behind routers could not be reached. Of a small table, a part.
const FOR_ROUTERS: u16 = 8;
const FOR_ROUTERS_PART: u16 = 4;

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
    heard_us: u64,
    /// Active opens that wait for the MAC.
    pub waiting: Vec<ConnId>,
    /// Half-open connections whose SYN-ACKs wait for the MAC. They hold no reference, and some may have ended.
    pub unanswered: Vec<ConnId>,
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

    /// Nobody refers to it, or only those who ask in vain.
    fn is_unused(&self) -> bool {
        self.refs == 0 || self.state == State::Incomplete && !self.has_flows()
    }
}

pub struct Neighbours {
    entries: Vec<Option<Neighbour>>,
    /// Of a router, one for connections through it and one for those with itself, which do not leave it for another router.
    by_ip: HashMap<(Ip, bool), u16, Keys>,
    /// Those that are not hosts.
    routers: Vec<u16>,
    vacant: Vec<u16>,
    /// All that are unused, by when they were heard. Some are in use again: they leave when they are met.
    unused: BTreeSet<(u64, u16)>,
    max: u16,
    hosts_max: u16,
}

impl Neighbours {
    pub fn new(keys: Keys, max: u16) -> Self {
        Self {
            entries: Vec::new(),
            by_ip: HashMap::with_hasher(keys),
            routers: Vec::new(),
            vacant: Vec::new(),
            unused: BTreeSet::new(),
            max,
            hosts_max: max - FOR_ROUTERS.min(max / FOR_ROUTERS_PART),
        }
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

    /// Those that are routers, or were.
    pub fn routers(&self) -> impl Iterator<Item = (u16, &Neighbour)> {
        self.routers.iter().filter_map(|&i| Some((i, self.get(i)?)))
    }

    /// Whether hosts have all that they may.
    fn hosts_are_full(&self) -> bool {
        self.by_ip.len() - self.routers.len() >= self.hosts_max.into()
    }

    /// Adds an entry without a MAC. None: the table is full for one of this role. The caller has made sure that `ip` is not there.
    pub fn insert(&mut self, ip: Ip, role: Role, now: u64) -> Option<u16> {
        if role == Role::Host && self.hosts_are_full() {
            return None;
        }
        let index = match self.vacant.pop() {
            Some(index) => index,
            None => {
                let next = u16::try_from(self.entries.len()).ok().filter(|next| *next < self.max)?;
                self.entries.push(None);
                next
            }
        };
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
            unanswered: Vec::new(),
            stand_in: None,
        });
        self.by_ip.insert((ip, role != Role::Host), index);
        self.unused.insert((now, index));
        if role != Role::Host {
            self.routers.push(index);
        }
        Some(index)
    }

    /// It has just been heard.
    pub fn heard(&mut self, index: u16, now: u64) {
        let Some(n) = self.entries.get_mut(usize::from(index)).and_then(Option::as_mut) else { return };
        self.unused.remove(&(n.heard_us, index));
        self.unused.insert((now, index));
        n.heard_us = now;
    }

    /// Gives a reference back.
    pub fn release(&mut self, index: u16) {
        let Some(n) = self.entries.get_mut(usize::from(index)).and_then(Option::as_mut) else { return };
        n.refs = n.refs.saturating_sub(1);
        self.unused.insert((n.heard_us, index));
    }

    /// What makes room for one of this role: the entry that nobody refers to and that was heard longest ago; or else the one that has been
    /// asked longest in vain and has no flows. An honest neighbour answers at once, and somebody who tries every address must not keep
    /// others out. Routers stay: they are few, and far more depends on each.
    pub fn evictable(&mut self, role: Role) -> Option<u16> {
        let only_hosts = role == Role::Host && self.hosts_are_full();
        let Self { entries, unused, .. } = self;
        let entry = |index: u16| entries.get(usize::from(index))?.as_ref();
        let mut asked_in_vain = None;
        let mut used = Vec::new();
        let idle = unused.iter().find(|&&(heard_us, index)| {
            let Some(n) = entry(index).filter(|n| n.is_unused()) else {
                used.push((heard_us, index));
                return false;
            };
            let fits = match n.role {
                Role::Host => true,
                Role::Resigned => !only_hosts,
                Role::Router => false,
            };
            if fits && n.refs > 0 {
                asked_in_vain.get_or_insert(index);
            }
            fits && n.refs == 0
        });
        let chosen = idle.map(|(_, index)| *index).or(asked_in_vain);
        used.iter().for_each(|key| _ = unused.remove(key));
        chosen
    }

    pub fn remove(&mut self, index: u16) -> Option<Neighbour> {
        let gone = self.entries.get_mut(usize::from(index))?.take()?;
        self.by_ip.remove(&(gone.ip, gone.role != Role::Host));
        self.unused.remove(&(gone.heard_us, index));
        self.routers.retain(|i| *i != index);
        self.vacant.push(index);
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
        assert_eq!(n.evictable(Role::Host), Some(1));
        n.get_mut(1).unwrap().refs = 1;
        assert_eq!(n.evictable(Role::Host), Some(0));
        n.get_mut(0).unwrap().refs = 1;
        n.get_mut(0).unwrap().waiting.push(ConnId { index: 0, generation: 0 });
        assert_eq!(n.evictable(Role::Host), Some(0), "an open waits for it in vain");
        n.get_mut(0).unwrap().state = State::Probing;
        assert_eq!(n.evictable(Role::Host), None, "both are in use");
        n.heard(0, 7);
        n.release(1);
        n.release(0);
        assert_eq!(n.evictable(Role::Host), Some(1), "the one heard longest ago");
        n.heard(1, 8);
        assert_eq!(n.evictable(Role::Host), Some(0));
        n.remove(0);
        assert_eq!(n.find([1; 16]), None);
        assert_eq!(n.insert([3; 16], Role::Host, 7), Some(0));
        assert_eq!(n.find([3; 16]), Some(0));
    }

    #[test]
    fn the_last_entries_are_for_routers() {
        for (max, hosts) in [(1, 1), (2, 2), (3, 3), (4, 3), (31, 24), (32, 24), (256, 248), (u16::MAX, u16::MAX - 8)] {
            let mut n = Neighbours::new(Keys::new([0; 16]), max);
            let ip = |i: u32| u128::from(i).to_be_bytes();
            let mut count = |role, from| (from..).take_while(|i| n.insert(ip(*i), role, 0).is_some()).count();
            assert_eq!((count(Role::Host, 0), count(Role::Router, 1 << 16)), (hosts.into(), (max - hosts).into()), "of {max}");
        }
    }

    #[test]
    fn who_makes_room() {
        let evictable = |roles: [Role; 4]| {
            let mut n = Neighbours::new(Keys::new([0; 16]), 4);
            for (i, role) in (0..).zip(roles) {
                assert_eq!(n.insert([i as u8; 16], role, i), Some(i as u16));
            }
            (n.evictable(Role::Host), n.evictable(Role::Router))
        };
        let (host, router, resigned) = (Role::Host, Role::Router, Role::Resigned);
        assert_eq!(evictable([router, resigned, host, host]), (Some(1), Some(1)), "the oldest that is no router");
        assert_eq!(evictable([resigned, host, host, host]), (Some(1), Some(0)), "hosts have all that they may");
        assert_eq!(evictable([router; 4]), (None, None));
    }
}
