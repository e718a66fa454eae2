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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ack, flow, pools};
    use toe_wire::{SeqNum, Timestamps};

    /// The next segment in order, with a little data, on a flow of which 3000 bytes are in flight.
    fn usual() -> (FlowState, SegmentIn) {
        let mut s = flow();
        (s.tx.tx_head, s.tx.snd_max) = (3000, s.snd_una().add(3000).0);
        (s.tx.snd_nxt, s.rx.quickack) = (s.tx.snd_max, 0);
        let seg = SegmentIn { flags: TcpFlags::ACK | TcpFlags::PSH, payload_len: 100, ..ack(&s) };
        (s, seg)
    }

    #[test]
    fn the_next_segment_in_order_is_fast_and_nothing_odd_is() {
        let is_fast = |change: fn(&mut FlowState, &mut SegmentIn)| {
            let (mut s, mut seg) = usual();
            change(&mut s, &mut seg);
            let expected = is_fast(&s, &seg);
            assert_eq!(fast(&mut s, &mut pools(), &seg, Now(0)).is_some(), expected);
            expected
        };
        assert!(is_fast(|_, _| {}));
        assert!(is_fast(|_, seg| seg.ack = seg.ack.add(3000)) && !is_fast(|_, seg| seg.ack = seg.ack.add(3001)));
        assert!(!is_fast(|_, seg| seg.ack = seg.ack.sub_len(1)));
        // Without data it must acknowledge something.
        assert!(is_fast(|_, seg| (seg.payload_len, seg.ack) = (0, seg.ack.add(1))) && !is_fast(|_, seg| seg.payload_len = 0));
        assert!(!is_fast(|_, seg| seg.seq = seg.seq.add(1)) && !is_fast(|_, seg| seg.seq = seg.seq.sub_len(1)));
        assert!(is_fast(|_, seg| seg.payload_len = 65_535) && !is_fast(|_, seg| seg.payload_len = 65_536));
        for flags in [TcpFlags::FIN, TcpFlags::SYN, TcpFlags::RST, TcpFlags::URG, TcpFlags::ECE, TcpFlags::CWR] {
            let (s, seg) = usual();
            assert!(!super::is_fast(&s, &SegmentIn { flags: seg.flags | flags, ..seg }), "{flags:?}");
        }
        assert!(!is_fast(|_, seg| seg.flags = TcpFlags::PSH) && !is_fast(|_, seg| seg.ce = true));
        for flags in [ff::RECOVERY, ff::LOSS, ff::FIN_SEEN, ff::RX_CLOSED, ff::ECE] {
            let (mut s, seg) = usual();
            s.set(flags);
            assert!(!super::is_fast(&s, &seg), "{flags:x}");
        }
        assert!(!is_fast(|s, _| s.rx.state = tcp_state::CLOSE_WAIT) && !is_fast(|s, _| s.cc.ooo[0] = [1, 2, 0]));
        assert!(!is_fast(|s, _| s.tx.dup_acks = 1) && !is_fast(|s, _| s.tx.board = 1));
        assert!(!is_fast(|_, seg| assert!(seg.sack.push(SeqNum(1), SeqNum(2)))));
    }

    /// RFC 7323, 5.2.
    #[test]
    fn timestamps_are_there_if_they_were_agreed_on_and_not_older() {
        let is_fast = |flags, val: Option<u32>| {
            let (mut s, seg) = usual();
            (s.rx.flags, s.rx.ts_recent) = (flags, 100);
            is_fast(&s, &SegmentIn { timestamps: val.map(|val| Timestamps { val, ecr: 0 }), ..seg })
        };
        assert!(is_fast(ff::TIMESTAMPS, Some(100)) && is_fast(ff::TIMESTAMPS, Some(101)) && !is_fast(ff::TIMESTAMPS, Some(99)));
        assert!(!is_fast(ff::TIMESTAMPS, None) && !is_fast(0, Some(100)));
    }

    #[test]
    fn a_delayed_acknowledgement_is_a_sooner_deadline_once() {
        let (mut s, seg) = usual();
        let next = SegmentIn { seq: seg.seq.add(100), ..seg };
        let first = fast(&mut s, &mut pools(), &seg, Now(0)).unwrap();
        let second = fast(&mut s, &mut pools(), &next, Now(0)).unwrap();
        assert_eq!((first.deadline, second.deadline), (true, false));
        assert!(!first.send && !second.send);
    }

    #[test]
    fn data_that_opens_the_window_lets_ours_go() {
        let (mut s, seg) = usual();
        (s.tx.tx_head, s.tx.snd_wnd) = (10_000, 3000);
        let opens = |s: &mut FlowState, window| fast(s, &mut pools(), &SegmentIn { window, ..seg }, Now(0)).unwrap().send;
        let mut unchanged = s;
        assert!(opens(&mut s, 60_000) && !opens(&mut unchanged, 3000));
    }

    #[test]
    fn an_acknowledgement_lets_more_go_and_says_when_its_timer_is_due() {
        let (mut s, seg) = usual();
        (s.tx.tx_head, s.tx.snd_wnd) = (10_000, 3000);
        let ack = SegmentIn { ack: seg.ack.add(3000), window: 3000, ..seg };
        let out = fast(&mut s, &mut pools(), &ack, Now(0)).unwrap();
        assert!(out.send && out.deadline && out.place.is_some());
    }
}
