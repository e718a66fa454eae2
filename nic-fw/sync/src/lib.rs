//! Everything with atomics outside drivers: what two cores, or two processes, or host and card do at the same time.
//!
//! ```text
//!   shared memory, other side hostile                 inside one side, other side trusted
//!   ─────────────────────────────────                 ───────────────────────────────────
//!   queue       descriptors with phases               spsc        typed ring between two cores
//!   frame_ring  frames of any length                  progress    a number that one core tells another
//!   sleep       who wakes whom ◄───────────────────── crew        which of many cores sleep
//!        └──────── words ───────┘                     flow_table  many readers, one writer: which flows may it be
//!   one family's processes:                           records     many readers, one writer: whole structs
//!   ending      no end before the last bytes          regions     the same of a few words: where host memory lies
//!                                                     tally       counters of one core, read by anyone
//!                                                     epoch       when may memory be reused
//!                                                     share       what an application may send, on all cores
//!                                                     sequencer   number, reorder, release in order (no atomics)
//!                                     atomic: core's, or loom's with cfg(loom)
//! ```
//!
//! Shared memory is touched only through relaxed, acquire and release accesses to 32-bit atomics, never through
//! references to plain data: the other side may write any word at any moment, and that must not be undefined
//! behaviour. Each ordering names its partner. Nothing here allocates after construction, blocks or reads a clock.
//!
//! May depend on: `toe-abi`. Tested by `tests/{model,tables,share}.rs` (properties) and `tests/loom` (all
//! interleavings, `RUSTFLAGS="--cfg loom" cargo test -p toe-sync --test loom --release`); all judge by `tests/oracle`.
#![cfg_attr(not(loom), no_std)]

extern crate alloc;

pub mod atomic;
mod cell;
pub mod crew;
pub mod ending;
pub mod epoch;
pub mod flow_hash;
pub mod flow_table;
pub mod frame_ring;
pub mod progress;
pub mod queue;
pub mod records;
pub mod regions;
pub mod sequencer;
pub mod share;
pub mod sleep;
pub mod spsc;
pub mod tally;
pub mod words;

pub use flow_hash::{FlowHash, HashKey};

pub use words::{Word, Words};
