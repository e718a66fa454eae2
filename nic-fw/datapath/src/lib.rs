//! The card's data path: the stages, each written once in its own file, and three ways to put them together.
//!
//! ```text
//!   RxPort ─► ingress ─► pre ──RxMsg─►┐                        ┌─ tx ─────► post ─┐
//!   ctxq (descriptors, requests) ────►├─► protocol ──OutMsg────┼─ writes ─► dma ──┼─► egress ─► TxPort
//!   sched (turns, timers) ───────────►┘   owner of FlowState   └──────────────────┘     └─► ctxq (events, answers) ─► Kick
//!
//!   fused          one core, direct calls, bursts of 32: best for few CPUs
//!   pipeline       on cores, joined by rings; pre, post and dma replicated, a protocol stage for each flow group
//!   deterministic  the pipeline on one thread, interleaved by a seed: for tests
//! ```
//!
//! A stage is a struct that owns its state; of what others own it sees messages and read-only views (`flows`, `tables`). Only
//! protocol changes a flow. Three points keep order (`toe_hal::Order`): frames reach protocol as they came, segments leave as protocol
//! made them, and what a received frame leads to becomes true only after its payload and all before it is in host memory.
//! Nothing is allocated after construction; nothing that the wire, an application or the host writes can panic, loop or
//! index out of range.
//!
//! May depend on: `toe-abi`, `toe-wire`, `toe-sync`, `toe-tcp`, `toe-hal`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod compose;
pub mod config;
mod control;
pub mod counters;
mod ctxq;
pub mod deterministic;
mod dma;
mod egress;
mod flows;
mod fused;
pub mod host;
mod ingress;
mod list;
mod msg;
pub mod pipeline;
mod pool;
mod post;
mod pre;
mod protocol;
pub mod sched;
mod tables;
mod train;
mod transfers;
mod wheel;

pub use compose::Composition;
pub use config::CardConfig;
pub use counters::{CounterSums, Counters};
pub use deterministic::{DeterministicCard, Interleaving};
pub use fused::{Card, tso_max};
pub use pipeline::{Core, Pipeline, Placement, Polled};
