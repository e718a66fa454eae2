//! What an instance of a stage is to the core that runs it.

use super::{links::Depth, trace::Tracing};
use toe_hal::Instant;
use toe_sync::crew::CoreSet;

/// One step of an instance: what it may do, and whom it has written to.
pub struct Step<'a> {
    pub now: Instant,
    /// Items of each kind that it may handle.
    pub budget: usize,
    /// Cores whose rings have something new.
    pub touched: CoreSet,
    /// Items handled so far.
    pub items: u64,
    pub trace: Tracing<'a>,
}

/// Queues and credits of an instance, for operators.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    pub queue: Depth,
    /// Free, and all.
    pub credits: (u32, u32),
}

/// An instance of a stage with its links.
pub trait Actor {
    /// Handles what there is, within the budget, and publishes what comes of it. True: something was done.
    fn step(&mut self, step: &mut Step<'_>) -> bool;

    /// Whether a step would do something now: the second look before sleep. True also while it waits for room that nobody tells it of.
    fn has_work(&mut self, now: Instant) -> bool;

    /// When a step will be due even if nobody sends anything.
    fn deadline(&self, now: Instant) -> Option<Instant>;

    fn gauges(&mut self) -> Gauges;
}
