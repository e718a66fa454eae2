//! Finds all functions, behind bridges too.
//!
//! ```text
//!   bus 0 ─ 00.0  01.0  02.0 bridge ─ bus 1 ─ 00.0
//!                       03.0 bridge ─ bus 2 ─ 00.0 bridge ─ bus 3 ─ ...       numbered depth first, so a bridge forwards a range
//! ```

use super::bar::{self, BARS, Bar};
use super::config::{Command, register};
use super::{Capabilities, Capability, ConfigSpace, PciAddress};
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// More than any machine has that this runs on; a bus that answers everywhere ends here.
const FUNCTIONS_MAX: usize = 256;
/// Bridges behind bridges.
const DEPTH_MAX: usize = 8;

const MULTI_FUNCTION: u8 = 0x80;
const HEADER_KIND: u8 = 0x7f;
const ENDPOINT: u8 = 0;
const BRIDGE: u8 = 1;
const BRIDGE_BARS: usize = 2;
/// Primary, secondary, subordinate bus, latency timer.
const BUS_NUMBERS: u16 = 0x18;

/// Whether bridges have their bus numbers already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Numbering {
    /// Firmware (UEFI) has numbered them.
    Keep,
    /// Nobody has: the numbers are given now.
    Assign,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Endpoint,
    /// Forwards to these buses.
    Bridge {
        secondary: u8,
        subordinate: u8,
    },
}

/// A function on the bus.
#[derive(Clone, Debug)]
pub struct Function {
    pub at: PciAddress,
    pub vendor: u16,
    pub device: u16,
    /// Class, subclass, programming interface.
    pub class: [u8; 3],
    pub kind: Kind,
    pub bars: [Option<Bar>; BARS],
    /// The bridge that it is behind, by its place in [`Scan::functions`].
    pub behind: Option<usize>,
}

impl Function {
    /// Its capabilities, in their order.
    pub fn capabilities<'a, C: ConfigSpace>(&self, config: &'a C) -> Capabilities<'a, C> {
        Capabilities::of(config, self.at)
    }

    /// The first capability with this id.
    pub fn capability(&self, config: &impl ConfigSpace, id: u8) -> Option<Capability> {
        self.capabilities(config).find(|capability| capability.id == id)
    }
}

/// What was found, in the order of the walk: depth first, each bridge before what is behind it.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    pub functions: Vec<Function>,
    /// Bridges that were not looked behind: no bus number left for them, or numbers that can't be.
    pub dead_ends: u32,
    /// There is more than this takes.
    pub is_cut: bool,
}

impl Scan {
    pub fn find(&self, vendor: u16, devices: &[u16]) -> Option<&Function> {
        self.functions.iter().find(|f| f.vendor == vendor && devices.contains(&f.device))
    }
}

/// Walks over all buses that `config` reaches, and sizes all BARs. The machine is quiet: no other core is at the bus, no driver at work.
pub fn scan(config: &mut impl ConfigSpace, numbering: Numbering) -> Scan {
    let buses = config.buses();
    let mut scan = Scan::default();
    if !buses.is_empty() {
        let mut walk = Walk { config, numbering, scan: &mut scan, last: *buses.start(), end: *buses.end() };
        walk.bus(*buses.start(), None, 0);
    }
    scan
}

struct Walk<'a, C> {
    config: &'a mut C,
    numbering: Numbering,
    scan: &'a mut Scan,
    /// The highest bus number given so far, or seen.
    last: u8,
    end: u8,
}

impl<C: ConfigSpace> Walk<'_, C> {
    /// Recursion ends at [`DEPTH_MAX`].
    fn bus(&mut self, bus: u8, behind: Option<usize>, depth: usize) {
        for device in 0..32 {
            for function in 0..8 {
                let at = PciAddress { bus, device, function };
                let is_there = self.function(at, behind, depth);
                let is_multi = is_there && self.config.read8(at, register::HEADER_TYPE) & MULTI_FUNCTION != 0;
                if function == 0 && !is_multi {
                    break;
                }
            }
        }
    }

    /// Whether there is one.
    fn function(&mut self, at: PciAddress, behind: Option<usize>, depth: usize) -> bool {
        let id = self.config.read32(at, register::ID);
        let (vendor, device) = (id as u16, (id >> 16) as u16);
        // Zeros: some bridges answer so for what is not there.
        if vendor == 0xffff || vendor == 0 {
            return false;
        }
        if self.scan.functions.len() >= FUNCTIONS_MAX {
            self.scan.is_cut = true;
            return false;
        }
        let [_, interface, subclass, class] = self.config.read32(at, register::CLASS).to_le_bytes();
        let header = self.config.read8(at, register::HEADER_TYPE) & HEADER_KIND;
        let bars = match header {
            ENDPOINT => bar::probe(self.config, at, BARS),
            BRIDGE => bar::probe(self.config, at, BRIDGE_BARS),
            _ => [None; BARS],
        };
        let kind = Kind::Endpoint;
        let place = self.scan.functions.len();
        self.scan.functions.push(Function { at, vendor, device, class: [class, subclass, interface], kind, bars, behind });
        if header == BRIDGE {
            self.behind(at, place, depth);
        }
        true
    }

    fn behind(&mut self, at: PciAddress, place: usize, depth: usize) {
        let numbers = match self.numbering {
            _ if depth + 1 >= DEPTH_MAX => None,
            Numbering::Keep => self.kept(at),
            Numbering::Assign => self.given(at),
        };
        let Some(numbers) = numbers else {
            self.scan.dead_ends += 1;
            return;
        };
        let secondary = *numbers.start();
        let mut subordinate = *numbers.end();
        self.bus(secondary, Some(place), depth + 1);
        if self.numbering == Numbering::Assign {
            subordinate = self.last;
            self.set_numbers(at, secondary, subordinate);
        }
        self.scan.functions[place].kind = Kind::Bridge { secondary, subordinate };
    }

    /// Numbers of firmware: each bus above all seen before, so that none is walked over twice.
    fn kept(&mut self, at: PciAddress) -> Option<RangeInclusive<u8>> {
        let [_, secondary, subordinate, _] = self.config.read32(at, BUS_NUMBERS).to_le_bytes();
        if secondary <= self.last || subordinate < secondary || subordinate > self.end {
            return None;
        }
        self.last = secondary;
        Some(secondary..=subordinate)
    }

    /// The next number, and all behind for the time of the walk.
    fn given(&mut self, at: PciAddress) -> Option<RangeInclusive<u8>> {
        let secondary = self.last.checked_add(1).filter(|bus| *bus <= self.end)?;
        self.last = secondary;
        self.set_numbers(at, secondary, self.end);
        // What can't be written is no bridge: what is behind would be seen as on another bus.
        let [_, is, ..] = self.config.read32(at, BUS_NUMBERS).to_le_bytes();
        (is == secondary).then_some(secondary..=self.end)
    }

    fn set_numbers(&mut self, at: PciAddress, secondary: u8, subordinate: u8) {
        let latency = self.config.read32(at, BUS_NUMBERS) & 0xff00_0000;
        let numbers = u32::from_le_bytes([at.bus, secondary, subordinate, 0]);
        self.config.write32(at, BUS_NUMBERS, latency | numbers);
    }
}

/// Bits of the command register, for all that a bridge or a driver needs: answer in memory, reach memory, no INTx.
pub(super) fn set_command(config: &mut impl ConfigSpace, at: PciAddress) {
    let command = config.read16(at, register::COMMAND);
    let on = Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTX_DISABLE;
    config.write16(at, register::COMMAND, command | on.bits());
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeBus, FakeFunction};
    use super::*;

    fn places(scan: &Scan) -> Vec<(String, u16, Option<usize>)> {
        scan.functions.iter().map(|f| (f.at.to_string(), f.device, f.behind)).collect()
    }

    /// Two devices on the root bus, one of them with two functions; bridges one behind another, and one with nothing behind.
    fn machine() -> FakeBus {
        let mut bus = FakeBus::default();
        let mut multi = FakeFunction::endpoint(1, 0x10);
        multi.set8(0x0e, 0x80);
        bus.put(0, 0, 0, multi);
        bus.put(0, 0, 5, FakeFunction::endpoint(1, 0x15));
        bus.put(0, 1, 5, FakeFunction::endpoint(1, 0xbad)); // No function 0: not there.
        let first = bus.put_bridge(0, 2, FakeFunction::bridge());
        let second = bus.put_bridge(first, 0, FakeFunction::bridge());
        bus.put(second, 0, 0, FakeFunction::endpoint(1, 0x20));
        bus.put_bridge(0, 3, FakeFunction::bridge());
        let last = bus.put_bridge(0, 31, FakeFunction::bridge());
        bus.put(last, 0, 0, FakeFunction::endpoint(1, 0x30));
        bus
    }

    #[test]
    fn all_are_found_behind_bridges_too() {
        let mut bus = machine();
        let found = scan(&mut bus, Numbering::Assign);
        let expected = [
            ("00:00.0", 0x10, None),
            ("00:00.5", 0x15, None),
            ("00:02.0", 0x0c, None),
            ("01:00.0", 0x0c, Some(2)),
            ("02:00.0", 0x20, Some(3)),
            ("00:03.0", 0x0c, None),
            ("00:1f.0", 0x0c, None),
            ("04:00.0", 0x30, Some(6)),
        ];
        assert_eq!(places(&found), expected.map(|(at, device, behind)| (at.to_string(), device, behind)));
        let kinds: Vec<_> = found.functions.iter().map(|f| f.kind).filter(|k| *k != Kind::Endpoint).collect();
        let bridge = |secondary, subordinate| Kind::Bridge { secondary, subordinate };
        assert_eq!(kinds, [bridge(1, 2), bridge(2, 2), bridge(3, 3), bridge(4, 4)]);
        assert_eq!((found.dead_ends, found.is_cut), (0, false));
        // What firmware has numbered is found as it is.
        let numbered = bus.clone();
        let again = scan(&mut bus, Numbering::Keep);
        assert_eq!(places(&again), places(&found));
        assert!(bus == numbered);
    }

    #[test]
    fn bridges_that_nobody_has_numbered_are_dead_ends() {
        let found = scan(&mut machine(), Numbering::Keep);
        assert_eq!((found.functions.len(), found.dead_ends), (5, 3));
    }

    #[test]
    fn a_bridge_behind_itself_is_not_walked_over_again() {
        for [secondary, subordinate] in [[0, 5], [0, 0], [7, 5]] {
            let mut bus = FakeBus::default();
            let mut bridge = FakeFunction::bridge();
            bridge.set32(0x18, u32::from_le_bytes([0, secondary, subordinate, 0]));
            bus.put_bridge(0, 2, bridge);
            let found = scan(&mut bus, Numbering::Keep);
            assert_eq!((found.functions.len(), found.dead_ends), (1, 1), "{secondary} {subordinate}");
        }
    }

    #[test]
    fn a_bus_that_answers_everywhere_ends() {
        for numbering in [Numbering::Keep, Numbering::Assign] {
            for mut everywhere in [FakeFunction::endpoint(1, 1), FakeFunction::bridge()] {
                everywhere.set8(0x0e, 0x81);
                everywhere.set32(0x18, 0x00ff_0100);
                let mut bus = FakeBus::default();
                bus.everywhere = Some(everywhere);
                let found = scan(&mut bus, numbering);
                assert!(found.functions.len() <= FUNCTIONS_MAX && found.is_cut);
            }
        }
    }

    #[test]
    fn bridges_behind_bridges_end_somewhere() {
        let mut bus = FakeBus::default();
        let mut behind = 0;
        for _ in 0..15 {
            behind = bus.put_bridge(behind, 0, FakeFunction::bridge());
        }
        let found = scan(&mut bus, Numbering::Assign);
        assert_eq!((found.functions.len(), found.dead_ends), (DEPTH_MAX, 1));
    }

    #[test]
    fn devices_are_found_by_their_id() {
        let found = scan(&mut machine(), Numbering::Assign);
        assert_eq!(found.find(1, &[0x99, 0x30]).unwrap().at.bus, 4);
        assert!(found.find(2, &[0x30]).is_none());
    }
}
