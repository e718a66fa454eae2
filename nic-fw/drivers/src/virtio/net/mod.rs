//! The network device (VIRTIO 1.1, 5.1) as a port of the card.
//!
//! ```text
//!              ┌ pair 0: receive queue, transmit queue ┐
//!   device ────┤ pair 1: ...                           ├──► NetRx: RxPort, one core's     (round robin over the pairs)
//!              │ ...                                   ├──◄ NetTx: TxPort, one core's     (a flow stays in its pair)
//!              └ control queue, configuration ─────────┴─── NetControl: link, state
//! ```
//!
//! *Super-frames* pass both ways (TSO, checksum offload) where the device offers it.
//!
//! *Receiving.* A frame must lie in one piece, so each buffer takes a whole super-frame by default. A device with mergeable buffers may
//! still spread one frame over several, and does so if [`Settings::rx_buffer_len`] is made small to save memory: these frames are copied
//! together into one of a few spare buffers, and counted ([`RxCounts::merged`]); with all spare buffers on loan the frame is lost, and
//! counted.
//!
//! *Sending.* Host memory need stay only until `flush` has returned, but the device reads when it likes. So payload is copied once, into
//! the queue's own buffers. Room comes back when the device has used them; nobody waits for that with interrupts.
//!
//! *A device that breaks the rules* of a queue raises the alarm of [`NetControl`], which resets it and starts it anew
//! ([`restart`](NetControl::restart)) when all parts are in one hand.
//!
//! *Sleep.* The core of [`NetRx`] may wait for an interrupt after `any()` has said that there is nothing: it has armed the interrupts of
//! all pairs before it looked. So: 1. switch interrupts off at the core (not at the controller); 2. `any()`; 3. if it said no, WFI, which
//! a pending interrupt ends also when it is masked; 4. switch interrupts on: the handler acknowledges. The next
//! [`receive`](toe_hal::RxPort::receive) that finds frames disarms again. What comes between 2 and 3 has raised an interrupt, so nothing
//! is slept over. See also [`NetRx::arm`].

mod control;
mod frames;
mod header;
mod restart;
mod rx;
mod settings;
mod spread;
mod start;
mod tx;

#[cfg(test)]
mod tests;

pub use control::{Link, NetControl};
pub use frames::NetFrames;
pub use rx::{NetRx, RxCounts};
pub use settings::Settings;
pub use start::{Net, NetError, start};
pub use tx::{Bytes, NetTx, ReadSlice};

// A board puts the parts together on one core and uses them on others; frames are read on any.
const _: () = {
    const fn moves<T: Send>() {}
    const fn is_shared<T: Send + Sync>() {}
    moves::<Net<crate::Mmio, Bytes>>();
    is_shared::<NetFrames>();
};

/// PCI device ids: modern, and transitional (which has the modern structures as well, unless told not to).
pub const DEVICES: [u16; 2] = [0x1041, 0x1000];
pub const VENDOR: u16 = 0x1af4;

/// Ethernet header and one VLAN tag.
const LINK_HEADER: usize = 18;
/// Largest frame: an IP packet of 64 KiB with its link header.
const FRAME_MAX: usize = 65_535 + LINK_HEADER;
/// Bytes at the front of a receive buffer that make IP headers begin on a multiple of 16, behind 12 bytes of virtio header and 14 of
/// Ethernet.
const RX_SKIP: usize = 6;
