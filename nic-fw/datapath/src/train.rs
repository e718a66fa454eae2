//! Trains: segments of a flow that came one behind the other go through protocol as one, as if the port had put them together (LRO).
//!
//! ```text
//!   frames     a 0..1448 │ a 1448..2896 │ a 2896..4344, PSH │ b │ a 4344..
//!   work      └─────────────── a 0..4344 ──────────────────┘ └b┘ └────► the next train
//! ```
//!
//! Joined are segments in order that differ in nothing but their place in the stream, so nothing is lost that TCP would have learnt from
//! each alone: same acknowledgement, window and timestamps, no flag but ACK, PSH at the end. What comes out of order goes by itself: each
//! such segment has an ACK of its own (RFC 5681, 4.2). Each frame stays what it is: its payload goes from where it is to where it
//! belongs, and it is given back and counted.

use crate::msg::{OutMsg, RxMsg, RxRef};
use alloc::boxed::Box;
use toe_abi::FlowId;
use toe_hal::port::BURST;
use toe_tcp::SegmentIn;
use toe_wire::TcpFlags;

/// Frames in a train: as many as there are in a burst.
pub const TRAIN: usize = BURST;
/// Most bytes of payload: as a port's super-frame.
const BYTES_MAX: u32 = 65_535;

/// One segment, or several that are one.
pub struct Train {
    pub flow: FlowId,
    pub segment: SegmentIn,
    /// Has the frames.
    pub msg: Box<OutMsg>,
    /// More may be joined.
    open: bool,
}

impl Train {
    /// Whether others may be joined behind this segment.
    #[inline]
    fn goes_on(segment: &SegmentIn) -> bool {
        segment.payload_len > 0 && !segment.flags.contains(TcpFlags::PSH)
    }

    /// A train of one.
    #[inline]
    pub fn new(RxMsg { flow, segment, frame, payload_at }: RxMsg, mut msg: Box<OutMsg>) -> Self {
        msg.receive(frame, payload_at, segment.payload_len);
        Self { flow, segment, msg, open: Self::goes_on(&segment) }
    }

    /// Whether others may be joined.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Nothing is joined any more.
    pub fn close(&mut self) {
        self.open = false;
    }

    /// Whether the next segment of the flow may be joined.
    #[inline(always)]
    pub fn takes(&self, next: &SegmentIn) -> bool {
        let all = &self.segment;
        self.open
            && next.seq == all.seq.add(all.payload_len)
            && next.payload_len > 0
            && all.payload_len.saturating_add(next.payload_len) <= BYTES_MAX
            && next.flags.difference(TcpFlags::PSH) == TcpFlags::ACK
            && !next.ce
            && next.sack.is_empty()
            && (next.ack, next.window, next.timestamps) == (all.ack, all.window, all.timestamps)
    }

    /// Joins a segment that it [`takes`](Self::takes).
    #[inline]
    pub fn join(&mut self, next: &SegmentIn, frame: RxRef, payload_at: u32) {
        self.msg.receive(frame, payload_at, next.payload_len);
        let all = &mut self.segment;
        all.flags = next.flags;
        all.payload_len += next.payload_len;
        all.segments = all.segments.saturating_add(next.segments);
        self.open = Self::goes_on(all) && !self.msg.frames.is_full();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msg::{Origin, RxRef};
    use toe_hal::RxOffload;
    use toe_wire::{SackBlocks, SeqNum, Timestamps};

    fn rx(seq: u32, len: u32) -> RxMsg {
        let timestamps = Some(Timestamps { val: 1, ecr: 2 });
        let (seq, ack) = (SeqNum(seq), SeqNum(7));
        let segment = SegmentIn {
            seq,
            ack,
            flags: TcpFlags::ACK,
            window: 9,
            urgent: 0,
            payload_len: len,
            timestamps,
            sack: SackBlocks::default(),
            ce: false,
            segments: 1,
        };
        let frame = RxRef { origin: Origin::Injected, len: 66 + len, offload: RxOffload::default(), tcp_at: 34 };
        RxMsg { flow: FlowId { index: 1, generation: 1 }, segment, frame, payload_at: 66 }
    }

    fn train(first: RxMsg) -> Train {
        Train::new(first, Box::new(OutMsg::new()))
    }

    /// If it takes it.
    fn join(t: &mut Train, RxMsg { segment, frame, payload_at, .. }: RxMsg) -> bool {
        let takes = t.takes(&segment);
        if takes {
            t.join(&segment, frame, payload_at);
        }
        takes
    }

    #[test]
    fn what_follows_is_joined() {
        let mut t = train(rx(u32::MAX - 99, 100));
        assert!(join(&mut t, rx(0, 200)));
        let mut push = rx(200, 50);
        push.segment.flags |= TcpFlags::PSH;
        assert!(join(&mut t, push));
        assert_eq!((t.segment.payload_len, t.segment.segments, t.msg.frames.len()), (350, 3, 3));
        assert!(t.segment.flags.contains(TcpFlags::PSH));
        assert!(!join(&mut t, rx(250, 100)), "the sender has pushed");
    }

    #[test]
    fn what_says_something_else_goes_by_itself() {
        type Change = fn(&mut SegmentIn);
        let cases: [(&str, Change); 9] = [
            ("a hole", |s| s.seq = SeqNum(101)),
            ("acknowledgement", |s| s.ack = SeqNum(8)),
            ("window", |s| s.window = 10),
            ("timestamps", |s| s.timestamps = Some(Timestamps { val: 2, ecr: 2 })),
            ("no timestamps", |s| s.timestamps = None),
            ("FIN", |s| s.flags |= TcpFlags::FIN),
            ("URG", |s| s.flags |= TcpFlags::URG),
            ("congestion", |s| s.ce = true),
            ("no payload", |s| s.payload_len = 0),
        ];
        for (what, change) in cases {
            let mut next = rx(100, 100);
            change(&mut next.segment);
            let mut t = train(rx(0, 100));
            assert!(!join(&mut t, next), "{what}");
            assert!(join(&mut t, rx(100, 100)));
        }
        assert!(!join(&mut train(rx(0, 0)), rx(0, 100)), "an ACK");
        let mut closed = train(rx(0, 100));
        closed.close();
        assert!(!join(&mut closed, rx(100, 100)), "not in order");
    }

    #[test]
    fn trains_end() {
        let mut t = train(rx(0, 100));
        let joined = (1..100).take_while(|i| join(&mut t, rx(100 * i, 100))).count();
        assert_eq!(1 + joined, TRAIN);
        let mut t = train(rx(0, BYTES_MAX - 10));
        assert!(!join(&mut t, rx(BYTES_MAX - 10, 11)));
        assert!(join(&mut t, rx(BYTES_MAX - 10, 10)));
    }
}
