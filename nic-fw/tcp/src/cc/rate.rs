//! Flows whose rate toed sets (DCTCP-rate, TIMELY, constant): what toed decides by is counted here.
//!
//! They have a window as well, which never falls but to begin anew (timeout, silence), and grows like in slow start while it is the limit: toed
//! judges by what comes back, and what has just begun must not run a round-trip time ahead of that.

use super::{Acked, CWND_MAX, CongestionControl};
use toe_abi::flow::{CcState, rate_words};

pub(super) struct Rate;

impl CongestionControl for Rate {
    fn avoid(&self, cc: &mut CcState, acked: &Acked) {
        cc.cwnd = cc.cwnd.saturating_add(acked.bytes);
    }

    fn reduce(&self, cc: &mut CcState, _flight: u32) -> u32 {
        // Where recovery ends.
        cc.cwnd
    }

    fn delivered(&self, cc: &mut CcState, bytes: u32, marked: bool, _flight: u32, _mss: u32) {
        if marked {
            cc.words[rate_words::MARKED] = cc.words[rate_words::MARKED].wrapping_add(bytes);
        }
    }

    fn reset(&self, cc: &mut CcState) {
        cc.ssthresh = CWND_MAX;
    }
}
