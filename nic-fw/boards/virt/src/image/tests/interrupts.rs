//! Interrupts: wakes of other cores, and messages of devices.

use super::{Bench, Verdict, check, text};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use toe_arch::time::{now_ns, wait_for};
use toe_arch::{Error, Platform, cores};

const SECOND: u64 = 1_000_000_000;
/// Nothing that works takes that long.
const LIMIT_NS: u64 = 10 * SECOND;

/// The wake is pending: the sleep ends at once, long before its deadline.
pub fn wake_before_sleep(_: &Bench) -> Verdict {
    for _ in 0..100 {
        let end = now_ns() + LIMIT_NS;
        cores::wake(cores::index());
        cores::sleep_until(Some(end), |_| ());
        check!(now_ns() < end, "the wake was lost");
    }
    Ok(())
}

/// Numbers, stacks and floating point of their own.
pub fn cores_are_themselves(bench: &Bench) -> Verdict {
    let cores = bench.platform.cores();
    check!(cores::index() == 0, "core 0 is {}", cores::index());
    let seen: Arc<Vec<AtomicU64>> = Arc::new((0..cores).map(|_| AtomicU64::new(0)).collect());
    let theirs = seen.clone();
    bench.crew.all(move |core| {
        let here = core as f64;
        let local = core::hint::black_box([here; 8]);
        let root = core::hint::black_box(local[3] * local[5]);
        if cores::index() == core && root == here * here {
            theirs[core].store((&raw const local).addr() as u64, Ordering::Relaxed);
        }
    })?;
    let mut stacks: Vec<u64> = seen[1..].iter().map(|stack| stack.load(Ordering::Relaxed) >> 17).collect();
    check!(!stacks.contains(&0), "a core is not itself: {stacks:x?}");
    stacks.sort_unstable();
    stacks.dedup();
    check!(stacks.len() == cores - 1, "two cores on one stack: {stacks:x?}");
    Ok(())
}

/// Round the cores: each sleeps until the one before it wakes it.
pub fn wakes_every_other(bench: &Bench) -> Verdict {
    let cores = bench.platform.cores();
    let turn = Arc::new(AtomicU32::new(0));
    let (theirs, rounds) = (turn.clone(), 20);
    let play = move |core: usize| {
        let end = now_ns() + LIMIT_NS;
        for round in 0..rounds {
            let mine = round * cores as u32 + core as u32;
            // Every wake is sent after the turn was passed on, so one that ends a sleep too early costs only another look.
            while theirs.load(Ordering::Acquire) != mine && now_ns() < end {
                cores::sleep_until(Some(end), |_| ());
            }
            theirs.fetch_add(1, Ordering::AcqRel);
            cores::wake((core + 1) % cores);
        }
    };
    for core in 1..cores {
        let play = play.clone();
        bench.crew.give(core, move || play(core));
    }
    let begin = now_ns();
    play(0);
    (1..cores).try_for_each(|core| bench.crew.wait(core))?;
    check!(turn.load(Ordering::Acquire) == rounds * cores as u32, "turn {}", turn.load(Ordering::Acquire));
    check!(now_ns() - begin < LIMIT_NS, "a wake was lost");
    Ok(())
}

/// An event of a device ends the sleep of the core that it is mapped to, and of no other.
pub fn messages(bench: &Bench) -> Verdict {
    const DEVICE: u32 = 0x0123;
    let last = bench.platform.cores() - 1;
    let mut lpis = Vec::new();
    for (event, core) in [(0, 0), (3, last)] {
        let (message, lpi) = bench.platform.map_message(DEVICE, 4, event, core).map_err(text)?;
        check!(message.data == event && message.address != 0, "{message:?}");
        lpis.push(lpi);
        let (got, ready) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (theirs, listens) = (got.clone(), ready.clone());
        let wait = move || {
            let end = now_ns() + LIMIT_NS;
            // From here on messages come to us, and not to the sleep of whoever waits for a job.
            listens.store(1, Ordering::Release);
            while theirs.load(Ordering::Relaxed) == 0 && now_ns() < end {
                cores::sleep_until(Some(end), |lpi| theirs.store(lpi, Ordering::Relaxed));
            }
        };
        if core == 0 {
            bench.platform.raise_message(DEVICE, event, core).map_err(text)?;
            wait();
        } else {
            bench.crew.give(core, wait);
            wait_for("a core that listens", LIMIT_NS, || u64::from(ready.load(Ordering::Acquire)), |ready| ready == 1).map_err(text)?;
            bench.platform.raise_message(DEVICE, event, core).map_err(text)?;
            bench.crew.wait(core)?;
        }
        check!(got.load(Ordering::Relaxed) == lpi, "core {core} got {} instead of {lpi}", got.load(Ordering::Relaxed));
    }
    check!(lpis[0] != lpis[1], "one LPI for two events");
    let refused = [(DEVICE, 4, 4, 0), (DEVICE + 1, 4, 0, last + 1), (1 << 16, 1, 0, 0), (DEVICE + 2, 0, 0, 0)];
    for (device, events, event, core) in refused {
        let mapped = bench.platform.map_message(device, events, event, core);
        check!(matches!(mapped, Err(Error::Gic(_))), "device {device:#x}, event {event} of {events}, core {core}: {mapped:?}");
    }
    Ok(())
}

/// Each core twice, also before it has come to sleep.
pub fn started_again(platform: &Platform) -> Verdict {
    let ran = Arc::new(AtomicU32::new(0));
    for core in 1..platform.cores() {
        for _ in 0..2 {
            let theirs = ran.clone();
            platform.start(core, move || _ = theirs.fetch_add(1, Ordering::AcqRel)).map_err(text)?;
            let returned = || u64::from(platform.has_returned(core));
            wait_for("a core that returns", LIMIT_NS, returned, |returned| returned == 1).map_err(text)?;
        }
    }
    let (ran, expected) = (ran.load(Ordering::Acquire), 2 * (platform.cores() as u32 - 1));
    check!(ran == expected, "{ran} of {expected} have run");
    Ok(())
}

pub fn not_started_again(bench: &Bench) -> Verdict {
    let ran = Arc::new(AtomicU32::new(0));
    for core in 0..=bench.platform.cores() {
        let theirs = ran.clone();
        let started = bench.platform.start(core, move || theirs.store(1, Ordering::Relaxed));
        check!(started.is_err(), "core {core} was started again");
    }
    let waited = wait_for("what must not come", SECOND / 1000, || u64::from(ran.load(Ordering::Relaxed)), |ran| ran != 0);
    check!(waited.is_err(), "{}", format!("{waited:?}"));
    Ok(())
}
