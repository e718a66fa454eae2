//! What the host asks for, done between two rounds of the core that has the ctxq stage.

use super::{Engine, Epochs, Reply};
use crate::board::SoftBoard;
use crate::device::Status;
use crate::lent::Lent;
use crate::mailbox::{Answer, Command, Mailbox};
use crate::memory::Retired;
use crate::ports::carrier::CarrierWatch;
use rustix::fd::OwnedFd;
use std::io;
use std::sync::Arc;
use toe_abi::{CtxId, regs};
use toe_datapath::host::Host;
use toe_hal::Kick;
use toe_sync::epoch::Epoch;

/// What became of the letters.
pub enum Obeyed {
    Nothing,
    Something,
    /// The whole card is to be reset.
    Reset(Reply),
}

pub struct Obeyer {
    lent: Lent,
    mailbox: Arc<Mailbox>,
    status: Arc<Status>,
    attached: bool,
    carrier: Option<CarrierWatch>,
    /// An answer that waits until no core uses what it takes away.
    waiting: Option<(Epoch, Reply, Retired)>,
}

impl Obeyer {
    pub fn new(lent: Lent, mailbox: Arc<Mailbox>, status: Arc<Status>) -> Self {
        Self { lent, mailbox, status, attached: false, carrier: None, waiting: None }
    }

    /// The host is called when the carrier changes, as nothing else of the card may.
    pub fn watch_carrier(&mut self, carrier: CarrierWatch) {
        self.carrier = Some(carrier);
    }

    /// Something has been said of an interface: register LINK is to be read if it was the port's carrier.
    pub fn link_news(&mut self) {
        if self.carrier.as_mut().is_some_and(CarrierWatch::take_change) {
            self.lent.interrupts.interrupt(CtxId::CONTROL);
        }
    }

    /// There may be letters: makes the descriptor that said so quiet again.
    pub fn heard(&self) {
        self.mailbox.clear();
    }

    /// Whether an answer waits.
    pub fn is_busy(&self) -> bool {
        self.waiting.is_some()
    }

    /// Nobody runs any more, so what an answer waits for never comes.
    pub fn end(&mut self) {
        if let Some((_, reply, retired)) = self.waiting.take() {
            reply(Ok(retired));
        }
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
            Command::Map(mapping) => self.lent.map(mapping),
            Command::Unmap { iova, len } => Ok(self.lent.memory.unmap(iova, len)),
            Command::Attach { iova } => self.attach(iova, host).map(|()| Vec::new()),
            Command::Detach | Command::Reset => {
                self.detach(host);
                Ok(Vec::new())
            }
            Command::Signals { signal, first, fds } => self.lent.signals(signal, first, fds, epoll).map(|()| Vec::new()),
            Command::EndSession => {
                self.detach(host);
                self.lent.end_session(epoll)
            }
        }
    }

    fn attach(&mut self, iova: u64, host: &mut Host<SoftBoard>) -> io::Result<()> {
        self.detach(host);
        self.lent.attach(iova)?;
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
        self.lent.detach();
        self.status.set(regs::status::DETACHED);
    }
}
