//! RACK (RFC 8985, 6): what was sent before something that has arrived since, and a little, is lost.
//!
//! ```text
//!     sent:      1    2    3    4    5              all times of one flow
//!     arrived:        2         4                   ◄── the latest sent of them is RACK.segment
//!                1 and 3 are lost at: their time + RACK.rtt + reo_wnd
//! ```

use crate::board::{self, Board};
use crate::output::{ts_now, ts_tick_ms};
use crate::pool::{NONE, Pools};
use crate::records::{Record, age, is_later, mark};
use crate::rtt;
use crate::state::View;
use crate::{Now, SegmentIn};
use toe_abi::flow::{FlowState, flow_flags as ff, timer};
use toe_wire::SeqNum;

/// Of a scoreboard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rack {
    /// RACK.xmit_ts and RACK.end_seq: of the data sent last of all that has arrived; RACK.rtt, microseconds. `None`: nothing has.
    latest: Option<Latest>,
    /// RACK.fack: the highest that has arrived.
    fack: SeqNum,
    /// RACK.dsack_round: until this is acknowledged, further D-SACKs are of the same round.
    dsack_round: Option<SeqNum>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    us: u32,
    end: SeqNum,
    rtt_us: u32,
}

impl Rack {
    pub(crate) fn new(snd_una: SeqNum) -> Self {
        Self { fack: snd_una, ..Self::default() }
    }

    /// What has arrived was sent at another time than we believed, or nothing is in flight.
    pub(crate) fn forget(&mut self) {
        self.latest = None;
    }

    /// What arrived was sent so long ago that it would soon be taken for later than everything.
    pub(crate) fn forget_old(&mut self, now: Now, old_us: u32) {
        self.latest = self.latest.filter(|latest| age(latest.us, now) < old_us);
    }
}

/// RFC 8985, 6.1: RACK_sent_after().
fn sent_after(us: u32, end: SeqNum, than_us: u32, than_end: SeqNum) -> bool {
    is_later(us, than_us) || (us == than_us && end.gt(than_end))
}

/// Data of a record has arrived, as `seg` says for the first time; in the order of sequence numbers. False: it may have been an earlier
/// copy of it, as far as round trips are concerned.
pub(crate) fn delivered(s: &mut FlowState, board: &mut Board, record: &Record, seg: &SegmentIn, now: Now) -> bool {
    let rtt_us = age(record.us, now);
    let again = record.has(mark::AGAIN);
    // RFC 8985, 6.2, step 3: RACK_detect_reordering().
    if record.end.gt(board.rack.fack) {
        board.rack.fack = record.end;
    } else if record.end.lt(board.rack.fack) && !again {
        s.set(ff::REORDERED);
    }
    // That something was sent so late is not known of it.
    if record.has(mark::MIXED) {
        return false;
    }
    // RFC 8985, 6.2, step 2: of which copy it is an acknowledgement is not certain. What is SACKed is not what is echoed (RFC 7323, 4.3).
    let in_order = record.end.le(seg.ack);
    if again && (rtt_us < s.tx.min_rtt_us || in_order && echoes_earlier(s, seg, rtt_us, now)) {
        return false;
    }
    let newer = board.rack.latest.is_none_or(|l| sent_after(record.us, record.end, l.us, l.end));
    if newer {
        board.rack.latest = Some(Latest { us: record.us, end: record.end, rtt_us });
    }
    in_order || !again
}

/// "ACK.ts_option.echo_reply < Segment.xmit_ts": the echo is of something sent before the last copy, `rtt_us` ago.
fn echoes_earlier(s: &FlowState, seg: &SegmentIn, rtt_us: u32, now: Now) -> bool {
    let Some(ecr) = rtt::echo(s, seg.timestamps) else { return false };
    // A tick more than the time that has passed the difference can be.
    let age_ms = ts_now(s, now).wrapping_sub(ecr);
    age_ms > rtt_us / 1000 + ts_tick_ms(s)
}

/// Recoveries that a wider reordering window outlives (RFC 8985, 6.2, step 4: RACK.reo_wnd_persist).
const PERSIST: u8 = 16;

/// RFC 8985, 6.2, step 4, RACK_update_reo_wnd(): `dsack`: the ACK says that something was sent again needlessly.
/// RFC 8985 3.3.2-3, 4-3.
pub(crate) fn adapt(s: &mut FlowState, board: &mut Board, dsack: bool) {
    // "if RACK.dsack_round is not None and SND.UNA >= RACK.dsack_round: RACK.dsack_round = None".
    if board.rack.dsack_round.is_some_and(|round| s.snd_una().ge(round)) {
        board.rack.dsack_round = None;
    }
    // "Grow the reordering window per round that sees DSACK." Where nothing overtakes, copies are the network's own.
    if dsack && s.has(ff::REORDERED) && board.rack.dsack_round.is_none() {
        board.rack.dsack_round = Some(s.snd_max());
        s.id.reo_wnd_more = s.id.reo_wnd_more.saturating_add(1);
        s.id.reo_wnd_persist = PERSIST;
    }
}

/// Recovery ends: "Reset the window after 16 recoveries".
pub(crate) fn recovered(s: &mut FlowState) {
    s.id.reo_wnd_persist = s.id.reo_wnd_persist.saturating_sub(1);
    if s.id.reo_wnd_persist == 0 {
        s.id.reo_wnd_more = 0;
    }
}

/// Segments SACKED that are enough to count as evidence of a loss (RFC 8985, 6.2, step 4: DupThresh).
const DUP_THRESH: u32 = 3;

/// RACK.reo_wnd, microseconds.
/// RFC 8985 3.3.2-1, 3.3.2-2, 3.3.2-4.
fn reordering_window(s: &FlowState, board: &Board) -> u32 {
    // More than (DupThresh - 1) * SMSS bytes: RFC 6675, 4, IsLost (2). Or as many ACKs with news, where segments are small.
    let evidence = board.sacked > (DUP_THRESH - 1) * s.mss() || u32::from(s.tx.dup_acks) >= DUP_THRESH;
    if !s.has(ff::REORDERED) && (s.has(ff::RECOVERY | ff::LOSS) || evidence) {
        return 0;
    }
    s.reo_wnd_us()
}

/// RFC 8985, 6.2, step 5, RACK_detect_loss(): marks what is lost, and arms the timer for what may be so soon. True: there was something.
/// RFC 8985 9.2-1.
pub(crate) fn detect(s: &mut FlowState, pools: &mut Pools, now: Now) -> bool {
    if s.tx.timer == timer::REORDER {
        s.tx.timer = timer::NONE;
    }
    let board = pools.boards.get_mut(s.tx.board);
    board.forget_old_times(now);
    if s.outstanding() == 0 {
        // Times mean nothing any more when the flow has been idle for long.
        board.forget_times();
        board.rack.forget();
    }
    // Without SACK what lies beyond a hole has arrived as far as we know.
    let Some(latest) = board.rack.latest.filter(|_| s.has(ff::SACK)) else { return false };
    let reo_wnd = reordering_window(s, board);
    let (mut found, mut wait_us, mut before) = (false, 0, NONE);
    let mut at = pools.records.first(s.cc.sent);
    while at != NONE {
        let record = *pools.records.get(at);
        if !record.has(mark::SACKED | mark::LOST) && sent_after(latest.us, latest.end, record.us, record.end) {
            let lost_at = record.us.wrapping_add(latest.rtt_us).wrapping_add(reo_wnd);
            let remaining = lost_at.wrapping_sub(now.us32()) as i32;
            if remaining <= 0 {
                board::set_marks(s, pools, at, record.marks | mark::LOST);
                found = true;
            } else {
                wait_us = wait_us.max(remaining.unsigned_abs());
            }
        }
        // Neighbours that have become alike are one from now on.
        if !board::merge_next(s, pools, before) {
            before = at;
        }
        at = pools.records.next(s.cc.sent, before);
    }
    if wait_us > 0 {
        // RFC 8985 6.2-2.
        s.tx.timer = timer::REORDER;
        // One more, as the present millisecond has partly gone.
        s.tx.timer_ms = now.ms32().wrapping_add(wait_us.div_ceil(1000)).wrapping_add(1);
    }
    found
}

/// A timeout: RFC 8985, 6.3, marks the first that is not acknowledged, and what has been out for RACK.rtt + RACK.reo_wnd.
/// RFC 2018 5-3.
pub(crate) fn mark_on_timeout(s: &mut FlowState, pools: &mut Pools, now: Now) {
    let board = pools.boards.get(s.tx.board);
    // Without a measurement everything has been out for long enough.
    let latest = board.rack.latest.filter(|_| s.has(ff::SACK));
    let patience = latest.map_or(0, |l| l.rtt_us.saturating_add(reordering_window(s, board)));
    let (mut before, mut at) = (NONE, pools.records.first(s.cc.sent));
    while at != NONE {
        let record = *pools.records.get(at);
        let recent = age(record.us, now) < patience && record.start.gt(s.snd_una());
        if !recent && !record.has(mark::SACKED | mark::LOST) {
            // With a scoreboard nothing is timed any more, and one record may stand for all.
            board::set_marks(s, pools, at, record.marks & !mark::TIMED | mark::LOST);
        }
        if !board::merge_next(s, pools, before) {
            before = at;
        }
        at = pools.records.next(s.cc.sent, before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ack, flow, flow_of};
    use std::vec::Vec;
    use toe_wire::Timestamps;

    const NOW: Now = Now(1_000_000);

    fn echo(s: &FlowState, ecr: u32) -> SegmentIn {
        SegmentIn { timestamps: Some(Timestamps { val: 1, ecr }), ..ack(s) }
    }

    /// RFC 8985, 6.2, step 2.
    #[test]
    fn an_echo_is_earlier_than_a_copy_if_their_clocks_cannot_explain_it() {
        let mut s = flow();
        s.set(ff::TIMESTAMPS);
        s.rx.ts_offset = 77;
        let of_earlier = |s: &FlowState, age_ms| echoes_earlier(s, &echo(s, ts_now(s, NOW) - age_ms), 5999, NOW);
        assert!(!of_earlier(&s, 0) && !of_earlier(&s, 6) && of_earlier(&s, 7) && of_earlier(&s, 900));
        assert!(!echoes_earlier(&s, &echo(&s, 0), 5999, NOW), "no echo");
        assert!(!echoes_earlier(&s, &ack(&s), 5999, NOW));
        s.set(ff::REORDERED);
        assert!(!of_earlier(&s, 64) && of_earlier(&s, 128), "ticks are longer");
        s.clear(ff::TIMESTAMPS);
        assert!(!of_earlier(&s, 7), "it means nothing");
    }

    /// A peer can keep its window shut, and answer probes, for longer than it takes times to wrap around.
    #[test]
    fn what_arrived_long_ago_is_forgotten_before_it_looks_later_than_what_is_sent_now() {
        let remembered = |age_us| {
            let (mut s, mut pools) = flow_of(&[(NOW.us32(), mark::AGAIN)]);
            s.set(ff::SACK | ff::LOSS);
            let latest = Latest { us: NOW.us32().wrapping_sub(age_us), end: s.snd_una(), rtt_us: 1000 };
            pools.boards.get_mut(s.tx.board).rack.latest = Some(latest);
            assert!(!detect(&mut s, &mut pools, NOW));
            pools.boards.get(s.tx.board).rack.latest.is_some()
        };
        assert!(remembered(1_000_000_000) && !remembered(1 << 30));
    }

    /// RFC 8985 3.3.2-1, 3.3.2-2, 3.3.2-4.
    #[test]
    fn the_reordering_window_is_a_quarter_of_the_least_round_trip() {
        let (mut s, board) = (flow(), Board::default());
        (s.tx.srtt_us, s.tx.min_rtt_us) = (10_000, 4000);
        assert_eq!(reordering_window(&s, &board), 1000);
        s.id.reo_wnd_more = 4;
        assert_eq!(reordering_window(&s, &board), 5000);
        s.id.reo_wnd_more = 20;
        assert_eq!(reordering_window(&s, &board), 10_000);
        (s.id.reo_wnd_more, s.tx.min_rtt_us) = (0, 0);
        assert_eq!(reordering_window(&s, &board), 2500, "the least is not known");
    }

    /// RFC 8985 3.3.2-1: three segments that have arrived behind it, or three ACKs with news.
    #[test]
    fn evidence_of_a_loss_leaves_no_time_for_reordering() {
        let mut s = flow();
        s.tx.srtt_us = 10_000;
        let window = |s: &FlowState, sacked| {
            let mut board = Board::default();
            board.sacked = sacked;
            reordering_window(s, &board)
        };
        assert_eq!((window(&s, 2 * 1460), window(&s, 2 * 1460 + 1)), (2500, 0));
        s.tx.dup_acks = 2;
        assert_eq!(window(&s, 0), 2500);
        s.tx.dup_acks = 3;
        assert_eq!(window(&s, 0), 0);
        for flags in [ff::RECOVERY, ff::LOSS] {
            let mut s = flow();
            (s.tx.srtt_us, s.rx.flags) = (10_000, flags);
            assert_eq!(window(&s, 0), 0);
            s.set(ff::REORDERED);
            assert_eq!(window(&s, 5000), 2500, "where segments overtake each other it is none");
        }
    }

    /// RFC 8985, 6.3.
    #[test]
    fn a_timeout_spares_what_was_sent_within_a_round_trip_and_the_reordering_window() {
        let us = |age| NOW.us32() - age;
        let (mut s, mut pools) =
            flow_of(&[(us(10), 0), (us(4999), 0), (us(5000), mark::AGAIN | mark::TIMED), (us(9000), mark::SACKED), (us(10), 0)]);
        (s.rx.flags, s.tx.srtt_us, s.tx.min_rtt_us) = (ff::SACK, 8000, 4000);
        let board = pools.boards.get_mut(s.tx.board);
        board.rack.latest = Some(Latest { us: us(9000), end: s.snd_una(), rtt_us: 4000 });
        mark_on_timeout(&mut s, &mut pools, NOW);
        let marks: Vec<u8> = pools.records.iter(s.cc.sent).map(|r| r.marks).collect();
        assert_eq!(marks, [mark::LOST, 0, mark::AGAIN | mark::LOST, mark::SACKED, 0]);
    }
}
