//! Ingress with its links.

use super::super::{
    actor::{Actor, Gauges, Step},
    links::{Ins, Outs},
    trace,
};
use crate::ingress::{Ingress, Steered};
use toe_hal::{Instant, Lease, RxPort};

/// Longest sleep while the port holds frames back, microseconds.
const HOLDING_US: u64 = 1000;

pub struct IngressActor<R: RxPort> {
    pub stage: Ingress<R>,
    /// Frames that all are done with.
    pub leases: Ins<Lease>,
    pub pre: Outs<Steered>,
}

impl<R: RxPort> Actor for IngressActor<R> {
    fn step(&mut self, step: &mut Step<'_>) -> bool {
        let mut any = false;
        while let Some(lease) = self.leases.next() {
            self.stage.release(lease);
            any = true;
        }
        // If all of pre is busy, frames wait in the port: whatever must be lost is best lost there.
        if self.pre.has_room() {
            any |= self.stage.receive(step.now);
        }
        for _ in 0..step.budget {
            if !self.pre.has_room() {
                break;
            }
            let begin = step.trace.begin();
            let Some(steered) = self.stage.next() else { break };
            let (place, len) = (steered.place, steered.frame.len);
            let sent = self.pre.send(steered);
            debug_assert!(sent.is_ok(), "there was room");
            if let Some((group, number)) = place {
                step.trace.record(begin, || trace::rx(group, number, len));
            }
            step.items += 1;
            any = true;
        }
        self.leases.publish();
        self.pre.publish(&mut step.touched);
        any
    }

    fn has_work(&mut self, _now: Instant) -> bool {
        !self.leases.is_empty() || self.stage.has_next() || self.stage.rx().any()
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        self.stage.is_holding().then(|| now.add_micros(HOLDING_US))
    }

    fn gauges(&mut self) -> Gauges {
        Gauges { queue: self.leases.depth(), credits: self.stage.credits() }
    }
}
