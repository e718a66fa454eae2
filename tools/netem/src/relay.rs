//! Frames from interface to interface, each at its time.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Serialize;
use toe_netem::{Arrival, Counts, Flight, Knobs, Line};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// Longest frame of an interface with the usual MTU, with room for a VLAN tag.
const FRAME_MAX: usize = 2048;
/// Frames that the kernel keeps for us if we are late: a drop there would be none of the network's.
const KERNEL_QUEUE: u32 = 10_000;
/// Frames taken from one interface before the others have their turn, and before what is due is sent.
const BURST: usize = 32;
/// MAC addresses remembered, as a small switch does.
const NEIGHBOURS_MAX: usize = 64;
/// Longest sleep: a signal that comes just before it is seen then.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where a frame goes.
const LEFT: usize = 0;
const RIGHT: usize = 1;

struct Frame {
    to: usize,
    bytes: Box<[u8]>,
}

/// What the network has done, and how well we have kept its times.
#[derive(Serialize, Debug)]
pub struct Summary {
    to_right: Counts,
    to_left: Counts,
    /// How much later than planned frames have left, microseconds: on average, and the worst.
    late_mean_us: f64,
    late_max_us: f64,
    /// Frames that an interface did not take.
    refused: u64,
}

pub struct Relay {
    left: Vec<SyncDevice>,
    right: SyncDevice,
    /// Towards LEFT and RIGHT.
    lines: [Line; 2],
    flight: Flight<Frame>,
    /// Which of the left interfaces an address is behind.
    learned: HashMap<[u8; 6], usize>,
    start: Instant,
    sent: u64,
    late_ns: u64,
    late_max_ns: u64,
    refused: u64,
}

impl Relay {
    /// Makes the interfaces. `knobs`: from left to right, and back.
    pub fn open(left: &[String], right: &str, knobs: [Knobs; 2], seed: u64) -> Result<Self> {
        ensure!(!left.is_empty(), "one interface at least on the left");
        // Else the kernel may let each sleep take 50 us longer.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).context("timer slack")?;
        let [there, back] = knobs;
        Ok(Self {
            left: left.iter().map(|name| interface(name)).collect::<Result<_>>()?,
            right: interface(right)?,
            lines: [Line::new(back, seed ^ 1 << 32), Line::new(there, seed)],
            flight: Flight::default(),
            learned: HashMap::new(),
            start: Instant::now(),
            sent: 0,
            late_ns: 0,
            late_max_ns: 0,
            refused: 0,
        })
    }

    /// Until `end`.
    pub fn run(&mut self, end: &AtomicBool) -> Result<()> {
        while !end.load(Ordering::Relaxed) {
            let more = self.take_in()?;
            self.let_out();
            if !more {
                self.sleep()?;
            }
        }
        Ok(())
    }

    pub fn summary(&self) -> Summary {
        Summary {
            to_right: self.lines[RIGHT].counts,
            to_left: self.lines[LEFT].counts,
            late_mean_us: self.late_ns as f64 / 1000.0 / self.sent.max(1) as f64,
            late_max_us: self.late_max_ns as f64 / 1000.0,
            refused: self.refused,
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes a burst from each interface. True: there may be more.
    fn take_in(&mut self) -> Result<bool> {
        let mut more = false;
        let mut buffer = [0; FRAME_MAX];
        for port in 0..=self.left.len() {
            for n in 0..BURST {
                let device = self.left.get(port).unwrap_or(&self.right);
                let len = match device.recv(&mut buffer) {
                    Ok(len) => len,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    // An interface that is down for a moment, as when it is moved to its namespace.
                    Err(e) if e.raw_os_error() == Some(Errno::IO.raw_os_error()) => break,
                    Err(e) => return Err(e).context("cannot read from an interface"),
                };
                let to = if port < self.left.len() { RIGHT } else { LEFT };
                self.learn(port, &buffer[..len]);
                self.enter(to, &mut buffer[..len]);
                more |= n == BURST - 1;
            }
        }
        Ok(more)
    }

    fn learn(&mut self, port: usize, frame: &[u8]) {
        if let Some(source) = frame.get(6..12).and_then(|mac| mac.first_chunk::<6>())
            && port < self.left.len()
            && (self.learned.len() < NEIGHBOURS_MAX || self.learned.contains_key(source))
        {
            self.learned.insert(*source, port);
        }
    }

    fn enter(&mut self, to: usize, frame: &mut [u8]) {
        let now_ns = self.now_ns();
        let Ok(Arrival { at_ns, again_ns, damage }) = self.lines[to].send(frame, now_ns) else { return };
        if let Some(again_ns) = again_ns {
            self.flight.push(again_ns, Frame { to, bytes: (&*frame).into() });
        }
        if let Some(bit) = damage {
            frame[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        self.flight.push(at_ns, Frame { to, bytes: (&*frame).into() });
    }

    /// Sends what is due.
    fn let_out(&mut self) {
        for _ in 0..BURST {
            let now_ns = self.now_ns();
            let Some((at_ns, frame)) = self.flight.pop(now_ns) else { return };
            self.sent += 1;
            self.late_ns += now_ns - at_ns;
            self.late_max_ns = self.late_max_ns.max(now_ns - at_ns);
            // A queue that is full or an interface that is down: as if the frame were lost, but counted.
            let refused = self.ways(&frame).iter().filter(|device| device.send(&frame.bytes).is_err()).count();
            self.refused += refused as u64;
        }
    }

    /// The interfaces that a frame is for: all of the side, unless one is known to have its address.
    fn ways(&self, frame: &Frame) -> &[SyncDevice] {
        if frame.to == RIGHT {
            return std::slice::from_ref(&self.right);
        }
        let port = frame.bytes.first_chunk::<6>().and_then(|mac| self.learned.get(mac));
        port.and_then(|&port| self.left.get(port)).map_or(&self.left, std::slice::from_ref)
    }

    /// Until something arrives or is due.
    fn sleep(&self) -> Result<()> {
        let until = self.flight.next_ns().map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(self.now_ns())));
        let wait = until.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        let mut ready: Vec<_> = self.left.iter().chain([&self.right]).map(|device| PollFd::new(device, PollFlags::IN)).collect();
        match poll(&mut ready, Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e).context("poll"),
        }
    }
}

fn interface(name: &str) -> Result<SyncDevice> {
    let builder = DeviceBuilder::new().name(name).layer(Layer::L2).with(|options| {
        options.tx_queue_len(KERNEL_QUEUE);
    });
    let device = builder.build_sync().with_context(|| format!("cannot make the interface {name} (/dev/net/tun)"))?;
    device.set_nonblocking(true)?;
    Ok(device)
}
