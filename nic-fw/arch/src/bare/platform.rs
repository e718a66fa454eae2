//! What a board's `main` gets: the machine, its cores, its address space and its interrupts.

use super::cores::{self, StartError, Work, state};
use super::gic::GicError;
use super::gic::its::{Its, Message};
use super::map::{Map, MapError, Mismatch};
use super::{enter, heap, map, psci, stack, time};
use crate::layout::{Attribute, Region};
use crate::machine::{Conduit, Machine};
use crate::range::Range;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use spin::Mutex;

/// A core that does not come within that is broken, nanoseconds.
const START_LIMIT_NS: u64 = 5_000_000_000;

static SEALED: AtomicBool = AtomicBool::new(false);

/// Start-up is over: from now on nothing is allocated and nothing mapped, and whoever tries panics or gets an error.
pub fn seal() {
    SEALED.store(true, Ordering::Release);
    heap::seal();
}

/// What can go wrong with interrupts.
#[derive(Clone, Copy, Debug)]
pub enum Error {
    /// The machine has no ITS, so no messages of devices.
    NoIts,
    Gic(GicError),
    /// After start-up there is no memory for tables.
    Sealed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIts => f.write_str("the machine has no ITS"),
            Self::Gic(error) => fmt::Display::fmt(error, f),
            Self::Sealed => f.write_str("a message mapped after start-up"),
        }
    }
}

impl core::error::Error for Error {}

/// The machine, started. There is one.
pub struct Platform {
    pub(crate) machine: Machine,
    pub(crate) map: Mutex<Map>,
    pub(crate) its: Mutex<Option<Its>>,
    pub(crate) conduit: Conduit,
    /// Exception level at which we were started.
    pub(crate) started_at: u8,
}

impl Platform {
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Cores that there are; number 0 runs.
    pub fn cores(&self) -> usize {
        cores::all().len()
    }

    /// Exception level at which the image was started: 2, or 1 below a hypervisor. We run at 1.
    pub fn started_at(&self) -> u8 {
        self.started_at
    }

    /// Runs `work` on a core that has not been started yet, or whose work has returned. When this returns it runs, or has returned already.
    /// After start-up `work` must not carry anything: there is no memory to put it.
    pub fn start(&self, core: usize, work: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        if size_of_val(&work) > 0 && SEALED.load(Ordering::Acquire) {
            return Err(StartError::Sealed);
        }
        let block = cores::all().get(core).ok_or(StartError::NotThere(core))?;
        let take = |from| block.state.compare_exchange(from, state::STARTING, Ordering::AcqRel, Ordering::Relaxed);
        let asleep = take(state::RETURNED).is_ok();
        if !asleep {
            // The core that we started on is in the list as running.
            take(state::OFF).map_err(|_| StartError::NotThere(core))?;
        }
        let work: Work = alloc::boxed::Box::new(work);
        *block.work.lock() = Some(work);
        if asleep {
            cores::wake(core);
        } else if let Err(error) = self.power_on(block) {
            block.state.store(state::OFF, Ordering::Release);
            return Err(StartError::Psci(error));
        }
        let value = || u64::from(block.state.load(Ordering::Acquire));
        let waited = time::wait_for("a core that was started", START_LIMIT_NS, value, |value| value != u64::from(state::STARTING));
        match waited.map_err(StartError::Late)? {
            value if value == u64::from(state::FAILED) => Err(StartError::Interrupts),
            _ => Ok(()),
        }
    }

    fn power_on(&self, block: &cores::PerCore) -> Result<(), smccc::psci::error::Error> {
        // Its MMU is off when it reads its block.
        let base = core::ptr::from_ref(block).expose_provenance() as u64;
        Range::new(base, size_of_val(block) as u64).into_iter().for_each(map::clean);
        psci::cpu_on(self.conduit, block.mpidr, enter::address(), base)
    }

    /// Whether a core's work has returned.
    pub fn has_returned(&self, core: usize) -> bool {
        cores::all().get(core).is_some_and(|block| block.state.load(Ordering::Acquire) == state::RETURNED)
    }

    /// Maps registers or memory of a device that is not mapped yet, to its own address, for all cores. Only during start-up.
    pub fn map(&self, name: &'static str, range: Range, attribute: Attribute) -> Result<Region, MapError> {
        if SEALED.load(Ordering::Acquire) {
            return Err(MapError::Sealed);
        }
        self.map.lock().add(name, range, attribute)
    }

    /// Asks the machine how it translates what is mapped, and compares. How many addresses were asked about.
    pub fn verify_map(&self) -> Result<usize, Mismatch> {
        self.map.lock().verify()
    }

    /// What is mapped.
    pub fn regions(&self) -> alloc::vec::Vec<Region> {
        self.map.lock().layout().regions().to_vec()
    }

    /// Pages that are not mapped, below stacks.
    pub fn guards(&self) -> alloc::vec::Vec<Range> {
        self.map.lock().layout().guards().to_vec()
    }

    /// Makes `event` of a PCI device (its requester id; it has `events` of them) an interrupt of `core`. Only during start-up. The message that the device has to
    /// write, and the number that [`cores::sleep_until`] tells then.
    pub fn map_message(&self, device: u32, events: u32, event: u32, core: usize) -> Result<(Message, u32), Error> {
        if SEALED.load(Ordering::Acquire) {
            return Err(Error::Sealed);
        }
        self.its.lock().as_mut().ok_or(Error::NoIts)?.map(device, events, event, core).map_err(Error::Gic)
    }

    /// Raises it as the device would: for tests.
    pub fn raise_message(&self, device: u32, event: u32, core: usize) -> Result<(), Error> {
        self.its.lock().as_mut().ok_or(Error::NoIts)?.raise(device, event, core).map_err(Error::Gic)
    }

    /// Bytes of a core's stack that have been used so far, and how many it has.
    pub fn stack_used(&self, core: usize) -> Option<(u64, u64)> {
        cores::all().get(core).map(|core| (stack::used(core.stacks.normal), core.stacks.normal.len()))
    }

    /// Bytes of the heap that are taken, and how many it has.
    pub fn heap_used(&self) -> (usize, usize) {
        heap::used()
    }
}
