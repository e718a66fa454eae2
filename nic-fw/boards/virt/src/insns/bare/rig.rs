//! A card with one connection, and everything around it.

use super::app::{App, CTX, ENTRIES, REGION};
use super::board::{CountBoard, Nobody};
use super::control::ControlPlane;
use super::count::Executed;
use super::frames::{IRS, ISS, MSS, NOW_MS, PEER_MAC, key};
use super::memory::{self, CardMemory};
use super::port::{CountTx, Replay, ReplayRx, Wire};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use toe_abi::control::{CONTROL_REGION_LEN, ControlMsg, kind};
use toe_abi::flow::{FlowState, cc};
use toe_abi::region::{RegionConfig, RegionHeader};
use toe_abi::window::MEMORY_OFF;
use toe_abi::{CtxId, RegionId};
use toe_datapath::{Card, CardConfig, Composition};
use toe_hal::{DmaFault, HostMemory, Instant, Parts};
use toe_tcp::{Now, Setup, Timestamping, establish};
use toe_virt::window::WindowMemory;
use toe_wire::{SeqNum, TooLong};

/// Regions, the control region included.
const REGIONS: u16 = 2;
/// Bytes of each buffer: segments for the longest run fit twice.
const BUF_LOG2: u8 = 19;
const RCV_WSCALE: u8 = 4;
const SND_WSCALE: u8 = 7;
/// Rounds after which the meter of the card takes one: none is to fall into a run.
const METER: u32 = toe_datapath::pipeline::observe::EVERY;

/// Why nothing can be counted.
#[derive(Debug)]
pub enum Why {
    Memory,
    Fault,
    Frame,
    /// The card refuses a control message: its kind and the status.
    Refused(u32, u32),
    /// The card does not answer a control message.
    Silent(u32),
    /// A run has not done what it should: its name, how much was wanted, how much came.
    Run(&'static str, u32, u32),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("there is not enough memory"),
            Self::Fault => f.write_str("an address is in no region"),
            Self::Frame => f.write_str("a frame could not be made"),
            Self::Refused(kind, status) => write!(f, "the card answers control message {kind} with status {status}"),
            Self::Silent(kind) => write!(f, "the card does not answer control message {kind}"),
            Self::Run(name, wanted, came) => write!(f, "{name}: {wanted} wanted, {came} came"),
        }
    }
}

impl From<DmaFault> for Why {
    fn from(_: DmaFault) -> Self {
        Self::Fault
    }
}

impl From<TooLong> for Why {
    fn from(_: TooLong) -> Self {
        Self::Frame
    }
}

pub struct Rig {
    card: Box<Card<CountBoard>>,
    control: ControlPlane,
    pub app: App,
    pub wire: Arc<Wire>,
    /// Rounds so far.
    rounds: u32,
}

impl Rig {
    /// A card to whose port all these frames come.
    pub fn new(frames: Arc<[Box<[u8]>]>) -> Result<Self, Why> {
        let mut memory = memory::make(REGIONS).ok_or(Why::Memory)?;
        memory.bind(RegionId::CONTROL, MEMORY_OFF, CONTROL_REGION_LEN)?;
        let app_at = (MEMORY_OFF + CONTROL_REGION_LEN).next_multiple_of(4096);
        let header = region().filter(|header| app_at + header.len <= memory::LEN).ok_or(Why::Memory)?;
        let wire = Arc::new(Wire::default());
        let parts = Parts::<CountBoard> {
            memory: CardMemory(memory.handle()),
            rx: ReplayRx { wire: wire.clone(), frames: Replay(frames) },
            tx: CountTx(wire.clone()),
            kick: Nobody,
            clock: Executed,
        };
        let config = CardConfig {
            max_flows: 64,
            tcp_records: 4 * 64,
            max_contexts: 2,
            max_regions: REGIONS,
            max_next_hops: 64,
            ..CardConfig::default()
        };
        let mut card = Box::new(Card::new(config, parts));
        card.attach_control();
        let mut control = ControlPlane::new(memory.handle());
        let (app, rounds) = set_up(&mut card, &mut control, memory, header, app_at)?;
        Ok(Self { card, control, app, wire, rounds })
    }

    /// A round of the card. True: something was done.
    fn round(&mut self) -> bool {
        self.rounds += 1;
        self.card.poll(now())
    }

    /// Rounds until one has nothing to do, so many at most that the meter takes none if they begin behind [`align`](Self::align).
    pub fn run(&mut self) {
        let last = self.rounds + METER - 1;
        while self.round() && self.rounds < last {}
    }

    /// Goes to where the meter has just taken a round; the context is polled.
    pub fn align(&mut self) {
        self.card.kicked(CTX);
        self.round();
        while !self.rounds.is_multiple_of(METER) {
            self.round();
        }
    }

    /// Asks the card for something.
    pub fn ask(&mut self, kind: u32, args: [u64; 5]) -> Result<ControlMsg, Why> {
        let Self { card, control, rounds, .. } = self;
        card.kicked(CtxId::CONTROL);
        control.ask(ControlMsg { args, ..ControlMsg::new(kind, 0) }, || {
            *rounds += 1;
            card.poll(now());
        })
    }
}

fn now() -> Instant {
    Instant(u64::from(NOW_MS) * 1000)
}

fn region() -> Option<RegionHeader> {
    RegionHeader::new(&RegionConfig {
        region: REGION.0,
        n_contexts: 1,
        hc_entries: ENTRIES,
        ev_entries: ENTRIES,
        n_sockets: 1,
        n_listeners: 1,
        accept_entries: 2,
        payload_len: 2 << BUF_LOG2,
    })
}

/// The application with its connection, and the rounds that it took.
fn set_up(
    card: &mut Card<CountBoard>,
    control: &mut ControlPlane,
    memory: WindowMemory,
    header: RegionHeader,
    app_at: u64,
) -> Result<(App, u32), Why> {
    let mut rounds = 0;
    let mut ask = |msg: ControlMsg| {
        card.kicked(CtxId::CONTROL);
        control.ask(msg, || {
            rounds += 1;
            card.poll(now());
        })
    };
    let args = |kind, args| ControlMsg { args, ..ControlMsg::new(kind, 0) };
    let mut mac = [0; 8];
    mac[..6].copy_from_slice(&PEER_MAC);
    ask(args(kind::NEXT_HOP, [0, u64::from_le_bytes(mac), 1, 0, 0]))?;
    ask(args(kind::MAP_REGION, [REGION.0.into(), app_at, header.len, 0, 0]))?;
    let log2 = u64::from(ENTRIES.trailing_zeros()) << 56;
    let (hc, ev) = (header.hc_queue(0) | log2, header.ev_queue(0) | log2);
    ask(args(kind::OPEN_CONTEXT, [CTX.0.into(), REGION.0.into(), header.context_page(0), hc, ev]))?;
    let mut install = ControlMsg::new(kind::INSTALL, 0);
    install.set_flow_state(&flow(&header));
    let flow = ask(install)?.flow;
    Ok((App::new(memory, header, flow), rounds))
}

/// The connection as its handshake would have left it.
fn flow(header: &RegionHeader) -> FlowState {
    establish(&Setup {
        key: key(),
        region: REGION,
        ctx: CTX,
        opaque: 0,
        next_hop: 0,
        vlan: 0,
        ttl: 64,
        tos: 0,
        tx_off: header.payload_off,
        tx_buf_log2: BUF_LOG2,
        rx_off: header.payload_off + (1 << BUF_LOG2),
        rx_buf_log2: BUF_LOG2,
        iss: SeqNum(ISS),
        irs: SeqNum(IRS),
        snd_wnd: 0xffff << SND_WSCALE,
        snd_wscale: SND_WSCALE,
        rcv_wnd: 1 << BUF_LOG2,
        rcv_wscale: RCV_WSCALE,
        mss: MSS as u16,
        timestamps: Some(Timestamping { recent: NOW_MS, offset: 0 }),
        sack: true,
        ecn: false,
        algorithm: cc::CUBIC,
        rto_min_ms: 0,
        rtt_us: 100,
        ack_now: false,
        now: Now(now().micros()),
    })
}
