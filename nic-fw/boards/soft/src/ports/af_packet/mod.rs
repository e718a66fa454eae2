//! A port on any interface of the kernel, through packet sockets (the default).
//!
//! ```text
//!   interface ──► V2 receive ring, mapped: leases are its slots ──► Rx ──► card
//!   interface ◄── sendmmsg of [virtio-net header, headers, host memory] ◄── Tx ◄── card
//!                 one socket for both (Attached)
//! ```
//!
//! Virtio-net headers carry checksum and segmentation state both ways, so super-frames of up to 64 KiB pass. Sending goes
//! through the interface's queueing discipline: only on that way does the kernel cut super-frames. The receive ring is of
//! version 2: version 3 hands blocks over by a timer, which costs a millisecond; and the mapped transmit ring is slower than
//! sendmmsg for large frames.

mod ring;
mod send;

use super::filter::{Claim, IngressDrop};
use super::netif::Interface;
use super::{Port, PortError, PortSpec, SoftFrames, SoftRx, SpecError};
use crate::memory::SoftSlice;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;
use std::sync::Arc;
use toe_hal::{Lease, PortCaps, RxBurst, RxLosses, RxPort, TxBusy, TxFrame, TxPort};

pub const OPTIONS: &[(&str, &str)] = &[
    ("rx_frames", "frames in the receive ring, 68 KiB each, 16 to 16384, default 512"),
    ("kernel_copy", "drop | keep: what happens to the kernel's own copy of each frame, default drop"),
];

/// Frames in the receive ring unless told.
pub const RX_FRAMES: u32 = 512;
/// Bytes that may wait in the socket for an interface that is slow to take them, as far as allowed.
const SEND_BUFFER: usize = 16 << 20;
/// Most payload bytes in a super-frame: 64 KiB of IP less the headers, rounded down.
const TSO_MAX: u32 = 65_000;

const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// What both halves need. Goes with the last of them.
struct Attached {
    interface: Interface,
    // Dropped in this order: first the kernel hears the interface again, then another card may have it.
    _filter: Option<IngressDrop>,
    _claim: Claim,
    socket: OwnedFd,
}

/// The receiving half.
struct Rx {
    ring: ring::RxRing,
    losses: RxLosses,
    attached: Arc<Attached>,
}

/// The sending half.
struct Tx {
    queue: send::TxQueue,
    caps: PortCaps,
    attached: Arc<Attached>,
}

pub(super) fn open(spec: &PortSpec) -> Result<Port, PortError> {
    let rx_frames = spec.number("rx_frames", RX_FRAMES, 16, 16384)?;
    let drop_copy = drops_kernel_copy(spec)?;
    let interface = Interface::open(&spec.interface)?;
    let mac = interface.mac()?;
    let mtu = interface.mtu()?;
    // Protocol 0: nothing is received before the ring is there and the socket bound.
    let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .map_err(|e| PortError::needs("CAP_NET_RAW", "opening a packet socket", e))?;
    let claim = Claim::new(&interface)?;
    interface.bring_up()?;
    warn_of_kernel_address(&interface, drop_copy);
    set_options(&socket)?;
    let ring = ring::RxRing::new(&socket, rx_frames as usize)?;
    let filter = if drop_copy { Some(IngressDrop::install(&interface)?) } else { None };
    bind(&socket, interface.index())?;
    take_multicast(&socket, interface.index())?;
    let queue = send::TxQueue::new(usize::from(mtu));
    let caps = PortCaps { mac, mtu, tx_csum: true, tso_max: TSO_MAX };
    tracing::info!(interface = interface.name(), mtu, rx_frames, ring_kib = ring.len_bytes() >> 10, "af_packet port");
    let attached = Arc::new(Attached { interface, _filter: filter, _claim: claim, socket });
    let rx = Rx { ring, losses: RxLosses::default(), attached: attached.clone() };
    Ok(Port { rx: Box::new(rx), tx: Box::new(Tx { queue, caps, attached }) })
}

fn drops_kernel_copy(spec: &PortSpec) -> Result<bool, SpecError> {
    match spec.option("kernel_copy") {
        None | Some("drop") => Ok(true),
        Some("keep") => Ok(false),
        Some(other) => {
            let (option, value) = ("kernel_copy".to_owned(), other.to_owned());
            Err(SpecError::Value { option, value, expected: "drop or keep".to_owned() })
        }
    }
}

fn warn_of_kernel_address(interface: &Interface, drop_copy: bool) {
    if let Some(address) = interface.kernel_ipv4() {
        if drop_copy {
            tracing::warn!(interface = interface.name(), %address, "the kernel has this address on the interface and hears nothing there while the card runs");
        } else {
            tracing::warn!(interface = interface.name(), %address, "the kernel has this address on the interface and will answer for it as well: connections may be reset");
        }
    }
}

fn set_option<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is a plain integer struct of the size passed; the kernel only reads it.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), size_of::<T>() as libc::socklen_t) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_options(socket: &OwnedFd) -> Result<(), PortError> {
    let packet =
        |option, value: libc::c_int, step| set_option(socket, libc::SOL_PACKET, option, &value).map_err(|e| PortError::os(step, e));
    packet(libc::PACKET_VNET_HDR, 1, "PACKET_VNET_HDR")?;
    // Not PACKET_QDISC_BYPASS: past the queueing discipline the kernel drops each super-frame that it would have to cut itself,
    // because the interface's own segmentation is off.
    packet(PACKET_IGNORE_OUTGOING, 1, "PACKET_IGNORE_OUTGOING")?;
    packet(libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as libc::c_int, "PACKET_VERSION")?;
    packet(libc::PACKET_RESERVE, ring::RESERVE, "PACKET_RESERVE")?;
    // Forcing needs CAP_NET_ADMIN of the whole machine; else the system's limit holds.
    if rustix::net::sockopt::set_socket_send_buffer_size_force(socket, SEND_BUFFER).is_err() {
        rustix::net::sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER).map_err(|e| PortError::os("SO_SNDBUF", e))?;
    }
    Ok(())
}

fn bind(socket: &OwnedFd, index: u32) -> Result<(), PortError> {
    // SAFETY: sockaddr_ll is plain integers: all zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as libc::c_int;
    // SAFETY: the address is a sockaddr_ll of the length passed; the kernel only reads it.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t) };
    if result < 0 { Err(PortError::os("binding the packet socket", io::Error::last_os_error())) } else { Ok(()) }
}

/// Every multicast, as long as the socket is open: the kernel has told the hardware of its own groups only, and solicitations of IPv6
/// neighbours (RFC 4861, 7.2.1) come to groups of the card's addresses.
fn take_multicast(socket: &OwnedFd, index: u32) -> Result<(), PortError> {
    // The address is of no meaning for ALLMULTI.
    let all =
        libc::packet_mreq { mr_ifindex: index as libc::c_int, mr_type: libc::PACKET_MR_ALLMULTI as _, mr_alen: 0, mr_address: [0; 8] };
    set_option(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &all).map_err(|e| PortError::os("PACKET_ADD_MEMBERSHIP", e))
}

impl RxPort for Rx {
    type Frames = SoftFrames;

    fn frames(&self) -> SoftFrames {
        self.ring.frames()
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        let (received, unusable) = self.ring.receive(burst);
        self.losses.unusable += unusable;
        received
    }

    fn any(&mut self) -> bool {
        self.ring.any()
    }

    fn release(&mut self, lease: Lease) {
        self.ring.release(lease);
    }

    fn losses(&mut self) -> RxLosses {
        // The kernel clears its counter with each reading.
        self.losses.overrun += ring::overruns(&self.attached.socket);
        self.losses
    }
}

impl SoftRx for Rx {
    fn fd(&self) -> BorrowedFd<'_> {
        self.attached.socket.as_fd()
    }

    fn check(&mut self) -> Result<(), PortError> {
        let Attached { interface, socket, .. } = &*self.attached;
        let error = rustix::net::sockopt::socket_error(socket).map_err(|e| PortError::os("SO_ERROR of the packet socket", e))?;
        if !interface.exists() {
            return Err(PortError::Gone(interface.name().to_owned()));
        }
        if let Err(error) = error {
            tracing::warn!(interface = interface.name(), %error, "the port reports an error; waiting for the interface");
        }
        Ok(())
    }
}

impl TxPort<SoftSlice> for Tx {
    fn caps(&self) -> PortCaps {
        self.caps
    }

    fn transmit(&mut self, frame: &TxFrame<'_, SoftSlice>) -> Result<(), TxBusy> {
        self.queue.push(frame, self.attached.socket.as_fd())
    }

    fn flush(&mut self) -> usize {
        let Attached { interface, socket, .. } = &*self.attached;
        self.queue.flush(socket.as_fd(), || interface.mtu().ok().map(usize::from))
    }
}
