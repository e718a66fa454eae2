//! Properties on one thread: any sequence of operations, judged by the oracle that the loom tests use; and hostile peers.
#![cfg(not(loom))]

mod memory;
mod oracle;

use memory::Memory;
use oracle::{Fifo, Tiny, frame};
use proptest::prelude::*;
use toe_abi::control::{ControlMsg, kind as control};
use toe_abi::desc::{EventDesc, HostDesc};
use toe_abi::frames::{self, FrameRecord, kind};
use toe_sync::atomic::Ordering;
use toe_sync::frame_ring::{FrameConsumer, FrameProducer, FrameRingMemory, PopError, PushError};
use toe_sync::queue::{Consumer, Producer};
use toe_sync::spsc;

/// What a test does next; true: produce.
fn steps() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(any::<bool>(), 0..400)
}

proptest! {
    /// From any position, past the wrap of the index too. What comes out is what went in; full exactly when full.
    #[test]
    fn queue_is_a_fifo(log2 in 1u32..5, start in prop_oneof![Just(0), any::<u32>(), u32::MAX - 40..], steps in steps()) {
        let entries = 1 << log2;
        let memory = Memory::new(Memory::queue_len::<Tiny>(entries));
        // SAFETY: `memory` lives until the end of the test.
        let queue = unsafe { memory.queue::<Tiny>(entries) };
        // SAFETY: as above.
        let words = unsafe { memory.words() };
        words.at(words.len() - 1).store(start, Ordering::Relaxed);
        let mut producer = Producer::with_position(queue, start, start);
        let mut consumer = Consumer::with_position(queue, start);
        let (mut fifo, mut unpublished) = (Fifo::default(), 0);
        for produce in steps {
            if produce {
                let pushed = producer.push(Tiny::new(fifo.next())).is_ok();
                prop_assert_eq!(pushed, fifo.len() + unpublished < entries as usize);
                if pushed {
                    fifo.pushed();
                }
            } else if let Some(desc) = consumer.pop() {
                fifo.popped(desc.check());
                unpublished += 1;
                if desc.number % 3 == 0 {
                    consumer.publish();
                    unpublished = 0;
                }
            } else {
                prop_assert_eq!(fifo.len(), 0);
                prop_assert!(consumer.is_empty());
            }
        }
        prop_assert!(!producer.peer_insane());
        prop_assert_eq!(producer.position(), start.wrapping_add(fifo.next()));
    }

    /// A process may hand over either end at any moment, even without its last index update.
    #[test]
    fn queue_ends_can_be_attached(steps in steps(), lose_index in any::<bool>()) {
        let memory = Memory::new(Memory::queue_len::<Tiny>(4));
        // SAFETY: `memory` lives until the end of the test.
        let queue = unsafe { memory.queue::<Tiny>(4) };
        // SAFETY: as above.
        let words = unsafe { memory.words() };
        let tail = words.word(words.len() - 2);
        let mut fifo = Fifo::default();
        for produce in steps {
            if produce {
                let mut producer = Producer::attach(queue);
                let before = tail.load(Ordering::Relaxed);
                if producer.push(Tiny::new(fifo.next())).is_ok() {
                    fifo.pushed();
                    if lose_index {
                        tail.store(before, Ordering::Relaxed);
                    }
                }
            } else {
                let mut consumer = Consumer::attach(queue);
                if let Some(desc) = consumer.pop() {
                    fifo.popped(desc.check());
                    consumer.publish();
                }
            }
        }
    }

    /// Whatever the consumer's side of the page says, the producer overwrites nothing that it has no credit for.
    #[test]
    fn queue_hostile_head(heads in prop::collection::vec(any::<u32>(), 1..50)) {
        let memory = Memory::new(Memory::queue_len::<Tiny>(4));
        // SAFETY: `memory` lives until the end of the test.
        let queue = unsafe { memory.queue::<Tiny>(4) };
        // SAFETY: as above.
        let words = unsafe { memory.words() };
        let mut producer = Producer::new(queue);
        let mut consumed = 0u32;
        for head in heads {
            words.at(words.len() - 1).store(head, Ordering::Relaxed);
            let pushed = producer.position();
            let sane = pushed.wrapping_sub(head) <= pushed.wrapping_sub(consumed);
            let free = producer.free();
            prop_assert!(free <= 4);
            prop_assert!(sane || producer.peer_insane());
            if sane {
                consumed = head;
            }
            prop_assert_eq!(free, 4 - pushed.wrapping_sub(consumed));
            while producer.push(Tiny::new(0)).is_ok() {}
            prop_assert_eq!(producer.position(), consumed.wrapping_add(4));
        }
    }

    /// Any words in the queue: a consumer never panics and never takes more than it is asked for.
    #[test]
    fn queue_hostile_memory(garbage in prop::collection::vec(any::<u32>(), 4 * 16 + 2)) {
        let memory = Memory::new(Memory::queue_len::<HostDesc>(4));
        // SAFETY: `memory` lives until the end of the test.
        let (queue, words) = unsafe { (memory.queue::<HostDesc>(4), memory.words()) };
        for (i, word) in garbage.iter().enumerate() {
            words.at(i).store(*word, Ordering::Relaxed);
        }
        let mut consumer = Consumer::attach(queue);
        for _ in 0..10 {
            consumer.pop();
            consumer.publish();
        }
        let mut producer = Producer::attach(queue);
        for _ in 0..10 {
            let _ = producer.push(HostDesc::default());
        }
        prop_assert!(producer.free() <= 4);
    }

    /// Frames of all lengths, from any position, through rings in which they wrap.
    #[test]
    fn frame_ring_is_a_fifo(log2 in 8u32..13, steps in steps()) {
        let len = 1usize << log2;
        let memory = Memory::new((frames::RING_HEADER_LEN + len) / 4);
        // SAFETY: `memory` lives until the end of the test.
        let ring = FrameRingMemory::new(unsafe { memory.words() }).expect("sane geometry");
        let (mut producer, mut consumer) = (FrameProducer::new(ring), FrameConsumer::new(ring));
        let (mut fifo, mut buf) = (Fifo::default(), vec![0; len]);
        let longest = len - frames::RECORD_LEN as usize;
        for produce in steps {
            if produce {
                let bytes = frame(fifo.next(), longest);
                let record = FrameRecord { kind: kind::INJECT, reason: fifo.next(), ..FrameRecord::default() };
                let (a, b) = bytes.split_at(bytes.len() / 3);
                let (b, c) = b.split_at(b.len().min(2));
                match producer.push(record, &[a, b, &[], c]) {
                    Ok(()) => fifo.pushed(),
                    Err(error) => {
                        prop_assert_eq!(error, PushError::Full);
                        // In an empty ring a second try succeeds: the first has put a skip, which is taken here.
                        if fifo.len() == 0 {
                            prop_assert!(consumer.pop(&mut buf).unwrap().is_none());
                            prop_assert_eq!(producer.push(record, &[&bytes]), Ok(()));
                            fifo.pushed();
                        }
                    }
                }
            } else if let Some(record) = consumer.pop(&mut buf).unwrap() {
                prop_assert_eq!(&buf[..record.len as usize], &frame(record.reason, longest)[..]);
                fifo.popped(record.reason);
            } else {
                prop_assert_eq!(fifo.len(), 0);
                prop_assert!(consumer.is_empty());
            }
        }
    }

    /// Any indices, any bytes: no panic, progress after each error, nothing out of bounds (`Words` checks those).
    #[test]
    fn frame_ring_hostile_memory(
        garbage in prop::collection::vec(prop_oneof![0u32..1024, any::<u32>()], 32 + 64),
        tails in prop::collection::vec(prop_oneof![(0u32..8).prop_map(|n| n * 64), any::<u32>()], 1..20),
    ) {
        let memory = Memory::new(32 + 64);
        // SAFETY: `memory` lives until the end of the test.
        let words = unsafe { memory.words() };
        for (i, word) in garbage.iter().enumerate() {
            words.at(i).store(*word, Ordering::Relaxed);
        }
        let ring = FrameRingMemory::new(words).expect("sane geometry");
        let (mut producer, mut consumer) = (FrameProducer::new(ring), FrameConsumer::new(ring));
        let mut buf = vec![0; 256];
        for tail in tails {
            words.at(0).store(tail, Ordering::Relaxed);
            for _ in 0..10 {
                match consumer.pop(&mut buf) {
                    Ok(Some(record)) => prop_assert!(record.kind != kind::SKIP && record.len <= 192),
                    Ok(None) | Err(PopError::Corrupt) => break,
                    Err(PopError::BufferTooSmall { len }) => prop_assert!(len <= frames::FRAME_MAX),
                }
            }
            words.at(16).store(tail.rotate_left(3), Ordering::Relaxed);
            let _ = producer.push(FrameRecord { kind: kind::INJECT, ..FrameRecord::default() }, &[&[7; 60]]);
        }
    }

    #[test]
    fn spsc_is_a_fifo(capacity in 1u32..9, steps in prop::collection::vec((any::<bool>(), 0u32..6), 0..200)) {
        let (mut sender, mut receiver) = spsc::ring(capacity);
        let (mut fifo, room) = (Fifo::default(), capacity.next_power_of_two());
        for (produce, n) in steps {
            if produce {
                let first = fifo.next();
                let mut items = (first..first + n).map(Box::new).collect::<Vec<_>>().into_iter();
                let pushed = sender.push_batch(&mut items);
                prop_assert_eq!(pushed, (n as usize).min(room as usize - fifo.len()));
                prop_assert_eq!(items.len(), n as usize - pushed);
                (0..pushed).for_each(|_| fifo.pushed());
            } else {
                let before = fifo.len();
                let taken = receiver.pop_batch(n, |item| fifo.popped(*item));
                prop_assert_eq!(taken as usize, before.min(n as usize));
            }
        }
    }
}

#[test]
fn spsc_gives_back_what_does_not_fit() {
    let (mut sender, mut receiver) = spsc::ring(1);
    assert_eq!(sender.push(1), Ok(()));
    assert_eq!(sender.push(2), Err(spsc::Full(2)));
    assert_eq!(receiver.pop(), Some(1));
    assert_eq!(sender.push(3), Ok(()));
    assert_eq!((receiver.pop(), receiver.pop()), (Some(3), None));
}

#[test]
fn queue_carries_each_descriptor_whole() {
    let memory = Memory::new(Memory::queue_len::<ControlMsg>(2));
    // SAFETY: `memory` lives until the end of the test.
    let queue = unsafe { memory.queue::<ControlMsg>(2) };
    let mut message = ControlMsg::new(control::INSTALL, 7);
    message.body = std::array::from_fn(|i| i as u8);
    message.args = [1, 2, 3, 4, u64::MAX];
    assert!(Producer::new(queue).push(message).is_ok());
    let popped = Consumer::new(queue).pop().expect("published");
    assert_eq!((popped.kind, popped.tag, popped.args, popped.body), (control::INSTALL, 7, message.args, message.body));
    assert_eq!(popped.phase, 1);
}

/// Each lap has its phase, none is 0, and memory that starts as zeroes never looks published.
#[test]
fn queue_phases() {
    let memory = Memory::new(Memory::queue_len::<EventDesc>(2));
    // SAFETY: `memory` lives until the end of the test.
    let queue = unsafe { memory.queue::<EventDesc>(2) };
    let (mut producer, mut consumer) = (Producer::new(queue), Consumer::new(queue));
    assert!(consumer.is_empty());
    for lap in 1..5 {
        for _ in 0..2 {
            assert!(producer.push(EventDesc::default()).is_ok());
            assert_eq!(consumer.pop().expect("published").phase, lap);
            consumer.publish();
        }
    }
    let mut at_the_wrap = Consumer::with_position(queue, u32::MAX);
    assert!(at_the_wrap.pop().is_none());
}

#[test]
fn frame_ring_refuses_what_never_fits() {
    let memory = Memory::new(32 + 64);
    // SAFETY: `memory` lives until the end of the test.
    let ring = FrameRingMemory::new(unsafe { memory.words() }).expect("sane geometry");
    let mut producer = FrameProducer::new(ring);
    let record = FrameRecord { kind: kind::INJECT, ..FrameRecord::default() };
    assert_eq!(producer.push(record, &[&[0; 193]]), Err(PushError::TooLong));
    assert_eq!(producer.push(record, &[&[0; 192]]), Ok(()));
    assert_eq!(producer.push(record, &[&[0; 1]]), Err(PushError::Full));
}

#[test]
fn frame_ring_keeps_a_frame_that_the_buffer_cannot_hold() {
    let memory = Memory::new(32 + 64);
    // SAFETY: `memory` lives until the end of the test.
    let ring = FrameRingMemory::new(unsafe { memory.words() }).expect("sane geometry");
    let (mut producer, mut consumer) = (FrameProducer::new(ring), FrameConsumer::new(ring));
    producer.push(FrameRecord { kind: kind::INJECT, ..FrameRecord::default() }, &[&[9; 100]]).expect("room");
    assert!(matches!(consumer.pop(&mut [0; 99]), Err(PopError::BufferTooSmall { len: 100 })));
    assert!(matches!(consumer.pop(&mut [0; 100]), Ok(Some(_))));
}

#[test]
fn frame_ring_goes_on_after_a_corrupt_record() {
    let memory = Memory::new(32 + 64);
    // SAFETY: `memory` lives until the end of the test.
    let words = unsafe { memory.words() };
    let ring = FrameRingMemory::new(words).expect("sane geometry");
    let (mut producer, mut consumer) = (FrameProducer::new(ring), FrameConsumer::new(ring));
    let record = FrameRecord { kind: kind::INJECT, ..FrameRecord::default() };
    producer.push(record, &[&[1; 10]]).expect("room");
    // Its length now reaches behind the tail.
    words.at(32 + 1).store(65, Ordering::Relaxed);
    assert!(matches!(consumer.pop(&mut [0; 256]), Err(PopError::Corrupt)));
    assert!(matches!(consumer.pop(&mut [0; 256]), Ok(None)));
    producer.push(record, &[&[2; 10]]).expect("all room is back");
    let mut buf = [0; 256];
    assert!(matches!(consumer.pop(&mut buf), Ok(Some(r)) if r.len == 10 && buf[..10] == [2; 10]));
}

#[test]
fn frame_ring_insane_head_is_reported() {
    let memory = Memory::new(32 + 64);
    // SAFETY: `memory` lives until the end of the test.
    let words = unsafe { memory.words() };
    let ring = FrameRingMemory::new(words).expect("sane geometry");
    let mut producer = FrameProducer::new(ring);
    let record = FrameRecord { kind: kind::INJECT, ..FrameRecord::default() };
    producer.push(record, &[&[0; 192]]).expect("room");
    words.at(16).store(512, Ordering::Relaxed);
    assert_eq!(producer.push(record, &[&[0; 1]]), Err(PushError::PeerInsane));
    words.at(16).store(256, Ordering::Relaxed);
    assert_eq!(producer.push(record, &[&[0; 1]]), Ok(()));
}
