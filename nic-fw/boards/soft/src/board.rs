//! The soft card as a board of the data path: which type does what.
//!
//! ```text
//!   Port::open ──► rx, tx        SoftMemory ──► a handle per core        Interrupts ──► host
//! ```

use crate::memory::SoftMemory;
use crate::ports::{SoftFrames, SoftRx, SoftTx};
use crate::signals::Interrupts;
use crate::wakes::MonotonicClock;
use toe_hal::{Board, Parts};

/// Ports of any driver, mapped host memory, eventfds.
#[derive(Clone, Copy, Debug)]
pub struct SoftBoard;

impl Board for SoftBoard {
    type Memory = SoftMemory;
    type Rx = Box<dyn SoftRx>;
    type Tx = Box<dyn SoftTx>;
    type Kick = Interrupts;
    type Clock = MonotonicClock;
}

// The parts are put together on one thread and used on others; frames are read on any.
const _: () = {
    const fn moves<T: Send>() {}
    const fn is_shared<T: Send + Sync>() {}
    moves::<Parts<SoftBoard>>();
    is_shared::<SoftFrames>();
};
