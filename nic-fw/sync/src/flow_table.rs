//! The flow table: from the hash of a four-tuple to the flow ids that may be meant. Many readers, one writer, no locks.
//!
//! ```text
//!   bucket, one cache line                                     probing: home, home + 1, ... (at most PROBES)
//!   ┌──────────────┬─────┬──────────────┬────────────┬─────┬────────────┬────────┐
//!   │ tag, index 0 │ ... │ tag, index 4 │ generation0│ ... │ generation4│ passed │
//!   └──────────────┴─────┴──────────────┴────────────┴─────┴────────────┴────────┘
//!     one 64-bit word each; EMPTY                              entries that live further on because
//!                                                              this bucket was full: 0 ends a look-up
//! ```
//!
//! Readers get *candidates*: equal in bucket and 32-bit tag. The caller compares the full key and the generation in the
//! flow itself. That is also why no seqlock is needed: an entry is never moved, so one that stays is always found, and a
//! half-seen entry that comes or goes is one more candidate that the comparison refuses.
//!
//! | word       | written by | order   | read by | order   | what the pair guarantees                               |
//! |------------|------------|---------|---------|---------|--------------------------------------------------------|
//! | entry      | writer     | release | readers | acquire | its generation, and the flow it names, are there       |
//! | generation | writer     | relaxed | readers | relaxed | by `entry`                                             |
//! | passed     | writer     | relaxed | readers | relaxed | counts an entry as long as it can be found             |
//!
//! Memory of a removed flow may be used again when every reader has passed an epoch: [`crate::epoch`].

use crate::atomic::{Arc, AtomicU32, AtomicU64, Ordering};
use crate::flow_hash::FlowHash;
use alloc::boxed::Box;
use toe_abi::FlowId;

/// Entries in a bucket: what fits into a cache line.
const WAYS: usize = 5;
/// Entries of a bucket in use when the table holds its capacity: the rest keeps chains short.
const FILL: u32 = 3;
/// Buckets looked at for one hash, at most. Chains end much sooner: at the first bucket that nothing had to pass. With
/// eight, one full table in a hundred had no room for its last flows.
pub const PROBES: u32 = 32;

/// No flow has this index ([`FlowId::NONE`]).
const EMPTY: u64 = u64::MAX;

#[repr(C, align(64))]
struct Bucket {
    entry: [AtomicU64; WAYS],
    generation: [AtomicU32; WAYS],
    passed: AtomicU32,
}
#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    fn new() -> Self {
        Self {
            entry: core::array::from_fn(|_| AtomicU64::new(EMPTY)),
            generation: core::array::from_fn(|_| AtomicU32::new(0)),
            passed: AtomicU32::new(0),
        }
    }
}

struct Table {
    /// A power of two.
    buckets: Box<[Bucket]>,
    /// How many buckets a chain has.
    probes: u32,
}

impl Table {
    /// The `i`-th bucket to look at.
    #[inline]
    fn bucket(&self, hash: FlowHash, i: u32) -> &Bucket {
        &self.buckets[hash.low().wrapping_add(i) as usize & (self.buckets.len() - 1)]
    }
}

const fn pack(hash: FlowHash, index: u32) -> u64 {
    (hash.tag() as u64) << 32 | index as u64
}

/// A reader's handle.
#[derive(Clone)]
pub struct FlowReader(Arc<Table>);

impl FlowReader {
    /// Flows that may be the one with this hash; usually one or none.
    pub fn candidates(&self, hash: FlowHash) -> Candidates<'_> {
        Candidates { table: &self.0, hash, probe: 0, way: 0 }
    }

    /// Fetches the bucket into the cache, for a burst that looks up all before it processes any.
    pub fn prefetch(&self, hash: FlowHash) {
        prefetch_line(self.0.bucket(hash, 0));
    }
}

/// See [`FlowReader::candidates`].
pub struct Candidates<'a> {
    table: &'a Table,
    hash: FlowHash,
    probe: u32,
    way: usize,
}

impl Iterator for Candidates<'_> {
    type Item = FlowId;

    #[inline]
    fn next(&mut self) -> Option<FlowId> {
        while self.probe < self.table.probes {
            let bucket = self.table.bucket(self.hash, self.probe);
            while self.way < WAYS {
                let way = self.way;
                self.way += 1;
                // Acquire: with the release in `FlowWriter::insert`.
                let entry = bucket.entry[way].load(Ordering::Acquire);
                if entry != EMPTY && (entry >> 32) as u32 == self.hash.tag() {
                    let generation = bucket.generation[way].load(Ordering::Relaxed);
                    return Some(FlowId { index: entry as u32, generation });
                }
            }
            if bucket.passed.load(Ordering::Relaxed) == 0 {
                self.probe = u32::MAX;
                return None;
            }
            (self.probe, self.way) = (self.probe + 1, 0);
        }
        None
    }
}

/// No room within reach of this hash: answer NO_SPACE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSpace;

/// The writer's handle: there is one for each table, and it is not `Clone`.
pub struct FlowWriter {
    table: Arc<Table>,
    len: u32,
    capacity: u32,
}

impl FlowWriter {
    /// A table for `capacity` flows (at least one, at most 2^30).
    pub fn new(capacity: u32) -> Self {
        let capacity = capacity.clamp(1, 1 << 30);
        let buckets = capacity.div_ceil(FILL).next_power_of_two();
        let table = Table { buckets: (0..buckets).map(|_| Bucket::new()).collect(), probes: PROBES.min(buckets) };
        Self { table: Arc::new(table), len: 0, capacity }
    }

    /// Another reader's handle.
    pub fn reader(&self) -> FlowReader {
        FlowReader(self.table.clone())
    }

    /// Flows in the table.
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Enters a flow. The flow's own state must be ready for readers. That its key is not there already is the caller's
    /// to check. An id with the index of [`FlowId::NONE`] is refused as no room.
    pub fn insert(&mut self, hash: FlowHash, id: FlowId) -> Result<(), NoSpace> {
        if self.len == self.capacity || id.index == FlowId::NONE.index {
            return Err(NoSpace);
        }
        let (probe, way) = self.find(hash, |bucket, way| bucket.entry[way].load(Ordering::Relaxed) == EMPTY).ok_or(NoSpace)?;
        for i in 0..probe {
            let passed = &self.table.bucket(hash, i).passed;
            passed.store(passed.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        let bucket = self.table.bucket(hash, probe);
        bucket.generation[way].store(id.generation, Ordering::Relaxed);
        // Release: with the acquire in `Candidates::next`.
        bucket.entry[way].store(pack(hash, id.index), Ordering::Release);
        self.len += 1;
        Ok(())
    }

    /// Takes a flow out; false: it was not there. Readers that have found it before may still use it: wait for an epoch
    /// before its memory is used again.
    pub fn remove(&mut self, hash: FlowHash, id: FlowId) -> bool {
        let entry = pack(hash, id.index);
        let found = self.find(hash, |bucket, way| {
            bucket.entry[way].load(Ordering::Relaxed) == entry && bucket.generation[way].load(Ordering::Relaxed) == id.generation
        });
        let Some((probe, way)) = found else { return false };
        // Relaxed: who still sees it finds a flow that is refused or about to be.
        self.table.bucket(hash, probe).entry[way].store(EMPTY, Ordering::Relaxed);
        for i in 0..probe {
            let passed = &self.table.bucket(hash, i).passed;
            passed.store(passed.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        }
        self.len -= 1;
        true
    }

    /// First place in the chain of `hash` that `wanted` accepts: how far from home, and which way.
    fn find(&self, hash: FlowHash, wanted: impl Fn(&Bucket, usize) -> bool) -> Option<(u32, usize)> {
        (0..self.table.probes).find_map(|probe| {
            let bucket = self.table.bucket(hash, probe);
            (0..WAYS).find(|&way| wanted(bucket, way)).map(|way| (probe, way))
        })
    }
}

/// Asks for the cache line of `at`. A hint: nothing depends on it.
fn prefetch_line<T>(at: &T) {
    let at = core::ptr::from_ref(at);
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    // SAFETY: a prefetch never faults and changes nothing; SSE is part of x86-64.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
    // SAFETY: a prefetch never faults and changes nothing.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    let _ = at;
}
