//! DMA: payload of received segments goes straight to its place in host memory. Completes in any order; egress puts it right.

use crate::{
    msg::{Origin, OutMsg, Write},
    transfers::{Completed, Source, Transfers, Writes},
};
use alloc::boxed::Box;
use toe_hal::{Frames, HostMemory};

impl Writes for Box<OutMsg> {
    fn writes(&self) -> &[Write] {
        &self.writes
    }
}

/// The bytes of leased frames.
struct Leased<F>(F);

impl<F: Frames> Source<Box<OutMsg>> for Leased<F> {
    #[inline]
    fn bytes<'a>(&'a self, msg: &'a Box<OutMsg>, write: &Write) -> &'a [u8] {
        match msg.frames.get(usize::from(write.source)).map(|received| &received.frame.origin) {
            Some(Origin::Port(lease)) => self.0.frame(lease),
            // The ctxq stage has its bytes, and writes them itself.
            Some(Origin::Injected) | None => &[],
        }
    }
}

/// The stage, or one of its replicas.
pub struct Dma<M, F> {
    memory: M,
    frames: Leased<F>,
    transfers: Transfers<Box<OutMsg>>,
}

impl<M: HostMemory, F: Frames> Dma<M, F> {
    /// With room for `entries` messages whose writes are under way.
    pub fn new(entries: u16, memory: M, frames: F) -> Self {
        Self { memory, frames: Leased(frames), transfers: Transfers::new(entries) }
    }

    pub fn is_empty(&self) -> bool {
        self.transfers.is_empty()
    }

    pub fn room(&self) -> usize {
        self.transfers.room()
    }

    /// Starts the writes of a message. It comes back at once if they are complete at once, else by [`completed`](Self::completed).
    pub fn submit(&mut self, msg: Box<OutMsg>) -> Option<Box<OutMsg>> {
        self.transfers.submit(msg, &mut self.memory, &self.frames).map(written)
    }

    /// Learns what has completed. True: something was.
    pub fn poll(&mut self) -> bool {
        self.transfers.poll(false, &mut self.memory, &self.frames, |_, _| debug_assert!(false, "nobody fetches here"))
    }

    pub fn completed(&mut self) -> Option<Box<OutMsg>> {
        self.transfers.completed().map(written)
    }
}

/// The message without its writes: they are done.
pub fn written(Completed { item: mut msg, fault }: Completed<Box<OutMsg>>) -> Box<OutMsg> {
    msg.writes.clear();
    msg.fault = fault;
    msg
}
