//! Flows whose rate toed sets (DCTCP-rate, TIMELY, constant): no window of ours limits them, and what toed decides by is counted.
//!
//! After a timeout the window grows from one segment like everybody's: a path that has failed is not to get a burst.

use super::{Acked, CWND_MAX, CongestionControl};
use toe_abi::flow::{CcState, rate_words};

pub(super) struct Rate;

impl CongestionControl for Rate {
    fn first_window(&self, _initial: u32) -> u32 {
        CWND_MAX
    }

    fn avoid(&self, _cc: &mut CcState, _acked: &Acked) {}

    fn reduce(&self, _cc: &mut CcState, _flight: u32) -> u32 {
        CWND_MAX
    }

    fn reduce_marked(&self, cc: &mut CcState, _flight: u32) -> u32 {
        // What the marks mean is for toed to say.
        cc.cwnd
    }

    fn delivered(&self, cc: &mut CcState, bytes: u32, marked: bool, _flight: u32, _mss: u32) {
        if marked {
            cc.words[rate_words::MARKED] = cc.words[rate_words::MARKED].wrapping_add(bytes);
        }
    }

    fn reset(&self, _cc: &mut CcState) {}
}
