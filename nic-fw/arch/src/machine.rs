//! The machine that we run on: what a device tree or ACPI tables say about it, in one shape.
//!
//! ```text
//!   device tree ──► fdt ──┐                     ┌─► memory map, stacks, heap
//!                         ├─► Machine ─ check ──┼─► cores, interrupts, timer
//!   ACPI, UEFI ──► acpi ──┘                     └─► PCI, console
//! ```
//!
//! The tables are claims. [`Machine::check`] refuses what cannot be: empty or overlapping ranges, cores that are there twice,
//! registers inside memory. Behind it, everything that takes a range from here may rely on that.

use crate::range::{Full, PAGE, Range, Ranges};
use core::fmt;
use heapless::Vec;

/// Cores that an image has room for.
pub const CORES_MAX: usize = 16;
/// Pieces of memory, before and after what is reserved was taken out.
pub const MEMORY_MAX: usize = 128;
/// Ranges of redistributors.
pub const REDISTRIBUTORS_MAX: usize = CORES_MAX;
/// PCI host bridges, and windows of each.
pub const BRIDGES_MAX: usize = 4;
pub const WINDOWS_MAX: usize = 4;
/// Bytes of a seed.
pub const SEED_LEN: usize = 32;
/// Bytes of the command line.
pub const COMMAND_LINE_MAX: usize = 512;

/// Bytes of a distributor, of a redistributor without virtual LPIs, and of an ITS (GICv3 architecture, 12.1).
pub const DISTRIBUTOR_LEN: u64 = 0x1_0000;
pub const REDISTRIBUTOR_LEN: u64 = 0x2_0000;
pub const ITS_LEN: u64 = 0x2_0000;
/// Bytes of PCIe configuration space of one bus (PCIe 7.2.2).
pub const ECAM_PER_BUS: u64 = 1 << 20;
/// Bytes of a PL011's registers.
pub const UART_LEN: u64 = 0x1000;

/// How a call reaches the firmware below us (SMCCC).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    Smc,
    Hvc,
}

/// A core's place in the hierarchy: Aff3, Aff2, Aff1, Aff0 of MPIDR_EL1, other bits zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mpidr(pub u64);

impl Mpidr {
    /// The bits of MPIDR_EL1 that name a core.
    pub const MASK: u64 = 0xff_00ff_ffff;

    pub const fn new(register: u64) -> Self {
        Self(register & Self::MASK)
    }

    pub const fn affinity(self, level: u32) -> u8 {
        let shift = if level == 3 { 32 } else { 8 * level };
        (self.0 >> shift) as u8
    }

    /// Aff3.Aff2.Aff1.Aff0 in 32 bits, as redistributors say it (GICR_TYPER.Affinity_Value).
    pub const fn packed(self) -> u32 {
        (self.affinity(3) as u32) << 24 | (self.0 as u32 & 0xff_ffff)
    }
}

/// The interrupt controller: GICv3 or later.
#[derive(Clone, Default, Debug)]
pub struct Gic {
    pub distributor: Option<Range>,
    pub redistributors: Vec<Range, REDISTRIBUTORS_MAX>,
    /// Bytes from one redistributor to the next; 0: as each says of itself.
    pub stride: u64,
    /// Translates messages of PCI devices to interrupts. Some machines have none.
    pub its: Option<Range>,
}

/// Addresses at which devices of a bridge answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// As cores see them.
    pub range: Range,
    /// The first of them as devices see it.
    pub bus_base: u64,
}

/// A PCIe host bridge.
#[derive(Clone, Debug)]
pub struct PciBridge {
    /// Configuration space of buses `first_bus` to `last_bus`.
    pub ecam: Range,
    pub segment: u16,
    pub first_bus: u8,
    pub last_bus: u8,
    pub windows: Vec<Window, WINDOWS_MAX>,
}

/// All that start-up and drivers ask about the machine.
#[derive(Clone, Default, Debug)]
pub struct Machine {
    /// Memory, reserved or not.
    pub memory: MemoryMap,
    pub cores: Vec<Mpidr, CORES_MAX>,
    pub gic: Gic,
    pub bridges: Vec<PciBridge, BRIDGES_MAX>,
    /// A PL011.
    pub uart: Option<Range>,
    pub psci: Option<Conduit>,
    /// Interrupt of the virtual timer of EL1, a PPI.
    pub timer: u32,
    pub command_line: heapless::String<COMMAND_LINE_MAX>,
    /// Random bytes that whoever started us has made for this start.
    pub seed: Option<[u8; SEED_LEN]>,
}

/// Memory: what there is, and what of it nobody else uses.
#[derive(Clone, Default)]
pub struct MemoryMap {
    pub all: Ranges<MEMORY_MAX>,
    pub free: Ranges<MEMORY_MAX>,
}

impl MemoryMap {
    /// Memory that is free as far as we know.
    pub fn add(&mut self, range: Range) -> Result<(), Wrong> {
        self.add_used(range)?;
        match range.pages_in() {
            Some(pages) => self.free.extend(pages).map_err(|Full| Wrong::TooMany("pieces of memory", MEMORY_MAX)),
            None => Ok(()),
        }
    }

    /// Memory that is somebody's.
    pub fn add_used(&mut self, range: Range) -> Result<(), Wrong> {
        self.all.extend(range).map_err(|Full| Wrong::TooMany("pieces of memory", MEMORY_MAX))
    }

    /// Part of it is somebody's.
    pub fn reserve(&mut self, range: Range) -> Result<(), Wrong> {
        self.free.subtract(range.pages_out()).map_err(|Full| Wrong::TooMany("pieces of free memory", MEMORY_MAX))
    }
}

impl fmt::Debug for MemoryMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, free {:?}", self.all.as_slice(), self.free.as_slice())
    }
}

/// Why tables are refused. Each says what is wrong with what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// The table itself: cut off, a bad checksum, a length that lies.
    Damaged(&'static str),
    /// It does not say what we can't do without.
    Missing(&'static str),
    /// More of them than there is room for.
    TooMany(&'static str, usize),
    /// An empty range, or one past the end of the address space: what, base, length.
    Range(&'static str, u64, u64),
    /// A range that does not begin or end where this kind must.
    Shape(&'static str, Range),
    /// Two that can't be in the same place.
    Overlap(&'static str, Range, &'static str, Range),
    /// A core that is there twice.
    Twice(Mpidr),
    /// A number that can't be.
    Value(&'static str, u64),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Damaged(what) => write!(f, "{what} is damaged"),
            Self::Missing(what) => write!(f, "no {what}"),
            Self::TooMany(what, max) => write!(f, "more than {max} {what}"),
            Self::Range(what, base, len) => write!(f, "{what} at {base:#x}, {len:#x} bytes: not a range of addresses"),
            Self::Shape(what, range) => write!(f, "{what} at {range}: too short or not aligned"),
            Self::Overlap(a, at_a, b, at_b) => write!(f, "{a} at {at_a} and {b} at {at_b} overlap"),
            Self::Twice(core) => write!(f, "core {:#x} is there twice", core.0),
            Self::Value(what, value) => write!(f, "{what} can't be {value:#x}"),
        }
    }
}

impl core::error::Error for Wrong {}

impl Machine {
    /// A range that a table claims.
    pub(crate) fn range(what: &'static str, base: u64, len: u64) -> Result<Range, Wrong> {
        Range::new(base, len).ok_or(Wrong::Range(what, base, len))
    }

    pub(crate) fn add_core(&mut self, mpidr: u64) -> Result<(), Wrong> {
        if mpidr & !Mpidr::MASK != 0 {
            return Err(Wrong::Value("the number of a core", mpidr));
        }
        self.cores.push(Mpidr(mpidr)).map_err(|_| Wrong::TooMany("cores", CORES_MAX))
    }

    pub(crate) fn add_redistributor(&mut self, range: Range) -> Result<(), Wrong> {
        self.gic.redistributors.push(range).map_err(|_| Wrong::TooMany("ranges of redistributors", REDISTRIBUTORS_MAX))
    }

    pub(crate) fn add_bridge(&mut self, bridge: PciBridge) -> Result<(), Wrong> {
        self.bridges.push(bridge).map_err(|_| Wrong::TooMany("PCI bridges", BRIDGES_MAX))
    }

    /// The registers of devices, each with its name.
    pub fn devices(&self) -> impl Iterator<Item = (&'static str, Range)> + '_ {
        let gic = self.gic.distributor.map(|range| ("GIC distributor", range)).into_iter();
        let redistributors = self.gic.redistributors.iter().map(|range| ("GIC redistributors", *range));
        let its = self.gic.its.map(|range| ("GIC ITS", range));
        let ecam = self.bridges.iter().map(|bridge| ("PCI configuration space", bridge.ecam));
        gic.chain(redistributors).chain(its).chain(self.uart.map(|range| ("UART", range))).chain(ecam)
    }

    /// Windows of all bridges.
    pub fn windows(&self) -> impl Iterator<Item = Range> + '_ {
        self.bridges.iter().flat_map(|bridge| bridge.windows.iter().map(|window| window.range))
    }

    /// Whether all of this can be true of one machine. `boot` is the core that asks.
    pub fn check(&self, boot: Mpidr) -> Result<(), Wrong> {
        self.check_cores(boot)?;
        self.check_gic()?;
        self.check_bridges()?;
        if self.memory.free.total() == 0 {
            return Err(Wrong::Missing("free memory"));
        }
        if let Some(uart) = self.uart.filter(|uart| !uart.base().is_multiple_of(PAGE)) {
            return Err(Wrong::Shape("UART", uart));
        }
        if self.psci.is_none() {
            return Err(Wrong::Missing("PSCI"));
        }
        self.check_places()
    }

    fn check_cores(&self, boot: Mpidr) -> Result<(), Wrong> {
        for (i, core) in self.cores.iter().enumerate() {
            if self.cores[..i].contains(core) {
                return Err(Wrong::Twice(*core));
            }
        }
        if !self.cores.contains(&boot) {
            return Err(Wrong::Missing("core that is the one we run on"));
        }
        // PPIs are 16 to 31 (GICv3 architecture, 2.2).
        if !(16..32).contains(&self.timer) {
            return Err(Wrong::Value("the timer's interrupt", u64::from(self.timer)));
        }
        Ok(())
    }

    fn check_gic(&self) -> Result<(), Wrong> {
        let distributor = self.gic.distributor.ok_or(Wrong::Missing("GICv3 distributor"))?;
        shape("GIC distributor", distributor, DISTRIBUTOR_LEN)?;
        if self.gic.redistributors.is_empty() {
            return Err(Wrong::Missing("GICv3 redistributor"));
        }
        self.gic.redistributors.iter().try_for_each(|range| shape("GIC redistributors", *range, REDISTRIBUTOR_LEN))?;
        self.gic.its.map_or(Ok(()), |range| shape("GIC ITS", range, ITS_LEN))?;
        let stride = self.gic.stride;
        if stride != 0 && (stride < REDISTRIBUTOR_LEN || !stride.is_multiple_of(0x1_0000)) {
            return Err(Wrong::Value("the distance of redistributors", stride));
        }
        Ok(())
    }

    fn check_bridges(&self) -> Result<(), Wrong> {
        for bridge in &self.bridges {
            let Some(more) = bridge.last_bus.checked_sub(bridge.first_bus) else {
                return Err(Wrong::Value("the last bus of a PCI bridge", u64::from(bridge.last_bus)));
            };
            let needed = (u64::from(more) + 1) * ECAM_PER_BUS;
            if !bridge.ecam.base().is_multiple_of(ECAM_PER_BUS) || bridge.ecam.len() < needed {
                return Err(Wrong::Shape("PCI configuration space", bridge.ecam));
            }
            for window in &bridge.windows {
                if window.bus_base.checked_add(window.range.len()).is_none() {
                    return Err(Wrong::Value("the bus address of a PCI window", window.bus_base));
                }
            }
        }
        Ok(())
    }

    /// No two in one place: memory, registers, windows. Registers of different devices must not even share a page.
    fn check_places(&self) -> Result<(), Wrong> {
        let memory = || self.memory.all.iter().map(|range| ("memory", range));
        let windows = || self.windows().map(|range| ("PCI window", range));
        let devices = || self.devices().map(|(name, range)| (name, range.pages_out()));
        let all = || memory().chain(devices()).chain(windows());
        for (i, (a, at_a)) in all().enumerate() {
            for (b, at_b) in all().take(i) {
                if at_a.overlaps(at_b) {
                    return Err(Wrong::Overlap(b, at_b, a, at_a));
                }
            }
        }
        Ok(())
    }
}

/// Registers begin at a 64 KiB boundary, as all of a GICv3's do, and are not shorter than the architecture says.
fn shape(what: &'static str, range: Range, len: u64) -> Result<(), Wrong> {
    if range.len() < len || !range.base().is_multiple_of(0x1_0000) { Err(Wrong::Shape(what, range)) } else { Ok(()) }
}

const _: () = assert!(DISTRIBUTOR_LEN.is_multiple_of(PAGE));

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn range(base: u64, len: u64) -> Range {
        Range::new(base, len).unwrap()
    }

    /// A machine of two cores that passes.
    pub fn good() -> Machine {
        let mut machine = Machine { uart: Some(range(0x900_0000, 0x1000)), psci: Some(Conduit::Hvc), timer: 27, ..Machine::default() };
        machine.memory.add(range(0x4000_0000, 0x1000_0000)).unwrap();
        machine.memory.reserve(range(0x4000_0000, 0x10_0000)).unwrap();
        (0..2).for_each(|core| machine.add_core(core).unwrap());
        machine.gic.distributor = Some(range(0x800_0000, 0x1_0000));
        machine.gic.its = Some(range(0x808_0000, 0x2_0000));
        machine.add_redistributor(range(0x80a_0000, 0x4_0000)).unwrap();
        let mut windows = Vec::new();
        windows.push(Window { range: range(0x1000_0000, 0x1000_0000), bus_base: 0x1000_0000 }).unwrap();
        let ecam = range(0x40_1000_0000, 256 * ECAM_PER_BUS);
        machine.add_bridge(PciBridge { ecam, segment: 0, first_bus: 0, last_bus: 255, windows }).unwrap();
        machine
    }

    fn wrong(change: impl FnOnce(&mut Machine)) -> Wrong {
        let mut machine = good();
        change(&mut machine);
        machine.check(Mpidr(0)).unwrap_err()
    }

    #[test]
    fn a_good_machine_passes() {
        assert_eq!(good().check(Mpidr(1)), Ok(()));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(wrong(|m| m.psci = None), Wrong::Missing("PSCI"));
        assert_eq!(wrong(|m| m.gic.distributor = None), Wrong::Missing("GICv3 distributor"));
        assert_eq!(wrong(|m| m.gic.redistributors.clear()), Wrong::Missing("GICv3 redistributor"));
        assert_eq!(wrong(|m| m.memory = MemoryMap::default()), Wrong::Missing("free memory"));
        assert_eq!(wrong(|m| m.cores.clear()), Wrong::Missing("core that is the one we run on"));
        assert_eq!(good().check(Mpidr(7)), Err(Wrong::Missing("core that is the one we run on")));
    }

    #[test]
    fn lies_are_named() {
        assert_eq!(wrong(|m| m.cores[1] = Mpidr(0)), Wrong::Twice(Mpidr(0)));
        assert_eq!(wrong(|m| m.timer = 32), Wrong::Value("the timer's interrupt", 32));
        assert_eq!(wrong(|m| m.gic.its = Some(range(0x808_0000, 0x1_0000))), Wrong::Shape("GIC ITS", range(0x808_0000, 0x1_0000)));
        let backwards = wrong(|m| (m.bridges[0].first_bus, m.bridges[0].last_bus) = (2, 1));
        assert_eq!(backwards, Wrong::Value("the last bus of a PCI bridge", 1));
        let short = range(0x40_1000_0000, ECAM_PER_BUS);
        assert_eq!(wrong(|m| m.bridges[0].ecam = short), Wrong::Shape("PCI configuration space", short));
    }

    #[test]
    fn no_two_in_one_place() {
        assert_eq!(wrong(|m| m.uart = Some(range(0x900_0002, 8))), Wrong::Shape("UART", range(0x900_0002, 8)));
        let uart = range(0x4000_1000, 0x800);
        let Wrong::Overlap("memory", _, "UART", at) = wrong(|m| m.uart = Some(uart)) else { panic!("no overlap") };
        assert_eq!(at, uart.pages_out());
        let window = range(0x900_0000, 1);
        let Wrong::Overlap("UART", _, "PCI window", _) = wrong(|m| m.bridges[0].windows[0].range = window) else { panic!("no overlap") };
        let Wrong::Overlap("memory", _, "memory", _) = wrong(|m| m.memory.add(range(0x4000_0000, 4096)).unwrap()) else {
            panic!("no overlap")
        };
    }

    #[test]
    fn too_many_is_an_error() {
        let mut machine = Machine::default();
        (0..CORES_MAX as u64).for_each(|core| machine.add_core(core).unwrap());
        assert_eq!(machine.add_core(99), Err(Wrong::TooMany("cores", CORES_MAX)));
        assert_eq!(machine.add_core(1 << 31), Err(Wrong::Value("the number of a core", 1 << 31)));
    }

    proptest! {
        /// Whatever ranges the tables claim: a machine that passes has no two of them in one place.
        #[test]
        fn what_passes_is_disjoint(claims in prop::collection::vec((0_u64..64, 1_u64..8), 5)) {
            let at = |i: usize| range(claims[i].0 * 0x1_0000, claims[i].1 * 0x1_0000);
            let mut machine = good();
            machine.bridges.clear();
            machine.memory = MemoryMap::default();
            machine.memory.add(at(0)).unwrap();
            machine.gic.distributor = Some(at(1));
            machine.gic.redistributors[0] = at(2);
            machine.gic.its = Some(at(3));
            machine.uart = Some(at(4));
            let disjoint = (0..5).all(|a| (0..a).all(|b| !at(a).overlaps(at(b))));
            let long = at(2).len() >= REDISTRIBUTOR_LEN && at(3).len() >= ITS_LEN;
            prop_assert_eq!(machine.check(Mpidr(0)).is_ok(), disjoint && long);
        }
    }
}
