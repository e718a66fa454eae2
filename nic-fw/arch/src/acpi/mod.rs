//! What ACPI tables say about the machine.
//!
//! ```text
//!   MADT  cores, GIC distributor, redistributors, ITS
//!   MCFG  PCI configuration space          (windows of a bridge: only UEFI says, see `bare::uefi`)
//!   SPCR  UART      GTDT  timer      FADT  PSCI
//! ```
//!
//! Numbers of sections are those of ACPI 6.5.

pub mod tables;
#[cfg(test)]
mod tests;

use crate::machine::{Conduit, DISTRIBUTOR_LEN, ECAM_PER_BUS, ITS_LEN, Machine, PciBridge, REDISTRIBUTOR_LEN, UART_LEN, Wrong};
pub use tables::Physical;
use tables::{Bytes, HEADER, Tables};

/// Reads the tables below the RSDP at `rsdp`. Memory, the windows of bridges and the command line are left empty: UEFI knows them.
pub fn machine<P: Physical>(memory: &P, rsdp: u64) -> Result<Machine, Wrong> {
    let tables = Tables::new(memory, rsdp)?;
    let mut machine = Machine::default();
    madt(&mut machine, tables.find(*b"APIC", "MADT")?)?;
    fadt(&mut machine, tables.find(*b"FACP", "FADT")?)?;
    gtdt(&mut machine, tables.find(*b"GTDT", "GTDT")?)?;
    // A machine need not have PCI, nor a console.
    optional(tables.find(*b"MCFG", "MCFG"), |table| mcfg(&mut machine, table))?;
    optional(tables.find(*b"SPCR", "SPCR"), |table| spcr(&mut machine, table))?;
    Ok(machine)
}

fn optional<'a>(table: Result<Bytes<'a>, Wrong>, read: impl FnOnce(Bytes<'a>) -> Result<(), Wrong>) -> Result<(), Wrong> {
    match table {
        Err(Wrong::Missing(_)) => Ok(()),
        other => read(other?),
    }
}

/// Structures of a MADT (5.2.12).
mod kind {
    pub const GICC: u8 = 0x0b;
    pub const GICD: u8 = 0x0c;
    pub const GICR: u8 = 0x0e;
    pub const ITS: u8 = 0x0f;
}

fn madt(machine: &mut Machine, table: Bytes<'_>) -> Result<(), Wrong> {
    let damaged = Wrong::Damaged("MADT");
    // Behind the header: two words for x86.
    for structure in table.structures(HEADER + 8) {
        let (kind, bytes) = structure.ok_or(damaged)?;
        let u64 = |at| bytes.u64(at).ok_or(damaged);
        match kind {
            kind::GICC => gicc(machine, bytes).ok_or(damaged)??,
            kind::GICD => machine.gic.distributor = Some(Machine::range("GIC distributor", u64(8)?, DISTRIBUTOR_LEN)?),
            kind::GICR => {
                let len = bytes.u32(12).ok_or(damaged)?;
                machine.add_redistributor(Machine::range("GIC redistributors", u64(4)?, u64::from(len))?)?;
            }
            // The first one serves all devices of the machines that we know.
            kind::ITS if machine.gic.its.is_none() => machine.gic.its = Some(Machine::range("GIC ITS", u64(8)?, ITS_LEN)?),
            _ => {}
        }
    }
    Ok(())
}

/// A core, and its redistributor where these are not in one range (5.2.12.14).
fn gicc(machine: &mut Machine, bytes: Bytes<'_>) -> Option<Result<(), Wrong>> {
    let (flags, redistributor, mpidr) = (bytes.u32(12)?, bytes.u64(60)?, bytes.u64(68)?);
    // Bit 0: enabled.
    if flags & 1 == 0 {
        return Some(Ok(()));
    }
    let result = machine.add_core(mpidr).and_then(|()| match redistributor {
        0 => Ok(()),
        base => machine.add_redistributor(Machine::range("GIC redistributor", base, REDISTRIBUTOR_LEN)?),
    });
    Some(result)
}

/// Flags for Arm (5.2.9.4): bit 0 PSCI is there, bit 1 by HVC.
fn fadt(machine: &mut Machine, table: Bytes<'_>) -> Result<(), Wrong> {
    let flags = table.u16(129).ok_or(Wrong::Damaged("FADT"))?;
    machine.psci = match flags & 3 {
        1 => Some(Conduit::Smc),
        3 => Some(Conduit::Hvc),
        _ => None,
    };
    Ok(())
}

/// The virtual timer of EL1 (5.2.25).
fn gtdt(machine: &mut Machine, table: Bytes<'_>) -> Result<(), Wrong> {
    machine.timer = table.u32(64).ok_or(Wrong::Damaged("GTDT"))?;
    Ok(())
}

/// PCI Firmware Specification 3.3, 4.1.2: 8 bytes, then 16 for each segment.
fn mcfg(machine: &mut Machine, table: Bytes<'_>) -> Result<(), Wrong> {
    let damaged = Wrong::Damaged("MCFG");
    let entries = table.0.get(HEADER + 8..).ok_or(damaged)?;
    for entry in entries.chunks_exact(16).map(Bytes) {
        let (base, segment) = entry.u64(0).zip(entry.u16(8)).ok_or(damaged)?;
        let (first_bus, last_bus) = entry.u8(10).zip(entry.u8(11)).ok_or(damaged)?;
        // The base is that of bus 0, whichever is first.
        let base = base.checked_add(u64::from(first_bus) * ECAM_PER_BUS).ok_or(damaged)?;
        let buses = u64::from(last_bus.saturating_sub(first_bus)) + 1;
        let ecam = Machine::range("PCI configuration space", base, buses * ECAM_PER_BUS)?;
        machine.add_bridge(PciBridge { ecam, segment, first_bus, last_bus, windows: heapless::Vec::new() })?;
    }
    Ok(())
}

/// Serial Port Console Redirection: kinds 3 (PL011) and 0xe (SBSA, a part of it) in memory.
fn spcr(machine: &mut Machine, table: Bytes<'_>) -> Result<(), Wrong> {
    let damaged = Wrong::Damaged("SPCR");
    let (kind, space) = table.u8(36).zip(table.u8(40)).ok_or(damaged)?;
    let base = table.u64(44).ok_or(damaged)?;
    // Address 0: the operator has turned the console off.
    if matches!(kind, 3 | 0xe) && space == 0 && base != 0 {
        machine.uart = Some(Machine::range("UART", base, UART_LEN)?);
    }
    Ok(())
}
