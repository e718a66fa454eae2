//! Intrusive lists over indices: an item is in at most one list, joining and leaving cost the same however long it is.

use alloc::{boxed::Box, vec};

const NIL: u32 = u32::MAX;
/// Marks an item that is in no list.
const OUT: u32 = u32::MAX - 1;

#[derive(Clone, Copy)]
struct Node<T> {
    prev: u32,
    next: u32,
    value: T,
}

/// One node for each index. Lists that share a `Links` can't share an item. A value of the item lies beside its node, in the
/// same cache line: whoever finds an item in a list is about to look at it.
pub struct Links<T = ()> {
    nodes: Box<[Node<T>]>,
}

/// A first-in, first-out list. Its nodes are in a [`Links`], always the same.
#[derive(Clone, Copy, Debug)]
pub struct List {
    head: u32,
    tail: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { head: NIL, tail: NIL }
    }
}

impl List {
    pub fn is_empty(&self) -> bool {
        self.head == NIL
    }

    pub fn first(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }
}

impl Links {
    pub fn new(items: usize) -> Self {
        Self::with(items, ())
    }
}

impl<T: Copy> Links<T> {
    /// Each item with a value.
    pub fn with(items: usize, value: T) -> Self {
        Self { nodes: vec![Node { prev: OUT, next: OUT, value }; items].into_boxed_slice() }
    }

    fn node(&mut self, i: u32) -> &mut Node<T> {
        &mut self.nodes[i as usize]
    }

    /// Whether item `i` is in some list.
    pub fn linked(&self, i: u32) -> bool {
        self.nodes[i as usize].next != OUT
    }

    /// Appends `i`, which is in no list.
    pub fn push(&mut self, list: &mut List, i: u32) {
        debug_assert!(!self.linked(i));
        let node = self.node(i);
        (node.prev, node.next) = (list.tail, NIL);
        match list.tail {
            NIL => list.head = i,
            last => self.node(last).next = i,
        }
        list.tail = i;
    }

    /// Takes the first item out.
    pub fn pop(&mut self, list: &mut List) -> Option<u32> {
        let first = list.first()?;
        self.unlink(list, first);
        Some(first)
    }

    /// Takes `i` out of `list`, which it is in.
    pub fn unlink(&mut self, list: &mut List, i: u32) {
        let node = self.node(i);
        let (prev, next) = (node.prev, node.next);
        (node.prev, node.next) = (OUT, OUT);
        match prev {
            NIL => list.head = next,
            p => self.node(p).next = next,
        }
        match next {
            NIL => list.tail = prev,
            n => self.node(n).prev = prev,
        }
    }
}

impl<T> core::ops::Index<u32> for Links<T> {
    type Output = T;

    fn index(&self, i: u32) -> &T {
        &self.nodes[i as usize].value
    }
}

impl<T> core::ops::IndexMut<u32> for Links<T> {
    fn index_mut(&mut self, i: u32) -> &mut T {
        &mut self.nodes[i as usize].value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{collections::VecDeque, vec::Vec};
    use proptest::prelude::*;

    fn walk(links: &Links, list: &List) -> Vec<u32> {
        let after = |&i: &u32| Some(links.nodes[i as usize].next).filter(|&next| next != NIL);
        core::iter::successors(list.first(), after).collect()
    }

    proptest! {
        #[test]
        fn lists_behave_as_deques(ops in prop::collection::vec((0u8..3, 0usize..2, 0u32..8), 0..200)) {
            let mut links = Links::new(8);
            let mut lists = [List::default(); 2];
            let mut model = [VecDeque::new(), VecDeque::new()];
            for (op, which, item) in ops {
                match op {
                    0 if !links.linked(item) => {
                        links.push(&mut lists[which], item);
                        model[which].push_back(item);
                    }
                    1 => prop_assert_eq!(links.pop(&mut lists[which]), model[which].pop_front()),
                    2 if model[which].contains(&item) => {
                        links.unlink(&mut lists[which], item);
                        model[which].retain(|&x| x != item);
                    }
                    _ => {}
                }
                for (list, model) in lists.iter().zip(&model) {
                    let walked: Vec<u32> = walk(&links, list);
                    prop_assert_eq!(&walked, &model.iter().copied().collect::<Vec<_>>());
                }
            }
        }
    }
}
