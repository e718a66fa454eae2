//! TCP itself, pure: `(flow state, event, now) -> what to do`. No I/O, no clock, no atomics, no allocation.
//!
//! ```text
//!               segment ──►┌──────────────┐──► placement (payload to the receive buffer)
//!   host update, abort ───►│ input(state) │──► reply (ACK, challenge ACK, RST), notify, closed, drop reason
//!                 timer ──►└──────────────┘
//!                          ┌──────────────┐
//!          may send? ─────►│ emit(state)  │──► next segment: data, retransmission, FIN, probe, owed ACK
//!                          └──────────────┘
//! ```
//!
//! The state is [`toe_abi::flow::FlowState`]; [`establish`] makes it from what the handshake agreed on. After each
//! [`input`] whose output says `send`, the caller calls [`emit`] until it gives nothing (and then resets the flow if
//! [`is_reset_due`]), and calls `input` with [`Input::Timer`] when [`next_deadline`] has come. [`fast`] is the part of `input` that
//! nearly all segments take, for callers that do it first.
//!
//! What a flow needs more of while segments are missing comes from the [`Pools`] of its group. A state from elsewhere is [`admit`]ted
//! first, and a flow that no more is heard of is [`forget`]ten, so that nothing stays behind in the pools.
//!
//! May depend on: `toe-abi`, `toe-wire`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod ack;
mod api;
mod board;
pub mod cc;
mod closing;
mod establish;
mod fast;
mod frto;
mod host;
mod input;
mod ooo;
mod output;
mod patience;
mod pool;
mod prr;
mod rack;
mod receive;
mod records;
mod recovery;
mod rtt;
mod sack;
mod send;
mod state;
#[cfg(test)]
mod testing;
mod timers;
mod tlp;
mod undo;
mod urgent;

pub use api::{CloseReason, Counts, HostUpdate, IcmpError, Input, Now, Output, Placement, SegmentIn, SegmentOut, errno};
pub use closing::is_owed_answer;
pub use establish::{Setup, Timestamping, establish, rebase};
pub use fast::{Fast, fast, is_fast};
pub use input::{admit, forget, input};
pub use output::ts_now;
pub use pool::Pools;
pub use send::{emit, emit_owed, is_reset_due};
pub use state::{event_flags, rx_head, tx_tail};
pub use timers::{Armed, armed, next_deadline};
