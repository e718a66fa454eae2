//! The distributor (IHI 0069, 12.9): all that it forwards is off, as no device of ours uses SPIs.

use super::{GicError, LIMIT_NS, PRIORITY};
use crate::bare::mmio::Registers;
use crate::bare::time::wait_for;

const CTLR: usize = 0x0000;
const TYPER: usize = 0x0004;
const IGROUPR: usize = 0x0080;
const ICENABLER: usize = 0x0180;
const ICPENDR: usize = 0x0280;
const IPRIORITYR: usize = 0x0400;

/// Non-secure view: group 1 is on, by affinity.
const ENABLE_GROUP_1: u32 = 1 << 1;
const ARE: u32 = 1 << 4;
const RWP: u32 = 1 << 31;

fn settle(registers: Registers) -> Result<(), GicError> {
    let pending = || u64::from(registers.read32(CTLR));
    wait_for("GICD_CTLR.RWP = 0", LIMIT_NS, pending, |ctlr| ctlr & u64::from(RWP) == 0)?;
    Ok(())
}

pub fn init(registers: Registers) -> Result<(), GicError> {
    registers.write32(CTLR, 0);
    settle(registers)?;
    // Lines of 32 interrupts; the first is each core's own, and in its redistributor.
    let lines = (registers.read32(TYPER) & 31) as usize + 1;
    for line in 1..lines {
        registers.write32(ICENABLER + 4 * line, !0);
        registers.write32(ICPENDR + 4 * line, !0);
        registers.write32(IGROUPR + 4 * line, !0);
        for four in 0..8 {
            registers.write32(IPRIORITYR + 32 * line + 4 * four, u32::from_ne_bytes([PRIORITY; 4]));
        }
    }
    settle(registers)?;
    registers.write32(CTLR, ARE | ENABLE_GROUP_1);
    settle(registers)
}
