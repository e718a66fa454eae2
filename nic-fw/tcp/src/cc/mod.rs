//! Congestion control: when cwnd grows, and how far it falls. One algorithm per file.
//!
//! ```text
//!   new ACK, cwnd in use ──► on_ack      slow start below ssthresh, the algorithm above
//!   third duplicate ACK ───► on_loss     ssthresh = reduce(), cwnd follows in recovery (RFC 6582)
//!   timeout ───────────────► on_timeout  ssthresh = reduce(), cwnd = 1 segment
//!   ECN echo ──────────────► on_ecn      ssthresh = cwnd = reduce()
//!   sent after idling ─────► on_idle     cwnd = min(cwnd, initial window)
//! ```

mod cubic;
mod newreno;

use crate::Now;
use crate::rtt::rto_ms;
use crate::state::View;
use toe_abi::flow::{CcState, FlowState, cc as code};

/// What an acknowledgement tells the algorithm.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// Bytes newly acknowledged.
    pub bytes: u32,
    /// Smoothed round-trip time.
    pub srtt_us: u32,
    pub mss: u32,
    pub now_ms: u32,
}

/// A congestion-control algorithm. Its own state is [`CcState::words`]; cwnd and ssthresh count bytes.
pub trait CongestionControl {
    /// Congestion avoidance: data was acknowledged while cwnd was the limit, at or above ssthresh.
    fn avoid(&self, cc: &mut CcState, acked: &Acked);

    /// Congestion was seen with `flight` bytes in flight: the new ssthresh.
    fn reduce(&self, cc: &mut CcState, flight: u32, mss: u32) -> u32;

    /// The flow has idled or timed out: what was learnt of the path is stale.
    fn reset(&self, cc: &mut CcState);

    /// The clock moved by `ms`.
    fn shift_clock(&self, _cc: &mut CcState, _ms: u32) {}
}

/// Larger windows than TCP can use.
const CWND_MAX: u32 = 1 << 30;

/// RFC 9293 MAY-18.
fn algorithm(cc: &CcState) -> &'static dyn CongestionControl {
    match cc.algorithm {
        code::CUBIC => &cubic::Cubic,
        // What we do not know behaves as the standard's.
        _ => &newreno::NewReno,
    }
}

/// RFC 6928: ten segments, about 14600 bytes.
fn initial_window(mss: u32) -> u32 {
    (10 * mss).min((2 * mss).max(14_600))
}

/// RFC 5681 3.1-6, 3.1-10.
pub(crate) fn init(s: &mut FlowState) {
    s.cc.cwnd = initial_window(s.mss());
    s.cc.ssthresh = CWND_MAX;
}

/// `flight`: bytes in flight before this acknowledgement.
/// RFC 9293 MUST-19; RFC 5681 3.1-1.
pub(crate) fn on_ack(s: &mut FlowState, bytes: u32, flight: u32, now: Now) {
    let mss = s.mss();
    // RFC 9438 4.10-1.
    let slow_start = s.cc.cwnd < s.cc.ssthresh;
    // Grow only what is in use (RFC 7661, 4.1): else an application that trickles collects a window that it never tried.
    let slack = if slow_start { s.cc.cwnd / 2 } else { (s.cc.cwnd / 4).max(4 * mss) };
    if flight.saturating_add(slack) < s.cc.cwnd {
        return;
    }
    let mut acked = Acked { bytes, srtt_us: s.tx.srtt_us, mss, now_ms: now.ms32() };
    if slow_start {
        // RFC 5681, 3.1, counting bytes without a limit per ACK (RFC 3465): one ACK may stand for a whole super-frame.
        // RFC 5681 3.1-11.
        let grow = bytes.min(s.cc.ssthresh - s.cc.cwnd);
        s.cc.cwnd += grow;
        acked.bytes -= grow;
    }
    if acked.bytes > 0 {
        algorithm(&s.cc).avoid(&mut s.cc, &acked);
    }
    s.cc.cwnd = s.cc.cwnd.clamp(mss, CWND_MAX);
}

fn reduce(s: &mut FlowState, flight: u32) {
    let mss = s.mss();
    // RFC 5681, (4): never below two segments.
    let ssthresh = algorithm(&s.cc).reduce(&mut s.cc, flight, mss).max(2 * mss);
    s.cc.ssthresh = ssthresh.min(CWND_MAX);
}

pub(crate) fn on_loss(s: &mut FlowState, flight: u32) {
    reduce(s, flight);
}

/// `again`: the same data has timed out before.
/// RFC 2018 5.1-1; RFC 5681 3.1-18, 3.1-19, 4.3-4.
pub(crate) fn on_timeout(s: &mut FlowState, flight: u32, again: bool) {
    // RFC 5681, 3.1: ssthresh is held constant when a retransmission times out.
    if !again {
        reduce(s, flight);
    }
    algorithm(&s.cc).reset(&mut s.cc);
    s.cc.cwnd = s.mss();
}

/// RFC 3168 5-2.
pub(crate) fn on_ecn(s: &mut FlowState, flight: u32) {
    reduce(s, flight);
    s.cc.cwnd = s.cc.ssthresh;
}

/// About to send new data with nothing in flight: RFC 5681, 4.1.
/// RFC 5681 4.1-1.
pub(crate) fn on_idle(s: &mut FlowState, now: Now) {
    if now.ms32().wrapping_sub(s.rx.last_tx_ms) > rto_ms(s) {
        let iw = initial_window(s.mss());
        if s.cc.cwnd > iw {
            s.cc.cwnd = iw;
            algorithm(&s.cc).reset(&mut s.cc);
        }
    }
}

pub(crate) fn shift_clock(s: &mut FlowState, ms: u32) {
    algorithm(&s.cc).shift_clock(&mut s.cc, ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;

    fn both(test: impl Fn(FlowState)) {
        for algorithm in [code::NEWRENO, code::CUBIC, 99] {
            let mut s = flow();
            s.cc.algorithm = algorithm;
            init(&mut s);
            test(s);
        }
    }

    /// RFC 5681 3.1-6.
    #[test]
    fn starts_with_ten_segments() {
        both(|s| assert_eq!(s.cc.cwnd, 14_600));
        assert_eq!(initial_window(536), 5360);
        assert_eq!(initial_window(8948), 17_896);
    }

    /// RFC 9293 MUST-19; RFC 5681 3.1-1, 3.1-10, 3.1-11; RFC 9438 4.10-1.
    #[test]
    fn slow_start_doubles_each_round_trip() {
        both(|mut s| {
            for _ in 0..10 {
                on_ack(&mut s, 1460, 14_600, Now(0));
            }
            assert_eq!(s.cc.cwnd, 29_200);
        });
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        both(|mut s| {
            on_ack(&mut s, 1460, 1460, Now(0));
            assert_eq!(s.cc.cwnd, 14_600);
        });
    }

    /// RFC 2018 5.1-1; RFC 5681 3.1-18, 3.1-19.
    #[test]
    fn timeout_goes_back_to_one_segment() {
        both(|mut s| {
            on_timeout(&mut s, 14_600, false);
            assert_eq!(s.cc.cwnd, 1460);
            let ssthresh = s.cc.ssthresh;
            assert!((2 * 1460..14_600).contains(&ssthresh));
            on_timeout(&mut s, 1460, true);
            assert_eq!(s.cc.ssthresh, ssthresh);
        });
    }

    #[test]
    fn two_segments_are_the_floor() {
        both(|mut s| {
            on_loss(&mut s, 1);
            assert_eq!(s.cc.ssthresh, 2920);
        });
    }

    /// RFC 5681 4.1-1.
    #[test]
    fn idle_window_restarts() {
        both(|mut s| {
            s.cc.cwnd = 1_000_000;
            on_idle(&mut s, Now(500_000));
            assert_eq!(s.cc.cwnd, 1_000_000);
            on_idle(&mut s, Now(10_000_000));
            assert_eq!(s.cc.cwnd, 14_600);
        });
    }
}
