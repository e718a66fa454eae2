//! What the cores of one side share: rings, the flow table, epochs, progress.

use crate::model;
use crate::oracle::{self, same_order};
use loom::sync::Arc;
use loom::thread;
use toe_abi::FlowId;
use toe_sync::atomic::{AtomicU32, Ordering};
use toe_sync::flow_table::FlowWriter;
use toe_sync::progress::progress;
use toe_sync::share::Shares;
use toe_sync::{FlowHash, epoch, spsc};

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

/// What was done before a number was told can be seen by whoever sees the number. loom's cell panics if the two meet.
#[test]
fn progress_comes_after_what_it_tells_of() {
    model(|| {
        let work = Arc::new(loom::cell::UnsafeCell::new(0));
        let (mut teller, watcher) = progress();
        let done = work.clone();
        let tells = thread::spawn(move || {
            // SAFETY: the watcher keeps away until it has seen the number; loom checks it.
            done.with_mut(|work| unsafe { *work = 1 });
            teller.tell(1);
        });
        if watcher.seen() == 1 {
            // SAFETY: as above.
            work.with(|work| assert_eq!(unsafe { *work }, 1));
        }
        tells.join().unwrap();
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
