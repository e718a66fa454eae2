//! Ended flows that toed is to know of: waiting for room in its queue, then for it to have read the notice.

use crate::list::{Links, List};
use alloc::{boxed::Box, vec};
use toe_abi::FlowId;

pub struct Notices {
    links: Links,
    waiting: List,
    posted: List,
    /// Per flow: the generation that ended, and the number of the completion that says so.
    generation: Box<[u32]>,
    index: Box<[u32]>,
    is_posted: Box<[bool]>,
}

impl Notices {
    pub fn new(flows: u32) -> Self {
        let n = flows as usize;
        Self {
            links: Links::new(n),
            waiting: List::default(),
            posted: List::default(),
            generation: vec![0; n].into_boxed_slice(),
            index: vec![0; n].into_boxed_slice(),
            is_posted: vec![false; n].into_boxed_slice(),
        }
    }

    pub fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub fn any_posted(&self) -> bool {
        !self.posted.is_empty()
    }

    pub fn add(&mut self, flow: FlowId) {
        let i = flow.index;
        if !self.links.linked(i) {
            self.generation[i as usize] = flow.generation;
            self.is_posted[i as usize] = false;
            self.links.push(&mut self.waiting, i);
        }
    }

    pub fn remove(&mut self, i: u32) {
        if self.links.linked(i) {
            let list = if self.is_posted[i as usize] { &mut self.posted } else { &mut self.waiting };
            self.links.unlink(list, i);
        }
    }

    /// The next flow to tell of.
    pub fn first_waiting(&self) -> Option<FlowId> {
        self.waiting.first().map(|i| self.flow(i))
    }

    /// The completion with this number tells of `flow`. False: it does not wait to be told of any more.
    pub fn post(&mut self, flow: FlowId, index: u32) -> bool {
        let i = flow.index;
        if !self.links.linked(i) || self.is_posted[i as usize] || self.flow(i) != flow {
            return false;
        }
        self.links.unlink(&mut self.waiting, i);
        self.links.push(&mut self.posted, i);
        (self.index[i as usize], self.is_posted[i as usize]) = (index, true);
        true
    }

    /// A flow whose notice is among those consumed: all with numbers before `head`.
    pub fn consumed(&mut self, head: u32) -> Option<FlowId> {
        let i = self.posted.first()?;
        let behind = head.wrapping_sub(self.index[i as usize]);
        if behind == 0 || behind > u32::MAX / 2 {
            return None;
        }
        self.links.unlink(&mut self.posted, i);
        Some(self.flow(i))
    }

    /// Notices that may not have been read are posted again.
    pub fn all_again(&mut self) {
        while let Some(i) = self.links.pop(&mut self.posted) {
            self.is_posted[i as usize] = false;
            self.links.push(&mut self.waiting, i);
        }
    }

    fn flow(&self, i: u32) -> FlowId {
        FlowId { index: i, generation: self.generation[i as usize] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn flow(index: u32) -> FlowId {
        FlowId { index, generation: 7 }
    }

    #[test]
    fn a_flow_is_free_when_its_notice_has_been_read() {
        let mut n = Notices::new(4);
        n.add(flow(2));
        n.add(flow(1));
        n.add(flow(2));
        assert_eq!(n.first_waiting(), Some(flow(2)));
        assert!(n.post(flow(2), 10) && !n.post(flow(2), 11));
        assert_eq!(n.first_waiting(), Some(flow(1)));
        assert!(n.post(flow(1), 12) && n.first_waiting().is_none());
        assert_eq!(n.consumed(10), None);
        assert_eq!((n.consumed(11), n.consumed(11)), (Some(flow(2)), None));
        assert_eq!(n.consumed(13), Some(flow(1)));
    }

    #[test]
    fn a_new_control_plane_is_told_again() {
        let mut n = Notices::new(4);
        n.add(flow(0));
        assert!(n.post(flow(0), u32::MAX));
        n.all_again();
        assert_eq!(n.consumed(0), None);
        assert!(n.post(flow(0), 0));
        n.remove(0);
        assert!(!n.any_posted());
    }
}
