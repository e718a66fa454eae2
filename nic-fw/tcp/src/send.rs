//! What is sent next.

use crate::state::View;
use crate::{Now, Pools, SegmentOut, board, cc, frto, output, prr, recovery, timers, tlp, urgent};
use toe_abi::flow::{FlowState, flow_flags as ff, timer};
use toe_wire::{SeqNum, TcpFlags};

/// What could be sent from snd_nxt on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Send {
        len: u32,
        fin: bool,
    },
    /// There is nothing.
    Nothing,
    /// The peer's window is closed, or too small to be used (RFC 9293, 3.8.6.2.1).
    WindowClosed,
    /// A partial segment is held back by CORK.
    Corked,
    /// An acknowledgement must come first: cwnd is full, or Nagle's algorithm holds a partial segment back.
    Wait,
}

/// A super-frame is put off until it has this part of the window, while acknowledgements are sure to come.
const DEFER_PART: u32 = 4;
/// Or what goes in this time at the flow's pace, if that is less, as in Linux: queues on a slow path have no room for larger bursts.
const DEFER_US: u32 = 1000;

/// Room that cwnd leaves, bytes.
// RFC 5681 3.2-4, 3.2-5; RFC 3042 2-1, 2-2.
pub(crate) fn room(s: &FlowState, pools: &Pools) -> u32 {
    if s.tx.board != 0 {
        // RFC 6675, 5, (C): "cwnd - pipe".
        // RFC 6675 5-4.
        return frto::window(s, pools).saturating_sub(board::pipe(s, pools));
    }
    // RFC 3042, limited transmit: one segment beyond cwnd for each of the first two duplicate ACKs. With a scoreboard, SACKed data makes
    // room.
    let limited = if s.has(ff::RECOVERY | ff::LOSS) { 0 } else { u32::from(s.tx.dup_acks.min(2)) * s.mss() };
    s.snd_una().add(s.cc.cwnd.saturating_add(limited).min(1 << 30)).since_or_zero(s.snd_nxt())
}

/// Decides about the next segment of at most `max_payload` bytes, for which cwnd leaves `room`.
/// RFC 5681 2-1, 3-1; RFC 6675 4-6.
pub(crate) fn plan(s: &FlowState, room: u32, max_payload: u32) -> Verdict {
    let nxt = s.snd_nxt();
    let avail = s.tx_end().since_or_zero(nxt);
    let fin = s.has(ff::TX_FIN) && nxt.le(s.tx_end());
    if avail == 0 && !fin {
        return Verdict::Nothing;
    }
    // RFC 9293 MUST-34, SHLD-15: of a window that has shrunk nothing is left.
    // RFC 7323 2.4-1, 2.4-4.
    let window = s.snd_edge().since_or_zero(nxt);
    if avail == 0 {
        // FIN takes a sequence number of the window.
        return if window > 0 { Verdict::Send { len: 0, fin } } else { Verdict::WindowClosed };
    }
    let mss = s.mss().min(max_payload.max(1));
    let len = avail.min(window).min(room).min(max_payload.max(1));
    if len == avail {
        return whole(s, len, fin && window > len, mss);
    }
    if len < mss {
        return if room < mss.min(window) { Verdict::Wait } else { small_window(s, len) };
    }
    // RFC 9293 SHLD-28.
    let len = len - len % mss;
    if defer(s, len, max_payload) { Verdict::Wait } else { Verdict::Send { len, fin: false } }
}

/// Everything that is left fits: only its tail can be held back.
fn whole(s: &FlowState, len: u32, fin: bool, mss: u32) -> Verdict {
    let tail = len % mss;
    // What was sent before is not to be held: after a timeout nothing else may bring acknowledgements.
    let free = tail == 0 || s.has(ff::TX_FIN | ff::PUSH) || s.snd_nxt().lt(s.snd_max()) || urgent::is_pending(s);
    // RFC 896, in the form of Minshall and of Linux: only one partial segment may be unacknowledged.
    // RFC 9293 SHLD-7, MUST-17.
    let nagle = !s.has(ff::NODELAY) && is_partial_in_flight(s);
    let held = match () {
        () if free => None,
        // RFC 9293 MAY-16.
        () if s.has(ff::CORK) => Some(Verdict::Corked),
        () if nagle => Some(Verdict::Wait),
        () => None,
    };
    match held {
        Some(verdict) if len == tail => verdict,
        Some(_) => Verdict::Send { len: len - tail, fin: false },
        None => Verdict::Send { len, fin },
    }
}

/// Whether a partial segment is unacknowledged. A mark that has lain behind for 2 GiB seems to lie ahead: what was not sent is none.
fn is_partial_in_flight(s: &FlowState) -> bool {
    let mark = SeqNum(s.rx.snd_sml);
    mark.gt(s.snd_una()) && mark.le(s.snd_max())
}

/// The window has room for less than a segment (RFC 9293, 3.8.6.2.1: silly window syndrome, sender).
/// RFC 9293 MUST-38.
fn small_window(s: &FlowState, len: u32) -> Verdict {
    let worth = len > 0 && len >= s.max_snd_wnd() / 2;
    if worth { Verdict::Send { len, fin: false } } else { Verdict::WindowClosed }
}

/// Whether a larger super-frame will be possible soon.
fn defer(s: &FlowState, len: u32, max_payload: u32) -> bool {
    let in_flight = s.snd_nxt().since_or_zero(s.snd_una());
    let calm = !s.has(ff::RECOVERY | ff::LOSS | ff::RST_DUE) && s.tx.dup_acks == 0 && s.tx.board == 0;
    let window = s.cc.cwnd.min(s.tx.snd_wnd);
    let brief = u64::from(len) * u64::from(s.tx.srtt_us) < u64::from(window) * u64::from(DEFER_US);
    calm && in_flight >= 4 * s.mss() && len.saturating_add(s.mss()) <= max_payload && len < window / DEFER_PART && brief
}

/// Whether [`emit`] may have something: with plain segments it has, a super-frame may be put off.
pub(crate) fn wants_emit(s: &FlowState, pools: &Pools) -> bool {
    const OWED: u32 = ff::ACK_NOW | ff::REXMIT_ONE | ff::PROBE | ff::TLP_DUE;
    !s.ended() && (s.has(OWED) || matches!(plan(s, room(s, pools), s.mss()), Verdict::Send { .. }))
}

/// Whether data may be sent now.
pub(crate) fn has_data(s: &FlowState, pools: &Pools) -> bool {
    !s.ended() && matches!(plan(s, room(s, pools), s.mss()), Verdict::Send { len: 1.., .. })
}

/// Whether the flow is to be reset ([`Input::Abort`](crate::Input::Abort)) as soon as [`emit`] gives nothing.
pub fn is_reset_due(s: &FlowState) -> bool {
    s.has(ff::RST_DUE) && !s.ended()
}

/// The next segment to send, of at most `max_payload` bytes; more than one MSS is a whole number of them, unless it is the last there is.
/// `None`: nothing may be sent now. It counts as sent: timers are armed, and no ACK is owed any more.
pub fn emit(s: &mut FlowState, pools: &mut Pools, now: Now, max_payload: u32) -> Option<SegmentOut> {
    emit_if(s, pools, now, max_payload, true)
}

/// As [`emit`], but no new data: what is owed to the peer does not wait until the flow may send again (pacing).
pub fn emit_owed(s: &mut FlowState, pools: &mut Pools, now: Now, max_payload: u32) -> Option<SegmentOut> {
    emit_if(s, pools, now, max_payload, false)
}

fn emit_if(s: &mut FlowState, pools: &mut Pools, now: Now, max_payload: u32, new_data: bool) -> Option<SegmentOut> {
    if s.ended() {
        return None;
    }
    let out =
        if s.has(ff::URGENT) { urgent::emit(s, pools, now, max_payload, new_data) } else { next(s, pools, now, max_payload, new_data) };
    if out.is_some() {
        timers::rearm(s, pools, now);
    }
    debug_assert!(board::is_sound(s, pools), "{out:?}: {s:?}");
    out
}

pub(crate) fn next(s: &mut FlowState, pools: &mut Pools, now: Now, max_payload: u32, new_data: bool) -> Option<SegmentOut> {
    if s.has(ff::REXMIT_ONE)
        && let Some(out) = retransmission(s, pools, now, max_payload)
    {
        return Some(out);
    }
    if s.has(ff::TLP_DUE) {
        s.clear(ff::TLP_DUE);
        if let Some(out) = tlp::probe(s, pools, now, max_payload) {
            return Some(out);
        }
    }
    if s.has(ff::PROBE) {
        s.clear(ff::PROBE);
        return Some(probe(s, pools, now, max_payload));
    }
    if new_data && s.outstanding() == 0 && has_data(s, pools) {
        cc::on_idle(s, now);
    }
    // What was sent before is no new data.
    // RFC 6675 4-6, 4-10.
    if (new_data || s.snd_nxt().lt(s.snd_max()))
        && let Verdict::Send { len, fin } = plan(s, room(s, pools), max_payload)
    {
        return Some(data(s, pools, now, len, fin));
    }
    s.has(ff::ACK_NOW).then(|| output::ack(s, pools, now))
}

/// What is lost; without a scoreboard, one segment from snd_una, whatever the windows say.
/// RFC 9293 SHLD-16, MAY-7.
fn retransmission(s: &mut FlowState, pools: &mut Pools, now: Now, max_payload: u32) -> Option<SegmentOut> {
    s.clear(ff::REXMIT_ONE);
    if s.outstanding() == 0 {
        return None;
    }
    if s.tx.board != 0 {
        let out = recovery::retransmit(s, pools, now, max_payload);
        if out.is_some() || s.tx.board != 0 {
            return out;
        }
        // There was no record for it, so it goes on without.
        s.clear(ff::REXMIT_ONE);
    }
    let una = s.snd_una();
    let sent_data = s.snd_max().min(s.tx_end()).since_or_zero(una);
    let len = sent_data.min(s.mss()).min(max_payload.max(1));
    let fin = s.has(ff::FIN_SENT) && una.add(len) == s.tx_end();
    Some(again(s, pools, now, una, len, fin))
}

/// What was sent before, from `seq` on, once more.
pub(crate) fn again(s: &mut FlowState, pools: &mut Pools, now: Now, seq: SeqNum, len: u32, fin: bool) -> SegmentOut {
    let nxt = s.snd_nxt();
    s.tx.snd_nxt = seq.0;
    let out = data(s, pools, now, len, fin);
    s.tx.snd_nxt = s.snd_nxt().max(nxt).0;
    out
}

/// A segment that the peer must answer: a little data if the window has room for it, else nothing at a sequence number
/// that it has seen (as Linux; RFC 9293, 3.8.4).
fn probe(s: &mut FlowState, pools: &mut Pools, now: Now, max_payload: u32) -> SegmentOut {
    let avail = s.tx_end().since_or_zero(s.snd_nxt());
    let window = s.snd_edge().since_or_zero(s.snd_nxt());
    let len = avail.min(window).min(s.mss()).min(max_payload.max(1));
    if len > 0 {
        return data(s, pools, now, len, false);
    }
    // RFC 9293 SHLD-12.
    let seq = s.snd_una().sub_len(1);
    output::segment(s, now, seq)
}

/// Payload and FIN from snd_nxt on.
/// RFC 9293 3.10.2-3.
pub(crate) fn data(s: &mut FlowState, pools: &mut Pools, now: Now, len: u32, fin: bool) -> SegmentOut {
    let seq = s.snd_nxt();
    let payload_end = seq.add(len);
    let end = payload_end.add(u32::from(fin));
    let rexmit = seq.lt(s.snd_max());
    let mut out = output::segment(s, now, seq);
    out.len = len;
    out.rexmit = rexmit;
    out.flags.set(TcpFlags::FIN, fin);
    // RFC 9293, 3.9.1.2: on the last segment of what there is.
    // RFC 9293 MUST-61, SHLD-27.
    out.flags.set(TcpFlags::PSH, len > 0 && payload_end == s.tx_end());
    // RFC 3168, 6.1.5 and 6.1.4: new data only.
    // RFC 3168 5.2-1, 5.2-2, 6.1.2-4, 6.1.2-5, 6.1.4-1, 6.1.5-1, 6.1.5-2, 6.1.6-1.
    out.ect = s.has(ff::ECN) && len > 0 && !rexmit;
    if out.ect && s.has(ff::CWR) {
        out.flags |= TcpFlags::CWR;
        s.clear(ff::CWR);
    }
    if fin {
        s.set(ff::FIN_SENT);
    }
    if !len.is_multiple_of(s.mss()) {
        let later = if is_partial_in_flight(s) { SeqNum(s.rx.snd_sml).max(payload_end) } else { payload_end };
        s.rx.snd_sml = later.0;
    }
    if payload_end == s.tx_end() {
        s.clear(ff::PUSH);
    }
    if rexmit {
        // Karn's rule (RFC 6298, 3).
        // RFC 6298 3-1, 3-2.
        s.clear(ff::RTT_PENDING);
        s.id.retransmits = s.id.retransmits.wrapping_add(1);
    } else if s.tx.timer == timer::TLP || s.tx.timer == timer::REORDER && s.outstanding() == 0 {
        // RFC 8985, 7.2: "start or restart a loss probe PTO timer after transmitting new data".
        s.tx.timer = timer::NONE;
    }
    if len > 0 {
        converse(s, now);
    }
    let from = s.snd_max().max(seq);
    s.tx.snd_nxt = end.0;
    s.tx.snd_max = s.snd_max().max(end).0;
    if s.tx.board != 0 {
        prr::sent(pools.boards.get_mut(s.tx.board), len);
    }
    if from.lt(end) {
        board::sent(s, pools, from, end, now);
    }
    out
}

/// Data that is sent soon after data was received is an answer: from now on acknowledgements may wait for one.
fn converse(s: &mut FlowState, now: Now) {
    if now.ms32().wrapping_sub(s.rx.last_rx_ms) < 40 && s.rcv_nxt() != SeqNum(s.rx.irs).add(1) {
        s.rx.quickack = 0;
    }
    s.rx.last_tx_ms = now.ms32();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{flow, pools};
    use crate::{HostUpdate, Input, input};

    #[test]
    fn a_super_frame_waits_for_a_quarter_of_the_window_or_a_millisecond_of_it() {
        let mut s = flow();
        let mss = s.mss();
        (s.cc.cwnd, s.tx.snd_wnd, s.tx.tx_head) = (40 * mss, 60 * mss, 100 * mss);
        s.tx.snd_max = s.snd_una().add(20 * mss).0;
        s.tx.snd_nxt = s.tx.snd_max;
        let deferred = |s: &FlowState, segments: u32| plan(s, segments * mss, 44 * mss) == Verdict::Wait;
        s.tx.srtt_us = 1000;
        assert_eq!((deferred(&s, 9), deferred(&s, 10)), (true, false));
        s.tx.srtt_us = 20_000;
        assert_eq!((deferred(&s, 1), deferred(&s, 2)), (true, false));
        // While acknowledgements are sure to come, and nothing is wrong.
        for flags in [ff::RECOVERY, ff::LOSS, ff::RST_DUE] {
            s.set(flags);
            assert!(!deferred(&s, 1));
            s.clear(flags);
        }
        s.tx.dup_acks = 1;
        assert!(!deferred(&s, 1));
        (s.tx.dup_acks, s.tx.board) = (0, 1);
        assert!(!deferred(&s, 1));
        s.tx.board = 0;
        s.tx.snd_una = s.snd_max().sub_len(4 * mss).0;
        assert!(deferred(&s, 1));
        s.tx.snd_una = s.snd_max().sub_len(4 * mss - 1).0;
        assert!(!deferred(&s, 1));
    }

    /// RFC 9293 MUST-38, 3.8.6.2.1: a small window is used if it is half of the largest that the peer ever had.
    #[test]
    fn less_than_a_segment_goes_where_the_window_has_no_room_for_more() {
        let verdict = |window, room| {
            let mut s = flow();
            (s.tx.snd_wnd, s.tx.max_wnd_log2, s.tx.tx_head) = (window, 10, 9000);
            plan(&s, room, 1460)
        };
        let send = |len| Verdict::Send { len, fin: false };
        assert_eq!((verdict(512, 9000), verdict(512, 512)), (send(512), send(512)));
        assert_eq!((verdict(511, 9000), verdict(0, 9000)), (Verdict::WindowClosed, Verdict::WindowClosed));
        assert_eq!((verdict(600, 599), verdict(9000, 1459), verdict(9000, 1460)), (Verdict::Wait, Verdict::Wait, send(1460)));
    }

    /// RFC 9293, 3.4: FIN takes a sequence number, for which the window must have room.
    #[test]
    fn fin_goes_with_the_last_data_if_there_is_room_for_it() {
        let verdict = |window, bytes| {
            let mut s = flow();
            s.set(ff::TX_FIN);
            (s.tx.snd_wnd, s.tx.tx_head) = (window, bytes);
            plan(&s, 9000, 1460)
        };
        assert_eq!((verdict(1001, 1000), verdict(1, 0)), (Verdict::Send { len: 1000, fin: true }, Verdict::Send { len: 0, fin: true }));
        assert_eq!((verdict(1000, 1000), verdict(0, 0)), (Verdict::Send { len: 1000, fin: false }, Verdict::WindowClosed));
    }

    /// RFC 3042 2-1, 2-2.
    #[test]
    fn limited_transmit_is_for_the_time_before_recovery() {
        let room_of = |dup_acks, flags| {
            let mut s = flow();
            (s.tx.dup_acks, s.cc.cwnd) = (dup_acks, 10_000);
            s.set(flags);
            room(&s, &pools()) - 10_000
        };
        assert_eq!([0, 1, 2, 3].map(|n| room_of(n, 0)), [0, 1460, 2920, 2920]);
        assert_eq!((room_of(3, ff::RECOVERY), room_of(2, ff::LOSS)), (0, 0));
    }

    /// Acknowledgements wait for an answer where there was one.
    #[test]
    fn an_answer_to_what_was_received_ends_quick_acknowledgements() {
        let quick = |received: u32, silent_ms: u64, len| {
            let (mut s, mut pools) = (flow(), pools());
            s.rx.rcv_nxt = s.rcv_nxt().add(received).0;
            s.tx.tx_head = 5000;
            let _ = data(&mut s, &mut pools, Now(silent_ms * 1000), len, false);
            s.rx.quickack > 0
        };
        assert!(!quick(1, 39, 1000));
        assert!(quick(1, 40, 1000), "it comes too late to be one");
        assert!(quick(0, 0, 1000), "nothing was received");
        assert!(quick(1, 0, 0), "an acknowledgement alone is none");
    }

    #[test]
    fn an_owed_ack_can_go_alone() {
        let (mut s, mut pools) = (flow(), pools());
        let now = Now(1000);
        let _ = input(&mut s, &mut pools, &Input::Host(HostUpdate { tx_head: 5000, rx_tail: 0, flags: 0, urgent: 0 }), now);
        assert_eq!(emit_owed(&mut s, &mut pools, now, 1460), None);
        s.set(ff::ACK_NOW);
        let ack = emit_owed(&mut s, &mut pools, now, 1460);
        assert!(ack.is_some_and(|ack| (ack.seq, ack.len) == (s.snd_nxt(), 0)), "{ack:?}");
        assert_eq!(emit_owed(&mut s, &mut pools, now, 1460), None);
        assert!(emit(&mut s, &mut pools, now, 1460).is_some_and(|data| data.len == 1460));
    }
}
