//! Device trees that lie: QEMU's own, with one property changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use toe_lab::job;

use crate::cargo;

/// Writing a tree takes QEMU a moment.
const LIMIT: Duration = Duration::from_secs(20);

/// A change, and what start-up says to it.
pub struct Lie {
    pub name: &'static str,
    /// Bytes that are there once, and what they become.
    was: &'static [u8],
    becomes: &'static [u8],
    /// Nothing, where the lie is about the console.
    pub says: &'static [&'static str],
}

/// `reg` of two words each: an address and a length.
const fn reg<const N: usize>(base: u64, len: u64) -> [u8; N] {
    assert!(N == 16);
    let (base, len) = (base.to_be_bytes(), len.to_be_bytes());
    let mut bytes = [0; N];
    let mut i = 0;
    while i < 8 {
        bytes[i] = base[i];
        bytes[8 + i] = len[i];
        i += 1;
    }
    bytes
}

const ITS: &[u8] = &reg::<16>(0x808_0000, 0x2_0000);
const ECAM: &[u8] = &reg::<16>(0x40_1000_0000, 0x1000_0000);
const UART: &[u8] = &reg::<16>(0x900_0000, 0x1000);

pub const LIES: &[Lie] = &[
    Lie { name: "another GIC", was: b"arm,gic-v3\0", becomes: b"arm,gic-v9\0", says: &["start-up refused: no GICv3 distributor"] },
    Lie {
        name: "an ITS on the distributor",
        was: ITS,
        becomes: &reg::<16>(0x800_0000, 0x2_0000),
        says: &["start-up refused: GIC distributor at 0x8000000..0x8010000 and GIC ITS at 0x8000000..0x8020000 overlap"],
    },
    Lie {
        name: "configuration space of no bytes",
        was: ECAM,
        becomes: &reg::<16>(0x40_1000_0000, 0),
        says: &["start-up refused: PCI configuration space at 0x4010000000, 0x0 bytes: not a range of addresses"],
    },
    Lie {
        name: "configuration space past the end of addresses",
        was: ECAM,
        becomes: &reg::<16>(0xffff_ffff_fff0_0000, 0x1000_0000),
        says: &["PCI configuration space at 0xfffffffffff00000", "not a range of addresses"],
    },
    Lie { name: "a console in memory", was: UART, becomes: &reg::<16>(0x4100_0000, 0x1000), says: &[] },
];

/// Has QEMU write the tree of the machine that `machine` describes, and changes it. The file.
pub fn tell(lie: &Lie, mut qemu: Command) -> Result<PathBuf> {
    let folder = cargo::target_dir().join("image");
    let file = folder.join("lie.dtb");
    let _ = fs::remove_file(&file);
    qemu.arg("-machine").arg(format!("dumpdtb={}", file.display()));
    job::run(qemu, LIMIT)?;
    change(lie, &file)?;
    Ok(file)
}

fn change(lie: &Lie, file: &Path) -> Result<()> {
    let mut tree = fs::read(file).with_context(|| format!("QEMU has not written {}", file.display()))?;
    let places: Vec<usize> = tree.windows(lie.was.len()).enumerate().filter(|(_, bytes)| *bytes == lie.was).map(|(at, _)| at).collect();
    ensure!(places.len() == 1 && lie.was.len() == lie.becomes.len(), "{}: what is to change is there {} times", lie.name, places.len());
    tree[places[0]..][..lie.was.len()].copy_from_slice(lie.becomes);
    trim(&mut tree);
    fs::write(file, tree).with_context(|| format!("cannot write {}", file.display()))
}

/// Takes the room off that QEMU has left for more: it would double it, and then not find a place for the tree before our image.
fn trim(tree: &mut Vec<u8>) {
    // Header (Devicetree Specification 5.2): 4 total size; 8 and 12 offsets, 36 and 32 sizes of structure and strings.
    let word = |at: usize| tree.get(at..at + 4).map_or(0, |word| word.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)));
    let end = (word(8) + word(36)).max(word(12) + word(32)).clamp(40, tree.len());
    tree.truncate(end);
    tree[4..8].copy_from_slice(&(end as u32).to_be_bytes());
}
