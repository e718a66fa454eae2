//! Messages between stages: plain values that carry all the receiver needs, so stages can be joined by calls or by rings.
//!
//! ```text
//!   pre ──RxMsg──►┐                        ┌──TxMsg──► post
//!   ctxq ─HcMsg──►├─ Work ─► protocol ─DmaMsg─► dma ─(in order)─┤──Event──► ctxq
//!   control ─────►│                        └──Done───► control
//!   sched ───────►┘
//! ```

use toe_abi::{CtxId, FlowId, HostAddr, RegionId, counters::Exception};
use toe_hal::{Lease, RxOffload};
use toe_tcp::{HostUpdate, SegmentIn, SegmentOut};

/// Who a message is about, and its place in the order of its flow group.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    pub flow: FlowId,
    pub group: u16,
    /// Counts what leaves protocol, mod 2^32, in each group.
    pub number: u32,
}

/// Where the bytes of a frame or a transfer are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A buffer on loan from the port.
    Port(Lease),
    /// The control stage's buffer for injected frames.
    Injected,
    /// The control stage's outgoing completion.
    Completion,
    /// The DMA entry itself.
    Inline,
}

/// A received frame of a known flow.
#[derive(Clone, Copy, Debug)]
pub struct RxMsg {
    pub flow: FlowId,
    pub segment: SegmentIn,
    pub frame: RxRef,
    /// Where the payload begins in the frame.
    pub payload_at: u32,
}

/// A received frame, wherever it is.
#[derive(Clone, Copy, Debug)]
pub struct RxRef {
    pub source: Source,
    pub len: u32,
    pub offload: RxOffload,
    /// Where the TCP header begins; 0: there is none.
    pub tcp_at: u16,
}

/// What an application asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostOp {
    Update,
    Rebind { opaque: u32 },
    Abort,
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

/// What the control plane asked for, of one flow. The request itself is in the control stage's mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlOp {
    /// Install the flow in the mailbox.
    Install,
    /// A request about the flow in the mailbox; its kind says what.
    Request,
    /// Part of closing a context: if the flow is bound to it, unbind it.
    Unbind { ctx: CtxId },
    /// Part of unmapping a region: reset the flow.
    RegionGone,
    /// Payload could not be written: reset the flow.
    Poisoned,
    /// Nothing: comes out at the end of the order when all before it has.
    Barrier,
}

/// Input of the protocol stage.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    Rx(RxMsg),
    Host(HcMsg),
    Control {
        op: ControlOp,
        flow: FlowId,
    },
    /// The scheduler's turn for a flow.
    Send {
        flow: u32,
    },
    /// A flow's timer has expired.
    Timer {
        flow: u32,
    },
}

/// Bytes to be written to host memory.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub source: Source,
    pub at: u32,
    pub len: u32,
    pub dst: HostAddr,
}

/// A segment to be sent. Addresses and buffer geometry are read from the flow's fixed lines.
#[derive(Clone, Copy, Debug)]
pub struct TxMsg {
    pub tag: Tag,
    pub segment: SegmentOut,
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
    /// The flow has ended and nobody is going to bind it any more: it may be reported without its last event.
    pub given_up: bool,
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
    /// The control stage's mailbox holds the answer; this is its status.
    Answer(u32),
    /// The flow was released: its index is free, and the answer can go.
    Released(FlowId),
    Barrier,
}

/// Output of the protocol stage. `writes` come first; all the rest waits until they and all earlier ones are complete.
#[derive(Clone, Debug)]
pub struct DmaMsg {
    pub tag: Tag,
    pub writes: heapless::Vec<Write, 2>,
    /// The received frame that this came from, to be given back and counted.
    pub frame: Option<RxRef>,
    /// The frame has been counted as dropped.
    pub dropped: bool,
    pub tx: Option<TxMsg>,
    pub event: Option<Event>,
    pub done: Done,
}

/// A frame for the control plane.
#[derive(Clone, Copy, Debug)]
pub struct ExceptionMsg {
    pub frame: RxRef,
    pub reason: Exception,
    /// Give the frame back and count it; false: a copy of a frame that was answered.
    pub owned: bool,
}
