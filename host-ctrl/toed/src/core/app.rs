//! One application: a family of processes with one region, and what it holds.

use super::{ClientId, alloc::Buddies, host::Memory, outbox::Buffers, slots::BufferPlaces};
use crate::admin::Share;
use std::collections::{BTreeSet, VecDeque};
use toe_abi::{CtxId, FlowId, RegionId, flow::FlowKey, region::RegionHeader};
use toe_engine::{BindId, ConnId, ListenerId, Owner};

/// How far an application is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// MAP_REGION is on its way.
    Starting,
    Running,
    /// All its processes are gone; connections closed in order may still send until then.
    Ending {
        until_us: u64,
    },
    /// UNMAP_REGION is on its way.
    Unmapping,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::Starting => "starting",
            Stage::Running => "running",
            Stage::Ending { .. } | Stage::Unmapping => "ending",
        }
    }
}

/// A context of an application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Context {
    pub id: CtxId,
    pub client: ClientId,
    pub notices: u32,
    pub stage: ContextStage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ContextStage {
    Opening,
    Open,
    Closing,
}

/// A socket slot and its token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Slot {
    /// A token is out there.
    pub open: bool,
    pub bind: Option<BindId>,
    pub role: Role,
    /// Most that its connection may send, or those that come of it; 0: unlimited.
    pub rate_kbps: u64,
    /// Congestion control that was asked for, `toe_abi::flow::cc`.
    pub cc: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Role {
    /// Nothing that toed knows of: unused, or holding a connection that was accepted.
    #[default]
    Idle,
    Connecting {
        conn: ConnId,
        /// Context that wants to know.
        ctx: u32,
    },
    Connected {
        flow: FlowId,
    },
    Listening {
        listener: ListenerId,
    },
}

/// A listening socket.
pub(super) struct Listener {
    pub region: u16,
    pub slot: u32,
    /// Accept ring of the region.
    pub ring: u32,
    pub backlog: u32,
    /// Records put in, mod 2^32.
    pub tail: u32,
    /// Connections not accepted yet, oldest first: records `tail - waiting.len() .. tail`.
    pub waiting: VecDeque<FlowId>,
    /// Contexts that want notices.
    pub subscribers: BTreeSet<u32>,
}

/// A connection on the card, from the answer to INSTALL until card and application have both let go of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub owner: Owner,
    pub region: u16,
    pub key: FlowKey,
    pub buffers: Buffers,
    pub holder: Holder,
    /// SO_MAX_PACING_RATE; 0: unlimited.
    pub cap_kbps: u64,
    /// FLOW_CLOSED has come: the card does not touch the buffers any more.
    pub closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    /// Installed; the engine has not said yet whose it is.
    Nobody,
    /// In an accept ring.
    Ring,
    /// Taken out of an accept ring at this time: some slot should claim it.
    Taken { since_us: u64 },
    /// A slot that called connect().
    Slot(u32),
    /// The application has let go; CLOSE or ABORT was sent.
    Released,
}

pub(super) struct App<M> {
    pub region: RegionId,
    pub owner: Owner,
    /// Where it begins in the descriptor of its memory.
    pub offset: u64,
    pub geometry: RegionHeader,
    pub memory: M,
    pub payload: Buddies,
    pub stage: Stage,
    pub clients: BTreeSet<ClientId>,
    pub contexts: Vec<Option<Context>>,
    pub slots: Vec<Slot>,
    /// Slots without a token. Taken from the end: the lowest first at the start.
    pub free_slots: Vec<u32>,
    /// Accept rings in use.
    pub rings: Vec<bool>,
    /// Tokens out there.
    pub tokens: u32,
    /// Connections that count against the limit: connecting, being installed, installed.
    pub connections: u32,
    pub listeners: u32,
    /// Control messages whose answers concern the region.
    pub in_flight: u32,
    /// What it gets of the card, as far as the card has taken it.
    pub share: Option<Share>,
    /// When to look for connections that no slot claims (a process died between taking one and saying so).
    pub sweep_at_us: Option<u64>,
}

impl<M: Memory> App<M> {
    pub fn new(owner: Owner, geometry: RegionHeader, memory: M, offset: u64, share: Share) -> Self {
        Self {
            region: RegionId(geometry.region as u16),
            owner,
            offset,
            memory,
            payload: Buddies::new(geometry.payload_len),
            stage: Stage::Starting,
            clients: BTreeSet::new(),
            contexts: vec![None; geometry.n_contexts as usize],
            slots: vec![Slot::default(); geometry.n_sockets as usize],
            free_slots: (0..geometry.n_sockets).rev().collect(),
            rings: vec![false; geometry.n_listeners as usize],
            tokens: 0,
            connections: 0,
            listeners: 0,
            in_flight: 0,
            share: Some(share),
            sweep_at_us: None,
            geometry,
        }
    }

    /// The slot, if it has a token. `slot` is a claim.
    pub fn slot(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize).filter(|s| s.open)
    }

    /// The context, if it is open. `index` is a claim.
    pub fn open_context(&mut self, index: u32) -> Option<&mut Context> {
        self.contexts.get_mut(index as usize)?.as_mut().filter(|c| c.stage == ContextStage::Open)
    }

    /// Takes buffers for a connection.
    pub fn take_buffers(&mut self, tx_log2: u8, rx_log2: u8) -> Option<Buffers> {
        let tx = self.payload.alloc(tx_log2)?;
        let Some(rx) = self.payload.alloc(rx_log2) else {
            self.payload.free(tx);
            return None;
        };
        Some(Buffers { tx, rx, tx_log2, rx_log2 })
    }

    pub fn return_buffers(&mut self, b: &Buffers) {
        self.payload.free(b.tx);
        self.payload.free(b.rx);
    }

    pub fn places(&self, b: &Buffers) -> BufferPlaces {
        BufferPlaces {
            tx_off: self.geometry.payload_off + b.tx,
            rx_off: self.geometry.payload_off + b.rx,
            tx_len: 1 << b.tx_log2,
            rx_len: 1 << b.rx_log2,
        }
    }

    /// Offset of a slot in the region.
    pub fn slot_at(&self, slot: u32) -> u64 {
        self.geometry.socket(slot)
    }

    /// Nothing but connections that close in order keeps it alive.
    pub fn is_abandoned(&self) -> bool {
        self.clients.is_empty() && self.tokens == 0
    }
}
