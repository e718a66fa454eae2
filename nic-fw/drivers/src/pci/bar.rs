//! Base address registers: how much space a function wants, and where it has it (PCI 3.0, 6.2.5.1).
//!
//! ```text
//!   31 ─────────── 4 │ 3 prefetchable │ 2..1 type: 0 = 32 bits, 2 = 64 bits (the next register is the upper half) │ 0 I/O
//! ```

use super::config::{Command, register};
use super::{ConfigSpace, PciAddress};

/// Registers of an endpoint. A bridge has two.
pub const BARS: usize = 6;

const IS_IO: u32 = 1;
const TYPE: u32 = 0b110;
const TYPE_64: u32 = 0b100;
const PREFETCHABLE: u32 = 1 << 3;
const FLAGS: u64 = 0xf;

/// Where a BAR may be placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Below 4 GiB.
    Low,
    /// Anywhere.
    Any,
    /// Anywhere, and reading has no side effects: it may go through the prefetchable window of a bridge.
    Prefetchable,
}

/// A memory BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    pub space: Space,
    /// A power of two, at least 16 bytes.
    pub size: u64,
    /// Bus address; `None`: it has not been given any.
    pub address: Option<u64>,
}

fn offset(index: usize) -> u16 {
    register::BAR + 4 * index as u16
}

/// Sizes the first `count` registers by writing ones to them, and leaves them as they were. I/O space is passed over. Meanwhile the
/// function does not answer in memory: an address full of ones might be another's.
pub(super) fn probe(config: &mut impl ConfigSpace, at: PciAddress, count: usize) -> [Option<Bar>; BARS] {
    let mut bars = [None; BARS];
    let command = config.read16(at, register::COMMAND);
    config.write16(at, register::COMMAND, command & !(Command::MEMORY_SPACE | Command::IO_SPACE).bits());
    let mut index = 0;
    while index < count.min(BARS) {
        let low = config.read32(at, offset(index));
        let is_64 = low & (IS_IO | TYPE) == TYPE_64;
        if is_64 && index + 1 == count.min(BARS) {
            break; // No upper half: it lies.
        }
        bars[index] = probe_one(config, at, index, low, is_64);
        index += 1 + usize::from(is_64);
    }
    config.write16(at, register::COMMAND, command);
    bars
}

fn probe_one(config: &mut impl ConfigSpace, at: PciAddress, index: usize, low: u32, is_64: bool) -> Option<Bar> {
    let mut mask = u64::from(sized(config, at, index, low));
    let mut address = u64::from(low);
    if is_64 {
        let high = config.read32(at, offset(index + 1));
        mask |= u64::from(sized(config, at, index + 1, high)) << 32;
        address |= u64::from(high) << 32;
    } else if mask != 0 {
        mask |= 0xffff_ffff << 32;
    }
    if low & IS_IO != 0 || mask & !FLAGS == 0 {
        return None;
    }
    let size = 1 << (mask & !FLAGS).trailing_zeros();
    let address = Some(address & !FLAGS).filter(|address| *address != 0 && address.is_multiple_of(size));
    let space = match (is_64, low & PREFETCHABLE != 0) {
        (false, _) => Space::Low,
        (true, false) => Space::Any,
        (true, true) => Space::Prefetchable,
    };
    Some(Bar { space, size, address })
}

/// What a register keeps of ones.
fn sized(config: &mut impl ConfigSpace, at: PciAddress, index: usize, old: u32) -> u32 {
    config.write32(at, offset(index), u32::MAX);
    let mask = config.read32(at, offset(index));
    config.write32(at, offset(index), old);
    mask
}

/// Places a BAR. The function must not answer in memory meanwhile.
pub(super) fn place(config: &mut impl ConfigSpace, at: PciAddress, index: usize, bar: &mut Bar, address: u64) {
    config.write32(at, offset(index), address as u32);
    if bar.space != Space::Low {
        config.write32(at, offset(index + 1), (address >> 32) as u32);
    }
    bar.address = Some(address);
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeBus, FakeFunction};
    use super::*;

    const AT: PciAddress = PciAddress { bus: 0, device: 1, function: 0 };

    fn probed(function: FakeFunction) -> ([Option<Bar>; BARS], FakeBus, FakeBus) {
        let before = FakeBus::with([(AT, function)]);
        let mut bus = before.clone();
        (probe(&mut bus, AT, BARS), before, bus)
    }

    #[test]
    fn sizes_and_kinds_are_read_off() {
        let mut function = FakeFunction::endpoint(1, 1);
        function.bar(0, 0x1000, 0);
        function.bar(1, 0x20, IS_IO);
        function.bar(2, 0x4000, TYPE_64 | PREFETCHABLE);
        function.bar(4, 0x2_0000_0000, TYPE_64);
        let (bars, before, after) = probed(function);
        assert_eq!(bars[0], Some(Bar { space: Space::Low, size: 0x1000, address: None }));
        assert_eq!(bars[2], Some(Bar { space: Space::Prefetchable, size: 0x4000, address: None }));
        assert_eq!(bars[4], Some(Bar { space: Space::Any, size: 0x2_0000_0000, address: None }));
        assert_eq!((bars[1], bars[3], bars[5]), (None, None, None));
        assert!(before == after, "left as it was");
    }

    #[test]
    fn addresses_given_by_firmware_are_kept() {
        let mut function = FakeFunction::endpoint(1, 1);
        function.bar(0, 0x4000, TYPE_64 | PREFETCHABLE);
        function.set32(0x10, 0x1000_4000 | TYPE_64 | PREFETCHABLE);
        function.set32(0x14, 0x80);
        function.set16(0x04, 6);
        let (bars, before, after) = probed(function);
        assert_eq!(bars[0].unwrap().address, Some(0x80_1000_4000));
        assert!(before == after);
        assert!(after.log.borrow().iter().all(|w| !w.memory_decoded), "sized while it did not answer");
    }

    #[test]
    fn registers_that_lie_have_no_size() {
        let mut function = FakeFunction::endpoint(1, 1);
        function.bar(5, 0x1000, TYPE_64);
        function.set32(0x10, TYPE_64); // Keeps nothing but its kind: no address bit can be written.
        let (bars, ..) = probed(function);
        assert_eq!(bars, [None; BARS]);
        let mut gone = FakeBus::default();
        assert_eq!(probe(&mut gone, AT, BARS), [None; BARS], "all ones look like I/O space");
    }
}
