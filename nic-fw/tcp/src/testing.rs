//! Flows for tests.

use crate::{Now, Pools, Setup, establish};
use toe_abi::flow::{FlowKey, FlowState};
use toe_abi::{CtxId, RegionId};
use toe_wire::SeqNum;

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
    Pools::new(64)
}

/// 64 KiB buffers, no options, nothing sent or received.
pub(crate) fn flow() -> FlowState {
    establish(&setup())
}
