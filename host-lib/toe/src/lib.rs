//! libtoe: sockets on the card without POSIX. Non-blocking, in batches, with views into the buffers instead of copies.
//!
//! ```text
//!   native programs (Rust, C)      toe-sockets (POSIX)        simulation
//!        │ Context, capi                │                        │
//!        ▼                              ▼                        ▼
//!   ┌─────────────────────────────────────────────────────────────────┐
//!   │ socket   what one slot can do now: receive, send, end, readiness│   pure: words in a region in,
//!   │ channel  one pair of queues: events in, updates out             │   words and a verdict out
//!   └─────────────────────────────────────────────────────────────────┘
//!        toe-link: region, slots, rings, locks; the Daemon trait
//! ```
//!
//! `socket` and `channel` make no system call, never wait and never read a clock: a real program runs them beside a card,
//! the deterministic simulation runs the same code in virtual time. Everything they read was written by the card, by toed or
//! by another process of the family: a claim, bounded where it is used.
//!
//! May depend on: `toe-abi`, `toe-link`. `unsafe` only in the C interface.
#![deny(unsafe_code)]

pub mod capi;
pub mod channel;
pub mod context;
pub mod options;
pub mod socket;
mod urgent;

pub use channel::{Change, Channel, Farewell};
pub use context::{Context, Error, Event, SocketId};
pub use options::{SocketOption, Tells};
pub use socket::Socket;
pub use toe_link as link;
