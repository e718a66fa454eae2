//! Identifiers: small integers, the long-lived ones with a generation.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A flow: index into the card's flow array, and the generation of that entry.
///
/// The generation changes each time an entry is freed, so that a stale id is refused instead of
/// hitting the connection that came after. Index [`FlowId::NONE`]`.index` names no flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowId {
    pub index: u32,
    pub generation: u32,
}

impl FlowId {
    pub const NONE: FlowId = FlowId { index: u32::MAX, generation: 0 };
}

impl Default for FlowId {
    fn default() -> Self {
        Self::NONE
    }
}

/// A context: one pair of queues. Unique on a card. Context 0 is the control region's (toed).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CtxId(pub u16);

impl CtxId {
    /// No context: events of such a flow wait in the flow until it is bound to one.
    pub const NONE: CtxId = CtxId(u16::MAX);
    /// The control region.
    pub const CONTROL: CtxId = CtxId(0);
}

/// A region of host memory that the card may reach: one protection domain. Region 0 is toed's.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RegionId(pub u16);

impl RegionId {
    pub const CONTROL: RegionId = RegionId(0);
    pub const NONE: RegionId = RegionId(u16::MAX);
}

/// A byte in host memory, as the card names it: a region and an offset (bytes) into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostAddr {
    pub region: RegionId,
    pub offset: u64,
}

impl HostAddr {
    pub const fn new(region: RegionId, offset: u64) -> Self {
        Self { region, offset }
    }

    /// The address `bytes` further on. Saturates: an address past the end of a region is refused
    /// by whoever resolves it.
    pub const fn add(self, bytes: u64) -> Self {
        Self { region: self.region, offset: self.offset.saturating_add(bytes) }
    }
}

/// A run of bytes in host memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostSpan {
    pub addr: HostAddr,
    /// Bytes.
    pub len: u32,
}
