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

/// Closes the context and all its sockets.
///
/// # Safety
/// `toe` comes from `toe_open` and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_close_context(toe: *mut ToeContext) {
    if !toe.is_null() {
        // SAFETY: made by `Box::into_raw` in `toe_open`.
        drop(unsafe { Box::from_raw(toe) });
    }
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
    let (toe, buf) = unsafe { (context(toe), slice_mut(buf, len)) };
    length(toe.recv(SocketId(socket), buf))
}

/// Sends; -EAGAIN: no room.
///
/// # Safety
/// As [`context`]; `len` bytes at `buf` are readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_send(toe: *mut ToeContext, socket: u32, buf: *const c_void, len: usize) -> isize {
    // SAFETY: the caller's promise.
    let (toe, buf) = unsafe { (context(toe), &*slice_mut(buf.cast_mut(), len)) };
    length(toe.send(SocketId(socket), buf))
}

/// As [`toe_send`], and all up to there is urgent.
///
/// # Safety
/// As [`toe_send`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_send_urgent(toe: *mut ToeContext, socket: u32, buf: *const c_void, len: usize) -> isize {
    // SAFETY: the caller's promise.
    let (toe, buf) = unsafe { (context(toe), &*slice_mut(buf.cast_mut(), len)) };
    length(toe.send_urgent(SocketId(socket), buf))
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

/// Sleeps until something may have changed, at most `timeout_ms` (negative: for ever).
///
/// # Safety
/// As [`context`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toe_wait(toe: *mut ToeContext, timeout_ms: c_int) -> c_int {
    let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    // SAFETY: the caller's promise.
    unsafe { context(toe) }.wait(timeout).map_or_else(|e| code(&e), |()| 0)
}
