//! The scoreboard of a flow: what its records add up to, and where recovery stands. A flow has one from the first sign that something is
//! missing (a SACK block, a probe, a timeout) until all is calm again (without SACK: from a timeout until all is acknowledged that was in
//! flight then); without one, all that was sent is in flight.
//!
//! ```text
//!   calm ──SACK, probe, timeout──► open ──nothing missing, nothing to undo──► calm
//!                                    └──no record for what has to be told apart──► given up: NewReno and timeouts (RFC 6582)
//! ```

use crate::Now;
use crate::pool::{Handle, NONE, Pools};
use crate::prr::Prr;
use crate::rack::Rack;
use crate::records::{self, Record, age, is_later, mark};
use crate::state::View;
use crate::undo::Undo;
use toe_abi::flow::{FlowState, flow_flags as ff};
use toe_wire::SeqNum;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Board {
    /// Bytes of records that are SACKED, and LOST.
    pub(crate) sacked: u32,
    pub(crate) lost: u32,
    /// Records of the flow.
    pub(crate) records: u32,
    pub(crate) rack: Rack,
    pub(crate) prr: Prr,
    pub(crate) undo: Undo,
    /// F-RTO's state (RFC 5682).
    pub(crate) frto: crate::frto::Stage,
    /// A tail loss probe is out: snd_max when it was sent, and whether it was a retransmission (RFC 8985, 7.1: TLP.end_seq,
    /// TLP.is_retrans).
    pub(crate) probe: Option<crate::tlp::Probe>,
    /// What was last sent again: when, microseconds mod 2^32, and its end.
    again: Option<(u32, SeqNum)>,
    /// The next retransmission doesn't ask cwnd: the one of a timeout.
    pub(crate) forced: bool,
}

/// A flow keeps no more records than this while it has a scoreboard: what an ACK can cost is bounded by it.
const RECORDS_MAX: u32 = 2 * CUT_MAX;
/// And no more than this by what blocks of SACK say. The rest is for what is sent again: a flow with so many holes can still fill them.
const CUT_MAX: u32 = 512;

/// A quarter of the clock's circle, 18 minutes: whatever was sent before has long timed out.
const OLD_US: u32 = 1 << 30;

impl Board {
    /// A record has come into being, or has got its marks.
    pub(crate) fn add(&mut self, record: &Record) {
        self.sacked += if record.has(mark::SACKED) { record.len() } else { 0 };
        self.lost += if record.has(mark::LOST) { record.len() } else { 0 };
    }

    /// A record, or a part of it, is no more, or is about to get other marks.
    pub(crate) fn sub(&mut self, record: &Record) {
        self.sacked -= if record.has(mark::SACKED) { record.len() } else { 0 };
        self.lost -= if record.has(mark::LOST) { record.len() } else { 0 };
    }

    /// Nothing is in flight: what was sent last was sent before all that comes.
    pub(crate) fn forget_times(&mut self) {
        self.again = None;
    }

    /// What was sent again long ago is not to lie ahead one day: the clock is a circle.
    pub(crate) fn forget_old_times(&mut self, now: Now) {
        self.again = self.again.filter(|&(us, _)| age(us, now) < OLD_US);
        self.rack.forget_old(now, OLD_US);
    }
}

/// The flow's scoreboard, which is made if there is none. False: it can't have one now.
/// RFC 8985 4-1.
pub(crate) fn open(s: &mut FlowState, pools: &mut Pools) -> bool {
    if s.tx.board != NONE {
        return true;
    }
    // What was sent again without a scoreboard has no records.
    if !records::is_complete(s, pools) {
        return false;
    }
    let count = pools.records.iter(s.cc.sent).count() as u32;
    let board = Board { records: count, rack: Rack::new(s.snd_una()), ..Board::default() };
    let Some(board) = pools.take_board(board) else { return false };
    s.tx.board = board;
    s.clear(ff::RTT_PENDING);
    s.tx.dup_acks = 0;
    true
}

/// Gives the scoreboard back when nothing is missing any more.
pub(crate) fn close_if_calm(s: &mut FlowState, pools: &mut Pools, now: Now) {
    if s.tx.board == NONE || s.has(ff::RECOVERY | ff::LOSS) {
        return;
    }
    let board = pools.boards.get(s.tx.board);
    if board.sacked == 0 && board.lost == 0 && board.probe.is_none() && !board.undo.is_waiting(now) {
        close(s, pools);
    }
}

fn close(s: &mut FlowState, pools: &mut Pools) {
    if s.tx.board != NONE {
        pools.boards.give(s.tx.board);
        s.tx.board = NONE;
    }
}

/// Everything that the flow holds of the pools goes back.
pub(crate) fn forget(s: &mut FlowState, pools: &mut Pools) {
    close(s, pools);
    records::give_up(s, pools);
    pools.records.clear(&mut s.cc.ooo_more);
}

/// On without a scoreboard: recovery goes on as RFC 6582 has it.
pub(crate) fn give_up(s: &mut FlowState, pools: &mut Pools) {
    records::give_up(s, pools);
    close(s, pools);
    s.tx.dup_acks = 0;
    s.clear(ff::TLP_DUE);
    if s.has(ff::RECOVERY) {
        s.cc.cwnd = s.cc.ssthresh.max(s.mss());
        s.set(ff::REXMIT_ONE);
    } else if s.has(ff::LOSS) {
        s.tx.snd_nxt = s.tx.snd_una;
        s.set(ff::REXMIT_ONE);
    } else {
        s.clear(ff::REXMIT_ONE);
    }
}

/// Bytes in flight: RFC 6675, 4, (SetPipe), and without a scoreboard RFC 5681's FlightSize, or what has been sent since a timeout.
/// RFC 6675 4-3.
pub(crate) fn pipe(s: &FlowState, pools: &Pools) -> u32 {
    if s.tx.board == NONE {
        return s.snd_nxt().since_or_zero(s.snd_una());
    }
    let board = pools.boards.get(s.tx.board);
    s.outstanding().saturating_sub(board.sacked + board.lost)
}

/// Gives a record other marks.
pub(crate) fn set_marks(s: &FlowState, pools: &mut Pools, handle: Handle, marks: u8) {
    let Pools { records, boards, .. } = pools;
    let (board, record) = (boards.get_mut(s.tx.board), records.get_mut(handle));
    board.sub(record);
    record.marks = marks;
    board.add(record);
}

/// As `split`, for a block of SACK.
pub(crate) fn cut(s: &mut FlowState, pools: &mut Pools, handle: Handle, at: SeqNum) -> Option<Handle> {
    if pools.boards.get(s.tx.board).records >= CUT_MAX { None } else { split(s, pools, handle, at) }
}

/// Cuts a record of a flow with a scoreboard in two. `None`: there is no record for the second part.
pub(crate) fn split(s: &mut FlowState, pools: &mut Pools, handle: Handle, at: SeqNum) -> Option<Handle> {
    if pools.boards.get(s.tx.board).records >= RECORDS_MAX {
        return None;
    }
    let second = records::split(s, pools, handle, at)?;
    pools.boards.get_mut(s.tx.board).records += 1;
    Some(second)
}

/// Makes one record of `handle` and of the one behind it, if one can stand for both.
pub(crate) fn merge_next(s: &mut FlowState, pools: &mut Pools, handle: Handle) -> bool {
    let next = if handle == NONE { NONE } else { pools.records.next(s.cc.sent, handle) };
    if next == NONE || !pools.records.get(handle).is_like(pools.records.get(next)) {
        return false;
    }
    let gone = pools.records.remove(&mut s.cc.sent, handle);
    let kept = pools.records.get_mut(handle);
    kept.end = gone.end;
    // If they prove not to be lost after all.
    if is_later(gone.us, kept.us) {
        kept.us = gone.us;
    }
    pools.boards.get_mut(s.tx.board).records -= 1;
    true
}

/// A record is being sent again. That is later than all that was sent before, although the clock may not have moved: RACK goes by the
/// order.
/// RFC 8985 7.3-5.
pub(crate) fn sent_again(s: &FlowState, pools: &mut Pools, handle: Handle, now: Now) {
    set_marks(s, pools, handle, mark::AGAIN);
    let newest = *pools.records.get(s.cc.sent);
    let (board, record) = (pools.boards.get_mut(s.tx.board), pools.records.get_mut(handle));
    let mut us = now.us32();
    if newest.us == us || is_later(newest.us, us) && !newest.has(mark::LOST) {
        us = newest.us.wrapping_add(1);
    }
    if let Some((again_us, again_end)) = board.again {
        // At one time, what lies higher counts as sent later.
        let earliest = if record.start.ge(again_end) { again_us } else { again_us.wrapping_add(1) };
        us = if is_later(earliest, us) { earliest } else { us };
    }
    record.us = us;
    board.again = Some((us, record.end));
}

/// New data is being sent: see [`records::sent`]. Where it can't be told apart from what has other marks, the scoreboard ends.
pub(crate) fn sent(s: &mut FlowState, pools: &mut Pools, start: SeqNum, end: SeqNum, now: Now) {
    let last = s.cc.sent;
    if s.tx.board == NONE {
        records::sent(s, pools, (start, end), now.us32(), false);
        return;
    }
    let board = pools.boards.get(s.tx.board);
    let again_us = board.again.map(|(us, _)| us);
    let us = again_us.filter(|&us| is_later(us, now.us32())).unwrap_or(now.us32());
    let apart = board.records < RECORDS_MAX && again_us.is_some_and(|us| is_later(us, pools.records.get(last).us));
    let kept = records::sent(s, pools, (start, end), us, apart);
    if !kept {
        give_up(s, pools);
    } else if s.cc.sent != last {
        pools.boards.get_mut(s.tx.board).records += 1;
    }
}

/// Whether the records have no gaps, and the sums are theirs: what all the rest relies on. For debug builds and tests.
pub(crate) fn is_sound(s: &FlowState, pools: &Pools) -> bool {
    let records = || pools.records.iter(s.cc.sent);
    let sum = |marks: u8| records().filter(|r| r.has(marks)).map(Record::len).sum::<u32>();
    let adjacent = records().zip(records().skip(1)).all(|(a, b)| a.end == b.start);
    let whole = records().all(|r| r.start.lt(r.end) && r.marks & (mark::SACKED | mark::LOST) != mark::SACKED | mark::LOST);
    let spans =
        records().next().is_none_or(|first| first.start.ge(s.snd_una())) && records().last().is_none_or(|last| last.end == s.snd_max());
    let summed = s.tx.board == NONE || {
        let board = pools.boards.get(s.tx.board);
        let begins = records().next().map_or(s.snd_max(), |first| first.start) == s.snd_una();
        begins
            && s.snd_nxt() == s.snd_max()
            && (board.sacked, board.lost, board.records) == (sum(mark::SACKED), sum(mark::LOST), records().count() as u32)
    };
    let calm = s.tx.board != NONE || sum(mark::SACKED | mark::LOST) == 0;
    adjacent && whole && spans && summed && calm
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rack;
    use crate::testing::flow_of;
    use std::vec::Vec;

    const LEN: u32 = 1000;

    fn times(s: &FlowState, pools: &Pools) -> Vec<u32> {
        pools.records.iter(s.cc.sent).map(|r| r.us).collect()
    }

    #[test]
    fn one_record_stands_for_lost_neighbours_with_the_later_time() {
        for (first, second, later) in [(5, 9, 9), (9, 5, 9), (u32::MAX, 3, 3)] {
            let (mut s, mut pools) = flow_of(&[(first, mark::LOST), (second, mark::LOST), (20, 0)]);
            let at = pools.records.first(s.cc.sent);
            assert!(merge_next(&mut s, &mut pools, at) && !merge_next(&mut s, &mut pools, at));
            assert_eq!(times(&s, &pools), [later, 20]);
            assert!(is_sound(&s, &pools));
        }
    }

    #[test]
    fn what_is_in_flight_shares_a_record_with_what_was_sent_at_the_same_time() {
        let (mut s, mut pools) = flow_of(&[(5, 0), (5, 0), (6, 0)]);
        let at = pools.records.first(s.cc.sent);
        assert!(!merge_next(&mut s, &mut pools, NONE));
        assert!(merge_next(&mut s, &mut pools, at) && !merge_next(&mut s, &mut pools, at));
        assert_eq!(times(&s, &pools), [5, 6]);
    }

    /// RFC 8985 7.3-5. The clock may stand still, and what was lost long ago says nothing.
    #[test]
    fn what_is_sent_again_is_later_than_all_that_was_sent_before() {
        let time_of = |newest| {
            let (s, mut pools) = flow_of(&[(100, mark::LOST), newest]);
            let at = pools.records.first(s.cc.sent);
            sent_again(&s, &mut pools, at, Now(500));
            times(&s, &pools)[0]
        };
        assert_eq!((time_of((100, 0)), time_of((500, 0)), time_of((510, 0))), (500, 501, 511));
        assert_eq!((time_of((1 << 30, mark::LOST)), time_of((1 << 30, 0))), (500, (1 << 30) + 1));
    }

    #[test]
    fn of_what_is_sent_again_at_one_time_the_higher_is_the_later() {
        let times_of = |order: [usize; 2]| {
            let (s, mut pools) = flow_of(&[(100, mark::LOST), (100, mark::LOST), (200, 0)]);
            let first = pools.records.first(s.cc.sent);
            let handles = [first, pools.records.next(s.cc.sent, first)];
            order.iter().for_each(|&i| sent_again(&s, &mut pools, handles[i], Now(500)));
            times(&s, &pools)
        };
        assert_eq!((times_of([0, 1]), times_of([1, 0])), ([500, 500, 200].into(), [501, 500, 200].into()));
    }

    /// Two segments more, in as many records. The round trip is so long that they would share one.
    fn grow(s: &mut FlowState, pools: &mut Pools, now: Now) -> u32 {
        s.tx.srtt_us = 1_000_000;
        let before = pools.boards.get(s.tx.board).records;
        for _ in 0..2 {
            let (start, end) = (s.snd_max(), s.snd_max().add(LEN));
            (s.tx.snd_nxt, s.tx.snd_max) = (end.0, end.0);
            sent(s, pools, start, end, now);
        }
        assert!(is_sound(s, pools));
        pools.boards.get(s.tx.board).records - before
    }

    #[test]
    fn new_data_behind_a_retransmission_has_a_record_of_its_own() {
        let (mut s, mut pools) = flow_of(&[(100, mark::LOST), (200, 0)]);
        assert_eq!(grow(&mut s, &mut pools, Now(300)), 0);
        let at = pools.records.first(s.cc.sent);
        sent_again(&s, &mut pools, at, Now(400));
        assert_eq!(grow(&mut s, &mut pools, Now(390)), 1);
        assert_eq!(times(&s, &pools), [400, 200, 400], "no sooner than that");
        assert_eq!(grow(&mut s, &mut pools, Now(500)), 0);
    }

    #[test]
    fn a_retransmission_of_long_ago_is_not_taken_for_one_to_come() {
        let (mut s, mut pools) = flow_of(&[(100, mark::LOST), (200, 0)]);
        let at = pools.records.first(s.cc.sent);
        sent_again(&s, &mut pools, at, Now(400));
        // For more than half of the clock's circle there is never a time without a hole, but nothing is lost any more.
        for us in [500, 1 << 30, 3 << 29, 1 << 31, 3 << 30] {
            rack::detect(&mut s, &mut pools, Now(us));
            grow(&mut s, &mut pools, Now(us));
            assert_eq!(times(&s, &pools).last().copied(), Some(us as u32));
        }
    }

    #[test]
    fn an_acknowledgement_has_a_bounded_number_of_records_to_look_at() {
        for (many, room) in [(RECORDS_MAX - 1, 1), (RECORDS_MAX, 0)] {
            let mut records = Vec::from([(100, mark::LOST)]);
            records.resize(many as usize, (200, 0));
            let (mut s, mut pools) = flow_of(&records);
            let at = pools.records.first(s.cc.sent);
            sent_again(&s, &mut pools, at, Now(400));
            assert_eq!(grow(&mut s, &mut pools, Now(400)), room);
            let first_half = s.snd_una().add(LEN / 2);
            assert_eq!(split(&mut s, &mut pools, at, first_half), None);
        }
    }
}
