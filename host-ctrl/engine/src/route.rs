//! Which next hop leads to a destination: on-link, or a router by longest prefix. Some routes are the operator's, some are what routers
//! have advertised, for a time.

use crate::addr::{Ip, Prefix};
use core::cmp::Reverse;
use toe_wire::nd::Preference;

/// A route. `via`: the router; None: on-link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    pub dest: Prefix,
    pub via: Option<Ip>,
    /// Congestion control of connections over it, `toe_abi::flow::cc`; None: as everywhere.
    pub cc: Option<u8>,
    /// Whether their windows are paced; None: as everywhere.
    pub pacing: Option<bool>,
}

impl Route {
    /// One over which connections are as everywhere.
    pub const fn new(dest: Prefix, via: Option<Ip>) -> Self {
        Self { dest, via, cc: None, pacing: None }
    }
}

/// Advertised routes that are kept.
const ADVERTISED_MAX: usize = 16;
/// A router that has been asked in vain is asked again after this, if connections begin meanwhile (RFC 4191, 3.5).
const ASK_AGAIN_US: u64 = 60 * 1_000_000;

#[derive(Clone, Copy, Debug)]
struct Entry {
    route: Route,
    /// When what a router has advertised ends; None: the operator's.
    until_us: Option<u64>,
    preference: Preference,
    /// Which of all failures to answer was its router's last; 0: it has answered since, or was never asked.
    failure: u64,
    ask_again_us: u64,
    serial: u64,
}

impl Entry {
    /// What is tried first comes first. Whether a router answers is more than what anybody says of it (RFC 4191, 3.2); the operator's word is
    /// more than a router's.
    fn order(&self) -> impl Ord + use<> {
        (Reverse(self.route.dest.len), self.failure, self.until_us.is_some(), Reverse(self.preference), self.serial)
    }
}

/// The routing table: few entries, in the order in which they are tried.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    entries: Vec<Entry>,
    serial: u64,
    failures: u64,
    /// A router has come or gone.
    changed: bool,
}

/// Whether `a` can be the address of one host: not "this network", loopback, multicast, reserved or broadcast.
pub(crate) fn is_host_v4(a: [u8; 4]) -> bool {
    a[0] != 0 && a[0] != 127 && a[0] < 224
}

impl RouteTable {
    /// Adds a route of the operator's. Of two with one prefix the first stated is tried first.
    pub fn add(&mut self, route: Route) {
        self.insert(route, None, Preference::default());
    }

    fn insert(&mut self, route: Route, until_us: Option<u64>, preference: Preference) {
        self.serial += 1;
        self.entries.push(Entry { route, until_us, preference, failure: 0, ask_again_us: 0, serial: self.serial });
        self.sort();
    }

    fn sort(&mut self) {
        self.entries.sort_by_key(Entry::order);
    }

    /// A router has advertised this route until then; a time in the past ends it. False: there are too many of them.
    pub fn advertised(&mut self, route: Route, preference: Preference, until_us: u64, now: u64) -> bool {
        let known = self.entries.iter().position(|e| e.until_us.is_some() && e.route == route);
        match known {
            Some(_) if until_us <= now => self.retain(|e| e.until_us.is_none() || e.route != route),
            Some(at) => {
                (self.entries[at].until_us, self.entries[at].preference) = (Some(until_us), preference);
                self.sort();
            }
            None if until_us <= now => {}
            None if self.entries.iter().filter(|e| e.until_us.is_some()).count() >= ADVERTISED_MAX => return false,
            None => {
                self.insert(route, Some(until_us), preference);
                self.changed = true;
            }
        }
        true
    }

    /// Forgets what routers have advertised for no longer than until now.
    pub fn expire(&mut self, now: u64) {
        self.retain(|e| e.until_us.is_none_or(|until| until > now));
    }

    fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        let before = self.entries.len();
        self.entries.retain(keep);
        self.changed |= self.entries.len() < before;
    }

    /// Whether routers have come or gone since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// Forgets what has been advertised to lead through `router`.
    pub fn no_router(&mut self, router: &Ip) {
        self.retain(|e| e.until_us.is_none() || e.route.via != Some(*router));
    }

    /// `router` does not answer: of several routes with one prefix, those through it are tried last, until it is [heard](Self::heard).
    pub fn silent(&mut self, router: &Ip, now: u64) {
        self.failures += 1;
        self.note(router, self.failures, now.saturating_add(ASK_AGAIN_US));
    }

    /// `router` has answered: it has its place again.
    pub fn heard(&mut self, router: &Ip) {
        self.note(router, 0, 0);
    }

    fn note(&mut self, router: &Ip, failure: u64, ask_again_us: u64) {
        for entry in self.entries.iter_mut().filter(|e| e.route.via == Some(*router)) {
            (entry.failure, entry.ask_again_us) = (failure, ask_again_us);
        }
        self.sort();
    }

    /// A router that was silent a while ago, to be asked whether it still is. The next one after as long.
    pub fn to_be_asked(&mut self, now: u64) -> Option<Ip> {
        let router = self.entries.iter().find(|e| e.failure > 0 && e.ask_again_us <= now)?.route.via?;
        let of_it = self.entries.iter_mut().filter(|e| e.route.via == Some(router));
        of_it.for_each(|e| e.ask_again_us = now.saturating_add(ASK_AGAIN_US));
        Some(router)
    }

    /// Routers that lead to all that `router` leads to, in the order in which they are to be tried.
    pub fn instead_of(&self, router: &Ip) -> Vec<Ip> {
        let mut through: Vec<Prefix> = self.routes().filter(|r| r.via == Some(*router)).map(|r| r.dest).collect();
        // It has resigned: only what was advertised goes.
        if through.is_empty() {
            through.push(Prefix::ALL_V6);
        }
        let leads = |other: &Ip| through.iter().all(|dest| self.routes().any(|r| r.dest == *dest && r.via == Some(*other)));
        let others = self.routes().filter(|r| through.first() == Some(&r.dest)).filter_map(|r| r.via);
        others.filter(|other| other != router && leads(other)).collect()
    }

    /// Whether a route leads through it.
    pub fn is_router(&self, ip: &Ip) -> bool {
        self.routes().any(|r| r.via == Some(*ip))
    }

    pub fn next_deadline(&self) -> Option<u64> {
        self.entries.iter().filter_map(|e| e.until_us).min()
    }

    /// The addresses to resolve for `dest`: those of the longest prefix, in the order in which they are to be tried.
    pub fn next_hops(&self, dest: Ip) -> impl Iterator<Item = Ip> + '_ {
        self.best(dest).map(move |route| route.via.unwrap_or(dest))
    }

    /// The route to `dest` that is tried first.
    pub fn first(&self, dest: Ip) -> Option<Route> {
        self.best(dest).next()
    }

    /// The routes of the longest prefix.
    fn best(&self, dest: Ip) -> impl Iterator<Item = Route> + '_ {
        let mut longest = None;
        let fits = move |route: &Route| route.dest.contains(&dest) && *longest.get_or_insert(route.dest.len) == route.dest.len;
        self.routes().filter(fits)
    }

    /// All routes, in the order in which they are tried.
    pub fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.entries.iter().map(|e| e.route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_abi::flow::v4_mapped;

    fn v4(dest: [u8; 4], len: u8, via: Option<[u8; 4]>) -> Route {
        Route::new(Prefix::new(v4_mapped(dest), len).unwrap(), via.map(v4_mapped))
    }

    fn v6(text: &str) -> Ip {
        text.parse::<std::net::Ipv6Addr>().unwrap().octets()
    }

    fn route6(dest: &str, len: u8, via: Option<&str>) -> Route {
        Route::new(Prefix::new(v6(dest), len).unwrap(), via.map(v6))
    }

    fn table(routes: &[Route]) -> RouteTable {
        let mut t = RouteTable::default();
        routes.iter().for_each(|r| t.add(*r));
        t
    }

    fn advertised(t: &mut RouteTable, via: &str, until_us: u64, now: u64) -> bool {
        t.advertised(route6("::", 0, Some(via)), Preference::Medium, until_us, now)
    }

    fn hops(t: &RouteTable) -> Vec<Ip> {
        t.next_hops(v6("2001:db8::1")).collect()
    }

    fn first(t: &RouteTable, dest: Ip) -> Option<Ip> {
        t.next_hops(dest).next()
    }

    #[test]
    fn congestion_control_is_that_of_the_longest_prefix() {
        let t = table(&[Route { cc: Some(2), ..v4([10, 1, 0, 0], 16, None) }, v4([10, 1, 2, 0], 24, None), v4([10, 0, 0, 1], 24, None)]);
        let cc = [[10, 1, 1, 1], [10, 1, 2, 1], [10, 0, 0, 9], [192, 168, 0, 1]].map(|dest| t.first(v4_mapped(dest)).and_then(|r| r.cc));
        assert_eq!(cc, [Some(2), None, None, None]);
    }

    #[test]
    fn longest_prefix_wins() {
        let t = table(&[
            v4([0; 4], 0, Some([10, 0, 0, 254])),
            v4([10, 0, 0, 1], 24, None),
            v4([10, 1, 0, 0], 16, Some([10, 0, 0, 2])),
            v4([10, 1, 2, 0], 24, Some([10, 0, 0, 3])),
            v4([10, 9, 0, 0], 16, None),
        ]);
        let hop = |a| first(&t, v4_mapped(a));
        assert_eq!(hop([10, 1, 2, 3]), Some(v4_mapped([10, 0, 0, 3])));
        assert_eq!(hop([10, 1, 3, 3]), Some(v4_mapped([10, 0, 0, 2])));
        assert_eq!(hop([10, 0, 0, 9]), Some(v4_mapped([10, 0, 0, 9])));
        assert_eq!(hop([10, 9, 4, 4]), Some(v4_mapped([10, 9, 4, 4])));
        assert_eq!(hop([1, 1, 1, 1]), Some(v4_mapped([10, 0, 0, 254])));
    }

    #[test]
    fn versions_have_routes_of_their_own() {
        let t = table(&[route6("::", 0, Some("fe80::1")), v4([10, 0, 0, 0], 8, None)]);
        assert_eq!(first(&t, v4_mapped([1; 4])), None, "the default of IPv6 is not for mapped addresses");
        assert_eq!(first(&t, v6("2001:db8::1")), Some(v6("fe80::1")));
    }

    #[test]
    fn several_routers_in_the_order_in_which_they_came() {
        let mut t = table(&[route6("fd00::", 64, None)]);
        assert!(advertised(&mut t, "fe80::1", 50, 10) && advertised(&mut t, "fe80::2", 40, 10));
        assert_eq!(t.next_hops(v6("2001:db8::1")).collect::<Vec<_>>(), [v6("fe80::1"), v6("fe80::2")]);
        assert_eq!(t.next_deadline(), Some(40));
        t.expire(40);
        assert_eq!(t.next_hops(v6("2001:db8::1")).collect::<Vec<_>>(), [v6("fe80::1")]);
        assert!(advertised(&mut t, "fe80::1", 0, 41));
        assert_eq!((first(&t, v6("2001:db8::1")), t.next_deadline()), (None, None));
        assert_eq!(first(&t, v6("fd00::9")), Some(v6("fd00::9")), "the operator's stays");
    }

    /// RFC 4191, 3.2.
    #[test]
    fn routers_are_tried_as_they_rank() {
        let mut t = table(&[route6("::", 0, Some("fe80::9"))]);
        let mut says = |via: &str, preference| {
            assert!(t.advertised(route6("::", 0, Some(via)), preference, 50, 10));
            hops(&t)
        };
        says("fe80::1", Preference::Low);
        says("fe80::2", Preference::Medium);
        says("fe80::3", Preference::High);
        let wanted = ["fe80::9", "fe80::3", "fe80::2", "fe80::4", "fe80::1"].map(v6);
        assert_eq!(says("fe80::4", Preference::Medium), wanted, "after the operator's");
        let wanted = ["fe80::9", "fe80::1", "fe80::3", "fe80::2", "fe80::4"].map(v6);
        assert_eq!(says("fe80::1", Preference::High), wanted, "it says otherwise now; of equals the first that came");
    }

    #[test]
    fn a_router_that_is_heard_again_has_its_place_again() {
        let mut t = table(&[route6("::", 0, Some("fe80::1")), route6("::", 0, Some("fe80::2"))]);
        assert!(advertised(&mut t, "fe80::3", 50, 10));
        let [a, b, c] = ["fe80::1", "fe80::2", "fe80::3"].map(v6);
        t.silent(&a, 10);
        assert_eq!(hops(&t), [b, c, a]);
        t.silent(&b, 11);
        assert_eq!(hops(&t), [c, a, b], "in turns");
        t.heard(&a);
        assert_eq!(hops(&t), [a, c, b]);
        t.heard(&b);
        assert_eq!(hops(&t), [a, b, c]);
    }

    #[test]
    fn a_silent_router_is_to_be_asked_once_a_minute() {
        let mut t = table(&[route6("::", 0, Some("fe80::1")), route6("::", 0, Some("fe80::2"))]);
        t.silent(&v6("fe80::1"), 10);
        let asked =
            [10, ASK_AGAIN_US + 9, ASK_AGAIN_US + 10, ASK_AGAIN_US + 11, 2 * ASK_AGAIN_US + 10].map(|now| t.to_be_asked(now).is_some());
        assert_eq!(asked, [false, false, true, false, true]);
        t.heard(&v6("fe80::1"));
        assert_eq!(t.to_be_asked(u64::MAX), None);
    }

    #[test]
    fn advertised_routes_are_bounded() {
        let mut t = table(&[]);
        let added = (0..100).filter(|n| t.advertised(route6(&format!("fd00:{n}::"), 64, None), Preference::Medium, 50, 10)).count();
        assert_eq!((added, t.routes().count()), (ADVERTISED_MAX, ADVERTISED_MAX));
    }
}
