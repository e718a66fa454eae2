//! Segments, host updates and timers on one flow, as the hostile tests of `toe-tcp` have them, with choices that the fuzzer makes.

#[path = "../../../../nic-fw/tcp/tests/tcp/flow.rs"]
mod flow;
#[path = "../../../../nic-fw/tcp/tests/tcp/hostile.rs"]
mod hostile;

use super::{bytes::Bytes, choices};

pub fn run(data: &[u8]) {
    hostile::run(&mut Bytes(data));
}
