//! DMA, and the order in which things leave: writes to host memory start as they come and may complete in any order; what
//! each entry stands for (a segment, an event, an answer) becomes true only when its writes and all earlier ones are complete.
//!
//! ```text
//!   head                      next_start            tail
//!    │ complete │ pending │ pending │ not started │   ► submit
//!    ▼ release  └───────── order kept ──────────┘
//! ```
//!
//! Without this an ACK could leave before its payload is in memory, and a late write could overwrite what the application was
//! told of after a lap of its buffer. With memory that completes at once nothing ever waits here.

use crate::msg::{DmaMsg, ExceptionMsg, Source, Write};
use alloc::boxed::Box;
use toe_abi::{CtxId, FlowId, HostAddr};
use toe_hal::{Cookie, Dma as Transfer, DmaFault, HostMemory};

/// In the cookies of fetches, which the entries have nothing to do with.
pub const FETCH: Cookie = 1 << 31;
/// Completions taken from memory in one poll.
const POLL: usize = 32;

/// What becomes true when an entry is released.
#[allow(clippy::large_enum_variant, reason = "nothing is allocated, and the large one is the usual one")]
#[derive(Clone, Debug)]
pub enum Item {
    Flow(DmaMsg),
    /// A frame (or filling) in the exception ring: publish `tail`.
    Exception {
        msg: Option<ExceptionMsg>,
        tail: u32,
        epoch: u32,
    },
    /// An event in a context's queue: publish its phase.
    Event {
        ctx: CtxId,
        opened: u32,
        phase_at: HostAddr,
        phase: u32,
        flow: FlowId,
        last: bool,
    },
    /// A control completion: publish its phase.
    Completion {
        phase_at: HostAddr,
        phase: u32,
        epoch: u32,
    },
}

/// An entry that has come out of the order.
#[derive(Debug)]
pub struct Released {
    pub item: Item,
    /// A write failed, so the bytes are not there.
    pub fault: bool,
}

/// Resolves where the bytes of a write are.
pub trait Bytes {
    /// Bytes of anything but [`Source::Inline`].
    fn bytes(&self, source: Source) -> &[u8];
}

#[derive(Default)]
struct Entry {
    item: Option<Item>,
    writes: heapless::Vec<Write, 2>,
    started: usize,
    pending: u8,
    fault: bool,
    inline: [u64; 8],
}

impl Entry {
    fn complete(&self) -> bool {
        self.started == self.writes.len() && self.pending == 0
    }
}

pub struct Dma {
    entries: Box<[Entry]>,
    head: usize,
    len: usize,
    /// Entries from `head` on whose writes have all been started.
    started: usize,
    /// Writes under way in all entries.
    pending: usize,
}

impl Dma {
    pub fn new(entries: u16) -> Self {
        let entries = (0..entries.max(2)).map(|_| Entry::default()).collect();
        Self { entries, head: 0, len: 0, started: 0, pending: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries that may still be submitted.
    pub fn room(&self) -> usize {
        self.entries.len() - self.len
    }

    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    fn slot(&self, place: usize) -> usize {
        (self.head + place) % self.entries.len()
    }

    /// Takes an entry. The caller has made sure of [`room`](Self::room).
    pub fn submit<M: HostMemory>(&mut self, item: Item, writes: &[Write], inline: Option<&[u64; 8]>, memory: &mut M, bytes: &impl Bytes) {
        debug_assert!(self.room() > 0);
        let slot = self.slot(self.len);
        let entry = &mut self.entries[slot];
        (entry.started, entry.pending, entry.fault) = (0, 0, false);
        entry.writes.clear();
        let _ = entry.writes.extend_from_slice(writes);
        if let Some(inline) = inline {
            entry.inline = *inline;
        }
        entry.item = Some(item);
        self.len += 1;
        self.start(memory, bytes);
    }

    /// Starts writes in order until the memory takes no more.
    fn start<M: HostMemory>(&mut self, memory: &mut M, bytes: &impl Bytes) {
        while self.started < self.len {
            let slot = self.slot(self.started);
            let entry = &mut self.entries[slot];
            while let Some(write) = entry.writes.get(entry.started) {
                let source = match write.source {
                    Source::Inline => zerocopy::IntoBytes::as_bytes(&entry.inline),
                    other => bytes.bytes(other),
                };
                let (from, to) = (write.at as usize, write.at as usize + write.len as usize);
                let started = source.get(from..to).ok_or(DmaFault);
                let cookie = (slot * 2 + entry.started) as Cookie;
                match started.and_then(|src| memory.write(write.dst, src, cookie)) {
                    Ok(Transfer::Done) => {}
                    Ok(Transfer::Pending) => {
                        entry.pending += 1;
                        self.pending += 1;
                    }
                    Ok(Transfer::Full) => return,
                    Err(DmaFault) => entry.fault = true,
                }
                entry.started += 1;
            }
            self.started += 1;
        }
    }

    /// Learns what has completed. Fetches of others are handed to `fetched`. True: something was.
    pub fn poll<M: HostMemory>(
        &mut self,
        fetches: bool,
        memory: &mut M,
        bytes: &impl Bytes,
        mut fetched: impl FnMut(Cookie, Result<(), DmaFault>),
    ) -> bool {
        if self.pending == 0 && self.started == self.len && !fetches {
            return false;
        }
        let mut done = [(0, Ok(())); POLL];
        let n = memory.poll(&mut done);
        for &(cookie, result) in &done[..n] {
            if cookie & FETCH != 0 {
                fetched(cookie, result);
            } else if let Some(entry) = self.entries.get_mut(cookie as usize / 2).filter(|e| e.pending > 0) {
                entry.pending -= 1;
                entry.fault |= result.is_err();
                self.pending -= 1;
            }
        }
        let before = self.started;
        self.start(memory, bytes);
        n > 0 || self.started > before
    }

    /// The oldest entry, if it is complete.
    pub fn release(&mut self) -> Option<Released> {
        if self.len == 0 || !self.entries[self.head].complete() {
            return None;
        }
        let entry = &mut self.entries[self.head];
        let released = entry.item.take().map(|item| Released { item, fault: entry.fault });
        self.head = self.slot(1);
        self.len -= 1;
        self.started -= 1;
        released
    }

    /// Whether [`release`](Self::release) would give something.
    pub fn can_release(&self) -> bool {
        self.len > 0 && self.entries[self.head].complete()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use toe_abi::RegionId;
    use toe_hal::fake::{FakeMemory, MemoryKnobs};

    const R: RegionId = RegionId(1);

    /// Sixteen bytes for each entry.
    struct Frames(std::vec::Vec<u8>);

    impl Bytes for Frames {
        fn bytes(&self, _: Source) -> &[u8] {
            &self.0
        }
    }

    fn memory(knobs: MemoryKnobs) -> FakeMemory {
        let mut m = FakeMemory::new(7);
        m.map_owned(0, 4096);
        m.bind(R, 0, 4096).unwrap();
        m.set_knobs(knobs);
        m
    }

    fn frames() -> Frames {
        Frames((0..4096u32).map(|i| (i / 16) as u8).collect())
    }

    fn submit(dma: &mut Dma, m: &mut FakeMemory, n: u32) {
        let item = Item::Completion { phase_at: HostAddr::new(R, 0), phase: n, epoch: 0 };
        let write = Write { source: Source::Completion, at: n % 256 * 16, len: 16, dst: HostAddr::new(R, u64::from(n) * 16) };
        dma.submit(item, &[write], None, m, &frames());
    }

    fn released(dma: &mut Dma) -> Option<(u32, bool)> {
        dma.release().map(|r| match r.item {
            Item::Completion { phase, .. } => (phase, r.fault),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn entries_come_out_in_order_and_only_when_their_bytes_are_there() {
        let mut m = memory(MemoryKnobs { min_delay: 1, max_delay: 9, full_percent: 30, fault_percent: 0 });
        let mut dma = Dma::new(8);
        let (mut next_in, mut next_out) = (1, 1);
        while next_out < 200 {
            if dma.room() > 0 && next_in < 200 {
                submit(&mut dma, &mut m, next_in);
                next_in += 1;
            }
            dma.poll(false, &mut m, &frames(), |_, _| panic!("no fetch"));
            while let Some((n, fault)) = released(&mut dma) {
                assert_eq!((n, fault), (next_out, false));
                assert_eq!(m.peek(HostAddr::new(R, u64::from(n) * 16), 16), [n as u8; 16]);
                next_out += 1;
            }
        }
        assert!(dma.is_empty());
    }

    #[test]
    fn a_write_outside_the_region_is_a_fault_and_blocks_nobody() {
        let mut m = memory(MemoryKnobs::default());
        let mut dma = Dma::new(4);
        submit(&mut dma, &mut m, 1000);
        submit(&mut dma, &mut m, 2);
        assert_eq!((released(&mut dma), released(&mut dma)), (Some((1000, true)), Some((2, false))));
    }
}
