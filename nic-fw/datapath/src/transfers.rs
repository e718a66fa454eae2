//! Writes to host memory under way: they start as they come, and complete in any order.
//!
//! ```text
//!   submit ──► [queue: not all started] ──► [pending] ──► completed
//!        └──── memory that takes and completes them at once: comes back at once ─►
//! ```

use crate::msg::{WRITES_MAX, Write};
use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use toe_hal::{Cookie, Dma as Transfer, DmaFault, HostMemory};

/// In the cookies of fetches, which these writes have nothing to do with.
pub const FETCH: Cookie = 1 << 31;
/// Bits of a cookie that say which write of its item it is; the slot is above.
const WRITE_BITS: u32 = WRITES_MAX.next_power_of_two().ilog2();
const _: () = assert!(u16::BITS + WRITE_BITS < 31);
/// Completions taken from memory in one poll.
const POLL: usize = 32;

/// Something that stands for writes.
pub trait Writes {
    fn writes(&self) -> &[Write];
}

/// Finds the bytes of a write.
pub trait Source<T> {
    /// All the bytes that a write of `item` is a part of.
    fn bytes<'a>(&'a self, item: &'a T, write: &Write) -> &'a [u8];
}

/// How far the writes of an item are.
#[derive(Clone, Copy, Default)]
struct Progress {
    started: usize,
    pending: u8,
    fault: bool,
}

struct Slot<T> {
    item: Option<T>,
    progress: Progress,
}

/// An item whose writes are complete.
#[derive(Debug)]
pub struct Completed<T> {
    pub item: T,
    /// A write failed, so the bytes are not there.
    pub fault: bool,
}

pub struct Transfers<T> {
    slots: Box<[Slot<T>]>,
    free: Vec<u16>,
    /// Slots with writes that have not been started, in order.
    queue: VecDeque<u16>,
    done: VecDeque<u16>,
    /// Writes under way in all slots.
    pending: usize,
}

impl<T: Writes> Transfers<T> {
    pub fn new(slots: u16) -> Self {
        let slots = slots.max(1);
        Self {
            slots: (0..slots).map(|_| Slot { item: None, progress: Progress::default() }).collect(),
            free: (0..slots).rev().collect(),
            queue: VecDeque::with_capacity(slots.into()),
            done: VecDeque::with_capacity(slots.into()),
            pending: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.room() == self.slots.len()
    }

    /// Items that may still be submitted.
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// Takes an item. If all of its writes complete at once, it comes back at once. The caller has made sure of
    /// [`room`](Self::room).
    #[inline]
    pub fn submit<M: HostMemory>(&mut self, item: T, memory: &mut M, source: &impl Source<T>) -> Option<Completed<T>> {
        let Some(&slot) = self.free.last() else {
            debug_assert!(false, "no room");
            return Some(Completed { item, fault: true });
        };
        let mut progress = Progress::default();
        let all_started = self.queue.is_empty() && progress.start(slot, &item, memory, source);
        if all_started && progress.pending == 0 {
            return Some(Completed { item, fault: progress.fault });
        }
        self.keep(slot, item, progress, all_started);
        None
    }

    /// Keeps an item whose writes are under way.
    #[inline(never)]
    fn keep(&mut self, slot: u16, item: T, progress: Progress, all_started: bool) {
        self.free.pop();
        self.pending += usize::from(progress.pending);
        self.slots[usize::from(slot)] = Slot { item: Some(item), progress };
        if !all_started {
            self.queue.push_back(slot);
        }
    }

    /// Goes on with an item in the queue. False: the memory takes no more now.
    fn go_on<M: HostMemory>(&mut self, slot: u16, memory: &mut M, source: &impl Source<T>) -> bool {
        let Slot { item, progress } = &mut self.slots[usize::from(slot)];
        let Some(item) = item else { return true };
        let before = progress.pending;
        let all_started = progress.start(slot, item, memory, source);
        self.pending += usize::from(progress.pending - before);
        all_started
    }

    /// Learns what has completed. Fetches of others are handed to `fetched`, if there are any. True: something was.
    pub fn poll<M: HostMemory>(
        &mut self,
        fetches: bool,
        memory: &mut M,
        source: &impl Source<T>,
        mut fetched: impl FnMut(Cookie, Result<(), DmaFault>),
    ) -> bool {
        if self.pending == 0 && self.queue.is_empty() && !fetches {
            return false;
        }
        let mut done = [(0, Ok(())); POLL];
        let n = memory.poll(&mut done);
        for &(cookie, result) in &done[..n] {
            if cookie & FETCH != 0 {
                fetched(cookie, result);
            } else {
                self.completed_one((cookie >> WRITE_BITS) as u16, result);
            }
        }
        let before = self.queue.len();
        while let Some(&slot) = self.queue.front()
            && self.go_on(slot, memory, source)
        {
            self.queue.pop_front();
            if self.slots[usize::from(slot)].progress.pending == 0 {
                self.done.push_back(slot);
            }
        }
        n > 0 || self.queue.len() < before
    }

    fn completed_one(&mut self, slot: u16, result: Result<(), DmaFault>) {
        let Some(Slot { item, progress }) = self.slots.get_mut(usize::from(slot)).filter(|s| s.progress.pending > 0) else { return };
        progress.pending -= 1;
        progress.fault |= result.is_err();
        self.pending -= 1;
        let all_started = item.as_ref().is_none_or(|item| progress.started == item.writes().len());
        // One whose second write is still to be started is in the queue, and seen to there.
        if progress.pending == 0 && all_started && !self.queue.contains(&slot) {
            self.done.push_back(slot);
        }
    }

    /// An item that is complete, in no particular order.
    pub fn completed(&mut self) -> Option<Completed<T>> {
        let slot = self.done.pop_front()?;
        self.take(slot)
    }

    fn take(&mut self, slot: u16) -> Option<Completed<T>> {
        let s = &mut self.slots[usize::from(slot)];
        let fault = s.progress.fault;
        self.free.push(slot);
        s.item.take().map(|item| Completed { item, fault })
    }
}

impl Progress {
    /// Starts what can be started of an item. False: the memory takes no more now.
    #[inline]
    fn start<T: Writes, M: HostMemory>(&mut self, slot: u16, item: &T, memory: &mut M, source: &impl Source<T>) -> bool {
        while let Some(write) = item.writes().get(self.started) {
            let (from, to) = (write.at as usize, write.at as usize + write.len as usize);
            let bytes = source.bytes(item, write).get(from..to).ok_or(DmaFault);
            let cookie = Cookie::from(slot) << WRITE_BITS | self.started as Cookie;
            match bytes.and_then(|bytes| memory.write(write.dst, bytes, cookie)) {
                Ok(Transfer::Done) => {}
                Ok(Transfer::Pending) => self.pending += 1,
                Ok(Transfer::Full) => return false,
                Err(DmaFault) => self.fault = true,
            }
            self.started += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec;
    use toe_abi::{HostAddr, RegionId};
    use toe_hal::fake::{FakeMemory, MemoryKnobs};

    const R: RegionId = RegionId(1);

    /// Sixteen bytes for each item, in two writes.
    struct Item(u32, [Write; 2]);

    impl Writes for Item {
        fn writes(&self) -> &[Write] {
            &self.1
        }
    }

    fn item(n: u32) -> Item {
        let write = |at: u32| Write { source: 0, at, len: 8, dst: HostAddr::new(R, u64::from(n * 16 + at)) };
        Item(n, [write(0), write(8)])
    }

    struct Numbers(vec::Vec<u8>);

    impl Source<Item> for Numbers {
        fn bytes<'a>(&'a self, item: &'a Item, _: &Write) -> &'a [u8] {
            let at = item.0 as usize % 256 * 16;
            &self.0[at..at + 16]
        }
    }

    fn numbers() -> Numbers {
        Numbers((0..4096u32).map(|i| (i / 16) as u8).collect())
    }

    fn memory(knobs: MemoryKnobs) -> FakeMemory {
        let mut m = FakeMemory::new(7);
        m.map_owned(0, 4096);
        m.bind(R, 0, 4096).unwrap();
        m.set_knobs(knobs);
        m
    }

    #[test]
    fn each_item_completes_once_when_its_bytes_are_there() {
        let mut m = memory(MemoryKnobs { min_delay: 0, max_delay: 9, full_percent: 30, fault_percent: 0 });
        let mut transfers = Transfers::new(8);
        let (mut next, mut seen) = (1, vec![false; 200]);
        while !seen[1..].iter().all(|&s| s) {
            let mut done = vec::Vec::new();
            if transfers.room() > 0 && next < 200 {
                done.extend(transfers.submit(item(next), &mut m, &numbers()));
                next += 1;
            }
            transfers.poll(false, &mut m, &numbers(), |_, _| panic!("no fetch"));
            done.extend(core::iter::from_fn(|| transfers.completed()));
            for Completed { item, fault } in done {
                assert!(!fault && !std::mem::replace(&mut seen[item.0 as usize], true));
                assert_eq!(m.peek(HostAddr::new(R, u64::from(item.0) * 16), 16), [item.0 as u8; 16]);
            }
        }
        assert!(transfers.is_empty());
    }

    #[test]
    fn a_write_outside_the_region_is_a_fault_and_blocks_nobody() {
        let mut m = memory(MemoryKnobs::default());
        let mut transfers = Transfers::new(4);
        let fault = |c: Option<Completed<Item>>| c.map(|c| (c.item.0, c.fault));
        assert_eq!(fault(transfers.submit(item(1000), &mut m, &numbers())), Some((1000, true)));
        assert_eq!(fault(transfers.submit(item(2), &mut m, &numbers())), Some((2, false)));
    }
}
