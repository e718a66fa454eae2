//! Descriptors of a context's two queues: 64 bytes, one cache line, one DMA.
//!
//! A queue is an array of a power of two of descriptors. There is no producer index to read: the
//! consumer looks at the *phase* word of the next descriptor. It is 1 in the first lap over the
//! array, 2 in the second, ... ([`phase`]; never 0), so memory that starts as zeroes holds no valid
//! descriptor. The producer writes the other words first and the phase last (release); the
//! consumer reads the phase first (acquire). How many descriptors are free the producer learns
//! from the consumer's index in the [context page](crate::context).
//!
//! Positions (`tx_head`, `rx_tail`, ...) count the bytes of one direction since the connection
//! began, modulo 2^32. They are absolute: an update may be lost behind a later one, repeated or
//! overtaken by a newer one without harm.
//!
//! ```text
//!   transmit buffer:   tx_tail ──────────────► tx_head          (freed by ACKs | filled by the application)
//!   receive buffer:    rx_tail ──────────────► rx_head          (consumed by the application | in-order bytes)
//!   byte at position p lies at offset p mod size of its buffer; sizes are powers of two
//! ```

use crate::{FlowId, assert_layout, flow::FlowOptions};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a descriptor.
pub const DESC_LEN: usize = 64;
/// Fewest descriptors in a queue: with one, a descriptor's phase could not tell full from empty.
pub const MIN_ENTRIES: u32 = 2;

/// Phase of the descriptor that is number `index` (mod 2^32) of a queue of `entries` (a power of two).
///
/// A function of the index alone, so whoever knows an index from a context page can attach to the queue. It is at
/// most 2^31, then starts at 1 again: neighbours in time always differ, and memory of zeroes never matches.
pub const fn phase(index: u32, entries: u32) -> u32 {
    (index >> entries.trailing_zeros()).wrapping_add(1)
}

/// Place of descriptor number `index` in the array of `entries` (a power of two).
pub const fn slot(index: u32, entries: u32) -> u32 {
    index & (entries - 1)
}

/// Host to card ("HC"): what an application did with a flow.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HostDesc {
    /// [`hc`].
    pub kind: u32,
    /// [`hc_flags`].
    pub flags: u32,
    pub flow: FlowId,
    /// End of the bytes the application has put into the transmit buffer.
    pub tx_head: u32,
    /// End of the bytes the application has taken out of the receive buffer.
    pub rx_tail: u32,
    /// With [`hc::REBIND`]: echoed in each event of the flow (the library's socket slot).
    pub opaque: u32,
    /// With [`hc_flags::URGENT`]: end of the urgent data in the transmit buffer (SND.UP, RFC 9293, 3.8.5). The last one holds.
    pub urgent: u32,
    /// With [`hc::OPTIONS`].
    pub options: FlowOptions,
    pub _reserved: [u32; 4],
    pub phase: u32,
}
assert_layout!(HostDesc, 64, flags @ 4, flow @ 8, tx_head @ 16, rx_tail @ 20, opaque @ 24, urgent @ 28, options @ 32, phase @ 60);

/// Kinds of [`HostDesc`]. Any other value is counted and ignored.
pub mod hc {
    /// Buffer positions and options moved.
    pub const UPDATE: u32 = 1;
    /// From now on, post the flow's events to the context whose queue holds this descriptor, with
    /// `opaque`. Also acts as [`UPDATE`]. The card answers with an event that carries everything.
    /// The flow must belong to the context's region.
    pub const REBIND: u32 = 2;
    /// Reset the connection now; unsent data is discarded (SO_LINGER 0).
    pub const ABORT: u32 = 3;
    /// The flow's [`FlowOptions`](crate::flow::FlowOptions) from now on. A time that is out of range is cut; where the application has
    /// too many different sets of timers, the flow keeps those that it has.
    pub const OPTIONS: u32 = 4;
    /// The last descriptor of the socket has gone: acts as [`UPDATE`], then resets the connection if received bytes are left unread (RFC 2525,
    /// 2.17), else sends FIN, and answers data that still comes with a reset.
    pub const CLOSE: u32 = 5;
}

/// Flags of [`HostDesc`]: the socket's present options, each time.
pub mod hc_flags {
    /// No data follows `tx_head`: send FIN after it. Cannot be taken back.
    pub const FIN: u32 = 1 << 0;
    /// TCP_NODELAY: don't hold back small segments (RFC 896).
    pub const NODELAY: u32 = 1 << 1;
    /// TCP_CORK: hold back partial segments (at most 200 ms, as Linux).
    pub const CORK: u32 = 1 << 2;
    /// SO_KEEPALIVE.
    pub const KEEPALIVE: u32 = 1 << 3;
    /// SHUT_RD or close: received data is of no interest any more; the card acknowledges and
    /// discards what still arrives.
    pub const RX_CLOSED: u32 = 1 << 4;
    /// There is urgent data up to `urgent`. Means nothing once that is acknowledged.
    pub const URGENT: u32 = 1 << 7;
}

/// Card to host: the present state of one flow, as far as an application may know.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EventDesc {
    /// [`ev`].
    pub kind: u32,
    /// [`ev_flags`].
    pub flags: u32,
    pub flow: FlowId,
    /// End of the in-order bytes in the receive buffer. A FIN doesn't count as a byte.
    pub rx_head: u32,
    /// End of the bytes that the peer has acknowledged: the application may overwrite up to here.
    pub tx_tail: u32,
    /// As given by INSTALL or [`hc::REBIND`].
    pub opaque: u32,
    /// With [`ev_flags::ERROR`]: a Linux errno (ECONNRESET, ETIMEDOUT, ...).
    pub error: u32,
    /// Smoothed round-trip time, microseconds (TCP_INFO).
    pub srtt_us: u32,
    /// Congestion window, bytes (TCP_INFO).
    pub cwnd: u32,
    /// With [`ev_flags::URGENT`]: end of the peer's urgent data (RCV.UP, RFC 9293, 3.8.5). It may lie ahead of `rx_head`.
    pub urgent: u32,
    pub _reserved: [u32; 4],
    pub phase: u32,
}
assert_layout!(EventDesc, 64, flags @ 4, flow @ 8, rx_head @ 16, tx_tail @ 20, opaque @ 24, error @ 28, urgent @ 40, phase @ 60);

/// Kinds of [`EventDesc`].
pub mod ev {
    /// Something about the flow changed; the words say what it is now.
    pub const FLOW: u32 = 1;
}

/// Flags of [`EventDesc`].
pub mod ev_flags {
    /// The peer's FIN is in order, right behind `rx_head`.
    pub const RX_FIN: u32 = 1 << 0;
    /// Our FIN has been acknowledged.
    pub const TX_FIN_ACKED: u32 = 1 << 1;
    /// The connection has failed; see `error`. Nothing more will be sent or received.
    pub const ERROR: u32 = 1 << 2;
    /// The card has let go of the flow; its id means nothing any more. The last event of a flow.
    pub const CLOSED: u32 = 1 << 3;
    /// The peer has announced urgent data up to `urgent`: news if that is further than before.
    pub const URGENT: u32 = 1 << 4;
}
