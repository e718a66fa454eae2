//! Urgent data as Linux has it (tcp(7), RFC 6093): a mark in the stream, and the byte before it, which can be read out of band.
//!
//! ```text
//!   rx.tail ───── read up to here at most ─────► urgent byte ─► mark ───────► event.rx_head
//!                 and then from behind the mark on                           (the mark may lie further ahead)
//! ```
//!
//! With SO_OOBINLINE the byte is read in its place; reading stops before it all the same. Of several marks only the last one counts, and what
//! was before an earlier one is read like any byte, unless the application stands right there: then it is skipped.
//!
//! | word      | written by        | when                                                            |
//! |-----------|-------------------|-----------------------------------------------------------------|
//! | rx.urgent | who takes events  | a later mark: after it has skipped the earlier one's byte (rx.tail) |
//! |           | who reads         | the byte was read out of band; the mark is passed: before rx.tail   |
//! | rx.tail   | as above          | always to a position, never by so much more                     |
//!
//! So who reads `rx.urgent` and then `rx.tail` never takes an urgent byte for another, although none of them waits for a lock. Reading out of
//! band takes no lock either: a handler of SIGURG may do it, whatever it has interrupted.

use crate::socket::{Socket, Take, own_flags};
use rustix::io::Errno;
use std::sync::atomic::Ordering;
use toe_abi::region::{slot_state, urgent_state};
use toe_link::Slot;
use toe_link::user::Sink;

/// Positions wrap: what is less than this ahead is ahead.
const HALF: u32 = 1 << 31;
/// How far behind what is acknowledged the end of urgent data may lie before it is moved up, so that it never seems to lie ahead.
const STALE: u32 = 1 << 30;
/// How often a change by others is put up with.
const TRIES: usize = 8;

/// A mark that has not been passed.
#[derive(Clone, Copy)]
struct Mark {
    word: u64,
}

impl Mark {
    fn new(state: u32, end: u32) -> Self {
        Self { word: u64::from(state) << 32 | u64::from(end) }
    }

    /// Acquire: with the release in `announce`. Load `rx.tail` afterwards.
    fn load(slot: &Slot) -> Option<Self> {
        let mark = Self { word: slot.rx.urgent.load(Ordering::Acquire) };
        (mark.state() != urgent_state::NONE).then_some(mark)
    }

    fn state(self) -> u32 {
        (self.word >> 32) as u32
    }

    fn end(self) -> u32 {
        self.word as u32
    }

    /// Position of the urgent byte.
    fn byte(self) -> u32 {
        self.end().wrapping_sub(1)
    }

    /// Bytes between `tail` and the urgent byte; `None`: it is passed.
    fn ahead_of(self, tail: u32) -> Option<u32> {
        Some(self.byte().wrapping_sub(tail)).filter(|&ahead| ahead < HALF)
    }

    /// Replaces it, unless somebody else has.
    fn replace(self, slot: &Slot, by: u64) -> bool {
        // Release: with the acquire in `load`.
        slot.rx.urgent.compare_exchange(self.word, by, Ordering::Release, Ordering::Relaxed).is_ok()
    }
}

/// The peer has urgent data up to `end`. `false`: that is no news.
/// RFC 9293 MUST-32, 3.10.3-2, 3.10.7.4-29.
pub(crate) fn announce(slot: &Slot, end: u32) -> bool {
    let later = Mark::new(urgent_state::UNREAD, end);
    for _ in 0..TRIES {
        let word = slot.rx.urgent.load(Ordering::Acquire);
        let tail = slot.rx.tail.load(Ordering::Relaxed);
        let mark = Mark { word };
        let known = mark.state() != urgent_state::NONE;
        if later.ahead_of(tail).is_none() || known && later.ahead_of(mark.end()).is_none() {
            return false;
        }
        if known && mark.byte() == tail {
            skip(slot, mark.end());
        }
        if mark.replace(slot, later.word) {
            return true;
        }
    }
    false
}

/// The application stands at the byte before an earlier mark: as in Linux, it will not find it there.
fn skip(slot: &Slot, end: u32) {
    let inline = slot.tx.slot_flags.load(Ordering::Relaxed) & own_flags::OOBINLINE != 0;
    let tail = end.wrapping_sub(1);
    if !inline && slot.event.rx_head.load(Ordering::Acquire) != tail {
        // Release: as in `Socket::consume`. Who reads moves it by itself, no less far.
        let _ = slot.rx.tail.compare_exchange(tail, end, Ordering::Release, Ordering::Relaxed);
    }
}

/// Whether there is an urgent byte that can be read out of band (POLLPRI).
pub(crate) fn is_readable(slot: &Slot) -> bool {
    let Some(mark) = Mark::load(slot).filter(|mark| mark.state() == urgent_state::UNREAD) else { return false };
    let here = slot.event.rx_head.load(Ordering::Acquire).wrapping_sub(mark.byte());
    mark.ahead_of(slot.rx.tail.load(Ordering::Relaxed)).is_some() && (1..HALF).contains(&here)
}

/// The end of the urgent data that the card is to be told of with `tx_head`, if any.
pub(crate) fn to_tell(slot: &Slot, tx_head: u32) -> Option<u32> {
    let (tail, urgent) = (slot.event.tx_tail.load(Ordering::Relaxed), slot.tx.urgent.load(Ordering::Relaxed));
    if (1..=tx_head.wrapping_sub(tail)).contains(&urgent.wrapping_sub(tail)) {
        return Some(urgent);
    }
    if (STALE..HALF).contains(&tail.wrapping_sub(urgent)) {
        let _ = slot.tx.urgent.compare_exchange(urgent, tail, Ordering::Relaxed, Ordering::Relaxed);
    }
    None
}

/// What can be read from a place in the stream on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub start: u32,
    pub len: u32,
}

impl Socket<'_> {
    fn is_inline(&self) -> bool {
        self.has_flag(own_flags::OOBINLINE)
    }

    /// Where the application stands, and how far ahead of that the urgent byte is, if there is one.
    fn standing(&self) -> (u32, Option<u32>) {
        let mark = Mark::load(self.slot());
        let tail = self.slot().rx.tail.load(Ordering::Relaxed);
        (tail, mark.and_then(|mark| mark.ahead_of(tail)))
    }

    /// What a receive gives: up to the urgent byte, or from behind it on.
    pub(crate) fn run(&self) -> Run {
        let (start, urgent) = self.standing();
        let queued = self.queued_from(start);
        match urgent {
            Some(0) if self.has_flag(own_flags::SIGNAL_DUE) => Run { start, len: 0 },
            Some(0) if queued > 0 && !self.is_inline() => Run { start: start.wrapping_add(1), len: queued - 1 },
            Some(ahead @ 1..) => Run { start, len: queued.min(ahead) },
            _ => Run { start, len: queued },
        }
    }

    /// The application has read up to `to`. `false`: it was there already.
    pub(crate) fn advance(&self, to: u32) -> bool {
        let slot = self.slot();
        if let Some(mark) = Mark::load(slot)
            && mark.ahead_of(to).is_none()
        {
            mark.replace(slot, 0);
        }
        // Release: our reads of the bytes are done before anybody learns that they may be overwritten.
        slot.rx.tail.swap(to, Ordering::Release) != to
    }

    /// Bytes in the receive buffer, wherever the mark is; but not the urgent one that the application stands before, if it would not get it.
    pub(crate) fn unread(&self) -> u32 {
        let (tail, urgent) = self.standing();
        let queued = self.queued_from(tail);
        match urgent {
            Some(0) if self.has_flag(own_flags::SIGNAL_DUE) => 0,
            Some(0) if !self.is_inline() => queued.saturating_sub(1),
            _ => queued,
        }
    }

    /// Bytes up to the urgent one, or all (FIONREAD).
    pub fn readable_to_mark(&self) -> u32 {
        let (tail, urgent) = self.standing();
        let queued = self.queued_from(tail);
        urgent.filter(|_| !self.is_inline()).map_or(queued, |ahead| queued.min(ahead))
    }

    /// The next byte to be read is the urgent one (SIOCATMARK), whether it is there or not.
    /// RFC 9293 MUST-33.
    pub fn at_mark(&self) -> bool {
        self.standing().1 == Some(0)
    }

    /// A receive would stop at a mark.
    pub fn stops_at_mark(&self) -> bool {
        let (tail, urgent) = self.standing();
        urgent.is_some_and(|ahead| (1..=self.queued_from(tail)).contains(&ahead))
    }

    /// Reads the urgent byte out of band. `Ok(None)`: it has not come, and will not. EAGAIN: it has not come yet; EINVAL: there is none, it was
    /// read, or it is to be read in its place.
    pub fn receive_urgent(&self, take: Take) -> Result<Option<u8>, Errno> {
        if self.state() == slot_state::LISTENING {
            return Err(Errno::NOTCONN);
        }
        for _ in 0..TRIES {
            let mark = Mark::load(self.slot()).filter(|mark| mark.state() == urgent_state::UNREAD && !self.is_inline());
            let mark = mark.ok_or(Errno::INVAL)?;
            if self.is_dead() {
                return Err(Errno::NOTCONN);
            }
            let tail = self.slot().rx.tail.load(Ordering::Relaxed);
            let ahead = mark.ahead_of(tail).ok_or(Errno::INVAL)?;
            let ended = self.rx_ended();
            if self.queued_from(tail) <= ahead {
                return if ended { Ok(None) } else { Err(Errno::AGAIN) };
            }
            let mut byte = [0];
            self.copy(mark.byte(), 1, &mut Sink::from_slice(&mut byte))?;
            // If it still stands, nobody had passed it, and the card has not been allowed to overwrite the byte.
            if take == Take::Peek || mark.replace(self.slot(), Mark::new(urgent_state::READ, mark.end()).word) {
                return Ok(Some(byte[0]));
            }
        }
        Err(Errno::AGAIN)
    }
}

#[cfg(test)]
#[path = "urgent_tests.rs"]
mod tests;
