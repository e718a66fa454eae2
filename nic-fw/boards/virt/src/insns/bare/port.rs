//! The port: hands out frames that lie ready, and counts what the card sends. What it does is not the card's.

use super::count::aside;
use super::frames::CARD_MAC;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use toe_hal::{Frames, Lease, PortCaps, RxBurst, RxFrame, RxOffload, RxPort, TxBusy, TxFrame, TxPort};
use toe_virt::window::WindowSlice;

/// What happens on the wire. One core: all relaxed.
#[derive(Debug, Default)]
pub struct Wire {
    /// Frame to be received next, and the one before which the peer stops.
    next: AtomicU32,
    end: AtomicU32,
    /// Most frames in a burst.
    burst: AtomicU32,
    /// Frames that the card has sent.
    sent: AtomicU32,
    /// Of these, with payload.
    sent_data: AtomicU32,
}

impl Wire {
    /// The peer sends `count` frames, from number `from` on, `burst` at a time (or as many as the card takes).
    pub fn replay(&self, from: u32, count: u32, burst: u32) {
        self.burst.store(burst, Ordering::Relaxed);
        self.next.store(from, Ordering::Relaxed);
        self.end.store(from + count, Ordering::Relaxed);
    }

    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn sent_data(&self) -> u32 {
        self.sent_data.load(Ordering::Relaxed)
    }
}

/// The bytes of all frames.
#[derive(Clone, Debug)]
pub struct Replay(pub Arc<[Box<[u8]>]>);

impl Replay {
    fn get(&self, index: u32) -> &[u8] {
        self.0.get(index as usize).map_or(&[], |frame| frame)
    }
}

impl Frames for Replay {
    fn frame<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        aside(|| self.get(lease.index()))
    }
}

pub struct ReplayRx {
    pub wire: Arc<Wire>,
    pub frames: Replay,
}

impl ReplayRx {
    fn fill(&mut self, burst: &mut RxBurst) -> usize {
        let before = burst.len();
        let (mut next, end) = (self.wire.next.load(Ordering::Relaxed), self.wire.end.load(Ordering::Relaxed));
        let end = end.min(next.saturating_add(self.wire.burst.load(Ordering::Relaxed)));
        while next < end && !burst.is_full() {
            // SAFETY: each frame is handed out once, and the bytes behind it never change.
            let lease = unsafe { Lease::new(next) };
            let len = self.frames.get(next).len() as u32;
            // There is room, as was just asked.
            let _ = burst.push(RxFrame { lease, len, offload: RxOffload { csum_ok: true, ..RxOffload::default() } });
            next += 1;
        }
        self.wire.next.store(next, Ordering::Relaxed);
        burst.len() - before
    }
}

impl RxPort for ReplayRx {
    type Frames = Replay;

    fn frames(&self) -> Replay {
        self.frames.clone()
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        aside(|| self.fill(burst))
    }

    fn any(&mut self) -> bool {
        self.wire.next.load(Ordering::Relaxed) < self.wire.end.load(Ordering::Relaxed)
    }

    fn release(&mut self, lease: Lease) {
        aside(|| drop(lease));
    }
}

pub struct CountTx(pub Arc<Wire>);

impl TxPort<WindowSlice> for CountTx {
    fn caps(&self) -> PortCaps {
        PortCaps { mac: CARD_MAC, mtu: 1500, tx_csum: true, tso_max: 0 }
    }

    fn transmit(&mut self, frame: &TxFrame<'_, WindowSlice>) -> Result<(), TxBusy> {
        aside(|| {
            self.0.sent.fetch_add(1, Ordering::Relaxed);
            self.0.sent_data.fetch_add(u32::from(frame.payload_len > 0), Ordering::Relaxed);
        });
        Ok(())
    }

    fn flush(&mut self) -> usize {
        aside(|| 0)
    }
}
