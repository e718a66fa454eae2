//! Frame rings of the control region: whole Ethernet frames of any length up to 64 KiB, in order.
//!
//! One producer, one consumer. After a header with the two indices comes a data area, a power of two of bytes, used as a ring of
//! 64-byte units; a record is a [`FrameRecord`] and the frame, rounded up to units. A record never wraps:
//! if it doesn't fit before the end, a record of kind [`kind::SKIP`] fills the rest. Indices count bytes
//! mod 2^32. Both sides validate the other's index and every record.
//!
//! Exceptions (card to toed) are frames of no known flow; packets (toed to card) are to be sent, or
//! to be processed as if they had just come from the wire ([`kind::INJECT`]).

use crate::assert_layout;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes before the data area: each index has a cache line.
pub const RING_HEADER_LEN: usize = 128;
/// Records begin at multiples of this.
pub const UNIT: u32 = 64;
/// Longest frame in a record.
pub const FRAME_MAX: u32 = 65_536 + 64;

#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RingHeader {
    /// Written by the producer (release): bytes put in, mod 2^32.
    pub tail: u32,
    pub _reserved: [u32; 15],
    /// Written by the consumer (release): bytes taken out, mod 2^32.
    pub head: u32,
    pub _reserved2: [u32; 15],
}
assert_layout!(RingHeader, RING_HEADER_LEN, tail @ 0, head @ 64);

/// Goes before each frame.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FrameRecord {
    /// [`kind`].
    pub kind: u32,
    /// Bytes of the frame that follows; of SKIP: bytes to skip, this record included.
    pub len: u32,
    /// [`flags`].
    pub flags: u32,
    /// Of an exception: [`crate::counters::Exception`].
    pub reason: u32,
    /// Checksum still to be filled in: where summing starts and where the result goes, from the
    /// frame's first byte ([`flags::NEEDS_CSUM`]).
    pub csum_start: u16,
    pub csum_offset: u16,
    /// Payload bytes per segment of a super-frame; 0: not one.
    pub gso_size: u16,
    pub _reserved: u16,
    pub _reserved2: [u32; 10],
}
assert_layout!(FrameRecord, 64, len @ 4, flags @ 8, reason @ 12, gso_size @ 20);

/// Values of [`FrameRecord::kind`].
pub mod kind {
    pub const SKIP: u32 = 0;
    /// Card to toed.
    pub const EXCEPTION: u32 = 1;
    /// Toed to card: put it on the wire.
    pub const TRANSMIT: u32 = 2;
    /// Toed to card: process it as if it came from the wire now.
    pub const INJECT: u32 = 3;
}

/// Bits of [`FrameRecord::flags`].
pub mod flags {
    /// Checksums were verified (or the frame never was on a wire).
    pub const CSUM_OK: u32 = 1 << 0;
    /// The TCP checksum field holds the pseudo-header's sum only.
    pub const NEEDS_CSUM: u32 = 1 << 1;
}
