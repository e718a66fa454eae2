//! The interrupt controller: GICv3 (Arm IHI 0069). Interrupts are never taken as exceptions; they end a sleep, and are then asked for.
//!
//! ```text
//!   device ─ MSI ─► its ─► LPI ─┐
//!   another core ─► SGI ────────┼─► redistributor ─► cpu ─► WFI ends; acknowledge, handle, end of interrupt
//!   this core's timer ─► PPI ───┘        of the core
//!   distributor: SPIs, all off
//! ```

pub(crate) mod cpu;
pub(crate) mod distributor;
pub mod its;
pub(crate) mod redistributor;

use super::time::Late;
use core::fmt;

/// The SGI by which a core wakes another. Numbers below 8 are the normal world's.
pub const WAKE: u32 = 0;
/// Identifiers of LPIs begin here.
pub const LPI_FIRST: u32 = 8192;
/// How many LPIs there are: with 14 bits of identifier, the fewest that a controller with LPIs has.
pub const LPIS: u32 = 8192;

/// Priority of all interrupts: they do not interrupt anything.
const PRIORITY: u8 = 0xa0;

/// A register answers within that, or the controller is broken.
const LIMIT_NS: u64 = 100_000_000;

/// What is wrong with the interrupt controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GicError {
    Late(Late),
    /// No redistributor says that it is this core's (packed MPIDR).
    NoRedistributor(u32),
    /// It can't do what we need: what, and the register that says so.
    Lacks(&'static str, u64),
    /// The ITS refused a command: number of the command, GITS_CREADR.
    Refused(u64, u64),
    /// No more interrupts, devices, events or memory.
    Exhausted(&'static str),
}

impl From<Late> for GicError {
    fn from(late: Late) -> Self {
        Self::Late(late)
    }
}

impl fmt::Display for GicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(late) => fmt::Display::fmt(late, f),
            Self::NoRedistributor(core) => write!(f, "no redistributor is that of core {core:#x}"),
            Self::Lacks(what, value) => write!(f, "the GIC has no {what} ({value:#x})"),
            Self::Refused(command, value) => write!(f, "the ITS refused command {command:#x} (GITS_CREADR {value:#x})"),
            Self::Exhausted(what) => write!(f, "no more {what}"),
        }
    }
}

impl core::error::Error for GicError {}
