//! Host memory that answers late, out of order, or not at all.

use super::Chance;
use crate::{Cookie, Dma, DmaFault, HostMemory, memory::FETCH_MAX};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    },
    vec::Vec,
};
use toe_abi::{HostAddr, HostSpan, RegionId};

const PAGE: usize = 4096;

/// What a [`FakeMemory`] does to its caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryKnobs {
    /// A transfer completes after this many polls at least; 0 and `max_delay` 0: at once.
    pub min_delay: u32,
    /// And at most.
    pub max_delay: u32,
    /// How often a transfer is refused with `Full`.
    pub full_percent: u8,
    /// How often a delayed transfer fails.
    pub fault_percent: u8,
}

/// Host memory as [`super::FakePort`] sends from it.
#[derive(Clone, Copy, Debug)]
pub struct FakeSlice {
    pub(super) ptr: *const u8,
    pub(super) len: u32,
}

// SAFETY: the pointer is to shared memory that is valid on every thread and accessed by atomics only (see `read`).
unsafe impl Send for FakeSlice {}

impl FakeSlice {
    /// The bytes as they are now.
    pub fn read(&self) -> Vec<u8> {
        // SAFETY: `FakeMemory::slice` checked that the run lies in an area; areas stay allocated as long as
        // the `FakeMemory` lives (owned) or as their owner promised (external).
        unsafe { copy_out(self.ptr, self.len as usize) }
    }
}

struct Area {
    iova: u64,
    ptr: NonNull<u8>,
    len: usize,
    owned: bool,
    mapped: bool,
}

#[derive(Clone, Copy)]
struct Bound {
    ptr: NonNull<u8>,
    len: u64,
}

enum Transfer {
    Write { dst: HostAddr, bytes: Vec<u8> },
    Fetch { src: HostAddr, len: usize },
}

struct Pending {
    /// The handle that it was started with.
    handle: usize,
    cookie: Cookie,
    due_poll: u64,
    transfer: Transfer,
}

struct Inner {
    areas: Vec<Area>,
    bound: Vec<Option<Bound>>,
    pending: Vec<Pending>,
    fetched: Vec<(usize, Cookie, Vec<u8>)>,
    faulted: Vec<(usize, Cookie)>,
    handles: usize,
    polls: u64,
    chance: Chance,
    knobs: MemoryKnobs,
    /// Transfers to this region take so many polls more.
    slow: Option<(RegionId, u32)>,
}

// SAFETY: the pointers are to memory that is valid on every thread (owned until drop, or vouched for by `map_raw`'s caller) and
// is accessed by atomics only.
unsafe impl Send for Inner {}

/// Host memory made of areas at I/O virtual addresses; see [`MemoryKnobs`]. Handles share it; each polls its own transfers.
pub struct FakeMemory {
    inner: Arc<Mutex<Inner>>,
    handle: usize,
}

impl FakeMemory {
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            areas: Vec::new(),
            bound: Vec::new(),
            pending: Vec::new(),
            fetched: Vec::new(),
            faulted: Vec::new(),
            handles: 1,
            polls: 0,
            chance: Chance::new(seed),
            knobs: MemoryKnobs::default(),
            slow: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)), handle: 0 }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_knobs(&self, knobs: MemoryKnobs) {
        self.inner().knobs = knobs;
    }

    /// Transfers to one region take so many polls more than others.
    pub fn slow_down(&self, region: RegionId, polls: u32) {
        self.inner().slow = Some((region, polls));
    }

    /// Transfers not completed yet, of all handles.
    pub fn in_flight(&self) -> usize {
        self.inner().pending.len()
    }

    /// Maps `len` bytes of zeroed memory at `iova`.
    pub fn map_owned(&self, iova: u64, len: usize) -> NonNull<u8> {
        let layout = Layout::from_size_align(len.max(1), PAGE).expect("a size that fits");
        // SAFETY: the layout's size is not zero.
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(raw) else { handle_alloc_error(layout) };
        self.inner().areas.push(Area { iova, ptr, len, owned: true, mapped: true });
        ptr
    }

    /// Maps memory that somebody else owns at `iova`.
    ///
    /// # Safety
    /// `ptr` must be valid for reads and writes of `len` bytes, and aligned to 64, until this `FakeMemory`, its handles and all
    /// slices of it are gone. Others may access it only as shared memory: by atomics or by copies through pointers.
    pub unsafe fn map_raw(&self, iova: u64, ptr: NonNull<u8>, len: usize) {
        self.inner().areas.push(Area { iova, ptr, len, owned: false, mapped: true });
    }

    /// Takes the area at `iova` away. False: there are regions bound to it, which keep their names until they are unbound.
    pub fn unmap(&self, iova: u64) -> bool {
        let Inner { areas, bound, .. } = &mut *self.inner();
        let Some(area) = areas.iter_mut().find(|a| a.iova == iova && a.mapped) else { return true };
        area.mapped = false;
        let has = |at: NonNull<u8>| (0..area.len).contains(&at.addr().get().wrapping_sub(area.ptr.addr().get()));
        !bound.iter().flatten().any(|b| has(b.ptr))
    }

    /// For tests: reads bytes of a bound region.
    pub fn peek(&self, addr: HostAddr, len: usize) -> Vec<u8> {
        let ptr = self.inner().resolve(addr, len).expect("a bound address");
        // SAFETY: `resolve` checked the range.
        unsafe { copy_out(ptr.as_ptr(), len) }
    }

    /// For tests: writes bytes of a bound region, as the host would.
    pub fn poke(&self, addr: HostAddr, bytes: &[u8]) {
        let ptr = self.inner().resolve(addr, bytes.len()).expect("a bound address");
        // SAFETY: `resolve` checked the range.
        unsafe { copy_in(ptr.as_ptr(), bytes) }
    }

    fn word(&self, addr: HostAddr) -> Result<&AtomicU32, DmaFault> {
        if !addr.offset.is_multiple_of(4) {
            return Err(DmaFault);
        }
        let ptr = self.inner().resolve(addr, 4)?;
        // SAFETY: in range, aligned (areas are aligned to 64, offsets to 4), and shared words are accessed by atomics only.
        // Areas live as long as any handle.
        Ok(unsafe { AtomicU32::from_ptr(ptr.as_ptr().cast()) })
    }
}

impl Inner {
    fn resolve(&self, addr: HostAddr, len: usize) -> Result<NonNull<u8>, DmaFault> {
        let bound = self.bound.get(usize::from(addr.region.0)).copied().flatten().ok_or(DmaFault)?;
        let end = addr.offset.checked_add(len as u64).ok_or(DmaFault)?;
        if end > bound.len {
            return Err(DmaFault);
        }
        // SAFETY: offset + len lies inside the bound range, which `bind` checked to be inside one area.
        Ok(unsafe { bound.ptr.add(addr.offset as usize) })
    }

    /// When a new transfer to `region` is to complete: `None`, at once.
    fn delay(&mut self, region: RegionId) -> Option<u64> {
        let MemoryKnobs { min_delay, max_delay, .. } = self.knobs;
        let more = self.slow.filter(|&(slow, _)| slow == region).map_or(0, |(_, polls)| polls);
        if max_delay + more == 0 {
            return None;
        }
        let spread = u64::from(max_delay.saturating_sub(min_delay)) + 1;
        Some(self.polls + u64::from(min_delay + more) + self.chance.below(spread))
    }

    fn start(&mut self, handle: usize, cookie: Cookie, due_poll: u64, transfer: Transfer) -> Dma {
        let twice = self.pending.iter().any(|p| (p.handle, p.cookie) == (handle, cookie));
        assert!(!twice, "cookie {cookie:#x} used twice");
        self.pending.push(Pending { handle, cookie, due_poll, transfer });
        Dma::Pending
    }

    fn finish(&mut self, p: Pending) -> (Cookie, Result<(), DmaFault>) {
        if self.chance.percent(self.knobs.fault_percent) {
            return (p.cookie, Err(DmaFault));
        }
        let result = match p.transfer {
            Transfer::Write { dst, bytes } => self.resolve(dst, bytes.len()).map(|to| {
                // SAFETY: `resolve` checked the range.
                unsafe { copy_in(to.as_ptr(), &bytes) }
            }),
            Transfer::Fetch { src, len } => self.resolve(src, len).map(|from| {
                // SAFETY: `resolve` checked the range.
                let bytes = unsafe { copy_out(from.as_ptr(), len) };
                self.fetched.push((p.handle, p.cookie, bytes));
            }),
        };
        (p.cookie, result)
    }
}

impl HostMemory for FakeMemory {
    type Slice = FakeSlice;

    fn handle(&self) -> Self {
        let mut inner = self.inner();
        let handle = inner.handles;
        inner.handles += 1;
        drop(inner);
        Self { inner: self.inner.clone(), handle }
    }

    fn bind(&mut self, region: RegionId, iova: u64, len: u64) -> Result<(), DmaFault> {
        let mut inner = self.inner();
        let end = iova.checked_add(len).ok_or(DmaFault)?;
        let inside = |a: &&Area| a.mapped && iova >= a.iova && end <= a.iova + a.len as u64;
        let area = inner.areas.iter().find(inside).ok_or(DmaFault)?;
        // SAFETY: the offset lies inside the area, as just checked.
        let ptr = unsafe { area.ptr.add((iova - area.iova) as usize) };
        let index = usize::from(region.0);
        if inner.bound.len() <= index {
            inner.bound.resize(index + 1, None);
        }
        inner.bound[index] = Some(Bound { ptr, len });
        Ok(())
    }

    fn unbind(&mut self, region: RegionId) {
        let mut inner = self.inner();
        if let Some(bound) = inner.bound.get_mut(usize::from(region.0)) {
            *bound = None;
        }
        let of_region = |p: &Pending| match &p.transfer {
            Transfer::Write { dst, .. } => dst.region == region,
            Transfer::Fetch { src, .. } => src.region == region,
        };
        let faulted: Vec<_> = inner.pending.iter().filter(|p| of_region(p)).map(|p| (p.handle, p.cookie)).collect();
        inner.faulted.extend(faulted);
        inner.pending.retain(|p| !of_region(p));
    }

    fn write(&mut self, dst: HostAddr, src: &[u8], cookie: Cookie) -> Result<Dma, DmaFault> {
        let handle = self.handle;
        let mut inner = self.inner();
        let to = inner.resolve(dst, src.len())?;
        let full = inner.knobs.full_percent;
        if inner.chance.percent(full) {
            return Ok(Dma::Full);
        }
        Ok(match inner.delay(dst.region) {
            None => {
                // SAFETY: `resolve` checked the range.
                unsafe { copy_in(to.as_ptr(), src) };
                Dma::Done
            }
            Some(due) => inner.start(handle, cookie, due, Transfer::Write { dst, bytes: src.to_vec() }),
        })
    }

    fn fetch(&mut self, src: HostAddr, dst: &mut [u8], cookie: Cookie) -> Result<Dma, DmaFault> {
        assert!(dst.len() <= FETCH_MAX, "fetch of {} bytes", dst.len());
        let handle = self.handle;
        let mut inner = self.inner();
        let from = inner.resolve(src, dst.len())?;
        let full = inner.knobs.full_percent;
        if inner.chance.percent(full) {
            return Ok(Dma::Full);
        }
        Ok(match inner.delay(src.region) {
            None => {
                // SAFETY: `resolve` checked the range.
                dst.copy_from_slice(&unsafe { copy_out(from.as_ptr(), dst.len()) });
                Dma::Done
            }
            Some(due) => {
                dst.fill(0xdb);
                inner.start(handle, cookie, due, Transfer::Fetch { src, len: dst.len() })
            }
        })
    }

    fn fetched(&mut self, cookie: Cookie, dst: &mut [u8]) {
        let handle = self.handle;
        let mut inner = self.inner();
        let at = inner.fetched.iter().position(|(h, c, _)| (*h, *c) == (handle, cookie)).expect("a fetch that completed");
        let (_, _, bytes) = inner.fetched.swap_remove(at);
        dst.copy_from_slice(&bytes[..dst.len()]);
    }

    fn poll(&mut self, done: &mut [(Cookie, Result<(), DmaFault>)]) -> usize {
        let handle = self.handle;
        let inner = &mut *self.inner();
        inner.polls += 1;
        let mut n = 0;
        while n < done.len() {
            if let Some(at) = inner.faulted.iter().rposition(|(h, _)| *h == handle) {
                done[n] = (inner.faulted.remove(at).1, Err(DmaFault));
                n += 1;
                continue;
            }
            let is_due = |p: &Pending| p.handle == handle && p.due_poll <= inner.polls;
            let due: Vec<usize> = (0..inner.pending.len()).filter(|&i| is_due(&inner.pending[i])).collect();
            if due.is_empty() {
                break;
            }
            let pick = due[inner.chance.below(due.len() as u64) as usize];
            let transfer = inner.pending.swap_remove(pick);
            done[n] = inner.finish(transfer);
            n += 1;
        }
        n
    }

    fn load(&self, addr: HostAddr) -> Result<u32, DmaFault> {
        Ok(self.word(addr)?.load(Ordering::Acquire))
    }

    fn store(&self, addr: HostAddr, value: u32) -> Result<(), DmaFault> {
        self.word(addr)?.store(value, Ordering::Release);
        Ok(())
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn slice(&self, span: HostSpan) -> Result<FakeSlice, DmaFault> {
        let ptr = self.inner().resolve(span.addr, span.len as usize)?;
        Ok(FakeSlice { ptr: ptr.as_ptr(), len: span.len })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for area in self.areas.iter().filter(|a| a.owned) {
            let layout = Layout::from_size_align(area.len.max(1), PAGE).expect("a size that fitted");
            // SAFETY: allocated in `map_owned` with this layout, freed once.
            unsafe { dealloc(area.ptr.as_ptr(), layout) };
        }
    }
}

/// Bytes that are copied as one, where they are aligned.
const WORD: usize = size_of::<u64>();

/// Copies shared memory out, relaxed: a racing writer gives garbage, not undefined behaviour.
///
/// # Safety
/// `from` must be valid for reads of `len` bytes.
unsafe fn copy_out(from: *const u8, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len);
    // SAFETY: inside the range by the caller's promise; bytes have no alignment.
    let byte = |i: usize| unsafe { AtomicU8::from_ptr(from.add(i).cast_mut()) }.load(Ordering::Relaxed);
    let head = from.align_offset(WORD).min(len);
    out.extend((0..head).map(byte));
    let words = (len - head) / WORD;
    for i in 0..words {
        // SAFETY: inside the range, and aligned, as `head` bytes are in front.
        let word = unsafe { AtomicU64::from_ptr(from.add(head + i * WORD).cast_mut().cast()) };
        out.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    out.extend((head + words * WORD..len).map(byte));
    out
}

/// Copies into shared memory, relaxed.
///
/// # Safety
/// `to` must be valid for writes of `bytes.len()` bytes.
unsafe fn copy_in(to: *mut u8, bytes: &[u8]) {
    // SAFETY: inside the range by the caller's promise; bytes have no alignment.
    let store = |i: usize, byte: u8| unsafe { AtomicU8::from_ptr(to.add(i)) }.store(byte, Ordering::Relaxed);
    let (head, rest) = bytes.split_at(to.align_offset(WORD).min(bytes.len()));
    let (words, tail) = rest.as_chunks::<WORD>();
    head.iter().enumerate().for_each(|(i, byte)| store(i, *byte));
    for (i, word) in words.iter().enumerate() {
        // SAFETY: inside the range, and aligned, as `head` is in front.
        let to = unsafe { AtomicU64::from_ptr(to.add(head.len() + i * WORD).cast()) };
        to.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
    }
    tail.iter().enumerate().for_each(|(i, byte)| store(head.len() + words.len() * WORD + i, *byte));
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: RegionId = RegionId(1);

    fn bound() -> FakeMemory {
        let mut m = FakeMemory::new(1);
        m.map_owned(0x1000, 8192);
        m.bind(R, 0x1000, 8192).unwrap();
        m
    }

    #[test]
    fn without_knobs_transfers_complete_at_once() {
        let mut m = bound();
        assert_eq!(m.write(HostAddr::new(R, 100), b"hello", 1), Ok(Dma::Done));
        assert_eq!(m.peek(HostAddr::new(R, 100), 5), b"hello");
    }

    #[test]
    fn a_delayed_write_is_not_there_before_its_cookie() {
        let mut m = bound();
        m.set_knobs(MemoryKnobs { min_delay: 2, max_delay: 2, ..Default::default() });
        assert_eq!(m.write(HostAddr::new(R, 0), b"late", 7), Ok(Dma::Pending));
        let mut done = [(0, Ok(())); 4];
        assert_eq!(m.poll(&mut done), 0);
        assert_eq!(m.peek(HostAddr::new(R, 0), 4), [0; 4]);
        assert_eq!(m.poll(&mut done), 1);
        assert_eq!((done[0], m.peek(HostAddr::new(R, 0), 4)), ((7, Ok(())), b"late".to_vec()));
    }

    #[test]
    fn a_delayed_fetch_brings_nothing_before_its_cookie() {
        let mut m = bound();
        m.poke(HostAddr::new(R, 64), b"desc");
        m.set_knobs(MemoryKnobs { min_delay: 1, max_delay: 1, ..Default::default() });
        let mut buf = [0; 4];
        assert_eq!(m.fetch(HostAddr::new(R, 64), &mut buf, 9), Ok(Dma::Pending));
        assert_ne!(&buf, b"desc");
        let mut done = [(0, Ok(())); 1];
        while m.poll(&mut done) == 0 {}
        m.fetched(9, &mut buf);
        assert_eq!(&buf, b"desc");
    }

    #[test]
    fn unbinding_fails_what_is_under_way() {
        let mut m = bound();
        m.set_knobs(MemoryKnobs { min_delay: 5, max_delay: 5, ..Default::default() });
        assert_eq!(m.write(HostAddr::new(R, 0), b"x", 1), Ok(Dma::Pending));
        m.unbind(R);
        let mut done = [(0, Ok(())); 4];
        assert_eq!(m.poll(&mut done), 1);
        assert_eq!(done[0], (1, Err(DmaFault)));
        assert_eq!(m.load(HostAddr::new(R, 0)), Err(DmaFault));
    }

    #[test]
    fn an_area_may_go_when_nothing_is_bound_to_it() {
        let mut m = bound();
        m.map_owned(0x9000, 4096);
        assert!(m.unmap(0x9000), "nobody has it");
        assert!(!m.unmap(0x1000), "a region is bound to it");
        assert_eq!(m.bind(RegionId(2), 0x1000, 8192), Err(DmaFault));
        m.unbind(R);
        assert!(m.unmap(0x1000), "it is gone");
    }

    #[test]
    fn a_handle_polls_only_what_it_started() {
        let mut m = bound();
        let mut other = m.handle();
        m.set_knobs(MemoryKnobs { min_delay: 1, max_delay: 1, ..Default::default() });
        assert_eq!(m.write(HostAddr::new(R, 0), b"a", 1), Ok(Dma::Pending));
        assert_eq!(other.write(HostAddr::new(R, 1), b"b", 1), Ok(Dma::Pending));
        let mut done = [(0, Ok(())); 4];
        assert_eq!((m.poll(&mut done), m.peek(HostAddr::new(R, 0), 2)), (1, b"a\0".to_vec()));
        assert_eq!((other.poll(&mut done), m.peek(HostAddr::new(R, 0), 2)), (1, b"ab".to_vec()));
    }

    #[test]
    fn copies_begin_and_end_anywhere() {
        let m = bound();
        let bytes: Vec<u8> = (1..=40).collect();
        for (from, len) in (0..9).flat_map(|from| (0..40).map(move |len| (from, len))) {
            m.poke(HostAddr::new(R, 0), &[0; 64]);
            m.poke(HostAddr::new(R, 8 + from as u64), &bytes[..len]);
            let expected = [vec![0; 8 + from], bytes[..len].to_vec(), vec![0; 56 - from - len]].concat();
            assert_eq!(m.peek(HostAddr::new(R, 0), 64), expected);
            assert_eq!(m.peek(HostAddr::new(R, 8 + from as u64), len), bytes[..len]);
        }
    }

    #[test]
    fn addresses_outside_a_region_fault() {
        let mut m = bound();
        assert_eq!(m.write(HostAddr::new(R, 8190), b"abc", 1), Err(DmaFault));
        assert_eq!(m.write(HostAddr::new(R, u64::MAX), b"abc", 1), Err(DmaFault));
        assert_eq!(m.load(HostAddr::new(R, 2)), Err(DmaFault));
        assert_eq!(m.store(HostAddr::new(RegionId(9), 0), 1), Err(DmaFault));
        assert!(m.slice(HostSpan { addr: HostAddr::new(R, 8192), len: 1 }).is_err());
        assert_eq!(m.bind(RegionId(2), 0x1000, 8193), Err(DmaFault));
    }
}
