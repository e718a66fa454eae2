//! Frame rings over shared memory, as `toe_abi::frames` describes them: whole frames of any length, in order.
//!
//! | word       | written by | order   | read by  | order   | what the pair guarantees                                     |
//! |------------|------------|---------|----------|---------|--------------------------------------------------------------|
//! | tail       | producer   | release | consumer | acquire | the records and frames before it are there                   |
//! | head       | consumer   | release | producer | acquire | the consumer has copied out what the producer will overwrite |
//!
//! The arithmetic is `toe_abi::frames`'s, shared with a card that reaches the ring by DMA. The other side is hostile: its
//! index and every record are checked, and frames are copied out once.

use crate::atomic::{AtomicU32, Ordering};
use crate::words::{WORD_LEN, Words};
#[cfg(not(loom))]
use core::ptr::NonNull;
use toe_abi::frames::{self, Found, FrameRecord, Placing, RECORD_LEN, UNIT, kind};
use zerocopy::{FromZeros, IntoBytes};

const HEADER_WORDS: usize = frames::RING_HEADER_LEN / WORD_LEN;
const TAIL_WORD: usize = core::mem::offset_of!(frames::RingHeader, tail) / WORD_LEN;
const HEAD_WORD: usize = core::mem::offset_of!(frames::RingHeader, head) / WORD_LEN;

/// Where a frame ring lies: header, then data.
#[derive(Clone, Copy)]
pub struct FrameRingMemory {
    words: Words,
    /// Bytes of the data area, a power of two.
    len: u32,
}

impl FrameRingMemory {
    /// `words` are the header and a data area of a power of two of bytes, at least two units; else `None`.
    pub fn new(words: Words) -> Option<Self> {
        let data = words.len().checked_sub(HEADER_WORDS)?.checked_mul(WORD_LEN)?;
        let len = u32::try_from(data).ok()?;
        (len.is_power_of_two() && len >= 2 * UNIT).then_some(Self { words, len })
    }

    /// From an address, aligned to four bytes: `base` is the header; `len` bytes of data follow it.
    ///
    /// # Safety
    /// As [`Words::new`], for the header and `len` bytes behind it.
    #[cfg(not(loom))]
    pub unsafe fn from_raw(base: NonNull<u8>, len: u32) -> Option<Self> {
        let words = HEADER_WORDS + len as usize / WORD_LEN;
        // SAFETY: the caller vouches for header and data; `len` is rounded down to words.
        let words = unsafe { Words::new(base.cast(), words) };
        if !len.is_power_of_two() { None } else { Self::new(words) }
    }

    fn tail(&self) -> &AtomicU32 {
        self.words.at(TAIL_WORD)
    }

    fn head(&self) -> &AtomicU32 {
        self.words.at(HEAD_WORD)
    }

    /// The data area from byte `at`, a multiple of four, to its end.
    fn data(&self, at: u32) -> Words {
        let start = HEADER_WORDS + at as usize / WORD_LEN;
        self.words.slice(start, self.words.len() - start)
    }
}

/// Why a frame was not put into the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushError {
    /// No room now; there may be later.
    Full,
    /// The frame never fits.
    TooLong,
    /// The consumer's index makes no sense: it is broken or hostile. Nothing will fit until it is mended.
    PeerInsane,
}

/// The writing end. There must be one at a time.
pub struct FrameProducer {
    memory: FrameRingMemory,
    tail: u32,
    /// The consumer's index when last looked at.
    head: u32,
}

impl FrameProducer {
    /// The end of a ring that nobody has used: its header holds zeroes.
    pub fn new(memory: FrameRingMemory) -> Self {
        Self { memory, tail: 0, head: 0 }
    }

    /// Puts one frame in, gathered from `parts`. `record.len` is set here; `record.kind` must not be SKIP.
    pub fn push(&mut self, record: FrameRecord, parts: &[&[u8]]) -> Result<(), PushError> {
        debug_assert_ne!(record.kind, kind::SKIP);
        let len = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.len()));
        let len = len.and_then(|len| u32::try_from(len).ok()).ok_or(PushError::TooLong)?;
        let (at, advance) = self.room(len)?;
        self.memory.data(at).store_bytes(FrameRecord { len, ..record }.as_bytes());
        gather(&self.memory.data(at + RECORD_LEN), parts);
        self.publish(advance);
        Ok(())
    }

    /// Finds a place for a frame of `len` bytes, filling up to the ring's end if need be.
    fn room(&mut self, len: u32) -> Result<(u32, u32), PushError> {
        let mut looked = false;
        loop {
            match frames::place(self.memory.len, self.tail, self.head, len) {
                Placing::Put { at, advance } => return Ok((at, advance)),
                Placing::Skip { at, len } => {
                    let skip = FrameRecord { kind: kind::SKIP, len, ..FrameRecord::default() };
                    self.memory.data(at).store_bytes(skip.as_bytes());
                    self.publish(len);
                }
                Placing::Full if !looked => {
                    looked = true;
                    self.refill()?;
                }
                Placing::Full => return Err(PushError::Full),
                Placing::TooLong => return Err(PushError::TooLong),
                Placing::Insane => return Err(PushError::PeerInsane),
            }
        }
    }

    fn refill(&mut self) -> Result<(), PushError> {
        // Acquire: with the release in `FrameConsumer::advance`; frames up to here have been copied out.
        let head = self.memory.head().load(Ordering::Acquire);
        // Neither past our tail, nor back behind what was consumed before, nor inside a unit.
        let used = self.tail.wrapping_sub(head);
        if used > self.tail.wrapping_sub(self.head) || !used.is_multiple_of(UNIT) {
            return Err(PushError::PeerInsane);
        }
        self.head = head;
        Ok(())
    }

    fn publish(&mut self, advance: u32) {
        self.tail = self.tail.wrapping_add(advance);
        // Release: with the acquire in `FrameConsumer::pop`; record and frame are there before the index.
        self.memory.tail().store(self.tail, Ordering::Release);
    }
}

/// Copies `parts` one behind the other into `words`.
fn gather(words: &Words, parts: &[&[u8]]) {
    let mut at = 0;
    // Bytes of a word that began in an earlier part.
    let mut begun = [0u8; WORD_LEN];
    let mut n = 0;
    for part in parts {
        let mut part = *part;
        if n > 0 {
            let (head, rest) = part.split_at(part.len().min(WORD_LEN - n));
            begun[n..n + head.len()].copy_from_slice(head);
            n += head.len();
            part = rest;
            if n < WORD_LEN {
                continue;
            }
            words.slice(at, 1).store_bytes(&begun);
            at += 1;
        }
        let (whole, rest) = part.split_at(part.len() / WORD_LEN * WORD_LEN);
        let len = whole.len() / WORD_LEN;
        words.slice(at, len).store_bytes(whole);
        at += len;
        begun[..rest.len()].copy_from_slice(rest);
        n = rest.len();
    }
    if n > 0 {
        words.slice(at, 1).store_bytes(&begun[..n]);
    }
}

/// Why no frame was taken from the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PopError {
    /// The producer's index or a record made no sense. Everything that was in the ring has been skipped.
    Corrupt,
    /// The frame needs a buffer of this many bytes (never more than `FRAME_MAX`); it is still in the ring.
    BufferTooSmall { len: u32 },
}

/// The reading end. There must be one at a time.
pub struct FrameConsumer {
    memory: FrameRingMemory,
    head: u32,
}

impl FrameConsumer {
    /// The end of a ring that nobody has used: its header holds zeroes.
    pub fn new(memory: FrameRingMemory) -> Self {
        Self { memory, head: 0 }
    }

    /// Copies the next frame into the front of `buf` and returns a private copy of its record, of which `kind` (never
    /// SKIP) and `len` (at most `buf.len()`) are checked; `None` if there is none. Its room is given back at once.
    ///
    /// After an error don't try again in the same visit: a hostile producer can cause one each time.
    pub fn pop(&mut self, buf: &mut [u8]) -> Result<Option<FrameRecord>, PopError> {
        // Acquire: with the release in `FrameProducer::publish`; records and frames before it are there.
        let tail = self.memory.tail().load(Ordering::Acquire);
        let mut ready = frames::ready(self.memory.len, self.head, tail).ok_or_else(|| self.resync(tail))?;
        while ready > 0 {
            let mut record = FrameRecord::new_zeroed();
            self.memory.data(self.head & (self.memory.len - 1)).load_bytes(record.as_mut_bytes());
            match record.check(self.memory.len, self.head, ready) {
                Found::Skip { advance } => {
                    self.advance(advance);
                    ready -= advance;
                }
                Found::Frame { at, len, advance } => {
                    let frame = buf.get_mut(..len as usize).ok_or(PopError::BufferTooSmall { len })?;
                    self.memory.data(at).load_bytes(frame);
                    self.advance(advance);
                    return Ok(Some(record));
                }
                Found::Corrupt => return Err(self.resync(tail)),
            }
        }
        Ok(None)
    }

    /// Whether there is nothing to pop now.
    pub fn is_empty(&self) -> bool {
        // Acquire: as in `pop`; also what a sleeper looks at again.
        self.memory.tail().load(Ordering::Acquire) == self.head
    }

    fn advance(&mut self, bytes: u32) {
        self.head = self.head.wrapping_add(bytes);
        // Release: with the acquire in `FrameProducer::refill`; our copies were taken before.
        self.memory.head().store(self.head, Ordering::Release);
    }

    /// Gives up what is in the ring.
    fn resync(&mut self, tail: u32) -> PopError {
        self.head = tail & !(UNIT - 1);
        self.advance(0);
        PopError::Corrupt
    }
}
