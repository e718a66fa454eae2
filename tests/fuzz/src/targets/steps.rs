//! What happens to a world, step by step, as an input says.

use arbitrary::{Arbitrary, Unstructured};

/// The steps in `data`, at most `max`.
pub fn steps<'a, S: Arbitrary<'a>>(data: &'a [u8], max: usize) -> impl Iterator<Item = S> {
    let mut u = Unstructured::new(data);
    std::iter::from_fn(move || if u.is_empty() { None } else { u.arbitrary().ok() }).take(max)
}
