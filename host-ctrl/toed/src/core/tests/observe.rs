//! What operators see of the pipeline: paging, cards that do not tell, cards that go.

use super::world::*;
use crate::{
    admin::{Failure, VisitKind, Visits},
    core::Report,
};
use toe_abi::{
    control::{kind, status},
    observe::{NO_CPU, StageRecord, TraceRecord, stage, stage_flags, trace_kind},
};

fn stages(n: u16) -> Vec<StageRecord> {
    let record = |i| StageRecord { stage: stage::PRE, instance: i, core: i / 4, cpu: NO_CPU, items: i.into(), ..StageRecord::default() };
    (0..n).map(record).collect()
}

#[test]
fn stages_are_asked_for_until_all_are_there() {
    let mut w = World::new();
    for n in [0, 1, 6, 7, 8, 14, 40] {
        w.a.card.stages = Some(stages(n));
        let asked = w.a.card.count(kind::STAGES);
        let job = w.a.core.report_stages();
        w.run();
        let Some((id, Report::Stages(Some(rows)))) = w.a.core.poll_report() else { panic!("a report") };
        assert_eq!((id, rows.len()), (job, n.into()));
        assert!((0..).zip(&rows).all(|(i, r)| r.instance == i && r.items == u64::from(i)));
        assert_eq!(w.a.card.count(kind::STAGES) - asked, usize::from(n).div_ceil(7).max(1));
    }
}

#[test]
fn a_stage_keeps_what_the_card_said_of_it() {
    let mut w = World::new();
    let known = StageRecord {
        stage: stage::POST,
        instance: 2,
        core: 3,
        flags: stage_flags::ASLEEP,
        cpu: 5,
        queue: 7,
        queue_max: 256,
        credits: 8,
        credits_max: 9,
        items: 10,
        busy_ns: 11,
        clock_ns: 12,
        ..StageRecord::default()
    };
    w.a.card.stages = Some(vec![known, StageRecord { stage: 900, cpu: NO_CPU, ..known }]);
    w.a.core.report_stages();
    w.run();
    let Some((_, Report::Stages(Some(rows)))) = w.a.core.poll_report() else { panic!("a report") };
    let r = &rows[0];
    assert_eq!((r.stage.as_str(), r.instance, r.core, r.cpu, r.asleep), ("post", 2, 3, Some(5), true));
    assert_eq!((r.queue, r.queue_max, r.credits, r.credits_max), (7, 256, 8, 9));
    assert_eq!((r.items, r.busy_ns, r.clock_ns), (10, 11, 12));
    assert_eq!((rows[1].stage.as_str(), rows[1].cpu), ("stage900", None), "one that only a later card knows");
}

#[test]
fn a_card_that_does_not_tell_its_stages_is_said_so() {
    let mut w = World::new();
    w.a.core.report_stages();
    w.run();
    assert!(matches!(w.a.core.poll_report(), Some((_, Report::Stages(None)))));
    w.a.card.stages = Some(stages(9));
    w.a.card.refuse.insert(kind::STAGES, status::INVALID);
    w.a.core.report_stages();
    w.run();
    assert!(matches!(w.a.core.poll_report(), Some((_, Report::Stages(None)))));
}

#[test]
fn a_card_that_promises_endless_stages_is_asked_so_many_times_only() {
    let mut w = World::new();
    w.a.card.stages = Some(stages(5000));
    w.a.core.report_stages();
    w.run();
    let Some((_, Report::Stages(Some(rows)))) = w.a.core.poll_report() else { panic!("a report") };
    assert_eq!((rows.len(), w.a.card.count(kind::STAGES)), (1024, 1024_usize.div_ceil(7)));
}

#[test]
fn a_card_that_goes_in_the_middle_leaves_the_report_unfinished() {
    let mut w = World::new();
    w.a.card.stages = Some(stages(20));
    w.a.card.mute = true;
    w.a.core.report_stages();
    w.run();
    w.a.core.card_failed();
    assert_eq!(w.a.core.poll_report(), None);
}

/// The number of a trace that node A has started.
fn start_trace(w: &mut World) -> Result<u64, Failure> {
    w.a.core.trace_start(w.now)?;
    w.run();
    match w.a.core.poll_report() {
        Some((_, Report::Trace(t))) => Ok(t.trace),
        Some((_, Report::Failed(failure))) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn read_trace(w: &mut World, trace: u64) -> Result<Visits, Failure> {
    w.a.core.trace_read(trace, w.now)?;
    w.run();
    match w.a.core.poll_report() {
        Some((_, Report::Visits(visits))) => Ok(visits),
        Some((_, Report::Failed(failure))) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn stop_trace(w: &mut World, trace: u64) -> Result<(), Failure> {
    w.a.core.trace_stop(trace)?;
    w.run();
    match w.a.core.poll_report() {
        Some((_, Report::Done {})) => Ok(()),
        Some((_, Report::Failed(failure))) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn is_recording(w: &World) -> bool {
    w.a.card.trace.as_ref().is_some_and(|t| t.on)
}

/// Puts `n` records into the card.
fn record(w: &mut World, n: u32) {
    let records = (0..n).map(|number| TraceRecord { number, ..TraceRecord::default() });
    w.a.card.trace.get_or_insert_default().records.extend(records);
}

#[test]
fn a_trace_is_read_to_its_end_each_record_once() {
    let mut w = World::new();
    for n in [0, 1, 8, 9, 10, 27, 100] {
        record(&mut w, 0);
        let trace = start_trace(&mut w).expect("starts");
        assert!(is_recording(&w));
        record(&mut w, n);
        w.a.card.trace.as_mut().expect("traces").lost = 3;
        let asked = w.a.card.count(kind::TRACE);
        let part = read_trace(&mut w, trace).expect("is read");
        let numbers: Vec<u32> = part.visits.iter().filter_map(|v| v.number).collect();
        assert_eq!((numbers, part.lost), ((0..n).collect(), 3));
        assert_eq!(w.a.card.count(kind::TRACE) - asked, n as usize / 9 + 1);
        assert_eq!(read_trace(&mut w, trace).expect("is read").visits, []);
        stop_trace(&mut w, trace).expect("stops");
        assert!(!is_recording(&w));
    }
}

#[test]
fn a_long_trace_comes_in_parts() {
    let mut w = World::new();
    record(&mut w, 10_000);
    let trace = start_trace(&mut w).expect("starts");
    let mut lens = Vec::new();
    while let Ok(part) = read_trace(&mut w, trace)
        && !part.visits.is_empty()
    {
        lens.push(part.visits.len());
    }
    assert_eq!((lens.iter().sum(), lens.iter().all(|n| *n < 4200)), (10_000, true), "{lens:?}");
}

#[test]
fn a_second_tracer_waits_until_the_first_has_stopped_or_gone() {
    let mut w = World::new();
    record(&mut w, 0);
    let first = start_trace(&mut w).expect("starts");
    assert!(start_trace(&mut w).expect_err("busy").error.contains("somebody else traces"));
    // Reading keeps it.
    w.pass(9 * SEC);
    read_trace(&mut w, first).expect("is read");
    w.pass(9 * SEC);
    assert!(is_recording(&w));
    assert!(start_trace(&mut w).is_err());
    w.pass(2 * SEC);
    assert!(!is_recording(&w), "nobody has read it for more than 10 s");
    assert!(read_trace(&mut w, first).expect_err("ended").error.contains("is not on"));
    assert!(stop_trace(&mut w, first).is_err());
    let second = start_trace(&mut w).expect("starts");
    assert!(stop_trace(&mut w, first).is_err(), "not his any more");
    assert!(is_recording(&w));
    stop_trace(&mut w, second).expect("stops");
    assert!(!is_recording(&w));
    start_trace(&mut w).expect("starts");
}

#[test]
fn a_card_that_cannot_record_says_so_and_keeps_nobody_out() {
    let mut w = World::new();
    for _ in 0..2 {
        let failure = start_trace(&mut w).expect_err("cannot");
        assert_eq!(failure.error, "this card cannot record traces: it has no such function");
    }
    w.pass(20 * SEC);
    assert_eq!(w.a.card.count(kind::TRACE), 2, "nothing to stop");
}

#[test]
fn a_card_that_stops_to_answer_in_the_middle_is_an_error() {
    let mut w = World::new();
    record(&mut w, 5);
    let trace = start_trace(&mut w).expect("starts");
    w.a.card.refuse.insert(kind::TRACE, status::INVALID);
    assert!(read_trace(&mut w, trace).expect_err("refused").error.contains("status 1"));
    assert!(stop_trace(&mut w, trace).is_err());
    w.a.card.refuse.clear();
    start_trace(&mut w).expect("starts again");
}

#[test]
fn a_card_that_goes_in_the_middle_of_a_trace_leaves_no_answer() {
    let mut w = World::new();
    record(&mut w, 50);
    let trace = start_trace(&mut w).expect("starts");
    w.a.card.mute = true;
    w.a.core.trace_read(trace, w.now).expect("asked");
    w.run();
    w.a.core.card_failed();
    assert_eq!(w.a.core.poll_report(), None);
    w.a.card.mute = false;
    w.pass(20 * SEC);
    assert!(matches!(w.a.core.poll_report(), Some((_, Report::Visits(v))) if v.visits.len() == 50), "it was only slow");
}

#[test]
fn toed_leaves_no_trace_on_when_it_ends() {
    let mut w = World::new();
    record(&mut w, 0);
    start_trace(&mut w).expect("starts");
    w.a.core.shutdown(w.now);
    w.run();
    assert!(!is_recording(&w));
}

#[test]
fn what_a_record_does_not_know_is_absent() {
    let mut w = World::new();
    record(&mut w, 0);
    let trace = start_trace(&mut w).expect("starts");
    let base = TraceRecord { number: 5, out: 6, flow: u32::MAX, at_ns: 1, begin_ns: 2, ..TraceRecord::default() };
    let kinds = [trace_kind::RX, trace_kind::RX_OUT, trace_kind::HC_OUT, trace_kind::OUT, trace_kind::HC, trace_kind::EVENT, 200];
    let records = kinds.map(|kind| TraceRecord { kind, stage: kind, ..base });
    w.a.card.trace.as_mut().expect("traces").records.extend(records);
    let visits = read_trace(&mut w, trace).expect("is read").visits;
    let numbers: Vec<_> = visits.iter().map(|v| (v.number.is_some(), v.out.is_some())).collect();
    let (neither, both) = ((false, false), (true, true));
    assert_eq!(numbers, [(true, false), both, (false, true), (false, true), neither, (false, true), neither]);
    assert!(visits.iter().all(|v| v.flow.is_none() && v.port.is_none() && (v.begin_ns, v.end_ns) == (2, 1)));
    assert_eq!((visits[6].kind, visits[6].stage.as_str()), (VisitKind::Other, "stage200"));
}

#[test]
fn a_card_that_claims_more_than_a_message_holds_is_read_in_bounds() {
    let mut w = World::new();
    record(&mut w, 0);
    let trace = start_trace(&mut w).expect("starts");
    w.a.card.trace.as_mut().expect("traces").claims = Some(u64::MAX);
    let part = read_trace(&mut w, trace).expect("is read");
    assert!(part.visits.len() < 4200, "{}", part.visits.len());
}
