//! Flows that always have more to send, in virtual time.

use toe_datapath::sched::Sched;
use toe_hal::Instant;
use toe_sync::share::Shares;

/// Bytes of each segment, and of a turn.
const SEGMENT: u32 = 1448;
/// What the wire carries.
const WIRE_KBPS: u64 = 100_000_000;
const APPS: u16 = 64;

/// What the flows have to keep to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing: all take turns.
    Plain,
    /// A pace each, from slow to 128 times that, nine tenths of the wire together.
    Paced,
    /// 64 applications of weights from 10 to 1000; every other one has a limit that it reaches.
    Apps,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Plain, Kind::Paced, Kind::Apps];

    pub const fn name(self) -> &'static str {
        match self {
            Kind::Plain => "by turns",
            Kind::Paced => "paced, mixed rates",
            Kind::Apps => "64 applications, weights and limits",
        }
    }
}

pub struct Load {
    sched: Sched,
    flows: u32,
    /// Bits that the wire has carried, or could have.
    bits: u64,
}

impl Load {
    pub fn new(kind: Kind, flows: u32) -> Self {
        let apps = if kind == Kind::Apps { APPS } else { 1 };
        let mut load = Self { sched: Sched::new(flows as usize, SEGMENT, shares(apps)), flows, bits: 0 };
        let rates = if kind == Kind::Paced { rates(flows) } else { vec![0] };
        for i in 0..flows {
            load.sched.assign(i, (i % u32::from(apps)) as u16);
            // Neighbours in memory are not neighbours in time.
            load.sched.set_rate(i, rates[mix(i) as usize % rates.len()], Instant(0));
            load.sched.ready(i, false);
        }
        // Until paced flows have spread over time.
        load.run(3 * u64::from(flows));
        load
    }

    pub fn flows(&self) -> u32 {
        self.flows
    }

    fn now(&self) -> Instant {
        Instant(self.bits * 1000 / WIRE_KBPS)
    }

    /// So many segments. When none may go, time passes until one may.
    pub fn run(&mut self, segments: u64) {
        let mut left = segments;
        while left > 0 {
            let now = self.now();
            if let Some(i) = self.sched.next(now) {
                self.sched.sent(i, SEGMENT, false, now);
                self.bits += u64::from(SEGMENT) * 8;
                left -= 1;
            } else {
                let due = self.sched.next_due().unwrap_or(now).max(now.add_micros(1));
                self.bits = due.micros() * WIRE_KBPS / 1000;
            }
        }
    }
}

/// Eight rates, each twice the one before; `flows` of them fill nine tenths of the wire.
fn rates(flows: u32) -> Vec<u32> {
    let mean = WIRE_KBPS * 9 / 10 / u64::from(flows);
    let sum: u64 = (0..8).map(|n| 1 << n).sum();
    (0..8).map(|n| (((mean * 8) << n) / sum).max(1) as u32).collect()
}

fn shares(apps: u16) -> Shares {
    const WEIGHTS: [u32; 8] = [10, 25, 50, 100, 100, 200, 500, 1000];
    let shares = Shares::new(apps);
    for app in (0..apps).filter(|_| apps > 1) {
        let limit = if app % 2 == 1 { WIRE_KBPS / (4 * u64::from(apps)) } else { 0 };
        shares.set(app, WEIGHTS[usize::from(app) % WEIGHTS.len()], limit);
    }
    shares
}

/// A number that looks random (the last step of MurmurHash3).
fn mix(n: u32) -> u32 {
    let n = (n ^ (n >> 16)).wrapping_mul(0x85eb_ca6b);
    let n = (n ^ (n >> 13)).wrapping_mul(0xc2b2_ae35);
    n ^ (n >> 16)
}
