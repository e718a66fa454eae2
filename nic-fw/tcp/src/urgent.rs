//! Urgent data (RFC 9293, 3.8.5; RFC 6093): a mark in the stream that is told ahead of the bytes before it.
//!
//! ```text
//!   sending     snd_una ────────► snd_nxt ──────► SND.UP ────► tx_end
//!               └─ every segment that begins here says URG ─┘
//!   receiving   rcv_nxt ──────► RCV.UP: the application is told at once, whatever is missing before it
//! ```
//!
//! Rare, so what is kept is little: SND.UP lies where Nagle's algorithm keeps its mark (`snd_sml`), as that rests in urgent mode; RCV.UP is
//! kept by who tells the application. Linux makes one byte of it urgent, the last before the mark; here there is only the mark.

use crate::state::{View, tx_tail};
use crate::{Now, Output, Pools, SegmentIn, SegmentOut, send};
use toe_abi::counters::Counter;
use toe_abi::flow::{FlowState, flow_flags as ff};
use toe_wire::{SeqNum, TcpFlags};

/// An acceptable segment with URG, before its payload counts as received.
/// RFC 9293 MUST-30, MUST-32, MUST-66, 3.10.7.4-29.
#[cold]
pub(crate) fn received(s: &FlowState, seg: &SegmentIn, out: &mut Output) {
    // RFC 9293 MUST-62: the pointer is to the octet that follows. As Linux: 0 points to it from before the first.
    let up = seg.seq.add(u32::from(seg.urgent.max(1)));
    // "This should not occur since a FIN has been received": ignored. And what lies behind is no news.
    if s.fin_received() || s.has(ff::RX_CLOSED) || up.le(s.rcv_nxt()) {
        return;
    }
    out.urgent = Some(s.rx_pos(up));
    out.notify = true;
    out.counts.add(Counter::RxUrgent);
}

/// The application has urgent data up to position `pos`. A position that is acknowledged or that was overtaken is an old one; one beyond
/// what there is to send is ignored.
/// RFC 9293 MUST-30.
#[cold]
pub(crate) fn begin(s: &mut FlowState, pos: u32) {
    let tail = tx_tail(s);
    let (ahead, unacked) = (pos.wrapping_sub(tail), s.tx.tx_head.wrapping_sub(tail));
    let up = SeqNum(s.tx.iss).add(1).add(pos);
    if !(1..=unacked).contains(&ahead) || is_pending(s) && up.le(SeqNum(s.rx.snd_sml)) {
        return;
    }
    if !is_pending(s) {
        // Whether the bytes may go or not, the peer is to know. Of a mark that moves on what is sent next tells: moving it costs nothing, and an
        // ACK for each would be more than a peer, and who shares the port, can take.
        s.set(ff::ACK_NOW);
    }
    s.set(ff::URGENT);
    s.rx.snd_sml = up.0;
}

/// Whether the peer has not acknowledged all urgent data: neither Nagle's algorithm nor CORK holds anything back (as in Linux).
pub(crate) fn is_pending(s: &FlowState) -> bool {
    s.has(ff::URGENT) && SeqNum(s.rx.snd_sml).gt(s.snd_una())
}

/// The next segment to send, in urgent mode.
/// RFC 9293 MUST-30, MUST-31.
#[cold]
pub(crate) fn emit(s: &mut FlowState, pools: &mut Pools, now: Now, max_payload: u32, new_data: bool) -> Option<SegmentOut> {
    let up = SeqNum(s.rx.snd_sml);
    if !is_pending(s) {
        s.clear(ff::URGENT);
        return send::next(s, pools, now, max_payload, new_data);
    }
    // No super-frames: who cuts them would give all segments the pointer of the first.
    let out = send::next(s, pools, now, max_payload.min(s.mss()), new_data);
    s.rx.snd_sml = up.0;
    out.map(|segment| announce(s, up, segment))
}

/// Sets URG and the pointer. A mark too far ahead is told as being as far as can be, but never amidst bytes that were sent: the peer would
/// take the one before it for urgent (as in Linux).
fn announce(s: &FlowState, up: SeqNum, segment: SegmentOut) -> SegmentOut {
    let ahead = up.since_or_zero(segment.seq);
    let reach = segment.seq.add(u16::MAX.into());
    let pointer = match u16::try_from(ahead) {
        Ok(near) => near,
        Err(_) if reach.gt(s.snd_max()) => u16::MAX,
        Err(_) => 0,
    };
    if pointer == 0 {
        return segment;
    }
    // RFC 9293 MUST-62.
    SegmentOut { flags: segment.flags | TcpFlags::URG, urgent: pointer, ..segment }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{IRS, ISS, flow, pools};
    use crate::{HostUpdate, Input, emit, input};
    use toe_abi::desc::hc_flags;
    use toe_wire::SackBlocks;

    const NOW: Now = Now(1000);

    fn segment(seq: u32, len: u32, urgent: Option<u16>) -> SegmentIn {
        SegmentIn {
            seq: IRS.add(1).add(seq),
            ack: ISS.add(1),
            flags: if urgent.is_some() { TcpFlags::ACK | TcpFlags::URG } else { TcpFlags::ACK },
            window: u16::MAX,
            urgent: urgent.unwrap_or(0),
            payload_len: len,
            timestamps: None,
            sack: SackBlocks::default(),
            ce: false,
            segments: 1,
        }
    }

    struct Bench {
        s: FlowState,
        pools: Pools,
    }

    impl Bench {
        fn new() -> Self {
            Self { s: flow(), pools: pools() }
        }

        fn take(&mut self, seg: SegmentIn) -> Output {
            input(&mut self.s, &mut self.pools, &Input::Segment(seg), NOW)
        }

        fn write(&mut self, tx_head: u32, urgent: Option<u32>) -> Output {
            let flags = if urgent.is_some() { hc_flags::URGENT } else { 0 };
            let update = HostUpdate { tx_head, rx_tail: 0, flags, urgent: urgent.unwrap_or(0) };
            input(&mut self.s, &mut self.pools, &Input::Host(update), NOW)
        }

        fn acked(&mut self, position: u32) {
            let _ = self.take(SegmentIn { ack: ISS.add(1).add(position), ..segment(0, 0, None) });
        }

        /// Position, bytes and pointer.
        fn sent(&mut self, max: u32) -> Option<(u32, u32, Option<u16>)> {
            let out = emit(&mut self.s, &mut self.pools, NOW, max)?;
            Some((out.pos, out.len, out.flags.contains(TcpFlags::URG).then_some(out.urgent)))
        }
    }

    #[test]
    fn a_position_counts_only_with_its_flag() {
        let mut b = Bench::new();
        let update = HostUpdate { tx_head: 100, rx_tail: 0, flags: hc_flags::NODELAY, urgent: 50 };
        let _ = input(&mut b.s, &mut b.pools, &Input::Host(update), NOW);
        assert_eq!(b.sent(1460), Some((0, 100, None)));
    }

    #[test]
    fn the_mark_is_told_with_the_data_or_before_it() {
        let mut t = Bench::new();
        let out = t.take(segment(0, 10, Some(5)));
        assert_eq!((out.urgent, out.notify, out.place.map(|p| p.len)), (Some(5), true, Some(10)));
        assert_eq!(t.take(segment(10, 0, Some(3000))).urgent, Some(3010), "no data at all");
        assert_eq!(t.take(segment(500, 10, Some(1))).urgent, Some(501), "behind a hole");
    }

    #[test]
    fn a_pointer_of_0_means_the_first_byte() {
        assert_eq!(Bench::new().take(segment(0, 1, Some(0))).urgent, Some(1));
    }

    #[test]
    fn a_mark_in_what_was_received_is_no_news() {
        let mut t = Bench::new();
        let _ = t.take(segment(0, 10, None));
        assert_eq!(t.take(segment(0, 10, Some(10))).urgent, None);
        assert_eq!(t.take(segment(0, 11, Some(11))).urgent, Some(11));
    }

    #[test]
    fn nobody_hears_of_a_mark_behind_the_end_or_in_what_is_discarded() {
        let mut t = Bench::new();
        let _ = t.take(SegmentIn { flags: TcpFlags::ACK | TcpFlags::FIN, ..segment(0, 10, None) });
        assert_eq!(t.take(segment(11, 0, Some(5))).urgent, None);
        let mut t = Bench::new();
        t.s.set(ff::RX_CLOSED);
        assert_eq!(t.take(segment(0, 10, Some(5))).urgent, None);
    }

    #[test]
    fn a_closed_window_keeps_no_mark_away() {
        let mut t = Bench::new();
        t.s.rx.rcv_adv = t.s.rx.rcv_nxt;
        let out = t.take(segment(0, 1, Some(1)));
        assert_eq!((out.urgent, out.place), (Some(1), None));
    }

    #[test]
    fn a_segment_out_of_the_window_says_nothing() {
        let out = Bench::new().take(segment(1 << 20, 1, Some(1)));
        assert_eq!((out.urgent, out.notify), (None, false));
    }

    #[test]
    fn segments_up_to_the_mark_point_to_it_and_no_others() {
        let mut t = Bench::new();
        let _ = t.write(5000, Some(2000));
        assert_eq!(t.sent(64_000), Some((0, 1460, Some(2000))), "no super-frame");
        assert_eq!(t.sent(64_000), Some((1460, 1460, Some(540))));
        assert_eq!(t.sent(64_000), Some((2920, 1460, None)));
        t.acked(1460);
        t.s.set(ff::REXMIT_ONE);
        assert_eq!(t.sent(64_000), Some((1460, 1460, Some(540))), "again");
    }

    #[test]
    fn urgent_mode_ends_when_the_mark_is_acknowledged() {
        let mut t = Bench::new();
        let _ = t.write(1, Some(1));
        assert_eq!(t.sent(64_000), Some((0, 1, Some(1))));
        t.acked(1);
        let _ = t.write(5001, Some(1));
        assert_eq!(t.sent(64_000), Some((1, 5000, None)), "super-frames again");
        assert!(!t.s.has(ff::URGENT));
    }

    /// As in Linux.
    #[test]
    fn neither_nagle_nor_cork_holds_urgent_data() {
        let mut t = Bench::new();
        let _ = t.write(10, None);
        assert!(t.sent(1460).is_some());
        let _ = t.write(20, None);
        assert_eq!(t.sent(1460), None, "Nagle");
        t.s.set(ff::CORK);
        let _ = t.write(21, Some(21));
        assert_eq!(t.sent(1460), Some((10, 11, Some(11))));
    }

    #[test]
    fn a_closed_window_does_not_keep_the_mark_from_the_peer() {
        let mut t = Bench::new();
        t.s.tx.snd_wnd = 0;
        assert!(t.write(100, Some(100)).send);
        assert_eq!(t.sent(1460), Some((0, 0, Some(100))));
        assert_eq!(t.sent(1460), None, "once");
    }

    /// Or an application has an ACK sent with every byte of its buffer.
    #[test]
    fn a_mark_that_moves_on_behind_a_closed_window_waits_for_a_probe() {
        let mut t = Bench::new();
        t.s.tx.snd_wnd = 0;
        let _ = t.write(100, Some(10));
        assert_eq!(t.sent(1460), Some((0, 0, Some(10))));
        for mark in 11..=100 {
            let _ = t.write(100, Some(mark));
            assert_eq!(t.sent(1460), None, "{mark}");
        }
        t.s.set(ff::PROBE);
        assert_eq!(t.sent(1460).and_then(|(.., mark)| mark), Some(101), "it says where the mark is: behind byte 100, from the byte before");
    }

    #[test]
    fn a_mark_moves_forward_only() {
        let mut t = Bench::new();
        let _ = t.write(3000, Some(2000));
        let _ = t.write(3000, Some(1000));
        assert_eq!(t.sent(1460), Some((0, 1460, Some(2000))));
        let _ = t.write(3000, Some(3000));
        assert_eq!(t.sent(1460), Some((1460, 1460, Some(1540))));
    }

    #[test]
    fn a_mark_outside_of_what_is_to_be_sent_is_ignored() {
        for urgent in [0, 101, 1 << 31, u32::MAX] {
            let mut t = Bench::new();
            let _ = t.write(100, Some(urgent));
            assert!(!t.s.has(ff::URGENT), "{urgent}");
        }
    }

    /// The pointer has 16 bits.
    #[test]
    fn a_mark_far_ahead_is_told_as_far_as_possible() {
        let mut t = Bench::new();
        t.s.tx.buf_log2 = 20;
        t.s.tx.snd_wnd = 1 << 20;
        t.s.cc.cwnd = 1 << 20;
        let _ = t.write(200_000, Some(200_000));
        let mut pointers = std::vec::Vec::new();
        while let Some((pos, len, pointer)) = t.sent(1460) {
            let want = if 200_000 - pos > 65_535 { 65_535 } else { (200_000 - pos) as u16 };
            assert_eq!(pointer, Some(want), "{pos} {len}");
            pointers.push(want);
        }
        assert_eq!(pointers.len(), 137);
        t.s.set(ff::REXMIT_ONE);
        assert_eq!(t.sent(1460), Some((0, 1460, None)), "65535 was sent, and is not urgent");
    }
}
