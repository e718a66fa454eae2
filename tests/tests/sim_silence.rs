//! A second of silence in the middle of a transfer: retransmission timers expire although nothing is lost (RFC 5682). With SACK and without, what
//! was under way is not sent again, and the transfer goes on as if nothing had been.
//!
//! ```text
//!   ours ──data──►┃ held for a second ┃──► ours, or smoltcp
//!        ◄─ACKs───┃                   ┃
//! ```

use toe_abi::flow::v4_mapped;
use toe_datapath::{Card, CardConfig};
use toe_engine::{Config, Engine, Prefix};
use toe_hal::PortCaps;
use toe_hal::fake::{FakeMemory, FakePort};
use toe_link::slot::Addr;
use toe_tests::sim::apps::Carrier;
use toe_tests::sim::host::ToeHost;
use toe_tests::sim::smol::SmolHost;
use toe_tests::sim::stream::Duplex;
use toe_tests::sim::wire::{Volume, Wire};
use toe_tests::sim::world::{self, End, Outcome, SmolEnd, ToeEnd};
use toed::core::{CoreConfig, Report};

const IPS: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 0, 0, 2]];
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// 500000 bytes are under way when it is full, and its queue has room for all that a window lets through.
const LINE: &str = "rate=100mbit,delay=20ms,queue=2m";
const BUFFER_LOG2: u8 = 20;
const VOLUME: u64 = 3_000_000;
const SILENCE_US: u64 = 1_000_000;

fn toe_host(end: usize, sack: bool, timestamps: bool) -> ToeHost {
    let address = Prefix::new(v4_mapped(IPS[end]), 24).expect("not longer than an address");
    let config = Config { sack, timestamps, secret: [7; 16], ..Config::new(MACS[end], vec![address]) };
    let engine = Engine::new(config, 0).expect("a valid configuration");
    let mut core = CoreConfig::new(Some(address));
    (core.buffers.tx, core.buffers.rx, core.limits.payload_len) = (BUFFER_LOG2, BUFFER_LOG2, 1 << 24);
    let card = CardConfig { max_flows: 64, spin_us: 0, ..CardConfig::default() };
    (core.card_contexts, core.card_regions) = (card.max_contexts, card.max_regions);
    let caps = PortCaps { mac: MACS[end], mtu: 1500, tx_csum: false, tso_max: 0 };
    ToeHost::new(core, engine, FakeMemory::new(1), FakePort::new(caps, 1), |parts| Box::new(Card::new(card, parts)))
}

/// What came of a transfer of ours: what it has sent, timeouts and those that were taken back, and how long it took, microseconds.
struct Transfer {
    sent: Volume,
    timeouts: u64,
    spurious: u64,
    took_us: u64,
}

fn transfer(sack: bool, timestamps: bool, peer: &mut dyn End, mut wire: Wire) -> Transfer {
    let app = Carrier::connector(Addr::v4(IPS[1], 80), Duplex::new(true, VOLUME, 0, 3));
    let mut ours = ToeEnd { host: toe_host(0, sack, timestamps), app };
    let (outcome, took_us) = world::run_for(&mut ours, peer, &mut wire, 600_000_000);
    assert_eq!(outcome, Outcome::Delivered);
    let Report::Stats(stats) = ours.host.report(|core| core.report_stats()) else { panic!("no statistics") };
    let count = |name| stats.get(name).copied().unwrap_or(0);
    Transfer { sent: wire.sent[0], timeouts: count("tx_timeouts"), spurious: count("tx_spurious_timeouts"), took_us }
}

fn wire() -> Wire {
    Wire::new(LINE.parse().expect("valid words"), 3)
}

/// In slow start, while the peer's window has room for more: F-RTO asks by new data.
fn silent() -> Wire {
    wire().silent(200_000..200_000 + SILENCE_US)
}

fn is_as_if_nothing_had_been(quiet: &Transfer, silent: &Transfer, case: &str) {
    println!(
        "{case}: {} us, {} without the silence; {} timeouts, {} taken back; {} bytes again",
        silent.took_us, quiet.took_us, silent.timeouts, silent.spurious, silent.sent.again
    );
    assert_eq!((quiet.timeouts, quiet.sent.again), (0, 0), "{case}: the line loses nothing");
    assert!(silent.timeouts > 0 && silent.spurious == 1, "{case}");
    // The first segment with each timeout, and a probe.
    assert!(silent.sent.again <= (silent.timeouts + 1) * 1460, "{case}: {} bytes again", silent.sent.again);
    assert!(silent.took_us <= quiet.took_us + SILENCE_US * 6 / 5, "{case}: {} us", silent.took_us);
}

/// RFC 5682 2.1-1, 2.1-2, 3.1-2, 3.1-4.
#[test]
fn what_only_came_late_is_not_sent_again() {
    for (sack, timestamps) in [(true, true), (true, false), (false, true), (false, false)] {
        let to_ours = |wire| {
            let app = Carrier::listener(80, Duplex::new(false, 0, VOLUME, 9));
            let mut peer = ToeEnd { host: toe_host(1, sack, timestamps), app };
            transfer(sack, timestamps, &mut peer, wire)
        };
        let case = format!("to ours, SACK {sack}, timestamps {timestamps}");
        is_as_if_nothing_had_been(&to_ours(wire()), &to_ours(silent()), &case);
    }
}

/// RFC 5682 2.1-1, 2.1-2.
#[test]
fn nor_is_it_to_smoltcp() {
    for sack in [true, false] {
        let to_smoltcp = |wire| {
            let mut host = SmolHost::new(MACS[1], v4_mapped(IPS[1]), 24, 3);
            let socket = host.socket(1 << BUFFER_LOG2);
            host.listen(socket, 80);
            transfer(sack, false, &mut SmolEnd::new(host, socket, Duplex::new(false, 0, VOLUME, 9)), wire)
        };
        is_as_if_nothing_had_been(&to_smoltcp(wire()), &to_smoltcp(silent()), &format!("to smoltcp, SACK {sack}"));
    }
}
