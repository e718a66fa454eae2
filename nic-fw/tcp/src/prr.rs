//! Proportional rate reduction (RFC 9937): in recovery cwnd comes down to ssthresh as data is delivered, neither at once nor in bursts.
//!
//! ```text
//!   pipe > ssthresh:   sent = delivered * ssthresh / RecoverFS      (RFC 9937, 6.2)
//!   else:              sent = delivered, and a segment more if all is well: towards ssthresh
//! ```

use crate::board::{Board, pipe};
use crate::pool::Pools;
use crate::state::View;
use toe_abi::flow::FlowState;

/// Of a scoreboard; bytes since recovery began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prr {
    /// prr_delivered, prr_out, RecoverFS.
    delivered: u32,
    out: u32,
    start: u32,
}

/// Recovery begins with an ACK of `acked` bytes in order and `sacked` others, which is given to [`on_ack`] next.
/// RFC 6937 3-1; RFC 8985 9.3-2.
pub(crate) fn begin(s: &FlowState, board: &mut Board, acked: u32, sacked: u32) {
    // RFC 9937, 6.2: "RecoverFS = SND.NXT - SND.UNA", less what was SACKed before, and with what this ACK acknowledges.
    let before = board.sacked.saturating_sub(sacked);
    board.prr = Prr { delivered: 0, out: 0, start: s.outstanding().saturating_sub(before).saturating_add(acked) };
}

/// `bytes` are sent. Before recovery they don't count.
/// RFC 6937 3-5.
pub(crate) fn sent(board: &mut Board, bytes: u32) {
    board.prr.out = board.prr.out.saturating_add(bytes);
}

/// An ACK in recovery delivers `delivered` bytes: what may be sent now. `safe`: snd_una has moved, and nothing more is found lost.
/// RFC 6937 3-2, 3-3; RFC 8985 9.3-2.
pub(crate) fn on_ack(s: &mut FlowState, pools: &mut Pools, delivered: u32, safe: bool) {
    let (pipe, mss, ssthresh) = (pipe(s, pools), s.mss(), s.cc.ssthresh);
    let prr = &mut pools.boards.get_mut(s.tx.board).prr;
    prr.delivered = prr.delivered.saturating_add(delivered);
    let owed = if pipe > ssthresh {
        let share = u64::from(prr.delivered) * u64::from(ssthresh);
        let share = share.div_ceil(u64::from(prr.start.max(1)));
        u32::try_from(share).unwrap_or(u32::MAX).saturating_sub(prr.out)
    } else {
        // PRR-SSRB: "if SafeACK is true: limit += SMSS".
        let limit = prr.delivered.saturating_sub(prr.out).max(delivered).saturating_add(if safe { mss } else { 0 });
        limit.min(ssthresh - pipe)
    };
    // "Force a fast retransmit upon entering recovery".
    let owed = if prr.out == 0 { owed.max(mss) } else { owed };
    s.cc.cwnd = pipe.saturating_add(owed).max(mss);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow_of;

    /// By how much the window exceeds what is in flight, when an ACK delivers 1000 bytes more.
    fn owed(in_flight: u32, ssthresh: u32, prr: Prr, safe: bool) -> u32 {
        let (mut s, mut pools) = flow_of(&[(0, 0)]);
        pools.boards.get_mut(s.tx.board).prr = prr;
        (s.cc.ssthresh, s.tx.snd_max) = (ssthresh, s.snd_una().add(in_flight).0);
        on_ack(&mut s, &mut pools, 1000, safe);
        s.cc.cwnd - in_flight
    }

    /// RFC 6937 3-2, 3-3; RFC 9937, 6.2.
    #[test]
    fn above_ssthresh_in_proportion_below_it_what_arrives() {
        let prr = Prr { delivered: 9000, out: 4000, start: 20_000 };
        assert_eq!(owed(14_001, 14_000, prr, true), 7000 - 4000);
        assert_eq!(owed(14_000, 14_000, prr, true), 0);
        assert_eq!(owed(9000, 14_000, prr, false), 14_000 - 9000, "up to ssthresh");
        assert_eq!(owed(5000, 14_000, prr, false), 10_000 - 4000);
        assert_eq!(owed(5000, 14_000, prr, true), 10_000 - 4000 + 1460);
        let ahead = Prr { out: 9900, ..prr };
        assert_eq!(owed(5000, 14_000, ahead, false), 1000, "what this one delivers at least");
    }

    /// RFC 9937, 6.2: "force a fast retransmit upon entering recovery".
    #[test]
    fn the_first_segment_goes_whatever_is_in_flight() {
        let prr = Prr { delivered: 0, out: 0, start: 100_000 };
        assert_eq!((owed(90_000, 50_000, prr, false), owed(50_000, 50_000, prr, false)), (1460, 1460));
    }
}
