//! The sections of our own image, when it came as a UEFI application: UEFI says only where the whole of it lies.
//!
//! ```text
//!   MZ header ─ 0x3c ─► PE signature │ COFF header: count │ optional header │ section headers (40 bytes each)
//! ```
//!
//! Microsoft PE format, "COFF File Header" and "Section Table".

use crate::acpi::tables::Bytes;
use crate::machine::Wrong;
use crate::range::Range;

/// Sections that an image may have.
pub const SECTIONS_MAX: usize = 16;

/// What may be done with the bytes of a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    Execute,
    Read,
    Write,
}

/// A section in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    pub range: Range,
    pub access: Access,
}

const WRITE: u32 = 1 << 31;
const EXECUTE: u32 = 1 << 29;

/// Sections of the image whose bytes begin with `header`, loaded at `base`. Whole pages; the headers are a section to read.
pub fn sections(header: &[u8], base: u64, len: u64) -> Result<heapless::Vec<Section, SECTIONS_MAX>, Wrong> {
    let damaged = Wrong::Damaged("header of our image");
    let image = Range::new(base, len).ok_or(damaged)?;
    let bytes = Bytes(header);
    let coff = bytes.u32(0x3c).ok_or(damaged)? as usize;
    if !header.starts_with(b"MZ") || header.get(coff..coff + 4) != Some(b"PE\0\0") {
        return Err(damaged);
    }
    let count = usize::from(bytes.u16(coff + 6).ok_or(damaged)?);
    let table = coff + 24 + usize::from(bytes.u16(coff + 20).ok_or(damaged)?);
    let mut sections = heapless::Vec::new();
    let mut push = |range: Range, access| {
        let section = Section { range: range.pages_out(), access };
        if !image.pages_out().covers(section.range) {
            return Err(damaged);
        }
        sections.push(section).map_err(|_| Wrong::TooMany("sections of our image", SECTIONS_MAX))
    };
    push(Range::new(base, 1).ok_or(damaged)?, Access::Read)?;
    for i in 0..count {
        let at = table + 40 * i;
        let u32 = |offset| bytes.u32(at + offset).ok_or(damaged);
        let (size, address, flags) = (u32(8)?, u32(12)?, u32(36)?);
        if size == 0 {
            continue;
        }
        let access = match flags {
            flags if flags & EXECUTE != 0 => Access::Execute,
            flags if flags & WRITE != 0 => Access::Write,
            _ => Access::Read,
        };
        push(Range::new(base + u64::from(address), u64::from(size)).ok_or(damaged)?, access)?;
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::range;
    use proptest::prelude::*;
    use std::vec::Vec;

    const BASE: u64 = 0x5000_0000;

    fn header(sections: &[(u32, u32, u32)]) -> Vec<u8> {
        let mut bytes = std::vec![0; 0x40];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x40;
        bytes.extend(b"PE\0\0\x64\xaa");
        bytes.extend((sections.len() as u16).to_le_bytes());
        bytes.resize(0x40 + 20, 0);
        bytes.extend(8_u16.to_le_bytes());
        bytes.resize(0x40 + 24 + 8, 0);
        for (size, address, flags) in sections {
            let at = bytes.len();
            bytes.resize(at + 40, 0);
            for (offset, word) in [(8, size), (12, address), (36, flags)] {
                bytes[at + offset..at + offset + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn sections_are_pages_with_their_access() {
        let header = header(&[(0x1234, 0x1000, EXECUTE), (8, 0x3000, 0), (0x1001, 0x4000, WRITE), (0, 0x9000, 0)]);
        let found = sections(&header, BASE, 0x6000).unwrap();
        let expected =
            [(0, 0x1000, Access::Read), (0x1000, 0x2000, Access::Execute), (0x3000, 0x1000, Access::Read), (0x4000, 0x2000, Access::Write)];
        let expected = expected.map(|(at, len, access)| Section { range: range(BASE + at, len), access });
        assert_eq!(found, expected);
        assert!(sections(&header, BASE, 0x5000).is_err(), "longer than the image");
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(changes in prop::collection::vec((0_usize..200, any::<u8>()), 0..8), len in 0_usize..250) {
            let mut header = header(&[(0x1234, 0x1000, EXECUTE), (8, 0x3000, 0)]);
            for (at, byte) in changes {
                let at = at % header.len();
                header[at] = byte;
            }
            header.truncate(len);
            for section in sections(&header, BASE, 0x6000).iter().flatten() {
                prop_assert!(range(BASE, 0x6000).covers(section.range));
            }
        }
    }
}
