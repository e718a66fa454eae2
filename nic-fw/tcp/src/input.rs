//! Dispatch, and the order in which a segment is judged (RFC 9293, 3.10.7.4).

use crate::output::SLOW_TICK_MS;
use crate::sack::Range;
use crate::state::View;
use crate::{
    Fast, Input, Now, Output, Pools, SegmentIn, SegmentOut, ack, board, cc, closing, fast, host, ooo, output, receive, send, timers, urgent,
};
use toe_abi::counters::{Counter, Drop};
use toe_abi::flow::{FlowState, flow_flags as ff, tcp_state, timer};
use toe_wire::{SeqNum, TcpFlags};

/// A state that comes from elsewhere: it holds nothing of this group's pools, whatever it says, and goes on without what it had there.
pub fn admit(s: &mut FlowState, pools: &mut Pools, now: Now) {
    (s.tx.board, s.cc.sent, s.cc.ooo_more, s.cc.timers) = (0, 0, 0, 0);
    if matches!(s.tx.timer, timer::REORDER | timer::TLP) {
        s.tx.timer = timer::NONE;
    }
    // They were counted for a scoreboard, and three may have come and gone by.
    s.tx.dup_acks = 0;
    if s.has(ff::RECOVERY | ff::LOSS) {
        board::give_up(s, pools);
    }
    s.clear(ff::TLP_DUE | ff::RTT_PENDING);
    cc::admit(s);
    timers::rearm(s, pools, now);
}

/// The flow is not heard of any more: what it holds of the pools goes back.
pub fn forget(s: &mut FlowState, pools: &mut Pools) {
    board::forget(s, pools);
    pools.timers.give_back(s.id.region, core::mem::take(&mut s.cc.timers));
}

/// Takes one event into the state and says what is to be done about it.
pub fn input(s: &mut FlowState, pools: &mut Pools, event: &Input, now: Now) -> Output {
    if let Input::Segment(seg) = event
        && let Some(Fast { place, send, deadline }) = fast(s, pools, seg, now)
    {
        debug_assert!(board::is_sound(s, pools), "{event:?}: {s:?}");
        return Output { place, notify: true, send, deadline, ..Output::default() };
    }
    let before = timers::armed(s);
    let mut out = Output::default();
    if s.ended() {
        ended(s, pools, event, now, &mut out);
        return out;
    }
    match event {
        Input::Segment(seg) => slow(s, pools, seg, now, &mut out),
        Input::Host(update) => host::update(s, update, &mut out),
        Input::Timer => timers::expire(s, pools, now, &mut out),
        Input::Abort => closing::abort(s, now, crate::errno::ECONNABORTED, &mut out),
        Input::Close { unread } => host::close(s, pools, *unread, now, &mut out),
        Input::IcmpError(error) => host::icmp_error(s, pools, error),
        Input::Options(options) => host::options(s, pools, options),
    }
    if out.closed.is_none() {
        timers::rearm(s, pools, now);
        out.send = send::wants_emit(s, pools);
        out.deadline = *event == Input::Timer || timers::armed(s).is_sooner_than(before);
    } else {
        board::forget(s, pools);
    }
    debug_assert!(board::is_sound(s, pools), "{event:?}: {s:?}");
    out
}

/// What still comes for a flow that has ended: the last ACK or RST was lost. This much of TIME-WAIT and CLOSED is done here until the control
/// plane takes it over.
/// RFC 9293 3.10.7.4-28, 3.10.7.4-38.
#[cold]
fn ended(s: &mut FlowState, pools: &Pools, event: &Input, now: Now, out: &mut Output) {
    let Input::Segment(seg) = event else { return };
    out.drop = Some(Drop::RxClosed);
    if closing::is_last_fin(s, seg) {
        challenge(s, pools, now, out);
    } else if closing::has_missed_reset(s, seg) {
        // RFC 9293 3.10.7.1-3: what the peer has received tells where it will take it.
        out.reply = Some(SegmentOut { seq: seg.ack, ..output::reset(s, now) });
        out.counts.add(Counter::TxResets);
    }
}

fn slow(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, now: Now, out: &mut Output) {
    // RFC 9293 3.10.7.4-15, 3.10.7.4-16; RFC 5961 4.2-1, 4.2-2, 4.2-3.
    if seg.flags.contains(TcpFlags::SYN) && !seg.flags.contains(TcpFlags::RST) {
        // RFC 5961, 4.2: "irrespective of the sequence number, TCP MUST send an ACK".
        out.drop = Some(Drop::SynChallenged);
        return challenge(s, pools, now, out);
    }
    let outdated = now.ms32().wrapping_sub(s.rx.last_rx_ms) > TS_RECENT_AGE_MAX_MS;
    if !paws(s, pools, seg, outdated, now, out) || !acceptable(s, pools, seg, now, out) {
        return;
    }
    // RFC 9293 SHLD-2.
    if seg.flags.contains(TcpFlags::RST) {
        return reset(s, pools, seg, now, out);
    }
    // RFC 9293, 3.10.7.4, fifth: "if the ACK bit is off, drop the segment".
    // RFC 9293 3.10.7.4-17; RFC 7323 3.2-4.
    if !seg.flags.contains(TcpFlags::ACK) {
        out.drop = Some(Drop::NoAck);
        return;
    }
    if !ack::validate(s, pools, seg, now, out) {
        return;
    }
    s.rx.last_rx_ms = now.ms32();
    s.tx.probes = 0;
    if let Some(ts) = seg.timestamps.filter(|_| s.has(ff::TIMESTAMPS)) {
        if outdated {
            // Also from beyond a hole: what fills it is not to be compared with what means nothing any more.
            s.rx.ts_recent = ts.val;
        } else {
            update_ts_recent(s, seg.seq, ts.val);
        }
    }
    ack::process(s, pools, seg, now, out);
    if out.closed.is_some() {
        if closing::is_last_fin(s, seg) {
            challenge(s, pools, now, out);
        } else if s.rx.state == tcp_state::TIME_WAIT && s.has(ff::ACK_NOW) {
            // For a FIN before this segment: nothing is sent for the flow any more.
            out.reply = Some(output::ack(s, pools, now));
        }
        return;
    }
    if seg.flags.contains(TcpFlags::URG) {
        urgent::received(s, seg, out);
    }
    receive::congestion_bits(s, pools, seg, now, out);
    receive::data(s, pools, seg, now, out);
}

/// RFC 7323, 4.3, (2): from the segment that the last ACK asked for.
/// RFC 7323 4.3-1, 4.3-2, 4.3-3, 5.2-1.
pub(crate) fn update_ts_recent(s: &mut FlowState, seq: SeqNum, val: u32) {
    if val.wrapping_sub(s.rx.ts_recent) as i32 >= 0 && seq.le(SeqNum(s.rx.last_ack_sent)) {
        s.rx.ts_recent = val;
    }
}

/// TS.Recent older than this means nothing: the time in which a clock of microseconds gets to its sign bit, as in Linux 6.7, and many times
/// longer than an old duplicate lives. (The 24 days of RFC 7323, 5.5, are those of a clock of milliseconds.)
const TS_RECENT_AGE_MAX_MS: u32 = i32::MAX as u32 / 1000;

/// Protection against wrapped sequence numbers (RFC 7323, 5.3). `outdated`: TS.Recent means nothing. `false`: dropped.
/// RFC 7323 5.3-1, 5.3-2, 5.5-1.
fn paws(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, outdated: bool, now: Now, out: &mut Output) -> bool {
    // RFC 7323, 5.2: RST is not subject to it.
    // RFC 7323 3.2-10, 5.2-5.
    if !s.has(ff::TIMESTAMPS) || seg.flags.contains(TcpFlags::RST) {
        return true;
    }
    // RFC 7323 3.2-8, 3.2-9.
    let Some(ts) = seg.timestamps else {
        // RFC 7323, 3.2: without the option, silently drop.
        out.drop = Some(Drop::Paws);
        return false;
    };
    if outdated || ts.val.wrapping_sub(s.rx.ts_recent) as i32 >= 0 || is_overtaken(s, ts.val) {
        return true;
    }
    // R1: "Send an acknowledgment in reply [...] and drop the segment".
    out.drop = Some(Drop::Paws);
    answer(s, pools, seg, None, now, out);
    false
}

/// Where segments overtake each other, one that comes late has an old timestamp: an ACK with news of SACK, or what a retransmission has
/// overtaken, which would be lost too. In a round trip no more than a window is sent, so one that is no older than that, and a tick of a slow
/// clock, is not from before a wrap.
fn is_overtaken(s: &FlowState, val: u32) -> bool {
    s.tx.srtt_us != 0 && s.rx.ts_recent.wrapping_sub(val) <= s.tx.srtt_us.div_ceil(1000) + SLOW_TICK_MS
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
fn acceptable(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, now: Now, out: &mut Output) -> bool {
    let edge = s.rcv_adv().max(s.rcv_nxt());
    let end = seg.seq.add(seq_len(seg));
    let within = seg.seq.le(edge) && end.ge(SeqNum(s.rx.last_ack_sent));
    if within || seg.flags.contains(TcpFlags::RST) && is_exact(s, pools, seg) {
        return true;
    }
    let old = end.lt(s.rcv_nxt());
    let again = (old && seg.payload_len > 0).then_some((seg.seq, seg.seq.add(seg.payload_len)));
    out.drop = Some(if again.is_some() { Drop::Duplicate } else { Drop::OutOfWindow });
    // "If an incoming segment is not acceptable, an acknowledgment should be sent in reply (unless the RST bit is set)".
    if !seg.flags.contains(TcpFlags::RST) {
        answer(s, pools, seg, again, now, out);
    }
    false
}

/// Whether a RST is at the sequence number that is expected. As in Linux: after its FIN a peer may count the FIN or not, acknowledged or not;
/// and where something is missing, it may come behind the last that has arrived, as the peer knows by SACK.
fn is_exact(s: &FlowState, pools: &Pools, seg: &SegmentIn) -> bool {
    let behind_fin = s.has(ff::FIN_SEEN) && seg.seq == SeqNum(s.rx.fin_seq).add(1);
    let behind_all = || s.has(ff::SACK) && (behind_fin || ooo::highest(&s.cc, pools) == Some(seg.seq));
    seg.seq == s.rcv_nxt() || (s.fin_received() && seg.seq.add(1) == s.rcv_nxt()) || behind_all()
}

/// Second: check the RST bit, by RFC 5961, 3.2.
/// RFC 9293 3.10.7.4-6, 3.10.7.4-7, 3.10.7.4-8; RFC 5961 3.2-1, 3.2-2, 3.2-3, 3.2-4, 3.2-5.
fn reset(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, now: Now, out: &mut Output) {
    if is_exact(s, pools, seg) {
        closing::peer_reset(s, out);
    } else if seg.seq.gt(s.rcv_nxt()) {
        // (3): "MUST send an acknowledgment (challenge ACK)".
        out.drop = Some(Drop::RstChallenged);
        challenge(s, pools, now, out);
    } else {
        out.drop = Some(Drop::OutOfWindow);
    }
}

/// Challenge ACKs per stretch of 4 s (RFC 5961, 7).
const CHALLENGES_MAX: u8 = 10;

/// Sends a challenge ACK, if the budget allows.
/// RFC 5961 7-2.
pub(crate) fn challenge(s: &mut FlowState, pools: &Pools, now: Now, out: &mut Output) {
    let epoch = (now.ms32() >> 12) as u8;
    if s.cc.challenge_epoch != epoch {
        s.cc.challenge_epoch = epoch;
        s.cc.challenges = 0;
    }
    if s.cc.challenges < CHALLENGES_MAX {
        s.cc.challenges += 1;
        out.reply = Some(output::ack(s, pools, now));
    }
}

/// The ACK that answers an unacceptable segment. One with data is no part of an ACK loop (two ends that answer each other's ACKs) and always
/// gets it; others share the budget of challenge ACKs. `again`: it was received before.
fn answer(s: &mut FlowState, pools: &Pools, seg: &SegmentIn, again: Option<Range>, now: Now, out: &mut Output) {
    if seg.payload_len > 0 {
        out.reply = Some(output::ack_again(s, pools, again, now));
    } else {
        challenge(s, pools, now, out);
    }
}
