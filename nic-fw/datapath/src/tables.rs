//! Small tables that the control plane writes and stages read: regions, next hops, own addresses.

use alloc::{boxed::Box, vec, vec::Vec};
use toe_abi::RegionId;
use toe_wire::Mac;

pub struct Tables {
    /// Bytes of each region that is mapped.
    regions: Box<[Option<u64>]>,
    next_hops: Box<[Option<Mac>]>,
    addresses: Vec<[u8; 16]>,
    max_addresses: usize,
}

impl Tables {
    pub fn new(regions: u16, next_hops: u16, addresses: u16) -> Self {
        Self {
            regions: vec![None; regions.into()].into_boxed_slice(),
            next_hops: vec![None; next_hops.into()].into_boxed_slice(),
            addresses: Vec::with_capacity(addresses.into()),
            max_addresses: addresses.into(),
        }
    }

    /// A region that an application may have: not the control region, not beyond the table.
    pub fn is_application(&self, region: RegionId) -> bool {
        region != RegionId::CONTROL && usize::from(region.0) < self.regions.len()
    }

    /// Bytes of a region; `None`: not mapped.
    pub fn region_len(&self, region: RegionId) -> Option<u64> {
        self.regions.get(usize::from(region.0)).copied().flatten()
    }

    pub fn set_region(&mut self, region: RegionId, len: Option<u64>) {
        if let Some(entry) = self.regions.get_mut(usize::from(region.0)) {
            *entry = len;
        }
    }

    /// A region that is mapped.
    pub fn any_mapped(&self) -> Option<RegionId> {
        self.regions.iter().position(Option::is_some).map(|i| RegionId(i as u16))
    }

    /// Whether `len` bytes at `offset` lie in `region`.
    pub fn contains(&self, region: RegionId, offset: u64, len: u64) -> bool {
        self.region_len(region).is_some_and(|size| offset.checked_add(len).is_some_and(|end| end <= size))
    }

    pub fn next_hop(&self, index: u16) -> Option<Mac> {
        self.next_hops.get(usize::from(index)).copied().flatten()
    }

    /// False: beyond the table.
    pub fn set_next_hop(&mut self, index: u64, mac: Option<Mac>) -> bool {
        let entry = usize::try_from(index).ok().and_then(|i| self.next_hops.get_mut(i));
        entry.map(|entry| *entry = mac).is_some()
    }

    pub fn next_hop_in_range(&self, index: u16) -> bool {
        usize::from(index) < self.next_hops.len()
    }

    pub fn is_own(&self, address: &[u8; 16]) -> bool {
        self.addresses.contains(address)
    }

    /// False: the table is full.
    pub fn add_address(&mut self, address: [u8; 16]) -> bool {
        if self.is_own(&address) {
            return true;
        }
        let room = self.addresses.len() < self.max_addresses;
        if room {
            self.addresses.push(address);
        }
        room
    }

    /// False: it was not there.
    pub fn remove_address(&mut self, address: &[u8; 16]) -> bool {
        let before = self.addresses.len();
        self.addresses.retain(|a| a != address);
        self.addresses.len() < before
    }

    pub fn clear(&mut self) {
        self.regions.fill(None);
        self.next_hops.fill(None);
        self.addresses.clear();
    }
}
