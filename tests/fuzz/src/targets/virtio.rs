//! A virtio network device that says anything (what it has, what it does with commands, what it used, how long frames are), before the driver
//! of the bare-metal boards. Nothing panics or waits for ever, no buffer is lent twice or lost, nothing is read or written outside the
//! driver's memory, and what breaks the rules of a queue raises the alarm.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arbitrary::{Arbitrary, Unstructured};
use toe_drivers::virtio::fake::{Control, FakeDevice, FakeRegisters, Peer, TestMemory, machine};
use toe_drivers::virtio::net::{Bytes, Net, Settings, start};
use toe_drivers::virtio::{Features, Transport};
use toe_hal::{Clock, Frames, Lease, RxBurst, RxPort, TxFrame, TxOffload, TxPort};

use super::steps::steps;

const STEPS_MAX: usize = 200;
/// Entries of a queue, and buffers of a pair.
const SIZE: u16 = 16;
const PAIRS: u16 = 2;
/// Bytes of a receive buffer.
const BUFFER: usize = 2048;
/// Bytes of an input that say what the device is.
const FOUND_LEN: usize = 32;
/// Where the capabilities of the function are, which may be spoilt.
const CAPABILITIES: usize = 0x34;
const FRAME_MAX: usize = 65_553;

/// What the device is when the driver finds it.
#[derive(Arbitrary, Debug)]
struct Found {
    /// Features that it has not, of those that there are.
    lacks: u64,
    pairs: u8,
    sizes: [u8; 3],
    config: Option<[u8; 12]>,
    is_unsteady: bool,
    reset_reads: u8,
    refuses: bool,
    vectors: u8,
    control: u8,
    capabilities: [Option<(u8, u8)>; 3],
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A receive buffer is used, as the input says; or as it should be.
    Used {
        pair: bool,
        id: Option<u16>,
        len: u32,
        header: [u8; 12],
    },
    Arrives {
        pair: bool,
        len: u16,
        header: [u8; 10],
    },
    /// A frame is sent, and its buffers used by some number; or by theirs.
    Sent {
        pair: bool,
        id: Option<u16>,
        len: u32,
    },
    /// The count of used buffers jumps.
    Jump {
        pair: bool,
        sends: bool,
        by: u16,
    },
    /// When the device wants to be told.
    Event {
        pair: bool,
        value: u16,
    },
    Receive,
    Release(u8),
    Any,
    Send {
        payload: u16,
        offload: bool,
    },
    Flush,
    Link,
    Config {
        at: u8,
        value: u8,
    },
    Commands(u8),
    Gone(bool),
    Restart,
}

/// Fifty milliseconds for each look: who is waited for answers at once or never.
#[derive(Clone, Default)]
struct Looks(Arc<AtomicU64>);

impl Clock for Looks {
    fn nanos(&self) -> u64 {
        self.0.fetch_add(50_000_000, Relaxed)
    }
}

struct World {
    net: Net<FakeRegisters, Bytes>,
    registers: FakeRegisters,
    peers: Vec<Peer>,
    clock: Looks,
    leases: Vec<Lease>,
    /// As many as the device had at first; spare ones are behind them.
    buffers: usize,
    /// Whether the last start succeeded.
    runs: bool,
}

pub fn run(data: &[u8]) {
    let Some((found, rest)) = data.split_at_checked(FOUND_LEN) else { return };
    let Ok(found) = Unstructured::new(found).arbitrary() else { return };
    let memory = TestMemory::new(settings().bytes());
    if let Some(mut world) = World::new(&found, &memory) {
        for step in steps(rest, STEPS_MAX) {
            world.step(step);
            world.check();
        }
        world.end();
    }
    assert!(memory.walls_stand(), "something was written outside");
}

/// Few and small, so that everything runs out.
fn settings() -> Settings {
    Settings {
        pairs: PAIRS,
        queue_size: SIZE,
        rx_buffers: SIZE,
        rx_buffer_len: BUFFER,
        spare_buffers: 1,
        tx_buffer_len: 4096,
        ..Settings::default()
    }
}

fn control(how: u8) -> Control {
    [Control::Obey, Control::Refuse, Control::Ignore, Control::Lie][usize::from(how) % 4]
}

impl Found {
    fn device(&self, memory: &Arc<TestMemory>) -> FakeDevice {
        let offered = Features::all() & Features::from_bits_retain(!self.lacks);
        let mut device = FakeDevice::new(memory.clone(), offered, 1 + u16::from(self.pairs % 4));
        for (queue, size) in device.queues.iter_mut().zip(self.sizes.iter().cycle()) {
            // Mostly what there should be.
            queue.max = if *size < 200 { 256 } else { u16::from(size - 200) };
        }
        if let Some(config) = self.config {
            device.config[..12].copy_from_slice(&config);
        }
        device.reset_reads = if self.reset_reads == u8::MAX { u32::MAX } else { self.reset_reads.into() };
        (device.is_unsteady, device.refuses, device.vectors) = (self.is_unsteady, self.refuses, self.vectors.into());
        device.control = control(self.control);
        device
    }
}

impl World {
    /// `None`: the driver will not have the device.
    fn new(found: &Found, memory: &Arc<TestMemory>) -> Option<Self> {
        let (bus, function) = machine(|function| {
            for (at, value) in found.capabilities.into_iter().flatten() {
                function.set8(CAPABILITIES + usize::from(at) % (256 - CAPABILITIES), value);
            }
        });
        let registers = FakeRegisters::new(found.device(memory));
        let clock = Looks::default();
        let transport = Transport::open(&bus, &function, &mut registers.map()).ok()?;
        if found.capabilities.iter().any(Option::is_some) {
            // Registers that lie elsewhere are more than the fake can be.
            return None;
        }
        let net = start(transport, memory.dma(), &settings(), Bytes, &clock).ok()?;
        let buffers = net.rx.posted();
        let mut world = Self { net, registers, peers: vec![], clock, leases: vec![], buffers, runs: true };
        world.meet();
        Some(world)
    }

    /// The device's side of the queues, as the driver has last set them up.
    fn meet(&mut self) {
        let device = self.registers.device();
        let is_mergeable = device.accepted & Features::MRG_RXBUF.bits() != 0;
        self.peers =
            (0..self.net.control.pairs()).map(|pair| Peer::new(device.queue(2 * pair), device.queue(2 * pair + 1), is_mergeable)).collect();
    }

    fn peer(&mut self, second: bool) -> Option<&mut Peer> {
        let n = usize::from(second).checked_rem(self.peers.len())?;
        self.peers.get_mut(n)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Used { pair, id, len, header } => {
                let Some(peer) = self.peer(pair) else { return };
                peer.stock_up();
                let Some(chain) = peer.stock.pop() else { return };
                peer.rx.memory.write(chain.parts[0].0, &header);
                peer.rx.has_lied |= id.is_some();
                peer.rx.put(id.unwrap_or(chain.head).into(), len);
                peer.rx.publish();
            }
            Step::Arrives { pair, len, header: start } => {
                let Some(peer) = self.peer(pair) else { return };
                let mut header = [0; 12];
                header[..10].copy_from_slice(&start);
                let len = if peer.is_mergeable { usize::from(len) % 10_000 } else { usize::from(len) % 2000 };
                peer.deliver(&header, &vec![0x55; len]);
                peer.rx.publish();
            }
            Step::Sent { pair, id, len } => {
                let Some(peer) = self.peer(pair) else { return };
                let Some(chain) = peer.tx.take() else { return };
                peer.tx.has_lied |= id.is_some();
                peer.tx.put(id.unwrap_or(chain.head).into(), len);
                peer.tx.publish();
            }
            Step::Jump { pair, sends, by } => {
                let Some(peer) = self.peer(pair) else { return };
                let queue = if sends { &mut peer.tx } else { &mut peer.rx };
                queue.jump(by);
                queue.publish();
            }
            Step::Event { pair, value } => {
                let Some(Peer { tx, .. }) = self.peer(pair) else { return };
                tx.memory.half(tx.used + 4 + 8 * u64::from(tx.size)).store(value, Relaxed);
            }
            Step::Receive => self.receive(),
            Step::Release(which) => {
                if let Some(n) = usize::from(which).checked_rem(self.leases.len()) {
                    let lease = self.leases.swap_remove(n);
                    self.net.rx.release(lease);
                }
            }
            Step::Any => _ = self.net.rx.any(),
            Step::Send { payload, offload } => {
                let offload = TxOffload {
                    partial_csum: offload,
                    gso_size: if offload { 1000 } else { 0 },
                    hdr_len: 54,
                    csum_start: 34,
                    csum_offset: 16,
                };
                let payload = [vec![1; payload.into()]];
                let frame = TxFrame { header: &[0x55; 54], payload: &payload, payload_len: payload[0].len() as u32, offload };
                // Busy is an answer.
                let _ = self.net.tx.transmit(&frame);
            }
            Step::Flush => _ = TxPort::<Vec<u8>>::flush(&mut self.net.tx),
            Step::Link => {
                let _ = (self.net.control.link(), self.net.control.needs_reset(), self.net.control.take_isr());
            }
            Step::Config { at, value } => self.registers.device().config[usize::from(at) % 12] = value,
            Step::Commands(how) => self.registers.device().control = control(how),
            Step::Gone(has_gone) => self.registers.device().has_gone = has_gone,
            Step::Restart => {
                // A device that was reset writes nowhere.
                self.peers.clear();
                let Net { rx, tx, control } = &mut self.net;
                self.runs = control.restart(rx, tx, &self.clock).is_ok();
                if self.runs {
                    self.meet();
                }
            }
        }
    }

    fn receive(&mut self) {
        let mut burst = RxBurst::new();
        let count = self.net.rx.receive(&mut burst);
        assert_eq!(count, burst.len());
        let frames = self.net.rx.frames();
        for frame in burst {
            let len = frames.frame(&frame.lease).len();
            let room = if self.is_spare(&frame.lease) { FRAME_MAX } else { BUFFER };
            assert!(len == frame.len as usize && (14..=room).contains(&len), "{len} bytes");
            assert!(frame.offload.csum_ok || !frame.offload.partial_csum, "an unfinished checksum is not good");
            self.leases.push(frame.lease);
        }
    }

    fn is_spare(&self, lease: &Lease) -> bool {
        lease.index() as usize >= self.buffers
    }

    fn check(&self) {
        let Net { rx, tx, control } = &self.net;
        assert!(!(self.runs && (rx.is_broken() || tx.is_broken())) || control.alarm().is_raised(), "a broken queue without alarm");
        let lent: BTreeSet<u32> = self.leases.iter().map(Lease::index).collect();
        assert_eq!(lent.len(), self.leases.len(), "a buffer was lent twice");
    }

    fn end(self) {
        let spares = self.leases.iter().filter(|lease| self.is_spare(lease)).count();
        let Self { net: Net { mut rx, control, .. }, leases, buffers, runs, clock, .. } = self;
        assert!(!runs || rx.posted() + leases.len() - spares == buffers, "each buffer is the device's or on loan");
        leases.into_iter().for_each(|lease| rx.release(lease));
        // A device may refuse to stop.
        let _ = control.stop(&clock);
    }
}
