//! The C interface: `include/toe.h`.
//!
//! Every function answers a negative errno on failure. A context is used by one thread at a time.
#![allow(unsafe_code)]

use crate::context::{Context, Error, Event, SocketId};
use rustix::io::Errno;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::time::Duration;
use toe_link::slot::Addr;

/// Opaque to C.
pub struct ToeContext(Context);

/// `struct toe_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct ToeEvent {
    pub socket: u32,
    pub ready: u32,
}

fn code(error: &Error) -> c_int {
    let errno = match error {
        Error::Os(errno) => *errno,
        Error::NoSocket => Errno::BADF,
        Error::Open(_) | Error::Region(_) | Error::Failed => Errno::NETDOWN,
    };
    -errno.raw_os_error()
}

/// Would-block as -EAGAIN.
fn length(result: Result<Option<usize>, Error>) -> isize {
    match result {
        Ok(Some(n)) => n as isize,
        Ok(None) => -(Errno::AGAIN.raw_os_error() as isize),
        Err(e) => code(&e) as isize,
    }
}

fn id(result: Result<SocketId, Error>) -> i64 {
    match result {
        Ok(socket) => socket.0.into(),
        Err(e) => code(&e).into(),
    }
}

/// # Safety
/// `toe` comes from `toe_open` and has not been closed.
unsafe fn context<'a>(toe: *mut ToeContext) -> &'a mut Context {
    // SAFETY: the caller's promise.
    unsafe { &mut (*toe).0 }
}

/// Opens a context at toed's socket (NULL: in the run folder). NULL on failure, with the reason on stderr.
///
/// # Safety
/// `path` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_open(path: *const c_char) -> *mut ToeContext {
    let path = if path.is_null() {
        toe_link::client::run_dir().join("toed.sock")
    } else {
        use std::os::unix::ffi::OsStrExt;
        // SAFETY: the caller's promise.
        std::path::PathBuf::from(std::ffi::OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()))
    };
    match Context::open(&path) {
        Ok(context) => Box::into_raw(Box::new(ToeContext(context))),
        Err(e) => {
            eprintln!("libtoe: {e}");
            std::ptr::null_mut()
        }
    }
}

/// Closes the context and all its sockets, as [`toe_close`].
///
/// # Safety
/// `toe` comes from `toe_open` and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_close_context(toe: *mut ToeContext) {
    if !toe.is_null() {
        // SAFETY: made by `Box::into_raw` in `toe_open`.
        unsafe { Box::from_raw(toe) }.0.close_all();
    }
}

/// The address and port in a `struct sockaddr_in` or `struct sockaddr_in6`. EINVAL: it is too short; EAFNOSUPPORT: it is of another family.
fn name(bytes: &[u8]) -> Result<Addr, Errno> {
    const INET: i32 = libc::AF_INET;
    const INET6: i32 = libc::AF_INET6;
    let (family, rest) = bytes.split_first_chunk().ok_or(Errno::INVAL)?;
    let (port, rest) = rest.split_first_chunk().ok_or(Errno::INVAL)?;
    let port = u16::from_be_bytes(*port);
    match u16::from_ne_bytes(*family).into() {
        INET => rest.first_chunk().map(|ip| Addr::v4(*ip, port)),
        // Behind the flow label.
        INET6 => rest.get(4..).and_then(|rest| rest.first_chunk()).map(|ip| Addr::v6(*ip, port)),
        _ => return Err(Errno::AFNOSUPPORT),
    }
    .ok_or(Errno::INVAL)
}

/// Listens at a `struct sockaddr_in` or `struct sockaddr_in6`.
///
/// # Safety
/// As [`context`]; `len` bytes at `addr` are readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_listen_at(toe: *mut ToeContext, addr: *const c_void, len: u32, backlog: u32) -> i64 {
    // SAFETY: the caller's promise.
    let (toe, addr) = unsafe { (context(toe), &*slice_mut(addr.cast_mut(), len as usize)) };
    id(name(addr).map_err(Error::from).and_then(|addr| toe.listen(addr, backlog)))
}

/// Starts to connect to a `struct sockaddr_in` or `struct sockaddr_in6`; an event tells the outcome.
///
/// # Safety
/// As [`toe_listen_at`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_connect_to(toe: *mut ToeContext, addr: *const c_void, len: u32) -> i64 {
    // SAFETY: the caller's promise.
    let (toe, addr) = unsafe { (context(toe), &*slice_mut(addr.cast_mut(), len as usize)) };
    id(name(addr).map_err(Error::from).and_then(|addr| toe.connect(addr)))
}

/// Listens at an IPv4 address (network order) and port (host order).
///
/// # Safety
/// As [`context`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_listen(toe: *mut ToeContext, ip: u32, port: u16, backlog: u32) -> i64 {
    // SAFETY: the caller's promise.
    id(unsafe { context(toe) }.listen(Addr::v4(ip.to_ne_bytes(), port), backlog))
}

/// Starts to connect; an event tells the outcome.
///
/// # Safety
/// As [`context`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_connect(toe: *mut ToeContext, ip: u32, port: u16) -> i64 {
    // SAFETY: the caller's promise.
    id(unsafe { context(toe) }.connect(Addr::v4(ip.to_ne_bytes(), port)))
}

/// Takes a waiting connection; -EAGAIN: none.
///
/// # Safety
/// As [`context`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_accept(toe: *mut ToeContext, listener: u32) -> i64 {
    // SAFETY: the caller's promise.
    match unsafe { context(toe) }.accept(SocketId(listener)) {
        Ok(Some(socket)) => socket.0.into(),
        Ok(None) => -i64::from(Errno::AGAIN.raw_os_error()),
        Err(e) => code(&e).into(),
    }
}

/// Receives; 0: end of file; -EAGAIN: nothing yet.
///
/// # Safety
/// As [`context`]; `len` bytes at `buf` are writable and initialised.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_recv(toe: *mut ToeContext, socket: u32, buf: *mut c_void, len: usize) -> isize {
    // SAFETY: the caller's promise.
    let (toe, buf) = unsafe { (context(toe), buffer(buf, len)) };
    length(buf.and_then(|buf| toe.recv(SocketId(socket), buf)))
}

/// Sends; -EAGAIN: no room.
///
/// # Safety
/// As [`context`]; `len` bytes at `buf` are readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_send(toe: *mut ToeContext, socket: u32, buf: *const c_void, len: usize) -> isize {
    // SAFETY: the caller's promise.
    let (toe, buf) = unsafe { (context(toe), buffer(buf.cast_mut(), len)) };
    length(buf.and_then(|buf| toe.send(SocketId(socket), buf)))
}

/// As [`toe_send`], and all up to there is urgent.
///
/// # Safety
/// As [`toe_send`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_send_urgent(toe: *mut ToeContext, socket: u32, buf: *const c_void, len: usize) -> isize {
    // SAFETY: the caller's promise.
    let (toe, buf) = unsafe { (context(toe), buffer(buf.cast_mut(), len)) };
    length(buf.and_then(|buf| toe.send_urgent(SocketId(socket), buf)))
}

/// Takes the urgent byte; -EINVAL: there is none; -EAGAIN: not yet; -ENODATA: the peer has sent everything.
///
/// # Safety
/// As [`context`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_recv_urgent(toe: *mut ToeContext, socket: u32) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { context(toe) }.recv_urgent(SocketId(socket)) {
        Ok(Some(byte)) => byte.into(),
        Ok(None) => -Errno::NODATA.raw_os_error(),
        Err(e) => code(&e),
    }
}

/// 1: the urgent byte comes next; 0: it does not.
///
/// # Safety
/// As [`context`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_at_mark(toe: *mut ToeContext, socket: u32) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { context(toe) }.at_mark(SocketId(socket)).map_or_else(|e| code(&e), c_int::from)
}

/// SO_OOBINLINE.
///
/// # Safety
/// As [`context`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_set_oob_inline(toe: *mut ToeContext, socket: u32, on: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { context(toe) }.set_oob_inline(SocketId(socket), on != 0).map_or_else(|e| code(&e), |()| 0)
}

/// # Safety
/// `len` bytes at `ptr` are valid, unless `len` is 0.
unsafe fn slice_mut<'a>(ptr: *mut c_void, len: usize) -> &'a mut [u8] {
    if len == 0 || ptr.is_null() {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(ptr.cast(), len.min(isize::MAX as usize)) }
}

/// As [`slice_mut`]. EFAULT: there are no bytes where there should be some. (No bytes would be the end of the stream.)
///
/// # Safety
/// As [`slice_mut`].
unsafe fn buffer<'a>(ptr: *mut c_void, len: usize) -> Result<&'a mut [u8], Error> {
    if ptr.is_null() && len > 0 {
        return Err(Errno::FAULT.into());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { slice_mut(ptr, len) })
}

/// Nothing more will be sent.
///
/// # Safety
/// As [`context`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_shutdown(toe: *mut ToeContext, socket: u32) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { context(toe) }.shutdown(SocketId(socket)).map_or_else(|e| code(&e), |()| 0)
}

/// Done with a socket.
///
/// # Safety
/// As [`context`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_close(toe: *mut ToeContext, socket: u32) {
    // SAFETY: the caller's promise.
    unsafe { context(toe) }.close(SocketId(socket));
}

/// Takes up to `max` events (at most 1024 a call); returns how many.
///
/// # Safety
/// As [`context`]; `max` events at `events` are writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_poll(toe: *mut ToeContext, events: *mut ToeEvent, max: usize) -> usize {
    let mut batch = [Event::default(); 64];
    let mut n = 0;
    while n < max.min(1024) {
        let want = (max - n).min(batch.len());
        // SAFETY: the caller's promise.
        let got = unsafe { context(toe) }.poll(&mut batch[..want]);
        for event in &batch[..got] {
            // SAFETY: `n` is below `max`.
            unsafe { events.add(n).write(ToeEvent { socket: event.socket.0, ready: event.ready }) };
            n += 1;
        }
        if got < want {
            break;
        }
    }
    n
}

/// Sleeps until something may have changed, at most `timeout_ms` (negative: for ever). -ENETDOWN: card or daemon have gone, and every socket was
/// reported.
///
/// # Safety
/// As [`context`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_wait(toe: *mut ToeContext, timeout_ms: c_int) -> c_int {
    let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    // SAFETY: the caller's promise.
    unsafe { context(toe) }.wait(timeout).map_or_else(|e| code(&e), |()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockaddr(family: i32, rest: &[u8]) -> Vec<u8> {
        [&(family as u16).to_ne_bytes()[..], rest].concat()
    }

    #[test]
    fn names_are_those_of_c() {
        let v4 = sockaddr(libc::AF_INET, &[0x1f, 0x90, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((v4.len(), name(&v4)), (size_of::<libc::sockaddr_in>(), Ok(Addr::v4([10, 0, 0, 2], 8080))));
        let ip: [u8; 16] = std::array::from_fn(|i| i as u8 + 0x20);
        let v6 = sockaddr(libc::AF_INET6, &[&[0x1f, 0x90, 0xff, 0xff, 0xff, 0xff][..], &ip, &[0; 4]].concat());
        assert_eq!((v6.len(), name(&v6)), (size_of::<libc::sockaddr_in6>(), Ok(Addr::v6(ip, 8080))));
    }

    #[test]
    fn a_buffer_that_is_not_there_is_no_empty_one() {
        let nowhere = std::ptr::null_mut();
        // SAFETY: no bytes.
        let (none, some) = unsafe { (buffer(nowhere, 0), buffer(nowhere, 3)) };
        assert_eq!((length(none.map(|buf| Some(buf.len()))), length(some.map(|buf| Some(buf.len())))), (0, -(libc::EFAULT as isize)));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        assert_eq!(name(&sockaddr(libc::AF_UNIX, b"/tmp/socket")), Err(Errno::AFNOSUPPORT));
        let v6 = sockaddr(libc::AF_INET6, &[0; 21]);
        for len in 0..v6.len() {
            assert_eq!(name(&v6[..len]), Err(Errno::INVAL), "{len}");
        }
        assert_eq!(name(&sockaddr(libc::AF_INET, &[0; 5])), Err(Errno::INVAL));
    }
}
