//! Puts the card together and sets its cores going.

use super::board::VirtBoard;
use super::crew::Crew;
use super::devices::{Devices, HostLink, Signals};
use super::leader::{Kicks, Leader};
use super::log::boot;
use super::{mishap, run};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use toe_abi::observe::stage;
use toe_abi::{CtxId, regs};
use toe_arch::{Platform, time};
use toe_datapath::pipeline::StageId;
use toe_datapath::{Card, CardConfig, Pipeline, Placement};
use toe_hal::{Parts, PortCaps, TxPort};
use toe_virt::mend::Mender;
use toe_virt::window::{Facts, WindowMemory, WindowSlice};

/// Sizes of this card.
fn config(vectors: u16, secret: &Secret) -> CardConfig {
    CardConfig {
        max_flows: 4096,
        tcp_records: 4 * 4096,
        max_contexts: vectors.min(256),
        hash_key: secret.hash_key,
        ..CardConfig::default()
    }
}

/// Runs the card on all cores.
pub fn run(platform: &'static Platform, devices: Devices, secret: &Secret) -> ! {
    let Devices { port, mut port_signals, host } = devices;
    let HostLink { window, end, doorbell, mut kicks } = host;
    let config = config(kicks.msix.vectors(), secret);
    let placement = Placement::auto(cores_wanted(platform));
    boot!("placement: {}", placement);
    let core_of = |kind| placement.core_of(StageId::new(kind, 0)).unwrap_or(0);
    let (ingress, ctxq) = (core_of(stage::INGRESS), core_of(stage::CTXQ));
    let contexts = connect(platform, &mut kicks, 0..config.max_contexts, ctxq).map(|(event, lpi)| (lpi, CtxId(event))).collect();
    let _: Vec<_> = connect(platform, &mut port_signals, 0..port.control.pairs(), ingress).collect();
    let connect_link = |vector| connect(platform, &mut port_signals, vector..vector + 1, ctxq).map(|(_, lpi)| lpi).next();
    let link = port.control.config_vector().and_then(connect_link);
    let kicks = Kicks { contexts, link };
    let memory = WindowMemory::new(window, config.max_regions);
    let facts = facts(&config, TxPort::<WindowSlice>::caps(&port.tx));
    let parts = Parts::<VirtBoard> { memory: memory.clone(), rx: port.rx, tx: port.tx, kick: doorbell.clone(), clock: time::Counter };
    let alarm = port.control.alarm().clone();
    mishap::arrange(platform, &alarm, ctxq);
    let mut leader = Leader {
        end,
        memory,
        doorbell,
        kicks,
        port: port.control,
        mender: Mender::default(),
        reclaimer: None,
        gathered: Vec::new(),
        attached: false,
    };
    let spin_us = config.spin_us;
    if placement.cores().len() == 1 {
        // Nobody else has a part of this card.
        let (card, crew) = (Box::new(Card::new(config, parts)), Crew::new(Vec::new(), ctxq, alarm));
        leader.ready(&facts);
        sealed(platform, 1);
        run::run_fused(card, &crew, leader, spin_us)
    }
    let Pipeline { cores, reclaimer } = Pipeline::new(&config, &placement, parts);
    (leader.reclaimer, leader.gathered) = (Some(reclaimer), Vec::with_capacity(cores.len()));
    let crew = Arc::new(Crew::new(cores, ctxq, alarm));
    leader.ready(&facts);
    let mut leader = Some(leader);
    for index in 1..crew.len() {
        let (crew, leader) = (crew.clone(), leader.take_if(|_| index == ctxq));
        if let Err(error) = platform.start(index, move || run::run(index, &crew, leader, spin_us)) {
            panic!("core {index} does not start: {error}");
        }
    }
    sealed(platform, crew.len());
    run::run(0, &crew, leader, spin_us)
}

/// From now on nothing is allocated.
fn sealed(platform: &Platform, cores: usize) {
    toe_arch::seal();
    let (heap, of) = platform.heap_used();
    boot!("ready: {} cores, {} KiB of {} KiB of memory used", cores, heap >> 10, of >> 10);
}

/// Cores to be used: `cores=N` on the command line, else all that are left.
fn cores_wanted(platform: &Platform) -> usize {
    let words = platform.machine().command_line.split_whitespace();
    let wanted = words.filter_map(|word| word.strip_prefix("cores=")?.parse::<usize>().ok()).next();
    let left = mishap::cores_left(platform);
    wanted.map_or(left, |cores| cores.clamp(1, left))
}

/// Lets these interrupts of a device, as far as it has them, come to a core. Each with its number there.
fn connect(platform: &Platform, signals: &mut Signals, events: Range<u16>, core: usize) -> impl Iterator<Item = (u16, u32)> {
    let Signals { requester, msix } = signals;
    let of = u32::from(msix.vectors());
    let connected: Vec<_> = (events.start..events.end.min(msix.vectors()))
        .map(|event| {
            let (message, lpi) = match platform.map_message(*requester, of, event.into(), core) {
                Ok(mapped) => mapped,
                Err(error) => panic!("interrupt {event} of device {requester:#x}: {error}"),
            };
            if let Err(error) = msix.set(event, message.address, message.data) {
                panic!("interrupt {event} of device {requester:#x}: {error:?}");
            }
            (event, lpi)
        })
        .collect();
    connected.into_iter()
}

/// Numbers made for this start alone.
pub struct Secret {
    /// No attacker may know which flows share a bucket.
    hash_key: [u64; 2],
    /// Tells this start of the card from others.
    pub instance: u32,
}

impl Secret {
    /// From the seed that the machine was given; without one they can be guessed, which is said.
    pub fn new(platform: &Platform) -> Self {
        let [time, spread] = [time::now_ns(), time::now_ns().wrapping_mul(0x9e37_79b9_7f4a_7c15)];
        let Some(seed) = &platform.machine().seed else {
            boot!("no seed from whoever started this machine: the secret of the flow table's hash is only the time");
            return Self { hash_key: [time, spread], instance: spread as u32 };
        };
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(seed.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        // The time as well: a machine that is started anew may be given the same seed.
        Self { hash_key: [words[0] ^ time, words[1] ^ spread], instance: (words[2] ^ spread) as u32 }
    }
}

fn facts(config: &CardConfig, port: PortCaps) -> Facts {
    let tso = if port.tso_max > 0 { regs::caps::TSO } else { 0 };
    Facts {
        caps: regs::caps::TIMERS | regs::caps::IPV6 | tso,
        max_flows: config.max_flows(),
        max_contexts: config.max_contexts,
        max_regions: config.max_regions,
        max_next_hops: config.max_next_hops,
        mtu: port.mtu,
        mac: port.mac,
    }
}
