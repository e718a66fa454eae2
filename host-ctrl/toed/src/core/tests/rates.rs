//! Rates of flows: when the card is asked, what it is told, and what of cards that lie or cannot.

use super::world::*;
use crate::core::Report;
use toe_abi::{
    FlowId,
    app::{Request, op},
    control::{RATE_REPORTS_PER_MSG, RateReport, kind, status},
    flow::cc,
};

fn congestion(slot: u32, algorithm: u8) -> Request {
    Request { slot, args: [algorithm.into(), 0, 0, 0], ..req(op::CONGESTION) }
}

/// A connection from A to B by dctcp-rate at A, and its flow there.
fn controlled() -> (World, App, u32, FlowId) {
    let mut w = World::new();
    w.a.card.rates = Some(FakeRates { groups: 2, ..FakeRates::default() });
    let (client, _, from, _, _) = w.connected();
    let flow = w.a.slot(client.region, from).conn.flow;
    w.ask(Side::A, client.client, congestion(from, cc::DCTCP_RATE), None).ok();
    (w, client, from, flow)
}

fn rates(w: &mut World) -> &mut FakeRates {
    w.a.card.rates.as_mut().expect("it can")
}

/// The flow's peer has acknowledged so many bytes in all.
fn news(w: &mut World, flow: FlowId, acked: u32) {
    let rate_kbps = w.a.card.rate_of(flow);
    let report = RateReport { flow, acked, srtt_us: 500, rate_kbps, algorithm: cc::DCTCP_RATE, ..RateReport::default() };
    rates(w).news.push_back(report);
}

#[test]
fn a_flow_begins_with_a_rate_and_grows_while_it_uses_it() {
    let (mut w, _, _, flow) = controlled();
    assert_eq!(w.a.card.rate_of(flow), 10_000, "nothing is known of the path");
    news(&mut w, flow, 0);
    w.pass(1000);
    news(&mut w, flow, 1_000_000);
    w.pass(20_000);
    assert_eq!(w.a.card.rate_of(flow), 20_000);
}

#[test]
fn operators_see_the_rate_that_the_card_keeps() {
    let (mut w, client, from, _) = controlled();
    let shown = |w: &mut World| -> Vec<(String, u64)> {
        w.a.core.report_connections();
        w.run();
        let Some((_, Report::Connections(rows))) = w.a.core.poll_report() else { panic!("a report") };
        rows.into_iter().map(|r| (r.cc.unwrap_or_default(), r.rate_kbps)).collect()
    };
    assert_eq!(shown(&mut w), [("dctcp-rate".into(), 10_000)]);
    w.ask(Side::A, client.client, congestion(from, cc::CUBIC), None).ok();
    assert_eq!(shown(&mut w), [("cubic".into(), 0)]);
}

#[test]
fn the_rate_of_the_handshake_comes_with_install() {
    let mut w = World::new();
    w.a.card.rates = Some(FakeRates { groups: 1, ..FakeRates::default() });
    let (client, server) = (w.start(Side::A), w.start(Side::B));
    let (listener, slot) = (w.sockets(server, 1)[0], w.sockets(client, 1)[0]);
    w.listen(server, listener, 80, 4);
    w.ask(Side::A, client.client, congestion(slot, cc::CONST_RATE), None).ok();
    w.connect(client, slot, [10, 0, 0, 2], 80);
    assert_eq!(w.a.card.last(kind::INSTALL).1[1], 0, "unlimited, by default");
    let slot = w.sockets(client, 1)[0];
    w.ask(Side::A, client.client, congestion(slot, cc::TIMELY), None).ok();
    w.connect(client, slot, [10, 0, 0, 2], 80);
    assert_eq!(w.a.card.last(kind::INSTALL).1[1], 10_000);
}

#[test]
fn nobody_is_asked_without_such_flows_and_seldom_while_they_are_silent() {
    let (mut w, client, from, flow) = controlled();
    let asked = |w: &World| w.a.card.count(kind::RATES);
    w.pass(1_000_000);
    let before = asked(&w);
    w.pass(1_000_000);
    assert!((180..=220).contains(&(asked(&w) - before)), "two groups each 10 ms: {}", asked(&w) - before);
    w.ask(Side::A, client.client, congestion(from, cc::CUBIC), None).ok();
    assert_eq!(w.a.card.rate_of(flow), 0, "its window limits it");
    w.pass(20_000);
    let before = asked(&w);
    w.pass(1_000_000);
    assert_eq!(asked(&w), before);
}

#[test]
fn a_flow_that_ends_is_forgotten() {
    let (mut w, client, from, _) = controlled();
    w.close(client, from);
    w.pass(200 * SEC);
    let before = w.a.card.count(kind::RATES);
    w.pass(1_000_000);
    assert_eq!(w.a.card.count(kind::RATES), before);
}

#[test]
fn a_limit_of_the_application_holds_whatever_congestion_control_says() {
    let (mut w, client, from, flow) = controlled();
    let limit = |bytes: u64| Request { slot: from, args: [bytes, 0, 0, 0], ..req(op::RATE) };
    w.ask(Side::A, client.client, limit(1_000_000), None).ok();
    assert_eq!(w.a.card.rate_of(flow), 8000);
    news(&mut w, flow, 0);
    w.pass(1000);
    news(&mut w, flow, 1_000_000);
    w.pass(20_000);
    assert_eq!(w.a.card.rate_of(flow), 8000);
    w.ask(Side::A, client.client, limit(u64::MAX), None).ok();
    assert_eq!(w.a.card.rate_of(flow), 20_000, "what congestion control had found meanwhile");
    w.ask(Side::A, client.client, limit(1_000_000), None).ok();
    w.ask(Side::A, client.client, congestion(from, cc::CUBIC), None).ok();
    assert_eq!(w.a.card.rate_of(flow), 8000, "the limit stays");
}

#[test]
fn a_full_answer_is_followed_by_more_of_the_same_group() {
    let (mut w, _, _, flow) = controlled();
    w.pass(50_000);
    let before = w.a.card.count(kind::RATES);
    for _ in 0..RATE_REPORTS_PER_MSG * 200 {
        news(&mut w, flow, 0);
    }
    w.pass(50_000);
    let messages = w.a.card.count(kind::RATES) - before;
    assert!(rates(&mut w).news.is_empty() && (200..230).contains(&messages), "{messages}");
}

#[test]
fn reports_of_strangers_change_nothing() {
    let (mut w, _, _, flow) = controlled();
    let stranger = FlowId { index: flow.index, generation: flow.generation + 1 };
    for (flow, algorithm) in [(stranger, cc::DCTCP_RATE), (FlowId::NONE, cc::TIMELY), (flow, cc::CUBIC), (flow, 255)] {
        let report = RateReport { flow, algorithm, retransmits: 1, ..RateReport::default() };
        rates(&mut w).news.extend([report, RateReport { retransmits: 2, ..report }]);
    }
    w.pass(50_000);
    assert_eq!(w.a.card.rate_of(flow), 10_000);
    assert_eq!(rates(&mut w).orders, 0);
}

#[test]
fn counts_that_lie_do_no_harm() {
    let (mut w, _, _, flow) = controlled();
    rates(&mut w).claims = Some(u64::MAX);
    news(&mut w, flow, 0);
    w.pass(50_000);
    assert!(w.a.card.count(kind::RATES) < 1000, "as many messages as there may be, and no more");
    rates(&mut w).groups = u64::MAX;
    w.pass(50_000);
}

#[test]
fn a_card_that_cannot_is_asked_once() {
    let mut w = World::new();
    let (client, _, from, _, _) = w.connected();
    w.a.card.refuse.insert(kind::RATES, status::UNSUPPORTED);
    w.ask(Side::A, client.client, congestion(from, cc::DCTCP_RATE), None).ok();
    w.pass(1_000_000);
    assert_eq!(w.a.card.count(kind::RATES), 1);
}
