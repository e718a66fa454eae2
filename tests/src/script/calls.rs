//! The application of a script: system calls on the library, with the kernel's rules for numbers, waiting and errors.

use super::ast::{Conn, Errno, Fd, IpVersion, Op, SocketOption};
use super::frame::{FROM_PEER, FROM_US};
use super::parse::errno_of;
use super::space::LISTEN_PORT;
use crate::sim::host::{App, SimDaemon};
use crate::sim::stream::byte;
use rustix::io::Errno as E;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use toe::link::slot::Addr;
use toe::link::user::Sink;
use toe::socket::{Take, own_flags, ready};
use toe::{Context, Error, Event, SocketId};
use toe_abi::desc::hc_flags;
use toe_abi::region::slot_state;

type Toe = Context<SimDaemon>;
/// A call's result; `None`: it has to wait.
type Answer = Result<Option<u32>, E>;

/// What a descriptor stands for.
#[derive(Default)]
struct Sock {
    /// Once it listens or has a connection.
    id: Option<SocketId>,
    nonblock: bool,
    /// Set before there was a slot to set them in.
    options: Vec<(SocketOption, i32)>,
    /// SO_LINGER with no seconds.
    abort: bool,
    /// The outcome of a connect() that had to wait was reported.
    connected: bool,
    /// Bytes written so far.
    written: u64,
}

impl Sock {
    fn numbers(&self) -> Vec<(toe::SocketOption, i32)> {
        let number = |(option, value): &(SocketOption, i32)| match option {
            SocketOption::Number(option) => Some((*option, *value)),
            _ => None,
        };
        self.options.iter().filter_map(number).collect()
    }
}

/// Makes one call at a time; one that waits is tried again whenever the library has news.
pub struct Caller {
    ip: IpVersion,
    socks: BTreeMap<Fd, Sock>,
    op: Option<Op>,
    /// The call has not been tried yet.
    fresh: bool,
    /// Bytes that the write() which waits has written.
    progress: u32,
    done: Option<Result<Result<u32, Errno>, String>>,
    /// Connections opened since they were last taken: which, and from which port.
    opened: Vec<(Conn, u16)>,
}

impl Caller {
    /// An application that talks over this version of IP.
    pub fn new(ip: IpVersion) -> Self {
        Self { ip, socks: BTreeMap::new(), op: None, fresh: false, progress: 0, done: None, opened: Vec::new() }
    }

    pub fn start(&mut self, op: Op) {
        self.op = Some(op);
        self.fresh = true;
        self.progress = 0;
    }

    /// A call has not returned yet.
    pub fn waits(&self) -> bool {
        self.op.is_some()
    }

    /// Whether the call would go on waiting, by what its descriptor says.
    fn may_wait(&self, op: &Op) -> bool {
        let (fd, dontwait) = match op {
            Op::Accept { fd } | Op::Connect { fd, .. } => (fd, false),
            Op::Read { oob: true, .. } => return false,
            Op::Read { fd, dontwait, .. } | Op::Write { fd, dontwait, .. } => (fd, *dontwait),
            _ => return false,
        };
        !dontwait && self.socks.get(fd).is_some_and(|s| !s.nonblock)
    }

    /// What the call returned. `Err`: it did something that no kernel would.
    pub fn take_done(&mut self) -> Option<Result<Result<u32, Errno>, String>> {
        self.done.take()
    }

    pub fn take_opened(&mut self) -> Vec<(Conn, u16)> {
        std::mem::take(&mut self.opened)
    }

    /// `Err`: no kernel would do that. `Ok(None)`: it has to wait.
    fn attempt(&mut self, toe: &mut Toe, op: &Op) -> Result<Option<Result<u32, E>>, String> {
        let wait = self.may_wait(op);
        let answer = match *op {
            Op::Socket { nonblock } => Ok(Some(self.add(None, nonblock))),
            Op::NonBlock { fd, on } => self.sock(fd).map(|s| {
                s.nonblock = on;
                Some(0)
            }),
            Op::Bind { fd } => self.sock(fd).map(|_| Some(0)),
            Op::Listen { fd, backlog } => self.listen(toe, fd, backlog),
            Op::Accept { fd } => self.accept(toe, fd),
            Op::Connect { fd, conn, to } => self.connect(toe, fd, conn, to),
            Op::Read { fd, oob: true, .. } => self.read_urgent(toe, fd)?,
            Op::Read { fd, len, peek, .. } => self.read(toe, fd, len, peek)?,
            Op::Write { fd, len, more, oob, .. } => self.write(toe, fd, len, more, oob, wait),
            Op::AtMark { fd } => self.with_id(fd).and_then(|id| toe.at_mark(id).map_err(errno)).map(|at| Some(at.into())),
            Op::Shutdown { fd } => self.with_id(fd).and_then(|id| toe.shutdown(id).map_err(errno).map(|()| Some(0))),
            Op::Close { fd } => self.close(toe, fd),
            Op::Set { fd, option, value } => self.set(toe, fd, option, value).map(|()| Some(0)),
            Op::Error { fd, value } => self.error(toe, fd, value)?,
            Op::Poll { fd, asked, ready } => self.poll(toe, fd, asked, ready)?,
        };
        Ok(match answer {
            Ok(None) if !wait => Some(Err(E::AGAIN)),
            answer => answer.transpose(),
        })
    }

    fn sock(&mut self, fd: Fd) -> Result<&mut Sock, E> {
        self.socks.get_mut(&fd).ok_or(E::BADF)
    }

    /// A descriptor's slot; without one it is not connected.
    fn with_id(&mut self, fd: Fd) -> Result<SocketId, E> {
        self.sock(fd)?.id.ok_or(E::NOTCONN)
    }

    /// The lowest number that is free; the first three are the terminal's.
    fn add(&mut self, id: Option<SocketId>, nonblock: bool) -> Fd {
        let fd = (3..).find(|fd| !self.socks.contains_key(fd)).unwrap_or_default();
        self.socks.insert(fd, Sock { id, nonblock, connected: true, ..Sock::default() });
        fd
    }

    fn listen(&mut self, toe: &mut Toe, fd: Fd, backlog: u32) -> Answer {
        let any = match self.ip {
            IpVersion::V4 => Addr::v4([0; 4], LISTEN_PORT),
            IpVersion::V6 => Addr { ip: [0; 16], port: LISTEN_PORT },
        };
        let sock = self.sock(fd)?;
        let id = toe.listen_with(any, backlog, &sock.numbers()).map_err(errno)?;
        sock.id = Some(id);
        self.set_the_rest(toe, fd)?;
        Ok(Some(0))
    }

    fn accept(&mut self, toe: &mut Toe, fd: Fd) -> Answer {
        let listener = self.sock(fd)?.id.ok_or(E::INVAL)?;
        Ok(toe.accept(listener).map_err(errno)?.map(|id| self.add(Some(id), false)))
    }

    fn connect(&mut self, toe: &mut Toe, fd: Fd, conn: Conn, to: Option<SocketAddr>) -> Answer {
        let again = !self.fresh;
        let peer = match to {
            None => Addr { ip: self.ip.peer_ip(), port: LISTEN_PORT },
            Some(SocketAddr::V4(to)) => Addr::v4(to.ip().octets(), to.port()),
            Some(SocketAddr::V6(to)) => Addr::v6(to.ip().octets(), to.port()),
        };
        let sock = self.sock(fd)?;
        let Some(id) = sock.id else {
            let id = toe.connect_with(peer, &sock.numbers()).map_err(errno)?;
            sock.id = Some(id);
            sock.connected = false;
            let nonblock = sock.nonblock;
            self.set_the_rest(toe, fd)?;
            let port = toe.socket(id).map_err(errno)?.slot().names.local().port;
            self.opened.push((conn, port));
            return if nonblock { Err(E::INPROGRESS) } else { Ok(None) };
        };
        let socket = toe.socket(id).map_err(errno)?;
        match socket.state() {
            slot_state::CONNECTING if again => Ok(None),
            slot_state::CONNECTING => Err(E::ALREADY),
            slot_state::CONNECTED if !sock.connected => {
                sock.connected = true;
                Ok(Some(0))
            }
            slot_state::CONNECTED => Err(E::ISCONN),
            _ => Err(socket.take_error().unwrap_or(E::CONNABORTED)),
        }
    }

    fn read(&mut self, toe: &mut Toe, fd: Fd, len: u32, peek: bool) -> Result<Answer, String> {
        let mut buf = vec![0; len as usize];
        let id = match self.with_id(fd) {
            Ok(id) => id,
            Err(e) => return Ok(Err(e)),
        };
        let got = match toe.socket(id) {
            Ok(socket) if peek => socket.receive(&mut Sink::from_slice(&mut buf), Take::Peek).map_err(Error::from),
            _ => toe.recv(id, &mut buf),
        };
        let Ok(Some(n)) = got else { return Ok(got.map(|_| None).map_err(errno)) };
        // Where they lie in the stream. An urgent byte may have been skipped before them.
        let socket = toe.socket(id).map_err(|e| e.to_string())?;
        let tail = socket.slot().rx.tail.load(Relaxed);
        let start = if peek { tail + u32::from(n > 0 && socket.at_mark()) } else { tail - n as u32 };
        let wrong = buf[..n].iter().zip(u64::from(start)..).find(|&(&b, at)| b != byte(FROM_PEER, at));
        match wrong {
            Some((_, at)) => Err(format!("byte {at} of what the peer sent came wrong")),
            None => Ok(Ok(Some(n as u32))),
        }
    }

    /// recv() of one byte with MSG_OOB: the one before the mark.
    fn read_urgent(&mut self, toe: &mut Toe, fd: Fd) -> Result<Answer, String> {
        let got = self.with_id(fd).and_then(|id| Ok((id, toe.recv_urgent(id).map_err(errno)?)));
        let (id, b) = match got {
            Ok((id, Some(b))) => (id, b),
            Ok((_, None)) => return Ok(Ok(Some(0))),
            Err(e) => return Ok(Err(e)),
        };
        let mark = toe.socket(id).map_err(|e| e.to_string())?.slot().rx.urgent.load(Relaxed) as u32;
        if b == byte(FROM_PEER, u64::from(mark) - 1) { Ok(Ok(Some(1))) } else { Err(format!("the byte before {mark} came wrong")) }
    }

    fn write(&mut self, toe: &mut Toe, fd: Fd, len: u32, more: bool, oob: bool, wait: bool) -> Answer {
        let id = self.with_id(fd)?;
        hold_back(toe, id, more)?;
        while self.progress < len {
            let left = (len - self.progress) as usize;
            let sock = self.sock(fd)?;
            let bytes: Vec<u8> = (sock.written..).take(left).map(|at| byte(FROM_US, at)).collect();
            let sent = if oob { toe.send_urgent(id, &bytes) } else { toe.send(id, &bytes) };
            let Some(n) = sent.map_err(errno)? else { break };
            sock.written += n as u64;
            self.progress += n as u32;
        }
        Ok((self.progress == len || (self.progress > 0 && !wait)).then_some(self.progress))
    }

    fn close(&mut self, toe: &mut Toe, fd: Fd) -> Answer {
        let sock = self.socks.remove(&fd).ok_or(E::BADF)?;
        match sock.id {
            Some(id) if sock.abort => toe.abort(id).map_err(errno)?,
            Some(id) => toe.close(id),
            None => {}
        }
        Ok(Some(0))
    }

    /// The options that are not numbers, which the socket has begun with.
    fn set_the_rest(&mut self, toe: &mut Toe, fd: Fd) -> Result<(), E> {
        let options = std::mem::take(&mut self.sock(fd)?.options);
        let rest = options.into_iter().filter(|(option, _)| !matches!(option, SocketOption::Number(_)));
        rest.into_iter().try_for_each(|(option, value)| self.set(toe, fd, option, value))
    }

    fn set(&mut self, toe: &mut Toe, fd: Fd, option: SocketOption, value: i32) -> Result<(), E> {
        let sock = self.sock(fd)?;
        let Some(id) = sock.id else {
            sock.abort |= option == SocketOption::Linger && value == 0;
            sock.options.push((option, value));
            return Ok(());
        };
        match option {
            SocketOption::ReuseAddr => {}
            SocketOption::Linger => sock.abort = value == 0,
            SocketOption::NoDelay => toe.set_nodelay(id, value != 0).map_err(errno)?,
            SocketOption::Cork => toe.set_cork(id, value != 0).map_err(errno)?,
            SocketOption::OobInline => toe.set_oob_inline(id, value != 0).map_err(errno)?,
            SocketOption::Number(option) => toe.set_option(id, option, value).map_err(errno)?,
            SocketOption::KeepAlive => toe.set_keepalive(id, value != 0).map_err(errno)?,
        }
        Ok(())
    }

    fn error(&mut self, toe: &Toe, fd: Fd, want: Option<Errno>) -> Result<Answer, String> {
        let id = match self.with_id(fd) {
            Ok(id) => id,
            Err(e) => return Ok(Err(e)),
        };
        let got = toe.socket(id).map_err(|e| e.to_string())?.take_error();
        if got.map(E::raw_os_error) == want.map(|e| e.code) {
            return Ok(Ok(Some(0)));
        }
        Err(format!("SO_ERROR: expected {}, got {got:?}", want.map_or("0", |e| e.name)))
    }

    fn poll(&mut self, toe: &Toe, fd: Fd, asked: u32, want: u32) -> Result<Answer, String> {
        let id = match self.with_id(fd) {
            Ok(id) => id,
            Err(e) => return Ok(Err(e)),
        };
        let got = toe.socket(id).map_err(|e| e.to_string())?.readiness() & (asked | ready::ERR | ready::HUP);
        if got == want {
            return Ok(Ok(Some((got != 0).into())));
        }
        Err(format!("revents: expected {want:#x}, got {got:#x}"))
    }
}

/// MSG_MORE: as `toe_sockets` does it.
fn hold_back(toe: &Toe, id: SocketId, more: bool) -> Result<(), E> {
    let socket = toe.socket(id).map_err(errno)?;
    if more && socket.tx_flags() & hc_flags::CORK == 0 {
        socket.set_flag(own_flags::MORE, true);
        socket.set_tx_flags(hc_flags::CORK, true);
    } else if !more && socket.has_flag(own_flags::MORE) {
        socket.set_flag(own_flags::MORE, false);
        socket.set_tx_flags(hc_flags::CORK, false);
    }
    Ok(())
}

fn errno(e: Error) -> E {
    match e {
        Error::Os(e) => e,
        _ => E::IO,
    }
}

impl App for Caller {
    fn run(&mut self, toe: &mut Toe, _events: &[Event], _now_us: u64) -> bool {
        let Some(op) = self.op.take() else { return false };
        let outcome = self.attempt(toe, &op);
        self.fresh = false;
        match outcome {
            Ok(None) => {
                self.op = Some(op);
                return false;
            }
            Ok(Some(result)) => {
                let named = |e: E| errno_of(e.raw_os_error()).ok_or(format!("an errno that scripts do not know: {e}"));
                self.done = Some(match result {
                    Ok(n) => Ok(Ok(n)),
                    Err(e) => named(e).map(Err),
                });
            }
            Err(why) => self.done = Some(Err(why)),
        }
        true
    }

    fn next_us(&self) -> Option<u64> {
        self.fresh.then_some(0)
    }
}
