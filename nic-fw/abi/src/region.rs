//! An application's memory region: one memfd per family of processes, made and sealed by toed.
//!
//! ```text
//!   0            RegionHeader                              written by toed before anyone sees it
//!   contexts     ContextPage  × n_contexts
//!   queues       (HostDesc × hc_entries, EventDesc × ev_entries) × n_contexts
//!   sockets      SocketSlot   × n_sockets                  all socket state of the library
//!   accepts      AcceptRecord × accept_entries × n_listeners
//!   payload      transmit and receive buffers, handed out by toed, 4 KiB aligned
//! ```
//!
//! The header tells libraries where things are. toed and the card keep their own copy of the
//! geometry and never read it back: an application can scribble over all of this.

use crate::{FlowId, assert_layout};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// "FTOEREGN", little-endian.
pub const REGION_MAGIC: u64 = u64::from_le_bytes(*b"FTOEREGN");

/// First page of a region.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RegionHeader {
    pub magic: u64,
    pub abi_version: u32,
    /// As the card knows it.
    pub region: u32,
    /// Bytes of the whole region.
    pub len: u64,
    pub contexts_off: u64,
    pub queues_off: u64,
    pub sockets_off: u64,
    pub accepts_off: u64,
    pub payload_off: u64,
    pub payload_len: u64,
    pub n_contexts: u32,
    /// Descriptors in each host-to-card queue, a power of two.
    pub hc_entries: u32,
    /// Descriptors in each card-to-host queue, a power of two.
    pub ev_entries: u32,
    pub n_sockets: u32,
    pub n_listeners: u32,
    /// Records in each accept ring, a power of two.
    pub accept_entries: u32,
}
assert_layout!(RegionHeader, 96, len @ 16, contexts_off @ 24, payload_len @ 64, n_contexts @ 72, accept_entries @ 92);

/// What a region is made from; [`RegionHeader::new`] lays it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionConfig {
    pub region: u16,
    pub n_contexts: u32,
    pub hc_entries: u32,
    pub ev_entries: u32,
    pub n_sockets: u32,
    pub n_listeners: u32,
    pub accept_entries: u32,
    /// Bytes for payload buffers; rounded up to pages.
    pub payload_len: u64,
}

const PAGE: u64 = 4096;

const fn page_up(x: u64) -> u64 {
    x.div_ceil(PAGE) * PAGE
}

impl RegionHeader {
    /// Lays a region out. Counts are at most 2^20 each and queue sizes powers of two, else `None`.
    pub fn new(c: &RegionConfig) -> Option<Self> {
        let counts = [c.n_contexts, c.hc_entries, c.ev_entries, c.n_sockets, c.n_listeners, c.accept_entries];
        let powers = [c.hc_entries, c.ev_entries, c.accept_entries];
        if counts.iter().any(|&n| n == 0 || n > 1 << 20) || powers.iter().any(|n| !n.is_power_of_two()) {
            return None;
        }
        let payload_len = c.payload_len.checked_next_multiple_of(PAGE)?;
        let contexts_off = PAGE;
        let queues_off = contexts_off + u64::from(c.n_contexts) * PAGE;
        let queues_len = u64::from(c.n_contexts) * u64::from(c.hc_entries + c.ev_entries) * 64;
        let sockets_off = page_up(queues_off + queues_len);
        let accepts_off = page_up(sockets_off + u64::from(c.n_sockets) * SOCKET_SLOT_LEN as u64);
        let accepts_len = u64::from(c.n_listeners) * u64::from(c.accept_entries) * ACCEPT_RECORD_LEN as u64;
        let payload_off = page_up(accepts_off + accepts_len);
        Some(Self {
            magic: REGION_MAGIC,
            abi_version: crate::ABI_VERSION,
            region: c.region.into(),
            len: payload_off.checked_add(payload_len)?,
            contexts_off,
            queues_off,
            sockets_off,
            accepts_off,
            payload_off,
            payload_len,
            n_contexts: c.n_contexts,
            hc_entries: c.hc_entries,
            ev_entries: c.ev_entries,
            n_sockets: c.n_sockets,
            n_listeners: c.n_listeners,
            accept_entries: c.accept_entries,
        })
    }

    /// Offset of context `i`'s page.
    pub fn context_page(&self, i: u32) -> u64 {
        self.contexts_off + u64::from(i) * PAGE
    }

    /// Offset of context `i`'s host-to-card queue.
    pub fn hc_queue(&self, i: u32) -> u64 {
        self.queues_off + u64::from(i) * u64::from(self.hc_entries + self.ev_entries) * 64
    }

    /// Offset of context `i`'s card-to-host queue.
    pub fn ev_queue(&self, i: u32) -> u64 {
        self.hc_queue(i) + u64::from(self.hc_entries) * 64
    }

    /// Offset of socket slot `i`.
    pub fn socket(&self, i: u32) -> u64 {
        self.sockets_off + u64::from(i) * SOCKET_SLOT_LEN as u64
    }

    /// Offset of the accept ring of listener `i`.
    pub fn accept_ring(&self, i: u32) -> u64 {
        self.accepts_off + u64::from(i) * u64::from(self.accept_entries) * ACCEPT_RECORD_LEN as u64
    }
}

/// Bytes of a [`SocketSlot`].
pub const SOCKET_SLOT_LEN: usize = 448;

/// State of one socket that fork and exec must not lose. Accessed as atomics through `toe_link`.
///
/// A slot belongs to one *token*: a socketpair of which toed keeps one end and the library hands
/// the other to the application as the socket's descriptor. When the kernel has closed the last copy
/// of that descriptor in every process, toed sees it and closes what the slot names.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketSlot {
    /// Written by toed (CONNECT, LISTEN) or, for an accepted connection, by the library.
    pub conn: SlotConn,
    /// Names of the two ends.
    pub names: SlotNames,
    /// Sending side of the library.
    pub tx: SlotTx,
    /// Receiving side of the library.
    pub rx: SlotRx,
    /// What the events said last.
    pub event: SlotEvent,
    /// Accept ring of a listener.
    pub listen: SlotListen,
    /// Socket options.
    pub options: SlotOptions,
}

/// Which connection the slot holds.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SlotConn {
    /// [`slot_state`]. The last word to be written: release.
    pub state: u32,
    /// With [`slot_state::FAILED`]: Linux errno. With [`slot_state::OPEN`]: the same of a connect() that was called off, or 0.
    pub error: u32,
    pub flow: FlowId,
    /// Offset of the transmit buffer in the region, bytes.
    pub tx_off: u64,
    /// Offset of the receive buffer in the region, bytes.
    pub rx_off: u64,
    /// Bytes of the transmit buffer, a power of two.
    pub tx_len: u32,
    /// Bytes of the receive buffer, a power of two.
    pub rx_len: u32,
    /// Written by the library: the context (index within the region) whose queue gets the events.
    pub ctx: u32,
    pub _reserved: [u32; 5],
}

/// Local and remote address; IPv4 as ::ffff:a.b.c.d in network order. Ports in host order.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SlotNames {
    pub local_ip: [u8; 16],
    pub remote_ip: [u8; 16],
    pub local_port: u16,
    pub remote_port: u16,
    pub _reserved: [u32; 7],
}

#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SlotTx {
    /// End of the bytes put into the transmit buffer.
    pub head: u32,
    /// Holder of the sending side: 0 or a thread id. See `toe_link::lock`.
    pub lock: u32,
    /// [`crate::desc::hc_flags`] as last set.
    pub flags: u32,
    /// O_NONBLOCK of the open file description: shared by dup and fork.
    pub nonblocking: u32,
    /// SO_SNDTIMEO, microseconds; 0: none.
    pub timeout_us: u32,
    /// [`slot_flags`].
    pub slot_flags: u32,
    /// SO_LINGER: seconds + 1; 0: off.
    pub linger: u32,
    /// End of the urgent data put into the transmit buffer; at or before what is acknowledged: there is none.
    pub urgent: u32,
    /// SO_MAX_PACING_RATE: its complement, so that 0 is unlimited.
    pub pacing: u64,
    /// What connections of this socket begin with, or those that come to it: read by toed at CONNECT and LISTEN. 0: as toed has it.
    /// IP_TOS and IP_TTL.
    pub tos: u32,
    pub ttl: u32,
    /// TCP_MAXSEG, bytes.
    pub max_segment: u32,
    /// TCP_SYNCNT.
    pub syn_retries: u32,
    /// TCP_DEFER_ACCEPT, seconds.
    pub defer_accept_s: u32,
    pub _reserved: u32,
}

#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SlotRx {
    /// End of the bytes taken out of the receive buffer.
    pub tail: u32,
    pub lock: u32,
    /// `tail` as last told to the card.
    pub told: u32,
    /// SO_RCVTIMEO, microseconds; 0: none.
    pub timeout_us: u32,
    /// SO_RCVLOWAT, bytes.
    pub low_water: u32,
    pub _reserved: u32,
    /// The mark in the stream: end of the peer's urgent data, and in the upper half what became of it ([`urgent_state`]).
    pub urgent: u64,
    pub _reserved2: [u32; 8],
}

/// Copies of the words of the last [`crate::desc::EventDesc`].
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SlotEvent {
    pub rx_head: u32,
    pub tx_tail: u32,
    pub flags: u32,
    pub error: u32,
    pub srtt_us: u32,
    pub cwnd: u32,
    pub _reserved: [u32; 10],
}

#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SlotListen {
    /// Which accept ring of the region.
    pub ring: u32,
    /// Records taken, mod 2^32: consumers advance it by compare-and-swap.
    pub head: u32,
    /// Records put in, mod 2^32: written by toed (release).
    pub tail: u32,
    pub _reserved: [u32; 13],
}

/// Written by the library, for the card ([`crate::desc::hc::OPTIONS`]) but for the last three; IP_TOS and IP_TTL are in [`SlotTx`]. 0: as everybody.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SlotOptions {
    /// TCP_USER_TIMEOUT, milliseconds. Read by toed at CONNECT.
    pub user_timeout_ms: u32,
    /// TCP_KEEPIDLE, seconds.
    pub keep_idle_s: u32,
    /// TCP_KEEPINTVL, seconds.
    pub keep_interval_s: u32,
    /// TCP_KEEPCNT.
    pub keep_count: u32,
    /// [`crate::flow::quick_ack`], until it is told.
    pub quick_ack: u32,
    /// TCP_LINGER2: seconds; all ones: none. Read by toed when the last descriptor has gone.
    pub linger2_s: u32,
    /// TCP_NOTSENT_LOWAT, bytes. The library's own.
    pub not_sent_low_water: u32,
    /// TCP_WINDOW_CLAMP, bytes: see [`offered`]. Read by toed at CONNECT and LISTEN.
    pub window_clamp: u32,
    pub _reserved: [u32; 8],
}

/// The least window that TCP_WINDOW_CLAMP makes, bytes: three segments of Ethernet. When less than one is left, what was read is worth an update
/// (two segments); else a sender that may not fill one would wait for its timers.
const CLAMP_LEAST: u32 = 4380;

/// How much of a receive buffer of `len` bytes is offered to the peer under a clamp (0: none), bytes. The rest is held back: toed installs the
/// connection, and the library reports what was read, as if so much less had been read.
pub fn offered(len: u32, clamp: u32) -> u32 {
    // Windows are told in units of up to a 32768th of the buffer (RFC 7323, 2.3).
    if clamp == 0 { len } else { clamp.max(CLAMP_LEAST).max(len >> 13).min(len) }
}

assert_layout!(SocketSlot, SOCKET_SLOT_LEN, conn @ 0, names @ 64, tx @ 128, rx @ 192, event @ 256, listen @ 320, options @ 384);
assert_layout!(SlotOptions, 64, quick_ack @ 16, linger2_s @ 20);
assert_layout!(SlotTx, 64, linger @ 24, urgent @ 28, pacing @ 32, tos @ 40, defer_accept_s @ 56);
assert_layout!(SlotRx, 64, low_water @ 16, urgent @ 24);
assert_layout!(SlotConn, 64, flow @ 8, tx_off @ 16, rx_off @ 24, tx_len @ 32, ctx @ 40);

/// Values of [`SlotConn::state`].
pub mod slot_state {
    /// In a pool: no socket.
    pub const FREE: u32 = 0;
    /// socket() was called.
    pub const OPEN: u32 = 1;
    pub const LISTENING: u32 = 2;
    pub const CONNECTING: u32 = 3;
    pub const CONNECTED: u32 = 4;
    /// connect() failed; see `error`. Another connect() may follow.
    pub const FAILED: u32 = 5;
}

/// Upper half of [`SlotRx::urgent`].
pub mod urgent_state {
    /// There is no mark, or it has been read past.
    pub const NONE: u32 = 0;
    /// The last byte before the mark has not been read out of band.
    pub const UNREAD: u32 = 1;
    pub const READ: u32 = 2;
}

/// Values of [`SlotTx::slot_flags`].
pub mod slot_flags {
    /// The library has seen an orderly close (close, exit) by a holder: when the last descriptor goes, send
    /// what is queued and then FIN. Without it the holder died: RST.
    pub const CLEAN: u32 = 1 << 0;
}

/// Bytes of an [`AcceptRecord`].
pub const ACCEPT_RECORD_LEN: usize = 128;

/// A connection that waits to be accepted: what the library copies into a slot from its pool.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AcceptRecord {
    pub flow: FlowId,
    pub tx_off: u64,
    pub rx_off: u64,
    pub tx_len: u32,
    pub rx_len: u32,
    pub _reserved: [u32; 8],
    pub names: SlotNames,
}
assert_layout!(AcceptRecord, ACCEPT_RECORD_LEN, names @ 64);
