//! The machine that toed's core runs on in the simulation: memory that is shared for real, everything else in queues.

use super::memory::Pages;
use rustix::io::Errno;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ptr::NonNull;
use std::rc::Rc;
use toe_abi::app::Reply;
use toe_abi::control::{CONTROL_REGION_LEN, ControlMsg};
use toe_abi::frames::FrameRecord;
use toe_abi::{CtxId, RegionId};
use toe_link::card::{ControlRegion, SharedMemory, iova};
use toed::core::{Attachment, ClientId, Created, Host};

/// I/O virtual address of toed's control region.
pub const CONTROL_IOVA: u64 = 1 << 60;

/// Something that changed the card's view of memory; applied by the host in order.
pub enum CardOp {
    Map { iova: u64, base: NonNull<u8>, len: usize },
    Unmap { iova: u64 },
}

/// State that the core's [`Host`] shares with the simulated host around it.
pub struct Shared {
    pub control: ControlRegion,
    /// Something was put into the control region's queues since the card was last woken.
    pub published: bool,
    pub card_ops: VecDeque<CardOp>,
    pub replies: VecDeque<(ClientId, Reply, Vec<Attachment>)>,
    /// Contexts interrupted by toed.
    pub interrupts: Vec<CtxId>,
    /// Memory of each region, for applications.
    pub regions: HashMap<RegionId, Pages>,
    /// Memory of regions that were, which a card that lies may go on with, and toed's own.
    kept: Vec<Pages>,
    /// Tokens whose descriptors are open.
    pub tokens: BTreeSet<(RegionId, u32)>,
}

impl Shared {
    fn new() -> Self {
        // A control region zeroes what it is made of.
        let kept = Pages::any(CONTROL_REGION_LEN).expect("memory for the control region");
        let memfd = kept.memfd().and_then(|fd| fd.try_clone_to_owned().ok()).expect("a descriptor of it");
        let memory = SharedMemory::map(memfd, 0, kept.len()).expect("a mapping of it");
        Self {
            control: ControlRegion::new(memory).expect("a control region"),
            published: false,
            card_ops: VecDeque::new(),
            replies: VecDeque::new(),
            interrupts: Vec::new(),
            regions: HashMap::new(),
            kept: vec![kept],
            tokens: BTreeSet::new(),
        }
    }

    /// Address and length of the control region in this process.
    pub fn control_memory(&self) -> (NonNull<u8>, usize) {
        let memory = self.control.memory();
        (memory.base(), memory.len() as usize)
    }
}

/// [`Host`] on top of [`Shared`].
pub struct Machine(pub Rc<RefCell<Shared>>);

impl Machine {
    pub fn new() -> (Self, Rc<RefCell<Shared>>) {
        let shared = Rc::new(RefCell::new(Shared::new()));
        (Self(shared.clone()), shared)
    }
}

impl Host for Machine {
    type Memory = Pages;

    fn create_region(&mut self, region: RegionId, len: u64) -> Result<Created<Pages>, Errno> {
        let iova = iova(region.0);
        let memory = Pages::zeroed(len).map_err(|_| Errno::NOMEM)?;
        let mut shared = self.0.borrow_mut();
        shared.card_ops.push_back(CardOp::Map { iova, base: memory.base(), len: memory.len() as usize });
        shared.regions.insert(region, memory.clone());
        Ok(Created { memory, iova, offset: 0 })
    }

    fn destroy_region(&mut self, region: RegionId) {
        let iova = iova(region.0);
        let mut shared = self.0.borrow_mut();
        shared.card_ops.push_back(CardOp::Unmap { iova });
        let memory = shared.regions.remove(&region);
        shared.kept.extend(memory);
    }

    fn open_context(&mut self, _ctx: CtxId) -> Result<(), Errno> {
        Ok(())
    }

    fn close_context(&mut self, _ctx: CtxId) {}

    fn interrupt(&mut self, ctx: CtxId) {
        self.0.borrow_mut().interrupts.push(ctx);
    }

    fn open_token(&mut self, region: RegionId, slot: u32) -> Result<(), Errno> {
        let new = self.0.borrow_mut().tokens.insert((region, slot));
        assert!(new, "slot {slot} of {region:?} has a token");
        Ok(())
    }

    fn close_token(&mut self, region: RegionId, slot: u32) {
        let open = self.0.borrow_mut().tokens.remove(&(region, slot));
        assert!(open, "slot {slot} of {region:?} has no token");
    }

    fn submit(&mut self, msg: &ControlMsg) -> bool {
        let mut shared = self.0.borrow_mut();
        shared.published = true;
        shared.control.submit(msg)
    }

    fn packet(&mut self, record: &FrameRecord, frame: &[u8]) -> bool {
        let mut shared = self.0.borrow_mut();
        shared.published = true;
        shared.control.packet(record, frame).is_ok()
    }

    fn reply(&mut self, client: ClientId, reply: &Reply, attach: &[Attachment]) {
        self.0.borrow_mut().replies.push_back((client, *reply, attach.to_vec()));
    }
}
