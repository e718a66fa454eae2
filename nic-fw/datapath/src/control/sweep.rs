//! Requests about all flows of a context or region: barriers before and after make sure that nothing older is under way.
//!
//! A context that closes is read to its end first. Its process may have died right after it sent something, or handed its sockets to another
//! program: as with the kernel's sockets, what it had sent is sent.

use super::{Control, Env, Job, Mailbox, Step};
use crate::{
    Counters,
    msg::{ControlOp, Work},
};
use alloc::boxed::Box;
use toe_abi::{CtxId, RegionId, control::status};
use toe_hal::HostMemory;

/// Flows looked at in one step of a sweep.
const SWEEP: u32 = 1024;

/// A request about all flows of a context or region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sweep {
    CloseContext(CtxId, RegionId),
    UnmapRegion(RegionId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// The context's last descriptors are being read.
    Drain,
    Start,
    FirstBarrier,
    /// Goes on at this flow.
    Flows(u32),
    LastBarrier,
    Finish,
}

impl Control {
    pub(super) fn begin_sweep(&mut self, sweep: Sweep, mail: Box<Mailbox>) -> Step {
        self.mail = Some(mail);
        let first = if matches!(sweep, Sweep::CloseContext(..)) { Stage::Drain } else { Stage::Start };
        self.job = Job::Sweep(sweep, first);
        Step::Progress
    }

    pub(super) fn sweep<M: HostMemory>(&mut self, sweep: Sweep, stage: Stage, env: &mut Env<'_, M>) -> Step {
        match stage {
            Stage::Drain => {
                let Sweep::CloseContext(ctx, _) = sweep else { return Step::Idle };
                if !env.contexts.is_drained(ctx, env.memory, env.counters) {
                    return Step::Idle;
                }
                env.contexts.close(ctx);
                self.job = Job::Sweep(sweep, Stage::Start);
                Step::Progress
            }
            Stage::FirstBarrier | Stage::LastBarrier => Step::Idle,
            Stage::Start => {
                self.job = Job::Sweep(sweep, Stage::FirstBarrier);
                Step::Barrier
            }
            Stage::Flows(from) if from >= env.directory.capacity() => {
                self.job = Job::Sweep(sweep, Stage::LastBarrier);
                Step::Barrier
            }
            Stage::Flows(from) => {
                let end = from.saturating_add(SWEEP);
                // Whether a flow is bound to a context, its protocol stage knows.
                let (region, op) = match sweep {
                    Sweep::CloseContext(ctx, region) => (region, ControlOp::Unbind { ctx }),
                    Sweep::UnmapRegion(region) => (region, ControlOp::RegionGone),
                };
                let found = env.directory.find_from(from, end, |fixed| fixed.region == region);
                let next = found.map_or(end, |flow| flow.index + 1);
                self.job = Job::Sweep(sweep, Stage::Flows(next));
                found.map_or(Step::Progress, |flow| Step::Work(Work::Control { op, flow, mail: None }))
            }
            Stage::Finish => match sweep {
                Sweep::CloseContext(..) => {
                    self.swept(env.counters);
                    Step::Progress
                }
                Sweep::UnmapRegion(region) => Step::Unmap(region),
            },
        }
    }

    /// The request about many flows has been carried out; [`Step::Unmap`] as well.
    pub fn swept(&mut self, counters: &mut Counters) {
        if let Some(mail) = self.mail.take() {
            self.answer(mail, status::OK, counters);
        }
    }
}
