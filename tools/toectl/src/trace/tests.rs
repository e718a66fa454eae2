//! Ways, pictures and trace events, of records that make sense and of others.

use toed::admin::{Visit, VisitKind, Visits};

use super::collector::Collector;
use super::ways::{Cause, Exchange, Way, assemble};
use super::{events, picture};

/// A visit on core `core` of `took` nanoseconds.
fn visit(stage: &str, core: u8, kind: VisitKind, begin_ns: u64, took: u64) -> Visit {
    Visit { stage: stage.into(), core, kind, begin_ns, end_ns: begin_ns + took, group: 1, ..Visit::default() }
}

/// What only protocol and those after it know.
fn known(v: Visit, out: u32) -> Visit {
    Visit { out: Some(out), flow: Some(3), port: Some(80), ..v }
}

/// A request of 64 bytes that comes in as number 17, and its answer of 128 bytes.
fn exchange() -> Vec<Visit> {
    use VisitKind::*;
    let segment = |v: Visit| Visit { number: Some(17), seq: 1000, len: 64, ..v };
    let answer = |v: Visit| Visit { seq: 5000, len: 128, ..v };
    let t = 7_000_000_000;
    vec![
        segment(visit("ingress", 0, Rx, t, 212)),
        segment(Visit { instance: 1, ..visit("pre", 1, Rx, t + 300, 150) }),
        segment(known(visit("protocol", 2, RxOut, t + 600, 400), 9)),
        known(visit("post", 3, Out, t + 1100, 200), 9),
        known(visit("dma", 3, Out, t + 1300, 250), 9),
        known(visit("egress", 0, Out, t + 1600, 100), 9),
        known(visit("ctxq", 0, Event, t + 1700, 300), 9),
        Visit { flow: Some(3), port: Some(80), ..visit("ctxq", 0, Hc, t + 6000, 200) },
        known(visit("protocol", 2, HcOut, t + 6300, 150), 10),
        known(visit("post", 3, Out, t + 6500, 50), 10),
        known(visit("dma", 3, Out, t + 6560, 40), 10),
        known(visit("egress", 0, Out, t + 6700, 50), 10),
        answer(known(visit("protocol", 2, TxOut, t + 6450, 350), 11)),
        answer(known(visit("post", 3, Out, t + 6900, 200), 11)),
        answer(known(visit("dma", 3, Out, t + 7100, 300), 11)),
        answer(known(visit("egress", 0, Out, t + 7500, 500), 11)),
    ]
}

fn waterfall(visits: &[Visit]) -> String {
    picture::waterfall(&Exchange::best(&assemble(visits)).expect("an exchange"))
}

const GOLDEN: &str = "\
port 80, flow 3

  Stage       Core  Begin us  Took us
segment received (group 1, number 17, out 9)
  ingress.0      0     0.000    0.212  |##                                      |  in, seq 1000, len 64
  pre.1          1     0.300    0.150  | ##                                     |  in, seq 1000, len 64
  protocol.0     2     0.600    0.400  |   ##                                   |  segment handled, seq 1000, len 64
  post.0         3     1.100    0.200  |     ##                                 |  out
  dma.0          3     1.300    0.250  |      ##                                |  out
  egress.0       0     1.600    0.100  |        #                               |  out
  ctxq.0         0     1.700    0.300  |        ##                              |  application told
descriptor of the application (group 1, out 10)
  ctxq.0         0     6.000    0.200  |                              #         |  descriptor taken
  protocol.0     2     6.300    0.150  |                               ##       |  descriptor handled
  post.0         3     6.500    0.050  |                                #       |  out
  dma.0          3     6.560    0.040  |                                #       |  out
  egress.0       0     6.700    0.050  |                                 #      |  out
segment sent (group 1, out 11)
  protocol.0     2     6.450    0.350  |                                ##      |  segment begun, seq 5000, len 128
  post.0         3     6.900    0.200  |                                  ##    |  out, seq 5000, len 128
  dma.0          3     7.100    0.300  |                                   ##   |  out, seq 5000, len 128
  egress.0       0     7.500    0.500  |                                     ###|  out, seq 5000, len 128

from the wire to the application         2.000 us
in the application                       4.000 us
from the application to the wire         2.000 us
all shown                                8.000 us
stages at work                           3.452 us
";

#[test]
fn an_exchange_is_drawn_to_scale() {
    assert_eq!(waterfall(&exchange()), GOLDEN);
}

#[test]
fn order_and_repetition_of_records_do_not_matter() {
    let mut visits = exchange();
    visits.extend(exchange());
    visits.reverse();
    assert_eq!(waterfall(&visits), GOLDEN);
}

#[test]
fn lost_records_are_gaps_and_not_made_up() {
    let visits: Vec<Visit> = exchange().into_iter().filter(|v| v.stage != "dma" && v.kind != VisitKind::Hc).collect();
    let text = waterfall(&visits);
    for line in [
        "  dma            -         -        -                                              no record",
        "  ctxq           -         -        -                                              no record",
    ] {
        assert!(text.contains(line), "{line}\n is not in\n{text}");
    }
    assert!(!text.contains("in the application"), "nobody knows how long:\n{text}");
    // Where they would be.
    let stages: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("  ")?.split_whitespace().next()).collect();
    assert_eq!(stages[1..8], ["ingress.0", "pre.1", "protocol.0", "post.0", "dma", "egress.0", "ctxq.0"]);
}

#[test]
fn without_protocols_record_two_halves_stay_apart() {
    let visits: Vec<Visit> = exchange().into_iter().filter(|v| v.kind != VisitKind::RxOut).collect();
    let ways = assemble(&visits);
    let causes: Vec<Cause> = ways.iter().map(|w| w.cause).collect();
    assert_eq!(causes, [Cause::Received, Cause::Unknown, Cause::Descriptor, Cause::Sent]);
    assert_eq!((ways[0].port(), ways[1].port()), (None, Some(80)));
    assert_eq!(ways.iter().filter(|w| w.is_complete()).count(), 2);
    assert!(picture::waterfall(&Exchange { received: None, descriptor: None, sent: Some(&ways[1]) }).contains("unknown cause"));
}

#[test]
fn stages_that_were_not_to_be_passed_are_not_missed() {
    let visits = exchange().into_iter().filter(|v| !matches!(v.out, Some(10))).map(|v| match v.kind {
        VisitKind::RxOut => Visit { next: vec!["dma".into(), "egress".into()], ..v },
        _ => v,
    });
    let done = Visit { flow: Some(3), ..visit("protocol", 2, VisitKind::HcDone, 7_000_006_300, 150) };
    let visits: Vec<Visit> = visits.filter(|v| v.out != Some(9) || v.stage != "post").chain([done]).collect();
    let text = waterfall(&visits);
    assert!(!text.contains("no record"), "{text}");
    assert!(text.contains("descriptor handled") && text.contains("segment sent"), "{text}");
}

#[test]
fn groups_count_for_themselves() {
    let other = exchange().into_iter().map(|v| Visit { group: 2, flow: v.flow.map(|_| 4), ..v });
    let ways = assemble(&exchange().into_iter().chain(other).collect::<Vec<_>>());
    assert_eq!(ways.iter().map(|w| w.visits.len()).collect::<Vec<_>>(), [7, 7, 5, 5, 4, 4]);
}

#[test]
fn descriptors_of_a_connection_are_handled_in_the_order_in_which_they_were_taken() {
    let taken = |at, flow| Visit { flow: Some(flow), ..visit("ctxq", 0, VisitKind::Hc, at, 1) };
    let handled = |at, out| known(visit("protocol", 0, VisitKind::HcOut, at, 1), out);
    let ways = assemble(&[handled(50, 2), taken(10, 3), taken(20, 3), taken(15, 4), handled(30, 1), handled(5, 0)]);
    let begins: Vec<(u64, usize)> = ways.iter().map(|w| (w.begin_ns(), w.visits.len())).collect();
    assert_eq!(begins, [(5, 1), (10, 2), (15, 1), (20, 2)], "one was handled before any was taken; one is of another connection");
}

#[test]
fn of_many_exchanges_the_most_telling_is_shown() {
    let shift = |by: u64, n: u32| {
        exchange().into_iter().map(move |v| Visit {
            begin_ns: v.begin_ns + by,
            end_ns: v.end_ns + by,
            number: v.number.map(|x| x + n),
            out: v.out.map(|x| x + n),
            ..v
        })
    };
    let last = shift(200_000, 200).filter(|v| v.stage != "egress");
    let visits: Vec<Visit> = exchange().into_iter().chain(shift(100_000, 100)).chain(last).collect();
    assert!(waterfall(&visits).contains("number 117"), "of two whole ones the later");
}

#[test]
fn nonsense_is_drawn_without_a_fall() {
    let odd = |stage: &str, kind, begin_ns, end_ns| Visit { begin_ns, end_ns, ..known(visit(stage, 255, kind, 0, 0), 1) };
    let visits = [
        odd("protocol", VisitKind::RxOut, u64::MAX, 0),
        odd("stage77", VisitKind::Out, 5, 1),
        odd("", VisitKind::Out, 0, u64::MAX),
        odd("protocol", VisitKind::TxOut, 3, 3),
        odd("protocol", VisitKind::RxOut, 4, 4),
        odd("x", VisitKind::Other, 4, 4),
        Visit { kind: VisitKind::Rx, ..Visit::default() },
        Visit { kind: VisitKind::Hc, ..Visit::default() },
    ];
    let text = waterfall(&visits);
    let words = |name: &str| text.lines().find(|l| l.contains(name)).map(|l| l.split_whitespace().collect::<Vec<_>>());
    assert_eq!(words("stage77.0").expect("a line")[..4], ["stage77.0", "255", "0.005", "?"], "{text}");
    assert!(text.contains(&format!("|{}|", "#".repeat(40))), "one took for ever:\n{text}");
    assert!(events::file(&assemble(&visits), 0)["traceEvents"].is_array());
    assert_eq!(assemble(&[]), []);
    assert!(Exchange::best(&[]).is_none());
}

#[test]
fn everything_at_one_moment_is_one_column() {
    let text = waterfall(&[known(visit("protocol", 0, VisitKind::TxOut, 5, 0), 1)]);
    assert!(text.contains("|#                                       |"), "{text}");
}

#[test]
fn a_port_selects_its_connections_by_their_numbers() {
    let mut collector = Collector::new(Some(80));
    let other = exchange().into_iter().map(|v| Visit { group: 2, flow: v.flow.map(|_| 4), port: v.port.map(|_| 81), ..v });
    assert!(collector.add(Visits { visits: exchange().into_iter().chain(other).collect(), lost: 4 }));
    let ways = collector.ways();
    assert_eq!((ways.len(), ways[0].visits.len()), (3, 7), "ingress and pre do not know the port");
    assert!(!collector.add(Visits { visits: Vec::new(), lost: 4 }));
    assert_eq!(collector.gaps(), "; records lost by the card: 4");
}

#[test]
fn too_much_is_forgotten_but_not_what_was_asked_for() {
    let mut collector = Collector::new(Some(80));
    let unknown = Visit { kind: VisitKind::Other, ..Visit::default() };
    collector.add(Visits { visits: exchange().into_iter().chain([unknown]).collect(), lost: 0 });
    let noise = |i: u32| Visit { group: 7, out: Some(i), port: Some(9), ..visit("post", 0, VisitKind::Out, i.into(), 1) };
    for part in 0..100 {
        collector.add(Visits { visits: (part * 2000..(part + 1) * 2000).map(noise).collect(), lost: 0 });
    }
    assert_eq!(collector.ways().iter().map(|w| w.visits.len()).sum::<usize>(), 16);
    let gaps = collector.gaps();
    assert!(gaps.contains("left out, as they were too many: ") && gaps.ends_with("; records of an unknown kind: 1"), "{gaps}");
}

#[test]
fn trace_events_link_the_visits_of_a_way() {
    let ways: Vec<Way> = assemble(&exchange());
    let file = events::file(&ways, 5);
    let events = file["traceEvents"].as_array().expect("events");
    let of = |phase: &str| events.iter().filter(|e| e["ph"] == phase).collect::<Vec<_>>();
    let names: Vec<&str> = of("M").iter().filter_map(|e| e["args"]["name"].as_str()).collect();
    assert_eq!(names, ["card", "core 0", "core 1", "core 2", "core 3"]);
    assert_eq!(of("X").len(), 16);
    let pre = of("X")[1];
    assert_eq!((&pre["name"], &pre["tid"], &pre["pid"]), (&"pre.1".into(), &1.into(), &1.into()));
    assert_eq!((&pre["ts"], &pre["dur"], &pre["args"]["number"]), (&0.3.into(), &0.15.into(), &17.into()));
    assert_eq!((of("s").len(), of("t").len(), of("f").len()), (3, 10, 3));
    let ids = |phase| of(phase).iter().map(|e| e["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids("s"), ids("f"));
    assert_eq!((&of("f")[0]["ts"], &of("f")[0]["bp"]), (&1.7.into(), &"e".into()));
    assert_eq!(file["otherData"]["records_lost"], 5);
}
