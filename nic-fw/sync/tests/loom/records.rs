//! Records: what a reader finds is whole, and of the generation that it asked for.

use crate::model;
use loom::thread;
use toe_sync::progress::progress;
use toe_sync::records::{RecordReader, RecordWriter, records};

/// A record that shows when it is of two halves.
fn make(number: u32) -> [u32; 2] {
    [number, !number]
}

fn check(record: [u32; 2]) -> u32 {
    assert_eq!(record, make(record[0]), "half of each");
    record[0]
}

/// A record with number 10 and generation 1: one thread looks at it while another changes it.
fn while_it_changes(look: fn(&RecordReader<[u32; 2]>), change: fn(&mut RecordWriter<[u32; 2]>)) {
    model(move || {
        let (mut writer, reader) = records(1);
        writer.publish(0, 1, &make(10));
        let looks = thread::spawn(move || look(&reader));
        change(&mut writer);
        looks.join().unwrap();
    });
}

#[test]
fn records_are_whole_with_their_generation() {
    while_it_changes(
        |reader| {
            if let Some((generation, record)) = reader.get(0) {
                assert_eq!(check(record), 10 * generation);
            }
        },
        |writer| writer.publish(0, 2, &make(20)),
    );
}

#[test]
fn records_replaced_under_the_same_generation_are_whole() {
    while_it_changes(
        |reader| {
            let [first, second] = [(), ()].map(|()| reader.read(0, 1).map(check));
            assert!(first.is_none_or(|number| number == 10 || number == 11));
            assert!(first != Some(11) || second == Some(11), "what has been seen stays");
        },
        |writer| writer.publish(0, 1, &make(11)),
    );
}

#[test]
fn records_that_go_and_come_back_are_whole() {
    while_it_changes(
        |reader| {
            let number = reader.read(0, 1).map(check);
            assert!(number.is_none_or(|number| number == 10 || number == 11));
        },
        |writer| {
            writer.retract(0);
            writer.publish(0, 1, &make(11));
        },
    );
}

#[test]
fn records_of_another_generation_are_refused() {
    while_it_changes(
        |reader| {
            assert!(reader.read(0, 1).is_none_or(|record| check(record) == 10));
            assert!(reader.read(0, 2).is_none_or(|record| check(record) == 20));
        },
        |writer| {
            writer.retract(0);
            writer.publish(0, 2, &make(20));
        },
    );
}

/// Who knows that a record has been published finds it, and nothing under the generation that it had before.
#[test]
fn records_are_found_by_who_was_told() {
    model(|| {
        let (mut writer, reader) = records(1);
        writer.publish(0, 1, &make(10));
        let (mut teller, watcher) = progress();
        let looks = thread::spawn(move || {
            if watcher.seen() == 1 {
                assert_eq!(reader.read(0, 1), None);
                assert_eq!(reader.read(0, 2).map(check), Some(20));
            }
        });
        writer.publish(0, 2, &make(20));
        teller.tell(1);
        looks.join().unwrap();
    });
}
