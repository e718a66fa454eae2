//! The board: which type does what.

use super::count::Executed;
use super::memory::CardMemory;
use super::port::{CountTx, ReplayRx};
use toe_abi::CtxId;
use toe_hal::{Board, Kick};

#[derive(Clone, Copy, Debug)]
pub struct CountBoard;

impl Board for CountBoard {
    type Memory = CardMemory;
    type Rx = ReplayRx;
    type Tx = CountTx;
    type Kick = Nobody;
    type Clock = Executed;
}

/// The application here never sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Kick for Nobody {
    fn interrupt(&mut self, _: CtxId) {}
}
