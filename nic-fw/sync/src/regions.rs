//! Where each region lies: changed by one owner now and then, read by every core at each access, without a lock.
//!
//! ```text
//!   version   0 ──bind──► 1 ──unbind──► 2 ──bind──► 3         odd: bound, base and len belong together
//!                                                             even: not bound, or being changed
//!   owner                                  reader
//!   ─────                                  ──────
//!   version = even    relaxed              v = version      acquire   even: not bound
//!   fence             release ◄── 1 ──┐ ┌► base, len        relaxed
//!   base, len         relaxed         └─┼► fence            acquire
//!   version = odd     release ◄── 2 ────┘  version == v ?   relaxed   no: it has just been taken away
//! ```
//!
//! 1: a reader that got base or len of a later binding sees that the version has moved on, too. 2: a reader that sees a binding's version
//! sees its base and len, not older ones. So a pair that is handed out belongs together. Nobody waits: to a reader in whose look
//! a change falls, the region is not bound, and a moment later that would have been the answer as well.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
use toe_abi::{HostAddr, RegionId};

/// The table has no place for a region of this name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSuchRegion;

/// One region's place. 64 bits of version never come round.
#[derive(Debug, Default)]
struct Place {
    version: AtomicU64,
    base: AtomicPtr<u8>,
    len: AtomicU64,
}

/// A table of `regions` places, none of them bound: the end that changes it and the end that reads it.
pub fn table(regions: u16) -> (Owner, Reader) {
    let places: Arc<[Place]> = (0..regions).map(|_| Place::default()).collect();
    (Owner(places.clone()), Reader(places))
}

/// The only one that changes the table.
#[derive(Debug)]
pub struct Owner(Arc<[Place]>);

impl Owner {
    /// Says that `region` is the `len` bytes at `base`.
    ///
    /// # Safety
    /// They are shared memory, aligned to four bytes, which others reach by raw copies and atomics only, and which stays valid until every core
    /// has passed an epoch that began after the region was unbound (`crate::epoch`).
    pub unsafe fn bind(&mut self, region: RegionId, base: *mut u8, len: u64) -> Result<(), NoSuchRegion> {
        self.unbind(region);
        let place = self.0.get(usize::from(region.0)).ok_or(NoSuchRegion)?;
        let version = place.version.load(Ordering::Relaxed);
        // Release: with the acquire fence in `get`. Pair 1 of the picture.
        fence(Ordering::Release);
        place.base.store(base, Ordering::Relaxed);
        place.len.store(len, Ordering::Relaxed);
        // Release: with the acquire load in `get`. Pair 2 of the picture.
        place.version.store(version + 1, Ordering::Release);
        Ok(())
    }

    /// Says that `region` is nothing. Readers may still use what they found before: an epoch tells when they don't.
    pub fn unbind(&mut self, region: RegionId) {
        if let Some(place) = self.0.get(usize::from(region.0)) {
            let version = place.version.load(Ordering::Relaxed);
            // Relaxed: a reader that misses it is one that found the region before. The epoch's own orders bound how long.
            place.version.store(version.next_multiple_of(2), Ordering::Relaxed);
        }
    }
}

/// Every core's view.
#[derive(Clone, Debug)]
pub struct Reader(Arc<[Place]>);

impl Reader {
    /// Base and length of a region, if it is bound.
    pub fn get(&self, region: RegionId) -> Option<(*mut u8, u64)> {
        let place = self.0.get(usize::from(region.0))?;
        // Acquire: with the release store in `bind`. Pair 2 of the picture.
        let version = place.version.load(Ordering::Acquire);
        let found = (place.base.load(Ordering::Relaxed), place.len.load(Ordering::Relaxed));
        // Acquire: with the release fence in `bind`. Pair 1 of the picture.
        fence(Ordering::Acquire);
        let is_whole = version % 2 == 1 && place.version.load(Ordering::Relaxed) == version;
        is_whole.then_some(found)
    }

    /// Where `len` bytes at `addr` lie, if they do.
    #[inline]
    pub fn resolve(&self, addr: HostAddr, len: usize) -> Option<*mut u8> {
        let (base, region_len) = self.get(addr.region)?;
        let end = addr.offset.checked_add(len as u64)?;
        // SAFETY: offset + len <= the region's length, and the region was bound when this core looked (see `Owner::bind`).
        (end <= region_len).then(|| unsafe { base.add(addr.offset as usize) })
    }

    /// An aligned word.
    #[inline]
    pub fn word(&self, addr: HostAddr) -> Option<&AtomicU32> {
        let ptr = self.resolve(addr, 4).filter(|_| addr.offset.is_multiple_of(4))?;
        // SAFETY: in bounds (resolved); aligned, as regions are and the offset is a multiple of four; others access the word as an atomic or
        // not at all, and an atomic allows any value they put there.
        Some(unsafe { AtomicU32::from_ptr(ptr.cast()) })
    }

    /// Copies `src`, the card's own memory, to `dst`. Others may write there meanwhile: then it holds a mixture, which is their own loss.
    #[inline]
    pub fn write(&self, dst: HostAddr, src: &[u8]) -> Option<()> {
        let to = self.resolve(dst, src.len())?;
        // SAFETY: in bounds (resolved); `src` is not shared memory, so the two don't overlap.
        unsafe { core::ptr::copy_nonoverlapping(src.as_ptr(), to, src.len()) };
        Some(())
    }

    /// Copies what is at `src`, whatever mixture that is: the caller validates its copy and never looks at the source again.
    #[inline]
    pub fn read(&self, src: HostAddr, dst: &mut [u8]) -> Option<()> {
        let from = self.resolve(src, dst.len())?;
        // SAFETY: as in `write`.
        unsafe { core::ptr::copy_nonoverlapping(from, dst.as_mut_ptr(), dst.len()) };
        Some(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    const R: RegionId = RegionId(0);

    #[test]
    fn a_place_is_there_between_bind_and_unbind() {
        let (mut owner, reader) = table(1);
        let base = core::ptr::without_provenance_mut(64);
        // SAFETY: nothing is accessed through the table.
        let bind = |owner: &mut Owner, region, len| unsafe { owner.bind(region, base, len) };
        assert_eq!(reader.get(R), None);
        owner.unbind(R);
        bind(&mut owner, R, 1).unwrap();
        assert_eq!(reader.get(R), Some((base, 1)));
        bind(&mut owner, R, 2).unwrap();
        assert_eq!(reader.get(R), Some((base, 2)));
        owner.unbind(R);
        owner.unbind(R);
        assert_eq!(reader.get(R), None);
        assert_eq!((bind(&mut owner, RegionId(1), 1), reader.get(RegionId(1))), (Err(NoSuchRegion), None), "no such region");
    }

    #[test]
    fn readers_never_see_halves_of_two_bindings() {
        let (mut owner, reader) = table(1);
        // SAFETY: nothing is accessed through the table.
        let mut bind = |len: usize| unsafe { owner.bind(R, core::ptr::without_provenance_mut(len * 3), len as u64) }.unwrap();
        bind(1);
        let look = || {
            let is_whole = |(base, len): (*mut u8, u64)| base.addr() as u64 == len * 3;
            (0..200_000).filter_map(|_| reader.get(R)).all(is_whole)
        };
        std::thread::scope(|scope| {
            let readers = [scope.spawn(look), scope.spawn(look)];
            (1..).take_while(|_| readers.iter().any(|r| !r.is_finished())).for_each(&mut bind);
            for reader in readers {
                assert!(reader.join().unwrap(), "base and len of different bindings");
            }
        });
        assert!(reader.get(R).is_some());
    }
}
