//! What toed asks of the card, carried out between two rounds of the core that has the ctxq stage; and the kicks that arrive there.

use super::board::{Doorbell, VirtBoard};
use super::crew::Crew;
use super::devices::{Debug, link_text, link_word};
use super::log::log;
use alloc::boxed::Box;
use alloc::vec::Vec;
use toe_abi::control::CONTROL_REGION_LEN;
use toe_abi::window::{CONTROL_VECTOR, outcome, stage};
use toe_abi::{CtxId, RegionId, regs};
use toe_arch::time;
use toe_datapath::host::Host;
use toe_datapath::{Card, Composition, Core, Pipeline};
use toe_drivers::Mmio;
use toe_drivers::virtio::net::{NetControl, NetRx, NetTx};
use toe_hal::{HostMemory, Instant, Kick};
use toe_sync::epoch::Reclaimer;
use toe_virt::mend::Mender;
use toe_virt::window::{CardEnd, Facts, ReadWindow, Refused, Request, WindowMemory};

/// Interrupts by the number of their LPI.
pub struct Kicks {
    pub contexts: Box<[(u32, CtxId)]>,
    /// The port's link has changed.
    pub link: Option<u32>,
}

impl Kicks {
    pub fn context(&self, lpi: u32) -> Option<CtxId> {
        self.contexts.iter().find(|(number, _)| *number == lpi).map(|(_, ctx)| *ctx)
    }
}

pub struct Leader {
    pub end: CardEnd,
    pub memory: WindowMemory,
    pub doorbell: Doorbell,
    pub kicks: Kicks,
    pub port: NetControl<Mmio>,
    pub mender: Mender,
    /// `None` while a reset is under way, and of a fused card.
    pub reclaimer: Option<Reclaimer>,
    /// Where cores are collected for a reset: as large as it has to be.
    pub gathered: Vec<Core<VirtBoard>>,
    pub attached: bool,
}

impl Leader {
    /// The card works: what toed asks from now on waits for us.
    pub fn ready(&mut self, facts: &Facts) {
        self.end.link(link_word(self.port.link()));
        self.end.ready(facts);
        self.doorbell.interrupt(CtxId(CONTROL_VECTOR));
    }

    /// Whether toed waits for something, or the port does.
    pub fn is_asked(&self) -> bool {
        self.end.is_asked() || self.port.alarm().is_raised()
    }

    /// Deals with the next request. True: there was one. A reset needs all cores: the caller has put its own into its place.
    pub fn next(&mut self) -> Option<Request> {
        match self.end.request() {
            Ok(request) => request,
            Err(Refused) => {
                self.doorbell.interrupt(CtxId(CONTROL_VECTOR));
                log!(warn, "a request of the host makes no sense, and was refused");
                None
            }
        }
    }

    /// Attaches or detaches.
    pub fn obey(&mut self, request: Request, host: &mut Host<VirtBoard>) {
        self.end.at(stage::REQUEST);
        self.detach(host);
        let Request::Attach { control } = request else {
            return self.answer(outcome::OK, regs::status::DETACHED);
        };
        if self.memory.bind(RegionId::CONTROL, control, CONTROL_REGION_LEN).is_err() {
            log!(warn, "a control region at {} was refused", control);
            return self.answer(outcome::INVALID, regs::status::DETACHED);
        }
        host.attach_control();
        self.attached = true;
        self.answer(outcome::OK, regs::status::ATTACHED);
        log!(info, "control plane attached");
    }

    fn detach(&mut self, host: &mut Host<VirtBoard>) {
        if core::mem::take(&mut self.attached) {
            host.detach_control();
            log!(info, "control plane detached");
        }
        self.memory.unbind(RegionId::CONTROL);
    }

    /// Forgets everything.
    pub fn reset_fused(&mut self, card: &mut Card<VirtBoard>) {
        self.end.at(stage::REQUEST);
        self.detach(card.host());
        card.reset();
        self.is_reset();
    }

    /// Forgets everything. All cores come here for that, and go on.
    pub fn reset(&mut self, crew: &Crew, now: Instant) {
        self.end.at(stage::REQUEST);
        self.with_all(crew, |leader, pipeline| {
            leader.detach(pipeline.host());
            pipeline.reset(now);
        });
        self.is_reset();
    }

    /// Calls all cores back for `work`; then they go on.
    fn with_all(&mut self, crew: &Crew, work: impl FnOnce(&mut Self, &mut Pipeline<VirtBoard>)) {
        let mut cores = core::mem::take(&mut self.gathered);
        if let Err(core) = crew.gather(&mut cores) {
            panic!("core {core} does not come back for a reset");
        }
        let Some(reclaimer) = self.reclaimer.take() else { return };
        let mut pipeline = Pipeline { cores, reclaimer };
        work(self, &mut pipeline);
        let Pipeline { mut cores, reclaimer } = pipeline;
        crew.release(cores.drain(..));
        (self.gathered, self.reclaimer) = (cores, Some(reclaimer));
    }

    fn is_reset(&mut self) {
        self.memory.reset();
        self.answer(outcome::OK, regs::status::DETACHED);
        log!(info, "reset");
    }

    /// The port's configuration has changed: says how the link is, unless the device asks for a reset.
    pub fn look_at_port(&mut self) {
        if self.port.needs_reset() {
            self.port.alarm().raise();
        } else if !self.mender.is_broken() {
            self.tell_link();
        }
    }

    fn tell_link(&mut self) {
        let link = self.port.link();
        log!(info, "link {}", link_text(link));
        self.end.link(link_word(link));
        self.doorbell.interrupt(CtxId(CONTROL_VECTOR));
    }

    /// Whether the port is to be reset now: all cores have to be here for that.
    pub fn must_mend(&mut self, now: Instant) -> bool {
        if self.port.alarm().take() && !self.mender.is_broken() {
            log!(warn, "port: the device has broken the rules of a queue, or asks for a reset");
            self.mender.broken(now);
            self.end.link(regs::link::DOWN);
            self.doorbell.interrupt(CtxId(CONTROL_VECTOR));
            self.tell_given_up();
        }
        self.mender.is_due(now)
    }

    pub fn mend_fused(&mut self, card: &mut Card<VirtBoard>, now: Instant) {
        let (rx, tx) = card.port();
        self.mend(rx, tx, now);
    }

    pub fn mend_all(&mut self, crew: &Crew, now: Instant) {
        self.with_all(crew, |leader, pipeline| {
            let (rx, tx) = pipeline.port();
            leader.mend(rx, tx, now);
        });
    }

    /// Resets the device. Flows stay: to them it is a wire that has lost a few segments.
    fn mend(&mut self, rx: &mut NetRx<Mmio>, tx: &mut NetTx<Mmio, ReadWindow>, now: Instant) {
        let restarted = self.port.restart(rx, tx, &time::Counter);
        self.mender.tried(now, restarted.is_ok());
        match restarted {
            Ok(()) => {
                log!(warn, "port: reset and started again, the {}. time", rx.counts().resets);
                self.tell_link();
            }
            Err(error) => {
                log!(warn, "port: it does not start again: {}", Debug(error));
                self.tell_given_up();
            }
        }
    }

    fn tell_given_up(&self) {
        if self.mender.has_given_up() {
            log!(error, "port: given up; it takes a new start of the machine");
        }
    }

    fn answer(&mut self, outcome: u32, status: u32) {
        self.end.answer(outcome, Some(status));
        self.end.at(if status == regs::status::ATTACHED { stage::RUNNING } else { stage::READY });
        self.doorbell.interrupt(CtxId(CONTROL_VECTOR));
    }
}
