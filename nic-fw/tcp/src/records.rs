//! What was sent when: a list of records for each flow, without gaps, up to snd_max.
//!
//! ```text
//!     snd_una                                     snd_max
//!        ▼                                           ▼
//!        [ sent 4.1 ms ][ lost ][ SACKed ][ 4.2 ms ][ 4.4 ms ]
//! ```
//!
//! It is the scoreboard of RFC 6675 and has the transmission times of RFC 8985. A record stands for what was sent at one time, however many
//! segments that is. When no record is free, the last one stands for later data too; a list that can't be kept is given up as a whole, and
//! begins anew with new data. Until all before that is acknowledged the flow is without a scoreboard ([`is_complete`]).

use crate::pool::{Handle, NONE, Pools};
use crate::sack::Range;
use crate::state::View;
use crate::{Now, cc, rtt};
use toe_abi::flow::{FlowState, flow_flags as ff};
use toe_wire::SeqNum;

/// Bytes that were sent at one time, or received beyond a hole: sequence numbers [start, end).
/// RFC 6675 4-1; RFC 8985 4-1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Record {
    pub(crate) start: SeqNum,
    pub(crate) end: SeqNum,
    /// When they were last sent, or came: microseconds mod 2^32.
    /// RFC 8985 4-2.
    pub(crate) us: u32,
    /// [`mark`].
    pub(crate) marks: u8,
}

/// Marks of a [`Record`]. One that is neither SACKED nor LOST is in flight.
pub(crate) mod mark {
    /// The peer has it (RFC 2018).
    pub(crate) const SACKED: u8 = 1;
    /// Lost, and not sent again since.
    pub(crate) const LOST: u8 = 1 << 1;
    /// Sent more than once.
    pub(crate) const AGAIN: u8 = 1 << 2;
    /// Its acknowledgement gives the next RTT sample.
    pub(crate) const TIMED: u8 = 1 << 3;
    /// For want of records it stands for what was sent at several times, and has the last of them: its arrival measures nothing.
    pub(crate) const MIXED: u8 = 1 << 4;
}

impl Record {
    pub(crate) fn len(&self) -> u32 {
        self.end.since(self.start)
    }

    pub(crate) fn has(&self, marks: u8) -> bool {
        self.marks & marks != 0
    }

    /// Whether one record can stand for both: what is SACKED or LOST has no time of interest.
    pub(crate) fn is_like(&self, next: &Self) -> bool {
        self.marks == next.marks && (self.us == next.us || self.has(mark::SACKED | mark::LOST))
    }
}

/// Whether a time is later than another. They are less than 2^31 us apart: what is in flight for longer has timed out and is LOST.
pub(crate) fn is_later(us: u32, than_us: u32) -> bool {
    us.wrapping_sub(than_us) as i32 > 0
}

/// Microseconds from a time until now; 0 if it lies ahead, as it may by some (see [`board::sent_again`](crate::board::sent_again)).
pub(crate) fn age(us: u32, now: Now) -> u32 {
    if is_later(us, now.us32()) { 0 } else { now.us32().wrapping_sub(us) }
}

/// Whether the list reaches back to snd_una.
pub(crate) fn is_complete(s: &FlowState, pools: &Pools) -> bool {
    let first = pools.records.first(s.cc.sent);
    first != NONE && pools.records.get(first).start.le(s.snd_una())
}

/// Data is sent within this part of a round trip of other data: one record stands for both. It bounds their number.
const SAME_TIME_PART: u32 = 16;
/// The same as a part of the age of the oldest record, where that is older than a round trip.
const SAME_TIME_AGE: u32 = 32;

/// [start, end) is being sent for the first time; it follows what was sent before. False: there was no record for it. `us`: the time.
/// `apart`: whatever the last record is, a new one.
/// RFC 8985 4-2.
pub(crate) fn sent(s: &mut FlowState, pools: &mut Pools, (start, end): Range, us: u32, apart: bool) -> bool {
    let last = s.cc.sent;
    if last != NONE && (!apart || pools.is_out_of_records()) {
        let slack = s.tx.srtt_us / SAME_TIME_PART;
        let oldest = pools.records.get(pools.records.first(last)).us;
        let is_out = pools.is_out_of_records();
        let tail = pools.records.get_mut(last);
        let since = us.wrapping_sub(tail.us);
        let is_plain = tail.marks == 0 && since <= slack || tail.marks == mark::TIMED && since == 0;
        let in_flight = !tail.has(mark::SACKED | mark::LOST);
        if !apart && (is_plain || in_flight && since <= us.wrapping_sub(oldest) / SAME_TIME_AGE) {
            tail.end = end;
            return true;
        }
        if in_flight && is_out {
            if tail.has(mark::TIMED) {
                s.clear(ff::RTT_PENDING);
            }
            *tail = Record { end, us, marks: tail.marks & !mark::TIMED | mark::MIXED, ..*tail };
            return true;
        }
    }
    // RFC 6298 3-3: not in recovery, where its acknowledgement waits for holes before it to be filled.
    let timed = !s.has(ff::RTT_PENDING | ff::RECOVERY | ff::LOSS) && s.tx.board == NONE;
    let marks = if timed { mark::TIMED } else { 0 };
    let pushed = pools.push(&mut s.cc.sent, Record { start, end, us, marks });
    if pushed && timed {
        s.set(ff::RTT_PENDING);
    }
    pushed
}

/// Everything up to `ack` has arrived, on a flow without a scoreboard: gives the round trip that this measures, microseconds.
pub(crate) fn acked(s: &mut FlowState, pools: &mut Pools, ack: SeqNum, now: Now) -> Option<u32> {
    let (mut sample, mut newest) = (None, None);
    while s.cc.sent != NONE {
        let first = pools.records.first(s.cc.sent);
        let record = pools.records.get_mut(first);
        if record.end.gt(ack) {
            record.start = record.start.max(ack);
            break;
        }
        if record.has(mark::TIMED) && s.has(ff::RTT_PENDING) {
            s.clear(ff::RTT_PENDING);
            sample = Some(age(record.us, now));
        }
        newest = (!record.has(mark::MIXED)).then_some(record.us);
        pools.records.remove(&mut s.cc.sent, NONE);
    }
    // Slow start looks at more than one round trip in a window.
    if let Some(us) = newest {
        cc::on_rtt(s, age(us, now));
    }
    if let Some(us) = sample {
        rtt::measured(s, us, now);
    }
    sample
}

/// Whether what comes next gives a measurement, if any does.
pub(crate) fn is_timed(s: &FlowState, pools: &Pools) -> bool {
    s.cc.sent != NONE && !pools.records.get(pools.records.first(s.cc.sent)).has(mark::MIXED)
}

/// Forgets what was sent when.
pub(crate) fn give_up(s: &mut FlowState, pools: &mut Pools) {
    pools.records.clear(&mut s.cc.sent);
    s.clear(ff::RTT_PENDING);
}

/// Cuts a record in two at `at`, which lies inside. Gives the second part; `None`: there is no record for it.
pub(crate) fn split(s: &mut FlowState, pools: &mut Pools, handle: Handle, at: SeqNum) -> Option<Handle> {
    let whole = *pools.records.get(handle);
    debug_assert!(whole.start.lt(at) && at.lt(whole.end), "{at:?} is not inside {whole:?}");
    let second = pools.insert(&mut s.cc.sent, handle, Record { start: at, ..whole })?;
    pools.records.get_mut(handle).end = at;
    Some(second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::flow;
    use crate::{HostUpdate, Input, emit, input};

    /// Sends `count` segments of a byte, one every `gap_us`; the round trip is 1600 us. Gives how many records there are.
    fn records_of(count: u32, gap_us: u64) -> usize {
        let (mut s, mut pools) = (flow(), Pools::new(1000, 4));
        (s.tx.srtt_us, s.cc.cwnd) = (1600, 1 << 20);
        for i in 0..count {
            let now = Now(1_000_000 + u64::from(i) * gap_us);
            let update = HostUpdate { tx_head: i + 1, rx_tail: 0, flags: toe_abi::desc::hc_flags::NODELAY, urgent: 0 };
            let _ = input(&mut s, &mut pools, &Input::Host(update), now);
            assert!(emit(&mut s, &mut pools, now, 1460).is_some_and(|sent| sent.len == 1));
        }
        pools.records.iter(s.cc.sent).count()
    }

    #[test]
    fn what_is_sent_within_a_sixteenth_of_a_round_trip_shares_a_record() {
        // The first is timed, and stands for itself.
        assert_eq!((records_of(4, 0), records_of(4, 30), records_of(4, 101)), (1, 2, 4));
    }

    #[test]
    fn a_trickle_that_nobody_acknowledges_takes_few_records() {
        let of = records_of(6000, 101);
        assert!((50..200).contains(&of), "{of}");
    }

    /// A segment more at this time; gives how many records there are.
    fn send_at(s: &mut FlowState, pools: &mut Pools, us: u32) -> usize {
        let (start, end) = (s.snd_max(), s.snd_max().add(1000));
        s.tx.snd_max = end.0;
        sent(s, pools, (start, end), us, false);
        pools.records.iter(s.cc.sent).count()
    }

    #[test]
    fn what_is_lost_or_has_arrived_stands_for_nothing_that_is_sent_now() {
        for marks in [mark::LOST, mark::SACKED] {
            let (mut s, mut pools) = (flow(), Pools::new(8, 4));
            assert_eq!(send_at(&mut s, &mut pools, 100), 1);
            pools.records.get_mut(s.cc.sent).marks = marks;
            assert_eq!(send_at(&mut s, &mut pools, 100), 2);
        }
    }

    /// RFC 6298 3-3.
    #[test]
    fn one_segment_at_a_time_is_timed_and_none_in_recovery() {
        let timed = |flags, records| {
            let (mut s, mut pools) = (flow(), Pools::new(records, 4));
            s.set(flags);
            let n = send_at(&mut s, &mut pools, 100);
            (n == 1 && pools.records.get(s.cc.sent).has(mark::TIMED), s.has(ff::RTT_PENDING))
        };
        assert_eq!(timed(0, 8), (true, true));
        assert_eq!(timed(ff::RTT_PENDING, 8), (false, true));
        assert_eq!((timed(ff::RECOVERY, 8), timed(ff::LOSS, 8)), ((false, false), (false, false)));
        assert_eq!(timed(0, 0), (false, false), "there is no record for it");
    }

    #[test]
    fn only_what_is_timed_gives_a_measurement() {
        let (mut s, mut pools) = (flow(), Pools::new(8, 4));
        s.set(ff::RTT_PENDING);
        send_at(&mut s, &mut pools, 100);
        s.clear(ff::RTT_PENDING);
        send_at(&mut s, &mut pools, 300);
        assert!(s.has(ff::RTT_PENDING));
        let (first, second) = (s.snd_una().add(1000), s.snd_una().add(2000));
        let mut forgotten = s;
        assert_eq!(acked(&mut s, &mut pools, first, Now(1000)), None);
        assert_eq!(acked(&mut s, &mut pools, second, Now(1000)), Some(700));
        // Part of what was sent then has been sent again.
        let mut pools = Pools::new(8, 4);
        (forgotten.cc.sent, forgotten.tx.snd_max) = (NONE, forgotten.tx.snd_una);
        forgotten.clear(ff::RTT_PENDING);
        send_at(&mut forgotten, &mut pools, 300);
        forgotten.clear(ff::RTT_PENDING);
        assert_eq!(acked(&mut forgotten, &mut pools, first, Now(1000)), None);
    }
}
