//! `struct sockaddr` as bytes, of AF_INET and AF_INET6. Inside, an address of IPv4 is mapped, as in the names of IPv6 sockets.

use crate::{Errno, Sock, process};
use rustix::fd::AsFd;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use toe::Socket;
use toe::link::slot::Addr;
use toe::socket::own_flags;
use toe_abi::region::slot_state;

/// Bytes of a `struct sockaddr_in`.
pub const SOCKADDR_IN_LEN: usize = 16;
/// Bytes of a `struct sockaddr_in6`.
pub const SOCKADDR_IN6_LEN: usize = 28;
/// Without the scope, which RFC 2133 did not have yet.
const SOCKADDR_IN6_LEAST: usize = 24;

/// The two families of sockets that can be ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Inet,
    Inet6,
}

impl Family {
    /// Of `socket`.
    pub(crate) fn of(socket: &Socket<'_>) -> Self {
        if socket.has_flag(own_flags::INET6) { Family::Inet6 } else { Family::Inet }
    }

    /// As the kernel numbers it.
    pub(crate) const fn number(self) -> i32 {
        match self {
            Family::Inet => libc::AF_INET,
            Family::Inet6 => libc::AF_INET6,
        }
    }

    pub(crate) const fn name_len(self) -> usize {
        match self {
            Family::Inet => SOCKADDR_IN_LEN,
            Family::Inet6 => SOCKADDR_IN6_LEN,
        }
    }

    /// All addresses, the port to be chosen.
    pub(crate) const fn any(self) -> Addr {
        match self {
            Family::Inet => Addr::v4([0; 4], 0),
            Family::Inet6 => Addr::v6([0; 16], 0),
        }
    }
}

/// A socket address as a program gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SockName {
    bytes: [u8; SOCKADDR_IN6_LEN],
    len: usize,
}

impl std::ops::Deref for SockName {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What an application's address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    Inet {
        addr: Addr,
        /// The interface on whose link it is; 0: not said.
        scope: u32,
    },
    /// AF_UNSPEC.
    Unspecified,
}

/// Reads an address for a socket of `family`; EINVAL and EAFNOSUPPORT as the kernel.
pub fn parse(bytes: &[u8], family: Family) -> Result<Name, Errno> {
    let &[f0, f1, ref rest @ ..] = bytes else { return Err(Errno::INVAL) };
    let named = i32::from(u16::from_ne_bytes([f0, f1]));
    if named == libc::AF_UNSPEC {
        return Ok(Name::Unspecified);
    }
    // Linux looks at the length first where it knows the longer of the two.
    if family == Family::Inet6 && bytes.len() < SOCKADDR_IN6_LEAST {
        return Err(Errno::INVAL);
    }
    if named != family.number() {
        return Err(Errno::AFNOSUPPORT);
    }
    match (family, rest) {
        (Family::Inet, &[p0, p1, a, b, c, d, ..]) if bytes.len() >= SOCKADDR_IN_LEN => {
            Ok(Name::Inet { addr: Addr::v4([a, b, c, d], u16::from_be_bytes([p0, p1])), scope: 0 })
        }
        (Family::Inet6, &[p0, p1, _, _, _, _, ref ip @ ..]) => {
            let (ip, rest) = ip.split_first_chunk().ok_or(Errno::INVAL)?;
            let scope = rest.first_chunk().map_or(0, |scope| u32::from_ne_bytes(*scope));
            Ok(Name::Inet { addr: Addr::v6(*ip, u16::from_be_bytes([p0, p1])), scope })
        }
        _ => Err(Errno::INVAL),
    }
}

/// The name of an address of the card's, or of its peer's, for a socket of `family`.
pub fn encode(addr: Addr, family: Family) -> SockName {
    let mut bytes = [0; SOCKADDR_IN6_LEN];
    bytes[..2].copy_from_slice(&(family.number() as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&addr.port.to_be_bytes());
    match family {
        Family::Inet => bytes[4..8].copy_from_slice(&addr.as_v4().unwrap_or([0; 4])),
        Family::Inet6 => {
            bytes[8..24].copy_from_slice(&addr.ip);
            bytes[24..].copy_from_slice(&scope_of(addr).to_ne_bytes());
        }
    }
    SockName { bytes, len: family.name_len() }
}

/// As rustix has it, for kernel sockets of `family`.
pub(crate) fn to_std(addr: Addr, family: Family) -> SocketAddr {
    match family {
        Family::Inet => SocketAddr::new(Ipv4Addr::from(addr.as_v4().unwrap_or([0; 4])).into(), addr.port),
        Family::Inet6 => SocketAddrV6::new(Ipv6Addr::from(addr.ip), addr.port, 0, scope_of(addr)).into(),
    }
}

/// 127.0.0.0/8, or ::1.
pub(crate) fn is_loopback(addr: Addr) -> bool {
    Ipv6Addr::from(addr.ip).to_canonical().is_loopback()
}

/// fe80::/10: means something on one link only.
pub(crate) fn is_link_local(addr: Addr) -> bool {
    Ipv6Addr::from(addr.ip).is_unicast_link_local()
}

/// The scope of addresses on the card's link; 0: no interface of the kernel stands for it.
fn scope_of_card() -> u32 {
    process::welcome().map_or(0, |welcome| welcome.scope)
}

/// The scope of an address of the card's, or of its peer's.
pub(crate) fn scope_of(addr: Addr) -> u32 {
    if is_link_local(addr) { scope_of_card() } else { 0 }
}

/// Whether an address of this scope is on a link where the card is not.
pub(crate) fn is_elsewhere(addr: Addr, scope: u32) -> bool {
    is_link_local(addr) && (scope == 0 || scope != scope_of_card())
}

/// Whether the address is one of IPv4.
pub(crate) fn is_v4(addr: Addr) -> bool {
    toe_abi::flow::as_v4(&addr.ip).is_some()
}

/// Whether the kernel has this address: it would send to itself.
pub(crate) fn is_kernels_own(addr: Addr) -> bool {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let (family, of_kernel) = if is_v4(addr) { (Family::Inet, AddressFamily::INET) } else { (Family::Inet6, AddressFamily::INET6) };
    let probe = || -> Result<bool, Errno> {
        let fd = rustix::net::socket_with(of_kernel, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let to = to_std(Addr { port: 9, ..addr }, family);
        // Sends nothing: the kernel picks the route and its source address.
        rustix::net::connect(fd.as_fd(), &to)?;
        let from = SocketAddr::try_from(rustix::net::getsockname(fd.as_fd())?)?;
        Ok(from.ip() == to.ip())
    };
    is_loopback(addr) || probe().unwrap_or(false)
}

impl Sock {
    /// getsockname(2). A socket without a name has 0.0.0.0:0, or [::]:0.
    pub fn local_name(self) -> Result<SockName, Errno> {
        let socket = self.words()?;
        Ok(encode(socket.slot().names.local(), Family::of(&socket)))
    }

    /// getpeername(2).
    pub fn peer_name(self) -> Result<SockName, Errno> {
        let socket = self.words()?;
        if socket.state() != slot_state::CONNECTED || socket.is_over() {
            return Err(Errno::NOTCONN);
        }
        Ok(encode(socket.slot().names.remote(), Family::of(&socket)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Addr = Addr::v4([192, 0, 2, 7], 8080);
    const V6: Addr = Addr::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], 8080);

    #[test]
    fn an_address_survives_the_round_trip() {
        for (addr, family, len) in [(V4, Family::Inet, 16), (V4, Family::Inet6, 28), (V6, Family::Inet6, 28)] {
            let name = encode(addr, family);
            assert_eq!((name.len(), parse(&name, family)), (len, Ok(Name::Inet { addr, scope: 0 })));
        }
    }

    #[test]
    fn malformed_addresses_are_refused_as_the_kernel_does() {
        let (inet, inet6) = (encode(V4, Family::Inet), encode(V6, Family::Inet6));
        assert_eq!(parse(&[], Family::Inet), Err(Errno::INVAL));
        assert_eq!(parse(&inet[..15], Family::Inet), Err(Errno::INVAL));
        assert_eq!(parse(&inet6[..23], Family::Inet6), Err(Errno::INVAL));
        assert_eq!(parse(&inet6[..24], Family::Inet6), Ok(Name::Inet { addr: V6, scope: 0 }), "without a scope");
        assert_eq!(parse(&inet, Family::Inet6), Err(Errno::INVAL), "too short to be looked at");
        assert_eq!(parse(&inet6, Family::Inet), Err(Errno::AFNOSUPPORT));
        assert_eq!(parse(&(libc::AF_UNIX as u16).to_ne_bytes(), Family::Inet), Err(Errno::AFNOSUPPORT));
        assert_eq!(parse(&(libc::AF_UNSPEC as u16).to_ne_bytes(), Family::Inet), Ok(Name::Unspecified));
    }

    #[test]
    fn a_link_local_address_without_a_scope_or_of_another_link_is_elsewhere() {
        let local = Addr::v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], 8080);
        let mut name = encode(local, Family::Inet6);
        name.bytes[24..].copy_from_slice(&5u32.to_ne_bytes());
        assert_eq!(parse(&name, Family::Inet6), Ok(Name::Inet { addr: local, scope: 5 }));
        // Here there is no card.
        assert!(is_elsewhere(local, 5) && is_elsewhere(local, 0) && !is_elsewhere(V6, 5) && !is_elsewhere(V4, 0));
    }

    #[test]
    fn loopback_is_the_kernels() {
        let one = Addr::v6(Ipv6Addr::LOCALHOST.octets(), 80);
        for addr in [Addr::v4([127, 1, 2, 3], 80), one] {
            assert!(is_kernels_own(addr));
        }
        assert!(!is_loopback(Addr::v4([10, 0, 0, 1], 80)) && !is_loopback(V6));
    }
}
