//! Host memory in this process: areas at fixed I/O virtual addresses, one copy away, no locks.
//!
//! Card and application are both ours and keep to the protocol: whoever writes bytes publishes them by a release store of a word, and
//! who reads them has loaded that word with acquire. So no two accesses to the same bytes race, and plain copies will do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

use toe_abi::{HostAddr, HostSpan, RegionId};
use toe_hal::{Cookie, Dma, DmaFault, HostMemory};

/// Regions that can be bound.
const REGIONS: usize = 4;
/// In `bound`: not bound.
const NOTHING: usize = usize::MAX;

struct Area {
    iova: u64,
    words: Box<[AtomicU32]>,
}

impl Area {
    fn len(&self) -> u64 {
        self.words.len() as u64 * 4
    }
}

/// A handle of the memory. The applications' side has one as well.
#[derive(Clone)]
pub struct Memory {
    areas: Arc<[Area]>,
    /// Which area each region is. Changed during set-up only.
    bound: Arc<[AtomicUsize; REGIONS]>,
}

impl Memory {
    /// Zeroed areas: I/O virtual address and bytes (a multiple of four) of each.
    pub fn new(areas: &[(u64, u64)]) -> Self {
        let words = |len: u64| (0..len / 4).map(|_| AtomicU32::new(0)).collect();
        let areas = areas.iter().map(|&(iova, len)| Area { iova, words: words(len) }).collect();
        Self { areas, bound: Arc::new(std::array::from_fn(|_| AtomicUsize::new(NOTHING))) }
    }

    fn area(&self, region: RegionId) -> Result<&Area, DmaFault> {
        let index = self.bound.get(usize::from(region.0)).ok_or(DmaFault)?.load(Ordering::Relaxed);
        self.areas.get(index).ok_or(DmaFault)
    }

    /// Where `len` bytes at `addr` begin.
    fn bytes(&self, addr: HostAddr, len: usize) -> Result<*mut u8, DmaFault> {
        let area = self.area(addr.region)?;
        let end = addr.offset.checked_add(len as u64).ok_or(DmaFault)?;
        if end > area.len() {
            return Err(DmaFault);
        }
        // Only the address is taken here, and it lies inside the area or right behind it. The words are atomics, so they may be
        // written through a shared reference's pointer.
        Ok(area.words.as_ptr().cast::<u8>().cast_mut().wrapping_add(addr.offset as usize))
    }

    /// The aligned word at `addr`.
    pub fn word(&self, addr: HostAddr) -> Result<&AtomicU32, DmaFault> {
        if !addr.offset.is_multiple_of(4) {
            return Err(DmaFault);
        }
        self.area(addr.region)?.words.get((addr.offset / 4) as usize).ok_or(DmaFault)
    }

    /// Copies bytes in.
    pub fn put(&self, dst: HostAddr, src: &[u8]) -> Result<(), DmaFault> {
        let to = self.bytes(dst, src.len())?;
        // SAFETY: `to` is the start of `src.len()` bytes of an area that `self` keeps allocated; `src` is not of an area (nothing here
        // gives out references to one), so the two don't overlap; nobody else accesses these bytes now (see the top of the file).
        unsafe { std::ptr::copy_nonoverlapping(src.as_ptr(), to, src.len()) };
        Ok(())
    }

    /// Copies bytes out.
    pub fn get(&self, src: HostAddr, dst: &mut [u8]) -> Result<(), DmaFault> {
        let from = self.bytes(src, dst.len())?;
        // SAFETY: as in `put`, the other way round; every byte was initialised when the area was made.
        unsafe { std::ptr::copy_nonoverlapping(from, dst.as_mut_ptr(), dst.len()) };
        Ok(())
    }
}

impl HostMemory for Memory {
    /// The port reads by the same memory's [`get`](Memory::get).
    type Slice = HostSpan;

    fn handle(&self) -> Self {
        self.clone()
    }

    fn bind(&mut self, region: RegionId, iova: u64, len: u64) -> Result<(), DmaFault> {
        let found = self.areas.iter().position(|area| area.iova == iova && len <= area.len()).ok_or(DmaFault)?;
        self.bound.get(usize::from(region.0)).ok_or(DmaFault)?.store(found, Ordering::Relaxed);
        Ok(())
    }

    fn unbind(&mut self, region: RegionId) {
        if let Some(bound) = self.bound.get(usize::from(region.0)) {
            bound.store(NOTHING, Ordering::Relaxed);
        }
    }

    fn write(&mut self, dst: HostAddr, src: &[u8], _: Cookie) -> Result<Dma, DmaFault> {
        self.put(dst, src).map(|()| Dma::Done)
    }

    fn fetch(&mut self, src: HostAddr, dst: &mut [u8], _: Cookie) -> Result<Dma, DmaFault> {
        self.get(src, dst).map(|()| Dma::Done)
    }

    fn fetched(&mut self, _: Cookie, _: &mut [u8]) {
        // Nothing is ever pending.
    }

    fn poll(&mut self, _: &mut [(Cookie, Result<(), DmaFault>)]) -> usize {
        0
    }

    fn load(&self, addr: HostAddr) -> Result<u32, DmaFault> {
        // Acquire: with the release of whoever published the word.
        Ok(self.word(addr)?.load(Ordering::Acquire))
    }

    fn store(&self, addr: HostAddr, value: u32) -> Result<(), DmaFault> {
        // Release: what was written before is there for whoever loads the word.
        self.word(addr)?.store(value, Ordering::Release);
        Ok(())
    }

    fn fence(&self) {
        // Partner: the fence of the application (`toe_sync::sleep`).
        fence(Ordering::SeqCst);
    }

    fn slice(&self, span: HostSpan) -> Result<HostSpan, DmaFault> {
        self.bytes(span.addr, span.len as usize).map(|_| span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: RegionId = RegionId(1);

    #[test]
    fn bytes_and_words_are_the_same_memory() {
        let mut memory = Memory::new(&[(0x1000, 64)]);
        memory.bind(R, 0x1000, 64).unwrap();
        memory.handle().put(HostAddr::new(R, 3), &[1, 2, 3, 4, 5]).unwrap();
        assert_eq!(memory.load(HostAddr::new(R, 4)), Ok(u32::from_ne_bytes([2, 3, 4, 5])));
        memory.store(HostAddr::new(R, 60), u32::MAX).unwrap();
        let mut end = [0; 5];
        memory.get(HostAddr::new(R, 59), &mut end).unwrap();
        assert_eq!(end, [0, 255, 255, 255, 255]);
    }

    #[test]
    fn what_lies_outside_faults() {
        let mut memory = Memory::new(&[(0x1000, 64)]);
        assert_eq!(memory.load(HostAddr::new(R, 0)), Err(DmaFault), "not bound");
        assert_eq!(memory.bind(R, 0x1000, 65), Err(DmaFault));
        assert_eq!(memory.bind(R, 0x2000, 4), Err(DmaFault));
        memory.bind(R, 0x1000, 64).unwrap();
        assert_eq!(memory.put(HostAddr::new(R, 60), &[0; 5]), Err(DmaFault));
        assert_eq!(memory.put(HostAddr::new(R, u64::MAX), &[0; 5]), Err(DmaFault));
        assert_eq!(memory.load(HostAddr::new(R, 2)), Err(DmaFault));
        assert_eq!(memory.load(HostAddr::new(R, 64)), Err(DmaFault));
        assert!(memory.slice(HostSpan { addr: HostAddr::new(R, 64), len: 1 }).is_err());
        memory.unbind(R);
        assert_eq!(memory.put(HostAddr::new(R, 0), &[0]), Err(DmaFault));
    }
}
