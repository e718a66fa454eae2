//! What is known of paths: the largest packets that get through to an address, for connections that are still to come
//! (RFC 1191, 6.3; RFC 8201, 5.2). What a flow has believed of an ICMP message is learnt here, not the message itself.

use crate::{Engine, addr::Ip, conn::Phase, isn::Keys, opening::ip_tcp_headers};
use std::collections::{BTreeMap, HashMap};
use toe_abi::{
    FlowId,
    flow::{FlowState, flow_flags},
};
use toe_wire::tcp::TIMESTAMPS_LEN;

/// How long it is believed. RFC 1191, 6.3, recommends ten minutes. RFC 1191 3-5, 3-6; RFC 8201 4-7.
const LIFETIME_US: u64 = 600_000_000;
/// Addresses that something is known of; the one of which nothing was heard for longest goes.
const MAX: usize = 4096;

struct Known {
    mtu: u16,
    /// Its place in `by_age`.
    age: (u64, u64),
}

pub struct PathMtus {
    by_ip: HashMap<Ip, Known, Keys>,
    /// By end of lifetime and a number.
    by_age: BTreeMap<(u64, u64), Ip>,
    serial: u64,
}

impl PathMtus {
    pub fn new(keys: Keys) -> Self {
        Self { by_ip: HashMap::with_hasher(keys), by_age: BTreeMap::new(), serial: 0 }
    }

    /// Bytes of IP packet; None: nothing is known.
    pub fn get(&self, ip: &Ip, now: u64) -> Option<u16> {
        self.by_ip.get(ip).filter(|known| known.age.0 > now).map(|known| known.mtu)
    }

    /// RFC 1191 6.3-2: per path, of which the destination stands for all.
    pub fn learn(&mut self, ip: Ip, mtu: u16, now: u64) {
        // Never more than is known (RFC 1191 3-9; RFC 8201 4-8), until that is forgotten.
        let mtu = self.get(&ip, now).map_or(mtu, |known| known.min(mtu));
        if let Some(old) = self.by_ip.remove(&ip) {
            self.by_age.remove(&old.age);
        }
        if self.by_ip.len() >= MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.by_ip.remove(&oldest);
        }
        self.serial += 1;
        let age = (now.saturating_add(LIFETIME_US), self.serial);
        self.by_age.insert(age, ip);
        self.by_ip.insert(ip, Known { mtu, age });
    }
}

impl Engine {
    /// Takes what a flow has found out since it began. No message of a stranger's counts that the flow has not believed (RFC 5927, 4.1).
    pub(crate) fn learn_path_mtu(&mut self, flow: FlowId, state: &FlowState) {
        let Some(conn) = self.conns.by_flow(flow).and_then(|id| self.conns.get_mut(id)) else { return };
        let Phase::Established(e) = &mut conn.phase else { return };
        if state.rx.mss >= e.mss {
            return;
        }
        e.mss = state.rx.mss;
        let timestamps = if state.rx.flags & flow_flags::TIMESTAMPS != 0 { TIMESTAMPS_LEN as u16 } else { 0 };
        let mtu = e.mss.saturating_add(timestamps + ip_tcp_headers(&conn.key));
        self.counters.path_mtus_learnt += 1;
        self.path_mtus.learn(conn.key.remote_ip, mtu, self.now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> Ip {
        (0xfd_u128 << 120 | u128::from(n)).to_be_bytes()
    }

    fn table() -> PathMtus {
        PathMtus::new(Keys::new([1; 16]))
    }

    #[test]
    fn what_is_known_does_not_grow_until_it_is_forgotten() {
        let mut t = table();
        t.learn(ip(1), 1300, 0);
        t.learn(ip(1), 1400, 1);
        assert_eq!((t.get(&ip(1), LIFETIME_US), t.get(&ip(2), 0)), (Some(1300), None));
        // RFC 1191 3-6: not before ten minutes after the last message.
        assert_eq!(t.get(&ip(1), LIFETIME_US + 1), None);
        t.learn(ip(1), 1400, LIFETIME_US + 1);
        assert_eq!(t.get(&ip(1), LIFETIME_US + 2), Some(1400));
    }

    #[test]
    fn the_one_learnt_longest_ago_makes_room() {
        let mut t = table();
        (0..MAX as u32).for_each(|n| t.learn(ip(n), 1300, n.into()));
        t.learn(ip(0), 1290, MAX as u64);
        t.learn(ip(u32::MAX), 1280, MAX as u64);
        assert_eq!((t.by_ip.len(), t.by_age.len()), (MAX, MAX));
        let now = MAX as u64;
        assert_eq!([0, 1, 2, u32::MAX].map(|n| t.get(&ip(n), now)), [Some(1290), None, Some(1300), Some(1280)]);
    }
}
