//! The TIME-WAIT table: what is left of a connection that we closed first (RFC 9293, 3.4.2).

use crate::{isn::Keys, limit::Answered};
use std::collections::{BTreeMap, HashMap};
use toe_abi::flow::{FlowKey, FlowState, flow_flags};
use toe_tcp::Now;
use toe_wire::SeqNum;

#[derive(Clone, Copy, Debug)]
pub struct TimeWait {
    pub snd_nxt: SeqNum,
    pub rcv_nxt: SeqNum,
    /// As it goes into the header.
    pub window: u16,
    /// Timestamps were in use: the peer's last, and our offset.
    pub timestamps: Option<(u32, u32)>,
    /// Since when nothing of the connection has been heard or said.
    pub since_us: u64,
    pub deadline: u64,
    pub answered: Answered,
    serial: u64,
}

/// As Linux (tcp_tw_reuse): the clock of timestamps has surely ticked since.
const REUSE_AFTER_US: u64 = 1_000_000;

impl TimeWait {
    /// `state` has times of a clock that shows `clock` at `now`, microseconds.
    pub fn of(state: &FlowState, clock: u64, now: u64) -> Self {
        let rcv_nxt = SeqNum(state.rx.rcv_nxt);
        let window = SeqNum(state.rx.rcv_adv).since_or_zero(rcv_nxt) >> state.rx.wscale.min(14);
        // Our timestamps go on from the flow's, whose clock is another one, and may tick slowly.
        let ts_offset = toe_tcp::ts_now(state, Now(clock)).wrapping_sub(Now(now).ms32());
        let negotiated = state.rx.flags & flow_flags::TIMESTAMPS != 0;
        Self {
            snd_nxt: SeqNum(state.tx.snd_max),
            rcv_nxt,
            window: u16::try_from(window).unwrap_or(u16::MAX),
            timestamps: negotiated.then_some((state.rx.ts_recent, ts_offset)),
            since_us: 0,
            deadline: 0,
            answered: Answered::default(),
            serial: 0,
        }
    }

    /// Whether a connection that we open may have the tuple: timestamps tell its segments from those of the last one (RFC 6191, 4), if the
    /// new one has them too.
    pub fn is_reusable(&self, now: u64) -> bool {
        self.timestamps.is_some() && now.saturating_sub(self.since_us) >= REUSE_AFTER_US
    }
}

pub struct TimeWaits {
    by_key: HashMap<FlowKey, TimeWait, Keys>,
    by_deadline: BTreeMap<(u64, u64), FlowKey>,
    serial: u64,
    max: usize,
}

impl TimeWaits {
    pub fn new(keys: Keys, max: usize) -> Self {
        Self { by_key: HashMap::with_hasher(keys), by_deadline: BTreeMap::new(), serial: 0, max }
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    pub fn get(&self, key: &FlowKey) -> Option<&TimeWait> {
        self.by_key.get(key)
    }

    pub fn get_mut(&mut self, key: &FlowKey) -> Option<&mut TimeWait> {
        self.by_key.get_mut(key)
    }

    pub fn contains(&self, key: &FlowKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// Adds an entry, or puts a new one in its place. Both times in microseconds.
    pub fn insert(&mut self, key: FlowKey, mut entry: TimeWait, now: u64, deadline: u64) {
        self.remove(&key);
        self.serial += 1;
        (entry.since_us, entry.deadline, entry.serial) = (now, deadline, self.serial);
        self.by_deadline.insert((deadline, self.serial), key);
        self.by_key.insert(key, entry);
    }

    pub fn remove(&mut self, key: &FlowKey) -> Option<TimeWait> {
        let entry = self.by_key.remove(key)?;
        self.by_deadline.remove(&(entry.deadline, entry.serial));
        Some(entry)
    }

    /// The entry that ends first.
    pub fn oldest(&self) -> Option<FlowKey> {
        self.by_deadline.first_key_value().map(|(_, key)| *key)
    }

    pub fn next_deadline(&self) -> Option<u64> {
        self.by_deadline.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> FlowKey {
        FlowKey { remote_port: port, ..FlowKey::default() }
    }

    fn entry() -> TimeWait {
        let answered = Answered::default();
        TimeWait { snd_nxt: SeqNum(1), rcv_nxt: SeqNum(2), window: 3, timestamps: None, since_us: 0, deadline: 0, answered, serial: 0 }
    }

    #[test]
    fn oldest_first_and_moved_when_renewed() {
        let mut t = TimeWaits::new(Keys::new([0; 16]), 2);
        t.insert(key(1), entry(), 0, 10);
        t.insert(key(2), entry(), 0, 10);
        assert!(t.is_full());
        assert_eq!(t.oldest(), Some(key(1)));
        t.insert(key(1), entry(), 0, 20);
        assert_eq!((t.len(), t.oldest(), t.next_deadline()), (2, Some(key(2)), Some(10)));
        t.remove(&key(2));
        assert_eq!(t.next_deadline(), Some(20));
        t.remove(&key(1));
        assert_eq!((t.len(), t.by_deadline.len(), t.next_deadline()), (0, 0, None));
    }
}
