//! A mapped region: checked geometry, and typed views of what lies where.
//!
//! The header is a claim until it has been compared with the layout that its own counts give and with the size of the
//! memory; after that the private copy is used and the header never read again.

use crate::ring::Ring;
use crate::slot::{Page, Slot};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use toe_abi::desc::{DESC_LEN, EventDesc, HostDesc};
use toe_abi::region::{ACCEPT_RECORD_LEN, AcceptRecord, REGION_MAGIC, RegionConfig, RegionHeader};
use toe_sync::queue::QueueMemory;
use toe_sync::words::{Word, Words};
use zerocopy::FromZeros;

/// Why memory is not a region that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RegionError {
    #[error("region: {step}: {errno}")]
    Os { step: &'static str, errno: Errno },
    /// Not one of ours: use another descriptor.
    #[error("region: no region header (first word {found:#x})")]
    NotARegion { found: u64 },
    #[error("region: made by version {found:#x}, this library has {ours:#x}", ours = toe_abi::ABI_VERSION)]
    Version { found: u32 },
    /// Damaged: the family has to start anew.
    #[error("region: the header contradicts itself or the memory's size ({len} bytes)")]
    Layout { len: u64 },
}

/// What happens to the memory when the region is dropped.
enum Backing {
    /// Mapped by us.
    Mapped,
    /// Somebody else's.
    Borrowed,
}

/// One region in this process's memory.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    header: RegionHeader,
    backing: Backing,
}

// SAFETY: `Region` hands out atomics and raw copies only; the memory belongs to no thread.
unsafe impl Send for Region {}
// SAFETY: as above; all methods take `&self` and touch shared memory through atomics or the raw copies of `ring`.
unsafe impl Sync for Region {}

/// A region's header is smaller than one page, and a region never smaller than that.
const HEADER_PAGE: usize = 4096;

impl Region {
    /// Maps the region that a descriptor's memory is.
    pub fn map(fd: impl AsFd) -> Result<Self, RegionError> {
        Self::map_at(fd, 0)
    }

    /// Maps the region at byte `offset` of a descriptor's memory. At 0 it is all of it, else as long as it says.
    pub fn map_at(fd: impl AsFd, offset: u64) -> Result<Self, RegionError> {
        let os = |step| move |errno| RegionError::Os { step, errno };
        let size = rustix::fs::fstat(&fd).map_err(os("fstat"))?.st_size.unsigned_abs();
        let room = size.checked_sub(offset).ok_or(RegionError::Layout { len: 0 })?;
        let wanted = if offset == 0 { room } else { header_at(&fd, offset)?.len.next_multiple_of(HEADER_PAGE as u64) };
        let len = usize::try_from(wanted).ok().filter(|&n| n >= HEADER_PAGE && wanted <= room);
        let len = len.ok_or(RegionError::Layout { len: room })?;
        use rustix::mm::{MapFlags, ProtFlags};
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses touches no existing object.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, &fd, offset) };
        let base = NonNull::new(base.map_err(os("mmap"))?.cast::<u8>()).ok_or(RegionError::Layout { len: 0 })?;
        // SAFETY: `len` bytes at `base` were just mapped, page-aligned, and are unmapped only by `Drop` below. The file's size
        // is sealed by toed, so no access faults; were it not, it would be a fault and not a stray access.
        let mut region = unsafe { Self::from_memory(base, len) }.inspect_err(|_| {
            // SAFETY: mapped above, nothing refers to it.
            let _ = unsafe { rustix::mm::munmap(base.as_ptr().cast(), len) };
        })?;
        region.backing = Backing::Mapped;
        Ok(region)
    }

    /// A region in memory that exists already (the simulation's, toed's own mapping).
    ///
    /// # Safety
    /// `len` bytes at `base`, aligned to 4096, are readable and writable until the region and everything taken from it
    /// are gone, and are accessed meanwhile only through atomics, raw pointers or by others.
    pub unsafe fn from_memory(base: NonNull<u8>, len: usize) -> Result<Self, RegionError> {
        if len < HEADER_PAGE || !base.as_ptr().addr().is_multiple_of(HEADER_PAGE) {
            return Err(RegionError::Layout { len: len as u64 });
        }
        // SAFETY: a page from `base` on is inside the memory, which the caller vouches for.
        let words = unsafe { Words::new(base.cast::<AtomicU32>(), size_of::<RegionHeader>() / 4) };
        let mut header = RegionHeader::default();
        words.load_bytes(zerocopy::IntoBytes::as_mut_bytes(&mut header));
        check(&header, len as u64)?;
        Ok(Self { base, len, header, backing: Backing::Borrowed })
    }

    /// The checked geometry.
    pub fn header(&self) -> &RegionHeader {
        &self.header
    }

    /// Bytes of the whole region.
    pub fn len(&self) -> usize {
        self.len
    }

    /// A region is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Where it lies in this process.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Context `i`'s page.
    pub fn page(&self, i: u32) -> Option<&Page> {
        // SAFETY: `Page` consists of atomics, any bit pattern is valid; `at` checked the bounds, pages are page-aligned.
        (i < self.header.n_contexts).then(|| unsafe { self.at::<Page>(self.header.context_page(i)).as_ref() })
    }

    /// Socket slot `i`.
    pub fn slot(&self, i: u32) -> Option<&Slot> {
        // SAFETY: `Slot` consists of atomics, any bit pattern is valid; `at` checked the bounds, slots are 448 bytes
        // apart from a page-aligned start, so aligned to 64.
        (i < self.header.n_sockets).then(|| unsafe { self.at::<Slot>(self.header.socket(i)).as_ref() })
    }

    /// Context `i`'s host-to-card queue.
    pub fn hc_queue(&self, i: u32) -> Option<QueueMemory<HostDesc>> {
        let page = self.page(i)?;
        let entries = self.header.hc_entries;
        let descs = self.words(self.header.hc_queue(i), entries as usize * DESC_LEN);
        QueueMemory::new(descs, entries, self.word(&page.host.hc_tail), self.word(&page.card.hc_head))
    }

    /// Context `i`'s card-to-host queue.
    pub fn ev_queue(&self, i: u32) -> Option<QueueMemory<EventDesc>> {
        let page = self.page(i)?;
        let entries = self.header.ev_entries;
        let descs = self.words(self.header.ev_queue(i), entries as usize * DESC_LEN);
        QueueMemory::new(descs, entries, self.word(&page.card.ev_tail), self.word(&page.host.ev_head))
    }

    /// A payload buffer. `off` and `len` are claims: `None` unless a power of two inside the payload area.
    pub fn ring(&self, off: u64, len: u32) -> Option<Ring<'_>> {
        let payload_end = self.header.payload_off + self.header.payload_len;
        let end = off.checked_add(len.into())?;
        if !len.is_power_of_two() || off < self.header.payload_off || end > payload_end {
            return None;
        }
        let base = NonNull::new(self.base.as_ptr().wrapping_add(off as usize))?;
        // SAFETY: inside the payload area, checked above, which lives as long as `self`.
        Some(unsafe { Ring::new(base, len) })
    }

    /// Takes the oldest waiting connection of a listener. Any thread of any process of the family may.
    pub fn pop_accept(&self, listener: &Slot) -> Option<AcceptRecord> {
        let listen = &listener.listen;
        let ring = listen.ring.load(Ordering::Relaxed);
        let mut head = listen.head.load(Ordering::Relaxed);
        loop {
            // Acquire: with toed's release of `tail`; the record is there.
            let tail = listen.tail.load(Ordering::Acquire);
            if !self.accept_ready(head, tail) {
                return None;
            }
            let record = self.accept_record(ring, head)?;
            // Release: toed (acquire) may overwrite the record only after it was copied out. Failure: another took it.
            let next = head.wrapping_add(1);
            match listen.head.compare_exchange_weak(head, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(record),
                Err(now) => head = now,
            }
        }
    }

    /// Whether a connection waits at a listener.
    pub fn has_accept(&self, listener: &Slot) -> bool {
        let head = listener.listen.head.load(Ordering::Relaxed);
        // Acquire: as in `pop_accept`.
        self.accept_ready(head, listener.listen.tail.load(Ordering::Acquire))
    }

    fn accept_ready(&self, head: u32, tail: u32) -> bool {
        let waiting = tail.wrapping_sub(head);
        waiting != 0 && waiting <= self.header.accept_entries
    }

    /// The words of record number `index` of accept ring `ring`; `None`: no such ring. (toed writes them.)
    pub fn accept_words(&self, ring: u32, index: u32) -> Option<Words> {
        if ring >= self.header.n_listeners {
            return None;
        }
        let entry = u64::from(index & (self.header.accept_entries - 1));
        let off = self.header.accept_ring(ring) + entry * ACCEPT_RECORD_LEN as u64;
        Some(self.words(off, ACCEPT_RECORD_LEN))
    }

    fn accept_record(&self, ring: u32, index: u32) -> Option<AcceptRecord> {
        let mut record = AcceptRecord::new_zeroed();
        self.accept_words(ring, index)?.load_bytes(zerocopy::IntoBytes::as_mut_bytes(&mut record));
        Some(record)
    }

    /// Zeroes a context's page and queues, before it is opened for a new owner. Only toed may, and only while no card uses it.
    pub fn clear_context(&self, i: u32) {
        if i >= self.header.n_contexts {
            return;
        }
        let queues = (self.header.hc_entries as usize + self.header.ev_entries as usize) * DESC_LEN;
        let parts = [(self.header.context_page(i), toe_abi::context::CONTEXT_PAGE_LEN), (self.header.hc_queue(i), queues)];
        for (off, len) in parts {
            let words = self.words(off, len);
            for w in 0..words.len() {
                words.at(w).store(0, Ordering::Relaxed);
            }
        }
    }

    /// `len` bytes at `off`, both from the checked geometry.
    fn words(&self, off: u64, len: usize) -> Words {
        let start = off as usize;
        assert!(start.checked_add(len).is_some_and(|end| end <= self.len) && start.is_multiple_of(4));
        // SAFETY: in bounds and aligned, as just checked; valid while the region is. The library keeps a region for the life
        // of the process; toed drops queues before their region.
        unsafe { Words::new(self.base.add(start).cast(), len / 4) }
    }

    fn word(&self, word: &AtomicU32) -> Word {
        // SAFETY: a word of this region, see `words`.
        unsafe { Word::new(NonNull::from(word)) }
    }

    /// A pointer to a `T` at `off`, from the checked geometry.
    fn at<T>(&self, off: u64) -> NonNull<T> {
        let start = off as usize;
        assert!(start.checked_add(size_of::<T>()).is_some_and(|end| end <= self.len));
        // SAFETY: in bounds, as just checked.
        unsafe { self.base.add(start).cast() }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if matches!(self.backing, Backing::Mapped) {
            // SAFETY: mapped by `map` with this length; views borrow from `self` and are gone.
            let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        }
    }
}

/// The header at `offset`, in a part of memory that is as large as it says. Checked again once it is mapped.
fn header_at(fd: impl AsFd, offset: u64) -> Result<RegionHeader, RegionError> {
    let mut header = RegionHeader::default();
    let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut header);
    let read = rustix::io::pread(fd, bytes, offset).map_err(|errno| RegionError::Os { step: "pread", errno })?;
    if read < size_of::<RegionHeader>() {
        return Err(RegionError::Layout { len: read as u64 });
    }
    check(&header, header.len)?;
    Ok(header)
}

/// Whether a header is one that toed can have written for memory of `len` bytes.
fn check(header: &RegionHeader, len: u64) -> Result<(), RegionError> {
    if header.magic != REGION_MAGIC {
        return Err(RegionError::NotARegion { found: header.magic });
    }
    if !toe_abi::compatible(header.abi_version) {
        return Err(RegionError::Version { found: header.abi_version });
    }
    let config = RegionConfig {
        region: header.region as u16,
        n_contexts: header.n_contexts,
        hc_entries: header.hc_entries,
        ev_entries: header.ev_entries,
        n_sockets: header.n_sockets,
        n_listeners: header.n_listeners,
        accept_entries: header.accept_entries,
        payload_len: header.payload_len,
    };
    let same = RegionHeader::new(&config).is_some_and(|h| RegionHeader { abi_version: header.abi_version, ..h } == *header);
    if same && header.len <= len { Ok(()) } else { Err(RegionError::Layout { len }) }
}

/// Ordinary memory laid out as a region, for tests and simulations.
pub mod memory {
    use super::*;
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use zerocopy::IntoBytes;

    /// Page-aligned zeroed memory with a region's header in it.
    pub struct RegionMemory {
        base: NonNull<u8>,
        layout: Layout,
    }

    // SAFETY: owns plain memory that is reached through raw pointers and atomics only.
    unsafe impl Send for RegionMemory {}
    // SAFETY: as above.
    unsafe impl Sync for RegionMemory {}

    impl RegionMemory {
        /// `None`: the configuration is not a valid one, or there is no memory.
        pub fn new(config: &RegionConfig) -> Option<Self> {
            let header = RegionHeader::new(config)?;
            let layout = Layout::from_size_align(usize::try_from(header.len).ok()?, HEADER_PAGE).ok()?;
            // SAFETY: the layout's size is at least a page.
            let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            // SAFETY: as long as the memory, which nobody else knows yet.
            unsafe { base.copy_from_nonoverlapping(NonNull::from(header.as_bytes()).cast(), size_of::<RegionHeader>()) };
            Some(Self { base, layout })
        }

        pub fn base(&self) -> NonNull<u8> {
            self.base
        }

        pub fn len(&self) -> usize {
            self.layout.size()
        }

        pub fn is_empty(&self) -> bool {
            false
        }
    }

    impl Drop for RegionMemory {
        fn drop(&mut self) {
            // SAFETY: allocated with this layout by `new`.
            unsafe { dealloc(self.base.as_ptr(), self.layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::memory::RegionMemory;
    use super::*;
    use zerocopy::IntoBytes;

    fn config() -> RegionConfig {
        RegionConfig {
            region: 3,
            n_contexts: 2,
            hc_entries: 8,
            ev_entries: 16,
            n_sockets: 5,
            n_listeners: 2,
            accept_entries: 4,
            payload_len: 65536,
        }
    }

    fn region(memory: &RegionMemory) -> Result<Region, RegionError> {
        // SAFETY: every test keeps the memory until the region is gone.
        unsafe { Region::from_memory(memory.base(), memory.len()) }
    }

    #[test]
    fn views_exist_exactly_for_what_the_header_counts() {
        let memory = RegionMemory::new(&config()).unwrap();
        let region = region(&memory).unwrap();
        assert!(region.page(1).is_some() && region.page(2).is_none());
        assert!(region.slot(4).is_some() && region.slot(5).is_none());
        assert!(region.hc_queue(1).is_some() && region.ev_queue(2).is_none());
        let payload = region.header().payload_off;
        assert!(region.ring(payload, 65536).is_some());
        assert!(region.ring(payload, 65536 * 2).is_none(), "past the end");
        assert!(region.ring(payload, 3000).is_none(), "not a power of two");
        assert!(region.ring(payload - 64, 64).is_none(), "before the payload area");
        assert!(region.ring(u64::MAX, 64).is_none());
    }

    #[test]
    fn a_mapped_file_shares_what_is_written() {
        let header = RegionHeader::new(&config()).unwrap();
        let fd = rustix::fs::memfd_create("region", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, header.len).unwrap();
        rustix::io::pwrite(&fd, header.as_bytes(), 0).unwrap();
        let (a, b) = (Region::map(&fd).unwrap(), Region::map(&fd).unwrap());
        a.slot(2).unwrap().tx.head.store(99, Ordering::Relaxed);
        assert_eq!(b.slot(2).unwrap().tx.head.load(Ordering::Relaxed), 99);
    }

    #[test]
    fn a_region_may_lie_in_the_middle_of_a_file() {
        const OFFSET: u64 = 0x2_0000;
        let header = RegionHeader::new(&config()).unwrap();
        let fd = rustix::fs::memfd_create("window", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, 1 << 20).unwrap();
        rustix::io::pwrite(&fd, header.as_bytes(), OFFSET).unwrap();
        let region = Region::map_at(&fd, OFFSET).unwrap();
        assert_eq!(region.len() as u64, header.len);
        region.slot(0).unwrap().tx.head.store(7, Ordering::Relaxed);
        let mut word = [0; 4];
        rustix::io::pread(&fd, &mut word, OFFSET + header.socket(0) + 128).unwrap();
        assert_eq!(u32::from_ne_bytes(word), 7);
        for offset in [0, 4096, OFFSET + 64, (1 << 20) - 4096, 1 << 20, u64::MAX] {
            assert!(Region::map_at(&fd, offset).is_err(), "{offset:#x}");
        }
        rustix::fs::ftruncate(&fd, OFFSET + 8192).unwrap();
        assert!(Region::map_at(&fd, OFFSET).is_err(), "it would reach past the end");
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let fields: [fn(&mut RegionHeader); 7] = [
            |h| h.len += 4096,
            |h| h.sockets_off += 64,
            |h| h.n_sockets = 1 << 30,
            |h| h.hc_entries = 7,
            |h| h.payload_len = u64::MAX - 100,
            |h| h.accepts_off = u64::MAX,
            |h| h.n_contexts = 0,
        ];
        for (i, damage) in fields.iter().enumerate() {
            let mut header = RegionHeader::new(&config()).unwrap();
            let len = header.len;
            damage(&mut header);
            assert!(matches!(check(&header, len), Err(RegionError::Layout { .. })), "field {i}");
        }
        let header = RegionHeader::new(&config()).unwrap();
        assert!(check(&header, header.len).is_ok());
        assert!(check(&header, header.len - 1).is_err(), "memory too small");
        let other = RegionHeader { abi_version: 2 << 16, ..header };
        assert_eq!(check(&other, header.len), Err(RegionError::Version { found: 2 << 16 }));
    }

    #[test]
    fn waiting_connections_come_out_in_order_and_once() {
        let memory = RegionMemory::new(&config()).unwrap();
        let region = region(&memory).unwrap();
        let slot = region.slot(0).unwrap();
        slot.listen.ring.store(1, Ordering::Relaxed);
        for lap in 0..3u32 {
            for i in 0..4u32 {
                let index = lap * 4 + i;
                let record = AcceptRecord { tx_len: 100 + index, ..Default::default() };
                region.accept_words(1, index).unwrap().store_bytes(record.as_bytes());
                slot.listen.tail.store(index + 1, Ordering::Release);
            }
            assert!(region.has_accept(slot));
            for i in 0..4u32 {
                assert_eq!(region.pop_accept(slot).map(|r| r.tx_len), Some(100 + lap * 4 + i));
            }
            assert!(region.pop_accept(slot).is_none() && !region.has_accept(slot));
        }
    }

    #[test]
    fn nonsense_in_a_listener_is_no_connection() {
        let memory = RegionMemory::new(&config()).unwrap();
        let region = region(&memory).unwrap();
        let slot = region.slot(0).unwrap();
        slot.listen.tail.store(1000, Ordering::Relaxed);
        assert!(region.pop_accept(slot).is_none());
        slot.listen.tail.store(1, Ordering::Relaxed);
        slot.listen.ring.store(77, Ordering::Relaxed);
        assert!(region.pop_accept(slot).is_none());
    }
}
