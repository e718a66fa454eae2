//! The flow state in the RFCs' terms.
//!
//! ```text
//!   send:      snd_una ────────► snd_nxt ───────► snd_max ──────► tx_end (─► FIN)
//!              (in flight)       (to be sent again after a timeout)  (never sent)
//!   receive:   rcv_nxt ──[hole]──ooo[0]──[hole]──ooo[1]──► rcv_adv ──────► rcv_edge
//!                                                          (advertised)    (room in the buffer)
//! ```

use toe_abi::desc::ev_flags;
use toe_abi::flow::{FlowState, flow_flags as ff, tcp_state};
use toe_wire::SeqNum;

/// Reading the state; named like the variables of RFC 9293, 3.3.1.
pub(crate) trait View {
    fn has(&self, bits: u32) -> bool;
    fn set(&mut self, bits: u32);
    fn clear(&mut self, bits: u32);
    fn snd_una(&self) -> SeqNum;
    fn snd_nxt(&self) -> SeqNum;
    fn snd_max(&self) -> SeqNum;
    /// Behind the last byte that the peer has room for: SND.UNA + SND.WND.
    fn snd_edge(&self) -> SeqNum;
    /// Behind the last byte that the application has given us: where FIN goes.
    fn tx_end(&self) -> SeqNum;
    /// Sequence numbers sent and not acknowledged.
    fn outstanding(&self) -> u32;
    fn rcv_nxt(&self) -> SeqNum;
    fn rcv_adv(&self) -> SeqNum;
    /// The most that the receive buffer has room for.
    fn rcv_edge(&self) -> SeqNum;
    fn rx_size(&self) -> u32;
    /// Receive position of a sequence number.
    fn rx_pos(&self, seq: SeqNum) -> u32;
    /// Transmit position of a sequence number.
    fn tx_pos(&self, seq: SeqNum) -> u32;
    fn mss(&self) -> u32;
    /// The peer's FIN is in order and has been consumed.
    fn fin_received(&self) -> bool;
    /// Out-of-order data is waiting for a hole to be filled.
    fn has_holes(&self) -> bool;
    /// CLOSED or TIME-WAIT: nothing more is to be done.
    fn ended(&self) -> bool;
    /// Bytes, rounded up: the largest window that the peer ever offered.
    fn max_snd_wnd(&self) -> u32;
}

impl View for FlowState {
    #[inline]
    fn has(&self, bits: u32) -> bool {
        self.rx.flags & bits != 0
    }

    #[inline]
    fn set(&mut self, bits: u32) {
        self.rx.flags |= bits;
    }

    #[inline]
    fn clear(&mut self, bits: u32) {
        self.rx.flags &= !bits;
    }

    #[inline]
    fn snd_una(&self) -> SeqNum {
        SeqNum(self.tx.snd_una)
    }

    #[inline]
    fn snd_nxt(&self) -> SeqNum {
        SeqNum(self.tx.snd_nxt)
    }

    #[inline]
    fn snd_max(&self) -> SeqNum {
        SeqNum(self.tx.snd_max)
    }

    #[inline]
    fn snd_edge(&self) -> SeqNum {
        // RFC 7323, 2.3: no window is larger than 2^30.
        self.snd_una().add(self.tx.snd_wnd.min(1 << 30))
    }

    #[inline]
    fn tx_end(&self) -> SeqNum {
        SeqNum(self.tx.iss).add(1).add(self.tx.tx_head)
    }

    #[inline]
    fn outstanding(&self) -> u32 {
        self.snd_max().since_or_zero(self.snd_una())
    }

    #[inline]
    fn rcv_nxt(&self) -> SeqNum {
        SeqNum(self.rx.rcv_nxt)
    }

    #[inline]
    fn rcv_adv(&self) -> SeqNum {
        SeqNum(self.rx.rcv_adv)
    }

    #[inline]
    fn rcv_edge(&self) -> SeqNum {
        SeqNum(self.rx.irs).add(1).add(self.rx.rx_tail).add(self.rx_size())
    }

    #[inline]
    fn rx_size(&self) -> u32 {
        // An imported state may hold anything; the shift must not overflow.
        1 << self.rx.buf_log2.min(30)
    }

    #[inline]
    fn rx_pos(&self, seq: SeqNum) -> u32 {
        seq.since(SeqNum(self.rx.irs).add(1))
    }

    #[inline]
    fn tx_pos(&self, seq: SeqNum) -> u32 {
        seq.since(SeqNum(self.tx.iss).add(1))
    }

    #[inline]
    fn mss(&self) -> u32 {
        u32::from(self.rx.mss.max(1))
    }

    #[inline]
    fn fin_received(&self) -> bool {
        self.has(ff::FIN_SEEN) && self.rcv_nxt().gt(SeqNum(self.rx.fin_seq))
    }

    #[inline]
    fn has_holes(&self) -> bool {
        let [start, end, _] = self.cc.ooo[0];
        start != end
    }

    #[inline]
    fn ended(&self) -> bool {
        matches!(self.rx.state, tcp_state::CLOSED | tcp_state::TIME_WAIT)
    }

    #[inline]
    fn max_snd_wnd(&self) -> u32 {
        1 << self.tx.max_wnd_log2.min(30)
    }
}

/// Smallest n with `2^n >= value`, at most 30.
pub(crate) fn log2_up(value: u32) -> u8 {
    let bits = 32 - value.saturating_sub(1).leading_zeros();
    bits.min(30) as u8
}

/// End of the in-order bytes received (position); the peer's FIN does not count.
#[inline]
#[must_use]
pub fn rx_head(s: &FlowState) -> u32 {
    s.rx_pos(s.rcv_nxt()).wrapping_sub(u32::from(s.fin_received()))
}

/// End of the bytes that the peer has acknowledged (position); our FIN does not count.
#[inline]
#[must_use]
/// RFC 2018 8-5; RFC 6675 4-2.
pub fn tx_tail(s: &FlowState) -> u32 {
    if s.has(ff::FIN_ACKED) { s.tx.tx_head } else { s.tx_pos(s.snd_una()) }
}

/// [`ev_flags`] of the present state. ERROR is not in it: see [`Output::error`](crate::Output::error).
#[inline]
#[must_use]
pub fn event_flags(s: &FlowState) -> u32 {
    let mut flags = 0;
    if s.fin_received() {
        flags |= ev_flags::RX_FIN;
    }
    if s.has(ff::FIN_ACKED) {
        flags |= ev_flags::TX_FIN_ACKED;
    }
    if s.ended() {
        flags |= ev_flags::CLOSED;
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::log2_up;

    #[test]
    fn log2_rounds_up() {
        for (value, want) in [(0, 0), (1, 0), (2, 1), (3, 2), (65_535, 16), (65_536, 16), (65_537, 17), (u32::MAX, 30)] {
            assert_eq!(log2_up(value), want, "{value}");
        }
    }
}
