//! A wire in virtual time that loses, repeats, reorders, delays and corrupts frames, by seed.

use super::bottleneck::{Bottleneck, Load, Queue};
use super::order::InOrder;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use toe_hal::fake::{Chance, FakeFrame};

/// What a [`Wire`] does to frames; chances in percent of frames.
#[derive(Clone, Copy, Debug)]
pub struct WireKnobs {
    pub loss: u8,
    pub duplicate: u8,
    /// A bit is flipped somewhere in the frame.
    pub corrupt: u8,
    /// Least delay, microseconds.
    pub delay_us: u64,
    /// Added to it at random per frame, which reorders.
    pub jitter_us: u64,
    /// After this many frames the wire is perfect, so that every run ends.
    pub faults_until: u64,
}

impl Default for WireKnobs {
    fn default() -> Self {
        Self { loss: 0, duplicate: 0, corrupt: 0, delay_us: 20, jitter_us: 0, faults_until: u64::MAX }
    }
}

impl WireKnobs {
    /// Something different for each seed: from perfect to awful.
    pub fn from_seed(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x77_69_72_65);
        Self {
            loss: chance.below(12) as u8,
            duplicate: chance.below(8) as u8,
            corrupt: chance.below(4) as u8,
            delay_us: 1 + chance.below(2_000),
            jitter_us: [0, 50, 2_000, 20_000][chance.below(4) as usize],
            faults_until: 20_000,
        }
    }
}

/// A frame under way to the end `to`.
struct Flying {
    at_us: u64,
    order: u64,
    to: usize,
    frame: FakeFrame,
}

impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.order) == (other.at_us, other.order)
    }
}
impl Eq for Flying {}
impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flying {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.order).cmp(&(other.at_us, other.order))
    }
}

/// Joins two ends, 0 and 1.
pub struct Wire {
    knobs: WireKnobs,
    chance: Chance,
    flying: BinaryHeap<Reverse<Flying>>,
    frames: u64,
    order: Option<InOrder>,
    /// By the end that frames go to.
    bottlenecks: Option<[Bottleneck; 2]>,
}

impl Wire {
    pub fn new(knobs: WireKnobs, seed: u64) -> Self {
        Self { knobs, chance: Chance::new(seed), flying: BinaryHeap::new(), frames: 0, order: None, bottlenecks: None }
    }

    /// A wire that does nothing to frames, so nobody has a reason to send anything twice: a run panics if somebody does, or acknowledges less than
    /// before. `connector`: the end that opens a connection to one of ours. What it sends at once may have to be sent again: the first frames wait
    /// for INSTALL in toed, and later ones may overtake them.
    pub fn perfect(connector: Option<usize>) -> Self {
        Self { order: Some(InOrder::new(connector)), ..Self::new(WireKnobs::default(), 0) }
    }

    /// Frames of each direction go through a queue first.
    pub fn with_bottleneck(self, queue: Queue) -> Self {
        Self { bottlenecks: Some([Bottleneck::new(queue); 2]), ..self }
    }

    /// What went through the queue to the end `to`.
    pub fn load(&self, to: usize) -> Load {
        self.bottlenecks.map_or(Load::default(), |b| b[to].load)
    }

    pub fn is_perfect(&self) -> bool {
        self.order.is_some()
    }

    /// A frame leaves one end for the end `to`.
    pub fn send(&mut self, to: usize, frame: FakeFrame, now_us: u64) {
        self.frames += 1;
        if let Some(order) = &mut self.order {
            order.watch(1 - to, &frame.bytes);
        }
        let faulty = self.frames < self.knobs.faults_until;
        if faulty && self.chance.percent(self.knobs.loss) {
            return;
        }
        if faulty && self.chance.percent(self.knobs.duplicate) {
            self.launch(to, frame.clone(), now_us);
        }
        let frame = if faulty && self.chance.percent(self.knobs.corrupt) { self.corrupted(frame) } else { frame };
        self.launch(to, frame, now_us);
    }

    /// What has arrived by now: the end and the frame.
    pub fn arrived(&mut self, now_us: u64) -> Option<(usize, FakeFrame)> {
        let due = self.flying.peek().is_some_and(|Reverse(f)| f.at_us <= now_us);
        due.then(|| self.flying.pop()).flatten().map(|Reverse(f)| (f.to, f.frame))
    }

    /// When the next frame arrives.
    pub fn next_us(&self) -> Option<u64> {
        self.flying.peek().map(|Reverse(f)| f.at_us)
    }

    fn launch(&mut self, to: usize, mut frame: FakeFrame, now_us: u64) {
        let left_us = match &mut self.bottlenecks {
            Some(bottlenecks) => bottlenecks[to].pass(&mut frame.bytes, now_us),
            None => Some(now_us),
        };
        let Some(left_us) = left_us else { return };
        let at_us = left_us + self.knobs.delay_us + self.chance.below(self.knobs.jitter_us + 1);
        self.flying.push(Reverse(Flying { at_us, order: self.frames, to, frame }));
    }

    /// Flips one bit. A frame whose checksum was not computed yet would be damaged beyond detection on a
    /// real machine, too: such frames never leave it, so they are spared.
    fn corrupted(&mut self, mut frame: FakeFrame) -> FakeFrame {
        if !frame.offload.csum_ok {
            let bit = self.chance.below(frame.bytes.len() as u64 * 8);
            frame.bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        frame
    }
}
