//! The device's side of a split queue, by the specification (VIRTIO 1.1, 2.6).

use super::TestMemory;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

/// What a driver has made available.
#[derive(Clone, Debug)]
pub struct Chain {
    pub head: u16,
    /// Address, length, whether the device writes.
    pub parts: Vec<(u64, u32, bool)>,
}

#[derive(Clone)]
pub struct DeviceQueue {
    pub memory: Arc<TestMemory>,
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    pub has_event_idx: bool,
    /// Taken so far.
    pub last_avail: u16,
    /// Put so far.
    pub next_used: u16,
    /// Published so far.
    pub published: u16,
    /// It has said of buffers that they are used which it never took: the driver believes it, and makes more available than there is room for.
    pub has_lied: bool,
}

impl DeviceQueue {
    pub fn new(memory: Arc<TestMemory>, size: u16, [descriptors, available, used]: [u64; 3], has_event_idx: bool) -> Self {
        Self { memory, size, descriptors, available, used, has_event_idx, last_avail: 0, next_used: 0, published: 0, has_lied: false }
    }

    pub fn waiting(&self) -> u16 {
        let waiting = self.memory.half(self.available + 2).load(Acquire).wrapping_sub(self.last_avail);
        assert!(self.has_lied || waiting <= self.size, "the driver has published more than the ring holds");
        waiting
    }

    /// Follows a chain; asserts all that the specification asks of a driver.
    pub fn take(&mut self) -> Option<Chain> {
        if self.waiting() == 0 {
            return None;
        }
        let place = u64::from(self.last_avail % self.size);
        let head = self.memory.half(self.available + 4 + 2 * place).load(Relaxed);
        self.last_avail = self.last_avail.wrapping_add(1);
        let (mut parts, mut next) = (Vec::new(), Some(head));
        while let Some(id) = next {
            assert!(id < self.size && parts.len() < usize::from(self.size), "a chain that does not end");
            let at = self.descriptors + 16 * u64::from(id);
            let [low, high, len] = [0, 4, 8].map(|i| self.memory.word(at + i).load(Relaxed));
            let [flags, link] = [12, 14].map(|i| self.memory.half(at + i).load(Relaxed));
            assert!(flags & !3 == 0);
            let is_written = flags & 2 != 0;
            assert!(is_written || parts.last().is_none_or(|p: &(u64, u32, bool)| !p.2), "what is read comes first (2.6.4.2)");
            let address = u64::from(low) | u64::from(high) << 32;
            self.memory.at(address, len as usize);
            parts.push((address, len, is_written));
            next = (flags & 1 != 0).then_some(link);
        }
        Some(Chain { head, parts })
    }

    /// Writes an entry of the used ring; seen after [`publish`](Self::publish).
    pub fn put(&mut self, id: u32, len: u32) {
        let at = self.used + 4 + 8 * u64::from(self.next_used % self.size);
        self.memory.word(at).store(id, Relaxed);
        self.memory.word(at + 4).store(len, Relaxed);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// So many entries are used of which nobody has written any; seen after [`publish`](Self::publish).
    pub fn jump(&mut self, by: u16) {
        self.has_lied = true;
        self.next_used = self.next_used.wrapping_add(by);
    }

    /// Returns whether the driver wants an interrupt (2.6.7.2).
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_used);
        self.memory.half(self.used + 2).store(new, Release);
        self.published = new;
        fence(SeqCst);
        if self.has_event_idx {
            let event = self.memory.half(self.available + 4 + 2 * u64::from(self.size)).load(Relaxed);
            // The specification's vring_need_event, in other words: is `event` among old..new?
            event.wrapping_sub(old) < new.wrapping_sub(old)
        } else {
            new != old && self.memory.half(self.available).load(Relaxed) & 1 == 0
        }
    }

    /// Asks for a kick with the next chain. Returns whether one is there already: then the device must not sleep.
    pub fn doze(&mut self) -> bool {
        if self.has_event_idx {
            self.memory.half(self.used + 4 + 8 * u64::from(self.size)).store(self.last_avail, Relaxed);
        } else {
            self.memory.half(self.used).store(0, Relaxed);
        }
        fence(SeqCst);
        self.waiting() > 0
    }

    /// Wants no kicks.
    pub fn wake(&mut self) {
        if !self.has_event_idx {
            self.memory.half(self.used).store(1, Relaxed);
        }
    }
}
