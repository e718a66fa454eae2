//! Received data: where it goes, and when it is acknowledged.

use crate::sack::Range;
use crate::state::View;
use crate::{Now, Output, Placement, Pools, SegmentIn, cc, closing, ooo, output};
use toe_abi::counters::{Counter, Drop};
use toe_abi::flow::{FlowState, flow_flags as ff};
use toe_wire::{SeqNum, TcpFlags};

/// Segments acknowledged at once at the start, and after data that was received before (as in Linux), and one more: it is counted down to 1.
pub(crate) const QUICKACKS: u8 = 16 + 1;
/// As in Linux; RFC 9293, 3.8.6.3 allows 500 ms.
/// RFC 9293 SHLD-18, MUST-40.
const DELACK_MS: u32 = 40;

/// ECN: CE is echoed until the peer says CWR (RFC 3168, 6.1.3), or segment by segment.
/// RFC 3168 6.1.1-6, 6.1.6-2, 6.1.5-1.
pub(crate) fn congestion_bits(s: &mut FlowState, pools: &Pools, seg: &SegmentIn, now: Now, out: &mut Output) {
    if !s.has(ff::ECN) {
        return;
    }
    if cc::echoes_each_mark(s) {
        return echo_each_mark(s, pools, seg, now, out);
    }
    if seg.flags.contains(TcpFlags::CWR) {
        s.clear(ff::ECE);
    }
    if seg.ce {
        s.set(ff::ECE);
    }
}

/// RFC 8257, 3.2: ECE is the mark of the last data, and an ACK never speaks of marked and of unmarked data: when that changes, what was
/// received before is acknowledged with the old bit, and this segment at once.
/// RFC 8257 3.2-1, 3.2-2, 3.2-3.
fn echo_each_mark(s: &mut FlowState, pools: &Pools, seg: &SegmentIn, now: Now, out: &mut Output) {
    if seg.payload_len == 0 || seg.ce == s.has(ff::ECE) {
        return;
    }
    if s.rx.last_ack_sent != s.rx.rcv_nxt {
        out.reply = Some(output::ack(s, pools, now));
    }
    if seg.ce {
        s.set(ff::ECE);
    } else {
        s.clear(ff::ECE);
    }
    s.set(ff::ACK_NOW);
}

/// The new part of a segment: payload `[from, to)`, and whether its FIN lies within the window.
struct Fresh {
    from: u32,
    to: u32,
    fin: bool,
}

/// Cuts off what was received before and what lies beyond the window or the peer's FIN (RFC 9293, 3.10.7.4: "trimmed").
/// RFC 9293 3.10.7.4-1.
fn trim(s: &FlowState, seg: &SegmentIn) -> Fresh {
    let end = seg.seq.add(seg.payload_len);
    let from = s.rcv_nxt().since_or_zero(seg.seq).min(seg.payload_len);
    let mut limit = s.rcv_adv().max(s.rcv_nxt());
    let fin = seg.flags.contains(TcpFlags::FIN) && end.le(limit) && end.ge(s.rcv_nxt());
    if s.has(ff::FIN_SEEN) {
        limit = limit.min(SeqNum(s.rx.fin_seq));
    }
    let to = limit.since_or_zero(seg.seq).min(seg.payload_len);
    Fresh { from, to: to.max(from), fin }
}

/// Payload and FIN of an acceptable segment.
pub(crate) fn data(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, now: Now, out: &mut Output) {
    if seg.payload_len == 0 && !seg.flags.contains(TcpFlags::FIN) {
        return;
    }
    // RFC 9293 3.10.7.4-33.
    if s.fin_received() {
        // Our ACK of the FIN was lost.
        return discard(s, pools, seg, Drop::Duplicate, now, out);
    }
    let fresh = trim(s, seg);
    let has_data = fresh.to > fresh.from;
    if !has_data && !fresh.fin {
        let beyond = seg.seq.add(seg.payload_len).gt(s.rcv_nxt());
        return discard(s, pools, seg, if beyond { Drop::OutOfWindow } else { Drop::Duplicate }, now, out);
    }
    // RFC 9293 SHLD-3.
    if has_data && s.has(ff::ORPHAN) {
        // RFC 2525, 2.17: nobody will read it, and the peer should know.
        out.drop = Some(Drop::RxClosed);
        return closing::abort(s, now, 0, out);
    }
    if fresh.fin {
        see_fin(s, pools, seg.seq.add(seg.payload_len));
    }
    let start = seg.seq.add(fresh.from);
    if start.gt(s.rcv_nxt()) {
        return out_of_order(s, pools, seg, fresh.to, now, out);
    }
    // RFC 5681 3.2-2, 4.2-7.
    let had_holes = s.has_holes();
    // RFC 2883, 4: data of which a part is new is reported too. Some of it may lie beyond a hole.
    let again = seen_before(s, pools, seg);
    if has_data {
        in_order(s, pools, seg, fresh.from, fresh.to, out);
    }
    let fin = take_fin(s, out);
    owe_ack(s, seg, had_holes || fin, now);
    if out.closed.is_some() || again.is_some() {
        // The flow ends here, and with it what emit() could send: the ACK of the FIN goes along.
        out.reply = Some(output::ack_again(s, pools, again, now));
    }
}

/// The part of a segment's payload that was received before: the first, if there are several.
/// RFC 2883 4-2, 4-3.
fn seen_before(s: &FlowState, pools: &Pools, seg: &SegmentIn) -> Option<Range> {
    let range = (seg.seq, seg.seq.add(seg.payload_len));
    if seg.payload_len > 0 && seg.seq.lt(s.rcv_nxt()) {
        return Some((range.0, range.1.min(s.rcv_nxt())));
    }
    if s.has_holes() { ooo::received_before(s, pools, range) } else { None }
}

fn discard(s: &mut FlowState, pools: &Pools, seg: &SegmentIn, why: Drop, now: Now, out: &mut Output) {
    out.drop = Some(why);
    // As in Linux: the peer does not know where it stands, and its window may be small; for a while it hears of each segment.
    s.rx.quickack = s.rx.quickack.max(QUICKACKS);
    let again = seen_before(s, pools, seg);
    out.reply = Some(output::ack_again(s, pools, again, now));
}

/// Remembers where the peer's data ends. A FIN in the middle of data that it has sent is not one.
fn see_fin(s: &mut FlowState, pools: &Pools, at: SeqNum) {
    let beyond_data = ooo::highest(&s.cc, pools).is_none_or(|h| at.ge(h));
    if !s.has(ff::FIN_SEEN) && beyond_data {
        s.set(ff::FIN_SEEN);
        s.rx.fin_seq = at.0;
    }
}

/// Payload `[from, to)` of the segment begins at rcv_nxt.
/// RFC 9293 3.10.7.4-30.
pub(crate) fn in_order(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, from: u32, to: u32, out: &mut Output) {
    let pos = s.rx_pos(s.rcv_nxt());
    let rcv_nxt = ooo::absorb(&mut s.cc, pools, seg.seq.add(to));
    s.rx.rcv_nxt = rcv_nxt.0;
    if s.has(ff::RX_CLOSED) {
        // Acknowledged and discarded; the window stays open.
        s.rx.rx_tail = s.rx_pos(rcv_nxt);
        out.drop = Some(Drop::RxClosed);
        return;
    }
    out.place = Some(Placement { from, pos, len: to - from, in_order: true });
    out.notify = true;
}

/// Consumes the peer's FIN if everything before it is there.
/// RFC 9293 3.10.7.4-34.
fn take_fin(s: &mut FlowState, out: &mut Output) -> bool {
    if !s.has(ff::FIN_SEEN) || s.rcv_nxt() != SeqNum(s.rx.fin_seq) {
        return false;
    }
    s.rx.rcv_nxt = s.rcv_nxt().add(1).0;
    closing::fin_received(s, out);
    true
}

/// Payload `[0, len)` lies beyond a hole: straight to its place in the buffer. Acknowledged at once (RFC 5681, 4.2), one ACK per segment, as
/// the peer counts them.
/// RFC 9293 SHLD-31, MAY-13; RFC 2018 4-5; RFC 5681 3.2-1, 4.2-5, 4.2-6.
fn out_of_order(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, len: u32, now: Now, out: &mut Output) {
    let again = seen_before(s, pools, seg);
    if len > 0 {
        if !ooo::insert(&mut s.cc, pools, (seg.seq, seg.seq.add(len)), now.us32()) {
            out.drop = Some(Drop::NoInterval);
        } else if s.has(ff::RX_CLOSED) {
            out.counts.add(Counter::RxOutOfOrder);
            out.drop = Some(Drop::RxClosed);
        } else {
            out.counts.add(Counter::RxOutOfOrder);
            out.place = Some(Placement { from: 0, pos: s.rx_pos(seg.seq), len, in_order: false });
        }
    }
    // What must be said before it, of other marks (RFC 8257, 3.2), is not said by it as well: it leaves by emit() then.
    if out.reply.is_none() {
        out.reply = Some(output::ack_for(s, pools, again, Some(seg.seq), now));
    }
}

/// In-order data has come: acknowledge now, or soon (RFC 5681, 4.2; RFC 9293, 3.8.6.3).
/// RFC 5681 4.2-1, 4.2-2, 4.2-3, 4.2-4, 4.2-8.
pub(crate) fn owe_ack(s: &mut FlowState, seg: &SegmentIn, now_please: bool, now: Now) {
    let counted = s.rx.quickack > 1;
    if counted {
        s.rx.quickack -= 1;
    }
    if s.has(ff::ACK_NOW) {
        // It is going to be for this segment too.
        return;
    }
    // Full-sized as far as we can tell: the peer's segment size may be less than ours, but what fills one lacks PSH.
    let full = seg.payload_len >= s.mss() || !seg.flags.contains(TcpFlags::PSH);
    // Until there is a conversation (`send::converse`) nothing will come that an ACK could ride on, and a peer that keeps to Nagle's algorithm
    // sends no other small segment before it (as Linux, which sends it when the data is read).
    let quick = counted || s.rx.quickack == 1 && !full;
    if full {
        s.rx.delack_segs = s.rx.delack_segs.saturating_add(seg.segments.min(255) as u8);
    }
    let unacked = s.rcv_nxt().since(SeqNum(s.rx.last_ack_sent));
    // "A delayed ACK [...] MUST be generated for at least every second full-sized segment".
    // RFC 9293 SHLD-19.
    let second = s.rx.delack_segs >= 2 || unacked >= 2 * s.mss();
    // The peer may be waiting for the window and not for its delayed ACK.
    let nearly_closed = s.rcv_adv().since_or_zero(s.rcv_nxt()) < 2 * s.mss();
    // RFC 9293 MUST-58, MUST-59: an owed ACK leaves by emit(), one for all that has come until then.
    if now_please || second || nearly_closed || quick {
        s.set(ff::ACK_NOW);
    } else if !s.has(ff::DELACK_ARMED) {
        s.set(ff::DELACK_ARMED);
        s.rx.delack_ms = now.ms32().wrapping_add(DELACK_MS);
    }
}
