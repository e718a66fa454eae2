//! What toed asks of the card, carried out between two rounds of the core that has the ctxq stage; and the kicks that arrive there.

use super::board::{Doorbell, VirtBoard};
use super::crew::Crew;
use super::devices::{link_text, link_word};
use super::log::log;
use alloc::boxed::Box;
use alloc::vec::Vec;
use toe_abi::control::CONTROL_REGION_LEN;
use toe_abi::window::{CONTROL_VECTOR, outcome, stage};
use toe_abi::{CtxId, RegionId, regs};
use toe_datapath::host::Host;
use toe_datapath::{Card, Composition, Core, Pipeline};
use toe_drivers::Mmio;
use toe_drivers::virtio::net::NetControl;
use toe_hal::{HostMemory, Instant, Kick};
use toe_sync::epoch::Reclaimer;
use toe_virt::window::{CardEnd, Facts, Refused, Request, WindowMemory};

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

    /// Whether toed waits for something.
    pub fn is_asked(&self) -> bool {
        self.end.is_asked()
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
        let mut cores = core::mem::take(&mut self.gathered);
        if let Err(core) = crew.gather(&mut cores) {
            panic!("core {core} does not come back for a reset");
        }
        let Some(reclaimer) = self.reclaimer.take() else { return };
        let mut pipeline = Pipeline { cores, reclaimer };
        self.detach(pipeline.host());
        pipeline.reset(now);
        let Pipeline { mut cores, reclaimer } = pipeline;
        crew.release(cores.drain(..));
        (self.gathered, self.reclaimer) = (cores, Some(reclaimer));
        self.is_reset();
    }

    fn is_reset(&mut self) {
        self.memory.reset();
        self.answer(outcome::OK, regs::status::DETACHED);
        log!(info, "reset");
    }

    /// Says how the link is, now that it has changed.
    pub fn look_at_link(&mut self) {
        let link = self.port.link();
        log!(info, "link {}", link_text(link));
        self.end.link(link_word(link));
        self.doorbell.interrupt(CtxId(CONTROL_VECTOR));
    }

    fn answer(&mut self, outcome: u32, status: u32) {
        self.end.answer(outcome, Some(status));
        self.end.at(if status == regs::status::ATTACHED { stage::RUNNING } else { stage::READY });
        self.doorbell.interrupt(CtxId(CONTROL_VECTOR));
    }
}
