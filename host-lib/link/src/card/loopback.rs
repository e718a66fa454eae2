//! A card in the same process: it shares our memory, so the link has nothing to do but to remember what it was told.

use super::{Card, CardError, CardInfo};
use rustix::fd::BorrowedFd;
use std::collections::{BTreeMap, BTreeSet};
use toe_abi::{CtxId, regs};

/// Records mappings and signals; whoever drives the card applies them.
#[derive(Debug, Default)]
pub struct Loopback {
    info: CardInfo,
    status: u32,
    /// I/O virtual address and bytes of each mapping.
    pub mappings: BTreeMap<u64, u64>,
    /// Contexts with signals.
    pub signals: BTreeSet<CtxId>,
    /// Where the control region is, once attached.
    pub control: Option<u64>,
    /// Every later call fails.
    pub gone: bool,
}

impl Loopback {
    pub fn new(info: CardInfo) -> Self {
        Self { info, ..Self::default() }
    }

    /// What the card's STATUS shall read.
    pub fn set_status(&mut self, status: u32) {
        self.status = status;
    }

    fn alive(&self, step: &'static str) -> Result<(), CardError> {
        if self.gone { Err(CardError::Gone { step, error: "told to be gone".into() }) } else { Ok(()) }
    }
}

impl Card for Loopback {
    fn info(&self) -> &CardInfo {
        &self.info
    }

    fn status(&mut self) -> Result<u32, CardError> {
        self.alive("reading STATUS")?;
        Ok(self.status)
    }

    fn map(&mut self, iova: u64, len: u64, _memory: BorrowedFd<'_>) -> Result<(), CardError> {
        self.alive("DMA_MAP")?;
        self.mappings.insert(iova, len);
        Ok(())
    }

    fn unmap(&mut self, iova: u64, len: u64) -> Result<(), CardError> {
        self.alive("DMA_UNMAP")?;
        self.mappings
            .remove(&iova)
            .filter(|&l| l == len)
            .map(|_| ())
            .ok_or(CardError::Os { step: "DMA_UNMAP", error: rustix::io::Errno::INVAL.into() })
    }

    fn set_signals(&mut self, ctx: CtxId, _interrupt: BorrowedFd<'_>, _kick: BorrowedFd<'_>) -> Result<(), CardError> {
        self.alive("SET_IRQS")?;
        self.signals.insert(ctx);
        Ok(())
    }

    fn clear_signals(&mut self, ctx: CtxId) -> Result<(), CardError> {
        self.alive("SET_IRQS")?;
        self.signals.remove(&ctx);
        Ok(())
    }

    fn enable(&mut self, control_iova: u64, what: u32) -> Result<(), CardError> {
        self.alive("writing ENABLE")?;
        self.control = (what == regs::enable::ATTACH).then_some(control_iova);
        self.status = if self.control.is_some() { regs::status::ATTACHED } else { regs::status::DETACHED };
        Ok(())
    }

    fn watch(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
