//! The interrupt translation service (IHI 0069, chapter 5): a device writes an event number to one register, and gets an LPI of a core.
//!
//! ```text
//!   MSI-X entry: (address, data = event)
//!     device id ─► device table ─► its event table: event ─► (LPI, collection) ─► collection table ─► redistributor
//!                      MAPD                    MAPTI                                  MAPC
//! ```
//!
//! Tables belong to the ITS; we write only commands. One collection for each core, numbered as the core.

use super::redistributor::Redistributor;
use super::{GicError, LIMIT_NS, LPI_FIRST, LPIS, PRIORITY};
use crate::bare::map::clean;
use crate::bare::mmio::Registers;
use crate::bare::time::wait_for;
use crate::range::Range;
use aarch64_cpu::asm::barrier;
use alloc::alloc::{Layout, alloc_zeroed};
use alloc::vec::Vec;
use core::ptr::NonNull;

const CTLR: usize = 0x0000;
const TYPER: usize = 0x0008;
const CBASER: usize = 0x0080;
const CWRITER: usize = 0x0088;
const CREADR: usize = 0x0090;
const BASER: usize = 0x0100;
/// The register that devices write to, in the second frame.
const TRANSLATER: u64 = 0x1_0040;

const ENABLED: u32 = 1;
const QUIESCENT: u64 = 1 << 31;
const STALLED: u64 = 1;
const VALID: u64 = 1 << 63;
/// Inner shareable, write-back and allocating.
const SHARED: u64 = 1 << 10 | 7 << 59;
const SHAREABILITY: u64 = 3 << 10;
const PTA: u64 = 1 << 19;

/// Tables start where 16 bits are zero: what every size of page allows.
const ALIGN: usize = 0x1_0000;
/// Device ids: bus, device, function.
const DEVICE_BITS: u32 = 16;
/// Commands that the queue has room for: 64 KiB of 32 bytes.
const COMMANDS: u64 = 2048;
/// No more events of a device than MSI-X has.
pub const EVENTS_MAX: u32 = 2048;

/// Commands (5.3).
mod command {
    pub const INT: u64 = 0x03;
    pub const SYNC: u64 = 0x05;
    pub const MAPD: u64 = 0x08;
    pub const MAPC: u64 = 0x09;
    pub const MAPTI: u64 = 0x0a;
    pub const INV: u64 = 0x0c;
    pub const INVALL: u64 = 0x0d;
}

/// Zeroed memory that the controller uses from now on, for ever.
struct Table {
    base: NonNull<u8>,
    len: usize,
}

impl Table {
    fn new(what: &'static str, len: usize) -> Result<Self, GicError> {
        let len = len.next_multiple_of(ALIGN);
        let layout = Layout::from_size_align(len, ALIGN).map_err(|_| GicError::Exhausted(what))?;
        // SAFETY: the size is not 0.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(GicError::Exhausted(what))?;
        let table = Self { base, len };
        table.clean(0, len);
        Ok(table)
    }

    fn address(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }

    /// Writes back what caches have of a part, for a controller that does not look into them. Costs little, and only start-up does it.
    fn clean(&self, offset: usize, len: usize) {
        Range::new(self.address() + offset as u64, len as u64).into_iter().for_each(clean);
    }

    fn write64(&self, offset: usize, value: u64) {
        assert!(offset + 8 <= self.len, "inside the table");
        // SAFETY: inside the table and aligned; the controller reads it only when told, behind a barrier.
        unsafe { self.base.add(offset).cast::<u64>().write_volatile(value) };
    }

    fn write8(&self, offset: usize, value: u8) {
        assert!(offset < self.len, "inside the table");
        // SAFETY: as above.
        unsafe { self.base.add(offset).write_volatile(value) };
    }
}

// SAFETY: the memory is nobody else's but the controller's.
unsafe impl Send for Table {}

/// What a device is told: write `data` to `address`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    pub address: u64,
    pub data: u32,
}

struct Device {
    id: u32,
    events: u32,
    /// Kept: the ITS uses it.
    _table: Table,
}

/// The ITS of the machine.
pub struct Its {
    registers: Registers,
    queue: Table,
    settings: Table,
    /// For each core: what commands call it.
    targets: Vec<u64>,
    devices: Vec<Device>,
    next_command: u64,
    next_lpi: u32,
}

/// The tables of LPIs, shared by all redistributors.
pub struct Lpis {
    settings: Table,
}

impl Lpis {
    pub fn new() -> Result<Self, GicError> {
        let settings = Table::new("memory for settings of LPIs", LPIS as usize)?;
        // Off, until an event is mapped to one.
        (0..LPIS as usize).for_each(|lpi| settings.write8(lpi, PRIORITY));
        settings.clean(0, LPIS as usize);
        Ok(Self { settings })
    }

    /// Lets a core have LPIs.
    pub fn enable(&self, redistributor: &Redistributor) -> Result<(), GicError> {
        // A bit for each identifier, also of those that are no LPIs.
        let pending = Table::new("memory for pending LPIs", (LPI_FIRST + LPIS) as usize / 8)?;
        redistributor.enable_lpis(self.settings.address(), pending.address())?;
        // It is the redistributor's now: `Table` gives nothing back.
        Ok(())
    }
}

impl Its {
    /// Starts it, with a collection for each of `cores`, in their order.
    pub fn new(registers: Registers, lpis: Lpis, cores: &[Redistributor]) -> Result<Self, GicError> {
        registers.write32(CTLR, registers.read32(CTLR) & !ENABLED);
        let ctlr = || u64::from(registers.read32(CTLR));
        wait_for("GITS_CTLR.Quiescent = 1", LIMIT_NS, ctlr, |ctlr| ctlr & QUIESCENT != 0)?;
        let typer = registers.read64(TYPER);
        // Bit 0: physical LPIs.
        if typer & 1 == 0 {
            return Err(GicError::Lacks("physical LPIs", typer));
        }
        (0..8).try_for_each(|i| give_table(registers, typer, BASER + 8 * i, cores.len()))?;
        let queue = Table::new("memory for commands", COMMANDS as usize * 32)?;
        let pages = COMMANDS * 32 / 4096;
        registers.write64(CBASER, VALID | SHARED | queue.address() | (pages - 1));
        registers.write64(CWRITER, 0);
        registers.write32(CTLR, ENABLED);
        let target = |core: &Redistributor| if typer & PTA != 0 { core.base() } else { core.number() << 16 };
        let targets = cores.iter().map(target).collect();
        let mut its =
            Self { registers, queue, settings: lpis.settings, targets, devices: Vec::new(), next_command: 0, next_lpi: LPI_FIRST };
        for core in 0..cores.len() {
            its.send(core, [command::MAPC, 0, its.targets[core] | core as u64 | VALID, 0])?;
            its.send(core, [command::INVALL, 0, core as u64, 0])?;
        }
        Ok(its)
    }

    /// Makes an event of a device an LPI of a core. `events`: how many this device has, said with its first.
    /// The message that raises it, and the LPI that [`sleep`](crate::cores::sleep_until) then tells.
    pub fn map(&mut self, device: u32, events: u32, event: u32, core: usize) -> Result<(Message, u32), GicError> {
        if core >= self.targets.len() {
            return Err(GicError::Exhausted("cores"));
        }
        self.device(device, events, core)?;
        if !self.devices.iter().any(|known| known.id == device && event < known.events) {
            return Err(GicError::Exhausted("events of the device"));
        }
        let lpi = self.next_lpi;
        if lpi >= LPI_FIRST + LPIS {
            return Err(GicError::Exhausted("LPIs"));
        }
        self.next_lpi += 1;
        let setting = (lpi - LPI_FIRST) as usize;
        self.settings.write8(setting, PRIORITY | 1);
        self.settings.clean(setting, 1);
        let id = u64::from(device) << 32;
        self.send(core, [command::MAPTI | id, u64::from(event) | u64::from(lpi) << 32, core as u64, 0])?;
        self.send(core, [command::INV | id, u64::from(event), 0, 0])?;
        Ok((Message { address: self.registers.range().base() + TRANSLATER, data: event }, lpi))
    }

    /// Raises an event as the device would.
    pub fn raise(&mut self, device: u32, event: u32, core: usize) -> Result<(), GicError> {
        self.send(core, [command::INT | u64::from(device) << 32, u64::from(event), 0, 0])
    }

    fn device(&mut self, device: u32, events: u32, core: usize) -> Result<(), GicError> {
        if self.devices.iter().any(|known| known.id == device) {
            return Ok(());
        }
        if device >> DEVICE_BITS != 0 || events == 0 || events > EVENTS_MAX {
            return Err(GicError::Exhausted("devices, or events"));
        }
        let bits = events.next_power_of_two().trailing_zeros().max(1);
        // Bits 7 to 4: bytes of an entry, minus one.
        let entry = (self.registers.read64(TYPER) >> 4 & 15) as usize + 1;
        let table = Table::new("memory for events", entry << bits)?;
        self.send(core, [command::MAPD | u64::from(device) << 32, u64::from(bits - 1), table.address() | VALID, 0])?;
        self.devices.push(Device { id: device, events, _table: table });
        Ok(())
    }

    /// Has a command done, and what it changes seen by `core`.
    fn send(&mut self, core: usize, command: [u64; 4]) -> Result<(), GicError> {
        self.push(command);
        self.push([command::SYNC, 0, self.targets[core], 0]);
        barrier::dsb(barrier::SY);
        let write = self.next_command * 32;
        self.registers.write64(CWRITER, write);
        let done = wait_for(
            "GITS_CREADR = GITS_CWRITER",
            LIMIT_NS,
            || self.registers.read64(CREADR),
            |read| read == write || read & STALLED != 0,
        )?;
        if done & STALLED != 0 { Err(GicError::Refused(command[0], done)) } else { Ok(()) }
    }

    /// The queue is never full: each command is waited for.
    fn push(&mut self, command: [u64; 4]) {
        let at = self.next_command as usize * 32;
        command.iter().enumerate().for_each(|(i, word)| self.queue.write64(at + 8 * i, *word));
        self.queue.clean(at, 32);
        self.next_command = (self.next_command + 1) % COMMANDS;
    }
}

/// Gives the ITS the memory that a GITS_BASER asks for: kind (58 to 56) 1 devices, 4 collections; bytes of an entry (52 to 48).
fn give_table(registers: Registers, typer: u64, baser: usize, cores: usize) -> Result<(), GicError> {
    let asked = registers.read64(baser);
    let entry = (asked >> 48 & 31) as usize + 1;
    let entries = match asked >> 56 & 7 {
        // Bits 17 to 13 of GITS_TYPER: bits of a device id, minus one.
        1 => 1 << DEVICE_BITS.min((typer >> 13 & 31) as u32 + 1),
        4 => cores,
        _ => return Ok(()),
    };
    // Which sizes of page it has only shows when one is written: 4, 16, 64 KiB (bits 9 and 8).
    for (size, bytes) in [(2_u64, 0x1_0000_usize), (1, 0x4000), (0, 0x1000)] {
        registers.write64(baser, size << 8);
        if registers.read64(baser) >> 8 & 3 != size {
            continue;
        }
        let pages = (entry * entries).div_ceil(bytes);
        if pages > 256 {
            return Err(GicError::Lacks("pages large enough for its tables", asked));
        }
        let table = Table::new("memory for tables of the ITS", pages * bytes)?;
        let value = VALID | SHARED | table.address() | size << 8 | (pages as u64 - 1);
        registers.write64(baser, value);
        if registers.read64(baser) & SHAREABILITY == 0 {
            // Then it must be told not to cache either: what it was told is not what it does (5.2, 12.19.1).
            registers.write64(baser, value & !SHARED | 1 << 59);
        }
        return Ok(());
    }
    Err(GicError::Lacks("page size that we know", asked))
}
