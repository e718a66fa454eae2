//! The card as a PCI device: BAR0 and the interrupt indices.
//!
//! Registers are 32-bit; the host reads and writes them by messages (vfio-user) or loads and stores.
//! Only the control plane does: no BAR is handed to applications.

/// PCI vendor id: 0x1d0f.. are taken; this one is unassigned and used for the software card only.
pub const PCI_VENDOR: u16 = 0xf707;
pub const PCI_DEVICE: u16 = 0x0001;
/// Bytes of BAR0.
pub const BAR0_LEN: u64 = 4096;

/// R: [`MAGIC_VALUE`].
pub const MAGIC: u64 = 0x00;
pub const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"FTOE");
/// R: [`crate::ABI_VERSION`] of the card.
pub const VERSION: u64 = 0x04;
/// R: [`caps`].
pub const CAPS: u64 = 0x08;
/// R: [`status`].
pub const STATUS: u64 = 0x0c;
/// R: flows the card can hold.
pub const MAX_FLOWS: u64 = 0x10;
/// R: contexts, the control region's included.
pub const MAX_CONTEXTS: u64 = 0x14;
/// R: regions, the control region included.
pub const MAX_REGIONS: u64 = 0x18;
/// R: MTU of the port (bytes of IP packet).
pub const MTU: u64 = 0x1c;
/// R: the port's MAC address: first four bytes, first in the lowest.
pub const MAC_LO: u64 = 0x20;
/// R: last two.
pub const MAC_HI: u64 = 0x24;
/// RW: I/O virtual address of the control region.
pub const CONTROL_LO: u64 = 0x28;
pub const CONTROL_HI: u64 = 0x2c;
/// W: [`enable`].
pub const ENABLE: u64 = 0x30;
/// R: next-hop table entries.
pub const MAX_NEXT_HOPS: u64 = 0x34;
/// R: [`link`], of the port, as it is now (since 1.3).
pub const LINK: u64 = 0x38;

/// Values of ENABLE.
pub mod enable {
    /// The control region is given up; flows go on. A new toed may enable again.
    pub const DETACH: u32 = 0;
    /// Use the control region from now on: queues and rings start empty, at phase 1.
    pub const ATTACH: u32 = 1;
    /// Forget all flows, contexts and regions.
    pub const RESET: u32 = 2;
}

/// Values of STATUS.
pub mod status {
    pub const DETACHED: u32 = 0;
    pub const ATTACHED: u32 = 1;
    /// A core has panicked, or the port has gone.
    pub const FAILED: u32 = 2;
}

/// Values of LINK.
pub mod link {
    /// The port does not tell, or the card is older than this register.
    pub const UNKNOWN: u32 = 0;
    pub const UP: u32 = 1;
    pub const DOWN: u32 = 2;
}

/// Bits of CAPS.
pub mod caps {
    /// The card runs retransmission timers itself.
    pub const TIMERS: u32 = 1 << 0;
    pub const TSO: u32 = 1 << 1;
    /// Reserved: a card of today has them, and need not say so.
    pub const SACK: u32 = 1 << 2;
    pub const RACK: u32 = 1 << 3;
    pub const IPV6: u32 = 1 << 4;
}

/// Interrupt indices of SET_IRQS: the first five are VFIO's own for PCI.
pub mod irq {
    /// MSI-X, card to host: vector = context.
    pub const MSIX: u32 = 2;
    /// Host to card: sub-index = context. The descriptor is an eventfd on which the card *waits*
    /// (edge-triggered, never read), so no doorbell BAR is needed.
    pub const KICK: u32 = 5;
    /// Number of indices.
    pub const COUNT: u32 = 6;
}
