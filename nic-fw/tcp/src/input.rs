//! Dispatch, and the order in which a segment is judged (RFC 9293, 3.10.7.4).

use crate::state::View;
use crate::{Fast, Input, Now, Output, Pools, SegmentIn, ack, closing, fast, host, output, receive, send, timers};
use toe_abi::counters::Drop;
use toe_abi::flow::{FlowState, flow_flags as ff};
use toe_wire::{SeqNum, TcpFlags};

/// A state that comes from elsewhere holds nothing of this group's pools, whatever it says.
pub fn admit(_s: &mut FlowState) {}

/// The flow is not heard of any more: what it holds of the pools goes back.
pub fn forget(_s: &mut FlowState, _pools: &mut Pools) {}

/// Takes one event into the state and says what is to be done about it.
pub fn input(s: &mut FlowState, _pools: &mut Pools, event: &Input, now: Now) -> Output {
    if let Input::Segment(seg) = event
        && let Some(Fast { place, send, .. }) = fast(s, seg, now)
    {
        return Output { place, notify: true, send, ..Output::default() };
    }
    let mut out = Output::default();
    if s.ended() {
        // A segment may have been on its way when the flow ended.
        out.drop = matches!(event, Input::Segment(_)).then_some(Drop::RxClosed);
        return out;
    }
    match event {
        Input::Segment(seg) => slow(s, seg, now, &mut out),
        Input::Host(update) => host::update(s, update, &mut out),
        Input::Timer => timers::expire(s, now, &mut out),
        Input::Abort => closing::abort(s, now, crate::errno::ECONNABORTED, &mut out),
        Input::Close { unread } => host::close(s, *unread, now, &mut out),
        Input::IcmpError(error) => host::icmp_error(s, error),
    }
    if out.closed.is_none() {
        timers::rearm(s, now);
        out.send = send::wants_emit(s);
    }
    out
}

fn slow(s: &mut FlowState, seg: &SegmentIn, now: Now, out: &mut Output) {
    // RFC 9293 3.10.7.4-15, 3.10.7.4-16.
    if seg.flags.contains(TcpFlags::SYN) && !seg.flags.contains(TcpFlags::RST) {
        // RFC 5961, 4.2: "irrespective of the sequence number, TCP MUST send an ACK".
        out.drop = Some(Drop::SynChallenged);
        return challenge(s, now, out);
    }
    if !paws(s, seg, now, out) || !acceptable(s, seg, now, out) {
        return;
    }
    // RFC 9293 SHLD-2.
    if seg.flags.contains(TcpFlags::RST) {
        return reset(s, seg, now, out);
    }
    // RFC 9293, 3.10.7.4, fifth: "if the ACK bit is off, drop the segment".
    // RFC 9293 3.10.7.4-17.
    if !seg.flags.contains(TcpFlags::ACK) {
        out.drop = Some(Drop::NoAck);
        return;
    }
    if !ack::validate(s, seg, now, out) {
        return;
    }
    s.rx.last_rx_ms = now.ms32();
    s.tx.probes = 0;
    if let Some(ts) = seg.timestamps.filter(|_| s.has(ff::TIMESTAMPS)) {
        update_ts_recent(s, seg.seq, ts.val);
    }
    ack::process(s, seg, now, out);
    if out.closed.is_some() {
        return;
    }
    receive::congestion_bits(s, seg, now, out);
    receive::data(s, seg, now, out);
}

/// RFC 7323, 4.3, (2): from the segment that the last ACK asked for.
pub(crate) fn update_ts_recent(s: &mut FlowState, seq: SeqNum, val: u32) {
    if val.wrapping_sub(s.rx.ts_recent) as i32 >= 0 && seq.le(SeqNum(s.rx.last_ack_sent)) {
        s.rx.ts_recent = val;
    }
}

/// TS.Recent older than this means nothing (RFC 7323, 5.5): 24 days.
const TS_RECENT_AGE_MAX_MS: u32 = 24 * 24 * 3600 * 1000;

/// Protection against wrapped sequence numbers (RFC 7323, 5.3). `false`: dropped.
fn paws(s: &mut FlowState, seg: &SegmentIn, now: Now, out: &mut Output) -> bool {
    // RFC 7323, 5.2: RST is not subject to it.
    if !s.has(ff::TIMESTAMPS) || seg.flags.contains(TcpFlags::RST) {
        return true;
    }
    let Some(ts) = seg.timestamps else {
        // RFC 7323, 3.2: without the option, silently drop.
        out.drop = Some(Drop::Paws);
        return false;
    };
    if ts.val.wrapping_sub(s.rx.ts_recent) as i32 >= 0 {
        return true;
    }
    if now.ms32().wrapping_sub(s.rx.last_rx_ms) > TS_RECENT_AGE_MAX_MS {
        s.rx.ts_recent = ts.val;
        return true;
    }
    // R1: "Send an acknowledgment in reply [...] and drop the segment".
    out.drop = Some(Drop::Paws);
    answer(s, seg, now, out);
    false
}

/// Sequence numbers that the segment takes up.
fn seq_len(seg: &SegmentIn) -> u32 {
    seg.payload_len + u32::from(seg.flags.contains(TcpFlags::FIN))
}

/// RFC 9293, 3.10.7.4, first: check sequence number. `false`: dropped.
///
/// A little wider than the table there, as in Linux: a segment without data may sit at the right edge (the peer has filled
/// the window), and may be as old as our last ACK (it was overtaken). What data is new is decided later.
/// RFC 9293 3.10.7.4-2, 3.10.7.4-3, 3.10.7.4-4, 3.10.7.4-5.
fn acceptable(s: &mut FlowState, seg: &SegmentIn, now: Now, out: &mut Output) -> bool {
    let edge = s.rcv_adv().max(s.rcv_nxt());
    let end = seg.seq.add(seq_len(seg));
    if seg.seq.le(edge) && end.ge(SeqNum(s.rx.last_ack_sent)) {
        return true;
    }
    let old = end.lt(s.rcv_nxt());
    out.drop = Some(if old && seg.payload_len > 0 { Drop::Duplicate } else { Drop::OutOfWindow });
    // "If an incoming segment is not acceptable, an acknowledgment should be sent in reply (unless the RST bit is set)".
    if !seg.flags.contains(TcpFlags::RST) {
        answer(s, seg, now, out);
    }
    false
}

/// Second: check the RST bit, by RFC 5961, 3.2.
/// RFC 9293 3.10.7.4-6, 3.10.7.4-7, 3.10.7.4-8.
fn reset(s: &mut FlowState, seg: &SegmentIn, now: Now, out: &mut Output) {
    let expected = s.rcv_nxt();
    // After its FIN a peer may count the FIN or not.
    let exact = seg.seq == expected || (s.fin_received() && seg.seq == expected.sub_len(1));
    if exact {
        closing::peer_reset(s, out);
    } else if seg.seq.gt(expected) {
        // (3): "MUST send an acknowledgment (challenge ACK)".
        out.drop = Some(Drop::RstChallenged);
        challenge(s, now, out);
    } else {
        out.drop = Some(Drop::OutOfWindow);
    }
}

/// Challenge ACKs per stretch of 4 s (RFC 5961, 7).
const CHALLENGES_MAX: u8 = 10;

/// Sends a challenge ACK, if the budget allows.
pub(crate) fn challenge(s: &mut FlowState, now: Now, out: &mut Output) {
    let epoch = (now.ms32() >> 12) as u8;
    if s.cc.challenge_epoch != epoch {
        s.cc.challenge_epoch = epoch;
        s.cc.challenges = 0;
    }
    if s.cc.challenges < CHALLENGES_MAX {
        s.cc.challenges += 1;
        out.reply = Some(output::ack(s, now));
    }
}

/// The ACK that answers an unacceptable segment. One with data is no part of an ACK loop (two ends that answer each other's ACKs) and always
/// gets it; others share the budget of challenge ACKs.
fn answer(s: &mut FlowState, seg: &SegmentIn, now: Now, out: &mut Output) {
    if seg.payload_len > 0 {
        out.reply = Some(output::ack(s, now));
    } else {
        challenge(s, now, out);
    }
}
