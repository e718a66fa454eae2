//! Ways as trace events: what ui.perfetto.dev and chrome://tracing show.
//!
//! A row is a core, a box a visit, and arrows lead from visit to visit of one way.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use toed::admin::Visit;

use super::ways::{Cause, Way};

/// All rows are of this one process: the card.
const CARD: u32 = 1;

/// The whole file. `lost`: records that the card lost meanwhile.
pub fn file(ways: &[Way], lost: u64) -> Value {
    let begin_ns = ways.iter().map(Way::begin_ns).min().unwrap_or(0);
    let cores: BTreeSet<u8> = ways.iter().flat_map(|w| &w.visits).map(|v| v.core).collect();
    let mut events = vec![name("process_name", 0, "card")];
    events.extend(cores.into_iter().map(|core| name("thread_name", core, &format!("core {core}"))));
    for (id, way) in (1..).zip(ways) {
        events.extend(way.visits.iter().map(|v| visit(v, way.cause, begin_ns)));
        events.extend(arrows(way, id, begin_ns));
    }
    json!({ "traceEvents": events, "displayTimeUnit": "ns", "otherData": { "records_lost": lost } })
}

fn name(what: &str, core: u8, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": CARD, "tid": core, "args": { "name": name } })
}

/// Microseconds since the first visit, to the nanosecond.
fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

fn visit(v: &Visit, cause: Cause, begin_ns: u64) -> Value {
    json!({
        "ph": "X",
        "name": format!("{}.{}", v.stage, v.instance),
        "cat": category(cause),
        "pid": CARD,
        "tid": v.core,
        "ts": us(v.begin_ns - begin_ns),
        "dur": us(v.end_ns.saturating_sub(v.begin_ns)),
        "args": v,
    })
}

/// A start, steps and an end, each in the box of its visit.
fn arrows(way: &Way, id: u64, begin_ns: u64) -> impl Iterator<Item = Value> {
    let last = way.visits.len().saturating_sub(1);
    // A way of one visit leads nowhere.
    way.visits.iter().enumerate().filter(move |_| last > 0).map(move |(i, v)| {
        let mut event = json!({
            "ph": match i { 0 => "s", i if i == last => "f", _ => "t" },
            "name": category(way.cause),
            "cat": "way",
            "id": id,
            "pid": CARD,
            "tid": v.core,
            "ts": us(v.begin_ns - begin_ns),
        });
        if i == last {
            // To the box around it, not to the next one.
            event["bp"] = "e".into();
        }
        event
    })
}

fn category(cause: Cause) -> &'static str {
    match cause {
        Cause::Received => "received",
        Cause::Descriptor => "descriptor",
        Cause::Sent => "sent",
        Cause::Unknown => "unknown",
    }
}
