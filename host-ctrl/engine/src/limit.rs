//! Limits on what strangers can make us send: a token bucket for each kind of reply, and a pace for each connection.

/// Fills at `per_second`, holds a tenth of a second's worth (at least 10).
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Tokens in millionths.
    micro: u64,
    per_second: u64,
    burst: u64,
    filled_us: u64,
}

impl Bucket {
    pub fn new(per_second: u32, now: u64) -> Self {
        let burst = u64::from(per_second / 10).max(10) * 1_000_000;
        Self { micro: burst, per_second: u64::from(per_second), burst, filled_us: now }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.filled_us);
        self.filled_us = self.filled_us.max(now);
        // Tokens per second are millionths per microsecond.
        self.micro = self.micro.saturating_add(elapsed.saturating_mul(self.per_second)).min(self.burst);
        match self.micro.checked_sub(1_000_000) {
            Some(left) => {
                self.micro = left;
                true
            }
            None => false,
        }
    }
}

/// Between two answers of one connection to what does not belong there (as Linux: tcp_invalid_ratelimit).
const INTERVAL_US: u64 = 500_000;

/// When a connection last answered a segment that does not belong there: each has a limit of its own, as one for all would tell a stranger
/// what others have been answered (RFC 5961, 7; CVE-2016-5696).
#[derive(Clone, Copy, Debug, Default)]
pub struct Answered(Option<u64>);

impl Answered {
    /// Whether one more may be answered.
    pub fn may(&mut self, now: u64) -> bool {
        let may = self.0.is_none_or(|last| now.saturating_sub(last) >= INTERVAL_US);
        if may {
            self.0 = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let mut b = Bucket::new(1000, 5);
        let burst = (0..1000).filter(|_| b.take(5)).count();
        assert_eq!(burst, 100);
        let second = (0..1_000_000u64).filter(|i| b.take(5 + i)).count();
        assert_eq!(second, 999);
    }

    #[test]
    fn two_answers_a_second() {
        let mut a = Answered::default();
        assert_eq!((0..10_000u64).filter(|n| a.may(n * 1000)).count(), 20);
        assert!(!a.may(0), "nor if time goes backwards");
    }

    #[test]
    fn time_going_backwards_gives_nothing() {
        let mut b = Bucket::new(10, 1_000_000);
        while b.take(1_000_000) {}
        assert!(!b.take(0));
        assert!(!b.take(1_000_000));
        assert!(b.take(1_100_000));
    }
}
