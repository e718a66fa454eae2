//! Nanoseconds and ticks of the generic timer, without overflow and without drift.

const NANOS: u64 = 1_000_000_000;

/// Counters that are faster can't be converted: none is (Arm ARM D11.1.2 asks for 1 GHz).
pub const FREQUENCY_MAX: u64 = 10_000_000_000;

/// How fast the counter runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frequency(u64);

impl Frequency {
    /// `None` if no counter runs at so many ticks a second.
    pub const fn new(hertz: u64) -> Option<Self> {
        if hertz > 0 && hertz <= FREQUENCY_MAX { Some(Self(hertz)) } else { None }
    }

    pub const fn hertz(self) -> u64 {
        self.0
    }

    /// Nanoseconds of so many ticks, rounded down; as many as there are at most.
    pub const fn nanos(self, ticks: u64) -> u64 {
        // The rest is below the frequency, so the product is below 10^19.
        (ticks / self.0).saturating_mul(NANOS).saturating_add(ticks % self.0 * NANOS / self.0)
    }

    /// Ticks until so many nanoseconds have passed: rounded up, so that a deadline is not early.
    pub const fn ticks(self, nanos: u64) -> u64 {
        (nanos / NANOS).saturating_mul(self.0).saturating_add((nanos % NANOS * self.0).div_ceil(NANOS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_counter_that_stands_still_is_none() {
        assert_eq!(Frequency::new(0), None);
        assert_eq!(Frequency::new(FREQUENCY_MAX + 1), None);
    }

    proptest! {
        /// As exact arithmetic has it, and a deadline is never early by as much as a tick.
        #[test]
        fn conversions_are_exact(hertz in 1..=FREQUENCY_MAX, value in 0..u64::MAX / 16) {
            let f = Frequency::new(hertz).unwrap();
            let nanos = u128::from(value) * u128::from(NANOS) / u128::from(hertz);
            prop_assert_eq!(f.nanos(value), u64::try_from(nanos).unwrap_or(u64::MAX));
            let ticks = (u128::from(value) * u128::from(hertz)).div_ceil(u128::from(NANOS));
            if let Ok(ticks) = u64::try_from(ticks) {
                prop_assert_eq!(f.ticks(value), ticks);
                prop_assert!(f.nanos(f.ticks(value)) >= value || f.nanos(ticks) == u64::MAX || hertz > NANOS);
            }
        }
    }
}
