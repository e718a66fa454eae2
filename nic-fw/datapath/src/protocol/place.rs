//! Where payload goes: a placement of TCP's as writes.
//!
//! ```text
//!   frames            │  a  │  b  │  c  │           what lies before the placement, and behind it, is left out
//!   placement            ├───────────┤
//!   receive buffer    ──b─┤          ├─a───b──       a ring: one write more where it ends
//! ```

use crate::msg::{OutMsg, Write};
use toe_abi::{HostAddr, flow::FlowState};
use toe_tcp::Placement;

/// Adds the writes of a placement of payload of the message's frames.
#[inline]
pub fn write(placement: &Placement, s: &FlowState, msg: &mut OutMsg) {
    let size = 1u32 << s.rx.buf_log2;
    let base = HostAddr::new(s.id.region, u64::from(s.rx.buf) * 64);
    // TCP never places more than the window; a buffer is at least that.
    let (mut pos, mut left) = (placement.pos, placement.len.min(size));
    // Payload before the placement.
    let mut before = placement.from;
    for (source, frame) in (0..).zip(&msg.frames) {
        let skipped = before.min(frame.payload_len);
        before -= skipped;
        let mut at = frame.payload_at + skipped;
        let mut here = left.min(frame.payload_len - skipped);
        left -= here;
        while here > 0 {
            let offset = pos & (size - 1);
            let len = here.min(size - offset);
            let _ = msg.writes.push(Write { source, at, len, dst: base.add(offset.into()) });
            (at, pos, here) = (at + len, pos.wrapping_add(len), here - len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        msg::{Origin, RxRef},
        train::TRAIN,
    };
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;
    use toe_hal::RxOffload;
    use zerocopy::FromZeros;

    proptest! {
        /// Each byte of the placement is written once, to its place; others are not.
        #[test]
        fn bytes_go_to_their_places(
            lens in prop::collection::vec(1u32..20, 1..=TRAIN),
            cut in (0u32..300, 0u32..300),
            pos: u32,
        ) {
            const SIZE: u32 = 512;
            let mut s = FlowState::new_zeroed();
            (s.rx.buf_log2, s.rx.buf) = (9, 3);
            let mut msg = OutMsg::new();
            let mut payload = Vec::new();
            for (source, &len) in (0u8..).zip(&lens) {
                let frame = RxRef { origin: Origin::Injected, len: 54 + len, offload: RxOffload::default(), tcp_at: 34 };
                msg.receive(frame, 54, len);
                payload.extend((0..len).map(|i| (source, 54 + i)));
            }
            let from = cut.0.min(payload.len() as u32);
            let len = cut.1.min(payload.len() as u32 - from);
            write(&Placement { from, pos, len, in_order: true }, &s, &mut msg);

            let mut ring = vec![None; SIZE as usize];
            for w in &msg.writes {
                for i in 0..w.len {
                    let place = &mut ring[w.dst.offset as usize - 3 * 64 + i as usize];
                    prop_assert!(place.replace((w.source, w.at + i)).is_none());
                }
            }
            let mut expected = vec![None; SIZE as usize];
            for i in 0..len {
                expected[(pos.wrapping_add(i) % SIZE) as usize] = Some(payload[(from + i) as usize]);
            }
            prop_assert_eq!(ring, expected);
            msg.frames.clear();
        }
    }
}
