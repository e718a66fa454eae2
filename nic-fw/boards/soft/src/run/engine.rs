//! What a thread of the card runs: the fused card, or one core of a pipelined one.

use crate::board::SoftBoard;
use crate::disturb::Disturbance;
use crate::ports::SoftRx;
use toe_abi::CtxId;
use toe_abi::observe::stage;
use toe_datapath::host::Host;
use toe_datapath::pipeline::StageId;
use toe_datapath::{Card, Composition, Core, Pipeline, Polled};
use toe_hal::Instant;
use toe_sync::epoch::{Epoch, Reclaimer};

pub trait Engine: Send {
    /// Its number in the placement.
    fn index(&self) -> usize {
        0
    }
    /// Names of its stages.
    fn stages(&self) -> String;
    /// The CPU that it is to be bound to.
    fn cpu(&self) -> Option<u32> {
        None
    }
    fn poll(&mut self, now: Instant, disturbance: Option<&mut Disturbance>) -> Polled;
    /// When to poll next even if nobody wakes it.
    fn next_deadline(&self, now: Instant) -> Option<Instant>;
    /// Gets ready to sleep, and looks again. True: it may sleep; then [`awake`](Self::awake).
    fn park(&mut self, now: Instant) -> bool;
    fn awake(&mut self) {}
    /// The ctxq stage, if it runs here.
    fn host(&mut self) -> Option<&mut Host<SoftBoard>>;
    /// The receiving half of the port, if it is read here.
    fn rx(&mut self) -> Option<&mut Box<dyn SoftRx>>;

    /// The host has kicked a context.
    fn kicked(&mut self, ctx: CtxId) {
        if let Some(host) = self.host() {
            host.kicked(ctx);
        }
    }
}

/// Stages of a fused card.
const FUSED: [u16; 7] = [stage::INGRESS, stage::PRE, stage::PROTOCOL, stage::POST, stage::DMA, stage::EGRESS, stage::CTXQ];

impl Engine for Card<SoftBoard> {
    fn stages(&self) -> String {
        "all stages".to_owned()
    }
    fn poll(&mut self, now: Instant, disturbance: Option<&mut Disturbance>) -> Polled {
        if let Some(disturbance) = disturbance {
            FUSED.iter().for_each(|&stage| disturbance.before(StageId::new(stage, 0)));
        }
        Polled { any: Composition::poll(self, now), ..Polled::default() }
    }
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        Composition::next_deadline(self, now)
    }
    fn park(&mut self, now: Instant) -> bool {
        Composition::park(self, now)
    }
    fn host(&mut self) -> Option<&mut Host<SoftBoard>> {
        Some(Composition::host(self))
    }
    fn rx(&mut self) -> Option<&mut Box<dyn SoftRx>> {
        Some(Card::rx(self))
    }
}

impl Engine for Core<SoftBoard> {
    fn index(&self) -> usize {
        Core::index(self)
    }
    fn stages(&self) -> String {
        Core::stages(self).map(|stage| stage.to_string()).collect::<Vec<_>>().join(" ")
    }
    fn cpu(&self) -> Option<u32> {
        Core::cpu(self)
    }
    fn poll(&mut self, now: Instant, disturbance: Option<&mut Disturbance>) -> Polled {
        match disturbance {
            None => Core::poll(self, now),
            Some(disturbance) => self.poll_with(now, |stage| disturbance.before(stage)),
        }
    }
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        Core::next_deadline(self, now)
    }
    fn park(&mut self, now: Instant) -> bool {
        Core::park(self, now)
    }
    fn awake(&mut self) {
        Core::awake(self);
    }
    fn host(&mut self) -> Option<&mut Host<SoftBoard>> {
        Core::host(self)
    }
    fn rx(&mut self) -> Option<&mut Box<dyn SoftRx>> {
        Core::rx(self)
    }
}

/// A card of either composition.
pub enum AnyCard {
    Fused(Box<Card<SoftBoard>>),
    Pipelined(Box<Pipeline<SoftBoard>>),
}

impl AnyCard {
    /// Each for a thread of its own, and the epochs that they pass.
    pub fn engines(&mut self) -> (Vec<&mut dyn Engine>, Epochs<'_>) {
        match self {
            Self::Fused(card) => (vec![&mut **card as &mut dyn Engine], Epochs(None)),
            Self::Pipelined(pipeline) => {
                let Pipeline { cores, reclaimer } = &mut **pipeline;
                (cores.iter_mut().map(|core| core as &mut dyn Engine).collect(), Epochs(Some(reclaimer)))
            }
        }
    }

    /// Forgets all flows, contexts and regions. No engine runs meanwhile.
    pub fn reset(&mut self, now: Instant) {
        match self {
            Self::Fused(card) => Composition::reset(&mut **card),
            Self::Pipelined(pipeline) => pipeline.reset(now),
        }
    }
}

/// Says when no core uses any more what was taken away. With one core that is always so between two rounds.
pub struct Epochs<'a>(Option<&'a mut Reclaimer>);

impl Epochs<'_> {
    /// A point in time from now on; `None`: all have passed it.
    pub fn begin(&mut self) -> Option<Epoch> {
        self.0.as_mut().map(|reclaimer| reclaimer.advance())
    }

    pub fn all_passed(&self, epoch: Epoch) -> bool {
        self.0.as_ref().is_none_or(|reclaimer| reclaimer.all_passed(epoch))
    }
}
