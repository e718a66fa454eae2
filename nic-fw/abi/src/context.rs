//! A context page: what the two sides of a pair of context queues tell each other besides
//! descriptors. 4 KiB, one page of a region; each writer has a cache line of its own.
//!
//! **Sleep and wake.** Both sides use one protocol (the table is in `toe_sync::sleep`): who wants to sleep
//! sets its flag, fences (SeqCst) and looks at its queue again; who has published fences (SeqCst)
//! and reads the flag. Whoever sees the flag set kicks the other side, which clears it on waking.

use crate::assert_layout;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a context page.
pub const CONTEXT_PAGE_LEN: usize = 4096;

/// The page. Every word is accessed as an atomic through `toe_sync`, or by DMA.
#[repr(C, align(4096))]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ContextPage {
    pub host: HostLine,
    pub card: CardLine,
    pub daemon: DaemonLine,
    pub _reserved: [[u8; 64]; 61],
}

/// Written by the application.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HostLine {
    /// Descriptors published in the host-to-card queue, mod 2^32. A hint (doorbell); the phase
    /// words are what counts.
    pub hc_tail: u32,
    /// Events consumed from the card-to-host queue, mod 2^32.
    pub ev_head: u32,
    /// 1: the host sleeps and wants an interrupt for the next event or daemon notice.
    pub parked: u32,
    pub _reserved: [u32; 13],
}

/// Written by the card.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CardLine {
    /// Descriptors consumed from the host-to-card queue, mod 2^32.
    pub hc_head: u32,
    /// Events published in the card-to-host queue, mod 2^32. A hint.
    pub ev_tail: u32,
    /// 1: the card does not poll this context and wants a kick for the next descriptor.
    pub parked: u32,
    /// 0: working. 1: the card has given this context up; see [`crate::counters`].
    pub failed: u32,
    pub _reserved: [u32; 12],
}

/// Written by toed.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DaemonLine {
    /// Rises each time toed has changed a socket slot of this region that this context subscribed
    /// to: a connect finished, a connection waits to be accepted, the card failed.
    pub notices: u32,
    /// 0: working. 1: toed or the card has gone; every socket answers with an error.
    pub failed: u32,
    pub _reserved: [u32; 14],
}

assert_layout!(ContextPage, 4096, host @ 0, card @ 64, daemon @ 128);
assert_layout!(HostLine, 64, hc_tail @ 0, ev_head @ 4, parked @ 8);
assert_layout!(CardLine, 64, hc_head @ 0, ev_tail @ 4, parked @ 8, failed @ 12);
assert_layout!(DaemonLine, 64, notices @ 0, failed @ 4);
