//! The PCI configuration space of the soft card: what a host reads to find out what it has before it.
//!
//! Interrupts go through SET_IRQS, so the MSI-X table (in BAR 1) is never looked at; it is there for hosts that check.

use toe_abi::regs;

/// Bytes of configuration space.
pub const LEN: usize = 256;

const STATUS_CAPABILITIES: u16 = 1 << 4;
const COMMAND_WRITABLE: u16 = 0x0406;
/// Network controller, Ethernet.
const CLASS: [u8; 3] = [0x00, 0x00, 0x02];
const BAR0: usize = 0x10;
const BAR1: usize = 0x14;
const CAPABILITIES: usize = 0x34;
const MSIX_AT: usize = 0x40;
const MSIX_ID: u8 = 0x11;
/// Enable and function mask.
const MSIX_CONTROL_WRITABLE: u16 = 0xc000;
const MSIX_BAR: u32 = 1;
const MSIX_ENTRY_LEN: u32 = 16;

/// Most vectors of an MSI-X table.
pub const MSIX_MAX: u16 = 2048;

/// Bytes of BAR 1 for so many vectors: table, then pending bits.
pub fn bar1_len(vectors: u16) -> u32 {
    (pending_at(vectors) + u32::from(vectors).div_ceil(64) * 8).next_power_of_two().max(4096)
}

fn pending_at(vectors: u16) -> u32 {
    u32::from(vectors) * MSIX_ENTRY_LEN
}

pub struct ConfigSpace {
    bytes: [u8; LEN],
    /// Bits that the host can change.
    writable: [u8; LEN],
}

impl ConfigSpace {
    /// For a card with this many MSI-X vectors (1 to [`MSIX_MAX`]).
    pub fn new(vectors: u16) -> Self {
        let vectors = vectors.clamp(1, MSIX_MAX);
        let mut this = Self { bytes: [0; LEN], writable: [0; LEN] };
        this.put(0x00, &regs::PCI_VENDOR.to_le_bytes());
        this.put(0x02, &regs::PCI_DEVICE.to_le_bytes());
        this.put(0x06, &STATUS_CAPABILITIES.to_le_bytes());
        this.put(0x09, &CLASS);
        this.put(0x2c, &regs::PCI_VENDOR.to_le_bytes());
        this.put(0x2e, &regs::PCI_DEVICE.to_le_bytes());
        this.put(CAPABILITIES, &[MSIX_AT as u8]);
        this.put(MSIX_AT, &[MSIX_ID, 0]);
        this.put(MSIX_AT + 2, &(vectors - 1).to_le_bytes());
        this.put(MSIX_AT + 4, &MSIX_BAR.to_le_bytes());
        this.put(MSIX_AT + 8, &(pending_at(vectors) | MSIX_BAR).to_le_bytes());
        this.allow(0x04, &COMMAND_WRITABLE.to_le_bytes());
        // Address bits above the size: so a host finds the size out by writing ones.
        this.allow(BAR0, &(!(regs::BAR0_LEN as u32 - 1)).to_le_bytes());
        this.allow(BAR1, &(!(bar1_len(vectors) - 1)).to_le_bytes());
        this.allow(MSIX_AT + 2, &MSIX_CONTROL_WRITABLE.to_le_bytes());
        this
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, at: usize, bits: &[u8]) {
        self.writable[at..at + bits.len()].copy_from_slice(bits);
    }

    /// Reads; past the end as all ones, as PCI does.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let at = usize::try_from(offset).unwrap_or(LEN).min(LEN);
        let from = self.bytes[at..].iter().copied().chain(std::iter::repeat(0xff));
        data.iter_mut().zip(from).for_each(|(to, from)| *to = from);
    }

    /// Writes the bits that can be written.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let at = usize::try_from(offset).unwrap_or(LEN).min(LEN);
        for ((to, mask), from) in self.bytes[at..].iter_mut().zip(&self.writable[at..]).zip(data) {
            *to = (*to & !mask) | (from & mask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(space: &ConfigSpace, at: u64) -> u32 {
        let mut bytes = [0; 4];
        space.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn identity_is_fixed() {
        let mut space = ConfigSpace::new(256);
        space.write(0, &[0; 4]);
        assert_eq!(word(&space, 0), u32::from(regs::PCI_DEVICE) << 16 | u32::from(regs::PCI_VENDOR));
    }

    #[test]
    fn bar_sizes_by_writing_ones() {
        let mut space = ConfigSpace::new(256);
        space.write(0x10, &[0xff; 8]);
        assert_eq!(!word(&space, 0x10) + 1, 4096);
        assert_eq!(!word(&space, 0x14) + 1, 8192);
        assert!(bar1_len(1) >= 4096 && bar1_len(2048) == 65536);
    }

    #[test]
    fn msix_is_found_by_walking_the_capabilities() {
        let space = ConfigSpace::new(256);
        let at = u64::from(word(&space, 0x34) & 0xff);
        assert_eq!(word(&space, at) & 0xff, 0x11);
        assert_eq!((word(&space, at) >> 16 & 0x7ff) + 1, 256);
    }

    #[test]
    fn outside_reads_as_ones_and_ignores_writes() {
        let mut space = ConfigSpace::new(1);
        assert_eq!(word(&space, 256), u32::MAX);
        assert_eq!(word(&space, u64::MAX), u32::MAX);
        let mut bytes = [0; 4];
        space.read(254, &mut bytes);
        assert_eq!(bytes, [0, 0, 0xff, 0xff]);
        space.write(254, &[1; 8]);
        space.write(u64::MAX, &[1; 8]);
    }
}
