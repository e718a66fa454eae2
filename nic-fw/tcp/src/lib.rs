//! TCP itself, pure: `(flow state, event, now) -> what to do`. No I/O, no clock, no atomics, no allocation.
//!
//! ```text
//!               segment ──►┌──────────────┐──► placement (payload to the receive buffer)
//!   host update, abort ───►│ input(state) │──► reply (ACK, challenge ACK, RST), notify, closed, drop reason
//!                 timer ──►└──────────────┘
//!                          ┌──────────────┐
//!          may send? ─────►│ emit(state)  │──► next segment: data, retransmission, FIN, probe
//!                          └──────────────┘
//! ```
//!
//! The state is [`toe_abi::flow::FlowState`]. May depend on: `toe-abi`, `toe-wire`.
#![no_std]
#![forbid(unsafe_code)]
