//! The log's ring against the reader that toed has: what is read is what was written, or is said to be lost.

use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use toe_abi::window::{LOG_LEN, WINDOW_MIN};
use toe_link::card::{Log, MemoryOptions, Missed, SharedMemory};
use toe_virt::log::Ring;
use toe_virt::window::Window;

/// Byte n of a log.
fn byte(n: u64) -> u8 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn window() -> SharedMemory {
    SharedMemory::create("window", WINDOW_MIN, MemoryOptions::default()).expect("a memfd")
}

struct Writer {
    ring: Ring,
    at: u64,
}

impl Writer {
    /// The window must stay until this has gone.
    fn new(memory: &SharedMemory) -> Self {
        // SAFETY: mapped as long as the test lasts; only this and the readers, by atomics and copies, reach it.
        let window = unsafe { Window::new(memory.base(), memory.len()) }.expect("a length that windows have");
        Self { ring: Ring::new(window), at: 0 }
    }

    fn write(&mut self, len: usize) {
        let bytes: Vec<u8> = (self.at..).take(len).map(byte).collect();
        self.ring.write(&bytes);
        self.at += len as u64;
    }
}

struct Reader<'a> {
    log: Log<'a>,
    /// Bytes seen, and known to be lost.
    at: u64,
    lost: u64,
    seen: u64,
}

impl<'a> Reader<'a> {
    fn new(memory: &'a SharedMemory) -> Self {
        Self { log: Log::new(memory, 0), at: 0, lost: 0, seen: 0 }
    }

    /// Reads, and compares with what must be there.
    fn read(&mut self) {
        let mut out = Vec::new();
        let Missed(missed) = self.log.read(&mut out);
        self.at += u64::from(missed);
        self.lost += u64::from(missed);
        let wrong = (self.at..).zip(&out).find(|(n, found)| byte(*n) != **found);
        assert_eq!(wrong, None, "{} bytes after {} lost ones", out.len(), missed);
        self.at += out.len() as u64;
        self.seen += out.len() as u64;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![8 => 0..40usize, 4 => 0..512usize, 1 => 0..3 * LOG_LEN as usize];
    prop_oneof![3 => len.prop_map(Step::Write), 1 => Just(Step::Read)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nobody writes while somebody reads: then what is lost is exactly what had to be.
    #[test]
    fn by_turns_nothing_is_lost_that_is_still_there(steps in prop::collection::vec(step(), 1..200)) {
        let memory = window();
        let (mut writer, mut reader) = (Writer::new(&memory), Reader::new(&memory));
        for step in steps.into_iter().chain([Step::Read]) {
            match step {
                Step::Write(len) => writer.write(len),
                Step::Read => {
                    let (before, lost) = (reader.at, reader.lost);
                    reader.read();
                    prop_assert_eq!(reader.at, writer.at);
                    prop_assert_eq!(reader.lost - lost, (writer.at - before).saturating_sub(LOG_LEN));
                }
            }
        }
    }
}

/// Both at once, with a writer so fast that readers are overtaken while they copy.
#[test]
fn at_once_what_is_read_is_what_was_written() {
    const BYTES: u64 = 400 * LOG_LEN;
    let memory = window();
    let (writer, mut reader) = (Writer::new(&memory), Reader::new(&memory));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = writer;
            for len in (1..=512).cycle() {
                writer.write(len);
                if writer.at >= BYTES {
                    break;
                }
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            reader.read();
        }
        reader.read();
    });
    assert!(reader.at >= BYTES && reader.seen >= LOG_LEN, "{} bytes seen, {} lost", reader.seen, reader.lost);
}

#[test]
fn a_new_card_begins_a_new_log() {
    let memory = window();
    let mut writer = Writer::new(&memory);
    writer.write(5000);
    let mut writer = Writer::new(&memory);
    let mut reader = Reader::new(&memory);
    reader.read();
    assert_eq!((reader.seen, reader.lost), (0, 0));
    writer.write(7);
    reader.read();
    assert_eq!((reader.seen, reader.lost), (7, 0));
}
