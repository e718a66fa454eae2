//! Registers of devices: a mapped range, and accesses of exactly one instruction each.
//!
//! The instructions are written out: the compiler may turn a volatile access into one that also changes its base register,
//! and such an access to a device that a hypervisor emulates can't be emulated (ESR_EL2.ISV is 0).

use crate::range::Range;
use core::arch::asm;

/// Registers in a range that is mapped as a device, for ever.
#[derive(Clone, Copy, Debug)]
pub struct Registers(Range);

impl Registers {
    /// # Safety
    /// The range holds registers of one device, is mapped as [`Device`](crate::layout::Attribute::Device) and stays so; what is written there
    /// by whoever gets a copy must not make the device touch memory that is not its own.
    pub const unsafe fn new(range: Range) -> Self {
        Self(range)
    }

    pub const fn range(self) -> Range {
        self.0
    }

    /// A part of it.
    pub fn part(self, offset: u64, len: u64) -> Option<Self> {
        let part = Range::new(self.0.base().checked_add(offset)?, len)?;
        self.0.covers(part).then_some(Self(part))
    }

    fn address(self, offset: usize, size: usize) -> usize {
        let offset = offset as u64;
        assert!(offset.is_multiple_of(size as u64) && offset + size as u64 <= self.0.len(), "register {offset:#x} of {}", self.0);
        (self.0.base() + offset) as usize
    }

    pub fn read32(self, offset: usize) -> u32 {
        let address = self.address(offset, 4);
        let value: u32;
        // SAFETY: an aligned register of the range, as `new` was promised; asm without `nomem` is volatile and ordered with other accesses.
        unsafe { asm!("ldr {v:w}, [{a}]", v = out(reg) value, a = in(reg) address, options(nostack, preserves_flags)) };
        value
    }

    pub fn write32(self, offset: usize, value: u32) {
        let address = self.address(offset, 4);
        // SAFETY: as in `read32`.
        unsafe { asm!("str {v:w}, [{a}]", v = in(reg) value, a = in(reg) address, options(nostack, preserves_flags)) };
    }

    pub fn read64(self, offset: usize) -> u64 {
        let address = self.address(offset, 8);
        let value: u64;
        // SAFETY: as in `read32`.
        unsafe { asm!("ldr {v}, [{a}]", v = out(reg) value, a = in(reg) address, options(nostack, preserves_flags)) };
        value
    }

    pub fn write64(self, offset: usize, value: u64) {
        let address = self.address(offset, 8);
        // SAFETY: as in `read32`.
        unsafe { asm!("str {v}, [{a}]", v = in(reg) value, a = in(reg) address, options(nostack, preserves_flags)) };
    }
}
