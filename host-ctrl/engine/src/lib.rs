//! The control plane as a pure machine: it opens and closes TCP connections, and the card's data path carries them in between.
//!
//! ```text
//!   daemon's calls ──►┌───────────────────────────────────────────────┐
//!   bind listen       │ ports   opening/{passive,active}   closing    │──► actions:
//!   connect installed │   │            │    │                 │        │    Transmit, Install,
//!   flow_closed       │   └── conns ───┘    └── isn           │        │    Inject, Accept,
//!   exception frame ─►│ segment ──► (by state) ──► reset ◄────┘        │    Connected, NextHop,
//!   timer(now) ──────►│ resolve ── arp, nd ── route    icmp    timers │    AbortFlow, ...
//!                     │ addresses ── autoconf                          │
//!                     └───────────────────────────────────────────────┘
//! ```
//!
//! No I/O, no clock, no threads: time (microseconds on the card's clock) and frames are passed in; actions are polled after each call. Everything
//! that the wire can make grow is bounded, and the oldest or the newcomer goes, counted. May depend on `toe-abi`, `toe-wire`, `toe-sync`, `toe-tcp`.
#![forbid(unsafe_code)]

mod actions;
pub mod addr;
mod addresses;
mod arp;
mod autoconf;
mod build;
mod closing;
mod config;
mod conn;
mod counters;
mod engine;
mod errno;
mod icmp;
mod isn;
mod limit;
mod mld;
mod nd;
mod neighbours;
mod opening;
mod path_mtu;
mod ports;
pub mod rates;
mod reassembly;
mod reset;
mod resolve;
pub mod route;
mod segment;
mod stand_in;
mod time_wait;
mod timers;
mod views;

pub use actions::{
    Action, BindId, BufferLog2, ConnId, Endpoint, FinWait2, FrameMeta, InstallError, ListenerId, OpenOptions, Owner, Sharing, Wishes,
};
pub use addr::Prefix;
pub use config::{Config, ConfigError, SynCookies};
pub use counters::Counters;
pub use engine::Engine;
pub use errno::Errno;
pub use views::{AddressView, ConnView, ListenerView, NeighbourView};
