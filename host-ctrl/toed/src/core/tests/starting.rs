//! Programs that come when all regions are in use.

use super::world::*;
use crate::core::{ClientId, Incoming, Proof};
use rustix::io::Errno;
use std::collections::BTreeMap;
use toe_abi::{
    RegionId,
    control::{kind, status},
    region::slot_flags,
};

/// A program that says HELLO and is not answered: an answer of the card is missing.
fn waits(w: &mut World) -> ClientId {
    let client = w.a.connect_client();
    w.a.core.request(&Incoming { client, request: &hello(), proof: None }, w.now);
    assert!(w.a.core.busy(client) && w.a.core.host().replies.is_empty());
    client
}

/// Who has been answered, and the errors.
fn answers(w: &mut World) -> BTreeMap<ClientId, u32> {
    w.run();
    w.a.core.host().replies.drain(..).map(|(client, reply, _)| (client, reply.errno)).collect()
}

/// Three of four regions are in use, the last by a program that has ended and whose peer does not close.
fn all_but_an_orphans() -> World {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    w.a.card.peers_hang = true;
    for _ in 0..3 {
        w.start(Side::A);
    }
    w.a.write_slot(client.region, from, |s| s.tx.slot_flags = slot_flags::CLEAN);
    w.kill(client);
    w
}

#[test]
fn who_waits_for_a_region_gets_it_in_turn_and_the_others_are_refused() {
    let mut w = all_but_an_orphans();
    let (first, second) = (waits(&mut w), waits(&mut w));
    assert_eq!(answers(&mut w), BTreeMap::from([(first, 0), (second, errno(Errno::USERS))]));
    assert!(!w.a.core.busy(first) && !w.a.core.busy(second));
    // Refused is not for ever.
    w.a.core.client_gone(first, w.now);
    w.run();
    w.ask(Side::A, second, hello(), None).ok();
}

#[test]
fn who_dies_waiting_for_a_region_leaves_it_to_the_next() {
    let mut w = all_but_an_orphans();
    let (first, second) = (waits(&mut w), waits(&mut w));
    w.a.core.client_gone(first, w.now);
    assert_eq!(answers(&mut w), BTreeMap::from([(second, 0)]));
    w.a.core.client_gone(second, w.now);
    w.run();
    assert_eq!(w.a.core.status().applications.len(), 3, "and nobody has the region");
}

/// All regions are in use, one of them by a program that has ended and whose context the card does not close. It.
fn all_and_a_mute_card() -> (World, App) {
    let mut w = World::new();
    let apps = [(); 4].map(|()| w.start(Side::A));
    w.a.card.mute = true;
    w.kill(apps[0]);
    (w, apps[0])
}

#[test]
fn a_region_is_waited_for_as_long_as_the_card_needs() {
    let (mut w, _) = all_and_a_mute_card();
    let late = waits(&mut w);
    w.pass(SEC);
    assert_eq!(answers(&mut w), BTreeMap::from([]));
    w.a.card.mute = false;
    assert_eq!(answers(&mut w), BTreeMap::from([(late, 0)]));
}

#[test]
fn who_waits_for_a_region_hears_that_its_owner_has_come_back() {
    let (mut w, owner) = all_and_a_mute_card();
    let (late, child) = (waits(&mut w), w.a.connect_client());
    let proof = Some(Proof::Region(RegionId(owner.region)));
    w.a.core.request(&Incoming { client: child, request: &hello(), proof }, w.now);
    assert_eq!(answers(&mut w), BTreeMap::from([(late, errno(Errno::USERS)), (child, 0)]));
}

#[test]
fn who_waits_for_a_region_hears_that_card_or_toed_end() {
    for orderly in [false, true] {
        let mut w = all_but_an_orphans();
        let late = waits(&mut w);
        if orderly {
            w.a.core.shutdown(w.now)
        } else {
            w.a.core.card_failed()
        }
        assert_eq!(answers(&mut w), BTreeMap::from([(late, errno(Errno::SHUTDOWN))]));
    }
}

#[test]
fn a_region_that_the_card_refuses_leaves_nobody_waiting() {
    let mut w = all_but_an_orphans();
    let (first, second) = (waits(&mut w), waits(&mut w));
    w.a.card.refuse.insert(kind::MAP_REGION, status::INVALID);
    assert_eq!(answers(&mut w), BTreeMap::from([(first, errno(Errno::NOMEM)), (second, errno(Errno::USERS))]));
    w.a.card.refuse.clear();
    w.ask(Side::A, first, hello(), None).ok();
}
