//! The core's own end of the interrupt controller: system registers (IHI 0069, 12.2).

use super::GicError;
use crate::machine::Mpidr;
use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::ID_AA64PFR0_EL1;
use core::arch::asm;
use tock_registers::interfaces::Readable;

/// No interrupt is pending, or none that is ours.
const SPECIAL: core::ops::RangeInclusive<u32> = 1020..=1023;

macro_rules! write_register {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: an interrupt controller register of this core; interrupts are masked, so no code is interrupted by what it does.
        unsafe { asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
    }};
}

macro_rules! read_register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: as for writing.
        unsafe { asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags)) };
        value
    }};
}

/// Lets all priorities of group 1 through. On the core itself.
pub fn init() -> Result<(), GicError> {
    // Bits 27 to 24 of ID_AA64PFR0_EL1: the system registers are there.
    if ID_AA64PFR0_EL1.get() >> 24 & 15 == 0 {
        return Err(GicError::Lacks("system registers", ID_AA64PFR0_EL1.get()));
    }
    write_register!("S3_0_C12_C12_5", 7); // ICC_SRE_EL1: system registers; no bypass
    barrier::isb(barrier::SY);
    let sre = read_register!("S3_0_C12_C12_5");
    if sre & 1 == 0 {
        return Err(GicError::Lacks("system registers at EL1", sre));
    }
    write_register!("S3_0_C4_C6_0", 0xff); // ICC_PMR_EL1
    write_register!("S3_0_C12_C12_3", 0); // ICC_BPR1_EL1
    write_register!("S3_0_C12_C12_4", 0); // ICC_CTLR_EL1: the end of an interrupt is one write
    write_register!("S3_0_C12_C12_7", 1); // ICC_IGRPEN1_EL1
    barrier::isb(barrier::SY);
    Ok(())
}

/// Takes the next interrupt that is pending.
pub fn acknowledge() -> Option<u32> {
    let id = (read_register!("S3_0_C12_C12_0") & 0xff_ffff) as u32; // ICC_IAR1_EL1
    // What it announces is read behind it.
    barrier::dsb(barrier::SY);
    (!SPECIAL.contains(&id)).then_some(id)
}

pub fn end_of_interrupt(id: u32) {
    write_register!("S3_0_C12_C12_1", u64::from(id)); // ICC_EOIR1_EL1
    barrier::isb(barrier::SY);
}

/// What to write to send the wake-up SGI to `core` (ICC_SGI1R_EL1).
pub fn wake_word(core: Mpidr) -> u64 {
    let affinity = |level| u64::from(core.affinity(level));
    let upper = affinity(3) << 48 | affinity(2) << 32 | affinity(1) << 16;
    // Cores of one cluster are named by a bit each, 16 at a time.
    upper | affinity(0) >> 4 << 44 | 1 << (affinity(0) & 15) | u64::from(super::WAKE) << 24
}

/// Sends an SGI. What was written before is visible to whoever it wakes.
pub fn send(word: u64) {
    barrier::dsb(barrier::ISHST);
    write_register!("S3_0_C12_C11_5", word); // ICC_SGI1R_EL1
    barrier::isb(barrier::SY);
}
