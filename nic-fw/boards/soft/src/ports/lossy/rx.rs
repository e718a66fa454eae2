//! The receiving half of a bad wire. Leases are the inner port's.
//!
//! ```text
//!   inner ──► Pass, Twice ──────────► ready ──► card ──► release ──► Pass: inner
//!         ──► Late ──► some ticks ──►   ▲                        └─► Twice: once more
//!         ──► Lose ──► inner            └──────────────────────────────┘
//! ```

use super::super::{PortError, SoftFrames, SoftRx};
use super::{Dice, Fate, Late};
use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use toe_hal::port::BURST;
use toe_hal::{Lease, RxBurst, RxFrame, RxLosses, RxOffload, RxPort};

pub(super) struct LossyRx {
    inner: Box<dyn SoftRx>,
    dice: Dice,
    late: Late<RxFrame>,
    /// Frames to be delivered.
    ready: VecDeque<RxFrame>,
    /// Length and state of frames that come once more when their lease, named by its index, comes back.
    again: HashMap<u32, (u32, RxOffload)>,
}

impl LossyRx {
    pub fn new(inner: Box<dyn SoftRx>, dice: Dice) -> Self {
        Self { inner, dice, late: Late::new(), ready: VecDeque::new(), again: HashMap::new() }
    }

    /// Takes what the inner port has, and gives each frame its fate.
    fn pull(&mut self) {
        let mut burst = RxBurst::new();
        if self.inner.receive(&mut burst) == 0 {
            self.late.tick();
        }
        for frame in burst {
            self.late.tick();
            self.meet_fate(frame);
            self.ready.extend(std::iter::from_fn(|| self.late.due()));
        }
        self.ready.extend(std::iter::from_fn(|| self.late.due()));
    }

    fn meet_fate(&mut self, frame: RxFrame) {
        let fate = self.dice.fate();
        self.dice.count(fate);
        match fate {
            Fate::Pass | Fate::Marked => self.ready.push_back(frame),
            Fate::Lose => self.inner.release(frame.lease),
            Fate::Twice => {
                self.again.insert(frame.lease.index(), (frame.len, frame.offload));
                self.ready.push_back(frame);
            }
            Fate::Late(frames) => self.late.hold(frames, frame),
        }
    }
}

impl RxPort for LossyRx {
    type Frames = SoftFrames;

    fn frames(&self) -> SoftFrames {
        self.inner.frames()
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        if self.ready.len() < BURST {
            self.pull();
        }
        let before = burst.len();
        while !burst.is_full() {
            let Some(frame) = self.ready.pop_front() else { break };
            let _ = burst.push(frame);
        }
        burst.len() - before
    }

    fn any(&mut self) -> bool {
        !self.ready.is_empty() || self.inner.any()
    }

    fn release(&mut self, lease: Lease) {
        match self.again.remove(&lease.index()) {
            Some((len, offload)) => self.ready.push_back(RxFrame { lease, len, offload }),
            None => self.inner.release(lease),
        }
    }

    fn losses(&mut self) -> RxLosses {
        self.inner.losses()
    }

    fn holding(&self) -> bool {
        !self.ready.is_empty() || !self.late.is_empty() || self.inner.holding()
    }
}

impl SoftRx for LossyRx {
    fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }

    fn check(&mut self) -> Result<(), PortError> {
        self.inner.check()
    }
}
