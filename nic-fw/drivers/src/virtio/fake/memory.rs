//! Memory with walls around it. The device's addresses are other numbers than the driver's, so that a mix-up is seen.

use crate::DmaMemory;
use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32};

const WALL: usize = 4096;
const BRICK: u8 = 0xa5;
/// The device's address of the first byte.
const DEVICE_BASE: u64 = 0x1_4000_0000;

pub struct TestMemory {
    base: *mut u8,
    len: usize,
}

// SAFETY: an allocation of its own; threads reach it through raw copies and atomics, as driver and device do.
unsafe impl Send for TestMemory {}
// SAFETY: as above.
unsafe impl Sync for TestMemory {}

impl Drop for TestMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout; every user keeps the `Arc`.
        unsafe { dealloc(self.base, Self::layout(self.len)) };
    }
}

impl TestMemory {
    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len + 2 * WALL, 4096).unwrap()
    }

    /// Filled with what nobody expects.
    pub fn new(len: usize) -> Arc<Self> {
        // SAFETY: the layout is not empty; all of it is written before anybody reads.
        let base = unsafe {
            let base = alloc(Self::layout(len));
            base.write_bytes(BRICK, len + 2 * WALL);
            base.add(WALL).write_bytes(0xee, len);
            base
        };
        Arc::new(Self { base, len })
    }

    /// For the driver. Once; the memory must be kept as long as the driver is.
    pub fn dma(&self) -> DmaMemory {
        // SAFETY: `len` bytes between the walls, used by the driver and the device of one test.
        unsafe { DmaMemory::new(NonNull::new_unchecked(self.base.add(WALL)), DEVICE_BASE, self.len) }
    }

    /// What a device reaches at one of its addresses. Panics outside: that is a driver that has told it nonsense.
    pub fn at(&self, device: u64, len: usize) -> *mut u8 {
        let offset = usize::try_from(device.checked_sub(DEVICE_BASE).expect("an address below the memory")).unwrap();
        assert!(offset + len <= self.len, "device access to {device:#x} + {len:#x}");
        // SAFETY: inside, as just checked.
        unsafe { self.base.add(WALL + offset) }
    }

    pub fn half(&self, device: u64) -> &AtomicU16 {
        // SAFETY: inside; queues are aligned, which the assertion checks.
        unsafe {
            let ptr = self.at(device, 2).cast::<u16>();
            assert!(ptr.is_aligned());
            AtomicU16::from_ptr(ptr)
        }
    }

    pub fn word(&self, device: u64) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe {
            let ptr = self.at(device, 4).cast::<u32>();
            assert!(ptr.is_aligned());
            AtomicU32::from_ptr(ptr)
        }
    }

    pub fn read(&self, device: u64, len: usize) -> Vec<u8> {
        let from = self.at(device, len);
        // SAFETY: inside the memory.
        (0..len).map(|i| unsafe { from.add(i).read_volatile() }).collect()
    }

    pub fn write(&self, device: u64, bytes: &[u8]) {
        // SAFETY: inside the memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(device, bytes.len()), bytes.len()) };
    }

    /// Whether nobody has written outside.
    pub fn walls_stand(&self) -> bool {
        let wall = |at: usize| {
            // SAFETY: a wall's bytes, which nobody else should touch.
            (0..WALL).all(|i| unsafe { self.base.add(at + i).read() } == BRICK)
        };
        wall(0) && wall(WALL + self.len)
    }
}
