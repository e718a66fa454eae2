//! Progress: a number mod 2^32 that one core moves on and another watches.
//!
//! ```text
//!   protocol: put numbers up to 7 in order, tell(8) ──►│ 8 │──► ingress: seen() = 8, so 8 less the 3 of last time
//!                                                                are five credits to be used again
//! ```
//!
//! | word   | written by | order   | read by | order   | what the pair guarantees                                        |
//! |--------|------------|---------|---------|---------|-----------------------------------------------------------------|
//! | number | teller     | release | watcher | acquire | what the teller did before it told is done, and can be seen     |
//!
//! Only the newest number is kept: whoever counts takes the difference to what it saw before. A watcher that sleeps until
//! it moves is woken as one whose ring was pushed to: [`crate::crew`].

use crate::atomic::{Arc, AtomicU32, Ordering};

/// The number, alone on its cache lines (two: the neighbour is prefetched on x86).
#[repr(align(128))]
struct Number(AtomicU32);

/// Both ends of a number that starts at 0.
pub fn progress() -> (Teller, Watcher) {
    let number = Arc::new(Number(AtomicU32::new(0)));
    (Teller(number.clone()), Watcher(number))
}

/// The end that moves the number on.
pub struct Teller(Arc<Number>);

impl Teller {
    pub fn tell(&mut self, number: u32) {
        // Release: with the acquire in `Watcher::seen`.
        self.0.0.store(number, Ordering::Release);
    }
}

/// The end that watches.
#[derive(Clone)]
pub struct Watcher(Arc<Number>);

impl Watcher {
    /// The number told last, as far as it has come through.
    pub fn seen(&self) -> u32 {
        // Acquire: with the release in `Teller::tell`.
        self.0.0.load(Ordering::Acquire)
    }
}
