//! The deterministic simulation: engine, data path and library in virtual time, joined by a seeded wire to a peer.
//!
//! ```text
//!   App ─ toe::Context ─ region ─┐                                    ┌─ smoltcp (independent)
//!                toed::core ─────┤ Composition ─ FakePort ═ Wire ═════┤
//!                toe_engine ─────┘                                    └─ another host of ours
//! ```
//!
//! Nothing sleeps and nothing reads a clock: a run is a function of its seed.

pub mod apps;
pub mod crowd;
pub mod host;
pub mod machine;
pub mod memory;
pub mod order;
pub mod smol;
pub mod stream;
pub mod wire;
pub mod world;
