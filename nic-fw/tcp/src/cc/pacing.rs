//! Pacing: the pace at which a window is spread over its round trip, instead of leaving as fast as acknowledgements come in and the port can (as
//! Linux's sk_pacing_rate).
//!
//! ```text
//!   nothing acknowledged yet             unpaced: an initial window is a burst that is allowed (RFC 6928)
//!   cwnd below half of ssthresh          2.0 x cwnd / srtt      slow start: what comes back makes room for twice as much
//!   else                                 1.2 x cwnd / srtt      so that the window stays the limit, and not the pace
//! ```

use crate::state::View;
use toe_abi::flow::FlowState;

/// Linux's net.ipv4.tcp_pacing_ss_ratio and tcp_pacing_ca_ratio.
const SLOW_START_PERCENT: u64 = 200;
const AVOIDANCE_PERCENT: u64 = 120;
/// A pace that is wrong by less than this part stays.
const NEAR: u64 = 16;

/// The pace of the flow's window, kbit/s. `None`: there is none, as no round trip is known, or `kbps` is near it.
#[must_use]
pub fn pace_kbps(s: &FlowState, kbps: u32) -> Option<u32> {
    let srtt_us = u64::from(s.tx.srtt_us);
    let percent = if s.cc.cwnd < s.cc.ssthresh / 2 { SLOW_START_PERCENT } else { AVOIDANCE_PERCENT };
    // In recovery cwnd can be below what is in flight, and grows back.
    let window = u64::from(s.cc.cwnd.max(s.outstanding()));
    // 8 bits a byte, 1000 kbit/s in a bit a microsecond.
    let want = window * percent * (8 * 1000 / 100);
    let have = u64::from(kbps) * srtt_us;
    if srtt_us == 0 || want.abs_diff(have) < want / NEAR {
        return None;
    }
    Some(u32::try_from(want / srtt_us).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;

    /// 100 segments in 10 ms: 116.8 Mbit/s.
    fn steady() -> FlowState {
        let mut s = flow();
        (s.cc.cwnd, s.cc.ssthresh, s.tx.srtt_us) = (146_000, 1 << 30, 10_000);
        s
    }

    #[test]
    fn twice_the_window_in_slow_start_and_a_fifth_more_near_its_end() {
        let mut s = steady();
        assert_eq!(pace_kbps(&s, 0), Some(233_600));
        s.cc.ssthresh = 2 * s.cc.cwnd;
        assert_eq!(pace_kbps(&s, 0), Some(140_160));
        s.cc.ssthresh = s.cc.cwnd;
        assert_eq!(pace_kbps(&s, 0), Some(140_160));
    }

    #[test]
    fn a_sixteenth_is_not_near() {
        let kbps = 233_600 / 16 * 15;
        assert_eq!((pace_kbps(&steady(), kbps), pace_kbps(&steady(), kbps + 1)), (Some(233_600), None));
    }

    #[test]
    fn there_is_none_without_a_round_trip() {
        let mut s = steady();
        s.tx.srtt_us = 0;
        assert_eq!(pace_kbps(&s, 0), None);
    }

    #[test]
    fn a_small_change_of_the_window_changes_nothing() {
        let mut s = steady();
        let kbps = pace_kbps(&s, 0).expect("a pace");
        s.cc.cwnd += s.cc.cwnd / 20;
        assert_eq!(pace_kbps(&s, kbps), None);
        s.cc.cwnd += s.cc.cwnd / 20;
        assert!(pace_kbps(&s, kbps).is_some_and(|new| new > kbps));
        s.cc.cwnd /= 2;
        assert!(pace_kbps(&s, kbps).is_some_and(|new| new < kbps));
    }

    #[test]
    fn what_is_in_flight_beyond_the_window_counts() {
        let mut s = steady();
        (s.cc.cwnd, s.tx.snd_max) = (1460, s.tx.snd_una + 146_000);
        assert_eq!(pace_kbps(&s, 0), Some(233_600));
    }

    proptest::proptest! {
        #[test]
        fn no_state_makes_a_pace_of_nothing(cwnd: u32, ssthresh: u32, srtt_us: u32, snd_max: u32, kbps: u32) {
            let mut s = flow();
            (s.cc.cwnd, s.cc.ssthresh, s.tx.srtt_us, s.tx.snd_max) = (cwnd, ssthresh, srtt_us, snd_max);
            assert_ne!(pace_kbps(&s, kbps), Some(0));
        }
    }
}
