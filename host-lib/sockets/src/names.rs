//! `struct sockaddr` as bytes. Only AF_INET is ours.

use crate::{Errno, Sock};
use rustix::fd::AsFd;
use toe::link::slot::Addr;
use toe_abi::region::slot_state;

/// Bytes of a `struct sockaddr_in`.
pub const SOCKADDR_IN_LEN: usize = 16;

/// What an application's address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    Inet(Addr),
    /// AF_UNSPEC.
    Unspecified,
}

/// Reads a socket address; EINVAL and EAFNOSUPPORT as the kernel.
pub fn parse(bytes: &[u8]) -> Result<Name, Errno> {
    let &[f0, f1, ref rest @ ..] = bytes else { return Err(Errno::INVAL) };
    match i32::from(u16::from_ne_bytes([f0, f1])) {
        libc::AF_UNSPEC => Ok(Name::Unspecified),
        libc::AF_INET => match rest {
            &[p0, p1, a, b, c, d, ..] if bytes.len() >= SOCKADDR_IN_LEN => {
                Ok(Name::Inet(Addr::v4([a, b, c, d], u16::from_be_bytes([p0, p1]))))
            }
            _ => Err(Errno::INVAL),
        },
        _ => Err(Errno::AFNOSUPPORT),
    }
}

/// A `struct sockaddr_in`.
pub fn encode(addr: Addr) -> [u8; SOCKADDR_IN_LEN] {
    let mut out = [0; SOCKADDR_IN_LEN];
    out[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    out[2..4].copy_from_slice(&addr.port.to_be_bytes());
    out[4..8].copy_from_slice(&addr.as_v4().unwrap_or([0; 4]));
    out
}

/// As rustix has it, for kernel sockets.
pub(crate) fn to_std(addr: Addr) -> std::net::SocketAddrV4 {
    std::net::SocketAddrV4::new(addr.as_v4().unwrap_or([0; 4]).into(), addr.port)
}

/// 127.0.0.0/8.
pub(crate) fn is_loopback(addr: Addr) -> bool {
    addr.as_v4().is_some_and(|ip| ip[0] == 127)
}

/// Whether the kernel has this address: it would send to itself.
pub(crate) fn is_kernels_own(addr: Addr) -> bool {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let probe = || -> Result<bool, Errno> {
        let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let to = std::net::SocketAddrV4::new(*to_std(addr).ip(), 9);
        // Sends nothing: the kernel picks the route and its source address.
        rustix::net::connect(fd.as_fd(), &to)?;
        let from = std::net::SocketAddrV4::try_from(rustix::net::getsockname(fd.as_fd())?)?;
        Ok(from.ip() == to.ip())
    };
    is_loopback(addr) || probe().unwrap_or(false)
}

impl Sock {
    /// getsockname(2). A socket without a name has 0.0.0.0:0.
    pub fn local_name(self) -> Result<[u8; SOCKADDR_IN_LEN], Errno> {
        Ok(encode(self.words()?.slot().names.local()))
    }

    /// getpeername(2).
    pub fn peer_name(self) -> Result<[u8; SOCKADDR_IN_LEN], Errno> {
        let socket = self.words()?;
        if socket.state() != slot_state::CONNECTED || socket.is_over() {
            return Err(Errno::NOTCONN);
        }
        Ok(encode(socket.slot().names.remote()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_round_trip() {
        let addr = Addr::v4([192, 0, 2, 7], 8080);
        assert_eq!(parse(&encode(addr)), Ok(Name::Inet(addr)));
    }

    #[test]
    fn malformed_addresses_are_refused_as_the_kernel_does() {
        assert_eq!(parse(&[]), Err(Errno::INVAL));
        assert_eq!(parse(&encode(Addr::v4([1; 4], 1))[..15]), Err(Errno::INVAL));
        assert_eq!(parse(&(libc::AF_UNIX as u16).to_ne_bytes()), Err(Errno::AFNOSUPPORT));
        assert_eq!(parse(&(libc::AF_UNSPEC as u16).to_ne_bytes()), Ok(Name::Unspecified));
    }

    #[test]
    fn loopback_is_the_kernels() {
        assert!(is_kernels_own(Addr::v4([127, 1, 2, 3], 80)));
        assert!(!is_loopback(Addr::v4([10, 0, 0, 1], 80)));
    }
}
