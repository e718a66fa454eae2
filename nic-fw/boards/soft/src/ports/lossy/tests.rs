//! The bad wire over a port that counts.

use super::super::frames::Lender;
use super::super::{PortError, SoftFrames, SoftRx};
use super::*;
use crate::memory::SoftSlice;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use toe_hal::{Frames, Lease, PortCaps, RxBurst, RxFrame, RxPort, TxBusy, TxFrame, TxPort};

/// Frames that the inner port can receive: each has a slot of its own.
const FRAMES: usize = 10_000;

#[derive(Default)]
struct Seen {
    out: Vec<Vec<u8>>,
    leased: usize,
    to_come: u32,
}

/// Receives frames numbered from 0 on, and keeps what is sent.
struct Counting {
    seen: Arc<Mutex<Seen>>,
    next: usize,
    lender: Lender,
    fd: OwnedFd,
}

impl RxPort for Counting {
    type Frames = SoftFrames;

    fn frames(&self) -> SoftFrames {
        self.lender.frames()
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        let mut seen = self.seen.lock().unwrap();
        let before = burst.len();
        while seen.to_come > 0 && !burst.is_full() {
            let at = (self.next + 1) * 4;
            // SAFETY: inside the memory, aligned, never on loan before.
            unsafe { self.lender.base().add(at).cast::<[u8; 4]>().write((self.next as u32).to_be_bytes()) };
            // SAFETY: written just now, and never again.
            let lease = unsafe { self.lender.lend(self.next, at, 4) }.unwrap();
            burst.push(RxFrame { lease, len: 4, offload: Default::default() }).unwrap();
            self.next += 1;
            seen.leased += 1;
            seen.to_come -= 1;
        }
        burst.len() - before
    }

    fn any(&mut self) -> bool {
        self.seen.lock().unwrap().to_come > 0
    }

    fn release(&mut self, lease: Lease) {
        assert!(self.lender.take_back(lease).is_some());
        self.seen.lock().unwrap().leased -= 1;
    }
}

impl SoftRx for Counting {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn check(&mut self) -> Result<(), PortError> {
        Ok(())
    }
}

/// Keeps what is sent.
struct Keeping(Arc<Mutex<Seen>>);

impl TxPort<SoftSlice> for Keeping {
    fn caps(&self) -> PortCaps {
        PortCaps { mac: [2; 6], mtu: 1500, tx_csum: true, tso_max: 0 }
    }

    fn transmit(&mut self, frame: &TxFrame<'_, SoftSlice>) -> Result<(), TxBusy> {
        let mut bytes = frame.header.to_vec();
        frame.payload.iter().for_each(|s| s.copy_to(&mut bytes));
        self.0.lock().unwrap().out.push(bytes);
        Ok(())
    }

    fn flush(&mut self) -> usize {
        0
    }
}

/// A bad wire around a port that counts.
struct Bench {
    port: Port,
    seen: Arc<Mutex<Seen>>,
}

fn lossy(text: &str) -> Bench {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
    let lender = Lender::allocate((FRAMES + 1) * 4, FRAMES).unwrap();
    let rx = Counting { seen: seen.clone(), next: 0, lender, fd };
    let port = Port { rx: Box::new(rx), tx: Box::new(Keeping(seen.clone())) };
    Bench { port: around(port, &text.parse().unwrap()), seen }
}

impl Bench {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn number(&self, lease: &Lease) -> u32 {
        u32::from_be_bytes(self.port.rx.frames().frame(lease).try_into().unwrap())
    }

    /// Receives `count` frames to the end; the numbers in the order of delivery.
    fn receive(&mut self, count: u32) -> Vec<u32> {
        self.seen().to_come = count;
        let mut got = Vec::new();
        while self.port.rx.any() || self.port.rx.holding() {
            let mut burst = RxBurst::new();
            self.port.rx.receive(&mut burst);
            for frame in burst {
                got.push(self.number(&frame.lease));
                self.port.rx.release(frame.lease);
            }
        }
        assert_eq!(self.seen().leased, 0, "every lease came back");
        got
    }

    fn send(&mut self, count: u32) -> Vec<u32> {
        for i in 0..count {
            let bytes = i.to_be_bytes();
            let frame =
                TxFrame { header: &bytes[..2], payload: &[SoftSlice::of(&bytes[2..])], payload_len: 2, offload: Default::default() };
            self.port.tx.transmit(&frame).unwrap();
            self.port.tx.flush();
        }
        self.send_all_late();
        self.seen().out.iter().map(|b| u32::from_be_bytes(b.as_slice().try_into().unwrap())).collect()
    }

    fn send_all_late(&mut self) {
        while self.port.tx.holding() {
            self.port.tx.flush();
        }
    }
}

const ALL: &str = "loss=0.1,dup=0.1,reorder=0.1,delay=0.05,seed=7";

#[test]
fn without_impairments_everything_passes_in_order() {
    let mut bench = lossy("");
    assert_eq!(bench.receive(1000), (0..1000).collect::<Vec<_>>());
    assert_eq!(bench.send(100), (0..100).collect::<Vec<_>>());
}

#[test]
fn the_same_seed_gives_the_same_fates() {
    let run = |text: &str| {
        let mut bench = lossy(text);
        (bench.receive(2000), bench.send(2000))
    };
    assert_eq!(run(ALL), run(ALL));
    assert_ne!(run(ALL), run(&ALL.replace("seed=7", "seed=8")));
}

#[test]
fn each_impairment_happens_about_as_often_as_asked() {
    let mut bench = lossy("loss=0.1,seed=3");
    let got = bench.receive(10_000);
    assert!((8_700..9_300).contains(&got.len()), "lost {}", 10_000 - got.len());

    let mut bench = lossy("dup=0.1,seed=3");
    let got = bench.receive(10_000);
    assert!((10_700..11_300).contains(&got.len()), "doubled {}", got.len() - 10_000);

    let mut bench = lossy("reorder=0.1,depth=3,seed=3");
    let got = bench.receive(10_000);
    let late = got.windows(2).filter(|w| w[0] > w[1]).count();
    assert!((600..1_100).contains(&late), "late {late}");
    let mut sorted = got.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..10_000).collect::<Vec<_>>(), "reordering loses nothing");
    assert!(got.iter().enumerate().all(|(at, n)| at.abs_diff(*n as usize) <= 8), "nobody is later than asked");
}

#[test]
fn one_direction_alone() {
    let mut bench = lossy("loss=1,dir=tx");
    assert_eq!(bench.receive(100).len(), 100);
    assert_eq!(bench.send(100).len(), 0);
}

#[test]
fn late_frames_are_late_by_as_many_frames_as_asked() {
    assert_eq!(lossy("delay=1,delay_by=2,dir=rx").receive(5), [0, 1, 2, 3, 4], "all of them");
    let text = "delay=0.1,delay_by=3";
    for got in [lossy(text).receive(200), lossy(text).send(200)] {
        // Fewer only where one of the three is late itself.
        assert_eq!(got.windows(2).map(|w| w[0].saturating_sub(w[1])).max(), Some(3), "{got:?}");
    }
}

#[test]
fn a_doubled_frame_comes_again_with_its_lease() {
    let mut bench = lossy("dup=1,dir=rx");
    bench.seen().to_come = 1;
    let mut burst = RxBurst::new();
    assert_eq!(bench.port.rx.receive(&mut burst), 1);
    let first = burst.pop().unwrap();
    assert!(!bench.port.rx.any() && !bench.port.rx.holding(), "nothing before it is back");
    bench.port.rx.release(first.lease);
    assert!(bench.port.rx.any() && bench.port.rx.holding());
    assert_eq!(bench.port.rx.receive(&mut burst), 1);
    let second = burst.pop().unwrap();
    assert_eq!((bench.number(&second.lease), second.len, bench.seen().leased), (0, 4, 1));
    bench.port.rx.release(second.lease);
    assert!(!bench.port.rx.any() && !bench.port.rx.holding());
    assert_eq!(bench.seen().leased, 0);
}

#[test]
fn a_late_frame_is_a_copy() {
    let mut bench = lossy("delay=1,delay_by=2,dir=tx");
    let mut bytes = *b"headerpayload";
    let (header, payload) = bytes.split_at(6);
    let frame = TxFrame { header, payload: &[SoftSlice::of(payload)], payload_len: 7, offload: Default::default() };
    bench.port.tx.transmit(&frame).unwrap();
    bench.port.tx.flush();
    assert!(bench.port.tx.holding() && bench.seen().out.is_empty());
    bytes.fill(0);
    bench.send_all_late();
    assert_eq!(bench.seen().out, [b"headerpayload"]);
}

#[test]
fn bad_impairments_are_refused() {
    for bad in ["loss=2", "loss=-0.1", "loss", "speed=1", "depth=0", "dir=up", "seed=x"] {
        assert!(bad.parse::<Impairments>().is_err(), "{bad}");
    }
    assert_eq!("".parse::<Impairments>(), Ok(Impairments::default()));
}
