//! Local ports: who has bound what, who listens, and which port a connection gets that did not ask for one.

use crate::{BindId, ConnId, Endpoint, Errno, ListenerId, Owner, Wishes, isn::Keys};
use std::collections::{BTreeMap, HashMap};
use toe_abi::{
    app::bind_flags::{REUSEADDR, REUSEPORT},
    flow::FlowKey,
};

pub struct Binding {
    pub owner: Owner,
    /// None: any local address.
    pub ip: Option<[u8; 16]>,
    pub port: u16,
    pub flags: u16,
    pub listener: Option<ListenerId>,
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
}

impl Listener {
    pub fn is_full(&self) -> bool {
        self.waiting >= self.backlog
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
    local_ip: [u8; 16],
    ephemeral: (u16, u16),
    next: [u32; PORT_COUNTERS],
    serial: u64,
    ports: HashMap<u16, PortUse>,
    bindings: HashMap<BindId, Binding>,
    listeners: BTreeMap<ListenerId, Listener>,
}

impl Ports {
    pub fn new(keys: Keys, local_ip: [u8; 16], ephemeral: (u16, u16)) -> Self {
        Self {
            keys,
            local_ip,
            ephemeral,
            next: [0; PORT_COUNTERS],
            serial: 0,
            ports: HashMap::new(),
            bindings: HashMap::new(),
            listeners: BTreeMap::new(),
        }
    }

    fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// What bind(2) does, with Linux's rules for SO_REUSEADDR and SO_REUSEPORT.
    pub fn bind(&mut self, owner: Owner, at: Endpoint, flags: u16) -> Result<(BindId, Endpoint), Errno> {
        let ip = self.local(at.ip)?;
        let port = match at.port {
            0 => self.choose(ip, 0, |ports, port| ports.is_unused(port)).ok_or(Errno::EADDRINUSE)?,
            port if self.conflicts(owner, ip, port, flags) => return Err(Errno::EADDRINUSE),
            port => port,
        };
        let id = BindId(self.serial());
        self.bindings.insert(id, Binding { owner, ip, port, flags, listener: None });
        self.ports.entry(port).or_default().bindings.push(id);
        Ok((id, Endpoint { ip: at.ip, port }))
    }

    /// `ip` as a binding has it: None is any address.
    /// RFC 9293 MUST-43.
    fn local(&self, ip: [u8; 16]) -> Result<Option<[u8; 16]>, Errno> {
        if is_any(&ip) {
            return Ok(None);
        }
        toe_abi::flow::as_v4(&ip).ok_or(Errno::EAFNOSUPPORT)?;
        if ip == self.local_ip { Ok(Some(ip)) } else { Err(Errno::EADDRNOTAVAIL) }
    }

    fn conflicts(&self, owner: Owner, ip: Option<[u8; 16]>, port: u16, flags: u16) -> bool {
        let Some(used) = self.ports.get(&port) else { return false };
        // Connections left over from a server that has gone stand in the way of one that does not say REUSE*.
        // RFC 9293 MUST-42.
        let left_over = used.connections > 0 && flags & (REUSEADDR | REUSEPORT) == 0;
        left_over
            || used.bindings.iter().filter_map(|id| self.bindings.get(id)).any(|other| {
                let overlap = ip.is_none() || other.ip.is_none() || ip == other.ip;
                let both = flags & other.flags;
                let shared = both & REUSEPORT != 0 && owner == other.owner;
                let reused = both & REUSEADDR != 0 && other.listener.is_none();
                overlap && !shared && !reused
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
        let (owner, port) = (binding.owner, binding.port);
        let taken = self.on_port(port).any(|(other_id, other)| {
            let overlap = binding.ip.is_none() || other.ip.is_none() || binding.ip == other.ip;
            let shared = binding.flags & other.flags & REUSEPORT != 0 && owner == other.owner;
            other_id != id && other.listener.is_some() && overlap && !shared
        });
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        let listener = ListenerId(self.serial());
        let half_open = BTreeMap::new();
        self.listeners.insert(listener, Listener { bind: id, owner, backlog: backlog.max(1), wishes, waiting: 0, half_open });
        if let Some(b) = self.bindings.get_mut(&id) {
            b.listener = Some(listener);
        }
        Ok(listener)
    }

    pub fn unlisten(&mut self, id: ListenerId) -> Option<Listener> {
        let listener = self.listeners.remove(&id)?;
        if let Some(b) = self.bindings.get_mut(&listener.bind) {
            b.listener = None;
        }
        Some(listener)
    }

    pub fn listener(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.listeners.get_mut(&id)
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
            match (b.listener, b.ip) {
                (Some(l), Some(ip)) if ip == key.local_ip => exact.push(l),
                (Some(l), None) => any.push(l),
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

    /// A local port for a connection to `remote`: one that nobody has bound and for which `free` holds.
    /// RFC 6056 3.2-1.
    pub fn choose_for(&mut self, remote: Endpoint, free: impl Fn(u16) -> bool) -> Option<u16> {
        let unbound = |ports: &Self, port| ports.ports.get(&port).is_none_or(|u| u.bindings.is_empty());
        self.choose(Some(remote.ip), remote.port, |ports, port| unbound(ports, port) && free(port))
    }

    /// RFC 6056, 3.3.4 (double-hash port selection): from a start that depends on the destination on, by
    /// one of several counters, so that ports can neither be guessed nor collide.
    /// RFC 6056 3.3-1.
    fn choose(&mut self, remote_ip: Option<[u8; 16]>, remote_port: u16, ok: impl Fn(&Self, u16) -> bool) -> Option<u16> {
        let (first, last) = self.ephemeral;
        let range = u32::from(last - first) + 1;
        let (offset, which) = self.keys.port_offset(self.local_ip, remote_ip.unwrap_or_default(), remote_port);
        let which = which as usize % PORT_COUNTERS;
        for _ in 0..range {
            let at = offset.wrapping_add(self.next[which]) % range;
            self.next[which] = self.next[which].wrapping_add(1);
            // `at` is below the range, so this stays within 16 bits.
            let port = first + at as u16;
            if ok(self, port) {
                return Some(port);
            }
        }
        None
    }
}

fn is_any(ip: &[u8; 16]) -> bool {
    *ip == [0; 16] || toe_abi::flow::as_v4(ip) == Some([0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_abi::flow::v4_mapped;

    const IP: [u8; 4] = [10, 0, 0, 1];
    const BUF: Wishes = Wishes::new(crate::BufferLog2 { tx: 16, rx: 16 });

    fn ports() -> Ports {
        Ports::new(Keys::new([1; 16]), v4_mapped(IP), (40_000, 40_009))
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
    fn foreign_and_ipv6_addresses_are_refused() {
        let mut p = ports();
        assert_eq!(p.bind(1, Endpoint::v4([10, 0, 0, 2], 80), 0), Err(Errno::EADDRNOTAVAIL));
        assert_eq!(p.bind(1, Endpoint { ip: [0x20; 16], port: 80 }, 0), Err(Errno::EAFNOSUPPORT));
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

    #[test]
    fn reuseport_shares_within_one_owner_only() {
        let mut p = ports();
        let (a, _) = p.bind(1, at(80), REUSEPORT).unwrap();
        let (b, _) = p.bind(1, at(80), REUSEPORT).unwrap();
        assert_eq!(p.bind(2, at(80), REUSEPORT), Err(Errno::EADDRINUSE));
        let (a, b) = (p.listen(a, 5, BUF).unwrap(), p.listen(b, 5, BUF).unwrap());
        let chosen: std::collections::HashSet<_> = (0..64u16)
            .filter_map(|remote_port| {
                let key = FlowKey { local_ip: v4_mapped(IP), remote_ip: v4_mapped([10, 0, 0, 2]), local_port: 80, remote_port };
                p.listener_for(&key)
            })
            .collect();
        assert_eq!(chosen, [a, b].into());
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
        assert_eq!(p.choose_for(Endpoint::v4([1; 4], 1), |_| true), None);
    }

    #[test]
    fn whole_port_range_is_possible() {
        let mut p = Ports::new(Keys::new([1; 16]), v4_mapped(IP), (1, 65_535));
        assert!((0..1000).all(|_| p.choose_for(Endpoint::v4([1; 4], 1), |_| true).is_some()));
    }
}
