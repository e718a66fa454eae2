//! Turns, paces and rates, one case each. What holds for any sequence is in `properties`.

use super::*;
use alloc::{vec, vec::Vec};

const QUANTUM: u32 = 1000;
const NOW: Instant = Instant(1_000_000);

fn sched() -> Sched {
    Sched::new(4, QUANTUM, Shares::new(2))
}

/// All turns at once, nobody sends.
fn turns(s: &mut Sched) -> Vec<u32> {
    core::iter::from_fn(|| s.next(NOW).inspect(|&i| s.idle(i))).collect()
}

/// Who sends the next `n` segments of `bytes`, each with more to come.
fn segments(s: &mut Sched, n: usize, bytes: u32) -> Vec<u32> {
    (0..n).map_while(|_| s.next(NOW).inspect(|&i| s.sent(i, bytes, false, NOW))).collect()
}

/// Who comes next if nobody comes now, and how many microseconds later.
fn waits(s: &mut Sched) -> Option<(u32, u64)> {
    assert_eq!((s.next(NOW), s.any_ready(NOW)), (None, false));
    loop {
        let due = s.next_due()?;
        if let Some(i) = s.next(due) {
            return Some((i, due.0 - NOW.0));
        }
    }
}

#[test]
fn turns_are_taken_in_order() {
    let mut s = sched();
    s.ready(2, false);
    s.ready(0, false);
    s.ready(2, false);
    assert_eq!(turns(&mut s), [2, 0]);
}

#[test]
fn acks_and_retransmissions_go_first() {
    let mut s = sched();
    s.ready(0, false);
    s.ready(1, false);
    s.ready(1, true);
    s.ready(1, false);
    assert_eq!(turns(&mut s), [1, 0]);
}

#[test]
fn a_turn_ends_with_its_quantum() {
    let mut s = sched();
    s.ready(0, false);
    s.ready(1, false);
    assert_eq!(segments(&mut s, 6, 500), [0, 0, 1, 1, 0, 0]);
}

#[test]
fn a_segment_without_payload_takes_its_share() {
    let mut s = sched();
    s.ready(0, false);
    s.ready(1, false);
    assert_eq!(segments(&mut s, 32, 0), [[0; 16], [1; 16]].concat());
}

/// Neither by a flow that pauses, nor by one whose pace ends its turns early.
#[test]
fn an_unused_turn_is_not_kept() {
    for pauses in [true, false] {
        let mut s = sched();
        s.set_rate(0, 8000, NOW);
        let mut now = NOW;
        for _ in 0..5 {
            // A byte takes a microsecond.
            now = now.add_micros(300);
            s.ready(0, false);
            while s.next(now) == Some(0) {
                s.sent(0, 400, false, now);
                if pauses {
                    s.idle(0);
                }
            }
        }
        s.set_rate(0, 0, now);
        s.ready(0, false);
        s.ready(1, false);
        let order = segments(&mut s, 16, 500);
        assert!(order.chunk_by(|a, b| a == b).all(|turn| turn.len() <= 2), "{order:?}");
    }
}

#[test]
fn what_went_beyond_the_quantum_is_missing_next_time() {
    let mut s = sched();
    s.ready(0, false);
    s.ready(1, false);
    assert_eq!(segments(&mut s, 7, 700), [0, 0, 1, 1, 0, 1, 0]);
}

#[test]
fn something_urgent_interrupts_a_turn() {
    let mut s = sched();
    s.ready(0, false);
    assert_eq!(s.next(NOW), Some(0));
    s.sent(0, 100, false, NOW);
    s.ready(1, true);
    assert_eq!(turns(&mut s), [1, 0]);
}

/// A flow that receives much owes ACKs all the time: its turn is not shorter for that.
#[test]
fn a_turn_goes_on_after_something_urgent_of_its_own() {
    let mut s = sched();
    s.ready(0, false);
    s.ready(1, false);
    assert_eq!(s.next(NOW), Some(0));
    s.ready(0, true);
    assert_eq!(segments(&mut s, 6, 200), [0, 0, 0, 0, 0, 1]);
}

#[test]
fn a_named_flow_is_named_until_it_answers() {
    let mut s = sched();
    for urgent in [false, true] {
        s.ready(0, urgent);
        assert_eq!((s.next(NOW), s.next(NOW), s.any_ready(NOW)), (Some(0), Some(0), true));
        s.idle(0);
        assert_eq!((s.next(NOW), s.any_ready(NOW)), (None, false));
    }
}

#[test]
fn a_flow_that_ended_takes_its_timer_and_turn_along() {
    let mut s = sched();
    s.ready(0, true);
    s.ready(1, false);
    s.timers.arm(0, 5);
    s.forget(0);
    assert_eq!((turns(&mut s), s.timers.next_tick()), (alloc::vec![1], None));
}

#[test]
fn applications_take_turns_by_weight() {
    let shares = Shares::new(2);
    shares.set(1, 300, 0);
    let mut s = Sched::new(4, QUANTUM, shares);
    for (i, app) in [(0, 0), (1, 0), (2, 0), (3, 1)] {
        s.assign(i, app);
        s.ready(i, false);
    }
    let order = segments(&mut s, 16, 500);
    let of = |i: u32| order.iter().filter(|&&j| j == i).count();
    assert_eq!((of(0) + of(1) + of(2), of(3)), (4, 12));
}

/// Its flow does not begin anew with each round.
#[test]
fn a_light_application_gives_each_flow_its_quantum() {
    let shares = Shares::new(2);
    shares.set(0, 10, 0);
    let mut s = Sched::new(3, QUANTUM, shares);
    for (i, app) in [(0, 0), (1, 0), (2, 1)] {
        s.assign(i, app);
        s.ready(i, false);
    }
    let light: Vec<u32> = segments(&mut s, 220, 100).into_iter().filter(|&i| i < 2).collect();
    assert_eq!(light, [[0; 10], [1; 10]].concat());
}

/// Coming back does not bring a share anew.
#[test]
fn an_application_that_pauses_keeps_to_its_round() {
    let mut s = sched();
    s.assign(1, 1);
    s.ready(1, false);
    let mut sent = [0, 0];
    for _ in 0..1000 {
        // Flow 0 has one segment at a time.
        s.ready(0, false);
        let i = s.next(NOW).expect("two are ready");
        sent[i as usize] += 1;
        s.sent(i, 100, false, NOW);
        s.idle(0);
    }
    assert!(sent[1] >= 490, "{sent:?}");
}

/// All that a flow has sent urgently while nobody else had anything counts as one turn of its own and of its application.
#[test]
fn an_urgent_debt_is_bounded() {
    let mut s = sched();
    for (i, app) in [(0, 0), (1, 0), (2, 1)] {
        s.assign(i, app);
    }
    s.ready(0, true);
    for last in [false; 100].into_iter().chain([true]) {
        assert_eq!(s.next(NOW), Some(0));
        s.sent(0, QUANTUM, !last, NOW);
    }
    s.ready(1, false);
    s.ready(2, false);
    let order = segments(&mut s, 400, QUANTUM / 10);
    let sent = |i: u32| order.iter().filter(|&&j| j == i).count();
    assert!(sent(2).abs_diff(200) <= 20 && sent(0).abs_diff(sent(1)) <= 20, "{} {} {}", sent(0), sent(1), sent(2));
}

#[test]
fn unknown_applications_share_a_place() {
    let mut s = sched();
    for (i, app) in [(0, 0), (1, 2), (2, u16::MAX)] {
        s.assign(i, app);
        s.ready(i, false);
    }
    assert_eq!(segments(&mut s, 4, QUANTUM), [0, 1, 0, 2]);
}

#[test]
fn a_paced_flow_waits_for_its_time() {
    let mut s = sched();
    s.set_rate(0, 8000, NOW);
    s.ready(0, false);
    s.ready(1, false);
    // A byte takes a microsecond; what it has not used makes a burst of a quantum.
    assert_eq!(segments(&mut s, 5, 800), [0, 0, 1, 1, 1]);
    s.forget(1);
    assert_eq!([0, 600].map(|us| s.frame_max(0, NOW.add_micros(us))), [0, 1000]);
    assert_eq!(waits(&mut s), Some((0, 608)));
}

#[test]
fn something_urgent_is_not_paced_but_charged() {
    let mut s = sched();
    s.set_rate(0, 8000, NOW);
    s.ready(0, true);
    for urgent in [true, true, false] {
        assert_eq!(s.next(NOW), Some(0));
        s.sent(0, 2000, urgent, NOW);
    }
    assert_eq!(waits(&mut s), Some((0, 5008)));
    s.sent(0, 1, false, NOW);
    s.ready(0, true);
    assert_eq!((s.next(NOW), s.next_due()), (Some(0), None));
}

#[test]
fn another_rate_changes_the_wait() {
    for (kbps, wait) in [(8000, 4000), (80_000, 400), (800, 40_000)] {
        let mut s = sched();
        s.set_rate(0, 8000, NOW);
        s.ready(0, false);
        assert_eq!(segments(&mut s, 9, 5000), [0]);
        s.set_rate(0, kbps, NOW);
        assert_eq!(waits(&mut s), Some((0, wait)));
        s.sent(0, 5000, false, NOW);
        s.set_rate(0, 0, NOW);
        assert_eq!((s.next_due(), s.next(NOW)), (None, Some(0)));
    }
}

/// In any order; and the rate that was set is what is told of it.
#[test]
fn of_a_rate_and_the_pace_of_a_window_the_lesser_counts() {
    for (rate, pace, least) in [(8000, 4000, 4000), (4000, 8000, 4000), (0, 8000, 8000), (8000, u32::MAX, 8000)] {
        let mut s = sched();
        s.set_rate(0, rate, NOW);
        s.set_pace(0, pace, NOW);
        assert_eq!((s.pace(0), s.rate(0)), (least, rate));
        s.ready(0, false);
        assert_eq!(segments(&mut s, 9, least / 8 * 5), [0], "five milliseconds");
        assert_eq!(waits(&mut s), Some((0, 4000)), "a millisecond's burst less");
    }
}

#[test]
fn a_frame_is_a_millisecond_of_the_pace_at_most() {
    let mut s = sched();
    assert_eq!(s.frame_max(0, NOW), u32::MAX);
    s.set_pace(0, 80_000, NOW);
    assert_eq!(s.frame_max(0, NOW), 10_000);
    s.set_pace(0, 1, NOW);
    assert_eq!(s.frame_max(0, NOW), 1, "or a segment, which is more");
}

#[test]
fn a_new_flow_inherits_nothing() {
    let mut s = sched();
    s.set_rate(0, 8, NOW);
    s.ready(0, false);
    assert_eq!(segments(&mut s, 9, 5000), [0]);
    s.assign(0, 1);
    assert_eq!(s.next_due(), None);
    s.ready(0, false);
    assert_eq!(s.next(NOW), Some(0));
}

#[test]
fn an_application_over_its_rate_is_set_aside() {
    let shares = Shares::new(2);
    shares.set(0, 100, 8000);
    let mut s = Sched::new(2, QUANTUM, shares);
    s.assign(1, 1);
    s.ready(0, false);
    assert_eq!(segments(&mut s, 9, 65_536), [0, 0]);
    assert_eq!([0, 1].map(|i| s.frame_max(i, NOW)), [0, u32::MAX]);
    assert!(!s.any_ready(NOW));
    s.ready(1, false);
    assert_eq!(s.next(NOW), Some(1));
    s.idle(1);
    assert_eq!(waits(&mut s), Some((0, 65_536)));
}

/// Each core's time is its own, whatever the other sends meanwhile; and a long wait is no shorter for being looked at.
#[test]
fn cores_wait_for_their_own_time() {
    let shares = Shares::new(1);
    shares.set(0, 100, 80);
    let mut cores = [(); 2].map(|()| Sched::new(1, QUANTUM, shares.clone()));
    cores[0].ready(0, false);
    assert_eq!(segments(&mut cores[0], 9, 65_536), [0, 0]);
    cores[1].ready(0, false);
    assert_eq!(segments(&mut cores[1], 9, 65_536), [0]);
    assert_eq!(cores.map(|mut core| waits(&mut core)), [Some((0, 6_553_600)), Some((0, 13_107_200))]);
}

/// Which nobody tells the scheduler.
#[test]
fn an_application_whose_limit_is_lifted_goes_on_soon() {
    let shares = Shares::new(1);
    shares.set(0, 100, 1);
    let mut s = Sched::new(1, QUANTUM, shares.clone());
    s.ready(0, false);
    assert_eq!(segments(&mut s, 9, 131_072), [0]);
    shares.set(0, 100, 0);
    assert!(waits(&mut s).is_some_and(|(_, us)| us <= 500_000));
}

/// After a long sleep, in a few calls.
#[test]
fn all_that_is_due_comes_back() {
    let mut s = Sched::new(1000, QUANTUM, Shares::new(1));
    for i in 0..1000 {
        s.set_rate(i, 8000, NOW);
        s.ready(i, false);
    }
    assert_eq!(segments(&mut s, 2000, 5000).len(), 1000);
    let late = NOW.add_micros(1_000_000);
    assert_eq!(s.next(late), Some(0));
    assert_eq!((0..1000).filter(|&i| s.flows[i].place != Place::Paced).count(), RELEASES);
    let mut seen: Vec<u32> = core::iter::from_fn(|| s.next(late).inspect(|&i| s.idle(i))).collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..1000) && !s.any_ready(late));
}

/// An application names its flows again and again, though nothing of theirs may go.
#[test]
fn flows_that_come_in_vain_do_not_keep_the_turn() {
    let mut s = sched();
    for (i, app) in [(0, 0), (1, 0), (2, 1)] {
        s.assign(i, app);
        s.ready(i, false);
    }
    let mut named = (0..100).map_while(|_| {
        s.next(NOW).inspect(|&i| {
            s.idle(i);
            s.ready(i, false);
        })
    });
    assert!(named.any(|i| i == 2));
}

#[test]
fn data_does_not_wait_for_ever_behind_what_is_urgent() {
    let mut s = sched();
    for (i, app) in [(0, 0), (1, 0), (2, 1)] {
        s.assign(i, app);
        s.ready(i, i != 2);
    }
    let n = URGENT_IN_A_ROW as usize;
    let order: Vec<u32> = (0..2 * (n + 1)).map_while(|_| s.next(NOW).inspect(|&i| s.sent(i, 0, i != 2, NOW))).collect();
    let (data, urgent): (Vec<usize>, Vec<usize>) = (0..order.len()).partition(|&at| order[at] == 2);
    assert_eq!((data, urgent.len()), (vec![n, 2 * n + 1], 2 * n), "{order:?}");
}

/// The flow whose turn it is has something urgent meanwhile: it is named for that, once.
#[test]
fn a_flow_with_a_turn_and_something_urgent_is_visited_first() {
    let mut s = sched();
    s.ready(0, false);
    assert_eq!(s.next(NOW), Some(0));
    for _ in 0..URGENT_IN_A_ROW {
        s.ready(1, true);
        assert_eq!(s.next(NOW), Some(1));
        s.idle(1);
    }
    s.ready(0, true);
    assert_eq!(turns(&mut s), [0]);
}
