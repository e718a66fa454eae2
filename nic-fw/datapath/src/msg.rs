//! Messages between stages: plain values that carry all the receiver needs, so stages can be joined by calls or by rings.
//!
//! ```text
//!   pre ──RxMsg──►┐                          ┌─ tx ──► post ──► egress
//!   ctxq ─HcMsg──►├─ Work ─► protocol ─OutMsg┼─ writes ─► dma ──► egress ──(in order)── HostIn ──► ctxq
//!   control ─────►│                          └─ event, done ────► egress
//!   sched ───────►┘
//! ```

use crate::{control::Mailbox, pool::Class, train::TRAIN};
use alloc::{boxed::Box, collections::VecDeque};
use toe_abi::{CtxId, FlowId, HostAddr, HostSpan, RegionId, counters::Exception, desc::ev_flags, flow::FlowOptions};
use toe_hal::{Lease, RxFrame, RxOffload, TxOffload};
use toe_tcp::{HostUpdate, SegmentIn, SegmentOut};
use toe_wire::{header::HEADER_MAX, nd};

/// Writes of a message: one for each of its frames, and one more where a ring ends.
pub const WRITES_MAX: usize = TRAIN + 1;

/// Who a message is about, and its place in the order of its flow group.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    pub flow: FlowId,
    pub group: u16,
    /// Counts what leaves protocol, mod 2^32, in each group.
    pub number: u32,
}

impl Tag {
    pub const NONE: Self = Self { flow: FlowId::NONE, group: 0, number: 0 };
}

/// Where the bytes of a received frame are.
#[derive(PartialEq, Eq, Debug)]
pub enum Origin {
    /// A buffer on loan from the port.
    Port(Lease),
    /// The control stage's buffer for injected frames.
    Injected,
}

/// A received frame, wherever it is. Who holds it has to give it back.
#[derive(PartialEq, Eq, Debug)]
#[must_use]
pub struct RxRef {
    pub origin: Origin,
    pub len: u32,
    pub offload: RxOffload,
    /// Where the TCP header begins; 0: there is none.
    pub tcp_at: u16,
}

impl From<RxFrame> for RxRef {
    fn from(frame: RxFrame) -> Self {
        Self { origin: Origin::Port(frame.lease), len: frame.len, offload: frame.offload, tcp_at: 0 }
    }
}

/// A received frame of a known flow.
#[derive(Debug)]
pub struct RxMsg {
    pub flow: FlowId,
    pub segment: SegmentIn,
    pub frame: RxRef,
    /// Where the payload begins in the frame.
    pub payload_at: u32,
}

/// What an application asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostOp {
    Update,
    Rebind {
        opaque: u32,
    },
    Abort,
    Options(FlowOptions),
    Close,
    /// The card's own: see [`ControlOp::Barrier`].
    Barrier,
}

/// A validated shape of an application's descriptor; its flow and positions are claims still.
#[derive(Clone, Copy, Debug)]
pub struct HcMsg {
    pub ctx: CtxId,
    pub region: RegionId,
    pub flow: FlowId,
    pub op: HostOp,
    pub update: HostUpdate,
}

impl HcMsg {
    /// Comes out at the end of the order when all descriptors before it have.
    pub const BARRIER: Self = Self {
        ctx: CtxId::NONE,
        region: RegionId::NONE,
        flow: FlowId::NONE,
        op: HostOp::Barrier,
        update: HostUpdate { tx_head: 0, rx_tail: 0, flags: 0, urgent: 0 },
    };
}

/// What the control plane, or the card itself, asks of one flow. A request comes with the [`Mailbox`] that holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlOp {
    /// Install the flow in the mailbox under this id.
    Install,
    /// A request about the flow in the mailbox; its kind says what.
    Request,
    /// Put the flow's last state into the mailbox: toed is to be told that it has ended.
    Notice,
    /// Part of closing a context: if the flow is bound to it, unbind it.
    Unbind { ctx: CtxId },
    /// Part of unmapping a region: reset the flow.
    RegionGone,
    /// Payload could not be written: reset the flow.
    Poisoned,
    /// The id means nothing from now on.
    Forget,
    /// Rates to set and counts to report, of the group; the flow id names no more than that.
    Rates,
    /// Nothing: comes out at the end of the order when all before it has.
    Barrier,
}

/// Input of the protocol stage.
#[derive(Debug)]
pub enum Work {
    Rx(RxMsg),
    Host(HcMsg),
    Control {
        op: ControlOp,
        flow: FlowId,
        mail: Option<Box<Mailbox>>,
    },
    /// The scheduler's turn for a flow.
    Send {
        flow: FlowId,
    },
    /// A flow's timer has expired.
    Timer {
        flow: FlowId,
    },
}

/// A received frame that a message is about, and where the payload is in it.
#[derive(PartialEq, Eq, Debug)]
#[must_use]
pub struct Received {
    pub frame: RxRef,
    pub payload_at: u32,
    pub payload_len: u32,
}

/// Bytes to be written to host memory.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Which of several sources they are in.
    pub source: u8,
    /// Where they begin in their source.
    pub at: u32,
    pub len: u32,
    pub dst: HostAddr,
}

/// What the application may know of its flow now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Event {
    pub flow: FlowId,
    pub ctx_opaque: CtxOpaque,
    pub region: RegionOrNone,
    pub flags: u32,
    pub rx_head: u32,
    pub tx_tail: u32,
    pub error: u32,
    pub srtt_us: u32,
    pub cwnd: u32,
    /// End of the peer's urgent data, with [`ev_flags::URGENT`].
    pub urgent: u32,
    /// The flow has ended and nobody is going to bind it any more: it may be reported without its last event.
    pub given_up: bool,
    /// Of the message that it came with.
    pub number: u32,
}

/// How far behind what was received a mark may be and be told again, bytes.
const STALE: u32 = 1 << 30;

impl Event {
    /// Makes way for a later one of the same flow. That tells all of the present state but for one thing: of urgent data only the event tells that
    /// comes with the news. It is told again and again, to whoever the flow is bound to, until it is far behind.
    #[inline]
    pub fn replace(&mut self, later: &Self) {
        let (flags, urgent) = (self.flags, self.urgent);
        *self = *later;
        if flags & ev_flags::URGENT != 0 {
            self.keep_urgent(urgent);
        }
    }

    #[cold]
    fn keep_urgent(&mut self, earlier: u32) {
        // Positions wrap: what is less than half of their numbers ahead is later.
        let overtaken = self.flags & ev_flags::URGENT != 0 && self.urgent.wrapping_sub(earlier) < 1 << 31;
        let stale = (STALE..1 << 31).contains(&self.rx_head.wrapping_sub(earlier));
        if !overtaken && !stale {
            self.flags |= ev_flags::URGENT;
            self.urgent = earlier;
        }
    }
}

/// Where an event goes.
#[derive(Clone, Copy, Debug)]
pub struct CtxOpaque {
    pub ctx: CtxId,
    pub opaque: u32,
}

impl Default for CtxOpaque {
    fn default() -> Self {
        Self { ctx: CtxId::NONE, opaque: 0 }
    }
}

/// The region of the flow an event is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionOrNone(pub RegionId);

impl Default for RegionOrNone {
    fn default() -> Self {
        Self(RegionId::NONE)
    }
}

/// What else becomes true when a message comes out of the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    Nothing,
    /// The mailbox that comes along holds the answer; this is its status.
    Answer(u32),
    /// As `Answer` with status OK, and the flow was released: its index is free.
    Released(FlowId),
    /// The mailbox that comes along tells of a flow that has ended.
    Notice,
    Barrier,
}

/// Headers of a segment to be sent, and where its payload is.
#[derive(Debug)]
pub struct Built {
    pub bytes: [u8; HEADER_MAX],
    pub len: u16,
    pub spans: heapless::Vec<HostSpan, 2>,
    pub offload: TxOffload,
}

/// Output of the protocol stage: one is made for each number. `writes` come first; all the rest waits until they and all earlier ones are
/// complete. Boxes come from a [`Pool`](crate::pool::Pool) and go back to it.
#[derive(Debug)]
pub struct OutMsg {
    pub tag: Tag,
    /// Whose credit it is.
    pub class: Class,
    /// Payload of `frames` to be written, until DMA has done so.
    pub writes: heapless::Vec<Write, WRITES_MAX>,
    /// A write failed, so the bytes are not there.
    pub fault: bool,
    /// The received frames that this came from, to be given back and counted.
    pub frames: heapless::Vec<Received, TRAIN>,
    /// The frames have been counted as dropped.
    pub dropped: bool,
    /// The frame (there is one) is nobody's: it goes on to the control plane.
    pub stale: bool,
    /// To be sent. Addresses and buffer geometry are the flow's fixed ones.
    pub tx: Option<SegmentOut>,
    /// `built` holds the headers of `tx`.
    pub is_built: bool,
    pub built: Built,
    pub event: Option<Event>,
    pub done: Done,
    pub mail: Option<Box<Mailbox>>,
    /// When the stage that has it took it up, if somebody traces.
    pub begin_ns: u64,
}

impl OutMsg {
    pub fn new() -> Self {
        Self {
            tag: Tag::NONE,
            class: Class::Control,
            writes: heapless::Vec::new(),
            fault: false,
            frames: heapless::Vec::new(),
            dropped: false,
            stale: false,
            tx: None,
            is_built: false,
            built: Built { bytes: [0; HEADER_MAX], len: 0, spans: heapless::Vec::new(), offload: TxOffload::default() },
            event: None,
            done: Done::Nothing,
            mail: None,
            begin_ns: 0,
        }
    }

    /// Is about this frame, too. There is room.
    #[inline]
    pub fn receive(&mut self, frame: RxRef, payload_at: u32, payload_len: u32) {
        let pushed = self.frames.push(Received { frame, payload_at, payload_len });
        debug_assert!(pushed.is_ok(), "a frame is lost");
    }

    /// Empty again, for the next use.
    pub fn clear(&mut self) {
        debug_assert!(self.frames.is_empty() && self.mail.is_none(), "somebody waits for what would be lost");
        self.tag = Tag::NONE;
        self.writes.clear();
        self.built.spans.clear();
        (self.fault, self.dropped, self.stale, self.is_built) = (false, false, false, false);
        (self.tx, self.event, self.done, self.begin_ns) = (None, None, Done::Nothing, 0);
    }
}

/// Where a message has to go next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    Post,
    Dma,
    /// To have payload written that only the ctxq stage has.
    Host,
    Egress,
}

impl OutMsg {
    pub fn next_stop(&self) -> Stop {
        let injected = || self.frames.first().is_some_and(|received| received.frame.origin == Origin::Injected);
        match () {
            () if self.tx.is_some() && !self.is_built => Stop::Post,
            () if self.writes.is_empty() => Stop::Egress,
            () if injected() => Stop::Host,
            () => Stop::Dma,
        }
    }
}

/// What egress and pre tell the context queue stage.
#[derive(Debug)]
pub enum HostIn {
    Event(Event),
    Done(Done, Option<Box<Mailbox>>),
    /// A frame for the control plane.
    Exception(ExceptionMsg),
    /// The injected frame has been dealt with.
    Injected,
    /// The frame of the control plane has been sent.
    Transmitted,
}

impl HostIn {
    /// Puts it behind what waits already.
    pub fn queue(self, waiting: &mut VecDeque<Self>) {
        match self {
            Self::Event(event) => Self::queue_event(&event, waiting),
            _ => waiting.push_back(self),
        }
    }

    /// The same. Events tell what a flow's state is, not what has changed: the later one of two says it all, unless the first was the last
    /// of its flow.
    #[inline]
    pub fn queue_event(event: &Event, waiting: &mut VecDeque<Self>) {
        match waiting.back_mut() {
            Some(Self::Event(last)) if last.flow == event.flow && last.flags & ev_flags::CLOSED == 0 => last.replace(event),
            _ => waiting.push_back(Self::Event(*event)),
        }
    }
}

/// A frame for the control plane.
#[derive(Debug)]
pub struct ExceptionMsg {
    pub frame: RxRef,
    pub reason: Exception,
    /// Count it; false: a copy of a frame that was answered.
    pub owned: bool,
}

/// Most bytes of a [`RawFrame`] that are not host memory: an answer to a neighbour with a tag fits.
pub const RAW_HEADER: usize = nd::FRAME_MAX.next_multiple_of(16);

/// A frame that is ready as it is.
#[derive(Clone, Copy, Debug)]
pub struct RawFrame {
    pub bytes: [u8; RAW_HEADER],
    pub len: u32,
    /// What follows `bytes`.
    pub rest: HostSpan,
    pub offload: TxOffload,
    pub kind: Raw,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Raw {
    /// The card's answer to an ARP request or a neighbour solicitation.
    Answer,
    /// The control plane's.
    Control,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(rx_head: u32, urgent: Option<u32>) -> Event {
        let flags = if urgent.is_some() { ev_flags::URGENT } else { 0 };
        Event { rx_head, flags, urgent: urgent.unwrap_or(0), ..Event::default() }
    }

    /// What is told of the mark when these have come one after the other.
    fn told(events: &[Event]) -> Option<u32> {
        let mut last = Event::default();
        events.iter().for_each(|event| last.replace(event));
        (last.flags & ev_flags::URGENT != 0).then_some(last.urgent)
    }

    #[test]
    fn a_mark_is_told_until_a_later_one_comes() {
        assert_eq!(told(&[event(0, None), event(10, None)]), None);
        assert_eq!(told(&[event(0, Some(5)), event(10, None)]), Some(5));
        assert_eq!(told(&[event(0, Some(5)), event(10, Some(12)), event(20, None)]), Some(12));
        assert_eq!(told(&[event(0, Some(12)), event(10, Some(5))]), Some(12), "a segment that was overtaken");
        assert_eq!(told(&[event(u32::MAX, Some(u32::MAX)), event(u32::MAX, Some(3))]), Some(3), "positions wrap");
    }

    /// Else it would seem to lie ahead when positions have wrapped.
    #[test]
    fn a_mark_far_behind_is_forgotten() {
        let passed = |bytes: u32| told(&[event(0, Some(5)), event(bytes, None)]);
        assert_eq!((passed(STALE), passed(STALE + 5)), (Some(5), None));
        assert_eq!(told(&[event(0, Some(5)), event(STALE + 5, None), event(5 - 1, None)]), None, "4 GiB later");
    }
}
