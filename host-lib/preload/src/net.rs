//! Sockets: socket, bind, listen, accept, connect, names and options.

use crate::real::{answer, status};
use libc::{c_int, c_void, sockaddr, socklen_t};
use toe_sockets::open::Outcome;
use toe_sockets::{Errno, Sock};

/// An application's address as bytes. (Longer than any address: cut.)
///
/// # Safety
/// `len` bytes at `addr` are readable.
unsafe fn bytes<'a>(addr: *const sockaddr, len: socklen_t) -> &'a [u8] {
    if addr.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(addr.cast(), (len as usize).min(size_of::<libc::sockaddr_storage>())) }
}

/// Writes an address as accept() and getsockname() do: as much as there is room for, and the true length.
///
/// # Safety
/// `addr` is null, or `*len` bytes there are writable.
unsafe fn put(name: &[u8], addr: *mut sockaddr, len: *mut socklen_t) -> Result<(), Errno> {
    if addr.is_null() || len.is_null() {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe {
        let room = usize::try_from(*len).map_err(|_| Errno::INVAL)?.min(name.len());
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
unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    match toe_sockets::open::socket(domain, kind, protocol) {
        Ok(Some(fd)) => fd,
        // SAFETY: its arguments, passed on.
        Ok(None) => unsafe { real!(socket as fn(c_int, c_int, c_int) -> c_int)(domain, kind, protocol) },
        Err(e) => answer(Err(e)),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the application's address.
    let outcome = Sock::find(fd).and_then(|sock| done(sock.bind(unsafe { bytes(addr, len) })));
    // SAFETY: its arguments, passed on.
    outcome.unwrap_or_else(|| unsafe { real!(bind as fn(c_int, *const sockaddr, socklen_t) -> c_int)(fd, addr, len) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the application's address.
    let outcome = Sock::find(fd).and_then(|sock| done(sock.connect(unsafe { bytes(addr, len) })));
    // SAFETY: its arguments, passed on.
    outcome.unwrap_or_else(|| unsafe { real!(connect as fn(c_int, *const sockaddr, socklen_t) -> c_int)(fd, addr, len) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    let outcome = Sock::find(fd).and_then(|sock| done(sock.listen(backlog)));
    // SAFETY: its arguments, passed on.
    outcome.unwrap_or_else(|| unsafe { real!(listen as fn(c_int, c_int) -> c_int)(fd, backlog) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int {
    match Sock::find(fd) {
        Some(sock) => answer(sock.accept(flags).and_then(|(new, name)| {
            // SAFETY: the application's room for an address.
            unsafe { put(&name, addr, len) }.map(|()| new)
        })),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(accept4 as fn(c_int, *mut sockaddr, *mut socklen_t, c_int) -> c_int)(fd, addr, len, flags) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    match Sock::find(fd) {
        // SAFETY: same arguments.
        Some(_) => unsafe { accept4(fd, addr, len, 0) },
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(accept as fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int)(fd, addr, len) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    match Sock::find(fd) {
        Some(sock) => status(sock.shutdown(how)),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(shutdown as fn(c_int, c_int) -> c_int)(fd, how) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    match Sock::find(fd) {
        // SAFETY: the application's room for an address.
        Some(sock) => status(sock.local_name().and_then(|name| unsafe { put(&name, addr, len) })),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(getsockname as fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int)(fd, addr, len) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    match Sock::find(fd) {
        // SAFETY: the application's room for an address.
        Some(sock) => status(sock.peer_name().and_then(|name| unsafe { put(&name, addr, len) })),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(getpeername as fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int)(fd, addr, len) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int {
    match Sock::find(fd) {
        // SAFETY: the application's value.
        Some(sock) => status(sock.set_option(level, name, unsafe { bytes(value.cast(), len) })),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(setsockopt as fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int)(fd, level, name, value, len) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int {
    match Sock::find(fd) {
        Some(sock) => {
            if value.is_null() || len.is_null() {
                return status(Err(Errno::FAULT));
            }
            let mut out = [0; 256];
            // SAFETY: the application's length.
            let room = (unsafe { *len } as usize).min(out.len());
            status(sock.option(level, name, &mut out[..room]).map(|n| {
                // SAFETY: `n` is at most `room`, the size of the application's value.
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
