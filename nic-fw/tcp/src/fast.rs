//! The fast path: a short predicate, and straight code behind it.
//!
//! ```text
//!   the next segment in order, on an established flow where nothing odd is going on?
//!     ├─ yes ─► timestamps, window, what it acknowledges, its payload, the ACK that it asks for
//!     └─ no ──► nothing is changed: `input` judges it by the book
//! ```

use crate::state::View;
use crate::{Now, Output, Placement, Pools, SegmentIn, ack, input, receive, send, timers};
use toe_abi::flow::{FlowState, flow_flags as ff, tcp_state};
use toe_wire::TcpFlags;

/// What a segment on the fast path leads to. The application may see something new, always.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Fast {
    pub place: Option<Placement>,
    /// `emit` may have something now.
    pub send: bool,
    /// [`next_deadline`](crate::next_deadline) may be sooner than before.
    pub deadline: bool,
}

/// What [`input`](crate::input) does about a segment, if it is one as nearly all are. `None`: it is not, and the state is as before.
#[inline]
pub fn fast(s: &mut FlowState, pools: &mut Pools, seg: &SegmentIn, now: Now) -> Option<Fast> {
    if !is_fast(s, seg) {
        return None;
    }
    s.rx.last_rx_ms = now.ms32();
    s.tx.probes = 0;
    if let Some(ts) = seg.timestamps {
        input::update_ts_recent(s, seg.seq, ts.val);
    }
    let (window, delayed) = (s.tx.snd_wnd, s.has(ff::DELACK_ARMED));
    ack::update_window(s, seg);
    let before = seg.ack.gt(s.snd_una()).then(|| timers::armed(s));
    if before.is_some() {
        // Nothing closes an established flow: what there is to say is said below.
        ack::advance(s, pools, seg, now, &mut Output::default());
    }
    let mut place = None;
    if seg.payload_len > 0 {
        place = Some(Placement { from: 0, pos: s.rx_pos(s.rcv_nxt()), len: seg.payload_len, in_order: true });
        s.rx.rcv_nxt = seg.seq.add(seg.payload_len).0;
        receive::owe_ack(s, seg, false, now);
    }
    if before.is_none() && s.tx.snd_wnd == window {
        // What may be sent, and which timer has to run, is what it was.
        return Some(Fast { place, send: s.has(ff::ACK_NOW), deadline: !delayed && s.has(ff::DELACK_ARMED) });
    }
    timers::rearm(s, pools, now);
    let deadline = before.is_none_or(|before| timers::armed(s).is_sooner_than(before));
    Some(Fast { place, send: send::wants_emit(s, pools), deadline })
}

/// Whether [`fast`] takes a segment.
#[inline]
#[must_use]
pub fn is_fast(s: &FlowState, seg: &SegmentIn) -> bool {
    const BUSY: u32 = ff::RECOVERY | ff::LOSS | ff::FIN_SEEN | ff::RX_CLOSED | ff::ECE;
    let flags_ok = seg.flags.difference(TcpFlags::PSH) == TcpFlags::ACK && !seg.ce;
    let state_ok = s.rx.state == tcp_state::ESTABLISHED && !s.has(BUSY) && !s.has_holes() && s.tx.dup_acks == 0 && s.tx.board == 0;
    let ts_ok = match seg.timestamps {
        // Signed difference modulo 2^32: RFC 7323, 5.2.
        Some(ts) => s.has(ff::TIMESTAMPS) && ts.val.wrapping_sub(s.rx.ts_recent) as i32 >= 0,
        None => !s.has(ff::TIMESTAMPS),
    };
    let in_order = seg.seq == s.rcv_nxt() && seg.payload_len <= s.rcv_adv().since_or_zero(s.rcv_nxt());
    // A pure ACK must acknowledge something: else it may be a duplicate one.
    let ack_ok = seg.ack.le(s.snd_max()) && if seg.payload_len == 0 { seg.ack.gt(s.snd_una()) } else { seg.ack.ge(s.snd_una()) };
    flags_ok && state_ok && ts_ok && in_order && ack_ok && seg.sack.is_empty()
}
