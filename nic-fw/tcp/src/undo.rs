//! Reductions of the window that turn out to have been for nothing are taken back.
//!
//! ```text
//!   recovery, or a timeout ──► begin ──retransmission──► sent ──► all of it is reported by D-SACK (RFC 3708), or
//!                                                                 an ACK echoes what was sent before it (Eifel, RFC 3522)
//!                                                                          └──► undo (RFC 4015)
//! ```

use crate::board::{self, Board};
use crate::cc;
use crate::pool::{NONE, Pools};
use crate::records::mark;
use crate::rtt;
use crate::sack::Range;
use crate::state::View;
use crate::{Now, Output, SegmentIn};
use toe_abi::counters::Counter;
use toe_abi::flow::{FlowState, flow_flags as ff};
use toe_wire::SeqNum;

/// Of a scoreboard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Undo {
    stage: Stage,
    /// All that was sent again since the window was reduced lies between these. A D-SACK of something else is about a copy that the network
    /// has made (RFC 3708, 2), or about an earlier retransmission.
    start: SeqNum,
    end: SeqNum,
    /// Bytes sent again that no D-SACK has reported yet.
    unreported: u32,
    /// Our timestamp clock when the first of them was sent.
    first_ts: u32,
    /// It was for a timeout.
    is_timeout: bool,
    /// Until when D-SACKs are waited for after recovery, microseconds mod 2^32.
    until_us: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    /// Nothing to take back.
    #[default]
    None,
    Reduced,
    /// And something was sent again.
    Sent,
    /// And recovery has ended since.
    Waiting,
}

impl Undo {
    /// Whether there is still something to wait for.
    pub(crate) fn is_waiting(&self, now: Now) -> bool {
        self.stage == Stage::Waiting && (self.until_us.wrapping_sub(now.us32()) as i32) > 0
    }
}

/// The window has been reduced.
pub(crate) fn begin(board: &mut Board, is_timeout: bool) {
    board.undo = Undo { stage: Stage::Reduced, is_timeout, ..Undo::default() };
}

/// [start, end) is sent again, at `ts` of our timestamp clock.
pub(crate) fn sent(board: &mut Board, (start, end): Range, ts: u32) {
    let undo = &mut board.undo;
    if undo.stage == Stage::Reduced {
        (undo.stage, undo.first_ts) = (Stage::Sent, ts);
        (undo.start, undo.end) = (start, end);
    }
    (undo.start, undo.end) = (undo.start.min(start), undo.end.max(end));
    undo.unreported = undo.unreported.saturating_add(end.since(start));
}

/// The peer had this before.
pub(crate) fn on_dsack(board: &mut Board, (start, end): Range) {
    let undo = &mut board.undo;
    if start.ge(undo.start) && end.le(undo.end) {
        undo.unreported = undo.unreported.saturating_sub(end.since(start));
    }
}

/// Recovery has ended, and may still prove to have been for nothing.
pub(crate) fn recovered(s: &FlowState, board: &mut Board, now: Now) {
    if board.undo.stage == Stage::Sent && s.has(ff::SACK) {
        board.undo.stage = Stage::Waiting;
        board.undo.until_us = now.us32().wrapping_add(wait_us(s));
    }
}

/// How long D-SACKs of what was sent again are waited for, microseconds.
pub(crate) fn wait_us(s: &FlowState) -> u32 {
    s.tx.srtt_us.saturating_mul(2).min(1 << 30)
}

/// Whether the reduction was for nothing. `advanced`: the ACK has moved snd_una.
/// RFC 9438 4.9.2-1.
pub(crate) fn is_due(s: &FlowState, board: &Board, seg: &SegmentIn, advanced: bool) -> bool {
    let undo = &board.undo;
    if !matches!(undo.stage, Stage::Sent | Stage::Waiting) {
        return false;
    }
    // RFC 3522, 3.2, step (4): the ACK is for what was sent again, and "the timestamp echo is earlier than that of the first retransmit".
    let eifel = |ecr: u32| seg.ack.gt(undo.start) && (ecr.wrapping_sub(undo.first_ts) as i32) < 0;
    let answered = advanced && undo.stage == Stage::Sent;
    undo.unreported == 0 || answered && rtt::echo(s, seg.timestamps).is_some_and(eifel)
}

/// Everything as before the reduction: RFC 4015, 3.2. What was taken for lost is in flight.
pub(crate) fn undo(s: &mut FlowState, pools: &mut Pools, out: &mut Output) {
    let mut at = pools.records.first(s.cc.sent);
    while at != NONE {
        let marks = pools.records.get(at).marks;
        board::set_marks(s, pools, at, marks & !mark::LOST);
        at = pools.records.next(s.cc.sent, at);
    }
    let board = pools.boards.get_mut(s.tx.board);
    // Its recovery may be over.
    let is_timeout = s.has(ff::LOSS) || board.undo.is_timeout;
    (board.undo, board.frto, board.forced) = (Undo::default(), crate::frto::Stage::Off, false);
    board.rack.forget();
    if cc::undo(s) {
        s.clear(ff::CWR);
    }
    if s.has(ff::LOSS) {
        // RFC 5682, 2.1, (3b): "set the value of the "recover" variable to SND.UNA".
        s.cc.recover = s.tx.snd_una;
    }
    if is_timeout {
        out.counts.add(Counter::TxSpuriousTimeouts);
    } else {
        out.counts.add(Counter::TxSpuriousRecoveries);
        // What was sent again is not among what RACK sees arrive in another order (RFC 8985, 6.2, step 3).
        s.set(ff::REORDERED);
    }
    s.clear(ff::RECOVERY | ff::LOSS);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ack, flow};
    use toe_wire::Timestamps;

    /// RFC 3522, 3.2, step (4).
    #[test]
    fn an_echo_of_the_original_is_proof_while_it_can_be() {
        let due = |flags, stage, advanced, ack_to: u32, ecr| {
            let (mut s, mut board) = (flow(), Board::default());
            s.set(flags);
            let start = s.snd_una().add(1000);
            board.undo = Undo { stage, start, end: start.add(1000), unreported: 1000, first_ts: 500, ..Undo::default() };
            let seg = SegmentIn { ack: s.snd_una().add(ack_to), timestamps: Some(Timestamps { val: 1, ecr }), ..ack(&s) };
            is_due(&s, &board, &seg, advanced)
        };
        assert!(due(ff::TIMESTAMPS, Stage::Sent, true, 1001, 499));
        assert!(!due(ff::TIMESTAMPS, Stage::Sent, true, 1001, 500) && !due(ff::TIMESTAMPS, Stage::Sent, true, 1001, 0));
        assert!(!due(ff::TIMESTAMPS, Stage::Sent, true, 1000, 499), "it is for what was sent before that");
        assert!(!due(ff::TIMESTAMPS, Stage::Sent, false, 1001, 499) && !due(0, Stage::Sent, true, 1001, 499));
        for stage in [Stage::None, Stage::Reduced, Stage::Waiting] {
            assert!(!due(ff::TIMESTAMPS, stage, true, 1001, 499), "{stage:?}");
        }
    }

    #[test]
    fn only_what_was_sent_again_since_the_reduction_has_to_be_reported() {
        let (mut s, mut board) = (flow(), Board::default());
        s.tx.snd_una = 0xf000_0000;
        let (una, next) = (s.snd_una(), s.snd_una().add(1000));
        begin(&mut board, false);
        sent(&mut board, (una, next), 0);
        on_dsack(&mut board, (una.sub_len(1000), una));
        assert_eq!(board.undo.unreported, 1000, "that was of an earlier one");
        on_dsack(&mut board, (una, next));
        assert_eq!(board.undo.unreported, 0);
    }

    #[test]
    fn proof_is_waited_for_until_a_given_time() {
        let waiting = |stage, until_us, now| Undo { stage, until_us, ..Undo::default() }.is_waiting(Now(now));
        assert!(waiting(Stage::Waiting, 100, 99) && waiting(Stage::Waiting, 5, u64::from(u32::MAX)));
        assert!(!waiting(Stage::Waiting, 100, 100) && !waiting(Stage::Waiting, 100, 101));
        assert!(!waiting(Stage::Sent, 100, 99), "recovery goes on");
    }
}
