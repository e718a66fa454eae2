//! Hostile input by chance. A fuzzer finds more in the same: `tests/fuzz`.

use crate::choices::Random;
use crate::hostile;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// RFC 9293 SHLD-14, 3.10.7.4-31; RFC 7323 2.3-6, 2.4-2, 2.4-3.
    #[test]
    fn invariants_hold_for_all_inputs(seed: u64) {
        hostile::run(&mut Random(seed));
    }
}
