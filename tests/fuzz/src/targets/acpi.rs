//! ACPI tables. The first eight bytes say where the RSDP is; the rest is memory from [`BASE`] on.
//!
//! Checksums are made right first: else hardly any input would get past them.

use toe_arch::acpi::{self, Physical};
use toe_arch::machine::Machine;

/// Where the memory begins that a table may lie in.
const BASE: u64 = 0x4000_0000;
/// Where a table says how long it is, and where its checksum is.
const LENGTH: usize = 4;
const CHECKSUM: usize = 9;

struct Memory(Vec<u8>);

impl Physical for Memory {
    fn bytes(&self, base: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(base.checked_sub(BASE)?).ok()?;
        self.0.get(from..from.checked_add(len)?)
    }
}

pub fn run(data: &[u8]) {
    let Some((at, memory)) = data.split_first_chunk() else { return };
    let mut memory = memory.to_vec();
    mend(&mut memory);
    if let Ok(machine) = acpi::machine(&Memory(memory), u64::from_le_bytes(*at)) {
        look_at(&machine);
    }
}

fn mend(memory: &mut [u8]) {
    for at in (0..memory.len()).step_by(4) {
        let Some(table) = memory.get_mut(at..) else { return };
        if table.starts_with(b"RSD PTR ") {
            mend_one(table, 20, 8);
            mend_one(table, 36, 32);
        } else if [b"XSDT", b"APIC", b"FACP", b"GTDT", b"MCFG", b"SPCR"].iter().any(|name| table.starts_with(*name)) {
            let len = table.get(LENGTH..).and_then(|rest| rest.first_chunk()).map_or(0, |len| u32::from_le_bytes(*len));
            mend_one(table, len as usize, CHECKSUM);
        }
    }
}

/// Makes the bytes of a table add up to zero.
fn mend_one(table: &mut [u8], len: usize, checksum: usize) {
    let Some(table) = table.get_mut(..len).filter(|table| table.len() > checksum) else { return };
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[checksum] = table[checksum].wrapping_sub(sum);
}

/// Everything that a board does with what the tables said, before it believes them.
pub fn look_at(machine: &Machine) {
    let first = machine.cores.first().copied();
    let sound = first.is_some_and(|boot| machine.check(boot).is_ok());
    let windows = machine.windows().count();
    assert!(!sound || machine.devices().count() >= 1, "a sound machine without devices, {windows} windows");
}
