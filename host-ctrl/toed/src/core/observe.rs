//! What operators see of the card's pipeline. What the card says is passed on, not judged; only its amount has a bound.

use super::{Core, Host, JobId, Report, outbox::Pending, report::Job};
use crate::admin::{self, Failure, VisitKind};
use toe_abi::{
    FlowId,
    control::{ControlMsg, kind, status},
    observe::{NO_CPU, STAGES_PER_MSG, StageRecord, TRACES_PER_MSG, TraceRecord, stage, stage_flags, trace_kind, trace_op},
};

/// Stage instances that are asked for at most: more than any placement has.
const STAGES_MAX: usize = 1024;
/// A trace that nobody has read for so long is stopped: who started it has gone.
const UNREAD_US: u64 = 10_000_000;
/// Visits in one answer to an operator.
const VISITS_MAX: usize = 4096;

/// The trace that the card records, if it does.
#[derive(Default)]
pub(super) struct Recording {
    /// Number of the last one that was started.
    trace: u64,
    /// It is on, and is stopped then unless somebody reads it.
    pub unread_until_us: Option<u64>,
}

impl Recording {
    fn is_on(&self, trace: u64) -> bool {
        self.unread_until_us.is_some() && self.trace == trace
    }

    /// Somebody shows interest.
    fn read(&mut self, trace: u64, now_us: u64) {
        if self.is_on(trace) {
            self.unread_until_us = Some(now_us + UNREAD_US);
        }
    }
}

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

    /// Starts a trace: `Report::Trace` follows.
    pub fn trace_start(&mut self, now_us: u64) -> Result<JobId, Failure> {
        if self.recording.unread_until_us.is_some_and(|t| now_us < t) {
            return Err(Failure::new("somebody else traces; try again when that has ended, 10 s after it was last read at the latest"));
        }
        let trace = self.recording.trace + 1;
        self.recording = Recording { trace, unread_until_us: Some(now_us + UNREAD_US) };
        let job = self.jobs.start(Job::Question);
        self.ask_trace(trace_op::START, Pending::TraceStart { job, trace });
        Ok(job)
    }

    /// Reads a trace: `Report::Visits` follows.
    pub fn trace_read(&mut self, trace: u64, now_us: u64) -> Result<JobId, Failure> {
        self.check_trace(trace)?;
        self.recording.read(trace, now_us);
        let job = self.jobs.start(Job::Visits { part: admin::Visits::default() });
        self.ask_trace(trace_op::READ, Pending::TraceRead { job, trace });
        Ok(job)
    }

    /// Stops a trace: `Report::Done` follows.
    pub fn trace_stop(&mut self, trace: u64) -> Result<JobId, Failure> {
        self.check_trace(trace)?;
        self.recording.unread_until_us = None;
        let job = self.jobs.start(Job::Question);
        self.ask_trace(trace_op::STOP, Pending::TraceStop { job });
        Ok(job)
    }

    /// Stops whatever trace is on, for nobody in particular.
    pub(super) fn stop_recording(&mut self) {
        if self.recording.unread_until_us.take().is_some() {
            self.ask_trace(trace_op::STOP, Pending::Plain);
        }
    }

    fn check_trace(&self, trace: u64) -> Result<(), Failure> {
        if self.recording.is_on(trace) {
            return Ok(());
        }
        Err(Failure::new(format!("trace {trace} is not on: it was stopped, or nobody read it for 10 s")))
    }

    fn ask_trace(&mut self, op: u64, pending: Pending) {
        self.outbox.send(&mut self.host, kind::TRACE, pending, |m| m.args[0] = op);
    }

    /// The answer to TRACE, START.
    pub(super) fn trace_started(&mut self, job: JobId, trace: u64, msg: &ControlMsg, now_us: u64) {
        if msg.status == status::OK {
            self.recording.read(trace, now_us);
            return self.jobs.finish(job, Report::Trace(admin::Trace { trace }));
        }
        if self.recording.is_on(trace) {
            self.recording.unread_until_us = None;
        }
        self.jobs.finish(job, Report::Failed(refused("record traces", msg.status)));
    }

    /// The answer to TRACE, READ: one of many, if the card has recorded much.
    pub(super) fn traced(&mut self, job: JobId, trace: u64, msg: &ControlMsg, now_us: u64) {
        let Some(Job::Visits { part }) = self.jobs.running.get_mut(&job) else { return };
        if msg.status != status::OK {
            return self.jobs.finish(job, Report::Failed(refused("read its trace", msg.status)));
        }
        let n = usize::try_from(msg.args[0]).unwrap_or(TRACES_PER_MSG).min(TRACES_PER_MSG);
        part.visits.extend(msg.records(n).map(|r| visit(&r)));
        part.lost = msg.args[1];
        let more = n == TRACES_PER_MSG && part.visits.len() < VISITS_MAX;
        let part = if more { None } else { Some(std::mem::take(part)) };
        self.recording.read(trace, now_us);
        match part {
            Some(part) => self.jobs.finish(job, Report::Visits(part)),
            None => self.ask_trace(trace_op::READ, Pending::TraceRead { job, trace }),
        }
    }

    /// The answer to TRACE, STOP.
    pub(super) fn trace_stopped(&mut self, job: JobId, msg: &ControlMsg) {
        let report = match msg.status {
            status::OK => Report::Done {},
            other => Report::Failed(refused("stop its trace", other)),
        };
        self.jobs.finish(job, report);
    }
}

/// What an operator is told when the card does not do something.
pub(super) fn refused(what: &str, answer: u32) -> Failure {
    match answer {
        status::UNSUPPORTED => Failure::new(format!("this card cannot {what}: it has no such function")),
        other => Failure::new(format!("the card refused to {what}: status {other}")),
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

fn visit(r: &TraceRecord) -> admin::Visit {
    use VisitKind::*;
    let kind = match r.kind {
        trace_kind::RX => Rx,
        trace_kind::RX_OUT => RxOut,
        trace_kind::HC_OUT => HcOut,
        trace_kind::HC_DONE => HcDone,
        trace_kind::TX_OUT => TxOut,
        trace_kind::OUT => Out,
        trace_kind::HC => Hc,
        trace_kind::EVENT => Event,
        _ => Other,
    };
    admin::Visit {
        stage: stage_name(r.stage.into()),
        instance: r.instance,
        core: r.core,
        kind,
        begin_ns: r.begin_ns,
        end_ns: r.at_ns,
        group: r.group,
        number: matches!(kind, Rx | RxOut).then_some(r.number),
        out: matches!(kind, RxOut | HcOut | TxOut | Out | Event).then_some(r.out),
        flow: (r.flow != FlowId::NONE.index).then_some(r.flow),
        port: (r.port != 0).then_some(r.port),
        seq: r.seq,
        len: r.len,
        next: (0..stage::COUNT).filter(|&s| r.next & 1 << s != 0).map(stage_name).collect(),
    }
}
