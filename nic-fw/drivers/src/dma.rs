//! Memory that this machine and a device share.
//!
//! ```text
//!   board's block [ rings | rings | buffers ........................ ]   base: for this core; device: the same byte for the device
//!                   └take──┴take───┴take
//! ```

use core::ptr::NonNull;

/// A block of memory, by the address that this core uses and by the one that devices use. Taken apart from the front with
/// [`take`](Self::take), so no two owners have the same byte. Accesses are raw: a device may write at any time.
#[derive(Debug)]
pub struct DmaMemory {
    base: NonNull<u8>,
    device: u64,
    len: usize,
}

// SAFETY: the memory is valid on every core for ever (see `DmaMemory::new`), and only the owner reaches it through this.
unsafe impl Send for DmaMemory {}

impl DmaMemory {
    /// # Safety
    /// `len` bytes at `base` are readable and writable normal memory, mapped for ever, coherent with the devices that they are handed to,
    /// and used by nobody else. Devices reach the same bytes at `device` and following: the physical address, or what an IOMMU translates
    /// to it. The block may be used for something else only when every device that had part of it has been reset.
    pub const unsafe fn new(base: NonNull<u8>, device: u64, len: usize) -> Self {
        Self { base, device, len }
    }

    /// Bytes left.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Splits off `len` bytes whose addresses, both, are multiples of `align` (a power of two). `None`: too little is left, nothing is
    /// taken.
    pub fn take(&mut self, len: usize, align: usize) -> Option<Self> {
        let skip = (self.base.as_ptr() as usize).wrapping_neg() & (align.checked_sub(1)?);
        let end = skip.checked_add(len)?;
        let device = self.device.checked_add(skip as u64)?;
        if end > self.len || !device.is_multiple_of(align as u64) {
            return None;
        }
        // SAFETY: skip and end lie inside the block.
        let (base, rest) = unsafe { (self.base.add(skip), self.base.add(end)) };
        self.device = self.device.checked_add(end as u64)?;
        (self.base, self.len) = (rest, self.len - end);
        Some(Self { base, device, len })
    }

    /// For this core.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// What a device calls the first byte.
    pub fn device_address(&self) -> u64 {
        self.device
    }

    /// Sets all bytes to zero.
    pub fn clear(&mut self) {
        // SAFETY: inside the block, which is the owner's.
        unsafe { self.base.as_ptr().write_bytes(0, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(4096))]
    struct Page([u8; 4096]);

    fn block(page: &mut Page, at: usize, device: u64) -> DmaMemory {
        let bytes = &mut page.0[at..];
        // SAFETY: the test's own page; no device.
        unsafe { DmaMemory::new(NonNull::from(&mut bytes[0]), device, bytes.len()) }
    }

    #[test]
    fn parts_are_aligned_for_both_and_do_not_overlap() {
        let mut page = Page([1; 4096]);
        let mut memory = block(&mut page, 3, 0x8000_0003);
        let a = memory.take(10, 64).unwrap();
        let b = memory.take(100, 16).unwrap();
        assert_eq!((a.device_address(), b.device_address()), (0x8000_0040, 0x8000_0050));
        assert_eq!((a.base() as usize % 64, b.base() as usize - a.base() as usize), (0, 16));
        assert_eq!((a.len(), b.len(), memory.len()), (10, 100, 4096 - 0x50 - 100));
    }

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let mut page = Page([1; 4096]);
        let mut memory = block(&mut page, 0, 0x1000);
        assert!(memory.take(4097, 1).is_none() && memory.take(usize::MAX, 64).is_none() && memory.take(1, 0).is_none());
        assert_eq!(memory.len(), 4096);
        let mut all = memory.take(4096, 4096).unwrap();
        assert!(memory.is_empty() && memory.take(1, 1).is_none());
        all.clear();
        assert!(page.0.iter().all(|b| *b == 0));
        let mut odd = block(&mut page, 0, 0x1001);
        assert!(odd.take(8, 64).is_none(), "the device would see it at an odd address");
    }
}
