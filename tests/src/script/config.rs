//! The host that a script runs against.

use super::ast::{Config, IpVersion};
use super::ip::OUR_MAC;
use crate::sim::host::ToeHost;
use toe_datapath::{Card, CardConfig, DeterministicCard, Interleaving};
use toe_engine::{Engine, Prefix};
use toe_hal::PortCaps;
use toe_hal::fake::{FakeMemory, FakePort, MemoryKnobs};
use toed::core::CoreConfig;

fn address(ip: IpVersion) -> Prefix {
    Prefix::new(ip.our_ip(), ip.prefix()).expect("not longer than an address")
}

/// How the card's stages are put together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stages {
    Fused,
    /// Pipelined and stepped by this seed, with memory whose transfers complete late and in any order.
    Pipelined(u64),
}

/// Engine, core and a card with the script's settings.
pub fn host(c: &Config, ip: IpVersion, stages: Stages) -> Result<ToeHost, String> {
    let engine = Engine::new(engine_config(c, ip), c.start.as_micros() as u64).map_err(|e| e.to_string())?;
    let mut core = CoreConfig::new(Some(address(ip)));
    core.buffers.tx = c.sndbuf_log2;
    core.buffers.rx = c.rcvbuf_log2;
    core.limits.payload_len = 1 << 24;
    core.limits.contexts = 2;
    core.limits.sockets = 128;
    core.limits.listeners = 4;
    core.limits.accept_entries = 64;
    core.limits.hc_entries = 64;
    core.limits.ev_entries = 64;
    core.card_contexts = 8;
    core.card_regions = 4;
    let caps = PortCaps { mac: OUR_MAC, mtu: c.mtu + ip.extra(), tx_csum: c.tso > 0, tso_max: c.tso };
    let card = CardConfig { max_flows: 64, max_contexts: 8, max_regions: 4, max_next_hops: 8, spin_us: 0, ..CardConfig::default() };
    let port = FakePort::new(caps, 1);
    Ok(match stages {
        Stages::Fused => ToeHost::new(core, engine, FakeMemory::new(1), port, |parts| Box::new(Card::new(card, parts))),
        Stages::Pipelined(seed) => {
            let memory = FakeMemory::new(seed);
            memory.set_knobs(MemoryKnobs { max_delay: 5, full_percent: 20, ..MemoryKnobs::default() });
            // A burst of a script is no overload.
            let interleaving = Interleaving { rx_hold: 256, ..Interleaving::from_seed(seed) };
            ToeHost::new(core, engine, memory, port, |parts| Box::new(DeterministicCard::new(card, &interleaving, parts)))
        }
    })
}

fn engine_config(c: &Config, ip: IpVersion) -> toe_engine::Config {
    toe_engine::Config {
        mtu: c.mtu + ip.extra(),
        // Nobody else has our address.
        dad_transmits: 0,
        cc: c.cc,
        sack: c.sack,
        timestamps: c.timestamps,
        window_scaling: c.window_scaling,
        ecn: c.ecn,
        syn_backlog_max: c.syn_backlog,
        syn_cookies: c.syn_cookies,
        handshake_retries: c.syn_retries,
        time_wait_us: c.time_wait.as_micros() as u64,
        arp_expire_us: c.arp_expire.as_micros() as u64,
        fin_wait2_us: c.fin_wait2.as_micros() as u64,
        secret: *b"scripted packets",
        ..toe_engine::Config::new(OUR_MAC, vec![address(ip)])
    }
}
