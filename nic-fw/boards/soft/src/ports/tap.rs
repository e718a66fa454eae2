//! A port on a TAP interface: the kernel on the other side is the network.
//!
//! ```text
//!   tap0 ──► read into a buffer that is not on loan: [virtio-net header, frame] ──► Rx ──► card
//!   tap0 ◄── writev of [virtio-net header, headers, host memory] ◄── Tx ◄── card
//! ```
//!
//! Virtio-net headers (IFF_VNET_HDR) let super-frames and partial checksums pass both ways. One system call per frame: TAP has no batches.

use super::frames::{Lender, SoftFrames};
use super::netif::Interface;
use super::{FRAME_MAX, Port, PortError, PortSpec, SoftRx, is_ready, vnet};
use crate::memory::SoftSlice;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::sync::Arc;
use toe_hal::{Lease, PortCaps, RxBurst, RxFrame, RxPort, TxBusy, TxFrame, TxPort};

pub const OPTIONS: &[(&str, &str)] = &[
    ("rx_frames", "receive buffers, 66 KiB each, 16 to 16384, default 256"),
    ("mac", "the card's MAC address; default: derived from the interface's"),
];

const DEVICE: &str = "/dev/net/tun";
const RX_FRAMES: u32 = 256;
const TSO_MAX: u32 = 65_000;
/// Where a frame begins in its buffer: 16-byte alignment for the IP header behind 14 bytes of Ethernet.
const FRAME_AT: usize = 18;
const BUFFER_LEN: usize = (FRAME_AT + FRAME_MAX).next_multiple_of(64);
/// Host memory slices per frame, and the two headers before them.
const IOVECS: usize = 4;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;

/// What both halves need. Goes with the last of them.
struct Attached {
    fd: OwnedFd,
    interface: Interface,
}

/// The receiving half.
struct Rx {
    lender: Lender,
    /// Buffers that are not on loan.
    free: Vec<usize>,
    attached: Arc<Attached>,
}

/// The sending half.
struct Tx {
    caps: PortCaps,
    /// Since the last flush.
    lost: usize,
    attached: Arc<Attached>,
}

pub(super) fn open(spec: &PortSpec) -> Result<Port, PortError> {
    let count = spec.number("rx_frames", RX_FRAMES, 16, 16384)? as usize;
    let mac = spec.mac("mac")?;
    let fd = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| PortError::NoDevice { path: DEVICE, source: e.into() })?;
    attach(&fd, &spec.interface)?;
    let interface = Interface::open(&spec.interface)?;
    interface.bring_up()?;
    let caps = PortCaps {
        mac: match mac {
            Some(mac) => mac,
            None => other_mac(interface.mac()?),
        },
        mtu: interface.mtu()?,
        tx_csum: true,
        tso_max: TSO_MAX,
    };
    let lender = Lender::allocate(count * BUFFER_LEN, count).map_err(|e| PortError::os("memory for receive buffers", e))?;
    tracing::info!(interface = interface.name(), mtu = caps.mtu, rx_frames = count, "tap port");
    let attached = Arc::new(Attached { fd, interface });
    let rx = Rx { lender, free: (0..count).rev().collect(), attached: attached.clone() };
    Ok(Port { rx: Box::new(rx), tx: Box::new(Tx { caps, lost: 0, attached }) })
}

impl Rx {
    /// Reads one frame into a free buffer.
    fn read(&mut self) -> Option<RxFrame> {
        let slot = *self.free.last()?;
        let at = slot * BUFFER_LEN + FRAME_AT;
        // SAFETY: inside the memory, which has a buffer for each slot and was zeroed when made; this one is not on loan, so nobody reads it.
        let buffer = unsafe { std::slice::from_raw_parts_mut(self.lender.base().add(at - vnet::LEN), vnet::LEN + FRAME_MAX) };
        let read = loop {
            match rustix::io::read(&self.attached.fd, &mut *buffer) {
                Ok(n) => break n,
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        };
        let offload = vnet::decode(buffer.first_chunk().filter(|_| read > vnet::LEN)?);
        let len = read - vnet::LEN;
        // SAFETY: read just now; written again only when the slot is back in `free`.
        let lease = unsafe { self.lender.lend(slot, at, len) }?;
        self.free.pop();
        Some(RxFrame { lease, len: len as u32, offload })
    }
}

/// Makes `fd` the other end of interface `name`, which is made if it isn't there.
fn attach(fd: &OwnedFd, name: &str) -> Result<(), PortError> {
    // SAFETY: ifreq is plain integers and a union of them: all zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF takes a pointer to one ifreq.
    if unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF, &mut request) } < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::EBUSY) => PortError::InUse(name.to_owned()),
            _ => PortError::needs("CAP_NET_ADMIN", "making the TAP interface (TUNSETIFF)", error),
        });
    }
    // SAFETY: TUNSETOFFLOAD takes an integer.
    if unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) } < 0 {
        return Err(PortError::os("TUNSETOFFLOAD", io::Error::last_os_error()));
    }
    Ok(())
}

/// The kernel has the interface's own address; the card on the other side of the wire needs another: locally
/// administered, stable for the interface.
fn other_mac(kernel: [u8; 6]) -> [u8; 6] {
    let mut mac = kernel;
    mac[0] = (mac[0] | 0x02) & !0x01;
    mac[5] ^= 0x01;
    mac[4] ^= 0xf7;
    mac
}

impl RxPort for Rx {
    type Frames = SoftFrames;

    fn frames(&self) -> SoftFrames {
        self.lender.frames()
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        let before = burst.len();
        while !burst.is_full() {
            let Some(frame) = self.read() else { break };
            let _ = burst.push(frame);
        }
        burst.len() - before
    }

    fn any(&mut self) -> bool {
        !self.free.is_empty() && is_ready(self.attached.fd.as_fd(), PollFlags::IN)
    }

    fn release(&mut self, lease: Lease) {
        self.free.extend(self.lender.take_back(lease));
    }
}

impl SoftRx for Rx {
    fn fd(&self) -> BorrowedFd<'_> {
        self.attached.fd.as_fd()
    }

    fn check(&mut self) -> Result<(), PortError> {
        let interface = &self.attached.interface;
        if interface.exists() { Ok(()) } else { Err(PortError::Gone(interface.name().to_owned())) }
    }
}

impl TxPort<SoftSlice> for Tx {
    fn caps(&self) -> PortCaps {
        self.caps
    }

    fn transmit(&mut self, frame: &TxFrame<'_, SoftSlice>) -> Result<(), TxBusy> {
        let vnet = vnet::encode(&frame.offload, frame.header);
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut iovecs = [empty; IOVECS];
        iovecs[0] = libc::iovec { iov_base: vnet.as_ptr().cast_mut().cast(), iov_len: vnet.len() };
        iovecs[1] = libc::iovec { iov_base: frame.header.as_ptr().cast_mut().cast(), iov_len: frame.header.len() };
        for (to, slice) in iovecs[2..].iter_mut().zip(frame.payload) {
            *to = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() as usize };
        }
        // SAFETY: the first two entries are borrowed for the call, the others are host memory that stays mapped until
        // flush; the kernel only reads them.
        let written = unsafe { libc::writev(self.attached.fd.as_raw_fd(), iovecs.as_ptr(), IOVECS as libc::c_int) };
        if written < 0 {
            // ENOMEM, EINVAL, EIO (interface down): the frame is lost, TCP sends it again.
            self.lost += 1;
        }
        Ok(())
    }

    fn flush(&mut self) -> usize {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_has_a_unicast_address_of_its_own() {
        for kernel in [[0, 1, 2, 3, 4, 5], [0xfe, 1, 2, 3, 4, 5], [0xff; 6]] {
            let mac = other_mac(kernel);
            assert_ne!(mac, kernel);
            assert_eq!(mac[0] & 3, 2, "locally administered, unicast");
            assert_eq!(mac, other_mac(kernel), "stable");
        }
    }
}
