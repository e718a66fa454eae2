//! toe-pipe: what the stages of the data path cost, in memory: no network, no rights, no files.
//!
//! ```text
//!   measure ──► points: threads run the cores of a rig     rig      card, control plane, application, peers on a board in memory
//!      │        hops: rings, wake-ups                      traffic  what is carried
//!      ▼                                                   board    memory and port
//!   report ◄── model: costs ► any placement, best placements
//! ```
//!
//! May depend on: all of `nic-fw` but boards.

pub mod bell;
pub mod board;
pub mod control;
pub mod forecast;
pub mod measure;
pub mod model;
pub mod report;
pub mod rig;
pub mod stats;
pub mod threads;
pub mod traffic;
