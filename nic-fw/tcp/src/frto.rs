//! F-RTO (RFC 5682): was a timeout spurious? After it the first segment is sent again, then new data. If acknowledgements come for what was
//! not sent again, nothing was lost. With SACK any news of it tells (3.1), without it an ACK of nothing else (2.1).
//!
//! ```text
//!   timeout ──► Watch ──snd_una moves──► New: two new segments instead of retransmissions ──┬─original arrives──► undo
//!     ▲           └──────────────────── no new data, duplicate ACK, all acknowledged ───────┴──► Off: as usual
//!     └── again in Watch or New: from the beginning
//! ```

use crate::pool::{NONE, Pools};
use crate::records::mark;
use crate::sack::News;
use crate::send;
use crate::state::View;
use toe_abi::flow::{FlowState, flow_flags as ff};

/// Of a scoreboard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Stage {
    #[default]
    Off,
    /// (1): the first segment is being sent again.
    Watch,
    /// (2b): new data instead of retransmissions until the next ACK.
    New,
}

/// What an ACK says that has moved snd_una (`advanced`), or is a `duplicate`. True: the timeout was spurious.
/// RFC 5682 2.1-1, 3.1-1, 3.1-2; RFC 9438 4.9.1-1.
pub(crate) fn on_ack(s: &mut FlowState, pools: &mut Pools, news: &News, advanced: bool, duplicate: bool) -> bool {
    let stage = pools.boards.get(s.tx.board).frto;
    if stage == Stage::Off || !s.has(ff::LOSS) {
        return false;
    }
    // (3b): "the acknowledgment [...] acknowledges data that was not retransmitted after the timeout".
    if news.original {
        return true;
    }
    // Of the peer's own data, and of its window: "ignore such segments".
    // RFC 5682 2.1-4.
    if !advanced && !duplicate {
        return false;
    }
    // (2a) and (3a): after duplicate ACKs, of which those with SACKs of the new data only are some, the loss was real. So it was if the ACK
    // is for a part of what was sent again (which SACK leaves open).
    // (2b): "transmit up to two new segments", if there is something new. It lies beyond the recovery point, which stays where the timeout
    // has put it: what was sent since then tells nothing of what was sent before.
    let whole = s.has(ff::SACK) || !begins_with_copy(s, pools);
    let possible = advanced && whole && send::has_data(s, pools);
    if stage == Stage::New && !possible {
        // (3a): "set the congestion window to no more than 3 * MSS". Without SACK the two new ones stay in flight as far as we know.
        s.cc.cwnd = 3 * s.mss();
    }
    pools.boards.get_mut(s.tx.board).frto = if possible { Stage::New } else { Stage::Off };
    false
}

/// The window while new data is sent instead of retransmissions.
pub(crate) fn window(s: &FlowState, pools: &Pools) -> u32 {
    match pools.boards.get(s.tx.board).frto {
        Stage::New => s.cc.cwnd.min(2 * s.mss()),
        Stage::Off | Stage::Watch => s.cc.cwnd,
    }
}

/// Whether what lies at snd_una was sent again.
fn begins_with_copy(s: &FlowState, pools: &Pools) -> bool {
    let first = pools.records.first(s.cc.sent);
    first != NONE && pools.records.get(first).has(mark::AGAIN)
}
