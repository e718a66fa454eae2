//! What the host has mapped and named: changed by requests of the host and of its daemon, never looked at by a transfer.

use super::Retired;
use super::mapping::{MapRefused, Mapping, PAGE};
use toe_abi::RegionId;
use toe_hal::DmaFault;
use toe_sync::regions;

/// The I/O virtual addresses that a region names.
#[derive(Clone, Copy, Debug)]
struct Range {
    iova: u64,
    len: u64,
}

#[derive(Debug)]
pub(super) struct Control {
    maps: Vec<Mapping>,
    names: Box<[Option<Range>]>,
    /// Where the named ranges are, for all cores.
    places: regions::Owner,
    session: u64,
}

impl Control {
    pub fn new(max_regions: u16, places: regions::Owner) -> Self {
        Self { maps: Vec::new(), names: vec![None; usize::from(max_regions)].into_boxed_slice(), places, session: 1 }
    }

    pub fn map(&mut self, mut mapping: Mapping) -> Result<Retired, MapRefused> {
        let (iova, len) = (mapping.iova, mapping.len);
        let in_way = |m: &Mapping| m.overlaps(iova, len);
        if self.maps.iter().any(|m| in_way(m) && (m.session == self.session || self.is_bound(m))) {
            return Err(MapRefused::Overlap { iova, len });
        }
        let retired = self.retire(in_way);
        mapping.session = self.session;
        self.maps.push(mapping);
        Ok(retired)
    }

    pub fn unmap(&mut self, iova: u64, len: u64) -> Retired {
        self.retire(|m| m.iova >= iova && m.iova + m.len <= iova.saturating_add(len))
    }

    pub fn end_session(&mut self) -> Retired {
        self.session += 1;
        let Some(control) = self.names.first().copied().flatten() else { return Retired::new() };
        self.unbind(RegionId::CONTROL);
        let holds_control = |m: &Mapping| m.holds(control.iova, control.len);
        let is_shared = self.names.iter().flatten().any(|r| self.maps.iter().any(|m| m.holds(r.iova, r.len) && holds_control(m)));
        if is_shared { Retired::new() } else { self.retire(holds_control) }
    }

    pub fn reset(&mut self) -> Retired {
        self.unbind_all(|_| true);
        let session = self.session;
        self.retire(|m| m.session != session)
    }

    pub fn mapped(&self) -> usize {
        self.maps.len()
    }

    pub fn bind(&mut self, region: RegionId, iova: u64, len: u64) -> Result<(), DmaFault> {
        // Only what this host has mapped: an address that a dead one used may mean other memory today.
        let mapping = self.maps.iter().find(|m| m.session == self.session && m.holds(iova, len)).ok_or(DmaFault)?;
        if len == 0 || !(iova - mapping.iova).is_multiple_of(PAGE) {
            return Err(DmaFault);
        }
        let name = self.names.get_mut(usize::from(region.0)).ok_or(DmaFault)?;
        // SAFETY: `holds` has checked that iova + len lies inside the mapping.
        let base = unsafe { mapping.base.add((iova - mapping.iova) as usize) };
        // SAFETY: in a live mapping, from a page on; mappings are dropped only when every core has passed an epoch since (see `Retired`).
        unsafe { self.places.bind(region, base, len) }.map_err(|_| DmaFault)?;
        *name = Some(Range { iova, len });
        Ok(())
    }

    pub fn unbind(&mut self, region: RegionId) {
        if let Some(name) = self.names.get_mut(usize::from(region.0)) {
            *name = None;
            self.places.unbind(region);
        }
    }

    fn unbind_all(&mut self, which: impl Fn(Range) -> bool) {
        for region in (0..).map(RegionId).take(self.names.len()) {
            if self.names[usize::from(region.0)].is_some_and(&which) {
                self.unbind(region);
            }
        }
    }

    fn is_bound(&self, m: &Mapping) -> bool {
        self.names.iter().flatten().any(|r| m.overlaps(r.iova, r.len))
    }

    /// Takes out the mappings that `which` names, after unbinding what lies in them.
    fn retire(&mut self, which: impl Fn(&Mapping) -> bool) -> Retired {
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.maps).into_iter().partition(&which);
        self.maps = kept;
        self.unbind_all(|r| gone.iter().any(|m| m.overlaps(r.iova, r.len)));
        gone
    }
}
