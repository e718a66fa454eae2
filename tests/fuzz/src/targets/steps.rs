//! What happens to a world, step by step, as an input says.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};

use arbitrary::{Arbitrary, Unstructured};

/// Whether each step is told before it is made.
pub static SHOWN: AtomicBool = AtomicBool::new(false);

/// The steps in `data`, at most `max`.
pub fn steps<'a, S: Arbitrary<'a> + Debug>(data: &'a [u8], max: usize) -> impl Iterator<Item = S> {
    let mut u = Unstructured::new(data);
    let steps = std::iter::from_fn(move || if u.is_empty() { None } else { u.arbitrary().ok() }).take(max);
    steps.inspect(|step| {
        if SHOWN.load(Ordering::Relaxed) {
            println!("{step:?}");
        }
    })
}
