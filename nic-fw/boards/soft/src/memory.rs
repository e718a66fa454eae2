//! Host memory of the soft card: what the host has mapped (DMA_MAP), and which part of it each region names.
//!
//! ```text
//!   region 3 ──bind──► [iova, iova + len) ──inside one──► Mapping ──mmap──► a sealed memfd of toed
//! ```
//!
//! Every byte here is shared with hostile processes: it is reached by raw copies and atomics, never by a
//! reference, and only after its address was checked. A mapping's descriptor carries F_SEAL_SHRINK,
//! so nobody can truncate it under the card (SIGBUS).

use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use toe_abi::{HostAddr, HostSpan, RegionId};
use toe_hal::{Cookie, Dma, DmaFault, HostMemory};

/// Unit of everything that is mapped, bytes.
const PAGE: u64 = 4096;

/// Why a DMA_MAP is refused.
#[derive(Debug, thiserror::Error)]
pub enum MapRefused {
    #[error("range {iova:#x}+{len:#x} at file offset {offset:#x}: empty, not in whole pages, or past the end of the address space")]
    Geometry { iova: u64, len: u64, offset: u64 },
    #[error("no file descriptor came along: this card reaches host memory only by mapping it")]
    NoDescriptor,
    #[error("the mapping must be readable and writable")]
    Access,
    #[error("the memory is not sealed against shrinking (memfd with F_SEAL_SHRINK): truncating it would kill the card")]
    NotSealed,
    #[error("the descriptor has {size:#x} bytes, the range ends at {end:#x}")]
    TooShort { size: u64, end: u64 },
    #[error("range {iova:#x}+{len:#x} overlaps one that is mapped already")]
    Overlap { iova: u64, len: u64 },
    #[error("{step}: {source}")]
    Os { step: &'static str, source: rustix::io::Errno },
}

impl MapRefused {
    /// As Linux's errno, for the reply to the host.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Geometry { .. } | Self::NoDescriptor | Self::TooShort { .. } => libc::EINVAL,
            Self::Access | Self::NotSealed => libc::EPERM,
            Self::Overlap { .. } => libc::EEXIST,
            Self::Os { source, .. } => source.raw_os_error(),
        }
    }
}

/// A piece of host memory at an I/O virtual address. Unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    iova: u64,
    len: u64,
    base: *mut u8,
    /// Connection of the host during which it was made.
    session: u64,
}

// SAFETY: a mapping is an address range of the process, valid on every thread; the pointer is only
// dereferenced through `SoftMemory`, which one thread owns.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset` on, to be known as `iova`.
    pub fn new(fd: impl AsFd, offset: u64, iova: u64, len: u64) -> Result<Self, MapRefused> {
        let geometry = MapRefused::Geometry { iova, len, offset };
        let aligned = [offset, iova, len].iter().all(|x| x.is_multiple_of(PAGE));
        let (Some(end), Some(_)) = (offset.checked_add(len), iova.checked_add(len)) else { return Err(geometry) };
        let Ok(map_len) = usize::try_from(len) else { return Err(geometry) };
        if len == 0 || !aligned || isize::try_from(map_len).is_err() {
            return Err(geometry);
        }
        let os = |step| move |source| MapRefused::Os { step, source };
        // What has no seals at all (a file, a pipe) answers EINVAL: just as unsafe.
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| MapRefused::NotSealed)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(MapRefused::NotSealed);
        }
        // The size is looked at after the seal: from now on it can only grow.
        let size = u64::try_from(rustix::fs::fstat(&fd).map_err(os("fstat of the mapped descriptor"))?.st_size).unwrap_or(0);
        if end > size {
            return Err(MapRefused::TooShort { size, end });
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing; the file can't
        // shrink (sealed) and covers the range, so no later access faults.
        let base =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), map_len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, offset) }
                .map_err(os("mmap of host memory"))?;
        Ok(Self { iova, len, base: base.cast(), session: 0 })
    }

    fn overlaps(&self, iova: u64, len: u64) -> bool {
        iova < self.iova + self.len && self.iova < iova.saturating_add(len)
    }

    /// Whether `len` bytes at `iova` lie within.
    fn holds(&self, iova: u64, len: u64) -> bool {
        iova >= self.iova && len <= self.len && iova - self.iova <= self.len - len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are of our own mmap; `SoftMemory` gives a mapping away only after
        // every region that named a part of it has been unbound.
        if let Err(error) = unsafe { rustix::mm::munmap(self.base.cast(), self.len as usize) } {
            tracing::error!(%error, "munmap of host memory");
        }
    }
}

/// A part of a mapping with a name.
#[derive(Clone, Copy, Debug)]
struct Bound {
    base: *mut u8,
    len: u64,
    iova: u64,
}

/// A run of host memory for a port to send from. Valid until the region is unbound.
#[derive(Clone, Copy, Debug)]
pub struct SoftSlice {
    ptr: *const u8,
    len: u32,
}

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
        // SAFETY: the slice was bounds-checked when made and its region is still bound (callers hold
        // slices only between transmit and flush); `out` has room for `len` more bytes, set below.
        unsafe {
            std::ptr::copy_nonoverlapping(self.ptr, out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }
}

/// The card's view of host memory.
#[derive(Debug)]
pub struct SoftMemory {
    maps: Vec<Mapping>,
    regions: Box<[Option<Bound>]>,
    session: u64,
}

impl SoftMemory {
    /// With names for `max_regions` regions.
    pub fn new(max_regions: u16) -> Self {
        Self { maps: Vec::new(), regions: vec![None; usize::from(max_regions)].into_boxed_slice(), session: 1 }
    }

    /// Adds what the host has mapped. Mappings of a dead host that nothing uses make room; the caller drops them.
    pub fn map(&mut self, mut mapping: Mapping) -> Result<Vec<Mapping>, MapRefused> {
        let (iova, len) = (mapping.iova, mapping.len);
        let in_way = |m: &Mapping| m.overlaps(iova, len);
        if self.maps.iter().any(|m| in_way(m) && (m.session == self.session || self.is_bound(m))) {
            return Err(MapRefused::Overlap { iova, len });
        }
        let retired = self.retire(in_way);
        mapping.session = self.session;
        self.maps.push(mapping);
        Ok(retired)
    }

    /// Forgets every mapping that lies within the range. Regions in them fault from now on.
    pub fn unmap(&mut self, iova: u64, len: u64) -> Vec<Mapping> {
        self.retire(|m| m.iova >= iova && m.iova + m.len <= iova.saturating_add(len))
    }

    /// The host has gone: its control region goes as well, all else stays for its successor.
    pub fn end_session(&mut self) -> Vec<Mapping> {
        self.session += 1;
        let control = self.regions.first().copied().flatten();
        self.unbind(RegionId::CONTROL);
        match control {
            Some(bound) => {
                let shared = self
                    .regions
                    .iter()
                    .flatten()
                    .any(|r| self.maps.iter().any(|m| m.holds(r.iova, r.len) && m.holds(bound.iova, bound.len)));
                if shared { Vec::new() } else { self.retire(|m| m.holds(bound.iova, bound.len)) }
            }
            None => Vec::new(),
        }
    }

    /// Takes every name back, and forgets what earlier hosts had mapped.
    pub fn reset(&mut self) -> Vec<Mapping> {
        self.regions.fill(None);
        let session = self.session;
        self.retire(|m| m.session != session)
    }

    /// Number of mappings.
    pub fn mapped(&self) -> usize {
        self.maps.len()
    }

    fn is_bound(&self, m: &Mapping) -> bool {
        self.regions.iter().flatten().any(|r| m.overlaps(r.iova, r.len))
    }

    /// Takes out the mappings that `which` names, after unbinding what lies in them.
    fn retire(&mut self, which: impl Fn(&Mapping) -> bool) -> Vec<Mapping> {
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.maps).into_iter().partition(&which);
        self.maps = kept;
        for region in self.regions.iter_mut() {
            if region.is_some_and(|r| gone.iter().any(|m| m.overlaps(r.iova, r.len))) {
                *region = None;
            }
        }
        gone
    }

    /// Where `len` bytes at `addr` lie, if they do.
    fn resolve(&self, addr: HostAddr, len: usize) -> Result<*mut u8, DmaFault> {
        let bound = self.regions.get(usize::from(addr.region.0)).copied().flatten().ok_or(DmaFault)?;
        let end = addr.offset.checked_add(len as u64).ok_or(DmaFault)?;
        if end > bound.len {
            return Err(DmaFault);
        }
        // SAFETY: offset + len <= the region's length, which lies inside one live mapping.
        Ok(unsafe { bound.base.add(addr.offset as usize) })
    }

    fn word(&self, addr: HostAddr) -> Result<&AtomicU32, DmaFault> {
        if !addr.offset.is_multiple_of(4) {
            return Err(DmaFault);
        }
        let ptr = self.resolve(addr, 4)?;
        // SAFETY: in bounds (resolved); aligned, as regions begin on a page and the offset is a multiple of four; other processes
        // access the word as an atomic or not at all, and an atomic allows any value they put there.
        Ok(unsafe { AtomicU32::from_ptr(ptr.cast()) })
    }
}

impl HostMemory for SoftMemory {
    type Slice = SoftSlice;

    fn bind(&mut self, region: RegionId, iova: u64, len: u64) -> Result<(), DmaFault> {
        // Only what this host has mapped: an address that a dead one used may mean other memory today.
        let session = self.session;
        let mapping = self.maps.iter().find(|m| m.session == session && m.holds(iova, len)).ok_or(DmaFault)?;
        if len == 0 || !(iova - mapping.iova).is_multiple_of(PAGE) {
            return Err(DmaFault);
        }
        // SAFETY: `holds` has checked that iova + len lies inside the mapping.
        let base = unsafe { mapping.base.add((iova - mapping.iova) as usize) };
        *self.regions.get_mut(usize::from(region.0)).ok_or(DmaFault)? = Some(Bound { base, len, iova });
        Ok(())
    }

    fn unbind(&mut self, region: RegionId) {
        if let Some(bound) = self.regions.get_mut(usize::from(region.0)) {
            *bound = None;
        }
    }

    fn write(&mut self, dst: HostAddr, src: &[u8], _cookie: Cookie) -> Result<Dma, DmaFault> {
        let to = self.resolve(dst, src.len())?;
        // SAFETY: in bounds (resolved); `src` is the card's own memory, so the two don't overlap. Others may write the
        // destination meanwhile: then it holds a mixture, which is their own loss.
        unsafe { std::ptr::copy_nonoverlapping(src.as_ptr(), to, src.len()) };
        Ok(Dma::Done)
    }

    fn fetch(&mut self, src: HostAddr, dst: &mut [u8], _cookie: Cookie) -> Result<Dma, DmaFault> {
        let from = self.resolve(src, dst.len())?;
        // SAFETY: in bounds (resolved); `dst` is the card's own memory. Whatever mixture of bytes is read, the caller
        // validates this copy and never looks at the source again.
        unsafe { std::ptr::copy_nonoverlapping(from, dst.as_mut_ptr(), dst.len()) };
        Ok(Dma::Done)
    }

    fn fetched(&mut self, _cookie: Cookie, _dst: &mut [u8]) {
        // Nothing is ever pending on this board.
    }

    fn poll(&mut self, _done: &mut [(Cookie, Result<(), DmaFault>)]) -> usize {
        0
    }

    fn load(&self, addr: HostAddr) -> Result<u32, DmaFault> {
        // Acquire: pairs with the release store of whoever published the word (toe_sync::queue, toe_sync::sleep).
        Ok(self.word(addr)?.load(Ordering::Acquire))
    }

    fn store(&self, addr: HostAddr, value: u32) -> Result<(), DmaFault> {
        // Release: pairs with the acquire load of the host; the plain copies of `write` above come first.
        self.word(addr)?.store(value, Ordering::Release);
        Ok(())
    }

    fn fence(&self) {
        // Pairs with the SeqCst fence of the other side (toe_sync::sleep).
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    fn slice(&self, span: HostSpan) -> Result<SoftSlice, DmaFault> {
        Ok(SoftSlice { ptr: self.resolve(span.addr, span.len as usize)?, len: span.len })
    }
}

#[cfg(test)]
mod tests;
