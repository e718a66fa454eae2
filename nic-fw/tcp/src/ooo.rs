//! Received intervals beyond a hole: at most four, ascending, disjoint, not touching.

use toe_wire::SeqNum;

/// `[start, end)`; start == end: none. Those in use come first.
pub(crate) type Intervals = [[u32; 2]; 4];

const NONE: [u32; 2] = [0, 0];

fn used(i: &[u32; 2]) -> bool {
    i[0] != i[1]
}

/// Adds `[start, end)`, merged with those that it overlaps or touches. Gives the index of the interval
/// that now holds it; `None`: there is no room, and nothing has changed. `start` lies before `end`.
pub(crate) fn insert(list: &mut Intervals, start: SeqNum, end: SeqNum) -> Option<usize> {
    let mut merged = *list;
    let (mut start, mut end) = (start, end);
    let mut kept = 0;
    for interval in list.iter().take_while(|i| used(i)) {
        let (left, right) = (SeqNum(interval[0]), SeqNum(interval[1]));
        if left.le(end) && start.le(right) {
            start = start.min(left);
            end = end.max(right);
        } else {
            merged[kept] = *interval;
            kept += 1;
        }
    }
    if kept == merged.len() {
        return None;
    }
    merged[kept..].fill(NONE);
    let at = merged[..kept].iter().position(|i| start.lt(SeqNum(i[0]))).unwrap_or(kept);
    merged.copy_within(at..kept, at + 1);
    merged[at] = [start.0, end.0];
    *list = merged;
    Some(at)
}

/// The bytes up to `rcv_nxt` are there: takes out what is not beyond it. Gives the new `rcv_nxt` and how many intervals went.
pub(crate) fn absorb(list: &mut Intervals, mut rcv_nxt: SeqNum) -> (SeqNum, usize) {
    let mut gone = 0;
    for interval in list.iter() {
        if !used(interval) || SeqNum(interval[0]).gt(rcv_nxt) {
            break;
        }
        rcv_nxt = rcv_nxt.max(SeqNum(interval[1]));
        gone += 1;
    }
    list.copy_within(gone.., 0);
    let kept = list.len() - gone;
    list[kept..].fill(NONE);
    (rcv_nxt, gone)
}

/// Behind the last byte of all.
pub(crate) fn highest(list: &Intervals) -> Option<SeqNum> {
    list.iter().rev().find(|i| used(i)).map(|i| SeqNum(i[1]))
}

/// The intervals in use, `first` ahead of the others (RFC 2018, 4).
/// RFC 2018 4-6.
pub(crate) fn newest_first(list: &Intervals, first: usize) -> impl Iterator<Item = (SeqNum, SeqNum)> + '_ {
    let others = list.iter().enumerate().filter(move |&(i, _)| i != first).map(|(_, interval)| interval);
    list.get(first).into_iter().chain(others).filter(|i| used(i)).map(|&[l, r]| (SeqNum(l), SeqNum(r)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    const EMPTY: Intervals = [NONE; 4];

    #[test]
    fn a_fifth_interval_is_refused_unless_it_merges() {
        let mut list = EMPTY;
        for i in 0..4 {
            assert_eq!(insert(&mut list, SeqNum(20 * i + 10), SeqNum(20 * i + 20)), Some(i as usize));
        }
        let before = list;
        assert_eq!(insert(&mut list, SeqNum(200), SeqNum(210)), None);
        assert_eq!(list, before);
        assert_eq!(insert(&mut list, SeqNum(20), SeqNum(30)), Some(0));
        assert_eq!(insert(&mut list, SeqNum(200), SeqNum(210)), Some(3));
    }

    #[test]
    fn newest_comes_first() {
        let list = [[10, 20], [30, 40], [50, 60], NONE];
        let order: Vec<_> = newest_first(&list, 1).map(|(l, _)| l.0).collect();
        assert_eq!(order, [30, 10, 50]);
    }

    proptest! {
        /// Against a set of bytes.
        #[test]
        fn behaves_like_a_set(base: u32, ops in proptest::collection::vec((0u32..200, 1u32..40, any::<bool>()), 1..40)) {
            let mut list = EMPTY;
            let mut rcv_nxt = 0u32;
            let mut bytes = BTreeSet::new();
            for (at, len, advance) in ops {
                let at = at.max(rcv_nxt + 1);
                if insert(&mut list, SeqNum(base).add(at), SeqNum(base).add(at + len)).is_some() {
                    bytes.extend(at..at + len);
                }
                if advance {
                    let to = rcv_nxt + len / 2;
                    let (next, _) = absorb(&mut list, SeqNum(base).add(to));
                    rcv_nxt = to;
                    while bytes.contains(&rcv_nxt) {
                        rcv_nxt += 1;
                    }
                    prop_assert_eq!(next.since(SeqNum(base)), rcv_nxt);
                    bytes.retain(|&b| b >= rcv_nxt);
                }
                let listed: BTreeSet<u32> = list.iter().filter(|i| used(i)).flat_map(|i| i[0].wrapping_sub(base)..i[1].wrapping_sub(base)).collect();
                prop_assert_eq!(&listed, &bytes);
                prop_assert_eq!(highest(&list).map(|h| h.since(SeqNum(base))), bytes.last().map(|b| b + 1));
                let ends: Vec<u32> = list.iter().filter(|i| used(i)).flatten().map(|x| x.wrapping_sub(base)).collect();
                prop_assert!(ends.windows(2).all(|w| w[0] < w[1]), "{:?}", list);
            }
        }
    }
}
