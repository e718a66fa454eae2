//! What each ordering rule of the pipeline prevents: with the rule left out, the simulation finds it; with all of them kept, it never does.

mod common;

use common::{
    echo::{Broken, Echo, Echoes},
    *,
};
use toe_datapath::{Interleaving, Placement};
use toe_hal::{
    Board, Order,
    fake::{Chance, FakeClock, FakeKick, FakeMemory, FakePort, MemoryKnobs, PortKnobs},
};

/// Seeds of each experiment.
const SEEDS: u64 = 200;
/// Bytes that each flow carries each way.
const TOTAL: u32 = 6000;

/// A board that keeps some of the rules.
struct Rules<const RX: bool, const TX: bool, const WRITES: bool>;

impl<const RX: bool, const TX: bool, const WRITES: bool> Board for Rules<RX, TX, WRITES> {
    type Memory = FakeMemory;
    type Rx = FakePort;
    type Tx = FakePort;
    type Kick = FakeKick;
    type Clock = FakeClock;
    const ORDER: Order = Order { rx: RX, tx: TX, writes: WRITES };
}

type All = Rules<true, true, true>;
type WithoutRx = Rules<false, true, true>;
type WithoutTx = Rules<true, false, true>;
type WithoutWrites = Rules<true, true, false>;

/// Two flows over a perfect wire, slow memory, at least two of each stage that order has to do with. Ends when it was seen. `None`: the traffic
/// comes to a stand, as it may where a rule is left out (the last event that an application gets may be an old one, say).
fn traffic<B: Fakes>(seed: u64, is_seen: impl Fn(&Broken) -> bool) -> Option<bool> {
    let groups = 1 + (seed % 2) as u16;
    let interleaving = Interleaving { placement: Placement::spread(2, groups, 2, 2), ..Interleaving::from_seed(seed) };
    let mut chance = Chance::new(seed);
    let mut b = actors_over::<B>(&interleaving);
    let flows = [0, 1].map(|n| Echo::new(&mut b, n, 1, n + 1));
    let max_delay = 1 + chance.below(30) as u32;
    b.memory.set_knobs(MemoryKnobs { max_delay, full_percent: chance.below(30) as u8, ..Default::default() });
    b.port.set_knobs(PortKnobs { tx_room: 1 + chance.below(8) as usize, ..Default::default() });
    let mut echoes = Echoes::new(flows.into(), TOTAL);
    for _ in 0..200_000 {
        if echoes.done() || is_seen(&echoes.broken) {
            return Some(is_seen(&echoes.broken));
        }
        echoes.turn(&mut b, &mut chance);
    }
    println!("seed {seed}: never done: {} of {}", echoes.progress(), 2 * TOTAL);
    None
}

/// Whether enough seeds find it.
fn is_found<B: Fakes>(what: &str, is: impl Fn(&Broken) -> bool) -> bool {
    let mut found = 0;
    let seeds = for_seeds(SEEDS, |seed| found += u64::from(traffic::<B>(seed, &is) == Some(true)));
    println!("{what}: found by {found} of {seeds} seeds");
    found > seeds / 10
}

#[test]
fn without_the_order_of_received_frames_protocol_sees_them_out_of_order() {
    assert!(is_found::<WithoutRx>("segments out of order", |broken| broken.rx));
}

#[test]
fn without_the_order_of_segments_they_leave_out_of_order() {
    assert!(is_found::<WithoutTx>("segments or ACKs that go back", |broken| broken.tx));
}

#[test]
fn without_waiting_for_writes_somebody_is_told_of_bytes_that_are_not_there() {
    assert!(is_found::<WithoutWrites>("bytes that are not in memory", |broken| broken.writes));
}

#[test]
fn with_all_rules_nothing_of_that_is_ever_seen() {
    for_seeds(2 * SEEDS, |seed| assert_eq!(traffic::<All>(seed, |broken| *broken != Broken::default()), Some(false)));
}
