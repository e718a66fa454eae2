//! What each application may send, on all protocol cores together: a weight against the others, and a rate of its own.
//!
//! ```text
//!   arrival: when all that was sent so far would have left at the rate (GCRA, the virtual clock of a leaky bucket)
//!
//!        now        arrival    now + tolerance
//!   ──────┼────────────┼────────────┼─────────────► time
//!         an arrival up to here ────┘  lets the next segment go; after a later one, wait until arrival - tolerance
//! ```
//!
//! What was sent is taken whether or not it was too much; whoever took it then waits for a moment of its own, which nobody
//! else can take from it. So cores that share an application's rate share it fairly, however often each of them looks,
//! and what goes beyond the burst is at most one segment for each of them.
//!
//! | word         | written by | order             | read by | order   | what the pair guarantees                                 |
//! |--------------|------------|-------------------|---------|---------|----------------------------------------------------------|
//! | weight, kbps | control    | relaxed           | cores   | relaxed | nothing: words that stand alone                          |
//! | arrival      | control    | release, exchange | cores   | acquire | who adds to an arrival of the new rate sees the new rate |
//! | arrival      | cores      | relaxed, exchange | cores   | relaxed | no taking is lost: exchanges are in one order            |
//!
//! An application without a rate writes nothing that is shared.

use crate::atomic::{Arc, AtomicU32, AtomicU64, Ordering};
use alloc::boxed::Box;

/// A rate's clock counts sixteenths of a nanosecond, so that rounding does not matter for small segments on a fast wire.
pub const UNITS_PER_US: u64 = 16_000;
/// Of an application that nothing was said about.
pub const WEIGHT_DEFAULT: u32 = 100;
pub const WEIGHT_MAX: u32 = 1000;

/// The largest segment.
const SEGMENT: u32 = 64 * 1024;
/// A burst is two segments, or what takes this long at the rate, whichever is more.
const BURST: u64 = 1000 * UNITS_PER_US;
/// More that was sent beyond the burst than this many segments is forgiven.
const DEBT_SEGMENTS: u64 = 16;

/// How long `bytes` take at a rate other than 0, rounded up, in [units](UNITS_PER_US).
pub fn time_of(bytes: u32, kbps: u64) -> u64 {
    // A bit at 1 kbit/s takes a millisecond.
    (u64::from(bytes) * 8 * 1000 * UNITS_PER_US).div_ceil(kbps.max(1))
}

/// A moment on a rate's clock. It ends after 36 years.
pub fn units(us: u64) -> u64 {
    us.saturating_mul(UNITS_PER_US)
}

/// What was agreed for an application.
struct Terms {
    weight: AtomicU32,
    /// 0: unlimited.
    kbps: AtomicU64,
}

/// The word that cores contend for, alone on its cache lines (two: the neighbour is prefetched on x86).
#[repr(align(128))]
struct Arrival(AtomicU64);

struct Shared {
    terms: Box<[Terms]>,
    arrivals: Box<[Arrival]>,
}

/// The shares of all applications; a handle. An application that it has no place for is one that nothing was said about.
#[derive(Clone)]
pub struct Shares {
    shared: Arc<Shared>,
}

impl Shares {
    pub fn new(apps: u16) -> Self {
        let terms = |_| Terms { weight: AtomicU32::new(WEIGHT_DEFAULT), kbps: AtomicU64::new(0) };
        let arrival = |_| Arrival(AtomicU64::new(0));
        Self { shared: Arc::new(Shared { terms: (0..apps).map(terms).collect(), arrivals: (0..apps).map(arrival).collect() }) }
    }

    /// How many applications there is a place for.
    pub fn apps(&self) -> u16 {
        self.shared.terms.len() as u16
    }

    /// `kbps`: most that its flows send together, kbit/s; 0: unlimited. Another rate than before begins with a burst.
    pub fn set(&self, app: u16, weight: u32, kbps: u64) {
        let Some((terms, arrival)) = self.of(app) else { return };
        // Relaxed: see the table.
        terms.weight.store(weight.clamp(1, WEIGHT_MAX), Ordering::Relaxed);
        if terms.kbps.load(Ordering::Relaxed) != kbps {
            terms.kbps.store(kbps, Ordering::Relaxed);
            // Release: with the acquire in `take`, which adds the old rate's time to this 0 only to find that the rate is new.
            arrival.swap(0, Ordering::Release);
        }
    }

    /// The application is gone, another may take its place.
    pub fn reset(&self, app: u16) {
        self.set(app, WEIGHT_DEFAULT, 0);
    }

    /// 1 to [`WEIGHT_MAX`].
    pub fn weight(&self, app: u16) -> u32 {
        // Relaxed: see the table.
        self.of(app).map_or(WEIGHT_DEFAULT, |(terms, _)| terms.weight.load(Ordering::Relaxed))
    }

    /// Takes `bytes` that `app` has sent. `Err`: its burst is used up; the caller sends no more of it before that time, microseconds.
    pub fn take(&self, app: u16, bytes: u32, now_us: u64) -> Result<(), u64> {
        let Some((terms, word, limit)) = self.limit(app, now_us) else { return Ok(()) };
        let mut arrival = word.load(Ordering::Relaxed);
        loop {
            let after = limit.after(arrival, bytes);
            // Acquire: with the release in `set`. Whoever fails does so because another core has succeeded.
            match word.compare_exchange_weak(arrival, after, Ordering::Acquire, Ordering::Relaxed) {
                Err(now) => arrival = now,
                Ok(_) if terms.kbps.load(Ordering::Relaxed) == limit.kbps => return limit.judge(after),
                Ok(_) => {
                    // The rate is new: begin with a burst. Relaxed: an exchange hands on what the one in `set` released.
                    word.swap(0, Ordering::Relaxed);
                    return Ok(());
                }
            }
        }
    }

    /// Whether `app` may send now, or from when on.
    pub fn may_send(&self, app: u16, now_us: u64) -> Result<(), u64> {
        // Relaxed: who takes finds out.
        self.limit(app, now_us).map_or(Ok(()), |(_, word, limit)| limit.judge(word.load(Ordering::Relaxed)))
    }

    fn of(&self, app: u16) -> Option<(&Terms, &AtomicU64)> {
        let Shared { terms, arrivals } = &*self.shared;
        terms.get(usize::from(app)).zip(arrivals.get(usize::from(app)).map(|arrival| &arrival.0))
    }

    /// `None`: unlimited.
    fn limit(&self, app: u16, now_us: u64) -> Option<(&Terms, &AtomicU64, Limit)> {
        let (terms, word) = self.of(app)?;
        // Relaxed: see the table.
        let kbps = terms.kbps.load(Ordering::Relaxed);
        (kbps != 0).then(|| (terms, word, Limit::new(kbps, units(now_us))))
    }
}

/// A rate at a moment, in [units](UNITS_PER_US).
struct Limit {
    kbps: u64,
    now: u64,
    segment: u64,
    /// How far ahead of now an arrival may be for another segment to go: with that one it is a burst.
    tolerance: u64,
}

impl Limit {
    fn new(kbps: u64, now: u64) -> Self {
        let segment = time_of(SEGMENT, kbps);
        Self { kbps, now, segment, tolerance: (2 * segment).max(BURST) - segment }
    }

    /// The arrival when `bytes` more were sent. One before now left its rate unused; one too far away has debts enough.
    fn after(&self, arrival: u64, bytes: u32) -> u64 {
        let latest = self.now.saturating_add(self.tolerance + DEBT_SEGMENTS * self.segment);
        if arrival > latest { arrival } else { arrival.max(self.now).saturating_add(time_of(bytes, self.kbps)) }
    }

    fn judge(&self, arrival: u64) -> Result<(), u64> {
        let from = arrival.saturating_sub(self.tolerance);
        if from <= self.now { Ok(()) } else { Err(from.div_ceil(UNITS_PER_US)) }
    }
}
