//! The three parts of a split queue in shared memory (VIRTIO 1.1, 2.6): every byte here is one that a device reads or writes.
//!
//! ```text
//!   descriptors  [address, 64][len, 32][flags, 16][next, 16] ...               driver writes
//!   available    [flags][index] [id] ...                     [used event]      driver writes
//!   used         [flags][index] [id, 32][len, 32] ...        [avail event]     device writes
//! ```

use super::Part;
use crate::DmaMemory;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};

const DESCRIPTOR_LEN: usize = 16;
const ENTRIES: usize = 4;
const AVAILABLE_ENTRY: usize = 2;
const USED_ENTRY: usize = 8;
const INDEX: usize = 2;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// Each part begins on a cache line, so that driver and device do not write to the same one.
const ALIGN: usize = 64;

/// Rings of one queue, in memory of their own.
#[derive(Debug)]
pub struct Rings {
    memory: DmaMemory,
    size: u16,
    available: usize,
    used: usize,
}

impl Rings {
    /// Bytes that a queue of `size` needs, if they begin on a multiple of 64.
    pub const fn bytes(size: u16) -> usize {
        let (_, used) = Self::places(size);
        (used + ENTRIES + USED_ENTRY * size as usize + 2).next_multiple_of(ALIGN)
    }

    /// Where the available and the used ring begin.
    const fn places(size: u16) -> (usize, usize) {
        let available = (DESCRIPTOR_LEN * size as usize).next_multiple_of(ALIGN);
        (available, (available + ENTRIES + AVAILABLE_ENTRY * size as usize + 2).next_multiple_of(ALIGN))
    }

    /// Empty rings, taken from `memory`. `size`: a power of two. `None`: no room.
    pub fn take(memory: &mut DmaMemory, size: u16) -> Option<Self> {
        if !size.is_power_of_two() || size > super::SIZE_MAX {
            return None;
        }
        let mut memory = memory.take(Self::bytes(size), ALIGN)?;
        memory.clear();
        let (available, used) = Self::places(size);
        Some(Self { memory, size, available, used })
    }

    /// Empty again. No device has them.
    pub fn clear(&mut self) {
        self.memory.clear();
    }

    pub fn size(&self) -> u16 {
        self.size
    }

    /// For the device: descriptors, available, used.
    pub fn addresses(&self) -> [u64; 3] {
        [0, self.available, self.used].map(|at| self.memory.device_address() + at as u64)
    }

    /// `at` comes from the constants and masked indices of this file.
    fn half(&self, at: usize) -> &AtomicU16 {
        debug_assert!(at + 2 <= self.memory.len());
        // SAFETY: inside the rings (see `bytes`) and aligned, as they begin on 64 and all offsets are even; device and driver both access
        // such a field as one.
        unsafe { AtomicU16::from_ptr(self.memory.base().add(at).cast()) }
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        debug_assert!(at + 4 <= self.memory.len());
        // SAFETY: inside the rings and aligned, as for `half`: every 32-bit field lies on a multiple of four.
        unsafe { AtomicU32::from_ptr(self.memory.base().add(at).cast()) }
    }

    fn place(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    /// Writes the descriptor of a part. `part.id` is below the size.
    pub fn describe(&self, part: &Part, address: u64, next: Option<u16>) {
        let at = self.place(part.id) * DESCRIPTOR_LEN;
        let flags = if part.is_written { WRITE } else { 0 } | if next.is_some() { NEXT } else { 0 };
        self.word(at).store(address as u32, Relaxed);
        self.word(at + 4).store((address >> 32) as u32, Relaxed);
        self.word(at + 8).store(part.len, Relaxed);
        self.half(at + 12).store(flags, Relaxed);
        self.half(at + 14).store(next.unwrap_or(0), Relaxed);
    }

    /// Writes the entry of the available ring at `index`.
    pub fn offer(&self, index: u16, head: u16) {
        self.half(self.available + ENTRIES + AVAILABLE_ENTRY * self.place(index)).store(head, Relaxed);
    }

    pub fn set_avail_index(&self, index: u16) {
        self.half(self.available + INDEX).store(index, Relaxed);
    }

    /// For devices without event indices.
    pub fn set_interrupts(&self, are_on: bool) {
        self.half(self.available).store(if are_on { 0 } else { NO_INTERRUPT }, Relaxed);
    }

    /// The device interrupts when it has used the entry at this index.
    pub fn set_used_event(&self, index: u16) {
        self.half(self.available + ENTRIES + AVAILABLE_ENTRY * usize::from(self.size)).store(index, Relaxed);
    }

    pub fn used_index(&self) -> u16 {
        self.half(self.used + INDEX).load(Relaxed)
    }

    /// The entry at `index`: id and length, both claims.
    pub fn used(&self, index: u16) -> (u32, u32) {
        let at = self.used + ENTRIES + USED_ENTRY * self.place(index);
        (self.word(at).load(Relaxed), self.word(at + 4).load(Relaxed))
    }

    /// Without event indices: whether the device looks by itself.
    pub fn device_is_awake(&self) -> bool {
        self.half(self.used).load(Relaxed) & NO_NOTIFY != 0
    }

    /// The entry of the available ring that the device wants to be told of.
    pub fn avail_event(&self) -> u16 {
        self.half(self.used + ENTRIES + USED_ENTRY * usize::from(self.size)).load(Relaxed)
    }
}
