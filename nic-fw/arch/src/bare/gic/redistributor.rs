//! The redistributor of a core (IHI 0069, 12.11): its SGIs, its PPIs, and its LPIs, which lie in memory.

use super::{GicError, LIMIT_NS, LPI_FIRST, LPIS, PRIORITY, WAKE};
use crate::bare::mmio::Registers;
use crate::bare::time::wait_for;
use crate::machine::{Gic, Mpidr, REDISTRIBUTOR_LEN};

const CTLR: usize = 0x0000;
const TYPER: usize = 0x0008;
const WAKER: usize = 0x0014;
const PROPBASER: usize = 0x0070;
const PENDBASER: usize = 0x0078;

/// The second frame: SGIs and PPIs.
const SGI: usize = 0x1_0000;
const IGROUPR0: usize = SGI + 0x0080;
const ISENABLER0: usize = SGI + 0x0100;
const ICENABLER0: usize = SGI + 0x0180;
const ICPENDR0: usize = SGI + 0x0280;
const IPRIORITYR: usize = SGI + 0x0400;

const ENABLE_LPIS: u32 = 1;
const RWP: u32 = 1 << 3;
const PROCESSOR_SLEEP: u32 = 1 << 1;
const CHILDREN_ASLEEP: u32 = 1 << 2;

const TYPER_PLPIS: u64 = 1;
const TYPER_VLPIS: u64 = 1 << 1;
const TYPER_LAST: u64 = 1 << 4;

/// Tables in memory: inner shareable, write-back and allocating (12.11.31 and 12.11.33).
const SHARED: u64 = 1 << 10 | 7 << 7;
const SHAREABILITY: u64 = 3 << 10;
/// The pending table is all zeros.
const PENDING_ZERO: u64 = 1 << 62;

/// Bits of identifiers, minus one.
const ID_BITS: u64 = (LPI_FIRST + LPIS - 1).ilog2() as u64;

#[derive(Clone, Copy, Debug)]
pub struct Redistributor(Registers);

/// Finds that of `core` among those of the machine. Only ranges that are mapped are looked at; each step goes forward.
pub fn find(gic: &Gic, ranges: &[Registers], core: Mpidr) -> Result<Redistributor, GicError> {
    for range in ranges {
        let mut at = 0;
        while let Some(one) = range.part(at, REDISTRIBUTOR_LEN) {
            let typer = one.read64(TYPER);
            if (typer >> 32) as u32 == core.packed() {
                return Ok(Redistributor(one));
            }
            if typer & TYPER_LAST != 0 {
                break;
            }
            // With virtual LPIs there are two more frames.
            let own = if typer & TYPER_VLPIS != 0 { 2 * REDISTRIBUTOR_LEN } else { REDISTRIBUTOR_LEN };
            at += if gic.stride != 0 { gic.stride } else { own };
        }
    }
    Err(GicError::NoRedistributor(core.packed()))
}

impl Redistributor {
    /// Number by which an ITS knows it, if it does not go by address.
    pub fn number(&self) -> u64 {
        self.0.read64(TYPER) >> 8 & 0xffff
    }

    pub fn base(&self) -> u64 {
        self.0.range().base()
    }

    fn settle(&self) -> Result<(), GicError> {
        wait_for("GICR_CTLR.RWP = 0", LIMIT_NS, || u64::from(self.0.read32(CTLR)), |ctlr| ctlr & u64::from(RWP) == 0)?;
        Ok(())
    }

    /// Wakes it, and leaves on what we use: the wake-up SGI and the timer. On the core itself.
    pub fn init(&self, timer: u32) -> Result<(), GicError> {
        let registers = self.0;
        registers.write32(WAKER, registers.read32(WAKER) & !PROCESSOR_SLEEP);
        let asleep = |waker: u64| waker & u64::from(CHILDREN_ASLEEP) != 0;
        wait_for("GICR_WAKER.ChildrenAsleep = 0", LIMIT_NS, || u64::from(registers.read32(WAKER)), |waker| !asleep(waker))?;
        registers.write32(ICENABLER0, !0);
        self.settle()?;
        registers.write32(ICPENDR0, !0);
        registers.write32(IGROUPR0, !0);
        for four in 0..8 {
            registers.write32(IPRIORITYR + 4 * four, u32::from_ne_bytes([PRIORITY; 4]));
        }
        registers.write32(ISENABLER0, 1 << WAKE | 1 << timer);
        self.settle()
    }

    /// Gives it its tables of LPIs: settings (of all cores together), and which are pending (zeros, its own).
    /// Whether it keeps them in step with our caches.
    pub fn enable_lpis(&self, settings: u64, pending: u64) -> Result<bool, GicError> {
        let registers = self.0;
        if registers.read64(TYPER) & TYPER_PLPIS == 0 {
            return Err(GicError::Lacks("LPIs", registers.read64(TYPER)));
        }
        if registers.read32(CTLR) & ENABLE_LPIS != 0 {
            registers.write32(CTLR, registers.read32(CTLR) & !ENABLE_LPIS);
            self.settle()?;
            if registers.read32(CTLR) & ENABLE_LPIS != 0 {
                // It is allowed to refuse, and the firmware's tables may be anywhere (5.1).
                return Err(GicError::Lacks("way to take LPIs over", u64::from(registers.read32(CTLR))));
            }
        }
        registers.write64(PROPBASER, settings | SHARED | ID_BITS);
        registers.write64(PENDBASER, pending | SHARED | PENDING_ZERO);
        let coherent = registers.read64(PROPBASER) & SHAREABILITY != 0;
        aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::SY);
        registers.write32(CTLR, registers.read32(CTLR) | ENABLE_LPIS);
        self.settle()?;
        Ok(coherent)
    }
}
