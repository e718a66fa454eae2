//! A socket that turns out to be the kernel's (loopback, addresses of other interfaces) becomes a kernel socket at the same
//! number, with the options that were set so far.

use crate::fdtable::{self, Kind};
use crate::names::{self, Family};
use crate::{Errno, Sock, close, data, hub};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::sync::atomic::Ordering::Relaxed;
use toe::Socket;
use toe::link::sys::AppFd;
use toe::socket::own_flags;
use toe_abi::desc::hc_flags;
use toe_abi::flow::cc;

/// Makes every number of this process that means `sock` a kernel socket.
pub(crate) fn convert(sock: Sock, socket: &Socket<'_>) -> Result<(), Errno> {
    let fresh = make(socket)?;
    let numbers: Vec<i32> = fdtable::ours(0, u32::MAX).filter(|(_, kind)| *kind == Kind::Socket(sock.slot)).map(|(fd, _)| fd).collect();
    for fd in numbers {
        let cloexec = rustix::io::fcntl_getfd(AppFd(fd))?.contains(FdFlags::CLOEXEC);
        let items = hub::lock().take_items(sock.slot, fd);
        close::forget(fd);
        AppFd(fd).replace(&fresh, cloexec)?;
        for (epoll, item) in items {
            crate::epoll::add_to_kernel(epoll, fd, item);
        }
    }
    Ok(())
}

impl Sock {
    /// A kernel socket of the same family: what is asked about interfaces by ioctl(2) is asked there.
    pub fn kernels(self) -> Result<OwnedFd, Errno> {
        plain(Family::of(&self.words()?), SocketFlags::CLOEXEC)
    }
}

fn plain(family: Family, flags: SocketFlags) -> Result<OwnedFd, Errno> {
    let of_kernel = if family == Family::Inet { AddressFamily::INET } else { AddressFamily::INET6 };
    rustix::net::socket_with(of_kernel, SocketType::STREAM, flags, None)
}

/// A kernel socket with the options of ours.
fn make(socket: &Socket<'_>) -> Result<OwnedFd, Errno> {
    let mut flags = SocketFlags::CLOEXEC;
    flags.set(SocketFlags::NONBLOCK, data::is_nonblocking(socket));
    let family = Family::of(socket);
    let fd = plain(family, flags)?;
    if family == Family::Inet6 {
        sockopt::set_ipv6_v6only(&fd, socket.has_flag(own_flags::V6ONLY))?;
    }
    let has = |bit| socket.tx_flags() & bit != 0;
    sockopt::set_socket_reuseaddr(&fd, socket.has_flag(own_flags::REUSEADDR))?;
    sockopt::set_socket_reuseport(&fd, socket.has_flag(own_flags::REUSEPORT))?;
    sockopt::set_tcp_nodelay(&fd, has(hc_flags::NODELAY))?;
    sockopt::set_tcp_cork(&fd, has(hc_flags::CORK))?;
    sockopt::set_socket_keepalive(&fd, has(hc_flags::KEEPALIVE))?;
    let linger = socket.slot().tx.linger.load(Relaxed);
    if linger > 0 {
        sockopt::set_socket_linger(&fd, Some(std::time::Duration::from_secs((linger - 1).into())))?;
    }
    for (id, side) in [(sockopt::Timeout::Recv, data::Side::Rx), (sockopt::Timeout::Send, data::Side::Tx)] {
        if let Some(timeout) = data::timeout(socket, side) {
            sockopt::set_socket_timeout(&fd, id, Some(timeout))?;
        }
    }
    set_numbers(socket, AppFd(fd.as_raw_fd()));
    if socket.has_flag(own_flags::BOUND) {
        // It had the port on the card; the kernel's ports are others, so this may find it taken.
        rustix::net::bind(&fd, &names::to_std(socket.slot().names.local(), family))?;
    }
    Ok(fd)
}

/// The options that are a number. What this kernel does not know, or does not let everybody set, was advice.
fn set_numbers(socket: &Socket<'_>, fd: AppFd) {
    for ((level, name), value) in hub::lock().all_kept(socket.index()) {
        let _ = match (level, name) {
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => fd.set_option(level, name, cc::name(value as u8).as_bytes()),
            _ => fd.set_option(level, name, &value.to_ne_bytes()),
        };
    }
    for (level, name, flag) in [
        (libc::SOL_SOCKET, libc::SO_OOBINLINE, own_flags::OOBINLINE),
        (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, own_flags::NO_PORT),
    ] {
        let _ = fd.set_option(level, name, &i32::from(socket.has_flag(flag)).to_ne_bytes());
    }
    let slot = socket.slot();
    let low_water = slot.rx.low_water.load(Relaxed).max(1);
    let _ = fd.set_option(libc::SOL_SOCKET, libc::SO_RCVLOWAT, &low_water.to_ne_bytes());
    let pacing = !slot.tx.pacing.load(Relaxed);
    let _ = fd.set_option(libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &pacing.to_ne_bytes());
}
