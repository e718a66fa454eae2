//! What operators see.

use crate::{
    Counters, Endpoint, Engine, ListenerId, Owner, Prefix,
    conn::{Origin, Phase},
    route::Route,
};
use toe_abi::{FlowId, flow::FlowKey};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenerView {
    pub id: ListenerId,
    pub owner: Owner,
    /// Zeroes: any address.
    pub at: Endpoint,
    /// `toe_abi::app::bind_flags`.
    pub flags: u16,
    pub backlog: u32,
    /// Being installed, or waiting to be accepted.
    pub waiting: u32,
    pub half_open: usize,
    /// SYNs and final ACKs dropped because as many connections waited as may.
    pub overflows: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnView {
    pub owner: Owner,
    pub key: FlowKey,
    /// "resolving", "syn-sent", "syn-received", "installing" or "established".
    pub phase: &'static str,
    pub listener: Option<ListenerId>,
    /// Once established.
    pub flow: Option<FlowId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighbourView {
    /// In the card's next-hop table.
    pub index: u16,
    pub ip: [u8; 16],
    pub mac: Option<[u8; 6]>,
    /// "incomplete", "reachable", "stale" or "probing".
    pub state: &'static str,
    /// Connections that use it.
    pub refs: u32,
    /// The router that has its frames instead, as it is silent or has resigned.
    pub stand_in: Option<[u8; 16]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressView {
    pub prefix: Prefix,
    /// "tentative", "preferred", "deprecated" or "duplicate".
    pub state: &'static str,
}

impl Engine {
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn addresses(&self) -> impl Iterator<Item = AddressView> {
        self.addresses.iter().map(|own| AddressView { prefix: own.prefix, state: own.state.name() })
    }

    pub fn routes(&self) -> impl Iterator<Item = Route> {
        self.routes.routes()
    }

    pub fn time_wait_count(&self) -> usize {
        self.time_wait.len()
    }

    /// Connections in every phase but TIME-WAIT.
    pub fn connection_count(&self) -> usize {
        self.conns.len()
    }

    /// Local ports that are bound or have connections, TIME-WAIT included.
    pub fn ports_in_use(&self) -> usize {
        self.ports.in_use()
    }

    pub fn listeners(&self) -> impl Iterator<Item = ListenerView> {
        self.ports.listeners().map(|(id, l)| {
            let (at, flags) = self.bound(l.bind).unwrap_or((Endpoint::ANY, 0));
            let (waiting, half_open, overflows) = (l.waiting, l.half_open.len(), l.overflows);
            ListenerView { id, owner: l.owner, at, flags, backlog: l.backlog, waiting, half_open, overflows }
        })
    }

    pub fn connections(&self) -> impl Iterator<Item = ConnView> {
        self.conns.iter().map(|(_, c)| ConnView {
            owner: c.owner,
            key: c.key,
            phase: c.phase.name(),
            listener: match c.origin {
                Origin::Active => None,
                Origin::Passive(listener) => Some(listener),
            },
            flow: match &c.phase {
                Phase::Established(e) => Some(e.flow),
                _ => None,
            },
        })
    }

    pub fn neighbours(&self) -> impl Iterator<Item = NeighbourView> {
        self.neighbours.iter().map(|(index, n)| {
            let stand_in = n.stand_in.and_then(|i| self.neighbours.get(i)).map(|other| other.ip);
            NeighbourView { index, ip: n.ip, mac: n.mac, state: n.state.name(), refs: n.refs, stand_in }
        })
    }
}
