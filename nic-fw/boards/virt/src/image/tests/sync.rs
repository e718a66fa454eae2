//! What `toe-sync` promises, on real cores.

use super::{Bench, Verdict, check};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use toe_arch::cores;
use toe_arch::time::now_ns;
use toe_sync::crew::{CoreSet, Crew};
use toe_sync::spsc::{self, Receiver, Sender};

/// Nothing that works takes that long.
const LIMIT_NS: u64 = 10_000_000_000;

/// Exclusive or single instructions, whichever the image was built with.
pub fn atomics(bench: &Bench) -> Verdict {
    const EACH: u64 = 20_000;
    let (sum, plain) = (Arc::new(AtomicU64::new(0)), Arc::new(spin::Mutex::new(0_u64)));
    let (theirs, locked) = (sum.clone(), plain.clone());
    let add = move |core: usize| {
        for i in 0..EACH {
            theirs.fetch_add(core as u64 + i, Ordering::Relaxed);
            if i % 16 == 0 {
                *locked.lock() += 1;
            }
        }
    };
    bench.crew.all(add.clone())?;
    add(0);
    let cores = bench.platform.cores() as u64;
    let expected = cores * (EACH * (EACH - 1) / 2) + EACH * (cores * (cores - 1) / 2);
    check!(sum.load(Ordering::Relaxed) == expected, "{} instead of {expected}", sum.load(Ordering::Relaxed));
    check!(*plain.lock() == cores * EACH / 16, "{} behind the lock", *plain.lock());
    Ok(())
}

/// Sleeps until `other` has done something to a ring that `ready` looks at, as the stages of the data path do.
fn wait(crew: &Crew, end: u64, mut ready: impl FnMut() -> bool) -> bool {
    let core = cores::index();
    while !ready() {
        if now_ns() >= end {
            return false;
        }
        crew.prepare(core);
        if !ready() {
            cores::sleep_until(Some(end), |_| ());
        }
        crew.cancel(core);
    }
    true
}

fn wake(crew: &Crew, other: usize) {
    crew.must_wake([other].into_iter().collect::<CoreSet>()).iter().for_each(cores::wake);
}

/// A stream of numbers through a small ring from one core to another; who finds it full or empty sleeps.
pub fn rings(bench: &Bench) -> Verdict {
    const COUNT: u64 = 50_000;
    let (mut sender, mut receiver) = spsc::ring::<[u64; 2]>(64);
    if bench.crew.len() == 0 {
        for i in 0..COUNT {
            check!(sender.push([i, !i]).is_ok() && receiver.pop() == Some([i, !i]), "item {i}");
        }
        return Ok(());
    }
    let (crew, wrong, end) = (Crew::new(bench.platform.cores()), Arc::new(AtomicU64::new(0)), now_ns() + LIMIT_NS);
    let (theirs, flags) = (wrong.clone(), crew.clone());
    bench.crew.give(1, move || {
        let mut next = 0;
        while next < COUNT && wait(&flags, end, || receiver.available(1) > 0) {
            receiver.pop_batch(32, |item| {
                theirs.fetch_add(u64::from(item != [next, !next]), Ordering::Relaxed);
                next += 1;
            });
            wake(&flags, 0);
        }
        theirs.fetch_add(COUNT - next, Ordering::Relaxed);
    });
    let mut next = 0;
    while next < COUNT && wait(&crew, end, || sender.free(1) > 0) {
        while next < COUNT && sender.stage([next, !next]).is_ok() {
            next += 1;
        }
        sender.publish();
        wake(&crew, 1);
    }
    bench.crew.wait(1)?;
    check!(wrong.load(Ordering::Relaxed) == 0, "{} of {COUNT} items are wrong or missing", wrong.load(Ordering::Relaxed));
    Ok(())
}

/// One end of a game of ping-pong in which both sleep whenever there is nothing.
struct Player {
    other: usize,
    crew: Crew,
    to: Sender<u32>,
    from: Receiver<u32>,
    lost: Arc<AtomicU32>,
}

impl Player {
    fn send(&mut self, ball: u32) {
        let full = self.to.push(ball).is_err();
        self.lost.fetch_add(u32::from(full), Ordering::Relaxed);
        wake(&self.crew, self.other);
    }

    /// The next ball. A sleep that only its deadline ended, with the ball there, is a wake that was lost.
    fn receive(&mut self) -> Option<u32> {
        if wait(&self.crew, now_ns() + LIMIT_NS, || self.from.available(1) > 0) {
            return self.from.pop();
        }
        self.lost.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Now and then it dawdles, so that the other is on its way to sleep at every possible moment.
    fn play(mut self, rounds: u32, serves: bool) {
        if serves {
            self.send(0);
        }
        for round in 0..rounds {
            let Some(ball) = self.receive() else { return };
            self.lost.fetch_add(u32::from(ball != round * 2 + u32::from(serves)), Ordering::Relaxed);
            for _ in 0..(round.wrapping_mul(2_654_435_761) >> 24) % 64 {
                core::hint::spin_loop();
            }
            if !(serves && round + 1 == rounds) {
                self.send(ball + 1);
            }
        }
    }
}

/// Publish and park (`toe_sync::crew`), with SGI and WFI as the kick and the sleep.
pub fn no_wake_is_lost(bench: &Bench) -> Verdict {
    let last = bench.crew.len();
    if last == 0 {
        return Ok(());
    }
    let (crew, lost) = (Crew::new(bench.platform.cores()), Arc::new(AtomicU32::new(0)));
    let ((to_last, from_first), (to_first, from_last)) = (spsc::ring(1), spsc::ring(1));
    let first = Player { other: last, crew: crew.clone(), to: to_last, from: from_last, lost: lost.clone() };
    let second = Player { other: 0, crew, to: to_first, from: from_first, lost: lost.clone() };
    let rounds = bench.rounds;
    bench.crew.give(last, move || second.play(rounds, false));
    first.play(rounds, true);
    bench.crew.wait(last)?;
    check!(lost.load(Ordering::Relaxed) == 0, "{} wakes or balls were lost", lost.load(Ordering::Relaxed));
    Ok(())
}
