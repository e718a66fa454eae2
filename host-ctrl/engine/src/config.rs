//! What an engine is told once. Times are microseconds.

use crate::{
    addr::{Ip, Prefix, is_host, is_v4},
    addresses,
    route::Route,
};
use core::fmt;

/// Settings of an [`Engine`](crate::Engine).
#[derive(Clone, Debug)]
pub struct Config {
    /// MAC address of the card's port.
    pub mac: [u8; 6],
    /// The card's addresses, each with the prefix that is on-link. With one of IPv6 comes a link-local one.
    pub addresses: Vec<Prefix>,
    /// Default routers, of either version; must be on-link.
    pub gateways: Vec<Ip>,
    /// Take addresses, routers and the link's MTU from router advertisements (RFC 4862).
    pub slaac: bool,
    /// Key of the numbers that addresses are made of (RFC 7217): they stay the same as long as it does.
    pub stable_secret: [u8; 16],
    /// Times that others are asked whether they have an address of IPv6 before it is used (RFC 4862, 5.1), and the time between.
    pub dad_transmits: u8,
    pub dad_interval_us: u64,
    /// 802.1Q VLAN that we are on; 0: none.
    pub vlan: u16,
    /// Further routes; the longest prefix wins.
    pub routes: Vec<Route>,
    /// Bytes of IP packet on the port.
    pub mtu: u16,
    /// First retransmission timeout of SYN and SYN-ACK; doubles each time.
    pub handshake_timeout_us: u64,
    /// Retransmissions of a SYN or SYN-ACK before giving up.
    pub handshake_retries: u8,
    /// First timeout of an ARP request or neighbour solicitation; doubles each time.
    pub arp_timeout_us: u64,
    /// A resolution fails when the timeout would exceed this.
    pub arp_timeout_max_us: u64,
    /// A neighbour is asked again this long after it was last heard.
    pub arp_expire_us: u64,
    /// 2 MSL (RFC 9293, 3.4.2).
    pub time_wait_us: u64,
    /// Longest FIN-WAIT-2 of a connection without a descriptor.
    pub fin_wait2_us: u64,
    /// Most entries in TIME-WAIT; the oldest goes.
    pub time_wait_max: usize,
    /// Most half-open connections of a listener. Beyond, `syn_cookies` says what becomes of SYNs.
    pub syn_backlog_max: usize,
    /// The same of all listeners together; never more than half of `connections_max`.
    pub half_open_max: usize,
    pub syn_cookies: SynCookies,
    /// Most connections of all kinds, TIME-WAIT apart.
    pub connections_max: usize,
    /// Key of initial sequence numbers, timestamp offsets, port choice and hash tables. Must be random and secret.
    pub secret: [u8; 16],
    /// `toe_abi::flow::cc`.
    pub cc: u8,
    /// Windows are paced.
    pub cc_pacing: bool,
    /// Entries of the card's next-hop table. The last ones are for routers: 8, or a quarter if that is less.
    pub next_hops: u16,
    /// Negotiate ECN (RFC 3168).
    pub ecn: bool,
    /// Least that is added to the round-trip time for a retransmission timeout.
    pub rto_min_us: u32,
    /// Negotiate timestamps (RFC 7323).
    pub timestamps: bool,
    /// Negotiate window scaling (RFC 7323).
    pub window_scaling: bool,
    /// Negotiate SACK (RFC 2018).
    pub sack: bool,
    /// Round-trip time assumed before there is a sample; 0: none (RFC 6298: RTO is 1 s).
    pub rtt_init_us: u32,
    /// First and last port chosen for sockets that did not ask for one.
    pub ephemeral: (u16, u16),
    /// Answer ARP requests and neighbour solicitations here. False where the card does it.
    pub answer_arp: bool,
    /// Time to live or hop limit of packets sent here and by flows. RFC 9293 MUST-49.
    pub ttl: u8,
    /// RSTs to each address, ICMP messages and, received, ICMP errors about connections, each kind: most a second. (RSTs to all addresses: 16 times
    /// as many; of the errors 10 about each connection.)
    pub replies_per_second: u32,
}

/// When a SYN is answered by a cookie, without keeping anything of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SynCookies {
    /// Never: the oldest half-open connection makes room (RFC 4987, 3.4).
    Off,
    /// When there are as many half-open connections as may be.
    OnOverflow,
    /// Always: for tests.
    Always,
}

impl Config {
    /// Usual values for a card with these addresses. The secrets are left zero: set them.
    pub fn new(mac: [u8; 6], addresses: Vec<Prefix>) -> Self {
        Self {
            mac,
            addresses,
            gateways: Vec::new(),
            slaac: false,
            stable_secret: [0; 16],
            dad_transmits: 1,
            dad_interval_us: 1_000_000,
            vlan: 0,
            routes: Vec::new(),
            mtu: 1500,
            handshake_timeout_us: 1_000_000,
            handshake_retries: 6,
            arp_timeout_us: 250_000,
            arp_timeout_max_us: 1_000_000,
            arp_expire_us: 30_000_000,
            time_wait_us: 60_000_000,
            fin_wait2_us: 60_000_000,
            time_wait_max: 65_536,
            syn_backlog_max: 1024,
            half_open_max: 16_384,
            syn_cookies: SynCookies::OnOverflow,
            connections_max: 65_536,
            secret: [0; 16],
            cc: toe_abi::flow::cc::CUBIC,
            cc_pacing: false,
            next_hops: 256,
            ecn: false,
            rto_min_us: 200_000,
            timestamps: true,
            window_scaling: true,
            sack: true,
            rtt_init_us: 0,
            ephemeral: (32_768, 60_999),
            answer_arp: false,
            ttl: 64,
            replies_per_second: 1000,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let fail = |what| Err(ConfigError(what));
        if self.addresses.is_empty() && !self.slaac {
            return fail("there is no address");
        }
        // One of the places is the link-local address's.
        if self.addresses.len() >= addresses::MAX {
            return fail("there are too many addresses");
        }
        if self.addresses.iter().any(|a| a.len > 128 || !is_host(&a.ip)) || self.gateways.iter().any(|g| !is_host(g)) {
            return fail("an address or a router is not a host address");
        }
        if self.vlan > 4094 {
            return fail("vlan is above 4094");
        }
        if self.mac[0] & 1 != 0 || self.mac == [0; 6] {
            return fail("mac is not a station address");
        }
        // RFC 791: every host takes 576 bytes; nothing below it is worth a handshake.
        if self.mtu < 576 {
            return fail("mtu is below 576 bytes");
        }
        // RFC 8200, 5.
        if self.mtu < toe_wire::ipv6::MTU_MIN && (self.slaac || self.addresses.iter().any(|a| !is_v4(&a.ip))) {
            return fail("mtu is below the 1280 bytes that IPv6 needs");
        }
        if self.ephemeral.0 == 0 || self.ephemeral.0 > self.ephemeral.1 {
            return fail("ephemeral ports: the first must be at least 1 and not above the last");
        }
        if self.next_hops == 0
            || self.time_wait_max == 0
            || self.syn_backlog_max == 0
            || self.half_open_max == 0
            || self.connections_max == 0
        {
            return fail("next_hops, time_wait_max, syn_backlog_max, half_open_max and connections_max must be at least 1");
        }
        if self.handshake_timeout_us == 0 || self.arp_timeout_us == 0 || self.dad_interval_us == 0 || self.replies_per_second == 0 {
            return fail("handshake_timeout_us, arp_timeout_us, dad_interval_us and replies_per_second must be at least 1");
        }
        // Neighbours would be asked without a pause, and what a program has closed would be reset before its last bytes had gone.
        if self.arp_expire_us == 0 || self.fin_wait2_us == 0 {
            return fail("arp_expire_us and fin_wait2_us must be at least 1");
        }
        Ok(())
    }
}

/// Why a [`Config`] was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigError(pub &'static str);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time of nothing is over before anybody can have answered, and would be measured again and again.
    #[test]
    fn a_time_of_zero_is_refused() {
        let sound = Config::new([2; 6], vec![Prefix { ip: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2], len: 120 }]);
        assert_eq!(sound.check(), Ok(()));
        let refused = |zero: fn(&mut Config)| {
            let mut config = sound.clone();
            zero(&mut config);
            config.check().is_err()
        };
        assert!(refused(|c| c.handshake_timeout_us = 0));
        assert!(refused(|c| c.arp_timeout_us = 0));
        assert!(refused(|c| c.arp_expire_us = 0));
        assert!(refused(|c| c.fin_wait2_us = 0));
        assert!(refused(|c| c.dad_interval_us = 0));
    }
}
