//! Finding ACPI tables (ACPI 6.5, 5.2) by physical address, each checked before it is used.
//!
//! ```text
//!   RSDP ─► XSDT ─► MADT  MCFG  SPCR  GTDT  FADT      header: signature, length, checksum
//! ```

use crate::machine::Wrong;

/// Bytes of the header that all tables but the RSDP have.
pub const HEADER: usize = 36;
/// No table that we read is longer.
const TABLE_MAX: usize = 1 << 20;
/// Bytes of the RSDP of revision 2.
const RSDP: usize = 36;

/// Physical memory, as far as it may be read.
pub trait Physical {
    /// The bytes there, `None` if any of them is not plain memory: a table may say any address.
    fn bytes(&self, base: u64, len: usize) -> Option<&[u8]>;
}

/// Numbers in a table, little endian.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    pub fn u8(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    pub fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// What begins at `at`: structures of (kind, length) one after the other, as in a MADT. One that is too short ends it with `None`.
    pub fn structures(&self, mut at: usize) -> impl Iterator<Item = Option<(u8, Bytes<'a>)>> + use<'a> {
        let bytes = self.0;
        core::iter::from_fn(move || {
            let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
            let found = || {
                let (kind, len) = (*rest.first()?, usize::from(*rest.get(1)?));
                Some((len, kind, Bytes(rest.get(..len).filter(|one| one.len() >= 2)?)))
            };
            match found() {
                Some((len, kind, one)) => {
                    at += len;
                    Some(Some((kind, one)))
                }
                None => {
                    at = bytes.len();
                    Some(None)
                }
            }
        })
    }
}

fn sum_is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

/// The tables that the XSDT names.
pub struct Tables<'a, P> {
    memory: &'a P,
    xsdt: Bytes<'a>,
}

impl<'a, P: Physical> Tables<'a, P> {
    pub fn new(memory: &'a P, rsdp: u64) -> Result<Self, Wrong> {
        let damaged = Wrong::Damaged("ACPI root pointer");
        let bytes = memory.bytes(rsdp, RSDP).ok_or(damaged)?;
        let root = Bytes(bytes);
        // Revision 2 has the XSDT, and no Arm machine is older (5.2.5.3).
        if !bytes.starts_with(b"RSD PTR ") || !sum_is_zero(bytes) || root.u8(15).unwrap_or(0) < 2 {
            return Err(damaged);
        }
        let xsdt = table(memory, root.u64(24).unwrap_or(0), *b"XSDT").ok_or(Wrong::Damaged("XSDT"))?;
        Ok(Self { memory, xsdt })
    }

    /// The first table of that name.
    pub fn find(&self, signature: [u8; 4], name: &'static str) -> Result<Bytes<'a>, Wrong> {
        let count = (self.xsdt.0.len() - HEADER) / 8;
        let addresses = (0..count).filter_map(|i| self.xsdt.u64(HEADER + 8 * i));
        let mut damaged = false;
        for address in addresses {
            if self.memory.bytes(address, 4) == Some(&signature[..]) {
                match table(self.memory, address, signature) {
                    Some(table) => return Ok(table),
                    None => damaged = true,
                }
            }
        }
        Err(if damaged { Wrong::Damaged(name) } else { Wrong::Missing(name) })
    }
}

fn table<P: Physical>(memory: &P, address: u64, signature: [u8; 4]) -> Option<Bytes<'_>> {
    let header = memory.bytes(address, HEADER).filter(|header| header.starts_with(&signature))?;
    let len = Bytes(header).u32(4)? as usize;
    let bytes = memory.bytes(address, Some(len).filter(|len| (HEADER..=TABLE_MAX).contains(len))?)?;
    sum_is_zero(bytes).then_some(Bytes(bytes))
}
