//! A piece of host memory in this process: checked, mapped, unmapped.

use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::AsFd;

/// Unit of everything that is mapped, bytes.
pub(super) const PAGE: u64 = 4096;

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

/// A piece of host memory at an I/O virtual address. Unmapped on drop: see [`Retired`](super::Retired) for when that may be.
#[derive(Debug)]
pub struct Mapping {
    pub(super) iova: u64,
    pub(super) len: u64,
    pub(super) base: *mut u8,
    /// Connection of the host during which it was made.
    pub(super) session: u64,
}

// SAFETY: a mapping is an address range of the process, valid on every thread; what is behind the pointer is shared memory,
// which `SoftMemory` reaches by raw copies and atomics only.
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

    pub(super) fn overlaps(&self, iova: u64, len: u64) -> bool {
        iova < self.iova + self.len && self.iova < iova.saturating_add(len)
    }

    /// Whether `len` bytes at `iova` lie within.
    pub(super) fn holds(&self, iova: u64, len: u64) -> bool {
        iova >= self.iova && len <= self.len && iova - self.iova <= self.len - len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are of our own mmap. `SoftMemory` gives a mapping away only after every region that named a
        // part of it has been unbound, and whoever got it waited for the accesses that had begun before (see `Retired`).
        if let Err(error) = unsafe { rustix::mm::munmap(self.base.cast(), self.len as usize) } {
            tracing::error!(%error, "munmap of host memory");
        }
    }
}
