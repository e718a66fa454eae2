//! Limits on what strangers can make us send: a token bucket for each kind of reply, some of them for each address, and a pace for each
//! connection.

use crate::{addr::Ip, isn::Keys};

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
        self.spend(1, now)
    }

    /// If there is a token, takes so many, or what there is. False: there is none.
    fn spend(&mut self, tokens: u64, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.filled_us);
        self.filled_us = self.filled_us.max(now);
        // Tokens per second are millionths per microsecond.
        self.micro = self.micro.saturating_add(elapsed.saturating_mul(self.per_second)).min(self.burst);
        let may = self.micro >= 1_000_000;
        if may {
            self.micro = self.micro.saturating_sub(tokens * 1_000_000);
        }
        may
    }
}

/// Buckets that addresses share by hash.
const BUCKETS: usize = 1024;
/// How much more often all addresses are answered than one.
const ALL: u32 = 16;

/// A limit for each address, and a larger one for all.
///
/// One alone would tell a stranger what others have been answered: whoever sends in another's name, and then counts the answers to segments of its
/// own, knows whether the other has a connection (as CVE-2016-5696); and a flood would keep everybody's answers. As for the limit
/// of all, an answer takes none to two tokens at random, one on average, so that counting does not tell what is left (as Linux: icmp_global_consume).
pub struct AddressLimit {
    keys: Keys,
    each: Vec<Bucket>,
    all: Bucket,
    /// Random numbers drawn.
    drawn: u64,
}

impl AddressLimit {
    /// Each address is answered `per_second` times a second.
    pub fn new(keys: Keys, per_second: u32, now: u64) -> Self {
        let each = vec![Bucket::new(per_second, now); BUCKETS];
        Self { keys, each, all: Bucket::new(per_second.saturating_mul(ALL), now), drawn: 0 }
    }

    /// Whether `to` may be answered.
    pub fn take(&mut self, to: &Ip, now: u64) -> bool {
        let bucket = self.keys.address_choice(to, self.each.len());
        if !self.each[bucket].take(now) {
            return false;
        }
        self.drawn += 1;
        self.all.spend(self.keys.random(self.drawn) % 3, now)
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

    /// A station has as many addresses as it likes in its network of IPv6, and could look for one that shares a bucket.
    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let mut limit = AddressLimit::new(Keys::new([7; 16]), 100, 5);
        let ip = |net: u8, host: u8| [0x20, 1, 0xd, 0xb8, 0, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, host];
        assert_eq!((0..100).filter(|host| limit.take(&ip(1, *host), 5)).count(), 10);
        assert!(limit.take(&ip(2, 0), 5));
    }

    #[test]
    fn one_token_is_enough_for_two() {
        let mut b = Bucket::new(10, 5);
        assert_eq!((0..10).filter(|_| b.spend(3, 5)).count(), 4, "of ten");
        assert!((0..10).all(|_| !b.spend(0, 5)), "none for nothing");
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
