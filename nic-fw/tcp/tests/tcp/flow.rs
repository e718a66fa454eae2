//! A flow without a handshake.

use toe_abi::flow::{FlowKey, cc, v4_mapped};
use toe_abi::{CtxId, RegionId};
use toe_tcp::{Now, Setup};
use toe_wire::SeqNum;

pub fn setup() -> Setup {
    Setup {
        key: FlowKey { local_ip: v4_mapped([10, 0, 0, 1]), remote_ip: v4_mapped([10, 0, 0, 2]), local_port: 80, remote_port: 4000 },
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
        iss: SeqNum(1000),
        irs: SeqNum(5000),
        snd_wnd: 65_535,
        snd_wscale: 0,
        rcv_wnd: 65_535,
        rcv_wscale: 0,
        mss: 1000,
        timestamps: None,
        sack: false,
        ecn: false,
        algorithm: cc::NEWRENO,
        rto_min_ms: 0,
        rtt_us: 1000,
        ack_now: false,
        now: Now(1_000_000),
    }
}
