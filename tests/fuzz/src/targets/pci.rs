//! A bus whose functions say anything: bridges that lead anywhere, registers that keep what they like of what is written, lists of
//! capabilities, and answers that change from one look to the next. The walk ends, BARs get places of their own inside the machine's windows,
//! and what a driver maps lies inside a BAR.

use std::cell::{Cell, RefCell};
use std::ops::{Range, RangeInclusive};

use arbitrary::Arbitrary;
use toe_drivers::Registers;
use toe_drivers::pci::fake::{FakeBus, FakeFunction};
use toe_drivers::pci::{ConfigSpace, Function, Msix, Numbering, PciAddress, Scan, Windows, assign, enable, scan};
use toe_drivers::virtio::Transport;

use super::steps::steps;

const PARTS_MAX: usize = 64;
const LOW: Range<u64> = 0x1000_0000..0x3eff_0000;
const HIGH: Range<u64> = 0x80_0000_0000..0x100_0000_0000;

#[derive(Arbitrary, Debug)]
enum Part {
    Endpoint {
        behind: u8,
        place: u8,
    },
    Bridge {
        behind: u8,
        place: u8,
    },
    /// A BAR of the function that came last.
    Bar {
        index: u8,
        log2: u8,
        flags: u8,
        address: u32,
    },
    /// A capability of MSI-X or of a structure of virtio, in front of those before; what `Word` writes can make it any other.
    Capability {
        at: u8,
        is_msix: bool,
        kind: u8,
        bar: u8,
        offset: u16,
        length: u16,
    },
    Word {
        at: u8,
        value: u32,
    },
    Writable {
        at: u8,
        mask: u32,
    },
    /// So many reads later something else is read.
    Lie {
        after: u16,
        flipped: u32,
    },
}

/// A bus whose answers are not always the same.
struct Bus {
    bus: FakeBus,
    /// Reads until each lie, from the one before; the next one is the last.
    lies: RefCell<Vec<(u16, u32)>>,
    reads: Cell<u64>,
}

/// More than the walk over all functions that a bus may have takes.
const READS_MAX: u64 = 1 << 18;

impl ConfigSpace for Bus {
    fn buses(&self) -> RangeInclusive<u8> {
        self.bus.buses()
    }

    fn read32(&self, at: PciAddress, offset: u16) -> u32 {
        self.reads.set(self.reads.get() + 1);
        assert!(self.reads.get() < READS_MAX, "the walk does not end");
        let mut lies = self.lies.borrow_mut();
        let flipped = match lies.last_mut() {
            Some((0, _)) => lies.pop().map_or(0, |(_, flipped)| flipped),
            Some((after, _)) => {
                *after -= 1;
                0
            }
            None => 0,
        };
        self.bus.read32(at, offset) ^ flipped
    }

    fn write32(&mut self, at: PciAddress, offset: u16, value: u32) {
        self.bus.write32(at, offset, value);
    }

    fn write16(&mut self, at: PciAddress, offset: u16, value: u16) {
        self.bus.write16(at, offset, value);
    }
}

/// Registers that only know how many they are.
#[derive(Clone)]
struct Length(usize);

impl Length {
    fn touch(&self, at: usize, len: usize) {
        assert!(at.is_multiple_of(len) && at + len <= self.0, "{at:#x} of {:#x} registers", self.0);
    }
}

impl Registers for Length {
    fn window_len(&self) -> usize {
        self.0
    }

    fn part(&self, at: usize, len: usize) -> Option<Self> {
        (at.checked_add(len)? <= self.0).then_some(Self(len))
    }

    fn read8(&self, at: usize) -> u8 {
        self.touch(at, 1);
        0xff
    }

    fn read16(&self, at: usize) -> u16 {
        self.touch(at, 2);
        0xffff
    }

    fn read32(&self, at: usize) -> u32 {
        self.touch(at, 4);
        u32::MAX
    }

    fn write8(&self, at: usize, _value: u8) {
        self.touch(at, 1);
    }

    fn write16(&self, at: usize, _value: u16) {
        self.touch(at, 2);
    }

    fn write32(&self, at: usize, _value: u32) {
        self.touch(at, 4);
    }
}

pub fn run(data: &[u8]) {
    let mut bus = build(data);
    let found = scan(&mut bus, Numbering::Keep);
    drive(&mut bus, &found);
    let mut found = scan(&mut bus, Numbering::Assign);
    let mut windows = Windows { low: LOW, high: HIGH, align: 4096 };
    let mut refused = 0;
    assign(&mut bus, &mut found, &mut windows, |_| refused += 1);
    check(&found, refused);
    drive(&mut bus, &found);
}

/// A function, and where it is to be.
struct Placed {
    /// Which of the bridges there are then, or none.
    behind: usize,
    place: u8,
    is_bridge: bool,
    function: FakeFunction,
}

fn build(data: &[u8]) -> Bus {
    let mut lies = vec![];
    let mut functions: Vec<Placed> = vec![];
    for part in steps(data, PARTS_MAX) {
        match part {
            Part::Endpoint { behind, place } => {
                let function = FakeFunction::endpoint(0x1af4, 0x1041);
                functions.push(Placed { behind: behind.into(), place, is_bridge: false, function });
            }
            Part::Bridge { behind, place } => {
                functions.push(Placed { behind: behind.into(), place, is_bridge: true, function: FakeFunction::bridge() });
            }
            Part::Lie { after, flipped } => lies.push((after, flipped)),
            part => functions.last_mut().into_iter().for_each(|placed| change(&mut placed.function, &part)),
        }
    }
    let (mut bus, mut bridges) = (FakeBus::default(), 0);
    for Placed { behind, place, is_bridge, function } in functions {
        let (behind, device) = (behind % (bridges + 1), place % 32);
        if is_bridge {
            bridges = bus.put_bridge(behind, device, function);
        } else {
            bus.put(behind, device, place / 32, function);
        }
    }
    Bus { bus, lies: RefCell::new(lies), reads: Cell::new(0) }
}

fn change(function: &mut FakeFunction, part: &Part) {
    match *part {
        Part::Bar { index, log2, flags, address } => {
            let (index, flags) = (usize::from(index) % 6, u32::from(flags) & 0xf);
            function.bar(index, 1 << (log2 % 64), flags);
            function.set32(0x10 + 4 * index, address & !0xf | flags);
        }
        Part::Capability { at, is_msix, kind, bar, offset, length } => {
            let (at, next) = (0x40 + at % 0x2c * 4, function.get32(0x34) as u8);
            function.set16(0x06, 0x10);
            function.set8(0x34, at);
            let (bar, offset, length) = (u32::from(bar) % 8, u32::from(offset) << 3, u32::from(length));
            let words = if is_msix {
                [u32::from_le_bytes([0x11, next, kind, 0]), offset | bar, offset | bar, 0, 0]
            } else {
                [u32::from_le_bytes([0x09, next, 20, kind % 6]), bar, offset, length, 4]
            };
            words.iter().enumerate().for_each(|(n, word)| function.set32(usize::from(at) + 4 * n, *word));
        }
        Part::Word { at, value } => function.set32(usize::from(at & !3), value),
        Part::Writable { at, mask } => function.allow32(usize::from(at & !3), mask),
        Part::Endpoint { .. } | Part::Bridge { .. } | Part::Lie { .. } => {}
    }
}

/// Each BAR that has an address after `assign` has it alone, and inside a window.
fn check(found: &Scan, refused: usize) {
    let mut taken: Vec<Range<u64>> = vec![];
    let bars = || found.functions.iter().flat_map(|f| f.bars).flatten();
    for bar in bars() {
        let Some(address) = bar.address else { continue };
        let range = address..address + bar.size;
        assert!(address.is_multiple_of(bar.size.max(4096)), "{bar:x?}");
        assert!([LOW, HIGH].iter().any(|window| window.start <= range.start && range.end <= window.end), "{bar:x?}");
        assert!(taken.iter().all(|other| other.end <= range.start || range.end <= other.start), "{bar:x?} is not alone");
        taken.push(range);
    }
    assert!(taken.len() + refused <= bars().count(), "a BAR is both placed and refused");
}

/// What the drivers of a board do with what was found.
fn drive(bus: &mut Bus, found: &Scan) {
    for function in &found.functions {
        let is_on = enable(bus, function).is_ok();
        assert!(!is_on || function.bars.iter().flatten().all(|bar| bar.address.is_some()));
        let mut map = |address: u64, len: u64| is_inside(function, address, len).then_some(Length(len as usize));
        if let Ok(mut msix) = Msix::open(bus, function, &mut map) {
            let vectors = msix.vectors();
            assert!(msix.set(vectors - 1, u64::MAX, 1).is_ok() && msix.set(vectors, 0, 0).is_err());
            msix.close(bus);
        }
        let _ = Transport::open(bus, function, &mut map);
    }
}

/// Whether registers lie inside one BAR: a driver that asks for others has found something that it should not have believed.
fn is_inside(function: &Function, address: u64, len: u64) -> bool {
    let is_in = |bar: &toe_drivers::pci::Bar| bar.address.is_some_and(|at| at <= address && address - at + len <= bar.size);
    assert!(function.bars.iter().flatten().any(is_in), "{len:#x} registers at {address:#x} of {function:x?}");
    true
}
