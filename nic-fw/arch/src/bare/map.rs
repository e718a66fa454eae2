//! Page tables, made from the [`Layout`] and checked against it by asking the machine how it translates.

use super::enter::{DEVICE, NORMAL};
use crate::layout::{Attribute, Layout, Region, Taken};
use crate::range::{PAGE, Range};
use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::PAR_EL1;
use aarch64_paging::MapError as TablesError;
use aarch64_paging::descriptor::El1Attributes;
use aarch64_paging::idmap::IdMap;
use aarch64_paging::paging::{El1And0, MemoryRegion};
use core::arch::asm;
use core::fmt;
use tock_registers::interfaces::Readable;

/// Why a range can't be mapped.
#[derive(Debug)]
pub enum MapError {
    Taken(Taken),
    /// Too many pieces of memory.
    Pieces,
    Tables(TablesError),
    /// After start-up there is no memory for tables.
    Sealed,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(taken) => fmt::Display::fmt(taken, f),
            Self::Pieces => f.write_str("too many pieces of memory"),
            Self::Tables(error) => write!(f, "page tables: {error}"),
            Self::Sealed => f.write_str("mapped after start-up"),
        }
    }
}

impl core::error::Error for MapError {}

/// How the machine translates one address, where that is not how it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mismatch {
    pub region: Region,
    pub address: u64,
    /// Value of PAR_EL1.
    pub par: u64,
    /// The access that was asked about.
    pub access: &'static str,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {:#x} gives PAR_EL1 {:#x}", self.region, self.access, self.address, self.par)
    }
}

/// The tables of all cores.
pub struct Map {
    tables: IdMap<El1And0>,
    layout: Layout,
}

fn flags(attribute: Attribute) -> El1Attributes {
    const { assert!(DEVICE == 0 && NORMAL == 1) };
    let common = El1Attributes::VALID | El1Attributes::ACCESSED | El1Attributes::UXN;
    let normal = El1Attributes::ATTRIBUTE_INDEX_1 | El1Attributes::INNER_SHAREABLE;
    common
        | match attribute {
            Attribute::Code => normal | El1Attributes::READ_ONLY,
            Attribute::ReadOnly => normal | El1Attributes::READ_ONLY | El1Attributes::PXN,
            Attribute::Data => normal | El1Attributes::PXN,
            Attribute::Device => El1Attributes::ATTRIBUTE_INDEX_0 | El1Attributes::OUTER_SHAREABLE | El1Attributes::PXN,
        }
}

impl Map {
    pub fn new(layout: Layout) -> Result<Self, MapError> {
        // Level 0 is the root of 48 bits; one address space, so its number (ASID) does not matter.
        let mut map = Self { tables: IdMap::with_asid(0, 0, El1And0), layout: Layout::default() };
        layout.regions().iter().try_for_each(|region| map.write(region))?;
        map.layout = layout;
        // From the moment that a core enters they are used: changes must be such that the TLB may have what was there.
        map.tables.mark_active();
        Ok(map)
    }

    fn write(&mut self, region: &Region) -> Result<(), MapError> {
        let range = MemoryRegion::new(region.range.base() as usize, region.range.end() as usize);
        self.tables.map_range(&range, flags(region.attribute)).map_err(MapError::Tables)
    }

    /// For TTBR0_EL1.
    pub fn root(&self) -> u64 {
        self.tables.root_address().0 as u64
    }

    /// Maps what was not mapped, for all cores.
    pub fn add(&mut self, name: &'static str, range: Range, attribute: Attribute) -> Result<Region, MapError> {
        let region = self.layout.add(name, range, attribute).map_err(MapError::Taken)?;
        self.write(&region)?;
        barrier::dsb(barrier::ISHST);
        barrier::isb(barrier::SY);
        Ok(region)
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Compares how the machine translates all regions and guards with how it should; how many addresses were asked about.
    pub fn verify(&self) -> Result<usize, Mismatch> {
        let mut count = 0;
        for region in self.layout.regions() {
            for address in samples(region.range) {
                verify_page(region, address)?;
                count += 1;
            }
        }
        for guard in self.layout.guards() {
            let region = Region { name: "guard", range: *guard, attribute: Attribute::ReadOnly };
            let par = translate_read(guard.base());
            if par & FAULT == 0 {
                return Err(Mismatch { region, address: guard.base(), par, access: "read" });
            }
            count += 1;
        }
        Ok(count)
    }
}

/// Every page of what is short; of what is long the first of each 2 MiB, and the last.
fn samples(range: Range) -> impl Iterator<Item = u64> {
    let step = if range.len() <= 1 << 20 { PAGE } else { 2 << 20 };
    (range.base()..range.end()).step_by(step as usize).chain([range.end() - PAGE])
}

/// PAR_EL1: the translation failed (bit 0); attributes as in MAIR (63 to 56), shareability (8 and 7), address.
const FAULT: u64 = 1;
const SHAREABLE_INNER: u64 = 3;
const SHAREABLE_OUTER: u64 = 2;
const ADDRESS: u64 = 0xffff_ffff_f000;

fn verify_page(region: &Region, address: u64) -> Result<(), Mismatch> {
    let (memory, shareable) = match region.attribute {
        Attribute::Device => (0x04, SHAREABLE_OUTER),
        Attribute::Code | Attribute::ReadOnly | Attribute::Data => (0xff, SHAREABLE_INNER),
    };
    let par = translate_read(address);
    let right = par & FAULT == 0 && par >> 56 == memory && par >> 7 & 3 == shareable && par & ADDRESS == address;
    if !right {
        return Err(Mismatch { region: *region, address, par, access: "read" });
    }
    let writable = matches!(region.attribute, Attribute::Data | Attribute::Device);
    let par = translate_write(address);
    if (par & FAULT == 0) != writable {
        return Err(Mismatch { region: *region, address, par, access: "write" });
    }
    Ok(())
}

fn translate_read(address: u64) -> u64 {
    // SAFETY: asks for a translation only; faults are said in PAR_EL1, not taken.
    unsafe { asm!("at s1e1r, {}", in(reg) address, options(nostack, preserves_flags)) };
    barrier::isb(barrier::SY);
    PAR_EL1.get()
}

fn translate_write(address: u64) -> u64 {
    // SAFETY: as above.
    unsafe { asm!("at s1e1w, {}", in(reg) address, options(nostack, preserves_flags)) };
    barrier::isb(barrier::SY);
    PAR_EL1.get()
}

/// Writes back what caches have of a range, down to memory: for those who look past the caches (a core whose MMU is off, a device).
pub fn clean(range: Range) {
    let ctr: u64;
    // SAFETY: reads what caches are like (CTR_EL0).
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    // Bits 19 to 16: words of the shortest line, as a power of two.
    let line = 4_u64 << (ctr >> 16 & 15);
    let mut at = range.base() & !(line - 1);
    while at < range.end() {
        // SAFETY: writing back changes nothing that a program sees. The range is mapped, as its owner has just used it.
        unsafe { asm!("dc cvac, {}", in(reg) at, options(nostack, preserves_flags)) };
        at += line;
    }
    barrier::dsb(barrier::SY);
}
