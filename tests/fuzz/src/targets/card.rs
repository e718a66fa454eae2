//! The data path between a hostile wire, a hostile control plane and a hostile application, with the bench of the card's own tests. It never
//! panics, comes to rest, sends nothing that is not a frame, and after a reset serves a new control plane.

#[allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench of tests")]
#[path = "../../../../nic-fw/datapath/tests/common/mod.rs"]
mod bench;

use arbitrary::Arbitrary;
use bench::{Bench, Fused, Kind, OneCore, peer_segment};
use std::cell::RefCell;
use toe_abi::{CtxId, FlowId, HostAddr, RegionId, control::ControlMsg, desc::HostDesc};
use toe_datapath::{CardConfig, Composition};
use toe_hal::HostMemory;
use toe_wire::TcpFlags;

use super::steps::steps;

const STEPS_MAX: usize = 200;
const FLOWS: u16 = 3;
/// Kinds of control messages there are, and one that is not.
const KINDS: u32 = 23;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Frame(&'a [u8]),
    Segment {
        flow: u8,
        at: u16,
        acked: u16,
        flags: u8,
        payload: &'a [u8],
    },
    /// A descriptor in an application's queue, behind those that are there.
    Post {
        second: bool,
        kind: u8,
        flags: u32,
        flow: u8,
        generation: bool,
        tx_head: u32,
        rx_tail: u32,
    },
    /// What an honest application says: it has filled and read as much more.
    Update {
        flow: u8,
        wrote: u16,
        read: u16,
        flags: u8,
    },
    /// Bytes anywhere in the application's region or toed's.
    Poke {
        control: bool,
        at: u32,
        bytes: &'a [u8],
    },
    Control {
        kind: u8,
        flow: u8,
        args: [u16; 5],
        body: &'a [u8],
    },
    Packet {
        kind: bool,
        frame: &'a [u8],
    },
    Kick(u8),
    Pass(u16),
}

struct World {
    b: Bench<Fused>,
    flows: Vec<FlowId>,
    /// (tx_head, rx_tail) as the honest application has them.
    at: Vec<(u32, u32)>,
    /// What was written where nobody clears it: address and bytes.
    poked: Vec<(HostAddr, usize)>,
}

thread_local! {
    /// One card for all inputs: making it takes far longer than an input, and a reset must make it as new.
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

pub fn run(data: &[u8]) {
    WORLD.with_borrow_mut(|world| world.run(data));
}

impl World {
    fn new() -> Self {
        // Small pools: what is small is used up soon.
        let config = CardConfig { tcp_records: 24, pool_messages: 64, posting_entries: 64, ..bench::config() };
        Self { b: OneCore.bench_with(config, bench::caps()), flows: vec![], at: vec![], poked: vec![] }
    }

    fn run(&mut self, data: &[u8]) {
        self.begin();
        for step in steps(data, STEPS_MAX) {
            self.step(step);
            self.rest();
        }
    }

    /// A new control plane finds a card that serves, whatever went before.
    fn begin(&mut self) {
        self.b.card.reset();
        self.b.restart();
        for (at, len) in self.poked.drain(..) {
            self.b.memory.poke(at, &vec![0; len]);
        }
        self.flows = (0..FLOWS).map(|n| self.b.install(n, 1)).collect();
        self.at = vec![(0, 0); self.flows.len()];
        self.b.update(1, self.flows[0], 100, 0, 0);
        self.at[0].0 = 100;
        self.b.run();
        assert!(self.b.sent().iter().any(|s| s.payload().len() == 100), "a new flow does not send");
    }

    fn flow(&self, n: u8) -> FlowId {
        self.flows.get(usize::from(n)).copied().unwrap_or(FlowId { index: n.into(), generation: 0 })
    }

    /// Whether the application's memory is still mapped: the control plane may have taken it away.
    fn is_mapped(&self) -> bool {
        self.b.memory.load(HostAddr::new(RegionId(1), 0)).is_ok()
    }

    fn step(&mut self, step: Step<'_>) {
        let of_application = matches!(step, Step::Post { .. } | Step::Update { .. } | Step::Poke { control: false, .. });
        if of_application && !self.is_mapped() {
            return;
        }
        match step {
            Step::Frame(bytes) => self.b.arrive(bytes.to_vec()),
            Step::Segment { flow, at, acked, flags, payload } => {
                let flow = u16::from(flow) % (FLOWS + 1);
                let payload = &payload[..payload.len().min(1000)];
                self.b.arrive(peer_segment(flow, at.into(), acked.into(), TcpFlags::from_bits_retain(flags), payload));
            }
            Step::Post { second, kind, flags, flow, generation, tx_head, rx_tail } => {
                let mut id = self.flow(flow);
                id.generation = id.generation.wrapping_add(generation.into());
                let desc = HostDesc { kind: u32::from(kind) % 6, flow: id, flags, tx_head, rx_tail, ..Default::default() };
                self.b.post(if second { 2 } else { 1 }, desc);
            }
            Step::Update { flow, wrote, read, flags } => {
                let n = usize::from(flow) % self.flows.len();
                let (tx, rx) = &mut self.at[n];
                (*tx, *rx) = (tx.wrapping_add(u32::from(wrote) % 5000), rx.wrapping_add(u32::from(read) % 5000));
                let (tx, rx) = (*tx, *rx);
                self.b.update(1, self.flows[n], tx, rx, flags.into());
            }
            Step::Poke { control, at, bytes } => {
                let (region, len) = if control { (RegionId::CONTROL, 0x1000 + 256 * 512) } else { (RegionId(1), self.b.header.len) };
                let at = u64::from(at) % len;
                let bytes = &bytes[..bytes.len().min(64).min((len - at) as usize)];
                let at = HostAddr::new(region, at);
                self.b.memory.poke(at, bytes);
                self.poked.push((at, bytes.len()));
            }
            Step::Control { kind, flow, args, body } => {
                let mut msg = ControlMsg::new(u32::from(kind) % KINDS, 0);
                (msg.flow, msg.args) = (self.flow(flow), args.map(u64::from));
                let n = body.len().min(msg.body.len());
                msg.body[..n].copy_from_slice(&body[..n]);
                self.b.submit(msg);
                self.b.card.kicked(CtxId::CONTROL);
            }
            Step::Packet { kind, frame } => self.b.packet(u32::from(kind), &frame[..frame.len().min(256)], 0),
            Step::Kick(ctx) => self.b.card.kicked(CtxId(ctx.into())),
            Step::Pass(ms) => self.b.now = self.b.now.add_micros(u64::from(ms) * 1000),
        }
    }

    /// Nobody reads what the card says, so that its queues also fill up.
    fn rest(&mut self) {
        self.b.run();
        drop(self.b.sent());
    }
}
