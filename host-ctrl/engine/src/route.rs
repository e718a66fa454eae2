//! Which next hop leads to a destination: on-link, or a router by longest prefix.

/// A route. `via`: the router; None: on-link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    pub dest: [u8; 4],
    /// Bits.
    pub prefix: u8,
    pub via: Option<[u8; 4]>,
    /// Congestion control of connections over it, `toe_abi::flow::cc`; None: as everywhere.
    pub cc: Option<u8>,
}

/// The routing table: few entries, written once, longest prefix first.
#[derive(Clone, Debug)]
pub struct RouteTable {
    routes: Vec<Route>,
    local: [u8; 4],
    prefix: u8,
}

fn bits(a: [u8; 4]) -> u32 {
    u32::from_be_bytes(a)
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// Whether `a` can be the address of one host: not "this network", loopback, multicast, reserved or broadcast.
pub fn is_host(a: [u8; 4]) -> bool {
    a[0] != 0 && a[0] != 127 && a[0] < 224
}

impl RouteTable {
    pub fn new(local: [u8; 4], prefix: u8, gateway: Option<[u8; 4]>, routes: &[Route]) -> Self {
        let on_link = Route { dest: local, prefix, via: None, cc: None };
        let default = gateway.map(|via| Route { dest: [0; 4], prefix: 0, via: Some(via), cc: None });
        let mut all: Vec<Route> = core::iter::once(on_link).chain(routes.iter().copied()).chain(default).collect();
        // Stable: of two routes of one length the first stated wins.
        all.sort_by_key(|r| core::cmp::Reverse(r.prefix.min(32)));
        Self { routes: all, local, prefix }
    }

    /// The address to resolve for `dest`. None: no route (nor is there one to ourselves).
    pub fn next_hop(&self, dest: [u8; 4]) -> Option<[u8; 4]> {
        // RFC 9293 MUST-46.
        if !is_host(dest) || dest == self.local || self.is_broadcast(dest) {
            return None;
        }
        Some(self.route(dest)?.via.unwrap_or(dest))
    }

    /// The congestion control that the route to `dest` asks for.
    pub fn cc(&self, dest: [u8; 4]) -> Option<u8> {
        self.route(dest)?.cc
    }

    fn route(&self, dest: [u8; 4]) -> Option<&Route> {
        self.routes.iter().find(|r| (bits(r.dest) ^ bits(dest)) & mask(r.prefix) == 0)
    }

    /// Whether `a` is the limited or our subnet's broadcast address (RFC 1122, 3.2.1.3; RFC 3021: /31 has none).
    pub fn is_broadcast(&self, a: [u8; 4]) -> bool {
        let host = !mask(self.prefix);
        a == [255; 4] || (self.prefix < 31 && bits(a) | host == bits(a) && (bits(a) ^ bits(self.local)) & !host == 0)
    }

    /// All routes, in the order in which they are tried.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> RouteTable {
        let r = |dest, prefix, via| Route { dest, prefix, via, cc: None };
        RouteTable::new(
            [10, 0, 0, 1],
            24,
            Some([10, 0, 0, 254]),
            &[r([10, 1, 0, 0], 16, Some([10, 0, 0, 2])), r([10, 1, 2, 0], 24, Some([10, 0, 0, 3])), r([10, 9, 0, 0], 16, None)],
        )
    }

    #[test]
    fn congestion_control_is_that_of_the_longest_prefix() {
        let r = |dest, prefix, cc| Route { dest, prefix, via: None, cc };
        let t = RouteTable::new([10, 0, 0, 1], 24, None, &[r([10, 1, 0, 0], 16, Some(2)), r([10, 1, 2, 0], 24, None)]);
        let cc = [[10, 1, 1, 1], [10, 1, 2, 1], [10, 0, 0, 9], [192, 168, 0, 1]].map(|dest| t.cc(dest));
        assert_eq!(cc, [Some(2), None, None, None]);
    }

    #[test]
    fn longest_prefix_wins() {
        let t = table();
        assert_eq!(t.next_hop([10, 1, 2, 3]), Some([10, 0, 0, 3]));
        assert_eq!(t.next_hop([10, 1, 3, 3]), Some([10, 0, 0, 2]));
        assert_eq!(t.next_hop([10, 0, 0, 9]), Some([10, 0, 0, 9]));
        assert_eq!(t.next_hop([10, 9, 4, 4]), Some([10, 9, 4, 4]));
        assert_eq!(t.next_hop([1, 1, 1, 1]), Some([10, 0, 0, 254]));
    }

    #[test]
    fn no_route_to_ourselves_broadcast_or_multicast() {
        let t = table();
        for a in [[10, 0, 0, 1], [10, 0, 0, 255], [255; 4], [224, 0, 0, 1], [0; 4], [127, 0, 0, 1]] {
            assert_eq!(t.next_hop(a), None, "{a:?}");
        }
        let alone = RouteTable::new([10, 0, 0, 1], 24, None, &[]);
        assert_eq!(alone.next_hop([10, 0, 1, 1]), None);
    }

    #[test]
    fn point_to_point_prefixes_have_no_broadcast() {
        let t = RouteTable::new([10, 0, 0, 0], 31, None, &[]);
        assert_eq!(t.next_hop([10, 0, 0, 1]), Some([10, 0, 0, 1]));
        assert!(!t.is_broadcast([10, 0, 0, 1]));
        let t = RouteTable::new([10, 0, 0, 1], 32, Some([10, 0, 0, 2]), &[]);
        assert_eq!(t.next_hop([10, 0, 0, 2]), Some([10, 0, 0, 2]));
    }
}
