//! Shares of applications: who sets them, who cannot, and cards that have none.

use super::world::*;
use crate::{
    admin::{Failure, Share},
    core::{JobId, Proof, Report, ShareChange, Whose},
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use toe_abi::{
    RegionId,
    app::Request,
    control::{kind, status},
};

const RATE: ShareChange = ShareChange { weight: None, rate_kbps: Some(5000) };
const WEIGHT: ShareChange = ShareChange { weight: Some(300), rate_kbps: None };

/// A world whose card A has shares.
fn world() -> World {
    let mut w = World::new();
    w.a.card.shares = Some(BTreeMap::new());
    w
}

fn outcome(w: &mut World, job: Result<JobId, Failure>) -> Result<Report, String> {
    let job = job.map_err(|f| f.error)?;
    w.run();
    match w.a.core.poll_report().expect("a report") {
        (id, Report::Failed(f)) if id == job => Err(f.error),
        (id, report) if id == job => Ok(report),
        other => panic!("{other:?}"),
    }
}

fn limit(w: &mut World, whose: Whose, change: ShareChange) -> Result<Share, String> {
    let job = w.a.core.set_share(whose, change);
    match outcome(w, job)? {
        Report::Share(share) => Ok(share),
        other => panic!("{other:?}"),
    }
}

fn reserve(w: &mut World, ticket: u64, change: ShareChange) -> Result<(), String> {
    let job = w.a.core.reserve(ticket, change);
    outcome(w, job).map(|report| assert!(matches!(report, Report::Ticket(t) if t.ticket == ticket)))
}

fn with_ticket(ticket: u64) -> Request {
    let mut hello = hello();
    hello.args[3] = ticket;
    hello
}

fn shown(w: &World, region: u16) -> Option<Share> {
    w.a.core.status().applications.into_iter().find(|a| a.region == u32::from(region)).expect("listed").share
}

fn on_card(w: &World, region: u16) -> Option<(u64, u64)> {
    w.a.card.shares.as_ref().and_then(|s| s.get(&region.into())).copied()
}

#[test]
fn weight_and_rate_are_set_by_process_or_by_region_and_shown() {
    let mut w = world();
    let app = w.start(Side::A);
    assert_eq!((shown(&w, app.region), w.a.card.count(kind::SET_SHARE)), (Some(Share::default()), 0));
    let pid = Whose::Pid(1000 + app.client.0 as i32);
    assert_eq!(limit(&mut w, pid, RATE), Ok(Share { weight: 100, rate_kbps: 5000 }));
    let both = Share { weight: 300, rate_kbps: 5000 };
    assert_eq!(limit(&mut w, Whose::Region(app.region.into()), WEIGHT), Ok(both), "what is absent stays");
    assert_eq!((shown(&w, app.region), on_card(&w, app.region)), (Some(both), Some((300, 5000))));
    let none = ShareChange { rate_kbps: Some(0), ..ShareChange::default() };
    assert_eq!(limit(&mut w, pid, none), Ok(Share { weight: 300, rate_kbps: 0 }));
}

#[test]
fn nonsense_is_refused_before_the_card_hears_of_it() {
    let mut w = world();
    let app = w.start(Side::A);
    let region = Whose::Region(app.region.into());
    let weight = |n| ShareChange { weight: Some(n), rate_kbps: None };
    for (whose, change, word) in [
        (region, weight(0), "from 1 to 1000"),
        (region, weight(1001), "from 1 to 1000"),
        (region, ShareChange::default(), "neither"),
        (Whose::Region(0), RATE, "no application has region 0"),
        (Whose::Region(70_000), RATE, "no application has region 70000"),
        (Whose::Pid(1), RATE, "process 1 does not use the card"),
    ] {
        let error = limit(&mut w, whose, change).expect_err("refused");
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(w.a.card.count(kind::SET_SHARE), 0);
}

#[test]
fn a_card_without_shares_says_so_and_nothing_changes() {
    let mut w = World::new();
    let app = w.start(Side::A);
    let error = "this card cannot limit applications: it has no such function";
    assert_eq!(limit(&mut w, Whose::Region(app.region.into()), RATE), Err(error.into()));
    assert_eq!(shown(&w, app.region), Some(Share::default()));
    assert_eq!(reserve(&mut w, 7, RATE), Err(error.into()));
    let client = w.a.connect_client();
    w.ask(Side::A, client, with_ticket(7), None).fails(Errno::STALE);
}

#[test]
fn a_share_that_the_card_refuses_leaves_the_one_before() {
    let mut w = world();
    let app = w.start(Side::A);
    let region = Whose::Region(app.region.into());
    limit(&mut w, region, RATE).expect("set");
    w.a.card.refuse.insert(kind::SET_SHARE, status::INVALID);
    assert!(limit(&mut w, region, WEIGHT).expect_err("refused").contains("status 1"));
    assert_eq!(shown(&w, app.region), Some(Share { weight: 100, rate_kbps: 5000 }));
}

#[test]
fn the_default_holds_before_an_application_can_open_anything() {
    let mut w = world();
    w.a.core.config.share = Share { weight: 50, rate_kbps: 8000 };
    let app = w.start(Side::A);
    assert_eq!((shown(&w, app.region), on_card(&w, app.region)), (Some(Share { weight: 50, rate_kbps: 8000 }), Some((50, 8000))));
    let kinds: Vec<u32> = w.a.card.log.iter().map(|(kind, ..)| *kind).filter(|k| *k != kind::ADDRESS).collect();
    assert_eq!(kinds, [kind::MAP_REGION, kind::SET_SHARE, kind::OPEN_CONTEXT]);
    assert_eq!(limit(&mut w, Whose::Region(app.region.into()), WEIGHT), Ok(Share { weight: 300, rate_kbps: 8000 }));
}

#[test]
fn a_default_that_the_card_does_not_take_is_not_shown_as_if_it_held() {
    let mut w = World::new();
    w.a.core.config.share = Share { weight: 50, rate_kbps: 8000 };
    let app = w.start(Side::A);
    assert_eq!(shown(&w, app.region), None);
}

#[test]
fn a_ticket_brings_its_share_and_a_forged_one_nothing() {
    let mut w = world();
    w.a.core.config.share = Share { weight: 50, rate_kbps: 8000 };
    reserve(&mut w, 77, ShareChange { weight: Some(900), rate_kbps: Some(0) }).expect("reserved");
    let client = w.a.connect_client();
    w.ask(Side::A, client, with_ticket(78), None).fails(Errno::STALE);
    let region = w.ask(Side::A, client, with_ticket(77), None).ok().args[1] as u16;
    assert_eq!((shown(&w, region), on_card(&w, region)), (Some(Share { weight: 900, rate_kbps: 0 }), Some((900, 0))));
    // A relation's ticket does not count: the family has its share.
    let relation = w.a.connect_client();
    let proof = Some(Proof::Region(RegionId(region)));
    limit(&mut w, Whose::Region(region.into()), RATE).expect("set");
    w.ask(Side::A, relation, with_ticket(77), proof).ok();
    assert_eq!(shown(&w, region), Some(Share { weight: 900, rate_kbps: 5000 }));
}

#[test]
fn a_reservation_takes_what_it_does_not_say_from_the_default() {
    let mut w = world();
    w.a.core.config.share = Share { weight: 50, rate_kbps: 8000 };
    reserve(&mut w, 1, WEIGHT).expect("reserved");
    assert!(reserve(&mut w, 2, ShareChange { weight: Some(0), rate_kbps: None }).is_err());
    let client = w.a.connect_client();
    let region = w.ask(Side::A, client, with_ticket(1), None).ok().args[1] as u16;
    assert_eq!(shown(&w, region), Some(Share { weight: 300, rate_kbps: 8000 }));
}

#[test]
fn old_reservations_make_room_for_new_ones() {
    let mut w = world();
    for ticket in 1..=5000 {
        reserve(&mut w, ticket, RATE).expect("reserved");
    }
    let client = w.a.connect_client();
    w.ask(Side::A, client, with_ticket(1), None).fails(Errno::STALE);
    w.ask(Side::A, client, with_ticket(5000), None).ok();
}

#[test]
fn an_application_that_ends_in_the_middle_leaves_its_share_to_nobody() {
    let mut w = world();
    let app = w.start(Side::A);
    w.a.card.mute = true;
    w.a.core.set_share(Whose::Region(app.region.into()), RATE).expect("asked");
    w.kill(app);
    w.a.card.mute = false;
    w.pass(200 * SEC);
    assert!(w.a.core.poll_report().is_some());
    assert!(w.a.core.apps.is_empty());
    let next = w.start(Side::A);
    assert_eq!((next.region, shown(&w, next.region)), (app.region, Some(Share::default())));
}

#[test]
fn a_card_that_goes_in_the_middle_leaves_no_answer() {
    let mut w = world();
    let app = w.start(Side::A);
    w.a.card.mute = true;
    w.a.core.set_share(Whose::Region(app.region.into()), RATE).expect("asked");
    w.run();
    w.a.core.card_failed();
    assert_eq!(w.a.core.poll_report(), None);
}
