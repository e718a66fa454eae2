//! toed: the daemon that opens and closes connections for a card, and cleans up after applications.
//!
//! ```text
//!   libraries ── toed.sock ──►┌ shell ────────────────────────────────┐◄── admin.sock ── toectl
//!   token ends (HUP) ────────►│ epoll, sockets, memfds, clock          │
//!   card's interrupt ────────►│      │ calls            ▲ trait Host   │
//!                             │ ┌ core ▼────────────────┴───────────┐  │
//!                             │ │ applications, limits, listeners,  │  │──► card: control messages, packets
//!                             │ │ flows, payload memory             │  │──► regions: slots, accept rings, notices
//!                             │ │        ▼  actions ▲               │  │
//!                             │ │   toe_engine (TCP set-up, ARP)    │  │
//!                             └─┴───────────────────────────────────┴──┘
//! ```
//!
//! [`core`] has no I/O and no clock: the whole-system simulation drives it in virtual time with memory of its own.
//! May depend on `toe-abi`, `toe-engine`, `toe-link`.
#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
pub mod core;
pub mod rate;
pub mod shell;
