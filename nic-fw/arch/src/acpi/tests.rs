use super::*;
use crate::machine::tests::{good, range};
use crate::machine::{CORES_MAX, Mpidr};
use proptest::prelude::*;
use std::vec::Vec;

/// Where the tables lie: the RSDP first.
const BASE: u64 = 0x7000_0000;

/// Memory from [`BASE`] on.
struct Ram(Vec<u8>);

impl Physical for Ram {
    fn bytes(&self, base: u64, len: usize) -> Option<&[u8]> {
        let at = usize::try_from(base.checked_sub(BASE)?).ok()?;
        self.0.get(at..at.checked_add(len)?)
    }
}

fn seal(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
}

fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend((36 + body.len() as u32).to_le_bytes());
    bytes.resize(36, 0);
    bytes.extend(body);
    seal(&mut bytes, 9);
    bytes
}

/// A structure of `len` bytes with `values` at their offsets.
fn structure(kind: u8, len: u8, values: &[(usize, u64, usize)]) -> Vec<u8> {
    let mut bytes = std::vec![0; usize::from(len)];
    bytes[..2].copy_from_slice(&[kind, len]);
    for (at, value, size) in values {
        bytes[*at..at + size].copy_from_slice(&value.to_le_bytes()[..*size]);
    }
    bytes
}

fn gicc(mpidr: u64) -> Vec<u8> {
    structure(kind::GICC, 80, &[(12, 1, 4), (68, mpidr, 8)])
}

fn good_madt(cores: u64) -> Vec<u8> {
    let mut body = std::vec![0; 8];
    body.extend((0..cores).flat_map(gicc));
    body.extend(structure(kind::GICC, 80, &[(68, 77, 8)])); // not enabled
    body.extend(structure(kind::GICD, 24, &[(8, 0x800_0000, 8), (20, 3, 1)]));
    body.extend(structure(kind::GICR, 16, &[(4, 0x80a_0000, 8), (12, 0xf6_0000, 4)]));
    body.extend(structure(kind::ITS, 20, &[(8, 0x808_0000, 8)]));
    table(b"APIC", &body)
}

fn good_tables(cores: u64) -> Vec<Vec<u8>> {
    let mut fadt = std::vec![0; 232];
    fadt[129 - 36] = 3;
    let mut gtdt = std::vec![0; 60];
    gtdt[64 - 36] = 27;
    let mut mcfg = std::vec![0; 8];
    mcfg.extend(0x40_1000_0000_u64.to_le_bytes());
    mcfg.extend([0, 0, 0, 255, 0, 0, 0, 0]);
    let mut spcr = std::vec![0; 44];
    spcr[0] = 3;
    spcr[8..16].copy_from_slice(&0x900_0000_u64.to_le_bytes());
    std::vec![table(b"FACP", &fadt), good_madt(cores), table(b"GTDT", &gtdt), table(b"MCFG", &mcfg), table(b"SPCR", &spcr)]
}

fn memory(tables: &[Vec<u8>]) -> Ram {
    let mut ram = b"RSD PTR \0OEMOEM\x02".to_vec();
    let mut addresses = Vec::new();
    let mut at = BASE + 64 + 36 + 8 * tables.len() as u64;
    for table in tables {
        addresses.extend(at.to_le_bytes());
        at += table.len() as u64;
    }
    ram.truncate(16);
    ram.extend([0; 8]);
    ram.extend((BASE + 64).to_le_bytes());
    ram.resize(36, 0);
    seal(&mut ram, 8);
    ram.resize(64, 0);
    ram.extend(table(b"XSDT", &addresses));
    tables.iter().for_each(|table| ram.extend(table));
    Ram(ram)
}

#[test]
fn all_tables_are_read() {
    let mut m = machine(&memory(&good_tables(4)), BASE).unwrap();
    assert_eq!(m.cores, [Mpidr(0), Mpidr(1), Mpidr(2), Mpidr(3)]);
    assert_eq!(m.gic.distributor, Some(range(0x800_0000, 0x1_0000)));
    assert_eq!(m.gic.redistributors, [range(0x80a_0000, 0xf6_0000)]);
    assert_eq!(m.gic.its, Some(range(0x808_0000, 0x2_0000)));
    assert_eq!((m.uart, m.psci, m.timer), (Some(range(0x900_0000, 0x1000)), Some(Conduit::Hvc), 27));
    assert_eq!(m.bridges[0].ecam, range(0x40_1000_0000, 256 << 20));
    m.memory = good().memory;
    assert_eq!(m.check(Mpidr(0)), Ok(()));
}

#[test]
fn a_console_that_is_turned_off_is_none() {
    let mut tables = good_tables(1);
    tables[4] = table(b"SPCR", &[3; 1].into_iter().chain([0; 43]).collect::<Vec<_>>());
    assert_eq!(machine(&memory(&tables), BASE).unwrap().uart, None);
}

#[test]
fn a_redistributor_for_each_core() {
    let mut tables = good_tables(0);
    let mut body = std::vec![0; 8];
    for core in 0..2 {
        body.extend(structure(kind::GICC, 80, &[(12, 1, 4), (60, 0x100_0000 * (core + 1), 8), (68, core, 8)]));
    }
    tables[1] = table(b"APIC", &body);
    let m = machine(&memory(&tables), BASE).unwrap();
    assert_eq!(m.gic.redistributors, [range(0x100_0000, 0x2_0000), range(0x200_0000, 0x2_0000)]);
}

#[test]
fn what_is_wrong_is_named() {
    let read = |tables: &[Vec<u8>]| machine(&memory(tables), BASE).err();
    let mut tables = good_tables(2);
    tables[1][50] ^= 1;
    assert_eq!(read(&tables), Some(Wrong::Damaged("MADT")), "checksum");
    assert_eq!(read(&good_tables(2)[..1]), Some(Wrong::Missing("MADT")));
    assert_eq!(read(&good_tables(CORES_MAX as u64 + 1)), Some(Wrong::TooMany("cores", CORES_MAX)));
    let mut tables = good_tables(2);
    tables[1] = table(b"APIC", &[0, 0, 0, 0, 0, 0, 0, 0, kind::GICD, 0]);
    assert_eq!(read(&tables), Some(Wrong::Damaged("MADT")), "a structure of no bytes");
    tables[1] = table(b"APIC", &[0, 0, 0, 0, 0, 0, 0, 0, kind::GICD, 24, 0]);
    assert_eq!(read(&tables), Some(Wrong::Damaged("MADT")), "a structure that is cut off");
    let mut tables = good_tables(2);
    tables.retain(|table| !table.starts_with(b"MCFG") && !table.starts_with(b"SPCR"));
    assert!(machine(&memory(&tables), BASE).is_ok(), "neither PCI nor a console");
    assert_eq!(machine(&memory(&good_tables(1)), BASE + 8).err(), Some(Wrong::Damaged("ACPI root pointer")));
    assert_eq!(machine(&memory(&good_tables(1)), u64::MAX).err(), Some(Wrong::Damaged("ACPI root pointer")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any bytes changed and checksums made good again: an answer or an error, and nothing read outside memory.
    #[test]
    fn spoilt_tables_are_read_or_refused(changes in prop::collection::vec((0_usize..5, 4_usize..600, any::<u8>()), 1..10), cut in 300_usize..2000) {
        let mut tables = good_tables(3);
        for (which, at, byte) in changes {
            let table = &mut tables[which];
            let at = at % table.len();
            table[at.max(4)] = byte;
            seal(table, 9);
        }
        let mut ram = memory(&tables);
        ram.0.truncate(cut);
        let _ = machine(&ram, BASE).map(|machine| machine.check(Mpidr(0)));
    }

    /// The root itself spoilt.
    #[test]
    fn a_spoilt_root_is_read_or_refused(changes in prop::collection::vec((8_usize..160, any::<u8>()), 1..6)) {
        let mut ram = memory(&good_tables(1));
        changes.into_iter().for_each(|(at, byte)| ram.0[at] = byte);
        seal(&mut ram.0[..36], 8);
        let len = ram.0.len().min(64 + 36 + 40);
        seal(&mut ram.0[64..len], 9);
        let _ = machine(&ram, BASE);
    }
}
