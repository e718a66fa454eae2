//! Round-trip time and retransmission timeout (RFC 6298).

use crate::Now;
use crate::pool::Pools;
use crate::state::View;
use toe_abi::flow::{FlowState, flow_flags as ff};
use toe_wire::Timestamps;

/// Before there is a sample (RFC 6298, 2.1).
const RTO_INITIAL_US: u32 = 1_000_000;
/// RFC 6298, 2.5 allows 60 s or more; Linux has 120.
// RFC 6298 2-9.
pub(crate) const RTO_MAX_MS: u32 = 120_000;
/// What a backoff is kept up to, as after losses of the handshake (RFC 6298, 5.7): few round trips are longer, and on a path that loses much
/// one that can be measured may be long in coming.
const RTO_KEPT_US: u32 = 3_000_000;
/// An echoed timestamp that says more than this was made up.
const ECHO_MAX_MS: u32 = 60_000;

/// Takes one measurement (RFC 6298, 2.2 and 2.3).
/// RFC 9293 MUST-18; RFC 6298 2-3, 2-4, 2-5, 2-6.
pub(crate) fn sample(s: &mut FlowState, rtt_us: u32) {
    let rtt = rtt_us.clamp(1, ECHO_MAX_MS * 1000);
    // RFC 6298 5-5.
    let anew = s.tx.srtt_us == 0 || s.has(ff::BACKED_OFF);
    s.clear(ff::PROBED | ff::BACKED_OFF);
    if anew {
        s.tx.srtt_us = rtt;
        s.tx.rttvar_us = rtt / 2;
        return;
    }
    // Kept in whole microseconds; rounded so that a constant RTT is a fixed point.
    let delta = s.tx.srtt_us.abs_diff(rtt);
    s.tx.rttvar_us = s.tx.rttvar_us / 4 * 3 + delta / 4;
    s.tx.srtt_us = ((u64::from(s.tx.srtt_us) * 7 + u64::from(rtt) + 4) / 8).max(1) as u32;
}

/// RTO without backoff, microseconds.
fn base_us(s: &FlowState) -> u32 {
    if s.tx.srtt_us == 0 {
        // RFC 6298 2-1, 5-4: the handshake's losses may ask for more.
        return RTO_INITIAL_US.max(s.tx.rttvar_us.saturating_mul(4));
    }
    // As Linux: the minimum is added to the RTT and not a floor below the sum, so that a peer's delayed ACK of 40 to 200 ms
    // does not look like a loss.
    let min_us = u32::from(s.tx.rto_min_4ms) * 4000;
    // RFC 6298 2-7, 4-1.
    s.tx.srtt_us.saturating_add(s.tx.rttvar_us.saturating_mul(4).max(min_us))
}

/// Data that was sent more than once is acknowledged, which measures nothing: the timeout stays as long as it has become until a round trip is
/// measured, if that is possible. Where they have become longer than it was, every segment would be sent twice, and none ever measured.
/// RFC 6298 3-1, 5-6.
pub(crate) fn keep_backoff(s: &mut FlowState, pools: &Pools) {
    if s.tx.backoff > 0 && !pools.is_out_of_records() {
        let us = (rto_ms(s) * 1000).min(RTO_KEPT_US.max(base_us(s)));
        s.tx.rttvar_us = us.saturating_sub(s.tx.srtt_us) / 4;
        s.set(ff::BACKED_OFF);
    }
}

/// The timeout now, with exponential backoff (RFC 6298, 5.5), milliseconds.
/// RFC 6298 5-3.
pub(crate) fn rto_ms(s: &FlowState) -> u32 {
    rto_after_ms(s, s.tx.backoff)
}

/// The timeout after so many in a row, milliseconds.
pub(crate) fn rto_after_ms(s: &FlowState, backoff: u8) -> u32 {
    let base_ms = base_us(s).div_ceil(1000).max(1);
    let ms = u64::from(base_ms) << backoff.min(20);
    ms.min(u64::from(RTO_MAX_MS)) as u32
}

/// The least round trip is of stretches of so many milliseconds, about 4 minutes: a path may become longer.
/// RFC 8985 6.2-1.
const MIN_RTT_MS_LOG2: u32 = 18;

/// A round trip of data that was sent once.
pub(crate) fn measured(s: &mut FlowState, rtt_us: u32, now: Now) {
    let rtt_us = rtt_us.max(1);
    let sent_ms = now.ms32().wrapping_sub(rtt_us / 1000);
    // What was under way when a stretch began is the first measurement of it.
    let anew = sent_ms >> MIN_RTT_MS_LOG2 != now.ms32() >> MIN_RTT_MS_LOG2;
    s.tx.min_rtt_us = if anew || s.tx.min_rtt_us == 0 { rtt_us } else { rtt_us.min(s.tx.min_rtt_us) };
    sample(s, rtt_us);
}

/// The timestamp of ours that a segment echoes. Zero is none: a peer that has seen none yet sends it.
pub(crate) fn echo(s: &FlowState, timestamps: Option<Timestamps>) -> Option<u32> {
    timestamps.filter(|_| s.has(ff::TIMESTAMPS)).map(|ts| ts.ecr).filter(|ecr| *ecr != 0)
}

/// Takes the sample that an echoed timestamp gives, where there is nothing better: its clock ticks in milliseconds, or more slowly. Whether it
/// gives one.
/// RFC 7323 4.1-2.
pub(crate) fn echoed(s: &mut FlowState, timestamps: Option<Timestamps>, now: Now) -> bool {
    // Karn's rule (RFC 6298, 3) forbids timing what was sent twice, but an echoed timestamp says which copy it answers (RFC 7323, 4.1). If
    // only the ACK was lost, the echo is that of the first copy, and a whole timeout too old: no sample may count more than the present
    // timeout.
    let Some(ecr) = echo(s, timestamps) else { return false };
    let ms = crate::output::ts_now(s, now).wrapping_sub(ecr);
    let sane = ms <= ECHO_MAX_MS;
    if sane {
        sample(s, (ms.max(1) * 1000).min(base_us(s)));
    }
    sane
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;

    /// RFC 9293 MUST-18; RFC 6298 2-1, 2-3, 2-4, 2-5, 2-6, 2-7, 4-1; RFC 1122 4.2.3.1-2.
    #[test]
    fn first_sample_and_convergence() {
        let mut s = flow();
        assert_eq!(rto_ms(&s), 1000);
        sample(&mut s, 100_000);
        assert_eq!((s.tx.srtt_us, s.tx.rttvar_us), (100_000, 50_000));
        sample(&mut s, 60_000);
        assert_eq!((s.tx.srtt_us, s.tx.rttvar_us), (95_000, 37_500 + 10_000));
        for _ in 0..100 {
            sample(&mut s, 10_000);
        }
        assert!(s.tx.srtt_us.abs_diff(10_000) < 10, "srtt {}", s.tx.srtt_us);
        // Minimum of 200 ms over the RTT.
        assert!((210..=212).contains(&rto_ms(&s)), "rto {}", rto_ms(&s));
    }

    #[test]
    fn the_least_round_trip_is_kept() {
        let mut s = flow();
        let least = [500, 300, 400, 0].map(|us| {
            measured(&mut s, us, Now(1_000_000));
            s.tx.min_rtt_us
        });
        assert_eq!(least, [500, 300, 300, 1]);
    }

    /// RFC 7323 4.1-2.
    #[test]
    fn an_echo_is_a_sample_where_timestamps_were_agreed_on() {
        let sampled = |flags, ecr| {
            let mut s = flow();
            s.set(flags);
            echoed(&mut s, Some(Timestamps { val: 1, ecr }), Now(100_000));
            s.tx.srtt_us
        };
        assert_eq!(sampled(ff::TIMESTAMPS, 93), 7000);
        assert_eq!((sampled(ff::TIMESTAMPS, 0), sampled(0, 93), sampled(ff::TIMESTAMPS, 101)), (0, 0, 0));
    }

    /// RFC 9293 MUST-19; RFC 6298 2-9, 5-3.
    #[test]
    fn backoff_doubles_up_to_the_limit() {
        let mut s = flow();
        let mut last = 0;
        for backoff in 0..=255 {
            s.tx.backoff = backoff;
            let rto = rto_ms(&s);
            assert!(rto == RTO_MAX_MS || last == 0 || rto == 2 * last);
            last = rto;
        }
        assert_eq!(last, RTO_MAX_MS);
    }

    /// RFC 8985 6.2-1.
    #[test]
    fn the_least_round_trip_is_forgotten_after_some_minutes() {
        let mut s = flow();
        let stretch_us = 1000u64 << MIN_RTT_MS_LOG2;
        for (at_us, rtt_us, least) in [(0, 20_000, 20_000), (1, 30_000, 20_000), (2, 10_000, 10_000)] {
            measured(&mut s, rtt_us, Now(stretch_us / 2 + at_us));
            assert_eq!(s.tx.min_rtt_us, least);
        }
        // The path is another one.
        measured(&mut s, 50_000, Now(stretch_us - 1));
        assert_eq!(s.tx.min_rtt_us, 10_000);
        measured(&mut s, 50_000, Now(stretch_us + 20_000));
        measured(&mut s, 60_000, Now(stretch_us + 70_000));
        assert_eq!(s.tx.min_rtt_us, 50_000);
    }

    #[test]
    fn hostile_samples_do_not_overflow() {
        let mut s = flow();
        for rtt in [u32::MAX, 0, u32::MAX, 1, u32::MAX] {
            sample(&mut s, rtt);
            assert!(s.tx.srtt_us > 0 && rto_ms(&s) <= RTO_MAX_MS);
        }
    }
}
