//! HyStart++ (RFC 9406): the first slow start ends when round-trip times begin to grow, and not when the queue overflows.
//!
//! ```text
//!   slow start ──the least RTT of this round is well above that of the last──► conservative slow start (a quarter as fast)
//!       ▲                                                                         │            │ five rounds
//!       └───────────────── it is back below where it began ───────────────────────┘            └──► congestion avoidance
//! ```
//!
//! Its state is in the algorithm's words, which have no other use until there was congestion.

use toe_abi::flow::CcState;
use toe_wire::SeqNum;

/// Least round-trip time of the last round, microseconds; in conservative slow start: the baseline.
const LAST_MIN: usize = 0;
/// Of this round; 0: none yet.
const MIN: usize = 1;
/// Where this round ends.
const END: usize = 2;
/// Samples in this round (lower eight bits), rounds of conservative slow start, [`CSS`] and [`ON`].
const STATE: usize = 3;

const SAMPLES: u32 = 0xff;
const ROUND: u32 = 1 << 8;
const ROUNDS: u32 = 0xff << 8;
const CSS: u32 = 1 << 29;
/// The words are of HyStart++.
const ON: u32 = 1 << 30;

/// RFC 9406, 4.3: MIN_RTT_THRESH, MAX_RTT_THRESH, MIN_RTT_DIVISOR, N_RTT_SAMPLE, CSS_GROWTH_DIVISOR, CSS_ROUNDS.
const THRESH_MIN_US: u32 = 4_000;
const THRESH_MAX_US: u32 = 16_000;
const RTT_DIVISOR: u32 = 8;
const SAMPLES_MIN: u32 = 8;
const GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u32 = 5;

/// A round-trip time was measured.
pub(super) fn sample(cc: &mut CcState, rtt_us: u32) {
    if cc.words[STATE] & ON == 0 {
        return;
    }
    cc.words[MIN] = if cc.words[MIN] == 0 { rtt_us } else { rtt_us.min(cc.words[MIN]) };
    if cc.words[STATE] & SAMPLES < SAMPLES {
        cc.words[STATE] += 1;
    }
}

/// `bytes` were acknowledged: by how much the window grows. `una` and `nxt`: snd_una behind them, and snd_nxt. Sets ssthresh when slow start
/// is over.
pub(super) fn grow(cc: &mut CcState, bytes: u32, una: SeqNum, nxt: SeqNum) -> u32 {
    if cc.words[STATE] & ON == 0 {
        cc.words = [0, 0, nxt.0, ON];
    }
    if cc.words[STATE] & SAMPLES >= SAMPLES_MIN {
        judge(cc);
    }
    // An end that seems to lie beyond what was sent is of a round of 2 GiB ago: nobody has looked since.
    let end = SeqNum(cc.words[END]);
    if una.ge(end) || end.gt(nxt) {
        end_round(cc, nxt);
    }
    match cc.words[STATE] {
        // The first slow start is over.
        0 => 0,
        state if state & CSS != 0 => bytes / GROWTH_DIVISOR,
        _ => bytes,
    }
}

/// RFC 9406, 4.2: whether round-trip times have begun to grow, or have not after all.
fn judge(cc: &mut CcState) {
    let (last, min) = (cc.words[LAST_MIN], cc.words[MIN]);
    let thresh = (last / RTT_DIVISOR).clamp(THRESH_MIN_US, THRESH_MAX_US);
    if cc.words[STATE] & CSS != 0 {
        if min < last {
            cc.words[STATE] &= !(CSS | ROUNDS);
        }
    } else if last > 0 && min >= last.saturating_add(thresh) {
        cc.words[STATE] |= CSS;
        cc.words[LAST_MIN] = min;
    }
}

fn end_round(cc: &mut CcState, nxt: SeqNum) {
    if cc.words[STATE] & CSS == 0 {
        cc.words[LAST_MIN] = cc.words[MIN];
    } else {
        cc.words[STATE] += ROUND;
        if cc.words[STATE] & ROUNDS >= CSS_ROUNDS * ROUND {
            // RFC 9406, 4.2: "set the slow start threshold to the current congestion window".
            cc.ssthresh = cc.cwnd;
            cc.words = [0; 4];
            return;
        }
    }
    cc.words[STATE] &= !SAMPLES;
    (cc.words[MIN], cc.words[END]) = (0, nxt.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;

    const MSS: u32 = 1460;

    /// A sender whose window is always full, and where it is.
    struct Sender {
        cc: CcState,
        una: SeqNum,
    }

    impl Sender {
        fn new() -> Self {
            Self { cc: flow().cc, una: SeqNum(u32::MAX - 20_000) }
        }

        /// A round trip of `rtt_us`, acknowledged segment by segment. By how much the window has grown, in percent.
        fn round(&mut self, rtt_us: u32) -> u32 {
            let (before, end) = (self.cc.cwnd, self.una.add(self.cc.cwnd));
            while self.una.lt(end) && self.cc.cwnd < self.cc.ssthresh {
                sample(&mut self.cc, rtt_us);
                self.una = self.una.add(MSS);
                let nxt = self.una.add(self.cc.cwnd);
                self.cc.cwnd += grow(&mut self.cc, MSS, self.una, nxt);
            }
            (self.cc.cwnd - before) * 100 / before
        }
    }

    #[test]
    fn doubles_while_round_trips_do_not_grow() {
        let mut s = Sender::new();
        for rtt in [50_000, 51_000, 50_000, 55_000, 60_000] {
            let grown = s.round(rtt);
            assert!((98..=101).contains(&grown), "{grown} %");
        }
    }

    /// RFC 9438 4.10-2.
    #[test]
    fn ends_five_rounds_after_they_have_begun_to_grow() {
        let mut s = Sender::new();
        for _ in 0..3 {
            s.round(50_000);
        }
        // By more than an eighth.
        let grown: std::vec::Vec<u32> = (0..8).map(|_| s.round(57_000)).collect();
        assert!(grown[..4].iter().all(|g| (20..70).contains(g)), "{grown:?}");
        assert_eq!(grown[5..], [0, 0, 0], "{grown:?}");
        assert_eq!((s.cc.ssthresh, s.cc.words), (s.cc.cwnd, [0; 4]));
    }

    #[test]
    fn goes_on_if_they_fall_back() {
        let mut s = Sender::new();
        for rtt in [50_000, 50_000, 50_000, 60_000, 60_000, 50_000] {
            s.round(rtt);
        }
        let grown = s.round(50_000);
        assert!((98..=101).contains(&grown), "{grown} %");
    }

    #[test]
    fn the_least_of_a_round_is_kept_and_samples_are_counted_up_to_what_there_is_room_for() {
        let mut cc = flow().cc;
        sample(&mut cc, 500);
        assert_eq!(cc.words, [0; 4], "the words are not in use");
        cc.words[STATE] = ON;
        let least = [500, 300, 400].map(|us| {
            sample(&mut cc, us);
            cc.words[MIN]
        });
        assert_eq!((least, cc.words[STATE]), ([500, 300, 300], ON | 3));
        (0..300).for_each(|_| sample(&mut cc, 400));
        assert_eq!(cc.words[STATE], ON | SAMPLES);
    }

    /// RFC 9406, 4.2: N_RTT_SAMPLE.
    #[test]
    fn seven_samples_are_no_judgement() {
        let growth = |samples| {
            let mut cc = flow().cc;
            cc.words = [10_000, 50_000, 1000, ON | samples];
            grow(&mut cc, 4000, SeqNum(0), SeqNum(2000))
        };
        assert_eq!((growth(7), growth(8)), (4000, 1000));
    }

    #[test]
    fn a_baseline_that_is_undercut_is_the_next_round_s() {
        let mut cc = flow().cc;
        for (min, state) in [(60_000, ON | CSS | (2 * ROUND) | 8), (59_999, ON | 8)] {
            cc.words = [60_000, min, 0, ON | CSS | (2 * ROUND) | 8];
            judge(&mut cc);
            assert_eq!(cc.words[STATE], state);
        }
    }

    #[test]
    fn a_few_microseconds_are_no_queue() {
        let mut s = Sender::new();
        for rtt in [50, 500, 1000, 2000, 3000] {
            let grown = s.round(rtt);
            assert!((98..=101).contains(&grown), "{grown} % at {rtt} us");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_words_hold_nothing_overflows(words: [u32; 4], cwnd: u32, acks: std::vec::Vec<(u32, u32, u32, u32)>) {
            let mut cc = flow().cc;
            (cc.words, cc.cwnd) = (words, cwnd);
            for (rtt_us, bytes, una, nxt) in acks {
                sample(&mut cc, rtt_us);
                assert!(grow(&mut cc, bytes, SeqNum(una), SeqNum(nxt)) <= bytes);
            }
        }
    }

    /// While the window was not used nobody looked.
    #[test]
    fn a_round_that_began_gigabytes_ago_is_over() {
        let mut cc = flow().cc;
        grow(&mut cc, 1000, SeqNum(0), SeqNum(1000));
        let una = SeqNum(1000).add((1 << 31) + 1);
        grow(&mut cc, 1000, una, una.add(1000));
        assert_eq!(cc.words[END], una.add(1000).0);
    }
}
