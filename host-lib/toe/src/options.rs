//! Socket options that are a number: which values are sane, as on Linux, and where in the slot they stand.
//!
//! ```text
//!   setsockopt ──► slot ─┬─ card, as OPTIONS      timers, marks: of a connection, from the next descriptor on
//!                        ├─ toed                  when the connection begins (CONNECT, LISTEN), or ends
//!                        └─ this library
//! ```

use crate::Socket;
use rustix::io::Errno;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use toe_abi::flow::quick_ack;
use toe_abi::region::slot_state;
use toe_link::Slot;

/// The options. Their values have Linux's units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketOption {
    /// TCP_USER_TIMEOUT, milliseconds.
    UserTimeout,
    /// TCP_KEEPIDLE, seconds.
    KeepIdle,
    /// TCP_KEEPINTVL, seconds.
    KeepInterval,
    /// TCP_KEEPCNT.
    KeepCount,
    /// TCP_QUICKACK.
    QuickAck,
    /// TCP_LINGER2, seconds.
    Linger2,
    /// TCP_NOTSENT_LOWAT, bytes.
    NotSentLowWater,
    /// IP_TOS.
    Tos,
    /// IPV6_TCLASS. It and IP_TOS are one word.
    TrafficClass,
    /// IP_TTL.
    Ttl,
    /// IPV6_UNICAST_HOPS. It and IP_TTL are one word.
    Hops,
    /// TCP_MAXSEG, bytes.
    MaxSegment,
    /// TCP_SYNCNT.
    SynRetries,
    /// TCP_DEFER_ACCEPT, seconds.
    DeferAccept,
    /// TCP_WINDOW_CLAMP, bytes.
    WindowClamp,
}

/// What the card is told of an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tells {
    Nothing,
    /// All options: [`Channel::options`](crate::Channel::options).
    Options,
    /// The socket's positions, which depend on it: [`Channel::update`](crate::Channel::update).
    Update,
}

/// What IP_TTL reads as.
const TTL_DEFAULT: i32 = 64;
/// The bits of IP_TOS that are the card's: ECN.
const TOS_ECN: i32 = 3;
/// MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT, MAX_TCP_SYNCNT.
const SECONDS_MAX: i32 = 32_767;
const COUNT_MAX: i32 = 127;
/// tcp_fin_timeout, and the most that TCP_LINGER2 makes of it, seconds.
const FIN_TIMEOUT_S: i32 = 60;
const LINGER2_MAX_S: i32 = 120;
/// SOCK_MIN_RCVBUF / 2, bytes.
const WINDOW_CLAMP_MIN: i32 = 1152;

/// A value as the slot has it (0: as everybody), and as it reads.
struct Value {
    told: u32,
    shown: i32,
}

fn plain(value: i32) -> Value {
    Value { told: value.cast_unsigned(), shown: value }
}

impl SocketOption {
    fn value(self, value: i32) -> Option<Value> {
        let within = |least: i32, most: i32| (least..=most).contains(&value).then(|| plain(value));
        match self {
            Self::UserTimeout => within(0, i32::MAX),
            Self::KeepIdle | Self::KeepInterval => within(1, SECONDS_MAX),
            Self::KeepCount | Self::SynRetries => within(1, COUNT_MAX),
            Self::QuickAck if value == 0 => Some(Value { told: quick_ack::OFF.into(), shown: 0 }),
            Self::QuickAck => Some(Value { told: quick_ack::ON.into(), shown: 1 }),
            Self::Linger2 if value == 0 => Some(Value { told: 0, shown: FIN_TIMEOUT_S }),
            Self::Linger2 => Some(plain(value.clamp(-1, LINGER2_MAX_S))),
            Self::NotSentLowWater => Some(plain(value)),
            Self::Tos => Some(plain(value & 0xff & !TOS_ECN)),
            Self::TrafficClass => within(-1, 255).map(|_| plain(value.max(0) & !TOS_ECN)),
            Self::Ttl | Self::Hops if value == -1 => Some(Value { told: 0, shown: TTL_DEFAULT }),
            Self::Ttl => within(1, 255),
            Self::Hops => within(0, 255),
            Self::MaxSegment if value == 0 => Some(plain(0)),
            Self::MaxSegment => within(88, 32_767),
            Self::DeferAccept => Some(plain(deferral(value))),
            Self::WindowClamp if value == 0 => Some(plain(0)),
            Self::WindowClamp => Some(plain(value.max(WINDOW_CLAMP_MIN))),
        }
    }

    fn word(self, slot: &Slot) -> &AtomicU32 {
        match self {
            Self::UserTimeout => &slot.options.user_timeout_ms,
            Self::KeepIdle => &slot.options.keep_idle_s,
            Self::KeepInterval => &slot.options.keep_interval_s,
            Self::KeepCount => &slot.options.keep_count,
            Self::QuickAck => &slot.options.quick_ack,
            Self::Linger2 => &slot.options.linger2_s,
            Self::NotSentLowWater => &slot.options.not_sent_low_water,
            Self::Tos | Self::TrafficClass => &slot.tx.tos,
            Self::Ttl | Self::Hops => &slot.tx.ttl,
            Self::MaxSegment => &slot.tx.max_segment,
            Self::SynRetries => &slot.tx.syn_retries,
            Self::DeferAccept => &slot.tx.defer_accept_s,
            Self::WindowClamp => &slot.options.window_clamp,
        }
    }

    /// What the card has to be told, if there is a connection.
    pub const fn tells(self) -> Tells {
        match self {
            Self::UserTimeout | Self::KeepIdle | Self::KeepInterval | Self::KeepCount | Self::QuickAck => Tells::Options,
            Self::Tos | Self::TrafficClass | Self::Ttl | Self::Hops => Tells::Options,
            Self::WindowClamp => Tells::Update,
            Self::Linger2 | Self::NotSentLowWater | Self::MaxSegment | Self::SynRetries | Self::DeferAccept => Tells::Nothing,
        }
    }
}

/// TCP_DEFER_ACCEPT as Linux rounds it: to the moments at which a SYN-ACK is sent again, after 1 s, 3 s, 7 s, ... 255 of them at most.
fn deferral(seconds: i32) -> i32 {
    const RTO_MAX_S: i32 = 120;
    let (mut total, mut step) = (0, 1);
    for _ in 0..255 {
        if total >= seconds {
            break;
        }
        total += step;
        step = (step * 2).min(RTO_MAX_S);
    }
    total
}

impl Socket<'_> {
    /// Checks a value as Linux does and leaves it in the slot; gives what the option reads as from now on. EINVAL: out of range. Of a
    /// connection the card has to be told what the option [`tells`](SocketOption::tells).
    /// RFC 9293 SHLD-21, MUST-21, MUST-27, MUST-48.
    pub fn set_option(&self, option: SocketOption, value: i32) -> Result<i32, Errno> {
        let Value { told, shown } = option.value(value).ok_or(Errno::INVAL)?;
        // As Linux: what bounds a window is taken away before there is one.
        if option == SocketOption::WindowClamp && value == 0 && self.state() != slot_state::OPEN {
            return Err(Errno::INVAL);
        }
        option.word(self.slot()).store(told, Relaxed);
        Ok(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9293 MUST-21, MUST-27.
    #[test]
    fn values_are_refused_as_by_linux() {
        use SocketOption::*;
        for (option, good, bad) in [
            (UserTimeout, &[0, i32::MAX][..], &[-1, i32::MIN][..]),
            (KeepIdle, &[1, 32_767], &[0, -1, 32_768]),
            (KeepInterval, &[1, 32_767], &[0, -1, 32_768]),
            (KeepCount, &[1, 127], &[0, 128]),
            (SynRetries, &[1, 127], &[0, 128]),
            (Ttl, &[-1, 1, 255], &[0, 256, -2]),
            (Hops, &[-1, 0, 255], &[256, -2]),
            (TrafficClass, &[-1, 0, 255], &[256, -2]),
            (MaxSegment, &[0, 88, 32_767], &[1, 87, 32_768]),
        ] {
            good.iter().for_each(|&value| assert!(option.value(value).is_some(), "{option:?} {value}"));
            bad.iter().for_each(|&value| assert!(option.value(value).is_none(), "{option:?} {value}"));
        }
    }

    #[test]
    fn what_means_the_default_reads_as_it() {
        use SocketOption::*;
        for (option, value, told, shown) in [
            (Linger2, 0, 0, 60),
            (Linger2, -5, u32::MAX, -1),
            (Linger2, 1000, 120, 120),
            (Ttl, -1, 0, 64),
            (Tos, 0x1bb, 0xb8, 0xb8),
            (NotSentLowWater, -1, u32::MAX, -1),
            (QuickAck, 0, 2, 0),
            (QuickAck, 7, 1, 1),
            (WindowClamp, -1, 1152, 1152),
            (WindowClamp, 1153, 1153, 1153),
            (WindowClamp, 0, 0, 0),
        ] {
            let got = option.value(value).map(|v| (v.told, v.shown));
            assert_eq!(got, Some((told, shown)), "{option:?} {value}");
        }
    }

    /// 1, 1 + 2, 1 + 2 + 4, ... seconds.
    #[test]
    fn deferrals_are_rounded_up_to_a_retransmission() {
        let rounded = [-1, 0, 1, 2, 3, 4, 8, 128, 200].map(deferral);
        assert_eq!(rounded, [0, 0, 1, 3, 3, 7, 15, 247, 247]);
        assert!(deferral(i32::MAX) < 255 * 120);
    }
}
