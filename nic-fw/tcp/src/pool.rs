//! What a flow needs more of while segments are missing, from pools of its flow group: made once, never grown.
//!
//! ```text
//!   FlowState ── list ──► last ──┐       a list is a ring: its handle names the last node, whose next is the first
//!                          ▲     ▼
//!                         ...◄─ first
//! ```
//!
//! A handle of 0 is none, so a state of zeroes holds nothing. Handles are the card's own and never come from outside: see
//! [`admit`](crate::admit).

use crate::board::Board;
use crate::patience::{Patience, Sets};
use crate::records::Record;
use alloc::boxed::Box;
use alloc::vec;
use toe_abi::flow::FlowState;

/// Names a node of a pool; 0: none.
pub(crate) type Handle = u32;
pub(crate) const NONE: Handle = 0;

/// The pools of one flow group.
#[derive(Debug)]
pub struct Pools {
    pub(crate) records: Pool<Record>,
    pub(crate) boards: Pool<Board>,
    pub(crate) timers: Sets,
    /// Times that one of them was empty, since somebody last asked.
    refused: u32,
}

/// Records for each scoreboard: a flow with some losses needs about as many.
const RECORDS_PER_BOARD: u32 = 4;

impl Pools {
    /// Pools of `records`, each of which tells of bytes that were sent at one time, or received beyond a hole; and of scoreboards. For flows of
    /// applications with regions below `regions`.
    #[must_use]
    pub fn new(records: u32, regions: u16) -> Self {
        let boards = Pool::new(records.div_ceil(RECORDS_PER_BOARD));
        Self { records: Pool::new(records), boards, timers: Sets::new(regions), refused: 0 }
    }

    /// How patient a flow is.
    pub(crate) fn patience(&self, s: &FlowState) -> Patience {
        self.timers.get(s.id.region, s.cc.timers)
    }

    /// Records and scoreboards that nobody has.
    #[must_use]
    pub fn left(&self) -> (u32, u32) {
        (self.records.left, self.boards.left)
    }

    /// How often one of the pools has been empty since this was last called.
    #[must_use]
    pub fn take_refused(&mut self) -> u32 {
        core::mem::take(&mut self.refused)
    }

    /// A flow gets times of its own, or keeps those that it has where there is no room for others.
    pub(crate) fn set_timers(&mut self, s: &mut FlowState, patience: Patience) {
        match self.timers.change(s.cc.timers, s.id.region, patience) {
            Some(number) => s.cc.timers = number,
            None => self.refused += 1,
        }
    }

    pub(crate) fn is_out_of_records(&self) -> bool {
        self.records.free == NONE
    }

    /// Whether a received interval more may have a record. How many there are is up to peers, and they last as long as peers like: half of the
    /// records is for what we have sent.
    pub(crate) fn has_room_for_gaps(&self) -> bool {
        self.records.left > self.records.size() / 2
    }

    /// Adds a record at the end of a list. False: there was none left.
    pub(crate) fn push(&mut self, list: &mut Handle, record: Record) -> bool {
        self.insert(list, *list, record).is_some()
    }

    /// See [`Pool::insert`].
    pub(crate) fn insert(&mut self, list: &mut Handle, after: Handle, record: Record) -> Option<Handle> {
        let new = self.records.insert(list, after, record);
        self.refused += u32::from(new.is_none());
        new
    }

    /// A scoreboard for a flow, if there is one left.
    pub(crate) fn take_board(&mut self, board: Board) -> Option<Handle> {
        let new = self.boards.take(board);
        self.refused += u32::from(new.is_none());
        new
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Node<T> {
    next: Handle,
    value: T,
}

/// Nodes that are free, or in use by somebody who has the handle.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    /// The first is nobody's: its handle would be [`NONE`].
    nodes: Box<[Node<T>]>,
    free: Handle,
    left: u32,
}

impl<T: Copy + Default> Pool<T> {
    pub(crate) fn new(size: u32) -> Self {
        let size = size.min(1 << 24);
        let mut nodes = vec![Node::default(); size as usize + 1].into_boxed_slice();
        for (node, next) in nodes.iter_mut().zip(1..).take(size as usize) {
            node.next = next;
        }
        let free = nodes[0].next;
        Self { nodes, free, left: size }
    }

    fn size(&self) -> u32 {
        self.nodes.len() as u32 - 1
    }

    /// A node of its own; `None`: there is none left.
    pub(crate) fn take(&mut self, value: T) -> Option<Handle> {
        let handle = self.free;
        if handle == NONE {
            return None;
        }
        self.left -= 1;
        self.free = self.nodes[handle as usize].next;
        self.nodes[handle as usize] = Node { next: NONE, value };
        Some(handle)
    }

    pub(crate) fn give(&mut self, handle: Handle) {
        self.nodes[handle as usize].next = self.free;
        self.free = handle;
        self.left += 1;
    }

    #[inline]
    pub(crate) fn get(&self, handle: Handle) -> &T {
        &self.nodes[handle as usize].value
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, handle: Handle) -> &mut T {
        &mut self.nodes[handle as usize].value
    }

    /// The first of a list; [`NONE`]: the list is empty.
    #[inline]
    pub(crate) fn first(&self, list: Handle) -> Handle {
        if list == NONE { NONE } else { self.nodes[list as usize].next }
    }

    /// Behind `at` in a list that holds it; [`NONE`]: it is the last.
    #[inline]
    pub(crate) fn next(&self, list: Handle, at: Handle) -> Handle {
        if at == list { NONE } else { self.nodes[at as usize].next }
    }

    /// Adds a value behind `after`, which is in the list, or in front with [`NONE`]. `None`: there is no node left.
    pub(crate) fn insert(&mut self, list: &mut Handle, after: Handle, value: T) -> Option<Handle> {
        let new = self.take(value)?;
        if *list == NONE {
            self.nodes[new as usize].next = new;
            *list = new;
            return Some(new);
        }
        // In front of the first is behind the last, which stays the last.
        let before = if after == NONE { *list } else { after };
        self.nodes[new as usize].next = self.nodes[before as usize].next;
        self.nodes[before as usize].next = new;
        if after == *list {
            *list = new;
        }
        Some(new)
    }

    /// Takes out what follows `after` in the list, or its first with [`NONE`]. There must be one.
    pub(crate) fn remove(&mut self, list: &mut Handle, after: Handle) -> T {
        let before = if after == NONE { *list } else { after };
        let gone = self.nodes[before as usize].next;
        self.nodes[before as usize].next = self.nodes[gone as usize].next;
        if gone == *list {
            *list = if gone == before { NONE } else { before };
        }
        let value = self.nodes[gone as usize].value;
        self.give(gone);
        value
    }

    /// Takes all out.
    pub(crate) fn clear(&mut self, list: &mut Handle) {
        while *list != NONE {
            self.remove(list, NONE);
        }
    }

    pub(crate) fn iter(&self, list: Handle) -> impl Iterator<Item = &T> + '_ {
        let mut at = self.first(list);
        core::iter::from_fn(move || {
            let value = (at != NONE).then(|| self.get(at))?;
            at = self.next(list, at);
            Some(value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn an_empty_pool_says_so_and_takes_back() {
        let mut pool = Pool::<u32>::new(1);
        let mut list = NONE;
        assert!(pool.insert(&mut list, NONE, 7).is_some());
        assert_eq!(pool.insert(&mut list, NONE, 8), None);
        pool.clear(&mut list);
        assert_eq!((list, pool.left), (NONE, 1));
        assert!(pool.insert(&mut list, NONE, 8).is_some());
        assert_eq!(Pool::<u32>::new(0).take(1), None);
    }

    #[test]
    fn refusals_are_counted_until_somebody_asks() {
        let mut pools = Pools::new(1, 4);
        let mut list = NONE;
        assert!(pools.push(&mut list, Record::default()) && pools.take_board(Board::default()).is_some());
        assert_eq!(pools.take_refused(), 0);
        for _ in 0..2 {
            assert!(!pools.push(&mut list, Record::default()) && pools.take_board(Board::default()).is_none());
        }
        assert_eq!((pools.take_refused(), pools.take_refused()), (4, 0));
    }

    proptest! {
        /// Two lists of a pool against two vectors.
        #[test]
        fn lists_behave_like_vectors(ops in proptest::collection::vec((any::<bool>(), 0u8..4, 0usize..8), 0..200)) {
            let mut pool = Pool::<u32>::new(12);
            let mut lists = [NONE; 2];
            let mut models = [Vec::new(), Vec::new()];
            for (i, (which, op, at)) in ops.into_iter().enumerate() {
                let (list, model) = (&mut lists[usize::from(which)], &mut models[usize::from(which)]);
                let at = at.min(model.len());
                let after = (0..at).fold(NONE, |h, _| if h == NONE { pool.first(*list) } else { pool.next(*list, h) });
                match op {
                    0 | 1 => {
                        if pool.insert(list, after, i as u32).is_some() {
                            model.insert(at, i as u32);
                        }
                    }
                    2 if at < model.len() => {
                        prop_assert_eq!(pool.remove(list, after), model.remove(at));
                    }
                    _ => {
                        if pool.insert(list, *list, i as u32).is_some() {
                            model.push(i as u32);
                        }
                    }
                }
                for (list, model) in lists.iter().zip(&models) {
                    prop_assert_eq!(&pool.iter(*list).copied().collect::<Vec<_>>(), model);
                }
                prop_assert_eq!(pool.left as usize, 12 - models[0].len() - models[1].len());
            }
        }
    }
}
