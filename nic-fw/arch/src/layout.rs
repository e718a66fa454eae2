//! What of the address space is mapped, and how: the list from which page tables are made, and against which they are checked.
//!
//! ```text
//!   image   code RX │ rodata R │ data RW        guard pages: mapped nowhere, so that a stack that
//!   memory  RW ... [guard│stack│guard│stack]    grows too far faults instead of overwriting
//!   devices RW, not cached
//! ```
//!
//! Addresses are mapped to themselves. Nothing is both written and executed.

use crate::machine::Machine;
use crate::range::{Range, Ranges};
use alloc::vec::Vec;
use core::fmt;

/// How memory of a region behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attribute {
    /// Normal memory, read and executed.
    Code,
    /// Normal memory, read.
    ReadOnly,
    /// Normal memory, read and written; also what is shared with other cores and with a host that is coherent with them
    /// (write-back, inner shareable).
    Data,
    /// Registers: Device-nGnRE, so accesses are neither gathered nor reordered, but writes may be acknowledged early.
    Device,
}

/// A part of the address space; whole pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    pub name: &'static str,
    pub range: Range,
    pub attribute: Attribute,
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({:?})", self.name, self.range, self.attribute)
    }
}

/// A region would overlap one that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    pub wanted: Region,
    pub by: Region,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} overlaps {}", self.wanted, self.by)
    }
}

impl core::error::Error for Taken {}

/// All regions, disjoint, and the pages between them that stay unmapped on purpose.
#[derive(Clone, Default)]
pub struct Layout {
    regions: Vec<Region>,
    guards: Vec<Range>,
}

impl Layout {
    /// One more region: the pages that `range` touches. It may overlap neither another nor a guard.
    pub fn add(&mut self, name: &'static str, range: Range, attribute: Attribute) -> Result<Region, Taken> {
        let wanted = Region { name, range: range.pages_out(), attribute };
        let guard = |range: &Range| Region { name: "guard", range: *range, attribute: Attribute::ReadOnly };
        let mut there = self.regions.iter().copied().chain(self.guards.iter().map(guard));
        if let Some(by) = there.find(|by| by.range.overlaps(wanted.range)) {
            return Err(Taken { wanted, by });
        }
        self.regions.push(wanted);
        Ok(wanted)
    }

    /// Pages that stay unmapped. They come before the memory in which they lie.
    pub fn guard(&mut self, pages: Range) {
        self.guards.push(pages.pages_out());
    }

    /// Memory without what is there already, and without guards. `None`: it falls into too many pieces.
    pub fn add_memory(&mut self, name: &'static str, range: Range) -> Option<()> {
        let mut left = Ranges::<64>::new();
        range.pages_in().map_or(Ok(()), |pages| left.push(pages)).ok()?;
        let taken = self.regions.iter().map(|region| region.range).chain(self.guards.iter().copied());
        taken.into_iter().try_for_each(|hole| left.subtract(hole)).ok()?;
        self.regions.extend(left.iter().map(|range| Region { name, range, attribute: Attribute::Data }));
        Some(())
    }

    /// The registers of all devices that start-up knows, and configuration space.
    pub fn add_devices(&mut self, machine: &Machine) -> Result<(), Taken> {
        machine.devices().try_for_each(|(name, range)| self.add(name, range, Attribute::Device).map(|_| ()))
    }

    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    pub fn guards(&self) -> &[Range] {
        &self.guards
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::{good, range};

    const PAGE: u64 = crate::range::PAGE;

    #[test]
    fn memory_leaves_out_what_is_there_and_guards() {
        let mut layout = Layout::default();
        layout.add("code", range(2 * PAGE, 10), Attribute::Code).unwrap();
        layout.guard(range(5 * PAGE, PAGE));
        layout.add_memory("memory", range(0, 8 * PAGE)).unwrap();
        let memory = |at: u64, pages: u64| Region { name: "memory", range: range(at * PAGE, pages * PAGE), attribute: Attribute::Data };
        assert_eq!(layout.regions()[1..], [memory(0, 2), memory(3, 2), memory(6, 2)]);
    }

    #[test]
    fn two_in_one_page_are_refused() {
        let mut layout = Layout::default();
        let code = layout.add("code", range(0, 1), Attribute::Code).unwrap();
        let taken = layout.add("data", range(PAGE - 1, 1), Attribute::Data).unwrap_err();
        assert_eq!(taken.by, code);
        layout.guard(range(PAGE, 1));
        assert_eq!(layout.add("data", range(PAGE, 1), Attribute::Data).unwrap_err().by.name, "guard");
    }

    #[test]
    fn devices_of_a_machine_that_passed_fit() {
        let mut layout = Layout::default();
        let machine = good();
        layout.add_devices(&machine).unwrap();
        for piece in machine.memory.free.iter() {
            layout.add_memory("memory", piece).unwrap();
        }
        assert_eq!(layout.regions().len(), 6);
    }
}
