//! A crew: whatever the interleaving, no core sleeps while there is work for it.

use crate::{bounded, model};
use loom::thread::{self, Thread};
use std::sync::{Arc, Mutex};
use toe_sync::crew::{CoreSet, Crew};
use toe_sync::spsc::{Receiver, ring};

/// Where a core is.
enum At {
    Work,
    /// Still at work; a kick is pending.
    Kicked,
    Sleep(Thread),
    Gone,
}

/// The board: its kicks stay pending until they are waited for. And the judge: when nobody is at work any more, nobody
/// may be asleep. Not part of the model (the mutex is not loom's), so it hides no reordering.
struct Board(Mutex<Vec<At>>);

impl Board {
    fn kick(&self, core: usize) {
        let at = &mut self.0.lock().unwrap()[core];
        *at = match std::mem::replace(at, At::Gone) {
            At::Work | At::Kicked => At::Kicked,
            At::Sleep(thread) => {
                thread.unpark();
                At::Work
            }
            At::Gone => At::Gone,
        }
    }

    /// Sleeps until kicked.
    fn wait(&self, core: usize) {
        let pending = matches!(self.0.lock().unwrap()[core], At::Kicked);
        self.goes_to(core, if pending { At::Work } else { At::Sleep(thread::current()) });
        if !pending {
            thread::park();
        }
    }

    fn goes_to(&self, core: usize, to: At) {
        let mut cores = self.0.lock().unwrap();
        cores[core] = to;
        let at_work = cores.iter().any(|at| matches!(at, At::Work | At::Kicked));
        let asleep = cores.iter().any(|at| matches!(at, At::Sleep(_)));
        assert!(at_work || !asleep, "lost wake-up");
    }
}

/// How a producer finds out whom to kick, so that the models can be run with the fence missing.
type MustWake = fn(&Crew, CoreSet) -> CoreSet;

fn without_fence(crew: &Crew, touched: CoreSet) -> CoreSet {
    touched.iter().filter(|&core| crew.is_asleep(core)).collect()
}

/// One of the cores.
struct Core {
    number: usize,
    crew: Crew,
    board: Arc<Board>,
    must_wake: MustWake,
}

impl Core {
    fn all<const N: usize>(must_wake: MustWake) -> [Core; N] {
        let crew = Crew::new(N);
        let board = Arc::new(Board(Mutex::new((0..N).map(|_| At::Work).collect())));
        std::array::from_fn(|number| Core { number, crew: crew.clone(), board: board.clone(), must_wake })
    }

    /// After a burst to the rings of `touched`.
    fn wake(&self, touched: &[usize]) {
        let kicked = (self.must_wake)(&self.crew, touched.iter().copied().collect());
        kicked.iter().for_each(|core| self.board.kick(core));
    }

    /// Sleeps until it finds something. (It has found nothing: the model begins where it wants to sleep.)
    fn wait_for<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            self.crew.prepare(self.number);
            let found = look();
            if found.is_none() {
                self.board.wait(self.number);
            }
            self.crew.cancel(self.number);
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// Takes `items`.
    fn takes(self, mut ring: Receiver<u32>, items: std::ops::RangeInclusive<u32>) {
        for item in items {
            assert_eq!(self.wait_for(|| ring.pop()), item);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.board.goes_to(self.number, At::Gone);
        }
    }
}

/// Core A gives `items` to core B, which passes them on to core C.
fn chain(items: u32, must_wake: MustWake) {
    let [a, b, c] = Core::all(must_wake);
    let (mut to_b, mut from_a) = ring(items);
    let (mut to_c, from_b) = ring(items);
    thread::spawn(move || c.takes(from_b, 1..=items));
    thread::spawn(move || {
        for _ in 0..items {
            let item = b.wait_for(|| from_a.pop());
            to_c.push(item).expect("room");
            b.wake(&[2]);
        }
    });
    for item in 1..=items {
        to_b.push(item).expect("room");
        a.wake(&[1]);
    }
}

#[test]
fn crew_chain_loses_no_item() {
    model(|| chain(1, Crew::must_wake));
}

#[test]
fn crew_chain_loses_no_second_item() {
    bounded(Some(3), || chain(2, Crew::must_wake));
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn crew_chain_without_the_fence_is_found() {
    model(|| chain(1, without_fence));
}

/// One fence for a burst to two cores.
fn fan_out(must_wake: MustWake) {
    let [a, b, c] = Core::all(must_wake);
    let (mut to_b, from_a) = ring(1);
    thread::spawn(move || b.takes(from_a, 1..=1));
    let (mut to_c, from_a) = ring(1);
    thread::spawn(move || c.takes(from_a, 2..=2));
    to_b.push(1).expect("room");
    to_c.push(2).expect("room");
    a.wake(&[1, 2]);
}

#[test]
fn crew_with_one_fence_for_two_sleepers() {
    bounded(Some(4), || fan_out(Crew::must_wake));
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn crew_with_no_fence_for_two_sleepers_is_found() {
    bounded(Some(4), || fan_out(without_fence));
}

/// Cores A and B each have an item for core C.
fn two_producers(must_wake: MustWake) {
    let [a, b, c] = Core::all(must_wake);
    let (mut a_to_c, mut from_a) = ring(1);
    let (mut b_to_c, mut from_b) = ring(1);
    thread::spawn(move || {
        let mut items = [(); 2].map(|()| c.wait_for(|| from_a.pop().or_else(|| from_b.pop())));
        items.sort_unstable();
        assert_eq!(items, [1, 2]);
    });
    thread::spawn(move || {
        b_to_c.push(2).expect("room");
        b.wake(&[2]);
    });
    a_to_c.push(1).expect("room");
    a.wake(&[2]);
}

#[test]
fn crew_with_two_producers_of_one_sleeper() {
    bounded(Some(4), || two_producers(Crew::must_wake));
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn crew_with_two_producers_without_the_fence_is_found() {
    bounded(Some(4), || two_producers(without_fence));
}

/// A ring with room for one of two items: its producer sleeps until there is room as its consumer does until there are items.
fn waits_for_room(must_wake: MustWake) {
    let [a, b] = Core::all(must_wake);
    let (mut to_b, mut from_a) = ring(1);
    thread::spawn(move || {
        for item in 1..=2 {
            assert_eq!(b.wait_for(|| from_a.pop()), item);
            b.wake(&[0]);
        }
    });
    for item in 1..=2 {
        a.wait_for(|| (to_b.free(1) > 0).then_some(()));
        to_b.push(item).expect("room");
        a.wake(&[1]);
    }
}

#[test]
fn crew_waits_for_room_too() {
    bounded(Some(4), || waits_for_room(Crew::must_wake));
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn crew_that_waits_for_room_without_the_fence_is_found() {
    bounded(Some(4), || waits_for_room(without_fence));
}
