//! Two engines, each with a card of one core made of `toe_tcp` alone, over a wire that loses, repeats, delays and reorders: connections open or
//! fail cleanly, and the first request is never lost in the cut-over. Virtual time; each seed is one run.

use std::collections::BTreeMap;
use toe_abi::{
    FlowId,
    flow::{FlowKey, FlowState, v4_mapped},
};
use toe_engine::{Action, BufferLog2, Config, ConnId, Endpoint, Engine, FrameMeta, ListenerId, Prefix};
use toe_tcp::{HostUpdate, Input, Now, Pools, SegmentIn, SegmentOut};
use toe_wire::{Checksum, Sum, TcpOptions, TxHeader, parse_frame};

const REQUEST: u32 = 3000;
const CONNECTIONS: usize = 3;
const MAC: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const BUFFERS: BufferLog2 = BufferLog2 { tx: 16, rx: 17 };

/// Over IPv4, every other seed over IPv6.
fn ip(me: usize, seed: u64) -> [u8; 16] {
    let last = me as u8 + 1;
    if seed.is_multiple_of(2) { v4_mapped([10, 0, 0, last]) } else { [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last] }
}

/// xorshift64*: enough to vary a wire.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }
}

struct Flow {
    id: FlowId,
    state: FlowState,
    ended: Option<u32>,
}

struct End {
    me: usize,
    engine: Engine,
    flows: Vec<Flow>,
    pools: Pools,
    /// INSTALLs that the card answers at a time.
    installs: Vec<(u64, ConnId, Box<FlowState>)>,
    out: Vec<Vec<u8>>,
    connected: Vec<FlowId>,
    failed: usize,
    accepted: Vec<FlowKey>,
    listener: Option<ListenerId>,
}

impl End {
    fn new(me: usize, seed: u64) -> Self {
        let mut secret = [me as u8; 16];
        secret[..8].copy_from_slice(&seed.to_be_bytes());
        let address = Prefix::new(ip(me, seed), 24).expect("24 bits");
        let config = Config { secret, answer_arp: true, ecn: seed & 2 == 0, dad_transmits: 0, ..Config::new(MAC[me], vec![address]) };
        let engine = Engine::new(config, 0).expect("valid");
        Self {
            me,
            engine,
            flows: vec![],
            pools: Pools::new(256, 1),
            installs: vec![],
            out: vec![],
            connected: vec![],
            failed: 0,
            accepted: vec![],
            listener: None,
        }
    }

    fn deadline(&self, now: u64) -> Option<u64> {
        let flows = self.flows.iter().filter(|f| f.ended.is_none());
        let flows = flows.filter_map(|f| toe_tcp::next_deadline(&f.state, Now(now))).map(|d| d.0);
        let installs = self.installs.iter().map(|i| i.0);
        self.engine.next_deadline().into_iter().chain(flows).chain(installs).min()
    }

    fn timer(&mut self, now: u64, random: &mut Random) {
        self.engine.timer(now);
        while let Some(at) = self.installs.iter().position(|i| i.0 <= now) {
            let (_, conn, state) = self.installs.remove(at);
            let id = FlowId { index: self.flows.len() as u32, generation: 1 };
            self.flows.push(Flow { id, state: *state, ended: None });
            self.engine.installed(conn, Ok(id), now);
        }
        for i in 0..self.flows.len() {
            self.input(i, &Input::Timer, now);
        }
        self.settle(now, random);
    }

    fn frame(&mut self, frame: &[u8], now: u64, random: &mut Random) {
        if !self.give_to_flow(frame, now) {
            self.engine.frame(frame, FrameMeta::default(), now);
        }
        self.settle(now, random);
    }

    /// What the card does with a frame; false: no such flow.
    fn give_to_flow(&mut self, frame: &[u8], now: u64) -> bool {
        let parsed = parse_frame(frame).expect("both ends are ours");
        let Some((ip, tcp)) = parsed.tcp() else { return false };
        let key = FlowKey { local_ip: ip.dst, remote_ip: ip.src, local_port: tcp.dst_port, remote_port: tcp.src_port };
        let Some(i) = self.flows.iter().position(|f| f.state.id.key == key && f.ended.is_none()) else { return false };
        let segment = SegmentIn {
            seq: tcp.seq,
            ack: tcp.ack,
            flags: tcp.flags,
            window: tcp.window,
            urgent: tcp.urgent,
            payload_len: tcp.payload.len(),
            timestamps: tcp.timestamps,
            sack: tcp.sack(frame),
            ce: false,
            segments: 1,
        };
        self.input(i, &Input::Segment(segment), now);
        true
    }

    fn input(&mut self, i: usize, input: &Input, now: u64) {
        let flow = &mut self.flows[i];
        if flow.ended.is_some() {
            return;
        }
        let output = toe_tcp::input(&mut flow.state, &mut self.pools, input, Now(now));
        let mut sent: Vec<SegmentOut> = output.reply.into_iter().collect();
        if let Some(reason) = output.closed {
            flow.ended = Some(reason as u32);
            self.engine.flow_closed(flow.id, reason as u32, &flow.state, now, now);
        } else {
            sent.extend(core::iter::from_fn(|| toe_tcp::emit(&mut flow.state, &mut self.pools, Now(now), 1460)));
        }
        let state = flow.state;
        for s in sent {
            self.out.push(self.build(&state, &s));
        }
    }

    fn build(&self, state: &FlowState, s: &SegmentOut) -> Vec<u8> {
        let key = state.id.key;
        let header = TxHeader {
            dst_mac: MAC[1 - self.me],
            src_mac: MAC[self.me],
            vlan: None,
            src_ip: key.local_ip,
            dst_ip: key.remote_ip,
            tos: 0,
            ttl: state.id.ttl,
            ident: 0,
            src_port: key.local_port,
            dst_port: key.remote_port,
            seq: s.seq,
            ack: s.ack,
            flags: s.flags,
            window: s.window,
            urgent: s.urgent,
            options: TcpOptions { timestamps: s.timestamps, sack: s.sack, ..TcpOptions::default() },
        };
        let mut frame = vec![0; 128];
        let built = header.write(&mut frame, s.len, Checksum::Full(Sum::new())).expect("fits");
        frame.truncate(usize::from(built.len));
        // Payload of zeroes: nothing to add to the checksum.
        frame.resize(frame.len() + s.len as usize, 0);
        frame
    }

    fn settle(&mut self, now: u64, random: &mut Random) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Transmit { frame } => self.out.push(frame),
                Action::Install { conn, state, .. } => self.installs.push((now + random.next(20_000), conn, state)),
                Action::Inject { frame, .. } => {
                    assert!(self.give_to_flow(&frame, now) || self.flows.iter().any(|f| f.ended.is_some()))
                }
                Action::Accept { listener, key, .. } => {
                    self.accepted.push(key);
                    assert_eq!(Some(listener), self.listener);
                    self.engine.accepted(listener, 1);
                }
                Action::Connected { flow, .. } => {
                    self.connected.push(flow);
                    let update = HostUpdate { tx_head: REQUEST, rx_tail: 0, flags: 0, urgent: 0 };
                    let i = self.flows.iter().position(|f| f.id == flow).expect("the flow that was installed");
                    self.input(i, &Input::Host(update), now);
                    // The owed ACK also goes out where there is nothing to send.
                    self.input(i, &Input::Timer, now);
                }
                Action::ConnectFailed { .. } => self.failed += 1,
                Action::Address { .. }
                | Action::Conflict { .. }
                | Action::NextHop { .. }
                | Action::IcmpError { .. }
                | Action::QueryFlow { .. }
                | Action::AbortFlow { .. } => {}
            }
        }
    }

    fn by_key(&self, key: &FlowKey) -> Option<&Flow> {
        self.flows.iter().find(|f| f.state.id.key == *key)
    }
}

/// One run; returns (connected, failed).
fn run(seed: u64, loss_percent: u64) -> (usize, usize) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut ends = [End::new(0, seed), End::new(1, seed)];
    let (bind, _) = ends[1].engine.bind(1, Endpoint { ip: [0; 16], port: 80 }, 0).expect("free");
    ends[1].listener = ends[1].engine.listen(bind, 2, BUFFERS).ok();
    for _ in 0..CONNECTIONS {
        ends[0].engine.connect(1, None, Endpoint { ip: ip(1, seed), port: 80 }, BUFFERS, 0).expect("on-link");
    }
    ends[0].settle(0, &mut random);
    let mut wire: BTreeMap<(u64, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let mut serial = 0;
    let mut now = 0;
    while now < 10_000_000_000 {
        for (from, end) in ends.iter_mut().enumerate() {
            for frame in end.out.split_off(0) {
                let copies = if random.next(100) < loss_percent { 0 } else { 1 + u64::from(random.next(10) == 0) };
                for _ in 0..copies {
                    serial += 1;
                    wire.insert((now + 100 + random.next(30_000), serial), (1 - from, frame.clone()));
                }
            }
        }
        let next_frame = wire.first_key_value().map(|((at, _), _)| *at);
        let timers = [ends[0].deadline(now), ends[1].deadline(now)];
        let Some(next) = timers.into_iter().flatten().chain(next_frame).min() else { break };
        now = now.max(next);
        if next_frame == Some(next) {
            let Some((_, (to, frame))) = wire.pop_first() else { break };
            ends[to].frame(&frame, now, &mut random);
        } else {
            ends.iter_mut().for_each(|e| e.timer(now, &mut random));
        }
        if settled(&ends) {
            break;
        }
    }
    check(seed, &ends);
    (ends[0].connected.len(), ends[0].failed)
}

/// Every open has ended, and every request has arrived or its flow has.
fn settled(ends: &[End; 2]) -> bool {
    ends[0].connected.len() + ends[0].failed == CONNECTIONS
        && ends[0].connected.iter().all(|id| {
            let flow = ends[0].flows.iter().find(|f| f.id == *id);
            flow.is_none_or(|f| f.ended.is_some() || toe_tcp::tx_tail(&f.state) == REQUEST)
        })
}

fn check(seed: u64, ends: &[End; 2]) {
    let [a, b] = ends;
    assert!(settled(ends), "seed {seed}: {} connected, {} failed", a.connected.len(), a.failed);
    for id in &a.connected {
        let flow = a.flows.iter().find(|f| f.id == *id).expect("installed");
        if flow.ended.is_some() {
            continue;
        }
        let k = flow.state.id.key;
        let mirrored = FlowKey { local_ip: k.remote_ip, remote_ip: k.local_ip, local_port: k.remote_port, remote_port: k.local_port };
        let peer = b.by_key(&mirrored).unwrap_or_else(|| panic!("seed {seed}: the request of {k:?} was acknowledged by nobody"));
        let (ours, theirs) = (&flow.state, &peer.state);
        assert_eq!((ours.tx.iss, ours.rx.irs), (theirs.rx.irs, theirs.tx.iss), "seed {seed}");
        assert_eq!((ours.tx.wscale, ours.rx.wscale), (theirs.rx.wscale, theirs.tx.wscale), "seed {seed}");
        assert_eq!((ours.rx.flags ^ theirs.rx.flags) & 7, 0, "seed {seed}: timestamps, ECN and SACK agree");
        assert_eq!(toe_tcp::rx_head(theirs), REQUEST, "seed {seed}");
        assert!(b.accepted.contains(&mirrored), "seed {seed}");
    }
}

#[test]
fn clean_wire() {
    for seed in 0..50 {
        assert_eq!(run(seed, 0), (CONNECTIONS, 0), "seed {seed}");
    }
}

#[test]
fn every_fifth_frame_is_lost() {
    let connected: usize = (0..500).map(|seed| run(seed, 20).0).sum();
    assert!(connected > 500 * CONNECTIONS * 95 / 100, "{connected} of {}", 500 * CONNECTIONS);
}

#[test]
fn most_frames_are_lost() {
    let (mut connected, mut failed) = (0, 0);
    for seed in 0..300 {
        let (c, f) = run(seed, 65);
        (connected, failed) = (connected + c, failed + f);
    }
    assert!(connected > 50 && failed > 50, "both happen: {connected} connected, {failed} failed");
}
