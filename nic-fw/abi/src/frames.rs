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

/// Bytes that a frame of `len` takes in the ring, its record included; `None`: longer than a frame may be.
pub const fn record_len(len: u32) -> Option<u32> {
    if len > FRAME_MAX {
        return None;
    }
    Some(RECORD_LEN + len.div_ceil(UNIT) * UNIT)
}

/// What a producer does next. See [`place`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placing {
    /// Record at this offset of the data area, frame behind it; then advance `tail` by `advance`.
    Put { at: u32, advance: u32 },
    /// The frame would wrap: a record of kind SKIP with this `len` at `at`; advance `tail` by `len`, then ask again.
    Skip { at: u32, len: u32 },
    /// Not enough room now.
    Full,
    /// It never fits: longer than [`FRAME_MAX`] or than the ring.
    TooLong,
    /// `head` makes no sense: the consumer is broken or hostile.
    Insane,
}

/// Where a frame of `frame_len` bytes goes in a ring of `ring_len` bytes (a power of two, at least [`UNIT`]).
///
/// Both indices come in as they are: `tail` is the producer's own, `head` is what the consumer claims.
pub const fn place(ring_len: u32, tail: u32, head: u32, frame_len: u32) -> Placing {
    let used = tail.wrapping_sub(head);
    if used > ring_len || !used.is_multiple_of(UNIT) {
        return Placing::Insane;
    }
    let need = match record_len(frame_len) {
        Some(need) if need <= ring_len => need,
        _ => return Placing::TooLong,
    };
    let at = tail & (ring_len - 1);
    let to_end = ring_len - at;
    let free = ring_len - used;
    if need <= to_end {
        if need <= free { Placing::Put { at, advance: need } } else { Placing::Full }
    } else if to_end <= free {
        // Alone, before it is known whether the frame fits behind it: else a long frame could wait for ever
        // in an empty ring whose indices stand in the middle.
        Placing::Skip { at, len: to_end }
    } else {
        Placing::Full
    }
}

/// What a consumer has in front of it. See [`FrameRecord::check`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A frame of `len` bytes lies at this offset of the data area; then advance `head` by `advance`.
    Frame { at: u32, len: u32, advance: u32 },
    /// Nothing but filling: advance `head` by this much and look again.
    Skip { advance: u32 },
    /// The record makes no sense: take `tail`, rounded down to a unit, as the new `head` and go on.
    Corrupt,
}

/// Bytes ready to be consumed if `tail`, as the producer claims it, makes sense; else `None`.
pub const fn ready(ring_len: u32, head: u32, tail: u32) -> Option<u32> {
    let ready = tail.wrapping_sub(head);
    if ready > ring_len || !ready.is_multiple_of(UNIT) { None } else { Some(ready) }
}

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
/// Bytes of a [`FrameRecord`].
pub const RECORD_LEN: u32 = size_of::<FrameRecord>() as u32;

impl FrameRecord {
    /// Validates a private copy of the record at `head`, with `ready` bytes (above 0) behind it.
    ///
    /// What it answers stays inside the data area and inside `ready`, and always advances, whatever the record says.
    pub const fn check(&self, ring_len: u32, head: u32, ready: u32) -> Found {
        let at = head & (ring_len - 1);
        let to_end = ring_len - at;
        if self.kind == kind::SKIP {
            let fits = self.len == to_end && self.len <= ready;
            return if fits { Found::Skip { advance: self.len } } else { Found::Corrupt };
        }
        match record_len(self.len) {
            Some(advance) if advance <= ready && advance <= to_end => Found::Frame { at: at + RECORD_LEN, len: self.len, advance },
            _ => Found::Corrupt,
        }
    }
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
