//! A port that runs out of room and reads payload as late as it may.

use super::{Chance, FakeSlice};
use crate::{Frames, Lease, PortCaps, RxBurst, RxFrame, RxOffload, RxPort, TxBusy, TxFrame, TxOffload, TxPort};
use std::{
    boxed::Box,
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    vec::Vec,
};

/// What a [`FakePort`] does to its caller.
#[derive(Clone, Copy, Debug)]
pub struct PortKnobs {
    /// Frames that may be queued between two flushes.
    pub tx_room: usize,
    /// How often `transmit` says busy although there is room.
    pub busy_percent: u8,
    /// How often a flushed frame is lost (and counted by `flush`).
    pub lose_percent: u8,
    /// Most frames in one `receive`.
    pub rx_burst: usize,
}

impl Default for PortKnobs {
    fn default() -> Self {
        Self { tx_room: usize::MAX, busy_percent: 0, lose_percent: 0, rx_burst: 32 }
    }
}

/// A frame on its way to the card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeFrame {
    pub bytes: Vec<u8>,
    pub offload: RxOffload,
}

/// A frame that the card has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentFrame {
    pub bytes: Vec<u8>,
    pub offload: TxOffload,
}

impl SentFrame {
    /// The same frame as a peer on the same machine receives it: not cut, checksum not finished.
    pub fn into_received(self) -> FakeFrame {
        let offload =
            RxOffload { csum_ok: self.offload.partial_csum, partial_csum: self.offload.partial_csum, gso_size: self.offload.gso_size };
        FakeFrame { bytes: self.bytes, offload }
    }
}

struct Queued {
    header: Vec<u8>,
    payload: Vec<FakeSlice>,
    payload_len: u32,
    offload: TxOffload,
}

struct Inner {
    caps: PortCaps,
    knobs: PortKnobs,
    chance: Chance,
    rx: VecDeque<FakeFrame>,
    leases: Vec<Option<Box<[u8]>>>,
    queued: Vec<Queued>,
    /// It has said so: until the next flush.
    busy: bool,
    sent: VecDeque<SentFrame>,
}

/// Queues of frames in both directions; see [`PortKnobs`]. Clones are the same port: the card gets one as each of its parts, the test
/// keeps one.
#[derive(Clone)]
pub struct FakePort(Arc<Mutex<Inner>>);

impl FakePort {
    pub fn new(caps: PortCaps, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            caps,
            knobs: PortKnobs::default(),
            chance: Chance::new(seed),
            rx: VecDeque::new(),
            leases: Vec::new(),
            queued: Vec::new(),
            busy: false,
            sent: VecDeque::new(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_knobs(&self, knobs: PortKnobs) {
        self.inner().knobs = knobs;
    }

    /// A frame arrives from the wire.
    pub fn arrive(&self, frame: FakeFrame) {
        self.inner().rx.push_back(frame);
    }

    /// The oldest frame that was flushed and not taken yet.
    pub fn take_sent(&self) -> Option<SentFrame> {
        self.inner().sent.pop_front()
    }

    /// Frames that wait to be received.
    pub fn waiting(&self) -> usize {
        self.inner().rx.len()
    }

    /// Leases not given back.
    pub fn leases_out(&self) -> usize {
        self.inner().leases.iter().flatten().count()
    }
}

impl Inner {
    fn lend(&mut self, bytes: Vec<u8>) -> Lease {
        let free = self.leases.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.leases.push(None);
            self.leases.len() - 1
        });
        self.leases[index] = Some(bytes.into_boxed_slice());
        // SAFETY: the place was free, so no lease of it is out.
        unsafe { Lease::new(index as u32) }
    }
}

impl RxPort for FakePort {
    type Frames = Self;

    fn frames(&self) -> Self {
        self.clone()
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        let inner = &mut *self.inner();
        let mut n = 0;
        while n < inner.knobs.rx_burst && !burst.is_full() {
            let Some(FakeFrame { bytes, offload }) = inner.rx.pop_front() else { break };
            let len = bytes.len() as u32;
            let lease = inner.lend(bytes);
            burst.push(RxFrame { lease, len, offload }).expect("room was checked");
            n += 1;
        }
        n
    }

    fn any(&mut self) -> bool {
        self.waiting() > 0
    }

    fn release(&mut self, lease: Lease) {
        let old = self.inner().leases[lease.index() as usize].take();
        assert!(old.is_some(), "{lease:?} given back twice");
    }
}

impl Frames for FakePort {
    fn frame<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        let inner = self.inner();
        let bytes: *const [u8] = &**inner.leases[lease.index() as usize].as_ref().expect("a lease that is out");
        // SAFETY: the box stays where it is until its lease, which is borrowed for 'a, is given to `release`; the port is kept
        // alive by `self`, and nobody writes the bytes.
        unsafe { &*bytes }
    }
}

impl TxPort<FakeSlice> for FakePort {
    fn caps(&self) -> PortCaps {
        self.inner().caps
    }

    fn transmit(&mut self, frame: &TxFrame<'_, FakeSlice>) -> Result<(), TxBusy> {
        let inner = &mut *self.inner();
        inner.busy |= inner.queued.len() >= inner.knobs.tx_room || inner.chance.percent(inner.knobs.busy_percent);
        if inner.busy {
            return Err(TxBusy);
        }
        let slices: u32 = frame.payload.iter().map(|s| s.len).sum();
        assert_eq!(slices, frame.payload_len, "payload_len is not the sum of its slices");
        inner.queued.push(Queued {
            header: frame.header.to_vec(),
            payload: frame.payload.to_vec(),
            payload_len: frame.payload_len,
            offload: frame.offload,
        });
        Ok(())
    }

    /// Reads host memory only now, as the contract allows.
    fn flush(&mut self) -> usize {
        let inner = &mut *self.inner();
        let mut lost = 0;
        inner.busy = false;
        for q in inner.queued.drain(..) {
            let mut bytes = q.header;
            bytes.reserve(q.payload_len as usize);
            q.payload.iter().for_each(|s| bytes.extend(s.read()));
            if inner.chance.percent(inner.knobs.lose_percent) {
                lost += 1;
            } else {
                inner.sent.push_back(SentFrame { bytes, offload: q.offload });
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> FakePort {
        FakePort::new(PortCaps { mac: [2; 6], mtu: 1500, tx_csum: true, tso_max: 0 }, 1)
    }

    fn tx(header: &[u8]) -> TxFrame<'_, FakeSlice> {
        TxFrame { header, payload: &[], payload_len: 0, offload: TxOffload::default() }
    }

    #[test]
    fn frames_are_lent_until_released() {
        let mut p = port();
        p.arrive(FakeFrame { bytes: vec![1, 2, 3], offload: RxOffload::default() });
        let mut burst = RxBurst::new();
        assert_eq!(p.receive(&mut burst), 1);
        let frame = burst.pop().unwrap();
        assert_eq!(Frames::frame(&p, &frame.lease), [1, 2, 3]);
        p.release(frame.lease);
        assert_eq!(p.leases_out(), 0);
    }

    #[test]
    fn a_port_without_room_is_busy_until_flushed() {
        let mut p = port();
        p.set_knobs(PortKnobs { tx_room: 1, ..Default::default() });
        assert_eq!(p.transmit(&tx(b"a")), Ok(()));
        assert_eq!(p.transmit(&tx(b"b")), Err(TxBusy));
        assert_eq!(p.flush(), 0);
        assert_eq!(p.transmit(&tx(b"b")), Ok(()));
        assert_eq!(p.take_sent().unwrap().bytes, b"a");
        p.set_knobs(PortKnobs { tx_room: 0, ..Default::default() });
        assert_eq!((p.flush(), p.transmit(&tx(b"c"))), (0, Err(TxBusy)));
        p.set_knobs(PortKnobs::default());
        assert_eq!(p.transmit(&tx(b"c")), Err(TxBusy), "whatever has become free");
        assert_eq!((p.flush(), p.transmit(&tx(b"c"))), (0, Ok(())));
    }
}
