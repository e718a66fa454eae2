//! The control plane as a pure machine: it opens and closes TCP connections, and the card's data path carries them in between.
//!
//! ```text
//!   daemon's calls ──►┌───────────────────────────────────────────────┐
//!   bind listen       │ ports   opening/{passive,active}   closing    │──► actions:
//!   connect installed │   │            │    │                 │        │    Transmit, Install,
//!   flow_closed       │   └── conns ───┘    └── isn           │        │    Inject, Accept,
//!   exception frame ─►│ segment ──► (by state) ──► reset ◄────┘        │    Connected, NextHop,
//!   timer(now) ──────►│ arp ── route        icmp        timers         │    AbortFlow, ...
//!                     └───────────────────────────────────────────────┘
//! ```
//!
//! No I/O, no clock, no threads: time (microseconds on the card's clock) and frames are passed in; actions are polled after each call. Everything
//! that the wire can make grow is bounded, and the oldest or the newcomer goes, counted. May depend on `toe-abi`, `toe-wire`, `toe-tcp`.
#![forbid(unsafe_code)]

mod actions;
mod config;
mod engine;
mod counters;
mod errno;
mod limit;
pub mod route;

pub use actions::{Action, BindId, BufferLog2, ConnId, Endpoint, FrameMeta, InstallError, ListenerId, Owner};
pub use config::{Config, ConfigError};
pub use engine::Engine;
pub use counters::Counters;
pub use errno::Errno;
