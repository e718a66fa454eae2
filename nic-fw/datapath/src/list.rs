//! Intrusive lists over indices: an item is in at most one list, joining and leaving cost the same however long it is.

use alloc::{boxed::Box, vec};

const NIL: u32 = u32::MAX;
/// Marks an item that is in no list.
const OUT: u32 = u32::MAX - 1;

#[derive(Clone, Copy)]
struct Node {
    prev: u32,
    next: u32,
}

/// One node for each index. Lists that share a `Links` can't share an item.
pub struct Links {
    nodes: Box<[Node]>,
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
        Self { nodes: vec![Node { prev: OUT, next: OUT }; items].into_boxed_slice() }
    }

    /// Whether item `i` is in some list.
    pub fn linked(&self, i: u32) -> bool {
        self.nodes[i as usize].next != OUT
    }

    /// Appends `i`, which is in no list.
    pub fn push(&mut self, list: &mut List, i: u32) {
        debug_assert!(!self.linked(i));
        self.nodes[i as usize] = Node { prev: list.tail, next: NIL };
        match list.tail {
            NIL => list.head = i,
            last => self.nodes[last as usize].next = i,
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
        let Node { prev, next } = core::mem::replace(&mut self.nodes[i as usize], Node { prev: OUT, next: OUT });
        match prev {
            NIL => list.head = next,
            p => self.nodes[p as usize].next = next,
        }
        match next {
            NIL => list.tail = prev,
            n => self.nodes[n as usize].prev = prev,
        }
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
