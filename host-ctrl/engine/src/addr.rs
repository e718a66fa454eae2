//! Addresses and prefixes of both versions: 16 bytes, those of IPv4 as ::ffff:a.b.c.d, so that one table holds all.

use crate::route;
use toe_abi::flow::{as_v4, v4_mapped};
use toe_wire::ipv6::{UNSPECIFIED, is_link_local, is_multicast};

/// An address; IPv4 is mapped.
pub type Ip = [u8; 16];

/// Bits before an IPv4 address in its mapped form.
const MAPPED_BITS: u8 = 96;
/// fe80::.
const LINK_LOCAL: Ip = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// ::1.
const LOOPBACK: Ip = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

pub(crate) fn is_v4(ip: &Ip) -> bool {
    as_v4(ip).is_some()
}

/// Whether `ip` is ::, or 0.0.0.0.
pub(crate) fn is_any(ip: &Ip) -> bool {
    *ip == UNSPECIFIED || as_v4(ip) == Some([0; 4])
}

/// Whether `ip` can be the address of one host: not unspecified, loopback, multicast, reserved or limited broadcast.
pub fn is_host(ip: &Ip) -> bool {
    match as_v4(ip) {
        Some(a) => route::is_host_v4(a),
        None => !is_multicast(ip) && *ip != UNSPECIFIED && *ip != LOOPBACK,
    }
}

/// The first `len` bits of an address; of IPv4, those of its mapped form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    pub ip: Ip,
    /// Of all 128 bits: of IPv4, 96 and what is usually written.
    pub len: u8,
}

impl Prefix {
    pub(crate) const LINK_LOCAL: Prefix = Prefix { ip: LINK_LOCAL, len: 64 };
    /// All of IPv6. (What is mapped never gets here: IPv4's own default is longer.)
    pub(crate) const ALL_V6: Prefix = Prefix { ip: UNSPECIFIED, len: 0 };
    /// All of IPv4.
    pub(crate) const ALL_V4: Prefix = Prefix { ip: v4_mapped([0; 4]), len: MAPPED_BITS };

    /// `len` as it is usually written: of IPv4 at most 32 bits, of IPv6 at most 128. `None`: longer.
    pub fn new(ip: Ip, len: u8) -> Option<Self> {
        let (before, most) = if is_v4(&ip) { (MAPPED_BITS, 32) } else { (0, 128) };
        (len <= most).then_some(Self { ip, len: before + len })
    }

    /// The length as it is usually written.
    pub fn written_len(&self) -> u8 {
        if is_v4(&self.ip) { self.len.saturating_sub(MAPPED_BITS) } else { self.len }
    }

    /// The prefix with all other bits zero.
    pub(crate) fn masked(self) -> Self {
        let ones = u128::MAX.checked_shl(128u32.saturating_sub(self.len.into())).unwrap_or(0);
        Self { ip: (u128::from_be_bytes(self.ip) & ones).to_be_bytes(), len: self.len }
    }

    pub fn contains(&self, ip: &Ip) -> bool {
        is_v4(ip) == is_v4(&self.ip) && common_bits(&self.ip, ip) >= self.len.min(128)
    }
}

/// How many bits two addresses begin with that are the same.
pub(crate) fn common_bits(a: &Ip, b: &Ip) -> u8 {
    (u128::from_be_bytes(*a) ^ u128::from_be_bytes(*b)).leading_zeros() as u8
}

/// Addresses of the same version and scope reach each other.
pub(crate) fn same_scope(a: &Ip, b: &Ip) -> bool {
    is_v4(a) == is_v4(b) && is_link_local(a) == is_link_local(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(text: &str) -> Ip {
        text.parse::<std::net::Ipv6Addr>().unwrap().octets()
    }

    #[test]
    fn a_prefix_holds_addresses_of_its_own_version() {
        let net = Prefix::new(v4_mapped([10, 0, 0, 1]), 24).unwrap();
        assert!(net.contains(&v4_mapped([10, 0, 0, 77])) && !net.contains(&v4_mapped([10, 0, 1, 1])));
        assert!(Prefix::ALL_V4.contains(&v4_mapped([1; 4])) && !Prefix::ALL_V6.contains(&v4_mapped([1; 4])));
        assert!(Prefix::ALL_V6.contains(&v6("2001:db8::1")) && !Prefix::ALL_V4.contains(&v6("2001:db8::1")));
        let net = Prefix::new(v6("fd00:1::"), 33).unwrap();
        assert!(net.contains(&v6("fd00:1:7fff::1")) && !net.contains(&v6("fd00:1:8000::1")));
        assert!(Prefix::new(v6("fd00::1"), 128).unwrap().contains(&v6("fd00::1")));
    }

    #[test]
    fn lengths_are_those_of_the_version() {
        assert_eq!(Prefix::new(v4_mapped([10, 0, 0, 1]), 33), None);
        assert_eq!(Prefix::new(v6("fd00::1"), 129), None);
        for (prefix, written) in [(Prefix::new(v4_mapped([1; 4]), 8), 8), (Prefix::new(v6("fd00::1"), 8), 8)] {
            assert_eq!(prefix.unwrap().written_len(), written);
        }
    }

    #[test]
    fn hosts_have_host_addresses() {
        for ip in ["fd00::1", "fe80::1", "2001:db8::", "::ffff:10.0.0.1"] {
            assert!(is_host(&v6(ip)), "{ip}");
        }
        for ip in ["::", "::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:224.0.0.1", "::ffff:0.0.0.0"] {
            assert!(!is_host(&v6(ip)), "{ip}");
        }
    }
}
