//! What operators see of the instances: each measures itself, and the ctxq stage reads it when it is asked.

use super::{actor::Gauges, placement::StageId};
use alloc::vec::Vec;
use toe_abi::observe::{NO_CPU, StageRecord, stage_flags};
use toe_sync::{
    crew::Crew,
    tally::{Tally, TallyReader, tally},
};

/// One poll in so many is measured: two looks at the clock for each instance. A prime: it falls in step with nothing else.
pub const EVERY: u32 = 31;

const ITEMS: usize = 0;
const BUSY_NS: usize = 1;
const QUEUE: usize = 2;
const QUEUE_MAX: usize = 3;
const CREDITS: usize = 4;
const CREDITS_MAX: usize = 5;
const WORDS: usize = 6;

/// An instance's own end.
pub struct Meter(Tally);

impl Meter {
    pub fn handled(&mut self, items: u64) {
        if items > 0 {
            self.0.add(ITEMS, items);
        }
    }

    /// `busy_ns`: time at work that this measurement stands for.
    pub fn measured(&mut self, busy_ns: u64, gauges: Gauges) {
        self.0.add(BUSY_NS, busy_ns);
        self.0.set(QUEUE, gauges.queue.queued.into());
        self.0.set(QUEUE_MAX, gauges.queue.capacity.into());
        self.0.set(CREDITS, gauges.credits.0.into());
        self.0.set(CREDITS_MAX, gauges.credits.1.into());
    }
}

struct Row {
    id: StageId,
    core: usize,
    cpu: Option<u32>,
    reader: TallyReader,
}

/// All instances of a card.
#[derive(Default)]
pub struct Board {
    rows: Vec<Row>,
    crew: Option<Crew>,
}

impl Board {
    /// Of a card whose cores sleep and wake each other.
    pub fn of(crew: Crew) -> Self {
        Self { rows: Vec::new(), crew: Some(crew) }
    }

    /// One more instance.
    pub fn add(&mut self, id: StageId, core: usize, cpu: Option<u32>) -> Meter {
        let (tally, reader) = tally(WORDS);
        self.rows.push(Row { id, core, cpu, reader });
        Meter(tally)
    }

    pub fn instances(&self) -> usize {
        self.rows.len()
    }

    /// Instance `i` as it is now.
    pub fn record(&self, i: usize, clock_ns: u64) -> Option<StageRecord> {
        let Row { id, core, cpu, reader } = self.rows.get(i)?;
        let asleep = self.crew.as_ref().is_some_and(|crew| crew.is_asleep(*core));
        Some(StageRecord {
            stage: id.stage,
            instance: id.instance,
            core: *core as u16,
            flags: if asleep { stage_flags::ASLEEP } else { 0 },
            cpu: cpu.unwrap_or(NO_CPU),
            queue: reader.get(QUEUE) as u32,
            queue_max: reader.get(QUEUE_MAX) as u32,
            credits: reader.get(CREDITS) as u32,
            credits_max: reader.get(CREDITS_MAX) as u32,
            items: reader.get(ITEMS),
            busy_ns: reader.get(BUSY_NS),
            clock_ns,
            ..StageRecord::default()
        })
    }
}
