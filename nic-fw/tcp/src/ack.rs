//! What a segment acknowledges; the peer's window; and recovery without a scoreboard: fast retransmit, NewReno (RFC 5681, RFC 6582).

use crate::state::{View, log2_up};
use crate::{Now, Output, Pools, SegmentIn, board, cc, closing, input, records, recovery, rtt};
use toe_abi::counters::{Counter, Drop};
use toe_abi::flow::{FlowState, flow_flags as ff, timer};
use toe_wire::{SeqNum, TcpFlags};

/// Duplicate ACKs that mean a loss (RFC 5681, 3.2).
// RFC 5681 3.2-3.
const DUP_ACKS: u8 = 3;

/// RFC 5961, 5.2: acknowledgements of what was never sent, or far in the past, are dropped with an ACK. What lies before the first byte was
/// never sent (as in Linux): else who guesses has a window's worth of numbers to hit on a fresh connection.
/// RFC 9293 MAY-12, 3.10.7.4-18, 3.10.7.4-19, 3.10.7.4-23; RFC 5961 5.2-1, 5.2-2, 5.2-3.
pub(crate) fn validate(s: &mut FlowState, pools: &Pools, seg: &SegmentIn, now: Now, out: &mut Output) -> bool {
    // Acknowledged so far, modulo 2^32: after each 4 GiB, for a window, what was overtaken by newer acknowledgements has to come again.
    let acked = s.snd_una().since(SeqNum(s.tx.iss).add(1));
    let oldest = s.snd_una().sub_len(s.max_snd_wnd().min(acked));
    if seg.ack.ge(oldest) && seg.ack.le(s.snd_max()) {
        return true;
    }
    out.drop = Some(Drop::BadAck);
    input::challenge(s, pools, now, out);
    false
}

/// RFC 9293 MUST-1, REC-1; RFC 7323 2.3-5.
fn window_of(s: &FlowState, seg: &SegmentIn) -> u32 {
    u32::from(seg.window) << s.tx.wscale.min(14)
}

/// Takes the peer's window if the segment is newer than the one it came with (RFC 9293, 3.10.7.4).
/// RFC 9293 3.10.7.4-24.
pub(crate) fn update_window(s: &mut FlowState, seg: &SegmentIn) {
    let window = window_of(s, seg);
    let (wl1, wl2) = (SeqNum(s.tx.snd_wl1), SeqNum(s.tx.snd_wl2));
    // Segments that differ in nothing but the window may have overtaken each other. A receiver does not take back what it
    // offered (RFC 9293, 3.8.6), so the larger is the newer; unless it lets our data time out.
    // What acknowledges more is newer, though its data was sent before (as in Linux).
    let newer = wl1.lt(seg.seq)
        || seg.ack.gt(s.snd_una())
        || (wl1 == seg.seq && (wl2.lt(seg.ack) || (wl2 == seg.ack && (window >= s.tx.snd_wnd || window == 0 || s.tx.backoff > 0))));
    if newer {
        s.tx.snd_wl1 = seg.seq.max(wl1).0;
        s.tx.snd_wl2 = seg.ack.0;
        if window != s.tx.snd_wnd {
            s.tx.snd_wnd = window;
            s.tx.max_wnd_log2 = s.tx.max_wnd_log2.max(log2_up(window));
        }
    }
}

/// A validated acknowledgement on the slow path.
pub(crate) fn process(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, now: Now, out: &mut Output) {
    if seg.ack.lt(s.snd_una()) {
        return overtaken(s, pools, seg, now, out);
    }
    // RFC 5681, 2, "duplicate acknowledgment": (a) to (e). SYN never comes here.
    let repeats = seg.ack == s.snd_una() && seg.payload_len == 0 && !seg.flags.contains(TcpFlags::FIN) && window_of(s, seg) == s.tx.snd_wnd;
    update_window(s, seg);
    end_of_mark(s, seg.ack);
    congestion_echo(s, seg);
    let missing = s.tx.board != 0 || s.has(ff::SACK) && !seg.sack.is_empty();
    if missing && board::open(s, pools) {
        return recovery::on_ack(s, pools, seg, repeats, now, out);
    }
    if seg.ack.gt(s.snd_una()) {
        advance(s, pools, seg, now, out);
    } else if repeats && s.outstanding() > 0 && (missing || !(s.has(ff::SACK) && records::is_complete(s, pools))) {
        // RFC 6675, 2: from a peer with SACK, only what brings news of SACK is a duplicate ACK. (Here it does, but there is no scoreboard left.)
        // RFC 3042 2-3; RFC 5681 3.2-6.
        duplicate_ack(s, pools, out);
    }
}

/// An ACK that a later one has overtaken: what it says of SACK nothing else may say, a D-SACK comes once (as in Linux).
/// RFC 6675 5-1; RFC 2883 5-1.
fn overtaken(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, now: Now, out: &mut Output) {
    if s.tx.board != 0 && s.has(ff::SACK) && !seg.sack.is_empty() {
        recovery::on_ack(s, pools, seg, false, now, out);
    }
}

/// ECN echo from the peer (RFC 3168, 6.1.2): reduce once per window of data.
/// RFC 9293 SHLD-8; RFC 3168 6.1.1-5.
fn congestion_echo(s: &mut FlowState, seg: &SegmentIn) {
    if !s.has(ff::ECN) || !seg.flags.contains(TcpFlags::ECE) || s.outstanding() == 0 {
        return;
    }
    if s.has(ff::RECOVERY | ff::LOSS) {
        // This window has been reduced already, and for congestion, whether there was a loss or not.
        cc::stand(s);
    } else if !s.has(ff::ECN_REDUCED) {
        let flight = s.outstanding();
        cc::on_ecn(s, flight);
        s.cc.recover = s.tx.snd_max;
        s.set(ff::ECN_REDUCED | ff::CWR);
    }
}

/// Moves snd_una to the segment's acknowledgement, which lies beyond it. There is no scoreboard.
/// RFC 9293 3.10.7.4-22.
pub(crate) fn advance(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, now: Now, out: &mut Output) {
    let flight = s.snd_nxt().since_or_zero(s.snd_una());
    // What was sent again is not among the records.
    let untimed = !records::is_timed(s, pools) || s.has(ff::RECOVERY | ff::LOSS);
    let measured = records::acked(s, pools, seg.ack, now).is_some();
    let echoed = untimed && rtt::echoed(s, seg.timestamps, now);
    if !measured && !echoed {
        rtt::keep_backoff(s, pools);
    }
    let bytes = move_una(s, seg.ack, out);
    let ece = seg.flags.contains(TcpFlags::ECE);
    cc::on_delivered(s, bytes, ece);
    recover(s, seg.ack, bytes, flight, ece, now);
    if s.has(ff::FIN_ACKED) {
        closing::fin_acked(s, out);
    }
}

/// `ack` lies beyond snd_una. Gives how many sequence numbers it acknowledges.
pub(crate) fn move_una(s: &mut FlowState, ack: SeqNum, out: &mut Output) -> u32 {
    let bytes = ack.since(s.snd_una());
    s.tx.snd_una = ack.0;
    s.tx.snd_nxt = s.snd_nxt().max(ack).0;
    s.tx.backoff = 0;
    // RFC 6675 5-2.
    s.tx.dup_acks = 0;
    // RFC 6298, 5.3: restart the timer; rearm() starts it anew if something is left.
    // RFC 6582 3.2-5.
    s.tx.timer = timer::NONE;
    out.notify = true;
    if s.has(ff::FIN_SENT) && ack == s.tx_end().add(1) {
        s.set(ff::FIN_ACKED);
    }
    bytes
}

/// What a new acknowledgement means for recovery and cwnd.
fn recover(s: &mut FlowState, ack: SeqNum, bytes: u32, flight: u32, ece: bool, now: Now) {
    let recovered = ack.ge(SeqNum(s.cc.recover));
    end_of_mark(s, ack);
    if s.has(ff::RECOVERY) {
        if recovered {
            // RFC 6582, 3.2, (3), full acknowledgement: deflate.
            let flight = s.outstanding();
            // RFC 5681 3.2-13, 4.3-3; RFC 6582 3.2-3.
            s.cc.cwnd = s.cc.ssthresh.min(flight.max(s.mss()) + s.mss());
            s.clear(ff::RECOVERY | ff::REXMIT_ONE);
            s.cc.recover = ack.sub_len(1).0;
        } else {
            // RFC 6582 3.2-4, partial acknowledgement: the next hole begins here.
            s.set(ff::REXMIT_ONE);
            let deflated = s.cc.cwnd.saturating_sub(bytes);
            let back = if bytes >= s.mss() { s.mss() } else { 0 };
            s.cc.cwnd = (deflated + back).max(s.mss());
        }
        return;
    }
    if s.has(ff::LOSS) && recovered {
        s.clear(ff::LOSS);
    }
    s.clear(ff::REXMIT_ONE);
    grow(s, bytes, flight, ece, now);
    pull_recover(s);
}

/// Once something beyond the window that was reduced for a mark has arrived, the peer has seen CWR: only then does its echo tell of another mark (as in
/// Linux).
fn end_of_mark(s: &mut FlowState, ack: SeqNum) {
    if ack.gt(SeqNum(s.cc.recover)) {
        s.clear(ff::ECN_REDUCED);
    }
}

/// `bytes` were acknowledged outside recovery. `flight`: bytes in flight before.
pub(crate) fn grow(s: &mut FlowState, bytes: u32, flight: u32, ece: bool, now: Now) {
    // RFC 3168, 6.1.2: no increase for an ACK that echoes a mark; nor, as in Linux, while the window that was marked is in flight.
    // RFC 3168 6.1.2-2.
    let marked = s.has(ff::ECN_REDUCED) || s.has(ff::ECN) && ece;
    if !marked {
        cc::on_ack(s, bytes, flight, now);
    }
}

/// A recovery point that is old enough to be mistaken for the future is pulled along.
pub(crate) fn pull_recover(s: &mut FlowState) {
    let una = s.snd_una();
    if !s.has(ff::RECOVERY | ff::LOSS | ff::ECN_REDUCED) && una.since(SeqNum(s.cc.recover)) > 1 << 30 {
        s.cc.recover = una.sub_len(1).0;
    }
}

fn duplicate_ack(s: &mut FlowState, pools: &mut Pools, out: &mut Output) {
    // After a timeout, duplicates answer what we have sent again needlessly.
    if s.has(ff::LOSS) {
        return;
    }
    s.tx.dup_acks = s.tx.dup_acks.saturating_add(1);
    if s.has(ff::RECOVERY) {
        // RFC 5681, 3.2, (4): one segment has left the network. No more can have left than were in it.
        // RFC 5681 3.2-10, 3.2-11, 3.2-12.
        let most = s.cc.ssthresh.saturating_add(s.outstanding());
        s.cc.cwnd = s.cc.cwnd.saturating_add(s.mss()).min(most.max(s.cc.cwnd));
    } else if s.tx.dup_acks == DUP_ACKS && (s.snd_una().gt(SeqNum(s.cc.recover)) || s.has(ff::ECN_REDUCED)) {
        // RFC 6582 3.2-2.
        enter_recovery(s, pools, out);
    }
}

/// Fast retransmit (RFC 6582, 3.2, (2)).
/// RFC 5681 3.2-7, 3.2-9, 4.3-1, 4.3-2; RFC 9438 4.6-1.
fn enter_recovery(s: &mut FlowState, pools: &mut Pools, out: &mut Output) {
    let flight = s.outstanding();
    // What is sent again now is not told apart from what was sent once.
    records::give_up(s, pools);
    cc::on_recovery(s, flight);
    s.cc.recover = s.tx.snd_max;
    s.cc.cwnd = s.cc.ssthresh.saturating_add(u32::from(DUP_ACKS) * s.mss());
    s.set(ff::RECOVERY | ff::REXMIT_ONE);
    if s.has(ff::ECN) {
        // RFC 3168, 6.1.2: told to the peer for any reduction.
        s.set(ff::CWR);
    }
    out.counts.add(Counter::TxFastRetransmits);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;

    /// RFC 6582 3.2-2.
    #[test]
    fn a_recovery_point_never_gets_so_old_that_it_looks_like_the_future() {
        let pulled = |age, flags| {
            let mut s = flow();
            s.set(flags);
            s.cc.recover = s.snd_una().sub_len(age).0;
            pull_recover(&mut s);
            s.snd_una().since(SeqNum(s.cc.recover)) != age
        };
        assert!(!pulled(1, 0) && !pulled(1 << 30, 0) && pulled((1 << 30) + 1, 0) && pulled(u32::MAX, 0));
        // What is ahead is still to be reached.
        assert!(!pulled(u32::MAX, ff::RECOVERY) && !pulled(u32::MAX, ff::LOSS) && !pulled(u32::MAX, ff::ECN_REDUCED));
    }
}
