//! All interleavings of two or three threads, judged by the oracle that the property tests use.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p toe-sync --test loom --release`
#![cfg(loom)]

mod memory;
mod oracle;

use loom::sync::Arc;
use loom::thread;
use memory::Memory;
use oracle::{Tiny, no_lost_wakeup, same_order};
use toe_abi::FlowId;
use toe_abi::frames::{FrameRecord, kind};
use toe_sync::atomic::{AtomicU32, Ordering};
use toe_sync::flow_table::FlowWriter;
use toe_sync::frame_ring::{FrameConsumer, FrameProducer, FrameRingMemory};
use toe_sync::queue::{Consumer, Producer};
use toe_sync::share::Shares;
use toe_sync::{FlowHash, epoch, sleep, spsc};

/// Every interleaving.
fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.check(f);
}

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

#[test]
fn spsc_delivers_in_order() {
    model(|| {
        let (mut sender, mut receiver) = spsc::ring::<Box<u32>>(2);
        let producer = thread::spawn(move || {
            let mut batch = [1u32, 2].map(Box::new).into_iter();
            let n = sender.push_batch(&mut batch) as u32;
            let mut pushed: Vec<u32> = (1..=n).collect();
            pushed.extend(sender.push(Box::new(3)).is_ok().then_some(3));
            pushed
        });
        let mut popped = Vec::new();
        receiver.pop_batch(1, |item| popped.push(*item));
        receiver.pop_batch(2, |item| popped.push(*item));
        let pushed = producer.join().unwrap();
        while let Some(item) = receiver.pop() {
            popped.push(*item);
        }
        same_order(&pushed, &popped);
    });
}

/// Items that nobody took are dropped with the ring, once (loom finds leaks and double drops of its `Arc`).
#[test]
fn spsc_drops_what_is_left() {
    model(|| {
        let witness = Arc::new(());
        let (mut sender, mut receiver) = spsc::ring(2);
        let item = witness.clone();
        let producer = thread::spawn(move || {
            assert!(sender.push(item).is_ok());
        });
        let taken = receiver.pop();
        drop(receiver);
        producer.join().unwrap();
        drop(taken);
        assert_eq!(Arc::strong_count(&witness), 1);
    });
}

/// Six flows of one bucket: five at home and one that lives in the next, which must be found whatever happens before it.
#[test]
fn flow_table_reader_finds_what_stays() {
    model(|| {
        let hash = FlowHash(0x1234_5678_0000_0000);
        let ids: Vec<FlowId> = (1..=6).map(|i| FlowId { index: i, generation: 10 * i }).collect();
        let comes = FlowId { index: 7, generation: 70 };
        let mut writer = FlowWriter::new(6);
        for id in &ids {
            assert!(writer.insert(hash, *id).is_ok());
        }
        let reader = writer.reader();
        let reads = thread::spawn(move || reader.candidates(hash).collect::<Vec<_>>());
        let goes = ids[0];
        assert!(writer.remove(hash, goes));
        assert!(writer.insert(hash, comes).is_ok());
        let found = reads.join().unwrap();
        // Half-seen: the index of what goes with the generation of what comes. Never the other way round.
        let half = FlowId { index: goes.index, generation: comes.generation };
        let ever: Vec<FlowId> = ids.iter().copied().chain([comes, half]).collect();
        oracle::lookup(&found, &ids[1..], &ever);
        let now: Vec<FlowId> = ids[1..].iter().copied().chain([comes]).collect();
        oracle::lookup(&writer.reader().candidates(hash).collect::<Vec<_>>(), &now, &now);
    });
}

/// A flow that lives in the second bucket goes and comes back: only it may be missed, and the chain is never cut short.
#[test]
fn flow_table_chain_is_not_cut() {
    model(|| {
        let hash = FlowHash(0x1234_5678_0000_0000);
        let ids: Vec<FlowId> = (1..=7).map(|i| FlowId { index: i, generation: 10 * i }).collect();
        let mut writer = FlowWriter::new(7);
        for id in &ids {
            assert!(writer.insert(hash, *id).is_ok());
        }
        let reader = writer.reader();
        let reads = thread::spawn(move || reader.candidates(hash).collect::<Vec<_>>());
        assert!(writer.remove(hash, ids[5]));
        assert!(writer.insert(hash, ids[5]).is_ok());
        let stay: Vec<FlowId> = ids.iter().copied().filter(|id| *id != ids[5]).collect();
        oracle::lookup(&reads.join().unwrap(), &stay, &ids);
    });
}

/// A core that comes online and uses what it finds, a writer that unlinks it and reuses its memory when told so.
/// loom's cell panics if the two meet.
fn epoch_protects(use_it: fn(&mut epoch::Participant, &dyn Fn())) {
    model(move || {
        let linked = Arc::new(AtomicU32::new(1));
        let object = Arc::new(loom::cell::UnsafeCell::new(1));
        let (mut reclaimer, mut cores) = epoch::domain(1);
        let mut core = cores.remove(0);
        let (reachable, found) = (linked.clone(), object.clone());
        let user = thread::spawn(move || {
            use_it(&mut core, &|| {
                if reachable.load(Ordering::Acquire) == 1 {
                    // SAFETY: this is what the epoch is to guarantee; loom checks it.
                    found.with(|object| assert_eq!(unsafe { *object }, 1, "used after it was reused"));
                }
            });
        });
        linked.store(0, Ordering::Relaxed);
        let epoch = reclaimer.advance();
        if reclaimer.all_passed(epoch) {
            // SAFETY: as above.
            object.with_mut(|object| unsafe { *object = 2 });
        }
        user.join().unwrap();
    });
}

#[test]
fn epoch_of_a_core_that_wakes_and_sleeps() {
    epoch_protects(|core, work| {
        core.online();
        work();
        core.offline();
    });
}

#[test]
fn epoch_of_a_core_that_is_quiet_between_bursts() {
    epoch_protects(|core, work| {
        core.online();
        work();
        core.quiet();
        work();
        core.quiet();
    });
}

/// Two cores take at the same time: both takings count, whoever comes first, and one of the two has to wait.
#[test]
fn share_loses_no_taking() {
    model(|| {
        // A burst is 131072 bytes, and a byte takes 8 us: after 65536 of them the next one waits.
        let shares = Shares::new(1);
        shares.set(0, 100, 1000);
        let other = shares.clone();
        let taker = thread::spawn(move || other.take(0, 40_000, 0));
        let mut waits = vec![shares.take(0, 40_000, 0)];
        waits.push(taker.join().unwrap());
        waits.sort_unstable();
        assert_eq!(waits, [Ok(()), Err((80_000 - 65_536) * 8)]);
        assert_eq!(shares.may_send(0, 0), waits[1]);
    });
}

/// The rate changes while a core takes: what it owes by the old rate, minutes, does not outlive it.
#[test]
fn share_forgets_an_old_rate() {
    model(|| {
        let shares = Shares::new(1);
        shares.set(0, 100, 1);
        let other = shares.clone();
        let taker = thread::spawn(move || [other.take(0, 65_536, 0), other.take(0, 65_536, 0)]);
        shares.set(0, 100, 1_000_000);
        let _ = taker.join().unwrap();
        // Both segments, at the new rate.
        let wait = shares.may_send(0, 0);
        assert!(wait.err().is_none_or(|us| us <= 525), "{wait:?}");
    });
}
