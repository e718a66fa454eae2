//! The states of one group's flows: its protocol stage owns them.

use super::Groups;
use alloc::{boxed::Box, vec};
use toe_abi::{FlowId, flow::FlowState};
use zerocopy::FromZeros;

/// Where a flow is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Free,
    Live,
    /// Exported: neither sends nor answers.
    Frozen,
    Ended,
}

#[derive(Clone, Copy)]
struct Meta {
    generation: u32,
    phase: Phase,
    /// Ended or not, nobody is going to bind it any more.
    given_up: bool,
    /// `toe_abi::control::close_reason`.
    reason: u32,
    /// errno for the last event.
    error: u32,
}

const FREE: Meta = Meta { generation: 0, phase: Phase::Free, given_up: false, reason: 0, error: 0 };

pub struct States {
    group: u16,
    groups: Groups,
    states: Box<[FlowState]>,
    meta: Box<[Meta]>,
}

impl States {
    pub fn new(max_flows: u32, groups: Groups, group: u16) -> Self {
        let n = groups.share(max_flows) as usize;
        Self { group, groups, states: vec![FlowState::new_zeroed(); n].into_boxed_slice(), meta: vec![FREE; n].into_boxed_slice() }
    }

    pub fn group(&self) -> u16 {
        self.group
    }

    /// Flow groups there are.
    pub fn groups(&self) -> u16 {
        self.groups.count()
    }

    /// Flows there can be in this group.
    pub fn capacity(&self) -> u32 {
        self.states.len() as u32
    }

    /// Place of a flow of this group in all that is kept by place.
    pub fn local(&self, flow: FlowId) -> u32 {
        self.groups.local(flow.index)
    }

    /// The flow at a place, if there is one.
    pub fn at(&self, local: u32) -> Option<FlowId> {
        let meta = self.meta.get(local as usize).filter(|m| m.phase != Phase::Free)?;
        Some(FlowId { index: self.groups.index(self.group, local), generation: meta.generation })
    }

    /// The phase of a flow; `None`: there is no such flow in this group, or not any more.
    pub fn phase(&self, flow: FlowId) -> Option<Phase> {
        let meta = self.meta.get(self.local(flow) as usize).filter(|_| self.groups.of(flow) == self.group)?;
        (meta.generation == flow.generation && meta.phase != Phase::Free).then_some(meta.phase)
    }

    /// A live flow of this group: its place, its state, and whether nobody is going to bind it any more.
    #[inline]
    pub fn live(&mut self, flow: FlowId) -> Option<(u32, &mut FlowState, bool)> {
        let local = self.local(flow);
        let meta = self.meta.get(local as usize).filter(|_| self.groups.of(flow) == self.group)?;
        let is_live = meta.generation == flow.generation && meta.phase == Phase::Live;
        let state = self.states.get_mut(local as usize).filter(|_| is_live)?;
        Some((local, state, meta.given_up))
    }

    /// State of a flow whose id was checked by [`phase`](Self::phase).
    pub fn state(&self, flow: FlowId) -> &FlowState {
        &self.states[self.local(flow) as usize]
    }

    /// See [`state`](Self::state).
    pub fn state_mut(&mut self, flow: FlowId) -> &mut FlowState {
        &mut self.states[self.groups.local(flow.index) as usize]
    }

    fn meta(&self, flow: FlowId) -> &Meta {
        &self.meta[self.local(flow) as usize]
    }

    fn meta_mut(&mut self, flow: FlowId) -> &mut Meta {
        &mut self.meta[self.groups.local(flow.index) as usize]
    }

    /// The directory has given the flow this id.
    pub fn install(&mut self, flow: FlowId, state: &FlowState) {
        *self.state_mut(flow) = *state;
        *self.meta_mut(flow) = Meta { generation: flow.generation, phase: Phase::Live, ..FREE };
    }

    pub fn freeze(&mut self, flow: FlowId) {
        let meta = self.meta_mut(flow);
        if meta.phase == Phase::Live {
            meta.phase = Phase::Frozen;
        }
    }

    pub fn end(&mut self, flow: FlowId, reason: u32, error: u32) {
        let meta = self.meta_mut(flow);
        (meta.phase, meta.reason, meta.error) = (Phase::Ended, reason, error);
    }

    /// The id means nothing from now on.
    pub fn forget(&mut self, flow: FlowId) {
        if self.phase(flow).is_some() {
            self.meta_mut(flow).phase = Phase::Free;
        }
    }

    pub fn give_up(&mut self, flow: FlowId) {
        self.meta_mut(flow).given_up = true;
    }

    pub fn given_up(&self, flow: FlowId) -> bool {
        self.meta(flow).given_up
    }

    /// Why a flow ended.
    pub fn close_reason(&self, flow: FlowId) -> u32 {
        self.meta(flow).reason
    }

    pub fn close_error(&self, flow: FlowId) -> u32 {
        self.meta(flow).error
    }

    /// Forgets all flows.
    pub fn clear(&mut self) {
        self.meta.fill(FREE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_present_generation_of_an_own_index_is_a_flow() {
        let mut s = States::new(8, Groups::new(2), 1);
        let id = FlowId { index: 5, generation: 3 };
        s.install(id, &FlowState::new_zeroed());
        assert_eq!((s.phase(id), s.at(s.local(id))), (Some(Phase::Live), Some(id)));
        assert_eq!(s.live(id).map(|(local, _, given_up)| (local, given_up)), Some((2, false)));
        for stranger in
            [FlowId { index: 5, generation: 2 }, FlowId { index: 4, generation: 3 }, FlowId { index: 105, generation: 3 }, FlowId::NONE]
        {
            assert!(s.phase(stranger).is_none() && s.live(stranger).is_none());
        }
        s.freeze(id);
        assert!(s.phase(id).is_some() && s.live(id).is_none());
        s.forget(id);
        assert_eq!((s.phase(id), s.at(2)), (None, None));
    }
}
