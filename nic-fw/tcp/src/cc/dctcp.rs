//! DCTCP (RFC 8257), the sender: it backs off by as much as the path is congested.
//!
//! ```text
//!   alpha = (1 - g) alpha + g F       F: part of a window's bytes whose acknowledgements echo a mark; g = 1/16
//!   cwnd  = cwnd (1 - alpha / 2)      once a window, if there was a mark
//! ```
//!
//! Else it is Reno. It needs accurate echoes, which is what [`receive`](crate::receive) does on flows of this algorithm.
//! What is kept is 1 - alpha, so that a new flow (zero) begins with alpha = 1 (RFC 8257, 4.2 leaves the choice).

use super::{Acked, CongestionControl};
use toe_abi::flow::CcState;

pub(super) struct Dctcp;

/// 1 - alpha in units of 2^-30: fine enough that it does not get stuck above 0 (RFC 8257, 4.2). And [`GROW`].
// RFC 8257 3.3-1, 4.2-1, 4.2-2.
const CLEAN: usize = 0;
/// Bytes of the present window to be acknowledged yet: RFC 8257's WindowEnd less SND.UNA.
const LEFT: usize = 1;
/// Bytes acknowledged in it (RFC 8257, 3.3: BytesAcked), and those of them that were marked (BytesMarked).
const ACKED: usize = 2;
const MARKED: usize = 3;

/// In [`CLEAN`]: cwnd was the limit in this window.
const GROW: u32 = 1 << 31;
const ONE: u32 = 1 << 30;
/// g = 1/16 (RFC 8257, 4.2).
const G_SHIFT: u32 = 4;

/// RFC 8257 4.2-3.
fn clean(cc: &CcState) -> u32 {
    (cc.words[CLEAN] & !GROW).min(ONE)
}

impl CongestionControl for Dctcp {
    fn avoid(&self, cc: &mut CcState, _acked: &Acked) {
        cc.words[CLEAN] |= GROW;
    }

    /// RFC 8257, 3.3, steps 1 to 8.
    fn delivered(&self, cc: &mut CcState, bytes: u32, marked: bool, flight: u32, mss: u32) {
        cc.words[ACKED] = cc.words[ACKED].saturating_add(bytes);
        if marked {
            cc.words[MARKED] = cc.words[MARKED].saturating_add(bytes);
        }
        if bytes < cc.words[LEFT] {
            cc.words[LEFT] -= bytes;
            return;
        }
        let (acked, marked) = (cc.words[ACKED].max(1), cc.words[MARKED].min(cc.words[ACKED]));
        // RFC 8257 3.3-2.
        let fraction = (u64::from(acked - marked) * u64::from(ONE) / u64::from(acked)) as u32;
        let estimate = clean(cc) - (clean(cc) >> G_SHIFT) + (fraction >> G_SHIFT);
        // RFC 5681, 3.1, congestion avoidance: a segment per round trip.
        if cc.words[CLEAN] & GROW != 0 && marked == 0 {
            cc.cwnd = cc.cwnd.saturating_add(mss);
        }
        cc.words = [estimate, flight, 0, 0];
    }

    /// RFC 8257 3.5-1, 3.5-2.
    fn reduce(&self, _cc: &mut CcState, flight: u32) -> u32 {
        // RFC 8257, 3.5: "MUST react to loss episodes in the same way as conventional TCP".
        flight / 2
    }

    /// RFC 8257 3.3-3.
    fn reduce_marked(&self, cc: &mut CcState, _flight: u32) -> u32 {
        // RFC 8257, 3.3, step 9: cwnd (1 - alpha / 2) = cwnd (1 + (1 - alpha)) / 2.
        ((u64::from(cc.cwnd) * u64::from(ONE + clean(cc))) >> 31) as u32
    }

    fn reset(&self, cc: &mut CcState) {
        cc.words[CLEAN] = clean(cc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;

    const MSS: u32 = 1460;
    const WINDOW: u32 = 100 * MSS;

    /// alpha in thousandths.
    fn alpha(cc: &CcState) -> u32 {
        ((u64::from(ONE - clean(cc)) * 1000) >> 30) as u32
    }

    /// A window of 100 segments of which the first `marked` are marked.
    fn round(cc: &mut CcState, marked: u32) {
        for i in 0..100 {
            Dctcp.delivered(cc, MSS, i < marked, WINDOW, MSS);
        }
    }

    fn begun() -> CcState {
        let mut cc = flow().cc;
        cc.cwnd = WINDOW;
        // The first acknowledgement begins a window.
        Dctcp.delivered(&mut cc, MSS, true, WINDOW, MSS);
        cc
    }

    /// RFC 8257 3.3-1.
    #[test]
    fn begins_as_cautious_as_reno() {
        let mut cc = begun();
        assert_eq!(alpha(&cc), 1000);
        assert_eq!(Dctcp.reduce_marked(&mut cc, 0), WINDOW / 2);
    }

    /// RFC 8257 3.3-2, 3.3-3.
    #[test]
    fn alpha_follows_the_marked_part_of_each_window() {
        let mut cc = begun();
        round(&mut cc, 0);
        assert_eq!(alpha(&cc), 937, "15/16");
        for _ in 0..100 {
            round(&mut cc, 25);
        }
        assert!((248..=252).contains(&alpha(&cc)), "{}", alpha(&cc));
        let reduced = Dctcp.reduce_marked(&mut cc, 0);
        assert!(reduced.abs_diff(WINDOW / 8 * 7) < MSS, "{reduced}");
    }

    /// RFC 8257 4.2-1, 4.2-2.
    #[test]
    fn alpha_of_a_clean_path_goes_to_nothing() {
        let mut cc = begun();
        for _ in 0..400 {
            round(&mut cc, 0);
        }
        assert_eq!(alpha(&cc), 0);
        assert!(Dctcp.reduce_marked(&mut cc, 0) >= WINDOW - 16);
    }

    #[test]
    fn a_clean_window_that_was_used_grows_by_a_segment() {
        let mut cc = begun();
        let acked = Acked { bytes: MSS, srtt_us: 100, mss: MSS, prior_cwnd: 0, now_ms: 0 };
        Dctcp.avoid(&mut cc, &acked);
        round(&mut cc, 0);
        assert_eq!(cc.cwnd, WINDOW + MSS);
        // Not used.
        round(&mut cc, 0);
        assert_eq!(cc.cwnd, WINDOW + MSS);
        // Marked.
        Dctcp.avoid(&mut cc, &acked);
        round(&mut cc, 1);
        assert_eq!(cc.cwnd, WINDOW + MSS);
        // Begun anew.
        Dctcp.avoid(&mut cc, &acked);
        Dctcp.reset(&mut cc);
        round(&mut cc, 0);
        assert_eq!(cc.cwnd, WINDOW + MSS);
    }

    #[test]
    fn a_loss_halves() {
        assert_eq!(Dctcp.reduce(&mut begun(), WINDOW), WINDOW / 2);
    }

    proptest::proptest! {
        /// RFC 8257 4.2-3.
        #[test]
        fn alpha_stays_within_0_and_1(words: [u32; 4], cwnd: u32, acks: std::vec::Vec<(u32, bool, u32)>) {
            let mut cc = flow().cc;
            (cc.words, cc.cwnd) = (words, cwnd);
            for (bytes, marked, flight) in acks {
                Dctcp.delivered(&mut cc, bytes, marked, flight, MSS);
                let reduced = Dctcp.reduce_marked(&mut cc, 0);
                assert!((cc.cwnd / 2..=cc.cwnd).contains(&reduced));
            }
        }
    }
}
