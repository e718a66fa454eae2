//! The generic timer (Arm ARM, D11): what time it is, an interrupt at a deadline, and waits that end.
//!
//! The virtual counter and timer of EL1 are ours whether we run below a hypervisor or not; coming from EL2 we set their offset to 0.

use crate::ticks::Frequency;
use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0};
use core::fmt;
use tock_registers::interfaces::{Readable, Writeable};

/// Something did not happen in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Late {
    /// What was waited for.
    pub what: &'static str,
    /// What the register said last.
    pub value: u64,
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} not in time, last value {:#x}", self.what, self.value)
    }
}

impl core::error::Error for Late {}

/// How fast the counter runs; `None`: the firmware below us has not said.
pub fn frequency() -> Option<Frequency> {
    Frequency::new(CNTFRQ_EL0.get())
}

fn ticks() -> u64 {
    // The counter may be read early otherwise: before what the caller did last.
    barrier::isb(barrier::SY);
    CNTVCT_EL0.get()
}

/// Nanoseconds since the machine started: the same for all cores, never backwards. 0 if the counter's frequency is unknown,
/// which start-up refuses.
pub fn now_ns() -> u64 {
    frequency().map_or(0, |frequency| frequency.nanos(ticks()))
}

/// A clock for the data path.
#[derive(Clone, Copy, Debug)]
pub struct Counter;

impl toe_hal::Clock for Counter {
    fn nanos(&self) -> u64 {
        now_ns()
    }
}

/// Asks for this core's timer interrupt at a point in time, ns; one that is past comes at once.
pub(crate) fn arm(deadline_ns: u64) {
    let at = frequency().map_or(0, |frequency| frequency.ticks(deadline_ns));
    CNTV_CVAL_EL0.set(at);
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET);
    barrier::isb(barrier::SY);
}

/// No interrupt any more.
pub(crate) fn disarm() {
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::CLEAR);
    barrier::isb(barrier::SY);
}

/// Looks at `value` until it satisfies `done`, at most `limit_ns` long.
pub fn wait_for(what: &'static str, limit_ns: u64, mut value: impl FnMut() -> u64, done: impl Fn(u64) -> bool) -> Result<u64, Late> {
    let end = now_ns().saturating_add(limit_ns);
    loop {
        // The time is read first: whoever is delayed in between still looks once after the deadline.
        let late = now_ns() >= end;
        let value = value();
        if done(value) {
            return Ok(value);
        }
        if late {
            return Err(Late { what, value });
        }
        core::hint::spin_loop();
    }
}
