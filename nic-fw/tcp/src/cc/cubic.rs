//! CUBIC (RFC 9438), in bytes and milliseconds, without floating point.
//!
//! ```text
//!   W_cubic(t) = C (t - K)^3 + W_max       C = 0.4 segments/s^3, beta = 0.7
//!   K          = cbrt((W_max - cwnd_epoch) / C)
//! ```

use super::{Acked, CongestionControl};
use toe_abi::flow::CcState;

pub(super) struct Cubic;

/// Window before the last reduction, bytes.
const W_MAX: usize = 0;
/// When this epoch of congestion avoidance began, milliseconds; 0: none has.
const EPOCH_MS: usize = 1;
/// Time from the start of the epoch until W_max is reached again, milliseconds.
const K_MS: usize = 2;
/// What Reno would have, bytes (RFC 9438, 4.3).
const W_EST: usize = 3;

/// Further from K than this the window is beyond all bounds anyway; keeps cubes in range.
const T_MAX_MS: i64 = 100_000;

/// Largest n with n^3 <= x.
fn cbrt(x: u64) -> u32 {
    let mut root = 0u64;
    for bit in (0..22).rev() {
        let next = root | 1 << bit;
        if next.saturating_mul(next).saturating_mul(next) <= x {
            root = next;
        }
    }
    root as u32
}

/// C d^3 in bytes, for `d` milliseconds from the plateau (RFC 9438, (1)).
/// RFC 9438 5.1-1.
fn cube(d_ms: i64, mss: u32) -> i64 {
    let d = d_ms.clamp(-T_MAX_MS, T_MAX_MS);
    // 0.4 d^3 / 10^9 segments; |d^3 / 10^6| <= 10^9, so nothing overflows.
    d * d * d / 1_000_000 * 4 * i64::from(mss) / 10_000
}

fn start_epoch(cc: &mut CcState, acked: &Acked) {
    cc.words[EPOCH_MS] = acked.now_ms.max(1);
    cc.words[W_MAX] = cc.words[W_MAX].max(cc.cwnd);
    // RFC 9438, (2): K^3 = (W_max - cwnd) / C, here in ms^3.
    let deficit = u64::from(cc.words[W_MAX] - cc.cwnd);
    cc.words[K_MS] = cbrt(deficit.min(1 << 30) * 2_500_000_000 / u64::from(acked.mss.max(1)));
    // RFC 9438 4.8-2.
    cc.words[W_EST] = cc.cwnd;
}

impl CongestionControl for Cubic {
    fn avoid(&self, cc: &mut CcState, acked: &Acked) {
        if cc.words[EPOCH_MS] == 0 {
            start_epoch(cc, acked);
        }
        let cwnd = u64::from(cc.cwnd.max(1));
        let t_ms = i64::from(acked.now_ms.wrapping_sub(cc.words[EPOCH_MS]));
        let k_ms = i64::from(cc.words[K_MS]);
        let w_max = i64::from(cc.words[W_MAX]);
        let w_cubic = |t: i64| (w_max + cube(t - k_ms, acked.mss)).clamp(0, i64::from(super::CWND_MAX)) as u64;

        // RFC 9438, 4.3: alpha is 3 (1 - beta) / (1 + beta) = 9/17 until the window of before is reached, 1 from then on.
        // RFC 9438 4.3-2.
        let (num, den) = if cc.words[W_EST] < cc.words[W_MAX] { (9, 17) } else { (1, 1) };
        let reno = (u64::from(acked.mss) * u64::from(acked.bytes) * num).div_ceil(cwnd * den);
        cc.words[W_EST] = cc.words[W_EST].saturating_add(reno.min(u64::from(acked.bytes)) as u32).min(super::CWND_MAX);

        if w_cubic(t_ms) < u64::from(cc.words[W_EST]) {
            // RFC 9438 4.3-1.
            cc.cwnd = cc.cwnd.max(cc.words[W_EST]);
        } else {
            // RFC 9438, 4.2: target within [cwnd, 1.5 cwnd]; (target - cwnd) / cwnd for each byte acknowledged.
            let target = w_cubic(t_ms + i64::from(acked.srtt_us / 1000)).clamp(cwnd, cwnd * 3 / 2);
            // RFC 9438 4.4-1, 4.5-1.
            let grow = (target - cwnd) * u64::from(acked.bytes) / cwnd;
            cc.cwnd = cc.cwnd.saturating_add(grow as u32);
        }
    }

    fn reduce(&self, cc: &mut CcState, flight: u32, _mss: u32) -> u32 {
        // RFC 9438, 4.7, fast convergence: a window that shrinks makes room for new flows.
        // RFC 9438 4.7-1.
        cc.words[W_MAX] = if cc.cwnd < cc.words[W_MAX] { (u64::from(cc.cwnd) * 17 / 20) as u32 } else { cc.cwnd };
        cc.words[EPOCH_MS] = 0;
        // RFC 9438, (5).
        // RFC 9438 4.6-2.
        (u64::from(flight) * 7 / 10) as u32
    }

    fn reset(&self, cc: &mut CcState) {
        cc.words[EPOCH_MS] = 0;
    }

    fn shift_clock(&self, cc: &mut CcState, ms: u32) {
        if cc.words[EPOCH_MS] != 0 {
            cc.words[EPOCH_MS] = cc.words[EPOCH_MS].wrapping_add(ms).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;

    #[test]
    fn cube_roots() {
        for x in [0u64, 1, 7, 8, 26, 27, 999_999_999, 1_000_000_000, u64::from(u32::MAX)] {
            let r = u64::from(cbrt(x));
            assert!(r * r * r <= x && (r + 1).pow(3) > x, "{x}: {r}");
        }
    }

    /// Acknowledges a full window per round trip for `ms` milliseconds.
    fn run(cc: &mut CcState, from_ms: u32, ms: u32, rtt_ms: u32) {
        for t in (from_ms..from_ms + ms).step_by(rtt_ms as usize) {
            let mut rest = cc.cwnd;
            while rest > 0 {
                let bytes = rest.min(14_600);
                Cubic.avoid(cc, &Acked { bytes, srtt_us: rtt_ms * 1000, mss: 1460, now_ms: t });
                rest -= bytes;
            }
        }
    }

    /// RFC 9438 4.4-1, 4.5-1, 4.6-2, 5.1-1.
    #[test]
    fn returns_to_the_old_window_at_k() {
        let mut cc = flow().cc;
        cc.cwnd = 1_460_000;
        let ssthresh = Cubic.reduce(&mut cc, 1_460_000, 1460);
        assert_eq!(ssthresh, 1_022_000);
        cc.cwnd = ssthresh;
        // K = cbrt(300 / 0.4) = 9.085 s
        run(&mut cc, 1000, 9085, 100);
        assert!((1_400_000..1_500_000).contains(&cc.cwnd), "cwnd {}", cc.cwnd);
        // Flat about K, then ever steeper.
        let at_k = cc.cwnd;
        run(&mut cc, 10_085, 2000, 100);
        assert!(cc.cwnd - at_k < 30_000, "cwnd {}", cc.cwnd);
        run(&mut cc, 12_085, 8000, 100);
        assert!(cc.cwnd > 1_700_000, "cwnd {}", cc.cwnd);
    }

    /// RFC 9293 MAY-18; RFC 9438 4.3-1, 4.8-2.
    #[test]
    fn is_at_least_as_fast_as_reno_at_short_round_trips() {
        let mut cc = flow().cc;
        cc.cwnd = 100 * 1460;
        cc.cwnd = Cubic.reduce(&mut cc, 100 * 1460, 1460);
        let start = cc.cwnd;
        // 100 round trips of 1 ms at alpha 9/17: more than 50 segments.
        run(&mut cc, 1, 100, 1);
        assert!(cc.cwnd >= start + 50 * 1460, "grew by {}", (cc.cwnd - start) / 1460);
    }

    /// RFC 9438 4.7-1.
    #[test]
    fn a_window_that_shrinks_makes_room() {
        let mut cc = flow().cc;
        cc.cwnd = 1_000_000;
        cc.cwnd = Cubic.reduce(&mut cc, 1_000_000, 1460);
        assert_eq!(cc.words[W_MAX], 1_000_000);
        Cubic.reduce(&mut cc, 700_000, 1460);
        assert_eq!(cc.words[W_MAX], 700_000 * 17 / 20);
    }

    /// RFC 9438 4.3-2.
    #[test]
    fn the_estimate_grows_as_reno_from_the_old_window_on() {
        let mut cc = flow().cc;
        let growth = |cc: &mut CcState, w_est| {
            (cc.cwnd, cc.words) = (100 * 1460, [100 * 1460, 1, 0, w_est]);
            Cubic.avoid(cc, &Acked { bytes: 100 * 1460, srtt_us: 1000, mss: 1460, now_ms: 1 });
            cc.words[W_EST] - w_est
        };
        assert_eq!(growth(&mut cc, 90 * 1460), (1460 * 9u32).div_ceil(17));
        assert_eq!(growth(&mut cc, 100 * 1460), 1460);
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        let mut cc = flow().cc;
        for cwnd in [1, u32::MAX, 1 << 30] {
            for word in [0, 1, u32::MAX] {
                cc.cwnd = cwnd;
                cc.words = [word; 4];
                Cubic.avoid(&mut cc, &Acked { bytes: u32::MAX, srtt_us: u32::MAX, mss: 65_535, now_ms: word ^ 1 << 31 });
                Cubic.reduce(&mut cc, u32::MAX, 65_535);
            }
        }
    }
}
