//! What operators see of the pipeline: paging, cards that do not tell, cards that go.

use super::world::*;
use crate::core::Report;
use toe_abi::{
    control::{kind, status},
    observe::{NO_CPU, StageRecord, stage, stage_flags},
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
