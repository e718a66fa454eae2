//! What goes in and what comes out.

use toe_abi::control::close_reason;
use toe_abi::counters::{Counter, Drop};
use toe_abi::flow::FlowOptions;
use toe_wire::{SackBlocks, SeqNum, TcpFlags, Timestamps};

/// Microseconds on the card's clock, from an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Now(pub u64);

impl Now {
    /// Microseconds mod 2^32: the unit of round-trip samples.
    #[inline]
    pub const fn us32(self) -> u32 {
        self.0 as u32
    }

    /// Milliseconds mod 2^32: the unit of timers.
    #[inline]
    pub const fn ms32(self) -> u32 {
        (self.0 / 1000) as u32
    }
}

/// A received segment. Its payload stays in the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentIn {
    pub seq: SeqNum,
    pub ack: SeqNum,
    pub flags: TcpFlags,
    /// Unscaled.
    pub window: u16,
    /// The urgent pointer, with URG.
    pub urgent: u16,
    /// Up to 64 KiB (super-frame).
    pub payload_len: u32,
    pub timestamps: Option<Timestamps>,
    pub sack: SackBlocks,
    /// The IP header's ECN field is CE.
    pub ce: bool,
    /// Segments on the wire that this super-frame was made of, at least 1.
    pub segments: u16,
}

/// What an application says of its buffers and options. A claim: it is checked here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostUpdate {
    pub tx_head: u32,
    pub rx_tail: u32,
    /// [`toe_abi::desc::hc_flags`].
    pub flags: u32,
    /// End of the urgent data, with [`toe_abi::desc::hc_flags::URGENT`].
    pub urgent: u32,
}

/// An ICMP error that quotes a segment of the flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    pub kind: u8,
    pub code: u8,
    /// Of the next hop, bytes of IP packet, with "fragmentation needed"; else 0.
    pub mtu: u16,
    /// Sequence number quoted.
    pub seq: SeqNum,
}

/// Something happened to a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    Segment(SegmentIn),
    Host(HostUpdate),
    /// [`next_deadline`](crate::next_deadline) has come. Harmless when early.
    Timer,
    /// Reset the connection now.
    Abort,
    /// The last descriptor has gone; `unread`: received data was left unread.
    Close {
        unread: bool,
    },
    IcmpError(IcmpError),
    Options(FlowOptions),
}

/// Payload to copy: bytes `[from, from + len)` of the segment's payload go to receive position `pos`. The caller wraps it around the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    pub from: u32,
    pub pos: u32,
    pub len: u32,
    pub in_order: bool,
}

/// What to do about an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Output {
    pub place: Option<Placement>,
    /// To be sent at once, before anything that `emit` would give: ACK, challenge ACK, RST. Built from the state after this input.
    pub reply: Option<SegmentOut>,
    /// What the application may see has changed (rx_head, tx_tail, FIN, error).
    pub notify: bool,
    /// `emit` may have something now. Not said again of what it still had when it was last called.
    pub send: bool,
    /// [`next_deadline`](crate::next_deadline) may be sooner than before, or a timer has run.
    pub deadline: bool,
    /// The flow has ended: nothing more comes from it.
    pub closed: Option<CloseReason>,
    /// Linux errno for the application when the flow ended by an error, else 0.
    pub error: u32,
    /// The segment, or the part of it that mattered, was discarded.
    pub drop: Option<Drop>,
    /// The peer has announced urgent data up to this position (RCV.UP).
    pub urgent: Option<u32>,
    /// Counters to raise.
    pub counts: Counts,
    /// The host's update had positions outside the buffer and was ignored.
    pub bad_host: bool,
}

/// A set of counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts(u128);

const _: () = assert!(Counter::COUNT <= 128, "a bit for each");

impl Counts {
    pub fn add(&mut self, counter: Counter) {
        self.0 |= 1 << counter as u32;
    }

    #[must_use]
    pub fn has(self, counter: Counter) -> bool {
        self.0 >> (counter as u32) & 1 == 1
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Counter> {
        let bits = self.0;
        core::iter::successors(Some(bits), |bits| Some(bits & bits.wrapping_sub(1)))
            .take_while(|bits| *bits != 0)
            .filter_map(|bits| Counter::ALL.get(bits.trailing_zeros() as usize).copied())
    }
}

/// A segment to send. Identity and next hop are the flow's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentOut {
    pub seq: SeqNum,
    pub ack: SeqNum,
    pub flags: TcpFlags,
    /// Scaled, ready for the header.
    pub window: u16,
    /// The urgent pointer, with URG.
    pub urgent: u16,
    /// Payload: transmit position, and bytes (0: none). More than `mss`: a super-frame to be cut into segments of `mss`.
    pub pos: u32,
    pub len: u32,
    pub mss: u16,
    pub timestamps: Option<Timestamps>,
    /// Only in segments without payload.
    pub sack: SackBlocks,
    /// The IP header's ECN field is to be ECT(0).
    pub ect: bool,
    /// All or part of it was sent before.
    pub rexmit: bool,
}

/// Why a flow ended: [`toe_abi::control::close_reason`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum CloseReason {
    /// Both sides sent FIN, the peer first.
    Done = close_reason::DONE,
    /// Both sides sent FIN, we first: toed keeps TIME-WAIT.
    TimeWait = close_reason::TIME_WAIT,
    /// The peer sent RST.
    Reset = close_reason::RESET,
    /// Retransmissions, probes or keep-alives went unanswered.
    Timeout = close_reason::TIMEOUT,
    /// We sent RST.
    Aborted = close_reason::ABORTED,
    /// Its region was unmapped; RST was sent. Never comes from here: callers that abort for this reason report it.
    RegionGone = close_reason::REGION_GONE,
}

impl CloseReason {
    /// As in control messages.
    pub const fn code(self) -> u32 {
        self as u32
    }
}

/// Linux errnos that end a connection.
pub mod errno {
    pub const EPIPE: u32 = 32;
    pub const ENETUNREACH: u32 = 101;
    pub const ECONNABORTED: u32 = 103;
    pub const ECONNRESET: u32 = 104;
    pub const ETIMEDOUT: u32 = 110;
    pub const EHOSTUNREACH: u32 = 113;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_set_of_counters_gives_back_what_was_added_once() {
        let mut counts = Counts::default();
        assert!(counts.is_empty() && counts.iter().next().is_none());
        let last = *Counter::ALL.last().unwrap();
        for counter in [Counter::TxProbes, Counter::RxFrames, last, Counter::TxProbes] {
            counts.add(counter);
        }
        assert!(!counts.is_empty());
        assert_eq!(counts.iter().collect::<Vec<_>>(), [Counter::RxFrames, Counter::TxProbes, last]);
        assert!(counts.has(last) && !counts.has(Counter::TxAcks));
    }

    #[test]
    fn reasons_have_the_numbers_of_control_messages() {
        assert_eq!([CloseReason::Reset, CloseReason::Timeout].map(CloseReason::code), [close_reason::RESET, close_reason::TIMEOUT]);
    }
}
