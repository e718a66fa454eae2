//! Records: a table of plain structs that one core writes and every core reads, each record whole or not at all.
//!
//! ```text
//!   states: a dense array             records: each begins a cache line
//!   ┌───────────────┬─────┐           ┌────────────┬────────┬────────┬─────┐
//!   │ number, phase │ ... │           │ generation │ word 0 │ word 1 │ ... │     60 bytes of T: one line
//!   └───────────────┴─────┘           └────────────┴────────┴────────┴─────┘
//!
//!   RETRACTED ── publish: number + 1 ──► BUSY ── words written ──► PUBLISHED ── publish: number + 1 ──► BUSY ...
//!       ▲                                                              │
//!       └────────────────────────── retract ───────────────────────────┘
//! ```
//!
//! A reader copies the record between two looks at its state, and the copy counts if both say the same number and
//! PUBLISHED. The number rises with every publication, so a record may be replaced under the generation that it had, and
//! nobody sees half of each. A generation is any 32 bits: that is why the state has a word of its own, in an array so dense
//! that it stays in the cache.
//!
//! | word              | written by | order          | read by | order          | what the pair guarantees                         |
//! |-------------------|------------|----------------|---------|----------------|--------------------------------------------------|
//! | state = PUBLISHED | writer     | release        | readers | acquire        | generation and words are there                   |
//! | generation, words | writer     | relaxed        | readers | relaxed        | by `state`                                       |
//! | state, words      | writer     | fence between  | readers | fence between  | who sees a new word sees that the state has moved |
//!
//! A reader never waits for long: the writer may have been stopped halfway. (A reader that is stopped for exactly 2^30
//! publications of one record is not foreseen.) Memory that a record names may be used again when every reader has passed
//! an epoch: [`crate::epoch`].

use crate::atomic::{Arc, AtomicU32, Ordering, fence, spin_loop};
use alloc::boxed::Box;
use core::marker::PhantomData;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Words of a cache line.
const LINE: usize = 16;
const WORD_LEN: usize = size_of::<u32>();

/// The lower bits of a state; above them, the number of the publication.
const PHASE: u32 = 3;
const RETRACTED: u32 = 0;
const BUSY: u32 = 1;
const PUBLISHED: u32 = 2;
const NUMBER: u32 = 4;

/// Looks at a record that is being replaced. A replacement takes the time of one or two.
const LOOKS: u32 = if cfg!(loom) { 2 } else { 16 };

/// What a record may be: plain words.
pub trait Record: Copy + FromBytes + IntoBytes + Immutable {
    /// How many.
    const WORDS: usize = {
        assert!(size_of::<Self>().is_multiple_of(WORD_LEN));
        size_of::<Self>() / WORD_LEN
    };
    /// Cache lines of a record with its generation.
    const LINES: usize = (1 + Self::WORDS).div_ceil(LINE);
}

impl<T: Copy + FromBytes + IntoBytes + Immutable> Record for T {}

#[repr(align(64))]
struct Line([AtomicU32; LINE]);
#[cfg(not(loom))]
const _: () = assert!(size_of::<Line>() == 64 && <[u32; 15]>::LINES == 1);

impl Line {
    fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU32::new(0)))
    }
}

struct Table<T> {
    states: Box<[AtomicU32]>,
    lines: Box<[Line]>,
    _type: PhantomData<fn() -> T>,
}

impl<T: Record> Table<T> {
    fn new(n: u32) -> Self {
        let states = (0..n).map(|_| AtomicU32::new(RETRACTED)).collect();
        let lines = (0..n as usize * T::LINES).map(|_| Line::new()).collect();
        Self { states, lines, _type: PhantomData }
    }

    /// State and lines of record `i`.
    fn record(&self, i: u32) -> Option<(&AtomicU32, &[Line])> {
        let state = self.states.get(i as usize)?;
        let first = i as usize * T::LINES;
        Some((state, self.lines.get(first..first + T::LINES)?))
    }
}

/// Word `i` of a record: 0 is the generation.
#[inline]
fn word(lines: &[Line], i: usize) -> &AtomicU32 {
    &lines[i / LINE].0[i % LINE]
}

/// A table of `n` records, none of them published.
pub fn records<T: Record>(n: u32) -> (RecordWriter<T>, RecordReader<T>) {
    let table = Arc::new(Table::new(n));
    (RecordWriter { table: table.clone() }, RecordReader { table })
}

/// The writer's handle: there is one for each table, and it is not `Clone`.
pub struct RecordWriter<T> {
    table: Arc<Table<T>>,
}

impl<T: Record> RecordWriter<T> {
    /// Publishes record `i`, or replaces it. Panics if there is no such record: indices are the writer's own.
    pub fn publish(&mut self, i: u32, generation: u32, record: &T) {
        let (state, lines) = self.table.record(i).expect("an index of the table");
        let next = (state.load(Ordering::Relaxed) & !PHASE).wrapping_add(NUMBER);
        state.store(next | BUSY, Ordering::Relaxed);
        // Partner: the fence in `RecordReader::look`. Who sees a word from below sees BUSY, or what comes after it.
        fence(Ordering::Release);
        word(lines, 0).store(generation, Ordering::Relaxed);
        paste(lines, record);
        // Release: with the acquire in `RecordReader::look`.
        state.store(next | PUBLISHED, Ordering::Release);
    }

    /// From now on nobody finds record `i`. Panics if there is no such record.
    pub fn retract(&mut self, i: u32) {
        let state = &self.table.states[i as usize];
        // Relaxed: who still finds it finds a whole record, as if it had looked a little earlier.
        state.store(state.load(Ordering::Relaxed) & !PHASE | RETRACTED, Ordering::Relaxed);
    }
}

/// A reader's handle.
pub struct RecordReader<T> {
    table: Arc<Table<T>>,
}

impl<T> Clone for RecordReader<T> {
    fn clone(&self) -> Self {
        Self { table: self.table.clone() }
    }
}

/// What one look at a record finds.
enum Look<R> {
    Whole(R),
    Replaced,
    Nothing,
}

impl<T: Record> RecordReader<T> {
    /// Records in the table, published or not.
    pub fn len(&self) -> u32 {
        self.table.states.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Record `i`, if it is published under this generation. `None` also if it is out of range, or if it is being
    /// replaced for longer than a reader waits.
    pub fn read(&self, i: u32, generation: u32) -> Option<T> {
        self.find(i, |lines| (generation_of(lines) == generation).then(|| copy(lines)))?
    }

    /// Whether record `i` is published under this generation and begins with `start`. `false` as `None` in [`read`](Self::read).
    #[inline]
    pub fn begins_with<P: Record>(&self, i: u32, generation: u32, start: &P) -> bool {
        const { assert!(P::WORDS <= T::WORDS) };
        self.find(i, |lines| generation_of(lines) == generation && matches(lines, start)).unwrap_or(false)
    }

    /// What is published as record `i` now, with its generation. `None` as in [`read`](Self::read).
    pub fn get(&self, i: u32) -> Option<(u32, T)> {
        self.find(i, |lines| (generation_of(lines), copy(lines)))
    }

    /// The generation under which record `i` is published. `None` as in [`read`](Self::read).
    pub fn generation(&self, i: u32) -> Option<u32> {
        self.find(i, generation_of)
    }

    /// What `seen` makes of record `i`, whole.
    #[inline]
    fn find<R>(&self, i: u32, seen: impl Fn(&[Line]) -> R) -> Option<R> {
        for _ in 0..LOOKS {
            match self.look(i, &seen) {
                Look::Whole(found) => return Some(found),
                Look::Nothing => return None,
                Look::Replaced => spin_loop(),
            }
        }
        None
    }

    #[inline]
    fn look<R>(&self, i: u32, seen: impl Fn(&[Line]) -> R) -> Look<R> {
        let Some((state, lines)) = self.table.record(i) else { return Look::Nothing };
        // Acquire: with the release in `RecordWriter::publish`.
        let before = state.load(Ordering::Acquire);
        match before & PHASE {
            PUBLISHED => {}
            BUSY => return Look::Replaced,
            _ => return Look::Nothing,
        }
        let found = seen(lines);
        // Partner: the fence in `RecordWriter::publish`. If a word was of a later publication, the state below is as well.
        fence(Ordering::Acquire);
        if state.load(Ordering::Relaxed) == before { Look::Whole(found) } else { Look::Replaced }
    }
}

fn generation_of(lines: &[Line]) -> u32 {
    word(lines, 0).load(Ordering::Relaxed)
}

/// The record in `lines`: whole, if the state before and after says so.
fn copy<T: Record>(lines: &[Line]) -> T {
    let mut record = T::new_zeroed();
    for (i, bytes) in record.as_mut_bytes().chunks_exact_mut(WORD_LEN).enumerate() {
        bytes.copy_from_slice(&word(lines, 1 + i).load(Ordering::Relaxed).to_ne_bytes());
    }
    record
}

/// Whether the record in `lines` begins with `start`.
#[inline]
fn matches<P: Record>(lines: &[Line], start: &P) -> bool {
    // All words in one go: they nearly always match.
    let differ = |(i, bytes): (usize, &[u8; WORD_LEN])| word(lines, 1 + i).load(Ordering::Relaxed) ^ u32::from_ne_bytes(*bytes);
    start.as_bytes().as_chunks().0.iter().enumerate().map(differ).fold(0, |all, word| all | word) == 0
}

fn paste<T: Record>(lines: &[Line], record: &T) {
    for (i, bytes) in record.as_bytes().as_chunks().0.iter().enumerate() {
        word(lines, 1 + i).store(u32::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
}
