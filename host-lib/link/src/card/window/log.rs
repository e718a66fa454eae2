//! The card's log, read without its help: a ring that it overwrites whether anybody reads or not.

use super::SharedMemory;
use core::mem::offset_of;
use std::sync::atomic::{Ordering, fence};
use toe_abi::window::{LOG_HEADER_OFF, LOG_LEN, LOG_OFF, LogHeader};

pub(super) const BEGUN: u64 = LOG_HEADER_OFF + offset_of!(LogHeader, begun) as u64;
pub(super) const WRITTEN: u64 = LOG_HEADER_OFF + offset_of!(LogHeader, written) as u64;
const DROPPED: u64 = LOG_HEADER_OFF + offset_of!(LogHeader, dropped) as u64;
const LEN: u32 = LOG_LEN as u32;

/// Bytes that were overwritten before they could be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Missed(pub u32);

/// A reader, with a place of its own.
pub struct Log<'a> {
    /// The fixed part of a window.
    memory: &'a SharedMemory,
    tail: u32,
}

impl<'a> Log<'a> {
    /// The log in a window, whose fixed part `memory` begins with: from byte `from` on, or from the oldest that is still there.
    pub fn new(memory: &'a SharedMemory, from: u32) -> Self {
        Self { memory, tail: from }
    }

    /// Where the next [`read`](Self::read) begins.
    pub fn tail(&self) -> u32 {
        self.tail
    }

    /// Frames that the card could not write since its start.
    pub fn dropped(&self) -> u32 {
        self.memory.load(DROPPED)
    }

    /// Appends what is new to `out`. Says how much was lost before it.
    pub fn read(&mut self, out: &mut Vec<u8>) -> Missed {
        let written = self.memory.load(WRITTEN);
        let (mut start, mut missed) = (self.tail, 0);
        self.tail = written;
        if written.wrapping_sub(start) > LEN {
            // Behind by more than there is, or ahead of a card that was started anew.
            let oldest = written.saturating_sub(LEN);
            missed = oldest.saturating_sub(start);
            start = oldest;
        }
        if start == written {
            return Missed(missed);
        }
        let mut ring = vec![0; LOG_LEN as usize];
        self.memory.read(LOG_OFF, &mut ring);
        // Acquire: with the writer's release fence. What was overwritten while it was copied, `begun` tells.
        fence(Ordering::Acquire);
        let begun = self.memory.load(BEGUN);
        let torn = begun.wrapping_sub(start).saturating_sub(LEN).min(written.wrapping_sub(start));
        missed = missed.saturating_add(torn);
        let n = written.wrapping_sub(start) - torn;
        start = start.wrapping_add(torn);
        out.extend((0..n).map(|i| ring[(start.wrapping_add(i) % LEN) as usize]));
        Missed(missed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::MemoryOptions;
    use super::*;
    use toe_abi::window::MEMORY_OFF;

    /// A card that writes its log, byte n being n mod 251.
    struct Writer<'a> {
        memory: &'a SharedMemory,
        at: u32,
    }

    impl<'a> Writer<'a> {
        fn new(memory: &'a SharedMemory) -> (Self, Log<'a>) {
            (Self { memory, at: 0 }, Log::new(memory, 0))
        }

        fn begin(&mut self, n: u32) {
            self.memory.store(BEGUN, self.at.wrapping_add(n));
            for i in 0..n {
                let at = self.at.wrapping_add(i);
                let word = LOG_OFF + u64::from(at % LEN) / 4 * 4;
                let mut bytes = self.memory.load(word).to_ne_bytes();
                bytes[(at % 4) as usize] = byte(at);
                self.memory.store(word, u32::from_ne_bytes(bytes));
            }
        }

        fn write(&mut self, n: u32) {
            self.begin(n);
            self.at = self.at.wrapping_add(n);
            self.memory.store(WRITTEN, self.at);
        }
    }

    fn window() -> SharedMemory {
        SharedMemory::create("log", MEMORY_OFF, MemoryOptions::default()).expect("memfd")
    }

    fn byte(at: u32) -> u8 {
        (at % 251) as u8
    }

    fn read(log: &mut Log<'_>) -> (u32, Vec<u8>) {
        let mut out = Vec::new();
        let Missed(missed) = log.read(&mut out);
        (missed, out)
    }

    fn bytes(range: std::ops::Range<u32>) -> Vec<u8> {
        range.map(byte).collect()
    }

    #[test]
    fn everything_is_read_once_also_across_the_end_of_the_ring() {
        let window = window();
        let (mut card, mut log) = Writer::new(&window);
        assert_eq!(read(&mut log), (0, vec![]));
        let mut at = 0;
        for n in [1, 3, 1000, LEN - 500, 700, LEN] {
            card.write(n);
            assert_eq!(read(&mut log), (0, bytes(at..at + n)));
            at += n;
        }
        assert_eq!(read(&mut log), (0, vec![]));
    }

    #[test]
    fn what_was_overwritten_is_missed_and_counted() {
        let window = window();
        let (mut card, mut log) = Writer::new(&window);
        card.write(10);
        read(&mut log);
        card.write(LEN);
        card.write(5);
        assert_eq!(read(&mut log), (5, bytes(15..LEN + 15)));
    }

    #[test]
    fn what_is_being_overwritten_is_not_shown() {
        let window = window();
        let (mut card, mut log) = Writer::new(&window);
        card.write(LEN);
        card.begin(100);
        let (missed, out) = read(&mut log);
        assert_eq!((missed, out), (100, bytes(100..LEN)));
    }

    #[test]
    fn a_card_that_starts_anew_is_read_from_its_beginning() {
        let window = window();
        let (mut card, mut log) = Writer::new(&window);
        card.write(5000);
        read(&mut log);
        card.at = 0;
        card.write(7);
        assert_eq!(read(&mut log), (0, bytes(0..7)));
    }

    #[test]
    fn a_header_that_makes_no_sense_is_no_trouble() {
        let window = window();
        let (card, mut log) = Writer::new(&window);
        for (begun, written) in [(0, u32::MAX), (u32::MAX, 0), (5, 1 << 31), (1 << 31, 5), (1, 2)] {
            card.memory.store(BEGUN, begun);
            card.memory.store(WRITTEN, written);
            assert!(read(&mut log).1.len() <= LEN as usize);
        }
    }
}
