//! The buffers that received frames lie in: a fixed number, lent in turn and read by any core.
//!
//! ```text
//!   Lender (receiving core)                         PoolFrames (any core)
//!   lend: writes a buffer that is at home ─Lease──► ... ──► frame: its bytes
//!   take_back                             ◄─Lease── ... ◄──── read to the end
//! ```
//!
//! Buffers come round as in the ring of a network card: the one that has been at home longest goes next.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::sync::Arc;

use toe_hal::{Frames, Lease};

/// Bytes of a buffer.
pub const BUFFER_LEN: usize = 2048;

#[repr(align(128))]
struct Buffer {
    bytes: UnsafeCell<[u8; BUFFER_LEN]>,
    /// How many of them are a frame.
    len: UnsafeCell<usize>,
}

struct Buffers(Box<[Buffer]>);

// SAFETY: a buffer is written by the lender only while it is at home, and read by others only while it is on loan. What carries
// the lease between threads (a ring) orders the two.
unsafe impl Sync for Buffers {}

/// The port's end.
pub struct Lender {
    buffers: Arc<Buffers>,
    home: VecDeque<u32>,
    lent: Box<[bool]>,
}

impl Lender {
    /// `count` buffers that begin with `start`.
    pub fn new(count: u32, start: &[u8]) -> Self {
        let mut bytes = [0; BUFFER_LEN];
        bytes[..start.len()].copy_from_slice(start);
        let buffer = |_| Buffer { bytes: UnsafeCell::new(bytes), len: UnsafeCell::new(0) };
        let buffers = Arc::new(Buffers((0..count).map(buffer).collect()));
        Self { buffers, home: (0..count).collect(), lent: vec![false; count as usize].into() }
    }

    pub fn frames(&self) -> PoolFrames {
        PoolFrames(self.buffers.clone())
    }

    /// Whether a buffer is at home.
    pub fn has(&self) -> bool {
        !self.home.is_empty()
    }

    /// Has a frame written into a buffer, and lends it. `write` returns the frame's length.
    pub fn lend(&mut self, write: impl FnOnce(&mut [u8; BUFFER_LEN]) -> usize) -> Option<(Lease, u32)> {
        let index = self.home.pop_front()?;
        let buffer = &self.buffers.0[index as usize];
        // SAFETY: the buffer is at home: no lease of it is out, so nobody reads it, and `self` alone writes.
        let (bytes, frame_len) = unsafe { (&mut *buffer.bytes.get(), &mut *buffer.len.get()) };
        let len = write(bytes).min(BUFFER_LEN);
        *frame_len = len;
        self.lent[index as usize] = true;
        // SAFETY: the buffer is ours and was at home.
        Some((unsafe { Lease::new(index) }, len as u32))
    }

    pub fn take_back(&mut self, lease: Lease) {
        if let Some(lent) = self.lent.get_mut(lease.index() as usize)
            && std::mem::take(lent)
        {
            self.home.push_back(lease.index());
        } else {
            debug_assert!(false, "{lease:?} is not on loan");
        }
    }
}

/// The bytes of frames on loan.
#[derive(Clone)]
pub struct PoolFrames(Arc<Buffers>);

impl Frames for PoolFrames {
    fn frame<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        let Some(buffer) = self.0.0.get(lease.index() as usize) else { return &[] };
        // SAFETY: a lease of this port (there is one port in a card) is out as long as it is borrowed, so nobody writes the buffer.
        let (bytes, len) = unsafe { (&*buffer.bytes.get(), *buffer.len.get()) };
        &bytes[..len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_round() {
        let mut lender = Lender::new(2, b"start");
        let write = |bytes: &mut [u8; BUFFER_LEN]| {
            bytes[0] += 1;
            5
        };
        let (first, _) = lender.lend(write).unwrap();
        let (second, len) = lender.lend(write).unwrap();
        assert_eq!((lender.frames().frame(&second), len), (&b"ttart"[..], 5));
        assert!(!lender.has() && lender.lend(|_| 0).is_none());
        lender.take_back(first);
        let (again, _) = lender.lend(write).unwrap();
        assert_eq!((again.index(), lender.frames().frame(&again)), (0, &b"utart"[..]));
        let reader = lender.frames();
        std::thread::spawn(move || assert_eq!(reader.frame(&again), b"utart")).join().unwrap();
    }
}
