//! The sending half.
//!
//! ```text
//!   transmit: [virtio header | headers | payload ─copied─ ] ──► as many buffers of the pair as it takes, one chain
//!   flush: publish, one kick per pair          free ◄── chains that the device has used, when room is short
//! ```

use super::header::{self, HEADER_LEN};
use super::settings::CHAIN_MAX;
use super::{FRAME_MAX, spread};
use crate::Registers;
use crate::virtio::Features;
use crate::virtio::queue::{Part, Queue};
use alloc::boxed::Box;
use alloc::vec::Vec;
use toe_hal::{PortCaps, TxBusy, TxFrame, TxPort};

/// How the board reads its slices of host memory.
pub trait ReadSlice<S> {
    /// Bytes of the slice.
    fn len(&self, slice: &S) -> usize;

    /// Whether it has none.
    fn is_empty(&self, slice: &S) -> bool {
        self.len(slice) == 0
    }

    /// Copies `out.len()` bytes of the slice, from `offset` on. They lie inside it.
    fn read(&self, slice: &S, offset: usize, out: &mut [u8]);
}

/// For slices that are plain memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes;

impl<S: AsRef<[u8]>> ReadSlice<S> for Bytes {
    fn len(&self, slice: &S) -> usize {
        slice.as_ref().len()
    }

    fn read(&self, slice: &S, offset: usize, out: &mut [u8]) {
        if let Some(from) = slice.as_ref().get(offset..offset + out.len()) {
            out.copy_from_slice(from);
        }
    }
}

#[derive(Debug)]
struct Pair<R> {
    queue: Queue<R>,
    /// Buffers that hold nothing.
    free: Vec<u16>,
}

/// The sending half of a port: one core's. `M`: reads the board's host memory.
#[derive(Debug)]
pub struct NetTx<R, M> {
    pairs: Box<[Pair<R>]>,
    host: M,
    caps: PortCaps,
    features: Features,
    /// Since the last flush.
    lost: usize,
}

impl<R: Registers, M> NetTx<R, M> {
    pub(super) fn new(queues: Vec<Queue<R>>, host: M, caps: PortCaps, features: Features) -> Self {
        // The highest first, so that the lowest are taken first.
        let pairs = queues.into_iter().map(|queue| Pair { free: (0..queue.buffers()).rev().collect(), queue }).collect();
        Self { pairs, host, caps, features, lost: 0 }
    }

    pub(super) fn queues(&mut self) -> impl Iterator<Item = &mut Queue<R>> {
        self.pairs.iter_mut().map(|pair| &mut pair.queue)
    }

    /// The device has been reset: all buffers hold nothing.
    pub(super) fn rewind(&mut self) {
        for pair in &mut self.pairs {
            pair.queue.rewind();
            pair.free.clear();
            // As many as at first, so nothing is allocated.
            pair.free.extend((0..pair.queue.buffers()).rev());
        }
    }

    /// Whether the device has broken the rules of a queue: what is sent there is lost, and counted by `flush`. Only a reset mends that.
    pub fn is_broken(&self) -> bool {
        self.pairs.iter().any(|pair| pair.queue.is_broken())
    }

    /// Writes to the device's registers so far.
    pub fn kicks(&self) -> u64 {
        self.pairs.iter().map(|pair| pair.queue.kicks()).sum()
    }

    /// Buffers that hold nothing.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.pairs.iter().map(|pair| pair.free.len()).sum()
    }
}

impl<S, R: Registers, M: ReadSlice<S>> TxPort<S> for NetTx<R, M> {
    fn caps(&self) -> PortCaps {
        self.caps
    }

    /// Copies header and payload: the host memory is not looked at after this returns.
    fn transmit(&mut self, frame: &TxFrame<'_, S>) -> Result<(), TxBusy> {
        let payload = frame.payload.iter().fold(0usize, |sum, slice| sum.saturating_add(self.host.len(slice)));
        let len = frame.header.len().saturating_add(payload);
        debug_assert_eq!(payload, frame.payload_len as usize, "payload_len is not the sum of its slices");
        let can = header::is_negotiated(&frame.offload, frame.header, self.features);
        let place = spread::pair_of(frame.header, self.pairs.len());
        let Some(pair) = self.pairs.get_mut(place).filter(|_| can && len <= FRAME_MAX && len > 0) else {
            self.lost += 1;
            return Ok(());
        };
        let Some(mut chain) = pair.chain(HEADER_LEN + len)? else {
            self.lost += 1;
            return Ok(());
        };
        chain.put(&header::encode(&frame.offload, frame.header, self.features));
        chain.put(frame.header);
        for slice in frame.payload {
            chain.put_with(self.host.len(slice), |offset, out| self.host.read(slice, offset, out));
        }
        chain.post();
        Ok(())
    }

    fn flush(&mut self) -> usize {
        for pair in &mut self.pairs {
            pair.queue.kick();
            if pair.free.len() < usize::from(pair.queue.buffers()) / 2 {
                pair.reap();
            }
        }
        core::mem::take(&mut self.lost)
    }
}

impl<R: Registers> Pair<R> {
    /// Buffers for `len` bytes. `None`: there never will be so many.
    fn chain(&mut self, len: usize) -> Result<Option<Chain<'_, R>>, TxBusy> {
        let buffer_len = self.queue.buffer_len();
        let count = len.div_ceil(buffer_len.max(1));
        if self.free.len() < count {
            self.reap();
        }
        if self.queue.is_broken() || count > usize::from(self.queue.buffers()).min(CHAIN_MAX) {
            return Ok(None);
        }
        let mut parts = heapless::Vec::new();
        let mut left = len;
        if self.free.len() < count {
            return Err(TxBusy);
        }
        for id in self.free.drain(self.free.len() - count..) {
            let part = Part { id, len: left.min(buffer_len) as u32, is_written: false };
            left -= part.len as usize;
            let pushed = parts.push(part);
            debug_assert!(pushed.is_ok(), "at most CHAIN_MAX");
        }
        Ok(Some(Chain { queue: &mut self.queue, parts, part: 0, at: 0 }))
    }

    /// Takes back what the device has used: at most what it has.
    fn reap(&mut self) {
        for _ in 0..self.queue.buffers() {
            let Ok(Some(used)) = self.queue.pop() else { break };
            let mut next = Some(used.id);
            while let Some(id) = next {
                // Never more than there are, so nothing is allocated: the shadow gives each descriptor back once.
                self.free.push(id);
                next = self.queue.next_in_chain(id);
            }
        }
    }
}

/// Buffers of ours that are being filled, one after the other.
struct Chain<'a, R> {
    queue: &'a mut Queue<R>,
    parts: heapless::Vec<Part, CHAIN_MAX>,
    /// The one to fill, and how far it is filled.
    part: usize,
    at: usize,
}

impl<R: Registers> Chain<'_, R> {
    fn put(&mut self, bytes: &[u8]) {
        self.put_with(bytes.len(), |offset, out| out.copy_from_slice(&bytes[offset..offset + out.len()]));
    }

    /// Puts `len` bytes, which `fill` copies piece by piece: (bytes of them before the piece, the piece).
    fn put_with(&mut self, len: usize, mut fill: impl FnMut(usize, &mut [u8])) {
        let mut done = 0;
        while done < len
            && let Some(part) = self.parts.get(self.part)
        {
            let piece = (part.len as usize - self.at).min(len - done);
            // SAFETY: at + piece <= the part's length <= the buffer's; the buffer is ours and its bytes are reached through nothing else.
            let out = unsafe { core::slice::from_raw_parts_mut(self.queue.buffer(part.id).add(self.at), piece) };
            fill(done, out);
            done += piece;
            self.at += piece;
            if self.at == part.len as usize {
                (self.part, self.at) = (self.part + 1, 0);
            }
        }
    }

    fn post(self) {
        let posted = self.queue.post(&self.parts);
        debug_assert!(posted.is_ok(), "the parts were free");
    }
}
