//! From "the machine is known" to a board's `main`: the same for an ELF image and for a UEFI application.
//!
//! ```text
//!   run: stacks, layout, page tables, blocks of cores ─► toe_enter ─► first: GIC, ITS ─► toe_board_main
//! ```

use super::cores::{self, PerCore, state};
use super::enter::{self, Enter};
use super::gic::its::{Its, Lpis};
use super::gic::{GicError, distributor, redistributor};
use super::map::{self, Map, MapError};
use super::mmio::Registers;
use super::panic::refuse;
use super::platform::Platform;
use super::{console, exception, psci, stack, time};
use crate::layout::{Attribute, Layout};
use crate::machine::{Machine, Wrong};
use crate::pe::{Access, Section};
use crate::range::Range;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;
use spin::{Mutex, Once};

/// The image as it lies in memory.
pub struct Image {
    pub sections: heapless::Vec<Section, { crate::pe::SECTIONS_MAX }>,
    /// Pages between them that stay unmapped.
    pub guards: heapless::Vec<Range, 4>,
}

/// Why start-up can't go on.
enum Failure {
    Wrong(Wrong),
    Map(MapError),
    Gic(GicError),
    Stacks,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(wrong) => fmt::Display::fmt(wrong, f),
            Self::Map(error) => fmt::Display::fmt(error, f),
            Self::Gic(error) => fmt::Display::fmt(error, f),
            Self::Stacks => f.write_str("no memory for stacks"),
        }
    }
}

static PLATFORM: Once<Platform> = Once::new();

/// Starts the machine; the heap is there, and lies in `heap`. `started_at`: the exception level at which the image was entered.
pub fn run(machine: Machine, image: &Image, heap: Range, started_at: u8) -> ! {
    let core = prepare(machine, image, heap, started_at).unwrap_or_else(|failure| refuse(&failure));
    // SAFETY: `prepare` has filled all fields: tables that map the image, the heap and all devices to themselves, and stacks of this core.
    unsafe { enter::toe_enter(&core.enter) }
}

/// All but entering: the block of this core.
fn prepare(mut machine: Machine, image: &Image, heap: Range, started_at: u8) -> Result<&'static PerCore, Failure> {
    if time::frequency().is_none() {
        return Err(Failure::Wrong(Wrong::Missing("frequency of the timer")));
    }
    // The core that we are on becomes number 0.
    let boot = enter::mpidr();
    let at = machine.cores.iter().position(|core| *core == boot).ok_or(Failure::Wrong(Wrong::Missing("core that is the one we run on")))?;
    machine.cores[..=at].rotate_right(1);
    let mut layout = Layout::default();
    let stacks: Option<Vec<_>> = machine.cores.iter().map(|_| stack::make(&mut layout)).collect();
    let stacks = stacks.ok_or(Failure::Stacks)?;
    let map = Map::new(fill(layout, &machine, image, heap).map_err(Failure::Map)?).map_err(Failure::Map)?;
    let tables = map.root();
    let block = |(index, (mpidr, stacks)): (usize, (_, stack::Stacks))| {
        let function = if index == 0 { first as *const () } else { cores::secondary as *const () };
        let enter = Enter {
            tables,
            tcr: enter::tcr(),
            mair: enter::MAIR,
            sctlr: enter::SCTLR,
            stack: stacks.normal.end(),
            exception_stack: stacks.exceptions.end(),
            vectors: exception::vectors(),
            core: 0,
            function: function.addr() as u64,
        };
        PerCore::new(index, mpidr, stacks, machine.timer, enter)
    };
    let mut blocks: Box<[PerCore]> = machine.cores.iter().copied().zip(stacks).enumerate().map(block).collect();
    for block in &mut blocks {
        block.enter.core = (&raw const *block).expose_provenance() as u64;
    }
    let blocks: &'static [PerCore] = Box::leak(blocks);
    cores::set_all(blocks);
    let conduit = machine.psci.ok_or(Failure::Wrong(Wrong::Missing("PSCI")))?;
    PLATFORM.call_once(|| Platform { machine, map: Mutex::new(map), its: Mutex::new(None), conduit, started_at });
    // Cores that start with their MMU off fetch past the caches.
    image.sections.iter().filter(|section| section.access == Access::Execute).for_each(|section| map::clean(section.range));
    Ok(&blocks[0])
}

/// Everything that is mapped.
fn fill(mut layout: Layout, machine: &Machine, image: &Image, heap: Range) -> Result<Layout, MapError> {
    image.guards.iter().for_each(|guard| layout.guard(*guard));
    for section in &image.sections {
        let (name, attribute) = match section.access {
            Access::Execute => ("code", Attribute::Code),
            Access::Read => ("constants", Attribute::ReadOnly),
            Access::Write => ("data", Attribute::Data),
        };
        layout.add(name, section.range, attribute).map_err(MapError::Taken)?;
    }
    layout.add_memory("heap", heap).ok_or(MapError::Pieces)?;
    for piece in machine.memory.free.iter() {
        layout.add_memory("memory", piece).ok_or(MapError::Pieces)?;
    }
    layout.add_devices(machine).map_err(MapError::Taken)?;
    Ok(layout)
}

/// Turns the machine off, if it is known by now how; comes back if not.
pub fn off() {
    PLATFORM.get().into_iter().for_each(|platform| psci::system_off(platform.conduit));
}

/// On the first core, in our own world.
extern "C" fn first(_: &Enter) -> ! {
    unsafe extern "Rust" {
        fn toe_board_main(platform: &'static Platform) -> !;
    }
    let Some(platform) = PLATFORM.get() else { refuse(&"entered before all was prepared") };
    if let Some(uart) = platform.machine.uart {
        // SAFETY: a PL011, as the tables say, mapped as a device by our tables.
        unsafe { console::set(uart) };
    }
    if let Err(error) = interrupts(platform) {
        refuse(&Failure::Gic(error));
    }
    if let Some(block) = cores::all().first() {
        block.state.store(state::RUNNING, Ordering::Release);
    }
    // SAFETY: `board!` defines it with this type.
    unsafe { toe_board_main(platform) }
}

/// Distributor, redistributors of all cores, this core's own end, and the ITS with LPIs if there is one.
fn interrupts(platform: &Platform) -> Result<(), GicError> {
    let gic = &platform.machine.gic;
    // SAFETY: as the tables say, mapped as devices by our tables; the GIC touches only the tables in memory that it is given.
    let registers = |range: Range| unsafe { Registers::new(range) };
    let distributor = gic.distributor.ok_or(GicError::Lacks("distributor", 0))?;
    distributor::init(registers(distributor))?;
    let ranges: Vec<Registers> = gic.redistributors.iter().map(|range| registers(*range)).collect();
    let blocks = cores::all();
    let found: Result<Vec<_>, _> = blocks.iter().map(|core| redistributor::find(gic, &ranges, core.mpidr)).collect();
    let found = found?;
    for (core, redistributor) in blocks.iter().zip(&found) {
        core.redistributor.call_once(|| *redistributor);
    }
    if let Some(first) = blocks.first() {
        first.init()?;
    }
    if let Some(its) = gic.its {
        let lpis = Lpis::new()?;
        found.iter().try_for_each(|redistributor| lpis.enable(redistributor))?;
        *platform.its.lock() = Some(Its::new(registers(its), lpis, &found)?);
    }
    Ok(())
}
