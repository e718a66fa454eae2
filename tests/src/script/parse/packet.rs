//! Packets: `[marks] flags seq:end(len) ack N win N urg N <options>`, and ICMP errors.

use crate::script::ast::{ACK, Body, Conn, Flags, IcmpError, Marks, Opt, Packet, RST, Segment, URG};
use crate::script::cursor::{Cursor, Parsed};
use std::net::IpAddr;

/// `@2`
pub fn conn(c: &mut Cursor<'_>) -> Parsed<Conn> {
    if c.eat("@") { c.u8() } else { Ok(1) }
}

/// `inbound`: it is for the stack, so everything in it must be said.
pub fn packet(c: &mut Cursor<'_>, inbound: bool) -> Parsed<Packet> {
    let conn = conn(c)?;
    let marks = marks(c)?;
    let body = if inbound && c.eat("icmp") { Body::Icmp(icmp(c)?) } else { Body::Tcp(segment(c, inbound)?) };
    Ok(Packet { conn, marks, body })
}

const MARKS: [&str; 14] = [
    "ect1",
    "ect0",
    "ce",
    "tos",
    "ttl",
    "bad_checksum",
    "bad_ip_checksum",
    "src",
    "dst",
    "ip_options",
    "data_offset",
    "reserved",
    "fragments",
    "cut",
];

fn address(c: &mut Cursor<'_>) -> Parsed<IpAddr> {
    let mut before = *c;
    let text = c.take(|ch| ch.is_ascii_hexdigit() || ch == '.' || ch == ':');
    text.parse().or_else(|_| before.fail("an IP address"))
}

/// Hexadecimal digits of whole words.
fn words(c: &mut Cursor<'_>) -> Parsed<Vec<u8>> {
    let mut before = *c;
    let bytes = hex(c)?;
    if bytes.len().is_multiple_of(4) { Ok(bytes) } else { before.fail("a multiple of 4 bytes") }
}

/// Bytes of a fragment: whole units of eight.
fn units(c: &mut Cursor<'_>) -> Parsed<u16> {
    let mut before = *c;
    let bytes = c.u16()?;
    if bytes > 0 && bytes.is_multiple_of(8) { Ok(bytes) } else { before.fail("a multiple of 8 bytes") }
}

fn marks(c: &mut Cursor<'_>) -> Parsed<Marks> {
    let mut marks = Marks::default();
    if !c.eat("[") {
        return Ok(marks);
    }
    while !c.eat("]") {
        match MARKS[c.one_of(&MARKS)?] {
            "ect1" => marks.ecn = 1,
            "ect0" => marks.ecn = 2,
            "ce" => marks.ecn = 3,
            "tos" => marks.tos = Some(c.integer()? as u8),
            "ttl" => marks.ttl = Some(c.u8()?),
            "bad_checksum" => marks.bad_checksum = true,
            "bad_ip_checksum" => marks.bad_ip_checksum = true,
            "src" => marks.src = Some(address(c)?),
            "dst" => marks.dst = Some(address(c)?),
            "ip_options" => marks.ip_options = words(c)?,
            "data_offset" => marks.data_offset = Some(c.number(15)? as u8),
            "reserved" => marks.reserved = c.number(15)? as u8,
            "fragments" => marks.fragments = Some(units(c)?),
            _ => marks.cut = Some(c.u16()?),
        }
        c.eat(",");
    }
    Ok(marks)
}

/// `seq:end(len)`: the first number and the length.
fn range(c: &mut Cursor<'_>) -> Parsed<(u32, u32)> {
    let seq = c.u32()?;
    c.want(":")?;
    let mut at_end = *c;
    let end = c.u32()?;
    c.want("(")?;
    let len = c.number(65_535)? as u32;
    c.want(")")?;
    if seq.wrapping_add(len) != end {
        return at_end.fail(format!("`{}`, as the length says", seq.wrapping_add(len)));
    }
    Ok((seq, len))
}

fn flags(c: &mut Cursor<'_>) -> Parsed<Flags> {
    if c.eat("-") {
        return Ok(Flags(0));
    }
    let letters = c.take(|ch| Flags::LETTERS.iter().any(|(letter, _)| *letter == ch));
    if letters.is_empty() {
        return c.fail("flags (letters of `FSRPUEW.`, or `-` for none)");
    }
    let bits = letters.chars().filter_map(|ch| Flags::LETTERS.iter().find(|(letter, _)| *letter == ch));
    Ok(Flags(bits.fold(0, |all, (_, bit)| all | bit)))
}

fn segment(c: &mut Cursor<'_>, inbound: bool) -> Parsed<Segment> {
    let flags = flags(c)?;
    let (seq, len) = range(c)?;
    let ack = if flags.has(ACK) {
        c.want("ack")?;
        Some(c.u32()?)
    } else {
        None
    };
    let window = window(c, inbound && !flags.has(RST))?.or_else(|| inbound.then_some(0));
    let urgent = if flags.has(URG) {
        c.want("urg")?;
        Some(c.u16()?)
    } else {
        None
    };
    let mut before = *c;
    let options = options(c)?;
    if inbound && options.is_none() {
        return before.fail("options that are said: `...` is for packets that the stack sends");
    }
    Ok(Segment { flags, seq, len, ack, window, urgent, options })
}

fn window(c: &mut Cursor<'_>, must: bool) -> Parsed<Option<u16>> {
    if !c.eat("win") {
        return if must { c.fail("`win`") } else { Ok(None) };
    }
    if !must && c.eat("*") {
        return Ok(None);
    }
    c.u16().map(Some)
}

/// `<...>`: `None`. Nothing: no options.
fn options(c: &mut Cursor<'_>) -> Parsed<Option<Vec<Opt>>> {
    if !c.eat("<") {
        return Ok(Some(Vec::new()));
    }
    if c.eat("...") {
        c.want(">")?;
        return Ok(None);
    }
    let mut before = *c;
    let mut all = vec![opt(c)?];
    while c.eat(",") {
        all.push(opt(c)?);
    }
    c.want(">")?;
    let len: usize = all.iter().map(Opt::wire_len).sum();
    if !len.is_multiple_of(4) || len > 40 {
        return before.fail(format!("options of 4 to 40 bytes in fours, not {len}"));
    }
    Ok(Some(all))
}

fn opt(c: &mut Cursor<'_>) -> Parsed<Opt> {
    Ok(match c.one_of(&["nop", "eol", "mss", "wscale", "sackOK", "sack", "TS", "raw"])? {
        0 => Opt::Nop,
        1 => Opt::Eol,
        2 => Opt::Mss(c.u16()?),
        3 => Opt::WindowScale(c.u8()?),
        4 => Opt::SackPermitted,
        5 => Opt::Sack(sack(c)?),
        6 => {
            c.want("val")?;
            let val = number_or_any(c)?;
            c.want("ecr")?;
            Opt::Timestamps { val, ecr: number_or_any(c)? }
        }
        _ => Opt::Raw(hex(c)?),
    })
}

fn number_or_any(c: &mut Cursor<'_>) -> Parsed<Option<u32>> {
    if c.eat("*") { Ok(None) } else { c.u32().map(Some) }
}

fn sack(c: &mut Cursor<'_>) -> Parsed<Vec<(u32, u32)>> {
    let mut blocks = Vec::new();
    loop {
        let left = c.u32()?;
        c.want(":")?;
        blocks.push((left, c.u32()?));
        let mut next = *c;
        if next.eat(",") || next.eat(">") {
            return Ok(blocks);
        }
    }
}

fn hex(c: &mut Cursor<'_>) -> Parsed<Vec<u8>> {
    c.want("0x")?;
    let mut before = *c;
    let digits = c.take(|ch| ch.is_ascii_hexdigit());
    if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() > 80 {
        return before.fail("an even number of hexadecimal digits, up to 80");
    }
    let digit = |ch: u8| (ch as char).to_digit(16).unwrap_or_default() as u8;
    Ok(digits.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect())
}

/// `unreachable frag_needed mtu 1200 [1:1001(1000)]`
fn icmp(c: &mut Cursor<'_>) -> Parsed<IcmpError> {
    const CODES: [&str; 14] = [
        "net_unreachable",
        "host_unreachable",
        "protocol_unreachable",
        "port_unreachable",
        "frag_needed",
        "source_route_failed",
        "net_unknown",
        "host_unknown",
        "source_host_isolated",
        "net_prohibited",
        "host_prohibited",
        "net_unreachable_for_tos",
        "host_unreachable_for_tos",
        "packet_filtered",
    ];
    let (kind, code) = match c.one_of(&["unreachable", "source_quench", "time_exceeded", "parameter_problem"])? {
        0 => (3, c.one_of(&CODES)? as u8),
        1 => (4, 0),
        2 => (11, c.one_of(&["ttl", "reassembly"])? as u8),
        _ => (12, 0),
    };
    let mtu = if c.eat("mtu") { c.u16()? } else { 0 };
    c.want("[")?;
    let (seq, len) = range(c)?;
    c.want("]")?;
    Ok(IcmpError { kind, code, mtu, seq, len })
}
