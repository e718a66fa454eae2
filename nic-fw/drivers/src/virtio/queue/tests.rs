//! A queue with both sides: an obedient device, a sleepy one, a concurrent one, and a liar.

use super::super::fake::{DeviceQueue, TestMemory};
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use toe_hal::fake::Chance;

/// Counts notifications, and wakes who waits for them.
#[derive(Clone, Debug, Default)]
struct Bell(Arc<(Mutex<u64>, Condvar)>);

impl Bell {
    fn rings(&self) -> u64 {
        *self.0.0.lock().unwrap()
    }

    fn ring(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_all();
    }

    /// Waits for more than `seen` rings. Panics if none comes: it was lost.
    fn wait(&self, seen: u64, who: &str) {
        let guard = self.0.0.lock().unwrap();
        let (guard, timeout) = self.0.1.wait_timeout_while(guard, Duration::from_secs(60), |rings| *rings <= seen).unwrap();
        drop(guard);
        assert!(!timeout.timed_out(), "{who} sleeps for ever");
    }
}

impl Registers for Bell {
    fn window_len(&self) -> usize {
        2
    }
    fn part(&self, _: usize, _: usize) -> Option<Self> {
        None
    }
    fn write16(&self, at: usize, value: u16) {
        assert_eq!((at, value), (0, 9), "the queue's number, at its register");
        self.ring();
    }
    fn read8(&self, _: usize) -> u8 {
        unreachable!("nothing is read")
    }
    fn read16(&self, _: usize) -> u16 {
        unreachable!("nothing is read")
    }
    fn read32(&self, _: usize) -> u32 {
        unreachable!("nothing is read")
    }
    fn write8(&self, _: usize, _: u8) {
        unreachable!("16 bits")
    }
    fn write32(&self, _: usize, _: u32) {
        unreachable!("16 bits")
    }
}

struct World {
    memory: Arc<TestMemory>,
    driver: Queue<Bell>,
    device: DeviceQueue,
    kicks: Bell,
}

const STRIDE: usize = 64;

fn world(size: u16, has_event_idx: bool) -> World {
    let memory = TestMemory::new(Rings::bytes(size) + STRIDE * usize::from(size));
    let mut dma = memory.dma();
    let rings = Rings::take(&mut dma, size).unwrap();
    let addresses = rings.addresses();
    let kicks = Bell::default();
    let shape = BufferShape { stride: STRIDE, skip: 4 };
    let driver = Queue::new(rings, dma, shape, Notifier::new(kicks.clone(), 9), has_event_idx);
    assert_eq!(driver.buffers(), size);
    let device = DeviceQueue::new(memory.clone(), size, addresses, has_event_idx);
    World { memory, driver, device, kicks }
}

fn part(id: u16) -> Part {
    Part { id, len: 60, is_written: true }
}

#[test]
fn a_chain_goes_there_and_back() {
    let World { memory, mut driver, mut device, .. } = world(16, true);
    // SAFETY: a buffer of ours.
    unsafe { driver.buffer(3).copy_from(b"question".as_ptr(), 8) };
    let parts = [Part { id: 3, len: 8, is_written: false }, Part { id: 9, len: 60, is_written: true }, part(1)];
    driver.post(&parts).unwrap();
    assert_eq!(device.waiting(), 0, "not before the kick");
    driver.kick();
    let chain = device.take().unwrap();
    assert_eq!(memory.read(chain.parts[0].0, 8), b"question");
    assert_eq!(chain.parts.iter().map(|p| (p.1, p.2)).collect::<Vec<_>>(), [(8, false), (60, true), (60, true)]);
    memory.write(chain.parts[1].0, b"answer");
    device.put(3, 66);
    assert_eq!(driver.pop(), Ok(None), "not before it is published");
    device.publish();
    assert!(driver.has_used());
    assert_eq!(driver.pop(), Ok(Some(Used { id: 3, len: 66, is_overlong: false })));
    assert_eq!([3, 9, 1].map(|id| (driver.is_ours(id), driver.next_in_chain(id))), [(true, Some(9)), (true, Some(1)), (true, None)]);
    // SAFETY: ours again.
    assert_eq!(unsafe { driver.buffer(9).cast::<[u8; 6]>().read() }, *b"answer");
    assert!(memory.walls_stand());
}

#[test]
fn only_what_is_ours_is_given_away() {
    let World { mut driver, .. } = world(16, false);
    driver.post(&[part(1), part(2)]).unwrap();
    let long = Part { len: 61, ..part(5) };
    for parts in [&[][..], &[part(1)], &[part(2)], &[part(5), part(1)], &[part(5), part(5)], &[part(16)], &[part(u16::MAX)], &[long]] {
        assert_eq!(driver.post(parts), Err(NotOurs), "{parts:?}");
        assert!(driver.is_ours(5) && !driver.is_ours(1) && driver.in_flight() == 1);
    }
    driver.post(&[part(5)]).unwrap();
}

/// Both sides at random, each step whole: sleeps of either side, bursts of all sizes, several times around the 2^16 of the indices.
fn random_walk(seed: u64, has_event_idx: bool) {
    const SIZE: u16 = 64;
    let World { memory, mut driver, mut device, kicks } = world(SIZE, has_event_idx);
    let mut chance = Chance::new(seed);
    let mut pick = |n: u64| chance.draw() % n;
    let mut free: Vec<u16> = (0..SIZE).collect();
    let (mut published, mut posted) = (VecDeque::new(), VecDeque::new());
    let (mut taken, mut put): (Vec<u16>, VecDeque<u16>) = (Vec::new(), VecDeque::new());
    let mut used = VecDeque::new();
    // Of a sleeper: bells heard before.
    let (mut device_sleeps, mut driver_sleeps) = (None, false);
    let (mut total, mut wanted_kicks, mut interrupts) = (0u32, 0u64, 0u64);
    while total < 300_000 {
        match pick(8) {
            0 | 1 => {
                for _ in 0..pick(u64::from(SIZE)) {
                    let Some(id) = (!free.is_empty()).then(|| free.swap_remove(pick(free.len() as u64) as usize)) else { break };
                    driver.post(&[part(id)]).unwrap();
                    posted.push_back(id);
                }
            }
            2 => {
                driver.kick();
                published.extend(posted.drain(..));
                // The rule: who sleeps and has work has been told.
                if let Some(seen) = device_sleeps
                    && !published.is_empty()
                {
                    assert!(kicks.rings() > seen, "seed {seed}: the device sleeps over {} chains", published.len());
                    (device_sleeps, wanted_kicks) = (None, wanted_kicks + 1);
                    device.wake();
                }
            }
            3 | 4 if device_sleeps.is_none() => {
                for _ in 0..pick(u64::from(SIZE)) {
                    let Some(chain) = device.take() else { break };
                    assert_eq!(Some(chain.head), published.pop_front());
                    taken.push(chain.head);
                }
                for _ in 0..pick(u64::from(SIZE)) {
                    // In any order (2.6.8).
                    let Some(id) = (!taken.is_empty()).then(|| taken.swap_remove(pick(taken.len() as u64) as usize)) else { break };
                    device.put(id.into(), 60);
                    put.push_back(id);
                }
                let has_news = !put.is_empty();
                let interrupt = device.publish();
                used.extend(put.drain(..));
                if driver_sleeps && has_news {
                    assert!(interrupt, "seed {seed}: the driver sleeps over {} buffers", used.len());
                    (driver_sleeps, interrupts) = (false, interrupts + 1);
                    driver.disarm();
                }
            }
            5 if device_sleeps.is_none() => {
                let seen = kicks.rings();
                let has_work = device.doze();
                assert_eq!(has_work, !published.is_empty());
                if has_work { device.wake() } else { device_sleeps = Some(seen) }
            }
            6 if !driver_sleeps => {
                for _ in 0..pick(u64::from(SIZE)) {
                    let Some(found) = driver.pop().unwrap() else { break };
                    assert_eq!(Some(found.id), used.pop_front());
                    free.push(found.id);
                    total += 1;
                }
            }
            7 if !driver_sleeps && pick(2) == 0 => {
                let has_work = driver.arm();
                assert_eq!(has_work, !used.is_empty());
                if has_work { driver.disarm() } else { driver_sleeps = true }
            }
            _ => {}
        }
        // Both asleep and nothing to do: somebody posts, or the device uses what it has; the next turns see to it.
        if driver_sleeps && (taken.is_empty() || device_sleeps.is_some()) && used.is_empty() {
            driver_sleeps = false; // A timer.
            driver.disarm();
        }
        if device_sleeps.is_some() && !taken.is_empty() && published.is_empty() {
            device_sleeps = None; // The wire has something for it.
            device.wake();
        }
    }
    assert!(wanted_kicks > 100 && interrupts > 100, "the test has tested something: {wanted_kicks} {interrupts}");
    assert!(memory.walls_stand() && !driver.is_broken());
}

#[test]
fn no_sleeper_is_forgotten_with_event_indices() {
    (0..6).for_each(|seed| random_walk(seed, true));
}

#[test]
fn no_sleeper_is_forgotten_with_flags() {
    (0..3).for_each(|seed| random_walk(seed, false));
}

/// A device that always sleeps is kicked once for each burst, however large, and for nothing else: 100,000 bursts, a hundred times around.
#[test]
fn one_kick_for_each_burst() {
    for has_event_idx in [true, false] {
        let World { mut driver, mut device, kicks, .. } = world(256, has_event_idx);
        let mut chance = Chance::new(1);
        for burst in 1..=100_000u64 {
            assert!(!device.doze());
            let len = 1 + if burst % 7 == 0 { 255 } else { chance.draw() % 64 };
            (0..len).for_each(|id| driver.post(&[part(id as u16)]).unwrap());
            driver.kick();
            driver.kick();
            assert_eq!(kicks.rings(), burst, "after a burst of {len}");
            while let Some(chain) = device.take() {
                device.put(chain.head.into(), 0);
            }
            device.publish();
            while driver.pop().unwrap().is_some() {}
        }
        assert_eq!(driver.kicks(), 100_000);
    }
}

/// A device that is awake is not kicked, but for once in 2^16 entries: that is how event indices are.
#[test]
fn a_device_that_is_awake_is_left_alone() {
    for (has_event_idx, most) in [(true, 1_000_000 / 65_536 + 1), (false, 0)] {
        let World { mut driver, mut device, kicks, .. } = world(64, has_event_idx);
        device.wake();
        for i in 0..1_000_000u32 {
            driver.post(&[part((i % 64) as u16)]).unwrap();
            driver.kick();
            let chain = device.take().unwrap();
            device.put(chain.head.into(), 0);
            device.publish();
            driver.pop().unwrap();
        }
        assert!(kicks.rings() <= most, "{}", kicks.rings());
    }
}

/// Two threads that sleep whenever they may. Whoever is forgotten sleeps for ever, which fails the test.
#[test]
fn two_cores_wake_each_other() {
    for has_event_idx in [true, false] {
        const SIZE: u16 = 32;
        const TOTAL: u64 = 150_000;
        let World { memory, mut driver, mut device, kicks } = world(SIZE, has_event_idx);
        let interrupts = Bell::default();
        let is_done = Arc::new(AtomicBool::new(false));
        let sleeps = Arc::new(AtomicU64::new(0));
        let device_side = {
            let (kicks, interrupts, is_done, sleeps) = (kicks.clone(), interrupts.clone(), is_done.clone(), sleeps.clone());
            move || {
                let mut chance = Chance::new(7);
                while !is_done.load(Ordering::Acquire) {
                    let mut any = false;
                    for _ in 0..1 + chance.draw() % 16 {
                        let Some(chain) = device.take() else { break };
                        device.put(chain.head.into(), 60);
                        any = true;
                    }
                    if any && device.publish() {
                        interrupts.ring();
                    }
                    // Mostly it stays awake: a sleep costs far more than a frame.
                    if !any && chance.draw().is_multiple_of(16) {
                        let seen = kicks.rings();
                        if !device.doze() {
                            sleeps.fetch_add(1, Ordering::Relaxed);
                            kicks.wait(seen, "the device");
                        }
                        device.wake();
                    }
                }
            }
        };
        let device_thread = std::thread::spawn(device_side);
        let mut chance = Chance::new(8);
        let (mut free, mut total): (Vec<u16>, u64) = ((0..SIZE).collect(), 0);
        while total < TOTAL && !device_thread.is_finished() {
            let burst = 1 + chance.draw() % u64::from(SIZE);
            for _ in 0..burst {
                let Some(id) = free.pop() else { break };
                driver.post(&[part(id)]).unwrap();
            }
            driver.kick();
            let mut any = false;
            while let Some(used) = driver.pop().unwrap() {
                free.push(used.id);
                (total, any) = (total + 1, true);
            }
            if !any && chance.draw().is_multiple_of(16) {
                let seen = interrupts.rings();
                if !driver.arm() && driver.in_flight() > 0 {
                    sleeps.fetch_add(1, Ordering::Relaxed);
                    interrupts.wait(seen, "the driver");
                }
                driver.disarm();
            }
        }
        is_done.store(true, Ordering::Release);
        kicks.ring();
        device_thread.join().unwrap();
        assert!(total >= TOTAL);
        assert!(sleeps.load(Ordering::Relaxed) > 20, "it has slept: {sleeps:?}");
        assert!(memory.walls_stand());
    }
}

/// What a side does in a round of a [`race`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Prepare,
    /// Says something, then looks for what the other side says; returns whether it has seen it.
    Act,
    CleanUp,
}

/// Both sides act at the same moment, over and over: one of them at least must see the other, which takes a full barrier in each, on every
/// machine there is. They prepare and clean up one after the other. `Err`: the round in which neither has seen anything.
fn race(mut driver: impl FnMut(Step) -> bool, mut device: impl FnMut(Step) -> bool + Send) -> Result<(), u64> {
    // Threads that share a core meet seldom.
    const ROUNDS: u64 = 100_000;
    let end = std::time::Instant::now() + Duration::from_secs(1);
    // Now one is a little earlier, now the other.
    let dawdle = |n: u64| (0..n % 61).for_each(|i| _ = std::hint::black_box(i));
    let (arrivals, is_over, device_saw) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    // The n-th meeting of both.
    let meet = |n: &mut u64| {
        *n += 1;
        arrivals.fetch_add(1, Ordering::SeqCst);
        for spins in 0u64.. {
            if arrivals.load(Ordering::SeqCst) >= 2 * *n {
                break;
            }
            if spins > 10_000 {
                assert!(std::time::Instant::now() < end + Duration::from_secs(60), "the other side has failed");
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !is_over.load(Ordering::SeqCst) {
                meet(&mut n);
                device(Step::Prepare);
                meet(&mut n);
                dawdle(n.wrapping_mul(7));
                device_saw.store(device(Step::Act), Ordering::SeqCst);
                meet(&mut n);
                device(Step::CleanUp);
                meet(&mut n);
                // The driver looks at the result.
                meet(&mut n);
            }
        });
        let (mut n, mut round, mut result) = (0, 0, Ok(()));
        while !is_over.load(Ordering::SeqCst) {
            driver(Step::Prepare);
            meet(&mut n);
            meet(&mut n);
            dawdle(n.wrapping_mul(13));
            let saw = driver(Step::Act);
            meet(&mut n);
            meet(&mut n);
            driver(Step::CleanUp);
            round += 1;
            if !saw && !device_saw.load(Ordering::SeqCst) {
                result = Err(round);
            }
            is_over.store(result.is_err() || round == ROUNDS || std::time::Instant::now() > end, Ordering::SeqCst);
            meet(&mut n);
        }
        result
    })
}

#[test]
fn a_kick_and_a_device_that_falls_asleep_do_not_miss_each_other() {
    let World { mut driver, mut device, .. } = world(16, true);
    let driver_side = |step| {
        let before = driver.kicks();
        match step {
            Step::Prepare => {
                driver.post(&[part(0)]).unwrap();
                // What it will look at is in its cache, so it looks before its store has got anywhere.
                std::hint::black_box(driver.rings.avail_event());
            }
            Step::Act => driver.kick(),
            Step::CleanUp => assert!(driver.pop().unwrap().is_some()),
        }
        driver.kicks() > before
    };
    let device_side = |step| match step {
        // Likewise.
        Step::Prepare => device.waiting() == 0,
        Step::Act => device.doze(),
        Step::CleanUp => {
            let chain = device.take().unwrap();
            device.put(chain.head.into(), 0);
            device.publish()
        }
    };
    assert_eq!(race(driver_side, device_side), Ok(()));
}

#[test]
fn a_driver_that_falls_asleep_and_a_device_that_is_done_do_not_miss_each_other() {
    let World { mut driver, mut device, .. } = world(16, true);
    let driver_side = |step| match step {
        Step::Prepare => {
            driver.post(&[part(0)]).unwrap();
            driver.kick();
            true
        }
        Step::Act => driver.arm(),
        Step::CleanUp => {
            driver.disarm();
            driver.pop().unwrap().is_some()
        }
    };
    let device_side = |step| match step {
        Step::Prepare => {
            let chain = device.take().unwrap();
            device.put(chain.head.into(), 0);
            true
        }
        Step::Act => device.publish(),
        Step::CleanUp => true,
    };
    assert_eq!(race(driver_side, device_side), Ok(()));
}

/// What a device may write into the used ring to confuse its driver.
#[derive(Clone, Debug)]
enum Lie {
    /// An entry of this id and length.
    Entry(u32, u32),
    /// An entry that it has, twice.
    Twice,
    /// An index so far ahead.
    Index(u16),
    /// The truth, for once.
    Truth,
    /// Nonsense as the event index or the flags.
    Event(u16),
}

fn lies() -> impl Strategy<Value = Vec<Lie>> {
    let id = prop_oneof![0u32..40, any::<u32>()];
    let lie = prop_oneof![
        2 => (id, any::<u32>()).prop_map(|(id, len)| Lie::Entry(id, len)),
        1 => Just(Lie::Twice),
        1 => any::<u16>().prop_map(Lie::Index),
        12 => Just(Lie::Truth),
        2 => any::<u16>().prop_map(Lie::Event),
    ];
    prop::collection::vec(lie, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever the device writes, the driver gets back only what it gave away, each once; a queue that is broken stays so; and nothing
    /// outside is touched.
    #[test]
    fn a_liar_gets_nothing(lies in lies(), has_event_idx in any::<bool>()) {
        const SIZE: u16 = 32;
        let World { memory, mut driver, mut device, .. } = world(SIZE, has_event_idx);
        let mut given: BTreeSet<u16> = BTreeSet::new();
        let mut last = 0;
        for lie in lies {
            for id in 0..SIZE / 2 {
                // Chains of two: 2 i is the head, 2 i + 1 follows.
                if driver.is_ours(2 * id) && driver.is_ours(2 * id + 1) && given.len() < 10 {
                    driver.post(&[part(2 * id), part(2 * id + 1)]).unwrap();
                    given.insert(2 * id);
                }
            }
            driver.kick();
            match lie {
                Lie::Entry(id, len) => device.put(id, len),
                Lie::Twice => device.put(last, 0),
                Lie::Index(ahead) => device.jump(ahead),
                Lie::Truth => if let Some(chain) = device.take() {
                    last = chain.head.into();
                    device.put(last, 120);
                },
                Lie::Event(value) => {
                    memory.half(device.used).store(value, Ordering::Relaxed);
                    memory.half(device.used + 4 + 8 * u64::from(SIZE)).store(value, Ordering::Relaxed);
                }
            }
            device.publish();
            for _ in 0..2 * SIZE {
                match driver.pop() {
                    Ok(Some(used)) => {
                        prop_assert!(given.remove(&used.id), "{} was not the device's", used.id);
                        prop_assert!(used.len <= 120);
                        prop_assert_eq!(driver.next_in_chain(used.id), Some(used.id + 1));
                    }
                    Ok(None) => break,
                    Err(Broken) => {
                        prop_assert!(driver.is_broken() && !driver.has_used() && !driver.arm());
                        break;
                    }
                }
            }
            prop_assert!(!driver.has_used(), "all has been popped");
            prop_assert_eq!(usize::from(driver.in_flight()), given.len());
            prop_assert!(given.iter().all(|id| !driver.is_ours(*id) && !driver.is_ours(id + 1)));
        }
        prop_assert!(memory.walls_stand());
    }
}
