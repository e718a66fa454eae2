//! Start as a UEFI application: what UEFI and its ACPI tables say, then without it. This is how a BlueField starts an image of ours.
//!
//! ```text
//!   efi_main ─► ACPI root, image, options, PCI windows ─► ExitBootServices: memory map ─► start::run
//! ```

use super::end;
use super::panic::{EXIT_START, refuse};
use super::start::{self, Image};
use super::{console, enter, heap};
use crate::acpi;
use crate::acpi::tables::Physical;
use crate::machine::{MEMORY_MAX, Machine, SEED_LEN, WINDOWS_MAX, Window, Wrong};
use crate::pe;
use crate::range::{PAGE, Range, Ranges};
use aarch64_cpu::registers::CurrentEL;
use core::fmt::Write;
use core::slice;
use tock_registers::interfaces::Readable;
use uefi::boot::{self, AllocateType, MemoryType, OpenProtocolAttributes, OpenProtocolParams};
use uefi::mem::memory_map::{MemoryDescriptor, MemoryMap};
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::pci::configuration::ResourceRangeType;
use uefi::proto::pci::root_bridge::PciRootBridgeIo;
use uefi::proto::rng::Rng;
use uefi::table::cfg::ConfigTableEntry;
use uefi::{Status, entry, system};

/// Bytes of our image that its headers fit into.
const HEADERS: u64 = PAGE;

#[entry]
fn efi_main() -> Status {
    let Prepared { mut machine, image, heap } = prepare().unwrap_or_else(|wrong| {
        // UEFI's console is there even if the tables did not get as far as naming ours.
        system::with_stdout(|out| _ = writeln!(out, "start-up refused: {wrong}"));
        end(EXIT_START)
    });
    // SAFETY: no protocol or event of ours is left; what UEFI allocated for us (heap, image) stays.
    let map = unsafe { boot::exit_boot_services(None) };
    memory(&mut machine, map.entries()).and_then(|()| machine.check(enter::mpidr())).unwrap_or_else(|wrong| refuse(&wrong));
    // Its memory is no longer UEFI's to take back.
    core::mem::forget(map);
    start::run(machine, &image, heap, CurrentEL.read(CurrentEL::EL) as u8)
}

struct Prepared {
    machine: Machine,
    image: Image,
    heap: Range,
}

fn prepare() -> Result<Prepared, Wrong> {
    let ram = ram()?;
    let heap = take_heap(&ram)?;
    // SAFETY: UEFI has just given it to us, for ever.
    unsafe { heap::set(heap) };
    let rsdp = system::with_config_table(|tables| {
        let root = tables.iter().find(|entry| entry.guid == ConfigTableEntry::ACPI2_GUID);
        root.map(|entry| entry.address.expose_provenance() as u64)
    });
    let mut machine = acpi::machine(&ram, rsdp.ok_or(Wrong::Missing("ACPI root pointer"))?)?;
    if let Some(uart) = machine.uart {
        // SAFETY: a PL011, as SPCR says; UEFI maps all devices, and so do our tables.
        unsafe { console::set(uart) };
    }
    windows(&mut machine)?;
    machine.seed = seed();
    let image = image(&mut machine)?;
    Ok(Prepared { machine, image, heap })
}

/// What UEFI says is memory: tables may say any address, and only there they may be.
struct Ram(Ranges<MEMORY_MAX>);

impl Physical for Ram {
    fn bytes(&self, base: u64, len: usize) -> Option<&[u8]> {
        let range = Range::new(base, len as u64).filter(|range| self.0.iter().any(|ram| ram.covers(*range)))?;
        // SAFETY: memory, which UEFI maps to itself; nobody writes tables.
        Some(unsafe { slice::from_raw_parts(core::ptr::with_exposed_provenance(range.base() as usize), len) })
    }
}

fn is_memory(kind: MemoryType) -> bool {
    const KINDS: [MemoryType; 9] = [
        MemoryType::CONVENTIONAL,
        MemoryType::LOADER_CODE,
        MemoryType::LOADER_DATA,
        MemoryType::BOOT_SERVICES_CODE,
        MemoryType::BOOT_SERVICES_DATA,
        MemoryType::RUNTIME_SERVICES_CODE,
        MemoryType::RUNTIME_SERVICES_DATA,
        MemoryType::ACPI_RECLAIM,
        MemoryType::ACPI_NON_VOLATILE,
    ];
    KINDS.contains(&kind)
}

fn range_of(descriptor: &MemoryDescriptor) -> Result<Range, Wrong> {
    let len = descriptor.page_count.checked_mul(PAGE).unwrap_or(0);
    Range::new(descriptor.phys_start, len).ok_or(Wrong::Range("memory", descriptor.phys_start, len))
}

fn ram() -> Result<Ram, Wrong> {
    let map = boot::memory_map(MemoryType::LOADER_DATA).map_err(|_| Wrong::Missing("memory map"))?;
    let mut ram = Ranges::new();
    for descriptor in map.entries().filter(|descriptor| is_memory(descriptor.ty)) {
        ram.extend(range_of(descriptor)?).map_err(|_| Wrong::TooMany("pieces of memory", MEMORY_MAX))?;
    }
    Ok(Ram(ram))
}

/// The memory map as it is when UEFI has gone: what it calls conventional is free.
fn memory<'a>(machine: &mut Machine, entries: impl Iterator<Item = &'a MemoryDescriptor>) -> Result<(), Wrong> {
    for descriptor in entries.filter(|descriptor| is_memory(descriptor.ty)) {
        let range = range_of(descriptor)?;
        if descriptor.ty == MemoryType::CONVENTIONAL { machine.memory.add(range)? } else { machine.memory.add_used(range)? }
    }
    Ok(())
}

/// Half of the largest piece of free memory; the rest stays for what is mapped later.
fn take_heap(ram: &Ram) -> Result<Range, Wrong> {
    let none = Wrong::Missing("memory for the heap");
    let total = ram.0.total();
    // UEFI knows what of it is free: half of all, or half of that, and so on.
    let sizes = core::iter::successors(Some(total / 2), |size| Some(size / 2)).take_while(|size| *size >= 1 << 20);
    for size in sizes {
        let pages = (size / PAGE) as usize;
        if let Ok(base) = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, pages) {
            return Range::new(base.as_ptr().expose_provenance() as u64, pages as u64 * PAGE).ok_or(none);
        }
    }
    Err(none)
}

/// Windows of PCI bridges. ACPI says them only in code (AML); UEFI says what of them it has given to devices, whose addresses (BARs) it has
/// assigned already. So they are where devices are, and there are none without devices.
fn windows(machine: &mut Machine) -> Result<(), Wrong> {
    let Ok(handles) = boot::find_handles::<PciRootBridgeIo>() else { return Ok(()) };
    for handle in handles {
        let parameters = OpenProtocolParams { handle, agent: boot::image_handle(), controller: None };
        // SAFETY: UEFI's driver of the bus has it open, and is not running while we only read.
        let bridge = unsafe { boot::open_protocol::<PciRootBridgeIo>(parameters, OpenProtocolAttributes::GetProtocol) };
        let Ok(bridge) = bridge else { continue };
        let segment = bridge.segment_nr();
        let Ok(resources) = bridge.configuration() else { continue };
        let Some(known) = machine.bridges.iter_mut().find(|known| u32::from(known.segment) == segment) else { continue };
        for memory in resources.iter().filter(|r| r.resource_range_type == ResourceRangeType::Memory && r.address_length > 0) {
            // What is added to an address of the bus is the address of cores (UEFI 14.2, Table 14.4).
            let base = memory.address_min.wrapping_add(memory.translation_offset);
            let range = Machine::range("PCI window", base, memory.address_length)?;
            let window = Window { range, bus_base: memory.address_min };
            known.windows.push(window).map_err(|_| Wrong::TooMany("PCI windows", WINDOWS_MAX))?;
        }
    }
    Ok(())
}

/// Random bytes, if UEFI has a generator (UEFI 37.5).
fn seed() -> Option<[u8; SEED_LEN]> {
    let handle = boot::get_handle_for_protocol::<Rng>().ok()?;
    let mut generator = boot::open_protocol_exclusive::<Rng>(handle).ok()?;
    let mut seed = [0; SEED_LEN];
    generator.get_rng(None, &mut seed).ok().map(|()| seed)
}

/// Where the image lies, and the words that it was started with.
fn image(machine: &mut Machine) -> Result<Image, Wrong> {
    let damaged = Wrong::Missing("our own image");
    let loaded = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle()).map_err(|_| damaged)?;
    let (base, len) = loaded.info();
    // SAFETY: our own image, which UEFI has loaded there, headers first.
    let header = unsafe { slice::from_raw_parts(base.cast::<u8>(), len.min(HEADERS) as usize) };
    let sections = pe::sections(header, base.expose_provenance() as u64, len)?;
    if let Ok(options) = loaded.load_options_as_cstr16() {
        let mut letters = options.iter().map(|letter| char::from(*letter));
        letters
            .try_for_each(|letter| machine.command_line.push(letter))
            .map_err(|_| Wrong::TooMany("bytes of command line", crate::machine::COMMAND_LINE_MAX))?;
    }
    Ok(Image { sections, guards: heapless::Vec::new() })
}
