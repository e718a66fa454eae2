//! Ingress: takes frames from the port, and numbers those of a TCP connection per flow group before they fan out.
//!
//! ```text
//!   port ─► steer: whose is it? ─► [group 0: held] ─credit, number─► pre, whichever has room
//!                                  [group 1: held] ─credit, number─►
//!                                  [no tuple     ] ─────────────────►     ARP, ICMP, fragments: no flow's, so no number
//! ```
//!
//! A number is taken only with a credit for it, so what is behind can't overflow. Frames of a group without credit are held here, and
//! dropped when there are too many of them: the only place where the card drops a frame because it is overloaded, before it has cost
//! anything and before it has a number. Other groups' frames pass.

use crate::{Counters, flows::FlowView, pre::key};
use alloc::{boxed::Box, collections::VecDeque};
use toe_abi::counters::{Counter, Drop};
use toe_hal::{Frames, Instant, Lease, RxBurst, RxFrame, RxPort};
use toe_sync::{FlowHash, progress::Watcher, sequencer::Sequencer};
use toe_wire::tcp_tuple;

/// Appends an item, unless there are `most` already: then it comes back.
fn push<T>(held: &mut VecDeque<T>, item: T, most: usize) -> Option<T> {
    if held.len() >= most {
        return Some(item);
    }
    held.push_back(item);
    None
}

/// How often a core that is awake asks the port what it has lost, microseconds.
const LOSSES_EVERY_US: u64 = 100_000;

/// A frame on its way to pre.
#[derive(Debug)]
pub struct Steered {
    pub frame: RxFrame,
    /// Group and number; `None`: no flow's.
    pub place: Option<(u16, u32)>,
    /// Of the four-tuple, if there is one.
    pub hash: Option<FlowHash>,
}

/// Frames of one group.
struct Lane {
    numbers: Sequencer,
    passed: Watcher,
    /// What `passed` showed last.
    seen: u32,
    held: VecDeque<(RxFrame, FlowHash)>,
}

impl Lane {
    /// Takes back the credit of numbers that protocol has passed.
    fn refresh(&mut self) {
        let passed = self.passed.seen();
        self.numbers.give_back(passed.wrapping_sub(self.seen));
        self.seen = passed;
    }

    /// The next frame of this group and a number for it, if there is credit.
    fn next(&mut self, group: u16) -> Option<Steered> {
        if self.held.is_empty() {
            return None;
        }
        if self.numbers.credit() == 0 {
            self.refresh();
        }
        let number = self.numbers.take()?;
        self.held.pop_front().map(|(frame, hash)| Steered { frame, place: Some((group, number)), hash: Some(hash) })
    }
}

pub struct Ingress<R: RxPort> {
    rx: R,
    frames: R::Frames,
    flows: FlowView,
    lanes: Box<[Lane]>,
    /// Frames of no flow.
    others: VecDeque<RxFrame>,
    /// Frames that may be held for one group.
    hold: usize,
    /// Whose turn it is.
    turn: usize,
    burst: RxBurst,
    losses_at: Instant,
    counters: Counters,
}

impl<R: RxPort> Ingress<R> {
    /// `window`: numbers of each group that may be out; `passed`: how far the groups' protocol stages are.
    pub fn new(rx: R, flows: FlowView, window: u32, hold: u16, passed: impl Iterator<Item = Watcher>, counters: Counters) -> Self {
        let hold = usize::from(hold.max(1));
        let lane = |passed| Lane { numbers: Sequencer::new(window), passed, seen: 0, held: VecDeque::with_capacity(hold) };
        let lanes = passed.map(lane).collect();
        let others = VecDeque::with_capacity(hold);
        Self { frames: rx.frames(), rx, flows, lanes, others, hold, turn: 0, burst: RxBurst::new(), losses_at: Instant(0), counters }
    }

    pub fn rx(&mut self) -> &mut R {
        &mut self.rx
    }

    pub fn release(&mut self, lease: Lease) {
        self.rx.release(lease);
    }

    /// Takes frames from the port. True: there were some.
    pub fn receive(&mut self, now: Instant) -> bool {
        self.look_at_losses(now);
        let mut burst = core::mem::take(&mut self.burst);
        self.rx.receive(&mut burst);
        let any = !burst.is_empty();
        self.counters.add(Counter::RxFrames, burst.len() as u64);
        self.counters.add(Counter::RxBytes, burst.iter().map(|f| u64::from(f.len)).sum());
        burst.drain(..).for_each(|frame| self.steer(frame));
        self.burst = burst;
        any
    }

    fn steer(&mut self, frame: RxFrame) {
        let hash = tcp_tuple(self.frames.frame(&frame.lease)).map(|tuple| self.flows.hash(&key(&tuple)));
        let full = match hash {
            Some(hash) => {
                let held = &mut self.lanes[usize::from(self.flows.group(hash))].held;
                push(held, (frame, hash), self.hold).map(|(frame, _)| frame)
            }
            None => push(&mut self.others, frame, self.hold),
        };
        if let Some(frame) = full {
            self.counters.drop(Drop::NoBuffer);
            self.rx.release(frame.lease);
        }
    }

    /// The next frame for pre, the groups and those of no flow by turns; `None`: there is none with credit.
    pub fn next(&mut self) -> Option<Steered> {
        for _ in 0..=self.lanes.len() {
            self.turn = if self.turn >= self.lanes.len() { 0 } else { self.turn + 1 };
            let next = match self.lanes.get_mut(self.turn) {
                Some(lane) => lane.next(self.turn as u16),
                None => self.others.pop_front().map(|frame| Steered { frame, place: None, hash: None }),
            };
            if next.is_some() {
                return next;
            }
        }
        None
    }

    /// Whether [`next`](Self::next) would give something.
    pub fn has_next(&mut self) -> bool {
        let waits = |lane: &mut Lane| {
            lane.refresh();
            !lane.held.is_empty() && lane.numbers.credit() > 0
        };
        !self.others.is_empty() || self.lanes.iter_mut().any(waits)
    }

    /// Whether the port holds frames back until it is asked again.
    pub fn is_holding(&self) -> bool {
        self.rx.holding()
    }

    /// Credits that are free, and all there are.
    pub fn credits(&self) -> (u32, u32) {
        let free = self.lanes.iter().map(|lane| lane.numbers.credit()).sum();
        (free, self.lanes.iter().map(|lane| lane.numbers.capacity()).sum())
    }

    fn look_at_losses(&mut self, now: Instant) {
        if now >= self.losses_at {
            self.losses_at = now.add_micros(LOSSES_EVERY_US);
            let losses = self.rx.losses();
            self.counters.set(Counter::RxPortOverrun, losses.overrun);
            self.counters.set(Counter::RxPortUnusable, losses.unusable);
            self.counters.set(Counter::PortResets, losses.resets);
        }
    }
}
