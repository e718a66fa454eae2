//! How patient connections are whose sockets say so: TCP_USER_TIMEOUT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT.
//!
//! ```text
//!   flow ── region, cc.timers ──► sets[region][n - 1]: (times, flows that have it)        0: as everybody
//! ```
//!
//! Applications use few different times for many connections, so a flow has a byte that says which. Each application has sets of its own: it
//! cannot use up those of others.

use alloc::boxed::Box;
use alloc::vec;
use toe_abi::RegionId;
use toe_abi::flow::FlowOptions;

/// Sets of an application: as many as a byte can tell, if there are not too many applications.
const SETS_OF_ONE: usize = 255;
const SETS_OF_ONE_LEAST: usize = 16;
/// Sets of all applications together, about: 256 KiB.
const SETS_OF_ALL: usize = 1 << 14;
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
    patience: Patience,
    /// 0: the set is free.
    flows: u32,
}

/// The sets of one flow group.
#[derive(Debug)]
pub(crate) struct Sets {
    all: Box<[Set]>,
    of_one: usize,
}

impl Sets {
    /// For applications with regions below `regions`.
    pub fn new(regions: u16) -> Self {
        let regions = usize::from(regions.max(1));
        let of_one = (SETS_OF_ALL / regions).clamp(SETS_OF_ONE_LEAST, SETS_OF_ONE);
        Self { all: vec![Set { patience: EVERYBODY, flows: 0 }; regions * of_one].into_boxed_slice(), of_one }
    }

    fn of(&mut self, region: RegionId) -> &mut [Set] {
        let first = usize::from(region.0) * self.of_one;
        self.all.get_mut(first..first + self.of_one).unwrap_or_default()
    }

    fn place(&self, region: RegionId, number: u8) -> Option<usize> {
        let at = usize::from(number.checked_sub(1)?);
        (at < self.of_one).then_some(usize::from(region.0) * self.of_one + at)
    }

    /// The times of a flow, by its byte.
    pub fn get(&self, region: RegionId, number: u8) -> Patience {
        let set = self.place(region, number).and_then(|at| self.all.get(at));
        set.map_or(EVERYBODY, |set| set.patience)
    }

    /// The number of a set with these times in place of `old`, for a flow of this application. `None`: there is no room for it, and the flow
    /// keeps what it has.
    pub fn change(&mut self, old: u8, region: RegionId, patience: Patience) -> Option<u8> {
        let new = if patience == EVERYBODY { 0 } else { self.take(old, region, patience)? };
        self.give_back(region, old);
        Some(new)
    }

    fn take(&mut self, old: u8, region: RegionId, patience: Patience) -> Option<u8> {
        let mut free = None;
        for (number, set) in (1..=u8::MAX).zip(self.of(region)) {
            if set.flows == 0 {
                free = free.or(Some(number));
            } else if set.patience == patience {
                set.flows += 1;
                return Some(number);
            }
        }
        // One that is given back in a moment can be had now.
        let last = self.set(region, old).is_some_and(|set| set.flows == 1);
        let number = if last { old } else { free? };
        *self.set(region, number)? = Set { patience, flows: u32::from(last) + 1 };
        Some(number)
    }

    fn set(&mut self, region: RegionId, number: u8) -> Option<&mut Set> {
        let at = self.place(region, number)?;
        self.all.get_mut(at)
    }

    /// A flow lets go of a set.
    pub fn give_back(&mut self, region: RegionId, number: u8) {
        if let Some(set) = self.set(region, number) {
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

    fn sets() -> Sets {
        Sets::new(4)
    }

    fn in_use(sets: &Sets) -> usize {
        sets.all.iter().filter(|set| set.flows > 0).count()
    }

    #[test]
    fn equal_times_of_an_application_are_one_set() {
        let mut sets = sets();
        let a = sets.change(0, ONE, idle(5)).unwrap();
        assert_eq!((sets.change(0, ONE, idle(5)), in_use(&sets)), (Some(a), 1));
        assert!(sets.change(0, OTHER, idle(5)).is_some());
        assert_eq!(in_use(&sets), 2, "another application's are its own");
        sets.give_back(ONE, a);
        assert_eq!(sets.get(ONE, a), idle(5), "one flow has it still");
        sets.give_back(ONE, a);
        assert_eq!(in_use(&sets), 1);
    }

    #[test]
    fn the_usual_times_need_no_set() {
        let mut sets = sets();
        assert_eq!(sets.change(0, ONE, Patience::of(&FlowOptions::default())), Some(0));
        let number = sets.change(0, ONE, idle(5)).unwrap();
        assert_eq!((sets.change(number, ONE, idle(7200)), in_use(&sets)), (Some(0), 0));
        assert_eq!(sets.get(ONE, 0), EVERYBODY);
    }

    #[test]
    fn an_application_cannot_use_up_the_sets_of_others() {
        let mut sets = sets();
        let got: Vec<_> = (1..400).filter_map(|s| sets.change(0, ONE, idle(s))).collect();
        assert_eq!(got.len(), SETS_OF_ONE);
        assert!(sets.change(0, OTHER, idle(1)).is_some());
        let last = *got.last().unwrap();
        assert_eq!(sets.change(last, ONE, idle(500)), Some(last), "in the place of the one that it gives back");
        assert_eq!((sets.get(ONE, last), sets.get(OTHER, 1)), (idle(500), idle(1)));
    }

    #[test]
    fn where_all_are_taken_a_flow_keeps_what_it_has() {
        let mut sets = sets();
        let number = sets.change(0, ONE, idle(5)).unwrap();
        assert_eq!(sets.change(0, ONE, idle(5)), Some(number), "two flows have it");
        (1..400).for_each(|s| _ = sets.change(0, ONE, idle(s)));
        assert_eq!((in_use(&sets), sets.change(number, ONE, idle(500))), (SETS_OF_ONE, None));
        assert_eq!(sets.get(ONE, number), idle(5));
    }

    #[test]
    fn many_applications_have_some_each() {
        let mut sets = Sets::new(4096);
        for region in [0, 1, 4095] {
            let got = (1..100).filter_map(|s| sets.change(0, RegionId(region), idle(s))).count();
            assert_eq!(got, SETS_OF_ONE_LEAST, "region {region}");
        }
        assert_eq!(sets.get(RegionId(0), SETS_OF_ONE_LEAST as u8 + 1), EVERYBODY, "what is behind them is another's");
        assert_eq!(sets.change(0, RegionId(4096), idle(1)), None);
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
        let mut sets = sets();
        for (region, number) in [(ONE, 0), (ONE, 1), (ONE, 255), (RegionId::NONE, 1)] {
            sets.give_back(region, number);
            assert_eq!(sets.get(region, number), EVERYBODY);
        }
        assert_eq!(in_use(&sets), 0);
    }
}
