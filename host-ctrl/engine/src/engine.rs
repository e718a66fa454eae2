//! The machine: its tables, its calls, and time.

use crate::{
    Action, BindId, Config, ConfigError, ConnId, Counters, Endpoint, Errno, FinWait2, FrameMeta, InstallError, ListenerId, Owner, Sharing,
    Wishes,
    addr::{Ip, Prefix, is_v4},
    addresses::Addresses,
    autoconf::Autoconf,
    conn::{Conns, Phase},
    isn::Keys,
    limit::{AddressLimit, Bucket},
    mld::Listening,
    neighbours::Neighbours,
    path_mtu::PathMtus,
    ports::Ports,
    reassembly::Reassembly,
    route::{Route, RouteTable},
    time_wait::TimeWaits,
    timers::{TimerId, Timers},
};
use std::collections::VecDeque;
use toe_abi::{FlowId, flow::FlowState};

/// Each kind of answer that strangers can provoke.
pub(crate) struct Limits {
    pub rst: AddressLimit,
    pub echo: Bucket,
    pub unreachable: Bucket,
    /// Questions to flows about what they have found out.
    pub query: Bucket,
    /// Errors that are passed on to flows: the card takes one after the other.
    pub errors: Bucket,
}

/// The control plane. See the crate's first lines.
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) keys: Keys,
    pub(crate) addresses: Addresses,
    pub(crate) autoconf: Autoconf,
    pub(crate) listening: Listening,
    pub(crate) routes: RouteTable,
    pub(crate) neighbours: Neighbours,
    pub(crate) ports: Ports,
    pub(crate) conns: Conns,
    pub(crate) time_wait: TimeWaits,
    pub(crate) path_mtus: PathMtus,
    pub(crate) reassembly: Reassembly,
    pub(crate) timers: Timers,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    pub(crate) actions: VecDeque<Action>,
    /// Bytes of frames kept for connections that are being installed.
    pub(crate) held_bytes: usize,
    /// Cookies that were sent may come back until then.
    pub(crate) cookies_until: u64,
    /// Numbers handshakes.
    pub(crate) serial: u64,
    pub(crate) now: u64,
}

impl Engine {
    /// An engine at time `now` (microseconds on the card's clock, as in every call).
    pub fn new(mut config: Config, now: u64) -> Result<Self, ConfigError> {
        config.check()?;
        config.half_open_max = config.half_open_max.min(config.connections_max.div_ceil(2));
        let keys = Keys::new(config.secret);
        let bucket = || Bucket::new(config.replies_per_second, now);
        let mut engine = Self {
            keys,
            addresses: Addresses::default(),
            autoconf: Autoconf::new(&config),
            listening: Listening::default(),
            routes: RouteTable::default(),
            neighbours: Neighbours::new(keys, config.next_hops),
            ports: Ports::new(keys, config.ephemeral),
            conns: Conns::new(keys, config.connections_max),
            time_wait: TimeWaits::new(keys, config.time_wait_max),
            path_mtus: PathMtus::new(keys),
            reassembly: Reassembly::new(keys),
            timers: Timers::default(),
            limits: Limits {
                rst: AddressLimit::new(keys, config.replies_per_second, now),
                echo: bucket(),
                unreachable: bucket(),
                query: bucket(),
                errors: bucket(),
            },
            counters: Counters::default(),
            actions: VecDeque::new(),
            held_bytes: 0,
            cookies_until: 0,
            serial: 0,
            now,
            config,
        };
        // On-link prefixes first: of two routes with one prefix the first stated wins.
        engine.begin_addresses();
        let default = |via: &Ip| Route::new(if is_v4(via) { Prefix::ALL_V4 } else { Prefix::ALL_V6 }, Some(*via));
        let routes: Vec<Route> = engine.config.routes.iter().copied().chain(engine.config.gateways.iter().map(default)).collect();
        routes.into_iter().for_each(|route| engine.routes.add(route));
        Ok(engine)
    }

    /// The tag of what we send.
    pub(crate) fn vlan(&self) -> Option<u16> {
        (self.config.vlan != 0).then_some(self.config.vlan)
    }

    /// Time to live or hop limit of packets to `ip`.
    pub(crate) fn ttl_to(&self, ip: &Ip) -> u8 {
        if is_v4(ip) { self.config.ttl } else { self.autoconf.hop_limit }
    }

    /// Time does not go back, whatever the caller says.
    fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// Binds a local address; port 0: one is chosen, with NO_PORT later. The binding lives until [`Engine::unbind`].
    pub fn bind(&mut self, owner: Owner, at: Endpoint, sharing: impl Into<Sharing>) -> Result<(BindId, Endpoint), Errno> {
        self.ports.bind(&self.addresses, owner, at, sharing.into())
    }

    /// Gives a binding up; its listener, if any, goes first. Connections stay.
    pub fn unbind(&mut self, bind: BindId, now: u64) {
        if let Some(listener) = self.ports.binding(bind).and_then(|b| b.listener) {
            self.unlisten(listener, now);
        }
        self.ports.unbind(bind);
    }

    /// Where a binding is, and its flags.
    pub fn bound(&self, bind: BindId) -> Option<(Endpoint, u16)> {
        let b = self.ports.binding(bind)?;
        Some((Endpoint { ip: b.ip, port: b.port }, b.flags))
    }

    /// Listens at a binding. At most `backlog` connections and one more (as Linux) are being installed or wait to be accepted
    /// at any time: an accept ring of as many entries never overflows.
    pub fn listen(&mut self, bind: BindId, backlog: u32, wishes: impl Into<Wishes>) -> Result<ListenerId, Errno> {
        self.ports.listen(bind, backlog, wishes.into())
    }

    /// Changes the backlog (listen() again).
    pub fn set_backlog(&mut self, listener: ListenerId, backlog: u32) {
        if let Some(l) = self.ports.listener(listener) {
            l.backlog = backlog;
        }
    }

    /// Congestion control of connections that come from now on; None: the route's, or everybody's.
    pub fn set_listener_cc(&mut self, listener: ListenerId, cc: Option<u8>) {
        if let Some(l) = self.ports.listener(listener) {
            l.wishes.cc = cc;
        }
    }

    /// The congestion control of connections for which nobody has asked for another.
    pub fn cc(&self) -> u8 {
        self.config.cc
    }

    /// The congestion control of a connection to `remote` whose socket does not care.
    pub(crate) fn default_cc(&self, remote: &Ip) -> u8 {
        self.routes.first(*remote).and_then(|route| route.cc).unwrap_or(self.config.cc)
    }

    /// Whether the windows of connections to `remote` are paced.
    pub(crate) fn pacing(&self, remote: &Ip) -> bool {
        self.routes.first(*remote).and_then(|route| route.pacing).unwrap_or(self.config.cc_pacing)
    }

    /// Stops listening: half-open connections are forgotten; those being installed will be aborted. Those that were
    /// announced by [`Action::Accept`] are the daemon's to reset.
    pub fn unlisten(&mut self, listener: ListenerId, now: u64) {
        self.advance(now);
        self.end_listener(listener);
    }

    /// `n` connections were taken out of the accept ring.
    pub fn accepted(&mut self, listener: ListenerId, n: u32) {
        if let Some(l) = self.ports.listener(listener) {
            l.waiting = l.waiting.saturating_sub(n);
        }
    }

    /// Opens a connection; `local`: a binding of the socket. Ok: its local end; the outcome follows as Install and Connected, or ConnectFailed.
    pub fn connect(
        &mut self,
        owner: Owner,
        local: Option<BindId>,
        remote: Endpoint,
        wishes: impl Into<Wishes>,
        now: u64,
    ) -> Result<(ConnId, Endpoint), Errno> {
        self.advance(now);
        self.open_active(owner, local, remote, wishes.into())
    }

    /// Nobody wants this connection any more: no Connected, ConnectFailed or Accept will follow. One that is being installed is
    /// aborted after that; an established one is the daemon's to close.
    pub fn cancel(&mut self, conn: ConnId, now: u64) {
        self.advance(now);
        self.cancel_open(conn);
    }

    /// The answer to [`Action::Install`].
    pub fn installed(&mut self, conn: ConnId, result: Result<FlowId, InstallError>, now: u64) {
        self.advance(now);
        match result {
            Ok(flow) => self.install_succeeded(conn, flow),
            Err(error) => self.install_failed(conn, error),
        }
    }

    /// The card's FLOW_CLOSED: `reason` is `toe_abi::control::close_reason`, `state` the flow's last, with times of a clock that shows `clock`
    /// at `now`. Also to be called after RELEASE.
    pub fn flow_closed(&mut self, flow: FlowId, reason: u32, state: &FlowState, clock: u64, now: u64) {
        self.advance(now);
        self.closed(flow, reason, state, clock);
    }

    /// CLOSE was sent for the flow: it has no descriptor any more, and is reset after `fin_wait2_us`, or `limit`, in FIN-WAIT-2.
    pub fn orphaned(&mut self, flow: FlowId, limit: FinWait2, now: u64) {
        self.advance(now);
        self.orphan(flow, limit);
    }

    /// The answer to [`Action::QueryFlow`]; nothing needs to be said if the flow is gone.
    pub fn flow_state(&mut self, flow: FlowId, state: &FlowState, now: u64) {
        self.advance(now);
        self.learn_path_mtu(flow, state);
        self.orphan_state(flow, state);
        self.flow_may_have_ended(flow, state);
    }

    /// An exception frame.
    pub fn frame(&mut self, frame: &[u8], meta: FrameMeta, now: u64) {
        self.advance(now);
        self.exception(frame, meta);
    }

    /// How the port's link is: to be called at the start and when it changes. Until then, and where the card does not tell, it is up.
    pub fn link(&mut self, up: bool, now: u64) {
        self.advance(now);
        self.link_changed(up);
    }

    /// To be called when [`Engine::next_deadline`] has come.
    pub fn timer(&mut self, now: u64) {
        self.advance(now);
        self.time_wait_timer();
        while let Some(due) = self.timers.pop_due(self.now) {
            match due {
                TimerId::Neighbour(index) => self.neighbour_timer(index),
                TimerId::Conn(id) => self.conn_timer(id),
                TimerId::Addresses => self.addresses_timer(),
                TimerId::Reassembly => self.reassembly_timer(),
                TimerId::Listening => self.mld_timer(),
            }
        }
    }

    fn conn_timer(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.deadline = None;
        match conn.phase {
            Phase::SynSent(_) | Phase::SynReceived(_) => self.handshake_timer(id),
            Phase::Established(_) => self.orphan_timer(id),
            Phase::Resolving(_) | Phase::Installing(_) => {}
        }
    }

    /// When [`Engine::timer`] wants to be called.
    pub fn next_deadline(&self) -> Option<u64> {
        [self.timers.next(), self.time_wait.next_deadline()].into_iter().flatten().min()
    }

    /// The next thing to do. To be drained after every call.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn transmit(&mut self, frame: Vec<u8>) {
        if !frame.is_empty() {
            self.counters.transmitted += 1;
            self.actions.push_back(Action::Transmit { frame });
        }
    }
}
