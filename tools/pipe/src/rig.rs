//! A card in memory with everything around it: control plane, application, peers, connections.

use std::mem::take;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use toe_abi::control::{CONTROL_REGION_LEN, ControlMsg, kind};
use toe_abi::flow::{FlowKey, FlowState, cc, v4_mapped};
use toe_abi::observe::{StageRecord, stage};
use toe_abi::region::{RegionConfig, RegionHeader};
use toe_abi::{CtxId, RegionId};
use toe_datapath::host::Host;
use toe_datapath::{Card, CardConfig, Composition, Core, CounterSums, Pipeline, Placement};
use toe_hal::{HostMemory, Instant, Parts};
use toe_sync::{FlowHash, HashKey};
use toe_tcp::{Now, Setup, Timestamping, establish};
use toe_wire::SeqNum;

use crate::board::port::BUFFERS;
use crate::board::{MemBoard, Memory, Nanos, NoKick, Wire, WireRx, WireTx};
use crate::control::ControlPlane;
use crate::traffic::app::{App, CTX, REGION};
use crate::traffic::frame::{CARD_IP, PEER_IP, PEER_MAC};
use crate::traffic::peer::FIRST_PORT;
use crate::traffic::{IRS, ISS, MSS, RCV_WSCALE, SND_WSCALE, Traffic};

const CONTROL_IOVA: u64 = 0x1000_0000;
const APP_IOVA: u64 = 0x2000_0000;
/// Descriptors in each of the application's queues.
const ENTRIES: u32 = 1024;
/// The peers' windows, bytes.
const PEER_WINDOW: u32 = 0xffff << SND_WSCALE;
/// Ports of the card are tried from here on, until one leads to the flow group that is wanted.
const CARD_PORT: u16 = 10_000;

/// How the stages are put together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shape {
    Fused,
    Pipelined(Placement),
}

impl Shape {
    /// Threads that it runs on.
    pub fn threads(&self) -> usize {
        match self {
            Shape::Fused => 1,
            Shape::Pipelined(placement) => placement.cores().len(),
        }
    }

    fn groups(&self) -> u16 {
        match self {
            Shape::Fused => 1,
            Shape::Pipelined(placement) => placement.count(stage::PROTOCOL),
        }
    }
}

/// The card, however it is composed.
pub enum Machine {
    Fused(Box<Card<MemBoard>>),
    Pipelined(Vec<Core<MemBoard>>),
}

impl Machine {
    /// The stage that the board has to do with.
    pub fn host(&mut self) -> Result<&mut Host<MemBoard>> {
        match self {
            Machine::Fused(card) => Ok(card.host()),
            Machine::Pipelined(cores) => cores.iter_mut().find_map(Core::host).ok_or_else(|| anyhow!("no core has the ctxq stage")),
        }
    }

    /// A round of all cores on this thread.
    pub fn round(&mut self, now: Instant) {
        match self {
            Machine::Fused(card) => {
                card.poll(now);
            }
            // Nobody sleeps here, so nobody has to be woken.
            Machine::Pipelined(cores) => cores.iter_mut().for_each(|core| {
                let _ = core.poll(now);
            }),
        }
    }
}

pub struct Rig {
    pub machine: Machine,
    pub app: App,
    pub wire: Arc<Wire>,
    pub sums: CounterSums,
    pub traffic: Traffic,
    /// All stage instances before the peers began. None for the fused card.
    pub before: Vec<StageRecord>,
    control: ControlPlane,
    groups: u16,
}

impl Rig {
    /// A card of this shape with all connections of the traffic installed.
    pub fn new(shape: &Shape, traffic: Traffic) -> Result<Self> {
        let header = region(&traffic)?;
        let mut memory = Memory::new(&[(CONTROL_IOVA, CONTROL_REGION_LEN), (APP_IOVA, header.len)]);
        memory.bind(RegionId::CONTROL, CONTROL_IOVA, CONTROL_REGION_LEN).map_err(|_| anyhow!("control region"))?;
        let config = config(&traffic, shape.groups());
        let ports = card_ports(&config, &traffic, shape.groups());
        let wire = Arc::new(Wire::new(traffic.connections, traffic.buf()));
        let parts = Parts::<MemBoard> {
            memory: memory.handle(),
            rx: WireRx::new(wire.clone(), traffic, &ports),
            tx: WireTx::new(wire.clone(), &traffic, memory.handle()),
            kick: NoKick,
            clock: Nanos,
        };
        let mut machine = match shape {
            Shape::Fused => Machine::Fused(Box::new(Card::new(config, parts))),
            Shape::Pipelined(placement) => Machine::Pipelined(Pipeline::new(&config, placement, parts).cores),
        };
        let host = machine.host()?;
        host.attach_control();
        let sums = host.sums().clone();
        let control = ControlPlane::new(memory.handle());
        let app = App::new(memory, traffic, header);
        let mut rig = Self { machine, app, wire, sums, traffic, before: Vec::new(), control, groups: shape.groups() };
        rig.set_up(&header, &ports).context("setting the card up")?;
        rig.before = rig.stages()?;
        rig.wire.begin();
        Ok(rig)
    }

    /// A round of card and application on this thread.
    pub fn round(&mut self) -> Result<()> {
        let now = Nanos.now();
        self.wire.tick(now.millis32());
        self.machine.round(now);
        if self.app.turn().kick {
            self.machine.host()?.kicked(CTX);
        }
        Ok(())
    }

    /// All stage instances, as they are now. None for the fused card.
    pub fn stages(&mut self) -> Result<Vec<StageRecord>> {
        self.machine.host()?.kicked(CtxId::CONTROL);
        let machine = &mut self.machine;
        self.control.stages(|| machine.round(Nanos.now()))
    }

    fn ask(&mut self, msg: ControlMsg) -> Result<ControlMsg> {
        self.machine.host()?.kicked(CtxId::CONTROL);
        let machine = &mut self.machine;
        self.control.ask(msg, || machine.round(Nanos.now()))
    }

    fn ask_args(&mut self, kind: u32, args: [u64; 5]) -> Result<ControlMsg> {
        self.ask(ControlMsg { args, ..ControlMsg::new(kind, 0) })
    }

    fn set_up(&mut self, header: &RegionHeader, ports: &[u16]) -> Result<()> {
        let mut mac = [0; 8];
        mac[..6].copy_from_slice(&PEER_MAC);
        self.ask_args(kind::NEXT_HOP, [0, u64::from_le_bytes(mac), 1, 0, 0])?;
        self.ask_args(kind::MAP_REGION, [REGION.0.into(), APP_IOVA, header.len, 0, 0])?;
        let log2 = u64::from(ENTRIES.trailing_zeros()) << 56;
        let (hc, ev) = (header.hc_queue(0) | log2, header.ev_queue(0) | log2);
        self.ask_args(kind::OPEN_CONTEXT, [CTX.0.into(), REGION.0.into(), header.context_page(0), hc, ev])?;
        for (i, &port) in (0..).zip(ports) {
            let mut install = ControlMsg::new(kind::INSTALL, 0);
            install.set_flow_state(&self.flow(header, i, port));
            let flow = self.ask(install)?.flow;
            let group = (flow.index % u32::from(self.groups)) as u16;
            if group != i % self.groups {
                bail!("connection {i} came into flow group {group}");
            }
            self.app.open(flow)?;
        }
        Ok(())
    }

    /// Connection number `i` as its handshake would have left it.
    fn flow(&self, header: &RegionHeader, i: u16, card_port: u16) -> FlowState {
        let (tx_off, rx_off) = App::buffers(header, &self.traffic, i);
        let log2 = self.traffic.buf_log2();
        establish(&Setup {
            key: key(i, card_port),
            region: REGION,
            ctx: CTX,
            opaque: i.into(),
            next_hop: 0,
            vlan: 0,
            ttl: 64,
            tos: 0,
            tx_off,
            tx_buf_log2: log2,
            rx_off,
            rx_buf_log2: log2,
            iss: SeqNum(ISS),
            irs: SeqNum(IRS),
            snd_wnd: PEER_WINDOW,
            snd_wscale: SND_WSCALE,
            rcv_wnd: self.traffic.buf(),
            rcv_wscale: RCV_WSCALE,
            mss: MSS as u16,
            timestamps: Some(Timestamping { recent: 0, offset: 0 }),
            sack: true,
            ecn: false,
            algorithm: cc::CUBIC,
            rto_min_ms: 0,
            rtt_us: 100,
            ack_now: false,
            now: Now(Nanos.now().micros()),
        })
    }

    /// The cores of a pipelined card, to be run elsewhere and put back.
    pub fn take_cores(&mut self) -> Vec<Core<MemBoard>> {
        match &mut self.machine {
            Machine::Fused(_) => Vec::new(),
            Machine::Pipelined(cores) => take(cores),
        }
    }
}

fn region(traffic: &Traffic) -> Result<RegionHeader> {
    let config = RegionConfig {
        region: REGION.0,
        n_contexts: 1,
        hc_entries: ENTRIES,
        ev_entries: ENTRIES,
        n_sockets: 1,
        n_listeners: 1,
        accept_entries: 2,
        payload_len: u64::from(traffic.connections) * 2 * u64::from(traffic.buf()),
    };
    RegionHeader::new(&config).ok_or_else(|| anyhow!("no region for {} connections", traffic.connections))
}

/// The windows into protocol are as wide as the port has buffers, so a frame that was made is never dropped.
fn config(traffic: &Traffic, groups: u16) -> CardConfig {
    let max_flows = u32::from(traffic.connections).next_multiple_of(groups.into()).max(64);
    CardConfig { max_flows, max_contexts: 2, max_regions: 2, rx_window: BUFFERS as u16, rx_hold: BUFFERS as u16, ..CardConfig::default() }
}

fn key(i: u16, card_port: u16) -> FlowKey {
    FlowKey { local_ip: v4_mapped(CARD_IP), remote_ip: v4_mapped(PEER_IP), local_port: card_port, remote_port: FIRST_PORT + i }
}

/// The card's port of each connection, so that connections come to the flow groups by turns.
fn card_ports(config: &CardConfig, traffic: &Traffic, groups: u16) -> Vec<u16> {
    let hash_key = HashKey::new(config.hash_key);
    let leads = |i: u16, port: u16| FlowHash::new(&hash_key, &key(i, port)).group(groups.into()) == u32::from(i % groups);
    (0..traffic.connections).map(|i| (CARD_PORT..u16::MAX).find(|&port| leads(i, port)).unwrap_or(CARD_PORT)).collect()
}
