//! What the application and the control plane ask for. Every value is a claim.

use crate::establish::TOS_ECN;
use crate::patience::Patience;
use crate::receive::QUICKACKS;
use crate::state::{View, rx_head, tx_tail};
use crate::{HostUpdate, IcmpError, Now, Output, Pools, board, closing, errno, output, send, timers, urgent};
use toe_abi::desc::hc_flags;
use toe_abi::flow::{FlowOptions, FlowState, as_v4, flow_flags as ff, quick_ack};

/// A position that may have moved forward.
enum Moved {
    To(u32),
    /// Where it was, or overtaken by a newer update.
    Not,
    /// Outside the buffer.
    Impossible,
}

/// `most`: how far ahead of `old` the new position may be.
fn moved(old: u32, new: u32, most: u32) -> Moved {
    match new.wrapping_sub(old) {
        0 => Moved::Not,
        ahead if ahead <= most => Moved::To(new),
        ahead if ahead > 1 << 31 => Moved::Not,
        _ => Moved::Impossible,
    }
}

/// An application's descriptor.
pub(crate) fn update(s: &mut FlowState, update: &HostUpdate, out: &mut Output) {
    let tx_size = 1u32 << s.tx.buf_log2.min(30);
    let tx_used = s.tx.tx_head.wrapping_sub(tx_tail(s));
    // After FIN there is no more data (RFC 9293, 3.10.4).
    let tx_room = if s.has(ff::TX_FIN) { 0 } else { tx_size.saturating_sub(tx_used) };
    let tx = moved(s.tx.tx_head, update.tx_head, tx_room);
    let rx = moved(s.rx.rx_tail, update.rx_tail, rx_head(s).wrapping_sub(s.rx.rx_tail));
    if matches!(tx, Moved::Impossible) || (matches!(rx, Moved::Impossible) && !s.has(ff::RX_CLOSED)) {
        out.bad_host = true;
        return;
    }
    if let Moved::To(head) = tx {
        s.tx.tx_head = head;
    }
    switches(s, update.flags);
    if let Moved::To(tail) = rx {
        s.rx.rx_tail = tail;
        window_update(s);
    }
    if update.flags & hc_flags::URGENT != 0 {
        urgent::begin(s, update.urgent);
    }
    // With an old tx_head it was overtaken by the update that brought the rest.
    if update.flags & hc_flags::FIN != 0 && update.tx_head == s.tx.tx_head {
        closing::local_fin(s);
    }
    if update.flags & hc_flags::RX_CLOSED != 0 {
        close_receive(s);
    }
}

fn switches(s: &mut FlowState, flags: u32) {
    // As Linux (tcp(7)): TCP_NODELAY, when it is set, lets go what TCP_CORK has held back.
    const BOTH: u32 = hc_flags::CORK | hc_flags::NODELAY;
    if flags & BOTH == BOTH && !s.has(ff::NODELAY) && s.snd_nxt().lt(s.tx_end()) {
        s.set(ff::PUSH);
    }
    for (asked, bit) in [(hc_flags::NODELAY, ff::NODELAY), (hc_flags::CORK, ff::CORK), (hc_flags::KEEPALIVE, ff::KEEPALIVE)] {
        if flags & asked != 0 {
            s.set(bit);
        } else {
            s.clear(bit);
        }
    }
}

/// An application's descriptor about what the switches of its updates have no room for.
/// RFC 9293 SHLD-21, MUST-21, MUST-27.
#[cold]
pub(crate) fn options(s: &mut FlowState, pools: &mut Pools, options: &FlowOptions) {
    s.id.tos = options.tos & !TOS_ECN;
    if options.ttl != 0 {
        s.id.ttl = options.ttl;
    }
    match options.quick_ack {
        quick_ack::ON => {
            s.rx.quickack = QUICKACKS;
            if s.has(ff::DELACK_ARMED) {
                s.set(ff::ACK_NOW);
            }
        }
        quick_ack::OFF => s.rx.quickack = 0,
        _ => {}
    }
    timers::change(s, pools, Patience::of(options));
}

/// What is in the buffer is of no interest any more: its room is free.
fn close_receive(s: &mut FlowState) {
    if !s.has(ff::RX_CLOSED) {
        s.set(ff::RX_CLOSED);
        s.rx.rx_tail = rx_head(s);
        window_update(s);
    }
}

/// The application has read: the peer is told if it may be waiting for that. No stall: whenever the peer is left with half of what there is
/// room for, a gain of two segments (or half a small buffer) is announced.
fn window_update(s: &mut FlowState) {
    let offered = s.rcv_adv().since_or_zero(s.rcv_nxt());
    let possible = output::sayable(s, s.rcv_edge().since_or_zero(s.rcv_nxt()));
    let gain = possible.saturating_sub(offered);
    let least = (s.rx_size() / 2).min(2 * s.mss()).max(offered);
    if gain >= least && !s.fin_received() {
        s.set(ff::ACK_NOW);
    }
}

/// The last descriptor has gone.
/// RFC 9293 MAY-1, SHLD-3.
pub(crate) fn close(s: &mut FlowState, pools: &Pools, unread: bool, now: Now, out: &mut Output) {
    if unread && send::has_data(s, pools) {
        // As Linux, where it has left by now: what was sent before the close, as far as windows allow.
        return s.set(ff::RST_DUE | ff::ORPHAN);
    }
    if unread {
        // RFC 2525, 2.17; RFC 9293, 3.6.1: data was lost, so the peer gets a RST.
        return closing::abort(s, now, 0, out);
    }
    closing::local_fin(s);
    close_receive(s);
    s.set(ff::ORPHAN);
}

const DEST_UNREACHABLE: u8 = 3;
const FRAG_NEEDED: u8 = 4;
/// Codes of "destination unreachable" that blame the network: unreachable, unknown, prohibited, not with this type of service.
const NET_CODES: [u8; 4] = [0, 6, 9, 11];
/// A path that claims less is lying (as in Linux: min_pmtu; RFC 8201, 4).
const MTU_MIN: u16 = 552;
const MTU_MIN_V6: u16 = 1280;

/// The errno of an error that does not end a connection.
fn soft_error(kind: u8, code: u8) -> u8 {
    let error = if kind == DEST_UNREACHABLE && NET_CODES.contains(&code) { errno::ENETUNREACH } else { errno::EHOSTUNREACH };
    error as u8
}

/// Path MTU discovery (RFC 1191, RFC 8201). Other errors are soft: RFC 5461 and RFC 9293, 3.9.2.2 keep the connection,
/// and say what to tell the application if the peer never answers again.
/// RFC 7323 5.7-1.
pub(crate) fn icmp_error(s: &mut FlowState, pools: &mut Pools, error: &IcmpError) {
    // RFC 5927, 4.1: only about what is in flight.
    // RFC 5927 4.1-1; RFC 8201 4-1.
    let ours = error.seq.ge(s.snd_una()) && error.seq.lt(s.snd_max());
    if !ours {
        return;
    }
    // RFC 9293 MUST-56; RFC 5927 5.2-1.
    if (error.kind, error.code) != (DEST_UNREACHABLE, FRAG_NEEDED) {
        s.rx.soft_error = soft_error(error.kind, error.code);
        return;
    }
    let (mtu_min, ip_header) = if as_v4(&s.id.key.remote_ip).is_some() { (MTU_MIN, 20) } else { (MTU_MIN_V6, 40) };
    let tcp_header = if s.has(ff::TIMESTAMPS) { 32 } else { 20 };
    // RFC 1191 3-7, 3-8; RFC 8201 4-3, 4-4, 5.4-1.
    let mss = error.mtu.max(mtu_min) - ip_header - tcp_header;
    // RFC 1191 3-9, 6.4-1; RFC 8201 4-8, 5.4-2.
    if mss >= s.rx.mss {
        return;
    }
    // RFC 1191 3-1, 3-2, 3-3, 3-4; RFC 8201 4-4, 4-5, 4-6, 5.4-1.
    s.rx.mss = mss;
    s.cc.cwnd = s.cc.cwnd.max(s.mss());
    // All that is in flight was too long: again, in smaller pieces. No congestion, so cwnd stays (RFC 1191, 6.4).
    // RFC 8201 4-5, 4-6, 5.4-3.
    // RFC 1191 6.4-2.
    board::give_up(s, pools);
    s.tx.snd_nxt = s.tx.snd_una;
    s.cc.recover = s.tx.snd_max;
    s.clear(ff::RECOVERY | ff::ECN_REDUCED);
    s.set(ff::LOSS | ff::REXMIT_ONE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;

    #[test]
    fn a_window_update_is_worth_two_segments_half_a_small_buffer_or_as_much_again() {
        let told = |buf_log2, offered, possible| {
            let mut s = flow();
            (s.rx.mss, s.rx.buf_log2) = (1000, buf_log2);
            s.rx.rcv_nxt = s.rcv_edge().sub_len(possible).0;
            s.rx.rcv_adv = s.rcv_nxt().add(offered).0;
            window_update(&mut s);
            s.has(ff::ACK_NOW)
        };
        assert!(!told(16, 0, 1999) && told(16, 0, 2000));
        assert!(!told(16, 1999, 3998) && told(16, 1999, 3999));
        assert!(!told(16, 5000, 9999) && told(16, 5000, 10_000));
        assert!(!told(11, 0, 1023) && told(11, 0, 1024));
    }

    /// Without window scaling it can say no more than 65535, with it only multiples.
    #[test]
    fn a_window_update_tells_what_the_field_can_say() {
        let told = |wscale, offered, possible| {
            let mut s = flow();
            (s.rx.mss, s.rx.buf_log2, s.rx.wscale) = (1000, 20, wscale);
            s.rx.rcv_nxt = s.rcv_edge().sub_len(possible).0;
            s.rx.rcv_adv = s.rcv_nxt().add(offered).0;
            window_update(&mut s);
            s.has(ff::ACK_NOW)
        };
        assert!(!told(0, 65_535, 1 << 20) && !told(0, 40_000, 1 << 20) && told(0, 30_000, 1 << 20));
        assert!(!told(14, 0, (1 << 14) - 1) && told(14, 0, 1 << 14));
    }
}
