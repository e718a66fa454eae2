//! A bad wire around any port, for tests: loses, duplicates, reorders and delays frames, seeded.
//!
//! ```text
//!   inner port ──► fate ──► ready ──► card          late frames wait until `n` others have passed,
//!   inner port ◄── fate ◄──────────── card          or as many empty rounds
//! ```
//!
//! Same seed, same calls: same fates. A super-frame shares one fate.

use super::{PortError, PortStats, SoftPort};
use crate::memory::SoftSlice;
use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::str::FromStr;
use toe_hal::port::BURST;
use toe_hal::{EthPort, Lease, PortCaps, RxBurst, RxFrame, TxBusy, TxFrame, TxOffload};

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
    pub seed: u64,
    /// Directions, as the card sees them.
    pub rx: bool,
    pub tx: bool,
}

impl Default for Impairments {
    fn default() -> Self {
        Self { loss: 0.0, dup: 0.0, reorder: 0.0, depth: 4, delay: 0.0, delay_by: 32, seed: 1, rx: true, tx: true }
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
                "seed" => out.seed = value.parse().map_err(|_| bad("a number"))?,
                "dir" => {
                    (out.rx, out.tx) = match value {
                        "rx" => (true, false),
                        "tx" => (false, true),
                        "both" => (true, true),
                        _ => return Err(bad("rx, tx or both")),
                    }
                }
                _ => return Err(format!("unknown impairment `{name}`; there are: loss, dup, reorder, depth, delay, delay_by, seed, dir")),
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
}

/// One direction's dice.
struct Dice {
    /// State of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
    state: u64,
    impairments: Option<Impairments>,
}

impl Dice {
    fn new(impairments: &Impairments, on: bool, stream: u64) -> Self {
        Self { state: impairments.seed ^ stream.rotate_left(32), impairments: on.then(|| impairments.clone()) }
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
        match () {
            () if loss < i.loss => Fate::Lose,
            () if dup < i.dup => Fate::Twice,
            () if reorder < i.reorder => Fate::Late(late),
            () if delay < i.delay => Fate::Late(i.delay_by),
            () => Fate::Pass,
        }
    }
}

/// A frame on its way out that waits: the card's memory may be reused meanwhile, so it is a copy.
struct Copied {
    bytes: Vec<u8>,
    header_len: usize,
    offload: TxOffload,
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

    fn due(&mut self) -> Option<T> {
        let at = self.waiting.iter().position(|(due, _)| *due <= self.tick)?;
        Some(self.waiting.remove(at).1)
    }
}

pub struct Lossy {
    inner: Box<dyn SoftPort>,
    rx_dice: Dice,
    tx_dice: Dice,
    rx_late: Late<RxFrame>,
    tx_late: Late<Copied>,
    /// Inner frames to be delivered.
    ready: VecDeque<RxFrame>,
    /// Our leases: a frame that comes twice has two, for one of the inner port.
    leases: Vec<Option<Lease>>,
    free: Vec<u32>,
    holders: HashMap<u32, u32>,
    /// Copies handed to the inner port: they stay until its flush.
    sending: Vec<Vec<u8>>,
    lost: usize,
    fates: [u64; 4],
}

impl Lossy {
    pub fn new(inner: Box<dyn SoftPort>, impairments: &Impairments) -> Self {
        tracing::warn!(?impairments, "the port is impaired on purpose");
        Self {
            inner,
            rx_dice: Dice::new(impairments, impairments.rx, 1),
            tx_dice: Dice::new(impairments, impairments.tx, 2),
            rx_late: Late::new(),
            tx_late: Late::new(),
            ready: VecDeque::new(),
            leases: Vec::new(),
            free: Vec::new(),
            holders: HashMap::new(),
            sending: Vec::new(),
            lost: 0,
            fates: [0; 4],
        }
    }

    fn count(&mut self, fate: Fate) {
        let index = match fate {
            Fate::Pass => 0,
            Fate::Lose => 1,
            Fate::Twice => 2,
            Fate::Late(_) => 3,
        };
        self.fates[index] += 1;
    }

    /// Takes what the inner port has, and gives each frame its fate.
    fn pull(&mut self) {
        let mut burst = RxBurst::new();
        if self.inner.receive(&mut burst) == 0 {
            self.rx_late.tick();
            self.tx_late.tick();
            self.send_late();
            self.lost += self.inner.flush();
            self.sending.clear();
        }
        for frame in burst {
            let fate = self.rx_dice.fate();
            self.count(fate);
            self.rx_late.tick();
            match fate {
                Fate::Pass => self.ready.push_back(frame),
                Fate::Lose => self.inner.release(frame.lease),
                Fate::Twice => {
                    *self.holders.entry(frame.lease.0).or_insert(1) += 1;
                    self.ready.extend([frame, frame]);
                }
                Fate::Late(frames) => self.rx_late.hold(frames, frame),
            }
            self.ready.extend(std::iter::from_fn(|| self.rx_late.due()));
        }
        self.ready.extend(std::iter::from_fn(|| self.rx_late.due()));
    }

    fn send_late(&mut self) {
        while let Some(Copied { bytes, header_len, offload }) = self.tx_late.due() {
            let (header, payload) = bytes.split_at(header_len);
            let slices = [SoftSlice::of(payload)];
            let payload_len = payload.len() as u32;
            let payload = if payload.is_empty() { &slices[..0] } else { &slices[..] };
            // Busy: then it is lost, as on any bad wire.
            if self.inner.transmit(&TxFrame { header, payload, payload_len, offload }).is_ok() {
                self.sending.push(bytes);
            }
        }
    }
}

impl EthPort<SoftSlice> for Lossy {
    fn caps(&self) -> PortCaps {
        self.inner.caps()
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        if self.ready.len() < BURST {
            self.pull();
        }
        let before = burst.len();
        while burst.len() < BURST {
            let Some(frame) = self.ready.pop_front() else { break };
            let id = self.free.pop().unwrap_or_else(|| {
                self.leases.push(None);
                self.leases.len() as u32 - 1
            });
            self.leases[id as usize] = Some(frame.lease);
            let _ = burst.push(RxFrame { lease: Lease(id), ..frame });
        }
        burst.len() - before
    }

    fn frame(&self, lease: Lease) -> &[u8] {
        let inner = self.leases.get(lease.0 as usize).copied().flatten();
        inner.map_or(&[], |inner| self.inner.frame(inner))
    }

    fn release(&mut self, lease: Lease) {
        let Some(inner) = self.leases.get_mut(lease.0 as usize).and_then(Option::take) else { return };
        self.free.push(lease.0);
        if let Some(holders) = self.holders.get_mut(&inner.0) {
            *holders -= 1;
            if *holders > 0 {
                return;
            }
            self.holders.remove(&inner.0);
        }
        self.inner.release(inner);
    }

    fn transmit(&mut self, frame: &TxFrame<'_, SoftSlice>) -> Result<(), TxBusy> {
        let fate = self.tx_dice.fate();
        match fate {
            Fate::Lose => {}
            Fate::Pass => self.inner.transmit(frame)?,
            Fate::Twice => {
                self.inner.transmit(frame)?;
                // Busy for the copy: one is enough.
                let _ = self.inner.transmit(frame);
            }
            Fate::Late(frames) => {
                let mut bytes = frame.header.to_vec();
                frame.payload.iter().for_each(|slice| slice.copy_to(&mut bytes));
                self.tx_late.hold(frames, Copied { bytes, header_len: frame.header.len(), offload: frame.offload });
            }
        }
        self.count(fate);
        self.tx_late.tick();
        self.send_late();
        Ok(())
    }

    fn flush(&mut self) -> usize {
        let lost = self.inner.flush() + std::mem::take(&mut self.lost);
        self.sending.clear();
        lost
    }
}

impl SoftPort for Lossy {
    fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }

    fn check(&mut self) -> Result<(), PortError> {
        self.inner.check()
    }

    fn stats(&mut self) -> PortStats {
        self.inner.stats()
    }

    fn holding(&self) -> bool {
        !self.ready.is_empty() || !self.rx_late.waiting.is_empty() || !self.tx_late.waiting.is_empty() || self.inner.holding()
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        let [passed, lost, doubled, late] = self.fates;
        tracing::info!(passed, lost, doubled, late, "fates of the impaired port's frames");
    }
}

#[cfg(test)]
mod tests;
