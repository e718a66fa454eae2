//! Received intervals beyond a hole: ascending, disjoint, not touching. The first two are in the flow's state, and go where it goes;
//! further ones are records of the group's pools, as long as more than half of them are left.
//!
//! ```text
//!     rcv_nxt ──[hole]── ooo[0] ──[hole]── ooo[1] ──[hole]── ooo_more: record ── record ── ...
//! ```

use crate::pool::{Handle, NONE, Pool, Pools};
use crate::records::{Record, is_later};
use crate::sack::Range;
use toe_abi::flow::{CcState, FlowState};
use toe_wire::{SackBlocks, SeqNum};

/// Intervals of a flow: what a segment can cost is bounded by it.
const INTERVALS_MAX: usize = 128;

fn near(words: &[u32; 3]) -> Option<Record> {
    let [start, end, us] = *words;
    (start != end).then_some(Record { start: SeqNum(start), end: SeqNum(end), us, marks: 0 })
}

/// The intervals, ascending.
fn iter<'a>(cc: &'a CcState, pool: &'a Pool<Record>) -> impl Iterator<Item = Record> + 'a {
    cc.ooo.iter().filter_map(near).chain(pool.iter(cc.ooo_more).copied())
}

/// Whether one interval can stand for both.
fn touch(a: &Record, b: &Record) -> bool {
    a.start.le(b.end) && b.start.le(a.end)
}

/// Adds `[start, end)`, which came at `us`, merged with those that it overlaps or touches. False: there is no room, and nothing has
/// changed.
pub(crate) fn insert(cc: &mut CcState, pools: &mut Pools, (start, end): Range, us: u32) -> bool {
    let mut new = Record { start, end, us, marks: 0 };
    let merges = iter(cc, &pools.records).any(|i| touch(&i, &new));
    let room = near(&cc.ooo[1]).is_none() || pools.has_room_for_gaps() && iter(cc, &pools.records).count() < INTERVALS_MAX;
    if !(merges || room) {
        return false;
    }
    take_touching(cc, &mut pools.records, &mut new);
    // In its place, and what it displaces into the next.
    for place in 0..cc.ooo.len() {
        match near(&cc.ooo[place]) {
            Some(here) if here.start.lt(new.start) => {}
            Some(here) => {
                set(&mut cc.ooo[place], &new);
                new = here;
            }
            None => {
                set(&mut cc.ooo[place], &new);
                return true;
            }
        }
    }
    let before = last_before(cc.ooo_more, &pools.records, new.start);
    pools.insert(&mut cc.ooo_more, before, new).is_some()
}

fn set(words: &mut [u32; 3], r: &Record) {
    *words = [r.start.0, r.end.0, r.us];
}

/// The last record of a list that begins before `start`.
fn last_before(list: Handle, pool: &Pool<Record>, start: SeqNum) -> Handle {
    // The usual place is the end; of an empty list there is none.
    if pool.get(list).start.lt(start) {
        return list;
    }
    let (mut before, mut at) = (NONE, pool.first(list));
    while at != NONE && pool.get(at).start.lt(start) {
        (before, at) = (at, pool.next(list, at));
    }
    before
}

/// Takes out what touches `new`, which grows by it.
fn take_touching(cc: &mut CcState, pool: &mut Pool<Record>, new: &mut Record) {
    for place in &mut cc.ooo {
        if let Some(here) = near(place).filter(|here| touch(here, new)) {
            (new.start, new.end) = (new.start.min(here.start), new.end.max(here.end));
            *place = [0; 3];
        }
    }
    let (mut before, mut at) = (NONE, pool.first(cc.ooo_more));
    while at != NONE && pool.get(at).start.le(new.end) {
        if touch(pool.get(at), new) {
            let here = pool.remove(&mut cc.ooo_more, before);
            (new.start, new.end) = (new.start.min(here.start), new.end.max(here.end));
        } else {
            before = at;
        }
        at = if before == NONE { pool.first(cc.ooo_more) } else { pool.next(cc.ooo_more, before) };
    }
    refill(cc, pool);
}

/// The first ones are in the state.
fn refill(cc: &mut CcState, pool: &mut Pool<Record>) {
    if near(&cc.ooo[0]).is_none() {
        cc.ooo.swap(0, 1);
    }
    for place in &mut cc.ooo {
        if near(place).is_none() && cc.ooo_more != NONE {
            set(place, &pool.remove(&mut cc.ooo_more, NONE));
        }
    }
}

/// The bytes up to `rcv_nxt` are there: takes out what is not beyond it. Gives the new `rcv_nxt`.
pub(crate) fn absorb(cc: &mut CcState, pools: &mut Pools, mut rcv_nxt: SeqNum) -> SeqNum {
    while let Some(first) = near(&cc.ooo[0]).filter(|first| first.start.le(rcv_nxt)) {
        rcv_nxt = rcv_nxt.max(first.end);
        cc.ooo[0] = [0; 3];
        refill(cc, &mut pools.records);
    }
    rcv_nxt
}

/// Behind the last byte of all.
pub(crate) fn highest(cc: &CcState, pools: &Pools) -> Option<SeqNum> {
    let last = if cc.ooo_more == NONE { near(&cc.ooo[1]).or_else(|| near(&cc.ooo[0])) } else { Some(*pools.records.get(cc.ooo_more)) };
    last.map(|r| r.end)
}

/// The part of `[start, end)` that was received before, the first if there are several.
/// RFC 2018 4-6.
pub(crate) fn received_before(s: &FlowState, pools: &Pools, (start, end): Range) -> Option<Range> {
    let known = iter(&s.cc, &pools.records).find(|i| i.start.lt(end) && start.lt(i.end));
    known.map(|i| (i.start.max(start), i.end.min(end)))
}

/// Adds SACK blocks until there are `most`: first the interval with `latest`, then those that something was added to last. RFC 2018, 4:
/// "the first SACK block MUST specify the contiguous block of data containing the segment which triggered this ACK", and the others repeat
/// "the most recently reported".
/// RFC 2018 4-6, 4-8.
pub(crate) fn report(s: &FlowState, pools: &Pools, latest: Option<SeqNum>, most: usize, blocks: &mut SackBlocks) {
    let room = most.saturating_sub(blocks.len());
    let mut newest: [Option<(u32, Record)>; SackBlocks::MAX] = [None; SackBlocks::MAX];
    let now = iter(&s.cc, &pools.records).map(|i| i.us).reduce(|a, b| if is_later(b, a) { b } else { a }).unwrap_or(0);
    for interval in iter(&s.cc, &pools.records) {
        let is_latest = latest.is_some_and(|seq| interval.start.le(seq) && seq.lt(interval.end));
        let rank = if is_latest { 0 } else { now.wrapping_sub(interval.us).saturating_add(1) };
        let mut here = Some((rank, interval));
        for place in newest.iter_mut().take(room) {
            // Of the same time, the higher one: it came later, if nothing was reordered.
            if place.is_none_or(|(other, _)| here.is_some_and(|(rank, _)| rank <= other)) {
                core::mem::swap(place, &mut here);
            }
        }
    }
    newest.iter().take(room).flatten().for_each(|(_, i)| {
        blocks.push(i.start, i.end);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board;
    use crate::state::View;
    use crate::testing::flow;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn reported(s: &FlowState, pools: &Pools, latest: u32, most: usize) -> Vec<u32> {
        let mut blocks = SackBlocks::default();
        report(s, pools, Some(SeqNum(latest)), most, &mut blocks);
        blocks.iter().map(|(start, _)| start.0).collect()
    }

    #[test]
    fn without_records_there_are_two_intervals_and_more_only_merge() {
        let (mut s, mut pools) = (flow(), Pools::new(0, 4));
        let mut add = |start, end| insert(&mut s.cc, &mut pools, (SeqNum(start), SeqNum(end)), 0);
        assert!(add(10, 20) && add(30, 40) && !add(50, 60));
        assert!(add(40, 50) && !add(60, 70) && add(20, 30) && add(60, 70));
        assert_eq!(iter(&s.cc, &pools.records).map(|i| (i.start.0, i.end.0)).collect::<Vec<_>>(), [(10, 50), (60, 70)]);
    }

    #[test]
    fn the_number_of_intervals_is_bounded_and_all_records_come_back() {
        let (mut s, mut pools) = (flow(), Pools::new(1000, 4));
        let fits = (0..1000u32).rev().filter(|i| insert(&mut s.cc, &mut pools, (SeqNum(20 * i), SeqNum(20 * i + 10)), 0)).count();
        assert_eq!(fits, INTERVALS_MAX);
        absorb(&mut s.cc, &mut pools, SeqNum(20_000));
        assert_eq!((pools.left().0, s.cc.ooo_more, s.has_holes()), (1000, NONE, false));
    }

    #[test]
    fn gaps_leave_half_of_the_records_to_scoreboards() {
        let mut pools = Pools::new(63, 4);
        let mut flows = [flow(); 10];
        let add = |pools: &mut Pools, s: &mut FlowState, byte: u32| insert(&mut s.cc, pools, (SeqNum(byte), SeqNum(byte + 1)), 0);
        // Isolated bytes, whose hole is never filled.
        let taken =
            flows.iter_mut().flat_map(|s| (1..=20).map(|i| add(&mut pools, s, 10 * i)).collect::<Vec<_>>()).filter(|&taken| taken).count();
        assert_eq!((pools.left().0, taken), (31, 32 + 2 * flows.len()));
        // What touches a gap takes nothing more.
        assert!(add(&mut pools, &mut flows[0], 11) && !add(&mut pools, &mut flows[0], 15));
        let mut s = flow();
        for i in 0..31 {
            let (start, end) = (s.snd_max(), s.snd_max().add(1000));
            assert!(pools.push(&mut s.cc.sent, Record { start, end, us: i, marks: 0 }));
            (s.tx.snd_nxt, s.tx.snd_max) = (end.0, end.0);
        }
        assert!(board::open(&mut s, &mut pools));
        assert_eq!(pools.take_refused(), 0);
        // Where there are none left, what has arrived stays: gaps grow, and give theirs back.
        assert!(pools.is_out_of_records() && add(&mut pools, &mut flows[0], 12));
        for s in &mut flows {
            absorb(&mut s.cc, &mut pools, SeqNum(1000));
        }
        assert_eq!(pools.left().0, 32);
    }

    /// RFC 2018 4-6, 4-8.
    #[test]
    fn blocks_are_reported_newest_first() {
        let (mut s, mut pools) = (flow(), Pools::new(16, 4));
        for (us, start) in [(1, 10), (2, 90), (3, 50), (4, 70), (5, 30)] {
            assert!(insert(&mut s.cc, &mut pools, (SeqNum(start), SeqNum(start + 10)), us));
        }
        assert_eq!(reported(&s, &pools, 30, 4), [30, 70, 50, 90]);
        // What was added to is news.
        assert!(insert(&mut s.cc, &mut pools, (SeqNum(20), SeqNum(25)), 6));
        assert_eq!(reported(&s, &pools, 20, 3), [10, 30, 70]);
        // Of the same time, the higher one came later.
        assert!(insert(&mut s.cc, &mut pools, (SeqNum(110), SeqNum(120)), 6));
        assert_eq!(reported(&s, &pools, 0, 2), [110, 10]);
        // The one that is named comes first, whatever its age.
        assert_eq!(reported(&s, &pools, 95, 2), [90, 110]);
    }

    proptest! {
        /// Against a set of bytes, with more and with fewer records than are needed.
        #[test]
        fn behaves_like_a_set(base: u32, size in 0u32..20, ops in proptest::collection::vec((0u32..400, 1u32..40, any::<bool>()), 1..60)) {
            let (mut s, mut pools) = (flow(), Pools::new(size, 4));
            let mut rcv_nxt = 0u32;
            let mut bytes = BTreeSet::new();
            for (at, len, advance) in ops {
                let at = at.max(rcv_nxt + 1);
                let range = (SeqNum(base).add(at), SeqNum(base).add(at + len));
                let again = received_before(&s, &pools, range);
                let first = (at..at + len).find(|b| bytes.contains(b));
                prop_assert_eq!(again.map(|(start, _)| start.since(SeqNum(base))), first);
                if insert(&mut s.cc, &mut pools, range, at) {
                    bytes.extend(at..at + len);
                }
                if advance {
                    let to = rcv_nxt + len / 2;
                    let next = absorb(&mut s.cc, &mut pools, SeqNum(base).add(to));
                    rcv_nxt = to;
                    while bytes.contains(&rcv_nxt) {
                        rcv_nxt += 1;
                    }
                    prop_assert_eq!(next.since(SeqNum(base)), rcv_nxt);
                    bytes.retain(|&b| b >= rcv_nxt);
                }
                let offset = |seq: SeqNum| seq.since(SeqNum(base));
                let listed: BTreeSet<u32> = iter(&s.cc, &pools.records).flat_map(|i| offset(i.start)..offset(i.end)).collect();
                prop_assert_eq!(&listed, &bytes);
                prop_assert_eq!(highest(&s.cc, &pools).map(|h| h.since(SeqNum(base))), bytes.last().map(|b| b + 1));
                let ends: Vec<u32> = iter(&s.cc, &pools.records).flat_map(|i| [i.start, i.end]).map(|x| x.since(SeqNum(base))).collect();
                prop_assert!(ends.windows(2).all(|w| w[0] < w[1]), "{:?}", ends);
                prop_assert!(near(&s.cc.ooo[1]).is_some() || s.cc.ooo_more == NONE, "a gap before the records");
            }
            absorb(&mut s.cc, &mut pools, SeqNum(base).add(1000));
            prop_assert_eq!(pools.left().0, size);
        }
    }
}
