//! An Ethernet port in three parts, so that each can be on a core of its own: receiving, the received bytes, sending.
//!
//! ```text
//!   wire ──► RxPort ──Lease──► any core: Frames gives its bytes ──Lease──► RxPort::release
//!   wire ◄── TxPort ◄── header + slices of host memory
//! ```

use heapless::Vec;

/// A received frame's buffer, on loan from the port until [`RxPort::release`]. Whoever holds it may read the bytes, on any
/// core; it can't be copied, so the port has it back only when nobody reads any more.
#[derive(PartialEq, Eq, Debug, Hash)]
#[must_use = "a lease that is dropped never comes back to the port"]
pub struct Lease(u32);

impl Lease {
    /// # Safety
    /// For ports only: buffer `index` is theirs, and no other lease of it is out.
    pub const unsafe fn new(index: u32) -> Self {
        Self(index)
    }

    /// Which of the port's buffers.
    pub const fn index(&self) -> u32 {
        self.0
    }
}

/// Frames in one burst.
pub const BURST: usize = 32;
/// A burst of received frames.
pub type RxBurst = Vec<RxFrame, BURST>;

/// What the port says about a received frame. A super-frame (GRO, TSO by a peer on the same machine) counts as one.
#[derive(PartialEq, Eq, Debug)]
pub struct RxFrame {
    pub lease: Lease,
    /// Bytes, from the destination MAC address on, without FCS; at most 64 KiB + headers.
    pub len: u32,
    pub offload: RxOffload,
}

/// Checksum and segmentation state of a received frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RxOffload {
    /// The TCP checksum is known to be good, or was never computed as the frame has not been on a wire
    /// (then it holds only the pseudo-header's sum).
    pub csum_ok: bool,
    /// The TCP checksum field holds the pseudo-header's sum only (implies `csum_ok`): whoever passes the frame on must finish it.
    pub partial_csum: bool,
    /// Payload bytes per original segment; 0: a plain frame.
    pub gso_size: u16,
}

/// What a port can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortCaps {
    pub mac: [u8; 6],
    /// Bytes of an IP packet on the wire.
    pub mtu: u16,
    /// The port finishes TCP checksums ([`TxOffload::partial_csum`]).
    pub tx_csum: bool,
    /// Most bytes of payload in a frame to be segmented by the port; 0: no segmentation.
    pub tso_max: u32,
}

/// What the port is to do with a frame to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TxOffload {
    /// Finish the checksum: sum from byte `csum_start` of the frame to its end, put the result `csum_offset` bytes behind `csum_start`.
    pub partial_csum: bool,
    pub csum_start: u16,
    pub csum_offset: u16,
    /// Cut the payload into segments of this many bytes; 0: don't.
    pub gso_size: u16,
    /// Bytes of headers (Ethernet, IP, TCP) at the front.
    pub hdr_len: u16,
}

/// A frame to send: headers built by the card, then up to two slices of host memory (a ring buffer that wraps).
#[derive(Clone, Copy, Debug)]
pub struct TxFrame<'a, S> {
    pub header: &'a [u8],
    /// Host memory, in order.
    pub payload: &'a [S],
    /// Bytes of all of `payload`.
    pub payload_len: u32,
    pub offload: TxOffload,
}

/// The port had no room; nothing was queued. Try again after the next flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxBusy;

/// Frames that a port has lost on receiving, in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RxLosses {
    /// Its ring was full: the card never saw them.
    pub overrun: u64,
    /// Received, but could not be handed over: longer than a buffer, say.
    pub unusable: u64,
    /// Times that the port was reset, with what was on its way through it.
    pub resets: u64,
}

/// The receiving part: one core's.
pub trait RxPort {
    type Frames: Frames;

    /// A way to the bytes of leased frames, for any core.
    fn frames(&self) -> Self::Frames;

    /// Appends received frames to `burst`; each holds a lease. Returns how many.
    fn receive(&mut self, burst: &mut RxBurst) -> usize;

    /// Whether [`receive`](Self::receive) might find something: the second look before sleep.
    fn any(&mut self) -> bool;

    /// Gives a lease back.
    fn release(&mut self, lease: Lease);

    /// What has been lost so far. May cost a system call.
    fn losses(&mut self) -> RxLosses {
        RxLosses::default()
    }

    /// Whether frames are held back that only further calls of [`receive`](Self::receive) bring out.
    fn holding(&self) -> bool {
        false
    }
}

/// Bytes of leased frames.
pub trait Frames: Clone {
    fn frame<'a>(&'a self, lease: &'a Lease) -> &'a [u8];
}

/// The sending part: one core's. `S`: how the board names host memory ([`HostMemory::Slice`](crate::HostMemory::Slice)).
pub trait TxPort<S> {
    fn caps(&self) -> PortCaps;

    /// Queues a frame. The header is copied; host memory must stay until [`flush`](Self::flush) has returned.
    fn transmit(&mut self, frame: &TxFrame<'_, S>) -> Result<(), TxBusy>;

    /// Puts everything queued on the wire, or as much as it takes. Returns the number of frames that
    /// the wire refused and that are lost (TCP will send them again).
    fn flush(&mut self) -> usize;

    /// Whether frames are held back that only further calls of [`flush`](Self::flush) bring out.
    fn holding(&self) -> bool {
        false
    }
}
