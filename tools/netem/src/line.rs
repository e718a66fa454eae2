//! One direction of the network: the fate of each frame.
//!
//! The bottleneck is a clock, not a list: it is busy until `free_ps`, and what it has to send until then is its queue.

use serde::{Deserialize, Serialize};
use toe_hal::fake::Chance;
use toe_wire::congestion;

use crate::knobs::{Knobs, Ppm};

/// How a frame arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    pub at_ns: u64,
    /// A second copy.
    pub again_ns: Option<u64>,
    /// The bit to be flipped.
    pub damage: Option<u64>,
}

/// Why a frame does not arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// The queue was full.
    Queue,
    /// On the line.
    Line,
}

/// What has happened to frames, in numbers of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    pub frames: u64,
    pub lost: u64,
    pub queue_full: u64,
    /// Marked: CE.
    pub marked: u64,
    pub duplicated: u64,
    pub damaged: u64,
    pub late: u64,
    /// Bytes that frames found waiting at the bottleneck, all together.
    pub waiting: u64,
}

impl Counts {
    /// Bytes that a frame found waiting, on average.
    pub fn mean_queue(&self) -> u64 {
        self.waiting / self.frames.max(1)
    }
}

pub struct Line {
    knobs: Knobs,
    chance: Chance,
    /// When the bottleneck has sent all that it has accepted, picoseconds: a byte at 100 Gbit/s takes 80.
    free_ps: u64,
    /// In a burst of losses.
    bad: bool,
    pub counts: Counts,
}

impl Line {
    pub fn new(knobs: Knobs, seed: u64) -> Self {
        Self { knobs, chance: Chance::new(seed), free_ps: 0, bad: false, counts: Counts::default() }
    }

    /// From now on without faults.
    pub fn heal(&mut self) {
        self.knobs = self.knobs.healed();
        self.bad = false;
    }

    /// A frame enters at `now_ns`; times never go back. It is marked if many wait for the bottleneck, and it says that it can be.
    pub fn send(&mut self, frame: &mut [u8], now_ns: u64) -> Result<Arrival, Lost> {
        self.counts.frames += 1;
        let sent_ns = self.bottleneck(frame, now_ns).inspect_err(|_| self.counts.queue_full += 1)?;
        if self.is_lost() {
            self.counts.lost += 1;
            return Err(Lost::Line);
        }
        let damage = self.happens(self.knobs.corrupt).then(|| self.chance.below(frame.len() as u64 * 8));
        let at_ns = sent_ns + self.delay_ns();
        let again_ns = self.happens(self.knobs.duplicate).then(|| sent_ns + self.delay_ns());
        self.counts.damaged += u64::from(damage.is_some());
        self.counts.duplicated += u64::from(again_ns.is_some());
        Ok(Arrival { at_ns, again_ns, damage })
    }

    /// When the frame has left the bottleneck.
    fn bottleneck(&mut self, frame: &mut [u8], now_ns: u64) -> Result<u64, Lost> {
        let Knobs { rate, queue, mark, .. } = self.knobs;
        if rate == 0 {
            return Ok(now_ns);
        }
        let (len, now_ps) = (frame.len() as u64, now_ns.saturating_mul(1000));
        let waiting = bytes_in(self.free_ps.saturating_sub(now_ps), rate);
        self.counts.waiting += waiting;
        if waiting + len > queue.max(len) {
            return Err(Lost::Queue);
        }
        self.free_ps = self.free_ps.max(now_ps).saturating_add(ps_for(len, rate));
        self.counts.marked += u64::from(mark > 0 && waiting >= mark && congestion::mark(frame));
        Ok(self.free_ps.div_ceil(1000))
    }

    fn is_lost(&mut self) -> bool {
        let change = if self.bad { 1_000_000 / self.knobs.burst_len.max(1) } else { self.knobs.burst };
        self.bad ^= self.happens(change);
        self.bad || self.happens(self.knobs.loss)
    }

    fn delay_ns(&mut self) -> u64 {
        let Knobs { delay_ns, jitter_ns, reorder, late_ns, .. } = self.knobs;
        let late = self.happens(reorder);
        self.counts.late += u64::from(late);
        delay_ns + self.chance.below(jitter_ns + 1) + if late { late_ns } else { 0 }
    }

    fn happens(&mut self, ppm: Ppm) -> bool {
        ppm > 0 && self.chance.below(1_000_000) < u64::from(ppm)
    }
}

fn ps_for(bytes: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(bytes) * 8 * 1_000_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX)
}

fn bytes_in(ps: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(ps) * u128::from(rate) / 8_000_000_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(knobs: &str) -> Line {
        Line::new(knobs.parse().expect("knobs"), 7)
    }

    /// Fates of `n` frames of 1000 bytes, one each microsecond.
    fn fates(line: &mut Line, n: u64) -> Vec<Result<Arrival, Lost>> {
        (0..n).map(|i| line.send(&mut [0; 1000], i * 1000)).collect()
    }

    #[test]
    fn a_line_without_faults_only_delays() {
        let plain = |at_ns| Ok(Arrival { at_ns, again_ns: None, damage: None });
        assert_eq!(fates(&mut line("delay=5us"), 3), [plain(5_000), plain(6_000), plain(7_000)]);
    }

    #[test]
    fn the_bottleneck_sends_one_after_the_other_and_its_queue_ends() {
        // 1000 bytes take 8 us; two of them may wait behind the one that is under way, as long as all of it waits.
        let mut line = line("rate=1gbit,queue=3000");
        let at: Vec<_> = (0..5).map(|_| line.send(&mut [0; 1000], 0).map(|a| a.at_ns)).collect();
        assert_eq!(at, [Ok(8_000), Ok(16_000), Ok(24_000), Err(Lost::Queue), Err(Lost::Queue)]);
        assert_eq!(line.send(&mut [0; 1000], 8_000).map(|a| a.at_ns), Ok(32_000));
        assert_eq!((line.counts.frames, line.counts.queue_full), (6, 2));
    }

    #[test]
    fn a_frame_longer_than_the_queue_passes_an_empty_one() {
        assert!(line("rate=1gbit,queue=100").send(&mut [0; 1000], 0).is_ok());
    }

    #[test]
    fn frames_behind_a_long_queue_are_marked() {
        let mut line = line("rate=1gbit,queue=1m,mark=1500");
        let marked: Vec<_> = (0..4)
            .map(|_| {
                // IPv4 and ECT(0), padded.
                let mut frame = [&[0; 12][..], &[8, 0, 0x45, 2], &[0; 984]].concat();
                line.send(&mut frame, 0).is_ok() && frame[15] == 3
            })
            .collect();
        assert_eq!((marked, line.counts.marked), (vec![false, false, true, true], 2));
        assert_eq!(line.counts.mean_queue(), 1500);
        line.send(&mut [0; 1000], 0).expect("sent");
        assert_eq!(line.counts.marked, 2, "what cannot be marked is not counted");
    }

    #[test]
    fn chances_are_kept() {
        let mut line = line("loss=2%,dup=3%,corrupt=4%,reorder=5%:1ms");
        let fates = fates(&mut line, 100_000);
        let share = |n: u64| n as f64 / 1000.0;
        let Counts { lost, duplicated, damaged, late, .. } = line.counts;
        for (found, wanted) in [(share(lost), 2.0), (share(duplicated), 2.94), (share(damaged), 3.92), (share(late), 5.05)] {
            assert!((found - wanted).abs() < 0.3, "{found} % instead of {wanted} %: {:?}", line.counts);
        }
        assert!(fates.iter().flatten().all(|a| a.damage.is_none_or(|bit| bit < 8000)));
    }

    #[test]
    fn bursts_have_their_mean_length() {
        let mut line = line("burst=1%:10");
        let fates = fates(&mut line, 100_000);
        let begins = fates.windows(2).filter(|pair| pair[0].is_ok() && pair[1].is_err()).count();
        let mean = line.counts.lost as f64 / begins as f64;
        assert!((8.0..12.0).contains(&mean), "{mean}");
        assert!((line.counts.lost as f64 / 1e5 - 0.0909).abs() < 0.01, "{:?}", line.counts);
    }

    #[test]
    fn a_healed_line_loses_nothing_more() {
        let mut line = line("loss=100%,delay=1us");
        assert!(fates(&mut line, 10).iter().all(Result::is_err));
        line.heal();
        assert!(fates(&mut line, 10).iter().all(Result::is_ok));
    }

    #[test]
    fn a_seed_is_a_network() {
        let run = |seed| fates(&mut Line::new("loss=10%,jitter=1ms".parse().expect("knobs"), seed), 1000);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
