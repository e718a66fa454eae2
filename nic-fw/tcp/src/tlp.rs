//! Tail loss probe (RFC 8985, 7): when ACKs stop coming, something is sent that asks for one, before the retransmission timer ends it all.
//!
//! ```text
//!   sent ──2 SRTT without an ACK──► probe: new data, or the last segment again ──► an ACK with SACK: recovery
//!                                                                                └► none: timeout
//! ```

use crate::board::{self, Board};
use crate::output::ts_now;
use crate::pool::{NONE, Pools};
use crate::records::age;
use crate::rtt::rto_ms;
use crate::sack::Range;
use crate::send::{self, Verdict};
use crate::state::View;
use crate::{Now, Output, SegmentIn, SegmentOut, cc, undo};
use toe_abi::counters::Counter;
use toe_abi::flow::{FlowState, flow_flags as ff, timer};
use toe_wire::SeqNum;

/// A probe that is out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// TLP.end_seq: snd_max when it was sent.
    end: SeqNum,
    /// What was sent again, TLP.is_retrans: where it began, and our timestamp clock then.
    again: Option<(SeqNum, u32)>,
    /// Recovery has begun since: the window has been reduced for whatever this has repaired.
    is_settled: bool,
}

impl Probe {
    /// Whether it may have repaired a loss that nothing else tells of.
    fn may_repair(&self) -> bool {
        self.again.is_some() && !self.is_settled
    }
}

/// RFC 8985, 7.2, TLP.max_ack_delay: a receiver may take so long over a single segment.
const MAX_ACK_DELAY_MS: u32 = 200;
/// As Linux, for clocks that tick in milliseconds and receivers that wait for more.
const SLACK_MS: u32 = 2;

/// Whether a probe is what comes next (RFC 8985, 7.2): "unless it is already in fast recovery, RTO recovery, or the sender has segments
/// delivered out of order".
/// RFC 8985 7.2-1, 7.3-1.
pub(crate) fn is_wanted(s: &FlowState, pools: &Pools) -> bool {
    let calm = !s.has(ff::RECOVERY | ff::LOSS) && s.tx.backoff == 0 && s.tx.snd_wnd > 0;
    // RFC 8985, 7.3: a round trip has been measured since the last probe. The records are what the answer is judged by.
    let possible = s.has(ff::SACK) && !s.has(ff::PROBED) && s.tx.srtt_us > 0 && s.cc.sent != NONE;
    // "No outstanding loss probe", and nothing delivered out of order.
    let board = (s.tx.board != NONE).then(|| pools.boards.get(s.tx.board));
    calm && possible && board.is_none_or(|b| b.probe.is_none() && b.sacked == 0)
}

/// RFC 8985, 7.2, TLP_calc_PTO(), milliseconds.
/// RFC 8985 7.2-3, 7.2-4.
pub(crate) fn timeout_ms(s: &FlowState, pools: &Pools, now: Now) -> u32 {
    let (pto, rto) = (pto_ms(s), rto_ms(s));
    // "If the RTO expires before: PTO = RTO_expiration - Now()". It would run since the first of what is in flight was sent, or something was
    // last received: new data does not start it anew.
    let silent_ms = now.ms32().wrapping_sub(s.rx.last_rx_ms);
    if silent_ms <= rto.saturating_sub(pto) {
        return pto.min(rto);
    }
    let first = pools.records.get(pools.records.first(s.cc.sent));
    pto.min(rto.saturating_sub(silent_ms.min(age(first.us, now) / 1000)))
}

fn pto_ms(s: &FlowState) -> u32 {
    let ack_delay = if s.outstanding() <= s.mss() { MAX_ACK_DELAY_MS } else { SLACK_MS };
    (s.tx.srtt_us.saturating_mul(2) / 1000).saturating_add(ack_delay)
}

/// The timer has expired. False: without a scoreboard there is no probe.
/// RFC 8985 7.3-2, 7.3-1.
pub(crate) fn expire(s: &mut FlowState, pools: &mut Pools, out: &mut Output) -> bool {
    if !is_wanted(s, pools) || !board::open(s, pools) {
        return false;
    }
    s.set(ff::TLP_DUE);
    out.counts.add(Counter::TxTailProbes);
    true
}

/// RFC 8985, 7.3, TLP_send_probe(). New data goes in spite of cwnd.
/// RFC 8985 7.3-3, 7.3-4, 7.3-6.
pub(crate) fn probe(s: &mut FlowState, pools: &mut Pools, now: Now, max_payload: u32) -> Option<SegmentOut> {
    if s.tx.board == NONE || s.outstanding() == 0 {
        return None;
    }
    let max = max_payload.min(s.mss());
    let (out, again) = match send::plan(s, max, max) {
        Verdict::Send { len, fin } => (send::data(s, pools, now, len, fin), None),
        _ => {
            let out = last_segment(s, pools, now, max);
            let start = out.seq;
            (out, Some((start, ts_now(s, now))))
        }
    };
    if s.tx.board != NONE {
        pools.boards.get_mut(s.tx.board).probe = Some(Probe { end: s.snd_max(), again, is_settled: false });
    }
    s.set(ff::PROBED);
    // "The sender MUST then arm the RTO timer, not the PTO timer": rearm() sees that a probe is out.
    s.tx.timer = timer::NONE;
    Some(out)
}

/// The highest segment that was sent, once more.
/// RFC 8985 7.3-4, 7.3-5.
fn last_segment(s: &mut FlowState, pools: &mut Pools, now: Now, max: u32) -> SegmentOut {
    let last = s.cc.sent;
    let record = *pools.records.get(last);
    let data_end = s.snd_max().min(s.tx_end());
    let fin = s.snd_max().gt(data_end);
    let from = data_end.sub_len(max.min(data_end.since_or_zero(record.start)));
    let part = if from.gt(record.start) { board::split(s, pools, last, from) } else { Some(last) };
    // If it can't be told apart from what was sent with it, all of that counts as sent again.
    board::sent_again(s, pools, part.unwrap_or(last), now);
    send::again(s, pools, now, from, data_end.since(from), fin)
}

/// Whether a range that was received twice is the probe's.
pub(crate) fn is_of_probe(board: &Board, (_, end): Range) -> bool {
    board.probe.is_some_and(|probe| probe.again.is_some() && probe.end == end)
}

/// Recovery begins (RFC 8985, 7.1: "reset TLP.is_retrans and TLP.end_seq when initiating fast recovery"). A D-SACK of the probe still has to be
/// known as its.
pub(crate) fn recovery_begins(board: &mut Board) {
    board.probe.iter_mut().for_each(|probe| probe.is_settled = true);
}

/// After a timeout there is no probe any more; but the peer may have its copy too, and reports that as it does others (as in Linux).
pub(crate) fn timed_out(board: &mut Board) {
    if let Some(Probe { end, again: Some((start, ts)), .. }) = board.probe.take() {
        undo::sent(board, (start, end), ts);
    }
}

/// RFC 8985, 7.4.2, TLP_process_ack(). `repeats`: the ACK has nothing new and no SACK; nothing need be in flight.
/// RFC 8985 7.4.2-1, 7.4.2-2.
pub(crate) fn on_ack(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, dsack: Option<Range>, repeats: bool, out: &mut Output) {
    let Some(probe) = pools.boards.get(s.tx.board).probe else { return };
    if seg.ack.lt(probe.end) {
        return;
    }
    let board = pools.boards.get(s.tx.board);
    let (needless, beyond) = (dsack.is_some_and(|range| is_of_probe(board, range)), seg.ack.gt(probe.end));
    if !(probe.again.is_none() || needless || beyond || repeats) {
        return;
    }
    pools.boards.get_mut(s.tx.board).probe = None;
    if probe.may_repair() && !needless && beyond {
        repaired(s, out);
    }
}

/// Nothing is in flight, and a D-SACK of the probe would have come by now: the loss was real.
pub(crate) fn settle(s: &mut FlowState, pools: &mut Pools, out: &mut Output) {
    if pools.boards.get_mut(s.tx.board).probe.take().is_some_and(|probe| probe.may_repair()) {
        repaired(s, out);
    }
}

/// The probe has repaired a loss that nothing else tells of: "invoke a congestion control response equivalent to a fast recovery".
fn repaired(s: &mut FlowState, out: &mut Output) {
    if s.has(ff::RECOVERY | ff::LOSS) {
        return;
    }
    let cwnd = s.cc.cwnd;
    cc::on_loss(s, cwnd);
    // What was sent again before it says nothing of this one.
    cc::stand(s);
    s.cc.cwnd = s.cc.cwnd.min(s.cc.ssthresh);
    if s.has(ff::ECN) {
        s.set(ff::CWR);
    }
    out.counts.add(Counter::TxTailRepairs);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow_of;

    /// RFC 8985 7.2-1, 7.3-1.
    #[test]
    fn a_probe_is_wanted_while_all_is_calm() {
        let wanted = |change: fn(&mut FlowState, &mut Pools)| {
            let (mut s, mut pools) = flow_of(&[(0, 0)]);
            (s.rx.flags, s.tx.srtt_us) = (ff::SACK, 1000);
            change(&mut s, &mut pools);
            is_wanted(&s, &pools)
        };
        assert!(wanted(|_, _| {}));
        assert!(
            wanted(|s, pools| s.tx.board = {
                pools.boards.give(s.tx.board);
                NONE
            }),
            "and without a scoreboard"
        );
        assert!(!wanted(|s, _| s.set(ff::RECOVERY)) && !wanted(|s, _| s.set(ff::LOSS)) && !wanted(|s, _| s.tx.backoff = 1));
        assert!(!wanted(|s, _| s.tx.snd_wnd = 0), "that is for probes of a closed window");
        assert!(!wanted(|s, _| s.clear(ff::SACK)) && !wanted(|s, _| s.set(ff::PROBED)) && !wanted(|s, _| s.tx.srtt_us = 0));
        assert!(!wanted(|s, pools| pools.records.clear(&mut s.cc.sent)));
        assert!(!wanted(|s, pools| pools.boards.get_mut(s.tx.board).sacked = 1));
        assert!(!wanted(
            |s, pools| pools.boards.get_mut(s.tx.board).probe = Some(Probe { end: s.snd_max(), again: None, is_settled: false })
        ));
    }

    /// RFC 8985 7.2-3, 7.2-4.
    #[test]
    fn it_comes_after_two_round_trips_and_before_the_retransmission_timer() {
        let (mut s, pools) = flow_of(&[(0, 0), (0, 0)]);
        let timeout_ms = |s: &FlowState| timeout_ms(s, &pools, Now(0));
        (s.tx.srtt_us, s.tx.rttvar_us) = (30_000, 0);
        assert_eq!(timeout_ms(&s), 2 * 30 + SLACK_MS);
        s.tx.snd_max = s.snd_una().add(s.mss()).0;
        assert_eq!(timeout_ms(&s), rto_ms(&s), "30 + 200 is less than 2 * 30 + 200");
        s.tx.rttvar_us = 200_000;
        assert_eq!(timeout_ms(&s), 2 * 30 + MAX_ACK_DELAY_MS);
    }

    #[test]
    fn nothing_is_probed_without_a_scoreboard_or_something_in_flight() {
        let (mut s, mut pools) = flow_of(&[(0, 0)]);
        let mut without = s;
        without.tx.board = NONE;
        assert_eq!(probe(&mut without, &mut pools, Now(0), 1460), None);
        (s.tx.snd_una, s.tx.tx_head) = (s.tx.snd_max, 1000);
        assert_eq!(probe(&mut s, &mut pools, Now(0), 1460), None);
    }

    #[test]
    fn only_the_segment_that_was_repeated_is_the_probe_s() {
        let (start, end) = (SeqNum(1000), SeqNum(2000));
        let of = |again, range| {
            let mut board = Board::default();
            board.probe = Some(Probe { end, again, is_settled: false });
            is_of_probe(&board, range)
        };
        let again = Some((start, 0));
        assert!(of(again, (start, end)) && !of(None, (start, end)) && !of(again, (start, SeqNum(1999))));
        assert!(!is_of_probe(&Board::default(), (start, end)));
    }
}
