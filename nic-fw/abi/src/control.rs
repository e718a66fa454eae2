//! The control region: toed's own memory, mapped for the card as region 0.
//!
//! ```text
//!   0x0000  ContextPage       indices and sleep flags, as for any context (context 0)
//!   0x1000  ControlMsg  × N   submissions: toed to card      phase as in `desc`
//!           ControlMsg  × N   completions: card to toed
//!           frame ring        exceptions: card to toed       see `frames`
//!           frame ring        packets:    toed to card
//! ```
//!
//! toed writes where it lies into BAR0 ([`crate::regs`]) and enables the card. Each submission
//! is answered by exactly one completion with the same tag and `kind | REPLY`. Completions without a
//! submission (tag 0) are notices: [`kind::FLOW_CLOSED`].
//! Context page words: `hc_*` count submissions, `ev_*` completions; the frame rings carry their own indices.

use crate::{FlowId, assert_layout, flow::FlowState};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a control message.
pub const CONTROL_MSG_LEN: usize = 512;
/// Messages in each of the two queues.
pub const CONTROL_ENTRIES: u32 = 256;
/// Bytes of data in each frame ring (a power of two).
pub const FRAME_RING_LEN: u32 = 1 << 20;

/// Offsets in the control region.
pub const SUBMISSIONS_OFF: u64 = 0x1000;
pub const COMPLETIONS_OFF: u64 = SUBMISSIONS_OFF + CONTROL_ENTRIES as u64 * CONTROL_MSG_LEN as u64;
pub const EXCEPTIONS_OFF: u64 = COMPLETIONS_OFF + CONTROL_ENTRIES as u64 * CONTROL_MSG_LEN as u64;
pub const PACKETS_OFF: u64 = EXCEPTIONS_OFF + crate::frames::RING_HEADER_LEN as u64 + FRAME_RING_LEN as u64;
/// Bytes of the control region.
pub const CONTROL_REGION_LEN: u64 = PACKETS_OFF + crate::frames::RING_HEADER_LEN as u64 + FRAME_RING_LEN as u64;

/// One control message or its answer.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ControlMsg {
    /// [`kind`].
    pub kind: u32,
    /// Chosen by toed, echoed; 0 in notices.
    pub tag: u32,
    /// In answers: [`status`].
    pub status: u32,
    pub _reserved: u32,
    pub flow: FlowId,
    /// Meaning by kind.
    pub args: [u64; 5],
    pub body: [u8; 440],
    pub _reserved2: u32,
    pub phase: u32,
}
assert_layout!(ControlMsg, CONTROL_MSG_LEN, flow @ 16, args @ 24, body @ 64, phase @ 508);

impl ControlMsg {
    /// A message with an empty body.
    pub const fn new(kind: u32, tag: u32) -> Self {
        Self { kind, tag, status: 0, _reserved: 0, flow: FlowId::NONE, args: [0; 5], body: [0; 440], _reserved2: 0, phase: 0 }
    }

    /// The flow state in the body.
    pub fn flow_state(&self) -> FlowState {
        let (bytes, _) = self.body.split_at(size_of::<FlowState>());
        zerocopy::FromBytes::read_from_bytes(bytes).unwrap_or_else(|_| unreachable!("body holds a FlowState"))
    }

    /// Puts a flow state into the body.
    pub fn set_flow_state(&mut self, state: &FlowState) {
        self.body[..size_of::<FlowState>()].copy_from_slice(state.as_bytes());
    }

    /// The counters in the body.
    pub fn counters(&self) -> [u64; COUNTERS_PER_MSG] {
        let mut out = [0; COUNTERS_PER_MSG];
        for (value, bytes) in out.iter_mut().zip(self.body.chunks_exact(8)) {
            *value = u64::from_ne_bytes(bytes.try_into().unwrap_or([0; 8]));
        }
        out
    }

    /// The records at the front of the body: `n` of them, as far as they fit.
    pub fn records<T: FromBytes>(&self, n: usize) -> impl Iterator<Item = T> + '_ {
        self.body.chunks_exact(size_of::<T>()).take(n).filter_map(|bytes| T::read_from_bytes(bytes).ok())
    }

    /// Puts record `i` into the body. False: it does not fit.
    pub fn set_record<T: IntoBytes + Immutable>(&mut self, i: usize, record: &T) -> bool {
        let place = self.body.chunks_exact_mut(size_of::<T>()).nth(i);
        place.map(|bytes| bytes.copy_from_slice(record.as_bytes())).is_some()
    }

    /// Puts counters into the body.
    pub fn set_counters(&mut self, values: &[u64]) {
        for (value, bytes) in values.iter().zip(self.body.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&value.to_ne_bytes());
        }
    }
}

/// Counters in one answer to [`kind::COUNTERS`].
pub const COUNTERS_PER_MSG: usize = 54;

/// Orders in one RATES request, reports in its answer.
pub const RATE_ORDERS_PER_MSG: usize = 27;
pub const RATE_REPORTS_PER_MSG: usize = 11;

/// Part of RATES: the rate of a flow from now on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RateOrder {
    pub flow: FlowId,
    /// 0: unlimited.
    pub rate_kbps: u32,
    pub _reserved: u32,
}
assert_layout!(RateOrder, 16);
const _: () = assert!(RATE_ORDERS_PER_MSG * size_of::<RateOrder>() <= 440);

/// Part of the answer to RATES: how a flow stands whose rate toed sets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RateReport {
    pub flow: FlowId,
    /// Bytes acknowledged since the connection began, mod 2^32, and those of them by ACKs that echoed a congestion mark.
    pub acked: u32,
    pub marked: u32,
    /// Bytes sent and not acknowledged yet.
    pub unacked: u32,
    /// 0: no sample yet.
    pub srtt_us: u32,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
    /// What it is paced at; 0: it is not.
    pub rate_kbps: u32,
    /// [`cc`](crate::flow::cc).
    pub algorithm: u8,
    pub _reserved: [u8; 3],
    /// Payload bytes per segment.
    pub mss: u32,
}
assert_layout!(RateReport, 40);
const _: () = assert!(RATE_REPORTS_PER_MSG * size_of::<RateReport>() <= 440);

/// Kinds of [`ControlMsg`], with their arguments (`a0`.. are `args[0]`..) and answers.
pub mod kind {
    /// Set in the kind of an answer.
    pub const REPLY: u32 = 1 << 31;

    /// a0: region, a1: I/O virtual address, a2: bytes. The memory was mapped before (DMA_MAP).
    pub const MAP_REGION: u32 = 1;
    /// a0: region. Its contexts are closed and its flows reset first. Answered when no core can touch the memory any more.
    pub const UNMAP_REGION: u32 = 2;
    /// a0: context, a1: region, a2: offset of its page, a3: offset of its host-to-card queue | log2(entries) << 56,
    /// a4: the same of its card-to-host queue.
    pub const OPEN_CONTEXT: u32 = 3;
    /// a0: context. What its queue holds by then is read first; flows bound to it become unbound.
    pub const CLOSE_CONTEXT: u32 = 4;
    /// body: FlowState. The answer's `flow` is the new id. status EXISTS: the tuple is installed already.
    /// a0: what the clock that the state's times are of shows, microseconds: the card moves them to its own (`toe_tcp::rebase`);
    /// 0: they are of the card's clock. a1: its rate, as SET_RATE has it.
    /// Answers that bring a state have the card's clock in a0, the flow's rate in a1, and in a2 what it is paced at, which is the pace of its
    /// window if that is less, or if no rate was set.
    pub const INSTALL: u32 = 5;
    /// flow: forget it without a word to the peer. The answer's body has its last state. No FLOW_CLOSED follows.
    pub const RELEASE: u32 = 6;
    /// flow: stop sending and answering; the answer's body has the state, which can be installed elsewhere. RELEASE follows.
    pub const FREEZE: u32 = 7;
    /// flow: reset it. Events and FLOW_CLOSED follow.
    pub const ABORT: u32 = 8;
    /// flow: the last descriptor has gone. Send what is queued, then FIN; discard what arrives
    /// (RST if the application left received data unread, a0 = 1: RFC 2525, 2.17). FLOW_CLOSED follows some time.
    /// a1 = 1: a2 and a3 hold tx_head and rx_tail as the socket slot has them: claims, to be treated as an UPDATE that comes
    /// just before. This message may overtake the UPDATEs in the context's queue, and the last bytes written must not be lost.
    pub const CLOSE: u32 = 9;
    /// flow: the answer's body has its state.
    pub const QUERY: u32 = 10;
    /// a0: flow index to start at. The answer has the first live flow from there on and its state; status NOT_FOUND at the end.
    pub const NEXT_FLOW: u32 = 11;
    /// flow, a0: rate in kbit/s; 0: unlimited.
    pub const SET_RATE: u32 = 12;
    /// flow, a0: context (CtxId::NONE: none), a1: opaque.
    pub const REBIND: u32 = 13;
    /// flow, a0: type << 8 | code of ICMP (what ICMPv6 says is told in the same words), a1: next-hop MTU if any, a2: sequence number quoted.
    pub const ICMP_ERROR: u32 = 14;
    /// a0: index, a1: destination MAC (six bytes, first in the lowest), a2: 1 = valid, 0 = unknown (frames to it are dropped and counted).
    pub const NEXT_HOP: u32 = 15;
    /// body[0..16]: a card's own address, a0: prefix length, a1: 1 = add, 0 = remove, a2: VLAN that the card is on, 0: none.
    /// The card answers ARP, or neighbour solicitations, for it.
    pub const ADDRESS: u32 = 16;
    /// a0: counter to start at. The answer has up to COUNTERS_PER_MSG of them, a0: how many there are in all.
    pub const COUNTERS: u32 = 17;
    /// flow, a0: tx bytes, a1: rx bytes. Not in this version: UNSUPPORTED.
    pub const SET_BUFFERS: u32 = 18;
    /// a0: stage instance to start at. The answer's body has up to [`STAGES_PER_MSG`](crate::observe::STAGES_PER_MSG)
    /// [`StageRecord`](crate::observe::StageRecord)s, a0: how many instances there are in all.
    pub const STAGES: u32 = 19;
    /// a0: [`trace_op`](crate::observe::trace_op). START begins to record, what was recorded before is forgotten. READ: the answer's body
    /// has up to [`TRACES_PER_MSG`](crate::observe::TRACES_PER_MSG) [`TraceRecord`](crate::observe::TraceRecord)s, each once, a0: how many
    /// these are, a1: how many were lost since START because nobody read them in time.
    pub const TRACE: u32 = 20;
    /// a0: region, a1: weight of its flows when they compete with other applications' (1 to 1000, 100 unless set),
    /// a2: most that they send together, kbit/s; 0: unlimited. Forgotten when the region is unmapped.
    pub const SET_SHARE: u32 = 21;
    /// flow, a0: congestion-control algorithm, [`cc`](crate::flow::cc). What another one had learnt is forgotten, cwnd and ssthresh stay.
    pub const SET_CC: u32 = 22;
    /// Of flows whose rate toed sets ([`cc::is_rate`](crate::flow::cc::is_rate)). a0: flow group (from 0), a1: how many
    /// [`RateOrder`](super::RateOrder)s the body has, of flows of this group. The answer's body has up to
    /// [`RATE_REPORTS_PER_MSG`](super::RATE_REPORTS_PER_MSG) [`RateReport`](super::RateReport)s of flows of this group whose peer
    /// has acknowledged something since they were last in an answer, a0: how many these are, a1: how many flow groups the card has.
    pub const RATES: u32 = 23;

    /// Notice: a flow has ended and its buffers are free. flow; a0: [`close_reason`](super::close_reason); a1: the card's clock,
    /// microseconds; body: last state.
    /// Its last event has been posted before. A flow that is bound to no context (not accepted yet) and was not given up by
    /// CLOSE, ABORT or UNMAP_REGION waits for a REBIND to post it, so that who accepts it learns how it ended.
    /// Its id stays reserved until toed has consumed the notice.
    pub const FLOW_CLOSED: u32 = 64;
}

/// Values of [`ControlMsg::status`].
pub mod status {
    pub const OK: u32 = 0;
    /// An argument is out of range.
    pub const INVALID: u32 = 1;
    /// No such flow, region or context (or an old generation).
    pub const NOT_FOUND: u32 = 2;
    pub const EXISTS: u32 = 3;
    /// A table is full.
    pub const NO_SPACE: u32 = 4;
    pub const UNSUPPORTED: u32 = 5;
}

/// Why a flow ended.
pub mod close_reason {
    /// Both sides sent FIN; we were second (LAST-ACK): nothing is left to do.
    pub const DONE: u32 = 0;
    /// Both sides sent FIN; we were first: toed keeps TIME-WAIT.
    pub const TIME_WAIT: u32 = 1;
    /// The peer sent RST.
    pub const RESET: u32 = 2;
    /// Retransmissions or keep-alives went unanswered.
    pub const TIMEOUT: u32 = 3;
    /// ABORT by toed or the application; RST was sent.
    pub const ABORTED: u32 = 4;
    /// Its region was unmapped; RST was sent.
    pub const REGION_GONE: u32 = 5;
}
