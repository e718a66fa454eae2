//! What operators see of the pipeline: where each stage runs and how busy it is, and the way of single segments through it.
//!
//! ```text
//!   STAGES ──► StageRecord × n     one for each stage instance: core, queue, credits, busy time so far
//!   TRACE  ──► TraceRecord × n     one for each visit of a segment to a stage
//!
//!   rx  (group, number) ──ingress── pre ── protocol ┐ both numbers are in protocol's record
//!   out (group, out)         protocol ── post ── dma ── egress ── ctxq
//! ```

use crate::assert_layout;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A stage instance, as it was when asked. Two records of the same instance give rates: divide by the difference of `clock_ns`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct StageRecord {
    /// [`stage`].
    pub stage: u16,
    /// Which replica, or flow group.
    pub instance: u16,
    /// Core of the placement.
    pub core: u16,
    /// [`stage_flags`].
    pub flags: u16,
    /// CPU that the core is bound to; [`NO_CPU`]: none.
    pub cpu: u32,
    /// Messages that wait in the rings to it.
    pub queue: u32,
    /// Messages that these rings hold at most.
    pub queue_max: u32,
    /// Credits that are free (messages it may still send on), where it gives credits; else 0.
    pub credits: u32,
    pub credits_max: u32,
    pub _reserved: u32,
    /// Messages or frames that it has handled.
    pub items: u64,
    /// Time it was at work, nanoseconds: a sample, scaled up.
    pub busy_ns: u64,
    /// The card's fine clock when this was written, nanoseconds.
    pub clock_ns: u64,
}
assert_layout!(StageRecord, 56, cpu @ 8, items @ 32, clock_ns @ 48);

/// Records in one answer to [`kind::STAGES`](crate::control::kind::STAGES).
pub const STAGES_PER_MSG: usize = 7;
/// In [`StageRecord::cpu`]: the core may run anywhere.
pub const NO_CPU: u32 = u32::MAX;

/// Values of [`StageRecord::stage`] and [`TraceRecord::stage`].
pub mod stage {
    /// Takes frames from the port and numbers them.
    pub const INGRESS: u16 = 0;
    pub const PRE: u16 = 1;
    /// Protocol and scheduler of a flow group.
    pub const PROTOCOL: u16 = 2;
    pub const POST: u16 = 3;
    pub const DMA: u16 = 4;
    /// Lets messages out in order, and sends frames.
    pub const EGRESS: u16 = 5;
    /// Context queues and control messages.
    pub const CTXQ: u16 = 6;
    /// Stages that a placement knows.
    pub const COUNT: u16 = 7;
    /// All of them on one core, by direct calls.
    pub const FUSED: u16 = 7;

    /// Name as operators see it, and as placement files have it.
    pub const fn name(stage: u16) -> Option<&'static str> {
        Some(match stage {
            INGRESS => "ingress",
            PRE => "pre",
            PROTOCOL => "protocol",
            POST => "post",
            DMA => "dma",
            EGRESS => "egress",
            CTXQ => "ctxq",
            FUSED => "fused",
            _ => return None,
        })
    }
}

/// Bits of [`StageRecord::flags`].
pub mod stage_flags {
    /// Its core sleeps.
    pub const ASLEEP: u16 = 1 << 0;
}

/// A segment (or other work) was at a stage.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TraceRecord {
    /// The card's fine clock when the stage was done with it, nanoseconds.
    pub at_ns: u64,
    /// The same when the stage took it up.
    pub begin_ns: u64,
    /// [`stage`].
    pub stage: u8,
    pub instance: u8,
    /// [`trace_kind`].
    pub kind: u8,
    pub core: u8,
    pub group: u16,
    /// Local port of the connection; 0: not known at this stage.
    pub port: u16,
    /// Number on the way in, by group: of [`trace_kind::RX`].
    pub number: u32,
    /// Number on the way out, by group: from protocol on.
    pub out: u32,
    /// Index of the flow; `u32::MAX`: not known yet.
    pub flow: u32,
    /// Sequence number of the segment received or sent, or 0.
    pub seq: u32,
    /// Bytes of payload.
    pub len: u32,
    /// In protocol's records: the stages that it has still to pass, bit n for stage n.
    pub next: u32,
}
assert_layout!(TraceRecord, 48, at_ns @ 0, begin_ns @ 8, stage @ 16, group @ 20, number @ 24);

/// Records in one answer to [`kind::TRACE`](crate::control::kind::TRACE).
pub const TRACES_PER_MSG: usize = 9;

/// Values of [`TraceRecord::kind`].
pub mod trace_kind {
    /// On the way in: `number` counts.
    pub const RX: u8 = 0;
    /// Protocol handled what came in as `number`, and sends it on as `out`. Of segments that it handled as one, `number` is the last.
    pub const RX_OUT: u8 = 1;
    /// Protocol handled a host descriptor, and sends the result on as `out`.
    pub const HC_OUT: u8 = 2;
    /// Protocol let the flow send; the segment goes on as `out`.
    pub const TX_OUT: u8 = 3;
    /// On the way out: `out` counts.
    pub const OUT: u8 = 4;
    /// The context queue stage took a descriptor from an application.
    pub const HC: u8 = 5;
    /// The context queue stage told an application.
    pub const EVENT: u8 = 6;
    /// Protocol handled a host descriptor, and nothing came of it that had to be sent on at once. No `out`.
    pub const HC_DONE: u8 = 7;
}

/// Values of args\[0\] in [`kind::TRACE`](crate::control::kind::TRACE).
pub mod trace_op {
    pub const STOP: u64 = 0;
    pub const START: u64 = 1;
    pub const READ: u64 = 2;
}
