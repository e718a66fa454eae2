//! Arbitrary segments, host updates and timers: nothing panics, and what must always hold, holds.

use super::choices::Choices;
use super::flow::setup;
use toe_abi::desc::{ev_flags, hc_flags};
use toe_abi::flow::{FlowOptions, FlowState, timer};
use toe_tcp::*;
use toe_wire::{SackBlocks, SeqNum, TcpFlags, Timestamps};

/// A number near one that matters, or anywhere.
fn near(r: &mut impl Choices, of: &[u32]) -> u32 {
    let base = of[r.range(0, of.len() as u64) as usize];
    match r.range(0, 10) {
        0 => r.next() as u32,
        1..4 => base,
        4..7 => base.wrapping_add(r.range(0, 20_000) as u32),
        _ => base.wrapping_sub(r.range(0, 20_000) as u32),
    }
}

/// None, or blocks that are true, nearly true or absurd.
fn sack_blocks(r: &mut impl Choices, s: &FlowState) -> SackBlocks {
    let mut blocks = SackBlocks::default();
    for _ in 0..r.pick([0, 0, 1, 2, 4]) {
        let within = s.tx.snd_max.wrapping_sub(s.tx.snd_una).max(1);
        let [a, b] = [0; 2].map(|_| s.tx.snd_una.wrapping_add(r.range(0, u64::from(within) + 1) as u32));
        let (start, end) =
            if r.chance(80) { (SeqNum(a).min(SeqNum(b)).0, SeqNum(a).max(SeqNum(b)).0) } else { (near(r, &[a]), near(r, &[b])) };
        blocks.push(SeqNum(start), SeqNum(end));
    }
    blocks
}

fn segment(r: &mut impl Choices, s: &FlowState, now: Now) -> SegmentIn {
    let usual = TcpFlags::ACK;
    let flags = if r.chance(70) { usual } else { TcpFlags::from_bits_retain(r.next() as u8) };
    // Resets end the fun early: let few of them through.
    let flags = if r.chance(95) { flags - TcpFlags::RST } else { flags };
    let stamp = Timestamps { val: near(r, &[s.rx.ts_recent]), ecr: near(r, &[now.ms32()]) };
    let (any_window, any_len) = (r.next() as u16, r.range(0, 65_536) as u32);
    SegmentIn {
        seq: SeqNum(near(r, &[s.rx.rcv_nxt, s.rx.rcv_nxt, s.rx.rcv_adv, s.cc.ooo[0][0], s.cc.ooo[0][1], s.cc.ooo[1][1], s.rx.fin_seq])),
        ack: SeqNum(near(r, &[s.tx.snd_una, s.tx.snd_nxt, s.tx.snd_max, s.tx.snd_max])),
        flags,
        window: r.pick([0, 1, 500, 60_000, any_window]),
        urgent: r.pick([0, 1, 1000, any_window]),
        payload_len: r.pick([0, 0, 1, 1000, any_len]),
        timestamps: r.chance(60).then_some(stamp),
        sack: sack_blocks(r, s),
        ce: r.chance(10),
        segments: r.next() as u16,
    }
}

fn event(r: &mut impl Choices, s: &FlowState, now: Now) -> Input {
    match r.range(0, 1000) {
        0..550 => Input::Segment(segment(r, s, now)),
        550..850 => Input::Host(HostUpdate {
            tx_head: near(r, &[s.tx.tx_head, s.tx.tx_head, tx_tail(s)]),
            rx_tail: near(r, &[s.rx.rx_tail, rx_head(s), rx_head(s)]),
            flags: (r.next() as u32) & if r.chance(95) { !(hc_flags::FIN | hc_flags::RX_CLOSED) } else { !0 },
            urgent: near(r, &[s.tx.tx_head, tx_tail(s)]),
        }),
        850..975 => Input::Timer,
        975..985 => Input::Options(options(r)),
        985..998 => {
            let mtu = r.next() as u16;
            Input::IcmpError(IcmpError { kind: 3, code: 4, mtu, seq: SeqNum(near(r, &[s.tx.snd_una])) })
        }
        998 => Input::Close { unread: r.chance(50) },
        _ => Input::Abort,
    }
}

fn options(r: &mut impl Choices) -> FlowOptions {
    let [any, other] = [0; 2].map(|_| r.next() as u32);
    FlowOptions {
        user_timeout_ms: r.pick([0, 1, 1000, any]),
        keep_idle_s: r.pick([0, 1, any as u16]),
        keep_interval_s: r.pick([0, 1, other as u16]),
        keep_count: r.pick([0, 1, other as u8]),
        tos: any as u8,
        ttl: other as u8,
        quick_ack: r.range(0, 4) as u8,
    }
}

fn check(s: &FlowState, before: &FlowState, out: &Output, event: &Input) {
    let (una, nxt, max) = (SeqNum(s.tx.snd_una), SeqNum(s.tx.snd_nxt), SeqNum(s.tx.snd_max));
    assert!(una.le(nxt) && nxt.le(max), "snd_una <= snd_nxt <= snd_max");
    assert!(SeqNum(before.tx.snd_una).le(una) && SeqNum(before.tx.snd_max).le(max), "send side moved back");
    let tx_size = 1u32 << s.tx.buf_log2;
    let rx_size = 1u32 << s.rx.buf_log2;
    assert!(s.tx.tx_head.wrapping_sub(tx_tail(s)) <= tx_size, "more than the transmit buffer holds");
    assert!(max.since(SeqNum(s.tx.iss).add(1)) <= s.tx.tx_head.wrapping_add(1), "sent what was never written");
    assert!(rx_head(s).wrapping_sub(s.rx.rx_tail) <= rx_size, "more than the receive buffer holds");
    assert!(SeqNum(before.rx.rcv_adv).le(SeqNum(s.rx.rcv_adv)), "window shrank");
    assert!(SeqNum(before.rx.rcv_nxt).le(SeqNum(s.rx.rcv_nxt)), "rcv_nxt moved back");
    // A FIN takes a sequence number, but no room.
    let fin = u32::from(event_flags(s) & ev_flags::RX_FIN != 0);
    let edge = SeqNum(s.rx.irs).add(1).add(s.rx.rx_tail).add(rx_size).add(fin);
    assert!(SeqNum(s.rx.rcv_adv).le(edge), "more offered than there is room for");
    let mut last = SeqNum(s.rx.rcv_nxt);
    let used = s.cc.ooo.iter().take_while(|i| i[0] != i[1]).count();
    assert!(s.cc.ooo[used..].iter().all(|i| i[0] == i[1]), "gap in the list");
    for &[start, end, _] in &s.cc.ooo[..used] {
        assert!(last.lt(SeqNum(start)) && SeqNum(start).lt(SeqNum(end)) && SeqNum(end).le(SeqNum(s.rx.rcv_adv)), "{:?}", s.cc.ooo);
        last = SeqNum(end);
    }
    if let Some(p) = out.place {
        let Input::Segment(seg) = event else { panic!("placement without a segment") };
        assert!(p.len > 0 && p.from + p.len <= seg.payload_len, "placement outside the payload");
        assert_eq!(SeqNum(s.rx.irs).add(1).add(p.pos), seg.seq.add(p.from), "misplaced");
        assert!(p.pos.wrapping_add(p.len).wrapping_sub(before.rx.rx_tail) <= rx_size, "placement outside the buffer");
        assert!(p.pos.wrapping_sub(before.rx.rx_tail) <= rx_size, "placement outside the buffer");
        assert!(p.pos.wrapping_sub(rx_head(before)) <= rx_size, "placement over bytes already delivered");
    }
    assert!(s.cc.cwnd >= 1);
}

/// One flow, and up to 300 events.
pub fn run(r: &mut impl Choices) {
    let mut now = Now(r.range(0, 1 << 45));
    let timestamps = r.chance(50).then(|| Timestamping { recent: r.next() as u32, offset: r.next() as u32 });
    let mut s = establish(&Setup {
        iss: SeqNum(r.next() as u32),
        irs: SeqNum(r.next() as u32),
        snd_wnd: r.range(0, 100_000) as u32,
        snd_wscale: r.range(0, 20) as u8,
        rcv_wscale: r.range(0, 15) as u8,
        tx_buf_log2: r.range(12, 17) as u8,
        rx_buf_log2: r.range(12, 17) as u8,
        mss: r.pick([1, 88, 1000, 9000]),
        timestamps,
        sack: r.chance(50),
        ecn: r.chance(50),
        algorithm: r.range(0, 3) as u8,
        now,
        ..setup()
    });
    let records = r.pick([0, 1, 3, 16, 200]);
    let mut pools = Pools::new(records, 4);
    let all = pools.left();
    // Something to send was announced since there was last nothing.
    let mut announced = false;
    for _ in 0..300 {
        if r.is_over() {
            break;
        }
        let due = next_deadline(&s, now).filter(|_| r.chance(30));
        now = due.map_or(Now(now.0 + r.range(0, 20_000)), |d| d.max(now));
        let before = s;
        let event = event(r, &s, now);
        let out = input(&mut s, &mut pools, &event, now);
        check(&s, &before, &out, &event);
        announced |= out.send;
        if out.closed.is_some() {
            assert_eq!(pools.left(), all, "an ended flow keeps records");
            assert!(!out.send && next_deadline(&s, now).is_none() && emit(&mut s, &mut pools, now, 64_000).is_none());
            return;
        }
        let max_payload = u32::from(s.rx.mss).max(r.pick([1, 1000, 64_000]));
        for _ in 0..r.range(0, 20) {
            let before = s;
            let Some(seg) = emit(&mut s, &mut pools, now, max_payload) else {
                announced = false;
                break;
            };
            assert!(announced, "something to send that was not announced");
            check(&s, &before, &Output::default(), &event);
            assert!(seg.len <= max_payload);
            assert!(seg.len == 0 || seg.pos.wrapping_sub(tx_tail(&s)) < 1 << s.tx.buf_log2, "payload outside the buffer");
            assert!(seg.len == 0 || s.tx.tx_head.wrapping_sub(seg.pos) >= seg.len, "payload that was never written");
        }
        // With something in flight a timer runs: no flow can hang.
        assert!(
            s.tx.snd_una == s.tx.snd_max || matches!(s.tx.timer, timer::RTO | timer::TLP | timer::REORDER),
            "in flight without a timer"
        );
    }
    forget(&mut s, &mut pools);
    assert_eq!(pools.left(), all, "a forgotten flow keeps records");
}
