//! The card's data path: the stages, each written once in its own file, and the ways to put them together.
//!
//! ```text
//!   EthPort ─► pre ──RxMsg─►┐                               ┌─TxMsg─► post ─► EthPort
//!   ctxq (descriptors) ────►├─► protocol ──DmaMsg─► dma ────┼─Event─► ctxq (events) ─► Kick
//!   control (messages) ────►│   owner of     payload, then  └─Done──► control (answers, notices)
//!   sched (turns, timers) ─►┘   FlowState    in order
//!
//!   card           fused: one core, direct calls, bursts of 32       stages   the steps both are made of
//!   deterministic  actors and small queues, interleaved by a seed    store, tables, list, wheel, counters: what they stand on
//! ```
//!
//! Only protocol changes a flow. The other stages see messages, and of the flow what INSTALL fixed. What leaves protocol is
//! numbered, and leaves the card in that order, after all payload before it is in host memory.
//! Nothing is allocated after construction; nothing that the wire, an application or the host writes can panic, loop or
//! index out of range.
//!
//! May depend on: `toe-abi`, `toe-wire`, `toe-sync`, `toe-tcp`, `toe-hal`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod card;
pub mod config;
mod control;
pub mod counters;
mod ctxq;
pub mod deterministic;
mod dma;
mod list;
mod msg;
mod post;
mod pre;
mod protocol;
pub mod sched;
mod stages;
mod store;
mod tables;
mod wheel;

pub use card::{Card, Composition};
pub use config::CardConfig;
pub use counters::Counters;
pub use deterministic::{DeterministicCard, Interleaving};
