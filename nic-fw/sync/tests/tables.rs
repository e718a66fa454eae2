//! Tables, epochs, order, and what cores tell each other, on one thread, against plain collections.
#![cfg(not(loom))]

mod oracle;

use proptest::prelude::*;
use std::collections::BTreeMap;
use toe_abi::FlowId;
use toe_abi::flow::FlowKey;
use toe_sync::crew::{CORES_MAX, CoreSet, Crew};
use toe_sync::flow_table::{FlowWriter, NoSpace};
use toe_sync::progress::progress;
use toe_sync::records::{Record, records};
use toe_sync::sequencer::{Refused, Reorder, Sequencer};
use toe_sync::tally::tally;
use toe_sync::{FlowHash, HashKey, epoch};

fn key(n: u16) -> FlowKey {
    FlowKey { local_ip: [1; 16], remote_ip: [n as u8; 16], local_port: 80, remote_port: n }
}

/// Fills a table that promises `capacity`.
fn fill(secret: [u64; 2], capacity: u32) -> Result<(), TestCaseError> {
    let mut writer = FlowWriter::new(capacity);
    let hash_key = HashKey::new(secret);
    let hash = |n: u32| FlowHash::new(&hash_key, &key(n as u16));
    for n in 0..capacity {
        prop_assert_eq!(writer.insert(hash(n), FlowId { index: n, generation: 1 }), Ok(()));
    }
    prop_assert_eq!(writer.insert(hash(capacity), FlowId { index: capacity, generation: 1 }), Err(NoSpace));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With a real hash and any secret, the promised capacity is there.
    #[test]
    fn flow_table_holds_its_capacity(secret in any::<[u64; 2]>(), capacity in 1u32..1000) {
        fill(secret, capacity)?;
    }
}

/// Flows that all belong into one bucket fill those behind it: a run of twelve.
#[test]
fn flow_table_with_a_long_chain() {
    let mut writer = FlowWriter::new(734);
    let reader = writer.reader();
    let hash = |n: u32| FlowHash(u64::from(n) << 32 | 7);
    let id = |n: u32| FlowId { index: n, generation: 1 };
    for n in 0..60 {
        assert_eq!(writer.insert(hash(n), id(n)), Ok(()));
    }
    assert!((0..60).all(|n| reader.candidates(hash(n)).any(|found| found == id(n))));
}

proptest! {
    /// Any sequence of insertions and removals, with few buckets, so that chains form, and equal hashes.
    #[test]
    fn flow_table_is_a_map(
        capacity in 1u32..40,
        bits in 0u32..7,
        steps in prop::collection::vec((any::<bool>(), 0u16..60), 0..300),
    ) {
        let mut writer = FlowWriter::new(capacity);
        let reader = writer.reader();
        let mask = ((1 << bits) - 1) * 0x1_0000_0001;
        let hashes: Vec<FlowHash> = (0..60).map(|n| FlowHash(FlowHash::new(&HashKey::new([3, 4]), &key(n)).0 & mask)).collect();
        let hash = |n: u16| hashes[usize::from(n)];
        let mut model = BTreeMap::new();
        for (generation, (insert, n)) in steps.into_iter().enumerate() {
            if insert && !model.contains_key(&n) {
                let id = FlowId { index: n.into(), generation: generation as u32 };
                match writer.insert(hash(n), id) {
                    Ok(()) => prop_assert!(model.insert(n, id).is_none()),
                    Err(NoSpace) => prop_assert!(model.len() >= 5.min(capacity as usize)),
                }
            } else if let Some(id) = model.remove(&n) {
                let stale = FlowId { generation: id.generation + 1, ..id };
                prop_assert!(!writer.remove(hash(n), stale));
                prop_assert!(writer.remove(hash(n), id));
                prop_assert!(!writer.remove(hash(n), id));
            }
            prop_assert_eq!(writer.len() as usize, model.len());
            let same: Vec<FlowId> = model.iter().filter(|(m, _)| hash(**m) == hash(n)).map(|(_, id)| *id).collect();
            // A neighbour with the same tag is a candidate too.
            let all: Vec<FlowId> = model.values().copied().collect();
            oracle::lookup(&reader.candidates(hash(n)).collect::<Vec<_>>(), &same, &all);
        }
        for (n, id) in model {
            prop_assert!(reader.candidates(hash(n)).any(|found| found == id));
        }
    }

    /// Numbers come back in any order, as items, skips or items that pass if they can, at most `capacity` at a time; they leave in order.
    #[test]
    fn reorder_releases_in_order(log2 in 0u32..5, choices in prop::collection::vec((any::<u16>(), 0..3), 1..300)) {
        let mut reorder = Reorder::new(1 << log2);
        let mut sequencer = Sequencer::new(reorder.capacity());
        let (mut out, mut expected, mut skipped, mut released) = (Vec::new(), 0, Vec::new(), 0);
        for (choice, how) in choices {
            while let Some(number) = sequencer.take() {
                out.push(number);
            }
            prop_assert!(out.len() <= 1 << log2);
            if out.is_empty() {
                continue;
            }
            let number = out.swap_remove(usize::from(choice) % out.len());
            if how == 0 {
                skipped.push(number);
                prop_assert_eq!(reorder.skip(number), Ok(()));
                prop_assert_ne!(reorder.skip(number), Ok(()));
            } else if how == 1 && reorder.pass(number) {
                while skipped.contains(&expected) {
                    expected += 1;
                }
                prop_assert_eq!(number, expected);
                prop_assert!(!reorder.pass(number) && reorder.put(number, 0).is_err());
                expected += 1;
            } else {
                prop_assert_eq!(reorder.put(number, number), Ok(()));
                prop_assert!(reorder.put(number, 0).is_err());
            }
            loop {
                let next = reorder.peek().copied();
                let Some(number) = reorder.release() else { break };
                prop_assert!(next.is_none_or(|next| next == number));
                while skipped.contains(&expected) {
                    expected += 1;
                }
                prop_assert_eq!(number, expected);
                expected += 1;
            }
            sequencer.give_back(reorder.released() - released);
            released = reorder.released();
        }
    }
}

/// What happens to a record: published under a generation, or retracted.
type RecordStep = (u32, Option<(u32, u32)>);

fn record_steps() -> impl Strategy<Value = Vec<RecordStep>> {
    let generation = prop_oneof![Just(0), Just(u32::MAX), 0u32..4, any::<u32>()];
    prop::collection::vec((0u32..4, prop::option::of((generation, any::<u32>()))), 0..200)
}

/// After each step, every way to read says what a map says.
fn records_are_a_map<T: Record + PartialEq + std::fmt::Debug>(steps: Vec<RecordStep>, make: fn(u32) -> T) -> Result<(), TestCaseError> {
    let (mut writer, reader) = records(4);
    let mut model = BTreeMap::new();
    for (i, step) in steps {
        let before = model.get(&i).copied();
        if let Some((generation, seed)) = step {
            writer.publish(i, generation, &make(seed));
            model.insert(i, (generation, make(seed)));
        } else {
            writer.retract(i);
            model.remove(&i);
        }
        for i in 0..reader.len() {
            let now = model.get(&i).copied();
            prop_assert_eq!(reader.get(i), now);
            prop_assert_eq!(reader.generation(i), now.map(|(generation, _)| generation));
            for (asked, record) in [now, before].into_iter().flatten() {
                let expected = now.filter(|(generation, _)| *generation == asked).map(|(_, record)| record);
                prop_assert_eq!(reader.read(i, asked), expected);
                prop_assert_eq!(reader.begins_with(i, asked, &record), expected == Some(record));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Records of one line, of just more than one, and of nothing.
    #[test]
    fn records_are_maps(steps in record_steps()) {
        records_are_a_map(steps.clone(), |seed| std::array::from_fn::<u32, 15, _>(|i| seed.rotate_left(i as u32)))?;
        records_are_a_map(steps.clone(), |seed| std::array::from_fn::<u32, 16, _>(|i| seed.rotate_left(i as u32)))?;
        records_are_a_map(steps, |_| [0u32; 0])?;
    }

    #[test]
    fn core_set_is_a_set(cores in prop::collection::btree_set(0usize..64, 0..64), others in prop::collection::btree_set(0usize..64, 0..64)) {
        let set: CoreSet = cores.iter().copied().collect();
        prop_assert_eq!(set.iter().collect::<Vec<_>>(), cores.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(set.is_empty(), cores.is_empty());
        prop_assert!((0..64).all(|core| set.contains(core) == cores.contains(&core)));
        let union = set.union(others.iter().copied().collect());
        prop_assert_eq!(union, cores.union(&others).copied().collect());
    }

    /// Those are kicked who were touched and sleep.
    #[test]
    fn crew_wakes_who_sleeps(asleep in prop::collection::btree_set(0usize..64, 0..64), touched in prop::collection::btree_set(0usize..64, 0..64)) {
        let crew = Crew::new(CORES_MAX);
        for &core in &asleep {
            crew.clone().prepare(core);
        }
        prop_assert!((0..64).all(|core| crew.is_asleep(core) == asleep.contains(&core)));
        let kicked = crew.must_wake(touched.iter().copied().collect());
        prop_assert_eq!(kicked, asleep.intersection(&touched).copied().collect());
        // Until they run, they are kicked again.
        prop_assert_eq!(crew.must_wake(kicked), kicked);
        kicked.iter().for_each(|core| crew.cancel(core));
        prop_assert!(crew.must_wake(kicked).is_empty());
    }
}

#[test]
fn records_out_of_range_are_not_there() {
    let (_, reader) = records::<[u32; 2]>(3);
    for i in [3, 4, u32::MAX] {
        assert_eq!((reader.read(i, 0), reader.get(i), reader.generation(i)), (None, None, None));
    }
    let (_, reader) = records::<u32>(0);
    assert!(reader.is_empty() && reader.get(0).is_none());
}

#[test]
fn tally_of_each_owner() {
    let (mut a, read_a) = tally(17);
    let (mut b, read_b) = tally(3);
    a.add(16, 5);
    a.add(16, 6);
    b.set(2, u64::MAX);
    b.add(2, 2);
    assert_eq!((read_a.get(16), read_b.clone().get(2), b.get(2)), (11, 1, 1));
    assert!((0..16).all(|i| read_a.get(i) == 0));
}

#[test]
fn progress_is_what_was_told_last() {
    let (mut teller, watcher) = progress();
    assert_eq!(watcher.seen(), 0);
    teller.tell(u32::MAX);
    let before = watcher.seen();
    teller.tell(4);
    assert_eq!(watcher.seen().wrapping_sub(before), 5);
}

#[test]
fn reorder_refuses_what_was_not_given() {
    let mut reorder = Reorder::new(2);
    assert_eq!(reorder.put(2, 'c'), Err(Refused::OutOfWindow('c')));
    assert_eq!(reorder.put(1, 'b'), Ok(()));
    assert_eq!(reorder.put(1, 'b'), Err(Refused::Twice('b')));
    assert_eq!(reorder.release(), None);
    assert_eq!(reorder.skip(0), Ok(()));
    assert_eq!(reorder.release(), Some('b'));
    assert_eq!(reorder.skip(0), Err(Refused::OutOfWindow(())));
    assert_eq!(reorder.released(), 2);
}

#[test]
fn flow_table_refuses_the_index_of_none() {
    assert_eq!(FlowWriter::new(4).insert(FlowHash(1), FlowId::NONE), Err(NoSpace));
}

#[test]
fn epoch_waits_for_every_core_that_is_online() {
    let (mut reclaimer, mut cores) = epoch::domain(2);
    let asleep = reclaimer.advance();
    assert!(reclaimer.all_passed(asleep), "nobody is online");
    cores.iter_mut().for_each(epoch::Participant::online);
    let epoch = reclaimer.advance();
    assert!(!reclaimer.all_passed(epoch));
    cores[0].quiet();
    assert!(!reclaimer.all_passed(epoch));
    cores[1].offline();
    assert!(reclaimer.all_passed(epoch));
    cores[1].online();
    let next = reclaimer.advance();
    assert!(!reclaimer.all_passed(next));
}
