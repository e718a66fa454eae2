//! Connections, from the first SYN until the card says that the flow has closed.
//!
//! ```text
//!   active:  Resolving ──MAC──► SynSent ──SYN-ACK──────────────► Installing ──installed──► Established ──► gone
//!                                  │                                 ▲                        (TIME-WAIT: closing.rs)
//!                                  └─SYN──► SynReceived ──final ACK──┤
//!   passive:                       SYN ──►  SynReceived ──final ACK──┘
//! ```

use crate::{
    BufferLog2, ConnId, FinWait2, FrameMeta, ListenerId, OpenOptions, Owner,
    isn::Keys,
    limit::{Answered, Bucket},
};
use std::collections::{HashMap, VecDeque};
use toe_abi::{FlowId, flow::FlowKey};
use toe_wire::SeqNum;

/// Who began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
// RFC 9293 MUST-11.
pub enum Origin {
    Active,
    Passive(ListenerId),
}

/// What the two SYNs have said, or will.
#[derive(Clone, Debug)]
pub struct Handshake {
    pub buffers: BufferLog2,
    /// Congestion control, `toe_abi::flow::cc`.
    pub cc: u8,
    pub open: OpenOptions,
    pub iss: SeqNum,
    /// Valid from SynReceived on.
    pub irs: SeqNum,
    /// What both sides offered (in SynSent: what we offer).
    pub options: Options,
    /// Peer's window: unscaled in a SYN, else scaled.
    pub peer_window: u32,
    /// Peer's last timestamp.
    pub ts_recent: u32,
    pub ts_offset: u32,
    /// Timeouts: SYNs or SYN-ACKs sent because of them.
    pub retries: u8,
    /// SYNs and SYN-ACKs sent, for whatever reason.
    pub copies: u32,
    /// Round-trip time of the handshake, microseconds; 0: not known.
    pub rtt_us: u32,
    pub timeout_us: u64,
    /// When the last one was sent.
    pub sent_us: u64,
    /// TCP_USER_TIMEOUT of an active open: when it is over.
    pub patience_until: Option<u64>,
    /// The final ACK came without data, and [`OpenOptions::defer_accept_us`] is not over: when it will be.
    pub deferred_until: Option<u64>,
    /// Where the peer's last frame came from.
    pub peer_mac: [u8; 6],
    /// Age among the half-open connections of a listener.
    pub serial: u64,
    pub answered: Answered,
}

/// Options in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Largest payload the peer takes, TCP options not subtracted (RFC 6691).
    pub peer_mss: u16,
    /// Shift of the peer's windows; None: no scaling either way.
    pub peer_wscale: Option<u8>,
    pub timestamps: bool,
    pub sack: bool,
    pub ecn: bool,
}

/// What waits for the answer to an Install.
#[derive(Debug)]
pub struct Installing {
    pub iss: SeqNum,
    /// Most payload of a segment that it will send.
    pub mss: u16,
    pub peer_mac: [u8; 6],
    /// Frames of the tuple that came meanwhile, in order, the final ACK of a passive open first.
    pub held: VecDeque<(Vec<u8>, FrameMeta)>,
    pub held_bytes: usize,
    /// Nobody wants it any more: abort the flow as soon as it exists.
    pub doomed: bool,
}

#[derive(Debug)]
pub struct Established {
    pub flow: FlowId,
    pub since_us: u64,
    /// Frames injected since then that the card had passed on.
    pub late_frames: u8,
    /// Most payload of a segment that it sends, as far as we know.
    pub mss: u16,
    /// No descriptor any more: how it stood, when it was asked.
    pub orphan: Option<Orphan>,
    /// ICMP errors that are passed on to it.
    pub errors: Bucket,
}

impl Established {
    /// From `now` on.
    pub fn new(flow: FlowId, mss: u16, now: u64) -> Self {
        Self { flow, since_us: now, late_frames: 0, mss, orphan: None, errors: Bucket::new(ERRORS_PER_SECOND, now) }
    }
}

/// Of one connection: routers say of a path once what there is to say, and again of what is retransmitted.
const ERRORS_PER_SECOND: u32 = 10;

/// An orphan's progress.
#[derive(Clone, Copy, Debug)]
pub struct Orphan {
    /// Since when nothing has changed.
    pub since_us: u64,
    /// `toe_abi::flow::tcp_state`.
    pub state: u8,
    pub snd_una: u32,
    pub limit: FinWait2,
}

#[derive(Debug)]
pub enum Phase {
    Resolving(Handshake),
    SynSent(Handshake),
    SynReceived(Handshake),
    Installing(Installing),
    Established(Established),
}

impl Phase {
    pub const fn name(&self) -> &'static str {
        match self {
            Phase::Resolving(_) => "resolving",
            Phase::SynSent(_) => "syn-sent",
            Phase::SynReceived(_) => "syn-received",
            Phase::Installing(_) => "installing",
            Phase::Established(_) => "established",
        }
    }

    pub fn handshake(&mut self) -> Option<&mut Handshake> {
        match self {
            Phase::Resolving(h) | Phase::SynSent(h) | Phase::SynReceived(h) => Some(h),
            Phase::Installing(_) | Phase::Established(_) => None,
        }
    }
}

#[derive(Debug)]
pub struct Conn {
    pub key: FlowKey,
    pub owner: Owner,
    pub origin: Origin,
    pub phase: Phase,
    /// Next hop, referenced.
    pub hop: Option<u16>,
    /// The timer that is armed.
    pub deadline: Option<u64>,
}

struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

/// All of them, by id, tuple and flow.
pub struct Conns {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashMap<FlowKey, ConnId, Keys>,
    by_flow: HashMap<FlowId, ConnId>,
    max: usize,
}

impl Conns {
    pub fn new(keys: Keys, max: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_key: HashMap::with_hasher(keys), by_flow: HashMap::new(), max }
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    /// None: full, or the tuple is there already.
    pub fn insert(&mut self, conn: Conn) -> Option<ConnId> {
        if self.is_full() || self.by_key.contains_key(&conn.key) {
            return None;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, conn: None });
            (self.slots.len() - 1) as u32
        });
        let slot = self.slots.get_mut(index as usize)?;
        let id = ConnId { index, generation: slot.generation };
        self.by_key.insert(conn.key, id);
        slot.conn = Some(conn);
        Some(id)
    }

    pub fn get(&self, id: ConnId) -> Option<&Conn> {
        let slot = self.slots.get(id.index as usize)?;
        slot.conn.as_ref().filter(|_| slot.generation == id.generation)
    }

    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.conn.as_mut().filter(|_| slot.generation == id.generation)
    }

    pub fn by_key(&self, key: &FlowKey) -> Option<ConnId> {
        self.by_key.get(key).copied()
    }

    pub fn by_flow(&self, flow: FlowId) -> Option<ConnId> {
        self.by_flow.get(&flow).copied()
    }

    /// The connection is this flow from now on.
    pub fn established(&mut self, id: ConnId, state: Established) {
        if let Some(conn) = self.get_mut(id) {
            let flow = state.flow;
            conn.phase = Phase::Established(state);
            self.by_flow.insert(flow, id);
        }
    }

    pub fn remove(&mut self, id: ConnId) -> Option<Conn> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let conn = slot.conn.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        self.by_key.remove(&conn.key);
        if let Phase::Established(e) = &conn.phase
            && self.by_flow.get(&e.flow) == Some(&id)
        {
            self.by_flow.remove(&e.flow);
        }
        Some(conn)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.slots.iter().enumerate().filter_map(|(i, slot)| {
            let id = ConnId { index: i as u32, generation: slot.generation };
            Some((id, slot.conn.as_ref()?))
        })
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn> {
        self.slots.iter_mut().filter_map(|slot| slot.conn.as_mut())
    }
}
