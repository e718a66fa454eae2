//! What operators see: status at once, connections and counters after asking the card.

use super::{Core, Host, app::ContextStage, outbox::Pending};
use crate::admin;
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
};
use toe_abi::{
    FlowId,
    app::bind_flags,
    control::{ControlMsg, kind, status},
    counters,
    flow::{FlowState, cc, flow_flags, tcp_state},
};
use toe_engine::{Endpoint, Prefix};

/// Names a report that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobId(pub u64);

/// A finished report, as it goes to who asked for it.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    Connections(Vec<admin::Connection>),
    Stats(admin::Stats),
    /// `None`: this card does not tell.
    Stages(Option<Vec<admin::Stage>>),
    Trace(admin::Trace),
    Visits(admin::Visits),
    Share(admin::Share),
    Ticket(admin::Ticket),
    Done {},
    Failed(admin::Failure),
}

/// Flows asked for at the same time by one job.
const WINDOW: usize = 64;

pub(super) enum Job {
    Connections {
        todo: VecDeque<FlowId>,
        asked: usize,
        rows: Vec<admin::Connection>,
    },
    Stats {
        values: Vec<u64>,
    },
    Stages {
        rows: Vec<admin::Stage>,
    },
    Visits {
        part: admin::Visits,
    },
    /// All that it waits for is one answer of the card.
    Question,
}

#[derive(Default)]
pub(super) struct Jobs {
    next: u64,
    pub running: BTreeMap<JobId, Job>,
    finished: VecDeque<(JobId, Report)>,
}

impl Jobs {
    /// The job is done, and this came of it.
    pub fn finish(&mut self, id: JobId, report: Report) {
        self.running.remove(&id);
        self.finished.push_back((id, report));
    }

    pub fn start(&mut self, job: Job) -> JobId {
        self.next += 1;
        let id = JobId(self.next);
        self.running.insert(id, job);
        id
    }
}

impl<H: Host> Core<H> {
    /// A report that is ready.
    pub fn poll_report(&mut self) -> Option<(JobId, Report)> {
        self.jobs.finished.pop_front()
    }

    /// Starts a report of all connections and listeners.
    pub fn report_connections(&mut self) -> JobId {
        let mut rows: Vec<admin::Connection> = self.listener_rows();
        rows.extend(self.opening_rows());
        let mut todo: Vec<FlowId> = self.flows.iter().filter(|(_, f)| !f.closed).map(|(id, _)| *id).collect();
        todo.sort_by_key(|id| id.index);
        let job = self.jobs.start(Job::Connections { todo: todo.into(), asked: 0, rows });
        self.advance(job);
        job
    }

    /// Starts a report of all counters.
    pub fn report_stats(&mut self) -> JobId {
        let job = self.jobs.start(Job::Stats { values: Vec::new() });
        self.ask_counters(job, 0);
        job
    }

    fn ask_counters(&mut self, job: JobId, from: usize) {
        self.outbox.send(&mut self.host, kind::COUNTERS, Pending::Counters { job }, |m| m.args[0] = from as u64);
    }

    /// Asks for more flows, or finishes.
    fn advance(&mut self, id: JobId) {
        let Some(Job::Connections { todo, asked, rows }) = self.jobs.running.get_mut(&id) else { return };
        while *asked < WINDOW
            && let Some(flow) = todo.pop_front()
        {
            *asked += 1;
            self.outbox.send(&mut self.host, kind::QUERY, Pending::Sample { job: id, flow }, |m| m.flow = flow);
        }
        if *asked == 0 {
            let rows = std::mem::take(rows);
            self.jobs.finish(id, Report::Connections(rows));
        }
    }

    /// The answer to a QUERY for a report.
    pub(super) fn sampled(&mut self, id: JobId, flow: FlowId, msg: &ControlMsg) {
        // One that has ended meanwhile is no connection any more.
        let row = (msg.status == status::OK).then(|| self.flow_row(flow, &msg.flow_state(), paced_at(msg))).flatten();
        if let Some(Job::Connections { asked, rows, .. }) = self.jobs.running.get_mut(&id) {
            *asked -= 1;
            rows.extend(row);
        }
        self.advance(id);
    }

    /// The answer to COUNTERS.
    pub(super) fn counted(&mut self, id: JobId, msg: &ControlMsg) {
        let Some(Job::Stats { values }) = self.jobs.running.get_mut(&id) else { return };
        let total = (msg.args[0] as usize).min(counters::TOTAL);
        let missing = total.saturating_sub(values.len());
        values.extend(msg.counters().into_iter().take(missing));
        let have = values.len();
        if msg.status == status::OK && have < total {
            self.ask_counters(id, have);
            return;
        }
        let named = std::mem::take(values).into_iter().enumerate();
        let mut stats: admin::Stats = named.filter_map(|(i, v)| counters::name(i).map(|n| (n.to_owned(), v))).collect();
        stats.extend(self.own_stats());
        self.jobs.finish(id, Report::Stats(stats));
    }

    fn own_stats(&self) -> admin::Stats {
        let t = &self.tally;
        let values = [
            t.requests,
            t.requests_refused,
            t.control_refused,
            t.stray_completions,
            t.stray_flows,
            t.bad_accept_heads,
            t.out_of_memory,
            self.outbox.packets_dropped,
            self.apps.len() as u64,
            self.clients.len() as u64,
            self.flows.len() as u64,
            self.listeners.len() as u64,
            self.outbox.in_flight() as u64,
        ];
        let own = admin::OWN_COUNTERS.iter().zip(values).map(|((name, _), value)| ((*name).to_owned(), value));
        let engine = self.engine.counters().all().map(|(name, value, _)| (format!("engine_{name}"), value));
        own.chain(engine).collect()
    }

    /// What there is to say without asking the card. The caller adds what only it knows (device, version, uptime).
    pub fn status(&self) -> admin::Status {
        let routes: Vec<admin::Route> = self.engine.routes().map(|r| route(&r)).collect();
        let gateways: Vec<String> = routes.iter().filter(|r| r.is_default()).filter_map(|r| r.via.clone()).collect();
        admin::Status {
            card: admin::CardStatus {
                flows: self.flows.values().filter(|f| !f.closed).count() as u32,
                contexts: 1 + self.apps.values().flat_map(|a| &a.contexts).flatten().count() as u32,
                contexts_max: self.config.card_contexts.into(),
                regions_max: self.config.card_regions.into(),
                ..admin::CardStatus::default()
            },
            ip: self.config.first.map(|first| prefix_text(&first)).unwrap_or_default(),
            addresses: self.engine.addresses().map(|a| admin::Address { ip: prefix_text(&a.prefix), state: a.state.into() }).collect(),
            gateway: (!gateways.is_empty()).then(|| gateways.join(", ")),
            routes,
            applications: self.apps.values().map(|a| self.application(a)).collect(),
            listeners: self.engine.listeners().filter_map(|view| self.listener(&view)).collect(),
            neighbours: self.engine.neighbours().map(|n| neighbour(&n)).collect(),
            half_open: self.engine.connections().filter(|c| c.flow.is_none()).count() as u64,
            time_wait: self.engine.time_wait_count() as u64,
            ..admin::Status::default()
        }
    }

    fn application(&self, app: &super::app::App<H::Memory>) -> admin::Application {
        admin::Application {
            region: app.region.0.into(),
            state: app.stage.name().into(),
            pids: app.clients.iter().filter_map(|c| self.clients.get(c)).map(|c| c.pid).collect(),
            contexts: app.contexts.iter().flatten().filter(|c| c.stage == ContextStage::Open).count() as u32,
            sockets: app.tokens,
            connections: app.connections,
            listeners: app.listeners,
            memory_bytes: app.payload.used_bytes(),
            memory_max_bytes: app.payload.len(),
            share: app.share,
        }
    }

    fn local_of(&self, region: u16, slot: u32) -> String {
        let slot = self.apps.get(&region).and_then(|a| a.slots.get(slot as usize));
        slot.and_then(|s| s.bind).and_then(|b| self.engine.bound(b)).map_or_else(String::new, |(at, flags)| bound_text(at, flags))
    }

    fn listener(&self, view: &toe_engine::ListenerView) -> Option<admin::Listener> {
        let l = self.listeners.get(&view.id)?;
        Some(admin::Listener {
            local: self.local_of(l.region, l.slot),
            region: l.region.into(),
            waiting: self.waiting_at(l),
            backlog: l.backlog,
            half_open: view.half_open as u64,
            overflows: view.overflows,
        })
    }

    fn listener_rows(&self) -> Vec<admin::Connection> {
        let row = |l: &super::app::Listener| admin::Connection {
            state: "LISTEN".into(),
            local: self.local_of(l.region, l.slot),
            remote: "*:*".into(),
            rx_queue: self.waiting_at(l),
            tx_queue: l.backlog,
            region: l.region.into(),
            pid: self.pid_of(l.region),
            ..admin::Connection::default()
        };
        self.listeners.values().map(row).collect()
    }

    /// Connections that are being opened, both ways.
    fn opening_rows(&self) -> Vec<admin::Connection> {
        let row = |c: toe_engine::ConnView| {
            let region = self.owners.get(&c.owner).copied();
            admin::Connection {
                state: match c.phase {
                    "syn-received" | "installing" => "SYN-RECV".into(),
                    _ => "SYN-SENT".into(),
                },
                local: endpoint_text(&c.key.local_ip, c.key.local_port),
                remote: endpoint_text(&c.key.remote_ip, c.key.remote_port),
                region: region.unwrap_or_default().into(),
                pid: region.and_then(|r| self.pid_of(r)),
                ..admin::Connection::default()
            }
        };
        self.engine.connections().filter(|c| c.flow.is_none()).map(row).collect()
    }

    fn pid_of(&self, region: u16) -> Option<i32> {
        let client = self.apps.get(&region)?.clients.first()?;
        self.clients.get(client).map(|c| c.pid)
    }

    fn flow_row(&self, id: FlowId, s: &FlowState, rate_kbps: u64) -> Option<admin::Connection> {
        let f = self.flows.get(&id)?;
        // Positions count from the first byte after SYN; an unread or unacknowledged FIN is no byte.
        let received = s.rx.rcv_nxt.wrapping_sub(s.rx.irs).wrapping_sub(1);
        let acknowledged = s.tx.snd_una.wrapping_sub(s.tx.iss).wrapping_sub(1);
        let within = |bytes: u32, log2: u8| if bytes <= 1 << log2.min(30) { bytes } else { 0 };
        Some(admin::Connection {
            state: state_name(s.rx.state).into(),
            local: endpoint_text(&f.key.local_ip, f.key.local_port),
            remote: endpoint_text(&f.key.remote_ip, f.key.remote_port),
            rx_queue: within(received.wrapping_sub(s.rx.rx_tail), s.rx.buf_log2),
            tx_queue: within(s.tx.tx_head.wrapping_sub(acknowledged), s.tx.buf_log2),
            cwnd: s.cc.cwnd,
            ssthresh: s.cc.ssthresh,
            rate_kbps,
            srtt_us: s.tx.srtt_us,
            rttvar_us: s.tx.rttvar_us,
            min_rtt_us: s.tx.min_rtt_us,
            reo_wnd_us: if s.rx.flags & flow_flags::REORDERED != 0 { s.reo_wnd_us() } else { 0 },
            cc: Some(cc::name(s.cc.algorithm).into()),
            ca_state: Some(ca_state(s).into()),
            backoff: s.tx.backoff.into(),
            retransmits: Some(s.id.retransmits),
            flow: Some(format!("{}.{}", id.index, id.generation)),
            region: f.region.into(),
            pid: self.pid_of(f.region),
        })
    }
}

/// What a card that answers with a flow's state says of its pace, kbit/s. (Some tell the rate alone that was set.)
fn paced_at(answer: &ControlMsg) -> u64 {
    let [_, rate, pace, ..] = answer.args;
    if pace == 0 { rate } else { pace }
}

fn neighbour(n: &toe_engine::NeighbourView) -> admin::Neighbour {
    let stand_in = n.stand_in.map(|ip| ip_text(&ip));
    admin::Neighbour { ip: ip_text(&n.ip), mac: n.mac.map(|m| mac_text(&m)), state: n.state.into(), stand_in }
}

/// `02:00:00:00:00:01`.
pub fn mac_text(mac: &[u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// What congestion control is doing, as Linux calls it (tcpi_ca_state).
fn ca_state(s: &FlowState) -> &'static str {
    let has = |flag| s.rx.flags & flag != 0;
    match () {
        () if has(flow_flags::LOSS) => "loss",
        () if has(flow_flags::RECOVERY) => "recovery",
        () if has(flow_flags::ECN_REDUCED) => "cwr",
        // It has a scoreboard, or counts duplicates without one.
        () if s.tx.board != 0 || s.tx.dup_acks > 0 => "disorder",
        () => "open",
    }
}

/// State names as ss(8) has them. RFC 9293 3.10.6-1.
fn state_name(state: u8) -> &'static str {
    match state {
        tcp_state::ESTABLISHED => "ESTAB",
        tcp_state::FIN_WAIT_1 => "FIN-WAIT-1",
        tcp_state::FIN_WAIT_2 => "FIN-WAIT-2",
        tcp_state::CLOSE_WAIT => "CLOSE-WAIT",
        tcp_state::CLOSING => "CLOSING",
        tcp_state::LAST_ACK => "LAST-ACK",
        tcp_state::TIME_WAIT => "TIME-WAIT",
        _ => "CLOSED",
    }
}

pub fn ip_text(ip: &[u8; 16]) -> String {
    IpAddr::from(*ip).to_canonical().to_string()
}

fn route(route: &toe_engine::route::Route) -> admin::Route {
    admin::Route { dest: prefix_text(&route.dest), via: route.via.map(|via| ip_text(&via)) }
}

fn prefix_text(prefix: &Prefix) -> String {
    format!("{}/{}", ip_text(&prefix.ip), prefix.written_len())
}

/// `10.0.0.2:80`, `[fd00::2]:80`.
fn endpoint_text(ip: &[u8; 16], port: u16) -> String {
    SocketAddr::new(IpAddr::from(*ip).to_canonical(), port).to_string()
}

/// As ss(8): `*` stands for all addresses of both versions, `[::]` for those of IPv6 alone.
fn bound_text(at: Endpoint, flags: u16) -> String {
    let both = at.ip == Endpoint::ANY.ip && flags & bind_flags::V6ONLY == 0;
    if both { format!("*:{}", at.port) } else { endpoint_text(&at.ip, at.port) }
}
