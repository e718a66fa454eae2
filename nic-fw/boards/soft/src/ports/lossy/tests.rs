//! The bad wire over a port that counts.

use super::*;
use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// Receives frames numbered from 0 on, and keeps what is sent.
#[derive(Default)]
struct Seen {
    out: Vec<Vec<u8>>,
    leased: Vec<u32>,
    to_come: u32,
}

struct Counting {
    seen: Rc<RefCell<Seen>>,
    next: u32,
    frames: Vec<[u8; 4]>,
    fd: OwnedFd,
}

impl EthPort<SoftSlice> for Counting {
    fn caps(&self) -> PortCaps {
        PortCaps { mac: [2; 6], mtu: 1500, tx_csum: true, tso_max: 0 }
    }

    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        let mut seen = self.seen.borrow_mut();
        let mut count = 0;
        while seen.to_come > 0 && burst.len() < BURST {
            let lease = Lease(self.next);
            self.frames.push(self.next.to_be_bytes());
            seen.leased.push(self.next);
            burst.push(RxFrame { lease, len: 4, offload: Default::default() }).unwrap();
            self.next += 1;
            seen.to_come -= 1;
            count += 1;
        }
        count
    }

    fn frame(&self, lease: Lease) -> &[u8] {
        assert!(self.seen.borrow().leased.contains(&lease.0), "read after release");
        &self.frames[lease.0 as usize]
    }

    fn release(&mut self, lease: Lease) {
        let mut seen = self.seen.borrow_mut();
        let at = seen.leased.iter().position(|l| *l == lease.0).expect("released twice");
        seen.leased.remove(at);
    }

    fn transmit(&mut self, frame: &TxFrame<'_, SoftSlice>) -> Result<(), TxBusy> {
        let mut bytes = frame.header.to_vec();
        frame.payload.iter().for_each(|s| s.copy_to(&mut bytes));
        self.seen.borrow_mut().out.push(bytes);
        Ok(())
    }

    fn flush(&mut self) -> usize {
        0
    }
}

impl SoftPort for Counting {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn check(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    fn stats(&mut self) -> PortStats {
        PortStats::default()
    }
}

fn lossy(text: &str) -> (Lossy, Rc<RefCell<Seen>>) {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
    let inner = Counting { seen: seen.clone(), next: 0, frames: Vec::new(), fd };
    (Lossy::new(Box::new(inner), &text.parse().unwrap()), seen)
}

/// Receives `count` frames to the end; the numbers in the order of delivery.
fn receive(port: &mut Lossy, seen: &Rc<RefCell<Seen>>, count: u32) -> Vec<u32> {
    seen.borrow_mut().to_come = count;
    let mut got = Vec::new();
    while seen.borrow().to_come > 0 || port.holding() {
        let mut burst = RxBurst::new();
        port.receive(&mut burst);
        for frame in burst {
            got.push(u32::from_be_bytes(port.frame(frame.lease).try_into().unwrap()));
            port.release(frame.lease);
        }
    }
    assert_eq!(seen.borrow().leased, [] as [u32; 0], "every lease came back");
    got
}

fn send(port: &mut Lossy, seen: &Rc<RefCell<Seen>>, count: u32) -> Vec<u32> {
    for i in 0..count {
        let bytes = i.to_be_bytes();
        let frame = TxFrame { header: &bytes[..2], payload: &[SoftSlice::of(&bytes[2..])], payload_len: 2, offload: Default::default() };
        port.transmit(&frame).unwrap();
        port.flush();
    }
    while port.holding() {
        port.receive(&mut RxBurst::new());
    }
    seen.borrow().out.iter().map(|b| u32::from_be_bytes(b.as_slice().try_into().unwrap())).collect()
}

const ALL: &str = "loss=0.1,dup=0.1,reorder=0.1,delay=0.05,seed=7";

#[test]
fn without_impairments_everything_passes_in_order() {
    let (mut port, seen) = lossy("");
    assert_eq!(receive(&mut port, &seen, 1000), (0..1000).collect::<Vec<_>>());
    assert_eq!(send(&mut port, &seen, 100), (0..100).collect::<Vec<_>>());
}

#[test]
fn the_same_seed_gives_the_same_fates() {
    let run = |text: &str| {
        let (mut port, seen) = lossy(text);
        (receive(&mut port, &seen, 2000), send(&mut port, &seen, 2000))
    };
    assert_eq!(run(ALL), run(ALL));
    assert_ne!(run(ALL), run(&ALL.replace("seed=7", "seed=8")));
}

#[test]
fn each_impairment_happens_about_as_often_as_asked() {
    let (mut port, seen) = lossy("loss=0.1,seed=3");
    let got = receive(&mut port, &seen, 10_000);
    assert!((8_700..9_300).contains(&got.len()), "lost {}", 10_000 - got.len());

    let (mut port, seen) = lossy("dup=0.1,seed=3");
    let got = receive(&mut port, &seen, 10_000);
    assert!((10_700..11_300).contains(&got.len()), "doubled {}", got.len() - 10_000);

    let (mut port, seen) = lossy("reorder=0.1,depth=3,seed=3");
    let got = receive(&mut port, &seen, 10_000);
    let late = got.windows(2).filter(|w| w[0] > w[1]).count();
    assert!((600..1_100).contains(&late), "late {late}");
    let mut sorted = got.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..10_000).collect::<Vec<_>>(), "reordering loses nothing");
    assert!(got.iter().enumerate().all(|(at, n)| at.abs_diff(*n as usize) <= 8), "nobody is later than asked");
}

#[test]
fn one_direction_alone() {
    let (mut port, seen) = lossy("loss=1,dir=tx");
    assert_eq!(receive(&mut port, &seen, 100).len(), 100);
    assert_eq!(send(&mut port, &seen, 100).len(), 0);
}

#[test]
fn a_late_frame_is_a_copy() {
    let (mut port, seen) = lossy("delay=1,delay_by=2,dir=tx");
    let mut bytes = *b"headerpayload";
    let (header, payload) = bytes.split_at(6);
    let frame = TxFrame { header, payload: &[SoftSlice::of(payload)], payload_len: 7, offload: Default::default() };
    port.transmit(&frame).unwrap();
    port.flush();
    bytes.fill(0);
    while port.holding() {
        port.receive(&mut RxBurst::new());
    }
    assert_eq!(seen.borrow().out, [b"headerpayload"]);
}

#[test]
fn bad_impairments_are_refused() {
    for bad in ["loss=2", "loss=-0.1", "loss", "speed=1", "depth=0", "dir=up", "seed=x"] {
        assert!(bad.parse::<Impairments>().is_err(), "{bad}");
    }
    assert_eq!("".parse::<Impairments>(), Ok(Impairments::default()));
}
