//! Loss recovery with a scoreboard: what an ACK means, when recovery begins and ends, and what is sent again (RFC 6675, RFC 8985). Without
//! SACK a flow has one after a timeout only.
//!
//! ```text
//!            ┌────────── something is lost (RACK) ──► RECOVERY ──snd_una reaches recover──┐
//!     calm ──┤                                           │ timeout                        ├──► calm
//!            └────────── timeout ────────────────────► LOSS ────snd_una reaches recover───┘
//!                  (both end early when they prove to have been for nothing: undo, F-RTO)
//! ```

use crate::board::Board;
use crate::frto::{self, Stage};
use crate::output::ts_now;
use crate::pool::{NONE, Pools};
use crate::records::mark;
use crate::sack::{self, News};
use crate::state::View;
use crate::{Now, Output, SegmentIn, SegmentOut, ack, board, cc, closing, prr, rack, rtt, send, tlp, undo};
use toe_abi::counters::Counter;
use toe_abi::flow::{FlowState, flow_flags as ff, timer};
use toe_wire::{SeqNum, TcpFlags};

/// A validated acknowledgement of a flow that has a scoreboard. `repeats`: it is a duplicate by RFC 5681, 2, if anything is in flight.
/// RFC 6675 5-5, 5-8; RFC 8985 9.2-1.
pub(crate) fn on_ack(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, repeats: bool, now: Now, out: &mut Output) {
    let duplicate = repeats && s.outstanding() > 0;
    let flight = board::pipe(s, pools);
    let advanced = seg.ack.gt(s.snd_una());
    let dsack = sack::duplicate(s, seg);
    let mut news = News::default();
    s.clear(ff::TLP_DUE);
    sack::cumulative(s, pools, seg, now, &mut news);
    if advanced {
        if news.rtt_us.or(news.again_rtt_us).is_none() {
            rtt::keep_backoff(s, pools);
        }
        ack::move_una(s, seg.ack, out);
    }
    sack::selective(s, pools, seg, now, &mut news);
    match (news.rtt_us, news.again_rtt_us) {
        (Some(us), _) => rtt::measured(s, us, now),
        (None, Some(us)) => rtt::sample(s, us),
        (None, None) => {}
    }
    // RFC 6675, 2: a duplicate ACK is one with news of SACK.
    // RFC 6675 5-3.
    s.tx.dup_acks = s.tx.dup_acks.saturating_add(u8::from(news.sacked > 0));

    let board = pools.boards.get_mut(s.tx.board);
    if dsack.is_some() {
        out.counts.add(Counter::RxDsacks);
    }
    // A needless probe says nothing about what recovery or RACK took for lost.
    let needless = dsack.filter(|&range| !tlp::is_of_probe(board, range));
    if let Some(range) = needless {
        undo::on_dsack(board, range);
    }
    tlp::on_ack(s, pools, seg, dsack, repeats && news.sacked == 0, out);
    let ece = seg.flags.contains(TcpFlags::ECE);
    cc::on_delivered(s, news.acked + news.sacked, ece);
    let spurious = undo::is_due(s, pools.boards.get(s.tx.board), seg, advanced);
    if spurious || frto::on_ack(s, pools, &news, advanced, duplicate || news.sacked > 0) {
        undo::undo(s, pools, out);
    }
    rack::adapt(s, pools.boards.get_mut(s.tx.board), needless.is_some());
    news.lost = rack::detect(s, pools, now);
    if news.lost {
        out.counts.add(Counter::TxRackLosses);
    }
    advance_state(s, pools, &news, (flight, advanced, ece), now, out);
    board::close_if_calm(s, pools, now);
    if s.has(ff::FIN_ACKED) {
        closing::fin_acked(s, out);
    }
}

/// Recovery begins, goes on or ends, and cwnd with it.
/// RFC 6675 5-5, 5-8.
fn advance_state(
    s: &mut FlowState,
    pools: &mut Pools,
    news: &News,
    (flight, advanced, ece): (u32, bool, bool),
    now: Now,
    out: &mut Output,
) {
    let delivered = news.acked + news.sacked;
    if s.snd_una().ge(SeqNum(s.cc.recover)) {
        end(s, pools, now);
    }
    let lost = pools.boards.get(s.tx.board).lost;
    if s.has(ff::RECOVERY) {
        prr::on_ack(s, pools, delivered, advanced && !news.lost);
    } else if lost > 0 && !s.has(ff::LOSS) {
        // RFC 6675 5.1-5.
        begin(s, pools, news, out);
        prr::on_ack(s, pools, delivered, false);
    } else if advanced {
        // Also by the ACK that has just ended a recovery, as Linux: with a loss in every few round trips it is a good part of all growth.
        ack::grow(s, delivered, flight, ece, now);
    }
    ask_for_retransmission(s, pools);
}

fn ask_for_retransmission(s: &mut FlowState, pools: &Pools) {
    if s.tx.board != NONE && pools.boards.get(s.tx.board).lost > 0 {
        s.set(ff::REXMIT_ONE);
    } else {
        s.clear(ff::REXMIT_ONE);
    }
}

/// RFC 6675, 5, (4): something is lost that was sent since the last reduction.
fn begin(s: &mut FlowState, pools: &mut Pools, news: &News, out: &mut Output) {
    let flight = s.outstanding();
    cc::on_recovery(s, flight);
    // RFC 6675, 5, (4.1): RecoveryPoint = HighData.
    s.cc.recover = s.tx.snd_max;
    let board = pools.boards.get_mut(s.tx.board);
    prr::begin(s, board, news.acked, news.sacked);
    undo::begin(board, false);
    tlp::recovery_begins(board);
    s.clear(ff::ECN_REDUCED);
    s.set(ff::RECOVERY);
    if s.has(ff::ECN) {
        // RFC 3168, 6.1.2: told to the peer for any reduction.
        s.set(ff::CWR);
    }
    out.counts.add(Counter::TxFastRetransmits);
}

/// Everything that was sent when recovery began has arrived. Marks of what is beyond stay.
/// RFC 6675 5-6, 5-7.
fn end(s: &mut FlowState, pools: &mut Pools, now: Now) {
    if s.has(ff::RECOVERY | ff::LOSS) {
        if s.has(ff::RECOVERY) {
            // RFC 9937, 6.2: "the end of recovery: cwnd = ssthresh".
            s.cc.cwnd = s.cc.ssthresh.max(s.mss());
        }
        s.clear(ff::RECOVERY | ff::LOSS);
        s.tx.dup_acks = 0;
        let board = pools.boards.get_mut(s.tx.board);
        board.frto = Stage::Off;
        rack::recovered(s);
        undo::recovered(s, board, now);
    }
    ack::pull_recover(s);
}

/// Segments have been out for so long that others which overtook them prove them lost (RFC 8985, 6.2: RACK_reorder_timeout).
/// RFC 8985 6.2-2.
pub(crate) fn reordering_timeout(s: &mut FlowState, pools: &mut Pools, now: Now, out: &mut Output) {
    if s.tx.board == NONE {
        return;
    }
    if s.outstanding() == 0 {
        // It is D-SACKs that were waited for.
        tlp::settle(s, pools, out);
        return board::close_if_calm(s, pools, now);
    }
    if !rack::detect(s, pools, now) {
        return;
    }
    out.counts.add(Counter::TxRackLosses);
    if !s.has(ff::RECOVERY | ff::LOSS) {
        begin(s, pools, &News::default(), out);
        prr::on_ack(s, pools, 0, false);
    }
    ask_for_retransmission(s, pools);
}

/// The retransmission timer has expired: RFC 8985, 6.3. False: the flow can't have a scoreboard. `again`: the same data has timed out
/// before.
pub(crate) fn timeout(s: &mut FlowState, pools: &mut Pools, again: bool, now: Now, out: &mut Output) -> bool {
    if !board::open(s, pools) {
        return false;
    }
    // RFC 6675, 5.1: SACK information may be kept over a timeout, unless it shows that the peer has reneged.
    if sack::is_reneging(s, pools) {
        sack::forget(s, pools);
        out.counts.add(Counter::RxReneged);
    }
    rack::mark_on_timeout(s, pools, now);
    let flight = s.outstanding();
    cc::on_timeout(s, flight, again);
    if again {
        // The path may be another.
        s.tx.min_rtt_us = 0;
    }
    let board = pools.boards.get_mut(s.tx.board);
    board.forced = true;
    // Not while an earlier loss is being recovered from; but if it is this that times out again.
    // RFC 5682 2.1-2, 2.1-3, 3.1-3, 3.1-4.
    let first = !again && !s.has(ff::LOSS | ff::RECOVERY);
    board.frto = if first || board.frto != Stage::Off { Stage::Watch } else { Stage::Off };
    if first {
        undo::begin(board, true);
    }
    tlp::timed_out(board);
    // RFC 6675 5.1-3, 5.1-4.
    s.cc.recover = s.tx.snd_max;
    s.tx.dup_acks = 0;
    s.clear(ff::RECOVERY | ff::ECN_REDUCED);
    s.set(ff::LOSS | ff::REXMIT_ONE);
    out.counts.add(Counter::TxTimeouts);
    true
}

/// Sends again the first of what is lost, as far as cwnd allows (RFC 6675, 4, NextSeg (1)).
/// RFC 6675 4-4, 4-5, 5-10, 5.1-7.
pub(crate) fn retransmit(s: &mut FlowState, pools: &mut Pools, now: Now, max_payload: u32) -> Option<SegmentOut> {
    let Board { lost, forced, frto, .. } = *pools.boards.get(s.tx.board);
    if lost == 0 || frto == Stage::New {
        return None;
    }
    let handle = first_lost(s, pools)?;
    let record = *pools.records.get(handle);
    let data_end = record.end.min(s.tx_end());
    let fin = record.end.gt(data_end);
    let len = data_end.since_or_zero(record.start);
    let take = may_resend(s, pools, record.start, len, forced)?.min(max_payload.max(1));
    // Whole segments, if there is room for one.
    let take = if take < len { take - take % s.mss().min(take) } else { len };
    if take < len && board::split(s, pools, handle, record.start.add(take)).is_none() {
        board::give_up(s, pools);
        return None;
    }
    board::sent_again(s, pools, handle, now);
    let board = pools.boards.get_mut(s.tx.board);
    board.forced = false;
    // With FIN, which may be all there is: nothing sent again would be reported as soon as recovery has begun.
    let end = if take == len { record.end } else { record.start.add(take) };
    undo::sent(board, (record.start, end), ts_now(s, now));
    let out = send::again(s, pools, now, record.start, take, fin && take == len);
    if record.start == s.snd_una() && s.has(ff::RECOVERY) && s.tx.timer == timer::RTO {
        // What all waits for is on its way anew: rearm() gives it a whole timeout (as in Linux).
        s.tx.timer = timer::NONE;
    }
    ask_for_retransmission(s, pools);
    Some(out)
}

fn first_lost(s: &FlowState, pools: &Pools) -> Option<u32> {
    let mut at = pools.records.first(s.cc.sent);
    while at != NONE && !pools.records.get(at).has(mark::LOST) {
        at = pools.records.next(s.cc.sent, at);
    }
    (at != NONE).then_some(at)
}

/// How many of `len` bytes from `start` on may be sent again now; a segment at least.
/// RFC 6675 5-9; RFC 8985 9.3-1.
fn may_resend(s: &FlowState, pools: &Pools, start: SeqNum, len: u32, forced: bool) -> Option<u32> {
    if forced {
        return Some(s.mss());
    }
    // What the peer no longer has room for is for a timeout to try.
    let in_window = start.lt(s.snd_edge()) || start == s.snd_una();
    let room = s.cc.cwnd.saturating_sub(board::pipe(s, pools));
    (in_window && room >= len.min(s.mss())).then_some(room.max(1))
}
