//! What the host asks for, done between two rounds of the core that has the ctxq stage.

use super::{Engine, Epochs, Reply};
use crate::board::SoftBoard;
use crate::device::Status;
use crate::mailbox::{Answer, Command, Mailbox, Signal};
use crate::memory::{Retired, SoftMemory};
use crate::signals::{Interrupts, Kicks};
use rustix::fd::OwnedFd;
use std::io;
use std::sync::Arc;
use toe_abi::{CtxId, RegionId, control, regs};
use toe_datapath::host::Host;
use toe_hal::HostMemory;
use toe_sync::epoch::Epoch;

/// What became of the letters.
pub enum Obeyed {
    Nothing,
    Something,
    /// The whole card is to be reset.
    Reset(Reply),
}

pub struct Obeyer {
    memory: SoftMemory,
    interrupts: Interrupts,
    kicks: Kicks,
    mailbox: Arc<Mailbox>,
    status: Arc<Status>,
    attached: bool,
    /// An answer that waits until no core uses what it takes away.
    waiting: Option<(Epoch, Reply, Retired)>,
}

impl Obeyer {
    pub fn new(memory: SoftMemory, interrupts: Interrupts, kicks: Kicks, mailbox: Arc<Mailbox>, status: Arc<Status>) -> Self {
        Self { memory, interrupts, kicks, mailbox, status, attached: false, waiting: None }
    }

    /// There may be letters: makes the descriptor that said so quiet again.
    pub fn heard(&self) {
        self.mailbox.clear();
    }

    /// Whether an answer waits.
    pub fn is_busy(&self) -> bool {
        self.waiting.is_some()
    }

    /// Does what the device thread asks for.
    pub fn letters(&mut self, engine: &mut dyn Engine, epoll: &OwnedFd, epochs: &mut Epochs<'_>) -> Obeyed {
        if let Some((epoch, reply, retired)) = self.waiting.take() {
            if !epochs.all_passed(epoch) {
                self.waiting = Some((epoch, reply, retired));
                return Obeyed::Nothing;
            }
            reply(Ok(retired));
        }
        let Some(letter) = self.mailbox.take() else { return Obeyed::Nothing };
        let (command, reply) = letter.open();
        let reply: Reply = Box::new(reply);
        let Some(host) = engine.host() else { return Obeyed::Nothing };
        if matches!(command, Command::Reset) {
            self.detach(host);
            return Obeyed::Reset(reply);
        }
        match (self.obey(command, host, epoll), epochs) {
            (Ok(retired), epochs) if !retired.is_empty() => match epochs.begin() {
                Some(epoch) => self.waiting = Some((epoch, reply, retired)),
                None => reply(Ok(retired)),
            },
            (answer, _) => reply(answer),
        }
        Obeyed::Something
    }

    fn obey(&mut self, command: Command, host: &mut Host<SoftBoard>, epoll: &OwnedFd) -> Answer {
        match command {
            Command::Map(mapping) => self.memory.map(mapping).map_err(|refused| {
                tracing::warn!("DMA_MAP refused: {refused}");
                io::Error::from_raw_os_error(refused.errno())
            }),
            Command::Unmap { iova, len } => Ok(self.memory.unmap(iova, len)),
            Command::Attach { iova } => self.attach(iova, host).map(|()| Vec::new()),
            Command::Detach | Command::Reset => {
                self.detach(host);
                Ok(Vec::new())
            }
            Command::Signals { signal, first, fds } => self.signals(signal, first, fds, epoll).map(|()| Vec::new()),
            Command::EndSession => {
                self.detach(host);
                // The control region's descriptors belonged to the host; the applications' go on working.
                self.signals(Signal::Interrupt, CtxId::CONTROL, vec![None], epoll)?;
                self.signals(Signal::Kick, CtxId::CONTROL, vec![None], epoll)?;
                Ok(self.memory.end_session())
            }
        }
    }

    fn attach(&mut self, iova: u64, host: &mut Host<SoftBoard>) -> io::Result<()> {
        self.detach(host);
        self.memory.bind(RegionId::CONTROL, iova, control::CONTROL_REGION_LEN).map_err(|_| {
            tracing::warn!(iova = format!("{iova:#x}"), len = control::CONTROL_REGION_LEN, "ATTACH: no such control region is mapped");
            io::Error::from_raw_os_error(libc::EFAULT)
        })?;
        host.attach_control();
        self.attached = true;
        self.status.set(regs::status::ATTACHED);
        tracing::info!("control plane attached");
        Ok(())
    }

    fn detach(&mut self, host: &mut Host<SoftBoard>) {
        if std::mem::take(&mut self.attached) {
            host.detach_control();
            tracing::info!("control plane detached");
        }
        self.memory.unbind(RegionId::CONTROL);
        self.status.set(regs::status::DETACHED);
    }

    fn signals(&mut self, signal: Signal, first: CtxId, fds: Vec<Option<OwnedFd>>, epoll: &OwnedFd) -> io::Result<()> {
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
}
