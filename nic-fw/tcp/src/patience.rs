//! How patient connections are whose sockets say so: TCP_USER_TIMEOUT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT.
//!
//! ```text
//!   flow ── cc.timers ──► sets[n - 1]: (application, times, flows that have it)        0: as everybody
//! ```
//!
//! Applications use few different times for many connections, so a flow has a byte that says which. Each application has sets of its own, and
//! not all of them: it cannot use up those of others.

use alloc::boxed::Box;
use alloc::vec;
use toe_abi::RegionId;
use toe_abi::flow::FlowOptions;

/// Sets of a flow group: as many as a byte can tell.
const SETS: usize = 255;
/// Of these, at most for one application.
const SETS_OF_ONE: usize = 64;
/// As in Linux: MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL (seconds), MAX_TCP_KEEPCNT, and an int of milliseconds.
const SECONDS_MAX: u16 = 32_767;
const PROBES_MAX: u8 = 127;
const MS_MAX: u32 = i32::MAX as u32;

/// The times of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Patience {
    /// 0: as many retransmissions or probes as everybody makes.
    pub user_timeout_ms: u32,
    keep_idle_s: u16,
    keep_interval_s: u16,
    /// Keep-alive probes without an answer.
    pub keep_count: u8,
}

/// Linux's tcp_keepalive_time, _intvl and _probes (RFC 9293, 3.8.4: at least two hours).
/// RFC 9293 MUST-28, MUST-29.
const EVERYBODY: Patience = Patience { user_timeout_ms: 0, keep_idle_s: 7200, keep_interval_s: 75, keep_count: 9 };

impl Patience {
    /// RFC 9293 MUST-21, MUST-27.
    pub fn of(options: &FlowOptions) -> Self {
        let or = |asked: u16, everybody: u16| if asked == 0 { everybody } else { asked.min(SECONDS_MAX) };
        Self {
            user_timeout_ms: options.user_timeout_ms.min(MS_MAX),
            keep_idle_s: or(options.keep_idle_s, EVERYBODY.keep_idle_s),
            keep_interval_s: or(options.keep_interval_s, EVERYBODY.keep_interval_s),
            keep_count: if options.keep_count == 0 { EVERYBODY.keep_count } else { options.keep_count.min(PROBES_MAX) },
        }
    }

    pub fn keep_idle_ms(&self) -> u32 {
        u32::from(self.keep_idle_s) * 1000
    }

    pub fn keep_interval_ms(&self) -> u32 {
        u32::from(self.keep_interval_s) * 1000
    }
}

#[derive(Clone, Copy, Debug)]
struct Set {
    region: RegionId,
    patience: Patience,
    /// 0: the set is free.
    flows: u32,
}

/// The sets of one flow group.
#[derive(Debug)]
pub(crate) struct Sets(Box<[Set]>);

impl Sets {
    pub fn new() -> Self {
        Self(vec![Set { region: RegionId::NONE, patience: EVERYBODY, flows: 0 }; SETS].into_boxed_slice())
    }

    fn set(&mut self, number: u8) -> Option<&mut Set> {
        self.0.get_mut(usize::from(number.checked_sub(1)?))
    }

    /// The times of a flow, by its byte.
    pub fn get(&self, number: u8) -> Patience {
        let set = number.checked_sub(1).and_then(|at| self.0.get(usize::from(at)));
        set.map_or(EVERYBODY, |set| set.patience)
    }

    /// The number of a set with these times in place of `old`, for a flow of this application. `None`: there is no room for it, and the flow
    /// keeps what it has.
    pub fn change(&mut self, old: u8, region: RegionId, patience: Patience) -> Option<u8> {
        let new = if patience == EVERYBODY { 0 } else { self.take(old, region, patience)? };
        self.give_back(old);
        Some(new)
    }

    fn take(&mut self, old: u8, region: RegionId, patience: Patience) -> Option<u8> {
        let mut own = 0;
        let mut free = None;
        for (number, set) in (1..=u8::MAX).zip(self.0.iter_mut()) {
            if set.flows == 0 {
                free = free.or(Some(number));
            } else if set.region == region {
                if set.patience == patience {
                    set.flows += 1;
                    return Some(number);
                }
                own += 1;
            }
        }
        // One that is given back in a moment can be had now.
        let last = self.set(old).is_some_and(|set| set.flows == 1);
        let number = if last { old } else { free.filter(|_| own < SETS_OF_ONE)? };
        let set = self.set(number)?;
        *set = Set { region, patience, flows: u32::from(last) + 1 };
        Some(number)
    }

    /// A flow lets go of a set.
    pub fn give_back(&mut self, number: u8) {
        if let Some(set) = self.set(number) {
            set.flows = set.flows.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const ONE: RegionId = RegionId(1);
    const OTHER: RegionId = RegionId(2);

    fn idle(seconds: u16) -> Patience {
        Patience::of(&FlowOptions { keep_idle_s: seconds, ..FlowOptions::default() })
    }

    fn in_use(sets: &Sets) -> usize {
        sets.0.iter().filter(|set| set.flows > 0).count()
    }

    #[test]
    fn equal_times_of_an_application_are_one_set() {
        let mut sets = Sets::new();
        let a = sets.change(0, ONE, idle(5)).unwrap();
        assert_eq!((sets.change(0, ONE, idle(5)), in_use(&sets)), (Some(a), 1));
        assert_ne!(sets.change(0, OTHER, idle(5)), Some(a), "another application's are its own");
        sets.give_back(a);
        assert_eq!(sets.get(a), idle(5), "one flow has it still");
        sets.give_back(a);
        assert_eq!(in_use(&sets), 1);
    }

    #[test]
    fn the_usual_times_need_no_set() {
        let mut sets = Sets::new();
        assert_eq!(sets.change(0, ONE, Patience::of(&FlowOptions::default())), Some(0));
        let number = sets.change(0, ONE, idle(5)).unwrap();
        assert_eq!((sets.change(number, ONE, idle(7200)), in_use(&sets)), (Some(0), 0));
        assert_eq!(sets.get(0), EVERYBODY);
    }

    #[test]
    fn an_application_cannot_use_up_the_sets_of_others() {
        let mut sets = Sets::new();
        let got: Vec<_> = (1..100).filter_map(|s| sets.change(0, ONE, idle(s))).collect();
        assert_eq!(got.len(), SETS_OF_ONE);
        assert!(sets.change(0, OTHER, idle(1)).is_some());
        let last = *got.last().unwrap();
        assert_eq!(sets.change(last, ONE, idle(200)), Some(last), "in the place of the one that it gives back");
        assert_eq!(sets.get(last), idle(200));
    }

    #[test]
    fn when_all_are_taken_a_flow_keeps_what_it_has() {
        let mut sets = Sets::new();
        let number = sets.change(0, ONE, idle(5)).unwrap();
        assert_eq!(sets.change(0, ONE, idle(5)), Some(number));
        for region in 2..10 {
            (0..SETS_OF_ONE as u16).for_each(|s| _ = sets.change(0, RegionId(region), idle(s + 1)));
        }
        assert_eq!((in_use(&sets), sets.change(number, ONE, idle(6))), (SETS, None));
        assert_eq!(sets.get(number), idle(5));
    }

    /// RFC 9293 MUST-27.
    #[test]
    fn times_out_of_range_are_cut() {
        let most = FlowOptions {
            user_timeout_ms: u32::MAX,
            keep_idle_s: u16::MAX,
            keep_interval_s: u16::MAX,
            keep_count: 255,
            ..Default::default()
        };
        let cut = Patience::of(&most);
        assert_eq!((cut.user_timeout_ms, cut.keep_count), (i32::MAX as u32, 127));
        assert_eq!((cut.keep_idle_ms(), cut.keep_interval_ms()), (32_767_000, 32_767_000));
    }

    #[test]
    fn numbers_that_mean_nothing_are_as_everybody() {
        let mut sets = Sets::new();
        for number in [0, 1, 255] {
            sets.give_back(number);
            assert_eq!(sets.get(number), EVERYBODY);
        }
        assert_eq!(in_use(&sets), 0);
    }
}
