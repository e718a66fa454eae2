//! The ends: a host of ours, one of smoltcp's.

use toe_abi::flow::{cc, v4_mapped};
use toe_datapath::{Card, CardConfig};
use toe_engine::{Config, Engine, Prefix};
use toe_hal::PortCaps;
use toe_hal::fake::{FakeMemory, FakePort};
use toe_link::slot::Addr;
use toe_tests::sim::host::ToeHost;
use toe_tests::sim::smol::SmolHost;
use toe_tests::sim::world::ToeEnd;
use toed::core::CoreConfig;

use super::bulk::{self, Bulk, SmolBulk, Stream};
use super::rows::{Cc, Row};

const PORT: u16 = 80;
const PREFIX: u8 = 24;

/// Which of the two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Sender,
    Receiver,
}

impl Side {
    fn ip(self) -> [u8; 4] {
        [10, 0, 0, 1 + self as u8]
    }

    fn mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1 + self as u8]
    }
}

/// Plain segments: with super-frames a loss would be many.
fn caps(side: Side) -> PortCaps {
    PortCaps { mac: side.mac(), mtu: 1500, tx_csum: false, tso_max: 0 }
}

pub fn ours(side: Side, row: &Row, seed: u64) -> ToeEnd<Bulk> {
    let address = Prefix::new(v4_mapped(side.ip()), PREFIX).expect("a valid prefix");
    let mut config = Config::new(side.mac(), vec![address]);
    config.secret = [seed as u8; 16];
    (config.cc, config.ecn, config.cc_pacing) = match row.cc {
        Cc::Cubic => (cc::CUBIC, false, false),
        Cc::CubicEcn => (cc::CUBIC, true, false),
        Cc::CubicPaced => (cc::CUBIC, false, true),
        Cc::Dctcp => (cc::DCTCP, true, false),
    };
    let engine = Engine::new(config, 0).expect("a valid configuration");
    let mut core = CoreConfig::new(Some(address));
    (core.buffers.tx, core.buffers.rx) = (row.buffer_log2, row.buffer_log2);
    core.limits.payload_len = 1 << 25;
    let card = CardConfig { max_flows: 64, spin_us: 0, ..CardConfig::default() };
    (core.card_contexts, core.card_regions) = (card.max_contexts, card.max_regions);
    let port = FakePort::new(caps(side), seed);
    let host = ToeHost::new(core, engine, FakeMemory::new(seed), port, |parts| Box::new(Card::new(card, parts)));
    let app = match side {
        Side::Sender => Bulk::sender(Addr::v4(Side::Receiver.ip(), PORT)),
        Side::Receiver => Bulk::receiver(PORT),
    };
    ToeEnd { host, app }
}

pub fn smoltcp(side: Side, row: &Row, seed: u64) -> SmolBulk {
    let mut host = SmolHost::new(side.mac(), v4_mapped(side.ip()), PREFIX, seed);
    let socket = bulk::cubic(&mut host, 1 << row.buffer_log2);
    match side {
        Side::Sender => host.connect(socket, v4_mapped(Side::Receiver.ip()), PORT, 40_000),
        Side::Receiver => host.listen(socket, PORT),
    }
    SmolBulk { host, socket, sends: side == Side::Sender, stream: Stream::default() }
}
