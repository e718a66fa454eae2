//! Local ports: who has bound what, who listens, and which port a connection gets that did not ask for one.

use crate::{
    BindId, ConnId, Endpoint, Errno, ListenerId, Owner, Sharing, Wishes,
    addr::{Ip, is_any, is_v4},
    addresses::Addresses,
    isn::Keys,
};
use std::collections::{BTreeMap, HashMap};
use toe_abi::{
    app::bind_flags::{NO_PORT, REUSEADDR, REUSEPORT, V6ONLY},
    flow::FlowKey,
};

pub struct Binding {
    pub owner: Owner,
    /// As asked for: ::, unless it is for IPv6 only, stands for all of IPv4 too (RFC 3493, 3.7 and 5.3).
    pub ip: Ip,
    /// 0: none yet, see [`NO_PORT`].
    pub port: u16,
    pub flags: u16,
    pub uid: u32,
    pub listener: Option<ListenerId>,
}

impl Binding {
    /// Whether connections to `ip` are its own, if any are.
    fn covers(&self, ip: &Ip) -> bool {
        match (is_any(&self.ip), is_v4(&self.ip)) {
            (false, _) => self.ip == *ip,
            (true, true) => is_v4(ip),
            (true, false) => !is_v4(ip) || self.flags & V6ONLY == 0,
        }
    }

    /// Whether both may listen: SO_REUSEPORT, of one user.
    fn shares(&self, other: &Self) -> bool {
        self.flags & other.flags & REUSEPORT != 0 && self.uid == other.uid
    }

    /// Whether some address is of both.
    fn overlaps(&self, other: &Self) -> bool {
        // Of two that stand for several addresses one stands for all of a version, if they have one in common.
        match (is_any(&self.ip), is_any(&other.ip)) {
            (true, true) => self.covers(&other.ip) || other.covers(&self.ip),
            (true, false) => self.covers(&other.ip),
            (false, _) => other.covers(&self.ip),
        }
    }
}

pub struct Listener {
    pub bind: BindId,
    pub owner: Owner,
    /// Most connections that wait to be accepted.
    pub backlog: u32,
    pub wishes: Wishes,
    /// Connections being installed or not yet accepted.
    pub waiting: u32,
    /// By serial number: the oldest comes first.
    pub half_open: BTreeMap<u64, ConnId>,
    /// SYNs and final ACKs dropped because as many connections waited as may.
    pub overflows: u64,
}

impl Listener {
    /// As Linux has it, one more than the backlog may wait.
    pub fn is_full(&self) -> bool {
        self.waiting > self.backlog
    }
}

#[derive(Default)]
struct PortUse {
    bindings: Vec<BindId>,
    /// Connections with this local port, TIME-WAIT included.
    connections: u32,
}

impl PortUse {
    fn is_unused(&self) -> bool {
        self.bindings.is_empty() && self.connections == 0
    }
}

/// Counters of RFC 6056's double-hash port selection.
const PORT_COUNTERS: usize = 64;

pub struct Ports {
    keys: Keys,
    ephemeral: (u16, u16),
    next: [u32; PORT_COUNTERS],
    serial: u64,
    ports: HashMap<u16, PortUse>,
    bindings: HashMap<BindId, Binding>,
    listeners: BTreeMap<ListenerId, Listener>,
    /// Half-open connections of all listeners, by serial number as well.
    half_open: BTreeMap<u64, ConnId>,
}

impl Ports {
    pub fn new(keys: Keys, ephemeral: (u16, u16)) -> Self {
        Self {
            keys,
            ephemeral,
            next: core::array::from_fn(|n| keys.port_counter(n)),
            serial: 0,
            ports: HashMap::new(),
            bindings: HashMap::new(),
            listeners: BTreeMap::new(),
            half_open: BTreeMap::new(),
        }
    }

    fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// What bind(2) does, with Linux's rules for SO_REUSEADDR and SO_REUSEPORT.
    pub fn bind(&mut self, own: &Addresses, owner: Owner, at: Endpoint, sharing: Sharing) -> Result<(BindId, Endpoint), Errno> {
        let Sharing { flags, uid } = sharing;
        if is_any(&at.ip) {
            // Nobody could reach it: whoever asks may have other addresses than the card's.
            let one_version = is_v4(&at.ip) || flags & V6ONLY != 0;
            if one_version && !own.has(is_v4(&at.ip)) {
                return Err(Errno::EAFNOSUPPORT);
            }
        } else if !own.is_own(&at.ip) {
            // RFC 9293 MUST-43.
            return Err(Errno::EADDRNOTAVAIL);
        }
        let mut binding = Binding { owner, ip: at.ip, port: at.port, flags, uid, listener: None };
        if at.port == 0 && flags & NO_PORT == 0 {
            binding.port = self.choose_unused(&at.ip)?;
        } else if self.conflicts(&binding) {
            return Err(Errno::EADDRINUSE);
        }
        let port = binding.port;
        let id = BindId(self.serial());
        self.bindings.insert(id, binding);
        if port != 0 {
            self.ports.entry(port).or_default().bindings.push(id);
        }
        Ok((id, Endpoint { ip: at.ip, port }))
    }

    fn conflicts(&self, new: &Binding) -> bool {
        let Some(used) = self.ports.get(&new.port) else { return false };
        // Connections left over from a server that has gone stand in the way of one that does not say REUSE*.
        // RFC 9293 MUST-42.
        let left_over = used.connections > 0 && new.flags & (REUSEADDR | REUSEPORT) == 0;
        left_over
            || used.bindings.iter().filter_map(|id| self.bindings.get(id)).any(|other| {
                let both = new.flags & other.flags;
                let reused = both & REUSEADDR != 0 && other.listener.is_none();
                new.overlaps(other) && !new.shares(other) && !reused
            })
    }

    pub fn binding(&self, id: BindId) -> Option<&Binding> {
        self.bindings.get(&id)
    }

    pub fn unbind(&mut self, id: BindId) {
        if let Some(b) = self.bindings.remove(&id)
            && let Some(used) = self.ports.get_mut(&b.port)
        {
            used.bindings.retain(|other| *other != id);
            self.forget_unused(b.port);
        }
    }

    /// What listen(2) does. Two bindings that share a port by SO_REUSEADDR cannot both listen.
    /// RFC 9293 MUST-41.
    pub fn listen(&mut self, id: BindId, backlog: u32, wishes: Wishes) -> Result<ListenerId, Errno> {
        let binding = self.bindings.get(&id).ok_or(Errno::EBADF)?;
        if binding.listener.is_some() {
            return Err(Errno::EINVAL);
        }
        let owner = binding.owner;
        if binding.port == 0 {
            let port = self.choose_unused(&{ binding.ip })?;
            self.ports.entry(port).or_default().bindings.push(id);
            self.bindings.entry(id).and_modify(|b| b.port = port);
        } else if self
            .on_port(binding.port)
            .any(|(other_id, other)| other_id != id && other.listener.is_some() && binding.overlaps(other) && !binding.shares(other))
        {
            return Err(Errno::EADDRINUSE);
        }
        let listener = ListenerId(self.serial());
        let half_open = BTreeMap::new();
        self.listeners.insert(listener, Listener { bind: id, owner, backlog, wishes, waiting: 0, half_open, overflows: 0 });
        if let Some(b) = self.bindings.get_mut(&id) {
            b.listener = Some(listener);
        }
        Ok(listener)
    }

    pub fn unlisten(&mut self, id: ListenerId) -> Option<Listener> {
        let listener = self.listeners.remove(&id)?;
        listener.half_open.keys().for_each(|serial| _ = self.half_open.remove(serial));
        if let Some(b) = self.bindings.get_mut(&listener.bind) {
            b.listener = None;
        }
        Some(listener)
    }

    pub fn listener(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.listeners.get_mut(&id)
    }

    /// A SYN has come for it.
    pub fn now_half_open(&mut self, id: ListenerId, serial: u64, conn: ConnId) {
        if let Some(l) = self.listeners.get_mut(&id) {
            l.half_open.insert(serial, conn);
            self.half_open.insert(serial, conn);
        }
    }

    /// That handshake is complete, or given up.
    pub fn no_longer_half_open(&mut self, id: ListenerId, serial: u64) {
        if let Some(l) = self.listeners.get_mut(&id) {
            l.half_open.remove(&serial);
            self.half_open.remove(&serial);
        }
    }

    /// Half-open connections of all listeners.
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// Which half-open connection makes room for one of this listener: the oldest of all, until the listener has `own_max` or its share of
    /// `max`, and then its own oldest.
    pub fn oldest_half_open(&self, id: ListenerId, own_max: usize, max: usize) -> Option<ConnId> {
        let own = &self.listeners.get(&id)?.half_open;
        let share = own_max.min(max / self.listeners.len()).max(1);
        let from = if own.len() < share { &self.half_open } else { own };
        from.first_key_value().map(|(_, conn)| *conn)
    }

    pub fn listeners(&self) -> impl Iterator<Item = (ListenerId, &Listener)> {
        self.listeners.iter().map(|(id, l)| (*id, l))
    }

    fn on_port(&self, port: u16) -> impl Iterator<Item = (BindId, &Binding)> {
        let ids = self.ports.get(&port).map(|u| u.bindings.as_slice()).unwrap_or_default();
        ids.iter().filter_map(|id| Some((*id, self.bindings.get(id)?)))
    }

    /// The listener for a SYN to `key`'s local end: an exact address goes before any; of several
    /// (SO_REUSEPORT) the tuple decides, among those with room first.
    pub fn listener_for(&self, key: &FlowKey) -> Option<ListenerId> {
        let mut exact = Vec::new();
        let mut any = Vec::new();
        for (_, b) in self.on_port(key.local_port) {
            match b.listener {
                Some(l) if b.ip == key.local_ip => exact.push(l),
                Some(l) if b.covers(&key.local_ip) => any.push(l),
                _ => {}
            }
        }
        let all = if exact.is_empty() { any } else { exact };
        let roomy: Vec<_> = all.iter().copied().filter(|l| self.listeners.get(l).is_some_and(|l| !l.is_full())).collect();
        let candidates = if roomy.is_empty() { all } else { roomy };
        candidates.get(self.keys.listener_choice(key, candidates.len())).copied()
    }

    /// A connection with this local port begins.
    pub fn hold(&mut self, port: u16) {
        let used = self.ports.entry(port).or_default();
        used.connections = used.connections.saturating_add(1);
    }

    /// It has ended.
    pub fn release(&mut self, port: u16) {
        if let Some(used) = self.ports.get_mut(&port) {
            used.connections = used.connections.saturating_sub(1);
            self.forget_unused(port);
        }
    }

    fn forget_unused(&mut self, port: u16) {
        if self.ports.get(&port).is_some_and(PortUse::is_unused) {
            self.ports.remove(&port);
        }
    }

    pub fn in_use(&self) -> usize {
        self.ports.len()
    }

    fn is_unused(&self, port: u16) -> bool {
        self.ports.get(&port).is_none_or(PortUse::is_unused)
    }

    /// A port for a socket that does not say which: nobody has anything to do with it.
    fn choose_unused(&mut self, local_ip: &Ip) -> Result<u16, Errno> {
        self.choose(local_ip, &Endpoint::ANY, Self::is_unused).ok_or(Errno::EADDRINUSE)
    }

    /// A local port for a connection from `local_ip` to `remote`: one that nobody has bound and for which `free` holds.
    /// RFC 6056 3.2-1.
    pub fn choose_for(&mut self, local_ip: Ip, remote: Endpoint, free: impl Fn(u16) -> bool) -> Option<u16> {
        let unbound = |ports: &Self, port| ports.ports.get(&port).is_none_or(|u| u.bindings.is_empty());
        self.choose(&local_ip, &remote, |ports, port| unbound(ports, port) && free(port))
    }

    /// RFC 6056, 3.3.4 (double-hash port selection): from a start that depends on the destination on, by
    /// one of several counters, so that ports can neither be guessed nor collide.
    /// RFC 6056 3.3-1.
    fn choose(&mut self, local_ip: &Ip, remote: &Endpoint, ok: impl Fn(&Self, u16) -> bool) -> Option<u16> {
        let (first, last) = self.ephemeral;
        let range = u32::from(last - first) + 1;
        let (offset, which) = self.keys.port_offset(*local_ip, remote.ip, remote.port);
        let which = which as usize % PORT_COUNTERS;
        let start = offset.wrapping_add(self.next[which]) % range;
        for n in 0..range {
            self.next[which] = self.next[which].wrapping_add(1);
            // Below the range, so this stays within 16 bits.
            let port = first + ((start + n) % range) as u16;
            if ok(self, port) {
                return Some(port);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        addr::Prefix,
        addresses::{self, Own, State},
    };
    use toe_abi::flow::v4_mapped;

    const IP: [u8; 4] = [10, 0, 0, 1];
    const BUF: Wishes = Wishes::new(crate::BufferLog2 { tx: 16, rx: 16 });

    /// Ports, and the addresses that can be bound.
    struct Bench {
        ports: Ports,
        own: Addresses,
    }

    impl Bench {
        fn new(ephemeral: (u16, u16), ips: &[Ip]) -> Self {
            let mut own = Addresses::default();
            for ip in ips {
                let prefix = Prefix::new(*ip, 24).unwrap();
                let source = addresses::Source::Operator;
                let (preferred_until_us, valid_until_us) = (addresses::FOREVER, addresses::FOREVER);
                own.add(Own { prefix, source, state: State::Preferred, probe_us: 0, preferred_until_us, valid_until_us, conflict_us: 0 });
            }
            Self { ports: Ports::new(Keys::new([1; 16]), ephemeral), own }
        }

        fn bind(&mut self, owner: Owner, at: Endpoint, flags: u16) -> Result<(BindId, Endpoint), Errno> {
            self.ports.bind(&self.own, owner, at, flags.into())
        }
    }

    impl core::ops::Deref for Bench {
        type Target = Ports;
        fn deref(&self) -> &Ports {
            &self.ports
        }
    }

    impl core::ops::DerefMut for Bench {
        fn deref_mut(&mut self) -> &mut Ports {
            &mut self.ports
        }
    }

    const IP6: Ip = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    fn ports() -> Bench {
        Bench::new((40_000, 40_009), &[v4_mapped(IP), IP6])
    }

    fn at(port: u16) -> Endpoint {
        Endpoint { ip: [0; 16], port }
    }

    #[test]
    fn second_bind_is_refused_without_reuse() {
        let mut p = ports();
        p.bind(1, at(80), 0).unwrap();
        assert_eq!(p.bind(1, at(80), 0), Err(Errno::EADDRINUSE));
        assert_eq!(p.bind(2, Endpoint::v4(IP, 80), REUSEADDR), Err(Errno::EADDRINUSE));
        assert!(p.bind(1, at(81), 0).is_ok());
    }

    #[test]
    fn foreign_addresses_are_refused() {
        let mut p = ports();
        assert_eq!(p.bind(1, Endpoint::v4([10, 0, 0, 2], 80), 0), Err(Errno::EADDRNOTAVAIL));
        assert_eq!(p.bind(1, Endpoint { ip: [0x20; 16], port: 80 }, 0), Err(Errno::EADDRNOTAVAIL));
    }

    #[test]
    fn any_address_of_ipv6_only_needs_one() {
        let mut without = Bench::new((1, 9), &[v4_mapped(IP)]);
        assert_eq!(without.bind(1, at(80), V6ONLY), Err(Errno::EAFNOSUPPORT));
        assert!(without.bind(1, at(80), 0).is_ok(), "it is for IPv4 too");
        assert!(ports().bind(1, at(80), V6ONLY).is_ok());
    }

    /// (address, flags) pairs of two sockets that bind one port, and whether both may.
    #[test]
    fn versions_share_a_port_if_they_have_no_address_in_common() {
        let any4 = (v4_mapped([0; 4]), 0);
        let (both, only6) = (([0; 16], 0), ([0; 16], V6ONLY));
        let (one4, one6) = ((v4_mapped(IP), 0), (IP6, 0));
        for (a, b, share) in [
            (any4, only6, true),
            (any4, both, false),
            (any4, one6, true),
            (any4, one4, false),
            (both, only6, false),
            (both, one4, false),
            (both, one6, false),
            (only6, one4, true),
            (only6, one6, false),
            (one4, one6, true),
            (any4, any4, false),
        ] {
            for (first, second) in [(a, b), (b, a)] {
                let mut p = ports();
                p.bind(1, Endpoint { ip: first.0, port: 80 }, first.1).unwrap();
                assert_eq!(p.bind(1, Endpoint { ip: second.0, port: 80 }, second.1).is_ok(), share, "{first:?} {second:?}");
            }
        }
    }

    #[test]
    fn a_listener_serves_the_versions_that_it_stands_for() {
        for (ip, flags, v4, v6) in [([0; 16], 0, true, true), ([0; 16], V6ONLY, false, true), (v4_mapped([0; 4]), 0, true, false)] {
            let mut p = ports();
            let (id, _) = p.bind(1, Endpoint { ip, port: 80 }, flags).unwrap();
            p.listen(id, 5, BUF).unwrap();
            let found = |local_ip| p.listener_for(&FlowKey { local_ip, remote_ip: local_ip, local_port: 80, remote_port: 9 }).is_some();
            assert_eq!((found(v4_mapped(IP)), found(IP6)), (v4, v6), "{ip:?} {flags}");
        }
    }

    /// RFC 9293 MUST-41.
    #[test]
    fn reuseaddr_lets_two_bind_but_one_listen() {
        let mut p = ports();
        let (a, _) = p.bind(1, at(80), REUSEADDR).unwrap();
        let (b, _) = p.bind(2, at(80), REUSEADDR).unwrap();
        p.listen(a, 5, BUF).unwrap();
        assert_eq!(p.listen(b, 5, BUF), Err(Errno::EADDRINUSE));
        assert_eq!(p.bind(3, at(80), REUSEADDR), Err(Errno::EADDRINUSE));
    }

    /// A member of a group at port 80 of `uid`.
    fn member(p: &mut Bench, owner: Owner, uid: u32) -> Result<BindId, Errno> {
        let own = &p.own;
        p.ports.bind(own, owner, at(80), Sharing { flags: REUSEPORT, uid }).map(|(id, _)| id)
    }

    /// Which listener each of many peers gets.
    fn spread(p: &Bench) -> Vec<Option<ListenerId>> {
        let key = |remote_port| FlowKey { local_ip: v4_mapped(IP), remote_ip: v4_mapped([10, 0, 0, 2]), local_port: 80, remote_port };
        (0..4000).map(|port| p.listener_for(&key(port))).collect()
    }

    #[test]
    fn a_group_is_of_one_user_whatever_the_application() {
        let mut p = ports();
        let (a, b) = (member(&mut p, 1, 1000).unwrap(), member(&mut p, 2, 1000).unwrap());
        assert_eq!(member(&mut p, 1, 1001), Err(Errno::EADDRINUSE), "another user would take connections away");
        assert_eq!(p.bind(1, at(80), 0), Err(Errno::EADDRINUSE), "it does not want to share");
        assert_eq!(p.bind(1, at(80), REUSEADDR), Err(Errno::EADDRINUSE));
        let (a, b) = (p.listen(a, 5, BUF).unwrap(), p.listen(b, 5, BUF).unwrap());
        let late = member(&mut p, 3, 1000).unwrap();
        assert!(p.listen(late, 5, BUF).is_ok(), "also when others listen");
        assert!(a != b);
    }

    #[test]
    fn all_must_want_to_share() {
        let mut p = ports();
        p.bind(1, at(80), 0).unwrap();
        assert_eq!(member(&mut p, 1, 0), Err(Errno::EADDRINUSE));
    }

    #[test]
    fn a_group_shares_evenly_and_goes_on_without_one() {
        let mut p = ports();
        let members: Vec<_> = (0..4).map(|owner| member(&mut p, owner, 0).unwrap()).collect();
        let listeners: Vec<_> = members.iter().map(|id| p.listen(*id, 5, BUF).unwrap()).collect();
        let all = spread(&p);
        for l in &listeners {
            let share = all.iter().filter(|got| **got == Some(*l)).count();
            assert!((850..1150).contains(&share), "{share} of 4000");
        }
        assert_eq!(spread(&p), all, "a peer's SYN always comes to the same");
        p.unlisten(listeners[0]);
        assert!(spread(&p).iter().all(|got| got.is_some_and(|l| l != listeners[0])));
    }

    #[test]
    fn a_member_whose_queue_is_full_is_passed_over() {
        let mut p = ports();
        let members = [member(&mut p, 1, 0).unwrap(), member(&mut p, 2, 0).unwrap()];
        let listeners = members.map(|id| p.listen(id, 0, BUF).unwrap());
        p.listener(listeners[0]).unwrap().waiting = 1;
        assert!(spread(&p).iter().all(|got| *got == Some(listeners[1])));
        p.listener(listeners[1]).unwrap().waiting = 1;
        assert!(spread(&p).iter().all(Option::is_some), "dropped there, and counted");
    }

    #[test]
    fn a_port_may_be_chosen_late() {
        let mut p = ports();
        let free = p.bind(1, Endpoint::v4(IP, 0), NO_PORT).unwrap();
        assert_eq!((free.1.port, p.in_use()), (0, 0));
        let l = p.listen(free.0, 5, BUF).unwrap();
        let port = p.binding(free.0).unwrap().port;
        assert!((40_000..=40_009).contains(&port));
        assert_eq!(p.bind(1, at(port), 0), Err(Errno::EADDRINUSE));
        p.unlisten(l);
        p.unbind(free.0);
        assert_eq!(p.in_use(), 0);
        let never = p.bind(1, Endpoint::v4(IP, 0), NO_PORT).unwrap();
        p.unbind(never.0);
        assert_eq!(p.bind(1, at(81), NO_PORT).unwrap().1.port, 81, "a port that was asked for is taken at once");
    }

    /// RFC 9293 MUST-42.
    #[test]
    fn left_over_connections_need_reuseaddr() {
        let mut p = ports();
        p.hold(80);
        assert_eq!(p.bind(1, at(80), 0), Err(Errno::EADDRINUSE));
        let (id, _) = p.bind(1, at(80), REUSEADDR).unwrap();
        p.unbind(id);
        p.release(80);
        assert!(p.bind(1, at(80), 0).is_ok());
    }

    /// RFC 9293 MUST-43.
    #[test]
    fn exact_address_goes_before_any() {
        let mut p = ports();
        let (any, _) = p.bind(1, at(80), REUSEADDR).unwrap();
        let (exact, _) = p.bind(1, Endpoint::v4(IP, 80), REUSEADDR).unwrap();
        // Only one may listen by Linux's rules, so make the exact one the listener and check both ways.
        let l = p.listen(exact, 1, BUF).unwrap();
        let key = FlowKey { local_ip: v4_mapped(IP), remote_ip: v4_mapped([1; 4]), local_port: 80, remote_port: 9 };
        assert_eq!(p.listener_for(&key), Some(l));
        p.unlisten(l);
        assert_eq!(p.listener_for(&key), None);
        let l = p.listen(any, 1, BUF).unwrap();
        assert_eq!(p.listener_for(&key), Some(l));
    }

    /// RFC 6056 3.2-1.
    #[test]
    fn chosen_ports_are_all_of_the_range_and_then_none() {
        let mut p = ports();
        let mut got: Vec<u16> = (0..10).map(|_| p.bind(1, Endpoint::ANY, 0).unwrap().1.port).collect();
        got.sort_unstable();
        assert_eq!(got, (40_000..=40_009).collect::<Vec<_>>());
        assert_eq!(p.bind(1, Endpoint::ANY, 0), Err(Errno::EADDRINUSE));
        assert_eq!(p.choose_for(v4_mapped(IP), Endpoint::v4([1; 4], 1), |_| true), None);
    }

    /// RFC 6056 3.3-1: over many destinations the first port of each is spread over the range, whatever the key.
    #[test]
    fn first_ports_of_destinations_are_spread_evenly() {
        for key in 0..4 {
            let mut p = Ports::new(Keys::new([key; 16]), (32_768, 60_999));
            let mut tenths = [0; 10];
            for n in 0..4000u16 {
                let [a, b] = n.to_be_bytes();
                let port = p.choose_for(v4_mapped(IP), Endpoint::v4([9, 9, a, b], 443), |_| true).unwrap();
                tenths[usize::from(port - 32_768) * 10 / 28_232] += 1;
            }
            assert!(tenths.iter().all(|n| (300..500).contains(n)), "key {key}: {tenths:?}");
        }
    }

    /// A counter that comes to its end within the search begins anew somewhere else in the range.
    #[test]
    fn every_port_is_tried_also_where_a_counter_wraps() {
        let (ip, to) = (v4_mapped(IP), Endpoint::v4([9; 4], 443));
        for only in 40_000..=40_009 {
            let mut p = ports();
            let (offset, which) = p.keys.port_offset(ip, to.ip, to.port);
            p.next[which as usize % PORT_COUNTERS] = (u32::MAX - 4).wrapping_sub(offset);
            assert_eq!(p.choose_for(ip, to, |port| port == only), Some(only));
        }
    }

    /// RFC 6056, 3.3.4: connections to one destination go through the range, and do not come again to a port before its end.
    #[test]
    fn a_port_comes_again_as_late_as_can_be() {
        let mut p = Bench::new((1000, 1999), &[v4_mapped(IP)]);
        let mut choose = || p.choose_for(v4_mapped(IP), Endpoint::v4([9; 4], 443), |_| true).unwrap();
        let (first, second): (Vec<u16>, Vec<u16>) = ((0..1000).map(|_| choose()).collect(), (0..1000).map(|_| choose()).collect());
        assert_eq!(first.iter().collect::<std::collections::HashSet<_>>().len(), 1000);
        assert_eq!(first, second);
    }

    #[test]
    fn ports_that_are_bound_are_left_to_their_services() {
        let mut p = ports();
        p.bind(1, at(40_003), 0).unwrap();
        let chosen: Vec<_> = (0..9).filter_map(|_| p.choose_for(v4_mapped(IP), Endpoint::v4([9; 4], 443), |_| true)).collect();
        assert!(chosen.len() == 9 && !chosen.contains(&40_003), "{chosen:?}");
    }

    #[test]
    fn whole_port_range_is_possible() {
        let mut p = Bench::new((1, 65_535), &[v4_mapped(IP)]);
        assert!((0..1000).all(|_| p.choose_for(v4_mapped(IP), Endpoint::v4([1; 4], 1), |_| true).is_some()));
    }
}
