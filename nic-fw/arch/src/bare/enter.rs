//! Into our own world: EL1, our page tables, our stacks. All cores come through here, whoever started them.
//!
//! ```text
//!   ELF, MMU off, EL2 or EL1 ─► boot tables ──┐
//!   boot tables or UEFI's, EL2 or EL1 ────────┼─► toe_go ─► EL1t: SP_EL0 for code, SP_EL1 for exceptions
//!   PSCI, MMU off, EL2 or EL1 ─► toe_enter ───┘
//! ```
//!
//! *EL1 always*: below a hypervisor there is nothing else, and then one set of registers serves. From EL2 we leave by ERET, and are
//! never called there again.
//! *SP_EL0 for code*: an exception then switches to SP_EL1 by itself, so that a stack that has overflowed can be reported.
//! While the MMU goes off and on again only registers are used, no memory.

use crate::machine::Mpidr;
use aarch64_cpu::registers::{ID_AA64MMFR0_EL1, MPIDR_EL1};
use core::arch::global_asm;
use tock_registers::interfaces::Readable;

/// What a core needs to get there. Read by assembly, also with the MMU off: fields and their order are fixed.
#[derive(Debug)]
#[repr(C)]
pub struct Enter {
    pub tables: u64,
    pub tcr: u64,
    pub mair: u64,
    pub sctlr: u64,
    pub stack: u64,
    pub exception_stack: u64,
    pub vectors: u64,
    /// For TPIDR_EL1: its [`PerCore`](super::cores::PerCore).
    pub core: u64,
    /// `extern "C" fn(&Enter) -> !`
    pub function: u64,
}

const _: () = assert!(core::mem::offset_of!(Enter, exception_stack) == 40 && core::mem::offset_of!(Enter, function) == 64);

/// Attribute 0: Device-nGnRE; 1: normal, write-back, allocating (Arm ARM, D17.2.97).
pub const MAIR: u64 = 0xff04;
/// Index of each in [`MAIR`].
pub const DEVICE: u64 = 0;
pub const NORMAL: u64 = 1;

/// RES1 bits of ARMv8.0; stack alignment is checked, caches are on, and so is the MMU.
pub const SCTLR_BOOT: u64 = 0x30d0_0800 | 1 << 12 | 1 << 3 | 1 << 2 | 1;
/// The same; what can be written can't be executed.
pub const SCTLR: u64 = SCTLR_BOOT | 1 << 19;

/// 48 bits of address, pages of 4 KiB, tables cached and shared; no upper half. The size of physical addresses is added.
pub const TCR_BASE: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23;

/// Value of TCR_EL1 for this machine: as many bits of physical addresses as it has, up to 48.
pub fn tcr() -> u64 {
    TCR_BASE | ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange).min(5) << 32
}

/// The core that we are on.
pub fn mpidr() -> Mpidr {
    Mpidr::new(MPIDR_EL1.get())
}

unsafe extern "C" {
    /// Goes to `context.function`, for ever.
    ///
    /// # Safety
    /// All fields hold: tables that map this code and everything in use to itself, stacks that are nobody's, vectors.
    pub fn toe_enter(context: &Enter) -> !;
}

/// Address of the same, for a core that starts there with the address of its context in x0.
pub fn address() -> u64 {
    toe_enter as *const () as u64
}

global_asm!(
    r#"
    .text
    .balign 4
    .global toe_enter
toe_enter:
    ldp     x1, x2, [x0]
    ldp     x3, x4, [x0, #16]
    ldp     x5, x6, [x0, #32]
    ldp     x7, x8, [x0, #48]
    ldr     x9, [x0, #64]

    // x0: handed on; x1 tables, x2 TCR, x3 MAIR, x4 SCTLR, x5 stack, x6 exception stack, x7 vectors, x8 TPIDR, x9 where to.
    .global toe_go
toe_go:
    msr     daifset, #15
    msr     mdscr_el1, xzr              // no debug exceptions, whatever it was at reset
    mrs     x10, CurrentEL
    cmp     x10, #(2 << 2)
    b.eq    1f

    // At EL1: off first, as the two sets of tables may map one address by blocks of different size.
    mrs     x10, sctlr_el1
    bic     x10, x10, #1
    msr     sctlr_el1, x10
    isb
    msr     mair_el1, x3
    msr     tcr_el1, x2
    msr     ttbr0_el1, x1
    msr     vbar_el1, x7
    msr     tpidr_el1, x8
    mov     x10, #(3 << 20)             // CPACR: no traps of floating point
    msr     cpacr_el1, x10
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el1, x4
    isb
    msr     spsel, #1
    mov     sp, x6
    msr     spsel, #0
    mov     sp, x5
    msr     daifclr, #4                 // SError is reported
    br      x9

1:  // At EL2: nothing of EL1 is trapped, and its registers can be set while it does not run.
    mov     x10, #(1 << 31)             // HCR: EL1 is AArch64, all else off
    msr     hcr_el2, x10
    isb
    mov     x10, #3                     // EL1 may use counters and timers,
    msr     cnthctl_el2, x10
    msr     cntvoff_el2, xzr            // and there is one time
    mov     x10, #0x33ff                // CPTR: RES1 bits, no traps
    msr     cptr_el2, x10
    msr     hstr_el2, xzr
    msr     vttbr_el2, xzr
    mrs     x10, midr_el1
    msr     vpidr_el2, x10
    mrs     x10, mpidr_el1
    msr     vmpidr_el2, x10
    mrs     x10, pmcr_el0               // all event counters are EL1's
    ubfx    x10, x10, #11, #5
    msr     mdcr_el2, x10
    mrs     x10, id_aa64pfr0_el1        // system registers of a GICv3: for EL1 as well
    ubfx    x10, x10, #24, #4
    cbz     x10, 2f
    mov     x10, #0xf
    msr     S3_4_C12_C9_5, x10          // ICC_SRE_EL2
    isb
2:  msr     mair_el1, x3
    msr     tcr_el1, x2
    msr     ttbr0_el1, x1
    msr     vbar_el1, x7
    msr     tpidr_el1, x8
    msr     sctlr_el1, x4
    mov     x10, #(3 << 20)
    msr     cpacr_el1, x10
    msr     sp_el0, x5
    msr     sp_el1, x6
    isb
    tlbi    alle1
    ic      iallu
    dsb     nsh
    isb
    mov     x10, #0x2c4                 // EL1t; debug, interrupts masked, SError not
    msr     spsr_el2, x10
    msr     elr_el2, x9
    eret
"#
);
