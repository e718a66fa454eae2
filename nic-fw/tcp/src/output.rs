//! Segments without payload, and what every outgoing segment says of the receiving side.

use crate::sack::Range;
use crate::state::View;
use crate::{Now, Pools, SegmentOut, ooo};
use toe_abi::flow::{FlowState, flow_flags as ff};
use toe_wire::{SackBlocks, SeqNum, TcpFlags, Timestamps};

/// The slowest timestamp clock that ticks once for each 2^31 bytes, up to 268 Gbit/s (RFC 7323, 5.4), milliseconds.
pub(crate) const SLOW_TICK_MS: u32 = 64;

/// Ticks of the timestamp clock of a flow, milliseconds: a power of two.
///
/// A receiver that keeps to RFC 7323, 5.3 drops what a retransmission has overtaken (PAWS), if it is older than that by a tick or two. So where
/// segments overtake each other, each recovery would make the losses for the next one, and goodput sank to a third: there the clock ticks
/// as slowly as it may. That is seen by SACK, and with SACK round trips are measured by this clock only where records of what was sent ran out.
/// RFC 7323 5.4-1, 5.4-2.
pub(crate) fn ts_tick_ms(s: &FlowState) -> u32 {
    if s.has(ff::REORDERED) { SLOW_TICK_MS } else { 1 }
}

/// Our timestamp clock: milliseconds from where the handshake's began (RFC 7323, 5.4). Ticks are rounded up, so that it does not go back when they
/// become longer.
/// RFC 7323 4.1-1, 5.4-3.
pub fn ts_now(s: &FlowState, now: Now) -> u32 {
    now.ms32().wrapping_add(s.rx.ts_offset) | (ts_tick_ms(s) - 1)
}

/// The window that the application has made room for, if it is worth telling: RFC 9293, 3.8.6.2.2
/// (silly window syndrome, receiver): by at least half the buffer or a segment.
/// RFC 9293 MUST-39.
fn new_edge(s: &FlowState) -> SeqNum {
    let gain = s.rcv_edge().since_or_zero(s.rcv_adv());
    if gain >= (s.rx_size() / 2).min(s.mss()) { s.rcv_edge() } else { s.rcv_adv() }
}

/// The most that the window field can say of a window: a multiple of its unit, and 16 bits of it.
/// RFC 7323 2.3-6.
pub(crate) fn sayable(s: &FlowState, window: u32) -> u32 {
    let shift = s.rx.wscale.min(14);
    (window >> shift).min(u16::MAX.into()) << shift
}

/// The window field of a segment sent now; what it promises is kept in rcv_adv.
/// RFC 9293 MAY-8.
fn advertise(s: &mut FlowState) -> u16 {
    // What was promised before and is now cut off by rounding is accepted still: rcv_adv never moves left (RFC 9293, 3.8.6).
    let window = sayable(s, new_edge(s).since_or_zero(s.rcv_nxt()));
    let edge = s.rcv_nxt().add(window);
    // RFC 9293 SHLD-14, 3.10.7.4-31; RFC 7323 2.4-2, 2.4-3.
    s.rx.rcv_adv = s.rcv_adv().max(edge).0;
    (window >> s.rx.wscale.min(14)) as u16
}

/// A segment at `seq` that acknowledges everything received: no ACK is owed once it is sent.
/// RFC 9293 3.10.7.4-32.
pub(crate) fn segment(s: &mut FlowState, now: Now, seq: SeqNum) -> SegmentOut {
    let window = advertise(s);
    s.rx.last_ack_sent = s.rx.rcv_nxt;
    s.rx.delack_segs = 0;
    s.clear(ff::DELACK_ARMED | ff::ACK_NOW);
    let mut flags = TcpFlags::ACK;
    // RFC 3168, 6.1.3: in every ACK until CWR comes.
    flags.set(TcpFlags::ECE, s.has(ff::ECE));
    // RFC 7323 3.2-2, 3.2-3, 3.2-6.
    let timestamps = s.has(ff::TIMESTAMPS).then(|| Timestamps { val: ts_now(s, now), ecr: s.rx.ts_recent });
    SegmentOut {
        seq,
        ack: s.rcv_nxt(),
        flags,
        window,
        urgent: 0,
        pos: s.tx_pos(seq),
        len: 0,
        mss: s.rx.mss,
        timestamps,
        sack: SackBlocks::default(),
        ect: false,
        rexmit: false,
    }
}

/// The sequence number of a segment without data. Beyond everything sent: a receiver takes it whatever has been lost; but no further than its
/// window, if that has shrunk by more than rounding can explain (as in Linux).
fn acceptable_seq(s: &FlowState) -> SeqNum {
    let edge = s.snd_edge();
    if s.snd_max().since_or_zero(edge) >> s.tx.wscale.min(14) == 0 { s.snd_max() } else { edge }
}

/// A pure ACK, with SACK blocks where there are holes (RFC 2018, 4).
pub(crate) fn ack(s: &mut FlowState, pools: &Pools, now: Now) -> SegmentOut {
    ack_for(s, pools, None, None, now)
}

/// The ACK of a segment that was received before.
pub(crate) fn ack_again(s: &mut FlowState, pools: &Pools, again: Option<Range>, now: Now) -> SegmentOut {
    ack_for(s, pools, again, None, now)
}

/// The ACK of a segment that begins at `latest`, of which `again` was received before.
/// RFC 2883 4-4, 4-5.
pub(crate) fn ack_for(s: &mut FlowState, pools: &Pools, again: Option<Range>, latest: Option<SeqNum>, now: Now) -> SegmentOut {
    let seq = acceptable_seq(s);
    let mut out = segment(s, now, seq);
    // RFC 2018 4-1, 4-3, 4-7.
    if s.has(ff::SACK) && (s.has_holes() || again.is_some()) {
        // Three blocks and timestamps fill the 40 bytes of options.
        let room = if s.has(ff::TIMESTAMPS) { 3 } else { SackBlocks::MAX };
        // RFC 2883, 4: (1) the first block reports the duplicate, (5) the next one the block that it lies in.
        // RFC 2883 4-1, 4-4, 4-5.
        if let Some((start, end)) = again {
            out.sack.push(start, end);
        }
        ooo::report(s, pools, latest.or(again.map(|(start, _)| start)), room, &mut out.sack);
    }
    out
}

/// RST that the peer takes at once (RFC 5961, 3.2: its sequence number must be exact).
/// RFC 7323 5.2-4.
pub(crate) fn reset(s: &mut FlowState, now: Now) -> SegmentOut {
    let seq = acceptable_seq(s);
    let mut out = segment(s, now, seq);
    out.flags = TcpFlags::RST | TcpFlags::ACK;
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;

    /// RFC 7323 5.4-1, 5.4-2.
    #[test]
    fn where_segments_overtake_each_other_timestamps_tick_slowly_and_never_go_back() {
        let at = |s: &FlowState, ms: u64| ts_now(s, Now(ms * 1000));
        let mut s = flow();
        s.rx.ts_offset = 0u32.wrapping_sub(200);
        assert_eq!([0, 1, 70, 210].map(|ms| at(&s, ms)), [0, 1, 70, 210].map(|ms| s.rx.ts_offset.wrapping_add(ms)));
        let before = at(&s, 210);
        s.set(ff::REORDERED);
        assert!([210, 263].iter().all(|&ms| at(&s, ms) == 63), "one tick, wherever it begins in it");
        assert_eq!((at(&s, 263 + 1), at(&s, 199), before), (127, u32::MAX, 10));
    }

    /// RFC 9293 MUST-39.
    #[test]
    fn a_gain_of_a_segment_or_of_half_the_buffer_is_worth_telling() {
        let told = |buf_log2, mss, gain| {
            let mut s = flow();
            (s.rx.buf_log2, s.rx.mss) = (buf_log2, mss);
            s.rx.rcv_adv = s.rcv_edge().sub_len(gain).0;
            new_edge(&s) == s.rcv_edge()
        };
        assert!(!told(12, 1460, 1459) && told(12, 1460, 1460));
        assert!(!told(12, 9000, 2047) && told(12, 9000, 2048));
    }
}
