//! What goes over links that are not between two stages' own message types.

use crate::msg::{OutMsg, RxMsg};
use alloc::boxed::Box;
use toe_abi::FlowId;

/// What pre has found of a numbered frame; `None`: nothing of the group's.
#[derive(Debug)]
pub struct Judged {
    pub number: u32,
    pub msg: Option<RxMsg>,
}

/// From egress back to protocol.
#[derive(Debug)]
pub enum Back {
    Msg(Box<OutMsg>),
    /// A flow to be reset because payload of it was lost.
    Poisoned(FlowId),
}
