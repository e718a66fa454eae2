//! The card's data path: the stages, and how they are put together.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod card;
pub mod config;
pub mod counters;

pub use card::{Card, Composition};
pub use config::CardConfig;
pub use counters::Counters;
