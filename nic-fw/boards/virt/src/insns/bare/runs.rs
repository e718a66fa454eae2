//! What is run and counted: each kind of work in a short run and in a long one, so that what a run costs by itself cancels.
//!
//! ```text
//!   run KIND n=64 total=... board=... frames=... events=...       the card's and the board's instructions, without traces
//!   stage KIND n=64 NAME visits=... total=...                     the same run again, traced: what each stage had of it
//! ```

use super::count::{Executed, asides, cost_of_look};
use super::frames::{self, ACKED, MSS};
use super::rig::{Rig, Why};
use alloc::boxed::Box;
use alloc::vec::Vec;
use toe_abi::control::kind;
use toe_abi::observe::{TRACES_PER_MSG, TraceRecord, stage, trace_op};
use toe_arch::println;
use toe_hal::Clock;
use toe_wire::TcpFlags;

/// Units of a short and of a long run.
const RUNS: [u32; 2] = [64, 128];
/// The same where two frames come at a time: each is a round of the card.
const RUNS_BY_TWO: [u32; 2] = [20, 52];
/// Segments before the first run.
const WARM_UP: u32 = 64;
/// Data segments: of all runs that receive some, plain and traced.
const DATA: u32 = WARM_UP + 3 * 2 * (RUNS[0] + RUNS[1]) + 2 * (RUNS_BY_TWO[0] + RUNS_BY_TWO[1]);
/// ACKs there are: the runs', and those while the window of congestion opens.
const ACKS: u32 = 4096;
/// Sendings until the window of congestion must be open.
const OPENINGS: u32 = 200;

/// Kinds of work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A data segment comes, in order, in a burst as large as the card takes. What it is acknowledged and told by, it shares with the burst.
    Rx,
    /// The same, each with PSH, so that none is joined to another.
    RxAlone,
    /// The same in bursts of two, each of which is acknowledged, and told.
    RxByTwo,
    /// The application says that it has read a segment.
    Hc,
    /// A data segment goes.
    Tx,
    /// An ACK comes, for two segments.
    Ack,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::RxAlone => "rx-1",
            Self::RxByTwo => "rx-2",
            Self::Hc => "hc",
            Self::Tx => "tx",
            Self::Ack => "ack",
        }
    }
}

/// Where the peer and the application are.
struct Course {
    rig: Rig,
    /// Data segments and ACKs of the peer so far.
    data: u32,
    acks: u32,
    looks: u64,
}

/// All frames, all runs.
pub fn all() -> Result<(), Why> {
    let data = |flags| (0..DATA).map(move |i| frames::data(i, flags));
    let acks = (0..ACKS).map(|i| frames::ack(i, DATA));
    let frames: Result<Vec<Box<[u8]>>, _> = data(TcpFlags::empty()).chain(acks).chain(data(TcpFlags::PSH)).collect();
    let mut course = Course { rig: Rig::new(frames?.into())?, data: 0, acks: 0, looks: cost_of_look() };
    course.receive(WARM_UP)?;
    course.read(WARM_UP)?;
    for traced in [false, true] {
        for n in RUNS {
            course.count(Kind::Rx, n, traced)?;
            course.read(n)?;
            course.receive(n)?;
            course.count(Kind::Hc, n, traced)?;
            course.count(Kind::RxAlone, n, traced)?;
            course.read(n)?;
        }
        for n in RUNS_BY_TWO {
            course.count(Kind::RxByTwo, n, traced)?;
            course.read(n)?;
        }
    }
    course.open_window(ACKED * RUNS[1])?;
    for traced in [false, true] {
        for n in RUNS {
            course.count(Kind::Tx, ACKED * n, traced)?;
            course.count(Kind::Ack, n, traced)?;
        }
    }
    Ok(())
}

impl Course {
    /// `n` data segments come.
    fn receive(&mut self, n: u32) -> Result<(), Why> {
        self.post(Kind::Rx, n)?;
        self.rig.run();
        Ok(())
    }

    /// The application reads `n` segments in one go.
    fn read(&mut self, n: u32) -> Result<(), Why> {
        self.rig.app.update(0, n * MSS)?;
        self.rig.run();
        Ok(())
    }

    /// Sends until `segments` in one go do not wait for an ACK.
    fn open_window(&mut self, segments: u32) -> Result<(), Why> {
        let mut at_once = 0;
        for _ in 0..OPENINGS {
            let mut before = self.rig.wire.sent_data();
            self.post(Kind::Tx, segments)?;
            self.rig.run();
            at_once = self.rig.wire.sent_data() - before;
            while before < self.rig.wire.sent_data() {
                before = self.rig.wire.sent_data();
                self.post(Kind::Ack, before / ACKED - self.acks)?;
                self.rig.run();
            }
            if at_once == segments {
                return Ok(());
            }
        }
        Err(Why::Run("window of congestion", segments, at_once))
    }

    /// Has `n` units of work lie ready.
    fn post(&mut self, kind: Kind, n: u32) -> Result<(), Why> {
        match kind {
            Kind::Rx | Kind::RxByTwo => {
                self.rig.wire.replay(self.data, n, if kind == Kind::Rx { n } else { 2 });
                self.data += n;
            }
            Kind::RxAlone => {
                self.rig.wire.replay(DATA + ACKS + self.data, n, n);
                self.data += n;
            }
            Kind::Ack => {
                self.rig.wire.replay(DATA + self.acks, n, n);
                self.acks += n;
            }
            Kind::Hc => (0..n).try_for_each(|_| self.rig.app.update(0, MSS))?,
            Kind::Tx => self.rig.app.update(n * MSS, 0)?,
        }
        // All frames were made beforehand.
        if self.data > DATA || self.acks > ACKS { Err(Why::Run("frames", self.data, self.acks)) } else { Ok(()) }
    }

    /// Counts a run of `n` units, and prints what it took.
    fn count(&mut self, kind: Kind, n: u32, traced: bool) -> Result<(), Why> {
        if traced {
            self.rig.ask(kind::TRACE, [trace_op::START, 0, 0, 0, 0])?;
        }
        self.rig.align();
        self.rig.app.read_events()?;
        self.post(kind, n)?;
        let (begin, board, frames, data) = (Executed.nanos(), asides(), self.rig.wire.sent(), self.rig.wire.sent_data());
        self.rig.run();
        let total = Executed.nanos() - begin;
        let (board, frames, data) = (asides() - board, self.rig.wire.sent() - frames, self.rig.wire.sent_data() - data);
        let events = self.rig.app.read_events()?;
        if data != if kind == Kind::Tx { n } else { 0 } {
            return Err(Why::Run(kind.name(), n, data));
        }
        if traced {
            return self.stages(kind, n);
        }
        println!("run {} n={n} total={total} board={board} frames={frames} events={events}", kind.name());
        Ok(())
    }

    /// Prints what the card's trace says.
    fn stages(&mut self, kind: Kind, n: u32) -> Result<(), Why> {
        self.rig.ask(kind::TRACE, [trace_op::STOP, 0, 0, 0, 0])?;
        let mut stages = [(0, 0); stage::COUNT as usize];
        loop {
            let answer = self.rig.ask(kind::TRACE, [trace_op::READ, 0, 0, 0, 0])?;
            let (read, lost) = (answer.args[0] as usize, answer.args[1]);
            if lost > 0 {
                return Err(Why::Run("trace", 0, lost as u32));
            }
            for record in answer.records::<TraceRecord>(read.min(TRACES_PER_MSG)) {
                if let Some((visits, total)) = stages.get_mut(usize::from(record.stage)) {
                    *visits += 1;
                    *total += (record.at_ns - record.begin_ns).saturating_sub(self.looks);
                }
            }
            if read == 0 {
                break;
            }
        }
        // A frame's visit to ingress begins with its burst: it has the frames before it in it.
        let visited = (0..).zip(stages).filter(|(id, (visits, _))| *visits > 0 && *id != stage::INGRESS);
        for (id, (visits, total)) in visited {
            println!("stage {} n={n} {} visits={visits} total={total}", kind.name(), stage::name(id).unwrap_or("?"));
        }
        Ok(())
    }
}
