//! The receiving half.
//!
//! ```text
//!   buffer:  [skip 6 | header 12 | frame ....................... ]     one buffer, one frame: lent as it lies
//!   spanning frame: [h|frame..] [..frame..] [..frame] ──copied──► spare buffer, lent
//! ```

use super::frames::{Lender, NetFrames};
use super::header::{HEADER_LEN, RxHeader};
use super::settings::WHOLE_FRAME;
use super::{FRAME_MAX, RX_SKIP};
use crate::virtio::Features;
use crate::virtio::queue::{Part, Queue, Used};
use crate::{DmaMemory, Registers};
use alloc::boxed::Box;
use alloc::vec::Vec;
use toe_hal::{Lease, RxBurst, RxFrame, RxLosses, RxOffload, RxPort};

/// Buffers that one pair may give in one call: bounds the time, also with frames that can't be used.
const POPS_MAX: usize = 64;
/// Buffers are given back to the device when so many wait, or when it is short of them.
const REFILL: u16 = 16;
const ETHERNET_HEADER: usize = 14;

/// What was counted on receiving.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RxCounts {
    /// Frames that were copied together from several buffers.
    pub merged: u64,
    /// Lost, because all spare buffers were on loan.
    pub no_spare: u64,
    /// Lost, because the device contradicted itself.
    pub nonsense: u64,
    /// Times that the device was reset.
    pub resets: u64,
}

/// A frame of which not all buffers have come.
#[derive(Debug)]
struct Spanning {
    /// Where it is copied to; `None`: it is lost, and only its end is waited for.
    spare: Option<u16>,
    len: usize,
    buffers_left: u16,
    header: RxHeader,
}

#[derive(Debug)]
struct Pair<R> {
    queue: Queue<R>,
    /// Index of its first buffer among those of all pairs.
    first: u32,
    spanning: Option<Spanning>,
}

/// Buffers for frames that span several.
#[derive(Debug)]
struct Spares {
    memory: DmaMemory,
    free: Vec<u16>,
    /// Index of the first, after those of all pairs.
    first: u32,
}

impl Spares {
    /// Where the frame of a spare buffer lies: [`FRAME_MAX`] bytes.
    fn frame(&self, spare: u16) -> *mut u8 {
        self.memory.base().wrapping_add(usize::from(spare) * WHOLE_FRAME + RX_SKIP + HEADER_LEN)
    }
}

/// What the pairs share.
#[derive(Debug)]
struct Common {
    features: Features,
    lender: Lender,
    spares: Spares,
    counts: RxCounts,
}

/// The receiving half of a port: one core's.
#[derive(Debug)]
pub struct NetRx<R> {
    pairs: Box<[Pair<R>]>,
    common: Common,
    /// The pair to begin with.
    turn: usize,
}

impl<R: Registers> NetRx<R> {
    /// `queues`: their buffers all lie in the `len` bytes at `base`, as does `spares` (whole frames each).
    pub(super) fn new(base: *const u8, len: usize, queues: Vec<Queue<R>>, spares: DmaMemory, features: Features) -> Self {
        let mut first = 0;
        let pairs: Box<[_]> = queues
            .into_iter()
            .map(|queue| {
                let begins = first;
                first += u32::from(queue.buffers());
                Pair { queue, first: begins, spanning: None }
            })
            .collect();
        let count = (spares.len() / WHOLE_FRAME).min(usize::from(u16::MAX)) as u16;
        // SAFETY: all is memory of queues and spares, which stays for ever (`DmaMemory::new`).
        let lender = unsafe { Lender::new(base, len, first as usize + usize::from(count)) };
        let spares = Spares { memory: spares, free: (0..count).collect(), first };
        Self { pairs, common: Common { features, lender, spares, counts: RxCounts::default() }, turn: 0 }
    }

    /// Gives the device all buffers that are not on loan. Once, when it runs.
    pub(super) fn fill(&mut self) {
        for pair in &mut self.pairs {
            for id in 0..pair.queue.buffers() {
                if self.common.lender.is_home(pair.first + u32::from(id)) {
                    pair.post(id);
                }
            }
            pair.queue.kick();
        }
    }

    pub(super) fn queues(&mut self) -> impl Iterator<Item = &mut Queue<R>> {
        self.pairs.iter_mut().map(|pair| &mut pair.queue)
    }

    /// The device has been reset: what it had is ours again, and what was to follow of a frame never comes.
    pub(super) fn rewind(&mut self) {
        for pair in &mut self.pairs {
            pair.queue.rewind();
            let spare = pair.spanning.take().and_then(|spanning| spanning.spare);
            self.common.spares.free.extend(spare);
        }
    }

    pub(super) fn count_reset(&mut self) {
        self.common.counts.resets += 1;
    }

    /// Lets each pair interrupt when its next frame comes, then looks whether one has come already: if so, the caller must not sleep.
    /// [`any`](RxPort::any) does just this.
    pub fn arm(&mut self) -> bool {
        let mut any = false;
        for pair in &mut self.pairs {
            // A device without buffers would never interrupt.
            pair.queue.kick();
            any |= pair.queue.arm();
        }
        any
    }

    /// No interrupts until [`arm`](Self::arm). [`receive`](RxPort::receive) does it for each pair that has frames.
    pub fn disarm(&mut self) {
        self.pairs.iter_mut().for_each(|pair| pair.queue.disarm());
    }

    pub fn counts(&self) -> RxCounts {
        self.common.counts
    }

    /// Whether the device has broken the rules of a queue: nothing more is received from it. Only a reset mends that.
    pub fn is_broken(&self) -> bool {
        self.pairs.iter().any(|pair| pair.queue.is_broken())
    }

    /// Writes to the device's registers so far.
    pub fn kicks(&self) -> u64 {
        self.pairs.iter().map(|pair| pair.queue.kicks()).sum()
    }

    /// Buffers that the device has, or that wait to be given to it.
    #[cfg(any(test, feature = "fake"))]
    pub fn posted(&self) -> usize {
        self.pairs.iter().map(|pair| usize::from(pair.queue.in_flight())).sum()
    }
}

impl<R: Registers> RxPort for NetRx<R> {
    type Frames = NetFrames;

    fn frames(&self) -> NetFrames {
        self.common.lender.frames()
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        let before = burst.len();
        for step in 0..self.pairs.len() {
            let place = (self.turn + step) % self.pairs.len();
            self.pairs[place].receive(&mut self.common, burst);
        }
        self.turn = if self.turn + 1 < self.pairs.len() { self.turn + 1 } else { 0 };
        burst.len() - before
    }

    fn any(&mut self) -> bool {
        self.arm()
    }

    fn release(&mut self, lease: Lease) {
        let Some(index) = self.common.lender.take_back(lease) else { return };
        if let Some(spare) = index.checked_sub(self.common.spares.first) {
            self.common.spares.free.push(spare as u16);
            return;
        }
        if let Some(pair) = self.pairs.iter_mut().rev().find(|pair| pair.first <= index) {
            pair.post((index - pair.first) as u16);
        }
    }

    /// What the device itself loses for want of buffers it does not tell; overruns are what was lost for want of spare buffers.
    fn losses(&mut self) -> RxLosses {
        let counts = self.common.counts;
        RxLosses { overrun: counts.no_spare, unusable: counts.nonsense, resets: counts.resets }
    }
}

impl<R: Registers> Pair<R> {
    fn post(&mut self, id: u16) {
        let part = Part { id, len: self.queue.buffer_len() as u32, is_written: true };
        let posted = self.queue.post(&[part]);
        debug_assert!(posted.is_ok(), "buffer {id} came back twice");
    }

    fn refill(&mut self) {
        let waiting = self.queue.unpublished();
        let has = self.queue.in_flight().saturating_sub(waiting);
        if waiting >= REFILL || waiting > 0 && has < self.queue.buffers() / 2 {
            self.queue.kick();
        }
    }

    fn receive(&mut self, common: &mut Common, burst: &mut RxBurst) {
        self.refill();
        for _ in 0..POPS_MAX {
            if burst.is_full() {
                break;
            }
            // A broken queue has nothing more.
            let Ok(Some(used)) = self.queue.pop() else { break };
            if self.queue.is_armed() {
                self.queue.disarm();
            }
            let frame = match self.spanning.take() {
                None => self.begin(common, used),
                Some(spanning) => self.go_on(common, spanning, used),
            };
            if let Some(frame) = frame {
                let pushed = burst.push(frame);
                debug_assert!(pushed.is_ok(), "room was checked");
            }
        }
    }

    /// The first buffer of a frame: for nearly all frames, the only one.
    fn begin(&mut self, common: &mut Common, used: Used) -> Option<RxFrame> {
        let Some(header) = self.header(&used) else { return self.nonsense(common, used.id) };
        let buffers = header.buffers(common.features);
        if buffers == 0 || buffers > self.queue.buffers() {
            return self.nonsense(common, used.id);
        }
        if buffers > 1 {
            let spare = common.spares.free.pop();
            common.counts.no_spare += u64::from(spare.is_none());
            let spanning = Spanning { spare, len: 0, buffers_left: buffers, header };
            return self.add(common, spanning, used, HEADER_LEN);
        }
        let len = used.len as usize - HEADER_LEN;
        let Some(offload) = offload(&header, common.features, len) else { return self.nonsense(common, used.id) };
        let frame = self.queue.buffer(used.id).wrapping_add(HEADER_LEN);
        // SAFETY: the buffer is ours, and the device gets it again only when the lease has come back.
        let lease = unsafe { common.lender.lend(self.first + u32::from(used.id), frame, len) };
        debug_assert!(lease.is_some(), "a buffer on loan was the device's");
        Some(RxFrame { lease: lease?, len: len as u32, offload })
    }

    /// One more buffer of a frame that spans several. Only the first has a header.
    fn go_on(&mut self, common: &mut Common, spanning: Spanning, used: Used) -> Option<RxFrame> {
        self.add(common, spanning, used, 0)
    }

    /// Appends what a buffer holds behind its first `skip` bytes, gives it back, and hands out the frame when it is complete.
    fn add(&mut self, common: &mut Common, mut spanning: Spanning, used: Used, skip: usize) -> Option<RxFrame> {
        let len = (used.len as usize).saturating_sub(skip);
        if let Some(spare) = spanning.spare {
            if used.is_overlong || spanning.len + len > FRAME_MAX {
                common.counts.nonsense += 1;
                common.spares.free.push(spare);
                spanning.spare = None;
            } else {
                let to = common.spares.frame(spare).wrapping_add(spanning.len);
                // SAFETY: skip + len bytes lie in the buffer, which is ours; the spare buffer is ours, not on loan, and has room for
                // FRAME_MAX bytes.
                unsafe { core::ptr::copy_nonoverlapping(self.queue.buffer(used.id).add(skip), to, len) };
                spanning.len += len;
            }
        }
        self.post(used.id);
        spanning.buffers_left -= 1;
        if spanning.buffers_left > 0 {
            self.spanning = Some(spanning);
            return None;
        }
        finish(common, &spanning)
    }

    /// The header, if the buffer holds one and the device does not lie about its length.
    fn header(&self, used: &Used) -> Option<RxHeader> {
        if used.is_overlong || (used.len as usize) < HEADER_LEN {
            return None;
        }
        let mut bytes = [0; HEADER_LEN];
        // SAFETY: the buffer is ours and holds `used.len` bytes at least.
        unsafe { core::ptr::copy_nonoverlapping(self.queue.buffer(used.id), bytes.as_mut_ptr(), HEADER_LEN) };
        Some(RxHeader::decode(&bytes))
    }

    fn nonsense(&mut self, common: &mut Common, id: u16) -> Option<RxFrame> {
        common.counts.nonsense += 1;
        self.post(id);
        None
    }
}

/// Lends a frame that was copied together.
fn finish(common: &mut Common, spanning: &Spanning) -> Option<RxFrame> {
    let (spare, len) = (spanning.spare?, spanning.len);
    let offload = offload(&spanning.header, common.features, len);
    // SAFETY: the spare buffer is ours, and is written again only when the lease has come back.
    let lend = |lender: &mut Lender| unsafe { lender.lend(common.spares.first + u32::from(spare), common.spares.frame(spare), len) };
    match offload.and_then(|offload| Some((offload, lend(&mut common.lender)?))) {
        Some((offload, lease)) => {
            common.counts.merged += 1;
            Some(RxFrame { lease, len: len as u32, offload })
        }
        None => {
            common.counts.nonsense += 1;
            common.spares.free.push(spare);
            None
        }
    }
}

fn offload(header: &RxHeader, features: Features, len: usize) -> Option<RxOffload> {
    if (ETHERNET_HEADER..=FRAME_MAX).contains(&len) { header.offload(features, len) } else { None }
}
