//! Shared memory that toed has a hand in: sealed memfds, its own or a part of the window, accessed as atomic words inside checked bounds.

use super::CardError;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{FallocateFlags, MemfdFlags, SealFlags},
    mm::{MapFlags, ProtFlags},
};
use std::{
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};
use toe_sync::Words;

/// Bytes of a word.
const WORD: u64 = 4;
const PAGE: u64 = 4096;
const HUGE_PAGE: u64 = 2 << 20;

/// What memory to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryOptions {
    /// Try 2 MiB pages first. They are reserved at once, so that running out shows here and not as SIGBUS later.
    pub huge_pages: bool,
}

/// A mapping and its descriptor.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
    memfd: OwnedFd,
    /// Where in the memfd it begins.
    offset: u64,
    huge: bool,
}

// SAFETY: the mapping is plain shared memory, not tied to a thread; its words are handed out as atomics only.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are those of the mmap in `SharedMemory::map_as`; `words` goes with us, and nothing else refers to it.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Zeroed memory that others (the card, applications) may map and write at any time.
pub struct SharedMemory {
    words: Words,
    mapping: Option<Mapping>,
}

impl SharedMemory {
    /// Makes `len` bytes, rounded up to pages, sealed so that nobody can change the size. The memory is sparse: pages come when touched.
    pub fn create(name: &str, len: u64, options: MemoryOptions) -> Result<Self, CardError> {
        if options.huge_pages
            && let Ok(memory) = Self::create_as(name, len, true)
        {
            return Ok(memory);
        }
        Self::create_as(name, len, false)
    }

    fn create_as(name: &str, len: u64, huge: bool) -> Result<Self, CardError> {
        let os = |step| move |e: rustix::io::Errno| CardError::Os { step, error: e.into() };
        let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        flags.set(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, huge);
        let len = len.next_multiple_of(if huge { HUGE_PAGE } else { PAGE });
        let memfd = rustix::fs::memfd_create(name, flags).map_err(os("memfd_create"))?;
        rustix::fs::ftruncate(&memfd, len).map_err(os("setting the size of a memory region"))?;
        if huge {
            rustix::fs::fallocate(&memfd, FallocateFlags::empty(), 0, len).map_err(os("reserving huge pages"))?;
        }
        // The size is fixed before anyone else sees the memory: a mapping of it can't be made to fault by truncation.
        rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(os("sealing a memory region"))?;
        Self::map_as(memfd, 0, len, huge)
    }

    /// `len` bytes at `offset` of a memfd that can't shrink; both are whole pages inside of it.
    pub fn map(memfd: OwnedFd, offset: u64, len: u64) -> Result<Self, CardError> {
        let refuse = |error: rustix::io::Errno| CardError::Os { step: "mapping a memory region", error: error.into() };
        // What is true for ever: the access to memory that is mapped then never faults.
        let seals = rustix::fs::fcntl_get_seals(&memfd).map_err(refuse)?;
        let size = rustix::fs::fstat(&memfd).map_err(refuse)?.st_size;
        let inside = offset.checked_add(len).is_some_and(|end| u64::try_from(size).is_ok_and(|size| end <= size));
        if !seals.contains(SealFlags::SHRINK) || !inside || len == 0 || !offset.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) {
            return Err(refuse(rustix::io::Errno::INVAL));
        }
        Self::map_as(memfd, offset, len, false)
    }

    fn map_as(memfd: OwnedFd, offset: u64, len: u64, huge: bool) -> Result<Self, CardError> {
        let os = |step| move |e: rustix::io::Errno| CardError::Os { step, error: e.into() };
        let too_big = |_| CardError::Os { step: "mapping a memory region", error: rustix::io::Errno::OVERFLOW.into() };
        let bytes = usize::try_from(len).map_err(too_big)?;
        // SAFETY: a new mapping at an address of the kernel's choice; no existing memory is affected.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &memfd,
                offset,
            )
        }
        .map_err(os("mapping a memory region"))?;
        let base = NonNull::new(base.cast::<u8>())
            .ok_or(CardError::Os { step: "mapping a memory region", error: rustix::io::Errno::FAULT.into() })?;
        // SAFETY: page-aligned, `bytes` long, valid until `mapping` is dropped, which `words` never outlives; only accessed through `Words`.
        let words = unsafe { Words::new(base.cast(), bytes / WORD as usize) };
        Ok(Self { words, mapping: Some(Mapping { base, len: bytes, memfd, offset, huge }) })
    }

    /// Memory that somebody else keeps, for a card in the same process.
    ///
    /// # Safety
    /// `base` is aligned to 4 bytes, and the `len` bytes from it on stay valid as long as the result. This process accesses
    /// them only atomically meanwhile (or never at the same time as through the result).
    pub unsafe fn over(base: NonNull<u8>, len: usize) -> Self {
        // SAFETY: the caller vouches for alignment, length and lifetime.
        Self { words: unsafe { Words::new(base.cast(), len / WORD as usize) }, mapping: None }
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.words.len() as u64 * WORD
    }

    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The memfd, if this memory is one.
    pub fn memfd(&self) -> Option<BorrowedFd<'_>> {
        self.mapping.as_ref().map(|m| m.memfd.as_fd())
    }

    /// Where in the memfd it begins, bytes.
    pub fn offset(&self) -> u64 {
        self.mapping.as_ref().map_or(0, |m| m.offset)
    }

    /// Where it lies in this process, for a card that lives here, too.
    pub fn base(&self) -> NonNull<u8> {
        NonNull::from(self.words.at(0)).cast()
    }

    /// All of it. Copies of the result must not be used after `self` is gone.
    pub(super) fn words(&self) -> Words {
        self.words
    }

    /// The words that `len` bytes at `offset` lie in, if they are aligned and inside.
    fn range(&self, offset: u64, len: u64) -> Option<Words> {
        let end = offset.checked_add(len)?;
        let aligned = offset.is_multiple_of(WORD) && len.is_multiple_of(WORD);
        (aligned && end <= self.len()).then(|| self.words.slice((offset / WORD) as usize, (len / WORD) as usize))
    }

    /// Loads a word, acquire; outside: 0.
    pub fn load(&self, offset: u64) -> u32 {
        // Acquire: with the release of whoever published with this word; which word, the caller's table says.
        self.range(offset, WORD).map_or(0, |w| w.at(0).load(Ordering::Acquire))
    }

    /// Stores a word, release; outside: nothing.
    pub fn store(&self, offset: u64, value: u32) {
        if let Some(w) = self.range(offset, WORD) {
            // Release: with the acquire of whoever waits for this word.
            w.at(0).store(value, Ordering::Release);
        }
    }

    /// Copies out; outside or unaligned: zeroes.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        match self.range(offset, out.len() as u64) {
            Some(words) => words.load_bytes(out),
            None => out.fill(0),
        }
    }

    /// Copies in; outside or unaligned: nothing.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        if let Some(words) = self.range(offset, bytes.len() as u64) {
            words.store_bytes(bytes);
        }
    }

    /// Zeroes a range; whole pages of a memfd go back to the system.
    pub fn clear(&self, offset: u64, len: u64) {
        if self.range(offset, len).is_none() {
            return;
        }
        let end = offset + len;
        let (first, last) = (offset.next_multiple_of(PAGE).min(end), (end - end % PAGE).max(offset));
        if first < last && self.give_back(first, last - first) {
            self.zero(offset, first - offset);
            self.zero(last, end - last);
        } else {
            self.zero(offset, len);
        }
    }

    /// Gives whole pages back to the system: when touched again, they are zeroes. False: it can't be done here.
    fn give_back(&self, offset: u64, len: u64) -> bool {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.mapping.as_ref().is_some_and(|m| !m.huge && rustix::fs::fallocate(&m.memfd, punch, m.offset + offset, len).is_ok())
    }

    fn zero(&self, offset: u64, len: u64) {
        let Some(words) = self.range(offset, len) else { return };
        for i in 0..words.len() {
            words.at(i).store(0, Ordering::Relaxed);
        }
    }

    /// Full barrier: see `toe_sync::sleep`.
    pub fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(len: u64) -> SharedMemory {
        SharedMemory::create("test", len, MemoryOptions::default()).expect("memfd")
    }

    #[test]
    fn the_size_is_sealed() {
        let m = memory(10_000);
        assert_eq!(m.len(), 12_288);
        let fd = m.memfd().expect("a memfd");
        assert!(rustix::fs::ftruncate(fd, 4096).is_err());
        assert!(rustix::fs::ftruncate(fd, 1 << 20).is_err());
        assert!(rustix::fs::fcntl_add_seals(fd, SealFlags::WRITE).is_err());
    }

    #[test]
    fn accesses_outside_do_nothing() {
        let m = memory(4096);
        m.store(4096, 7);
        m.write(4094, &[1; 8]);
        m.write(u64::MAX - 3, &[1; 8]);
        assert_eq!(m.load(4096), 0);
        assert_eq!(m.load(2), 0);
        let mut out = [9; 8];
        m.read(4092, &mut out);
        assert_eq!(out, [0; 8]);
    }

    #[test]
    fn clearing_pages_returns_them() {
        let m = memory(1 << 20);
        for page in 0..256 {
            m.store(page * 4096, 1);
        }
        let blocks = |m: &SharedMemory| rustix::fs::fstat(m.memfd().expect("memfd")).expect("fstat").st_blocks;
        assert!(blocks(&m) >= 2048);
        m.clear(0, 1 << 20);
        assert_eq!(blocks(&m), 0);
        assert_eq!(m.load(4096), 0);
    }

    #[test]
    fn clearing_more_than_pages_zeroes_the_ends() {
        let m = memory(4 * 4096);
        m.write(0, &[0xff; 4 * 4096]);
        m.clear(4096 - 64, 2 * 4096 + 128);
        assert_eq!(rustix::fs::fstat(m.memfd().expect("memfd")).expect("fstat").st_blocks, 16, "two pages are left");
        let edges = [4096 - 68, 4096 - 64, 4092, 4096, 3 * 4096 - 4, 3 * 4096, 3 * 4096 + 60, 3 * 4096 + 64];
        assert_eq!(edges.map(|at| m.load(at)), [u32::MAX, 0, 0, 0, 0, 0, 0, u32::MAX]);
        m.clear(8192, u64::MAX - 4095);
        m.clear(3 * 4096 + 64, 4096);
        assert_eq!(m.load(3 * 4096 + 64), u32::MAX, "ranges outside");
    }

    #[test]
    fn clearing_less_than_a_page_zeroes_it() {
        let m = memory(4096);
        m.write(0, &[0xff; 128]);
        m.clear(64, 64);
        assert_eq!((m.load(60), m.load(64), m.load(124)), (u32::MAX, 0, 0));
    }

    #[test]
    fn a_part_of_a_window_is_that_part_and_no_more() {
        let whole = memory(1 << 20);
        let fd = || whole.memfd().expect("a memfd").try_clone_to_owned().expect("a copy");
        let part = SharedMemory::map(fd(), 8192, 4096).expect("inside");
        assert_eq!((part.len(), part.offset()), (4096, 8192));
        part.store(0, 7);
        whole.store(8188, 8);
        whole.store(12_288, 9);
        assert_eq!((whole.load(8192), part.load(4096)), (7, 0));
        part.clear(0, 4096);
        assert_eq!((whole.load(8188), whole.load(8192), whole.load(12_288)), (8, 0, 9));
        for (offset, len) in [(0, 0), (100, 4096), (0, 100), (1 << 20, 4096), (0, 2 << 20), (u64::MAX - 4095, 4096)] {
            assert!(SharedMemory::map(fd(), offset, len).is_err(), "{offset:#x} {len:#x}");
        }
    }

    #[test]
    fn memory_that_can_shrink_is_refused() {
        let memfd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
        rustix::fs::ftruncate(&memfd, 8192).expect("fits");
        assert!(SharedMemory::map(memfd, 0, 4096).is_err());
    }

    #[test]
    fn huge_pages_fall_back_to_small_ones() {
        let m = SharedMemory::create("test", 4096, MemoryOptions { huge_pages: true }).expect("memfd");
        m.store(0, 5);
        assert_eq!(m.load(0), 5);
    }
}
