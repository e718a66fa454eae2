//! System calls: `name(args) = result`, with C's names for what there is.

use crate::script::ast::{Call, Errno, Fd, Op, SocketOption};
use crate::script::cursor::{Cursor, Parsed, alternatives};
use rustix::io::Errno as E;
use std::net::SocketAddr;
use toe::socket::ready;

const NAMES: [&str; 16] = [
    "socket",
    "fcntl",
    "bind",
    "listen",
    "accept",
    "connect",
    "read",
    "recv",
    "write",
    "send",
    "sockatmark",
    "shutdown",
    "close",
    "setsockopt",
    "getsockopt",
    "poll",
];

const ERRNOS: [Errno; 20] = [
    errno("EAGAIN", E::AGAIN),
    errno("EBADF", E::BADF),
    errno("EINVAL", E::INVAL),
    errno("EPIPE", E::PIPE),
    errno("ENOBUFS", E::NOBUFS),
    errno("ENOTCONN", E::NOTCONN),
    errno("EISCONN", E::ISCONN),
    errno("EADDRINUSE", E::ADDRINUSE),
    errno("EADDRNOTAVAIL", E::ADDRNOTAVAIL),
    errno("ECONNREFUSED", E::CONNREFUSED),
    errno("ECONNRESET", E::CONNRESET),
    errno("ECONNABORTED", E::CONNABORTED),
    errno("EHOSTUNREACH", E::HOSTUNREACH),
    errno("ENETUNREACH", E::NETUNREACH),
    errno("EINPROGRESS", E::INPROGRESS),
    errno("EALREADY", E::ALREADY),
    errno("ETIMEDOUT", E::TIMEDOUT),
    errno("ENOPROTOOPT", E::NOPROTOOPT),
    errno("EMSGSIZE", E::MSGSIZE),
    errno("EPROTO", E::PROTO),
];

const fn errno(name: &'static str, e: E) -> Errno {
    Errno { name, code: e.raw_os_error() }
}

/// The errno of that number, if scripts know it.
pub fn errno_of(code: i32) -> Option<Errno> {
    ERRNOS.into_iter().find(|e| e.code == code)
}

/// `name` was read at `at`; `c` stands behind it.
pub fn call(c: &mut Cursor<'_>, mut at: Cursor<'_>, name: &str, until: Option<u64>) -> Parsed<Call> {
    if !NAMES.contains(&name) {
        return at.fail(format!("`<`, `>`, `?` or {}", alternatives(&NAMES)));
    }
    c.want("(")?;
    let op = op(c, name)?;
    c.want(")")?;
    c.want("=")?;
    let result = if c.eat("-1") { Err(error_name(c)?) } else { Ok(c.u32()?) };
    if c.eat("(") {
        // What strerror() would say.
        c.take(|ch| ch != ')');
        c.want(")")?;
    }
    Ok(Call { op, until, result })
}

fn error_name(c: &mut Cursor<'_>) -> Parsed<Errno> {
    Ok(ERRNOS[c.one_of(&ERRNOS.map(|e| e.name))?])
}

fn comma(c: &mut Cursor<'_>) -> Parsed<()> {
    c.want(",")
}

/// `, ...`: an argument that needs no saying.
fn dots(c: &mut Cursor<'_>) -> Parsed<()> {
    comma(c)?;
    c.want("...")
}

fn number_after_comma(c: &mut Cursor<'_>) -> Parsed<u32> {
    comma(c)?;
    c.u32()
}

/// `A|B`: bits by the index of their name.
fn bits(c: &mut Cursor<'_>, names: &[&str]) -> Parsed<u32> {
    let mut all = 0;
    if c.eat("0") {
        return Ok(0);
    }
    loop {
        all |= 1 << c.one_of(names)?;
        if !c.eat("|") {
            return Ok(all);
        }
    }
}

fn op(c: &mut Cursor<'_>, name: &str) -> Parsed<Op> {
    if name == "socket" {
        return socket(c);
    }
    if name == "poll" {
        return poll(c);
    }
    let fd: Fd = c.u32()?;
    match name {
        "fcntl" => {
            comma(c)?;
            c.want("F_SETFL")?;
            comma(c)?;
            Ok(Op::NonBlock { fd, on: bits(c, &["O_RDWR", "O_NONBLOCK"])? & 2 != 0 })
        }
        "bind" => dots(c).and_then(|()| dots(c)).map(|()| Op::Bind { fd }),
        "listen" => Ok(Op::Listen { fd, backlog: number_after_comma(c)? }),
        "accept" => dots(c).and_then(|()| dots(c)).map(|()| Op::Accept { fd }),
        "connect" => {
            comma(c)?;
            let (mut conn, mut to) = (1, None);
            if c.eat("@") {
                conn = c.u8()?;
            } else if !c.eat("...") {
                to = Some(socket_address(c)?);
            }
            dots(c)?;
            Ok(Op::Connect { fd, conn, to })
        }
        "read" | "recv" => {
            dots(c)?;
            let len = number_after_comma(c)?;
            let flags = if name == "recv" { comma(c).and_then(|()| bits(c, &["MSG_PEEK", "MSG_DONTWAIT", "MSG_OOB"]))? } else { 0 };
            Ok(Op::Read { fd, len, peek: flags & 1 != 0, dontwait: flags & 2 != 0, oob: flags & 4 != 0 })
        }
        "write" | "send" => {
            dots(c)?;
            let len = number_after_comma(c)?;
            let names = ["MSG_MORE", "MSG_DONTWAIT", "MSG_NOSIGNAL", "MSG_OOB"];
            let flags = if name == "send" { comma(c).and_then(|()| bits(c, &names))? } else { 0 };
            Ok(Op::Write { fd, len, more: flags & 1 != 0, dontwait: flags & 2 != 0, oob: flags & 8 != 0 })
        }
        "sockatmark" => Ok(Op::AtMark { fd }),
        "shutdown" => {
            comma(c)?;
            c.want("SHUT_WR")?;
            Ok(Op::Shutdown { fd })
        }
        "close" => Ok(Op::Close { fd }),
        "setsockopt" => set(c, fd),
        "getsockopt" => get_error(c, fd),
        _ => c.fail("a call of a socket"),
    }
}

/// `10.0.0.2:80` or `[fd00::2]:80`
fn socket_address(c: &mut Cursor<'_>) -> Parsed<SocketAddr> {
    let mut before = *c;
    let text = c.take(|ch| ch.is_ascii_hexdigit() || ".:[]".contains(ch));
    text.parse().or_else(|_| before.fail("an address with its port"))
}

fn socket(c: &mut Cursor<'_>) -> Parsed<Op> {
    if !c.eat("...") {
        c.want("AF_INET")?;
    }
    comma(c)?;
    let kind = bits(c, &["SOCK_STREAM", "SOCK_NONBLOCK"])?;
    comma(c)?;
    if !c.eat("IPPROTO_TCP") {
        c.want("0")?;
    }
    Ok(Op::Socket { nonblock: kind & 2 != 0 })
}

fn set(c: &mut Cursor<'_>, fd: Fd) -> Parsed<Op> {
    use SocketOption::{Cork, KeepAlive, Linger, NoDelay, Number, OobInline, ReuseAddr};
    use toe::SocketOption as N;
    comma(c)?;
    let known: &[(&str, SocketOption)] = match c.one_of(&["SOL_SOCKET", "SOL_IP", "IPPROTO_IP", "SOL_TCP", "IPPROTO_TCP"])? {
        0 => &[("SO_REUSEADDR", ReuseAddr), ("SO_KEEPALIVE", KeepAlive), ("SO_LINGER", Linger), ("SO_OOBINLINE", OobInline)],
        // Of both versions: IPV6_TCLASS and IPV6_UNICAST_HOPS are the same words.
        1 | 2 => &[("IP_TOS", Number(N::Tos)), ("IP_TTL", Number(N::Ttl))],
        _ => &[
            ("TCP_NODELAY", NoDelay),
            ("TCP_CORK", Cork),
            ("TCP_USER_TIMEOUT", Number(N::UserTimeout)),
            ("TCP_KEEPIDLE", Number(N::KeepIdle)),
            ("TCP_KEEPINTVL", Number(N::KeepInterval)),
            ("TCP_KEEPCNT", Number(N::KeepCount)),
            ("TCP_QUICKACK", Number(N::QuickAck)),
            ("TCP_LINGER2", Number(N::Linger2)),
            ("TCP_NOTSENT_LOWAT", Number(N::NotSentLowWater)),
            ("TCP_MAXSEG", Number(N::MaxSegment)),
            ("TCP_WINDOW_CLAMP", Number(N::WindowClamp)),
            ("TCP_SYNCNT", Number(N::SynRetries)),
            ("TCP_DEFER_ACCEPT", Number(N::DeferAccept)),
        ],
    };
    comma(c)?;
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let option = known[c.one_of(&names)?].1;
    comma(c)?;
    let value = if option == Linger { linger(c)? } else { bracketed_integer(c)? };
    number_after_comma(c)?;
    Ok(Op::Set { fd, option, value })
}

fn bracketed_integer(c: &mut Cursor<'_>) -> Parsed<i32> {
    c.want("[")?;
    let value = c.integer()?;
    c.want("]")?;
    Ok(value)
}

fn bracketed(c: &mut Cursor<'_>) -> Parsed<u32> {
    c.want("[")?;
    let value = c.u32()?;
    c.want("]")?;
    Ok(value)
}

/// `{onoff=1, linger=0}`
fn linger(c: &mut Cursor<'_>) -> Parsed<i32> {
    c.want("{")?;
    c.want("onoff=1")?;
    comma(c)?;
    c.want("linger=")?;
    let seconds = c.integer()?;
    c.want("}")?;
    Ok(seconds)
}

fn get_error(c: &mut Cursor<'_>, fd: Fd) -> Parsed<Op> {
    comma(c)?;
    c.want("SOL_SOCKET")?;
    comma(c)?;
    c.want("SO_ERROR")?;
    comma(c)?;
    c.want("[")?;
    let value = if c.eat("0") { None } else { Some(error_name(c)?) };
    c.want("]")?;
    comma(c)?;
    bracketed(c)?;
    Ok(Op::Error { fd, value })
}

/// `[{fd=4, events=POLLIN, revents=POLLIN}], 1, 0`
fn poll(c: &mut Cursor<'_>) -> Parsed<Op> {
    const NAMES: [&str; 6] = ["POLLIN", "POLLPRI", "POLLOUT", "POLLERR", "POLLHUP", "POLLRDHUP"];
    let set = |c: &mut Cursor<'_>| {
        let values = [ready::IN, ready::PRI, ready::OUT, ready::ERR, ready::HUP, ready::RDHUP];
        let chosen = bits(c, &NAMES)?;
        Ok(values.iter().enumerate().filter(|(i, _)| chosen >> i & 1 != 0).fold(0, |all, (_, bit)| all | bit))
    };
    c.want("[{")?;
    c.want("fd=")?;
    let fd = c.u32()?;
    comma(c)?;
    c.want("events=")?;
    let asked = set(c)?;
    comma(c)?;
    c.want("revents=")?;
    let ready = set(c)?;
    c.want("}]")?;
    comma(c)?;
    c.want("1")?;
    comma(c)?;
    c.want("0")?;
    Ok(Op::Poll { fd, asked, ready })
}
