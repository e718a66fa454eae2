//! Bytes: read, write, send, recv and their kin.

use crate::cancel::point;
use crate::real::{answer, length};
use libc::{c_int, c_uint, c_void, iovec, mmsghdr, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t, timespec};
use toe_sockets::{Errno, IoSpan, Sock};

/// # Safety
/// `len` bytes at `buf` belong to the call.
unsafe fn one(buf: *const c_void, len: usize) -> [IoSpan; 1] {
    // SAFETY: the caller's promise.
    [unsafe { IoSpan::new(buf.cast_mut().cast(), len) }]
}

/// Sends; EPIPE comes with SIGPIPE unless the call said no.
fn send(sock: Sock, spans: &[IoSpan], flags: c_int) -> ssize_t {
    sent(point(|| sock.send(spans, flags)), flags)
}

fn sent(sent: Result<usize, Errno>, flags: c_int) -> ssize_t {
    if sent == Err(Errno::PIPE) && flags & libc::MSG_NOSIGNAL == 0 {
        // SAFETY: no memory involved; the handler is the application's business.
        unsafe { libc::raise(libc::SIGPIPE) };
    }
    length(sent)
}

fn receive(sock: Sock, spans: &[IoSpan], flags: c_int) -> Result<usize, Errno> {
    point(|| sock.recv(spans, flags))
}

/// The iovecs of a call, as the kernel takes them.
///
/// # Safety
/// `iov` is null or points to `n` iovecs that describe memory of the caller.
unsafe fn vector<'a>(iov: *const iovec, n: usize, too_many: Errno) -> Result<&'a [IoSpan], Errno> {
    match n {
        0 => Ok(&[]),
        n if n > toe_sockets::data::SPANS_MAX => Err(too_many),
        _ if iov.is_null() => Err(Errno::FAULT),
        // SAFETY: the caller's promise.
        n => Ok(unsafe { IoSpan::from_iovec(iov, n) }),
    }
}

/// Of readv(2) and writev(2). (A negative number of them is too many.)
///
/// # Safety
/// As [`vector`].
unsafe fn of_call<'a>(iov: *const iovec, n: c_int) -> Result<&'a [IoSpan], Errno> {
    // SAFETY: the caller's promise.
    unsafe { vector(iov, n as usize, Errno::INVAL) }
}

/// Of recvmsg(2) and sendmsg(2).
///
/// # Safety
/// As [`vector`].
unsafe fn of_message<'a>(msg: &msghdr) -> Result<&'a [IoSpan], Errno> {
    // SAFETY: the caller's promise.
    unsafe { vector(msg.msg_iov, msg.msg_iovlen, Errno::MSGSIZE) }
}

/// read(2) and readv(2): unlike recv(2), they do not wait for room of no bytes to be filled.
fn read_into(sock: Sock, spans: &[IoSpan]) -> Result<usize, Errno> {
    if toe_sockets::is_empty(spans) { Ok(0) } else { receive(sock, spans, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    match Sock::find(fd) {
        // SAFETY: the application's buffer.
        Some(sock) => length(read_into(sock, &unsafe { one(buf, len) })),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(read as fn(c_int, *mut c_void, size_t) -> ssize_t)(fd, buf, len) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __read_chk(fd: c_int, buf: *mut c_void, len: size_t, buflen: size_t) -> ssize_t {
    match Sock::find(fd) {
        // SAFETY: the application's buffer. A length beyond it is left to libc's check.
        Some(sock) if len <= buflen => length(read_into(sock, &unsafe { one(buf, len) })),
        // SAFETY: its arguments, passed on.
        _ => unsafe { real!(__read_chk as fn(c_int, *mut c_void, size_t, size_t) -> ssize_t)(fd, buf, len, buflen) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t {
    match Sock::find(fd) {
        // SAFETY: the application's buffer.
        Some(sock) => send(sock, &unsafe { one(buf, len) }, 0),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(write as fn(c_int, *const c_void, size_t) -> ssize_t)(fd, buf, len) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn readv(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t {
    match Sock::find(fd) {
        // SAFETY: the application's array.
        Some(sock) => length(unsafe { of_call(iov, n) }.and_then(|spans| read_into(sock, spans))),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(readv as fn(c_int, *const iovec, c_int) -> ssize_t)(fd, iov, n) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn writev(fd: c_int, iov: *const iovec, n: c_int) -> ssize_t {
    match Sock::find(fd) {
        // SAFETY: the application's array.
        Some(sock) => match unsafe { of_call(iov, n) } {
            Ok(spans) => send(sock, spans, 0),
            Err(e) => length(Err(e)),
        },
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(writev as fn(c_int, *const iovec, c_int) -> ssize_t)(fd, iov, n) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    match Sock::find(fd) {
        // SAFETY: the application's buffer.
        Some(sock) => length(receive(sock, &unsafe { one(buf, len) }, flags)),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(recv as fn(c_int, *mut c_void, size_t, c_int) -> ssize_t)(fd, buf, len, flags) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __recv_chk(fd: c_int, buf: *mut c_void, len: size_t, buflen: size_t, flags: c_int) -> ssize_t {
    match Sock::find(fd) {
        // SAFETY: the application's buffer.
        Some(sock) if len <= buflen => length(receive(sock, &unsafe { one(buf, len) }, flags)),
        // SAFETY: its arguments, passed on.
        _ => unsafe { real!(__recv_chk as fn(c_int, *mut c_void, size_t, size_t, c_int) -> ssize_t)(fd, buf, len, buflen, flags) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addrlen: *mut socklen_t,
) -> ssize_t {
    match Sock::find(fd) {
        Some(sock) => {
            // SAFETY: the application's buffer.
            let got = receive(sock, &unsafe { one(buf, len) }, flags);
            if got.is_ok() && !addr.is_null() && !addrlen.is_null() {
                // A stream's receive names nobody, as on Linux.
                // SAFETY: the application's length.
                unsafe { *addrlen = 0 };
            }
            length(got)
        }
        // SAFETY: its arguments, passed on.
        None => unsafe {
            real!(recvfrom as fn(c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t)(
                fd, buf, len, flags, addr, addrlen,
            )
        },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __recvfrom_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    buflen: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addrlen: *mut socklen_t,
) -> ssize_t {
    match Sock::find(fd) {
        // SAFETY: the application's arguments.
        Some(_) if len <= buflen => unsafe { recvfrom(fd, buf, len, flags, addr, addrlen) },
        // SAFETY: its arguments, passed on.
        _ => unsafe {
            real!(__recvfrom_chk as fn(c_int, *mut c_void, size_t, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t)(
                fd, buf, len, buflen, flags, addr, addrlen,
            )
        },
    }
}

#[unsafe(export_name = "send")]
unsafe extern "C-unwind" fn send_symbol(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    match Sock::find(fd) {
        // SAFETY: the application's buffer.
        Some(sock) => send(sock, &unsafe { one(buf, len) }, flags),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(send as fn(c_int, *const c_void, size_t, c_int) -> ssize_t)(fd, buf, len, flags) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    addr: *const sockaddr,
    addrlen: socklen_t,
) -> ssize_t {
    match Sock::find(fd) {
        // SAFETY: the application's buffer. A stream ignores the address.
        Some(sock) => send(sock, &unsafe { one(buf, len) }, flags),
        // SAFETY: its arguments, passed on.
        None => unsafe {
            real!(sendto as fn(c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t)(
                fd, buf, len, flags, addr, addrlen,
            )
        },
    }
}

/// recvmsg on a socket of ours: no name, no control data.
///
/// # Safety
/// `msg` is the application's.
unsafe fn receive_message(sock: Sock, msg: *mut msghdr, flags: c_int) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let msg = unsafe { msg.as_mut() }.ok_or(Errno::FAULT)?;
    // SAFETY: the application's array.
    let n = receive(sock, unsafe { of_message(msg) }?, flags)?;
    msg.msg_namelen = 0;
    msg.msg_controllen = 0;
    msg.msg_flags = flags & libc::MSG_OOB;
    Ok(n)
}

/// Shows `each` the descriptors that go or have come with a message: sockets of ours may be among them.
///
/// # Safety
/// `msg` is as recvmsg(2) has left it, or as sendmsg(2) has taken it.
unsafe fn passed_descriptors(msg: &msghdr, each: fn(c_int)) {
    // SAFETY: the control data are whole headers; the macros stay inside it.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(msg);
        while let Some(&libc::cmsghdr { cmsg_level, cmsg_type, cmsg_len, .. }) = head.as_ref() {
            if (cmsg_level, cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let bytes = cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                let fds = libc::CMSG_DATA(head).cast::<c_int>();
                for i in 0..bytes / size_of::<c_int>() {
                    each(fds.add(i).read_unaligned());
                }
            }
            head = libc::CMSG_NXTHDR(msg, head);
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
    match Sock::find(fd) {
        // SAFETY: the application's message.
        Some(sock) => length(unsafe { receive_message(sock, msg, flags) }),
        // SAFETY: its arguments, passed on; after success the message is what the kernel has made of it.
        None => unsafe {
            let n = real!(recvmsg as fn(c_int, *mut msghdr, c_int) -> ssize_t)(fd, msg, flags);
            if n >= 0 {
                passed_descriptors(&*msg, toe_sockets::close::received);
            }
            n
        },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
    match Sock::find(fd) {
        Some(sock) => {
            // SAFETY: the application's message.
            let Some(msg) = (unsafe { msg.as_ref() }) else { return length(Err(Errno::FAULT)) };
            // SAFETY: its array.
            match unsafe { of_message(msg) } {
                Ok(spans) => send(sock, spans, flags),
                Err(e) => length(Err(e)),
            }
        }
        // SAFETY: its arguments, passed on; after success the message is one.
        None => unsafe {
            let n = real!(sendmsg as fn(c_int, *const msghdr, c_int) -> ssize_t)(fd, msg, flags);
            if n >= 0 {
                passed_descriptors(&*msg, toe_sockets::close::sent);
            }
            n
        },
    }
}

/// Runs `each` on the messages until one fails; how many were done, or the first's error.
fn many(n: c_uint, mut each: impl FnMut(usize) -> ssize_t) -> c_int {
    for i in 0..n.min(1024) as usize {
        if each(i) < 0 {
            return if i == 0 { -1 } else { i as c_int };
        }
    }
    n.min(1024) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendmmsg(fd: c_int, messages: *mut mmsghdr, n: c_uint, flags: c_int) -> c_int {
    if Sock::find(fd).is_none() {
        // SAFETY: its arguments, passed on; the messages that it counts were some.
        return unsafe {
            let n = real!(sendmmsg as fn(c_int, *mut mmsghdr, c_uint, c_int) -> c_int)(fd, messages, n, flags);
            (0..n.max(0) as usize).for_each(|i| passed_descriptors(&(*messages.add(i)).msg_hdr, toe_sockets::close::sent));
            n
        };
    }
    many(n, |i| {
        // SAFETY: the application's array of `n` messages.
        unsafe {
            let message = messages.add(i);
            let sent = sendmsg(fd, &raw const (*message).msg_hdr, flags);
            (*message).msg_len = sent.max(0) as c_uint;
            sent
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn recvmmsg(fd: c_int, messages: *mut mmsghdr, n: c_uint, flags: c_int, time: *mut timespec) -> c_int {
    if Sock::find(fd).is_none() {
        // SAFETY: its arguments, passed on; the messages that it counts have come.
        return unsafe {
            let n = real!(recvmmsg as fn(c_int, *mut mmsghdr, c_uint, c_int, *mut timespec) -> c_int)(fd, messages, n, flags, time);
            (0..n.max(0) as usize).for_each(|i| passed_descriptors(&(*messages.add(i)).msg_hdr, toe_sockets::close::received));
            n
        };
    }
    many(n, |i| {
        // Only the first message of a stream is worth waiting for.
        let flags = if i == 0 { flags } else { flags | libc::MSG_DONTWAIT };
        // SAFETY: the application's array of `n` messages.
        unsafe {
            let message = messages.add(i);
            let got = recvmsg(fd, &raw mut (*message).msg_hdr, flags);
            (*message).msg_len = got.max(0) as c_uint;
            got
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendfile(out: c_int, file: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    match Sock::find(out) {
        // SAFETY: null or the application's offset.
        Some(sock) => sent(point(|| sock.sendfile(file, unsafe { offset.as_mut() }, count)), 0),
        None if Sock::find(file).is_some() => answer(Err(Errno::INVAL)),
        // SAFETY: its arguments, passed on.
        None => unsafe { real!(sendfile as fn(c_int, c_int, *mut off_t, size_t) -> ssize_t)(out, file, offset, count) },
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sendfile64(out: c_int, file: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: off_t and off64_t are the same on 64-bit Linux.
    unsafe { sendfile(out, file, offset, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn splice(from: c_int, from_at: *mut off_t, to: c_int, to_at: *mut off_t, len: size_t, flags: c_uint) -> ssize_t {
    if Sock::find(from).is_some() {
        // As for any descriptor that cannot: programs fall back to copying.
        return length(Err(Errno::INVAL));
    }
    if let Some(sock) = Sock::find(to) {
        // Of what is in a pipe already, programs have no other way to get rid.
        let done = match (from_at.is_null(), to_at.is_null()) {
            (true, true) => point(|| sock.splice_from(from, len, flags)),
            (false, _) => Err(Errno::SPIPE),
            (_, false) => Err(Errno::INVAL),
        };
        return sent(done, 0);
    }
    // SAFETY: its arguments, passed on.
    unsafe { real!(splice as fn(c_int, *mut off_t, c_int, *mut off_t, size_t, c_uint) -> ssize_t)(from, from_at, to, to_at, len, flags) }
}
