//! Hops: what it costs to hand something on through a ring, on one core and between two, and to wake a thread that sleeps.
//!
//! Three kinds of cargo, as between stages: a word (a lease), a record by value (a frame's summary, a descriptor), and a message: a box that
//! its sender writes, its receiver reads, and that comes back through a second ring.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toe_hal::Clock;
use toe_sync::spsc::{Full, Receiver, Sender, ring};

use crate::board::Nanos;
use crate::stats::Figures;
use crate::threads::bind;

const RING: u32 = 256;
/// Messages that there are.
const BOXES: usize = 192;
/// A repetition has so many chunks, or as many as there is time for, each of so many items or round trips. What counts is its median chunk:
/// one is much shorter than what the system lets another program run, so most have met none.
const CHUNKS: usize = 400;
const LIMIT: Duration = Duration::from_millis(100);
const CHUNK: usize = 2048;
const TRIPS: usize = 64;
const WAKES: u32 = 50;
/// Items handed on at a time.
pub const BATCHES: [usize; 2] = [1, 32];
/// Turns without anything to do after which others are let run: on a machine with one CPU somebody has to.
const SPINS: u32 = 2000;

/// Nanoseconds per item, by [`BATCHES`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Hop {
    pub same: [Figures; 2],
    /// Nothing on a machine with one CPU.
    pub cross: [Figures; 2],
}

impl Hop {
    /// What each side pays more than on one core if the other is on another, nanoseconds per item in batches.
    pub fn extra(&self) -> f64 {
        let (same, cross) = (self.same[1].median(), self.cross[1].median());
        // On one core both sides' work is in the figure; between two cores they work at the same time.
        if cross.is_nan() { 0.0 } else { (cross - same / 2.0).max(0.0) }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Hops {
    pub word: Hop,
    pub record: Hop,
    pub message: Hop,
    /// There and back, one item, between two cores.
    pub round_trip_ns: Figures,
    /// From the waking of a thread that sleeps until it runs; and what waking costs who does it.
    pub wake_ns: Figures,
    pub waking_ns: Figures,
}

impl Hops {
    /// One repetition, on the first two of these CPUs: the system might run both threads on one.
    pub fn measure(&mut self, cpus: &[usize]) {
        one::<Word>(&mut self.word, cpus);
        one::<Record>(&mut self.record, cpus);
        one::<Message>(&mut self.message, cpus);
        if cpus.len() > 1 {
            self.round_trip_ns.push(round_trip(cpus));
        }
        let (wake, waking) = wake(cpus);
        self.wake_ns.push(wake);
        self.waking_ns.push(waking);
    }
}

fn one<C: Cargo>(hop: &mut Hop, cpus: &[usize]) {
    for (i, batch) in BATCHES.into_iter().enumerate() {
        hop.same[i].push(same::<C>(batch));
        if cpus.len() > 1 {
            hop.cross[i].push(cross::<C>(batch, cpus));
        }
    }
}

/// Something to be handed on.
trait Cargo: Send + Sized {
    /// How many there are from the start on, and come back; 0: made anew each time.
    const COUNT: usize = 0;

    fn make(n: u64) -> Self;

    /// Before it goes.
    fn write(&mut self, _n: u64) {}

    fn read(&self) -> u64;
}

struct Word(u64);

impl Cargo for Word {
    fn make(n: u64) -> Self {
        Self(n)
    }

    fn read(&self) -> u64 {
        self.0
    }
}

struct Record([u64; 16]);

impl Cargo for Record {
    fn make(n: u64) -> Self {
        Self([n; 16])
    }

    fn read(&self) -> u64 {
        self.0[0] ^ self.0[15]
    }
}

/// Four cache lines, of which a stage writes and reads most.
struct Message(Box<[u64; 32]>);

impl Cargo for Message {
    const COUNT: usize = BOXES;

    fn make(n: u64) -> Self {
        Self(Box::new([n; 32]))
    }

    fn write(&mut self, n: u64) {
        (self.0[0], self.0[8], self.0[16]) = (n, n, n);
    }

    fn read(&self) -> u64 {
        self.0[0] ^ self.0[8] ^ self.0[16]
    }
}

/// The sending side.
struct Source<C> {
    out: Sender<C>,
    back: Receiver<C>,
    home: Vec<C>,
    n: u64,
}

/// The receiving side.
struct Sink<C> {
    input: Receiver<C>,
    back: Sender<C>,
}

fn ends<C: Cargo>() -> (Source<C>, Sink<C>) {
    let ((out, input), (back_out, back)) = (ring(RING), ring(RING));
    let home = (0..C::COUNT as u64).map(C::make).collect();
    (Source { out, back, home, n: 0 }, Sink { input, back: back_out })
}

impl<C: Cargo> Source<C> {
    /// Sends up to a batch; how many.
    fn send(&mut self, batch: usize) -> usize {
        let mut sent = 0;
        while sent < batch
            && let Some(mut item) = self.next()
        {
            item.write(self.n);
            match self.out.stage(item) {
                Ok(()) => sent += 1,
                Err(Full(item)) => {
                    self.home.extend((C::COUNT > 0).then_some(item));
                    break;
                }
            }
            self.n += 1;
        }
        if sent > 0 {
            self.out.publish();
        }
        sent
    }

    fn next(&mut self) -> Option<C> {
        if C::COUNT == 0 {
            return Some(C::make(self.n));
        }
        if self.home.is_empty() {
            while let Some(item) = self.back.take() {
                self.home.push(item);
            }
            self.back.publish();
        }
        self.home.pop()
    }
}

impl<C: Cargo> Sink<C> {
    /// Takes up to a batch; how many.
    fn take(&mut self, batch: usize) -> usize {
        let mut taken = 0;
        while taken < batch
            && let Some(item) = self.input.take()
        {
            black_box(item.read());
            if C::COUNT > 0 {
                // There are fewer than it has room for.
                let _ = self.back.stage(item);
            }
            taken += 1;
        }
        if taken > 0 {
            self.input.publish();
            self.back.publish();
        }
        taken
    }
}

/// Nanoseconds of one of `count` things that `step` does, in the median chunk. `step` does a few and returns how many.
fn median_chunk(count: usize, mut step: impl FnMut() -> usize) -> f64 {
    let mut chunk = || {
        let (begin, mut done) = (Nanos.nanos(), 0);
        while done < count {
            done += step();
        }
        (Nanos.nanos() - begin) as f64 / done as f64
    };
    let end = Nanos.nanos() + LIMIT.as_nanos() as u64;
    let in_time = |done: &usize| *done == 0 || Nanos.nanos() < end;
    (0..CHUNKS).take_while(in_time).map(|_| chunk()).collect::<Figures>().median()
}

/// Both sides on this thread.
fn same<C: Cargo>(batch: usize) -> f64 {
    let (mut source, mut sink) = ends::<C>();
    median_chunk(CHUNK, || {
        source.send(batch);
        sink.take(batch)
    })
}

/// Each side on a thread of its own.
fn cross<C: Cargo>(batch: usize, cpus: &[usize]) -> f64 {
    let (mut source, mut sink) = ends::<C>();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            bind(cpus.get(1).copied());
            let mut idle = 0;
            while !stop.load(Ordering::Relaxed) {
                pause(&mut idle, source.send(batch) > 0);
            }
        });
        let taker = scope.spawn(|| {
            bind(cpus.first().copied());
            let mut idle = 0;
            let ns = median_chunk(CHUNK, || {
                let taken = sink.take(batch);
                pause(&mut idle, taken > 0);
                taken
            });
            stop.store(true, Ordering::Relaxed);
            ns
        });
        taker.join().unwrap_or(f64::NAN)
    })
}

fn pause(idle: &mut u32, any: bool) {
    *idle = if any { 0 } else { *idle + 1 };
    if *idle > SPINS {
        thread::yield_now();
    } else if *idle > 0 {
        spin_loop();
    }
}

fn round_trip(cpus: &[usize]) -> f64 {
    let ((mut there, mut from_here), (mut back, mut from_there)) = (ring::<u64>(1), ring::<u64>(1));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            bind(cpus.get(1).copied());
            let mut idle = 0;
            while !stop.load(Ordering::Relaxed) {
                let item = from_here.pop();
                pause(&mut idle, item.is_some_and(|item| back.push(item).is_ok()));
            }
        });
        let asker = scope.spawn(|| {
            bind(cpus.first().copied());
            let ns = median_chunk(TRIPS, || {
                let _ = there.push(0);
                let mut idle = 0;
                while from_there.pop().is_none() {
                    pause(&mut idle, false);
                }
                1
            });
            stop.store(true, Ordering::Relaxed);
            ns
        });
        asker.join().unwrap_or(f64::NAN)
    })
}

/// How long a sleeping thread takes to run after it was woken, and how long the waking took; medians.
fn wake(cpus: &[usize]) -> (f64, f64) {
    let (asked, woken) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            bind(cpus.first().copied());
            for n in 1..=u64::from(WAKES) {
                while asked.load(Ordering::Acquire) < n {
                    thread::park();
                }
                woken.store(Nanos.nanos(), Ordering::Release);
            }
        });
        let waker = |n: u64| {
            // Long enough for it to fall asleep.
            thread::sleep(Duration::from_micros(200));
            woken.store(0, Ordering::Relaxed);
            let begin = Nanos.nanos();
            asked.store(n, Ordering::Release);
            sleeper.thread().unpark();
            let end = Nanos.nanos();
            let mut idle = 0;
            while woken.load(Ordering::Acquire) == 0 {
                pause(&mut idle, false);
            }
            (woken.load(Ordering::Acquire).saturating_sub(begin) as f64, (end - begin) as f64)
        };
        let (wakes, wakings): (Vec<_>, Vec<_>) = (1..=u64::from(WAKES)).map(waker).unzip();
        (wakes.into_iter().collect::<Figures>().median(), wakings.into_iter().collect::<Figures>().median())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_sent_arrives() {
        let (mut source, mut sink) = ends::<Message>();
        let (mut sent, mut taken) = (0, 0);
        for batch in [1, 7, 32, 300, 300, 1].into_iter().cycle().take(1000) {
            sent += source.send(batch);
            taken += sink.take(batch / 2);
        }
        taken += sink.take(usize::MAX);
        assert_eq!(sent, taken);
        assert!(sent > BOXES);
        assert_eq!(source.send(usize::MAX), BOXES, "all have come back");
    }

    #[test]
    fn a_hop_between_cores_costs_what_is_more_than_half_of_one_on_a_core() {
        let figures = |ns: f64| [Figures::default(), [ns].into_iter().collect()];
        assert_eq!(Hop { same: figures(10.0), cross: figures(12.0) }.extra(), 7.0);
        assert_eq!(Hop { same: figures(10.0), cross: figures(3.0) }.extra(), 0.0);
        assert_eq!(Hop { same: figures(10.0), ..Hop::default() }.extra(), 0.0);
    }
}
