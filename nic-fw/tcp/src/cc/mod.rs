//! Congestion control: when cwnd grows, and how far it falls. One algorithm per file; it is listed in `algorithm` below.
//!
//! ```text
//!   every new ACK ─────────► on_delivered  what the algorithm counts (marked bytes), in recovery as well
//!   new ACK outside it ────► on_ack        slow start below ssthresh, the algorithm above; nothing unless cwnd is in use
//!   recovery begins ───────► on_recovery   ssthresh = reduce(); cwnd is recovery's until it ends
//!   timeout ───────────────► on_timeout    ssthresh = reduce(), cwnd = 1 segment
//!   ECN echo ──────────────► on_ecn        ssthresh = cwnd = reduce_marked()
//!   it was no loss ────────► undo          cwnd and ssthresh as before the reduction
//!   sent after idling ─────► on_idle       cwnd = half of it per timeout of silence, not below the initial window
//! ```

mod cubic;
mod dctcp;
mod hystart;
mod newreno;
mod pacing;
mod rate;

pub use pacing::pace_kbps;

use crate::Now;
use crate::rtt::rto_ms;
use crate::state::View;
use toe_abi::flow::{CcState, FlowState, cc as code, flow_flags as ff};
use toe_wire::SeqNum;

/// What an acknowledgement tells the algorithm.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// Bytes newly acknowledged.
    pub bytes: u32,
    /// Smoothed round-trip time.
    pub srtt_us: u32,
    pub mss: u32,
    /// cwnd before the last reduction, bytes; 0: there was none.
    pub prior_cwnd: u32,
    pub now_ms: u32,
}

/// A congestion-control algorithm. Its own state is [`CcState::words`], zero at first; cwnd and ssthresh count bytes.
pub trait CongestionControl {
    /// Slow start: `bytes` were acknowledged while cwnd was the limit, below ssthresh: by how much it grows. `una` and `nxt`: snd_una behind
    /// them, and snd_nxt.
    fn slow_start(&self, _cc: &mut CcState, bytes: u32, _una: SeqNum, _nxt: SeqNum) -> u32 {
        // RFC 5681, 3.1, counting bytes without a limit per ACK (RFC 3465): one ACK may stand for a whole super-frame.
        bytes
    }

    /// A round-trip time was measured in slow start.
    fn rtt(&self, _cc: &mut CcState, _rtt_us: u32) {}

    /// Congestion avoidance: data was acknowledged while cwnd was the limit, at or above ssthresh.
    fn avoid(&self, cc: &mut CcState, acked: &Acked);

    /// Congestion was seen with `flight` bytes in flight: the new ssthresh.
    fn reduce(&self, cc: &mut CcState, flight: u32) -> u32;

    /// A retransmission timed out with `flight` bytes in flight: the new ssthresh.
    fn reduce_timed_out(&self, cc: &mut CcState, flight: u32) -> u32 {
        self.reduce(cc, flight)
    }

    /// The peer echoed congestion marks, which happens once a window: the new ssthresh and cwnd.
    fn reduce_marked(&self, cc: &mut CcState, flight: u32) -> u32 {
        // RFC 3168, 6.1.2: as if a packet had been lost.
        self.reduce(cc, flight)
    }

    /// On flows with ECN: `bytes` were acknowledged, and the acknowledgement echoed a mark or not. `flight`: bytes in flight behind it.
    fn delivered(&self, _cc: &mut CcState, _bytes: u32, _marked: bool, _flight: u32, _mss: u32) {}

    /// The flow has idled or timed out: what was learnt of the path is stale.
    fn reset(&self, cc: &mut CcState);

    /// Data was acknowledged while something else than cwnd was the limit.
    fn unused(&self, _cc: &mut CcState) {}

    /// The last reduction is taken back: `prior_cwnd` is the window again.
    fn undo(&self, _cc: &mut CcState, _prior_cwnd: u32) {}

    /// The clock moved by `ms`, or the flow was silent for so long.
    fn shift_clock(&self, _cc: &mut CcState, _ms: u32) {}
}

/// Larger windows than TCP can use.
const CWND_MAX: u32 = 1 << 30;

/// RFC 9293 MAY-18.
fn algorithm(s: &FlowState) -> &'static dyn CongestionControl {
    match s.cc.algorithm {
        code::CUBIC => &cubic::Cubic,
        // RFC 8257, 3.4: without ECN it is a conventional TCP.
        code::DCTCP if s.has(ff::ECN) => &dctcp::Dctcp,
        code::DCTCP_RATE | code::TIMELY | code::CONST_RATE => &rate::Rate,
        // What we do not know behaves as the standard's.
        _ => &newreno::NewReno,
    }
}

/// Whether a receiver echoes each mark (RFC 8257, 3.2), and not until CWR comes (RFC 3168, 6.1.3).
pub(crate) fn echoes_each_mark(s: &FlowState) -> bool {
    code::needs_ecn(s.cc.algorithm)
}

/// RFC 6928, 2: ten segments, about 14600 bytes.
fn initial_window(mss: u32) -> u32 {
    (10 * mss).min((2 * mss).max(14_600))
}

/// RFC 5681 3.1-6, 3.1-10.
pub(crate) fn init(s: &mut FlowState) {
    s.cc.cwnd = initial_window(s.mss());
    // RFC 5681, 3.1: "SHOULD be set arbitrarily high".
    s.cc.ssthresh = CWND_MAX;
}

/// Gives the flow another algorithm, [`toe_abi::flow::cc`]: it goes on from the window that there is. False: there is none of this number.
#[must_use]
pub fn choose(s: &mut FlowState, number: u8) -> bool {
    if number >= code::COUNT {
        return false;
    }
    if number != s.cc.algorithm {
        (s.cc.algorithm, s.cc.words) = (number, [0; 4]);
        // In recovery it is where that ends.
        if code::is_rate(number) && !s.has(ff::RECOVERY) {
            s.cc.ssthresh = CWND_MAX;
        }
        admit(s);
    }
    true
}

/// Says in the flags who is to hear of acknowledgements.
pub(crate) fn admit(s: &mut FlowState) {
    s.clear(ff::RATED);
    if code::is_rate(s.cc.algorithm) {
        s.set(ff::RATED);
    }
}

/// An acknowledgement has delivered `bytes` (each byte once), whatever the flow is doing; snd_una has moved. `ece`: it echoes a
/// congestion mark.
pub(crate) fn on_delivered(s: &mut FlowState, bytes: u32, ece: bool) {
    if s.has(ff::ECN) {
        let (flight, mss) = (s.outstanding(), s.mss());
        algorithm(s).delivered(&mut s.cc, bytes, ece, flight, mss);
    }
}

/// Bytes by which slow start may make the window larger; 0: it is over.
/// RFC 9438 4.10-1.
fn slow_start_left(s: &FlowState) -> u32 {
    s.cc.ssthresh.saturating_sub(s.cc.cwnd)
}

/// A round-trip time was measured.
pub(crate) fn on_rtt(s: &mut FlowState, rtt_us: u32) {
    if slow_start_left(s) != 0 {
        algorithm(s).rtt(&mut s.cc, rtt_us);
    }
}

/// An acknowledgement of `bytes` outside recovery. `flight`: bytes in flight before it.
/// RFC 9293 MUST-19; RFC 5681 3.1-1.
pub(crate) fn on_ack(s: &mut FlowState, bytes: u32, flight: u32, now: Now) {
    let mss = s.mss();
    let slow_start = slow_start_left(s) != 0;
    // Grow only what is in use (RFC 7661, 4.1; in slow start, as Linux, from half of it): else an application that trickles collects a
    // window that it never tried.
    let slack = if slow_start { s.cc.cwnd / 2 } else { (s.cc.cwnd / 4).max(4 * mss) };
    if flight.saturating_add(slack) < s.cc.cwnd {
        return algorithm(s).unused(&mut s.cc);
    }
    let mut acked = Acked { bytes, srtt_us: s.tx.srtt_us, mss, prior_cwnd: s.id.prior_cwnd, now_ms: now.ms32() };
    if slow_start {
        let (una, nxt) = (s.snd_una(), s.snd_nxt());
        let grow = algorithm(s).slow_start(&mut s.cc, bytes, una, nxt);
        // RFC 5681 3.1-11.
        let grow = grow.min(slow_start_left(s));
        s.cc.cwnd += grow;
        acked.bytes = if slow_start_left(s) != 0 { 0 } else { bytes - grow };
    }
    if acked.bytes > 0 {
        algorithm(s).avoid(&mut s.cc, &acked);
    }
    s.cc.cwnd = s.cc.cwnd.clamp(mss, CWND_MAX);
}

/// Sets ssthresh by what `how` makes of the bytes in flight.
fn reduce(s: &mut FlowState, flight: u32, how: impl FnOnce(&dyn CongestionControl, &mut CcState, u32) -> u32) {
    let mss = s.mss();
    if !code::is_rate(s.cc.algorithm) {
        // Slow start lets the window grow to twice what is in flight, but more than the peer ever had room for was never of use.
        s.cc.cwnd = s.cc.cwnd.min(s.max_snd_wnd().max(2 * mss));
    }
    // RFC 5681, 3.2, (2): what limited transmit sent beyond cwnd does not count as FlightSize.
    // RFC 5681 3.2-8.
    let flight = flight.min(s.cc.cwnd);
    let ssthresh = how(algorithm(s), &mut s.cc, flight);
    // RFC 5681, (4): never below two segments.
    s.cc.ssthresh = ssthresh.max(2 * mss).min(CWND_MAX);
}

/// Keeps what [`undo`] brings back.
fn remember(s: &mut FlowState) {
    (s.id.prior_cwnd, s.id.prior_ssthresh) = (s.cc.cwnd, s.cc.ssthresh);
}

/// [`undo`] is not to take the last reduction back: the path is congested, whatever else it was for (RFC 4015, 3: an ACK with ECN-Echo reverses
/// nothing; as Linux).
pub(crate) fn stand(s: &mut FlowState) {
    s.id.prior_ssthresh = 0;
}

/// Recovery begins: a loss, unless the window has been reduced for a mark already (RFC 3168, 6.1.2: only once for a window of data). DCTCP's
/// reduction for marks may be slight, and counts not (RFC 8257, 3.5: losses "in the same way as conventional TCP"; as Linux).
pub(crate) fn on_recovery(s: &mut FlowState, flight: u32) {
    let marked = s.has(ff::ECN_REDUCED);
    if !marked || s.cc.algorithm == code::DCTCP {
        on_loss(s, flight);
    }
    if marked {
        stand(s);
    }
}

/// Something was lost. Recovery sets cwnd by the new ssthresh, at once (RFC 6582) or bit by bit (RFC 6937).
pub(crate) fn on_loss(s: &mut FlowState, flight: u32) {
    remember(s);
    reduce(s, flight, |algorithm, cc, flight| algorithm.reduce(cc, flight));
}

/// `again`: the same data has timed out before.
/// RFC 2018 5.1-1; RFC 5681 3.1-18, 3.1-19, 4.3-4.
pub(crate) fn on_timeout(s: &mut FlowState, flight: u32, again: bool) {
    // RFC 5681, 3.1: ssthresh is held constant when a retransmission times out.
    if !again {
        if s.has(ff::RECOVERY) {
            // It is a retransmission that was lost: RFC 5681, 4.3, lowers both once more, for the same loss. No less is lowered than the window
            // that recovery was to end with: PRR may let out little at the moment.
            s.cc.cwnd = s.cc.cwnd.max(s.cc.ssthresh);
        } else {
            remember(s);
        }
        reduce(s, flight, |algorithm, cc, flight| algorithm.reduce_timed_out(cc, flight));
    }
    algorithm(s).reset(&mut s.cc);
    // RFC 5681, 3.1: "no more than the loss window, LW, which equals 1 full-sized segment".
    // RFC 8257 3.5-3.
    s.cc.cwnd = s.mss();
    if s.has(ff::ECN) {
        // RFC 3168, 6.1.2: told to the peer for any reduction. Else it goes on echoing a mark, and no ACK makes the window larger.
        s.set(ff::CWR);
    }
}

/// RFC 3168 5-2.
pub(crate) fn on_ecn(s: &mut FlowState, flight: u32) {
    remember(s);
    reduce(s, flight, |algorithm, cc, flight| algorithm.reduce_marked(cc, flight));
    s.cc.cwnd = s.cc.cwnd.min(s.cc.ssthresh);
    stand(s);
}

/// The last [`on_loss`] or [`on_timeout`] was for nothing: nothing was lost (RFC 3522, RFC 4015, RFC 5682). False: it stands all the same.
pub(crate) fn undo(s: &mut FlowState) -> bool {
    if s.id.prior_ssthresh == 0 {
        s.cc.cwnd = s.cc.cwnd.max(s.cc.ssthresh);
        return false;
    }
    let prior_cwnd = s.id.prior_cwnd;
    s.cc.cwnd = s.cc.cwnd.max(prior_cwnd);
    s.cc.ssthresh = s.cc.ssthresh.max(s.id.prior_ssthresh).min(CWND_MAX);
    algorithm(s).undo(&mut s.cc, prior_cwnd);
    true
}

/// About to send new data with nothing in flight.
pub(crate) fn on_idle(s: &mut FlowState, now: Now) {
    let silent_ms = now.ms32().wrapping_sub(s.rx.last_tx_ms);
    shift_clock(s, silent_ms);
    if silent_ms <= rto_ms(s) {
        return;
    }
    let restart = initial_window(s.mss());
    if s.cc.cwnd > restart {
        // RFC 7661, 4.4.1 (and RFC 2861): slow start back to three quarters of what the path has carried.
        s.cc.ssthresh = s.cc.ssthresh.max(s.cc.cwnd / 4 * 3);
        // RFC 2861, 3.1: half of it for each timeout that has passed (as Linux), down to the restart window of RFC 5681, 4.1.
        let timeouts = silent_ms / rto_ms(s).max(1);
        s.cc.cwnd = s.cc.cwnd.checked_shr(timeouts).unwrap_or(0).max(restart);
        algorithm(s).reset(&mut s.cc);
    }
}

pub(crate) fn shift_clock(s: &mut FlowState, ms: u32) {
    algorithm(s).shift_clock(&mut s.cc, ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;

    fn each(test: impl Fn(FlowState)) {
        // What toed sets the rate of has no window.
        for (algorithm, flags) in [(code::NEWRENO, 0), (code::CUBIC, 0), (code::DCTCP, 0), (code::DCTCP, ff::ECN), (99, 0)] {
            let mut s = flow();
            s.cc.algorithm = algorithm;
            s.rx.flags |= flags;
            init(&mut s);
            test(s);
        }
    }

    /// RFC 5681 3.1-6.
    #[test]
    fn starts_with_ten_segments() {
        each(|s| assert_eq!(s.cc.cwnd, 14_600));
        assert_eq!(initial_window(536), 5360);
        assert_eq!(initial_window(8948), 17_896);
    }

    /// RFC 9293 MUST-19; RFC 5681 3.1-1, 3.1-10, 3.1-11; RFC 9438 4.10-1.
    #[test]
    fn slow_start_doubles_each_round_trip() {
        each(|mut s| {
            for _ in 0..10 {
                on_ack(&mut s, 1460, 14_600, Now(0));
            }
            assert_eq!(s.cc.cwnd, 29_200);
        });
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        each(|mut s| {
            on_ack(&mut s, 1460, 1460, Now(0));
            assert_eq!(s.cc.cwnd, 14_600);
        });
    }

    /// RFC 7661, 4.1: from half of it in slow start, else from all but a quarter or four segments.
    #[test]
    fn a_window_grows_from_where_it_is_nearly_used() {
        let grows = |cwnd, ssthresh, flight| {
            let mut s = flow();
            (s.cc.cwnd, s.cc.ssthresh) = (cwnd, ssthresh);
            on_ack(&mut s, cwnd, flight, Now(0));
            s.cc.cwnd > cwnd
        };
        assert!(!grows(20_000, CWND_MAX, 9999) && grows(20_000, CWND_MAX, 10_000));
        assert!(!grows(100_000, 50_000, 74_999) && grows(100_000, 50_000, 75_000));
        assert!(!grows(10_000, 5000, 4159) && grows(10_000, 5000, 4160));
    }

    /// RFC 5681 3.1-11.
    #[test]
    fn what_slow_start_leaves_of_an_acknowledgement_is_for_avoidance() {
        let after = |ssthresh| {
            let mut s = flow();
            (s.cc.cwnd, s.cc.ssthresh) = (10_000, ssthresh);
            on_ack(&mut s, 2000, 10_000, Now(0));
            (s.cc.cwnd, s.cc.words[0])
        };
        assert_eq!((after(20_000), after(12_000), after(10_500)), ((12_000, 0), (12_000, 0), (10_500, 1500)));
        // Nothing is left, so its epoch has not begun.
        let mut s = flow();
        (s.cc.algorithm, s.cc.cwnd, s.cc.ssthresh) = (code::CUBIC, 10_000, 20_000);
        on_ack(&mut s, 2000, 10_000, Now(0));
        assert_eq!(s.cc.words, [0; 4]);
    }

    /// RFC 9406, 4: slow start looks at round trips.
    #[test]
    fn round_trips_are_samples_for_slow_start() {
        let mut s = flow();
        (s.cc.algorithm, s.cc.words) = (code::CUBIC, [0; 4]);
        on_ack(&mut s, 1460, 14_600, Now(0));
        let before = s.cc.words;
        on_rtt(&mut s, 1000);
        assert_ne!(s.cc.words, before);
        s.cc.cwnd = s.cc.ssthresh;
        let before = s.cc.words;
        on_rtt(&mut s, 500);
        assert_eq!(s.cc.words, before, "it is over");
    }

    /// RFC 2018 5.1-1; RFC 5681 3.1-18, 3.1-19; RFC 8257 3.5-3.
    #[test]
    fn timeout_goes_back_to_one_segment() {
        each(|mut s| {
            on_timeout(&mut s, 14_600, false);
            assert_eq!(s.cc.cwnd, 1460);
            let ssthresh = s.cc.ssthresh;
            assert!((2 * 1460..14_600).contains(&ssthresh));
            on_timeout(&mut s, 1460, true);
            assert_eq!(s.cc.ssthresh, ssthresh);
        });
    }

    #[test]
    fn a_timeout_in_recovery_is_undone_to_before_it() {
        each(|mut s| {
            s.cc.cwnd = 100_000;
            on_loss(&mut s, 100_000);
            s.set(ff::RECOVERY);
            let ssthresh = s.cc.ssthresh;
            s.cc.cwnd = 3 * 1460;
            on_timeout(&mut s, 100_000, false);
            assert!((ssthresh / 2..ssthresh).contains(&s.cc.ssthresh), "as one more loss, whatever cwnd is at the moment");
            on_timeout(&mut s, 1460, true);
            assert!(undo(&mut s));
            assert_eq!((s.cc.cwnd, s.cc.ssthresh), (100_000, CWND_MAX));
        });
    }

    /// What the path carries, an answer that does not fill the window says nothing of.
    #[test]
    fn a_timeout_in_a_small_answer_costs_cubic_no_more_than_its_part() {
        let mut s = flow();
        (s.cc.algorithm, s.cc.cwnd) = (code::CUBIC, 50_000);
        on_timeout(&mut s, 5000, false);
        assert_eq!(s.cc.ssthresh, 35_000);
        // The peer has never had room for more than 64 KiB.
        s.cc.cwnd = 200_000;
        on_timeout(&mut s, 5000, false);
        assert_eq!(s.cc.ssthresh, 65_536 * 7 / 10);
    }

    /// RFC 8257 3.5-1, 3.5-2.
    #[test]
    fn a_mark_is_no_reason_to_ignore_a_loss_with_dctcp() {
        let reduces = |algorithm, flags| {
            let mut s = flow();
            (s.cc.algorithm, s.cc.cwnd, s.cc.ssthresh) = (algorithm, 50_000, 50_000);
            s.set(ff::ECN | flags);
            on_recovery(&mut s, 50_000);
            s.cc.ssthresh < 50_000
        };
        assert!(!reduces(code::CUBIC, ff::ECN_REDUCED) && reduces(code::CUBIC, 0));
        assert!(reduces(code::DCTCP, ff::ECN_REDUCED));
    }

    /// RFC 5681 3.2-8.
    #[test]
    fn limited_transmit_is_not_counted_as_flight() {
        each(|mut s| {
            s.cc.cwnd = 100_000;
            let mut plain = s;
            on_loss(&mut s, 100_000 + 2 * 1460);
            on_loss(&mut plain, 100_000);
            assert_eq!(s.cc.ssthresh, plain.cc.ssthresh);
        });
    }

    #[test]
    fn dctcp_without_ecn_is_reno() {
        let mut s = flow();
        (s.cc.algorithm, s.cc.cwnd, s.cc.words) = (code::DCTCP, 50_000, [1 << 30, 0, 0, 0]);
        s.set(ff::ECN);
        // alpha is 0.
        on_ecn(&mut s, 50_000);
        assert_eq!(s.cc.cwnd, 50_000);
        s.clear(ff::ECN);
        on_ecn(&mut s, 50_000);
        assert_eq!(s.cc.cwnd, 25_000);
    }

    #[test]
    fn the_window_of_a_flow_with_a_rate_falls_only_to_begin_anew() {
        let mut s = flow();
        s.cc.ssthresh = 20_000;
        assert!(choose(&mut s, code::DCTCP_RATE));
        s.set(ff::ECN);
        for _ in 0..100 {
            let flight = s.cc.cwnd;
            on_ack(&mut s, 14_600, flight, Now(0));
            on_ecn(&mut s, flight);
            on_loss(&mut s, flight);
        }
        assert_eq!(s.cc.cwnd, 101 * 14_600);
        on_timeout(&mut s, 14_600, false);
        assert_eq!((s.cc.cwnd, s.cc.ssthresh), (1460, CWND_MAX), "a path that failed gets no burst");
    }

    #[test]
    fn another_algorithm_goes_on_from_the_window() {
        let mut s = flow();
        (s.cc.cwnd, s.cc.ssthresh, s.cc.words) = (100_000, 50_000, [7; 4]);
        assert!(choose(&mut s, code::CUBIC));
        assert_eq!((s.cc.cwnd, s.cc.ssthresh, s.cc.words), (100_000, 50_000, [0; 4]));
        s.cc.words = [7; 4];
        assert!(choose(&mut s, code::CUBIC) && s.cc.words == [7; 4], "the same again forgets nothing");
        assert!(!choose(&mut s, code::COUNT) && s.cc.algorithm == code::CUBIC);
        // toed hears of acknowledgements where it sets the rate.
        assert!(choose(&mut s, code::TIMELY) && s.has(ff::RATED));
        s.cc.algorithm = code::CUBIC;
        admit(&mut s);
        assert!(!s.has(ff::RATED));
    }

    #[test]
    fn marked_bytes_are_counted_for_toed() {
        let mut s = flow();
        s.set(ff::ECN);
        assert!(choose(&mut s, code::DCTCP_RATE));
        on_delivered(&mut s, 1000, true);
        on_delivered(&mut s, 500, false);
        on_ecn(&mut s, 1000);
        assert_eq!((s.cc.words[0], s.cc.cwnd), (1000, 14_600));
    }

    #[test]
    fn two_segments_are_the_floor() {
        each(|mut s| {
            s.cc.cwnd = 3000;
            on_loss(&mut s, 1);
            assert_eq!(s.cc.ssthresh, 2920);
        });
    }

    /// RFC 9438, 4.2: "t MUST NOT include periods during which cwnd has not been updated".
    #[test]
    fn a_silence_is_no_time_to_cubic_however_small_its_window_is() {
        let after = |silent_ms: u32| {
            let mut s = flow();
            s.cc.algorithm = code::CUBIC;
            (s.cc.cwnd, s.cc.ssthresh, s.tx.srtt_us) = (8 * s.mss(), 8 * s.mss(), 50_000);
            let now = Now(10_000_000);
            on_loss(&mut s, 12 * 1460);
            (s.cc.cwnd, s.cc.ssthresh) = (8 * s.mss(), 8 * s.mss());
            on_ack(&mut s, 1460, 8 * 1460, now);
            s.rx.last_tx_ms = now.ms32();
            let later = Now(now.0 + u64::from(silent_ms) * 1000);
            on_idle(&mut s, later);
            for _ in 0..8 {
                on_ack(&mut s, 1460, 8 * 1460, later);
            }
            s.cc.cwnd
        };
        assert_eq!(after(10_000), after(0));
    }

    #[test]
    fn idle_window_restarts() {
        each(|mut s| {
            s.cc.cwnd = 1_000_000;
            on_idle(&mut s, Now(500_000));
            assert_eq!(s.cc.cwnd, 1_000_000);
            // A timeout is a second.
            s.cc.ssthresh = 20_000;
            on_idle(&mut s, Now(2_500_000));
            assert_eq!((s.cc.cwnd, s.cc.ssthresh), (250_000, 750_000));
            (s.cc.cwnd, s.cc.ssthresh) = (1_000_000, 20_000);
            on_idle(&mut s, Now(10_000_000));
            assert_eq!((s.cc.cwnd, s.cc.ssthresh), (14_600, 750_000));
            // It is no larger than that already.
            s.cc.ssthresh = 5000;
            on_idle(&mut s, Now(10_000_000));
            assert_eq!((s.cc.cwnd, s.cc.ssthresh), (14_600, 5000));
        });
    }
}
