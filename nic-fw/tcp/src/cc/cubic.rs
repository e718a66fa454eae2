//! CUBIC (RFC 9438), in bytes and milliseconds, without floating point.
//!
//! ```text
//!   W_cubic(t) = C (t - K)^3 + W_max       C = 0.4 segments/s^3, beta = 0.7
//!   K          = cbrt((W_max - cwnd_epoch) / C)
//!
//!   cwnd      W_max ─ ─ ─ ─ ─ ─ ─,──────'
//!              │            ,───'  ▲      concave (4.4) before the plateau, convex (4.5) behind it
//!              └─ epoch ──┘        └─ the plateau: epoch + K
//! ```

use super::{Acked, CWND_MAX, CongestionControl, hystart};
use toe_abi::flow::CcState;
use toe_wire::SeqNum;

pub(super) struct Cubic;

/// Window before the last reduction, bytes.
const W_MAX: usize = 0;
/// When W_max is reached again, milliseconds: the start of this epoch of congestion avoidance and K.
const PLATEAU_MS: usize = 1;
/// What Reno would have, bytes (RFC 9438, 4.3).
const W_EST: usize = 2;
/// The fraction of [`W_EST`] in units of 2^-12 bytes, and [`EPOCH`].
const FRACTION: usize = 3;

const FRACTION_BITS: u32 = 12;
/// In [`FRACTION`]: an epoch has begun, and the words above are of it.
const EPOCH: u32 = 1 << 31;

/// Further from the plateau than this the window is beyond all bounds anyway; keeps cubes in range.
const T_MAX_MS: i64 = 400_000;

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

/// C d^3 in bytes, for `d` milliseconds from the plateau (RFC 9438, 4.2, Figure 1).
/// RFC 9438 5.1-1.
fn cube(d_ms: i64, mss: u32) -> i64 {
    let d = d_ms.clamp(-T_MAX_MS, T_MAX_MS);
    // 0.4 d^3 / 10^9 segments; |d^3 / 10^6| < 10^11, so nothing overflows.
    d * d * d / 1_000_000 * 4 * i64::from(mss.min(1 << 16)) / 10_000
}

fn start_epoch(cc: &mut CcState, acked: &Acked) {
    // RFC 9438, 4.2: K is 0 if the window has passed W_max; 4.8 and 4.10: and where there is none.
    cc.words[W_MAX] = cc.words[W_MAX].max(cc.cwnd);
    // RFC 9438, 4.2, Figure 2: K^3 = (W_max - cwnd_epoch) / C, here in ms^3.
    let deficit = u64::from(cc.words[W_MAX] - cc.cwnd);
    let k_ms = cbrt(deficit.min(1 << 30) * 2_500_000_000 / u64::from(acked.mss.max(1)));
    cc.words[PLATEAU_MS] = acked.now_ms.wrapping_add(k_ms);
    // RFC 9438, 4.3: "W_est is set equal to cwnd_epoch at the start of the congestion avoidance stage".
    // RFC 9438 4.8-2.
    cc.words[W_EST] = cc.cwnd;
    cc.words[FRACTION] = EPOCH;
}

/// RFC 9438, 4.3, Figure 4: W_est += alpha * segments_acked / cwnd.
fn grow_estimate(cc: &mut CcState, acked: &Acked) {
    // "Once W_est has grown to reach the cwnd at the time of most recently setting ssthresh", alpha goes from
    // 3 (1 - beta) / (1 + beta) = 9/17 to 1.
    // RFC 9438 4.3-2.
    let (num, den) = if cc.words[W_EST] < acked.prior_cwnd { (9, 17) } else { (1, 1) };
    let bytes = u64::from(acked.bytes.min(CWND_MAX));
    let grown = ((u64::from(acked.mss.min(1 << 16)) * bytes * num) << FRACTION_BITS) / (u64::from(cc.cwnd.max(1)) * den);
    // Not faster than slow start.
    let grown = grown.min(bytes << FRACTION_BITS) + u64::from(cc.words[FRACTION] & !EPOCH);
    cc.words[FRACTION] = EPOCH | grown as u32 & ((1 << FRACTION_BITS) - 1);
    cc.words[W_EST] = cc.words[W_EST].saturating_add((grown >> FRACTION_BITS) as u32).min(CWND_MAX);
}

/// RFC 9406, 4: HyStart++ is for the first slow start, before there was congestion.
fn is_first_slow_start(cc: &CcState) -> bool {
    cc.ssthresh >= CWND_MAX
}

impl CongestionControl for Cubic {
    /// RFC 9438 4.10-2.
    fn slow_start(&self, cc: &mut CcState, bytes: u32, una: SeqNum, nxt: SeqNum) -> u32 {
        if is_first_slow_start(cc) { hystart::grow(cc, bytes, una, nxt) } else { bytes }
    }

    fn rtt(&self, cc: &mut CcState, rtt_us: u32) {
        if is_first_slow_start(cc) {
            hystart::sample(cc, rtt_us);
        }
    }

    fn avoid(&self, cc: &mut CcState, acked: &Acked) {
        if cc.words[FRACTION] & EPOCH == 0 {
            start_epoch(cc, acked);
        }
        let since_plateau = i64::from(acked.now_ms.wrapping_sub(cc.words[PLATEAU_MS]).cast_signed());
        let w_max = i64::from(cc.words[W_MAX]);
        let w_cubic = |t: i64| (w_max + cube(t, acked.mss)).clamp(0, i64::from(CWND_MAX)) as u64;
        grow_estimate(cc, acked);
        if w_cubic(since_plateau) < u64::from(cc.words[W_EST]) {
            // RFC 9438, 4.3, the Reno-friendly region: "cwnd SHOULD be set to W_est".
            // RFC 9438 4.3-1.
            cc.cwnd = cc.cwnd.max(cc.words[W_EST]);
            return;
        }
        // RFC 9438, 4.2: target is W_cubic(t + RTT) within [cwnd, 1.5 cwnd]; 4.4 and 4.5: (target - cwnd) / cwnd for each segment
        // acknowledged. What is rounded away here the next target makes up for.
        let cwnd = u64::from(cc.cwnd.max(1));
        let target = w_cubic(since_plateau + i64::from(acked.srtt_us / 1000)).clamp(cwnd, cwnd * 3 / 2);
        // RFC 9438 4.4-1, 4.5-1.
        let grow = (target - cwnd) * u64::from(acked.bytes) / cwnd;
        cc.cwnd = cc.cwnd.saturating_add(u32::try_from(grow).unwrap_or(u32::MAX));
    }

    fn reduce(&self, cc: &mut CcState, flight: u32) -> u32 {
        if is_first_slow_start(cc) {
            cc.words = [0; 4];
        }
        // RFC 9438, 4.7, fast convergence: a window that shrinks makes room for new flows.
        // RFC 9438 4.7-1.
        cc.words[W_MAX] = if cc.cwnd < cc.words[W_MAX] { (u64::from(cc.cwnd) * 17 / 20) as u32 } else { cc.cwnd };
        cc.words[FRACTION] = 0;
        // RFC 9438, 4.6, Figure 5.
        // RFC 9438 4.6-2.
        (u64::from(flight) * 7 / 10) as u32
    }

    fn reduce_timed_out(&self, cc: &mut CcState, _flight: u32) -> u32 {
        // RFC 9438, 4.6: of cwnd (as Linux), else the loss of an answer's last segment, with little else in flight, would cost the next answers
        // the window. [`super::on_ack`] sees to it that cwnd is no more than what has been used.
        // RFC 9438 4.6-3.
        self.reduce(cc, cc.cwnd)
    }

    fn reset(&self, cc: &mut CcState) {
        // RFC 9438, 4.8: the next epoch has K = 0 and W_max = its own cwnd.
        // RFC 9438 4.8-1.
        cc.words = [0; 4];
    }

    /// RFC 9438 4.2-1.
    fn unused(&self, cc: &mut CcState) {
        // RFC 9438, 4.2: "t MUST NOT include periods when cwnd has not been updated due to application-limited behavior": a new epoch goes
        // on from the window that there is. In the first slow start the words are HyStart++'s, which goes on as well.
        if cc.words[FRACTION] & EPOCH != 0 {
            cc.words[FRACTION] = 0;
        }
    }

    fn undo(&self, cc: &mut CcState, prior_cwnd: u32) {
        // RFC 9438, 4.9: back on the curve of before, as far as its plateau is known still.
        cc.words[W_MAX] = cc.words[W_MAX].max(prior_cwnd);
        cc.words[FRACTION] = 0;
    }

    fn shift_clock(&self, cc: &mut CcState, ms: u32) {
        if cc.words[FRACTION] & EPOCH != 0 {
            cc.words[PLATEAU_MS] = cc.words[PLATEAU_MS].wrapping_add(ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;

    const MSS: u32 = 1460;

    fn acked(bytes: u32, rtt_ms: u32, prior_cwnd: u32, now_ms: u32) -> Acked {
        Acked { bytes, srtt_us: rtt_ms * 1000, mss: MSS, prior_cwnd, now_ms }
    }

    #[test]
    fn cube_roots() {
        for x in [0u64, 1, 7, 8, 26, 27, 999_999_999, 1_000_000_000, u64::from(u32::MAX), (1 << 30) * 2_500_000_000 / 64] {
            let r = u64::from(cbrt(x));
            assert!(r * r * r <= x && (r + 1).pow(3) > x, "{x}: {r}");
        }
    }

    /// RFC 9438 5.1-1: C is 0.4 segments per cubic second.
    #[test]
    fn the_curve_is_cubic() {
        assert_eq!((cube(1000, MSS), cube(10_000, MSS), cube(-1000, MSS)), (584, 584_000, -584));
    }

    /// RFC 9406, 4; RFC 9438 4.10-2.
    #[test]
    fn hystart_ends_the_first_slow_start_and_no_other() {
        let growth = |ssthresh| {
            let mut cc = flow().cc;
            cc.ssthresh = ssthresh;
            let mut ack = |una, rtt_us| {
                let grown = Cubic.slow_start(&mut cc, 4000, SeqNum(una), SeqNum(una + 100));
                (0..8).for_each(|_| Cubic.rtt(&mut cc, rtt_us));
                grown
            };
            [ack(0, 10_000), ack(100, 10_000), ack(200, 50_000), ack(250, 50_000)]
        };
        assert_eq!(growth(CWND_MAX), [4000, 4000, 4000, 1000]);
        assert_eq!(growth(CWND_MAX - 1), [4000; 4]);
    }

    /// RFC 9438 4.3-2.
    #[test]
    fn reno_s_window_grows_by_a_segment_once_it_is_what_it_was() {
        let grown = |estimate: u32| {
            let mut cc = flow().cc;
            cc.cwnd = 100 * MSS;
            cc.words[W_EST] = estimate;
            grow_estimate(&mut cc, &acked(100 * MSS, 1, 100 * MSS, 0));
            cc.words[W_EST] - estimate
        };
        assert_eq!((grown(100 * MSS - 1), grown(100 * MSS)), (MSS * 9 / 17, MSS));
    }

    /// RFC 9438 4.3-1: Reno's window is the guide where it is the larger.
    #[test]
    fn where_both_windows_are_equal_the_curve_is_the_guide() {
        let mut cc = flow().cc;
        cc.cwnd = 1000 * MSS;
        cc.words = [cc.cwnd, 0, cc.cwnd, EPOCH];
        // Far ahead the curve is steep.
        Cubic.avoid(&mut cc, &acked(100, 100_000, 1000 * MSS, 0));
        assert_eq!(cc.cwnd, 1000 * MSS + 50);
    }

    /// Acknowledges a full window per round trip for `ms` milliseconds, ten segments at a time.
    fn run(cc: &mut CcState, from_ms: u32, ms: u32, rtt_ms: u32, prior_cwnd: u32) {
        for t in (from_ms..from_ms + ms).step_by(rtt_ms as usize) {
            let mut rest = cc.cwnd;
            while rest > 0 {
                let bytes = rest.min(10 * MSS);
                Cubic.avoid(cc, &acked(bytes, rtt_ms, prior_cwnd, t));
                rest -= bytes;
            }
        }
    }

    /// A window of `segments`, just reduced.
    fn reduced(segments: u32) -> CcState {
        let mut cc = flow().cc;
        cc.cwnd = segments * MSS;
        cc.cwnd = Cubic.reduce(&mut cc, segments * MSS);
        cc.ssthresh = cc.cwnd;
        cc
    }

    /// RFC 9438 4.6-2.
    #[test]
    fn beta_is_seven_tenths() {
        assert_eq!(reduced(1000).cwnd, 700 * MSS);
    }

    /// RFC 9438 4.4-1, 4.5-1, 5.1-1.
    #[test]
    fn returns_to_the_old_window_at_k() {
        let mut cc = reduced(1000);
        // K = cbrt(300 / 0.4) = 9.085 s
        run(&mut cc, 1000, 9085, 100, 1000 * MSS);
        assert!((960 * MSS..1020 * MSS).contains(&cc.cwnd), "cwnd {}", cc.cwnd);
        // Flat about K, then ever steeper.
        let at_k = cc.cwnd;
        run(&mut cc, 10_085, 2000, 100, 1000 * MSS);
        assert!(cc.cwnd - at_k < 30_000, "cwnd {}", cc.cwnd);
        run(&mut cc, 12_085, 8000, 100, 1000 * MSS);
        assert!(cc.cwnd > 1165 * MSS, "cwnd {}", cc.cwnd);
    }

    /// RFC 9293 MAY-18; RFC 9438 4.3-1, 4.8-2, 4.3-2.
    #[test]
    fn is_as_fast_as_reno_at_short_round_trips() {
        let mut cc = reduced(100);
        // 50 round trips of 1 ms at alpha = 9/17: 26 segments; the cubic curve has grown by nothing then.
        run(&mut cc, 1, 50, 1, 100 * MSS);
        let grown = cc.cwnd / MSS - 70;
        assert!((24..=28).contains(&grown), "grew by {grown}");
        // Behind the window of before by a segment per round trip.
        cc.cwnd = 100 * MSS;
        cc.words[W_EST] = cc.cwnd;
        run(&mut cc, 51, 50, 1, 100 * MSS);
        let grown = cc.cwnd / MSS - 100;
        assert!((47..=52).contains(&grown), "grew by {grown}");
    }

    #[test]
    fn small_acknowledgements_of_a_large_window_are_not_rounded_up() {
        let mut cc = reduced(10_000);
        let start = cc.cwnd;
        // One round trip, segment by segment: 9/17 of a segment.
        for _ in 0..7000 {
            Cubic.avoid(&mut cc, &acked(MSS, 1, 10_000 * MSS, 5));
        }
        let est = cc.words[W_EST] - start;
        assert!((700..=780).contains(&est), "{est} of {}", MSS * 9 / 17);
    }

    #[test]
    fn never_more_than_half_a_window_per_round_trip() {
        let mut cc = reduced(100);
        Cubic.avoid(&mut cc, &acked(MSS, 100, 100 * MSS, 0));
        // Long behind the plateau the curve is far above.
        let before = cc.cwnd;
        run(&mut cc, 60_000, 1, 1, 100 * MSS);
        assert!(cc.cwnd <= before + before / 2 + 10 * MSS, "{before} -> {}", cc.cwnd);
        assert!(cc.cwnd > before + before / 3, "{before} -> {}", cc.cwnd);
    }

    /// RFC 9438 4.7-1.
    #[test]
    fn fast_convergence_lowers_the_plateau() {
        let mut cc = reduced(1000);
        assert_eq!(cc.words[W_MAX], 1000 * MSS);
        Cubic.reduce(&mut cc, 700 * MSS);
        assert_eq!(cc.words[W_MAX], 700 * MSS * 17 / 20);
        // On the last plateau or beyond it there is nothing to converge.
        for segments in [700 * 17 / 20, 900] {
            cc.cwnd = segments * MSS;
            Cubic.reduce(&mut cc, segments * MSS);
            assert_eq!(cc.words[W_MAX], segments * MSS);
        }
    }

    /// RFC 9438 4.8-1, 4.8-2.
    #[test]
    fn after_a_timeout_the_plateau_is_where_avoidance_begins() {
        let mut cc = reduced(1000);
        Cubic.reset(&mut cc);
        cc.cwnd = 500 * MSS;
        Cubic.avoid(&mut cc, &acked(MSS, 100, 1000 * MSS, 7000));
        assert_eq!((cc.words[W_MAX], cc.words[PLATEAU_MS]), (500 * MSS, 7000));
    }

    /// RFC 9438 4.2-1.
    #[test]
    fn unused_time_is_not_on_the_curve() {
        let mut used = reduced(1000);
        run(&mut used, 0, 2000, 100, 1000 * MSS);
        let mut paused = used;
        Cubic.unused(&mut paused);
        run(&mut used, 2000, 1000, 100, 1000 * MSS);
        // A minute later it goes on as if it was then.
        run(&mut paused, 62_000, 1000, 100, 1000 * MSS);
        assert!(used.cwnd.abs_diff(paused.cwnd) < 3 * MSS, "{} {}", used.cwnd, paused.cwnd);
    }

    #[test]
    fn silent_time_is_not_on_the_curve() {
        let mut used = reduced(1000);
        run(&mut used, 0, 2000, 100, 1000 * MSS);
        let mut silent = used;
        Cubic.shift_clock(&mut silent, 150);
        run(&mut used, 2000, 1000, 100, 1000 * MSS);
        run(&mut silent, 2150, 1000, 100, 1000 * MSS);
        assert_eq!(used.cwnd, silent.cwnd);
        // In the first slow start the words are HyStart++'s.
        let mut first = flow().cc;
        let grown = Cubic.slow_start(&mut first, 1000, SeqNum(0), SeqNum(100));
        let words = first.words;
        Cubic.shift_clock(&mut first, 150);
        assert_eq!((grown, first.words), (1000, words));
    }

    /// RFC 9406, 4: what round-trip times have told is not forgotten.
    #[test]
    fn an_unused_window_does_not_begin_the_first_slow_start_anew() {
        let mut cc = flow().cc;
        cc.ssthresh = CWND_MAX;
        let mut ack = |una, rtt_us| {
            let grown = Cubic.slow_start(&mut cc, 4000, SeqNum(una), SeqNum(una + 100));
            (0..8).for_each(|_| Cubic.rtt(&mut cc, rtt_us));
            Cubic.unused(&mut cc);
            grown
        };
        assert_eq!([ack(0, 10_000), ack(100, 10_000), ack(200, 50_000), ack(250, 50_000)], [4000, 4000, 4000, 1000]);
    }

    #[test]
    fn an_undone_reduction_leaves_the_plateau_no_lower_than_the_window() {
        let mut cc = reduced(1000);
        cc.cwnd = 800 * MSS;
        Cubic.reduce(&mut cc, 800 * MSS);
        Cubic.undo(&mut cc, 800 * MSS);
        assert_eq!(cc.words[W_MAX], 800 * MSS);
    }

    proptest::proptest! {
        #[test]
        fn no_input_overflows_or_shrinks_the_window(
            words: [u32; 4], cwnd: u32, bytes: u32, srtt_us: u32, mss: u16, prior_cwnd: u32, now_ms: u32,
        ) {
            let mut cc = flow().cc;
            (cc.words, cc.cwnd) = (words, cwnd);
            Cubic.avoid(&mut cc, &Acked { bytes, srtt_us, mss: mss.into(), prior_cwnd, now_ms });
            assert!(cc.cwnd >= cwnd);
            assert!(Cubic.reduce(&mut cc, bytes) <= bytes);
            Cubic.avoid(&mut cc, &Acked { bytes, srtt_us, mss: mss.into(), prior_cwnd, now_ms: !now_ms });
        }
    }
}
