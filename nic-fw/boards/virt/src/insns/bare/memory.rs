//! Host memory: the board's own kind, in memory of this machine. What it does is not the card's.

use super::count::aside;
use alloc::alloc::{Layout, alloc_zeroed};
use core::ptr::NonNull;
use toe_abi::{HostAddr, HostSpan, RegionId};
use toe_hal::{Cookie, Dma, DmaFault, HostMemory};
use toe_virt::window::{Window, WindowMemory, WindowSlice};

/// Bytes of the window: the control region and a small application.
pub const LEN: u64 = 8 << 20;

/// The hosts' view of memory; the card's is [`CardMemory`] of a handle of it. `None`: there is no memory.
pub fn make(regions: u16) -> Option<WindowMemory> {
    let layout = Layout::from_size_align(LEN as usize, 4096).ok()?;
    // SAFETY: the layout is not empty.
    let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
    // SAFETY: never given back; only the window refers to it.
    let window = unsafe { Window::new(base, LEN) }.ok()?;
    Some(WindowMemory::new(window, regions))
}

/// The card's view.
pub struct CardMemory(pub WindowMemory);

impl HostMemory for CardMemory {
    type Slice = WindowSlice;

    fn handle(&self) -> Self {
        Self(self.0.handle())
    }

    fn bind(&mut self, region: RegionId, iova: u64, len: u64) -> Result<(), DmaFault> {
        self.0.bind(region, iova, len)
    }

    fn unbind(&mut self, region: RegionId) {
        self.0.unbind(region);
    }

    fn write(&mut self, dst: HostAddr, src: &[u8], cookie: Cookie) -> Result<Dma, DmaFault> {
        aside(|| self.0.write(dst, src, cookie))
    }

    fn fetch(&mut self, src: HostAddr, dst: &mut [u8], cookie: Cookie) -> Result<Dma, DmaFault> {
        aside(|| self.0.fetch(src, dst, cookie))
    }

    fn fetched(&mut self, cookie: Cookie, dst: &mut [u8]) {
        aside(|| self.0.fetched(cookie, dst));
    }

    fn poll(&mut self, done: &mut [(Cookie, Result<(), DmaFault>)]) -> usize {
        aside(|| self.0.poll(done))
    }

    fn load(&self, addr: HostAddr) -> Result<u32, DmaFault> {
        aside(|| self.0.load(addr))
    }

    fn store(&self, addr: HostAddr, value: u32) -> Result<(), DmaFault> {
        aside(|| self.0.store(addr, value))
    }

    fn fence(&self) {
        aside(|| self.0.fence());
    }

    fn slice(&self, span: HostSpan) -> Result<WindowSlice, DmaFault> {
        aside(|| self.0.slice(span))
    }
}
