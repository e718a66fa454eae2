//! What operators see of the card's pipeline. What the card says is passed on, not judged; only its amount has a bound.

use super::{Core, Host, JobId, Report, outbox::Pending, report::Job};
use crate::admin;
use toe_abi::{
    control::{ControlMsg, kind, status},
    observe::{NO_CPU, STAGES_PER_MSG, StageRecord, stage, stage_flags},
};

/// Stage instances that are asked for at most: more than any placement has.
const STAGES_MAX: usize = 1024;

impl<H: Host> Core<H> {
    /// Starts a report of all stages.
    pub fn report_stages(&mut self) -> JobId {
        let job = self.jobs.start(Job::Stages { rows: Vec::new() });
        self.ask_stages(job, 0);
        job
    }

    fn ask_stages(&mut self, job: JobId, from: usize) {
        self.outbox.send(&mut self.host, kind::STAGES, Pending::Stages { job }, |m| m.args[0] = from as u64);
    }

    /// The answer to STAGES.
    pub(super) fn staged(&mut self, id: JobId, msg: &ControlMsg) {
        let Some(Job::Stages { rows }) = self.jobs.running.get_mut(&id) else { return };
        if msg.status != status::OK {
            return self.jobs.finish(id, Report::Stages(None));
        }
        let total = usize::try_from(msg.args[0]).unwrap_or(STAGES_MAX).min(STAGES_MAX);
        let missing = total.saturating_sub(rows.len());
        rows.extend(msg.records(missing.min(STAGES_PER_MSG)).map(|r| stage_row(&r)));
        let have = rows.len();
        if have < total {
            return self.ask_stages(id, have);
        }
        let rows = std::mem::take(rows);
        self.jobs.finish(id, Report::Stages(Some(rows)));
    }
}

fn stage_row(r: &StageRecord) -> admin::Stage {
    admin::Stage {
        stage: stage_name(r.stage),
        instance: r.instance,
        core: r.core,
        cpu: (r.cpu != NO_CPU).then_some(r.cpu),
        queue: r.queue,
        queue_max: r.queue_max,
        credits: r.credits,
        credits_max: r.credits_max,
        items: r.items,
        busy_ns: r.busy_ns,
        clock_ns: r.clock_ns,
        asleep: r.flags & stage_flags::ASLEEP != 0,
    }
}

/// The stage's name; of one that only a later card knows, its number.
fn stage_name(number: u16) -> String {
    stage::name(number).map_or_else(|| format!("stage{number}"), str::to_owned)
}
