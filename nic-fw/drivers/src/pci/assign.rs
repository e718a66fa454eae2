//! Places BARs in the windows that the machine has for them, and opens the bridges in between.
//!
//! ```text
//!   low window (below 4 GiB)   [bar][bar][ bridge 2: [bar][bar] ][bar]         a bridge forwards whole MiB
//!   high window                [prefetchable 64-bit bars, in the same way]
//! ```

use super::bar::{self, Bar, Space};
use super::config::{Command, register};
use super::scan::set_command;
use super::{BARS, ConfigSpace, Function, Kind, PciAddress, Scan};
use core::ops::Range;

/// Bridges forward memory in units of this (PCI-to-PCI Bridge 1.2, 3.2.5.8).
const BRIDGE_UNIT: u64 = 1 << 20;

const IO_WINDOW: u16 = 0x1c;
const MEMORY_WINDOW: u16 = 0x20;
const PREFETCHABLE_WINDOW: u16 = 0x24;
const PREFETCHABLE_BASE_HIGH: u16 = 0x28;
const PREFETCHABLE_LIMIT_HIGH: u16 = 0x2c;
const PREFETCHABLE_IS_64: u32 = 1;
/// Base above limit: forwards nothing.
const CLOSED: u32 = 0x0000_fff0;
const IO_CLOSED: u16 = 0x00f0;

/// Bus addresses that the machine forwards to PCI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// What lies above 4 GiB is not used.
    pub low: Range<u64>,
    /// Empty if there is none.
    pub high: Range<u64>,
    /// Each BAR begins on a multiple of this (a power of two; a page, say, if BARs are mapped by pages), and of its own size.
    pub align: u64,
}

/// The BAR has no place; its function stays switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom {
    pub at: PciAddress,
    pub index: usize,
    /// Bytes wanted.
    pub size: u64,
}

/// Gives all BARs new addresses. All functions are switched off first. Takes from the front of `windows`, so that several
/// buses can share them. `no_room` hears of each BAR that found no place.
pub fn assign(config: &mut impl ConfigSpace, scan: &mut Scan, windows: &mut Windows, mut no_room: impl FnMut(NoRoom)) {
    windows.low.end = windows.low.end.min(1 << 32);
    for function in &scan.functions {
        let command = config.read16(function.at, register::COMMAND);
        let off = Command::MEMORY_SPACE | Command::IO_SPACE | Command::BUS_MASTER;
        config.write16(function.at, register::COMMAND, command & !off.bits());
    }
    let mut placer = Placer { config, functions: &mut scan.functions, no_room: &mut no_room };
    placer.level(None, windows, true);
}

/// Lets a function answer in memory and reach memory by itself, without INTx. An error names the first BAR that has no place:
/// it would answer where another does.
pub fn enable(config: &mut impl ConfigSpace, function: &Function) -> Result<(), NoRoom> {
    let homeless = |(index, bar): (usize, &Option<Bar>)| bar.filter(|b| b.address.is_none()).map(|b| (index, b.size));
    if let Some((index, size)) = function.bars.iter().enumerate().find_map(homeless) {
        return Err(NoRoom { at: function.at, index, size });
    }
    set_command(config, function.at);
    Ok(())
}

struct Placer<'a, C> {
    config: &'a mut C,
    functions: &'a mut [Function],
    no_room: &'a mut dyn FnMut(NoRoom),
}

impl<C: ConfigSpace> Placer<'_, C> {
    /// All that is directly behind one bridge. Goes as deep as the scan went.
    fn level(&mut self, behind: Option<usize>, windows: &mut Windows, is_root: bool) {
        for place in 0..self.functions.len() {
            if self.functions[place].behind != behind {
                continue;
            }
            for index in 0..BARS {
                self.bar(place, index, windows, is_root);
            }
            if let Kind::Bridge { .. } = self.functions[place].kind {
                self.bridge(place, windows);
            }
        }
    }

    fn bar(&mut self, place: usize, index: usize, windows: &mut Windows, is_root: bool) {
        let function = &mut self.functions[place];
        let Some(bar) = &mut function.bars[index] else { return };
        bar.address = None;
        let align = bar.size.max(windows.align);
        let low = |windows: &mut Windows| take(&mut windows.low, bar.size, align);
        let address = match bar.space {
            Space::Low => low(windows),
            Space::Prefetchable => take(&mut windows.high, bar.size, align).or_else(|| take(&mut windows.low, bar.size, align)),
            // A bridge has no window above 4 GiB for what must not be prefetched.
            Space::Any if is_root => low(windows).or_else(|| take(&mut windows.high, bar.size, align)),
            Space::Any => low(windows),
        };
        match address {
            Some(address) => bar::place(self.config, function.at, index, bar, address),
            None => (self.no_room)(NoRoom { at: function.at, index, size: bar.size }),
        }
    }

    fn bridge(&mut self, place: usize, windows: &mut Windows) {
        let at = self.functions[place].at;
        let is_64 = self.config.read32(at, PREFETCHABLE_WINDOW) & 0xf == PREFETCHABLE_IS_64;
        let high = if is_64 { windows.high.clone() } else { 0..0 };
        let mut inner = Windows { low: rounded(&windows.low), high: rounded(&high), align: windows.align };
        let starts = (inner.low.start, inner.high.start);
        self.level(Some(place), &mut inner, false);
        let low = starts.0..rounded(&inner.low).start;
        let high = starts.1..rounded(&inner.high).start;
        self.open(at, &low, &high);
        windows.low.start = windows.low.start.max(low.end).min(windows.low.end);
        if is_64 {
            windows.high.start = windows.high.start.max(high.end).min(windows.high.end);
        }
        set_command(self.config, at);
    }

    /// Lets a bridge forward these, and nothing else.
    fn open(&mut self, at: PciAddress, low: &Range<u64>, high: &Range<u64>) {
        // Half a word: its other half is status bits that are cleared by writing ones.
        self.config.write16(at, IO_WINDOW, IO_CLOSED);
        let half = |at: u64| (at >> 16) as u32 & 0xfff0;
        let window = |range: &Range<u64>| match range.end.checked_sub(1).filter(|_| !range.is_empty()) {
            Some(last) => (half(last) << 16) | half(range.start),
            None => CLOSED,
        };
        let upper = |at: u64| (at >> 32) as u32;
        self.config.write32(at, MEMORY_WINDOW, window(low));
        self.config.write32(at, PREFETCHABLE_WINDOW, window(high));
        self.config.write32(at, PREFETCHABLE_BASE_HIGH, upper(high.start));
        self.config.write32(at, PREFETCHABLE_LIMIT_HIGH, if high.is_empty() { 0 } else { upper(high.end - 1) });
    }
}

/// From the front of a window, aligned; what is skipped is lost.
fn take(window: &mut Range<u64>, size: u64, align: u64) -> Option<u64> {
    let start = window.start.checked_next_multiple_of(align)?;
    let end = start.checked_add(size)?;
    // Address 0 means that there is none.
    if end > window.end || start == 0 {
        return None;
    }
    window.start = end;
    Some(start)
}

/// The whole units inside.
fn rounded(window: &Range<u64>) -> Range<u64> {
    let end = window.end / BRIDGE_UNIT * BRIDGE_UNIT;
    let start = window.start.checked_next_multiple_of(BRIDGE_UNIT).unwrap_or(end).min(end.max(window.start));
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeBus, FakeFunction};
    use super::super::{Numbering, scan};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    const PREFETCHABLE_64: u32 = 0b1100;

    fn windows() -> Windows {
        Windows { low: 0x1000_0000..0x3eff_0000, high: 0x80_0000_0000..0x100_0000_0000, align: 4096 }
    }

    fn assigned(bus: &mut FakeBus, windows: &mut Windows) -> (Scan, Vec<NoRoom>) {
        let mut found = scan(bus, Numbering::Assign);
        let mut refused = Vec::new();
        assign(bus, &mut found, windows, |no_room| refused.push(no_room));
        (found, refused)
    }

    #[test]
    fn bars_of_the_root_bus_go_where_they_may() {
        let mut function = FakeFunction::endpoint(1, 1);
        function.bar(0, 0x100, 0);
        function.bar(1, 0x10_0000, 0);
        function.bar(2, 0x400_0000, PREFETCHABLE_64);
        function.bar(4, 0x4000, 0b100);
        let mut bus = FakeBus::default();
        bus.put(0, 1, 0, function);
        let (found, refused) = assigned(&mut bus, &mut windows());
        let addresses: Vec<_> = found.functions[0].bars.iter().map(|b| b.and_then(|b| b.address)).collect();
        assert_eq!(addresses, [Some(0x1000_0000), Some(0x1010_0000), Some(0x80_0000_0000), None, Some(0x1020_0000), None]);
        let registers: Vec<_> = [0, 1, 2, 4].map(|i| bus.at(0, 1).bar_address(i)).into();
        assert_eq!(registers, [0x1000_0000, 0x1010_0000, 0x80_0000_0000, 0x1020_0000]);
        assert!(refused.is_empty() && bus.log.borrow().iter().all(|w| !w.memory_decoded));
        assert_eq!(bus.at(0, 1).get32(4) & 6, 0, "still off");
        enable(&mut bus, &found.functions[0]).unwrap();
        assert_eq!(bus.at(0, 1).get32(4) & 0x407, 0x406);
    }

    #[test]
    fn a_bridge_forwards_what_is_behind_it_and_no_more() {
        let mut bus = FakeBus::default();
        let full = bus.put_bridge(0, 1, FakeFunction::bridge());
        let mut function = FakeFunction::endpoint(1, 1);
        function.bar(0, 0x1000, 0);
        function.bar(2, 0x20_0000, PREFETCHABLE_64);
        bus.put(full, 0, 0, function);
        bus.put_bridge(0, 2, FakeFunction::bridge());
        let mut after = FakeFunction::endpoint(1, 2);
        after.bar(0, 0x1000, 0);
        bus.put(0, 3, 0, after);
        assigned(&mut bus, &mut windows());
        let bridge = bus.at(0, 1);
        assert_eq!((bridge.get32(0x20), bridge.get32(0x24)), (0x1000_1000, 0x0011_0001), "1 MiB, 2 MiB");
        assert_eq!((bridge.get32(0x28), bridge.get32(0x2c), bridge.get32(0x1c)), (0x80, 0x80, 0xf0));
        assert_eq!(bridge.get32(4) & 0x406, 0x406);
        assert_eq!(bus.at(full, 0).bar_address(2), 0x80_0000_0000);
        let empty = bus.at(0, 2);
        assert_eq!((empty.get32(0x20), empty.get32(0x24)), (0xfff0, 0x0001_fff1), "closed");
        assert_eq!(bus.at(0, 3).bar_address(0), 0x1010_0000);
    }

    #[test]
    fn what_finds_no_room_stays_off() {
        let mut function = FakeFunction::endpoint(1, 1);
        function.bar(0, 0x1000, 0);
        function.bar(2, 0x8000_0000_0000, PREFETCHABLE_64);
        let mut bus = FakeBus::default();
        bus.put(0, 1, 0, function);
        let (found, refused) = assigned(&mut bus, &mut windows());
        let at = PciAddress { bus: 0, device: 1, function: 0 };
        let expected = NoRoom { at, index: 2, size: 0x8000_0000_0000 };
        assert_eq!((refused.as_slice(), enable(&mut bus, &found.functions[0])), ([expected].as_slice(), Err(expected)));
        assert_eq!(bus.at(0, 1).get32(4) & 6, 0);
    }

    /// A bridge has no window above 4 GiB but the prefetchable one: what must not be prefetched does not go there, however full it is
    /// below.
    #[test]
    fn behind_a_bridge_only_prefetchable_bars_go_high() {
        let mut bus = FakeBus::default();
        let bridge = bus.put_bridge(0, 1, FakeFunction::bridge());
        for (device, flags) in [(0, 0b100), (1, PREFETCHABLE_64)] {
            let mut function = FakeFunction::endpoint(1, 1);
            function.bar(0, 0x1_0000_0000, flags);
            bus.put(bridge, device, 0, function.clone());
            bus.put(0, 2 + device, 0, function);
        }
        let (found, refused) = assigned(&mut bus, &mut windows());
        assert_eq!(refused, [NoRoom { at: PciAddress { bus: 1, device: 0, function: 0 }, index: 0, size: 0x1_0000_0000 }]);
        assert_eq!(found.functions.iter().flat_map(|f| f.bars).flatten().filter(|b| b.address.is_some()).count(), 3);
    }

    /// Devices and bridges as they come.
    fn machines() -> impl Strategy<Value = (FakeBus, Vec<(usize, u8)>)> {
        let bar = (4u32..26, prop::sample::select(vec![0, 0b1000, 0b100, PREFETCHABLE_64]));
        let device = (any::<bool>(), any::<prop::sample::Index>(), prop::collection::vec(bar, 0..3), any::<bool>());
        prop::collection::vec(device, 1..20).prop_map(|devices| {
            let (mut bus, mut bridges, mut endpoints) = (FakeBus::default(), vec![0], Vec::new());
            for (i, (is_bridge, behind, bars, is_64)) in devices.into_iter().enumerate() {
                let (behind, device) = (*behind.get(&bridges), i as u8);
                if is_bridge {
                    let mut bridge = FakeFunction::bridge();
                    if !is_64 {
                        bridge.set32(0x24, 0);
                    }
                    bridges.push(bus.put_bridge(behind, device, bridge));
                } else {
                    let mut function = FakeFunction::endpoint(1, i as u16 + 1);
                    bars.iter().enumerate().for_each(|(b, (size, flags))| function.bar(2 * b, 1 << size, *flags));
                    bus.put(behind, device, 0, function);
                    endpoints.push((behind, device));
                }
            }
            (bus, endpoints)
        })
    }

    /// Whether a bridge lets `range` through.
    fn forwards(bridge: &FakeFunction, range: &Range<u64>) -> bool {
        let unit = |word: u32| u64::from(word & 0xfff0) << 16..(u64::from(word >> 16 & 0xfff0) << 16) + BRIDGE_UNIT;
        let (low, high) = (unit(bridge.get32(0x20)), unit(bridge.get32(0x24)));
        let is_64 = bridge.get32(0x24) & 1 == 1;
        let upper = |at: usize| if is_64 { u64::from(bridge.get32(at)) << 32 } else { 0 };
        let high = high.start + upper(0x28)..high.end + upper(0x2c);
        [low, high].iter().any(|w| w.start <= range.start && range.end <= w.end)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// No two BARs overlap, all are aligned and in a window, and every bridge on the way forwards them, and no bridge forwards
        /// what belongs to its neighbours.
        #[test]
        fn every_bar_is_reached_alone((mut bus, _) in machines()) {
            let mut windows = windows();
            let all = windows.clone();
            let (found, refused) = assigned(&mut bus, &mut windows);
            prop_assert!(refused.is_empty(), "{refused:?}");
            let bridges: BTreeMap<usize, FakeFunction> = found.functions.iter().enumerate()
                .filter(|(_, f)| matches!(f.kind, Kind::Bridge { .. }))
                .map(|(i, f)| {
                    let words = (0..64).map(|w| bus.read32(f.at, w * 4));
                    let mut copy = FakeFunction::endpoint(0, 0);
                    words.enumerate().for_each(|(w, value)| copy.set32(w * 4, value));
                    (i, copy)
                }).collect();
            let mut taken: Vec<Range<u64>> = Vec::new();
            for function in &found.functions {
                for bar in function.bars.iter().flatten() {
                    let address = bar.address.unwrap();
                    let range = address..address + bar.size;
                    prop_assert!(address % bar.size.max(4096) == 0);
                    prop_assert!([&all.low, &all.high].iter().any(|w| w.start <= range.start && range.end <= w.end));
                    prop_assert!(bar.space != Space::Low || range.end <= 1 << 32);
                    prop_assert!(taken.iter().all(|t| t.end <= range.start || range.end <= t.start));
                    taken.push(range.clone());
                    let mut way = Vec::new();
                    let mut behind = function.behind;
                    while let Some(place) = behind {
                        way.push(place);
                        behind = found.functions[place].behind;
                    }
                    for (place, bridge) in &bridges {
                        prop_assert_eq!(forwards(bridge, &range), way.contains(place), "{:x?} {}", range, place);
                    }
                }
            }
        }
    }
}
