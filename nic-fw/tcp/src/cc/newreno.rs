//! The standard's own (RFC 5681): one segment more per round trip, half on loss.

use super::{Acked, CongestionControl};
use toe_abi::flow::CcState;

pub(super) struct NewReno;

/// `words[ACKED]`: bytes acknowledged since cwnd last grew.
const ACKED: usize = 0;

impl CongestionControl for NewReno {
    fn avoid(&self, cc: &mut CcState, acked: &Acked) {
        // RFC 5681, 3.1, the recommended form of (3): one SMSS for each cwnd's worth of acknowledged bytes. Of a cwnd of two segments and a
        // half, two are sent in a round trip: where losses keep it small, the half would cost a quarter of the growth.
        // RFC 5681 3.1-12, 3.1-13, 3.1-14, 3.1-15.
        let mss = acked.mss.max(1);
        let whole = (cc.cwnd - cc.cwnd % mss).max(mss);
        let total = cc.words[ACKED].saturating_add(acked.bytes);
        let rounds = total / whole;
        cc.words[ACKED] = total - rounds * whole;
        cc.cwnd = cc.cwnd.saturating_add(rounds.saturating_mul(acked.mss));
    }

    fn reduce(&self, cc: &mut CcState, flight: u32) -> u32 {
        cc.words[ACKED] = 0;
        // RFC 5681, (4).
        flight / 2
    }

    fn reset(&self, cc: &mut CcState) {
        cc.words[ACKED] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;

    /// RFC 5681 3.1-12, 3.1-13, 3.1-14, 3.1-15.
    #[test]
    fn one_segment_per_window() {
        let mut cc = flow().cc;
        cc.cwnd = 14_600;
        let acked = Acked { bytes: 1460, srtt_us: 1000, mss: 1460, prior_cwnd: 0, now_ms: 0 };
        for _ in 0..9 {
            NewReno.avoid(&mut cc, &acked);
        }
        assert_eq!(cc.cwnd, 14_600);
        NewReno.avoid(&mut cc, &acked);
        assert_eq!(cc.cwnd, 16_060);
    }

    #[test]
    fn a_part_of_a_segment_is_not_waited_for() {
        let mut cc = flow().cc;
        cc.cwnd = 2500;
        let acked = |bytes| Acked { bytes, srtt_us: 1000, mss: 1000, prior_cwnd: 0, now_ms: 0 };
        NewReno.avoid(&mut cc, &acked(1000));
        assert_eq!(cc.cwnd, 2500);
        NewReno.avoid(&mut cc, &acked(1000));
        assert_eq!((cc.cwnd, cc.words[ACKED]), (3500, 0));
    }

    #[test]
    fn what_is_left_over_counts_for_the_next_segment() {
        let mut cc = flow().cc;
        cc.cwnd = 10_000;
        let acked = |bytes| Acked { bytes, srtt_us: 1000, mss: 1000, prior_cwnd: 0, now_ms: 0 };
        NewReno.avoid(&mut cc, &acked(25_000));
        assert_eq!((cc.cwnd, cc.words[ACKED]), (12_000, 5000));
        NewReno.avoid(&mut cc, &acked(7000));
        assert_eq!((cc.cwnd, cc.words[ACKED]), (13_000, 0));
        cc.words[ACKED] = 5000;
        NewReno.reset(&mut cc);
        assert_eq!(cc.words[ACKED], 0);
    }

    #[test]
    fn half_on_loss() {
        assert_eq!(NewReno.reduce(&mut flow().cc, 100_000), 50_000);
    }
}
