//! The transmit queue: gathers put together by `transmit`, sent by one sendmmsg in `flush`.
//!
//! ```text
//!   mmsghdr[i] ──► iovec[i][0] virtio-net header + headers   (copied into our buffer)
//!                  iovec[i][1..=2]                           (host memory, not copied by us)
//! ```
//!
//! A frame is taken only if the socket has room for it, else `transmit` answers busy: after the flush its bytes belong to others again, so
//! what the socket had no room for would be lost, and with it the rest of the batch.
//!
//! Flows keep the segment size that the interface's MTU had at first. If that is lowered, the kernel takes none of their full segments any more
//! and would take none of the retransmissions either: then it is asked to cut each as if it were a super-frame.

use super::super::vnet;
use crate::memory::SoftSlice;
use rustix::fd::{AsRawFd, BorrowedFd};
use std::io;
use toe_hal::{TxBusy, TxFrame, TxOffload};

/// Frames in the queue.
const QUEUE: usize = 64;
/// Slices of host memory per frame.
const PAYLOADS: usize = 2;
const IOVECS: usize = 1 + PAYLOADS;
/// Headers of a frame with payload; frames of the control plane have all their bytes here: an MTU and a bit.
const HEADER_MIN: usize = 2048;
const HEADER_SPARE: usize = 64;
/// Bytes that the kernel may add to a frame: its own headers, and those of its buffer.
const OVERHEAD: usize = 2048;

const TCP_FLAGS: usize = 13;
const TCP_URG: u8 = 0x20;

pub struct TxQueue {
    /// `header_len` bytes per frame.
    headers: Box<[u8]>,
    header_len: usize,
    iovecs: Box<[[libc::iovec; IOVECS]]>,
    messages: Box<[libc::mmsghdr]>,
    len: usize,
    /// Bytes of an IP packet that the interface takes, as far as we know.
    mtu: usize,
    /// It may be another one: to be asked for with the next flush.
    mtu_is_stale: bool,
    /// Frames that never got into the queue: too large for it.
    oversized: usize,
    /// Bytes that the socket still has room for, at least.
    room: usize,
    /// It had no room: until the next flush.
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
            mtu,
            mtu_is_stale: false,
            oversized: 0,
            room: 0,
            full: false,
        }
    }

    pub fn push(&mut self, frame: &TxFrame<'_, SoftSlice>, socket: BorrowedFd<'_>) -> Result<(), TxBusy> {
        if self.len == QUEUE || self.full {
            return Err(TxBusy);
        }
        let cost = cost_of(frame.header.len() + frame.payload_len as usize);
        if self.room < cost && !self.make_room(cost, socket) {
            self.full = true;
            return Err(TxBusy);
        }
        self.room = self.room.saturating_sub(cost);
        let at = self.len * self.header_len;
        let header = &mut self.headers[at..at + self.header_len];
        let Some(bytes) = header.get_mut(vnet::LEN..vnet::LEN + frame.header.len()).filter(|_| frame.payload.len() <= PAYLOADS) else {
            self.oversized += 1;
            return Ok(());
        };
        bytes.copy_from_slice(frame.header);
        let offload = cut(frame, self.mtu);
        // The kernel asks no such frame whether it fits: the interface may take even less by now.
        self.mtu_is_stale |= offload.gso_size != frame.offload.gso_size;
        header[..vnet::LEN].copy_from_slice(&vnet::encode(&offload, frame.header));
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

    /// Asks the kernel how much room there is. True: enough.
    fn make_room(&mut self, cost: usize, socket: BorrowedFd<'_>) -> bool {
        // What is in the queue is not in the socket yet.
        if self.len > 0 {
            return false;
        }
        let (size, used) = (send_buffer(socket), unsent(socket));
        self.room = size.saturating_sub(used);
        // One frame goes into an empty socket, however small that is.
        self.room >= cost || used == 0
    }

    /// Sends all of the queue. Returns the number of frames lost. If there were some that the interface is too small for, its MTU is asked
    /// for again.
    pub fn flush(&mut self, socket: BorrowedFd<'_>, mtu_now: impl FnOnce() -> Option<usize>) -> usize {
        let mut lost = std::mem::take(&mut self.oversized);
        self.full = false;
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
                    // The kernel needs more for a frame than we think.
                    Some(libc::EAGAIN) => {
                        self.room = 0;
                        lost += self.len - sent;
                        break;
                    }
                    // ENOBUFS: the interface's queue is full; ENETDOWN, EMSGSIZE, EINVAL: this frame can't go.
                    error => {
                        self.mtu_is_stale |= error == Some(libc::EMSGSIZE);
                        lost += 1;
                        sent += 1;
                    }
                },
            }
        }
        self.len = 0;
        if std::mem::take(&mut self.mtu_is_stale)
            && let Some(mtu) = mtu_now().filter(|mtu| *mtu != self.mtu)
        {
            tracing::warn!(was = self.mtu, mtu, "the interface's MTU has changed: the kernel cuts what is too large");
            self.mtu = mtu;
        }
        lost
    }
}

/// What the kernel is to do with a frame: also to cut it, where the interface would not take it whole.
fn cut(frame: &TxFrame<'_, SoftSlice>, mtu: usize) -> TxOffload {
    let TxOffload { partial_csum, gso_size, hdr_len, .. } = frame.offload;
    let headers = usize::from(hdr_len).saturating_sub(vnet::ethernet_len(frame.header));
    let most = u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
    // Frames of the control plane do not say how long their headers are.
    let is_segment = partial_csum && hdr_len > 0;
    if !is_segment || frame.payload_len <= u32::from(most) || most == 0 || is_urgent(frame) {
        return frame.offload;
    }
    let gso_size = if gso_size == 0 { most } else { gso_size.min(most) };
    TxOffload { gso_size, ..frame.offload }
}

/// Whether a segment has an urgent pointer: it stays whole, else each piece would have that of the first, and the peer take other bytes for
/// urgent.
fn is_urgent(frame: &TxFrame<'_, SoftSlice>) -> bool {
    let flags = frame.header.get(usize::from(frame.offload.csum_start) + TCP_FLAGS);
    flags.is_some_and(|flags| flags & TCP_URG != 0)
}

/// Most memory that the kernel counts for a frame: a buffer of the next power of two.
fn cost_of(len: usize) -> usize {
    (vnet::LEN + len + OVERHEAD).next_power_of_two() + OVERHEAD
}

/// Bytes that may wait in a socket.
fn send_buffer(socket: BorrowedFd<'_>) -> usize {
    // As the kernel counts: twice what was asked for.
    rustix::net::sockopt::socket_send_buffer_size(socket).unwrap_or(0)
}

/// Bytes of buffers that wait in a socket.
fn unsent(socket: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, the same number as TIOCOUTQ, takes a pointer to an int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::{AsFd, OwnedFd};
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
    use toe_hal::TxOffload;

    /// A socket that takes little before somebody reads at its other end.
    fn slow_wire() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, 1 << 16).unwrap();
        (ours, theirs)
    }

    /// The numbers of the frames that have come out.
    fn read(wire: &OwnedFd) -> Vec<u32> {
        let mut buffer = [0; 4096];
        let number = |buffer: &[u8]| buffer[vnet::LEN..vnet::LEN + 4].try_into().map(u32::from_be_bytes).unwrap();
        std::iter::from_fn(|| rustix::net::recv(wire, &mut buffer[..], RecvFlags::empty()).ok().map(|_| number(&buffer))).collect()
    }

    #[test]
    fn a_socket_that_is_full_loses_nothing() {
        const FRAMES: u32 = 500;
        let (socket, wire) = slow_wire();
        let mut queue = TxQueue::new(1500);
        let (mut next, mut busy, mut came) = (0u32, 0, Vec::new());
        while came.len() < FRAMES as usize {
            let mut header = [0; 1514];
            header[..4].copy_from_slice(&next.to_be_bytes());
            let frame = TxFrame { header: &header, payload: &[], payload_len: 0, offload: TxOffload::default() };
            if next < FRAMES && queue.push(&frame, socket.as_fd()).is_ok() {
                next += 1;
                continue;
            }
            assert_eq!(queue.flush(socket.as_fd(), || None), 0, "of a batch that ends with frame {next}");
            if next == FRAMES || queue.push(&frame, socket.as_fd()).map(|()| next += 1).is_err() {
                busy += 1;
                came.extend(read(&wire));
                queue.flush(socket.as_fd(), || None);
            }
        }
        assert_eq!(came, (0..FRAMES).collect::<Vec<_>>());
        assert!(busy > 2, "it has been full");
    }

    #[test]
    fn what_the_interface_does_not_take_whole_is_cut() {
        let cuts = |header: &[u8], payload_len, gso_size, mtu| {
            let tcp = header.len() as u16 - 20;
            let offload = TxOffload { partial_csum: true, csum_start: tcp, csum_offset: 16, gso_size, hdr_len: header.len() as u16 };
            let made = cut(&TxFrame { header, payload: &[], payload_len, offload }, mtu);
            assert_eq!(TxOffload { gso_size, ..made }, offload, "nothing else changes");
            made.gso_size
        };
        let (plain, mut vlan, mut urgent) = ([0; 54], [0; 58], [0; 54]);
        vlan[12..14].copy_from_slice(&[0x81, 0]);
        urgent[34 + TCP_FLAGS] = 0x38;
        // A segment, whole as long as it fits; a tag is not part of the packet.
        for header in [&plain[..], &vlan] {
            assert_eq!([1500, 1499, 1400].map(|mtu| cuts(header, 1460, 0, mtu)), [0, 1459, 1360]);
        }
        // A super-frame.
        assert_eq!([1500, 1400, 68].map(|mtu| cuts(&plain, 30_000, 1460, mtu)), [1460, 1360, 28]);
        assert_eq!(cuts(&plain, 1360, 1460, 1400), 1460, "one piece, which fits");
        assert_eq!(cuts(&plain, 30_000, 1000, 1400), 1000);
        // Nothing to cut into.
        assert_eq!([40, 39, 0].map(|mtu| cuts(&plain, 1460, 0, mtu)), [0; 3]);
        assert_eq!([40, 39, 0].map(|mtu| cuts(&plain, 30_000, 1460, mtu)), [1460; 3]);
        assert_eq!(cuts(&plain, u32::MAX, 0, usize::MAX), u16::MAX);
        assert_eq!(cuts(&urgent, 1460, 0, 1400), 0);
        let control = TxFrame { header: &[0; 1514], payload: &[], payload_len: 0, offload: TxOffload::default() };
        assert_eq!(cut(&control, 1400), control.offload);
        let garbage = TxOffload { partial_csum: true, csum_start: u16::MAX, hdr_len: 1, ..TxOffload::default() };
        assert_eq!(cut(&TxFrame { header: &[], payload: &[], payload_len: 10, offload: garbage }, 5).gso_size, 5);
    }

    #[test]
    fn a_socket_smaller_than_a_frame_takes_one_at_a_time() {
        let (socket, wire) = slow_wire();
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, 1).unwrap();
        let mut queue = TxQueue::new(1500);
        let header = [0; 1514];
        let frame = TxFrame { header: &header, payload: &[], payload_len: 0, offload: TxOffload::default() };
        for _ in 0..3 {
            assert!(queue.push(&frame, socket.as_fd()).is_ok());
            assert!(queue.push(&frame, socket.as_fd()).is_err());
            assert_eq!(queue.flush(socket.as_fd(), || None), 0);
            assert!(queue.push(&frame, socket.as_fd()).is_err(), "the first is still there");
            queue.flush(socket.as_fd(), || None);
            assert_eq!(read(&wire).len(), 1);
        }
    }
}
