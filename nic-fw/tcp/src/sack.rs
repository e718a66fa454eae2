//! SACK blocks of an acknowledgement, taken into the scoreboard (RFC 2018, 5; RFC 2883). Every block is a claim.
//!
//! ```text
//!   records:   [    1    ][ 2 ][    3    ]
//!   block:           [───────)                     cuts 1 and marks:   [ 1a ][1b,2: SACKED][    3    ]
//! ```

use crate::board;
use crate::pool::{NONE, Pools};
use crate::rack;
use crate::records::{Record, age, mark};
use crate::state::View;
use crate::{Now, SegmentIn};
use toe_abi::flow::{FlowState, flow_flags as ff};
use toe_wire::{SackBlocks, SeqNum};

/// Sequence numbers `[start, end)`.
pub(crate) type Range = (SeqNum, SeqNum);

/// The blocks of a segment, if SACK was agreed on.
fn agreed(s: &FlowState, seg: &SegmentIn) -> impl Iterator<Item = Range> {
    seg.sack.iter().filter(|_| s.has(ff::SACK))
}

/// What the peer says that it received twice: RFC 2883, 4, the first block, if it lies below the acknowledgement or within the second.
/// RFC 2883 5-1: the segment's own acknowledgement, not snd_una.
pub(crate) fn duplicate(s: &FlowState, seg: &SegmentIn) -> Option<Range> {
    let mut blocks = agreed(s, seg);
    let (start, end) = blocks.next()?;
    // Of what we have sent, and not too long ago: the answer to a copy comes a round trip after it, or several, and in each a window may have
    // been acknowledged.
    let window = s.max_snd_wnd().max(s.outstanding());
    let oldest = s.snd_una().sub_len(window.saturating_mul(4).min(1 << 30));
    let ours = start.lt(end) && start.ge(oldest) && end.le(s.snd_max());
    let within = |(outer_start, outer_end): Range| outer_start.le(start) && end.le(outer_end);
    (ours && (end.le(seg.ack) || blocks.next().is_some_and(within))).then_some((start, end))
}

/// Blocks above snd_una that can be true, ascending. The rest of the array is empty ranges.
fn plausible(s: &FlowState, seg: &SegmentIn) -> ([Range; SackBlocks::MAX], usize) {
    let mut blocks = [(SeqNum(0), SeqNum(0)); SackBlocks::MAX];
    let mut n = 0;
    for (start, end) in agreed(s, seg) {
        // Also what began below snd_una when the block was made.
        let start = start.max(s.snd_una());
        if start.lt(end) && end.le(s.snd_max()) {
            blocks[n] = (start, end);
            n += 1;
        }
    }
    // All lie within the same window: their distance from snd_una is their order.
    blocks[..n].sort_unstable_by_key(|(start, _)| start.since(s.snd_una()));
    (blocks, n)
}

/// What an acknowledgement has told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct News {
    /// Bytes acknowledged, and not SACKED before.
    pub(crate) acked: u32,
    /// Bytes newly SACKED.
    pub(crate) sacked: u32,
    /// Round trip of data that was sent once only and that this is the first news of, microseconds.
    pub(crate) rtt_us: Option<u32>,
    /// The same of data that was sent again, where an echoed timestamp says that it is an acknowledgement of the last copy.
    pub(crate) again_rtt_us: Option<u32>,
    /// Data up to the recovery point that was sent once only has arrived (RFC 5682).
    pub(crate) original: bool,
    /// Something is found lost by it.
    pub(crate) lost: bool,
}

/// `[record.start, end)` of a record has arrived.
fn delivered(s: &mut FlowState, pools: &mut Pools, record: &Record, seg: &SegmentIn, now: Now, news: &mut News) {
    let rtt_us = age(record.us, now);
    let least = |known: Option<u32>| Some(known.map_or(rtt_us, |least| least.min(rtt_us)));
    let board = pools.boards.get_mut(s.tx.board);
    let certain = rack::delivered(s, board, record, seg, now);
    if !record.has(mark::AGAIN) {
        news.rtt_us = if record.has(mark::MIXED) { news.rtt_us } else { least(news.rtt_us) };
        news.original |= record.end.le(SeqNum(s.cc.recover));
    } else if certain && s.has(ff::TIMESTAMPS) {
        // Karn's rule (RFC 6298, 3) forbids it otherwise.
        news.again_rtt_us = least(news.again_rtt_us);
    }
}

/// Everything up to the segment's acknowledgement has arrived: those records are done with.
pub(crate) fn cumulative(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, now: Now, news: &mut News) {
    let mut again = false;
    while s.cc.sent != NONE {
        let first = pools.records.first(s.cc.sent);
        let record = *pools.records.get(first);
        if record.start.ge(seg.ack) {
            break;
        }
        let part = Record { end: record.end.min(seg.ack), ..record };
        let board = pools.boards.get_mut(s.tx.board);
        board.sub(&part);
        if record.end.gt(seg.ack) {
            pools.records.get_mut(first).start = seg.ack;
        } else {
            board.records -= 1;
            pools.records.remove(&mut s.cc.sent, NONE);
        }
        if !record.has(mark::SACKED) {
            news.acked += part.len();
            again |= record.has(mark::AGAIN);
            delivered(s, pools, &part, seg, now, news);
        }
    }
    // What was sent once may have waited at the peer for what was not: Karn's rule (RFC 6298, 3) is about the acknowledgement. So is
    // F-RTO without SACK: only what acknowledges nothing else tells of an original.
    if again {
        news.rtt_us = None;
        news.original &= s.has(ff::SACK);
    }
}

/// Marks what the blocks say. One walk over the records, whatever the blocks are.
/// RFC 2018 5-1; RFC 6675 5-1, 5.1-2, 5.1-6.
pub(crate) fn selective(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, now: Now, news: &mut News) {
    let (blocks, n) = plausible(s, seg);
    let mut blocks = blocks[..n].iter().copied().peekable();
    let (mut before, mut at) = (NONE, pools.records.first(s.cc.sent));
    while at != NONE {
        let record = *pools.records.get(at);
        while blocks.next_if(|(_, end)| end.le(record.start)).is_some() {}
        let Some(&(start, end)) = blocks.peek() else { break };
        if start.lt(record.end) && !record.has(mark::SACKED) {
            if start.gt(record.start) {
                // The part before the block stays as it is. Without a record for the other part the block is not believed: it is only
                // advice.
                let second = board::cut(s, pools, at, start);
                before = at;
                at = second.unwrap_or_else(|| pools.records.next(s.cc.sent, at));
                continue;
            }
            if end.ge(record.end) || board::cut(s, pools, at, end).is_some() {
                let whole = *pools.records.get(at);
                board::set_marks(s, pools, at, mark::SACKED);
                news.sacked += whole.len();
                delivered(s, pools, &whole, seg, now, news);
            }
        }
        if !board::merge_next(s, pools, before) {
            before = at;
        }
        at = pools.records.next(s.cc.sent, before);
    }
}

/// RFC 2018, 8: a peer that has thrown away what it SACKED. It would have acknowledged what begins at snd_una.
pub(crate) fn is_reneging(s: &FlowState, pools: &Pools) -> bool {
    let first = pools.records.first(s.cc.sent);
    first != NONE && pools.records.get(first).has(mark::SACKED)
}

/// "The data sender SHOULD turn off all of the SACKed bits".
pub(crate) fn forget(s: &FlowState, pools: &mut Pools) {
    let mut at = pools.records.first(s.cc.sent);
    while at != NONE {
        let marks = pools.records.get(at).marks;
        board::set_marks(s, pools, at, marks & !mark::SACKED);
        at = pools.records.next(s.cc.sent, at);
    }
}
