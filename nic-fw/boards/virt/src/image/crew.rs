//! Cores of the machine and the card's cores that run on them; now and then all come back, for a reset.
//!
//! ```text
//!   place i:  [Core i] ──take──► core i of the machine ── pause? ──► back into its place
//! ```

use super::board::VirtBoard;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use spin::Mutex;
use toe_arch::{cores, time};
use toe_datapath::Core;
use toe_drivers::virtio::Alarm;

/// A core that does not come back within that hangs, nanoseconds.
const PAUSE_LIMIT_NS: u64 = 2_000_000_000;

pub struct Crew {
    places: Box<[Mutex<Option<Core<VirtBoard>>>]>,
    pausing: AtomicBool,
    /// Who obeys the host, and is to look when the alarm of the port is raised.
    leader: usize,
    alarm: Alarm,
}

impl Crew {
    pub fn new(cores: Vec<Core<VirtBoard>>, leader: usize, alarm: Alarm) -> Self {
        let places = cores.into_iter().map(|core| Mutex::new(Some(core))).collect();
        Self { places, pausing: AtomicBool::new(false), leader, alarm }
    }

    /// Wakes the leader if this core, or another, has found that the port's device breaks the rules.
    pub fn pass_alarm_on(&self) {
        if self.alarm.is_raised() {
            cores::wake(self.leader);
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether everybody is to give its core back.
    pub fn is_pausing(&self) -> bool {
        // Acquire: with the release of who paused. (The places' locks order the cores themselves.)
        self.pausing.load(Ordering::Acquire)
    }

    pub fn put(&self, index: usize, core: Core<VirtBoard>) {
        *self.places[index].lock() = Some(core);
    }

    /// Core `index`, unless somebody else has it.
    pub fn take(&self, index: usize) -> Option<Core<VirtBoard>> {
        self.places.get(index)?.lock().take()
    }

    /// Calls all cores back and collects them. The caller has put its own back. `Err`: this one does not come.
    pub fn gather(&self, into: &mut Vec<Core<VirtBoard>>) -> Result<(), usize> {
        self.pausing.store(true, Ordering::Release);
        let end = time::now_ns() + PAUSE_LIMIT_NS;
        for index in 0..self.len() {
            cores::wake(index);
            let core = loop {
                if let Some(core) = self.take(index) {
                    break core;
                }
                if time::now_ns() > end {
                    return Err(index);
                }
                core::hint::spin_loop();
            };
            into.push(core);
        }
        Ok(())
    }

    /// They go on.
    pub fn release(&self, cores: impl Iterator<Item = Core<VirtBoard>>) {
        cores.for_each(|core| self.put(core.index(), core));
        self.pausing.store(false, Ordering::Release);
        (0..self.len()).for_each(cores::wake);
    }
}
