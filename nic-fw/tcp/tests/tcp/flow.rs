//! A flow without a handshake, and a small deterministic random source.

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

/// Where a test's choices come from.
pub trait Choices {
    fn next(&mut self) -> u64;

    /// In `[low, high)`.
    fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low).max(1)
    }

    fn pick<T: Copy, const N: usize>(&mut self, of: [T; N]) -> T {
        of[self.range(0, N as u64) as usize]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.range(0, 100) < percent.into()
    }
}

/// splitmix64.
pub struct Random(pub u64);

impl Choices for Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
