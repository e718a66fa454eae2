//! An Ethernet port: receives into buffers that it lends, sends gathers.

use heapless::Vec;

/// A received frame's buffer, on loan from the port until [`EthPort::release`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Lease(pub u32);

/// Frames in one burst.
pub const BURST: usize = 32;
/// A burst of received frames.
pub type RxBurst = Vec<RxFrame, BURST>;

/// What the port says about a received frame. A super-frame (GRO, TSO by a peer on the same machine) counts as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

/// `S`: how the board names host memory to its ports ([`HostMemory::Slice`](crate::HostMemory::Slice)).
pub trait EthPort<S> {
    fn caps(&self) -> PortCaps;

    /// Appends received frames to `burst`; each holds a lease. Returns how many.
    fn receive(&mut self, burst: &mut RxBurst) -> usize;

    /// The bytes of a leased frame.
    fn frame(&self, lease: Lease) -> &[u8];

    /// Gives a lease back.
    fn release(&mut self, lease: Lease);

    /// Queues a frame. The header is copied; host memory must stay until [`flush`](Self::flush) has returned.
    fn transmit(&mut self, frame: &TxFrame<'_, S>) -> Result<(), TxBusy>;

    /// Puts everything queued on the wire, or as much as it takes. Returns the number of frames that
    /// the wire refused and that are lost (TCP will send them again).
    fn flush(&mut self) -> usize;
}
