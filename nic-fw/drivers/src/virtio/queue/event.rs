//! Event indices (VIRTIO 1.1, 2.6.7 and 2.6.10): "tell me when you get past this entry".
//!
//! ```text
//!             old          event          new
//!   ─────┴─────┴─────┴───────┴──────┴──────┴─────►   due: the entry at `event` is among those published since the last look
//! ```

/// Whether an index that has gone from `old` to `new` (at most 2^15 on) has passed entry `event`. All are counted mod 2^16.
pub fn is_due(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Judged by counting without wraps.
        #[test]
        fn due_if_and_only_if_the_entry_is_among_the_new(old in 0u64..1 << 20, step in 0u64..=1 << 15, ahead in -(1i64 << 14)..1 << 15) {
            let (new, event) = (old + step, old as i64 + ahead);
            prop_assume!(event >= 0);
            let among = (old as i64..new as i64).contains(&event);
            prop_assert_eq!(is_due(event as u16, new as u16, old as u16), among);
        }
    }

    #[test]
    fn nothing_new_is_never_due() {
        assert!((0..=u16::MAX).all(|event| !is_due(event, 7, 7)));
    }
}
