//! Sockets: socket, bind, listen, accept, connect, names and options.

use crate::cancel::point;
use crate::real::{answer, status};
use libc::{c_int, c_void, sockaddr, socklen_t};
use toe_sockets::open::Outcome;
use toe_sockets::{Errno, Sock};

/// Most bytes of an option's value that are looked at.
const VALUE_MAX: usize = 256;

/// `len` bytes of the application; EINVAL: a negative length, EFAULT: no bytes.
///
/// # Safety
/// `len` bytes at `at` are readable, if it is not null.
unsafe fn bytes<'a>(at: *const c_void, len: socklen_t) -> Result<&'a [u8], Errno> {
    let len = length(len)?;
    if at.is_null() && len > 0 {
        return Err(Errno::FAULT);
    }
    // SAFETY: the caller's promise; an empty slice may be at any address that is not null.
    Ok(if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(at.cast(), len) } })
}

/// A length, which the kernel reads as an int.
fn length(len: socklen_t) -> Result<usize, Errno> {
    usize::try_from(len.cast_signed()).map_err(|_| Errno::INVAL)
}

/// An application's address as bytes.
///
/// # Safety
/// As [`bytes`].
unsafe fn address<'a>(addr: *const sockaddr, len: socklen_t) -> Result<&'a [u8], Errno> {
    if length(len)? > size_of::<libc::sockaddr_storage>() {
        return Err(Errno::INVAL);
    }
    // SAFETY: the caller's promise.
    unsafe { bytes(addr.cast(), len) }
}

/// Writes an address as accept() and getsockname() do: as much as there is room for, and the true length.
///
/// # Safety
/// If neither is null, `*len` bytes at `addr` are writable.
unsafe fn put(name: &[u8], addr: *mut sockaddr, len: *mut socklen_t) -> Result<(), Errno> {
    if len.is_null() {
        return Err(Errno::FAULT);
    }
    // SAFETY: the caller's promise.
    unsafe {
        let room = length(*len)?.min(name.len());
        if addr.is_null() && room > 0 {
            return Err(Errno::FAULT);
        }
        std::ptr::copy_nonoverlapping(name.as_ptr(), addr.cast(), room);
        *len = name.len() as socklen_t;
    }
    Ok(())
}

/// Whether the call has been done; `None`: the socket is the kernel's now, and is to be asked.
fn done(outcome: Result<Outcome, Errno>) -> Option<c_int> {
    match outcome {
        Ok(Outcome::Kernel) => None,
        Ok(Outcome::Done) => Some(0),
        Err(e) => Some(status(Err(e))),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    match toe_sockets::open::socket(domain, kind, protocol) {
        Ok(Some(fd)) => fd,
        // SAFETY: its arguments, passed on.
        Ok(None) => unsafe { real!(socket as fn(c_int, c_int, c_int) -> c_int)(domain, kind, protocol) },
        Err(e) => answer(Err(e)),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the application's address.
    let outcome = Sock::find(fd).and_then(|sock| done(unsafe { address(addr, len) }.and_then(|name| sock.bind(name))));
    // SAFETY: its arguments, passed on.
    outcome.unwrap_or_else(|| unsafe { real!(bind as fn(c_int, *const sockaddr, socklen_t) -> c_int)(fd, addr, len) })
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the application's address.
    let outcome = Sock::find(fd).and_then(|sock| done(unsafe { address(addr, len) }.and_then(|name| point(|| sock.connect(name)))));
    // SAFETY: its arguments, passed on.
    outcome.unwrap_or_else(|| unsafe { real!(connect as fn(c_int, *const sockaddr, socklen_t) -> c_int)(fd, addr, len) })
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn listen(fd: c_int, backlog: c_int) -> c_int {
    let outcome = Sock::find(fd).and_then(|sock| done(sock.listen(backlog)));
    // SAFETY: its arguments, passed on.
    outcome.unwrap_or_else(|| unsafe { real!(listen as fn(c_int, c_int) -> c_int)(fd, backlog) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
    match Sock::find(fd) {
        Some(sock) => answer(point(|| sock.accept(flags)).and_then(|(new, name)| {
            if addr.is_null() {
                return Ok(new);
            }
            // SAFETY: the application's room for an address.
            let told = unsafe { put(&name, addr, len) };
            // As Linux: a connection whose peer cannot be named is lost.
            if told.is_err() {
                let _ = toe_sockets::close::close(new);
            }
            told.map(|()| new)
        })),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(accept4 as fn(c_int, *mut sockaddr, *mut socklen_t, c_int) -> c_int)(fd, addr, len, flags) },
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    match Sock::find(fd) {
        // SAFETY: same arguments.
        Some(_) => unsafe { accept4(fd, addr, len, 0) },
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(accept as fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int)(fd, addr, len) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn shutdown(fd: c_int, how: c_int) -> c_int {
    match Sock::find(fd) {
        Some(sock) => status(sock.shutdown(how)),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(shutdown as fn(c_int, c_int) -> c_int)(fd, how) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    match Sock::find(fd) {
        // SAFETY: the application's room for an address.
        Some(sock) => status(sock.local_name().and_then(|name| unsafe { put(&name, addr, len) })),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(getsockname as fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int)(fd, addr, len) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    match Sock::find(fd) {
        // SAFETY: the application's room for an address.
        Some(sock) => status(sock.peer_name().and_then(|name| unsafe { put(&name, addr, len) })),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(getpeername as fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int)(fd, addr, len) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int {
    match Sock::find(fd) {
        Some(sock) => {
            // SAFETY: the application's value.
            let value = unsafe { bytes(value, len) };
            status(value.and_then(|value| sock.set_option(level, name, &value[..value.len().min(VALUE_MAX)])))
        }
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(setsockopt as fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int)(fd, level, name, value, len) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int {
    match Sock::find(fd) {
        Some(sock) => {
            if len.is_null() {
                return status(Err(Errno::FAULT));
            }
            let mut out = [0; VALUE_MAX];
            // SAFETY: the application's length.
            let room = length(unsafe { *len }).map(|room| room.min(out.len()));
            let got = room.and_then(|room| sock.option(level, name, &mut out[..room]));
            let got = got.and_then(|n| if value.is_null() && n > 0 { Err(Errno::FAULT) } else { Ok(n) });
            status(got.map(|n| {
                // SAFETY: `n` is at most the size of the application's value.
                unsafe {
                    std::ptr::copy_nonoverlapping(out.as_ptr(), value.cast(), n);
                    *len = n as socklen_t;
                }
            }))
        }
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(getsockopt as fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int)(fd, level, name, value, len) },
    }
}
