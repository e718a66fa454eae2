//! A port on a TAP interface: the kernel on the other side is the network.
//!
//! Frames carry virtio-net headers (IFF_VNET_HDR), so super-frames and partial checksums pass both ways. Reads go into a pool of leased
//! buffers, writes gather straight from host memory. One system call per frame: TAP has no batches.

use super::netif::Interface;
use super::{FRAME_MAX, PortError, PortSpec, PortStats, SoftPort, vnet};
use crate::memory::SoftSlice;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use toe_hal::port::BURST;
use toe_hal::{EthPort, Lease, PortCaps, RxBurst, RxFrame, TxBusy, TxFrame};

pub const OPTIONS: &[(&str, &str)] = &[
    ("rx_frames", "receive buffers, 66 KiB each, 16 to 16384, default 256"),
    ("mac", "the card's MAC address; default: derived from the interface's"),
];

const DEVICE: &str = "/dev/net/tun";
const RX_FRAMES: u32 = 256;
const TSO_MAX: u32 = 65_000;
/// Where a frame begins in its buffer: 16-byte alignment for the IP header behind 14 bytes of Ethernet.
const FRAME_AT: usize = 18;
const BUFFER_LEN: usize = FRAME_AT + FRAME_MAX;
/// Host memory slices per frame, and the two headers before them.
const IOVECS: usize = 4;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;

#[derive(Clone, Copy, Default)]
struct Slot {
    len: u32,
    leased: bool,
}

pub struct Tap {
    fd: OwnedFd,
    interface: Interface,
    caps: PortCaps,
    buffers: Box<[u8]>,
    slots: Box<[Slot]>,
    free: Vec<u32>,
    stats: PortStats,
    lost: usize,
}

impl Tap {
    pub fn open(spec: &PortSpec) -> Result<Self, PortError> {
        let count = spec.number("rx_frames", RX_FRAMES, 16, 16384)?;
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
        tracing::info!(interface = interface.name(), mtu = caps.mtu, rx_frames = count, "tap port");
        Ok(Self {
            fd,
            interface,
            caps,
            buffers: vec![0; count as usize * BUFFER_LEN].into_boxed_slice(),
            slots: vec![Slot::default(); count as usize].into_boxed_slice(),
            free: (0..count).rev().collect(),
            stats: PortStats::default(),
            lost: 0,
        })
    }

    /// Reads one frame into a free buffer.
    fn read(&mut self) -> Option<RxFrame> {
        let slot = *self.free.last()?;
        let at = slot as usize * BUFFER_LEN + FRAME_AT - vnet::LEN;
        let buffer = &mut self.buffers[at..at + vnet::LEN + FRAME_MAX];
        let read = loop {
            match rustix::io::read(&self.fd, &mut *buffer) {
                Ok(n) => break n,
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        };
        let header = buffer.first_chunk::<{ vnet::LEN }>().filter(|_| read > vnet::LEN)?;
        let frame = RxFrame { lease: Lease(slot), len: (read - vnet::LEN) as u32, offload: vnet::decode(header) };
        self.free.pop();
        self.slots[slot as usize] = Slot { len: frame.len, leased: true };
        Some(frame)
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

impl EthPort<SoftSlice> for Tap {
    fn caps(&self) -> PortCaps {
        self.caps
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        let before = burst.len();
        while burst.len() < BURST {
            let Some(frame) = self.read() else { break };
            let _ = burst.push(frame);
        }
        burst.len() - before
    }

    fn frame(&self, lease: Lease) -> &[u8] {
        let slot = self.slots.get(lease.0 as usize).filter(|s| s.leased);
        let at = lease.0 as usize * BUFFER_LEN + FRAME_AT;
        slot.and_then(|s| self.buffers.get(at..at + s.len as usize)).unwrap_or(&[])
    }

    fn release(&mut self, lease: Lease) {
        let Some(slot) = self.slots.get_mut(lease.0 as usize).filter(|s| s.leased) else {
            debug_assert!(false, "{lease:?} is not on loan");
            return;
        };
        slot.leased = false;
        self.free.push(lease.0);
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
        let written = unsafe { libc::writev(self.fd.as_raw_fd(), iovecs.as_ptr(), IOVECS as libc::c_int) };
        if written < 0 {
            // ENOMEM, EINVAL, EIO (interface down): the frame is lost, TCP sends it again.
            self.lost += 1;
        }
        Ok(())
    }

    fn flush(&mut self) -> usize {
        let lost = std::mem::take(&mut self.lost);
        self.stats.tx_lost += lost as u64;
        lost
    }
}

impl SoftPort for Tap {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn check(&mut self) -> Result<(), PortError> {
        if self.interface.exists() { Ok(()) } else { Err(PortError::Gone(self.interface.name().to_owned())) }
    }

    fn stats(&mut self) -> PortStats {
        self.stats
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
