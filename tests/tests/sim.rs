//! Every byte arrives, whatever the wire does: engine, data path and library in virtual time against smoltcp and against themselves.
//!
//! A failure names its seed; `TOE_SIM_SEED=n` runs that one alone. `TOE_SIM_SEEDS=n` sets how many each case runs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use toe_abi::flow::v4_mapped;
use toe_datapath::{Card, CardConfig, DeterministicCard, Interleaving};
use toe_engine::{Config, Engine, Prefix};
use toe_hal::PortCaps;
use toe_hal::fake::{Chance, FakeMemory, FakePort, MemoryKnobs};
use toe_link::slot::Addr;
use toe_netem::Knobs;
use toe_tests::sim::apps::Carrier;
use toe_tests::sim::host::ToeHost;
use toe_tests::sim::smol::SmolHost;
use toe_tests::sim::stream::Duplex;
use toe_tests::sim::wire::Wire;
use toe_tests::sim::world::{self, Outcome, SmolEnd, ToeEnd};
use toed::core::CoreConfig;

/// Addresses of both ends: half of the seeds go over IPv6, with each way to put a card together.
fn ips(seed: u64) -> ([u8; 16], [u8; 16]) {
    let ip = |last| {
        if (seed / 3).is_multiple_of(2) { v4_mapped([10, 0, 0, last]) } else { [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last] }
    };
    (ip(1), ip(2))
}

const A_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Longest run, virtual time.
const LIMIT_US: u64 = 3_600_000_000;

/// Runs `case` for each seed, on all cores, and says which seed failed.
fn for_seeds(default: u64, case: impl Fn(u64) -> Outcome + Sync) {
    let number = |name| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a number"));
    if let Some(seed) = number("TOE_SIM_SEED") {
        assert_eq!(case(seed), Outcome::Delivered);
        return;
    }
    let seeds = number("TOE_SIM_SEEDS").unwrap_or(default);
    let next = AtomicU64::new(0);
    let refused = AtomicU64::new(0);
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| case(seed))) {
                Ok(Outcome::Delivered) => {}
                Ok(Outcome::Refused) => _ = refused.fetch_add(1, Ordering::Relaxed),
                Err(panic) => {
                    eprintln!("failed with TOE_SIM_SEED={seed}");
                    resume_unwind(panic);
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get());
    std::thread::scope(|s| (0..workers).for_each(|_| drop(s.spawn(worker))));
    // An error in time is an answer; but on these wires it must stay rare. One of few seeds is no sign that it is not.
    let refused = refused.into_inner();
    assert!(refused * 50 <= seeds.max(50), "{refused} of {seeds} connections were not opened");
}

struct Setup {
    ip: [u8; 16],
    mac: [u8; 6],
    tso_max: u32,
    buffer_log2: u8,
    /// The wire is: nothing is to be lost here either.
    perfect: bool,
    seed: u64,
}

fn toe_host(s: &Setup) -> ToeHost {
    let address = Prefix::new(s.ip, 24).expect("24 bits");
    let mut config = Config::new(s.mac, vec![address]);
    config.secret = [s.seed as u8; 16];
    config.dad_transmits = 0;
    let engine = Engine::new(config, 0).expect("a valid configuration");
    let mut core = CoreConfig::new(Some(address));
    core.buffers.tx = s.buffer_log2;
    core.buffers.rx = s.buffer_log2;
    core.limits.payload_len = 1 << 22;
    core.limits.contexts = 2;
    core.limits.sockets = 64;
    core.limits.listeners = 4;
    core.limits.accept_entries = 16;
    core.limits.hc_entries = 16;
    core.limits.ev_entries = 16;
    core.card_contexts = 8;
    core.card_regions = 4;
    let caps = PortCaps { mac: s.mac, mtu: 1500, tx_csum: s.tso_max > 0, tso_max: s.tso_max };
    let port = FakePort::new(caps, s.seed);
    let card = CardConfig { max_flows: 64, max_contexts: 8, max_regions: 4, max_next_hops: 8, spin_us: 0, ..CardConfig::default() };
    ToeHost::new(core, engine, memory(s.seed), port, |parts| match s.seed % 3 {
        0 => Box::new(Card::new(card, parts)),
        _ => Box::new(DeterministicCard::new(card, &interleaving(s), parts)),
    })
}

fn interleaving(s: &Setup) -> Interleaving {
    let chosen = Interleaving::from_seed(s.seed);
    // Over a perfect wire a burst as long as the window is no overload.
    if s.perfect { Interleaving { rx_hold: 256, ..chosen } } else { chosen }
}

/// Host memory: every other seed, one whose transfers complete late, in any order, and find the engine full.
fn memory(seed: u64) -> FakeMemory {
    let memory = FakeMemory::new(seed);
    if seed.is_multiple_of(2) {
        memory.set_knobs(MemoryKnobs { min_delay: 0, max_delay: (seed % 7) as u32, full_percent: (seed % 30) as u8, fault_percent: 0 });
    }
    memory
}

/// How much each side sends, from the seed: often little, sometimes nothing.
fn volumes(seed: u64) -> (u64, u64) {
    let mut chance = Chance::new(seed ^ 0x766f6c);
    let mut volume = || {
        let most = [1, 1000, 50_000, 400_000][chance.below(4) as usize];
        chance.below(most)
    };
    (volume(), volume())
}

fn setup(ip: [u8; 16], mac: [u8; 6], tso_max: u32, wire: &Wire, seed: u64) -> Setup {
    let buffer_log2 = [12, 14, 16, 18][Chance::new(seed ^ 0x627566).below(4) as usize];
    Setup { ip, mac, tso_max, buffer_log2, perfect: wire.is_perfect(), seed }
}

fn ours_listens_smoltcp_connects(seed: u64, mut wire: Wire) -> Outcome {
    let ((ab, ba), (a_ip, b_ip)) = (volumes(seed), ips(seed));
    let app = Carrier::listener(80, Duplex::new(false, ab, ba, seed));
    let mut a = ToeEnd { host: toe_host(&setup(a_ip, A_MAC, 0, &wire, seed)), app };
    let mut host = SmolHost::new(B_MAC, b_ip, 24, seed);
    let socket = host.socket(1 << 16);
    host.connect(socket, a_ip, 80, 40_000 + (seed % 1000) as u16);
    let mut b = SmolEnd::new(host, socket, Duplex::new(true, ba, ab, seed ^ 1));
    world::run(&mut a, &mut b, &mut wire, LIMIT_US)
}

fn ours_connects_to_smoltcp(seed: u64, mut wire: Wire) -> Outcome {
    let ((ab, ba), (a_ip, b_ip)) = (volumes(seed), ips(seed));
    let app = Carrier::connector(Addr::v6(b_ip, 80), Duplex::new(true, ab, ba, seed));
    let mut a = ToeEnd { host: toe_host(&setup(a_ip, A_MAC, 0, &wire, seed)), app };
    let mut host = SmolHost::new(B_MAC, b_ip, 24, seed);
    let socket = host.socket(1 << 16);
    host.listen(socket, 80);
    let mut b = SmolEnd::new(host, socket, Duplex::new(false, ba, ab, seed ^ 1));
    world::run(&mut a, &mut b, &mut wire, LIMIT_US)
}

fn ours_to_ours(seed: u64, mut wire: Wire) -> Outcome {
    let ((ab, ba), (a_ip, b_ip)) = (volumes(seed), ips(seed));
    let tso_max = if seed.is_multiple_of(2) { 0 } else { 65_000 };
    let app = Carrier::connector(Addr::v6(b_ip, 80), Duplex::new(true, ab, ba, seed));
    let mut a = ToeEnd { host: toe_host(&setup(a_ip, A_MAC, tso_max, &wire, seed)), app };
    let app = Carrier::listener(80, Duplex::new(false, ba, ab, seed ^ 1));
    let mut b = ToeEnd { host: toe_host(&setup(b_ip, B_MAC, tso_max, &wire, seed ^ 0x5555)), app };
    world::run(&mut a, &mut b, &mut wire, LIMIT_US)
}

#[test]
fn smoltcp_connects_over_a_perfect_wire() {
    for_seeds(50, |seed| ours_listens_smoltcp_connects(seed, Wire::perfect(Some(1))));
}

#[test]
fn connecting_to_smoltcp_over_a_perfect_wire() {
    for_seeds(50, |seed| ours_connects_to_smoltcp(seed, Wire::perfect(None)));
}

#[test]
fn two_of_ours_over_a_perfect_wire() {
    for_seeds(50, |seed| ours_to_ours(seed, Wire::perfect(Some(0))));
}

#[test]
fn smoltcp_connects_over_a_faulty_wire() {
    for_seeds(1000, |seed| ours_listens_smoltcp_connects(seed, Wire::faulty(seed)));
}

#[test]
fn connecting_to_smoltcp_over_a_faulty_wire() {
    for_seeds(1000, |seed| ours_connects_to_smoltcp(seed, Wire::faulty(seed)));
}

#[test]
fn two_of_ours_over_a_faulty_wire() {
    for_seeds(1000, |seed| ours_to_ours(seed, Wire::faulty(seed)));
}

/// The receiver does not read for a while: the window closes, is probed, and opens again.
#[test]
fn a_closed_window_opens_again() {
    for_seeds(200, |seed| {
        let mut wire = Wire::lossy((seed % 10) as u8, seed);
        let volume = 200_000;
        let (a_ip, b_ip) = ips(seed);
        let app = Carrier::connector(Addr::v6(b_ip, 80), Duplex::new(true, volume, 0, seed));
        let mut a = ToeEnd { host: toe_host(&setup(a_ip, A_MAC, 0, &wire, seed)), app };
        let app = Carrier::listener(80, Duplex::new(false, 0, volume, seed ^ 1)).reads_after(1_000_000 * (1 + seed % 30));
        let mut b = ToeEnd { host: toe_host(&setup(b_ip, B_MAC, 0, &wire, seed ^ 0x5555)), app };
        world::run(&mut a, &mut b, &mut wire, LIMIT_US)
    });
}

/// 1 GiB each way at once, with 1 % loss, duplication and reordering.
#[test]
fn a_gibibyte_each_way_over_a_lossy_wire() {
    let volume = 1 << 30;
    let (a_ip, b_ip) = ips(3);
    let knobs: Knobs = "delay=20us,loss=1%,dup=1%,jitter=5us".parse().expect("knobs");
    let setup = |ip, mac, seed| Setup { ip, mac, tso_max: 65_000, buffer_log2: 18, perfect: false, seed };
    let app = Carrier::connector(Addr::v6(b_ip, 80), Duplex::new(true, volume, volume, 3));
    let mut a = ToeEnd { host: toe_host(&setup(a_ip, A_MAC, 3)), app };
    let app = Carrier::listener(80, Duplex::new(false, volume, volume, 9));
    let mut b = ToeEnd { host: toe_host(&setup(b_ip, B_MAC, 9)), app };
    let outcome = world::run(&mut a, &mut b, &mut Wire::new(knobs, 3), 24 * LIMIT_US);
    assert_eq!(outcome, Outcome::Delivered);
}
