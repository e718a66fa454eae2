//! How many instructions have been executed, but for those of the board.
//!
//! ```text
//!   card ──────┐           ┌────── card
//!              └── board ──┘               aside: taken out of the count, with what taking it out costs
//! ```
//!
//! PMCCNTR_EL0 counts cycles (Arm ARM, D11.11), which QEMU with `-icount shift=0` makes one per instruction.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use toe_hal::Clock;

/// Instructions that were not the card's.
static ASIDE: AtomicU64 = AtomicU64::new(0);
/// What an `aside` costs besides what runs in it.
static COST: AtomicU64 = AtomicU64::new(0);

/// Starts to count.
pub fn start() {
    // PMCR_EL0: enable, reset the cycle counter, 64 bits of it. PMCNTENSET_EL0: the cycle counter is bit 31.
    let (control, cycles) = (1_u64 | 1 << 2 | 1 << 6, 1_u64 << 31);
    // SAFETY: registers of the performance monitors only, which nobody else uses.
    unsafe {
        asm!(
            "msr pmccfiltr_el0, xzr",
            "msr pmcntenset_el0, {cycles}",
            "msr pmcr_el0, {control}",
            "isb",
            cycles = in(reg) cycles,
            control = in(reg) control,
            options(nostack, preserves_flags)
        );
    }
    COST.store(cost_of_aside(), Ordering::Relaxed);
}

/// Instructions executed. A barrier for the compiler: what stands before it has been executed, or is not counted.
#[inline(always)]
fn executed() -> u64 {
    let count;
    // SAFETY: reads a counter.
    unsafe { asm!("mrs {count}, pmccntr_el0", count = out(reg) count, options(nostack, preserves_flags)) };
    count
}

/// Runs something that is no part of the card.
#[inline(always)]
pub fn aside<R>(what: impl FnOnce() -> R) -> R {
    let begin = executed();
    let result = away(what);
    let end = executed();
    // One core: nobody else counts. A plain sum, so that it costs the same each time.
    let before = ASIDE.load(Ordering::Relaxed);
    ASIDE.store(before + (end - begin) + COST.load(Ordering::Relaxed), Ordering::Relaxed);
    result
}

/// A call for certain, so that nothing of it is mixed into the caller.
#[inline(never)]
fn away<R>(what: impl FnOnce() -> R) -> R {
    what()
}

/// Instructions that were not the card's.
pub fn asides() -> u64 {
    ASIDE.load(Ordering::Relaxed)
}

/// As long as COST is 0.
fn cost_of_aside() -> u64 {
    let look = cost_of_look();
    let (begin, before) = (executed(), asides());
    aside(|| ());
    let (end, after) = (executed(), asides());
    // Between the two looks there are also the two loads of `asides`: an address and a load each.
    (end - begin).saturating_sub(after - before).saturating_sub(look + 2 * 2)
}

/// What two looks in a row show.
pub fn cost_of_look() -> u64 {
    let begin = Executed.nanos();
    Executed.nanos() - begin
}

/// The card's instructions as a clock: its traces tell how many each visit to a stage took.
#[derive(Clone, Copy, Debug)]
pub struct Executed;

impl Clock for Executed {
    #[inline(always)]
    fn nanos(&self) -> u64 {
        executed() - asides()
    }
}
