//! Tells whoever can reset a device that it has broken the rules of a queue, whichever core has found that out.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Raised by queues; copies are the same alarm.
#[derive(Clone, Debug, Default)]
pub struct Alarm(Arc<AtomicBool>);

// Relaxed throughout: it says that something is to be looked at, and hands nothing over. Who resets the device has the queues by then,
// from their cores.
impl Alarm {
    pub fn raise(&self) {
        self.0.store(true, Relaxed);
    }

    pub fn is_raised(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Whether it was raised; it is not any more. (Who raises it meanwhile is heard as well: the device is looked at after this.)
    pub fn take(&self) -> bool {
        let is_raised = self.is_raised();
        if is_raised {
            self.0.store(false, Relaxed);
        }
        is_raised
    }
}
