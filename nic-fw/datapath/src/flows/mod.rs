//! The flows: who finds them, and what is known of them where.
//!
//! ```text
//!   directory   one, of the ctxq stage: ids, generations, tuples ──writes──► view    any stage: tuple ► id, id ► what is fixed
//!   states      one for each flow group, of its protocol stage: all that changes
//!
//!   flow index i belongs to group i mod groups
//! ```
//!
//! ```text
//!   Free ──install──► Live ◄──(install elsewhere)── Frozen
//!     ▲                │ └────────freeze──────────────▲
//!     │ notice         │ TCP ended
//!     │ consumed,      ▼
//!     └ or RELEASE ── Ended      not found by its tuple any more; keeps its id until toed knows
//! ```

mod directory;
mod states;

pub use directory::{Directory, FlowView, InstallError};
pub use states::{Phase, States};

use toe_abi::{
    FlowId, RegionId,
    flow::{FlowKey, FlowState},
};
use toe_wire::ethernet::vlan_id;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// How a received segment finds its flow: by its tuple, on the flow's VLAN.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
pub struct Place {
    pub key: FlowKey,
    /// 0: none.
    vlan: u32,
}

impl Place {
    /// `vlan`: its number alone, without the rest of a tag.
    #[inline]
    pub fn new(key: FlowKey, vlan: u16) -> Self {
        Self { key, vlan: vlan.into() }
    }
}

/// What INSTALL fixes of a flow (`tos` and `ttl` its application changes) and other stages than protocol need.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
pub struct Fixed {
    pub place: Place,
    pub region: RegionId,
    pub next_hop: u16,
    /// The whole tag of what is sent; 0: none.
    pub vlan: u16,
    pub ttl: u8,
    pub tos: u8,
    /// Offset of the transmit buffer in the region, in units of 64 bytes.
    pub tx_buf: u32,
    pub tx_buf_log2: u8,
    pub _reserved: [u8; 3],
}

impl Fixed {
    fn of(state: &FlowState) -> Self {
        let id = &state.id;
        Self {
            place: Place::new(id.key, vlan_id(id.vlan)),
            region: id.region,
            next_hop: id.next_hop,
            vlan: id.vlan,
            ttl: id.ttl,
            tos: id.tos,
            tx_buf: state.tx.buf,
            tx_buf_log2: state.tx.buf_log2,
            _reserved: [0; 3],
        }
    }
}

/// How flows are spread over groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Groups(u16);

impl Groups {
    pub fn new(groups: u16) -> Self {
        Self(groups.max(1))
    }

    pub fn count(self) -> u16 {
        self.0
    }

    pub fn all(self) -> impl Iterator<Item = u16> {
        0..self.0
    }

    /// The group of a flow, whether there is one of this id or not.
    pub fn of(self, flow: FlowId) -> u16 {
        (flow.index % u32::from(self.0)) as u16
    }

    /// Flows of one group, if there are `max_flows` in all: their indices stay below that.
    pub fn share(self, max_flows: u32) -> u32 {
        (max_flows / u32::from(self.0)).max(1)
    }

    /// Place of a flow in its group.
    pub fn local(self, index: u32) -> u32 {
        index / u32::from(self.0)
    }

    /// Index of the flow at a place of a group.
    pub fn index(self, group: u16, local: u32) -> u32 {
        local * u32::from(self.0) + u32::from(group)
    }
}
