//! The card's data path: the stages, each written once in its own file, and how they are put together.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod card;
pub mod config;
mod control;
pub mod counters;
pub mod deterministic;
mod ctxq;
mod dma;
mod list;
mod msg;
mod post;
mod pre;
mod protocol;
mod sched;
mod stages;
mod store;
mod tables;
mod wheel;

pub use card::{Card, Composition};
pub use config::CardConfig;
pub use counters::Counters;
pub use deterministic::{DeterministicCard, Interleaving};
