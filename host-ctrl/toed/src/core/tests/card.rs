//! A card that answers control messages and does nothing else.

use std::collections::{BTreeMap, VecDeque};
use toe_abi::{
    FlowId, RegionId,
    control::{ControlMsg, RATE_REPORTS_PER_MSG, RateOrder, RateReport, close_reason, kind, status},
    flow::{FlowState, flow_flags},
    observe::{StageRecord, TRACES_PER_MSG, TraceRecord, trace_op},
};
use toe_wire::{Checksum, SeqNum, Sum, TcpFlags, TcpOptions, TxHeader};

/// What a card records.
#[derive(Default)]
pub struct FakeTrace {
    pub on: bool,
    pub records: VecDeque<TraceRecord>,
    pub lost: u64,
    /// Records it says that an answer has, whatever it has.
    pub claims: Option<u64>,
}

/// How flows stand whose rate toed sets.
#[derive(Default)]
pub struct FakeRates {
    pub groups: u64,
    /// To be told when group 0 is asked.
    pub news: VecDeque<RateReport>,
    /// Orders received.
    pub orders: usize,
    /// Reports it says that an answer has, whatever it has.
    pub claims: Option<u64>,
}

/// The card's side of the control messages.
#[derive(Default)]
pub struct FakeCard {
    pub flows: BTreeMap<u32, (u32, FlowState)>,
    generation: u32,
    /// What it tells of its pipeline; none: it does not tell.
    pub stages: Option<Vec<StageRecord>>,
    /// What it has recorded; none: it cannot.
    pub trace: Option<FakeTrace>,
    /// Shares by region; none: it has no such thing.
    pub shares: Option<BTreeMap<u64, (u64, u64)>>,
    /// None: it does not know of rates that toed sets.
    pub rates: Option<FakeRates>,
    /// What flows are paced at, kbit/s.
    pub paced: BTreeMap<(u32, u32), u64>,
    /// Answers to give instead of OK, by kind.
    pub refuse: BTreeMap<u32, u32>,
    /// Every message received: kind, flow, arguments.
    pub log: Vec<(u32, FlowId, [u64; 5])>,
    /// Flows that were closed in order never end.
    pub peers_hang: bool,
    /// Answers are kept back.
    pub mute: bool,
    pub muted: VecDeque<ControlMsg>,
}

impl FakeCard {
    /// How often a kind of message came.
    pub fn count(&self, kind: u32) -> usize {
        self.log.iter().filter(|(k, _, _)| *k == kind).count()
    }

    pub fn last(&self, kind: u32) -> (FlowId, [u64; 5]) {
        let (_, flow, args) = *self.log.iter().rfind(|(k, _, _)| *k == kind).expect("there was one");
        (flow, args)
    }

    /// What a flow is paced at, kbit/s.
    pub fn rate_of(&self, flow: FlowId) -> u32 {
        self.paced.get(&(flow.index, flow.generation)).copied().unwrap_or(0) as u32
    }

    fn exchange_rates(&mut self, reply: &mut ControlMsg) {
        let Some(rates) = &mut self.rates else {
            reply.status = status::UNSUPPORTED;
            return;
        };
        let orders: Vec<RateOrder> = reply.records(reply.args[1] as usize).collect();
        rates.orders += orders.len();
        self.paced.extend(orders.iter().map(|o| ((o.flow.index, o.flow.generation), u64::from(o.rate_kbps))));
        let n = if reply.args[0] == 0 { rates.news.len().min(RATE_REPORTS_PER_MSG) } else { 0 };
        for (i, report) in rates.news.drain(..n).enumerate() {
            reply.set_record(i, &report);
        }
        (reply.args[0], reply.args[1]) = (rates.claims.unwrap_or(n as u64), rates.groups);
    }

    pub fn end(&mut self, flow: FlowId, reason: u32) -> Option<ControlMsg> {
        let (generation, _) = self.flows.get(&flow.index)?;
        if *generation != flow.generation {
            return None;
        }
        let (_, state) = self.flows.remove(&flow.index)?;
        let mut notice = ControlMsg::new(kind::FLOW_CLOSED, 0);
        notice.flow = flow;
        notice.args[0] = reason.into();
        notice.set_flow_state(&state);
        Some(notice)
    }

    /// Answers one message; a handshake's last ACK goes out.
    pub fn answer(&mut self, msg: &ControlMsg, out: &mut Vec<ControlMsg>, wire: &mut Vec<Vec<u8>>) {
        self.log.push((msg.kind, msg.flow, msg.args));
        let mut reply = *msg;
        reply.kind |= kind::REPLY;
        reply.status = self.refuse.get(&msg.kind).copied().unwrap_or(status::OK);
        if reply.status == status::OK {
            match msg.kind {
                kind::INSTALL => {
                    let state = msg.flow_state();
                    let index = (0..).find(|i| !self.flows.contains_key(i)).expect("room");
                    self.generation += 1;
                    self.flows.insert(index, (self.generation, state));
                    reply.flow = FlowId { index, generation: self.generation };
                    if state.rx.flags & flow_flags::ACK_NOW != 0 {
                        wire.push(ack(&state));
                    }
                }
                kind::ABORT => out.extend(self.end(msg.flow, close_reason::ABORTED)),
                kind::CLOSE if !self.peers_hang => out.extend(self.end(msg.flow, close_reason::DONE)),
                kind::UNMAP_REGION => {
                    let region = RegionId(msg.args[0] as u16);
                    let of_region = |(_, (_, s)): &(&u32, &(u32, FlowState))| s.id.region == region;
                    let ids: Vec<FlowId> =
                        self.flows.iter().filter(of_region).map(|(i, (g, _))| FlowId { index: *i, generation: *g }).collect();
                    out.extend(ids.into_iter().filter_map(|f| self.end(f, close_reason::REGION_GONE)));
                }
                kind::QUERY => match self.flows.get(&msg.flow.index) {
                    Some((_, state)) => {
                        reply.set_flow_state(state);
                        reply.args[1] = self.rate_of(msg.flow).into();
                    }
                    None => reply.status = status::NOT_FOUND,
                },
                kind::SET_RATE => drop(self.paced.insert((msg.flow.index, msg.flow.generation), msg.args[0])),
                kind::SET_CC => {
                    if let Some((_, state)) = self.flows.get_mut(&msg.flow.index) {
                        state.cc.algorithm = msg.args[0] as u8;
                    }
                }
                kind::RATES => self.exchange_rates(&mut reply),
                kind::COUNTERS => {
                    let from = msg.args[0] as usize;
                    let all: Vec<u64> = (0..toe_abi::counters::TOTAL as u64).map(|i| i + 1).collect();
                    reply.set_counters(all.get(from..).unwrap_or_default());
                    reply.args[0] = all.len() as u64;
                }
                kind::STAGES => self.tell_stages(&mut reply),
                kind::TRACE => self.record(&mut reply),
                kind::SET_SHARE => reply.status = self.set_share(&msg.args),
                _ => {}
            }
        }
        out.push(reply);
    }

    fn tell_stages(&self, reply: &mut ControlMsg) {
        let Some(stages) = &self.stages else {
            reply.status = status::UNSUPPORTED;
            return;
        };
        for (i, record) in stages.iter().skip(reply.args[0] as usize).enumerate() {
            reply.set_record(i, record);
        }
        reply.args[0] = stages.len() as u64;
    }

    fn set_share(&mut self, args: &[u64; 5]) -> u32 {
        let Some(shares) = &mut self.shares else { return status::UNSUPPORTED };
        if args[0] == u64::from(RegionId::NONE.0) {
            return status::NOT_FOUND;
        }
        shares.insert(args[0], (args[1], args[2]));
        status::OK
    }

    fn record(&mut self, reply: &mut ControlMsg) {
        let Some(trace) = &mut self.trace else {
            reply.status = status::UNSUPPORTED;
            return;
        };
        match reply.args[0] {
            trace_op::READ => {
                let n = trace.records.len().min(TRACES_PER_MSG);
                for (i, record) in trace.records.drain(..n).enumerate() {
                    reply.set_record(i, &record);
                }
                (reply.args[0], reply.args[1]) = (trace.claims.unwrap_or(n as u64), trace.lost);
            }
            op => trace.on = op == trace_op::START,
        }
    }
}

/// The ACK that ends a handshake, as a card sends it after INSTALL.
fn ack(s: &FlowState) -> Vec<u8> {
    let (from, to) = (s.id.key.local_ip, s.id.key.remote_ip);
    let header = TxHeader {
        dst_mac: mac(to[15]),
        src_mac: mac(from[15]),
        vlan: None,
        src_ip: from,
        dst_ip: to,
        tos: 0,
        ttl: 64,
        ident: 0,
        src_port: s.id.key.local_port,
        dst_port: s.id.key.remote_port,
        seq: SeqNum(s.tx.iss.wrapping_add(1)),
        ack: SeqNum(s.rx.rcv_nxt),
        flags: TcpFlags::ACK,
        window: 1000,
        urgent: 0,
        options: TcpOptions::default(),
    };
    let mut frame = vec![0; 128];
    let built = header.write(&mut frame, 0, Checksum::Full(Sum::new())).expect("fits");
    frame.truncate(built.len.into());
    frame
}

pub fn mac(host: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, host]
}
