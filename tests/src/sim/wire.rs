//! A wire in virtual time that loses, repeats, reorders, delays and corrupts frames, by seed: a [`Line`] each way.

use super::order::InOrder;
use std::ops::Range;
use toe_hal::fake::{Chance, FakeFrame};
use toe_netem::{Arrival, Counts, Flight, Knobs, Line};
use toe_wire::{SeqNum, parse_frame};

/// Of a wire that nothing else is said of.
const DELAY_NS: u64 = 20_000;
/// A faulty wire is perfect after so many frames, so that every run ends.
const FAULTS_UNTIL: u64 = 20_000;

/// A frame under way to the end `to`.
struct Flying {
    to: usize,
    frame: FakeFrame,
}

/// Joins two ends, 0 and 1.
pub struct Wire {
    /// Towards each end.
    lines: [Line; 2],
    flight: Flight<Flying>,
    frames: u64,
    faults_until: u64,
    order: Option<InOrder>,
    /// See [`Wire::silent`], nanoseconds.
    silence: Range<u64>,
    /// What each end has sent.
    pub sent: [Volume; 2],
}

impl Wire {
    /// The same both ways.
    pub fn new(knobs: Knobs, seed: u64) -> Self {
        let lines = [1 << 32, 0].map(|way| Line::new(knobs, seed ^ way));
        Self { lines, flight: Flight::default(), frames: 0, faults_until: u64::MAX, order: None, silence: 0..0, sent: Default::default() }
    }

    /// Something different for each seed: from perfect to awful.
    pub fn faulty(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x77_69_72_65);
        let mut percent = |most| 10_000 * chance.below(most) as u32;
        let (loss, duplicate, corrupt) = (percent(12), percent(8), percent(4));
        let delay_ns = 1_000 * (1 + chance.below(2_000));
        let jitter_ns = [0, 50_000, 2_000_000, 20_000_000][chance.below(4) as usize];
        let knobs = Knobs { loss, duplicate, corrupt, delay_ns, jitter_ns, ..Knobs::default() };
        Self { faults_until: FAULTS_UNTIL, ..Self::new(knobs, seed) }
    }

    /// Nothing arrives in these microseconds; what would have arrives, in order, when they are over.
    pub fn silent(self, us: Range<u64>) -> Self {
        Self { silence: us.start * 1000..us.end * 1000, ..self }
    }

    /// A short wire that only loses frames, `percent` of them.
    pub fn lossy(percent: u8, seed: u64) -> Self {
        Self::new(Knobs { loss: 10_000 * u32::from(percent), delay_ns: DELAY_NS, ..Knobs::default() }, seed)
    }

    /// A wire that does nothing to frames, so nobody has a reason to send anything twice: a run panics if somebody does, or acknowledges less than
    /// before. `connector`: the end that opens a connection to one of ours. What it sends at once may have to be sent again: the first frames wait
    /// for INSTALL in toed, and later ones may overtake them.
    pub fn perfect(connector: Option<usize>) -> Self {
        Self { order: Some(InOrder::new(connector)), ..Self::lossy(0, 0) }
    }

    /// What has happened to frames for the end `to`.
    pub fn counts(&self, to: usize) -> Counts {
        self.lines[to].counts
    }

    pub fn is_perfect(&self) -> bool {
        self.order.is_some()
    }

    /// A frame leaves one end for the end `to`.
    pub fn send(&mut self, to: usize, mut frame: FakeFrame, now_us: u64) {
        self.frames += 1;
        if self.frames == self.faults_until {
            self.lines.iter_mut().for_each(Line::heal);
        }
        if let Some(order) = &mut self.order {
            order.watch(1 - to, &frame.bytes);
        }
        self.sent[1 - to].count(&frame.bytes);
        let fate = self.lines[to].send(&mut frame.bytes, now_us * 1000);
        let Ok(Arrival { at_ns, again_ns, damage }) = fate else { return };
        let heard = |at_ns| if self.silence.contains(&at_ns) { self.silence.end } else { at_ns };
        let (at_ns, again_ns) = (heard(at_ns), again_ns.map(heard));
        if let Some(again_ns) = again_ns {
            self.flight.push(again_ns, Flying { to, frame: frame.clone() });
        }
        if let Some(bit) = damage {
            flip(&mut frame, bit);
        }
        self.flight.push(at_ns, Flying { to, frame });
    }

    /// What has arrived by now: the end and the frame.
    pub fn arrived(&mut self, now_us: u64) -> Option<(usize, FakeFrame)> {
        self.flight.pop(now_us * 1000).map(|(_, Flying { to, frame })| (to, frame))
    }

    /// When the next frame arrives.
    pub fn next_us(&self) -> Option<u64> {
        self.flight.next_ns().map(|ns| ns.div_ceil(1000))
    }
}

/// Payload that an end has sent on its one connection, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volume {
    pub payload: u64,
    /// Of it, what had been sent before.
    pub again: u64,
    /// Behind all that was sent.
    end: Option<SeqNum>,
}

impl Volume {
    fn count(&mut self, bytes: &[u8]) {
        let Ok(frame) = parse_frame(bytes) else { return };
        let Some((_, tcp)) = frame.tcp().filter(|(_, tcp)| !tcp.payload.is_empty()) else { return };
        let (len, before) = (tcp.payload.len(), self.end.unwrap_or(tcp.seq));
        let end = tcp.seq.add(len).max(before);
        self.end = Some(end);
        self.payload += u64::from(len);
        self.again += u64::from(len.saturating_sub(end.since_or_zero(before)));
    }
}

/// Flips one bit. A frame whose checksum was not computed yet would be damaged beyond detection on a
/// real machine, too: such frames never leave it, so they are spared.
fn flip(frame: &mut FakeFrame, bit: u64) {
    if !frame.offload.csum_ok {
        frame.bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}
