//! All stages of one card, and the steps that a composition is made of. Each step does one piece of work and says what came
//! of it; which step comes when is the composition's business.
//!
//! ```text
//!   receive ─ judge ─┐                                  ┌─► post ─► port
//!   host ────────────┼─► protocol ─► order ─► release ──┼─► events ─► context queues
//!   control ─────────┤   (dma: payload writes)          └─► completions, exceptions ─► control region
//!   timer, send ─────┘
//! ```

use crate::{
    CardConfig, Counters,
    control::{Control, Put},
    ctxq::Contexts,
    dma::{Bytes, Dma},
    msg::{ExceptionMsg, RxRef, Source, Work},
    post::Post,
    pre::{self, Verdict},
    protocol::Protocol,
    sched::Sched,
    store::FlowStore,
    tables::Tables,
};
use alloc::vec::Vec;
use toe_abi::{
    FlowId,
    counters::{Counter, Drop, Exception},
};
use toe_hal::{EthPort, HostMemory, Instant, Kick, RxBurst, TxFrame, TxOffload};
use toe_sync::share::Shares;
use toe_wire::Arp;

/// Longest frame that the card builds without payload: an ARP answer with a tag.
const ARP_FRAME: usize = 64;
/// IPv4 total length.
const PACKET_MAX: u32 = 65_535;
/// IPv4 and TCP headers with all options.
const HEADERS_MAX: u32 = 100;

pub struct Stages<P, M, K> {
    pub port: P,
    pub memory: M,
    pub kick: K,
    pub counters: Counters,
    pub flows: FlowStore,
    pub tables: Tables,
    pub contexts: Contexts,
    pub control: Control,
    pub protocol: Protocol,
    pub sched: Sched,
    pub dma: Dma,
    pub post: Post,
    pub now: Instant,
    /// Segments leave when they come out of the order, not when the composition says so.
    pub direct: bool,
    /// Flows to be reset because payload of theirs was lost.
    poisoned: Vec<FlowId>,
    /// Number of the next message to come out of the order.
    next_released: u32,
}

struct Sources<'a, P, S> {
    port: &'a P,
    control: &'a Control,
    slice: core::marker::PhantomData<S>,
}

impl<P: EthPort<S>, S> Bytes for Sources<'_, P, S> {
    fn bytes(&self, source: Source) -> &[u8] {
        match source {
            Source::Port(lease) => self.port.frame(lease),
            other => self.control.bytes(other),
        }
    }
}

macro_rules! sources {
    ($s:expr) => {
        &$crate::stages::Sources::<P, M::Slice> { port: &$s.port, control: &$s.control, slice: core::marker::PhantomData }
    };
}

macro_rules! control_env {
    ($s:expr) => {
        &mut $crate::control::Env {
            memory: &mut $s.memory,
            contexts: &mut $s.contexts,
            flows: &$s.flows,
            tables: &mut $s.tables,
            counters: &mut $s.counters,
            now: $s.now,
        }
    };
}

macro_rules! egress {
    ($s:expr) => {
        &mut $crate::post::Egress {
            port: &mut $s.port,
            memory: &$s.memory,
            flows: &$s.flows,
            tables: &$s.tables,
            counters: &mut $s.counters,
        }
    };
}

mod board;
mod order;
mod turns;

impl<P, M, K> Stages<P, M, K>
where
    M: HostMemory,
    P: EthPort<M::Slice>,
    K: Kick,
{
    pub fn new(config: &CardConfig, port: P, memory: M, kick: K) -> Self {
        let caps = port.caps();
        let max_flows = config.max_flows.clamp(1, 1 << 24);
        // A super-frame needs its checksum finished by whoever cuts it, and is one IP packet until then.
        let tso_max = if caps.tx_csum { caps.tso_max.min(PACKET_MAX - HEADERS_MAX) } else { 0 };
        let spin_us = config.spin_us;
        Self {
            port,
            memory,
            kick,
            counters: Counters::default(),
            flows: FlowStore::new(max_flows, config.hash_key),
            tables: Tables::new(config.max_regions, config.max_next_hops, config.max_addresses),
            contexts: Contexts::new(config.max_contexts, max_flows, spin_us, config.visit_descriptors),
            control: Control::new(max_flows),
            protocol: Protocol::new(tso_max),
            sched: Sched::new(max_flows as usize, config.quantum_bytes, Shares::new(config.max_regions)),
            dma: Dma::new(config.dma_entries.max(16)),
            post: Post::new(caps, config.egress_entries),
            now: Instant(0),
            direct: true,
            poisoned: Vec::with_capacity(config.dma_entries.max(16).into()),
            next_released: 0,
        }
    }

    /// Takes frames from the port.
    pub fn receive(&mut self, burst: &mut RxBurst) -> usize {
        let n = self.port.receive(burst);
        self.counters.add(Counter::RxFrames, n as u64);
        self.counters.add(Counter::RxBytes, burst.iter().map(|f| u64::from(f.len)).sum());
        n
    }

    /// Judges a frame; what is no known flow's is dealt with here. Needs room for two entries in the order.
    pub fn judge(&mut self, rx: RxRef) -> Option<Work> {
        let mac = self.post.caps().mac;
        let bytes = match rx.source {
            Source::Port(lease) => self.port.frame(lease),
            other => self.control.bytes(other),
        };
        let bytes = bytes.get(..rx.len as usize).unwrap_or(bytes);
        match pre::classify(bytes, rx, mac, &self.flows, &self.tables) {
            Verdict::Flow(msg) => return Some(Work::Rx(msg)),
            Verdict::Drop(reason) => {
                self.counters.drop(reason);
                self.give_back(rx.source);
            }
            Verdict::Exception(reason, rx) => self.exception(ExceptionMsg { frame: rx, reason, owned: true }),
            Verdict::Answer { reply, vlan } => self.answer_arp(&reply, vlan, rx),
        }
        None
    }

    fn answer_arp(&mut self, reply: &Arp, vlan: Option<u16>, rx: RxRef) {
        let mut bytes = [0; ARP_FRAME];
        let sent = reply.write(&reply.target_mac, vlan, &mut bytes).is_ok_and(|len| {
            let frame = TxFrame { header: &bytes[..len], payload: &[], payload_len: 0, offload: TxOffload::default() };
            self.post.raw(&frame, &mut self.port, &mut self.counters).is_ok()
        });
        if sent {
            self.counters.count(Counter::RxAnswered);
        } else {
            self.counters.drop(Drop::NoBuffer);
        }
        // The control plane learns from requests too, if it is there and has room.
        let copy = ExceptionMsg { frame: rx, reason: Exception::Arp, owned: false };
        self.exception(copy);
    }

    pub(super) fn exception(&mut self, msg: ExceptionMsg) {
        let reason = match self.control.exception(&msg, control_env!(self)) {
            Ok(Put::Frame(posting, frame)) => return self.submit(posting, Some(frame)),
            Ok(Put::Skip(posting)) => {
                self.submit(posting, None);
                match self.control.exception(&msg, control_env!(self)) {
                    Ok(Put::Frame(posting, frame)) => return self.submit(posting, Some(frame)),
                    Ok(_) => Drop::ExceptionRingFull,
                    Err(reason) => reason,
                }
            }
            Ok(Put::Full) => Drop::ExceptionRingFull,
            Err(reason) => reason,
        };
        if msg.owned {
            self.counters.drop(reason);
        }
        self.give_back(msg.frame.source);
    }

    pub fn give_back(&mut self, source: Source) {
        match source {
            Source::Port(lease) => self.port.release(lease),
            Source::Injected => self.control.packet_done(control_env!(self)),
            Source::Completion | Source::Inline => {}
        }
    }
}
