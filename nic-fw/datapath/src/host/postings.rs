//! What the card writes into queues and rings of the host: the bytes start as they come, and each posting is published when its bytes and
//! those of all postings before it are there.

use crate::{
    control::Control,
    dma::written,
    msg::{ExceptionMsg, Origin, OutMsg, Write},
    transfers::{Completed, Source, Transfers, Writes},
};
use alloc::boxed::Box;
use toe_abi::{CtxId, FlowId, HostAddr};
use toe_hal::{Cookie, DmaFault, Frames, HostMemory};
use toe_sync::sequencer::{Reorder, Sequencer};

/// What becomes true when a posting is released.
#[derive(Debug)]
pub enum Item {
    /// A frame (or filling) in the exception ring: publish `tail`.
    Exception { msg: Option<ExceptionMsg>, tail: u32, epoch: u32 },
    /// An event in a context's queue: publish its phase.
    Event { ctx: CtxId, opened: u32, phase_at: HostAddr, phase: u32, flow: FlowId, last: bool },
    /// A control completion: publish its phase.
    Completion { phase_at: HostAddr, phase: u32, epoch: u32 },
    /// All before it is published.
    Barrier,
}

/// Something to be written, and what it stands for.
#[derive(Debug)]
pub struct Posting {
    pub item: Item,
    /// Source 0 is `bytes` (of a completion: the control stage's), source 1 the frame.
    writes: heapless::Vec<Write, 2>,
    bytes: [u64; 8],
}

impl Posting {
    /// Of bytes that the control stage has.
    pub fn new(item: Item, write: Write) -> Self {
        Self::with_bytes(item, write, [0; 8])
    }

    pub fn with_bytes(item: Item, write: Write, bytes: [u64; 8]) -> Self {
        Self { item, writes: core::iter::once(write).collect(), bytes }
    }

    /// A second write.
    pub fn add(&mut self, write: Write) {
        let _ = self.writes.push(write);
    }
}

enum Entry {
    /// With its number in the order.
    Posting(u32, Posting),
    /// Payload of an injected frame: no part of this order.
    Injected(Box<OutMsg>),
}

impl Writes for Entry {
    fn writes(&self) -> &[Write] {
        match self {
            Self::Posting(_, posting) => &posting.writes,
            Self::Injected(msg) => &msg.writes,
        }
    }
}

/// Where the bytes of postings are.
struct Bytes<'a, F> {
    frames: &'a F,
    control: &'a Control,
}

impl<F: Frames> Source<Entry> for Bytes<'_, F> {
    fn bytes<'a>(&'a self, entry: &'a Entry, write: &Write) -> &'a [u8] {
        match entry {
            Entry::Injected(_) => self.control.packet_bytes(),
            Entry::Posting(_, posting) => match (&posting.item, write.source) {
                // What waits since another control plane was there must not be written to this one's rings: it ends with a fault.
                (Item::Completion { epoch, .. } | Item::Exception { epoch, .. }, _) if !self.control.is_now(*epoch) => &[],
                (Item::Completion { .. }, _) => self.control.completion_bytes(),
                (Item::Exception { msg: Some(msg), .. }, 1) => match &msg.frame.origin {
                    Origin::Port(lease) => self.frames.frame(lease),
                    Origin::Injected => self.control.packet_bytes(),
                },
                _ => zerocopy::IntoBytes::as_bytes(&posting.bytes),
            },
        }
    }
}

/// What has come out.
#[derive(Debug)]
pub enum Out {
    /// In order; `true`: its bytes could not be written.
    Posting(Item, bool),
    /// Its payload is written.
    Injected(Box<OutMsg>),
}

pub struct Postings {
    transfers: Transfers<Entry>,
    numbers: Sequencer,
    order: Reorder<(Item, bool)>,
    injected: Option<Box<OutMsg>>,
}

impl Postings {
    pub fn new(entries: u16) -> Self {
        let entries = entries.max(4).next_power_of_two();
        // One entry more: the injected frame's.
        let order = Reorder::new(entries.into());
        Self { transfers: Transfers::new(entries + 1), numbers: Sequencer::new(order.capacity()), order, injected: None }
    }

    pub fn is_empty(&self) -> bool {
        self.transfers.is_empty() && self.numbers.credit() == self.order.capacity() && self.injected.is_none()
    }

    /// Postings that may be under way.
    pub fn capacity(&self) -> u32 {
        self.numbers.capacity()
    }

    /// Postings that may still be submitted.
    pub fn room(&self) -> u32 {
        self.numbers.credit()
    }

    /// Takes a posting. The caller has made sure of [`room`](Self::room).
    pub fn submit<M: HostMemory>(&mut self, posting: Posting, memory: &mut M, frames: &impl Frames, control: &Control) {
        let Some(number) = self.numbers.take() else {
            debug_assert!(false, "no room");
            return;
        };
        let done = self.transfers.submit(Entry::Posting(number, posting), memory, &Bytes { frames, control });
        done.into_iter().for_each(|done| self.completed(done));
    }

    /// Nothing to be written, but it has its place in the order. False: there is no room for it now.
    pub fn barrier(&mut self) -> bool {
        let number = self.numbers.take();
        number.is_some_and(|number| self.order.put(number, (Item::Barrier, false)).is_ok())
    }

    /// Writes payload of the injected frame: there is one at a time.
    pub fn inject<M: HostMemory>(&mut self, msg: Box<OutMsg>, memory: &mut M, frames: &impl Frames, control: &Control) {
        let done = self.transfers.submit(Entry::Injected(msg), memory, &Bytes { frames, control });
        done.into_iter().for_each(|done| self.completed(done));
    }

    fn completed(&mut self, Completed { item, fault }: Completed<Entry>) {
        match item {
            Entry::Posting(number, posting) => {
                let put = self.order.put(number, (posting.item, fault));
                debug_assert!(put.is_ok(), "{put:?}");
            }
            Entry::Injected(item) => self.injected = Some(written(Completed { item, fault })),
        }
    }

    /// Learns what has completed. Fetches are handed to `fetched`, if there are any.
    pub fn poll<M: HostMemory>(
        &mut self,
        fetches: bool,
        memory: &mut M,
        frames: &impl Frames,
        control: &Control,
        fetched: impl FnMut(Cookie, Result<(), DmaFault>),
    ) -> bool {
        let any = self.transfers.poll(fetches, memory, &Bytes { frames, control }, fetched);
        while let Some(done) = self.transfers.completed() {
            self.completed(done);
        }
        any
    }

    /// What comes out next.
    pub fn release(&mut self) -> Option<Out> {
        if let Some(msg) = self.injected.take() {
            return Some(Out::Injected(msg));
        }
        let before = self.order.released();
        let (item, fault) = self.order.release()?;
        self.numbers.give_back(self.order.released().wrapping_sub(before));
        Some(Out::Posting(item, fault))
    }
}
