//! A network between two ends: what becomes of each frame, by seed.
//!
//! ```text
//!   frame ──► bottleneck ──────────────► line ─────────────────────► delay ──────────────► other end
//!             rate, queue (drop-tail),   loss (single, in bursts),   constant, jitter,
//!             CE above a threshold       corruption, duplication     some frames late
//! ```
//!
//! The library is pure: lengths and times in, fates out. So the simulation in virtual time (`tests/src/sim/wire.rs`) and the program `toe-netem`
//! between two TAP interfaces are the same network.
//!
//! May depend on: `toe-hal` (its seeded [`Chance`](toe_hal::fake::Chance)), `toe-wire`.
#![forbid(unsafe_code)]

pub mod flight;
pub mod knobs;
pub mod line;

pub use flight::Flight;
pub use knobs::Knobs;
pub use line::{Arrival, Counts, Line, Lost};
