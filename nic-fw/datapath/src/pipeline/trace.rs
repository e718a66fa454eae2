//! Traces: when asked to, each core records which stage had which segment from when to when. The ctxq stage collects the records.
//!
//! Off, a trace costs one load a step. On, two looks at the clock for each visit; a record for which nobody makes room is lost, and counted.

use super::placement::StageId;
use crate::{
    msg::{OutMsg, Tag},
    pool::Class,
};
use alloc::vec::Vec;
use toe_abi::{
    FlowId,
    observe::{TraceRecord, stage, trace_kind},
};
use toe_sync::{
    progress::{Teller, Watcher, progress},
    spsc::{Receiver, Sender, ring},
    tally::{Tally, TallyReader, tally},
};
use toe_tcp::SegmentIn;

/// Of a flow that is not known.
const NO_FLOW: u32 = u32::MAX;

/// A frame on its way in, as number `number` of its group.
pub fn rx(group: u16, number: u32, len: u32) -> TraceRecord {
    TraceRecord { kind: trace_kind::RX, group, number, flow: NO_FLOW, len, ..TraceRecord::default() }
}

/// The same, when it is known whose it is.
pub fn rx_segment(group: u16, number: u32, flow: FlowId, segment: &SegmentIn) -> TraceRecord {
    TraceRecord { flow: flow.index, seq: segment.seq.0, ..rx(group, number, segment.payload_len) }
}

/// A message on its way out. `kind`: `trace_kind::OUT`, or what protocol made it from.
pub fn out(kind: u8, msg: &OutMsg) -> TraceRecord {
    let Tag { flow, group, number } = msg.tag;
    let written = || msg.writes.iter().map(|w| w.len).sum();
    let (seq, len) = msg.tx.as_ref().map_or_else(|| (0, written()), |tx| (tx.seq.0, tx.len));
    TraceRecord { kind, group, out: number, flow: flow.index, seq, len, ..TraceRecord::default() }
}

/// The stages that a message has still to pass.
pub fn next(msg: &OutMsg) -> u32 {
    let post = if msg.tx.is_some() { 1 << stage::POST } else { 0 };
    let dma = if msg.writes.is_empty() { 0 } else { 1 << stage::DMA };
    post | dma | 1 << stage::EGRESS
}

/// What protocol's record of a message of this class is.
pub fn kind_of(class: Class) -> u8 {
    match class {
        Class::Rx => trace_kind::RX_OUT,
        Class::Host => trace_kind::HC_OUT,
        Class::Control => trace_kind::OUT,
        Class::Urgent | Class::Data => trace_kind::TX_OUT,
    }
}

/// What an application said, or was told of.
pub fn host(kind: u8, group: u16, number: u32, flow: FlowId) -> TraceRecord {
    TraceRecord { kind, group, out: number, flow: flow.index, ..TraceRecord::default() }
}

/// Records that wait to be collected, for each core.
const WAITING: u32 = 8192;

/// A core's end.
pub struct Tracer {
    on: Watcher,
    records: Sender<TraceRecord>,
    lost: Tally,
    core: u8,
}

impl Tracer {
    /// For one step of an instance.
    pub fn step<'a>(&'a mut self, id: StageId, nanos: &'a dyn Fn() -> u64) -> Tracing<'a> {
        Tracing(self.is_on().then_some(Active { tracer: self, id, nanos }))
    }

    /// Whether somebody traces.
    pub fn is_on(&self) -> bool {
        self.on.seen() != 0
    }

    /// When a visit begins; 0: nobody traces.
    pub fn begin(&self, nanos: impl Fn() -> u64) -> u64 {
        if self.is_on() { nanos() } else { 0 }
    }

    /// A visit to stage `id` that began at `begin_ns` is over.
    pub fn record(&mut self, begin_ns: u64, id: StageId, nanos: impl Fn() -> u64, what: impl FnOnce() -> TraceRecord) {
        if begin_ns != 0 {
            self.visit((begin_ns, nanos()), id, what);
        }
    }

    /// The same for a visit of which both ends are known. It has not been (`begin` 0) unless somebody traced.
    pub fn visit(&mut self, (begin_ns, at_ns): (u64, u64), id: StageId, what: impl FnOnce() -> TraceRecord) {
        if begin_ns == 0 {
            return;
        }
        let (stage, instance, core) = (id.stage as u8, id.instance as u8, self.core);
        let record = TraceRecord { at_ns, begin_ns, stage, instance, core, ..what() };
        if self.records.push(record).is_err() {
            self.lost.add(0, 1);
        }
    }
}

struct Active<'a> {
    tracer: &'a mut Tracer,
    id: StageId,
    nanos: &'a dyn Fn() -> u64,
}

/// A step's end: does nothing unless somebody traces.
pub struct Tracing<'a>(Option<Active<'a>>);

impl Tracing<'_> {
    /// When a visit begins; 0: nobody traces.
    pub fn begin(&self) -> u64 {
        self.0.as_ref().map_or(0, |active| (active.nanos)())
    }

    /// A visit that began at `begin_ns` is over.
    pub fn record(&mut self, begin_ns: u64, what: impl FnOnce() -> TraceRecord) {
        if let Some(Active { tracer, id, nanos }) = &mut self.0 {
            tracer.record(begin_ns, *id, &**nanos, what);
        }
    }
}

/// The ctxq stage's end.
pub struct Traces {
    on: Teller,
    rings: Vec<Receiver<TraceRecord>>,
    lost: Vec<TallyReader>,
    lost_before: u64,
    turn: usize,
}

impl Traces {
    /// For so many cores.
    pub fn new(cores: usize) -> (Self, Vec<Tracer>) {
        let (on, watcher) = progress();
        let mut this = Self { on, rings: Vec::new(), lost: Vec::new(), lost_before: 0, turn: 0 };
        let tracers = (0..cores).map(|core| {
            let (records, ring) = ring(WAITING);
            let (lost, reader) = tally(1);
            this.rings.push(ring);
            this.lost.push(reader);
            Tracer { on: watcher.clone(), records, lost, core: core as u8 }
        });
        let tracers = tracers.collect();
        (this, tracers)
    }

    /// For a card on one core.
    pub fn single() -> (Self, Tracer) {
        let (traces, mut tracers) = Self::new(1);
        (traces, tracers.remove(0))
    }

    /// Begins; what was recorded before is forgotten.
    pub fn start(&mut self) {
        // No more than there can be: on a busy card that traces already others come all the time.
        (0..self.rings.len() * WAITING as usize).map_while(|_| self.take()).for_each(drop);
        self.lost_before = self.lost_in_all();
        self.on.tell(1);
    }

    pub fn stop(&mut self) {
        self.on.tell(0);
    }

    /// The next record, each core's by turns.
    pub fn take(&mut self) -> Option<TraceRecord> {
        for _ in 0..self.rings.len() {
            self.turn = if self.turn + 1 >= self.rings.len() { 0 } else { self.turn + 1 };
            if let Some(record) = self.rings[self.turn].pop() {
                return Some(record);
            }
        }
        None
    }

    /// Records lost since the start.
    pub fn lost(&self) -> u64 {
        self.lost_in_all().wrapping_sub(self.lost_before)
    }

    fn lost_in_all(&self) -> u64 {
        self.lost.iter().map(|lost| lost.get(0)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(tracer: &mut Tracer, number: u32) {
        let clock = core::cell::Cell::new(10);
        let nanos = || clock.replace(clock.get() + 1);
        let mut tracing = tracer.step(StageId::new(stage::PRE, 3), &nanos);
        let begin = tracing.begin();
        tracing.record(begin, || TraceRecord { number, ..TraceRecord::default() });
    }

    #[test]
    fn nothing_is_recorded_unless_somebody_traces() {
        let (mut traces, mut tracers) = Traces::new(2);
        visit(&mut tracers[1], 1);
        traces.start();
        visit(&mut tracers[1], 2);
        traces.stop();
        visit(&mut tracers[1], 3);
        let record = traces.take().unwrap();
        assert_eq!((record.number, record.stage, record.instance, record.core), (2, stage::PRE as u8, 3, 1));
        assert_eq!((record.begin_ns, record.at_ns, traces.take()), (10, 11, None));
    }

    #[test]
    fn what_nobody_collects_is_lost_and_counted() {
        let (mut traces, mut tracers) = Traces::new(1);
        traces.start();
        (0..WAITING + 5).for_each(|n| visit(&mut tracers[0], n));
        assert_eq!(traces.lost(), 5);
        traces.start();
        assert_eq!((traces.lost(), traces.take()), (0, None));
    }
}
