//! A socket that turns out to be the kernel's (loopback, addresses of other interfaces) becomes a kernel socket at the same
//! number, with the options that were set so far.

use crate::fdtable::{self, Kind};
use crate::names::{self, Family};
use crate::{Errno, Sock, close, data, hub};
use rustix::fd::OwnedFd;
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::sync::atomic::Ordering::Relaxed;
use toe::Socket;
use toe::link::sys::AppFd;
use toe::socket::own_flags;
use toe_abi::desc::hc_flags;

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

/// A kernel socket with the options of ours.
fn make(socket: &Socket<'_>) -> Result<OwnedFd, Errno> {
    let mut flags = SocketFlags::CLOEXEC;
    flags.set(SocketFlags::NONBLOCK, data::is_nonblocking(socket));
    let family = Family::of(socket);
    let of_kernel = if family == Family::Inet { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(of_kernel, SocketType::STREAM, flags, None)?;
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
    if socket.has_flag(own_flags::BOUND) {
        // It had the port on the card; the kernel's ports are others, so this may find it taken.
        rustix::net::bind(&fd, &names::to_std(socket.slot().names.local(), family))?;
    }
    Ok(fd)
}
