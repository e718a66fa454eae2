//! Host memory of this board: the part of the window that toed hands out, region by region.
//!
//! ```text
//!   region 3 ──bind──► [offset, offset + len) of the window         lock-free to read: every core has a handle
//! ```
//!
//! Copies complete at once. Only the core that obeys the host binds and unbinds, so the lock is never waited for.

use super::Window;
use alloc::sync::Arc;
use core::sync::atomic::{Ordering, fence};
use spin::Mutex;
use toe_abi::{HostAddr, HostSpan, RegionId};
use toe_drivers::virtio::net::ReadSlice;
use toe_hal::{Cookie, Dma, DmaFault, HostMemory};
use toe_sync::regions::{self, Owner, Reader};

/// A run of host memory for the port to send from.
#[derive(Clone, Copy, Debug)]
pub struct WindowSlice {
    ptr: *const u8,
    len: u32,
}

// SAFETY: the window is mapped for ever, on every core; only raw copies read it.
unsafe impl Send for WindowSlice {}

/// Reads slices for the port: the copy of payload that this board makes.
#[derive(Clone, Copy, Debug)]
pub struct ReadWindow;

impl ReadSlice<WindowSlice> for ReadWindow {
    fn len(&self, slice: &WindowSlice) -> usize {
        slice.len as usize
    }

    fn read(&self, slice: &WindowSlice, offset: usize, out: &mut [u8]) {
        if offset.checked_add(out.len()).is_some_and(|end| end <= slice.len as usize) {
            // SAFETY: inside the slice, which lies in the window; `out` is the card's own memory. Applications may write meanwhile: what
            // is sent then is a mixture, which is their own loss.
            unsafe { core::ptr::copy_nonoverlapping(slice.ptr.add(offset), out.as_mut_ptr(), out.len()) };
        }
    }
}

/// The card's view of host memory: a handle, one for each core.
#[derive(Clone, Debug)]
pub struct WindowMemory {
    window: Window,
    regions: Reader,
    owner: Arc<Mutex<Owner>>,
    max_regions: u16,
}

impl WindowMemory {
    /// With names for `max_regions` regions.
    pub fn new(window: Window, max_regions: u16) -> Self {
        let (owner, regions) = regions::table(max_regions);
        Self { window, regions, owner: Arc::new(Mutex::new(owner)), max_regions }
    }

    /// Takes every name back.
    pub fn reset(&mut self) {
        (0..self.max_regions).for_each(|region| self.unbind(RegionId(region)));
    }
}

impl HostMemory for WindowMemory {
    type Slice = WindowSlice;

    fn handle(&self) -> Self {
        self.clone()
    }

    fn bind(&mut self, region: RegionId, iova: u64, len: u64) -> Result<(), DmaFault> {
        let base = self.window.memory(iova, len).ok_or(DmaFault)?;
        // SAFETY: in the window, from a page on, which is mapped for ever (see `Window::new`).
        unsafe { self.owner.lock().bind(region, base, len) }.map_err(|_| DmaFault)
    }

    fn unbind(&mut self, region: RegionId) {
        self.owner.lock().unbind(region);
    }

    fn write(&mut self, dst: HostAddr, src: &[u8], _: Cookie) -> Result<Dma, DmaFault> {
        self.regions.write(dst, src).map(|()| Dma::Done).ok_or(DmaFault)
    }

    fn fetch(&mut self, src: HostAddr, dst: &mut [u8], _: Cookie) -> Result<Dma, DmaFault> {
        self.regions.read(src, dst).map(|()| Dma::Done).ok_or(DmaFault)
    }

    fn fetched(&mut self, _: Cookie, _: &mut [u8]) {
        // Nothing is ever pending on this board.
    }

    fn poll(&mut self, _: &mut [(Cookie, Result<(), DmaFault>)]) -> usize {
        0
    }

    fn load(&self, addr: HostAddr) -> Result<u32, DmaFault> {
        // Acquire: pairs with the release store of whoever published the word (toe_sync::queue, toe_sync::sleep).
        self.regions.word(addr).map(|word| word.load(Ordering::Acquire)).ok_or(DmaFault)
    }

    fn store(&self, addr: HostAddr, value: u32) -> Result<(), DmaFault> {
        // Release: pairs with the acquire load of the host; the plain copies of `write` above come first.
        self.regions.word(addr).map(|word| word.store(value, Ordering::Release)).ok_or(DmaFault)
    }

    fn fence(&self) {
        // Pairs with the SeqCst fence of the other side (toe_sync::sleep).
        fence(Ordering::SeqCst);
    }

    fn slice(&self, span: HostSpan) -> Result<WindowSlice, DmaFault> {
        Ok(WindowSlice { ptr: self.regions.resolve(span.addr, span.len as usize).ok_or(DmaFault)?, len: span.len })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestWindow;
    use super::*;
    use toe_abi::window::{MEMORY_OFF, WINDOW_MIN};

    const R: RegionId = RegionId(1);

    fn at(offset: u64) -> HostAddr {
        HostAddr::new(R, offset)
    }

    #[test]
    fn only_what_is_bound_can_be_reached() {
        let window = TestWindow::new();
        let mut m = WindowMemory::new(window.0, 2);
        assert_eq!(m.load(at(0)), Err(DmaFault));
        m.bind(R, MEMORY_OFF + 4096, 8192).unwrap();
        let other = m.handle();
        assert_eq!(m.write(at(8), b"payload", 0), Ok(Dma::Done));
        let mut bytes = [0; 7];
        assert_eq!(m.fetch(at(8), &mut bytes, 0), Ok(Dma::Done));
        assert_eq!(&bytes, b"payload");
        assert_eq!(other.store(at(8188), 7), Ok(()));
        assert_eq!(window.word(MEMORY_OFF + 4096 + 8188).load(Ordering::Relaxed), 7);
        assert_eq!((m.load(at(8192)), m.load(at(2)), m.load(at(u64::MAX - 3))), (Err(DmaFault), Err(DmaFault), Err(DmaFault)));
        assert_eq!(m.write(at(8190), b"abc", 0), Err(DmaFault));
        assert!(m.slice(HostSpan { addr: at(8000), len: 193 }).is_err());
        m.reset();
        assert_eq!(other.load(at(0)), Err(DmaFault));
    }

    #[test]
    fn regions_outside_the_windows_memory_are_refused() {
        let window = TestWindow::new();
        let mut m = WindowMemory::new(window.0, 2);
        for (offset, len) in [(0, 4096), (MEMORY_OFF, 0), (MEMORY_OFF + 8, 4096), (WINDOW_MIN - 4096, 8192), (u64::MAX - 4095, 4096)] {
            assert_eq!(m.bind(R, offset, len), Err(DmaFault), "{offset:#x} {len:#x}");
        }
        assert_eq!(m.bind(RegionId(2), MEMORY_OFF, 4096), Err(DmaFault), "no such name");
    }

    #[test]
    fn slices_are_read_within_their_bounds() {
        let window = TestWindow::new();
        let mut m = WindowMemory::new(window.0, 2);
        m.bind(R, MEMORY_OFF, 4096).unwrap();
        let _ = m.write(at(100), b"0123456789", 0).unwrap();
        let slice = m.slice(HostSpan { addr: at(100), len: 10 }).unwrap();
        let mut out = [0; 4];
        ReadWindow.read(&slice, 6, &mut out);
        assert_eq!((&out, ReadWindow.len(&slice)), (b"6789", 10));
        ReadWindow.read(&slice, 7, &mut out);
        ReadWindow.read(&slice, usize::MAX, &mut out);
        assert_eq!(&out, b"6789", "nothing was read from outside");
    }
}
