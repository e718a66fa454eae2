//! Moving bytes: recv, send, sendfile and splice, blocking or not, with Linux's flags.

use crate::hub::{self, Interest};
use crate::process::thread_id;
use crate::waiting::{Step, Wait};
use crate::{Errno, Sock, urgent};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use toe::Socket;
use toe::link::lock::SlotLock;
use toe::link::sys::{AppFd, ppoll, signals_restart};
use toe::link::user::{IoSpan, Sink, Source, plausible, total};
use toe::socket::{Take, own_flags, ready};
use toe_abi::desc::hc_flags;

/// Most spans in one call (UIO_MAXIOV).
pub const SPANS_MAX: usize = 1024;
/// Most bytes that one call moves (MAX_RW_COUNT).
const CALL_MAX: usize = 0x7fff_f000;

/// Which of a socket's two timeouts.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Rx,
    Tx,
}

/// The end of a call that begins now.
pub(crate) fn deadline(socket: &Socket<'_>, side: Side) -> Option<Instant> {
    timeout(socket, side).and_then(|t| Instant::now().checked_add(t))
}

/// The socket's SO_RCVTIMEO or SO_SNDTIMEO.
pub(crate) fn timeout(socket: &Socket<'_>, side: Side) -> Option<Duration> {
    let us = match side {
        Side::Rx => socket.slot().rx.timeout_us.load(Relaxed),
        Side::Tx => socket.slot().tx.timeout_us.load(Relaxed),
    };
    (us != 0).then(|| Duration::from_micros(us.into()))
}

pub(crate) fn is_nonblocking(socket: &Socket<'_>) -> bool {
    socket.slot().tx.nonblocking.load(Relaxed) != 0
}

/// How a call waits.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// Bits of [`ready`] that promise `attempt` an outcome.
    pub want: u32,
    /// Bytes to receive without which there is none, unless the end has come. 0: as many as make it readable.
    pub bytes: u32,
    /// Wait at all.
    pub wait: bool,
    /// When the call's time is over, in however many pieces it waits.
    pub until: Option<Instant>,
}

impl Patience {
    /// Whether what `attempt` needs is there now.
    fn is_met(&self, socket: &Socket<'_>) -> bool {
        match self.bytes {
            0 => socket.readiness() & self.want != 0,
            bytes => socket.readable() >= bytes || socket.rx_ended() || socket.stops_at_mark(),
        }
    }

    /// Whether `attempt` has an outcome as the socket is now.
    fn is_over(&self, socket: &Socket<'_>) -> bool {
        self.is_met(socket) || socket.readiness() & (ready::ERR | ready::HUP) != 0
    }
}

/// Repeats `attempt` until it has an outcome. EAGAIN: that would take waiting, or the time is over.
pub(crate) fn block<T>(socket: Socket<'_>, patience: Patience, mut attempt: impl FnMut() -> Result<Option<T>, Errno>) -> Result<T, Errno> {
    if let Some(outcome) = attempt()? {
        return Ok(outcome);
    }
    let slot = socket.index();
    let mut waiting = None;
    let mut interest = Interest::default();
    loop {
        let mut hub = hub::lock();
        hub.drain();
        if hub.holders(slot) == 0 {
            return Err(Errno::BADF);
        }
        // Under the lock under which `Wait::step` registers: what changes from here on wakes us.
        if patience.is_over(&socket) {
            drop(hub);
            if let Some(outcome) = attempt()? {
                return Ok(outcome);
            }
            hub = hub::lock();
        }
        // Something may have come, or somebody else may have taken what was there, while the lock was not held.
        if patience.is_met(&socket) {
            continue;
        }
        if patience.want & ready::OUT != 0 {
            hub.note_unwritable(slot);
        }
        if !patience.wait {
            return Err(Errno::AGAIN);
        }
        if interest.slots.is_empty() {
            interest = Interest { slots: vec![slot], moves_bytes: true, ..Interest::default() };
        }
        let waiting = waiting.get_or_insert_with(|| Wait::until(patience.until, None));
        match waiting.step(hub, &interest, &mut []) {
            Ok(Step::Again) => {}
            Ok(Step::Timeout) => return Err(Errno::AGAIN),
            // As Linux: with a timeout, a call is not restarted.
            Err(Errno::INTR) if patience.until.is_none() && signals_restart() => {}
            Err(e) => return Err(e),
        }
    }
}

/// What a call answers that has moved `done` bytes when `error` came up: the bytes, and the next call gets the error.
fn partly(socket: &Socket<'_>, done: usize, error: Errno) -> Result<usize, Errno> {
    if done == 0 {
        return Err(error);
    }
    if !matches!(error, Errno::AGAIN | Errno::INTR | Errno::BADF | Errno::CANCELED) {
        socket.return_error();
    }
    Ok(done)
}

/// How many bytes a call that receives up to `len` waits for: as [`Patience`] has it.
fn least(socket: &Socket<'_>, len: usize, whole: bool, peek: bool) -> u32 {
    let low_water = socket.slot().rx.low_water.load(Relaxed).max(1);
    let wanted = match (whole, peek) {
        // It waits for the rest by itself.
        (true, false) => 1,
        (true, true) => u32::MAX,
        (false, _) => low_water,
    };
    if wanted.max(low_water) == 1 {
        return 0;
    }
    let most = socket.slot().conn.rx_len.load(Relaxed);
    wanted.min(most).min(u32::try_from(len).unwrap_or(u32::MAX)).max(1)
}

/// Checks what the kernel checks first: too many spans, too many bytes. Answers the bytes.
fn measure(spans: &[IoSpan], too_many: Errno) -> Result<usize, Errno> {
    if spans.len() > SPANS_MAX {
        return Err(too_many);
    }
    total(spans).ok_or(Errno::INVAL)
}

impl Sock {
    /// recv(2), read(2), readv(2), recvmsg(2) without their addresses.
    pub fn recv(self, spans: &[IoSpan], flags: i32) -> Result<usize, Errno> {
        let socket = self.socket()?;
        let len = measure(spans, Errno::MSGSIZE)?;
        if flags & libc::MSG_OOB != 0 {
            return urgent::recv(&socket, spans, flags);
        }
        if flags & libc::MSG_ERRQUEUE != 0 {
            return Err(Errno::AGAIN);
        }
        let whole = flags & libc::MSG_WAITALL != 0;
        let peek = flags & libc::MSG_PEEK != 0;
        let wait = !is_nonblocking(&socket) && flags & libc::MSG_DONTWAIT == 0;
        let mut patience = Patience {
            want: ready::IN,
            bytes: if wait { least(&socket, len, whole, peek) } else { 0 },
            wait,
            until: deadline(&socket, Side::Rx),
        };
        let sane = flags & libc::MSG_TRUNC != 0 || plausible(spans);
        let mut sink = Sink::new(spans);
        let mut done = 0;
        loop {
            let step = block(socket, patience, || {
                if patience.bytes > 0 && !patience.is_over(&socket) {
                    return Ok(None);
                }
                if !sane && socket.readable() > 0 {
                    return Err(Errno::FAULT);
                }
                self.recv_step(&socket, &mut sink, len - done, flags)
            });
            match step {
                // What there is of the bytes to be waited for.
                Err(Errno::AGAIN | Errno::INTR) if patience.bytes > 0 && socket.readable() > 0 => {
                    patience = Patience { bytes: 0, wait: false, ..patience };
                    continue;
                }
                Ok(0) => return Ok(done),
                Ok(n) => done += n,
                Err(e) => return partly(&socket, done, e),
            }
            // As Linux: what has read something stops before an urgent byte.
            if done >= len || !whole || peek || socket.at_mark() {
                return Ok(done);
            }
        }
    }

    /// Receives what is there.
    /// RFC 9293 3.10.3-1.
    fn recv_step(self, socket: &Socket<'_>, sink: &mut Sink<'_>, len: usize, flags: i32) -> Result<Option<usize>, Errno> {
        let take = if flags & libc::MSG_PEEK != 0 { Take::Peek } else { Take::Consume };
        let got = {
            let _lock = SlotLock::lock(&socket.slot().rx.lock, thread_id());
            if flags & libc::MSG_TRUNC != 0 { socket.discard(len, take) } else { socket.receive(sink, take) }
        };
        if socket.owes_window() {
            hub::lock().update(self.slot);
        }
        got
    }

    /// send(2), write(2), writev(2), sendmsg(2). EPIPE is the caller's to turn into SIGPIPE.
    pub fn send(self, spans: &[IoSpan], flags: i32) -> Result<usize, Errno> {
        let socket = self.socket()?;
        let len = measure(spans, Errno::MSGSIZE)?.min(CALL_MAX);
        if !plausible(spans) {
            return Err(Errno::FAULT);
        }
        if flags & libc::MSG_FASTOPEN != 0 {
            // As Linux where TCP Fast Open is switched off: the program connects first, then.
            return Err(Errno::OPNOTSUPP);
        }
        let urgent = flags & libc::MSG_OOB != 0;
        self.hold_back(&socket, flags & libc::MSG_MORE != 0);
        let mut source = Source::new(spans);
        self.send_all(&socket, flags, len, |_| match source.left() {
            0 => socket.may_send().map(|_| Some(0)),
            _ if urgent => socket.send_urgent(&mut source),
            _ => socket.send(&mut source),
        })
    }

    /// Repeats `step` (which sends what fits, given how much is done) until `len` bytes are sent, or an end.
    fn send_all(
        self,
        socket: &Socket<'_>,
        flags: i32,
        len: usize,
        mut step: impl FnMut(usize) -> Result<Option<usize>, Errno>,
    ) -> Result<usize, Errno> {
        let patience = Patience {
            want: ready::OUT,
            bytes: 0,
            wait: !is_nonblocking(socket) && flags & libc::MSG_DONTWAIT == 0,
            until: deadline(socket, Side::Tx),
        };
        let mut done = 0;
        loop {
            let attempt = block(*socket, patience, || {
                let sent = {
                    let _lock = SlotLock::lock(&socket.slot().tx.lock, thread_id());
                    step(done)?
                };
                let Some(n) = sent else { return Ok(None) };
                if n > 0 {
                    let mut hub = hub::lock();
                    hub.update(self.slot);
                    if done + n < len {
                        // Whoever sees a short count waits to hear of room.
                        hub.note_unwritable(self.slot);
                        hub.changed(self.slot, toe::Change::OUT);
                    }
                }
                Ok(sent)
            });
            match attempt {
                Ok(0) => return Ok(done),
                Ok(n) => done += n,
                Err(e) => return partly(socket, done, e),
            }
            if done >= len {
                return Ok(done);
            }
        }
    }

    /// MSG_MORE: the card is to hold partial segments back until a call without it.
    fn hold_back(self, socket: &Socket<'_>, more: bool) {
        if more && socket.tx_flags() & hc_flags::CORK == 0 {
            socket.set_flag(own_flags::MORE, true);
            socket.set_tx_flags(hc_flags::CORK, true);
        } else if !more && socket.has_flag(own_flags::MORE) {
            socket.set_flag(own_flags::MORE, false);
            socket.set_tx_flags(hc_flags::CORK, false);
        }
    }

    /// sendfile(2) to this socket: the file's bytes go straight into the transmit buffer. `offset` as in the call.
    pub fn sendfile(self, file: i32, offset: Option<&mut i64>, count: usize) -> Result<usize, Errno> {
        let socket = self.socket()?;
        if crate::kind(file) != crate::Kind::Other {
            return Err(Errno::INVAL);
        }
        let file = AppFd(file);
        if rustix::fs::fcntl_getfl(file)? & rustix::fs::OFlags::RWMODE == rustix::fs::OFlags::WRONLY {
            return Err(Errno::BADF);
        }
        let stat = rustix::fs::fstat(file)?;
        use rustix::fs::FileType;
        if !matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::BlockDevice) {
            return Err(Errno::INVAL);
        }
        let start = match &offset {
            Some(at) => Some(u64::try_from(**at).map_err(|_| Errno::INVAL)?),
            None => None,
        };
        let count = count.min(CALL_MAX);
        if count == 0 {
            return Ok(0);
        }
        self.hold_back(&socket, false);
        let done = self.send_all(&socket, 0, count, |done| socket.send_file(file, start.map(|at| at + done as u64), count - done))?;
        if let Some(at) = offset {
            *at += done as i64;
        }
        Ok(done)
    }

    /// splice(2) from a pipe to this socket.
    pub fn splice_from(self, pipe: i32, count: usize, flags: u32) -> Result<usize, Errno> {
        use rustix::fs::{FileType, OFlags};
        let socket = self.socket()?;
        if crate::kind(pipe) != crate::Kind::Other {
            return Err(Errno::INVAL);
        }
        let pipe = AppFd(pipe);
        let of_pipe = rustix::fs::fcntl_getfl(pipe)?;
        if of_pipe & OFlags::RWMODE == OFlags::WRONLY {
            return Err(Errno::BADF);
        }
        if FileType::from_raw_mode(rustix::fs::fstat(pipe)?.st_mode) != FileType::Fifo {
            return Err(Errno::INVAL);
        }
        if count == 0 {
            return Ok(0);
        }
        let wait = flags & libc::SPLICE_F_NONBLOCK == 0 && !of_pipe.contains(OFlags::NONBLOCK);
        // No more than there is: nobody is to wait for a pipe who holds the socket's lock.
        let there = in_pipe(pipe, wait)?.min(count);
        self.hold_back(&socket, flags & libc::SPLICE_F_MORE != 0);
        self.send_all(&socket, 0, there, |done| socket.send_file(pipe, None, there - done))
    }
}

/// How many bytes are in a pipe. 0: it is at its end.
fn in_pipe(pipe: AppFd, wait: bool) -> Result<usize, Errno> {
    loop {
        let there = rustix::io::ioctl_fionread(pipe)?;
        if there > 0 {
            return Ok(there as usize);
        }
        let mut fds = [libc::pollfd { fd: pipe.0, events: libc::POLLIN, revents: 0 }];
        if ppoll(&mut fds, (!wait).then_some(Duration::ZERO), None)? == 0 {
            return Err(Errno::AGAIN);
        }
        if fds[0].revents & libc::POLLIN == 0 {
            return Ok(0);
        }
    }
}
