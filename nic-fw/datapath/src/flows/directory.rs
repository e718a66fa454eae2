//! The directory: which flows there are, and how a four-tuple finds its flow. One writer, views for every stage.

use super::{Fixed, Groups, Place};
use alloc::{boxed::Box, vec::Vec};
use toe_abi::{
    FlowId, RegionId,
    flow::{FlowKey, FlowOptions, FlowState},
};
use toe_sync::{
    FlowHash, HashKey,
    flow_table::{FlowReader, FlowWriter},
    records::{RecordReader, RecordWriter, records},
};

/// Why a flow can't be installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InstallError {
    Exists,
    NoSpace,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Listing {
    Free,
    /// Found by its tuple.
    Listed,
    /// The same, but its tuple is free for another: until the control plane knows of the end, the peer's last words are answered here.
    Ended,
    /// Another has its tuple; its id is not free yet.
    Unlisted,
}

struct Meta {
    generation: u32,
    listing: Listing,
}

/// What the ctxq stage knows of the flows, and alone changes.
pub struct Directory {
    groups: Groups,
    meta: Box<[Meta]>,
    /// Free indices of each group.
    free: Box<[Vec<u32>]>,
    fixed: RecordWriter<Fixed>,
    table: FlowWriter,
    view: FlowView,
}

impl Directory {
    /// For `max_flows` in all, the same number in each group.
    pub fn new(max_flows: u32, groups: Groups, secret: [u64; 2]) -> Self {
        let share = groups.share(max_flows);
        let n = share * u32::from(groups.count());
        let table = FlowWriter::new(n);
        let (fixed, reader) = records(n);
        let free = groups.all().map(|g| (0..share).rev().map(|local| groups.index(g, local)).collect());
        Self {
            groups,
            meta: (0..n).map(|_| Meta { generation: 1, listing: Listing::Free }).collect(),
            free: free.collect(),
            fixed,
            view: FlowView { fixed: reader, table: table.reader(), hash_key: HashKey::new(secret), groups },
            table,
        }
    }

    pub fn view(&self) -> FlowView {
        self.view.clone()
    }

    pub fn groups(&self) -> Groups {
        self.groups
    }

    pub fn capacity(&self) -> u32 {
        self.meta.len() as u32
    }

    /// What is fixed of a flow; `None`: there is no such flow, or not any more.
    pub fn fixed(&self, flow: FlowId) -> Option<Fixed> {
        self.view.fixed(flow)
    }

    /// The flow that has index `i` now.
    pub fn id(&self, i: u32) -> Option<FlowId> {
        let meta = self.meta.get(i as usize)?;
        (meta.listing != Listing::Free).then_some(FlowId { index: i, generation: meta.generation })
    }

    fn is(&self, flow: FlowId) -> bool {
        self.id(flow.index) == Some(flow)
    }

    /// First flow with an index of at least `from` and below `end` that `wanted` accepts.
    pub fn find_from(&self, from: u32, end: u32, wanted: impl Fn(&Fixed) -> bool) -> Option<FlowId> {
        let accepted = |&id: &FlowId| self.fixed(id).is_some_and(|f| wanted(&f));
        (from..end.min(self.capacity())).find_map(|i| self.id(i).filter(accepted))
    }

    /// Gives a flow an id, and lists it. What arrives for it before its protocol stage has installed it is nobody's there, and goes to
    /// the control plane, which holds it until INSTALL is answered.
    pub fn install(&mut self, state: &FlowState) -> Result<FlowId, InstallError> {
        let fixed = Fixed::of(state);
        let hash = self.view.hash(&fixed.place.key);
        let old = self.view.lookup(hash, &fixed.place);
        if old.is_some_and(|old| self.meta[old.index as usize].listing != Listing::Ended) {
            return Err(InstallError::Exists);
        }
        let group = usize::from(self.view.group(hash));
        let &i = self.free[group].last().ok_or(InstallError::NoSpace)?;
        let id = FlowId { index: i, generation: self.meta[i as usize].generation };
        self.fixed.publish(i, id.generation, &fixed);
        if self.table.insert(hash, id).is_err() {
            self.fixed.retract(i);
            return Err(InstallError::NoSpace);
        }
        // Not before: if there is no room, the peer of the flow that has ended is still answered.
        old.into_iter().for_each(|old| self.unlist(old));
        self.free[group].pop();
        self.meta[i as usize].listing = Listing::Listed;
        Ok(id)
    }

    /// From now on packets of the flow are marked, and live, as its application says. Nothing, if it is not a flow of this region.
    #[cold]
    pub fn mark(&mut self, flow: FlowId, region: RegionId, options: &FlowOptions) {
        let Some(old) = self.fixed(flow).filter(|fixed| fixed.region == region) else { return };
        let ttl = if options.ttl == 0 { old.ttl } else { options.ttl };
        if (old.tos, old.ttl) != (options.tos, ttl) {
            self.fixed.publish(flow.index, flow.generation, &Fixed { tos: options.tos, ttl, ..old });
        }
    }

    /// The connection has ended.
    pub fn end(&mut self, flow: FlowId) {
        if self.is(flow) && self.meta[flow.index as usize].listing == Listing::Listed {
            self.meta[flow.index as usize].listing = Listing::Ended;
        }
    }

    /// Its tuple finds it no more.
    fn unlist(&mut self, flow: FlowId) {
        if !self.is(flow) || self.meta[flow.index as usize].listing == Listing::Unlisted {
            return;
        }
        if let Some(fixed) = self.fixed(flow) {
            self.table.remove(self.view.hash(&fixed.place.key), flow);
        }
        self.meta[flow.index as usize].listing = Listing::Unlisted;
    }

    /// Frees the index; the id means nothing from now on. False: it did not mean anything before.
    pub fn free(&mut self, flow: FlowId) -> bool {
        if !self.is(flow) {
            return false;
        }
        self.unlist(flow);
        let i = flow.index;
        let meta = &mut self.meta[i as usize];
        // 0 is no generation: it marks what never was.
        meta.generation = meta.generation.wrapping_add(1).max(1);
        meta.listing = Listing::Free;
        self.fixed.retract(i);
        self.free[usize::from(self.groups.of(flow))].push(i);
        true
    }
}

/// What every stage may know of the flows.
#[derive(Clone)]
pub struct FlowView {
    fixed: RecordReader<Fixed>,
    table: FlowReader,
    hash_key: HashKey,
    groups: Groups,
}

impl FlowView {
    pub fn groups(&self) -> Groups {
        self.groups
    }

    #[inline]
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        FlowHash::new(&self.hash_key, key)
    }

    /// The group of a tuple.
    pub fn group(&self, hash: FlowHash) -> u16 {
        hash.group(self.groups.count().into()) as u16
    }

    /// Fetches into the cache what [`lookup`](Self::lookup) is going to read.
    pub fn prefetch(&self, hash: FlowHash) {
        self.table.prefetch(hash);
    }

    /// The flow at a place. `hash`: of its tuple.
    #[inline]
    pub fn lookup(&self, hash: FlowHash, place: &Place) -> Option<FlowId> {
        // A record begins with its place.
        const { assert!(core::mem::offset_of!(Fixed, place) == 0) };
        self.table.candidates(hash).find(|&id| self.fixed.begins_with(id.index, id.generation, place))
    }

    /// What is fixed of a flow; `None`: there is no such flow, or not any more.
    pub fn fixed(&self, flow: FlowId) -> Option<Fixed> {
        self.fixed.read(flow.index, flow.generation)
    }

    /// Whether the id means a flow still.
    pub fn is(&self, flow: FlowId) -> bool {
        self.fixed.generation(flow.index) == Some(flow.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn flow(port: u16) -> FlowState {
        let mut s = FlowState::new_zeroed();
        s.id.key.remote_port = port;
        s
    }

    fn directory() -> Directory {
        Directory::new(4, Groups::new(1), [1, 2])
    }

    fn lookup(d: &Directory, port: u16) -> Option<FlowId> {
        let (view, key) = (d.view(), flow(port).id.key);
        view.lookup(view.hash(&key), &Place::new(key, 0))
    }

    #[test]
    fn a_tuple_finds_its_flow_until_its_id_is_free() {
        let mut d = directory();
        let id = d.install(&flow(1)).unwrap();
        assert_eq!((lookup(&d, 1), lookup(&d, 2)), (Some(id), None));
        d.end(id);
        assert_eq!(lookup(&d, 1), Some(id));
        assert!(d.free(id));
        assert_eq!(lookup(&d, 1), None);
    }

    #[test]
    fn a_tuple_is_another_flows_on_another_vlan() {
        let mut d = directory();
        let mut tagged = flow(1);
        // Its priority is of no interest.
        tagged.id.vlan = 0xe007;
        let (plain, id) = (d.install(&flow(1)).unwrap(), d.install(&tagged).unwrap());
        let (view, key) = (d.view(), flow(1).id.key);
        let found = [0, 7, 8].map(|vlan| view.lookup(view.hash(&key), &Place::new(key, vlan)));
        assert_eq!(found, [Some(plain), Some(id), None]);
    }

    #[test]
    fn only_its_own_application_marks_a_flow() {
        let mut d = directory();
        let mut state = flow(1);
        (state.id.region, state.id.ttl) = (RegionId(3), 64);
        let id = d.install(&state).unwrap();
        let options = FlowOptions { tos: 0x10, ..FlowOptions::default() };
        d.mark(id, RegionId(2), &options);
        d.mark(FlowId { generation: id.generation + 1, ..id }, RegionId(3), &options);
        assert_eq!(d.fixed(id).map(|f| (f.tos, f.ttl)), Some((0, 64)));
        d.mark(id, RegionId(3), &options);
        assert_eq!((d.fixed(id).map(|f| (f.tos, f.ttl)), lookup(&d, 1)), (Some((0x10, 64)), Some(id)));
        d.mark(id, RegionId(3), &FlowOptions { ttl: 3, ..options });
        assert_eq!(d.fixed(id).map(|f| (f.tos, f.ttl)), Some((0x10, 3)));
    }

    #[test]
    fn a_stale_id_is_refused() {
        let mut d = directory();
        let old = d.install(&flow(1)).unwrap();
        assert!(d.free(old) && !d.free(old));
        let new = d.install(&flow(1)).unwrap();
        assert_eq!(new.index, old.index);
        assert!(!d.view().is(old) && d.view().is(new));
        assert!(d.fixed(old).is_none() && d.fixed(FlowId::NONE).is_none());
    }

    #[test]
    fn a_tuple_is_installed_once_and_the_table_is_bounded() {
        let mut d = directory();
        for port in 0..4 {
            d.install(&flow(port)).unwrap();
        }
        assert_eq!(d.install(&flow(2)), Err(InstallError::Exists));
        assert_eq!(d.install(&flow(9)), Err(InstallError::NoSpace));
    }

    #[test]
    fn an_ended_flows_tuple_can_be_installed_before_its_id_is_free() {
        let mut d = directory();
        let old = d.install(&flow(1)).unwrap();
        d.end(old);
        let new = d.install(&flow(1)).unwrap();
        assert_eq!(lookup(&d, 1), Some(new));
        assert!(d.view().is(old) && d.fixed(old).is_some());
        d.end(old);
        d.free(old);
        assert_eq!(lookup(&d, 1), Some(new));
        assert_eq!(d.install(&flow(1)), Err(InstallError::Exists));
    }

    #[test]
    fn an_ended_flow_keeps_its_tuple_if_there_is_no_room_for_another() {
        let mut d = directory();
        let ids: Vec<FlowId> = (0..4).map(|port| d.install(&flow(port)).unwrap()).collect();
        d.end(ids[1]);
        assert_eq!(d.install(&flow(1)), Err(InstallError::NoSpace));
        assert_eq!(lookup(&d, 1), Some(ids[1]));
        d.free(ids[0]);
        let new = d.install(&flow(1)).unwrap();
        assert_eq!((lookup(&d, 1), d.view().is(ids[1])), (Some(new), true));
    }

    #[test]
    fn an_index_says_its_group() {
        let mut d = Directory::new(64, Groups::new(4), [1, 2]);
        for port in 0..32 {
            let id = d.install(&flow(port)).unwrap();
            let view = d.view();
            assert_eq!(view.groups().of(id), view.group(view.hash(&flow(port).id.key)));
        }
    }
}
