//! What the host lends the card, memory and descriptors, and what it asks to be done with them.

use crate::mailbox::{Answer, Signal};
use crate::memory::{Mapping, SoftMemory};
use crate::signals::{Interrupts, Kicks};
use rustix::fd::OwnedFd;
use std::io;
use toe_abi::control::CONTROL_REGION_LEN;
use toe_abi::{CtxId, RegionId};
use toe_hal::HostMemory;

pub struct Lent {
    pub memory: SoftMemory,
    pub interrupts: Interrupts,
    pub kicks: Kicks,
}

impl Lent {
    pub fn map(&self, mapping: Mapping) -> Answer {
        self.memory.map(mapping).map_err(|refused| {
            tracing::warn!("DMA_MAP refused: {refused}");
            io::Error::from_raw_os_error(refused.errno())
        })
    }

    /// The control region is the one at `iova` from now on.
    pub fn attach(&mut self, iova: u64) -> io::Result<()> {
        self.memory.bind(RegionId::CONTROL, iova, CONTROL_REGION_LEN).map_err(|_| {
            tracing::warn!(iova = format!("{iova:#x}"), len = CONTROL_REGION_LEN, "ATTACH: no such control region is mapped");
            io::Error::from_raw_os_error(libc::EFAULT)
        })
    }

    pub fn detach(&mut self) {
        self.memory.unbind(RegionId::CONTROL);
    }

    /// Sets (or takes away) descriptors of contexts, from `first` on; those of kicks are waited on by `epoll`.
    pub fn signals(&mut self, signal: Signal, first: CtxId, fds: Vec<Option<OwnedFd>>, epoll: &OwnedFd) -> io::Result<()> {
        for (i, fd) in fds.into_iter().enumerate() {
            let ctx = u16::try_from(usize::from(first.0) + i).map_err(|_| rustix::io::Errno::INVAL)?;
            let ctx = CtxId(ctx);
            match signal {
                Signal::Interrupt => self.interrupts.set(ctx, fd)?,
                Signal::Kick => self.kicks.set(epoll, ctx, fd)?,
            }
        }
        Ok(())
    }

    /// The host has gone, detached. The control region's descriptors belonged to it; the applications' go on working.
    pub fn end_session(&mut self, epoll: &OwnedFd) -> Answer {
        self.signals(Signal::Interrupt, CtxId::CONTROL, vec![None], epoll)?;
        self.signals(Signal::Kick, CtxId::CONTROL, vec![None], epoll)?;
        Ok(self.memory.end_session())
    }
}
