//! The card alone in virtual time: its daemon is stopped, for minutes or hours, over wires that lose frames.
//!
//! Bytes, acknowledgements, retransmission, keep-alive, neighbours and FINs are the card's; nobody waits for toed, however much there would be
//! to tell it. A failure names its seed.

use rustix::io::Errno;
use toe::Error;
use toe_abi::flow::{as_v4, v4_mapped};
use toe_datapath::{Card, CardConfig, DeterministicCard, Interleaving};
use toe_engine::{Config, Engine, Prefix};
use toe_hal::fake::{Chance, FakeFrame, FakeMemory, FakePort};
use toe_hal::{PortCaps, RxOffload};
use toe_link::slot::Addr;
use toe_tests::sim::apps::{Carrier, Early};
use toe_tests::sim::host::ToeHost;
use toe_tests::sim::stream::Duplex;
use toe_tests::sim::wire::Wire;
use toe_tests::sim::world::{self, End, Outcome, Scripted, ToeEnd};
use toe_wire::Mac;
use toed::core::{CoreConfig, Report};

const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60 * SECOND_US;
const SEEDS: u64 = 30;

/// Half of the seeds go over IPv6.
fn ip(seed: u64, last: u8) -> [u8; 16] {
    let v6 = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    if seed.is_multiple_of(2) { v4_mapped([10, 0, 0, last]) } else { v6 }
}

fn mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0, last]
}

fn host(seed: u64, last: u8) -> ToeHost {
    let address = Prefix::new(ip(seed, last), 24).expect("24 bits");
    let mut config = Config { secret: [seed as u8 ^ last; 16], ..Config::new(mac(last), vec![address]) };
    config.dad_transmits = 0;
    let engine = Engine::new(config, 0).expect("a valid configuration");
    let mut core = CoreConfig::new(Some(address));
    (core.buffers.tx, core.buffers.rx, core.limits.payload_len) = (16, 16, 1 << 22);
    (core.limits.contexts, core.limits.sockets, core.limits.listeners, core.limits.accept_entries) = (2, 64, 4, 16);
    (core.limits.hc_entries, core.limits.ev_entries, core.card_contexts, core.card_regions) = (16, 16, 8, 4);
    let caps = PortCaps { mac: mac(last), mtu: 1500, tx_csum: false, tso_max: 0 };
    let card = CardConfig { max_flows: 64, max_contexts: 8, max_regions: 4, max_next_hops: 8, spin_us: 0, ..CardConfig::default() };
    ToeHost::new(core, engine, FakeMemory::new(seed), FakePort::new(caps, seed), |parts| match seed % 3 {
        0 => Box::new(Card::new(card, parts)),
        _ => Box::new(DeterministicCard::new(card, &Interleaving::from_seed(seed), parts)),
    })
}

/// A host whose toed is stopped as soon as its connection carries something.
struct Alone {
    end: ToeEnd<Carrier>,
    /// When toed goes on; 0: it is not stopped.
    until_us: u64,
    stopped: bool,
    flood: Option<Flood>,
    now_us: u64,
    /// When the application had all, and the host no connection any more.
    over_us: Option<u64>,
}

impl Alone {
    fn new(host: ToeHost, app: Carrier, until_us: u64) -> Self {
        Self { end: ToeEnd { host, app }, until_us, stopped: false, flood: None, now_us: 0, over_us: None }
    }
}

impl End for Alone {
    fn arrive(&mut self, frame: FakeFrame) {
        self.end.arrive(frame);
    }

    fn run(&mut self, now_us: u64) {
        self.now_us = now_us;
        if now_us >= self.until_us {
            self.end.host.continue_toed(now_us);
        } else if !self.stopped && self.end.app.progress().1 > 0 {
            self.stopped = true;
            self.end.host.stop_toed();
        }
        if let Some(flood) = self.flood.as_mut().filter(|_| self.stopped) {
            flood.pour(&mut self.end.host, now_us.min(self.until_us));
        }
        self.end.run(now_us);
        if self.over_us.is_none() && self.end.app.done() && self.end.host.connections() == 0 {
            self.over_us = Some(now_us);
        }
    }

    fn take_sent(&mut self) -> Option<FakeFrame> {
        self.end.take_sent()
    }

    fn next_us(&mut self, now_us: u64) -> Option<u64> {
        let flood = self.flood.as_ref().map(|flood| flood.next_us).filter(|_| self.stopped && now_us < self.until_us);
        let until = Some(self.until_us).filter(|at| *at > now_us);
        [self.end.next_us(now_us), flood, until].into_iter().flatten().min()
    }

    fn done(&self) -> bool {
        self.over_us.is_some() && self.now_us >= self.until_us
    }

    fn describe(&mut self) -> String {
        format!("{}, {} connections", self.end.describe(), self.end.host.connections())
    }
}

/// Frames of strangers, all of them for toed: SYNs, ARP requests and solicitations for the card's address, nonsense.
struct Flood {
    chance: Chance,
    target: [u8; 16],
    next_us: u64,
}

impl Flood {
    const EVERY_US: u64 = 100_000;
    const BURST: usize = 20;

    fn new(seed: u64, target: [u8; 16]) -> Self {
        Self { chance: Chance::new(seed ^ 0x666c_6f6f), target, next_us: 0 }
    }

    fn pour(&mut self, host: &mut ToeHost, now_us: u64) {
        if now_us < self.next_us {
            return;
        }
        self.next_us = now_us + Self::EVERY_US;
        for _ in 0..Self::BURST {
            host.arrive(FakeFrame { bytes: self.frame(), offload: RxOffload { csum_ok: true, ..RxOffload::default() } });
        }
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut bytes = mac(1).to_vec();
        bytes.extend([2, 0, 0, 0, 9, 9]);
        let mut word = || self.chance.below(1 << 16) as u16;
        let (a, b, c) = (word(), word(), word());
        match (as_v4(&self.target), c % 3) {
            (Some(ours), 0) => {
                bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 9, 9, 10, 0, 0, b as u8, 0, 0, 0, 0, 0, 0]);
                bytes.extend(ours);
            }
            (Some(ours), 1) => {
                bytes.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, b as u8]);
                bytes.extend(ours);
                let sum = checksum(&bytes[14..34]);
                bytes[24..26].copy_from_slice(&sum.to_be_bytes());
                bytes.extend(a.to_be_bytes());
                // SYN to the listener.
                bytes.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 255, 255, 0, 0, 0, 0]);
            }
            _ => {
                let kind: u16 = if a.is_multiple_of(2) { 0x86dd } else { 0x88cc };
                bytes.extend(kind.to_be_bytes());
                bytes.extend((0..b % 1400).map(|i| (i ^ c) as u8));
            }
        }
        bytes.resize(bytes.len().max(60), 0);
        bytes
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Two hosts of ours: the first listens and has its toed stopped, the second connects.
fn ends(seed: u64, until_us: u64, listener: impl Fn(Carrier) -> Carrier, connector: impl Fn(Carrier) -> Carrier) -> (Alone, Alone) {
    let volume = 200_000;
    let a = Carrier::listener(80, Duplex::new(false, volume, volume, seed));
    let b = Carrier::connector(Addr::v6(ip(seed, 1), 80), Duplex::new(true, volume, volume, seed ^ 1));
    (Alone::new(host(seed, 1), listener(a), until_us), Alone::new(host(seed, 2), connector(b), 0))
}

fn lossy(seed: u64) -> Wire {
    Wire::lossy(2 + (seed % 4) as u8, seed)
}

fn play(seed: u64, a: &mut Alone, b: &mut Alone) {
    println!("seed {seed}");
    let limit_us = a.until_us + 30 * MINUTE_US;
    assert_eq!(world::run(a, b, &mut lossy(seed), limit_us), Outcome::Delivered);
    assert!(a.stopped, "toed was not stopped");
}

/// A counter of card or toed.
fn count(end: &mut Alone, name: &str) -> u64 {
    let Report::Stats(stats) = end.end.host.report(|core| core.report_stats()) else { panic!("no counters") };
    *stats.get(name).unwrap_or_else(|| panic!("no counter is called {name}"))
}

/// The peer has all bytes and has forgotten the connection long before toed of the first host goes on: FINs went both ways, and the last one was
/// acknowledged as often as it came.
#[test]
fn a_connection_is_carried_and_ended_by_the_card_alone() {
    for seed in 0..SEEDS {
        let (mut a, mut b) = ends(seed, 10 * MINUTE_US, |a| a, |b| b);
        play(seed, &mut a, &mut b);
        let over = b.over_us.expect("over");
        assert!(over < 5 * MINUTE_US, "seed {seed}: the peer's connection ended after {} s", over / SECOND_US);
        assert_eq!(count(&mut b, "engine_fin_wait2_timeouts"), 0, "seed {seed}: its last FIN was never acknowledged");
    }
}

/// As above, by a reset: the peer hears of it, also if the first one is lost.
#[test]
fn a_connection_is_reset_by_the_card_alone() {
    for seed in 0..SEEDS {
        let early = if seed % 4 < 2 { Early::Abort } else { Early::Close };
        let (mut a, mut b) = ends(seed, 10 * MINUTE_US, |a| a.ends(early), |b| b.ends(Early::Peer));
        play(seed, &mut a, &mut b);
        let error = &b.end.app.error;
        assert!(matches!(error, Some(Error::Os(Errno::CONNRESET))), "seed {seed}, {early:?}: {error:?}");
        let over = b.over_us.expect("over");
        assert!(over < 5 * MINUTE_US, "seed {seed}, {early:?}: the peer's connection ended after {} s", over / SECOND_US);
    }
}

#[test]
fn silence_of_minutes_ends_when_somebody_speaks() {
    for seed in 0..SEEDS {
        let quiet = |c: Carrier| c.silent_after(50_000, 5 * MINUTE_US);
        let (mut a, mut b) = ends(seed, 10 * MINUTE_US, quiet, quiet);
        play(seed, &mut a, &mut b);
        let over = b.over_us.expect("over");
        assert!((5 * MINUTE_US..9 * MINUTE_US).contains(&over), "seed {seed}: {} s", over / SECOND_US);
    }
}

#[test]
fn silence_of_hours_is_kept_alive_by_the_card() {
    for seed in 0..SEEDS {
        let until = 5 * 60 * MINUTE_US;
        let (mut a, mut b) =
            ends(seed, until, |a| a.silent_after(50_000, until - MINUTE_US).keeps_alive(), |b| b.silent_after(50_000, until));
        play(seed, &mut a, &mut b);
        let probes = count(&mut a, "tx_probes");
        assert!(probes >= 2, "seed {seed}: {probes} probes in five hours");
    }
}

/// What toed does not take is dropped and counted; whoever has a connection notices nothing.
#[test]
fn strangers_cannot_stop_a_connection_by_what_toed_does_not_read() {
    for seed in 0..SEEDS / 3 {
        let (mut a, mut b) =
            ends(seed, 10 * MINUTE_US, |a| a.silent_after(100_000, 4 * MINUTE_US), |b| b.silent_after(100_000, 5 * MINUTE_US));
        a.flood = Some(Flood::new(seed, ip(seed, 1)));
        play(seed, &mut a, &mut b);
        let over = b.over_us.expect("over");
        assert!(over < 9 * MINUTE_US, "seed {seed}: the peer's connection ended after {} s", over / SECOND_US);
        let full = count(&mut a, "drop_exception_ring_full");
        assert!(full > 1000, "seed {seed}: toed's ring was not full: {full}");
    }
}
