//! The application: says what it has read and written, and reads events.

use super::rig::Why;
use core::mem::offset_of;
use toe_abi::context::{ContextPage, HostLine};
use toe_abi::desc::{DESC_LEN, HostDesc, hc, hc_flags, phase, slot};
use toe_abi::region::RegionHeader;
use toe_abi::{CtxId, FlowId, HostAddr, RegionId};
use toe_hal::HostMemory;
use toe_virt::window::WindowMemory;
use zerocopy::IntoBytes;

/// Its region, and its context, as the card names them.
pub const REGION: RegionId = RegionId(1);
pub const CTX: CtxId = CtxId(1);
/// Descriptors in each of its queues: more than are ever posted at a time.
pub const ENTRIES: u32 = 1024;

const PHASE: u64 = DESC_LEN as u64 - 4;

pub struct App {
    memory: WindowMemory,
    header: RegionHeader,
    flow: FlowId,
    /// Written and read up to here.
    tx_head: u32,
    rx_tail: u32,
    posted: u32,
    events: u32,
}

impl App {
    pub fn new(memory: WindowMemory, header: RegionHeader, flow: FlowId) -> Self {
        Self { memory, header, flow, tx_head: 0, rx_tail: 0, posted: 0, events: 0 }
    }

    /// Posts a descriptor: so much more is written, so much more is read.
    pub fn update(&mut self, written: u32, read: u32) -> Result<(), Why> {
        (self.tx_head, self.rx_tail) = (self.tx_head.wrapping_add(written), self.rx_tail.wrapping_add(read));
        let desc = HostDesc {
            kind: hc::UPDATE,
            flags: hc_flags::NODELAY,
            flow: self.flow,
            tx_head: self.tx_head,
            rx_tail: self.rx_tail,
            ..HostDesc::default()
        };
        let place = Self::place(self.header.hc_queue(0), self.posted);
        let _ = self.memory.write(place, &desc.as_bytes()[..PHASE as usize], 0)?;
        self.memory.store(place.add(PHASE), phase(self.posted, ENTRIES))?;
        self.posted = self.posted.wrapping_add(1);
        self.memory.store(self.host_line(offset_of!(HostLine, hc_tail)), self.posted)?;
        Ok(())
    }

    /// Reads all events that are there; returns how many.
    pub fn read_events(&mut self) -> Result<u32, Why> {
        let before = self.events;
        while self.memory.load(Self::place(self.header.ev_queue(0), self.events).add(PHASE))? == phase(self.events, ENTRIES) {
            self.events = self.events.wrapping_add(1);
        }
        self.memory.store(self.host_line(offset_of!(HostLine, ev_head)), self.events)?;
        Ok(self.events.wrapping_sub(before))
    }

    fn host_line(&self, word: usize) -> HostAddr {
        HostAddr::new(REGION, self.header.context_page(0) + (offset_of!(ContextPage, host) + word) as u64)
    }

    fn place(queue: u64, index: u32) -> HostAddr {
        HostAddr::new(REGION, queue + u64::from(slot(index, ENTRIES)) * DESC_LEN as u64)
    }
}
