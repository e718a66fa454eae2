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

/// `bytes` are sent in recovery.
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
