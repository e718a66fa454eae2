//! What of the board needs no machine, and is tested on a host: the card's end of the window that it shares with its host, and its log.
//!
//! ```text
//!   toed ──requests──► window::CardEnd ──► image: attach, detach, reset          stage ──► window::WindowMemory ──► regions
//!   network device that breaks the rules ──► mend::Mender: when to reset it
//!   logger ──────────► log::Log ──► the window's ring ──► toectl logs
//! ```
//!
//! The image itself is the binary `toe-virt` (`image`). May depend on: `toe-datapath` and what is behind it, `toe-arch`, `toe-drivers`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod log;
pub mod mend;
pub mod window;
