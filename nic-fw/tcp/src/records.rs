//! What was sent when.

use toe_wire::SeqNum;

/// Bytes that were sent at one time, or received beyond a hole: sequence numbers [start, end).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Record {
    pub(crate) start: SeqNum,
    pub(crate) end: SeqNum,
    /// When they were last sent, or came: microseconds mod 2^32.
    pub(crate) us: u32,
}
