//! The flows: their states, generations, and how a four-tuple finds its flow.
//!
//! ```text
//!   Free ──install──► Live ◄──(install elsewhere)── Frozen
//!     ▲                │ └────────freeze──────────────▲
//!     │ notice         │ TCP ended
//!     │ consumed,      ▼
//!     └ or RELEASE ── Ended      not found by its tuple any more; keeps its id until toed knows
//! ```

use alloc::{boxed::Box, vec, vec::Vec};
use toe_abi::{
    FlowId,
    flow::{FlowKey, FlowState, Identity},
};
use toe_sync::flow_hash::FlowHash;
use toe_sync::flow_table::{FlowReader, FlowWriter};
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

struct Meta {
    generation: u32,
    phase: Phase,
    /// Ended or not, nobody is going to bind it any more.
    given_up: bool,
    /// Payload of it was lost between the wire and host memory: nothing it says may leave any more.
    poisoned: bool,
    /// `toe_abi::control::close_reason`.
    reason: u32,
    /// errno for the last event.
    error: u32,
}

/// Why a flow can't be installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InstallError {
    Exists,
    NoSpace,
}

pub struct FlowStore {
    states: Box<[FlowState]>,
    meta: Box<[Meta]>,
    free: Vec<u32>,
    writer: FlowWriter,
    reader: FlowReader,
    secret: [u64; 2],
}

impl FlowStore {
    pub fn new(max_flows: u32, secret: [u64; 2]) -> Self {
        let n = max_flows as usize;
        let writer = FlowWriter::new(max_flows);
        let meta = |_| Meta { generation: 1, phase: Phase::Free, given_up: false, poisoned: false, reason: 0, error: 0 };
        Self {
            states: vec![FlowState::new_zeroed(); n].into_boxed_slice(),
            meta: (0..n).map(meta).collect(),
            free: (0..max_flows).rev().collect(),
            reader: writer.reader(),
            writer,
            secret,
        }
    }

    pub fn capacity(&self) -> u32 {
        self.states.len() as u32
    }

    fn hash(&self, key: &FlowKey) -> FlowHash {
        FlowHash::new(&self.secret, key)
    }

    /// The flow of a four-tuple.
    pub fn lookup(&self, key: &FlowKey) -> Option<FlowId> {
        self.reader.candidates(self.hash(key)).find(|&id| self.phase(id).is_some() && self.states[id.index as usize].id.key == *key)
    }

    /// The phase of a flow; `None`: there is no such flow, or not any more.
    pub fn phase(&self, id: FlowId) -> Option<Phase> {
        let meta = self.meta.get(id.index as usize)?;
        (meta.generation == id.generation && meta.phase != Phase::Free).then_some(meta.phase)
    }

    /// The id of the flow that has index `i` now.
    pub fn id(&self, i: u32) -> Option<FlowId> {
        let meta = self.meta.get(i as usize)?;
        (meta.phase != Phase::Free).then_some(FlowId { index: i, generation: meta.generation })
    }

    /// First flow with an index of at least `from` and below `end` that `wanted` accepts.
    pub fn find_from(&self, from: u32, end: u32, wanted: impl Fn(&Identity) -> bool) -> Option<FlowId> {
        (from..end.min(self.capacity())).find_map(|i| self.id(i).filter(|_| wanted(&self.states[i as usize].id)))
    }

    /// State of a flow whose id was checked by [`phase`](Self::phase).
    pub fn state(&self, i: u32) -> &FlowState {
        &self.states[i as usize]
    }

    pub fn state_mut(&mut self, i: u32) -> &mut FlowState {
        &mut self.states[i as usize]
    }

    pub fn install(&mut self, state: &FlowState) -> Result<FlowId, InstallError> {
        if self.lookup(&state.id.key).is_some() {
            return Err(InstallError::Exists);
        }
        let &i = self.free.last().ok_or(InstallError::NoSpace)?;
        let meta = &mut self.meta[i as usize];
        let id = FlowId { index: i, generation: meta.generation };
        let hash = FlowHash::new(&self.secret, &state.id.key);
        self.states[i as usize] = *state;
        self.writer.insert(hash, id).map_err(|_| InstallError::NoSpace)?;
        self.free.pop();
        *meta = Meta { phase: Phase::Live, given_up: false, poisoned: false, reason: 0, error: 0, ..*meta };
        Ok(id)
    }

    pub fn freeze(&mut self, i: u32) {
        let meta = &mut self.meta[i as usize];
        if meta.phase == Phase::Live {
            meta.phase = Phase::Frozen;
        }
    }

    /// The connection has ended: its tuple is free for another, its id is not yet.
    pub fn end(&mut self, i: u32, reason: u32, error: u32) {
        let Some(id) = self.id(i) else { return };
        self.remove_key(id);
        let meta = &mut self.meta[i as usize];
        (meta.phase, meta.reason, meta.error) = (Phase::Ended, reason, error);
    }

    /// Frees the index; its id means nothing from now on.
    pub fn free(&mut self, i: u32) {
        let Some(id) = self.id(i) else { return };
        self.remove_key(id);
        let meta = &mut self.meta[i as usize];
        meta.generation = meta.generation.wrapping_add(1);
        meta.phase = Phase::Free;
        self.free.push(i);
    }

    fn remove_key(&mut self, id: FlowId) {
        if self.meta[id.index as usize].phase != Phase::Ended {
            let hash = self.hash(&self.states[id.index as usize].id.key);
            self.writer.remove(hash, id);
        }
    }

    pub fn give_up(&mut self, i: u32) {
        self.meta[i as usize].given_up = true;
    }

    pub fn given_up(&self, i: u32) -> bool {
        self.meta[i as usize].given_up
    }

    pub fn poison(&mut self, i: u32) {
        self.meta[i as usize].poisoned = true;
    }

    pub fn poisoned(&self, i: u32) -> bool {
        self.meta[i as usize].poisoned
    }

    /// Why flow `i` ended.
    pub fn close_reason(&self, i: u32) -> u32 {
        self.meta[i as usize].reason
    }

    pub fn close_error(&self, i: u32) -> u32 {
        self.meta[i as usize].error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16) -> FlowState {
        let mut s = FlowState::new_zeroed();
        s.id.key.remote_port = port;
        s
    }

    fn store() -> FlowStore {
        FlowStore::new(4, [1, 2])
    }

    #[test]
    fn a_tuple_finds_its_flow_until_it_ends() {
        let mut s = store();
        let id = s.install(&flow(1)).unwrap();
        assert_eq!(s.lookup(&flow(1).id.key), Some(id));
        assert_eq!(s.lookup(&flow(2).id.key), None);
        s.end(id.index, 3, 104);
        assert_eq!(s.lookup(&flow(1).id.key), None);
        assert_eq!((s.phase(id), s.close_reason(id.index)), (Some(Phase::Ended), 3));
    }

    #[test]
    fn a_stale_id_is_refused() {
        let mut s = store();
        let old = s.install(&flow(1)).unwrap();
        s.free(old.index);
        let new = s.install(&flow(1)).unwrap();
        assert_eq!(new.index, old.index);
        assert_eq!((s.phase(old), s.phase(new)), (None, Some(Phase::Live)));
        assert_eq!(s.phase(FlowId::NONE), None);
    }

    #[test]
    fn a_tuple_is_installed_once_and_the_table_is_bounded() {
        let mut s = store();
        for port in 0..4 {
            s.install(&flow(port)).unwrap();
        }
        assert_eq!(s.install(&flow(2)), Err(InstallError::Exists));
        assert_eq!(s.install(&flow(9)), Err(InstallError::NoSpace));
    }

    #[test]
    fn an_ended_flows_tuple_can_be_installed_before_its_id_is_free() {
        let mut s = store();
        let old = s.install(&flow(1)).unwrap();
        s.end(old.index, 1, 0);
        let new = s.install(&flow(1)).unwrap();
        s.free(old.index);
        assert_eq!(s.lookup(&flow(1).id.key), Some(new));
    }
}
