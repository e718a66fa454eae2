//! Flows for tests.

use crate::records::Record;
use crate::state::View;
use crate::{Now, Pools, SegmentIn, Setup, board, establish};
use toe_abi::flow::{FlowKey, FlowState};
use toe_abi::{CtxId, RegionId};
use toe_wire::{SackBlocks, SeqNum, TcpFlags};

pub(crate) const ISS: SeqNum = SeqNum(1000);
pub(crate) const IRS: SeqNum = SeqNum(5000);

pub(crate) fn setup() -> Setup {
    Setup {
        key: FlowKey::default(),
        region: RegionId(1),
        ctx: CtxId(1),
        opaque: 0,
        next_hop: 0,
        vlan: 0,
        ttl: 64,
        tos: 0,
        tx_off: 0,
        tx_buf_log2: 16,
        rx_off: 1 << 16,
        rx_buf_log2: 16,
        iss: ISS,
        irs: IRS,
        snd_wnd: 65_535,
        snd_wscale: 0,
        rcv_wnd: 65_535,
        rcv_wscale: 0,
        mss: 1460,
        timestamps: None,
        sack: false,
        ecn: false,
        algorithm: toe_abi::flow::cc::NEWRENO,
        rto_min_ms: 0,
        rtt_us: 0,
        ack_now: false,
        now: Now(0),
    }
}

pub(crate) fn pools() -> Pools {
    Pools::new(64, 4)
}

/// 64 KiB buffers, no options, nothing sent or received.
pub(crate) fn flow() -> FlowState {
    establish(&setup())
}

/// A segment that says nothing new.
pub(crate) fn ack(s: &FlowState) -> SegmentIn {
    SegmentIn {
        seq: s.rcv_nxt(),
        ack: s.snd_una(),
        flags: TcpFlags::ACK,
        window: 65_535,
        urgent: 0,
        payload_len: 0,
        timestamps: None,
        sack: SackBlocks::default(),
        ce: false,
        segments: 1,
    }
}

/// A flow with a scoreboard, and a record of 1000 bytes for each of these times (microseconds) and marks.
pub(crate) fn flow_of(records: &[(u32, u8)]) -> (FlowState, Pools) {
    let (mut s, mut pools) = (flow(), Pools::new(2000, 4));
    for &(us, _) in records {
        let (start, end) = (s.snd_max(), s.snd_max().add(1000));
        assert!(pools.push(&mut s.cc.sent, Record { start, end, us, marks: 0 }));
        (s.tx.snd_nxt, s.tx.snd_max) = (end.0, end.0);
    }
    assert!(board::open(&mut s, &mut pools));
    let mut at = pools.records.first(s.cc.sent);
    for &(_, marks) in records {
        board::set_marks(&s, &mut pools, at, marks);
        at = pools.records.next(s.cc.sent, at);
    }
    assert!(board::is_sound(&s, &pools));
    (s, pools)
}
