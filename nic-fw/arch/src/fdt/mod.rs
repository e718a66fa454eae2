//! What a device tree says about the machine.
//!
//! ```text
//!   /memory@..  /reserved-memory/*  reserved ranges  ──► memory map
//!   /cpus/cpu@..                                     ──► cores
//!   arm,gic-v3   └ arm,gic-v3-its                    ──► interrupt controller
//!   pci-host-ecam-generic                            ──► PCI bridges
//!   arm,pl011   /psci   arm,armv8-timer   /chosen    ──► the rest
//! ```
//!
//! A device behind a bus that translates addresses is an error: no machine that we start on has one that we need.

pub mod blob;
mod cells;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::machine::{COMMAND_LINE_MAX, Conduit, Machine, PciBridge, WINDOWS_MAX, Window, Wrong};
use crate::range::Range;
use blob::{Blob, DEPTH_MAX, Node};
use cells::{Cells, Words, ranges};

/// Reads a blob. The result is not [checked](Machine::check) yet, and the blob itself not reserved.
pub fn machine(bytes: &[u8]) -> Result<Machine, Wrong> {
    let blob = Blob::new(bytes)?;
    let mut reader = Reader::default();
    for node in blob.nodes() {
        reader.node(&node?)?;
    }
    let mut machine = reader.machine;
    for range in reader.reserved {
        machine.memory.reserve(range)?;
    }
    for range in blob.reserved() {
        machine.memory.reserve(range?)?;
    }
    Ok(machine)
}

/// Where the console's registers are, for whoever has to say that the rest is wrong.
pub fn uart(bytes: &[u8]) -> Option<Range> {
    let blob = Blob::new(bytes).ok()?;
    let mut reader = Reader::default();
    for node in blob.nodes() {
        let node = node.ok()?;
        reader.enter(&node);
        if node.is_compatible(&["arm,pl011"]) && node.is_on() {
            return ranges("UART", &node, reader.around(&node)).next()?.ok();
        }
    }
    None
}

/// What the nodes around say.
#[derive(Clone, Copy)]
struct Around {
    cells: Cells,
    /// Addresses inside are addresses of cores.
    direct: bool,
    /// What it is, as far as it matters to those inside.
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Other,
    Cpus,
    ReservedMemory,
}

#[derive(Default)]
struct Reader {
    machine: Machine,
    /// Of the node at each depth above the present one.
    around: [Option<Around>; DEPTH_MAX],
    reserved: heapless::Vec<Range, { crate::machine::MEMORY_MAX }>,
}

impl Reader {
    /// Remembers what `node` says to those inside it.
    fn enter(&mut self, node: &Node<'_>) {
        let root = node.depth == 0;
        let above = node.depth.checked_sub(1).and_then(|above| self.around[above]);
        let same = node.property("ranges").is_some_and(<[u8]>::is_empty);
        let kind = match (node.depth, node.name) {
            (1, "cpus") => Kind::Cpus,
            (1, "reserved-memory") => Kind::ReservedMemory,
            _ => Kind::Other,
        };
        let direct = root || same && above.is_some_and(|above| above.direct);
        self.around[node.depth] = Some(Around { cells: Cells::of(node), direct, kind });
    }

    fn above(&self, node: &Node<'_>) -> Option<Around> {
        node.depth.checked_sub(1).and_then(|above| self.around[above])
    }

    fn around(&self, node: &Node<'_>) -> Cells {
        self.above(node).map_or(Cells { address: 2, size: 1 }, |around| around.cells)
    }

    fn node(&mut self, node: &Node<'_>) -> Result<(), Wrong> {
        self.enter(node);
        if !node.is_on() {
            return Ok(());
        }
        let kind = self.above(node).map_or(Kind::Other, |around| around.kind);
        if kind == Kind::ReservedMemory {
            return self.reserve(node);
        }
        match node.text("device_type") {
            Some("memory") => return self.memory(node),
            Some("cpu") if kind == Kind::Cpus => return self.core(node),
            _ => {}
        }
        if node.depth == 1 && node.name == "chosen" {
            return self.chosen(node);
        }
        self.device(node)
    }

    fn device(&mut self, node: &Node<'_>) -> Result<(), Wrong> {
        if node.is_compatible(&["arm,gic-v3"]) {
            self.gic(node)
        } else if node.is_compatible(&["arm,gic-v3-its"]) {
            // The first one serves all devices of the machines that we know.
            let its = self.one("GIC ITS", node)?;
            self.machine.gic.its.get_or_insert(its);
            Ok(())
        } else if node.is_compatible(&["arm,pl011"]) {
            let uart = self.one("UART", node)?;
            self.machine.uart.get_or_insert(uart);
            Ok(())
        } else if node.is_compatible(&["pci-host-ecam-generic"]) {
            self.bridge(node)
        } else if node.is_compatible(&["arm,armv8-timer"]) {
            self.timer(node)
        } else if node.is_compatible(&["arm,psci", "arm,psci-0.2", "arm,psci-1.0"]) {
            self.psci(node)
        } else {
            Ok(())
        }
    }

    /// The ranges of a device.
    fn ranges<'a>(&self, what: &'static str, node: &Node<'a>) -> Result<impl Iterator<Item = Result<Range, Wrong>> + use<'a>, Wrong> {
        if !self.above(node).is_some_and(|around| around.direct) {
            return Err(Wrong::Damaged("address of a device behind a bus: device tree"));
        }
        Ok(ranges(what, node, self.around(node)))
    }

    fn one(&self, what: &'static str, node: &Node<'_>) -> Result<Range, Wrong> {
        self.ranges(what, node)?.next().unwrap_or(Err(Wrong::Missing(what)))
    }

    fn memory(&mut self, node: &Node<'_>) -> Result<(), Wrong> {
        self.ranges("memory", node)?.try_for_each(|range| self.machine.memory.add(range?))
    }

    fn reserve(&mut self, node: &Node<'_>) -> Result<(), Wrong> {
        for range in self.ranges("reserved memory", node)? {
            self.reserved.push(range?).map_err(|_| Wrong::TooMany("pieces of reserved memory", self.reserved.capacity()))?;
        }
        Ok(())
    }

    fn core(&mut self, node: &Node<'_>) -> Result<(), Wrong> {
        let mut words = Words(node.property("reg").unwrap_or_default());
        let mpidr = words.take(self.around(node).address).ok_or(Wrong::Damaged("number of a core: device tree"))?;
        self.machine.add_core(mpidr)
    }

    fn gic(&mut self, node: &Node<'_>) -> Result<(), Wrong> {
        let regions = node.number("#redistributor-regions").unwrap_or(1) as usize;
        let mut ranges = self.ranges("GIC", node)?;
        let distributor = ranges.next().unwrap_or(Err(Wrong::Missing("GIC distributor")))?;
        self.machine.gic.distributor = Some(distributor);
        self.machine.gic.stride = match node.property("redistributor-stride") {
            Some(stride) => Words(stride).take(stride.len() as u32 / 4).ok_or(Wrong::Damaged("device tree"))?,
            None => 0,
        };
        ranges.take(regions).try_for_each(|range| self.machine.add_redistributor(range?))
    }

    /// `interrupts`: secure physical, physical, virtual, hypervisor; kind (1: PPI), number, flags of each.
    fn timer(&mut self, node: &Node<'_>) -> Result<(), Wrong> {
        let damaged = Wrong::Damaged("timer: device tree");
        let words = node.property("interrupts").unwrap_or_default();
        let (kind, number) = blob::be32(words, 24).zip(blob::be32(words, 28)).ok_or(damaged)?;
        if kind != 1 || number >= 16 {
            return Err(Wrong::Value("the timer's interrupt", u64::from(number)));
        }
        self.machine.timer = 16 + number;
        Ok(())
    }

    fn psci(&mut self, node: &Node<'_>) -> Result<(), Wrong> {
        self.machine.psci = Some(match node.text("method") {
            Some("smc") => Conduit::Smc,
            Some("hvc") => Conduit::Hvc,
            _ => return Err(Wrong::Damaged("method of PSCI: device tree")),
        });
        Ok(())
    }

    fn chosen(&mut self, node: &Node<'_>) -> Result<(), Wrong> {
        // "rng-seed" of the Linux kernel's bindings (devicetree/bindings, chosen).
        self.machine.seed = node.property("rng-seed").and_then(|seed| seed.first_chunk()).copied();
        let line = node.text("bootargs").unwrap_or_default();
        self.machine.command_line = line.try_into().map_err(|_| Wrong::TooMany("bytes of command line", COMMAND_LINE_MAX))?;
        Ok(())
    }

    /// Windows (`ranges`): three words of PCI address, of which the first says what it is; then the address of cores, and the size.
    fn bridge(&mut self, node: &Node<'_>) -> Result<(), Wrong> {
        let damaged = Wrong::Damaged("PCI bridge: device tree");
        let ecam = self.one("PCI configuration space", node)?;
        let buses = node.property("bus-range").unwrap_or(&[0, 0, 0, 0, 0, 0, 0, 255]);
        let bus = |at| blob::be32(buses, at).and_then(|bus| u8::try_from(bus).ok()).ok_or(damaged);
        let parent = self.around(node).address;
        let mut windows = heapless::Vec::new();
        let mut words = Words(node.property("ranges").unwrap_or_default());
        while !words.is_empty() {
            let mut next = |cells| words.take(cells).ok_or(damaged);
            let (kind, bus_base, base, len) = (next(1)?, next(2)?, next(parent)?, next(2)?);
            // Bits 25 and 24: 2 and 3 are memory with addresses of 32 and 64 bits (IEEE 1275 PCI binding, 2.2.1.1).
            if kind >> 25 & 1 == 1 {
                let window = Window { range: Machine::range("PCI window", base, len)?, bus_base };
                windows.push(window).map_err(|_| Wrong::TooMany("PCI windows", WINDOWS_MAX))?;
            }
        }
        let segment = node.number("linux,pci-domain").unwrap_or(0) as u16;
        self.machine.add_bridge(PciBridge { ecam, segment, first_bus: bus(0)?, last_bus: bus(4)?, windows })
    }
}
