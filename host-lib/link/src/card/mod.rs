//! How toed reaches a card.
//!
//! ```text
//!   toed ── Card ───────────► registers, map / unmap, interrupts      (vfio-user messages)
//!        ── ControlRegion ──► submissions, packets                    (shared memory, region 0)
//!                         ◄── completions, exceptions
//! ```
//!
//! A [`Card`] is what the link can do besides shared memory: [`VfioUser`] for the soft card. [`ControlRegion`] is the same for
//! all cards, over any memory: a card in the same process needs nothing else.

mod control;
mod memory;
mod vfio;

pub use control::{ControlError, ControlRegion};
pub use memory::{MemoryOptions, SharedMemory};
pub use toe_sync::frame_ring::PushError;
pub use vfio::VfioUser;

use rustix::fd::BorrowedFd;
use toe_abi::{CtxId, regs};

/// I/O virtual address of region `region`: 1 TiB apart, none at 0.
pub const fn iova(region: u16) -> u64 {
    (region as u64 + 1) << 40
}

/// What a card says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CardInfo {
    /// `toe_abi::ABI_VERSION` of the card.
    pub abi_version: u32,
    /// [`regs::caps`].
    pub caps: u32,
    pub max_flows: u32,
    /// Contexts, the control region's included.
    pub max_contexts: u32,
    /// Regions, the control region included.
    pub max_regions: u32,
    pub max_next_hops: u32,
    /// Bytes of IP packet on the port.
    pub mtu: u32,
    pub mac: [u8; 6],
}

/// Why the card could not be reached or used.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    #[error("no card answers on {path}: {error}; is toe-nic running with --socket {path}?")]
    Connect { path: String, error: String },
    #[error("{path} is not a FerroTOE card: register MAGIC reads {magic:#010x}")]
    NotACard { path: String, magic: u32 },
    #[error("the card speaks ABI version {major}.{minor}, this toed {ours}; use card and daemon of one release", ours = toe_abi::ABI_VERSION >> 16)]
    Version { major: u32, minor: u32 },
    /// The connection broke, or no answer came in time. Nothing can be asked any more.
    #[error("the card is gone ({step}: {error})")]
    Gone { step: &'static str, error: String },
    #[error("{step}: {error}")]
    Os { step: &'static str, error: std::io::Error },
}

/// One card, as its control plane uses it. Every call is bounded in time.
pub trait Card {
    fn info(&self) -> &CardInfo;

    /// [`regs::status`].
    fn status(&mut self) -> Result<u32, CardError>;

    /// Maps `len` bytes of the sealed memfd `memory` for the card at I/O virtual address `iova`. Whether the card takes it shows in
    /// the answer to MAP_REGION.
    fn map(&mut self, iova: u64, len: u64, memory: BorrowedFd<'_>) -> Result<(), CardError>;

    /// Takes a mapping away, after UNMAP_REGION was answered.
    fn unmap(&mut self, iova: u64, len: u64) -> Result<(), CardError>;

    /// Has the card write `interrupt` when it wants whoever sleeps on `ctx`, and wait (edge-triggered) on `kick`.
    fn set_signals(&mut self, ctx: CtxId, interrupt: BorrowedFd<'_>, kick: BorrowedFd<'_>) -> Result<(), CardError>;

    /// Takes the two away.
    fn clear_signals(&mut self, ctx: CtxId) -> Result<(), CardError>;

    /// Tells where the control region is, and writes [`regs::ENABLE`].
    fn enable(&mut self, control_iova: u64, what: u32) -> Result<(), CardError>;

    /// Becomes readable, or reports a hang-up, when the card is gone. `None`: it cannot go.
    fn watch(&self) -> Option<BorrowedFd<'_>>;
}

/// Reads the registers that make up a [`CardInfo`], and checks that it is a card of our version.
fn read_info(name: &str, mut register: impl FnMut(u64) -> Result<u32, CardError>) -> Result<CardInfo, CardError> {
    let magic = register(regs::MAGIC)?;
    if magic != regs::MAGIC_VALUE {
        return Err(CardError::NotACard { path: name.to_owned(), magic });
    }
    let abi_version = register(regs::VERSION)?;
    if !toe_abi::compatible(abi_version) {
        return Err(CardError::Version { major: abi_version >> 16, minor: abi_version & 0xffff });
    }
    let (lo, hi) = (register(regs::MAC_LO)?.to_le_bytes(), register(regs::MAC_HI)?.to_le_bytes());
    Ok(CardInfo {
        abi_version,
        caps: register(regs::CAPS)?,
        max_flows: register(regs::MAX_FLOWS)?,
        max_contexts: register(regs::MAX_CONTEXTS)?,
        max_regions: register(regs::MAX_REGIONS)?,
        max_next_hops: register(regs::MAX_NEXT_HOPS)?,
        mtu: register(regs::MTU)?,
        mac: [lo[0], lo[1], lo[2], lo[3], hi[0], hi[1]],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(at: u64) -> Result<u32, CardError> {
        Ok(match at {
            regs::MAGIC => regs::MAGIC_VALUE,
            regs::VERSION => toe_abi::ABI_VERSION,
            regs::MAC_LO => u32::from_le_bytes([2, 1, 2, 3]),
            regs::MAC_HI => u32::from_le_bytes([4, 5, 0, 0]),
            regs::MTU => 1500,
            _ => 64,
        })
    }

    #[test]
    fn registers_become_card_info() {
        let info = read_info("x", card).expect("a card");
        assert_eq!((info.mac, info.mtu, info.max_flows), ([2, 1, 2, 3, 4, 5], 1500, 64));
    }

    #[test]
    fn another_device_is_refused() {
        let e = read_info("x", |at| if at == regs::MAGIC { Ok(7) } else { card(at) });
        assert!(matches!(e, Err(CardError::NotACard { magic: 7, .. })));
    }

    #[test]
    fn another_major_version_is_refused() {
        let e = read_info("x", |at| if at == regs::VERSION { Ok(toe_abi::ABI_VERSION + (1 << 16)) } else { card(at) });
        assert!(matches!(e, Err(CardError::Version { .. })));
    }

    #[test]
    fn regions_do_not_overlap_in_io_virtual_address_space() {
        assert!(iova(0) > 0 && iova(1) - iova(0) >= 1 << 40);
        assert_ne!(iova(u16::MAX), 0);
    }
}
