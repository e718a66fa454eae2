//! The receive ring: slots shared with the kernel, each with a word that says whose it is.
//!
//! ```text
//!   status word    KERNEL ──frame──► USER ──receive──► on loan ──release──► KERNEL
//!   slot           [ header | ... | virtio-net header | frame | ... ]   fifteen to a block
//! ```
//!
//! The kernel fills slots in order and drops a frame if the next slot is not its own; the card gives slots back in any
//! order. A slot that is ours is written by nobody else.

use super::super::frames::{Lender, SoftFrames};
use super::super::vnet;
use super::{PortError, set_option};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::mm::{MapFlags, ProtFlags};
use std::sync::atomic::{AtomicU32, Ordering};
use toe_hal::port::BURST;
use toe_hal::{Lease, RxBurst, RxFrame, RxOffload};
use toe_wire::{ethernet, ethertype};

/// Bytes of a slot: the largest frame, its headers, and whole pages.
const SLOT_LEN: usize = 68 * 1024;
/// Bytes of a block: what the kernel allocates at once. Fifteen slots and a bit.
const BLOCK_LEN: usize = 1 << 20;
const SLOTS_PER_BLOCK: usize = BLOCK_LEN / SLOT_LEN;
/// Extra bytes before each frame, so that IP headers begin on a multiple of 16 (90 without). There is room for a VLAN tag.
pub const RESERVE: libc::c_int = 6;

const VLAN_ID: u16 = 0x0fff;

pub struct RxRing {
    lender: Lender,
    /// Next slot that the kernel fills.
    next: usize,
}

impl RxRing {
    /// A ring of at least `frames` slots, mapped.
    pub fn new(socket: &OwnedFd, frames: usize) -> Result<Self, PortError> {
        let blocks = frames.div_ceil(SLOTS_PER_BLOCK);
        let frames = blocks * SLOTS_PER_BLOCK;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_LEN as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: SLOT_LEN as u32,
            tp_frame_nr: frames as u32,
        };
        set_option(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)
            .map_err(|e| PortError::os("PACKET_RX_RING (memory for the receive ring; try fewer rx_frames)", e))?;
        let map_len = blocks * BLOCK_LEN;
        // SAFETY: a fresh mapping at an address of the kernel's choice; the ring's memory belongs to the socket, which the mapping keeps,
        // and can't shrink.
        let map =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), map_len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, socket, 0) }
                .map_err(|e| PortError::os("mmap of the receive ring", e))?;
        // SAFETY: just mapped, with this length; the kernel writes only slots that are its own.
        Ok(Self { lender: unsafe { Lender::new(map.cast(), map_len, frames) }, next: 0 })
    }

    pub fn len_bytes(&self) -> usize {
        self.lender.bytes()
    }

    pub fn frames(&self) -> SoftFrames {
        self.lender.frames()
    }

    fn base(&self, slot: usize) -> *mut u8 {
        debug_assert!(slot < self.lender.slots());
        // SAFETY: every caller passes the number of a slot; the memory has a place for each of them.
        unsafe { self.lender.base().add(offset(slot)) }
    }

    /// The word that says whose slot it is.
    fn status(&self, slot: usize) -> &AtomicU32 {
        // SAFETY: inside the map, page-aligned; the kernel and we access it as one word only.
        unsafe { AtomicU32::from_ptr(self.base(slot).cast()) }
    }

    /// Whether the next slot holds a frame.
    pub fn any(&self) -> bool {
        // Acquire: pairs with the kernel's barrier before it sets TP_STATUS_USER; the slot's bytes come after.
        !self.lender.is_lent(self.next) && self.status(self.next).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Takes what has arrived. Returns frames received and frames thrown away.
    pub fn receive(&mut self, burst: &mut RxBurst) -> (usize, u64) {
        let (mut received, mut unusable) = (0, 0);
        for _ in 0..BURST {
            if burst.is_full() || !self.any() {
                break;
            }
            let slot = self.next;
            self.next = if slot + 1 == self.lender.slots() { 0 } else { slot + 1 };
            match self.open(slot) {
                Some(frame) => {
                    received += 1;
                    let _ = burst.push(frame);
                }
                None => {
                    unusable += 1;
                    self.give_to_kernel(slot);
                }
            }
        }
        (received, unusable)
    }

    /// Reads the header of a slot that is ours, and lends its frame.
    fn open(&mut self, slot: usize) -> Option<RxFrame> {
        let base = self.base(slot);
        // SAFETY: the slot is ours (TP_STATUS_USER), begins with this header and is page-aligned.
        let header: libc::tpacket2_hdr = unsafe { std::ptr::read(base.cast()) };
        let at = usize::from(header.tp_mac);
        let len = header.tp_snaplen as usize;
        let whole = header.tp_len == header.tp_snaplen && at >= vnet::LEN && at + len <= SLOT_LEN && len >= ethernet::HEADER_LEN;
        if !whole {
            return None;
        }
        // SAFETY: at >= LEN and inside the slot, which is ours; bytes have no alignment.
        let offload: RxOffload = vnet::decode(unsafe { &*base.add(at - vnet::LEN).cast() });
        let (at, len) = match tag_of(&header) {
            Some(tag) => {
                // SAFETY: at >= vnet::LEN > VLAN_LEN, and both addresses are inside the frame, in a slot that is ours.
                unsafe { put_back(base.add(at), tag) };
                (at - ethernet::VLAN_LEN, len + ethernet::VLAN_LEN)
            }
            None => (at, len),
        };
        // SAFETY: the frame lies inside the slot, which the kernel doesn't write until `give_to_kernel`.
        let lease = unsafe { self.lender.lend(slot, offset(slot) + at, len) }?;
        Some(RxFrame { lease, len: len as u32, offload })
    }

    pub fn release(&mut self, lease: Lease) {
        if let Some(slot) = self.lender.take_back(lease) {
            self.give_to_kernel(slot);
        }
    }

    fn give_to_kernel(&self, slot: usize) {
        // Release: pairs with the kernel's reading of the status; all reading of the slot comes before, other cores' by way of
        // whatever brought the lease back.
        self.status(slot).store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

/// The 802.1Q tag that the kernel has taken out of a frame. A priority tag (VLAN 0) is no VLAN: it stays away.
fn tag_of(header: &libc::tpacket2_hdr) -> Option<[u8; ethernet::VLAN_LEN]> {
    let tagged = header.tp_status & libc::TP_STATUS_VLAN_VALID != 0 && header.tp_vlan_tci & VLAN_ID != 0;
    // A kernel that does not tell the type knows no other.
    let tells = header.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let kind = if tells { header.tp_vlan_tpid } else { ethertype::VLAN };
    let ([a, b], [c, d]) = (kind.to_be_bytes(), header.tp_vlan_tci.to_be_bytes());
    tagged.then_some([a, b, c, d])
}

/// Puts a tag back behind the MAC addresses of the frame at `frame`, which begins earlier for it.
///
/// # Safety
/// The VLAN_LEN bytes before `frame`, and its first two MAC addresses, are ours to write.
unsafe fn put_back(frame: *mut u8, tag: [u8; ethernet::VLAN_LEN]) {
    const MACS: usize = 12;
    // SAFETY: the caller's promise; the ranges overlap, which `copy` allows.
    unsafe {
        let start = frame.sub(ethernet::VLAN_LEN);
        std::ptr::copy(frame, start, MACS);
        std::ptr::copy_nonoverlapping(tag.as_ptr(), start.add(MACS), ethernet::VLAN_LEN);
    }
}

/// Where a slot begins in the ring's memory.
const fn offset(slot: usize) -> usize {
    slot / SLOTS_PER_BLOCK * BLOCK_LEN + slot % SLOTS_PER_BLOCK * SLOT_LEN
}

/// Frames that the kernel had no slot for since the last call.
pub fn overruns(socket: &OwnedFd) -> u64 {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = size_of_val(&stats) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `stats`, plain integers.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, (&raw mut stats).cast(), &mut len) };
    if result == 0 { stats.tp_drops.into() } else { 0 }
}
