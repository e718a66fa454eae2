//! The receive ring: slots shared with the kernel, each with a word that says whose it is.
//!
//! The kernel fills slots in order and drops a frame if the next slot is not its own; the card gives slots back in any
//! order. A slot that is ours is written by nobody else.

use super::super::vnet;
use super::{PortError, set_option};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::mm::{MapFlags, ProtFlags};
use std::sync::atomic::{AtomicU32, Ordering};
use toe_hal::port::BURST;
use toe_hal::{Lease, RxBurst, RxFrame};

/// Bytes of a slot: the largest frame, its headers, and whole pages.
const SLOT_LEN: usize = 68 * 1024;
/// Bytes of a block: what the kernel allocates at once. Fifteen slots and a bit.
const BLOCK_LEN: usize = 1 << 20;
const SLOTS_PER_BLOCK: usize = BLOCK_LEN / SLOT_LEN;
/// Extra bytes before each frame, so that IP headers begin on a multiple of 16 (90 without).
pub const RESERVE: libc::c_int = 6;

const VLAN_ID: u16 = 0x0fff;

/// Our private notes on a slot.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Offset of the frame within the slot.
    at: u32,
    len: u32,
    leased: bool,
}

pub struct RxRing {
    map: *mut u8,
    map_len: usize,
    slots: Box<[Slot]>,
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
        // SAFETY: a fresh mapping at an address of the kernel's choice; the ring's memory belongs to the socket and can't shrink.
        let map =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), map_len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, socket, 0) }
                .map_err(|e| PortError::os("mmap of the receive ring", e))?;
        Ok(Self { map: map.cast(), map_len, slots: vec![Slot::default(); frames].into_boxed_slice(), next: 0 })
    }

    pub fn len_bytes(&self) -> usize {
        self.map_len
    }

    fn base(&self, slot: usize) -> *mut u8 {
        debug_assert!(slot < self.slots.len());
        let offset = slot / SLOTS_PER_BLOCK * BLOCK_LEN + slot % SLOTS_PER_BLOCK * SLOT_LEN;
        // SAFETY: every caller passes an index into `slots`; the map has a place for each of them.
        unsafe { self.map.add(offset) }
    }

    /// The word that says whose slot it is.
    fn status(&self, slot: usize) -> &AtomicU32 {
        // SAFETY: inside the map, page-aligned; the kernel and we access it as one word only.
        unsafe { AtomicU32::from_ptr(self.base(slot).cast()) }
    }

    /// Takes what has arrived. Returns frames received and frames thrown away.
    pub fn receive(&mut self, burst: &mut RxBurst) -> (usize, u64) {
        let (mut received, mut unusable) = (0, 0);
        for _ in 0..BURST {
            // Acquire: pairs with the kernel's barrier before it sets TP_STATUS_USER; the slot's bytes come after.
            let free = burst.len() < BURST && !self.slots[self.next].leased;
            if !free || self.status(self.next).load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                break;
            }
            let slot = self.next;
            self.next = if slot + 1 == self.slots.len() { 0 } else { slot + 1 };
            match self.open(slot) {
                Some(frame) => {
                    self.slots[slot].leased = true;
                    received += 1;
                    let _ = burst.push(frame);
                }
                None => {
                    unusable += 1;
                    self.status(slot).store(libc::TP_STATUS_KERNEL, Ordering::Release);
                }
            }
        }
        (received, unusable)
    }

    /// Reads the header of a slot that is ours.
    fn open(&mut self, slot: usize) -> Option<RxFrame> {
        let base = self.base(slot);
        // SAFETY: the slot is ours (TP_STATUS_USER), begins with this header and is page-aligned.
        let header: libc::tpacket2_hdr = unsafe { std::ptr::read(base.cast()) };
        let at = usize::from(header.tp_mac);
        let len = header.tp_snaplen as usize;
        let whole = header.tp_len == header.tp_snaplen && at >= vnet::LEN && at + len <= SLOT_LEN;
        // The kernel has taken the tag out of the frame; we are on no VLAN but the priority one.
        let tagged = header.tp_status & libc::TP_STATUS_VLAN_VALID != 0 && header.tp_vlan_tci & VLAN_ID != 0;
        if !whole || tagged {
            return None;
        }
        let mut offload = [0; vnet::LEN];
        // SAFETY: at >= LEN and inside the slot, which is ours.
        unsafe { std::ptr::copy_nonoverlapping(base.add(at - vnet::LEN), offload.as_mut_ptr(), vnet::LEN) };
        self.slots[slot] = Slot { at: at as u32, len: len as u32, leased: false };
        Some(RxFrame { lease: Lease(slot as u32), len: len as u32, offload: vnet::decode(&offload) })
    }

    pub fn frame(&self, lease: Lease) -> &[u8] {
        match self.slots.get(lease.0 as usize) {
            Some(slot) if slot.leased => {
                // SAFETY: `open` has checked that at + len lies inside the slot; while it is leased the
                // kernel doesn't write it, and nobody else can.
                unsafe { std::slice::from_raw_parts(self.base(lease.0 as usize).add(slot.at as usize), slot.len as usize) }
            }
            _ => &[],
        }
    }

    pub fn release(&mut self, lease: Lease) {
        let index = lease.0 as usize;
        let Some(slot) = self.slots.get_mut(index).filter(|s| s.leased) else {
            debug_assert!(false, "{lease:?} is not on loan");
            return;
        };
        slot.leased = false;
        // Release: pairs with the kernel's reading of the status; our reads of the slot come before.
        self.status(index).store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

impl Drop for RxRing {
    fn drop(&mut self) {
        // SAFETY: our own mapping; frames borrowed from it can't outlive `self`.
        if let Err(error) = unsafe { rustix::mm::munmap(self.map.cast(), self.map_len) } {
            tracing::error!(%error, "munmap of the receive ring");
        }
    }
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
