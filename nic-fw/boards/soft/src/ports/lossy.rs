//! A bad wire around any port, for tests: loses, duplicates, reorders and delays frames, seeded.
//!
//! ```text
//!   inner port ──► fate ──► ready ──► card     LossyRx      late frames wait until `n` others have passed,
//!   inner port ◄── fate ◄──────────── card     LossyTx      or as many empty rounds
//! ```
//!
//! Each half has its own dice. Same seed, same calls: same fates. A super-frame shares one fate.

mod rx;
mod tx;

use super::Port;
use std::str::FromStr;

/// A bad wire around `port`.
pub(super) fn around(port: Port, impairments: &Impairments) -> Port {
    tracing::warn!(?impairments, "the port is impaired on purpose");
    let rx_dice = Dice::new(impairments, impairments.rx, Direction::Rx);
    let tx_dice = Dice::new(impairments, impairments.tx, Direction::Tx);
    Port { rx: Box::new(rx::LossyRx::new(port.rx, rx_dice)), tx: Box::new(tx::LossyTx::new(port.tx, tx_dice)) }
}

/// What goes wrong, as probabilities per frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Impairments {
    pub loss: f64,
    pub dup: f64,
    /// A frame is late by 1 to `depth` others.
    pub reorder: f64,
    pub depth: u32,
    /// A frame is late by `delay_by` others.
    pub delay: f64,
    pub delay_by: u32,
    /// A frame that the card sends, and whose sender is ECN-capable, gets CE (RFC 3168).
    pub ce: f64,
    pub seed: u64,
    /// Directions, as the card sees them.
    pub rx: bool,
    pub tx: bool,
}

impl Default for Impairments {
    fn default() -> Self {
        Self { loss: 0.0, dup: 0.0, reorder: 0.0, depth: 4, delay: 0.0, delay_by: 32, ce: 0.0, seed: 1, rx: true, tx: true }
    }
}

/// Most frames by which another may be late: a held frame occupies a slot of the port's receive ring.
const LATE_MAX: u32 = 256;

impl FromStr for Impairments {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut out = Self::default();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not name=value"))?;
            let bad = |expected: &str| format!("`{part}`: expected {expected}");
            let probability = || value.parse().ok().filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| bad("a probability from 0 to 1"));
            let frames = || value.parse().ok().filter(|n| (1..=LATE_MAX).contains(n)).ok_or_else(|| bad("frames, 1 to 256"));
            match name {
                "loss" => out.loss = probability()?,
                "dup" => out.dup = probability()?,
                "reorder" => out.reorder = probability()?,
                "depth" => out.depth = frames()?,
                "delay" => out.delay = probability()?,
                "delay_by" => out.delay_by = frames()?,
                "ce" => out.ce = probability()?,
                "seed" => out.seed = value.parse().map_err(|_| bad("a number"))?,
                "dir" => {
                    (out.rx, out.tx) = match value {
                        "rx" => (true, false),
                        "tx" => (false, true),
                        "both" => (true, true),
                        _ => return Err(bad("rx, tx or both")),
                    }
                }
                _ => {
                    return Err(format!(
                        "unknown impairment `{name}`; there are: loss, dup, reorder, depth, delay, delay_by, ce, seed, dir"
                    ));
                }
            }
        }
        Ok(out)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    Lose,
    Twice,
    Late(u32),
    Marked,
}

/// As the card sees it. The number is that of the stream of random numbers.
#[derive(Clone, Copy, Debug)]
enum Direction {
    Rx = 1,
    Tx = 2,
}

/// One direction's dice.
struct Dice {
    direction: Direction,
    /// State of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
    state: u64,
    impairments: Option<Impairments>,
    /// Frames that passed, were lost, doubled, late, marked.
    fates: [u64; 5],
}

impl Dice {
    fn new(impairments: &Impairments, on: bool, direction: Direction) -> Self {
        let state = impairments.seed ^ (direction as u64).rotate_left(32);
        Self { direction, state, impairments: on.then(|| impairments.clone()), fates: [0; 5] }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Always the same number of throws, so that one probability does not shift the others' luck.
    fn fate(&mut self) -> Fate {
        let Some(i) = self.impairments.clone() else { return Fate::Pass };
        let [loss, dup, reorder, delay] = std::array::from_fn(|_| self.fraction());
        let late = 1 + (self.next() % u64::from(i.depth)) as u32;
        let ce = if i.ce > 0.0 { self.fraction() } else { 1.0 };
        match () {
            () if loss < i.loss => Fate::Lose,
            () if dup < i.dup => Fate::Twice,
            () if reorder < i.reorder => Fate::Late(late),
            () if delay < i.delay => Fate::Late(i.delay_by),
            () if ce < i.ce => Fate::Marked,
            () => Fate::Pass,
        }
    }

    /// A frame has met its fate.
    fn count(&mut self, fate: Fate) {
        let index = match fate {
            Fate::Pass => 0,
            Fate::Lose => 1,
            Fate::Twice => 2,
            Fate::Late(_) => 3,
            Fate::Marked => 4,
        };
        self.fates[index] += 1;
    }
}

impl Drop for Dice {
    fn drop(&mut self) {
        let [passed, lost, doubled, late, marked] = self.fates;
        tracing::info!(direction = ?self.direction, passed, lost, doubled, late, marked, "fates of the impaired port's frames");
    }
}

/// Things that are late: each with the tick at which it goes on.
struct Late<T> {
    tick: u64,
    waiting: Vec<(u64, T)>,
}

impl<T> Late<T> {
    const fn new() -> Self {
        Self { tick: 0, waiting: Vec::new() }
    }

    fn hold(&mut self, frames: u32, item: T) {
        self.waiting.push((self.tick + u64::from(frames), item));
    }

    /// One frame has passed, or one round in which none came.
    fn tick(&mut self) {
        self.tick += 1;
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn due(&mut self) -> Option<T> {
        let at = self.waiting.iter().position(|(due, _)| *due <= self.tick)?;
        Some(self.waiting.remove(at).1)
    }
}

#[cfg(test)]
mod tests;
