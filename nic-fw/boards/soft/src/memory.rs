//! Host memory of the soft card: what the host has mapped (DMA_MAP), and which part of it each region names.
//!
//! ```text
//!   region 3 ──bind──► [iova, iova + len) ──inside one──► Mapping ──mmap──► a sealed memfd of toed
//!
//!   handle of core 0 ──┐                   lock-free: base and length of each region      (regions)
//!   handle of core 1 ──┼──► shared state ──┤
//!   handle of core 2 ──┘                   behind a lock: mappings, names, the session    (control)
//! ```
//!
//! Every byte here is shared with hostile processes: it is reached by raw copies and atomics, never by a
//! reference, and only after its address was checked. A mapping's descriptor carries F_SEAL_SHRINK,
//! so nobody can truncate it under the card (SIGBUS).
//!
//! A transfer takes no lock. What changes mappings and names (the methods of [`SoftMemory`] itself, `bind`, `unbind`) does, and is
//! for one core: the one that obeys the host. So the lock is never waited for; it makes a second one slow instead of wrong.

mod control;
mod mapping;

pub use mapping::{MapRefused, Mapping};

use control::Control;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use toe_abi::{HostAddr, HostSpan, RegionId};
use toe_hal::{Cookie, Dma, DmaFault, HostMemory};
use toe_sync::regions;

/// Mappings that no region names any more. An access that began before may still be under way on another core: **whoever gets them
/// drops (unmaps) them only when every core has passed an epoch that began after the call which returned them** (`toe_sync::epoch`).
/// A core passes no epoch while it holds a slice, between transmit and flush say; slices that wait in a message between
/// two cores must have come out at its end before.
pub type Retired = Vec<Mapping>;

/// A run of host memory for a port to send from. Valid until the region has been unbound and an epoch has passed (see [`Retired`]).
#[derive(Clone, Copy, Debug)]
pub struct SoftSlice {
    ptr: *const u8,
    len: u32,
}

// SAFETY: the memory is valid on every thread as long as the slice is; it is shared with other processes anyway, and only the kernel
// and raw copies read it.
unsafe impl Send for SoftSlice {}

impl SoftSlice {
    /// A slice of the card's own memory; `bytes` must stay until the port's flush has returned.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: u32::try_from(bytes.len()).unwrap_or(u32::MAX) }
    }

    pub fn as_ptr(self) -> *const u8 {
        self.ptr
    }

    pub fn len(self) -> u32 {
        self.len
    }

    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Appends the bytes to `out`.
    pub(crate) fn copy_to(self, out: &mut Vec<u8>) {
        let len = self.len as usize;
        out.reserve(len);
        // SAFETY: the slice was bounds-checked when made and its memory is still mapped (no epoch passes while a core holds
        // slices, see `Retired`); `out` has room for `len` more bytes, set below.
        unsafe {
            std::ptr::copy_nonoverlapping(self.ptr, out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }
}

/// The card's view of host memory: a handle, one for each core.
#[derive(Clone, Debug)]
pub struct SoftMemory {
    regions: regions::Reader,
    control: Arc<Mutex<Control>>,
}

impl SoftMemory {
    /// With names for `max_regions` regions.
    pub fn new(max_regions: u16) -> Self {
        let (owner, regions) = regions::table(max_regions);
        Self { regions, control: Arc::new(Mutex::new(Control::new(max_regions, owner))) }
    }

    /// Adds what the host has mapped. Mappings of a dead host that nothing uses make room.
    pub fn map(&self, mapping: Mapping) -> Result<Retired, MapRefused> {
        self.control().map(mapping)
    }

    /// Forgets every mapping that lies within the range. Accesses to regions in them that begin from now on fault.
    pub fn unmap(&self, iova: u64, len: u64) -> Retired {
        self.control().unmap(iova, len)
    }

    /// The host has gone: its control region goes as well, all else stays for its successor.
    pub fn end_session(&self) -> Retired {
        self.control().end_session()
    }

    /// Takes every name back, and forgets what earlier hosts had mapped.
    pub fn reset(&self) -> Retired {
        self.control().reset()
    }

    /// Number of mappings.
    pub fn mapped(&self) -> usize {
        self.control().mapped()
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostMemory for SoftMemory {
    type Slice = SoftSlice;

    fn handle(&self) -> Self {
        self.clone()
    }

    fn bind(&mut self, region: RegionId, iova: u64, len: u64) -> Result<(), DmaFault> {
        self.control().bind(region, iova, len)
    }

    fn unbind(&mut self, region: RegionId) {
        self.control().unbind(region);
    }

    fn write(&mut self, dst: HostAddr, src: &[u8], _: Cookie) -> Result<Dma, DmaFault> {
        self.regions.write(dst, src).map(|()| Dma::Done).ok_or(DmaFault)
    }

    fn fetch(&mut self, src: HostAddr, dst: &mut [u8], _: Cookie) -> Result<Dma, DmaFault> {
        self.regions.read(src, dst).map(|()| Dma::Done).ok_or(DmaFault)
    }

    fn fetched(&mut self, _cookie: Cookie, _dst: &mut [u8]) {
        // Nothing is ever pending on this board.
    }

    fn poll(&mut self, _done: &mut [(Cookie, Result<(), DmaFault>)]) -> usize {
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
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    fn slice(&self, span: HostSpan) -> Result<SoftSlice, DmaFault> {
        Ok(SoftSlice { ptr: self.regions.resolve(span.addr, span.len as usize).ok_or(DmaFault)?, len: span.len })
    }
}

#[cfg(test)]
mod tests;
