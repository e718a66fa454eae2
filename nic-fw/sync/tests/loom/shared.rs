//! What lies in shared memory: queues, sleep and wake, rings of frames.

use crate::memory::Memory;
use crate::model;
use crate::oracle::{Tiny, no_lost_wakeup, same_order};
use loom::sync::Arc;
use loom::thread;
use toe_abi::frames::{FrameRecord, kind};
use toe_sync::atomic::{AtomicU32, Ordering};
use toe_sync::frame_ring::{FrameConsumer, FrameProducer, FrameRingMemory};
use toe_sync::queue::{Consumer, Producer};
use toe_sync::sleep;

#[test]
fn queue_delivers_in_order_and_untorn() {
    model(|| {
        let memory = Arc::new(Memory::new(Memory::queue_len::<Tiny>(2)));
        // SAFETY: both threads keep the memory alive by their `Arc`.
        let queue = unsafe { memory.queue::<Tiny>(2) };
        let keep = memory.clone();
        let sender = thread::spawn(move || {
            let mut producer = Producer::new(queue);
            let pushed: Vec<u32> = (1..=4).filter(|&n| producer.push(Tiny::new(n)).is_ok()).collect();
            drop(keep);
            pushed
        });
        let mut consumer = Consumer::new(queue);
        let mut popped = Vec::new();
        for _ in 0..3 {
            popped.extend(consumer.pop().map(Tiny::check));
            consumer.publish();
        }
        let pushed = sender.join().unwrap();
        popped.extend(std::iter::from_fn(|| consumer.pop()).map(Tiny::check));
        same_order(&pushed, &popped);
    });
}

#[test]
fn queue_attach_after_the_producer_has_gone() {
    model(|| {
        let memory = Arc::new(Memory::new(Memory::queue_len::<Tiny>(2)));
        // SAFETY: both threads keep the memory alive by their `Arc`.
        let queue = unsafe { memory.queue::<Tiny>(2) };
        let keep = memory.clone();
        let first = thread::spawn(move || {
            Producer::new(queue).push(Tiny::new(1)).unwrap();
            drop(keep);
        });
        let mut consumer = Consumer::new(queue);
        let mut popped: Vec<u32> = consumer.pop().map(Tiny::check).into_iter().collect();
        consumer.publish();
        first.join().unwrap();
        Producer::attach(queue).push(Tiny::new(2)).unwrap();
        let mut consumer = Consumer::attach(queue);
        popped.extend(std::iter::from_fn(|| consumer.pop()).map(Tiny::check));
        same_order(&[1, 2], &popped);
    });
}

/// The two halves of the sleep/wake protocol, so that the model can be run with a fence missing.
trait Protocol {
    fn prepare(flag: &AtomicU32);
    fn must_wake(flag: &AtomicU32) -> bool;
}

struct Real;
impl Protocol for Real {
    fn prepare(flag: &AtomicU32) {
        sleep::prepare(flag);
    }
    fn must_wake(flag: &AtomicU32) -> bool {
        sleep::must_wake(flag)
    }
}

struct SleeperWithoutFence;
impl Protocol for SleeperWithoutFence {
    fn prepare(flag: &AtomicU32) {
        flag.store(sleep::PARKED, Ordering::Relaxed);
    }
    fn must_wake(flag: &AtomicU32) -> bool {
        sleep::must_wake(flag)
    }
}

struct WakerWithoutFence;
impl Protocol for WakerWithoutFence {
    fn prepare(flag: &AtomicU32) {
        sleep::prepare(flag);
    }
    fn must_wake(flag: &AtomicU32) -> bool {
        flag.load(Ordering::Relaxed) != sleep::AWAKE
    }
}

/// A consumer that sleeps if its queue is empty, a producer that kicks it if it must.
fn sleep_and_wake<P: Protocol>() {
    model(|| {
        let memory = Arc::new(Memory::new(Memory::queue_len::<Tiny>(2)));
        let flag = Arc::new(AtomicU32::new(0));
        // SAFETY: both threads keep the memory alive by their `Arc`.
        let queue = unsafe { memory.queue::<Tiny>(2) };
        let (keep, parked) = (memory.clone(), flag.clone());
        let waker = thread::spawn(move || {
            Producer::new(queue).push(Tiny::new(1)).unwrap();
            drop(keep);
            P::must_wake(&parked)
        });
        let mut consumer = Consumer::new(queue);
        P::prepare(&flag);
        let slept = consumer.is_empty();
        if !slept {
            sleep::cancel(&flag);
            assert_eq!(consumer.pop().map(Tiny::check), Some(1));
        }
        let kicked = waker.join().unwrap();
        no_lost_wakeup(slept, kicked);
    });
}

#[test]
fn sleep_loses_no_wakeup() {
    sleep_and_wake::<Real>();
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn sleep_without_the_sleepers_fence_is_found() {
    sleep_and_wake::<SleeperWithoutFence>();
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn sleep_without_the_wakers_fence_is_found() {
    sleep_and_wake::<WakerWithoutFence>();
}

/// A sleeper that waits for two wakers at once (events of the card, notices of toed) on one flag.
#[test]
fn sleep_with_two_wakers() {
    model(|| {
        let words = Arc::new([AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)]);
        let wakers: Vec<_> = (0..2)
            .map(|i| {
                let words = words.clone();
                thread::spawn(move || {
                    words[i].store(1, Ordering::Release);
                    sleep::must_wake(&words[2])
                })
            })
            .collect();
        let sleeper = sleep::Sleeper::prepare(&words[2]);
        let unseen: Vec<bool> = (0..2).map(|i| words[i].load(Ordering::Acquire) == 0).collect();
        let slept = unseen.iter().all(|u| *u);
        if !slept {
            sleeper.cancel();
        } else {
            std::mem::forget(sleeper);
        }
        let kicked: Vec<bool> = wakers.into_iter().map(|w| w.join().unwrap()).collect();
        for i in 0..2 {
            no_lost_wakeup(slept && unseen[i], kicked[i]);
        }
    });
}

#[test]
fn frame_ring_delivers_in_order_and_untorn() {
    model(|| {
        // Header and 256 bytes: one frame, and a second one only after the first was taken (it wraps).
        let memory = Arc::new(Memory::new(32 + 64));
        // SAFETY: both threads keep the memory alive by their `Arc`.
        let ring = FrameRingMemory::new(unsafe { memory.words() }).unwrap();
        let keep = memory.clone();
        let sender = thread::spawn(move || {
            let mut producer = FrameProducer::new(ring);
            let record = FrameRecord { kind: kind::TRANSMIT, ..FrameRecord::default() };
            let mut pushed = Vec::new();
            for n in 1..=3u32 {
                let bytes = [n as u8; 70];
                if producer.push(record, &[&bytes[..3], &bytes[3..]]).is_ok() {
                    pushed.push(n);
                }
            }
            drop(keep);
            pushed
        });
        let mut consumer = FrameConsumer::new(ring);
        let mut popped = Vec::new();
        let mut pop = |consumer: &mut FrameConsumer| {
            let mut bytes = [0; 128];
            let record = consumer.pop(&mut bytes).unwrap();
            if let Some(record) = record {
                assert_eq!((record.kind, record.len), (kind::TRANSMIT, 70));
                assert!(bytes[..70].iter().all(|b| *b == bytes[0]), "torn frame");
                popped.push(bytes[0].into());
            }
            record.is_some()
        };
        pop(&mut consumer);
        pop(&mut consumer);
        let pushed = sender.join().unwrap();
        while pop(&mut consumer) {}
        same_order(&pushed, &popped);
    });
}
