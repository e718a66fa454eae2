//! Frames, calls, a card's answers and time on the control plane, as the hostile tests of `toe-engine` have them, with choices that the
//! fuzzer makes.

#[allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench of tests")]
#[path = "../../../../host-ctrl/engine/tests/common/mod.rs"]
mod common;
#[path = "../../../../host-ctrl/engine/tests/hostile/world.rs"]
mod world;

use super::{bytes::Bytes, choices};

pub fn run(data: &[u8]) {
    world::run(&mut Bytes(data));
}
