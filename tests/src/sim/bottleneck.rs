//! The slowest link of a path: a queue that serves frames at a rate, marks those that find it long (RFC 3168), and loses those that find it full.

use toe_wire::congestion::mark;

/// A queue in front of a link.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    pub kbps: u64,
    /// A frame that finds more bytes than this gets CE, if its sender can make use of it.
    pub mark_at: u64,
    /// A frame that finds more bytes than this is lost.
    pub limit: u64,
}

/// What went through a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub frames: u64,
    pub marked: u64,
    pub lost: u64,
    /// Bytes that frames found in the queue, all together.
    pub found: u64,
}

impl Load {
    /// Bytes that a frame finds in the queue, on average.
    pub fn mean_queue(&self) -> u64 {
        self.found / self.frames.max(1)
    }
}

/// One direction of the path.
#[derive(Clone, Copy, Debug)]
pub struct Bottleneck {
    queue: Queue,
    /// When the queue will be empty, nanoseconds.
    empty_at_ns: u64,
    pub load: Load,
}

impl Bottleneck {
    pub fn new(queue: Queue) -> Self {
        Self { queue, empty_at_ns: 0, load: Load::default() }
    }

    /// A frame arrives: when it has left the link, microseconds. None: it is lost.
    pub fn pass(&mut self, frame: &mut [u8], now_us: u64) -> Option<u64> {
        let ns_of = |bytes: u64| bytes * 8_000_000 / self.queue.kbps;
        let start_ns = self.empty_at_ns.max(now_us * 1000);
        let waiting = (start_ns - now_us * 1000) * self.queue.kbps / 8_000_000;
        self.load.frames += 1;
        self.load.found += waiting;
        if waiting > self.queue.limit {
            self.load.lost += 1;
            return None;
        }
        if waiting > self.queue.mark_at && mark(frame) {
            self.load.marked += 1;
        }
        self.empty_at_ns = start_ns + ns_of(frame.len() as u64);
        Some(self.empty_at_ns.div_ceil(1000))
    }
}
