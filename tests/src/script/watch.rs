//! What scripts can look at: a connection as operators see it (`toectl ss`), and the counters (`toectl stats`).

use super::ast::{Check, Compare, Value};
use super::space::Space;
use crate::sim::host::ToeHost;
use toed::admin::Connection;
use toed::core::Report;

/// `Err`: it does not hold, and why.
pub fn check(host: &mut ToeHost, check: &Check, space: &Space) -> Result<(), String> {
    let got = look(host, &check.name, space)?;
    let holds = match (&got, &check.value) {
        (Value::Number(got), Value::Number(want)) => compares(check.op, got, want),
        (Value::Word(got), Value::Word(want)) if check.op == Compare::Equal => got == want,
        (Value::Word(got), Value::Word(want)) if check.op == Compare::NotEqual => got != want,
        _ => return Err(format!("{} is {}: it cannot be compared like that", check.name, shown(&got))),
    };
    if holds { Ok(()) } else { Err(format!("{} is {}", check.name, shown(&got))) }
}

fn compares(op: Compare, got: &u64, want: &u64) -> bool {
    match op {
        Compare::Equal => got == want,
        Compare::NotEqual => got != want,
        Compare::Less => got < want,
        Compare::LessEqual => got <= want,
        Compare::Greater => got > want,
        Compare::GreaterEqual => got >= want,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Number(n) => n.to_string(),
        Value::Word(word) => word.clone(),
    }
}

fn look(host: &mut ToeHost, name: &str, space: &Space) -> Result<Value, String> {
    if name == "isn_advance" {
        return space.isn_advance().map(|n| Value::Number(n.into())).ok_or("there was no connection before".into());
    }
    let Report::Connections(rows) = host.report(|core| core.report_connections()) else {
        return Err("no report of connections".into());
    };
    let ours = |row: &&Connection| ends_with_port(&row.local, space.local_port) && ends_with_port(&row.remote, space.peer_port);
    let row = rows.iter().find(ours);
    if name == "state" {
        return Ok(Value::Word(row.map_or("none", |row| &row.state).into()));
    }
    let field = |of: fn(&Connection) -> u32| {
        let row = row.ok_or(format!("there is no connection whose {name} could be looked at"))?;
        Ok(Value::Number(of(row).into()))
    };
    match name {
        "ca_state" => Ok(Value::Word(row.and_then(|row| row.ca_state.clone()).unwrap_or_else(|| "none".into()))),
        "cwnd" => field(|c| c.cwnd),
        "ssthresh" => field(|c| c.ssthresh),
        "srtt_us" => field(|c| c.srtt_us),
        "rttvar_us" => field(|c| c.rttvar_us),
        "backoff" => field(|c| c.backoff),
        "retransmits" => field(|c| c.retransmits.unwrap_or_default()),
        "rx_queue" => field(|c| c.rx_queue),
        "tx_queue" => field(|c| c.tx_queue),
        counter => {
            let Report::Stats(stats) = host.report(|core| core.report_stats()) else { return Err("no report of counters".into()) };
            let value = stats.get(counter).ok_or(format!("nothing is called {counter}"))?;
            Ok(Value::Number(*value))
        }
    }
}

fn ends_with_port(endpoint: &str, port: u16) -> bool {
    endpoint.rsplit_once(':').is_some_and(|(_, p)| p.parse() == Ok(port))
}
