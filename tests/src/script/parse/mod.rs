//! From text to [`Script`]: lines, options, times; packets and calls have files of their own.
//!
//! A statement begins with a time or `--`; lines that begin with anything else continue it. `#` and `//` begin comments.

mod call;
mod packet;

pub use call::errno_of;

use super::ast::{Action, Check, Compare, Config, Event, IpVersion, Script, Value, When};
use super::cursor::{Cursor, ParseError, Parsed, Unexpected, alternatives, located};
use std::time::Duration;
use toe_abi::flow::cc;
use toe_engine::SynCookies;

/// Reads a script. `file` is what errors call it.
pub fn parse(file: &str, text: &str) -> Result<Script, ParseError> {
    let clean = without_comments(text);
    script(file, text, &clean).map_err(|e| located(file, text, e))
}

fn script(file: &str, text: &str, clean: &str) -> Parsed<Script> {
    let mut script = Script { config: Config::default(), include: None, expect_fail: expect_fail(text), events: Vec::new() };
    for (from, to) in statements(clean)? {
        let mut c = Cursor::new(clean, from, to);
        if c.eat("--") {
            if !script.events.is_empty() {
                return Err(Unexpected { at: from, expected: "options before the first event".into() });
            }
            option(&mut c, &mut script)?;
        } else {
            let (when, until) = time(&mut c)?;
            let action = action(&mut c, until)?;
            let place = format!("{file}:{}", clean[..from].matches('\n').count() + 1);
            let text = clean[from..to].split_whitespace().collect::<Vec<_>>().join(" ");
            script.events.push(Event { place, text, when, action });
        }
        if !c.is_end() {
            return c.fail("the end of the line");
        }
    }
    Ok(script)
}

/// Comments become spaces, so that places stay where they are.
fn without_comments(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let comment = line.char_indices().find(|&(i, _)| {
            let begins = line[i..].starts_with('#') || line[i..].starts_with("//");
            begins && line[..i].chars().next_back().is_none_or(char::is_whitespace)
        });
        match comment {
            None => clean.push_str(line),
            Some((at, _)) => {
                clean.push_str(&line[..at]);
                let end = line.trim_end_matches('\n').len();
                clean.extend(std::iter::repeat_n(' ', end - at));
                clean.push_str(&line[end..]);
            }
        }
    }
    clean
}

fn expect_fail(text: &str) -> Option<String> {
    let reason = text.lines().find_map(|line| line.strip_prefix("#!")?.trim().strip_prefix("expect-fail:"))?;
    Some(reason.trim().into())
}

/// Where statements begin and end.
fn statements(clean: &str) -> Parsed<Vec<(usize, usize)>> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    for line in clean.split_inclusive('\n') {
        let word = line.trim_start();
        let end = at + line.trim_end().len();
        if word.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '*') || word.starts_with("--") {
            found.push((at + line.len() - word.len(), end));
        } else if !word.is_empty() {
            match found.last_mut() {
                Some((_, last_end)) => *last_end = end,
                None => {
                    let at = at + line.len() - word.len();
                    return Err(Unexpected { at, expected: "a time (`0.1`, `+0.1`, `*`) or an option (`--mtu=1500`)".into() });
                }
            }
        }
        at += line.len();
    }
    Ok(found)
}

fn switch(c: &mut Cursor<'_>) -> Parsed<bool> {
    Ok(c.one_of(&["off", "on"])? == 1)
}

fn log2(c: &mut Cursor<'_>) -> Parsed<u8> {
    let mut before = *c;
    let bytes = c.number(1 << 20)?;
    if !bytes.is_power_of_two() || bytes < 4096 {
        return before.fail("a power of two from 4096 on");
    }
    Ok(bytes.trailing_zeros() as u8)
}

fn algorithm(c: &mut Cursor<'_>) -> Parsed<u8> {
    let mut before = *c;
    let name = c.take(|ch| ch.is_ascii_alphanumeric() || ch == '-');
    cc::number(name).map_or_else(|| before.fail(alternatives(&cc::NAMES)), Ok)
}

fn syn_cookies(c: &mut Cursor<'_>) -> Parsed<SynCookies> {
    const ALL: [SynCookies; 3] = [SynCookies::Off, SynCookies::OnOverflow, SynCookies::Always];
    Ok(ALL[c.one_of(&["off", "overflow", "always"])?])
}

fn option(c: &mut Cursor<'_>, script: &mut Script) -> Parsed<()> {
    const NAMES: [&str; 20] = [
        "include",
        "mtu",
        "cc",
        "sack",
        "timestamps",
        "wscale",
        "ecn",
        "sndbuf",
        "rcvbuf",
        "tso",
        "syn_backlog",
        "syn_cookies",
        "syn_retries",
        "time_wait",
        "fin_wait2",
        "arp_expire",
        "peer_isn",
        "start",
        "tolerance_usecs",
        "ip_version",
    ];
    let name = NAMES[c.one_of(&NAMES)?];
    c.want("=")?;
    let config = &mut script.config;
    match name {
        "include" => script.include = Some(c.take(|ch| !ch.is_whitespace()).into()),
        "mtu" => config.mtu = c.u16()?,
        "cc" => config.cc = algorithm(c)?,
        "sack" => config.sack = switch(c)?,
        "timestamps" => config.timestamps = switch(c)?,
        "wscale" => config.window_scaling = switch(c)?,
        "ecn" => config.ecn = switch(c)?,
        "sndbuf" => config.sndbuf_log2 = log2(c)?,
        "rcvbuf" => config.rcvbuf_log2 = log2(c)?,
        "tso" => config.tso = c.number(65_536)? as u32,
        "syn_backlog" => config.syn_backlog = c.u16()?.into(),
        "syn_cookies" => config.syn_cookies = syn_cookies(c)?,
        "syn_retries" => config.syn_retries = c.u8()?,
        "time_wait" => config.time_wait = Duration::from_micros(c.seconds()?),
        "fin_wait2" => config.fin_wait2 = Duration::from_micros(c.seconds()?),
        "arp_expire" => config.arp_expire = Duration::from_micros(c.seconds()?),
        "peer_isn" => config.peer_isn = c.u32()?,
        "start" => config.start = Duration::from_micros(c.seconds()?),
        "tolerance_usecs" => config.tolerance = Duration::from_micros(c.u32()?.into()),
        _ => config.ip_version = Some([IpVersion::V4, IpVersion::V6][c.one_of(&["ipv4", "ipv6"])?]),
    }
    Ok(())
}

/// When, and for calls that wait (`+0...0.2`) until when.
fn time(c: &mut Cursor<'_>) -> Parsed<(When, Option<u64>)> {
    if c.eat("*") {
        return Ok((When::Any, None));
    }
    let relative = c.eat("+");
    let from = c.seconds()?;
    let exact = if relative { When::After(from) } else { When::At(from) };
    if c.eat("...") {
        c.eat("+");
        let until = c.seconds()?;
        return Ok((exact, Some(until)));
    }
    if c.eat("~") {
        c.eat("+");
        let to = c.seconds()?;
        return Ok((When::Between { relative, from, to }, None));
    }
    Ok((exact, None))
}

fn action(c: &mut Cursor<'_>, until: Option<u64>) -> Parsed<Action> {
    if c.eat("<") {
        return Ok(Action::Inject(packet::packet(c, true)?));
    }
    if c.eat(">") {
        return Ok(Action::Expect(packet::packet(c, false)?));
    }
    if c.eat("?") {
        return Ok(Action::Check(check(c)?));
    }
    let mut before = *c;
    match c.word() {
        "" => before.fail("`<`, `>`, `?`, `silence` or a system call"),
        "silence" => Ok(Action::Silence),
        name => Ok(Action::Call(call::call(c, before, name, until)?)),
    }
}

fn check(c: &mut Cursor<'_>) -> Parsed<Check> {
    let conn = packet::conn(c)?;
    let name = c.word();
    if name.is_empty() {
        return c.fail("what to look at: `state`, `cwnd`, a counter ...");
    }
    // Longer ones first.
    const OPS: [(&str, Compare); 6] = [
        ("==", Compare::Equal),
        ("!=", Compare::NotEqual),
        ("<=", Compare::LessEqual),
        (">=", Compare::GreaterEqual),
        ("<", Compare::Less),
        (">", Compare::Greater),
    ];
    let Some((_, op)) = OPS.iter().find(|(sign, _)| c.eat(sign)) else {
        return c.fail(alternatives(&OPS.map(|(sign, _)| sign)));
    };
    let word = c.take(|ch| ch.is_ascii_alphanumeric() || ch == '-' || ch == '_');
    let value = match word.parse() {
        Ok(number) => Value::Number(number),
        Err(_) if word.is_empty() => return c.fail("a number or a word"),
        Err(_) => Value::Word(word.into()),
    };
    Ok(Check { conn, name: name.into(), op: *op, value })
}

#[cfg(test)]
mod tests;
