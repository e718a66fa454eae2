//! Retransmission, reordering, loss and zero-window probes, keep-alive, cork, delayed ACK. One slot holds all but the last, so that no two
//! can be armed at once.

use crate::patience::Patience;
use crate::rtt::{RTO_MAX_MS, rto_after_ms, rto_ms};
use crate::send::{Verdict, plan};
use crate::state::View;
use crate::{Now, Output, Pools, cc, closing, errno, records, recovery, send, tlp, undo};
use toe_abi::counters::Counter;
use toe_abi::flow::{FlowState, flow_flags as ff, timer};

/// Timeouts in a row before we give up (tcp_retries2 of Linux: about 15 minutes).
const RETRIES_MAX: u8 = 15;
/// The same when nobody holds the socket any more (tcp_orphan_retries).
const RETRIES_ORPHAN: u8 = 8;
/// As in Linux.
const CORK_MS: u32 = 200;

/// Whether `ms` is not in the future.
fn is_due(ms: u32, now: Now) -> bool {
    now.ms32().wrapping_sub(ms) as i32 >= 0
}

fn absolute(ms: u32, now: Now) -> Now {
    let wait = (ms.wrapping_sub(now.ms32()) as i32).max(0);
    if wait == 0 { now } else { Now((now.0 / 1000 + u64::from(wait.unsigned_abs())) * 1000) }
}

/// When [`Input::Timer`](crate::Input::Timer) is to be called next.
#[must_use]
pub fn next_deadline(s: &FlowState, now: Now) -> Option<Now> {
    let slot = (s.tx.timer != timer::NONE).then(|| absolute(s.tx.timer_ms, now));
    let delack = s.has(ff::DELACK_ARMED).then(|| absolute(s.rx.delack_ms, now));
    match (slot, delack) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// When timers are due, milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Armed {
    slot: Option<u32>,
    delack: Option<u32>,
}

/// The timers that run.
#[inline]
#[must_use]
pub fn armed(s: &FlowState) -> Armed {
    Armed { slot: (s.tx.timer != timer::NONE).then_some(s.tx.timer_ms), delack: s.has(ff::DELACK_ARMED).then_some(s.rx.delack_ms) }
}

impl Armed {
    /// Whether one is due sooner than it was: [`next_deadline`] may be, too.
    #[inline]
    #[must_use]
    pub fn is_sooner_than(self, before: Self) -> bool {
        let sooner = |now: Option<u32>, before: Option<u32>| match (now, before) {
            (Some(now), Some(before)) => (now.wrapping_sub(before) as i32) < 0,
            (now, before) => now.is_some() && before.is_none(),
        };
        sooner(self.slot, before.slot) || sooner(self.delack, before.delack)
    }
}

/// Which timer has to run now.
/// RFC 8985 8-1.
fn wanted(s: &FlowState, pools: &Pools) -> u8 {
    if s.ended() {
        return timer::NONE;
    }
    if s.outstanding() > 0 {
        return match s.tx.timer {
            // These are armed by what they wait for; a probe is for when a wait begins.
            timer::REORDER => timer::REORDER,
            timer::RTO => timer::RTO,
            _ if tlp::is_wanted(s, pools) => timer::TLP,
            _ => timer::RTO,
        };
    }
    // RFC 9293 MUST-36, SHLD-29, SHLD-30.
    match plan(s, send::room(s, pools), s.mss()) {
        Verdict::WindowClosed => timer::PERSIST,
        Verdict::Corked => timer::CORK,
        // What D-SACKs may still tell is known then.
        _ if s.tx.board != 0 => timer::REORDER,
        // RFC 9293 MAY-5, MUST-24, MUST-25, MUST-26.
        _ if s.has(ff::KEEPALIVE) => timer::KEEPALIVE,
        _ => timer::NONE,
    }
}

/// Arms the timer that the state calls for, unless it runs already.
/// RFC 6298 5-2.
pub(crate) fn rearm(s: &mut FlowState, pools: &Pools, now: Now) {
    let want = wanted(s, pools);
    if s.tx.timer == want {
        return;
    }
    if s.tx.timer == timer::PERSIST {
        s.tx.backoff = 0;
        s.clear(ff::PROBE);
    }
    // RFC 8985 8-1.
    s.tx.timer = want;
    let (from_ms, wait_ms) = match want {
        timer::RTO | timer::PERSIST => (now.ms32(), rto_ms(s)),
        timer::TLP => (now.ms32(), tlp::timeout_ms(s, pools, now)),
        timer::CORK => (now.ms32(), CORK_MS),
        timer::REORDER => (now.ms32(), undo::wait_us(s).div_ceil(1000)),
        // Since something was last received, which may be weeks ago.
        timer::KEEPALIVE => (now.ms32(), pools.patience(s).keep_idle_ms().saturating_sub(now.ms32().wrapping_sub(s.rx.last_rx_ms))),
        _ => return,
    };
    // One more, as the present millisecond has partly gone.
    // RFC 6298 5-1.
    s.tx.timer_ms = from_ms.wrapping_add(wait_ms).wrapping_add(1);
}

/// Time has passed: whatever has come due happens.
pub(crate) fn expire(s: &mut FlowState, pools: &mut Pools, now: Now, out: &mut Output) {
    if s.has(ff::DELACK_ARMED) && is_due(s.rx.delack_ms, now) {
        s.clear(ff::DELACK_ARMED);
        s.set(ff::ACK_NOW);
        // No answer has come in time: it is no conversation (as Linux).
        s.rx.quickack = s.rx.quickack.max(1);
    }
    if s.tx.timer == timer::NONE || !is_due(s.tx.timer_ms, now) {
        return;
    }
    let kind = s.tx.timer;
    s.tx.timer = timer::NONE;
    match kind {
        timer::RTO => retransmit(s, pools, now, out),
        timer::REORDER => recovery::reordering_timeout(s, pools, now, out),
        // RFC 8985 7.3-2.
        timer::TLP if !tlp::expire(s, pools, out) => {
            s.tx.timer = timer::RTO;
            s.tx.timer_ms = now.ms32().wrapping_add(rto_ms(s)).wrapping_add(1);
        }
        timer::PERSIST => persist(s, pools, now, out),
        timer::KEEPALIVE => keep_alive(s, pools, now, out),
        // RFC 9293 MUST-60.
        timer::CORK => s.set(ff::PUSH),
        _ => {}
    }
}

/// Milliseconds from the first retransmission or probe until the one after this one, if nothing changes: what TCP_USER_TIMEOUT limits, as in
/// Linux. (RFC 5482 counts from the first transmission, and wants at least an RTO.)
fn waited_ms(s: &FlowState, retransmissions: u8) -> u32 {
    (1..=retransmissions).map(|backoff| rto_after_ms(s, backoff)).sum()
}

/// How long the timeout is that follows a retransmission or a probe: cut where the application's patience ends.
fn wait_ms(s: &FlowState, user_timeout_ms: u32) -> u32 {
    let rto_ms = rto_ms(s);
    match user_timeout_ms {
        0 => rto_ms,
        limit => rto_ms.min(limit.saturating_sub(waited_ms(s, s.tx.backoff.saturating_sub(1)))),
    }
}

fn wait_again(s: &mut FlowState, pools: &Pools, kind: u8, now: Now) {
    s.tx.timer = kind;
    let wait_ms = wait_ms(s, pools.patience(s).user_timeout_ms);
    // One more, as the present millisecond has partly gone.
    s.tx.timer_ms = now.ms32().wrapping_add(wait_ms).wrapping_add(1);
}

/// The application's patience has ended: TCP_USER_TIMEOUT, whatever the peer answers, if it is set, else what `otherwise` says.
/// RFC 9293 MUST-21.
fn is_over(s: &FlowState, pools: &Pools, otherwise: bool) -> bool {
    match pools.patience(s).user_timeout_ms {
        0 => otherwise,
        // At the latest when retransmissions are not counted any more, after eight hours.
        limit => waited_ms(s, s.tx.backoff) >= limit || s.tx.backoff == u8::MAX,
    }
}

/// The flow is to have other times from now on: the timer that runs ends when it would if it had had them as it began.
pub(crate) fn change(s: &mut FlowState, pools: &mut Pools, patience: Patience) {
    let before = pools.patience(s);
    pools.set_timers(s, patience);
    let after = pools.patience(s);
    match s.tx.timer {
        timer::RTO | timer::PERSIST if s.tx.backoff > 0 => {
            let [before, after] = [before, after].map(|patience| wait_ms(s, patience.user_timeout_ms));
            s.tx.timer_ms = s.tx.timer_ms.wrapping_sub(before).wrapping_add(after);
        }
        // Begins anew, from when something was last received. Between probes the next interval is the first to be another.
        timer::KEEPALIVE if s.tx.probes == 0 => s.tx.timer = timer::NONE,
        _ => {}
    }
}

fn retries(s: &FlowState) -> u8 {
    if s.has(ff::ORPHAN) { RETRIES_ORPHAN } else { RETRIES_MAX }
}

/// RFC 6298, 5.4 to 5.6; RFC 5681, 3.1; then, without a scoreboard, go back and send everything again as cwnd allows.
/// RFC 9293 3.10.8-2.
fn retransmit(s: &mut FlowState, pools: &mut Pools, now: Now, out: &mut Output) {
    // A peer that has closed its window on data in flight but answers our retransmissions is alive (RFC 9293, 3.8.6.1).
    // RFC 9293 SHLD-17, MUST-35.
    let answering = s.tx.snd_wnd == 0 && now.ms32().wrapping_sub(s.rx.last_rx_ms) < 2 * RTO_MAX_MS && !s.has(ff::ORPHAN);
    // RFC 9293 MUST-20, SHLD-11: R2 alone. At R1 IP needs no advice: toed asks next hops again all the time.
    if is_over(s, pools, s.tx.backoff >= retries(s) && !answering) {
        // RFC 9293 MUST-47, SHLD-25: routers may have said why.
        let error = if s.rx.soft_error == 0 { errno::ETIMEDOUT } else { u32::from(s.rx.soft_error) };
        return closing::give_up(s, error, now, out);
    }
    let again = s.tx.backoff > 0;
    if !again {
        // About what has been acknowledged since.
        s.rx.soft_error = 0;
    }
    s.tx.backoff = s.tx.backoff.saturating_add(1);
    wait_again(s, pools, timer::RTO, now);
    if recovery::timeout(s, pools, again, now, out) {
        return;
    }
    // What is sent again now is not told apart from what was sent once.
    records::give_up(s, pools);
    let flight = s.snd_nxt().since_or_zero(s.snd_una());
    cc::on_timeout(s, flight, again);
    // RFC 6582 3.2-6.
    s.cc.recover = s.tx.snd_max;
    s.tx.snd_nxt = s.tx.snd_una;
    s.tx.dup_acks = 0;
    s.clear(ff::RECOVERY | ff::ECN_REDUCED);
    // RFC 2018 5-3.
    s.set(ff::LOSS | ff::REXMIT_ONE);
    out.counts.add(Counter::TxTimeouts);
}

/// RFC 9293, 3.8.6.1: probe a closed window at growing intervals, for as long as the peer answers.
/// RFC 9293 MUST-37.
fn persist(s: &mut FlowState, pools: &Pools, now: Now, out: &mut Output) {
    // As Linux: a window that stays closed would keep what nobody holds for as long as the peer likes (RFC 6429).
    let nobody_s = s.has(ff::ORPHAN) && rto_ms(s) >= RTO_MAX_MS;
    if is_over(s, pools, s.tx.probes >= retries(s) || nobody_s) {
        return closing::give_up(s, errno::ETIMEDOUT, now, out);
    }
    s.tx.probes = s.tx.probes.saturating_add(1);
    s.tx.backoff = s.tx.backoff.saturating_add(1);
    s.set(ff::PROBE);
    wait_again(s, pools, timer::PERSIST, now);
    out.counts.add(Counter::TxProbes);
}

/// RFC 9293 MUST-27.
fn keep_alive(s: &mut FlowState, pools: &Pools, now: Now, out: &mut Output) {
    let patience = pools.patience(s);
    let idle_ms = now.ms32().wrapping_sub(s.rx.last_rx_ms);
    if idle_ms < patience.keep_idle_ms() {
        // Something came since; rearm() counts from then.
        s.tx.probes = 0;
        return;
    }
    let is_over = match patience.user_timeout_ms {
        0 => s.tx.probes >= patience.keep_count,
        // As in Linux: it counts in the place of TCP_KEEPCNT.
        limit => s.tx.probes > 0 && idle_ms >= limit,
    };
    if is_over {
        return closing::give_up(s, errno::ETIMEDOUT, now, out);
    }
    s.tx.probes = s.tx.probes.saturating_add(1);
    s.set(ff::PROBE);
    s.tx.timer = timer::KEEPALIVE;
    s.tx.timer_ms = now.ms32().wrapping_add(patience.keep_interval_ms());
    out.counts.add(Counter::TxProbes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{flow, pools};
    use toe_abi::flow::FlowOptions;

    #[test]
    fn only_what_comes_sooner_is_sooner() {
        let mut s = flow();
        let armed_at = |s: &mut FlowState, slot: Option<u32>, delack: Option<u32>| {
            s.tx.timer = if slot.is_some() { timer::RTO } else { timer::NONE };
            s.tx.timer_ms = slot.unwrap_or(0);
            s.rx.delack_ms = delack.unwrap_or(0);
            s.clear(ff::DELACK_ARMED);
            if delack.is_some() {
                s.set(ff::DELACK_ARMED);
            }
            armed(s)
        };
        let mut sooner = |now: (Option<u32>, Option<u32>), before: (Option<u32>, Option<u32>)| {
            let before = armed_at(&mut s, before.0, before.1);
            armed_at(&mut s, now.0, now.1).is_sooner_than(before)
        };
        let (none, at) = (None, Some(u32::MAX));
        assert!(sooner((at, none), (none, none)) && sooner((none, at), (at, none)));
        assert!(sooner((at, none), (Some(5), none)), "across the end of the clock");
        assert!(!sooner((Some(5), none), (at, none)));
        assert!(!sooner((at, at), (at, at)) && !sooner((none, none), (at, at)));
    }

    /// RFC 9293 SHLD-17, MUST-35: with its window closed, a peer that has said something within two of the longest timeouts is alive.
    #[test]
    fn a_peer_that_closes_its_window_is_waited_for_while_it_answers() {
        let given_up = |window, silent_ms, flags| {
            let (mut s, mut pools) = (flow(), pools());
            let mut out = Output::default();
            let now = Now(1_000_000_000);
            (s.tx.snd_max, s.tx.snd_wnd, s.tx.backoff, s.rx.flags) = (s.snd_una().add(1000).0, window, RETRIES_MAX, flags);
            s.rx.last_rx_ms = now.ms32() - silent_ms;
            retransmit(&mut s, &mut pools, now, &mut out);
            out.closed.is_some()
        };
        assert!(!given_up(0, 0, 0) && !given_up(0, 2 * RTO_MAX_MS - 1, 0) && given_up(0, 2 * RTO_MAX_MS, 0));
        assert!(given_up(1, 0, 0), "it has room, and does not take what is sent");
        assert!(given_up(0, 0, ff::ORPHAN), "nobody holds the socket");
    }

    /// RFC 9293 MUST-26.
    #[test]
    fn a_keep_alive_is_for_two_hours_of_silence() {
        const IDLE_MS: u32 = 7_200_000;
        let probed = |silent_ms: u32| {
            let (mut s, mut out) = (flow(), Output::default());
            s.tx.probes = 1;
            keep_alive(&mut s, &pools(), Now(u64::from(silent_ms) * 1000), &mut out);
            (s.has(ff::PROBE), s.tx.probes)
        };
        assert_eq!((probed(IDLE_MS - 1), probed(IDLE_MS)), ((false, 0), (true, 2)));
    }

    /// As in Linux.
    #[test]
    fn a_user_timeout_ends_keep_alive_once_a_probe_went_unanswered() {
        let given_up = |probes, silent_ms: u32| {
            let (mut s, mut pools, mut out) = (flow(), pools(), Output::default());
            pools.set_timers(&mut s, Patience::of(&FlowOptions { user_timeout_ms: 9_000_000, ..FlowOptions::default() }));
            s.tx.probes = probes;
            keep_alive(&mut s, &pools, Now(u64::from(silent_ms) * 1000), &mut out);
            out.closed.is_some()
        };
        assert!(!given_up(0, 9_000_000) && !given_up(1, 8_999_999) && given_up(1, 9_000_000));
        assert!(!given_up(100, 8_999_999), "in the place of a number of probes");
    }

    #[test]
    fn a_timer_that_comes_early_does_nothing() {
        let (mut s, mut pools) = (flow(), pools());
        let early = |s: &mut FlowState, pools: &mut Pools| {
            let before = s.rx.flags;
            for ms in [0, 99] {
                expire(s, pools, Now(ms * 1000), &mut Output::default());
                assert_eq!(s.rx.flags, before);
            }
            expire(s, pools, Now(100_000), &mut Output::default());
            s.rx.flags != before
        };
        assert!(!early(&mut s, &mut pools), "none runs");
        (s.tx.timer, s.tx.timer_ms) = (timer::CORK, 100);
        assert!(early(&mut s, &mut pools));
        s.set(ff::DELACK_ARMED);
        s.rx.delack_ms = 100;
        assert!(early(&mut s, &mut pools));
    }
}
