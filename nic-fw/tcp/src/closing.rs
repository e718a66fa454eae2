//! The end of a flow: FIN both ways, RST both ways.
//!
//! ```text
//!   ESTABLISHED ──our FIN──► FIN-WAIT-1 ──acked──► FIN-WAIT-2 ──their FIN──► TIME-WAIT (toed's)
//!        │                      └──their FIN──► CLOSING ──acked──────────────────┘
//!        └──their FIN──► CLOSE-WAIT ──our FIN──► LAST-ACK ──acked──► CLOSED
//! ```
//! As in Linux, "our FIN" is the moment when the application says that no data follows.

use crate::state::View;
use crate::{CloseReason, Now, Output, SegmentIn, errno, output};
use toe_abi::counters::Counter;
use toe_abi::flow::{FlowState, flow_flags as ff, tcp_state as st, timer};
use toe_wire::TcpFlags;

/// RFC 9293 MUST-12.
fn end(s: &mut FlowState, state: u8, reason: CloseReason, error: u32, out: &mut Output) {
    s.rx.state = state;
    s.tx.timer = timer::NONE;
    s.clear(ff::DELACK_ARMED);
    out.closed = Some(reason);
    out.error = error;
    out.notify = true;
    out.send = false;
}

/// The application will send no more.
/// RFC 9293 3.10.4-4, 3.10.4-5, 3.10.4-6.
pub(crate) fn local_fin(s: &mut FlowState) {
    if s.has(ff::TX_FIN) {
        return;
    }
    s.set(ff::TX_FIN);
    s.rx.state = match s.rx.state {
        st::ESTABLISHED => st::FIN_WAIT_1,
        st::CLOSE_WAIT => st::LAST_ACK,
        other => other,
    };
}

/// Our FIN is acknowledged.
/// RFC 9293 3.10.7.4-25, 3.10.7.4-26, 3.10.7.4-27.
pub(crate) fn fin_acked(s: &mut FlowState, out: &mut Output) {
    match s.rx.state {
        st::FIN_WAIT_1 => s.rx.state = st::FIN_WAIT_2,
        st::CLOSING => end(s, st::TIME_WAIT, CloseReason::TimeWait, 0, out),
        st::LAST_ACK => end(s, st::CLOSED, CloseReason::Done, 0, out),
        _ => {}
    }
}

/// The peer's FIN is in order.
/// RFC 9293 3.10.7.4-35, 3.10.7.4-36, 3.10.7.4-37.
pub(crate) fn fin_received(s: &mut FlowState, out: &mut Output) {
    out.notify = true;
    match s.rx.state {
        st::ESTABLISHED => s.rx.state = st::CLOSE_WAIT,
        st::FIN_WAIT_1 => s.rx.state = st::CLOSING,
        st::FIN_WAIT_2 => end(s, st::TIME_WAIT, CloseReason::TimeWait, 0, out),
        _ => {}
    }
}

/// Whether the peer has not got the last that we had to say, and is to get it again though the flow has ended.
pub fn is_owed_answer(s: &FlowState, seg: &SegmentIn) -> bool {
    is_last_fin(s, seg) || has_missed_reset(s, seg)
}

/// A SYN may be of another connection, which is not for us to judge.
pub(crate) fn has_missed_reset(s: &FlowState, seg: &SegmentIn) -> bool {
    let flags = seg.flags.contains(TcpFlags::ACK) && !seg.flags.intersects(TcpFlags::SYN | TcpFlags::RST);
    s.rx.state == st::CLOSED && s.has(ff::RST_DUE) && flags
}

/// Whether the peer sends its FIN again, as our last ACK was lost, and it is for us to acknowledge: in TIME-WAIT.
pub(crate) fn is_last_fin(s: &FlowState, seg: &SegmentIn) -> bool {
    let flags = seg.flags.contains(TcpFlags::FIN) && !seg.flags.intersects(TcpFlags::SYN | TcpFlags::RST);
    // The FIN counts as a byte of sequence space.
    s.rx.state == st::TIME_WAIT && flags && seg.seq.add(seg.payload_len).add(1) == s.rcv_nxt()
}

/// A valid RST has come.
/// RFC 9293 3.10.7.4-11; RFC 5961 4.2-4.
pub(crate) fn peer_reset(s: &mut FlowState, out: &mut Output) {
    // As Linux: who has read the peer's FIN learns of it by writing.
    let error = if s.rx.state == st::CLOSE_WAIT { errno::EPIPE } else { errno::ECONNRESET };
    end(s, st::CLOSED, CloseReason::Reset, error, out);
}

/// We give the connection up and say so.
/// RFC 9293 3.10.5-1, 3.10.5-2.
pub(crate) fn abort(s: &mut FlowState, now: Now, error: u32, out: &mut Output) {
    out.reply = Some(output::reset(s, now));
    out.counts.add(Counter::TxResets);
    s.set(ff::RST_DUE);
    end(s, st::CLOSED, CloseReason::Aborted, error, out);
}

/// The peer no longer answers. RST, in case it hears us after all.
/// RFC 9293 3.10.8-1.
pub(crate) fn give_up(s: &mut FlowState, error: u32, now: Now, out: &mut Output) {
    out.reply = Some(output::reset(s, now));
    out.counts.add(Counter::TxResets);
    s.set(ff::RST_DUE);
    end(s, st::CLOSED, CloseReason::Timeout, error, out);
}
