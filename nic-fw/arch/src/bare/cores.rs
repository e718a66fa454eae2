//! Cores: each has a block of its own, is started with a closure, sleeps until it is woken, and says what it is doing.
//!
//! ```text
//!   core 0                                   core n
//!   platform.start(n, closure) ─ PSCI ─────► its stack, GIC, timer ─► closure()
//!   publish; fence; flag set?                flag = 1; fence; look again
//!      wake(n) ─ SGI, stays pending ───────► sleep_until(deadline): WFI, take what is pending
//! ```
//!
//! *No wake is lost*: interrupts stay masked, so an SGI that comes between the last look and WFI is pending, and WFI returns at once.
//! Only [`sleep_until`] takes it. A wake too many costs one look.

use super::enter::Enter;
use super::gic::cpu;
use super::gic::redistributor::Redistributor;
use super::stack::Stacks;
use super::{gic, time};
use crate::machine::Mpidr;
use aarch64_cpu::asm::{barrier, wfi};
use aarch64_cpu::registers::TPIDR_EL1;
use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use spin::{Mutex, Once};
use tock_registers::interfaces::Readable;

/// What a core is to run. When it returns the core sleeps until it is given something else.
pub type Work = Box<dyn FnOnce() + Send>;

/// Interrupts taken in one go: a device that never stops must not keep a core here.
const TAKEN_MAX: usize = 64;

/// What a core is doing, for whoever reads that it died there. One static for each thing that can be done.
#[derive(Debug)]
pub struct Doing(pub &'static str);

static STARTING: Doing = Doing("starting");
static RETURNED: Doing = Doing("nothing: its work has returned");

/// How far a core has come.
pub mod state {
    pub const OFF: u32 = 0;
    pub const STARTING: u32 = 1;
    pub const RUNNING: u32 = 2;
    /// It has found something wrong with its interrupts, and sleeps for ever.
    pub const FAILED: u32 = 3;
    /// Its work has returned.
    pub const RETURNED: u32 = 4;
}

/// A core's own block; TPIDR_EL1 points to it.
#[repr(C, align(128))]
pub struct PerCore {
    /// First: assembly finds the exception stack in it.
    pub(crate) enter: Enter,
    pub(crate) index: usize,
    pub(crate) mpidr: Mpidr,
    pub(crate) stacks: Stacks,
    pub(crate) redistributor: Once<Redistributor>,
    pub(crate) timer: u32,
    wake_word: u64,
    doing: AtomicPtr<Doing>,
    pub(crate) state: AtomicU32,
    pub(crate) work: Mutex<Option<Work>>,
}

const _: () = assert!(core::mem::offset_of!(PerCore, enter) == 0);

static CORES: Once<&'static [PerCore]> = Once::new();

impl PerCore {
    pub(crate) fn new(index: usize, mpidr: Mpidr, stacks: Stacks, timer: u32, enter: Enter) -> Self {
        Self {
            enter,
            index,
            mpidr,
            stacks,
            redistributor: Once::new(),
            timer,
            wake_word: cpu::wake_word(mpidr),
            doing: AtomicPtr::new((&raw const STARTING).cast_mut()),
            state: AtomicU32::new(state::OFF),
            work: Mutex::new(None),
        }
    }

    /// Gets this core's interrupts going. On the core itself.
    pub(crate) fn init(&self) -> Result<(), gic::GicError> {
        if let Some(redistributor) = self.redistributor.get() {
            redistributor.init(self.timer)?;
        }
        cpu::init()?;
        time::disarm();
        Ok(())
    }
}

pub(crate) fn set_all(cores: &'static [PerCore]) {
    CORES.call_once(|| cores);
}

pub(crate) fn all() -> &'static [PerCore] {
    CORES.get().copied().unwrap_or_default()
}

/// The block of the core that we are on; `None` before it has one, when TPIDR_EL1 may be anything.
fn this() -> Option<&'static PerCore> {
    let block = core::ptr::with_exposed_provenance::<PerCore>(TPIDR_EL1.get() as usize);
    let there = block.is_aligned() && all().as_ptr_range().contains(&block);
    // SAFETY: `toe_go` has set it to one of the blocks, which stay for ever; anything else is not among them.
    there.then(|| unsafe { &*block })
}

/// The number of the core that we are on: its place in the machine's list. 0 while there is only one.
pub fn index() -> usize {
    this().map_or(0, |core| core.index)
}

/// Says what this core is doing from now on: one store.
pub fn set_doing(what: &'static Doing) {
    if let Some(core) = this() {
        core.doing.store((&raw const *what).cast_mut(), Ordering::Relaxed);
    }
}

/// What this core has said that it is doing.
pub fn doing() -> &'static str {
    let doing = this().map_or(core::ptr::null_mut(), |core| core.doing.load(Ordering::Relaxed));
    // SAFETY: null, or a static that somebody handed to `set_doing`.
    unsafe { doing.as_ref() }.map_or("starting, before it has a block", |doing| doing.0)
}

/// Which stack of this core has its guard page at `address`.
pub(crate) fn guard_hit(address: u64) -> Option<&'static str> {
    let stacks = this()?.stacks;
    let below = |top: u64| (top - super::stack::GUARD..top).contains(&address);
    match address {
        _ if below(stacks.normal.base()) => Some("stack"),
        _ if below(stacks.exceptions.base()) => Some("exception stack"),
        _ => None,
    }
}

/// Wakes a core: if it sleeps now it stops, else its next sleep ends at once. What was written before is visible to it.
/// Does nothing if there is no such core.
pub fn wake(core: usize) {
    if let Some(core) = all().get(core) {
        cpu::send(core.wake_word);
    }
}

/// Sleeps until this core is woken, a message of a device comes for it, or it is `deadline_ns` (nanoseconds as [`time::now_ns`]).
/// May end earlier. `message` is told each LPI that was taken.
///
/// The protocol of `toe_sync::sleep` goes around it: set the flag, fence, look again, and only then this.
pub fn sleep_until(deadline_ns: Option<u64>, message: impl FnMut(u32)) {
    deadline_ns.into_iter().for_each(time::arm);
    // What this core wrote reaches memory before it stands still.
    barrier::dsb(barrier::SY);
    wfi();
    take_interrupts(message);
    time::disarm();
}

/// Takes what is pending without sleeping: for a core that is busy.
pub fn take_interrupts(mut message: impl FnMut(u32)) {
    let timer = this().map_or(0, |core| core.timer);
    for id in core::iter::from_fn(cpu::acknowledge).take(TAKEN_MAX) {
        if id == timer {
            // Its level stays up until it is told.
            time::disarm();
        } else if id >= gic::LPI_FIRST {
            message(id);
        }
        cpu::end_of_interrupt(id);
    }
}

/// Why a core did not start.
#[derive(Clone, Copy, Debug)]
pub enum StartError {
    /// There is no such core, or it is busy.
    NotThere(usize),
    Psci(smccc::psci::error::Error),
    /// It did not come: its state, as in [`state`].
    Late(time::Late),
    /// It came, and its interrupt controller does not work.
    Interrupts,
    /// After start-up there is no memory for what the work carries.
    Sealed,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere(core) => write!(f, "core {core} is not there, or is busy"),
            Self::Psci(error) => write!(f, "PSCI CPU_ON: {error}"),
            Self::Late(late) => fmt::Display::fmt(late, f),
            Self::Interrupts => f.write_str("its interrupt controller does not work"),
            Self::Sealed => f.write_str("given work after start-up"),
        }
    }
}

impl core::error::Error for StartError {}

/// The first line of Rust on a core that was started.
pub(crate) extern "C" fn secondary(_: &Enter) -> ! {
    if let Some(core) = this() {
        run(core);
    }
    super::halt()
}

fn run(core: &'static PerCore) {
    if core.init().is_err() {
        core.state.store(state::FAILED, Ordering::Release);
        return;
    }
    loop {
        let work = core.work.lock().take();
        if let Some(work) = work {
            core.state.store(state::RUNNING, Ordering::Release);
            work();
            set_doing(&RETURNED);
            core.state.store(state::RETURNED, Ordering::Release);
        }
        // Whoever has more work puts it there first, and then wakes us.
        sleep_until(None, |_| ());
    }
}
