//! A flow as the scheduler sees it: where it waits, what is left of its turn, and its pace.
//!
//! ```text
//!   clock: when what was sent so far would all have left at the flow's rate
//!
//!     now - burst      now        clock
//!   ──────┼─────────────┼───────────┼───────► time      paced: not before its clock
//!         └── a clock further back is moved up to here: unused time makes a small burst, no more
//! ```

use toe_hal::Instant;
use toe_sync::share::{UNITS_PER_US, time_of, units};

/// A tick of the pacing wheel, microseconds.
pub const TICK_US: u64 = 16;
/// What a flow has not used is a quantum at most, or as much as it sends in this time.
const BURST_MAX_US: u64 = 1000;
/// But enough for a flow that comes late by a few ticks to keep its rate, even if a quantum takes it less.
const BURST_MIN_US: u64 = 4 * TICK_US;
/// A segment without payload takes its share as well.
pub const LEAST_BYTES: u32 = 64;

/// Where a flow is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It has nothing to send.
    Out,
    /// In the list of urgent ones.
    Urgent,
    /// Named by `next` for something urgent.
    Visited,
    /// In its application's list.
    Queued,
    /// It is its turn among its application's flows.
    Turn,
    /// In the pacing wheel.
    Paced,
}

#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// On the clock of `toe_sync::share`.
    clock: u64,
    /// What it keeps to: the lesser of `limit_kbps` and its window's pace; 0: not paced.
    kbps: u32,
    /// What it was told to keep to; 0: nothing.
    limit_kbps: u32,
    /// Bytes left of its turn; below 0: what it has sent beyond.
    credit: i32,
    /// It has sent nothing in its turn.
    pub is_in_vain: bool,
    pub app: u16,
    pub place: Place,
}

impl Flow {
    pub const fn new(app: u16) -> Self {
        Self { clock: 0, kbps: 0, limit_kbps: 0, credit: 0, is_in_vain: false, app, place: Place::Out }
    }

    /// The rate that it was told to keep to, 0: none; and not the pace of its window, until that is told again.
    pub fn set_limit(&mut self, kbps: u32, now: Instant) {
        self.limit_kbps = kbps;
        self.change(kbps, now);
    }

    /// The pace of its window, not 0.
    pub fn set_pace(&mut self, kbps: u32, now: Instant) {
        let limit = if self.limit_kbps == 0 { u32::MAX } else { self.limit_kbps };
        self.change(kbps.min(limit), now);
    }

    /// Another rate: what it still has to wait is as many bytes as before.
    fn change(&mut self, kbps: u32, now: Instant) {
        if kbps == self.kbps {
            return;
        }
        let now = units(now.micros());
        let wait = u128::from(self.clock.saturating_sub(now)) * u128::from(self.kbps);
        self.clock = match kbps {
            0 => 0,
            _ => now.min(self.clock).saturating_add(u64::try_from(wait / u128::from(kbps)).unwrap_or(u64::MAX)),
        };
        self.kbps = kbps;
    }

    pub fn kbps(&self) -> u32 {
        self.kbps
    }

    pub fn limit_kbps(&self) -> u32 {
        self.limit_kbps
    }

    /// What its pace lets it send now as one frame, bytes: a millisecond of it (as Linux sizes its super-frames), or a segment. 0: it has to wait.
    pub fn frame_max(&self, now: Instant) -> u32 {
        match self.kbps {
            0 => u32::MAX,
            kbps if self.is_due(now) => (kbps / 8).max(1),
            _ => 0,
        }
    }

    /// Whether its pace lets it send.
    pub fn is_due(&self, now: Instant) -> bool {
        self.clock <= units(now.micros())
    }

    /// The first tick of the pacing wheel at which it is due.
    pub fn due_tick(&self) -> u64 {
        self.clock.div_ceil(TICK_US * UNITS_PER_US)
    }

    /// A turn begins with something, whatever the debt: no flow is named in vain.
    pub fn begin_turn(&mut self, quantum: i32) {
        self.place = Place::Turn;
        self.is_in_vain = true;
        self.credit = self.credit.saturating_add(quantum).max(1);
    }

    /// Whether its turn goes on.
    pub fn has_credit(&self) -> bool {
        self.credit > 0
    }

    /// What it has not used is not kept.
    pub fn drop_credit(&mut self) {
        self.credit = self.credit.min(0);
    }

    /// A segment was sent.
    pub fn charge(&mut self, bytes: u32, quantum: i32, now: Instant) {
        self.is_in_vain = false;
        self.credit = self.credit.saturating_sub_unsigned(bytes.max(LEAST_BYTES));
        if self.kbps > 0 {
            let start = self.start(quantum, now.micros());
            self.clock = start.saturating_add(time_of(bytes, self.kbps.into()));
        }
    }

    /// From when on a segment that is sent now takes its time.
    fn start(&self, quantum: i32, now_us: u64) -> u64 {
        if self.clock >= units(now_us.saturating_sub(BURST_MIN_US)) {
            return self.clock;
        }
        let burst = time_of(quantum.unsigned_abs(), self.kbps.into()).clamp(units(BURST_MIN_US), units(BURST_MAX_US));
        self.clock.max(units(now_us).saturating_sub(burst))
    }
}
