//! Tells when an interface's carrier comes or goes. The kernel says so on a netlink socket, so nobody has to ask again and again.

use super::PortError;
use super::netif::Interface;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

/// The group of messages about links.
const RTMGRP_LINK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
/// Bytes of `nlmsghdr` and `ifinfomsg`: all that is of interest stands there.
const MESSAGE_LEN: usize = 32;
/// Messages read in one go: where thousands of interfaces come and go, the card has other work as well.
const BATCH: usize = 64;

/// Listens to what the kernel says of one interface's link.
#[derive(Debug)]
pub struct CarrierWatch {
    socket: OwnedFd,
    index: u32,
    /// As it was said last. `None`: nothing has been, or some of it was lost.
    running: Option<bool>,
}

impl CarrierWatch {
    /// Of an interface in this process's network namespace.
    pub fn new(interface: &Interface) -> Result<Self, PortError> {
        let os = |e| PortError::os("netlink socket for changes of the link", e);
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        // No protocol is protocol 0: NETLINK_ROUTE.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).map_err(os)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK)).map_err(os)?;
        Ok(Self { socket, index: interface.index(), running: None })
    }

    /// Becomes readable when something has been said, of any interface.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads what has been said. Whether the carrier may be another than before; also if it was said for the first time.
    pub fn take_change(&mut self) -> bool {
        let mut changed = false;
        for _ in 0..BATCH {
            let mut message = [0; MESSAGE_LEN];
            match rustix::net::recv(&self.socket, &mut message, RecvFlags::empty()) {
                Ok(_) => changed |= self.heard(&message),
                Err(Errno::INTR) => {}
                // More was said than the socket had room for.
                Err(Errno::NOBUFS) => (changed, self.running) = (true, None),
                Err(_) => break,
            }
        }
        changed
    }

    fn heard(&mut self, message: &[u8; MESSAGE_LEN]) -> bool {
        match running_of(message) {
            Some((index, running)) if index == self.index => self.running.replace(running) != Some(running),
            _ => false,
        }
    }
}

/// Which interface a message is about, and whether it has a carrier.
fn running_of(message: &[u8; MESSAGE_LEN]) -> Option<(u32, bool)> {
    let [_, _, _, _, k0, k1, ..] = *message;
    let word = |at: usize| message[at..].first_chunk().map(|b| u32::from_ne_bytes(*b));
    let (index, flags) = (word(20)?, word(24)?);
    match u16::from_ne_bytes([k0, k1]) {
        RTM_NEWLINK => Some((index, flags & libc::IFF_RUNNING as u32 != 0)),
        RTM_DELLINK => Some((index, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, index: u32, flags: u32) -> [u8; MESSAGE_LEN] {
        let mut m = [0; MESSAGE_LEN];
        m[4..6].copy_from_slice(&kind.to_ne_bytes());
        m[20..24].copy_from_slice(&index.to_ne_bytes());
        m[24..28].copy_from_slice(&flags.to_ne_bytes());
        m
    }

    #[test]
    fn only_changes_of_the_carrier_of_one_interface_are_told() {
        let lo = Interface::open("lo").unwrap();
        let mut watch = CarrierWatch::new(&lo).unwrap();
        let (index, running) = (lo.index(), libc::IFF_RUNNING as u32);
        let told = [
            message(RTM_NEWLINK, index, running),
            message(RTM_NEWLINK, index, running | libc::IFF_PROMISC as u32),
            message(RTM_NEWLINK, index + 1, 0),
            message(RTM_NEWLINK, index, 0),
            message(RTM_DELLINK, index, 0),
            message(RTM_NEWLINK + 2, index, running),
            message(RTM_NEWLINK, index, running),
        ]
        .map(|m| watch.heard(&m));
        assert_eq!(told, [true, false, false, true, false, false, true]);
    }
}
