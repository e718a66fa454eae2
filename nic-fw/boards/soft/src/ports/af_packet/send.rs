//! The transmit queue: gathers put together by `transmit`, sent by one sendmmsg in `flush`.
//!
//! ```text
//!   mmsghdr[i] ──► iovec[i][0] virtio-net header + headers   (copied into our buffer)
//!                  iovec[i][1..=2]                           (host memory, not copied by us)
//! ```
//!
//! What the kernel refuses is lost: a socket without room says so once, then `transmit` answers busy until there is room again.

use super::super::{is_ready, vnet};
use crate::memory::SoftSlice;
use rustix::event::PollFlags;
use rustix::fd::{AsRawFd, BorrowedFd};
use std::io;
use toe_hal::{TxBusy, TxFrame};

/// Frames in the queue.
const QUEUE: usize = 64;
/// Slices of host memory per frame.
const PAYLOADS: usize = 2;
const IOVECS: usize = 1 + PAYLOADS;
/// Headers of a frame with payload; frames of the control plane have all their bytes here: an MTU and a bit.
const HEADER_MIN: usize = 2048;
const HEADER_SPARE: usize = 64;

pub struct TxQueue {
    /// `header_len` bytes per frame.
    headers: Box<[u8]>,
    header_len: usize,
    iovecs: Box<[[libc::iovec; IOVECS]]>,
    messages: Box<[libc::mmsghdr]>,
    len: usize,
    /// Frames that never got into the queue: too large for it.
    oversized: usize,
    /// The socket had no room the last time.
    full: bool,
}

// SAFETY: the pointers are to buffers on the heap that the queue owns (they stay where they are when it moves) and to host memory,
// valid on every thread until the flush.
unsafe impl Send for TxQueue {}

impl TxQueue {
    pub fn new(mtu: usize) -> Self {
        let header_len = (vnet::LEN + mtu + HEADER_SPARE).max(HEADER_MIN);
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: mmsghdr is integers and pointers: all zero is valid (no name, no control data).
        let message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Self {
            headers: vec![0; QUEUE * header_len].into_boxed_slice(),
            header_len,
            iovecs: vec![[empty; IOVECS]; QUEUE].into_boxed_slice(),
            messages: vec![message; QUEUE].into_boxed_slice(),
            len: 0,
            oversized: 0,
            full: false,
        }
    }

    pub fn push(&mut self, frame: &TxFrame<'_, SoftSlice>) -> Result<(), TxBusy> {
        if self.len == QUEUE || self.full {
            return Err(TxBusy);
        }
        let at = self.len * self.header_len;
        let header = &mut self.headers[at..at + self.header_len];
        let Some(bytes) = header.get_mut(vnet::LEN..vnet::LEN + frame.header.len()).filter(|_| frame.payload.len() <= PAYLOADS) else {
            self.oversized += 1;
            return Ok(());
        };
        bytes.copy_from_slice(frame.header);
        header[..vnet::LEN].copy_from_slice(&vnet::encode(&frame.offload, frame.header));
        let iovecs = &mut self.iovecs[self.len];
        iovecs[0] = libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: vnet::LEN + frame.header.len() };
        let mut count = 1;
        for slice in frame.payload.iter().filter(|s| !s.is_empty()) {
            iovecs[count] = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() as usize };
            count += 1;
        }
        let message = &mut self.messages[self.len].msg_hdr;
        message.msg_iov = iovecs.as_mut_ptr();
        message.msg_iovlen = count as _;
        self.len += 1;
        Ok(())
    }

    /// Sends all of the queue. Returns the number of frames lost.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> usize {
        let mut lost = std::mem::take(&mut self.oversized);
        if self.full {
            self.full = !is_ready(socket, PollFlags::OUT);
        }
        let mut sent = 0;
        while sent < self.len {
            let rest = &mut self.messages[sent..self.len];
            // SAFETY: each message points to an iovec array of `self` whose first entry is a buffer of `self` and whose
            // others are host memory that stays mapped until we return; the kernel only reads them.
            let result = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, libc::MSG_DONTWAIT) };
            match usize::try_from(result) {
                Ok(count) => sent += count.max(1),
                Err(_) => match io::Error::last_os_error().raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN) => {
                        self.full = true;
                        lost += self.len - sent;
                        break;
                    }
                    // ENOBUFS: the interface's queue is full; ENETDOWN, EMSGSIZE, EINVAL: this frame can't go.
                    _ => {
                        lost += 1;
                        sent += 1;
                    }
                },
            }
        }
        self.len = 0;
        lost
    }
}
