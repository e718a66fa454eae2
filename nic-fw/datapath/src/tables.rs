//! Small tables that the control plane writes: regions, for the ctxq stage alone; next hops and own addresses, which other
//! stages see through views.

use alloc::{boxed::Box, vec};
use toe_abi::RegionId;
use toe_sync::records::{RecordReader, RecordWriter, records};
use toe_wire::Mac;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes of a MAC address in a record: whole words.
type MacWords = [u8; 8];

/// An address of the card's, and the VLAN that it has it on (0: none).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
pub struct OwnAddress {
    ip: [u8; 16],
    vlan: u32,
}

impl OwnAddress {
    pub fn new(ip: [u8; 16], vlan: u16) -> Self {
        Self { ip, vlan: vlan.into() }
    }
}

pub struct Tables {
    /// Bytes of each region that is mapped.
    regions: Box<[Option<u64>]>,
    next_hops: (RecordWriter<MacWords>, HopView),
    addresses: (RecordWriter<OwnAddress>, AddressView),
}

impl Tables {
    pub fn new(regions: u16, next_hops: u16, addresses: u16) -> Self {
        let (hops, hop_view) = records(next_hops.into());
        let (own, own_view) = records(addresses.into());
        Self {
            regions: vec![None; regions.into()].into_boxed_slice(),
            next_hops: (hops, HopView(hop_view)),
            addresses: (own, AddressView(own_view)),
        }
    }

    pub fn next_hops(&self) -> HopView {
        self.next_hops.1.clone()
    }

    pub fn addresses(&self) -> AddressView {
        self.addresses.1.clone()
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

    /// False: beyond the table.
    pub fn set_next_hop(&mut self, index: u64, mac: Option<Mac>) -> bool {
        let (writer, view) = &mut self.next_hops;
        let Some(index) = u32::try_from(index).ok().filter(|i| *i < view.0.len()) else { return false };
        match mac {
            Some([a, b, c, d, e, f]) => writer.publish(index, 0, &[a, b, c, d, e, f, 0, 0]),
            None => writer.retract(index),
        }
        true
    }

    pub fn next_hop_in_range(&self, index: u16) -> bool {
        u32::from(index) < self.next_hops.1.0.len()
    }

    /// False: the table is full.
    pub fn add_address(&mut self, address: OwnAddress) -> bool {
        let (writer, view) = &mut self.addresses;
        if view.find(&address).is_some() {
            return true;
        }
        let free = (0..view.0.len()).find(|&i| view.0.get(i).is_none());
        free.map(|i| writer.publish(i, 0, &address)).is_some()
    }

    /// False: it was not there.
    pub fn remove_address(&mut self, address: &OwnAddress) -> bool {
        let (writer, view) = &mut self.addresses;
        view.find(address).map(|i| writer.retract(i)).is_some()
    }

    pub fn clear(&mut self) {
        self.regions.fill(None);
        (0..self.next_hops.1.0.len()).for_each(|i| self.next_hops.0.retract(i));
        (0..self.addresses.1.0.len()).for_each(|i| self.addresses.0.retract(i));
    }
}

/// The next hops, for post.
#[derive(Clone)]
pub struct HopView(RecordReader<MacWords>);

impl HopView {
    pub fn mac(&self, index: u16) -> Option<Mac> {
        self.0.get(index.into()).map(|(_, [a, b, c, d, e, f, ..])| [a, b, c, d, e, f])
    }
}

/// The card's own addresses, for pre.
#[derive(Clone)]
pub struct AddressView(RecordReader<OwnAddress>);

impl AddressView {
    fn find(&self, address: &OwnAddress) -> Option<u32> {
        (0..self.0.len()).find(|&i| self.0.get(i).is_some_and(|(_, own)| own == *address))
    }

    pub fn is_own(&self, ip: &[u8; 16], vlan: u16) -> bool {
        self.find(&OwnAddress::new(*ip, vlan)).is_some()
    }
}
