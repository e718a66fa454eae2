//! The card's own addresses, and how long each may be used.
//!
//! ```text
//!              nobody has it          preferred lifetime ends       valid lifetime ends
//!   Tentative ───────────────► Preferred ─────────────► Deprecated ─────────────────► (gone)
//!       │  somebody has it
//!       └─────────────────► Duplicate: another is tried if the address was ours to choose
//! ```
//!
//! Addresses of IPv4 are preferred from the start and for ever.

use crate::addr::{Ip, Prefix, common_bits, is_v4, same_scope};
use toe_abi::flow::as_v4;
use toe_wire::ipv6::is_link_local;

/// Addresses in all; the operator's are never more.
pub const MAX: usize = 16;
/// Stands for "for ever" among times.
pub const FOREVER: u64 = u64::MAX;

/// Where an address is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Operator,
    /// Made of a prefix and a number of ours (RFC 7217), at this attempt.
    Made(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Being asked for; so many times still.
    Tentative(u8),
    Preferred,
    /// For connections that have it, not for new ones.
    Deprecated,
    Duplicate,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            State::Tentative(_) => "tentative",
            State::Preferred => "preferred",
            State::Deprecated => "deprecated",
            State::Duplicate => "duplicate",
        }
    }

    /// Whether packets may be sent from, and are taken for, the address.
    pub const fn is_usable(self) -> bool {
        matches!(self, State::Preferred | State::Deprecated)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Own {
    pub prefix: Prefix,
    pub source: Source,
    pub state: State,
    /// When the next probe is due, or the last one has remained without an answer; of tentative ones. [`FOREVER`]: when the link is up.
    pub probe_us: u64,
    pub preferred_until_us: u64,
    pub valid_until_us: u64,
    /// From then on operators are told again if somebody else uses it.
    pub conflict_us: u64,
}

impl Own {
    pub fn ip(&self) -> Ip {
        self.prefix.ip
    }

    /// What happens next with it.
    fn deadline(&self) -> u64 {
        match self.state {
            State::Tentative(_) => self.probe_us.min(self.valid_until_us),
            State::Preferred => self.preferred_until_us.min(self.valid_until_us),
            State::Deprecated | State::Duplicate => self.valid_until_us,
        }
    }
}

#[derive(Default)]
pub struct Addresses {
    list: Vec<Own>,
}

impl Addresses {
    /// Adds an address that is not there. False: there are too many.
    pub fn add(&mut self, own: Own) -> bool {
        let room = self.list.len() < MAX;
        if room {
            self.list.push(own);
        }
        room
    }

    pub fn remove(&mut self, ip: &Ip) -> Option<Own> {
        let at = self.list.iter().position(|o| o.ip() == *ip)?;
        Some(self.list.remove(at))
    }

    pub fn get(&self, ip: &Ip) -> Option<&Own> {
        self.list.iter().find(|o| o.ip() == *ip)
    }

    pub fn get_mut(&mut self, ip: &Ip) -> Option<&mut Own> {
        self.list.iter_mut().find(|o| o.ip() == *ip)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Own> {
        self.list.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Own> {
        self.list.iter_mut()
    }

    /// The first of which something is due.
    pub fn due(&self, now: u64) -> Option<Own> {
        self.list.iter().find(|o| o.deadline() <= now).copied()
    }

    pub fn next_deadline(&self) -> Option<u64> {
        self.list.iter().map(Own::deadline).min().filter(|at| *at != FOREVER)
    }

    /// Whether packets for `ip` are for us.
    pub fn is_own(&self, ip: &Ip) -> bool {
        self.get(ip).is_some_and(|o| o.state.is_usable())
    }

    /// Whether there is an address of IPv4, or of IPv6: also one that cannot be used yet.
    pub fn has(&self, v4: bool) -> bool {
        self.list.iter().any(|o| is_v4(&o.ip()) == v4)
    }

    /// The link-local address, once it can be used.
    pub fn link_local(&self) -> Option<Ip> {
        self.list.iter().find(|o| o.state.is_usable() && is_link_local(&o.ip())).map(Own::ip)
    }

    /// Our end of a connection to `dest`: of the same version and scope, preferred rather than deprecated, with the longest common
    /// prefix, of which what follows our own prefix is no part (RFC 6724, 2.2 and 5: rules 2, 3 and 8). None: there is none.
    pub fn source_for(&self, dest: &Ip) -> Option<Ip> {
        let usable = self.list.iter().filter(|o| o.state.is_usable() && same_scope(&o.ip(), dest));
        // Of equals the first: `max_by_key` takes the last.
        usable.rev().max_by_key(|o| (o.state == State::Preferred, common_bits(&o.ip(), dest).min(o.prefix.len))).map(Own::ip)
    }

    /// Whether `ip` is the limited or a subnet's broadcast address (RFC 1122, 3.2.1.3; RFC 3021: /31 has none). IPv6 has none.
    pub fn is_broadcast(&self, ip: &Ip) -> bool {
        let Some(a) = as_v4(ip) else { return false };
        let of_subnet = |o: &Own| {
            let host = 128 - u32::from(o.prefix.len);
            let ones = u32::MAX.checked_shr(32u32.saturating_sub(host)).unwrap_or(0);
            is_v4(&o.ip()) && (2..=32).contains(&host) && o.prefix.contains(ip) && u32::from_be_bytes(a) & ones == ones
        };
        a == [255; 4] || self.list.iter().any(of_subnet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_abi::flow::v4_mapped;

    fn v6(text: &str) -> Ip {
        text.parse::<std::net::Ipv6Addr>().unwrap().octets()
    }

    fn own(ip: Ip, len: u8, state: State) -> Own {
        let prefix = Prefix::new(ip, len).unwrap();
        Own { prefix, source: Source::Operator, state, probe_us: 0, preferred_until_us: FOREVER, valid_until_us: FOREVER, conflict_us: 0 }
    }

    fn addresses(list: &[Own]) -> Addresses {
        Addresses { list: list.to_vec() }
    }

    #[test]
    fn a_connection_begins_at_an_address_that_fits_its_end() {
        use State::*;
        let a = addresses(&[
            own(v4_mapped([10, 0, 0, 1]), 24, Preferred),
            own(v4_mapped([192, 168, 0, 1]), 24, Preferred),
            own(v6("fe80::1"), 64, Preferred),
            own(v6("fd00::1"), 64, Preferred),
            own(v6("2001:db8::1"), 64, Preferred),
            own(v6("2001:db8:1::1"), 64, Tentative(1)),
        ]);
        assert_eq!(a.source_for(&v4_mapped([192, 168, 9, 9])), Some(v4_mapped([192, 168, 0, 1])));
        assert_eq!(a.source_for(&v4_mapped([10, 9, 9, 9])), Some(v4_mapped([10, 0, 0, 1])));
        assert_eq!(a.source_for(&v6("fe80::9")), Some(v6("fe80::1")));
        assert_eq!(a.source_for(&v6("fd00::9")), Some(v6("fd00::1")));
        assert_eq!(a.source_for(&v6("2001:db8:1::9")), Some(v6("2001:db8::1")), "a tentative one is no address yet");
        assert_eq!(addresses(&[own(v6("fe80::1"), 64, Preferred)]).source_for(&v6("fd00::9")), None);
        let old = addresses(&[own(v6("fd00::1"), 64, Deprecated), own(v6("2001:db8::1"), 64, Preferred)]);
        assert_eq!(old.source_for(&v6("fd00::9")), Some(v6("2001:db8::1")), "a deprecated one is the last choice");
    }

    #[test]
    fn of_equals_the_first_is_taken() {
        let a = addresses(&[own(v6("fd00::11"), 64, State::Preferred), own(v6("fd00::12"), 64, State::Preferred)]);
        assert_eq!(a.source_for(&v6("2001:db8::1")), Some(v6("fd00::11")));
        assert_eq!(a.source_for(&v6("fd00::13")), Some(v6("fd00::11")), "the other is no nearer");
    }

    #[test]
    fn subnets_have_broadcast_addresses_and_points_to_point_have_none() {
        let a = |len| addresses(&[own(v4_mapped([10, 0, 0, 1]), len, State::Preferred), own(v6("fd00::1"), 64, State::Preferred)]);
        for (len, last, wanted) in [(24, 255, true), (24, 254, false), (31, 1, false), (30, 3, true), (32, 1, false)] {
            assert_eq!(a(len).is_broadcast(&v4_mapped([10, 0, 0, last])), wanted, "/{len} .{last}");
        }
        assert!(a(24).is_broadcast(&v4_mapped([255; 4])) && !a(24).is_broadcast(&v6("fd00::ffff:ffff:ffff:ffff")));
        assert!(a(0).is_broadcast(&v4_mapped([255; 4])) && !a(0).is_broadcast(&v4_mapped([10, 0, 0, 255])));
    }
}
