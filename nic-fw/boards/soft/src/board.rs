//! The soft card as a board of the data path: which type does what.

use crate::memory::SoftMemory;
use crate::ports::{SoftRx, SoftTx};
use crate::signals::Interrupts;
use crate::wakes::{CoreWakes, MonotonicClock};
use toe_hal::Board;

/// Ports of any driver, mapped host memory, eventfds.
#[derive(Clone, Copy, Debug)]
pub struct SoftBoard;

impl Board for SoftBoard {
    type Memory = SoftMemory;
    type Rx = Box<dyn SoftRx>;
    type Tx = Box<dyn SoftTx>;
    type Kick = Interrupts;
    type Wake = CoreWakes;
    type Clock = MonotonicClock;
}
