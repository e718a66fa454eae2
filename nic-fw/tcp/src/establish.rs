//! A flow as the handshake leaves it.

use crate::receive::QUICKACKS;
use crate::{Now, cc};
use toe_abi::flow::{CcState, FlowKey, FlowState, Identity, RxState, TxState, flow_flags as ff, tcp_state, timer};
use toe_abi::{CtxId, RegionId};
use toe_wire::SeqNum;

/// Timestamps as negotiated (RFC 7323, 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timestamping {
    /// The peer's latest TSval.
    pub recent: u32,
    /// What was added to our milliseconds to give the TSval of our SYN.
    pub offset: u32,
}

/// Everything that INSTALL fixes, and where the sequence numbers stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    pub key: FlowKey,
    pub region: RegionId,
    pub ctx: CtxId,
    pub opaque: u32,
    pub next_hop: u16,
    /// 802.1Q tag or 0.
    pub vlan: u16,
    pub ttl: u8,
    pub tos: u8,
    /// Offset of the transmit buffer in the region, bytes, a multiple of 64; and log2 of its bytes.
    pub tx_off: u64,
    pub tx_buf_log2: u8,
    /// The same of the receive buffer.
    pub rx_off: u64,
    pub rx_buf_log2: u8,
    /// Initial sequence numbers, of our SYN and the peer's.
    pub iss: SeqNum,
    pub irs: SeqNum,
    /// The peer's window, bytes: already scaled.
    pub snd_wnd: u32,
    /// Shift of the peer's windows; 0 if window scaling was not negotiated.
    pub snd_wscale: u8,
    /// Window that our SYN or SYN-ACK offered, bytes.
    pub rcv_wnd: u32,
    /// Shift of our windows; 0 if window scaling was not negotiated.
    pub rcv_wscale: u8,
    /// Payload bytes per segment: the peer's MSS or our MTU's, whichever is less, less the options sent with every segment.
    pub mss: u16,
    pub timestamps: Option<Timestamping>,
    pub sack: bool,
    pub ecn: bool,
    /// [`toe_abi::flow::cc`].
    pub algorithm: u8,
    /// Minimum RTO; 0: the default of 200 ms.
    pub rto_min_ms: u16,
    /// Round-trip time of the handshake, microseconds, if it was not retransmitted; 0: unknown.
    pub rtt_us: u32,
    /// The final ACK of the handshake is ours to send.
    pub ack_now: bool,
    /// On the clock that [`input`](crate::input) will be called with.
    pub now: Now,
}

/// Of a type of service, the bits that are ECN's.
pub(crate) const TOS_ECN: u8 = 3;
/// Minimum RTO by default (as in Linux; RFC 6298 wants 1 s).
// RFC 1122 4.2.3.1-2.
const RTO_MIN_MS: u16 = 200;

/// The state of a flow whose handshake has just been completed.
#[must_use]
/// RFC 7323 3.2-7.
pub fn establish(setup: &Setup) -> FlowState {
    let mut flags = 0;
    for (set, bit) in
        [(setup.timestamps.is_some(), ff::TIMESTAMPS), (setup.sack, ff::SACK), (setup.ecn, ff::ECN), (setup.ack_now, ff::ACK_NOW)]
    {
        flags |= if set { bit } else { 0 };
    }
    let mut s = FlowState {
        id: Identity {
            key: setup.key,
            region: setup.region,
            ctx: setup.ctx,
            opaque: setup.opaque,
            next_hop: setup.next_hop,
            vlan: setup.vlan,
            ttl: setup.ttl,
            tos: setup.tos & !TOS_ECN,
            reo_wnd_more: 0,
            reo_wnd_persist: 0,
            retransmits: 0,
            prior_cwnd: 0,
            prior_ssthresh: 0,
        },
        rx: rx_state(setup, flags),
        tx: tx_state(setup),
        cc: CcState {
            cwnd: 0,
            ssthresh: 0,
            // RFC 6582 3.2-1.
            recover: setup.iss.0,
            algorithm: setup.algorithm,
            timers: 0,
            challenges: 0,
            challenge_epoch: 0,
            words: [0; 4],
            ooo: [[0; 3]; 2],
            ooo_more: 0,
            sent: 0,
        },
    };
    cc::init(&mut s);
    if setup.rtt_us > 0 {
        crate::rtt::sample(&mut s, setup.rtt_us);
    }
    s
}

fn rx_state(setup: &Setup, flags: u32) -> RxState {
    let ms = setup.now.ms32();
    let rcv_nxt = setup.irs.add(1);
    RxState {
        buf: (setup.rx_off / 64) as u32,
        buf_log2: setup.rx_buf_log2.min(30),
        wscale: setup.rcv_wscale.min(14),
        mss: setup.mss.max(1),
        irs: setup.irs.0,
        rcv_nxt: rcv_nxt.0,
        rcv_adv: rcv_nxt.add(setup.rcv_wnd.min(1 << setup.rx_buf_log2.min(30))).0,
        rx_tail: 0,
        ts_recent: setup.timestamps.map_or(0, |t| t.recent),
        last_tx_ms: ms,
        last_ack_sent: rcv_nxt.0,
        fin_seq: 0,
        flags,
        state: tcp_state::ESTABLISHED,
        delack_segs: 0,
        quickack: QUICKACKS,
        soft_error: 0,
        delack_ms: 0,
        last_rx_ms: ms,
        ts_offset: setup.timestamps.map_or(0, |t| t.offset),
        snd_sml: setup.iss.add(1).0,
    }
}

fn tx_state(setup: &Setup) -> TxState {
    let first = setup.iss.add(1).0;
    let rto_min_ms = if setup.rto_min_ms == 0 { RTO_MIN_MS } else { setup.rto_min_ms };
    TxState {
        buf: (setup.tx_off / 64) as u32,
        buf_log2: setup.tx_buf_log2.min(30),
        wscale: setup.snd_wscale.min(14),
        backoff: 0,
        dup_acks: 0,
        iss: setup.iss.0,
        snd_una: first,
        snd_nxt: first,
        snd_max: first,
        snd_wnd: setup.snd_wnd,
        snd_wl1: setup.irs.0,
        snd_wl2: first,
        tx_head: 0,
        srtt_us: 0,
        rttvar_us: 0,
        timer_ms: 0,
        timer: timer::NONE,
        rto_min_4ms: rto_min_ms.div_ceil(4).min(255) as u8,
        max_wnd_log2: crate::state::log2_up(setup.snd_wnd),
        probes: 0,
        min_rtt_us: 0,
        board: 0,
    }
}

/// Moves a flow from a clock that shows `from` to one that shows `to` at the same moment: a state that came by INSTALL
/// from another machine. Timestamps that the peer sees go on.
pub fn rebase(s: &mut FlowState, from: Now, to: Now) {
    let ms = to.ms32().wrapping_sub(from.ms32());
    for time in [&mut s.rx.delack_ms, &mut s.rx.last_rx_ms, &mut s.rx.last_tx_ms, &mut s.tx.timer_ms] {
        *time = time.wrapping_add(ms);
    }
    s.rx.ts_offset = s.rx.ts_offset.wrapping_sub(ms);
    for interval in &mut s.cc.ooo {
        interval[2] = interval[2].wrapping_add(to.us32().wrapping_sub(from.us32()));
    }
    cc::shift_clock(s, ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::setup;

    #[test]
    fn buffers_count_in_units_of_64_bytes_and_ecn_is_no_part_of_the_type_of_service() {
        let s = establish(&Setup { tx_off: 640, rx_off: 1 << 20, tos: 0xff, ..setup() });
        assert_eq!((s.tx.buf, s.rx.buf, s.id.tos), (10, 1 << 14, 0xfc));
    }
}
