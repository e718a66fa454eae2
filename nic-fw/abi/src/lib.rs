//! The contract: every byte that two sides of FerroTOE share.
//!
//! ```text
//!   application ──┐ app       ┌── toed ──┐ admin ┌── toectl
//!                 ▼           ▼          ▼       ▼
//!              [app]       [region]   [control, frames, regs, window]
//!                 └───────── card: [desc, context, flow, counters] ─┘
//! ```
//!
//! | module       | shared between              | what                                                      |
//! |--------------|-----------------------------|-----------------------------------------------------------|
//! | [`region`]   | application, toed, card     | layout of an application's memory region, socket slots     |
//! | [`context`]  | application, toed, card     | context page: queue indices, sleep flags                   |
//! | [`desc`]     | application, card           | 64-byte descriptors of the context queues                  |
//! | [`flow`]     | card, toed                  | one connection, as installed, exported and resident        |
//! | [`control`]  | toed, card                  | control region, control messages                           |
//! | [`frames`]   | toed, card                  | records of the exception ring and the packet ring          |
//! | [`regs`]     | toed, card                  | BAR0 registers, interrupt indices                          |
//! | [`window`]   | toed, card                  | memory as the link to a card inside QEMU                  |
//! | [`app`]      | application, toed           | messages on the daemon's UNIX socket                       |
//! | [`counters`] | card, toed                  | every counter and every reason for a drop                  |
//! | [`observe`]  | card, toed, toectl          | stages and their load, the way of single segments          |
//!
//! Everything is plain words in native byte order, ports among them, and IP addresses of 16 bytes in
//! network order: no pointers, no enums with invalid values, no padding. **What the other side
//! writes is a claim**: copy it out once, then validate the copy.
//!
//! May depend on: nothing of ours. The C header in `nfp-fw/` is generated from this crate.
#![no_std]
#![forbid(unsafe_code)]

pub mod app;
pub mod context;
pub mod control;
pub mod counters;
pub mod desc;
pub mod flow;
pub mod frames;
pub mod ids;
#[cfg(feature = "layout")]
pub mod layout;
pub mod observe;
pub mod region;
pub mod regs;
pub mod window;

pub use ids::{CtxId, FlowId, HostAddr, HostSpan, RegionId};

/// Version of everything in this crate: major in the upper, minor in the lower 16 bits.
///
/// Two sides with different majors refuse each other; a higher minor only adds.
pub const ABI_VERSION: u32 = 1 << 16 | 7;

/// Whether a peer that reports `version` can be talked to.
pub const fn compatible(version: u32) -> bool {
    version >> 16 == ABI_VERSION >> 16
}

/// Asserts a type's size and the offset of each named field at compile time.
#[macro_export]
macro_rules! assert_layout {
    ($t:ty, $size:expr $(, $field:ident @ $off:expr)* $(,)?) => {
        const _: () = {
            assert!(core::mem::size_of::<$t>() == $size);
            $(assert!(core::mem::offset_of!($t, $field) == $off);)*
        };
    };
}
