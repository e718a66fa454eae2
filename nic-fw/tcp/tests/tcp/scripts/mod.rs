//! Single segments and what comes back. One name per case, after the RFC's rule.

use crate::flow::setup;
use toe_abi::desc::hc_flags;
use toe_abi::flow::FlowState;
use toe_tcp::*;
use toe_wire::{SackBlocks, SeqNum, TcpFlags, Timestamps};

mod closing;
mod dctcp;
mod moving;
mod options;
mod receiving;
mod recovery;
mod sending;

const A: TcpFlags = TcpFlags::ACK;
/// First sequence numbers of ours and the peer's data.
const TX: u32 = 1001;
const RX: u32 = 5001;
const MSS: u32 = 1000;

/// A flow, a clock, and what it sent last.
struct Script {
    s: FlowState,
    pools: Pools,
    now_us: u64,
}

fn seg(seq: u32, ack: u32, flags: TcpFlags, payload_len: u32) -> SegmentIn {
    SegmentIn {
        seq: SeqNum(seq),
        ack: SeqNum(ack),
        flags,
        window: 60_000,
        urgent: 0,
        payload_len,
        timestamps: None,
        sack: SackBlocks::default(),
        ce: false,
        segments: 1,
    }
}

impl Script {
    fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = setup();
        change(&mut setup);
        let mut s = establish(&setup);
        s.rx.quickack = 0;
        Self { s, pools: Pools::new(64, 4), now_us: 1_000_000 }
    }

    fn new() -> Self {
        Self::with(|_| ())
    }

    fn now(&self) -> Now {
        Now(self.now_us)
    }

    fn input(&mut self, event: Input) -> Output {
        let now = self.now();
        input(&mut self.s, &mut self.pools, &event, now)
    }

    fn segment(&mut self, seg: SegmentIn) -> Output {
        self.input(Input::Segment(seg))
    }

    fn host(&mut self, tx_head: u32, rx_tail: u32, flags: u32) -> Output {
        self.input(Input::Host(HostUpdate { tx_head, rx_tail, flags, urgent: 0 }))
    }

    fn emit(&mut self) -> Option<SegmentOut> {
        let now = self.now();
        emit(&mut self.s, &mut self.pools, now, MSS)
    }

    fn emit_all(&mut self) -> Vec<SegmentOut> {
        std::iter::from_fn(|| self.emit()).collect()
    }

    /// Waits for the next deadline and lets it expire.
    fn expire(&mut self) -> Output {
        let due = next_deadline(&self.s, self.now()).expect("a timer runs");
        self.now_us = due.0;
        self.input(Input::Timer)
    }

    fn expire_and_emit(&mut self) -> SegmentOut {
        let _ = self.expire();
        self.emit().expect("a segment")
    }

    /// Writes `bytes` and sends what may be sent.
    fn write(&mut self, bytes: u32) -> Vec<SegmentOut> {
        let (head, tail) = (self.s.tx.tx_head + bytes, self.s.rx.rx_tail);
        let _ = self.host(head, tail, hc_flags::NODELAY);
        self.emit_all()
    }
}

fn ranges(segments: &[SegmentOut]) -> Vec<(u32, u32)> {
    segments.iter().map(|s| (s.pos, s.len)).collect()
}

fn stamped(seg: SegmentIn, val: u32, ecr: u32) -> SegmentIn {
    SegmentIn { timestamps: Some(Timestamps { val, ecr }), ..seg }
}

fn with_timestamps() -> Script {
    Script::with(|s| s.timestamps = Some(Timestamping { recent: 100, offset: 7 }))
}
