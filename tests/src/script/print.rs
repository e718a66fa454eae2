//! Packets as scripts have them: what a trace shows can be pasted into a script.

use super::ast::{Conn, Errno, Flags, IpFields, Opt, Segment, TTL};
use super::space::Space;
use std::fmt;

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("-");
        }
        Self::LETTERS.iter().filter(|(_, bit)| self.has(*bit)).try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: &Option<u32>| n.map_or("*".into(), |n| n.to_string());
        match self {
            Opt::Nop => f.write_str("nop"),
            Opt::Eol => f.write_str("eol"),
            Opt::Mss(mss) => write!(f, "mss {mss}"),
            Opt::WindowScale(shift) => write!(f, "wscale {shift}"),
            Opt::SackPermitted => f.write_str("sackOK"),
            Opt::Sack(blocks) => {
                f.write_str("sack")?;
                blocks.iter().try_for_each(|(left, right)| write!(f, " {left}:{right}"))
            }
            Opt::Timestamps { val, ecr } => write!(f, "TS val {} ecr {}", number(val), number(ecr)),
            Opt::Raw(bytes) => {
                f.write_str("raw 0x")?;
                bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
    }
}

pub fn options(all: &[Opt]) -> String {
    all.iter().map(Opt::to_string).collect::<Vec<_>>().join(",")
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}({})", self.flags, self.seq, self.seq.wrapping_add(self.len), self.len)?;
        if let Some(ack) = self.ack {
            write!(f, " ack {ack}")?;
        }
        if let Some(window) = self.window {
            write!(f, " win {window}")?;
        }
        if let Some(urgent) = self.urgent {
            write!(f, " urg {urgent}")?;
        }
        match &self.options {
            None => f.write_str(" <...>"),
            Some(all) if all.is_empty() => Ok(()),
            Some(all) => write!(f, " <{}>", options(all)),
        }
    }
}

/// Seconds.
pub fn time(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

pub const ECN_MARKS: [&str; 4] = ["noecn", "ect1", "ect0", "ce"];

/// What is unusual in the IP header.
fn marks(ip: IpFields) -> String {
    let marks = [
        (ip.ecn != 0).then(|| ECN_MARKS[usize::from(ip.ecn & 3)].to_owned()),
        (ip.tos != 0).then(|| format!("tos {:#04x}", ip.tos)),
        (ip.ttl != TTL).then(|| format!("ttl {}", ip.ttl)),
    ];
    let marks: Vec<String> = marks.into_iter().flatten().collect();
    if marks.is_empty() { String::new() } else { format!("[{}] ", marks.join(", ")) }
}

/// A packet of the stack's, for the trace: timestamps relative if that is known already.
pub fn sent(conn: Conn, ip: IpFields, segment: &Segment, space: &Space) -> String {
    let mut shown = segment.clone();
    for option in shown.options.iter_mut().flatten() {
        if let Opt::Timestamps { val: Some(val), .. } = option {
            *val = space.ts_shown(*val);
        }
    }
    let conn = if conn == 1 { String::new() } else { format!("@{conn} ") };
    format!("> {conn}{}{shown}", marks(ip))
}

pub fn result(result: &Result<u32, Errno>) -> String {
    match result {
        Ok(n) => n.to_string(),
        Err(e) => format!("-1 {}", e.name),
    }
}
