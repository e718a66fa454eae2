//! A whole host of ours, card, daemon and library, that is small: it is made often, and what is small is used up soon.

use toe_abi::flow::v4_mapped;
use toe_datapath::{Card, CardConfig};
use toe_engine::{Config, Engine, Prefix};
use toe_hal::PortCaps;
use toe_hal::fake::{FakeMemory, FakePort};
use toe_tests::sim::host::ToeHost;
use toed::core::CoreConfig;

use super::peers::{OUR_IP, OUR_IP6, OUR_MAC};

/// Deadlines in one step of an input at most: time passes for hours, and inputs are many.
pub const WAKEUPS: usize = 16;

/// With room for as many applications, each with as many contexts.
pub fn small(applications: u16) -> ToeHost {
    let address = Prefix::new(v4_mapped(OUR_IP), 24).expect("24 bits");
    let mut config = Config::new(OUR_MAC, vec![address, Prefix::new(OUR_IP6, 64).expect("64 bits")]);
    (config.secret, config.ecn, config.dad_transmits) = ([7; 16], true, 0);
    // Else most of what happens while time passes is that silent neighbours are asked whether they are there.
    config.arp_expire_us = 1000 * 1_000_000;
    let engine = Engine::new(config, 0).expect("a valid configuration");
    let mut core = CoreConfig::new(Some(address));
    (core.buffers.tx, core.buffers.rx) = (13, 13);
    let limits = &mut core.limits;
    (limits.payload_len, limits.contexts, limits.sockets) = (1 << 17, u32::from(applications), 8);
    (limits.listeners, limits.accept_entries, limits.hc_entries, limits.ev_entries) = (1, 4, 4, 4);
    (core.card_contexts, core.card_regions) = (1 + applications * applications, 1 + applications);
    let card = CardConfig {
        max_flows: 8,
        max_contexts: core.card_contexts,
        max_regions: core.card_regions,
        max_next_hops: 4,
        max_addresses: 4,
        spin_us: 0,
        tcp_records: 24,
        pool_messages: 64,
        posting_entries: 64,
        ..CardConfig::default()
    };
    let caps = PortCaps { mac: OUR_MAC, mtu: 1500, tx_csum: false, tso_max: 0 };
    ToeHost::new(core, engine, FakeMemory::new(1), FakePort::new(caps, 1), |parts| Box::new(Card::new(card, parts)))
}
