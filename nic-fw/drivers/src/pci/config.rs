//! Configuration space: 4096 bytes of each function, all of them in one window (ECAM, PCI Express Base 4.0, 7.2.2).
//!
//! ```text
//!   window offset   27..20 bus   19..15 device   14..12 function   11..0 register
//! ```

use crate::{Mmio, Registers};
use bitflags::bitflags;
use core::fmt;
use core::ops::RangeInclusive;

/// Offsets in the header, common to all kinds (PCI 3.0, 6.1).
pub(super) mod register {
    pub const ID: u16 = 0x00;
    pub const COMMAND: u16 = 0x04;
    pub const STATUS: u16 = 0x06;
    pub const CLASS: u16 = 0x08;
    pub const HEADER_TYPE: u16 = 0x0e;
    pub const BAR: u16 = 0x10;
    pub const CAPABILITIES: u16 = 0x34;
}

bitflags! {
    /// The command register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) struct Command: u16 {
        const IO_SPACE = 1 << 0;
        const MEMORY_SPACE = 1 << 1;
        const BUS_MASTER = 1 << 2;
        /// No INTx: an interrupt line that nobody serves would stay up for ever.
        const INTX_DISABLE = 1 << 10;
    }
}

/// Where a function is. `device` below 32, `function` below 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PciAddress {
    pub bus: u8,
    pub device: u8,
    pub function: u8,
}

impl PciAddress {
    /// The 16-bit requester id, as interrupt controllers and IOMMUs see it.
    pub const fn requester_id(self) -> u16 {
        (self.bus as u16) << 8 | (self.device as u16 & 31) << 3 | self.function as u16 & 7
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// Access to configuration space. Offsets are multiples of the width.
pub trait ConfigSpace {
    /// The buses that can be reached.
    fn buses(&self) -> RangeInclusive<u8>;

    /// All ones where no function answers.
    fn read32(&self, at: PciAddress, offset: u16) -> u32;

    fn write32(&mut self, at: PciAddress, offset: u16, value: u32);

    /// For registers that share a word with others that are cleared by writing ones to them.
    fn write16(&mut self, at: PciAddress, offset: u16, value: u16);

    fn read16(&self, at: PciAddress, offset: u16) -> u16 {
        (self.read32(at, offset & !3) >> (8 * (offset & 2))) as u16
    }

    fn read8(&self, at: PciAddress, offset: u16) -> u8 {
        (self.read32(at, offset & !3) >> (8 * (offset & 3))) as u8
    }
}

/// Configuration space in memory.
#[derive(Clone, Debug)]
pub struct Ecam<R = Mmio> {
    window: R,
    first_bus: u8,
}

const BUS_LEN: usize = 1 << 20;

impl<R: Registers> Ecam<R> {
    /// `window` begins with the registers of bus `first_bus` and has 1 MiB for each bus; what is beyond bus 255 is not used.
    pub fn new(window: R, first_bus: u8) -> Self {
        Self { window, first_bus }
    }

    /// Out of the window if there is no such bus.
    fn offset(&self, at: PciAddress, register: u16) -> usize {
        match at.bus.checked_sub(self.first_bus) {
            Some(_) => {
                let base = (usize::from(self.first_bus) * BUS_LEN).wrapping_neg();
                base.wrapping_add(usize::from(at.requester_id()) << 12) | usize::from(register & 0xfff)
            }
            None => usize::MAX,
        }
    }
}

impl<R: Registers> ConfigSpace for Ecam<R> {
    fn buses(&self) -> RangeInclusive<u8> {
        let buses = (self.window.window_len() / BUS_LEN).min(256 - usize::from(self.first_bus));
        match u8::try_from(usize::from(self.first_bus) + buses).map(|end| end.checked_sub(1)) {
            Ok(Some(last)) => self.first_bus..=last,
            Ok(None) => RangeInclusive::new(1, 0),
            Err(_) => self.first_bus..=u8::MAX,
        }
    }

    fn read32(&self, at: PciAddress, offset: u16) -> u32 {
        self.window.read32(self.offset(at, offset & !3))
    }

    fn write32(&mut self, at: PciAddress, offset: u16, value: u32) {
        self.window.write32(self.offset(at, offset & !3), value);
    }

    fn write16(&mut self, at: PciAddress, offset: u16, value: u16) {
        self.window.write16(self.offset(at, offset & !1), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each read with its own offset.
    #[derive(Clone)]
    struct Echo(usize);

    impl Registers for Echo {
        fn window_len(&self) -> usize {
            self.0
        }
        fn part(&self, _: usize, _: usize) -> Option<Self> {
            None
        }
        fn read8(&self, at: usize) -> u8 {
            at as u8
        }
        fn read16(&self, at: usize) -> u16 {
            at as u16
        }
        fn read32(&self, at: usize) -> u32 {
            if at < self.0 { at as u32 } else { u32::MAX }
        }
        fn write8(&self, _: usize, _: u8) {}
        fn write16(&self, _: usize, _: u16) {}
        fn write32(&self, _: usize, _: u32) {}
    }

    #[test]
    fn a_function_lies_where_its_number_says() {
        let at = PciAddress { bus: 0x12, device: 31, function: 7 };
        assert_eq!(Ecam::new(Echo(256 << 20), 0).read32(at, 0xffc), 0x12ffffc);
        assert_eq!(Ecam::new(Echo(256 << 20), 0x10).read32(at, 0), 0x2ff000);
        assert_eq!((at.requester_id(), at.to_string().as_str()), (0x12ff, "12:1f.7"));
    }

    #[test]
    fn buses_outside_the_window_do_not_answer() {
        let ecam = Ecam::new(Echo(2 << 20), 0x10);
        assert_eq!(ecam.buses(), 0x10..=0x11);
        for bus in [0, 0xf, 0x12, 0xff] {
            assert_eq!(ecam.read32(PciAddress { bus, device: 0, function: 0 }, 0), u32::MAX, "{bus}");
        }
        assert_eq!(Ecam::new(Echo(256 << 20), 0).buses(), 0..=255);
        assert_eq!(Ecam::new(Echo(256 << 20), 0xf0).buses(), 0xf0..=255);
        assert!(Ecam::new(Echo(1000), 5).buses().is_empty() && Ecam::new(Echo(1000), 0).buses().is_empty());
    }

    #[test]
    fn parts_of_a_word_are_told_apart() {
        let ecam = Ecam::new(Echo(1 << 20), 0);
        let at = PciAddress { bus: 0, device: 3, function: 0 };
        assert_eq!((ecam.read16(at, 0x04), ecam.read16(at, 0x06), ecam.read8(at, 0x05)), (0x8004, 0x0001, 0x80));
    }
}
