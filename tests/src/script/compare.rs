//! What a script expects against what was sent: every difference, by field.

use super::ast::{Conn, IpFields, Opt, Packet, Segment, TTL};
use super::print::{self, ECN_MARKS};
use super::space::Space;
use std::fmt::Display;

/// A segment that the stack has sent, in the script's numbers (timestamps in the wire's).
#[derive(Clone, Debug)]
pub struct Seen {
    /// Microseconds since the script's begin.
    pub at: u64,
    pub conn: Conn,
    pub ip: IpFields,
    pub segment: Segment,
    pub payload_ok: bool,
    /// For the trace.
    pub text: String,
}

/// Every difference, in words. `slack_ms`: how far off a timestamp may be.
pub fn differences(packet: &Packet, want: &Segment, seen: &Seen, space: &mut Space, slack_ms: u32) -> Vec<String> {
    let got = &seen.segment;
    let mut all = Vec::new();
    let mut check = |what: &str, same: bool, want: &dyn Display, got: &dyn Display| {
        if !same {
            all.push(format!("{what}: expected {want}, got {got}"));
        }
    };
    check("connection", packet.conn == seen.conn, &packet.conn, &seen.conn);
    check("ECN", packet.marks.ecn == seen.ip.ecn, &mark(packet.marks.ecn), &mark(seen.ip.ecn));
    let (tos, ttl) = (packet.marks.tos.unwrap_or(0), packet.marks.ttl.unwrap_or(TTL));
    check("type of service", tos == seen.ip.tos, &format!("{tos:#04x}"), &format!("{:#04x}", seen.ip.tos));
    check("TTL", ttl == seen.ip.ttl, &ttl, &seen.ip.ttl);
    check("flags", want.flags == got.flags, &want.flags, &got.flags);
    check("seq", want.seq == got.seq, &want.seq, &got.seq);
    check("length", want.len == got.len, &want.len, &got.len);
    check("ack", want.ack == got.ack, &shown(want.ack), &shown(got.ack));
    check("window", want.window.is_none() || want.window == got.window, &shown(want.window), &shown(got.window));
    check("urgent pointer", want.urgent == got.urgent, &shown(want.urgent), &shown(got.urgent));
    check("payload", seen.payload_ok, &"the bytes that were written there", &"others");
    let got_options = got.options.as_deref().unwrap_or_default();
    if let Some(want_options) = &want.options {
        let got_options = in_script_numbers(want_options, got_options, space);
        let same = want_options.len() == got_options.len() && want_options.iter().zip(&got_options).all(|(w, g)| agree(w, g, slack_ms));
        check("options", same, &format!("<{}>", print::options(want_options)), &format!("<{}>", print::options(&got_options)));
    }
    all
}

fn mark(ecn: u8) -> &'static str {
    ECN_MARKS[usize::from(ecn & 3)]
}

fn shown(field: Option<impl Display>) -> String {
    field.map_or("none".into(), |n| n.to_string())
}

/// The stack's timestamps as the script counts them.
fn in_script_numbers(want: &[Opt], got: &[Opt], space: &mut Space) -> Vec<Opt> {
    let expected = want.iter().find_map(|o| if let Opt::Timestamps { val: Some(val), .. } = o { Some(*val) } else { None });
    let relative = |o: &Opt| match o {
        Opt::Timestamps { val: Some(val), ecr } => {
            let val = match expected {
                Some(expected) => space.ts_of(*val, expected),
                None => space.ts_shown(*val),
            };
            Opt::Timestamps { val: Some(val), ecr: *ecr }
        }
        _ => o.clone(),
    };
    got.iter().map(relative).collect()
}

fn agree(want: &Opt, got: &Opt, slack_ms: u32) -> bool {
    match (want, got) {
        (Opt::Timestamps { val, ecr }, Opt::Timestamps { val: got_val, ecr: got_ecr }) => {
            let near = |(w, g): (u32, u32)| (w.wrapping_sub(g) as i32).unsigned_abs() <= slack_ms;
            val.zip(*got_val).is_none_or(near) && ecr.zip(*got_ecr).is_none_or(|(w, g)| w == g)
        }
        _ => want == got,
    }
}
