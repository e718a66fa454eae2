//! A bus made of software that behaves as hardware does: bits that can't be written, sizing, silence where nobody is, bridges that forward
//! by their bus numbers.

use super::{ConfigSpace, PciAddress};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Configuration space of one function.
#[derive(Clone, Debug, PartialEq)]
pub struct FakeFunction {
    bytes: [u8; 256],
    writable: [u8; 256],
}

impl FakeFunction {
    pub fn endpoint(vendor: u16, device: u16) -> Self {
        let mut this = Self { bytes: [0; 256], writable: [0; 256] };
        this.set16(0x00, vendor);
        this.set16(0x02, device);
        this.set8(0x0b, 2);
        this.allow32(0x04, 0x0407);
        this
    }

    pub fn bridge() -> Self {
        let mut this = Self::endpoint(0x1b36, 0x000c);
        this.set8(0x0b, 6);
        this.set8(0x0a, 4);
        this.set8(0x0e, 1);
        this.allow32(0x18, 0x00ff_ffff);
        this.allow32(0x1c, 0x0000_f0f0);
        this.allow32(0x20, 0xfff0_fff0);
        this.set32(0x24, 0x0001_0001);
        this.allow32(0x24, 0xfff0_fff0);
        this.allow32(0x28, u32::MAX);
        this.allow32(0x2c, u32::MAX);
        this
    }

    pub fn set8(&mut self, at: usize, value: u8) {
        self.bytes[at] = value;
    }

    pub fn set16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    pub fn set32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub fn get32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    pub fn allow32(&mut self, at: usize, mask: u32) {
        self.writable[at..at + 4].copy_from_slice(&mask.to_le_bytes());
    }

    /// A BAR of `size` bytes; `flags`: its low bits.
    pub fn bar(&mut self, index: usize, size: u64, flags: u32) {
        let at = 0x10 + 4 * index;
        self.set32(at, flags);
        self.allow32(at, !(size - 1) as u32 & !0xf);
        if flags & 0b111 == 0b100 && index < 5 {
            self.allow32(at + 4, (!(size - 1) >> 32) as u32);
        }
    }

    pub fn bar_address(&self, index: usize) -> u64 {
        let low = self.get32(0x10 + 4 * index);
        let high = if low & 0b111 == 0b100 { self.get32(0x14 + 4 * index) } else { 0 };
        u64::from(low & !0xf) | u64::from(high) << 32
    }

    fn write(&mut self, at: usize, value: &[u8]) {
        for (i, byte) in value.iter().enumerate() {
            let mask = self.writable[at + i];
            self.bytes[at + i] = self.bytes[at + i] & !mask | byte & mask;
        }
    }
}

/// A write to a BAR.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BarWrite {
    /// Whether the function answered in memory at that moment.
    pub memory_decoded: bool,
}

/// The functions, by the bus that they are physically on: the number of the bridge above, counted in insertion order (0: the root bus).
#[derive(Clone, Debug, Default)]
pub struct FakeBus {
    /// (bridge that it is behind, device, function)
    functions: BTreeMap<(usize, u8, u8), FakeFunction>,
    /// The place of each bridge; index + 1 is its name.
    bridges: Vec<(usize, u8, u8)>,
    pub log: RefCell<Vec<BarWrite>>,
    /// Each of these buses answers with this, at all places.
    pub everywhere: Option<FakeFunction>,
}

impl PartialEq for FakeBus {
    fn eq(&self, other: &Self) -> bool {
        self.functions == other.functions
    }
}

impl FakeBus {
    /// Functions on the root bus.
    pub fn with(functions: impl IntoIterator<Item = (PciAddress, FakeFunction)>) -> Self {
        let mut this = Self::default();
        functions.into_iter().for_each(|(at, function)| this.put(0, at.device, at.function, function));
        this
    }

    pub fn put(&mut self, behind: usize, device: u8, function: u8, what: FakeFunction) {
        self.functions.insert((behind, device, function), what);
    }

    /// Returns the bridge's name, for [`put`](Self::put).
    pub fn put_bridge(&mut self, behind: usize, device: u8, what: FakeFunction) -> usize {
        self.put(behind, device, 0, what);
        self.bridges.push((behind, device, 0));
        self.bridges.len()
    }

    pub fn at(&self, behind: usize, device: u8) -> &FakeFunction {
        &self.functions[&(behind, device, 0)]
    }

    /// Which physical bus a configuration access ends on: each bridge forwards what lies within its numbers.
    fn route(&self, bus: u8) -> Option<usize> {
        let mut here = 0;
        for _ in 0..16 {
            if here == 0 && bus == 0 {
                return Some(0);
            }
            let below = self.bridges.iter().enumerate().filter(|(_, place)| place.0 == here);
            let (next, numbers) = below
                .map(|(i, place)| (i + 1, self.functions[place].get32(0x18).to_le_bytes()))
                .find(|(_, [_, secondary, subordinate, _])| (*secondary..=*subordinate).contains(&bus) && *secondary != 0)?;
            if numbers[1] == bus {
                return Some(next);
            }
            here = next;
        }
        None
    }

    fn write(&mut self, at: PciAddress, offset: u16, value: &[u8]) {
        let Some(behind) = self.route(at.bus) else { return };
        if let Some(function) = self.functions.get_mut(&(behind, at.device, at.function)) {
            if (0x10..0x28).contains(&offset) && function.bytes[0x0e] & 0x7f == 0 {
                self.log.borrow_mut().push(BarWrite { memory_decoded: function.bytes[4] & 2 != 0 });
            }
            if usize::from(offset) + value.len() <= 256 {
                function.write(usize::from(offset), value);
            }
        }
    }
}

impl ConfigSpace for FakeBus {
    fn buses(&self) -> RangeInclusive<u8> {
        0..=255
    }

    fn read32(&self, at: PciAddress, offset: u16) -> u32 {
        assert!(offset.is_multiple_of(4) && at.device < 32 && at.function < 8);
        if let Some(function) = &self.everywhere {
            return function.get32(usize::from(offset) % 256);
        }
        let function = self.route(at.bus).and_then(|behind| self.functions.get(&(behind, at.device, at.function)));
        function.filter(|_| offset < 256).map_or(u32::MAX, |f| f.get32(usize::from(offset)))
    }

    fn write32(&mut self, at: PciAddress, offset: u16, value: u32) {
        assert!(offset.is_multiple_of(4));
        self.write(at, offset, &value.to_le_bytes());
    }

    fn write16(&mut self, at: PciAddress, offset: u16, value: u16) {
        assert!(offset.is_multiple_of(2));
        self.write(at, offset, &value.to_le_bytes());
    }
}
