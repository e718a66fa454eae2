//! The daemon without its I/O: what applications hold, and how their connections live and die.
//!
//! ```text
//!   requests, token_closed, client_gone ─►┌──────┐─► Host: replies, tokens, contexts, regions
//!   completion, frame ───────────────────►│ Core │─► Host: control messages, packets, interrupts
//!   timer ───────────────────────────────►└──┬───┘─► Memory: slots, accept rings, notices
//!                                            ▼
//!                                        toe_engine
//! ```
//!
//! Time (microseconds) is passed in. Everything that an application can make grow has a limit: [`Limits`].

pub mod alloc;
mod app;
mod congestion;
mod flows;
mod host;
mod life;
mod observe;
mod outbox;
mod pace;
mod rates;
mod report;
mod requests;
mod share;
mod slots;
mod starting;
#[cfg(test)]
mod tests;

pub use host::{Attachment, ClientId, Created, Host, Incoming, Memory, Proof};
pub use report::{JobId, Report, mac_text};
pub use share::{ShareChange, Whose};

use crate::admin::Share;
use app::{App, Flow, Listener};
use observe::Recording;
use outbox::{Outbox, Pending};
use rates::Rates;
use report::Jobs;
use share::Tickets;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use toe_abi::{
    FlowId,
    control::{ControlMsg, kind, status},
    counters::Exception,
    frames::{self, FrameRecord},
};
use toe_engine::{Action, BufferLog2, ConnId, Engine, FrameMeta, ListenerId, Owner, Prefix, rates::Params};

/// Buffers of a connection, log2 of bytes: with less, a peer on the same machine waits for the window whenever the scheduler keeps one of the
/// processes in between waiting for some hundred microseconds.
pub const BUFFER_LOG2: u8 = 20;

/// What one application may hold, and how its region is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Contexts (threads that talk to the card).
    pub contexts: u32,
    /// Descriptors in each host-to-card queue, a power of two.
    pub hc_entries: u32,
    /// Descriptors in each card-to-host queue, a power of two.
    pub ev_entries: u32,
    /// Sockets.
    pub sockets: u32,
    pub listeners: u32,
    /// Connections that can wait at one listener, a power of two.
    pub accept_entries: u32,
    /// Connections.
    pub connections: u32,
    /// Bytes of payload buffers.
    pub payload_len: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            contexts: 64,
            hc_entries: 4096,
            ev_entries: 4096,
            sockets: 8192,
            listeners: 256,
            accept_entries: 1024,
            connections: 8192,
            payload_len: 1 << 34,
        }
    }
}

/// Settings of a [`Core`].
#[derive(Clone, Debug)]
pub struct CoreConfig {
    pub limits: Limits,
    /// Buffers of each connection.
    pub buffers: BufferLog2,
    /// The first of the card's addresses that the operator has given.
    pub first: Option<Prefix>,
    /// 802.1Q VLAN that the card is on; 0: none.
    pub vlan: u16,
    /// Number of the kernel's interface on whose link the card is; 0: none.
    pub scope: u32,
    /// Contexts and regions of the card, toed's own included.
    pub card_contexts: u16,
    pub card_regions: u16,
    /// Ports below it are for root, and for toed's own user; 0: for everybody.
    pub unprivileged_port_start: u32,
    /// toed's own user.
    pub uid: u32,
    /// How long connections of an application that has ended may go on closing in order.
    pub linger_us: u64,
    /// What an application gets unless told otherwise.
    pub share: Share,
    /// Congestion control by rates.
    pub rates: Params,
}

impl CoreConfig {
    pub fn new(first: Option<Prefix>) -> Self {
        Self {
            limits: Limits::default(),
            buffers: BufferLog2 { tx: BUFFER_LOG2, rx: BUFFER_LOG2 },
            first,
            vlan: 0,
            scope: 0,
            card_contexts: 256,
            card_regions: 64,
            unprivileged_port_start: 1024,
            uid: 0,
            linger_us: 60_000_000,
            share: Share::default(),
            rates: Params::default(),
        }
    }
}

/// One process's connection.
struct Client {
    pid: i32,
    uid: u32,
    /// Region of its application, after HELLO.
    region: Option<u16>,
    /// A request is being worked on: the next one waits.
    busy: bool,
}

/// What toed itself counts.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    requests: u64,
    requests_refused: u64,
    control_refused: u64,
    stray_completions: u64,
    stray_flows: u64,
    bad_accept_heads: u64,
    out_of_memory: u64,
}

/// Payload pages of freed buffers go back to the system this long after they were freed at the earliest.
const TRIM_EVERY_US: u64 = 5_000_000;
/// Ranges given back in one go.
const TRIM_RANGES: usize = 64;
/// And bytes: giving pages back takes some tenths of a second for a GiB, and nobody is served meanwhile.
const TRIM_BYTES: u64 = 64 << 20;
/// Packets that found no room are tried again after this.
const PACKET_RETRY_US: u64 = 1_000;

/// See the module.
pub struct Core<H: Host> {
    config: CoreConfig,
    host: H,
    engine: Engine,
    clients: BTreeMap<ClientId, Client>,
    apps: BTreeMap<u16, App<H::Memory>>,
    owners: HashMap<Owner, u16>,
    /// Programs that wait for the memory of one that has ended, with their tickets; as they are busy, each is here once. Only as long as
    /// the card is letting go of some.
    starting: VecDeque<(ClientId, u64)>,
    next_owner: Owner,
    flows: HashMap<FlowId, Flow>,
    listeners: BTreeMap<ListenerId, Listener>,
    /// Listeners with connections that wait.
    waiting: BTreeSet<ListenerId>,
    /// Active opens: region and slot.
    opening: HashMap<ConnId, (u16, u32)>,
    free_contexts: BTreeSet<u16>,
    outbox: Outbox,
    jobs: Jobs,
    recording: Recording,
    tickets: Tickets,
    rates: Rates,
    tally: Tally,
    trim_at_us: Option<u64>,
    stopping: bool,
}

impl<H: Host> Core<H> {
    pub fn new(config: CoreConfig, host: H, engine: Engine) -> Self {
        // Context 0 is toed's; the range ends before the number that means none.
        let free_contexts = (1..config.card_contexts).collect();
        let mut core = Self {
            host,
            engine,
            clients: BTreeMap::new(),
            apps: BTreeMap::new(),
            owners: HashMap::new(),
            starting: VecDeque::new(),
            next_owner: 1,
            flows: HashMap::new(),
            listeners: BTreeMap::new(),
            waiting: BTreeSet::new(),
            opening: HashMap::new(),
            free_contexts,
            outbox: Outbox::default(),
            jobs: Jobs::default(),
            recording: Recording::default(),
            tickets: Tickets::default(),
            rates: Rates::new(config.rates.clone()),
            tally: Tally::default(),
            trim_at_us: None,
            stopping: false,
            config,
        };
        // The card's first addresses.
        core.act(0);
        core
    }

    pub fn host(&mut self) -> &mut H {
        &mut self.host
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A process of user `uid` has connected.
    pub fn client_connected(&mut self, client: ClientId, pid: i32, uid: u32) {
        self.clients.insert(client, Client { pid, uid, region: None, busy: false });
    }

    /// Clients that belong to no application: they have not said HELLO yet, or have said BYE.
    pub fn strangers(&self) -> usize {
        self.clients.len() - self.apps.values().map(|a| a.clients.len()).sum::<usize>()
    }

    /// The stranger to send away if there are too many: the oldest of the process that has most of them.
    pub fn worst_stranger(&self) -> Option<ClientId> {
        let mut by_pid: HashMap<i32, (usize, Reverse<ClientId>)> = HashMap::new();
        for (id, c) in self.clients.iter().filter(|(_, c)| c.region.is_none()) {
            by_pid.entry(c.pid).or_insert((0, Reverse(*id))).0 += 1;
        }
        by_pid.into_values().max().map(|(_, Reverse(oldest))| oldest)
    }

    /// Whether the client's last request has no answer yet: give its next one later.
    pub fn busy(&self, client: ClientId) -> bool {
        self.clients.get(&client).is_some_and(|c| c.busy)
    }

    /// An exception frame.
    pub fn frame(&mut self, record: &FrameRecord, frame: &[u8], now_us: u64) {
        let tcp = [Exception::Syn as u32, Exception::UnknownFlow as u32];
        if tcp.contains(&record.reason) {
            self.look_at_accept_rings(now_us);
        }
        self.engine.frame(frame, FrameMeta::from(record), now_us);
        self.act(now_us);
    }

    /// An answer or a notice of the card.
    pub fn completion(&mut self, msg: &ControlMsg, now_us: u64) {
        if msg.kind == kind::FLOW_CLOSED {
            self.flow_closed(msg, now_us);
        } else if let Some(pending) = self.outbox.answered(msg) {
            self.answered(pending, msg, now_us);
        } else {
            self.tally.stray_completions += 1;
        }
        self.outbox.flush(&mut self.host);
        self.act(now_us);
    }

    fn answered(&mut self, pending: Pending, msg: &ControlMsg, now_us: u64) {
        let ok = msg.status == status::OK;
        if !ok {
            self.tally.control_refused += 1;
        }
        match pending {
            Pending::MapRegion { region, client } => self.region_mapped(region, client, ok, now_us),
            Pending::UnmapRegion { region } => self.region_unmapped(region, now_us),
            Pending::OpenContext { owner, index, ctx, client } => {
                self.context_opened(owner, index, ctx, client, ok, now_us);
            }
            Pending::CloseContext { owner, index, ctx } => self.context_closed(owner, index, ctx, now_us),
            Pending::Install(pending) => self.installed(&pending, msg, now_us),
            Pending::Query { flow } if ok => self.engine.flow_state(flow, &msg.flow_state(), now_us),
            Pending::Sample { job, flow } => self.sampled(job, flow, msg),
            Pending::Counters { job } => self.counted(job, msg),
            Pending::Stages { job } => self.staged(job, msg),
            Pending::TraceStart { job, trace } => self.trace_started(job, trace, msg, now_us),
            Pending::TraceRead { job, trace } => self.traced(job, trace, msg, now_us),
            Pending::TraceStop { job } => self.trace_stopped(job, msg),
            Pending::Pace { client, owner, slot, rate_kbps } => self.paced(client, owner, slot, rate_kbps, msg),
            Pending::Rates { group } => self.rates_told(group, msg, now_us),
            Pending::Congestion { client } => self.congestion_set(client, msg),
            Pending::Info { client, algorithm } => self.informed(client, algorithm, msg),
            Pending::SetShare { job, owner, share, before } => self.share_set(job, owner, share, before, msg),
            Pending::BeginShare { owner } => self.share_begun(owner, ok),
            Pending::Reserve { job, ticket, share } => self.reserved(job, ticket, share, msg),
            Pending::Query { .. } | Pending::Plain => {}
        }
    }

    /// To be called when [`next_deadline`](Self::next_deadline) has come.
    pub fn timer(&mut self, now_us: u64) {
        self.outbox.flush(&mut self.host);
        if self.engine.next_deadline().is_some_and(|t| t <= now_us) {
            self.engine.timer(now_us);
        }
        let due: Vec<u16> = self.apps.keys().copied().collect();
        for region in due {
            self.sweep_if_due(region, now_us);
            self.try_unmap(region, now_us);
        }
        if self.trim_at_us.is_some_and(|t| t <= now_us) {
            self.trim(now_us);
        }
        if self.rates.deadline().is_some_and(|t| t <= now_us) {
            self.rate_tick();
        }
        if self.recording.unread_until_us.is_some_and(|t| t <= now_us) {
            self.stop_recording();
        }
        self.act(now_us);
    }

    /// How the port's link is: at the start, and when it has changed.
    pub fn link(&mut self, up: bool, now_us: u64) {
        self.engine.link(up, now_us);
        self.act(now_us);
    }

    /// When something is due next, if nothing happens before.
    pub fn next_deadline(&self, now_us: u64) -> Option<u64> {
        let apps = self.apps.values().flat_map(|a| {
            let ending = match a.stage {
                app::Stage::Ending { until_us } if a.in_flight == 0 => Some(until_us),
                _ => None,
            };
            [a.sweep_at_us, ending].into_iter().flatten()
        });
        let retry = self.outbox.packets_wait().then_some(now_us + PACKET_RETRY_US);
        apps.chain(self.engine.next_deadline())
            .chain(self.trim_at_us)
            .chain(self.rates.deadline())
            .chain(self.recording.unread_until_us)
            .chain(retry)
            .min()
    }

    /// Gives pages of freed buffers back.
    fn trim(&mut self, now_us: u64) {
        let (mut more, mut left) = (false, TRIM_BYTES);
        for app in self.apps.values_mut() {
            for (offset, len) in app.payload.trim(TRIM_RANGES, &mut left) {
                app.memory.clear(app.geometry.payload_off + offset, len);
            }
            more |= app.payload.dirty_bytes() > 0;
        }
        self.trim_at_us = more.then_some(now_us + TRIM_EVERY_US / 50);
    }

    /// Does what the engine wants, until it wants nothing more.
    fn act(&mut self, now_us: u64) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Transmit { frame } => {
                    let meta = FrameMeta { csum_ok: true, ..FrameMeta::default() };
                    let record = meta.record(frames::kind::TRANSMIT, frame.len() as u32);
                    self.outbox.packet(&mut self.host, record, frame);
                }
                Action::Inject { frame, meta } => {
                    let record = meta.record(frames::kind::INJECT, frame.len() as u32);
                    self.outbox.packet(&mut self.host, record, frame);
                }
                Action::Install { conn, owner, listener: _, state } => self.install(conn, owner, *state, now_us),
                Action::Accept { listener, conn: _, flow, key } => self.accept(listener, flow, &key, now_us),
                Action::Connected { conn, flow, key } => self.connected(conn, flow, &key, now_us),
                Action::ConnectFailed { conn, errno } => self.connect_failed(conn, errno.0, now_us),
                Action::AbortFlow { flow } => self.give_up(flow, kind::ABORT, [0; 5]),
                Action::QueryFlow { flow } => {
                    self.outbox.send(&mut self.host, kind::QUERY, Pending::Query { flow }, |m| m.flow = flow);
                }
                Action::Address { ip, prefix, add } => self.address(ip, prefix, add),
                Action::Conflict { ip, mac } => tracing::warn!("{} is used by {} as well", report::ip_text(&ip), mac_text(&mac)),
                Action::NextHop { index, mac } => self.next_hop(index, mac),
                Action::IcmpError { flow, kind: icmp, mtu, seq } => {
                    let args = [icmp.into(), mtu.into(), seq.into(), 0, 0];
                    self.outbox.tell(&mut self.host, kind::ICMP_ERROR, flow, args);
                }
            }
        }
    }

    fn address(&mut self, ip: [u8; 16], prefix: u8, add: bool) {
        let args = [prefix.into(), add.into(), self.config.vlan.into(), 0, 0];
        self.outbox.send(&mut self.host, kind::ADDRESS, Pending::Plain, |m| {
            m.body[..16].copy_from_slice(&ip);
            m.args = args;
        });
    }

    fn next_hop(&mut self, index: u16, mac: Option<[u8; 6]>) {
        let m = mac.unwrap_or_default();
        let address = u64::from_le_bytes([m[0], m[1], m[2], m[3], m[4], m[5], 0, 0]);
        let args = [index.into(), address, mac.is_some().into(), 0, 0];
        self.outbox.tell(&mut self.host, kind::NEXT_HOP, FlowId::NONE, args);
    }
}
